"""Where we connect to by the wish of others: only to addresses that the configuration lets out.

A name is resolved once, each of its addresses is judged, and the connection is made to just those: a name that
resolves otherwise a moment later changes nothing. Private, loopback, link-local and other special addresses are open
only where `egress.allow` names them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from sensegate.errors import ConfigError

PUBLIC = "public"
URL_MAX = 2_000
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""An address of these leads to an IPv4 address behind a translator."""


class EgressDenied(OSError):
    """A connection that is not let out."""


class Egress:
    """What `egress.allow` says, or another setting of this form (`key`)."""

    def __init__(self, allow: Sequence[str], *, key: str = "egress.allow") -> None:
        """Take networks, addresses, names of hosts, and the word ``public``. Raises `ConfigError`."""
        self._key = key
        self._public = PUBLIC in allow
        self._networks: list[_Network] = []
        self._hosts: set[str] = set()
        for entry in allow:
            if entry == PUBLIC:
                continue
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not entry or "/" in entry or ":" in entry or entry.replace(".", "").isdigit():
                    raise ConfigError(
                        f"'{entry[:60]}'",
                        key=key,
                        remedy="a network (10.2.0.0/16), an address, a name, or public",
                    ) from None
                self._hosts.add(entry.lower().rstrip("."))

    def check(self, url: str) -> None:
        """Return if an address is of a form that may be let out.

        Raises:
            ConfigError: another scheme than http and https, a password in it, or an address that is barred.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise _bad("is no URL", "https://HOST/PATH") from None
        if len(url) > URL_MAX or not url.isprintable() or " " in url:
            raise _bad("is too long, or holds blanks or control characters", "https://HOST/PATH")
        if parts.scheme not in {"https", "http"} or not host:
            raise _bad("is not https://HOST/PATH", "other schemes are not sent to")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise _bad("holds a user, a password or a fragment", "the signature proves who we are")
        literal = _literal(host)
        if literal is not None and not self.admits(host, literal):
            raise _bad(f"{host} is not let out", f"the configuration names what is: {self._key}")
        if parts.scheme == "http" and not self.is_named(host):
            raise _bad("is without TLS", f"send to https, or have {self._key} name the host")

    def is_named(self, host: str) -> bool:
        """Return whether the configuration names a host or the network of its literal address."""
        literal = _literal(host)
        return host.lower().rstrip(".") in self._hosts or (literal is not None and self._inside(literal))

    def admits(self, host: str, address: _Address) -> bool:
        """Return whether a connection to `host` at one of its addresses is let out."""
        if host.lower().rstrip(".") in self._hosts or self._inside(address):
            return True
        return self._public and is_public(address)

    def _inside(self, address: _Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def is_public(address: _Address) -> bool:
    """Return whether an address belongs to the public internet, also as what it stands for inside another one."""
    if isinstance(address, ipaddress.IPv6Address):
        if inner := address.ipv4_mapped or address.sixtofour:
            return is_public(inner)
        if address.teredo or any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _bad(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, key="url", remedy=remedy)


class EgressResolver(AbstractResolver):
    """Resolves names for aiohttp and leaves out what is not let out."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = [(kind, place) for kind, _, _, _, place in found if kind in {socket.AF_INET, socket.AF_INET6}]
        # One address that is barred bars the name: who sets it decides which of them is taken.
        for _, place in addresses:
            if not self._egress.admits(host, ipaddress.ip_address(str(place[0]).partition("%")[0])):
                raise EgressDenied(f"{host} leads to an address that is not let out")
        return [
            ResolveResult(
                hostname=host, host=str(place[0]), port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
            for kind, place in addresses
        ]

    async def close(self) -> None:
        """Do nothing: it holds nothing."""
