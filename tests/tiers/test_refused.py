"""What the centre does not take: refused in part, counted on both sides, listed, and sent once more exactly once."""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter

import msgspec
import pytest

from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.config import StoreConfig
from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied, Unavailable
from sensegate.model import LogMessage, SheddingRule
from sensegate.quantities.quality import Flag
from sensegate.tiers import protocol, refusals, uplink
from sensegate.tiers.judging import Judge
from sensegate.tiers.members import MembershipState, NodeMember
from sensegate.tiers.protocol import Lane, PartKind, RefusedPart, SpanPart, SpanRequest, SpanSelection
from sensegate.tiers.receiver import MemberChecks, Receiver
from sensegate.tiers.uplink_accounting import UplinkAccounting
from sensegate.tiers.verdict import MemberFacts, Rules
from tests.tiers.made import NODE, check, drive, rows_of
from tests.tiers.world import World


async def balance(world: World) -> dict[str, int]:
    """Return what became of what was accepted; it must be all, in the lanes' records and in the centre's ledger."""
    totals, counts = world.uplink.totals, await world.ledger_totals()
    families = Counter[str]()
    for kind, count in totals.items():
        families[kind.partition(".")[0]] += count
    settled = families["forwarded"] + families["withheld"] + families["refused_by_centre"]
    assert families["accepted"] == settled
    for kind in {*totals, *counts}:
        if kind.partition(".")[0] not in {"released", "readmitted"}:
            assert totals.get(kind, 0) == counts.get(kind, 0), kind
    assert families["forwarded"] == len((await rows_of(world.centre.log)).ids)
    return {kind: count for kind, count in totals.items() if count}


async def send_again(world: World, ids: list[str] | None = None) -> dict[str, str]:
    """Send refused parts once more; return what became of each."""
    await world.uplink.resend(ids or [])
    await world.drain()
    return world.uplink.resent


async def test_rows_of_a_foreign_device_are_refused_and_the_rest_is_taken(world: World) -> None:
    """One wrong device costs its own rows: they are counted with the reason, listed, and come up once it is mended."""
    world.centre.owners.foreign.add("d1")
    await world.node.commit([(0, 3), (1, 2)])
    await world.drain()
    totals = await balance(world)
    assert (totals["forwarded"], totals["refused_by_centre.foreign_device"]) == (3, 2)
    [part] = await world.uplink.refused_parts()
    assert (part.kind, part.grade, part.rows, part.reason) == ("readings", 2, 2, "foreign_device")
    assert await send_again(world) == {part.id: "still refused: foreign_device"}
    world.centre.owners.foreign.clear()
    assert await send_again(world) == {part.id: "sent"}
    totals = await balance(world)
    assert totals["forwarded"] == 5
    assert totals["readmitted.foreign_device"] == 2
    assert "refused_by_centre.foreign_device" not in totals
    assert await world.uplink.refused_parts() == []
    await check(world.node, world.centre.log)


async def test_of_rows_of_one_grade_only_those_of_the_device_are_refused(world: World) -> None:
    """A device among others of its grade: the others' rows pass, and its own are named by it."""
    world.centre.owners.foreign.add("d1")
    for _ in range(4):
        await world.node.commit([(0, 3), (1, 2)])
        await world.drain()
    parts = await world.uplink.refused_parts()
    assert [(part.rows, part.spans) for part in parts] == [(8, 4)], "a refusal that goes on is one entry"
    world.centre.owners.foreign.clear()
    await world.node.commit([(1, 1)])
    await world.drain()
    await send_again(world)
    await check(world.node, world.centre.log)


async def test_nothing_is_taken_of_divisions_outside_the_areas(world: World) -> None:
    """A city whose areas were entered wrongly: all of it is refused, as one entry, and comes up when they are right."""
    world.centre.areas = ("4403",)
    for _ in range(5):
        await world.node.commit([(0, 2)], alarm=True)
        await world.drain()
    totals = await balance(world)
    # Its counts name the places, too; they are no counts of rows.
    assert totals["refused_by_centre.area"] == 10
    assert {part.kind for part in await world.uplink.refused_parts()} == {PartKind.READINGS}
    world.centre.areas = ("4401",)
    await send_again(world)
    assert len(await world.uplink.refused_parts()) == 0
    await check(world.node, world.centre.log)


async def test_the_list_outlives_both_processes_and_the_body_is_kept_encrypted(world: World) -> None:
    """Whoever is started again knows it; what was refused first stands encrypted beside its digest."""
    world.centre.owners.foreign.add("d0")
    await world.node.commit([(0, 3)])
    await world.drain()
    world.centre.fresh()
    world.uplink = world.fresh()
    [part] = await world.uplink.refused_parts()
    body = await world.centre.receiver.refused_body(NODE, part.id)
    assert body is not None
    assert b"d0" not in b"".join(entry.payload for entry in await world.centre.log.fetch(0) if "body" in entry.subject)
    world.centre.owners.foreign.clear()
    await send_again(world)
    await check(world.node, world.centre.log)


@pytest.mark.parametrize("fault", ["before", "after", "late", "unsure"])
async def test_what_is_sent_once_more_is_taken_once(world: World, fault: str) -> None:
    """Answers are lost and both processes end at every step of it."""
    world.centre.owners.foreign.update({"d0", "d1"})
    for _ in range(3):
        await world.node.commit([(0, 3), (1, 2)])
        await world.drain()
    world.centre.owners.foreign.clear()
    for _ in range(4):
        with contextlib.suppress(Unavailable):
            await world.uplink.resend()
            world.centre.fault = fault
            await drive(world.clock, world.uplink.forward_backlog())
        await world.centre.land()
        world.centre.fresh()
        world.uplink = world.fresh()
    world.centre.fault = ""
    await send_again(world)
    await balance(world)
    await check(world.node, world.centre.log)


async def test_one_of_several_may_be_named(world: World) -> None:
    """By its id; what is not on the list is not found."""
    world.centre.owners.foreign.update({"d0", "d1"})
    await world.node.commit([(0, 3), (1, 2)])
    await world.drain()
    first, second = await world.uplink.refused_parts()
    world.centre.owners.foreign.clear()
    with pytest.raises(NotFound):
        await world.uplink.resend(["nothing"])
    assert set(await send_again(world, [first.id])) == {first.id}
    assert [part.id for part in await world.uplink.refused_parts()] == [second.id]


async def test_what_orders_had_kept_back_may_be_refused_too(world: World) -> None:
    """It comes up after the order, is refused, and is made once more of what was kept back alone."""
    order = SheddingRule("", "", frozenset({"air_temperature"}))
    await world.node.commit([(0, 2)])
    await world.drain()
    world.shed = [order]
    await world.node.commit([(0, 3)])
    await world.node.commit([(0, 1)], alarm=True)
    await world.drain()
    world.shed = []
    world.centre.owners.foreign.add("d0")
    await world.drain()
    assert (await balance(world))["refused_by_centre.foreign_device"] == 3
    world.centre.owners.foreign.clear()
    await send_again(world)
    totals = await balance(world)
    assert (totals["forwarded"], totals.get("withheld.mode", 0)) == (6, 0)
    await check(world.node, world.centre.log)


async def test_the_node_tells_what_was_refused_and_what_was_taken_after_all(world: World) -> None:
    """Its own ledger has the same words, whatever of them it hears late."""
    carried = UplinkAccounting(NODE, world.node.log, lambda: world.uplink.totals, world.clock, ttl_h=1)
    world.centre.owners.foreign.add("d0")
    await world.node.commit([(0, 3)])
    await world.drain()
    await carried.record()
    assert await own(world) == {"refused_by_centre.foreign_device": 3}
    world.centre.owners.foreign.clear()
    await send_again(world)
    await carried.record()
    assert await own(world) == {"forwarded": 3}


async def own(world: World) -> dict[str, int]:
    """Return what the node's own ledger says was carried."""
    sums = Ledger()
    for entry in await world.node.log.fetch(0, limit=10_000):
        if entry.subject == f"carried.{NODE}":
            sums.merge(Ledger.decode(entry.payload))
    return sums.totals()


# ── a node that lies ────────────────────────────────────────────────────────────────────────────────────


def spoilt(world: World, **changes: object) -> bytes:
    """Return the last span that was sent, with something changed."""
    request = protocol.decode_span_request(world.centre.sent[-1])
    moves = tuple(msgspec.structs.replace(move, base_number=move.base_number + 1) for move in request.updates)
    return protocol.encode(msgspec.structs.replace(request, span_id="another", updates=moves, **changes))


async def sent(world: World) -> SpanRequest:
    """Send a span that is taken; return it."""
    await world.node.commit([(0, 2)])
    await world.drain()
    return protocol.decode_span_request(world.centre.sent[-1])


async def test_what_cannot_be_read_is_refused_with_its_kind_and_grade(world: World) -> None:
    """Garbage in one part: its rows are counted as the node says, the rest is taken; the ledger of both sides holds."""
    request = await sent(world)
    parts = tuple(
        msgspec.structs.replace(part, payload=b"garbage") if part.kind is PartKind.READINGS else part
        for part in request.parts
    )
    before = len((await rows_of(world.centre.log)).ids)
    answer = protocol.decode_span_answer(await world.centre.send_span("live", spoilt(world, parts=parts)))
    assert answer.outcome is protocol.SpanOutcome.ACCEPTED
    assert [(part.reason, part.rows, part.devices) for part in answer.refused] == [("unreadable", 2, 0)]
    assert len((await rows_of(world.centre.log)).ids) == before
    assert answer.lanes[Lane.LIVE].totals["refused_by_centre.unreadable"] == 2


async def test_counts_that_only_the_centre_makes_are_refused(world: World) -> None:
    """A node that says what was forwarded is not believed."""
    request = await sent(world)
    lie = Ledger()
    lie.add(1, "d0", "uplink", "forwarded", 1_000)
    parts = tuple(
        msgspec.structs.replace(part, payload=lie.encode()) if part.kind is PartKind.LEDGER else part
        for part in request.parts
    )
    answer = protocol.decode_span_answer(await world.centre.send_span("live", spoilt(world, parts=parts)))
    assert [(part.kind, part.reason) for part in answer.refused] == [("ledger", "count")]
    assert answer.lanes[Lane.LIVE].totals["forwarded"] == 4


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda request: {"updates": (*request.updates, *request.updates)}, "a lane twice"),
        (lambda request: {"updates": (msgspec.structs.replace(request.updates[0], position=1),)}, "lies before"),
        (
            lambda _: {"updates": (protocol.LaneUpdate(Lane.BACKLOG, 1, 0, ((0, 50),)),)},
            "was not assigned to it",
        ),
        (
            lambda _: {"updates": (protocol.LaneUpdate(Lane.BACKLOG, 1, 10**6),)},
            "lies behind",
        ),
        (lambda _: {"updates": (protocol.LaneUpdate(Lane.LIVE, 2, 10**6, ((0, 5),)),)}, "has ranges"),
    ],
)
async def test_a_span_that_contradicts_the_records_is_refused(world: World, spoil: object, words: str) -> None:
    """Positions rise, ranges lie inside what was given: else nothing of it is written, and the reason is told."""
    request = await sent(world)
    end = (await world.centre.log.bounds())[1]
    changes = {"span_id": "another", **spoil(request)}  # type: ignore[operator]
    moves = tuple(
        msgspec.structs.replace(move, base_number=world.record(move.lane).number) for move in changes.pop("updates")
    )
    bad = protocol.encode(msgspec.structs.replace(request, updates=moves, **changes))
    with pytest.raises(PermissionDenied, match=words):
        await world.centre.send_span("live", bad)
    assert (await world.centre.log.bounds())[1] == end
    assert words in " ".join(world.centre.receiver.health(NODE).problems())


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80" * 100, b"[" * 100_000, protocol.encode({"writer": 3})])
async def test_garbage_is_refused_and_named(world: World, body: bytes) -> None:
    """Whatever comes in the place of a span: refused with what to do, and the next one is taken."""
    await sent(world)
    with pytest.raises(PermissionDenied, match="cannot be read"):
        await world.centre.send_span("live", body)
    await world.node.commit([(0, 1)])
    await world.drain()
    await check(world.node, world.centre.log)


async def test_lives_subjects_and_fences_are_the_centres_own(world: World) -> None:
    """Nothing of a request says under which subject, for how long or over what it is written."""
    written: list[LogMessage] = []
    write = world.centre.log.write

    async def record(members: list[LogMessage]) -> int:
        written.extend(members)
        return await write(members)

    world.centre.log.write = record  # type: ignore[assignment, method-assign]
    await world.node.commit([(0, 2), (1, 1)])
    await world.drain()
    rollups = {member.subject for member in written if member.rollup}
    assert rollups <= {f"commit.{NODE}.live", f"commit.{NODE}.backlog"}
    lives = {member.subject.partition(".")[0]: member.ttl_h for member in written}
    assert lives == {"commit": 0, "readings": 168, "ledger": 168}
    assert all(isinstance(member.expect, int) for member in written if member.subject.startswith("commit."))


async def test_whoever_is_no_member_writes_nothing(world: World) -> None:
    """The other centre asks in the same way as members do, and sends no spans."""
    await world.node.commit([(0, 2)])
    world.centre.receiver = Receiver(
        world.centre.log,
        world.centre.receiver._judge,
        world.clock,
        world.centre.receiver._store,
        members=MemberChecks(admits=lambda member: member != NODE),
    )
    with pytest.raises(PermissionDenied, match="not a member"):
        await world.live()


# ── a span that is refused as a whole ───────────────────────────────────────────────────────────────────


async def step(world: World) -> float | None:
    """Let the live lane try once; return for how long it would wait, None where it was not refused."""
    try:
        await world.live()
    except PermissionDenied as why:
        return world.uplink._note_refusal(Lane.LIVE, why)
    return None


async def test_a_span_that_is_refused_waits_is_told_and_is_skipped_by_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried a few times, then rarely; the operator goes past it, and its rows are counted as skipped."""
    await world.node.commit([(0, 3)])
    await world.drain()
    good = world.centre.receiver.span

    async def refusing(member: str, payload: bytes) -> bytes:
        request = protocol.decode_span_request(payload)
        if any(part.kind is PartKind.READINGS for part in request.parts):
            raise PermissionDenied("span: it meets a bug of the centre; update it")
        return await good(member, payload)

    monkeypatch.setattr(world.centre.receiver, "span", refusing)
    with pytest.raises(Conflict):
        world.uplink.refused_span(Lane.LIVE)
    await world.node.commit([(0, 5)])
    waits = [await step(world) for _ in range(uplink.REFUSED_ATTEMPTS + 2)]
    assert waits == [1.0, 2.0, 4.0, 60.0, 60.0, 60.0]
    assert "sensegate node skip live" in world.uplink.problems[0]
    await world.node.commit([(0, 2)])  # what comes behind it is not skipped with it
    world.uplink.skip(world.uplink.refused_span(Lane.LIVE))
    assert await step(world) is None
    assert world.uplink.totals["withheld.skipped"] == 5
    assert await step(world) == 1.0
    monkeypatch.setattr(world.centre.receiver, "span", good)
    await world.drain()
    assert world.uplink.problems == []
    totals = world.uplink.totals
    assert (totals["accepted"], totals["forwarded"], totals["withheld.skipped"]) == (10, 5, 5)


@pytest.mark.parametrize("same", [True, False])
async def test_rows_that_an_order_withheld_are_not_skipped_with_the_refused_span(
    world: World, monkeypatch: pytest.MonkeyPatch, *, same: bool
) -> None:
    """A range of the backlog is skipped; older rows, or those of its own entries, that an order withheld still come."""
    order = SheddingRule("", "", frozenset({"air_temperature"}))
    await world.node.commit([(0, 2)])
    await world.drain()
    world.shed = [order]
    await world.node.commit([(0, 3)])
    if not same:
        await world.drain()
    await world.node.commit([(1, 5)], alarm=True)  # no order withholds alarms
    await world.clock.advance(10)
    world.uplink = world.fresh()
    await world.live()
    assert len(world.record(Lane.BACKLOG).ranges) == 1
    if not same:
        world.shed = []
        await world.live()
        assert world.record(Lane.BACKLOG).withheld[0].until <= world.record(Lane.BACKLOG).ranges[0][0]
    good = world.centre.receiver.span

    async def refusing(member: str, payload: bytes) -> bytes:
        if any(part.kind is PartKind.READINGS for part in protocol.decode_span_request(payload).parts):
            raise PermissionDenied("span: it meets a bug of the centre; update it")
        return await good(member, payload)

    monkeypatch.setattr(world.centre.receiver, "span", refusing)
    with pytest.raises(PermissionDenied) as why:
        await drive(world.clock, world.uplink.forward_backlog())
    world.uplink._note_refusal(Lane.BACKLOG, why.value)
    world.uplink.skip(world.uplink.refused_span(Lane.BACKLOG))
    await drive(world.clock, world.uplink.forward_backlog())
    monkeypatch.setattr(world.centre.receiver, "span", good)
    world.shed = []
    await world.drain()
    totals = world.uplink.totals
    assert (totals["forwarded"], totals["withheld.skipped"], totals.get("withheld.mode", 0)) == (5, 5, 0)


async def test_a_span_that_is_taken_while_its_skip_is_recorded_is_not_skipped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The centre was mended just then: the operator hears that nothing is refused any more."""

    async def refusing(_member: str, _payload: bytes) -> bytes:
        raise PermissionDenied("span: it meets a bug of the centre; update it")

    await world.node.commit([(0, 3)])
    with monkeypatch.context() as patch:
        patch.setattr(world.centre.receiver, "span", refusing)
        assert await step(world) == 1.0
    span = world.uplink.refused_span(Lane.LIVE)
    await world.drain()
    with pytest.raises(Conflict, match="nothing to skip"):
        world.uplink.skip(span)


async def test_a_skip_that_is_refused_too_is_not_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without its rows it is refused: it waits again, and is told."""

    async def refusing(_member: str, _payload: bytes) -> bytes:
        raise PermissionDenied("span: nothing is taken; update the centre")

    await world.node.commit([(0, 3)])
    await world.drain()
    monkeypatch.setattr(world.centre.receiver, "span", refusing)
    await world.node.commit([(0, 5)])
    assert await step(world) == 1.0
    world.uplink.skip(world.uplink.refused_span(Lane.LIVE))
    assert await step(world) == 2.0
    assert world.uplink._skips == {}


async def test_a_member_that_fills_its_share_waits_and_the_others_go_on(world: World) -> None:
    """Over its share of the log nothing more is taken until some of it has expired: refused with a pause, told."""
    world.centre.fresh(log_share=4e-7)

    async def fill() -> None:
        for _ in range(200):
            await world.node.commit([(0, 40)])
            await world.live()

    with pytest.raises(Overloaded, match="share"):
        await fill()
    assert "share of the log" in world.centre.receiver.health(NODE).problems()[0]
    taken = len((await rows_of(world.centre.log)).ids)
    assert taken > 0
    await world.clock.advance(200 * 3_600)
    await world.node.commit([(0, 3)])
    await world.drain()
    assert world.centre.receiver.health(NODE).problems() == []
    assert world.uplink.totals["forwarded"] == taken + 3


async def test_the_list_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused beyond it is counted all the same."""
    monkeypatch.setattr(refusals, "ENTRIES_MAX", 3)
    for number in range(6):
        world.centre.owners.foreign = {"d0"} if number % 2 else {"d1"}
        await world.node.commit([(0, 1), (1, 1)])
        await world.drain()
    assert len(await world.uplink.refused_parts()) == 3
    assert (await balance(world))["refused_by_centre.foreign_device"] == 6


async def test_a_refusal_that_was_not_written_is_not_counted_with_the_next(world: World) -> None:
    """A span that fails after it was judged leaves nothing behind in the list that goes on."""
    world.centre.owners.foreign.add("d0")
    await world.node.commit([(0, 3)])
    await world.drain()
    await world.node.commit([(0, 2)])
    for fault in ("late", "unsure"):
        world.centre.fault = fault
        with pytest.raises(Unavailable):
            await world.live()
    world.centre.log.fail_next_write(written=False)
    await world.drain()
    assert sum(part.rows for part in await world.uplink.refused_parts()) == 5
    assert (await balance(world))["refused_by_centre.foreign_device"] == 5


async def test_a_large_refusal_is_several_entries(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many devices each, and its rows are counted once."""
    monkeypatch.setattr(refusals, "DEVICES_MAX", 1)
    world.centre.owners.foreign = {"d0", "d1"}
    await world.node.commit([(0, 3), (1, 2)])
    await world.drain()
    assert sorted(part.rows for part in await world.uplink.refused_parts()) == [2, 3]
    world.centre.owners.foreign = set()
    await send_again(world)
    await check(world.node, world.centre.log)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(200 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 8))
async def test_refusals_orders_cuts_and_kills_in_any_order(seed: int) -> None:  # noqa: PLR0912 - one action each
    """Owners change, orders come and go, answers are lost, processes end, parts are sent again: all is up, once."""
    dice = random.Random(seed)
    world = World()
    order = SheddingRule("", "", frozenset({"air_temperature"}))
    actions = (
        *("commit",) * 6, "alarm", *("owners",) * 3, "areas", "order", *("live",) * 8, *("backlog",) * 3,
        "fault", "node", "centre", "wait", "resend",
    )  # fmt: skip
    total = 0
    for _ in range(200):
        match dice.choice(actions):
            case "commit":
                rows = dice.randrange(1, 4)
                await world.node.commit([(0, rows), (1, 1), (2, 1)])
                total += rows + 1
            case "alarm":
                await world.node.commit([(1, 1)], alarm=True)
                total += 1
            case "owners":
                world.centre.owners.foreign = set(dice.sample(["d0", "d1"], dice.randrange(3)))
            case "areas":
                world.centre.areas = (dice.choice(("4401", "4401", "4403")),)
            case "order":
                world.shed = [order] if dice.random() < 0.5 else []
            case "fault":
                world.centre.fault = dice.choice(("before", "after", "late", "unsure"))
            case "node":
                world.uplink = world.fresh()
            case "centre":
                world.centre.fresh()
            case "wait":
                await world.clock.advance(dice.choice((1, 30)))
            case "resend":
                with contextlib.suppress(Unavailable):
                    await world.uplink.resend()
            case lane:
                with contextlib.suppress(Unavailable):
                    await drive(world.clock, getattr(world.uplink, f"forward_{lane}")())
                if dice.random() < 0.5:
                    await world.centre.land()
    world.shed, world.centre.fault = [], ""
    world.centre.owners.foreign, world.centre.areas = set(), ("4401",)
    await world.centre.land()
    world.uplink = world.fresh()
    await world.drain()
    await send_again(world)
    assert await world.uplink.refused_parts() == []
    totals = await balance(world)
    assert totals["forwarded"] == total
    result = await rows_of(world.centre.log)
    assert len(result.ids) == len(set(result.ids)) == total


async def test_control_without_the_lists_fence_rows_are_doubled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an entry that is not taken off in the same write brings its rows twice."""
    monkeypatch.setattr(refusals.RefusedPartList, "resolve", lambda *_: LogMessage("refused.none.none", b"", 1))
    world.centre.owners.foreign.add("d0")
    await world.node.commit([(0, 3)])
    await world.drain()
    world.centre.owners.foreign.clear()
    for _ in range(2):
        await send_again(world)
    with pytest.raises(AssertionError, match="doubled"):
        await check(world.node, world.centre.log)


async def test_refused_parts_are_counted_by_member_and_not_by_division(world: World) -> None:
    """A gateway of a port in a city whose own code is no member's; a member that may send nothing counts as none."""
    port, gone = (
        NodeMember("4401-port", "4401", MembershipState.JOINED),
        NodeMember("4403", "4403", MembershipState.LEFT),
    )
    centre = world.centre
    receiver = Receiver(
        centre.log,
        Judge(lambda member: MemberFacts(member, member, ()), Rules(centre.owners, lambda _name, _dep: 1)),
        world.clock,
        StoreConfig(),
        members=MemberChecks(centre.probe, "4401-port".__eq__),
    )
    with pytest.raises(PermissionDenied):
        await receiver.refused_parts(port.division)
    part = RefusedPart("ab", Lane.LIVE, PartKind.READINGS, "area", SpanSelection(0, 1), "e")
    await centre.log.write([LogMessage(refusals.subject_of(port.id, part.id), protocol.encode_refused_part(part))])
    assert await receiver.refused_count([port, gone]) == 1


async def test_rows_once_more_are_marked_as_late(world: World) -> None:
    """They come behind what was taken since: the flag of the backlog says so."""
    world.centre.owners.foreign.add("d0")
    await world.node.commit([(0, 3)])
    await world.drain()
    world.centre.owners.foreign.clear()
    await send_again(world)
    assert all(flags & Flag.BACKLOG for flags in (await rows_of(world.centre.log)).flags.values())


def test_an_entry_that_cannot_be_read_is_no_entry() -> None:
    """Garbage under a subject of the list names nothing."""
    assert refusals._decode_or_none(b"{") is None
    assert SpanPart(PartKind.LEDGER, b"").rows == 0


async def test_the_log_in_memory_lists_as_the_real_one() -> None:
    """A star stands for one word."""
    log = MemoryLog()
    await log.write([LogMessage(f"refused.{name}", b"x") for name in ("a.1", "a.1.body", "a.2", "b.1")])
    assert [entry.subject for entry in await log.fetch_of("refused.a.*", 0)] == ["refused.a.1", "refused.a.2"]
