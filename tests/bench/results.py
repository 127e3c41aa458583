"""The results of the last release, `results.jsonl`: one line for each benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "results.jsonl"


def latest() -> dict[str, dict[str, Any]]:
    """Return the last result of each benchmark, by name."""
    return {row["bench"]: row for row in map(json.loads, FILE.read_text(encoding="utf-8").splitlines())}
