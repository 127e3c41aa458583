"""Status reports of nodes at their centre."""

from __future__ import annotations

import msgspec

from sensegate.clock import FakeClock
from sensegate.tiers.report import PROBLEM_MAX, PROBLEMS_MAX, NodeReport, NodeReports, ReportReply


async def test_a_report_without_end_is_bounded(clock: FakeClock) -> None:
    """Everyone who lists the nodes gets their problems: a node cannot make the list as long as it likes."""
    reports = NodeReports(clock, lambda _member, _report: ReportReply("1.0", 0))
    report = NodeReport("1.0", 0, problems=("short", *("x" * 10_000 for _ in range(1_000))))
    await reports.answer_report("4401", msgspec.msgpack.encode(report))
    problems = reports.latest["4401"].report.problems
    assert (len(problems), problems[0], len(problems[1])) == (PROBLEMS_MAX, "short", PROBLEM_MAX)
