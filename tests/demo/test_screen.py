"""Output of the demo: each number has its unit, each column its heading, and the result names readings sent by hand."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from sensegate.demo import screen
from sensegate.demo.summary import Summary
from tests.demo.made import SUMMARY


def printed(summary: Summary) -> list[str]:
    """Return the lines of the result."""
    console = Console(file=io.StringIO(), width=200)
    screen.print_result(summary, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_each_column_of_the_addresses_has_a_heading() -> None:
    """The two process ids of a gateway are told apart."""
    console = Console(file=io.StringIO(), width=200)
    screen.print_addresses(SUMMARY, console)
    assert isinstance(console.file, io.StringIO)
    heading, centre, node, *_ = console.file.getvalue().splitlines()
    assert "pids: gateway, NATS" in heading
    assert centre.index("31, 32") == node.index("41, 42") == heading.index("pids:")


def test_each_number_of_a_status_line_has_its_unit() -> None:
    """Messages, readings and connections; readings by hand and wrong ones are named where there are any."""
    simulator = {"sent": 1_256, "owed": 1, "connected": 88, "connections": 88}
    tap = {"matched": 1, "outstanding": 2, "doubled": 3}
    cameras = {"sent": 1, "objects": 4, "owed": 0, "connected": 10, "connections": 10}
    judge = {"acknowledged": 5, "by_hand": 2, "taps": {"centre": tap}}
    assert screen.status_lines(simulator, judge, cameras) == [
        "simulator: 1,256 messages sent, 1 not acknowledged, 88 of 88 connections",
        "cameras: 1 message sent with 4 objects, 0 not answered, 10 of 10 connected",
        (
            "judge: 5 messages acknowledged, 1 reading at the centre, 2 messages on the way, "
            "2 readings sent by hand at the centre, WRONG: doubled 3"
        ),
    ]


def test_the_result_names_readings_sent_by_hand() -> None:
    """They are a line and a part of the verdict; without any there is neither."""
    lines = printed(SUMMARY)
    assert not any("by hand" in line for line in lines)
    assert lines[-1] == "verdict: all accounted for: nothing lost, nothing doubled"
    manual = msgspec.structs.replace(SUMMARY, by_hand=2, unrecognised={"cross_path": (4, 5)})
    lines = printed(manual)
    assert any(line.split() == ["by", "hand", "2", "at", "the", "centre"] for line in lines)
    assert any("cross path 4 injected, 5 counted" in line for line in lines)
    assert lines[-1] == (
        "verdict: all accounted for: nothing lost, nothing doubled; "
        "2 readings sent by hand reached the centre, none twice"
    )
    assert printed(msgspec.structs.replace(manual, doubled=1))[-1] == "verdict: FAILED: see above"
