"""Build what the tier of a gateway needs before its other parts: a node's origin and connection, a centre's members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

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
from sensegate.tiers import membership, route
from sensegate.tiers.admission import Site, open_members
from sensegate.tiers.members import Members
from sensegate.tiers.return_flow import Returns
from sensegate.web.deps import Part

_NO_CENTRE = "this gateway is no centre"
MEMBERSHIP = Part[Members]("membership", absent=_NO_CENTRE)
RETURN_INDEX = Part[Returns]("return_index", absent=_NO_CENTRE)
TERM = Part[Callable[[], int | None]]("term", absent="this centre has no other one beside it")
"""Returns the term in which this centre answers; None where it must be silent."""
COPIED_BUCKETS = Part[Mapping[str, Bucket]]("copied_buckets", absent="this gateway is no node")
"""Buckets of a node of which its centre keeps a copy, by name."""


class Origin(msgspec.Struct, frozen=True):
    """What the store of a gateway begins with."""

    existed: bool
    """The directory has had a log."""
    joined: membership.Kept | None = None
    """Of a node in a new store: its membership at the centre, whose copy of its registries it begins with."""

    def log_first(self, config: Config, engine: Engine, clock: Clock) -> int:
        """Return with which sequence the log begins if it is created now."""
        if self.existed:
            engine.inventory.expect(User.GATEWAY.account, streams.LOG)
        if self.joined is None and (self.existed or config.uplink.secret_file):
            # Created anew at a node that does not join, or whose directory was kept, nobody tells it where to begin.
            return streams.first_again(clock.now())
        return self.joined.first if self.joined else 1


async def find_origin(config: Config, clock: Clock) -> Origin:
    """Return what the store begins with; a node with a code and no log joins its centre first.

    Raises:
        PermissionDenied, Conflict, ConfigError: as `route.begin`.
    """
    existed = bool(membership.life(Path(config.directory)))
    joined = await route.begin(config, clock)
    return Origin(existed, None if existed else joined)


async def open_copied(core: Core, origin: Origin) -> dict[str, Bucket]:
    """Open the buckets of a node of which the centre keeps a copy; a new store is filled with that copy.

    Raises:
        PermissionDenied: the centre does not admit this node.
    """
    if core.config.role != "node":
        return {}
    copied = {name: await core.bucket(name) for name in route.COPIED}
    if origin.joined:
        await route.restore(core.config, core.clock, origin.joined, copied)
    return copied


def settle_origin(core: Core) -> None:
    """Note the epoch of the log: the registries are whole, so the next start goes on with this store."""
    write_private(core.directory / membership.LIFE, core.log.epoch)


async def open_membership(core: Core, trail: Trail, divisions: Divisions) -> Members | None:
    """Load the members of a centre; None at a node."""
    if core.config.role != "centre":
        return None
    return await open_members(
        Site(core.config, core.clock, core.engine), await core.bucket("nodes"), trail, divisions
    )
