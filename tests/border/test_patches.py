"""Each check of the border taken out of a copied tree: a test that is green with it is red without it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.border.removals import REMOVALS
from tests.ledger.controls import SOURCE, edited_files, patched

ROOT = Path(__file__).parents[2]
RED, GREEN = 1, 0
"""How pytest ends: with tests that failed, or without any."""
TEST_S = 120.0


soak = pytest.mark.skipif("SENSEGATE_SOAK" not in os.environ, reason="in `make soak`")


def test_each_check_of_the_border_is_taken_out() -> None:
    """Foreign city, node, grade, rows, life, roll-up, fence, garbage, quota and term; and what stands beside them."""
    assert {
        "foreign-city",
        "foreign-node",
        "grade",
        "rows",
        "ttl",
        "rollup",
        "fence",
        "garbage",
        "quota",
        "balance",
        "foreign-device",
        "writer",
        "term",
        "silent",
        "member",
    } <= set(REMOVALS)


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_fits_the_source(name: str) -> None:
    """Each edit finds its place exactly once, and changes its file."""
    for file, text in edited_files(REMOVALS[name]).items():
        assert text != (SOURCE / "sensegate" / file).read_text(encoding="utf-8")


async def ended(tests: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run tests in a process of their own; return how pytest ended and what it printed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *tests),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(TEST_S):
        out, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(errors="replace")


@soak
@pytest.mark.live
@pytest.mark.slow
async def test_with_every_check_the_tests_are_green() -> None:
    """The control of the controls."""
    tests = sorted({test for removal in REMOVALS.values() for test in removal.tests})
    code, out = await ended(tests, {})
    assert code == GREEN, out[-4_000:]


@soak
@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("name", REMOVALS)
async def test_without_the_check_each_of_its_tests_is_red(name: str, tmp_path: Path) -> None:
    """Each of them by itself."""
    environment = patched(REMOVALS[name], tmp_path)
    for test in REMOVALS[name].tests:
        code, out = await ended([test], environment)
        # A test that fails, not a tree that no longer starts.
        ending = out.rstrip().rpartition("\n")[2]
        assert (code, "failed" in ending, "error" in ending) == (RED, True, False), f"{test}:\n{out[-4_000:]}"
