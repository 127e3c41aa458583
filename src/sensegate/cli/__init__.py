"""The command line: one file per group of commands; every table also as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated

import typer

from sensegate.cli import (
    applications,
    audit,
    bundles,
    catalogue,
    centre,
    devices,
    doctor,
    feeds,
    grants,
    ledger,
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
app.command()(running.demo)
app.command()(running.run)
app.command()(running.engine)
app.command()(profiles.check)
app.command()(profiles.explain)
profiles.app.add_typer(releases.app)
profiles.app.add_typer(studies.app)
app.add_typer(profiles.app, name="profile")
app.add_typer(devices.app, name="device")
app.add_typer(tasks.app, name="task")
app.add_typer(modes.app, name="mode")
app.add_typer(returns.app, name="return")
app.add_typer(audit.app, name="audit")
app.add_typer(centre.app, name="centre")
app.add_typer(nodes.app, name="node")
app.add_typer(tokens.app, name="token")
app.add_typer(people.app, name="people")
feeds.app.command("subscribers")(webhooks.subscribers)
app.add_typer(tls.app, name="tls")
app.add_typer(feeds.app, name="feed")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(applications.app, name="application")
app.add_typer(bundles.app, name="bundle")
app.add_typer(grants.app, name="grant")
app.add_typer(grants.receipts, name="receipt")
app.command()(ledger.ledger)
app.command()(doctor.doctor)
app.command()(replay.replay)
app.command()(running.bench)


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
