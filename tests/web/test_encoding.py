"""Texts of payloads, and headers of compressed responses."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sensegate.web.encoding import compress
from sensegate.web.limits import ConnectionPlace, ConnectionPlaces
from sensegate.web.routing import payload_text


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_cut_text_stays_a_text(before: int) -> None:
    """A payload that is cut inside a character is shown without that character; one that ends so is no text."""
    text = "x" * before + "温" * 3_000
    shown = payload_text(text.encode())
    assert text.startswith(shown)
    assert 4_093 < len(shown.encode()) <= 4_096
    assert payload_text("温".encode()[:2]).startswith("base64:")


async def test_what_else_a_response_varies_by_stays() -> None:
    """A cache that knew of the coding alone would show one person's page to another."""
    response = web.Response(text="x" * 2_000, headers={"Vary": "Cookie, Accept-Language"})
    await compress(make_mocked_request("GET", "/", headers={"Accept-Encoding": "gzip"}), response)
    assert response.headers["Vary"] == "Cookie, Accept-Language, Accept-Encoding"


def test_addresses_of_one_network_share_its_places() -> None:
    """A host with an IPv6 /64 has as many places as one with a single address."""
    places = ConnectionPlaces("web", 8, 2, has_reserve=False)
    taken = [places.take(f"2001:db8::{number}") for number in range(3)]
    assert taken == [ConnectionPlace.ORDINARY, ConnectionPlace.ORDINARY, ConnectionPlace.ADDRESS_FULL]
    assert places.take("2001:db8:0:1::1") is ConnectionPlace.ORDINARY
    places.leave(ConnectionPlace.ORDINARY, "2001:db8::1")
    assert places.take("2001:db8::9") is ConnectionPlace.ORDINARY
