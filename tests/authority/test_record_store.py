"""Records in a bucket: what every process has of them, and names that are used again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sensegate import metrics
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.clock import FakeClock, SystemClock
from sensegate.errors import Conflict
from tests.conftest import eventually


class Plan(msgspec.Struct, frozen=True):
    """A record."""

    title: str
    revision: int = 0


async def opened(bucket: MemoryBucket) -> tuple[RecordStore, RecordTable[Plan]]:
    """Return the records of a process that has just started."""
    store = RecordStore(bucket, SystemClock())
    records: RecordTable[Plan] = RecordTable(store, "plan", Plan)
    await store.open()
    return store, records


async def test_a_name_is_free_again_after_a_restart() -> None:
    """The store keeps the mark of an absence for days; a process that never saw the record writes it all the same."""
    bucket = MemoryBucket()
    _, first = await opened(bucket)
    made = await first.put("flood", Plan("Flood"), expected=0)
    await first.delete("flood", expected=made.revision)
    _, second = await opened(bucket)
    assert (await second.put("flood", Plan("Flood again"), expected=0)).title == "Flood again"


async def test_a_new_record_replaces_none() -> None:
    """The control: of a name that is there, by whichever process, nobody makes a new one."""
    bucket = MemoryBucket()
    _, first = await opened(bucket)
    _, second = await opened(bucket)
    made = await first.put("flood", Plan("Flood"), expected=0)
    with pytest.raises(Conflict, match="plan flood was changed meanwhile"):
        await second.put("flood", Plan("Another"), expected=0)
    await first.delete("flood", expected=made.revision)
    with pytest.raises(Conflict):
        await first.put("flood", Plan("As of what is gone"), expected=made.revision)


async def test_what_was_removed_does_not_come_back_late() -> None:
    """A change that was under way when the record was removed here is older than its absence."""
    bucket = MemoryBucket()
    reopened, records = await opened(bucket)
    made = await records.put("flood", Plan("Flood"), expected=0)
    late = await bucket.get("plan/flood")
    assert late is not None
    await records.delete("flood", expected=made.revision)
    await reopened._take(late)
    assert records.find("flood") is None


async def test_what_was_removed_is_forgotten_in_time() -> None:
    """Nothing stays in memory of records that are no more, once the bucket has told so."""
    bucket = MemoryBucket()
    reopened, records = await opened(bucket)
    for number in range(3):
        made = await records.put(f"n{number}", Plan("Flood"), expected=0)
        await records.delete(f"n{number}", expected=made.revision)
    following = asyncio.create_task(reopened.run())
    try:
        await eventually(lambda: not records._revisions)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert len(records) == 0


async def test_a_row_that_cannot_be_read_counts_as_absent() -> None:
    """Garbage in a bucket ends no process: the record is not there, the others are; what is written anew is."""

    class Note(msgspec.Struct, frozen=True):
        text: str
        revision: int = 0

    bucket, clock = MemoryBucket(), FakeClock()
    for key, value in (("note/a", b'{"text":"a"}'), ("note/b", b"{"), ("note/c", b"[" * 100_000), ("note/d", b"\xff")):
        await bucket.put(key, value)
    store = RecordStore(bucket, clock)
    notes = RecordTable(store, "note", Note)
    before = metrics.REGISTRY.get_sample_value("sensegate_log_unreadable_total", {"reader": "note"}) or 0
    await store.open()
    assert notes.names() == ["a"]
    assert metrics.REGISTRY.get_sample_value("sensegate_log_unreadable_total", {"reader": "note"}) == before + 3
    row = await bucket.get("note/b")
    assert row is not None
    await notes.put("b", Note("b"), expected=row.revision)
    assert notes.names() == ["a", "b"]
