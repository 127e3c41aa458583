"""SL 651-2014, hydrology: ``7E7E`` with binary and BCD fields, or the same fields as text after ``01``.

    uplink    start, centre 1, station 5 (BCD), password 2, function 1, direction and length 2,
              STX or SYN, serial 2, sent 6 (BCD), elements, ETX or ETB, CRC 2
    downlink  the same with the station before the centre

The CRC is MODBUS's, most significant byte first, over all preceding bytes. In text form each byte is two hex digits.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from sensegate.errors import Rejected
from sensegate.frames.checks import crc_modbus
from sensegate.frames.framing import find_sound, keep_from
from sensegate.model import Framing, QuarantineReason

MARK: Final = b"\x7e\x7e"
TEXT_MARK: Final = b"\x01"
_HEAD, _TEXT_HEAD = 13, 23
"""Bytes before STX."""
_TAIL, _TEXT_TAIL = 3, 5
STX, SYN = 0x02, 0x16
ETX, EOT, ENQ, ACK, NAK, ETB, ESC = 0x03, 0x04, 0x05, 0x06, 0x15, 0x17, 0x1B
_ENDS: Final = frozenset({ETX, EOT, ENQ, ACK, NAK, ETB, ESC})
_DIGITS: Final = frozenset(b"0123456789ABCDEFabcdef")
_PACKETS = 3
"""Bytes that number the packets of a split report; twice as many in text form."""
KEEP_ALIVE: Final = 0x2F
REPORTS: Final = frozenset(range(0x30, 0x37))
"""Functions that a station sends unasked and a centre confirms; the keep-alive is not answered (6.6.4.2)."""


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────


def next_frame(buffer: bytes) -> Framing:
    """Find the next frame of either form."""
    at = 0
    binary, text = buffer.find(MARK), buffer.find(TEXT_MARK)
    while True:
        # Each mark is searched again only after it was passed: a mark that does not occur costs one search.
        if 0 <= binary < at:
            binary = buffer.find(MARK, at)
        if 0 <= text < at:
            text = buffer.find(TEXT_MARK, at)
        if binary < 0 and text < 0:
            return Framing(keep_from(buffer, MARK, at))
        at = min(place for place in (binary, text) if place >= 0)
        is_text = at == text
        head = buffer[at : at + (_TEXT_HEAD if is_text else _HEAD) + 1]
        length = _length(head, is_text=is_text)
        if length is None:
            return Framing(at)
        if length:
            if len(buffer) < at + length:
                return _find_inner(buffer, at, len(buffer)) or Framing(at)
            if buffer[at + length - (_TEXT_TAIL if is_text else _TAIL)] in _ENDS:
                inner = None if _sound_length(buffer, at) else _find_inner(buffer, at, at + length)
                return inner or Framing(at, length)
        at += 1


def _find_inner(buffer: bytes, start: int, stop: int) -> Framing | None:
    frames = (find_sound(buffer, start, stop, mark, _sound_length) for mark in (MARK, TEXT_MARK))
    return min((frame for frame in frames if frame), key=lambda frame: frame.skip, default=None)


def _sound_length(buffer: bytes, at: int) -> int:
    is_text = buffer.startswith(TEXT_MARK, at)
    length = _length(buffer[at : at + (_TEXT_HEAD if is_text else _HEAD) + 1], is_text=is_text) or 0
    frame = buffer[at : at + length]
    if not length or len(frame) < length or frame[-_TEXT_TAIL if is_text else -_TAIL] not in _ENDS:
        return 0
    crc = frame[-_TEXT_TAIL + 1 :] if is_text else frame[-_TAIL + 1 :]
    if is_text and not _DIGITS.issuperset(crc):
        return 0
    sent_crc = int(crc, 16) if is_text else int.from_bytes(crc)
    return length if crc_modbus(frame[: -len(crc)]) == sent_crc else 0


def _length(head: bytes, *, is_text: bool) -> int | None:
    """Return the length of a frame from its header and STX; None: more bytes are needed, 0: not a frame."""
    size = _TEXT_HEAD if is_text else _HEAD
    if is_text:
        if not _DIGITS.issuperset(head[1:size]):
            return 0
        word = int(head[19:23], 16) if len(head) >= size else 0
    else:
        word = int.from_bytes(head[11:13]) if len(head) >= size else 0
    if len(head) <= size:
        return None
    if word >> 12 not in {0, 8} or head[size] not in {STX, SYN}:
        return 0
    return size + 1 + (word & 0xFFF) + (_TEXT_TAIL if is_text else _TAIL)


# ── the frame ────────────────────────────────────────────────────────────────────────────────────────


class Sl651Report(msgspec.Struct, frozen=True):
    """A frame with its header fields; the elements are left undecoded."""

    text: bool
    """True if it is in text form."""
    up: bool
    """True: from a station; False: to a station."""
    centre: int
    station: str
    """Ten digits."""
    password: str
    """Four hex digits."""
    function: int
    packets: int
    """Number of packets of the report."""
    packet: int
    """Number of this packet, from 1."""
    serial: int
    sent: str
    """``yyMMddHHmmss``; empty in the later packets of a report."""
    body: bytes
    """The elements, as bytes or as text."""
    end: int
    """Control character after the body."""
    checksum_ok: bool
    """True if the CRC is right."""


def parse(frame: bytes) -> Sl651Report:
    """Parse a frame. Raises `Rejected` (malformed) if it is not one."""
    is_text = frame.startswith(TEXT_MARK)
    head_size, tail_size = (_TEXT_HEAD, _TEXT_TAIL) if is_text else (_HEAD, _TAIL)
    if not is_text and not frame.startswith(MARK):
        raise Rejected(QuarantineReason.MALFORMED, "the frame starts with neither 7E7E nor 01")
    length = _length(frame[: head_size + 1], is_text=is_text)
    if not length or length != len(frame):
        raise Rejected(
            QuarantineReason.MALFORMED, f"the frame has {len(frame)} bytes, not the length that its header announces"
        )
    head = bytes.fromhex(frame[1:head_size].decode()) if is_text else frame[2:head_size]
    crc = frame[-tail_size + 1 :]
    if is_text and not _DIGITS.issuperset(crc):
        raise Rejected(QuarantineReason.MALFORMED, "the CRC is not four hex digits")
    sent_crc = int(crc, 16) if is_text else int.from_bytes(crc)
    up = head[9] >> 4 == 0
    centre, station = (head[0], head[1:6]) if up else (head[5], head[:5])
    several = frame[head_size] == SYN
    packets, packet, body = _split_packet_numbers(frame[head_size + 1 : -tail_size], several=several, is_text=is_text)
    serial, sent, body = _split_serial(body, is_text=is_text) if packet == 1 else (0, "", body)
    return Sl651Report(
        text=is_text,
        up=up,
        centre=centre,
        station=station.hex().upper(),
        password=head[6:8].hex().upper(),
        function=head[8],
        packets=packets,
        packet=packet,
        serial=serial,
        sent=sent,
        body=body,
        end=frame[-tail_size],
        checksum_ok=crc_modbus(frame[: -tail_size + 1]) == sent_crc,
    )


def _split_packet_numbers(body: bytes, *, several: bool, is_text: bool) -> tuple[int, int, bytes]:
    if not several:
        return 1, 1, body
    size = _PACKETS * 2 if is_text else _PACKETS
    numbers = body[:size]
    if len(numbers) < size or (is_text and not _DIGITS.issuperset(numbers)):
        raise Rejected(QuarantineReason.MALFORMED, "the packet numbers are missing")
    both = int(numbers, 16) if is_text else int.from_bytes(numbers)
    return both >> 12, both & 0xFFF, body[size:]


def _split_serial(body: bytes, *, is_text: bool) -> tuple[int, str, bytes]:
    size = 16 if is_text else 8
    if len(body) < size or (is_text and not _DIGITS.issuperset(body[:size])):
        raise Rejected(QuarantineReason.MALFORMED, "serial number and sending time are missing")
    if is_text:
        return int(body[:4], 16), body[4:16].decode(), body[16:]
    return int.from_bytes(body[:2]), body[2:8].hex(), body[8:]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────


class Sl651Head(NamedTuple):
    """Addresses, password and function of a frame."""

    centre: int
    station: str
    password: str
    function: int


def build(head: Sl651Head, body: bytes, end: int, *, up: bool, text: bool = False) -> bytes:
    """Build a frame of one packet; `body` starts with serial number and time (in text form: their hex digits)."""
    centre, station, password, function = head
    first = f"{centre:02X}{station}" if up else f"{station}{centre:02X}"
    line = f"{first}{password}{function:02X}{'0' if up else '8'}{len(body):03X}"
    start = TEXT_MARK + line.encode() if text else MARK + bytes.fromhex(line)
    frame = start + bytes([STX]) + body + bytes([end])
    crc = crc_modbus(frame)
    return frame + (f"{crc:04X}".encode() if text else crc.to_bytes(2))


def build_confirmation(report: Sl651Report, now: datetime, end: int = ESC) -> bytes:
    """Build the confirmation of a stored report; `end`: ESC keeps the station connected, EOT releases it.

    `now`: the centre's clock, in the station's time zone.
    """
    body = f"{report.serial:04X}{now:%y%m%d%H%M%S}"
    return build(
        Sl651Head(report.centre, report.station, report.password, report.function),
        body.encode() if report.text else bytes.fromhex(body),
        ACK if report.end == ETB else end,
        up=False,
        text=report.text,
    )
