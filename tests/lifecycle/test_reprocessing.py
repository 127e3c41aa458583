"""Messages decoded again: whatever is lost on the way, and however often it dies, each is revised once."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.commit_records import decode_commit
from sensegate.clock import SystemClock
from sensegate.errors import Unavailable
from sensegate.lifecycle import reprocessing_orders, reprocessing_source
from sensegate.lifecycle.opening import (
    ProfileLifecycle,
)
from sensegate.lifecycle.reprocessing_orders import OrderState, ReprocessingOrders
from sensegate.model import LogMessage, Message
from sensegate.persist import commit, previous_readings
from sensegate.persist.commit import CommitLimits
from tests.conftest import eventually
from tests.support.reprocessing_node import ADMIN, FIRST, NAMES, NOW, ROUNDS, Node


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose deliveries are so small that an order takes many commits."""
    monkeypatch.setattr(reprocessing_source, "DELIVERY_MESSAGES_MAX", 7)
    return Node(tmp_path)


def expected(scale: float, revision: int, before: float = 0.1) -> dict[tuple[str, int], list[tuple[int, float]]]:
    """Return a history that was read by one scale and then revised to another."""
    result = {}
    for name in NAMES:
        for at in range(ROUNDS):
            first = [(0, round((200 + at) * before, 6))]
            result[name, at] = first + ([(revision, round((200 + at) * scale, 6))] if revision else [])
    return result


FAULTS = [
    pytest.param({}, id="nothing happens"),
    pytest.param({2: "lost", 5: "lost"}, id="writes are lost"),
    pytest.param({1: "answer lost", 4: "answer lost"}, id="answers are lost"),
    pytest.param({3: "fenced", 9: "fenced"}, id="another worker"),
    pytest.param({2: "answer lost", 3: "fenced", 7: "lost", 11: "answer lost"}, id="all of it"),
    pytest.param({26: "fenced"}, id="the very last"),
]


@pytest.mark.slow
@pytest.mark.parametrize("faults", FAULTS)
async def test_each_message_is_revised_once(node: Node, faults: dict[int, str]) -> None:
    """Whatever ends a life of the ingest: one revision each, the ledger explains it, a second order finds all equal."""
    async with node.alive():
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        node.log.arm(faults)
        order = await node.done(await node.order())
        assert order.state is OrderState.DONE, order.problem
        assert await node.history() == expected(0.01, 1)
        count = len(NAMES) * ROUNDS
        kinds = ("redecoded", "reread", "values", "accepted", "revised", "late")
        assert order.counts == dict.fromkeys(kinds, count)
        second = await node.done(await node.order())
        assert second.counts["equal"] == count
        assert await node.history() == expected(0.01, 1)
        assert (await node.ledger())["messages"] == count


@pytest.mark.parametrize("kills", [1, 4])
async def test_killed_at_any_commit_it_goes_on(node: Node, kills: int) -> None:
    """The process dies between any two of its commits, again and again; the next life goes on where it stood."""
    async with node.alive():
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        order = await node.order()
    lives = 0
    while order.state is not OrderState.DONE:
        lives += 1
        assert lives < 100
        async with node.alive() as process:
            node.log.arm({})

            def died_or_done(lifecycle: ProfileLifecycle = process, source: str = order.id) -> bool:
                return node.log.writes >= kills or lifecycle.orders.get(source, ADMIN).state is OrderState.DONE

            await eventually(died_or_done, every_s=0.001)
            order = process.orders.get(order.id, ADMIN)
    assert lives > 2
    assert await node.history() == expected(0.01, 1)
    assert order.counts["revised"] == len(NAMES) * ROUNDS
    last = await node.log.last("commit.4401-0")
    assert last is not None
    assert list(decode_commit(last.payload).positions) == ["mqtt", order.source]


async def test_there_and_back_again(node: Node) -> None:
    """What is in force in the end is what the history ends with, though an older revision said the same."""
    async with node.alive() as process:
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        await node.done(await node.order())
        await process.releases.rollback("acme/th", by=ADMIN)
        assert await process.rollout.wait_in_force()
        back = await node.done(await node.order())
        assert back.counts["revised"] == len(NAMES) * ROUNDS
        await node.released(3, 0.01)
        forth = await node.done(await node.order())
        assert forth.counts["revised"] == len(NAMES) * ROUNDS
        history = await node.history()
        assert {tuple(revision for revision, _ in rows) for rows in history.values()} == {(0, 1, 2, 3)}
        assert all(rows[0] == (0, rows[2][1]) and rows[1][1] == rows[3][1] for rows in history.values())
        repeated = await node.done(await node.order())
        assert "revised" not in repeated.counts


async def test_live_messages_meanwhile(node: Node) -> None:
    """What comes during a redecode is read as ever; what was redecoded is known to it: sent again it is a duplicate."""
    async with node.alive():
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        order = await node.order()
        await node.spoken(ROUNDS, 20)
        await node.done(order)
        await node.spoken(0, ROUNDS)
        history = await node.history()
        for (_, at), rows in history.items():
            value = round((200 + at) * 0.01, 6)
            assert rows[-1] == ((1, value) if at < ROUNDS else (0, value))
            assert len(rows) == (2 if at < ROUNDS else 1)
        totals = await node.ledger()
        assert totals["duplicate.redelivery"] == len(NAMES) * ROUNDS
        assert totals["messages"] == len(NAMES) * (ROUNDS + 20 + ROUNDS)


async def test_only_what_is_meant(node: Node) -> None:
    """Of the devices named, in the target, of the profile: the others stay as they were."""
    async with node.alive():
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        order = await node.done(await node.order(devices=("d1", "d3")))
        assert order.counts["redecoded"] == 2 * ROUNDS
        revised = {name for (name, _), rows in (await node.history()).items() if len(rows) == 2}
        assert revised == {"d1", "d3"}


async def test_an_order_that_is_given_up(node: Node) -> None:
    """What was committed of it stays; the next one does the rest and no more."""
    async with node.alive() as process:
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        node.log.arm({})
        order = await node.order()
        await eventually(lambda: node.log.writes >= 3, every_s=0.001)
        assert (await process.orders.cancel(order.id, by=ADMIN)).state is OrderState.CANCELLED
        rest = await node.done(await node.order())
        assert 0 < rest.counts["equal"] < len(NAMES) * ROUNDS
        assert await node.history() == expected(0.01, 1)


async def test_more_than_memory_allows_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a single reading is written, and the order says what to do."""
    monkeypatch.setattr(previous_readings, "VALUES_MAX", 100)
    async with node.alive():
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        order = await node.done(await node.order())
        assert order.state is OrderState.FAILED
        assert (
            "more than 100 readings of these devices in this period; select fewer devices or less time" in order.problem
        )
        assert await node.history() == expected(0.1, 0)
        narrow = await node.done(await node.order(devices=("d1",)))
        assert narrow.counts["revised"] == ROUNDS


async def test_an_order_that_another_gateway_cancels_at_the_same_time(tmp_path: Path) -> None:
    """Neither its beginning nor its end is an error of the ingest, which would end the gateway."""
    bucket, trail, clock = MemoryBucket(), MemoryTrail(), SystemClock()
    node = Node(tmp_path)
    async with node.alive():
        order = await node.order()
    here, there = (ReprocessingOrders(bucket, trail, clock) for _ in range(2))
    await there.load()
    order = await there.order(msgspec.structs.replace(order, revision=0), by=ADMIN)
    await here.load()
    watch = asyncio.create_task(here.watch())
    await there.cancel(order.id, by=ADMIN)
    assert here.is_open(order.id), "it has not heard of it"
    assert not await here.begin(order)
    assert not here.is_open(order.id)
    other = await there.order(msgspec.structs.replace(order, revision=0, state=OrderState.WAITING), by=ADMIN)
    await eventually(lambda: here.is_open(other.id))
    await there.cancel(other.id, by=ADMIN)
    await here.finish(other, {}, by=ADMIN)
    assert here.get(other.id, ADMIN).state is OrderState.CANCELLED
    watch.cancel()


async def test_live_messages_never_suffer_from_an_order_too_large(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they bring its readings above the limit, the order fails; none of them is taken for a poison message."""
    monkeypatch.setattr(previous_readings, "VALUES_MAX", len(NAMES) * ROUNDS)
    async with node.alive():
        await node.enrol()
        await node.spoken()
        node.log.arm({})
        order = await node.order()
        await eventually(lambda: node.log.writes >= 3, every_s=0.001)
        live = Message(f"acme/{NAMES[0]}/up", b'{"t": 300, "at": %d}' % (FIRST + 60 * ROUNDS), NOW, 0)
        node.source.give([live])
        await eventually(lambda: node.source.acknowledged == len(node.source.messages))
        totals = await node.ledger()
        assert totals["messages"] == totals["decoded"] == len(NAMES) * ROUNDS + 1
        order = await node.done(order)
        assert order.state is OrderState.FAILED
        assert "select fewer devices or less time" in order.problem


async def test_messages_too_large_for_one_commit_are_revised_like_others(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of a delivery that takes several commits are recorded messages, too: revised, not received again."""
    async with node.alive():
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
    monkeypatch.setattr(commit, "CommitLimits", partial(CommitLimits, commit_bytes_max=100))
    async with node.alive():
        order = await node.done(await node.order())
        assert order.counts["revised"] == len(NAMES) * ROUNDS
        assert await node.history() == expected(0.01, 1)
        assert (await node.ledger())["messages"] == len(NAMES) * ROUNDS


async def test_one_that_never_ends_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that takes the ingest down each time is failed in the end, and messages are read as ever."""
    monkeypatch.setattr(reprocessing_orders, "ATTEMPTS_MAX", 3)

    def broken(*_args: object, **_more: object) -> None:
        raise Unavailable("as a bug would")

    async with node.alive():
        await node.enrol()
        await node.spoken()
        monkeypatch.setattr(previous_readings.PreviousReadings, "add", broken)
        order = await node.done(await node.order())
        assert (order.state, order.attempts) == (OrderState.FAILED, 3)
        assert "started 3 times without an end" in order.problem
        await node.spoken(ROUNDS, 2)


async def test_what_cannot_be_read_is_passed(node: Node) -> None:
    """A damaged member of the log ends nothing; what it held counts as new where it is decoded again."""
    async with node.alive():
        await node.enrol()
        await node.log.write(
            [LogMessage("readings.4401.440106.1", b"damaged"), LogMessage("ledger.4401-0", b"damaged")]
        )
        await node.spoken()
        order = await node.order()
        await node.log.write(
            [LogMessage("readings.4401.440106.1", b"damaged"), LogMessage("ledger.4401-0", b"damaged")]
        )
        done = await node.done(order)
        assert done.counts["equal"] == len(NAMES) * ROUNDS
