"""`sensegate ledger`: the conservation table of received and accounted messages and values."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, print_json, print_table, rows_of, stderr
from sensegate.cli.times import Since

COLUMNS = ("messages", "quarantined", "values", "accepted", "duplicates", "rejected", "forwarded", "withheld")


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
    by: Annotated[By, typer.Option(help="Dimension of the rows.")] = By.NODE,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Print the conservation table, which accounts for everything that came in; exit 1 if it does not balance.

    messages = decoded + quarantined; values = accepted + duplicates + suppressed + rejected + downsampled. Counts are
    hourly: --since starts with the hour that contains it.

    Example: sensegate ledger --since 24h --by device
    """
    answer: dict[str, Any] = call(url, token, lambda remote: remote.get("/api/v1/ledger", since=since, by=by.value))
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
