"""Hourly indicators of nodes at their centre: sums only, checked by limits, types and areas, kept by month."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.clock import HOUR_US, FakeClock
from sensegate.errors import Unavailable
from sensegate.quantities.indicator_counts import IndicatorCounts
from sensegate.tiers.indicator_history import OPEN_HOURS, IndicatorHistory, month_before, month_of
from sensegate.tiers.indicator_hours import ROWS_MAX, HourIndicators, hour_sums, unacceptable
from sensegate.tiers.report import NodeReport, NodeReports, ReportReply, decode_report
from sensegate.tiers.rest_indicators import city_of_rows

NODE, AREAS = "4401", ("4401",)


def present(clock: FakeClock) -> int:
    """Return the hour of a clock."""
    return clock.now() // HOUR_US


def sums_of(hour: int, division: str = "4401", *, received: int = 100, accuracy: float = 9.0) -> HourIndicators:
    """Return the sums of ten devices."""
    return HourIndicators(hour, division, 10, received, (10.0, accuracy, 8.0, 5.0), (10, 10, 10, 10))


def counts_of(devices: list[int], hour: int) -> IndicatorCounts:
    """Return the counts of devices that sent 8 of 10 expected readings, 2 of them wrong; without a gap."""
    size = len(devices)

    def whole(value: int) -> np.ndarray:
        return np.full(size, value, np.uint32)

    def long(value: int) -> np.ndarray:
        return np.full(size, value, np.int64)

    return IndicatorCounts(
        device=np.array(devices, np.int32),
        hour=long(hour),
        received=whole(8),
        doubted=whole(0),
        wrong=whole(2),
        rejected=whole(0),
        gaps=whole(0),
        silent=long(0),
        longest=long(0),
        expected=np.array([10.0, *[0.0] * (size - 1)]),
        span=long(HOUR_US),
    )


def test_sums_of_an_hour_by_city() -> None:
    """Each device counts for its city; where an indicator is undefined for a device, it does not count at all."""
    city = np.array([0, 1, 0, 0], np.int32)
    guangzhou, shenzhen = hour_sums(7, counts_of([0, 1, 2], 7), city, ["4401", "4403", "4406"])
    assert guangzhou == HourIndicators(7, "4401", 2, 16, (2.0, 1.5, 1.0, 0.8), (2, 2, 1, 1))
    assert shenzhen == HourIndicators(7, "4403", 1, 8, (1.0, 0.75, 0.0, 0.0), (1, 1, 0, 0))


def test_what_crosses_is_sums_only() -> None:
    """A row of the report names a city, an hour and numbers: no device, no property, no place below the city."""
    assert HourIndicators.__struct_fields__ == ("hour", "division", "devices", "received", "sums", "counts")
    row = msgspec.msgpack.encode([1, "440106", 1, 1, [1.0] * 4, [1] * 4])
    with pytest.raises(msgspec.ValidationError, match="regex"):
        msgspec.msgpack.decode(row, type=HourIndicators)


@pytest.mark.parametrize(
    "row",
    [
        [1, "4401", -1, 1, [0.0] * 4, [0] * 4],
        [1, "4401", 1, 1, [-0.5] * 4, [1] * 4],
        [1, "4401", 1, 1, [0.0] * 3, [0] * 4],
        [1, "4401", 1, 1, [1e300] * 4, [1] * 4],
        [-5, "4401", 1, 1, [0.0] * 4, [0] * 4],
        [1, "'; drop", 1, 1, [0.0] * 4, [0] * 4],
        "no row",
    ],
)
def test_a_report_of_other_types_or_limits_is_refused(row: object) -> None:
    """The whole report is refused, as any that cannot be decoded; the same report with a proper row is not."""
    report = {"version": "1", "sent_at": 1}
    proper = msgspec.msgpack.encode({**report, "indicators": [[1, "4401", 1, 1, [0.0] * 4, [0] * 4]]})
    assert len(decode_report(proper).indicators) == 1
    with pytest.raises(ValueError, match="report of a node"):
        decode_report(msgspec.msgpack.encode({**report, "indicators": [row]}))
    many = [[1, "4401", 1, 1, [0.0] * 4, [0] * 4]] * (ROWS_MAX + 1)
    with pytest.raises(ValueError, match="report of a node"):
        decode_report(msgspec.msgpack.encode({**report, "indicators": many}))


def test_rows_that_cannot_be_true_are_not_taken() -> None:
    """Hours out of range, cities of others, and sums above the number of devices; a proper row is taken."""
    now = 1_000_000 * HOUR_US
    assert unacceptable(sums_of(1_000_000), AREAS, now) == ""
    assert unacceptable(sums_of(1_000_000), ("440106",), now) == "", "a district speaks for what it has of its city"
    assert "too old or to come" in unacceptable(sums_of(999_900), AREAS, now)
    assert "too old or to come" in unacceptable(sums_of(1_000_002), AREAS, now)
    assert "none of its areas" in unacceptable(sums_of(1_000_000, "4403"), AREAS, now)
    assert "none of its areas" in unacceptable(sums_of(1_000_000, "44"), AREAS, now)
    assert "cannot have" in unacceptable(sums_of(1_000_000, accuracy=10.5), AREAS, now)
    assert "cannot have" in unacceptable(sums_of(1_000_000, accuracy=float("nan")), AREAS, now)


async def test_rows_taken_during_a_write_are_stored_by_the_next(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report comes while the month is being written; a month that could not be written is written later."""
    await clock.advance(7_200)  # both hours in one month
    bucket, hour = MemoryBucket(), present(clock)
    history, put = IndicatorHistory(bucket, clock), bucket.put

    async def interrupted(key: str, value: bytes) -> int:
        history.take(NODE, [sums_of(hour)], AREAS)
        return await put(key, value)

    async def away(_key: str, _value: bytes) -> int:
        raise Unavailable("the store is away")

    history.take(NODE, [sums_of(hour - 1)], AREAS)
    monkeypatch.setattr(bucket, "put", interrupted)
    await history.store()
    monkeypatch.setattr(bucket, "put", away)
    with pytest.raises(Unavailable):
        await history.store()
    monkeypatch.setattr(bucket, "put", put)
    await history.store()
    later = IndicatorHistory(bucket, clock)
    await later.load()
    assert [row.hour for row in await later.month(NODE, month_of(hour))] == [hour - 1, hour]


async def test_a_month_outlives_a_restart(clock: FakeClock) -> None:
    """What was stored is read again; the newest hours are asked for again, older ones only until they are stored."""
    bucket = MemoryBucket()
    history = IndicatorHistory(bucket, clock)
    hour = present(clock)
    assert history.wanted_after(NODE) < hour - 40, "nothing is known: all that a node remembers is asked for"
    history.take(NODE, [sums_of(hour - back) for back in range(5)], AREAS)
    assert history.wanted_after(NODE) < hour - 40, "nothing is stored yet"
    await history.store()
    assert history.wanted_after(NODE) == hour - OPEN_HOURS
    later = IndicatorHistory(bucket, clock)
    await later.load()
    assert later.wanted_after(NODE) == hour - OPEN_HOURS
    rows = [row for month in {month_of(hour), month_of(hour - 4)} for row in await later.month(NODE, month)]
    assert sorted(row.hour for row in rows) == [hour - back for back in range(4, -1, -1)]


async def test_a_process_that_starts_anew_does_not_take_back_what_it_counted(clock: FakeClock) -> None:
    """A row with fewer readings than the known one is of a part of the hour; one with more replaces it."""
    history = IndicatorHistory(MemoryBucket(), clock)
    hour = present(clock)
    for received in (100, 20, 120):
        history.take(NODE, [sums_of(hour, received=received)], AREAS)
        kept = await history.month(NODE, month_of(hour))
        assert [row.received for row in kept] == [max(100, received)]


async def test_months_leave_memory_and_then_the_bucket(clock: FakeClock) -> None:
    """An old month is read from the bucket when it is asked for."""
    bucket = MemoryBucket()
    history = IndicatorHistory(bucket, clock)
    hour = present(clock)
    history.take(NODE, [sums_of(hour)], AREAS)
    await history.store()
    await clock.advance(95 * 86_400)
    history.take(NODE, [sums_of(present(clock))], AREAS)
    await history.store()
    assert [row.hour for row in await history.month(NODE, month_of(hour))] == [hour]
    assert await history.month(NODE, "2001-01") == []
    assert [month_before("2026-01", months) for months in (0, 1, 13)] == ["2026-01", "2025-12", "2024-12"]


async def test_refused_rows_are_a_problem_of_the_node(clock: FakeClock) -> None:
    """The reason stays until a report without such rows comes; what is proper beside them is taken."""
    history = IndicatorHistory(MemoryBucket(), clock)

    def reply(member: str, report: NodeReport) -> ReportReply:
        history.take(member, report.indicators, AREAS)
        return ReportReply("1", clock.now(), indicators_after=history.wanted_after(member))

    reports = NodeReports(clock, reply)
    hour = present(clock)
    rows = (sums_of(hour, "4403"), sums_of(hour))
    await reports.answer_report(NODE, msgspec.msgpack.encode(NodeReport("1", 1, indicators=rows)))
    assert "4403" in history.refusals[NODE]
    assert [row.division for row in await history.month(NODE, month_of(hour))] == ["4401"]
    assert reports.latest[NODE].report.indicators == ()
    await reports.answer_report(NODE, msgspec.msgpack.encode(NodeReport("1", 1, indicators=rows[1:])))
    assert history.refusals == {}


def test_means_of_a_city_over_two_nodes() -> None:
    """Means weigh each hour of each device alike; the score is 100 times their mean; the trend has the newest hours."""
    small = HourIndicators(9, "4401", 1, 5, (1.0, 1.0, 0.0, 0.0), (1, 1, 0, 0))
    city = city_of_rows("4401", {"4401": [sums_of(8), sums_of(9)], "4401-port": [small]}, 1)
    assert (city.hours, city.devices, city.received) == (2, 11, 205)
    assert (city.authenticity, city.accuracy, city.continuity, city.completeness) == (1.0, round(19 / 21, 4), 0.8, 0.5)
    assert city.score == pytest.approx(100 * (1 + 19 / 21 + 0.8 + 0.5) / 4, abs=0.06)
    assert [hour.devices for hour in city.trend] == [11]
    assert city_of_rows("", {}, 48).score is None
