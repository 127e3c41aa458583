"""Compact MessagePack encoding of integer and float columns, to be compressed by zstd.

An integer column is a list: ``[0, base]`` all equal; ``[1, base, step, width, bytes]`` value = base + step * u;
``[2, first, base, step, width, bytes]`` value = first + step * cumulative sum of (base + u), one `u` fewer than rows.
`u` is unsigned little-endian of `width` 1, 2, 4 or 8 bytes, stored in byte planes: first the low byte of every row,
then the next one (high bytes are mostly equal, so they compress well). Arithmetic is modulo 2**64.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from sensegate.model import BOOL, F64, FORMAT, I64, U8, U64

Packed = list[Any]
Column = Annotated[list[int | bytes], msgspec.Meta(min_length=2, max_length=6)]
"""A packed column as decoded: numbers and bytes in the order given in the module's docstring."""
Values = tuple[bytes, Column, bool, int, bytes, bytes]
"""The result of `pack_values`, as decoded."""
Table = Annotated[list[str], msgspec.Meta(max_length=1 << 16)]
"""Strings that rows refer to by an index of 16 bits."""

POWERS: F64 = np.array([10.0**digits for digits in range(8)])
UNSCALED = 255
"""Number of decimals that marks floats stored unscaled."""
ROWS_MAX = (1 << 24) - 1
"""Most rows of a column: as many as a cursor can distinguish (`share.cursor`)."""
UNBACKED_ROWS_MAX = 1 << 16
"""Most rows of columns that hold no byte per row: all equal, or evenly rising."""
CONTENT_ERRORS = (KeyError, TypeError, IndexError, AttributeError, ArithmeticError)
"""Errors that processing the content of a decoded map raises when the content is corrupt."""
_EXACT = float(1 << 53)
_SAMPLE = 8
"""Rows of a segment from which its number of decimals is taken, to be confirmed by all."""
_KINDS: dict[int, Any] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
_encoder = msgspec.msgpack.Encoder()


class _Compressors(threading.local):
    """Compressor and decompressor of a thread: reusing them is fast, sharing them between threads is not safe."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Compressors()


def encode_map(tree: dict[str, Any]) -> bytes:
    """Return a map as compressed MessagePack with the format version; compression releases the GIL."""
    return _zstd.compress(_encoder.encode({"v": FORMAT, **tree}))


class Oversized(ValueError):
    """The data has more bytes or rows than the limit, or claims more rows than its bytes can hold."""


class VersionedMap(msgspec.Struct):
    """Base of maps encoded by `encode_map`; a subclass declares the fields. Unknown fields are ignored."""

    v: int


class _Version(msgspec.Struct):
    v: int = 0


_T = TypeVar("_T", bound=VersionedMap)
_version = msgspec.msgpack.Decoder(_Version).decode


def decode_map(payload: bytes, decoder: msgspec.msgpack.Decoder[_T], *, limit: int, subject: str) -> _T:
    """Return a map encoded by `encode_map`; the type of `decoder` bounds the memory that is allocated.

    Raises:
        ValueError: it is corrupt or of an unknown format. Oversized: it is larger than `limit` bytes.
    """
    try:
        size = zstandard.get_frame_parameters(payload).content_size
        if not 0 < size <= limit:
            raise Oversized(f"{subject}: {size} bytes; at most {limit} are allowed")
        raw = _zstd.decompress(payload)
        tree = decoder.decode(raw)
    except msgspec.ValidationError as why:
        if _is_known_format(raw):
            raise ValueError(f"{subject}: cannot be decoded: {why}") from why
        raise ValueError(f"{subject}: this release does not know its format") from why
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"{subject}: cannot be decoded: {why}") from why
    if tree.v != FORMAT:
        raise ValueError(f"{subject}: this release does not know its format")
    return tree


def _is_known_format(raw: bytes) -> bool:
    """Return whether a map declares the known format version."""
    try:
        return _version(raw).v == FORMAT
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def width_of(span: int) -> int:
    """Return the number of bytes, 1, 2, 4 or 8, of an unsigned integer up to `span`."""
    return 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4 if span < 1 << 32 else 8


def to_byte_planes(array: NDArray[Any], width: int) -> bytes:
    """Return the low `width` bytes of each element, in byte planes."""
    narrow: NDArray[Any] = array.astype(_KINDS[width])
    raw: bytes = narrow.tobytes() if width == 1 else narrow.view(np.uint8).reshape(len(narrow), width).T.tobytes()
    return raw


def from_byte_planes(raw: bytes, width: int) -> U64:
    """Return the array of `to_byte_planes` as unsigned 64-bit integers."""
    rows = len(raw) // width
    if width == 1:
        return np.frombuffer(raw, np.uint8).astype(np.uint64)
    whole: NDArray[Any] = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(width, rows).T)
    column: U64 = whole.view(_KINDS[width]).reshape(rows).astype(np.uint64)
    return column


def _may_be_even(offset: U64) -> bool:
    """Return whether the ends of a column allow that all differences are equal: only then they are less than a byte."""
    first, second, last = int(offset[0]), int(offset[1]), int(offset[-1])
    return last - first == (second - first) * (len(offset) - 1)


def pack(column: NDArray[Any], steps: tuple[int, ...] = (), *, delta: bool = True) -> Packed:
    """Return the smallest packing of an integer column; `steps`: common divisors to try, greatest first."""
    if not len(column):
        return [0, 0]
    if column.dtype == np.uint64:
        column = column.view(np.int64)
    low, high = int(np.minimum.reduce(column)), int(np.maximum.reduce(column))
    if low == high:
        return [0, low]
    column = column.astype(np.int64, copy=False)
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
    if delta and (width > 1 or _may_be_even(offset)):
        signed = offset.view(np.int64)
        change = signed[1:] - signed[:-1]
        least, most = int(np.minimum.reduce(change)), int(np.maximum.reduce(change))
        if least == most or width_of(most - least) < width:
            width = 0 if least == most else width_of(most - least)
            body = to_byte_planes((change - np.int64(least)).view(np.uint64), width) if width else b""
            return [2, int(column[0]), least, step, width, body]
    return [1, low, step, width, to_byte_planes(offset, width)]


def unpack(packed: Column, rows: int) -> I64:
    """Return the column that `pack` packed, of `rows` rows. Lengths are checked before memory is allocated.

    Raises:
        ValueError: the packing is unknown, a number is out of range or the length differs.
    """
    if not 0 <= rows <= ROWS_MAX:
        raise ValueError(f"the column has {rows} rows; at most {ROWS_MAX} are allowed")
    try:
        return _unpack(packed, rows)
    except CONTENT_ERRORS as why:
        raise ValueError(f"the column cannot be unpacked: {type(why).__name__}: {why}") from why


def _unpack(packed: Column, rows: int) -> I64:
    match packed:
        case [0, int(value)]:
            return np.full(rows, value, np.int64)
        case [1, int(low), int(step), int(width), bytes(body)]:
            _require_length(body, rows, width)
            offset = from_byte_planes(body, width)
            if step != 1:
                offset *= np.uint64(step)
            return offset.view(np.int64) + np.int64(low)
        case [2, int(first), int(least), int(step), int(width), bytes(body)] if rows:
            column = np.empty(rows, np.int64)
            column[0] = first
            if width:
                _require_length(body, rows - 1, width)
                change = from_byte_planes(body, width).view(np.int64) + np.int64(least)
                column[1:] = first + np.cumsum(change) * step
            else:
                _require_length(body, 0, 1)
                column[1:] = first + np.arange(1, rows, dtype=np.int64) * (least * step)
            return column
    raise ValueError(f"the column has the unknown packing {packed[0]!r:.20}")


def _require_length(body: bytes, rows: int, width: int) -> None:
    if width not in _KINDS:
        raise ValueError(f"the column has numbers of {width} bytes")
    if len(body) != rows * width:
        raise ValueError(f"the column has {len(body) // width} rows, not {rows}")


def require_backing_bytes(rows: int, *columns: Column, unbacked_max: int = UNBACKED_ROWS_MAX) -> None:
    """Return if these columns may have so many rows: a few bytes can claim any number of equal rows.

    Raises:
        Oversized: they are more than `unbacked_max` and more than the bytes of the columns.
    """
    held = sum(len(part) for column in columns for part in column if isinstance(part, bytes))
    if not 0 <= rows <= min(ROWS_MAX, max(unbacked_max, held)):
        raise Oversized(f"{rows} rows in {held} bytes of columns")


def _decimals(value: F64, starts: I64) -> U8:
    """Return per segment the number of decimals with which each of its values is exact, or UNSCALED."""
    need = np.full(len(value), UNSCALED, np.uint8)
    remaining = None
    part = value
    for digits, power in enumerate(POWERS):
        whole = np.rint(part * power)
        exact = (whole / power == part) & (np.abs(whole) < _EXACT)
        if remaining is None:
            need[exact] = digits
            remaining = np.flatnonzero(~exact)
        else:
            need[remaining[exact]] = digits
            remaining = remaining[~exact]
        if not len(remaining):
            break
        if len(remaining) > len(value) // 2 and digits >= 4:
            break
        part = value[remaining]
    return np.maximum.reduceat(need, starts)


def _sampled_decimals(value: F64, starts: I64, counts: I64) -> U8:
    """Return what `_decimals` returns for the first rows of each segment."""
    width = min(_SAMPLE, int(np.maximum.reduce(counts)))
    part = value[(starts[:, None] + np.minimum(np.arange(width), (counts - 1)[:, None])).ravel()]
    power = POWERS[:, None]
    whole = np.rint(part * power)
    exact = (whole / power == part) & (np.abs(whole) < _EXACT)
    need = np.where(exact.any(axis=0), exact.argmax(axis=0), UNSCALED)
    decimals: U8 = np.maximum.reduce(need.reshape(len(starts), width), axis=1).astype(np.uint8)
    return decimals


def _scaled(value: F64, decimals: U8, starts: I64, counts: I64) -> tuple[F64, BOOL]:
    """Return the values scaled by the decimals of their segments, and per segment whether all are exact so."""
    power = np.repeat(POWERS[np.minimum(decimals, len(POWERS) - 1)], counts)
    whole = np.rint(value * power)
    return whole, np.logical_and.reduceat((whole / power == value) & (np.abs(whole) < _EXACT), starts)


def _starts(counts: I64) -> I64:
    starts: I64 = np.cumsum(counts)
    starts -= counts
    return starts


def pack_values(value: F64, counts: I64) -> Values:
    """Return values as ``[decimals, bases, delta, width, bytes, floats]``; segments of `counts` rows share a scale.

    With the decimals (a byte each) and bases (one per segment), value = (base + u) / 10**decimals; with `delta` the
    first value of each segment is its base and the others are changes. A segment with decimals 255 is stored in
    `floats`, unscaled (byte planes of IEEE 754). -0.0 becomes 0.0.
    """
    if not len(value):
        return (b"", [0, 0], False, 1, b"", b"")
    starts = _starts(counts)
    with np.errstate(invalid="ignore", over="ignore"):
        decimals = _sampled_decimals(value, starts, counts)
        whole, held = _scaled(value, decimals, starts, counts)
        more = ~held & (decimals != UNSCALED)
        if more.any():
            rows = np.repeat(more, counts)
            part, lengths = value[rows], counts[more]
            decimals[more] = _decimals(part, _starts(lengths))
            whole[rows], held[more] = _scaled(part, decimals[more], _starts(lengths), lengths)
    decimals[~held] = UNSCALED
    floats = b""
    if bool((decimals == UNSCALED).any()):
        scaled = np.repeat(decimals != UNSCALED, counts)
        floats = to_byte_planes((value[~scaled] + 0.0).view(np.uint64), 8)
        whole = whole[scaled]
        counts = counts[decimals != UNSCALED]
        starts = _starts(counts)
    if not len(whole):
        return (decimals.tobytes(), [0, 0], False, 1, b"", floats)
    number: I64 = whole.astype(np.int64)
    low = np.minimum.reduceat(number, starts)
    span = np.maximum.reduceat(number, starts) - low
    change = np.empty(len(number), np.int64)
    change[0] = 0
    np.subtract(number[1:], number[:-1], out=change[1:])
    change[starts] = 0
    # zstd removes byte planes that are rarely used: the mean number of bits decides, not the greatest.
    delta = float(np.log2(2.0 * np.abs(change) + 1.0).sum()) < 0.9 * float(np.log2(span + 1.0) @ counts)
    if delta:
        small = np.abs(change) * 2 - (change < 0)
        width = width_of(int(small.max()))
        return (
            decimals.tobytes(),
            pack(number[starts]),
            True,
            width,
            to_byte_planes(small.view(np.uint64), width),
            floats,
        )
    offset = number - np.repeat(low, counts)
    width = width_of(int(span.max()))
    return (decimals.tobytes(), pack(low), False, width, to_byte_planes(offset.view(np.uint64), width), floats)


def packed_row_count(packed: Values) -> int:
    """Return the number of rows in packed values: each takes at least one byte. Raises `ValueError`."""
    *_, width, body, floats = packed
    if width not in _KINDS or len(body) % width or len(floats) % 8:
        raise ValueError("the values are not a whole number of rows")
    return len(body) // width + len(floats) // 8


def unpack_values(packed: Values, counts: I64) -> F64:
    """Return the values that `pack_values` packed in segments of `counts` rows. Raises `ValueError`."""
    head, bases, delta, width, body, floats = packed
    decimals = np.frombuffer(head, np.uint8)
    rows = int(counts.sum())
    if len(decimals) != len(counts) or packed_row_count(packed) != rows or bool(((counts < 0) | (counts > rows)).any()):
        raise ValueError("the values do not match the rows")
    if not bool(((decimals < len(POWERS)) | (decimals == UNSCALED)).all()):
        raise ValueError("the values have an unknown scale")
    value = np.empty(rows, np.float64)
    scaled = np.repeat(decimals != UNSCALED, counts)
    inner = counts[decimals != UNSCALED]
    if len(floats) // 8 != rows - int(inner.sum()):
        raise ValueError("the values do not match the rows")
    if floats:
        value[~scaled] = from_byte_planes(floats, 8).view(np.float64)
    if not len(body):
        return value
    if bool((inner == 0).any()):
        raise ValueError("a segment of values has no rows")
    number = from_byte_planes(body, width).view(np.int64)
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
    value[scaled] = number / np.repeat(POWERS[decimals[decimals != UNSCALED]], inner)
    return value
