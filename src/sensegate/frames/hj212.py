"""HJ 212 (2005, 2017, 2025), pollution monitoring: ``##``, length, data, CRC, CR LF, all of it text.

The CRC is that of annex A. Devices in the field also send it with its bytes swapped, or MODBUS's CRC in either byte
order (`Convention`). Since 2025 the content may be encrypted; the CRC is then that of the plain text.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sensegate.errors import Rejected
from sensegate.frames.checks import crc_hj212, crc_modbus, swap_bytes
from sensegate.frames.framing import find_sound, keep_from
from sensegate.model import Framing, QuarantineReason

MARK: Final = b"##"
_HEAD = 6
_CRC = 4
_END = b"\r\n"
_SPACE = b"\r\n \t\0"
_CRCS_TRIED = 8
"""Number of frames per buffer recognised by their checksum alone: each costs a CRC over up to 9,999 bytes."""
_BEGIN = re.compile(rb"##\d{4}")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_CONTENT: Final = b"CP=&&"
_CONTENT_END: Final = b"&&"
_ENCRYPTED_TEXT = re.compile(rb"\{((?:0[xX][0-9A-Fa-f]{2},?\s*)*)\}")
BLOCK: Final = 16

REALTIME, MINUTE, HOUR, DAY = "2011", "2051", "2061", "2031"
ANSWER_REQUEST, ANSWER_DATA = "9011", "9014"
HEARTBEAT = "9015"


class Convention(StrEnum):
    """Algorithm and byte order of a checksum."""

    ANSI = "ansi"
    ANSI_SWAPPED = "ansi_swapped"
    MODBUS = "modbus"
    MODBUS_SWAPPED = "modbus_swapped"


class RejectionCode(StrEnum):
    """Reason for which a request is rejected (QnRtn)."""

    PASSWORD = "3"  # noqa: S105 - a code
    STATION = "4"
    CRC = "9"


def checksum(data: bytes, convention: Convention) -> int:
    """Return the checksum of a data segment by a convention."""
    value = crc_hj212(data) if convention in {Convention.ANSI, Convention.ANSI_SWAPPED} else crc_modbus(data)
    return swap_bytes(value) if convention in {Convention.ANSI_SWAPPED, Convention.MODBUS_SWAPPED} else value


def detect_convention(data: bytes, crc: bytes) -> Convention | None:
    """Return the convention by which four hex digits are the checksum of a data segment, None if there is none."""
    try:
        sent = int(crc, 16)
    except ValueError:
        return None
    return next((convention for convention in Convention if checksum(data, convention) == sent), None)


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────


def next_frame(buffer: bytes) -> Framing:
    """Find the next frame. White space between frames is skipped."""
    at = 0
    attempts_left = _CRCS_TRIED
    while True:
        at = buffer.find(MARK, at)
        if at < 0:
            return Framing(keep_from(buffer, MARK))
        digits = buffer[at + 2 : at + _HEAD]
        if not digits.isdigit() and digits:
            at += 1
            continue
        if len(digits) < _HEAD - 2:
            return Framing(at)
        length = _HEAD + int(digits) + _CRC
        next_head = _BEGIN.search(buffer, at + _HEAD, at + length)
        if len(buffer) < at + length:
            # A truncated frame is followed by one that starts on a new line, or has the right checksum.
            if next_head and buffer[next_head.start() - 2 : next_head.start()] == _END:
                at = next_head.start()
                continue
            inner = find_sound(buffer, at, len(buffer), MARK, _sound_length) if next_head else None
            return inner or Framing(at)
        frame = buffer[at : at + length]
        if not _HEX.issuperset(frame[-_CRC:]):
            at += 2
            continue
        end = buffer[at + length : at + length + 2]
        attempts_left -= 1
        has_line = end == _END
        inner = None
        # Without a new line behind it the checksum alone would tell, and its register has only eight bits.
        if next_head and (not _sound_length(buffer, at) if has_line else attempts_left >= 0):
            inner = find_sound(buffer, at, at + length, MARK, _sound_length)
        if inner or has_line:
            return inner or Framing(at, length + 2)
        if attempts_left >= 0 and detect_convention(frame[_HEAD:-_CRC], frame[-_CRC:]):  # some devices omit CR LF
            return Framing(at, length)
        if _END.startswith(end):
            return Framing(at)
        at += 2


def _sound_length(buffer: bytes, at: int) -> int:
    digits = buffer[at + 2 : at + _HEAD]
    if len(digits) < _HEAD - 2 or not digits.isdigit():
        return 0
    length = _HEAD + int(digits) + _CRC
    frame = buffer[at : at + length]
    if len(frame) < length or not detect_convention(frame[_HEAD:-_CRC], frame[-_CRC:]):
        return 0
    return length + len(_END) if buffer.startswith(_END, at + length) else length


# ── the frame ────────────────────────────────────────────────────────────────────────────────────────


class Hj212Packet(msgspec.Struct, frozen=True):
    """A frame with its header fields; the content is left undecoded."""

    data: bytes
    """The data segment, to which the length and the CRC refer."""
    crc: bytes
    """Four hex digits as sent."""
    fields: dict[str, str]
    """QN, ST, CN, PW, MN, Flag, PNUM, PNO, as far as present."""
    content: bytes
    """Text between ``CP=&&`` and the last ``&&``."""

    @property
    def version(self) -> int:
        """Year of the standard according to Flag, 0 if unknown."""
        return {0: 2005, 1: 2017, 2: 2025}.get(self.flag >> 2, 0) if self.flag >= 0 else 0

    @property
    def flag(self) -> int:
        """The Flag byte, -1 if missing."""
        text = self.fields.get("Flag", "")
        return int(text) if text.isdecimal() and len(text) <= 3 else -1

    @property
    def expects_answer(self) -> bool:
        """Return whether the device expects an answer."""
        return self.flag > 0 and bool(self.flag & 1)

    @property
    def may_be_encrypted(self) -> bool:
        """Return whether the standard allows encrypted content (2025, 6.4.2: CN 2000 to 2999, 1014, 3020)."""
        number = self.fields.get("CN", "")
        return self.version == 2025 and (number[:1] == "2" or number in {"1014", "3020"})


def parse(frame: bytes) -> Hj212Packet:
    """Parse a frame, with or without its CR LF. Raises `Rejected` (malformed) if it is not one.

    The checksum is not verified: the profile decides which convention is right.
    """
    frame = frame.rstrip(_SPACE)
    digits = frame[2:_HEAD]
    if not frame.startswith(MARK) or len(digits) < 4 or not digits.isdigit():
        raise Rejected(QuarantineReason.MALFORMED, "the frame does not start with ## and four digits")
    actual = len(frame) - _HEAD - _CRC
    if actual != int(digits):
        raise Rejected(
            QuarantineReason.MALFORMED, f"the header announces {int(digits)} bytes of data, the frame has {actual}"
        )
    data, crc = frame[_HEAD:-_CRC], frame[-_CRC:]
    if not _HEX.issuperset(crc):
        raise Rejected(QuarantineReason.MALFORMED, "the CRC is not four hex digits")
    head, begin, content_part = data.partition(_CONTENT)
    if not begin or not content_part.endswith(_CONTENT_END):
        raise Rejected(QuarantineReason.MALFORMED, "the frame has no content between CP=&& and &&")
    fields: dict[str, str] = {}
    for entry in head.split(b";"):
        key, equals, value = entry.partition(b"=")
        if equals:
            fields.setdefault(key.decode("ascii", "replace").strip(), value.decode("utf-8", "replace").strip())
    return Hj212Packet(data, crc, fields, content_part[:-2])


def decrypt(packet: Hj212Packet, key: bytes) -> Hj212Packet:
    """Decrypt the content of a packet: SM4-ECB on whole blocks; a remainder was never encrypted.

    The content is binary, or written as in the annex of the standard: ``{0xE4,0x3E,…}g=N``.
    """
    content = packet.content
    written = _ENCRYPTED_TEXT.match(content)
    if written:
        blocks = bytes(int(digits, 16) for digits in re.findall(rb"0[xX](..)", written[1]))
        remainder = content[written.end() :]
    else:
        block_bytes = len(content) - len(content) % BLOCK
        blocks, remainder = content[:block_bytes], content[block_bytes:]
    if len(blocks) % BLOCK:
        return packet
    machine = Cipher(algorithms.SM4(key), modes.ECB()).decryptor()  # noqa: S305 - the standard's mode
    plain = machine.update(blocks) + machine.finalize() + remainder
    data = packet.data[: packet.data.index(_CONTENT) + len(_CONTENT)] + plain + _CONTENT_END
    return msgspec.structs.replace(packet, data=data, content=plain)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────


def build(data: bytes, convention: Convention = Convention.ANSI) -> bytes:
    """Build the frame of a data segment of at most 9,999 bytes."""
    return b"##%04d%b%04X\r\n" % (len(data), data, checksum(data, convention))


def build_answer(packet: Hj212Packet, convention: Convention, rejection: RejectionCode | None = None) -> bytes:
    """Build the answer to an upload: 9014 if its data are stored, 9011 with a QnRtn if they are rejected."""
    sent = packet.fields
    version = max(packet.flag, 0) & ~0b11 or 4
    header = {
        "QN": sent.get("QN", ""),
        "ST": "91",
        "CN": ANSWER_REQUEST if rejection else ANSWER_DATA,
        "PW": sent.get("PW", ""),
        "MN": sent.get("MN", ""),
        "Flag": str(version),
    }
    head = "".join(f"{key}={value};" for key, value in header.items() if value)
    content = f"QnRtn={rejection}" if rejection else ""
    return build(f"{head}CP=&&{content}&&".encode()[:9_999], convention)
