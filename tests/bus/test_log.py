"""What the log on JetStream has beyond its contract: limits, waiting, loss."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from nats.aio.client import Client

from sensegate.bus import reader
from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.bus.reader import format_timestamp, parse_timestamp
from sensegate.errors import EngineError, Fenced, NotFound, StoreFull, StreamLost, Unavailable
from sensegate.model import LogMessage
from tests.conftest import eventually


def span(number: int, live: int, backlog: int) -> list[LogMessage]:
    """One write of the uplink: readings, ledger, both lanes' records."""
    return [
        LogMessage("readings.4403.all.1", b"r%d" % number, ttl_h=168),
        LogMessage("ledger.4403", b"l%d" % number, ttl_h=720),
        LogMessage("commit.4403.live", b"live %d" % number, rollup=True, expect=live),
        LogMessage("commit.4403.backlog", b"backlog %d" % number, rollup=True, expect=backlog),
    ]


async def test_a_span_is_written_whole_or_not_at_all(log: JetStreamLog) -> None:
    """Batch, lives, rollup and the fences of both lanes hold together."""
    assert await log.write(span(1, 0, 0)) == 4
    assert await log.write(span(2, 3, 4)) == 8
    with pytest.raises(Fenced):
        await log.write(span(3, 7, 4))
    last = await log.last("commit.4403.live")
    assert last is not None
    assert (last.sequence, last.payload) == (7, b"live 2")
    assert await log.last("commit.4403.other") is None
    assert [(entry.sequence, entry.subject) for entry in await log.fetch(0)] == [
        (1, "readings.4403.all.1"),
        (2, "ledger.4403"),
        (5, "readings.4403.all.1"),
        (6, "ledger.4403"),
        (7, "commit.4403.live"),
        (8, "commit.4403.backlog"),
    ]


async def test_a_commit_of_another_connection_wakes_the_reader_at_once(engine: Engine, log: JetStreamLog) -> None:
    """What another connection wrote is noticed without a poll."""
    await log.changed(0, 0.3)  # the tail is up
    waiter = asyncio.create_task(log.changed(0, 600.0))
    await asyncio.sleep(0)
    other = await engine.connect(User.GATEWAY)
    await JetStreamLog(other).write(span(1, 0, 0))
    async with asyncio.timeout(60):
        assert await waiter
    await other.close()


async def test_waiting_outlives_the_server(engine: Engine, gateway: Client, log: JetStreamLog) -> None:
    """The tail is gone with the server; the waiter hears of the next write all the same."""
    assert not await log.changed(0, 0.1)
    engine.restarted.clear()
    os.kill(engine.info.pid, signal.SIGKILL)
    waiter = asyncio.create_task(log.changed(0, 60.0))
    async with asyncio.timeout(60):
        await engine.restarted.wait()
        other = await engine.connect(User.GATEWAY)
        await JetStreamLog(other).write([LogMessage("raw.a", b"1")])
        assert await waiter
    await other.close()


async def test_a_notifying_consumer_that_is_refused_is_made_later(
    log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the log is polled; without a further attempt it would be polled for ever."""
    follower = log._reader
    create, created = follower._create_consumer, asyncio.Event()
    refusals = [EngineError("too many consumers"), StoreFull("no room"), NotFound("no stream")]

    async def refusing(inbox: str) -> None:
        if refusals:
            raise refusals.pop(0)
        await create(inbox)
        created.set()

    monkeypatch.setattr(follower, "_create_consumer", refusing)
    monkeypatch.setattr(reader, "_POLL_S", 0.01)
    await log.changed(0, 0.1)
    async with asyncio.timeout(120):
        await created.wait()


async def test_what_is_too_large_or_too_many_is_refused_before_it_is_sent(log: JetStreamLog) -> None:
    """A member above `payload_bytes_max` would cost the connection, too many members the whole batch."""
    most = log.payload_bytes_max
    assert await log.write([LogMessage("raw.a", b"x" * most, ttl_h=9600, rollup=True, expect=0)]) == 1
    with pytest.raises(EngineError, match="bytes"):
        await log.write([LogMessage("raw.a", b"x" * (most + 1))])
    with pytest.raises(EngineError, match="messages"):
        await log.write([LogMessage("raw.a", b"")] * 10_001)
    assert await log.bounds() == (1, 1)


async def test_a_large_commit_is_one(log: JetStreamLog) -> None:
    """5,000 members, more than the server takes by default."""
    assert await log.write([LogMessage("raw.a", b"x" * 100)] * 5000) == 5000


async def test_a_batch_that_came_in_part_is_lost_and_comes_again(
    gateway: Client, log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was started again in the middle of it, or had waited too long: no bug that ends the process."""
    publish, members = gateway.publish, [LogMessage("raw.a", b"%d" % n) for n in range(4)]
    for dropped in ("1", "2"):

        async def some(*args: Any, dropped: str = dropped, **more: Any) -> None:
            if more["headers"]["Nats-Batch-Sequence"] != dropped:
                await publish(*args, **more)

        with monkeypatch.context() as patched:
            patched.setattr(gateway, "publish", some)
            with pytest.raises(Unavailable, match="incomplete"):
                await log.write(members)
    assert await log.write(members) == 4


async def test_without_room_on_the_disk_nothing_is_sent(gateway: Client, log: JetStreamLog) -> None:
    """A disk that fills up would tear a batch: the log stops before, and goes on when there is room."""
    room = False
    guarded = JetStreamLog(gateway, room=lambda: room)
    with pytest.raises(StoreFull):
        await guarded.write([LogMessage("raw.a", b"1")])
    assert await log.bounds() == (1, 0)
    room = True
    assert await guarded.write([LogMessage("raw.a", b"1")]) == 1


async def test_an_absent_stream_is_lost_not_empty(gateway: Client) -> None:
    """Reading a log that is not there must never look like an empty one."""
    absent = JetStreamLog(gateway, stream="NONE")
    with pytest.raises(Unavailable):
        await absent.last("commit.a")
    with pytest.raises(Unavailable):
        await absent.fetch(0)


async def test_the_epoch_is_the_life_of_the_stream(gateway: Client, log: JetStreamLog) -> None:
    """The same for each reader; cursors of another life are told by it."""
    reopened = JetStreamLog(gateway)
    await reopened.open()
    assert reopened.epoch == log.epoch != ""


async def test_what_is_stored_while_a_time_is_looked_up_is_not_skipped(
    log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit between the answer that there is nothing since a time, and the end of the stream."""
    last = await log.write(span(1, 0, 0))
    (entry,) = await log.fetch(last - 1)
    bounds = log._reader.bounds

    async def overtaken() -> tuple[int, int]:
        monkeypatch.setattr(log._reader, "bounds", bounds)
        await log.write(span(2, last - 1, last))
        return await bounds()

    monkeypatch.setattr(log._reader, "bounds", overtaken)
    assert await log.sequence_at(entry.time + 1) == last + 1
    assert (await log.bounds())[1] == last + 4


def test_stamps_of_the_server_are_microseconds() -> None:
    """Nanoseconds are cut, fractions may be short, and it round-trips."""
    assert parse_timestamp("2026-01-01T00:00:00Z") == 1_767_225_600_000_000
    assert parse_timestamp("2026-01-01T00:00:00.1Z") == 1_767_225_600_100_000
    assert parse_timestamp("2026-01-01T00:00:00.123456789Z") == 1_767_225_600_123_456
    assert parse_timestamp(format_timestamp(1_767_225_600_123_456)) == 1_767_225_600_123_456


async def test_a_server_that_comes_back_without_the_end_ends_the_process(log: JetStreamLog) -> None:
    """What was read last is looked for after each reconnection: gone or another, nothing more is read.

    The control: the same entry is there, or so long ago that it may have expired.
    """
    end = await log.write([LogMessage("readings.4401.all.1", b"1", 168), LogMessage("commit.a", b"c", rollup=True)])
    assert len(await log.fetch(0)) == 2
    assert log._newest is not None
    assert log._newest[0] == end - 1
    log._reconnects -= 1
    assert len(await log.fetch(0)) == 2
    sequence, time, read_at = log._newest
    for newest in ((sequence, time - 1, read_at), (sequence + 9, time, read_at)):
        log._newest, log._reconnects = newest, log._reconnects - 1
        for _ in range(2):
            with pytest.raises(StreamLost, match="lost its end"):
                await log.fetch(0)
        log._reconnects += 1
    await log.write([LogMessage("commit.a", b"d", rollup=True)])
    for read, good in ((read_at, False), (read_at - 4_000, True)):
        log._newest, log._reconnects = (end, time, read), log._reconnects - 1
        if good:
            assert await log.fetch(0)
        else:
            with pytest.raises(StreamLost):
                await log.fetch(0)
            log._reconnects += 1


async def test_what_is_hidden_is_seen_in_the_whole(log: JetStreamLog) -> None:
    """A scrub compares what is stored, not what readers are shown."""
    sequence = await log.write([LogMessage("readings.4401.all.1", b"1", 168)])
    log.hide(frozenset({sequence}))
    assert [entry.payload for entry in await log.fetch(0)] == [b""]
    assert [entry.payload for entry in await log.unfiltered().fetch(0)] == [b"1"]


async def test_a_lost_announcement_is_made_up_for_by_the_next_heartbeat(
    gateway: Client, log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiting reader need not poll the server: each heartbeat has the sequence of the last message announced."""
    monkeypatch.setattr(reader, "_HEARTBEAT_S", 0.2)
    follower = log._reader
    lost: list[int] = []
    await log.changed(0, 0.01)

    async def is_followed() -> bool:
        return follower._is_followed()

    await eventually(is_followed)
    advance = follower.advance

    def losing(sequence: int) -> None:
        if lost:
            advance(sequence)
        lost.append(sequence)

    async def no_answer() -> tuple[int, int]:
        raise Unavailable("asked")

    monkeypatch.setattr(follower, "advance", losing)
    monkeypatch.setattr(follower, "bounds", no_answer)
    end = await JetStreamLog(gateway).write([LogMessage("commit.a", b"c", rollup=True)])
    assert await log.changed(0, 60)
    assert lost[0] == end
