"""Encoder of rows of a batch as JSON objects and as server-sent events.

A record is about 440 bytes, of which few differ between neighbours. Each part of the text is made as a column (once for
a device, a property or a pair of codes, and by numpy for times), and all columns are joined by one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from sensegate.bus.columns import Batch, Origins
from sensegate.model import F64, I64
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import TimeQuality, flag_words, quality_word
from sensegate.share.cursor import row_text
from sensegate.share.records import base_name, channel_of, kinds_of, units_of

_quote = msgspec.json.Encoder().encode
# A newer release may have written codes that this release does not know.
_QUALITY = tuple(f'","quality":"{quality_word(code)}'.encode() for code in range(256))
_CLOCKS = {int(code): code.name.lower() for code in TimeQuality}
_CLOCK = tuple(f'","time_quality":"{_CLOCKS.get(code, "unknown")}","received":"'.encode() for code in range(256))
_DIGITS = np.frombuffer(b"".join(b"%02d" % number for number in range(100)), "<u2")
"""Two digits of each number below 100."""
_TIME_FORM = np.frombuffer(b"0000-00-00T00:00:00.000000Z", np.uint8)
_TIME_BYTES = len(_TIME_FORM)
_DAY_US = 86_400_000_000
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""The years 1 to 9999, which have four digits."""
_PLAIN_DEGREES = 1e-4
"""Smaller numbers are written with an exponent, which Python and msgspec write differently."""
_ROWS_CACHED = 1 << 16


def iso(times: I64) -> list[bytes]:
    """Return each time (µs UTC) as ``2026-01-01T00:00:00.123456Z``."""
    count = len(times)
    if not count:
        return []
    day = times // _DAY_US
    first, last = int(day.min()), int(day.max())
    if not _FIRST_DAY <= first <= last <= _LAST_DAY:
        return [text.encode() for text in np.datetime_as_string(times.view("datetime64[us]"), timezone="UTC").tolist()]
    # Divisions by constants are vectorised, remainders are not.
    rest = times - day * _DAY_US
    in_seconds = rest // 1_000_000
    micros = (rest - in_seconds * 1_000_000).astype(np.int32)
    seconds = in_seconds.astype(np.int32)
    minutes = seconds // 60
    hours = minutes // 60
    hundreds = micros // 100
    tens_of_thousands = hundreds // 100
    text = np.empty((count, _TIME_BYTES), np.uint8)
    text[:] = _TIME_FORM
    days, place = (np.array([first]), None) if first == last else np.unique(day, return_inverse=True)
    dates = np.datetime_as_string(days.view("datetime64[D]")).astype("S10").view(np.uint8).reshape(len(days), 10)
    text[:, :10] = dates[0] if place is None else dates[place]
    for offset, number in (
        (11, hours),
        (14, minutes - hours * 60),
        (17, seconds - minutes * 60),
        (20, tens_of_thousands),
        (22, hundreds - tens_of_thousands * 100),
        (24, micros - hundreds * 100),
    ):
        np.ndarray((count,), "<u2", text, offset, (_TIME_BYTES,))[:] = _DIGITS.take(number)
    texts: list[bytes] = text.reshape(-1).view(f"S{_TIME_BYTES}").tolist()
    return texts


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


class OriginTexts:
    """Parts of the records of a batch that depend on the device alone, made when first needed."""

    __slots__ = ("_heads", "_origins", "_tails")

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._heads: list[bytes] = [b""] * len(origins)
        self._tails: list[bytes] = [b""] * len(origins)

    def columns(self, origin: list[int]) -> tuple[list[bytes], list[bytes]]:
        """Return the parts before the property, and between quality and flags, of each row."""
        heads = list(map(self._heads.__getitem__, origin))
        if not all(heads):
            self._make(sorted({index for index, head in zip(origin, heads, strict=True) if not head}))
            heads = list(map(self._heads.__getitem__, origin))
        return heads, list(map(self._tails.__getitem__, origin))

    def _make(self, entries: list[int]) -> None:
        origins = self._origins
        divisions, profiles = list(map(_quote, origins.division.table)), list(map(_quote, origins.profile.table))
        columns = zip(
            entries,
            origins.division.index[entries].tolist(),
            _degrees(origins.lon[entries]),
            _degrees(origins.lat[entries]),
            origins.grade[entries].tolist(),
            origins.profile.index[entries].tolist(),
            strict=True,
        )
        for entry, division, lon, lat, grade, profile in columns:
            self._heads[entry] = b'","device":%b,"property":' % _quote(origins.device[entry])
            self._tails[entry] = b'","division":%b,"lon":%b,"lat":%b,"grade":%d,"profile":%b,"flags":' % (
                divisions[division],
                lon,
                lat,
                grade,
                profiles[profile],
            )


def json_lines(batch: Batch, rows: I64, entry: int, prefix: str, texts: OriginTexts | None = None) -> list[str]:
    """Return the JSON object of each row.

    `entry` is the sequence of the batch in the log, `prefix` the common prefix of the cursors of its rows, `texts` the
    cached parts of the batch's devices.
    """
    columns = _columns(batch, rows, entry, prefix, texts or OriginTexts(batch.origins))
    return _joined(len(rows), [b'{"id":', *columns, b"}\n"]).decode().split("\n")[:-1]


def events(batch: Batch, rows: I64, entry: int, prefix: str, texts: OriginTexts) -> bytes:
    """Return the rows as server-sent events, whose ids are the cursors; arguments as in `json_lines`."""
    columns = _columns(batch, rows, entry, prefix, texts)
    place = _row_texts(rows)
    return _joined(len(rows), [f"id: {prefix}".encode(), place, b'\ndata: {"id":', *columns, b"}\n\n"])


_Column = bytes | list[bytes]


def _columns(batch: Batch, rows: I64, entry: int, prefix: str, texts: OriginTexts) -> list[_Column]:
    """Return the text of the members of each row, without the brace and the name of the first, as columns."""
    heads, tails = texts.columns(batch.origin[rows].tolist())
    properties = batch.property[rows].tolist()
    names = [
        _quote(base_name(name)) + (b',"channel":' + _quote(channel_of(name)) if "#" in name else b"") + b',"value":'
        for name in batch.properties
    ]
    units = [b',"unit":' + _quote(unit) + b',"time":"' for unit in units_of(batch.properties)]
    node = _quote(batch.node)
    flags, revisions = batch.flags[rows].astype(np.int64), batch.revision[rows]
    return [
        _sequence_texts(node[:-1] + f"-{batch.partition}-".encode(), batch.seq[rows], entry),
        _decimal_texts(batch.index[rows].astype(np.int64)),
        f'","cursor":"{prefix}'.encode(),
        _row_texts(rows),
        heads,
        list(map(names.__getitem__, properties)),
        _values(batch, rows, properties),
        list(map(units.__getitem__, properties)),
        iso(batch.time[rows]),
        _by_code(batch.time_quality[rows], _CLOCK),
        _repeated_iso(batch.received[rows]),
        _by_code(batch.quality[rows], _QUALITY),
        tails,
        _endings(flags << 8 | revisions, node),
    ]


def _joined(count: int, columns: Sequence[_Column]) -> bytes:
    """Return the text of all rows, row by row."""
    width = len(columns)
    parts: list[bytes] = [b""] * (width * count)
    for place, column in enumerate(columns):
        parts[place::width] = [column] * count if isinstance(column, bytes) else column
    return b"".join(parts)


def _values(batch: Batch, rows: I64, properties: list[int]) -> list[bytes]:
    """Return each value as JSON: a number, a boolean or a string, by the kind of its property."""
    values = _numbers(batch.value[rows])
    boolean = np.array([kind is ValueKind.BOOLEAN for kind in kinds_of(batch.properties)], np.bool_)
    if boolean.any():
        for place in np.flatnonzero(boolean[properties]).tolist():
            values[place] = b"true" if batch.value[rows[place]] else b"false"
    if batch.text:
        for place, row in enumerate(rows.tolist()):
            if (text := batch.text.get(row)) is not None:
                values[place] = _quote(text)
    return values


def _by_code(column: Any, texts: Sequence[bytes]) -> _Column:
    first = int(column[0]) if len(column) else 0
    if bool((column == first).all()):
        return texts[first]
    return list(map(texts.__getitem__, column.tolist()))


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


def _repeated_iso(times: I64) -> _Column:
    """Return times of which most are equal to others."""
    first = int(times[0]) if len(times) else 0
    if bool((times == first).all()):
        return b"".join(iso(times[:1]))
    return iso(times)


@lru_cache(1)
def _decimals() -> list[bytes]:
    return [b"%d" % number for number in range(_ROWS_CACHED)]


@lru_cache(1)
def _rows() -> list[bytes]:
    return [row_text(row).encode() for row in range(_ROWS_CACHED)]


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
