"""Columns of integers and floats as few bytes as plain MessagePack allows; zstd does the rest.

An integer column is a list: ``[0, base]`` all alike; ``[1, base, step, width, bytes]`` value = base + step * u;
``[2, first, base, step, width, bytes]`` value = first + step * cumulative sum of (base + u), one `u` fewer than rows.
`u` is unsigned little-endian of `width` 1, 2, 4 or 8 bytes, stored in byte planes: first the low byte of every row,
then the next (so that high bytes, mostly alike, compress to nothing). Arithmetic is modulo 2**64.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from sensegate.model import F64, FORMAT, I64, U8, U64

Packed = list[Any]
Column = Annotated[list[int | bytes], msgspec.Meta(min_length=2, max_length=6)]
"""A packed column as it is decoded: numbers and bytes in the order of the module's text."""
Values = tuple[bytes, Column, bool, int, bytes, bytes]
"""What `pack_values` makes, as it is decoded."""
Table = Annotated[list[str], msgspec.Meta(max_length=1 << 16)]
"""Words that rows name by an index of 16 bits."""

MASK = (1 << 64) - 1
POWERS: F64 = np.array([10.0**digits for digits in range(8)])
RAW = 255
"""In place of the number of decimals: the floats are kept as they are."""
ROWS_MAX = (1 << 24) - 1
"""As many rows as a cursor can tell apart (`share.cursor`). A column of one value says any number in a few bytes."""
BARE_ROWS_MAX = 1 << 16
"""So many rows may be claimed by columns that hold no byte for each: all alike, or evenly rising."""
FAULTS = (KeyError, TypeError, IndexError, AttributeError, ArithmeticError)
"""What arithmetic on the content of a sealed map raises when the content is not what was sealed."""
_EXACT = float(1 << 53)
_KINDS: dict[int, Any] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
_encoder = msgspec.msgpack.Encoder()


class _Compressors(threading.local):
    """One of each a thread: they are fast when kept, and must not be used by two threads at once."""

    def __init__(self) -> None:
        self.squeeze = zstandard.ZstdCompressor(level=1).compress
        self.unsqueeze = zstandard.ZstdDecompressor().decompress


_zstd = _Compressors()


def seal(tree: dict[str, Any]) -> bytes:
    """Return a map as compressed MessagePack with the format version; compressing releases the interpreter lock."""
    return _zstd.squeeze(_encoder.encode({"v": FORMAT, **tree}))


class Oversized(ValueError):
    """More bytes or rows than the limit, or more rows than the bytes can hold: refused before they are allocated."""


class Sealed(msgspec.Struct):
    """A map that `seal` made; a subclass names its members. Members of a later release are passed over."""

    v: int


class _Version(msgspec.Struct):
    v: int = 0


_T = TypeVar("_T", bound=Sealed)
_version = msgspec.msgpack.Decoder(_Version).decode


def unseal(payload: bytes, decoder: msgspec.msgpack.Decoder[_T], *, limit: int, what: str) -> _T:
    """Return the map that `seal` made, decoded by `decoder`, whose type bounds what is allocated.

    Raises:
        ValueError: if it is not one, or of a format not known here. Oversized: larger than `limit` bytes.
    """
    try:
        size = zstandard.get_frame_parameters(payload).content_size
        if not 0 < size <= limit:
            raise Oversized(f"{what}: {size} bytes; the limit is {limit}")
        raw = _zstd.unsqueeze(payload)
        tree = decoder.decode(raw)
    except msgspec.ValidationError as why:
        if _known(raw):
            raise ValueError(f"{what}: cannot be read: {why}") from why
        raise ValueError(f"{what}: a format that this release does not know") from why
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"{what}: cannot be read: {why}") from why
    if tree.v != FORMAT:
        raise ValueError(f"{what}: a format that this release does not know")
    return tree


def _known(raw: bytes) -> bool:
    """Return whether a map says that it is of the format known here."""
    try:
        return _version(raw).v == FORMAT
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def width_of(span: int) -> int:
    """Return the bytes that an unsigned number up to `span` needs: 1, 2, 4 or 8."""
    return 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4 if span < 1 << 32 else 8


def planes(array: NDArray[Any], width: int) -> bytes:
    """Return the low `width` bytes of each element in byte planes."""
    narrow: NDArray[Any] = array.astype(_KINDS[width])
    raw: bytes = narrow.tobytes() if width == 1 else narrow.view(np.uint8).reshape(len(narrow), width).T.tobytes()
    return raw


def unplanes(raw: bytes, width: int) -> U64:
    """Return what `planes` wrote, as unsigned 64 bit."""
    rows = len(raw) // width
    if width == 1:
        return np.frombuffer(raw, np.uint8).astype(np.uint64)
    whole: NDArray[Any] = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(width, rows).T)
    column: U64 = whole.view(_KINDS[width]).reshape(rows).astype(np.uint64)
    return column


def pack(column: NDArray[Any], steps: tuple[int, ...] = (), *, delta: bool = True) -> Packed:
    """Return an integer column in its smallest form; `steps` are common divisors to try, greatest first."""
    if not len(column):
        return [0, 0]
    column = column.astype(np.int64, copy=False) if column.dtype != np.uint64 else column.view(np.int64)
    low, high = int(column.min()), int(column.max())
    if low == high:
        return [0, low]
    span = high - low
    offset: U64 = (column - np.int64(low)).view(np.uint64)
    step = 1
    for trial in steps:
        if span % trial == 0 and not int(offset[-1]) % trial:
            whole = offset // np.uint64(trial)
            if bool((whole * np.uint64(trial) == offset).all()):
                offset, step, span = whole, trial, span // trial
                break
    width = width_of(span)
    if delta:
        signed = offset.view(np.int64)
        change = signed[1:] - signed[:-1]
        least, most = int(change.min()), int(change.max())
        if least == most or width_of(most - least) < width:
            width = 0 if least == most else width_of(most - least)
            body = planes((change - np.int64(least)).view(np.uint64), width) if width else b""
            return [2, int(column[0]), least, step, width, body]
    return [1, low, step, width, planes(offset, width)]


def unpack(packed: Column, rows: int) -> I64:
    """Return what `pack` made of a column of so many rows. Nothing is allocated before the lengths are compared.

    Raises:
        ValueError: if the form is unknown, a number is out of range or the length differs.
    """
    if not 0 <= rows <= ROWS_MAX:
        raise ValueError(f"column of {rows} rows; at most {ROWS_MAX}")
    try:
        return _unpack(packed, rows)
    except FAULTS as why:
        raise ValueError(f"column that cannot be unpacked: {type(why).__name__}: {why}") from why


def _unpack(packed: Column, rows: int) -> I64:
    match packed:
        case [0, int(value)]:
            return np.full(rows, value, np.int64)
        case [1, int(low), int(step), int(width), bytes(body)]:
            _demand_length(body, rows, width)
            offset = unplanes(body, width)
            if step != 1:
                offset *= np.uint64(step)
            return offset.view(np.int64) + np.int64(low)
        case [2, int(first), int(least), int(step), int(width), bytes(body)] if rows:
            column = np.empty(rows, np.int64)
            column[0] = first
            if width:
                _demand_length(body, rows - 1, width)
                change = unplanes(body, width).view(np.int64) + np.int64(least)
                column[1:] = first + np.cumsum(change) * step
            else:
                _demand_length(body, 0, 1)
                column[1:] = first + np.arange(1, rows, dtype=np.int64) * (least * step)
            return column
    raise ValueError(f"column of unknown kind {packed[0]!r:.20}")


def _demand_length(body: bytes, rows: int, width: int) -> None:
    if width not in _KINDS:
        raise ValueError(f"column of numbers of {width} bytes")
    if len(body) != rows * width:
        raise ValueError(f"column of {len(body) // width} rows, not {rows}")


def demand_held(rows: int, *columns: Column, least: int = BARE_ROWS_MAX) -> None:
    """Return if so many rows may stand in these columns: a few bytes can claim any number of equal rows.

    Raises:
        Oversized: more than `least`, and more than the columns hold bytes.
    """
    held = sum(len(part) for column in columns for part in column if isinstance(part, bytes))
    if not 0 <= rows <= min(ROWS_MAX, max(least, held)):
        raise Oversized(f"{rows} rows in {held} bytes of columns")


def _decimals(value: F64, starts: I64) -> U8:
    """Return per segment the decimals with which each of its values is exact, or RAW."""
    need = np.full(len(value), RAW, np.uint8)
    left = None
    part = value
    for digits, power in enumerate(POWERS):
        whole = np.rint(part * power)
        exact = (whole / power == part) & (np.abs(whole) < _EXACT)
        if left is None:
            need[exact] = digits
            left = np.flatnonzero(~exact)
        else:
            need[left[exact]] = digits
            left = left[~exact]
        if not len(left):
            break
        if len(left) > len(value) // 2 and digits >= 4:
            break
        part = value[left]
    return np.maximum.reduceat(need, starts)


def pack_values(value: F64, counts: I64) -> Values:
    """Return values as ``[decimals, bases, delta, width, bytes, floats]``; segments of `counts` rows share a scale.

    Decimals (a byte each) and bases (one per segment) say value = (base + u) / 10**decimals; with `delta` the
    first of each segment is its base and the others are changes. A segment of decimals 255 stands in `floats`,
    unscaled (byte planes of IEEE 754). -0.0 becomes 0.0.
    """
    if not len(value):
        return (b"", [0, 0], False, 1, b"", b"")
    starts = np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        decimals = _decimals(value, starts)
        power = np.repeat(POWERS[np.minimum(decimals, len(POWERS) - 1)], counts)
        whole = np.rint(value * power)
        held = np.logical_and.reduceat((whole / power == value) & (np.abs(whole) < _EXACT), starts)
    decimals[~held] = RAW
    floats = b""
    if bool((decimals == RAW).any()):
        scaled = np.repeat(decimals != RAW, counts)
        floats = planes((value[~scaled] + 0.0).view(np.uint64), 8)
        whole = whole[scaled]
        counts = counts[decimals != RAW]
        starts = np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.int64)
    if not len(whole):
        return (decimals.tobytes(), [0, 0], False, 1, b"", floats)
    number: I64 = whole.astype(np.int64)
    low = np.minimum.reduceat(number, starts)
    span = np.maximum.reduceat(number, starts) - low
    change = np.empty(len(number), np.int64)
    change[0] = 0
    np.subtract(number[1:], number[:-1], out=change[1:])
    change[starts] = 0
    # Where the planes' high bytes are rarely used zstd takes them away: the mean of the bits counts, not the greatest.
    delta = float(np.log2(2.0 * np.abs(change) + 1.0).sum()) < 0.9 * float(np.log2(span + 1.0) @ counts)
    if delta:
        small = np.abs(change) * 2 - (change < 0)
        width = width_of(int(small.max()))
        return (decimals.tobytes(), pack(number[starts]), True, width, planes(small.view(np.uint64), width), floats)
    offset = number - np.repeat(low, counts)
    width = width_of(int(span.max()))
    return (decimals.tobytes(), pack(low), False, width, planes(offset.view(np.uint64), width), floats)


def rows_in(packed: Values) -> int:
    """Return how many rows `pack_values` was given: each of them takes at least one byte. Raises `ValueError`."""
    *_, width, body, floats = packed
    if width not in _KINDS or len(body) % width or len(floats) % 8:
        raise ValueError("values of no whole number of rows")
    return len(body) // width + len(floats) // 8


def unpack_values(packed: Values, counts: I64) -> F64:
    """Return what `pack_values` made of segments of `counts` rows. Raises `ValueError`."""
    head, bases, delta, width, body, floats = packed
    decimals = np.frombuffer(head, np.uint8)
    rows = int(counts.sum())
    if len(decimals) != len(counts) or rows_in(packed) != rows or bool(((counts < 0) | (counts > rows)).any()):
        raise ValueError("values of other rows")
    if not bool(((decimals < len(POWERS)) | (decimals == RAW)).all()):
        raise ValueError("values of an unknown scale")
    value = np.empty(rows, np.float64)
    scaled = np.repeat(decimals != RAW, counts)
    inner = counts[decimals != RAW]
    if len(floats) // 8 != rows - int(inner.sum()):
        raise ValueError("values of other rows")
    if floats:
        value[~scaled] = unplanes(floats, 8).view(np.float64)
    if not len(body):
        return value
    if bool((inner == 0).any()):
        raise ValueError("values of no row")
    number = unplanes(body, width).view(np.int64)
    base = unpack(bases, len(inner))
    starts = np.concatenate([[0], np.cumsum(inner[:-1])]).astype(np.int64)
    if delta:
        number = (number >> 1) ^ -(number & 1)
        number[starts] = base
        total = np.cumsum(number)
        before = np.concatenate([[0], total[starts[1:] - 1]])
        number = total - np.repeat(before, inner)
    else:
        number = number + np.repeat(base, inner)
    value[scaled] = number / np.repeat(POWERS[decimals[decimals != RAW]], inner)
    return value
