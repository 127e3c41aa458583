"""House rules that a machine can check: where the one broad `except` stands, what the package README names."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "sensegate"
WIRING = (
    *("flow", "foundations", "sources", "walk", "poison", "eyes", "life", "speaker", "cameras", "viid", "own_clock"),
    "authoring",
    *("way_up", "above", "below", "seat", "sites", "shares", "pushing", "trails", "showing", "cli", "demo"),
)


def broad_handlers(file: Path) -> list[int]:
    """Return the lines on which a file catches everything."""
    lines = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            caught = [] if node.type is None else (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type])
            if node.type is None or any(
                isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"} for name in caught
            ):
                lines.append(node.lineno)
    return lines


def test_only_the_rim_catches_everything() -> None:
    """`except Exception` stands in one place: the wiring, where a bug in decode or normalise becomes a rejection."""
    places = {str(file.relative_to(SOURCE)): found for file in SOURCE.rglob("*.py") if (found := broad_handlers(file))}
    assert {name: len(found) for name, found in places.items()} == {"walk.py": 1}


def test_the_wiring_is_named_where_the_walk_is_told() -> None:
    """Each page of the wiring is there, and the package README says what it wires."""
    told = (SOURCE / "README.md").read_text(encoding="utf-8")
    pages = [name for name in WIRING if not (SOURCE / name).is_dir()]
    assert [name for name in pages if not (SOURCE / f"{name}.py").is_file()] == []
    assert [name for name in pages if f"{name}.py" not in told] == []
