"""Devices that move from one gateway of the province to another: the centre's book, and what each side has to do.

    asked ─▶ carried ─▶ taken ─▶ done            what the source does ──▶ what the target does ──▶ the source's end
      │         ╰─▶ sent_back ─▶ refused
      ╰─▶ refused

The entry with its credential and the state that tells duplicates go along. Each step may be done again: a gateway that
was away or ended in the middle goes on where the book says that it stands.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec

from sensegate.authority.bucket import Bucket, follow
from sensegate.authority.devices import Stored
from sensegate.authority.divisions import Divisions, contains
from sensegate.authority.scope import Action, Principal, allows, demand
from sensegate.authority.trail import Trail
from sensegate.bus.row import Row
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Refused
from sensegate.model import DeviceState

KEPT_MAX = 1_000


class Stage(StrEnum):
    """Where a move stands."""

    ASKED = "asked"
    CARRIED = "carried"
    """The source has given all; the device is shut out there."""
    TAKEN = "taken"
    """The target has it; the device may connect there."""
    DONE = "done"
    SENT_BACK = "sent_back"
    """The target cannot take it."""
    REFUSED = "refused"


OVER = frozenset({Stage.DONE, Stage.REFUSED})


class Move(msgspec.Struct, frozen=True, omit_defaults=True):
    """One device's move."""

    id: str
    device: str
    source: str
    """Division of the gateway that it leaves."""
    target: str
    """Of the one to which it goes."""
    division: str
    """Where it stands from then on."""
    stage: Stage
    by: str
    made: int
    changed: int
    why: str = ""
    """Why it was refused."""
    identities: int = 0
    """Readings of which the identity went along."""
    parts: int = 0
    stored: bytes = b""
    """The entry with its credentials, while it is on its way."""
    left: str = ""
    """Where the device stood before."""
    department: str = ""
    """Of the device: who may see the move."""
    revision: int = 0
    format: int = 1


class Order(msgspec.Struct, frozen=True):
    """What a gateway has to do."""

    id: str
    what: str
    """``give``, ``take``, ``settle``, ``back``."""
    device: str
    other: str
    """Division of the other gateway."""
    division: str
    parts: int = 0
    stored: bytes = b""


class Told(msgspec.Struct, frozen=True):
    """What came of an order."""

    id: str
    refused: str = ""
    identities: int = 0
    parts: int = 0
    stored: bytes = b""


class Part(msgspec.Struct, frozen=True):
    """Some of what goes along."""

    id: str
    number: int
    payload: bytes = b""


_ORDERS = {
    Stage.ASKED: ("give", True),
    Stage.CARRIED: ("take", False),
    Stage.TAKEN: ("settle", True),
    Stage.SENT_BACK: ("back", True),
}
"""Stage -> (what to do, by the source or by the target)."""
_NEXT = {
    Stage.ASKED: Stage.CARRIED,
    Stage.CARRIED: Stage.TAKEN,
    Stage.TAKEN: Stage.DONE,
    Stage.SENT_BACK: Stage.REFUSED,
}
_REFUSED = {Stage.ASKED: Stage.REFUSED, Stage.CARRIED: Stage.SENT_BACK}

FindDevice = Callable[[str, str], Awaitable[Stored | None]]
"""(division of a gateway, device) -> its entry there."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Move).decode
decode_orders = msgspec.msgpack.Decoder(list[Order]).decode
decode_part = msgspec.msgpack.Decoder(Part).decode
_told = msgspec.msgpack.Decoder(Told).decode


class Moves:
    """The moves of one province."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock, divisions: Divisions, find: FindDevice) -> None:
        """`find`: looks into the registries, or the copies of those of the nodes."""
        self._bucket = bucket
        self._trail = trail
        self._clock = clock
        self._divisions = divisions
        self._find = find
        self._moves: dict[str, Move] = {}
        self._watched = 0
        self._applied = asyncio.Condition()

    def all(self, by: Principal) -> list[Move]:
        """Return those that concern the caller's scope, newest first."""
        return [one for one in sorted(self._moves.values(), key=lambda one: -one.made) if _concerns(by, one)]

    def get(self, move_id: str, by: Principal) -> Move:
        """Return one. Raises `NotFound`."""
        found = self._moves.get(move_id)
        if found is None or not _concerns(by, found):
            raise NotFound(f"no move {move_id[:16]} in your scope")
        return found

    async def ask(
        self, device: str, target: str, division: str, *, by: Principal, source: str = "", gateways: list[str]
    ) -> Move:
        """Order a move; it is done as soon as both gateways are there.

        Args:
            device: its id.
            target: division of the gateway to which it goes.
            division: where it stands from then on.
            by: who orders it; both places must lie in his scope.
            source: division of the gateway that it leaves; empty: looked for.
            gateways: divisions of all gateways.

        Raises:
            NotFound, Refused, Conflict, ConfigError: no such device; not his; it is on its way, or stands behind a
                gateway; the place is not served there.
        """
        place = self._divisions.check(division)[0]
        if target not in gateways:
            raise ConfigError(f"no gateway {target[:16]}", key="target", remedy=f"one of {', '.join(gateways)}")
        if not contains(target, place):
            raise ConfigError(f"{place} is not served by {target}", key="division", remedy=f"a part of {target}")
        where, stored = await self._look(device, [source] if source else gateways, by)
        if where == target:
            raise Conflict(f"{device} is at {target} already; change its division there")
        demand(by, Action.CHANGE_DEVICES, place, stored.device.department)
        if stored.device.gateway:
            raise Conflict(f"{device} stands behind {stored.device.gateway}: it has no way of its own to move")
        if stored.device.state is DeviceState.DISABLED:
            raise Conflict(f"{device} is disabled; enable it first, or register it anew at {target}")
        if any(one.device == device and one.stage not in OVER for one in self._moves.values()):
            raise Conflict(f"{device} is on its way already; see GET /api/v1/moves")
        now = self._clock.now()
        move = Move(
            secrets.token_hex(6),
            device,
            where,
            target,
            place,
            Stage.ASKED,
            by.id,
            now,
            now,
            left=stored.device.division,
            department=stored.device.department,
        )
        facts: dict[str, object] = {"from": where, "to": target, "division": place, "move": move.id}
        await self._trail.record(by, "device.move", device, before={"division": stored.device.division}, after=facts)
        await self._write(move)
        return self._moves[move.id]

    async def _look(self, device: str, gateways: list[str], by: Principal) -> tuple[str, Stored]:
        for one in gateways:
            stored = await self._find(one, device)
            if stored is None or stored.device.state is DeviceState.RETIRED:
                continue
            if not allows(by, Action.CHANGE_DEVICES, stored.device.division, stored.device.department):
                continue  # the same answer as for what does not exist
            return one, stored
        raise NotFound(f"no device {device[:64]} at a gateway that this centre knows")

    # ── orders ──────────────────────────────────────────────────────────────────────────────────────

    def open_for(self, division: str) -> str:
        """Return a word that changes with what a gateway has to do; empty: nothing."""
        return ",".join(f"{one.id}:{one.what}" for one in self._orders(division))

    def _orders(self, division: str) -> list[Order]:
        found = []
        for move in sorted(self._moves.values(), key=lambda one: one.made):
            what, by_source = _ORDERS.get(move.stage, ("", True))
            if not what or (move.source if by_source else move.target) != division:
                continue
            other = move.target if by_source else move.source
            found.append(Order(move.id, what, move.device, other, move.division, move.parts, move.stored))
        return found

    async def orders(self, division: str, _payload: bytes) -> bytes:
        """Answer a gateway that asks what it has to do."""
        return _encode(self._orders(division))

    async def part(self, division: str, payload: bytes) -> bytes:
        """Keep a part of what goes along (from the source), or give it (to the target, which sends none)."""
        part = decode_part(payload)
        move = self._mine(division, part.id)
        key = f"{move.id}.{part.number}"
        if part.payload:
            if division != move.source or move.stage is not Stage.ASKED:
                raise Refused(f"move {move.id} takes nothing from {division} now")
            await self._bucket.put(key, part.payload)
            return b""
        if division != move.target or move.stage is not Stage.CARRIED:
            raise Refused(f"move {move.id} gives nothing to {division} now")
        row = await self._bucket.get(key)
        if row is None or row.value is None:
            raise NotFound(f"part {part.number} of move {move.id} is not here")
        return row.value

    async def told(self, division: str, payload: bytes) -> bytes:
        """Take what came of an order; the same again changes nothing."""
        said = _told(payload)
        move = self._mine(division, said.id)
        _, by_source = _ORDERS.get(move.stage, ("", True))
        if move.stage in OVER or (move.source if by_source else move.target) != division:
            return b""
        stage = _REFUSED.get(move.stage, move.stage) if said.refused else _NEXT[move.stage]
        if stage is move.stage:
            return b""
        after = msgspec.structs.replace(move, stage=stage, changed=self._clock.now(), why=said.refused or move.why)
        if stage is Stage.CARRIED:
            after = msgspec.structs.replace(after, stored=said.stored, identities=said.identities, parts=said.parts)
        if stage in OVER:
            after = msgspec.structs.replace(after, stored=b"")
        await self._write(after)
        if stage in OVER:
            await self._clear(after)
        return b""

    async def _clear(self, move: Move) -> None:
        """Remove what went along, also of a move that its source gave up in the middle; and moves over long ago."""
        number = 0
        while number < move.parts or await self._bucket.get(f"{move.id}.{number}") is not None:
            await self._bucket.delete(f"{move.id}.{number}")
            number += 1
        over = sorted((one for one in self._moves.values() if one.stage in OVER), key=lambda one: one.changed)
        for old in over[:-KEPT_MAX]:
            await self._bucket.delete(old.id)
            self._moves.pop(old.id, None)

    def _mine(self, division: str, move_id: str) -> Move:
        move = self._moves.get(move_id)
        if move is None or division not in (move.source, move.target):
            raise Refused(f"no move {move_id[:16]} concerns {division}")
        return move

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        rows, self._watched = await self._bucket.load_all()
        for row in rows:
            await self._take(row)

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled."""
        await follow(self._bucket, self._watched, self._take, self._clock)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on the moves holds; looked at after every change."""
        async with self._applied:
            await self._applied.wait_for(condition)

    async def _take(self, row: Row) -> None:
        if "." in row.key:
            return
        if row.value is None:
            self._moves.pop(row.key, None)
            return
        known = self._moves.get(row.key)
        if known is not None and known.revision >= row.revision:
            return
        self._moves[row.key] = msgspec.structs.replace(_decode(row.value), revision=row.revision)
        async with self._applied:
            self._applied.notify_all()

    async def _write(self, move: Move) -> None:
        value = _encode(msgspec.structs.replace(move, revision=0))
        revision = await self._bucket.put(move.id, value, expected=move.revision)
        await self._take(Row(move.id, value, revision))


def _concerns(by: Principal, move: Move) -> bool:
    """Return whether a caller may see the device where it stood, or where it stands then."""
    places = (move.left or move.source, move.division)
    return any(allows(by, Action.READ_REGISTRY, place, move.department) for place in places)
