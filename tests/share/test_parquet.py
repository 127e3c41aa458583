"""Parquet as pyarrow reads it, which is not ours: each value is that of the JSON form."""

from __future__ import annotations

import io
import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensegate.share import json_records, parquet, records
from sensegate.share.cursor import after
from tests.share.made import DEVICES, NOW, Place, make_batch


def part_of(batch: Any, entry: int = 7) -> records.RowSlice:
    return records.RowSlice(batch, np.arange(len(batch.origin)), entry, NOW)


def prefix_of(part: records.RowSlice) -> str:
    """Return what the cursors of an entry begin with."""
    return after(b"e1e1e1", part.entry, part.stored, 0).prefix


def json_of(parts: list[records.RowSlice]) -> list[dict[str, Any]]:
    """Return the records as the JSON form has them."""
    rows = []
    for part in parts:
        lines = json_records.json_lines(part.batch, part.rows, part.entry, prefix_of(part))
        rows += [msgspec.json.decode(line) for line in lines]
    return rows


def read(parts: list[records.RowSlice], following: str = "c1.next") -> pa.Table:
    return pq.read_table(io.BytesIO(parquet.encode_records(parts, following, prefix_of)))


def test_each_value_is_that_of_the_json_form() -> None:
    """Numbers, texts, booleans, channels, places that are not known, flags, of two entries."""
    first = make_batch(
        [
            (0, "air_temperature", 21.5),
            (1, "air_temperature#2", -3.25),
            (2, "plate", "粤A12345"),
            (3, "door_open", 1.0),
            (0, "air_temperature", math.nan),
        ]
    )
    second = make_batch([(at % 4, "relative_humidity", at / 7) for at in range(100)], start=NOW + 10_000_000)
    parts = [part_of(first), part_of(second, 9)]
    table = read(parts)
    records = json_of(parts)
    assert table.num_rows == len(records) == 105
    for row, wanted in zip(table.to_pylist(), records, strict=True):
        value = row["text"] if row["text"] is not None else row["value"]
        assert value == (float(wanted["value"]) if isinstance(wanted["value"], bool | int | float) else wanted["value"])
        assert row["channel"] == wanted.get("channel", "")
        assert row["flags"].split() == wanted["flags"]
        for name in ("time", "received"):
            assert row[name].isoformat().replace("+00:00", "Z")[:19] == wanted[name][:19]
            assert row[name].timestamp() == pytest.approx(np.datetime64(wanted[name][:-1]).astype("int64") / 1e6)
        for name in ("id", "cursor", "device", "property", "unit", "quality", "time_quality", "division"):
            assert row[name] == wanted[name], name
        for name in ("grade", "profile", "revision", "node", "lon", "lat"):
            assert row[name] == pytest.approx(wanted[name], abs=1e-6) if row[name] is not None else wanted[name] is None


def test_types_and_the_cursor_to_go_on_from() -> None:
    """Times are UTC microseconds, numbers doubles; the footer holds the cursor."""
    table = read([part_of(make_batch([(0, "air_temperature", 1.0)]))])
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("value").type == pa.float64()
    assert table.schema.metadata[b"sensegate.next"] == b"c1.next"


def test_nothing_is_a_file_too() -> None:
    """With all columns and no row."""
    table = read([])
    assert (table.num_rows, table.num_columns) == (0, 20)


@pytest.mark.parametrize("count", [1, 7, 8, 255, 256, 257, 3_000])
def test_dictionaries_of_every_width(count: int) -> None:
    """More words than a byte numbers."""
    places = [Place(f"d-{at:05d}") for at in range(count)]
    table = read([part_of(make_batch([(at, "air_temperature", at) for at in range(count)], places=places))])
    assert table["device"].to_pylist() == [f"d-{at:05d}" for at in range(count)]
    assert table["value"].to_pylist() == [float(at) for at in range(count)]


def test_more_words_than_two_bytes_number() -> None:
    """Four bytes an index."""
    names = [f"w{at}" for at in range(70_000)]
    file = parquet.encode_file([parquet.dictionary_column("w", names)], len(names), {})
    assert pq.read_table(io.BytesIO(file))["w"].to_pylist() == names


def test_a_broken_file_is_noticed() -> None:
    """The control: pyarrow does look."""
    file = bytearray(
        parquet.encode_records([part_of(make_batch([(0, "air_temperature", 1.0)], places=DEVICES))], "x", prefix_of)
    )
    file[-8:-4] = (999_999).to_bytes(4, "little")
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(bytes(file)))
