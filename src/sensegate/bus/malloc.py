"""Tuning of the C library's heap: a single arena for all threads, and freed memory returned on request.

Without it every thread that sorts or merges gets its own arena, whose free space stays resident.
"""

from __future__ import annotations

import ctypes
from functools import cache

_ARENA_MAX = -8
"""glibc's M_ARENA_MAX."""


@cache
def _call(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None)


def limit_arenas() -> None:
    """Have all threads allocate from a single arena, where the C library supports it."""
    if mallopt := _call("mallopt"):
        mallopt(_ARENA_MAX, 1)


def trim() -> None:
    """Return freed memory to the system, where the C library supports it."""
    if malloc_trim := _call("malloc_trim"):
        malloc_trim(0)
