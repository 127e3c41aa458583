"""Timelines of a log: which run of the gateway wrote which range of it, so that a cursor can be checked for truth.

A log that lost its end (a power cut, an older copy of the store) gives its sequences again. So every start begins a new
timeline at the end that it finds, as PostgreSQL does after a recovery and Kafka with the epochs of its leaders:

    line       T1 (0, 151]      T3 (151, …        the log as it is; the mark of T3 stands at 151
    abandoned  T2, which began at 180             what was lost; it agrees with the line up to 151

A cursor names the timeline of its entry. Its place holds the same records as when it was given out exactly if that
timeline and the line agree up to there. Each timeline begins behind its mark, an entry of the log: marks are lost with
the log, restored with it and copied with it, so they alone say what the line is. The file beside the log, flushed
before anything of a new timeline is delivered, remembers what was lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from bisect import bisect_left
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, Self

import msgspec
import structlog
import xxhash

from sensegate.errors import StoreFull
from sensegate.model import Entry, Member

FILE = "log.timelines"
ID_BYTES = 6
KEPT_MAX = 1_000
"""Most timelines that are remembered of a line, and of what was abandoned: one for each start of the gateway."""
MARKS = "commit.timeline."
"""Subjects of marks, each a commit of one entry; numbers from 0 to KEPT_MAX - 1 follow, used in turn."""
_LOG_BYTES = 2
_BASE = bytes(ID_BYTES - _LOG_BYTES)
_ENDLESS = 2**63

_log = structlog.get_logger("bus")


class Timeline(msgspec.Struct, frozen=True, array_like=True):
    """One run of the gateway as it wrote the log: all entries after `start`, to where the next timeline starts."""

    id: bytes
    """Two bytes by which logs differ, four by chance."""
    start: int
    """Sequence of its mark, or with which the log ended where there was no room for one."""
    began: int
    """µs UTC."""
    marked: bool = True


class Mark(msgspec.Struct, frozen=True):
    """Entry of the log after which a timeline begins."""

    id: bytes
    began: int


class Abandoned(msgspec.Struct, frozen=True, array_like=True):
    """A timeline of which the log holds nothing any more."""

    id: bytes
    agreed: int
    """Up to this sequence the log is as it was on that timeline."""


class History(msgspec.Struct, frozen=True):
    """All timelines of a log."""

    log: str
    """Epoch of the log."""
    line: tuple[Timeline, ...] = ()
    """Those that wrote what the log holds, oldest first; before the first mark of all a log has one without."""
    abandoned: tuple[Abandoned, ...] = ()

    def begun(self, marked: Sequence[Timeline], made: Timeline) -> History:
        """Return the history with a new timeline; `marked` are those whose marks the log holds, oldest first."""
        kept = self._kept({(timeline.id, timeline.start) for timeline in marked}, made.start)
        known = {timeline.id for timeline in kept}
        rest = [timeline for timeline in (*marked, made) if timeline.id not in known]
        if not kept and len(marked) < KEPT_MAX:
            kept = (Timeline(_log_id(self.log) + _BASE, 0, 0, marked=False),)
        line = (*kept, *sorted(rest, key=lambda timeline: timeline.start))
        known |= {timeline.id for timeline in rest}
        diverged = _ENDLESS
        if lost := [timeline for timeline in self.line if timeline not in kept]:
            diverged = min(lost[0].start, line[len(kept)].start)
        abandoned = [
            *(Abandoned(timeline.id, min(timeline.agreed, diverged)) for timeline in self.abandoned),
            *(Abandoned(timeline.id, diverged) for timeline in lost),
        ]
        left = tuple(timeline for timeline in abandoned if timeline.id not in known)
        return History(self.log, line[-KEPT_MAX:], left[-KEPT_MAX:])

    def _kept(self, marks: set[tuple[bytes, int]], end: int) -> tuple[Timeline, ...]:
        """Return the timelines that the log still holds: up to the last whose mark is there, and those without."""
        count = 0
        for place, timeline in enumerate(self.line, 1):
            if (timeline.id, timeline.start) in marks:
                count = place
        for timeline in self.line[count:]:
            if timeline.marked or timeline.start > end:
                break
            count += 1
        return self.line[:count]


def _log_id(epoch: str) -> bytes:
    return hashlib.blake2s(epoch.encode(), digest_size=_LOG_BYTES).digest()


class _Log(Protocol):
    @property
    def timelines(self) -> Timelines: ...

    async def write(self, members: Sequence[Member]) -> int: ...

    async def bounds(self) -> tuple[int, int]: ...

    async def fetch_of(self, subject: str, after: int) -> list[Entry]: ...


_mark = msgspec.json.Decoder(Mark).decode


async def begin(log: _Log, now: int) -> None:
    """Begin a new timeline at the end of a log, before anybody else writes; it is on the disk when this returns.

    Raises:
        Unavailable: the log does not answer.
        StoreFull: the file cannot be written.
    """
    entries = await _marks(log)
    marked = [made for entry in entries if (made := _marked(entry)) is not None]
    end = (await log.bounds())[1]
    number = int(entries[-1].subject.removeprefix(MARKS)) if entries else 0
    # A start that wrote nothing but its mark is replaced: one that fails again and again pushes out no others.
    replaces = bool(entries) and entries[-1].sequence == end
    if entries and not replaces:
        number = (number + 1) % KEPT_MAX
    history = log.timelines.history
    made = Timeline(_log_id(history.log) + secrets.token_bytes(ID_BYTES - _LOG_BYTES), end, now, marked=False)
    try:
        payload = msgspec.json.encode(Mark(made.id, now))
        sequence = await log.write([Member(f"{MARKS}{number}", payload, rollup=True)])
    except StoreFull as why:
        _log.warning("the log has no room for the mark of a timeline", reason=str(why))
    else:
        made = Timeline(made.id, sequence, now)
        marked = [timeline for timeline in marked if not (replaces and timeline.start == end)]
    fresh = history.begun(marked, made)
    if lost := [known for known in fresh.abandoned[-1:] if known not in history.abandoned and known.agreed < end]:
        _log.warning("the log ends earlier than it did; cursors behind its end are refused", end=lost[0].agreed)
    await asyncio.to_thread(log.timelines.adopt, fresh)


async def _marks(log: _Log) -> list[Entry]:
    entries: list[Entry] = []
    while more := await log.fetch_of(f"{MARKS}*", entries[-1].sequence if entries else 0):
        entries += more
    return entries


def _marked(entry: Entry) -> Timeline | None:
    """Return the timeline of which an entry is the mark; None where it is not readable."""
    try:
        mark = _mark(entry.payload)
    except msgspec.DecodeError as why:
        _log.error("a mark of a timeline is not readable", sequence=entry.sequence, reason=str(why))
        return None
    return Timeline(mark.id, entry.sequence, mark.began)


class Timelines:
    """The history of one log and its file."""

    def __init__(self, history: History, file: Path | None = None) -> None:
        self._file = file
        self._take(history)

    @classmethod
    def in_memory(cls, epoch: str) -> Self:
        """Return one timeline for all of a log of which no file is kept."""
        digest = hashlib.blake2s(epoch.encode(), digest_size=ID_BYTES).digest()
        return cls(History(epoch, (Timeline(_log_id(epoch) + digest[_LOG_BYTES:], 0, 0),)))

    @classmethod
    def open(cls, directory: Path, epoch: str) -> Self:
        """Return the timelines of a log as they are kept in a directory; none where nothing is known of this log."""
        file = directory / FILE
        try:
            history = _decoded(file.read_bytes())
        except FileNotFoundError:
            return cls(History(epoch), file)
        except (OSError, ValueError) as why:
            _log.error(
                "the file of timelines is not readable; the marks on the log replace it, but for what was lost before",
                file=str(file),
                reason=str(why),
            )
            return cls(History(epoch), file)
        return cls(history if history.log == epoch else History(epoch), file)

    def adopt(self, history: History) -> None:
        """Take over a history, the active centre's at its standby; it is on the disk when this returns.

        Raises:
            StoreFull: it cannot be written; nothing has changed.
        """
        if self._file is not None:
            try:
                _write(self._file, history)
            except OSError as why:
                raise StoreFull(f"{self._file}: not written: {why}") from why
        self._take(history)

    def _take(self, history: History) -> None:
        self._history = history
        self._starts = [timeline.start for timeline in history.line]
        self._agreed = {timeline.id: timeline.agreed for timeline in history.abandoned}
        self._last: dict[bytes, int] = {}
        for timeline, following in zip_longest(history.line, history.line[1:]):
            self._agreed[timeline.id] = following.start if following else _ENDLESS
            self._last[timeline.id] = following.start - following.marked if following else _ENDLESS
        self.fingerprint = xxhash.xxh3_64_digest(msgspec.msgpack.encode(history))

    @property
    def history(self) -> History:
        """All of it as of now; it is replaced as a whole, never changed."""
        return self._history

    def of(self, sequence: int) -> bytes:
        """Return the id of the timeline that wrote the entry of a sequence."""
        return self._history.line[max(bisect_left(self._starts, sequence) - 1, 0)].id

    def agreed(self, timeline: bytes) -> int | None:
        """Return up to which sequence the log is as it was on a timeline; None: it is not known."""
        return self._agreed.get(timeline)

    def holds(self, timeline: bytes, sequence: int) -> bool | None:
        """Return whether the log holds the entry of a sequence as a timeline wrote it; None: it is not known."""
        if timeline in self._last:
            return sequence <= self._last[timeline]
        return False if timeline in self._agreed else None

    def restart(self, timeline: bytes, stored: int) -> int:
        """Return the sequence after which to read on, for who stands after a lost entry of an unknown timeline.

        Whoever put back the whole directory from an older copy did so after the entry was stored (µs): the first start
        since then found what the copy holds. Of another log, or where no start is as late: 0.
        """
        if timeline[:_LOG_BYTES] != _log_id(self._history.log):
            return 0
        return next((known.start for known in self._history.line[1:] if known.began >= stored), 0)


def _decoded(content: bytes) -> History:
    digest, _, body = content.partition(b"\n")
    if xxhash.xxh3_64_hexdigest(body).encode() != digest:
        raise ValueError("its checksum is wrong")
    return msgspec.json.decode(body, type=History)


def _write(file: Path, history: History) -> None:
    body = msgspec.json.encode(history)
    fresh = file.with_name(f"{file.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
        stream.write(xxhash.xxh3_64_hexdigest(body).encode() + b"\n" + body)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
