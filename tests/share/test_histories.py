"""Cursors over what can befall a log: never a record skipped in silence, never a refusal where all is as it was.

The rule: a cursor is accepted if and only if the log holds at its place what it held when the cursor was given out.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensegate.bus import timelines
from sensegate.bus.memory import MemoryLog
from sensegate.bus.timelines import FILE, Timelines
from sensegate.clock import HOUR_US, FakeClock
from sensegate.config import StoreConfig
from sensegate.errors import Gone
from sensegate.failover.replica import Replica, ReplicationSource, decode_log_request
from sensegate.share.cursor import Cursor, parse, stored_before
from sensegate.share.delivery import FeedServer, RecordEncoding
from sensegate.share.feeds import FeedSelection
from sensegate.share.reader import LogReader
from tests.share.made import NOW, make_batch, members

EVERYTHING = FeedSelection(grade_max=3)
TTL_US = 168 * HOUR_US
MINUTE_US = 60_000_000


class Subscriber(msgspec.Struct):
    """Its cursor, which write the entry of it was, and the values that it has read up to there."""

    place: str
    write: int = 0
    read: set[float] = msgspec.field(default_factory=set)


class Copy(msgspec.Struct):
    """A copy of log and directory."""

    log: MemoryLog
    file: bytes
    writes: dict[int, int]


class World:
    """A gateway's log and directory, copies of both, standbys, and subscribers that come back."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock(NOW)
        self.root = directory
        self.log = MemoryLog(self.clock, epoch="e1")
        self.writes: dict[int, int] = {}
        """Sequence -> number of the write, unique for all that was ever written in any branch; negative: a mark."""
        self.copies: list[Copy] = []
        self.subscribers: list[Subscriber] = []
        self.accepted = self.refused = 0
        self.whole = False
        """A whole directory was put back: where to read on from is not known to the entry."""
        self._number = itertools.count(1)
        self._directory()

    def _directory(self) -> None:
        self.directory = self.root / f"{next(self._number)}"
        self.directory.mkdir(parents=True)

    async def start(self) -> None:
        """Be a new process over what is there."""
        self.log.timelines = Timelines.open(self.directory, "e1")
        await timelines.begin(self.log, self.clock.now())
        self._note()
        self.writes[self.log._last] *= -1

    def _note(self) -> None:
        for sequence in range(max(self.writes, default=0) + 1, self.log._last + 1):
            self.writes[sequence] = next(self._number)

    async def write(self, commits: int) -> None:
        """Commit some records, each with a value of its own."""
        for _ in range(commits):
            value = float(next(self._number))
            await self.log.write(members(make_batch([(0, "pm2_5", value), (1, "pm2_5", value + 0.5)])))
            self._note()

    async def copy(self) -> None:
        """Copy log and directory, as a backup does."""
        self.copies.append(Copy(self.log.copy(), (self.directory / FILE).read_bytes(), dict(self.writes)))

    async def lose(self, entries: int) -> None:
        """Lose the end of the log, as a power cut does, and start again; the file was flushed."""
        end = max(self.log._last - entries, 0)
        log = self.log.copy()
        log._drop({entry.sequence for entry in log._entries if entry.sequence > end})
        log._last = end
        log._subjects = {entry.subject: entry.sequence for entry in log._entries}
        self.log = log
        self.writes = {sequence: write for sequence, write in self.writes.items() if sequence <= end}
        await self.start()

    async def restore(self, number: int, *, whole: bool) -> None:
        """Put back an older copy of the log; `whole`: with what stands beside it."""
        if not self.copies:
            return
        copy = self.copies[number % len(self.copies)]
        self.log, self.writes = copy.log.copy(), dict(copy.writes)
        if whole:
            (self.directory / FILE).write_bytes(copy.file)
            self.whole = True
        await self.clock.advance(90)  # somebody does this by hand
        await self.start()

    async def fail_over(self) -> None:
        """Go on at a standby that has all."""
        original = ReplicationSource(self.log, self.clock, 5.0)

        async def ask(_kind: str, payload: bytes) -> bytes:
            return await original.answer_log(decode_log_request(payload))

        self._directory()
        own = MemoryLog(self.clock, epoch="e1")
        own.timelines = Timelines.open(self.directory, "e1")
        replica = Replica(own, StoreConfig(), self.clock)
        await replica.copy_next(ask)
        while replica.behind:
            await replica.copy_next(ask)
        self.log = own
        # What does not end with a commit is not copied.
        self.writes = {sequence: write for sequence, write in self.writes.items() if sequence <= own._last}
        await self.start()

    # ── subscribers ─────────────────────────────────────────────────────────────────────────────────

    async def held(self, *, soon_us: int = 0) -> dict[int, list[float]]:
        """Return what the log holds (sequence -> values), without what expires within `soon_us`."""
        reader, at = LogReader(self.log, self.clock), 0
        result: dict[int, list[float]] = {}
        while (span := await reader.read(at)).end > at:
            kept = (slot for slot in span.entries if slot.stored + TTL_US - soon_us > self.clock.now())
            result |= {slot.sequence: slot.batch.value.tolist() for slot in kept}
            at = span.end
        return result

    async def read_on(self, subscriber: Subscriber, limit: int) -> None:
        """Go on after the cursor: see that it is accepted exactly where it should be, and that nothing is skipped."""
        reader = LogReader(self.log, self.clock)
        place = parse(subscriber.place)
        same = place.sequence == 0 or self.writes.get(place.sequence) == subscriber.write
        aged = stored_before(place) <= self.clock.now() - TTL_US
        refused = ""
        try:
            assert await reader.resume(subscriber.place) == place
        except Gone as gone:
            refused = gone.first
        if refused:
            self.refused += 1
            assert not same or aged, f"{place} is refused, though its place is as it was"
            first = parse(refused)
            held = await self.held(soon_us=HOUR_US)
            assert before(held, first) <= subscriber.read, "`first` skips what was not read"
            if not (same or aged or self.whole):
                assert not after(held, first) & subscriber.read, "`first` lies before what was written anew"
            self.at(subscriber, first)
            assert await reader.resume(refused) == first
        else:
            self.accepted += 1
            # Where the end was lost just before the place, a mark stands there now, which is no record.
            assert same or self.writes[place.sequence] < 0, f"{place} is accepted, though its place was written anew"
            assert before(await self.held(soon_us=HOUR_US), place) <= subscriber.read, "skipped in silence"
            page = await FeedServer(reader).page(EVERYTHING, place, RecordEncoding.NDJSON, limit, 0.0)
            subscriber.read |= {msgspec.json.decode(line)["value"] for line in page.body.splitlines()}
            self.at(subscriber, parse(page.next))

    def at(self, subscriber: Subscriber, place: Cursor) -> None:
        """Note where a subscriber stands now."""
        subscriber.place, subscriber.write = str(place), self.writes.get(place.sequence, 0)


def before(held: dict[int, list[float]], place: Cursor) -> set[float]:
    """Return the values up to a cursor."""
    whole = {value for sequence, values in held.items() if sequence < place.sequence for value in values}
    return whole | set(held.get(place.sequence, ())[: place.row + 1])


def after(held: dict[int, list[float]], place: Cursor) -> set[float]:
    """Return the values after a cursor."""
    return {value for values in held.values() for value in values} - before(held, place)


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 4)),
    st.tuples(st.just("read"), st.integers(1, 9)),
    st.tuples(st.just("lose"), st.integers(0, 12)),
    st.tuples(st.sampled_from(("copy", "fail over", "subscribe", "start")), st.just(0)),
    st.tuples(st.sampled_from(("restore store", "restore all")), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from((1, 3_600, 3_600 * 80, 3_600 * 167))),
)


async def play(directory: Path, steps: list[tuple[str, int]]) -> World:
    """Let a history happen; each subscriber comes back after each step that reads."""
    world = World(directory)
    await world.start()
    for step, number in [("subscribe", 0), *steps, ("read", 100), ("read", 100)]:
        match step:
            case "write":
                await world.write(number)
            case "lose":
                await world.lose(number)
            case "copy":
                await world.copy()
            case "restore store" | "restore all":
                await world.restore(number, whole=step == "restore all")
            case "fail over":
                await world.fail_over()
            case "start":
                await world.start()
            case "wait":
                await world.clock.advance(number)
            case "subscribe":
                if len(world.subscribers) < 3:
                    world.subscribers.append(Subscriber(""))
                    reader = LogReader(world.log, world.clock)
                    first = await reader.first()
                    # What it begins after it does not want.
                    world.subscribers[-1].read |= before(await world.held(), first)
                    world.at(world.subscribers[-1], first)
            case _:
                for subscriber in world.subscribers:
                    await world.read_on(subscriber, number)
    return world


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(STEPS, max_size=25))
async def test_a_cursor_is_accepted_exactly_where_its_place_is_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Property: over writes, lost tails, copies put back, fail-overs and expiry; a refused one says where to go on."""
    await play(tmp_path_factory.mktemp("world"), steps)


LOST = [("write", 4), ("copy", 0), ("write", 4), ("read", 100), ("restore store", 0), ("write", 9)]


@pytest.mark.parametrize("end", ["restore store", "restore all"])
async def test_a_store_put_back_skips_nothing(tmp_path: Path, end: str) -> None:
    """The fault: read to the end, an older copy put back, other records under the same sequences within one minute."""
    world = await play(tmp_path, [(end if step == "restore store" else step, number) for step, number in LOST])
    assert (world.accepted, world.refused) == (2, 1)
    held = await world.held()
    assert {value for values in held.values() for value in values} <= world.subscribers[0].read


async def test_a_power_cut_skips_nothing(tmp_path: Path) -> None:
    """The end is lost and written anew at once; a cursor before it goes on."""
    steps = [("subscribe", 0), ("write", 4), ("read", 6), ("write", 2), ("lose", 4), ("write", 9), ("read", 100)]
    world = await play(tmp_path / "before", steps)
    assert world.refused == 0
    world = await play(tmp_path / "behind", [*steps[:4], ("read", 100), *steps[4:]])
    assert world.refused == 2, "both subscribers"


async def test_control_cursors_that_name_only_the_log_skip_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with one timeline for all of the log's life the same history skips records."""
    monkeypatch.setattr(Timelines, "timeline_at", lambda *_: b"always")
    monkeypatch.setattr(Timelines, "diverged_at", lambda *_: 2**63)
    with pytest.raises(AssertionError, match="written anew"):
        await play(tmp_path, LOST)
