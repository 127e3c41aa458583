"""`sensegate mode`: emergency plans, prepared in advance, and the mode orders that activate them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_list, print_table
from sensegate.cli.times import HOUR_S, parse_duration
from sensegate.config import yaml as yamls
from sensegate.errors import ConfigError

app = typer.Typer(
    help="Write, approve and delete emergency plans; order, end, list and show mode orders.", no_args_is_help=True
)
PLAN_COLUMNS = ("id", "title", "place", "hours_max", "written_by", "approved_by", "revision")
ORDER_COLUMNS = ("id", "plan", "place", "state", "drill", "since", "until", "reason", "by")
Name = Annotated[str, typer.Argument(help="Name of the plan; its id if several have the name.", metavar="PLAN")]
OrderId = Annotated[str, typer.Argument(help="Id of the order.", metavar="ORDER")]


def read_plan(file: Path) -> dict[str, Any]:
    """Return the plan in a YAML file. Raises `ConfigError` if the file is not a mapping."""
    try:
        tree = yamls.parse_tree(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as why:
        raise ConfigError(
            f"the file cannot be read: {why}", file=str(file), remedy="give a readable YAML file"
        ) from why
    if not isinstance(tree, dict):
        raise ConfigError(
            "the file holds no mapping of keys", file=str(file), remedy="see `sensegate mode plan --help`"
        )
    return tree


@app.command()
def plan(
    name: Name,
    file: Annotated[Path, typer.Argument(help="YAML: title, place, hours_max, grants, tasks, shed.", exists=True)],
    *,
    revision: Annotated[int, typer.Option(help="Revision to replace; 0: a new plan.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Write a plan from a file; it is a draft until somebody else approves it.

    Example: sensegate mode plan flood flood.yaml

    The file:

        title: 防汛应急 · flood
        place: "4401"
        hours_max: 72
        grants: [{feed: water, subscriber: TOKEN-ID}]
        tasks:
          - {profile: acme/gauge, task: report-interval, parameters: {interval: 10}, afterwards: {interval: 300}}
        shed: ["illuminance"]
    """
    body = read_plan(file)
    row = call(url, token, lambda remote: remote.put(f"/api/v1/emergency-plans/{name}", body, revision))
    print_table([row], PLAN_COLUMNS, json_form=json_form)


@app.command()
def approve(name: Name, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Approve the current revision of a plan that somebody else wrote.

    Example: sensegate mode approve flood
    """

    async def work(remote: Any) -> Any:
        row = await remote.get(f"/api/v1/emergency-plans/{name}")
        return await remote.post_at(f"/api/v1/emergency-plans/{name}/approval", row["revision"])

    print_table([call(url, token, work)], PLAN_COLUMNS, json_form=json_form)


@app.command()
def delete(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Delete a plan; orders that activated it continue.

    Example: sensegate mode delete flood
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/emergency-plans/{name}"))
    console.print(f"plan {name} is deleted")


@app.command()
def order(
    name: Name,
    *,
    for_: Annotated[
        float,
        typer.Option(
            "--for",
            parser=parse_duration,
            metavar="SPAN",
            help="Duration, after which the order ends by itself: 90m, 6h, 3d.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Reason for the audit trail and the devices' tasks.")],
    place: Annotated[str, typer.Option(help="Part of the plan's area; default: all of it.")] = "",
    drill: Annotated[
        bool, typer.Option(help="Mark the order as a drill: everything is done, and every record says so.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Activate an approved plan.

    Example: sensegate mode order flood --for 6h --reason "heavy rain" --drill
    """
    body = {"plan": name, "hours": for_ / HOUR_S, "reason": reason, "place": place, "drill": drill}
    print_table(
        [call(url, token, lambda remote: remote.post("/api/v1/mode-orders", body))], ORDER_COLUMNS, json_form=json_form
    )


@app.command()
def end(order_id: OrderId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """End an order early, with its grants and tasks.

    Example: sensegate mode end 019b0a3f8e00a1b2c3d4
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/mode-orders/{order_id}"))
    console.print(f"order {order_id} ends")


@app.command()
def plans(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the plans in your scope.

    Example: sensegate mode plans
    """
    print_list(url, token, "/api/v1/emergency-plans", PLAN_COLUMNS, json_form=json_form)


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the orders in your scope, newest first.

    Example: sensegate mode list
    """
    print_list(url, token, "/api/v1/mode-orders", ORDER_COLUMNS, json_form=json_form, sort="-id")


@app.command()
def show(order_id: OrderId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show an order with its steps.

    Example: sensegate mode show 019b0a3f8e00a1b2c3d4
    """
    row = call(url, token, lambda remote: remote.get(f"/api/v1/mode-orders/{order_id}"))
    if json_form:
        print_json(row)
        return
    print_table([row], ORDER_COLUMNS)
    print_table(row["steps"], ("at", "step", "target", "count", "problem"))
