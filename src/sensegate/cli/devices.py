"""`sensegate device`: the device registry."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from sensegate.authority import camera_codes
from sensegate.cli.output import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    call,
    console,
    print_json,
    print_record,
    print_table,
    rows_of,
    stderr,
)
from sensegate.cli.times import DAY_S, parse_duration
from sensegate.config import read_secret
from sensegate.errors import ConfigError, Unavailable
from sensegate.video import multipart
from sensegate.web.client import GatewayClient, ProblemResponse
from sensegate.wording import count

IMPORT_PROGRESS_MIN = 1_000
"""Rows from which on an import shows its progress."""
app = typer.Typer(
    help="Register, find, change, rotate, disable, retire, move and label devices, and publish for them.",
    no_args_is_help=True,
)

Datum = Literal["wgs84", "cgcs2000", "gcj02", "bd09"]
COLUMNS = ("id", "division", "profile", "state", "last_seen", "domain", "department", "grade", "gateway", "name")
KEYS = (
    "division", "profile", "alias", "gateway", "lon", "lat", "datum", "department", "domain", "grade", "interval",
    "owner", "name", "asset", "secondary",
)  # fmt: skip
"""Keys that `device change` accepts."""
JSON_KEYS = {"lon": "a number", "lat": "a number", "grade": "a whole number from 1 to 4", "secondary": "true or false"}
"""Keys of `KEYS` whose values are JSON instead of text -> the permitted values, for error messages."""
NOT_FOUND, FORBIDDEN, REFUSED = 404, 403, "refused"
LABELS = (".svg", ".png", ".pdf", ".txt")
DeviceId = Annotated[str, typer.Argument(help="Device id.", metavar="ID")]


@app.command()
def add(
    device: DeviceId,
    *,
    profile: Annotated[str, typer.Option(help="Profile vendor/model, see `sensegate profile list --live`.")],
    division: Annotated[
        str, typer.Option(help="Division code, e.g. 440106; default for a camera: the division in its 20-digit id.")
    ] = "",
    alias: Annotated[str, typer.Option(help="Name that the device uses on the wire; default: its id.")] = "",
    gateway: Annotated[str, typer.Option(help="Id of the device that publishes on its behalf.")] = "",
    lon: Annotated[float | None, typer.Option(help="Longitude.")] = None,
    lat: Annotated[float | None, typer.Option(help="Latitude.")] = None,
    datum: Annotated[Datum, typer.Option(help="Datum of the coordinates.")] = "wgs84",
    department: Annotated[str, typer.Option(help="Department that owns the device.")] = "",
    domain: Annotated[str, typer.Option(help="Domain, e.g. air.")] = "",
    grade: Annotated[int, typer.Option(min=1, max=4, help="Grade of its readings, from 1 (open) to 4 (core).")] = 1,
    interval: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="SPAN",
            show_default="the profile's",
            help="Reporting interval: 90s, 10m, 1h.",
        ),
    ] = 0.0,
    name: Annotated[str, typer.Option(help="Display name.")] = "",
    owner: Annotated[str, typer.Option(help="Person or organisation in charge.")] = "",
    asset: Annotated[
        str,
        typer.Option(help="Measured asset (a component code, a site); a second device of it is a secondary source."),
    ] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Register a device at the node of its city; its credential is printed only once.

    Example: sensegate device add air-1 --profile sensegate/plain --division 440106 --interval 1m
    """
    body: dict[str, Any] = {
        "id": device,
        "division": division,
        "profile": profile,
        "alias": alias,
        "gateway": gateway,
        "lon": lon,
        "lat": lat,
        "datum": datum,
        "department": department,
        "domain": domain,
        "grade": grade,
        "interval_s": interval,
        "name": name,
        "owner": owner,
        "asset": asset,
    }
    given = {key: value for key, value in body.items() if value not in ("", None, 0.0)}
    answer = call(url, token, lambda remote: remote.post("/api/v1/devices", given))
    _print_credential(device, answer, url, json_form=json_form)


def _print_credential(device: str, answer: dict[str, Any], url: str, *, json_form: bool) -> None:
    if json_form:
        print_json(answer)
        return
    console.print(f"[bold]{device}[/bold]")
    if password := answer.get("password"):
        console.print(f"user name  {answer.get('username', device)}")
        console.print(f"password   {password}", highlight=False)
        stderr.print("The password is not shown again; `sensegate device rotate` creates a new one.", style="dim")
    for warning in answer.get("warnings", ()):
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    for topic in answer.get("topics", ()):
        console.print(f"topic      {topic}", highlight=False)
    if password and (command := publish_command(answer, url)):
        broker = urlsplit(answer["broker"])
        console.print(f"broker     host {_broker_host(broker.hostname, url)}, port {broker.port}", highlight=False)
        console.print(f"client id  {answer['client_id']}")
        console.print("try it:")
        sys.stdout.write(f"{command}\n")


def _broker_host(host: str | None, url: str) -> str:
    """Return the host of the broker; one that listens on all addresses, or on loopback, is that of the gateway."""
    known = urlsplit(url).hostname or "127.0.0.1"
    return known if host in {None, "", "0.0.0.0", "::", "127.0.0.1", "::1", "localhost"} else str(host)  # noqa: S104


def publish_command(answer: dict[str, Any], url: str) -> str:
    """Return a command that publishes an example for a new device; empty: its messages are not text."""
    topic = next((topic for topic in answer.get("topics", ()) if not {"+", "#"} & {*topic}), "")
    if not (topic and answer.get("broker") and answer.get("example")):
        return ""
    broker = urlsplit(answer["broker"])
    words = ["mosquitto_pub", "-h", _broker_host(broker.hostname, url), "-p", str(broker.port)]
    words += ["-i", answer["client_id"], "-u", answer["username"], "-P", answer["password"]]
    words += ["-q", "1", "-t", topic, "-m", answer["example"]]
    return shlex.join(words)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV file; its header names the fields of `device add`.", exists=True)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would happen, change nothing.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Update existing entries that differ; default: refuse such rows.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Register devices from a CSV file; each row is reported, and valid rows are registered; exit 1 if one is refused.

    Correct refused rows and import the file again: registered devices stay as they are.

    Example: sensegate device import devices.csv --dry-run
    """
    from rich.progress import Progress  # noqa: PLC0415 - only this command needs it

    content = file.read_bytes()
    query = {"dry_run": str(dry_run).lower(), "update": str(update).lower()}
    lines = max(content.count(b"\n") - 1, 1)

    rows: list[dict[str, Any]] = []

    async def send(remote: GatewayClient) -> None:
        is_hidden = lines < IMPORT_PROGRESS_MIN or not stderr.is_terminal
        with Progress(console=stderr, transient=True, disable=is_hidden) as progress:
            task = progress.add_task("checking" if dry_run else "registering", total=lines)
            async for row in remote.post_for_lines("/api/v1/devices/import", content, "text/csv", **query):
                rows.append(row)
                progress.advance(task)

    failure: Unavailable | None = None
    try:
        call(url, token, send)
    except Unavailable as why:
        if not rows:
            raise
        failure = why  # the passwords that have arrived are shown nowhere else
    rows.sort(key=lambda row: row["line"])
    print_table(rows, ("line", "id", "outcome", "problem", "password"), json_form=json_form)
    refused = any(row.get("outcome") == REFUSED for row in rows)
    if not json_form:
        outcomes = Counter(str(row.get("outcome", "")) for row in rows)
        summary = ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.items()) or "no rows"
        stderr.print(f"{summary}{'; dry run: nothing was changed' if dry_run else ''}", highlight=False)
    if failure:
        raise failure
    if refused:
        raise typer.Exit(1)


@app.command("secondary-sources")
def secondary_sources(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List secondary sources of assets and their deviation from the authoritative one.

    Example: sensegate device secondary-sources
    """
    rows = rows_of(call(url, token, lambda remote: remote.get("/api/v1/devices/secondary-sources")))
    columns = ("asset", "property", "authority", "secondary", "compared", "different", "mean", "max")
    print_table(rows, columns, json_form=json_form)


@app.command()
def duplicates(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List pairs of nearby devices of different owners that measure the same, which may be duplicates.

    Example: sensegate device duplicates
    """
    rows = rows_of(call(url, token, lambda remote: remote.get("/api/v1/devices/duplicates")))
    print_table(rows, ("device", "owner", "metres", "same", "other", "other_owner", "division"), json_form=json_form)


@app.command("list")
def list_(
    *,
    division: Annotated[str, typer.Option(help="Restrict to this division.")] = "",
    profile: Annotated[str, typer.Option(help="Restrict to this profile.")] = "",
    state: Annotated[
        str, typer.Option(help="Restrict to a state: registered, active, silent, disabled or retired.")
    ] = "",
    domain: Annotated[str, typer.Option(help="Restrict to this domain.")] = "",
    text: Annotated[str, typer.Option(help="Part of the id, alias or name.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Limit of rows.")] = 1_000,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the devices in your scope; each is registered, and listed, at the node of its city.

    Example: sensegate device list --profile acme/th10 --state silent
    """
    query = {"division": division, "profile": profile, "state": state, "domain": domain, "text": text}

    async def work(remote: GatewayClient) -> tuple[Any, str]:
        answer = await remote.get("/api/v1/devices", limit=str(limit), **query)
        return answer, await registered_elsewhere(remote)

    answer, hint = call(url, token, work)
    print_table(rows_of(answer), COLUMNS, json_form=json_form)
    if answer.get("next") and not json_form:
        stderr.print(f"only the first {limit:,} are shown: raise --limit, or filter", style="yellow", highlight=False)
    if hint:
        stderr.print(hint, style="dim", highlight=False)


async def registered_elsewhere(remote: GatewayClient) -> str:
    """Return a hint at which nodes devices are registered that a centre does not list; empty at a node."""
    try:
        if (await remote.get("/api/v1/me"))["gateway_role"] != "centre":
            return ""
        nodes = [row for row in rows_of(await remote.get("/api/v1/nodes")) if row.get("role") == "node"]
    except (ProblemResponse, KeyError, TypeError):
        return ""  # the caller may not see nodes
    if not nodes:
        return ""
    places = ", ".join(
        f"{row['division']} ({count(row['devices'], 'device')})" if row.get("devices") is not None else row["division"]
        for row in nodes
    )
    return f"this is the centre; devices are registered at their nodes: {places}; use --url to query a node"


@app.command()
def show(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show a device in full, with the last value of each property.

    Example: sensegate device show air-1
    """

    async def work(remote: GatewayClient) -> Any:
        try:
            record = await remote.get(f"/api/v1/devices/{device}")
            return record, await _last_values(remote, device)
        except ProblemResponse as why:
            if why.status == NOT_FOUND and (hint := await registered_elsewhere(remote)):
                raise ProblemResponse(why.status, why.title, f"{why.detail}; {hint}") from why
            raise

    record, values = call(url, token, work)
    if json_form:
        print_json({**record, "latest": values})
        return
    print_record(record)
    if values:
        console.print()
        print_table(values, ("property", "channel", "value", "unit", "time", "quality", "flags"), json_form=False)


async def _last_values(remote: GatewayClient, device: str) -> list[dict[str, Any]]:
    """Return the last values of a device; empty for a caller who may not read readings."""
    try:
        return rows_of(await remote.get(f"/api/v1/devices/{device}/latest"))
    except ProblemResponse as why:
        if why.status == FORBIDDEN:
            return []
        raise


@app.command()
def rotate(
    device: DeviceId,
    *,
    grace: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="SPAN",
            show_default="24h",
            help="Time that the old credential stays valid; 0: none.",
        ),
    ] = DAY_S,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Create a new credential, which is printed only once.

    Example: sensegate device rotate air-1 --grace 1h
    """
    body = {"grace_s": grace}
    answer = call(url, token, lambda remote: remote.post(f"/api/v1/devices/{device}/rotate", body))
    _print_credential(device, answer, url, json_form=json_form)


@app.command()
def disable(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Disable a device; its connection is closed within 2 s. `sensegate device enable` reverses it.

    Example: sensegate device disable air-1
    """
    _change(device, {"state": "disabled"}, "is disabled", url, token, json_form=json_form)


@app.command()
def enable(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Enable a disabled device, with the credential that it had.

    Example: sensegate device enable air-1
    """
    _change(device, {"state": "registered"}, "is enabled", url, token, json_form=json_form)


@app.command()
def change(
    device: DeviceId,
    pairs: Annotated[
        list[str], typer.Argument(help="KEY=VALUE, e.g. name=码头 grade=2 lon=113.3 lat=23.1", metavar="KEY=VALUE")
    ],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Change a device's entry; its credential and its past readings stay as they are.

    Keys: division, profile, alias, gateway, lon, lat, datum, department, domain, grade, interval (10m), owner, name,
    asset, secondary (true, false). An empty value clears the field. To another city: `sensegate device move`.

    Example: sensegate device change air-1 name=东校区 interval=10m department=
    """
    _change(device, dict(map(_parse_entry, pairs)), "is changed", url, token, json_form=json_form)


def _parse_entry(word: str) -> tuple[str, Any]:
    """Return the key and value of a KEY=VALUE argument. Raises `typer.BadParameter`."""
    key, equals, text = word.partition("=")
    if not equals:
        raise typer.BadParameter(f"'{word}' is not KEY=VALUE")
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        raise typer.BadParameter(
            f"unknown key '{key}'; " + (f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(KEYS)}")
        )
    if key == "interval":
        return "interval_s", parse_duration(text or "0")
    if key in {"lon", "lat"} and not text:
        return key, None
    if key in JSON_KEYS:
        try:
            return key, json.loads(text)
        except ValueError:
            raise typer.BadParameter(f"'{text[:60]}' is not {JSON_KEYS[key]}", param_hint=key) from None
    return key, text


def _change(device: str, body: dict[str, Any], done: str, url: str, token: str, *, json_form: bool) -> None:
    async def work(remote: GatewayClient) -> Any:
        known = await remote.get(f"/api/v1/devices/{device}")
        return await remote.patch(f"/api/v1/devices/{device}", body, known["revision"])

    answer = call(url, token, work)
    if json_form:
        print_json(answer)
    else:
        console.print(f"{device} {done}", highlight=False)


@app.command()
def retire(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Retire a device for good: its readings stay, its id is not reused.

    Example: sensegate device retire air-1
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/devices/{device}"))
    console.print(f"{device} is retired", highlight=False)


_MEDIA_TYPES = {b"<": "application/xml", b"{": "application/json", b"[": "application/json"}


@app.command()
def publish(
    device: DeviceId,
    files: Annotated[list[Path], typer.Argument(help="Files, one message each; a folder stands for all files in it.")],
    *,
    password_file: Annotated[
        str, typer.Option(help="File with the device's password; default: SENSEGATE_DEVICE_PASSWORD.")
    ] = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Publish files as messages of a device (camera metadata, recorded alarms), each with confirmed commit.

    Example: sensegate device publish cam-7 alarms/
    """
    if not password_file and not os.environ.get("SENSEGATE_DEVICE_PASSWORD"):
        remedy = "name the file with the device's password, or set SENSEGATE_DEVICE_PASSWORD"
        raise typer.BadParameter(remedy, param_hint="--password-file")
    password = read_secret(password_file, "SENSEGATE_DEVICE_PASSWORD")
    messages = [
        message
        for path in files
        for message in (sorted(path.iterdir()) if path.is_dir() else [path])
        if message.is_file()
    ]

    async def work(remote: GatewayClient) -> int:
        refused = 0
        for file in messages:
            body = file.read_bytes()
            media_type = _MEDIA_TYPES.get(body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1], "application/octet-stream")
            media_type = "multipart/mixed" if multipart.is_multipart(body) else media_type
            try:
                await remote.post_text(f"/api/v1/ingest/{device}", body, media_type)
            except ProblemResponse as why:
                refused += 1
                console.print(f"{file.name}  {why}", highlight=False, markup=False)
        return refused

    refused = call(url, password, work)
    console.print(
        f"{count(len(messages) - refused, 'message')} published and committed, {refused} refused", highlight=False
    )
    if refused:
        raise typer.Exit(1)


@app.command()
def parse_id(
    digits: Annotated[str, typer.Argument(help="Id of a camera or platform, 20 digits (GB/T 28181).", metavar="CODE")],
    *,
    json_form: Json = False,
) -> None:
    """Parse the 20-digit id of a camera or platform, and list its deviations from the standard.

    Example: sensegate device parse-id 44010602001320000001
    """
    try:
        code = camera_codes.parse(digits)
    except ConfigError as why:
        console.print(f"{digits[:40]} {why}", highlight=False, markup=False)
        raise typer.Exit(1) from None
    rows = [{"part": part, "digits": text, "meaning": meaning} for part, text, meaning in code.parts()]
    deviations = [f"{problem}; {remedy}" for problem, remedy in camera_codes.deviations(code)]
    if json_form:
        print_json({"parts": rows, "division": code.division, "camera": code.is_camera, "deviations": deviations})
        return
    print_table(rows, ("part", "digits", "meaning"))
    for line in deviations:
        console.print(line, highlight=False)


@app.command()
def move(
    device: Annotated[str, typer.Argument(help="Id of the device; omit with --cancel.")] = "",
    *,
    to: Annotated[str, typer.Option(help="Division of the target gateway; the province: the centre itself.")] = "",
    division: Annotated[str, typer.Option(help="New division of the device, e.g. 440305.")] = "",
    source: Annotated[str, typer.Option("--from", help="Division of the current gateway; default: looked up.")] = "",
    cancel: Annotated[str, typer.Option("--cancel", help="Id of a move to cancel.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Continue without the current gateway, which was expelled or has left.")
    ] = False,
    keep_credential: Annotated[
        bool,
        typer.Option(
            "--keep-credential", help="With --force: the current gateway is gone, the device keeps its password."
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Move a device to another gateway (at the centre), with its entry, credential and deduplication state.

    Example: sensegate device move air-1 --to 4403 --division 440305
    """
    flags = {name: True for name, given in (("force", force), ("keep_credential", keep_credential)) if given}
    if cancel:
        path = f"/api/v1/moves/{cancel}/cancellation"
        answer = call(url, token, lambda remote: remote.post(path, flags))
        summary = f"move {cancel} is {answer['stage']}"
    elif not (device and to and division):
        console.print("give DEVICE with --to and --division, or --cancel MOVE-ID")
        raise typer.Exit(2)
    else:
        body = {"device": device, "target": to, "division": division, **flags, **({"source": source} if source else {})}
        answer = call(url, token, lambda remote: remote.post("/api/v1/moves", body))
        summary = f"{device} moves from {answer['source']} to {answer['target']}; see `sensegate device moves`"
    if json_form:
        print_json(answer)
        return
    console.print(summary)
    if answer["not_carried"]:
        console.print(f"not carried: {answer['not_carried']}", highlight=False, markup=False)
        if not keep_credential:
            console.print(
                "its credential is void: create a new one with `sensegate device rotate` at the target gateway"
            )
    if answer["owed"]:
        console.print(answer["owed"], highlight=False, markup=False)


@app.command()
def moves(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the moves of devices between gateways that the centre knows.

    Example: sensegate device moves
    """
    columns = ("id", "device", "source", "target", "division", "stage", "identities", "changed", "reason", "owed")
    print_table(rows_of(call(url, token, lambda remote: remote.get("/api/v1/moves"))), columns, json_form=json_form)


@app.command()
def label(
    device: DeviceId,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write: .svg, .png, .pdf or .txt; default: print to the terminal."),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Create a QR label with id, division and profile of a registered device, without its credential.

    Example: sensegate device label air-1 --out air-1.png
    """
    import segno  # noqa: PLC0415 - only this command needs it

    known = call(url, token, lambda remote: remote.get(f"/api/v1/devices/{device}"))
    content = f"sensegate:device/{known['id']}?division={known['division']}&profile={known['profile']}"
    code = segno.make(content, error="m", micro=False)
    if out is None:
        code.terminal(compact=True)
        console.print(f"{known['id']}  {known['division']}  {known['profile']}", highlight=False)
        return
    if out.suffix not in LABELS:
        raise ConfigError(
            f"'{out.suffix}' is not a format of labels", key="--out", remedy=f"one of: {', '.join(LABELS)}"
        )
    try:
        code.save(str(out), scale=1 if out.suffix == ".txt" else 8, border=4)
    except OSError as why:
        raise ConfigError("the file cannot be written", file=str(out), remedy=why.strerror or str(why)) from why
    console.print(f"{out} holds {content}", highlight=False)
