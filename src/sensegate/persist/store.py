"""The duplicate state on disk: a manifest that names everything else, replaced in one rename.

`manifest` names the log sequence it is valid to. `series.names` only grows; `state-N` holds the marks; `run-N` hold
identities. Each file has checksums, which are checked when the store is opened; a damaged one is set aside, and all is
built again from the log. What the manifest does not name is a leftover of a crash, and is removed. `lost.end`
remembers, until `forgive`, that the log once reached further than it does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import numpy as np
import structlog
import xxhash

from sensegate import metrics
from sensegate.bus.timelines import Timelines
from sensegate.model import FORMAT, I64
from sensegate.persist.marks import COLUMNS
from sensegate.persist.recent import Recent
from sensegate.persist.runs import Damaged, Run, hour_of, merge, write_recent

_LOST, _NAMES = "lost.end", "series.names"
ASIDE = "damaged."
"""Damaged files are kept under their names with this before them."""
FAN = 4
"""So many runs of about one size are merged into one."""

_log = structlog.get_logger("persist")


class Manifest(msgspec.Struct, frozen=True):
    """What a checkpoint consists of."""

    epoch: str
    """Life of the log."""
    timeline: bytes
    """Timeline of the log's entry at `sequence`."""
    sequence: int
    """The state holds all of the log up to here, and nothing after."""
    floor: int
    """Hours before this are forgotten."""
    latest: int
    """Latest arrival seen, µs."""
    runs: list[str]
    state: str
    series: int
    names_bytes: int
    next: int
    """Number of the next file."""
    witness: int = 0
    """Sequence of an entry that the log holds as long as it holds the end of this state; 0: none is known."""
    format: int = FORMAT


class Checkpoint(msgspec.Struct, frozen=True, eq=False):
    """State between two commits, to be written once the first of them is in the log."""

    ordinal: int
    recent: Recent
    marks: list[I64]
    words: list[str]
    """Names of all series of `marks`; the list may have grown since."""
    floor: int
    latest: int


class Opened(msgspec.Struct, frozen=True, eq=False):
    """What was found on disk."""

    manifest: Manifest
    marks: list[I64]
    words: list[str]


class Snapshot(msgspec.Struct, frozen=True, eq=False):
    """A checkpoint as it is read beside its writer."""

    manifest: Manifest
    words: list[str]
    runs: tuple[Run, ...]


class Store:
    """Files of one partition. Used by one thread at a time; `runs` may be read by any."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifest: Manifest | None = None
        self.runs: tuple[Run, ...] = ()
        self.lost_end = 0
        """Sequence that the log had reached once and no longer has; 0: it has lost nothing, as far as known here."""
        self.damage = ""
        """What `open` found damaged; empty: nothing."""

    @property
    def sequence(self) -> int:
        """Log sequence to which the last checkpoint is valid; 0: there is none."""
        return self._manifest.sequence if self._manifest else 0

    @property
    def witness(self) -> int:
        """As of `Manifest.witness`."""
        return self._manifest.witness if self._manifest else 0

    def open(self, timelines: Timelines, last: int) -> Opened | None:
        """Return the last checkpoint; None where there is none that fits a log of these timelines and last sequence."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._manifest, self.runs, self.lost_end, self.damage = None, (), 0, ""
        opened = None
        try:
            opened = self._load(timelines, last)
        except (OSError, ValueError) as why:
            self.damage = str(why)
            _log.error("the duplicate index is damaged and is built again from the log", reason=str(why))
            metrics.LIMIT_HITS.labels("index_damaged").inc()
            self._manifest, self.runs = None, ()
            if isinstance(why, Damaged):
                self._set_aside(why.name)
        self._clean()
        self.lost_end = self._read_lost(timelines.history.log)
        return opened

    def discard(self) -> None:
        """Remove the last checkpoint: the log does not hold what it was made of."""
        self._manifest, self.runs = None, ()
        self._clean()

    def _set_aside(self, name: str) -> None:
        """Keep a damaged file, for whoever looks for the cause; one of a name."""
        with contextlib.suppress(OSError):
            (self._directory / name).replace(self._directory / f"{ASIDE}{name.partition('-')[0]}")

    def forgive(self) -> None:
        """Forget what `lost_end` says: it is dealt with."""
        (self._directory / _LOST).unlink(missing_ok=True)
        self.lost_end = 0

    def _read_lost(self, epoch: str) -> int:
        try:
            life, _, reached = (self._directory / _LOST).read_text(encoding="ascii").partition(" ")
        except (OSError, ValueError):
            return 0
        return int(reached) if life == epoch and reached.isdecimal() else 0

    def _load(self, timelines: Timelines, last: int) -> Opened | None:
        path = self._directory / "manifest"
        if not path.exists():
            return None
        manifest = decode_manifest(path.read_bytes())
        epoch = timelines.history.log
        held = timelines.holds(manifest.timeline, manifest.sequence)
        if manifest.epoch != epoch or manifest.sequence > last or not held or manifest.format != FORMAT:
            # A log that was made anew or has lost its end no longer holds what this state says it does.
            _log.warning("the duplicate index is of another log and is built again", sequence=manifest.sequence)
            if manifest.epoch == epoch and (manifest.sequence > last or held is False):
                _durable(self._directory / _LOST, f"{epoch} {manifest.sequence}".encode())
            return None
        marks = _read_marks(self._directory, manifest)
        words = _read_words(self._directory, manifest)
        self.runs = _verified(self._directory, manifest)
        self._manifest = manifest
        return Opened(manifest, marks, words)

    def _clean(self) -> None:
        named = {"manifest", _NAMES}
        if self._manifest:
            named |= {self._manifest.state, *self._manifest.runs}
        for path in self._directory.iterdir():
            if path.name not in named and path.name.startswith(("run-", "state-", "manifest.")):
                path.unlink()
        if self._manifest is None:
            for name in ("manifest", _NAMES):
                (self._directory / name).unlink(missing_ok=True)

    def save(self, checkpoint: Checkpoint, timelines: Timelines, sequence: int, witness: int = 0) -> None:
        """Make a checkpoint durable: everything it names is on disk before the manifest is.

        `witness`: an entry that the log holds as long as it holds the end of what this was made of.
        """
        before = self._manifest
        number = before.next if before else 1
        run = write_recent(self._directory / f"run-{number}", checkpoint.recent, checkpoint.floor)
        kept = [one for one in self.runs if any(hour_of(hour) >= checkpoint.floor for hour in one.buckets.tolist())]
        dropped = [one for one in self.runs if one not in kept]
        runs = (*kept, run) if run else tuple(kept)
        state = f"state-{number}"
        body = np.concatenate(checkpoint.marks).tobytes()
        _durable(self._directory / state, xxhash.xxh3_64_digest(body) + body)
        series = len(checkpoint.marks[0])
        self._put(
            Manifest(
                timelines.history.log,
                timelines.of(sequence),
                sequence,
                checkpoint.floor,
                checkpoint.latest,
                [one.path.name for one in runs],
                state,
                series,
                self._append_words(checkpoint.words[before.series if before else 0 : series]),
                number + 1,
                witness,
            )
        )
        self.runs = runs
        for one in dropped:
            one.path.unlink()
        if before:
            (self._directory / before.state).unlink(missing_ok=True)
        for one in self.runs:
            one.forget()

    def tidy(self) -> bool:
        """Merge runs of one size where there are enough of them; return whether there were. Raises `Damaged`."""
        levels: dict[int, list[Run]] = {}
        for run in self.runs:
            levels.setdefault((len(run) >> 14).bit_length() // 2, []).append(run)
        full = next((levels[level] for level in sorted(levels) if len(levels[level]) >= FAN), None)
        if full is None or self._manifest is None:
            return False
        before = self._manifest
        merged = merge(self._directory / f"run-{before.next}", full, before.floor)
        runs = tuple(run for run in self.runs if run not in full)
        if merged:
            runs = (*runs, merged)
        self._put(
            msgspec.structs.replace(before, runs=[run.path.name for run in runs], next=before.next + 1),
        )
        self.runs = runs
        for run in full:
            run.path.unlink()
        return True

    def _append_words(self, words: list[str]) -> int:
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

    def _put(self, manifest: Manifest) -> None:
        body = msgspec.json.encode(manifest)
        _durable(self._directory / "manifest.new", xxhash.xxh3_64_hexdigest(body).encode() + b"\n" + body)
        (self._directory / "manifest.new").replace(self._directory / "manifest")
        number = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
        self._manifest = manifest


def _read_marks(directory: Path, manifest: Manifest) -> list[I64]:
    raw = (directory / manifest.state).read_bytes()
    if len(raw) != 8 + len(COLUMNS) * 8 * manifest.series:
        raise Damaged(manifest.state, "cut short")
    if xxhash.xxh3_64_digest(raw[8:]) != raw[:8]:
        raise Damaged(manifest.state, "its checksum is wrong")
    whole = np.frombuffer(raw, np.int64, offset=8).reshape(len(COLUMNS), manifest.series)
    return [column.copy() for column in whole]


def _read_words(directory: Path, manifest: Manifest) -> list[str]:
    path = directory / _NAMES
    raw = path.read_bytes()[: manifest.names_bytes] if manifest.names_bytes else b""
    words: list[str] = []
    start = 0
    while start < len(raw):
        size = int.from_bytes(raw[start : start + 4], "little")
        packed = raw[start + 12 : start + 12 + size]
        if len(packed) != size or xxhash.xxh3_64_digest(packed) != raw[start + 4 : start + 12]:
            raise Damaged(_NAMES, "its checksum is wrong")
        words += msgspec.msgpack.decode(packed, type=list[str])
        start += 12 + size
    if len(words) != manifest.series:
        raise Damaged(_NAMES, f"{len(words)} names, not {manifest.series}")
    return words


def _verified(directory: Path, manifest: Manifest) -> tuple[Run, ...]:
    runs = tuple(Run(directory / name) for name in manifest.runs)
    for run in runs:
        run.verify()
    return runs


def snapshot(directory: Path) -> Snapshot | None:
    """Return the last checkpoint of a store that another may be writing, every file checked; None: there is none.

    Raises:
        Damaged: a file is not as it was written, or not there.
        OSError: it cannot be read.
    """
    for last in (False, False, False, True):
        try:
            manifest = decode_manifest((directory / "manifest").read_bytes())
        except FileNotFoundError:
            return None
        try:
            _read_marks(directory, manifest)
            return Snapshot(manifest, _read_words(directory, manifest), _verified(directory, manifest))
        except FileNotFoundError as why:
            # A checkpoint may have taken its place meanwhile.
            if last:
                raise Damaged(Path(why.filename).name, "it is not there") from why
    return None


def decode_manifest(content: bytes) -> Manifest:
    """Return the manifest in a file. Raises `Damaged`."""
    digest, _, body = content.partition(b"\n")
    if xxhash.xxh3_64_hexdigest(body).encode() != digest:
        raise Damaged("manifest", "its checksum is wrong")
    try:
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as why:
        raise Damaged("manifest", str(why)) from why


def _durable(path: Path, content: bytes) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.pwrite(number, content, 0)
        os.fsync(number)
    finally:
        os.close(number)
