"""`sensegate audit`: export and verification of the audit trail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, save
from sensegate.errors import ConfigError
from sensegate.wording import count

app = typer.Typer(help="Export the audit trail, sign its head, verify it.", no_args_is_help=True)

_EXPORT = "/api/v1/audit/export"


def _fetch(url: str, token: str, path: str) -> bytes:
    text, _ = call(url, token, lambda remote: remote.text(path, accept="*/*"))
    return text.encode()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as why:
        raise ConfigError("the file cannot be read", file=str(file), remedy=why.strerror or str(why)) from why


@app.command()
def export(
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Export the complete trail as stored, with its signed head as the last line (role auditor).

    Example: sensegate audit export --out trail.ndjson
    """
    body = _fetch(url, token, _EXPORT)
    if out is None:
        sys.stdout.buffer.write(body)
    else:
        save(out, body)
        records = body.count(b"\n") - 1
        console.print(f"{count(records, 'record')} in {out}", highlight=False)


@app.command()
def head(*, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Print the signed head, one line; keep it where the gateway cannot reach it (role auditor).

    Example: sensegate audit head >> heads.txt
    """
    sys.stdout.write(_fetch(url, token, "/api/v1/audit/head").decode() + "\n")


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="Exported trail; default: the trail of the running gateway.")
    ] = None,
    *,
    heads: Annotated[
        list[Path] | None, typer.Option("--head", help="File with signed heads recorded earlier; repeat for several.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The gateway's audit.pub; without it any key is accepted, and printed.")
    ] = None,
    aside: Annotated[
        list[Path] | None,
        typer.Option(
            help="trail.ndjson that one of two centres has set aside, to verify its heads; repeat for several."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Verify that no record was edited, deleted, inserted, reordered or cut off; exit 1 if one was.

    Example: sensegate audit verify trail.ndjson --head heads.txt --key audit.pub
    """
    from sensegate.authority import heads as signed_heads  # noqa: PLC0415 - cryptography is slow to load
    from sensegate.authority.chain import SetAsideTail, check_export  # noqa: PLC0415 - as above

    body = _read(file) if file else _fetch(url, token, _EXPORT)
    tails = [SetAsideTail(_read(path).splitlines()) for path in aside or ()]
    public = signed_heads.public_key(key) if key else None
    known = [head for path in heads or () for head in signed_heads.read_heads(path, key=public)]
    report = check_export(body.removesuffix(b"\n").split(b"\n"), heads=known, key=public, tails=tails)
    if json_form:
        print_json(msgspec.to_builtins(report))
    elif report.fault:
        console.print(f"[bold red]BROKEN[/bold red] at number {report.fault.number}: {report.fault.problem}")
    else:
        console.print(f"intact: records {report.first:,} to {report.last:,}, signed by {report.signer}")
        if known:
            console.print(
                f"{count(report.heads, 'head')} recorded earlier confirmed, {report.older} of records that have expired"
            )
        if report.aside:
            console.print(
                f"{count(report.aside, 'head')} of records that a centre has set aside, as this trail records"
            )
        if key is None:
            console.print("No key was given: compare the fingerprint, or give --key audit.pub.", style="dim")
    if report.fault:
        raise typer.Exit(1)
