"""Records in every form say the same, exactly as the contract writes them."""

from __future__ import annotations

import csv
import io
import json

import msgpack
import msgspec
import numpy as np
import pytest

from sensegate.bus import columns
from sensegate.quantities.quality import Flag, quality_word
from sensegate.share import cursor, json_records, line_protocol, parquet, records, senml
from sensegate.tiers.checks import TIME_MAX_US, TIME_MIN_US
from tests.share.made import NOW, make_batch

PREFIX = cursor.after(b"e1e1e1", 12, NOW, 0).prefix
ROWS = [(0, "air_temperature", 21.5), (1, "air_temperature", -3.0), (2, "air_temperature", 1e-7), (0, "pm2_5", 3e21)]


def every(batch: columns.Batch) -> np.ndarray:
    """Return all rows of a batch."""
    return np.arange(len(batch))


def test_json_is_what_the_contract_shows() -> None:
    """One reading, key by key and in the contract's order."""
    batch = make_batch([(0, "air_temperature", 21.5)])
    (line,) = json_records.json_lines(batch, every(batch), 12, PREFIX)
    assert json.loads(line) == {
        "id": "4401-0-00000000000012-0",
        "cursor": str(cursor.after(b"e1e1e1", 12, NOW, 0)),
        "device": "gz-air-1",
        "property": "air_temperature",
        "value": 21.5,
        "unit": "Cel",
        "time": "2026-01-01T00:00:00.000000Z",
        "time_quality": "device",
        "received": "2026-01-01T00:00:00.005000Z",
        "quality": "good",
        "division": "440106",
        "lon": 113.3612,
        "lat": 23.1247,
        "grade": 1,
        "profile": "acme/th10@3",
        "flags": [],
        "revision": 0,
        "node": "4401",
    }
    assert list(json.loads(line))[:6] == ["id", "cursor", "device", "property", "value", "unit"]


def test_values_keep_their_kind() -> None:
    """Numbers, booleans and strings come out as such; a place that is not known is null; flags are words."""
    batch = make_batch(
        [(2, "air_temperature", 1.5), (2, "door_open", 1.0), (2, "door_open", 0.0), (2, "plate", '=cmd()"\n温')],
        flags=np.array([0, 1, 3, 0], np.uint32),
    )
    got = [json.loads(line) for line in json_records.json_lines(batch, every(batch), 1, PREFIX)]
    assert [record["value"] for record in got] == [1.5, True, False, '=cmd()"\n温']
    assert {(record["lon"], record["lat"]) for record in got} == {(None, None)}
    assert (
        [record["flags"] for record in got][2]
        == ["late", "conflict"]
        == [flag.name.lower() for flag in (Flag.LATE, Flag.CONFLICT) if flag.name]
    )


def test_csv_says_the_same_as_json() -> None:
    """Cell by cell; and no text of a device becomes a formula in a spreadsheet."""
    batch = make_batch([*ROWS, (0, "pm2_5#2", 4.0), (2, "plate", '=cmd(),"x"\n'), (2, "plate", "粤A12345")])
    objects = [json.loads(line) for line in json_records.json_lines(batch, every(batch), 7, PREFIX)]
    lines = "\r\n".join([records.CSV_COLUMNS, *records.csv_lines(batch, every(batch), 7, PREFIX)])
    table = list(csv.DictReader(io.StringIO(lines, newline="")))
    assert len(table) == len(objects)
    for row, record in zip(table, objects, strict=True):
        assert set(row) - {"channel"} == set(record) - {"channel"}
        assert row["channel"] == record.get("channel", "")
        for key in set(record) - {"value", "lon", "lat", "flags"}:
            assert row[key] == str(record[key])
        if not isinstance(record["value"], str):
            assert float(row["value"]) == record["value"]
        assert (row["lon"] or None) == (None if record["lon"] is None else str(record["lon"]))
    assert [row["value"] for row in table if row["property"] == "plate"] == ['\'=cmd(),"x"\n', "粤A12345"]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx"])
def test_csv_formulas_are_defused(text: str) -> None:
    """A cell that a spreadsheet would run gets an apostrophe in front."""
    assert "'" + text in records.csv_cell(text)


def test_columns_say_the_same_as_json() -> None:
    """MessagePack read by a foreign library, rebuilt into records, over entries of two nodes."""
    result = make_batch([*ROWS, (0, "pm2_5#2", 4.0), (2, "plate", "粤A12345")])
    two = make_batch([(1, "pm2_5", 12.0), (3, "door_open", 1.0)], node="4403", seq=np.array([5, 9], np.int64))
    parts = [
        records.RowSlice(result, every(result)[1:], 12, NOW),
        records.RowSlice(two, every(two), 13, NOW),
    ]
    tree = msgpack.unpackb(records.columns(parts, "c1.next"))
    column = {name: np.frombuffer(tree["columns"][name], kind) for name, kind in tree["types"].items()}
    expected = [
        json.loads(line)
        for part in parts
        for line in json_records.json_lines(part.batch, part.rows, part.entry, PREFIX)
    ]
    assert (tree["count"], tree["next"], tree["format"]) == (len(expected), "c1.next", records.FORMAT)
    for row, record in enumerate(expected):
        origin, kind = column["origin"][row], tree["properties"]["kind"][column["property"][row]]
        assert (
            f"{tree['nodes'][column['node'][row]]}-{column['sequence'][row]:014d}-{column['index'][row]}"
            == record["id"]
        )
        assert tree["origins"]["device"][origin] == record["device"]
        assert tree["origins"]["lon"][origin] == record["lon"]
        assert tree["properties"]["name"][column["property"][row]] == record["property"]
        assert tree["properties"]["channel"][column["property"][row]] == record.get("channel", "")
        value = tree["text"].get(str(row), column["value"][row])
        assert (bool(value) if kind == "boolean" else value) == record["value"]
        assert np.datetime_as_string(column["time"][row].astype("datetime64[us]"), timezone="UTC") == record["time"]
        assert tree["words"]["quality"][str(column["quality"][row])] == record["quality"]


def test_empty_columns() -> None:
    """No record is a page too."""
    tree = msgpack.unpackb(records.columns([], "c1.x"))
    assert tree["count"] == 0
    assert set(tree["columns"].values()) == {b""}


@pytest.mark.parametrize("form", ["json", "csv", "senml", "line", "msgpack", "parquet"])
def test_no_code_of_a_node_stops_an_encoder(form: str) -> None:
    """Codes that this release does not know, times at the ends of the years, and any text: accepted, so encoded."""
    named = [
        (place, name, value) for place in range(3) for name in ("pm2_5", "of tomorrow") for value in (1.5, '\u2028"')
    ]
    batch = make_batch(named * 64)
    number = np.arange(len(batch))
    batch = msgspec.structs.replace(
        batch,
        quality=number.astype(np.uint8),
        time_quality=number.astype(np.uint8),
        flags=(number << 22).astype(np.uint32),
        time=np.resize([TIME_MIN_US, TIME_MAX_US, -1], len(batch)),
    )
    part, rows = records.RowSlice(batch, every(batch), 12, NOW), every(batch)
    assert set(range(256)) <= set(batch.quality.tolist())
    match form:
        case "json":
            lines = json_records.json_lines(batch, rows, 12, PREFIX)
            assert len([json.loads(line) for line in lines]) == len(batch)
        case "senml":
            lines = senml.lines(batch, rows, 12, PREFIX)
            words = {
                code: json.loads(line).get("quality", "good") for code, line in zip(rows % 256, lines, strict=False)
            }
            assert words == {code: quality_word(code) for code in range(256)}
        case "csv":
            assert len(records.csv_lines(batch, rows, 12, PREFIX)) == len(batch)
        case "line":
            assert len(line_protocol.lines(batch, rows)) == len(batch)
        case "msgpack":
            assert msgpack.unpackb(records.columns([part], ""))["count"] == len(batch)
        case _:
            assert parquet.encode_records([part], "", lambda _part: PREFIX)
