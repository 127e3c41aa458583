"""The route of a node to its centre: joining, TLS trust, the turn between two centres, restoring a new store.

join ─▶ link.json ─▶ `CentreRoute` ─▶ connect ─▶ `node_side`
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog

from sensegate.bus import trust
from sensegate.bus.connect import BusClient, LinkOptions, Login, connect
from sensegate.bus.kv import KvBucket
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import Clock
from sensegate.config import Config, UplinkConfig, read_secret
from sensegate.errors import ConfigError, Overloaded, PermissionDenied, Unavailable
from sensegate.tiers import membership, registry_copies
from sensegate.tiers.link import CentreLink, connection_name

PING_S = 2.0
"""Ping interval: after two unanswered ones the node reconnects, so that a link that drops packets is noticed soon."""
JOIN_RETRY_S = 2.0

COPIED_BUCKETS = ("profile_contents", "profiles", "devices", "tokens", "feeds", "sharing", "tasks", "usage")
"""Buckets of a node of which the centre keeps a copy: what a node in a new store begins with.

In this order: no decision is copied before the content that it names.
"""

_log = structlog.get_logger("tiers")


async def begin(config: Config, clock: Clock) -> membership.StoredLink | None:
    """Return the link of a node that has joined; a node with a join code and without a log joins first.

    The centre decides where the node's log begins, so the node waits for it before it accepts devices.

    Raises:
        PermissionDenied, Conflict, ConfigError: the code is not valid.
    """
    directory, uplink = Path(config.directory), config.uplink
    link = membership.read_link(directory)
    if link or config.role != "node" or not (uplink.join_code_file and uplink.centre_url):
        return link
    if membership.read_log_epoch(directory) or not await asyncio.to_thread(Path(uplink.join_code_file).exists):
        return None
    while True:
        try:
            return await join(config)
        except (Unavailable, Overloaded) as why:
            _log.warning("not joined: the centre does not answer; retrying", reason=str(why))
            await clock.sleep(JOIN_RETRY_S)


async def join(config: Config) -> membership.StoredLink:
    """Join with the code of the configuration. Raises as `membership.join`."""
    uplink = config.uplink
    code = membership.read_code(uplink.join_code_file)
    link = await membership.join(
        Path(config.directory), code, uplink.centre_url, member=config.member_id, link_url=uplink.url
    )
    membership.mark_code_used(uplink.join_code_file)
    _log.info("node joined", centre=link.centre, generation=link.generation)
    return link


class CentreRoute(msgspec.Struct, frozen=True, eq=False):
    """Address and credentials with which this node connects to its centre."""

    member: str
    """Id of this node at the centre."""
    slot: str
    """Account of the link at the centre's server."""
    url: str
    secret: str
    tls: ssl.SSLContext | None
    generation: int = 0


async def connect_to_centre(route: CentreRoute, timeout_s: float = 10.0) -> BusClient:
    """Connect to a centre. Raises `Unavailable`, `PermissionDenied`, `Untrusted`."""
    return await connect(
        route.url,
        Login(node_user(route.member), route.secret, inbox_prefix(route.slot)),
        name=connection_name("uplink", route.member),
        tls=route.tls,
        link_options=LinkOptions(timeout_s, ping_s=PING_S, reconnect_timeout_s=PING_S),
    )


def present_route(config: Config) -> CentreRoute | None:
    """Return the route to the centre, by configuration or by a join; None: there is none.

    Raises:
        ConfigError: a file of it cannot be read.
    """
    uplink = config.uplink
    if uplink.secret_file:
        if not uplink.url:
            return None
        member = config.member_id
        return CentreRoute(member, member, uplink.url, read_secret(uplink.secret_file), tls_context(uplink))
    link = membership.read_link(Path(config.directory))
    return None if link is None else joined_route(link, uplink)


def joined_route(link: membership.StoredLink, uplink: UplinkConfig) -> CentreRoute:
    """Return the route of a node that has joined; settings of the configuration take precedence."""
    link = msgspec.structs.replace(link, url=uplink.url or link.url)
    if uplink.pin_sha256 or uplink.ca_file:
        # The configuration is newer than the join: the certificate may have been replaced since.
        tls = tls_context(msgspec.structs.replace(uplink, url=link.url))
    else:
        tls = membership.tls_context(link)
        if tls and uplink.cert_file:
            tls.load_cert_chain(uplink.cert_file, uplink.key_file or None)
    return CentreRoute(link.member, link.slot, link.url, link.secret, tls, link.generation)


async def restore(config: Config, clock: Clock, link: membership.StoredLink, buckets: Mapping[str, KvBucket]) -> None:
    """Fill the registries of a new store from their copies at the centre, before anything is opened.

    With two centres it asks each in turn: the one at which the node joined may be away, or on standby.

    Raises:
        PermissionDenied: the centre refuses this node.
    """
    others = config.uplink.other_centres
    for attempt in itertools.count():
        route = route_of_turn(joined_route(link, config.uplink), config.uplink, attempt)
        try:
            connection = await connect_to_centre(route)
            try:
                centre = CentreLink(connection, slot=route.slot, member=route.member)
                count = await registry_copies.restore(buckets, partial(centre.ask_with_retries, clock=clock))
            finally:
                await connection.close()
        except (Unavailable, PermissionDenied) as why:
            if isinstance(why, PermissionDenied) and not others:
                raise
            _log.warning("registries not restored from the centre; retrying", url=route.url, reason=str(why))
            await clock.sleep(JOIN_RETRY_S)
        else:
            _log.info("registries restored from the centre", rows=count)
            return


def route_of_turn(route: CentreRoute, uplink: UplinkConfig, turns: int) -> CentreRoute:
    """Return the route to the centre whose turn it is: the first, then the others in order, round robin."""
    number = turns % (1 + len(uplink.other_centres))
    if number == 0:
        return route
    other = uplink.other_centres[number - 1]
    settings = msgspec.structs.replace(uplink, url=other.url, ca_file=other.ca_file, pin_sha256=other.pin_sha256)
    return msgspec.structs.replace(route, url=other.url, tls=tls_context(settings))


def tls_context(uplink: UplinkConfig) -> ssl.SSLContext | None:
    """Return the TLS context that trusts the centre by the configuration; None for a link without TLS."""
    if not uplink.url.startswith("tls://"):
        if uplink.pin_sha256 or (uplink.cert_file and not uplink.other_centres):
            raise ConfigError(
                f"'{uplink.url}' is not a tls:// address", key="uplink.url", remedy="pins and certificates need TLS"
            )
        return None
    return trust.client_context(
        "uplink",
        ca_file=uplink.ca_file,
        pins=uplink.pin_sha256,
        cert_file=uplink.cert_file,
        key_file=uplink.key_file,
    )
