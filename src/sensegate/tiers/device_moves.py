"""A gateway's part in the move of a device: it exports, imports and retires devices by the orders of `move_register`.

give:   close connections ─▶ commit what came ─▶ shut the device out ─▶ send its entry and identities to the centre
take:   identities to our log ─▶ entry to our registry ─▶ the device may connect
settle: retire the entry
back:   let the device in again
recall: report whether the device is here
drop:   retire the entry of a device that came by a move which was cancelled meanwhile

The ledgers of both sides count it: ``moved_out.<target>``, ``moved_in.<source>``, and ``moved_forced.<division>`` where
the gateway of that division was gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec
import numpy as np
import structlog

from sensegate.authority.device_table import decode_stored
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal
from sensegate.bus import columns
from sensegate.bus.columns import Batch
from sensegate.bus.contract import Log
from sensegate.bus.ledger import MOVED_FORCED, MOVED_IN, MOVED_OUT, Ledger
from sensegate.bus.names import ROW_KINDS
from sensegate.bus.unreadable import read_rows
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.model import LogMessage
from sensegate.tiers.move_records import MoveOrder, MovePart, MoveReport, decode_orders

CLOSING_S = 1.2
"""Time after which connections that were being opened are closed, too."""
PART_BYTES = 400_000

_log = structlog.get_logger("tiers")
_encode = msgspec.msgpack.Encoder().encode


class LogIdentity(msgspec.Struct, frozen=True):
    """Names of this gateway on its log, and how long identities are remembered."""

    node: str
    partition: int
    horizon_us: int
    ledger_ttl_h: int

    @property
    def writer_name(self) -> str:
        """Name of this partition in subjects."""
        return f"{self.node}-{self.partition}"


class MoveOperations(msgspec.Struct, frozen=True, eq=False):
    """Operations of the gateway that a move needs."""

    ask: Callable[[str, bytes], Awaitable[bytes]]
    """Sends a question to the centre."""
    close: Callable[[str], None]
    """Closes the connections of a device."""
    drained: Callable[[], Awaitable[None]]
    """Waits until all messages received so far are committed."""
    remember: Callable[[Sequence[Batch]], None]
    """Adds the identities of batches to the dedup index."""


class DeviceMover:
    """Runs the centre's orders to this gateway; each order may be repeated."""

    def __init__(
        self,
        devices: Devices,
        log: Log,
        clock: Clock,
        identity: LogIdentity,
        *,
        operations: MoveOperations,
        by: Principal,
    ) -> None:
        """Prepare to run orders.

        Args:
            devices: registry of this gateway.
            log: of this gateway.
            clock: source of time.
            identity: names of this gateway on its log.
            operations: operations of the rest of the gateway.
            by: actor in the trail.
        """
        self._devices = devices
        self._log = log
        self._clock = clock
        self._identity = identity
        self._ask = operations.ask
        self._close = operations.close
        self._drained = operations.drained
        self._remember = operations.remember
        self._by = by

    async def run_orders(self) -> None:
        """Run all open orders; one that cannot be run, or whose report the centre refuses, does not stop the others.

        Raises `Unavailable`; `PermissionDenied` where the centre returns no orders.
        """
        for order in decode_orders(await self._ask("orders", b"")):
            try:
                report = await self._run_order(order)
            except (ConfigError, Conflict, NotFound, PermissionDenied, ValueError) as why:
                _log.error("order of a device move failed", device=order.device, order=order.action, reason=str(why))
                report = MoveReport(order.id, refused=str(why))
                if order.action == "give":
                    self._devices.moving_out.discard(order.device)  # it stays here and may connect
            try:
                await self._ask("told", _encode(msgspec.structs.replace(report, action=order.action)))
            except PermissionDenied as why:  # the status of the move at the centre shows it
                _log.warning(
                    "report of a device move refused by the centre",
                    device=order.device,
                    order=order.action,
                    reason=str(why),
                )

    async def _run_order(self, order: MoveOrder) -> MoveReport:
        match order.action:
            case "give":
                return await self._export(order)
            case "take":
                return await self._import(order)
            case "settle" | "drop":
                if await self._devices.move_out(order.device, by=self._by, to=order.other, move=order.id):
                    self._close(order.device)
                    await self._count(order, MOVED_OUT)
                self._devices.moving_out.discard(order.device)
            case "back":
                opened = await self._devices.readmit(
                    order.device, by=self._by, move=order.id, stored=order.stored, bare=order.without_credential
                )
                if opened and order.forced:
                    await self._count(order, MOVED_FORCED)
                self._devices.moving_out.discard(order.device)
            case "recall":
                return MoveReport(order.id, has_device=self._devices.arrived_by(order.device, order.id))
            case _:
                raise PermissionDenied(f"the order '{order.action}' is not known to this release; update this gateway")
        return MoveReport(order.id)

    # ── the source ──────────────────────────────────────────────────────────────────────────────────

    async def _export(self, order: MoveOrder) -> MoveReport:
        device = order.device
        self._devices.require_movable(device, order.id)
        self._devices.moving_out.add(device)
        self._close(device)
        await self._clock.sleep(CLOSING_S)
        await self._drained()
        stored = await self._devices.shut_out(device, by=self._by, move=order.id)
        number = identities = 0
        async for batch in self._identities(device):
            identities += len(batch)
            for payload in _split(batch):
                await self._ask("part", _encode(MovePart(order.id, number, payload)))
                number += 1
        return MoveReport(order.id, identities=identities, parts=number, stored=stored)

    async def _identities(self, device: str) -> AsyncIterator[Batch]:
        """Yield the rows of our log that hold the identities of a device."""
        after = await self._log.sequence_at(self._clock.now() - self._identity.horizon_us) - 1
        while entries := await self._log.fetch(after):
            for entry in entries:
                after = entry.sequence
                kind, _, rest = entry.subject.partition(".")
                if kind not in ROW_KINDS and not (kind == "seen" and rest == self._identity.writer_name):
                    continue
                batch = read_rows(entry, "moves of devices")
                if (
                    batch is None
                    or batch.local is None
                    or batch.node != self._identity.node
                    or device not in batch.origins.device
                ):
                    continue
                yield batch.take(np.array(batch.origins.device)[batch.origin] == device)

    # ── the target ──────────────────────────────────────────────────────────────────────────────────

    async def _import(self, order: MoveOrder) -> MoveReport:
        if self._devices.arrived_by(order.device, order.id):
            # A repeated order: a refusal now, e.g. of a part, would say that the device is not here.
            return MoveReport(order.id)
        stored = decode_stored(order.stored)
        if stored.device.id != order.device:
            raise ValueError(f"the entry of {stored.device.id[:64]} came instead of that of {order.device}")
        self._devices.require_acceptable(stored, order.division, order.id)
        batches = []
        members = []
        ttl_h = self._identity.horizon_us // HOUR_US + 1
        for number in range(order.parts):
            batch = columns.decode(await self._ask("part", _encode(MovePart(order.id, number))), sequence=1)
            if batch.local is None or {*batch.origins.device} != {order.device}:
                raise ValueError(
                    f"part {number} of the move has no identities, or not those of {order.device}; order again"
                )
            batch = msgspec.structs.replace(batch, node=self._identity.node, partition=self._identity.partition)
            batches.append(batch)
            members.append(LogMessage(f"seen.{self._identity.writer_name}", columns.encode(batch), ttl_h))
        for start in range(0, len(members), 500):
            await self._log.write(members[start : start + 500])
        # On the log first: identities that are only in memory would be lost with the process.
        self._remember(batches)
        is_new = await self._devices.move_in(stored, order.division, by=self._by, source=order.other, move=order.id)
        if is_new:
            for kind in (MOVED_IN, MOVED_FORCED) if order.forced else (MOVED_IN,):
                await self._count(order, kind)
        return MoveReport(order.id)

    async def _count(self, order: MoveOrder, kind: str) -> None:
        ledger = Ledger()
        ledger.add(self._clock.now() // HOUR_US, order.device, "move", f"{kind}.{order.other}")
        ledger.set_places([order.device], [order.division])
        await self._log.write(
            [LogMessage(f"ledger.{self._identity.writer_name}", ledger.encode(), self._identity.ledger_ttl_h)]
        )


def _split(batch: Batch) -> list[bytes]:
    payload = columns.encode(batch)
    if len(payload) <= PART_BYTES or len(batch) < 2:
        return [payload]
    half = len(batch) // 2
    rows = np.arange(len(batch), dtype=np.int64)
    return [*_split(batch.take(rows[:half])), *_split(batch.take(rows[half:]))]
