"""Orders to decode again, made ready and followed: what the log holds of their readings is read before any is given.

Redecodes (orders) ─▶ Redecoding.next: read what is known ─▶ RedecodeSource ─▶ the walk ─▶ revisions ─▶ done, counted
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from sensegate.authority.scope import Principal, Scope
from sensegate.bus.names import LOGGED
from sensegate.bus.unreadable import read_ledger, read_rows
from sensegate.clock import Clock
from sensegate.config import StoreConfig
from sensegate.errors import ConfigError, Overloaded
from sensegate.lifecycle.comparisons import MessageRange
from sensegate.lifecycle.releases import Releases, canary_watcher
from sensegate.lifecycle.reprocessing_interpreter import ReprocessingInterpreter
from sensegate.lifecycle.reprocessing_orders import ReprocessingInput, ReprocessingOrder, ReprocessingOrders
from sensegate.model import Entry, Message
from sensegate.persist.previous_readings import Priors
from sensegate.ports import Log

HOUR_US = 3_600_000_000
LOOK_S = 0.02

_log = structlog.get_logger("redecode")


class Reprocessing:
    """Takes orders, prepares them and follows them; `ReprocessingSource` delivers their messages."""

    def __init__(
        self,
        redecodes: ReprocessingOrders,
        releases: Releases,
        log: Log,
        clock: Clock,
        *,
        partition: str,
        store: StoreConfig,
        horizon_h: int,
        interpreter: ReprocessingInterpreter,
    ) -> None:
        """`horizon_h`: how far before a message its first delivery may lie, as duplicates are judged."""
        self._redecodes = redecodes
        self._releases = releases
        self._log = log
        self._clock = clock
        self._partition = partition
        self._store = store
        self._horizon_h = horizon_h
        self._interpreter = interpreter
        self._wake = asyncio.Event()
        self.shares: dict[str, float] = {}
        """Order -> what is done, 0 to 1, in this process."""
        redecodes.on_change.append(lambda _order: self._wake.set())

    async def order(
        self,
        profile: str,
        stretch: MessageRange,
        what: ReprocessingInput,
        *,
        by: Principal,
        target: Scope | None = None,
        note: str = "",
    ) -> ReprocessingOrder:
        """Give an order for this worker.

        Raises:
            PermissionDenied, Overloaded: as `Redecodes.order`.
            ConfigError: it lies beyond what is kept.
        """
        where = self._releases.target(by, target)
        now = self._clock.now()
        kept_h = min(self._store.raw_ttl_h, self._store.readings_ttl_h)
        if what is not ReprocessingInput.QUARANTINE and stretch.since < now - kept_h * HOUR_US:
            raise ConfigError(
                f"messages that were good are kept for {kept_h} h",
                key="since",
                remedy=f"since={kept_h - 1}h at most, or only those in quarantine ({self._store.quarantine_ttl_h} h)",
            )
        wanted = ReprocessingOrder(
            "",
            profile,
            where,
            stretch.since,
            min(stretch.until, now),
            what,
            self._partition,
            self._log.epoch,
            (await self._log.bounds())[1],
            now,
            by.id,
            stretch.devices,
        )
        return await self._redecodes.order(wanted, by=by, note=note)

    # ── the source's desk ───────────────────────────────────────────────────────────────────────────

    async def next(self) -> tuple[ReprocessingOrder, int]:
        while True:
            self._wake.clear()
            order = self._redecodes.next(self._partition)
            if order is None:
                self._interpreter.end()
                await self._wake.wait()
                continue
            if order.epoch != self._log.epoch:
                await self._redecodes.failed(order, "the log is another one than when it was ordered")
                continue
            if not await self._redecodes.begin(order):
                continue
            try:
                await self._read_prior_readings(order)
            except Overloaded as why:
                self._interpreter.end()
                await self._redecodes.failed(order, str(why))
                continue
            return order, await self._log.sequence_at(order.since) - 1

    async def _read_prior_readings(self, order: ReprocessingOrder) -> None:
        """Read all that the log holds of the order's devices, from a horizon before its messages to now."""
        priors = self._interpreter.begin(order)
        while (until := self._interpreter.listening_after) is None:
            await self._clock.sleep(LOOK_S)
        at = await self._log.sequence_at(order.since - self._horizon_h * HOUR_US) - 1
        while at < until:
            entries = await self._log.fetch(at)
            if not entries:
                break
            for entry in entries:
                if entry.sequence <= until:
                    await self._one(entry, priors)
            at = entries[-1].sequence
        priors.begun()

    async def _one(self, entry: Entry, priors: Priors) -> None:
        kind, _, rest = entry.subject.partition(".")
        if kind in LOGGED or (kind == "seen" and rest == self._partition):
            batch = await asyncio.to_thread(read_rows, entry, "reprocessing")
            if batch is not None and batch.local is not None and f"{batch.node}-{batch.partition}" == self._partition:
                priors.take(batch, suppressed=kind == "seen")

    def concerning(self, _order: ReprocessingOrder, messages: Sequence[Message]) -> Sequence[Message]:
        return self._interpreter.concerning(messages)

    def is_open(self, order: ReprocessingOrder) -> bool:
        return self._redecodes.is_open(order.id)

    def at(self, order: ReprocessingOrder, share: float) -> None:
        self.shares[order.id] = share

    async def end(self, order: ReprocessingOrder) -> None:
        self._interpreter.end()
        counts = await self._counts(order)
        await self._redecodes.done(order, counts, by=canary_watcher(order.target.division))
        self.shares.pop(order.id, None)
        _log.info("decoded again", order=order.id, profile=order.profile, **counts)

    async def _counts(self, order: ReprocessingOrder) -> dict[str, int]:
        """Return what the ledger says of an order: all of it stands behind the sequence at which it was given."""
        counts: dict[str, int] = {}
        at = order.end
        while entries := await self._log.fetch(at):
            for entry in entries:
                if entry.subject == f"ledger.{self._partition}":
                    _add(counts, entry, order.source)
            at = entries[-1].sequence
        return counts


def _add(counts: dict[str, int], entry: Entry, source: str) -> None:
    """Add what a commit's ledger says of a source."""
    ledger = read_ledger(entry, "reprocessing")
    for row in ledger.rows() if ledger is not None else ():
        if row.source == source:
            counts[row.kind] = counts.get(row.kind, 0) + row.count
