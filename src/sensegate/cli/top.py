"""`sensegate top`: the overview of a gateway in a terminal, refreshed until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, console, print_json, rows_of, tab_separated
from sensegate.errors import SensegateError, Unavailable
from sensegate.web.client import GatewayClient, ProblemResponse

FLOW = ("messages", "quarantined", "values", "duplicate", "suppressed", "rejected", "accepted", "forwarded", "withheld")
NODE_COLUMNS = ("member", "role", "state", "lag_entries", "devices", "load", "clock_offset_s", "version")
NEEDS_MAX = 12
ALARMS_MAX = 20
NOT_FOUND = 404
FORBIDDEN = 403


class Need(msgspec.Struct, frozen=True):
    """A sentence about what somebody has to look at."""

    urgent: bool
    text: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the overview."""

    title: str
    ready: bool
    balanced: bool
    counts: dict[str, int]
    """Counts of 24 hours, by kind of the ledger."""
    delivered: int
    devices: dict[str, int]
    nodes: list[dict[str, Any]]
    needs: list[Need]


async def read_overview(remote: GatewayClient) -> Overview:
    """Return the overview of a gateway for the caller. Raises `Unavailable`, `ProblemResponse`."""
    me, readiness, ledger = await asyncio.gather(
        remote.get("/api/v1/me"), remote.readiness(), remote.get("/api/v1/ledger", since="24h", limit="1")
    )
    nodes = rows_of(await _permitted(remote, "/api/v1/nodes"))
    alarms = rows_of(await _permitted(remote, "/api/v1/alarms", state="open", sort="-opened", limit=ALARMS_MAX))
    counts: dict[str, int] = {}
    for kind, count in (ledger.get("totals") or {}).items():
        head = kind.partition(".")[0]
        counts[head] = counts.get(head, 0) + count
    return Overview(
        title=f"{me['gateway_role']} {me['gateway_division']} · {me['name']} ({me['scope']})",
        ready=bool(readiness["ready"]),
        balanced=bool(ledger.get("balanced", True)),
        counts=counts,
        delivered=int(ledger.get("delivered") or 0),
        devices=dict(readiness.get("devices") or {}),
        nodes=nodes,
        needs=sorted(_needs(readiness, ledger, alarms, nodes), key=lambda need: not need.urgent),
    )


async def _permitted(remote: GatewayClient, path: str, **query: str | float) -> Any:
    """Return an answer; nothing where the caller may not ask, or the gateway has no such part."""
    try:
        return await remote.get(path, **query)
    except ProblemResponse as why:
        if why.status in {NOT_FOUND, FORBIDDEN}:
            return []
        raise


def _needs(
    readiness: Mapping[str, Any],
    ledger: Mapping[str, Any],
    alarms: Iterable[Mapping[str, Any]],
    nodes: Iterable[Mapping[str, Any]],
) -> Iterable[Need]:
    for reason in readiness["reasons"]:
        yield Need(True, reason)
    if not ledger.get("balanced", True):
        yield Need(True, "the ledger does not balance: data is missing")
    for alarm in alarms:
        about = f"{alarm['device'] or alarm['node']}: {alarm['title'] or alarm['rule']}"
        yield Need(alarm["severity"] in {"critical", "major"}, f"alarm, {alarm['severity']}: {about}")
    for node in nodes:
        if node["role"] != "centre" and node["state"] != "up":
            yield Need(True, f"node {node['member']} is {node['state']}")
        for problem in node.get("problems") or ():
            yield Need(False, f"node {node['member']}: {problem}")
    for warning in readiness["warnings"]:
        yield Need(False, warning)


def drawn(overview: Overview, now: dt.datetime, *, away: str = "") -> RenderableType:
    """Return the overview for a terminal; `away`: why these are the last figures that were read."""
    state = Text("ready", "green") if overview.ready else Text("not ready", "bold red")
    balance = Text("balanced", "green") if overview.balanced else Text("NOT BALANCED", "bold red")
    head = Text.assemble((overview.title, "bold"), "  ", state, "  ", balance, f"  {now:%Y-%m-%d %H:%M:%S}")
    parts: list[RenderableType] = [head]
    if away:
        parts.append(Text(f"the gateway is away: {away}", "bold red"))
    parts += [Text(""), _flow_table(overview), Text("")]
    if overview.devices:
        parts += [Text(f"devices   {_listed(overview.devices)}"), Text("")]
    if overview.nodes:
        parts += [_node_table(overview.nodes), Text("")]
    parts.append(Text("what needs you now", "bold"))
    for need in overview.needs[:NEEDS_MAX]:
        parts.append(Text(f"  {need.text}", "red" if need.urgent else "yellow"))
    if len(overview.needs) > NEEDS_MAX:
        parts.append(Text(f"  and {len(overview.needs) - NEEDS_MAX} more"))
    if not overview.needs:
        parts.append(Text("  nothing", "green"))
    return Group(*parts)


def _flow_table(overview: Overview) -> Table:
    grid = Table(title="24 hours", title_justify="left", box=None, pad_edge=False)
    kinds = [kind for kind in FLOW if kind in overview.counts or kind in {"messages", "values", "accepted"}]
    for kind in (*kinds, "delivered"):
        grid.add_column(kind, justify="right")
    counts = [overview.counts.get(kind, 0) for kind in kinds]
    grid.add_row(*(f"{count:,}" for count in (*counts, overview.delivered)))
    return grid


def _node_table(nodes: Iterable[Mapping[str, Any]]) -> Table:
    grid = Table(title="nodes", title_justify="left", box=None, pad_edge=False)
    for column in NODE_COLUMNS:
        numeric = column in {"lag_entries", "devices", "load", "clock_offset_s"}
        grid.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for node in nodes:
        style = "" if node["state"] == "up" else "red"
        grid.add_row(*(_figure(node.get(column)) for column in NODE_COLUMNS), style=style)
    return grid


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"


def lines(overview: Overview) -> list[str]:
    """Return the overview as tab-separated lines, for a pipe."""
    facts = {
        "gateway": overview.title,
        "ready": overview.ready,
        "balanced": overview.balanced,
        **overview.counts,
        "delivered": overview.delivered,
        **{f"devices_{state}": count for state, count in overview.devices.items()},
        **{f"node_{node['member']}": f"{node['state']}, lag {node['lag_entries']}" for node in overview.nodes},
    }
    needs = [{"key": "urgent" if need.urgent else "need", "value": need.text} for need in overview.needs]
    rows = [{"key": key, "value": value} for key, value in facts.items()]
    return tab_separated([*rows, *needs], ("key", "value"))


def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print once and end; exit 1 if the gateway is not ready.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.5, max=3_600, help="Seconds between refreshes.")] = 2.0,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Show the overview of a gateway, refreshed until Ctrl-C: flow, devices, nodes, and what needs you now.

    Into a pipe, and with --once or --json, it is printed once.

    Example: sensegate top --once
    """
    if once or json_form or not console.is_terminal:
        overview = asyncio.run(_read_once(url, token))
        if json_form:
            print_json(msgspec.to_builtins(overview))
        elif console.is_terminal:
            console.print(drawn(overview, _now()))
        else:
            typer.echo("".join(lines(overview)), nl=False)
        if not overview.ready:
            raise typer.Exit(1)
        return
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_follow(url, token, every))


async def _read_once(url: str, token: str) -> Overview:
    async with GatewayClient(url, token) as remote:
        return await read_overview(remote)


async def _follow(url: str, token: str, every: float) -> None:
    """Show the overview until cancelled; while the gateway is away, its last figures stay."""
    async with GatewayClient(url, token) as remote:
        overview = await read_overview(remote)
        with Live(drawn(overview, _now()), console=console, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(every)
                away = ""
                try:
                    overview = await read_overview(remote)
                except (Unavailable, ProblemResponse) as why:
                    away = _first_line(why)
                live.update(drawn(overview, _now(), away=away), refresh=True)


def _first_line(error: SensegateError) -> str:
    return str(error).partition("\n")[0]


def _now() -> dt.datetime:
    return dt.datetime.now().astimezone()
