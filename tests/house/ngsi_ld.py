"""Which clauses of ETSI GS CIM 009 hold, each with its test: a table under the specification's own numbers.

The files `ngsi_ld_*.csv` have its rows: clause, what it demands, test, whether it holds, note.
"""

from __future__ import annotations

import csv
from pathlib import Path

from tests.house import limits

_FOLDER = Path(__file__).parent
COLUMNS = ("clause", "what", "test", "holds", "note")
_API = ("5.6.", "5.7.", "5.8.", *(f"6.{number}." for number in range(3, 14)))
"""Clauses of entities and subscriptions, and of HTTP up to the registry; the others of the table are counted apart."""


def rows() -> list[dict[str, str]]:
    """Return the rows of the table, in the order of the clauses."""
    listed: list[dict[str, str]] = []
    for path in sorted(_FOLDER.glob("ngsi_ld_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            assert tuple(reader.fieldnames or ()) == COLUMNS, path.name
            listed += reader
    return sorted(listed, key=lambda row: [int(part) for part in row["clause"].split(".")])


def table() -> str:
    """Return the table as Markdown; a clause holds only while the suite, and so its test, passes."""
    listed = rows()
    api = [row for row in listed if row["clause"].startswith(_API)]
    counts = f"{_holding(listed)} of {len(listed)} rows hold"
    share = f"{100 * _holding(api) / len(api):.1f} %"
    of_api = f"of clauses 5.6 to 5.8 and 6.3 to 6.13, {_holding(api)} of {len(api)} ({share})"
    lines = [f"{counts}; {of_api}.", "", "| clause | what | test | result | note |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['clause']} | {row['what']} | {_quoted(row['test'])} | "
        f"{'holds' if row['holds'] == 'yes' else 'open'} | {row['note'] or '–'} |"
        for row in listed
    ]
    return "\n".join(lines)


def _holding(listed: list[dict[str, str]]) -> int:
    return sum(row["holds"] == "yes" for row in listed)


def _quoted(test: str) -> str:
    return f"`{test}`" if test else "–"


def without_test() -> list[str]:
    """Return the tests of rows that do not exist."""
    named = [row["test"] for row in rows() if row["holds"] == "yes"]
    return limits.without_test(tuple(limits.Limit("", "", "", test) for test in named))
