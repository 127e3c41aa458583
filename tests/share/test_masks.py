"""Masks on any columns: nothing that is hidden can be read in what comes out, whatever the form; and what stays."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sensegate.bus import columns
from sensegate.bus.columns import Batch, WordColumn
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError
from sensegate.model import LogMessage
from sensegate.share import masks, records
from sensegate.share.delivery import FeedServer, RecordEncoding
from sensegate.share.feeds import FeedFilter, FeedSelection, filtered_selection
from sensegate.share.masks import Mask, Masks, Rounding, hidden_rows, round_to_step, snap_to_grid
from sensegate.share.reader import LogReader
from tests.share.made import DEVICES, NOW, Place, make_batch

SECRET = b"0123456789abcdef"
CLOCK = FakeClock(NOW)
NAMES = ("air_temperature", "people_count", "plate_hash", "relative_humidity")
NUMBERS = ("air_temperature", "people_count", "relative_humidity")

values = st.floats(-1e6, 1e6, allow_nan=False)
rows = st.lists(st.tuples(st.integers(0, len(DEVICES) - 1), st.sampled_from(NUMBERS), values), min_size=1, max_size=30)
some_masks = st.builds(
    Mask,
    drop=st.lists(st.sampled_from((*NUMBERS, "place", "profile")), max_size=3, unique=True).map(tuple),
    round=st.lists(
        st.builds(Rounding, st.sampled_from(NUMBERS), st.sampled_from((0.1, 0.5, 2.0, 100.0))),
        max_size=2,
        unique_by=lambda rounding: rounding.property,
    ).map(tuple),
    hash=st.sampled_from(((), ("device",))),
    grid_m=st.sampled_from((0.0, 10.0, 1_000.0, 50_000.0)),
    time_s=st.sampled_from((0, 1, 60, 86_400)),
    division_digits=st.sampled_from((0, 2, 4, 6)),
    k=st.sampled_from((0, 5, 100)),
    key=st.sampled_from(("", "a")),
)


def test_very_many_words_are_masked_in_no_time() -> None:
    """A hostile node may send as many divisions as rows: the time of the process rises with their number alone."""
    words = WordColumn.of([f"4401{number:05}" for number in range(60_000)])
    batch = make_batch([(0, "pm2_5", 1.0)])
    batch = msgspec.structs.replace(batch, origins=msgspec.structs.replace(batch.origins, division=words))
    began = time.process_time()
    masked = Masks(SECRET).apply(batch, Mask(division_digits=9))
    assert time.process_time() - began < 5.0  # some 30 s if each word is looked for among all
    division = masked.origins.division
    assert [division.table[at] for at in division.index[::20_000].tolist()] == ["440100000", "440120000", "440140000"]


@given(rows, some_masks)
def test_rows_stay_where_they_are_and_once_is_as_good_as_twice(made: list[Any], mask: Mask) -> None:
    """As many rows in the same order, so that cursors stay what they are; masked again nothing changes."""
    batch, maker = make_batch(made), Masks(SECRET)
    result = maker.apply(batch, mask)
    assert len(result) == len(batch)
    for name in ("property", "origin", "quality", "flags"):
        assert np.array_equal(getattr(result, name), getattr(batch, name)), name
    repeated = maker.apply(result, mask)
    assert columns.encode(repeated) == columns.encode(result)
    assert columns.encode(maker.apply(batch, masks.NO_MASK)) == columns.encode(batch)


@given(rows, some_masks)
def test_what_is_masked_is_as_the_mask_says(made: list[Any], mask: Mask) -> None:
    """Times begin periods, places are middles of cells, values are multiples, names and codes are gone."""
    batch = make_batch(made)
    rows, gone = Masks(SECRET).apply(batch, mask), hidden_rows(batch, mask)
    if mask.time_s:
        assert not (rows.time % (mask.time_s * 1_000_000)).any()
        assert not (rows.received % (mask.time_s * 1_000_000)).any()
    if "place" in mask.drop:
        assert np.isnan(rows.origins.lon).all()
    elif mask.grid_m:
        known = ~np.isnan(batch.origins.lon)
        across = (rows.origins.lon - batch.origins.lon)[known] * 111_320 * np.cos(np.radians(23))
        assert (np.abs(across) <= mask.grid_m).all()
    if mask.division_digits:
        assert all(len(code) <= mask.division_digits for code in rows.origins.division.table)
    if "device" in mask.hash:
        assert not {*rows.origins.device} & {*batch.origins.device}
    names = [records.base_name(name) for name in batch.properties]
    for row in range(len(batch)):
        name = names[batch.property[row]]
        assert bool(gone[row]) >= (name in mask.drop)
        if mask.k and name == "people_count":
            assert gone[row] == (batch.value[row] < mask.k or name in mask.drop)
        for rounding in mask.round:
            if rounding.property == name:
                count = rows.value[row] / rounding.step
                assert math.isclose(count, round(count), abs_tol=1e-6)
                assert abs(rows.value[row] - batch.value[row]) <= rounding.step / 2 * (1 + 1e-9)


@given(st.floats(-180, 180), st.floats(-89, 89), st.floats(10, 200_000))
def test_a_cell_has_one_middle(lon: float, lat: float, metres: float) -> None:
    """The middle of a place is its own middle's middle, and lies within the cell."""
    first = snap_to_grid(np.array([lon]), np.array([lat]), metres)
    second = snap_to_grid(*first, metres)
    assert abs(first[1][0] - lat) <= metres / 111_320 * 0.5 + 1e-6
    assert abs(second[1][0] - first[1][0]) < 1e-6


@given(st.floats(-1e9, 1e9), st.sampled_from((0.1, 0.25, 1.0, 7.0)))
def test_a_multiple_is_the_nearest(value: float, step: float) -> None:
    """Within half a step."""
    near = float(round_to_step(np.array([value]), step)[0])
    assert abs(near - value) <= step / 2 * (1 + 1e-6) + 1e-6


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(5e-324, 1e308))
@example(1.5, 1e-20)
@example(1.5, 5e-324)
@example(1e308, 0.1)
@example(-1e308, 3e307)
def test_any_step_gives_a_number(value: float, step: float) -> None:
    """However fine or coarse the step is; a value that no float tells so finely stays."""
    near = float(round_to_step(np.array([value]), step)[0])
    assert math.isfinite(near)
    assert near == value or abs(near / 2 - value / 2) <= step / 4 * (1 + 1e-6) + abs(value) * 1e-9


def test_pseudonyms_are_alike_for_a_key_and_differ_between_keys_and_secrets() -> None:
    """So that one grant can follow a device, and two cannot be joined."""
    word = "gz-air-1"
    first, other = Masks(SECRET).pseudonyms("a"), Masks(SECRET).pseudonyms("b")
    assert first(word) == first(word) == first(first(word))
    assert len({first(word), other(word), Masks(SECRET[::-1]).pseudonyms("a")(word), word}) == 4


def test_words_of_a_record_in_a_text_are_not_shown_beside_coarse_columns() -> None:
    """A video observation tells place and time in its own text: with either coarsened it is left out."""
    batch = make_batch([(0, "video_observation", '{"lon": 113.3612}'), (0, "air_temperature", 1.0)])
    for mask in (
        Mask(grid_m=1_000),
        Mask(k=5),
        Mask(hash=("device",)),
        Mask(round=(Rounding("people_count", 10.0),)),
        Mask(drop=("people_count",)),
    ):
        assert hidden_rows(batch, mask).tolist().count(True) == 1, mask
    assert not hidden_rows(batch, Mask(round=(Rounding("air_temperature", 1.0),))).any()


BAD = [
    Mask(drop=("air_temprature",)),
    Mask(round=(Rounding("air_temperature", 0.0),)),
    Mask(round=(Rounding("air_temperature", 1.0), Rounding("air_temperature", 2.0))),
    Mask(hash=("air_temperature",)),
    Mask(grid_m=1.0),
    Mask(time_s=-1),
    Mask(division_digits=5),
    Mask(k=-1),
]


@pytest.mark.parametrize("mask", BAD, ids=repr)
def test_a_mask_that_cannot_be_is_refused(mask: Mask) -> None:
    """With the key that is wrong."""
    with pytest.raises(ConfigError, match="mask"):
        masks.check_mask(mask)


# ── through every form ──────────────────────────────────────────────────────────────────────────────────

CANARY = Place("canary-device", "440106", "env", "air", 1, 113.987654, 23.123456)
FORMS = [form for form in RecordEncoding if form is not RecordEncoding.SSE]


async def _bodies(memory_log: MemoryLog, batch: Batch, mask: Mask) -> dict[RecordEncoding, bytes]:
    await memory_log.write([LogMessage("readings.4401.440106.1", columns.encode(batch), 72)])
    reader = LogReader(memory_log, CLOCK)
    serving = FeedServer(reader, masks=Masks(SECRET))
    first = await reader.first()
    selection = FeedSelection(mask=mask)
    bodies: dict[RecordEncoding, bytes] = {
        form: (await serving.page(selection, first, form, 100, 0.0)).body for form in FORMS
    }
    # What is compressed is looked at as its reader sees it.
    rows = pq.read_table(io.BytesIO(bodies[RecordEncoding.PARQUET])).to_pylist()
    bodies[RecordEncoding.PARQUET] = repr(rows).encode()
    return bodies


async def test_no_form_lets_a_canary_through(memory_log: MemoryLog) -> None:
    """Device, place, time and a dropped value are in every form without a mask (the control), in none with it."""
    batch = make_batch(
        [(0, "air_temperature", 21.987), (0, "relative_humidity", 77.123)],
        places=[CANARY],
        start=NOW + 12_345_678,
    )
    mask = Mask(
        drop=("relative_humidity", "profile"),
        round=(Rounding("air_temperature", 1.0),),
        hash=("device",),
        grid_m=5_000,
        time_s=3_600,
        division_digits=4,
    )
    bare = await _bodies(memory_log, batch, masks.NO_MASK)
    bodies = await _bodies(MemoryLog(CLOCK, epoch="e2"), batch, mask)
    for form in FORMS:
        text = bodies[form]
        assert b"canary-device" in bare[form], "the control"
        assert b"canary-device" not in text
        if form is not RecordEncoding.MSGPACK:
            assert b"77.123" in bare[form]
            assert b"77.123" not in text
            assert b"21.987" not in text
        if form in {RecordEncoding.JSON, RecordEncoding.NDJSON, RecordEncoding.CSV}:
            assert b"113.987654" in bare[form]
            for secret in (b"113.987654", b"23.123456", b"440106", b"acme/th10"):
                assert secret not in text, (form, secret)


async def test_a_planted_hole_is_found(memory_log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that forgets the devices is seen by the test above: the negative control."""
    monkeypatch.setattr(Masks, "_origins", lambda _self, origins, _mask: origins)
    batch = make_batch([(0, "air_temperature", 21.987), (0, "relative_humidity", 77.123)], places=[CANARY])
    bodies = await _bodies(memory_log, batch, Mask(hash=("device",), key="x"))
    assert b"canary-device" in bodies[RecordEncoding.JSON]


def test_the_one_who_asks_by_device_cannot_find_out() -> None:
    """Conditions of a request hold for what is shown, not for what is hidden: see `feeds.filtered_selection`."""
    wanted = FeedFilter(devices=("canary-device",))
    cut = filtered_selection(FeedSelection(), wanted, Mask(hash=("device",), key="x"))
    assert cut is not None
    assert cut.devices == ()
    assert cut.masked_filter.devices == ("canary-device",)
    plain = filtered_selection(FeedSelection(), wanted, masks.NO_MASK)
    assert plain is not None
    assert plain.devices == ("canary-device",)


def test_an_empty_mask_is_nothing() -> None:
    """A key alone changes nothing."""
    assert not Mask(key="x")
    assert Mask(time_s=1)
    assert msgspec.json.decode(b"{}", type=Mask) == masks.NO_MASK
