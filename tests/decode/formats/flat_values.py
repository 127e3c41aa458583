"""Flat values of a parse beside its tree, for comparison."""

from __future__ import annotations

from typing import Any

from sensegate.decode.columnar import Columnar
from sensegate.decode.frame import Parse, PayloadFrame
from sensegate.decode.paths import Path
from sensegate.errors import Rejected


def leaves(tree: Any, path: Path = ()) -> dict[Path, Any]:
    """Return all leaves of a tree by pointer."""
    if isinstance(tree, (dict, list)):
        members = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {pointer: leaf for key, member in members for pointer, leaf in leaves(member, (*path, key)).items()}
    return {path: tree}


def flat(parse: Columnar, frame: bytes) -> dict[Path, Any] | None:
    """Return the flat values by pointer; None: the frame has none."""
    try:
        _, values = parse.flatten(frame, None)
    except Rejected:
        return None
    return dict(zip(parse.pointers(frame, None), values, strict=True))


def tree_of(parse: Parse, frame: bytes) -> dict[Path, Any] | None:
    """Return the leaves of the tree; None: the frame is refused."""
    try:
        return leaves(parse(PayloadFrame(frame, 16, "p/d1/up")))
    except Rejected:
        return None


def same_values(values: dict[Path, Any], expected: dict[Path, Any] | None) -> bool:
    """Return whether values and their types are equal."""
    kinds = {key: type(value) for key, value in values.items()}
    return values == expected and kinds == {key: type(value) for key, value in (expected or {}).items()}
