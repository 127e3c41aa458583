"""Batches of stream INTAKE through the pipeline: each message once, whatever is killed, stored twice or damaged.

The log is in memory and fails by a script; the stream is that of a real nats-server. Rules have negative controls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client

from sensegate.bus import api, columns, consumer, raw, streams
from sensegate.bus.commit_records import decode_commit
from sensegate.bus.raw import StoredMessage
from sensegate.clock import SystemClock
from sensegate.collect.intake import source as intake_source
from sensegate.collect.intake.batch import DUP, IntakeBatch
from sensegate.collect.intake.numbers import NumberTracker
from sensegate.collect.intake.source import IntakeSource
from sensegate.config import IngestConfig, StoreConfig
from sensegate.errors import Unavailable
from sensegate.model import CommitRecord, Message, QuarantineReason, SourcePosition
from sensegate.quantities.quality import Flag
from tests.conftest import eventually
from tests.support.front import ARRIVAL, QOS_1, BatchWriter
from tests.support.pipeline import CHUNK, Faulty, Walk, registry

SIZE = 7
"""Messages of a batch: commits of `CHUNK` end inside."""


def telemetry(first: int, count: int = SIZE) -> list[bytes]:
    """Return messages of one reading each, numbered by their values."""
    return [
        b'{"time": %d, "values": {"air_temperature": %.1f}}' % (ARRIVAL // 1_000_000 + number, number / 10)
        for number in range(first, first + count)
    ]


class World:
    """A front, the stream, and pipelines over a log that outlives them."""

    def __init__(self, gateway: Client, directory: Path, faults: Mapping[int, str] | None = None) -> None:
        self.gateway = gateway
        self.front = BatchWriter(gateway)
        self.log = Faulty(dict(faults or {}))
        self._directory = directory
        self._starts = 0

    async def walk(self) -> Walk:
        """Return a pipeline of a process that starts."""
        self._starts += 1
        source = IntakeSource(self.gateway, IngestConfig(commit_messages_max=CHUNK), SystemClock())
        place = self._directory / str(self._starts)
        place.mkdir()
        return Walk(self.log, source, await registry(), place)

    async def commit_record(self) -> CommitRecord | None:
        """Return the last commit record."""
        last = await self.log.last("commit.4401-0")
        return decode_commit(last.payload) if last else None

    async def total(self, kind: str) -> int:
        """Return a total of the ledger."""
        record = await self.commit_record()
        return record.totals.get(kind, 0) if record else 0

    async def run(self, until: Callable[[], object]) -> None:
        """Walk until something is true and INTAKE holds no batch, then stop."""
        walking = asyncio.create_task((await self.walk()).ingest.run())
        try:
            await eventually(until)
            await eventually(self.is_empty)
        finally:
            walking.cancel()
            await asyncio.gather(walking, return_exceptions=True)

    async def is_empty(self) -> bool:
        """Return whether every batch is acknowledged."""
        return not (await self.held())

    async def held(self) -> int:
        """Return how many batches INTAKE holds."""
        answer = msgspec.json.decode(await api.request(self.gateway, f"$JS.API.STREAM.INFO.{streams.INTAKE}"))
        return int(answer["state"]["messages"])

    async def run_until_total(self, messages: int) -> None:
        """Walk until the ledger has counted so many messages."""

        async def counted() -> bool:
            return await self.total("messages") >= messages

        await self.run(counted)

    async def values(self) -> list[int]:
        """Return the numbers of the readings on the log, in its order."""
        numbers: list[int] = []
        for entry in await self.log.fetch(0, limit=10_000):
            if entry.subject.startswith("readings."):
                values = columns.decode(entry.payload, sequence=entry.sequence).value
                numbers += [round(value * 10) for value in values.tolist()]
        return numbers

    async def flags(self) -> list[int]:
        """Return the flags of all readings."""
        return [
            flag
            for entry in await self.log.fetch(0, limit=10_000)
            if entry.subject.startswith("readings.")
            for flag in columns.decode(entry.payload, sequence=entry.sequence).flags.tolist()
        ]

    async def quarantined(self) -> list[StoredMessage]:
        """Return the quarantined messages."""
        return [
            stored
            for entry in await self.log.fetch(0, limit=10_000)
            if entry.subject.startswith("quarantine.")
            for stored in raw.decode_quarantined(entry.payload)
        ]


FAULTS = {3: "fenced", 5: "answer lost", 6: "lost", 8: "fenced", 9: "fenced"}


async def test_a_commit_ends_inside_a_batch(gateway: Client, tmp_path: Path) -> None:
    """After a refused commit the rest of its batch is read, and each message is counted once, in its order."""
    world = World(gateway, tmp_path, FAULTS)
    for number in range(6):
        await world.front.write(telemetry(number * SIZE))
    await world.run_until_total(6 * SIZE)
    assert await world.values() == list(range(6 * SIZE))
    assert await world.total("messages") == 6 * SIZE
    assert await world.total("duplicate.redelivery") == 0
    record = await world.commit_record()
    assert record
    position = record.positions["mqtt"]
    assert position.partial is None
    assert {numbers.last for numbers in position.numbers.values()} == {6}


async def test_control_a_commit_that_cannot_end_inside_a_batch(
    gateway: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: where a position takes a begun batch for a whole one, its rest is lost."""
    position_after = IntakeSource._position_after

    def whole(*arguments: object) -> SourcePosition:
        position = position_after(*arguments)  # type: ignore[arg-type]
        if position.partial is None:
            return position
        tracker = NumberTracker(position.numbers)
        tracker.add(position.partial.instance, position.partial.number)
        return msgspec.structs.replace(position, numbers=tracker.numbers, partial=None)

    monkeypatch.setattr(IntakeSource, "_position_after", whole)
    world = World(gateway, tmp_path, FAULTS)
    for number in range(6):
        await world.front.write(telemetry(number * SIZE))
    await world.run(world.is_empty)
    assert await world.values() != list(range(6 * SIZE))


async def test_a_batch_that_is_stored_twice(gateway: Client, tmp_path: Path) -> None:
    """A batch that its front stores again is skipped: in the same run, after a restart, and in another stream."""
    world = World(gateway, tmp_path)
    batches = [await world.front.write(telemetry(number * SIZE)) for number in range(3)]
    for batch in batches:
        await world.front.store(batch)
    await world.run_until_total(3 * SIZE)
    await world.front.store(batches[0])
    await world.front.write(telemetry(3 * SIZE))
    await world.run_until_total(4 * SIZE)
    await gateway.jetstream().delete_stream(streams.INTAKE)
    await api.request(gateway, f"$JS.API.STREAM.CREATE.{streams.INTAKE}", streams.intake_stream(StoreConfig()))
    await world.front.store(batches[2])
    await world.front.write(telemetry(4 * SIZE))
    await world.run_until_total(5 * SIZE)
    assert await world.values() == list(range(5 * SIZE))
    assert await world.total("messages") == 5 * SIZE


async def test_control_numbers_that_are_not_kept(
    gateway: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without the numbers in the commit a batch that is stored twice is counted twice."""

    class Forgetful(NumberTracker):
        """A tracker that keeps nothing."""

        def is_known(self, _instance: str, _number: int) -> bool:
            return False

        def add(self, _instance: str, _number: int) -> int:
            return 0

    monkeypatch.setattr(intake_source, "NumberTracker", Forgetful)
    world = World(gateway, tmp_path)
    batch = await world.front.write(telemetry(0))
    await world.front.store(batch)
    await world.run(world.is_empty)
    assert await world.total("messages") == 2 * SIZE


async def test_a_batch_that_never_comes(gateway: Client, tmp_path: Path) -> None:
    """A number that is missing further back than a front may have in flight is told, and later batches are taken."""
    world = World(gateway, tmp_path)
    await world.front.write(telemetry(0, 1))
    world.front.seal(telemetry(1, 1))
    for number in range(2, 20):
        await world.front.write(telemetry(number, 1))
    walk = await world.walk()
    walking = asyncio.create_task(walk.ingest.run())
    await eventually(world.is_empty)
    walking.cancel()
    await asyncio.gather(walking, return_exceptions=True)
    source = walk.ingest._sources[0]
    assert isinstance(source, IntakeSource)
    assert "1 batches" in source.warnings()[0]
    assert await world.total("messages") == 19


async def test_a_refused_batch_behind_newer_ones(gateway: Client, tmp_path: Path) -> None:
    """Its messages come before those of the newer ones, also where a commit between them fails and all is read anew."""
    world = World(gateway, tmp_path, FAULTS)
    await world.front.write(telemetry(0))
    refused = world.front.seal(telemetry(SIZE))
    for number in range(2, 5):
        await world.front.write(telemetry(number * SIZE))
    await world.front.store(refused)
    await world.front.write(telemetry(5 * SIZE))
    await world.run_until_total(6 * SIZE)
    assert await world.values() == list(range(6 * SIZE))
    record = await world.commit_record()
    assert record
    newest = await IntakeSource(gateway, IngestConfig(), SystemClock()).newest()
    assert newest <= record.positions["mqtt"].sequence


@pytest.mark.parametrize("spoilt", [60, 3])
async def test_a_damaged_batch_goes_to_quarantine_whole(gateway: Client, tmp_path: Path, spoilt: int) -> None:
    """A batch with a wrong checksum or form is kept whole; the ledger counts its messages, the others are read."""
    world = World(gateway, tmp_path)
    await world.front.write(telemetry(0))
    damaged = bytearray(world.front.seal(telemetry(100)))
    damaged[spoilt] ^= 0xFF
    await world.front.store(bytes(damaged))
    await world.front.write(telemetry(SIZE))
    await world.run_until_total(3 * SIZE)
    assert await world.values() == list(range(2 * SIZE))
    (stored,) = await world.quarantined()
    assert (stored.reason, stored.message.payload) == (QuarantineReason.DAMAGED_BATCH.value, bytes(damaged))
    assert await world.total("quarantined.damaged_batch") == SIZE
    assert await world.total("messages") == 3 * SIZE


async def test_a_poison_message_costs_itself(gateway: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message on which decoding crashes goes to quarantine alone; its batch is read."""
    world = World(gateway, tmp_path)
    walk = await world.walk()
    decoder = walk.ingest._stages.interpreter.decoder
    decode = decoder.decode

    def crashing(span: list[Message]) -> object:
        if any(b"0.3" in message.payload for message in span):
            raise RuntimeError("a bug")
        return decode(span)

    monkeypatch.setattr(decoder, "decode", crashing)
    await world.front.write(telemetry(0))
    walking = asyncio.create_task(walk.ingest.run())
    await eventually(world.is_empty)
    walking.cancel()
    await asyncio.gather(walking, return_exceptions=True)
    assert await world.values() == [0, 1, 2, 4, 5, 6]
    assert [stored.reason for stored in await world.quarantined()] == ["crashed"]


async def test_what_a_device_sends_again(gateway: Client, tmp_path: Path) -> None:
    """With an identity the repetition is a duplicate; without one it is accepted and flagged, never dropped."""
    world = World(gateway, tmp_path)
    header = QOS_1 | DUP | 1
    await world.front.write(telemetry(0, 2), flags=QOS_1 | 1)
    await world.front.write(telemetry(0, 2), flags=header)
    await world.front.write([b"online"] * 3, "sg/d1/status", flags=QOS_1 | 1)
    await world.front.write([b"online"] * 3, "sg/d1/status", flags=header)
    await world.run_until_total(10)
    flags = await world.flags()
    assert [bool(flag & Flag.REDELIVERED) for flag in flags] == [False] * 5 + [True] * 3
    assert await world.total("accepted") == 8
    assert await world.total("redelivered") == 3


async def test_control_repetitions_dropped_by_packet_id(
    gateway: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: a filter of repetitions by packet id drops what was new: a device may use one id for all."""
    messages = intake_source._messages
    results: set[int] = set()

    def dropping(decoded: IntakeBatch, sequence: int) -> list[Message]:
        kept = []
        for flags, message in zip(decoded.flags.tolist(), messages(decoded, sequence), strict=True):
            if not (flags & DUP and flags & 0xFFFF in results):
                kept.append(message)
            results.add(flags & 0xFFFF)
        return kept

    monkeypatch.setattr(intake_source, "_messages", dropping)
    world = World(gateway, tmp_path)
    await world.front.write([b"online"], "sg/d1/status", flags=QOS_1 | 1)
    await world.front.write([b"offline"], "sg/d1/status", flags=QOS_1 | DUP | 1)  # its first attempt never arrived
    await world.run(world.is_empty)
    assert await world.total("accepted") == 1


async def test_qos_0_is_flagged(gateway: Client, tmp_path: Path) -> None:
    """Messages at QoS 0 come the same way, as best effort."""
    world = World(gateway, tmp_path)
    await world.front.write(telemetry(0, 1))
    await world.front.write(telemetry(1, 1), flags=0)
    await world.run_until_total(2)
    assert [bool(flag & Flag.BEST_EFFORT) for flag in await world.flags()] == [False, True]


async def test_the_consumer_and_the_stream_are_bounded(
    gateway: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No batch is requested beyond the bytes that may wait for a commit; what is committed makes room."""
    monkeypatch.setattr(intake_source, "DEPTH_BYTES_MAX", 1)
    monkeypatch.setattr(intake_source, "PULL_BATCHES", 2)
    world = World(gateway, tmp_path)
    for number in range(8):
        await world.front.write(telemetry(number * SIZE))
    source = IntakeSource(gateway, IngestConfig(), SystemClock())
    await source.start(None)
    await eventually(lambda: len(source._waiting) == 2)
    assert (await consumer.status(gateway, streams.INTAKE, intake_source.DURABLE)).num_ack_pending == 2
    await source.stop()
    await world.run_until_total(8 * SIZE)
    assert await world.values() == list(range(8 * SIZE))


async def test_a_consumer_that_is_deleted(gateway: Client, tmp_path: Path) -> None:
    """Whatever ends the request of batches, the source is started again and goes on where the commits are."""
    world = World(gateway, tmp_path)
    await world.front.write(telemetry(0))

    async def counted() -> bool:
        return await world.total("messages") == SIZE

    walking = asyncio.create_task((await world.walk()).ingest.run())
    try:
        await eventually(counted)
        await consumer.delete(gateway, streams.INTAKE, intake_source.DURABLE)
        await world.front.write(telemetry(SIZE))

        async def all_counted() -> bool:
            return await world.total("messages") == 2 * SIZE

        await eventually(all_counted)
        await eventually(world.is_empty)
    finally:
        walking.cancel()
        await asyncio.gather(walking, return_exceptions=True)
    assert await world.values() == list(range(2 * SIZE))


async def test_silence_while_batches_are_requested_is_a_break(gateway: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of which nothing is heard, not even a heartbeat, ends the deliveries with `Unavailable`."""
    monkeypatch.setattr(intake_source, "HEARTBEAT_S", 0.05)
    source = IntakeSource(gateway, IngestConfig(stall_timeout_s=0.2), SystemClock())
    await source.start(None)
    assert source._subscription
    await source._subscription.unsubscribe()
    with pytest.raises(Unavailable, match="neither batch nor heartbeat"):
        await anext(source.deliveries())
    await source.stop()


async def test_the_newest_message(gateway: Client, tmp_path: Path) -> None:
    """Who waits until everything is committed learns the sequence of the last message; 0 where nothing is left."""
    world = World(gateway, tmp_path)
    source = IntakeSource(gateway, IngestConfig(), SystemClock())
    await source.prepare()
    assert await source.newest() == 0
    await world.front.write(telemetry(0))
    await world.front.write(telemetry(SIZE, 3))
    newest = await source.newest()
    await world.run_until_total(SIZE + 3)
    record = await world.commit_record()
    assert record
    assert record.positions["mqtt"].sequence == newest
    assert await source.newest() == 0
