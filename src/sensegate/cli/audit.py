"""`sensegate audit`: the record of who did what, as evidence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, save
from sensegate.errors import ConfigError
from sensegate.wording import count

app = typer.Typer(help="The audit trail: export it, sign its head, verify it.", no_args_is_help=True)

_EXPORT = "/api/v1/audit/export"


def _bytes(url: str, token: str, path: str) -> bytes:
    text, _ = call(url, token, lambda remote: remote.text(path, accept="*/*"))
    return text.encode()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as why:
        raise ConfigError("cannot be read", file=str(file), remedy=why.strerror or str(why)) from why


@app.command()
def export(
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Write the whole trail as it is stored, its signed head last (role auditor)."""
    body = _bytes(url, token, _EXPORT)
    if out is None:
        sys.stdout.buffer.write(body)
    else:
        save(out, body)
        records = body.count(b"\n") - 1
        console.print(f"{count(records, 'record')} in {out}", highlight=False)


@app.command()
def head(*, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Print the signed head: one line, to be kept where the gateway cannot reach (role auditor)."""
    sys.stdout.write(_bytes(url, token, "/api/v1/audit/head").decode() + "\n")


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An export; none: that of the running gateway.")] = None,
    *,
    heads: Annotated[
        list[Path] | None, typer.Option("--head", help="File with signed heads noted earlier; may be repeated.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The gateway's audit.pub; without it any key is believed, and named.")
    ] = None,
    aside: Annotated[
        list[Path] | None,
        typer.Option(help="trail.ndjson of what one of two centres has set aside, for heads of it; may be repeated."),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Find any edit, deletion, insertion, reordering or cut of the trail; exit 1 if there is one."""
    from sensegate.authority import heads as noted  # noqa: PLC0415 - cryptography, which other commands need not load
    from sensegate.authority.chain import Tail, check_export  # noqa: PLC0415 - the same

    body = _read(file) if file else _bytes(url, token, _EXPORT)
    tails = [Tail(_read(path).splitlines()) for path in aside or ()]
    public = noted.public_key(key) if key else None
    known = [head for path in heads or () for head in noted.read(path, key=public)]
    report = check_export(body.removesuffix(b"\n").split(b"\n"), heads=known, key=public, tails=tails)
    if json_form:
        print_json(msgspec.to_builtins(report))
    elif report.fault:
        console.print(f"[bold red]BROKEN[/bold red] at number {report.fault.number}: {report.fault.what}")
    else:
        console.print(f"whole: records {report.first:,} to {report.last:,}, signed by {report.signer}")
        if known:
            console.print(
                f"{count(report.heads, 'head')} noted earlier found again, {report.older} of records no longer kept"
            )
        if report.aside:
            console.print(f"{count(report.aside, 'head')} of records that a centre has set aside, as this trail says")
        if key is None:
            console.print("The key was not given: compare its fingerprint, or give --key audit.pub.", style="dim")
    if report.fault:
        raise typer.Exit(1)
