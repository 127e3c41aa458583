"""`sensegate bundle`: feeds that are applied for as one, and granted in advance to whom it names."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from sensegate.cli.applications import MASK_HELP
from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, parse_json, print_table, rows_of
from sensegate.cli.times import DAY_S, parse_duration

app = typer.Typer(
    help="Bundles: feeds that are applied for and granted as one (`sensegate application apply --bundle NAME`).\n\n"
    "With a blanket (整体授权) whoever it names gets a grant at once, on its terms; each is recorded and metered.",
    no_args_is_help=True,
)

_PATH = "/api/v1/bundles"


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the bundles whose feeds you all find in the catalogue."""
    rows = rows_of(call(url, token, lambda remote: remote.get(_PATH)))
    shown = rows if json_form else [{**row, "blankets": len(row["blankets"])} for row in rows]
    print_table(shown, ("name", "title", "feeds", "blankets", "by"), json_form=json_form)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 64 characters of a-z, 0-9, _ and -.")],
    feeds: Annotated[list[str], typer.Argument(help="Feeds, all of which are yours to decide about.")],
    *,
    title: Annotated[str, typer.Option(help="For people.")] = "",
    blanket: Annotated[
        list[str] | None,
        typer.Option(help="Division (or DIVISION/DEPARTMENT) that is granted at once; repeat for more."),
    ] = None,
    expires: Annotated[
        float,
        typer.Option(
            parser=parse_duration, metavar="SPAN", show_default="90d", help="How long the blanket is good: 12h, 30d."
        ),
    ] = 90 * DAY_S,
    days: Annotated[float, typer.Option(help="Longest grant by the blanket.")] = 90.0,
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "",
    rate: Annotated[float, typer.Option(help="Records a second by the blanket; 0: no limit.")] = 0.0,
    volume: Annotated[int, typer.Option(help="Records a month by the blanket; 0: no limit.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Make a bundle of feeds.

    Example: sensegate bundle make flood gz-water gz-rain --blanket 4403 --blanket 4406 --expires 30d --days 30
    """
    body: dict[str, Any] = {"name": name, "feeds": feeds, "title": title}
    if blanket:
        terms: dict[str, Any] = {"approve": True, "days": days, "rate": rate, "volume": volume}
        if mask:
            terms["mask"] = parse_json(mask, "--mask")
        end = (time.time_ns() // 1_000) + round(expires * 1e6)
        body["blankets"] = [{"applicants": blanket, "until": end, "terms": terms}]
    call(url, token, lambda remote: remote.post(_PATH, body))
    console.print(f"bundle {name}: sensegate application apply --bundle {name} …", highlight=False)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Its name.")], *, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Forget a bundle; grants that came of it stay."""
    call(url, token, lambda remote: remote.delete(f"{_PATH}/{name}"))
    console.print(f"bundle {name} is gone; its grants stay", highlight=False)
