"""The client's address: headers are believed from trusted proxies alone, and the right header alone."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from msgspec.structs import replace

from sensegate.config import WebConfig
from sensegate.web.addresses import client_address

PROXIES = ("10.1.0.0/16", "fd00::/8")


def resolved(remote: str, config: WebConfig, *headers: tuple[str, str]) -> str:
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=remote)
    return client_address(request, config)


CASES = [
    # peer, value of the header, client
    ("192.0.2.9", "203.0.113.5", "192.0.2.9"),
    ("10.1.0.7", "203.0.113.5", "203.0.113.5"),
    ("10.1.0.7", "198.51.100.1, 203.0.113.5", "203.0.113.5"),
    ("10.1.0.7", "203.0.113.5, 10.1.0.8", "203.0.113.5"),
    ("10.1.0.7", "10.1.0.9, 10.1.0.8", "10.1.0.9"),
    ("10.1.0.7", "unknown", "10.1.0.7"),
    ("10.1.0.7", "203.0.113.5, nonsense", "10.1.0.7"),
    ("10.1.0.7", "203.0.113.5, nonsense, 10.1.0.8", "10.1.0.8"),
    ("10.1.0.7", "203.0.113.5:4711", "203.0.113.5"),
    ("10.1.0.7", "[2001:db8::1]:4711", "2001:db8::1"),
    ("10.1.0.7", "", "10.1.0.7"),
    ("fd00::1", "2001:db8::1", "2001:db8::1"),
    ("::ffff:10.1.0.7", "203.0.113.5", "203.0.113.5"),
    ("", "203.0.113.5", ""),
]


@pytest.mark.parametrize(("remote", "value", "client"), CASES)
def test_x_forwarded_for(remote: str, value: str, client: str) -> None:
    """The nearest address that is no proxy; what a client put before it is not believed."""
    config = WebConfig(trusted_proxies=PROXIES)
    assert resolved(remote, config, ("X-Forwarded-For", value)) == client
    assert resolved(remote, WebConfig(), ("X-Forwarded-For", value)) == remote, "negative control: no proxies"


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.5", "203.0.113.5"),
        ('for="[2001:db8::1]:80";proto=https;by=10.1.0.7', "2001:db8::1"),
        ("for=198.51.100.1, For=203.0.113.5;host=x, for=10.1.0.8", "203.0.113.5"),
        ("for=_hidden", "10.1.0.7"),
        ("proto=https", "10.1.0.7"),
    ],
)
def test_forwarded(value: str, client: str) -> None:
    """RFC 7239; the other header passes through the proxy as the client sent it, and is not read."""
    config = WebConfig(trusted_proxies=PROXIES, proxy_header="forwarded")
    spoofed = ("X-Forwarded-For", "192.0.2.66")
    assert resolved("10.1.0.7", config, ("Forwarded", value), spoofed) == client
    other = replace(config, proxy_header="x-forwarded-for")
    assert resolved("10.1.0.7", other, ("Forwarded", value)) == "10.1.0.7"


def test_several_lines_are_one_list() -> None:
    """A header that is repeated is one list, in its order (RFC 9110)."""
    config = WebConfig(trusted_proxies=PROXIES)
    lines = (("X-Forwarded-For", "192.0.2.66"), ("X-Forwarded-For", "203.0.113.5"))
    assert resolved("10.1.0.7", config, *lines) == "203.0.113.5"
