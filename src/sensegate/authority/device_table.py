"""The device registry in memory: the encoded entries, and their columns.

Per device, memory holds its encoded entry (about 200 bytes) and its row in the columns of `index`; a `Device` is
decoded on access.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import structlog

from sensegate.authority import credentials as secrets_
from sensegate.authority.credentials import Credentials, Proof
from sensegate.authority.divisions import Divisions
from sensegate.authority.index import STATES, DeviceIndex, ToWgs84, unchanged
from sensegate.authority.scope import Action, Principal, Scope, allows
from sensegate.authority.selection import (
    STATE_RANKS,
    DeviceFilter,
    DeviceSelection,
    SearchTexts,
    rank_values,
    rank_words,
)
from sensegate.bus.kv_row import KvRow
from sensegate.bus.unreadable import read_row
from sensegate.clock import SECOND_US, Clock
from sensegate.errors import NotFound
from sensegate.model import BOOL, F64, I32, I64, U8, Device, DeviceState

_log = structlog.get_logger(__name__)

SILENT_INTERVALS = 3
"""Number of missed intervals after which a device is silent."""
SILENT_MIN_S = 60.0
"""Least time without a message after which a device is silent."""
SILENT_AFTER_S = 3_600.0
"""Time after which a device without a known interval is silent."""

_COUNTED_S = 1.0
"""Age up to which a count of states is returned again: everybody may ask for it, and every open console does."""

# Aliases, because the method `list` shadows the built-in type within the class.
Indices = list[int]
Ids = list[str]


class StoredDevice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A registry entry as stored in the bucket."""

    device: Device
    credentials: Credentials = Credentials()
    format: int = 1
    moved_out_by: str = ""
    """Id of the move that disabled or removed the device; only the move registry may readmit it."""
    moved_in_by: str = ""
    """Id of the move that brought the device."""


encode_stored = msgspec.msgpack.Encoder().encode
decode_stored = msgspec.msgpack.Decoder(StoredDevice).decode


class RegistrationFacts(msgspec.Struct, frozen=True, eq=False):
    """References against which entries of the registry are checked and from which they are completed."""

    divisions: Divisions | None = None
    """Table of divisions; None: the usual one."""
    to_wgs84: ToWgs84 = unchanged
    """Converts coordinates from the datum in which they were registered."""
    profiles: Callable[[], frozenset[str]] = frozenset
    """Returns the known profiles (``vendor/model``); empty: not checked."""
    interval_of: Callable[[str], float] = lambda _profile: 0.0
    """Returns the expected interval of a profile in seconds, 0 if it has none."""


_ALL = DeviceFilter()


class DeviceTable:
    """The devices of a gateway as they are known here."""

    def __init__(self, clock: Clock, home: str, facts: RegistrationFacts) -> None:
        """Start empty.

        Args:
            clock: gives the time.
            home: the division that this gateway serves; empty: any.
            facts: the table of divisions, and what profiles declare.
        """
        self._clock = clock
        self._home = home
        self._divisions = facts.divisions or Divisions.load()
        self._interval_of = facts.interval_of
        self._values: list[bytes | None] = []
        self._revisions: list[int] = []
        self._of_gateway: dict[str, set[int]] = {}
        self.index = DeviceIndex(self._divisions, facts.to_wgs84)
        self._selection = DeviceSelection(self.index)
        self._texts = SearchTexts()
        self._ranks: dict[str, tuple[int, I64]] = {}
        """Field of an entry -> (version at which it was ranked, rank of its value by index)."""
        self.moving_out: set[str] = set()
        """Ids of devices that are moving to another gateway: they cannot connect; received messages count."""
        self._counted: tuple[int, float, dict[DeviceState, int]] = (-1, 0.0, {})
        """(version, monotonic time, count by state) when devices were counted last."""
        self.version = 0
        """Counter of changes; data derived at an older version is stale."""

    # ── the hot path ────────────────────────────────────────────────────────────────────────────────

    def find(self, name: str) -> int:
        """Return the index of a device by canonical id or alias; -1 if there is none."""
        return self.index.names.get(name, -1)

    @property
    def grade(self) -> U8:
        """Grade of readings, by index."""
        return self.index.grade

    def extents(self, device: I32) -> F64:
        """Return west, south, east and north of the division of each device; NaN where it is not known."""
        return self.index.extents(device)

    @property
    def lon(self) -> F64:
        """Longitude in WGS-84 degrees, by index; NaN: unknown."""
        return self.index.lon

    @property
    def lat(self) -> F64:
        """Latitude in WGS-84 degrees, by index; NaN: unknown."""
        return self.index.lat

    @property
    def enabled(self) -> BOOL:
        """Return whether readings are accepted, by index: not disabled, retired or deleted."""
        return self.index.enabled

    def observe(self, at: I32, received: I64) -> None:
        """Update the time of the last message of devices: a column of indices (none negative) and one of µs."""
        self.index.observe(at, received)

    def last_seen(self) -> dict[str, int]:
        """Return the arrival of the last message (µs UTC) of each registered device that sent any."""
        seen = self.index.last_seen[: len(self)]
        return {self.index.ids[at]: int(seen[at]) for at in np.flatnonzero(seen).tolist() if self._values[at]}

    def seen(self, at: int) -> int:
        """Return the arrival of the last message of a device, µs UTC; 0: unknown."""
        return int(self.index.last_seen[at])

    def silent_since(self, at: int) -> int:
        """Return when a device's next message was due by its interval, if it is silent; else 0. In µs UTC."""
        device = self._stored(at).device
        return self._due(at, device) if self._state(at, device) is DeviceState.SILENT else 0

    def interval_s(self, device: str, profile: str) -> float:
        """Return the expected interval of a device, else that of a profile; 0: unknown."""
        at = self.find(device)
        own = float(self.index.interval_s[at]) if at >= 0 else 0.0
        return own or self._interval_of(profile)

    def intervals_s(self) -> F64:
        """Return the expected interval of each device, by index: its own, else that of its profile; 0: unknown."""
        index = self.index
        by_profile = np.array([self._interval_of(profile) for profile in index.profiles.all] or [0.0])
        return np.where(index.interval_s > 0, index.interval_s, by_profile[index.profile])

    def mask(self, scope: Scope | None = None, *, profile: str = "", domain: str = "") -> BOOL:
        """Return a mask, by index, of the registered devices in a scope of a profile and domain (empty: any)."""
        return self._selection.mask(scope, DeviceFilter(profile=profile, domain=domain))

    def words(self, field: str) -> tuple[I32, Sequence[str]]:
        """Return a column, by index, of numbers of words, and these; of `division`, `department` and other names."""
        column, table = self._selection.words()[field]
        return column, table.all

    def silent(self, after_s: float = 0.0) -> BOOL:
        """Return a mask, by index, of the enabled devices without a message for `after_s` (0: longer than expected).

        A device that was never heard is not silent.
        """
        size, index = len(self), self.index
        limit_us = np.int64(round(after_s * SECOND_US)) if after_s else self._limits_us()
        seen = index.last_seen[:size]
        quiet: BOOL = index.enabled[:size] & (seen > 0) & (self._clock.now() - seen > limit_us)
        return quiet

    def _limits_us(self) -> I64:
        """Return after how many µs without a message each device is silent, by index."""
        index, size = self.index, len(self)
        by_profile = np.array([_limit_s(self._interval_of(profile)) for profile in index.profiles.all] or [0.0])
        own = index.interval_s[:size]
        limit_s = np.where(own > 0, np.maximum(SILENT_INTERVALS * own, SILENT_MIN_S), by_profile[index.profile[:size]])
        return np.round(limit_s * SECOND_US).astype(np.int64)

    def states(self) -> U8:
        """Return the state of each device, by index, as a number in `STATES`: active or silent if it was ever heard."""
        index, size = self.index, len(self)
        state = index.state[:size].copy()
        registered = state == STATES.index(DeviceState.REGISTERED)
        state[registered & (index.last_seen[:size] > 0)] = STATES.index(DeviceState.ACTIVE)
        state[registered & self.silent()] = STATES.index(DeviceState.SILENT)
        return state

    def count_states(self) -> dict[DeviceState, int]:
        """Return the number of registered devices in each state; where no entry changed, of at most a second ago."""
        now = self._clock.monotonic()
        version, counted_at, states = self._counted
        if version != self.version or not 0 <= now - counted_at < _COUNTED_S:
            states = self._count_states()
            self._counted = self.version, now, states
        return dict(states)

    def _count_states(self) -> dict[DeviceState, int]:
        counts = np.bincount(self.states()[self.mask()], minlength=len(STATES))
        return {word: int(count) for word, count in zip(STATES, counts.tolist(), strict=True)}

    def __len__(self) -> int:
        """Return the number of assigned indices."""
        return len(self.index)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def id(self, at: int) -> str:
        """Return the canonical id of an index."""
        return self.index.ids[at]

    def place(self, at: int) -> tuple[str, str]:
        """Return division and department of an index."""
        index = self.index
        return index.divisions.all[index.division[at]], index.departments.all[index.department[at]]

    def places(self, names: Sequence[str]) -> tuple[I64, list[tuple[str, str]]]:
        """Return the number of the place of each device (-1: it is unknown), and the places: (division, department)."""
        index = self.index
        if not len(index):
            return np.full(len(names), -1, np.int64), []
        known = index.names
        at = np.array([known.get(name, -1) for name in names], np.int64)
        departments = len(index.departments.all)
        key = np.where(at >= 0, index.division[at].astype(np.int64) * departments + index.department[at], -1)
        used, place = np.unique(key, return_inverse=True)
        offset = int(len(used) > 0 and used[0] < 0)
        places = [
            (index.divisions.all[division], index.departments.all[department])
            for division, department in (divmod(pair, departments) for pair in used[offset:].tolist())
        ]
        return place.reshape(-1) - offset, places

    def record(self, at: int) -> Device:
        """Return the device of an index, with its revision; a deleted device is returned as retired.

        Its state is `active` or `silent` if it ever sent a message.
        """
        device = self._stored(at).device
        return msgspec.structs.replace(device, revision=self._revisions[at], state=self._state(at, device))

    def get(self, device_id: str, by: Principal | None = None) -> Device:
        """Return a device by canonical id.

        Raises:
            NotFound: there is no such device that `by` may see.
        """
        at = self._present(device_id)
        device = self.record(at)
        if by and not allows(by, Action.READ_REGISTRY, device.division, device.department):
            raise not_found(device_id)
        return device

    def list(
        self,
        scope: Scope | None = None,
        wanted: DeviceFilter = _ALL,
        *,
        after: str = "",
        limit: int = 1_000,
    ) -> list[Device]:
        """Return the devices of a scope in order of id; for the next page pass the last id as `after`."""
        indices = self.ordered(self.select(scope, wanted), after=after)
        return [self.record(at) for at in indices[:limit].tolist()]

    def select(self, scope: Scope | None = None, wanted: DeviceFilter = _ALL) -> BOOL:
        """Return a mask, by index, of the registered devices in a scope that fit a filter."""
        mask = self._selection.mask(scope, wanted)
        if wanted.states:
            accepted = np.array([state in wanted.states for state in STATES], np.bool_)
            mask &= accepted[self.states()]
        words = self._selection.words()
        for name, fits in wanted.fields.items():
            if name in words:
                column, table = words[name]
                mask &= np.fromiter(map(fits, table.all), np.bool_, len(table.all))[column]
            else:  # these are in no column; what is left is decoded
                left = np.flatnonzero(mask)
                mask[left] = [fits(str(getattr(self.record(at), name))) for at in left.tolist()]
        if wanted.text:
            matching = self._texts.search(wanted.text, self._values, np.flatnonzero(mask))
            mask = np.zeros(len(mask), np.bool_)
            mask[matching] = True
        return mask

    def ordered(self, mask: BOOL, sort: Sequence[tuple[str, bool]] = (), *, after: str = "") -> I64:
        """Return the indices of a mask in order of id, after an id, or by columns.

        `sort` has (field of `Device`, ``last_seen`` or ``silent_since``; whether it descends), the most important
        first; devices that are equal in all of them stay in order of id.
        """
        indices = self._selection.in_order(mask, after)
        names = [name for name, _ in sort]
        if "id" in names:  # no two are equal in it, so that what comes after it decides nothing
            sort = sort[: names.index("id") + 1]
        for name, descends in reversed(sort):
            keys = np.arange(len(indices)) if name == "id" else self._sort_keys(name)[indices]
            # A stable sort by the negated key keeps the order of equal ones, which a reversed order would not.
            indices = indices[np.argsort(-keys if descends else keys, kind="stable")]
        return indices

    def _sort_keys(self, name: str) -> I64:
        """Return a number for each index by which devices are sorted."""
        index, size, words = self.index, len(self), self._selection.words()
        if name == "last_seen":
            return index.last_seen[:size]
        if name == "silent_since":
            return np.where(self.silent(), index.last_seen[:size] + self._limits_us(), 0)
        if name == "state":
            return STATE_RANKS[self.states()]
        if name in words:
            column, table = words[name]
            return rank_words(table.all)[column]
        version, ranks = self._ranks.get(name, (-1, np.zeros(0, np.int64)))
        if version != self.version or len(ranks) != size:
            entries = (None if value is None else decode_stored(value).device for value in self._values)
            ranks = rank_values([None if device is None else getattr(device, name) for device in entries])
            self._ranks[name] = (self.version, ranks)
        return ranks

    def of_profiles(self, names: Sequence[str]) -> BOOL:
        """Return a mask, by index, of the devices with one of these profiles."""
        matching = np.array([word in names for word in self.index.profiles.all], np.bool_)
        if not matching.any():
            return np.zeros(len(self), np.bool_)
        mask: BOOL = matching[self.index.profile[: len(self)]]
        return mask

    def ids_of(self, profile: str, scope: Scope) -> Ids:
        """Return the ids of the enabled devices of a profile in a scope."""
        mask = self.mask(scope, profile=profile) & self.index.enabled[: len(self)]
        return [self.index.ids[at] for at in np.flatnonzero(mask).tolist()]

    def children(self, gateway: str) -> Indices:
        """Return the indices of the devices behind a gateway."""
        return sorted(self._of_gateway.get(gateway, ()))

    def verify(self, user: str, password: str) -> tuple[Device, Proof] | None:
        """Return the device and the proof if the credential is valid and the device may connect; else None."""
        at = self.index.find_id(user)
        stored = self._stored(at) if at >= 0 and self._values[at] is not None else None
        proof = secrets_.verify(stored.credentials if stored else None, password, self._clock.now())
        # A device behind a gateway has no connection of its own, even if it had one before.
        if stored is None or proof is None or stored.device.gateway or not self.index.enabled[at]:
            return None
        if self.moving_out and stored.device.id in self.moving_out:
            return None
        return stored.device, proof

    def digests(self, name: str) -> tuple[Device, Sequence[bytes]] | None:
        """Return a device by id or alias with the encrypted HTTP Digest hashes of its valid passwords.

        None if there is no such device that may connect by itself.
        """
        at = self.find(name)
        stored = self._stored(at) if at >= 0 and self._values[at] is not None else None
        if stored is None or stored.device.gateway or not self.index.enabled[at] or stored.device.id in self.moving_out:
            return None
        credentials_ = stored.credentials
        previous = credentials_.previous_digest if self._clock.now() < credentials_.previous_until else b""
        return stored.device, [digest for digest in (credentials_.digest, previous) if digest]

    def credentials(self, device_id: str) -> Credentials:
        """Return the credentials of a device by canonical id; none where there is no such device."""
        at = self.index.find_id(device_id)
        return self._stored(at).credentials if at >= 0 else Credentials()

    def stored(self, device_id: str) -> StoredDevice | None:
        """Return an entry with its credentials, None if there is none."""
        return self._stored(self.index.find_id(device_id)) if self.is_present(device_id) else None

    def _present(self, device_id: str) -> int:
        if not self.is_present(device_id):
            raise not_found(device_id)
        return self.index.find_id(device_id)

    def _stored(self, at: int) -> StoredDevice:
        value = self._values[at]
        if value is None:
            return StoredDevice(Device(self.index.ids[at], self._home or "44", "", state=DeviceState.RETIRED))
        return decode_stored(value)

    def _state(self, at: int, device: Device) -> DeviceState:
        seen = int(self.index.last_seen[at])
        if not seen or device.state is not DeviceState.REGISTERED:
            return device.state
        return DeviceState.ACTIVE if self._clock.now() <= self._due(at, device) else DeviceState.SILENT

    def _due(self, at: int, device: Device) -> int:
        """Return until when a device may be quiet after its last message, µs UTC."""
        limit_s = _limit_s(device.interval_s or self._interval_of(device.profile))
        return int(self.index.last_seen[at]) + round(limit_s * SECOND_US)

    def is_present(self, device_id: str) -> bool:
        """Return whether a canonical id is registered, possibly as retired."""
        at = self.index.find_id(device_id)
        return at >= 0 and self._values[at] is not None

    def _revision_of(self, key: str) -> int:
        """Return the newest revision of an id that was seen; -1: none was."""
        at = self.index.find_id(key)
        return self._revisions[at] if at >= 0 else -1

    def _apply(self, row: KvRow) -> tuple[int, StoredDevice | None, StoredDevice | None]:
        index = self.index
        at = index.slot(row.key)
        if at == len(self._values):
            self._values.append(None)
            self._revisions.append(0)
        old = self._values[at]
        before = decode_stored(old) if old is not None else None
        self._revisions[at] = row.revision
        self._texts.discard(at)
        alias = before.device.alias if before else ""
        for gateway in before.device.gateways if before else ():
            self._of_gateway.get(gateway, set()).discard(at)
        after = read_row(row, "device", decode_stored)
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
            _log.warning("alias in use; the later device is not known by it", device=row.key, alias=device.alias)
        return at, before, after


def _limit_s(interval_s: float) -> float:
    """Return after how many seconds without a message a device with an expected interval (0: unknown) is silent."""
    return max(SILENT_INTERVALS * interval_s, SILENT_MIN_S) if interval_s else SILENT_AFTER_S


def not_found(device_id: str) -> NotFound:
    """Return the error for a device that does not exist or is out of scope, in the same words."""
    return NotFound(f"there is no device {device_id[:64]} in your scope; see `sensegate device list`")
