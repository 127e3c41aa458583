"""Corrections: an operator withdraws readings of a span, or sets their quality afterwards (calibration, maintenance).

    Corrections (orders in a bucket) ─▶ CorrectionSource ─▶ IngestPipeline ─▶ revisions of the readings on the log

The newest revision of each reading of the devices in the span is written again, with another quality and a flag, as a
further revision; so it reaches every subscriber, the centre and the ledger like any other. The position of an order is
part of its commits: a kill at any moment corrects nothing twice and passes nothing over. A reading that is as ordered
already is left as it is, so that a second order of the same corrects nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import NamedTuple

import msgspec
import numpy as np

from sensegate.authority.bucket import Bucket
from sensegate.authority.devices import Devices
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.bus import columns
from sensegate.bus.batch import Batch
from sensegate.bus.contract import Log
from sensegate.bus.names import READINGS
from sensegate.bus.unreadable import read_rows
from sensegate.clock import Clock
from sensegate.errors import ConfigError, NotFound, Overloaded
from sensegate.lifecycle.order_source import OrderSource
from sensegate.model import BOOL, CORRECTION_PREFIX, Delivery, LogEntry, Message, SourcePosition
from sensegate.persist.identity import KIND_MASK, NONE
from sensegate.quantities.quality import TABLE, Flag, Quality

DEVICES_MAX = 500
ROWS_MAX = 2_000_000
"""Most readings of one correction."""
OPEN_MAX = 20
KEPT_MAX = 500
ENTRIES_AT_ONCE = 50
NOTE_MAX = 500
_ACTOR = Principal("clock", Role.ADMIN, Scope("44"), name="corrections")


class CorrectionAction(StrEnum):
    """The action of a correction on the readings of its span."""

    WITHDRAW = "withdraw"
    ANNOTATE = "annotate"


class CorrectionState(StrEnum):
    """State of a correction."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class Correction(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An order to correct readings. Times are µs UTC."""

    id: str = ""
    action: CorrectionAction
    devices: tuple[str, ...]
    properties: tuple[str, ...] = ()
    """Standard names, of all channels; ``name#channel``: of one; ``name#``: of the sensor without one. Empty: all."""
    begin: int
    """Earliest phenomenon time."""
    end: int
    """Phenomenon time at which the span ends, exclusive."""
    quality: int = int(Quality.BAD)
    note: str
    """Reason, for the audit trail."""
    places: tuple[Scope, ...] = ()
    """Places of the devices, for the scope of those who see it."""
    by: str = ""
    created: int = 0
    epoch: str = ""
    last_sequence: int = 0
    """Last entry of the log that is read."""
    state: CorrectionState = CorrectionState.WAITING
    corrected: int = 0
    ended: int = 0
    problem: str = ""
    revision: int = 0
    format: int = 1

    @property
    def source(self) -> str:
        """Name of its source in ledger and commits."""
        return f"{CORRECTION_PREFIX}{self.id}"

    @property
    def flag(self) -> Flag:
        """Flag of the corrected readings."""
        return Flag.WITHDRAWN if self.action is CorrectionAction.WITHDRAW else Flag.CORRECTED


CorrectionList = list[Correction]


class Corrections:
    """Registry of corrections."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock, log: Log, devices: Devices) -> None:
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._log = log
        self._devices = devices
        self._records: RecordTable[Correction] = RecordTable(self._store, "correction", Correction, prefix="")
        self._records.on_change.append(lambda _before, _after: self._changed.set())
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Load all corrections. Raises `Unavailable`."""
        await self._store.open()

    async def run(self) -> None:
        """Follow the changes of all processes until cancelled."""
        await self._store.run()

    async def order(self, wanted: Correction, *, by: Principal) -> Correction:
        """Order a correction; return it.

        Raises:
            NotFound: a device is not in the caller's scope. PermissionDenied: the role corrects nothing.
            ConfigError: it is invalid. Overloaded: too many wait.
        """
        if not 1 <= len(wanted.devices) <= DEVICES_MAX:
            raise ConfigError(f"{len(wanted.devices)} devices", key="devices", remedy=f"give 1 to {DEVICES_MAX}")
        if wanted.begin >= wanted.end:
            raise ConfigError("is not before `to`", key="from", remedy="give a span")
        if not wanted.note.strip() or len(wanted.note) > NOTE_MAX:
            raise ConfigError("the reason is missing or too long", key="note", remedy="give 1 to 500 characters")
        if wanted.quality not in TABLE:
            raise ConfigError(f"{wanted.quality} is no quality", key="quality", remedy="see the table of qualities")
        devices = [self._devices.get(device, by) for device in wanted.devices]
        for device in devices:
            demand(by, Action.CORRECT_READINGS, device.division, device.department)
        if sum(record.state is CorrectionState.WAITING for record in self._records) >= OPEN_MAX:
            raise Overloaded(f"{OPEN_MAX} corrections wait; they run one after another", retry_after_s=30)
        now = self._clock.now()
        correction = msgspec.structs.replace(
            wanted,
            id=f"{now // 1000:012x}{secrets.token_hex(3)}",
            places=tuple({Scope(device.division, device.department): None for device in devices}),
            by=by.id,
            created=now,
            epoch=self._log.epoch,
            last_sequence=(await self._log.bounds())[1],
        )
        await self._trail.record(by, f"readings.{correction.action}", correction.id, after=_facts(correction))
        stored = await self._records.put(correction.id, correction, expected=0)
        ended = sorted((record for record in self._records if record.ended), key=lambda record: record.created)
        for record in ended[: max(0, len(self._records) - KEPT_MAX)]:
            await self._records.delete(record.id, expected=record.revision)
        return stored

    def list(self, by: Principal) -> CorrectionList:
        """Return the corrections whose devices are all in the caller's scope, newest first."""
        return sorted((record for record in self._records if _sees(by, record)), key=lambda record: -record.created)

    def get(self, correction_id: str, by: Principal) -> Correction:
        """Return a correction. Raises `NotFound` where there is none that the caller may see."""
        record = self._records.find(correction_id)
        if record is None or not _sees(by, record):
            raise NotFound(f"no correction {correction_id[:40]} in your scope; see `sensegate correction list`")
        return record

    async def wait_ended(self, correction_id: str) -> Correction:
        """Return a correction once it is done or has failed."""
        await self._records.until(lambda: (record := self._records.find(correction_id)) is None or record.ended > 0)
        record = self._records.find(correction_id)
        if record is None:
            raise NotFound(f"no correction {correction_id[:40]}; it ended long ago")
        return record

    # ── for the source ──────────────────────────────────────────────────────────────────────────────

    async def next(self) -> Correction:
        """Return the oldest correction that waits, once there is one."""
        while True:
            self._changed.clear()
            waiting = [record for record in self._records if record.state is CorrectionState.WAITING]
            if waiting:
                return min(waiting, key=lambda record: record.created)
            await self._changed.wait()

    async def finish(self, correction: Correction, *, corrected: int = 0, problem: str = "") -> None:
        """Mark a correction as done, or as failed where there is a problem; also on the trail."""
        facts: Facts = {"corrected": corrected, "problem": problem}
        await self._trail.record(_ACTOR, f"readings.{correction.action}.done", correction.id, after=facts)
        state = CorrectionState.FAILED if problem else CorrectionState.DONE
        ended = msgspec.structs.replace(
            correction, state=state, corrected=corrected, problem=problem, ended=self._clock.now()
        )
        await self._records.put(correction.id, ended, expected=correction.revision)


def _sees(by: Principal, correction: Correction) -> bool:
    return all(allows(by, Action.READ_READINGS, place.division, place.department) for place in correction.places)


def _facts(correction: Correction) -> Facts:
    facts: Facts = {
        "devices": list(correction.devices),
        "properties": list(correction.properties),
        "from": correction.begin,
        "to": correction.end,
        "quality": Quality(correction.quality).name.lower(),
        "note": correction.note,
    }
    return facts


# ── selecting and writing ────────────────────────────────────────────────────────────────────────────


class _Entry(NamedTuple):
    """Rows of an entry of the log that the span contains."""

    sequence: int
    subject: str
    batch: Batch


class CorrectionSource(OrderSource):
    """Delivers the revisions of one correction after another to the pipeline."""

    name = "correction"

    def __init__(
        self, log: Log, corrections: Corrections, position: Callable[[str], SourcePosition | None], *, writer: str
    ) -> None:
        """`position`: returns the committed position of a source. `writer`: ``<node>-<partition>`` of the readings."""
        super().__init__(position)
        self._log = log
        self._corrections = corrections
        self._writer = writer

    async def deliveries(self) -> AsyncIterator[Delivery]:
        generation = self._generation
        while generation == self._generation:
            correction = await self._corrections.next()
            if correction.epoch != self._log.epoch:
                await self._corrections.finish(correction, problem="the log was created again after the order")
                continue
            entries, rows = await self._select(correction)
            if rows > ROWS_MAX:
                problem = f"more than {ROWS_MAX:,} readings; correct fewer devices or a shorter span"
                await self._corrections.finish(correction, problem=problem)
                continue
            revisions = [_revised(correction, entry) for entry in _newest(entries)]
            revisions = [entry for entry in revisions if len(entry.batch)]
            committed = self._committed_sequence(correction.source, correction.id)
            waiting = [entry for entry in revisions if entry.sequence > committed]
            for first in range(0, len(waiting), ENTRIES_AT_ONCE):
                yield self._delivery(correction, waiting[first : first + ENTRIES_AT_ONCE])
                await self._acknowledged.wait()
                if generation != self._generation:
                    return
            await self._corrections.finish(correction, corrected=sum(len(entry.batch) for entry in revisions))

    def _delivery(self, correction: Correction, entries: list[_Entry]) -> Delivery:
        messages = [
            Message(entry.subject, columns.encode(entry.batch), correction.created, entry.sequence) for entry in entries
        ]
        return self._acknowledged_delivery(correction.source, correction.id, messages, "correction")

    async def _select(self, correction: Correction) -> tuple[list[_Entry], int]:
        """Return the readings of the span, as they were when the correction was ordered, and how many.

        All readings of the log are read: one may have arrived long before its own time (`time.future_max_h`).
        """
        selected: list[_Entry] = []
        rows = at = 0
        while at < correction.last_sequence and rows <= ROWS_MAX:
            entries = await self._log.fetch_of(f"{READINGS}.*.*.*", at)
            if not entries:
                break
            for entry in entries:
                if entry.sequence <= correction.last_sequence and entry.subject.startswith(f"{READINGS}."):
                    part = await asyncio.to_thread(self._of_entry, correction, entry)
                    if part is not None:
                        selected.append(part)
                        rows += len(part.batch)
            at = entries[-1].sequence
        return selected, rows

    def _of_entry(self, correction: Correction, entry: LogEntry) -> _Entry | None:
        batch = read_rows(entry, "corrections")
        if batch is None or batch.local is None or f"{batch.node}-{batch.partition}" != self._writer:
            return None
        devices = {*correction.devices}
        mask: BOOL = np.array([device in devices for device in batch.origins.device], np.bool_)[batch.origin]
        mask &= (batch.time >= correction.begin) & (batch.time < correction.end)
        if correction.properties:
            selected = {*correction.properties}
            columns = [{name, f"{name}#{channel}"} & selected for name, channel in batch.variables()]
            mask &= np.array([bool(column) for column in columns], np.bool_)[batch.property]
        return _Entry(entry.sequence, entry.subject, batch.take(mask)) if mask.any() else None


def _newest(entries: list[_Entry]) -> list[_Entry]:
    """Return the entries with the newest revision of each reading only."""
    newest: dict[tuple[object, ...], tuple[int, int, int]] = {}
    for place, entry in enumerate(entries):
        for row, key in enumerate(_identities(entry.batch)):
            rank = (int(entry.batch.revision[row]), place, row)
            if rank >= newest.get(key, (-1, 0, 0)):
                newest[key] = rank
    kept: dict[int, list[int]] = {}
    for _, place, row in newest.values():
        kept.setdefault(place, []).append(row)
    return [
        entry._replace(batch=entry.batch.take(np.array(sorted(kept.get(place, ())), np.int64)))
        for place, entry in enumerate(entries)
    ]


def _identities(batch: Batch) -> list[tuple[object, ...]]:
    assert batch.local is not None  # noqa: S101 - only own rows are selected
    devices = [batch.origins.device[origin] for origin in batch.origin.tolist()]
    variables = batch.variables()
    names = [variables[number] for number in batch.property.tolist()]
    kinds = batch.local.identity & np.uint8(KIND_MASK)
    # Nothing identifies a reading of kind NONE but its message.
    digest = np.where(kinds == NONE, batch.local.digest[batch.local.message], np.uint64(0))
    return list(zip(devices, names, kinds.tolist(), batch.local.key.tolist(), digest.tolist(), strict=True))


def _revised(correction: Correction, entry: _Entry) -> _Entry:
    """Return the rows of an entry as the correction makes them, without those that are so already."""
    batch, flag = entry.batch, np.uint32(correction.flag)
    marks = np.uint32(Flag.WITHDRAWN | Flag.CORRECTED)
    is_so = ((batch.flags & marks) == flag) & (batch.quality == correction.quality)
    batch = batch.take(~is_so)
    rows = len(batch)
    local = batch.local
    if local is not None:
        # The value is an old one: report by exception goes on from the newest.
        local = msgspec.structs.replace(local, identity=local.identity & np.uint8(KIND_MASK))
    revised = msgspec.structs.replace(
        batch,
        local=local,
        quality=np.full(rows, correction.quality, np.uint8),
        flags=(batch.flags & ~marks) | flag,
        revision=np.minimum(batch.revision.astype(np.int64) + 1, 255).astype(np.uint8),
        seq=np.zeros(rows, np.int64),
        index=np.zeros(rows, np.uint32),
    )
    return entry._replace(batch=revised)
