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


def _parts(root: object) -> Iterator[object]:
    if isinstance(root, np.ndarray):
        if root.base is not None:
            yield root.base
    elif isinstance(root, Mapping):
        yield from root.keys()
        yield from root.values()
    elif isinstance(root, list | tuple | set | frozenset) or type(root).__name__ == "deque":
        assert isinstance(root, Iterable)
        yield from root
    else:
        yield from getattr(root, "__dict__", {}).values()
        names: Any = (
            root.__struct_fields__ if isinstance(root, msgspec.Struct) else getattr(type(root), "__slots__", ())
        )
        for name in (names,) if isinstance(names, str) else names:
            result = getattr(root, name, None)
            if result is not None:
                yield result


def weigh(roots: Mapping[str, object]) -> dict[str, int]:
    """Return name -> bytes; what two roots share counts for the first."""
    ids: set[int] = {id(root) for root in roots.values()}
    result = {}
    for name, root in roots.items():
        total, waiting = 0, [root]
        while waiting:
            value = waiting.pop()
            total += value.nbytes if isinstance(value, np.ndarray) and value.base is None else sys.getsizeof(value, 0)
            for part in _parts(value):
                if isinstance(part, (int, float, bool, type(None), *_NOT)) or id(part) in ids:
                    continue
                ids.add(id(part))
                waiting.append(part)
        result[name] = total
    return result
