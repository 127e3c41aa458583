"""The columns of `json_records` give the same text as a record formatted by itself."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus.columns import Batch
from sensegate.model import I64
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import TimeQuality, flag_words, quality_word
from sensegate.share import fixed_text, json_records, records
from sensegate.share.cursor import row_text
from sensegate.share.device_texts import DeviceTexts
from tests.share.made import DEVICES, NOW, Place, make_batch

PREFIX = "c1.AAAAAAAAAAAAAAAAAAAA"
DAY_US = 86_400_000_000
CLOCKS = {int(code): code.name.lower() for code in TimeQuality}


def reference(batch: Batch, row: int, entry: int) -> str:
    """Return the record of a row, formatted by itself."""
    name = batch.properties[batch.property[row]]
    kind, unit = records.kinds_of([name])[0], records.units_of([name])[0]
    origin = records.origin_of(batch.origins, int(batch.origin[row]))
    value = msgspec.json.encode(float(batch.value[row])).decode()
    if kind is ValueKind.BOOLEAN:
        value = "true" if batch.value[row] else "false"
    if row in batch.text:
        value = records.quote(batch.text[row])
    times = [
        np.datetime_as_string(np.datetime64(int(t), "us"), timezone="UTC")
        for t in (batch.time[row], batch.received[row])
    ]
    degrees = [repr(round(place, 7)) if math.isfinite(place) else "null" for place in (origin.lon, origin.lat)]
    channel = f',"channel":{records.quote(records.channel_of(name))}' if "#" in name else ""
    return (
        f'{{"id":"{batch.node}-{batch.partition}-{batch.seq[row] or entry:014d}-{batch.index[row]}",'
        f'"cursor":"{PREFIX}{row_text(row)}","device":{records.quote(origin.device)},'
        f'"property":{records.quote(records.base_name(name))}{channel},"value":{value},"unit":{records.quote(unit)},'
        f'"time":"{times[0]}","time_quality":"{CLOCKS.get(int(batch.time_quality[row]), "unknown")}",'
        f'"received":"{times[1]}","quality":"{quality_word(int(batch.quality[row]))}",'
        f'"division":{records.quote(origin.division)},"lon":{degrees[0]},"lat":{degrees[1]},"grade":{origin.grade},'
        f'"profile":{records.quote(origin.profile)},"flags":{msgspec.json.encode(flag_words(int(batch.flags[row]))).decode()},'
        f'"revision":{batch.revision[row]},"node":{records.quote(batch.node)}}}'
    )


DEGREES = st.floats(-180, 180) | st.sampled_from([math.nan, math.inf, 0.0, -0.0, 1e-7, -5e-5, 1e-4, 113.3612])
PLACES = st.lists(
    st.builds(
        Place,
        device=st.text(min_size=1, max_size=8),
        division=st.sampled_from(["440106", "4401"]),
        lon=DEGREES,
        lat=DEGREES,
    ),
    min_size=2,
    max_size=4,
    unique_by=lambda place: place.device,
)
NUMBERS = st.floats() | st.integers(-(2**60), 2**60).map(float)
VALUES = st.one_of(
    st.tuples(st.just("air_temperature"), NUMBERS),
    st.tuples(st.just("pm2_5#2"), NUMBERS),
    st.tuples(st.just("door_open"), st.sampled_from([0.0, 1.0])),
    st.tuples(st.just("plate"), st.text(max_size=6)),
    st.tuples(st.just("not_of_this_release"), NUMBERS),
)
INDICES = st.integers(0, 2**32 - 1) | st.integers(0, 9) | st.integers(10, 99) | st.integers(9_998, 10_001)
TIMES = st.integers(-2 * DAY_US, 2 * DAY_US).map(lambda shift: NOW + shift) | st.integers(-(2**56), 2**58)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, I64]:
    """Return a batch and some of its rows."""
    places = sorted(draw(PLACES), key=lambda place: place.device)
    rows = [(draw(st.integers(0, len(places) - 1)), *pair) for pair in draw(st.lists(VALUES, min_size=1, max_size=12))]
    size = len(rows)

    def column(strategy: st.SearchStrategy[int], kind: type[np.generic]) -> np.ndarray:
        whole = draw(st.booleans())
        return np.array([draw(strategy)] * size if whole else [draw(strategy) for _ in range(size)], kind)

    batch = make_batch(
        rows,
        places=places,
        time=column(TIMES, np.int64),
        received=column(TIMES, np.int64),
        quality=column(st.integers(0, 255), np.uint8),
        time_quality=column(st.integers(0, 255), np.uint8),
        flags=column(st.integers(0, 2**32 - 1), np.uint32),
        revision=column(st.integers(0, 255), np.uint8),
        seq=column(st.integers(0, 2**47), np.int64),
        index=column(INDICES, np.uint32),
    )
    chosen = sorted(draw(st.sets(st.integers(0, size - 1))))
    return batch, np.array(chosen, np.int64)


@given(batches())
def test_columns_equal_records_formatted_alone(made: tuple[Batch, I64]) -> None:
    """Whatever the batch and the rows chosen, byte for byte; the texts of devices may be shared by several calls."""
    batch, rows = made
    texts = json_records.RecordTexts(batch)
    expected = [reference(batch, row, 7) for row in rows.tolist()]
    assert json_records.json_lines(batch, rows, 7, PREFIX) == expected
    events = json_records.events(batch, rows[:2], 7, PREFIX, texts) + json_records.events(
        batch, rows[2:], 7, PREFIX, texts
    )
    assert events.decode() == framed(rows, expected)
    by_array = json_records.array_events(batch, rows, 7, PREFIX, texts) if len(rows) else None
    assert by_array is None or by_array.decode() == framed(rows, expected)
    assert all(json.loads(line) for line in expected)


def framed(rows: I64, lines: list[str]) -> str:
    """Return records as server-sent events."""
    return "".join(
        f"id: {PREFIX}{row_text(row)}\ndata: {line}\n\n" for row, line in zip(rows.tolist(), lines, strict=True)
    )


def test_large_blocks_equal_records_formatted_alone() -> None:
    """Blocks of few and of many properties, over which the widths of numbers, times and flags change."""
    random = np.random.default_rng(5)
    names = ["air_temperature", "door_open", "pm2_5", "pm2_5#2", "battery_level"]
    made = []
    for at in range(1_500):
        name, place = names[min(at // 400, 4)], at % len(DEVICES)
        scale = 10.0 ** int(random.integers(0, 5))
        value = round(float(random.uniform(-0.2 if name == "pm2_5#2" else 0, 9)) * scale, int(random.integers(0, 4)))
        made.append((place, name, float(at % 2) if name == "door_open" else value))
    size = len(made)
    batch = make_batch(
        made,
        time=NOW + random.integers(0, 3 * DAY_US, size),
        received=NOW + random.integers(0, 9_000_000, size),
        flags=np.where(np.arange(size) > 1_200, random.integers(0, 4, size), 0).astype(np.uint32),
        index=np.arange(9_500, 9_500 + size, dtype=np.uint32),
    )
    texts = json_records.RecordTexts(batch)
    for rows in (np.arange(size), np.arange(1, 90), np.arange(0, size, 7)):
        expected = framed(rows, [reference(batch, row, 7) for row in rows.tolist()])
        assert json_records.events(batch, rows, 7, PREFIX, texts).decode() == expected
        by_array = json_records.array_events(batch, rows, 7, PREFIX, texts)
        assert by_array is not None
        assert by_array.decode() == expected


def test_texts_of_devices_are_kept_and_forgotten() -> None:
    """Entries that share some devices, more than are remembered; a device that moves, and one with two profiles."""
    devices = DeviceTexts(devices_max=3)
    places = [Place(f"d{at}", lon=math.nan if at == 2 else 113.0 + at) for at in range(6)]
    moved = [msgspec.structs.replace(place, lon=112.5) for place in places]
    doubled = [places[0], places[0]]
    for some in (places[:3], places[:3], places[1:4], moved[1:4], places, places, doubled, places[2:], moved):
        batch = make_batch([(at % len(some), "pm2_5", 1.5) for at in range(2 * len(some))], places=some)
        every = np.arange(len(batch))
        for rows in (every[:1], every):
            texts = json_records.RecordTexts(batch, devices)
            expected = [reference(batch, row, 7) for row in rows.tolist()]
            assert json_records.json_lines(batch, rows, 7, PREFIX, texts) == expected
            assert json_records.events(batch, rows, 7, PREFIX, texts).decode() == framed(rows, expected)


def test_texts_of_very_different_lengths_are_listed() -> None:
    """One long name of a device does not make an array of all rows as wide as itself."""
    batch = make_batch(
        [(at % 3, "pm2_5", 1.5) for at in range(100)], places=[Place("a" * 64), *(Place(name) for name in ("b", "c"))]
    )
    rows, texts = np.arange(100), json_records.RecordTexts(batch)
    assert json_records.array_events(batch, rows, 7, PREFIX, texts) is None
    expected = framed(rows, [reference(batch, row, 7) for row in rows.tolist()])
    assert json_records.events(batch, rows, 7, PREFIX, texts).decode() == expected


@given(st.lists(NUMBERS | st.integers(-100, 70_000_000).map(lambda number: number / 1_000), min_size=1, max_size=6))
def test_numbers_in_columns_are_those_of_msgspec(numbers: list[float]) -> None:
    """Whole part and fraction together are what msgspec writes, or there are no columns."""
    columns = fixed_text.decimal_numbers(np.array(numbers))
    if columns is not None:
        assert [(whole + fraction).decode() for whole, fraction in zip(*columns, strict=True)] == [
            msgspec.json.encode(number).decode() for number in numbers
        ]


@given(st.lists(TIMES, max_size=20))
def test_times_equal_those_of_numpy(times: list[int]) -> None:
    """Before 1970, over several days, and in years of five digits."""
    column = np.array(times, np.int64)
    expected = np.datetime_as_string(column.view("datetime64[us]"), timezone="UTC").tolist()
    assert [text.decode() for text in fixed_text.iso(column)] == expected


def test_rows_beyond_the_cached_texts() -> None:
    """Row numbers above the table of cached texts are formatted one by one."""
    size = 70_000
    batch = make_batch([(0, "air_temperature", 1.0)] * size)
    rows = np.array([65_535, 65_536, size - 1])
    assert json_records.json_lines(batch, rows, 7, PREFIX) == [reference(batch, row, 7) for row in rows.tolist()]
