"""Join text that a device splits over several frames: what one frame must know of the previous one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from sensegate.decode.frame import PayloadFrame
from sensegate.decode.memory import Key
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

WAIT_US: Final = 300 * 1_000_000
"""Longest wait for the next frame of a report."""
REPORTS_MAX: Final = 256
"""Most reports of one topic that wait for their next frame; the oldest is dropped first."""
_COMPLETE_ENTRY = re.compile(r"(?:^|[;,])[^=;,]+-Flag=\w$", re.ASCII)
"""An entry that ends with a flag of one letter is complete."""
_ENTRY = re.compile(r"[0-9A-Za-z]+-[A-Za-z]+=", re.ASCII)
_PAIR = re.compile(r"[^=;,]+=[^=;,]+", re.ASCII)


class _FrameRest(msgspec.Struct, frozen=True):
    """Part of a frame that belongs to the next one."""

    received: int
    time: str | None
    tail: str
    """Its last entry, if it may continue in the next frame."""
    size: int
    """Approximate size in bytes."""


_Waiting = Mapping[str, _FrameRest]
"""Rests of the reports of one topic, by report and number of the frame, the oldest first."""


class SplitReport:
    """The frames of one report as they arrive; for each, call `join` and then `keep`."""

    def __init__(self, form: str, report: str, frame: PayloadFrame) -> None:
        """`report`: its id among the reports of the frame's topic."""
        self._frame = frame
        self._key: Key = (form, frame.topic)
        self._report = report
        self._number = 0
        self._tail = ""

    def join(self, text: str, number: int, count: int) -> tuple[str | None, str]:
        """Return (time from earlier frames, complete entries of this frame, which is number `number` of `count`).

        Raises `Rejected` (unresolved) if the frame cannot be decoded without one that was not received.
        """
        self._number = number
        previous = self._rest_of(number - 1) if number > 1 else None
        if number > 1 and previous is None and not text.startswith("DataTime="):
            detail = f"frame {number} of {count} arrived without frame {number - 1}, or that one came before a restart"
            raise Rejected(QuarantineReason.UNRESOLVED, detail)
        text = _join_entries(previous.tail if previous else "", text)
        if number < count and self._frame.memory is not None and not _COMPLETE_ENTRY.search(text) and text[-1:] != ";":
            text, semicolon, self._tail = text.rpartition(";")
            text += semicolon
        return (previous.time if previous else None), text

    def keep(self, time: str | None) -> None:
        """Store the time and the split entry for the next frame."""
        if self._number and self._frame.memory is not None:
            name = f"{self._report}\0{self._number}"
            size = 200 + 2 * (len(name) + len(self._tail) + len(time or ""))
            waiting = {key: rest for key, rest in self._waiting().items() if key != name and self._is_awaited(rest)}
            waiting[name] = _FrameRest(self._frame.received, time, self._tail, size)
            while len(waiting) > REPORTS_MAX:
                del waiting[next(iter(waiting))]
            self._frame.memory.put(self._key, waiting, sum(rest.size for rest in waiting.values()))

    def _rest_of(self, number: int) -> _FrameRest | None:
        rest = self._waiting().get(f"{self._report}\0{number}")
        return rest if rest and self._is_awaited(rest) else None

    def _waiting(self) -> _Waiting:
        waiting: _Waiting | None = None if self._frame.memory is None else self._frame.memory.get(self._key)
        return waiting or {}

    def _is_awaited(self, rest: _FrameRest) -> bool:
        return abs(self._frame.received - rest.received) <= WAIT_US


def _join_entries(tail: str, text: str) -> str:
    """Return the stored entry and the text of the next frame: as one entry that was split, or as two."""
    if not tail:
        return text
    last = tail.rpartition(",")[2]
    two = text.startswith("DataTime=") or (_ENTRY.match(text) and _PAIR.fullmatch(last))
    return f"{tail};{text}" if two else tail + text
