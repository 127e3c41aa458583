"""Which requirements of OGC SensorThings 1.1 hold, each with its test: a table under the standard's own names."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from sensegate.sensorthings.conformance import SPEC
from tests.house import limits

_FILE: Final = Path(__file__).with_name("sensorthings_requirements.csv")


def rows() -> list[dict[str, str]]:
    """Return the rows of the table."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """Return the table as Markdown; a requirement holds only while the suite, and so its test, passes."""
    lines = ["| requirement | test | result | note |", "|---|---|---|---|"]
    lines += [
        f"| `/req/{row['requirement']}` | {_quoted(row['test'])} | "
        f"{'holds' if row['holds'] == 'yes' else 'open'} | {row['note'] or '–'} |"
        for row in rows()
    ]
    return "\n".join(lines)


def _quoted(test: str) -> str:
    return f"`{test}`" if test else "–"


def without_test() -> list[str]:
    """Return the tests of rows that do not exist."""
    named = [row["test"] for row in rows() if row["holds"] == "yes"]
    return limits.without_test(tuple(limits.Limit("", "", "", test) for test in named))


def classes() -> dict[str, set[str]]:
    """Return the requirement classes: address -> whether its requirements hold."""
    holding: dict[str, set[str]] = {}
    for row in rows():
        holding.setdefault(f"{SPEC}/{row['requirement'].partition('/')[0]}", set()).add(row["holds"])
    return holding
