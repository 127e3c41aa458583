"""A node's side of its centre: forwards, reports, asks, and takes what comes down, for as long as there is a way.

`way_up.CentreRoute` ─▶ connect ─▶ which centre is active ─▶ Uplink, Carried, Reporter, Taking, Taker, Mover
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import structlog

from sensegate.authority.heads import public_key
from sensegate.bus.connect import Link
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import (
    ConfigError,
    Conflict,
    NotFound,
    Overloaded,
    PermissionDenied,
    StoreFull,
    Unavailable,
    Untrusted,
)
from sensegate.failover import terms
from sensegate.failover.terms import LONG_POLL_S, CentreChoice, decode_state, encode
from sensegate.model import Shed
from sensegate.ports import Log
from sensegate.tiers import return_files
from sensegate.tiers.config_distribution import ConfigReceiver
from sensegate.tiers.device_moves import DeviceMover
from sensegate.tiers.link import CentreLink
from sensegate.tiers.liveness import Liveness, UplinkLag
from sensegate.tiers.report import NodeReport, Reporter
from sensegate.tiers.return_receiver import ReturnReceiver
from sensegate.tiers.route import (
    JOIN_RETRY_S,
    PING_S,
    CentreRoute,
    connect_to_centre,
    join,
    present_route,
    route_of_turn,
)
from sensegate.tiers.uplink import Uplink
from sensegate.tiers.uplink_accounting import UplinkAccounting
from sensegate.tiers.writers import Claimant, WriterStateFile

LOOK_S = 1.0
"""A node that was joined from beside finds its way to the centre so soon."""
STILL_S = 0.5
"""An active centre is asked again so soon after its answer, which it may keep until there is something new."""
REFUSED_S = 5.0
CENTRE = "centre"
"""Name of the other tier in `Liveness`."""

_log = structlog.get_logger("above")


class Above:
    """A node's way up: forwards, reports and asks for as long as it has one."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        node_log: Log,
        report: Callable[[], Awaitable[NodeReport]],
        shed: Callable[[], Sequence[Shed]] = tuple,
        *,
        began: int = -1,
    ) -> None:
        """`report` says how the node is, `shed` what a mode order keeps here; `began` as of `Claimant`."""
        self.config = config
        self.clock = clock
        self.log = node_log
        self._report = report
        self._shed = shed
        self.claimant = Claimant(WriterStateFile(Path(config.directory)), node_log, began=began)
        self._link: CentreLink | None = None
        self.up: Uplink | None = None
        self.why = ""
        """Why there is no connection, beside that the centre is not reached."""
        self.reporter = Reporter(self._told, self.ask, clock)
        self.liveness = Liveness(clock)
        """When the centre was last heard."""
        self.lag = UplinkLag(node_log, clock, log_end=began)
        self.extras: dict[str, Callable[[], Awaitable[None]]] = {}
        """Name -> what else runs while connected."""
        self._generation = 0
        self.taker = ReturnReceiver(config.division, node_log, clock, config.store)
        self.extras["return"] = partial(self.taker.run, self.ask)
        self._refusals = 0
        self._turns = 0
        self._choice = CentreChoice(config.uplink.lease_s, terms.read(Path(config.directory)), name=config.member_id)
        self.taking: ConfigReceiver | None = None
        """Takes what the centre hands down."""
        self.mover: DeviceMover | None = None
        """Does what the centre orders of moves of devices."""

    @property
    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs until cancelled."""
        carried = UplinkAccounting(
            self.config.member_id, self.log, self.totals, self.clock, ttl_h=self.config.store.readings_ttl_h
        )
        lag = partial(self.lag.run, lambda: self.up is not None and self.up.connected)
        return {"uplink": self.run, "carried": carried.run, "uplink lag": lag}

    def totals(self) -> dict[str, int]:
        """Return what both lanes have brought up."""
        return self.up.totals if self.up else {}

    @property
    def clock_offset_s(self) -> float | None:
        """How far the centre's clock is from ours; None: not known."""
        return self.up.clock_offset_s if self.up else None

    async def ask(self, question: str, payload: bytes = b"") -> bytes:
        """Return the centre's answer; while this node is over its quota, wait.

        Raises `Unavailable`, `PermissionDenied`.
        """
        if self._link is None:
            raise Unavailable("not connected to the centre")
        answer = await self._link.ask_with_retries(question, payload, clock=self.clock)
        self.liveness.note(CENTRE)
        return answer

    # ── what comes back ─────────────────────────────────────────────────────────────────────────────

    async def export(self, _division: str, _life: str, _after: int) -> tuple[bytes, str]:
        """Refuse: a node gives nothing back."""
        raise NotFound("only a centre gives back; ask there")

    async def place(self) -> str:
        """Return how far this node has come in what its centre gives back."""
        found = await self.taker.position()
        return f"{found.log_epoch}:{found.position}"

    async def take(self, file: bytes) -> tuple[int, str]:
        """Take a signed file of the centre; return (rows, place). Raises `ConfigError`, `Conflict`, `Unavailable`."""
        if not self.config.returns.key_file:
            remedy = "name the centre's statements.pub there"
            raise ConfigError("no key is believed", key="returns.key_file", remedy=remedy)
        key = await asyncio.to_thread(public_key, Path(self.config.returns.key_file))
        held = await asyncio.to_thread(return_files.read_file, file, key)
        rows = 0
        for part in held.parts:
            rows += await self.taker.take(part, by_file=True)
        return rows, await self.place()

    async def _told(self) -> NodeReport:
        return msgspec.structs.replace(await self._report(), generation=self._generation)

    @property
    def problems(self) -> list[str]:
        """What keeps readings from going up although the centre is reached, a sentence each."""
        return self.up.problems if self.up else []

    def warnings(self) -> list[str]:
        """Return what keeps readings from going up, a sentence each."""
        silent = []
        if self.liveness.is_silent(CENTRE) and self._way() is not None:
            seconds = self.liveness.silence_s(CENTRE)
            cause = f": {self.why}" if self.why else ""
            silent.append(f"uplink: the centre has not answered for {seconds:.0f} s, readings wait here{cause}")
        return [*silent, *self.problems]

    def uplink(self) -> Uplink:
        """Return the uplink. Raises `Conflict` where there is none yet."""
        if self.up is None or self._link is None:
            raise Conflict("this node is not connected to its centre; try again when it is")
        return self.up

    def said(self) -> str:
        """Return how the way up is, for people."""
        if self.why:
            return self.why
        if self.problems:
            return "; ".join(self.problems)
        if self.up and self.up.connected and not self.liveness.is_silent(CENTRE):
            return "centre connected"
        return "centre not reached; going on alone" if self._way() else "no centre; going on alone"

    def _way(self) -> CentreRoute | None:
        return present_route(self.config)

    async def run(self) -> None:
        """Connect to the centre and work until the connection is lost for good."""
        way = self._turn(await self._found())
        nc = await self._connect(way)
        if nc is None:
            return
        link = CentreLink(nc, slot=way.slot, member=way.member, term=lambda: self._choice.term.number)
        try:
            if not await self._greet(link):
                return
            if self.config.uplink.other_centres and not await self._is_active(link, way):
                if not self._choice.is_granting(way.url, self.clock.monotonic()):
                    self._turns += 1
                return
            self.why, self._refusals = "", 0
            self._link, self._generation = link, way.generation
            await self._work(link, way)
        finally:
            self._link = None
            if self.up:
                self.up.disconnected()
            await nc.close()

    async def _greet(self, link: CentreLink) -> bool:
        """Agree with the centre on a form; return False where it takes nothing of this node. Raises `Unavailable`."""
        try:
            writer = self.claimant.writer
            welcome = await link.hello(writer=writer.id, writer_epoch=writer.epoch)
        except PermissionDenied as why:
            self.why = f"the centre refuses this node; going on alone: {why}"
            _log.error("the centre refuses this node; it goes on alone", reason=str(why))
            await self.clock.sleep(REFUSED_S)
            return False
        except (Unavailable, Overloaded) as why:
            self._turns += 1
            raise Unavailable(f"the centre takes no greeting now: {why}") from why
        if welcome.active or self.config.uplink.other_centres:
            return True
        self.why = "the centre is not active; going on alone"
        await self.clock.sleep(LOOK_S)
        return False

    async def _found(self) -> CentreRoute:
        """Return the way once there is one: this node may be joined from beside, or by a code that comes later."""
        while (way := self._way()) is None:
            if self.config.uplink.join_code_file and self.config.uplink.centre_url:
                await self._try_to_join()
            await self.clock.sleep(LOOK_S)
        return way

    async def _connect(self, way: CentreRoute) -> Link | None:
        """Return the connection, None where this centre does not let us in.

        Raises `Unavailable`; next time the other.
        """
        others = self.config.uplink.other_centres
        try:
            return await connect_to_centre(way, 2.0 if others else 10.0)
        except Untrusted as why:
            self._turns += 1
            self.why = f"centre not reached; going on alone: {why}"
            await self.clock.sleep(LOOK_S)
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
        await link.answer_probes(self.claimant.token)
        self.up = Uplink(
            self.log,
            link,
            self.claimant,
            self.config.uplink,
            self.clock,
            node=self.config.member_id,
            shed=self._shed,
            partition=self.config.ingest.partition,
            lag=self.lag,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.up.run(), name="uplink lanes")
            group.create_task(self.reporter.run(), name="uplink report")
            group.create_task(_until(link.connection.refused), name="uplink end")
            group.create_task(self._take(), name="uplink base data")
            if self.config.uplink.other_centres:
                group.create_task(self._still(link, way), name="uplink lease")
            for name, extra in self.extras.items():
                group.create_task(self._again(name, extra), name=f"uplink {name}")

    # ── which centre ────────────────────────────────────────────────────────────────────────────────

    def _turn(self, way: CentreRoute) -> CentreRoute:
        """Return the way to the centre whose turn it is: the first, then the others in order, and again."""
        return route_of_turn(way, self.config.uplink, self._turns)

    async def _is_active(self, link: CentreLink, way: CentreRoute, *, wait: bool = False) -> bool:
        """Return whether a centre is active, and of no lower term than we have met; grant it to be where it may.

        `long_poll`: it may answer a moment later, when there is nothing new.
        """
        choice, grant, active = self._choice, 0, False
        try:
            for _ in range(3):  # how it is; that we grant it, or have on our disk what it said
                plea = choice.lease_request(way.url, grant=grant, wait=wait and not active, generation=way.generation)
                before = choice.term
                within_s = PING_S + LONG_POLL_S * plea.long_poll
                answer = await link.ask("lease", encode(plea), within_s)
                state, now_s, grant = decode_state(answer), self.clock.monotonic(), 0
                if active := choice.follows(state):
                    again = choice.note_active(way.url, state, now_s)
                elif again := choice.grant(way.url, state, now_s):
                    grant = state.proposed_term
                if choice.term != before:
                    await asyncio.to_thread(terms.write, Path(self.config.directory), choice.term)
                if not again:
                    break
        except (Unavailable, PermissionDenied, Overloaded, msgspec.DecodeError) as why:
            _log.info("a centre does not say whether it is active", url=way.url, why=str(why))
            active = False
        if not active:
            self.why = "no centre is active; going on alone"
        return active

    async def _still(self, link: CentreLink, way: CentreRoute) -> None:
        """See that the centre stays active. Raises `Unavailable` when it is not."""
        while await self._is_active(link, way, wait=True):
            await self.clock.sleep(STILL_S)
        self._turns += 1
        raise Unavailable("the centre is not active any more")

    async def _again(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the lanes; what it meets is no reason to take them down."""
        while True:
            try:
                await work()
            except (Unavailable, PermissionDenied) as why:
                _log.info("tried again", part=name, why=str(why))
            await self.clock.sleep(REFUSED_S)

    async def _take(self) -> None:
        """Take what the centre hands down, as its answers to our reports tell that there is something."""
        while self.taking:
            reply = await self.reporter.next_reply()
            try:
                if reply.base:
                    await self.taking.apply(reply.base)
                if reply.orders and self.mover:
                    await self.mover.run_orders()
            except (Unavailable, PermissionDenied, StoreFull, msgspec.DecodeError) as why:
                _log.warning("base data of the centre are asked for again", why=str(why))

    async def _turned_away(self, way: CentreRoute) -> None:
        """Wait until there may be another answer: a new way in, or some time."""
        self.why = "the centre refuses this node: expelled, replaced, or of too old a release; ask the centre"
        _log.error("the centre refuses this node; it goes on alone", url=way.url)
        # A centre that has just begun refuses all until it can tell who they are: it is asked again soon at first.
        self._refusals += 1
        left_s = min(REFUSED_S, LOOK_S * 2.0 ** (self._refusals - 2))
        while left_s > 0:
            pause_s = min(left_s, LOOK_S)
            await self.clock.sleep(pause_s)
            left_s -= pause_s
            other = self._way()
            if other is None or other.secret != way.secret:
                return

    async def _try_to_join(self) -> None:
        if not await asyncio.to_thread(Path(self.config.uplink.join_code_file).exists):
            return
        try:
            await join(self.config)
            self.why = ""
        except (Unavailable, PermissionDenied, Conflict, Overloaded) as why:
            self.why = f"not joined: {why}"
            _log.warning("not joined", why=str(why))
            await self.clock.sleep(JOIN_RETRY_S)


async def _until(refused: asyncio.Event) -> None:
    await refused.wait()
    raise Unavailable("the centre does not let this node in again")
