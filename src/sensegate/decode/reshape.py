"""Change a tree before its rule reads it: parse text inside it, give names to arrays. All changes are made in place.

A missing place stays missing: the rule's own paths then find nothing, and report it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec

from sensegate.decode.frame import Parse, PayloadFrame
from sensegate.decode.part import ProfilePart, description
from sensegate.decode.paths import ABSENT, EVERY, MemberPath, Path, walk
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

Change = Callable[[Any], Any]
"""Replaces the value at a place."""


class TablePart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arrays without names, which become objects; give `rows` and `names`, or `columns`."""

    rows: Annotated[str, description("path to a list of arrays; each becomes an object by `names`")] = ""
    names: Annotated[
        str | tuple[str, ...],
        description("names of the columns in order (empty: column left out), or the path to that list"),
    ] = ()
    columns: Annotated[
        str, description("path to an object of lists of one length, which becomes a list of objects")
    ] = ""


class Reshape:
    """A parse followed by changes of its tree. Raises `Rejected` as a parse does."""

    def __init__(self, parse: Parse, changes: tuple[Callable[[Any, PayloadFrame], Any], ...]) -> None:
        self.parse = parse
        self._changes = changes

    def __call__(self, frame: PayloadFrame) -> Any:
        """Return the changed tree."""
        return self.changed(self.parse(frame), frame)

    def changed(self, tree: Any, frame: PayloadFrame) -> Any:
        """Return the tree of a frame, changed in place."""
        for change in self._changes:
            tree = change(tree, frame)
        return tree


def unpack(path: Path, parse: Parse) -> Callable[[Any, PayloadFrame], Any]:
    """Return the change that parses the text at a path (steps may be ``*``); other values there are left unchanged."""

    def inside(tree: Any, frame: PayloadFrame) -> Any:
        def change(raw: Any) -> Any:
            if not isinstance(raw, str):
                return raw
            return parse(msgspec.structs.replace(frame, payload=raw.encode("utf-8", "surrogatepass")))

        return _replace(tree, path, change)

    return inside


def add_metadata(key: str) -> Callable[[Any, PayloadFrame], Any]:
    """Return the change that puts what MQTT states of the message under a key; nothing of the payload stays there."""

    def add(tree: Any, frame: PayloadFrame) -> Any:
        whole = tree if isinstance(tree, dict) else {"payload": tree}
        whole.pop(key, None)
        if (stated := frame.metadata) is not None:
            user: dict[str, str] = {}
            for name, text in stated.user:
                user.setdefault(name, text)
            whole[key] = {
                "client": stated.client,
                "credential": stated.credential,
                "content_type": stated.content_type,
                "user": user,
            }
        return whole

    return add


def name_rows(rows: Path, names: tuple[str, ...] | MemberPath) -> Callable[[Any, PayloadFrame], Any]:
    """Return the change that turns the arrays in the list at `rows` into objects."""

    def named(tree: Any, _frame: PayloadFrame) -> Any:
        column_names = walk(tree, names.path) if isinstance(names, MemberPath) else names
        if column_names is ABSENT:
            return tree
        if not isinstance(column_names, (list, tuple)) or not all(isinstance(name, str) for name in column_names):
            raise Rejected(QuarantineReason.SCHEMA, "the column names are not a list of texts")
        if len(set(column_names) - {""}) != len(column_names) - column_names.count(""):
            raise Rejected(QuarantineReason.SCHEMA, "two columns have the same name")
        return _replace(tree, rows, lambda raw: _objects(raw, column_names))

    return named


def _objects(rows: Any, names: list[str] | tuple[str, ...]) -> Any:
    if not isinstance(rows, list):
        raise Rejected(QuarantineReason.SCHEMA, "the rows are not a list")
    objects = []
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            actual = f"has {len(row)} values" if isinstance(row, list) else "is not an array"
            raise Rejected(QuarantineReason.SCHEMA, f"row {index} {actual}; there are {len(names)} columns")
        objects.append({name: value for name, value in zip(names, row, strict=True) if name})
    return objects


def rows_of(columns: Path) -> Callable[[Any, PayloadFrame], Any]:
    """Return the change that turns an object of lists into a list of objects."""
    return lambda tree, _frame: _replace(tree, columns, _transposed)


def _transposed(columns: Any) -> Any:
    if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
        raise Rejected(QuarantineReason.SCHEMA, "the columns are not an object of lists")
    if len({len(column) for column in columns.values()}) > 1:
        raise Rejected(QuarantineReason.SCHEMA, "the columns have different lengths")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _replace(tree: Any, path: Path, change: Change) -> Any:
    """Return the tree with the value at a path changed; the containers on the path are changed in place."""
    if not path:
        return change(tree)
    step, rest = path[0], path[1:]
    keys: Iterable[Any] = ()
    if isinstance(tree, dict):
        keys = list(tree) if step == EVERY else (step,) if step in tree else ()
    elif isinstance(tree, list):
        keys = range(len(tree)) if step == EVERY else (step,) if isinstance(step, int) and step < len(tree) else ()
    for key in keys:
        tree[key] = _replace(tree[key], rest, change)
    return tree


def changes_of(
    unpacked: Mapping[Path, Parse], table: tuple[Path, tuple[str, ...] | MemberPath] | None, columns: Path | None
) -> tuple[Callable[[Any, PayloadFrame], Any], ...]:
    """Return the changes in order: text is unpacked first, so that a table may be inside it."""
    changes = [unpack(path, parse) for path, parse in unpacked.items()]
    if table is not None:
        changes.append(name_rows(*table))
    if columns is not None:
        changes.append(rows_of(columns))
    return tuple(changes)
