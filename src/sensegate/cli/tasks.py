"""`sensegate task`: tell devices to do something, and see what became of it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_table, rows_of
from sensegate.cli.times import parse_duration
from sensegate.errors import ConfigError
from sensegate.web.client import Remote

app = typer.Typer(help="Tasks of devices: what they can do, give, list, show, cancel.", no_args_is_help=True)

COLUMNS = ("id", "device", "task", "parameters", "state", "sends", "sent", "ended", "by")
ENDED = ("done", "expired", "cancelled")
POLL_S = 0.3
DeviceId = Annotated[str, typer.Argument(help="Device id.", metavar="DEVICE")]
TaskId = Annotated[str, typer.Argument(help="Task id.", metavar="TASK")]


def parse_parameters(words: list[str]) -> dict[str, Any]:
    """Return the parameters of ``name=value`` words; a value is JSON (true, 60, "60"), or else a text.

    Raises:
        ConfigError: a word without ``=``.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"'{word}' is no parameter", key="PARAMETER", remedy="write name=value, e.g. interval=60")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, (str, int, float, bool)) else text
    return found


@app.command()
def capabilities(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show what a device can be told to do, with its parameters."""
    answer = call(url, token, lambda remote: remote.get(f"/api/v1/devices/{device}/tasking-capabilities"))
    rows = rows_of(answer)
    if json_form:
        print_json(rows)
        return
    if not rows:
        console.print(f"The profile of {device} has no `tasks`; see device_profiles/README.md.")
        return
    shown = [{**row, "parameters": "\n".join(map(_parameter, row["parameters"]))} for row in rows]
    print_table(shown, ("task", "label_zh", "label_en", "parameters", "role", "confirmed", "when"))


def _parameter(row: dict[str, Any]) -> str:
    if row["words"]:
        may = " | ".join(json.dumps(word, ensure_ascii=False) for word in row["words"])
    elif row["low"] is not None:
        may = f"{row['low']:g} … {row['high']:g} {row['unit']}".rstrip()
    else:
        may = "true | false" if row["kind"] == "boolean" else row["kind"]
    return f"{row['name']}={may}" + (f" ({row['default']})" if row["default"] is not None else "")


@app.command()
def create(
    device: DeviceId,
    task: Annotated[str, typer.Argument(help="Name of the task, see `sensegate task can DEVICE`.")],
    parameters: Annotated[list[str] | None, typer.Argument(help="name=value …", metavar="PARAMETER")] = None,
    *,
    expires: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="SPAN",
            show_default="the profile's",
            help="Give it up after so long: 90s, 1h.",
        ),
    ] = 0.0,
    note: Annotated[str, typer.Option(help="Why; for the audit trail.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until it has ended; exit 1 if it was not done.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Tell a device to do something: `sensegate task give lamp-7 switch on=true --wait`."""
    body = {"task": task, "parameters": parse_parameters(parameters or []), "expires_s": expires, "note": note}

    async def work(remote: Remote) -> Any:
        row = await remote.post(f"/api/v1/devices/{device}/tasks", body)
        while wait and row["state"] not in ENDED:
            await asyncio.sleep(POLL_S)
            row = await remote.get(f"/api/v1/tasks/{row['id']}")
        return row

    row = call(url, token, work)
    _print_tasks([row], json_form=json_form)
    if wait and row["state"] != "done":
        sys.exit(1)


def _print_tasks(rows: list[dict[str, Any]], *, json_form: bool) -> None:
    if json_form:
        print_json(rows)
        return
    shown = [
        {**row, "parameters": " ".join(f"{name}={value}" for name, value in row["parameters"].items())} for row in rows
    ]
    print_table(shown, COLUMNS)


@app.command("list")
def list_(
    *,
    device: Annotated[str, typer.Option(help="Only of this device.")] = "",
    state: Annotated[str, typer.Option(help="queued, sent, done, expired or cancelled.")] = "",
    limit: Annotated[int, typer.Option(help="Most rows.")] = 100,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List tasks of the devices in your scope, newest first."""
    query = {key: value for key, value in (("device", device), ("state", state), ("limit", limit)) if value}
    query["sort"] = "-id"
    _print_tasks(rows_of(call(url, token, lambda remote: remote.get("/api/v1/tasks", **query))), json_form=json_form)


@app.command()
def show(task: TaskId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Show one task whole, as JSON."""
    print_json(call(url, token, lambda remote: remote.get(f"/api/v1/tasks/{task}")))


@app.command()
def cancel(task: TaskId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Give a task up that was not sent yet."""
    call(url, token, lambda remote: remote.delete(f"/api/v1/tasks/{task}"))
    console.print(f"task {task} is cancelled")
