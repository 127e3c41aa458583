"""`sensegate token`: for operators and subscribers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensegate.authority.scope import Role
from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_list, stderr
from sensegate.cli.times import DAY_S, parse_duration

app = typer.Typer(help="Tokens: create, list, revoke.", no_args_is_help=True)

COLUMNS = ("id", "role", "scope", "department", "feeds", "expires", "name", "revoked")
LIFE_S = 30 * DAY_S


@app.command()
def create(
    *,
    role: Annotated[Role, typer.Option(help="What its bearer may do.")],
    scope: Annotated[str, typer.Option(help="Division code that it is cut to, e.g. 4401.")],
    department: Annotated[str, typer.Option(help="Department that it is cut to.")] = "",
    feed: Annotated[list[str] | None, typer.Option(help="Only this feed; may be repeated.")] = None,
    expires: Annotated[
        float, typer.Option(parser=parse_duration, metavar="SPAN", show_default="30d", help="Its life: 12h, 30d, 2w.")
    ] = LIFE_S,
    name: Annotated[str, typer.Option(help="For whom or what.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Make a token; it is printed this once, and alone: `SENSEGATE_TOKEN=$(sensegate token create …)`.

    Example: sensegate token create --role subscriber --scope 4401 --feed gz-air --expires 12h
    """
    body: dict[str, Any] = {"role": role.value, "scope": scope, "expires_s": expires}
    body |= {key: value for key, value in {"department": department, "feeds": feed, "name": name}.items() if value}
    answer = call(url, token, lambda remote: remote.post("/api/v1/tokens", body))
    if json_form:
        print_json(answer)
        return
    typer.echo(answer["token"])
    stderr.print(f"It is not shown again; its id is {answer['id']}.", style="dim", highlight=False)


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List tokens in the scope of yours; never their secret part."""
    print_list(url, token, "/api/v1/tokens", COLUMNS, json_form=json_form)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="Id as listed.", metavar="ID")],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """End a token; what it holds open is closed within 2 s."""
    call(url, token, lambda remote: remote.delete(f"/api/v1/tokens/{token_id}"))
    console.print(f"{token_id} is revoked")
