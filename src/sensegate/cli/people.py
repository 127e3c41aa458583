"""`sensegate people`: user accounts, signing in and signing out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_list, stderr
from sensegate.cli.words import PersonRole

app = typer.Typer(help="Manage user accounts and passwords; sign in and out.", no_args_is_help=True)

COLUMNS = ("id", "title", "role", "duty", "scope", "department", "disabled", "external", "password_set", "created_by")
PATH = "/api/v1/people"
Name = Annotated[str, typer.Argument(help="User name.", metavar="NAME")]


@app.command()
def add(
    name: Name,
    *,
    role: Annotated[
        PersonRole,
        typer.Option(help="Role: county_operator, city_operator, province_operator, auditor or admin.", metavar="ROLE"),
    ],
    scope: Annotated[str, typer.Option(help="Division of its scope, e.g. 4401.")],
    department: Annotated[str, typer.Option(help="Department of its scope; default: all.")] = "",
    title: Annotated[str, typer.Option(help="Full name.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Create an account; its initial password is printed only once.

    Example: sensegate people add li --role city_operator --scope 4401
    """
    body = {"id": name, "role": role, "scope": scope, "department": department, "title": title}
    answer = call(url, token, lambda remote: remote.post(PATH, body))
    _print_password(answer, json_form=json_form)


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the accounts in your scope.

    Example: sensegate people list
    """
    print_list(url, token, PATH, COLUMNS, json_form=json_form)


@app.command()
def change(
    name: Name,
    *,
    role: Annotated[PersonRole | None, typer.Option(help="New role of the same duty.", metavar="ROLE")] = None,
    scope: Annotated[str, typer.Option(help="New division of its scope.")] = "",
    department: Annotated[str | None, typer.Option(help="New department of its scope; '' for all.")] = None,
    title: Annotated[str | None, typer.Option(help="Full name.")] = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Disable or enable the account.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Change an account; open sessions follow at once.

    Example: sensegate people change li --disable
    """
    optional: dict[str, Any] = {"department": department, "title": title, "disabled": disable}
    changes = {key: value for key, value in optional.items() if value is not None}
    changes |= {key: value for key, value in {"role": role, "scope": scope}.items() if value}

    async def work(remote: Any) -> Any:
        revision = (await remote.get(f"{PATH}/{name}"))["revision"]
        return await remote.patch(f"{PATH}/{name}", changes, revision)

    call(url, token, work)
    console.print(f"{name} is changed")


@app.command()
def reset(name: Name, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Reset the password of an account; the new initial password is printed only once, and its sessions end.

    Example: sensegate people reset li
    """
    _print_password(call(url, token, lambda remote: remote.post(f"{PATH}/{name}/password")), json_form=json_form)


@app.command()
def remove(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Remove an account for good; its name is not reused.

    Example: sensegate people remove li
    """
    call(url, token, lambda remote: remote.delete(f"{PATH}/{name}"))
    console.print(f"{name} is removed")


@app.command("sign-in")
def sign_in(
    name: Name,
    *,
    password: Annotated[
        str,
        typer.Option(
            envvar="SENSEGATE_PASSWORD", prompt=True, hide_input=True, help="Password; preferably from the environment."
        ),
    ],
    new_password: Annotated[
        str,
        typer.Option(
            envvar="SENSEGATE_NEW_PASSWORD", help="New password, to change it; preferably from the environment."
        ),
    ] = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Sign in and print a session token for SENSEGATE_TOKEN; it is valid until you sign out or are idle for too long.

    Example: sensegate people sign-in li
    """
    body = {"name": name, "password": password, "new_password": new_password, "bearer": True}
    answer = call(url, "", lambda remote: remote.post("/api/v1/session", body))
    typer.echo(answer["token"])


@app.command("sign-out")
def sign_out(*, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Sign out: end the session of the token.

    Example: sensegate people sign-out
    """
    call(url, token, lambda remote: remote.delete("/api/v1/session"))
    console.print("signed out")


def _print_password(answer: Any, *, json_form: bool) -> None:
    if json_form:
        print_json(answer)
        return
    typer.echo(answer["password"])
    stderr.print("The password is not shown again, and must be changed at the first sign-in.", style="dim")
