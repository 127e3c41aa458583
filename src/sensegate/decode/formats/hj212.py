"""HJ 212 (2005, 2017, 2025): the frame with its checksum, and its content with one element for each value.

The tree: ``{"qn", "st", "cn", "mn", "version", "answer", "packets", "packet", "crc", "time", "odd", "doubt", "content",
"values": [{"name", "code", "kind", "value", "flag", "eflag", "sample_time", …}]}``.

* ``name`` is ``a34004-Rtd`` as sent; in data of a period (CN 2051, 2061, 2031) ``a34004-minute-Avg``, ``-hour-`` or
  ``-day-``: means of a period are other series than values measured at that moment.
* ``time`` is DataTime as ISO 8601 without a zone; 24:00:00 is midnight of the next day.
* ``value`` is a number if it is one, null if it is empty, else the text.
* ``odd`` lists deviations from the standard; ``doubt`` those of them that make the values doubtful.

Each frame of a report in several frames (PNUM, PNO) becomes readings at once. The decoder's memory keeps the time,
which often only the first frame has, and an entry that may have been split, until the next frame decides.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from sensegate import metrics
from sensegate.decode.formats.hj212_columns import Hj212Columns
from sensegate.decode.formats.parts import SplitReport
from sensegate.decode.frame import FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.decode.part import ProfilePart, description
from sensegate.errors import Rejected
from sensegate.frames import hj212
from sensegate.frames.hj212 import Convention, Hj212Packet
from sensegate.model import QuarantineReason

VALUES_MAX: Final = 2_048
PERIODS: Final = {hj212.MINUTE: "minute", hj212.HOUR: "hour", hj212.DAY: "day"}
"""CN -> period of its means."""
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?")
_QUALIFIERS: Final = {"Flag": "flag", "EFlag": "eflag", "SampleTime": "sample_time"}
"""Kinds that qualify the other values of their factor."""
_KEY = re.compile(rb"[0-9A-Fa-f]{32}")


class Hj212Part(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the format `hj212`."""

    crc: Annotated[
        tuple[Literal["ansi", "ansi_swapped", "modbus", "modbus_swapped", "off"], ...],
        description("accepted checksums: the standard's (ansi), its bytes swapped, MODBUS's; off: not checked"),
    ] = ("ansi",)
    st: Annotated[
        tuple[str, ...], description("system codes that such a station sends; values with another one are uncertain")
    ] = ()
    keys_file: Annotated[
        str,
        description("file with the SM4 keys of 2025: lines of `MN key`, * for all others, the key as 32 hex digits"),
    ] = ""


def _compile(options: Hj212Part | None, context: FormatContext) -> Parse:
    part = options or Hj212Part()
    keys = _keys(part.keys_file, context) if part.keys_file else {}
    accepted = frozenset(part.crc)
    systems = frozenset(part.st)

    def parse(frame: PayloadFrame) -> dict[str, Any]:
        packet, convention = _verified(hj212.parse(frame.payload), accepted, keys)
        return _tree(packet, convention, frame, systems)

    return Hj212Columns(parse, _time, PERIODS, accepted, systems)


def _keys(name: str, context: FormatContext) -> dict[str, bytes]:
    try:
        lines = (context.folder / Path(name)).read_bytes().splitlines()
    except OSError as error:
        remedy = f"{error.strerror or error}; it must have lines of `MN key`"
        raise context.error(f"'{name}' cannot be read", "keys_file", remedy=remedy) from error
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        station, _, key = line.strip().partition(b" ")
        if not station or station.startswith(b"#"):
            continue
        if not _KEY.fullmatch(key.strip()):
            raise context.error(
                f"line {number} of '{name}' is not valid", "keys_file", remedy="MN, a space, 32 hex digits"
            )
        keys[station.decode("utf-8", "replace")] = bytes.fromhex(key.strip().decode())
    return keys


def _verified(packet: Hj212Packet, accepted: frozenset[str], keys: dict[str, bytes]) -> tuple[Hj212Packet, str]:
    """Return the packet in plain text and its checksum convention; refuse a checksum that the profile does not accept.

    The checksum is that of the plain text: it also tells whether the content was encrypted.
    """
    convention = hj212.detect_convention(packet.data, packet.crc)
    key = keys.get(packet.fields.get("MN", ""), keys.get("*"))
    if convention is None and key is not None and packet.may_be_encrypted:
        plain = hj212.decrypt(packet, key)
        convention = hj212.detect_convention(plain.data, plain.crc)
        packet = plain if convention else packet
    metrics.FRAME_CHECKS.labels("hj212", convention or "none").inc()
    if "off" in accepted or (convention and convention in accepted):
        return packet, convention or "off"
    if convention:
        raise Rejected(
            QuarantineReason.CRC_FAIL, f"valid by '{convention}', which the profile does not accept (hj212.crc)"
        )
    detail = f"{packet.crc.decode()} sent, {hj212.checksum(packet.data, Convention.ANSI):04X} expected"
    if packet.may_be_encrypted and key is None:
        detail += "; if the content is encrypted, its key is missing (hj212.keys_file)"
    raise Rejected(QuarantineReason.CRC_FAIL, detail)


def _tree(packet: Hj212Packet, convention: str, frame: PayloadFrame, systems: frozenset[str]) -> dict[str, Any]:
    sent = packet.fields
    deviations: list[str] = []
    if len(sent.get("QN", "")) != 17 or not sent["QN"].isdigit():
        deviations.append("qn")
    if packet.flag < 0:
        deviations.append("flag")
    doubt = ["st"] if systems and sent.get("ST", "") not in systems else []
    packets, packet_number = _number(sent.get("PNUM", "1")), _number(sent.get("PNO", "1"))
    text = _text(packet.content)
    pieces = SplitReport("hj212", f"{sent.get('MN', '')}\0{sent.get('QN', '')}\0{packets}", frame)
    time: str | None = None
    if packets > 1:
        time, text = pieces.join(text, packet_number, packets)
    content, values = _entries(text, PERIODS.get(sent.get("CN", ""), ""))
    if "DataTime" in content:
        raw = content["DataTime"]
        time = _time(raw)
        if len(raw) != 14:
            deviations.append("time")
    pieces.keep(time)
    return {
        "qn": sent.get("QN"),
        "st": sent.get("ST", ""),
        "cn": sent.get("CN", ""),
        "mn": sent.get("MN", ""),
        "version": packet.version,
        "answer": packet.expects_answer,
        "packets": packets,
        "packet": packet_number,
        "crc": str(convention),
        "time": time,
        "odd": [*deviations, *doubt],
        "doubt": doubt,
        "content": content,
        "values": values,
    }


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= 4 else 1


def _text(content: bytes) -> str:
    for charset in ("utf-8", "gb18030"):
        try:
            return content.decode(charset)
        except UnicodeDecodeError:
            continue
    raise Rejected(QuarantineReason.NOT_UTF8, "the content is neither UTF-8 nor GB 18030")


def _time(raw: str) -> str:
    """Return DataTime (14 digits, or 17 with milliseconds) as ISO 8601; unchanged if it is not a time."""
    return _iso(raw) if len(raw) in {14, 17} else raw


@lru_cache(8_192)  # stations report at the same seconds
def _iso(raw: str) -> str:
    if not (raw.isascii() and raw.isdigit()):
        return raw
    midnight = raw[8:14] == "240000"
    try:
        clock = (0, 0, 0) if midnight else (int(raw[8:10]), int(raw[10:12]), int(raw[12:14]))
        time = datetime(int(raw[:4]), int(raw[4:6]), int(raw[6:8]), *clock)  # noqa: DTZ001 - the station's own clock
        time += timedelta(days=1 if midnight else 0)
    except (ValueError, OverflowError):
        return raw
    return f"{time:%Y-%m-%dT%H:%M:%S}" + (f".{raw[14:]}" if raw[14:] else "")


def _entries(text: str, period: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return (keys that belong to no factor, one element for each value)."""
    content: dict[str, str] = {}
    qualifiers: dict[str, dict[str, str]] = {}
    values: list[dict[str, Any]] = []
    for entry in text.split(";"):
        for pair in entry.split(","):
            key, _, raw = pair.strip().partition("=")
            code, dash, kind = key.rpartition("-")
            if not key:
                continue
            if not dash:
                content.setdefault(key, raw)
            elif kind in _QUALIFIERS:
                qualifiers.setdefault(code, {}).setdefault(_QUALIFIERS[kind], raw)
            else:
                name = f"{code}-{period}-{kind}" if period else key
                values.append({"name": name, "code": code, "kind": kind, "value": _value(raw)})
        if len(values) > VALUES_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {VALUES_MAX} values")
    for value in values:
        qualifier = qualifiers.get(value["code"], {})
        value["flag"] = qualifier.get("flag")
        if "eflag" in qualifier:
            value["eflag"] = qualifier["eflag"]
        if "sample_time" in qualifier:
            value["sample_time"] = _time(qualifier["sample_time"])
    return content, values


def _value(raw: str) -> float | str | None:
    raw = raw.strip()
    if not raw:
        return None
    return float(raw) if _NUMBER.fullmatch(raw) else raw


FORMAT = PayloadFormat(_compile, Hj212Part)
