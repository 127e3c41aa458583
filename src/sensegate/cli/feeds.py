"""`sensegate feed`: named selections of the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import typer
from rich.cells import cell_len

from sensegate.cli import webhooks
from sensegate.cli.output import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    call,
    console,
    print_json,
    print_list,
    print_table,
    stderr,
    tab_separated,
)
from sensegate.cli.times import Since, parse_time_or_now
from sensegate.web.client import GatewayClient, ProblemResponse

app = typer.Typer(help="Create, read and follow feeds; list their subscribers.", no_args_is_help=True)

COLUMNS = ("name", "divisions", "domains", "properties", "grade_max", "description")
SHOWN = ("time", "device", "property", "value", "unit", "quality", "division", "flags")


class OutputFormat(StrEnum):
    """The format of printed records."""

    JSON = "json"
    CSV = "csv"
    TABLE = "table"


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the feeds that your token may read.

    Example: sensegate feed list
    """
    print_list(url, token, "/api/v1/feeds", COLUMNS, json_form=json_form)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 64 characters of a-z, 0-9, _ and -.")],
    *,
    division: Annotated[list[str] | None, typer.Option(help="Division code; repeat for several.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Domain; repeat for several.")] = None,
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="Standard name of a property; repeat for several.")
    ] = None,
    department: Annotated[list[str] | None, typer.Option(help="Department; repeat for several.")] = None,
    grade_max: Annotated[int, typer.Option(min=1, max=4, help="Exclude readings of a higher grade.")] = 3,
    description: Annotated[str, typer.Option(help="Description for people.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Create a feed; a criterion that is not given does not filter.

    Example: sensegate feed create gz-air --division 4401 --domain air
    """
    body: dict[str, Any] = {
        "name": name,
        "divisions": division or [],
        "domains": domain or [],
        "properties": property_ or [],
        "departments": department or [],
        "grade_max": grade_max,
        "description": description,
    }
    answer = call(url, token, lambda remote: remote.post("/api/v1/feeds", body))
    if json_form:
        print_json(answer)
    else:
        console.print(f"feed {name}: {url}/api/v1/feeds/{name}/records", highlight=False)


@app.command()
def delete(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")], *, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Delete a feed; its streams end, the readings stay.

    Example: sensegate feed delete gz-air
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/feeds/{feed}"))
    console.print(f"feed {feed} is deleted", highlight=False)


@app.command()
def tail(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    form: Annotated[OutputFormat, typer.Option("--format", help="Format of the records.")] = OutputFormat.TABLE,
    after: Annotated[str, typer.Option(help="Resume after this cursor; --since is ignored then.")] = "",
    since: Since = "",
    until: Annotated[
        str, typer.Option(parser=parse_time_or_now, metavar="TIME", help="End at this time of arrival: now, or a time.")
    ] = "",
    limit: Annotated[int, typer.Option(help="End after this number of records; 0: run until Ctrl-C.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Print a feed, history first, then live; the last line on standard error is the cursor to resume from.

    Example: sensegate feed tail all --since 1h --until now --format json | jq .value
    """
    printer = _Tail(feed, form, _filled({"after": after, "until": until} | ({} if after else {"since": since})), limit)
    with contextlib.suppress(KeyboardInterrupt):
        call(url, token, printer.follow)
    if printer.cursor:
        sys.stderr.write(f"--after {printer.cursor}\n")


@app.command()
def read(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    begin: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Earliest phenomenon time: 30m, 1h (ago), or with a zone.")
    ] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Phenomenon time at which to end.")] = "",
    since: Since = "",
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="Standard name of a property; repeat for several.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Device; repeat for several.")] = None,
    division: Annotated[list[str] | None, typer.Option(help="Division code; repeat for several.")] = None,
    bbox: Annotated[str, typer.Option(metavar="W,S,E,N", help="Area between meridians and parallels.")] = "",
    near: Annotated[str, typer.Option(metavar="LON,LAT,M", help="Area around a position.")] = "",
    descending: Annotated[bool, typer.Option("--desc", help="Print the last records to arrive first.")] = False,
    form: Annotated[OutputFormat, typer.Option("--format", help="Format of the records.")] = OutputFormat.TABLE,
    limit: Annotated[int, typer.Option(help="End after this number of records; 0: all.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Print the records of a period and end; without a period everything that is stored now.

    Example: sensegate feed read all --from 2026-01-01T08:00:00+08:00 --to 2026-01-01T09:00:00+08:00 --format csv
    """
    query = {
        "from": begin,
        "to": end,
        "since": since,
        "until": "0s",
        "property": ",".join(property_ or ()),
        "device": ",".join(device or ()),
        "division": ",".join(division or ()),
        "bbox": bbox,
        "near": near,
        "order": "desc" if descending else "",
    }
    with contextlib.suppress(KeyboardInterrupt):
        call(url, token, _Tail(feed, form, _filled(query), limit).follow)


@app.command()
def latest(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="Standard name of a property; repeat for several.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Device; repeat for several.")] = None,
    division: Annotated[list[str] | None, typer.Option(help="Division code; repeat for several.")] = None,
    bbox: Annotated[str, typer.Option(metavar="W,S,E,N", help="Area between meridians and parallels.")] = "",
    near: Annotated[str, typer.Option(metavar="LON,LAT,M", help="Area around a position.")] = "",
    form: Annotated[OutputFormat, typer.Option("--format", help="Format of the records.")] = OutputFormat.TABLE,
    limit: Annotated[int, typer.Option(help="End after this number of records; 0: all.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Print the last value of every series of a feed.

    Example: sensegate feed latest all --property pm2_5 --near 113.32,23.12,5000
    """
    query = {
        "property": ",".join(property_ or ()),
        "device": ",".join(device or ()),
        "division": ",".join(division or ()),
        "bbox": bbox,
        "near": near,
    }
    call(url, token, _Tail(feed, form, _filled(query), limit, path="latest").follow)


Begin = Annotated[
    str, typer.Option("--from", metavar="TIME", help="Earliest phenomenon time: 24h, 30d (ago), or with a zone.")
]
End = Annotated[str, typer.Option("--to", metavar="TIME", help="Phenomenon time at which to end; default: now.")]


@app.command()
def history(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    begin: Begin = "24h",
    end: End = "",
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="Standard name of a property; repeat for several.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Device; repeat for several.")] = None,
    descending: Annotated[bool, typer.Option("--desc", help="Print the latest first.")] = False,
    form: Annotated[OutputFormat, typer.Option("--format", help="Format of the records.")] = OutputFormat.TABLE,
    limit: Annotated[int, typer.Option(help="End after this number of records; 0: all.")] = 0,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Print readings of a period from the history, in the order of their time.

    Example: sensegate feed history all --from 30d --device gz-air-1 --format csv
    """
    query = {
        "from": begin,
        "to": end,
        "property": ",".join(property_ or ()),
        "device": ",".join(device or ()),
        "order": "desc" if descending else "",
    }
    call(url, token, _Tail(feed, form, _filled(query), limit, path="history").follow)


@app.command()
def aggregate(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    begin: Begin = "24h",
    end: End = "",
    window: Annotated[str, typer.Option(help="Length of a window: 15m, 1h, 1d, 1w.")] = "1h",
    by: Annotated[list[str] | None, typer.Option(help="Group by device or division; repeat for both.")] = None,
    function: Annotated[list[str] | None, typer.Option(help="count, mean, p95, …; repeat for several.")] = None,
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="Standard name of a property; repeat for several.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Device; repeat for several.")] = None,
    zone: Annotated[str, typer.Option(help="Time zone of days and weeks.")] = "Asia/Shanghai",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Print aggregates of each property by window of time, from the history.

    Example: sensegate feed aggregate all --from 7d --window 1d --by division --function mean --function p95
    """
    query = {
        "from": begin,
        "to": end,
        "window": window,
        "by": ",".join(by or ()),
        "functions": ",".join(function or ()),
        "property": ",".join(property_ or ()),
        "device": ",".join(device or ()),
        "zone": zone,
    }
    rows = call(url, token, lambda remote: remote.get(f"/api/v1/feeds/{feed}/aggregate", **_filled(query)))["rows"]
    print_table(rows, tuple(rows[0]) if rows else ("property",), json_form=json_form)


@app.command()
def counts(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    begin: Begin = "24h",
    end: End = "",
    window: Annotated[str, typer.Option(help="Length of a window: 15m, 1h, 1d, 1w.")] = "1h",
    by: Annotated[
        list[str] | None, typer.Option(help="Group by class, zone, device or division; repeat for several.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Camera; repeat for several.")] = None,
    zone: Annotated[str, typer.Option(help="Time zone of days and weeks.")] = "Asia/Shanghai",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Print how much cameras observed by window of time: reports, and objects by their tracks.

    Example: sensegate feed counts all --from 24h --by class --by zone
    """
    query = {
        "from": begin,
        "to": end,
        "window": window,
        "by": ",".join(by or ()),
        "device": ",".join(device or ()),
        "zone": zone,
    }
    path = f"/api/v1/feeds/{feed}/observation-counts"
    rows = call(url, token, lambda remote: remote.get(path, **_filled(query)))["rows"]
    print_table(rows, tuple(rows[0]) if rows else ("class",), json_form=json_form)


def _filled(query: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that have a value."""
    return {name: value for name, value in query.items() if value}


class _Page(NamedTuple):
    records: Sequence[Mapping[str, Any]]
    """Empty where the page is CSV."""
    csv: str
    """Header and records as CSV; empty where the page is JSON."""
    total: int
    next: str
    """Cursor of the next page; empty: this is the last one."""


class _Tail:
    """A feed that is printed page by page."""

    def __init__(
        self, feed: str, form: OutputFormat, query: Mapping[str, str], limit: int, path: str = "records"
    ) -> None:
        """`query`: parameters of the first page; with `until`, and at another path than `records`, it ends."""
        self.path = f"/api/v1/feeds/{feed}/{path}"
        self.waits = path == "records" and "until" not in query
        self.form = form
        self.query = dict(query)
        self.cursor = query.get("after", "")
        self.remaining = limit
        self.unlimited = limit == 0
        self.header_printed = False
        self.widths = [0] * len(SHOWN)

    async def follow(self, remote: GatewayClient) -> None:
        """Read and print page after page."""
        printed = 0
        while self.unlimited or self.remaining > 0:
            page = await self._read(remote)
            if not page.total and not self.unlimited and self.cursor == page.next:
                await asyncio.to_thread(self._print, page)
                break
            self.remaining -= page.total
            printed += page.total
            await asyncio.to_thread(self._print, page)
            if not page.next:
                break
            self.cursor = self.query["after"] = page.next
            if self.query.get("order") != "desc":
                self.query.pop("since", None)
        if not printed:
            stderr.print("none", style="dim")

    async def _read(self, remote: GatewayClient) -> _Page:
        size = 1_000 if self.unlimited else min(self.remaining, 1_000)
        query = {"limit": str(size), **({"wait": "20"} if self.waits else {}), **self.query}
        try:
            if self.form is OutputFormat.CSV:
                text, headers = await remote.text(self.path, accept="text/csv", **query)
                return _Page((), text, int(headers["X-Count"]), headers.get("X-Next-Cursor", ""))
            answer = await remote.get(self.path, **query)
        except ProblemResponse as why:
            if not why.first:
                raise
            # Not from there by itself: whoever reads decides what becomes of what it has.
            raise ProblemResponse(why.status, why.title, f"{why.detail}: --after {why.first}") from None
        return _Page(answer["records"], "", len(answer["records"]), answer["next"])

    def _print(self, page: _Page) -> None:
        if self.form is OutputFormat.JSON:
            sys.stdout.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in page.records)
        elif self.form is OutputFormat.CSV:
            header, _, lines = page.csv.partition("\n")
            sys.stdout.write(lines if self.header_printed else f"{header}\n{lines}")
            self.header_printed = True
        else:
            self._print_lines(page.records)
        sys.stdout.flush()

    def _print_lines(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Print a line for each record; columns widen when needed and never shrink again."""
        rows = [{**record, "flags": " ".join(record["flags"])} for record in records]
        if not console.is_terminal:
            sys.stdout.writelines(tab_separated(rows, SHOWN)[self.header_printed :])
            self.header_printed = True
            return
        if not records:
            return
        lines: list[tuple[str, ...]] = [] if self.header_printed else [SHOWN]
        lines += [tuple(str(row[column]) for column in SHOWN) for row in rows]
        self.widths = [
            max(width, *map(cell_len, column))
            for width, column in zip(self.widths, zip(*lines, strict=True), strict=True)
        ]
        for line in lines:
            cells = (text + " " * (width - cell_len(text)) for text, width in zip(line, self.widths, strict=True))
            sys.stdout.write("  ".join(cells).rstrip() + "\n")
        self.header_printed = True


app.command("subscribers")(webhooks.subscribers)
