"""House rules that a machine can check: where the one broad `except` stands, what the package README names."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "sensegate"


def broad_handlers(file: Path) -> list[int]:
    """Return the lines on which a file catches everything."""
    lines: list[int] = []
    text = file.read_text(encoding="utf-8")
    if "Exception" not in text and "except:" not in text:  # parsing all would take a second
        return lines
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            caught = [] if node.type is None else (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type])
            if node.type is None or any(
                isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"} for name in caught
            ):
                lines.append(node.lineno)
    return lines


def test_only_the_rim_catches_everything() -> None:
    """`except Exception` stands in one place: the wiring, where a bug in decode or normalise becomes a rejection."""
    places = {
        str(file.relative_to(SOURCE)): result for file in SOURCE.rglob("*.py") if (result := broad_handlers(file))
    }
    assert {name: len(place) for name, place in places.items()} == {"ingest/pipeline.py": 1}


def test_the_package_readme_names_every_room() -> None:
    """Each folder of the package is named in its README, and each folder named there exists."""
    text = (SOURCE / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}
    assert [name for name in sorted(folders) if f"`{name}/" not in text] == []
