"""`sensegate node`: what the centre refused of a node, and what its operator does about it."""

from __future__ import annotations

from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_table
from sensegate.errors import ConfigError

app = typer.Typer()
Note = Annotated[str, typer.Option(help="Why, for the audit trail.")]
REFUSED = ("id", "kind", "grade", "reason", "rows", "devices_count", "spans", "at", "detail", "outcome")
OfMember = Annotated[
    str, typer.Argument(help="At the centre: id of the node; at the node: nothing.", metavar="[MEMBER]")
]


@app.command()
def refused(member: OfMember = "", *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List what the centre did not take of a node and may be sent once more.

    sensegate node refused
    """
    path = f"/api/v1/nodes/{member}/refused" if member else "/api/v1/uplink/refused"
    rows = call(url, token, lambda remote: remote.get(path))["rows"]
    print_table(rows, REFUSED, json_form=json_form)


@app.command()
def resend(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids as `refused` shows them.", metavar="[ID]...")] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All that was refused.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Send refused parts once more, at the node, once the centre was mended: exactly once.

    sensegate node resend --all
    """
    if not ids and not all_:
        raise ConfigError("nothing is named", key="ID", remedy="give ids of `sensegate node refused`, or --all")
    answer = call(url, token, lambda remote: remote.post("/api/v1/uplink/resend", {"ids": ids or []}))
    console.print(f"{answer['waiting']} parts are sent once more; `sensegate node refused` shows what is left")


@app.command()
def skip(
    lane: Annotated[str, typer.Argument(help="live or backlog, as `/readyz` says.", metavar="LANE")],
    *,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Go past a span that the centre refuses as a whole, at the node; its rows stay here and are counted as skipped.

    sensegate node skip live --note "garbage of the old release"
    """
    row = call(url, token, lambda remote: remote.post("/api/v1/uplink/skip", {"lane": lane, "note": note}))
    console.print(f"entries {row['after'] + 1} to {row['until']} of the {lane} lane are passed", highlight=False)


@app.command()
def takeover(*, note: Note = "", url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Let this node's store go on although another copy of it has sent; what waits here comes up, the other is refused.

    sensegate node takeover --note "the old machine is gone"
    """
    call(url, token, lambda remote: remote.post("/api/v1/uplink/takeover", {"note": note}))
    console.print("the lanes are claimed; /readyz says if they are not granted")
