"""`sensegate alarm`: alarms and the rules that raise them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensegate.cli.output import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    call,
    console,
    print_record,
    print_table,
    put_latest,
    rows_of,
)
from sensegate.cli.times import HOUR_S, parse_duration
from sensegate.cli.words import AlarmKind, AlarmState, Severity

app = typer.Typer(help="List, acknowledge and silence alarms; write the rules that raise them.", no_args_is_help=True)

COLUMNS = ("id", "severity", "state", "device", "property", "value", "title", "opened", "closed", "acknowledged_by")
RULE_COLUMNS = ("name", "kind", "severity", "place", "profile", "device", "property", "above", "below", "equals", "by")
AlarmId = Annotated[str, typer.Argument(help="Alarm id, see `sensegate alarm list`.", metavar="ALARM")]
RuleName = Annotated[str, typer.Argument(help="Name of the rule.", metavar="RULE")]
Seconds = Annotated[float, typer.Option(parser=parse_duration, metavar="SPAN")]


@app.command("list")
def list_(
    *,
    state: Annotated[AlarmState | None, typer.Option(help="Restrict to a state.")] = None,
    severity: Annotated[Severity | None, typer.Option(help="Restrict to a severity.")] = None,
    device: Annotated[str, typer.Option(help="Restrict to this device.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Limit of rows.")] = 1_000,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the alarms in your scope, newest first.

    Example: sensegate alarm list --state open
    """
    query = {"state": state, "severity": severity, "device": device}
    given = {key: value for key, value in query.items() if value}
    answer = call(url, token, lambda remote: remote.get("/api/v1/alarms", sort="-opened", limit=str(limit), **given))
    print_table(rows_of(answer), COLUMNS, json_form=json_form)


@app.command()
def show(alarm: AlarmId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show an alarm in full.

    Example: sensegate alarm show a64723bd0f2c01a2b3c4d
    """
    print_record(call(url, token, lambda remote: remote.get(f"/api/v1/alarms/{alarm}")), json_form=json_form)


@app.command()
def acknowledge(
    alarm: AlarmId,
    *,
    note: Annotated[str, typer.Option(help="What is being done about it.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Acknowledge an open alarm.

    Example: sensegate alarm acknowledge a64723bd0f2c01a2b3c4d --note "crew on its way"
    """
    body = {"note": note}
    answer = call(url, token, lambda remote: remote.post(f"/api/v1/alarms/{alarm}/acknowledge", body))
    print_record(answer, json_form=json_form)


@app.command()
def silence(
    alarm: AlarmId,
    *,
    span: Annotated[
        float,
        typer.Option("--for", parser=parse_duration, metavar="SPAN", show_default="1h", help="How long; 0: end it."),
    ] = HOUR_S,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Silence an alarm for a while, also where it opens anew; its events stay in the feed, marked.

    Example: sensegate alarm silence a64723bd0f2c01a2b3c4d --for 8h
    """
    body = {"seconds": span, "note": note}
    answer = call(url, token, lambda remote: remote.post(f"/api/v1/alarms/{alarm}/silence", body))
    print_record(answer, json_form=json_form)


@app.command()
def rules(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the alarm rules of operators, of profiles and of the gateway.

    Example: sensegate alarm rules
    """
    answer = call(url, token, lambda remote: remote.get("/api/v1/alarm-rules"))
    print_table(rows_of(answer), RULE_COLUMNS, json_form=json_form)


@app.command("set")
def set_(
    rule: RuleName,
    kind: Annotated[
        AlarmKind,
        typer.Argument(
            help="threshold, change, silence, gap, quality, quarantine_rate, lag, disk, refused_spans, store_missing.",
            metavar="KIND",
        ),
    ],
    *,
    place: Annotated[str, typer.Option(help="DIVISION or DIVISION/DEPARTMENT; default: your scope.")] = "",
    title: Annotated[str, typer.Option(help="Text for people.")] = "",
    severity: Annotated[Severity, typer.Option(help="Severity of its alarms.")] = "warning",
    profile: Annotated[str, typer.Option(help="Restrict to devices of this profile.")] = "",
    domain: Annotated[str, typer.Option(help="Restrict to devices of this domain.")] = "",
    device: Annotated[str, typer.Option(help="Restrict to this device.")] = "",
    property_: Annotated[str, typer.Option("--property", help="Standard name of the property.")] = "",
    channel: Annotated[str | None, typer.Option(help="Its channel; default: any.")] = None,
    above: Annotated[float | None, typer.Option(help="Open above this value.")] = None,
    below: Annotated[float | None, typer.Option(help="Open below this value.")] = None,
    equals: Annotated[str, typer.Option(help="Open at this word, or at true or false.")] = "",
    margin: Annotated[float, typer.Option(help="Close once the value is back by this much.")] = 0.0,
    for_: Annotated[
        float,
        typer.Option(
            "--for",
            parser=parse_duration,
            metavar="SPAN",
            show_default="0",
            help="Open once the condition has held this long.",
        ),
    ] = 0.0,
    by: Annotated[float, typer.Option(help="Of change: greatest difference between readings.")] = 0.0,
    after: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="SPAN",
            show_default="three intervals",
            help="Of silence and gap: longest time without a message.",
        ),
    ] = 0.0,
    indicator: Annotated[
        str, typer.Option(help="Of quality: authenticity, accuracy, continuity or completeness.")
    ] = "",
    disabled: Annotated[bool, typer.Option("--disabled", help="Keep the rule, raise no alarms by it.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Write an alarm rule; one of the same name is replaced.

    Example: sensegate alarm set high-water threshold --property water_level --above 3 --margin 0.2 --for 5m
    """
    body: dict[str, Any] = {
        "kind": kind,
        "place": place,
        "title": title,
        "severity": severity,
        "profile": profile,
        "domain": domain,
        "device": device,
        "property": property_,
        "channel": channel,
        "above": above,
        "below": below,
        "equals": {"": None, "true": True, "false": False}.get(equals, equals),
        "margin": margin,
        "for_s": for_,
        "by": by,
        "after_s": after,
        "indicator": indicator,
        "enabled": not disabled,
    }

    row = call(url, token, lambda remote: put_latest(remote, f"/api/v1/alarm-rules/{rule}", body))
    print_record(row, json_form=json_form)


@app.command()
def delete(rule: RuleName, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Delete an alarm rule; its alarms close.

    Example: sensegate alarm delete high-water
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/alarm-rules/{rule}"))
    console.print(f"alarm rule {rule} is deleted", highlight=False)
