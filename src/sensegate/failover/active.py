"""The active one of two centres: its right to be, what the other one copies of it, and what it may deliver.

nodes, the other centre ── ask ``lease`` ─▶ Seat: the lease (`failover/lease.py`), who votes from now on
the other centre ── ask ``log``, ``buckets``, ``rows``, ``trail``, ``hours`` ─▶ Seat: log, registries, trail, sums
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
import structlog

from sensegate.authority.audit import Audit
from sensegate.authority.chain import ASIDE
from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus import trust
from sensegate.bus.connect import connect
from sensegate.bus.kv import Bucket
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import Clock, moved
from sensegate.config import Config, read_secret
from sensegate.errors import NotFound, Overloaded, PermissionDenied, StoreFull, Superseded, Unavailable
from sensegate.failover import ledger_copy, terms, trail_copy
from sensegate.failover.lease import INITIAL_VERSION, Lease, LeaseRequest
from sensegate.failover.replica import ReplicatedLog, ReplicationSource, decode_log_request
from sensegate.failover.terms import LONG_POLL_S, CentreState, Term
from sensegate.ports import Log
from sensegate.tiers import questions
from sensegate.tiers.link import CentreLink, connection_name

PROBE_S = 2.0
TICK_S = 0.2
ASK_S = 3.0
PING_S = 2.0
ROWS_MAX = 500
_log = structlog.get_logger("sites")


# ── the other centre ────────────────────────────────────────────────────────────────────────────────────


async def reach(config: Config) -> CentreLink:
    """Return a link to the other centre, in whose server the slot of a peer bears the code of the province.

    Raises:
        Unavailable, PermissionDenied, ConfigError: there is none.
    """
    peer, slot = config.peer, config.division
    tls = trust.context(
        "peer", ca_file=peer.ca_file, pins=peer.pin_sha256, cert_file=peer.cert_file, key_file=peer.key_file
    )
    connection = await connect(
        peer.url,
        node_user(slot),
        read_secret(peer.secret_file),
        inbox_prefix=inbox_prefix(slot),
        name=connection_name("centre", config.division),
        tls=tls if peer.url.startswith("tls://") else None,
        ping_s=PING_S,
        reconnect_timeout_s=PING_S,
    )
    return CentreLink(connection, slot=slot, member=slot)


async def asked(link: CentreLink, question: str, payload: bytes = b"") -> bytes:
    """Return the other centre's answer. Raises `Unavailable`, `PermissionDenied`."""
    try:
        return await link.ask(question, payload, ASK_S)
    except Overloaded as why:
        raise Unavailable(f"the other centre does not answer '{question}' now") from why


async def state_of(config: Config, term: Term) -> CentreState | None:
    """Return how the other centre is; None where it cannot be reached."""
    try:
        async with asyncio.timeout(ASK_S):
            link = await reach(config)
            try:
                return await told(link, plea_of(term))
            finally:
                await link.close()
    except (Unavailable, PermissionDenied, TimeoutError) as why:
        _log.debug("the other centre is not reached", why=str(why))
        return None


def plea_of(term: Term) -> LeaseRequest:
    """Return what one centre tells the other."""
    return LeaseRequest(term.number, voters_version=term.voters[-1].version if term.voters else INITIAL_VERSION)


async def told(link: CentreLink, plea: LeaseRequest) -> CentreState:
    """Return how the other centre is. Raises `Unavailable`, `PermissionDenied`."""
    try:
        return terms.decode_state(await asked(link, "lease", terms.encode(plea)))
    except msgspec.DecodeError as why:
        raise Unavailable(f"the other centre's answer cannot be read: {why}") from why


# ── a seat ──────────────────────────────────────────────────────────────────────────────────────────────


class Activation(msgspec.Struct, frozen=True):
    """The decision that this centre is active, in a term."""

    term: Term
    begun: str = ""
    """How the term began just now; empty: it is continued."""


class SeatStores(msgspec.Struct, frozen=True, eq=False):
    """What the standby copies of the active centre."""

    log: Log
    hours: Log
    buckets: Mapping[str, Bucket]
    """Open buckets of registries, by name."""
    audit: Audit


class Seat:
    """The right to be active in a term, and what goes with it while the gateway runs."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        activation: Activation,
        stores: SeatStores,
        *,
        joined: Callable[[], Collection[str]],
    ) -> None:
        """`joined` returns the nodes that joined and may write here, as they vote."""
        self.config = config
        self.clock = clock
        self.kept = activation.term
        """As it is on the disk."""
        self.term = activation.term.number
        self.original = ReplicationSource(
            stores.log,
            clock,
            config.peer.standby_timeout_s,
            self.kept.history,
            alone=self.kept.unreplicated,
            permitted=self._may_alone,
        )
        self.delivered: Log = ReplicatedLog(stores.log, self.original, clock)
        """The log as far as it may be delivered."""
        self.lease = Lease(self.term, secrets.randbits(62) + 1, config.peer.lease_s, self.kept.voters)
        self._stores = stores
        self._joined = joined
        self._configured = [node.division for node in config.nodes]
        self._begun = activation.begun
        self._ready = False
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._look = asyncio.Event()
        """Set when the other centre should be looked at before its turn."""
        self._later: set[str] = set()
        """Who has told of a later term."""
        self._why = ""
        self._by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")

    async def begin(self) -> None:
        """Let the standby copy, and put on the trail that a term has begun. Raises as `Audit.record` does."""
        audit = self._stores.audit
        await self._turn()
        self._ready = True
        if self._begun:
            began = {"term": self.term, "log": self.kept.history[-1][1], "trail": (await audit.head()).number}
            try:
                await audit.record(self._by, "centre.active", self.config.division, after={**began, "how": self._begun})
            except StoreFull as why:
                _log.error("begin of a term not recorded on the trail", reason=str(why), **began)

    @property
    def answers(self) -> dict[str, questions.Answer]:
        """What nodes and the other centre may ask."""
        copied: dict[str, questions.Answer] = {
            "log": self._log,
            "buckets": self._names,
            "rows": self._some,
            "trail": self._trail,
            "hours": self._sums,
            "aside": self._aside,
        }
        return {"lease": self._lease, **{what: self._only_peer(answer) for what, answer in copied.items()}}

    # ── the lease ───────────────────────────────────────────────────────────────────────────────────

    async def _lease(self, division: str, payload: bytes) -> bytes:
        plea = terms.decode_lease_request(payload)
        peer = division == self.config.division
        if plea.term > self.term:
            self._hear_of_later(plea.voter(division), plea.term, peer=peer)
        if peer:
            self.lease.confirm_peer(plea.voters_version)
        else:
            self.lease.take_request(plea.voter(division), plea)
        if plea.long_poll and self._knows(plea):
            await moved(self._news, self.clock, LONG_POLL_S)
        voters = self.kept.voters[-1] if self.kept.voters else None
        return terms.encode(
            CentreState(
                not self._over.is_set(),
                self.term,
                self._alone,
                voters_version=voters.version if voters else INITIAL_VERSION,
                stamp=(self.lease.lease_id, self.clock.monotonic()),
                lease_s=self.config.peer.lease_s,
                voters=voters if peer else None,
            )
        )

    def _hear_of_later(self, voter: str, term: int, *, peer: bool) -> None:
        """End when another centre has begun a later term; a single node that says so may lie, and is only looked into.

        The other centre is asked at once; where it cannot be reached, more than half of the nodes are believed.
        """
        self._later.add(voter)
        nodes = {*self._configured, *self._joined()}
        if peer or len(self._later & nodes) * 2 > len(nodes):
            self._end(f"{voter} has met a centre of term {term}, this one is of {self.term}")
        else:
            self._look.set()

    def current_term(self) -> int | None:
        """Return the term in which this centre answers; None where it must be silent, for another one is active."""
        return None if self._over.is_set() else self.term

    def _knows(self, plea: LeaseRequest) -> bool:
        version = self.kept.voters[-1].version if self.kept.voters else INITIAL_VERSION
        known = (
            plea.stamp[0] == self.lease.lease_id and plea.voters_version == version and plea.unreplicated == self._alone
        )
        return known and not self._over.is_set()

    @property
    def _alone(self) -> bool:
        """Whether nodes are told that we deliver alone: before we do, and until it is on the disk that we do not."""
        return self.original.unreplicated or self.kept.unreplicated

    def _may_alone(self) -> bool:
        """Return whether what the other centre has not may be delivered: it cannot have been granted, and will not."""
        if not self.config.peer.automatic:
            return True
        told_all = self._ready and self.kept.unreplicated and self.lease.is_unreplicated_known()
        return told_all and self.lease.is_held(self.clock.monotonic())

    def _end(self, why: str) -> None:
        if not self._over.is_set():
            self._why = why
            self._over.set()
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """See that the seat is ours, until cancelled. Raises `Superseded`."""
        began = self.clock.monotonic()
        probe = asyncio.create_task(self._probe(), name="the other centre")
        try:
            while not self._over.is_set():
                await self._turn()
                await self._demand_majority(began)
                await moved(self._over, self.clock, TICK_S)
            await self._keep(msgspec.structs.replace(self.kept, active=False))
            raise Superseded(self._why)
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)

    async def _probe(self) -> None:
        while True:
            state = await state_of(self.config, self.kept)
            if state and state.term > self.term:
                self._end(f"the other centre is of term {state.term}, this one is of {self.term}")
            self._look.clear()
            await moved(self._look, self.clock, PROBE_S)

    async def _keep(self, term: Term) -> None:
        await asyncio.to_thread(terms.write, Path(self.config.directory), term)
        self.kept = term

    async def _turn(self) -> None:
        """Have it on the disk whether we are alone and who votes; only then it is so."""
        alone, now_s = self.original.unreplicated, self.clock.monotonic()
        voters = self.lease.voters
        if self.config.peer.automatic:
            voters = self.lease.next_voters(self._configured, self._joined(), now_s)
        wanted = msgspec.structs.replace(self.kept, unreplicated=alone, voters=voters, lapsed=False)
        if wanted == self.kept:
            return
        if alone != self.kept.unreplicated:
            _log.warning("delivering without the standby" if alone else "the standby confirms again")
        if voters[-1:] != self.kept.voters[-1:]:
            _log.info("who votes has changed", voters=voters[-1].nodes, version=voters[-1].version)
        if not alone:
            self.lease.clear_unreplicated()
        # A newer electorate binds us before anybody hears of it, an older one until the disk says that it is over.
        self.lease.voters = (*self.lease.voters, *(one for one in voters if one not in self.lease.voters))
        await self._keep(wanted)
        self.lease.voters = voters
        self._tell()

    async def _demand_majority(self, began: float) -> None:
        """Return while enough nodes count for us. Raises `Superseded`."""
        peer, now_s = self.config.peer, self.clock.monotonic()
        if not peer.automatic or now_s - began < 2 * peer.lease_s or self.lease.is_held(now_s):
            return
        await self._keep(msgspec.structs.replace(self.kept, lapsed=True))
        here, all_ = len(self.lease.present_nodes(now_s)), len(self.kept.voters[-1].nodes)
        raise Superseded(f"{here} of {all_} nodes have been here lately: another centre may have been granted")

    # ── what is copied ──────────────────────────────────────────────────────────────────────────────

    def _only_peer(self, answer: questions.Answer) -> questions.Answer:
        async def checked(division: str, payload: bytes) -> bytes:
            if division != self.config.division:
                raise PermissionDenied("this is for the other centre")
            return await answer(division, payload)

        return checked

    async def _log(self, _division: str, payload: bytes) -> bytes:
        wanted = decode_log_request(payload)
        if wanted.term > self.term:
            self._end(f"the other centre is of term {wanted.term}, this one is of {self.term}")
            raise PermissionDenied("not active any more")
        return await self.original.answer_log(wanted)

    async def _names(self, _division: str, _payload: bytes) -> bytes:
        return msgspec.msgpack.encode(sorted(self._stores.buckets))

    async def _some(self, _division: str, payload: bytes) -> bytes:
        name, after = msgspec.msgpack.decode(payload, type=tuple[str, int])
        if name not in self._stores.buckets:
            raise NotFound(f"no bucket {name}")
        rows = await self._stores.buckets[name].changes(after, limit=ROWS_MAX)
        rows = questions.fit_chunk(rows, lambda row: len(row.key) + len(row.value or b""))
        return msgspec.msgpack.encode(([(row.key, row.value) for row in rows], rows[-1].revision if rows else after))

    async def _trail(self, _division: str, payload: bytes) -> bytes:
        self._demand_ready()
        return await trail_copy.answer_trail(self._stores.audit, payload)

    async def _sums(self, _division: str, payload: bytes) -> bytes:
        self._demand_ready()
        return await ledger_copy.answer_sums(self._stores.hours, payload)

    async def _aside(self, _division: str, payload: bytes) -> bytes:
        """Put on the trail what the other centre had to set aside."""
        self._demand_ready()
        facts = msgspec.to_builtins(trail_copy.decode_set_aside(payload))
        _log.warning("the other centre has set aside what was never here", **facts)
        await self._stores.audit.record(self._by, ASIDE, self.config.division, after=facts)
        return b""

    def _demand_ready(self) -> None:
        if not self._ready:
            raise PermissionDenied("still starting; ask again")
