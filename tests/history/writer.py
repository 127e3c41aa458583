"""A process that writes the history of a made-up log to its end, unless it is killed: `writer.py DIRECTORY ENTRIES`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sensegate.bus.memory import MemoryLog
from sensegate.clock import SystemClock
from sensegate.history import sink
from tests.history.made import KEEP_ALL, fill, open_store


async def write(directory: Path, entries: int) -> None:
    """Write the history of a log of `entries` commits, which is always the same, and return at its end."""
    sink.ROWS_MAX, sink.FETCH_ENTRIES = 40, 4
    log = MemoryLog(SystemClock(), epoch="e1")
    await fill(log, entries)
    store = open_store(directory, log)
    writer = sink.HistorySink(log, store, KEEP_ALL, SystemClock())
    running = asyncio.create_task(writer.run())
    _, last = await log.bounds()
    print("begun", flush=True)
    while store.end < last - 1:
        await asyncio.sleep(0.002)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
