"""Timelines of a log: which run of the gateway wrote which range, so that the validity of a cursor can be checked.

A log that lost its end (a power cut, an older copy of the store) reuses sequences. So every start begins a new timeline
at the end that it finds, as PostgreSQL does after a recovery and Kafka with leader epochs:

    current    T1 (0, 151]      T3 (151, …        the log as it is; the mark of T3 is entry 151
    abandoned  T2, which began at 180             what was lost; it diverged from the log at 151

A cursor names the timeline of its entry. The log holds the same records before it as when it was issued exactly if that
timeline did not diverge earlier. Each timeline begins after its mark, an entry of the log: marks are lost, restored and
copied with the log, so they alone determine the current timelines. The file beside the log, synced before anything of a
new timeline is delivered, remembers what was lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from bisect import bisect_left
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, Self

import msgspec
import structlog
import xxhash

from sensegate.bus.files import write_private
from sensegate.errors import StoreFull
from sensegate.model import LogEntry, LogMessage

FILE = "log.timelines"
ID_BYTES = 6
TIMELINES_MAX = 1_000
"""Most current and most abandoned timelines that are remembered; each start of the gateway adds one."""
MARK_SUBJECTS = "commit.timeline."
"""Prefix of the subjects of marks, each a commit of one entry; a number follows, used in rotation."""
_LOG_BYTES = 2
_BASE = bytes(ID_BYTES - _LOG_BYTES)
_ENDLESS = 2**63

_log = structlog.get_logger("bus")


class Timeline(msgspec.Struct, frozen=True, array_like=True):
    """The entries that one run of the gateway wrote: those after `start`, up to the start of the next timeline."""

    id: bytes
    """Two bytes that depend on the log, four random ones."""
    start: int
    """Sequence of its mark, or the last sequence of the log where it had no space for a mark."""
    began: int
    """µs UTC."""
    marked: bool = True


class TimelineMark(msgspec.Struct, frozen=True):
    """Payload of the log entry after which a timeline begins."""

    id: bytes
    began: int


class AbandonedTimeline(msgspec.Struct, frozen=True, array_like=True):
    """A timeline whose end the log has lost."""

    id: bytes
    diverged_at: int
    """Up to this sequence the log holds the entries of that timeline."""


class TimelineHistory(msgspec.Struct, frozen=True):
    """All known timelines of a log."""

    log: str
    """Epoch of the log."""
    current: tuple[Timeline, ...] = ()
    """Timelines of what the log holds, oldest first; the one before the first mark has no mark."""
    abandoned: tuple[AbandonedTimeline, ...] = ()

    def with_timeline(self, marked: Sequence[Timeline], fresh: Timeline) -> TimelineHistory:
        """Return the history with `made` added; `marked`: timelines whose marks the log holds, oldest first."""
        surviving = self._surviving({(timeline.id, timeline.start) for timeline in marked}, fresh.start)
        known = {timeline.id for timeline in surviving}
        added = [timeline for timeline in (*marked, fresh) if timeline.id not in known]
        if not surviving and len(marked) < TIMELINES_MAX:
            surviving = (Timeline(_log_id(self.log) + _BASE, 0, 0, marked=False),)
        line = (*surviving, *sorted(added, key=lambda timeline: timeline.start))
        known |= {timeline.id for timeline in added}
        diverged = _ENDLESS
        if lost := [timeline for timeline in self.current if timeline not in surviving]:
            diverged = min(lost[0].start, line[len(surviving)].start)
        abandoned = [
            *(AbandonedTimeline(timeline.id, min(timeline.diverged_at, diverged)) for timeline in self.abandoned),
            *(AbandonedTimeline(timeline.id, diverged) for timeline in lost),
        ]
        remaining = tuple(timeline for timeline in abandoned if timeline.id not in known)
        return TimelineHistory(self.log, line[-TIMELINES_MAX:], remaining[-TIMELINES_MAX:])

    def _surviving(self, marks: set[tuple[bytes, int]], end: int) -> tuple[Timeline, ...]:
        """Return the timelines that the log still holds: up to the last existing mark, and those without marks."""
        count = 0
        for place, timeline in enumerate(self.current, 1):
            if (timeline.id, timeline.start) in marks:
                count = place
        for timeline in self.current[count:]:
            if timeline.marked or timeline.start > end:
                break
            count += 1
        return self.current[:count]


def _log_id(epoch: str) -> bytes:
    return hashlib.blake2s(epoch.encode(), digest_size=_LOG_BYTES).digest()


class _Log(Protocol):
    @property
    def timelines(self) -> Timelines: ...

    async def write(self, members: Sequence[LogMessage]) -> int: ...

    async def bounds(self) -> tuple[int, int]: ...

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]: ...


_mark = msgspec.json.Decoder(TimelineMark).decode


async def begin(log: _Log, now: int) -> None:
    """Begin a new timeline at the end of a log, before anything else is written; on return it is synced to the disk.

    Raises:
        Unavailable: the log does not answer.
        StoreFull: the file cannot be written.
    """
    entries = await _marks(log)
    marked = [made for entry in entries if (made := _timeline_of_mark(entry)) is not None]
    end = (await log.bounds())[1]
    number = int(entries[-1].subject.removeprefix(MARK_SUBJECTS)) if entries else 0
    # The mark of a start that wrote nothing else is replaced, so that repeated failing starts do not displace others.
    replaces = bool(entries) and entries[-1].sequence == end
    if entries and not replaces:
        number = (number + 1) % TIMELINES_MAX
    history = log.timelines.history
    made = Timeline(_log_id(history.log) + secrets.token_bytes(ID_BYTES - _LOG_BYTES), end, now, marked=False)
    try:
        payload = msgspec.json.encode(TimelineMark(made.id, now))
        sequence = await log.write([LogMessage(f"{MARK_SUBJECTS}{number}", payload, rollup=True)])
    except StoreFull as why:
        _log.warning("no space in the log for the mark of a timeline", reason=str(why))
    else:
        made = Timeline(made.id, sequence, now)
        marked = [timeline for timeline in marked if not (replaces and timeline.start == end)]
    fresh = history.with_timeline(marked, made)
    if lost := [known for known in fresh.abandoned[-1:] if known not in history.abandoned and known.diverged_at < end]:
        _log.warning("the log lost its end; cursors beyond it are refused", end=lost[0].diverged_at)
    await asyncio.to_thread(log.timelines.adopt, fresh)


async def follow(log: _Log) -> bool:
    """Adopt the timelines that the marks on a log tell, where another gateway writes it; return whether there are any.

    Raises:
        Unavailable: the log does not answer.
        StoreFull: the file cannot be written.
    """
    marked = [made for entry in await _marks(log) if (made := _timeline_of_mark(entry)) is not None]
    if not marked:
        return False
    history = log.timelines.history
    if history.current[-len(marked) :] != tuple(marked):
        await asyncio.to_thread(log.timelines.adopt, history.with_timeline(marked[:-1], marked[-1]))
    return True


async def _marks(log: _Log) -> list[LogEntry]:
    entries: list[LogEntry] = []
    while more := await log.fetch_of(f"{MARK_SUBJECTS}*", entries[-1].sequence if entries else 0):
        entries += more
    return entries


def _timeline_of_mark(entry: LogEntry) -> Timeline | None:
    """Return the timeline that begins with a mark; None where the entry cannot be decoded."""
    try:
        mark = _mark(entry.payload)
    except msgspec.DecodeError as why:
        _log.error("cannot decode the mark of a timeline", sequence=entry.sequence, reason=str(why))
        return None
    return Timeline(mark.id, entry.sequence, mark.began)


class Timelines:
    """The timelines of a log, stored in a file."""

    def __init__(self, history: TimelineHistory, file: Path | None = None) -> None:
        self._file = file
        self._set_history(history)

    @classmethod
    def in_memory(cls, epoch: str) -> Self:
        """Return the timelines of a log without a file: a single one for all of it."""
        digest = hashlib.blake2s(epoch.encode(), digest_size=ID_BYTES).digest()
        return cls(TimelineHistory(epoch, (Timeline(_log_id(epoch) + digest[_LOG_BYTES:], 0, 0),)))

    @classmethod
    def open(cls, directory: Path, epoch: str) -> Self:
        """Return the timelines of a log from the file in a directory; empty where it has none of this log."""
        file = directory / FILE
        try:
            history = _decoded(file.read_bytes())
        except FileNotFoundError:
            return cls(TimelineHistory(epoch), file)
        except (OSError, ValueError) as why:
            _log.error(
                "cannot read the file of timelines; they are rebuilt from the marks on the log, without abandoned ones",
                file=str(file),
                reason=str(why),
            )
            return cls(TimelineHistory(epoch), file)
        return cls(history if history.log == epoch else TimelineHistory(epoch), file)

    def adopt(self, history: TimelineHistory) -> None:
        """Replace the history (by the active centre's at its standby); on return it is synced to the disk.

        Raises:
            StoreFull: it cannot be written; nothing has changed.
        """
        if self._file is not None:
            try:
                _write(self._file, history)
            except OSError as why:
                raise StoreFull(f"{self._file}: not written: {why}") from why
        self._set_history(history)

    def _set_history(self, history: TimelineHistory) -> None:
        self._history = history
        self._starts = [timeline.start for timeline in history.current]
        self._agreed = {timeline.id: timeline.diverged_at for timeline in history.abandoned}
        self._last: dict[bytes, int] = {}
        for timeline, following in zip_longest(history.current, history.current[1:]):
            self._agreed[timeline.id] = following.start if following else _ENDLESS
            self._last[timeline.id] = following.start - following.marked if following else _ENDLESS
        self.fingerprint = xxhash.xxh3_64_digest(msgspec.msgpack.encode(history))

    @property
    def history(self) -> TimelineHistory:
        """The present history; it is replaced, never modified."""
        return self._history

    def timeline_at(self, sequence: int) -> bytes:
        """Return the id of the timeline of the entry with a sequence."""
        return self._history.current[max(bisect_left(self._starts, sequence) - 1, 0)].id

    def diverged_at(self, timeline: bytes) -> int | None:
        """Return up to which sequence the log holds the entries of a timeline; None: the timeline is unknown."""
        return self._agreed.get(timeline)

    def holds(self, timeline: bytes, sequence: int) -> bool | None:
        """Return whether the log holds an entry of a timeline with a sequence; None: the timeline is unknown."""
        if timeline in self._last:
            return sequence <= self._last[timeline]
        return False if timeline in self._agreed else None

    def resume_after(self, timeline: bytes, stored: int) -> int:
        """Return the sequence after which a reader resumes whose last entry, of an unknown timeline, was lost.

        The directory was restored from an older copy after that entry was stored (`stored`, µs): the first start since
        then found the end of the copy. 0: it is another log, or there was no start since.
        """
        if timeline[:_LOG_BYTES] != _log_id(self._history.log):
            return 0
        return next((known.start for known in self._history.current[1:] if known.began >= stored), 0)


def _decoded(content: bytes) -> TimelineHistory:
    digest, _, body = content.partition(b"\n")
    if xxhash.xxh3_64_hexdigest(body).encode() != digest:
        raise ValueError("the checksum is wrong")
    return msgspec.json.decode(body, type=TimelineHistory)


def _write(file: Path, history: TimelineHistory) -> None:
    body = msgspec.json.encode(history)
    write_private(file, xxhash.xxh3_64_hexdigest(body).encode() + b"\n" + body)
