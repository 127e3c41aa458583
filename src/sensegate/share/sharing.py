"""What the deliveries (HTTP, SSE, WebSocket, MQTT, webhook, NATS) may ask for: feeds, pages, streams, metering.

The caller's scope cuts everything here, once, whatever the delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import msgspec

from sensegate.authority.divisions import short
from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.trail import Trail
from sensegate.errors import ConfigError, Conflict
from sensegate.share.books import Books
from sensegate.share.cursor import Cursor
from sensegate.share.delivery import Delivery, Events, Form, Page
from sensegate.share.feeds import Feed, Feeds, Selection, Wanted, check
from sensegate.share.metering import Metering, Usage
from sensegate.share.pages import Pages
from sensegate.share.reader import Reader


class Asked(Protocol):
    """What a subscriber wants of a feed. Begins after a cursor, or at a time of arrival, or (neither) at the oldest."""

    @property
    def feed(self) -> str:
        """Its name."""
        ...

    @property
    def after(self) -> str:
        """Cursor; empty: none."""
        ...

    @property
    def since(self) -> int | None:
        """Time of arrival, µs UTC."""
        ...

    @property
    def divisions(self) -> tuple[str, ...]:
        """Only these."""
        ...

    @property
    def properties(self) -> tuple[str, ...]:
        """Only these."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """Only these."""
        ...


class Sharing:
    """The door of this stage."""

    def __init__(
        self, reader: Reader, books: Books, feeds: Feeds, metering: Metering, trail: Trail, *, page_max: int = 10_000
    ) -> None:
        self.reader = reader
        self.books = books
        self.feeds = feeds
        self.metering = metering
        self.delivery = Delivery(reader, page_max=page_max)
        self._trail = trail
        self._from = 0

    async def open(self) -> None:
        """Load feeds, counts and books; the log is open already."""
        await self.feeds.open()
        await self.metering.open()
        self._from = await self.books.open(self.reader.log.epoch)
        self.books.attach(self.reader)

    async def close(self) -> None:
        """Write what is not yet written."""
        await self.metering.flush()
        await self.books.flush()

    async def run(self) -> None:
        """Follow the log and the feeds and keep the counts, until cancelled. Raises `Lost` to be started again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.reader.run(self._from), name="share.reader")
            group.create_task(self.books.run(), name="share.books")
            group.create_task(self.feeds.run(), name="share.feeds")
            group.create_task(self.metering.run(), name="share.metering")

    # ── deliveries ────────────────────────────────────────────────────────────────────────────────────

    async def page(self, principal: Principal, asked: Asked, *, form: str, limit: int, wait_s: float) -> Page:
        """Return records of a feed; see `Delivery.page` and `Feeds.select`.

        Raises:
            NotFound, Refused, Gone, BadCursor, Lost.
        """
        selection = self.feeds.select(principal, asked.feed, _wanted(asked))
        return await self.delivery.page(selection, await self._start(asked), Form(form), limit, wait_s)

    async def open_stream(
        self, still: Callable[[], Principal], asked: Asked, *, heartbeat_s: float
    ) -> AsyncGenerator[Events, None]:
        """Return the feed as server-sent events; `still` gives the caller as of now or raises `Refused`.

        Raises:
            NotFound, Refused, Gone, BadCursor, Lost: before the first event.
        """

        def select() -> Selection | None:
            return self.feeds.select(still(), asked.feed, _wanted(asked))

        select()
        return self.delivery.stream(select, await self._start(asked), heartbeat_s=heartbeat_s)

    async def open_pages(
        self,
        still: Callable[[], Principal],
        asked: Asked,
        *,
        form: str,
        delivery: str = "ws",  # noqa: ARG002 - grants ask for it
    ) -> Pages:
        """Return the feed page by page, for a subscriber that is pushed to; `still` as of `open_stream`.

        Raises:
            NotFound, Refused, Gone, BadCursor, Lost.
        """

        def select() -> Selection | None:
            return self.feeds.select(still(), asked.feed, _wanted(asked))

        select()
        return Pages(self.delivery, select, await self._start(asked), Form(form))

    async def _start(self, asked: Asked) -> Cursor:
        if asked.after:
            return await self.reader.resume(asked.after)
        first = await self.reader.first()
        if asked.since is None:
            return first
        wanted = await self.reader.since(asked.since)
        return wanted if wanted.sequence > first.sequence else first

    def count(self, principal: Principal, feed: str, delivery: str, *, requests: int, records: int, size: int) -> None:
        """Meter what was handed to the network."""
        self.metering.count(principal.id, feed, delivery, requests=requests, records=records, size=size)

    def usage(self) -> list[Usage]:
        """Return all counts; the caller cuts them to whose tokens may be seen."""
        return self.metering.rows()

    # ── the catalogue ─────────────────────────────────────────────────────────────────────────────────

    def visible(self, principal: Principal) -> list[Feed]:
        """Return the feeds of which the caller may get anything."""
        return self.feeds.visible(principal)

    def feed(self, principal: Principal, name: str) -> Feed:
        """Return one of them. Raises `NotFound`."""
        return self.feeds.get(principal, name)

    async def create_feed(self, principal: Principal, form: object) -> Feed:
        """Make a feed out of anything with its attributes; without divisions it gets the caller's.

        Raises:
            Refused: a part of it lies outside the caller's scope.
            ConfigError, Conflict: as `Feeds.create`.
        """
        feed = self._owned(principal, form)
        check(feed)
        self.feeds.demand_free(feed.name)
        await self._trail.record(principal, "feed.create", feed.name, after=_facts(feed))
        return await self.feeds.create(feed)

    async def change_feed(self, principal: Principal, form: object, revision: int) -> Feed:
        """Replace a feed as of a revision. Raises as `create_feed`, and `NotFound`."""
        feed = self._owned(principal, form)
        before = self.feeds.get(principal, feed.name)
        self._owned(principal, before)
        check(feed)
        if before.revision != revision:
            raise Conflict(f"feed '{feed.name}' is at revision {before.revision}, not {revision}; read it again")
        await self._trail.record(principal, "feed.change", feed.name, before=_facts(before), after=_facts(feed))
        return await self.feeds.change(feed, revision)

    async def delete_feed(self, principal: Principal, name: str, revision: int | None) -> None:
        """Remove a feed; its open streams end within about a second. Raises as `change_feed`."""
        before = self.feeds.get(principal, name)
        self._owned(principal, before)
        await self._trail.record(principal, "feed.delete", name, before=_facts(before))
        await self.feeds.delete(name, revision)

    @staticmethod
    def _owned(principal: Principal, form: object) -> Feed:
        """Return the feed with its scope spelled out, if all of it lies in the caller's."""
        try:
            feed = msgspec.convert(form, Feed, from_attributes=True)
        except msgspec.ValidationError as why:
            raise ConfigError(str(why), key="feed") from why
        scope = principal.scope
        departments = feed.departments or ((scope.department,) if scope.department else ())
        divisions = tuple(short(code) for code in feed.divisions) or (scope.division,)
        for division in divisions:
            for department in departments or ("",):
                demand(principal, Action.CHANGE_FEEDS, division, department)
        return msgspec.structs.replace(feed, divisions=divisions, departments=departments)


def _wanted(asked: Asked) -> Wanted:
    return Wanted(asked.divisions, asked.properties, asked.devices)


def _facts(feed: Feed) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(feed, revision=0))
    return facts
