"""The commands of the program: what the help lists of them, and where each is loaded from when it is used.

A command imports what it needs and nothing of the others: the help of the program loads no module of a command.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from typing import Any

import msgspec
import typer
from typer.core import TyperCommand, TyperGroup

from sensegate.cli.renamed import CommandGroup

GETTING_STARTED, OPERATION = "Getting started", "Operation"
REGISTRIES, SHARING = "Devices, nodes, people", "Sharing"


class CommandEntry(msgspec.Struct, frozen=True):
    """A command, or a group of commands, as it is known before it is loaded."""

    name: str
    panel: str
    """Heading under which the help of the program lists it."""
    target: str
    """``module:attribute`` in this folder: the function of a command, the `typer.Typer` of a group."""
    summary: str
    """First paragraph of its own help."""
    parts: tuple[str, ...] = ()
    """Targets of more groups, whose commands it has too."""


COMMANDS: tuple[CommandEntry, ...] = (
    CommandEntry(
        "demo",
        GETTING_STARTED,
        "running:demo",
        "Run a centre and its nodes with simulated devices, injected faults and an independent judge.",
    ),
    CommandEntry(
        "init",
        GETTING_STARTED,
        "init:init",
        "Write the first configuration of a gateway with its certificates, start it on request, and print where to "
        "look.",
    ),
    CommandEntry(
        "run",
        GETTING_STARTED,
        "running:run",
        "Run a node or centre until SIGTERM or Ctrl-C, together with its nats-server.",
    ),
    CommandEntry(
        "check",
        GETTING_STARTED,
        "profiles:check",
        "Check configurations and profiles and run the examples of every profile; exit 1 if there is a problem.",
    ),
    CommandEntry(
        "explain",
        GETTING_STARTED,
        "profiles:explain",
        "Explain how one message is processed: matching profile and why, fields, readings, quality, identity.",
    ),
    CommandEntry(
        "ledger",
        GETTING_STARTED,
        "ledger:ledger",
        "Print the conservation table, which accounts for everything that came in; exit 1 if it does not balance.",
    ),
    CommandEntry(
        "replay",
        GETTING_STARTED,
        "replay:replay",
        "Publish recorded messages at QoS 1 and wait for their acknowledgements.",
    ),
    CommandEntry(
        "top",
        OPERATION,
        "top:top",
        "Show the overview of a gateway, refreshed until Ctrl-C: flow, devices, nodes, and what needs you now.",
    ),
    CommandEntry(
        "doctor",
        OPERATION,
        "doctor:doctor",
        "Check versions, disk, ports, certificates, secrets, profiles, store, clock, queues; exit 1 if anything is "
        "bad.",
    ),
    CommandEntry(
        "trace",
        OPERATION,
        "trace:trace",
        "Trace one reading: its message, batch, commit, span to the centre, and the deliveries that have passed it.",
    ),
    CommandEntry(
        "backup",
        OPERATION,
        "backup:backup",
        "Back up a node or centre, also while it runs: all streams and state files as of one moment.",
    ),
    CommandEntry(
        "restore",
        OPERATION,
        "backup:restore",
        "Restore a backup into the directory of a configuration, after all its checksums were verified.",
    ),
    CommandEntry(
        "engine",
        OPERATION,
        "running:engine",
        "Write the configuration of an external nats-server, and the credentials file with which the gateway connects.",
    ),
    CommandEntry(
        "front",
        OPERATION,
        "running:front",
        "Run the MQTT fronts of this machine apart from the gateway, until SIGTERM or Ctrl-C.",
    ),
    CommandEntry(
        "size",
        OPERATION,
        "sizing:size",
        "Print the cores, memory, disk, link and nodes that a number of devices needs, and the limit reached next.",
    ),
    CommandEntry(
        "bench",
        OPERATION,
        "running:bench",
        "Run a benchmark of tests/bench, together with its baseline on the same machine.",
    ),
    CommandEntry(
        "profile",
        REGISTRIES,
        "profiles:app",
        "Write, test and release device profiles.",
        ("releases:app", "comparisons:app"),
    ),
    CommandEntry(
        "device",
        REGISTRIES,
        "devices:app",
        "Register, find, change, rotate, disable, retire, move and label devices, and publish for them.",
    ),
    CommandEntry(
        "task",
        REGISTRIES,
        "tasks:app",
        "Create, list, show and cancel tasks of devices; show their tasking capabilities.",
    ),
    CommandEntry(
        "correction",
        OPERATION,
        "corrections:app",
        "Withdraw readings of a span, or set their quality; list corrections.",
    ),
    CommandEntry(
        "alarm",
        OPERATION,
        "alarms:app",
        "List, acknowledge and silence alarms; write the rules that raise them.",
        ("alarm_channels:app",),
    ),
    CommandEntry(
        "node",
        REGISTRIES,
        "nodes:app",
        "Manage nodes. At the centre: invite, replace, areas, own, expel, list, show, gaps, refused. At the node: "
        "join, leave, refused, resend, skip, takeover.",
        ("uplink:app",),
    ),
    CommandEntry("token", REGISTRIES, "tokens:app", "Create, list and revoke access tokens."),
    CommandEntry("people", REGISTRIES, "people:app", "Manage user accounts and passwords; sign in and out."),
    CommandEntry("feed", SHARING, "feeds:app", "Create, read and follow feeds; list their subscribers."),
    CommandEntry("webhook", SHARING, "webhooks:app", "Create, list, pause, resume and delete webhooks."),
    CommandEntry(
        "catalogue", SHARING, "catalogue:app", "List, search, describe and export the catalogue of shared feeds."
    ),
    CommandEntry(
        "application", SHARING, "applications:app", "Apply for data of other owners, and decide on applications."
    ),
    CommandEntry(
        "bundle",
        SHARING,
        "bundles:app",
        "Group feeds that are applied for and granted together (`sensegate application apply --bundle NAME`).",
    ),
    CommandEntry(
        "grant",
        SHARING,
        "grants:app",
        "List, change, renew and revoke grants: who may read which feed, how long, mask, quota.",
    ),
    CommandEntry(
        "statement",
        SHARING,
        "grants:statements",
        "Fetch and verify monthly usage statements of grants, signed by the gateway.",
    ),
    CommandEntry("log", OPERATION, "log:app", "List, quarantine and restore unreadable entries of the log."),
    CommandEntry("audit", OPERATION, "audit:app", "Export the audit trail, sign its head, verify it."),
    CommandEntry(
        "mode",
        OPERATION,
        "modes:app",
        "Write, approve and delete emergency plans; order, end, list and show mode orders.",
    ),
    CommandEntry("centre", OPERATION, "centre:app", "Show which of two centres is active; promote the standby."),
    CommandEntry(
        "return", OPERATION, "returns:app", "Carry the return flow by files across an air gap: offset, export, import."
    ),
    CommandEntry("tls", OPERATION, "tls:app", "Create certificates for a laboratory; print certificate pins."),
)
"""Commands in the order in which the help lists them."""
_BY_NAME = {entry.name: entry for entry in COMMANDS}


class LazyCommands(TyperGroup):
    """The commands of the program, each of which is loaded when the arguments name it."""

    def __init__(self, **attributes: Any) -> None:
        """`attributes`: as those of any group."""
        super().__init__(**attributes)
        self.commands = {
            entry.name: TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel) for entry in COMMANDS
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the loaded command of the arguments; end with a usage error for an unknown word.

        Without types of click, because typer brings a click of its own, which it does not export.
        """
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(_BY_NAME[name]) if name else command, rest


@cache
def load(entry: CommandEntry) -> Any:
    """Import the module of a command and return the command, as click has it."""
    holder = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    target = _target(entry.target)
    if isinstance(target, typer.Typer):
        for part in entry.parts:
            target.add_typer(_target(part))
        _unwrap(target)
        holder.add_typer(target, name=entry.name, cls=CommandGroup, rich_help_panel=entry.panel)
    else:
        holder.command(entry.name, help=unwrapped(target.__doc__ or ""), rich_help_panel=entry.panel)(target)
    return typer.main.get_group(holder).commands[entry.name]


def _target(text: str) -> Any:
    module, _, attribute = text.partition(":")
    return getattr(import_module(f"sensegate.cli.{module}"), attribute)


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
