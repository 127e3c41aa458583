"""The four indicators: what is counted for which device and hour."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.clock import HOUR_US
from sensegate.model import RejectedValue, RejectReason
from sensegate.quantities.indicator_counts import HOURS_MAX
from tests.normalise.indicator_rows import START, Counted, minutes, row_of
from tests.normalise.rows import FAHRENHEIT, NOW, SMOKE, TEMP, TEMP2, Row


def test_a_perfect_hour() -> None:
    """A device that sends all it should, good and on time, has four ones."""
    counted = Counted()
    counted.add(*minutes())
    row = row_of(counted.take(1), 0)
    assert (row["received"], row["expected"], row["gaps"]) == (60, 60, 0)
    assert [row[name] for name in ("authenticity", "accuracy", "continuity", "completeness")] == [1, 1, 1, 1]


def test_an_hour_is_taken_once_and_only_when_it_has_ended() -> None:
    """Before its end and grace an hour is not given out, and afterwards not again, but for what comes late."""
    counted = Counted()
    counted.add(*minutes(last=30))
    assert len(counted.indicators.drain(NOW + HOUR_US)) == 0
    counted.add(*minutes(first=30))
    assert row_of(counted.take(1), 0)["received"] == 60
    assert len(counted.take(1)) == 0
    counted.add(Row(20.0, time=10.0, received=5000.0))
    late = row_of(counted.take(1.5), 0)
    assert (late["received"], late["expected"]) == (1, 60)


def test_doubted_readings_lower_authenticity() -> None:
    """A credential not proved, a stamp from the future, a stale reading: received, but not authentic."""
    counted = Counted()
    counted.add(
        Row(20.0, time=1.0),
        Row(21.0, time=2.0),
        Row(22.0, time=400.0, received=3.0),
        Row(23.0, time=4.0),
        proved=[True, False, True, True],
    )
    row = row_of(counted.take(1), 0)
    assert (row["received"], row["doubted"], row["authenticity"]) == (4, 2, 0.5)
    assert row["accuracy"] == 1


def test_wrong_and_rejected_values_lower_accuracy() -> None:
    """Out of range, a step, and values that became no reading are not accurate."""
    counted = Counted()
    counted.add(
        Row(20.0, time=0.0), Row(1000.0, time=60.0), Row(math.nan, time=120.0), Row(49.0, time=121.0), Row(0.5, SMOKE)
    )
    row = row_of(counted.take(1), 0)
    assert (row["received"], row["rejected"], row["wrong"]) == (3, 2, 4)
    assert row["accuracy"] == pytest.approx(0.2)


def test_a_rejection_alone_is_counted_in_the_hour_of_its_arrival() -> None:
    """A message of which nothing is left still shows in its device's accuracy; one of nobody does not."""
    counted = Counted()
    counted.add(Row(math.nan, device=3))
    counted.indicators.count(
        counted.normaliser.table,
        counted.run()[0],
        [RejectedValue(0, RejectReason.NOT_FINITE)],
        received=np.array([NOW]),
    )
    taken = counted.take(1)
    assert taken.device.tolist() == [3]
    row = row_of(taken, 3)
    assert (row["received"], row["rejected"], row["accuracy"]) == (0, 1, 0)
    assert math.isnan(row["authenticity"])
    assert math.isnan(row["completeness"])


def test_duplicates_count_for_nothing() -> None:
    """Rows that were not kept do not make an hour more complete."""
    counted = Counted()
    counted.add(*minutes(last=30), *minutes(last=30), keep=[True] * 30 + [False] * 30)
    assert row_of(counted.take(1), 0)["completeness"] == 0.5


def test_expected_is_the_sum_over_the_series() -> None:
    """Two probes of one minute each are 120 readings an hour; a series without an interval expects nothing."""
    counted = Counted()
    counted.add(*minutes(), *minutes(spec=TEMP2, last=30), Row(1, SMOKE), Row(20.0, FAHRENHEIT, device=1))
    taken = counted.take(1)
    assert row_of(taken, 0)["expected"] == 120
    assert row_of(taken, 0)["completeness"] == pytest.approx(91 / 120)
    assert math.isnan(row_of(taken, 1)["completeness"])
    assert math.isnan(row_of(taken, 1)["continuity"])


def test_a_gap_is_counted_with_its_length_in_the_hours_it_lasted() -> None:
    """Silence from minute 50 to minute 80: eleven minutes less one interval in the first hour, twenty in the next."""
    counted = Counted()
    counted.add(*minutes(last=50))
    counted.add(*minutes(first=80, last=120))
    taken = counted.take(2)
    first, second = row_of(taken, 0), row_of(taken, 0, 1)
    assert (first["gaps"], first["silent"] / 60e6, second["silent"] / 60e6) == (1, 10, 20)
    assert second["gaps"] == 0
    assert first["longest"] / 60e6 == second["longest"] / 60e6 == 31
    assert first["continuity"] == pytest.approx(50 / 60)
    assert second["continuity"] == pytest.approx(40 / 60)


def test_a_silent_device_shows_while_it_is_silent_and_is_not_counted_twice() -> None:
    """Hours that end in silence are reported at their end; the return adds only what is new."""
    counted = Counted()
    counted.add(*minutes(last=30))
    first = row_of(counted.take(1), 0)
    assert (first["gaps"], first["silent"] / 60e6, first["completeness"]) == (1, 30, 0.5)
    second = row_of(counted.take(2), 0, 1)
    assert (second["gaps"], second["continuity"], second["received"], second["completeness"]) == (0, 0, 0, 0)
    counted.add(*minutes(first=150, last=180))
    taken = counted.take(3)
    assert (taken.hour - START).tolist() == [2]
    third = row_of(taken, 0, 2)
    assert (third["silent"] / 60e6, third["received"], third["gaps"]) == (30, 30, 0)


def test_a_jitter_below_half_an_interval_is_no_gap() -> None:
    """A device that is a little late is continuous."""
    counted = Counted()
    counted.add(*(Row(20.0, time=n * 85.0) for n in range(43)))
    assert row_of(counted.take(1), 0)["gaps"] == 0


def test_late_readings_make_an_hour_complete_but_not_continuous() -> None:
    """A backlog fills the count of the hour in which it was measured; the silence stays on record."""
    counted = Counted()
    counted.add(*minutes(last=20))
    counted.add(*minutes(first=50))
    counted.add(*(Row(20.0, time=n * 60.0, received=3590.0) for n in range(20, 50)))
    row = row_of(counted.take(1), 0)
    assert row["completeness"] == 1
    assert row["continuity"] == pytest.approx(0.5)


def test_a_backlog_beside_live_readings_makes_no_gap() -> None:
    """Old readings that come between live ones are no end of a silence."""
    counted = Counted()
    counted.add(*minutes(last=50))
    counted.add(Row(20.0, time=60.0, received=3000.0), *minutes(first=50))
    row = row_of(counted.take(1), 0)
    assert (row["gaps"], row["silent"]) == (0, 0)


def test_messages_that_come_together_out_of_order_make_no_gap() -> None:
    """Within a batch the silences are counted in the order of time, not of arrival."""
    counted = Counted()
    rows = minutes(last=10)
    counted.add(*rows[5:], *rows[:5])
    counted.add(*minutes(first=10))
    row = row_of(counted.take(1), 0)
    assert (row["gaps"], row["silent"]) == (0, 0)


def test_a_device_is_judged_from_its_first_message_on() -> None:
    """A device that came in the middle of the hour is not missed for the first half."""
    counted = Counted()
    counted.add(*minutes(first=30))
    row = row_of(counted.take(1), 0)
    assert (row["expected"], row["completeness"], row["continuity"]) == (30, 1, 1)


def test_readings_of_long_ago_are_not_counted() -> None:
    """A backlog of last week opens no hours; memory is bounded whatever stamps come."""
    counted = Counted()
    counted.add(*(Row(20.0, time=-n * 3600.0 - 200 * 3600.0, received=0) for n in range(500)))
    counted.add(*(Row(20.0, time=n * 3600.0, received=0) for n in range(1, 500)))
    assert len(counted.indicators._hours) <= 2
    row = row_of(counted.take(1), 0)
    assert (row["received"], row["doubted"]) == (499, 499)


def test_nobody_takes() -> None:
    """If nobody takes the counts, the oldest hours are lost before memory is."""
    counted = Counted()
    for hour in range(200):
        counted.add(Row(20.0, time=hour * 3600.0))
    assert len(counted.indicators._hours) <= 2 * HOURS_MAX


def test_a_change_of_profiles_is_learned() -> None:
    """After `forget_rates` what is expected comes from the specs now in force."""
    counted = Counted()
    counted.add(*minutes(), *minutes(spec=TEMP2))
    counted.indicators.forget_rates()
    counted.add(*minutes(last=1))
    assert row_of(counted.take(1), 0)["expected"] == 60


def test_the_open_hour_is_given_out_at_the_end() -> None:
    """At an orderly stop `final` gives out what is open."""
    counted = Counted()
    counted.add(*minutes(last=5))
    taken = counted.take(0.1, final=True)
    assert row_of(taken, 0)["received"] == 5


@settings(deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 240), st.sampled_from([20.0, 51.0, math.nan])),
            min_size=1,
            max_size=20,
        ),
        max_size=6,
    ),
    st.data(),
)
def test_nothing_is_counted_twice_or_lost(batches: list[list[tuple[int, int, float]]], data: st.DataObject) -> None:
    """However the counts are taken, received and rejected add up to what was handed in, per device."""
    counted = Counted()
    wanted: dict[tuple[str, int], int] = {}
    taken = []
    for batch in batches:
        rows = [Row(value, TEMP, device, time=minute * 60.0, received=240 * 60.0) for device, minute, value in batch]
        for device, _, value in batch:
            kind = "rejected" if math.isnan(value) else "received"
            wanted[kind, device] = wanted.get((kind, device), 0) + 1
        counted.add(*rows)
        if data.draw(st.booleans()):
            taken.append(counted.take(data.draw(st.integers(0, 6))))
    taken.append(counted.take(6, final=True))
    got: dict[tuple[str, int], int] = {}
    for entry in taken:
        for kind in ("received", "rejected"):
            for device, count in zip(entry.device.tolist(), getattr(entry, kind).tolist(), strict=True):
                if count:
                    got[kind, device] = got.get((kind, device), 0) + count
    assert got == wanted


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=40).map(sorted), st.integers(1, 6))
def test_silence_is_what_the_stamps_say(stamps: list[int], pieces: int) -> None:
    """In order of time the silent minutes are the gaps beyond an interval, however the batches are cut."""
    counted = Counted()
    for piece in np.array_split(np.array(stamps), pieces):
        if len(piece):
            counted.add(*(Row(20.0, time=minute * 60.0) for minute in piece.tolist()))
    taken = counted.take(0, final=True)
    gaps = np.diff(stamps)
    assert taken.silent.sum() == (gaps[gaps > 1] - 1).sum() * 60_000_000
    assert taken.gaps.sum() == (gaps > 1).sum()
    assert ((taken.continuity >= 0) & (taken.continuity <= 1)).all()
