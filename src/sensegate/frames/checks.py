"""Checksums: the 16-bit routines of HJ 212 and MODBUS, byte sum, exclusive or."""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import Final


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE: Final = _table()


def crc_hj212(data: bytes) -> int:
    """Return the checksum of annex A of HJ 212 ("ANSI CRC16"): 0x2F80 for ``123456789``.

    It resembles MODBUS's CRC but differs: the low byte of the register is dropped before each byte is folded in.
    """
    value = 0xFFFF
    for byte in data:
        value = _TABLE[value >> 8 ^ byte]
    return value


def crc_modbus(data: bytes) -> int:
    """Return CRC-16/MODBUS: 0x4B37 for ``123456789``."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value


def swap_bytes(value: int) -> int:
    """Swap the two bytes of a 16-bit value."""
    return value >> 8 | (value & 0xFF) << 8


def sum8(data: bytes) -> int:
    """Return the sum of the bytes modulo 256."""
    return sum(data) & 0xFF


def xor8(data: bytes) -> int:
    """Return the exclusive or of the bytes."""
    return reduce(xor, data, 0)
