"""Text that a device sends in several frames: what one frame must know of the one before it."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sensegate.decode.frame import Frame
from sensegate.decode.memory import Key
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

WAIT_US: Final = 300 * 1_000_000
"""The next frame of a report comes within this, or is none of it."""
_WHOLE = re.compile(r"(?:^|[;,])[^=;,]+-Flag=\w$", re.ASCII)
"""An entry that ends with a flag of one letter is not cut in two."""
_ENTRY = re.compile(r"[0-9A-Za-z]+-[A-Za-z]+=", re.ASCII)
_PAIR = re.compile(r"[^=;,]+=[^=;,]+", re.ASCII)


class _Left(msgspec.Struct, frozen=True):
    """What a frame left for the next one."""

    received: int
    time: str | None
    tail: str
    """Its last entry, where it may go on in the next frame."""


class Pieces:
    """The frames of one report, as they come; each is taken in by `join` and then `keep`."""

    def __init__(self, frame: Frame, key: Key) -> None:
        self._frame = frame
        self._key = key
        self._number = 0
        self._tail = ""

    @classmethod
    def of(cls, form: str, report: str, frame: Frame) -> Pieces:
        """Return the frames of a report, which `report` tells from all others."""
        return cls(frame, (form, report))

    def join(self, text: str, number: int, count: int) -> tuple[str | None, str]:
        """Return (the time that earlier frames gave, the whole entries of this frame, number `number` of `count`).

        Raises `Rejected` (unresolved) where the frame cannot be understood without one that was not heard.
        """
        self._number = number
        before = self._left(number - 1) if number > 1 else None
        if number > 1 and before is None and not text.startswith("DataTime="):
            said = f"frame {number} of {count} came without frame {number - 1}, or that was heard before a restart"
            raise Rejected(QuarantineReason.UNRESOLVED, said)
        text = _joined(before.tail if before else "", text)
        if number < count and self._frame.memory is not None and not _WHOLE.search(text) and text[-1:] != ";":
            text, semicolon, self._tail = text.rpartition(";")
            text += semicolon
        return (before.time if before else None), text

    def keep(self, time: str | None) -> None:
        """Leave the time and what was cut off for the next frame."""
        if self._number and self._frame.memory is not None:
            left = _Left(self._frame.received, time, self._tail)
            size = 200 + len(self._key[1]) + len(self._tail)
            self._frame.memory.put((self._key[0], f"{self._key[1]}\0{self._number}"), left, size)

    def _left(self, number: int) -> _Left | None:
        if self._frame.memory is None:
            return None
        found: _Left | None = self._frame.memory.get((self._key[0], f"{self._key[1]}\0{number}"))
        return found if found and abs(self._frame.received - found.received) <= WAIT_US else None


def _joined(tail: str, text: str) -> str:
    """Return an entry that was left and the text of the next frame: one entry that was cut in two, or two."""
    if not tail:
        return text
    last = tail.rpartition(",")[2]
    two = text.startswith("DataTime=") or (_ENTRY.match(text) and _PAIR.fullmatch(last))
    return f"{tail};{text}" if two else tail + text
