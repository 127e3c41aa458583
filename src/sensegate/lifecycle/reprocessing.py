"""Execution of reprocessing orders: previous readings are read from the log before messages are delivered.

ReprocessingOrders ─▶ Reprocessing.next: read previous readings ─▶ ReprocessingSource ─▶ IngestPipeline ─▶ revisions
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from sensegate.authority.scope import Principal, Scope
from sensegate.bus.contract import Log
from sensegate.bus.names import ROW_KINDS
from sensegate.bus.unreadable import read_ledger, read_rows
from sensegate.clock import HOUR_US, Clock
from sensegate.config import Config
from sensegate.errors import ConfigError, Overloaded
from sensegate.lifecycle.comparisons import MessageRange
from sensegate.lifecycle.releases import Releases, canary_watcher
from sensegate.lifecycle.reprocessing_input import ReprocessingInput
from sensegate.lifecycle.reprocessing_interpreter import ReprocessingInterpreter
from sensegate.lifecycle.reprocessing_orders import ReprocessingOrder, ReprocessingOrders
from sensegate.model import LogEntry, Message
from sensegate.persist.previous_readings import PreviousReadings

POLL_S = 0.02

_log = structlog.get_logger("lifecycle")


class Reprocessing:
    """Accepts, prepares and finishes orders; `ReprocessingSource` delivers their messages."""

    def __init__(
        self,
        orders: ReprocessingOrders,
        releases: Releases,
        log: Log,
        clock: Clock,
        *,
        partition: str,
        config: Config,
        interpreter: ReprocessingInterpreter,
    ) -> None:
        self._orders = orders
        self._releases = releases
        self._log = log
        self._clock = clock
        self._partition = partition
        self._store = config.store
        self._horizon_h = config.duplicates.horizon_h
        """Horizon of deduplication, by which a message may follow its first delivery."""
        self._interpreter = interpreter
        self._wake = asyncio.Event()
        self.progress: dict[str, float] = {}
        """Id of the order -> completed share, 0 to 1, in this process."""
        orders.on_change.append(lambda _order: self._wake.set())

    async def order(
        self,
        profile: str,
        period: MessageRange,
        recorded_in: ReprocessingInput,
        *,
        by: Principal,
        target: Scope | None = None,
        note: str = "",
    ) -> ReprocessingOrder:
        """Create an order for this worker.

        Raises:
            PermissionDenied, Overloaded: as `ReprocessingOrders.order`.
            ConfigError: the period is no longer retained.
        """
        where = self._releases.target(by, target)
        now = self._clock.now()
        kept_h = min(self._store.raw_ttl_h, self._store.readings_ttl_h)
        if recorded_in is not ReprocessingInput.QUARANTINE and period.since < now - kept_h * HOUR_US:
            raise ConfigError(
                f"decoded messages are retained for {kept_h} h",
                key="since",
                remedy=f"give since={kept_h - 1}h at most, or only the quarantine ({self._store.quarantine_ttl_h} h)",
            )
        wanted = ReprocessingOrder(
            "",
            profile,
            where,
            period.since,
            min(period.until, now),
            recorded_in,
            self._partition,
            self._log.epoch,
            (await self._log.bounds())[1],
            now,
            by.id,
            period.devices,
        )
        return await self._orders.order(wanted, by=by, note=note)

    # ── for the source ──────────────────────────────────────────────────────────────────────────────

    async def next(self) -> tuple[ReprocessingOrder, int]:
        while True:
            self._wake.clear()
            order = self._orders.next(self._partition)
            if order is None:
                self._interpreter.end()
                await self._wake.wait()
                continue
            if order.epoch != self._log.epoch:
                await self._orders.fail(order, "the log was created again after the order was given")
                continue
            if not await self._orders.begin(order):
                continue
            try:
                await self._read_prior_readings(order)
            except Overloaded as why:
                self._interpreter.end()
                await self._orders.fail(order, str(why))
                continue
            return order, await self._log.sequence_at(order.since) - 1

    async def _read_prior_readings(self, order: ReprocessingOrder) -> None:
        """Read the readings of the order's devices from the log, from a horizon before its messages to now."""
        previous = self._interpreter.begin(order)
        while (until := self._interpreter.tracked_after) is None:
            await self._clock.sleep(POLL_S)
        at = await self._log.sequence_at(order.since - self._horizon_h * HOUR_US) - 1
        while at < until:
            entries = await self._log.fetch(at)
            if not entries:
                break
            for entry in entries:
                if entry.sequence <= until:
                    await self._add_previous(entry, previous)
            at = entries[-1].sequence
        previous.finish_loading()

    async def _add_previous(self, entry: LogEntry, previous: PreviousReadings) -> None:
        kind, _, writer = entry.subject.partition(".")
        if kind in ROW_KINDS or (kind == "seen" and writer == self._partition):
            batch = await asyncio.to_thread(read_rows, entry, "reprocessing")
            if batch is not None and batch.local is not None and f"{batch.node}-{batch.partition}" == self._partition:
                previous.add(batch, suppressed=kind == "seen")

    def relevant(self, _order: ReprocessingOrder, messages: Sequence[Message]) -> Sequence[Message]:
        return self._interpreter.relevant(messages)

    def is_open(self, order: ReprocessingOrder) -> bool:
        return self._orders.is_open(order.id)

    def set_progress(self, order: ReprocessingOrder, share: float) -> None:
        self.progress[order.id] = share

    async def finish(self, order: ReprocessingOrder) -> None:
        self._interpreter.end()
        counts = await self._counts(order)
        await self._orders.finish(order, counts, by=canary_watcher(order.target.division))
        self.progress.pop(order.id, None)
        _log.info("messages reprocessed", order=order.id, profile=order.profile, **counts)

    async def _counts(self, order: ReprocessingOrder) -> dict[str, int]:
        """Return the counts of an order from the ledgers, which all follow the sequence at which it was given."""
        counts: dict[str, int] = {}
        at = order.last_sequence
        while entries := await self._log.fetch(at):
            for entry in entries:
                if entry.subject == f"ledger.{self._partition}":
                    _add_counts(counts, entry, order.source)
            at = entries[-1].sequence
        return counts


def _add_counts(counts: dict[str, int], entry: LogEntry, source: str) -> None:
    """Add the counts of a source from the ledger of a commit."""
    ledger = read_ledger(entry, "reprocessing")
    for row in ledger.rows() if ledger is not None else ():
        if row.source == source:
            counts[row.kind] = counts.get(row.kind, 0) + row.count
