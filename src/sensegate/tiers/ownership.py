"""Owners of devices among the members of a centre: the first to send rows of a device, until it is moved.

    rows of a new device ─▶ claimed for the member, before the rows are written
    rows of a device that another member owns ─▶ refused, counted, recorded in the trail, shown with the nodes
    a move (`move_register`) ─▶ both may send while it lasts; then the target owns the device, and rows that the source
                                still has in its log are accepted

Claims are stored in a bucket, many to a row, for a province has millions of devices.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.bucket import Bucket, follow
from sensegate.authority.scope import Action, Principal, Role, demand, scope
from sensegate.authority.trail import Trail
from sensegate.bus.kv_row import KvRow
from sensegate.bus.unreadable import read_row
from sensegate.clock import Clock
from sensegate.errors import Conflict, NotFound, Overloaded
from sensegate.tiers.move_records import MoveRecord, MoveStage

DEVICES_MAX = 1_000_000
"""Most devices of one member."""
ROW_DEVICES = 2_000
"""Most devices in one row of the bucket."""
CONFLICTS_MAX = 1_000
"""Most conflicts that are remembered."""
CONFLICT_RECORD_S = 3_600.0
"""Interval per member in which the trail gets at most one record of conflicts."""

_log = structlog.get_logger("tiers")


class ClaimedDevices(msgspec.Struct, frozen=True):
    """A row of the bucket under ``claims/<member>/<number>``: devices that a member was the first to send."""

    member: str
    devices: list[str]
    format: int = 1


class DeviceTransfer(msgspec.Struct, frozen=True):
    """A row of the bucket under ``transfers/<device>``: a device whose owner has changed."""

    device: str
    owner: str
    former: tuple[str, ...]
    """Members that owned it before; rows that they still have of it are accepted."""
    changed_at: int
    """Time when the owner changed, µs UTC."""
    reason: str = ""
    """Id of the move, or of the operator who decided."""
    format: int = 1


class DeviceConflict(msgspec.Struct, frozen=True):
    """A device that a member sent although another member owns it."""

    device: str
    owner: str
    sent_by: str
    sent_at: int
    """Time when it was last sent, µs UTC."""


_encode = msgspec.msgpack.Encoder().encode
_claims = msgspec.msgpack.Decoder(ClaimedDevices).decode
_transfer = msgspec.msgpack.Decoder(DeviceTransfer).decode
_CLAIMS, _TRANSFERS = "claims/", "transfers/"
_MOVING = frozenset({MoveStage.CARRIED, MoveStage.TAKEN, MoveStage.RECALLED, MoveStage.SENT_BACK})
FORMER_MAX = 8
_NUMBER_DIGITS = 6


class DeviceOwners:
    """The owners of all devices of a province; implements `tiers.verdict.DeviceOwnership`."""

    def __init__(
        self,
        bucket: Bucket,
        trail: Trail,
        clock: Clock,
        *,
        home: str,
        is_own: Callable[[str], bool] = lambda _device: False,
        devices_max: int = DEVICES_MAX,
    ) -> None:
        """Create an empty register; `load` fills it.

        Args:
            bucket: of claims and transfers.
            trail: records conflicts and decisions.
            clock: source of time.
            home: division of the centre, whose own devices no member owns.
            is_own: whether a device is in the centre's own registry and in use.
            devices_max: most devices of one member.
        """
        self._bucket = bucket
        self._trail = trail
        self._clock = clock
        self._home = home
        self._is_own = is_own
        self._devices_max = devices_max
        self._revision = 0
        self._owner: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._rows: dict[str, list[tuple[list[str], int]]] = {}
        """Member -> (devices, revision) of each of its rows."""
        self._transfers: dict[str, tuple[DeviceTransfer, int]] = {}
        self._moving: dict[str, MoveRecord] = {}
        """Device -> its move while both gateways may send rows of it."""
        self._due: dict[str, MoveRecord] = {}
        """Device -> its finished move that is not yet written as a transfer."""
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._conflicts: OrderedDict[tuple[str, str], DeviceConflict] = OrderedDict()
        self._recorded: dict[str, float] = {}

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def owner(self, device: str) -> str:
        """Return the member that owns a device, the centre's division for its own devices; empty: none does."""
        due = self._due.get(device)
        if due is not None:
            return due.target
        known = self._transfers.get(device)
        if known is not None:
            return known[0].owner
        return self._owner.get(device, "") or (self._home if self._is_own(device) else "")

    def may_send(self, member: str, device: str) -> bool:
        """Return whether rows of an owned device are accepted from a member: it is, was or becomes the owner."""
        if self.owner(device) == member:
            return True
        known = self._transfers.get(device)
        if known is not None and member in known[0].former:
            return True
        return any(
            move is not None and member in (move.source, move.target)
            for move in (self._moving.get(device), self._due.get(device))
        )

    def room(self, member: str) -> int:
        """Return how many more devices a member may own."""
        return max(0, self._devices_max - self._counts.get(member, 0))

    def conflicts(self, member: str = "") -> list[DeviceConflict]:
        """Return conflicts, newest first, in which a member is the sender or the owner; empty: of all members."""
        return [
            conflict
            for conflict in reversed(self._conflicts.values())
            if not member or member in (conflict.owner, conflict.sent_by)
        ]

    # ── claims and conflicts ────────────────────────────────────────────────────────────────────────

    async def claim(self, member: str, devices: Sequence[str]) -> None:
        """Make a member the owner of devices that have none, durably; devices that it owns already are left.

        Raises:
            Overloaded: another member has just claimed one of them; check the rows again.
            Unavailable, StoreFull: the outcome is unknown, or there is no room; claim again.
        """
        async with self._writing:
            owners = {device: self.owner(device) for device in devices}
            if any(owner and not self.may_send(member, device) for device, owner in owners.items()):
                raise Overloaded("another member has claimed one of these devices meanwhile", retry_after_s=0.1)
            fresh = [device for device, owner in owners.items() if not owner]
            while fresh:
                fresh = fresh[await self._claimed(member, fresh) :]

    async def _claimed(self, member: str, fresh: Sequence[str]) -> int:
        """Write as many claims as the member's last row has room for; return how many."""
        rows = self._rows.setdefault(member, [])
        number = len(rows) - 1 if rows and len(rows[-1][0]) < ROW_DEVICES else len(rows)
        before, revision = rows[number] if number < len(rows) else ([], 0)
        taken = list(fresh[: ROW_DEVICES - len(before)])
        key, value = f"{_CLAIMS}{member}/{number}", _encode(ClaimedDevices(member, [*before, *taken]))
        await self._put(key, value, revision)
        return len(taken)

    async def _put(self, key: str, value: bytes, expected: int) -> None:
        """Write a row and apply it. Raises `Overloaded` where it has changed meanwhile: it is applied, decide again."""
        try:
            written = await self._bucket.put(key, value, expected=expected)
        except Conflict:
            row = await self._bucket.get(key)
            if row is not None:
                # Written by another process, or by an earlier attempt of ours whose answer was lost.
                self._apply(row)
                raise Overloaded("owners of devices have changed meanwhile", retry_after_s=0.1) from None
            # A standby deletes the rows that its centre lacks: after a take-over ours stands behind the deletion.
            tombstone = await self._bucket.tombstone_revision(key)
            if not tombstone:
                raise
            written = await self._bucket.put(key, value, expected=tombstone)
        self._apply(KvRow(key, value, written))

    async def note_conflicts(self, member: str, devices: Iterable[str]) -> None:
        """Count, log and record in the trail that a member sent devices of others.

        Raises `Unavailable`, `StoreFull` where it cannot be recorded.
        """
        now, fresh = self._clock.now(), []
        for device in devices:
            owner = self.owner(device)
            if (member, device) not in self._conflicts:
                fresh.append((device, owner))
                metrics.DEVICE_CONFLICTS.labels(member).inc()
            self._conflicts[member, device] = DeviceConflict(device, owner, member, now)
            self._conflicts.move_to_end((member, device))
        while len(self._conflicts) > CONFLICTS_MAX:
            self._conflicts.popitem(last=False)
        last = self._recorded.get(member, float("-inf"))
        if not fresh or self._clock.monotonic() - last < CONFLICT_RECORD_S:
            return
        shown = dict(fresh[:20])
        _log.error("rows refused: the member does not own these devices", member=member, owners=shown)
        by = Principal(f"node-{member}", Role.DEVICE, scope(self._home), name="the node itself")
        await self._trail.record(by, "device.conflict", member, after={"devices": shown, "count": len(fresh)})
        self._recorded[member] = self._clock.monotonic()

    async def assign(self, device: str, member: str, *, by: Principal) -> DeviceTransfer:
        """Set the owner of a device, e.g. where the wrong member was the first to send it.

        Raises:
            PermissionDenied: `by` may not.
            NotFound: no member ever sent it.
            Conflict: a move of it is in progress.
            Overloaded: its owner has changed meanwhile; repeat the decision.
        """
        demand(by, Action.CHANGE_NODES, self._home)
        async with self._writing:
            owner = self.owner(device)
            if not owner or owner == self._home:
                raise NotFound(f"no member owns {device[:64]}")
            if device in self._moving:
                raise Conflict(f"{device} is being moved by {self._moving[device].id}; wait, or cancel the move")
            before, after = {"owner": owner}, {"owner": member}
            await self._trail.record(by, "device.assign", device, before=dict(before), after=dict(after))
            # Rows that the wrong owner still has stay refused: it was never its device.
            transfer = DeviceTransfer(device, member, (), self._clock.now(), by.id)
            await self._write_transfer(transfer)
            self._due.pop(device, None)  # a move that ended before this decision
            return transfer

    async def _write_transfer(self, transfer: DeviceTransfer) -> None:
        known = self._transfers.get(transfer.device)
        await self._put(f"{_TRANSFERS}{transfer.device}", _encode(transfer), known[1] if known else 0)
        for pair in [pair for pair in self._conflicts if pair[1] == transfer.device]:
            del self._conflicts[pair]

    # ── moves ───────────────────────────────────────────────────────────────────────────

    def on_move(self, move: MoveRecord) -> None:
        """Apply the present state of a move; call it for each move at the start, and after each change."""
        present = self._moving.get(move.device)
        if move.stage in _MOVING:
            self._moving[move.device] = move
        elif present is not None and present.id == move.id:
            # Only its own: an ended move changes once more when a gateway has run an order that it owed.
            del self._moving[move.device]
        if move.stage not in {MoveStage.TAKEN, MoveStage.DONE} or not self._is_newest(move):
            return
        if self.owner(move.device) != move.target:
            self._due[move.device] = move
            self._wake.set()

    def _is_newest(self, move: MoveRecord) -> bool:
        """Return whether the owner of a device has not changed since a move handed it over."""
        known, due = self._transfers.get(move.device), self._due.get(move.device)
        is_newer = known is None or known[0].changed_at < move.handed_over_at
        return is_newer and (due is None or due.id == move.id or due.handed_over_at < move.handed_over_at)

    async def run(self) -> None:
        """Write the transfers of finished moves until cancelled."""
        while True:
            # First those that an earlier run could not write.
            try:
                await self.write_due()
            except Overloaded as why:
                await self._clock.sleep(why.retry_after_s)
                continue
            await self._wake.wait()
            self._wake.clear()

    async def write_due(self) -> None:
        """Write the transfers that are due. Raises `Unavailable`, `StoreFull`, and `Overloaded`: write them again."""
        for device in list(self._due):
            async with self._writing:
                move, known = self._due.get(device), self._transfers.get(device)
                if move is None:
                    continue
                if self._is_newest(move):
                    former = (*(known[0].former if known else ()), move.source)[-FORMER_MAX:]
                    await self._write_transfer(
                        DeviceTransfer(device, move.target, former, move.handed_over_at, move.id)
                    )
                if self._due[device].id == move.id:
                    del self._due[device]

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        rows, self._revision = await self._bucket.load_all()
        for row in rows:
            self._apply(row)

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled."""

        async def take(row: KvRow) -> None:
            self._apply(row)

        await follow(self._bucket, self._revision, take, self._clock)

    def _apply(self, row: KvRow) -> None:
        if row.value is None:
            return
        if row.key.startswith(_TRANSFERS):
            transfer = read_row(row, "owners", _transfer)
            if transfer is None:
                return
            known = self._transfers.get(transfer.device)
            if known is None or known[1] < row.revision:
                self._transfers[transfer.device] = transfer, row.revision
            return
        claimed, number = read_row(row, "owners", _claims), row.key.rpartition("/")[2]
        if claimed is None or not (number.isascii() and number.isdigit() and len(number) <= _NUMBER_DIGITS):
            return
        self._apply_claims(row, claimed, int(number))

    def _apply_claims(self, row: KvRow, claimed: ClaimedDevices, number: int) -> None:
        rows = self._rows.setdefault(claimed.member, [])
        while len(rows) <= number:
            rows.append(([], 0))
        before, revision = rows[number]
        if revision >= row.revision:
            return
        rows[number] = claimed.devices, row.revision
        for device in claimed.devices[len(before) :]:
            if self._owner.setdefault(device, claimed.member) == claimed.member:
                self._counts[claimed.member] = self._counts.get(claimed.member, 0) + 1
