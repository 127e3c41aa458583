"""Questions of a member to its centre, and how much one answer holds. The transport is `tiers.link`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

CHUNK_BYTES = 500_000
"""An answer in pieces holds so much, or one element that is larger."""

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""(id of the member, its payload) -> the answer. Raises `SensegateError` to refuse."""

_T = TypeVar("_T")


def fit_chunk(elements: Iterable[_T], size_of: Callable[[_T], int]) -> list[_T]:
    """Return as many of the first elements as go into one answer; at least one, if there is one."""
    taken: list[_T] = []
    left = CHUNK_BYTES
    for element in elements:
        left -= size_of(element)
        if taken and left < 0:
            break
        taken.append(element)
    return taken
