"""`sensegate trace`: the way of one reading."""

from __future__ import annotations

from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, print_json, print_table, stderr

COLUMNS = ("step", "at", "sequence", "detail")


def trace(
    record: Annotated[str, typer.Argument(help="Id or cursor of the record; empty: give --device and --time.")] = "",
    *,
    device: Annotated[str, typer.Option(help="Device, with --time.")] = "",
    time: Annotated[str, typer.Option(help="Phenomenon time, with --device.")] = "",
    property_: Annotated[str, typer.Option("--property", help="Which reading of the device at that time.")] = "",
    since: Annotated[str, typer.Option(help="Time of arrival from which to search, such as 7d.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Trace one reading: its message, batch, commit, span to the centre, and the deliveries that have passed it.

    Example: sensegate trace 4401-0-00000000001234-5
    """
    if bool(record) == bool(device and time):
        raise typer.BadParameter("give the id or the cursor of a record, or --device with --time", param_hint="record")
    query = {"record": record, "device": device, "time": time, "property": property_, "since": since}
    trace_ = call(url, token, lambda remote: remote.get("/api/v1/trace", **query))
    if json_form:
        print_json(trace_)
        return
    subject = f"{trace_['device']} {trace_['property']} of {trace_['division']}"
    stderr.print(
        f"{trace_['record']}: {subject}, measured {trace_['time']}, received {trace_['received']}", highlight=False
    )
    # A sequence is a name: it is given to other commands without commas.
    steps = [{**step, "sequence": str(step.get("sequence", ""))} for step in trace_["steps"]]
    print_table(steps, COLUMNS)
