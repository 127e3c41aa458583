"""What every bucket must do: the durable one and the one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from sensegate.authority.bucket import Bucket, MemoryBucket
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import KvBucket as DurableBucket
from sensegate.bus.kv_row import KvRow, KvWrite
from sensegate.errors import Conflict

KEYS = ["a", "空气.*>", "x y/z", "~", ""]


@pytest.fixture
def memory() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
async def durable(engine: Engine) -> AsyncIterator[DurableBucket]:
    nc = await engine.connect(User.GATEWAY)
    made = await DurableBucket.open(nc, "contract", bytes_max=1_000_000)
    yield made
    await made.close()
    await nc.close()


@pytest.fixture(params=["memory", pytest.param("durable", marks=pytest.mark.live)])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """An empty bucket of each kind."""
    made: Bucket = request.getfixturevalue(request.param)
    return made


async def test_what_is_put_is_got(bucket: Bucket) -> None:
    """Whatever the characters of the key, the empty value too; revisions rise."""
    revisions = [await bucket.put(key, key.encode()) for key in KEYS]
    assert revisions == sorted(set(revisions))
    for key, revision in zip(KEYS, revisions, strict=True):
        assert await bucket.get(key) == KvRow(key, key.encode(), revision)
    assert await bucket.get("nobody") is None


async def test_an_expectation_is_kept(bucket: Bucket) -> None:
    """Only the present revision may be replaced; 0 means that it must not be there."""
    first = await bucket.put("a", b"1", expected=0)
    with pytest.raises(Conflict):
        await bucket.put("a", b"2", expected=0)
    await bucket.put("other", b"x")
    second = await bucket.put("a", b"2", expected=first)
    with pytest.raises(Conflict):
        await bucket.put("a", b"3", expected=first)
    with pytest.raises(Conflict):
        await bucket.delete("a", expected=first)
    assert await bucket.get("a") == KvRow("a", b"2", second)


async def test_several_are_put_together_or_not_at_all(bucket: Bucket) -> None:
    """Each has its own expectation; one that is not met keeps all of them out."""
    first = await bucket.put("a", b"1")
    gone = await bucket.delete("b", expected=await bucket.put("b", b"1"))
    writes = [KvWrite("a", b"2", first), KvWrite("空气.*>", b"new", 0), KvWrite("b", b"back", gone)]
    with pytest.raises(Conflict):
        await bucket.put_all([*writes, KvWrite("a2", b"x", 7)])
    assert [row.key for row in (await bucket.load_all())[0]] == ["a"]
    revisions = await bucket.put_all(writes)
    rows = [KvRow(write.key, write.value, revision) for write, revision in zip(writes, revisions, strict=True)]
    assert (await bucket.load_all())[0] == rows
    assert await bucket.put_all([]) == []
    assert await bucket.put("a", b"3", expected=revisions[0]) > revisions[-1]


async def test_what_is_deleted_is_gone(bucket: Bucket) -> None:
    """It can be made again as of the revision of its absence."""
    await bucket.put("a", b"1")
    assert await bucket.tombstone_revision("a") == 0
    gone = await bucket.delete("a")
    assert await bucket.get("a") is None
    assert await bucket.tombstone_revision("a") == gone
    assert await bucket.tombstone_revision("b") == 0
    assert (await bucket.load_all())[0] == []
    repeated = await bucket.put("a", b"2", expected=gone)
    assert await bucket.get("a") == KvRow("a", b"2", repeated)


async def test_load_all_and_watch_leave_no_gap(bucket: Bucket) -> None:
    """The newest state of every key in order of revision, then each change after it, deletions too."""
    for key in ("a", "b", "c", "a"):
        await bucket.put(key, key.encode())
    await bucket.delete("b")
    rows, after = await bucket.load_all()
    assert [row.key for row in rows] == ["c", "a"]
    await bucket.put("d", b"d")
    await bucket.delete("c")
    results: list[tuple[str, bytes | None]] = []

    async def watch() -> None:
        async with aclosing(bucket.watch(after)) as changes:  # type: ignore[type-var]
            async for changed in changes:
                results.extend((row.key, row.value) for row in changed)
                if len(results) >= 3:
                    return

    watching = asyncio.create_task(watch())
    await bucket.put("e", b"e")
    await asyncio.wait_for(watching, 30)
    assert results == [("d", b"d"), ("c", None), ("e", b"e")]


async def test_a_change_is_seen_within_a_second(bucket: Bucket) -> None:
    """Also by a watcher that has been waiting."""
    _, after = await bucket.load_all()
    changes = bucket.watch(after)
    first = asyncio.ensure_future(anext(changes))
    await asyncio.wait({first}, timeout=0.1)
    assert not first.done()
    await bucket.put("a", b"1")
    assert [row.key for row in await asyncio.wait_for(first, 30)] == ["a"]
    await changes.aclose()  # type: ignore[attr-defined]
