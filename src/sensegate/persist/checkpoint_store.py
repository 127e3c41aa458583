"""Checkpoints of the dedup index on disk: a manifest names all other files and is replaced atomically.

`manifest` has the log sequence up to which it is valid. `series.names` only grows; `state-N` and the `changes-N` after
it hold the watermarks (see `state_files`); `run-N` hold identities. All files have checksums, which are verified when
the store is opened; a corrupt one is renamed and the index is rebuilt from the log. Files that the manifest does not
name are left from a crash and are removed.
`lost.end` records, until `clear_lost_end`, that the log once reached further than now.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import structlog
import xxhash

from sensegate import metrics
from sensegate.bus.files import sync_path, write_private
from sensegate.bus.timelines import Timelines
from sensegate.model import FORMAT, I64
from sensegate.persist.memtable import Memtable
from sensegate.persist.sorted_runs import DamagedFile, SortedRun, hour_of, merge_runs, write_run
from sensegate.persist.state_files import ChangedSeries, encode_state, is_whole_due, read_state
from sensegate.persist.watermarks import WatermarkState

_LOST, _NAMES = "lost.end", "series.names"
DAMAGED_PREFIX = "damaged."
"""Prefix under which corrupt files are kept."""
RUNS_PER_MERGE = 4
"""Number of runs of about the same size that are merged into one."""

_log = structlog.get_logger("persist")


class Manifest(msgspec.Struct, frozen=True):
    """Content of the manifest: the files of a checkpoint and its validity."""

    epoch: str
    """Epoch of the log."""
    timeline: bytes
    """Timeline of the log's entry at `sequence`."""
    sequence: int
    """The state contains exactly the log up to this sequence."""
    floor: int
    """Hours before this have expired."""
    latest: int
    """Latest arrival seen, µs."""
    runs: list[str]
    state: str
    changes: list[ChangedSeries]
    """Files of changes to `state`, in order."""
    series: int
    names_bytes: int
    next: int
    """Number of the next file."""
    witness: int = 0
    """Sequence of an entry that the log must hold if it has not lost entries of this state; 0: none."""
    format: int = FORMAT


class Checkpoint(msgspec.Struct, frozen=True, eq=False):
    """State after a commit, to be written once that commit is in the log."""

    ordinal: int
    memtable: Memtable
    watermarks: WatermarkState
    """All, or those that changed since the checkpoint before."""
    series_names: list[str]
    """Names of the series of `watermarks`; the list may have grown since."""
    floor: int
    latest: int


class LoadedCheckpoint(msgspec.Struct, frozen=True, eq=False):
    """A checkpoint loaded from disk."""

    manifest: Manifest
    watermarks: list[I64]
    series_names: list[str]


class CheckpointSnapshot(msgspec.Struct, frozen=True, eq=False):
    """A checkpoint read while another process may be writing the store."""

    manifest: Manifest
    series_names: list[str]
    runs: tuple[SortedRun, ...]


class CheckpointStore:
    """Checkpoint files of a partition. For one thread at a time; `runs` may be read by any."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifest: Manifest | None = None
        self.runs: tuple[SortedRun, ...] = ()
        self.lost_end = 0
        """Last sequence of the log before it lost its end; 0: no loss is known."""
        self.damage = ""
        """Corruption that `open` found; empty: none."""

    @property
    def sequence(self) -> int:
        """Log sequence up to which the last checkpoint is valid; 0: there is none."""
        return self._manifest.sequence if self._manifest else 0

    @property
    def is_whole_state_due(self) -> bool:
        """Return whether the next checkpoint must have the watermarks of all series."""
        return self._manifest is None or is_whole_due(self._manifest.changes, self._manifest.series)

    @property
    def witness(self) -> int:
        """`Manifest.witness` of the last checkpoint."""
        return self._manifest.witness if self._manifest else 0

    def open(self, timelines: Timelines, last: int) -> LoadedCheckpoint | None:
        """Return the last checkpoint; None where there is none that fits a log of these timelines and last sequence."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._manifest, self.runs, self.lost_end, self.damage = None, (), 0, ""
        opened = None
        try:
            opened = self._load(timelines, last)
        except (OSError, ValueError) as why:
            self.damage = str(why)
            _log.error("deduplication index damaged; rebuilding it from the log", reason=str(why))
            metrics.LIMIT_HITS.labels("index_damaged").inc()
            self._manifest, self.runs = None, ()
            if isinstance(why, DamagedFile):
                self._set_aside(why.name)
        self._remove_unnamed()
        self.lost_end = self._read_lost(timelines.history.log)
        return opened

    def discard(self) -> None:
        """Remove the last checkpoint: the log lacks entries from which it was built."""
        self._manifest, self.runs = None, ()
        self._remove_unnamed()

    def _set_aside(self, name: str) -> None:
        """Keep a corrupt file for analysis, replacing an earlier one of its kind."""
        with contextlib.suppress(OSError):
            (self._directory / name).replace(self._directory / f"{DAMAGED_PREFIX}{name.partition('-')[0]}")

    def clear_lost_end(self) -> None:
        """Clear `lost_end` after the log was padded."""
        (self._directory / _LOST).unlink(missing_ok=True)
        self.lost_end = 0

    def _read_lost(self, epoch: str) -> int:
        try:
            lost_epoch, _, reached = (self._directory / _LOST).read_text(encoding="ascii").partition(" ")
        except (OSError, ValueError):
            return 0
        return int(reached) if lost_epoch == epoch and reached.isdecimal() else 0

    def _load(self, timelines: Timelines, last: int) -> LoadedCheckpoint | None:
        path = self._directory / "manifest"
        if not path.exists():
            return None
        manifest = decode_manifest(path.read_bytes())
        epoch = timelines.history.log
        held = timelines.holds(manifest.timeline, manifest.sequence)
        if manifest.epoch != epoch or manifest.sequence > last or not held or manifest.format != FORMAT:
            # A log that was created again or lost its end lacks entries of this state.
            _log.warning("deduplication index is of another log; rebuilding it", sequence=manifest.sequence)
            if manifest.epoch == epoch and (manifest.sequence > last or held is False):
                _write_durably(self._directory / _LOST, f"{epoch} {manifest.sequence}".encode())
            return None
        marks = read_state(self._directory, manifest.state, manifest.changes, manifest.series)
        words = _read_series_names(self._directory, manifest)
        self.runs = _open_runs(self._directory, manifest)
        self._manifest = manifest
        return LoadedCheckpoint(manifest, marks, words)

    def _remove_unnamed(self) -> None:
        named = {"manifest", _NAMES}
        if self._manifest:
            named |= {self._manifest.state, *self._manifest.runs, *(part.name for part in self._manifest.changes)}
        for path in self._directory.iterdir():
            if path.name not in named and path.name.startswith(("run-", "state-", "changes-", "manifest.")):
                path.unlink()
        if self._manifest is None:
            for name in ("manifest", _NAMES):
                (self._directory / name).unlink(missing_ok=True)

    def save(self, checkpoint: Checkpoint, timelines: Timelines, sequence: int, witness: int = 0) -> None:
        """Write a checkpoint durably: all its files are synced before the manifest is.

        `witness`: as in `Manifest`.
        """
        before = self._manifest
        number = before.next if before else 1
        run = write_run(self._directory / f"run-{number}", checkpoint.memtable, checkpoint.floor)
        retained = [run for run in self.runs if any(hour_of(hour) >= checkpoint.floor for hour in run.buckets.tolist())]
        dropped = [run for run in self.runs if run not in retained]
        runs = (*retained, run) if run else tuple(retained)
        series = checkpoint.watermarks.series
        state, changes = f"state-{number}", []
        if (changed := checkpoint.watermarks.numbers) is not None:
            if before is None:
                raise ValueError("there is no state to which these are changes")
            state, changes = before.state, [*before.changes, ChangedSeries(f"changes-{number}", len(changed))]
        name = changes[-1].name if changes else state
        _write_durably(self._directory / name, encode_state(checkpoint.watermarks))
        self._replace_manifest(
            Manifest(
                timelines.history.log,
                timelines.timeline_at(sequence),
                sequence,
                checkpoint.floor,
                checkpoint.latest,
                [run.path.name for run in runs],
                state,
                changes,
                series,
                self._append_series_names(checkpoint.series_names[before.series if before else 0 : series]),
                number + 1,
                witness,
            )
        )
        self.runs = runs
        for run in dropped:
            run.path.unlink()
        if before and before.state != state:
            for name in (before.state, *(part.name for part in before.changes)):
                (self._directory / name).unlink(missing_ok=True)
        for run in self.runs:
            run.release_pages()

    def merge_full_level(self) -> bool:
        """Merge runs of one size if there are enough; return whether there were. Raises `DamagedFile`."""
        levels: dict[int, list[SortedRun]] = {}
        for run in self.runs:
            levels.setdefault((len(run) >> 14).bit_length() // 2, []).append(run)
        full = next((levels[level] for level in sorted(levels) if len(levels[level]) >= RUNS_PER_MERGE), None)
        if full is None or self._manifest is None:
            return False
        before = self._manifest
        merged = merge_runs(self._directory / f"run-{before.next}", full, before.floor)
        runs = tuple(run for run in self.runs if run not in full)
        if merged:
            runs = (*runs, merged)
        self._replace_manifest(
            msgspec.structs.replace(before, runs=[run.path.name for run in runs], next=before.next + 1),
        )
        self.runs = runs
        for run in full:
            run.path.unlink()
        return True

    def _append_series_names(self, words: list[str]) -> int:
        end = self._manifest.names_bytes if self._manifest else 0
        if not words:
            return end
        packed = msgspec.msgpack.encode(words)
        number = os.open(self._directory / _NAMES, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(number, len(packed).to_bytes(4, "little") + xxhash.xxh3_64_digest(packed) + packed, end)
            os.ftruncate(number, end + 12 + len(packed))
            os.fsync(number)
        finally:
            os.close(number)
        return end + 12 + len(packed)

    def _replace_manifest(self, manifest: Manifest) -> None:
        body = msgspec.json.encode(manifest)
        write_private(self._directory / "manifest", xxhash.xxh3_64_hexdigest(body).encode() + b"\n" + body)
        sync_path(self._directory)
        self._manifest = manifest


def _read_series_names(directory: Path, manifest: Manifest) -> list[str]:
    path = directory / _NAMES
    raw = path.read_bytes()[: manifest.names_bytes] if manifest.names_bytes else b""
    words: list[str] = []
    start = 0
    while start < len(raw):
        size = int.from_bytes(raw[start : start + 4], "little")
        packed = raw[start + 12 : start + 12 + size]
        if len(packed) != size or xxhash.xxh3_64_digest(packed) != raw[start + 4 : start + 12]:
            raise DamagedFile(_NAMES, "its checksum is wrong")
        words += msgspec.msgpack.decode(packed, type=list[str])
        start += 12 + size
    if len(words) != manifest.series:
        raise DamagedFile(_NAMES, f"{len(words)} names, not {manifest.series}")
    return words


def _open_runs(directory: Path, manifest: Manifest) -> tuple[SortedRun, ...]:
    runs = tuple(SortedRun(directory / name) for name in manifest.runs)
    for run in runs:
        run.verify()
    return runs


def read_snapshot(directory: Path) -> CheckpointSnapshot | None:
    """Return the last checkpoint of a store that another process may be writing, verified; None: there is none.

    Raises:
        DamagedFile: a file is corrupt or missing.
        OSError: it cannot be read.
    """
    for last in (False, False, False, True):
        try:
            manifest = decode_manifest((directory / "manifest").read_bytes())
        except FileNotFoundError:
            return None
        try:
            read_state(directory, manifest.state, manifest.changes, manifest.series)
            return CheckpointSnapshot(
                manifest, _read_series_names(directory, manifest), _open_runs(directory, manifest)
            )
        except FileNotFoundError as why:
            # A newer checkpoint may have replaced it meanwhile.
            if last:
                raise DamagedFile(Path(why.filename).name, "it is not there") from why
    return None


def decode_manifest(content: bytes) -> Manifest:
    """Decode the content of a manifest file. Raises `DamagedFile`."""
    digest, _, body = content.partition(b"\n")
    if xxhash.xxh3_64_hexdigest(body).encode() != digest:
        raise DamagedFile("manifest", "its checksum is wrong")
    try:
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as why:
        raise DamagedFile("manifest", str(why)) from why


def _write_durably(path: Path, content: bytes) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.pwrite(number, content, 0)
        os.fsync(number)
    finally:
        os.close(number)
