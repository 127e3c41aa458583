"""What we speak of MQTT: features with their promises, normative statements with their tests, from two tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from tests.house import limits

_HERE: Final = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table, ``mqtt_features`` or ``mqtt_statements``."""
    with (_HERE / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(name: str) -> str:
    """Return a table as Markdown."""
    every = rows(name)
    heads = [{"v31": "3.1", "v311": "3.1.1", "v5": "5.0"}.get(head, head) for head in every[0]]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [
        f"| {' | '.join(f'`{cell}`' if head == 'test' else cell for head, cell in row.items())} |" for row in every
    ]
    return "\n".join(lines)


def without_test() -> list[str]:
    """Return the tests of rows that do not exist."""
    named = [row["test"] for name in ("mqtt_features", "mqtt_statements") for row in rows(name)]
    return limits.without_test(tuple(limits.Limit("", "", "", test) for test in named))
