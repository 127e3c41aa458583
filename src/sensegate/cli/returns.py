"""`sensegate return`: what the centre gives back to a node, carried by files where there is no link."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Token, Url, call, console, save
from sensegate.wording import count

app = typer.Typer(help="Return flow by files, across an air gap: place, export, import.", no_args_is_help=True)


@app.command()
def offset(*, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Print the place to which a node has come; give it to `export` at the centre."""
    answer = call(url, token, lambda remote: remote.get("/api/v1/returns/place"))
    typer.echo(answer["cursor"])


@app.command()
def export(
    node: Annotated[str, typer.Argument(help="Division of the node.", metavar="DIVISION")],
    file: Annotated[Path, typer.Argument(help="File to write.")],
    *,
    after: Annotated[str, typer.Option(help="Place of the node (`sensegate return place` there).")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Write what goes back to a node into a signed file (at the centre)."""
    body, until = call(url, token, lambda remote: remote.content(f"/api/v1/returns/{node}", after=after))
    save(file, body)
    console.print(f"{file}: {count(len(body), 'byte')}; the next file begins after {until}", highlight=False)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File of `export`.", exists=True)],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Take a file of the centre (at the node); one that was taken before changes nothing."""
    body = file.read_bytes()
    answer = call(url, token, lambda remote: remote.post_text("/api/v1/returns", body, "application/octet-stream"))
    console.print(f"{count(answer['rows'], 'reading')}; this node has come to {answer['cursor']}", highlight=False)
