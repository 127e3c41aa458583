"""`sensegate profile diff`, `shadow`, `redecode`: versions over what a gateway has recorded, with their progress."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_table, stderr
from sensegate.cli.releases import (
    LIFECYCLE_PANEL,
    Name,
    Note,
    Target,
    Version,
    parse_version,
    profile_path,
    version_path,
)
from sensegate.cli.times import Since, Until
from sensegate.errors import ConfigError
from sensegate.lifecycle.contents import read_from_folder
from sensegate.lifecycle.reprocessing_orders import ReprocessingInput
from sensegate.web.client import Answered, Remote
from sensegate.wording import count

app = typer.Typer()

POLL_S = 0.3
ENDED = ("done", "failed", "cancelled")
SHOWN = ("kind", "property", "device", "unit", "a", "b", "factor", "count")
COUNTS = ("messages", "recovered", "still_refused", "equal", "revised", "added")

Device = Annotated[list[str] | None, typer.Option(help="Only this device; may be repeated.")]
ByDevice = Annotated[bool, typer.Option("--by-device", help="A row for each device, not for each property.")]


async def follow_job(
    remote: Remote, begun: dict[str, Any], path: str, what: str, *, give_up: bool = True
) -> dict[str, Any]:
    """Follow work to its end, with a bar on the terminal; Ctrl-C gives it up, or leaves it to itself."""
    row = begun
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=1.0)
        try:
            while row["state"] not in ENDED:
                await asyncio.sleep(POLL_S)
                row = await remote.get(path)
                bar.update(task, completed=row["share"])
        except (KeyboardInterrupt, asyncio.CancelledError):
            if give_up:
                with contextlib.suppress(Answered):
                    await remote.delete(path)
            raise
    if row["state"] != "done":
        raise ConfigError(f"{what} {row['id']} {row['state']}: {row['said'] or 'given up'}")
    return row


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def diff(
    a: Annotated[str, typer.Argument(help="vendor/model@version, or vendor/model for what is in force.", metavar="A")],
    b: Annotated[
        str, typer.Argument(help="The other one: vendor/model@version, vendor/model, or a file.", metavar="B|FILE")
    ],
    *,
    since: Since = "1h",
    until: Until = "",
    device: Device = None,
    target: Target = "",
    by_device: Annotated[
        bool, typer.Option("--by-device", help="A row for each device, not for each property.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Run both versions over the raw messages that the gateway has recorded; print every difference.

    Differences are told by property (or by device), value before and after in the property's unit, and count; a factor
    that is always the same is named: 10 is a wrong scale. Messages that one refuses and the other does not count too.
    Exit code 1 if there is any difference.

        sensegate profile diff acme/th10@3 acme/th10@4 --since 1h
        sensegate profile diff acme/th10 device_profiles/acme/th10.yaml --since 24h --by-device
    """
    file = Path(b)
    name = a.partition("@")[0]
    body: dict[str, Any] = {"a": _number(a), "devices": device or [], "target": target}
    if file.suffix in {".yaml", ".yml"}:
        content = read_from_folder(file)
        body |= {"text": content.text, "files": content.files}
    elif b.partition("@")[0] != name:
        raise ConfigError(f"'{a}' and '{b}' are different profiles", remedy="give two versions of one, or a file")
    else:
        body["b"] = _number(b)
    query = {"since": since, **({"until": until} if until else {})}

    async def work(remote: Remote) -> dict[str, Any]:
        begun = await remote.post(profile_path(name, "diff"), body, **query)
        return await follow_job(remote, begun, profile_path(name, "jobs", begun["id"]), "diff")

    report = call(url, token, work)["report"]
    print_report(report, by_device=by_device, json_form=json_form)
    if report["differences"]:
        raise typer.Exit(1)


def _number(text: str) -> int:
    return parse_version(text)[1] if "@" in text else 0


def print_report(report: dict[str, Any], *, by_device: bool, json_form: bool) -> None:
    """Print a comparison."""
    if json_form:
        print_json(report)
        return
    same = f"{count(report['messages'], 'message')}; the same in both: {count(report['same'], 'value')}"
    stderr.print(same, highlight=False)
    for side in ("a", "b"):
        one = report[side]
        refused, rejected = sum(one["quarantined"].values()), sum(one["rejected"].values())
        stderr.print(
            f"{side}  {one['version']}: {one['messages']:,} decoded, {refused:,} refused; "
            f"{count(one['values'], 'value')}, {rejected:,} rejected, {one['outside']:,} out of range",
            highlight=False,
        )
    rows = report["differences"] if by_device else by_property(report["differences"])
    if rows:
        print_table(rows, SHOWN if by_device else ("kind", "property", "devices", "unit", "a", "b", "factor", "count"))
    else:
        console.print("no difference", highlight=False)
    if report["more"]:
        console.print(f"and {report['more']:,} more that are not told apart", highlight=False)


def by_property(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return differences summed over devices; values are of the first, a factor stands where all have the same."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for difference in differences:
        key = difference["kind"], difference["property"]
        row = found.setdefault(key, {**difference, "devices": 0, "count": 0})
        row["devices"] += 1
        row["count"] += difference["count"]
        if row["factor"] != difference["factor"]:
            row["factor"] = None
    return sorted(found.values(), key=lambda row: -int(row["count"]))


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def shadow(
    version: Version,
    *,
    device: Device = None,
    target: Target = "",
    look: Annotated[bool, typer.Option("--look", help="Only print what it has found so far.")] = False,
    end: Annotated[bool, typer.Option("--end", help="End it; its report goes to the audit trail.")] = False,
    by_device: Annotated[
        bool, typer.Option("--by-device", help="A row for each device, not for each property.")
    ] = False,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Let a version decode live traffic beside the one in force: a report, no reading.

    sensegate profile shadow acme/th10@4            (begin)
    sensegate profile shadow acme/th10@4 --look     (what it would have said differently)
    sensegate profile shadow acme/th10@4 --end
    """
    name, _ = parse_version(version)

    async def work(remote: Remote) -> dict[str, Any] | None:
        if not (look or end):
            body = {"devices": device or [], "target": target, "note": note}
            await remote.post(version_path(version, "shadow"), body)
            return None
        found: dict[str, Any] | None = None
        with contextlib.suppress(Answered):
            found = await remote.get(profile_path(name, "shadow"))
        if end:
            await remote.delete(profile_path(name, "shadow"))
        return found

    found = call(url, token, work)
    if found is not None:
        print_report(found["report"], by_device=by_device, json_form=json_form)
        if found["left_out"] and not json_form:
            console.print(f"{count(found['left_out'], 'message')} came too fast, left out", highlight=False)
    elif json_form:
        print_json(found)
    else:
        word = "nothing to see yet" if look or end else "decodes beside the one in force; --look shows what it says"
        console.print(f"{version}: {word}", highlight=False)


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def redecode(
    name: Name,
    *,
    since: Since = "1h",
    until: Until = "",
    what: Annotated[
        ReprocessingInput, typer.Option(help="raw: messages that gave readings; quarantine: refused ones.")
    ] = ReprocessingInput.BOTH,
    device: Device = None,
    target: Target = "",
    note: Note = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for its end; it goes on without you.")] = True,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Decode recorded messages of a time span again, by the version in force now; what was wrong becomes a revision.

    A value that is another now is written as a new revision of its reading (flag `redecoded`), what was in quarantine
    and can be read now is added, all else is counted as equal: nothing is doubled, however often it runs. It goes on
    after a restart where it stood. The ledger counts it under its own source.

    Messages that gave readings are kept for 72 h, those in quarantine for 720 h (`store.raw_ttl_h`,
    `store.quarantine_ttl_h`); further back nothing can be decoded again.

        sensegate profile rollback acme/th10
        sensegate profile redecode acme/th10 --since 3h
    """
    body = {"what": what.value, "devices": device or [], "target": target, "note": note}
    query = {"since": since, **({"until": until} if until else {})}

    async def work(remote: Remote) -> dict[str, Any]:
        begun: dict[str, Any] = await remote.post(profile_path(name, "redecode"), body, **query)
        if not wait:
            return begun
        return await follow_job(remote, begun, profile_path(name, "redecode", begun["id"]), "redecode", give_up=False)

    row = call(url, token, work)
    if json_form:
        print_json(row)
        return
    console.print(f"redecode {row['id']} of {name} is {row['state']}", highlight=False)
    if row["state"] == "done":
        print_table([row], COUNTS)
