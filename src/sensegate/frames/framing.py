"""Position of the next frame in a stream of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sensegate.model import Framing

FrameFinder = Callable[[bytes], Framing]
SoundLength = Callable[[bytes, int], int]
"""(buffer, offset) -> length of the complete frame with a right checksum that starts there, 0 if there is none."""
_MARKS_TRIED: Final = 8
"""Number of start marks tried within a frame: each may cost a checksum."""


def keep_from(buffer: bytes, mark: bytes, at: int = 0) -> int:
    """Return the offset from which a buffer without `mark` must be kept, as a mark may start at its end."""
    for size in range(min(len(mark) - 1, len(buffer) - at), 0, -1):
        if buffer.endswith(mark[:size]):
            return len(buffer) - size
    return len(buffer)


def find_sound(buffer: bytes, start: int, stop: int, mark: bytes, sound_length: SoundLength) -> Framing | None:
    """Find a complete frame with a right checksum that starts in a frame from `start` to `stop`, if with its last byte.

    That frame is incomplete, or its checksum is wrong: it may be what is left of a truncated one, whose length covers
    the frames behind it.
    """
    at = start
    for _ in range(_MARKS_TRIED):
        at = buffer.find(mark, at + 1, stop + len(mark) - 1)
        if at < 0:
            return None
        if length := sound_length(buffer, at):
            return Framing(at, length)
    return None
