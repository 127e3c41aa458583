"""Without a history the days of the log are answered, as the history would, and errors say what to install."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from sensegate.bus.names import READINGS
from sensegate.clock import DAY_US, HOUR_US
from sensegate.errors import ConfigError, NotFound, TooMuch
from sensegate.history.log_queries import LogQueries
from sensegate.history.reader import FORMS, HistoryReader, HistoryRequest
from sensegate.share.feeds import Circle, FeedFilter
from tests.history.made import KEEP_ALL
from tests.history.past import EVERYTHING, MASK, PLACES, READER, Past
from tests.share.made import NOW, make_batch


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[tuple[Past, HistoryReader]]:
    """A log with late readings and revisions, its history, and a reader that has the log only."""
    made = Past(tmp_path)
    await made.sharing.open()
    made.following = asyncio.create_task(made.sink.run())
    tasks = [made.following, asyncio.create_task(made.sharing.reader.run(0))]
    rows = [
        (place, name, float(place + number))
        for number in range(12)
        for place in range(len(PLACES))
        for name in ("pm2_5", "air_temperature#2")
    ]
    batches = [make_batch(rows, places=PLACES, start=NOW + hour * HOUR_US) for hour in (0, 1, 3, 2)]
    once, twice = (
        make_batch([(0, "pm2_5", value)], places=PLACES, start=NOW, revision=np.array([number], np.uint8))
        for number, value in ((1, 111.0), (2, 222.0))
    )
    await made.write(*batches, once, twice)
    queries = LogQueries(made.sharing.reader, made.sharing.server.masks, KEEP_ALL)
    yield made, HistoryReader(queries, made.sharing, made.sink.drop)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def records_of(reader: HistoryReader, wanted: FeedFilter, limit: int, **more: Any) -> list[dict[str, Any]]:
    """Return the readings of a request, page after page."""
    records: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await reader.page(READER, HistoryRequest("all", wanted, after, **more), form="json", limit=limit)
        records += [
            {name: value for name, value in record.items() if name != "channel" or value}
            for record in json.loads(page.body)["records"]
        ]
        if not (after := page.next):
            return records


@pytest.mark.parametrize("mask", [None, MASK])
async def test_the_log_answers_as_the_history(past: tuple[Past, HistoryReader], mask: Any) -> None:
    """The same records in the same order: pages, both directions, revisions, conditions, plots, masks."""
    made, of_log = past
    if mask:
        await made.grant(mask=mask)
    for wanted, limit, more in (
        (EVERYTHING, 1_000, {}),
        (EVERYTHING, 37, {"descending": True}),
        (EVERYTHING, 37, {"revisions": True}),
        (replace(EVERYTHING, begin=NOW + HOUR_US, end=NOW + 2 * HOUR_US, devices=("d-1", "d-2")), 11, {}),
        (replace(EVERYTHING, near=Circle(113.1, 23.0, 11_000)), 100, {}),
        (replace(EVERYTHING, begin=NOW - 3 * DAY_US, end=NOW - 2 * DAY_US), 10, {}),
    ):
        expected = await records_of(made.history, wanted, limit, **more)
        assert await records_of(of_log, wanted, limit, **more) == expected, (wanted, more)
        assert bool(expected) or (wanted.end or 0) < NOW or (mask and (wanted.devices or wanted.near))
    for method in ("minmax", "lttb"):
        pages = [
            await reader.samples(READER, HistoryRequest("all", EVERYTHING), form="json", points=10, method=method)
            for reader in (made.history, of_log)
        ]
        assert pages[0].count == pages[1].count > 0
        first, second = ({record["id"] for record in json.loads(page.body)["records"]} for page in pages)
        # Among equal masked values and times either one may be kept.
        assert mask or first == second


async def test_every_form_is_answered(past: tuple[Past, HistoryReader]) -> None:
    """As by the history."""
    for form in FORMS:
        page = await past[1].page(READER, HistoryRequest("all", EVERYTHING), form=form, limit=50)
        assert page.count == 50


async def test_what_the_log_cannot_answer(past: tuple[Past, HistoryReader], monkeypatch: pytest.MonkeyPatch) -> None:
    """Aggregates, a period before the log's first entry, and too much: errors with what to install or to narrow."""
    made, of_log = past
    queries = of_log.queries
    with pytest.raises(NotFound, match=r"sensegate\[history\]"):
        await queries.aggregate(None, 0, 1, None)  # type: ignore[arg-type] # it looks at none of them
    monkeypatch.setattr(queries, "_config", replace(KEEP_ALL, query_rows_max=1_000))
    assert await records_of(of_log, replace(EVERYTHING, end=NOW + HOUR_US), 1_000)
    monkeypatch.setattr(queries, "_config", replace(KEEP_ALL, query_rows_max=10))
    with pytest.raises(TooMuch, match="shorter period"):
        await records_of(of_log, EVERYTHING, 5)
    monkeypatch.undo()
    first, _ = await made.log.bounds()
    entries = await made.log.fetch(0, limit=1)
    assert entries[0].subject.startswith(READINGS)
    monkeypatch.setattr(made.log, "bounds", lambda: _expired(first + 1, entries[0].sequence + 5))
    with pytest.raises(ConfigError, match=r"from: .*install sensegate\[history\]"):
        await records_of(of_log, EVERYTHING, 5)


async def _expired(first: int, last: int) -> tuple[int, int]:
    return first, last
