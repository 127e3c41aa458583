"""Construction of a gateway's tier, before its other parts: a node's origin and connection, a centre's members."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sensegate.authority.divisions import Divisions
from sensegate.authority.trail import Trail
from sensegate.bus import streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.files import write_private
from sensegate.bus.kv import KvBucket
from sensegate.bus.opening import Core
from sensegate.bus.restores import RestoreHistory
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.tiers import membership, restored_registries, route
from sensegate.tiers.admission import Site, open_members
from sensegate.tiers.centre_connection import CONNECTION, CentreConnection
from sensegate.tiers.members import Members
from sensegate.tiers.return_flow import ReturnFlow
from sensegate.web.parts import PartKey

_NO_CENTRE = "this gateway is not a centre"
MEMBERSHIP = PartKey[Members]("membership", absent=_NO_CENTRE)
RETURN_INDEX = PartKey[ReturnFlow]("return_index", absent=_NO_CENTRE)
TERM = PartKey[Callable[[], int | None]]("term", absent="this centre has no peer")
"""Returns the term in which this centre answers; None where it must be silent."""
COPIED_BUCKETS = PartKey[Mapping[str, KvBucket]]("copied_buckets", absent="this gateway is not a node")
"""Buckets of a node of which its centre keeps a copy, by name."""


RESTORES = PartKey[RestoreHistory]("restores", absent="this gateway is not a node")
"""Restores of backups that made this store."""


class Origin(msgspec.Struct, frozen=True):
    """Initial state of a gateway's store."""

    existed: bool
    """True if the directory has had a log."""
    joined: membership.StoredLink | None = None
    """Node with a new store: its link to the centre, from which it restores its registries."""

    def log_first(self, config: Config, engine: Engine, clock: Clock) -> int:
        """Return the first sequence of the log if it is created now."""
        if self.existed:
            engine.inventory.expect(User.GATEWAY.account, streams.LOG)
        if self.joined is None and (self.existed or config.uplink.secret_file):
            # A node that does not join, or whose directory was kept, gets no first sequence from its centre.
            return streams.first_unused_sequence(clock.now())
        return self.joined.log_first if self.joined else 1


async def find_origin(config: Config, clock: Clock) -> Origin:
    """Return the initial state of the store; a node with a join code and no log joins its centre first.

    Raises:
        PermissionDenied, Conflict, ConfigError: as `route.begin`.
    """
    existed = bool(membership.read_log_epoch(Path(config.directory)))
    joined = await route.begin(config, clock)
    return Origin(existed, None if existed else joined)


async def restore_store(
    core: Core, origin: Origin, settle: Callable[[Config, KvBucket], Awaitable[None]]
) -> RestoredRegistries:
    """Restore the registries of a new store from the centre, or merge those of a restored one with the centre's.

    Args:
        core: configuration and open stores.
        origin: initial state of the store.
        settle: creates the secrets of sharing, or reads those of the bucket.

    Raises:
        PermissionDenied: the centre refuses this node.
        ConfigError: a secret cannot be read.
    """
    copied = {name: await core.bucket(name) for name in route.COPIED_BUCKETS} if core.config.role == "node" else {}
    if origin.joined:
        await route.restore(core.config, core.clock, origin.joined, copied)
    restores = await restored_registries.settle(core.config, core.clock, copied, core.log.epoch)
    await settle(core.config, await core.bucket("sharing"))
    # Written last, so that an interrupted start is repeated.
    write_private(core.directory / membership.LOG_EPOCH_FILE, core.log.epoch)
    return RestoredRegistries(copied, restores)


class RestoredRegistries(msgspec.Struct, frozen=True, eq=False):
    """Registries of a node before anything is opened over them."""

    copied: Mapping[str, KvBucket]
    """Buckets of which its centre keeps a copy; empty at a centre."""
    restores: RestoreHistory
    """Restores of backups that made this store."""


class Tier(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Parts of a gateway's tier that exist before its other parts."""

    members: Members | None = None
    """Centre: its members."""
    connection: CentreConnection | None = None
    """Node: its connection to the centre."""
    restored: RestoredRegistries
    """Registries of a node, and how they came to be."""

    def clock_offset_s(self) -> float | None:
        """Return the offset of the centre's clock to ours; None: unknown."""
        return self.connection.clock_offset_s() if self.connection else None

    def parts(self, returns: ReturnFlow | None) -> dict[PartKey[Any], Any]:
        """Return the parts for the features of the tier; `returns`: of a centre."""
        if self.members is not None:
            return {MEMBERSHIP: self.members, RETURN_INDEX: returns}
        restored = self.restored
        return {CONNECTION: self.connection, COPIED_BUCKETS: restored.copied, RESTORES: restored.restores}


async def open_tier(core: Core, trail: Trail, divisions: Divisions, restored: RestoredRegistries) -> Tier:
    """Load the members of a centre, or build the connection of a node, which is not open yet."""
    if core.config.role == "node":
        connection = CentreConnection(core.log, core.clock, log_end=core.log.end_at_open)
        return Tier(connection=connection, restored=restored)
    site = Site(core.config, core.clock, core.engine)
    return Tier(members=await open_members(site, await core.bucket("nodes"), trail, divisions), restored=restored)
