"""What of the node's log goes up in one span."""

from __future__ import annotations

import numpy as np

from sensegate.bus import columns
from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.model import LogEntry
from sensegate.quantities.quality import Flag
from sensegate.tiers.protocol import PartKind
from sensegate.tiers.span import Packer, PartFilter, whole_commits
from tests.tiers.made import Node

PACKER = Packer(3)


async def entries_of(*commits: list[tuple[int, int]], alarm: bool = False) -> list[LogEntry]:
    """Entries of a node's log with these commits."""
    clock = FakeClock()
    node = Node(MemoryLog(clock), clock)
    for parts in commits:
        await node.commit(parts, alarm=alarm)
    return await node.log.fetch(0)


async def test_a_span_is_one_message_of_each_grade_and_one_ledger() -> None:
    """However many commits: their readings share a message, their ledgers are summed."""
    span = PACKER.pack(await entries_of([(0, 2)], [(0, 3)], [(1, 1)]))
    assert [(part.kind, part.grade, part.rows) for part in span.parts] == [
        ("readings", 1, 5),
        ("readings", 2, 1),
        ("ledger", 0, 0),
    ]
    assert span.rows == 6
    assert Ledger.decode(span.parts[-1].payload).totals()["accepted"] == 6


async def test_identity_and_values_survive() -> None:
    """A record keeps the id of where it was first committed, its value and its times."""
    entries = await entries_of([(0, 3)])
    sent = columns.decode(entries[1].payload, sequence=entries[1].sequence)
    got = columns.decode(PACKER.pack(entries).parts[0].payload, sequence=999)
    assert [got.record_id(row) for row in range(3)] == [sent.record_id(row) for row in range(3)]
    assert np.array_equal(got.value, sent.value)
    assert np.array_equal(got.time, sent.time)
    assert got.local is None


async def test_what_is_above_the_grade_is_withheld_and_counted() -> None:
    """A higher grade than the node shares stays; the ledger says how many by reason, and the device."""
    span = PACKER.pack(await entries_of([(0, 2), (2, 5)]))
    assert span.rows == 2
    rows = {(row.device, row.kind): row.count for row in Ledger.decode(span.parts[-1].payload).rows()}
    assert rows["d2", "withheld.grade"] == 5
    assert ("d0", "forwarded") not in rows, "what is forwarded is counted by the centre"


async def test_alarms_go_first_and_their_series_stays_in_order() -> None:
    """A series with an alarm is in a message before the others, with all its rows."""
    first, second = await entries_of([(1, 2)]), await entries_of([(0, 2)], alarm=True)
    third = await entries_of([(0, 1)])
    entries = [
        LogEntry(number, entry.subject, entry.payload, entry.time)
        for number, entry in enumerate([*first, *second, *third], 1)
    ]
    span = PACKER.pack(entries)
    leading = columns.decode(span.parts[0].payload)
    assert (span.parts[0].kind, span.parts[0].grade) == ("readings", 1)
    assert leading.origins.device == ["d0"]
    assert len(leading) == 3
    assert list(leading.seq) == sorted(leading.seq)


async def test_backlog_rows_are_marked() -> None:
    """Every row of the backlog lane carries the flag; rows of the live lane do not."""
    entries = await entries_of([(0, 2)])
    live, late = (columns.decode(PACKER.pack(entries, flag).parts[0].payload) for flag in (None, Flag.BACKLOG))
    assert not (live.flags & Flag.BACKLOG).any()
    assert (late.flags & Flag.BACKLOG).all()


async def test_a_span_that_is_too_large_for_a_message_is_made_of_less() -> None:
    """All parts of a span go up in one message; the rest of the log follows with the next, nothing is left out."""
    packer = Packer(3, span_bytes_max=1_200)
    entries = await entries_of(*[[(0, 50), (1, 20)]] * 40)
    rows, spans = 0, 0
    while entries:
        span = packer.pack(entries)
        assert span.size <= 1_200
        rows, spans = rows + span.rows, spans + 1
        entries = [entry for entry in entries if entry.sequence > span.position]
    assert rows == 40 * 70
    assert spans > 1


async def test_no_part_has_more_rows_than_the_centre_takes() -> None:
    """Readings that pack well fill no part beyond the limit of rows; control: without it one part has all."""
    entries = await entries_of(*[[(0, 50), (1, 20)]] * 40)
    [whole] = {max(part.rows for part in Packer(3).pack(entries).parts)}
    assert whole > 500
    rows = 0
    while entries:
        span = Packer(3, part_rows_max=500).pack(entries)
        assert all(part.rows <= 500 for part in span.parts)
        rows += span.rows
        entries = [entry for entry in entries if entry.sequence > span.position]
    assert rows == 40 * 70


async def test_only_some_rows_are_made_once_more() -> None:
    """Of one kind and grade, or of some devices, and nothing is counted a second time."""
    entries = await entries_of([(0, 2), (1, 3)], [(0, 1)])
    span = PACKER.pack(entries, only=PartFilter(PartKind.READINGS, 1))
    assert [(part.kind, part.rows) for part in span.parts] == [("readings", 3)]
    assert PACKER.pack(entries, only=PartFilter(PartKind.READINGS, 1, frozenset({"d1"}))).parts == []
    assert [part.kind for part in PACKER.pack(entries, only=PartFilter(PartKind.LEDGER)).parts] == ["ledger"]


async def test_rows_that_are_skipped_are_counted() -> None:
    """Nothing of them goes up; the ledger says how many."""
    span = PACKER.pack(await entries_of([(0, 2), (2, 5)]), skip=True)
    assert [part.kind for part in span.parts] == ["ledger"]
    totals = Ledger.decode(span.parts[0].payload).totals()
    assert (totals["withheld.skipped"], totals["withheld.grade"], totals["accepted"]) == (2, 5, 7)


def test_spans_end_with_commits() -> None:
    """A run of entries is cut behind the last complete commit; without any end it goes as it is."""
    subjects = ["readings.a.b.1", "ledger.a-0", "commit.a-0", "raw.a-0", "readings.a.b.1"]
    entries = [LogEntry(number, subject, b"", 0) for number, subject in enumerate(subjects, 1)]
    assert [entry.sequence for entry in whole_commits(entries)] == [1, 2, 3]
    assert len(whole_commits(entries[3:])) == 2


def test_a_run_with_nothing_to_tell_has_no_parts() -> None:
    """Raw messages and records alone move the position, nothing more."""
    span = PACKER.pack([LogEntry(5, "raw.4401-0", b"", 0), LogEntry(6, "commit.4401-0", b"", 0)])
    assert (span.parts, span.position, span.rows) == ([], 6, 0)
