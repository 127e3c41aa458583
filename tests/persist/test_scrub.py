"""The scrub: silent over all that is sound, exact about what is not, over everything that can happen in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensegate.bus import timelines
from sensegate.bus.timelines import Timelines
from sensegate.clock import FakeClock
from sensegate.model import CommitRecord, LogEntry
from sensegate.persist import extents, scrub
from sensegate.persist.extents import FINDINGS_MAX, RETAINED_KINDS, Extent, Loss, LossCause, ScrubState
from sensegate.persist.scrub import Scrub, ScrubTarget
from tests.persist.rig import HOUR, NONE, NOW, SEQUENCE, SUPPRESS, TEXT, TIME, Rig, Row, Sent

MINUTE = 60_000_000
TTL_H = {"raw": 72, "readings": 168, "observations": 168, "quarantine": 720, "ledger": 168}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extents of few entries."""
    monkeypatch.setattr(scrub, "EXTENT_ENTRIES", 12)


class Site:
    """A gateway's directory and log, its committer, and a scrub over both."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rig = Rig(directory / "duplicates")
        self.spoiled: list[str] = []
        self.minute = 0
        self.random = random.Random(7)

    async def start(self) -> None:
        """Be a new process."""
        self.rig.log.timelines = Timelines.open(self.directory, "memory")
        await timelines.begin(self.rig.log, self.rig.clock.now())
        await self.rig.restart()

    async def write(self, commits: int) -> None:
        """Commit readings of many kinds: new, duplicate, late, suppressed, without identity."""
        rig = self.rig
        for _ in range(commits):
            self.minute += 1
            rig.clock._now += MINUTE
            now = rig.clock.now()
            sent = []
            for number in range(self.random.randint(1, 5)):
                device, spec = self.random.randint(0, 2), self.random.choice((TIME, SEQUENCE, SUPPRESS, TEXT, NONE))
                time = now - self.random.choice((0, 0, 0, 5 * MINUTE, 3 * HOUR))
                value = f"{number % 2}" if spec == TEXT else float(self.random.randint(0, 3))
                key = self.minute if spec == SEQUENCE else None
                sent.append(Sent((Row(spec, value, time, key, device),), b"%d" % self.minute, received=now))
            await rig.commit(sent)

    async def checkpoint(self) -> None:
        """Have the index on the disk."""
        self.rig.duplicates.wait_idle()
        self.rig.clock._now += 31_000_000
        await self.write(1)
        self.rig.duplicates.wait_idle()

    async def scrub(self, bytes_s: int = 0) -> list[Loss]:
        """Make a pass; return what it has found newly."""
        subject = ScrubTarget(self.directory, "4401", 0, TTL_H, 26 * HOUR, 27 * HOUR)
        made = Scrub(self.rig.log, subject, self.rig.clock, request_rebuild=self.spoiled.append)
        known = extents.read(self.directory, "memory").losses
        state = await made.run_pass(bytes_s=bytes_s)
        assert made.sequences_done <= made.sequences_total
        return [loss for loss in state.losses if loss not in known]

    async def count(self) -> int:
        """Return how many rows of readings the log holds."""
        return sum(len(batch) for batch in await self.rig.batches())


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    await made.start()
    return made


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 12)),
            st.tuples(st.just("wait"), st.sampled_from((1, 7, 30, 100, 200))),
            st.tuples(st.sampled_from(("scrub", "checkpoint", "start")), st.just(0)),
        ),
        max_size=14,
    )
)
async def test_nothing_is_found_where_nothing_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Property: commits, checkpoints, merges, starts, expiry: no pass finds anything, whenever it is made."""
    site = Site(tmp_path_factory.mktemp("site"))
    await site.start()
    for step, number in [*steps, ("checkpoint", 0), ("scrub", 0), ("scrub", 0)]:
        match step:
            case "write":
                await site.write(number)
            case "wait":
                site.rig.clock._now += number * HOUR
            case "scrub":
                assert await site.scrub() == []
            case "checkpoint":
                await site.checkpoint()
            case _:
                await site.start()
    assert site.spoiled == []


async def test_a_damaged_block_is_counted_exactly(site: Site) -> None:
    """Entries in the middle are gone: so many readings, between these sequences, stored then; told once."""
    await site.write(40)
    assert await site.scrub() == []
    await site.write(5)
    before = await site.count()
    entries = await site.rig.log.fetch(0)
    gone = {entry.sequence for entry in entries[60:90]}
    site.rig.log._drop(gone)
    lost = before - await site.count()
    scrub = await site.scrub()
    assert lost
    assert {loss.cause for loss in scrub} == {LossCause.DAMAGED}
    assert sum(loss.readings for loss in scrub) == lost
    assert all(loss.first <= max(gone) and loss.last >= min(gone) for loss in scrub)
    assert scrub[0].since <= entries[60].time <= scrub[-1].until
    assert site.spoiled, "the index knows what the log has lost"
    assert await site.scrub() == []


async def test_an_altered_entry_is_found(site: Site) -> None:
    """As many entries and rows, but not the same."""
    await site.write(20)
    await site.scrub()
    place = next(at for at, entry in enumerate(site.rig.log._entries) if entry.subject.startswith("readings."))
    other = next(entry for entry in site.rig.log._entries[place + 1 :] if entry.subject.startswith("readings."))
    entry = site.rig.log._entries[place]
    site.rig.log._entries[place] = type(entry)(entry.sequence, entry.subject, other.payload, entry.time)
    (loss,) = [loss for loss in await site.scrub() if loss.cause is LossCause.DAMAGED]
    assert loss.first <= entry.sequence <= loss.last


async def test_a_cut_end_is_counted_and_named(site: Site) -> None:
    """A power cut, or an older copy of the store: how many readings are gone, and that the log ended earlier."""
    await site.write(20)
    older = site.rig.log.copy()
    await site.write(20)
    await site.scrub()
    before = await site.count()
    site.rig.log = older
    lost = before - await site.count()
    await site.start()
    await site.write(30)
    (loss,) = [loss for loss in await site.scrub() if loss.cause is LossCause.END_CUT]
    assert loss.readings == lost
    assert loss.first > (await older.bounds())[0]
    assert [loss for loss in await site.scrub() if loss.cause is LossCause.END_CUT] == []


async def test_commits_that_were_never_looked_at_are_missed_by_the_total(site: Site) -> None:
    """Unavailable before the next pass: the record of the last commit counts more than is there."""
    await site.write(10)
    await site.scrub()
    before = await site.count()
    end = (await site.rig.log.bounds())[1]
    await site.write(10)
    middle = (await site.rig.log.bounds())[1]
    lost = await site.count() - before
    await site.write(3)
    site.rig.log._drop(set(range(end + 1, middle + 1)))
    losses = [loss for loss in await site.scrub() if loss.cause is LossCause.DAMAGED]
    assert sum(loss.readings for loss in losses) == lost


async def test_readings_without_their_ledger_do_not_balance(site: Site) -> None:
    """A torn commit: what it accepted is not there."""
    await site.write(3)
    place = next(entry for entry in reversed(site.rig.log._entries) if entry.subject.startswith("readings."))
    site.rig.log._drop({place.sequence})
    scrub = await site.scrub()
    assert [loss.cause for loss in scrub] == [LossCause.UNBALANCED]
    assert scrub[0].readings > 0
    assert scrub[0].since <= place.time <= scrub[0].until


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "one bit": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "cut": lambda raw: raw[:-9],
}


@pytest.mark.parametrize("name", ["manifest", "state-*", "run-*", "series.names"])
@pytest.mark.parametrize("spoil", SPOILS)
async def test_each_file_of_the_index_is_checked(site: Site, name: str, spoil: str) -> None:
    """While the gateway runs on it: found, and built again before anything more is judged."""
    await site.write(5)
    await site.checkpoint()
    path = min((site.directory / "duplicates").glob(name))
    path.write_bytes(SPOILS[spoil](path.read_bytes()))
    scrub = await site.scrub()
    assert [loss.cause for loss in scrub] == [LossCause.INDEX_FILE]
    assert path.name in scrub[0].description
    assert site.spoiled
    await site.start()
    await site.checkpoint()
    assert await site.scrub() == []


async def test_an_index_that_lacks_readings_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are whole, and wrong: what is on the log is not in it."""
    await site.write(6)
    plain = site.rig.duplicates._index.add
    monkeypatch.setattr(site.rig.duplicates._index, "add", lambda *_, **_more: None)
    await site.write(4)
    monkeypatch.setattr(site.rig.duplicates._index, "add", plain)
    await site.write(2)
    await site.checkpoint()
    scrub = await site.scrub()
    assert [loss.cause for loss in scrub] == [LossCause.INDEX]
    assert scrub[0].readings > 0


async def test_an_index_that_knows_more_than_the_log_is_found(site: Site) -> None:
    """Where nothing was known of the log before: hours that it holds in full have fewer readings than the index."""
    await site.write(6)
    await site.checkpoint()
    sequence = next(entry.sequence for entry in site.rig.log._entries if entry.subject.startswith("readings."))
    site.rig.log._drop({sequence})
    scrub = await site.scrub()
    assert LossCause.INDEX in {loss.cause for loss in scrub}


async def test_control_without_extents_nothing_is_missed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a scrub that remembers nothing of the log does not see that a block of it is gone."""
    monkeypatch.setattr(extents, "write", lambda *_: None)
    await site.write(40)
    await site.scrub()
    entries = await site.rig.log.fetch(0)
    at = [place for place, entry in enumerate(entries) if entry.subject.startswith("ledger.")]
    site.rig.log._drop({entry.sequence for entry in entries[at[5] + 1 : at[9] + 1]})
    assert await site.scrub() == []


async def test_it_reads_no_faster_than_it_may(site: Site) -> None:
    """Pages are followed by pauses in proportion to their bytes."""
    await site.write(30)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = FakeClock(NOW)
    clock.sleep = sleep  # type: ignore[method-assign]
    clock._now = site.rig.clock.now()
    made = Scrub(site.rig.log, ScrubTarget(site.directory, "4401", 0, TTL_H, 26 * HOUR, 27 * HOUR), clock)
    await made.run_pass(bytes_s=1_000)
    assert sum(slept) == pytest.approx(made.bytes_read / 1_000)
    assert made.bytes_read > 0


async def test_what_expires_during_a_slow_pass_is_not_lost(site: Site) -> None:
    """A limited rate makes a pass of a large log last days; entries whose time has come meanwhile are not missed."""
    for _ in range(100):
        await site.write(4)
        site.rig.clock._now += HOUR
    assert await site.scrub() == []
    await site.write(40)
    await site.checkpoint()
    ages: list[int] = []

    async def sleep(seconds: float) -> None:
        site.rig.clock._now += HOUR
        ages.append(site.rig.clock.now())

    site.rig.clock.sleep = sleep  # type: ignore[method-assign]
    assert await site.scrub(bytes_s=1) == []
    assert ages[-1] - ages[0] > TTL_H["raw"] * HOUR
    assert site.spoiled == []


async def test_a_pass_ends_although_the_log_grows_while_it_is_read(site: Site) -> None:
    """Where more is written than may be read in the same time, a pass ends where the log ended at its start."""
    await site.write(20)
    plain, calls = site.rig.log.fetch, 0

    async def fetch(after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        nonlocal calls
        calls += 1
        assert calls < 50, "it follows the end of the log"
        await site.write(1)
        return await plain(after, limit=limit, max_bytes=max_bytes)

    site.rig.log.fetch = fetch  # type: ignore[method-assign]
    assert await site.scrub() == []
    site.rig.log.fetch = plain  # type: ignore[method-assign]
    assert await site.scrub() == []


async def test_a_loss_is_told_however_many_are_known(site: Site) -> None:
    """The list of losses is full: the newest is in it, is logged, and has the index built again."""
    await site.write(6)
    await site.checkpoint()
    await site.scrub()
    state = extents.read(site.directory, "memory")
    for _ in range(FINDINGS_MAX):
        state.report(Loss(LossCause.DAMAGED, site.rig.clock.now(), "x", 1, 1, 1))
    extents.write(site.directory, state)
    path = min((site.directory / "duplicates").glob("run-*"))
    path.write_bytes(SPOILS["one bit"](path.read_bytes()))
    assert [loss.cause for loss in await site.scrub()] == [LossCause.INDEX_FILE]
    assert site.spoiled
    assert len(extents.read(site.directory, "memory").losses) == FINDINGS_MAX


async def test_a_commit_record_that_cannot_be_read_makes_no_loss(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The total is unknown then, so that the next pass has nothing to compare with its own."""

    def unreadable(_payload: bytes) -> CommitRecord:
        raise ValueError

    await site.write(10)
    await site.scrub()
    await site.write(10)
    with monkeypatch.context() as patch:
        patch.setattr(scrub, "decode_commit", unreadable)
        assert await site.scrub() == []
    await site.write(10)
    assert await site.scrub() == []


def test_extents_and_losses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours are joined, their sums stay; the oldest losses go; what continues a loss is one with it."""
    monkeypatch.setattr(extents, "EXTENTS_MAX", 10)
    monkeypatch.setattr(extents, "FINDINGS_MAX", 3)
    state = ScrubState("e")
    for end in range(1, 100):
        state.add(Extent(end, b"t", end, end, {"raw": 1}, 2, 1, end))
        assert len(state.extents) <= 11
    assert (state.end, sum(extent.rows for extent in state.extents)) == (99, 198)
    assert sum(extent.kinds["raw"] for extent in state.extents) == 99
    for number in range(9):
        state.report(Loss(LossCause.DAMAGED, number, "x", 10 * number + 1, 10 * number + 5, 1, 1))
        state.report(Loss(LossCause.DAMAGED, number, "x", 10 * number + 6, 10 * number + 9, 2, 1))
    assert [(loss.first, loss.last, loss.readings) for loss in state.losses] == [(61, 69, 3), (71, 79, 3), (81, 89, 3)]


def test_what_is_known_survives_only_whole(tmp_path: Path) -> None:
    """A damaged file, or that of another log, is as none; what was found stays."""
    state = ScrubState("e", 5, [Extent(9, b"t", 1, 2, dict.fromkeys(RETAINED_KINDS, 1), 2**40, 7, 2**64 - 1)])
    state.report(Loss(LossCause.END_CUT, 1, "x"))
    extents.write(tmp_path, state)
    assert extents.read(tmp_path, "e") == state
    assert extents.read(tmp_path, "f") == ScrubState("f", losses=state.losses)
    file = tmp_path / extents.FILE
    file.write_bytes(file.read_bytes()[:-1])
    assert extents.read(tmp_path, "e") == ScrubState("e")
