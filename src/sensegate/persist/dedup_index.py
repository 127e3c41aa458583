"""Dedup index of accepted identities: a memtable since the last checkpoint, sorted runs on disk, a worker thread."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from sensegate.bus.malloc import trim
from sensegate.bus.timelines import Timelines
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import StoreFull, Unavailable
from sensegate.model import I64, U8, U32, U64
from sensegate.persist.checkpoint_store import Checkpoint, CheckpointStore, LoadedCheckpoint
from sensegate.persist.conflicts import Candidates
from sensegate.persist.identity import FRAME, MESSAGE_ID, SEQUENCE, TIME, hashes
from sensegate.persist.memtable import Matches, Memtable
from sensegate.persist.sorted_runs import ARRIVAL_BUCKETS, DamagedFile, SortedRun, bucket_of
from sensegate.persist.watermarks import Watermarks

MEMTABLE_ROWS = 1 << 18
"""Number of rows in the memtable at which a checkpoint is due."""
RELEASE_PAGES_AFTER = 512
"""Number of disk lookups after which the touched pages are released; the system keeps them cached."""


class DedupIndex:
    """Index of accepted identities. One thread at a time may call `add`, `find` and `freeze`, any thread `confirm`."""

    def __init__(self, directory: Path, clock: Clock, checkpoint_s: float) -> None:
        self._clock = clock
        self._checkpoint_s = checkpoint_s
        self._store = CheckpointStore(directory)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="persist")
        self._job: Future[None] | None = None
        self._reset(Timelines.in_memory(""))

    def _reset(self, timelines: Timelines) -> None:
        self._timelines = timelines
        self._memtable = Memtable()
        self._layers: tuple[tuple[Memtable, ...], tuple[SortedRun, ...]] = ((), ())
        self._frozen: Checkpoint | None = None
        self._confirmed = (0, 0, 0)
        self._lacks_state = False
        """True if a frozen state was not written, so that changes since then are not all that are missing on disk."""
        self._touched = 0
        self._next_checkpoint = self._clock.monotonic() + self._checkpoint_s

    def open(self, timelines: Timelines, last: int) -> LoadedCheckpoint | None:
        """Clear the memtable and load the last checkpoint; None: none fits the log (see `CheckpointStore.open`)."""
        with contextlib.suppress(StoreFull, Unavailable):
            self.wait_idle()
        self._reset(timelines)
        opened = self._store.open(timelines, last)
        self._layers = ((), self._store.runs)
        return opened

    def close(self) -> None:
        """Wait for the worker and stop it."""
        self.wait_idle()
        self._pool.shutdown()

    @property
    def checkpoint(self) -> int:
        """Log sequence up to which the last checkpoint on disk is valid; 0: there is none."""
        return self._store.sequence

    @property
    def witness(self) -> int:
        """`Manifest.witness` of the last checkpoint."""
        return self._store.witness

    @property
    def damage(self) -> str:
        """Return `CheckpointStore.damage` as of the last `open`."""
        return self._store.damage

    def discard(self) -> None:
        """Remove the last checkpoint, just opened: the log lacks entries from which it was built."""
        self._store.discard()
        self._layers = ((), ())

    @property
    def lost_end(self) -> int:
        """Return `CheckpointStore.lost_end` as of the last `open`."""
        return self._store.lost_end

    def clear_lost_end(self) -> None:
        """Call `CheckpointStore.clear_lost_end`."""
        self._store.clear_lost_end()

    @property
    def checkpoint_due(self) -> bool:
        """True when a checkpoint should be taken and the worker is free."""
        if self._frozen is not None or (self._job is not None and not self._job.done()):
            return False
        return self._memtable.count > 0 and (
            self._memtable.count >= MEMTABLE_ROWS or self._clock.monotonic() >= self._next_checkpoint
        )

    def request_checkpoint(self) -> None:
        """Make a checkpoint due now."""
        self._next_checkpoint = self._clock.monotonic()

    @property
    def is_overloaded(self) -> bool:
        """True when the worker has fallen so far behind that ingest should call `wait_idle`."""
        return self._memtable.count >= 4 * MEMTABLE_ROWS

    def freeze(self, ordinal: int, watermarks: Watermarks, words: list[str], floor: int, latest: int) -> None:
        """Freeze the state after commit `ordinal`, to be written once `confirm` is called for it.

        Raises:
            StoreFull: the previous checkpoint could not be written; nothing was frozen.
        """
        self.wait_idle()
        state = watermarks.take_state(len(words), whole=self._lacks_state or self._store.is_whole_state_due)
        self._lacks_state = False
        checkpoint = Checkpoint(ordinal, self._memtable, state, words, floor, latest)
        self._layers = ((self._memtable,), self._layers[1])
        self._memtable = Memtable(min(self._memtable.capacity, 2 * MEMTABLE_ROWS))
        self._next_checkpoint = self._clock.monotonic() + self._checkpoint_s
        with self._lock:
            self._frozen = checkpoint
            self._start()

    def confirm(self, ordinal: int, sequence: int, witness: int = 0) -> None:
        """Confirm that commit `ordinal` is in the log, up to `sequence`: its frozen state is written in a thread.

        `witness` as of `CheckpointStore.save`.

        Raises:
            StoreFull: the previous checkpoint could not be written.
            Unavailable: the files on the disk are corrupt; call `open` again.
        """
        if self._job is not None and self._job.done():
            self.wait_idle()
        with self._lock:
            self._confirmed = (ordinal, sequence, witness)
            self._start()

    def _start(self) -> None:
        # A commit may be confirmed before or after the next batch is deduplicated, at whose start the state is frozen.
        ordinal, sequence, witness = self._confirmed
        if self._frozen is not None and self._frozen.ordinal == ordinal:
            checkpoint, self._frozen = self._frozen, None
            self._job = self._pool.submit(self._write, checkpoint, sequence, witness)

    def _write(self, checkpoint: Checkpoint, sequence: int, witness: int) -> None:
        self._store.save(checkpoint, self._timelines, sequence, witness)
        self._layers = ((), self._store.runs)
        while self._store.merge_full_level():
            self._layers = ((), self._store.runs)
        trim()  # sorting and merging fragment the heap

    def wait_idle(self) -> None:
        """Block until the worker is idle.

        Raises:
            StoreFull: it could not write.
            Unavailable: a file to be merged is corrupt.
        """
        if self._job is not None:
            job, self._job = self._job, None
            self._lacks_state = True
            try:
                job.result()
                self._lacks_state = False
            except OSError as why:
                raise StoreFull(f"the deduplication index cannot be written: {why}") from why
            except DamagedFile as why:
                raise Unavailable(f"the deduplication index is damaged; it must be opened again: {why}") from why

    def add(self, number: U32, key: I64, kinds: U8, *, bits: U64, fingerprints: U64, time: I64, received: I64) -> None:
        """Add accepted readings."""
        if not len(number):
            return
        if kinds.max() != TIME:
            self._memtable.has_times = True
        self._memtable.add(
            hashes(number, key),
            number,
            bits=bits,
            fingerprints=fingerprints,
            time=time,
            bucket=bucket_of(kinds, time, received),
        )

    def find(self, candidates: Candidates, rows: I64) -> Matches:
        """Return the accepted readings of the identities of `rows`; `query` indexes `rows`."""
        hashed, number = candidates.hash[rows], candidates.number[rows]
        frozen, runs = self._layers
        matches = [self._memtable.find(hashed, number)]
        matches += [recent.find(hashed, number) for recent in frozen]
        if runs:
            query, bucket = _buckets_to_search(candidates, rows, runs)
            query_hash, query_number = hashed[query], number[query]
            for run in runs:
                part = run.find(query_hash, query_number, bucket)
                matches.append(msgspec.structs.replace(part, query=query[part.query]))
            self._touched += len(query)
            if self._touched >= RELEASE_PAGES_AFTER:
                self._touched = 0
                for run in runs:
                    run.release_pages()
        return Matches.concatenated(matches)


def _buckets_to_search(candidates: Candidates, rows: I64, runs: tuple[SortedRun, ...]) -> tuple[I64, I64]:
    """Return (query, bucket) for each bucket that may contain a match of a query."""
    kinds, time, received = candidates.kinds[rows], candidates.time[rows], candidates.received[rows]
    hour = time // HOUR_US
    all_rows = np.arange(len(rows))
    queries, buckets = [all_rows], [hour]
    counted = np.flatnonzero((kinds == SEQUENCE) | (kinds == FRAME))
    if counted.size:
        queries += [counted, counted]
        buckets += [hour[counted] - 1, hour[counted] + 1]
    wide = np.flatnonzero((kinds == MESSAGE_ID) | (time > received))
    if wide.size:
        present = np.unique(np.concatenate([run.buckets[run.buckets >= ARRIVAL_BUCKETS] for run in runs]))
        queries.append(np.repeat(wide, len(present)))
        buckets.append(np.tile(present, len(wide)))
    return np.concatenate(queries), np.concatenate(buckets)
