"""`sensegate application`: apply for data of other owners, and decide on applications."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, parse_json, print_json, print_list
from sensegate.cli.words import ApplicationState

app = typer.Typer(
    help="Apply for data of other owners, and decide on applications.\n\n"
    "An application goes to the level that owns the data; after the deadline the level above may decide, too. "
    "An approved application becomes a grant (`sensegate grant`).",
    no_args_is_help=True,
)

_PATH = "/api/v1/applications"
COLUMNS = ("id", "state", "feeds", "applicant", "level", "deadline")

Id = Annotated[str, typer.Argument(help="Id of the application: a and 16 hex digits.", metavar="ID")]
Delivery = Annotated[
    list[str] | None,
    typer.Option(help="http, sse, ws, mqtt, webhook, nats or influx; repeat for several; default: all."),
]
Rate = Annotated[float, typer.Option(help="Limit in records per second; 0: no limit.")]
Volume = Annotated[int, typer.Option(help="Limit in records per month; 0: no limit.")]
MASK_HELP = (
    'Masking as JSON: {"drop": ["place"], "hash": ["device"], "grid_m": 1000, "time_s": 60, "k": 10, '
    '"round": [{"property": "air_temperature", "step": 0.5}]}.'
)


@app.command("list")
def list_(
    *,
    state: Annotated[ApplicationState | None, typer.Option(help="Restrict to a state.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the applications of your side, and those for data of your level.

    Example: sensegate application list --state pending
    """
    print_list(url, token, _PATH, COLUMNS, json_form=json_form, state=state or "")


@app.command()
def show(application: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Show an application with all its fields, as JSON.

    Example: sensegate application show a0123456789abcdef
    """
    print_json(call(url, token, lambda remote: remote.get(f"{_PATH}/{application}")))


@app.command()
def apply(
    feed: Annotated[
        list[str] | None, typer.Argument(help="Feeds of the catalogue; several are decided together.")
    ] = None,
    *,
    purpose: Annotated[str, typer.Option(help="Purpose of the use.")],
    legal_basis: Annotated[str, typer.Option(help="Law or rule that allows the use.")],
    days: Annotated[float, typer.Option(help="Duration in days.")] = 365.0,
    subscriber: Annotated[str, typer.Option(help="Id of the token that will read; default: your own.")] = "",
    bundle: Annotated[str, typer.Option(help="Name of a bundle, instead of feeds.")] = "",
    division: Annotated[list[str] | None, typer.Option(help="Restrict to this division; repeat for several.")] = None,
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="Restrict to this property; repeat for several.")
    ] = None,
    delivery: Delivery = None,
    rate: Rate = 0.0,
    volume: Volume = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Apply for feeds; feeds that are shared unconditionally are granted at once.

    Example: sensegate application apply gz-water --purpose 联防联控 --legal-basis 防洪法第38条 --delivery sse
    """
    body: dict[str, Any] = {"feeds": feed or [], "purpose": purpose, "legal_basis": legal_basis, "days": days}
    optional = {
        "bundle": bundle,
        "subscriber": subscriber,
        "divisions": division,
        "properties": property_,
        "deliveries": delivery,
        "rate": rate,
        "volume": volume,
    }
    body |= {key: value for key, value in optional.items() if value}
    _print_application(call(url, token, lambda remote: remote.post(_PATH, body)), json_form=json_form)


@app.command()
def approve(
    application: Id,
    *,
    reason: Annotated[str, typer.Option(help="Reason for the applicant and the audit trail.")] = "",
    days: Annotated[float, typer.Option(help="Duration in days; default: as applied for.")] = 0.0,
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "",
    division: Annotated[
        list[str] | None, typer.Option(help="Restrict to this part of the request; repeat for several.")
    ] = None,
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="Restrict to this part of the request; repeat for several.")
    ] = None,
    delivery: Annotated[
        list[str] | None, typer.Option(help="Restrict to this delivery; repeat for several; default: as applied for.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Limit in records per second; 0: as applied for.")] = 0.0,
    volume: Annotated[int, typer.Option(help="Limit in records per month; 0: as applied for.")] = 0,
    grade_max: Annotated[int, typer.Option(min=1, max=3, help="Highest grade of the readings.")] = 3,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Approve an application for your data; terms that you do not give are as applied for.

    Example: sensegate application approve a0123456789abcdef --mask '{"hash": ["device"], "grid_m": 1000}' --rate 50
    """
    optional = {
        "reason": reason,
        "days": days,
        "divisions": division,
        "properties": property_,
        "deliveries": delivery,
        "rate": rate,
        "volume": volume,
        "mask": parse_json(mask, "--mask"),
    }
    body = {"approve": True, "grade_max": grade_max} | {key: value for key, value in optional.items() if value}
    _print_application(
        call(url, token, lambda remote: remote.post(f"{_PATH}/{application}/decision", body)), json_form=json_form
    )


@app.command()
def refuse(
    application: Id,
    *,
    reason: Annotated[str, typer.Option(help="Reason for the applicant.")],
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Refuse an application.

    Example: sensegate application refuse a0123456789abcdef --reason "no legal basis"
    """
    body = {"approve": False, "reason": reason}
    _print_application(
        call(url, token, lambda remote: remote.post(f"{_PATH}/{application}/decision", body)), json_form=False
    )


@app.command()
def withdraw(application: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Withdraw your own application before it is decided.

    Example: sensegate application withdraw a0123456789abcdef
    """
    _print_application(call(url, token, lambda remote: remote.post(f"{_PATH}/{application}/withdraw")), json_form=False)


def _print_application(row: dict[str, Any], *, json_form: bool) -> None:
    if json_form:
        print_json(row)
        return
    console.print(f"{row['id']}: {row['state']}", highlight=False)
    if row["state"] == "pending":
        console.print(f"{row['level']} decides by {row['deadline']}", style="dim", highlight=False)
    if row["state"] == "lapsed":
        console.print("nobody decided in time; apply again, or wait: a late decision is still valid", style="dim")
    for grant in row["grants"]:
        console.print(f"grant {grant}", highlight=False)
