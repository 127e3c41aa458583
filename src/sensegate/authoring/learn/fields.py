"""Collect the members of recorded messages, with their types, ranges and how they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sensegate.decode.paths import ABSENT, Path, walk

FIELDS_MAX = 400
"""Most members analysed; no device's layout has more."""
VALUES_MAX = 64
"""Most different values remembered of one member."""
DEPTH_MAX = 12


class FieldFacts:
    """Statistics of one member."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.kinds: Counter[str] = Counter()
        self.values: Counter[Any] = Counter()
        """Value -> number of times, for the first `VALUES_MAX` different ones."""
        self.more_values = False
        """True if there were more different values."""
        self.numbers: list[float] = []
        self.texts_as_numbers = 0
        self.alias: tuple[str, ...] = ()
        """Replaces the keys of the path, if it has none."""

    def add(self, value: Any) -> None:
        """Add one value."""
        self.count += 1
        kind = kind_of(value)
        self.kinds[kind] += 1
        if kind in {"object", "list"}:
            return
        if kind in {"integer", "number"}:
            self.numbers.append(float(value))
        elif kind == "text" and (number := as_number(value)) is not None:
            self.numbers.append(number)
            self.texts_as_numbers += 1
        key = value if kind != "boolean" else ("bool", value)
        if key in self.values or len(self.values) < VALUES_MAX:
            self.values[key] += 1
        else:
            self.more_values = True

    @property
    def name(self) -> str:
        """Last key of the path."""
        return self.steps[-1] if self.steps else ""

    @property
    def steps(self) -> tuple[str, ...]:
        """Keys of the path, without indices."""
        return tuple(step for step in self.path if isinstance(step, str)) or self.alias

    @property
    def numeric(self) -> bool:
        """Return whether nearly all values are numbers, or text of numbers."""
        present = self.count - self.kinds["null"]
        return present > 0 and len(self.numbers) >= 0.8 * present

    @property
    def integral(self) -> bool:
        """Return whether all numbers are whole."""
        return all(number == int(number) for number in self.numbers if abs(number) < 1e15)

    @property
    def words(self) -> list[Any]:
        """Different values as sent (true and false as booleans), most frequent first."""
        return [key[1] if isinstance(key, tuple) else key for key, _ in self.values.most_common()]

    def is_rising(self) -> bool:
        """Return whether the numbers change and never fall."""
        pairs = zip(self.numbers, self.numbers[1:], strict=False)
        return (
            len(self.numbers) > 2 and all(earlier <= later for earlier, later in pairs) and len(set(self.numbers)) > 2
        )


def kind_of(value: Any) -> str:
    """Return the name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"


def as_number(text: str) -> float | None:
    """Return the number in a short text, or None."""
    if not 0 < len(text) <= 24 or "_" in text or text[0].isalpha():
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e18 else None


def fields_of(trees: Iterable[Any], *, without: Collection[Path] = ()) -> dict[Path, FieldFacts]:
    """Return the scalar members of trees by path, in the order of first occurrence; `without`: lists to leave out."""
    fields: dict[Path, FieldFacts] = {}
    for tree in trees:
        for path, value in leaves(tree):
            if any(path[: len(prefix)] == prefix for prefix in without):
                continue
            if path not in fields and len(fields) >= FIELDS_MAX:
                continue
            fields.setdefault(path, FieldFacts(path)).add(value)
    return fields


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield (path, value) of each scalar of a tree."""
    if len(path) > DEPTH_MAX:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(key, str):
                yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree[:16]):
            yield from leaves(value, (*path, index))
    else:
        yield path, tree


# ── elements ─────────────────────────────────────────────────────────────────────────────────────────

_NAME_KEYS = (
    "n",
    "name",
    "key",
    "id",
    "identifier",
    "code",
    "property",
    "metric",
    "field",
    "param",
    "k",
    "dataName",
    "tag",
)
_VALUE_KEYS = ("v", "value", "val", "data", "vs", "vb", "vd", "dataValue", "reading")
_UNIT_KEYS = ("ucum", "u", "unit", "units", "uom")


class ElementList(NamedTuple):
    """A list of objects in each tree, each with its own values."""

    path: Path
    name: str = ""
    """Key that holds the name, if elements carry their own name."""
    values: tuple[str, ...] = ()
    unit: str = ""


def elements_of(trees: Sequence[Any]) -> ElementList | None:
    """Return the outermost list of objects that nearly all trees have; None if there is none."""
    for path in lists_of(trees):
        lists = [items for tree in trees if isinstance(items := walk(tree, path), list)]
        items = [item for elements in lists for item in elements[:50]]
        if len(lists) < 0.8 * len(trees) or not items or not all(isinstance(item, dict) for item in items):
            continue
        if not any(isinstance(value, (int, float, str)) for item in items for value in item.values()):
            continue
        return _named_elements(path, items) or ElementList(path)
    return None


def lists_of(trees: Sequence[Any]) -> list[Path]:
    """Return the paths of lists, outermost first; lists inside lists are ignored."""
    found_paths: dict[Path, None] = {}

    def visit(tree: Any, path: Path) -> None:
        if isinstance(tree, list):
            found_paths.setdefault(path)
        elif isinstance(tree, dict) and len(path) < DEPTH_MAX:
            for key, value in tree.items():
                if isinstance(key, str):
                    visit(value, (*path, key))

    for tree in trees[:50]:
        visit(tree, ())
    return sorted(found_paths, key=len)


def _named_elements(path: Path, items: Sequence[Mapping[str, Any]]) -> ElementList | None:
    """Return how elements carry their own name, if they do: a short text, and a value beside it."""
    for name in _NAME_KEYS:
        texts = [item.get(name) for item in items]
        if not all(isinstance(text, str) and 0 < len(text) <= 64 for text in texts):
            continue
        values = tuple(key for key in _VALUE_KEYS if any(key in item for item in items))
        if not values or not all(any(key in item for key in values) for item in items):
            continue
        return ElementList(
            path, name, values, next((key for key in _UNIT_KEYS if any(key in item for item in items)), "")
        )
    return None


def element_trees(tree: Any, elements: ElementList | None) -> list[Any]:
    """Return the elements of a tree, or the tree itself if there are none."""
    if elements is None:
        return [tree]
    items = walk(tree, elements.path)
    return [item for item in items if isinstance(item, dict)] if items is not ABSENT and isinstance(items, list) else []
