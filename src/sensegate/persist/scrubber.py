"""Scrub of a running gateway: periodically at a limited rate, and at once on request of `sensegate doctor --scrub`.

Request and status are files: whoever may write in the gateway's directory may request a pass.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.errors import StoreFull
from sensegate.persist import extents
from sensegate.persist.extents import Loss, LossCause, ScrubState
from sensegate.persist.scrub import Scrub

REQUEST_FILE, STATUS_FILE = "scrub.order", "scrub.status"
INITIAL_DELAY_S = 60.0
"""Delay of the first pass after a start."""
INTERVAL_S = 3_600.0
"""Pause between passes."""
POLL_S = 0.5
_WARNINGS_MAX = 3
_INDEX = frozenset({LossCause.INDEX, LossCause.INDEX_FILE})


class ScrubStatus(msgspec.Struct, frozen=True):
    """Status of the scrub, for the process that requested it."""

    pid: int
    request: str = ""
    """Text of the request that the present or last pass serves."""
    done: int = 0
    """Number of sequences scanned, of `total`."""
    total: int = 0
    running: bool = False


def describe_losses(state: ScrubState) -> list[str]:
    """Return a sentence per loss, the latest first, without index errors of earlier passes (they were repaired)."""
    return [
        _describe(loss) for loss in reversed(state.losses) if loss.cause not in _INDEX or loss.found_at >= state.started
    ]


def _describe(loss: Loss) -> str:
    if not loss.first:
        return f"{loss.description}; it is built again from the log" + (
            f" ({loss.readings} readings)" if loss.readings else ""
        )
    lost = f"{loss.readings} readings" if loss.readings else f"{loss.entries} entries"
    when = f", stored {_format_time(loss.since)} to {_format_time(loss.until)}" if loss.until else ""
    return f"{lost} lost between sequences {loss.first} and {loss.last}{when}: {loss.description} ({loss.cause.value})"


def _format_time(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if micros else "?"


class ScrubTask:
    """Task that scrubs periodically and on request."""

    def __init__(self, scrub: Scrub, directory: Path, clock: Clock, *, epoch: str, bytes_s: int) -> None:
        """`epoch`: of the log; `bytes_s`: rate of periodic passes in bytes per second; 0: only on request."""
        self._scrub = scrub
        self._directory = directory
        self._clock = clock
        self._epoch = epoch
        self._bytes_s = bytes_s
        self._state = ScrubState(epoch)

    def warnings(self) -> list[str]:
        """Return warnings about entries that were lost before they expired; empty: none."""
        sentences = describe_losses(self._state)
        more = f"scrub: {len(sentences) - _WARNINGS_MAX} more; `sensegate doctor CONFIG --scrub` lists all"
        return [f"scrub: {line}" for line in sentences[:_WARNINGS_MAX]] + (
            [more] if len(sentences) > _WARNINGS_MAX else []
        )

    async def run(self) -> None:
        """Scrub until cancelled. Raises `Unavailable`, `StoreFull`."""
        self._publish(await asyncio.to_thread(extents.read, self._directory, self._epoch))
        due = self._clock.monotonic() + INITIAL_DELAY_S
        while True:
            order = await asyncio.to_thread(self._take_request) if self._is_requested() else ""
            if order or (self._bytes_s and self._clock.monotonic() >= due):
                await self._pass(order)
                due = self._clock.monotonic() + INTERVAL_S
            await self._clock.sleep(POLL_S)

    async def _pass(self, order: str) -> None:
        """Make a pass; a request meanwhile removes its rate limit and is served by the next pass."""
        work = asyncio.create_task(self._scrub.run_pass(bytes_s=0 if order else self._bytes_s), name="scrub pass")
        read = self._scrub.bytes_read
        try:
            while not work.done():
                await asyncio.wait((work,), timeout=POLL_S)
                metrics.SCRUB_BYTES.inc(self._scrub.bytes_read - read)
                read = self._scrub.bytes_read
                await asyncio.to_thread(self._write_status, order, running=True)
                if self._is_requested():
                    self._scrub.remove_rate_limit()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        self._publish(work.result())
        await asyncio.to_thread(self._write_status, order, running=False)

    def _publish(self, state: ScrubState) -> None:
        self._state = state
        lost: Mapping[LossCause, int] = {
            cause: sum(loss.readings for loss in state.losses if loss.cause is cause) for cause in LossCause
        }
        for cause, readings in lost.items():
            metrics.SCRUB_LOST.labels(cause.value).set(readings)
        metrics.SCRUB_FINISHED.set(state.finished / 1e6)

    def _is_requested(self) -> bool:
        return (self._directory / REQUEST_FILE).exists()

    def _take_request(self) -> str:
        file = self._directory / REQUEST_FILE
        try:
            order = file.read_text(encoding="ascii")[:64]
        except (OSError, UnicodeDecodeError):
            return ""
        file.unlink(missing_ok=True)
        return order

    def _write_status(self, order: str, *, running: bool) -> None:
        status = ScrubStatus(os.getpid(), order, self._scrub.sequences_done, self._scrub.sequences_total, running)
        fresh = self._directory / f"{STATUS_FILE}.new"
        try:
            fresh.write_bytes(msgspec.json.encode(status))
            fresh.replace(self._directory / STATUS_FILE)
        except OSError as why:
            raise StoreFull(f"{fresh}: not written: {why}") from why
