"""JT/T 808 (2011, 2013, 2019), vehicles: ``7E`` … ``7E``, escaped; the last byte is the exclusive or of the others.

    message 2, attributes 2 (length 10 bits, split bit 13, version bit 14), [version 1,] phone BCD 6 or 10,
    serial 2, [packets 2, packet 2,] body, check 1

``7E`` within a frame is sent as ``7D 02`` and ``7D`` as ``7D 01``; numbers are big-endian.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sensegate.errors import Rejected
from sensegate.frames.checks import xor8
from sensegate.model import Framing, QuarantineReason

MARK: Final = b"\x7e"
_ESCAPED = re.compile(rb"\x7d([\x01\x02])")
FRAME_MAX: Final = 2 * (2 + 2 + 1 + 10 + 2 + 4 + 1023 + 1) + 2
"""Greatest length of a frame with every byte escaped."""
LOCATION, LOCATIONS = 0x0200, 0x0704
LOCATION_ANSWER, CONTROL_ANSWER = 0x0201, 0x0500
"""Answers to a query of the position and to a control: the serial number of the request, then a position."""
POSITIONS: Final = frozenset({LOCATION, LOCATIONS, LOCATION_ANSWER, CONTROL_ANSWER})
"""Messages that hold positions."""
HEARTBEAT, REGISTER, AUTHENTICATE, LOGOUT = 0x0002, 0x0100, 0x0102, 0x0003
ANSWER, REGISTERED = 0x8001, 0x8100
DONE, FAILED, WRONG = 0, 1, 2
"""Result codes of an answer."""


def next_frame(buffer: bytes) -> Framing:
    """Find the next frame. A mark that ends garbage is taken as the start of a frame."""
    at = 0
    while True:
        at = buffer.find(MARK, at)
        if at < 0:
            return Framing(len(buffer))
        end = buffer.find(MARK, at + 1)
        if end < 0:
            return Framing(at) if len(buffer) - at < FRAME_MAX else Framing(len(buffer))
        if end - at < FRAME_MAX and _is_frame(buffer[at : end + 1]):
            return Framing(at, end + 1 - at)
        at = end


def _is_frame(frame: bytes) -> bool:
    try:
        parse(frame)
    except Rejected:
        return False
    return True


class Jtt808Message(msgspec.Struct, frozen=True):
    """A frame, unescaped, with its header fields; the body is left undecoded."""

    message: int
    phone: str
    """Digits without leading zeros (all zeros: one)."""
    serial: int
    version: int
    """Year of the standard: 2013 (or older) or 2019."""
    packets: int
    packet: int
    encrypted: bool
    body: bytes
    checksum_ok: bool
    """True if the checksum is right."""
    address: bytes = b""
    """Phone number as sent, for answers."""
    mark: int = 0
    """Version byte of the 2019 standard."""


def unescape(inner: bytes) -> bytes:
    """Reverse the escaping of the bytes between two marks."""
    return _ESCAPED.sub(lambda match: b"\x7e" if match[1] == b"\x02" else b"\x7d", inner)


def escape(inner: bytes) -> bytes:
    """Escape bytes so that they hold no mark."""
    return inner.replace(b"\x7d", b"\x7d\x01").replace(b"\x7e", b"\x7d\x02")


def parse(frame: bytes) -> Jtt808Message:
    """Parse a frame. Raises `Rejected` (malformed) if it is not one."""
    if len(frame) < 2 or not frame.startswith(MARK) or not frame.endswith(MARK):
        raise Rejected(QuarantineReason.MALFORMED, "the frame is not delimited by 7E and 7E")
    inner = unescape(frame[1:-1])
    attributes = int.from_bytes(inner[2:4])
    is_2019 = bool(attributes & 1 << 14)
    at = 5 if is_2019 else 4
    size = 10 if is_2019 else 6
    address = inner[at : at + size]
    at += size
    serial = int.from_bytes(inner[at : at + 2])
    at += 2
    packets, packet = 1, 1
    if attributes & 1 << 13:
        packets, packet = int.from_bytes(inner[at : at + 2]), int.from_bytes(inner[at + 2 : at + 4])
        at += 4
    body, length = inner[at:-1], attributes & 0x3FF
    if len(inner) <= at or len(body) != length:
        raise Rejected(
            QuarantineReason.MALFORMED, f"the header announces a body of {length} bytes, the frame has {len(body)}"
        )
    return Jtt808Message(
        message=int.from_bytes(inner[:2]),
        phone=address.hex().upper().lstrip("0") or "0",
        serial=serial,
        version=2019 if is_2019 else 2013,
        packets=packets,
        packet=packet,
        encrypted=bool(attributes & 0x1C00),
        body=body,
        checksum_ok=xor8(inner[:-1]) == inner[-1],
        address=address,
        mark=inner[4] if is_2019 else 0,
    )


def build(message: int, address: bytes, serial: int, body: bytes, *, mark: int | None = None) -> bytes:
    """Build a frame of one packet; `mark`: the version byte of the 2019 standard."""
    attributes = len(body) | (1 << 14 if mark is not None else 0)
    version = b"" if mark is None else bytes([mark])
    inner = message.to_bytes(2) + attributes.to_bytes(2) + version + address + serial.to_bytes(2) + body
    return MARK + escape(inner + bytes([xor8(inner)])) + MARK


def _reply(message: Jtt808Message, number: int, serial: int, body: bytes) -> bytes:
    mark = message.mark if message.version == 2019 else None
    return build(number, message.address, serial, body, mark=mark)


def build_answer(message: Jtt808Message, serial: int, result: int = DONE) -> bytes:
    """Build the platform's general answer (8001); `serial`: the platform's own serial number."""
    return _reply(message, ANSWER, serial, message.serial.to_bytes(2) + message.message.to_bytes(2) + bytes([result]))


def build_registration_answer(message: Jtt808Message, serial: int, code: str, result: int = DONE) -> bytes:
    """Build the answer to a registration (8100), on success with the code for the terminal's authentication."""
    proof = b"" if result else code.encode("gbk", "replace")
    return _reply(message, REGISTERED, serial, message.serial.to_bytes(2) + bytes([result]) + proof)
