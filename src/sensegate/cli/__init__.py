"""The command line: one module for each group of commands; every table is also available as JSON."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import sensegate
from sensegate.cli.registry import LazyCommands
from sensegate.cli.system_errors import describe_os_error
from sensegate.errors import SensegateError, errors_of

app = typer.Typer(
    name="sensegate",
    cls=LazyCommands,
    help="The sensing gateway of a city: every reading accounted for, from the device's PUBACK to the subscriber.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _version(requested: bool) -> None:  # noqa: FBT001 - typer calls it with one positional argument
    if requested:
        sys.stdout.write(f"sensegate {sensegate.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Run a command; `sensegate COMMAND --help` explains it."""


def main() -> None:
    """Run the command that the arguments name; each expected error is a line on standard error, with exit code 2.

    There may be several errors, because the parts of a gateway run in parallel and end together.
    """
    sentences: list[str] = []
    try:
        app()
    except* SensegateError as why:
        sentences += [str(error) for error in errors_of(why)]
    except* OSError as why:
        described = [describe_os_error(error) for error in errors_of(why) if isinstance(error, OSError)]
        if not all(described):
            raise
        sentences += described
    for sentence in dict.fromkeys(sentences):
        sys.stderr.write(f"sensegate: {sentence}\n")
    if sentences:
        sys.exit(2)


__all__ = ["app", "main"]
