"""`sensegate token`: access tokens of operators and subscribers."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sensegate.authority.scope import Role
from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_list, stderr
from sensegate.cli.times import DAY_S, parse_duration

app = typer.Typer(help="Create, list and revoke access tokens.", no_args_is_help=True)

COLUMNS = ("id", "role", "scope", "department", "feeds", "expires", "name", "revoked", "suspended")
LIFETIME_S = 30 * DAY_S
BREAK_GLASS_S = 3_600.0


@app.command()
def create(
    *,
    role: Annotated[Role, typer.Option(help="Role of the bearer.")],
    scope: Annotated[str, typer.Option(help="Division of its scope, e.g. 4401.")],
    department: Annotated[str, typer.Option(help="Department of its scope; default: all.")] = "",
    feed: Annotated[list[str] | None, typer.Option(help="Restrict to this feed; repeat for several.")] = None,
    expires: Annotated[
        float, typer.Option(parser=parse_duration, metavar="SPAN", show_default="30d", help="Lifetime: 12h, 30d, 2w.")
    ] = LIFETIME_S,
    name: Annotated[str, typer.Option(help="Description of its user or purpose.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Create a token; it is printed only once, without other text: `SENSEGATE_TOKEN=$(sensegate token create …)`.

    Example: sensegate token create --role subscriber --scope 4401 --feed gz-air --expires 12h
    """
    body: dict[str, Any] = {"role": role.value, "scope": scope, "expires_s": expires}
    body |= {key: value for key, value in {"department": department, "feeds": feed, "name": name}.items() if value}
    answer = call(url, token, lambda remote: remote.post("/api/v1/tokens", body))
    if json_form:
        print_json(answer)
        return
    typer.echo(answer["token"])
    stderr.print(f"The token is not shown again; its id is {answer['id']}.", style="dim", highlight=False)


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the tokens in your scope, without their secrets.

    Example: sensegate token list
    """
    print_list(url, token, "/api/v1/tokens", COLUMNS, json_form=json_form)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="Id of the token.", metavar="ID")],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Revoke a token; its open streams are closed within 2 s.

    Example: sensegate token revoke 0123456789abcdef
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/tokens/{token_id}"))
    console.print(f"{token_id} is revoked")


@app.command("break-glass")
def break_glass(
    config: Annotated[Path, typer.Argument(help="Configuration file of the gateway on this machine.")],
    *,
    role: Annotated[Role, typer.Option(help="Role: auditor, admin, province_operator or city_operator.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded on the audit trail.")],
    expires: Annotated[
        float, typer.Option(parser=parse_duration, metavar="SPAN", show_default="1h", help="Lifetime, up to 24h.")
    ] = BREAK_GLASS_S,
) -> None:
    """Create a short-lived token on the gateway's machine, when nobody with the role is left.

    Run it as the user of the gateway or as root. The audit trail records the token, the user and the reason. The token
    is valid within about a second, or from the next start of the gateway on.

    Example: sensegate token break-glass config/node.yaml --role auditor --reason "the only auditor has left"
    """
    from sensegate.authority import break_glass as orders  # noqa: PLC0415 - needed for this command alone
    from sensegate.authority.scope import scope  # noqa: PLC0415 - as above
    from sensegate.config import load  # noqa: PLC0415 - as above

    loaded = load(config)
    text, token = orders.give_order(
        Path(loaded.directory),
        role,
        scope(loaded.division),
        by=_user(),
        reason=reason,
        now=time.time_ns() // 1_000,
        lifetime_s=expires,
    )
    typer.echo(text)
    stderr.print(
        f"The token is not shown again; its id is {token.id}. The gateway takes it within a second.", style="dim"
    )


def _user() -> str:
    """Return the user of the system who runs the command, also under sudo."""
    own = pwd.getpwuid(os.getuid()).pw_name
    behind = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return f"{behind} as {own}" if behind else own
