"""`sensegate node`: the nodes of a centre, and a node's own joining and leaving."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer

from sensegate.cli.output import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    call,
    console,
    print_json,
    print_list,
    print_record,
    stderr,
)
from sensegate.cli.times import DAY_S, parse_duration
from sensegate.errors import ConfigError

app = typer.Typer(
    help="Nodes: invite, replace, areas, own, expel, list, show, gaps, refused (at the centre); join, leave, refused, "
    "resend, skip, takeover (at the node).",
    no_args_is_help=True,
)

COLUMNS = (
    "member", "role", "state", "membership", "version", "lag_entries", "clock_offset_s", "load", "devices", "detail",
)  # fmt: skip
Division = Annotated[str, typer.Argument(help="City code, e.g. 4401.", metavar="DIVISION")]
Member = Annotated[str, typer.Argument(help="Id of the node, usually its city code, e.g. 4401.", metavar="MEMBER")]
Id = Annotated[str, typer.Option("--member", help="Id of the node where its city has several, e.g. 4401-port.")]
Areas = Annotated[
    str, typer.Option(help="Divisions of which it may send readings, by commas; default: its city.", metavar="CODES")
]
Note = Annotated[str, typer.Option(help="Why, for the audit trail.")]
Expires = Annotated[
    float, typer.Option(parser=parse_duration, metavar="SPAN", show_default="24h", help="Life of the code: 12h, 7d.")
]
ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration of the node.", exists=True)]


def _print_code(body: dict[str, Any], url: str, token: str, *, json_form: bool) -> None:
    answer = call(url, token, lambda remote: remote.post("/api/v1/nodes", body))
    if json_form:
        print_json(answer)
        return
    typer.echo(answer["code"])
    stderr.print(
        f"It is not shown again and works once, until {answer['until']}. At the node:\n"
        f"  sensegate node join CODE --centre {url} --config config/node.yaml",
        style="dim",
        highlight=False,
    )


@app.command()
def invite(
    division: Division,
    *,
    member: Id = "",
    areas: Areas = "",
    expires: Expires = DAY_S,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Make a code with which the node of a city joins this centre; it is printed this once.

    sensegate node invite 4403 --areas 4403,441521
    """
    body = {"division": division, "member": member, "areas": _codes(areas), "expires_s": expires, "note": note}
    _print_code(body, url, token, json_form=json_form)


@app.command()
def replace(
    division: Division,
    *,
    member: Id = "",
    expires: Expires = DAY_S,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Make a code for a node in place of the present one (new hardware); that one goes on until the other joins."""
    body = {"division": division, "member": member, "expires_s": expires, "note": note, "replace": True}
    _print_code(body, url, token, json_form=json_form)


def _codes(text: str) -> list[str]:
    return [code.strip() for code in text.split(",") if code.strip()]


@app.command("areas")
def set_areas(
    member: Member,
    areas: Annotated[str, typer.Argument(help="Division codes by commas, each with all below it.", metavar="CODES")],
    *,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Give a node other areas; readings of divisions outside them are refused from now on.

    sensegate node areas 4403 4403,441521
    """
    body = {"areas": _codes(areas), "note": note}
    answer = call(url, token, lambda remote: remote.put(f"/api/v1/nodes/{member}/areas", body))
    console.print(f"{member} may send readings of {', '.join(answer['areas'])}", highlight=False)


@app.command()
def own(
    device: Annotated[str, typer.Argument(help="Id of the device.", metavar="DEVICE")],
    member: Member,
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Decide which node owns a device, where the wrong one was the first to send it.

    sensegate node own met-1 4403
    """
    answer = call(url, token, lambda remote: remote.put(f"/api/v1/device-owners/{device}", {"member": member}))
    console.print(f"{answer['device']} belongs to {answer['owner']}", highlight=False)


@app.command()
def expel(member: Member, *, note: Note = "", url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Expel a node, or take its invitation back: its connection is closed within 2 s."""
    answer = call(url, token, lambda remote: remote.post(f"/api/v1/nodes/{member}/expel", {"note": note}))
    console.print(f"{member} is {answer['state']}")


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the nodes that the gateway knows: state, lag, release, load, clock."""
    print_list(url, token, "/api/v1/nodes", COLUMNS, json_form=json_form)


@app.command()
def show(member: Member, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show all that is known of a node."""
    answer: dict[str, Any] = call(url, token, lambda remote: remote.get(f"/api/v1/nodes/{member}"))
    if not json_form:
        for key in ("last_commit", "reported", "copied"):
            answer[key] = _time_text(answer.get(key) or 0)
        answer["gaps"] = [f"{_time_text(since)} to {_time_text(until)}" for since, until in answer.get("gaps", ())]
    print_record(answer, json_form=json_form)


def _time_text(time_us: int) -> str:
    return dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC).isoformat(timespec="seconds") if time_us else ""


@app.command()
def gaps(member: Member, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Name what did not come of a node that was lost with its store; exit 1 if there is anything."""
    rows = call(url, token, lambda remote: remote.get(f"/api/v1/nodes/{member}/gaps"))["rows"]
    if json_form:
        print_json(rows)
    for row in () if json_form else rows:
        console.print(f"{row['since']} to {row['until']}: what was committed and not yet forwarded", highlight=False)
        for one in row["devices"]:
            runs = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in one["runs"])
            said = "counts anew: not known" if one["restarted"] else f"{one['count']} missing: {runs}"
            console.print(f"  {one['device']}  {said}", highlight=False)
    if rows:
        raise typer.Exit(1)


@app.command()
def join(
    code: Annotated[str, typer.Argument(help="As `node invite` or `node replace` printed it.", metavar="CODE")],
    *,
    centre: Annotated[str, typer.Option(help="Address of the centre's HTTP side; default: uplink.centre_url.")] = "",
    config: ConfigFile = Path("config/node.yaml"),
) -> None:
    """Join a centre; the node, running or started later, forwards to it."""
    from sensegate.config import load  # noqa: PLC0415 - only these two commands need it
    from sensegate.publish import membership  # noqa: PLC0415 - the same

    mine = load(config)
    if mine.role != "node":
        raise ConfigError(f"is a {mine.role}", file=str(config), key="role", remedy="a node joins a centre")
    if not (address := centre or mine.uplink.centre_url):
        raise ConfigError("no centre is named", key="uplink.centre_url", remedy="give --centre URL")
    made = asyncio.run(
        membership.join(Path(mine.directory), code, address, member=mine.member_id, link=mine.uplink.url)
    )
    console.print(f"{made.member} has joined {made.centre}; its link goes to {made.url}", highlight=False)


@app.command()
def leave(*, config: ConfigFile = Path("config/node.yaml")) -> None:
    """Leave the centre; the node goes on alone."""
    from sensegate.config import load  # noqa: PLC0415 - see above
    from sensegate.publish import membership  # noqa: PLC0415 - see above

    left = asyncio.run(membership.leave(Path(load(config).directory)))
    console.print(f"{left.member} has left {left.centre}", highlight=False)
