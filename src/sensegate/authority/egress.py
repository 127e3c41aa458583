"""Egress control of connections that subscribers ask for: only to addresses that the configuration allows.

The host that is judged is the one that will be dialled: after IDNA, which reads `①` as `1` and `。` as a dot. A name is
resolved once, each of its addresses is checked, and the connection is made to exactly these: a name that resolves
differently a moment later changes nothing. The address of the connected peer is checked once more before anything is
sent. Private, loopback, link-local and other special addresses are allowed only where `egress.allow` names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from sensegate.errors import ConfigError

PUBLIC = "public"
URL_MAX = 2_000
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""Prefixes whose addresses lead to an IPv4 address behind a translator."""


class EgressDenied(OSError):
    """A connection that egress control denies."""


class Egress:
    """The allow-list of `egress.allow`, or of another setting of this form (`key`)."""

    def __init__(self, allow: Sequence[str], *, key: str = "egress.allow") -> None:
        """Parse networks, addresses, host names, and the word ``public``. Raises `ConfigError`."""
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
                        f"'{entry[:60]}' is not valid",
                        key=key,
                        remedy="give a network (10.2.0.0/16), an address, a host name, or public",
                    ) from None
                self._hosts.add(_ascii_host(entry) or entry.lower())

    def check(self, url: str) -> None:
        """Return if a URL is allowed by its form; names are checked when they are resolved.

        Raises:
            ConfigError: the scheme is not http or https, it has a password, or its address is denied.
        """
        try:
            parts = urlsplit(url)
            host, _ = dialled_host(url), parts.port
        except ValueError:
            raise _bad("is not a URL", "give https://HOST/PATH") from None
        if len(url) > URL_MAX or not url.isprintable() or " " in url:
            raise _bad("is too long, or has spaces or control characters", "give https://HOST/PATH")
        if "%" in host and ":" not in host:  # the zone of an IPv6 address is allowed, an encoded name is not
            raise _bad("has an encoded host name", "give the name itself")
        if parts.scheme not in {"https", "http"} or not host:
            raise _bad("is not https://HOST/PATH", "give an address with https")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise _bad("has a user, a password or a fragment", "remove it; the signature authenticates us")
        self.check_host(host, encrypted="" if parts.scheme == "https" else "https")

    def check_host(self, host: str, *, encrypted: str = "") -> None:
        """Return if a connection to a host is allowed by its text.

        Args:
            host: name or address.
            encrypted: scheme with TLS that the caller should use instead; empty: it does.

        Raises:
            ConfigError: its address is denied, or a host without TLS is not named by the configuration.
        """
        literal = _literal(host)
        if literal is not None and not self.admits(host, literal):
            raise _bad(f"{host} is not allowed", f"add it to {self._key} in the configuration")
        if encrypted and not self.is_named(host):
            raise _bad("has no TLS", f"give an {encrypted} address, or add the host to {self._key}")

    def is_named(self, host: str) -> bool:
        """Return whether the configuration names a host or the network of its literal address."""
        literal = _literal(host)
        return (_ascii_host(host) or host) in self._hosts or (literal is not None and self._inside(literal))

    def admits(self, host: str, address: _Address) -> bool:
        """Return whether a connection to `host` at one of its addresses is allowed."""
        if (_ascii_host(host) or host) in self._hosts or self._inside(address):
            return True
        return self._public and is_public(address)

    def _inside(self, address: _Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def is_public(address: _Address) -> bool:
    """Return whether an address, or the IPv4 address embedded in it, belongs to the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if inner := address.ipv4_mapped or address.sixtofour:
            return is_public(inner)
        if address.teredo or any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def dialled_host(url: str) -> str:
    """Return the host to which a client connects for a URL, in ASCII; empty if there is none.

    aiohttp dials what yarl makes of a URL, so yarl decides here, too. Raises `ValueError`: it is not a URL.
    """
    return (yarl.URL(url).raw_host or "").rstrip(".")


def _ascii_host(host: str) -> str:
    """Return a host name in lower-case ASCII; empty if it is not one."""
    try:
        return (yarl.URL.build(host=host).raw_host or "").lower().rstrip(".")
    except ValueError:
        return ""


def _literal(host: str) -> _Address | None:
    """Return the address that a host is, in any notation that the system accepts (``127.1``); None for a name."""
    text = host.partition("%")[0]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except (OSError, ValueError):
        return None


def _bad(problem: str, remedy: str) -> ConfigError:
    return ConfigError(problem, key="url", remedy=remedy)


class EgressResolver(AbstractResolver):
    """Resolves names for aiohttp and denies those with an address that is not allowed."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        resolved = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = [
            (kind, address) for kind, _, _, _, address in resolved if kind in {socket.AF_INET, socket.AF_INET6}
        ]
        # One denied address denies the name: whoever sets the name decides which address is used.
        for _, address in addresses:
            if not self._egress.admits(host, ipaddress.ip_address(str(address[0]).partition("%")[0])):
                raise EgressDenied(f"{host} resolves to an address that is not allowed")
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
            for kind, address in addresses
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


class EgressConnector(aiohttp.TCPConnector):
    """Connects to allowed addresses only: judges the name, each address before, and the peer after connecting."""

    def __init__(self, egress: Egress, **options: Any) -> None:
        """`options`: those of `aiohttp.TCPConnector`."""
        super().__init__(resolver=EgressResolver(egress), use_dns_cache=False, **options)
        self._egress = egress

    async def _wrap_create_connection(
        self, *arguments: Any, addr_infos: list[Any], req: aiohttp.ClientRequest, **options: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        # Overridden because aiohttp has no public hook between the connection and the request.
        host = req.url.raw_host or ""
        for *_, address in addr_infos:
            self._demand_allowed(host, address)
        transport, protocol = await super()._wrap_create_connection(
            *arguments, addr_infos=addr_infos, req=req, **options
        )
        try:
            self._demand_allowed(host, transport.get_extra_info("peername"))
        except EgressDenied:
            transport.abort()
            raise
        return transport, protocol

    def _demand_allowed(self, host: str, address: Sequence[Any] | None) -> None:
        """Return if a connection may lead to a socket address. Raises `EgressDenied`."""
        text = str(address[0]).partition("%")[0] if address else ""
        try:
            is_allowed = self._egress.admits(host, ipaddress.ip_address(text))
        except ValueError:
            is_allowed = False
        if not is_allowed:
            raise EgressDenied(f"{host} leads to an address that is not allowed")


@contextlib.asynccontextmanager
async def outbound_session(
    egress: Egress, *, timeout_s: float, connections_max: int, per_host_max: int = 0
) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session that dials only what `egress` allows and keeps no cookies.

    Args:
        egress: judges each address before it is dialled.
        timeout_s: most seconds of one request.
        connections_max: most connections.
        per_host_max: most connections to one host; 0: no limit of its own.
    """
    async with aiohttp.ClientSession(
        connector=EgressConnector(egress, limit=connections_max, limit_per_host=per_host_max),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers={"User-Agent": "sensegate"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session
