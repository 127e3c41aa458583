"""What the deliveries (HTTP, SSE, WebSocket, MQTT, webhook, NATS) may ask for: feeds, pages, streams, metering.

The caller's scope cuts everything here, once, whatever the delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sensegate.authority.bucket import Bucket
from sensegate.authority.divisions import short
from sensegate.authority.scope import Action, Principal, Scope, demand
from sensegate.authority.shelf import Shelf
from sensegate.authority.trail import Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, StoreFull, Unavailable
from sensegate.share.books import Books
from sensegate.share.catalogue import Catalogue, Promise
from sensegate.share.cursor import Cursor, parse
from sensegate.share.delivery import Events, Form, Page, Serving
from sensegate.share.desk import Desk
from sensegate.share.feeds import Feed, Feeds, Wanted, check
from sensegate.share.grants import Admission, Grants
from sensegate.share.joint import Ask
from sensegate.share.joint_down import Downward
from sensegate.share.joint_up import Distant, Upward
from sensegate.share.masks import Masks
from sensegate.share.metering import Cover, Metering, Usage
from sensegate.share.offers import Offers
from sensegate.share.pages import RECHECK_S, Pages
from sensegate.share.quota import month_of, within
from sensegate.share.reader import Reader
from sensegate.share.receipts import Receipts, line_of

_log = structlog.get_logger("share")


class FeedRequest(msgspec.Struct, frozen=True):
    """What a subscriber asks of a feed: begin after a cursor, at a time of arrival, or at the oldest record."""

    feed: str
    after: str = ""
    """Cursor; empty: none."""
    since: int | None = None
    """Time of arrival, µs UTC."""
    divisions: tuple[str, ...] = ()
    """Only these; empty: all. The same holds for `properties` and `devices`."""
    properties: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


class Terms(msgspec.Struct, frozen=True):
    """What applications and grants hold to here."""

    answer_days: float = 10.0
    """An application not decided by then goes to the level above."""
    days_max: float = 1_096.0
    """Longest grant."""
    kept_days: float = 0.0
    """Ended grants, decided applications and counts of months go after it; 0: never."""
    gateway: str = "44"
    """Division of this gateway, which signs receipts."""
    codes: bool = False
    """Codes of entries are given here: at the centre."""


class Centre(msgspec.Struct, frozen=True, eq=False):
    """The centre of this node, at which others share too and apply for the node's data."""

    ask: Ask
    member: str
    """Id of this node there."""


class Sharing:
    """The door of this stage."""

    def __init__(  # noqa: PLR0917 - the wiring hands in each once
        self,
        reader: Reader,
        books: Books,
        feeds: Feeds,
        usage: Bucket,
        trail: Trail,
        shelf: Shelf,
        clock: Clock,
        *,
        subscriber: Callable[[str, Principal], Scope],
        signing: Ed25519PrivateKey | None = None,
        masks: Masks | None = None,
        terms: Terms | None = None,
        measured: Callable[[Feed], Promise] = lambda _feed: Promise(),
        page_max: int = 10_000,
        centre: Centre | None = None,
    ) -> None:
        """Build the stage; `open` loads it.

        `usage` holds counts, `shelf` entries, applications and grants; `subscriber` as of `Desk`; `signing` signs
        receipts; `centre`: of a node, its centre.
        """
        self.reader = reader
        self.books = books
        self.feeds = feeds
        terms = terms or Terms()
        self.metering = Metering(usage, clock, left=self.left, kept_days=terms.kept_days)
        self.catalogue = Catalogue(shelf)
        self.grants = Grants(
            shelf,
            feeds,
            clock,
            demands_grant=self.catalogue.demands_grant,
            used=self.metering.used,
            core=self.catalogue.core,
        )
        distant = Distant(shelf, feeds, trail, centre.ask, division=centre.member) if centre else None
        self.upward = (
            Upward(feeds, self.catalogue, distant, centre.ask, clock, measured=measured) if centre and distant else None
        )
        """Offers the feeds of a node to its centre; None at a centre."""
        self.desk = Desk(
            shelf,
            feeds,
            self.catalogue,
            self.grants,
            trail,
            clock,
            subscriber=subscriber,
            distant=distant,
            answer_days=terms.answer_days,
            days_max=terms.days_max,
            kept_days=terms.kept_days,
        )
        self.trail = trail
        self.shelf = shelf
        self.serving = Serving(reader, masks=masks, page_max=page_max)
        self.offers = Offers(
            self.catalogue,
            feeds,
            self.serving,
            trail,
            clock,
            codes=terms.codes,
            measured=measured,
            others=distant.entries if distant else (),
        )
        self._receipts = Receipts(self.metering, signing or Ed25519PrivateKey.generate(), clock, gateway=terms.gateway)
        self._clock = clock
        self._gateway = terms.gateway
        self._from = 0

    async def open(self, end: int | None = None) -> None:
        """Load feeds, grants, counts and books; the log is open already, and ended with `end` then."""
        await self.feeds.open()
        await self.shelf.open()
        await self.metering.open()
        self._from = await self.books.open(self.reader.log.epoch, end)
        self.books.attach(self.reader)

    async def close(self) -> None:
        """Write what is not yet written.

        Where the store is away it stays as after a crash, which understates nothing; why it is away is told elsewhere.
        """
        try:
            await self.metering.flush(last=True)
            await self.books.flush()
        except (Unavailable, StoreFull) as why:
            _log.warning("the last counts of usage are not written", reason=str(why))

    def join_down(self) -> Downward:
        """Return what answers the nodes of this centre."""
        return Downward(
            self.feeds, self.catalogue, self.grants, self.desk, trail=self.trail, clock=self._clock, home=self._gateway
        )

    async def run(self) -> None:
        """Follow the log and the feeds and keep the counts, until cancelled.

        Raises `Unavailable` to be started again.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.reader.run(self._from), name="share.reader")
            group.create_task(self.books.run(), name="share.books")
            group.create_task(self.feeds.run(), name="share.feeds")
            group.create_task(self.shelf.run(), name="share.shelf")
            group.create_task(self.desk.run(), name="share.desk")
            group.create_task(self.metering.run(), name="share.metering")

    # ── deliveries ────────────────────────────────────────────────────────────────────────────────────

    async def page(self, principal: Principal, request: FeedRequest, *, form: str, limit: int, wait_s: float) -> Page:
        """Return records of a feed, within the quota of the grant; see `Serving.page` and `Grants.admitted`.

        Raises:
            NotFound, PermissionDenied, Gone, BadCursor, Unavailable.
            Overloaded: the quota lets nothing through now.
        """
        admission = self._admitted(principal, request, "http", form)
        start = await self._start(request)

        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s

        async def read(most: int) -> Page:
            """Wait by the second: a grant that ends while nothing comes ends the waiting, too."""
            place = start
            while True:
                left_s = until - loop.time()
                page = await self.serving.page(
                    admission.selection, place, Form(form), most, min(max(left_s, 0.0), RECHECK_S)
                )
                if page.count or left_s <= 0:
                    return page
                if self._admitted(principal, request, "http", form).selection != admission.selection:
                    return page
                place = parse(page.next)

        page = await within(admission.allowance, limit, read)
        # While it waited the grant may have ended, or shown less.
        if self._admitted(principal, request, "http", form).selection != admission.selection:
            if admission.allowance is not None:
                admission.allowance.give(page.count)
            return await self.page(principal, request, form=form, limit=limit, wait_s=max(until - loop.time(), 0.0))
        return msgspec.structs.replace(page, grant=admission.grant_id)

    def _admitted(self, principal: Principal, request: FeedRequest, delivery: str, form: str) -> Admission:
        return self.grants.admitted(principal, request.feed, _wanted(request), delivery=delivery, form=form)

    async def open_stream(
        self,
        still: Callable[[], Principal],
        request: FeedRequest,
        *,
        heartbeat_s: float,
        at: Callable[[Cursor], None] = lambda _place: None,
    ) -> AsyncGenerator[Events, None]:
        """Return the feed as server-sent events; `still` gives the caller as of now or raises `PermissionDenied`.

        `at` is told how far it is.

        Raises:
            NotFound, PermissionDenied, Gone, BadCursor, Unavailable, Overloaded: before the first event.
        """

        def admit() -> Admission:
            return self._admitted(still(), request, "sse", Form.JSON)

        _demand_volume(admit())
        return self.serving.stream(admit, await self._start(request), heartbeat_s=heartbeat_s, at=at)

    async def open_pages(
        self, still: Callable[[], Principal], request: FeedRequest, *, form: str, delivery: str = "ws"
    ) -> Pages:
        """Return the feed page by page, for a subscriber that is pushed to; `still` as of `open_stream`.

        `delivery`: a word of `grants.DELIVERIES`; the grant must be for it.

        Raises:
            NotFound, PermissionDenied, Gone, BadCursor, Unavailable, Overloaded.
        """

        def admit() -> Admission:
            return self._admitted(still(), request, delivery, form)

        _demand_volume(admit())
        return Pages(self.serving, admit, await self._start(request), Form(form))

    async def _start(self, request: FeedRequest) -> Cursor:
        if request.after:
            return await self.reader.resume(request.after)
        first = await self.reader.first()
        if request.since is None:
            return first
        wanted = await self.reader.since(request.since)
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
        """Meter what was handed to the network; `grant`: as the page or events said."""
        self.metering.count(principal.id, feed, delivery, requests=requests, records=records, size=size, grant=grant)

    def covered(self, principal: Principal, feed: str, delivery: str, records: int, grant: str = "") -> Cover:
        """Return what is entered before records go, and left when they have gone and are counted."""
        return self.metering.covered(principal.id, feed, delivery, records, grant=grant)

    def used(self, grant: str) -> int:
        """Return the records that a grant received this month, or may have."""
        return self.metering.used(grant)

    def left(self, grant: str) -> int | None:
        """Return the records of this month that a grant may still receive; None: no limit, or no grant."""
        found = self.grants.find(grant)
        allowance = self.grants.allowance(found) if found else None
        return allowance.left() if allowance else None

    def month(self) -> str:
        """Return the month that is counted now: ``2026-01``, of Beijing time."""
        return month_of(self._clock.now())

    def reads(self, principal: Principal, feed: str) -> bool:
        """Return whether the caller gets anything of a feed now."""
        return self.grants.reads(principal, feed)

    def usage(self) -> list[Usage]:
        """Return all counts; the caller cuts them to whose tokens may be seen."""
        return self.metering.rows()

    def receipt(self, principal: Principal, grant: str, month: str) -> bytes:
        """Return the signed receipt of a grant and month as one line. Raises `NotFound`, `ConfigError`."""
        return line_of(self._receipts.receipt(self.desk.grant(principal, grant), month))

    def grant_usage(self, principal: Principal, grant: str, month: str) -> list[Usage]:
        """Return what a grant delivered in a month, by delivery. Raises `NotFound`."""
        return self.metering.months(month, grant=self.desk.grant(principal, grant).id)

    # ── feeds ─────────────────────────────────────────────────────────────────────────────────────────

    def visible(self, principal: Principal) -> list[Feed]:
        """Return the feeds of which the caller may get anything, by its scope or by a grant."""
        return self.grants.visible(principal)

    def feed(self, principal: Principal, name: str) -> Feed:
        """Return one of them. Raises `NotFound`."""
        return self.grants.feed(principal, name)

    async def create_feed(self, principal: Principal, form: object) -> Feed:
        """Make a feed out of anything with its attributes; without divisions it gets the caller's.

        Raises:
            PermissionDenied: a part of it lies outside the caller's scope.
            ConfigError, Conflict: as `Feeds.create`.
        """
        feed = self._owned(principal, form)
        check(feed)
        self.feeds.demand_free(feed.name)
        await self.trail.record(principal, "feed.create", feed.name, after=_facts(feed))
        return await self.feeds.create(feed)

    async def change_feed(self, principal: Principal, form: object, revision: int) -> Feed:
        """Replace a feed as of a revision. Raises as `create_feed`, and `NotFound`."""
        feed = self._owned(principal, form)
        before = self.feeds.get(principal, feed.name)
        self._owned(principal, before)
        self._demand_ours(feed.name)
        check(feed)
        if before.revision != revision:
            raise Conflict(f"feed '{feed.name}' is at revision {before.revision}, not {revision}; read it again")
        await self.trail.record(principal, "feed.change", feed.name, before=_facts(before), after=_facts(feed))
        return await self.feeds.change(feed, revision)

    async def delete_feed(self, principal: Principal, name: str, revision: int | None) -> None:
        """Remove a feed; its open streams end within about a second. Raises as `change_feed`."""
        before = self.feeds.get(principal, name)
        self._owned(principal, before)
        self._demand_ours(name)
        if given := self.grants.given(name):
            raise Conflict(f"feed '{name}' has {len(given)} grants, {given[0].id} among them; revoke them first")
        await self.trail.record(principal, "feed.delete", name, before=_facts(before))
        await self.feeds.delete(name, revision)
        await self.offers.remove(principal, name)

    def _demand_ours(self, name: str) -> None:
        if (entry := self.catalogue.find(name)) is not None and entry.origin:
            raise Conflict(f"feed '{name}' is kept by {entry.origin}; change it there")

    @staticmethod
    def _owned(principal: Principal, form: object) -> Feed:
        """Return the feed with its scope spelled out, if all of it lies in the caller's."""
        try:
            feed = msgspec.convert(form, Feed, from_attributes=True)
        except msgspec.ValidationError as why:
            raise ConfigError(str(why), key="feed", remedy="see the fields in /docs") from why
        scope = principal.scope
        departments = feed.departments or ((scope.department,) if scope.department else ())
        divisions = tuple(short(code) for code in feed.divisions) or (scope.division,)
        for division in divisions:
            for department in departments or ("",):
                demand(principal, Action.CHANGE_FEEDS, division, department)
        return msgspec.structs.replace(feed, divisions=divisions, departments=departments)


def _demand_volume(admission: Admission) -> None:
    """Return if the month's volume of the grant is not used up. Raises `Overloaded`."""
    if admission.allowance is not None:
        admission.allowance.room(1)


def _wanted(request: FeedRequest) -> Wanted:
    return Wanted(request.divisions, request.properties, request.devices)


def _facts(feed: Feed) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(feed, revision=0))
    return facts
