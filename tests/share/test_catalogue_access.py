"""Entries of the catalogue: samples of the newest data through a mask, and the end of an entry with its feed."""

from __future__ import annotations

import asyncio
import json

import pytest

from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US, FakeClock
from sensegate.errors import ConfigError
from sensegate.share import catalogue_access
from sensegate.share.catalogue import CatalogueEntry, QualityIndicators, SharingClass
from sensegate.share.catalogue_access import CatalogueAccess
from sensegate.share.delivery import FeedServer
from sensegate.share.feeds import Feed
from sensegate.share.masks import Mask
from sensegate.share.reader import LogReader
from sensegate.share.registries import SharingRegistries
from tests.share.access_bench import OWNER, AccessBench
from tests.share.made import NOW, access_request, make_batch, members
from tests.support.memory_sharing import sharing_in_memory


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


async def test_a_new_feed_inherits_no_entry_of_a_deleted_one(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process stopped between the two deletions: what was shared with all is not what another owner creates."""
    sharing = sharing_in_memory(LogReader(MemoryLog(clock, epoch="e1"), clock), clock)
    await sharing.create_feed(OWNER, Feed("air", divisions=("4401",)))
    entry = CatalogueEntry("air", sharing=SharingClass.UNCONDITIONAL, level="4401", published=1)
    await sharing.catalogue.records.put("air", entry, expected=0)

    async def stopped(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(sharing.catalogue_access, "remove", stopped)
        with pytest.raises(asyncio.CancelledError):
            await sharing.delete_feed(OWNER, "air", None)
    assert sharing.catalogue.find("air") is not None, "negative control"
    other = Principal("other", Role.CITY_OPERATOR, scope("4403"))
    await sharing.create_feed(other, Feed("air", divisions=("4403",)))
    assert sharing.catalogue.find("air") is None
    assert [entry.published for entry in sharing.catalogue_access.visible(other)] == [0]
    request = access_request({"feeds": ["air"], "purpose": "p", "legal_basis": "l", "days": 30})
    with pytest.raises(ConfigError, match="not published"):
        await sharing.access.apply(other, request)
