"""A packed map in which something is wrong."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import zstandard
from hypothesis import strategies as st

from sensegate.bus.packing import encode_map

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 255, 2**31, 2**40, 2**63 - 1, 2**64 - 1, 0.5, math.nan, "", "x", b"", b"\xff" * 9, [], {},
    [0],
)  # fmt: skip


def opened(payload: bytes) -> dict[str, Any]:
    """Return the map that was sealed."""
    tree: dict[str, Any] = msgspec.msgpack.decode(zstandard.decompress(payload))
    return tree


@st.composite
def damaged(draw: st.DrawFn, tree: dict[str, Any]) -> bytes:
    """Return a map, sealed, in which one or two members, however deep, are others, are doubled or are missing."""
    for _ in range(draw(st.integers(1, 2))):
        tree = _altered(draw, tree, deep=True)
    return encode_map(tree)


def _altered(draw: st.DrawFn, tree: Any, *, deep: bool = False) -> Any:
    if not isinstance(tree, (dict, list)) or not tree or not (deep or draw(st.integers(0, 4))):
        return draw(st.sampled_from(ODD))
    names = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    name = draw(st.sampled_from(names))
    result = draw(st.sampled_from(["in", "in", "in", "in", "out", "twice"]))
    if isinstance(tree, dict):
        if result == "out":
            return {key: element for key, element in tree.items() if key != name}
        return {key: _altered(draw, element) if key == name else element for key, element in tree.items()}
    old = tree[name]
    return [
        *tree[:name],
        *([_altered(draw, old)] if result == "in" else [old, old] if result == "twice" else []),
        *tree[name + 1 :],
    ]
