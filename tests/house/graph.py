"""The import graph of the package: rooms (direct children of `sensegate`), arrows between them, drawn as Mermaid."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = "sensegate"
Graph = Mapping[str, frozenset[str]]


def modules(source: Path = SOURCE) -> dict[str, Path]:
    """Return the modules of the package, by name."""
    modules = {}
    for path in (source / PACKAGE).rglob("*.py"):
        parts = list(path.relative_to(source).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        modules[".".join(parts)] = path
    return modules


def imported(tree: ast.AST, known: Mapping[str, object]) -> set[str]:
    """Return the modules of the package that a module imports, for types too."""
    names: set[str] = set()
    for node in statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {full if (full := f"{node.module}.{name.name}") in known else node.module for name in node.names}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
    return {name for name in names if name in known}


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes that no expression holds: no import does, and most nodes stand in one."""
    waiting = [tree]
    while waiting:
        yield (node := waiting.pop())
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]


def room_of(module: str) -> str:
    """Return the room of a module; empty: the package itself, which holds nothing but its version."""
    return module.partition(".")[2].partition(".")[0]


@cache
def feature_rooms() -> frozenset[str]:
    """Return the rooms that hold a feature."""
    return frozenset(
        room_of(module)
        for module, path in modules().items()
        if "\nFEATURE = FeatureSpec(" in path.read_text(encoding="utf-8")
    )


LAYERS = (
    ("foundations", ("clock", "errors", "logs", "metrics", "model", "wording", "config", "frames", "quantities")),
    ("engine", ("bus", "scripts", "video")),
    ("who and what exists", ("authority",)),
    ("stages", ("collect", "decode", "normalise", "persist", "share")),
    ("over the stages", ("authoring", "ingest", "lifecycle")),
    ("HTTP, and what features share", ("web", "feature")),
    ("features", tuple(sorted(feature_rooms()))),
    ("programs", ("flow", "demo", "cli")),
)
"""Title -> rooms, from the bottom to the top."""


@cache
def _imports() -> Mapping[str, frozenset[str]]:
    files = modules()
    return {
        module: frozenset(imported(ast.parse(path.read_text(encoding="utf-8")), files))
        for module, path in files.items()
    }


def graph(extra: Mapping[str, str] | None = None) -> Graph:
    """Return room -> rooms that it imports; `extra`: module -> text that is added to it, for controls."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, targets in _imports().items():
        added = imported(ast.parse((extra or {}).get(module, "")), _imports())
        if room := room_of(module):
            arrows[room] |= {room_of(target) for target in (*targets, *added)} - {room, ""}
    return {room: frozenset(targets) for room, targets in arrows.items()}


def circles(rooms: Graph) -> list[list[str]]:
    """Return the sets of rooms that import each other, directly or not."""
    reached: dict[str, set[str]] = {}
    for room in rooms:
        circles: set[str] = set()
        waiting = [*rooms[room]]
        while waiting:
            target = waiting.pop()
            if target not in circles:
                circles.add(target)
                waiting += rooms.get(target, ())
        reached[room] = circles
    groups = {
        tuple(sorted(other for other in rooms if room in reached[other] and other in reached[room]))
        for room in rooms
        if room in reached[room]
    }
    return [list(group) for group in sorted(groups)]


def mermaid(rooms: Graph) -> str:
    """Return the drawing: one box a layer; only arrows that no other path of arrows already shows."""
    lines = ["```mermaid", "flowchart BT"]
    for number, (title, members) in enumerate(LAYERS):
        lines.append(f'  subgraph L{number}["{title}"]')
        lines += [f"    {room}" for room in members if room in rooms]
        lines.append("  end")
    for room in sorted(rooms):
        direct = rooms[room]
        indirect = {far for target in direct for far in _reachable(rooms, target)}
        lines += [f"  {room} --> {target}" for target in sorted(direct - indirect)]
    count = sum(map(len, rooms.values()))
    title = f"{len(rooms)} rooms, {count} arrows, {len(circles(rooms))} circles"
    return "\n".join([f"{title}. An arrow that follows from others is left out.", "", *lines, "```"])


def _reachable(rooms: Graph, start: str) -> set[str]:
    results: set[str] = set()
    waiting = [*rooms.get(start, ())]
    while waiting:
        room = waiting.pop()
        if room not in results:
            results.add(room)
            waiting += rooms.get(room, ())
    return results
