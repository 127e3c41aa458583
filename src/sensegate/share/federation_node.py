"""Sharing across the tiers at a node: its offers, the centre's records of its data, and decisions on them."""

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
from sensegate.share.applications import Application, ApplicationState, Decision, demand_decider
from sensegate.share.catalogue import CatalogueEntry, DatasetCatalogue, QualityIndicators
from sensegate.share.federation import (
    SYNC_INTERVAL_S,
    AskCentre,
    CatalogueOffer,
    CatalogueRequest,
    CatalogueSlice,
    CentreUpdate,
    NodeDecision,
    NodeOffers,
    NodeRevocation,
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
    """The centre's applications and grants for the data of a node, and the entries of other gateways."""

    def __init__(self, store: RecordStore, feeds: Feeds, trail: Trail, ask: AskCentre, *, division: str) -> None:
        self._feeds = feeds
        self._trail = trail
        self._ask = ask
        self._division = division
        self.applications: RecordTable[Application] = RecordTable(store, "centre-application", Application)
        self.grants: RecordTable[Grant] = RecordTable(store, "centre-grant", Grant)
        self.entries: RecordTable[CatalogueEntry] = RecordTable(store, "centre-entry", CatalogueEntry)
        """Catalogue entries of other gateways at the centre."""

    async def decide(self, principal: Principal, application: Application, decision: Decision) -> Application:
        """Send the decision on an application for data of this node to the centre.

        Raises:
            PermissionDenied: the caller may not decide, or the centre refuses.
            Conflict, ConfigError.
            Unavailable: the outcome is unknown.
        """
        demand_decider(principal, application)
        for name in application.requested.feeds:
            feed = self._feeds.find(name.removeprefix(f"{self._division}-"))
            if decision.approve and (feed is None or not owns(principal, feed)):
                raise PermissionDenied(f"feed '{name}' contains data outside your scope")
        if application.state is not ApplicationState.PENDING:
            raise Conflict(f"application {application.id} is {application.state}")
        if not decision.approve and not decision.reason.strip():
            raise ConfigError("is missing", key="reason", remedy="say why it is refused")
        facts: Facts = {"approve": decision.approve, "at": "centre"}
        await self._trail.record(principal, "application.decide", application.id, after=facts)
        reply = await self._ask("decision", encode(NodeDecision(application.id, principal.id, decision)))
        decided = msgspec.msgpack.decode(reply, type=Application)
        return await self.applications.put(application.id, decided, expected=application.revision)

    async def revoke(self, principal: Principal, grant: Grant, reason: str) -> Grant:
        """Send the revocation of a grant for data of this node to the centre. Raises as `decide`."""
        demand(principal, Action.DECIDE_GRANTS, grant.level, grant.department)
        await self._trail.record(principal, "grant.revoke", grant.id, after={"reason": reason, "at": "centre"})
        reply = await self._ask("revocation", encode(NodeRevocation(grant.id, principal.id, reason)))
        revoked = msgspec.msgpack.decode(reply, type=Grant)
        return await self.grants.put(grant.id, revoked, expected=grant.revision)


class NodeFederation:
    """Synchronises the catalogue of a node with that of its centre."""

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
        """Feed -> why the centre rejects its offer."""

    def problems(self) -> list[str]:
        """Return the rejected offers, a sentence each."""
        return [
            f"catalogue: the centre rejects the offer of '{name}': {reason}"
            for name, reason in sorted(self.rejected.items())
        ]

    async def run(self) -> None:
        """Synchronise periodically until cancelled; failures are retried."""
        while True:
            try:
                await self.sync()
            except (Unavailable, PermissionDenied, ConfigError, Conflict, StoreFull, ValueError, RecursionError) as why:
                _log.debug("catalogue not synchronised; retried later", reason=str(why))
            await self._clock.sleep(SYNC_INTERVAL_S)

    async def sync(self) -> None:
        """Synchronise once. Raises `Unavailable`, `PermissionDenied`."""
        offers = {offer.feed.name: offer for offer in self._offers()}
        digests = {name: digest(offer) for name, offer in offers.items()}
        if (now := self._clock.monotonic()) >= self._measure_due:
            self._measure_due = now + MEASURE_INTERVAL_S
            self._indicators = {name: self._measured(offer.feed) for name, offer in offers.items()}
        update = await self._exchange(NodeOffers(digests, self._indicators, self._known_digest))
        for name in update.wanted:
            if name in offers:
                await self._ask("offer", encode(offers[name]))
        if update.wanted:
            update = await self._exchange(NodeOffers(digests, self._indicators, self._known_digest))
        if update.rejected != self.rejected:
            for name, reason in update.rejected.items():
                _log.warning("offer rejected by the centre", feed=name, reason=reason)
            self.rejected = update.rejected
        if update.catalogue != self._catalogue_digest:
            await self._sync_catalogue()
            self._catalogue_digest = update.catalogue
        if update.unchanged:
            return
        for name, code in update.codes.items():
            entry = self._catalogue.find(name)
            if entry is not None and entry.code != code:
                await self._catalogue.records.put(
                    name, msgspec.structs.replace(entry, code=code), expected=entry.revision
                )
        await _replace_records(self._centre.applications, update.applications)
        await _replace_records(self._centre.grants, update.grants)
        self._known_digest = digest(msgspec.structs.replace(update, wanted=(), rejected={}, catalogue=""))

    async def _sync_catalogue(self) -> None:
        """Fetch the entries of other gateways."""
        entries: dict[str, CatalogueEntry] = {}
        while True:
            after = max(entries, default="")
            batch = msgspec.msgpack.decode(
                await self._ask("catalogue", encode(CatalogueRequest(after))), type=CatalogueSlice
            ).entries
            if not batch:
                break
            entries |= {entry.feed: entry for entry in batch}
        stored = self._centre.entries
        for old in [entry for entry in stored if entry.feed not in entries]:
            await stored.delete(old.feed, expected=old.revision)
        for name, entry in entries.items():
            before = stored.find(name)
            if before is None or msgspec.structs.replace(before, revision=0) != entry:
                await stored.put(name, entry, expected=before.revision if before else 0)

    async def _exchange(self, request: NodeOffers) -> CentreUpdate:
        return msgspec.msgpack.decode(await self._ask("offers", encode(request)), type=CentreUpdate)

    def _offers(self) -> Iterable[CatalogueOffer]:
        for feed in self._feeds:
            entry = self._catalogue.find(feed.name)
            if entry is not None and entry.published and not entry.origin:
                yield canonical(CatalogueOffer(feed, entry))


async def _replace_records(stored: RecordTable[_Record], update: Iterable[_Record]) -> None:
    """Replace stored records by those received."""
    new = {record.id: record for record in update}
    for old in list(stored):
        if old.id not in new:
            await stored.delete(old.id, expected=old.revision)
    for name, record in new.items():
        before = stored.find(name)
        revision = before.revision if before else 0
        if before is None or msgspec.structs.replace(before, revision=0) != msgspec.structs.replace(record, revision=0):
            await stored.put(name, record, expected=revision)
