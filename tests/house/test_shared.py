"""What several test files share stands in modules of its own: no test file is imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
SUSPECT = re.compile(r"^[ \t]*(?:from|import) +tests\b[^\n(]*(?:\([^)]*)?\btest_", re.MULTILINE)
"""Text without which no such import is in a module: only modules that have it are parsed."""


def imports_of_tests(source: str) -> list[str]:
    """Return the test files that a module imports from."""
    imports_of_tests: list[str] = []
    if not SUSPECT.search(source):
        return imports_of_tests
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tests":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "tests"]
        else:
            continue
        # The last part of `from tests.x import test_y` may be a module, or a function of one.
        imports_of_tests += [name for name in names if any(part.startswith("test_") for part in name.split(".")[1:])]
    return imports_of_tests


def test_no_test_file_is_imported() -> None:
    """A maker, a double or a constant of one test is shared from a helper module (tests/README.md)."""
    selected = {
        str(file.relative_to(TESTS)): names
        for file in TESTS.rglob("*.py")
        if (names := imports_of_tests(file.read_text(encoding="utf-8")))
    }
    assert selected == {}


def test_such_an_import_is_seen() -> None:
    """In every form, at any depth."""
    assert imports_of_tests("from tests.share.test_feeds import maker") == ["tests.share.test_feeds.maker"]
    assert imports_of_tests("def f():\n    from tests.share import test_feeds") == ["tests.share.test_feeds"]
    assert imports_of_tests("import tests.share.test_feeds as feeds") == ["tests.share.test_feeds"]
    assert imports_of_tests("from tests.share import (\n    made,\n    test_feeds,\n)") == ["tests.share.test_feeds"]
    assert imports_of_tests("from tests.share.made import maker") == []
