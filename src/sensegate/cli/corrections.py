"""`sensegate correction`: readings of a span, withdrawn or set to another quality afterwards."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, print_record, print_table, rows_of

app = typer.Typer(help="Withdraw readings of a span, or set their quality; list corrections.", no_args_is_help=True)

COLUMNS = ("id", "action", "devices", "begin", "end", "quality", "state", "corrected", "note", "by")
Devices = Annotated[list[str], typer.Argument(help="Device ids.", metavar="DEVICE")]
Begin = Annotated[str, typer.Option("--from", help="Start of the span, ISO 8601 with zone.")]
End = Annotated[str, typer.Option("--to", help="End of the span, exclusive.")]
Properties = Annotated[
    list[str] | None,
    typer.Option("--property", help="Only this property (name#channel: of one of several sensors); may be repeated."),
]
Note = Annotated[str, typer.Option(help="Reason for the audit trail.")]


@app.command()
def withdraw(
    devices: Devices,
    *,
    begin: Begin,
    end: End,
    note: Note,
    property_: Properties = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Withdraw the readings of a span: each gets a revision with the flag `withdrawn`.

    Example: sensegate correction withdraw air-1 --from 2026-11-30T08:00Z --to 2026-11-30T09:00Z --note calibration
    """
    body = {"action": "withdraw", "devices": devices, "begin": begin, "end": end, "note": note}
    _order({**body, "properties": property_ or []}, url, token, json_form=json_form)


@app.command()
def annotate(
    devices: Devices,
    *,
    begin: Begin,
    end: End,
    note: Note,
    quality: Annotated[str, typer.Option(help="New quality, e.g. uncertain_calibration, bad_maintenance, good.")],
    property_: Properties = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Set the quality of the readings of a span, as revisions; also takes a withdrawal back.

    Example: sensegate correction annotate air-1 --from 2026-11-30T08Z --to 2026-11-30T09Z --quality good --note cleaned
    """
    body = {"action": "annotate", "devices": devices, "begin": begin, "end": end, "note": note, "quality": quality}
    _order({**body, "properties": property_ or []}, url, token, json_form=json_form)


def _order(body: dict[str, Any], url: str, token: str, *, json_form: bool) -> None:
    answer = call(url, token, lambda remote: remote.post("/api/v1/corrections", body))
    print_record(answer, json_form=json_form)


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the corrections in your scope, newest first.

    Example: sensegate correction list
    """
    answer = call(url, token, lambda remote: remote.get("/api/v1/corrections", sort="-id"))
    print_table(rows_of(answer), COLUMNS, json_form=json_form)


@app.command()
def show(
    correction: Annotated[str, typer.Argument(help="Id of the correction.", metavar="CORRECTION")],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Show a correction with its outcome.

    Example: sensegate correction show 019b0a3f8e00a1b2c3
    """
    print_record(call(url, token, lambda remote: remote.get(f"/api/v1/corrections/{correction}")), json_form=json_form)
