"""Places of a listener's connections."""

from __future__ import annotations

from sensegate.web.limits import ConnectionPlace, ConnectionPlaces


def test_addresses_of_one_network_share_its_places() -> None:
    """A host with an IPv6 /64 has as many places as one with a single address."""
    places = ConnectionPlaces("web", 8, 2, has_reserve=False)
    taken = [places.take(f"2001:db8::{number}") for number in range(3)]
    assert taken == [ConnectionPlace.ORDINARY, ConnectionPlace.ORDINARY, ConnectionPlace.ADDRESS_FULL]
    assert places.take("2001:db8:0:1::1") is ConnectionPlace.ORDINARY
    places.leave(ConnectionPlace.ORDINARY, "2001:db8::1")
    assert places.take("2001:db8::9") is ConnectionPlace.ORDINARY
