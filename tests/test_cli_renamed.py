"""Old command words: refused, with the new one named."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.cli.renamed import RENAMED
from tests.support.commands import loaded_root

ROOT = loaded_root()


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_word_is_refused_with_the_new_one_named(old: str) -> None:
    """The command is not run; the error names the command of today, and exit code 2 says that it is a usage error."""
    group, _ = old.split()
    result = CliRunner().invoke(app, [*old.split(), "x"])
    assert result.exit_code == 2
    assert f"'{old}' is called '{group} {RENAMED[old]}' now" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_new_word_exists_and_the_old_one_does_not(old: str, new: str) -> None:
    """The table names only commands that there are."""
    group, word = old.split()
    assert new in ROOT.commands[group].commands
    assert word not in ROOT.commands[group].commands


def test_another_unknown_word_is_refused_as_usual() -> None:
    """Control: a word that never existed gets no new name."""
    result = CliRunner().invoke(app, ["task", "dance"])
    assert result.exit_code == 2
    assert "No such command" in result.output


def commands(command: Any, path: str = "sensegate") -> list[tuple[str, Any]]:
    """Return (full name, command) of every command without subcommands."""
    children = getattr(command, "commands", {})
    if not children:
        return [(path, command)]
    return [pair for name, child in children.items() for pair in commands(child, f"{path} {name}")]


@pytest.mark.parametrize(("name", "command"), commands(ROOT), ids=[name for name, _ in commands(ROOT)])
def test_each_command_shows_an_example_of_its_use(name: str, command: Any) -> None:
    """The help of a command holds a call of it."""
    assert f"{name} " in f"{command.help} ".replace("`", " ").replace("\n", " ") or f"{name}\n" in command.help
