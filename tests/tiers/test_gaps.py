"""Gaps in a node's readings: what the lost node stated about itself is not taken for more than a statement."""

from __future__ import annotations

import pytest

from sensegate.bus import sequences
from sensegate.bus.reader import format_timestamp
from sensegate.clock import DAY_US
from sensegate.model import LogEntry
from sensegate.tiers import gaps as gaps_module
from sensegate.tiers.gaps import gap_reports
from sensegate.tiers.members import Gap
from tests.share.made import NOW


class DatedLog:
    """An empty log that knows times as the server does, of the years 1 to 9999."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def sequence_at(self, time: int) -> int:
        format_timestamp(time)
        self.asked.append(time)
        return 1

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        assert (subject, after) == ("sequences.4401", 0)
        return []


@pytest.mark.parametrize(
    ("since", "begin"), [(NOW - 5, NOW - 5 - DAY_US), (2**62, NOW - DAY_US), (-(2**62), 0), (1, 0)]
)
async def test_a_gap_begins_whatever_time_the_lost_node_stated(since: int, begin: int) -> None:
    """No later than its successor joined, and not before the log knows times."""
    log = DatedLog()
    (report,) = await gap_reports(log, "4401", [Gap(since, NOW, "e1", 3)])
    assert (report.devices, report.missing, log.asked) == ([], 0, [begin])


class WrittenLog(DatedLog):
    """A log with sequence numbers of the device d1: three from a lost node, two from its successor."""

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        runs = [(1, "e1", [1, 3], NOW - 5), (2, "e2", [6, 7], NOW + 5)]
        return [
            LogEntry(number, subject, payload, time)
            for number, epoch, numbers, time in runs
            if number > after
            for payload in sequences.encode_parts(epoch, {"d1": numbers}, 1_000)
        ]


@pytest.mark.parametrize("since", [NOW + 10, 2**62, 1, -5])
async def test_a_gap_ends_whatever_time_the_next_lost_node_stated(since: int) -> None:
    """The successor is lost, too, and its clock was wrong: what is missing before it is named all the same."""
    gaps = [Gap(NOW - 5, NOW, "e1", 0), Gap(since, NOW + DAY_US, "e2", 0)]
    first, _ = await gap_reports(WrittenLog(), "4401", gaps)
    assert [(device.device, device.runs) for device in first.devices] == [("d1", [(4, 5)])]


async def test_the_runs_of_a_gap_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile node fills the log with numbers; whoever looks at its gaps reads no more than some of them."""
    monkeypatch.setattr(gaps_module, "RUNS_READ_MAX", 50)

    class Filled(DatedLog):
        async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
            self.asked.append(after)
            numbers = [number for pair in range(10) for number in (3 * pair, 3 * pair + 1)]
            (payload,) = sequences.encode_parts("e1", {"d1": numbers}, 10_000)
            return [LogEntry(after + place, subject, payload, NOW - 5) for place in range(1, 4)]

    monkeypatch.setattr(gaps_module, "ENTRIES_MAX", 3_000)
    log = Filled()
    (report,) = await gap_reports(log, "4401", [Gap(NOW - 5, NOW, "e1", 3)])
    assert (report.devices, len(log.asked) - 1) == ([], 2)
