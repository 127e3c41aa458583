"""The command line: one module for each group of commands; every table is also available as JSON."""

from __future__ import annotations

import inspect
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from sensegate.cli import (
    alarm_channels,
    alarms,
    applications,
    audit,
    backup,
    bundles,
    catalogue,
    centre,
    comparisons,
    corrections,
    devices,
    doctor,
    feeds,
    grants,
    init,
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
    sizing,
    tasks,
    tls,
    tokens,
    top,
    trace,
    uplink,
    webhooks,
)
from sensegate.cli.renamed import CommandGroup
from sensegate.cli.system_errors import describe_os_error
from sensegate.errors import SensegateError, errors_of

app = typer.Typer(
    name="sensegate",
    help="The sensing gateway of a city: every reading accounted for, from the device's PUBACK to the subscriber.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
GETTING_STARTED, OPERATION = "Getting started", "Operation"
REGISTRIES, SHARING = "Devices, nodes, people", "Sharing"
app.command(rich_help_panel=GETTING_STARTED)(running.demo)
app.command(rich_help_panel=GETTING_STARTED)(init.init)
app.command(rich_help_panel=GETTING_STARTED)(running.run)
app.command(rich_help_panel=GETTING_STARTED)(profiles.check)
app.command(rich_help_panel=GETTING_STARTED)(profiles.explain)
app.command(rich_help_panel=GETTING_STARTED)(ledger.ledger)
app.command(rich_help_panel=GETTING_STARTED)(replay.replay)
profiles.app.add_typer(releases.app)
profiles.app.add_typer(comparisons.app)
app.add_typer(profiles.app, name="profile", cls=CommandGroup, rich_help_panel=REGISTRIES)
app.add_typer(devices.app, name="device", cls=CommandGroup, rich_help_panel=REGISTRIES)
app.add_typer(tasks.app, name="task", cls=CommandGroup, rich_help_panel=REGISTRIES)
app.add_typer(corrections.app, name="correction", cls=CommandGroup, rich_help_panel=OPERATION)
alarms.app.add_typer(alarm_channels.app)
app.add_typer(alarms.app, name="alarm", cls=CommandGroup, rich_help_panel=OPERATION)
nodes.app.add_typer(uplink.app)
app.add_typer(nodes.app, name="node", cls=CommandGroup, rich_help_panel=REGISTRIES)
app.add_typer(tokens.app, name="token", cls=CommandGroup, rich_help_panel=REGISTRIES)
app.add_typer(people.app, name="people", cls=CommandGroup, rich_help_panel=REGISTRIES)
feeds.app.command("subscribers")(webhooks.subscribers)
app.add_typer(feeds.app, name="feed", cls=CommandGroup, rich_help_panel=SHARING)
app.add_typer(webhooks.app, name="webhook", cls=CommandGroup, rich_help_panel=SHARING)
app.add_typer(catalogue.app, name="catalogue", cls=CommandGroup, rich_help_panel=SHARING)
app.add_typer(applications.app, name="application", cls=CommandGroup, rich_help_panel=SHARING)
app.add_typer(bundles.app, name="bundle", cls=CommandGroup, rich_help_panel=SHARING)
app.add_typer(grants.app, name="grant", cls=CommandGroup, rich_help_panel=SHARING)
app.add_typer(grants.statements, name="statement", cls=CommandGroup, rich_help_panel=SHARING)
app.command(rich_help_panel=OPERATION)(top.top)
app.command(rich_help_panel=OPERATION)(doctor.doctor)
app.command(rich_help_panel=OPERATION)(trace.trace)
app.command(rich_help_panel=OPERATION)(backup.backup)
app.command(rich_help_panel=OPERATION)(backup.restore)
app.add_typer(log.app, name="log", cls=CommandGroup, rich_help_panel=OPERATION)
app.add_typer(audit.app, name="audit", cls=CommandGroup, rich_help_panel=OPERATION)
app.add_typer(modes.app, name="mode", cls=CommandGroup, rich_help_panel=OPERATION)
app.add_typer(centre.app, name="centre", cls=CommandGroup, rich_help_panel=OPERATION)
app.add_typer(returns.app, name="return", cls=CommandGroup, rich_help_panel=OPERATION)
app.add_typer(tls.app, name="tls", cls=CommandGroup, rich_help_panel=OPERATION)
app.command(rich_help_panel=OPERATION)(running.engine)
app.command(rich_help_panel=OPERATION)(running.front)
app.command(rich_help_panel=OPERATION)(sizing.size)
app.command(rich_help_panel=OPERATION)(running.bench)


def unwrapped(text: str) -> str:
    """Return a docstring with each paragraph on one line, because help is as wide as the terminal; examples stay."""
    return "\n\n".join(
        part if part.startswith(" ") else " ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")
    )


def _unwrap(group: typer.Typer) -> None:
    for command in group.registered_commands:
        if command.callback and command.callback.__doc__ and not command.help:
            command.help = unwrapped(command.callback.__doc__)
    for subgroup in group.registered_groups:
        if subgroup.typer_instance:
            _unwrap(subgroup.typer_instance)


_unwrap(app)


def _version(requested: bool) -> None:  # noqa: FBT001 - typer calls it with one positional argument
    if requested:
        sys.stdout.write(f"sensegate {version('sensegate')}\n")
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
