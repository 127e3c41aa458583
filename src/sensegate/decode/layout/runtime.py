"""Functions that generated layouts call: read, convert and refuse. Each raises only what it documents."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

ELEMENTS_MAX: Final = 4_096
"""Most passes through repeats and tags of one frame, and bytes of a `bytes` element."""
TAGS_BYTES_MAX: Final = 16_384
"""Most bytes of tags with their values in one frame."""
NAME_MAX: Final = 64
"""Longest computed name."""

FAULTS: Final = (TypeError, ValueError, ArithmeticError)
"""Errors of an expression whose elements are not numbers or too large, or that divides by 0."""

_WORD_MAX: Final = 32
_SHIFT_MAX: Final = 64
_NAN: Final = math.nan


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────


def malformed(detail: str) -> Rejected:
    """Return the refusal of a frame whose bytes contradict the layout."""
    return Rejected(QuarantineReason.MALFORMED, detail)


def unsupported(detail: str) -> Rejected:
    """Return the refusal of a frame of a kind that the layout does not describe."""
    return Rejected(QuarantineReason.SCHEMA, detail)


def duplicate(name: str) -> Rejected:
    """Return the refusal of a duplicate name."""
    return unsupported(f"'{name}' occurs twice")


def append(tree: dict[str, Any], name: str, item: dict[str, Any]) -> None:
    """Append an object to a list. Raises `Rejected` if something else has its name."""
    known = tree.setdefault(name, [])
    if known.__class__ is not list:
        raise duplicate(name)
    known.append(item)


def truncated(position: int, end: int, run: tuple[tuple[str, int], ...]) -> Rejected:
    """Return the refusal of a truncated frame: a run of elements with their sizes starts at `position`."""
    for name, size in run:
        if position + size > end:
            return malformed(f"the frame ends at byte {end}; {name} needs bytes {position} to {position + size - 1}")
        position += size
    return malformed(f"the frame ends at byte {end}")


def left_over(position: int, end: int) -> Rejected:
    """Return the refusal of bytes that no step reads."""
    return malformed(f"{end - position} bytes are left over at byte {position}")


# ── payload as text ──────────────────────────────────────────────────────────────────────────────────


def without_prefix(text: str) -> str:
    """Return hexadecimal text without ``0x`` in front."""
    text = text.lstrip()
    return text[2:] if text[:2] in {"0x", "0X"} else text


def from_hex(payload: bytes) -> bytes:
    """Return the bytes of hexadecimal text, ignoring white space and ``0x``. Raises `Rejected` if it is not valid."""
    try:
        return bytes.fromhex(without_prefix(payload.decode("ascii")))
    except ValueError as error:
        raise malformed("the payload is not hexadecimal text") from error


def from_base64(payload: bytes) -> bytes:
    """Return the bytes of base64 text, ignoring white space. Raises `Rejected` if it is not valid."""
    try:
        return binascii.a2b_base64(b"".join(payload.split()), strict_mode=True)
    except binascii.Error as error:
        raise malformed("the payload is not base64 text") from error


# ── elements ─────────────────────────────────────────────────────────────────────────────────────────


def bcd(data: bytes) -> int | str:
    """Return the number in packed decimal digits; their hex text if a digit is above 9."""
    text = data.hex()
    return int(text) if text.isdecimal() else text


def nibbles(value: int, digits: int) -> int | str:
    """Return the same as `bcd` for digits that are not whole bytes."""
    text = f"{value:0{digits}x}"
    return int(text) if text.isdecimal() else text


def digits(data: bytes) -> str:
    """Return packed decimal digits as text. Raises `Rejected` if one is above 9."""
    text = data.hex()
    if text and not text.isdecimal():
        raise malformed("a decimal digit is above 9")
    return text


def plain_text(data: bytes, charset: str) -> str:
    """Return text without leading and trailing NULs and spaces. Raises `Rejected` if it is not in the charset."""
    try:
        return data.decode(charset).strip("\0 \t\r\n")
    except UnicodeDecodeError as error:
        raise malformed(f"a text is not valid {charset}") from error


def byte_list(data: bytes) -> list[int]:
    """Return the bytes as numbers. Raises `Rejected` if there are too many."""
    if len(data) > ELEMENTS_MAX:
        raise unsupported(f"more than {ELEMENTS_MAX} elements")
    return list(data)


def number(value: Any) -> int | float:
    """Return a computed value in a form allowed in a tree; NaN if it is not a number."""
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


def whole(value: Any, title: str, maximum: int) -> int:
    """Return a count or size. Raises `Rejected` if it is not valid or too large."""
    if value.__class__ is float and value.is_integer():
        value = int(value)
    if value.__class__ is not int or value < 0:
        raise malformed(f"{title} is not a count")
    if value > maximum:
        raise malformed(f"{title} of {value} is more than available ({maximum})")
    return value


_NAME = re.compile(r"[^\x00-\x1f]+")


def name_of(parts: tuple[Any, ...]) -> str:
    """Return a computed name. Raises `Rejected` if it is too long or not printable."""
    name = "".join(map(str, parts))
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise unsupported(f"a computed name is empty, or has more than {NAME_MAX} characters")
    return name


# ── functions of expressions ─────────────────────────────────────────────────────────────────────────


def power(base: float, exponent: float) -> float:
    """Return a power as a float."""
    return math.pow(base, exponent)


def left(value: int, count: int) -> int:
    """Shift left, by at most 64 bits."""
    if not 0 <= count <= _SHIFT_MAX:
        raise ValueError("the shift is too wide")
    return value << count


def right(value: int, count: int) -> int:
    """Shift right, by at most 64 bits."""
    if not 0 <= count <= _SHIFT_MAX:
        raise ValueError("the shift is too wide")
    return value >> count


def signed(value: int, bits: int) -> int:
    """Return the lowest bits as a two's complement number."""
    half = left(1, bits - 1)
    return ((value & (2 * half - 1)) ^ half) - half


def bit(value: int, position: int) -> int:
    """Return one bit."""
    return right(value, position) & 1


def bits(value: int, low: int, high: int) -> int:
    """Return the bits from `low` to `high`."""
    return right(value, low) & (left(1, high - low + 1) - 1)


def integer(value: Any) -> int:
    """Return an integer; text is parsed."""
    return int(_check_length(value))


def real(value: Any) -> float:
    """Return a float; text is parsed."""
    return float(_check_length(value))


def _check_length(value: Any) -> Any:
    if isinstance(value, str) and (len(value) > _WORD_MAX or "_" in value):
        raise ValueError("is not a number")
    return value


def rounded(value: float, places: int = 0) -> float:
    """Round to a number of decimal places."""
    return round(float(value), places) if abs(places) <= _SHIFT_MAX else _NAN


class Function(NamedTuple):
    """A function of expressions."""

    call: Callable[..., Any]
    least: int
    most: int
    kind: Literal["int", "float", "number"] = "number"
    """Kind of the result."""


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
    "unsupported": unsupported,
    "duplicate": duplicate,
    "append": append,
    "truncated": truncated,
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
"""The only names that generated source can use."""
