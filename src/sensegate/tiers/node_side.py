"""A node's side of its centre: connects, forwards, reports, and applies the centre's decisions, until cancelled.

`route.CentreRoute` ─▶ connect ─▶ which centre is active ─▶ Uplink, Reporter, ConfigReceiver, DeviceMover
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from sensegate.bus.connect import BusClient
from sensegate.bus.contract import Log
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import (
    CancellableTaskGroup,
    Conflict,
    Overloaded,
    PermissionDenied,
    SensegateError,
    Unavailable,
    Untrusted,
)
from sensegate.model import SheddingRule
from sensegate.tiers.centre_connection import CentreConnection
from sensegate.tiers.config_distribution import ConfigReceiver
from sensegate.tiers.device_moves import DeviceMover
from sensegate.tiers.exchange import Exchange
from sensegate.tiers.link import CentreLink
from sensegate.tiers.report import Reporter
from sensegate.tiers.route import (
    JOIN_RETRY_S,
    CentreRoute,
    connect_to_centre,
    join,
    present_route,
    route_of_turn,
)
from sensegate.tiers.uplink import Uplink
from sensegate.tiers.writers import Claimant
from sensegate.web.parts import PartKey

POLL_S = 1.0
"""Interval in which a node looks for its link, which the command line may have stored."""
LEASE_POLL_S = 0.5
"""Pause before the active centre is asked again; it may delay its answer until there is news."""
REFUSED_S = 5.0

_log = structlog.get_logger("tiers")


class ActiveCentreChoice(Protocol):
    """The choice of one of two centres; `failover.centre_choice` implements it."""

    @property
    def term(self) -> int:
        """The highest term that this node has met."""
        ...

    def is_granted(self, url: str) -> bool:
        """Return whether this node grants a centre its term at present."""
        ...

    async def is_active(self, link: CentreLink, url: str, *, generation: int, wait: bool = False) -> bool:
        """Return whether a centre is active; `wait`: it may delay its answer until there is news."""
        ...


CHOICE = PartKey[ActiveCentreChoice]("centre_choice", absent="this gateway is not a node and has no centre")


class NodeParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Finished parts of a node's side of its centre."""

    config: Config
    clock: Clock
    log: Log
    connection: CentreConnection
    choice: ActiveCentreChoice
    claimant: Claimant
    """Claims the lanes for this process."""
    reporter: Reporter
    config_receiver: ConfigReceiver
    """Applies the configuration that the centre distributes."""
    mover: DeviceMover
    """Runs the centre's orders to move devices."""
    shed: Callable[[], Sequence[SheddingRule]]
    """Returns the selections of readings that mode orders withhold from the centre."""
    beside: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> another task that runs while connected."""


class NodeSide:
    """Connects to the centre and works there, until cancelled."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._config = parts.config
        self._clock = parts.clock
        self._connection = parts.connection
        self._refusals = 0
        self._turns = 0
        """Number of changes to another centre."""

    def state_text(self) -> str:
        """Return the state of the connection as text."""
        connection = self._connection
        if connection.problem:
            return connection.problem
        if problems := connection.problems():
            return "; ".join(problems)
        if connection.is_forwarding:
            return "centre connected"
        return "centre not reached; working alone" if self._route() else "no centre; working alone"

    def warnings(self) -> list[str]:
        """Return why readings do not go up, one sentence each."""
        connection = self._connection
        return [*(connection.silence() if self._route() else ()), *connection.problems()]

    def _route(self) -> CentreRoute | None:
        return present_route(self._config)

    async def run(self) -> None:
        """Connect to the centre and work until the connection is lost for good."""
        route = self._present_route(await self._await_route())
        connection = await self._connect(route)
        if connection is None:
            return
        choice = self._parts.choice
        link = CentreLink(connection, slot=route.slot, member=route.member, term=lambda: choice.term)
        try:
            if not await self._greet(link):
                return
            if self._config.uplink.other_centres and not await self._is_active(link, route):
                if not choice.is_granted(route.url):
                    self._turns += 1
                return
            self._refusals = 0
            self._connection.opened(link, route.generation)
            await self._work(link, route)
        finally:
            self._connection.closed()
            await connection.close()

    async def _greet(self, link: CentreLink) -> bool:
        """Greet the centre; return False where it accepts nothing from this node. Raises `Unavailable`."""
        try:
            writer = self._parts.claimant.writer
            welcome = await link.hello(writer=writer.id, writer_epoch=writer.epoch)
        except PermissionDenied as why:
            self._connection.problem = f"the centre refuses this node; working alone: {why}"
            _log.error("node refused by the centre; working alone", reason=str(why))
            await self._clock.sleep(REFUSED_S)
            return False
        except (Unavailable, Overloaded) as why:
            self._turns += 1
            raise Unavailable(f"the centre does not answer the greeting: {why}") from why
        if welcome.active or self._config.uplink.other_centres:
            return True
        self._connection.problem = "the centre is not active; working alone"
        await self._clock.sleep(POLL_S)
        return False

    async def _await_route(self) -> CentreRoute:
        """Wait for a route to the centre: this node may be joined by the command line, or by a code in a file."""
        while (route := self._route()) is None:
            if self._config.uplink.join_code_file and self._config.uplink.centre_url:
                await self._try_to_join()
            await self._clock.sleep(POLL_S)
        return route

    async def _connect(self, route: CentreRoute) -> BusClient | None:
        """Connect to a centre; return None where it refuses this node.

        Raises `Unavailable`; the other centre is tried next.
        """
        others = self._config.uplink.other_centres
        try:
            return await connect_to_centre(route, 2.0 if others else 10.0)
        except Untrusted as why:
            self._turns += 1
            self._connection.problem = f"centre not reached; working alone: {why}"
            await self._clock.sleep(POLL_S)
            raise
        except Unavailable:
            self._turns += 1
            raise
        except PermissionDenied:
            self._turns += 1
            if not others:
                await self._await_admission(route)
            return None

    async def _work(self, link: CentreLink, route: CentreRoute) -> None:
        """Forward, report, and apply decisions, until the connection is lost or this centre is no longer active."""
        parts = self._parts
        await link.answer_probes(parts.claimant.token)
        uplink = Uplink(
            parts.log,
            Exchange(link, parts.claimant, parts.log, self._clock),
            self._config.uplink,
            self._clock,
            node=self._config.member_id,
            shed=parts.shed,
            lag=self._connection.lag,
        )
        self._connection.forwards_by(uplink)
        async with CancellableTaskGroup() as group:
            group.create_task(uplink.run(), name="uplink lanes")
            group.create_task(parts.reporter.run(), name="uplink report")
            group.create_task(_until(link.connection.credentials_refused), name="uplink end")
            group.create_task(self._apply_decisions(), name="uplink decisions")
            if self._config.uplink.other_centres:
                group.create_task(self._watch_active(link, route), name="uplink lease")
            for name, work in parts.beside.items():
                group.create_task(self._run_beside(name, work), name=f"uplink {name}")

    # ── which centre ────────────────────────────────────────────────────────────────────────────────

    def _present_route(self, route: CentreRoute) -> CentreRoute:
        """Return the route to the centre whose turn it is: the first, then the others in order, round robin."""
        return route_of_turn(route, self._config.uplink, self._turns)

    async def _is_active(self, link: CentreLink, route: CentreRoute, *, wait: bool = False) -> bool:
        active = await self._parts.choice.is_active(link, route.url, generation=route.generation, wait=wait)
        if not active:
            self._connection.problem = "no centre is active; working alone"
        return active

    async def _watch_active(self, link: CentreLink, route: CentreRoute) -> None:
        """Watch that the centre stays active. Raises `Unavailable` when it does not."""
        while await self._is_active(link, route, wait=True):
            await self._clock.sleep(LEASE_POLL_S)
        self._turns += 1
        raise Unavailable("the centre is no longer active")

    async def _run_beside(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task beside the lanes and restart it; its errors do not end the connection."""
        while True:
            try:
                await work()
            except (SensegateError, ValueError, RecursionError) as why:  # the last two come from decoders
                _log.info("component restarted", component=name, reason=str(why))
            await self._clock.sleep(REFUSED_S)

    async def _apply_decisions(self) -> None:
        """Apply the configuration and orders of the centre whenever its answers to our reports announce any."""
        while True:
            reply = await self._parts.reporter.next_reply()
            try:
                if reply.base:
                    await self._parts.config_receiver.apply(reply.base)
                if reply.orders:
                    await self._parts.mover.run_orders()
            except (SensegateError, ValueError, RecursionError) as why:  # the last two come from decoders
                _log.warning("decisions of the centre not applied; asked for again", reason=str(why))

    async def _await_admission(self, route: CentreRoute) -> None:
        """Wait before a refused connection is tried again: for a new link, or for some time."""
        self._connection.problem = (
            "the centre refuses this node: it was expelled or replaced, or its release is too old; ask the centre"
        )
        _log.error("node refused by the centre; working alone", url=route.url)
        # A centre that has just started refuses everybody until it can authenticate: at first it is tried again soon.
        self._refusals += 1
        left_s = min(REFUSED_S, POLL_S * 2.0 ** (self._refusals - 2))
        while left_s > 0:
            pause_s = min(left_s, POLL_S)
            await self._clock.sleep(pause_s)
            left_s -= pause_s
            other = self._route()
            if other is None or other.secret != route.secret:
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
    raise Unavailable("the centre refuses a reconnect of this node")
