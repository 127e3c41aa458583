"""Rows of segments in memory and in files: sorted, summed by the hour, and read back as they were written."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensegate.bus.batch import Batch
from sensegate.clock import HOUR_US
from sensegate.history import segment_files
from sensegate.history.segment_files import SegmentFiles
from sensegate.history.segment_rows import SegmentRows, hourly_sums, joined, rows_of_entries
from sensegate.share.matching import SECONDARY
from tests.share.made import NOW, Place, make_batch

PLACES = [
    Place(f"d-{number}", ("440106", "440304")[number % 2], ("env", "water")[number % 2], "air", 1 + number % 3)
    for number in (3, 1, 2)
] + [Place("d-0", lon=math.nan, lat=math.nan)]
NAMES = ("pm2_5", "air_temperature#2", "air_temperature", "plate")
VALUES: st.SearchStrategy[float | str] = st.sampled_from(
    [0.0, -0.0, 0.1, -12.3, 1e300, 1 / 3, math.nan, float(2**53 + 2), "粤A'12", ""]
)


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[int, Batch]]:
    """Return entries of a log: rows of any series, with times that are late, equal or ahead."""
    parts = []
    for sequence in range(1, draw(st.integers(1, 5)) + 1):
        rows = draw(
            st.lists(st.tuples(st.integers(0, len(PLACES) - 1), st.sampled_from(NAMES), VALUES), min_size=1, max_size=9)
        )
        size = len(rows)
        start = NOW + draw(st.integers(-3, 3)) * HOUR_US // 2
        batch = make_batch(
            rows,
            places=PLACES,
            start=start,
            quality=np.array(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)), np.uint8),
            flags=np.array(
                draw(st.lists(st.sampled_from([0, 1, int(SECONDARY)]), min_size=size, max_size=size)), np.uint32
            ),
        )
        parts.append((sequence, batch))
    return parts


def table_of(rows: SegmentRows) -> list[tuple[Any, ...]]:
    """Return rows in their order, floats bit by bit."""
    origins = rows.origins
    words = (
        [column.table[place] for place in column.place[rows.origin].tolist()]
        for column in (
            origins.node,
            origins.device,
            origins.division,
            origins.department,
            origins.domain,
            origins.profile,
        )
    )
    texts = [""] * len(rows)
    if rows.text is not None:
        texts = [repr(rows.text.table[place]) if place >= 0 else "" for place in rows.text.place.tolist()]
    columns = (
        [rows.property.table[place] for place in rows.property.place.tolist()],
        *words,
        *([float(value).hex() for value in column[rows.origin].tolist()] for column in (origins.lon, origins.lat)),
        origins.grade[rows.origin].tolist(),
        origins.partition[rows.origin].tolist(),
        [float(value).hex() for value in rows.value.tolist()],
        texts,
        *(
            getattr(rows, name).tolist()
            for name in ("time", "received", "quality", "time_quality", "revision", "flags", "entry", "seq", "index")
        ),
    )
    return list(zip(*columns, strict=True))


def order_of(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return by what the rows of a file are ordered: property, device, time, entry, index."""
    return row[0], row[2], row[13], row[19], row[21]


@given(entries())
def test_sorting(parts: list[tuple[int, Batch]]) -> None:
    """The rows by property, device, time, entry and index, whatever is late; the same from parts that are joined."""
    rows = rows_of_entries(parts)
    expected = sorted(table_of(rows), key=order_of)
    assert table_of(rows.sorted()) == expected
    assert table_of(joined([rows_of_entries([part]).sorted() for part in parts]).sorted()) == expected


@given(entries())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_return_what_was_written(tmp_path: Path, parts: list[tuple[int, Batch]]) -> None:
    """Bit by bit, in one row group or in many."""
    files, file = SegmentFiles(), tmp_path / "rows"
    rows = rows_of_entries(parts).sorted()
    for group in (65_536, 3):
        segment_files.ROW_GROUP = group
        try:
            files.write_rows(file, rows, b"about")
        finally:
            segment_files.ROW_GROUP = 65_536
        assert files.footer(file) == b"about"
        assert table_of(files.read_rows([file])) == table_of(rows)


@given(entries())
def test_hourly_sums_equal_a_calculation(parts: list[tuple[int, Batch]]) -> None:
    """Runs of one series, hour and origin together make the sums of its rows; texts count and have no number."""
    rows = rows_of_entries(parts).sorted()
    table = table_of(rows)
    expected = defaultdict(list)
    for number, row in enumerate(table):
        key = (row[0], row[2], row[3], row[4], row[5], row[9], row[18] & int(SECONDARY), row[13] // HOUR_US * HOUR_US)
        expected[key].append(number)
    sums = hourly_sums(rows, int(SECONDARY))
    runs = defaultdict(list)
    for place, first in enumerate(sums.first.tolist()):
        row = table[first]
        key = (row[0], row[2], row[3], row[4], row[5], row[9], row[18] & int(SECONDARY), int(sums.hour[place]))
        runs[key].append(place)
    assert runs.keys() == expected.keys()
    for key, numbers in expected.items():
        places = runs[key]
        values = [float(rows.value[number]) for number in numbers if not math.isnan(rows.value[number])]
        assert int(sums.count[places].sum()) == len(numbers)
        assert int(sums.numbers[places].sum()) == len(values)
        assert int(sums.good[places].sum()) == sum(int(rows.quality[number]) == 0 for number in numbers)
        assert int(sums.last_time[places].max()) == max(int(rows.time[number]) for number in numbers)
        if values:
            assert np.nanmin(sums.least[places]) == min(values)
            assert np.nanmax(sums.most[places]) == max(values)
            assert math.isclose(float(np.nansum(sums.total[places])), math.fsum(values), rel_tol=1e-9)
            assert not math.isnan(sums.last[places[-1]]) or len(places) > 1 or len(values) == 0
        else:
            assert all(np.isnan(column[places]).all() for column in (sums.least, sums.most, sums.total, sums.last))


def test_no_rows() -> None:
    """A segment from which everything has expired has no sums either."""
    parts = [(1, make_batch([(0, "pm2_5", 1.0)], places=PLACES))]
    rows = rows_of_entries(parts).take(np.zeros(0, np.int64)).sorted()
    assert len(rows) == 0
    assert len(hourly_sums(rows, 1).first) == 0
