"""Output of commands: tables for people, tab-separated lines for pipes, JSON for programs; options that commands share.

On a terminal, a table that is too wide is wrapped between words; if that does not suffice, each row becomes a block of
``key  value`` lines: words are never broken. A pipe gets the header and a line for each row, with cells separated by
tabs and numbers without commas.
"""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from sensegate.errors import ConfigError
from sensegate.web.client import GatewayClient, ProblemResponse

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:18080"
GAP = 2
"""Blanks between columns."""
PROGRESS_FILES_MIN = 20
"""Least number of files for which a progress bar is shown."""

Url = Annotated[
    str, typer.Option("--url", envvar="SENSEGATE_URL", help="Address of the gateway.", rich_help_panel="Gateway")
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="SENSEGATE_TOKEN",
        help="Token of the caller; preferably from the environment, where `ps` does not show it.",
        show_default=False,
        show_envvar=True,
        rich_help_panel="Gateway",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

console = Console(soft_wrap=True)
stderr = Console(soft_wrap=True, stderr=True)
"""Console for notices that must not enter a pipe."""


def call(url: str, token: str, work: Callable[[GatewayClient], Awaitable[T]]) -> T:
    """Return the result of `work`, called with a connection to the gateway."""

    async def connected() -> T:
        async with GatewayClient(url, token) as remote:
            return await work(remote)

    return asyncio.run(connected())


async def put_latest(remote: GatewayClient, path: str, body: object) -> Any:
    """Create a record, or replace its present revision; return the answer."""
    try:
        present = await remote.get(path)
    except ProblemResponse as why:
        if why.status != HTTPStatus.NOT_FOUND:
            raise
        return await remote.put(path, body)
    return await remote.put(path, body, revision=present["revision"])


def print_json(content: object) -> None:
    """Print a JSON document."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def with_progress(items: Sequence[T], description: str) -> Iterable[T]:
    """Return an iterable of `items`, with a progress bar on the terminal if there are many."""
    from rich.progress import track  # noqa: PLC0415 - few commands show one

    hidden = len(items) < PROGRESS_FILES_MIN or not stderr.is_terminal
    return track(items, description, console=stderr, transient=True, disable=hidden)


def save(file: Path, content: bytes) -> None:
    """Write an output file. Raises `ConfigError`."""
    try:
        file.write_bytes(content)
    except OSError as why:
        raise ConfigError("the file cannot be written", file=str(file), remedy=why.strerror or str(why)) from why


def parse_json(text: str, option: str) -> Any:
    """Return the JSON in an option, None if it is empty. Raises `typer.BadParameter`."""
    try:
        return json.loads(text) if text else None
    except ValueError as why:
        raise typer.BadParameter(
            f"'{text[:60]}' is not JSON ({why}); see --help for an example", param_hint=option
        ) from None


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, json_form: bool = False, title: str = ""
) -> None:
    """Print rows as a table with the given columns, or with all their keys as a JSON array.

    Without rows, ``none`` is printed on standard error, so that it enters no pipe.
    """
    if json_form:
        print_json(list(rows))
        return
    if title and console.is_terminal:
        console.print(title, style="italic", highlight=False, markup=False)
    if not rows:
        stderr.print("none", style="dim")
    if not console.is_terminal:
        sys.stdout.writelines(tab_separated(rows, columns))
        return
    if not rows:
        return
    shown = [column for column in columns if any(row.get(column) not in (None, "", [], ()) for row in rows)]
    cells = [[_cell(row.get(column)) for column in shown] for row in rows]
    heads = [column.replace("_", " ") for column in shown]
    columns_of = [list(column) for column in zip(heads, *cells, strict=True)]
    gap = GAP
    if (widths := fit_widths(columns_of, console.width)) is None:
        gap = 1
        widths = fit_widths(columns_of, console.width, gap)
    if widths is None:
        lines = transposed(columns_of, console.width) or blocks(shown, cells, console.width)
        sys.stdout.write("\n".join(lines) + "\n")
        return
    grid = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for head, column, width in zip(heads, shown, widths, strict=True):
        numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
        grid.add_column(head, justify="right" if numeric else "left", overflow="fold", width=width)
    for line in cells:
        grid.add_row(*line)
    console.print(grid, markup=False, highlight=False)


def print_record(record: Mapping[str, Any], *, json_form: bool = False) -> None:
    """Print a record, a line for each key that is not empty."""
    if json_form:
        print_json(record)
        return
    if not console.is_terminal:
        sys.stdout.writelines(
            tab_separated([{"key": key, "value": value} for key, value in record.items()], ("key", "value"))
        )
        return
    keys = [key for key, value in record.items() if value not in (None, "", [], {})]
    sys.stdout.write("\n".join(blocks(keys, [[_cell(record[key]) for key in keys]], console.width)) + "\n")


def tab_separated(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Return tab-separated lines, the header first."""
    lines = [columns, *([_cell(row.get(column), commas=False) for column in columns] for row in rows)]
    return ["\t".join(" ".join(cell.split()) for cell in line) + "\n" for line in lines]


def fit_widths(columns: Sequence[Sequence[str]], width: int, gap: int = GAP) -> list[int] | None:
    """Return column widths that fit `width` without broken words; None if there are none."""
    natural = [max(cell_len(line) for text in column for line in text.split("\n")) for column in columns]
    minimal = [max(map(_longest_word, column)) for column in columns]
    available = width - gap * (len(columns) - 1)
    if sum(natural) <= available:
        return natural
    if sum(minimal) > available:
        return None
    widths = list(minimal)
    spare = available - sum(minimal)
    # Columns that need least extra width come first, so that at most one or two columns are wrapped.
    for index in sorted(range(len(columns)), key=lambda index: natural[index] - minimal[index]):
        added = min(natural[index] - minimal[index], spare)
        widths[index] += added
        spare -= added
    return widths


def _longest_word(text: str) -> int:
    """Return the width of the longest unbreakable word; Chinese may be broken anywhere."""
    longest = length = 0
    for letter in text:
        if letter.isspace():
            length = 0
        elif unicodedata.east_asian_width(letter) in "WF":
            longest, length = max(longest, 2), 0
        else:
            length += 1
            longest = max(longest, length)
    return longest


def transposed(columns: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return lines of the transposed table, for few rows with many columns; empty if it does not fit."""
    if any("\n" in text for column in columns for text in column):
        return []
    widths = [max(map(cell_len, row)) for row in zip(*columns, strict=True)]
    if sum(widths) + GAP * (len(widths) - 1) > width:
        return []
    gap = " " * GAP
    return [gap.join(map(_padded, column, widths)).rstrip() for column in columns]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def blocks(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return rows as ``key  value`` lines, with a blank line between rows; empty cells are omitted."""
    margin = max(map(len, columns), default=0) + GAP
    lines: list[str] = []
    for row in cells:
        if lines:
            lines.append("")
        for name, text in zip(columns, row, strict=True):
            parts = [part for line in text.split("\n") for part in _wrapped(line, width - margin)] if text else []
            lines += [(name if at == 0 else "").ljust(margin) + part for at, part in enumerate(parts)]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


def _cell(value: object, *, commas: bool = True) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if commas else str(value)
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (dict, list, tuple)) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def rows_of(answer: object) -> list[dict[str, Any]]:
    """Return the rows of an answer: an array, or the first array in an object."""
    if isinstance(answer, dict):
        answer = next((value for value in answer.values() if isinstance(value, list)), [])
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []


def print_list(
    url: str, token: str, path: str, columns: Sequence[str], *, json_form: bool, **query: str | float
) -> None:
    """Request a list and print it."""
    print_table(rows_of(call(url, token, lambda remote: remote.get(path, **query))), columns, json_form=json_form)
