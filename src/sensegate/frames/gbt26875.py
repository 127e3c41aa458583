"""GB/T 26875.3-2011, fire: ``@@`` control unit, application data, sum, ``##``; numbers with the low byte first.

    40 40, serial 2, version 2, time 6 (s m h d M yy), source 6, target 6, length 2, command 1, data, sum 1, 23 23

The sum runs from the serial number to the end of the data, modulo 256 (clause 6.6).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from sensegate.errors import Rejected
from sensegate.frames.checks import sum8
from sensegate.frames.framing import Cut, last_start
from sensegate.model import QuarantineReason

MARK: Final = b"@@"
END: Final = b"##"
_HEAD = 27
_TAIL = 3
_LOOKS = 8
"""So many marks are tried behind a head that waits."""
DATA_MAX: Final = 1024
"""Longest application data unit."""
CONTROL, SEND, CONFIRM, REQUEST, RESPONSE, REJECT = range(1, 7)
"""Commands."""
TIME = 6


def cut(buffer: bytes) -> Cut:
    """Find the next frame: nothing is escaped, so marks, length and end must agree."""
    at = 0
    while True:
        at = buffer.find(MARK, at)
        if at < 0:
            return Cut(last_start(buffer, MARK))
        length = _length(buffer, at)
        if length < 0:
            return Cut(at)
        if length and len(buffer) < at + length:
            return _behind(buffer, at) or Cut(at)
        if length and buffer.startswith(END, at + length - 2):
            return Cut(at, length)
        at += 1


def _length(buffer: bytes, at: int) -> int:
    """Return the length of a frame that begins at a place, -1: its head is not there yet, 0: it is none."""
    if len(buffer) < at + _HEAD:
        return -1
    size = int.from_bytes(buffer[at + 24 : at + 26], "little")
    return _HEAD + size + _TAIL if size <= DATA_MAX else 0


def _behind(buffer: bytes, at: int) -> Cut | None:
    """Find a whole frame behind a head that waits for more, and may be the rest of one that was cut short."""
    for _ in range(_LOOKS):
        at = buffer.find(MARK, at + 1)
        length = _length(buffer, at) if at >= 0 else -1
        if length < 0:
            return None
        frame = buffer[at : at + length]
        if frame.endswith(END) and len(frame) == length and sum8(frame[2:-_TAIL]) == frame[-_TAIL]:
            return Cut(at, length)
    return None


class Unit(msgspec.Struct, frozen=True):
    """One frame, taken apart as far as all kinds of it are alike."""

    serial: int
    version: bytes
    sent: bytes
    """Six bytes: second, minute, hour, day, month, year."""
    source: bytes
    target: bytes
    """Six bytes each, low byte first."""
    command: int
    data: bytes
    right: bool
    """Whether the sum fits."""


def address(raw: bytes) -> str:
    """Return an address as people write it: twelve hex digits, the high byte first."""
    return raw[::-1].hex().upper()


def read(frame: bytes) -> Unit:
    """Return what a frame holds. Raises `Rejected` (malformed) where it is none."""
    if not frame.startswith(MARK) or not frame.endswith(END) or len(frame) < _HEAD + _TAIL:
        raise Rejected(QuarantineReason.MALFORMED, "does not stand between @@ and ##")
    size = int.from_bytes(frame[24:26], "little")
    if size != len(frame) - _HEAD - _TAIL:
        there = len(frame) - _HEAD - _TAIL
        raise Rejected(QuarantineReason.MALFORMED, f"{size} bytes of data announced, {there} there")
    return Unit(
        serial=int.from_bytes(frame[2:4], "little"),
        version=frame[4:6],
        sent=frame[6:12],
        source=frame[12:18],
        target=frame[18:24],
        command=frame[26],
        data=frame[_HEAD:-_TAIL],
        right=sum8(frame[2:-_TAIL]) == frame[-_TAIL],
    )


def build(unit: Unit) -> bytes:
    """Return the frame of a unit, with the right sum."""
    inner = b"".join(
        (
            unit.serial.to_bytes(2, "little"),
            unit.version,
            unit.sent,
            unit.source,
            unit.target,
            len(unit.data).to_bytes(2, "little"),
            bytes([unit.command]),
            unit.data,
        )
    )
    return MARK + inner + bytes([sum8(inner)]) + END


def answer(unit: Unit, now: datetime, command: int = CONFIRM) -> bytes:
    """Return the confirmation (or rejection) of what a device sent; `now`: the centre's clock, in the device's zone."""
    sent = bytes([now.second, now.minute, now.hour, now.day, now.month, now.year % 100])
    return build(
        msgspec.structs.replace(unit, sent=sent, source=unit.target, target=unit.source, command=command, data=b"")
    )
