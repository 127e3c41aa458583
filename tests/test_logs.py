"""Log lines: one each, and which part it is of."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from sensegate import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the log lines of this process as they were."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_line_says_which_part_it_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    """In either form, by the word of the part or by its module; a logger without a name says none."""
    logs.configure("info", "json")
    structlog.get_logger("walk").warning("slow", s=1)
    structlog.get_logger("sensegate.share.access_requests").warning("slow")
    structlog.get_logger().warning("slow")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line.get("logger") for line in lines] == ["walk", "share.desk", None]
    logs.configure("info", "text")
    structlog.get_logger("walk").warning("slow")
    assert "[walk]" in capsys.readouterr().err


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet in normal operation."""
    logs.configure("warning", "text")
    structlog.get_logger("walk").info("all is well")
    assert capsys.readouterr().err == ""
