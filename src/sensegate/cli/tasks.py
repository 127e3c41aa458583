"""`sensegate task`: tasks of devices (downlink commands) and their outcome."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_table, rows_of
from sensegate.cli.times import parse_duration
from sensegate.cli.words import TaskState
from sensegate.errors import ConfigError
from sensegate.web.client import GatewayClient

app = typer.Typer(
    help="Create, list, show and cancel tasks of devices; show their tasking capabilities.", no_args_is_help=True
)

COLUMNS = ("id", "device", "task", "parameters", "state", "sends", "sent", "ended", "by")
ENDED = ("done", "failed", "expired", "cancelled")
POLL_S = 0.3
DeviceId = Annotated[str, typer.Argument(help="Device id.", metavar="DEVICE")]
TaskId = Annotated[str, typer.Argument(help="Task id.", metavar="TASK")]


def parse_parameters(words: list[str]) -> dict[str, Any]:
    """Return the parameters in ``name=value`` arguments; a value is JSON (true, 60, "60"), otherwise a text.

    Raises:
        ConfigError: an argument has no ``=``.
    """
    parameters: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(
                f"'{word}' is not a parameter", key="PARAMETER", remedy="write name=value, e.g. interval=60"
            )
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        parameters[name] = value if isinstance(value, (str, int, float, bool)) else text
    return parameters


@app.command()
def capabilities(device: DeviceId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show the tasking capabilities of a device, with their parameters.

    Example: sensegate task capabilities lamp-7
    """
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
        allowed = " | ".join(json.dumps(word, ensure_ascii=False) for word in row["words"])
    elif row["low"] is not None:
        allowed = f"{row['low']:g} … {row['high']:g} {row['unit']}".rstrip()
    else:
        allowed = "true | false" if row["kind"] == "boolean" else row["kind"]
    return f"{row['name']}={allowed}" + (f" ({row['default']})" if row["default"] is not None else "")


@app.command()
def create(
    device: DeviceId,
    task: Annotated[str, typer.Argument(help="Name of the task, see `sensegate task capabilities DEVICE`.")],
    parameters: Annotated[list[str] | None, typer.Argument(help="name=value …", metavar="PARAMETER")] = None,
    *,
    expires: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="SPAN",
            show_default="the profile's",
            help="Time limit of the task: 90s, 1h.",
        ),
    ] = 0.0,
    note: Annotated[str, typer.Option(help="Reason for the audit trail.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait for the end of the task; exit 1 if it failed.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Create a task for a device.

    Example: sensegate task create lamp-7 switch on=true --wait
    """
    body = {"task": task, "parameters": parse_parameters(parameters or []), "expires_s": expires, "note": note}

    async def work(remote: GatewayClient) -> Any:
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
    device: Annotated[str, typer.Option(help="Restrict to this device.")] = "",
    state: Annotated[TaskState | None, typer.Option(help="Restrict to a state.")] = None,
    limit: Annotated[int, typer.Option(help="Limit of rows.")] = 100,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the tasks of the devices in your scope, newest first.

    Example: sensegate task list --device lamp-7
    """
    query = {key: value for key, value in (("device", device), ("state", state), ("limit", limit)) if value}
    query["sort"] = "-id"
    _print_tasks(rows_of(call(url, token, lambda remote: remote.get("/api/v1/tasks", **query))), json_form=json_form)


@app.command()
def show(task: TaskId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Show a task with all its fields, as JSON.

    Example: sensegate task show 019b0a3f8e00a1b2c3d4
    """
    print_json(call(url, token, lambda remote: remote.get(f"/api/v1/tasks/{task}")))


@app.command()
def cancel(task: TaskId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Cancel a task that was not sent yet.

    Example: sensegate task cancel 019b0a3f8e00a1b2c3d4
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/tasks/{task}"))
    console.print(f"task {task} is cancelled")
