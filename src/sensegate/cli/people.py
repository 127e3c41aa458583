"""`sensegate people`: accounts of people, and signing in as one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_list, stderr

app = typer.Typer(help="People: accounts, passwords, signing in.", no_args_is_help=True)

COLUMNS = ("id", "title", "role", "duty", "scope", "department", "disabled", "external", "password_set", "created_by")
PATH = "/api/v1/people"
Name = Annotated[str, typer.Argument(help="Name to sign in with.", metavar="NAME")]


@app.command()
def add(
    name: Name,
    *,
    role: Annotated[str, typer.Option(help="county_operator, city_operator, province_operator, auditor or admin.")],
    scope: Annotated[str, typer.Option(help="Division code that it is cut to, e.g. 4401.")],
    department: Annotated[str, typer.Option(help="Department that it is cut to.")] = "",
    title: Annotated[str, typer.Option(help="Full name.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Make an account; its first password is printed this once."""
    body = {"id": name, "role": role, "scope": scope, "department": department, "title": title}
    answer = call(url, token, lambda remote: remote.post(PATH, body))
    _print_password(answer, json_form=json_form)


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List accounts in your scope."""
    print_list(url, token, PATH, COLUMNS, json_form=json_form)


@app.command()
def change(
    name: Name,
    *,
    role: Annotated[str, typer.Option(help="Another role of the same duty.")] = "",
    scope: Annotated[str, typer.Option(help="Another division.")] = "",
    department: Annotated[str | None, typer.Option(help="Another department; '' for all.")] = None,
    title: Annotated[str | None, typer.Option(help="Full name.")] = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Shut out at once, or let in.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Change an account; open sessions have it at once."""
    given: dict[str, Any] = {"department": department, "title": title, "disabled": disable}
    wanted = {key: value for key, value in given.items() if value is not None}
    wanted |= {key: value for key, value in {"role": role, "scope": scope}.items() if value}

    async def work(remote: Any) -> Any:
        revision = (await remote.get(f"{PATH}/{name}"))["revision"]
        return await remote.patch(f"{PATH}/{name}", wanted, revision)

    call(url, token, work)
    console.print(f"{name} is changed")


@app.command()
def reset(name: Name, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Give an account a new first password, printed this once; its sessions end."""
    _print_password(call(url, token, lambda remote: remote.post(f"{PATH}/{name}/password")), json_form=json_form)


@app.command()
def remove(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """End an account for good; its name is not given again."""
    call(url, token, lambda remote: remote.delete(f"{PATH}/{name}"))
    console.print(f"{name} is removed")


@app.command("sign-in")
def sign_in(
    name: Name,
    *,
    password: Annotated[
        str,
        typer.Option(
            envvar="SENSEGATE_PASSWORD", prompt=True, hide_input=True, help="Password; better by the environment."
        ),
    ],
    new_password: Annotated[
        str, typer.Option(envvar="SENSEGATE_NEW_PASSWORD", help="Change it on the way; better by the environment.")
    ] = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Sign in; print a text for SENSEGATE_TOKEN, good until you sign out or are idle for too long."""
    body = {"name": name, "password": password, "new_password": new_password, "bearer": True}
    answer = call(url, "", lambda remote: remote.post("/api/v1/session", body))
    typer.echo(answer["token"])


@app.command("sign-out")
def sign_out(*, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """End the session of the token that is given."""
    call(url, token, lambda remote: remote.delete("/api/v1/session"))
    console.print("signed out")


def _print_password(answer: Any, *, json_form: bool) -> None:
    if json_form:
        print_json(answer)
        return
    typer.echo(answer["password"])
    stderr.print("It is not shown again, and must be changed at the first sign-in.", style="dim")
