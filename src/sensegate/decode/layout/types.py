"""Types of a layout's elements: their width, and how their bytes become a value."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from sensegate.decode.part import Scalar

Family = Literal["u", "s", "m", "f", "bcd", "text"]

BITS_MAX: Final = 64
TEXTS: Final = ("ascii", "utf8", "gbk", "hex", "digits", "bytes")
"""Types whose size is given separately."""
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
    """Width of a number; 0 for text, whose size is given separately."""

    @property
    def struct(self) -> str:
        """The `struct` letter of the type, empty if there is none."""
        return _FLOATS[self.bits] if self.family == "f" else _STRUCT.get((self.family, self.bits), "")

    @property
    def unsigned(self) -> bool:
        """Return whether its bits may have names."""
        return self.family == "u"


def type_of(name: str) -> Type:
    """Return the type with a name.

    Raises:
        ValueError: there is none; the message lists the types.
    """
    if name in TEXTS:
        return Type(name, "text", 0)
    match = _NUMBER.fullmatch(name)
    if match is None:
        near = {"int": "s", "uint": "u", "i": "s", "float": "f"}.get(re.sub(r"\d+.*", "", name).lower())
        width = re.sub(r"\D", "", name)
        remedy = f"did you mean '{near}{width}'?" if near and width else f"u8 s16 m8 u12 f32 bcd16 …, {' '.join(TEXTS)}"
        raise ValueError(remedy)
    family, bits = match[1], int(match[2])
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
    """Parse a field of an integer of so many bits: ``7``, ``0-3`` or ``s4-11``.

    Raises:
        ValueError: it is not a field.
    """
    match = _FIELD.fullmatch(str(text).replace(" ", ""))
    if match is None:
        raise ValueError("write a bit (7), a range (0-3), a signed range (s4-11) or sign and magnitude (m0-7)")
    first = int(match[2])
    second = int(match[3]) if match[3] is not None else first
    low, high = min(first, second), max(first, second)
    if high >= width:
        raise ValueError(f"the integer has bits 0 to {width - 1}")
    if match[1] and low == high:
        raise ValueError("a single bit cannot be signed")
    return Bits(match[1] or "u", low, high - low + 1)  # type: ignore[arg-type] # the pattern's own words


_KEY = re.compile(r"\s*(0[xX][0-9a-fA-F]+|-?[0-9]+)\s*(?:-\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*)?")
KEYS_MAX: Final = 4_096


def numbers_of(key: Scalar) -> list[int]:
    """Return the integers that a key of `cases`, `map` or `ports` lists: 5, ``0x1F``, ``2, 5-7``.

    Raises:
        ValueError: it is not such a key.
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return [key]
    numbers: list[int] = []
    for part in str(key).split(","):
        match = _KEY.fullmatch(part)
        if match is None or isinstance(key, (bool, float)):
            raise ValueError(f"'{key}' is not a number (5), a list ('2, 5-7') or a hexadecimal number (0x1F)")
        low = int(match[1], 0) if "x" in match[1].lower() else int(match[1])
        high = low if match[2] is None else int(match[2], 0) if "x" in match[2].lower() else int(match[2])
        if high < low or high - low >= KEYS_MAX:
            raise ValueError(f"'{part.strip()}' must go from the lower to the higher, over {KEYS_MAX} numbers at most")
        numbers += range(low, high + 1)
    return numbers
