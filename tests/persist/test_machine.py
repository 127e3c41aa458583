"""Any interleaving of deliveries, repetitions, reordering, crashes and restarts gives the verdict of a plain model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from sensegate.persist.duplicates import Deduplicator
from sensegate.persist.identity import VERDICTS
from sensegate.persist.memtable import Matches
from sensegate.persist.sorted_runs import SortedRun
from sensegate.persist.watermarks import NEVER
from sensegate.quantities.quality import Flag
from tests.persist.rig import (
    CHANNEL,
    FRAME,
    HOUR,
    MESSAGE_ID,
    NONE,
    NOW,
    SEQUENCE,
    SUPPRESS,
    TEXT,
    TIME,
    Rig,
    Row,
    Sent,
)

LATE, CONFLICT, UNJUDGED = int(Flag.LATE), int(Flag.CONFLICT), int(Flag.NOT_DEDUPLICATED)
FUTURE_US = 300_000_000


class Oracle:
    """The rules, as plainly as they can be said: a list of all that was seen of each series."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], list[tuple[int, float | str, bytes, int, int, object]]] = {}
        self.last: dict[tuple[int, int], int] = {}
        self.lead: dict[tuple[int, int], tuple[float | str, int]] = {}

    def judge(self, row: Row, sent: Sent, message: object) -> tuple[str, int, int]:
        """Return (verdict, revision, late, conflict and not_deduplicated flags)."""
        series = (row.device, row.spec)
        key = row.time if row.key is None else row.key
        if row.time < sent.received - 24 * HOUR:
            return "accepted", 0, UNJUDGED | LATE
        known = [] if row.spec == NONE else self.seen.setdefault(series, [])
        same = [earlier for earlier in known if earlier[0] == key]
        if row.spec == SEQUENCE:
            same = [earlier for earlier in same if abs(earlier[4] - row.time) <= HOUR]
        if row.spec == FRAME:
            same = [
                earlier
                for earlier in same
                if (
                    earlier[2] == sent.payload
                    and earlier[3] == sent.path
                    and earlier[5] != message
                    and abs(earlier[4] - row.time) <= HOUR
                )
                or (earlier[4] == row.time if earlier[3] == sent.path else abs(earlier[4] - row.time) <= HOUR // 6)
            ]
        alike = [earlier for earlier in same if earlier[1] == row.value]
        if any(earlier[2] == sent.payload and earlier[3] == sent.path and earlier[5] != message for earlier in alike):
            return "redelivery", 0, 0
        if any(earlier[3] == sent.path for earlier in alike):
            return "repeat", 0, 0
        if alike:
            return "cross_path", 0, 0
        flags = CONFLICT if same else 0
        verdict = "accepted"
        if row.time <= sent.received + FUTURE_US:
            late = row.time < self.last.get(series, row.time)
            self.last[series] = max(self.last.get(series, row.time), row.time)
            flags |= LATE if late else 0
            if row.spec == SUPPRESS and not late:
                value, time = self.lead.get(series, ("", 0))
                near = isinstance(value, float) and isinstance(row.value, float) and abs(row.value - value) <= 0.5
                if near and row.time - time < 600_000_000:
                    verdict = "unchanged"
                else:
                    self.lead[series] = (row.value, row.time)
        known.append((key, row.value, sent.payload, sent.path, row.time, message))
        return verdict, len(same), flags


VALUE = st.integers(0, 3).map(float)
MINUTES = st.one_of(
    st.integers(-4, 4),
    st.integers(-40, 4),
    st.integers(-40, 40),
    st.sampled_from([-26 * 60, -23 * 60, -61, -60, 30 * 60, 60 * 24 * 40, -60 * 24 * 9_000]),
)
KEYS = st.one_of(
    st.integers(0, 6), st.integers(0, 6), st.sampled_from([-(2**63) + 1, 2**63 - 1, 2**63 - 2, -1, 2**40, 2**56 - 1])
)


@st.composite
def messages(draw: st.DrawFn) -> list[Sent]:
    """Return a few messages, many alike, at times around now."""
    sent = []
    for _ in range(draw(st.integers(1, 6))):
        rows = []
        for _ in range(draw(st.integers(1, 3))):
            spec = draw(
                st.sampled_from([TIME, TIME, SEQUENCE, FRAME, SUPPRESS, SUPPRESS, TEXT, MESSAGE_ID, NONE, CHANNEL])
            )
            value: float | str = draw(VALUE)
            key = draw(KEYS) if spec in (SEQUENCE, MESSAGE_ID, FRAME) else None
            if spec == TEXT:
                value = f"state {value}"
            rows.append(Row(spec, value, NOW + draw(MINUTES) * 60_000_000, key, draw(st.integers(0, 2))))
        payload = draw(st.sampled_from([b"a", b"b", b"c"]))
        sent.append(
            Sent(tuple(rows), payload, draw(st.sampled_from([7, 7, 8])), NOW + draw(st.integers(0, 90)) * 1_000_000)
        )
    return sent


class Machine(RuleBasedStateMachine):
    """One node through several lives."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="sg-machine-"))
        self.loop = asyncio.new_event_loop()
        self.rig = Rig(self.directory / "index")
        self.loop.run_until_complete(self.rig.open())
        self.oracle = Oracle()
        self.sent: list[Sent] = []
        self.count = 0

    def run(self, sent: list[Sent]) -> None:
        """Commit messages and compare every verdict with the oracle's."""
        pending = self.loop.run_until_complete(self.rig.commit(sent))
        judgement = pending.results[0]
        expected = []
        for message in sent:
            self.count += 1
            expected += [self.oracle.judge(row, message, self.count) for row in message.rows]
        mask = LATE | CONFLICT | UNJUDGED
        rows = [
            (VERDICTS[kind], int(revision) if kind == 0 else 0, int(flags) & mask if kind == 0 else 0)
            for kind, revision, flags in zip(judgement.kind, judgement.revision, judgement.flags, strict=True)
        ]
        wanted = [
            (word, revision if word == "accepted" else 0, flags if word == "accepted" else 0)
            for word, revision, flags in expected
        ]
        assert rows == wanted
        self.sent += sent

    @rule(sent=messages())
    def deliver(self, sent: list[Sent]) -> None:
        """Devices send."""
        self.run(sent)

    @precondition(lambda self: self.sent)
    @rule(choice=st.data())
    def resend(self, choice: st.DataObject) -> None:
        """Some of all that was ever sent comes again, in any order, by the same or another way."""
        picked = choice.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=6))
        path = choice.draw(st.sampled_from([None, 9]))
        self.run(
            [
                message if path is None else Sent(message.rows, message.payload, path, message.received)
                for message in picked
            ]
        )

    @rule()
    def restart(self) -> None:
        """The process is killed between two commits."""
        before = self.rig.duplicates.watermarks()
        self.loop.run_until_complete(self.rig.restart())
        assert self.rig.duplicates.watermarks() == before

    @rule(sent=messages(), written=st.booleans())
    def die_in_a_commit(self, sent: list[Sent], written: bool) -> None:  # noqa: FBT001
        """The process is killed while a commit is on its way: it is in the log whole, or not at all."""
        pending = self.rig.prepare(sent)
        if written:
            self.loop.run_until_complete(self.rig.committer.write(pending))
            for message in sent:
                self.count += 1
                for row in message.rows:
                    self.oracle.judge(row, message, self.count)
            self.sent += sent
        self.loop.run_until_complete(self.rig.restart())
        if not written:
            self.run(sent)

    @rule()
    def checkpoint(self) -> None:
        """The state goes to disk before the next commit."""
        self.rig.clock._now += 31_000_000

    @rule()
    def worker_ends(self) -> None:
        """The worker that writes the checkpoint gets its time."""
        self.rig.duplicates.wait_idle()

    def teardown(self) -> None:
        """The ledger of all commits balances; give all back."""
        self.loop.run_until_complete(self.rig.ledger()).check()
        self.loop.close()
        shutil.rmtree(self.directory)


CAREFUL = settings(
    max_examples=max(settings().max_examples * 2 // 5, 20),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
Machine.TestCase.settings = CAREFUL
TestMachine = pytest.mark.slow(Machine.TestCase)

QUICK = settings(CAREFUL, max_examples=300, database=None, derandomize=True, print_blob=False, phases=[Phase.generate])


def test_the_machine_catches_a_dropped_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where nothing is caught up from the log, the machine finds it."""
    monkeypatch.setattr(Deduplicator, "apply", lambda *_args, **_more: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=QUICK)


@pytest.mark.slow
def test_the_machine_catches_a_disk_that_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where what went to disk is forgotten, the machine finds it."""
    monkeypatch.setattr(SortedRun, "find", lambda *_args: Matches.empty())
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=QUICK)


def test_the_machine_catches_a_watermark_of_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where stamps of the future are not remembered beside the watermark, the machine finds it."""
    plain = Deduplicator._store_accepted

    def forget(self: Deduplicator, *args: object) -> None:
        plain(self, *args)  # type: ignore[arg-type]
        self._watermarks.future_key[:] = NEVER

    monkeypatch.setattr(Deduplicator, "_store_accepted", forget)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=QUICK)
