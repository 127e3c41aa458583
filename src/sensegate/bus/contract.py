"""The contract of a log: every implementation passes `tests/contracts/test_log.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sensegate.bus.timelines import Timelines
from sensegate.model import LogEntry, LogMessage


class Log(Protocol):
    """The one durable record of a node or centre."""

    @property
    def epoch(self) -> str:
        """Identity of the log; another one after it was created again."""
        ...

    @property
    def timelines(self) -> Timelines:
        """Timelines: which run of the gateway wrote which range; each cursor names one."""
        ...

    async def write(self, messages: Sequence[LogMessage]) -> int:
        """Write all messages or none, with consecutive sequences; return the sequence of the last.

        Raises `Fenced` (an expected sequence is wrong), `StoreFull`, `Unavailable` (unknown outcome: read the last
        commit).
        """
        ...

    async def last(self, subject: str) -> LogEntry | None:
        """Return the last entry of a literal subject; None: there is none."""
        ...

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        """Return the entries after a sequence, oldest first; empty at the end of the log. Sequences may have gaps."""
        ...

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        """Return the next entries of a subject after a sequence, oldest first; tokens of the subject may be ``*``."""
        ...

    async def bounds(self) -> tuple[int, int]:
        """Return (first, last) sequence; (last + 1, last) for an empty log."""
        ...

    @property
    def is_settled(self) -> bool:
        """Return whether this is known to be the log that readers follow; a peer centre must have been heard first."""
        ...

    async def stored_end(self) -> int:
        """Return the last sequence that is stored; of two centres it may not be visible yet (`bounds`)."""
        ...

    async def sequence_at(self, time: int) -> int:
        """Return the sequence of the first entry stored at or after `time` (µs); last + 1 if none."""
        ...

    async def changed(self, after: int, timeout_s: float) -> bool:
        """Wait until the log has an entry after `after`; return False after `timeout_s`."""
        ...
