"""A gateway's part in the move of a device: it gives, takes, settles, as the centre's book orders.

give:   no new connection ─▶ what came is committed ─▶ shut out ─▶ entry and identities go to the centre
take:   identities on our log ─▶ entry in our registry ─▶ the device may connect
settle: the entry is retired; back: it may connect here again
recall: is it here? drop: the entry is retired, the move was called off while we were gone

The ledger of both sides shows it: ``moved_out.<target>``, ``moved_in.<source>``; ``moved_forced.<division>`` where the
gateway of that division was gone and gave nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec
import numpy as np
import structlog

from sensegate.authority.devices import Devices, decode_stored
from sensegate.authority.scope import Principal
from sensegate.bus import columns
from sensegate.bus.columns import Batch
from sensegate.bus.ledger import HOUR_US, MOVED_FORCED, MOVED_IN, MOVED_OUT, Ledger
from sensegate.bus.names import LOGGED
from sensegate.bus.unreadable import read_rows
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.model import Member
from sensegate.ports import Log
from sensegate.tiers.move_register import MoveOrder, MovePart, MoveReport, decode_orders

CLOSING_S = 1.2
"""After this time what was being let in has been closed too."""
PART_BYTES = 400_000

_log = structlog.get_logger("tiers")
_encode = msgspec.msgpack.Encoder().encode


class LogIdentity(msgspec.Struct, frozen=True):
    """Who we are on the log, and how long we remember."""

    node: str
    partition: int
    horizon_us: int
    ledger_ttl_h: int

    @property
    def writer_name(self) -> str:
        """Of our partition in subjects."""
        return f"{self.node}-{self.partition}"


class DeviceMover:
    """Does what the centre orders of this gateway; each order may come again."""

    def __init__(
        self,
        devices: Devices,
        log: Log,
        clock: Clock,
        place: LogIdentity,
        *,
        ask: Callable[[str, bytes], Awaitable[bytes]],
        close: Callable[[str], None],
        drained: Callable[[], Awaitable[None]],
        remember: Callable[[Sequence[Batch]], None],
        by: Principal,
    ) -> None:
        """Do nothing yet.

        Args:
            devices: our registry.
            log: ours.
            clock: the time.
            place: who we are.
            ask: (what, payload) -> the centre's answer.
            close: closes the connections of a device.
            drained: returns when all that came until now is committed.
            remember: has the identities of batches known to those who judge duplicates.
            by: whom the trail names.
        """
        self._devices = devices
        self._store = log
        self._clock = clock
        self._place = place
        self._ask = ask
        self._close = close
        self._drained = drained
        self._remember = remember
        self._by = by

    async def run_orders(self) -> None:
        """Do all that is ordered now.

        Raises `Unavailable`, `PermissionDenied` (of the centre): the rest is done the next time.
        """
        for order in decode_orders(await self._ask("orders", b"")):
            try:
                told = await self._run_order(order)
            except (ConfigError, Conflict, NotFound, ValueError) as why:
                _log.error("a device cannot be moved", device=order.device, order=order.action, reason=str(why))
                told = MoveReport(order.id, refused=str(why))
                if order.action == "give":
                    self._devices.moving_out.discard(order.device)  # it stays, and may connect
            await self._ask("told", _encode(msgspec.structs.replace(told, action=order.action)))

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
                raise PermissionDenied(f"'{order.action}' is not known to this release")
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
        """Yield what of our log tells the duplicates of a device."""
        at = await self._store.sequence_at(self._clock.now() - self._place.horizon_us) - 1
        while entries := await self._store.fetch(at):
            for entry in entries:
                at = entry.sequence
                kind, _, rest = entry.subject.partition(".")
                if kind not in LOGGED and not (kind == "seen" and rest == self._place.writer_name):
                    continue
                batch = read_rows(entry, "moves of devices")
                if (
                    batch is None
                    or batch.local is None
                    or batch.node != self._place.node
                    or device not in batch.origins.device
                ):
                    continue
                yield batch.take(np.array(batch.origins.device)[batch.origin] == device)

    # ── the target ──────────────────────────────────────────────────────────────────────────────────

    async def _import(self, order: MoveOrder) -> MoveReport:
        stored = decode_stored(order.stored)
        self._devices.require_acceptable(stored, order.division, order.id)
        batches = []
        members = []
        life_h = self._place.horizon_us // HOUR_US + 1
        for number in range(order.parts):
            batch = columns.decode(await self._ask("part", _encode(MovePart(order.id, number))), sequence=1)
            if batch.local is None or {*batch.origins.device} != {order.device}:
                raise ValueError(f"what came along with {order.device} holds no identities of it, or those of others")
            batch = msgspec.structs.replace(batch, node=self._place.node, partition=self._place.partition)
            batches.append(batch)
            members.append(Member(f"seen.{self._place.writer_name}", columns.encode(batch), life_h))
        for start in range(0, len(members), 500):
            await self._store.write(members[start : start + 500])
        # On the log first: what is only in memory would be forgotten with it.
        self._remember(batches)
        came = await self._devices.move_in(stored, order.division, by=self._by, source=order.other, move=order.id)
        if came:
            for kind in (MOVED_IN, MOVED_FORCED) if order.forced else (MOVED_IN,):
                await self._count(order, kind)
        return MoveReport(order.id)

    async def _count(self, order: MoveOrder, kind: str) -> None:
        ledger = Ledger()
        ledger.add(self._clock.now() // HOUR_US, order.device, "move", f"{kind}.{order.other}")
        ledger.locate([order.device], [order.division])
        await self._store.write(
            [Member(f"ledger.{self._place.writer_name}", ledger.encode(), self._place.ledger_ttl_h)]
        )


def _split(batch: Batch) -> list[bytes]:
    payload = columns.encode(batch)
    if len(payload) <= PART_BYTES or len(batch) < 2:
        return [payload]
    half = len(batch) // 2
    rows = np.arange(len(batch), dtype=np.int64)
    return [*_split(batch.take(rows[:half])), *_split(batch.take(rows[half:]))]
