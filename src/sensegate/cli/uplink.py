"""`sensegate node refused`, `resend`, `skip`, `takeover`: data that the centre refused, and how to resolve it."""

from __future__ import annotations

from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_table
from sensegate.cli.words import Lane
from sensegate.errors import ConfigError

app = typer.Typer()
Note = Annotated[str, typer.Option(help="Reason for the audit trail.")]
REFUSED = ("id", "kind", "grade", "reason", "rows", "devices_count", "spans", "at", "detail", "outcome")
OfMember = Annotated[str, typer.Argument(help="Id of the node, at the centre; omit at the node.", metavar="[MEMBER]")]


@app.command()
def refused(member: OfMember = "", *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the parts that the centre refused and that the node may resend.

    Example: sensegate node refused
    """
    path = f"/api/v1/nodes/{member}/refused" if member else "/api/v1/uplink/refused"
    rows = call(url, token, lambda remote: remote.get(path))["rows"]
    print_table(rows, REFUSED, json_form=json_form)


@app.command()
def resend(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids as `sensegate node refused` shows them.", metavar="[ID]...")
    ] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Resend all refused parts.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Resend refused parts (at the node) after the cause was removed; each is accepted exactly once.

    Example: sensegate node resend --all
    """
    if not ids and not all_:
        raise ConfigError("no part is named", key="ID", remedy="give ids of `sensegate node refused`, or --all")
    answer = call(url, token, lambda remote: remote.post("/api/v1/uplink/resend", {"ids": ids or []}))
    console.print(f"{answer['waiting']} parts are resent; `sensegate node refused` shows the remainder")


@app.command()
def skip(
    lane: Annotated[Lane, typer.Argument(help="Lane as shown by `/readyz`.")],
    *,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Skip a span that the centre refuses (at the node); its rows stay at the node and are counted as skipped.

    Example: sensegate node skip live --note "garbage of the old release"
    """
    row = call(url, token, lambda remote: remote.post("/api/v1/uplink/skip", {"lane": lane, "note": note}))
    console.print(f"entries {row['after'] + 1} to {row['until']} of the {lane} lane are skipped", highlight=False)


@app.command()
def takeover(*, note: Note = "", url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Claim the lanes for this node's store although a copy of it has sent; the copy is refused from now on.

    Example: sensegate node takeover --note "the old machine is gone"
    """
    call(url, token, lambda remote: remote.post("/api/v1/uplink/takeover", {"note": note}))
    console.print("the lanes are claimed; /readyz reports if they are not granted")
