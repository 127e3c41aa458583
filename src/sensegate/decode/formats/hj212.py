"""HJ 212 (2005, 2017, 2025): the frame with its check value, its content as one element for each value.

The tree: ``{"qn", "st", "cn", "mn", "version", "answer", "packets", "packet", "crc", "time", "odd", "doubt", "content",
"values": [{"name", "code", "kind", "value", "flag", "eflag", "sample_time", …}]}``.

* ``name`` is ``a34004-Rtd`` as sent; in data of a span (CN 2051, 2061, 2031) ``a34004-minute-Avg``, ``-hour-`` or
  ``-day-``: their means are other series than what was measured at that moment.
* ``time`` is DataTime as ISO 8601 without a zone; 24:00:00 is midnight of the next day.
* ``value`` is a number where it is one, null where it is empty, else the text.
* ``odd`` names what is not as the standard has it; ``doubt`` those of them that put the values in doubt.

Of a report in several frames (PNUM, PNO) each becomes readings at once. The memory keeps the time, which often only the
first frame has, and an entry that may have been cut in two, until the next frame shows which it is.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from sensegate import metrics
from sensegate.decode.formats.parts import Pieces
from sensegate.decode.frame import Format, Frame, Parse, Setting
from sensegate.decode.part import Part, says
from sensegate.errors import Rejected
from sensegate.frames import hj212
from sensegate.frames.hj212 import Convention, Hj212Packet
from sensegate.model import QuarantineReason

VALUES_MAX: Final = 2_048
SPANS: Final = {hj212.MINUTE: "minute", hj212.HOUR: "hour", hj212.DAY: "day"}
"""CN -> span of its means."""
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?")
_MARKS: Final = {"Flag": "flag", "EFlag": "eflag", "SampleTime": "sample_time"}
"""Kinds that say something of the other values of their factor."""
_KEY = re.compile(rb"[0-9A-Fa-f]{32}")


class Hj212Part(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the format `hj212`."""

    crc: Annotated[
        tuple[Literal["ansi", "ansi_swapped", "modbus", "modbus_swapped", "off"], ...],
        says("check values that are taken: the standard's (ansi), its bytes exchanged, MODBUS's; off: not looked at"),
    ] = ("ansi",)
    st: Annotated[
        tuple[str, ...], says("system codes that such a station sends; values of another one are uncertain")
    ] = ()
    keys_file: Annotated[
        str, says("file with the SM4 keys of 2025: a line `MN key` each, * for all others, the key as 32 hex digits")
    ] = ""


def _compile(options: Hj212Part | None, setting: Setting) -> Parse:
    part = options or Hj212Part()
    keys = _keys(part.keys_file, setting) if part.keys_file else {}
    taken = frozenset(part.crc)
    systems = frozenset(part.st)

    def parse(frame: Frame) -> dict[str, Any]:
        packet, convention = _checked(hj212.parse(frame.payload), taken, keys)
        return _tree(packet, convention, frame, systems)

    return parse


def _keys(name: str, setting: Setting) -> dict[str, bytes]:
    try:
        lines = (setting.folder / Path(name)).read_bytes().splitlines()
    except OSError as why:
        remedy = f"{why.strerror or why}; a line `MN key` each"
        raise setting.error(f"'{name}' cannot be read", "keys_file", remedy=remedy) from why
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        station, _, key = line.strip().partition(b" ")
        if not station or station.startswith(b"#"):
            continue
        if not _KEY.fullmatch(key.strip()):
            raise setting.error(f"line {number} of '{name}' is wrong", "keys_file", remedy="MN, a blank, 32 hex digits")
        keys[station.decode("utf-8", "replace")] = bytes.fromhex(key.strip().decode())
    return keys


def _checked(packet: Hj212Packet, taken: frozenset[str], keys: dict[str, bytes]) -> tuple[Hj212Packet, str]:
    """Return the packet in plain text and the convention of its check value; refuse one that the profile does not take.

    The check value is that of the plain text: it also tells whether the content was encrypted.
    """
    convention = hj212.detect_convention(packet.data, packet.crc)
    key = keys.get(packet.fields.get("MN", ""), keys.get("*"))
    if convention is None and key is not None and packet.may_be_encrypted:
        plain = hj212.decrypt(packet, key)
        convention = hj212.detect_convention(plain.data, plain.crc)
        packet = plain if convention else packet
    metrics.FRAME_CHECKS.labels("hj212", convention or "none").inc()
    if "off" in taken or (convention and convention in taken):
        return packet, convention or "off"
    if convention:
        raise Rejected(
            QuarantineReason.CRC_FAIL, f"right by '{convention}', which the profile does not take: hj212.crc"
        )
    said = f"{packet.crc.decode()} sent, {hj212.checksum(packet.data, Convention.ANSI):04X} would be right"
    if packet.may_be_encrypted and key is None:
        said += "; if the content is encrypted, its key is missing: hj212.keys_file"
    raise Rejected(QuarantineReason.CRC_FAIL, said)


def _tree(packet: Hj212Packet, convention: str, frame: Frame, systems: frozenset[str]) -> dict[str, Any]:
    sent = packet.fields
    odd: list[str] = []
    if len(sent.get("QN", "")) != 17 or not sent["QN"].isdigit():
        odd.append("qn")
    if packet.flag < 0:
        odd.append("flag")
    doubt = ["st"] if systems and sent.get("ST", "") not in systems else []
    packets, packet_number = _number(sent.get("PNUM", "1")), _number(sent.get("PNO", "1"))
    text = _text(packet.content)
    pieces = Pieces.of("hj212", f"{frame.topic}\0{sent.get('MN', '')}\0{sent.get('QN', '')}\0{packets}", frame)
    time: str | None = None
    if packets > 1:
        time, text = pieces.join(text, packet_number, packets)
    content, values = _entries(text, SPANS.get(sent.get("CN", ""), ""))
    if "DataTime" in content:
        raw = content["DataTime"]
        time = _time(raw)
        if len(raw) != 14:
            odd.append("time")
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
        "odd": [*odd, *doubt],
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
    """Return DataTime (14 digits, or 17 with milliseconds) as ISO 8601; as it is where it is no time."""
    if len(raw) not in {14, 17} or not (raw.isascii() and raw.isdigit()):
        return raw
    midnight = raw[8:14] == "240000"
    try:
        at = datetime.strptime(raw[:8] + ("000000" if midnight else raw[8:14]), "%Y%m%d%H%M%S")  # noqa: DTZ007 - local
        at += timedelta(days=1 if midnight else 0)
    except (ValueError, OverflowError):
        return raw
    return f"{at:%Y-%m-%dT%H:%M:%S}" + (f".{raw[14:]}" if raw[14:] else "")


def _entries(text: str, span: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return (keys that belong to no factor, an element for each value)."""
    content: dict[str, str] = {}
    marks: dict[str, dict[str, str]] = {}
    values: list[dict[str, Any]] = []
    for entry in text.split(";"):
        for pair in entry.split(","):
            key, _, raw = pair.strip().partition("=")
            code, dash, kind = key.rpartition("-")
            if not key:
                continue
            if not dash:
                content.setdefault(key, raw)
            elif kind in _MARKS:
                marks.setdefault(code, {}).setdefault(_MARKS[kind], raw)
            else:
                name = f"{code}-{span}-{kind}" if span else key
                values.append({"name": name, "code": code, "kind": kind, "value": _value(raw)})
        if len(values) > VALUES_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {VALUES_MAX} values")
    for value in values:
        said = marks.get(value["code"], {})
        value["flag"] = said.get("flag")
        if "eflag" in said:
            value["eflag"] = said["eflag"]
        if "sample_time" in said:
            value["sample_time"] = _time(said["sample_time"])
    return content, values


def _value(raw: str) -> float | str | None:
    raw = raw.strip()
    if not raw:
        return None
    return float(raw) if _NUMBER.fullmatch(raw) else raw


FORMAT = Format(_compile, Hj212Part)
