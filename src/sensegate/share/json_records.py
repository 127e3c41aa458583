"""Encoder of rows of a batch as JSON objects and as server-sent events.

A record is about 440 bytes, of which few differ between neighbours. Each part of the text is made as a column (once for
a device, a property or a pair of codes, and by numpy for times), and all columns are joined by one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.bus.columns import Batch
from sensegate.model import BOOL, F64, I64, U8, U32
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import TimeQuality, flag_words, quality_word
from sensegate.share import fixed_text
from sensegate.share.cursor import row_text
from sensegate.share.device_texts import DeviceTexts
from sensegate.share.records import base_name, channel_of, kinds_of, units_of

_quote = msgspec.json.Encoder().encode
# A newer release may have written codes that this release does not know.
_QUALITY = fixed_text.table([f'","quality":"{quality_word(code)}'.encode() for code in range(256)])
_CLOCKS = {int(code): code.name.lower() for code in TimeQuality}
_CLOCK = fixed_text.table(
    [f'","time_quality":"{_CLOCKS.get(code, "unknown")}","received":"'.encode() for code in range(256)]
)
_ROWS_MIN = 256
"""With fewer rows the array of their texts costs more than it saves."""
_RUN_MIN = 256
"""Rows of one property, on average, from which on each property has an array of its own."""
_PROPERTIES_MAX = 4_096
"""Most properties with their channels whose texts are remembered."""
_SLACK_MAX = 24.0
"""Most bytes by which the texts of devices and properties may be shorter than the longest ones, on average."""


class _PropertyTexts(NamedTuple):
    """Parts of the records of a property."""

    name: bytes
    """Name and channel, up to the value."""
    unit: bytes
    """From the value to the time."""
    is_boolean: bool


@lru_cache(_PROPERTIES_MAX)
def _property_texts(name: str) -> _PropertyTexts:
    channel = b',"channel":' + _quote(channel_of(name)) if "#" in name else b""
    return _PropertyTexts(
        _quote(base_name(name)) + channel + b',"value":',
        b',"unit":' + _quote(units_of([name])[0]) + b',"time":"',
        kinds_of([name])[0] is ValueKind.BOOLEAN,
    )


class RecordTexts:
    """Parts of the records of a batch that depend on device or property alone; a device's are made when needed."""

    __slots__ = (
        "_closed",
        "_columns",
        "_devices",
        "_heads",
        "_is_made",
        "_origins",
        "_tails",
        "booleans",
        "names",
        "node",
        "units",
    )

    def __init__(self, batch: Batch, devices: DeviceTexts | None = None) -> None:
        """`devices`: texts of devices that were made for other entries."""
        texts = list(map(_property_texts, batch.properties))
        self.names = fixed_text.table(text.name for text in texts)
        self.units = fixed_text.table(text.unit for text in texts)
        self.booleans = np.array([text.is_boolean for text in texts], np.bool_)
        self.node = _quote(batch.node)
        self._devices = DeviceTexts() if devices is None else devices
        self._origins = batch.origins
        count = len(batch.origins)
        self._is_made = np.zeros(count, np.bool_)
        self._heads = fixed_text.table(repeat(b"", count))
        self._tails = fixed_text.table(repeat(b"", count))
        self._closed: tuple[bytes, fixed_text.Table] | None = None
        """Tails with an ending, and that ending."""
        self._columns: tuple[_SlackColumn, _SlackColumn] | None = None
        """Heads and tails."""

    def columns(self, origin: U32) -> tuple[fixed_text.Words, fixed_text.Words] | None:
        """Return `heads` and `tails`, these without an ending, as columns; None: their lengths differ too much."""
        if len(origin) >= len(self._is_made):
            self._make(np.flatnonzero(~self._is_made))
        self._make_missing(origin)
        if self._columns is None:
            self._columns = _as_columns(self._heads.tolist()), _as_columns(self._tails.tolist())
        (heads, heads_slack), (tails, tails_slack) = self._columns
        if heads_slack + tails_slack > _SLACK_MAX:
            return None
        return heads.take(origin), tails.take(origin)

    def heads(self, origin: U32) -> list[bytes]:
        """Return the part before the property of each row."""
        self._make_missing(origin)
        heads: list[bytes] = self._heads.take(origin).tolist()
        return heads

    def tails(self, origin: U32, ending: bytes) -> list[bytes]:
        """Return the part between quality and flags of each row, with an ending that all have; after `heads`."""
        if self._closed is None or self._closed[0] != ending:
            self._closed = ending, fixed_text.table([tail and tail + ending for tail in self._tails.tolist()])
        tails: list[bytes] = self._closed[1].take(origin).tolist()
        return tails

    def _make_missing(self, origin: U32) -> None:
        made = self._is_made[origin]
        if not made.all():
            wanted = np.zeros(len(self._is_made), np.bool_)
            wanted[origin] = True
            self._make(np.flatnonzero(wanted & ~self._is_made))

    def _make(self, entries: I64) -> None:
        if not len(entries):
            return
        self._heads[entries], self._tails[entries] = self._devices.of(self._origins, entries)
        self._is_made[entries] = True
        self._closed = self._columns = None


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
    if len(rows) < _ROWS_MIN:
        return _listed_events(batch, rows, entry, prefix, texts)
    property_ = batch.property[rows]
    ends = np.flatnonzero(property_[1:] != property_[:-1]) + 1
    # Rows are ordered by property: in large entries a block has few, and a text that all rows have costs nothing.
    runs = np.split(rows, ends) if len(rows) >= _RUN_MIN * (len(ends) + 1) else [rows]
    bodies = []
    for run in runs:
        body = array_events(batch, run, entry, prefix, texts)
        bodies.append(_listed_events(batch, run, entry, prefix, texts) if body is None else body)
    return b"".join(bodies)


def array_events(batch: Batch, rows: I64, entry: int, prefix: str, texts: RecordTexts) -> bytes | None:
    """Return ascending rows, at least one, as events by an array of texts; None: their lengths differ too much."""
    first, last = int(rows[0]), int(rows[-1])
    # Of neighbours the columns are views.
    here: slice | I64 = slice(first, last + 1) if last - first == len(rows) - 1 else rows
    property_, index = batch.property[here], batch.index[here]
    time, received = batch.time[here], batch.received[here]
    start = _id_starts(batch.seq[here], batch, entry, texts)
    if (
        batch.text
        or not isinstance(start, bytes)
        or max(last, int(index.max())) >= fixed_text.NUMBERS_MAX
        or not (fixed_text.has_four_digits(time) and fixed_text.has_four_digits(received))
        or (ends := texts.columns(batch.origin[here])) is None
    ):
        return None
    if (property_ == property_[0]).all():
        property_ = property_[:1]
    row = fixed_text.row_column()[here]
    parts: list[fixed_text.FixedPart] = [
        f"id: {prefix}".encode(),
        row,
        b'\ndata: {"id":' + start,
        fixed_text.whole_numbers(index),
        f'","cursor":"{prefix}'.encode(),
        row,
        ends[0],
        _column(_of_rows(texts.names, property_)),
        *_value_columns(batch.value[here], texts.booleans[property_]),
        _column(_of_rows(texts.units, property_)),
        time,
        _column(_of_rows(_CLOCK, batch.time_quality[here])),
        received,
        _column(_of_rows(_QUALITY, batch.quality[here])),
        ends[1],
        _column(_endings(batch.flags[here], batch.revision[here], texts.node)),
        b"}\n\n",
    ]
    return fixed_text.joined(len(rows), parts)


def _value_columns(values: F64, is_boolean: BOOL) -> Sequence[fixed_text.Words]:
    """Return numbers and booleans in columns whose texts follow each other; `is_boolean`: of each, or of all."""
    if not is_boolean.any() and (numbers := fixed_text.decimal_numbers(values)) is not None:
        return numbers
    return [np.array(_numbers_or_booleans(values, np.broadcast_to(is_boolean, values.shape)), np.bytes_)]


def _column(texts: _Column) -> bytes | fixed_text.Words:
    return texts if isinstance(texts, bytes) else np.array(texts, np.bytes_)


def _as_columns(texts: list[bytes]) -> _SlackColumn:
    """Return texts as a column, and by how much they are shorter than the longest, on average over those not empty."""
    lengths = list(map(len, texts))
    width = max(lengths)
    column = np.frombuffer(b"".join([text.ljust(width, b"\0") for text in texts]), f"S{width}")
    return column, width - sum(lengths) / max(len(lengths) - lengths.count(0), 1)


def _listed_events(batch: Batch, rows: I64, entry: int, prefix: str, texts: RecordTexts) -> bytes:
    """Return rows as events, whatever their texts."""
    columns = [*_ids(batch, rows, entry, prefix, texts), *_columns(batch, rows, texts, close=b"}\n\n")]
    return _joined(len(rows), [f"id: {prefix}".encode(), _row_texts(rows), b'\ndata: {"id":', *columns])


_Column = bytes | list[bytes]
_SlackColumn = tuple[fixed_text.Words, float]


def _ids(batch: Batch, rows: I64, entry: int, prefix: str, texts: RecordTexts) -> list[_Column]:
    """Return the id and the cursor of each row, without the name of the first."""
    return [
        _id_starts(batch.seq[rows], batch, entry, texts),
        _decimal_texts(batch.index[rows].astype(np.int64)),
        f'","cursor":"{prefix}'.encode(),
        _row_texts(rows),
    ]


def _id_starts(sequences: I64, batch: Batch, entry: int, texts: RecordTexts) -> _Column:
    return _sequence_texts(texts.node[:-1] + f"-{batch.partition}-".encode(), sequences, entry)


def _columns(batch: Batch, rows: I64, texts: RecordTexts, *, close: bytes) -> list[_Column]:
    """Return the text of the members of each row after its cursor as columns."""
    property_, origin = batch.property[rows], batch.origin[rows]
    return [
        texts.heads(origin),
        _of_rows(texts.names, property_),
        _values(batch, rows, texts.booleans[property_]),
        _of_rows(texts.units, property_),
        *_times(batch, rows),
        *_ends(batch, rows, origin, texts, close),
    ]


def _times(batch: Batch, rows: I64) -> list[_Column]:
    """Return the text from the phenomenon time to the quality of each row; neighbours of fixed width as one column."""
    times = batch.time[rows], batch.received[rows]
    clock, quality = _of_rows(_CLOCK, batch.time_quality[rows]), _of_rows(_QUALITY, batch.quality[rows])
    if not len(rows) or not all(map(fixed_text.has_four_digits, times)):
        return [fixed_text.iso(times[0]), clock, fixed_text.iso(times[1]), quality]
    columns: list[_Column] = []
    fixed: list[fixed_text.FixedPart] = []
    for part in (times[0], clock, times[1], quality):
        if isinstance(part, list):
            columns += [fixed_text.texts(len(rows), fixed), part]
            fixed = []
        else:
            fixed.append(part)
    return [*columns, fixed_text.texts(len(rows), fixed)] if fixed else columns


def _ends(batch: Batch, rows: I64, origin: U32, texts: RecordTexts, close: bytes) -> list[_Column]:
    """Return the text after the quality of each row, up to `close`."""
    endings = _endings(batch.flags[rows], batch.revision[rows], texts.node)
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
    values = _numbers_or_booleans(batch.value[rows], is_boolean)
    if batch.text:
        for place, row in enumerate(rows.tolist()):
            if (text := batch.text.get(row)) is not None:
                values[place] = _quote(text)
    return values


def _numbers_or_booleans(column: F64, is_boolean: BOOL) -> list[bytes]:
    values = fixed_text.numbers(column)
    for place in np.flatnonzero(is_boolean).tolist():
        values[place] = b"true" if column[place] else b"false"
    return values


def _of_rows(texts: fixed_text.Table, numbers: NDArray[Any]) -> _Column:
    """Return the text of each row by its number in a table; the text itself where all rows have the same."""
    if not len(numbers):
        return []
    first = int(numbers[0])
    if bool((numbers == first).all()):
        text: bytes = texts[first]
        return text
    of_row: list[bytes] = texts.take(numbers).tolist()
    return of_row


def _sequence_texts(start: bytes, sequences: I64, entry: int) -> _Column:
    first = int(sequences[0]) if len(sequences) else 0
    if bool((sequences == first).all()):
        return b"%b%014d-" % (start, first or entry)
    return [b"%b%014d-" % (start, sequence or entry) for sequence in sequences.tolist()]


def _endings(flags: U32, revisions: U8, node: bytes) -> _Column:
    """Return flags, revision and node of each row."""

    def ending(code: int) -> bytes:
        return b'%b,"revision":%d,"node":%b' % (_quote(flag_words(code >> 8)), code & 255, node)

    if not len(flags):
        return []
    if bool((flags == flags[0]).all()) and bool((revisions == revisions[0]).all()):
        return ending(int(flags[0]) << 8 | int(revisions[0]))
    codes = (flags.astype(np.int64) << 8 | revisions).tolist()
    known = {code: ending(code) for code in set(codes)}
    return list(map(known.__getitem__, codes))


def _decimal_texts(numbers: I64) -> list[bytes]:
    if len(numbers) and int(numbers.max()) < fixed_text.NUMBERS_MAX:
        return _taken(fixed_text.decimals(), numbers)
    return [b"%d" % number for number in numbers.tolist()]


def _row_texts(rows: I64) -> list[bytes]:
    if len(rows) and int(rows.max()) < fixed_text.NUMBERS_MAX:
        return _taken(fixed_text.rows(), rows)
    return [row_text(row).encode() for row in rows.tolist()]


def _taken(table: list[bytes], numbers: I64) -> list[bytes]:
    """Return the texts of non-negative numbers; a slice where they are consecutive."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first == len(numbers) - 1 and bool((np.diff(numbers) == 1).all()):
        return table[first : last + 1]
    return list(map(table.__getitem__, numbers.tolist()))
