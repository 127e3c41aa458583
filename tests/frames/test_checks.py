"""Check values, against the vectors of the standards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.frames.checks import crc_hj212, crc_modbus, sum8, swap_bytes, xor8
from sensegate.frames.hj212 import Convention, checksum, detect_convention


@pytest.mark.parametrize(
    ("data", "ansi", "modbus"),
    [
        (b"", 0xFFFF, 0xFFFF),
        (b"A", 0x7080, 0x707F),
        (b"\0", 0x4040, 0x40BF),
        (b"123456789", 0x2F80, 0x4B37),
        # HJ 212-2025, annex A.1
        (
            b"QN=20240601085857223;ST=32;CN=1011;PW=123456;MN=010000A8900016F000169DC0;Flag=9;CP=&&&&",
            0x2200,
            0xCCF4,
        ),
    ],
)
def test_the_two_routines(data: bytes, ansi: int, modbus: int) -> None:
    """Annex A of HJ 212 and MODBUS differ in the folding step alone."""
    assert (crc_hj212(data), crc_modbus(data)) == (ansi, modbus)


def _by_the_letter(data: bytes, *, drops: bool) -> int:
    value = 0xFFFF
    for byte in data:
        value = (value // 256 if drops else value) ^ byte
        for _ in range(8):
            low, value = value % 2, value // 2
            value ^= 0xA001 if low else 0
    return value


@given(st.binary(max_size=200))
def test_tables_give_what_the_bits_give(data: bytes) -> None:
    """The quick form is the one that the standard describes."""
    assert crc_hj212(data) == _by_the_letter(data, drops=True)
    assert crc_modbus(data) == _by_the_letter(data, drops=False)


@given(st.binary(max_size=60))
def test_a_convention_is_recognised(data: bytes) -> None:
    """Each convention's own value is told as right, in either case of its digits."""
    for item in Convention:
        value = checksum(data, item)
        result = detect_convention(data, b"%04x" % value)
        assert result is not None
        assert checksum(data, result) == value
    assert detect_convention(data, b"zzzz") is None


def test_small_ones() -> None:
    """Sum, exclusive or and exchange of bytes."""
    assert (sum8(b"\xff\x02"), xor8(b"\xff\x0f\x01"), swap_bytes(0x1234)) == (1, 0xF1, 0x3412)
    assert (sum8(b""), xor8(b"")) == (0, 0)
