"""`sensegate application`: apply for data of others; decide on what others apply for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, parse_json, print_json, print_list

app = typer.Typer(
    help="Applications for data of others.\n\n"
    "apply ─▶ the level that owns the data approves or refuses; past the deadline the level above may, too ─▶ a grant.",
    no_args_is_help=True,
)

_PATH = "/api/v1/applications"
COLUMNS = ("id", "state", "feeds", "applicant", "level", "deadline")

Id = Annotated[str, typer.Argument(help="Id as listed: a and 16 hex digits.", metavar="ID")]
Delivery = Annotated[
    list[str] | None, typer.Option(help="http, sse, ws, mqtt, webhook or nats; may be repeated; default: all.")
]
Rate = Annotated[float, typer.Option(help="Records a second; 0: no limit.")]
Volume = Annotated[int, typer.Option(help="Records a month; 0: no limit.")]
MASK_HELP = (
    'What is hidden, as JSON: {"drop": ["place"], "hash": ["device"], "grid_m": 1000, "time_s": 60, "k": 10, '
    '"round": [{"property": "air_temperature", "step": 0.5}]}.'
)


@app.command("list")
def list_(
    *,
    state: Annotated[str, typer.Option(help="pending, approved, refused, withdrawn or lapsed.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the applications that concern you: of your side, or for data of your level."""
    print_list(url, token, _PATH, COLUMNS, json_form=json_form, state=state)


@app.command()
def show(application: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Show one, whole."""
    print_json(call(url, token, lambda remote: remote.get(f"{_PATH}/{application}")))


@app.command()
def apply(
    feed: Annotated[
        list[str] | None, typer.Argument(help="Feeds of the catalogue; several are decided as one.")
    ] = None,
    *,
    purpose: Annotated[str, typer.Option(help="What for.")],
    legal_basis: Annotated[str, typer.Option(help="By which law or rule.")],
    days: Annotated[float, typer.Option(help="For how long.")] = 365.0,
    subscriber: Annotated[str, typer.Option(help="Id of the token that will read; default: yours.")] = "",
    bundle: Annotated[str, typer.Option(help="Name of a bundle, in place of feeds.")] = "",
    division: Annotated[list[str] | None, typer.Option(help="Only these divisions; may be repeated.")] = None,
    property_: Annotated[list[str] | None, typer.Option("--property", help="Only these; may be repeated.")] = None,
    delivery: Delivery = None,
    rate: Rate = 0.0,
    volume: Volume = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Apply for feeds; what is shared unconditionally is granted at once.

    Example: sensegate application apply gz-water --purpose 联防联控 --legal-basis 防洪法第38条 --delivery sse
    """
    body: dict[str, Any] = {"feeds": feed or [], "purpose": purpose, "legal_basis": legal_basis, "days": days}
    more = {
        "bundle": bundle,
        "subscriber": subscriber,
        "divisions": division,
        "properties": property_,
        "deliveries": delivery,
        "rate": rate,
        "volume": volume,
    }
    body |= {key: value for key, value in more.items() if value}
    _print_application(call(url, token, lambda remote: remote.post(_PATH, body)), json_form=json_form)


@app.command()
def approve(
    application: Id,
    *,
    reason: Annotated[str, typer.Option(help="For the applicant and the record.")] = "",
    days: Annotated[float, typer.Option(help="Less than was asked for.")] = 0.0,
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "",
    division: Annotated[list[str] | None, typer.Option(help="Only these of what was asked for.")] = None,
    property_: Annotated[list[str] | None, typer.Option("--property", help="Only these of what was asked for.")] = None,
    delivery: Delivery = None,
    rate: Rate = 0.0,
    volume: Volume = 0,
    grade_max: Annotated[int, typer.Option(min=1, max=3, help="Highest grade of readings.")] = 3,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Approve an application for data of yours; what is not said is as it was applied for.

    Example: sensegate application approve a0123456789abcdef --mask '{"hash": ["device"], "grid_m": 1000}' --rate 50
    """
    more = {
        "reason": reason,
        "days": days,
        "divisions": division,
        "properties": property_,
        "deliveries": delivery,
        "rate": rate,
        "volume": volume,
        "mask": parse_json(mask, "--mask"),
    }
    body = {"approve": True, "grade_max": grade_max} | {key: value for key, value in more.items() if value}
    _print_application(
        call(url, token, lambda remote: remote.post(f"{_PATH}/{application}/decision", body)), json_form=json_form
    )


@app.command()
def refuse(
    application: Id,
    *,
    reason: Annotated[str, typer.Option(help="Why; the applicant is told.")],
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Refuse an application."""
    body = {"approve": False, "reason": reason}
    _print_application(
        call(url, token, lambda remote: remote.post(f"{_PATH}/{application}/decision", body)), json_form=False
    )


@app.command()
def withdraw(application: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Take an application of yours back before it is decided."""
    _print_application(call(url, token, lambda remote: remote.post(f"{_PATH}/{application}/withdraw")), json_form=False)


def _print_application(row: dict[str, Any], *, json_form: bool) -> None:
    if json_form:
        print_json(row)
        return
    console.print(f"{row['id']}: {row['state']}", highlight=False)
    if row["state"] == "pending":
        console.print(f"{row['level']} decides until {row['deadline']}", style="dim", highlight=False)
    if row["state"] == "lapsed":
        console.print("nobody answered in time; apply anew, or wait: a late answer is taken", style="dim")
    for grant in row["grants"]:
        console.print(f"grant {grant}", highlight=False)
