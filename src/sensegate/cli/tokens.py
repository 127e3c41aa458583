"""`sensegate token`: for operators and subscribers."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from sensegate.authority.scope import Role
from sensegate.cli.shown import DEFAULT_URL, Json, Token, Url, as_json, ask, console, rows_of, table

app = typer.Typer(help="Tokens: create, list, revoke.", no_args_is_help=True)

COLUMNS = ("id", "role", "scope", "department", "feeds", "expires", "name", "revoked")
UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(text: str) -> int:
    """Return the seconds of ``90m``, ``12h``, ``30d``, ``2w``."""
    found = re.fullmatch(r"(\d+)([mhdw])", text)
    if not found:
        raise typer.BadParameter(f"'{text}' is no time; give a number and m, h, d or w, e.g. 30d")
    return int(found[1]) * UNITS_S[found[2]]


@app.command()
def create(
    *,
    role: Annotated[Role, typer.Option(help="What its bearer may do.")],
    scope: Annotated[str, typer.Option(help="Division code that it is cut to, e.g. 4401.")],
    department: Annotated[str, typer.Option(help="Department that it is cut to.")] = "",
    feed: Annotated[list[str] | None, typer.Option(help="Only this feed; may be repeated.")] = None,
    expires: Annotated[str, typer.Option(help="Life: 12h, 30d, …")] = "30d",
    name: Annotated[str, typer.Option(help="For whom or what.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Make a token; it is printed this once."""
    body: dict[str, Any] = {"role": role.value, "scope": scope, "expires_s": seconds(expires)}
    body |= {key: value for key, value in {"department": department, "feeds": feed, "name": name}.items() if value}
    answer = ask(url, token, lambda remote: remote.post("/api/v1/tokens", body))
    if json_form:
        as_json(answer)
        return
    console.print(answer["token"], highlight=False)
    console.print("It is not shown again.", style="dim")


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List tokens in the scope of yours; never their secret part."""
    table(rows_of(ask(url, token, lambda remote: remote.get("/api/v1/tokens"))), COLUMNS, json_form=json_form)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="Id as listed.", metavar="ID")],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """End a token; what it holds open is closed within 2 s."""
    ask(url, token, lambda remote: remote.delete(f"/api/v1/tokens/{token_id}"))
    console.print(f"{token_id} is revoked")
