"""A log in memory that fulfils the contract of the real one, for tests and `explain`."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from sensegate.bus.timelines import Timelines
from sensegate.clock import HOUR_US, Clock, SystemClock
from sensegate.errors import EngineError, Fenced, StoreFull, Unavailable
from sensegate.model import LogEntry, LogMessage


class MemoryLog:
    """`bus.contract.Log` without a server. `bytes_max` limits its size as `max_bytes` limits the stream.

    `fail_next_write(written=…)` makes the next write raise `Unavailable`, with or without effect.
    """

    def __init__(self, clock: Clock | None = None, *, epoch: str = "memory", bytes_max: int = 2**40) -> None:
        self._clock = clock or SystemClock()
        self._epoch = epoch
        self.timelines = Timelines.in_memory(epoch)
        self._bytes_max = bytes_max
        self._entries: list[LogEntry] = []
        self._expiry: dict[int, int] = {}
        self._bytes = 0
        self._last = 0
        self._subjects: dict[str, int] = {}
        self._advanced = asyncio.Event()
        self._failure_pending: bool | None = None

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload of a message."""
        return 1024**2 - 512

    def copy(self) -> MemoryLog:
        """Return a log of the same epoch with the same content, as restored from a backup of the store."""
        twin = MemoryLog(self._clock, epoch=self._epoch, bytes_max=self._bytes_max)
        twin._entries, twin._expiry = list(self._entries), dict(self._expiry)
        twin._subjects, twin._bytes, twin._last = dict(self._subjects), self._bytes, self._last
        return twin

    def fail_next_write(self, *, written: bool) -> None:
        """Have the next write raise `Unavailable`; `written`: it takes effect nevertheless."""
        self._failure_pending = written

    async def open(self) -> None:
        """Do nothing; present because a real log must be opened."""

    async def close(self) -> None:
        """Do nothing."""

    async def write(self, messages: Sequence[LogMessage]) -> int:
        await asyncio.sleep(0)
        if not messages:
            raise EngineError("a commit has at least one message")
        lose, self._failure_pending = self._failure_pending, None
        if lose is False:
            raise Unavailable("requested failure; nothing was written")
        self._expire()
        for member in messages:
            present = self._subjects.get(member.subject, 0)
            if member.expect is not None and present != member.expect:
                raise Fenced(f"{member.subject}: last sequence {present}, expected {member.expect}")
        size = sum(len(member.payload) for member in messages)
        if self._bytes + size > self._bytes_max:
            raise StoreFull("the log is full")
        for number, member in enumerate(messages, 1):
            self._last += 1
            if member.rollup:
                self._drop({entry.sequence for entry in self._entries if entry.subject == member.subject})
            now = self._clock.now()
            entry = LogEntry(
                self._last,
                member.subject,
                member.payload,
                now,
                ttl_h=member.ttl_h,
                rollup=member.rollup,
                ends_write=number == len(messages),
            )
            self._entries.append(entry)
            if member.ttl_h:
                self._expiry[self._last] = now + member.ttl_h * HOUR_US
            self._bytes += len(member.payload)
            self._subjects[member.subject] = self._last
        self._advanced.set()
        self._advanced = asyncio.Event()
        if lose:
            raise Unavailable("requested failure; it was written")
        return self._last

    async def last(self, subject: str) -> LogEntry | None:
        self._expire()
        return next((entry for entry in reversed(self._entries) if entry.subject == subject), None)

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        self._expire()
        start = bisect_right(self._entries, after, key=lambda entry: entry.sequence)
        page: list[LogEntry] = []
        size = 0
        for entry in self._entries[start : start + limit]:
            page.append(entry)
            size += len(entry.payload)
            if size >= max_bytes:
                break
        return page

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        """Return the entries of a subject (its tokens may be `*`) after a sequence, oldest first."""
        self._expire()
        wanted = subject.split(".")

        def matches(name: str) -> bool:
            tokens = name.split(".")
            return len(tokens) == len(wanted) and all(map(_is_token, tokens, wanted))

        return [entry for entry in self._entries if entry.sequence > after and matches(entry.subject)]

    async def bounds(self) -> tuple[int, int]:
        self._expire()
        return (self._entries[0].sequence if self._entries else self._last + 1), self._last

    @property
    def is_settled(self) -> bool:
        return True

    async def stored_end(self) -> int:
        return self._last

    async def sequence_at(self, time: int) -> int:
        self._expire()
        index = bisect_left(self._entries, time, key=lambda entry: entry.time)
        return self._entries[index].sequence if index < len(self._entries) else self._last + 1

    async def changed(self, after: int, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self._last <= after:
                    await self._advanced.wait()
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


def _is_token(token: str, wanted: str) -> bool:
    return wanted in {"*", token}
