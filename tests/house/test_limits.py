"""The table of limits is complete, and each of its rows has a key and a test that exist."""

from __future__ import annotations

import pytest

from sensegate.config import settings
from tests.house import limits

KEYS = [limit.key for limit in limits.LIMITS]


def test_every_setting_that_limits_a_caller_has_a_row() -> None:
    """A new limit needs a row, and so a test."""
    assert limits.missing() == []
    assert len(KEYS) == len(set(KEYS))


def test_every_row_names_a_key_and_a_test_that_exist() -> None:
    """Keys are settings or constants of the package; tests are functions of their file."""
    assert limits.unknown() == []
    assert limits.without_test() == []


def test_a_row_without_its_test_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a missing test, a missing file and a missing row are each reported."""
    gone = limits.Limit("x", "web.port", "x", "web/test_caps.py::test_that_is_not_there")
    away = limits.Limit("x", "web.port", "x", "web/test_not_there.py::test_x")
    assert limits.without_test((gone, away)) == [gone.test, away.test]
    rows = tuple(limit for limit in limits.LIMITS if limit.key != "web.body_bytes_max")
    monkeypatch.setattr(limits, "LIMITS", (*rows, limits.Limit("x", "web.no_such_key", "x", "x::x")))
    assert limits.missing() == ["web.body_bytes_max"]
    assert limits.unknown() == ["web.no_such_key"]


def test_every_setting_is_used() -> None:
    """No key of the configuration is without effect: each is read somewhere outside of its record."""
    package = limits.ROOT / "src" / "sensegate"
    files = [path for path in package.rglob("*.py") if path.parent.name != "config"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    leaves = {setting.key.rpartition(".")[2].removesuffix("[]") for setting in settings()}
    assert sorted(leaf for leaf in leaves if f".{leaf}" not in text) == []
