"""`sensegate mode`: emergency plans, prepared in peace, and the orders that put them in force."""

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
    help="Emergency plans and mode orders: plan, approve, forget, order, end, plans, list, show.", no_args_is_help=True
)
PLAN_COLUMNS = ("id", "title", "place", "hours_max", "written_by", "approved_by", "revision")
ORDER_COLUMNS = ("id", "plan", "place", "state", "drill", "since", "until", "reason", "by")
Name = Annotated[str, typer.Argument(help="Its name; its id where you see several of the name.", metavar="PLAN")]
OrderId = Annotated[str, typer.Argument(help="Id of the order.", metavar="ORDER")]


def read_plan(file: Path) -> dict[str, Any]:
    """Return a plan written in YAML. Raises `ConfigError` where it is no table."""
    try:
        found = yamls.parse_tree(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(file)) from why
    if not isinstance(found, dict):
        raise ConfigError("no table of keys", file=str(file), remedy="see `sensegate mode plan --help`")
    return found


@app.command()
def plan(
    name: Name,
    file: Annotated[Path, typer.Argument(help="YAML: title, place, hours_max, grants, tasks, shed.", exists=True)],
    *,
    revision: Annotated[int, typer.Option(help="Revision that is replaced; 0: a new plan.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Write a plan; it is a draft until somebody else approves it.

    Its file:

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
    """Approve a plan that somebody else wrote, as it is now."""

    async def work(remote: Any) -> Any:
        row = await remote.get(f"/api/v1/emergency-plans/{name}")
        return await remote.post_at(f"/api/v1/emergency-plans/{name}/approval", row["revision"])

    print_table([call(url, token, work)], PLAN_COLUMNS, json_form=json_form)


@app.command()
def delete(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Forget a plan; an order that put it in force goes on."""
    call(url, token, lambda remote: remote.delete(f"/api/v1/emergency-plans/{name}"))
    console.print(f"plan {name} is forgotten")


@app.command()
def order(
    name: Name,
    *,
    for_: Annotated[
        float,
        typer.Option(
            "--for", parser=parse_duration, metavar="SPAN", help="It ends by itself after so long: 90m, 6h, 3d."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; for the audit trail and the devices' tasks.")],
    place: Annotated[str, typer.Option(help="Part of the plan's place; default: all of it.")] = "",
    drill: Annotated[bool, typer.Option(help="A drill: everything happens, and every record says so.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Put an approved plan in force."""
    body = {"plan": name, "hours": for_ / HOUR_S, "reason": reason, "place": place, "drill": drill}
    print_table(
        [call(url, token, lambda remote: remote.post("/api/v1/mode-orders", body))], ORDER_COLUMNS, json_form=json_form
    )


@app.command()
def end(order_id: OrderId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """End an order before its time; what it made ends with it."""
    call(url, token, lambda remote: remote.delete(f"/api/v1/mode-orders/{order_id}"))
    console.print(f"order {order_id} ends")


@app.command()
def plans(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the plans in your scope."""
    print_list(url, token, "/api/v1/emergency-plans", PLAN_COLUMNS, json_form=json_form)


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the orders in your scope, newest first."""
    print_list(url, token, "/api/v1/mode-orders", ORDER_COLUMNS, json_form=json_form, sort="-id")


@app.command()
def show(order_id: OrderId, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show an order with its steps."""
    row = call(url, token, lambda remote: remote.get(f"/api/v1/mode-orders/{order_id}"))
    if json_form:
        print_json(row)
        return
    print_table([row], ORDER_COLUMNS)
    print_table(row["steps"], ("at", "what", "target", "count", "said"))
