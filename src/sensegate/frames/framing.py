"""Position of the next frame in a stream of bytes."""

from __future__ import annotations

from collections.abc import Callable

from sensegate.model import Framing

FrameFinder = Callable[[bytes], Framing]


def keep_from(buffer: bytes, mark: bytes, at: int = 0) -> int:
    """Return the offset from which a buffer without `mark` must be kept, as a mark may start at its end."""
    for size in range(min(len(mark) - 1, len(buffer) - at), 0, -1):
        if buffer.endswith(mark[:size]):
            return len(buffer) - size
    return len(buffer)
