"""Synchronous twin of the client: the same calls, run in an event loop of a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from sensegate_client.client import PATIENCE_S, Client
from sensegate_client.columns import Columns
from sensegate_client.cursors import CursorStore
from sensegate_client.errors import ClientError
from sensegate_client.feed import PAGE_ROWS, WAIT_S, Feed, Time
from sensegate_client.records import AggregateWindow, FeedDescription, Record

T = TypeVar("T")


class _LoopThread:
    """Event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sensegate-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine; an interrupt of the waiting thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Yield what an asynchronous iterator yields, and close it at the end."""

        async def following() -> tuple[T, ...]:
            try:
                return (await anext(source),)
            except StopAsyncIteration:
                return ()

        async def close() -> None:
            if (aclose := getattr(source, "aclose", None)) is not None:
                await aclose()

        try:
            while element := self.run(following()):
                yield element[0]
        finally:
            self.run(close())

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncFeed:
    """Reader of one feed; methods as `Feed`, with ordinary iterators."""

    def __init__(self, feed: Feed, thread: _LoopThread) -> None:
        self._feed = feed
        self._thread = thread

    def columns(
        self,
        *,
        after: str = "",
        since: Time = "",
        follow: bool = True,
        store: CursorStore | None = None,
        rows: int = PAGE_ROWS,
        wait_s: float = WAIT_S,
    ) -> Iterator[Columns]:
        """Yield pages of readings, see `Feed.columns`."""
        pages = self._feed.columns(after=after, since=since, follow=follow, store=store, rows=rows, wait_s=wait_s)
        return self._thread.iterate(pages)

    def records(
        self,
        *,
        after: str = "",
        since: Time = "",
        follow: bool = True,
        store: CursorStore | None = None,
        rows: int = 1_000,
        wait_s: float = WAIT_S,
    ) -> Iterator[Record]:
        """Yield readings, see `Feed.records`."""
        records = self._feed.records(after=after, since=since, follow=follow, store=store, rows=rows, wait_s=wait_s)
        return self._thread.iterate(records)

    def latest(self, *, rows: int = PAGE_ROWS) -> Iterator[Record]:
        """Yield the last value of every series."""
        return self._thread.iterate(self._feed.latest(rows=rows))

    def history(
        self, *, descending: bool = False, all_revisions: bool = False, rows: int = PAGE_ROWS
    ) -> Iterator[Columns]:
        """Yield pages of readings of a period, see `Feed.history`."""
        pages = self._feed.history(descending=descending, all_revisions=all_revisions, rows=rows)
        return self._thread.iterate(pages)

    def samples(self, points: int, *, method: str = "minmax") -> list[Record]:
        """Return readings for a plot, see `Feed.samples`."""
        return self._thread.run(self._feed.samples(points, method=method))

    def aggregate(
        self,
        window: str,
        *,
        functions: Sequence[str] = ("count", "min", "mean", "max"),
        by: Sequence[str] = (),
        zone: str = "",
        gaps: bool = True,
    ) -> list[AggregateWindow]:
        """Return aggregates by window, see `Feed.aggregate`."""
        return self._thread.run(self._feed.aggregate(window, functions=functions, by=by, zone=zone, gaps=gaps))


class SyncClient:
    """Synchronous client; use it as ``with SyncClient(url, token) as client``."""

    def __init__(
        self,
        url: str | Sequence[str],
        token: str = "",
        *,
        patience_s: float = PATIENCE_S,
        timeout_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare the client; arguments as of `Client`."""
        self._client = Client(url, token, patience_s=patience_s, timeout_s=timeout_s, tls=tls)
        self._thread: _LoopThread | None = None

    def __enter__(self) -> Self:
        self._thread = _LoopThread()
        self._thread.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = self._running()
        thread.run(self._client.__aexit__(kind, error, trace))
        thread.stop()
        self._thread = None

    def _running(self) -> _LoopThread:
        if self._thread is None:
            raise ClientError("the client is not open; use `with SyncClient(…)`")
        return self._thread

    def feed(  # noqa: PLR0913 - the filters of a feed, as the API names them
        self,
        name: str,
        *,
        devices: Sequence[str] = (),
        properties: Sequence[str] = (),
        divisions: Sequence[str] = (),
        bbox: tuple[float, float, float, float] | None = None,
        near: tuple[float, float, float] | None = None,
        begin: Time = "",
        end: Time = "",
    ) -> SyncFeed:
        """Return a reader of a feed, see `Client.feed`."""
        feed = self._client.feed(
            name,
            devices=devices,
            properties=properties,
            divisions=divisions,
            bbox=bbox,
            near=near,
            begin=begin,
            end=end,
        )
        return SyncFeed(feed, self._running())

    def feeds(self) -> list[FeedDescription]:
        """Return the feeds of which the token may read a part."""
        return self._running().run(self._client.feeds())
