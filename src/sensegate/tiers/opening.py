"""Build what the tier of a gateway needs before its other parts: a node's origin and connection, a centre's members."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sensegate.authority.divisions import Divisions
from sensegate.authority.trail import Trail
from sensegate.bus import streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import Bucket
from sensegate.bus.opening import Core
from sensegate.bus.process import write_private
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.ports import PartKey
from sensegate.tiers import membership, route
from sensegate.tiers.admission import Site, open_members
from sensegate.tiers.centre_connection import CONNECTION, CentreConnection
from sensegate.tiers.members import Members
from sensegate.tiers.return_flow import ReturnFlow

_NO_CENTRE = "this gateway is no centre"
MEMBERSHIP = PartKey[Members]("membership", absent=_NO_CENTRE)
RETURN_INDEX = PartKey[ReturnFlow]("return_index", absent=_NO_CENTRE)
TERM = PartKey[Callable[[], int | None]]("term", absent="this centre has no other one beside it")
"""Returns the term in which this centre answers; None where it must be silent."""
COPIED_BUCKETS = PartKey[Mapping[str, Bucket]]("copied_buckets", absent="this gateway is no node")
"""Buckets of a node of which its centre keeps a copy, by name."""


class Origin(msgspec.Struct, frozen=True):
    """What the store of a gateway begins with."""

    existed: bool
    """The directory has had a log."""
    joined: membership.StoredLink | None = None
    """Of a node in a new store: its membership at the centre, whose copy of its registries it begins with."""

    def log_first(self, config: Config, engine: Engine, clock: Clock) -> int:
        """Return with which sequence the log begins if it is created now."""
        if self.existed:
            engine.inventory.expect(User.GATEWAY.account, streams.LOG)
        if self.joined is None and (self.existed or config.uplink.secret_file):
            # Created anew at a node that does not join, or whose directory was kept, nobody tells it where to begin.
            return streams.first_again(clock.now())
        return self.joined.log_first if self.joined else 1


async def find_origin(config: Config, clock: Clock) -> Origin:
    """Return what the store begins with; a node with a code and no log joins its centre first.

    Raises:
        PermissionDenied, Conflict, ConfigError: as `route.begin`.
    """
    existed = bool(membership.read_log_epoch(Path(config.directory)))
    joined = await route.begin(config, clock)
    return Origin(existed, None if existed else joined)


async def restore_store(
    core: Core, origin: Origin, settle: Callable[[Config, Bucket], Awaitable[None]]
) -> dict[str, Bucket]:
    """Bring the registries of a new store to where they were at the centre; return the copied buckets of a node.

    Args:
        core: configuration and open stores.
        origin: what the store begins with.
        settle: creates the secrets of sharing, or takes those of the bucket.

    Raises:
        PermissionDenied: the centre does not admit this node.
        ConfigError: a secret cannot be read.
    """
    copied = {name: await core.bucket(name) for name in route.COPIED_BUCKETS} if core.config.role == "node" else {}
    if origin.joined:
        await route.restore(core.config, core.clock, origin.joined, copied)
    await settle(core.config, await core.bucket("sharing"))
    # Written last: a start that did not come so far begins anew.
    write_private(core.directory / membership.LOG_EPOCH_FILE, core.log.epoch)
    return copied


class Tier(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the tier of a gateway has before its other parts."""

    members: Members | None = None
    """Of a centre."""
    connection: CentreConnection | None = None
    """Of a node: its connection to the centre."""
    copied: Mapping[str, Bucket]
    """Of a node: the buckets of which its centre keeps a copy."""

    def clock_offset_s(self) -> float | None:
        """Return by how much the centre's clock is ahead of ours; None: unknown."""
        return self.connection.clock_offset_s() if self.connection else None

    def parts(self, returns: ReturnFlow | None) -> dict[PartKey[Any], Any]:
        """Return the parts for the features of the tier; `returns`: of a centre."""
        if self.members is not None:
            return {MEMBERSHIP: self.members, RETURN_INDEX: returns}
        return {CONNECTION: self.connection, COPIED_BUCKETS: self.copied}


async def open_tier(core: Core, trail: Trail, divisions: Divisions, copied: Mapping[str, Bucket]) -> Tier:
    """Load the members of a centre, or build the connection of a node, which is not open yet."""
    if core.config.role == "node":
        return Tier(connection=CentreConnection(core.clock), copied=copied)
    site = Site(core.config, core.clock, core.engine)
    return Tier(members=await open_members(site, await core.bucket("nodes"), trail, divisions), copied=copied)
