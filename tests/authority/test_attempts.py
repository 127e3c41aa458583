"""Failed authentications: whoever guesses is slowed down, whoever is right is not."""

from __future__ import annotations

import pytest

from sensegate.authority.attempts import (
    ENTRIES_MAX,
    FAILURES_MAX,
    FailedAttempts,
    SignInAttempts,
    network_of,
)
from sensegate.clock import FakeClock
from sensegate.config.people import PeopleConfig
from sensegate.errors import Overloaded


@pytest.fixture
def sign_in(clock: FakeClock) -> SignInAttempts:
    return SignInAttempts(PeopleConfig(), clock)


def fail(attempts: SignInAttempts, name: str, address: str, count: int = 5) -> None:
    for _ in range(count):
        attempts.failed(name, address)


async def test_wrong_secrets_slow_their_own_id(clock: FakeClock) -> None:
    """The 21st of an id at an address within a minute; other ids of the address get their plain answer."""
    attempts = FailedAttempts(clock)
    for _ in range(FAILURES_MAX):
        attempts.record("a", "192.0.2.1")
    with pytest.raises(Overloaded) as slowed:
        attempts.record("a", "192.0.2.1")
    assert slowed.value.retry_after_s == 60
    attempts.record("b", "192.0.2.1")
    attempts.record("a", "192.0.2.2")
    await clock.advance(61)
    attempts.record("a", "192.0.2.1")


def test_ids_in_turn_slow_the_address(clock: FakeClock) -> None:
    """Two hundred wrong ones with any ids; another address is not concerned."""
    attempts = FailedAttempts(clock)
    for number in range(200):
        attempts.record(str(number), "192.0.2.1")
    with pytest.raises(Overloaded):
        attempts.record("x", "192.0.2.1")
    attempts.record("x", "192.0.2.2")


async def test_a_name_is_locked_at_its_address_alone(sign_in: SignInAttempts, clock: FakeClock) -> None:
    """Five wrong passwords; elsewhere the owner signs in, and a success there does not unlock the guesser."""
    fail(sign_in, "li", "192.0.2.1")
    with pytest.raises(Overloaded, match="from your address"):
        sign_in.require_allowed("li", "192.0.2.1")
    sign_in.require_allowed("wang", "192.0.2.1")
    sign_in.require_allowed("li", "198.51.100.9")
    sign_in.succeeded("li", "198.51.100.9")
    with pytest.raises(Overloaded):
        sign_in.require_allowed("li", "192.0.2.1")
    await clock.advance(901)
    sign_in.require_allowed("li", "192.0.2.1")


def test_names_in_turn_lock_the_address_but_not_who_is_known_there(sign_in: SignInAttempts) -> None:
    """A bureau behind one address: one guesses names, colleagues who have signed in before go on."""
    sign_in.succeeded("li", "192.0.2.1")
    for number in range(20):
        sign_in.failed(f"name-{number}", "192.0.2.1")
    with pytest.raises(Overloaded):
        sign_in.require_allowed("new", "192.0.2.1")
    sign_in.require_allowed("li", "192.0.2.1")
    fail(sign_in, "li", "192.0.2.1")
    with pytest.raises(Overloaded):
        sign_in.require_allowed("li", "192.0.2.1")


def test_many_addresses_lock_a_name_but_not_where_its_owner_is(sign_in: SignInAttempts) -> None:
    """A hundred wrong passwords from many addresses: guessing is bounded, the owner is not shut out."""
    sign_in.succeeded("li", "198.51.100.9")
    for number in range(25):
        fail(sign_in, "li", f"192.0.2.{number}", 4)
    with pytest.raises(Overloaded, match="where you have before"):
        sign_in.require_allowed("li", "203.0.113.1")
    sign_in.require_allowed("li", "198.51.100.9")
    sign_in.forget("li")
    sign_in.require_allowed("li", "203.0.113.1")


def test_the_tables_are_bounded(sign_in: SignInAttempts, clock: FakeClock) -> None:
    """Names without end cost no memory without end; an eviction takes the oldest."""
    attempts = FailedAttempts(clock)
    for number in range(ENTRIES_MAX + 50):
        sign_in.failed(f"n{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        sign_in.succeeded(f"k{number}", "192.0.2.1")
        attempts.record(f"n{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    for table in (sign_in._pairs, sign_in._names, sign_in._addresses, sign_in._known, attempts._table):
        assert len(table) <= ENTRIES_MAX


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_the_key_of_an_address(address: str, key: str) -> None:
    """One host has a /64 of IPv6; a mapped address is that of IPv4."""
    assert network_of(address) == key
