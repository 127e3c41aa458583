"""Questions of a member to its centre, and how much one answer holds. `tiers.link` carries them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

CHUNK_BYTES = 500_000
"""Most bytes of one chunk of a long answer; a single larger element makes a chunk of its own."""

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""(id of the member, payload of its question) -> the answer. Raises `SensegateError` to refuse."""

_T = TypeVar("_T")


def fit_chunk(elements: Iterable[_T], size_of: Callable[[_T], int]) -> list[_T]:
    """Return as many of the first elements as fit into one chunk; at least one, if there is one."""
    chunk: list[_T] = []
    room = CHUNK_BYTES
    for element in elements:
        room -= size_of(element)
        if chunk and room < 0:
            break
        chunk.append(element)
    return chunk
