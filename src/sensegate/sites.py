"""Two sites: a centre that is active, and one that stands by with a whole copy and can take its place.

    seat() ─▶ stands by (copies the log and the registries) ─▶ by order, or granted by the nodes ─▶ a `Seat`
    flow.run with the seat ─▶ delivers what the standby has confirmed ─▶ superseded: seat() again

A centre whose log holds what the active one never had begins anew as its copy; its old store is set aside, whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from nats.aio.client import Client

from sensegate import __version__
from sensegate.authority import terms
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.callout import Callout
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.standby import PROMOTE, STATUS, Standby
from sensegate.authority.terms import Plea, State, Term, Votes
from sensegate.authority.trail import MemoryTrail, Trail
from sensegate.below import Below
from sensegate.bus import ask, streams
from sensegate.bus.connect import connect
from sensegate.bus.engine import Engine, Role
from sensegate.bus.kv import Bucket
from sensegate.bus.log import JetStreamLog
from sensegate.bus.server_conf import inbox_prefix, node_user
from sensegate.clock import Clock, moved
from sensegate.config import Config, secret
from sensegate.errors import Fenced, Lost, NotFound, Refused, Superseded
from sensegate.ports import Log
from sensegate.publish.replica import Held, Original, Replica, asked, decode_from

LOOK_S = 0.5
PROBE_S = 2.0
ASK_S = 3.0
PING_S = 2.0
ROWS_MAX = 500
_log = structlog.get_logger("sites")
_T = TypeVar("_T")

_rows = msgspec.msgpack.Decoder(tuple[list[tuple[str, bytes | None]], int]).decode


# ── the other centre ────────────────────────────────────────────────────────────────────────────────────


async def _reach(config: Config) -> Client:
    """Return a connection to the other centre. Raises `Lost`, `Refused`."""
    peer, user = config.peer, node_user(config.division)
    tls = ssl.create_default_context(cafile=peer.ca_file or None) if peer.url.startswith("tls://") else None
    return await connect(
        peer.url,
        user,
        secret(peer.secret_file),
        inbox_prefix=inbox_prefix(user),
        name=f"centre {config.division} {__version__}",
        tls=tls,
        ping_s=PING_S,
        reconnect_timeout_s=PING_S,
    )


async def _asked(nc: Client, division: str, what: str, payload: bytes = b"") -> bytes:
    return await ask.ask(nc, division, what, payload, timeout_s=ASK_S)


async def _state_of(config: Config, term: int) -> State | None:
    """Return how the other centre is; None where it cannot be reached."""
    try:
        async with asyncio.timeout(ASK_S):
            nc = await _reach(config)
            try:
                return await _told(nc, config.division, Plea(term))
            finally:
                await nc.close()
    except (Lost, Refused, TimeoutError) as why:
        _log.debug("the other centre is not reached", why=str(why))
        return None


async def _told(nc: Client, division: str, plea: Plea) -> State:
    try:
        return terms.decode_state(await _asked(nc, division, "lease", terms.encode(plea)))
    except msgspec.DecodeError as why:
        raise Lost(f"the other centre's answer cannot be read: {why}") from why


# ── a seat ──────────────────────────────────────────────────────────────────────────────────────────────


class Seat:
    """The right to be active in a term, and what goes with it while the gateway runs."""

    def __init__(self, config: Config, clock: Clock, term: Term) -> None:
        self.config = config
        self.clock = clock
        self.kept = term
        self.term = term.number
        self.original: Original
        self._votes = Votes([node.division for node in config.nodes])
        self._heard: dict[str, float] = {}
        self._over = asyncio.Event()
        self._why = ""
        self._buckets: dict[str, Bucket] = {}

    def hold(self, centre_log: Log) -> Log:
        """Return the log as it may be delivered."""
        hold_s = self.config.peer.hold_s
        self.original = Original(centre_log, self.clock, hold_s, self.kept.history, alone=self.kept.alone)
        return Held(centre_log, self.original, self.clock)

    def buckets(self, found: Mapping[str, Bucket]) -> None:
        """Say which registries are copied."""
        self._buckets = dict(found)

    @property
    def answers(self) -> dict[str, ask.Answer]:
        """What nodes and the other centre may ask."""
        return {"lease": self._lease, "log": self._log, "buckets": self._names, "rows": self._some}

    async def _lease(self, division: str, payload: bytes) -> bytes:
        plea = terms.decode_plea(payload)
        if plea.term > self.term:
            self._end(f"{division} has met a centre of term {plea.term}, this one is of {self.term}")
        self._heard[division] = self.clock.monotonic()
        return terms.encode(State(not self._over.is_set(), self.term, self.original.alone))

    def _only_peer(self, division: str) -> None:
        if division != self.config.division:
            raise Refused("this is for the other centre")

    async def _log(self, division: str, payload: bytes) -> bytes:
        self._only_peer(division)
        wanted = decode_from(payload)
        if wanted.term > self.term:
            self._end(f"the other centre is of term {wanted.term}, this one is of {self.term}")
            raise Refused("not active any more")
        return await self.original.piece(wanted)

    async def _names(self, division: str, _payload: bytes) -> bytes:
        self._only_peer(division)
        return msgspec.msgpack.encode(sorted(self._buckets))

    async def _some(self, division: str, payload: bytes) -> bytes:
        self._only_peer(division)
        name, after = msgspec.msgpack.decode(payload, type=tuple[str, int])
        if name not in self._buckets:
            raise NotFound(f"no bucket {name}")
        rows = await self._buckets[name].changes(after, limit=ROWS_MAX)
        return msgspec.msgpack.encode(([(row.key, row.value) for row in rows], rows[-1].revision if rows else after))

    def _end(self, why: str) -> None:
        if not self._over.is_set():
            self._why = why
            self._over.set()

    async def run(self) -> None:
        """See that the seat is ours, until cancelled. Raises `Superseded`."""
        directory, alone = Path(self.config.directory), self.kept.alone
        began = self.clock.monotonic()
        while True:
            await moved(self._over, self.clock, PROBE_S)
            state = None if self._over.is_set() else await _state_of(self.config, self.term)
            if state and state.term > self.term:
                self._end(f"the other centre is of term {state.term}, this one is of {self.term}")
            if self._over.is_set():
                await asyncio.to_thread(terms.write, directory, msgspec.structs.replace(self.kept, active=False))
                raise Superseded(self._why)
            if self.original.alone != alone:
                alone = self.original.alone
                await asyncio.to_thread(terms.write, directory, msgspec.structs.replace(self.kept, alone=alone))
                _log.warning("delivering without the standby" if alone else "the standby confirms again")
            self._demand_majority(began)

    def _demand_majority(self, began: float) -> None:
        """Return while enough nodes have been here within the lease. Raises `Superseded`."""
        peer, nodes = self.config.peer, len(self.config.nodes)
        now = self.clock.monotonic()
        if not peer.automatic or nodes == 0 or now - began < 2 * peer.lease_s:
            return
        here = sum(now - heard < peer.lease_s * 0.75 for division, heard in self._heard.items() if len(division) > 2)
        if here * 2 <= nodes:
            raise Superseded(f"{here} of {nodes} nodes have been here lately: another centre may have been granted")


async def seat(config: Config, clock: Clock) -> Seat:
    """Return when this centre is to be active; until then it stands by."""
    directory = Path(config.directory)
    term = terms.read(directory)
    if term.number == 0 and config.peer.first:
        term = Term(1, active=True, history=((1, 0),))
        terms.write(directory, term)
    while True:
        state = await _state_of(config, term.number)
        if state and state.term > term.number:
            term = msgspec.structs.replace(term, number=state.term, active=False)
            terms.write(directory, term)
        if term.active and not (state and state.active) and (state or not config.peer.automatic):
            return Seat(config, clock, term)
        term = await _stand_by(config, clock, term)
        terms.write(directory, term)
        if term.active:
            _log.warning("this centre is active now", term=term.number)
            return Seat(config, clock, term)


async def _stand_by(config: Config, clock: Clock, term: Term) -> Term:
    """Stand by until there is a new term, or the store must be begun anew; return what to go on with."""
    directory = Path(config.directory)
    try:
        async with contextlib.AsyncExitStack() as stack:
            engine = Engine.of(config, clock)
            await engine.start()
            stack.push_async_callback(engine.stop)
            return await _Standby(config, clock, engine, term).run(stack)
    except Fenced as why:
        aside = directory / f"aside-{term.number}-{time.strftime('%Y%m%dT%H%M%S')}"
        _log.warning("begins anew as a copy; the old store is set aside", aside=str(aside), why=str(why))
        await asyncio.to_thread(_set_aside, directory, aside)
        return Term(term.number)


def _set_aside(directory: Path, aside: Path) -> None:
    aside.mkdir(mode=0o700)
    for place in (directory / "engine" / "store", directory / "duplicates", directory / "log.life"):
        if place.exists():
            place.rename(aside / place.name)


async def _first(*work: Coroutine[Any, Any, _T]) -> _T:
    """Return (or raise) what the first of some works ends with; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ended(work: Callable[[], Awaitable[None]]) -> None:
    """Do a work that has no end."""
    await work()


class _Standby:
    """One life of a standby."""

    def __init__(self, config: Config, clock: Clock, engine: Engine, term: Term) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self.term = term
        self.votes = Votes([node.division for node in config.nodes])
        self._seen = term.number
        self._reached = False
        self._lost_at = clock.monotonic()
        self._replica: Replica | None = None
        self._copied: dict[str, tuple[Bucket, int, dict[str, bytes]]] = {}

    async def run(self, stack: contextlib.AsyncExitStack) -> Term:
        """Return the term in which this centre is active. Raises `Fenced`: its log is no copy of the active one's."""
        self.bus = await self.engine.connect(Role.GATEWAY, name="standby")
        stack.push_async_callback(self.bus.close)
        trail: Trail = MemoryTrail()
        devices = Devices(MemoryBucket(), trail, self.clock)
        callout = Callout(self.engine, devices, self.clock)
        below = Below(self.config, self.clock, self.engine, JetStreamLog(self.bus), trail)
        await below.open(self._bucket, callout, Divisions.load(), devices)
        await callout.start()
        stack.push_async_callback(callout.stop)
        await ask.answer(self.bus, {"lease": self._lease})
        _log.info("standing by", term=self.term.number, of=self.config.peer.url)
        term = await _first(self._decided(), self._follow(), *(_ended(work) for work in below.tasks.values()))
        if term is None:
            raise Lost("a part of the standby has ended")
        return term

    async def _bucket(self, name: str) -> Bucket:
        return await Bucket.open(self.bus, name, bytes_max=self.config.store.registry_bytes)

    # ── who is active ───────────────────────────────────────────────────────────────────────────────

    async def _lease(self, division: str, payload: bytes) -> bytes:
        plea = terms.decode_plea(payload)
        self._seen = max(self._seen, plea.term)
        self.votes.add(division, self.clock.monotonic(), grant=plea.grant)
        return terms.encode(State(active=False, term=self._seen, wants=self._wants()))

    def _wants(self) -> bool:
        """Return whether this centre would take over where the nodes grant it."""
        return (
            self.config.peer.automatic
            and not self._reached
            and self.clock.monotonic() - self._lost_at >= self.config.peer.lease_s
            and (self._replica is not None or self.term.active)
        )

    async def _decided(self) -> Term:
        directory = Path(self.config.directory)
        order = directory / PROMOTE
        while True:
            await asyncio.to_thread(self._tell, directory)
            if await asyncio.to_thread(order.exists):
                await asyncio.to_thread(order.unlink)
                _log.warning("ordered to become active")
                return await self._next()
            if self._wants() and self.votes.enough(self.clock.monotonic()):
                _log.warning("granted by a majority of the nodes")
                return await self._next()
            await self.clock.sleep(LOOK_S)

    async def _next(self) -> Term:
        """Return the term that begins with what is here now."""
        number = max(self._seen, self.term.number) + 1
        past = self._replica.term if self._replica else self.term
        end = await self._replica.whole() if self._replica else await self._end()
        return Term(number, active=True, alone=True, history=(*past.history, (number, end)))

    async def _end(self) -> int:
        """Return with which sequence the own log ends; 0: there is none."""
        try:
            return (await JetStreamLog(self.bus).bounds())[1]
        except NotFound:
            return 0

    def _tell(self, directory: Path) -> None:
        standing = Standby(
            os.getpid(), self._seen, self._reached, self._replica.behind if self._replica else -1, time.time()
        )
        fresh = directory / f"{STATUS}.new"
        fresh.write_bytes(msgspec.json.encode(standing))
        fresh.replace(directory / STATUS)

    # ── the copy ────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        """Copy while the active centre is reached; try again when it is not. Raises `Fenced`."""
        while True:
            try:
                nc = await _reach(self.config)
                try:
                    await self._copy(partial(_asked, nc, self.config.division))
                finally:
                    await nc.close()
            except (Lost, Refused) as why:
                if self._reached:
                    _log.warning("the active centre is not reached", why=str(why))
                    self._lost_at = self.clock.monotonic()
                self._reached = False
            await self.clock.sleep(LOOK_S)

    async def _copy(self, ask_: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        state = terms.decode_state(await ask_("lease", terms.encode(Plea(self._seen))))
        if not state.active:
            raise Lost("the other centre is not active either; one must be ordered to be")
        self._seen = max(self._seen, state.term)
        if self._replica is None:
            self._replica = Replica(await self._own(ask_), self.config.store, self.clock, self.term)
        await _first(self._entries(self._replica, ask_), self._registries(ask_))

    async def _own(self, ask_: Callable[[str, bytes], Awaitable[bytes]]) -> JetStreamLog:
        """Return the log that is the copy, made where there is none."""
        found = await asked(ask_)
        await streams.ensure(self.bus, streams.log_stream(self.config.store, found.first, found.life))
        own = JetStreamLog(self.bus, room=self.engine.has_room)
        await own.open()
        if own.epoch != found.life:
            raise Fenced(f"the own log is of life {own.epoch}, that of the active centre of {found.life}")
        return own

    async def _entries(self, replica: Replica, ask_: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        while True:
            before = replica.term
            await replica.turn(ask_, self._seen)
            if replica.term != before:
                kept = msgspec.structs.replace(replica.term, number=self._seen, active=False)
                await asyncio.to_thread(terms.write, Path(self.config.directory), kept)
            self._reached = True

    async def _registries(self, ask_: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        while True:
            names = msgspec.msgpack.decode(await ask_("buckets", b""), type=list[str])
            for name in names:
                await self._registry(name, ask_)
            await self.clock.sleep(LOOK_S)

    async def _registry(self, name: str, ask_: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        if name not in self._copied:
            own = await self._bucket(name)
            present, _ = await own.load_all()
            self._copied[name] = own, 0, {row.key: row.value for row in present if row.value is not None}
        own, after, values = self._copied[name]
        while True:
            rows, revision = _rows(await ask_("rows", msgspec.msgpack.encode((name, after))))
            for key, value in rows:
                if value is None:
                    if values.pop(key, None) is not None:
                        await own.delete(key)
                elif values.get(key) != value:
                    await own.put(key, value)
                    values[key] = value
            after = revision
            self._copied[name] = own, after, values
            if not rows:
                return
