"""How many bytes an object holds, with all that it alone leads to: arrays, bytes, containers, records."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import msgspec
import numpy as np

_NOT = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, asyncio.Future, asyncio.AbstractEventLoop,
        threading.Thread)  # fmt: skip


def _parts(one: object) -> Iterator[object]:
    if isinstance(one, np.ndarray):
        if one.base is not None:
            yield one.base
    elif isinstance(one, Mapping):
        yield from one.keys()
        yield from one.values()
    elif isinstance(one, list | tuple | set | frozenset) or type(one).__name__ == "deque":
        assert isinstance(one, Iterable)
        yield from one
    else:
        yield from getattr(one, "__dict__", {}).values()
        names: Any = one.__struct_fields__ if isinstance(one, msgspec.Struct) else getattr(type(one), "__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            found = getattr(one, name, None)
            if found is not None:
                yield found


def weigh(roots: Mapping[str, object]) -> dict[str, int]:
    """Return name -> bytes; what two roots share counts for the first."""
    seen: set[int] = {id(one) for one in roots.values()}
    found = {}
    for name, root in roots.items():
        total, waiting = 0, [root]
        while waiting:
            one = waiting.pop()
            total += one.nbytes if isinstance(one, np.ndarray) and one.base is None else sys.getsizeof(one, 0)
            for part in _parts(one):
                if isinstance(part, (int, float, bool, type(None), *_NOT)) or id(part) in seen:
                    continue
                seen.add(id(part))
                waiting.append(part)
        found[name] = total
    return found
