"""What is done to a tree before its rule looks at it: text inside is parsed, arrays get names. All in place.

A place that is not there stays so: the rule's own paths then find nothing, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec

from sensegate.decode.frame import Frame, Parse
from sensegate.decode.part import Part, description
from sensegate.decode.paths import ABSENT, EVERY, Path, Place, walk
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

Change = Callable[[Any], Any]
"""What stands at a place -> what shall stand there."""


class TablePart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arrays without names, which become objects; give `rows` and `names`, or `columns`."""

    rows: Annotated[str, description("path to a list of arrays; each becomes an object by `names`")] = ""
    names: Annotated[
        str | tuple[str, ...],
        description("names of the columns in their order (empty: left out), or the path to that list"),
    ] = ()
    columns: Annotated[
        str, description("path to an object of lists of one length, which becomes a list of objects")
    ] = ""


class Reshape:
    """A parse, followed by changes of its tree. Raises `Rejected` as a parse does."""

    def __init__(self, parse: Parse, changes: tuple[Callable[[Any, Frame], Any], ...]) -> None:
        self._parse = parse
        self._changes = changes

    def __call__(self, frame: Frame) -> Any:
        """Return the tree as the rule's paths see it."""
        tree = self._parse(frame)
        for change in self._changes:
            tree = change(tree, frame)
        return tree


def unpack(path: Path, parse: Parse) -> Callable[[Any, Frame], Any]:
    """Return the change that parses the text at a path (steps may be ``*``); what is no text there stays as it is."""

    def inside(tree: Any, frame: Frame) -> Any:
        def change(raw: Any) -> Any:
            if not isinstance(raw, str):
                return raw
            return parse(msgspec.structs.replace(frame, payload=raw.encode("utf-8", "surrogatepass")))

        return _replace(tree, path, change)

    return inside


def name_rows(rows: Path, names: tuple[str, ...] | Place) -> Callable[[Any, Frame], Any]:
    """Return the change that makes objects of the arrays in the list at `rows`."""

    def named(tree: Any, _frame: Frame) -> Any:
        found = walk(tree, names.path) if isinstance(names, Place) else names
        if found is ABSENT:
            return tree
        if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
            raise Rejected(QuarantineReason.SCHEMA, "the names of the columns are no list of texts")
        if len(set(found) - {""}) != len(found) - found.count(""):
            raise Rejected(QuarantineReason.SCHEMA, "two columns have one name")
        return _replace(tree, rows, lambda raw: _objects(raw, found))

    return named


def _objects(rows: Any, names: list[str] | tuple[str, ...]) -> Any:
    if not isinstance(rows, list):
        raise Rejected(QuarantineReason.SCHEMA, "the rows are no list")
    found = []
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            what = f"{len(row)} values" if isinstance(row, list) else "no array"
            raise Rejected(QuarantineReason.SCHEMA, f"row {index} is {what}, the columns are {len(names)}")
        found.append({name: value for name, value in zip(names, row, strict=True) if name})
    return found


def rows_of(columns: Path) -> Callable[[Any, Frame], Any]:
    """Return the change that makes a list of objects of an object of lists."""
    return lambda tree, _frame: _replace(tree, columns, _transposed)


def _transposed(columns: Any) -> Any:
    if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
        raise Rejected(QuarantineReason.SCHEMA, "the columns are no object of lists")
    if len({len(column) for column in columns.values()}) > 1:
        raise Rejected(QuarantineReason.SCHEMA, "the columns are not of one length")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _replace(tree: Any, path: Path, change: Change) -> Any:
    """Return the tree with what stands at a path changed; the containers on the way are changed in place."""
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
    inside: Mapping[Path, Parse], table: tuple[Path, tuple[str, ...] | Place] | None, columns: Path | None
) -> tuple[Callable[[Any, Frame], Any], ...]:
    """Return the changes in their order: text is unpacked first, so that a table may stand in it."""
    found = [unpack(path, parse) for path, parse in inside.items()]
    if table is not None:
        found.append(name_rows(*table))
    if columns is not None:
        found.append(rows_of(columns))
    return tuple(found)
