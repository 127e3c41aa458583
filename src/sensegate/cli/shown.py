"""What commands print: tables for people, JSON for programs; options that many commands share."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from sensegate.cli.remote import Remote

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:18080"

Url = Annotated[
    str, typer.Option("--url", envvar="SENSEGATE_URL", help="Address of the gateway.", rich_help_panel="Gateway")
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="SENSEGATE_TOKEN",
        help="Token to speak with.",
        show_default=False,
        show_envvar=True,
        rich_help_panel="Gateway",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

console = Console(soft_wrap=True)


def ask(url: str, token: str, work: Callable[[Remote], Awaitable[T]]) -> T:
    """Return what `work` brings back from the gateway."""

    async def whole() -> T:
        async with Remote(url, token) as remote:
            return await work(remote)

    return asyncio.run(whole())


def as_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, json_form: bool = False, title: str = ""
) -> None:
    """Print rows: as a table with the given columns, or whole as a JSON array."""
    if json_form:
        as_json(list(rows))
        return
    grid = Table(title=title or None, title_justify="left")
    for column in columns:
        numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(grid)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def rows_of(answer: object) -> list[dict[str, Any]]:
    """Return the rows of a list answer: an array, or the one array in an object."""
    if isinstance(answer, dict):
        answer = next((value for value in answer.values() if isinstance(value, list)), [])
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []
