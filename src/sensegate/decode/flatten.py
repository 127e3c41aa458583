"""Flatten trees into values: makes columns of any format whose parse is pure (`columnar.Columnar`).

The shape of a tree is its keys in order, the lengths of its lists, and for each leaf whether it is a number, text,
boolean or null.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final

from sensegate.decode.frame import FormedTree, Parse, PayloadFrame
from sensegate.decode.paths import Path
from sensegate.decode.plan import LEAVES_MAX
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

PURE: Final = frozenset({
    "jsonlines", "senml", "senml_cbor", "cbor", "messagepack", "csv", "keyvalue", "urlencoded", "influx", "xml",
    "number", "text", "text_frame",
})  # fmt: skip
"""Formats whose tree depends on the payload alone."""

_CODES: Final = {int: "n", float: "n", str: "s", bool: "b", type(None): "z"}
_code: Final = _CODES.get


class Flattened:
    """A parse whose trees are flattened."""

    columnar = True
    exact = False
    """A number may be an integer in one frame and not in the next."""

    def __init__(self, parse: Parse, nesting_max: int) -> None:
        self._parse = parse
        self._nesting_max = nesting_max

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Sequence[Any]]:
        """Return (shape, leaves). Raises `Rejected`, also for a tree with too many leaves to be planned."""
        shape: list[Any] = []
        leaves: list[Any] = []
        _flatten_into(self._parse(PayloadFrame(payload, self._nesting_max, port=port)), shape, leaves)
        return tuple(shape), leaves

    def prepare(self, payload: bytes, port: int | None) -> None:
        """Do nothing: all shapes are flattened in the same way."""

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:
        """Return the pointer of each leaf in the tree."""
        pointers: list[Path] = []
        _collect_pointers(self._parse(PayloadFrame(payload, self._nesting_max, port=port)), (), pointers)
        return pointers


class FlattenedTrees:
    """Trees that were parsed already, many at once, as flat values; in place of a payload stands its tree."""

    columnar = True
    exact = False

    def flatten(self, payload: Any, port: int | None) -> tuple[Hashable, Sequence[Any]]:  # noqa: ARG002 - as `Columnar` has it
        """Return (form or shape, leaves). Raises `Rejected` for a tree that is not planned."""
        formed = payload if payload.__class__ is FormedTree else getattr(payload, "formed", None)
        if formed is not None:
            return formed.form, formed.values
        if payload.__class__ is dict and len(payload) <= LEAVES_MAX:
            values = list(payload.values())
            codes = tuple(map(_code, map(type, values)))
            if None not in codes:  # as `_flatten_into` would have it
                return (tuple(payload), codes), values
        shape: list[Any] = []
        leaves: list[Any] = []
        _flatten_into(payload, shape, leaves)
        return tuple(shape), leaves

    def prepare(self, payload: Any, port: int | None) -> None:
        """Do nothing: all shapes are flattened in the same way."""

    def pointers(self, payload: Any, port: int | None) -> list[Path]:  # noqa: ARG002 - the same
        """Return the pointer of each leaf in the tree."""
        if (formed := getattr(payload, "formed", None)) is not None:
            of_form: list[Path] = formed.form.pointers
            return of_form
        pointers: list[Path] = []
        _collect_pointers(payload, (), pointers)
        return pointers


class TooManyLeaves(Rejected):
    """A tree with too many leaves for columns; it is not refused but goes the slow path."""


def _too_large() -> Rejected:
    """Return a new error each time: an error that is raised again keeps every traceback."""
    return TooManyLeaves(QuarantineReason.SCHEMA, "too many leaves for columns")


def _flatten_into(tree: Any, shape: list[Any], leaves: list[Any]) -> None:
    kind = tree.__class__
    if kind is dict or kind is list:
        # A list has the number of its members where an object has their names.
        values = tree.values() if kind is dict else tree
        codes = tuple(map(_code, map(type, values)))
        shape.append(tuple(tree) if kind is dict else len(tree))
        shape.append(codes)
        if None not in codes:
            leaves.extend(values)
        else:
            for value, code in zip(values, codes, strict=True):
                if code is None:
                    _flatten_into(value, shape, leaves)
                else:
                    leaves.append(value)
    elif kind in _CODES:
        shape.append(_CODES[kind])
        leaves.append(tree)
    else:  # a subclass with more information than its members: it goes the slow path
        raise _too_large()
    if len(leaves) > LEAVES_MAX:
        raise _too_large()


def _collect_pointers(tree: Any, path: Path, pointers: list[Path]) -> None:
    if isinstance(tree, dict):
        for key, value in tree.items():
            _collect_pointers(value, (*path, key), pointers)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            _collect_pointers(value, (*path, index), pointers)
    else:
        pointers.append(path)
