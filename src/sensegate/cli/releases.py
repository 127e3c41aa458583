"""`sensegate profile draft … rollback`: the life of a profile at a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_table
from sensegate.config import yaml as yamls
from sensegate.errors import ConfigError
from sensegate.lifecycle.contents import read_from_folder
from sensegate.web.client import Remote
from sensegate.wording import count

app = typer.Typer()
LIFECYCLE_PANEL = "Life of a profile"
"""Panel of the help."""
VERSIONS = ("version", "state", "in_force", "trial", "origin", "changed", "note")

Version = Annotated[
    str,
    typer.Argument(help="vendor/model@version, as `sensegate profile versions` lists it.", metavar="PROFILE@VERSION"),
]
Name = Annotated[str, typer.Argument(help="vendor/model.", metavar="PROFILE")]
Note = Annotated[str, typer.Option("--note", "-m", help="A word for the others; it goes to the audit trail.")]
Target = Annotated[
    str, typer.Option(help="Division (or division/department) in which it holds; default: all of your scope.")
]


def parse_version(text: str) -> tuple[str, int]:
    """Return (vendor/model, version) of ``vendor/model@version``.

    Raises:
        ConfigError: it is not of that form.
    """
    name, at, version = text.partition("@")
    if "/" not in name or not at or not version.isdigit():
        raise ConfigError(f"'{text}' is no version", remedy="give vendor/model@version, e.g. acme/th10@4")
    return name, int(version)


def profile_path(name: str, *more: object) -> str:
    """Return the path of a profile on the REST interface."""
    if name.count("/") != 1:
        raise ConfigError(f"'{name}' is no profile", remedy="give vendor/model, e.g. acme/th10")
    return "/".join(["/api/v1/profiles", name, *map(str, more)])


def version_path(version: str, *more: object) -> str:
    """Return the path of a version on the REST interface."""
    name, number = parse_version(version)
    return profile_path(name, "versions", number, *more)


def print_history(life: dict[str, Any], *, json_form: bool) -> None:
    """Print what is decided about a profile."""
    if json_form:
        print_json(life)
        return
    forced = ", ".join(f"version {one['version']} in {one['target']}" for one in life["force"])
    folder = f"version {life['folder']} of the folder" if life["folder"] else "nothing"
    console.print(f"{life['profile']}: in force: {forced or folder}", highlight=False)
    if canary := life["canary"]:
        whom = ", ".join(canary["devices"]) or f"{count(canary['count'], 'device')} ({canary['share']:.1%} of them)"
        console.print(f"  canary: version {canary['version']} for {whom} in {canary['target']}", highlight=False)
        console.print(f"    {_shares(canary, '')}; the others: {_shares(canary, 'others_')}", highlight=False)
    if shadow := life["shadow"]:
        console.print(f"  shadow: version {shadow['version']} beside it in {shadow['target']}", highlight=False)
    if not life["applied"]:
        console.print("  not yet in force in the process that answered: look again", style="yellow")


def _shares(canary: dict[str, Any], whose: str) -> str:
    def percent(key: str) -> str:
        value = canary[whose + key]
        return "-" if value is None else f"{value:.1%}"

    return f"{count(canary[whose + 'outcomes'], 'outcome')}, {percent('rejected')} refused, {percent('faults')} doubted"


async def upload_draft(remote: Remote, file: Path, note: str) -> dict[str, Any]:
    """Hand in a file as a draft; return the answer.

    Raises:
        ConfigError: it is no profile's file.
    """
    content = read_from_folder(file)
    try:
        head = yamls.parse_tree(content.text)
    except yaml.YAMLError as why:
        raise ConfigError("not YAML", file=str(file), remedy=str(getattr(why, "problem", why))) from why
    name = head.get("profile") if isinstance(head, dict) else None
    if not isinstance(name, str):
        raise ConfigError("is no profile", file=str(file), key="profile", remedy="write `profile: vendor/model`")
    body = {"text": content.text, "files": content.files, "note": note}
    answer: dict[str, Any] = await remote.post(profile_path(name, "versions"), body)
    return {"profile": name, **answer}


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def versions(name: Name, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the versions of a profile at a gateway: who proposed them, what is in force where, what is on trial."""

    async def look(remote: Remote) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rows = (await remote.get(profile_path(name, "versions"), limit=1_000))["rows"]
        return await remote.get(profile_path(name, "life")), rows

    life, rows = call(url, token, look)
    if json_form:
        print_json({**life, "versions": rows})
        return
    print_history(life, json_form=False)
    if rows:
        print_table(rows, VERSIONS)


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def propose(
    what: Annotated[
        str,
        typer.Argument(
            help="File of the new version, or vendor/model@version of a draft.", metavar="FILE|PROFILE@VERSION"
        ),
    ],
    *,
    note: Note = "",
    draft: Annotated[bool, typer.Option("--draft", help="Only hand it in; examples may still fail.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Hand in a version and ask the city to release it. Every example must come out.

    Raise `version:` first: a version that was ever in force never changes. The files that the profile names (a codec)
    go with it. `sensegate profile diff` shows what it would change.

        sensegate profile propose device_profiles/acme/th10.yaml -m "humidity was a tenth too low"
    """
    by_name = "@" in what and not Path(what).exists()

    async def work(remote: Remote) -> dict[str, Any]:
        if by_name:
            row: dict[str, Any] = await remote.post(version_path(what, "propose"), {"note": note})
            return {"profile": parse_version(what)[0], "version": row, "problems": []}
        answer = await upload_draft(remote, Path(what), note)
        if draft:
            return answer
        number = answer["version"]["version"]
        path = profile_path(answer["profile"], "versions", number, "propose")
        return {**answer, "version": await remote.post(path, {"note": note})}

    answer = call(url, token, work)
    if json_form:
        print_json(answer)
        return
    row = answer["version"]
    console.print(f"{answer['profile']}@{row['version']} is {row['state']} ({row['digest'][:12]})", highlight=False)
    for problem in answer["problems"]:
        console.print(f"  {problem}", highlight=False)


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def withdraw(version: Version, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Take back a draft or a proposal."""
    call(url, token, lambda remote: remote.delete(version_path(version)))
    if json_form:
        print_json({"withdrawn": version})
    else:
        console.print(f"{version} is withdrawn", highlight=False)


@app.command("return", rich_help_panel=LIFECYCLE_PANEL)
def request_changes(
    version: Version, *, note: Note = "", url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False
) -> None:
    """Give a proposal back to its county, with a word why: it is a draft again."""
    row = call(url, token, lambda remote: remote.post(version_path(version, "return"), {"note": note}))
    if json_form:
        print_json(row)
    else:
        console.print(f"{version} is a {row['state']} again", highlight=False)


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def release(
    version: Version,
    *,
    target: Target = "",
    note: Note = "",
    standard: Annotated[
        bool, typer.Option("--standard", help="From now on only the province releases this profile.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Put a proposed version in force, without a restart: from the next commit on, within 2 s on every worker.

    No message is read half by one version and half by another. Devices whose topics it changes are disconnected little
    by little and come again with their new rights. `sensegate profile rollback` undoes it.

        sensegate profile diff acme/th10@3 acme/th10@4 --since 1h     (what will change)
        sensegate profile canary acme/th10@4 --share 0.1              (on some devices first)
        sensegate profile release acme/th10@4
    """
    body = {"target": target, "note": note, "standard": standard}
    print_history(
        call(url, token, lambda remote: remote.post(version_path(version, "release"), body)), json_form=json_form
    )


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def canary(
    version: Version,
    *,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the devices, e.g. 0.1.")] = 0.0,
    device: Annotated[list[str] | None, typer.Option(help="This device; may be repeated.")] = None,
    target: Target = "",
    rejected_max: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Rolled back when so much more is refused than of the others.")
    ] = 0.02,
    faults_max: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The same for readings that the checks doubt.")
    ] = 0.05,
    least: Annotated[int, typer.Option(min=1, help="Fewer outcomes say nothing yet.")] = 50,
    end: Annotated[bool, typer.Option("--end", help="End it: its devices get the others' version back.")] = False,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Put a proposed version in force for some devices; it is rolled back by itself when they do worse than the others.

    What is refused and what the checks doubt (out of range, too fast, stuck) is counted for these devices and for the
    others of the same profile. `sensegate profile versions` shows both; `release` puts it in force for all.
    A wrong scale that stays within the range is not seen so: look at `diff` and `shadow` first.

        sensegate profile canary acme/th10@4 --share 0.1
    """
    if end:
        life = call(url, token, lambda remote: _end(remote, parse_version(version)[0], "canary"))
    else:
        body = {
            "share": share,
            "devices": device or [],
            "target": target,
            "rejected_max": rejected_max,
            "faults_max": faults_max,
            "least": least,
            "note": note,
        }
        life = call(url, token, lambda remote: remote.post(version_path(version, "canary"), body))
    print_history(life, json_form=json_form)


async def _end(remote: Remote, name: str, trial: str) -> dict[str, Any]:
    await remote.delete(profile_path(name, trial))
    life: dict[str, Any] = await remote.get(profile_path(name, "life"))
    return life


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def rollback(
    name: Name,
    *,
    to: Annotated[int, typer.Option(min=0, help="Version to go back to; default: the one before.")] = 0,
    target: Target = "",
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """End a canary, or put back in force what was before the last release.

    Readings made meanwhile stay as they were written; `sensegate profile redecode` makes revisions of them.

        sensegate profile rollback acme/th10
    """
    body = {"to": to, "target": target, "note": note}
    print_history(
        call(url, token, lambda remote: remote.post(profile_path(name, "rollback"), body)), json_form=json_form
    )
