"""The registry of devices: on the engine's key-value store, whole in memory, changes of every process seen.

What is kept of a device in memory is its stored form (about 200 bytes) and its row in the columns of `index`; a
`Device` is decoded when someone asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
import structlog

from sensegate.authority import credentials as secrets_
from sensegate.authority.bucket import Bucket, follow
from sensegate.authority.credentials import Credentials, Proof
from sensegate.authority.device_rules import Finding, demand_good, examine
from sensegate.authority.divisions import Divisions, short
from sensegate.authority.index import STATES, Index, ToWgs84, unchanged
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand
from sensegate.authority.selection import Selection
from sensegate.authority.trail import Facts, Trail
from sensegate.bus.kv_row import KvRow
from sensegate.bus.unreadable import read_row
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.model import BOOL, F64, I32, I64, U8, Device, DeviceState

_log = structlog.get_logger(__name__)

GRACE_S = 86_400.0
"""How long the old credential stays good after a rotation, unless told otherwise."""
SILENT_INTERVALS = 3
"""A device not heard for so many of its intervals is silent."""
SILENT_AFTER_S = 3_600.0
"""The same for a device of which no interval is known."""

Changed = Callable[[int, "Stored | None", "Stored | None"], None]
"""(index, before, after): called after a change is in memory, from whichever process it came; None: not there."""


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A registry entry as the bucket holds it."""

    device: Device
    credentials: Credentials = Credentials()
    format: int = 1
    leaving: str = ""
    """Move for which it is shut out, or with which it went: only the book of moves may let it in again."""
    came: str = ""
    """Move that brought it."""


# `Devices.list` hides the type's name inside the class.
Findings = list[Finding]
Indices = list[int]
Ids = list[str]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode
decode_stored, encode_stored = _decode, _encode


class Devices:
    """All devices of this gateway. Every change asks `scope.allows`, is recorded, and then written."""

    def __init__(
        self,
        bucket: Bucket,
        trail: Trail,
        clock: Clock,
        *,
        home: str = "",
        divisions: Divisions | None = None,
        to_wgs84: ToWgs84 = unchanged,
        profiles: Callable[[], frozenset[str]] = frozenset,
        interval_of: Callable[[str], float] = lambda _profile: 0.0,
        digest: Callable[[Device, str], bytes] = lambda _device, _secret: b"",
    ) -> None:
        """Make an empty registry; `load` fills it.

        Args:
            bucket: where entries live, by device id.
            trail: where changes are recorded.
            clock: for the grace of rotations.
            home: the division that this gateway serves; entries of others are refused. Empty: any.
            divisions: the table of divisions.
            to_wgs84: converts places from the datum in which they were registered.
            profiles: gives the known profiles (``vendor/model``); an empty set is not checked against.
            interval_of: gives a profile's expected interval in seconds, 0 if it names none.
            digest: gives what HTTP Digest needs of a device's new password, sealed (`digests`).
        """
        self._digest = digest
        self._bucket = bucket
        self.trail = trail
        self._clock = clock
        self._home = home
        self._divisions = divisions or Divisions.load()
        self._profiles = profiles
        self._interval_of = interval_of
        self._values: list[bytes | None] = []
        self._revisions: list[int] = []
        self._of_gateway: dict[str, set[int]] = {}
        self._watched = 0
        self._applied = asyncio.Condition()
        self.index = Index(self._divisions, to_wgs84)
        self._selection = Selection(self.index)
        self.held: set[str] = set()
        """Devices on their way to another gateway: none is let in, what they sent is still taken."""
        self.version = 0
        """Rises with every change; what was derived from the registry at an older version is stale."""
        self.on_change: list[Changed] = []

    # ── the hot path ────────────────────────────────────────────────────────────────────────────────

    def find(self, name: str) -> int:
        """Return the index of a device by canonical id or alias; -1 when there is none."""
        return self.index.names.get(name, -1)

    @property
    def grade(self) -> U8:
        """Grade of readings, by index."""
        return self.index.grade

    @property
    def region(self) -> I32:
        """Index into `regions`, by index."""
        return self.index.region

    @property
    def regions(self) -> list[tuple[str, str]]:
        """(city, county) pairs; grows, never moves."""
        return self.index.regions

    @property
    def lon(self) -> F64:
        """Longitude in WGS-84 degrees, by index; NaN none."""
        return self.index.lon

    @property
    def lat(self) -> F64:
        """Latitude in WGS-84 degrees, by index; NaN none."""
        return self.index.lat

    @property
    def enabled(self) -> BOOL:
        """Whether readings are accepted, by index: not disabled, retired or deleted."""
        return self.index.enabled

    def observe(self, at: I32, received: I64) -> None:
        """Note when devices were last heard: a column of indices (none negative) and one of µs."""
        self.index.observe(at, received)

    def __len__(self) -> int:
        """Return how many indices are given: all valid indices are below."""
        return len(self.index)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def id(self, at: int) -> str:
        """Return the canonical id of an index."""
        return self.index.ids[at]

    def record(self, at: int) -> Device:
        """Return the device of an index, with its revision; a deleted one as it was, retired.

        Its state is `active` or `silent` where it was heard since this process started.
        """
        device = self._stored(at).device
        return msgspec.structs.replace(device, revision=self._revisions[at], state=self._state(at, device))

    def get(self, device_id: str, by: Principal | None = None) -> Device:
        """Return a device by canonical id.

        Raises:
            NotFound: no such device, or none that `by` may see.
        """
        at = self._present(device_id)
        device = self.record(at)
        if by and not allows(by, Action.READ_REGISTRY, device.division, device.department):
            raise _nothing(device_id)
        return device

    def list(
        self,
        scope: Scope | None = None,
        *,
        states: frozenset[DeviceState] = frozenset(),
        profile: str = "",
        domain: str = "",
        department: str = "",
        text: str = "",
        after: str = "",
        limit: int = 1_000,
    ) -> list[Device]:
        """Return devices in order of id, cut to a scope; the next page begins `after` the last id of this one.

        `text`: part of id, alias or name, whatever the case.
        """
        found: list[Device] = []
        wanted = text.casefold()
        mask = self._selection.mask(self._values, scope, profile, domain, department)
        for at in self._selection.in_order(mask, after):
            device = self.record(at)
            if states and device.state not in states:
                continue
            if wanted and wanted not in f"{device.id}\n{device.alias}\n{device.name}".casefold():
                continue
            found.append(device)
            if len(found) >= limit:
                break
        return found

    def of_profiles(self, names: Sequence[str]) -> BOOL:
        """Return, by index, whether a device is of one of these profiles."""
        wanted = np.array([word in names for word in self.index.profiles.all], np.bool_)
        if not wanted.any():
            return np.zeros(len(self), np.bool_)
        found: BOOL = wanted[self.index.profile[: len(self)]]
        return found

    def ids_of(self, profile: str, scope: Scope) -> Ids:
        """Return the ids of the devices of a profile in a scope that may send."""
        mask = self._selection.mask(self._values, scope, profile, "", "") & self.index.enabled[: len(self._values)]
        return [self.index.ids[at] for at in np.flatnonzero(mask).tolist()]

    def count(self, scope: Scope | None = None) -> int:
        """Return how many devices lie in a scope, retired ones too."""
        return int(self._selection.mask(self._values, scope, "", "", "").sum())

    def children(self, gateway: str) -> Indices:
        """Return the indices of the devices for which this one publishes."""
        return sorted(self._of_gateway.get(gateway, ()))

    def verify(self, user: str, password: str) -> tuple[Device, Proof] | None:
        """Return the device and the proof if the credential is right and the device may connect; else None."""
        at = self.index.of_id(user)
        stored = self._stored(at) if at >= 0 and self._values[at] is not None else None
        proof = secrets_.verify(stored.credentials if stored else None, password, self._clock.now())
        # What stands behind a gateway has no connection of its own, even if it had one before.
        if stored is None or proof is None or stored.device.gateway or not self.index.enabled[at]:
            return None
        if self.held and stored.device.id in self.held:
            return None
        return stored.device, proof

    def digests(self, name: str) -> tuple[Device, Sequence[bytes]] | None:
        """Return a device by id or alias with what HTTP Digest needs, sealed, of its passwords in force.

        None where there is none that may connect for itself.
        """
        at = self.find(name)
        stored = self._stored(at) if at >= 0 and self._values[at] is not None else None
        if stored is None or stored.device.gateway or not self.index.enabled[at] or stored.device.id in self.held:
            return None
        kept = stored.credentials
        previous = kept.previous_digest if self._clock.now() < kept.previous_until else b""
        return stored.device, [one for one in (kept.digest, previous) if one]

    def prove(self, user: str, password: str) -> Principal:
        """Return a device as a caller, e.g. of the HTTP ingest.

        Raises:
            PermissionDenied: not authenticated; unknown, wrong and disabled are not told apart.
        """
        verified = self.verify(user, password)
        if verified is None:
            raise PermissionDenied("no such device, or wrong password", authenticated=False)
        device = verified[0]
        return Principal(device.id, Role.DEVICE, Scope(device.division, device.department), name=device.name)

    # ── changing ────────────────────────────────────────────────────────────────────────────────────

    def examine(self, device: Device) -> Findings:
        """Return all that is wrong or odd with an entry, also against the others; empty when it is good."""
        found = examine(device, self._divisions, home=self._home, profiles=self._profiles())
        return found + self._against_others(device)

    async def add(self, device: Device, *, by: Principal) -> str:
        """Register a device and return its password, which is shown only here (empty for a gateway's sub-device).

        Raises:
            ConfigError: the entry is wrong: key, what, remedy.
            PermissionDenied: `by` may not.
            Conflict: the id or alias is taken.
        """
        device = self._canonical(device)
        demand_good(device, self._divisions, home=self._home, profiles=self._profiles())
        demand(by, Action.CHANGE_DEVICES, device.division, device.department)
        self._demand_free(device)
        if self.is_present(device.id):
            raise Conflict(f"device {device.id} is registered already; change it, or rotate its credential")
        secret, kept = ("", Credentials()) if device.gateway else secrets_.issue(partial(self._digest, device))
        await self.trail.record(by, "device.add", device.id, after=facts(device))
        await self._write(Stored(device, kept), expected=self._absence(device.id))
        return secret

    async def change(self, device: Device, *, revision: int, by: Principal) -> Device:
        """Replace an entry as of a revision; return it as written. Its credential and its state stay.

        Raises:
            ConfigError, PermissionDenied, NotFound: as `add` and `get`.
            Conflict: it has been changed since `revision`.
        """
        at = self._mine(device.id, by)
        before = self._stored(at)
        device = self._canonical(msgspec.structs.replace(device, state=before.device.state))
        demand_good(device, self._divisions, home=self._home, profiles=self._profiles())
        demand(by, Action.CHANGE_DEVICES, device.division, device.department)
        self._demand_free(device)
        if self._revisions[at] != revision:
            raise Conflict(f"device {device.id} is at revision {self._revisions[at]}, not {revision}; read it again")
        await self.trail.record(by, "device.change", device.id, before=facts(before.device), after=facts(device))
        await self._write(msgspec.structs.replace(before, device=device), expected=revision)
        return self.record(at)

    async def rotate(self, device_id: str, *, by: Principal, grace_s: float = GRACE_S) -> str:
        """Give a device a new password and return it once; the old one stays good for `grace_s` (0: ends now).

        Without a grace a device that was shut out for a move is free of it: what went along proves nothing here.
        """
        at = self._mine(device_id, by)
        before = self._stored(at)
        if before.device.gateway:
            raise ConfigError(
                f"{device_id} has no credential of its own", key="gateway", remedy=f"rotate {before.device.gateway}"
            )
        digest = partial(self._digest, before.device)
        secret, kept = secrets_.rotate(before.credentials, now=self._clock.now(), grace_s=grace_s, digest=digest)
        await self.trail.record(by, "device.rotate", device_id, after={"grace_s": grace_s})
        leaving = before.leaving if grace_s > 0 else ""
        after = msgspec.structs.replace(before, credentials=kept, leaving=leaving)
        await self._write(after, expected=self._revisions[at])
        return secret

    async def disable(self, device_id: str, *, by: Principal) -> Device:
        """Refuse a device from now on; its open connections are closed within 2 s."""
        return await self._set_state(device_id, DeviceState.DISABLED, by)

    async def enable(self, device_id: str, *, by: Principal) -> Device:
        """Accept a disabled device again, with the credential it had."""
        return await self._set_state(device_id, DeviceState.REGISTERED, by)

    async def retire(self, device_id: str, *, by: Principal) -> Device:
        """Take a device out of use for good; its entry stays for the sake of its history."""
        return await self._set_state(device_id, DeviceState.RETIRED, by)

    async def _set_state(self, device_id: str, state: DeviceState, by: Principal) -> Device:
        at = self._mine(device_id, by)
        before = self._stored(at)
        if before.device.state is DeviceState.RETIRED and state is not DeviceState.RETIRED:
            raise Conflict(f"device {device_id} is retired; register its successor under another id")
        if before.leaving and before.device.state is DeviceState.DISABLED and state is DeviceState.REGISTERED:
            # Two gateways would take it.
            remedy = f"at the centre: `sensegate device move --cancel {before.leaving}`"
            lost = f"is that centre lost: `sensegate device rotate {device_id} --grace 0` first"
            raise Conflict(f"device {device_id} is on its way to another gateway; {remedy}; {lost}")
        after = msgspec.structs.replace(before.device, state=state)
        was: Facts = {"state": before.device.state.value}
        await self.trail.record(by, f"device.{_VERBS[state]}", device_id, before=was, after={"state": state.value})
        leaving = "" if state is DeviceState.RETIRED else before.leaving
        entry = msgspec.structs.replace(before, device=after, leaving=leaving)
        await self._write(entry, expected=self._revisions[at])
        if before.device.state is DeviceState.DISABLED:
            self.held.discard(device_id)
        return self.record(at)

    def stored(self, device_id: str) -> Stored | None:
        """Return an entry with its credentials, None where there is none."""
        return self._stored(self.index.of_id(device_id)) if self.is_present(device_id) else None

    # ── moving to another gateway ───────────────────────────────────────────────────────────────────

    def demand_movable(self, device_id: str, move: str) -> None:
        """Return if a device may leave. Raises `NotFound`, `Conflict`."""
        stored = self._stored(self._present(device_id))
        device = stored.device
        if device.state is DeviceState.RETIRED:
            raise NotFound(f"device {device_id} is retired here")
        if device.state is DeviceState.DISABLED and stored.leaving != move:
            raise Conflict(f"{device_id} was disabled meanwhile; enable it first")
        if device.gateway or self.children(device_id):
            raise Conflict(f"{device_id} stands behind a gateway, or others stand behind it: they cannot move alone")

    async def shut_out(self, device_id: str, *, by: Principal, move: str) -> bytes:
        """Disable a device that moves; return its entry with its credentials as it was before."""
        at = self._present(device_id)
        before = self._stored(at)
        if before.device.state is not DeviceState.DISABLED:
            after = msgspec.structs.replace(before.device, state=DeviceState.DISABLED)
            await self.trail.record(by, "device.move.shut", device_id, before=facts(before.device), after=facts(after))
            entry = msgspec.structs.replace(before, device=after, leaving=move)
            await self._write(entry, expected=self._revisions[at])
        device = msgspec.structs.replace(before.device, state=DeviceState.REGISTERED)
        return _encode(Stored(device, before.credentials))

    async def open_again(
        self, device_id: str, *, by: Principal, move: str, stored: bytes = b"", bare: bool = False
    ) -> bool:
        """Let a device in again that a move shut out, or took away; return whether it was.

        It need not be this move: the book says what is so now, and what was owed of earlier ones is forgotten with it.

        `stored`: its entry as it was then. `bare`: its credential may be good at another gateway, so it has none now.
        """
        if not self.is_present(device_id):
            return False
        at = self._present(device_id)
        before = self._stored(at)
        if not before.leaving or before.device.state not in {DeviceState.DISABLED, DeviceState.RETIRED}:
            return False
        kept = before.credentials
        if before.device.state is DeviceState.RETIRED and stored:
            kept = _decode(stored).credentials
        device = msgspec.structs.replace(before.device, state=DeviceState.REGISTERED)
        told: Facts = {"move": move, "credential": "void" if bare else "kept"}
        await self.trail.record(by, "device.move.back", device_id, after=told)
        await self._write(Stored(device, Credentials() if bare else kept), expected=self._revisions[at])
        return True

    async def move_out(self, device_id: str, *, by: Principal, to: str, move: str) -> bool:
        """Retire a device that has moved; its entry stays for the sake of its history. Return whether it was here."""
        if not self.is_present(device_id):
            return False
        at = self._present(device_id)
        before = self._stored(at)
        if before.device.state is DeviceState.RETIRED:
            return False
        after = msgspec.structs.replace(before.device, state=DeviceState.RETIRED)
        await self.trail.record(by, "device.move.out", device_id, before=facts(before.device), after={"to": to})
        await self._write(Stored(after, Credentials(), leaving=move), expected=self._revisions[at])
        return True

    def came_by(self, device_id: str, move: str) -> bool:
        """Return whether a move has brought a device that is still here."""
        found = self.stored(device_id)
        return found is not None and found.came == move and found.device.state is not DeviceState.RETIRED

    def demand_takeable(self, stored: Stored, division: str, move: str) -> None:
        """Return if a device of another gateway may come. Raises `ConfigError`, `Conflict`."""
        device = self._moved(stored, division)
        if self.came_by(device.id, move):
            return  # the order is repeated, whatever was done with the device since
        demand_good(device, self._divisions, home=self._home, profiles=self._profiles())
        at = self.index.of_id(device.id)
        if at >= 0 and self._values[at] is not None and self._stored(at).device.state is not DeviceState.RETIRED:
            known = self._stored(at).credentials
            if known.current is None or known != stored.credentials:
                raise Conflict(f"another device {device.id} is registered here")
            return
        self._demand_free(device)

    async def move_in(self, stored: Stored, division: str, *, by: Principal, source: str, move: str) -> bool:
        """Register a device that came from another gateway, with its credential; return whether it was not here yet."""
        device = self._moved(stored, division)
        at = self.index.of_id(device.id)
        present = at >= 0 and self._values[at] is not None
        if present and self._stored(at).device.state is not DeviceState.RETIRED:
            return False
        await self.trail.record(by, "device.move.in", device.id, after={**facts(device), "from": source})
        entry = Stored(device, stored.credentials, came=move)
        await self._write(entry, expected=self._revisions[at] if at >= 0 else 0)
        return True

    def _moved(self, stored: Stored, division: str) -> Device:
        # One that was disabled is not moved at all: its present state is that of the move.
        return self._canonical(msgspec.structs.replace(stored.device, division=division, state=DeviceState.REGISTERED))

    async def write_imported(self, device: Device) -> str:
        """Write a new entry that `importing` has examined and recorded; return its password."""
        device = self._canonical(device)
        secret, kept = ("", Credentials()) if device.gateway else secrets_.issue(partial(self._digest, device))
        await self._write(Stored(device, kept), expected=self._absence(device.id))
        return secret

    async def _write(self, stored: Stored, *, expected: int) -> None:
        value = _encode(stored)
        revision = await self._bucket.put(stored.device.id, value, expected=expected)
        await self._take(KvRow(stored.device.id, value, revision))

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        rows, self._watched = await self._bucket.load_all()
        self.index.reserve(len(rows))
        places: list[tuple[int, Device]] = []
        for count, row in enumerate(rows):
            at, _before, after = self._apply(row)
            if after and after.device.lon is not None:
                places.append((at, after.device))
            if count % 2_000 == 1_999:
                await asyncio.sleep(0)
        if places:
            self.index.place([at for at, _ in places], [device for _, device in places])
        self.version += 1

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; through losses of the engine."""
        await follow(self._bucket, self._watched, self._take, self._clock)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on the registry holds; looked at after every change."""
        async with self._applied:
            await self._applied.wait_for(condition)

    async def _take(self, row: KvRow) -> None:
        at = self.index.of_id(row.key)
        if at >= 0 and self._revisions[at] >= row.revision:
            return
        at, before, after = self._apply(row)
        if after:
            self.index.place([at], [after.device])
        self.version += 1
        for listener in self.on_change:
            listener(at, before, after)
        async with self._applied:
            self._applied.notify_all()

    def _apply(self, row: KvRow) -> tuple[int, Stored | None, Stored | None]:
        index = self.index
        at = index.slot(row.key)
        if at == len(self._values):
            self._values.append(None)
            self._revisions.append(0)
        old = self._values[at]
        before = _decode(old) if old is not None else None
        self._revisions[at] = row.revision
        alias = before.device.alias if before else ""
        for gateway in before.device.gateways if before else ():
            self._of_gateway.get(gateway, set()).discard(at)
        after = read_row(row, "device", _decode)
        if after is None:
            index.alias(at, alias, "")
            index.clear(at)
            self._values[at] = None
            return at, before, None
        self._values[at] = row.value
        device = after.device
        index.put(at, device)
        for gateway in device.gateways:
            self._of_gateway.setdefault(gateway, set()).add(at)
        if (device.alias or alias) and not index.alias(at, alias, device.alias):
            _log.warning("alias taken already; the later device is not known by it", device=row.key, alias=device.alias)
        return at, before, after

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────

    def _stored(self, at: int) -> Stored:
        value = self._values[at]
        if value is None:
            return Stored(Device(self.index.ids[at], self._home or "44", "", state=DeviceState.RETIRED))
        return _decode(value)

    def _state(self, at: int, device: Device) -> DeviceState:
        seen = int(self.index.seen[at])
        if not seen or device.state is not DeviceState.REGISTERED:
            return device.state
        interval_s = device.interval_s or self._interval_of(device.profile)
        limit_s = max(SILENT_INTERVALS * interval_s, 60.0) if interval_s else SILENT_AFTER_S
        return DeviceState.ACTIVE if self._clock.now() - seen <= limit_s * 1e6 else DeviceState.SILENT

    def is_present(self, device_id: str) -> bool:
        """Return whether a canonical id is registered; retired ones are."""
        at = self.index.of_id(device_id)
        return at >= 0 and self._values[at] is not None

    def _absence(self, device_id: str) -> int:
        """Return the revision to expect of an id that is not there: 0, or that of its deletion."""
        at = self.index.of_id(device_id)
        return self._revisions[at] if at >= 0 else 0

    def _present(self, device_id: str) -> int:
        if not self.is_present(device_id):
            raise _nothing(device_id)
        return self.index.of_id(device_id)

    def _mine(self, device_id: str, by: Principal) -> int:
        self.get(device_id, by)
        at = self._present(device_id)
        device = self._stored(at).device
        demand(by, Action.CHANGE_DEVICES, device.division, device.department)
        return at

    def _canonical(self, device: Device) -> Device:
        """Return the entry in the form in which it is kept: short division, no derived state, no revision."""
        kept = device.state in (DeviceState.DISABLED, DeviceState.RETIRED)
        return msgspec.structs.replace(
            device,
            division=short(device.division),
            state=device.state if kept else DeviceState.REGISTERED,
            revision=0,
        )

    def _against_others(self, device: Device) -> Findings:
        found: Findings = []
        for key, name in (("id", device.id), ("alias", device.alias)):
            other = self.find(name) if name else -1
            if other >= 0 and self.index.ids[other] != device.id and self._values[other] is not None:
                found.append(Finding(key, f"{name} names device {self.index.ids[other]} already", "choose another"))
        for gateway in device.gateways:
            at = self.index.of_id(gateway)
            if at < 0 or self._values[at] is None:
                found.append(Finding("gateway", f"no device {gateway}", "register the gateway first"))
            elif self._stored(at).device.gateway:
                found.append(Finding("gateway", f"{gateway} is itself behind a gateway", "name that one"))
        return found

    def _demand_free(self, device: Device) -> None:
        for finding in self._against_others(device):
            if finding.key == "gateway":
                raise ConfigError(finding.what, key=finding.key, remedy=finding.remedy)
            raise Conflict(f"{finding.what}; {finding.remedy}")


_VERBS = {DeviceState.DISABLED: "disable", DeviceState.REGISTERED: "enable", DeviceState.RETIRED: "retire"}


def facts(device: Device) -> Facts:
    """Return what the audit trail keeps of an entry."""
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(device, revision=0))
    return kept


def _nothing(device_id: str) -> NotFound:
    """Return what is said of a device that is not there, and in the same words of one that is out of scope."""
    return NotFound(f"no device {device_id[:64]} in your scope; see `sensegate device list`")


def state_of(code: int) -> DeviceState:
    """Return the state of a code of the index's `state` column."""
    return STATES[code]
