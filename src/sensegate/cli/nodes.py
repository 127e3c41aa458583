"""`sensegate node`: the nodes of a centre, and joining and leaving at a node."""

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
    help="Manage nodes. At the centre: invite, replace, areas, own, expel, list, show, gaps, refused. At the node: "
    "join, leave, refused, resend, skip, takeover.",
    no_args_is_help=True,
)

COLUMNS = (
    "member", "role", "state", "membership", "version", "lag_entries", "clock_offset_s", "load", "devices", "detail",
)  # fmt: skip
Division = Annotated[str, typer.Argument(help="City code, e.g. 4401.", metavar="DIVISION")]
Member = Annotated[str, typer.Argument(help="Id of the node, usually its city code, e.g. 4401.", metavar="MEMBER")]
Id = Annotated[str, typer.Option("--member", help="Id of the node if its city has several, e.g. 4401-port.")]
Areas = Annotated[
    str,
    typer.Option(help="Divisions whose readings it may send, separated by commas; default: its city.", metavar="CODES"),
]
Note = Annotated[str, typer.Option(help="Reason for the audit trail.")]
Expires = Annotated[
    float,
    typer.Option(parser=parse_duration, metavar="SPAN", show_default="24h", help="Lifetime of the code: 12h, 7d."),
]
ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration of the node.", exists=True)]


def _print_code(body: dict[str, Any], url: str, token: str, *, json_form: bool) -> None:
    answer = call(url, token, lambda remote: remote.post("/api/v1/nodes", body))
    if json_form:
        print_json(answer)
        return
    typer.echo(answer["code"])
    stderr.print(
        f"The code is not shown again; it works once, until {answer['until']}. At the node:\n"
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
    """Create a code with which the node of a city joins this centre; it is printed only once.

    Example: sensegate node invite 4403 --areas 4403,441521
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
    """Create a code for a replacement node (new hardware); the current one works until the replacement joins.

    Example: sensegate node replace 4403
    """
    body = {"division": division, "member": member, "expires_s": expires, "note": note, "replace": True}
    _print_code(body, url, token, json_form=json_form)


def _codes(text: str) -> list[str]:
    return [code.strip() for code in text.split(",") if code.strip()]


@app.command("areas")
def set_areas(
    member: Member,
    areas: Annotated[
        str, typer.Argument(help="Division codes separated by commas, each with its subdivisions.", metavar="CODES")
    ],
    *,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Change the areas of a node; readings of divisions outside them are refused from now on.

    Example: sensegate node areas 4403 4403,441521
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
    """Set the node that owns a device, if another one sent its data first.

    Example: sensegate node own met-1 4403
    """
    answer = call(url, token, lambda remote: remote.put(f"/api/v1/device-owners/{device}", {"member": member}))
    console.print(f"{answer['device']} belongs to {answer['owner']}", highlight=False)


@app.command()
def expel(member: Member, *, note: Note = "", url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Expel a node or cancel its invitation; its connection is closed within 2 s.

    Example: sensegate node expel 4403 --note "decommissioned"
    """
    answer = call(url, token, lambda remote: remote.post(f"/api/v1/nodes/{member}/expel", {"note": note}))
    console.print(f"{member} is {answer['state']}")


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the known nodes with state, lag, release, load and clock offset.

    Example: sensegate node list
    """
    print_list(url, token, "/api/v1/nodes", COLUMNS, json_form=json_form)


@app.command()
def show(member: Member, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show a node in full.

    Example: sensegate node show 4403
    """
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
    """List the data of a node that was lost with its store and never reached the centre; exit 1 if there is any.

    Example: sensegate node gaps 4403
    """
    rows = call(url, token, lambda remote: remote.get(f"/api/v1/nodes/{member}/gaps"))["rows"]
    if json_form:
        print_json(rows)
    for row in () if json_form else rows:
        console.print(f"{row['since']} to {row['until']}: committed at the node and not forwarded", highlight=False)
        for device in row["devices"]:
            runs = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in device["runs"])
            summary = (
                "its counter restarted: number unknown" if device["restarted"] else f"{device['count']} missing: {runs}"
            )
            console.print(f"  {device['device']}  {summary}", highlight=False)
    if rows:
        raise typer.Exit(1)


@app.command()
def join(
    code: Annotated[str, typer.Argument(help="Code printed by `node invite` or `node replace`.", metavar="CODE")],
    *,
    centre: Annotated[str, typer.Option(help="HTTP address of the centre; default: uplink.centre_url.")] = "",
    config: ConfigFile = Path("config/node.yaml"),
) -> None:
    """Join a centre; the node, running or started later, forwards to it.

    Example: sensegate node join CODE --centre https://centre.example:28080
    """
    from sensegate.config import load  # noqa: PLC0415 - only `join` and `leave` need it
    from sensegate.tiers import membership  # noqa: PLC0415 - as above

    settings = load(config)
    if settings.role != "node":
        raise ConfigError(f"the role is {settings.role}", file=str(config), key="role", remedy="a node joins a centre")
    if not (address := centre or settings.uplink.centre_url):
        raise ConfigError("the address of the centre is missing", key="uplink.centre_url", remedy="give --centre URL")
    joined = asyncio.run(
        membership.join(
            Path(settings.directory), code, address, member=settings.member_id, link_url=settings.uplink.url
        )
    )
    console.print(f"{joined.member} has joined {joined.centre}; its link goes to {joined.url}", highlight=False)


@app.command()
def leave(*, config: ConfigFile = Path("config/node.yaml")) -> None:
    """Leave the centre; the node continues without one.

    Example: sensegate node leave
    """
    from sensegate.config import load  # noqa: PLC0415 - as above
    from sensegate.tiers import membership  # noqa: PLC0415 - as above

    left = asyncio.run(membership.leave(Path(load(config).directory)))
    console.print(f"{left.member} has left {left.centre}", highlight=False)
