"""The command line: one file per group of commands; every table also as JSON."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated

import typer

from sensegate.cli import (
    applications,
    audit,
    backup,
    bundles,
    catalogue,
    centre,
    devices,
    doctor,
    feeds,
    grants,
    ledger,
    log,
    modes,
    nodes,
    people,
    profiles,
    releases,
    replay,
    returns,
    running,
    studies,
    tasks,
    tls,
    tokens,
    uplink,
    webhooks,
)
from sensegate.errors import SensegateError

app = typer.Typer(
    name="sensegate",
    help="The sensing gateway of a city: every reading accounted for, from the device's PUBACK to the subscriber.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
BEGIN, CARE = "Begin here", "Running it"
WORLD, SHARING = "Devices, nodes, people", "Sharing"
app.command(rich_help_panel=BEGIN)(running.demo)
app.command(rich_help_panel=BEGIN)(running.run)
app.command(rich_help_panel=BEGIN)(profiles.check)
app.command(rich_help_panel=BEGIN)(profiles.explain)
app.command(rich_help_panel=BEGIN)(ledger.ledger)
app.command(rich_help_panel=BEGIN)(replay.replay)
profiles.app.add_typer(releases.app)
profiles.app.add_typer(studies.app)
app.add_typer(profiles.app, name="profile", rich_help_panel=WORLD)
app.add_typer(devices.app, name="device", rich_help_panel=WORLD)
app.add_typer(tasks.app, name="task", rich_help_panel=WORLD)
nodes.app.add_typer(uplink.app)
app.add_typer(nodes.app, name="node", rich_help_panel=WORLD)
app.add_typer(tokens.app, name="token", rich_help_panel=WORLD)
app.add_typer(people.app, name="people", rich_help_panel=WORLD)
feeds.app.command("subscribers")(webhooks.subscribers)
app.add_typer(feeds.app, name="feed", rich_help_panel=SHARING)
app.add_typer(webhooks.app, name="webhook", rich_help_panel=SHARING)
app.add_typer(catalogue.app, name="catalogue", rich_help_panel=SHARING)
app.add_typer(applications.app, name="application", rich_help_panel=SHARING)
app.add_typer(bundles.app, name="bundle", rich_help_panel=SHARING)
app.add_typer(grants.app, name="grant", rich_help_panel=SHARING)
app.add_typer(grants.receipts, name="receipt", rich_help_panel=SHARING)
app.command(rich_help_panel=CARE)(doctor.doctor)
app.command(rich_help_panel=CARE)(backup.backup)
app.command(rich_help_panel=CARE)(backup.restore)
app.add_typer(log.app, name="log", rich_help_panel=CARE)
app.add_typer(audit.app, name="audit", rich_help_panel=CARE)
app.add_typer(modes.app, name="mode", rich_help_panel=CARE)
app.add_typer(centre.app, name="centre", rich_help_panel=CARE)
app.add_typer(returns.app, name="return", rich_help_panel=CARE)
app.add_typer(tls.app, name="tls", rich_help_panel=CARE)
app.command(rich_help_panel=CARE)(running.engine)
app.command(rich_help_panel=CARE)(running.bench)


def unwrapped(text: str) -> str:
    """Return a docstring with its paragraphs on one line each, for help is as wide as the terminal; examples stay."""
    return "\n\n".join(
        part if part.startswith(" ") else " ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")
    )


def _unwrap(group: typer.Typer) -> None:
    for command in group.registered_commands:
        if command.callback and command.callback.__doc__ and not command.help:
            command.help = unwrapped(command.callback.__doc__)
    for below in group.registered_groups:
        if below.typer_instance:
            _unwrap(below.typer_instance)


_unwrap(app)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's form of a callback
    if wanted:
        sys.stdout.write(f"sensegate {version('sensegate')}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """See the commands below; `sensegate COMMAND --help` explains each."""


def main() -> None:
    """Run the command of the arguments; an error of ours is one line on standard error and exit 2.

    The parts of a gateway end together, and each may have its own.
    """
    refused: list[BaseException] = []
    try:
        app()
    except* SensegateError as why:
        refused = list(_leaves(why))
    for one in refused:
        sys.stderr.write(f"sensegate: {one}\n")
    if refused:
        sys.exit(2)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the errors of a group."""
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


__all__ = ["app", "main"]
