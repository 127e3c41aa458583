"""Sharing across the tiers: what a node offers stands in the centre's catalogue, and what is asked of it comes down.

    node:    published entries ─▶ offers, offer ─▶ centre: a feed ``<node>-<name>`` and its entry, with a code
    centre:  codes, applications, grants for the node's data ─▶ node: seen and decided there, too
    node:    decide, revoke ─▶ centre, which does it in the name of the node's level

The centre serves the data that it has; grants live there. Questions and answers go over the node's link (`bus.ask`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec
import structlog

from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand
from sensegate.authority.shelf import Records, Shelf
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, Lost, NotFound, Overloaded, Refused, StoreFull
from sensegate.share.applications import DAY_US, Application, Decision, State, demand_decider
from sensegate.share.catalogue import Catalogue, Entry, Promise, Sharing
from sensegate.share.desk import Desk
from sensegate.share.feeds import Feed, Feeds, check
from sensegate.share.grants import Grant, Grants, owns

EVERY_S = 2.0
MEASURE_S = 60.0
TOLD_DAYS = 30
TOLD_MAX = 400
LISTED_MAX = 100
"""Entries of one answer: far below what a message may hold, without their samples."""
NAME_MAX = 64

log = structlog.get_logger(__name__)
Record = TypeVar("Record", bound=msgspec.Struct)


class Have(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node offers, in short."""

    offers: dict[str, str] = {}
    """Name -> digest."""
    measured: dict[str, Promise] = {}
    seen: str = ""
    """Digest of what it was told last."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What concerns a node."""

    want: tuple[str, ...] = ()
    """Offers that the centre does not have as they are."""
    faults: dict[str, str] = {}
    """Offers that it does not take, and why."""
    catalogue: str = ""
    """Digest of what others share; another than the node has: it asks for it."""
    same: bool = False
    """All below is as it was told last."""
    codes: dict[str, str] = {}
    applications: tuple[Application, ...] = ()
    grants: tuple[Grant, ...] = ()


class After(msgspec.Struct, frozen=True):
    """Which part of the catalogue is wanted."""

    feed: str = ""


class Listed(msgspec.Struct, frozen=True):
    """A part of what others share, in order of feed; as long as there is one, another may follow."""

    entries: tuple[Entry, ...] = ()


class Offer(msgspec.Struct, frozen=True):
    """One feed with its entry."""

    feed: Feed
    entry: Entry


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody at a node decides."""

    target: str
    """Application or grant."""
    by: str
    decision: Decision | None = None
    """None: the grant is taken back."""
    reason: str = ""


class Done(msgspec.Struct, frozen=True):
    """What came of it."""

    application: Application | None = None
    grant: Grant | None = None


_encode = msgspec.msgpack.Encoder().encode
Ask = Callable[[str, bytes], Awaitable[bytes]]
"""(what, payload) -> the centre's answer. Raises `Lost`, `Refused`."""


def mirrored(division: str, name: str) -> str:
    """Return the name that a node's feed has at the centre."""
    return f"{division}-{name}"


def digest(record: object) -> str:
    """Return what tells two records apart."""
    return hashlib.blake2b(msgspec.json.encode(record, order="deterministic"), digest_size=16).hexdigest()


def bare(offer: Offer) -> Offer:
    """Return an offer without what each gateway keeps for itself."""
    entry = msgspec.structs.replace(offer.entry, code="", origin="", revision=0, measured=Promise())
    return Offer(msgspec.structs.replace(offer.feed, revision=0), entry)


class Distant:
    """What a node was told of applications and grants for its data at the centre."""

    def __init__(self, shelf: Shelf, feeds: Feeds, trail: Trail, ask: Ask, *, division: str) -> None:
        self._feeds = feeds
        self._trail = trail
        self._ask = ask
        self._division = division
        self.applications: Records[Application] = Records(shelf, "distant-application", Application)
        self.grants: Records[Grant] = Records(shelf, "distant-grant", Grant)
        self.entries: Records[Entry] = Records(shelf, "distant-entry", Entry)
        """What others share at the centre."""

    async def decide(self, principal: Principal, application: Application, decision: Decision) -> Application:
        """Have the centre approve or refuse an application for data of this node.

        Raises:
            Refused: not the caller's to decide, or the centre says no. Conflict, ConfigError. Lost: not decided.
        """
        demand_decider(principal, application)
        for name in application.asked.feeds:
            feed = self._feeds.find(name.removeprefix(f"{self._division}-"))
            if decision.approve and (feed is None or not owns(principal, feed)):
                raise Refused(f"feed '{name}' holds data outside your scope")
        if application.state is not State.PENDING:
            raise Conflict(f"application {application.id} is {application.state}")
        if not decision.approve and not decision.reason.strip():
            raise ConfigError("no reason", key="reason", remedy="say why it is refused")
        facts: Facts = {"approve": decision.approve, "at": "centre"}
        await self._trail.record(principal, "application.decide", application.id, after=facts)
        done = await self._done(Word(application.id, principal.id, decision))
        assert done.application is not None  # noqa: S101 - what the centre answers to a decision
        return await self.applications.put(application.id, done.application, expected=application.revision)

    async def revoke(self, principal: Principal, grant: Grant, reason: str) -> Grant:
        """Have the centre take back a grant for data of this node. Raises as `decide`."""
        demand(principal, Action.DECIDE_GRANTS, grant.level, grant.department)
        await self._trail.record(principal, "grant.revoke", grant.id, after={"reason": reason, "at": "centre"})
        done = await self._done(Word(grant.id, principal.id, reason=reason))
        assert done.grant is not None  # noqa: S101 - what the centre answers to a revocation
        return await self.grants.put(grant.id, done.grant, expected=grant.revision)

    async def _done(self, word: Word) -> Done:
        answer = await self._ask("word", _encode(word))
        return msgspec.msgpack.decode(answer, type=Done)


class Upward:
    """A node's offers to its centre."""

    def __init__(
        self,
        feeds: Feeds,
        catalogue: Catalogue,
        distant: Distant,
        ask: Ask,
        clock: Clock,
        *,
        measured: Callable[[Feed], Promise],
    ) -> None:
        self._feeds = feeds
        self._catalogue = catalogue
        self._distant = distant
        self._ask = ask
        self._clock = clock
        self._measured = measured
        self._seen = ""
        self._listed = ""
        self._means: dict[str, Promise] = {}
        self._due = 0.0
        self.faults: dict[str, str] = {}
        """Offers that the centre does not take, and why."""

    def troubles(self) -> list[str]:
        """Return what the centre does not take, a sentence each."""
        return [f"catalogue: the centre does not take '{name}': {why}" for name, why in sorted(self.faults.items())]

    async def run(self) -> None:
        """Offer and take what there is, until cancelled; a centre that does not answer is asked again."""
        while True:
            try:
                await self.turn()
            except (Lost, Refused, Conflict, StoreFull, msgspec.DecodeError) as why:
                log.debug("the catalogue goes up later", cause=str(why))
            await self._clock.sleep(EVERY_S)

    async def turn(self) -> None:
        """Do so once. Raises `Lost`, `Refused`."""
        offers = {one.feed.name: one for one in self._offers()}
        digests = {name: digest(one) for name, one in offers.items()}
        if (now := self._clock.monotonic()) >= self._due:
            self._due = now + MEASURE_S
            self._means = {name: self._measured(one.feed) for name, one in offers.items()}
        told = await self._told(Have(digests, self._means, self._seen))
        for name in told.want:
            if name in offers:
                await self._ask("offer", _encode(offers[name]))
        if told.want:
            told = await self._told(Have(digests, self._means, self._seen))
        if told.faults != self.faults:
            for name, why in told.faults.items():
                log.warning("the centre does not take an offer", feed=name, cause=why)
            self.faults = told.faults
        if told.catalogue != self._listed:
            await self._list()
            self._listed = told.catalogue
        if told.same:
            return
        for name, code in told.codes.items():
            entry = self._catalogue.find(name)
            if entry is not None and entry.code != code:
                await self._catalogue.records.put(
                    name, msgspec.structs.replace(entry, code=code), expected=entry.revision
                )
        await _keep(self._distant.applications, told.applications)
        await _keep(self._distant.grants, told.grants)
        self._seen = digest(msgspec.structs.replace(told, want=(), faults={}, catalogue=""))

    async def _list(self) -> None:
        """Take what others share."""
        entries: dict[str, Entry] = {}
        while True:
            after = max(entries, default="")
            part = msgspec.msgpack.decode(await self._ask("catalogue", _encode(After(after))), type=Listed).entries
            if not part:
                break
            entries |= {one.feed: one for one in part}
        kept = self._distant.entries
        for old in [one for one in kept if one.feed not in entries]:
            await kept.delete(old.feed, expected=old.revision)
        for name, entry in entries.items():
            before = kept.find(name)
            if before is None or msgspec.structs.replace(before, revision=0) != entry:
                await kept.put(name, entry, expected=before.revision if before else 0)

    async def _told(self, have: Have) -> Told:
        return msgspec.msgpack.decode(await self._ask("offers", _encode(have)), type=Told)

    def _offers(self) -> Iterable[Offer]:
        for feed in self._feeds:
            entry = self._catalogue.find(feed.name)
            if entry is not None and entry.published and not entry.origin:
                yield bare(Offer(feed, entry))


def _by_id(record: Application | Grant) -> str:
    return record.id


async def _keep(kept: Records[Record], told: Iterable[Record]) -> None:
    """Make the records those that were told."""
    new = {str(record.id): record for record in told}  # type: ignore[attr-defined]
    for old in list(kept):
        name = str(old.id)  # type: ignore[attr-defined]
        if name not in new:
            await kept.delete(name, expected=old.revision)  # type: ignore[attr-defined]
    for name, record in new.items():
        before = kept.find(name)
        revision = before.revision if before else 0  # type: ignore[attr-defined]
        if before is None or msgspec.structs.replace(before, revision=0) != msgspec.structs.replace(record, revision=0):
            await kept.put(name, record, expected=revision)


class Downward:
    """The centre's side: answers its nodes."""

    def __init__(
        self, feeds: Feeds, catalogue: Catalogue, grants: Grants, desk: Desk, *, trail: Trail, clock: Clock, home: str
    ) -> None:
        self._feeds = feeds
        self._catalogue = catalogue
        self._grants = grants
        self._desk = desk
        self._trail = trail
        self._clock = clock
        self._home = home
        self._faults: dict[str, dict[str, str]] = {}

    @property
    def answers(self) -> dict[str, Callable[[str, bytes], Awaitable[bytes]]]:
        """What is answered to which question."""
        return {"offers": self.offers, "offer": self.offer, "word": self.word, "catalogue": self.catalogue}

    async def offers(self, division: str, payload: bytes) -> bytes:
        """Tell a node what concerns it; what it offers no more is taken from the catalogue."""
        have = msgspec.msgpack.decode(payload, type=Have)
        faults = {name: why for name, why in self._faults.get(division, {}).items() if name in have.offers}
        mine = {
            name.removeprefix(f"{division}-"): entry
            for entry in self._catalogue.records
            if entry.origin == division and (name := entry.feed)
        }
        want = tuple(
            name for name, known in have.offers.items() if name not in faults and known != self._digest(division, name)
        )
        for name, entry in mine.items():
            if name not in have.offers and entry.published:
                await self._gone(division, entry)
            elif (means := have.measured.get(name)) is not None and means != entry.measured:
                after = msgspec.structs.replace(entry, measured=means)
                await self._catalogue.records.put(entry.feed, after, expected=entry.revision)
        told = self._concerning(division, {name: entry.code for name, entry in mine.items() if entry.code})
        if digest(told) == have.seen:
            return _encode(Told(want, faults, self._listing_digest(division), same=True))
        return _encode(
            msgspec.structs.replace(told, want=want, faults=faults, catalogue=self._listing_digest(division))
        )

    def _shared(self, division: str) -> list[Entry]:
        """Return what others than a node share, as it is told it: without samples, which are looked at here."""
        return [
            msgspec.structs.replace(one, sample=(), origin=one.origin or self._home, revision=0, measured=Promise())
            for one in self._catalogue.records
            if one.published and one.sharing is not Sharing.NOT_SHARED and one.origin != division
        ]

    def _listing_digest(self, division: str) -> str:
        return digest([(one.feed, one.changed, one.sharing, one.code) for one in self._shared(division)])

    async def catalogue(self, division: str, payload: bytes) -> bytes:
        """Tell a node what others share, a part at a time."""
        after = msgspec.msgpack.decode(payload, type=After).feed
        rest = [one for one in self._shared(division) if one.feed > after]
        return _encode(Listed(tuple(rest[:LISTED_MAX])))

    def _digest(self, division: str, name: str) -> str:
        feed, entry = (kept.find(mirrored(division, name)) for kept in (self._feeds, self._catalogue))
        if not isinstance(feed, Feed) or not isinstance(entry, Entry):
            return ""
        return digest(bare(Offer(msgspec.structs.replace(feed, name=name), msgspec.structs.replace(entry, feed=name))))

    def _concerning(self, division: str, codes: dict[str, str]) -> Told:
        since = self._clock.now() - TOLD_DAYS * DAY_US
        ours = [
            one
            for one in self._desk.applications
            if (one.owner or one.level).startswith(division)
            and (one.state is State.PENDING or one.decided > since)
            and all(name.startswith(f"{division}-") for name in one.asked.feeds)
        ]
        names = {name for one in ours for name in one.grants}
        grants = [grant for grant in self._grants.records if grant.id in names or self._active(grant, division)]
        # Where they are too many, first goes what somebody may still have to do something about.
        newest = sorted(ours, key=lambda one: (one.state is State.PENDING, one.created))[-TOLD_MAX:]
        now = self._clock.now()
        lasting = sorted(grants, key=lambda one: (one.state(now) == "active", one.created))[-TOLD_MAX:]
        return Told(
            codes=dict(sorted(codes.items())),
            applications=tuple(msgspec.structs.replace(one, revision=0) for one in sorted(newest, key=_by_id)),
            grants=tuple(msgspec.structs.replace(one, revision=0) for one in sorted(lasting, key=_by_id)),
        )

    def _active(self, grant: Grant, division: str) -> bool:
        live = grant.state(self._clock.now()) in {"active", "waiting"}
        return live and grant.level.startswith(division) and grant.feed.startswith(f"{division}-")

    async def offer(self, division: str, payload: bytes) -> bytes:
        """Put what a node offers into the catalogue. Raises `Refused`: it may not offer that."""
        offer = bare(msgspec.msgpack.decode(payload, type=Offer))
        name = offer.feed.name
        try:
            await self._take(division, offer)
        except (Refused, ConfigError, Conflict) as why:
            self._faults.setdefault(division, {})[name] = str(why)
            return b""
        self._faults.get(division, {}).pop(name, None)
        return b""

    async def _take(self, division: str, offer: Offer) -> None:
        name = mirrored(division, offer.feed.name)
        if len(name) > NAME_MAX:
            raise ConfigError(f"'{name}' is too long", key="name", remedy=f"at most {NAME_MAX - 5} characters")
        divisions = offer.feed.divisions
        if not divisions or not all(code.startswith(division) for code in (*divisions, offer.entry.level)):
            raise Refused(f"feed '{offer.feed.name}' reaches beyond {division}")
        feed = msgspec.structs.replace(offer.feed, name=name)
        check(feed)
        entry = self._catalogue.find(name)
        present = self._feeds.find(name)
        if present is not None and (entry is None or entry.origin != division):
            raise Conflict(f"the centre has a feed '{name}' of its own")
        by = Principal(f"node-{division}", Role.CITY_OPERATOR, Scope(division), name="the node's catalogue")
        told: Facts = {"feed": msgspec.to_builtins(feed), "sharing": offer.entry.sharing.value}
        await self._trail.record(by, "entry.synchronise", name, after=told)
        after = msgspec.structs.replace(
            offer.entry,
            feed=name,
            origin=division,
            code=entry.code
            if entry and entry.code
            else await self._catalogue.next_code(offer.entry.level, offer.entry.kind),
            measured=entry.measured if entry else Promise(),
        )
        # First what demands grants, then what is read.
        await self._catalogue.records.put(name, after, expected=entry.revision if entry else 0)
        if present is None:
            await self._feeds.create(feed)
        elif msgspec.structs.replace(present, revision=0) != msgspec.structs.replace(feed, revision=0):
            await self._feeds.change(feed, present.revision)

    async def _gone(self, division: str, entry: Entry) -> None:
        """Take an offer out of the catalogue; its feed stays for those who have grants."""
        by = Principal(f"node-{division}", Role.CITY_OPERATOR, Scope(division), name="the node's catalogue")
        await self._trail.record(by, "entry.withdraw", entry.feed)
        if self._grants.given(entry.feed):
            after = msgspec.structs.replace(entry, sharing=type(entry.sharing).NOT_SHARED)
            if after != entry:
                await self._catalogue.records.put(entry.feed, after, expected=entry.revision)
            return
        # The feed first: without its entry it would demand no grant, and its name would never be taken again.
        if self._feeds.find(entry.feed) is not None:
            await self._feeds.delete(entry.feed)
        await self._catalogue.records.delete(entry.feed, expected=entry.revision)

    async def run(self, gone: Callable[[], Iterable[str]]) -> None:
        """Withdraw what nodes offered that have left or were expelled (`gone`), until cancelled."""
        while True:
            await self._clock.sleep(EVERY_S)
            try:
                for division in gone():
                    await self.withdraw(division)
            except (Lost, Overloaded, Conflict, StoreFull) as why:
                log.warning("offers of a node that is gone are withdrawn later", cause=str(why))

    async def withdraw(self, division: str) -> int:
        """Share no more what a node offered; return how many. Codes and grants stay; it offers anew when it is back."""
        offered = [
            entry
            for entry in self._catalogue.records
            if entry.origin == division and entry.sharing is not Sharing.NOT_SHARED
        ]
        by = Principal(f"node-{division}", Role.CITY_OPERATOR, Scope(division), name="is no member any more")
        for entry in offered:
            await self._trail.record(by, "entry.withdraw", entry.feed)
            after = msgspec.structs.replace(entry, sharing=Sharing.NOT_SHARED, changed=self._clock.now())
            await self._catalogue.records.put(entry.feed, after, expected=entry.revision)
        return len(offered)

    async def word(self, division: str, payload: bytes) -> bytes:
        """Do what somebody of a node's level decided there. Raises as `Desk.decide` and `Desk.revoke`."""
        word = msgspec.msgpack.decode(payload, type=Word)
        by = Principal(f"{word.by[:80]}@{division}", Role.CITY_OPERATOR, Scope(division), name="by its node")
        if not allows(by, Action.DECIDE_GRANTS, division):
            raise Refused(f"nothing of {division} is decided here")
        if word.decision is not None:
            return _encode(Done(application=await self._desk.decide(by, word.target, word.decision, None)))
        try:
            return _encode(Done(grant=await self._desk.revoke(by, word.target, word.reason)))
        except NotFound as why:
            raise Refused(str(why)) from why
