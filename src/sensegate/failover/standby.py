"""Two sites: a centre that is active, and one that stands by with a whole copy and can take its place.

    await_activation() ─▶ copies log, registries, trail, sums ─▶ ordered, or granted by nodes ─▶ `Activation`
    flow.run ─▶ `Seat` (`active.py`): delivers what the standby has confirmed ─▶ superseded: await_activation() again

A centre whose log or trail holds what the active one never had begins anew as its copy; its old store is set aside,
whole, and named on the trail that goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from sensegate.authority.audit import Audit
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.callout import Callout
from sensegate.authority.chain import digest
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.slots import node_slots
from sensegate.authority.trail import MemoryTrail, Trail
from sensegate.bus import api, inventory, streams, timelines
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import Bucket
from sensegate.bus.log import JetStreamLog
from sensegate.bus.process import write_private
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import Fenced, NotFound, PermissionDenied, StoreFull, Unavailable, combined
from sensegate.failover import terms, trail_copy
from sensegate.failover.active import Activation, asked, plea_of, reach, state_of
from sensegate.failover.lease import INITIAL_VERSION, VoterConfiguration, Votes
from sensegate.failover.ledger_copy import LedgerCopy
from sensegate.failover.replica import LogChunk, Replica
from sensegate.failover.replica import describe_log as log_of
from sensegate.failover.standby_status import PROMOTE, STATUS, StandbyStatus
from sensegate.failover.terms import GRANT_S, CentreState, Term
from sensegate.failover.trail_copy import SetAsideStore, TrailCopy
from sensegate.tiers.admission import NodeAdmission, Site, open_members
from sensegate.tiers.link import CentreLink, NodeLinks
from sensegate.tiers.node_states import NodeMonitor

ASIDE = "aside.json"
"""What was set aside, until the active centre has it on its trail."""
TAIL = "trail.ndjson"
"""Beside what was set aside: the records of the trail that were."""
LOOK_S = 0.5
_log = structlog.get_logger("sites")
_T = TypeVar("_T")

_Ask = Callable[[str, bytes], Awaitable[bytes]]
_rows = msgspec.msgpack.Decoder(tuple[list[tuple[str, bytes | None]], int]).decode


async def await_activation(config: Config, clock: Clock) -> Activation:
    """Return when this centre is to be active; until then it stands by."""
    directory = Path(config.directory)
    term = terms.read(directory)
    if term.number == 0 and config.peer.initially_active:
        term = Term(1, active=True, history=((1, 0),))
        terms.write(directory, term)
    while True:
        state = await state_of(config, term)
        if state and state.term > term.number:
            term = msgspec.structs.replace(term, number=state.term, active=False, lapsed=False)
            terms.write(directory, term)
        mine = term.active and not term.lapsed and not (state and state.active)
        if mine and (state or not config.peer.automatic):
            return Activation(term)
        term, begun = await _stand_by(config, clock, term)
        terms.write(directory, term)
        if term.active:
            _log.warning("this centre is active now", term=term.number, how=begun or "gone on with")
            return Activation(term, begun)


async def _stand_by(config: Config, clock: Clock, term: Term) -> tuple[Term, str]:
    """Stand by until there is a new term, or the store must be begun anew; return what to go on with, and why."""
    directory = Path(config.directory)
    aside = directory / f"aside-{term.number}-{time.strftime('%Y%m%dT%H%M%S')}"
    try:
        async with contextlib.AsyncExitStack() as stack:
            engine = Engine.of(config, clock, slots=node_slots(config))
            await engine.start()
            stack.push_async_callback(engine.stop)
            return await _Standby(config, clock, engine, term).run(stack, aside)
    except Fenced as why:
        _log.warning("begins anew as a copy; the old store is set aside", aside=str(aside), why=str(why))
        await asyncio.to_thread(_set_aside, directory, aside)
        kept = terms.read(directory)
        return Term(max(kept.number, term.number), voters=kept.voters), ""


def _set_aside(directory: Path, aside: Path) -> None:
    aside.mkdir(mode=0o700, exist_ok=True)
    engine = directory / "engine"
    names = ("duplicates", "log.life", timelines.FILE)
    for place in (engine / "store", engine / inventory.DIRECTORY, *(directory / name for name in names)):
        if place.exists():
            place.rename(aside / place.name)


async def _first(*work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of the coroutine that ends first, and cancel the others.

    Raises:
        BaseException: one or several of them failed; see `errors.combined`.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if errors := [error for task in ended if (error := task.exception())]:
        raise combined(BaseExceptionGroup("parts of the standby", errors))
    return ended[0].result()


async def _ended(work: Callable[[], Awaitable[None]]) -> None:
    """Do a work that has no end."""
    await work()


class _Standby:
    """One life of a standby."""

    def __init__(self, config: Config, clock: Clock, engine: Engine, term: Term) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self.directory = Path(config.directory)
        self.term = term
        self.votes = Votes(GRANT_S)
        self._seen = term.number
        """Highest term that has begun, as far as is known."""
        self._granted = 0
        """Highest term that a node has granted to another centre."""
        self._keeping = asyncio.Lock()
        self._reached = False
        self._lost_at = clock.monotonic()
        self._replica: Replica | None = None
        self._copied: dict[str, tuple[Bucket, int, dict[str, bytes]]] = {}

    async def run(self, stack: contextlib.AsyncExitStack, aside: Path) -> tuple[Term, str]:
        """Return the term in which this centre is active, and how it began; `aside`: where to note what is not copied.

        Raises:
            Fenced: its log or its trail is no copy of the active one's.
        """
        self.bus = await self.engine.connect(User.GATEWAY, name="standby")
        stack.push_async_callback(self.bus.close)
        store = self.config.store
        await streams.ensure_books(self.bus, store, audit_ttl_h=self.config.audit.ttl_h)
        self._audit = Audit(self.bus, self.clock, gateway=self.config.division, expires=bool(self.config.audit.ttl_h))
        stack.push_async_callback(self._audit.close)
        self._trail = TrailCopy(self._audit)
        hours = JetStreamLog(self.bus, stream=streams.LEDGER, room=self.engine.has_room)
        self._sums = LedgerCopy(hours, self.clock, ttl_h=store.ledger_ttl_h)
        trail: Trail = MemoryTrail()
        devices = Devices(MemoryBucket(), trail, self.clock)
        callout = Callout(self.engine, devices, self.clock)
        site = Site(self.config, self.clock, self.engine)
        members = await open_members(site, await self._bucket("nodes"), trail, Divisions.load())
        links = NodeLinks(
            self.engine.connect_slot,
            self.clock,
            quota=self.config.node_quota,
            term=lambda: self._seen,
            active=False,
        )
        links.answer({"lease": self._lease})
        admission = NodeAdmission(site, members, links)
        states = NodeMonitor(JetStreamLog(self.bus), admission.divisions, admission.connected, self.clock)
        await callout.start([admission.guest_of])
        stack.push_async_callback(callout.stop)
        _log.info("standing by", term=self.term.number, of=self.config.peer.url)
        try:
            term = await _first(
                self._decided(),
                self._follow(),
                *(_ended(work) for work in (*admission.tasks.values(), states.run, self.engine.watched)),
            )
        except Fenced:
            await self._note(aside)
            raise
        if term is None:
            raise Unavailable("a part of the standby has ended")
        return term

    async def _bucket(self, name: str) -> Bucket:
        return await Bucket.open(self.bus, name, bytes_max=self.config.store.registry_bytes)

    # ── who is active ───────────────────────────────────────────────────────────────────────────────

    async def _lease(self, division: str, payload: bytes) -> bytes:
        plea = terms.decode_lease_request(payload)
        self._seen, self._granted = max(self._seen, plea.term), max(self._granted, plea.granted_elsewhere)
        self.votes.add(plea.voter(division), plea.granted_here, self.clock.monotonic())
        version = self._voters[-1].version
        state = CentreState(
            active=False, term=self._seen, is_candidate=self._wants(), proposed_term=self._would, voters_version=version
        )
        return terms.encode(state)

    @property
    def _voters(self) -> tuple[VoterConfiguration, ...]:
        return self.term.voters or (VoterConfiguration(nodes=tuple(node.division for node in self.config.nodes)),)

    @property
    def _would(self) -> int:
        """The term that would begin here: later than every other that was begun or granted."""
        return max(self._seen, self._granted, self.term.number) + 1

    def _wants(self) -> bool:
        """Return whether this centre would take over where the nodes grant it."""
        whole = self._replica is not None and self._voters[-1].version != INITIAL_VERSION
        own = self.term.active and self._seen <= self.term.number
        return (
            self.config.peer.automatic
            and not self._reached
            and self.clock.monotonic() - self._lost_at >= self.config.peer.lease_s
            and (whole or own)
        )

    async def _decided(self) -> tuple[Term, str]:
        order = self.directory / PROMOTE
        while True:
            await asyncio.to_thread(self._tell)
            if await asyncio.to_thread(order.exists):
                await asyncio.to_thread(order.unlink)
                # Not the term that nodes may be granting to the other one at this moment.
                return await self._next(self._would + self.config.peer.automatic), "by order"
            would = self._would
            if self._wants() and self.votes.has_majority(would, self._voters, self.clock.monotonic()):
                return await self._next(would), "granted by a majority of the nodes"
            await self.clock.sleep(LOOK_S)

    async def _next(self, number: int) -> Term:
        """Return the term that begins with what is here now."""
        past = self._replica.term if self._replica else self.term
        end = await self._replica.end() if self._replica else await self._end()
        sums = await self._sums.position()
        if sums and not sums.epoch:
            # Some hours are newer than others: all are counted anew, as far as the log goes back.
            _log.warning("the hourly sums had come in part; they are counted again from the log")
            await api.call(self.bus, f"$JS.API.STREAM.PURGE.{streams.LEDGER}")
        return Term(
            number, active=True, unreplicated=True, history=(*past.history, (number, end)), voters=self.term.voters
        )

    async def _end(self) -> int:
        """Return with which sequence the own log ends; 0: there is none."""
        try:
            return (await JetStreamLog(self.bus).bounds())[1]
        except NotFound:
            return 0

    def _tell(self) -> None:
        standing = StandbyStatus(
            os.getpid(), self._seen, self._reached, self._replica.behind if self._replica else -1, time.time()
        )
        fresh = self.directory / f"{STATUS}.new"
        fresh.write_bytes(msgspec.json.encode(standing))
        fresh.replace(self.directory / STATUS)

    # ── the copy ────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> tuple[Term, str]:
        """Copy while the active centre is reached; try again when it is not.

        ReturnFlow where none is active and the last term was our own: it is gone on with. Raises `Fenced`.
        """
        while True:
            try:
                link = await reach(self.config)
                try:
                    state = await self._state(link)
                    ours = self.term.active and not self.term.lapsed and self.term.number >= self._seen
                    if not state.active and ours:
                        return self.term, ""
                    await self._copy(link, state)
                finally:
                    await link.close()
            except (Unavailable, PermissionDenied, StoreFull) as why:
                if self._reached:
                    _log.warning("the active centre is not reached", why=str(why))
                    self._lost_at = self.clock.monotonic()
                self._reached = False
            await self.clock.sleep(LOOK_S)

    async def _state(self, link: CentreLink) -> CentreState:
        """Return how the other centre is; who votes there votes here from now on.

        Raises `Unavailable`, `PermissionDenied`.
        """
        plea = msgspec.structs.replace(plea_of(self.term), term=self._seen)
        try:
            state = terms.decode_state(await asked(link, "lease", terms.encode(plea)))
        except msgspec.DecodeError as why:
            raise Unavailable(f"the other centre's answer cannot be read: {why}") from why
        self._seen = max(self._seen, state.term)
        if state.active and state.voters and state.voters.version > self._voters[-1].version:
            await self._keep(voters=(state.voters,))
        return state

    async def _keep(self, **learnt: Any) -> None:
        """Remember, on the disk, what was learnt of an active centre: fields of `Term`."""
        async with self._keeping:
            fresh = msgspec.structs.replace(self.term, active=False, unreplicated=False, lapsed=False, **learnt)
            self.term = msgspec.structs.replace(fresh, number=self._seen)
            await asyncio.to_thread(terms.write, self.directory, self.term)

    async def _copy(self, link: CentreLink, state: CentreState) -> None:
        if not state.active:
            raise Unavailable("the other centre is not active either; one must be ordered to be")
        ask_ = partial(asked, link)
        if self._replica is None:
            self._replica = Replica(await self._own(ask_), self.config.store, self.clock, self.term)
        await self._named(ask_)
        await _first(
            self._entries(self._replica, ask_),
            self._registries(ask_),
            self._records(ask_),
            self._hours(self._replica, ask_),
            self._electorate(link),
        )

    async def _own(self, ask_: _Ask) -> JetStreamLog:
        """Return the log that is the copy, made where there is none."""
        found = await log_of(ask_)
        await streams.ensure(self.bus, streams.log_stream(self.config.store, found.first, found.log_epoch))
        own = JetStreamLog(self.bus, room=self.engine.has_room)
        await own.open(self.directory)
        if own.epoch != found.log_epoch:
            raise Fenced(f"the own log is of life {own.epoch}, that of the active centre of {found.log_epoch}")
        return own

    async def _entries(self, replica: Replica, ask_: _Ask) -> None:
        while True:
            before = replica.term.history
            await replica.copy_next(ask_, self._seen)
            if replica.term.history != before:
                await self._keep(history=replica.term.history)
            self._reached = True

    async def _electorate(self, link: CentreLink) -> None:
        while (await self._state(link)).active:
            await self.clock.sleep(LOOK_S)
        raise Unavailable("the other centre is not active any more")

    async def _records(self, ask_: _Ask) -> None:
        """Copy the audit trail."""
        while True:
            try:
                came = await self._trail.copy_next(ask_)
            except PermissionDenied as why:
                _log.debug("the trail is not copied yet", why=str(why))
                came = 0
            await self.clock.sleep(0 if came else LOOK_S / 10)

    async def _hours(self, replica: Replica, ask_: _Ask) -> None:
        """Copy the hourly sums."""
        while True:
            try:
                more = await self._sums.copy_next(ask_, replica.epoch, await replica.end())
            except PermissionDenied as why:
                _log.debug("the hourly sums are not copied yet", why=str(why))
                more = False
            await self.clock.sleep(0 if more else LOOK_S)

    async def _registries(self, ask_: _Ask) -> None:
        while True:
            names = msgspec.msgpack.decode(await ask_("buckets", b""), type=list[str])
            for name in names:
                await self._registry(name, ask_)
            await self.clock.sleep(LOOK_S)

    async def _registry(self, name: str, ask_: _Ask) -> None:
        if name not in self._copied:
            own = await self._bucket(name)
            present, _ = await own.load_all()
            self._copied[name] = own, 0, {row.key: row.value for row in present if row.value is not None}
        own, after, values = self._copied[name]
        left = set() if after else set(values)
        while True:
            rows, revision = _rows(await ask_("rows", msgspec.msgpack.encode((name, after))))
            for key, value in rows:
                left.discard(key)
                if value is None:
                    if values.pop(key, None) is not None:
                        await own.delete(key)
                elif values.get(key) != value:
                    await own.put(key, value)
                    values[key] = value
            after = revision
            if not rows:
                break
        for key in left:
            # It was deleted while we were away, longer ago than that is remembered.
            await own.delete(key)
            del values[key]
        self._copied[name] = own, after, values

    # ── what is no copy ─────────────────────────────────────────────────────────────────────────────

    async def _note(self, aside: Path) -> None:
        """Note what there is that the active centre never had, for its trail; the store is set aside next."""
        last, found, after, records = await self._end(), None, 0, list[bytes]()
        try:
            link = await reach(self.config)
            try:
                ask_ = partial(asked, link)
                found = await log_of(ask_)
                after, records = await trail_copy.divergent_tail(self._audit, ask_)
            finally:
                await link.close()
        except (Unavailable, PermissionDenied) as why:
            _log.warning("what is set aside cannot be told exactly", why=str(why))
        made = SetAsideStore(
            aside.name,
            self.term.number,
            min(last, self._shared(found)) if found else 0,
            last,
            after,
            after + len(records),
            digest(records[-1]) if records else "",
        )
        await asyncio.to_thread(_noted, self.directory, aside, made, records)

    def _shared(self, found: LogChunk) -> int:
        """Return up to which sequence a log that began as a copy can be one."""
        past = self.term.history
        known = past[-1][0] if past else 0
        return min([found.last, *(began for term, began in found.history if term > known)])

    async def _named(self, ask_: _Ask) -> None:
        """Have the active centre put on its trail what was set aside here."""
        file = self.directory / ASIDE
        if not await asyncio.to_thread(file.exists):
            return
        made = msgspec.json.decode(await asyncio.to_thread(file.read_bytes), type=SetAsideStore)
        try:
            await ask_("aside", trail_copy.encode_set_aside(made))
        except PermissionDenied as why:
            _log.debug("what was set aside is named later", why=str(why))
            return
        await asyncio.to_thread(file.rename, self.directory / made.directory / ASIDE)


def _noted(directory: Path, aside: Path, made: SetAsideStore, records: list[bytes]) -> None:
    aside.mkdir(mode=0o700, exist_ok=True)
    write_private(aside / TAIL, b"".join(record + b"\n" for record in records).decode())
    write_private(directory / ASIDE, msgspec.json.encode(made).decode())
