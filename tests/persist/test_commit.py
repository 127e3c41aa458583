"""The commit: all of a span or nothing, once, with its counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest
import structlog

from sensegate.bus import raw
from sensegate.bus.commit_records import decode_commit, encode_commit
from sensegate.bus.ledger import Ledger
from sensegate.bus.log import JetStreamLog
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US, FakeClock
from sensegate.errors import Fenced, StoreFull, Unavailable, Unbalanced
from sensegate.model import (
    CommitRecord,
    LogMessage,
    Message,
    Quarantined,
    QuarantineReason,
    RejectedValue,
    RejectReason,
    SourcePosition,
)
from sensegate.persist import duplicates as duplicates_module
from sensegate.persist.checkpoint_store import CheckpointStore
from sensegate.persist.commit import RETRY_S, CommitLimits, Committer
from sensegate.persist.identity import ACCEPTED, UNCHANGED
from sensegate.persist.sorted_runs import SortedRun
from sensegate.quantities.quality import Flag
from tests.persist.rig import CHANNEL, NONE, NOW, SUPPRESS, TEXT, TIME, Rig, Row, Sent, delivery, no_fields


def sent_reading(
    value: float = 21.5, minute: int = 0, *, device: int = 0, spec: int = TIME, payload: bytes = b"x"
) -> Sent:
    """Return a message of one value."""
    time = NOW + minute * 60_000_000
    return Sent((Row(spec, value, time, device=device),), payload, received=time)


async def finished(rig: Rig, task: asyncio.Task[object], seconds: float = 10.0) -> None:
    """Let the clock run until a task is done, at most so long."""
    for _ in range(round(seconds * 10)):
        await asyncio.sleep(0)
        if task.done():
            break
        await rig.clock.advance(0.1)
    await task


async def record(log: MemoryLog) -> CommitRecord:
    """Return the last commit record."""
    last = await log.last("commit.4401-0")
    assert last
    return decode_commit(last.payload)


async def test_a_commit_holds_everything_of_its_span(tmp_path: Path) -> None:
    """Messages, readings by city and grade, quarantine, counts and position are one batch, in the log's subjects."""
    rig = Rig(tmp_path)
    assert await rig.open() == {}
    sent = [
        sent_reading(device=0),
        sent_reading(device=1, payload=b"y"),
        sent_reading("open", spec=TEXT, payload=b"z"),  # type: ignore[arg-type]
        Sent((), b"bad"),
    ]
    await rig.commit(sent, quarantined=[Quarantined(3, QuarantineReason.SCHEMA, "no values", device=2)])
    entries = await rig.log.fetch(0)
    assert [entry.subject for entry in entries] == [
        "raw.4401-0",
        "readings.4401.own.1",
        "readings.4401.own.2",
        "quarantine.4401-0",
        "ledger.4401-0",
        "commit.4401-0",
    ]
    assert [message.payload for message, _ in raw.decode(entries[0].payload)] == [b"x", b"y", b"z"]
    assert [
        (kept.message.payload, kept.reason, kept.device) for kept in raw.decode_quarantined(entries[3].payload)
    ] == [(b"bad", "schema", "dev-2")]
    last = await record(rig.log)
    assert (last.number, last.positions, last.profiles) == (1, {"mqtt": SourcePosition("life", 4)}, {"acme/th10": 3})
    assert last.totals == {"messages": 4, "decoded": 3, "quarantined.schema": 1, "values": 3, "accepted": 3}
    assert sum((await rig.shown()).values()) == 3


async def test_each_reading_says_where_it_comes_from(tmp_path: Path) -> None:
    """A batch names device, division, profile and channel of its readings."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([Sent((Row(TIME, 1.0, NOW), Row(CHANNEL, 2.0, NOW)), b"x")])
    (batch,) = await rig.batches()
    assert batch.variables() == [("air_temperature", ""), ("air_temperature", "2")]
    assert batch.value.tolist() == [1.0, 2.0]
    assert (batch.origins.device, batch.origins.division.tolist()) == (["dev-0"], ["440103"])
    assert batch.origins.profile.tolist() == ["acme/th10@3"]
    assert batch.record_id(1).startswith("4401-0-0000000000000")


async def test_restart_resumes_position_number_and_totals(tmp_path: Path) -> None:
    """A new process continues where the log says, with sums that go on."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    await rig.commit([sent_reading(2.0, 1)])
    assert await rig.restart() == {"mqtt": SourcePosition("life", 2)}
    await rig.commit([sent_reading(3.0, 2)])
    last = await record(rig.log)
    assert (last.number, last.totals["accepted"], last.positions["mqtt"].sequence) == (3, 3, 3)


async def test_sources_keep_their_own_positions(tmp_path: Path) -> None:
    """A commit moves the positions of its own sources only; counts stand by source."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    await rig.commit([sent_reading(2.0, 1)], source="external:north")
    last = await record(rig.log)
    assert last.positions == {"mqtt": SourcePosition("life", 1), "external:north": SourcePosition("life", 2)}
    rows = [(row.source, row.count) for row in (await rig.ledger()).rows() if row.kind == "messages"]
    assert sorted(rows) == [("external:north", 1), ("mqtt", 1)]


@pytest.mark.parametrize("written", [True, False])
async def test_an_unknown_outcome_is_looked_up(tmp_path: Path, written: bool) -> None:  # noqa: FBT001
    """After a lost answer the last commit is read: what is there is not written again, what is not there is."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    pending = rig.prepare([sent_reading(2.0, 1)])
    rig.log.fail_next_write(written=written)
    task = asyncio.create_task(rig.committer.write(pending))
    await finished(rig, task)
    assert (await record(rig.log)).number == 2
    assert set((await rig.shown()).values()) == {1}
    await rig.commit([sent_reading(3.0, 2)])


async def test_a_late_success_is_not_a_fence(tmp_path: Path) -> None:
    """A first attempt that lands after we looked fences the second: that was ourselves."""

    class Slow(MemoryLog):
        held: list[LogMessage] | None = None

        async def write(self, members: list[LogMessage]) -> int:  # type: ignore[override]
            if self.held is None:
                self.held = members
                raise Unavailable("no answer yet")
            if self.held:
                first, self.held = self.held, []
                await super().write(first)
            return await super().write(members)

    rig = Rig(tmp_path, log=Slow())
    await rig.open()
    task = asyncio.create_task(rig.committer.write(rig.prepare([sent_reading(1.0)])))
    await finished(rig, task)
    assert set((await rig.shown()).values()) == {1}
    assert (await record(rig.log)).number == 1


async def test_a_silent_log_gives_up_in_bounded_time(tmp_path: Path) -> None:
    """Where the log never answers, Unavailable goes up; nothing is prepared until the committer is opened again."""

    class Dead(MemoryLog):
        dead = False

        async def write(self, members: list[LogMessage]) -> int:  # type: ignore[override]
            if self.dead:
                raise Unavailable("no answer")
            return await super().write(members)

    log = Dead()
    rig = Rig(tmp_path, log=log)
    await rig.open()
    log.dead = True
    task = asyncio.create_task(rig.committer.write(rig.prepare([sent_reading(1.0)])))
    with pytest.raises(Unavailable):
        await finished(rig, task, RETRY_S + 5)
    with pytest.raises(Unavailable, match="delivered again"):
        rig.prepare([sent_reading(1.0)])
    log.dead = False
    await rig.open()
    rig.sequence = 0
    await rig.commit([sent_reading(1.0)])
    assert set((await rig.shown()).values()) == {1}


async def test_a_full_log_holds_back_and_goes_on(tmp_path: Path) -> None:
    """While the log is full the commit waits; when there is room it is written, once."""

    class Full(MemoryLog):
        full = True

        async def write(self, members: list[LogMessage]) -> int:  # type: ignore[override]
            if self.full:
                raise StoreFull("no room")
            return await super().write(members)

    log = Full()
    rig = Rig(tmp_path, log=log)
    await rig.open()
    task = asyncio.create_task(rig.committer.write(rig.prepare([sent_reading(1.0)])))
    for _ in range(200):
        await asyncio.sleep(0)
        await rig.clock.advance(1.0)
    assert not task.done()
    log.full = False
    await rig.clock.advance(1.0)
    await task
    assert set((await rig.shown()).values()) == {1}
    last = await log.last("commit.4401-0")
    assert last is not None
    waited = rig.clock.now() - decode_commit(last.payload).committed_at
    assert waited <= 1_000_000, "the wait is no error of the own clock"


async def test_a_cancelled_commit_must_be_opened_again(tmp_path: Path) -> None:
    """A state that is ahead of the log is not judged with: prepare refuses until `open`."""
    rig = Rig(tmp_path)
    await rig.open()
    pending = rig.prepare([sent_reading(1.0)])
    task = asyncio.create_task(rig.committer.write(pending))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(Unavailable):
        rig.prepare([sent_reading(2.0)])
    await rig.open()
    with pytest.raises(Fenced, match="delivered again"):
        await rig.committer.write(pending)


async def test_the_next_span_is_prepared_while_the_last_is_written(tmp_path: Path) -> None:
    """Two spans in the making are judged in turn; checkpoints between them are valid to the right commit."""
    rig = Rig(tmp_path)
    await rig.open()
    for minute in range(0, 40, 2):
        rig.clock._now += 31_000_000
        first = rig.prepare([sent_reading(1.0, minute)])
        second = rig.prepare([sent_reading(1.0, minute), sent_reading(2.0, minute + 1)])
        await rig.committer.write(first)
        await rig.committer.write(second)
        assert second.accepted.tolist() == [False, True]
        rig.duplicates.wait_idle()
        if minute % 6 == 0:
            before = rig.duplicates.watermarks()
            await rig.restart()
            assert rig.duplicates.watermarks() == before
    assert set((await rig.shown()).values()) == {1}
    assert len(await rig.shown()) == 40


async def test_a_replaced_worker_is_fenced(tmp_path: Path) -> None:
    """A worker that another has followed writes nothing more."""
    rig = Rig(tmp_path / "a")
    await rig.open()
    stale = rig.committer
    pending = rig.prepare([sent_reading(1.0)])
    other = Rig(tmp_path / "b", log=rig.log)
    await other.open()
    await other.commit([sent_reading(1.0)])
    with pytest.raises(Fenced):
        await stale.write(pending)
    assert set((await other.shown()).values()) == {1}


async def test_a_checkpoint_that_cannot_be_written_stops_the_intake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room for the index raises StoreFull before anything is judged without it; then all goes on."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    rig.clock._now += 31_000_000
    plain = CheckpointStore.save

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CheckpointStore, "save", full)
    await rig.commit([sent_reading(2.0, 1)])
    rig.clock._now += 31_000_000
    with pytest.raises(OSError, match="No space"):
        rig.duplicates._index._job.result()  # type: ignore[union-attr]
    with pytest.raises(StoreFull, match="deduplication index"):
        rig.prepare([sent_reading(1.0)])
    with pytest.raises(Unavailable):
        rig.prepare([sent_reading(1.0)])
    monkeypatch.setattr(CheckpointStore, "save", plain)
    await rig.open()
    repeated = await rig.commit([sent_reading(1.0), sent_reading(2.0, 1), sent_reading(3.0, 9)])
    assert repeated.accepted.tolist() == [False, False, True]


async def test_what_a_torn_batch_left_is_not_doubled(tmp_path: Path) -> None:
    """Readings on the log without their commit record (a full disk) are known when their message comes again."""
    rig = Rig(tmp_path)
    await rig.open()
    pending = rig.prepare([sent_reading(1.0), sent_reading(2.0, 1)])
    await rig.log.write(pending.messages[:-1])
    assert await rig.restart() == {}
    rig.sequence = 0
    rig.clock._now += 31_000_000
    await rig.commit([sent_reading(1.0), sent_reading(2.0, 1)])
    rig.duplicates.wait_idle()
    assert rig.duplicates.checkpoint > 0
    await rig.restart()
    repeated = await rig.commit([sent_reading(1.0), sent_reading(3.0, 1)])
    assert repeated.accepted.tolist() == [False, True]
    assert repeated.results[0].revision.tolist() == [0, 1]
    assert set((await rig.shown()).values()) == {1}


async def test_a_log_that_has_lost_its_end_gives_no_sequence_again(tmp_path: Path) -> None:
    """After a power cut, or with an older copy: what was lost is no duplicate, and its places stay empty."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    rig.log, older = rig.log.copy(), rig.log
    rig.committer._log = rig.log
    await rig.commit([sent_reading(2.0, 1)])
    rig.clock._now += 31_000_000
    await rig.commit([sent_reading(3.0, 2)])
    rig.duplicates.wait_idle()
    reached = rig.duplicates.checkpoint
    assert reached > (await older.bounds())[1]
    rig.log = older
    assert await rig.restart() == {"mqtt": SourcePosition("life", 1)}
    repeated = await rig.commit([sent_reading(1.0), sent_reading(2.0, 1)])
    assert repeated.accepted.tolist() == [False, True]
    entries = await rig.log.fetch(0, limit=50_000)
    new = [entry.sequence for entry in entries if entry.subject.startswith("readings.")][1:]
    assert min(new) > reached
    end = (await rig.log.bounds())[1]
    await rig.restart()
    assert (await rig.log.bounds())[1] == end
    assert set((await rig.shown()).values()) == {1}


async def test_a_lost_end_is_noticed_where_nodes_write_on(tmp_path: Path) -> None:
    """At a centre they are there before us: the log reaches further than the index, but not with commits of ours."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    rig.log, older = rig.log.copy(), rig.log
    rig.committer._log = rig.log
    await rig.commit([sent_reading(2.0, 1)])
    rig.clock._now += 31_000_000
    await rig.commit([sent_reading(3.0, 2)])
    rig.duplicates.wait_idle()
    for _ in range(20):
        await older.write([LogMessage("ledger.4403", b"of a node", 1)])
    assert (await older.bounds())[1] > rig.duplicates.checkpoint
    rig.log = older
    rig.start()
    rig.committer._sole_writer = False
    await rig.open()
    repeated = rig.prepare([sent_reading(1.0), sent_reading(2.0, 1), sent_reading(3.0, 2)])
    assert repeated.accepted.tolist() == [False, True, True]


async def lost_behind(directory: Path) -> list[bool]:
    """Return what is kept of messages that come again, of which the log has lost the last; it says it is as long."""
    rig = Rig(directory)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    await rig.commit([sent_reading(2.0, 1)])
    rig.clock._now += 31_000_000
    await rig.commit([sent_reading(3.0, 2)])
    rig.duplicates.wait_idle()
    first, end = (entry.sequence for entry in (await rig.log.fetch(0))[:: len(await rig.log.fetch(0)) - 1])
    assert rig.duplicates.checkpoint > first
    rig.log._drop(set(range(first + 4, end + 1)))
    assert (await rig.log.bounds())[1] == end
    await rig.restart()
    return [
        bool(kept)
        for kept in rig.prepare([sent_reading(1.0), sent_reading(2.0, 1), sent_reading(3.0, 2)]).accepted.tolist()
    ]


async def test_what_the_log_lost_without_telling_is_taken_again(tmp_path: Path) -> None:
    """A server whose last blocks are damaged says that the log is as long as it was: the index is held against it."""
    assert await lost_behind(tmp_path) == [False, True, True]


async def test_control_an_index_that_is_believed_drops_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the same, but that the witness of the index is not looked for."""

    async def always(_self: Committer, _sequence: int) -> bool:
        return True

    monkeypatch.setattr(Committer, "_log_contains", always)
    assert await lost_behind(tmp_path) == [False, False, True]


async def altered(directory: Path) -> list[bool]:
    """Return what is kept of messages that come again, after each row of the index on the disk was altered."""
    rig = Rig(directory)
    await rig.open()
    sent = [sent_reading(float(number), number) for number in range(20)]
    await rig.commit(sent)
    rig.clock._now += 31_000_000
    await rig.commit([sent_reading(99.0, 99)])
    rig.duplicates.wait_idle()
    (run,) = directory.glob("run-*")
    raw = bytearray(run.read_bytes())
    rows = SortedRun(run).header.rows
    raw[-28 * rows : -20 * rows] = bytes(8 * rows)
    run.write_bytes(raw)
    await rig.restart()
    return [bool(kept) for kept in rig.prepare(sent).accepted.tolist()]


async def test_altered_rows_of_the_index_double_nothing(tmp_path: Path) -> None:
    """The file is set aside, the index is built again from the log."""
    assert not any(await altered(tmp_path))
    assert (tmp_path / "damaged.run").exists()


async def test_control_without_checksums_altered_rows_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the same, but that the file is not checked."""
    monkeypatch.setattr(SortedRun, "verify", lambda _self: None)
    assert all(await altered(tmp_path))


async def test_an_index_that_is_spoiled_is_built_again_before_anything_is_judged(tmp_path: Path) -> None:
    """What a scrub finds in a running gateway: nothing more is judged by it, the messages come again."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit([sent_reading(1.0)])
    rig.duplicates.request_rebuild("it differs from the log")
    with pytest.raises(Unavailable, match="differs"):
        rig.prepare([sent_reading(2.0, 1)])
    rig.sequence = 1
    await rig.open()
    assert rig.duplicates.damage == "it differs from the log"
    assert rig.prepare([sent_reading(1.0), sent_reading(2.0, 1)]).accepted.tolist() == [False, True]


async def test_an_index_built_from_a_log_that_keeps_less_vouches_for_no_more(tmp_path: Path) -> None:
    """With a shorter life of readings than the horizon what may have been there and gone is marked as not judged."""
    rig = Rig(tmp_path, limits=CommitLimits(readings_ttl_h=6))
    await rig.open()
    hour = 60
    young, old = (
        (await rig.commit([sent_reading(1.0, -5 * hour), sent_reading(2.0, -8 * hour)])).results[0].flags.tolist()
    )
    assert (young & int(Flag.NOT_DEDUPLICATED), old & int(Flag.NOT_DEDUPLICATED)) == (0, int(Flag.NOT_DEDUPLICATED))


async def test_control_without_leaving_out_sequences_are_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the same, but for the places that are left out."""

    async def nothing(_log: object, last: int, _until: int) -> int:
        return last

    monkeypatch.setattr("sensegate.persist.commit.pad", nothing)
    with pytest.raises(AssertionError):
        await test_a_log_that_has_lost_its_end_gives_no_sequence_again(tmp_path)


async def test_a_clock_that_was_far_ahead_spoils_the_judgement_of_one_hour_only(tmp_path: Path) -> None:
    """While it is ahead all is judged by it; back again, the readings of the next hour are."""
    rig = Rig(tmp_path)
    await rig.open()
    year = 365 * 24 * 3_600_000_000
    rig.clock._now = NOW + year
    await rig.commit([Sent((Row(TIME, 1.0, NOW + year),), b"ahead", received=NOW + year)])
    rig.clock._now += 31_000_000
    await rig.commit([Sent((Row(TIME, 1.0, NOW + year + 1),), b"ahead too", received=rig.clock.now())])
    rig.duplicates.wait_idle()
    rig.clock._now = NOW
    back = await rig.commit([Sent((Row(TIME, 2.0, NOW),), b"back")])
    assert back.results[0].flags[0] & int(Flag.NOT_DEDUPLICATED)
    rig.clock._now = NOW + 2 * 3_600_000_000
    sent = Sent((Row(TIME, 3.0, rig.clock.now()),), b"later", received=rig.clock.now())
    later = await rig.commit([sent])
    assert not later.results[0].flags[0] & int(Flag.NOT_DEDUPLICATED)
    assert (await rig.commit([sent])).accepted.tolist() == [False]


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_clock_that_was_far_ahead_makes_no_later_reading_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, restarts: bool
) -> None:
    """Readings that bore the time of arrival then are no measure of what is in order, nor of what has changed."""
    structlog.reset_defaults()  # a gateway of another test may have set a level
    monkeypatch.setattr(duplicates_module, "_log", structlog.get_logger("persist"))
    rig = Rig(tmp_path)
    await rig.open()
    year = 365 * 24 * 3_600_000_000
    rig.clock._now = NOW + year
    await rig.commit([Sent((Row(SUPPRESS, 1.0, NOW + year),), b"ahead", received=NOW + year)])
    rig.clock._now += 31_000_000
    await rig.commit([Sent((Row(SUPPRESS, 1.0, NOW + year + 1),), b"ahead too", received=rig.clock.now())])
    rig.duplicates.wait_idle()
    if restarts:
        await rig.restart()
    kinds, flags = [], []
    with structlog.testing.capture_logs() as lines:
        for minute in (0, 1, 120, 121, 122):
            now = rig.clock._now = NOW + minute * 60_000_000
            back = await rig.commit([Sent((Row(SUPPRESS, 1.0, now),), b"back %d" % minute, received=now)])
            kinds.append(int(back.results[0].kind[0]))
            flags.append(int(back.results[0].flags[0]) & int(Flag.LATE))
    assert kinds[2:] == [ACCEPTED, UNCHANGED, UNCHANGED]
    assert flags[2:] == [0, 0, 0]
    assert len([line for line in lines if "far ahead" in line["event"]]) == 1


async def test_suppressed_values_are_counted_and_not_shown(tmp_path: Path) -> None:
    """Report by exception: unchanged values are seen, counted, remembered over a restart, and not readings."""
    rig = Rig(tmp_path)
    await rig.open()
    await rig.commit(
        [sent_reading(2.0, 0, spec=SUPPRESS), sent_reading(2.1, 1, spec=SUPPRESS), sent_reading(3.0, 2, spec=SUPPRESS)]
    )
    await rig.restart()
    pending = await rig.commit(
        [sent_reading(2.1, 1, spec=SUPPRESS), sent_reading(3.2, 3, spec=SUPPRESS), sent_reading(3.2, 14, spec=SUPPRESS)]
    )
    assert (await rig.ledger()).totals() == {
        "messages": 6,
        "decoded": 6,
        "values": 6,
        "accepted": 3,
        "suppressed.unchanged": 2,
        "duplicate.redelivery": 1,
    }
    assert pending.results[0].flags[2] & Flag.HEARTBEAT
    assert len(await rig.shown()) == 3


async def test_the_ledger_names_device_source_and_hour(tmp_path: Path) -> None:
    """Each message and value is counted under its device, source and hour of arrival."""
    rig = Rig(tmp_path)
    await rig.open()
    early = sent_reading(1.0, -60, device=1)
    lost = RejectedValue(2, RejectReason.WRONG_TYPE, device=2)
    await rig.commit(
        [early, sent_reading(2.0, 1, device=1), Sent((), b"q"), Sent((), b"u")],
        quarantined=[Quarantined(3, QuarantineReason.UNKNOWN_DEVICE)],
        rejected=[lost],
    )
    hour = NOW // HOUR_US
    counts = {(row.hour, row.device, row.kind): row.count for row in (await rig.ledger()).rows()}
    assert counts == {
        (hour - 1, "dev-1", "messages"): 1,
        (hour - 1, "dev-1", "decoded"): 1,
        (hour - 1, "dev-1", "values"): 1,
        (hour - 1, "dev-1", "accepted"): 1,
        (hour, "dev-1", "messages"): 1,
        (hour, "dev-1", "decoded"): 1,
        (hour, "dev-1", "values"): 1,
        (hour, "dev-1", "accepted"): 1,
        (hour, "dev-2", "messages"): 1,
        (hour, "dev-2", "decoded"): 1,
        (hour, "dev-2", "values"): 1,
        (hour, "dev-2", "rejected.wrong_type"): 1,
        (hour, "", "messages"): 1,
        (hour, "", "quarantined.unknown_device"): 1,
    }


async def test_counts_that_do_not_add_up_are_not_written(tmp_path: Path) -> None:
    """A value that vanished between decode and normalise fails the commit loudly; nothing enters the log."""
    rig = Rig(tmp_path)
    await rig.open()
    messages, fields, _ = rig.readings([sent_reading(1.0), sent_reading(2.0, 1)])
    _, _, fewer = rig.readings([sent_reading(1.0)])
    with pytest.raises(Unbalanced, match="values of device 'dev-0'"):
        rig.committer.prepare([delivery(messages)], fields, fewer)
    assert await rig.log.fetch(0) == []


async def test_a_span_too_large_goes_into_several_commits(tmp_path: Path) -> None:
    """Each commit of a cut span has the position of its own last message; verdicts stay in order."""
    rig = Rig(tmp_path, limits=CommitLimits(commit_bytes_max=30))
    await rig.open()
    sent = [sent_reading(float(n), n // 2, payload=bytes([n]) * 10) for n in range(10)]
    pending = await rig.commit(sent)
    assert len(pending.commits) == 4
    assert [part.positions["mqtt"].sequence for part in pending.commits] == [3, 6, 9, 10]
    assert len(pending.accepted) == 10
    last = await record(rig.log)
    assert (last.number, last.totals["messages"], last.totals["conflict"]) == (4, 10, 5)
    assert sum((await rig.shown()).values()) == 10


async def test_members_stay_below_the_largest_message(tmp_path: Path) -> None:
    """Raw, quarantine and readings are cut so that no member is larger than the log takes; nothing is lost by it."""
    random = np.random.default_rng(1)
    limits = CommitLimits(message_bytes_max=4_000)
    rig = Rig(tmp_path, limits=limits, devices=300)
    await rig.open()
    sent = [
        Sent(
            tuple(Row(TIME, float(random.random()), NOW + n, device=n % 300) for n in range(k * 20, k * 20 + 20)),
            random.bytes(300),
        )
        for k in range(60)
    ]
    huge = random.bytes(30_000)
    sent.append(Sent((), huge))
    await rig.commit(sent, quarantined=[Quarantined(60, QuarantineReason.TOO_LARGE)])
    entries = await rig.log.fetch(0)
    assert all(len(entry.payload) <= 4_000 for entry in entries if not entry.subject.startswith(("ledger", "commit")))
    assert sum((await rig.shown()).values()) == 1_200
    kept = [
        stored
        for entry in entries
        if entry.subject.startswith("quarantine")
        for stored in raw.decode_quarantined(entry.payload)
    ]
    assert len(kept) > 1
    assert [whole.message.payload for whole in raw.join_pieces(kept)] == [huge]
    stored = [
        message for entry in entries if entry.subject.startswith("raw") for message, _ in raw.decode(entry.payload)
    ]
    assert [message.payload for message in stored] == [part.payload for part in sent[:-1]]


async def test_an_empty_span_and_one_of_quarantine_only(tmp_path: Path) -> None:
    """A span without readings is a commit all the same: its position moves."""
    rig = Rig(tmp_path)
    await rig.open()
    message = Message("a/b", b"?", NOW, 1)
    fields = no_fields(quarantined=[Quarantined(0, QuarantineReason.MALFORMED)])
    _, _, readings = rig.readings([])
    await rig.committer.write(rig.committer.prepare([delivery([message])], fields, readings))
    assert (await record(rig.log)).positions == {"mqtt": SourcePosition("life", 1)}


def test_the_record_is_read_by_any_client() -> None:
    """The commit record is JSON, and damage is a ValueError."""
    made = CommitRecord("b", 3, NOW, {"mqtt": SourcePosition("l", 9)}, {"messages": 4}, {"acme/th10": 3}, 17)
    assert decode_commit(encode_commit(made)) == made
    assert msgspec.json.decode(encode_commit(made))["positions"]["mqtt"]["sequence"] == 9
    with pytest.raises(ValueError, match="commit record"):
        decode_commit(b"{}")


async def test_on_the_real_log(log: JetStreamLog, tmp_path: Path) -> None:
    """The same on nats-server: atomic, fenced, read back, resumed."""
    clock = FakeClock(NOW)
    rig = Rig(tmp_path, log=log, clock=clock)  # type: ignore[arg-type]
    assert await rig.open() == {}
    sent = [
        sent_reading(1.0),
        sent_reading("open", spec=TEXT, payload=b"y"),  # type: ignore[arg-type]
        sent_reading(2.0, spec=NONE),
        sent_reading(1.0, payload=b"other"),
    ]
    await rig.commit(sent)
    await rig.commit([sent_reading(5.0, spec=SUPPRESS), sent_reading(5.0, 1, spec=SUPPRESS)])
    assert await rig.restart() == {"mqtt": SourcePosition("life", 6)}
    repeated = await rig.commit([sent_reading(1.0), sent_reading(5.0, 1, spec=SUPPRESS), sent_reading(7.0, 3)])
    assert repeated.accepted.tolist() == [False, False, True]
    stale = rig.committer
    pending = rig.prepare([sent_reading(8.0, 4)])
    other = Rig(tmp_path / "other", log=log, clock=clock)  # type: ignore[arg-type]
    await other.open()
    await other.commit([sent_reading(9.0, 5)])
    with pytest.raises(Fenced):
        await stale.write(pending)
    assert set((await other.shown()).values()) == {1}
    (await other.ledger()).check()
    assert isinstance(await other.ledger(), Ledger)
    assert isinstance(stale, Committer)
