"""The scrub of a running gateway: slowly by itself, at once by order of `sensegate doctor --scrub`.

The order is a file, and so is the answer: whoever may write in the gateway's directory may ask.
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
from sensegate.persist.extents import Cause, Extents, Loss
from sensegate.persist.scrub import Scrub

ORDER, STATUS = "scrub.order", "scrub.status"
FIRST_S = 60.0
"""After a start the gateway has other things to do for so long."""
EVERY_S = 3_600.0
"""From the end of a pass to the next one."""
LOOK_S = 0.5
_WARNINGS_MAX = 3
_INDEX = frozenset({Cause.INDEX, Cause.INDEX_FILE})


class Status(msgspec.Struct, frozen=True):
    """How far a scrub is, for whoever ordered it."""

    pid: int
    order: str = ""
    """Text of the order that the present or last pass answers."""
    done: int = 0
    """Of `total` sequences."""
    total: int = 0
    running: bool = False


def lines(state: Extents) -> list[str]:
    """Return what is not as it should be, a sentence each, the last found first, but for an index that was mended."""
    return [_line(loss) for loss in reversed(state.losses) if loss.cause not in _INDEX or loss.found >= state.begun]


def _line(loss: Loss) -> str:
    if not loss.first:
        return f"{loss.what}; it is built again from the log" + (
            f" ({loss.readings} readings)" if loss.readings else ""
        )
    lost = f"{loss.readings} readings" if loss.readings else f"{loss.entries} entries"
    when = f", stored {_time(loss.since)} to {_time(loss.until)}" if loss.until else ""
    return f"{lost} lost between sequences {loss.first} and {loss.last}{when}: {loss.what} ({loss.cause.value})"


def _time(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if micros else "?"


class Scrubber:
    """Makes passes until cancelled."""

    def __init__(self, scrub: Scrub, directory: Path, clock: Clock, *, epoch: str, bytes_s: int) -> None:
        """`epoch`: of the log; `bytes_s`: read so many bytes of the log a second by itself; 0: only by order."""
        self._scrub = scrub
        self._directory = directory
        self._clock = clock
        self._epoch = epoch
        self._bytes_s = bytes_s
        self._state = Extents(epoch)

    def warnings(self) -> list[str]:
        """Return what is lost and had not expired, for people; empty when all is well."""
        told = lines(self._state)
        more = f"scrub: {len(told) - _WARNINGS_MAX} more; sensegate doctor --scrub lists all"
        return [f"scrub: {line}" for line in told[:_WARNINGS_MAX]] + ([more] if len(told) > _WARNINGS_MAX else [])

    async def run(self) -> None:
        """Make passes. Raises `Unavailable`, `StoreFull`."""
        self._show(await asyncio.to_thread(extents.read, self._directory, self._epoch))
        due = self._clock.monotonic() + FIRST_S
        while True:
            order = await asyncio.to_thread(self._ordered)
            if order or (self._bytes_s and self._clock.monotonic() >= due):
                await self._pass(order)
                due = self._clock.monotonic() + EVERY_S
            await self._clock.sleep(LOOK_S)

    async def _pass(self, order: str) -> None:
        """Make a pass; an order that comes meanwhile lets it go on as fast as it can, and is answered by the next."""
        work = asyncio.create_task(self._scrub.once(bytes_s=0 if order else self._bytes_s), name="scrub pass")
        read = self._scrub.bytes
        try:
            while not work.done():
                await asyncio.wait((work,), timeout=LOOK_S)
                metrics.SCRUB_BYTES.inc(self._scrub.bytes - read)
                read = self._scrub.bytes
                await asyncio.to_thread(self._tell, order, running=True)
                if (self._directory / ORDER).exists():
                    self._scrub.hurry()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        self._show(work.result())
        await asyncio.to_thread(self._tell, order, running=False)

    def _show(self, state: Extents) -> None:
        self._state = state
        lost: Mapping[Cause, int] = {
            cause: sum(loss.readings for loss in state.losses if loss.cause is cause) for cause in Cause
        }
        for cause, readings in lost.items():
            metrics.SCRUB_LOST.labels(cause.value).set(readings)
        metrics.SCRUB_FINISHED.set(state.finished / 1e6)

    def _ordered(self) -> str:
        file = self._directory / ORDER
        try:
            order = file.read_text(encoding="ascii")[:64]
        except (OSError, UnicodeDecodeError):
            return ""
        file.unlink(missing_ok=True)
        return order

    def _tell(self, order: str, *, running: bool) -> None:
        status = Status(os.getpid(), order, self._scrub.done, self._scrub.total, running)
        fresh = self._directory / f"{STATUS}.new"
        try:
            fresh.write_bytes(msgspec.json.encode(status))
            fresh.replace(self._directory / STATUS)
        except OSError as why:
            raise StoreFull(f"{fresh}: not written: {why}") from why
