"""Parquet files of segments: written column by column from sorted rows, and read back for merging.

pyarrow takes words as numbers and a table of them, so that no text is touched for each row; DuckDB reads the files.
Values are stored as whole multiples of a power of ten where that is exact, else as doubles.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensegate.bus.batch import EMPTY
from sensegate.errors import ConfigError, Unavailable
from sensegate.history.segment_rows import (
    NO_TEXT,
    ORIGIN_WORDS,
    CodedWords,
    SegmentOrigins,
    SegmentRows,
    WordNumbers,
    hourly_sums,
    joined,
    rows_of_entries,
)
from sensegate.model import BOOL, F64, I64, U8, U32
from sensegate.share.matching import SECONDARY

ROW_GROUP = 65_536
VALUE_SQL = "coalesce(scaled / [1, 10, 100, 1000, 10000, 100000, 1000000][digits + 1], value)"
"""The value of a stored row, NULL for texts."""
TIME_SQL = "ms * 1000 + us"
"""The phenomenon time of a stored row, µs UTC: most have whole milliseconds, whose differences take a third less."""
LAST_TIME_SQL = "hour + last_ms * 1000 + last_us"
"""The time of the last row of an hourly sum, µs UTC."""
_DIGITS_MAX = 6
_EXACT_SHARE = 0.95
"""A property is stored as whole numbers if so many of its values are exact."""
_FACTORS = 10.0 ** np.arange(_DIGITS_MAX + 1)
_SAMPLE = 1_000
_LEVEL = 1
"""Compression level of zstd; encoded columns hardly compress better at higher ones."""
_META = b"sensegate"
_WORDS = (*ORIGIN_WORDS, "property", "text")
_DELTA = ("ms", "received", "scaled", "entry", "idx", "last_ms")
"""Columns that are encoded by their differences."""
_SPLIT = ("value",)
"""Columns of doubles that are encoded by the bytes of each."""
_PACKED = (
    *("ms", "received", "scaled", "value", "text", "entry", "back", "idx", "hour", "n", "numbers", "good"),
    *("least", "most", "total", "last", "last_ms", "last_us"),
)
"""Columns that zstd makes smaller; of the others the encodings leave runs."""
_UNSTATED = (
    *("lon", "lat", "received", "scaled", "entry", "idx", "n", "numbers", "good"),
    *("least", "most", "total", "last", "last_ms", "last_us"),
)
"""Columns whose least and greatest values nobody asks for: no query skips row groups by them, and none is constant."""


class SegmentFiles:
    """Writer and reader of the files; its methods block."""

    def __init__(self) -> None:
        """Load pyarrow. Raises `ConfigError`: the extra is not installed."""
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            self._parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ConfigError(
                "the history needs pyarrow, which is not installed",
                key="history.enabled",
                remedy="install sensegate[history], or set it to false",
            ) from None

    def write_rows(self, path: Path, rows: SegmentRows, footer: bytes) -> None:
        """Write sorted rows to a file, with a description in its footer. Raises `OSError`."""
        digits, scaled, is_exact = scaled_values(rows)

        def columns(begin: int, end: int) -> dict[str, Any]:
            place = slice(begin, end)
            origins, origin = _used(rows.origins, rows.origin[place])
            exact, value = is_exact[place], rows.value[place]
            ms = rows.time[place] // 1_000
            words = {name: self._words(getattr(origins, name), origin) for name in ORIGIN_WORDS}
            return {
                "node": words["node"],
                "partition": origins.partition[origin],
                "device": words["device"],
                "property": self._words(rows.property.take(place), slice(None)),
                "division": words["division"],
                "department": words["department"],
                "domain": words["domain"],
                "profile": words["profile"],
                "grade": origins.grade[origin],
                "lon": self._optional(origins.lon[origin]),
                "lat": self._optional(origins.lat[origin]),
                "ms": ms,
                "us": (rows.time[place] - ms * 1_000).astype(np.uint16),
                "received": rows.received[place],
                "scaled": self._array(scaled[place], None if exact.all() else ~exact),
                "digits": digits[rows.property.place[place]],
                "value": self._array(value, exact | np.isnan(value)),
                "text": self._texts(rows.text, begin, end),
                "quality": rows.quality[place],
                "time_quality": rows.time_quality[place],
                "revision": rows.revision[place],
                "flags": rows.flags[place],
                "entry": rows.entry[place],
                "back": rows.entry[place] - rows.seq[place],
                "idx": rows.index[place],
            }

        self._write(path, len(rows), columns, {_META: footer})

    def write_sums(self, path: Path, rows: SegmentRows) -> None:
        """Write the hourly sums of sorted rows to a file. Raises `OSError`."""
        sums, secondary = hourly_sums(rows, int(SECONDARY)), np.uint32(SECONDARY)

        def columns(begin: int, end: int) -> dict[str, Any]:
            place = slice(begin, end)
            first = sums.first[place]
            last = sums.last_time[place] - sums.hour[place]
            origins, origin = _used(rows.origins, rows.origin[first])
            return {
                "device": self._words(origins.device, origin),
                "property": self._words(rows.property.take(first), slice(None)),
                "division": self._words(origins.division, origin),
                "department": self._words(origins.department, origin),
                "domain": self._words(origins.domain, origin),
                "grade": origins.grade[origin],
                "secondary": rows.flags[first] & secondary,
                "hour": sums.hour[place],
                "n": sums.count[place],
                "numbers": sums.numbers[place],
                "least": self._optional(sums.least[place]),
                "most": self._optional(sums.most[place]),
                "total": self._optional(sums.total[place]),
                "last": self._optional(sums.last[place]),
                "last_ms": last // 1_000,
                "last_us": (last % 1_000).astype(np.uint16),
                "good": sums.good[place],
            }

        self._write(path, len(sums.first), columns, {})

    def _write(
        self, path: Path, rows: int, columns: Callable[[int, int], dict[str, Any]], metadata: dict[bytes, bytes]
    ) -> None:
        """Write `columns` of each range of rows as a row group."""
        writer = None
        try:
            for begin in range(0, max(rows, 1), ROW_GROUP):
                part = columns(begin, min(rows, begin + ROW_GROUP))
                table = self._arrow.Table.from_arrays([*map(self._array, part.values())], names=[*part])
                if writer is None:
                    writer = self._writer(path, table.schema)
                    writer.add_key_value_metadata(metadata)
                writer.write_table(table, row_group_size=ROW_GROUP)
        except self._arrow.ArrowException as why:
            raise Unavailable(f"history: {why}") from why
        finally:
            if writer is not None:
                writer.close()

    def _writer(self, path: Path, schema: Any) -> Any:
        names = schema.names
        encodings = {name: "DELTA_BINARY_PACKED" for name in names if name in _DELTA}
        encodings |= {name: "BYTE_STREAM_SPLIT" for name in names if name in _SPLIT}
        return self._parquet.ParquetWriter(
            path,
            schema,
            compression={name: "zstd" if name in _PACKED else "none" for name in names},
            compression_level={name: _LEVEL for name in names if name in _PACKED},
            write_batch_size=ROW_GROUP,
            write_statistics=[name for name in names if name not in _UNSTATED],
            use_dictionary=[name for name in names if name not in encodings],
            column_encoding=encodings,
            store_schema=False,
        )

    def _words(self, column: CodedWords, elements: Any) -> Any:
        """Return some elements of a column, with a dictionary of the words that they use."""
        column = _shrunk(column)
        return self._coded(column.place[elements], column.table)

    def _array(self, column: Any, is_null: BOOL | None = None) -> Any:
        """Return a column of numpy as one of Arrow, whose own conversion loads pandas where it finds it."""
        arrow = self._arrow
        if isinstance(column, arrow.Array):
            return column
        known = None if is_null is None else arrow.py_buffer(np.packbits(~is_null, bitorder="little"))
        buffers = [known, arrow.py_buffer(np.ascontiguousarray(column))]
        return arrow.Array.from_buffers(arrow.from_numpy_dtype(column.dtype), len(column), buffers)

    def _coded(self, place: Any, words: list[str], is_null: BOOL | None = None) -> Any:
        arrow, texts = self._arrow, [word.encode() for word in words]
        ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        buffers = [None, arrow.py_buffer(ends), arrow.py_buffer(b"".join(texts))]
        table = arrow.Array.from_buffers(arrow.string(), len(texts), buffers)
        return arrow.DictionaryArray.from_arrays(self._array(place, is_null), table)

    def _texts(self, column: CodedWords | None, begin: int, end: int) -> Any:
        if column is None:
            return self._coded(np.zeros(end - begin, np.int32), [], np.ones(end - begin, np.bool_))
        place = column.place[begin:end]
        used, number = np.unique(place, return_inverse=True)
        words = ["" if word == NO_TEXT else column.table[word] for word in used.tolist()]
        return self._coded(number.reshape(-1).astype(np.int32), words, place == NO_TEXT)

    def _optional(self, column: F64) -> Any:
        """Return a column in which NaN is no value."""
        unknown = np.isnan(column)
        return self._array(column, unknown if unknown.any() else None)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────

    def footer(self, path: Path) -> bytes | None:
        """Return the description in the footer of a file; None: it is not a segment. Raises `OSError`."""
        try:
            metadata = self._parquet.read_metadata(path).metadata or {}
        except self._arrow.ArrowInvalid:
            return None
        footer: bytes | None = metadata.get(_META)
        return footer

    def read_rows(self, paths: Sequence[Path]) -> SegmentRows:
        """Return the rows of files, one after the other. Raises `Unavailable`."""
        groups = []
        try:
            for path in paths:
                with self._parquet.ParquetFile(path, read_dictionary=[*_WORDS], pre_buffer=False) as file:
                    groups += [self._group(file, number) for number in range(file.metadata.num_row_groups)]
        except (OSError, self._arrow.ArrowException) as why:
            raise Unavailable(f"history: {why}") from why
        return joined(groups) if groups else rows_of_entries([(0, EMPTY)])

    def _group(self, file: Any, number: int) -> SegmentRows:
        """Return the rows of a row group."""
        metadata = file.metadata.row_group(number)
        size, constants = metadata.num_rows, _constants(metadata)
        table = file.read_row_group(
            number, columns=[name for name in file.schema_arrow.names if name not in constants], use_threads=False
        )

        def numbers(name: str, kind: Any) -> Any:
            if name in constants:
                value = constants[name]
                return np.full(size, np.nan if value is None else value, kind)
            chunks = table[name].chunks
            column = _joined([_numbers(chunk, kind) for chunk in chunks])
            return np.where(_joined([*map(_is_known, chunks)]), column, np.nan) if table[name].null_count else column

        def words(name: str) -> CodedWords:
            if name in constants:
                return CodedWords([constants[name]], np.zeros(size, np.int32))
            return self._coded_words(table[name])

        coded = {name: words(name) for name in ORIGIN_WORDS}
        partition, grade = numbers("partition", np.int32), numbers("grade", np.uint8)
        lon, lat = numbers("lon", np.float64), numbers("lat", np.float64)
        differs = np.zeros(size, np.bool_)
        differs[:1] = True
        # An unknown position is NaN, which differs from itself: compared by its bits.
        columns = {**{name: words.place for name, words in coded.items()}, "partition": partition, "grade": grade}
        columns |= {"lon": lon.view(np.int64), "lat": lat.view(np.int64)}
        for name, column in columns.items():
            if name not in constants:
                differs[1:] |= column[1:] != column[:-1]
        first = np.flatnonzero(differs)
        entry = numbers("entry", np.int64)
        return SegmentRows(
            SegmentOrigins(
                **{name: words.take(first) for name, words in coded.items()},
                partition=partition[first],
                lon=lon[first],
                lat=lat[first],
                grade=grade[first],
            ),
            (np.cumsum(differs) - 1).astype(np.uint32),
            words("property"),
            numbers("ms", np.int64) * 1_000 + numbers("us", np.uint16),
            numbers("received", np.int64),
            self._values(table, constants, numbers("digits", np.uint8), size),
            None if "text" in constants and constants["text"] is None else words("text"),
            numbers("quality", np.uint8),
            numbers("time_quality", np.uint8),
            numbers("revision", np.uint8),
            numbers("flags", np.uint32),
            entry,
            entry - numbers("back", np.int64),
            numbers("idx", np.uint32),
        )

    def _values(self, table: Any, constants: Mapping[str, Any], digits: U8, size: int) -> F64:
        """Return the numbers of a row group."""
        value = np.full(size, np.nan)
        if "value" not in constants:
            chunks = table["value"].chunks
            is_known = _joined([_is_known(chunk) for chunk in chunks])
            value[is_known] = _joined([_numbers(chunk, np.float64) for chunk in chunks])[is_known]
        if "scaled" in constants:
            return value
        chunks = table["scaled"].chunks
        whole: F64 = _joined([_numbers(chunk, np.int64) for chunk in chunks]) / _FACTORS[digits]
        if not table["scaled"].null_count:
            return whole
        return np.where(_joined([_is_known(chunk) for chunk in chunks]), whole, value)

    def _coded_words(self, column: Any) -> CodedWords:
        numbers = WordNumbers()
        places = []
        for chunk in column.chunks:
            # The last element is the place of rows without a text.
            number = np.append(numbers.of(chunk.dictionary.to_pylist()), np.int32(NO_TEXT))
            indices = _numbers(chunk.indices, np.int32)
            places.append(number[np.where(_is_known(chunk), indices, NO_TEXT) if chunk.null_count else indices])
        return CodedWords(numbers.table, _joined(places))


def _numbers(chunk: Any, kind: Any) -> Any:
    """Return the numbers of a column of Arrow; those of NULL are undefined."""
    return np.frombuffer(chunk.buffers()[1], kind)[chunk.offset : chunk.offset + len(chunk)]


def _is_known(chunk: Any) -> BOOL:
    """Return which elements of a column of Arrow are not NULL."""
    bits = chunk.buffers()[0]
    if bits is None:
        return np.ones(len(chunk), np.bool_)
    known = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[chunk.offset :][: len(chunk)]
    return known.view(np.bool_)


def _joined(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _used(origins: SegmentOrigins, origin: U32) -> tuple[SegmentOrigins, I64]:
    """Return the origins in use, and the place of each element among them."""
    used = np.flatnonzero(np.bincount(origin, minlength=1))
    place = np.zeros(int(used[-1]) + 1 if len(used) else 1, np.int64)
    place[used] = np.arange(len(used))
    return origins.take(used), place[origin]


def _shrunk(column: CodedWords) -> CodedWords:
    """Return a column with a table of the words in use, in their order."""
    if len(column.table) <= 1:
        return column
    used = np.flatnonzero(np.bincount(column.place, minlength=1))
    number = np.zeros(int(used[-1]) + 1 if len(used) else 1, np.int32)
    number[used] = np.arange(len(used), dtype=np.int32)
    return CodedWords([column.table[word] for word in used.tolist()], number[column.place])


def _constants(metadata: Any) -> dict[str, Any]:
    """Return the columns of a row group that need not be read: what all rows have; None: nothing."""
    constants: dict[str, Any] = {}
    for place in range(metadata.num_columns):
        column = metadata.column(place)
        name, statistics = column.path_in_schema, column.statistics
        if statistics is None or not statistics.has_null_count:
            continue
        if statistics.null_count == metadata.num_rows:
            constants[name] = None
        elif not statistics.null_count and statistics.has_min_max and name not in {"scaled", "value", "text"}:
            least, most = statistics.min, statistics.max
            # Of the two zeros a statistic may have either.
            if least == most != 0 or (least == most and not isinstance(least, float)):
                constants[name] = least
    return constants


def scaled_values(rows: SegmentRows) -> tuple[U8, I64, BOOL]:
    """Return (digits of each property, whole multiples of 10^-digits, where these are exact) of sorted rows."""
    table = rows.property.table
    digits = np.zeros(max(1, len(table)), np.uint8)
    scaled, exact = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
    borders = np.searchsorted(rows.property.place, np.arange(len(table) + 1))
    for number in range(len(table)):
        chosen = slice(int(borders[number]), int(borders[number + 1]))
        value = rows.value[chosen]
        if not len(value):
            continue
        least = _digits_of(value[:: max(1, len(value) // _SAMPLE)])
        for candidate in range(_DIGITS_MAX + 1)[_DIGITS_MAX + 1 if least is None else least :]:
            whole, is_exact, is_enough = _scaled(value, candidate)
            if is_enough:
                digits[number], scaled[chosen], exact[chosen] = candidate, whole, is_exact
                break
    return digits, scaled, exact


def _digits_of(sample: F64) -> int | None:
    """Return the fewest digits that are enough for a sample; None: none are."""
    return next((digits for digits in range(_DIGITS_MAX + 1) if _scaled(sample, digits)[2]), None)


def _scaled(value: F64, digits: int) -> tuple[I64, BOOL, bool]:
    """Return (whole multiples of 10^-digits, where these are exact, whether so many are that they are stored so)."""
    factor = 10.0**digits
    with np.errstate(invalid="ignore", over="ignore"):
        whole = np.rint(value * factor)
        exact = (np.abs(whole) < 2.0**52) & (whole / factor == value)
    # The sign of -0.0 is not kept by a whole number.
    if (is_zero := whole == 0).any():
        exact &= ~(is_zero & np.signbit(value))
    known = int(np.isfinite(value).sum())
    is_enough = int(exact.sum()) >= _EXACT_SHARE * max(1, known)
    if not exact.all():
        whole = np.where(exact, whole, 0.0)
    return whole.astype(np.int64), exact, is_enough
