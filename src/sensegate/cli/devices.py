"""`sensegate device`: the registry."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sensegate.authority import camera_codes
from sensegate.cli.shown import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    as_json,
    aside,
    ask,
    console,
    document,
    fields,
    rows_of,
    table,
)
from sensegate.cli.times import DAY_S, span
from sensegate.config import secret
from sensegate.errors import ConfigError
from sensegate.frames import multipart
from sensegate.web.client import Answered, Remote
from sensegate.wording import count

app = typer.Typer(
    help="Devices: register, find, change, rotate, disable, retire, move, send for, label.", no_args_is_help=True
)

Datum = Literal["wgs84", "cgcs2000", "gcj02", "bd09"]
COLUMNS = ("id", "division", "profile", "state", "domain", "department", "grade", "gateway", "name")
KEYS = (
    "division", "profile", "alias", "gateway", "lon", "lat", "datum", "department", "domain", "grade", "interval",
    "owner", "name", "asset", "shadow",
)  # fmt: skip
"""What `device change` changes."""
NOT_FOUND, REFUSED = 404, "refused"
LABELS = (".svg", ".png", ".pdf", ".txt")
DeviceId = Annotated[str, typer.Argument(help="Device id.", metavar="ID")]


@app.command()
def add(
    device: DeviceId,
    *,
    profile: Annotated[str, typer.Option(help="vendor/model, see `sensegate profile list --live`.")],
    division: Annotated[
        str, typer.Option(help="Division code, e.g. 440106; the 20-digit code of a camera names its own.")
    ] = "",
    alias: Annotated[str, typer.Option(help="How it calls itself on the wire; default: its id.")] = "",
    gateway: Annotated[str, typer.Option(help="Id of the device that publishes for it.")] = "",
    lon: Annotated[float | None, typer.Option(help="Longitude.")] = None,
    lat: Annotated[float | None, typer.Option(help="Latitude.")] = None,
    datum: Annotated[Datum, typer.Option(help="Datum of the place.")] = "wgs84",
    department: Annotated[str, typer.Option(help="Department that it belongs to.")] = "",
    domain: Annotated[str, typer.Option(help="Domain, e.g. air.")] = "",
    grade: Annotated[int, typer.Option(min=1, max=4, help="Grade of its readings, 1 open to 4 core.")] = 1,
    interval: Annotated[
        float,
        typer.Option(
            parser=span, metavar="SPAN", show_default="the profile's", help="How often it reports: 90s, 10m, 1h."
        ),
    ] = 0.0,
    name: Annotated[str, typer.Option(help="Name for people.")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    asset: Annotated[
        str, typer.Option(help="What it measures (a component code, a site); a second device of it is a shadow.")
    ] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Register a device at the node of its city; its credential is printed this once.

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
    answer = ask(url, token, lambda remote: remote.post("/api/v1/devices", given))
    _credential(device, answer, json_form=json_form)


def _credential(device: str, answer: dict[str, Any], *, json_form: bool) -> None:
    if json_form:
        as_json(answer)
        return
    console.print(f"[bold]{device}[/bold]")
    if password := answer.get("password"):
        console.print(f"user name  {answer.get('username', device)}")
        console.print(f"password   {password}", highlight=False)
        aside.print("The password is not shown again; `sensegate device rotate` makes a new one.", style="dim")
    for what in answer.get("warnings", ()):
        console.print(f"warning: {what}", style="yellow", highlight=False)
    for topic in answer.get("topics", ()):
        console.print(f"topic      {topic}", highlight=False)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV; its header names the fields of `device add`.", exists=True)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Change entries that are there and differ; else such rows are refused.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Register many devices: good rows are taken, each is reported; exit 1 if one is refused.

    Mend those and give the file again: what is registered already is left as it is. --dry-run first says what would be.
    """
    text = file.read_bytes()
    query = {"dry_run": str(dry_run).lower(), "update": str(update).lower()}
    answer = ask(url, token, lambda remote: remote.post_text("/api/v1/devices/import", text, "text/csv", **query))
    rows = rows_of(answer)
    table(rows, ("line", "id", "outcome", "problem", "password"), json_form=json_form)
    wrong = any(row.get("outcome") == REFUSED for row in rows)
    if not json_form:
        outcomes = Counter(str(row.get("outcome", "")) for row in rows)
        said = ", ".join(f"{many:,} {outcome}" for outcome, many in outcomes.items()) or "no rows"
        aside.print(f"{said}{'; nothing was done: a dry run' if dry_run else ''}", highlight=False)
    if wrong:
        raise typer.Exit(1)


@app.command()
def shadows(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List second sources of assets and how far they are from the one that counts."""
    rows = rows_of(ask(url, token, lambda remote: remote.get("/api/v1/devices/shadows")))
    columns = ("asset", "property", "authority", "shadow", "compared", "different", "mean", "greatest")
    table(rows, columns, json_form=json_form)


@app.command()
def duplicates(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List pairs of devices of two owners that measure the same close to each other: built twice?"""
    rows = rows_of(ask(url, token, lambda remote: remote.get("/api/v1/devices/duplicates")))
    table(rows, ("device", "owner", "metres", "same", "other", "other_owner", "division"), json_form=json_form)


@app.command("list")
def list_(
    *,
    division: Annotated[str, typer.Option(help="Only in this division.")] = "",
    profile: Annotated[str, typer.Option(help="Only of this profile.")] = "",
    state: Annotated[str, typer.Option(help="registered, active, silent, disabled or retired.")] = "",
    domain: Annotated[str, typer.Option(help="Only of this domain.")] = "",
    text: Annotated[str, typer.Option(help="Part of id, alias or name.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 1_000,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List devices in the token's scope; each is registered at the node of its city, and is listed there."""
    query = {"division": division, "profile": profile, "state": state, "domain": domain, "text": text}

    async def work(remote: Remote) -> tuple[Any, str]:
        answer = await remote.get("/api/v1/devices", limit=str(limit), **query)
        return answer, await elsewhere(remote)

    answer, others = ask(url, token, work)
    table(rows_of(answer), COLUMNS, json_form=json_form)
    if answer.get("next") and not json_form:
        aside.print(f"these are the first {limit:,} only: give --limit, or say which", style="yellow", highlight=False)
    if others:
        aside.print(others, style="dim", highlight=False)


async def elsewhere(remote: Remote) -> str:
    """Return where devices are registered that the centre does not list; nothing at a node."""
    try:
        if (await remote.get("/api/v1/me"))["gateway_role"] != "centre":
            return ""
        nodes = [row for row in rows_of(await remote.get("/api/v1/nodes")) if row.get("role") == "node"]
    except (Answered, KeyError, TypeError):
        return ""  # who may not see nodes is told of none
    if not nodes:
        return ""
    told = ", ".join(
        f"{row['division']} ({count(row['devices'], 'device')})" if row.get("devices") is not None else row["division"]
        for row in nodes
    )
    return f"this is the centre; devices are registered at their nodes: {told}: ask there with --url"


@app.command()
def show(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show all that is known of a device."""

    async def work(remote: Remote) -> Any:
        try:
            return await remote.get(f"/api/v1/devices/{device}")
        except Answered as why:
            if why.status == NOT_FOUND and (others := await elsewhere(remote)):
                raise Answered(why.status, why.title, f"{why.detail}; {others}") from why
            raise

    fields(ask(url, token, work), json_form=json_form)


@app.command()
def rotate(
    device: DeviceId,
    *,
    grace: Annotated[
        float,
        typer.Option(
            parser=span, metavar="SPAN", show_default="24h", help="How long the old credential stays good; 0: ends now."
        ),
    ] = DAY_S,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Make a new credential; it is printed this once."""
    body = {"grace_s": grace}
    answer = ask(url, token, lambda remote: remote.post(f"/api/v1/devices/{device}/rotate", body))
    _credential(device, answer, json_form=json_form)


@app.command()
def disable(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Shut a device out; its connection is closed within 2 s. `sensegate device enable` lets it in again."""
    _changed(device, {"state": "disabled"}, "is disabled", url, token, json_form=json_form)


@app.command()
def enable(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Let a device in again that was shut out, with the credential that it had."""
    _changed(device, {"state": "registered"}, "may come in", url, token, json_form=json_form)


@app.command()
def change(
    device: DeviceId,
    said: Annotated[
        list[str], typer.Argument(help="KEY=VALUE, e.g. name=码头 grade=2 lon=113.3 lat=23.1", metavar="KEY=VALUE")
    ],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Change a device's entry; its credential and its past readings stay as they are.

    Keys: division, profile, alias, gateway, lon, lat, datum, department, domain, grade, interval (10m), owner, name,
    asset, shadow (true, false). An empty value empties it. To another city: `sensegate device move`.

    Example: sensegate device change air-1 name=东校区 interval=10m department=
    """
    _changed(device, dict(map(_entry, said)), "is changed", url, token, json_form=json_form)


def _entry(word: str) -> tuple[str, Any]:
    """Return key and value of a word like KEY=VALUE. Raises `typer.BadParameter`."""
    key, equals, text = word.partition("=")
    if not equals:
        raise typer.BadParameter(f"'{word}' is not KEY=VALUE")
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        raise typer.BadParameter(
            f"no key '{key}'; " + (f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(KEYS)}")
        )
    if key == "interval":
        return "interval_s", span(text or "0")
    if key in {"lon", "lat"} and not text:
        return key, None
    if key in {"lon", "lat", "grade", "shadow"}:
        return key, document(text, key)
    return key, text


def _changed(device: str, body: dict[str, Any], done: str, url: str, token: str, *, json_form: bool) -> None:
    async def work(remote: Remote) -> Any:
        known = await remote.get(f"/api/v1/devices/{device}")
        return await remote.patch(f"/api/v1/devices/{device}", body, known["revision"])

    answer = ask(url, token, work)
    if json_form:
        as_json(answer)
    else:
        console.print(f"{device} {done}", highlight=False)


@app.command()
def retire(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """End a device for good: its readings stay, its id stays taken."""
    ask(url, token, lambda remote: remote.delete(f"/api/v1/devices/{device}"))
    console.print(f"{device} is retired", highlight=False)


_MEDIA = {b"<": "application/xml", b"{": "application/json", b"[": "application/json"}


@app.command()
def send(
    device: DeviceId,
    files: Annotated[list[Path], typer.Argument(help="Files, one message each; of a folder all files in it.")],
    *,
    password_file: Annotated[
        str, typer.Option(help="File with the device's password; or SENSEGATE_DEVICE_PASSWORD.")
    ] = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Send files as messages of a device (metadata of a camera, recorded alarms); each is answered after its commit."""
    password = secret(password_file, "SENSEGATE_DEVICE_PASSWORD")
    wanted = [one for file in files for one in (sorted(file.iterdir()) if file.is_dir() else [file]) if one.is_file()]

    async def work(remote: Remote) -> int:
        refused = 0
        for file in wanted:
            body = file.read_bytes()
            media = _MEDIA.get(body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1], "application/octet-stream")
            media = "multipart/mixed" if multipart.is_multipart(body) else media
            try:
                await remote.post_text(f"/api/v1/ingest/{device}", body, media)
            except Answered as why:
                refused += 1
                console.print(f"{file.name}  {why}", highlight=False, markup=False)
        return refused

    refused = ask(url, password, work)
    console.print(f"{count(len(wanted) - refused, 'message')} sent and committed, {refused} refused", highlight=False)
    if refused:
        raise typer.Exit(1)


@app.command()
def code(
    digits: Annotated[str, typer.Argument(help="20 digits (GB/T 28181), of a camera or platform.", metavar="CODE")],
    *,
    json_form: Json = False,
) -> None:
    """Take the code of a camera apart, and say what is odd about it."""
    try:
        found = camera_codes.parse(digits)
    except ConfigError as why:
        console.print(f"{digits[:40]} {why}", highlight=False, markup=False)
        raise typer.Exit(1) from None
    rows = [{"part": part, "digits": text, "meaning": meaning} for part, text, meaning in found.parts()]
    odd = [f"{what}; {remedy}" for what, remedy in camera_codes.oddities(found)]
    if json_form:
        as_json({"parts": rows, "division": found.division, "camera": found.is_camera, "odd": odd})
        return
    table(rows, ("part", "digits", "meaning"))
    for line in odd:
        console.print(line, highlight=False)


@app.command()
def move(
    device: Annotated[str, typer.Argument(help="Id of the device; none with --cancel.")] = "",
    *,
    to: Annotated[
        str, typer.Option(help="Division of the gateway to which it goes; the province: the centre itself.")
    ] = "",
    division: Annotated[str, typer.Option(help="Where it stands from then on, e.g. 440305.")] = "",
    source: Annotated[str, typer.Option("--from", help="Of the gateway that it leaves; default: looked for.")] = "",
    cancel: Annotated[str, typer.Option("--cancel", help="Id of a move that is called off.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="The other gateway was expelled or has left: go on without it.")
    ] = False,
    keep_credential: Annotated[
        bool,
        typer.Option(
            "--keep-credential", help="With --force: that gateway runs no more, the device keeps its password."
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Move a device to another gateway (at the centre): entry, credential, and what tells duplicates go along."""
    how = {name: True for name, given in (("force", force), ("keep_credential", keep_credential)) if given}
    if cancel:
        path = f"/api/v1/moves/{cancel}/cancellation"
        answer = ask(url, token, lambda remote: remote.post(path, how))
        said = f"move {cancel} is {answer['stage']}"
    elif not (device and to and division):
        console.print("give DEVICE with --to and --division, or --cancel MOVE")
        raise typer.Exit(2)
    else:
        body = {"device": device, "target": to, "division": division, **how, **({"source": source} if source else {})}
        answer = ask(url, token, lambda remote: remote.post("/api/v1/moves", body))
        said = f"{device} moves from {answer['source']} to {answer['target']}; see `sensegate device moves`"
    if json_form:
        as_json(answer)
        return
    console.print(said)
    if answer["not_carried"]:
        console.print(f"not carried: {answer['not_carried']}", highlight=False, markup=False)
        if not keep_credential:
            console.print("its credential is void: `sensegate device rotate` where it is now gives a new one")
    if answer["owed"]:
        console.print(answer["owed"], highlight=False, markup=False)


@app.command()
def moves(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List moves of devices between gateways, as the centre knows them."""
    columns = ("id", "device", "source", "target", "division", "stage", "identities", "changed", "why", "owed")
    table(rows_of(ask(url, token, lambda remote: remote.get("/api/v1/moves"))), columns, json_form=json_form)


@app.command()
def label(
    device: DeviceId,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write: .svg, .png, .pdf or .txt; default: the terminal.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Make a QR label: id, division and profile of a registered device; never its credential."""
    import segno  # noqa: PLC0415 - only this command draws

    known = ask(url, token, lambda remote: remote.get(f"/api/v1/devices/{device}"))
    content = f"sensegate:device/{known['id']}?division={known['division']}&profile={known['profile']}"
    code = segno.make(content, error="m", micro=False)
    if out is None:
        code.terminal(compact=True)
        console.print(f"{known['id']}  {known['division']}  {known['profile']}", highlight=False)
        return
    if out.suffix not in LABELS:
        raise ConfigError(f"'{out.suffix}' is no form of a label", key="--out", remedy=f"one of: {', '.join(LABELS)}")
    try:
        code.save(str(out), scale=1 if out.suffix == ".txt" else 8, border=4)
    except OSError as why:
        raise ConfigError("cannot be written", file=str(out), remedy=why.strerror or str(why)) from why
    console.print(f"{out} holds {content}", highlight=False)
