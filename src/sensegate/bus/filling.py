"""Sequences of a log that must not be given again are taken by empty members that soon expire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from sensegate.bus.names import FILLER
from sensegate.model import Member

TOGETHER = 900
"""A server of others may take no more than 1,000 in one batch."""
FILLED_MAX = 500_000
"""More are not filled: it is no power cut that takes so much."""

_log = structlog.get_logger("bus")


class _Log(Protocol):
    async def write(self, members: Sequence[Member]) -> int: ...


async def fill(log: _Log, last: int, until: int) -> int:
    """Write members until a log that ends with `last` ends with `until`, or later; return its end.

    Raises:
        Unavailable, StoreFull: not all are written; begin again with where it ends.
    """
    if until - last > FILLED_MAX:
        _log.error(
            "so much of the log is gone that its sequences are given again, and with them ids of records: it is an old "
            "copy; put a new store in its place (`sensegate node replace` at the centre)",
            ended=last,
            had_reached=until,
        )
        return last
    while last < until:
        last = await log.write([Member(FILLER, b"", 1)] * min(TOGETHER, until - last))
    return last
