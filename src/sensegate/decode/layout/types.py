"""The types of a layout's elements: how wide they are and how their bytes become a value."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from sensegate.decode.part import Scalar

Family = Literal["u", "s", "m", "f", "bcd", "text"]

BITS_MAX: Final = 64
TEXTS: Final = ("ascii", "utf8", "gbk", "hex", "digits", "bytes")
"""Types whose size stands beside them."""
_FLOATS: Final = {16: "e", 32: "f", 64: "d"}
_STRUCT: Final = {("u", 8): "B", ("u", 16): "H", ("u", 32): "I", ("u", 64): "Q"} | {
    ("s", 8): "b",
    ("s", 16): "h",
    ("s", 32): "i",
    ("s", 64): "q",
}
_NUMBER = re.compile(r"(u|s|m|f|bcd)([1-9][0-9]?)")


class Type(NamedTuple):
    """A type of elements."""

    name: str
    family: Family
    bits: int
    """Width of a number; 0: of a text, given beside it."""

    @property
    def struct(self) -> str:
        """The letter of `struct` that reads it, empty if there is none."""
        return _FLOATS[self.bits] if self.family == "f" else _STRUCT.get((self.family, self.bits), "")

    @property
    def unsigned(self) -> bool:
        """Whether its bits may be given names."""
        return self.family == "u"


def type_of(name: str) -> Type:
    """Return the type of a name.

    Raises:
        ValueError: if there is none; the message says what there is.
    """
    if name in TEXTS:
        return Type(name, "text", 0)
    found = _NUMBER.fullmatch(name)
    if found is None:
        near = {"int": "s", "uint": "u", "i": "s", "float": "f"}.get(re.sub(r"\d+.*", "", name).lower())
        width = re.sub(r"\D", "", name)
        remedy = f"did you mean '{near}{width}'?" if near and width else f"u8 s16 m8 u12 f32 bcd16 …, {' '.join(TEXTS)}"
        raise ValueError(remedy)
    family, bits = found[1], int(found[2])
    wrong = (family == "f" and bits not in _FLOATS) or (family == "bcd" and bits % 4) or bits > BITS_MAX
    if wrong or (family in {"s", "m"} and bits < 2):
        raise ValueError("f16 f32 f64; bcd in steps of 4 bits; others up to 64 bits, signed ones from 2")
    return Type(name, family, bits)  # type: ignore[arg-type] # the pattern's own words


class Bits(NamedTuple):
    """A field of an integer."""

    family: Literal["u", "s", "m"]
    low: int
    width: int


_FIELD = re.compile(r"([sm]?)([0-9]{1,2})(?:-([0-9]{1,2}))?")


def bits_of(text: int | str, width: int) -> Bits:
    """Return a field written as ``7``, ``0-3`` or ``s4-11`` of an integer of so many bits.

    Raises:
        ValueError: if it is none.
    """
    found = _FIELD.fullmatch(str(text).replace(" ", ""))
    if found is None:
        raise ValueError("write a bit (7), bits from to (0-3), signed (s4-11) or sign and magnitude (m0-7)")
    one = int(found[2])
    other = int(found[3]) if found[3] is not None else one
    low, high = min(one, other), max(one, other)
    if high >= width:
        raise ValueError(f"there are bits 0 to {width - 1}")
    if found[1] and low == high:
        raise ValueError("one bit has no sign")
    return Bits(found[1] or "u", low, high - low + 1)  # type: ignore[arg-type] # the pattern's own words


_KEY = re.compile(r"\s*(0[xX][0-9a-fA-F]+|-?[0-9]+)\s*(?:-\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*)?")
KEYS_MAX: Final = 4_096


def numbers_of(key: Scalar) -> list[int]:
    """Return the integers that a key of `cases`, `map` or `ports` stands for: 5, ``0x1F``, ``2, 5-7``.

    Raises:
        ValueError: if it stands for none.
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return [key]
    found: list[int] = []
    for part in str(key).split(","):
        match = _KEY.fullmatch(part)
        if match is None or isinstance(key, (bool, float)):
            raise ValueError(f"'{key}' is no number (5), no list ('2, 5-7') and no hexadecimal number (0x1F)")
        low = int(match[1], 0) if "x" in match[1].lower() else int(match[1])
        high = low if match[2] is None else int(match[2], 0) if "x" in match[2].lower() else int(match[2])
        if high < low or high - low >= KEYS_MAX:
            raise ValueError(f"'{part.strip()}' runs from the lower to the higher, over {KEYS_MAX} numbers at most")
        found += range(low, high + 1)
    return found
