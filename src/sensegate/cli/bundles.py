"""`sensegate bundle`: feeds that are applied for together, with pre-approvals."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from sensegate.cli.applications import MASK_HELP
from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, parse_json, print_table, rows_of
from sensegate.cli.times import DAY_S, parse_duration

app = typer.Typer(
    help="Group feeds that are applied for and granted together (`sensegate application apply --bundle NAME`).\n\n"
    "A pre-approval (整体授权) gives the applicants that it names a grant at once; each grant is recorded and metered.",
    no_args_is_help=True,
)

_PATH = "/api/v1/bundles"


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the bundles of which you see every feed in the catalogue.

    Example: sensegate bundle list
    """
    rows = rows_of(call(url, token, lambda remote: remote.get(_PATH)))
    shown = rows if json_form else [{**row, "pre_approvals": len(row["pre_approvals"])} for row in rows]
    print_table(shown, ("name", "title", "feeds", "pre_approvals", "by"), json_form=json_form)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 64 characters of a-z, 0-9, _ and -.")],
    feeds: Annotated[list[str], typer.Argument(help="Feeds; you must be entitled to decide on all of them.")],
    *,
    title: Annotated[str, typer.Option(help="For people.")] = "",
    pre_approve: Annotated[
        list[str] | None,
        typer.Option(help="Division (or DIVISION/DEPARTMENT) that is granted at once; repeat for several."),
    ] = None,
    expires: Annotated[
        float,
        typer.Option(
            parser=parse_duration, metavar="SPAN", show_default="90d", help="Validity of the pre-approval: 12h, 30d."
        ),
    ] = 90 * DAY_S,
    days: Annotated[float, typer.Option(help="Longest grant in days by the pre-approval.")] = 90.0,
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "",
    rate: Annotated[float, typer.Option(help="Limit in records per second by the pre-approval; 0: no limit.")] = 0.0,
    volume: Annotated[int, typer.Option(help="Limit in records per month by the pre-approval; 0: no limit.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Create a bundle of feeds.

    Example: sensegate bundle create flood gz-water gz-rain --pre-approve 4403 --expires 30d --days 30
    """
    body: dict[str, Any] = {"name": name, "feeds": feeds, "title": title}
    if pre_approve:
        terms: dict[str, Any] = {"approve": True, "days": days, "rate": rate, "volume": volume}
        if mask:
            terms["mask"] = parse_json(mask, "--mask")
        end = (time.time_ns() // 1_000) + round(expires * 1e6)
        body["pre_approvals"] = [{"applicants": pre_approve, "until": end, "terms": terms}]
    call(url, token, lambda remote: remote.post(_PATH, body))
    console.print(f"bundle {name}: sensegate application apply --bundle {name} …", highlight=False)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name of the bundle.")], *, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Delete a bundle; its grants stay.

    Example: sensegate bundle delete flood
    """
    call(url, token, lambda remote: remote.delete(f"{_PATH}/{name}"))
    console.print(f"bundle {name} is deleted; its grants stay", highlight=False)
