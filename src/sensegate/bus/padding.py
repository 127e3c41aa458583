"""Sequence padding: empty messages that soon expire use up sequences that must not be assigned again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from sensegate.bus.names import PADDING_SUBJECT
from sensegate.model import LogMessage

PADDING_BATCH = 900
"""Messages per batch; an external server may accept at most 1,000."""
PADDING_MAX = 500_000
"""Most sequences that are padded: a power cut cannot lose more."""

_log = structlog.get_logger("bus")


class _Log(Protocol):
    async def write(self, messages: Sequence[LogMessage], /) -> int: ...


async def pad(log: _Log, last: int, until: int) -> int:
    """Write empty messages until a log that ends at `last` ends at `until` or later; return its last sequence.

    Raises:
        Unavailable, StoreFull: not all were written; call again with the last sequence of the log.
    """
    if until - last > PADDING_MAX:
        _log.error(
            "the log lost so many entries that its sequences, and with them record ids, will be reused: it is an old "
            "copy; replace it with a new store (`sensegate node replace` at the centre)",
            last=last,
            last_before=until,
        )
        return last
    while last < until:
        last = await log.write([LogMessage(PADDING_SUBJECT, b"", 1)] * min(PADDING_BATCH, until - last))
    return last
