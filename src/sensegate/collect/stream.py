"""Frames out of a stream of bytes: deadlines, rubbish, resynchronisation. Knows nothing of what a frame says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sensegate import metrics
from sensegate.config import TcpConfig
from sensegate.frames.framing import FrameFinder

READ_BYTES = 16_384
LATE_MAX = 3
"""A connection that left so many frames unfinished is given up."""
_BLANKS = b"\r\n \t\0"
"""May stand between frames and are no rubbish."""


class FrameStream:
    """The frames of one connection, in order. `frames` ends when the peer does, or when it asks too much."""

    def __init__(self, reader: asyncio.StreamReader, cut: FrameFinder, config: TcpConfig) -> None:
        self._reader = reader
        self._cut = cut
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.time()
        self._buffer = b""
        self._since = 0.0
        """When the first byte of an unfinished frame came."""
        self._known = False
        self._lost = False
        self._rubbish = 0
        self._late = 0
        self.ended = "closed by the device"
        """Why there are no more frames."""

    def good(self) -> None:
        """Say that the frame that came last is one of a device that we know."""
        self._known = True
        self._rubbish = 0
        self._late = 0

    def bad(self, frame: bytes) -> None:
        """Say that what came last was no frame after all."""
        self._skip(frame)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield whole frames."""
        while True:
            while frame := self._next():
                yield frame
            if self._rubbish > self._config.resync_bytes_max:
                metrics.LIMIT_HITS.labels("tcp_rubbish").inc()
                self.ended = f"{self._rubbish} bytes of no frame"
                return
            if not await self._read():
                return

    def _next(self) -> bytes:
        """Return the next frame in the buffer, nothing where there is no whole one."""
        found = self._cut(self._buffer)
        if found.skip:
            self._skip(self._buffer[: found.skip])
        frame = self._buffer[found.skip : found.skip + found.length]
        self._buffer = self._buffer[found.skip + found.length :]
        if found.skip or frame or not self._buffer:
            self._since = 0.0  # what is left now began to come of late
        if frame and self._lost:
            self._lost = False
            metrics.TCP_RESYNCS.labels(self._config.protocol).inc()
        return frame

    def _skip(self, rubbish: bytes) -> None:
        size = len(rubbish.strip(_BLANKS))
        if size:
            self._lost = True
            self._rubbish += size
            metrics.TCP_SKIPPED.labels(self._config.protocol).inc(size)

    async def _read(self) -> bool:
        """Wait for more; return False where there will be none, or it took too long."""
        now = self._loop.time()
        if self._buffer and not self._since:
            self._since = now
        deadline = self._since + self._config.frame_timeout_s if self._buffer else now + self._config.idle_timeout_s
        if not self._known:
            deadline = min(deadline, self._opened + self._config.identify_timeout_s)
        try:
            async with asyncio.timeout_at(deadline):
                more = await self._reader.read(READ_BYTES)
        except TimeoutError:
            return self._overdue()
        except OSError as why:
            self.ended = str(why) or type(why).__name__
            return False
        self._buffer += more
        return bool(more)

    def _overdue(self) -> bool:
        """Give up an unfinished frame, and look for one behind its beginning; return False to give up all."""
        if not self._known and self._loop.time() >= self._opened + self._config.identify_timeout_s:
            metrics.LIMIT_HITS.labels("tcp_first_s").inc()
            self.ended = f"no frame of a known device within {self._config.identify_timeout_s:g} s"
            return False
        if not self._buffer:
            metrics.LIMIT_HITS.labels("tcp_idle_s").inc()
            self.ended = f"silent for {self._config.idle_timeout_s:g} s"
            return False
        metrics.LIMIT_HITS.labels("tcp_frame_s").inc()
        self._late += 1
        self._skip(self._buffer[:1])
        self._buffer = self._buffer[1:]
        self._since = 0.0
        self.ended = f"{self._late} frames not finished within {self._config.frame_timeout_s:g} s"
        return self._late < LATE_MAX
