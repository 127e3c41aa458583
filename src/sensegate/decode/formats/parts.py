"""Join text that a device splits over several frames: what one frame must know of the previous one."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sensegate.decode.frame import PayloadFrame
from sensegate.decode.memory import Key
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

WAIT_US: Final = 300 * 1_000_000
"""Longest wait for the next frame of a report."""
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


class SplitReport:
    """The frames of one report as they arrive; for each, call `join` and then `keep`."""

    def __init__(self, frame: PayloadFrame, key: Key) -> None:
        self._frame = frame
        self._key = key
        self._number = 0
        self._tail = ""

    @classmethod
    def open(cls, form: str, report: str, frame: PayloadFrame) -> SplitReport:
        """Return the split report with the given id."""
        return cls(frame, (form, report))

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
            rest = _FrameRest(self._frame.received, time, self._tail)
            size = 200 + len(self._key[1]) + len(self._tail)
            self._frame.memory.put((self._key[0], f"{self._key[1]}\0{self._number}"), rest, size)

    def _rest_of(self, number: int) -> _FrameRest | None:
        if self._frame.memory is None:
            return None
        rest: _FrameRest | None = self._frame.memory.get((self._key[0], f"{self._key[1]}\0{number}"))
        return rest if rest and abs(self._frame.received - rest.received) <= WAIT_US else None


def _join_entries(tail: str, text: str) -> str:
    """Return the stored entry and the text of the next frame: as one entry that was split, or as two."""
    if not tail:
        return text
    last = tail.rpartition(",")[2]
    two = text.startswith("DataTime=") or (_ENTRY.match(text) and _PAIR.fullmatch(last))
    return f"{tail};{text}" if two else tail + text
