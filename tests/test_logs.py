"""Log lines: one each, and which part it is of."""

from __future__ import annotations

import contextlib
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
    assert [line.get("logger") for line in lines] == ["walk", "share.access_requests", None]
    logs.configure("info", "text")
    structlog.get_logger("walk").warning("slow")
    assert "[walk]" in capsys.readouterr().err


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet in normal operation."""
    logs.configure("warning", "text")
    structlog.get_logger("walk").info("all is well")
    assert capsys.readouterr().err == ""


def test_a_warning_that_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    """It is written at once, and then once a minute with the number of those left out; others are not held up."""
    now = [0.0]
    limit = logs.RepeatLimit(lambda: now[0])
    written = []
    for second in range(130):
        now[0] = second
        for member in ("4401", "4403"):
            with contextlib.suppress(structlog.DropEvent):
                event = {"event": "not reached", "member": member, "reason": f"timeout after {second} ms"}
                written.append((second, limit(None, "warning", event)))
    assert [(second, event["member"], event.get("repeated", 0)) for second, event in written] == [
        (0, "4401", 0),
        (0, "4403", 0),
        (60, "4401", 59),
        (60, "4403", 59),
        (120, "4401", 59),
        (120, "4403", 59),
    ]
    logs.configure("info", "json")
    for turn in range(3):
        structlog.get_logger("bus").warning("disk full", reason=f"{turn} bytes")
        structlog.get_logger("bus").info("stream changed")
    lines = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["disk full", "stream changed", "stream changed", "stream changed"]


def test_what_is_remembered_of_warnings_is_bounded() -> None:
    """A flood of different lines is written, and takes no memory for ever; a traceback is never left out."""
    limit = logs.RepeatLimit(lambda: 0.0)
    for number in range(3 * logs.LINES_MAX):
        limit(None, "warning", {"event": "odd", "device": f"d{number}"})
    assert len(limit._written) == logs.LINES_MAX
    for _ in range(3):
        assert limit(None, "error", {"event": "bug", "exc_info": ValueError()})
