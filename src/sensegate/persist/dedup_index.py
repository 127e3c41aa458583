"""The identities kept: in memory those since the last checkpoint, on disk the rest; a worker carries them over."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from sensegate.bus.malloc import trim
from sensegate.bus.timelines import Timelines
from sensegate.clock import Clock
from sensegate.errors import StoreFull, Unavailable
from sensegate.model import I64, U8, U32, U64
from sensegate.persist.checkpoint_store import Checkpoint, Opened, Store
from sensegate.persist.conflicts import Cut
from sensegate.persist.identity import FRAME, HOUR_US, MESSAGE_ID, SEQUENCE, TIME, hashes
from sensegate.persist.memtable import Found, Recent
from sensegate.persist.sorted_runs import BY_ARRIVAL, Damaged, Run, bucket_of

RECENT_ROWS = 1 << 18
"""So many rows in memory make a checkpoint due."""
FORGET_AFTER = 512
"""After so many questions to the disk the pages they touched are given back; the system keeps them cached."""


class Seen:
    """`add`, `find` and `freeze` are called by one thread at a time; `confirm` by any."""

    def __init__(self, directory: Path, clock: Clock, checkpoint_s: float) -> None:
        self._clock = clock
        self._checkpoint_s = checkpoint_s
        self._store = Store(directory)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="persist")
        self._job: Future[None] | None = None
        self._reset(Timelines.in_memory(""))

    def _reset(self, timelines: Timelines) -> None:
        self._timelines = timelines
        self._recent = Recent()
        self._layers: tuple[tuple[Recent, ...], tuple[Run, ...]] = ((), ())
        self._waiting: Checkpoint | None = None
        self._confirmed = (0, 0, 0)
        self._touched = 0
        self._next_checkpoint = self._clock.monotonic() + self._checkpoint_s

    def open(self, timelines: Timelines, last: int) -> Opened | None:
        """Forget what is in memory and load the last checkpoint; None where none fits the log (see `Store.open`)."""
        with contextlib.suppress(StoreFull, Unavailable):
            self.settle()
        self._reset(timelines)
        opened = self._store.open(timelines, last)
        self._layers = ((), self._store.runs)
        return opened

    def close(self) -> None:
        """Wait for the worker."""
        self.settle()
        self._pool.shutdown()

    @property
    def checkpoint(self) -> int:
        """Log sequence to which the last checkpoint on disk is valid; 0: there is none."""
        return self._store.sequence

    @property
    def witness(self) -> int:
        """As of `Manifest.witness`."""
        return self._store.witness

    @property
    def damage(self) -> str:
        """As of `Store.damage`, told by the last `open`."""
        return self._store.damage

    def discard(self) -> None:
        """Forget the last checkpoint, just opened: the log does not hold what it was made of."""
        self._store.discard()
        self._layers = ((), ())

    @property
    def lost_end(self) -> int:
        """As of `Store.lost_end`, told by the last `open`."""
        return self._store.lost_end

    def forgive(self) -> None:
        """As `Store.forgive`."""
        self._store.forgive()

    @property
    def due(self) -> bool:
        """True when a checkpoint should be taken and the worker is free."""
        if self._waiting is not None or (self._job is not None and not self._job.done()):
            return False
        return self._recent.count > 0 and (
            self._recent.count >= RECENT_ROWS or self._clock.monotonic() >= self._next_checkpoint
        )

    def hurry(self) -> None:
        """Make a checkpoint due."""
        self._next_checkpoint = self._clock.monotonic()

    @property
    def crowded(self) -> bool:
        """True when the worker has fallen behind so far that the intake should wait for `settle`."""
        return self._recent.count >= 4 * RECENT_ROWS

    def freeze(self, ordinal: int, marks: list[I64], words: list[str], floor: int, latest: int) -> None:
        """Set the state after commit `ordinal` aside, to be written when `confirm` says that it is in the log.

        Raises:
            StoreFull: if the checkpoint before could not be written; nothing was set aside.
        """
        self.settle()
        checkpoint = Checkpoint(ordinal, self._recent, marks, words, floor, latest)
        self._layers = ((self._recent,), self._layers[1])
        self._recent = Recent(min(self._recent.rows, 2 * RECENT_ROWS))
        self._next_checkpoint = self._clock.monotonic() + self._checkpoint_s
        with self._lock:
            self._waiting = checkpoint
            self._start()

    def confirm(self, ordinal: int, sequence: int, witness: int = 0) -> None:
        """Say that commit `ordinal` is in the log, up to `sequence`: what waits for it goes to disk in a thread.

        `witness` as of `Store.save`.

        Raises:
            StoreFull: if the checkpoint before could not be written.
            Unavailable: the index on the disk is damaged; open it again.
        """
        if self._job is not None and self._job.done():
            self.settle()
        with self._lock:
            self._confirmed = (ordinal, sequence, witness)
            self._start()

    def _start(self) -> None:
        # A commit may be confirmed before or after the next one is judged, at whose begin the state is frozen.
        ordinal, sequence, witness = self._confirmed
        if self._waiting is not None and self._waiting.ordinal == ordinal:
            checkpoint, self._waiting = self._waiting, None
            self._job = self._pool.submit(self._write, checkpoint, sequence, witness)

    def _write(self, checkpoint: Checkpoint, sequence: int, witness: int) -> None:
        self._store.save(checkpoint, self._timelines, sequence, witness)
        self._layers = ((), self._store.runs)
        while self._store.tidy():
            self._layers = ((), self._store.runs)
        trim()  # sorting and merging leave holes

    def settle(self) -> None:
        """Wait until the worker is done (blocking).

        Raises:
            StoreFull: if what it had to write could not be written.
            Unavailable: if what it had to merge is damaged.
        """
        if self._job is not None:
            job, self._job = self._job, None
            try:
                job.result()
            except OSError as why:
                raise StoreFull(f"the duplicate index cannot be written: {why}") from why
            except Damaged as why:
                raise Unavailable(f"the duplicate index is damaged and is opened again: {why}") from why

    def add(self, number: U32, key: I64, kinds: U8, *, bits: U64, printed: U64, time: I64, received: I64) -> None:
        """Take over kept readings."""
        if not len(number):
            return
        if kinds.max() != TIME:
            self._recent.other_kinds = True
        self._recent.add(
            hashes(number, key), number, bits=bits, prints=printed, time=time, bucket=bucket_of(kinds, time, received)
        )

    def find(self, cut: Cut, rows: I64) -> Found:
        """Return the kept readings of the identities of some rows; `query` counts in `rows`."""
        hashed, number = cut.hash[rows], cut.number[rows]
        frozen, runs = self._layers
        found = [self._recent.find(hashed, number)]
        found += [recent.find(hashed, number) for recent in frozen]
        if runs:
            query, bucket = _places(cut, rows, runs)
            asked, named = hashed[query], number[query]
            for run in runs:
                part = run.find(asked, named, bucket)
                found.append(msgspec.structs.replace(part, query=query[part.query]))
            self._touched += len(query)
            if self._touched >= FORGET_AFTER:
                self._touched = 0
                for run in runs:
                    run.forget()
        return Found.join(found)


def _places(cut: Cut, rows: I64, runs: tuple[Run, ...]) -> tuple[I64, I64]:
    """Return (question, bucket) for each bucket in which a question's answer may lie."""
    kinds, time, received = cut.kinds[rows], cut.time[rows], cut.received[rows]
    hour = time // HOUR_US
    everyone = np.arange(len(rows))
    queries, buckets = [everyone], [hour]
    counted = np.flatnonzero((kinds == SEQUENCE) | (kinds == FRAME))
    if counted.size:
        queries += [counted, counted]
        buckets += [hour[counted] - 1, hour[counted] + 1]
    wide = np.flatnonzero((kinds == MESSAGE_ID) | (time > received))
    if wide.size:
        present = np.unique(np.concatenate([run.buckets[run.buckets >= BY_ARRIVAL] for run in runs]))
        queries.append(np.repeat(wide, len(present)))
        buckets.append(np.tile(present, len(wide)))
    return np.concatenate(queries), np.concatenate(buckets)
