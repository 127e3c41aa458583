"""`sensegate centre`: what it says of the files in a centre's directory, and when it orders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.failover import terms
from sensegate.failover.lease import VoterConfiguration
from sensegate.failover.standby_status import PROMOTE, STATUS, StandbyStatus
from sensegate.failover.terms import Term

TERM = Term(
    3, active=True, voters=(VoterConfiguration((2, 1), ("4401",)), VoterConfiguration((3, 1), ("4401", "4403.2")))
)


def run(*words: str) -> tuple[int, str]:
    """Return exit code and all that it said, as one line."""
    result = CliRunner().invoke(app, ["centre", *words])
    text = f"{result.output} {result.exception or ''}"
    return result.exit_code, " ".join(text.split())


def stands_by(
    directory: Path,
    *,
    reached: bool = False,
    behind: int = 0,
    missing: tuple[str, ...] = (),
    ago_s: float = 0.0,
) -> None:
    """Leave what a standby tells."""
    status = StandbyStatus(1, 3, reached, behind, missing, time.time() - ago_s)
    (directory / STATUS).write_bytes(msgspec.json.encode(status))


def test_status_says_who_votes(tmp_path: Path) -> None:
    """The electorate in force, not the one before; nothing where nobody votes."""
    terms.write(tmp_path, TERM)
    code, result = run("status", str(tmp_path))
    assert (code, result.startswith("active, term 3")) == (0, True), result
    assert "voters of the automatic fail-over: 4401, 4403.2" in result
    code, result = run("status", str(tmp_path), "--json")
    assert msgspec.json.decode(result)["voters"] == ["4401", "4403.2"]
    stands_by(tmp_path, behind=2, missing=("registries",))
    result = run("status", str(tmp_path))[1]
    assert "standby, term 3" in result
    assert "not copied yet: registries" in result
    terms.write(tmp_path, Term(3))
    (tmp_path / STATUS).unlink()
    code, result = run("status", str(tmp_path))
    assert (code, "not running" in result, "vote" in result) == (1, True, False)


@pytest.mark.parametrize(
    ("state", "words", "why"),
    [
        ({}, (), ""),
        ({"reached": True}, (), "answers"),
        ({"behind": 5}, (), "5 entries"),
        ({"behind": -1}, (), "copy is empty"),
        ({"missing": ("registries",)}, (), "not copied whole yet: registries"),
        ({"ago_s": 60.0}, (), "not a standby"),
        ({"reached": True, "behind": 5}, ("--force",), ""),
        ({"ago_s": 60.0}, ("--force",), "not a standby"),
    ],
)
def test_it_orders_only_what_loses_nothing(
    tmp_path: Path, state: dict[str, Any], words: tuple[str, ...], why: str
) -> None:
    """Or what was asked for by force; a centre that does not run is ordered nothing."""
    stands_by(tmp_path, **state)
    code, result = run("promote", str(tmp_path), *words)
    assert why in result
    assert ((tmp_path / PROMOTE).exists(), code == 0) == (not why, not why), result
