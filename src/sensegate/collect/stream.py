"""Extraction of frames from a byte stream, with deadlines and resynchronisation, independent of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sensegate import metrics
from sensegate.config import TcpConfig
from sensegate.frames.framing import FrameFinder

READ_BYTES = 16_384
UNFINISHED_MAX = 3
"""Number of unfinished frames after which a connection is closed."""
_BLANKS = b"\r\n \t\0"
"""Bytes that may separate frames and do not count as skipped."""


class FrameStream:
    """The frames of a connection, in order; `frames` ends when the peer closes it or exceeds a limit."""

    def __init__(self, reader: asyncio.StreamReader, framing: FrameFinder, config: TcpConfig) -> None:
        self._reader = reader
        self._find_frame = framing
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.time()
        self._buffer = b""
        self._frame_started = 0.0
        """Time of the first byte of an unfinished frame."""
        self._identified = False
        self._resyncing = False
        self._skipped = 0
        self._unfinished = 0
        self.end_reason = "closed by the device"
        """Reason of the end of the frames."""

    def accept(self) -> None:
        """Mark the last frame as valid and from a known device."""
        self._identified = True
        self._skipped = 0
        self._unfinished = 0

    def reject(self, frame: bytes) -> None:
        """Mark the last frame as invalid: its bytes count as skipped."""
        self._skip(frame)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield complete frames."""
        while True:
            while frame := self._next():
                yield frame
            if self._skipped > self._config.resync_bytes_max:
                metrics.LIMIT_HITS.labels("tcp_resync_bytes").inc()
                self.end_reason = f"skipped {self._skipped} bytes without a frame"
                return
            if not await self._read():
                return

    def _next(self) -> bytes:
        """Return the next frame in the buffer; empty if it is incomplete."""
        framing = self._find_frame(self._buffer)
        if framing.skip:
            self._skip(self._buffer[: framing.skip])
        frame = self._buffer[framing.skip : framing.skip + framing.length]
        self._buffer = self._buffer[framing.skip + framing.length :]
        if framing.skip or frame or not self._buffer:
            self._frame_started = 0.0  # the remainder arrived recently
        if frame and self._resyncing:
            self._resyncing = False
            metrics.TCP_RESYNCS.labels(self._config.protocol).inc()
        return frame

    def _skip(self, data: bytes) -> None:
        size = len(data.strip(_BLANKS))
        if size:
            self._resyncing = True
            self._skipped += size
            metrics.TCP_SKIPPED.labels(self._config.protocol).inc(size)

    async def _read(self) -> bool:
        """Read more bytes; return False at the end of the stream or after a deadline."""
        now = self._loop.time()
        if self._buffer and not self._frame_started:
            self._frame_started = now
        deadline = (
            self._frame_started + self._config.frame_timeout_s if self._buffer else now + self._config.idle_timeout_s
        )
        if not self._identified:
            deadline = min(deadline, self._opened + self._config.identify_timeout_s)
        try:
            async with asyncio.timeout_at(deadline):
                more = await self._reader.read(READ_BYTES)
        except TimeoutError:
            return self._overdue()
        except OSError as why:
            self.end_reason = str(why) or type(why).__name__
            return False
        self._buffer += more
        return bool(more)

    def _overdue(self) -> bool:
        """Skip the start of an unfinished frame to resynchronise; return False to close the connection."""
        if not self._identified and self._loop.time() >= self._opened + self._config.identify_timeout_s:
            metrics.LIMIT_HITS.labels("tcp_identify_timeout").inc()
            self.end_reason = f"no frame of a known device within {self._config.identify_timeout_s:g} s"
            return False
        if not self._buffer:
            metrics.LIMIT_HITS.labels("tcp_idle_timeout").inc()
            self.end_reason = f"idle for {self._config.idle_timeout_s:g} s"
            return False
        metrics.LIMIT_HITS.labels("tcp_frame_timeout").inc()
        self._unfinished += 1
        self._skip(self._buffer[:1])
        self._buffer = self._buffer[1:]
        self._frame_started = 0.0
        self.end_reason = f"{self._unfinished} frames incomplete after {self._config.frame_timeout_s:g} s"
        return self._unfinished < UNFINISHED_MAX
