"""What of the node's log goes up in one span."""

from __future__ import annotations

import numpy as np

from sensegate.bus import columns
from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.model import Entry
from sensegate.publish.span import Packer, whole_commits
from sensegate.quantities.quality import Flag
from tests.publish.made import Node, batch_of

PACKER = Packer("4401", 3)


async def entries_of(*commits: list[tuple[int, int]], alarm: bool = False) -> list[Entry]:
    """Entries of a node's log with these commits."""
    clock = FakeClock()
    node = Node(MemoryLog(clock), clock)
    for parts in commits:
        await node.commit(parts, alarm=alarm)
    return await node.log.fetch(0)


async def test_a_span_is_one_message_of_each_grade_and_one_ledger() -> None:
    """However many commits: their readings share a message, their ledgers are summed."""
    span = PACKER.span(await entries_of([(0, 2)], [(0, 3)], [(1, 1)]))
    assert [member.subject for member in span.members] == ["readings.4401.all.1", "readings.4401.all.2", "ledger.4401"]
    assert span.rows == 6
    assert Ledger.decode(span.members[-1].payload).totals()["accepted"] == 6


async def test_identity_and_values_survive() -> None:
    """A record keeps the id of where it was first committed, its value and its times."""
    entries = await entries_of([(0, 3)])
    sent = columns.decode(entries[1].payload, sequence=entries[1].sequence)
    got = columns.decode(PACKER.span(entries).members[0].payload, sequence=999)
    assert [got.record_id(row) for row in range(3)] == [sent.record_id(row) for row in range(3)]
    assert np.array_equal(got.value, sent.value)
    assert np.array_equal(got.time, sent.time)
    assert got.local is None


async def test_what_is_above_the_grade_is_withheld_and_counted() -> None:
    """A higher grade than the node shares stays; the ledger says how many by reason, and the device."""
    span = PACKER.span(await entries_of([(0, 2), (2, 5)]))
    assert span.rows == 2
    assert (span.counts["forwarded"], span.counts["withheld.grade"]) == (2, 5)
    rows = {(row.device, row.kind): row.count for row in Ledger.decode(span.members[-1].payload).rows()}
    assert rows["d2", "withheld.grade"] == 5
    assert rows["d0", "forwarded"] == 2


async def test_alarms_go_first_and_their_series_stays_in_order() -> None:
    """A series with an alarm is in a message before the others, with all its rows."""
    first, second = await entries_of([(1, 2)]), await entries_of([(0, 2)], alarm=True)
    third = await entries_of([(0, 1)])
    entries = [
        Entry(number, entry.subject, entry.payload, entry.time)
        for number, entry in enumerate([*first, *second, *third], 1)
    ]
    span = PACKER.span(entries)
    leading = columns.decode(span.members[0].payload)
    assert span.members[0].subject == "readings.4401.all.1"
    assert leading.origins.device == ["d0"]
    assert len(leading) == 3
    assert list(leading.seq) == sorted(leading.seq)


async def test_backlog_rows_are_marked() -> None:
    """Every row of the backlog lane carries the flag; rows of the live lane do not."""
    entries = await entries_of([(0, 2)])
    live, late = (columns.decode(PACKER.span(entries, flag).members[0].payload) for flag in (None, Flag.BACKLOG))
    assert not (live.flags & Flag.BACKLOG).any()
    assert (late.flags & Flag.BACKLOG).all()


async def test_a_span_too_large_for_a_message_is_split() -> None:
    """Messages and ledger stay below the limit; nothing is left out."""
    packer = Packer("4401", 3, payload_bytes_max=700)
    rng = np.random.default_rng(1)
    batch = columns.Batch(*[getattr(batch_of(0, 400, 0), name) for name in columns.Batch.__struct_fields__])
    batch.value[:] = rng.random(400)
    counts = Ledger()
    for device in range(300):
        counts.add(1, f"{rng.integers(1 << 60):x}", "mqtt", "accepted", device)
    entries = [
        Entry(1, "readings.4401.440106.1", columns.encode(batch), 0),
        Entry(2, "ledger.4401-0", counts.encode(), 0),
    ]
    span = packer.span(entries)
    assert max(len(member.payload) for member in span.members) <= 700
    readings = [columns.decode(m.payload) for m in span.members if m.subject.startswith("readings.")]
    assert len(readings) > 1
    assert sorted(i for part in readings for i in part.index.tolist()) == list(range(400))
    ledgers = [Ledger.decode(m.payload) for m in span.members if m.subject.startswith("ledger.")]
    assert len(ledgers) > 1
    assert sum(ledger.totals().get("accepted", 0) for ledger in ledgers) == sum(range(300))


def test_spans_end_with_commits() -> None:
    """A run of entries is cut behind the last complete commit; without any end it goes as it is."""
    subjects = ["readings.a.b.1", "ledger.a-0", "commit.a-0", "raw.a-0", "readings.a.b.1"]
    entries = [Entry(number, subject, b"", 0) for number, subject in enumerate(subjects, 1)]
    assert [entry.sequence for entry in whole_commits(entries)] == [1, 2, 3]
    assert len(whole_commits(entries[3:])) == 2


def test_a_run_with_nothing_to_tell_has_no_members() -> None:
    """Raw messages and records alone move the position, nothing more."""
    span = PACKER.span([Entry(5, "raw.4401-0", b"", 0), Entry(6, "commit.4401-0", b"", 0)])
    assert (span.members, span.position, span.rows) == ([], 6, 0)
