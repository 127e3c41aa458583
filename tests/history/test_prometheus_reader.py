"""Queries of Prometheus over a log's history: bounded in their work, and metered by what they read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sensegate.clock import HOUR_US
from sensegate.errors import TooMuch
from sensegate.history import prometheus_reader
from sensegate.history.prometheus_reader import PrometheusReader, QuerySteps
from sensegate.history.promql import BadQuery
from sensegate.share.last_values import LastValues
from sensegate.share.latest import LatestReader
from tests.history.past import PLACES, READER, Past
from tests.share.made import NOW, make_batch

STEPS = QuerySteps(NOW, NOW + HOUR_US, 60_000_000)


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    """A log that is followed, with a grant."""
    made = Past(tmp_path)
    await made.sharing.open()
    made.following = asyncio.create_task(made.sink.run())
    running = made.following, asyncio.create_task(made.sharing.reader.run())
    await asyncio.sleep(0)
    await made.grant()
    yield made
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
async def queries(past: Past) -> PrometheusReader:
    """Six devices that measured ten times within an hour."""
    values = LastValues()
    past.sharing.reader.on_rows.append(lambda rows: values.apply(rows.batch, rows.sequence))
    rows: list[tuple[int, str, float | str]] = [
        (place, "pm2_5", 20.0) for _ in range(10) for place in range(len(PLACES))
    ]
    await past.write(make_batch(rows, places=PLACES, start=NOW + 60_000_000))
    return PrometheusReader(past.queries, past.sharing, LatestReader(values, past.sharing))


async def test_the_ranges_of_all_steps_together_are_bounded(
    queries: PrometheusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few series at few steps may still have long ranges: refused before they are evaluated, with the way out."""
    monkeypatch.setattr(prometheus_reader, "WINDOW_SAMPLES_MAX", 1_000)
    assert (await queries.range(READER, "all", "sum_over_time(pm2_5[1m])", STEPS)).count
    assert (await queries.range(READER, "all", "pm2_5", STEPS)).count
    with pytest.raises(TooMuch, match="shorter range in brackets, a longer step"):
        await queries.range(READER, "all", "sum(sum_over_time(pm2_5[1h]))", STEPS)
    once = QuerySteps(STEPS.end, STEPS.end, STEPS.step)
    assert (await queries.instant(READER, "all", "pm2_5[1h]", once)).count == 60


@pytest.mark.parametrize("operator", ["=~", "!~"])
async def test_a_pattern_that_is_none_is_the_callers_error(queries: PrometheusReader, operator: str) -> None:
    """Not one that passes when the query is repeated; the parser takes patterns that RE2 does not."""
    with pytest.raises(BadQuery, match=r"'a\{2000\}' is not a regular expression"):
        await queries.range(READER, "all", f'pm2_5{{device{operator}"a{{2000}}"}}', STEPS)


async def test_labels_count_the_last_values_that_were_read(past: Past, queries: PrometheusReader) -> None:
    """The usage of a look-up is what its quota was charged, also where a selector chooses fewer series."""
    await past.grant(volume=1_000)
    for text, chosen in (("", 6), ('pm2_5{device="d-1"}', 1)):
        selectors = [queries.parser.selector(text)] if text else []
        answer = await queries.series(READER, "all", selectors)
        assert (len(answer.series), answer.count, answer.grant) == (chosen, 6, "g0123456789abcdef")
