"""A log in memory with the contract of the real one, for tests and for explaining messages."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from sensegate.bus.timelines import Timelines
from sensegate.clock import Clock, SystemClock
from sensegate.errors import EngineError, Fenced, StoreFull, Unavailable
from sensegate.model import Entry, Member


class MemoryLog:
    """`ports.Log` without a server. `bytes_max` caps it as `max_bytes` caps the stream.

    Faults on demand: `lose_next(written=…)` makes the next write end in `Unavailable`, with or without its effect.
    """

    def __init__(self, clock: Clock | None = None, *, epoch: str = "memory", bytes_max: int = 2**40) -> None:
        self._clock = clock or SystemClock()
        self._epoch = epoch
        self.timelines = Timelines.in_memory(epoch)
        self._bytes_max = bytes_max
        self._entries: list[Entry] = []
        self._expiry: dict[int, int] = {}
        self._bytes = 0
        self._last = 0
        self._subjects: dict[str, int] = {}
        self._moved = asyncio.Event()
        self._lose: bool | None = None

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload of a member."""
        return 1024**2 - 512

    def copy(self) -> MemoryLog:
        """Return a log of the same life that holds what this one holds now: as a backup of its store would."""
        made = MemoryLog(self._clock, epoch=self._epoch, bytes_max=self._bytes_max)
        made._entries, made._expiry = list(self._entries), dict(self._expiry)
        made._subjects, made._bytes, made._last = dict(self._subjects), self._bytes, self._last
        return made

    def lose_next(self, *, written: bool) -> None:
        """Let the next write raise `Unavailable`; `written` says whether it took effect all the same."""
        self._lose = written

    async def open(self) -> None:
        """Nothing to open; here for the same use as the real one."""

    async def close(self) -> None:
        """Nothing to close."""

    async def write(self, members: Sequence[Member]) -> int:
        await asyncio.sleep(0)
        if not members:
            raise EngineError("a commit has at least one member")
        lose, self._lose = self._lose, None
        if lose is False:
            raise Unavailable("lost on demand; nothing was written")
        self._expire()
        for member in members:
            present = self._subjects.get(member.subject, 0)
            if member.expect is not None and present != member.expect:
                raise Fenced(f"{member.subject}: last sequence {present}, expected {member.expect}")
        size = sum(len(member.payload) for member in members)
        if self._bytes + size > self._bytes_max:
            raise StoreFull("the log is full")
        for member in members:
            self._last += 1
            if member.rollup:
                self._drop({entry.sequence for entry in self._entries if entry.subject == member.subject})
            now = self._clock.now()
            self._entries.append(Entry(self._last, member.subject, member.payload, now))
            if member.ttl_h:
                self._expiry[self._last] = now + member.ttl_h * 3_600_000_000
            self._bytes += len(member.payload)
            self._subjects[member.subject] = self._last
        self._moved.set()
        self._moved = asyncio.Event()
        if lose:
            raise Unavailable("lost on demand; it was written")
        return self._last

    async def last(self, subject: str) -> Entry | None:
        self._expire()
        return next((entry for entry in reversed(self._entries) if entry.subject == subject), None)

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[Entry]:
        self._expire()
        start = bisect_right(self._entries, after, key=lambda entry: entry.sequence)
        found: list[Entry] = []
        size = 0
        for entry in self._entries[start : start + limit]:
            found.append(entry)
            size += len(entry.payload)
            if size >= max_bytes:
                break
        return found

    async def fetch_of(self, subject: str, after: int) -> list[Entry]:
        """Return the entries of a subject (its last word may be `*`) after a sequence, oldest first."""
        self._expire()
        stem = subject.removesuffix("*")

        def named(found: str) -> bool:
            return found == subject or (stem != subject and found.startswith(stem) and "." not in found[len(stem) :])

        return [entry for entry in self._entries if entry.sequence > after and named(entry.subject)]

    async def bounds(self) -> tuple[int, int]:
        self._expire()
        return (self._entries[0].sequence if self._entries else self._last + 1), self._last

    async def sequence_at(self, time: int) -> int:
        self._expire()
        index = bisect_left(self._entries, time, key=lambda entry: entry.time)
        return self._entries[index].sequence if index < len(self._entries) else self._last + 1

    async def changed(self, after: int, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self._last <= after:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _expire(self) -> None:
        now = self._clock.now()
        self._drop({sequence for sequence, end in self._expiry.items() if end <= now})

    def _drop(self, sequences: set[int]) -> None:
        if not sequences:
            return
        self._bytes -= sum(len(entry.payload) for entry in self._entries if entry.sequence in sequences)
        self._entries = [entry for entry in self._entries if entry.sequence not in sequences]
        for sequence in sequences:
            self._expiry.pop(sequence, None)
