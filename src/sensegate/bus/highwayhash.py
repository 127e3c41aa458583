"""HighwayHash-64, the checksum in nats-server's metadata files (portable reference algorithm by Google, Apache 2.0)."""

from __future__ import annotations

import struct
from typing import Final

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_LOW: Final = 0xFFFFFFFF
_PACKET: Final = 32
_MUL0: Final = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_MUL1: Final = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)
_ROUNDS: Final = 4


def highway64(key: bytes, data: bytes) -> bytes:
    """Return the digest of `data`, 8 bytes, little-endian. The key has 32 bytes."""
    state = _State(struct.unpack("<4Q", key))
    whole = len(data) - len(data) % _PACKET
    for start in range(0, whole, _PACKET):
        state.update(struct.unpack_from("<4Q", data, start))
    if whole < len(data):
        state.finish(data[whole:])
    return struct.pack("<Q", state.digest())


def _swap_words(lane: int) -> int:
    return (lane >> 32 | lane << 32) & _MASK


class _State:
    """Four lanes each of two values and two multipliers."""

    def __init__(self, key: tuple[int, ...]) -> None:
        self.mul0, self.mul1 = list(_MUL0), list(_MUL1)
        self.v0 = [mul ^ part for mul, part in zip(_MUL0, key, strict=True)]
        self.v1 = [mul ^ _swap_words(part) for mul, part in zip(_MUL1, key, strict=True)]

    def update(self, lanes: tuple[int, ...]) -> None:
        v0, v1, mul0, mul1 = self.v0, self.v1, self.mul0, self.mul1
        for lane in range(4):
            v1[lane] = (v1[lane] + mul0[lane] + lanes[lane]) & _MASK
            mul0[lane] ^= (v1[lane] & _LOW) * (v0[lane] >> 32)
            v0[lane] = (v0[lane] + mul1[lane]) & _MASK
            mul1[lane] ^= (v0[lane] & _LOW) * (v1[lane] >> 32)
        for source, target in ((v1, v0), (v0, v1)):
            for low in (0, 2):
                first, second = _zipped(source[low + 1], source[low])
                target[low] = (target[low] + first) & _MASK
                target[low + 1] = (target[low + 1] + second) & _MASK

    def finish(self, remainder: bytes) -> None:
        """Add the last 1 to 31 bytes."""
        size = len(remainder)
        odd, even = size % 4, size - size % 4
        for lane in range(4):
            self.v0[lane] = (self.v0[lane] + (size << 32) + size) & _MASK
            self.v1[lane] = _rotated(self.v1[lane] >> 32, size) << 32 | _rotated(self.v1[lane] & _LOW, size)
        packet = bytearray(_PACKET)
        packet[:even] = remainder[:even]
        if size & 16:
            packet[28:32] = remainder[size - 4 : size]
        elif odd:
            tail = remainder[even:]
            packet[16:19] = bytes((tail[0], tail[odd >> 1], tail[odd - 1]))
        self.update(struct.unpack("<4Q", packet))

    def digest(self) -> int:
        for _ in range(_ROUNDS):
            v0 = self.v0
            self.update(tuple(_swap_words(v0[lane]) for lane in (2, 3, 0, 1)))
        return (self.v0[0] + self.v1[0] + self.mul0[0] + self.mul1[0]) & _MASK


def _rotated(half: int, count: int) -> int:
    return (half << count | half >> (32 - count)) & _LOW


def _zipped(high: int, low: int) -> tuple[int, int]:
    """Return the interleaved bytes of two lanes: the addends of the lower and of the higher lane."""
    first = (
        ((low & 0xFF000000) | (high & 0xFF00000000)) >> 24
        | ((low & 0xFF0000000000) | (high & 0xFF000000000000)) >> 16
        | (low & 0xFF0000)
        | (low & 0xFF00) << 32
        | (high & 0xFF00000000000000) >> 8
        | (low << 56) & _MASK
    )
    second = (
        ((high & 0xFF000000) | (low & 0xFF00000000)) >> 24
        | (high & 0xFF0000)
        | (high & 0xFF0000000000) >> 16
        | (high & 0xFF00) << 24
        | (low & 0xFF000000000000) >> 8
        | (high & 0xFF) << 48
        | (low & 0xFF00000000000000)
    )
    return first, second
