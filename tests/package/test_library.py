"""What decodes and tests profiles is a library: it runs where there is no gateway, no broker and no web server."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sensegate"
LIBRARY = ("decode", "video", "frames", "scripts", "normalise", "quantities", "authoring")
GROUND = ("model", "errors", "clock", "metrics", "wording", "config")
"""What the library stands on: records, errors, clock, counters, words, configuration."""
FOREIGN = ("nats", "aiohttp", "paho", "typer", "uvloop", "joserfc", "argon2")
"""Packages of the gateway that the library must not need."""
LOADER = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(f"sensegate.{name}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
print("\\n".join(sys.modules))
"""


def loaded(code: str, *arguments: str) -> tuple[set[str], str]:
    """Run code in a fresh interpreter; return the top-level packages and rooms that it loaded, and what it printed."""
    listing = "\nimport sys as _sys\n_sys.stderr.write('\\n'.join(_sys.modules))"
    command = [sys.executable, "-c", code + listing, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    names = ran.stderr.split("\n")
    rooms = {".".join(name.split(".")[:2]) for name in names if name.startswith("sensegate.")}
    return {name.partition(".")[0] for name in names} | rooms, ran.stdout


def imported(source: str) -> set[str]:
    """Return the rooms of the package that a module imports, anywhere in it, for types too."""
    results: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            results |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "sensegate":
            results |= {f"sensegate.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            results.add(node.module)
    return {name.split(".")[1] for name in results if name.startswith("sensegate.")}


def strays(source: str) -> set[str]:
    """Return the rooms that a module imports and no module of the library may."""
    return imported(source) - {*LIBRARY, *GROUND}


def examples() -> list[str]:
    """Return the Python blocks of the profiles' README: a script, and a test."""
    text = (ROOT / "device_profiles" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_a_fresh_interpreter_loads_no_part_of_a_gateway() -> None:
    """Every module of the library imported, neither a stage with a network nor its packages is loaded."""
    names, _ = loaded(LOADER, *LIBRARY)
    rooms = {name.partition(".")[2] for name in names if name.startswith("sensegate.")}
    assert rooms == {*LIBRARY, *GROUND}
    assert names.isdisjoint(FOREIGN)


def test_another_room_would_be_seen() -> None:
    """The same look at a room with a network finds it."""
    names, _ = loaded(LOADER, "bus")
    assert {"sensegate.bus", "nats"} <= names


@pytest.mark.parametrize("room", [*LIBRARY, *GROUND])
def test_the_import_graph_stays_inside(room: str) -> None:
    """No module imports another room, not even later in a function or for a type."""
    files = [SOURCE / f"{room}.py"] if (SOURCE / f"{room}.py").exists() else [*(SOURCE / room).rglob("*.py")]
    assert files
    assert {file.name: result for file in files if (result := strays(file.read_text(encoding="utf-8")))} == {}


def test_a_hidden_import_would_be_seen() -> None:
    """Inside a function, or of a module of the package itself."""
    assert strays("def f():\n    from sensegate.bus.log import JetStreamLog\n") == {"bus"}
    assert strays("from sensegate import web, decode\n") == {"web"}


@pytest.mark.slow
def test_the_script_of_the_readme_prints_what_it_says() -> None:
    """Each printed line stands as the comment of its call, and nothing of a gateway was loaded."""
    script, _ = examples()
    names, modules = loaded(script)
    assert modules.splitlines() == re.findall(r"print\(.*\)  # (.*)", script)
    assert names.isdisjoint({*FOREIGN, "sensegate.bus", "sensegate.web"})


@pytest.mark.slow
def test_the_test_of_the_readme_passes_and_fails(tmp_path: Path) -> None:
    """A good profile passes; one whose example says something else fails, with its line."""
    _, test = examples()
    folder = tmp_path / "device_profiles" / "sensegate"
    folder.mkdir(parents=True)
    (tmp_path / "test_profiles.py").write_text(test, encoding="utf-8")
    profile = Path(shutil.copy(ROOT / "device_profiles" / "sensegate" / "plain.yaml", folder))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    good = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "1 passed" in good.stdout, good.stdout
    profile.write_text(profile.read_text(encoding="utf-8").replace("value: 21.5", "value: 12.5"), encoding="utf-8")
    bad = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "1 failed" in bad.stdout
    assert re.search(r"plain\.yaml:\d+: examples\[0\]: .*12\.5", bad.stdout), bad.stdout
