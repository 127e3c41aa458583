"""Sharing stage: feeds, access requests, pages, streams and metering for all deliveries.

What a caller gets is restricted here, once, for HTTP, SSE, WebSocket, MQTT, NATS and webhooks alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sensegate.authority.bucket import Bucket
from sensegate.authority.divisions import short_code
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Action, Principal, Scope, demand
from sensegate.authority.trail import Trail
from sensegate.clock import DAY_US, Clock
from sensegate.config.durations import TIME_MAX_US
from sensegate.errors import CancellableTaskGroup, Conflict, StoreFull, Unavailable
from sensegate.share.access_requests import AccessRequests, AccessTerms
from sensegate.share.catalogue import DatasetCatalogue, QualityIndicators
from sensegate.share.catalogue_access import CatalogueAccess
from sensegate.share.cursor import Cursor, parse
from sensegate.share.delivery import Events, FeedPage, FeedServer, PageOptions, RecordEncoding
from sensegate.share.federation import AskCentre
from sensegate.share.federation_centre import CentreFederation
from sensegate.share.federation_node import CentreRecords, NodeFederation
from sensegate.share.feeds import Feed, FeedFilter, Feeds, check_feed, check_properties
from sensegate.share.grants import Admission, Grants
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.masks import NO_MASK, Mask, Masks
from sensegate.share.metering import Metering, Usage, UsageReservation
from sensegate.share.pages import RECHECK_S, FeedPages
from sensegate.share.quota import month_of, read_within_quota
from sensegate.share.reader import LogReader
from sensegate.share.registries import SharingRegistries
from sensegate.share.usage_statements import UsageStatements, encode_statement

CLOSE_S = 15.0
"""Longest time to write the last counts at a stop: each row is a write, and a slow store may have thousands."""
_AHEAD_US = DAY_US
"""A request that names only phenomenon times starts at arrivals this long before: clocks of devices may be ahead."""
_log = structlog.get_logger(__name__)


class FeedRequest(msgspec.Struct, frozen=True):
    """Request for records of a feed: after a cursor, from a time of arrival, or from the oldest record."""

    feed: str
    after: str = ""
    """Cursor; empty: none."""
    since: int | None = None
    """Time of arrival, µs UTC."""
    until: int | None = None
    """Time of arrival before which records are wanted, µs UTC."""
    wanted: FeedFilter = FeedFilter()
    descending: bool = False
    """True if the last records to arrive come first."""
    fields: tuple[str, ...] = ()
    """Fields of each record, of `projection.FIELDS`; empty: all."""


class SharingPolicy(msgspec.Struct, frozen=True):
    """Policy of this gateway for applications, grants and statements."""

    terms: AccessTerms = AccessTerms()
    gateway: str = "44"
    """Division of this gateway, which signs usage statements."""
    assigns_codes: bool = False
    """True if this gateway assigns catalogue codes, as the centre does."""


class Centre(msgspec.Struct, frozen=True, eq=False):
    """The centre of this node, where others share too and apply for the node's data."""

    ask: AskCentre
    member: str
    """Id of this node there."""


class SharingStores(msgspec.Struct, frozen=True, eq=False):
    """Stores of the stage: its inputs, and its own records."""

    reader: LogReader
    books: HourlyLedgers
    feeds: Feeds
    usage: Bucket
    """Counts of deliveries."""
    records: RecordStore
    """Entries of the catalogue, applications and grants."""


class SharingContext(msgspec.Struct, frozen=True, eq=False):
    """Functions of the gateway that the stage calls."""

    subscriber: Callable[[str, Principal], Scope]
    """As in `AccessRequests`."""
    measured: Callable[[Feed], QualityIndicators] = lambda _feed: QualityIndicators()
    """As in `CatalogueAccess`."""
    centre: Centre | None = None
    """Of a node: its centre."""


class SharingKeys(msgspec.Struct, frozen=True, eq=False):
    """Secrets of the stage."""

    signing: Ed25519PrivateKey
    """Signs usage statements."""
    masks: Masks | None = None


class Sharing:
    """Sharing stage of a gateway."""

    def __init__(
        self,
        stores: SharingStores,
        trail: Trail,
        clock: Clock,
        context: SharingContext,
        *,
        keys: SharingKeys | None = None,
        policy: SharingPolicy | None = None,
        page_max: int = 10_000,
    ) -> None:
        """Build the stage; `open` loads it."""
        self.reader = reader = stores.reader
        self.hourly = stores.books
        self.feeds = feeds = stores.feeds
        self.store = store = stores.records
        centre, measured = context.centre, context.measured
        policy = policy or SharingPolicy()
        keys = keys or SharingKeys(Ed25519PrivateKey.generate())
        self.metering = Metering(
            stores.usage, clock, quota_left=self.quota_left, retention_days=policy.terms.retention_days
        )
        self.catalogue = DatasetCatalogue(store)
        self.grants = Grants(
            store,
            feeds,
            clock,
            demands_grant=self.catalogue.demands_grant,
            used=self.metering.used,
            core=self.catalogue.is_core,
        )
        records = CentreRecords(store, feeds, trail, centre.ask, division=centre.member) if centre else None
        self.upward = (
            NodeFederation(feeds, self.catalogue, records, centre.ask, clock, measured=measured)
            if centre and records
            else None
        )
        """Synchronises the catalogue of a node with that of its centre; None at a centre."""
        registries = SharingRegistries(store, feeds, self.catalogue, self.grants)
        self.access = AccessRequests(
            registries, trail, clock, subscriber=context.subscriber, centre=records, terms=policy.terms
        )
        self.trail = trail
        self.server = FeedServer(reader, masks=keys.masks, page_max=page_max)
        self.catalogue_access = CatalogueAccess(
            registries,
            self.server,
            trail,
            clock,
            assigns_codes=policy.assigns_codes,
            measured=measured,
            centre_entries=records.entries if records else (),
        )
        self._statements = UsageStatements(self.metering, keys.signing, clock, gateway=policy.gateway)
        self._clock = clock
        self._gateway = policy.gateway
        self._start_sequence = 0

    async def open(self, end: int | None = None) -> None:
        """Load feeds, grants, counts and hourly ledgers; `end`: last sequence of the log when this process began."""
        await self.feeds.open()
        await self.store.open()
        await self.metering.open()
        self._start_sequence = await self.hourly.open(self.reader.log.epoch, end)
        self.hourly.attach(self.reader)

    async def close(self) -> None:
        """Write all pending counts.

        If the store is away or slow, the counts stay as after a crash, which understates nothing.
        """
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.metering.flush(last=True)
                await self.hourly.flush()
        except (Unavailable, StoreFull, TimeoutError) as why:
            _log.warning("last usage counts not written", reason=str(why) or f"not within {CLOSE_S:g} s")

    def federate_down(self) -> CentreFederation:
        """Return the centre's side of the synchronisation with its nodes."""
        return CentreFederation(
            self.feeds,
            self.catalogue,
            self.grants,
            self.access,
            trail=self.trail,
            clock=self._clock,
            home=self._gateway,
        )

    async def run(self) -> None:
        """Follow the log and the stored records, and write counts, until cancelled. Raises `Unavailable`."""
        async with CancellableTaskGroup() as group:
            group.create_task(self.reader.run(self._start_sequence), name="share.reader")
            group.create_task(self.hourly.run(), name="share.hourly")
            group.create_task(self.feeds.run(), name="share.feeds")
            group.create_task(self.store.run(), name="share.shelf")
            group.create_task(self.access.run(), name="share.access")
            group.create_task(self.metering.run(), name="share.metering")

    # ── deliveries ────────────────────────────────────────────────────────────────────────────────────

    async def page(
        self, principal: Principal, request: FeedRequest, *, form: str, limit: int, wait_s: float
    ) -> FeedPage:
        """Return records of a feed, within the quota of the grant; see `FeedServer.page` and `Grants.admit`.

        Raises:
            NotFound, PermissionDenied, Gone, BadCursor, Unavailable.
            Overloaded: the quota permits nothing now.
        """
        admission = self.admit(principal, request.feed, request.wanted, "http", form)
        mask = _mask_of(admission)
        until = None if request.until is None else mask.period_end(request.until)
        if request.descending:
            page = await self._page_back(admission, request, form, limit, until)
            return msgspec.structs.replace(page, grant=admission.grant_id)
        start = await self._start(request, mask)

        loop = asyncio.get_running_loop()
        wait_until = loop.time() + wait_s

        async def read(most: int) -> FeedPage:
            """Wait in steps, so that a grant that ends meanwhile ends the wait too."""
            place = start
            while True:
                left_s = wait_until - loop.time()
                page = await self.server.page(
                    admission.selection,
                    place,
                    RecordEncoding(form),
                    most,
                    min(max(left_s, 0.0), RECHECK_S),
                    PageOptions(until=until, fields=request.fields),
                )
                if page.count or left_s <= 0 or not page.next:
                    return page
                if self.admit(principal, request.feed, request.wanted, "http", form).selection != admission.selection:
                    return page
                place = parse(page.next)

        page = await read_within_quota(admission.quota, limit, read)
        # The grant may have ended or been narrowed during the wait.
        if self.admit(principal, request.feed, request.wanted, "http", form).selection != admission.selection:
            if admission.quota is not None:
                admission.quota.refund(page.count)
            return await self.page(
                principal, request, form=form, limit=limit, wait_s=max(wait_until - loop.time(), 0.0)
            )
        return msgspec.structs.replace(page, grant=admission.grant_id)

    async def _page_back(
        self, admission: Admission, request: FeedRequest, form: str, limit: int, until: int | None
    ) -> FeedPage:
        """Return the records before a cursor, the last to arrive first; see `page`."""
        since = 0 if request.since is None else _mask_of(admission).period_start(request.since)
        if request.after:
            start = parse(request.after)
            await self.reader.demand_same_history(start)
        else:
            _, last = await self.reader.log.bounds()
            if until is not None:
                # A masked time may end after the year 9999, which the log does not know.
                until = min(max(until, 0), TIME_MAX_US)
                last = min(last, await self.reader.log.sequence_at(until) - 1)
            await self.reader.catch_up()
            start = self.reader.after(last, 0)

        async def read(most: int) -> FeedPage:
            return await self.server.page_back(
                admission.selection, start, RecordEncoding(form), most, since=since, fields=request.fields
            )

        return await read_within_quota(admission.quota, limit, read)

    def admit(self, principal: Principal, feed: str, wanted: FeedFilter, delivery: str, form: str) -> Admission:
        """Return a caller's present part of a feed, see `Grants.admit`."""
        return self.grants.admit(principal, feed, wanted, delivery=delivery, form=form)

    async def open_stream(
        self,
        current_principal: Callable[[], Principal],
        request: FeedRequest,
        *,
        heartbeat_s: float,
        advance: Callable[[Cursor], None] = lambda _place: None,
    ) -> AsyncGenerator[Events, None]:
        """Return the feed as server-sent events.

        `current_principal` returns the caller as of now, or raises `PermissionDenied`.

        `advance` is called with the cursor as the stream advances.

        Raises:
            NotFound, PermissionDenied, Gone, BadCursor, Unavailable, Overloaded: before the first event.
        """

        def admit() -> Admission:
            return self.admit(current_principal(), request.feed, request.wanted, "sse", RecordEncoding.JSON)

        admission = admit()
        demand_volume(admission)
        start = await self._start(request, _mask_of(admission))
        return self.server.stream(admit, start, heartbeat_s=heartbeat_s, advance=advance)

    async def open_pages(
        self, current_principal: Callable[[], Principal], request: FeedRequest, *, form: str, delivery: str = "ws"
    ) -> FeedPages:
        """Return the feed page by page, for push delivery; `current_principal` as in `open_stream`.

        `delivery`: one of `grants.DELIVERIES`, which the grant must cover.

        Raises:
            NotFound, PermissionDenied, Gone, BadCursor, Unavailable, Overloaded.
        """

        def admit() -> Admission:
            return self.admit(current_principal(), request.feed, request.wanted, delivery, form)

        admission = admit()
        demand_volume(admission)
        start = await self._start(request, _mask_of(admission))
        return FeedPages(self.server, admit, start, RecordEncoding(form))

    async def _start(self, request: FeedRequest, mask: Mask) -> Cursor:
        if request.after:
            return await self.reader.resume(request.after)
        first = await self.reader.first()
        since = request.since
        if since is None and request.wanted.begin is not None:
            since = max(request.wanted.begin - _AHEAD_US, 0)
        if since is None:
            return first
        # Where times are masked, only whole periods are told apart.
        wanted = await self.reader.since(mask.period_start(since))
        return wanted if wanted.sequence > first.sequence else first

    def count(
        self,
        principal: Principal,
        feed: str,
        delivery: str,
        *,
        requests: int,
        records: int,
        size: int,
        grant: str = "",
    ) -> None:
        """Count records passed to the network; `grant`: that of the page or events."""
        self.metering.count(principal.id, feed, delivery, requests=requests, records=records, size=size, grant=grant)

    def reserve(
        self, principal: Principal, feed: str, delivery: str, records: int, grant: str = ""
    ) -> UsageReservation:
        """Return an async context in which records are sent and counted (`Metering.reserve`)."""
        return self.metering.reserve(principal.id, feed, delivery, records, grant=grant)

    def used(self, grant: str) -> int:
        """Return the records that a grant has used this month, including unsettled ones."""
        return self.metering.used(grant)

    def quota_left(self, grant: str) -> int | None:
        """Return the records left of the grant's monthly quota; None: unlimited, or no such grant."""
        record = self.grants.find(grant)
        quota = self.grants.quota(record) if record else None
        return quota.left() if quota else None

    def month(self) -> str:
        """Return the current month of Beijing time: ``2026-01``."""
        return month_of(self._clock.now())

    def can_read(self, principal: Principal, feed: str) -> bool:
        """Return whether the caller may read any part of a feed now."""
        return self.grants.can_read(principal, feed)

    def usage(self) -> list[Usage]:
        """Return the totals of all tokens, without regard to scope."""
        return self.metering.rows()

    def statement(self, principal: Principal, grant: str, month: str) -> bytes:
        """Return the signed usage statement of a grant and month, one line. Raises `NotFound`, `ConfigError`."""
        return encode_statement(self._statements.statement(self.access.grant(principal, grant), month))

    def grant_usage(self, principal: Principal, grant: str, month: str) -> list[Usage]:
        """Return the usage of a grant in a month, by delivery. Raises `NotFound`."""
        return self.metering.months(month, grant=self.access.grant(principal, grant).id)

    # ── feeds ─────────────────────────────────────────────────────────────────────────────────────────

    def visible(self, principal: Principal) -> list[Feed]:
        """Return the feeds of which the caller may get a part, by its scope or by a grant."""
        return self.grants.visible(principal)

    def feed(self, principal: Principal, name: str) -> Feed:
        """Return a visible feed. Raises `NotFound`."""
        return self.grants.feed(principal, name)

    async def create_feed(self, principal: Principal, feed: Feed) -> Feed:
        """Create a feed; without divisions it gets that of the caller.

        Raises:
            PermissionDenied: a part of the feed is outside the caller's scope.
            ConfigError, Conflict: as `Feeds.create`.
        """
        feed = self._checked_feed(principal, feed)
        check_feed(feed)
        check_properties(feed.properties)
        self.feeds.demand_name_free(feed.name)
        # A process that stopped in `delete_feed` has left the entry, whose publication is not meant for this feed.
        await self.catalogue_access.remove(principal, feed.name)
        await self.trail.record(principal, "feed.create", feed.name, after=_facts(feed))
        return await self.feeds.create(feed)

    async def change_feed(self, principal: Principal, feed: Feed, revision: int) -> Feed:
        """Replace a feed as of a revision. Raises as `create_feed`, and `NotFound`."""
        feed = self._checked_feed(principal, feed)
        before = self.feeds.get(principal, feed.name)
        self._checked_feed(principal, before)
        self._demand_local(feed.name)
        check_feed(feed)
        check_properties(name for name in feed.properties if name not in before.properties)
        if before.revision != revision:
            raise Conflict(f"feed '{feed.name}' is at revision {before.revision}, not {revision}; read it again")
        await self.trail.record(principal, "feed.change", feed.name, before=_facts(before), after=_facts(feed))
        return await self.feeds.change(feed, revision)

    async def delete_feed(self, principal: Principal, name: str, revision: int | None) -> None:
        """Delete a feed; its open streams end within about a second. Raises as `change_feed`."""
        before = self.feeds.get(principal, name)
        self._checked_feed(principal, before)
        self._demand_local(name)
        if active := self.grants.of_feed(name):
            raise Conflict(f"feed '{name}' has {len(active)} grants, {active[0].id} among them; revoke them first")
        await self.trail.record(principal, "feed.delete", name, before=_facts(before))
        await self.feeds.delete(name, revision)
        await self.catalogue_access.remove(principal, name)

    def _demand_local(self, name: str) -> None:
        if (entry := self.catalogue.find(name)) is not None and entry.origin:
            raise Conflict(f"feed '{name}' belongs to {entry.origin}; change it there")

    @staticmethod
    def _checked_feed(principal: Principal, feed: Feed) -> Feed:
        """Return the feed with explicit divisions and departments, if all of it is in the caller's scope."""
        scope = principal.scope
        departments = feed.departments or ((scope.department,) if scope.department else ())
        divisions = tuple(short_code(code) for code in feed.divisions) or (scope.division,)
        for division in divisions:
            for department in departments or ("",):
                demand(principal, Action.CHANGE_FEEDS, division, department)
        return msgspec.structs.replace(feed, divisions=divisions, departments=departments)


def demand_volume(admission: Admission) -> None:
    """Return if the monthly volume of the grant is not used up. Raises `Overloaded`."""
    if admission.quota is not None:
        admission.quota.available(1)


def _mask_of(admission: Admission) -> Mask:
    return admission.selection.mask if admission.selection else NO_MASK


def _facts(feed: Feed) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(feed, revision=0))
    return facts
