"""Lines over a log in memory: whatever fails or dies, a subscriber who knows letters by their id has each once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.memory import MemoryLog
from sensegate.clock import SystemClock
from sensegate.errors import Gone, PermissionDenied
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.cursor import parse
from sensegate.share.delivery import FeedServer, RecordEncoding
from sensegate.share.feeds import ALL_FEED, FeedSelection
from sensegate.share.grants import Admission
from sensegate.share.pages import FeedPages
from sensegate.share.reader import LogReader
from sensegate.share.subscriptions import (
    CommittedOffset,
    OrphanedOffsets,
    PushParts,
    PushSubscription,
    PushSubscriptions,
    RetryPolicy,
    SubscriptionSpec,
    SubscriptionState,
    change_offset,
)
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery
from sensegate.share.webhooks import Webhook, Webhooks
from tests.share.made import make_batch, members

QUICK = RetryPolicy(initial_wait_s=0.001, wait_max_s=0.002, failures_max=4, unavailable_s=0.005)
TAKEN, FAILED, ABSENT = (
    DeliveryResult(accepted=True),
    DeliveryResult(accepted=False, reason="500"),
    DeliveryResult(accepted=False, unavailable=True),
)
LOST = DeliveryResult(accepted=False, reason="the answer was lost on the way")


class Receiver:
    """A `ports.Post` that does as it is told, then takes all; keeps each letter once, by its id."""

    def __init__(self, receipts: list[DeliveryResult | str]) -> None:
        self.receipts = receipts
        self.letters: list[OutboundDelivery] = []
        self.kept: dict[str, OutboundDelivery] = {}
        self.died = asyncio.Event()

    def check(self, to: str) -> None:
        """Any address will do."""

    async def send(self, letter: OutboundDelivery) -> DeliveryResult:
        self.letters.append(letter)
        receipt = self.receipts.pop(0) if self.receipts else TAKEN
        if receipt == "die before":
            self.died.set()
            await asyncio.Event().wait()
        if receipt is not FAILED and receipt is not ABSENT and not getattr(receipt, "too_large", False):
            self.kept.setdefault(letter.id, letter)
        if receipt == "die after":
            self.died.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return receipt if isinstance(receipt, DeliveryResult) else TAKEN

    @staticmethod
    def _cursors(letters: list[OutboundDelivery]) -> list[str]:
        return [record["cursor"] for letter in letters for record in json.loads(letter.body)["records"]]

    @property
    def cursors(self) -> list[str]:
        return self._cursors(list(self.kept.values()))

    @property
    def raw(self) -> list[str]:
        """Of all letters, as one who does not look at their ids has them."""
        return self._cursors(self.letters)


class Bench:
    """A log, a shelf that outlives lines, and one line after another."""

    def __init__(self, receiver: Receiver, *, batch: int = 7) -> None:
        self.clock = SystemClock()
        self.log = MemoryLog(self.clock, epoch="e1")
        self.reader = LogReader(self.log, self.clock)
        self.serving = FeedServer(self.reader)
        self.marks: RecordTable[CommittedOffset] = RecordTable(
            RecordStore(MemoryBucket(), self.clock), "mark", CommittedOffset
        )
        self.receiver = receiver
        self.roll = ActiveConsumers(self.clock, lambda: self.reader.end)
        self.terms = SubscriptionSpec(id="w1", subscriber="t", feed="all", delivery="webhook", target="x", batch=batch)
        self.metered = 0
        self.refused = ""
        self.count = 0

    async def write(self, rows: int) -> None:
        """Commit so many readings more."""
        made = [(row % 3, "air_temperature", float(self.count + row)) for row in range(rows)]
        self.count += rows
        await self.log.write(members(make_batch(made, start=1_767_225_600_000_000 + self.count * 1_000_000)))

    async def open(self, _terms: SubscriptionSpec, form: str, after: str) -> FeedPages:
        def admit() -> Admission:
            if self.refused:
                raise PermissionDenied(self.refused)
            return Admission(ALL_FEED, FeedSelection(grade_max=3))

        admit()
        start = parse(after) if after else await self.reader.first()
        return FeedPages(self.serving, admit, start, RecordEncoding(form))

    def line(self) -> PushSubscription:
        def metered(_terms: SubscriptionSpec, page: Any) -> None:
            self.metered += page.count

        return PushSubscription(
            self.terms,
            self.receiver,
            PushParts(self.marks, self.open, self.clock, self.roll, metered, QUICK),
            random_=lambda: 1.0,
        )

    async def expected(self) -> list[str]:
        """Return the cursors of all records by page."""
        end = (await self.log.bounds())[1]
        await self.until(lambda: self.reader.end >= end)
        page = await self.serving.page(
            FeedSelection(grade_max=3), await self.reader.first(), RecordEncoding.JSON, 10_000, 0
        )
        return [record["cursor"] for record in json.loads(page.body)["records"]]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def going(bench: Bench) -> AsyncIterator[None]:
    """Have the reader follow the log."""
    task = asyncio.create_task(bench.reader.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def lived(bench: Bench, count: int) -> None:
    """Run line after line, a new one whenever one has died, until so many records are received and metered."""

    def is_done() -> bool:
        return min(len(bench.receiver.cursors), bench.metered) >= count

    while not is_done():
        bench.receiver.died.clear()
        task = asyncio.create_task(bench.line().run())
        died = asyncio.create_task(bench.receiver.died.wait())
        try:
            await bench.until(lambda died=died: died.done() or is_done())  # type: ignore[misc]
        finally:
            for pending in (task, died):
                pending.cancel()
            await asyncio.gather(task, died, return_exceptions=True)


STEPS = st.lists(st.sampled_from([TAKEN, FAILED, ABSENT, LOST, "die before", "die after"]), max_size=12)


@given(STEPS, st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 9))
def test_hypothesis_each_record_once_whatever_happens(steps: list[Any], commits: list[int], batch: int) -> None:
    """Failures, lost answers, deaths before and after the letter was taken: all records, in order, none twice."""

    async def run() -> None:
        # So many failures in a row would pause it, which is another test.
        tame = [step for at, step in enumerate(steps) if step not in (FAILED, LOST) or at % 3 == 0]
        bench = Bench(Receiver(tame), batch=batch)
        async with going(bench):
            for rows in commits:
                await bench.write(rows)
            wanted = await bench.expected()
            await lived(bench, len(wanted))
            assert bench.receiver.cursors == wanted
            assert {letter.id for letter in bench.receiver.letters} >= bench.receiver.kept.keys()

    asyncio.run(run())


async def test_one_who_does_not_look_at_ids_has_some_twice() -> None:
    """The control: a death after the letter was taken brings it again."""
    bench = Bench(Receiver(["die after"]))
    async with going(bench):
        await bench.write(20)
        wanted = await bench.expected()
        await lived(bench, len(wanted))
        assert bench.receiver.cursors == wanted
        assert len(bench.receiver.raw) > len(wanted)
        first, repeated = bench.receiver.letters[:2]
        assert (first.id, first.body) == (repeated.id, repeated.body)


async def test_a_letter_that_comes_again_is_the_same_though_more_has_come_meanwhile() -> None:
    """Not one with the new records in it: by its id that would be thought known, and they lost."""
    bench = Bench(Receiver(["die after"]), batch=100)
    async with going(bench):
        await bench.write(6)
        task = asyncio.create_task(bench.line().run())
        await bench.receiver.died.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bench.write(6)
        wanted = await bench.expected()
        await lived(bench, len(wanted))
        assert bench.receiver.letters[0].body == bench.receiver.letters[1].body
        assert bench.receiver.cursors == wanted


async def test_too_many_failures_pause_it_and_it_goes_on_where_it_stood() -> None:
    """Paused with the reason, through a new life too; resumed, nothing is missing; what was taken is metered once."""
    bench = Bench(Receiver([TAKEN, *([FAILED] * 4)]))
    async with going(bench):
        await bench.write(20)
        wanted = await bench.expected()
        for _ in range(2):
            task = asyncio.create_task(bench.line().run())
            await bench.until(lambda: (bench.marks.find("w1") or CommittedOffset()).state is SubscriptionState.PAUSED)
            await bench.until(lambda: any(row.state == "paused" for row in bench.roll.rows()))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        mark = bench.marks.find("w1")
        assert mark is not None
        assert "500" in mark.reason
        assert len(bench.receiver.letters) == 5
        await change_offset(bench.marks, "w1", {"state": SubscriptionState.ACTIVE, "reason": ""})
        await lived(bench, len(wanted))
        assert bench.receiver.cursors == wanted
        assert bench.metered == len(wanted)


async def test_a_letter_that_is_too_large_is_made_smaller() -> None:
    """Halved until it is taken, and no larger again; a single record that is too large pauses the line."""
    large = DeliveryResult(accepted=False, reason="too large", too_large=True)
    bench = Bench(Receiver([large, large]), batch=16)
    async with going(bench):
        await bench.write(30)
        wanted = await bench.expected()
        task = asyncio.create_task(bench.line().run())
        await bench.until(lambda: bench.roll.rows() != [] and bench.roll.rows()[0].records == len(wanted))
        sizes = [len(json.loads(letter.body)["records"]) for letter in bench.receiver.letters]
        assert sizes[:3] == [16, 8, 4]
        assert max(sizes[2:]) == 4
        bench.receiver.receipts = [large] * 10
        await bench.write(1)
        await bench.until(lambda: (bench.marks.find("w1") or CommittedOffset()).state is SubscriptionState.PAUSED)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_410_ends_it_and_a_refusal_holds_it() -> None:
    """Ended for good; refused only as long as it is."""
    bench = Bench(Receiver([DeliveryResult(accepted=False, reason="answered 410", gone=True)]))
    async with going(bench):
        await bench.write(3)
        task = asyncio.create_task(bench.line().run())
        await bench.until(lambda: (bench.marks.find("w1") or CommittedOffset()).state is SubscriptionState.ENDED)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(bench.receiver.letters) == 1
        await change_offset(bench.marks, "w1", {"state": SubscriptionState.ACTIVE})
        bench.refused = "grant revoked"
        line = bench.line()
        task = asyncio.create_task(line.run())
        await bench.until(lambda: any(row.state == "refused" for row in bench.roll.rows()))
        assert len(bench.receiver.letters) == 1
        bench.refused = ""
        line.wake()
        await bench.until(lambda: len(bench.receiver.cursors) == len(bench.reader._ring[0].batch.origin))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_place_that_has_expired_is_told() -> None:
    """The line stops there, and its subscriber hears why and where it can go on."""
    bench = Bench(Receiver([]))
    await bench.write(3)
    results: list[tuple[str, str, str]] = []

    async def note(terms: SubscriptionSpec, why: str, first: str) -> None:
        results.append((terms.id, why, first))

    async def gone(_terms: SubscriptionSpec, _form: str, _after: str) -> FeedPages:
        raise Gone("expired", first="c1.first")

    line = bench.line()
    line._open_pages, line._notify_expired = gone, note
    task = asyncio.create_task(line.run())
    await bench.until(lambda: line.offset.state is SubscriptionState.GONE and bool(results))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert results == [("w1", "expired", "c1.first")]
    assert line.offset.reason == "expired; first: c1.first"


async def test_lines_come_and_go() -> None:
    """Wanted, changed, dropped; one that has to be asked for waits until it is."""
    bench = Bench(Receiver([]))
    async with going(bench):
        await bench.write(3)
        lines = PushSubscriptions(lambda _terms: bench.line(), wait_for_start=True)
        task = asyncio.create_task(lines.run())
        lines.add(bench.terms)
        await asyncio.sleep(0.02)
        assert len(lines) == 0
        lines.start("w1")
        await bench.until(lambda: len(bench.receiver.cursors) == 3)
        lines.restart("w1")
        await bench.until(lambda: len(lines) == 0)
        lines.start("w1")
        await bench.until(lambda: len(lines) == 1)
        lines.remove("w1")
        await bench.until(lambda: len(lines) == 0)
        assert bench.roll.rows() == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("failures", [1, 2, 3, 9, 40])
def test_the_back_off_grows_to_its_longest(failures: int) -> None:
    """Doubled, never beyond, never below half; what the receiver asks for counts where it is longer."""
    line = Bench(Receiver([])).line()
    longest = min(QUICK.initial_wait_s * 2 ** (failures - 1), QUICK.wait_max_s)
    assert line._back_off(failures, FAILED) == pytest.approx(longest)
    assert line._back_off(failures, DeliveryResult(accepted=False, retry_after_s=9.0)) == 9.0


async def test_places_without_an_owner_go() -> None:
    """Not at the first look, since a place is written before what it is for; those that have one stay."""
    clock = SystemClock()
    bucket = MemoryBucket()
    marks: RecordTable[CommittedOffset] = RecordTable(RecordStore(bucket, clock), "mark", CommittedOffset)
    for name in ("w1", "g1-mqtt", "g2-nats"):
        await marks.put(name, CommittedOffset(after="x"), expected=0)
    owners = {"w1"}
    sweep = OrphanedOffsets(marks, owners.__contains__)
    assert await sweep.remove() == 0
    owners.add("g2-nats")
    assert marks.names() == ["g1-mqtt", "g2-nats", "w1"], "negative control"
    assert await sweep.remove() == 1
    assert await sweep.remove() == 0
    assert marks.names() == ["g2-nats", "w1"]
    assert [row.key for row in (await bucket.load_all())[0]] == ["mark/w1", "mark/g2-nats"]


async def test_a_webhook_ends_with_its_token() -> None:
    """At the second look, on the trail; that of a good token stays, and so does one whose token is good again."""
    clock, trail, bucket = SystemClock(), MemoryTrail(), MemoryBucket()
    store = RecordStore(bucket, clock)
    marks: RecordTable[CommittedOffset] = RecordTable(store, "mark", CommittedOffset)
    lines = PushSubscriptions(lambda _terms: pytest.fail("none runs"))
    hooks = Webhooks(store, marks, lines, Receiver([]), trail, clock, may_see_token=lambda *_: True)
    for name, token in (("w1", "good"), ("w2", "dead"), ("w3", "back")):
        await hooks.records.put(name, Webhook(name, "all", token, "https://x/", ""), expected=0)
    assert await hooks.remove_ended({"good"}.__contains__) == 0
    assert await hooks.remove_ended({"good", "back"}.__contains__) == 1
    assert hooks.records.names() == ["w1", "w3"], "negative control"
    assert lines.ids() == {"w1", "w3"}
    assert [(action, target) for _, action, target, _, _ in trail.records] == [("webhook.end", "w2")]
