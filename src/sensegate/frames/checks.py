"""Checksums: the 16-bit routines of HJ 212 and MODBUS, byte sum, exclusive or."""

from __future__ import annotations

from typing import Final

import anycrc


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE: Final = _table()


def _places() -> tuple[tuple[int, ...], ...]:
    rows = [_TABLE]
    for _ in range(7):
        rows.append(tuple(rows[-1][_TABLE[byte] >> 8] for byte in range(256)))
    return tuple(rows)


_PLACES: Final = _places()
"""Contribution of a byte to the checksum of HJ 212, by its distance from the last one; it repeats after eight."""
_MASKS: Final = tuple((1 << (64 << step)) - 1 for step in range(11))


def crc_hj212(data: bytes) -> int:
    """Return the checksum of annex A of HJ 212 ("ANSI CRC16"): 0x2F80 for ``123456789``.

    It resembles MODBUS's CRC but differs: the low byte of the register is dropped before each byte is folded in. So
    the register has eight bits, and a linear step that is the identity after eight bytes: words of eight bytes can be
    folded by exclusive or.
    """
    if not data:
        return 0xFFFF
    value = int.from_bytes(data) ^ 0xFF << 8 * (len(data) - 1)
    for step in range((((len(data) + 7) >> 3) - 1).bit_length() - 1, -1, -1):
        value = value >> (64 << step) ^ value & ((1 << (64 << step)) - 1 if step >= len(_MASKS) else _MASKS[step])
    (first, second, third, fourth, fifth, sixth, seventh, eighth) = value.to_bytes(8)
    near, far = _PLACES[:4], _PLACES[4:]
    return (
        near[0][eighth]
        ^ near[1][seventh]
        ^ near[2][sixth]
        ^ near[3][fifth]
        ^ far[0][fourth]
        ^ far[1][third]
        ^ far[2][second]
        ^ far[3][first]
    )


_modbus: Final = anycrc.Model("CRC16-MODBUS").calc


def crc_modbus(data: bytes) -> int:
    """Return CRC-16/MODBUS: 0x4B37 for ``123456789``."""
    return int(_modbus(data))


def swap_bytes(value: int) -> int:
    """Swap the two bytes of a 16-bit value."""
    return value >> 8 | (value & 0xFF) << 8


def sum8(data: bytes) -> int:
    """Return the sum of the bytes modulo 256."""
    return sum(data) & 0xFF


def xor8(data: bytes) -> int:
    """Return the exclusive or of the bytes.

    Each shift doubles the number of bytes that are folded into the last one.
    """
    value, shift, bits = int.from_bytes(data), 8, 8 * len(data)
    while shift < bits:
        value ^= value >> shift
        shift <<= 1
    return value & 0xFF
