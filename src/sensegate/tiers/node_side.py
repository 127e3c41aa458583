"""A node's side of its centre: connects, forwards, reports, and takes what comes down, until cancelled.

`route.CentreRoute` ─▶ connect ─▶ which centre is active ─▶ Uplink, Reporter, ConfigReceiver, DeviceMover
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from sensegate.bus.connect import Link
from sensegate.clock import Clock
from sensegate.config import Config, read_secret
from sensegate.errors import Conflict, Overloaded, PermissionDenied, StoreFull, Unavailable, Untrusted
from sensegate.model import Shed
from sensegate.ports import Log, PartKey
from sensegate.tiers import membership
from sensegate.tiers.centre_connection import CentreConnection
from sensegate.tiers.config_distribution import ConfigReceiver
from sensegate.tiers.device_moves import DeviceMover
from sensegate.tiers.link import CentreLink
from sensegate.tiers.report import Reporter
from sensegate.tiers.route import (
    JOIN_RETRY_S,
    CentreRoute,
    connect_to_centre,
    join,
    joined_route,
    route_of_turn,
    tls_context,
)
from sensegate.tiers.uplink import Uplink
from sensegate.tiers.writers import Claimant

LOOK_S = 1.0
"""A node that was joined by the command line finds its centre so soon."""
STILL_S = 0.5
"""An active centre is asked again so soon after its answer, which it may keep until there is something new."""
REFUSED_S = 5.0

_log = structlog.get_logger("uplink")


class CentreChoice(Protocol):
    """Which of two centres this node follows; `failover.centre_choice` implements it."""

    @property
    def term(self) -> int:
        """The highest term that this node has met."""
        ...

    def is_granted(self, url: str) -> bool:
        """Return whether this node grants a centre its term at the moment."""
        ...

    async def is_active(self, link: CentreLink, url: str, *, generation: int, wait: bool = False) -> bool:
        """Return whether a centre is active; `wait`: it may answer when there is something new."""
        ...


CHOICE = PartKey[CentreChoice]("centre_choice", absent="this gateway is no node: it has no centre")


class NodeParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Finished parts of a node's side of its centre."""

    config: Config
    clock: Clock
    log: Log
    connection: CentreConnection
    choice: CentreChoice
    claimant: Claimant
    """Claims the lanes for this process."""
    reporter: Reporter
    taking: ConfigReceiver
    """Takes what the centre hands down."""
    mover: DeviceMover
    """Does what the centre orders of moves of devices."""
    shed: Callable[[], Sequence[Shed]]
    """Returns the readings that a mode order withholds from the centre."""
    beside: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> what else runs while connected."""


class NodeSide:
    """Connects to the centre and works there, until cancelled."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._config = parts.config
        self._clock = parts.clock
        self._connection = parts.connection
        self._refusals = 0
        self._turns = 0
        """How often another of several centres was tried."""

    def state_text(self) -> str:
        """Return the state of the connection, for people."""
        connection = self._connection
        if connection.problem:
            return connection.problem
        if problems := connection.problems():
            return "; ".join(problems)
        if connection.is_forwarding:
            return "centre connected"
        return "centre not reached; going on alone" if self._way() else "no centre; going on alone"

    def _way(self) -> CentreRoute | None:
        uplink = self._config.uplink
        if uplink.secret_file:
            member = self._config.member_id
            return (
                CentreRoute(member, member, uplink.url, read_secret(uplink.secret_file), tls_context(uplink))
                if uplink.url
                else None
            )
        found = membership.read_link(Path(self._config.directory))
        if found is None:
            return None
        return joined_route(found, uplink)

    async def run(self) -> None:
        """Connect to the centre and work until the connection is lost for good."""
        way = self._turn(await self._await_way())
        nc = await self._connect(way)
        if nc is None:
            return
        choice = self._parts.choice
        link = CentreLink(nc, slot=way.slot, member=way.member, term=lambda: choice.term)
        try:
            if not await self._greet(link):
                return
            if self._config.uplink.other_centres and not await self._is_active(link, way):
                if not choice.is_granted(way.url):
                    self._turns += 1
                return
            self._refusals = 0
            self._connection.opened(link, way.generation)
            await self._work(link, way)
        finally:
            self._connection.closed()
            await nc.close()

    async def _greet(self, link: CentreLink) -> bool:
        """Agree with the centre on a form; return False where it takes nothing of this node. Raises `Unavailable`."""
        try:
            writer = self._parts.claimant.writer
            welcome = await link.hello(writer=writer.id, writer_epoch=writer.epoch)
        except PermissionDenied as why:
            self._connection.problem = f"the centre refuses this node; going on alone: {why}"
            _log.error("the centre refuses this node; it goes on alone", reason=str(why))
            await self._clock.sleep(REFUSED_S)
            return False
        except (Unavailable, Overloaded) as why:
            self._turns += 1
            raise Unavailable(f"the centre takes no greeting now: {why}") from why
        if welcome.active or self._config.uplink.other_centres:
            return True
        self._connection.problem = "the centre is not active; going on alone"
        await self._clock.sleep(LOOK_S)
        return False

    async def _await_way(self) -> CentreRoute:
        """Return the way to the centre once there is one: this node may be joined by the command line, or by a code."""
        while (way := self._way()) is None:
            if self._config.uplink.join_code_file and self._config.uplink.centre_url:
                await self._try_to_join()
            await self._clock.sleep(LOOK_S)
        return way

    async def _connect(self, way: CentreRoute) -> Link | None:
        """Return the connection, None where this centre does not let us in.

        Raises `Unavailable`; next time the other.
        """
        others = self._config.uplink.other_centres
        try:
            return await connect_to_centre(way, 2.0 if others else 10.0)
        except Untrusted as why:
            self._turns += 1
            self._connection.problem = f"centre not reached; going on alone: {why}"
            await self._clock.sleep(LOOK_S)
            raise
        except Unavailable:
            self._turns += 1
            raise
        except PermissionDenied:
            self._turns += 1
            if not others:
                await self._turned_away(way)
            return None

    async def _work(self, link: CentreLink, way: CentreRoute) -> None:
        """Forward, report, and take what comes down, until the connection is lost or this centre is active no more."""
        parts = self._parts
        await link.answer_probes(parts.claimant.token)
        uplink = Uplink(
            parts.log,
            link,
            parts.claimant,
            self._config.uplink,
            self._clock,
            node=self._config.member_id,
            shed=parts.shed,
            partition=self._config.ingest.partition,
        )
        self._connection.forwards_by(uplink)
        async with asyncio.TaskGroup() as group:
            group.create_task(uplink.run(), name="uplink lanes")
            group.create_task(parts.reporter.run(), name="uplink report")
            group.create_task(_until(link.connection.refused), name="uplink end")
            group.create_task(self._take(), name="uplink base data")
            if self._config.uplink.other_centres:
                group.create_task(self._still(link, way), name="uplink lease")
            for name, work in parts.beside.items():
                group.create_task(self._run_beside(name, work), name=f"uplink {name}")

    # ── which centre ────────────────────────────────────────────────────────────────────────────────

    def _turn(self, way: CentreRoute) -> CentreRoute:
        """Return the way to the centre whose turn it is: the first, then the others in order, and again."""
        return route_of_turn(way, self._config.uplink, self._turns)

    async def _is_active(self, link: CentreLink, way: CentreRoute, *, wait: bool = False) -> bool:
        active = await self._parts.choice.is_active(link, way.url, generation=way.generation, wait=wait)
        if not active:
            self._connection.problem = "no centre is active; going on alone"
        return active

    async def _still(self, link: CentreLink, way: CentreRoute) -> None:
        """Watch that the centre stays active. Raises `Unavailable` when it does not."""
        while await self._is_active(link, way, wait=True):
            await self._clock.sleep(STILL_S)
        self._turns += 1
        raise Unavailable("the centre is no longer active")

    async def _run_beside(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task beside the lanes and restart it; its errors do not end the connection."""
        while True:
            try:
                await work()
            except (Unavailable, PermissionDenied) as why:
                _log.info("component restarted", component=name, reason=str(why))
            await self._clock.sleep(REFUSED_S)

    async def _take(self) -> None:
        """Take what the centre hands down, as its answers to our reports tell that there is something."""
        while True:
            reply = await self._parts.reporter.next_reply()
            try:
                if reply.base:
                    await self._parts.taking.apply(reply.base)
                if reply.orders:
                    await self._parts.mover.run_orders()
            except (Unavailable, PermissionDenied, StoreFull, msgspec.DecodeError) as why:
                _log.warning("decisions of the centre not applied; asked for again", reason=str(why))

    async def _turned_away(self, way: CentreRoute) -> None:
        """Wait until there may be another answer: a new way in, or some time."""
        self._connection.problem = (
            "the centre refuses this node: expelled, replaced, or of too old a release; ask the centre"
        )
        _log.error("the centre refuses this node; it goes on alone", url=way.url)
        # A centre that has just begun refuses all until it can tell who they are: it is asked again soon at first.
        self._refusals += 1
        left_s = min(REFUSED_S, LOOK_S * 2.0 ** (self._refusals - 2))
        while left_s > 0:
            pause_s = min(left_s, LOOK_S)
            await self._clock.sleep(pause_s)
            left_s -= pause_s
            other = self._way()
            if other is None or other.secret != way.secret:
                return

    async def _try_to_join(self) -> None:
        if not await asyncio.to_thread(Path(self._config.uplink.join_code_file).exists):
            return
        try:
            await join(self._config)
            self._connection.problem = ""
        except (Unavailable, PermissionDenied, Conflict, Overloaded) as why:
            self._connection.problem = f"not joined: {why}"
            _log.warning("not joined", reason=str(why))
            await self._clock.sleep(JOIN_RETRY_S)


async def _until(refused: asyncio.Event) -> None:
    await refused.wait()
    raise Unavailable("the centre does not let this node in again")
