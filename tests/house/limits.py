"""The limits of a gateway: the key of each, what the caller gets at it, and the test that shows it.

They stand in `limits.csv`; `config/README.md` has them as a table (`python -m tests.house.docs --write`).
"""

from __future__ import annotations

import ast
import csv
import importlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from sensegate.config import settings
from tests.house import graph

ROOT: Final = Path(__file__).parents[2]
LIMIT_NAME: Final = re.compile(r"_max$|_bytes$|_per_s$|_per_minute$|_per_device_s$|_timeout_s$|_share$|connections$")
"""Names of settings that limit what a caller may do; others set retentions, intervals and thresholds."""
NO_LIMITS: Final = frozenset(
    {
        "uplink.grade_max",
        "returns.grade_max",
        "viid.superiors[].grade_max",
        "ingest.commit_messages_max",
        "peer.standby_timeout_s",
        "store.disk_reserve_bytes",
        "history.memory_bytes",
    }
)
"""Settings with such names that no caller meets: choices of the operator, and sizes of our own work."""


class Limit(NamedTuple):
    """A limit that a caller can reach."""

    limit: str
    key: str
    """Key of the configuration, or ``module:CONSTANT`` of the package where the limit is fixed."""
    response: str
    test: str
    """``file::test`` below tests/."""


def _read() -> tuple[Limit, ...]:
    with (ROOT / "tests" / "house" / "limits.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Limit(**row) for row in csv.DictReader(file))


LIMITS: Final = _read()
"""In the order of the walk."""


def missing() -> list[str]:
    """Return the keys of settings that limit a caller and have no row."""
    rows = {limit.key for limit in LIMITS} | NO_LIMITS
    names = (setting.key for setting in settings() if setting.is_number)
    return [key for key in names if LIMIT_NAME.search(key) and key not in rows]


def unknown() -> list[str]:
    """Return the keys of rows that are neither a setting nor a constant."""
    known = {setting.key for setting in settings()}
    return [limit.key for limit in LIMITS if limit.key not in known and _constant(limit.key) is None]


def _constant(key: str) -> float | None:
    module, _, name = key.partition(":")
    if not name:
        return None
    value: float | None = getattr(importlib.import_module(f"sensegate.{module}"), name, None)
    return value


@lru_cache(maxsize=256)
def _tests(file: str) -> frozenset[str]:
    path = ROOT / "tests" / file
    if not path.exists():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = graph.statements(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, functions))


def without_test(rows: tuple[Limit, ...] = LIMITS) -> list[str]:
    """Return the tests of rows that do not exist."""
    pairs = (limit.test.partition("::") for limit in rows)
    return [f"{file}::{name}" for file, _, name in pairs if name not in _tests(file)]


def table() -> str:
    """Return the Markdown table of all limits."""
    defaults = {setting.key: setting.default for setting in settings()}
    rows = ["| limit | key | default | at the limit | test |", "|---|---|---|---|---|"]
    for limit in LIMITS:
        default = defaults.get(limit.key) or f"{_constant(limit.key):g}"
        key = f"`{limit.key}`" if limit.key in defaults else "(fixed)"
        rows.append(f"| {limit.limit} | {key} | {default} | {limit.response} | `{limit.test}` |")
    return "\n".join(rows)
