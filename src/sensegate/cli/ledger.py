"""`sensegate ledger`: the conservation table of received and accounted messages and values."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, print_json, print_table, rows_of, stderr
from sensegate.cli.times import Since

COLUMNS = (
    "messages", "decoded", "quarantined", "values", "accepted", "duplicates", "suppressed", "rejected", "downsampled",
    "forwarded", "withheld",
)  # fmt: skip
"""Columns in the order of the two sums that must balance; any others follow."""


class TableFormat(StrEnum):
    """The format of a printed table."""

    TABLE = "table"
    CSV = "csv"


class By(StrEnum):
    """The dimension by which the table is grouped."""

    NODE = "node"
    DIVISION = "division"
    DEVICE = "device"
    HOUR = "hour"
    REASON = "reason"


def ledger(
    *,
    since: Since = "1h",
    begin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Start of the hours that are counted, a time with a zone; --since is ignored then.",
        ),
    ] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="End; whole hours are counted. Default: now.")] = "",
    form: Annotated[TableFormat, typer.Option("--format", help="Format of the table.")] = TableFormat.TABLE,
    by: Annotated[By, typer.Option(help="Dimension of the rows.")] = By.NODE,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Print the conservation table, which accounts for everything that came in; exit 1 if it does not balance.

    messages = decoded + quarantined; values = accepted + duplicates + suppressed + rejected + downsampled. Counts are
    hourly: --since starts with the hour that contains it.

    Example: sensegate ledger --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z --by device --format csv
    """
    query = {"by": by.value, **({"from": begin} if begin else {"since": since}), **({"to": end} if end else {})}
    if form is TableFormat.CSV:
        path = "/api/v1/ledger"
        text, headers = call(url, token, lambda remote: remote.text(path, accept="text/csv", **query))
        sys.stdout.write(text)
        if headers.get("X-Balanced") != "True":
            raise typer.Exit(1)
        return
    answer: dict[str, Any] = call(url, token, lambda remote: remote.get("/api/v1/ledger", **query))
    if json_form:
        print_json(answer)
    else:
        rows = rows_of(answer)
        columns = list(dict.fromkeys([by.value, *COLUMNS, *(key for row in rows for key in row)]))
        columns = [column for column in columns if any(column in row for row in rows)]
        print_table(rows, columns or (by.value, *COLUMNS), title=f"by {by.value}, since {answer.get('since', since)}")
        stderr.print("balanced" if answer.get("balanced") else "[bold red]NOT BALANCED[/bold red]")
    if not answer.get("balanced"):
        raise typer.Exit(1)
