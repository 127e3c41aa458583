from __future__ import annotations

from pathlib import Path

from _pytest.assertion.rewrite import _read_pyc

from tests.support import rewriting

SOURCE = "def test_x():\n    assert 1 == 2\n"


def test_pytest_reads_the_bytecode_that_stands_there(tmp_path: Path) -> None:
    """The bytecode is that which pytest's own hook finds and takes; of another source it takes none."""
    file = tmp_path / "test_x.py"
    file.write_text(SOURCE, encoding="utf-8")
    target = rewriting.rewritten(file)
    code = _read_pyc(file, target)
    assert code is not None
    assert "@pytest_ar" in code.co_names
    stamp = target.stat().st_mtime_ns
    assert rewriting.rewritten(file).stat().st_mtime_ns == stamp
    file.write_text(SOURCE.replace("2", "3"), encoding="utf-8")
    assert _read_pyc(file, target) is None
