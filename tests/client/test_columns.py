"""Pages of columns as the gateway encodes them, read by the client."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.share import json_records, records
from sensegate.share.records import RowSlice
from sensegate_client import ClientError, Columns
from tests.share.made import make_batch

ROW = st.tuples(st.integers(0, 3)).flatmap(
    lambda place: st.one_of(
        st.tuples(st.just(place[0]), st.just("air_temperature"), st.floats(-1e6, 1e6) | st.just(math.nan)),
        st.tuples(st.just(place[0]), st.just("relative_humidity#2"), st.floats(0, 100)),
        st.tuples(st.just(place[0]), st.just("device_status"), st.text(max_size=5)),
        st.tuples(st.just(place[0]), st.just("motion"), st.sampled_from([0.0, 1.0])),
    )
)


def page_of(rows: list[tuple[int, str, float | str]]) -> tuple[Columns, list[dict[str, Any]]]:
    """Return a page of columns, and the same rows as JSON records."""
    batch = make_batch(rows)
    part = RowSlice(batch, np.arange(len(rows)), 7, 0)
    lines = json_records.json_lines(batch, part.rows, 7, "c1.x")
    return Columns(records.columns([part], "c1.next")), [json.loads(line) for line in lines]


@given(st.lists(ROW, min_size=1, max_size=12))
def test_records_equal_those_of_json(rows: list[tuple[int, str, float | str]]) -> None:
    """Each row of the columns is the record that the JSON form has, but for its cursor."""
    page, expected = page_of(rows)
    assert len(page) == len(rows)
    assert page.next == "c1.next"
    for record, line in zip(page.records(), expected, strict=True):
        known = {key: value for key, value in json.loads(msgspec.json.encode(record)).items() if key != "cursor"}
        for name in ("lon", "lat"):
            known[name] = None if known[name] is None else round(known[name], 7)
        times = [(known.pop(name), line.pop(name)) for name in ("time", "received")]
        assert all(np.datetime64(ours[:-1]) == np.datetime64(theirs[:-1]) for ours, theirs in times)
        line.pop("cursor")
        assert known == {"channel": "", **line}


def test_arrays_frames_and_tables_have_the_same_rows() -> None:
    """NumPy, pandas and Arrow hold what the records hold."""
    page, _ = page_of([(0, "air_temperature", 21.5), (1, "air_temperature", 22.5), (2, "device_status", "open")])
    expected = [(record.device, record.property, record.unit, record.lon) for record in page.records()]
    arrays = page.numpy()
    lon = [None if math.isnan(degrees) else degrees for degrees in arrays["lon"].tolist()]
    assert [*zip(arrays["device"], arrays["property"], arrays["unit"], lon, strict=True)] == expected
    assert arrays["time"].dtype == "datetime64[us]"
    frame = page.to_pandas()
    assert [*frame["device"]] == [device for device, *_ in expected]
    assert str(frame["time"].dt.tz) == "UTC"
    table = page.to_arrow()
    assert table["property"].to_pylist() == [name for _, name, *_ in expected]
    assert table["text_value"].to_pylist() == [None, None, "open"]
    assert frame["text_value"].tolist()[-1] == "open"
    values = np.asarray(page.column("value"))
    assert np.array_equal(values, arrays["value"], equal_nan=True)


def test_an_empty_page_is_empty_everywhere() -> None:
    """No rows, no error."""
    page = Columns(records.columns([], "c1.next"))
    assert len(page) == 0
    assert [*page.records()] == []
    assert len(page.to_pandas()) == 0
    assert page.to_arrow().num_rows == 0


def test_another_format_is_refused_with_a_sentence() -> None:
    """A page that this client cannot read, and a column that there is not."""
    page, _ = page_of([(0, "air_temperature", 1.0)])
    with pytest.raises(ClientError, match="there is no column 'colour'"):
        page.column("colour")
    tree = msgspec.msgpack.decode(records.columns([], ""))
    with pytest.raises(ClientError, match="format 9"):
        Columns(msgspec.msgpack.encode({**tree, "format": 9}))
    with pytest.raises(ClientError, match="not a page"):
        Columns(b"\xc1")
