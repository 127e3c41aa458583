"""A node's side of sharing across the tiers: what it offers, what it was told, what is decided there of its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import structlog

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, PermissionDenied, StoreFull, Unavailable
from sensegate.share.applications import Application, Decision, State, demand_decider
from sensegate.share.catalogue import Catalogue, Entry, Promise
from sensegate.share.feeds import Feed, Feeds
from sensegate.share.grants import Grant, owns
from sensegate.share.joint import (
    EVERY_S,
    After,
    Ask,
    Done,
    Have,
    Listed,
    Offer,
    Told,
    Word,
    bare,
    digest,
    encode,
)

MEASURE_S = 60.0

_log = structlog.get_logger(__name__)
Record = TypeVar("Record", Application, Grant)


class Distant:
    """What a node was told of applications and grants for its data at the centre."""

    def __init__(self, shelf: RecordStore, feeds: Feeds, trail: Trail, ask: Ask, *, division: str) -> None:
        self._feeds = feeds
        self._trail = trail
        self._ask = ask
        self._division = division
        self.applications: RecordTable[Application] = RecordTable(shelf, "distant-application", Application)
        self.grants: RecordTable[Grant] = RecordTable(shelf, "distant-grant", Grant)
        self.entries: RecordTable[Entry] = RecordTable(shelf, "distant-entry", Entry)
        """What others share at the centre."""

    async def decide(self, principal: Principal, application: Application, decision: Decision) -> Application:
        """Have the centre approve or refuse an application for data of this node.

        Raises:
            PermissionDenied: not the caller's to decide, or the centre says no. Conflict, ConfigError. Unavailable:
                not decided.
        """
        demand_decider(principal, application)
        for name in application.asked.feeds:
            feed = self._feeds.find(name.removeprefix(f"{self._division}-"))
            if decision.approve and (feed is None or not owns(principal, feed)):
                raise PermissionDenied(f"feed '{name}' holds data outside your scope")
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
        answer = await self._ask("word", encode(word))
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
            except (Unavailable, PermissionDenied, Conflict, StoreFull, msgspec.DecodeError) as why:
                _log.debug("the catalogue goes up later", cause=str(why))
            await self._clock.sleep(EVERY_S)

    async def turn(self) -> None:
        """Do so once. Raises `Unavailable`, `PermissionDenied`."""
        offers = {one.feed.name: one for one in self._offers()}
        digests = {name: digest(one) for name, one in offers.items()}
        if (now := self._clock.monotonic()) >= self._due:
            self._due = now + MEASURE_S
            self._means = {name: self._measured(one.feed) for name, one in offers.items()}
        told = await self._told(Have(digests, self._means, self._seen))
        for name in told.want:
            if name in offers:
                await self._ask("offer", encode(offers[name]))
        if told.want:
            told = await self._told(Have(digests, self._means, self._seen))
        if told.faults != self.faults:
            for name, why in told.faults.items():
                _log.warning("the centre does not take an offer", feed=name, cause=why)
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
            part = msgspec.msgpack.decode(await self._ask("catalogue", encode(After(after))), type=Listed).entries
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
        return msgspec.msgpack.decode(await self._ask("offers", encode(have)), type=Told)

    def _offers(self) -> Iterable[Offer]:
        for feed in self._feeds:
            entry = self._catalogue.find(feed.name)
            if entry is not None and entry.published and not entry.origin:
                yield bare(Offer(feed, entry))


async def _keep(kept: RecordTable[Record], told: Iterable[Record]) -> None:
    """Make the records those that were told."""
    new = {record.id: record for record in told}
    for old in list(kept):
        if old.id not in new:
            await kept.delete(old.id, expected=old.revision)
    for name, record in new.items():
        before = kept.find(name)
        revision = before.revision if before else 0
        if before is None or msgspec.structs.replace(before, revision=0) != msgspec.structs.replace(record, revision=0):
            await kept.put(name, record, expected=revision)
