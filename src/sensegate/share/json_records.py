"""Encoder of rows of a batch as JSON objects and as server-sent events.

A record is about 440 bytes, of which few differ between neighbours. Each part of the text is made as a column (once for
a device, a property or a pair of codes, and by numpy for times), and all columns are joined by one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.bus.columns import Batch
from sensegate.model import BOOL, F64, I64, U32
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import TimeQuality, flag_words, quality_word
from sensegate.share.cursor import row_text
from sensegate.share.records import base_name, channel_of, kinds_of, units_of

_quote = msgspec.json.Encoder().encode
_Texts = NDArray[np.object_]


def _table(texts: Iterable[bytes]) -> _Texts:
    return np.fromiter(texts, np.object_)


# A newer release may have written codes that this release does not know.
_QUALITY = _table([f'","quality":"{quality_word(code)}'.encode() for code in range(256)])
_CLOCKS = {int(code): code.name.lower() for code in TimeQuality}
_CLOCK = _table([f'","time_quality":"{_CLOCKS.get(code, "unknown")}","received":"'.encode() for code in range(256)])
_DIGITS = np.frombuffer(b"".join(b"%02d" % number for number in range(100)), "<u2")
"""Two digits of each number below 100."""
_TIME_FORM = b"0000-00-00T00:00:00.000000Z"
_DAY_US = 86_400_000_000
_FIRST_US, _END_US = -719_162 * _DAY_US, 2_932_897 * _DAY_US
"""The years 1 to 9999, which have four digits."""
_PLAIN_DEGREES = 1e-4
"""Smaller numbers are written with an exponent, which Python and msgspec write differently."""
_ROWS_CACHED = 1 << 16


_FixedPart = bytes | I64 | NDArray[np.bytes_]
"""Part of fixed width: of all rows, times (µs UTC), or a text of each row."""


def iso(times: I64) -> list[bytes]:
    """Return each time (µs UTC) as ``2026-01-01T00:00:00.123456Z``."""
    if not len(times):
        return []
    if not _has_four_digits(times):
        return [text.encode() for text in np.datetime_as_string(times.view("datetime64[us]"), timezone="UTC").tolist()]
    return _fixed_width(len(times), [times])


def _has_four_digits(times: I64) -> bool:
    """Return whether the year of each time, of at least one, has four digits."""
    return int(times.min()) >= _FIRST_US and int(times.max()) < _END_US


def _fixed_width(count: int, parts: Sequence[_FixedPart]) -> list[bytes]:
    """Return the text of each row: parts that all have in common, texts of one length, and times.

    The years of times have four digits.
    """
    forms = [_TIME_FORM if _is_time(part) else bytes(part.itemsize) for part in parts if not isinstance(part, bytes)]
    texts_of = iter(forms)
    template = b"".join(part if isinstance(part, bytes) else next(texts_of) for part in parts)
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
            np.ndarray((count,), part.dtype, text, offset, (text.shape[1],))[:] = part
            offset += part.itemsize
    texts: list[bytes] = text.reshape(-1).view(f"S{len(template)}").tolist()
    return texts


def _is_time(part: NDArray[Any]) -> TypeGuard[I64]:
    return part.dtype.kind == "i"


def _write_times(text: NDArray[np.uint8], offset: int, times: I64) -> None:
    """Write the digits of times into the rows of a text, from a column on."""
    # Divisions by constants are vectorised, remainders are not.
    day = times // _DAY_US
    rest = times - day * _DAY_US
    in_seconds = rest // 1_000_000
    micros = (rest - in_seconds * 1_000_000).astype(np.int32)
    seconds = in_seconds.astype(np.int32)
    minutes = seconds // 60
    hours = minutes // 60
    hundreds = micros // 100
    tens_of_thousands = hundreds // 100
    first, last = int(day.min()), int(day.max())
    days, place = (np.array([first]), None) if first == last else np.unique(day, return_inverse=True)
    dates = np.datetime_as_string(days.view("datetime64[D]")).astype("S10").view(np.uint8).reshape(len(days), 10)
    text[:, offset : offset + 10] = dates[0] if place is None else dates[place]
    for digits, number in (
        (11, hours),
        (14, minutes - hours * 60),
        (17, seconds - minutes * 60),
        (20, tens_of_thousands),
        (22, hundreds - tens_of_thousands * 100),
        (24, micros - hundreds * 100),
    ):
        np.ndarray((len(times),), "<u2", text, offset + digits, (text.shape[1],))[:] = _DIGITS.take(number)


def _numbers(values: F64) -> list[bytes]:
    """Return the shortest JSON number of each float; NaN becomes null."""
    return _quote(values.tolist())[1:-1].split(b",") if len(values) else []


def _degrees(values: F64) -> list[bytes]:
    rounded = [round(value, 7) for value in values.tolist()]
    texts = _numbers(np.array(rounded))
    for place in np.flatnonzero(~(np.abs(values) >= _PLAIN_DEGREES)).tolist():
        texts[place] = b"null" if rounded[place] != rounded[place] else repr(rounded[place]).encode()
    for place in np.flatnonzero(np.isinf(values)).tolist():
        texts[place] = b"null"
    return texts


class RecordTexts:
    """Parts of the records of a batch that depend on device or property alone; a device's are made when needed."""

    __slots__ = ("_closed", "_heads", "_is_made", "_origins", "_tails", "booleans", "names", "node", "units")

    def __init__(self, batch: Batch) -> None:
        names = [
            _quote(base_name(name)) + (b',"channel":' + _quote(channel_of(name)) if "#" in name else b"") + b',"value":'
            for name in batch.properties
        ]
        self.names = _table(names)
        self.units = _table([b',"unit":' + _quote(unit) + b',"time":"' for unit in units_of(batch.properties)])
        self.booleans = np.array([kind is ValueKind.BOOLEAN for kind in kinds_of(batch.properties)], np.bool_)
        self.node = _quote(batch.node)
        self._origins = batch.origins
        count = len(batch.origins)
        self._is_made = np.zeros(count, np.bool_)
        self._heads = _table(repeat(b"", count))
        self._tails = _table(repeat(b"", count))
        self._closed: tuple[bytes, _Texts] | None = None
        """Tails with an ending, and that ending."""

    def heads(self, origin: U32) -> list[bytes]:
        """Return the part before the property of each row."""
        made = self._is_made[origin]
        if not made.all():
            wanted = np.zeros(len(self._is_made), np.bool_)
            wanted[origin] = True
            self._make(np.flatnonzero(wanted & ~self._is_made))
        heads: list[bytes] = self._heads.take(origin).tolist()
        return heads

    def tails(self, origin: U32, ending: bytes) -> list[bytes]:
        """Return the part between quality and flags of each row, with an ending that all have; after `heads`."""
        if self._closed is None or self._closed[0] != ending:
            self._closed = ending, _table([tail and tail + ending for tail in self._tails.tolist()])
        tails: list[bytes] = self._closed[1].take(origin).tolist()
        return tails

    def _make(self, entries: I64) -> None:
        origins = self._origins
        divisions, profiles = _table(map(_quote, origins.division.table)), _table(map(_quote, origins.profile.table))
        devices = [b'","device":%b,"property":' % _quote(origins.device[entry]) for entry in entries.tolist()]
        places = zip(
            divisions[origins.division.index[entries]].tolist(),
            _degrees(origins.lon[entries]),
            _degrees(origins.lat[entries]),
            origins.grade[entries].tolist(),
            profiles[origins.profile.index[entries]].tolist(),
            strict=True,
        )
        form = b'","division":%b,"lon":%b,"lat":%b,"grade":%d,"profile":%b,"flags":'
        self._heads[entries] = _table(devices)
        self._tails[entries] = _table([form % place for place in places])
        self._is_made[entries] = True
        self._closed = None


def json_lines(batch: Batch, rows: I64, entry: int, prefix: str, texts: RecordTexts | None = None) -> list[str]:
    """Return the JSON object of each row.

    `entry` is the sequence of the batch in the log, `prefix` the common prefix of the cursors of its rows, `texts` the
    cached parts of the batch.
    """
    texts = texts or RecordTexts(batch)
    columns = [*_ids(batch, rows, entry, prefix, texts), *_columns(batch, rows, texts, close=b"}\n")]
    return _joined(len(rows), [b'{"id":', *columns]).decode().split("\n")[:-1]


def events(batch: Batch, rows: I64, entry: int, prefix: str, texts: RecordTexts) -> bytes:
    """Return the rows as server-sent events, whose ids are the cursors; arguments as in `json_lines`."""
    ids = _event_ids(batch, rows, entry, prefix, texts)
    return _joined(len(rows), [*ids, *_columns(batch, rows, texts, close=b"}\n\n")])


_Column = bytes | list[bytes]


def _event_ids(batch: Batch, rows: I64, entry: int, prefix: str, texts: RecordTexts) -> list[_Column]:
    """Return the text of each row up to its cursor; as one column where all are of one width."""
    lead, data, cursor = f"id: {prefix}".encode(), b'\ndata: {"id":', f'","cursor":"{prefix}'.encode()
    index, sequence = batch.index[rows], _id_starts(batch, rows, entry, texts)
    width = _decimal_width(index)
    if not width or not isinstance(sequence, bytes) or int(rows.max()) >= _ROWS_CACHED:
        return [lead, _row_texts(rows), data, *_ids(batch, rows, entry, prefix, texts)]
    row = _row_column().take(rows)
    number = _decimal_column(width).take(index - (10 ** (width - 1) if width > 1 else 0))
    return [_fixed_width(len(rows), [lead, row, data + sequence, number, cursor, row])]


def _ids(batch: Batch, rows: I64, entry: int, prefix: str, texts: RecordTexts) -> list[_Column]:
    """Return the id and the cursor of each row, without the name of the first."""
    return [
        _id_starts(batch, rows, entry, texts),
        _decimal_texts(batch.index[rows].astype(np.int64)),
        f'","cursor":"{prefix}'.encode(),
        _row_texts(rows),
    ]


def _id_starts(batch: Batch, rows: I64, entry: int, texts: RecordTexts) -> _Column:
    return _sequence_texts(texts.node[:-1] + f"-{batch.partition}-".encode(), batch.seq[rows], entry)


def _columns(batch: Batch, rows: I64, texts: RecordTexts, *, close: bytes) -> list[_Column]:
    """Return the text of the members of each row after its cursor as columns."""
    property_, origin = batch.property[rows], batch.origin[rows]
    return [
        texts.heads(origin),
        texts.names.take(property_).tolist(),
        _values(batch, rows, texts.booleans[property_]),
        texts.units.take(property_).tolist(),
        *_times(batch, rows),
        *_ends(batch, rows, origin, texts, close),
    ]


def _times(batch: Batch, rows: I64) -> list[_Column]:
    """Return the text from the phenomenon time to the quality of each row; neighbours of fixed width as one column."""
    times = batch.time[rows], batch.received[rows]
    clock, quality = _by_code(batch.time_quality[rows], _CLOCK), _by_code(batch.quality[rows], _QUALITY)
    if not len(rows) or not all(map(_has_four_digits, times)):
        return [iso(times[0]), clock, iso(times[1]), quality]
    columns: list[_Column] = []
    fixed: list[_FixedPart] = []
    for part in (times[0], clock, times[1], quality):
        if isinstance(part, list):
            columns += [_fixed_width(len(rows), fixed), part]
            fixed = []
        else:
            fixed.append(part)
    return [*columns, _fixed_width(len(rows), fixed)] if fixed else columns


def _ends(batch: Batch, rows: I64, origin: U32, texts: RecordTexts, close: bytes) -> list[_Column]:
    """Return the text after the quality of each row, up to `close`."""
    endings = _endings(batch.flags[rows].astype(np.int64) << 8 | batch.revision[rows], texts.node)
    if isinstance(endings, bytes):
        return [texts.tails(origin, endings + close)]
    return [texts.tails(origin, b""), endings, close]


def _joined(count: int, columns: Sequence[_Column]) -> bytes:
    """Return the text of all rows, row by row."""
    merged: list[_Column] = []
    for column in columns:
        before = merged[-1] if merged else None
        if isinstance(column, bytes) and isinstance(before, bytes):
            merged[-1] = before + column
        else:
            merged.append(column)
    width = len(merged)
    parts: list[bytes] = [b""] * (width * count)
    for place, column in enumerate(merged):
        parts[place::width] = [column] * count if isinstance(column, bytes) else column
    return b"".join(parts)


def _values(batch: Batch, rows: I64, is_boolean: BOOL) -> list[bytes]:
    """Return each value as JSON: a number, a boolean or a string, by the kind of its property."""
    column = batch.value[rows]
    values = _numbers(column)
    for place in np.flatnonzero(is_boolean).tolist():
        values[place] = b"true" if column[place] else b"false"
    if batch.text:
        for place, row in enumerate(rows.tolist()):
            if (text := batch.text.get(row)) is not None:
                values[place] = _quote(text)
    return values


def _by_code(column: NDArray[np.uint8], texts: _Texts) -> _Column:
    first = int(column[0]) if len(column) else 0
    if bool((column == first).all()):
        text: bytes = texts[first]
        return text
    of_row: list[bytes] = texts.take(column).tolist()
    return of_row


def _sequence_texts(start: bytes, sequences: I64, entry: int) -> _Column:
    first = int(sequences[0]) if len(sequences) else 0
    if bool((sequences == first).all()):
        return b"%b%014d-" % (start, first or entry)
    return [b"%b%014d-" % (start, sequence or entry) for sequence in sequences.tolist()]


def _endings(codes: I64, node: bytes) -> _Column:
    """Return flags, revision and node; `codes`: flags << 8 | revision."""

    def ending(code: int) -> bytes:
        return b'%b,"revision":%d,"node":%b' % (_quote(flag_words(code >> 8)), code & 255, node)

    first = int(codes[0]) if len(codes) else 0
    if bool((codes == first).all()):
        return ending(first)
    different = codes.tolist()
    known = {code: ending(code) for code in set(different)}
    return list(map(known.__getitem__, different))


@lru_cache(1)
def _decimals() -> list[bytes]:
    return [b"%d" % number for number in range(_ROWS_CACHED)]


@lru_cache(1)
def _rows() -> list[bytes]:
    return [row_text(row).encode() for row in range(_ROWS_CACHED)]


def _decimal_width(numbers: U32) -> int:
    """Return how many digits each of some numbers has; 0: they differ, or are large."""
    if not len(numbers) or int(numbers.max()) >= _ROWS_CACHED:
        return 0
    shortest, longest = len(str(numbers.min())), len(str(numbers.max()))
    return longest if shortest == longest else 0


@lru_cache(8)
def _decimal_column(width: int) -> NDArray[np.bytes_]:
    """Return the texts of the numbers that have so many digits."""
    return np.array(_decimals()[10 ** (width - 1) if width > 1 else 0 : 10**width], f"S{width}")


@lru_cache(1)
def _row_column() -> NDArray[np.bytes_]:
    return np.array(_rows(), np.bytes_)


def _decimal_texts(numbers: I64) -> list[bytes]:
    if len(numbers) and int(numbers.max()) < _ROWS_CACHED:
        return _taken(_decimals(), numbers)
    return [b"%d" % number for number in numbers.tolist()]


def _row_texts(rows: I64) -> list[bytes]:
    if len(rows) and int(rows.max()) < _ROWS_CACHED:
        return _taken(_rows(), rows)
    return [row_text(row).encode() for row in rows.tolist()]


def _taken(table: list[bytes], numbers: I64) -> list[bytes]:
    """Return the texts of non-negative numbers; a slice where they are consecutive."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first == len(numbers) - 1 and bool((np.diff(numbers) == 1).all()):
        return table[first : last + 1]
    return list(map(table.__getitem__, numbers.tolist()))
