"""The uplink: lanes, pace, fences; negative controls; two real engines with a cut link."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sensegate.bus import streams
from sensegate.bus.connect import Login, connect
from sensegate.bus.engine import Engine, User
from sensegate.bus.ledger import Ledger
from sensegate.bus.log import JetStreamLog
from sensegate.bus.memory import MemoryLog
from sensegate.bus.server_conf import NodeSlots
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import SystemClock
from sensegate.config import EngineConfig, StoreConfig, UplinkConfig
from sensegate.demo.link import FaultyLink
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.model import LogMessage, SheddingRule
from sensegate.quantities.quality import Flag
from sensegate.tiers import lanes, uplink
from sensegate.tiers.exchange import Exchange, LaneState
from sensegate.tiers.judging import Judge
from sensegate.tiers.link import CentreLink, NodeLinks
from sensegate.tiers.protocol import Lane, LaneUpdate, SpanOutcome, decode_span_answer
from sensegate.tiers.receiver import Receiver
from sensegate.tiers.uplink import Uplink
from sensegate.tiers.uplink_accounting import UplinkAccounting
from sensegate.tiers.verdict import MemberFacts, Rules
from sensegate.tiers.writers import Claimant
from tests.conftest import eventually
from tests.tiers.made import NODE, MemoryKeeper, Node, Owners, check, drive, rows_of
from tests.tiers.world import World

MIB = 1024**2


async def test_idle_readings_go_at_once(world: World) -> None:
    """Without load a commit is forwarded without waiting for company."""
    await world.node.commit([(0, 1)])
    before = world.clock.now()
    assert await world.uplink.forward_live()
    assert world.clock.now() == before
    assert len((await rows_of(world.centre.log)).ids) == 1


async def test_under_load_a_span_takes_up_to_a_second(world: World) -> None:
    """Full spans make the next one wait for `span_ms`, so that many commits share one message."""
    await world.node.commit([(0, 1_500)])
    assert await world.live()
    for _ in range(3):
        await world.node.commit([(0, 10)])
    before = world.clock.monotonic()
    assert await world.live()
    assert 0.9 <= world.clock.monotonic() - before <= 1.1
    subjects = [entry.subject for entry in await world.centre.log.fetch(0)]
    assert subjects.count("readings.4401.all.1") == 2


@pytest.mark.parametrize(
    ("rows", "since_s", "gap_s"),
    [(10, 0.1, 0.1), (500, 1.0, 0.5), (1_000, 1.0, 1.0), (5_000, 1.0, 0.2), (90_000, 1.0, 0.1)],
)
def test_the_wait_follows_the_load(world: World, rows: int, since_s: float, gap_s: float) -> None:
    """Little when idle, up to `span_ms` where that fills a span, and no longer than filling it takes."""
    world.uplink._pace(rows, since_s)
    assert world.uplink._gap_s == pytest.approx(gap_s)


async def test_what_waited_goes_beside_the_live_lane(world: World) -> None:
    """After a cut the first write opens the range; live readings pass before a single row of the backlog."""
    for _ in range(5):
        await world.node.commit([(0, 3)])
        await world.clock.advance(10)
    await world.node.commit([(1, 1)])
    assert await world.live()  # opens
    assert await world.live()
    rows = await rows_of(world.centre.log)
    assert [rows.flags[name] & Flag.BACKLOG for name in rows.ids] == [0]
    assert world.uplink.ranges
    await world.drain()
    assert world.uplink.ranges == ()
    rows = await rows_of(world.centre.log)
    assert sum(1 for name in rows.ids if rows.flags[name] & Flag.BACKLOG) == 15
    await check(world.node, world.centre.log)


async def test_after_a_cut_one_range_is_opened_however_slow_the_link(world: World) -> None:
    """The entry after a range grows old during the write that opens it: the live lane forwards it all the same."""
    await world.node.commit([(0, 3)])
    await world.clock.advance(30)
    for _ in range(20):
        await world.node.commit([(1, 1)])
        await world.clock.advance(0.1)
    opened: set[tuple[int, int]] = set()
    for _ in range(4):
        assert await world.live()
        opened.update(world.uplink.ranges)
        await world.node.commit([(1, 1)])
        await world.clock.advance(0.15)
    rows = await rows_of(world.centre.log)
    assert [name for name in rows.ids if not rows.flags[name] & Flag.BACKLOG], "nothing was forwarded live"
    assert len(opened) == 1
    await world.drain()
    await check(world.node, world.centre.log)


async def test_a_range_is_opened_in_one_write_with_the_live_position(world: World) -> None:
    """An opening whose answer is lost is known afterwards from the records alone, whichever way it went."""
    for fault in ("before", "after", "late"):
        await world.node.commit([(0, 3)])
        await world.clock.advance(30)
        world.centre.fault = fault
        with pytest.raises(Unavailable):
            await world.live()
        await world.centre.land()
        world.uplink = world.fresh()
        await world.drain()
        await check(world.node, world.centre.log)


# ── what mode orders keep back ──────────────────────────────────────────────────────────────────────────

ORDER = SheddingRule("", "", frozenset({"air_temperature"}))
"""Of everywhere: the made readings stand at no place."""


async def withheld(world: World) -> tuple[int, int, int]:
    """Return (forwarded, withheld by mode orders, rows at the centre)."""
    totals = world.uplink.totals
    return totals.get("forwarded", 0), totals.get("withheld.mode", 0), len((await rows_of(world.centre.log)).ids)


async def test_what_a_mode_order_kept_back_comes_up_after_it(world: World) -> None:
    """Once, by the backlog lane, alarms apart, which were never kept; the ledger's words balance before and after."""
    await world.node.commit([(0, 2)])
    await world.drain()
    world.shed = [ORDER]
    for _ in range(4):
        await world.node.commit([(0, 3), (2, 1)])  # of the grade of the second nothing goes up at any time
        await world.drain()
    await world.node.commit([(1, 1)], alarm=True)
    await world.drain()
    assert await withheld(world) == (3, 12, 3)
    assert len(world.record(Lane.LIVE).withheld) == 1, "one part, however many spans"
    world.shed = []
    await world.node.commit([(0, 1)])
    await world.drain()
    assert await withheld(world) == (16, 0, 16)
    rows = await rows_of(world.centre.log)
    assert sum(1 for name in rows.ids if rows.flags[name] & Flag.BACKLOG) == 12
    await check(world.node, world.centre.log)
    records = [world.record(lane) for lane in Lane]
    assert [record.withheld for record in records] == [(), ()]
    assert world.uplink.totals["withheld.grade"] == 4
    before = await subjects_of(world.centre.log)
    world.uplink = world.fresh()
    await world.drain()
    assert await subjects_of(world.centre.log) == before, "nothing comes a second time"


async def subjects_of(log: MemoryLog) -> list[str]:
    """Return the subjects of what spans wrote, without their records."""
    subjects = [entry.subject for entry in await log.fetch(0, limit=10_000)]
    return [subject for subject in subjects if not subject.startswith(("commit.", "displaced."))]


async def test_it_waits_while_another_order_keeps_the_same(world: World) -> None:
    """Orders that overlap: what one kept back comes up when none holds it any more."""
    world.shed = [ORDER]
    await world.node.commit([(0, 3)])
    await world.drain()
    world.shed = [SheddingRule("4401", "fire", frozenset({"air_temperature", "illuminance"}))]
    await world.node.commit([(0, 1)])
    await world.drain()
    assert await withheld(world) == (1, 3, 1), "that other place is not ours; but it lies in what was kept"
    world.shed = [SheddingRule("", "", frozenset({"illuminance"}))]
    await world.drain()
    assert await withheld(world) == (4, 0, 4), "another property holds nothing of it"
    await check(world.node, world.centre.log)


async def test_a_range_of_the_backlog_keeps_back_too(world: World) -> None:
    """What waited through a cut and comes while an order holds: kept back, and brought up after it."""
    for _ in range(3):
        await world.node.commit([(0, 3)])
        await world.clock.advance(10)
    world.shed = [ORDER]
    await world.node.commit([(1, 1)])
    await world.drain()
    assert await withheld(world) == (0, 10, 0)
    world.shed = []
    await world.node.commit([(1, 1)])
    await world.drain()
    assert await withheld(world) == (11, 0, 11)
    await check(world.node, world.centre.log)


@pytest.mark.parametrize("fault", ["before", "after", "late"])
async def test_each_write_of_it_is_made_once(world: World, fault: str) -> None:
    """A new process, and an answer lost, at every step of an order's life."""
    for turn in range(8):
        world.shed = [ORDER] if turn % 4 in {1, 2} else []
        await world.node.commit([(0, 3), (1, 2)])
        for _ in range(6):
            world.centre.fault = fault
            for step in (world.uplink.forward_live, world.uplink.forward_backlog):
                with contextlib.suppress(Unavailable):
                    await drive(world.clock, step())
            await world.centre.land()
            world.uplink = world.fresh()
        world.centre.fault = ""
    world.shed = []
    await world.drain()
    forwarded, kept, rows = await withheld(world)
    assert (forwarded, kept, rows) == (40, 0, 40)
    await check(world.node, world.centre.log)


PLACES = (
    ORDER,
    SheddingRule("4401", "", frozenset({"air_temperature"})),
    SheddingRule("", "", frozenset({"illuminance"})),
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
async def test_orders_cuts_and_kills_in_any_order(seed: int) -> None:
    """Orders come and go, answers are lost, processes end, old parts become ranges: in the end all is up, once."""
    dice = random.Random(seed)
    world = World()
    total = 0
    for _ in range(60):
        match dice.choice(("commit", "commit", "alarm", "order", "live", "live", "backlog", "fault", "kill", "wait")):
            case "commit":
                await world.node.commit([(0, rows := dice.randrange(1, 5)), (2, 1)])
                total += rows
            case "alarm":
                await world.node.commit([(1, 1)], alarm=True)
                total += 1
            case "order":
                world.shed = dice.sample(PLACES, dice.randrange(3))
            case "fault":
                world.centre.fault = dice.choice(("before", "after", "late"))
            case "kill":
                world.uplink = world.fresh()
            case "wait":
                await world.clock.advance(dice.choice((1, 30)))
            case step:
                with contextlib.suppress(Unavailable):
                    await drive(world.clock, getattr(world.uplink, f"forward_{step}")())
                if dice.random() < 0.5:
                    await world.centre.land()
    world.shed, world.centre.fault = [], ""
    await world.centre.land()
    world.uplink = world.fresh()
    await world.drain()
    forwarded, kept, rows = await withheld(world)
    assert (forwarded, kept, rows) == (total, 0, total)
    await check(world.node, world.centre.log)


@pytest.mark.parametrize(("hole", "message"), [("forgotten", "lost"), ("released twice", "doubled")])
async def test_planted_holes_are_found(world: World, monkeypatch: pytest.MonkeyPatch, hole: str, message: str) -> None:
    """A part that is not named in the record is lost; one that the live lane keeps when it gives it is doubled."""
    if hole == "forgotten":
        monkeypatch.setattr(Uplink, "_withheld_after", lambda *_: ())
    else:
        given = Uplink._lane_update

        def keeps(self: Uplink, lane: Lane, state: LaneState, **more: Any) -> LaneUpdate:
            if lane is Lane.LIVE and "position" not in more:
                more["withheld"] = state.record.withheld
            return given(self, lane, state, **more)

        monkeypatch.setattr(Uplink, "_lane_update", keeps)
    world.shed = [ORDER]
    await world.node.commit([(0, 3)])
    await world.drain()
    world.shed = []
    for _ in range(4):
        await world.live()
        await drive(world.clock, world.uplink.forward_backlog())
    with pytest.raises(AssertionError, match=message):
        await check(world.node, world.centre.log)


async def test_more_parts_than_can_be_named_keep_nothing_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather all goes up than that something would never."""
    monkeypatch.setattr(uplink, "WITHHELD_MAX", 2)
    for number in range(4):
        world.shed = [ORDER] if number % 2 else [ORDER, SheddingRule("x", "", frozenset({"y"}))]
        await world.node.commit([(0, 1)])
        await world.drain()
    assert await withheld(world) == (2, 2, 2)
    world.shed = []
    await world.drain()
    assert await withheld(world) == (4, 0, 4)


async def test_the_node_tells_what_came_up_afterwards(world: World) -> None:
    """Its own ledger: withheld falls by what is forwarded now; a count that is short for a while moves nothing."""
    carried = UplinkAccounting(NODE, world.node.log, lambda: world.uplink.totals, world.clock, ttl_h=1)
    world.shed = [ORDER]
    await world.node.commit([(0, 3)])
    await world.drain()
    await carried.record()
    assert await ledger_totals(world) == {"withheld.mode": 3}
    world.shed = []
    await world.drain()
    held = world.uplink._exchange.lanes
    live = held.pop(Lane.LIVE)
    await carried.record()
    assert await ledger_totals(world) == {"forwarded": 3}
    held[Lane.LIVE] = live
    await carried.record()
    held.clear()
    await carried.record()
    assert await ledger_totals(world) == {"forwarded": 3}


async def ledger_totals(world: World) -> dict[str, int]:
    """Return what the node's own ledger says of it."""
    ledger = Ledger()
    for entry in await world.node.log.fetch(0, limit=10_000):
        if entry.subject.startswith("carried."):
            ledger.merge(Ledger.decode(entry.payload))
    return ledger.totals()


async def test_an_uplink_that_was_replaced_writes_nothing(world: World) -> None:
    """Two processes of one store: the first writes nothing more, and is refused while the other lives."""
    await world.node.commit([(0, 1)])
    await world.live()
    other = world.fresh()
    await world.node.commit([(0, 1)])
    assert await drive(world.clock, other.forward_live())
    world.centre.alive.add(other._claimant.writer.token)
    await world.node.commit([(0, 1)])
    with pytest.raises(Unavailable, match="another writer"):
        await world.live()
    with pytest.raises(PermissionDenied, match="another process of this node is running"):
        await world.live()
    assert "another process" in world.uplink.problems[0]
    assert await drive(world.clock, other.forward_live())
    await check(world.node, world.centre.log)


async def test_a_late_write_of_our_own_is_no_fence(world: World) -> None:
    """A span that was given up and lands afterwards is found in the records, and gone on from."""
    await world.node.commit([(0, 1)])
    world.centre.fault = "late"
    with pytest.raises(Unavailable):
        await world.live()
    await world.uplink._exchange.lane(Lane.LIVE)  # asked again before it lands
    await world.centre.land()
    assert await world.live()
    await world.drain()
    await check(world.node, world.centre.log)


async def test_a_span_that_is_sent_twice_is_taken_once(world: World) -> None:
    """The same request once more is answered as taken, and writes nothing."""
    await world.node.commit([(0, 3)])
    await world.drain()
    end = (await world.centre.log.bounds())[1]
    answer = decode_span_answer(await world.centre.send_span("live", world.centre.sent[-1]))
    assert answer.outcome is SpanOutcome.ACCEPTED
    assert (await world.centre.log.bounds())[1] == end


async def test_no_answer_while_the_outcome_is_not_known(world: World) -> None:
    """A centre whose own write ended in doubt answers nothing; what it wrote is found, and taken once."""
    await world.node.commit([(0, 3)])
    world.centre.fault = "unsure"
    with pytest.raises(Unavailable):
        await world.live()
    await world.drain()
    await check(world.node, world.centre.log)


async def test_a_new_log_of_the_node_begins_anew(world: World) -> None:
    """Sequences of another life mean nothing: the lanes start at its beginning; the lost store does not come back."""
    await world.node.commit([(0, 4)])
    await world.drain()
    other = Node(MemoryLog(world.clock, epoch="another"), world.clock)
    await other.commit([(0, 2)])
    uplink = world.fresh(keeper=MemoryKeeper(), log=other.log)
    assert await drive(world.clock, uplink.forward_live())
    assert len((await rows_of(world.centre.log)).ids) == 6
    world.uplink = world.fresh()
    with pytest.raises(PermissionDenied, match="another store has replaced this one"):
        await world.live()


async def test_totals_are_those_of_the_centre(world: World) -> None:
    """Committed = forwarded + withheld, also for an uplink that has just been started."""
    await world.node.commit([(0, 4), (2, 3)])
    await world.drain()
    world.uplink = world.fresh()
    assert not await world.live()
    totals = world.uplink.totals
    assert (totals["accepted"], totals["forwarded"], totals["withheld.grade"]) == (7, 4, 3)


async def test_a_commit_record_that_cannot_be_read_stops_no_lane(world: World) -> None:
    """What expired is not counted by it; what comes later goes up."""
    await world.node.commit([(0, 2)])
    await world.node.log.write([LogMessage(f"commit.{NODE}-0", b"damaged", rollup=True)])
    await world.drain()
    await world.node.log.write([LogMessage("seen.x", b"")])
    await world.drain()
    assert len((await rows_of(world.centre.log)).ids) == 2


async def test_what_expired_before_it_could_go_up_is_counted_once(world: World) -> None:
    """A cut longer than the life of readings: what went is named a loss, in the ledgers of both sides, whoever asks."""
    await world.node.commit([(0, 5)])
    await world.clock.advance(169 * 3_600)
    await world.node.commit([(0, 2), (2, 3)])
    await world.drain()
    for _ in range(2):
        totals = world.uplink.totals
        assert (totals["forwarded"], totals["withheld.grade"], totals["withheld.expired"]) == (2, 3, 5)
        ledger = Ledger()
        for entry in await world.centre.log.fetch(0):
            if entry.subject == f"ledger.{NODE}":
                ledger.merge(Ledger.decode(entry.payload))
        assert ledger.totals()["withheld.expired"] == 5
        world.uplink = world.fresh()
        await world.drain()


async def test_a_log_that_has_lost_its_end_goes_up_all_the_same(world: World) -> None:
    """The centre has more of the node's log than the node: what is new is forwarded, under places of its own."""
    await world.node.commit([(0, 2)])
    older = world.node.log.copy()  # type: ignore[attr-defined]
    await world.node.commit([(0, 3)])
    await world.drain()
    reached = (await world.node.log.bounds())[1]
    world.node.log, began = older, (await older.bounds())[1]
    world.uplink = world.fresh(began=began, log=older)
    await world.drain()
    assert (await older.bounds())[1] >= reached
    await world.node.commit([(0, 4)])
    await world.drain()
    rows = await rows_of(world.centre.log)
    assert len(rows.ids) == len(set(rows.ids)) == 9


async def test_control_a_lost_end_that_is_not_looked_for(world: World) -> None:
    """Negative control: without knowing how the log began, what is new stays below the place of the lane, for ever."""
    await world.node.commit([(0, 2)])
    older = world.node.log.copy()  # type: ignore[attr-defined]
    await world.node.commit([(0, 3)])
    await world.node.commit([(0, 3)])
    await world.drain()
    world.node.log = older
    world.uplink = world.fresh(log=older)
    await world.node.commit([(0, 4)])
    await world.drain()
    assert len((await rows_of(world.centre.log)).ids) == 8


async def test_control_without_the_fence_readings_are_doubled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the same faults with fence and numbers removed double readings at the centre."""
    written = world.centre.log.write

    async def unfenced(members: list[LogMessage]) -> int:
        return await written([LogMessage(m.subject, m.payload, m.ttl_h, m.rollup) for m in members])

    monkeypatch.setattr(world.centre.log, "write", unfenced)
    monkeypatch.setattr(lanes, "is_stale", lambda *_: False)
    monkeypatch.setattr(lanes, "_check", lambda *_: None)
    await world.node.commit([(0, 2)])
    world.centre.fault = "late"
    with pytest.raises(Unavailable):
        await world.live()
    await world.drain()
    await world.centre.land()
    with pytest.raises(AssertionError, match="doubled"):
        await check(world.node, world.centre.log)


async def test_control_with_the_position_apart_readings_are_lost(world: World) -> None:
    """Negative control: a position that moves although its readings were not written loses them."""
    written = world.centre.log.write

    async def apart(members: list[LogMessage]) -> int:
        if members[0].subject.startswith("readings."):
            await written(members[-1:])
            raise Unavailable("between the two")
        return await written(members)

    world.centre.log.write = apart  # type: ignore[assignment, method-assign]
    await world.node.commit([(0, 2)])
    with pytest.raises(Unavailable):
        await world.live()
    world.centre.log.write = written  # type: ignore[method-assign]
    await world.drain()
    with pytest.raises(AssertionError, match="lost"):
        await check(world.node, world.centre.log)


# ── two engines ──────────────────────────────────────────────────────────────────────────────────────────


class Tiers:
    """A node's log and the centre's, on two engines, with a link that can be cut."""

    def __init__(self, node_log: JetStreamLog, centre_log: JetStreamLog, up: CentreLink, link: FaultyLink) -> None:
        self.node = Node(node_log, SystemClock())
        self.centre = centre_log
        self.up = up
        self.link = link
        self.keeper = MemoryKeeper()

    def uplink(self, config: UplinkConfig) -> Uplink:
        """Return the uplink of a new process."""
        log = self.node.log
        exchange = Exchange(self.up, Claimant(self.keeper, log), log, SystemClock())
        return Uplink(log, exchange, config, SystemClock(), node=NODE)


@pytest.fixture
async def tiers(tmp_path: Path) -> AsyncIterator[Tiers]:
    """Both engines, started, with the centre's receiver."""
    store = StoreConfig(log_bytes=64 * MIB, intake_bytes=MIB, ledger_bytes=MIB, registry_bytes=MIB)
    async with contextlib.AsyncExitStack() as stack:
        low = await stack.enter_async_context(Engine(EngineConfig(), store, tmp_path / "n", name=NODE))
        high = await stack.enter_async_context(
            Engine(EngineConfig(), store, tmp_path / "c", name="44", slots=NodeSlots({NODE: "secret"}))
        )
        logs = []
        for engine in (low, high):
            client = await engine.connect(User.GATEWAY)
            stack.push_async_callback(client.close)
            await streams.ensure_streams(client, store)
            log = JetStreamLog(client)
            await log.open()
            stack.push_async_callback(log.close)
            logs.append(log)
        links = NodeLinks(high.connect_slot, SystemClock())
        judge = Judge(lambda member: MemberFacts(member, member, ("4401",)), Rules(Owners(), lambda _name, _dep: 1))
        Receiver(logs[1], judge, SystemClock(), store).serve(links)
        links.assign({NODE: NODE})
        serving = asyncio.create_task(links.run())
        link = FaultyLink("127.0.0.1", high.info.port)
        await link.start()
        stack.push_async_callback(link.stop)
        client = await connect(f"nats://127.0.0.1:{link.port}", Login(node_user(NODE), "secret", inbox_prefix(NODE)))
        stack.push_async_callback(client.close)
        yield Tiers(logs[0], logs[1], CentreLink(client, slot=NODE, member=NODE), link)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def until(tiers: Tiers, rows: int) -> None:
    """Wait until the centre has so many readings."""
    async with asyncio.timeout(60):
        while len((await rows_of(tiers.centre)).ids) < rows:
            await asyncio.sleep(0.02)


def balanced(totals: dict[str, int]) -> bool:
    """Return whether all that was accepted was forwarded or withheld."""
    sent = totals.get("forwarded", 0) + totals.get("withheld.grade", 0)
    return totals.get("accepted", -1) == sent


@pytest.mark.live
async def test_two_engines_and_a_cut_link(tiers: Tiers) -> None:
    """Live passes, the link is cut while the node commits on, afterwards all is there once and in order or marked."""
    config = UplinkConfig(url="nats://centre", span_ms=50, backlog_after_s=0.2)
    uplink = tiers.uplink(config)
    running = asyncio.create_task(uplink.run())
    for _ in range(5):
        await tiers.node.commit([(0, 10), (2, 5)])
    await until(tiers, 50)
    await tiers.link.cut()
    for _ in range(20):
        await tiers.node.commit([(0, 10), (1, 1)])
        await asyncio.sleep(0.03)
    tiers.link.restore()
    await tiers.node.commit([(1, 1)])
    await until(tiers, 50 + 220 + 1)
    await eventually(lambda: balanced(uplink.totals))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await check(tiers.node, tiers.centre)
    rows = await rows_of(tiers.centre)
    assert any(rows.flags[name] & Flag.BACKLOG for name in rows.ids)


@pytest.mark.live
async def test_uplinks_killed_at_any_moment(tiers: Tiers) -> None:
    """An uplink cancelled in the middle of whatever it does is followed by another: nothing lost, nothing doubled."""
    config = UplinkConfig(url="nats://centre", span_ms=10, backlog_after_s=0.05)
    for round_ in range(12):
        running = asyncio.create_task(tiers.uplink(config).run())
        for _ in range(3):
            await tiers.node.commit([(0, 20)])
        await asyncio.sleep(0.004 * round_)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    running = asyncio.create_task(tiers.uplink(config).run())
    await until(tiers, 12 * 3 * 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await check(tiers.node, tiers.centre)


async def test_all_that_a_span_brings_expires_with_its_readings(world: World) -> None:
    """Its ledger does not stay for the year of the hourly sums, which are made of it, and fill the centre's log."""
    await world.node.commit([(0, 3)])
    await world.drain()
    log = world.centre.log
    assert {entry.subject.partition(".")[0] for entry in await log.fetch(0)} == {"readings", "ledger", "commit"}
    await world.clock.advance(StoreConfig().readings_ttl_h * 3_600.0)
    assert {entry.subject.partition(".")[0] for entry in await log.fetch(0)} == {"commit"}
