"""The active one of two centres: its leadership of a term, what the standby copies of it, and what it may deliver.

nodes, the other centre ── ask ``lease`` ─▶ Leadership: the lease and the voters (`failover/lease.py`)
the other centre ── ask ``log``, ``buckets``, ``rows``, ``trail``, ``hours`` ─▶ Leadership: log, registries, trail, sums
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
from sensegate.bus.connect import LinkOptions, Login, connect
from sensegate.bus.contract import Log
from sensegate.bus.kv import KvBucket
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import Clock, wait_or_sleep
from sensegate.config import Config, read_secret
from sensegate.errors import ConfigError, NotFound, Overloaded, PermissionDenied, StoreFull, Superseded, Unavailable
from sensegate.failover import ledger_copy, terms, trail_copy
from sensegate.failover.lease import INITIAL_VERSION, Lease, LeaseRequest
from sensegate.failover.replica import ReplicatedLog, ReplicationSource, decode_log_request
from sensegate.failover.terms import LONG_POLL_S, CentreState, Term
from sensegate.tiers import questions
from sensegate.tiers.link import CentreLink, connection_name

PROBE_S = 2.0
TICK_S = 0.2
REQUEST_TIMEOUT_S = 3.0
PING_S = 2.0
ROWS_MAX = 500
_log = structlog.get_logger("failover")


# ── the other centre ────────────────────────────────────────────────────────────────────────────────────


async def connect_peer(config: Config) -> CentreLink:
    """Connect to the other centre, at whose server the slot of the peer is named by the code of the province.

    Raises:
        Unavailable, PermissionDenied, ConfigError: there is no connection.
    """
    peer, slot = config.peer, config.division
    tls = trust.client_context(
        "peer", ca_file=peer.ca_file, pins=peer.pin_sha256, cert_file=peer.cert_file, key_file=peer.key_file
    )
    connection = await connect(
        peer.url,
        Login(node_user(slot), read_secret(peer.secret_file), inbox_prefix(slot)),
        name=connection_name("centre", config.division),
        tls=tls if peer.url.startswith("tls://") else None,
        link_options=LinkOptions(ping_s=PING_S, reconnect_timeout_s=PING_S),
    )
    return CentreLink(connection, slot=slot, member=slot)


async def ask_peer(link: CentreLink, question: str, payload: bytes = b"") -> bytes:
    """Return the other centre's answer. Raises `Unavailable`, `PermissionDenied`."""
    try:
        return await link.ask(question, payload, REQUEST_TIMEOUT_S)
    except Overloaded as why:
        raise Unavailable(f"the other centre does not answer '{question}' now") from why


async def peer_state(config: Config, term: Term) -> CentreState | None:
    """Return the state of the other centre; None where it cannot be reached."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            link = await connect_peer(config)
            try:
                return await fetch_state(link, peer_request(term))
            finally:
                await link.close()
    except (Unavailable, PermissionDenied, TimeoutError) as why:
        _log.debug("other centre not reached", reason=str(why))
        return None


def peer_request(term: Term) -> LeaseRequest:
    """Return the lease request of one centre to the other."""
    return LeaseRequest(term.number, voters_version=term.voters[-1].version if term.voters else INITIAL_VERSION)


async def fetch_state(link: CentreLink, request: LeaseRequest) -> CentreState:
    """Return the state of the other centre. Raises `Unavailable`, `PermissionDenied`."""
    try:
        return terms.decode_state(await ask_peer(link, "lease", terms.encode(request)))
    except msgspec.DecodeError as why:
        raise Unavailable(f"the other centre's answer cannot be read: {why}") from why


# ── leadership ──────────────────────────────────────────────────────────────────────────────────────────────


class Activation(msgspec.Struct, frozen=True):
    """The decision that this centre is active, in a term."""

    term: Term
    begun: str = ""
    """Reason why the term has begun; empty: an earlier term is resumed."""


class ReplicatedStores(msgspec.Struct, frozen=True, eq=False):
    """Stores of the active centre that the standby copies."""

    log: Log
    hours: Log
    buckets: Mapping[str, KvBucket]
    """Open buckets of registries, by name."""
    audit: Audit


class Leadership:
    """Leadership of the active centre in its term, while the gateway runs."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        activation: Activation,
        stores: ReplicatedStores,
        *,
        joined: Callable[[], Collection[str]],
    ) -> None:
        """Take up the leadership of a term.

        Args:
            config: of this gateway.
            clock: source of time.
            activation: the term.
            stores: that the standby copies.
            joined: returns the voter ids of the nodes that joined and have a valid credential.
        """
        self.config = config
        self.clock = clock
        self.stored_term = activation.term
        """The term as stored on the disk."""
        self.term = activation.term.number
        self.source = ReplicationSource(
            stores.log,
            clock,
            config.peer.standby_timeout_s,
            self.stored_term.history,
            unreplicated=self.stored_term.unreplicated,
            permitted=self._may_deliver_unreplicated,
        )
        self.delivered: Log = ReplicatedLog(stores.log, self.source, clock)
        """The log as far as it may be delivered."""
        self.lease = Lease(self.term, secrets.randbits(62) + 1, config.peer.lease_s, self.stored_term.voters)
        self._stores = stores
        self._joined = joined
        self._configured = [node.division for node in config.nodes]
        self._begun = activation.begun
        self._ready = False
        self._news = asyncio.Event()
        self._lost = asyncio.Event()
        self._probe_now = asyncio.Event()
        """Set when the other centre must be probed at once."""
        self._reporting_later_term: set[str] = set()
        """Voters that have reported a later term."""
        self._lost_reason = ""
        self._by = Principal("gateway", Role.ADMIN, scope(config.division), name="the gateway itself")

    async def begin(self) -> None:
        """Start to serve the standby, and record the begin of a term on the trail. Raises as `Audit.record`."""
        audit = self._stores.audit
        await self._persist_state()
        self._ready = True
        if self._begun:
            began = {"term": self.term, "log": self.stored_term.history[-1][1], "trail": (await audit.head()).number}
            try:
                await audit.record(self._by, "centre.active", self.config.division, after={**began, "how": self._begun})
            except StoreFull as why:
                _log.error("begin of a term not recorded on the trail", reason=str(why), **began)

    @property
    def answers(self) -> dict[str, questions.Answer]:
        """Question of nodes and of the other centre -> its handler."""
        for_peer: dict[str, questions.Answer] = {
            "log": self._answer_log,
            "buckets": self._answer_buckets,
            "rows": self._answer_rows,
            "trail": self._answer_trail,
            "hours": self._answer_sums,
            "aside": self._answer_set_aside,
        }
        guarded = {question: self._only_peer(answer) for question, answer in for_peer.items()}
        return {"lease": self._answer_lease, **guarded}

    # ── the lease ───────────────────────────────────────────────────────────────────────────────────

    async def _answer_lease(self, division: str, payload: bytes) -> bytes:
        request = terms.decode_lease_request(payload)
        is_peer, voter = division == self.config.division, request.voter(division)
        if request.term > self.term:
            self._note_later_term(voter, request.term, is_peer=is_peer)
        if is_peer:
            self.lease.confirm_peer(request.voters_version)
        elif voter in self._nodes() or any(voter in voters.nodes for voters in self.lease.voters):
            # Others do not count, and a node may send as many generations as it likes.
            self.lease.take_request(voter, request)
        if request.long_poll and self._is_up_to_date(request):
            await wait_or_sleep(self._news, self.clock, LONG_POLL_S)
        voters = self.stored_term.voters[-1] if self.stored_term.voters else None
        return terms.encode(
            CentreState(
                not self._lost.is_set(),
                self.term,
                self._unreplicated,
                voters_version=voters.version if voters else INITIAL_VERSION,
                stamp=(self.lease.lease_id, self.clock.monotonic()),
                lease_s=self.config.peer.lease_s,
                voters=voters if is_peer else None,
            )
        )

    def _note_later_term(self, voter: str, term: int, *, is_peer: bool) -> None:
        """Lose the leadership to a later term; the report of a single node, which may be false, only starts a probe.

        The other centre is probed at once; where it cannot be reached, the reports of a majority of the nodes count.
        """
        nodes = self._nodes()
        if voter in nodes:
            self._reporting_later_term.add(voter)
        if is_peer or len(self._reporting_later_term & nodes) * 2 > len(nodes):
            self._lose(f"{voter} has met a centre of term {term}, this one is of {self.term}")
        else:
            self._probe_now.set()

    def _nodes(self) -> set[str]:
        """Return the nodes that may vote."""
        return {*self._configured, *self._joined()}

    def current_term(self) -> int | None:
        """Return the term in which this centre answers; None where it must be silent because another one is active."""
        return None if self._lost.is_set() else self.term

    def _is_up_to_date(self, request: LeaseRequest) -> bool:
        """Return whether the sender of a request knows our present state."""
        version = self.stored_term.voters[-1].version if self.stored_term.voters else INITIAL_VERSION
        is_known = (
            request.stamp[0] == self.lease.lease_id
            and request.voters_version == version
            and request.unreplicated == self._unreplicated
        )
        return is_known and not self._lost.is_set()

    @property
    def _unreplicated(self) -> bool:
        """Unreplicated delivery as reported to nodes: from before it starts until its end is on the disk."""
        return self.source.unreplicated or self.stored_term.unreplicated

    def _may_deliver_unreplicated(self) -> bool:
        """Return whether unreplicated entries may be delivered: the other centre was not granted, and cannot be."""
        if not self.config.peer.automatic:
            return True
        is_announced = self._ready and self.stored_term.unreplicated and self.lease.is_unreplicated_known()
        return is_announced and self.lease.is_held(self.clock.monotonic())

    def _lose(self, reason: str) -> None:
        if not self._lost.is_set():
            self._lost_reason = reason
            self._lost.set()
            self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Watch the leadership until cancelled. Raises `Superseded` when it is lost."""
        began = self.clock.monotonic()
        probe = asyncio.create_task(self._probe(), name="the other centre")
        try:
            while not self._lost.is_set():
                await self._persist_state()
                await self._require_majority(began)
                await wait_or_sleep(self._lost, self.clock, TICK_S)
            await self._store_term(msgspec.structs.replace(self.stored_term, active=False))
            raise Superseded(self._lost_reason)
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)

    async def _probe(self) -> None:
        while True:
            try:
                state = await peer_state(self.config, self.stored_term)
            except ConfigError as why:  # e.g. a secret or a certificate that is being replaced
                _log.warning("other centre not asked; trying again", reason=str(why))
                state = None
            if state and state.term > self.term:
                self._lose(f"the other centre is of term {state.term}, this one is of {self.term}")
            self._probe_now.clear()
            await wait_or_sleep(self._probe_now, self.clock, PROBE_S)

    async def _store_term(self, term: Term) -> None:
        await asyncio.to_thread(terms.write, Path(self.config.directory), term)
        self.stored_term = term

    async def _persist_state(self) -> None:
        """Store whether delivery is unreplicated and who votes, before either takes effect."""
        unreplicated, now_s = self.source.unreplicated, self.clock.monotonic()
        voters = self.lease.voters
        if self.config.peer.automatic:
            voters = self.lease.next_voters(self._configured, self._joined(), now_s)
        term = msgspec.structs.replace(self.stored_term, unreplicated=unreplicated, voters=voters, lapsed=False)
        if term == self.stored_term:
            return
        if unreplicated != self.stored_term.unreplicated:
            _log.warning("delivering without the standby" if unreplicated else "standby confirms again")
        if voters[-1:] != self.stored_term.voters[-1:]:
            _log.info("voter configuration changed", voters=voters[-1].nodes, version=voters[-1].version)
        if not unreplicated:
            self.lease.clear_unreplicated()
        # A newer configuration binds us before it is sent, an older one until its end is on the disk.
        added = tuple(configuration for configuration in voters if configuration not in self.lease.voters)
        self.lease.voters = (*self.lease.voters, *added)
        await self._store_term(term)
        self.lease.voters = voters
        self._notify()

    async def _require_majority(self, began: float) -> None:
        """Return while enough nodes count for this centre. Raises `Superseded`."""
        peer, now_s = self.config.peer, self.clock.monotonic()
        if not peer.automatic or now_s - began < 2 * peer.lease_s or self.lease.is_held(now_s):
            return
        await self._store_term(msgspec.structs.replace(self.stored_term, lapsed=True))
        present, total = len(self.lease.present_nodes(now_s)), len(self.stored_term.voters[-1].nodes)
        raise Superseded(f"{present} of {total} nodes were here recently: another centre may have been granted")

    # ── replication ──────────────────────────────────────────────────────────────────────────────

    def _only_peer(self, answer: questions.Answer) -> questions.Answer:
        async def checked(division: str, payload: bytes) -> bytes:
            if division != self.config.division:
                raise PermissionDenied("only the other centre may ask this")
            return await answer(division, payload)

        return checked

    async def _answer_log(self, _division: str, payload: bytes) -> bytes:
        request = decode_log_request(payload)
        if request.term > self.term:
            self._lose(f"the other centre is of term {request.term}, this one is of {self.term}")
            raise PermissionDenied("this centre is no longer active")
        return await self.source.answer_log(request)

    async def _answer_buckets(self, _division: str, _payload: bytes) -> bytes:
        self._require_ready()  # before, not all buckets are open
        return msgspec.msgpack.encode(sorted(self._stores.buckets))

    async def _answer_rows(self, _division: str, payload: bytes) -> bytes:
        name, after = msgspec.msgpack.decode(payload, type=tuple[str, int])
        if name not in self._stores.buckets:
            raise NotFound(f"there is no bucket {name}")
        rows = await self._stores.buckets[name].changes(after, limit=ROWS_MAX)
        rows = questions.fit_chunk(rows, lambda row: len(row.key) + len(row.value or b""))
        return msgspec.msgpack.encode(([(row.key, row.value) for row in rows], rows[-1].revision if rows else after))

    async def _answer_trail(self, _division: str, payload: bytes) -> bytes:
        self._require_ready()
        return await trail_copy.answer_trail(self._stores.audit, payload)

    async def _answer_sums(self, _division: str, payload: bytes) -> bytes:
        self._require_ready()
        return await ledger_copy.answer_sums(self._stores.hours, payload)

    async def _answer_set_aside(self, _division: str, payload: bytes) -> bytes:
        """Record on the trail a store that the other centre had to set aside."""
        self._require_ready()
        facts = msgspec.to_builtins(trail_copy.decode_set_aside(payload))
        _log.warning("other centre has set a store aside", **facts)
        await self._stores.audit.record(self._by, ASIDE, self.config.division, after=facts)
        return b""

    def _require_ready(self) -> None:
        if not self._ready:
            raise PermissionDenied("this centre is still starting; ask again")
