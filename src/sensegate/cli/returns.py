"""`sensegate return`: the return flow from a centre to a node as files, for sites without a link."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Token, Url, call, console, save
from sensegate.wording import count

app = typer.Typer(
    help="Carry the return flow by files across an air gap: offset, export, import.", no_args_is_help=True
)


@app.command()
def offset(*, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Print the offset up to which a node has received; pass it to `sensegate return export` at the centre.

    Example: sensegate return offset > offset.txt
    """
    answer = call(url, token, lambda remote: remote.get("/api/v1/returns/place"))
    typer.echo(answer["cursor"])


@app.command()
def export(
    node: Annotated[str, typer.Argument(help="Division of the node.", metavar="DIVISION")],
    file: Annotated[Path, typer.Argument(help="File to write.")],
    *,
    after: Annotated[str, typer.Option(help="Offset of the node (`sensegate return offset` there).")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Export the readings for a node into a signed file (at the centre).

    Example: sensegate return export 4403 back.bin --after "$(cat offset.txt)"
    """
    body, until = call(url, token, lambda remote: remote.content(f"/api/v1/returns/{node}", after=after))
    save(file, body)
    console.print(f"{file}: {count(len(body), 'byte')}; the next file starts after {until}", highlight=False)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File written by `sensegate return export`.", exists=True)],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Import a file of the centre (at the node); importing it again changes nothing.

    Example: sensegate return import back.bin
    """
    body = file.read_bytes()
    answer = call(url, token, lambda remote: remote.post_text("/api/v1/returns", body, "application/octet-stream"))
    console.print(f"{count(answer['rows'], 'reading')}; the offset of this node is {answer['cursor']}", highlight=False)
