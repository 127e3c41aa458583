"""The standby of two centres: it copies everything from the active one, and can take its place.

    await_activation() ─▶ standby (copies log, registries, trail, sums) ─▶ by order, or granted by nodes ─▶ `Activation`
    flow.run with it ─▶ delivers what the standby has confirmed ─▶ superseded: await_activation() again

A centre whose log or trail has entries that the active one never had starts again as its copy; its old store is set
aside as a whole, and the trail that continues names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
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
from sensegate.bus.decoding import decoder
from sensegate.bus.engine import Engine, User
from sensegate.bus.files import write_private
from sensegate.bus.kv import KvBucket
from sensegate.bus.log import JetStreamLog
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import Fenced, NotFound, PermissionDenied, StoreFull, Unavailable, combined
from sensegate.failover import terms, trail_copy
from sensegate.failover.active import Activation, ask_peer, connect_peer, peer_request, peer_state
from sensegate.failover.lease import INITIAL_VERSION, LeaseRequest, ReportedTerms, VoterConfiguration, Votes
from sensegate.failover.ledger_copy import LedgerCopy
from sensegate.failover.replica import LogChunk, Replica
from sensegate.failover.replica import describe_log as log_of
from sensegate.failover.standby_status import LOG, PROMOTE, REGISTRIES, STATUS, TRAIL, StandbyStatus
from sensegate.failover.terms import GRANT_S, CentreState, Term
from sensegate.failover.trail_copy import SetAsideStore, TrailCopy
from sensegate.tiers.admission import NodeAdmission, Site, open_members
from sensegate.tiers.link import CentreLink, NodeLinks
from sensegate.tiers.node_states import NodeMonitor

SET_ASIDE_FILE = "aside.json"
"""File about a store that was set aside, until the active centre has recorded it on its trail."""
TAIL_FILE = "trail.ndjson"
"""File in a store that was set aside, with the records of the trail that only it has."""
POLL_S = 0.5
_log = structlog.get_logger("failover")
_T = TypeVar("_T")

_Ask = Callable[[str, bytes], Awaitable[bytes]]
_names = decoder(list[str], "the other centre's answer")
_rows = decoder(tuple[list[tuple[str, bytes | None]], int], "the other centre's answer")


def _read_answer(decode: Callable[[bytes], _T], answer: bytes) -> _T:
    """Decode an answer of the other centre. Raises `Unavailable` where it cannot be read."""
    try:
        return decode(answer)
    except ValueError as why:
        raise Unavailable(str(why)) from why


async def await_activation(
    config: Config, clock: Clock, takes_cameras: Callable[[Sequence[str]], bool] = lambda _: False
) -> Activation:
    """Stand by until this centre has to become active; return the term.

    `takes_cameras`: returns whether a profile in some folders is of cameras: then the copy is encrypted, like the store
    of an active centre.
    """
    directory = Path(config.directory)
    term = terms.read(directory)
    if term.number == 0 and config.peer.initially_active:
        term = Term(1, active=True, history=((1, 0),))
        terms.write(directory, term)
    while True:
        state = await peer_state(config, term)
        if state and state.term > term.number:
            term = msgspec.structs.replace(term, number=state.term, active=False, lapsed=False)
            terms.write(directory, term)
        may_resume = term.active and not term.lapsed and not (state and state.active)
        if may_resume and (state or not config.peer.automatic):
            return Activation(term)
        term, begun = await _stand_by(config, clock, term, takes_cameras)
        terms.write(directory, term)
        if term.active:
            _log.warning("this centre is active now", term=term.number, reason=begun or "term resumed")
            return Activation(term, begun)


async def _stand_by(
    config: Config, clock: Clock, term: Term, takes_cameras: Callable[[Sequence[str]], bool]
) -> tuple[Term, str]:
    """Stand by until a term begins, or the store must be set aside; return the term to continue with, and the cause."""
    directory = Path(config.directory)
    aside = directory / f"aside-{term.number}-{time.strftime('%Y%m%dT%H%M%S')}"
    try:
        async with contextlib.AsyncExitStack() as stack:
            personal = takes_cameras(config.profile_folders)
            engine = Engine.of(config, clock, slots=node_slots(config), personal=personal)
            await engine.start()
            stack.push_async_callback(engine.stop)
            return await _Standby(config, clock, engine, term).run(stack, aside)
    except Fenced as why:
        _log.warning("store set aside; starting again as a copy", aside=str(aside), reason=str(why))
        await asyncio.to_thread(_set_aside, directory, aside)
        stored = terms.read(directory)
        return Term(max(stored.number, term.number), voters=stored.voters), ""


def _set_aside(directory: Path, aside: Path) -> None:
    aside.mkdir(mode=0o700, exist_ok=True)
    engine = directory / "engine"
    names = ("duplicates", "log.life", timelines.FILE)
    for place in (engine / "store", engine / inventory.DIRECTORY, *(directory / name for name in names)):
        if place.exists():
            place.rename(aside / place.name)


async def _first_result(*work: Coroutine[Any, Any, _T]) -> _T:
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


async def _without_result(work: Callable[[], Awaitable[None]]) -> None:
    """Run a task that ends only by an error."""
    await work()


class _Standby:
    """A standby, from its start until a term begins or its store must be set aside."""

    def __init__(self, config: Config, clock: Clock, engine: Engine, term: Term) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self.directory = Path(config.directory)
        self.term = term
        self.votes = Votes(GRANT_S)
        self._known = term.number
        """Highest term that has begun, from our disk and from the other centre."""
        self._reported = ReportedTerms()
        """Terms that have begun, as nodes report them."""
        self._granted = ReportedTerms()
        """Terms that nodes have granted to another centre, as they report it."""
        self._keeping = asyncio.Lock()
        self._reached = False
        self._lost_at = clock.monotonic()
        self._replica: Replica | None = None
        self._copied: dict[str, tuple[KvBucket, int, dict[str, bytes]]] = {}
        self._missing = {REGISTRIES, TRAIL}
        """Parts beside the log that were not copied whole yet: without registries nobody is let in."""

    async def run(self, stack: contextlib.AsyncExitStack, aside: Path) -> tuple[Term, str]:
        """Return the term in which this centre becomes active, and its cause.

        Args:
            stack: closes what is opened here.
            aside: directory for a store that must be set aside.

        Raises:
            Fenced: its log or trail is not a copy of the active centre's.
        """
        self.bus = await self.engine.connect(User.GATEWAY, name="standby")
        stack.push_async_callback(self.bus.close)
        store = self.config.store
        await streams.ensure_ledger_and_audit(self.bus, store, audit_ttl_h=self.config.audit.ttl_h)
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
        links.answer({"lease": self._answer_lease})
        admission = NodeAdmission(site, members, links)
        states = NodeMonitor(JetStreamLog(self.bus), admission.divisions, admission.connected, self.clock)
        await callout.start([admission.guest_of])
        stack.push_async_callback(callout.stop)
        _log.info("standing by", term=self.term.number, of=self.config.peer.url)
        try:
            term = await _first_result(
                self._await_decision(),
                self._replicate(),
                *(_without_result(work) for work in (*admission.tasks.values(), states.run, self.engine.wait_failed)),
            )
        except Fenced:
            await self._record_set_aside(aside)
            raise
        if term is None:
            raise Unavailable("a part of the standby has ended")
        return term

    async def _bucket(self, name: str) -> KvBucket:
        return await KvBucket.open(self.bus, name, bytes_max=self.config.store.registry_bytes)

    # ── who is active ───────────────────────────────────────────────────────────────────────────────

    async def _answer_lease(self, division: str, payload: bytes) -> bytes:
        request = terms.decode_lease_request(payload)
        is_peer, voter = division == self.config.division, request.voter(division)
        if is_peer:
            self._known = max(self._known, request.term)
        else:
            self._note_reported(voter, request)
        if any(voter in voters.nodes for voters in self._voters):
            # Others do not count, and a node may send as many generations as it likes.
            self.votes.add(voter, request.granted_here, self.clock.monotonic())
        version = self._voters[-1].version
        state = CentreState(
            active=False,
            # What only nodes report must not end the other centre's term: that takes more than one of them.
            term=self._known if is_peer else self._seen,
            is_candidate=self._is_candidate(),
            proposed_term=self._proposed_term,
            voters_version=version,
        )
        return terms.encode(state)

    def _note_reported(self, voter: str, request: LeaseRequest) -> None:
        """Record the terms that a node reports. Raises `PermissionDenied` where they are implausible."""
        for reports, term in ((self._reported, request.term), (self._granted, request.granted_elsewhere)):
            if not reports.add(voter, term, self._voters[-1], self._known):
                raise PermissionDenied(
                    f"lease: term {term} is implausible: the highest known one is {self._known}, and no majority of "
                    "the nodes reports as much"
                )

    @property
    def _seen(self) -> int:
        """Highest term that may have begun."""
        return max(self._known, self._reported.highest)

    @property
    def _voters(self) -> tuple[VoterConfiguration, ...]:
        return self.term.voters or (VoterConfiguration(nodes=tuple(node.division for node in self.config.nodes)),)

    @property
    def _proposed_term(self) -> int:
        """Term that would begin here: later than every term that has begun or was granted."""
        return max(self._seen, self._granted.highest, self.term.number) + 1

    def _is_candidate(self) -> bool:
        """Return whether this centre takes over if the nodes grant it."""
        is_whole = self._replica is not None and not (self._missing or self._replica.term.partial)
        has_copy = is_whole and self._voters[-1].version != INITIAL_VERSION
        was_active = self.term.active and self._seen <= self.term.number
        return (
            self.config.peer.automatic
            and not self._reached
            and self.clock.monotonic() - self._lost_at >= self.config.peer.lease_s
            and (has_copy or was_active)
        )

    async def _await_decision(self) -> tuple[Term, str]:
        order = self.directory / PROMOTE
        while True:
            await asyncio.to_thread(self._write_status)
            if await asyncio.to_thread(order.exists):
                await asyncio.to_thread(order.unlink)
                # Not the term that nodes may be granting to the other centre at this moment.
                return await self._begin_term(self._proposed_term + self.config.peer.automatic), "by order"
            proposed = self._proposed_term
            if self._is_candidate() and self.votes.has_majority(proposed, self._voters, self.clock.monotonic()):
                return await self._begin_term(proposed), "granted by a majority of the nodes"
            await self.clock.sleep(POLL_S)

    async def _begin_term(self, number: int) -> Term:
        """Return a term that begins with the present copy."""
        past = self._replica.term if self._replica else self.term
        end = await self._replica.seal() if self._replica else await self._log_end()
        sums = await self._sums.position()
        if sums and not sums.epoch:
            # Some hours are newer than others: all are counted again, as far as the log goes back.
            _log.warning("hourly sums are recounted from the log", reason="they were copied only in part")
            await api.request(self.bus, f"$JS.API.STREAM.PURGE.{streams.LEDGER}")
        return Term(
            number, active=True, unreplicated=True, history=(*past.history, (number, end)), voters=self.term.voters
        )

    async def _log_end(self) -> int:
        """Return the last sequence of our log; 0: there is none."""
        try:
            return (await JetStreamLog(self.bus).bounds())[1]
        except NotFound:
            return 0

    def _write_status(self) -> None:
        behind = self._replica.behind if self._replica else -1
        is_partial = (self._replica.term if self._replica else self.term).partial
        missing = tuple(sorted(self._missing | ({LOG} if is_partial else set())))
        status = StandbyStatus(os.getpid(), self._seen, self._reached, behind, missing, time.time())
        fresh = self.directory / f"{STATUS}.new"
        fresh.write_bytes(msgspec.json.encode(status))
        fresh.replace(self.directory / STATUS)

    # ── replication ────────────────────────────────────────────────────────────────────────────────────

    async def _replicate(self) -> tuple[Term, str]:
        """Copy from the active centre, and try again while it is not reached.

        Return our own last term where no centre is active: it is resumed. Raises `Fenced`.
        """
        while True:
            try:
                link = await connect_peer(self.config)
                try:
                    state = await self._fetch_state(link)
                    if not state.active and self._may_resume():
                        return self.term, ""
                    await self._replicate_from(link, state)
                finally:
                    await link.close()
            except (Unavailable, PermissionDenied, StoreFull) as why:
                if self._reached:
                    _log.warning("active centre not reached", reason=str(why))
                    self._lost_at = self.clock.monotonic()
                self._reached = False
            await self.clock.sleep(POLL_S)

    def _may_resume(self) -> bool:
        """Return whether our own last term goes on, where the other centre was met and is not active.

        A later term is on the disk of one of the two centres: a single node that reports one holds nothing up.
        """
        is_newest = self.term.number >= self._known
        is_own = self.term.active and not self.term.lapsed
        return is_own and is_newest and not self._reported.is_majority_beyond(self.term.number, self._voters[-1])

    async def _fetch_state(self, link: CentreLink) -> CentreState:
        """Return the state of the other centre, and adopt its voter configuration.

        Raises `Unavailable`, `PermissionDenied`.
        """
        request = msgspec.structs.replace(peer_request(self.term), term=self._known)
        try:
            state = terms.decode_state(await ask_peer(link, "lease", terms.encode(request)))
        except msgspec.DecodeError as why:
            raise Unavailable(f"the other centre's answer cannot be read: {why}") from why
        self._known = max(self._known, state.term)
        if state.active and state.voters and state.voters.version > self._voters[-1].version:
            await self._store_term(voters=(state.voters,))
        return state

    async def _store_term(self, **learnt: Any) -> None:
        """Store fields of `Term` learnt from an active centre."""
        async with self._keeping:
            fresh = msgspec.structs.replace(self.term, active=False, unreplicated=False, lapsed=False, **learnt)
            self.term = msgspec.structs.replace(fresh, number=self._known)
            await asyncio.to_thread(terms.write, self.directory, self.term)

    async def _replicate_from(self, link: CentreLink, state: CentreState) -> None:
        if not state.active:
            raise Unavailable("the other centre is not active either; promote one of them")
        ask = partial(ask_peer, link)
        if self._replica is None:
            self._replica = Replica(await self._open_log(ask), self.config.store, self.clock, self.term)
        await self._report_set_aside(ask)
        await _first_result(
            self._copy_log(self._replica, ask),
            self._copy_registries(ask),
            self._copy_trail(ask),
            self._copy_sums(self._replica, ask),
            self._watch_active(link),
        )

    async def _open_log(self, ask: _Ask) -> JetStreamLog:
        """Open our copy of the log; create it where there is none."""
        active = await log_of(ask)
        await streams.ensure(self.bus, streams.log_stream(self.config.store, active.first, active.log_epoch))
        own = JetStreamLog(self.bus, room=self.engine.has_room)
        await own.open(self.directory)
        if own.epoch != active.log_epoch:
            raise Fenced(f"our log has the epoch {own.epoch}, that of the active centre {active.log_epoch}")
        return own

    async def _copy_log(self, replica: Replica, ask: _Ask) -> None:
        while True:
            before = replica.term
            await replica.copy_next(ask, self._known)
            if (after := replica.term) is not before:
                await self._store_term(history=after.history, partial=after.partial)
            self._reached = True

    async def _watch_active(self, link: CentreLink) -> None:
        while (await self._fetch_state(link)).active:
            await self.clock.sleep(POLL_S)
        raise Unavailable("the other centre is no longer active")

    async def _copy_trail(self, ask: _Ask) -> None:
        """Copy the audit trail."""
        while True:
            try:
                count = await self._trail.copy_next(ask)
            except PermissionDenied as why:
                _log.debug("trail not copied yet", reason=str(why))
                count = 0
            else:
                if not count:
                    self._missing.discard(TRAIL)
            await self.clock.sleep(0 if count else POLL_S / 10)

    async def _copy_sums(self, replica: Replica, ask: _Ask) -> None:
        """Copy the hourly sums."""
        while True:
            try:
                more = await self._sums.copy_next(ask, replica.epoch, await replica.end())
            except PermissionDenied as why:
                _log.debug("hourly sums not copied yet", reason=str(why))
                more = False
            await self.clock.sleep(0 if more else POLL_S)

    async def _copy_registries(self, ask: _Ask) -> None:
        while True:
            try:
                names = _read_answer(_names, await ask("buckets", b""))
            except PermissionDenied as why:
                _log.debug("registries not copied yet", reason=str(why))
                await self.clock.sleep(POLL_S)
                continue
            for name in names:
                await self._copy_registry(name, ask)
            self._missing.discard(REGISTRIES)
            await self.clock.sleep(POLL_S)

    async def _copy_registry(self, name: str, ask: _Ask) -> None:
        if name not in self._copied:
            own = await self._bucket(name)
            present, _ = await own.load_all()
            self._copied[name] = own, 0, {row.key: row.value for row in present if row.value is not None}
        own, after, values = self._copied[name]
        unseen = set() if after else set(values)
        while True:
            rows, revision = _read_answer(_rows, await ask("rows", msgspec.msgpack.encode((name, after))))
            for key, value in rows:
                unseen.discard(key)
                if value is None:
                    if values.pop(key, None) is not None:
                        await own.delete(key)
                elif values.get(key) != value:
                    await own.put(key, value)
                    values[key] = value
            after = revision
            if not rows:
                break
        for key in unseen:
            # Deleted while we were away, longer ago than deletions are remembered.
            await own.delete(key)
            del values[key]
        self._copied[name] = own, after, values

    # ── stores that are set aside ─────────────────────────────────────────────────────────────────────────────

    async def _record_set_aside(self, aside: Path) -> None:
        """Record which entries the active centre never had, before the store is set aside."""
        last, active, after, records = await self._log_end(), None, 0, list[bytes]()
        try:
            link = await connect_peer(self.config)
            try:
                ask = partial(ask_peer, link)
                active = await log_of(ask)
                after, records = await trail_copy.divergent_tail(self._audit, ask)
            finally:
                await link.close()
        except (Unavailable, PermissionDenied) as why:
            _log.warning("entries only in the store set aside are not known exactly", reason=str(why))
        store = SetAsideStore(
            aside.name,
            self.term.number,
            min(last, self._common_end(active)) if active else 0,
            last,
            after,
            after + len(records),
            digest(records[-1]) if records else "",
        )
        await asyncio.to_thread(_write_set_aside, self.directory, aside, store, records)

    def _common_end(self, active: LogChunk) -> int:
        """Return the last sequence up to which our log can be a copy of the active centre's."""
        history = self.term.history
        known = history[-1][0] if history else 0
        return min([active.last, *(began for term, began in active.history if term > known)])

    async def _report_set_aside(self, ask: _Ask) -> None:
        """Have the active centre record on its trail that a store was set aside here."""
        file = self.directory / SET_ASIDE_FILE
        if not await asyncio.to_thread(file.exists):
            return
        store = msgspec.json.decode(await asyncio.to_thread(file.read_bytes), type=SetAsideStore)
        try:
            await ask("aside", trail_copy.encode_set_aside(store))
        except PermissionDenied as why:
            _log.debug("store set aside not recorded on the trail yet", reason=str(why))
            return
        await asyncio.to_thread(file.rename, self.directory / store.directory / SET_ASIDE_FILE)


def _write_set_aside(directory: Path, aside: Path, store: SetAsideStore, records: list[bytes]) -> None:
    aside.mkdir(mode=0o700, exist_ok=True)
    write_private(aside / TAIL_FILE, b"".join(record + b"\n" for record in records).decode())
    write_private(directory / SET_ASIDE_FILE, msgspec.json.encode(store).decode())
