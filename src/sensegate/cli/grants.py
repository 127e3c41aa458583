"""`sensegate grant`, `sensegate receipt`: rights to data of others, what they delivered, and proof of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from sensegate.cli.applications import MASK_HELP
from sensegate.cli.shown import DEFAULT_URL, Json, Token, Url, as_json, ask, console, document, listed, rows_of, table
from sensegate.errors import ConfigError
from sensegate.web.client import Remote

app = typer.Typer(
    help="Grants: who may read which feed, until when, through which mask and quota.\n\n"
    "A grant comes of an application (`sensegate application`). Revoked or changed, it is so on every delivery "
    "within 2 s, open streams included.",
    no_args_is_help=True,
)
receipts = typer.Typer(help="Monthly receipts of what was delivered, signed by the gateway.", no_args_is_help=True)

_PATH = "/api/v1/grants"
COLUMNS = ("id", "state", "feed", "applicant", "expires", "volume", "used")
Id = Annotated[str, typer.Argument(help="Id as listed: g and 16 hex digits.", metavar="ID")]
Month = Annotated[str, typer.Option(help="Of Beijing time, as 2026-01; default: this one.")]


@app.command("list")
def list_(
    *,
    state: Annotated[str, typer.Option(help="active, waiting, expired or revoked.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the grants that concern you: your own, those of your side, those of data of your level."""
    listed(url, token, _PATH, COLUMNS, json_form=json_form, state=state)


@app.command()
def show(grant: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Show one, whole."""
    as_json(ask(url, token, lambda remote: remote.get(f"{_PATH}/{grant}")))


@app.command()
def change(
    grant: Id,
    *,
    days: Annotated[float | None, typer.Option(help="Ends so many days from now.")] = None,
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "",
    rate: Annotated[float | None, typer.Option(help="Records a second; 0: no limit.")] = None,
    volume: Annotated[int | None, typer.Option(help="Records a month; 0: no limit.")] = None,
    subscriber: Annotated[str, typer.Option(help="Hand it to another token of the same applicant.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Change the terms of a grant; in force within 2 s on open streams too.

    Example: sensegate grant change g0123456789abcdef --volume 100000 --mask '{"grid_m": 2000}'
    """
    given = {
        "days": days,
        "rate": rate,
        "volume": volume,
        "subscriber": subscriber or None,
        "mask": document(mask, "--mask"),
    }
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise typer.BadParameter("nothing to change; see --help")

    async def work(remote: Remote) -> Any:
        present = await remote.get(f"{_PATH}/{grant}")
        return await remote.patch(f"{_PATH}/{grant}", body, present["revision"])

    table([ask(url, token, work)], COLUMNS, json_form=json_form)


@app.command()
def revoke(
    grant: Id,
    *,
    reason: Annotated[str, typer.Option(help="Why; the subscriber is told.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Take a grant back (owner), or give it back (subscriber); every delivery of it ends within 2 s."""
    query = f"?reason={quote(reason)}" if reason else ""
    ask(url, token, lambda remote: remote.delete(f"{_PATH}/{grant}{query}"))
    console.print(f"{grant} is revoked", highlight=False)


@app.command()
def renew(
    grant: Id,
    *,
    days: Annotated[float, typer.Option(help="For how much longer.")] = 365.0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Apply for more time with the same terms; the owner decides as on any application."""
    row = ask(url, token, lambda remote: remote.post(f"{_PATH}/{grant}/renew", {"days": days}))
    console.print(f"application {row['id']}: {row['state']}", highlight=False)


@app.command()
def usage(grant: Id, *, month: Month = "", url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show what a grant delivered in a month, by delivery."""
    answer = ask(url, token, lambda remote: remote.get(f"{_PATH}/{grant}/usage", month=month))
    columns = ("delivery", "month", "requests", "records", "unsettled", "bytes", "last", "subscriber")
    table(rows_of(answer), columns, json_form=json_form)


@receipts.command("get")
def get(
    grant: Id,
    month: Annotated[str, typer.Argument(help="Of Beijing time, as 2026-01.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Fetch the receipt of a month as it was signed: keep it byte for byte."""
    text, _ = ask(url, token, lambda remote: remote.text(f"{_PATH}/{grant}/receipts/{month}", accept="*/*"))
    if out is None:
        sys.stdout.write(text + "\n")
    else:
        out.write_text(text + "\n", encoding="utf-8")


@receipts.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The receipt as it was fetched.")],
    *,
    key: Annotated[
        Path | None, typer.Option(help="The gateway's receipts.pub; without it any key is believed, and named.")
    ] = None,
    json_form: Json = False,
) -> None:
    """Check a receipt without any gateway: signature and sums; exit 1 if it is not as it was signed.

    Example: sensegate receipt verify 2026-01.json --key receipts.pub
    """
    from sensegate.authority.heads import public_key  # noqa: PLC0415 - cryptography, which others need not load
    from sensegate.share.usage_statements import verify_statement  # noqa: PLC0415 - the same

    try:
        line = file.read_bytes()
    except OSError as why:
        raise ConfigError("cannot be read", file=str(file), remedy=why.strerror or str(why)) from why
    known = public_key(key) if key else None
    try:
        receipt = verify_statement(line, key=known)
    except ConfigError as why:
        console.print(f"[bold red]NOT GOOD[/bold red]: {why}", highlight=False)
        raise typer.Exit(1) from None
    if json_form:
        as_json(msgspec.to_builtins(receipt))
        return
    state = "whole month" if receipt.complete else "so far"
    console.print(
        f"good: grant {receipt.grant} of {receipt.feed} to {receipt.applicant}, {receipt.month} ({state}): "
        f"{receipt.records:,} records, {receipt.bytes:,} bytes, signed by the gateway of {receipt.gateway}",
        highlight=False,
    )
    if known is None:
        console.print(f"The key was not given; it was signed with {receipt.key}: compare it.", style="dim")
