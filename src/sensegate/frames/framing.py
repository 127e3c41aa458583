"""Where the next frame stands in a stream of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Cut(NamedTuple):
    """The answer of a cutter for a buffer: `skip` bytes of no frame, then a frame of `length` bytes.

    A length of 0 asks for more bytes; what was skipped is never looked at again. ``skip + length`` is never more than
    the buffer holds. A frame is told by its outer marks and its length; its check value is another matter, unless it
    alone can tell where the frame ends.
    """

    skip: int
    length: int = 0


Cutter = Callable[[bytes], Cut]


def last_start(buffer: bytes, mark: bytes, at: int = 0) -> int:
    """Return from where a buffer without `mark` must be kept, as a mark may have begun at its end."""
    for size in range(min(len(mark) - 1, len(buffer) - at), 0, -1):
        if buffer.endswith(mark[:size]):
            return len(buffer) - size
    return len(buffer)
