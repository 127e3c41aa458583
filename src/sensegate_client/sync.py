"""Synchronous twin of the client: the same calls, run in an event loop of a thread of its own."""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from sensegate_client.client import PATIENCE_S, Client
from sensegate_client.errors import ClientError
from sensegate_client.feed import Feed

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F")
S = TypeVar("S", bound="_OfThread")


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


class _OfThread(Protocol):
    """Part of the synchronous twin; what it twins runs in its thread."""

    def _running(self) -> _LoopThread: ...


def _returning(
    method: Callable[Concatenate[F, P], Coroutine[Any, Any, T]], twinned: Callable[[S], F]
) -> Callable[Concatenate[S, P], T]:
    """Return the twin of a coroutine method: the same parameters and text, and its result."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **options: P.kwargs) -> T:
        return self._running().run(method(twinned(self), *args, **options))

    return call


def _yielding(
    method: Callable[Concatenate[F, P], AsyncIterator[T]], twinned: Callable[[S], F]
) -> Callable[Concatenate[S, P], Iterator[T]]:
    """Return the twin of a method that yields: the same parameters and text, and an ordinary iterator."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return self._running().iterate(method(twinned(self), *args, **options))

    return call


def _feed_of(sync: SyncFeed) -> Feed:
    return sync._feed  # noqa: SLF001 - of the same module


def _client_of(sync: SyncClient) -> Client:
    return sync._client  # noqa: SLF001 - of the same module


class SyncFeed:
    """Reader of one feed; methods as `Feed`, with ordinary iterators."""

    def __init__(self, feed: Feed, thread: _LoopThread) -> None:
        self._feed = feed
        self._thread = thread

    def _running(self) -> _LoopThread:
        return self._thread

    columns = _yielding(Feed.columns, _feed_of)
    records = _yielding(Feed.records, _feed_of)
    latest = _yielding(Feed.latest, _feed_of)
    history = _yielding(Feed.history, _feed_of)
    samples = _returning(Feed.samples, _feed_of)
    aggregate = _returning(Feed.aggregate, _feed_of)


def _opening(method: Callable[Concatenate[Client, P], Feed]) -> Callable[Concatenate[SyncClient, P], SyncFeed]:
    """Return the twin of the method that returns a reader."""

    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **options: P.kwargs) -> SyncFeed:
        return SyncFeed(method(self._client, *args, **options), self._running())

    return call


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

    feed = _opening(Client.feed)
    feeds = _returning(Client.feeds, _client_of)
