"""A node's way to its centre: how it is joined, kept and trusted, and what a node in a new store takes over it.

join ─▶ link.json ─▶ `CentreRoute` ─▶ connect ─▶ `above.Above`
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog

from sensegate.bus import trust
from sensegate.bus.connect import Link, connect
from sensegate.bus.kv import Bucket
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import Clock
from sensegate.config import Config, UplinkConfig
from sensegate.errors import ConfigError, Overloaded, PermissionDenied, Unavailable
from sensegate.tiers import membership, registry_copies
from sensegate.tiers.link import CentreLink, connection_name

PING_S = 2.0
"""A centre that does not answer for two of these is connected to anew: a cut that swallows packets is noticed soon."""
JOIN_RETRY_S = 2.0

COPIED_BUCKETS = ("profile_contents", "profiles", "devices", "tokens", "feeds", "sharing", "tasks", "usage")
"""Buckets of a node of which the centre keeps a copy: what a node in a new store begins with.

In this order: no decision is copied before the content that it names.
"""

_log = structlog.get_logger("way up")


async def begin(config: Config, clock: Clock) -> membership.StoredLink | None:
    """Return the way to the centre that this node has joined; with a code and no log yet it joins first.

    Where its log begins is told by the centre: a node that waits keeps its devices waiting, none of them loses a thing.

    Raises:
        PermissionDenied, Conflict, ConfigError: the code is not good.
    """
    directory, uplink = Path(config.directory), config.uplink
    found = membership.read_link(directory)
    if found or config.role != "node" or not (uplink.join_code_file and uplink.centre_url):
        return found
    if membership.read_log_epoch(directory) or not Path(uplink.join_code_file).exists():  # noqa: ASYNC240 - nothing else runs yet
        return None
    while True:
        try:
            return await join(config)
        except (Unavailable, Overloaded) as why:
            _log.warning("the centre that this node is to join does not answer; tried again", why=str(why))
            await clock.sleep(JOIN_RETRY_S)


async def join(config: Config) -> membership.StoredLink:
    """Join with the code of the configuration. Raises as `membership.join`."""
    uplink = config.uplink
    code = membership.read_code(uplink.join_code_file)
    made = await membership.join(
        Path(config.directory), code, uplink.centre_url, member=config.member_id, link=uplink.url
    )
    membership.mark_code_used(uplink.join_code_file)
    _log.info("joined", centre=made.centre, generation=made.generation)
    return made


class CentreRoute(msgspec.Struct, frozen=True, eq=False):
    """How this node connects to its centre."""

    member: str
    """Its id there."""
    slot: str
    """The account of its link."""
    url: str
    secret: str
    tls: ssl.SSLContext | None
    generation: int = 0


async def connect_to_centre(way: CentreRoute, timeout_s: float = 10.0) -> Link:
    """Connect to a centre. Raises `Unavailable`, `PermissionDenied`, `Untrusted`."""
    return await connect(
        way.url,
        node_user(way.member),
        way.secret,
        inbox_prefix=inbox_prefix(way.slot),
        name=connection_name("uplink", way.member),
        tls=way.tls,
        ping_s=PING_S,
        reconnect_timeout_s=PING_S,
        timeout_s=timeout_s,
    )


def joined_route(told: membership.StoredLink, uplink: UplinkConfig) -> CentreRoute:
    """Return the way that was told at the join, with what the configuration says of it."""
    told = msgspec.structs.replace(told, url=uplink.url or told.url)
    if uplink.pin_sha256 or uplink.ca_file:
        # What the configuration says is newer than what was told at the join: the certificate may have been replaced.
        tls = tls_context(msgspec.structs.replace(uplink, url=told.url))
    else:
        tls = membership.tls_context(told)
        if tls and uplink.cert_file:
            tls.load_cert_chain(uplink.cert_file, uplink.key_file or None)
    return CentreRoute(told.member, told.slot, told.url, told.secret, tls, told.generation)


async def restore(config: Config, clock: Clock, told: membership.StoredLink, buckets: Mapping[str, Bucket]) -> None:
    """Fill the registries of a new store with what the centre has of this node, before anything is opened.

    Of two sites it asks one after the other: the one at which it joined may be away, or stand by.

    Raises:
        PermissionDenied: the centre does not let this node in.
    """
    others = config.uplink.other_centres
    for turn in itertools.count():
        way = route_of_turn(joined_route(told, config.uplink), config.uplink, turn)
        try:
            nc = await connect_to_centre(way)
            try:
                link = CentreLink(nc, slot=way.slot, member=way.member)
                count = await registry_copies.restore(buckets, partial(link.ask_with_retries, clock=clock))
            finally:
                await nc.close()
        except (Unavailable, PermissionDenied) as why:
            if isinstance(why, PermissionDenied) and not others:
                raise
            _log.warning("no centre gives this node's registries; tried again", url=way.url, why=str(why))
            await clock.sleep(JOIN_RETRY_S)
        else:
            _log.info("registries restored from the centre", rows=count)
            return


def route_of_turn(way: CentreRoute, uplink: UplinkConfig, turns: int) -> CentreRoute:
    """Return the way to the centre whose turn it is: the first, then the others in order, and again."""
    number = turns % (1 + len(uplink.other_centres))
    if number == 0:
        return way
    other = uplink.other_centres[number - 1]
    there = msgspec.structs.replace(uplink, url=other.url, ca_file=other.ca_file, pin_sha256=other.pin_sha256)
    return msgspec.structs.replace(way, url=other.url, tls=tls_context(there))


def tls_context(uplink: UplinkConfig) -> ssl.SSLContext | None:
    """Return what the centre's certificate is checked against; None for a link without TLS."""
    if not uplink.url.startswith("tls://"):
        if uplink.pin_sha256 or (uplink.cert_file and not uplink.other_centres):
            raise ConfigError(f"'{uplink.url}' is no tls:// address", key="uplink.url", remedy="pins need TLS")
        return None
    return trust.context(
        "uplink",
        ca_file=uplink.ca_file,
        pins=uplink.pin_sha256,
        cert_file=uplink.cert_file,
        key_file=uplink.key_file,
    )
