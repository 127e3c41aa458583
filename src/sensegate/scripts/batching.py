"""Size and form of the batches in which a script's calls go into one evaluation of the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from sensegate.scripts.wire import ScriptCall

BATCH_MAX: Final = 64
BATCH_BYTES: Final = 16_384
"""Greatest number of calls in one evaluation, and of the bytes of their frames."""
SHARE: Final = 0.25
"""Share of a call's CPU limit that a batch may take; after a slower one the next is half as long."""


class BatchSize:
    """The number of calls of one script that go into one evaluation.

    It starts with one and doubles with each evaluation, as long as these stay far below the limit of a call. After a
    batch whose mean is too high calls are evaluated one by one for a while, to tell which of them are slow.
    """

    def __init__(self, mean_ms: float = math.inf) -> None:
        self._mean_ms = mean_ms
        self._size = 1
        self._singly = 0

    def of(self, calls: Sequence[ScriptCall], at_most: int) -> int:
        """Return how many of the calls go into the next evaluation, at least one."""
        if self._singly:
            return 1
        count, left = 0, BATCH_BYTES
        for call in calls[: max(0, min(self._size, at_most))]:
            left -= len(call.payload)
            if left < 0:
                break
            count += 1
        return max(1, count)

    def record(self, count: int, cpu_ms: float, limit_ms: float) -> None:
        """Record the CPU time of an evaluation of so many calls, with the limit of a single one."""
        if self._singly:
            self._singly -= 1
        elif count > 1 and cpu_ms > count * self._mean_ms:
            self.record_stop(BATCH_MAX)
        elif cpu_ms > limit_ms * SHARE:
            self._size = max(1, self._size // 2)
        elif count >= self._size:
            self._size = min(BATCH_MAX, self._size * 2)

    def record_stop(self, count: int) -> None:
        """Record that the next `count` calls must be evaluated one by one."""
        self._singly = count
        self._size = 1


def pack(calls: Sequence[ScriptCall]) -> tuple[str, str, int]:
    """Return what `run` of the harness takes for several frames: their bytes, their heads, and a time."""
    first = calls[0].received_ms
    heads = [number for call in calls for number in (len(call.payload), call.port, call.received_ms - first)]
    return b"".join([call.payload for call in calls]).hex(), msgspec.json.encode(heads).decode("ascii"), first
