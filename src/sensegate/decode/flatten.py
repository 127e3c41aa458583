"""Bare values from trees: what makes columns of any format whose parse is pure (`flat.Columnar`).

The shape of a tree is its keys in their order, the lengths of its lists, and of each leaf whether it is a number, a
text, true or false, or null.
"""

from __future__ import annotations

from typing import Any, Final

from sensegate.decode.frame import Frame, Parse
from sensegate.decode.paths import Path
from sensegate.decode.plan import LEAVES_MAX
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

PURE: Final = frozenset({
    "jsonlines", "senml", "senml_cbor", "cbor", "messagepack", "csv", "keyvalue", "urlencoded", "influx", "xml",
    "number", "text", "text_frame",
})  # fmt: skip
"""Formats whose tree depends on nothing but the payload."""

_CODES: Final = {int: "n", float: "n", str: "s", bool: "b", type(None): "z"}


class Flattened:
    """A parse whose trees are taken apart."""

    columnar = True
    exact = False
    """A number may be an integer in one frame and none in the next."""

    def __init__(self, parse: Parse, nesting_max: int) -> None:
        self._parse = parse
        self._nesting_max = nesting_max

    def flat(self, payload: bytes, port: int | None) -> tuple[tuple[Any, ...], list[Any]]:
        """Return (shape, leaves). Raises `Rejected`, also for a tree that has too many leaves to be planned."""
        shape: list[Any] = []
        leaves: list[Any] = []
        _take(self._parse(Frame(payload, self._nesting_max, port=port)), shape, leaves)
        return tuple(shape), leaves

    def prepare(self, payload: bytes, port: int | None) -> None:
        """Do nothing: all shapes are taken apart in one way."""

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:
        """Return where in the tree each of the leaves stands."""
        found: list[Path] = []
        _point(self._parse(Frame(payload, self._nesting_max, port=port)), (), found)
        return found


class TooLarge(Rejected):
    """A tree that has no place in columns; it is not refused but goes the general way."""


def _large() -> Rejected:
    """Return the error: a new one each time, for one that is raised again keeps every trace of its raisings."""
    return TooLarge(QuarantineReason.SCHEMA, "too many leaves for columns")


def _take(tree: Any, shape: list[Any], leaves: list[Any]) -> None:
    kind = tree.__class__
    if kind is dict:
        shape.append(len(tree))
        for key, value in tree.items():
            shape.append(key)
            code = _CODES.get(value.__class__)
            if code is None:
                _take(value, shape, leaves)
            else:
                shape.append(code)
                leaves.append(value)
    elif kind is list:
        shape.append(~len(tree))
        for value in tree:
            _take(value, shape, leaves)
    elif kind in _CODES:
        shape.append(_CODES[kind])
        leaves.append(tree)
    else:  # a tree that says more than its members: it goes the general way
        raise _large()
    if len(leaves) > LEAVES_MAX:
        raise _large()


def _point(tree: Any, path: Path, found: list[Path]) -> None:
    if isinstance(tree, dict):
        for key, value in tree.items():
            _point(value, (*path, key), found)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            _point(value, (*path, index), found)
    else:
        found.append(path)
