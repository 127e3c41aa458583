"""The table of faults names tests that there are, and the README shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.table import Row


@pytest.mark.parametrize("row", table.rows(), ids=lambda row: row.fault)
def test_each_fault_is_tested(row: Row) -> None:
    """A test that was renamed or removed is missed here."""
    for test in row.tests:
        file, _, function = test.partition("[")[0].partition("::")
        known = table.functions(file)
        assert known if function == "*" else function in known, test


def test_the_readme_shows_the_table() -> None:
    """`python -m tests.faults.table` prints what stands there."""
    assert table.markdown() in Path(__file__).with_name("README.md").read_text(encoding="utf-8")
