"""`sensegate grant`, `sensegate statement`: access to data of other owners, its usage, and signed proof of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from sensegate.cli.applications import MASK_HELP
from sensegate.cli.output import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    call,
    console,
    parse_json,
    print_json,
    print_list,
    print_table,
    rows_of,
)
from sensegate.cli.words import GrantState
from sensegate.errors import ConfigError
from sensegate.web.client import GatewayClient

app = typer.Typer(
    help="List, change, renew and revoke grants: who may read which feed, how long, mask, quota.\n\n"
    "An approved application (`sensegate application`) becomes a grant. A change or revocation reaches every delivery "
    "within 2 s, including open streams.",
    no_args_is_help=True,
)
statements = typer.Typer(
    help="Fetch and verify monthly usage statements of grants, signed by the gateway.", no_args_is_help=True
)

_PATH = "/api/v1/grants"
COLUMNS = ("id", "state", "feed", "applicant", "expires", "volume", "used")
Id = Annotated[str, typer.Argument(help="Id of the grant: g and 16 hex digits.", metavar="ID")]
Month = Annotated[str, typer.Option(help="Month in Beijing time, e.g. 2026-01; default: the current one.")]


@app.command("list")
def list_(
    *,
    state: Annotated[GrantState | None, typer.Option(help="Restrict to a state.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List your own grants, those of your side, and those for data of your level.

    Example: sensegate grant list --state active
    """
    print_list(url, token, _PATH, COLUMNS, json_form=json_form, state=state or "")


@app.command()
def show(grant: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Show a grant with all its fields, as JSON.

    Example: sensegate grant show g0123456789abcdef
    """
    print_json(call(url, token, lambda remote: remote.get(f"{_PATH}/{grant}")))


@app.command()
def change(
    grant: Id,
    *,
    days: Annotated[float | None, typer.Option(help="New duration in days from now.")] = None,
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "",
    rate: Annotated[float | None, typer.Option(help="Limit in records per second; 0: no limit.")] = None,
    volume: Annotated[int | None, typer.Option(help="Limit in records per month; 0: no limit.")] = None,
    subscriber: Annotated[str, typer.Option(help="Transfer the grant to another token of the same applicant.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Change the terms of a grant; open streams follow within 2 s.

    Example: sensegate grant change g0123456789abcdef --volume 100000 --mask '{"grid_m": 2000}'
    """
    terms = {
        "days": days,
        "rate": rate,
        "volume": volume,
        "subscriber": subscriber or None,
        "mask": parse_json(mask, "--mask"),
    }
    body = {key: value for key, value in terms.items() if value is not None}
    if not body:
        raise typer.BadParameter("nothing to change; see --help")

    async def work(remote: GatewayClient) -> Any:
        present = await remote.get(f"{_PATH}/{grant}")
        return await remote.patch(f"{_PATH}/{grant}", body, present["revision"])

    print_table([call(url, token, work)], COLUMNS, json_form=json_form)


@app.command()
def revoke(
    grant: Id,
    *,
    reason: Annotated[str, typer.Option(help="Reason for the subscriber.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Revoke a grant (as owner), or return it (as subscriber); its deliveries end within 2 s.

    Example: sensegate grant revoke g0123456789abcdef --reason "purpose fulfilled"
    """
    query = f"?reason={quote(reason)}" if reason else ""
    call(url, token, lambda remote: remote.delete(f"{_PATH}/{grant}{query}"))
    console.print(f"{grant} is revoked", highlight=False)


@app.command()
def renew(
    grant: Id,
    *,
    days: Annotated[float, typer.Option(help="Additional days.")] = 365.0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Apply for an extension with the same terms; the owner decides as on any application.

    Example: sensegate grant renew g0123456789abcdef --days 90
    """
    row = call(url, token, lambda remote: remote.post(f"{_PATH}/{grant}/renew", {"days": days}))
    console.print(f"application {row['id']}: {row['state']}", highlight=False)


@app.command()
def usage(grant: Id, *, month: Month = "", url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show the usage of a grant in a month, by delivery method.

    Example: sensegate grant usage g0123456789abcdef --month 2026-01
    """
    answer = call(url, token, lambda remote: remote.get(f"{_PATH}/{grant}/usage", month=month))
    columns = ("delivery", "month", "requests", "records", "scanned", "unsettled", "bytes", "last", "subscriber")
    print_table(rows_of(answer), columns, json_form=json_form)


@statements.command("get")
def get(
    grant: Id,
    month: Annotated[str, typer.Argument(help="Month in Beijing time, e.g. 2026-01.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Fetch the signed usage statement of a month; do not change its bytes.

    Example: sensegate statement get g0123456789abcdef 2026-01 --out 2026-01.json
    """
    text, _ = call(url, token, lambda remote: remote.text(f"{_PATH}/{grant}/statements/{month}", accept="*/*"))
    if out is None:
        sys.stdout.write(text + "\n")
    else:
        out.write_text(text + "\n", encoding="utf-8")


@statements.command()
def verify(
    file: Annotated[Path, typer.Argument(help="Statement as fetched.")],
    *,
    key: Annotated[
        Path | None, typer.Option(help="The gateway's statements.pub; without it any key is accepted, and printed.")
    ] = None,
    json_form: Json = False,
) -> None:
    """Verify the signature and sums of a usage statement offline; exit 1 if they do not match.

    Example: sensegate statement verify 2026-01.json --key statements.pub
    """
    from sensegate.authority.heads import public_key  # noqa: PLC0415 - cryptography is slow to load
    from sensegate.share.usage_statements import verify_statement  # noqa: PLC0415 - the same

    try:
        line = file.read_bytes()
    except OSError as why:
        raise ConfigError("the file cannot be read", file=str(file), remedy=why.strerror or str(why)) from why
    known = public_key(key) if key else None
    try:
        statement = verify_statement(line, key=known)
    except ConfigError as why:
        console.print(f"[bold red]INVALID[/bold red]: {why}", highlight=False)
        raise typer.Exit(1) from None
    if json_form:
        print_json(msgspec.to_builtins(statement))
        return
    state = "whole month" if statement.complete else "so far"
    console.print(
        f"valid: grant {statement.grant} of {statement.feed} to {statement.applicant}, {statement.month} ({state}): "
        f"{statement.records:,} records, {statement.bytes:,} bytes, signed by the gateway of {statement.gateway}",
        highlight=False,
    )
    if known is None:
        console.print(f"No key was given; the statement was signed with {statement.key}: compare it.", style="dim")
