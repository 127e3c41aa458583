"""Position of the next frame in a stream of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Framing(NamedTuple):
    """Result of a framing function for a buffer: `skip` bytes outside any frame, then a frame of `length` bytes.

    A length of 0 requests more bytes; skipped bytes are never examined again. ``skip + length`` never exceeds the
    buffer. A frame is recognised by its delimiters and its length; its checksum is verified separately, unless it alone
    can determine where the frame ends.
    """

    skip: int
    length: int = 0


FrameFinder = Callable[[bytes], Framing]


def keep_from(buffer: bytes, mark: bytes, at: int = 0) -> int:
    """Return the offset from which a buffer without `mark` must be kept, as a mark may start at its end."""
    for size in range(min(len(mark) - 1, len(buffer) - at), 0, -1):
        if buffer.endswith(mark[:size]):
            return len(buffer) - size
    return len(buffer)
