"""GB/T 26875.3-2011, fire alarm systems: ``@@``, control unit, application data, checksum, ``##``; little-endian.

    40 40, serial 2, version 2, time 6 (s m h d M yy), source 6, target 6, length 2, command 1, data, sum 1, 23 23

The checksum covers the serial number to the end of the data, modulo 256 (clause 6.6).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from sensegate.errors import Rejected
from sensegate.frames.checks import sum8
from sensegate.frames.framing import find_sound, keep_from
from sensegate.model import Framing, QuarantineReason

MARK: Final = b"@@"
END: Final = b"##"
_HEAD = 27
_TAIL = 3
DATA_MAX: Final = 1024
"""Greatest length of the application data unit in bytes."""
CONTROL, SEND, CONFIRM, REQUEST, RESPONSE, REJECT = range(1, 7)
"""Command codes."""
TIME = 6


def next_frame(buffer: bytes) -> Framing:
    """Find the next frame: nothing is escaped, so delimiters, length and end mark must agree."""
    at = 0
    while True:
        at = buffer.find(MARK, at)
        if at < 0:
            return Framing(keep_from(buffer, MARK))
        length = _length(buffer, at)
        if length < 0:
            return Framing(at)
        if length and len(buffer) < at + length:
            return find_sound(buffer, at, len(buffer), MARK, _sound_length) or Framing(at)
        if length and buffer.startswith(END, at + length - 2):
            stop = at + length
            inner = None if _sound_length(buffer, at) else find_sound(buffer, at, stop, MARK, _sound_length)
            return inner or Framing(at, length)
        at += 1


def _length(buffer: bytes, at: int) -> int:
    """Return the length of the frame at `at`; -1: the header is incomplete, 0: not a frame."""
    if len(buffer) < at + _HEAD:
        return -1
    size = int.from_bytes(buffer[at + 24 : at + 26], "little")
    return _HEAD + size + _TAIL if size <= DATA_MAX else 0


def _sound_length(buffer: bytes, at: int) -> int:
    length = _length(buffer, at)
    frame = buffer[at : at + length] if length > 0 else b""
    sound = len(frame) == length and frame.endswith(END) and sum8(frame[2:-_TAIL]) == frame[-_TAIL]
    return length if sound else 0


class Gbt26875Frame(msgspec.Struct, frozen=True):
    """A frame with its header fields; the application data is left undecoded."""

    serial: int
    version: bytes
    sent: bytes
    """Six bytes: second, minute, hour, day, month, year."""
    source: bytes
    target: bytes
    """Six bytes each, low byte first."""
    command: int
    data: bytes
    checksum_ok: bool
    """True if the checksum is right."""


def format_address(raw: bytes) -> str:
    """Format an address as twelve hex digits, high byte first."""
    return raw[::-1].hex().upper()


def parse(frame: bytes) -> Gbt26875Frame:
    """Parse a frame. Raises `Rejected` (malformed) if it is not one."""
    if not frame.startswith(MARK) or not frame.endswith(END) or len(frame) < _HEAD + _TAIL:
        raise Rejected(QuarantineReason.MALFORMED, "the frame is not delimited by @@ and ##")
    size = int.from_bytes(frame[24:26], "little")
    if size != len(frame) - _HEAD - _TAIL:
        actual = len(frame) - _HEAD - _TAIL
        raise Rejected(QuarantineReason.MALFORMED, f"the header announces {size} bytes of data, the frame has {actual}")
    return Gbt26875Frame(
        serial=int.from_bytes(frame[2:4], "little"),
        version=frame[4:6],
        sent=frame[6:12],
        source=frame[12:18],
        target=frame[18:24],
        command=frame[26],
        data=frame[_HEAD:-_TAIL],
        checksum_ok=sum8(frame[2:-_TAIL]) == frame[-_TAIL],
    )


def build(frame: Gbt26875Frame) -> bytes:
    """Build a frame with the right checksum."""
    inner = b"".join(
        (
            frame.serial.to_bytes(2, "little"),
            frame.version,
            frame.sent,
            frame.source,
            frame.target,
            len(frame.data).to_bytes(2, "little"),
            bytes([frame.command]),
            frame.data,
        )
    )
    return MARK + inner + bytes([sum8(inner)]) + END


def build_answer(frame: Gbt26875Frame, now: datetime, command: int = CONFIRM) -> bytes:
    """Build the confirmation (or rejection) of a frame; `now`: the centre's clock, in the device's time zone."""
    sent = bytes([now.second, now.minute, now.hour, now.day, now.month, now.year % 100])
    return build(
        msgspec.structs.replace(frame, sent=sent, source=frame.target, target=frame.source, command=command, data=b"")
    )
