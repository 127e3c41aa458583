"""Projection of records: chosen fields as JSON or CSV, and features of GeoJSON (RFC 7946), column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from sensegate.quantities.quality import flag_words
from sensegate.share.cursor import row_text
from sensegate.share.records import (
    CSV_COLUMNS,
    RecordOrigin,
    RowSlice,
    base_name,
    channel_of,
    code_words,
    csv_cell,
    iso,
    json_values,
    origin_of,
    quote,
    sequences_of,
    units_of,
)

FIELDS: tuple[str, ...] = tuple(CSV_COLUMNS.split(","))
"""Fields of a record, in their order."""
_FEATURE_FIELDS = tuple(field for field in FIELDS if field not in {"id", "lon", "lat"})

Column = Callable[[RowSlice, str], list[str]]
"""(rows, common prefix of their cursors) -> JSON of each row."""


def lines(part: RowSlice, prefix: str, form: str, fields: Sequence[str]) -> list[str]:
    """Return each row of a masked slice with the given fields (empty: all), in the order of its rows.

    `form`: ``csv``, ``geojson``, or else a JSON object.
    """
    if form == "geojson":
        return _features(part, prefix, fields or _FEATURE_FIELDS)
    texts = [_COLUMNS[field](part, prefix) for field in fields]
    if form == "csv":
        cells = [_csv_cells(field, column) for field, column in zip(fields, texts, strict=True)]
        return [",".join(row) for row in zip(*cells, strict=True)]
    return _objects(fields, texts)


def _objects(fields: Sequence[str], texts: list[list[str]]) -> list[str]:
    template = "{" + ",".join(f'"{field}":%s' for field in fields) + "}"
    return [template % row for row in zip(*texts, strict=True)]


def _features(part: RowSlice, prefix: str, fields: Sequence[str]) -> list[str]:
    objects = _objects(fields, [_COLUMNS[field](part, prefix) for field in fields])
    positions = zip(_COLUMNS["lon"](part, prefix), _COLUMNS["lat"](part, prefix), strict=True)
    geometries = [
        "null" if "null" in position else f'{{"type":"Point","coordinates":[{position[0]},{position[1]}]}}'
        for position in positions
    ]
    return [
        f'{{"type":"Feature","id":{identity},"geometry":{geometry},"properties":{properties}}}'
        for identity, geometry, properties in zip(_COLUMNS["id"](part, prefix), geometries, objects, strict=True)
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


def _of_origin(text_of: Callable[[RecordOrigin], str]) -> Column:
    def column(part: RowSlice, _prefix: str) -> list[str]:
        entries = part.batch.origin[part.rows].tolist()
        texts = {entry: text_of(origin_of(part.batch.origins, entry)) for entry in set(entries)}
        return [texts[entry] for entry in entries]

    return column


def _of_property(texts_of: Callable[[Sequence[str]], Sequence[str]]) -> Column:
    def column(part: RowSlice, _prefix: str) -> list[str]:
        texts = [quote(text) for text in texts_of(part.batch.properties)]
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
    return [quote(f"{batch.node}-{batch.partition}-{sequence:014d}-{index}") for sequence, index in numbers]


def _cursors(part: RowSlice, prefix: str) -> list[str]:
    return [f'"{prefix}{row_text(row)}"' for row in part.rows.tolist()]


def _values(part: RowSlice, _prefix: str) -> list[str]:
    return json_values(part.batch, part.rows, part.batch.property[part.rows].tolist())


def _flags(part: RowSlice, _prefix: str) -> list[str]:
    bits = part.batch.flags[part.rows].tolist()
    texts = {mask: msgspec.json.encode(flag_words(mask)).decode() for mask in set(bits)}
    return [texts[mask] for mask in bits]


def _degrees(value: float) -> str:
    return "null" if np.isnan(value) else repr(round(value, 7))


_COLUMNS: Mapping[str, Column] = {
    "id": _ids,
    "cursor": _cursors,
    "device": _of_origin(lambda origin: quote(origin.device)),
    "property": _of_property(lambda names: [base_name(name) for name in names]),
    "channel": _of_property(lambda names: [channel_of(name) for name in names]),
    "value": _values,
    "unit": _of_property(units_of),
    "time": _times("time"),
    "time_quality": _words("time_quality"),
    "received": _times("received"),
    "quality": _words("quality"),
    "division": _of_origin(lambda origin: quote(origin.division)),
    "lon": _of_origin(lambda origin: _degrees(origin.lon)),
    "lat": _of_origin(lambda origin: _degrees(origin.lat)),
    "grade": _of_origin(lambda origin: str(origin.grade)),
    "profile": _of_origin(lambda origin: quote(origin.profile)),
    "flags": _flags,
    "revision": lambda part, _prefix: [str(number) for number in part.batch.revision[part.rows].tolist()],
    "node": lambda part, _prefix: [quote(part.batch.node)] * len(part.rows),
}
