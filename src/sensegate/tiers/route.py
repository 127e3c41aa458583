"""A node's way to its centre: how it is joined, kept and trusted, and what a node in a new store takes over it.

join ─▶ link.json ─▶ `Way` ─▶ connect ─▶ `above.Above`
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog

from sensegate import __version__
from sensegate.bus import trust
from sensegate.bus.connect import BusClient, connect
from sensegate.bus.kv import KvBucket
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import Clock
from sensegate.config import Config, UplinkConfig
from sensegate.errors import ConfigError, Overloaded, PermissionDenied, Unavailable
from sensegate.tiers import membership, registry_copies
from sensegate.tiers.link import CentreLink

PING_S = 2.0
"""A centre that does not answer for two of these is connected to anew: a cut that swallows packets is noticed soon."""
JOIN_AGAIN_S = 2.0

COPIED = ("profile_contents", "profiles", "devices", "tokens", "feeds", "sharing", "tasks", "usage")
"""Buckets of a node of which the centre keeps a copy: what a node in a new store begins with.

In this order: no decision is copied before the content that it names.
"""

_log = structlog.get_logger("way up")


async def begin(config: Config, clock: Clock) -> membership.Kept | None:
    """Return the way to the centre that this node has joined; with a code and no log yet it joins first.

    Where its log begins is told by the centre: a node that waits keeps its devices waiting, none of them loses a thing.

    Raises:
        PermissionDenied, Conflict, ConfigError: the code is not good.
    """
    directory, uplink = Path(config.directory), config.uplink
    found = membership.kept(directory)
    if found or config.role != "node" or not (uplink.join_code_file and uplink.centre_url):
        return found
    if membership.life(directory) or not Path(uplink.join_code_file).exists():  # noqa: ASYNC240 - nothing else runs yet
        return None
    while True:
        try:
            return await join(config)
        except (Unavailable, Overloaded) as why:
            _log.warning("the centre that this node is to join does not answer; tried again", why=str(why))
            await clock.sleep(JOIN_AGAIN_S)


async def join(config: Config) -> membership.Kept:
    """Join with the code of the configuration. Raises as `membership.join`."""
    uplink = config.uplink
    code = membership.read_code(uplink.join_code_file)
    made = await membership.join(
        Path(config.directory), code, uplink.centre_url, member=config.member_id, link=uplink.url
    )
    membership.used_up(uplink.join_code_file)
    _log.info("joined", centre=made.centre, generation=made.generation)
    return made


class Way(msgspec.Struct, frozen=True, eq=False):
    """How this node connects to its centre."""

    member: str
    """Its id there."""
    slot: str
    """The account of its link."""
    url: str
    secret: str
    tls: ssl.SSLContext | None
    generation: int = 0


async def connected(way: Way, timeout_s: float = 10.0) -> BusClient:
    """Connect to a centre. Raises `Unavailable`, `PermissionDenied`, `Untrusted`."""
    return await connect(
        way.url,
        node_user(way.member),
        way.secret,
        inbox_prefix=inbox_prefix(way.slot),
        name=f"uplink {way.member} {__version__}",
        tls=way.tls,
        ping_s=PING_S,
        reconnect_timeout_s=PING_S,
        timeout_s=timeout_s,
    )


def told_way(told: membership.Kept, uplink: UplinkConfig) -> Way:
    """Return the way that was told at the join, with what the configuration says of it."""
    told = msgspec.structs.replace(told, url=uplink.url or told.url)
    if uplink.pin_sha256 or uplink.ca_file:
        # What the configuration says is newer than what was told at the join: the certificate may have been replaced.
        tls = trusted(msgspec.structs.replace(uplink, url=told.url))
    else:
        tls = membership.trusted(told)
        if tls and uplink.cert_file:
            tls.load_cert_chain(uplink.cert_file, uplink.key_file or None)
    return Way(told.member, told.slot, told.url, told.secret, tls, told.generation)


async def restore(config: Config, clock: Clock, told: membership.Kept, buckets: Mapping[str, KvBucket]) -> None:
    """Fill the registries of a new store with what the centre has of this node, before anything is opened.

    Of two sites it asks one after the other: the one at which it joined may be away, or stand by.

    Raises:
        PermissionDenied: the centre does not let this node in.
    """
    others = config.uplink.others
    for turn in itertools.count():
        way = turned(told_way(told, config.uplink), config.uplink, turn)
        try:
            nc = await connected(way)
            try:
                link = CentreLink(nc, slot=way.slot, member=way.member)
                count = await registry_copies.restore(buckets, partial(link.ask_patiently, clock=clock))
            finally:
                await nc.close()
        except (Unavailable, PermissionDenied) as why:
            if isinstance(why, PermissionDenied) and not others:
                raise
            _log.warning("no centre gives this node's registries; tried again", url=way.url, why=str(why))
            await clock.sleep(JOIN_AGAIN_S)
        else:
            _log.info("registries restored from the centre", rows=count)
            return


def turned(way: Way, uplink: UplinkConfig, turns: int) -> Way:
    """Return the way to the centre whose turn it is: the first, then the others in order, and again."""
    number = turns % (1 + len(uplink.others))
    if number == 0:
        return way
    other = uplink.others[number - 1]
    there = msgspec.structs.replace(uplink, url=other.url, ca_file=other.ca_file, pin_sha256=other.pin_sha256)
    return msgspec.structs.replace(way, url=other.url, tls=trusted(there))


def trusted(uplink: UplinkConfig) -> ssl.SSLContext | None:
    """Return what the centre's certificate is checked against; None for a link without TLS."""
    if not uplink.url.startswith("tls://"):
        if uplink.pin_sha256 or (uplink.cert_file and not uplink.others):
            raise ConfigError(f"'{uplink.url}' is no tls:// address", key="uplink.url", remedy="pins need TLS")
        return None
    return trust.client_context(
        "uplink",
        ca_file=uplink.ca_file,
        pins=uplink.pin_sha256,
        cert_file=uplink.cert_file,
        key_file=uplink.key_file,
    )
