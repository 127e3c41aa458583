"""`sensegate bundle`: feeds that are applied for together, and their pre-approvals."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from sensegate.cli.applications import MASK_HELP
from sensegate.cli.shown import DEFAULT_URL, Json, Token, Url, ask, console, document, rows_of, table
from sensegate.cli.times import DAY_S, span

app = typer.Typer(
    help="Bundles: feeds that are applied for and granted together (`sensegate application apply --bundle NAME`).\n\n"
    "With a pre-approval (整体授权) its applicants are granted at once, on its terms; each is recorded and metered.",
    no_args_is_help=True,
)

_PATH = "/api/v1/bundles"


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the bundles whose feeds you may all see in the catalogue."""
    rows = rows_of(ask(url, token, lambda remote: remote.get(_PATH)))
    shown = rows if json_form else [{**row, "pre_approvals": len(row["pre_approvals"])} for row in rows]
    table(shown, ("name", "title", "feeds", "pre_approvals", "by"), json_form=json_form)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 64 characters of a-z, 0-9, _ and -.")],
    feeds: Annotated[list[str], typer.Argument(help="Feeds, on all of which you decide.")],
    *,
    title: Annotated[str, typer.Option(help="For people.")] = "",
    pre_approve: Annotated[
        list[str] | None,
        typer.Option(help="Division (or DIVISION/DEPARTMENT) whose applications are approved in advance; repeatable."),
    ] = None,
    expires: Annotated[
        float,
        typer.Option(
            parser=span, metavar="SPAN", show_default="90d", help="How long the pre-approval is valid: 12h, 30d."
        ),
    ] = 90 * DAY_S,
    days: Annotated[float, typer.Option(help="Longest grant by the pre-approval.")] = 90.0,
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "",
    rate: Annotated[float, typer.Option(help="Records a second of each grant; 0: unlimited.")] = 0.0,
    volume: Annotated[int, typer.Option(help="Records a month of each grant; 0: unlimited.")] = 0,
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
            terms["mask"] = document(mask, "--mask")
        end = (time.time_ns() // 1_000) + round(expires * 1e6)
        body["pre_approvals"] = [{"applicants": pre_approve, "until": end, "terms": terms}]
    ask(url, token, lambda remote: remote.post(_PATH, body))
    console.print(f"bundle {name}: sensegate application apply --bundle {name} …", highlight=False)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Its name.")], *, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Delete a bundle; its grants stay in force."""
    ask(url, token, lambda remote: remote.delete(f"{_PATH}/{name}"))
    console.print(f"bundle {name} is deleted; its grants stay in force", highlight=False)
