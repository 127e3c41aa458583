"""A command loads what it needs: the help of the program no module of a command, a command none of the gateway."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sensegate import cli
from sensegate.cli.registry import COMMANDS, CommandEntry, load
from tests.support.commands import loaded_root

HEAVY = (
    "aiohttp", "cryptography", "duckdb", "jinja2", "lark", "nats", "numpy", "pint", "prometheus_client", "pyarrow",
    "shapely", "structlog", "sensegate.authoring", "sensegate.bus", "sensegate.decode", "sensegate.flow",
)  # fmt: skip
"""What costs a tenth of a second or more, or loads most of the gateway."""
FRONT_HEAVY = (
    "cryptography", "duckdb", "jinja2", "lark", "pint", "pyarrow", "shapely", "typer", "sensegate.authoring",
    "sensegate.authority", "sensegate.decode", "sensegate.flow", "sensegate.ingest", "sensegate.web",
)  # fmt: skip
"""What a front, which forwards messages without looking into them, has no use for."""
ENTRIES = pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)


def imported(code: str, modules: tuple[str, ...] = HEAVY) -> list[str]:
    """Return which of some modules a fresh interpreter has imported after some code."""
    report = f"import sys; print('\\nimported', *(name for name in {modules!r} if name in sys.modules))"
    script = f"try:\n  {code}\nexcept SystemExit:\n  pass\n{report}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    return run.stdout.splitlines()[-1].split()[1:]


def call(*arguments: str) -> str:
    """Return code that runs the program with arguments."""
    return f"import sys; sys.argv = {['sensegate', *arguments]!r}; from sensegate.cli import main; main()"


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("device", "list", "--help"), ("profile", "--help"), ("size", "--devices", "100")],
)
def test_a_command_that_needs_no_gateway_loads_none(arguments: tuple[str, ...]) -> None:
    """Neither the heavy libraries nor the heavy parts of the package are imported."""
    assert imported(call(*arguments)) == []


def test_a_mistake_in_the_configuration_is_told_before_the_gateway_is_loaded(tmp_path: Path) -> None:
    """An operator who mends a file line by line does not wait for what the gateway imports."""
    file = tmp_path / "node.yaml"
    file.write_text("role: node\nprofiles: x\n")
    loaded = imported(
        call("run", str(file)), ("aiohttp", "nats", "sensegate.config", "sensegate.decode", "sensegate.flow")
    )
    assert loaded == ["sensegate.config"]


def test_the_help_loads_no_module_of_a_command() -> None:
    """The help lists the commands by the registry alone."""
    modules = tuple(f"sensegate.cli.{entry.target.partition(':')[0]}" for entry in COMMANDS)
    assert imported(call("--help"), modules) == []
    assert imported(call("size", "--devices", "100"), modules) == ["sensegate.cli.sizing"]


def test_a_front_loads_no_part_of_the_gateway_that_it_does_not_use() -> None:
    """It starts anew whenever it ends, while its devices wait."""
    assert imported("import sensegate.collect.front.process", FRONT_HEAVY) == []


def test_what_is_imported_is_seen() -> None:
    """Control: a module that needs numpy is found by the same means."""
    assert "numpy" in imported("import sensegate.model")


@ENTRIES
def test_the_registry_says_what_the_command_says(entry: CommandEntry) -> None:
    """Its summary is the first paragraph of the command's own help, its name and its heading are the command's."""
    command: Any = load(entry)
    assert (command.name, command.rich_help_panel) == (entry.name, entry.panel)
    assert inspect.cleandoc(command.help).partition("\n\n")[0] == entry.summary


def test_the_help_is_that_of_the_loaded_commands() -> None:
    """What the registry makes the help print is what the commands themselves would."""
    root = loaded_root()
    with root.make_context("sensegate", [], resilient_parsing=True) as context:
        whole = "".join(
            f"{name} {root.get_command(context, name).help.partition(chr(10))[0]}" for name in root.commands
        )
    listed = "".join(f"{entry.name} {entry.summary}" for entry in COMMANDS)
    assert whole == listed
    assert all(f" {entry.name} " in CliRunner().invoke(cli.app, ["--help"]).output for entry in COMMANDS)


def test_every_group_of_the_folder_is_registered() -> None:
    """No module that makes a group of commands is forgotten."""
    folder = Path(cli.__file__).parent
    groups = {path.stem for path in folder.glob("*.py") if "= typer.Typer(" in path.read_text("utf-8")}
    targets = {target.partition(":")[0] for entry in COMMANDS for target in (entry.target, *entry.parts)}
    assert groups - {"__init__", "registry"} <= targets
    assert len(groups) > 20
