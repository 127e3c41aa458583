"""A centre's side of sharing across the tiers: the offers of its nodes, what it tells them, what they decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from sensegate.authority.scope import Action, Principal, Role, Scope, allows
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.share.applications import Application, State
from sensegate.share.catalogue import Catalogue, Entry, Promise, Sharing
from sensegate.share.desk import Desk
from sensegate.share.feeds import Feed, Feeds, check
from sensegate.share.grants import Grant, Grants
from sensegate.share.joint import (
    EVERY_S,
    After,
    Done,
    Have,
    Listed,
    Offer,
    Told,
    Word,
    bare,
    digest,
    encode,
    mirrored,
)

TOLD_DAYS = 30
TOLD_MAX = 400
LISTED_MAX = 100
"""Entries of one answer: far below what a message may hold, without their samples."""
NAME_MAX = 64

_log = structlog.get_logger(__name__)


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
            return encode(Told(want, faults, self._listing_digest(division), same=True))
        return encode(msgspec.structs.replace(told, want=want, faults=faults, catalogue=self._listing_digest(division)))

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
        return encode(Listed(tuple(rest[:LISTED_MAX])))

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
            and (one.standing is State.PENDING or one.ended > since)
            and all(name.startswith(f"{division}-") for name in one.asked.feeds)
        ]
        names = {name for one in ours for name in one.grants}
        grants = [grant for grant in self._grants.records if grant.id in names or self._active(grant, division)]
        # Where they are too many, first goes what somebody may still have to do something about.
        newest = sorted(ours, key=lambda one: (one.standing is State.PENDING, one.created))[-TOLD_MAX:]
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
        """Put what a node offers into the catalogue. Raises `PermissionDenied`: it may not offer that."""
        offer = bare(msgspec.msgpack.decode(payload, type=Offer))
        name = offer.feed.name
        try:
            await self._take(division, offer)
        except (PermissionDenied, ConfigError, Conflict) as why:
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
            raise PermissionDenied(f"feed '{offer.feed.name}' reaches beyond {division}")
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
            except (Unavailable, Overloaded, Conflict, StoreFull) as why:
                _log.warning("offers of a node that is gone are withdrawn later", cause=str(why))

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
            raise PermissionDenied(f"nothing of {division} is decided here")
        if word.decision is not None:
            return encode(Done(application=await self._desk.decide(by, word.target, word.decision, None)))
        try:
            return encode(Done(grant=await self._desk.revoke(by, word.target, word.reason)))
        except NotFound as why:
            raise PermissionDenied(str(why)) from why


def _by_id(record: Application | Grant) -> str:
    return record.id
