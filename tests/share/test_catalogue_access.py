"""Samples of a catalogue entry: of the newest data, through a mask."""

from __future__ import annotations

import json

import pytest

from sensegate.authority.trail import MemoryTrail
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US
from sensegate.share import catalogue_access
from sensegate.share.catalogue import QualityIndicators
from sensegate.share.catalogue_access import CatalogueAccess
from sensegate.share.delivery import FeedServer
from sensegate.share.masks import Mask
from sensegate.share.reader import LogReader
from sensegate.share.registries import SharingRegistries
from tests.share.access_bench import OWNER, AccessBench
from tests.share.made import NOW, make_batch, members


async def test_a_sample_is_of_the_newest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many a day has: those of the last commits, oldest first, and the columns that occur there."""
    monkeypatch.setattr(catalogue_access, "_SCAN_ROWS_MAX", 10)
    bench = AccessBench()
    await bench.open()
    log = MemoryLog(bench.clock, epoch="e1")
    access = CatalogueAccess(
        SharingRegistries(bench.store, bench.feeds, bench.catalogue, bench.grants),
        FeedServer(LogReader(log, bench.clock)),
        MemoryTrail(),
        bench.clock,
        assigns_codes=True,
        measured=lambda _feed: QualityIndicators(),
    )
    for hour in range(30):
        name = "pm2_5" if hour < 15 else "air_temperature"
        batch = make_batch([(0, name, float(hour))] * 2, start=NOW + hour * HOUR_US)
        await log.write(members(batch))
        await bench.clock.advance(3_600)
    entry = await access.sample(OWNER, "air", 3, Mask(drop=("place",)))
    assert [json.loads(row)["value"] for row in entry.sample] == [28.0, 29.0, 29.0]
    assert [(column.name, column.rows) for column in entry.columns] == [("air_temperature", 10)]
    await bench.clock.advance(24 * 3_600)
    later = await access.sample(OWNER, "air", 3, Mask(drop=("place",)))
    assert (later.sample, later.sampled) == (entry.sample, bench.clock.now()), "a day without data keeps the last one"
