"""Encoders of rows of a batch as records: JSON objects, CSV lines, MessagePack columns.

They process a batch column by column and format each record with one f-string; repeated parts (of a device, a
property) are formatted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sensegate.bus.columns import Batch, Origins
from sensegate.model import I64
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.quantities.quality import Flag, Quality, TimeQuality, flag_words, quality_word
from sensegate.share.cursor import row_text

FORMAT = 1
"""Version of the MessagePack encoding."""
CSV_COLUMNS = (
    "id,cursor,device,property,channel,value,unit,time,time_quality,received,quality,division,lon,lat,grade,profile,flags,"
    "revision,node"
)
_QUALITY = {int(code): code.name.lower() for code in Quality}
_TIME_QUALITY = {int(code): code.name.lower() for code in TimeQuality}
# A newer release may have written codes that this release does not know.
_ANY_QUALITY = tuple(map(quality_word, range(256)))
_ANY_TIME_QUALITY = tuple(_TIME_QUALITY.get(code, "unknown") for code in range(256))
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def quote(text: str) -> str:
    """Return `text` as a JSON string."""
    return msgspec.json.encode(text).decode()


def quoted(texts: Sequence[str]) -> list[str]:
    """Return each text as a JSON string."""
    if not texts:
        return []
    # Inside a string a quotation mark follows a backslash, so that these three characters are between two.
    return [f'"{text}"' for text in msgspec.json.encode(texts)[2:-2].decode().split('","')]


def csv_cell(text: str) -> str:
    """Return `text` as a CSV cell; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if text.startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if any(character in text for character in ',"\r\n') else text


def iso(times: I64) -> list[str]:
    """Return each time (µs UTC) as ``2026-01-01T00:00:00.123456Z``."""
    texts: list[str] = np.datetime_as_string(times.view("datetime64[us]"), timezone="UTC").tolist()
    return texts


def number_texts(values: Any) -> list[str]:
    """Return the shortest JSON number of each float; NaN becomes null."""
    return msgspec.json.encode(values.tolist())[1:-1].decode().split(",") if len(values) else []


def json_values(batch: Batch, rows: I64, properties: list[int]) -> list[str]:
    """Return each value as JSON: a number, a boolean or a string, by the kind of its property."""
    values = number_texts(batch.value[rows])
    boolean = [kind is ValueKind.BOOLEAN for kind in kinds_of(batch.properties)]
    if any(boolean):
        for place, index in enumerate(properties):
            if boolean[index]:
                values[place] = "true" if batch.value[rows[place]] else "false"
    if batch.text:
        for place, row in enumerate(rows.tolist()):
            if (text := batch.text.get(row)) is not None:
                values[place] = quote(text)
    return values


def base_name(name: str) -> str:
    """Return the standard name in a batch's property name, which is ``name`` or ``name#channel``."""
    return name.partition("#")[0]


def channel_of(name: str) -> str:
    """Return the channel in a batch's property name; empty: there is only one."""
    return name.partition("#")[2]


def kinds_of(names: Sequence[str]) -> list[ValueKind]:
    """Return the kind of value of each property; a number for a property that is unknown here."""
    known = [PROPERTIES.find(base_name(name)) for name in names]
    return [PROPERTIES[index].kind if index >= 0 else ValueKind.NUMBER for index in known]


def units_of(names: Sequence[str]) -> list[str]:
    """Return the canonical unit of each property; empty for booleans, strings and unknown properties."""
    known = [PROPERTIES.find(base_name(name)) for name in names]
    return [PROPERTIES[index].unit if index >= 0 else "" for index in known]


def _degrees(value: float) -> str:
    return repr(round(value, 7)) if math.isfinite(value) else "null"


def sequences_of(batch: Batch, rows: I64, entry: int) -> list[int]:
    """Return for each row the sequence of the entry that first committed it; `entry` where none is stored."""
    return [sequence or entry for sequence in batch.seq[rows].tolist()]


def csv_lines(batch: Batch, rows: I64, entry: int, prefix: str) -> list[str]:
    """Return the CSV line (`CSV_COLUMNS`, without line end) of each row; flags are joined by spaces."""
    origins, properties = batch.origin[rows].tolist(), batch.property[rows].tolist()
    tails = {}
    for index in set(origins):
        origin = origin_of(batch.origins, index)
        degrees = ["" if math.isnan(value) else _degrees(value) for value in (origin.lon, origin.lat)]
        cells = [csv_cell(origin.division), *degrees, str(origin.grade), csv_cell(origin.profile)]
        tails[index] = ",".join(cells)
    devices = {index: csv_cell(batch.origins.device[index]) for index in tails}
    values = json_values(batch, rows, properties)
    if batch.text:
        for place, row in enumerate(rows.tolist()):
            if (text := batch.text.get(row)) is not None:
                values[place] = csv_cell(text)
    units = [csv_cell(unit) for unit in units_of(batch.properties)]
    names = [f"{csv_cell(base_name(name))},{csv_cell(channel_of(name))}" for name in batch.properties]
    flags = {bits: " ".join(flag_words(bits)) for bits in set(batch.flags[rows].tolist())}
    start, node = f"{batch.node}-{batch.partition}-", csv_cell(batch.node)
    return [
        f"{start}{sequence:014d}-{index},{prefix}{row_text(row)},{devices[origin]},{names[prop]},{value},{units[prop]},"
        f"{time},{_ANY_TIME_QUALITY[clock]},{received},{_ANY_QUALITY[quality]},{tails[origin]},{flags[bits]},{revision},{node}"
        for sequence, index, row, origin, prop, value, time, clock, received, quality, bits, revision in zip(
            sequences_of(batch, rows, entry),
            batch.index[rows].tolist(),
            rows.tolist(),
            origins,
            properties,
            values,
            iso(batch.time[rows]),
            batch.time_quality[rows].tolist(),
            iso(batch.received[rows]),
            batch.quality[rows].tolist(),
            batch.flags[rows].tolist(),
            batch.revision[rows].tolist(),
            strict=True,
        )
    ]


def code_words(column: str, part: RowSlice) -> list[str]:
    """Return the words of each row for column `quality`, `time_quality` or `flags`."""
    codes = getattr(part.batch, column)[part.rows].tolist()
    if column == "flags":
        known = {bits: " ".join(flag_words(bits)) for bits in set(codes)}
    else:
        words = _ANY_QUALITY if column == "quality" else _ANY_TIME_QUALITY
        known = dict(enumerate(words))
    return [known[code] for code in codes]


class RowSlice(msgspec.Struct, frozen=True, eq=False):
    """Rows of one entry of the log."""

    batch: Batch
    rows: I64
    entry: int
    """Sequence of the entry on the log."""
    stored: int
    """Time when the entry was stored, µs UTC."""


def columns(parts: Sequence[RowSlice], following: str, places: I64 | None = None) -> bytes:
    """Return the records as one MessagePack map of little-endian binary columns, described in `_describe`.

    `places`: of each row its place in the answer; None: the order of the parts.

    Row *i* of each column belongs to one record; its id is ``<nodes[node]>-<sequence, 14 digits>-<index>``.
    """
    origins: dict[RecordOrigin, int] = {}
    properties: dict[str, int] = {}
    nodes: dict[str, int] = {}
    pieces: dict[str, list[Any]] = {name: [] for name in _TYPES}
    text: dict[str, str] = {}
    count = 0
    for part in parts:
        batch, rows = part.batch, part.rows
        pieces["origin"].append(_renumber(partial(origin_of, batch.origins), batch.origin[rows], origins))
        pieces["property"].append(_renumber(batch.properties.__getitem__, batch.property[rows], properties))
        node = nodes.setdefault(f"{batch.node}-{batch.partition}", len(nodes))
        sequence = batch.seq[rows]
        pieces["node"].append(np.full(len(rows), node))
        pieces["sequence"].append(np.where(sequence == 0, part.entry, sequence))
        for name in ("index", "value", "time", "time_quality", "received", "quality", "flags", "revision"):
            pieces[name].append(getattr(batch, name)[rows])
        if batch.text:
            text.update(
                (str(count + place), batch.text[row]) for place, row in enumerate(rows.tolist()) if row in batch.text
            )
        count += len(rows)
    order: Any = slice(None)
    if places is not None:
        order = np.argsort(places)
        ranks = np.argsort(order).tolist()
        text = {str(ranks[int(row)]): value for row, value in text.items()}
    tree = {
        "format": FORMAT,
        "next": following,
        "count": count,
        "columns": {
            name: np.concatenate(piece).astype(kind)[order].tobytes() if (piece := pieces[name]) else b""
            for name, kind in _TYPES.items()
        },
        "types": _TYPES,
        "text": text,
        **_describe(list(origins), list(properties), list(nodes)),
    }
    return msgspec.msgpack.encode(tree)


_TYPES = {
    "origin": "<u4",
    "property": "<u2",
    "node": "<u2",
    "sequence": "<i8",
    "index": "<u4",
    "value": "<f8",
    "time": "<i8",
    "time_quality": "<u1",
    "received": "<i8",
    "quality": "<u1",
    "flags": "<u4",
    "revision": "<u1",
}
"""Column -> numpy's name of its type. Times are µs UTC; `value` is NaN where `text` has the row.

Keys of all maps are strings (of `text` the row in decimal digits), which readers accept by default.
"""


class RecordOrigin(NamedTuple):
    """Part of a record that depends on the device alone."""

    device: str
    division: str
    lon: float
    lat: float
    grade: int
    profile: str


_UNKNOWN_DEGREES = math.nan  # one object, so that tuples with unknown positions compare equal


def origin_of(origins: Origins, index: int) -> RecordOrigin:
    """Return the origin of records for a device of a batch."""
    lon, lat = float(origins.lon[index]), float(origins.lat[index])
    return RecordOrigin(
        origins.device[index],
        origins.division[index],
        _UNKNOWN_DEGREES if math.isnan(lon) else lon,
        _UNKNOWN_DEGREES if math.isnan(lat) else lat,
        int(origins.grade[index]),
        origins.profile[index],
    )


def _renumber(entry_of: Callable[[int], Any], column: Any, known: dict[Any, int]) -> Any:
    """Return the column with its indices replaced by those of the same entries in `known`, which grows."""
    used, inverse = np.unique(column, return_inverse=True)
    fresh = [known.setdefault(entry_of(index), len(known)) for index in used.tolist()]
    return np.array(fresh, np.int64)[inverse]


def _describe(origins: list[RecordOrigin], properties: list[str], nodes: list[str]) -> dict[str, Any]:
    kinds = [str(kind) for kind in kinds_of(properties)]
    return {
        "nodes": nodes,
        "origins": {
            "device": [origin.device for origin in origins],
            "division": [origin.division for origin in origins],
            "lon": [None if math.isnan(origin.lon) else origin.lon for origin in origins],
            "lat": [None if math.isnan(origin.lat) else origin.lat for origin in origins],
            "grade": [origin.grade for origin in origins],
            "profile": [origin.profile for origin in origins],
        },
        "properties": {
            "name": [base_name(name) for name in properties],
            "channel": [channel_of(name) for name in properties],
            "unit": units_of(properties),
            "kind": kinds,
        },
        "words": {
            "quality": {str(code): word for code, word in _QUALITY.items()},
            "time_quality": {str(code): word for code, word in _TIME_QUALITY.items()},
            "flags": {str(int(flag)): str(flag.name).lower() for flag in Flag},
        },
    }
