"""The third page of the wiring: a node and its centre.

Above (a node):   join ─▶ link.json ─▶ connect ─▶ Uplink, Carried, Reporter
Below (a centre): Members ─▶ guests of the callout; Links, Reports ◀─ questions of the nodes
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import structlog
from nats.aio.client import Client

from sensegate import __version__, shares
from sensegate.authority import terms
from sensegate.authority.callout import Callout, Guest
from sensegate.authority.devices import Devices, Stored, decode_stored
from sensegate.authority.divisions import Divisions
from sensegate.authority.handed import Offers, Taking, table_digests, tables_note
from sensegate.authority.heads import key_in, public_key
from sensegate.authority.jwt import Question, Rights
from sensegate.authority.members import Lane, Member, Members, State, Told, WayIn, version_note
from sensegate.authority.moves import Moves
from sensegate.authority.terms import Choice, Plea, Term, decode_state, encode
from sensegate.authority.trail import Trail
from sensegate.bus import ask, copies, trust
from sensegate.bus.connect import Link, connect
from sensegate.bus.engine import Engine, Role
from sensegate.bus.kv import Bucket
from sensegate.bus.ledger import FORWARDED, WITHHELD
from sensegate.bus.log import JetStreamLog
from sensegate.bus.server_conf import inbox_prefix, node_rights, node_user
from sensegate.clock import Clock
from sensegate.config import Config, UplinkConfig, secret
from sensegate.config_sites import CentreConfig
from sensegate.errors import ConfigError, Conflict, Lost, NotFound, Overloaded, Refused, Untrusted
from sensegate.model import Shed
from sensegate.moving import Mover
from sensegate.ports import Log
from sensegate.publish import gaps, membership, return_files
from sensegate.publish.carried import Carried
from sensegate.publish.gaps import Named
from sensegate.publish.links import Links, Node
from sensegate.publish.report import Report, Reporter, Reports, machine
from sensegate.publish.returned import Taker
from sensegate.publish.returns import Returns, Wanted
from sensegate.publish.uplink import Uplink
from sensegate.web.deps import NodeRow

PING_S = 2.0
"""A centre that does not answer for two of these is connected to anew: a cut that swallows packets is noticed soon."""
LOOK_S = 1.0
"""A node that was joined from beside finds its way to the centre so soon."""
REFUSED_S = 5.0
JOIN_AGAIN_S = 2.0
CLOSE_AGAIN_S = 0.5
"""What was being let in while the rights ended is closed then."""
TRIES = 3

COPIED = ("profile_contents", "profiles", "devices", "tokens", "feeds", "sharing", "tasks", "usage")
"""Buckets of a node of which the centre keeps a copy: what a node in a new store begins with.

In this order: no decision is copied before the content that it names.
"""

log = structlog.get_logger("tiers")


# ── a node ──────────────────────────────────────────────────────────────────────────────────────────────


async def begin(config: Config, clock: Clock) -> membership.Kept | None:
    """Return the way to the centre that this node has joined; with a code and no log yet it joins first.

    Where its log begins is told by the centre: a node that waits keeps its devices waiting, none of them loses a thing.

    Raises:
        Refused, Conflict, ConfigError: the code is not good.
    """
    directory, uplink = Path(config.directory), config.uplink
    found = membership.kept(directory)
    if found or config.role != "node" or not (uplink.join_code_file and uplink.centre_url):
        return found
    if membership.life(directory) or not Path(uplink.join_code_file).exists():  # noqa: ASYNC240 - nothing else runs yet
        return None
    while True:
        try:
            return await _join(config)
        except (Lost, Overloaded) as why:
            log.warning("the centre that this node is to join does not answer; tried again", why=str(why))
            await clock.sleep(JOIN_AGAIN_S)


async def _join(config: Config) -> membership.Kept:
    uplink = config.uplink
    code = membership.read_code(uplink.join_code_file)
    made = await membership.join(
        Path(config.directory), code, uplink.centre_url, division=config.division, link=uplink.url
    )
    membership.used_up(uplink.join_code_file)
    log.info("joined", centre=made.centre, generation=made.generation)
    return made


class Way(msgspec.Struct, frozen=True, eq=False):
    """How this node connects to its centre."""

    url: str
    secret: str
    tls: ssl.SSLContext | None
    generation: int = 0


async def _connected(division: str, way: Way, timeout_s: float = 10.0) -> Link:
    user = node_user(division)
    return await connect(
        way.url,
        user,
        way.secret,
        inbox_prefix=inbox_prefix(user),
        name=f"uplink {division} {__version__}",
        tls=way.tls,
        ping_s=PING_S,
        reconnect_timeout_s=PING_S,
        timeout_s=timeout_s,
    )


def _told_way(told: membership.Kept, uplink: UplinkConfig) -> Way:
    told = msgspec.structs.replace(told, url=uplink.url or told.url)
    if uplink.pin_sha256 or uplink.ca_file:
        # What the configuration says is newer than what was told at the join: the certificate may have been replaced.
        tls = _trusted(msgspec.structs.replace(uplink, url=told.url))
    else:
        tls = membership.trusted(told)
        if tls and uplink.cert_file:
            tls.load_cert_chain(uplink.cert_file, uplink.key_file or None)
    return Way(told.url, told.secret, tls, told.generation)


async def restore(config: Config, clock: Clock, told: membership.Kept, buckets: Mapping[str, Bucket]) -> None:
    """Fill the registries of a new store with what the centre has of this node, before anything is opened.

    Of two sites it asks one after the other: the one at which it joined may be away, or stand by.

    Raises:
        Refused: the centre does not let this node in.
    """
    others = config.uplink.others
    for turn in itertools.count():
        way = _turned(_told_way(told, config.uplink), others, turn)
        try:
            nc = await _connected(config.division, way)
            try:
                count = await copies.restore(buckets, partial(_asked, nc, config.division))
            finally:
                await nc.close()
        except (Lost, Refused) as why:
            if isinstance(why, Refused) and not others:
                raise
            log.warning("no centre gives this node's registries; tried again", url=way.url, why=str(why))
            await clock.sleep(JOIN_AGAIN_S)
        else:
            log.info("registries restored from the centre", rows=count)
            return


def _turned(way: Way, others: Sequence[CentreConfig], turns: int) -> Way:
    """Return the way to the centre whose turn it is: the first, then the others in order, and again."""
    number = turns % (1 + len(others))
    if number == 0:
        return way
    other = others[number - 1]
    tls = ssl.create_default_context(cafile=other.ca_file or None) if other.url.startswith("tls://") else None
    return msgspec.structs.replace(way, url=other.url, tls=tls)


async def _asked(nc: Client, division: str, what: str, payload: bytes) -> bytes:
    return await ask.ask(nc, division, what, payload)


class Above:
    """A node's way up: forwards, reports and asks for as long as it has one."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        node_log: Log,
        report: Callable[[], Awaitable[Report]],
        shed: Callable[[], Sequence[Shed]] = tuple,
    ) -> None:
        """`report` says how the node is, `shed` what a mode order keeps here."""
        self.config = config
        self.clock = clock
        self.log = node_log
        self._report = report
        self._shed = shed
        self._link: Client | None = None
        self.up: Uplink | None = None
        self.why = ""
        """Why there is no connection, beside that the centre is not reached."""
        self.reporter = Reporter(self._told, self.ask, clock)
        self.extras: dict[str, Callable[[], Awaitable[None]]] = {}
        """Name -> what else runs while connected."""
        self._generation = 0
        self.taker = Taker(config.division, node_log, clock, config.store)
        self.extras["return"] = partial(self.taker.run, self.ask)
        self._refusals = 0
        self._turns = 0
        self._term = terms.read(Path(config.directory)).number
        self._choice = Choice(config.uplink.lease_s)
        self.taking: Taking | None = None
        """Takes what the centre hands down."""
        self.mover: Mover | None = None
        """Does what the centre orders of moves of devices."""

    @property
    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs until cancelled."""
        carried = Carried(
            self.config.division, self.log, self.totals, self.clock, ttl_h=self.config.store.readings_ttl_h
        )
        return {"uplink": self.run, "carried": carried.run}

    def totals(self) -> dict[str, int]:
        """Return what both lanes have brought up."""
        return self.up.totals if self.up else {}

    async def ask(self, what: str, payload: bytes = b"") -> bytes:
        """Return the centre's answer. Raises `Lost`, `Refused`."""
        if self._link is None:
            raise Lost("not connected to the centre")
        return await ask.ask(self._link, self.config.division, what, payload)

    # ── what comes back ─────────────────────────────────────────────────────────────────────────────

    async def export(self, _division: str, _life: str, _after: int) -> tuple[bytes, str]:
        """Refuse: a node gives nothing back."""
        raise NotFound("only a centre gives back; ask there")

    async def place(self) -> str:
        """Return how far this node has come in what its centre gives back."""
        found = await self.taker.place()
        return f"{found.life}:{found.position}"

    async def take(self, file: bytes) -> tuple[int, str]:
        """Take a signed file of the centre; return (rows, place). Raises `ConfigError`, `Conflict`, `Lost`."""
        if not self.config.returns.key_file:
            remedy = "name the centre's receipts.pub there"
            raise ConfigError("no key is believed", key="returns.key_file", remedy=remedy)
        key = await asyncio.to_thread(public_key, Path(self.config.returns.key_file))
        held = await asyncio.to_thread(return_files.read, file, key)
        rows = 0
        for part in held.parts:
            rows += await self.taker.take(part, by_file=True)
        return rows, await self.place()

    async def _told(self) -> Report:
        return msgspec.structs.replace(await self._report(), generation=self._generation)

    def said(self) -> str:
        """Return how the way up is, for people."""
        if self.why:
            return self.why
        if self.up and self.up.connected:
            return "centre connected"
        return "centre not reached; going on alone" if self._way() else "no centre; going on alone"

    def _way(self) -> Way | None:
        uplink = self.config.uplink
        if uplink.secret_file:
            return Way(uplink.url, secret(uplink.secret_file), _trusted(uplink)) if uplink.url else None
        found = membership.kept(Path(self.config.directory))
        if found is None:
            return None
        return _told_way(found, uplink)

    async def run(self) -> None:
        """Connect to the centre and work until the connection is lost for good."""
        while (way := self._way()) is None:
            if self.config.uplink.join_code_file and self.config.uplink.centre_url:
                await self._try_to_join()
            await self.clock.sleep(LOOK_S)
        way = self._turn(way)
        try:
            nc = await _connected(self.config.division, way, 2.0 if self.config.uplink.others else 10.0)
        except Untrusted as why:
            self._turns += 1
            self.why = f"centre not reached; going on alone: {why}"
            await self.clock.sleep(LOOK_S)
            raise
        except Lost:
            self._turns += 1
            raise
        except Refused:
            self._turns += 1
            if not self.config.uplink.others:
                await self._turned_away(way)
            return
        if self.config.uplink.others and not await self._is_active(nc, way):
            if not self._choice.granted(way.url, self.clock.monotonic()):
                self._turns += 1
            await nc.close()
            return
        self.why, self._refusals = "", 0
        self._link, self._generation = nc, way.generation
        try:
            centre = JetStreamLog(nc, prefix=f"up.{self.config.division}.")
            self.up = Uplink(
                self.config.division,
                self.log,
                centre,
                self.config.uplink,
                self.clock,
                store=self.config.store,
                payload_bytes_max=centre.payload_bytes_max,
                shed=self._shed,
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(self.up.run(), name="uplink lanes")
                group.create_task(self.reporter.run(), name="uplink report")
                group.create_task(_until(nc.refused), name="uplink end")
                group.create_task(self._take(), name="uplink base data")
                if self.config.uplink.others:
                    group.create_task(self._still(nc, way), name="uplink lease")
                for name, extra in self.extras.items():
                    group.create_task(self._again(name, extra), name=f"uplink {name}")
        finally:
            self._link = None
            if self.up:
                self.up.connected = False
            await nc.close()

    # ── which centre ────────────────────────────────────────────────────────────────────────────────

    def _turn(self, way: Way) -> Way:
        """Return the way to the centre whose turn it is: the first, then the others in order, and again."""
        return _turned(way, self.config.uplink.others, self._turns)

    async def _is_active(self, nc: Client, way: Way) -> bool:
        """Return whether a centre is active, and of no lower term than we have met; grant it to be where it may."""
        directory, division = Path(self.config.directory), self.config.division
        try:
            grant = False
            for _ in range(2):  # how it is; and, where it wants to be active and may, that we grant it
                plea = Plea(self._term, grant=grant)
                state = decode_state(await ask.ask(nc, division, "lease", encode(plea), timeout_s=PING_S))
                now_s = self.clock.monotonic()
                if state.active and state.term >= self._term:
                    self._choice.met(now_s, alone=state.alone)
                    if state.term > self._term:
                        self._term = state.term
                        await asyncio.to_thread(terms.write, directory, Term(state.term))
                    return True
                if not (grant := self._choice.grants(way.url, state, now_s)):
                    break
        except (Lost, Refused, msgspec.DecodeError) as why:
            log.info("a centre does not say whether it is active", url=way.url, why=str(why))
        self.why = "no centre is active; going on alone"
        return False

    async def _still(self, nc: Client, way: Way) -> None:
        """See that the centre stays active. Raises `Lost` when it is not."""
        while await self._is_active(nc, way):
            await self.clock.sleep(PING_S)
        self._turns += 1
        raise Lost("the centre is not active any more")

    async def _again(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the lanes; what it meets is no reason to take them down."""
        while True:
            try:
                await work()
            except (Lost, Refused) as why:
                log.info("tried again", part=name, why=str(why))
            await self.clock.sleep(REFUSED_S)

    async def _take(self) -> None:
        """Take what the centre hands down, as its answers to our reports tell that there is something."""
        while self.taking:
            reply = await self.reporter.next()
            try:
                if reply.base:
                    await self.taking.take(reply.base)
                if reply.orders and self.mover:
                    await self.mover.work()
            except (Lost, Refused, msgspec.DecodeError) as why:
                log.warning("base data of the centre are asked for again", why=str(why))

    async def _turned_away(self, way: Way) -> None:
        """Wait until there may be another answer: a new way in, or some time."""
        self.why = "the centre refuses this node: expelled, replaced, or of too old a release; ask the centre"
        log.error("the centre refuses this node; it goes on alone", url=way.url)
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
            await _join(self.config)
            self.why = ""
        except (Lost, Refused, Conflict, Overloaded) as why:
            self.why = f"not joined: {why}"
            log.warning("not joined", why=str(why))
            await self.clock.sleep(JOIN_AGAIN_S)


async def _until(refused: asyncio.Event) -> None:
    await refused.wait()
    raise Lost("the centre does not let this node in again")


def _trusted(uplink: UplinkConfig) -> ssl.SSLContext | None:
    """Return what the centre's certificate is checked against; None for a link without TLS."""
    if not uplink.url.startswith("tls://"):
        if uplink.pin_sha256 or uplink.cert_file:
            raise ConfigError(f"'{uplink.url}' is no tls:// address", key="uplink.url", remedy="pins need TLS")
        return None
    return trust.context(
        "uplink",
        ca_file=uplink.ca_file,
        pins=uplink.pin_sha256,
        cert_file=uplink.cert_file,
        key_file=uplink.key_file,
    )


def report_of(now: int, counts: dict[str, int], devices: int, troubles: list[str]) -> Report:
    """Return what a node tells of itself."""
    load, cores, rss_mb = machine()
    return Report(
        __version__,
        now,
        load=round(load, 2),
        cores=cores,
        rss_mb=round(rss_mb, 1),
        devices=devices,
        counts=counts,
        tables=table_digests(),
        troubles=tuple(troubles),
    )


# ── a centre ────────────────────────────────────────────────────────────────────────────────────────────


class Below:
    """A centre's nodes: who they are, who is let in, what they say."""

    def __init__(self, config: Config, clock: Clock, engine: Engine, centre_log: JetStreamLog, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self._trail = trail
        self._log = centre_log
        self._configured = [node.division for node in config.nodes]
        self._close = asyncio.Event()
        self._closing: set[str] = set()
        self._generations: dict[str, int] = {}
        self.members: Members | None = None
        self.offers: Offers | None = None
        """What the nodes should have of the centre."""
        self.returns = Returns(centre_log, grade_max=config.returns.grade_max)
        self._tables = table_digests()
        self.answers: dict[str, ask.Answer] = {}
        """What is answered to the nodes; other parts add theirs."""
        self.reports = Reports(__version__, clock, self._reply)
        self.links = Links(centre_log, self.divisions, self._connected, clock, self.reports)

    async def open(
        self, bucket: Callable[[str], Awaitable[Bucket]], callout: Callout, divisions: Divisions, devices: Devices
    ) -> None:
        """Open the register of members; from now on they are let in."""
        self._devices = devices
        tls = self.config.web.tls
        self.copies = copies.Copies(bucket)
        self.members = Members(
            await bucket("nodes"),
            self._trail,
            self.clock,
            home=self.config.division,
            version=__version__,
            divisions=divisions,
            configured=self._configured,
            fingerprint=await asyncio.to_thread(_fingerprint, tls.cert_file) if tls.cert_file else "",
        )
        await self.members.load()
        self.moves = Moves(await bucket("moves"), self._trail, self.clock, divisions, self._entry)
        await self.moves.load()
        self._generations = {one.division: one.generation for one in self.members.all()}
        self.members.on_change.append(self._changed)
        callout.guests.append(partial(self._guest, self.members))

    async def start(self, bus: Client) -> None:
        """Begin to answer the nodes. Raises `Lost`."""
        self.answers |= {
            "report": self.reports.take,
            "copied": self.copies.copied,
            "copy": self.copies.copy,
            "restore": self.copies.restore,
            "returned": self._returned,
            **self._desk,
        }
        if self.offers:
            self.answers |= {"base": self.offers.base, "content": self.offers.content}
        await ask.answer(bus, self.answers)

    async def _returned(self, division: str, payload: bytes) -> bytes:
        part = await self.returns.part(division, msgspec.msgpack.decode(payload, type=Wanted))
        return msgspec.msgpack.encode(part)

    async def export(self, division: str, life: str, after: int) -> tuple[bytes, str]:
        """Return a signed file of what goes back to a node after a place, and the place where it ends."""
        key = key_in(
            Path(self.config.sharing.key_file or Path(self.config.directory) / shares.SIGNING),
            setting="sharing.key_file",
        )
        body, held = await return_files.export(
            self.returns,
            division,
            Wanted(life, after),
            key,
            centre=self.config.division,
            made=self.clock.now(),
        )
        return body, f"{held.life}:{held.until}"

    async def place(self) -> str:
        """Refuse: a centre has none above it."""
        raise NotFound("nothing comes back to a centre")

    async def take(self, _file: bytes) -> tuple[int, str]:
        """Refuse: a centre has none above it."""
        raise NotFound("nothing comes back to a centre; import at the node")

    def _reply(self, division: str, _report: Report) -> dict[str, str]:
        base = self.offers.digest(division) if self.offers else ""
        return {"base": base, "orders": self.moves.open_for(division)}

    # ── moves of devices ────────────────────────────────────────────────────────────────────────────

    @property
    def _desk(self) -> dict[str, ask.Answer]:
        return {"orders": self.moves.orders, "part": self.moves.part, "told": self.moves.told}

    async def ask(self, what: str, payload: bytes) -> bytes:
        """Answer our own gateway as any node. Raises as the answers do."""
        return await self._desk[what](self.config.division, payload)

    async def _entry(self, division: str, device: str) -> Stored | None:
        """Return a device's entry: of our own registry, or of a node's as it was last copied here."""
        if division == self.config.division:
            return self._devices.stored(device)
        row = await self.copies.find(division, "devices", device)
        return decode_stored(row) if row else None

    def gateways(self) -> list[str]:
        """Return the divisions of all gateways: the nodes, and this one."""
        return [*self.divisions(), self.config.division]

    async def move(self, mover: Mover) -> None:
        """Do what is ordered of this gateway itself, until cancelled."""
        home = self.config.division
        while True:
            await self.moves.until(lambda: self.moves.open_for(home) != "")
            try:
                await mover.work()
            except (Lost, Refused) as why:
                log.warning("a move is gone on with later", why=str(why))
            await self.clock.sleep(LOOK_S)

    @property
    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs until cancelled."""
        assert self.members is not None  # noqa: S101 - open() has run
        return {
            "links": self.links.run,
            "members": self.members.watch,
            "moves": self.moves.watch,
            "links closing": self._close_all,
        }

    def gone(self) -> list[str]:
        """Return the nodes that have left or were expelled."""
        ended = (State.LEFT, State.EXPELLED)
        members = self.members.all() if self.members else ()
        return [one.division for one in members if one.state in ended and one.division not in self._configured]

    def divisions(self) -> list[str]:
        """Return those of all nodes that there are."""
        joined = [one.division for one in self.members.all()] if self.members else []
        return sorted({*self._configured, *joined})

    # ── who is let in ───────────────────────────────────────────────────────────────────────────────

    def _guest(self, members: Members, asked: Question) -> Guest | None:
        user = asked.connect_opts.user
        if asked.client_info.type == "mqtt" or not user.startswith("node-"):
            return None
        version = asked.connect_opts.name.rpartition(" ")[2]
        member = members.verify(user.removeprefix("node-"), asked.connect_opts.password, version)
        return Guest(user, Role.GATEWAY.account, Rights(*node_rights(member.division)))

    def _changed(self, member: Member) -> None:
        other = self._generations.get(member.division) != member.generation
        self._generations[member.division] = member.generation
        if other or member.state in (State.LEFT, State.EXPELLED):
            self._closing.add(member.division)
            self._close.set()

    async def _close_all(self) -> None:
        """Close the connections of nodes whose rights have ended, at once and once more."""
        while True:
            await self._close.wait()
            self._close.clear()
            closing = {node_user(division) for division in self._closing}
            self._closing.clear()
            for _ in range(TRIES):
                await self._close_where(closing.__contains__)
                await self.clock.sleep(CLOSE_AGAIN_S)

    async def _close_where(self, wanted: Callable[[str], bool]) -> None:
        try:
            for one in await self.engine.connections(Role.GATEWAY.account):
                if wanted(one.authorized_user):
                    await self.engine.close_connection(one.cid)
        except Lost as why:
            log.warning("connections of a node cannot be closed now; tried again", why=str(why))

    async def _connected(self) -> set[str]:
        """Return the nodes whose connection is open; one that has no right to it is closed."""
        assert self.members is not None  # noqa: S101 - open() has run
        known = {node_user(division): division for division in (*self._configured, *self.members.linked())}
        found: set[str] = set()
        for one in await self.engine.connections(Role.GATEWAY.account):
            if one.authorized_user in known:
                found.add(known[one.authorized_user])
            elif one.authorized_user.startswith("node-") and one.authorized_user != node_user(self.config.division):
                await self.engine.close_connection(one.cid)
        return found

    # ── joining ─────────────────────────────────────────────────────────────────────────────────────

    async def join(self, code: str, version: str, life: str) -> Told:
        """Take a node in. Raises as `Members.join`."""
        assert self.members is not None  # noqa: S101 - open() has run
        division = code.split("_")[1] if code.count("_") > 1 else ""
        records = await self.links.lanes(division) if division.isdigit() else []
        came = Lane(
            max((one.position for one in records), default=0),
            max((one.committed_at for one in records), default=0),
            next((one.life for one in records), ""),
            sum(until - after for one in records for after, until in one.ranges),
        )
        joined = await self.members.join(code, version=version, life=life, came=came)
        member = joined.member
        return Told(member.division, joined.secret, member.generation, member.first, self._way_in(), __version__)

    def _way_in(self) -> WayIn:
        config = self.config.engine
        if config.url:
            place = urlsplit(config.url.partition(",")[0])
            return WayIn(place.scheme, place.hostname or "", place.port or 4222, _pem(config.ca_file))
        certificate = _pem(config.tls.cert_file)
        open_to_all = config.host in {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"}  # noqa: S104 - read, not bound
        return WayIn(
            "tls" if certificate else "nats", "" if open_to_all else config.host, self.engine.info.port, certificate
        )

    # ── what it says ────────────────────────────────────────────────────────────────────────────────

    async def gaps(self, division: str) -> list[Named]:
        """Return what did not come of a node's lost stores. Raises `NotFound`, `Lost`."""
        assert self.members is not None  # noqa: S101 - open() has run
        return await gaps.named(self._log, division, self.members.get(division).gaps)

    def rows(self) -> list[NodeRow]:
        """Return the nodes as people see them."""
        members = {one.division: one for one in self.members.all()} if self.members else {}
        rows = [_row(one, members.get(one.division), self._tables) for one in self.links.nodes]
        return [msgspec.structs.replace(row, copied=self.copies.last.get(row.division, 0)) for row in rows]


def _row(node: Node, member: Member | None, tables: dict[str, str]) -> NodeRow:
    heard = node.heard
    report = heard.report if heard else None
    version = report.version if report else member.version if member else ""
    return NodeRow(
        node.division,
        "node",
        node.state.value,
        node.last_commit,
        node.backlog,
        node.forwarded,
        node.withheld,
        "; ".join(
            note
            for note in (version_note(__version__, version), tables_note(tables, report.tables) if report else "")
            if note
        ),
        membership=member.state.value if member else "configured",
        generation=member.generation if member else 0,
        version=version,
        clock_offset_s=round(heard.clock_offset_s, 3) if heard else None,
        reported=heard.at if heard else 0,
        load=report.load if report else None,
        rss_mb=report.rss_mb if report else None,
        devices=report.devices if report else None,
        counts=node.counts,
        troubles=list(report.troubles) if report else [],
        gaps=[(gap.since, gap.until) for gap in member.gaps] if member else [],
    )


def own_row(config: Config, totals: dict[str, int], detail: str) -> NodeRow:
    """Return a gateway's own line among the nodes."""
    withheld = sum(count for kind, count in totals.items() if kind.partition(".")[0] == WITHHELD)
    return NodeRow(
        config.division,
        config.role,
        "up",
        forwarded=totals.get(FORWARDED, 0),
        withheld=withheld,
        detail=detail,
        version=__version__,
    )


def _pem(file: str) -> str:
    return Path(file).read_text(encoding="ascii") if file else ""


def _fingerprint(file: str) -> str:
    """Return the SHA-256 (hex) of the first certificate of a PEM file."""
    text = Path(file).read_text(encoding="ascii")
    start, end = text.index("-----BEGIN CERTIFICATE"), text.index("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[start : end + 25])).hexdigest()
