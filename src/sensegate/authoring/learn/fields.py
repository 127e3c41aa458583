"""What recorded messages have in common: the members of their trees, with types, ranges and how they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sensegate.decode.paths import ABSENT, Path, walk

FIELDS_MAX = 400
"""More members than this are no device's layout; the rest is not looked at."""
VALUES_MAX = 64
"""Different values remembered of one member."""
DEPTH_MAX = 12


class Facts:
    """What is known of one member."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.kinds: Counter[str] = Counter()
        self.values: Counter[Any] = Counter()
        """Value -> how often, of the first `VALUES_MAX` different ones."""
        self.many = False
        """True where there were more different values."""
        self.numbers: list[float] = []
        self.texts_as_numbers = 0
        self.alias: tuple[str, ...] = ()
        """What stands in place of the path's keys, where it has none."""

    def add(self, value: Any) -> None:
        """Take one value."""
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
            self.many = True

    @property
    def name(self) -> str:
        """Last key of the path."""
        return self.steps[-1] if self.steps else ""

    @property
    def steps(self) -> tuple[str, ...]:
        """Keys of the path, indices left out."""
        return tuple(step for step in self.path if isinstance(step, str)) or self.alias

    @property
    def numeric(self) -> bool:
        """Whether (nearly) all values are numbers, or texts of numbers."""
        said = self.count - self.kinds["null"]
        return said > 0 and len(self.numbers) >= 0.8 * said

    @property
    def whole(self) -> bool:
        """Whether all numbers are whole."""
        return all(number == int(number) for number in self.numbers if abs(number) < 1e15)

    @property
    def words(self) -> list[Any]:
        """Different values as sent, true and false as such; most frequent first."""
        return [key[1] if isinstance(key, tuple) else key for key, _ in self.values.most_common()]

    def rises(self) -> bool:
        """Return whether the numbers never fall, and move."""
        pairs = zip(self.numbers, self.numbers[1:], strict=False)
        return len(self.numbers) > 2 and all(one <= other for one, other in pairs) and len(set(self.numbers)) > 2


def kind_of(value: Any) -> str:
    """Return the word for the type of a member."""
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
    """Return the number that a short text is, or None."""
    if not 0 < len(text) <= 24 or "_" in text or text[0].isalpha():
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e18 else None


def fields_of(trees: Iterable[Any]) -> dict[Path, Facts]:
    """Return the members of some trees that hold a scalar somewhere, by path, in the order in which they were met."""
    found: dict[Path, Facts] = {}
    for tree in trees:
        for path, value in leaves(tree):
            if path not in found and len(found) >= FIELDS_MAX:
                continue
            found.setdefault(path, Facts(path)).add(value)
    return found


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield (path, value) of each scalar of a tree."""
    if len(path) > DEPTH_MAX:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(key, str):
                yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for at, value in enumerate(tree[:16]):
            yield from leaves(value, (*path, at))
    else:
        yield path, tree


# ── elements ─────────────────────────────────────────────────────────────────────────────────────────

_NAMES = (
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
_VALUES = ("v", "value", "val", "data", "vs", "vb", "vd", "dataValue", "reading")
_UNITS = ("u", "unit", "units", "uom")


class Elements(NamedTuple):
    """A list of elements in each tree, each with its own values."""

    path: Path
    name: str = ""
    """Key of the name, where elements name themselves."""
    values: tuple[str, ...] = ()
    unit: str = ""


def elements_of(trees: Sequence[Any]) -> Elements | None:
    """Return the list of objects that (nearly) all trees have, the outermost one; None where there is none."""
    for path in _lists(trees):
        lists = [found for tree in trees if isinstance(found := walk(tree, path), list)]
        items = [item for found in lists for item in found[:50]]
        if len(lists) < 0.8 * len(trees) or not items or not all(isinstance(item, dict) for item in items):
            continue
        if not any(isinstance(value, (int, float, str)) for item in items for value in item.values()):
            continue
        return _named(path, items) or Elements(path)
    return None


def _lists(trees: Sequence[Any]) -> list[Path]:
    """Return the paths of lists, outermost first; lists inside lists are left alone."""
    found: dict[Path, None] = {}

    def look(tree: Any, path: Path) -> None:
        if isinstance(tree, list):
            found.setdefault(path)
        elif isinstance(tree, dict) and len(path) < DEPTH_MAX:
            for key, value in tree.items():
                if isinstance(key, str):
                    look(value, (*path, key))

    for tree in trees[:50]:
        look(tree, ())
    return sorted(found, key=len)


def _named(path: Path, items: Sequence[Mapping[str, Any]]) -> Elements | None:
    """Return how elements name themselves, if they do: a short text that tells them apart, and a value beside it."""
    for name in _NAMES:
        texts = [item.get(name) for item in items]
        if not all(isinstance(text, str) and 0 < len(text) <= 64 for text in texts):
            continue
        values = tuple(key for key in _VALUES if any(key in item for item in items))
        if not values or not all(any(key in item for key in values) for item in items):
            continue
        return Elements(path, name, values, next((key for key in _UNITS if any(key in item for item in items)), ""))
    return None


def element_trees(tree: Any, elements: Elements | None) -> list[Any]:
    """Return the elements of a tree, or the tree itself where it has none."""
    if elements is None:
        return [tree]
    found = walk(tree, elements.path)
    return [item for item in found if isinstance(item, dict)] if found is not ABSENT and isinstance(found, list) else []
