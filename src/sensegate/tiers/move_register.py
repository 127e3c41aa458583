"""Devices that move from one gateway of the province to another: the centre's book, and what each side has to do.

    asked ─▶ carried ─▶ taken ─▶ done            what the source does ──▶ what the target does ──▶ the source's end
      │         ├─▶ sent_back ─▶ refused
      │         ╰─▶ recalled ─▶ sent_back ─▶ cancelled         only the target knows whether it has taken the device
      ├─▶ refused
      ╰─▶ cancelled

The entry with its credential and the state that tells duplicates go along. Each step may be done again: a gateway that
was away or ended in the middle goes on where the book says that it stands.

A gateway is gone when no credential of it is right any more: it left, or was expelled. A device of one that is gone is
moved by force, from the copy of its entry that is here. What a gateway that is gone, or away, has still to do so that
never two of them take the device is owed: it is told as soon as it is back, before anything later.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from sensegate.authority.bucket import Bucket, follow
from sensegate.authority.credentials import Credentials
from sensegate.authority.devices import StoredDevice, decode_stored, encode_stored
from sensegate.authority.divisions import Divisions, contains
from sensegate.authority.scope import Action, Principal, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.bus.row import Row
from sensegate.bus.unreadable import read_row
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.model import DeviceState

ENDED_MAX = 1_000
ORDERS_MAX = 200
"""So many orders are given at once; the rest when these are done."""


class MoveStage(StrEnum):
    """Where a move stands."""

    ASKED = "asked"
    CARRIED = "carried"
    """The source has given all; the device is shut out there."""
    TAKEN = "taken"
    """The target has it; the device may connect there."""
    DONE = "done"
    SENT_BACK = "sent_back"
    """The target cannot take it, or gave way to a cancellation."""
    RECALLED = "recalled"
    """Cancelled after the source had given all: the target is asked whether it has the device."""
    REFUSED = "refused"
    CANCELLED = "cancelled"


ENDED_STAGES = frozenset({MoveStage.DONE, MoveStage.REFUSED, MoveStage.CANCELLED})


class UncarriedState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a forced move leaves behind, beside the state that tells duplicates."""

    since: int = 0
    """When the last span of that gateway came up (µs UTC): what it committed later is not here; 0: nothing ever did."""
    pending: int = 0
    """Entries of its backlog that had not come up, besides."""

    def __str__(self) -> str:
        when = f"{datetime.fromtimestamp(self.since / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}" if self.since else "it joined"
        more = f", and {self.pending} entries of its backlog" if self.pending else ""
        return f"the state that tells duplicates; what its gateway took since {when}{more}"


class MoveRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One device's move."""

    id: str
    device: str
    source: str
    """Division of the gateway that it leaves."""
    target: str
    """Of the one to which it goes."""
    division: str
    """Where it stands from then on."""
    stage: MoveStage
    by: str
    requested_at: int
    changed_at: int
    reason: str = ""
    """Why it was refused."""
    identities: int = 0
    """Readings of which the identity went along."""
    parts: int = 0
    stored: bytes = b""
    """The entry with its credentials, while it is on its way."""
    former_division: str = ""
    """Where the device stood before."""
    department: str = ""
    """Of the device: who may see the move."""
    forced: UncarriedState | None = None
    """Its source, or where it is sent back its target, is gone: what did not go along."""
    without_credential: bool = False
    """It goes without its credential, because the gateway that is gone may still run."""
    cancelled: bool = False
    owed_source: str = ""
    """What the source has to do when it is back: ``settle`` or ``back``."""
    owed_target: str = ""
    """What the target has to do then: ``drop``."""
    revision: int = 0
    format: int = 1

    @property
    def owed(self) -> str:
        """What is still to be told to whom, for people; empty: nothing."""
        pairs = ((self.source, self.owed_source), (self.target, self.owed_target))
        return "; ".join(f"{where} is told to {_DEBTS[what]} when it is back" for where, what in pairs if what)


class MoveOrder(msgspec.Struct, frozen=True):
    """What a gateway has to do."""

    id: str
    action: str
    """``give``, ``take``, ``settle``, ``back``, ``recall``, ``drop``."""
    device: str
    other: str
    """Division of the other gateway."""
    division: str
    parts: int = 0
    stored: bytes = b""
    forced: bool = False
    without_credential: bool = False
    """Of ``back``: without the credential."""


class MoveReport(msgspec.Struct, frozen=True):
    """What came of an order."""

    id: str
    refused: str = ""
    identities: int = 0
    parts: int = 0
    stored: bytes = b""
    action: str = ""
    """Of the order; empty: a release before this one."""
    has_device: bool = False
    """Of ``recall``: the device is here, it came by this move."""


class MovePart(msgspec.Struct, frozen=True):
    """Some of what goes along."""

    id: str
    number: int
    payload: bytes = b""


_ORDERS = {
    MoveStage.ASKED: ("give", True),
    MoveStage.CARRIED: ("take", False),
    MoveStage.TAKEN: ("settle", True),
    MoveStage.SENT_BACK: ("back", True),
    MoveStage.RECALLED: ("recall", False),
}
"""Stage -> (what to do, by the source or by the target)."""
_NEXT = {
    MoveStage.ASKED: MoveStage.CARRIED,
    MoveStage.CARRIED: MoveStage.TAKEN,
    MoveStage.TAKEN: MoveStage.DONE,
    MoveStage.SENT_BACK: MoveStage.REFUSED,
}
_REFUSED = {MoveStage.ASKED: MoveStage.REFUSED, MoveStage.CARRIED: MoveStage.SENT_BACK}
_DEBTS = {"settle": "retire the device", "back": "let the device in again", "drop": "retire the device"}


class RegistryAccess(Protocol):
    """What the book has to know of the gateways, and of what is here of their registries."""

    async def find(self, division: str, device: str) -> StoredDevice | None:
        """Return a device's entry, as it is here."""
        ...

    async def amend(self, division: str, stored: StoredDevice) -> None:
        """Make an entry of a node's copy another: a node in its place begins with it."""
        ...

    def is_gone(self, division: str) -> bool:
        """Return whether a gateway is no member any more: no credential of it is right."""
        ...

    def is_new(self, division: str) -> bool:
        """Return whether no gateway of a division was ever here: it can have taken nothing."""
        ...

    async def uncarried(self, division: str) -> UncarriedState:
        """Return what of a gateway did not come up."""
        ...


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MoveRecord).decode
decode_orders = msgspec.msgpack.Decoder(list[MoveOrder]).decode
decode_part = msgspec.msgpack.Decoder(MovePart).decode
_move_report = msgspec.msgpack.Decoder(MoveReport).decode


class MoveRegister:
    """The moves of one province."""

    def __init__(
        self, bucket: Bucket, trail: Trail, clock: Clock, divisions: Divisions, registries: RegistryAccess
    ) -> None:
        """`registries`: ours, or the copies of those of the nodes."""
        self._bucket = bucket
        self._trail = trail
        self._clock = clock
        self._divisions = divisions
        self._registries = registries
        self._moves: dict[str, MoveRecord] = {}
        self.on_change: list[Callable[[MoveRecord], None]] = []
        """Called with each move as it stands now: all of them at `load`, then each that changes."""
        self._watched = 0
        self._applied = asyncio.Condition()

    def all(self, by: Principal) -> list[MoveRecord]:
        """Return those that concern the caller's scope, newest first."""
        return [move for move in sorted(self._moves.values(), key=lambda one: -one.requested_at) if _concerns(by, move)]

    def get(self, move_id: str, by: Principal) -> MoveRecord:
        """Return one. Raises `NotFound`."""
        found = self._moves.get(move_id)
        if found is None or not _concerns(by, found):
            raise NotFound(f"no move {move_id[:16]} in your scope")
        return found

    async def request(
        self,
        device: str,
        target: str,
        division: str,
        *,
        by: Principal,
        source: str = "",
        gateways: list[str],
        force: bool = False,
        keep_credential: bool = False,
    ) -> MoveRecord:
        """Order a move; it is done as soon as both gateways are there.

        Args:
            device: its id.
            target: division of the gateway to which it goes.
            division: where it stands from then on.
            by: who orders it; both places must lie in his scope.
            source: division of the gateway that it leaves; empty: looked for.
            gateways: divisions of all gateways.
            force: that gateway is gone: the entry goes as it is known here, and nothing else; see `Move.forced`.
            keep_credential: the gateway that is gone cannot take the device any more, so its credential goes along.

        Raises:
            NotFound, PermissionDenied, Conflict, ConfigError: no such device; not his; it is on its way, or stands
                behind a
                gateway; the place is not served there; forced although its gateway is a member.
        """
        await self.settle_abandoned()
        place = self._divisions.check(division)[0]
        if target not in gateways:
            raise ConfigError(f"no gateway {target[:16]}", key="target", remedy=f"one of {', '.join(gateways)}")
        if not contains(target, place):
            raise ConfigError(f"{place} is not served by {target}", key="division", remedy=f"a part of {target}")
        where, stored = await self._find_device(device, [source] if source else gateways, by)
        if where == target:
            raise Conflict(f"{device} is at {target} already; change its division there")
        demand(by, Action.CHANGE_DEVICES, place, stored.device.department)
        if stored.device.gateway:
            raise Conflict(f"{device} stands behind {stored.device.gateway}: it has no way of its own to move")
        if stored.device.state is DeviceState.DISABLED and not (force and stored.moved_out_by):
            raise Conflict(f"{device} is disabled; enable it first, or register it anew at {target}")
        for one in self._moves.values():
            if one.device == device and one.stage not in ENDED_STAGES:
                raise Conflict(f"{device} is on its way already; wait, or `sensegate device move --cancel {one.id}`")
        gone = self._registries.is_gone(where)
        if gone and not force:
            raise Conflict(f"{where} is no member any more and gives nothing; move {device} by force")
        if force and not gone:
            raise Conflict(f"{where} is a member: it could take {device} too; `sensegate node expel {where}` first")
        if self._registries.is_gone(target):
            raise Conflict(f"{target} is no member any more: it takes nothing")
        now = self._clock.now()
        move = MoveRecord(
            secrets.token_hex(6),
            device,
            where,
            target,
            place,
            MoveStage.ASKED,
            by.id,
            now,
            now,
            former_division=stored.device.division,
            department=stored.device.department,
        )
        facts: Facts = {"from": where, "to": target, "division": place, "move": move.id}
        before: Facts = {"division": stored.device.division}
        if not force:
            await self._trail.record(by, "device.move", device, before=before, after=facts)
            return await self._write(move)
        left = await self._registries.uncarried(where)
        facts |= {"forced": True, "not_carried": str(left), "credential": "kept" if keep_credential else "void"}
        await self._trail.record(by, "device.move", device, before=before, after=facts)
        # Shut out for an earlier move, perhaps; should this one come to nothing, it is to be open again.
        known = msgspec.structs.replace(stored.device, state=DeviceState.REGISTERED)
        entry = StoredDevice(known, stored.credentials if keep_credential else Credentials())
        # What the one that is gone owed of earlier moves could open it again there.
        for one in [
            move for move in self._moves.values() if move.device == device and where in {move.source, move.target}
        ]:
            await self._drop_debts(one, where)
        move = msgspec.structs.replace(
            move,
            stage=MoveStage.CARRIED,
            stored=encode_stored(entry),
            forced=left,
            without_credential=not keep_credential,
            owed_source="settle",
        )
        # First the copy: a node in place of the lost one begins with the device retired.
        retired = msgspec.structs.replace(stored.device, state=DeviceState.RETIRED)
        await self._registries.amend(where, StoredDevice(retired, moved_out_by=move.id))
        return await self._write(move)

    async def _drop_debts(self, move: MoveRecord, division: str) -> None:
        kept = {
            "owed_source": "" if move.source == division else move.owed_source,
            "owed_target": "" if move.target == division else move.owed_target,
        }
        if (kept["owed_source"], kept["owed_target"]) != (move.owed_source, move.owed_target):
            await self._end(msgspec.structs.replace(move, **kept))

    async def cancel(
        self, move_id: str, *, by: Principal, force: bool = False, keep_credential: bool = False
    ) -> MoveRecord:
        """Call a move off: the device stays where it was, or returns there.

        Args:
            move_id: which.
            by: who; either place must lie in his scope.
            force: the target is gone, and nobody can tell whether it took the device: it returns all the same.
            keep_credential: that gateway cannot take the device any more, so its credential stays good.

        Raises:
            NotFound, PermissionDenied: as `get`; not his.
            Conflict: it is over, or too late; or the target has to answer first and is away.
        """
        await self.settle_abandoned()
        move = self.get(move_id, by)
        places = (move.former_division or move.source, move.division)
        if not any(allows(by, Action.CHANGE_DEVICES, place, move.department) for place in places):
            raise PermissionDenied(
                f"move {move.id} is called off by who may change devices of {places[0]} or {places[1]}"
            )
        if move.stage in ENDED_STAGES or move.stage is MoveStage.SENT_BACK:
            raise Conflict(f"move {move.id} is {move.stage}")
        new = self._registries.is_new(move.target)
        lost = move.stage is not MoveStage.ASKED and not new and self._registries.is_gone(move.target)
        if move.stage is MoveStage.TAKEN and not lost:
            raise Conflict(f"{move.target} has {move.device} already; move it back when this move is done")
        if lost and not force:
            raise Conflict(f"{move.target} is no member any more and may have taken {move.device}; cancel by force")
        if move.stage is MoveStage.RECALLED and not lost and not new:
            raise Conflict(f"{move.target} is asked already; `sensegate node expel {move.target}` if it is lost")
        facts: Facts = {"move": move.id, "stage": move.stage.value}
        left = await self._registries.uncarried(move.target) if lost else None
        if left is not None:
            facts |= {"forced": True, "not_carried": str(left), "credential": "kept" if keep_credential else "void"}
        await self._trail.record(by, "device.move.cancel", move.device, after=facts)
        after = msgspec.structs.replace(
            move, cancelled=True, changed_at=self._clock.now(), reason=f"cancelled by {by.id}"
        )
        if move.stage is MoveStage.ASKED:
            # The source may be in the middle of it: it opens again what it has shut, whenever it is there.
            return await self._end(msgspec.structs.replace(after, stage=MoveStage.CANCELLED, owed_source="back"))
        if new:
            return await self._send_back(after)
        if left is None:
            return await self._write(msgspec.structs.replace(after, stage=MoveStage.RECALLED))
        await self._retire_copy(move, move.target)
        after = msgspec.structs.replace(after, forced=left, without_credential=not keep_credential, owed_target="drop")
        return await self._send_back(after)

    async def _retire_copy(self, move: MoveRecord, division: str) -> None:
        """Have a node in place of a lost one begin without the device: it is elsewhere."""
        known = await self._registries.find(division, move.device)
        if known is not None and move.id in {known.moved_in_by, known.moved_out_by}:
            retired = msgspec.structs.replace(known.device, state=DeviceState.RETIRED)
            await self._registries.amend(division, StoredDevice(retired, moved_out_by=move.id))

    async def _send_back(self, move: MoveRecord) -> MoveRecord:
        """Have the source let the device in again; one that is gone is told when it is back."""
        if not self._registries.is_gone(move.source):
            return await self._write(msgspec.structs.replace(move, stage=MoveStage.SENT_BACK))
        over = MoveStage.CANCELLED if move.cancelled else MoveStage.REFUSED
        if move.stored:
            # Of a forced move: what is here of its registry says again what it said.
            await self._registries.amend(move.source, decode_stored(move.stored))
        return await self._end(msgspec.structs.replace(move, stage=over, owed_source="back"))

    async def _shut_copy(self, move: MoveRecord) -> None:
        """Have a node in place of the source begin with the device shut out, though its copy may not say so yet."""
        known = await self._registries.find(move.source, move.device)
        if known is not None and known.moved_out_by != move.id:
            shut = msgspec.structs.replace(known.device, state=DeviceState.DISABLED)
            entry = msgspec.structs.replace(known, device=shut, moved_out_by=move.id)
            await self._registries.amend(move.source, entry)

    async def settle_abandoned(self) -> None:
        """End the moves that wait for the last step of a source that is gone: it is told when it is back."""
        for move in [move for move in self._moves.values() if move.stage in {MoveStage.TAKEN, MoveStage.SENT_BACK}]:
            if self._registries.is_gone(move.source):
                now = msgspec.structs.replace(move, changed_at=self._clock.now())
                await (self._send_back(now) if move.stage is MoveStage.SENT_BACK else self._finish_without_source(now))

    async def _finish_without_source(self, move: MoveRecord) -> None:
        """End a move whose target has the device and whose source is gone."""
        await self._retire_copy(move, move.source)
        # Told twice it does nothing the second time; told never it would take the device when it is back.
        await self._end(msgspec.structs.replace(move, stage=MoveStage.DONE, owed_source="settle"))

    async def _find_device(self, device: str, gateways: list[str], by: Principal) -> tuple[str, StoredDevice]:
        for division in gateways:
            stored = await self._registries.find(division, device)
            if stored is None or stored.device.state is DeviceState.RETIRED:
                continue
            if not allows(by, Action.CHANGE_DEVICES, stored.device.division, stored.device.department):
                continue  # the same answer as for what does not exist
            return division, stored
        raise NotFound(f"no device {device[:64]} at a gateway that this centre knows")

    # ── orders ──────────────────────────────────────────────────────────────────────────────────────

    def orders_digest(self, division: str) -> str:
        """Return a word that changes with what a gateway has to do; empty: nothing."""
        return ",".join(f"{order.id}:{order.action}" for order in self._orders(division))

    def _orders(self, division: str) -> list[MoveOrder]:
        """Return what a gateway has to do, what is oldest first: it may owe something of a device that comes back."""
        found: list[MoveOrder] = []
        for move in sorted(self._moves.values(), key=lambda one: (one.requested_at, one.id)):
            for what, by_source in _due(move):
                if what == "give" and self._registries.is_gone(move.target):
                    continue  # nobody would take it
                if (move.source if by_source else move.target) != division:
                    continue
                other = move.target if by_source else move.source
                forced, bare = move.forced is not None, move.without_credential
                found.append(
                    MoveOrder(
                        move.id,
                        what,
                        move.device,
                        other,
                        move.division,
                        move.parts,
                        move.stored,
                        forced,
                        without_credential=bare,
                    )
                )
            if len(found) >= ORDERS_MAX:
                break
        return found

    async def answer_orders(self, division: str, _payload: bytes) -> bytes:
        """Answer a gateway that asks what it has to do."""
        return _encode(self._orders(division))

    async def answer_part(self, division: str, payload: bytes) -> bytes:
        """Keep a part of what goes along (from the source), or give it (to the target, which sends none)."""
        part = decode_part(payload)
        move = self._move_of(division, part.id)
        key = f"{move.id}.{part.number}"
        if part.payload:
            if division != move.source or move.stage is not MoveStage.ASKED:
                raise PermissionDenied(f"move {move.id} takes nothing from {division} now")
            await self._bucket.put(key, part.payload)
            return b""
        if division != move.target or move.stage is not MoveStage.CARRIED:
            raise PermissionDenied(f"move {move.id} gives nothing to {division} now")
        row = await self._bucket.get(key)
        if row is None or row.value is None:
            raise NotFound(f"part {part.number} of move {move.id} is not here")
        return row.value

    async def take_report(self, division: str, payload: bytes) -> bytes:
        """Take what came of an order; the same again changes nothing."""
        said = _move_report(payload)
        move = self._move_of(division, said.id)
        if move.stage in ENDED_STAGES or (said.action and said.action in {move.owed_source, move.owed_target}):
            await self._settle_debt(move, division, said)
            return b""
        what, by_source = _ORDERS[move.stage]
        if (move.source if by_source else move.target) == division:
            if move.stage is MoveStage.RECALLED:
                await self._take_recall_report(move, said)
            elif said.action in {"", what}:  # else an answer to what was ordered before
                await self._advance(move, said)
        return b""

    async def _advance(self, move: MoveRecord, said: MoveReport) -> None:
        """Take what came of the order of a move's stage."""
        stage = _REFUSED.get(move.stage, move.stage) if said.refused else _NEXT[move.stage]
        if stage is move.stage:
            return
        if stage is MoveStage.REFUSED and move.cancelled:
            stage = MoveStage.CANCELLED
        after = msgspec.structs.replace(move, changed_at=self._clock.now(), reason=said.refused or move.reason)
        if stage is MoveStage.SENT_BACK:
            await self._send_back(after)
            return
        after = msgspec.structs.replace(after, stage=stage)
        if stage is MoveStage.CARRIED:
            after = msgspec.structs.replace(after, stored=said.stored, identities=said.identities, parts=said.parts)
            await self._shut_copy(after)
        if stage is MoveStage.TAKEN:
            await self._finish_at_target(after)
        elif stage in ENDED_STAGES:
            await self._end(after)
        else:
            await self._write(after)

    async def _finish_at_target(self, move: MoveRecord) -> None:
        """Note that the target has the device; what is left to the source is owed where it is gone."""
        known = await self._registries.find(move.target, move.device)
        if known is None or known.device.state is DeviceState.RETIRED:
            # Its registry has not been copied yet: should it be lost now, this is all that is known.
            stored = decode_stored(move.stored)
            moved = msgspec.structs.replace(
                stored.device, division=move.division, state=DeviceState.REGISTERED, revision=0
            )
            await self._registries.amend(move.target, StoredDevice(moved, stored.credentials, moved_in_by=move.id))
        if self._registries.is_gone(move.source):
            await self._finish_without_source(move)
        else:
            await self._write(msgspec.structs.replace(move, owed_source=""))

    async def _take_recall_report(self, move: MoveRecord, said: MoveReport) -> None:
        """Take the target's word whether it has the device; only that word decides who takes it."""
        has = said.has_device if said.action == "recall" else not said.refused
        if said.action == "recall" and said.refused:
            return  # asked again
        after = msgspec.structs.replace(move, changed_at=self._clock.now())
        if has:
            why = f"{move.reason}, too late: {move.target} had it already"
            await self._finish_at_target(
                msgspec.structs.replace(after, stage=MoveStage.TAKEN, cancelled=False, reason=why)
            )
        else:
            await self._send_back(after)

    async def _settle_debt(self, move: MoveRecord, division: str, said: MoveReport) -> None:
        """Note that a gateway has done what it owed."""
        if said.refused:
            return  # tried again
        owed_source, owed_target = move.owed_source, move.owed_target
        if division == move.source and said.action in {"", owed_source}:
            owed_source = ""
        if division == move.target and said.action == owed_target:
            owed_target = ""
        if (owed_source, owed_target) == (move.owed_source, move.owed_target):
            return
        after = msgspec.structs.replace(
            move, owed_source=owed_source, owed_target=owed_target, changed_at=self._clock.now()
        )
        await (self._end(after) if move.stage in ENDED_STAGES else self._write(after))

    async def _end(self, move: MoveRecord) -> MoveRecord:
        """Write a move that is over; the entry is kept only for who may have to open it again."""
        if move.owed_source != "back":
            move = msgspec.structs.replace(move, stored=b"")
        kept = await self._write(move)
        await self._remove_parts(kept)
        return kept

    async def _remove_parts(self, move: MoveRecord) -> None:
        """Remove what went along, also of a move that its source gave up in the middle; and moves over long ago."""
        number = 0
        while number < move.parts or await self._bucket.get(f"{move.id}.{number}") is not None:
            await self._bucket.delete(f"{move.id}.{number}")
            number += 1
        ended = (move for move in self._moves.values() if move.stage in ENDED_STAGES and not move.owed)
        over = sorted(ended, key=lambda one: one.changed_at)
        for old in over[:-ENDED_MAX]:
            await self._bucket.delete(old.id)
            self._moves.pop(old.id, None)

    def _move_of(self, division: str, move_id: str) -> MoveRecord:
        move = self._moves.get(move_id)
        if move is None or division not in (move.source, move.target):
            raise PermissionDenied(f"no move {move_id[:16]} concerns {division}")
        return move

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        rows, self._watched = await self._bucket.load_all()
        for row in rows:
            await self._apply(row)

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled."""
        await follow(self._bucket, self._watched, self._apply, self._clock)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on the moves holds; looked at after every change."""
        async with self._applied:
            await self._applied.wait_for(condition)

    async def _apply(self, row: Row) -> None:
        if "." in row.key:
            return
        if row.value is None:
            self._moves.pop(row.key, None)
            return
        known = self._moves.get(row.key)
        if known is not None and known.revision >= row.revision:
            return
        stored = read_row(row, "move", _decode)
        if stored is None:
            return
        move = self._moves[row.key] = msgspec.structs.replace(stored, revision=row.revision)
        for listener in self.on_change:
            listener(move)
        async with self._applied:
            self._applied.notify_all()

    async def _write(self, move: MoveRecord) -> MoveRecord:
        value = _encode(msgspec.structs.replace(move, revision=0))
        revision = await self._bucket.put(move.id, value, expected=move.revision)
        await self._apply(Row(move.id, value, revision))
        return self._moves[move.id]


def _due(move: MoveRecord) -> list[tuple[str, bool]]:
    """Return what is to be done now, (what, by the source or by the target)."""
    due = [(move.owed_source, True), (move.owed_target, False), _ORDERS.get(move.stage, ("", True))]
    return [item for item in due if item[0]]


def _concerns(by: Principal, move: MoveRecord) -> bool:
    """Return whether a caller may see the device where it stood, or where it stands then."""
    places = (move.former_division or move.source, move.division)
    return any(allows(by, Action.READ_REGISTRY, place, move.department) for place in places)
