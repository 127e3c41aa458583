"""The address of a client, behind reverse proxies too.

A header that names the client is believed only from the proxies of the configuration, and only the header that those
proxies write: another one passes through them as the client sent it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from aiohttp import web

from sensegate.config import WebConfig

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ENTRIES_MAX = 32
"""Proxies that are followed from the nearest one on."""
_FOR = re.compile(r"""(?:^|;)\s*for\s*=\s*("[^"]*"|[^;,\s]*)""", re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+)(?::\d+)?")


def client_address(request: web.Request, config: WebConfig) -> str:
    """Return the address of the client: the nearest one in the chain that is no proxy of the configuration."""
    address = request.remote or ""
    if not config.trusted_proxies or not _is_proxy(address, config.trusted_proxies):
        return address
    lines = request.headers.getall("Forwarded" if config.proxy_header == "forwarded" else "X-Forwarded-For", [])
    entries = [entry for line in lines for entry in line.split(",")][-ENTRIES_MAX:]
    for entry in reversed(entries):
        named = _node_of(entry) if config.proxy_header == "forwarded" else _address_of(entry)
        if not named:  # the proxy hides it, or it is no address: nobody behind it can be told apart
            return address
        address = named
        if not _is_proxy(named, config.trusted_proxies):
            return named
    return address


def _node_of(element: str) -> str:
    """Return the address of the `for` of an element of a Forwarded header (RFC 7239); empty: none."""
    match = _FOR.search(element)
    return _address_of(match[1].strip('"')) if match else ""


def _address_of(text: str) -> str:
    """Return the address of a text that may have a port; empty: it is none."""
    text = text.strip()
    if parts := _WITH_PORT.fullmatch(text):
        text = parts[1] or parts[2]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _is_proxy(address: str, proxies: Sequence[str]) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in _networks(tuple(proxies)))


@lru_cache(maxsize=16)
def _networks(proxies: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(proxy) for proxy in proxies)
