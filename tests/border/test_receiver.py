"""What the centre checks of a member's spans, over a log in memory: each check by itself, without a server."""

from __future__ import annotations

import numpy as np
import pytest

from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import StoreConfig
from sensegate.tiers.judging import Judge
from sensegate.tiers.protocol import SpanAnswer, SpanOutcome, SpanPart
from sensegate.tiers.receiver import Receiver
from sensegate.tiers.verdict import MemberFacts, Rules
from tests.border.hostile import HostileNode, Lie, MemoryTransport, outcome, part, rows
from tests.border.lies import FOREIGN_DEVICE, OWN_DEVICE, OWN_DIVISION, SENDER, VICTIM, frame_lies, lies

START = 1_767_225_600_000_000
STORE = StoreConfig(log_bytes=1_000_000)
CONFIDENTIAL = "heart_rate"
FLOOR = 3
"""Least grade of `CONFIDENTIAL`, by the catalogue."""
READINGS = f"readings.{SENDER}.all"


class Owners:
    """One device belongs to the other member, all else to nobody."""

    def owner(self, device: str) -> str:
        return VICTIM if device == FOREIGN_DEVICE else ""

    def may_send(self, member: str, device: str) -> bool:
        return self.owner(device) == member

    def room(self, _member: str) -> int:
        return 1_000


class Bench:
    """A log, and receivers as of several processes."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.log = MemoryLog(self.clock)

    def receiver(self, *, log_share: float = 1.0) -> Receiver:
        """Return a receiver as of a new process."""
        rules = Rules(Owners(), lambda name, _department: FLOOR if name == CONFIDENTIAL else 1)
        judge = Judge(lambda member: MemberFacts(member, member, (member,)), rules)
        return Receiver(self.log, judge, self.clock, STORE, log_share=log_share)

    async def subjects(self) -> list[str]:
        """Return the subjects of what stands on the log."""
        return [entry.subject for entry in await self.log.fetch(0)]


@pytest.fixture
def bench() -> Bench:
    """An empty log."""
    return Bench()


@pytest.fixture
async def hostile(bench: Bench) -> HostileNode:
    """A member that may send spans."""
    node = HostileNode(MemoryTransport(bench.receiver(), SENDER))
    assert (await node.claim()).granted
    return node


def good(number: int = 0, *, grade: int = 2, name: str = "air_temperature") -> SpanPart:
    """Return a reading that is no lie."""
    return part(rows(SENDER, OWN_DEVICE, OWN_DIVISION, start=START + number * 1_000_000, name=name), grade=grade)


@pytest.mark.parametrize("lie", lies(START), ids=lambda lie: lie.name)
async def test_a_lie_is_refused_with_its_reason(lie: Lie, bench: Bench, hostile: HostileNode) -> None:
    """Nothing of it stands on the log, and what stands beside it does."""
    answer = await hostile.span(hostile.request(good(), *lie.parts))
    assert isinstance(answer, SpanAnswer)
    assert (answer.outcome, frozenset(refusal.reason for refusal in answer.refused)) == (
        SpanOutcome.ACCEPTED,
        lie.reasons,
    )
    written = [entry for entry in await bench.log.fetch(0) if entry.subject.startswith("readings.")]
    assert [entry.subject for entry in written] == [f"{READINGS}.2"]
    assert columns.decode(written[0].payload).origins.device == [OWN_DEVICE]


async def test_frames_that_lie(hostile: HostileNode) -> None:
    """What contradicts the records is refused; what builds on others is stale; another writer has to claim."""
    for name, (request, expected) in frame_lies(hostile).items():
        assert outcome(await hostile.span(request)) == expected, name


async def test_the_grade_is_at_least_the_catalogues(bench: Bench, hostile: HostileNode) -> None:
    """Whatever a member calls its rows, subscribers of a lower grade do not see them."""
    assert outcome(await hostile.span(hostile.request(good(grade=1, name=CONFIDENTIAL)))) == SpanOutcome.ACCEPTED
    assert f"{READINGS}.{FLOOR}" in await bench.subjects()
    assert f"{READINGS}.1" not in await bench.subjects()


async def test_the_life_of_a_reading_is_the_centres(bench: Bench, hostile: HostileNode) -> None:
    """It ends after the time of the centre's own configuration."""
    assert outcome(await hostile.span(hostile.request(good()))) == SpanOutcome.ACCEPTED
    await bench.clock.advance((STORE.readings_ttl_h - 1) * 3_600.0)
    assert f"{READINGS}.2" in await bench.subjects()
    await bench.clock.advance(2 * 3_600.0)
    assert f"{READINGS}.2" not in await bench.subjects()


async def test_a_lane_has_one_record_and_readings_are_never_replaced(bench: Bench, hostile: HostileNode) -> None:
    """Only the record of a lane takes the place of the one before."""
    for number in range(3):
        assert outcome(await hostile.span(hostile.request(good(number)))) == SpanOutcome.ACCEPTED
    subjects = await bench.subjects()
    assert subjects.count(f"commit.{SENDER}.live") == 1
    assert subjects.count(f"{READINGS}.2") == 3


async def test_of_two_centres_one_takes_a_span(bench: Bench, hostile: HostileNode) -> None:
    """Both believe that they know the lane's record: the fence on the log decides."""
    second = HostileNode(MemoryTransport(bench.receiver(), SENDER))
    assert outcome(await hostile.span(hostile.request(good(0)))) == SpanOutcome.ACCEPTED
    assert (await second.ask("position")).value
    second.writer, second.lanes = hostile.writer, dict(hostile.lanes)
    assert outcome(await hostile.span(hostile.request(good(1)))) == SpanOutcome.ACCEPTED
    assert outcome(await second.span(second.request(good(2)))) == SpanOutcome.STALE
    assert (await bench.subjects()).count(f"{READINGS}.2") == 2


async def test_a_member_fills_its_share_of_the_log_alone(bench: Bench) -> None:
    """Beyond it the member is asked to wait, and another one goes on."""
    receiver = bench.receiver(log_share=0.05)
    full = HostileNode(MemoryTransport(receiver, SENDER))
    assert (await full.claim()).granted
    noise = np.random.default_rng(1)
    outcomes = []
    for number in range(8):
        start = START + number * 1_000_000_000
        batch = rows(SENDER, OWN_DEVICE, OWN_DIVISION, start=start, count=1_000, value=noise.random(1_000))
        outcomes.append(outcome(await full.span(full.request(part(batch)))))
    assert outcomes[0] == SpanOutcome.ACCEPTED
    assert outcomes[-1] == "wait"
    other = HostileNode(MemoryTransport(receiver, VICTIM))
    assert (await other.claim()).granted
    reading = part(rows(VICTIM, FOREIGN_DEVICE, "440106", start=START))
    assert outcome(await other.span(other.request(reading))) == SpanOutcome.ACCEPTED
