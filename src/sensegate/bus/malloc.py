"""The C library's heap, kept small: one arena for all threads, and what is free given back when asked.

Without it every thread that sorts or merges gets an arena of its own, whose holes stay resident.
"""

from __future__ import annotations

import ctypes
from functools import cache

_ARENA_MAX = -8
"""glibc's M_ARENA_MAX."""


@cache
def _call(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None)


def one_arena() -> None:
    """Let all threads allocate from one arena, where the C library can: they take turns anyway."""
    if mallopt := _call("mallopt"):
        mallopt(_ARENA_MAX, 1)


def trim() -> None:
    """Give freed memory back to the system, where the C library can."""
    if malloc_trim := _call("malloc_trim"):
        malloc_trim(0)
