"""Messages that devices push by HTTP: an awaitable intake, so that a 2xx follows the commit."""

from __future__ import annotations

import asyncio

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.collect.pushed import Pushed
from sensegate.config import IngestConfig
from sensegate.errors import Overloaded, Rejected, Unavailable
from sensegate.frames import multipart

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


class HttpSource(Pushed):
    """Gives what `push` brings; `push` returns once the delivery with its message was acknowledged.

    A push whose outcome is not known within `timeout_s` raises `Unavailable`: the device sends it again, and if the
    first
    was committed after all, the second is told as a duplicate. What the ingest had not acknowledged when it was
    started again is given again, while its caller still waits.
    """

    def __init__(
        self, limits: IngestConfig, clock: Clock, *, name: str = "http", timeout_s: float = PUSH_TIMEOUT_S
    ) -> None:
        super().__init__(name, limits, clock)
        self._timeout_s = timeout_s

    async def push(self, device: str, body: bytes, content_type: str = CONTENT_TYPES[0]) -> None:
        """Take one message of `device` (its credential is checked already); return when it is committed.

        Raises:
            Rejected: the content type is not one that a profile can read, or the body is too large.
            Overloaded: too many wait already; nothing was taken.
            Unavailable: not committed in time; it may still be. Send it again.
        """
        media = content_type.partition(";")[0].strip().lower()
        if media not in CONTENT_TYPES:
            raise Rejected("content_type", f"{content_type!r} is none of {', '.join(CONTENT_TYPES)}")
        if media.startswith(multipart.MULTIPART):
            # Cameras send pictures with what they tell; nothing of a picture goes further than this.
            body = multipart.without_pictures(body, multipart.boundary_of(content_type))
        if len(body) > self._limits.message_bytes_max:
            metrics.LIMIT_HITS.labels("message_bytes_max").inc()
            raise Rejected("too_large", f"{len(body)} bytes, at most {self._limits.message_bytes_max}")
        if self.full:
            metrics.LIMIT_HITS.labels("depth_messages_max").inc()
            raise Overloaded("too many pushed messages wait for their commit; try again")
        committed = self.put(f"http/{device}", body, device)
        try:
            async with asyncio.timeout(self._timeout_s):
                await committed
        except TimeoutError as why:
            raise Unavailable(
                f"not committed within {self._timeout_s:g} s, the outcome is unknown; send it again"
            ) from why
