"""The copy of a standby: the same sequences whatever expired or was replaced, whole commits, and no more delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus import streams, timelines
from sensegate.bus.contract import Log
from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.bus.memory import MemoryLog
from sensegate.bus.names import PADDING_SUBJECT
from sensegate.bus.timelines import Timelines
from sensegate.clock import FakeClock, SystemClock
from sensegate.config import EngineConfig, StoreConfig
from sensegate.errors import Fenced, Unavailable
from sensegate.failover import replica
from sensegate.failover.replica import Replica, ReplicatedLog, ReplicationSource, decode_log_request
from sensegate.failover.terms import Term
from sensegate.model import LogMessage

Ask = Callable[[str, bytes], Awaitable[bytes]]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """An original at the end of its log does not wait long for more."""
    monkeypatch.setattr(replica, "WAIT_S", 0.001)


def asks(original: ReplicationSource) -> Ask:
    """Return the way to an original."""

    async def ask(subject: str, payload: bytes) -> bytes:
        assert subject == "log"
        return await original.answer_log(decode_log_request(payload))

    return ask


async def contents(log: Log) -> list[tuple[int, str, bytes]]:
    """Return what a log holds, without fillers."""
    entries = await log.fetch(0, limit=10_000, max_bytes=2**40)
    return [
        (record.sequence, record.subject, record.payload) for record in entries if record.subject != PADDING_SUBJECT
    ]


def commit(number: int, size: int, lane: str = "a") -> list[LogMessage]:
    """Return a commit whose record replaces the one before."""
    rows = [LogMessage(f"readings.4401.440106.{at % 3}", f"{number}/{at}".encode()) for at in range(size)]
    return [*rows, LogMessage(f"commit.44.{lane}", str(number).encode(), rollup=True)]


async def caught_up(copy: Replica, ask: Ask) -> None:
    """Turn until all is there."""
    await copy.copy_next(ask)
    while copy.behind != 0:
        await copy.copy_next(ask)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc"), st.booleans()), min_size=1, max_size=30))
async def test_the_same_sequences(commits: list[tuple[int, str, bool]]) -> None:
    """Holes are filled, whenever the standby reads; the copy never ends within a commit; it is confirmed."""
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    original = ReplicationSource(source, clock, 5.0)
    copy, ask = Replica(own, StoreConfig(), clock), asks(original)
    for number, (size, lane, reads) in enumerate(commits):
        await source.write(commit(number, size, lane))
        if reads:
            await copy.copy_next(ask)
            last = await contents(own)
            assert not last or last[-1][1].startswith("commit.")
    await caught_up(copy, ask)
    assert await contents(own) == await contents(source)
    await copy.copy_next(ask)
    assert original.confirmed == (await source.bounds())[1]


async def test_a_commit_larger_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written when its end has come, and not before."""
    monkeypatch.setattr(replica, "CHUNK_ENTRIES", 4)
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    await source.write(commit(1, 9))
    await copy.copy_next(ask)
    await copy.copy_next(ask)
    assert await contents(own) == []
    await copy.copy_next(ask)
    assert await contents(own) == await contents(source)


def alarm(number: int) -> list[LogMessage]:
    """Return a write of alarms: an event, the state after it, and the position, both in place of those before."""
    event = LogMessage("alarms.4401.own.2", str(number).encode())
    states = (LogMessage(f"alarm.44-0.{name}", str(number).encode(), rollup=True) for name in ("a", "position"))
    return [event, *states]


async def test_states_of_alarms_replace_those_before() -> None:
    """The copy does not keep each state that an alarm ever had; what no commit follows is copied, too, and awaited."""
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    original = ReplicationSource(source, clock, 5.0)
    copy, ask = Replica(own, StoreConfig(), clock), asks(original)
    await source.write(commit(1, 2))
    await copy.copy_next(ask)
    for number in range(4):
        await source.write(alarm(number))
        await copy.copy_next(ask)
        assert await contents(own) == await contents(source)
    await copy.copy_next(ask)
    assert original.confirmed == (await source.bounds())[1]


async def test_lifetimes_are_those_of_the_original() -> None:
    """What expires there expires here, within an hour: also what was copied late, or follows from no setting."""
    clock = FakeClock()
    source, own = MemoryLog(clock), MemoryLog(clock)
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    await source.write([LogMessage("readings.4401.own.2", b"old", 168), *commit(1, 1)])
    await clock.advance(100 * 3_600 + 1_800)
    await source.write([LogMessage("seen.44-0", b"", 27), LogMessage(PADDING_SUBJECT, b"", 1)])
    await source.write(
        [LogMessage("alarm.44-0.open", b"o", rollup=True), LogMessage("alarm.44-0.b", b"c", 720, rollup=True)]
    )
    await source.write(
        [LogMessage("refused.4401.x", b"first", 720, True), LogMessage("commit.44.b", b"1", rollup=True)]
    )
    await caught_up(copy, ask)
    await source.write([LogMessage("refused.4401.x", b"", 1, True), LogMessage("commit.44.b", b"2", rollup=True)])
    await caught_up(copy, ask)
    passed = 0
    for hours, left in ((0, 8), (2, 7), (29, 6), (69, 5), (722, 4)):
        await clock.advance((hours - passed) * 3_600)
        passed = hours
        assert await contents(own) == await contents(source), hours
        assert len(await contents(own)) == left, hours


async def test_a_log_whose_last_entries_have_expired_is_copied_to_its_end() -> None:
    """Else the standby would ask at once and without end, and its copy would never count as whole."""
    clock = FakeClock()
    source, own = MemoryLog(clock), MemoryLog(clock)
    original = ReplicationSource(source, clock, 5.0, unreplicated=True)
    copy, ask = Replica(own, StoreConfig(), clock), asks(original)
    await source.write(commit(1, 2))
    await source.write([LogMessage(PADDING_SUBJECT, b"", 1)] * 3)
    await clock.advance(2 * 3_600)
    for _ in range(4):
        await copy.copy_next(ask)
    assert (copy.behind, await own.bounds(), original.confirmed) == (0, (1, 6), 6)
    assert not original.unreplicated
    await source.write(commit(2, 2))
    await copy.copy_next(ask)
    assert await contents(own) == await contents(source)


async def test_a_write_that_ends_in_no_record_is_copied_at_once() -> None:
    """Identities of a move, counts and tombstones wait for no commit, which may not come for a long time."""
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    original = ReplicationSource(source, clock, 5.0)
    copy, ask = Replica(own, StoreConfig(), clock), asks(original)
    for subject in ("seen.44-0", "ledger.44-0", "refused.4401.x"):
        await source.write([LogMessage(subject, b"1", 27), LogMessage(subject, b"2", 27)])
        await copy.copy_next(ask)
        assert await contents(own) == await contents(source)
    await copy.copy_next(ask)
    assert original.confirmed == 6


class ObservedLog(MemoryLog):
    """A log whose content is known as it was after each write."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[int, list[tuple[int, str, bytes]]]] = []

    async def write(self, messages: Sequence[LogMessage]) -> int:
        last = await super().write(messages)
        self.states.append((last, await contents(self)))
        return last


WRITES = st.one_of(
    st.tuples(st.just("commit"), st.integers(0, 4), st.sampled_from("ab")),
    st.tuples(st.just("alarm"), st.integers(1, 2), st.sampled_from("ab")),
    st.tuples(st.just("seen"), st.integers(1, 3), st.just("")),
)


@given(st.lists(st.tuples(WRITES, st.integers(0, 2)), min_size=1, max_size=25), st.integers(1, 6))
async def test_at_each_moment_the_copy_is_the_log_of_an_earlier_moment(
    steps: list[tuple[tuple[str, int, str], int]], chunk: int
) -> None:
    """Whoever becomes active with it has each record with the rows that belong to it, and no row without its record."""
    source, own, clock = ObservedLog(), ObservedLog(), FakeClock()
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica, "CHUNK_ENTRIES", chunk)
        for number, ((kind, size, name), reads) in enumerate(steps):
            text = str(number).encode()
            if kind == "commit":
                await source.write(commit(number, size, name))
            elif kind == "alarm":
                states = [LogMessage(f"alarm.44-0.{name}{at}", text, rollup=True) for at in range(size)]
                await source.write([LogMessage("alarms.4401.own.2", text), *states])
            else:
                await source.write([LogMessage("seen.44-0", text)] * size)
            for _ in range(reads):
                await copy.copy_next(ask)
        await caught_up(copy, ask)
    assert await contents(own) == await contents(source)
    originals = dict(source.states)
    for last, content in own.states:
        assert content == originals.get(last)


@given(st.lists(st.tuples(WRITES, st.integers(0, 2)), min_size=1, max_size=25), st.integers(1, 30), st.integers(1, 9))
async def test_a_copy_that_is_written_in_parts_says_so_before(
    steps: list[tuple[tuple[str, int, str], int]], chunk: int, largest: int
) -> None:
    """Whatever an atomic write holds: after each, the copy is an earlier log, or its term on the disk says partial."""
    source, clock = ObservedLog(), FakeClock()
    on_disk = Term()
    states: list[tuple[bool, list[tuple[int, str, bytes]]]] = []

    class Own(MemoryLog):
        async def write(self, messages: Sequence[LogMessage]) -> int:
            assert len(messages) <= largest
            last = await super().write(messages)
            states.append((on_disk.partial, await contents(self)))
            return last

    own = Own()
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica, "CHUNK_ENTRIES", chunk)
        patch.setattr(replica, "BATCH_MESSAGES_MAX", largest)
        await source.write([LogMessage("seen.44-0", b"")])
        await caught_up(copy, ask)
        on_disk = copy.term
        for number, ((kind, size, name), reads) in enumerate(steps):
            text = str(number).encode()
            if kind == "commit":
                await source.write(commit(number, size, name))
            else:
                await source.write([LogMessage("seen.44-0", text)] * size)
            for _ in range(reads):
                await copy.copy_next(ask)
                on_disk = copy.term
        for _ in range(200):
            await copy.copy_next(ask)
            on_disk = copy.term
            if copy.behind == 0:
                break
    assert (await contents(own), on_disk.partial) == (await contents(source), False)
    earlier = [content for _, content in source.states]
    for is_partial, content in states:
        assert is_partial or content in earlier


async def test_a_copy_that_lags_far_is_partial_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may end between two atomic writes, with the active centre gone: the copy is not promoted unasked."""
    monkeypatch.setattr(replica, "BATCH_MESSAGES_MAX", 8)
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    ask = asks(ReplicationSource(source, clock, 5.0))
    await source.write(commit(0, 3))
    copy = Replica(own, StoreConfig(), clock)
    await caught_up(copy, ask)
    for number in range(1, 8):  # all records but the last are replaced
        await source.write(commit(number, 3))
    await copy.copy_next(ask)
    assert (copy.term.partial, (await own.bounds())[1]) == (True, 4)
    await copy.copy_next(ask)
    assert (copy.term.partial, copy.behind) == (False, 0)
    assert await contents(own) == await contents(source)


async def test_rows_wait_for_the_record_that_replaced_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit of another lane between two of a lane ends no copy: the rows of the first would have no record."""
    monkeypatch.setattr(replica, "CHUNK_ENTRIES", 3)
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    for number, (size, lane) in enumerate(((2, "b"), (0, "a"), (2, "b"))):
        await source.write(commit(number, size, lane))
    await copy.copy_next(ask)
    assert await contents(own) == []
    await copy.copy_next(ask)
    assert await contents(own) == await contents(source)


async def test_the_states_of_one_write_of_alarms_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the copy takes up two states of an alarm at once."""
    source, own, clock = MemoryLog(), ObservedLog(), FakeClock()
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    monkeypatch.setattr(replica, "CHUNK_ENTRIES", 2)
    await source.write(alarm(1))
    await copy.copy_next(ask)
    monkeypatch.setattr(replica, "CHUNK_ENTRIES", 100)
    await source.write(alarm(2))
    await source.write(commit(1, 1))
    await caught_up(copy, ask)
    assert await contents(own) == await contents(source)
    assert [last for last, _ in own.states] == [8]


async def test_a_long_copy_is_written_before_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds little of it; until it is whole its term says so, also through a restart in between."""
    monkeypatch.setattr(replica, "CHUNK_ENTRIES", 4)
    monkeypatch.setattr(replica, "PENDING_BYTES_MAX", 200)
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    original = ReplicationSource(source, clock, 5.0)
    for number in range(40):  # all records but the last are replaced: no state before the last is whole
        await source.write(commit(number, 3))
    ask = asks(original)
    copy = Replica(own, StoreConfig(), clock)
    largest = 0
    for _ in range(20):
        await copy.copy_next(ask)
        largest = max(largest, copy._open_bytes)
    assert (copy.term.partial, copy.behind > 0, largest < 400) == (True, True, True)
    assert (await own.bounds())[1] > 20
    copy = Replica(own, StoreConfig(), clock, copy.term)
    while copy.term.partial:
        assert (await own.bounds())[1] < (await source.bounds())[1]
        await copy.copy_next(ask)
    assert await contents(own) == await contents(source)


async def test_a_whole_copy_stays_whole_while_it_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The centre may take over by itself at each moment, and its term is not stored again for each chunk."""
    monkeypatch.setattr(replica, "CHUNK_ENTRIES", 2)
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    original = ReplicationSource(source, clock, 5.0)
    await source.write(commit(0, 3))
    ask, copy = asks(original), Replica(own, StoreConfig(), clock)
    await caught_up(copy, ask)
    term = copy.term
    assert not term.partial
    await source.write(commit(1, 3))
    await copy.copy_next(ask)
    assert (copy.behind, copy.term is term) == (4, True)


async def test_a_copy_that_lags_is_partial_only_where_it_waits_for_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its term says so before anything is written that is not whole."""
    monkeypatch.setattr(replica, "CHUNK_ENTRIES", 4)
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    original = ReplicationSource(source, clock, 5.0)
    await source.write(commit(0, 3))
    ask, copy = asks(original), Replica(own, StoreConfig(), clock)
    await caught_up(copy, ask)
    assert not copy.term.partial
    for number in range(1, 30):
        await source.write(commit(number, 3))
    monkeypatch.setattr(replica, "PENDING_BYTES_MAX", 200)
    while not copy.term.partial:
        await copy.copy_next(ask)
        assert (await own.bounds())[1] == 4
    await caught_up(copy, ask)
    assert await contents(own) == await contents(source)
    assert not copy.term.partial


async def test_a_copy_that_takes_over_ends_whole_and_takes_no_more() -> None:
    """The term begins after what was being written, and nothing of the last term comes behind its beginning."""
    source, clock = MemoryLog(), FakeClock()
    begun, resumed = asyncio.Event(), asyncio.Event()

    class SlowLog(MemoryLog):
        async def write(self, messages: Sequence[LogMessage]) -> int:
            begun.set()
            await resumed.wait()
            return await super().write(messages)

    own = SlowLog()
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    await source.write(commit(1, 2))
    copying = asyncio.create_task(caught_up(copy, ask))
    await begun.wait()
    sealing = asyncio.create_task(copy.seal())
    await asyncio.sleep(0)
    resumed.set()
    assert await sealing == 3
    await copying
    await source.write(commit(2, 2))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await copy.copy_next(ask)
    assert await own.bounds() == (1, 3)


async def test_a_centre_of_an_earlier_version_is_copied_by_its_subjects() -> None:
    """It sends neither lifetimes nor ends of writes: they follow from the settings of this centre."""
    clock = FakeClock()
    source, own = MemoryLog(clock), MemoryLog(clock)
    original = ReplicationSource(source, clock, 5.0)

    async def ask(_subject: str, payload: bytes) -> bytes:
        chunk = msgspec.msgpack.decode(await original.answer_log(decode_log_request(payload)))
        chunk["entries"] = [entry[:3] for entry in chunk["entries"]]
        return msgspec.msgpack.encode(chunk)

    copy = Replica(own, StoreConfig(), clock)
    for number in range(3):
        await source.write(commit(number, 2))
        await source.write(alarm(number))
        await caught_up(copy, ask)
        assert await contents(own) == await contents(source)
    await clock.advance(169 * 3_600)
    subjects = [subject for _, subject, _ in await contents(own)]
    assert subjects == ["commit.44.a", "alarm.44-0.a", "alarm.44-0.position"]


async def test_a_standby_with_an_open_commit_is_held_until_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standby holds a part of a commit in memory; an empty answer would make it ask again at once."""
    source, clock = MemoryLog(), FakeClock()
    await source.write([LogMessage("readings.4401.own.2", b"")])
    held: list[int] = []

    async def changed(after: int, _timeout_s: float) -> bool:
        held.append(after)
        return False

    monkeypatch.setattr(source, "changed", changed)
    copy, ask = Replica(MemoryLog(), StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    for _ in range(3):
        await copy.copy_next(ask)
    assert held == [1, 1]


async def test_an_unknown_outcome_is_looked_up() -> None:
    """Written or not: nothing is missing, nothing twice."""
    for written in (True, False):
        source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
        copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
        await source.write(commit(1, 3))
        own.fail_next_write(written=written)
        with pytest.raises(Unavailable):
            await copy.copy_next(ask)
        await caught_up(copy, ask)
        assert await contents(own) == await contents(source)


async def test_timelines_come_before_what_was_written_on_them(tmp_path: Path) -> None:
    """A standby knows at each moment all timelines of what it holds, and takes over what the active centre has lost."""
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    own.timelines = Timelines.open(tmp_path, "memory")
    copy, ask = Replica(own, StoreConfig(), clock), asks(ReplicationSource(source, clock, 5.0))
    for number in range(3):
        await timelines.begin(source, clock.now())
        await source.write(commit(number, 2))
        own.fail_next_write(written=False)
        with pytest.raises(Unavailable):
            await copy.copy_next(ask)
        assert Timelines.open(tmp_path, "memory").history == source.timelines.history
        await caught_up(copy, ask)
    assert await contents(own) == await contents(source)
    assert [own.timelines.timeline_at(at) for at in range(12)] == [source.timelines.timeline_at(at) for at in range(12)]


async def test_a_tail_that_the_active_centre_has_lost_is_no_copy() -> None:
    """It lost power, went on, and its log reaches further than the standby's: what is last there was never in it."""
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    copy = Replica(own, StoreConfig(), clock)
    await timelines.begin(source, clock.now())
    await source.write(commit(1, 2))
    older = source.copy()
    older.timelines = Timelines(source.timelines.history)
    await source.write(commit(2, 2))
    await caught_up(copy, asks(ReplicationSource(source, clock, 5.0)))
    await timelines.begin(older, clock.now())
    for number in range(3, 6):
        await older.write(commit(number, 2))
    with pytest.raises(Fenced, match="has lost our last entries"):
        await copy.copy_next(asks(ReplicationSource(older, clock, 5.0)))


async def test_only_what_is_confirmed_is_delivered() -> None:
    """Until the standby was not heard for too long; then all, and from there on it is alone until it has caught up."""
    source, own, clock = MemoryLog(), MemoryLog(), FakeClock()
    original = ReplicationSource(source, clock, 5.0)
    held = ReplicatedLog(source, original, clock)
    copy, ask = Replica(own, StoreConfig(), clock), asks(original)
    await source.write(commit(1, 2))
    assert await held.fetch(0) == []
    assert await held.bounds() == (1, 0)
    await caught_up(copy, ask)
    await copy.copy_next(ask)
    assert len(await held.fetch(0)) == 3
    await source.write(commit(2, 2))
    assert (await held.bounds())[1] == 3
    await clock.advance(6)
    assert original.unreplicated
    assert (await held.bounds())[1] == 6
    await copy.copy_next(ask)
    assert original.unreplicated  # heard again, but not yet level
    await copy.copy_next(ask)
    assert not original.unreplicated


async def test_a_fenced_centre_confirms_nothing(tmp_path: Path) -> None:
    """It has entries of its own and copies all anew; until it is level, delivery goes on without it."""
    clock = FakeClock()
    fenced, active = MemoryLog(), MemoryLog()
    for name, log in (("fenced", fenced), ("active", active)):
        log.timelines = Timelines.open(tmp_path / name, log.epoch)
        (tmp_path / name).mkdir()
    await timelines.begin(fenced, clock.now())
    await fenced.write(commit(1, 2))
    past = Replica(active, StoreConfig(), clock)
    await caught_up(past, asks(ReplicationSource(fenced, clock, 5.0)))
    # The other one takes over; the first goes on for a while, as one that was held still does.
    await timelines.begin(active, clock.now())
    for number in range(2, 12):
        await fenced.write(commit(number, 2))
    for number in range(2, 6):
        await active.write(commit(number, 3))
    original = ReplicationSource(active, clock, 5.0, unreplicated=True)
    delivered = ReplicatedLog(active, original, clock)
    with pytest.raises(Fenced):
        await Replica(fenced, StoreConfig(), clock).copy_next(asks(original))
    assert original.unreplicated
    assert original.confirmed == 0
    await active.write(commit(6, 3))
    assert (await delivered.bounds())[1] == (await active.bounds())[1], "delivery does not wait for the new copy"
    copy = MemoryLog()
    copy.timelines = Timelines.open(tmp_path / "copy", copy.epoch)
    (tmp_path / "copy").mkdir()
    renewed = Replica(copy, StoreConfig(), clock)
    await caught_up(renewed, asks(original))
    await renewed.copy_next(asks(original))
    assert not original.unreplicated
    assert await contents(copy) == await contents(active)
    # A level standby whose disk was lost copies anew: what was delivered stays, and more is.
    copy = MemoryLog()
    copy.timelines = Timelines(active.timelines.history)
    await Replica(copy, StoreConfig(), clock).copy_next(asks(original))
    assert original.unreplicated
    await active.write(commit(7, 3))
    assert (await delivered.bounds())[1] == (await active.bounds())[1]


async def test_the_other_centre_settles_which_log_is_followed() -> None:
    """Until it has asked, or was silent for too long, it may be the active one in a later term."""
    clock, log = FakeClock(), MemoryLog()
    for heard in (True, False):
        original = ReplicationSource(log, clock, 5.0)
        delivered = ReplicatedLog(log, original, clock)
        assert not delivered.is_settled
        if heard:
            await Replica(MemoryLog(), StoreConfig(), clock).copy_next(asks(original))
        else:
            await clock.advance(6.0)
        assert delivered.is_settled


async def test_another_past_is_no_original() -> None:
    """A log with a tail that the active one never had is fenced; so is one of another life."""
    source, clock = MemoryLog(), FakeClock()
    ask = asks(ReplicationSource(source, clock, 5.0, ((1, 0), (2, 2))))
    await source.write(commit(1, 1))
    await source.write(commit(2, 5))
    ahead = MemoryLog()
    await ahead.write(commit(1, 1))
    await ahead.write(commit(9, 2))
    with pytest.raises(Fenced, match="later term"):
        await Replica(ahead, StoreConfig(), clock, Term(1, history=((1, 0),))).copy_next(ask)
    with pytest.raises(Fenced, match="not a copy"):
        await Replica(MemoryLog(epoch="another"), StoreConfig(), clock).copy_next(ask)


@pytest.mark.live
async def test_a_new_copy_of_a_log_that_begins_late_has_no_past(tmp_path: Path) -> None:
    """Where the first entries have expired or were replaced, an empty copy begins behind them, fenced by no term."""
    store = StoreConfig(log_bytes=8 * 2**20, intake_bytes=2**20, ledger_bytes=2**20, registry_bytes=2**20)
    source, clock = MemoryLog(epoch="6614d6149f7d2"), SystemClock()
    for number in range(3):
        await source.write([LogMessage("commit.44.a", str(number).encode(), rollup=True)])
    first, last = await source.bounds()
    assert (first, last) == (3, 3)
    async with Engine(EngineConfig(), store, tmp_path, name="44") as engine:
        nc = await engine.connect(User.GATEWAY)
        await streams.ensure(nc, streams.log_stream(store, first, source.epoch))
        own = JetStreamLog(nc)
        await own.open()
        copy, ask = Replica(own, store, clock, Term(1)), asks(ReplicationSource(source, clock, 5.0, ((1, 0),)))
        await caught_up(copy, ask)
        assert await contents(own) == await contents(source)
        assert copy.term.history == ((1, 0),)
        await own.close()
        await nc.close()


@pytest.mark.live
async def test_on_the_engine(tmp_path: Path) -> None:
    """A log that begins late, with a record replaced many times: the copy has its sequences and its life."""
    store = StoreConfig(log_bytes=8 * 2**20, intake_bytes=2**20, ledger_bytes=2**20, registry_bytes=2**20)
    source, clock = MemoryLog(epoch="6614d6149f7d2"), SystemClock()
    for number in range(40):
        await source.write(commit(number, 3))
    async with Engine(EngineConfig(), store, tmp_path, name="44") as engine:
        nc = await engine.connect(User.GATEWAY)
        await streams.ensure(nc, streams.log_stream(store, 1, source.epoch))
        own = JetStreamLog(nc)
        await own.open()
        assert own.epoch == source.epoch
        copy, ask = Replica(own, store, clock), asks(ReplicationSource(source, clock, 5.0))
        await caught_up(copy, ask)
        await source.write(commit(99, 3))
        await copy.copy_next(ask)
        assert await contents(own) == await contents(source)
        await streams.ensure_streams(nc, store)  # as the gateway does that takes over
        await own.close()
        await nc.close()


async def test_a_new_copy_of_an_old_log_has_no_other_past() -> None:
    """The beginning of the log has been replaced: a copy that is made now begins behind it, and is no stranger."""
    clock = FakeClock()
    log = MemoryLog(clock)
    for number in range(3):
        await log.write(commit(number, 0))
    first = (await log.bounds())[0]
    original = ReplicationSource(log, clock, 5.0, ((1, 0),))
    own = MemoryLog(clock)
    own._last = first - 1  # as a stream that is made to begin there
    copy = Replica(own, StoreConfig(), clock)
    await caught_up(copy, asks(original))
    assert await contents(own) == await contents(log)
    assert copy.term.history == ((1, 0),)
