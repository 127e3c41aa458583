"""`sensegate alarm channel`: where alarms are delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_list, print_record, put_latest
from sensegate.cli.words import ChannelKind, Severity
from sensegate.errors import ConfigError

app = typer.Typer(
    name="channel", help="Deliver alarms by webhook, robots of WeCom and DingTalk, or mail.", no_args_is_help=True
)
COLUMNS = ("name", "kind", "place", "severity", "events", "delivered", "failures", "reason", "last", "on_call")
ChannelName = Annotated[str, typer.Argument(help="Name of the channel.", metavar="CHANNEL")]


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the channels in your scope, and how they deliver.

    Example: sensegate alarm channel list
    """
    print_list(url, token, "/api/v1/alarm-channels", COLUMNS, json_form=json_form)


@app.command("set")
def set_(
    channel: ChannelName,
    kind: Annotated[ChannelKind, typer.Argument(help="How it delivers; wecom: 企业微信, dingtalk: 钉钉.")],
    *,
    address: Annotated[str, typer.Option(help="Address of the webhook or robot; kept if it is not given.")] = "",
    secret_file: Annotated[
        Path | None, typer.Option(help="File with the key of signatures: of a webhook, or a robot of DingTalk.")
    ] = None,
    to: Annotated[list[str] | None, typer.Option(help="Mail address; repeat for several.")] = None,
    place: Annotated[str, typer.Option(help="DIVISION or DIVISION/DEPARTMENT; default: your scope.")] = "",
    severity: Annotated[Severity, typer.Option(help="Least severity.")] = "warning",
    event: Annotated[
        list[str] | None,
        typer.Option(help="opened, acknowledged, silenced or closed; repeat for several. Default: opened, closed."),
    ] = None,
    on_call: Annotated[str, typer.Option(help="Who is on call; the last line of each message.")] = "",
    language: Annotated[str, typer.Option(help="zh or en.")] = "zh",
    disabled: Annotated[bool, typer.Option("--disabled", help="Keep the channel, deliver nothing.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Write a channel; one of the same name is replaced.

    Example: sensegate alarm channel set duty mail --to duty@example.cn --severity major --on-call "Zhang San"
    """
    body: dict[str, Any] = {
        "kind": kind,
        "place": place,
        "severity": severity,
        "events": event or ["opened", "closed"],
        "url": address,
        "secret": _read(secret_file) if secret_file else "",
        "recipients": to or [],
        "on_call": on_call,
        "language": language,
        "enabled": not disabled,
    }

    row = call(url, token, lambda remote: put_latest(remote, f"/api/v1/alarm-channels/{channel}", body))
    print_record(row, json_form=json_form)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as why:
        remedy = why.strerror or str(why)
        raise ConfigError("the file cannot be read", file=str(file), key="--secret-file", remedy=remedy) from why


@app.command()
def trial(channel: ChannelName, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Send a trial message; exit 1 if the receiver does not accept it.

    Example: sensegate alarm channel trial duty
    """
    result = call(url, token, lambda remote: remote.post(f"/api/v1/alarm-channels/{channel}/trial"))
    outcome = "accepted" if result["accepted"] else f"not accepted: {result['reason']}"
    console.print(outcome, highlight=False, markup=False)
    if not result["accepted"]:
        raise typer.Exit(1)


@app.command()
def delete(channel: ChannelName, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Delete a channel; nothing more is delivered to it.

    Example: sensegate alarm channel delete duty
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/alarm-channels/{channel}"))
    console.print(f"alarm channel {channel} is deleted", highlight=False)
