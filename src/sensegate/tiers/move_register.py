"""Moves of devices from one gateway of the province to another: the centre's register, and the orders to each side.

    asked ─▶ carried ─▶ taken ─▶ done            order to the source ──▶ to the target ──▶ to the source
      │         ├─▶ sent_back ─▶ refused
      │         ╰─▶ recalled ─▶ sent_back ─▶ cancelled         only the target knows whether it has the device
      ├─▶ sent_back ─▶ refused             a source that refuses may have shut the device out
      ╰─▶ cancelled

The device's entry with its credential moves along, and so do the identities by which duplicates are detected. Each
order may be repeated: a gateway that was away, or crashed midway, continues from the stage in the register.

A gateway is gone when it has no valid credential: it left, or was expelled. A device of a gateway that is gone is moved
by force, from the copy of its entry at the centre. Orders that a gateway which is gone, or away, has still to run so
that never two gateways accept the device are *owed*: it gets them as soon as it is back, before anything later.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol

import msgspec

from sensegate.authority.bucket import Bucket, follow
from sensegate.authority.credentials import Credentials
from sensegate.authority.device_table import StoredDevice, decode_stored, encode_stored
from sensegate.authority.divisions import Divisions, contains
from sensegate.authority.scope import Action, Principal, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.bus.kv_row import KvRow
from sensegate.bus.names import city_of
from sensegate.bus.unreadable import read_row
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.model import DeviceState
from sensegate.tiers.move_parts import MoveParts, is_part
from sensegate.tiers.move_records import (
    ENDED_STAGES,
    REASON_MAX,
    MoveOptions,
    MoveOrder,
    MoveRecord,
    MoveReport,
    MoveStage,
    UncarriedState,
    decode_move,
    decode_part,
    decode_report,
    encode,
)

ENDED_MAX = 1_000
"""Most ended moves that are stored."""
ORDERS_MAX = 200
"""Most orders in one answer; further ones follow when these are done."""
WARNINGS_MAX = 5
"""Most moves that readiness names."""

_ORDERS = {
    MoveStage.ASKED: ("give", True),
    MoveStage.CARRIED: ("take", False),
    MoveStage.TAKEN: ("settle", True),
    MoveStage.SENT_BACK: ("back", True),
    MoveStage.RECALLED: ("recall", False),
}
"""Stage -> (action, whether the source runs it and not the target)."""
_NEXT = {
    MoveStage.ASKED: MoveStage.CARRIED,
    MoveStage.CARRIED: MoveStage.TAKEN,
    MoveStage.TAKEN: MoveStage.DONE,
    MoveStage.SENT_BACK: MoveStage.REFUSED,
}
_REFUSED_NEXT = {MoveStage.ASKED: MoveStage.SENT_BACK, MoveStage.CARRIED: MoveStage.SENT_BACK}


class RegistryAccess(Protocol):
    """The register's access to the gateways' registries, as far as they are known here."""

    async def find(self, division: str, device: str) -> StoredDevice | None:
        """Return a device's entry as it is known here; None: it is not."""
        ...

    async def amend(self, division: str, stored: StoredDevice) -> None:
        """Replace an entry in a node's copy: a node that replaces a lost one starts with it."""
        ...

    def is_gone(self, division: str) -> bool:
        """Return whether a gateway has no valid credential: it left or was expelled."""
        ...

    def is_new(self, division: str) -> bool:
        """Return whether no gateway of a division ever joined, so that it cannot have imported anything."""
        ...

    async def uncarried(self, division: str) -> UncarriedState:
        """Return the state that a gateway has not forwarded, as far as known."""
        ...


class MoveRegister:
    """The moves of one province."""

    def __init__(
        self, bucket: Bucket, trail: Trail, clock: Clock, divisions: Divisions, registries: RegistryAccess
    ) -> None:
        """Create an empty register; `load` fills it.

        Args:
            bucket: of moves, and of the parts that move along.
            trail: records moves and cancellations.
            clock: source of time.
            divisions: the table of divisions.
            registries: our own, and the copies of the nodes'.
        """
        self._bucket = bucket
        self._trail = trail
        self._clock = clock
        self._divisions = divisions
        self._registries = registries
        self._moves: dict[str, MoveRecord] = {}
        self.on_change: list[Callable[[MoveRecord], None]] = []
        """Called with the present state of each move: all at `load`, then each that changes."""
        self._parts = MoveParts(bucket)
        self._requesting: set[str] = set()
        """Devices whose requested move is being written."""
        self._watched = 0
        self._applied = asyncio.Condition()

    def all(self, by: Principal) -> list[MoveRecord]:
        """Return the moves in the caller's scope, newest first."""
        moves = sorted(self._moves.values(), key=lambda move: -move.requested_at)
        return [move for move in moves if _concerns(by, move)]

    def get(self, move_id: str, by: Principal) -> MoveRecord:
        """Return a move. Raises `NotFound` where it is not in the caller's scope."""
        move = self._moves.get(move_id)
        if move is None or not _concerns(by, move):
            raise NotFound(f"there is no move {move_id[:16]} in your scope")
        return move

    def warnings(self) -> list[str]:
        """Return the moves that do not go on, one sentence each, a few by id; only their status says why."""
        failing = sorted(move.id for move in self._moves.values() if move.problem)
        texts = [f"moves: {move} does not go on; `sensegate device moves` says why" for move in failing[:WARNINGS_MAX]]
        more = len(failing) - WARNINGS_MAX
        return [*texts, f"moves: {more} more do not go on"] if more > 0 else texts

    async def request(
        self,
        device: str,
        target: str,
        division: str,
        *,
        by: Principal,
        gateways: list[str],
        options: MoveOptions = MoveOptions(),  # noqa: B008 - frozen
    ) -> MoveRecord:
        """Request a move; it is carried out as soon as both gateways are connected.

        Args:
            device: id of the device.
            target: division of the gateway to which it moves.
            division: division of the device after the move.
            by: who requests it; both divisions must lie in the caller's scope.
            gateways: divisions of all gateways.
            options: what differs from the move of a device between two members.

        Raises:
            NotFound: there is no such device in the caller's scope.
            PermissionDenied: `by` may not change devices of the division.
            ConfigError: the target is not a gateway, or does not serve the division.
            Conflict: the device is being moved already, is disabled or is connected through another device; or the
                source or target is (or, by force, is not) a member.
        """
        await self.settle_abandoned()
        place = self._divisions.check(division)[0]
        demand(by, Action.CHANGE_DEVICES, place, by.scope.department)
        # Only gateways of the caller's own area are named: of others it does not learn which there are.
        serving = [gateway for gateway in gateways if contains(city_of(gateway), place)]
        if target not in serving:
            raise ConfigError(
                f"{target[:16]} is no gateway that serves {place}", key="target", remedy=f"give {' or '.join(serving)}"
            )
        # Only of these: reading the copy of a registry creates its bucket.
        sources = [gateway for gateway in gateways if options.source in {"", gateway}]
        origin, stored = await self._find_device(device, sources, by)
        if origin == target:
            raise Conflict(f"{device} is at {target} already; change its division there")
        demand(by, Action.CHANGE_DEVICES, place, stored.device.department)
        if stored.device.gateway:
            raise Conflict(f"{device} is connected through {stored.device.gateway} and cannot move without it")
        if stored.device.state is DeviceState.DISABLED and not (options.force and stored.moved_out_by):
            raise Conflict(f"{device} is disabled; enable it first, or register it anew at {target}")
        for move in self._moves.values():
            if move.device == device and move.stage not in ENDED_STAGES:
                raise Conflict(f"{device} is being moved already; wait, or `sensegate device move --cancel {move.id}`")
        is_gone = self._registries.is_gone(origin)
        if is_gone and not options.force:
            raise Conflict(f"{origin} is no longer a member and cannot export {device}; move it by force")
        if options.force and not is_gone:
            raise Conflict(f"{origin} is a member and could accept {device} too; `sensegate node expel {origin}` first")
        if self._registries.is_gone(target):
            raise Conflict(f"{target} is no longer a member and cannot import {device}")
        if device in self._requesting:
            raise Conflict(f"{device} is being moved already by another request; look at its move")
        now = self._clock.now()
        move = MoveRecord(
            secrets.token_hex(6),
            device,
            origin,
            target,
            place,
            MoveStage.ASKED,
            by.id,
            now,
            now,
            former_division=stored.device.division,
            department=stored.device.department,
        )
        # Of two that are requested at once, neither is in the register while the other is checked.
        self._requesting.add(device)
        try:
            return await self._begin(move, stored, by=by, options=options)
        finally:
            self._requesting.discard(device)

    async def _begin(
        self, move: MoveRecord, stored: StoredDevice, *, by: Principal, options: MoveOptions
    ) -> MoveRecord:
        """Record and write a requested move; `stored`: the device's entry as it is known here."""
        device, origin = move.device, move.source
        facts: Facts = {"from": origin, "to": move.target, "division": move.division, "move": move.id}
        before: Facts = {"division": stored.device.division}
        if not options.force:
            await self._trail.record(by, "device.move", device, before=before, after=facts)
            return await self._write(move)
        uncarried = await self._registries.uncarried(origin)
        facts |= {
            "forced": True,
            "not_carried": str(uncarried),
            "credential": "kept" if options.keep_credential else "void",
        }
        await self._trail.record(by, "device.move", device, before=before, after=facts)
        # It may have been shut out for an earlier move; should this one fail, it must be open again.
        known = msgspec.structs.replace(stored.device, state=DeviceState.REGISTERED)
        entry = StoredDevice(known, stored.credentials if options.keep_credential else Credentials())
        # Orders of earlier moves that the source still owes could let the device in again there.
        for earlier in [other for other in self._moves.values() if other.device == device]:
            await self._drop_debts(earlier, origin)
        move = msgspec.structs.replace(
            move,
            stage=MoveStage.CARRIED,
            stored=encode_stored(entry),
            forced=uncarried,
            without_credential=not options.keep_credential,
            owed_source="settle",
        )
        # First the copy: a node that replaces the lost one starts with the device retired.
        retired = msgspec.structs.replace(stored.device, state=DeviceState.RETIRED)
        await self._registries.amend(origin, StoredDevice(retired, moved_out_by=move.id))
        return await self._write(move)

    async def _drop_debts(self, move: MoveRecord, division: str) -> None:
        """Drop the orders that a gateway owes from a move."""
        owed_source = "" if move.source == division else move.owed_source
        owed_target = "" if move.target == division else move.owed_target
        if (owed_source, owed_target) != (move.owed_source, move.owed_target):
            await self._end(msgspec.structs.replace(move, owed_source=owed_source, owed_target=owed_target))

    async def cancel(
        self, move_id: str, *, by: Principal, force: bool = False, keep_credential: bool = False
    ) -> MoveRecord:
        """Cancel a move: the device stays where it was, or returns there.

        Args:
            move_id: id of the move.
            by: who cancels; either division must lie in the caller's scope.
            force: the target is gone, so whether it imported the device is unknown: it returns all the same.
            keep_credential: with `force`: the target cannot accept the device any more, so its credential stays valid.

        Raises:
            NotFound: as `get`.
            PermissionDenied: `by` may not.
            Conflict: the move has ended, or it is too late; or the target must answer first and is away.
        """
        await self.settle_abandoned()
        move = self.get(move_id, by)
        places = (move.former_division or move.source, move.division)
        if not any(allows(by, Action.CHANGE_DEVICES, place, move.department) for place in places):
            raise PermissionDenied(
                f"move {move.id} can be cancelled only by who may change devices of {places[0]} or {places[1]}"
            )
        if move.stage in ENDED_STAGES or move.stage is MoveStage.SENT_BACK:
            raise Conflict(f"move {move.id} is {move.stage}")
        is_new = self._registries.is_new(move.target)
        is_lost = move.stage is not MoveStage.ASKED and not is_new and self._registries.is_gone(move.target)
        if move.stage is MoveStage.TAKEN and not is_lost:
            raise Conflict(f"{move.target} has {move.device} already; move it back when this move is done")
        if is_lost and not force:
            raise Conflict(f"{move.target} is no longer a member and may have {move.device}; cancel by force")
        if move.stage is MoveStage.RECALLED and not is_lost and not is_new:
            raise Conflict(f"{move.target} has been asked already; `sensegate node expel {move.target}` if it is lost")
        facts: Facts = {"move": move.id, "stage": move.stage.value}
        uncarried = await self._registries.uncarried(move.target) if is_lost else None
        if uncarried is not None:
            facts |= {
                "forced": True,
                "not_carried": str(uncarried),
                "credential": "kept" if keep_credential else "void",
            }
        await self._trail.record(by, "device.move.cancel", move.device, after=facts)
        after = msgspec.structs.replace(
            move, cancelled=True, changed_at=self._clock.now(), reason=f"cancelled by {by.id}", problem=""
        )
        if move.stage is MoveStage.ASKED:
            # The source may be in the middle of the export: it lets the device in again when it is back.
            return await self._end(msgspec.structs.replace(after, stage=MoveStage.CANCELLED, owed_source="back"))
        if is_new:
            return await self._send_back(after)
        if uncarried is None:
            return await self._write(msgspec.structs.replace(after, stage=MoveStage.RECALLED))
        await self._retire_copy(move, move.target)
        after = msgspec.structs.replace(
            after, forced=uncarried, without_credential=not keep_credential, owed_target="drop"
        )
        return await self._send_back(after)

    async def _retire_copy(self, move: MoveRecord, division: str) -> None:
        """Retire the device in a node's copy: a node that replaces a lost one starts without it."""
        known = await self._registries.find(division, move.device)
        if known is not None and move.id in {known.moved_in_by, known.moved_out_by}:
            retired = msgspec.structs.replace(known.device, state=DeviceState.RETIRED)
            await self._registries.amend(division, StoredDevice(retired, moved_out_by=move.id))

    async def _send_back(self, move: MoveRecord) -> MoveRecord:
        """Have the source let the device in again, now or when it is back."""
        if not self._registries.is_gone(move.source):
            return await self._write(msgspec.structs.replace(move, stage=MoveStage.SENT_BACK))
        ended = MoveStage.CANCELLED if move.cancelled else MoveStage.REFUSED
        if move.stored:
            # After a forced move: restore the entry in the copy of its registry.
            await self._registries.amend(move.source, decode_stored(move.stored))
        return await self._end(msgspec.structs.replace(move, stage=ended, owed_source="back"))

    async def _shut_copy(self, move: MoveRecord) -> None:
        """Shut the device out in the source's copy: a node that replaces the source starts so."""
        known = await self._registries.find(move.source, move.device)
        if known is not None and known.moved_out_by != move.id:
            shut = msgspec.structs.replace(known.device, state=DeviceState.DISABLED)
            entry = msgspec.structs.replace(known, device=shut, moved_out_by=move.id)
            await self._registries.amend(move.source, entry)

    async def settle_abandoned(self) -> None:
        """End the moves that wait for the last step of a source that is gone; it gets the order when it is back."""
        for move in [move for move in self._moves.values() if move.stage in {MoveStage.TAKEN, MoveStage.SENT_BACK}]:
            if self._registries.is_gone(move.source):
                now = msgspec.structs.replace(move, changed_at=self._clock.now())
                await (self._send_back(now) if move.stage is MoveStage.SENT_BACK else self._finish_without_source(now))

    async def _finish_without_source(self, move: MoveRecord) -> None:
        """End a move whose target has the device and whose source is gone."""
        await self._retire_copy(move, move.source)
        # The order may be repeated; without it the source would accept the device when it is back.
        await self._end(msgspec.structs.replace(move, stage=MoveStage.DONE, owed_source="settle"))

    async def _find_device(self, device: str, gateways: list[str], by: Principal) -> tuple[str, StoredDevice]:
        """Return (division of the gateway, entry) of a device. Raises `NotFound`; `Conflict` where several have it."""
        entries: list[tuple[str, StoredDevice]] = []
        for division in gateways:
            stored = await self._registries.find(division, device)
            if stored is None or stored.device.state is DeviceState.RETIRED:
                continue
            if not _may_change(by, stored):
                continue  # the same answer as for a device that does not exist
            entries.append((division, stored))
        if not entries:
            raise NotFound(f"there is no device {device[:64]} at a gateway known to this centre")
        if len(entries) > 1:
            # A node may have an entry of another's device; which of them moves is not guessed.
            names = " and ".join(division for division, _ in entries)
            raise Conflict(f"{device} is registered at {names}; say which of them it leaves (`--from`)")
        return entries[0]

    # ── orders ──────────────────────────────────────────────────────────────────────────────────────

    def orders_digest(self, division: str) -> str:
        """Return a digest of a gateway's open orders; empty: there are none."""
        return ",".join(f"{order.id}:{order.action}" for order in self._orders(division))

    def _orders(self, division: str) -> list[MoveOrder]:
        """Return the orders of a gateway, oldest first: it may owe one for a device that comes back."""
        orders: list[MoveOrder] = []
        for move in sorted(self._moves.values(), key=lambda move: (move.requested_at, move.id)):
            for action, by_source in _due(move):
                if action == "give" and self._registries.is_gone(move.target):
                    continue  # the target could not import it
                if (move.source if by_source else move.target) != division:
                    continue
                other = move.target if by_source else move.source
                orders.append(
                    MoveOrder(
                        move.id,
                        action,
                        move.device,
                        other,
                        move.division,
                        move.parts,
                        move.stored,
                        move.forced is not None,
                        without_credential=move.without_credential,
                    )
                )
            if len(orders) >= ORDERS_MAX:
                break
        return orders

    async def answer_orders(self, division: str, _payload: bytes) -> bytes:
        """Answer a gateway with its orders."""
        return encode(self._orders(division))

    async def answer_part(self, division: str, payload: bytes) -> bytes:
        """Store a part of the identities from the source, or return it to the target, which sends an empty payload."""
        part = decode_part(payload)
        move = self._move_of(division, part.id)
        if part.payload:
            if division != move.source or move.stage is not MoveStage.ASKED:
                raise PermissionDenied(f"move {move.id} accepts no part from {division} now")
            await self._parts.store(part)
            return b""
        if division != move.target or move.stage is not MoveStage.CARRIED:
            raise PermissionDenied(f"move {move.id} has no part for {division} now")
        return await self._parts.read(move.id, part.number)

    async def _require_exported(self, move: MoveRecord, report: MoveReport) -> None:
        """Require that a source reports the entry of the device that moves, and parts that it has sent."""
        try:
            device = decode_stored(report.stored).device.id
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as why:
            raise PermissionDenied(f"move {move.id}: the exported entry cannot be read: {why}") from why
        if device != move.device:
            raise PermissionDenied(f"move {move.id} is that of {move.device}; {device[:64]} was exported")
        last = report.parts - 1
        if last < -1 or (last >= 0 and not await self._parts.has(move.id, last)):
            raise PermissionDenied(f"move {move.id} does not have the {report.parts} parts that are reported")

    async def take_report(self, division: str, payload: bytes) -> bytes:
        """Apply a gateway's report on an order; a repeated report changes nothing."""
        report = decode_report(payload)
        move = self._move_of(division, report.id)
        if move.stage in ENDED_STAGES or (report.action and report.action in {move.owed_source, move.owed_target}):
            await self._settle_debt(move, division, report)
            return b""
        action, by_source = _ORDERS[move.stage]
        if (move.source if by_source else move.target) == division:
            if move.stage is MoveStage.RECALLED:
                await self._take_recall_report(move, report)
            elif report.action in {"", action}:  # else it answers an earlier order
                try:
                    await self._advance(move, report)
                except PermissionDenied as why:
                    await self._note_problem(move, str(why))
                    raise
        return b""

    async def _note_problem(self, move: MoveRecord, problem: str) -> None:
        """Note why the order of a move was not carried out; the gateway tries again."""
        problem = problem[:REASON_MAX]
        if problem != move.problem:
            await self._write(msgspec.structs.replace(move, problem=problem, changed_at=self._clock.now()))

    async def _advance(self, move: MoveRecord, report: MoveReport) -> None:
        """Apply a report on the order of a move's stage."""
        stage = _REFUSED_NEXT.get(move.stage, move.stage) if report.refused else _NEXT[move.stage]
        if stage is move.stage:
            await self._note_problem(move, report.refused)
            return
        if stage is MoveStage.REFUSED and move.cancelled:
            stage = MoveStage.CANCELLED
        after = msgspec.structs.replace(
            move, changed_at=self._clock.now(), reason=report.refused or move.reason, problem=""
        )
        if stage is MoveStage.SENT_BACK:
            await self._send_back(after)
            return
        after = msgspec.structs.replace(after, stage=stage)
        if stage is MoveStage.CARRIED:
            await self._require_exported(move, report)
            after = msgspec.structs.replace(
                after, stored=report.stored, identities=report.identities, parts=report.parts
            )
            await self._shut_copy(after)
        if stage is MoveStage.TAKEN:
            await self._finish_at_target(after)
        elif stage in ENDED_STAGES:
            await self._end(after)
        else:
            await self._write(after)

    async def _finish_at_target(self, move: MoveRecord) -> None:
        """Note that the target has the device; a source that is gone owes the last step."""
        move = msgspec.structs.replace(move, taken_at=self._clock.now())
        known = await self._registries.find(move.target, move.device)
        if known is None or known.device.state is DeviceState.RETIRED:
            # Its registry has not been copied yet; should it be lost now, the copy must have this entry.
            stored = decode_stored(move.stored)
            moved = msgspec.structs.replace(
                stored.device, division=move.division, state=DeviceState.REGISTERED, revision=0
            )
            await self._registries.amend(move.target, StoredDevice(moved, stored.credentials, moved_in_by=move.id))
        if self._registries.is_gone(move.source):
            await self._finish_without_source(move)
        else:
            await self._write(msgspec.structs.replace(move, owed_source=""))

    async def _take_recall_report(self, move: MoveRecord, report: MoveReport) -> None:
        """Apply the target's report whether it has the device, which alone decides who gets it."""
        has_device = report.has_device if report.action == "recall" else not report.refused
        if report.action == "recall" and report.refused:
            await self._note_problem(move, report.refused)  # it is asked again
            return
        after = msgspec.structs.replace(move, changed_at=self._clock.now(), problem="")
        if has_device:
            reason = f"{move.reason}, too late: {move.target} had it already"
            await self._finish_at_target(
                msgspec.structs.replace(after, stage=MoveStage.TAKEN, cancelled=False, reason=reason)
            )
        else:
            await self._send_back(after)

    async def _settle_debt(self, move: MoveRecord, division: str, report: MoveReport) -> None:
        """Note that a gateway has run an order that it owed."""
        if report.refused:
            if report.action and report.action == (move.owed_source if division == move.source else move.owed_target):
                await self._note_problem(move, report.refused)  # it is tried again
            return
        owed_source, owed_target = move.owed_source, move.owed_target
        if division == move.source and report.action in {"", owed_source}:
            owed_source = ""
        if division == move.target and report.action == owed_target:
            owed_target = ""
        if (owed_source, owed_target) == (move.owed_source, move.owed_target):
            return
        after = msgspec.structs.replace(
            move, owed_source=owed_source, owed_target=owed_target, problem="", changed_at=self._clock.now()
        )
        await (self._end(after) if move.stage in ENDED_STAGES else self._write(after))

    async def _end(self, move: MoveRecord) -> MoveRecord:
        """Write an ended move; the device's entry stays only where the source may have to let it in again."""
        if move.owed_source != "back":
            move = msgspec.structs.replace(move, stored=b"")
        ended = await self._write(msgspec.structs.replace(move, problem=""))
        await self._parts.remove(ended.id, ended.parts)
        await self._remove_oldest()
        return ended

    async def _remove_oldest(self) -> None:
        """Remove the oldest ended moves beyond the limit."""
        ended = (move for move in self._moves.values() if move.stage in ENDED_STAGES and not move.owed)
        by_age = sorted(ended, key=lambda move: move.changed_at)
        for old in by_age[:-ENDED_MAX]:
            await self._bucket.delete(old.id)
            self._moves.pop(old.id, None)

    def _move_of(self, division: str, move_id: str) -> MoveRecord:
        move = self._moves.get(move_id)
        if move is None or division not in (move.source, move.target):
            raise PermissionDenied(f"there is no move {move_id[:16]} for {division}")
        return move

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; `watch` then follows its changes."""
        rows, self._watched = await self._bucket.load_all()
        for row in rows:
            await self._apply(row)
        await self._parts.load(rows, self._is_open)

    def _is_open(self, move_id: str) -> bool:
        move = self._moves.get(move_id)
        return move is not None and move.stage not in ENDED_STAGES

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled."""
        await follow(self._bucket, self._watched, self._apply, self._clock)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the moves holds; it is checked after every change."""
        async with self._applied:
            await self._applied.wait_for(condition)

    async def _apply(self, row: KvRow) -> None:
        if is_part(row.key):
            return
        if row.value is None:
            self._moves.pop(row.key, None)
            return
        known = self._moves.get(row.key)
        if known is not None and known.revision >= row.revision:
            return
        stored = read_row(row, "move", decode_move)
        if stored is None:
            return
        move = self._moves[row.key] = msgspec.structs.replace(stored, revision=row.revision)
        for listener in self.on_change:
            listener(move)
        async with self._applied:
            self._applied.notify_all()

    async def _write(self, move: MoveRecord) -> MoveRecord:
        value = encode(msgspec.structs.replace(move, revision=0))
        revision = await self._bucket.put(move.id, value, expected=move.revision)
        await self._apply(KvRow(move.id, value, revision))
        return self._moves[move.id]


def _due(move: MoveRecord) -> list[tuple[str, bool]]:
    """Return the due orders as (action, whether the source runs it)."""
    due = [(move.owed_source, True), (move.owed_target, False), _ORDERS.get(move.stage, ("", True))]
    return [item for item in due if item[0]]


def _may_change(by: Principal, stored: StoredDevice) -> bool:
    """Return whether a caller may change a device by its entry, which may be a node's and hold anything."""
    try:
        return allows(by, Action.CHANGE_DEVICES, stored.device.division, stored.device.department)
    except ConfigError:
        return False


def _concerns(by: Principal, move: MoveRecord) -> bool:
    """Return whether a caller may see the device at its division before or after the move."""
    places = (move.former_division or move.source, move.division)
    return any(allows(by, Action.READ_REGISTRY, place, move.department) for place in places)
