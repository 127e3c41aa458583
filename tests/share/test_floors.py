"""The catalogue's floors: the least grade of what nodes send, by property and department."""

from __future__ import annotations

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError
from sensegate.share.catalogue import CatalogueEntry, DatasetCatalogue, check_entry
from sensegate.share.feeds import Feed, Feeds
from sensegate.share.floors import GradeFloors


async def test_a_floor_holds_for_the_properties_and_departments_of_its_feed() -> None:
    """The highest of several holds; a feed that names none is about all; a change is seen at once."""
    clock = FakeClock()
    catalogue, feeds = DatasetCatalogue(RecordStore(MemoryBucket(), clock)), Feeds(MemoryBucket(), clock)
    floors = GradeFloors(catalogue, feeds)
    assert floors("pm2_5", "eco") == 1
    for feed in (Feed("air", properties=("pm2_5",), departments=("eco",)), Feed("police", departments=("police",))):
        await feeds._records.put(feed.name, feed, expected=0)
    entry = await catalogue.records.put("air", CatalogueEntry("air", grade_floor=3), expected=0)
    await catalogue.records.put("police", CatalogueEntry("police", grade_floor=2), expected=0)
    await catalogue.records.put("gone", CatalogueEntry("gone", grade_floor=4), expected=0)
    assert [floors("pm2_5", "eco"), floors("pm10", "eco"), floors("pm2_5", "water")] == [3, 1, 1]
    assert floors("pm10", "police") == 2
    await catalogue.records.put("air", CatalogueEntry("air"), expected=entry.revision)
    assert floors("pm2_5", "eco") == 1


async def test_an_entry_of_a_node_sets_no_floor() -> None:
    """A floor applies to the rows of all nodes: none of them raises the grade of another one's."""
    clock = FakeClock()
    catalogue, feeds = DatasetCatalogue(RecordStore(MemoryBucket(), clock)), Feeds(MemoryBucket(), clock)
    floors = GradeFloors(catalogue, feeds)
    for name in ("4403-all", "own"):
        await feeds.create(Feed(name, divisions=("4403",)))
    await catalogue.records.put("4403-all", CatalogueEntry("4403-all", grade_floor=4, origin="4403"), expected=0)
    assert floors("pm2_5", "eco") == 1
    await catalogue.records.put("own", CatalogueEntry("own", grade_floor=2), expected=0)
    assert floors("pm2_5", "eco") == 2, "negative control"


def test_a_floor_is_a_grade() -> None:
    """1 to 4, or 0 for none."""
    check_entry(CatalogueEntry("air", grade_floor=4))
    with pytest.raises(ConfigError, match="grade_floor"):
        check_entry(CatalogueEntry("air", grade_floor=5))
