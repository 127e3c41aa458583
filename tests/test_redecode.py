"""Messages decoded again: whatever is lost on the way, and however often it dies, each is revised once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.bus.record import decode_commit
from sensegate.clock import SystemClock
from sensegate.config import IngestConfig, TimeConfig
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.watch import ProfileWatcher
from sensegate.errors import Fenced, Unavailable
from sensegate.ingest.interpreter import Interpreter
from sensegate.ingest.pipeline import IngestPipeline, PipelineStages
from sensegate.lifecycle import reprocessing_orders, reprocessing_source
from sensegate.lifecycle.comparisons import MessageRange as Asked
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.opening import (
    LifecycleStores,
    ProfileLifecycle,
    ReprocessingParts,
    open_lifecycle,
    open_reprocessing,
)
from sensegate.lifecycle.reprocessing_orders import OrderState, ReprocessingInput, ReprocessingOrder
from sensegate.model import Delivery, Device, Member, Message, Position
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.normalise.series import SeriesIndex
from sensegate.persist import priors
from sensegate.persist.commit import Committer
from sensegate.persist.duplicates import Duplicates
from tests.conftest import eventually
from tests.live.site import config_of
from tests.live.test_profiles import THERMOMETER, write

ADMIN = Principal("test", Role.ADMIN, scope("44"))
NOW = SystemClock().now()
FIRST = NOW // 1_000_000 - 3_600
NAMES = [f"d{number}" for number in range(6)]
ROUNDS = 30
TIMED = THERMOMETER.replace("    readings:", "    time: {field: at, format: epoch_s}\n    readings:")


class Faulty(MemoryLog):
    """A log whose writes fail by a script: number of the write since `arm` -> what happens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[int, str] = {}
        self.writes = 0

    def arm(self, faults: dict[int, str]) -> None:
        """Let writes fail from now on."""
        self.faults, self.writes = faults, 0

    async def write(self, members: Sequence[Member]) -> int:
        self.writes += 1
        match self.faults.get(self.writes):
            case "lost":
                raise Unavailable("nothing was written, as the script says")
            case "answer lost":
                await super().write(members)
                raise Unavailable("it was written, but the answer was lost, as the script says")
            case "fenced":
                raise Fenced("another was there, as the script says")
        return await super().write(members)


class Given:
    """A source that gives what it is told, once each, with positions."""

    name = "mqtt"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.at = 0
        self.acknowledged = 0
        self._wake = asyncio.Event()

    def give(self, messages: Sequence[Message]) -> None:
        """Have messages given; their sequence is set."""
        for message in messages:
            self.messages.append(msgspec.structs.replace(message, sequence=len(self.messages) + 1))
        self._wake.set()

    async def start(self, committed: Position | None) -> None:
        self.at = committed.sequence if committed else 0

    async def stop(self) -> None:
        self._wake.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            chunk = self.messages[self.at : self.at + 25]
            if not chunk:
                self._wake.clear()
                await self._wake.wait()
                continue
            self.at += len(chunk)

            async def ack(upto: int = self.at) -> None:
                self.acknowledged = upto

            yield Delivery(self.name, chunk, ack, Position("life", chunk[-1].sequence))


class Node:
    """A walk with everything that decodes again, on stores that outlive it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log, self.trail = Faulty(), MemoryTrail()
        self.buckets: dict[str, MemoryBucket] = {}
        self.source = Given()
        write(directory, TIMED)
        self.config = msgspec.structs.replace(
            config_of(directory / "node", profiles=(str(directory / "acme"),)),
            ingest=IngestConfig(commit_interval_ms=0),
        )
        self.life: ProfileLifecycle
        self.reprocessing: ReprocessingParts

    async def bucket(self, name: str) -> Any:
        """Return a store by name."""
        return self.buckets.setdefault(name, MemoryBucket())

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[ProfileLifecycle]:
        """Run one life of the process; at its end nothing is put in order."""
        clock, series = SystemClock(), SeriesIndex()
        async with contextlib.AsyncExitStack() as stack:
            devices = Devices(await self.bucket("devices"), self.trail, clock, home="44")
            stores = LifecycleStores(self.config, clock, self.log, self.trail, self.bucket)
            life = await open_lifecycle(stores, ProfileWatcher(self.config.profiles, clock), devices, stack)
            await devices.load()
            committer = Committer(
                self.log,
                Duplicates(self.directory / "duplicates", clock=clock, device_id=devices.id),
                devices.index,
                life.profiles.set.specs,
                clock,
                division="4401",
            )
            decoder = Decoder(life.profiles.set, devices, memory=DecoderMemory(undoable=True))
            reprocessing = open_reprocessing(life, committer, series=series, memory=decoder.memory)
            reprocessor, recorded = reprocessing.interpreter, reprocessing.source
            interpreter = Interpreter(
                decoder,
                Normaliser(life.profiles.set.specs, series=series, clock=clock, time=TimeConfig()),
            )
            ingest = IngestPipeline(
                self.config,
                clock,
                [self.source, recorded],
                PipelineStages(interpreter, Indicators(series), committer, devices, reprocessor=reprocessor),
            )

            def changed(profiles: Any, names: list[str]) -> None:
                def turn() -> None:
                    interpreter.apply_profiles(profiles, devices.of_profiles(names))
                    reprocessor.apply_profiles(profiles, devices.of_profiles(names))
                    committer.adopt(profiles.specs)

                ingest.boundary.add(turn)

            life.profiles.on_change.append(changed)
            self.life, self.devices, self.reprocessing = life, devices, reprocessing
            tasks = [asyncio.ensure_future(work()) for work in (ingest.run, *life.tasks.values())]
            try:
                yield life
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def enrol(self) -> None:
        """Register the devices."""
        for name in NAMES:
            await self.devices.add(Device(name, "440106", "acme/th"), by=ADMIN)

    async def spoken(self, first: int = 0, rounds: int = ROUNDS) -> None:
        """Have every device say so many readings, tenths of a degree; return when all are committed."""
        self.source.give(
            [
                Message(f"acme/{name}/up", b'{"t": %d, "at": %d}' % (200 + at, FIRST + 60 * at), NOW, 0)
                for at in range(first, first + rounds)
                for name in NAMES
            ]
        )
        await eventually(lambda: self.source.acknowledged == len(self.source.messages))

    async def released(self, number: int, scale: float) -> None:
        """Put a version with another scale in force."""
        text = TIMED.replace("version: 1", f"version: {number}").replace("scale: 0.1", f"scale: {scale}")
        text = text.replace('payload: {"t": 215}', f'payload: {{"t": 215, "at": {FIRST}}}')
        text = text.replace("air_temperature, value: 21.5", f"air_temperature, value: {215 * scale}, time: TIME")
        text = text.replace("TIME", f"'{asiso(FIRST)}'")
        text += '  - label: no JSON\n    topic: acme/d1/up\n    payload: "no"\n    refuse: malformed\n'
        releases = self.life.releases
        await releases.draft(Content(text), by=ADMIN)
        await releases.propose("acme/th", number, by=ADMIN)
        await releases.release("acme/th", number, by=ADMIN)
        assert await self.life.rollout.in_force()

    async def order(
        self, what: ReprocessingInput = ReprocessingInput.RAW, devices: tuple[str, ...] = ()
    ) -> ReprocessingOrder:
        """Order everything decoded again."""
        asked = Asked(NOW - 10**9, NOW + 10**9, devices)
        return await self.reprocessing.reprocessing.order("acme/th", asked, what, by=ADMIN, target=Scope("4401"))

    async def done(self, order: ReprocessingOrder) -> ReprocessingOrder:
        """Wait for an order's end."""

        def ended() -> ReprocessingOrder | None:
            found = self.life.orders.get(order.id, ADMIN)
            return found if found.state not in {OrderState.WAITING, OrderState.RUNNING} else None

        found: ReprocessingOrder = await eventually(ended, 20)
        return found

    async def history(self) -> dict[tuple[str, int], list[tuple[int, float]]]:
        """Return (device, round) -> (revision, value) of the readings on the log, in its order."""
        found: dict[tuple[str, int], list[tuple[int, float]]] = {}
        for entry in await self.log.fetch(0, limit=100_000, max_bytes=2**40):
            if not entry.subject.startswith("readings."):
                continue
            batch = columns.decode(entry.payload, sequence=entry.sequence)
            for row in range(len(batch)):
                key = batch.origins.device[int(batch.origin[row])], (int(batch.time[row]) // 10**6 - FIRST) // 60
                found.setdefault(key, []).append((int(batch.revision[row]), round(float(batch.value[row]), 6)))
        return found

    async def ledger(self) -> Counter[str]:
        """Return the sums of all ledgers on the log; each balances."""
        total: Counter[str] = Counter()
        for entry in await self.log.fetch(0, limit=100_000, max_bytes=2**40):
            if entry.subject.startswith("ledger."):
                one = Ledger.decode(entry.payload)
                one.check()
                total.update(one.totals())
        return total


def asiso(seconds: int) -> str:
    """Return epoch seconds as a profile's example writes them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose deliveries are so small that an order takes many commits."""
    monkeypatch.setattr(reprocessing_source, "CHUNK", 7)
    return Node(tmp_path)


def expected(scale: float, revision: int, before: float = 0.1) -> dict[tuple[str, int], list[tuple[int, float]]]:
    """Return a history that was read by one scale and then revised to another."""
    found = {}
    for name in NAMES:
        for at in range(ROUNDS):
            first = [(0, round((200 + at) * before, 6))]
            found[name, at] = first + ([(revision, round((200 + at) * scale, 6))] if revision else [])
    return found


FAULTS = [
    pytest.param({}, id="nothing happens"),
    pytest.param({2: "lost", 5: "lost"}, id="writes are lost"),
    pytest.param({1: "answer lost", 4: "answer lost"}, id="answers are lost"),
    pytest.param({3: "fenced", 9: "fenced"}, id="another worker"),
    pytest.param({2: "answer lost", 3: "fenced", 7: "lost", 11: "answer lost"}, id="all of it"),
    pytest.param({26: "fenced"}, id="the very last"),
]


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
        assert second.counts["duplicate.equal"] == count
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
        async with node.alive() as life:
            node.log.arm({})

            def died_or_done(life: ProfileLifecycle = life, source: str = order.id) -> bool:
                return node.log.writes >= kills or life.orders.get(source, ADMIN).state is OrderState.DONE

            await eventually(died_or_done, every_s=0.001)
            order = life.orders.get(order.id, ADMIN)
    assert lives > 2
    assert await node.history() == expected(0.01, 1)
    assert order.counts["revised"] == len(NAMES) * ROUNDS
    last = await node.log.last("commit.4401-0")
    assert last is not None
    assert list(decode_commit(last.payload).positions) == ["mqtt", order.source]


async def test_there_and_back_again(node: Node) -> None:
    """What is in force in the end is what the history ends with, though an older revision said the same."""
    async with node.alive() as life:
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        await node.done(await node.order())
        await life.releases.rollback("acme/th", by=ADMIN)
        assert await life.rollout.in_force()
        back = await node.done(await node.order())
        assert back.counts["revised"] == len(NAMES) * ROUNDS
        await node.released(3, 0.01)
        forth = await node.done(await node.order())
        assert forth.counts["revised"] == len(NAMES) * ROUNDS
        history = await node.history()
        assert {tuple(revision for revision, _ in rows) for rows in history.values()} == {(0, 1, 2, 3)}
        assert all(rows[0] == (0, rows[2][1]) and rows[1][1] == rows[3][1] for rows in history.values())
        again = await node.done(await node.order())
        assert "revised" not in again.counts


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
    async with node.alive() as life:
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        node.log.arm({})
        order = await node.order()
        await eventually(lambda: node.log.writes >= 3, every_s=0.001)
        assert (await life.orders.cancel(order.id, by=ADMIN)).state is OrderState.CANCELLED
        rest = await node.done(await node.order())
        assert 0 < rest.counts["duplicate.equal"] < len(NAMES) * ROUNDS
        assert await node.history() == expected(0.01, 1)


async def test_more_than_memory_allows_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a single reading is written, and the order says what to do."""
    monkeypatch.setattr(priors, "VALUES_MAX", 100)
    async with node.alive():
        await node.enrol()
        await node.spoken()
        await node.released(2, 0.01)
        order = await node.done(await node.order())
        assert order.state is OrderState.FAILED
        assert "more than 100 readings of these devices in the time; narrow either" in order.problem
        assert await node.history() == expected(0.1, 0)
        narrow = await node.done(await node.order(devices=("d1",)))
        assert narrow.counts["revised"] == ROUNDS


async def test_one_that_never_ends_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that takes the ingest down each time is failed in the end, and messages are read as ever."""
    monkeypatch.setattr(reprocessing_orders, "ATTEMPTS_MAX", 3)

    def broken(*_args: object, **_more: object) -> None:
        raise Unavailable("as a bug would")

    async with node.alive():
        await node.enrol()
        await node.spoken()
        monkeypatch.setattr(priors.Priors, "take", broken)
        order = await node.done(await node.order())
        assert (order.state, order.attempts) == (OrderState.FAILED, 3)
        assert "begun 3 times and never ended" in order.problem
        await node.spoken(ROUNDS, 2)


async def test_what_cannot_be_read_is_passed(node: Node) -> None:
    """A damaged member of the log ends nothing; what it held counts as new where it is decoded again."""
    async with node.alive():
        await node.enrol()
        await node.log.write([Member("readings.4401.440106.1", b"damaged"), Member("ledger.4401-0", b"damaged")])
        await node.spoken()
        order = await node.order()
        await node.log.write([Member("readings.4401.440106.1", b"damaged"), Member("ledger.4401-0", b"damaged")])
        done = await node.done(order)
        assert done.counts["duplicate.equal"] == len(NAMES) * ROUNDS
