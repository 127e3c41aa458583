"""The device registry: a key-value bucket; its copy in memory (`device_table`) follows the changes of every process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from sensegate.authority import credentials as secrets_
from sensegate.authority.bucket import Bucket, follow
from sensegate.authority.credentials import Credentials
from sensegate.authority.device_rules import RuleFinding, check_device, require_valid
from sensegate.authority.device_table import (
    DeviceTable,
    Ids,
    RegistrationFacts,
    StoredDevice,
    decode_stored,
    encode_stored,
)
from sensegate.authority.divisions import short_code
from sensegate.authority.scope import Action, Principal, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.bus.kv_row import KvRow, KvWrite
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound
from sensegate.model import Device, DeviceState

ROTATION_GRACE_S = 86_400.0
"""Default validity of the old credential after a rotation."""
Changed = Callable[[int, StoredDevice | None, StoredDevice | None], None]
"""Callback (index, before, after) for a change in memory, from whichever process it came; None: absent."""
# An alias, because the method `list` shadows the built-in type within the class.
Findings = list[RuleFinding]


class Devices(DeviceTable):
    """The devices of this gateway. Each change is authorised, recorded in the trail, and then written.

    A change takes the revision that it expects together with the entry on which it decides: while it is recorded,
    another change may be written.
    """

    def __init__(
        self,
        bucket: Bucket,
        trail: Trail,
        clock: Clock,
        *,
        home: str = "",
        facts: RegistrationFacts | None = None,
        digest: Callable[[Device, str], bytes] = lambda _device, _secret: b"",
    ) -> None:
        """Start empty; `load` reads the bucket.

        Args:
            bucket: stores the entries, by device id.
            trail: records changes.
            clock: gives the time.
            home: the division that this gateway serves; entries outside are refused. Empty: any.
            facts: what entries are checked against; None: the usual table of divisions only.
            digest: returns the encrypted HTTP Digest hash of a device's new password.
        """
        facts = facts or RegistrationFacts()
        super().__init__(clock, home, facts)
        self._digest = digest
        self._bucket = bucket
        self.trail = trail
        self._profiles = facts.profiles
        self._watched = 0
        self._applied = asyncio.Condition()
        self.importing = asyncio.Lock()
        """Held while a large file is imported."""
        self.on_change: list[Changed] = []

    # ── changing ────────────────────────────────────────────────────────────────────────────────────

    def examine(self, device: Device, by: Principal) -> Findings:
        """Return all errors and warnings of an entry, including conflicts with other entries; empty if it is valid."""
        findings = check_device(device, self._divisions, home=self._home, profiles=self._profiles())
        return findings + self._conflicts(device, by)

    async def add(self, device: Device, *, by: Principal) -> str:
        """Register a device and return its password, which is shown only here (empty for a gateway's sub-device).

        Raises:
            ConfigError: the entry is invalid; names key, problem and remedy.
            PermissionDenied: `by` lacks the right.
            Conflict: the id or alias is in use.
        """
        device = self._canonical(device)
        require_valid(device, self._divisions, home=self._home, profiles=self._profiles())
        demand(by, Action.CHANGE_DEVICES, device.division, device.department)
        self._require_free(device, by)
        if self.is_present(device.id):
            raise Conflict(f"device {device.id} is registered already; change it, or rotate its credential")
        expected = self._expected_revision(device.id)
        secret, credentials_ = ("", Credentials()) if device.gateway else secrets_.issue(partial(self._digest, device))
        await self.trail.record(by, "device.add", device.id, after=facts(device))
        await self._write(StoredDevice(device, credentials_), expected=expected)
        return secret

    async def change(self, device: Device, *, revision: int, by: Principal) -> Device:
        """Replace an entry that has a revision; return it as written. Its credential and state stay.

        Raises:
            ConfigError, PermissionDenied, NotFound: as `add` and `get`.
            Conflict: it has been changed since `revision`.
        """
        at = self._changeable(device.id, by)
        before = self._stored(at)
        device = self._canonical(msgspec.structs.replace(device, state=before.device.state))
        require_valid(device, self._divisions, home=self._home, profiles=self._profiles())
        demand(by, Action.CHANGE_DEVICES, device.division, device.department)
        self._require_free(device, by)
        if self._revisions[at] != revision:
            raise Conflict(f"device {device.id} is at revision {self._revisions[at]}, not {revision}; read it again")
        await self.trail.record(by, "device.change", device.id, before=facts(before.device), after=facts(device))
        await self._write(msgspec.structs.replace(before, device=device), expected=revision)
        return self.record(at)

    async def rotate(self, device_id: str, *, by: Principal, grace_s: float = ROTATION_GRACE_S) -> str:
        """Create a new password and return it; the old one stays valid for `grace_s` (0: not at all).

        Without a grace period a device that a move disabled is released: the credential that moved along is void here.
        """
        at = self._changeable(device_id, by)
        before, revision = self._stored(at), self._revisions[at]
        if before.device.gateway:
            raise ConfigError(
                f"{device_id} has no credential of its own", key="gateway", remedy=f"rotate {before.device.gateway}"
            )
        digest = partial(self._digest, before.device)
        secret, credentials_ = secrets_.rotate(
            before.credentials, now=self._clock.now(), grace_s=grace_s, digest=digest
        )
        await self.trail.record(by, "device.rotate", device_id, after={"grace_s": grace_s})
        moved_out_by = before.moved_out_by if grace_s > 0 else ""
        after = msgspec.structs.replace(before, credentials=credentials_, moved_out_by=moved_out_by)
        await self._write(after, expected=revision)
        return secret

    async def disable(self, device_id: str, *, by: Principal) -> Device:
        """Disable a device; its open connections are closed within 2 s."""
        return await self._set_state(device_id, DeviceState.DISABLED, by)

    async def enable(self, device_id: str, *, by: Principal) -> Device:
        """Enable a disabled device, with the credential it had."""
        return await self._set_state(device_id, DeviceState.REGISTERED, by)

    async def retire(self, device_id: str, *, by: Principal) -> Device:
        """Retire a device for good; its entry stays for its history."""
        return await self._set_state(device_id, DeviceState.RETIRED, by)

    async def _set_state(self, device_id: str, state: DeviceState, by: Principal) -> Device:
        at = self._changeable(device_id, by)
        before, revision = self._stored(at), self._revisions[at]
        if before.device.state is DeviceState.RETIRED and state is not DeviceState.RETIRED:
            raise Conflict(f"device {device_id} is retired; register its successor under another id")
        if before.moved_out_by and before.device.state is DeviceState.DISABLED and state is DeviceState.REGISTERED:
            # Otherwise two gateways would accept the device.
            remedy = f"at the centre: `sensegate device move --cancel {before.moved_out_by}`"
            lost = f"if that centre is lost: `sensegate device rotate {device_id} --grace 0` first"
            raise Conflict(f"device {device_id} is on its way to another gateway; {remedy}; {lost}")
        after = msgspec.structs.replace(before.device, state=state)
        state_before: Facts = {"state": before.device.state.value}
        await self.trail.record(
            by, f"device.{_VERBS[state]}", device_id, before=state_before, after={"state": state.value}
        )
        moved_out_by = "" if state is DeviceState.RETIRED else before.moved_out_by
        entry = msgspec.structs.replace(before, device=after, moved_out_by=moved_out_by)
        await self._write(entry, expected=revision)
        if before.device.state is DeviceState.DISABLED:
            self.moving_out.discard(device_id)
        return self.record(at)

    # ── moving to another gateway ───────────────────────────────────────────────────────────────────

    def require_movable(self, device_id: str, move: str) -> None:
        """Require that a device may move away. Raises `NotFound`, `Conflict`."""
        stored = self._stored(self._present(device_id))
        device = stored.device
        if device.state is DeviceState.RETIRED:
            raise NotFound(f"device {device_id} is retired here")
        if device.state is DeviceState.DISABLED and stored.moved_out_by != move:
            raise Conflict(f"{device_id} was disabled meanwhile; enable it first")
        if device.gateway or self.children(device_id):
            raise Conflict(f"{device_id} is behind a gateway, or is a gateway itself: such devices cannot move alone")

    async def shut_out(self, device_id: str, *, by: Principal, move: str) -> bytes:
        """Disable a device that moves away; return its previous entry with its credentials."""
        at = self._present(device_id)
        before, revision = self._stored(at), self._revisions[at]
        if before.device.state is not DeviceState.DISABLED:
            after = msgspec.structs.replace(before.device, state=DeviceState.DISABLED)
            await self.trail.record(by, "device.move.shut", device_id, before=facts(before.device), after=facts(after))
            entry = msgspec.structs.replace(before, device=after, moved_out_by=move)
            await self._write(entry, expected=revision)
        device = msgspec.structs.replace(before.device, state=DeviceState.REGISTERED)
        return encode_stored(StoredDevice(device, before.credentials))

    async def readmit(
        self, device_id: str, *, by: Principal, move: str, stored: bytes = b"", bare: bool = False
    ) -> bool:
        """Readmit a device that a move disabled or removed; return whether it did.

        It need not be the same move: the move registry is authoritative, and obligations of earlier moves are dropped.

        `stored` is its previous entry. With `bare` it gets no credential, because that may be valid at another gateway.
        """
        if not self.is_present(device_id):
            return False
        at = self._present(device_id)
        before, revision = self._stored(at), self._revisions[at]
        if not before.moved_out_by or before.device.state not in {DeviceState.DISABLED, DeviceState.RETIRED}:
            return False
        credentials_ = before.credentials
        if before.device.state is DeviceState.RETIRED and stored:
            credentials_ = decode_stored(stored).credentials
        device = msgspec.structs.replace(before.device, state=DeviceState.REGISTERED)
        facts_: Facts = {"move": move, "credential": "void" if bare else "kept"}
        await self.trail.record(by, "device.move.back", device_id, after=facts_)
        await self._write(StoredDevice(device, Credentials() if bare else credentials_), expected=revision)
        return True

    async def move_out(self, device_id: str, *, by: Principal, to: str, move: str) -> bool:
        """Retire a device that has moved away; its entry stays for its history. Return whether it was here."""
        if not self.is_present(device_id):
            return False
        at = self._present(device_id)
        before, revision = self._stored(at), self._revisions[at]
        if before.device.state is DeviceState.RETIRED:
            return False
        after = msgspec.structs.replace(before.device, state=DeviceState.RETIRED)
        await self.trail.record(by, "device.move.out", device_id, before=facts(before.device), after={"to": to})
        await self._write(StoredDevice(after, Credentials(), moved_out_by=move), expected=revision)
        return True

    def arrived_by(self, device_id: str, move: str) -> bool:
        """Return whether a move brought a device that is still here."""
        stored = self.stored(device_id)
        return stored is not None and stored.moved_in_by == move and stored.device.state is not DeviceState.RETIRED

    def require_acceptable(self, stored: StoredDevice, division: str, move: str) -> None:
        """Require that a device of another gateway may move here. Raises `ConfigError`, `Conflict`."""
        device = self._moved(stored, division)
        if self.arrived_by(device.id, move):
            return  # a repeated order, regardless of later changes of the device
        require_valid(device, self._divisions, home=self._home, profiles=self._profiles())
        at = self.index.find_id(device.id)
        if at >= 0 and self._values[at] is not None and self._stored(at).device.state is not DeviceState.RETIRED:
            known = self._stored(at).credentials
            if known.current is None or known != stored.credentials:
                raise Conflict(f"another device with the id {device.id} is registered here")
            return
        self._require_free(device)

    async def move_in(self, stored: StoredDevice, division: str, *, by: Principal, source: str, move: str) -> bool:
        """Register a device from another gateway, with its credential; return False if it is here already."""
        device = self._moved(stored, division)
        at = self.index.find_id(device.id)
        present = at >= 0 and self._values[at] is not None
        if present and self._stored(at).device.state is not DeviceState.RETIRED:
            return False
        expected = self._expected_revision(device.id)
        await self.trail.record(by, "device.move.in", device.id, after={**facts(device), "from": source})
        entry = StoredDevice(device, stored.credentials, moved_in_by=move)
        await self._write(entry, expected=expected)
        return True

    def _moved(self, stored: StoredDevice, division: str) -> Device:
        # Disabled devices are not moved, so the state is always that of the move.
        return self._canonical(msgspec.structs.replace(stored.device, division=division, state=DeviceState.REGISTERED))

    async def write_imported(self, devices: Sequence[Device], *, by: Principal) -> Ids:
        """Write new entries that `importing` has checked and recorded, all or none; return their passwords.

        Raises:
            Conflict: one of them was registered meanwhile.
            ConfigError: its gateway was removed, or left the scope of `by`, meanwhile.
            Unavailable, StoreFull: see `Bucket.put`.
        """
        passwords: Ids = []
        writes: list[KvWrite] = []
        for entry in devices:
            device = self._canonical(entry)
            self._require_free(device, by)
            secret, credentials_ = (
                ("", Credentials()) if device.gateway else secrets_.issue(partial(self._digest, device))
            )
            passwords.append(secret)
            expected = self._expected_revision(device.id)
            writes.append(KvWrite(device.id, encode_stored(StoredDevice(device, credentials_)), expected))
        revisions = await self._bucket.put_all(writes)
        rows = zip(writes, revisions, strict=True)
        await self._take_all([KvRow(write.key, write.value, revision) for write, revision in rows])
        return passwords

    async def _write(self, stored: StoredDevice, *, expected: int) -> None:
        value = encode_stored(stored)
        revision = await self._bucket.put(stored.device.id, value, expected=expected)
        await self._take(KvRow(stored.device.id, value, revision))

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the bucket; `watch` follows later changes."""
        rows, self._watched = await self._bucket.load_all()
        self.index.reserve(len(rows))
        located: list[tuple[int, Device]] = []
        for count, row in enumerate(rows):
            at, _before, after = self._apply(row)
            if after and after.device.lon is not None:
                located.append((at, after.device))
            if count % 2_000 == 1_999:
                await asyncio.sleep(0)
        if located:
            self.index.place([at for at, _ in located], [device for _, device in located])
        self.version += 1

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; survives failures of the engine."""
        await follow(self._bucket, self._watched, self._take, self._clock)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the registry holds; it is checked after every change."""
        async with self._applied:
            await self._applied.wait_for(condition)

    async def _take(self, row: KvRow) -> None:
        await self._take_all([row])

    async def _take_all(self, rows: Sequence[KvRow]) -> None:
        changes = [self._apply(row) for row in rows if self._revision_of(row.key) < row.revision]
        if not changes:
            return
        present = [(at, after.device) for at, _, after in changes if after]
        if present:
            self.index.place([at for at, _ in present], [device for _, device in present])
        self.version += 1
        for listener in self.on_change:
            for at, before, after in changes:
                listener(at, before, after)
        async with self._applied:
            self._applied.notify_all()

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────

    def _expected_revision(self, device_id: str) -> int:
        """Return the revision to expect for an id that is not registered: 0, or that of its deletion."""
        at = self.index.find_id(device_id)
        return self._revisions[at] if at >= 0 else 0

    def _changeable(self, device_id: str, by: Principal) -> int:
        self.get(device_id, by)
        at = self._present(device_id)
        device = self._stored(at).device
        demand(by, Action.CHANGE_DEVICES, device.division, device.department)
        return at

    def _canonical(self, device: Device) -> Device:
        """Return the canonical entry to store: short division code, no derived state, no revision."""
        is_stored_state = device.state in (DeviceState.DISABLED, DeviceState.RETIRED)
        return msgspec.structs.replace(
            device,
            division=short_code(device.division),
            state=device.state if is_stored_state else DeviceState.REGISTERED,
            revision=0,
        )

    def _conflicts(self, device: Device, by: Principal | None = None) -> Findings:
        """Return the conflicts of an entry with others; what lies outside the scope of `by` is not told apart.

        Who names a gateway changes what it may publish, and its connection is closed for that. Hence a gateway that the
        entry did not have before must be one that `by` may change.
        """
        findings: Findings = []
        present = self.stored(device.id)
        attached = present.device.gateways if present else ()
        for key, name in (("id", device.id), ("alias", device.alias)):
            other = self.find(name) if name else -1
            if other >= 0 and self.index.ids[other] != device.id and self._values[other] is not None:
                holder = (
                    f"device {self.index.ids[other]}" if self._permits(by, Action.READ_REGISTRY, other) else "another"
                )
                findings.append(RuleFinding(key, f"{name} is the name of {holder} already", "choose another one"))
        for gateway in device.gateways:
            at = self.index.find_id(gateway)
            is_known = at >= 0 and self._values[at] is not None
            if not is_known or not (gateway in attached or self._permits(by, Action.CHANGE_DEVICES, at)):
                findings.append(RuleFinding("gateway", f"no device {gateway}", "register the gateway first"))
            elif self._stored(at).device.gateway:
                findings.append(RuleFinding("gateway", f"{gateway} is itself behind a gateway", "name that gateway"))
        return findings

    def _permits(self, by: Principal | None, action: Action, at: int) -> bool:
        device = self._stored(at).device
        return by is None or allows(by, action, device.division, device.department)

    def _require_free(self, device: Device, by: Principal | None = None) -> None:
        for finding in self._conflicts(device, by):
            if finding.key == "gateway":
                raise ConfigError(finding.problem, key=finding.key, remedy=finding.remedy)
            raise Conflict(f"{finding.problem}; {finding.remedy}")


_VERBS = {DeviceState.DISABLED: "disable", DeviceState.REGISTERED: "enable", DeviceState.RETIRED: "retire"}


def facts(device: Device) -> Facts:
    """Return the fields of an entry for the audit trail."""
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(device, revision=0))
    return kept
