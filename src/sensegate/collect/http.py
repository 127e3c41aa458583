"""The HTTP source: `push` returns after the commit, so that a 2xx response confirms it."""

from __future__ import annotations

import asyncio

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.collect.pushed import PushSource
from sensegate.config import IngestConfig
from sensegate.errors import Overloaded, Rejected, Unavailable
from sensegate.video import multipart

CONTENT_TYPES = (
    "application/json",
    "application/senml+json",
    "application/octet-stream",
    "text/plain",
    "application/xml",
    "text/xml",
    "application/soap+xml",
    "multipart/form-data",
    "multipart/mixed",
    "multipart/related",
)
PUSH_TIMEOUT_S = 25.0


class HttpSource(PushSource):
    """A source of messages that devices push by HTTP; `push` returns when its message was acknowledged.

    A push without an outcome within `timeout_s` raises `Unavailable`: the device sends it again, and deduplication
    recognises it if the first was committed. After a restart of the ingest, unacknowledged messages are redelivered
    while their callers still wait.
    """

    def __init__(
        self, limits: IngestConfig, clock: Clock, *, name: str = "http", timeout_s: float = PUSH_TIMEOUT_S
    ) -> None:
        super().__init__(name, limits, clock)
        self._timeout_s = timeout_s

    async def push(self, device: str, body: bytes, content_type: str = CONTENT_TYPES[0]) -> None:
        """Take a message of an authenticated device; return when it is committed.

        Raises:
            Rejected: the content type is not supported, or the body is too large.
            Overloaded: too many messages are waiting; nothing was accepted.
            Unavailable: not committed in time, but it still may be; send it again.
        """
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type not in CONTENT_TYPES:
            raise Rejected("content_type", f"{content_type!r} is not one of {', '.join(CONTENT_TYPES)}")
        if media_type.startswith(multipart.MULTIPART):
            # Cameras send pictures with their metadata; pictures are dropped here.
            body = multipart.without_pictures(body, multipart.boundary_of(content_type))
        if len(body) > self._limits.message_bytes_max:
            metrics.LIMIT_HITS.labels("message_bytes_max").inc()
            raise Rejected("too_large", f"{len(body)} bytes, at most {self._limits.message_bytes_max}")
        if self.full:
            metrics.LIMIT_HITS.labels("depth_messages_max").inc()
            raise Overloaded("too many messages are waiting for their commit; try again")
        committed = self.put(f"http/{device}", body, device)
        try:
            async with asyncio.timeout(self._timeout_s):
                await committed
        except TimeoutError as why:
            raise Unavailable(
                f"not committed within {self._timeout_s:g} s, the outcome is unknown; send it again"
            ) from why
