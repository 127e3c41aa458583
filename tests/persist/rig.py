"""A committer on a log in memory, fed with readings by hand; it can be killed and started again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from sensegate.authority.divisions import Divisions
from sensegate.authority.index import DeviceIndex, unchanged
from sensegate.bus import columns
from sensegate.bus.columns import Batch
from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.model import (
    Delivery,
    Device,
    Fields,
    IdentityKind,
    Message,
    Quarantined,
    Readings,
    RejectedValue,
    SourcePosition,
    Spec,
)
from sensegate.persist.commit import CommitLimits, Committer, CommitWriter, PreparedBatch
from sensegate.persist.duplicates import Deduplicator
from sensegate.quantities.quality import Flag
from sensegate.quantities.series import SeriesIndex

NOW = 1_767_225_600_000_000
HOUR = 3_600_000_000
SPECS = (
    Spec("acme/th10@3", "t", "air_temperature"),
    Spec("acme/th10@3", "h", "relative_humidity", identity=IdentityKind.SEQUENCE),
    Spec("acme/th10@3", "w", "water_level", suppress=True, deadband=0.5, heartbeat_s=600.0),
    Spec("acme/th10@3", "d", "door_state"),
    Spec("acme/th10@3", "m", "sound_level", identity=IdentityKind.MESSAGE_ID),
    Spec("acme/th10@3", "n", "pm2_5", identity=IdentityKind.NONE),
    Spec("acme/th10@3", "t2", "air_temperature", channel="2"),
    Spec("acme/th10@3", "f", "soil_moisture", identity=IdentityKind.FRAME),
)
TIME, SEQUENCE, SUPPRESS, TEXT, MESSAGE_ID, NONE, CHANNEL, FRAME = range(len(SPECS))


class Row(msgspec.Struct, frozen=True):
    """One value that a device sent."""

    spec: int
    value: float | str
    time: int
    key: int | None = None
    device: int = 0


class Sent(msgspec.Struct, frozen=True):
    """One message: its values, its bytes, its way and its arrival."""

    rows: tuple[Row, ...]
    payload: bytes
    path: int = 7
    received: int = NOW


def registry(devices: int) -> DeviceIndex:
    """Return an index of devices ``dev-0``, … over four counties of Guangzhou and two grades."""
    index = DeviceIndex(Divisions.load(), unchanged)
    index.reserve(devices)
    for number in range(devices):
        at = index.slot(f"dev-{number}")
        index.put(at, Device(f"dev-{number}", f"44010{3 + number % 4}", "acme/th10", grade=1 + number % 2))
    return index


def delivery(messages: list[Message], source: str = "mqtt") -> Delivery:
    """Return messages as a source gives them."""

    async def ack() -> None:
        return None

    position = SourcePosition("life", messages[-1].sequence) if messages else None
    return Delivery(source, messages, ack, position)


def no_fields(**sparse: object) -> Fields:
    """Return fields without rows."""
    ints = np.zeros(0, np.int32)
    return Fields(
        ints,
        ints,
        ints,
        np.zeros(0),
        {},
        np.zeros(0, np.int64),
        np.zeros(0, np.uint8),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint16),
        **sparse,  # type: ignore[arg-type]
    )


class Job:
    """A task of the worker that is done when it is waited for, or never."""

    def __init__(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        self._call = call
        self._args = args
        self._done = False
        self._why: OSError | None = None

    def done(self) -> bool:
        """Return whether it was done."""
        return self._done

    def result(self) -> None:
        """Do it now; raise what it raised, each time."""
        if not self._done:
            self._done = True
            try:
                self._call(*self._args)
            except OSError as why:
                self._why = why
        if self._why:
            raise self._why


class Worker:
    """A pool whose one thread does nothing by itself: order is the test's."""

    def submit(self, call: Callable[..., None], *args: object) -> Job:
        """Keep a task."""
        return Job(call, args)

    def shutdown(self) -> None:
        """There is nothing to end."""


class Rig:
    """What a process holds, and what survives it: the log and the directory."""

    def __init__(
        self,
        directory: Path,
        *,
        log: MemoryLog | None = None,
        devices: int = 3,
        limits: CommitLimits | None = None,
        horizon_h: int = 24,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock(NOW)
        self.log = log or MemoryLog(self.clock)
        self.directory = directory
        self.limits = limits
        self.horizon_h = horizon_h
        self.devices = devices
        self.sequence = 0
        self.start()

    def start(self) -> None:
        """Be a new process: other device indices, other series numbers."""
        self.index = registry(self.devices)
        self.series = SeriesIndex()
        self.duplicates = Deduplicator(
            self.directory, clock=self.clock, horizon_h=self.horizon_h, device_id=self.index.ids.__getitem__
        )
        self.duplicates._index._pool.shutdown()
        self.duplicates._index._pool = Worker()  # type: ignore[assignment]
        self.committer = Committer(
            self.log,
            self.duplicates,
            self.index,
            SPECS,
            self.clock,
            writer=CommitWriter("4401"),
            limits=self.limits,
        )

    async def open(self) -> dict[str, SourcePosition]:
        """Open the committer."""
        return await self.committer.open()

    async def restart(self) -> dict[str, SourcePosition]:
        """Die and start again: what was in memory is gone, what the worker had not done is not done."""
        self.start()
        return await self.open()

    def readings(self, sent: list[Sent]) -> tuple[list[Message], Fields, Readings]:
        """Return what decode and normalise would make of messages."""
        messages, rows = [], []
        for number, entry in enumerate(sent):
            self.sequence += 1
            messages.append(
                Message(
                    f"sg/dev-{entry.rows[0].device if entry.rows else 0}/up",
                    entry.payload,
                    entry.received,
                    self.sequence,
                )
            )
            rows += [(number, row, entry) for row in entry.rows]
        text = {at: row.value for at, (_, row, _) in enumerate(rows) if isinstance(row.value, str)}
        device = np.array([row.device for _, row, _ in rows], np.int32)
        spec = np.array([row.spec for _, row, _ in rows], np.int32)
        time = np.array([row.time for _, row, _ in rows], np.int64)
        received = np.array([row.received for _, _, row in rows], np.int64)
        value = np.array([np.nan if isinstance(row.value, str) else row.value for _, row, _ in rows], np.float64)
        message = np.array([number for number, _, _ in rows], np.int32)
        key = np.array([row.time if row.key is None else row.key for _, row, _ in rows], np.int64)
        path = np.array([row.path for _, _, row in rows], np.uint16)
        variable = np.array([self.series.variable(spec.property, spec.channel) for spec in SPECS], np.int32)
        quality = np.zeros(len(rows), np.uint8)
        fields = Fields(message, device, spec, value, text, time, quality, key, path)
        return (
            messages,
            fields,
            Readings(
                message,
                device,
                spec,
                np.zeros(len(rows), np.int16),
                value,
                text,
                time,
                quality,
                received,
                key,
                path,
                quality.copy(),
                np.where(time > received + 300_000_000, int(Flag.FUTURE), 0).astype(np.uint32),
                self.series.resolve(device, variable[spec]),
            ),
        )

    def prepare(
        self,
        sent: list[Sent],
        *,
        quarantined: list[Quarantined] | None = None,
        rejected: list[RejectedValue] | None = None,
        source: str = "mqtt",
    ) -> PreparedBatch:
        """Prepare a commit of messages."""
        messages, fields, readings = self.readings(sent)
        fields = msgspec.structs.replace(fields, quarantined=quarantined or [], rejected=rejected or [])
        return self.committer.prepare([delivery(messages, source)], fields, readings)

    async def commit(self, sent: list[Sent], **more: object) -> PreparedBatch:
        """Prepare and write a commit."""
        pending = self.prepare(sent, **more)  # type: ignore[arg-type]
        await self.committer.write(pending)
        return pending

    async def batches(self) -> list[Batch]:
        """Return every batch of readings on the log."""
        batches, at = [], 0
        while entries := await self.log.fetch(at):
            at = entries[-1].sequence
            batches += [
                columns.decode(entry.payload, sequence=entry.sequence)
                for entry in entries
                if entry.subject.startswith("readings.")
            ]
        return batches

    async def ledger(self) -> Ledger:
        """Return the sum of every ledger on the log."""
        total, at = Ledger(), 0
        while entries := await self.log.fetch(at):
            at = entries[-1].sequence
            for entry in entries:
                if entry.subject.startswith("ledger."):
                    total.merge(Ledger.decode(entry.payload))
        return total

    async def shown(self) -> Counter[tuple[str, str, int, float | str]]:
        """Return how often a subscriber is shown each (device, property and channel, time, value)."""
        results: Counter[tuple[str, str, int, float | str]] = Counter()
        for batch in await self.batches():
            variables = batch.variables()
            for row in range(len(batch)):
                value = batch.text.get(row, float(batch.value[row]))
                device = batch.origins.device[batch.origin[row]]
                results[device, ".".join(variables[batch.property[row]]), int(batch.time[row]), value] += 1
        return results
