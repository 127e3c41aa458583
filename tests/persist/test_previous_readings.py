"""Decoded once more: equal, revised or new; and never twice, whoever dies in between."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from sensegate.bus import columns
from sensegate.errors import Overloaded, Unavailable
from sensegate.model import Delivery, Quarantined, QuarantineReason, SourcePosition
from sensegate.persist import previous_readings
from sensegate.persist.commit import CommitLimits, PreparedBatch
from sensegate.persist.identity import VERDICTS
from sensegate.persist.previous_readings import PreviousReadings
from sensegate.quantities.quality import Flag
from tests.persist.rig import (
    HOUR,
    MESSAGE_ID,
    NONE,
    NOW,
    SEQUENCE,
    SPECS,
    SUPPRESS,
    TEXT,
    TIME,
    Rig,
    Row,
    Sent,
    delivery,
)


def specs(version: int) -> list[object]:
    """Return the specs of another version of the profile."""
    return [msgspec.structs.replace(spec, profile=f"acme/th10@{version}") for spec in SPECS]


class ReprocessingRig(Rig):
    """A rig that decodes messages of its log once more."""

    wanted = frozenset({"dev-0", "dev-1", "dev-2"})

    def use(self, version: int) -> None:
        """Have another version in force."""
        self.committer.apply_specs(specs(version))  # type: ignore[arg-type]

    async def learn(self) -> PreviousReadings:
        """Read what the log holds, as a job does before its first message."""
        known = PreviousReadings(self.wanted.__contains__, self.index.ids.__getitem__)
        self.committer.track_previous(known)
        until = self.committer.tracked_after
        assert until is not None
        at = 0
        while entries := await self.log.fetch(at):
            for entry in entries:
                kind = entry.subject.partition(".")[0]
                if kind in {"readings", "seen"} and entry.sequence <= until:
                    batch = columns.decode(entry.payload, sequence=entry.sequence)
                    known.add(batch, suppressed=kind == "seen")
            at = entries[-1].sequence
        known.finish_loading()
        return known

    def prepare_again(self, sent: Sequence[Sent], *, quarantined: Sequence[Quarantined] = ()) -> PreparedBatch:
        """Prepare the commit of messages decoded again."""
        messages, fields, readings = self.readings(list(sent))
        fields = msgspec.structs.replace(fields, quarantined=list(quarantined))
        result = delivery(messages, "redecode:1")
        given = Delivery(result.source, result.messages, result.ack, SourcePosition("1", messages[-1].sequence), "raw")
        return self.committer.prepare([given], fields, readings)

    async def reprocess(self, sent: Sequence[Sent], *, learn: bool = True) -> list[str]:
        """Decode messages once more; return the verdicts on their values, revisions with their number."""
        if learn:
            await self.learn()
        pending = self.prepare_again(sent)
        await self.committer.write(pending)
        judged = pending.results[0]
        return [
            VERDICTS[kind] if kind else f"revision {revision}"
            for kind, revision in zip(judged.kind.tolist(), judged.revision.tolist(), strict=True)
        ]

    async def readings_on_log(self) -> list[tuple[str, int, float | str]]:
        """Return (property, revision, value) of every reading, in the order of the log."""
        return [
            (batch.variables()[batch.property[row]][0], int(batch.revision[row]), batch.text.get(row, batch.value[row]))
            for batch in await self.batches()
            for row in range(len(batch))
        ]


@pytest.fixture
async def rig(tmp_path: Path) -> ReprocessingRig:
    made = ReprocessingRig(tmp_path)
    await made.open()
    return made


def sent_reading(
    value: float | str, *, spec: int = TIME, time: int = NOW, payload: bytes = b"a", key: int | None = None
) -> Sent:
    """Return a message of one value."""
    return Sent((Row(spec, value, time, key),), payload)


async def test_equal_revised_and_new(rig: ReprocessingRig) -> None:
    """The same again is equal, another value a revision with its flag, what was not there is new."""
    await rig.commit([sent_reading(215.0)])
    rig.use(4)
    assert await rig.reprocess([sent_reading(215.0)]) == ["equal"]
    assert await rig.reprocess([sent_reading(21.5)]) == ["revision 1"]
    assert await rig.reprocess([sent_reading(21.5), sent_reading(3.0, time=NOW + 1, payload=b"b")]) == [
        "equal",
        "revision 0",
    ]
    batch = (await rig.batches())[1]
    assert batch.flags.tolist() == [int(Flag.REDECODED)]
    assert batch.origins.profile.tolist() == ["acme/th10@4"]
    totals = (await rig.ledger()).totals()
    assert {kind: totals[kind] for kind in ("messages", "redecoded", "reread", "revised", "added", "equal")} == {
        "messages": 1,
        "redecoded": 4,
        "reread": 4,
        "revised": 1,
        "added": 1,
        "equal": 2,
    }


async def test_there_and_back(rig: ReprocessingRig) -> None:
    """The last version has the last word, though an older revision said the same."""
    await rig.commit([sent_reading(215.0)])
    for number, value in enumerate((21.5, 215.0, 21.5, 215.0), 1):
        rig.use(3 + number % 2)
        assert await rig.reprocess([sent_reading(value)]) == [f"revision {number}"]
        assert await rig.reprocess([sent_reading(value)]) == ["equal"]


async def test_what_two_messages_said(rig: ReprocessingRig) -> None:
    """A conflict stays one: each message's own value is asked for; a repeat says what the others say."""
    await rig.commit([sent_reading(215.0, payload=b"a")])
    await rig.commit([sent_reading(300.0, payload=b"b")])
    await rig.commit([sent_reading(215.0, payload=b"c")])
    three = [sent_reading(215.0, payload=b"a"), sent_reading(300.0, payload=b"b"), sent_reading(215.0, payload=b"c")]
    assert await rig.reprocess(three) == ["equal", "equal", "equal"]
    rig.use(4)
    three = [sent_reading(21.5, payload=b"a"), sent_reading(30.0, payload=b"b"), sent_reading(21.5, payload=b"c")]
    assert await rig.reprocess(three) == ["revision 2", "revision 3", "equal"]
    assert await rig.reprocess(three) == ["equal", "equal", "equal"]


async def test_a_repeat_alone_in_the_span(rig: ReprocessingRig) -> None:
    """Its value was kept by an earlier message that is not meant: it is revised by what this one says now."""
    await rig.commit([sent_reading(215.0, payload=b"a")])
    await rig.commit([sent_reading(215.0, payload=b"c")])
    rig.use(4)
    assert await rig.reprocess([sent_reading(21.5, payload=b"c")]) == ["revision 1"]
    assert await rig.reprocess([sent_reading(21.5, payload=b"c")]) == ["equal"]


async def test_several_values_of_one_identity_in_a_message(rig: ReprocessingRig) -> None:
    """Elements without a time of their own: any of them stands, none comes twice."""
    both = Sent((Row(TIME, 1.0, NOW), Row(TIME, 2.0, NOW)), b"a")
    await rig.commit([both])
    assert await rig.reprocess([both]) == ["equal", "equal"]
    rig.use(4)
    changed = Sent((Row(TIME, 1.0, NOW), Row(TIME, 3.0, NOW)), b"a")
    assert await rig.reprocess([changed]) == ["equal", "revision 2"]
    assert await rig.reprocess([changed]) == ["equal", "equal"]


@pytest.mark.parametrize("spec", [TIME, SEQUENCE, MESSAGE_ID, NONE, TEXT])
async def test_every_kind_of_identity(rig: ReprocessingRig, spec: int) -> None:
    """Also what nothing identifies: then the stored message itself does, by its bytes and its arrival."""
    values: tuple[float | str, float | str] = ("open", "shut") if spec == TEXT else (1.0, 2.0)
    sent = [
        sent_reading(values[0], spec=spec, key=7),
        sent_reading(values[0], spec=spec, key=8, time=NOW + 1, payload=b"b"),
    ]
    await rig.commit(sent)
    assert await rig.reprocess(sent) == ["equal", "equal"]
    rig.use(4)
    repeated = [
        sent_reading(values[1], spec=spec, key=7),
        sent_reading(values[0], spec=spec, key=8, time=NOW + 1, payload=b"b"),
    ]
    assert await rig.reprocess(repeated) == ["revision 1", "equal"]


async def test_another_life_of_a_counter(rig: ReprocessingRig) -> None:
    """The same number a day later is another reading, and stays one."""
    early, late = (
        sent_reading(1.0, spec=SEQUENCE, key=7),
        sent_reading(2.0, spec=SEQUENCE, key=7, time=NOW + 24 * HOUR, payload=b"b"),
    )
    await rig.commit([early])
    await rig.commit([late])
    assert await rig.reprocess([early, late]) == ["equal", "equal"]
    rig.use(4)
    changed = [
        sent_reading(5.0, spec=SEQUENCE, key=7),
        sent_reading(2.0, spec=SEQUENCE, key=7, time=NOW + 24 * HOUR, payload=b"b"),
    ]
    assert await rig.reprocess(changed) == ["revision 1", "equal"]


async def test_what_was_suppressed_stays_so(rig: ReprocessingRig) -> None:
    """Report by exception: what did not change then is no reading now."""
    calm = [sent_reading(1.0 + at / 100, spec=SUPPRESS, time=NOW + at, payload=b"%d" % at) for at in range(3)]
    await rig.commit(calm)
    assert [name for name, _, _ in await rig.readings_on_log()] == ["water_level"]
    rig.use(4)
    changed = [sent_reading(9.0, spec=SUPPRESS, time=NOW + at, payload=b"%d" % at) for at in range(3)]
    assert await rig.reprocess(changed) == ["revision 1", "unchanged", "unchanged"]
    assert (await rig.ledger()).totals()["suppressed.unchanged"] == 4


async def test_what_was_recovered_is_known_to_live_traffic(rig: ReprocessingRig) -> None:
    """A message that comes again after its redecode is a duplicate, in this life and in the next."""
    await rig.commit([sent_reading(215.0)])
    rig.use(4)
    await rig.reprocess([sent_reading(21.5), sent_reading(3.0, time=NOW + 1, payload=b"b")])
    for _ in range(2):
        pending = await rig.commit([sent_reading(21.5), sent_reading(3.0, time=NOW + 1, payload=b"b")])
        assert [VERDICTS[kind] for kind in pending.results[0].kind.tolist()] == ["redelivery", "redelivery"]
        await rig.restart()


async def test_live_messages_are_told_while_a_job_is_made_ready(rig: ReprocessingRig) -> None:
    """What is committed between the look at the log and the first message is known, too; and only once."""
    await rig.commit([sent_reading(1.0)])
    known = PreviousReadings(rig.wanted.__contains__, rig.index.ids.__getitem__)
    rig.committer.track_previous(known)
    await rig.commit([sent_reading(2.0, time=NOW + 1, payload=b"b")])
    assert len(known) == 0
    for batch in (await rig.batches())[:1]:
        known.add(batch)
    known.finish_loading()
    await rig.commit([sent_reading(3.0, time=NOW + 2, payload=b"c")])
    assert len(known) == 3
    sent = [
        sent_reading(1.0),
        sent_reading(2.0, time=NOW + 1, payload=b"b"),
        sent_reading(3.0, time=NOW + 2, payload=b"c"),
    ]
    assert await rig.reprocess(sent, learn=False) == ["equal", "equal", "equal"]


async def test_a_span_in_flight_is_waited_for(rig: ReprocessingRig) -> None:
    """A commit that was prepared and not written when a job begins stands on the log, not among what is told."""
    pending = rig.prepare([sent_reading(1.0)])
    known = PreviousReadings(rig.wanted.__contains__, rig.index.ids.__getitem__)
    rig.committer.track_previous(known)
    assert rig.committer.tracked_after is None
    await rig.committer.write(pending)
    assert rig.committer.tracked_after == (await rig.log.bounds())[1]
    assert len(known) == 0


async def test_a_failed_commit_ends_the_job_of_this_life(rig: ReprocessingRig) -> None:
    """After any loss the priors are read anew: nothing is judged by what was not written."""
    await rig.commit([sent_reading(215.0)])
    rig.use(4)
    await rig.learn()
    rig.prepare_again([sent_reading(21.5)])
    await rig.open()
    with pytest.raises(Unavailable, match="must start again"):
        rig.prepare_again([sent_reading(21.5)])
    await rig.open()
    assert await rig.reprocess([sent_reading(21.5)]) == ["revision 1"]


async def test_still_refused_is_counted_and_not_kept_twice(rig: ReprocessingRig) -> None:
    """A message that cannot be read now either stays where it is."""
    await rig.learn()
    bad = Quarantined(0, QuarantineReason.SCHEMA, "", 0)
    await rig.committer.write(rig.prepare_again([Sent((), b"?")], quarantined=[bad]))
    kinds = {entry.subject.partition(".")[0] for entry in await rig.log.fetch(0)}
    assert kinds == {"ledger", "commit"}
    totals = (await rig.ledger()).totals()
    assert totals == {"redecoded": 1, "still_refused": 1}


async def test_only_the_jobs_devices_are_held(rig: ReprocessingRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the others nothing is remembered; more than fits is said before anything is written."""
    await rig.commit([Sent((Row(TIME, 1.0, NOW, device=device),), b"%d" % device) for device in range(3)])
    rig.wanted = frozenset({"dev-1"})
    assert len(await rig.learn()) == 1
    rig.wanted = frozenset({"dev-0", "dev-1", "dev-2"})
    monkeypatch.setattr(previous_readings, "VALUES_MAX", 2)
    with pytest.raises(Overloaded, match="fewer devices"):
        await rig.learn()


async def test_positions_of_jobs_do_not_pile_up(rig: ReprocessingRig) -> None:
    """Of all jobs only the present one has a place to go on from; the sources keep theirs."""
    await rig.commit([sent_reading(1.0)])
    await rig.reprocess([sent_reading(1.0)])
    assert rig.committer.position("redecode:1") is not None
    messages, fields, readings = rig.readings([sent_reading(1.0)])
    await rig.learn()
    other = Delivery("redecode:2", messages, delivery(messages).ack, SourcePosition("2", 9), "raw")
    await rig.committer.write(rig.committer.prepare([other], fields, readings))
    assert (await rig.open()).keys() == {"mqtt", "redecode:2"}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 5)),
        st.tuples(st.just("use"), st.integers(1, 4)),
        st.tuples(st.just("again"), st.integers(1, 3)),
        st.tuples(st.just("die"), st.integers(0, 3)),
    ),
    max_size=25,
)


@given(steps=STEPS)
async def test_property_the_last_version_has_the_last_word(steps: list[tuple[str, int]]) -> None:
    """Whatever is said, released, decoded again and interrupted: a revision for each change, none without."""
    with tempfile.TemporaryDirectory() as directory:
        rig = ReprocessingRig(Path(directory), limits=CommitLimits())
        await rig.open()
        version, versions, history = 1, list[int](), dict[int, list[float]]()
        rig.use(version)

        def message(number: int) -> Sent:
            return sent_reading(float(versions[number] * version), time=NOW + number, payload=b"%d" % number)

        async def decode_again(count: int, size: int) -> None:
            await rig.learn()
            for first in range(0, count, size):
                await rig.reprocess([message(at) for at in range(first, min(first + size, count))], learn=False)
            for number in range(count):
                if history[number][-1] != versions[number] * version:
                    history[number].append(float(versions[number] * version))

        for step, number in steps:
            if step == "say":
                versions.append(number + 1)
                history[len(versions) - 1] = [float(versions[-1] * version)]
                await rig.commit([message(len(versions) - 1)])
            elif step == "use":
                version = number
                rig.use(version)
            elif step == "again" and versions:
                await decode_again(len(versions), number)
            elif step == "die":
                # It dies in the middle of a job: what was committed of it stays, the next life learns it.
                await decode_again(min(number, len(versions)), 1)
                if versions:
                    rig.prepare_again([message(0)])
                await rig.restart()
                rig.use(version)
        result: dict[int, list[float]] = {}
        for batch in await rig.batches():
            for row in np.argsort(batch.time, kind="stable").tolist():
                result.setdefault(int(batch.time[row]) - NOW, []).append(float(batch.value[row]))
        assert result == history
