"""Projection of records: chosen fields as JSON or CSV, and features of GeoJSON (RFC 7946), column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from sensegate.bus.columns import Origins, WordColumn
from sensegate.model import F64, I64
from sensegate.quantities.quality import flag_words
from sensegate.share.cursor import row_text
from sensegate.share.records import (
    CSV_COLUMNS,
    RowSlice,
    base_name,
    channel_of,
    code_words,
    csv_cell,
    iso,
    json_values,
    number_texts,
    quote,
    quoted,
    sequences_of,
    units_of,
)

FIELDS: tuple[str, ...] = tuple(CSV_COLUMNS.split(","))
"""Fields of a record, in their order."""
_FEATURE_FIELDS = tuple(field for field in FIELDS if field not in {"id", "lon", "lat"})

Column = Callable[[RowSlice, str], list[str]]
"""(rows, common prefix of their cursors) -> JSON of each row."""


def lines(
    part: RowSlice, prefix: str, form: str, fields: Sequence[str], cursors: Sequence[str] | None = None
) -> list[str]:
    """Return each row of a masked slice with the given fields (empty: all), in the order of its rows.

    `form`: ``csv``, ``geojson``, or else a JSON object. `cursors` are those of the rows, where these are of several
    entries; else `prefix` is that of their common entry.
    """
    texts_of = partial(_texts, part, prefix, cursors)
    if form == "geojson":
        return _features(texts_of, fields or _FEATURE_FIELDS)
    fields = fields or FIELDS
    texts = [texts_of(field) for field in fields]
    if form == "csv":
        cells = [_csv_cells(field, column) for field, column in zip(fields, texts, strict=True)]
        return [",".join(row) for row in zip(*cells, strict=True)]
    return _objects(fields, texts)


def _texts(part: RowSlice, prefix: str, cursors: Sequence[str] | None, field: str) -> list[str]:
    """Return the JSON of a field of each row."""
    if field == "cursor" and cursors is not None:
        return [f'"{cursor}"' for cursor in cursors]
    return _COLUMNS[field](part, prefix)


def _objects(fields: Sequence[str], texts: list[list[str]]) -> list[str]:
    template = "{" + ",".join(f'"{field}":%s' for field in fields) + "}"
    return [template % row for row in zip(*texts, strict=True)]


def _features(texts_of: Callable[[str], list[str]], fields: Sequence[str]) -> list[str]:
    objects = _objects(fields, [texts_of(field) for field in fields])
    positions = zip(texts_of("lon"), texts_of("lat"), strict=True)
    geometries = [
        "null" if "null" in position else f'{{"type":"Point","coordinates":[{position[0]},{position[1]}]}}'
        for position in positions
    ]
    return [
        f'{{"type":"Feature","id":{identity},"geometry":{geometry},"properties":{properties}}}'
        for identity, geometry, properties in zip(texts_of("id"), geometries, objects, strict=True)
    ]


def _csv_cells(field: str, texts: list[str]) -> list[str]:
    known: dict[str, str] = {}
    for text in set(texts):
        value = msgspec.json.decode(text)
        if isinstance(value, str):
            known[text] = csv_cell(value)
        elif field == "flags":
            known[text] = " ".join(value)
        else:
            known[text] = "" if value is None and field in {"lon", "lat"} else text
    return [known[text] for text in texts]


def _of_origin(texts_of: Callable[[Origins, I64], Sequence[str]]) -> Column:
    """Return a column of what the origins say; `texts_of` returns the JSON of some entries, each once."""

    def column(part: RowSlice, _prefix: str) -> list[str]:
        used, place = np.unique(part.batch.origin[part.rows], return_inverse=True)
        texts = texts_of(part.batch.origins, used.astype(np.int64))
        return [texts[entry] for entry in place.reshape(-1).tolist()]

    return column


def _word_texts(words: WordColumn, entries: I64) -> list[str]:
    texts = quoted(words.table)
    return [texts[index] for index in words.index[entries].tolist()]


def _of_property(texts_of: Callable[[Sequence[str]], Sequence[str]]) -> Column:
    def column(part: RowSlice, _prefix: str) -> list[str]:
        texts = quoted(texts_of(part.batch.properties))
        return [texts[index] for index in part.batch.property[part.rows].tolist()]

    return column


def _times(name: str) -> Column:
    def column(part: RowSlice, _prefix: str) -> list[str]:
        return [f'"{text}"' for text in iso(getattr(part.batch, name)[part.rows])]

    return column


def _words(name: str) -> Column:
    def column(part: RowSlice, _prefix: str) -> list[str]:
        return [f'"{word}"' for word in code_words(name, part)]

    return column


def _ids(part: RowSlice, _prefix: str) -> list[str]:
    batch = part.batch
    indices = batch.index[part.rows].tolist()
    numbers = zip(sequences_of(batch, part.rows, part.entry), indices, strict=True)
    start = quote(f"{batch.node}-{batch.partition}-")[:-1]
    return [f'{start}{sequence:014d}-{index}"' for sequence, index in numbers]


def _cursors(part: RowSlice, prefix: str) -> list[str]:
    return [f'"{prefix}{row_text(row)}"' for row in part.rows.tolist()]


def _values(part: RowSlice, _prefix: str) -> list[str]:
    return json_values(part.batch, part.rows, part.batch.property[part.rows].tolist())


def _flags(part: RowSlice, _prefix: str) -> list[str]:
    bits = part.batch.flags[part.rows].tolist()
    texts = {mask: msgspec.json.encode(flag_words(mask)).decode() for mask in set(bits)}
    return [texts[mask] for mask in bits]


def _degrees(degrees: F64) -> list[str]:
    return number_texts(np.round(degrees, 7))


_COLUMNS: Mapping[str, Column] = {
    "id": _ids,
    "cursor": _cursors,
    "device": _of_origin(lambda origins, entries: quoted([origins.device[entry] for entry in entries.tolist()])),
    "property": _of_property(lambda names: [base_name(name) for name in names]),
    "channel": _of_property(lambda names: [channel_of(name) for name in names]),
    "value": _values,
    "unit": _of_property(units_of),
    "time": _times("time"),
    "time_quality": _words("time_quality"),
    "received": _times("received"),
    "quality": _words("quality"),
    "division": _of_origin(lambda origins, entries: _word_texts(origins.division, entries)),
    "lon": _of_origin(lambda origins, entries: _degrees(origins.lon[entries])),
    "lat": _of_origin(lambda origins, entries: _degrees(origins.lat[entries])),
    "grade": _of_origin(lambda origins, entries: [*map(str, origins.grade[entries].tolist())]),
    "profile": _of_origin(lambda origins, entries: _word_texts(origins.profile, entries)),
    "flags": _flags,
    "revision": lambda part, _prefix: [str(number) for number in part.batch.revision[part.rows].tolist()],
    "node": lambda part, _prefix: [quote(part.batch.node)] * len(part.rows),
}
