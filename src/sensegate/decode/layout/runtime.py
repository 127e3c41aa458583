"""What generated layouts call: helpers that read, convert and refuse. Each fails only as it says."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

ELEMENTS_MAX: Final = 4_096
"""Passes through repeats and tags of one frame, and bytes of a `bytes` element."""
TAGS_BYTES_MAX: Final = 16_384
"""Bytes of tags with their values in one frame."""
NAME_MAX: Final = 64
"""Longest name made of an element."""

FAULTS: Final = (TypeError, ValueError, ArithmeticError)
"""What an expression raises where its elements are no numbers, or too large, or where it divides by 0."""

_WORD_MAX: Final = 32
_SHIFT_MAX: Final = 64
_NAN: Final = math.nan


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────


def malformed(what: str) -> Rejected:
    """Return the refusal of a frame whose bytes cannot be what the layout says."""
    return Rejected(QuarantineReason.MALFORMED, what)


def strange(what: str) -> Rejected:
    """Return the refusal of a frame that is of a kind which the layout does not describe."""
    return Rejected(QuarantineReason.SCHEMA, what)


def twice(name: str) -> Rejected:
    """Return the refusal of a name that is there already."""
    return strange(f"'{name}' occurs twice")


def append(tree: dict[str, Any], name: str, item: dict[str, Any]) -> None:
    """Put an object at the end of a list. Raises `Rejected` where something else has its name."""
    known = tree.setdefault(name, [])
    if known.__class__ is not list:
        raise twice(name)
    known.append(item)


def cut(at: int, end: int, run: tuple[tuple[str, int], ...]) -> Rejected:
    """Return the refusal of a frame cut short: a run of elements with their bytes begins at `at`."""
    for name, size in run:
        if at + size > end:
            return malformed(f"ends at byte {end}; {name} needs bytes {at} to {at + size - 1}")
        at += size
    return malformed(f"ends at byte {end}")


def left_over(at: int, end: int) -> Rejected:
    """Return the refusal of bytes that no step takes."""
    return malformed(f"{end - at} bytes left over at byte {at}")


# ── payload as text ──────────────────────────────────────────────────────────────────────────────────


def from_hex(payload: bytes) -> bytes:
    """Return the bytes of hexadecimal text, white space dropped. Raises `Rejected` where it is none."""
    try:
        return bytes.fromhex(payload.decode("ascii"))
    except ValueError as error:
        raise malformed("no hexadecimal text") from error


def from_base64(payload: bytes) -> bytes:
    """Return the bytes of base64 text, white space dropped. Raises `Rejected` where it is none."""
    try:
        return binascii.a2b_base64(b"".join(payload.split()), strict_mode=True)
    except binascii.Error as error:
        raise malformed("no base64 text") from error


# ── elements ─────────────────────────────────────────────────────────────────────────────────────────


def bcd(data: bytes) -> int | str:
    """Return the number in packed decimal digits; their hex text where a digit is above 9."""
    text = data.hex()
    return int(text) if text.isdecimal() else text


def nibbles(value: int, digits: int) -> int | str:
    """Return what `bcd` does for digits that are no whole bytes."""
    text = f"{value:0{digits}x}"
    return int(text) if text.isdecimal() else text


def digits(data: bytes) -> str:
    """Return packed decimal digits as text. Raises `Rejected` where one is above 9."""
    text = data.hex()
    if text and not text.isdecimal():
        raise malformed("a decimal digit is above 9")
    return text


def plain_text(data: bytes, charset: str) -> str:
    """Return text without NULs and blanks at its ends. Raises `Rejected` where it is not in the charset."""
    try:
        return data.decode(charset).strip("\0 \t\r\n")
    except UnicodeDecodeError as error:
        raise malformed(f"text that is not {charset}") from error


def byte_list(data: bytes) -> list[int]:
    """Return the bytes as numbers. Raises `Rejected` where there are too many."""
    if len(data) > ELEMENTS_MAX:
        raise strange(f"more than {ELEMENTS_MAX} elements")
    return list(data)


def number(value: Any) -> int | float:
    """Return a computed value as it may stand in a tree; NaN where it is no number."""
    kind = value.__class__
    if kind is float:
        return value  # type: ignore[no-any-return] # its class says so
    if kind is bool or kind is int:
        if -(2**63) <= value < 2**64:
            return int(value)
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return _NAN


def whole(value: Any, what: str, most: int) -> int:
    """Return a count or size. Raises `Rejected` where it is none or too large."""
    if value.__class__ is float and value.is_integer():
        value = int(value)
    if value.__class__ is not int or value < 0:
        raise malformed(f"{what} is no count")
    if value > most:
        raise malformed(f"{what} of {value} is more than there is ({most})")
    return value


_NAME = re.compile(r"[^\x00-\x1f]+")


def name_of(parts: tuple[Any, ...]) -> str:
    """Return a name made of elements. Raises `Rejected` where it is too long or not printable."""
    name = "".join(map(str, parts))
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise strange(f"a name of more than {NAME_MAX} characters, or of none")
    return name


# ── functions of expressions ─────────────────────────────────────────────────────────────────────────


def power(base: float, exponent: float) -> float:
    """Return a power as a float."""
    return math.pow(base, exponent)


def left(value: int, by: int) -> int:
    """Shift to the left, by 64 at most."""
    if not 0 <= by <= _SHIFT_MAX:
        raise ValueError("shifted too far")
    return value << by


def right(value: int, by: int) -> int:
    """Shift to the right, by 64 at most."""
    if not 0 <= by <= _SHIFT_MAX:
        raise ValueError("shifted too far")
    return value >> by


def signed(value: int, bits: int) -> int:
    """Return two's complement of the lowest bits."""
    half = left(1, bits - 1)
    return ((value & (2 * half - 1)) ^ half) - half


def bit(value: int, at: int) -> int:
    """Return one bit."""
    return right(value, at) & 1


def bits(value: int, low: int, high: int) -> int:
    """Return the bits from one to another."""
    return right(value, low) & (left(1, high - low + 1) - 1)


def integer(value: Any) -> int:
    """Return a whole number, of digits where it is text."""
    return int(_short(value))


def real(value: Any) -> float:
    """Return a float, of digits where it is text."""
    return float(_short(value))


def _short(value: Any) -> Any:
    if isinstance(value, str) and (len(value) > _WORD_MAX or "_" in value):
        raise ValueError("no number")
    return value


def rounded(value: float, places: int = 0) -> float:
    """Round to so many decimal places."""
    return round(float(value), places) if abs(places) <= _SHIFT_MAX else _NAN


class Function(NamedTuple):
    """A function of expressions."""

    call: Callable[..., Any]
    least: int
    most: int
    kind: Literal["int", "float", "number"] = "number"
    """What it gives."""


FUNCTIONS: Final[dict[str, Function]] = {
    "abs": Function(abs, 1, 1),
    "min": Function(min, 2, 8),
    "max": Function(max, 2, 8),
    "round": Function(rounded, 1, 2, kind="float"),
    "int": Function(integer, 1, 1, kind="int"),
    "float": Function(real, 1, 1, kind="float"),
    "sqrt": Function(math.sqrt, 1, 1, kind="float"),
    "exp": Function(math.exp, 1, 1, kind="float"),
    "log": Function(math.log, 1, 1, kind="float"),
    "log10": Function(math.log10, 1, 1, kind="float"),
    "signed": Function(signed, 2, 2, kind="int"),
    "bit": Function(bit, 2, 2, kind="int"),
    "bits": Function(bits, 3, 3, kind="int"),
}

NAMESPACE: Final[dict[str, Any]] = {
    "__builtins__": {},
    "len": len,
    "range": range,
    "tuple": tuple,
    "int": int,
    "str": str,
    "format": format,
    "FAULTS": FAULTS,
    "ELEMENTS_MAX": ELEMENTS_MAX,
    "TAGS_BYTES_MAX": TAGS_BYTES_MAX,
    "Rejected": Rejected,
    "malformed": malformed,
    "strange": strange,
    "twice": twice,
    "append": append,
    "cut": cut,
    "left_over": left_over,
    "from_hex": from_hex,
    "from_base64": from_base64,
    "from_bytes": int.from_bytes,
    "bcd": bcd,
    "nibbles": nibbles,
    "digits": digits,
    "plain_text": plain_text,
    "byte_list": byte_list,
    "number": number,
    "whole": whole,
    "name_of": name_of,
    "power": power,
    "left": left,
    "right": right,
    "NAN": _NAN,
    **{f"f_{name}": function.call for name, function in FUNCTIONS.items()},
}
"""The names that generated source knows, and no others."""
