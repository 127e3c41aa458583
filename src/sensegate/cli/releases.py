"""`sensegate profile versions … rollback`: the release of profile versions at a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_table
from sensegate.config import yaml as yamls
from sensegate.errors import ConfigError
from sensegate.web.client import GatewayClient
from sensegate.wording import count

app = typer.Typer()
LIFECYCLE_PANEL = "Releases of a profile"
"""Heading of the commands in the help."""
VERSIONS = ("version", "state", "in_force", "trial", "origin", "changed", "note")

Version = Annotated[
    str,
    typer.Argument(help="vendor/model@version, as `sensegate profile versions` lists it.", metavar="PROFILE@VERSION"),
]
Name = Annotated[str, typer.Argument(help="vendor/model.", metavar="PROFILE")]
Note = Annotated[str, typer.Option("--note", "-m", help="Note for the audit trail and other operators.")]
Target = Annotated[
    str, typer.Option(help="Division (or division/department) in which it applies; default: your whole scope.")
]


def parse_version(text: str) -> tuple[str, int]:
    """Return (vendor/model, version) of ``vendor/model@version``.

    Raises:
        ConfigError: the text is malformed.
    """
    name, at, version = text.partition("@")
    if "/" not in name or not at or not version.isdigit():
        raise ConfigError(f"'{text}' is not a version", remedy="give vendor/model@version, e.g. acme/th10@4")
    return name, int(version)


def profile_path(name: str, *more: object) -> str:
    """Return the HTTP path of a profile."""
    if name.count("/") != 1:
        raise ConfigError(f"'{name}' is not a profile name", remedy="give vendor/model, e.g. acme/th10")
    return "/".join(["/api/v1/profiles", name, *map(str, more)])


def version_path(version: str, *more: object) -> str:
    """Return the HTTP path of a version."""
    name, number = parse_version(version)
    return profile_path(name, "versions", number, *more)


def print_history(history: dict[str, Any], *, json_form: bool) -> None:
    """Print the release state of a profile."""
    if json_form:
        print_json(history)
        return
    forced = ", ".join(f"version {release['version']} in {release['target']}" for release in history["force"])
    folder = f"version {history['folder']} of the folder" if history["folder"] else "nothing"
    console.print(f"{history['profile']}: in force: {forced or folder}", highlight=False)
    if canary := history["canary"]:
        devices = ", ".join(canary["devices"]) or f"{count(canary['count'], 'device')} ({canary['share']:.1%} of them)"
        console.print(f"  canary: version {canary['version']} for {devices} in {canary['target']}", highlight=False)
        console.print(f"    {_shares(canary, '')}; the others: {_shares(canary, 'others_')}", highlight=False)
    if shadow := history["shadow"]:
        console.print(f"  shadow: version {shadow['version']} beside it in {shadow['target']}", highlight=False)
    if not history["applied"]:
        console.print("  not yet applied in the process that answered; repeat the query", style="yellow")


def _shares(canary: dict[str, Any], whose: str) -> str:
    def percent(key: str) -> str:
        value = canary[whose + key]
        return "-" if value is None else f"{value:.1%}"

    outcomes = count(canary[whose + "outcomes"], "outcome")
    return f"{outcomes}, {percent('rejected')} rejected, {percent('faults')} implausible"


async def upload_draft(remote: GatewayClient, file: Path, note: str) -> dict[str, Any]:
    """Upload a file as a draft; return the answer.

    Raises:
        ConfigError: the file is not a profile.
    """
    from sensegate.lifecycle.contents import read_from_folder  # noqa: PLC0415 - loads the registries

    content = read_from_folder(file)
    try:
        head = yamls.parse_tree(content.text)
    except yaml.YAMLError as why:
        raise ConfigError("the text is not YAML", file=str(file), remedy=str(getattr(why, "problem", why))) from why
    name = head.get("profile") if isinstance(head, dict) else None
    if not isinstance(name, str):
        raise ConfigError(
            "the file is not a profile", file=str(file), key="profile", remedy="write `profile: vendor/model`"
        )
    body = {"text": content.text, "files": content.files, "note": note}
    answer: dict[str, Any] = await remote.post(profile_path(name, "versions"), body)
    return {"profile": name, **answer}


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def versions(name: Name, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the versions of a profile at a gateway, their origin, and which are in force or on trial.

    Example: sensegate profile versions acme/th10
    """

    async def fetch(remote: GatewayClient) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rows = (await remote.get(profile_path(name, "versions"), limit=1_000))["rows"]
        return await remote.get(profile_path(name, "history")), rows

    history, rows = call(url, token, fetch)
    if json_form:
        print_json({**history, "versions": rows})
        return
    print_history(history, json_form=False)
    if rows:
        print_table(rows, VERSIONS)


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def propose(
    source: Annotated[
        str,
        typer.Argument(
            help="File of the new version, or vendor/model@version of a draft.", metavar="FILE|PROFILE@VERSION"
        ),
    ],
    *,
    note: Note = "",
    draft: Annotated[
        bool, typer.Option("--draft", help="Upload a draft without proposing it; examples may fail.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Upload a version and propose it for release. Every example must pass.

    Raise `version:` first: a version that was ever in force never changes. Files that the profile names (a codec) are
    uploaded with it. `sensegate profile diff` shows what it would change.

        sensegate profile propose device_profiles/acme/th10.yaml -m "humidity was a tenth too low"
    """
    by_name = "@" in source and not Path(source).exists()

    async def work(remote: GatewayClient) -> dict[str, Any]:
        if by_name:
            row: dict[str, Any] = await remote.post(version_path(source, "propose"), {"note": note})
            return {"profile": parse_version(source)[0], "version": row, "problems": []}
        answer = await upload_draft(remote, Path(source), note)
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
    """Withdraw a draft or a proposal.

    Example: sensegate profile withdraw acme/th10@4
    """
    call(url, token, lambda remote: remote.delete(version_path(version)))
    if json_form:
        print_json({"withdrawn": version})
    else:
        console.print(f"{version} is withdrawn", highlight=False)


@app.command("request-changes", rich_help_panel=LIFECYCLE_PANEL)
def request_changes(
    version: Version, *, note: Note = "", url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False
) -> None:
    """Return a proposal to its author with a reason; it becomes a draft again.

    Example: sensegate profile request-changes acme/th10@4 -m "add an example of an alarm"
    """
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
        bool, typer.Option("--standard", help="Make it a standard profile, which only the province releases.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Release a proposed version: it takes effect with the next commit, within 2 s on every worker, without a restart.

    Each message is decoded by exactly one version. Devices whose topics change are disconnected gradually and reconnect
    with their new permissions. `sensegate profile rollback` reverts it.

        sensegate profile diff acme/th10@3 acme/th10@4 --since 1h     (show the changes)
        sensegate profile canary acme/th10@4 --share 0.1              (try it on some devices)
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
    device: Annotated[list[str] | None, typer.Option(help="Device of the canary; repeat for several.")] = None,
    target: Target = "",
    rejected_max: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Roll back if the rejected share exceeds that of the others by more than this."
        ),
    ] = 0.02,
    faults_max: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Roll back if the implausible share exceeds that of the others by more than this."
        ),
    ] = 0.05,
    least: Annotated[int, typer.Option(min=1, help="Least number of outcomes before a roll-back.")] = 50,
    end: Annotated[
        bool, typer.Option("--end", help="End the canary: its devices return to the version of the others.")
    ] = False,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Apply a proposed version to some devices; it is rolled back automatically if they do worse than the others.

    Rejected and implausible values (out of range, too fast, stuck) are counted for these devices and for the others of
    the same profile. `sensegate profile versions` shows both; `sensegate profile release` applies it to all.
    A wrong scale within the range is not detected: use `sensegate profile diff` and `sensegate profile shadow` first.

        sensegate profile canary acme/th10@4 --share 0.1
    """
    if end:
        history = call(url, token, lambda remote: _end(remote, parse_version(version)[0], "canary"))
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
        history = call(url, token, lambda remote: remote.post(version_path(version, "canary"), body))
    print_history(history, json_form=json_form)


async def _end(remote: GatewayClient, name: str, trial: str) -> dict[str, Any]:
    await remote.delete(profile_path(name, trial))
    history: dict[str, Any] = await remote.get(profile_path(name, "history"))
    return history


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def rollback(
    name: Name,
    *,
    to: Annotated[int, typer.Option(min=0, help="Version to return to; default: the previous one.")] = 0,
    target: Target = "",
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """End a canary, or return to the version before the last release.

    Readings written meanwhile stay; `sensegate profile redecode` writes revisions of them.

        sensegate profile rollback acme/th10
    """
    body = {"to": to, "target": target, "note": note}
    print_history(
        call(url, token, lambda remote: remote.post(profile_path(name, "rollback"), body)), json_form=json_form
    )
