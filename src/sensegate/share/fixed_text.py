"""Texts of many rows as one array of bytes, a row of the array for each: what all have in common, numbers, times.

Columns of the array are filled for all rows at once. A text shorter than its column ends with NULs, which are removed
at the end: JSON has none, it escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.model import F64, I64, U8
from sensegate.share.cursor import row_text

Table = NDArray[np.object_]
"""Texts of any lengths, to be looked up by columns of numbers."""
Words = NDArray[np.bytes_]
FixedPart = bytes | I64 | Words
"""Part of the text of all rows: of all rows, times (µs UTC), or a text of each row."""

_encode = msgspec.json.Encoder().encode
NUMBERS_MAX = 1 << 16
"""Numbers of rows, and whole numbers, below this have their texts in a table."""
_DIGITS = np.frombuffer(b"".join(b"%02d" % number for number in range(100)), "<u2")
"""Two digits of each number below 100."""
_TIME_FORM = b"0000-00-00T00:00:00.000000Z"
_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_FIRST_US, _END_US = -719_162 * _DAY_US, 2_932_897 * _DAY_US
"""The years 1 to 9999, which have four digits."""
_ROWS_PER_SECOND_MIN = 16
"""Rows per second of their span from which on the text of the seconds is made once and not for each row."""


def iso(times: I64) -> list[bytes]:
    """Return each time (µs UTC) as ``2026-01-01T00:00:00.123456Z``."""
    if not len(times):
        return []
    if not has_four_digits(times):
        return [text.encode() for text in np.datetime_as_string(times.view("datetime64[us]"), timezone="UTC").tolist()]
    return texts(len(times), [times])


def has_four_digits(times: I64) -> bool:
    """Return whether the year of each time, of at least one, has four digits."""
    return int(times.min()) >= _FIRST_US and int(times.max()) < _END_US


def texts(count: int, parts: Sequence[FixedPart]) -> list[bytes]:
    """Return the text of each row, none of which has a text shorter than its column; years have four digits."""
    array = _filled(count, parts)
    of_row: list[bytes] = array.reshape(-1).view(f"S{array.shape[1]}").tolist()
    return of_row


def joined(count: int, parts: Sequence[FixedPart]) -> bytes:
    """Return the texts of all rows, row by row; years have four digits."""
    return _filled(count, parts).tobytes().replace(b"\0", b"")


def _filled(count: int, parts: Sequence[FixedPart]) -> NDArray[np.uint8]:
    forms = [_TIME_FORM if _is_time(part) else bytes(part.itemsize) for part in parts if not isinstance(part, bytes)]
    form_of = iter(forms)
    template = b"".join(part if isinstance(part, bytes) else next(form_of) for part in parts)
    text = np.empty((count, len(template)), np.uint8)
    text[:] = np.frombuffer(template, np.uint8)
    offset = 0
    for part in parts:
        if isinstance(part, bytes):
            offset += len(part)
        elif _is_time(part):
            _write_times(text, offset, part)
            offset += len(_TIME_FORM)
        else:
            _write(text, offset, part)
            offset += part.itemsize
    return text


def _is_time(part: NDArray[Any]) -> TypeGuard[I64]:
    return part.dtype.kind == "i"


def _write(text: U8, offset: int, column: NDArray[Any]) -> None:
    """Write a column of any fixed width into the rows of a text, from a column on."""
    np.ndarray((len(column),), column.dtype, text, offset, (text.shape[1],))[:] = column


def _write_times(text: U8, offset: int, times: I64) -> None:
    """Write the digits of times into the rows of a text, from a column on."""
    # Divisions by constants are vectorised, remainders are not.
    seconds = times // _SECOND_US
    micros = (times - seconds * _SECOND_US).astype(np.int32)
    first, last = int(seconds.min()), int(seconds.max())
    if (last - first) * _ROWS_PER_SECOND_MIN < len(times):
        span = np.arange(first, last + 1).view("datetime64[s]")
        _write(text, offset, np.datetime_as_string(span).astype("S19").take(seconds - first))
    else:
        _write_seconds(text, offset, seconds)
    millis = micros // 1_000
    thousandths = _three_digits()
    _write(text, offset + 20, thousandths.take(millis))
    _write(text, offset + 23, thousandths.take(micros - millis * 1_000))


def _write_seconds(text: U8, offset: int, times: I64) -> None:
    """Write times in seconds up to the seconds."""
    day = times // 86_400
    seconds = (times - day * 86_400).astype(np.int32)
    minutes = seconds // 60
    hours = minutes // 60
    first, last = int(day.min()), int(day.max())
    days, place = (np.array([first]), None) if first == last else np.unique(day, return_inverse=True)
    dates = np.datetime_as_string(days.view("datetime64[D]")).astype("S10").view(np.uint8).reshape(len(days), 10)
    text[:, offset : offset + 10] = dates[0] if place is None else dates[place]
    for digits, number in ((11, hours), (14, minutes - hours * 60), (17, seconds - minutes * 60)):
        _write(text, offset + digits, _DIGITS.take(number))


def table(texts: Iterable[bytes]) -> Table:
    """Return texts as a table."""
    return np.fromiter(texts, np.object_)


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(1)
def decimals() -> list[bytes]:
    """Return the texts of the numbers below `NUMBERS_MAX`."""
    return [b"%d" % number for number in range(NUMBERS_MAX)]


@lru_cache(1)
def rows() -> list[bytes]:
    """Return the texts of the rows of cursors below `NUMBERS_MAX`."""
    return [row_text(row).encode() for row in range(NUMBERS_MAX)]


@lru_cache(1)
def row_column() -> Words:
    """Return the texts of the rows of cursors below `NUMBERS_MAX` as a column."""
    return np.array(rows(), np.bytes_)


def whole_numbers(numbers: NDArray[Any]) -> Words:
    """Return the text of each number, at least one, from 0 to below `NUMBERS_MAX`."""
    return _whole_numbers(len(str(int(numbers.max())))).take(numbers)


@lru_cache(8)
def _whole_numbers(width: int) -> Words:
    """Return the texts of the numbers of at most so many digits."""
    return np.array(decimals()[: 10**width], f"S{width}")


@lru_cache(1)
def _three_digits() -> Words:
    return np.array([b"%03d" % number for number in range(1_000)], "S3")


@lru_cache(3)
def _fractions(digits: int) -> Words:
    """Return the texts of tenths, hundredths or thousandths behind a whole number, without zeros at the end."""
    texts = [f".{number:0{digits}d}".rstrip("0").encode() for number in range(10**digits)]
    return np.array([b".0", *texts[1:]], f"S{digits + 1}")


def numbers(values: F64) -> list[bytes]:
    """Return the shortest JSON number of each float; NaN becomes null."""
    return _encode(values.tolist())[1:-1].split(b",") if len(values) else []


def decimal_numbers(values: F64) -> tuple[Words, Words] | None:
    """Return each number in two columns, as msgspec writes it: whole part and fraction.

    None: one is negative, not below `NUMBERS_MAX`, or has more than three decimals.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * 1_000)
        is_plain = bool((scaled / 1_000 == values).all())
    if not is_plain or bool(np.signbit(values).any()) or float(values.max()) >= NUMBERS_MAX:
        return None
    thousandths = scaled.astype(np.int32)
    whole = thousandths // 1_000
    rest = thousandths - whole * 1_000
    for digits, divisor in ((1, 100), (2, 10)):
        number = rest // divisor
        if bool((number * divisor == rest).all()):
            return whole_numbers(whole), _fractions(digits).take(number)
    return whole_numbers(whole), _fractions(3).take(rest)
