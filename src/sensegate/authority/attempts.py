"""Failed authentications: throttling of guessing clients only.

Generated secrets (tokens, credentials of devices) cannot be guessed, so a right one is never refused: `FailedAttempts`
only tells a caller with wrong ones to wait. Passwords of people can be guessed, so `SignInAttempts` locks a name at an
address before its password is tried, but not for its owner elsewhere. All tables are bounded.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

import msgspec

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.config.people import PeopleConfig
from sensegate.errors import Overloaded

FAILURES_MAX: Final = 20
"""Failures with one id from one address within `WINDOW_S`, after which wrong secrets get 429 instead of 401."""
ADDRESS_FAILURES_MAX: Final = 200
"""The same for all ids together."""
WINDOW_S: Final = 60.0
ENTRIES_MAX: Final = 10_000
"""Entries of each table; the least recently used are evicted."""
ADDRESS_FACTOR: Final = 4
"""Wrong passwords from one address within `WINDOW_S`, as a multiple of `people.failures_max`: names tried in turn."""
NAME_FACTOR: Final = 20
"""Wrong passwords for one name from all addresses, as a multiple of `people.failures_max`: 100 by default."""


def network_of(address: str) -> str:
    """Return the key of an address in tables of failures: of IPv6 its /64, whose addresses one host can all use."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class _Failures(msgspec.Struct):
    """Failures in a row."""

    until: float
    """Time (monotonic) at which they are forgotten."""
    count: int = 0


class _FailureTable:
    """Failures by key, bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, ...], _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, *key: str) -> int:
        """Return the failures of a key that are not forgotten."""
        entry = self._entries.get(key)
        return entry.count if entry is not None and entry.until > self._clock.monotonic() else 0

    def left_s(self, *key: str) -> float:
        """Return the time after which the failures of a key are forgotten."""
        entry = self._entries.get(key)
        return max(0.0, entry.until - self._clock.monotonic()) if entry is not None else 0.0

    def add(self, *key: str, window_s: float, is_prolonged: bool) -> int:
        """Count a failure; return the failures of the key. `is_prolonged`: the window begins anew with each."""
        now = self._clock.monotonic()
        entry = self._entries.pop(key, None)
        if entry is None or entry.until <= now:
            entry = _Failures(now + window_s)
        entry.count += 1
        if is_prolonged:
            entry.until = now + window_s
        self._entries[key] = entry
        while len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return entry.count

    def forget(self, *key: str) -> None:
        """Forget the failures of a key."""
        self._entries.pop(key, None)

    def forget_name(self, name: str) -> None:
        """Forget the failures of all keys that begin with a name."""
        for key in [key for key in self._entries if key[0] == name]:
            del self._entries[key]


class FailedAttempts:
    """Failed authentications with generated secrets, by id and address."""

    def __init__(self, clock: Clock) -> None:
        self._table = _FailureTable(clock)

    def record(self, caller_id: str, address: str) -> None:
        """Count a failed authentication with the secret of an id; call it after a secret proved wrong.

        Raises:
            Overloaded: too many failures with this id from this address, or with all ids from it.
        """
        metrics.PERMISSION_DENIED.labels("http").inc()
        network = network_of(address)
        own = self._table.add("id", caller_id[:128], network, window_s=WINDOW_S, is_prolonged=False)
        all_ids = self._table.add("address", network, window_s=WINDOW_S, is_prolonged=False)
        if own > FAILURES_MAX or all_ids > ADDRESS_FAILURES_MAX:
            key = ("id", caller_id[:128], network) if own > FAILURES_MAX else ("address", network)
            metrics.LIMIT_HITS.labels("http_failures").inc()
            raise Overloaded(
                "too many wrong credentials from your address; wait, then send the right one",
                retry_after_s=self._table.left_s(*key),
            )


class SignInAttempts:
    """Wrong passwords of people, by name and address.

    A name is locked at an address; names tried in turn lock the address for all names, and wrong passwords from many
    addresses lock the name. The last two do not hold where the name has signed in before: its owner is there.
    """

    def __init__(self, config: PeopleConfig, clock: Clock) -> None:
        self._config = config
        self._pairs = _FailureTable(clock)
        self._addresses = _FailureTable(clock)
        self._names = _FailureTable(clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def require_allowed(self, name: str, address: str) -> None:
        """Return if a password may be tried. Raises `Overloaded`, for known and unknown names alike."""
        network, failures_max = network_of(address), self._config.failures_max
        if self._pairs.count(name, network) >= failures_max:
            raise Overloaded(
                "too many wrong passwords for this name from your address; wait",
                retry_after_s=self._pairs.left_s(name, network),
            )
        if (name, network) in self._known:
            return
        if self._addresses.count(network) >= failures_max * ADDRESS_FACTOR:
            raise Overloaded(
                "too many wrong passwords from your address; wait", retry_after_s=self._addresses.left_s(network)
            )
        if self._names.count(name) >= failures_max * NAME_FACTOR:
            raise Overloaded(
                "too many wrong passwords for this name; wait, or sign in where you have before",
                retry_after_s=self._names.left_s(name),
            )

    def failed(self, name: str, address: str) -> bool:
        """Count a wrong password; return whether it locked the name at the address, or everywhere."""
        network, lockout_s = network_of(address), self._config.lockout_s
        self._addresses.add(network, window_s=WINDOW_S, is_prolonged=False)
        here = self._pairs.add(name, network, window_s=lockout_s, is_prolonged=True)
        anywhere = self._names.add(name, window_s=lockout_s, is_prolonged=False)
        return here == self._config.failures_max or anywhere == self._config.failures_max * NAME_FACTOR

    def succeeded(self, name: str, address: str) -> None:
        """Forget the wrong passwords of a name at an address, and remember that it signs in there."""
        network = network_of(address)
        self._pairs.forget(name, network)
        self._known.pop((name, network), None)
        self._known[name, network] = None
        while len(self._known) > ENTRIES_MAX:
            self._known.popitem(last=False)

    def forget(self, name: str) -> None:
        """Forget all about a name, whose password was reset."""
        self._pairs.forget_name(name)
        self._names.forget(name)
        for pair in [pair for pair in self._known if pair[0] == name]:
            del self._known[pair]
