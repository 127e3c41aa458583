"""Sharing across the tiers at the centre: offers of nodes, updates for them, and their decisions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec
import structlog

from sensegate.authority.divisions import short_code
from sensegate.authority.scope import Action, Principal, Role, Scope, allows
from sensegate.authority.trail import Facts, Trail
from sensegate.bus.names import city_of
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.share.access_requests import AccessRequests
from sensegate.share.applications import Application, ApplicationState
from sensegate.share.catalogue import CatalogueEntry, DatasetCatalogue, QualityIndicators, SharingClass, check_entry
from sensegate.share.federation import (
    SYNC_INTERVAL_S,
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
    mirrored_name,
)
from sensegate.share.feeds import Feed, Feeds, check_feed
from sensegate.share.grants import Grant, Grants

UPDATE_DAYS = 30
UPDATE_RECORDS_MAX = 400
SLICE_ENTRIES_MAX = 100
REPLY_BYTES_MAX = 400_000
"""Most bytes of the entries, applications or grants in a reply: together far below the size limit of a message."""
OFFERS_MAX = 1_000
"""Most offers of a node in the catalogue, and most rejected ones that are remembered."""
OFFER_BYTES_MAX = 262_144
"""Most bytes of an offer: a feed, its texts, columns and sample."""
NAME_MAX = 64

_log = structlog.get_logger(__name__)
_Element = TypeVar("_Element")
_Record = TypeVar("_Record", Application, Grant)


class CentreFederation:
    """Replies to the requests of the centre's nodes."""

    def __init__(
        self,
        feeds: Feeds,
        catalogue: DatasetCatalogue,
        grants: Grants,
        access: AccessRequests,
        *,
        trail: Trail,
        clock: Clock,
        home: str,
    ) -> None:
        self._feeds = feeds
        self._catalogue = catalogue
        self._grants = grants
        self._access = access
        self._trail = trail
        self._clock = clock
        self._home = home
        self._rejected: dict[str, dict[str, str]] = {}

    @property
    def answers(self) -> dict[str, Callable[[str, bytes], Awaitable[bytes]]]:
        """Request -> its handler."""
        return {
            "offers": self.offers,
            "offer": self.offer,
            "decision": self.decide,
            "revocation": self.revoke,
            "catalogue": self.catalogue,
        }

    async def offers(self, division: str, payload: bytes) -> bytes:
        """Return the update for a node; entries that it no longer offers are withdrawn from the catalogue."""
        request = msgspec.msgpack.decode(payload, type=NodeOffers)
        rejected = {name: reason for name, reason in self._rejected.get(division, {}).items() if name in request.offers}
        self._rejected[division] = dict(rejected)
        present = {
            name.removeprefix(f"{division}-"): entry
            for entry in self._catalogue.records
            if entry.origin == division and (name := entry.feed)
        }
        wanted = tuple(
            name
            for name, known in request.offers.items()
            if name not in rejected and known != self._digest(division, name)
        )
        for name, entry in present.items():
            if name not in request.offers and entry.published:
                await self._withdraw_offer(division, entry)
            elif (measured := request.measured.get(name)) is not None and measured != entry.measured:
                after = msgspec.structs.replace(entry, measured=measured)
                await self._catalogue.records.put(entry.feed, after, expected=entry.revision)
        update = self._update_for(division, {name: entry.code for name, entry in present.items() if entry.code})
        if digest(update) == request.known:
            return encode(CentreUpdate(wanted, rejected, self._listing_digest(division), unchanged=True))
        return encode(
            msgspec.structs.replace(update, wanted=wanted, rejected=rejected, catalogue=self._listing_digest(division))
        )

    def _visible_to(self, division: str) -> list[CatalogueEntry]:
        """Return the entries of other gateways as a node gets them: without samples, which are shown by the centre."""
        return [
            msgspec.structs.replace(
                record, sample=(), origin=record.origin or self._home, revision=0, measured=QualityIndicators()
            )
            for record in self._catalogue.records
            if record.published and record.sharing is not SharingClass.NOT_SHARED and record.origin != division
        ]

    def _listing_digest(self, division: str) -> str:
        return digest([(entry.feed, entry.changed, entry.sharing, entry.code) for entry in self._visible_to(division)])

    async def catalogue(self, division: str, payload: bytes) -> bytes:
        """Return the next entries of other gateways for a node."""
        after = msgspec.msgpack.decode(payload, type=CatalogueRequest).after
        following = [entry for entry in self._visible_to(division) if entry.feed > after]
        return encode(CatalogueSlice(tuple(_fitting(following[:SLICE_ENTRIES_MAX]))))

    def _digest(self, division: str, name: str) -> str:
        feed, entry = (store.find(mirrored_name(division, name)) for store in (self._feeds, self._catalogue))
        if not isinstance(feed, Feed) or not isinstance(entry, CatalogueEntry):
            return ""
        return digest(
            canonical(
                CatalogueOffer(msgspec.structs.replace(feed, name=name), msgspec.structs.replace(entry, feed=name))
            )
        )

    def _update_for(self, division: str, codes: dict[str, str]) -> CentreUpdate:
        since = self._clock.now() - UPDATE_DAYS * DAY_US
        applications = [
            application
            for application in self._access.applications
            if (application.owner or application.level).startswith(city_of(division))
            and (application.effective_state is ApplicationState.PENDING or application.ended > since)
            and all(self._is_feed_of(division, name) for name in application.requested.feeds)
        ]
        names = {name for application in applications for name in application.grants}
        grants = [grant for grant in self._grants.records if grant.id in names or self._is_active_for(grant, division)]
        # If there are too many, those that still need action come first.
        newest = sorted(
            applications,
            key=lambda application: (application.effective_state is ApplicationState.PENDING, application.created),
        )[-UPDATE_RECORDS_MAX:]
        now = self._clock.now()
        lasting = sorted(grants, key=lambda grant: (grant.state(now) == "active", grant.created))[-UPDATE_RECORDS_MAX:]
        return CentreUpdate(
            codes=dict(sorted(codes.items())),
            applications=tuple(sorted(_fitting(map(_unrevised, reversed(newest))), key=_by_id)),
            grants=tuple(sorted(_fitting(map(_unrevised, reversed(lasting))), key=_by_id)),
        )

    def _is_active_for(self, grant: Grant, division: str) -> bool:
        live = grant.state(self._clock.now()) in {"active", "waiting"}
        return live and grant.level.startswith(city_of(division)) and self._is_feed_of(division, grant.feed)

    def _is_feed_of(self, division: str, name: str) -> bool:
        """Return whether a feed is that of a node: the names of `4401-port` begin like those of `4401`, too."""
        entry = self._catalogue.find(name)
        return name.startswith(f"{division}-") and (entry is None or entry.origin == division)

    async def offer(self, division: str, payload: bytes) -> bytes:
        """Add a node's offer to the catalogue; if it may not be offered, the reason is part of the next update."""
        offer = canonical(msgspec.msgpack.decode(payload, type=CatalogueOffer))
        name = offer.feed.name
        try:
            _check_size(payload)
            await self._accept(division, offer)
        except (PermissionDenied, ConfigError, Conflict) as why:
            rejected = self._rejected.setdefault(division, {})
            if len(rejected) < OFFERS_MAX:
                rejected[name] = str(why)
            return b""
        self._rejected.get(division, {}).pop(name, None)
        return b""

    async def _accept(self, division: str, offer: CatalogueOffer) -> None:
        name = mirrored_name(division, offer.feed.name)
        if len(name) > NAME_MAX:
            raise ConfigError(f"'{name}' is too long", key="name", remedy=f"use at most {NAME_MAX - 5} characters")
        divisions, city = offer.feed.divisions, city_of(division)
        if not divisions or not all(code.startswith(city) for code in (*divisions, offer.entry.level)):
            raise PermissionDenied(f"feed '{offer.feed.name}' reaches beyond {city}")
        feed = msgspec.structs.replace(offer.feed, name=name)
        check_feed(feed)
        check_entry(offer.entry)
        short_code(offer.entry.level)
        entry = self._catalogue.find(name)
        present = self._feeds.find(name)
        if present is not None and (entry is None or entry.origin != division):
            raise Conflict(f"the centre has a feed '{name}' of its own")
        if entry is None and sum(known.origin == division for known in self._catalogue.records.all()) >= OFFERS_MAX:
            raise ConfigError(f"{OFFERS_MAX} feeds are offered already", key="offers", remedy="offer fewer")
        by = Principal(f"node-{division}", Role.CITY_OPERATOR, Scope(city_of(division)), name="the node's catalogue")
        facts: Facts = {"feed": msgspec.to_builtins(feed), "sharing": offer.entry.sharing.value}
        await self._trail.record(by, "entry.synchronise", name, after=facts)
        after = msgspec.structs.replace(
            offer.entry,
            feed=name,
            origin=division,
            code=entry.code
            if entry and entry.code
            else await self._catalogue.next_code(offer.entry.level, offer.entry.kind),
            measured=entry.measured if entry else QualityIndicators(),
        )
        # The entry before the feed, so that the feed is never readable without the grant that it requires.
        await self._catalogue.records.put(name, after, expected=entry.revision if entry else 0)
        if present is None:
            await self._feeds.create(feed)
        elif msgspec.structs.replace(present, revision=0) != msgspec.structs.replace(feed, revision=0):
            await self._feeds.change(feed, present.revision)

    async def _withdraw_offer(self, division: str, entry: CatalogueEntry) -> None:
        """Withdraw an offer from the catalogue; its feed remains while there are grants for it."""
        by = Principal(f"node-{division}", Role.CITY_OPERATOR, Scope(city_of(division)), name="the node's catalogue")
        await self._trail.record(by, "entry.withdraw", entry.feed)
        if self._grants.of_feed(entry.feed):
            after = msgspec.structs.replace(entry, sharing=type(entry.sharing).NOT_SHARED)
            if after != entry:
                await self._catalogue.records.put(entry.feed, after, expected=entry.revision)
            return
        # The feed before its entry: a feed without one would require no grant, and its name would stay occupied.
        if self._feeds.find(entry.feed) is not None:
            await self._feeds.delete(entry.feed)
        await self._catalogue.records.delete(entry.feed, expected=entry.revision)

    async def run(self, departed: Callable[[], Iterable[str]]) -> None:
        """Withdraw the offers of nodes that have left or were expelled (`departed`), until cancelled."""
        while True:
            await self._clock.sleep(SYNC_INTERVAL_S)
            try:
                for division in departed():
                    await self.withdraw(division)
            except (Unavailable, Overloaded, Conflict, StoreFull) as why:
                _log.warning("offers of a departed node not withdrawn; retried later", reason=str(why))

    async def withdraw(self, division: str) -> int:
        """Withdraw all offers of a node; return how many. Codes and grants stay; a returning node offers again."""
        offered = [
            entry
            for entry in self._catalogue.records
            if entry.origin == division and entry.sharing is not SharingClass.NOT_SHARED
        ]
        by = Principal(f"node-{division}", Role.CITY_OPERATOR, Scope(city_of(division)), name="node has left")
        for entry in offered:
            await self._trail.record(by, "entry.withdraw", entry.feed)
            after = msgspec.structs.replace(entry, sharing=SharingClass.NOT_SHARED, changed=self._clock.now())
            await self._catalogue.records.put(entry.feed, after, expected=entry.revision)
        return len(offered)

    async def decide(self, division: str, payload: bytes) -> bytes:
        """Apply a decision made at a node; return the application. Raises as `AccessRequests.decide`."""
        request = msgspec.msgpack.decode(payload, type=NodeDecision)
        by = self._decider(division, request.by)
        application = self._access.applications.find(request.application)
        self._demand_own(division, application.requested.feeds if application else ())
        return encode(await self._access.decide(by, request.application, request.decision, None))

    async def revoke(self, division: str, payload: bytes) -> bytes:
        """Apply a revocation made at a node; return the grant. Raises as `AccessRequests.revoke`."""
        request = msgspec.msgpack.decode(payload, type=NodeRevocation)
        by = self._decider(division, request.by)
        grant = self._grants.find(request.grant)
        self._demand_own(division, (grant.feed,) if grant else ())
        try:
            return encode(await self._access.revoke(by, request.grant, request.reason))
        except NotFound as why:
            raise PermissionDenied(str(why)) from why

    def _demand_own(self, division: str, feeds: Iterable[str]) -> None:
        """Return if all these feeds are those of a node. Raises `PermissionDenied`."""
        if foreign := next((name for name in feeds if not self._is_feed_of(division, name)), ""):
            raise PermissionDenied(f"feed '{foreign}' is not one of {division}; decide where it comes from")

    @staticmethod
    def _decider(division: str, name: str) -> Principal:
        """Return the principal of a node's decision. Raises `PermissionDenied`."""
        by = Principal(f"{name[:80]}@{division}", Role.CITY_OPERATOR, Scope(city_of(division)), name="by its node")
        if not allows(by, Action.DECIDE_GRANTS, city_of(division)):
            raise PermissionDenied(f"decisions for {division} are not made here")
        return by


def _check_size(offer: bytes) -> None:
    """Return if an offer is not too large. Raises `ConfigError`."""
    if len(offer) > OFFER_BYTES_MAX:
        raise ConfigError(f"it has {len(offer):,} bytes", key="offer", remedy=f"give at most {OFFER_BYTES_MAX:,}")


def _fitting(elements: Iterable[_Element]) -> list[_Element]:
    """Return the first elements, as many as fit into a reply."""
    fitting: list[_Element] = []
    room = REPLY_BYTES_MAX
    for element in elements:
        room -= len(encode(element))
        if room < 0:
            break
        fitting.append(element)
    return fitting


def _unrevised(record: _Record) -> _Record:
    return msgspec.structs.replace(record, revision=0)


def _by_id(record: Application | Grant) -> str:
    return record.id
