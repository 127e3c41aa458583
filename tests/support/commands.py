"""The command line with every command loaded, for tests that walk over it."""

from __future__ import annotations

from typing import Any

import typer.main

from sensegate.cli import app
from sensegate.cli.registry import COMMANDS, load


def loaded_root() -> Any:
    """Return the group of all commands as click has it, with no command left to be loaded."""
    root: Any = typer.main.get_command(app)
    root.commands = {entry.name: load(entry) for entry in COMMANDS}
    return root
