"""`sensegate profile diff`, `shadow`, `redecode`: run versions over recorded messages, with progress."""

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
from sensegate.lifecycle.reprocessing_input import ReprocessingInput
from sensegate.web.client import GatewayClient, ProblemResponse
from sensegate.wording import count

app = typer.Typer()

POLL_S = 0.3
ENDED = ("done", "failed", "cancelled")
SHOWN = ("kind", "property", "device", "unit", "a", "b", "factor", "count")
COUNTS = ("messages", "recovered", "still_refused", "equal", "revised", "added")

Device = Annotated[list[str] | None, typer.Option(help="Restrict to this device; repeat for several.")]


async def follow_job(
    remote: GatewayClient, job: dict[str, Any], path: str, title: str, *, cancel: bool = True
) -> dict[str, Any]:
    """Follow a job to its end with a progress bar; Ctrl-C cancels it, or with `cancel=False` leaves it running."""
    row = job
    columns = (TextColumn(title), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=1.0)
        try:
            while row["state"] not in ENDED:
                await asyncio.sleep(POLL_S)
                row = await remote.get(path)
                bar.update(task, completed=row["share"])
        except (KeyboardInterrupt, asyncio.CancelledError):
            if cancel:
                with contextlib.suppress(ProblemResponse):
                    await remote.delete(path)
            raise
    if row["state"] != "done":
        raise ConfigError(f"{title} {row['id']} {row['state']}: {row['problem'] or 'cancelled'}")
    return row


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def diff(
    a: Annotated[
        str, typer.Argument(help="Version vendor/model@version, or vendor/model for the one in force.", metavar="A")
    ],
    b: Annotated[
        str, typer.Argument(help="Version to compare: vendor/model@version, vendor/model, or a file.", metavar="B|FILE")
    ],
    *,
    since: Since = "1h",
    until: Until = "",
    device: Device = None,
    target: Target = "",
    by_device: Annotated[
        bool, typer.Option("--by-device", help="Print a row for each device instead of each property.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Run two versions over the raw messages that the gateway has recorded, and print every difference.

    Differences are grouped by property (or by device), with both values in the property's unit and a count; a constant
    factor is shown: 10 indicates a wrong scale. Messages that only one version rejects count, too.
    Exit code 1 if there is a difference.

        sensegate profile diff acme/th10@3 acme/th10@4 --since 1h
        sensegate profile diff acme/th10 device_profiles/acme/th10.yaml --since 24h --by-device
    """
    file = Path(b)
    name = a.partition("@")[0]
    body: dict[str, Any] = {"a": _version_number(a), "devices": device or [], "target": target}
    if file.suffix in {".yaml", ".yml"}:
        from sensegate.lifecycle.contents import read_from_folder  # noqa: PLC0415 - loads the registries

        content = read_from_folder(file)
        body |= {"text": content.text, "files": content.files}
    elif b.partition("@")[0] != name:
        raise ConfigError(
            f"'{a}' and '{b}' are different profiles", remedy="give two versions of the same profile, or a file"
        )
    else:
        body["b"] = _version_number(b)
    query = {"since": since, **({"until": until} if until else {})}

    async def work(remote: GatewayClient) -> dict[str, Any]:
        job = await remote.post(profile_path(name, "diff"), body, **query)
        return await follow_job(remote, job, profile_path(name, "jobs", job["id"]), "diff")

    report = call(url, token, work)["report"]
    print_report(report, by_device=by_device, json_form=json_form)
    if report["differences"]:
        raise typer.Exit(1)


def _version_number(text: str) -> int:
    return parse_version(text)[1] if "@" in text else 0


def print_report(report: dict[str, Any], *, by_device: bool, json_form: bool) -> None:
    """Print the report of a comparison."""
    if json_form:
        print_json(report)
        return
    summary = f"{count(report['messages'], 'message')}; equal in both: {count(report['same'], 'value')}"
    stderr.print(summary, highlight=False)
    for side in ("a", "b"):
        totals = report[side]
        refused, rejected = sum(totals["quarantined"].values()), sum(totals["rejected"].values())
        stderr.print(
            f"{side}  {totals['version']}: {totals['messages']:,} decoded, {refused:,} quarantined; "
            f"{count(totals['values'], 'value')}, {rejected:,} rejected, {totals['outside']:,} out of range",
            highlight=False,
        )
    rows = report["differences"] if by_device else by_property(report["differences"])
    if rows:
        print_table(rows, SHOWN if by_device else ("kind", "property", "devices", "unit", "a", "b", "factor", "count"))
    else:
        console.print("no difference", highlight=False)
    if report["more"]:
        console.print(f"and {report['more']:,} more that are not listed", highlight=False)


def by_property(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return differences summed over devices: values of the first, and the factor if it is common to all."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for difference in differences:
        key = difference["kind"], difference["property"]
        row = rows.setdefault(key, {**difference, "devices": 0, "count": 0})
        row["devices"] += 1
        row["count"] += difference["count"]
        if row["factor"] != difference["factor"]:
            row["factor"] = None
    return sorted(rows.values(), key=lambda row: -int(row["count"]))


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def shadow(
    version: Version,
    *,
    device: Device = None,
    target: Target = "",
    look: Annotated[bool, typer.Option("--look", help="Print the report so far.")] = False,
    end: Annotated[bool, typer.Option("--end", help="End the shadow; its report goes to the audit trail.")] = False,
    by_device: Annotated[
        bool, typer.Option("--by-device", help="Print a row for each device instead of each property.")
    ] = False,
    note: Note = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Decode live traffic with a second version, in parallel to the one in force: it writes a report and no readings.

    The three steps:

        sensegate profile shadow acme/th10@4            (begin)
        sensegate profile shadow acme/th10@4 --look     (print the differences so far)
        sensegate profile shadow acme/th10@4 --end
    """
    name, _ = parse_version(version)

    async def work(remote: GatewayClient) -> dict[str, Any] | None:
        if not (look or end):
            body = {"devices": device or [], "target": target, "note": note}
            await remote.post(version_path(version, "shadow"), body)
            return None
        report: dict[str, Any] | None = None
        with contextlib.suppress(ProblemResponse):
            report = await remote.get(profile_path(name, "shadow"))
        if end:
            await remote.delete(profile_path(name, "shadow"))
        return report

    report = call(url, token, work)
    if report is not None:
        print_report(report["report"], by_device=by_device, json_form=json_form)
        if report["left_out"] and not json_form:
            console.print(
                f"{count(report['left_out'], 'message')} exceeded the rate limit and were skipped", highlight=False
            )
    elif json_form:
        print_json(report)
    else:
        state = (
            "no report yet" if look or end else "decodes in parallel to the version in force; --look prints its report"
        )
        console.print(f"{version}: {state}", highlight=False)


@app.command(rich_help_panel=LIFECYCLE_PANEL)
def redecode(
    name: Name,
    *,
    since: Since = "1h",
    until: Until = "",
    selection: Annotated[
        ReprocessingInput, typer.Option(help="raw: messages that gave readings; quarantine: quarantined messages.")
    ] = ReprocessingInput.BOTH,
    device: Device = None,
    target: Target = "",
    note: Note = "",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end; the job also runs without you.")
    ] = True,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Decode recorded messages again with the version now in force; changed values become revisions.

    A changed value is written as a new revision of its reading (flag `redecoded`), a quarantined message that can be
    decoded now adds its readings, everything else counts as equal: repeated runs never duplicate. The job resumes after
    a restart. The ledger counts it under its own source.

    Messages that gave readings are retained for 72 h, quarantined ones for 720 h (`store.raw_ttl_h`,
    `store.quarantine_ttl_h`).

        sensegate profile rollback acme/th10
        sensegate profile redecode acme/th10 --since 3h
    """
    body = {"selection": selection.value, "devices": device or [], "target": target, "note": note}
    query = {"since": since, **({"until": until} if until else {})}

    async def work(remote: GatewayClient) -> dict[str, Any]:
        job: dict[str, Any] = await remote.post(profile_path(name, "redecode"), body, **query)
        if not wait:
            return job
        return await follow_job(remote, job, profile_path(name, "redecode", job["id"]), "redecode", cancel=False)

    row = call(url, token, work)
    if json_form:
        print_json(row)
        return
    console.print(f"redecode {row['id']} of {name} is {row['state']}", highlight=False)
    if row["state"] == "done":
        print_table([row], COUNTS)
        if not (row["recovered"] or row["revised"] or row["added"]):
            console.print("nothing was recovered or changed: all of it was decoded with this version before")
