"""A node's side of sharing across the tiers: what it offers, what it was told, what is decided there of its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import structlog

from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.shelf import Records, Shelf
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, PermissionDenied, StoreFull, Unavailable
from sensegate.share.applications import Application, ApplicationState, Decision, demand_decider
from sensegate.share.catalogue import CatalogueEntry, DatasetCatalogue, QualityIndicators
from sensegate.share.federation import (
    SYNC_INTERVAL_S,
    AskCentre,
    CatalogueOffer,
    CatalogueRequest,
    CatalogueSlice,
    CentreUpdate,
    DecisionOutcome,
    NodeDecision,
    NodeOffers,
    canonical,
    digest,
    encode,
)
from sensegate.share.feeds import Feed, Feeds
from sensegate.share.grants import Grant, owns

MEASURE_INTERVAL_S = 60.0

_log = structlog.get_logger(__name__)
_Record = TypeVar("_Record", Application, Grant)


class CentreRecords:
    """What a node was told of applications and grants for its data at the centre."""

    def __init__(self, shelf: Shelf, feeds: Feeds, trail: Trail, ask: AskCentre, *, division: str) -> None:
        self._feeds = feeds
        self._trail = trail
        self._ask = ask
        self._division = division
        self.applications: Records[Application] = Records(shelf, "distant-application", Application)
        self.grants: Records[Grant] = Records(shelf, "distant-grant", Grant)
        self.entries: Records[CatalogueEntry] = Records(shelf, "distant-entry", CatalogueEntry)
        """What others share at the centre."""

    async def decide(self, principal: Principal, application: Application, decision: Decision) -> Application:
        """Have the centre approve or refuse an application for data of this node.

        Raises:
            PermissionDenied: not the caller's to decide, or the centre says no. Conflict, ConfigError. Unavailable:
                not decided.
        """
        demand_decider(principal, application)
        for name in application.requested.feeds:
            feed = self._feeds.find(name.removeprefix(f"{self._division}-"))
            if decision.approve and (feed is None or not owns(principal, feed)):
                raise PermissionDenied(f"feed '{name}' holds data outside your scope")
        if application.state is not ApplicationState.PENDING:
            raise Conflict(f"application {application.id} is {application.state}")
        if not decision.approve and not decision.reason.strip():
            raise ConfigError("no reason", key="reason", remedy="say why it is refused")
        facts: Facts = {"approve": decision.approve, "at": "centre"}
        await self._trail.record(principal, "application.decide", application.id, after=facts)
        done = await self._request_decision(NodeDecision(application.id, principal.id, decision))
        assert done.application is not None  # noqa: S101 - what the centre answers to a decision
        return await self.applications.put(application.id, done.application, expected=application.revision)

    async def revoke(self, principal: Principal, grant: Grant, reason: str) -> Grant:
        """Have the centre take back a grant for data of this node. Raises as `decide`."""
        demand(principal, Action.DECIDE_GRANTS, grant.level, grant.department)
        await self._trail.record(principal, "grant.revoke", grant.id, after={"reason": reason, "at": "centre"})
        done = await self._request_decision(NodeDecision(grant.id, principal.id, reason=reason))
        assert done.grant is not None  # noqa: S101 - what the centre answers to a revocation
        return await self.grants.put(grant.id, done.grant, expected=grant.revision)

    async def _request_decision(self, word: NodeDecision) -> DecisionOutcome:
        answer = await self._ask("word", encode(word))
        return msgspec.msgpack.decode(answer, type=DecisionOutcome)


class NodeFederation:
    """A node's offers to its centre."""

    def __init__(
        self,
        feeds: Feeds,
        catalogue: DatasetCatalogue,
        distant: CentreRecords,
        ask: AskCentre,
        clock: Clock,
        *,
        measured: Callable[[Feed], QualityIndicators],
    ) -> None:
        self._feeds = feeds
        self._catalogue = catalogue
        self._centre = distant
        self._ask = ask
        self._clock = clock
        self._measured = measured
        self._known_digest = ""
        self._catalogue_digest = ""
        self._indicators: dict[str, QualityIndicators] = {}
        self._measure_due = 0.0
        self.rejected: dict[str, str] = {}
        """Offers that the centre does not take, and why."""

    def problems(self) -> list[str]:
        """Return what the centre does not take, a sentence each."""
        return [f"catalogue: the centre does not take '{name}': {why}" for name, why in sorted(self.rejected.items())]

    async def run(self) -> None:
        """Offer and take what there is, until cancelled; a centre that does not answer is asked again."""
        while True:
            try:
                await self.sync()
            except (Unavailable, PermissionDenied, Conflict, StoreFull, msgspec.DecodeError) as why:
                _log.debug("the catalogue goes up later", cause=str(why))
            await self._clock.sleep(SYNC_INTERVAL_S)

    async def sync(self) -> None:
        """Do so once. Raises `Unavailable`, `PermissionDenied`."""
        offers = {offer.feed.name: offer for offer in self._offers()}
        digests = {name: digest(one) for name, one in offers.items()}
        if (now := self._clock.monotonic()) >= self._measure_due:
            self._measure_due = now + MEASURE_INTERVAL_S
            self._indicators = {name: self._measured(one.feed) for name, one in offers.items()}
        told = await self._exchange(NodeOffers(digests, self._indicators, self._known_digest))
        for name in told.wanted:
            if name in offers:
                await self._ask("offer", encode(offers[name]))
        if told.wanted:
            told = await self._exchange(NodeOffers(digests, self._indicators, self._known_digest))
        if told.rejected != self.rejected:
            for name, why in told.rejected.items():
                _log.warning("the centre does not take an offer", feed=name, cause=why)
            self.rejected = told.rejected
        if told.catalogue != self._catalogue_digest:
            await self._sync_catalogue()
            self._catalogue_digest = told.catalogue
        if told.unchanged:
            return
        for name, code in told.codes.items():
            entry = self._catalogue.find(name)
            if entry is not None and entry.code != code:
                await self._catalogue.records.put(
                    name, msgspec.structs.replace(entry, code=code), expected=entry.revision
                )
        await _replace_records(self._centre.applications, told.applications)
        await _replace_records(self._centre.grants, told.grants)
        self._known_digest = digest(msgspec.structs.replace(told, want=(), faults={}, catalogue=""))

    async def _sync_catalogue(self) -> None:
        """Take what others share."""
        entries: dict[str, CatalogueEntry] = {}
        while True:
            after = max(entries, default="")
            part = msgspec.msgpack.decode(
                await self._ask("catalogue", encode(CatalogueRequest(after))), type=CatalogueSlice
            ).entries
            if not part:
                break
            entries |= {one.feed: one for one in part}
        kept = self._centre.entries
        for old in [element for element in kept if element.feed not in entries]:
            await kept.delete(old.feed, expected=old.revision)
        for name, entry in entries.items():
            before = kept.find(name)
            if before is None or msgspec.structs.replace(before, revision=0) != entry:
                await kept.put(name, entry, expected=before.revision if before else 0)

    async def _exchange(self, have: NodeOffers) -> CentreUpdate:
        return msgspec.msgpack.decode(await self._ask("offers", encode(have)), type=CentreUpdate)

    def _offers(self) -> Iterable[CatalogueOffer]:
        for feed in self._feeds:
            entry = self._catalogue.find(feed.name)
            if entry is not None and entry.published and not entry.origin:
                yield canonical(CatalogueOffer(feed, entry))


async def _replace_records(kept: Records[_Record], told: Iterable[_Record]) -> None:
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
