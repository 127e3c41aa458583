"""The house rules that a machine can check: who may import whom, and where the one broad `except` stands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "sensegate"
STAGES = ("collect", "decode", "normalise", "persist", "publish", "share", "web")
FOUNDATIONS = ("authority", "bus", "frames", "scripts", "video")
TIERS = "tiers"
"""The border between tiers: over the foundations and `publish`, under the wiring."""
WIRING = (
    *("flow", "foundations", "sources", "walk", "poison", "eyes", "life", "speaker", "cameras", "viid", "own_clock"),
    *("way_up", "above", "below", "seat", "sites", "shares", "pushing", "trails", "showing", "cli", "demo"),
)


def imports(file: Path) -> set[str]:
    """Return the first name below `sensegate` of each import in a file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("sensegate.")}
    return found


def wrong_imports(folder: str, file: Path) -> set[str]:
    """Return what a file in a folder imports against the rules."""
    known = imports(file)
    if folder in STAGES:
        return known & {*STAGES, TIERS, *WIRING} - {folder}
    if folder in FOUNDATIONS:
        return known & {*STAGES, TIERS, *WIRING}
    if folder == TIERS:
        return known & {*STAGES, *WIRING} - {"publish"}
    return set()


@pytest.mark.parametrize("folder", [*STAGES, *FOUNDATIONS, TIERS])
def test_a_stage_imports_no_other_stage(folder: str) -> None:
    """A stage imports the files beside it, the files beside the folders, and the foundations."""
    wrong = {
        str(file.relative_to(SOURCE)): bad
        for file in (SOURCE / folder).rglob("*.py")
        if (bad := wrong_imports(folder, file))
    }
    assert wrong == {}


def test_the_walk_check_can_fail(tmp_path: Path) -> None:
    """A stage that imports another one is caught, whatever form the import has."""
    bad = tmp_path / "bad.py"
    bad.write_text("from sensegate.share.cursor import Cursor\nimport sensegate.flow\n", encoding="utf-8")
    assert wrong_imports("decode", bad) == {"share", "flow"}


def test_the_files_beside_the_folders_import_no_stage() -> None:
    """Records and tables know nothing of the stages; only the wiring does."""
    for file in SOURCE.glob("*.py"):
        if file.stem not in WIRING:
            assert not imports(file) & {*STAGES, TIERS, *WIRING}, file.name


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


def test_every_stage_folder_exists_and_no_other() -> None:
    """The folders are those of the architecture; the demo and the command line stand beside the wiring."""
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders - {"cli", "demo"} == {*STAGES, *FOUNDATIONS, TIERS}


def test_the_wiring_is_named_where_the_walk_is_told() -> None:
    """Each page of the wiring is there, and the package README says what it wires."""
    told = (SOURCE / "README.md").read_text(encoding="utf-8")
    pages = [name for name in WIRING if not (SOURCE / name).is_dir()]
    assert [name for name in pages if not (SOURCE / f"{name}.py").is_file()] == []
    assert [name for name in pages if f"{name}.py" not in told] == []
