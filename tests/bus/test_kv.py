"""Buckets: typed rows with revisions, in order, none left out."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from nats.aio.client import Client

from sensegate.bus.engine import Engine
from sensegate.bus.kv import KvBucket
from sensegate.bus.kv_row import KvRow
from sensegate.errors import Conflict, StoreFull, Unavailable

MIB = 1024**2


@pytest.fixture
async def bucket(gateway: Client) -> KvBucket:
    """An empty bucket of 1 MiB."""
    return await KvBucket.open(gateway, "devices", bytes_max=MIB)


async def test_a_row_is_what_was_put(bucket: KvBucket) -> None:
    """Any text is a key, any bytes a value."""
    revision = await bucket.put("gz/air 1.号", b"\0\xff")
    assert await bucket.get("gz/air 1.号") == KvRow("gz/air 1.号", b"\0\xff", revision)
    assert await bucket.get("other") is None


async def test_a_change_expects_the_revision_it_read(bucket: KvBucket) -> None:
    """Two who change the same row: the second is told, and nothing is overwritten."""
    first = await bucket.put("a", b"1", expected=0)
    with pytest.raises(Conflict):
        await bucket.put("a", b"2", expected=0)
    second = await bucket.put("a", b"2", expected=first)
    with pytest.raises(Conflict):
        await bucket.delete("a", expected=first)
    gone = await bucket.delete("a", expected=second)
    assert await bucket.get("a") is None
    assert await bucket.put("a", b"3", expected=gone) > gone


async def test_load_all_gives_each_present_row_once(bucket: KvBucket) -> None:
    """The newest state of each key, without the deleted ones, and the place from which to watch."""
    for number in range(1100):
        await bucket.put(f"k{number}", b"old")
    for number in range(0, 1100, 100):
        await bucket.put(f"k{number}", b"new")
    last = await bucket.delete("k1")
    rows, revision = await bucket.load_all()
    assert len(rows) == 1099
    assert {row.key for row in rows if row.value == b"new"} == {f"k{number}" for number in range(0, 1100, 100)}
    assert revision == last


async def test_a_watch_sees_changes_of_another_process_within_a_second(engine: Engine, bucket: KvBucket) -> None:
    """Deletions too; the watch goes on from the revision that was loaded."""
    from sensegate.bus.engine import User

    other = await engine.connect(User.GATEWAY, name="another process")
    writer = await KvBucket.open(other, "devices", bytes_max=MIB)
    before = await writer.put("a", b"1")
    results: list[KvRow] = []
    arrived = asyncio.Event()

    async def watch() -> None:
        async for rows in bucket.watch(before):
            results.extend(rows)
            arrived.set()

    task = asyncio.create_task(watch())
    for change in (writer.put("b", b"2"), writer.delete("a")):
        await change
        async with asyncio.timeout(60.0):
            await arrived.wait()
        arrived.clear()
    assert [(row.key, row.value) for row in results] == [("b", b"2"), ("a", None)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await writer.close()
    await bucket.close()
    await other.close()


async def test_a_watch_misses_nothing_while_the_server_is_away(engine: Engine, bucket: KvBucket) -> None:
    """After `kill -9` of the server a watch from the last revision gives what came meanwhile."""
    first = await bucket.put("a", b"1")
    engine.restarted.clear()
    os.kill(engine.info.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await engine.restarted.wait()
        while True:
            try:
                await bucket.put("b", b"2")
                break
            except Unavailable:
                await asyncio.sleep(0.02)
    async with asyncio.timeout(30):
        async for rows in bucket.watch(first):
            assert [row.key for row in rows] == ["b"]
            break
    await bucket.close()


async def test_a_full_bucket_refuses(gateway: Client) -> None:
    """Nothing older is forgotten for the sake of something new."""
    small = await KvBucket.open(gateway, "small", bytes_max=4096)
    for number in range(3):
        await small.put(f"k{number}", b"x" * 1000)
    with pytest.raises(StoreFull):
        await small.put("one too many", b"x" * 1000)
    assert await small.get("k0") is not None
