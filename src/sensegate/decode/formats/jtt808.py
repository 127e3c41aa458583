"""JT/T 808: position and motion of a vehicle, with one element for each report.

The tree: ``{"message", "phone", "serial", "version", "packets", "packet", "late", "reports": [{"time", "lat", "lon",
"altitude", "speed", "heading", "alarm", "alarms", "status", "states", "items", "mileage", "fuel", …}]}``; ``message``
as four hex digits, ``items`` by their id (two hex digits) as hex. 0200 and 0704 have reports, and the answers to a
query of the position (0201) and to a control (0500); ``late`` is true for reports of an area without coverage (0704 of
type 1). What is cut short or has another size than the standard's is left out with a warning, and the rest is kept.
Times are ISO 8601 without a zone (GMT+8 by the standard).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sensegate import metrics
from sensegate.decode.formats.jtt808_columns import Jtt808Columns
from sensegate.decode.frame import PayloadFormat, PayloadFrame, WarnedObject
from sensegate.errors import Rejected
from sensegate.frames import jtt808
from sensegate.model import QuarantineReason

REPORTS_MAX: Final = 1_024
_BASIC = 28
_SERIAL_BYTES = 2
ALARMS: Final = {
    0: "emergency",
    1: "speeding",
    2: "fatigue",
    3: "danger",
    4: "gnss_fault",
    5: "antenna_open",
    6: "antenna_short",
    7: "supply_low",
    8: "supply_lost",
    18: "driving_time",
    19: "parking_time",
    26: "stolen",
    27: "illegal_start",
    28: "illegal_move",
    29: "collision",
    30: "rollover",
}
"""Bits of the alarm word (table 24)."""
STATES: Final = {0: "ignition", 1: "positioned", 4: "stopped", 10: "oil_cut", 11: "circuit_cut", 12: "locked"}
"""Bits of the status word (table 25)."""
_SOUTH, _WEST = 1 << 2, 1 << 3
ITEMS: Final = {
    "01": ("mileage", 4, 10),
    "02": ("fuel", 2, 10),
    "03": ("recorder_speed", 2, 10),
    "30": ("signal", 1, 1),
    "31": ("satellites", 1, 1),
}
"""Additional item -> (name, bytes, steps for each unit): km, L, km/h (table 27)."""

Report = dict[str, Any]


def parse(payload: bytes) -> dict[str, Any]:
    """Return the tree. Raises `Rejected` if the payload is not a frame, or its checksum is wrong."""
    message = jtt808.parse(payload)
    metrics.FRAME_CHECKS.labels("jtt808", "xor8" if message.checksum_ok else "none").inc()
    if not message.checksum_ok:
        raise Rejected(QuarantineReason.CRC_FAIL, "the XOR checksum does not match")
    late = False
    reports: list[Report] = []
    warnings: list[str] = []
    if message.message in jtt808.POSITIONS:
        if message.encrypted or message.packets > 1:
            form = "encrypted" if message.encrypted else "in several packets"
            raise Rejected(QuarantineReason.SCHEMA, f"a position that is {form} cannot be read")
        if message.message == jtt808.LOCATION:
            reports = [_report(message.body, warnings)]
        elif message.message == jtt808.LOCATIONS:
            late = message.body[2:3] == b"\x01"
            reports = _batch_reports(message.body, warnings)
        else:
            reports = [_report(message.body[_SERIAL_BYTES:], warnings)]
    tree = {
        "message": f"{message.message:04X}",
        "phone": message.phone,
        "serial": message.serial,
        "version": message.version,
        "packets": message.packets,
        "packet": message.packet,
        "late": late,
        "reports": reports,
    }
    return WarnedObject(tree, warnings) if warnings else tree


def _batch_reports(body: bytes, warnings: list[str]) -> list[Report]:
    count = int.from_bytes(body[:2])
    if count > REPORTS_MAX:
        raise Rejected(QuarantineReason.SCHEMA, f"more than {REPORTS_MAX} reports")
    position = 3
    reports: list[Report] = []
    for _ in range(count):
        length = int.from_bytes(body[position : position + 2])
        position += 2
        if len(body) < position + length or not length:
            if not reports:
                raise Rejected(QuarantineReason.MALFORMED, f"{count} reports announced, the first is truncated")
            warnings.append(f"{count} reports announced, truncated after {len(reports)}")
            return reports
        if length < _BASIC:
            warnings.append(f"a report of {length} bytes is left out; a position has at least {_BASIC}")
        else:
            reports.append(_report(body[position : position + length], warnings))
        position += length
    if not reports and count:
        raise Rejected(QuarantineReason.MALFORMED, f"none of {count} reports has a position")
    if position != len(body):
        warnings.append(f"{len(body) - position} bytes after the last of {count} reports")
    return reports


def _report(body: bytes, warnings: list[str]) -> Report:
    if len(body) < _BASIC:
        raise Rejected(QuarantineReason.MALFORMED, f"a position has at least {_BASIC} bytes; there are {len(body)}")
    alarm, status = int.from_bytes(body[:4]), int.from_bytes(body[4:8])
    lat, lon = int.from_bytes(body[8:12]) / 1e6, int.from_bytes(body[12:16]) / 1e6
    items = _items(body[_BASIC:], warnings)
    report: Report = {
        "time": _clock(body[22:_BASIC]),
        "lat": -lat if status & _SOUTH else lat,
        "lon": -lon if status & _WEST else lon,
        "altitude": int.from_bytes(body[16:18], signed=True),
        "speed": int.from_bytes(body[18:20]) / 10,
        "heading": int.from_bytes(body[20:22]),
        "alarm": alarm,
        "alarms": {name: bool(alarm >> bit & 1) for bit, name in ALARMS.items()},
        "status": status,
        "states": {name: bool(status >> bit & 1) for bit, name in STATES.items()},
        "items": items,
    }
    for number, (name, size, steps) in ITEMS.items():
        if (digits := items.get(number)) is None:
            continue
        if len(digits) == 2 * size:
            report[name] = int(digits, 16) / steps
        else:
            warnings.append(f"item {number} has {len(digits) // 2} bytes; {name} has {size}")
    return report


def _items(raw: bytes, warnings: list[str]) -> dict[str, str]:
    items: dict[str, str] = {}
    position = 0
    while position + 2 <= len(raw):
        number, length = raw[position], raw[position + 1]
        value = raw[position + 2 : position + 2 + length]
        if len(value) < length:
            warnings.append(f"item {number:02X} is truncated")
            return items
        items[f"{number:02X}"] = value.hex().upper()
        position += 2 + length
    if position < len(raw):
        warnings.append("the last item is truncated")
    return items


@lru_cache(8_192)  # vehicles report at the same seconds
def _clock(raw: bytes) -> str:
    """Return six BCD bytes (yyMMddHHmmss) as ISO 8601; their hex digits if they are not a time."""
    digits = raw.hex()
    ends_day = digits[6:] == "240000"
    try:
        time = datetime.strptime(f"20{digits[:6]}000000" if ends_day else f"20{digits}", "%Y%m%d%H%M%S")  # noqa: DTZ007 - GMT+8 by the standard
    except ValueError:
        return digits
    return f"{time + timedelta(days=ends_day):%Y-%m-%dT%H:%M:%S}"


def _parse(frame: PayloadFrame) -> dict[str, Any]:
    return parse(frame.payload)


FORMAT: Final = PayloadFormat(lambda _options, _context: Jtt808Columns(_parse, _clock, ALARMS, STATES, ITEMS))
