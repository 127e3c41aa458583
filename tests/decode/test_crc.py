"""Check values by name, against the catalogue's own check values and a division bit by bit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.crc import checksum

NINE = b"123456789"

KNOWN = [  # the `checksum` of each model in the reveng catalogue: the value of "123456789"
    ("CRC-16/MODBUS", 0x4B37, 2),
    ("crc16-modbus", 0x4B37, 2),
    ("CRC-16/ARC", 0xBB3D, 2),
    ("CRC-16/CCITT-FALSE", 0x29B1, 2),
    ("CRC-16/XMODEM", 0x31C3, 2),
    ("CRC-16/KERMIT", 0x2189, 2),
    ("CRC-16/X-25", 0x906E, 2),
    ("CRC-8/MAXIM-DOW", 0xA1, 1),
    ("CRC-8/SMBUS", 0xF4, 1),
    ("CRC-32", 0xCBF43926, 4),
    ("CRC-32/MPEG-2", 0x0376E6E7, 4),
    ("CRC-24/BLE", 0xC25A56, 3),
    ("CRC-15/CAN", 0x059E, 2),
]


@pytest.mark.parametrize(("name", "value", "size"), KNOWN)
def test_the_catalogues_check_values(name: str, value: int, size: int) -> None:
    """Each model gives the value that the catalogue prints for it."""
    result = checksum(name)
    assert result.compute(NINE) == value
    assert result.size == size


@pytest.mark.parametrize(
    ("name", "data", "value"),
    [
        ("sum8", b"\xff\x02\x03", 0x04),
        ("sum16", b"\xff\xff\x01", 0x01FF),
        ("lrc8", b"\x01\x02\x03", 0xFA),
        ("sum8-complement", b"\x01\x02\x03", 0xF9),
        ("xor8", b"GPGLL,5300.97914,N,00259.98174,E,125926,A", 0x28),  # the example of the NMEA 0183 guides
        ("xor8", b"", 0),
    ],
)
def test_sums(name: str, data: bytes, value: int) -> None:
    """Sums and XORs, for what has no CRC."""
    assert checksum(name).compute(data) == value


def test_an_unknown_name_names_the_nearest() -> None:
    """Who mistypes a name is told the right one."""
    with pytest.raises(ValueError, match="CRC16-MODBUS"):
        checksum("CRC-16/MODBUSS")
    with pytest.raises(ValueError, match="reveng"):
        checksum("§")


def reflected(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)


@given(st.binary(max_size=40))
def test_modbus_is_the_remainder_of_a_division(data: bytes) -> None:
    """The CRC of Modbus by its definition: bit by bit, least significant first, polynomial 0x8005."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (reflected(0x8005, 16) if crc & 1 else 0)
    assert checksum("CRC-16/MODBUS").compute(data) == crc
