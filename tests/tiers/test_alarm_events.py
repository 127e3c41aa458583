"""Events of alarms go up to the centre: each once, in no ledger, and refused like rows of their device."""

from __future__ import annotations

import contextlib
import math

import pytest

from sensegate.alarms.records import AlarmEvent, AlarmKey, AlarmSubject, event_batch, open_alarm
from sensegate.alarms.rules import AlarmKind, AlarmRule
from sensegate.bus import columns
from sensegate.bus.batch import Batch
from sensegate.errors import Unavailable
from sensegate.model import LogMessage
from sensegate.tiers.protocol import PartKind
from sensegate.tiers.span import Packer
from sensegate.tiers.verdict import Rules
from tests.tiers.made import NODE
from tests.tiers.world import World

RULE = AlarmRule(name="high", kind=AlarmKind.THRESHOLD, property="air_temperature", above=30.0)


def event_of(device: str, time: int, *, node: str = NODE, grade: int = 1) -> AlarmEvent:
    """Return the event of an alarm that opens; without a device it is the gateway's."""
    subject = AlarmSubject("440106", lon=math.nan, lat=math.nan, grade=grade)
    alarm = open_alarm(RULE, AlarmKey("high", node, device), subject, time=time, now=time, position=1)
    return AlarmEvent("opened", alarm, time)


async def write_event(world: World, device: str, *, grade: int = 1) -> None:
    """Write an event to the node's log, as its engine of alarms does."""
    now = world.clock.now()
    payload = event_batch([event_of(device, now, grade=grade)], node=NODE, partition=0, now=now)
    await world.node.log.write([LogMessage(f"alarms.{NODE}.own.{grade}", payload, 168)])


async def events_at_centre(world: World) -> list[tuple[str, str, str]]:
    """Return (subject, record id, device) of all events on the centre's log."""
    rows = []
    for entry in await world.centre.log.fetch(0, limit=10_000):
        if entry.subject.startswith("alarms."):
            batch = columns.decode(entry.payload, sequence=entry.sequence)
            rows += [
                (entry.subject, batch.record_id(row), batch.origins.device[int(batch.origin[row])])
                for row in range(len(batch))
            ]
    return rows


def ids_of(batch: Batch) -> list[str]:
    """Return the record ids of a batch."""
    return [batch.record_id(row) for row in range(len(batch))]


@pytest.mark.parametrize("fault", ["", "before", "after", "unsure"])
async def test_events_reach_the_centre_exactly_once(world: World, fault: str) -> None:
    """With the id that they have at the node, whatever request or answer is lost; no ledger counts them."""
    await world.node.commit([(0, 2)])
    await write_event(world, "d0")
    await write_event(world, "")
    world.centre.fault = fault
    await write_event(world, "d1", grade=2)
    for _ in range(4):
        with contextlib.suppress(Unavailable):  # sent again
            await world.drain()
    sent = [
        (entry.subject.replace(".own.", ".all."), record_id)
        for entry in await world.node.log.fetch(0, limit=1_000)
        if entry.subject.startswith("alarms.")
        for record_id in ids_of(columns.decode(entry.payload, sequence=entry.sequence))
    ]
    arrived = await events_at_centre(world)
    assert sorted((subject, record_id) for subject, record_id, _ in arrived) == sorted(sent)
    assert sorted(device for *_, device in arrived) == [NODE, "d0", "d1"]
    assert (await world.ledger_totals())["forwarded"] == 2, "two readings, and no event"


async def test_events_above_the_shared_grade_stay(world: World) -> None:
    """An event of a device of grade 4 is not forwarded, as its readings are not; the ledger does not count it."""
    await write_event(world, "d2", grade=4)
    await world.node.commit([(0, 1)])
    await world.drain()
    assert await events_at_centre(world) == []
    assert not [kind for kind in await world.ledger_totals() if kind.startswith("withheld")]


async def test_events_of_a_foreign_device_are_refused_and_sent_again(world: World) -> None:
    """Listed with the reason, and sent once more when the device belongs to the node; no ledger counts them."""
    world.centre.owners.foreign.add("d0")
    await write_event(world, "d0")
    await write_event(world, "d1")
    await world.drain()
    assert [device for *_, device in await events_at_centre(world)] == ["d1"]
    [part] = await world.uplink.refused_parts()
    assert (part.kind, part.rows, part.reason) == (PartKind.ALARMS, 1, "foreign_device")
    world.centre.owners.foreign.clear()
    await world.uplink.resend([])
    await world.drain()
    assert sorted(device for *_, device in await events_at_centre(world)) == ["d0", "d1"]
    assert not [kind for kind in await world.ledger_totals() if "refused" in kind]


async def test_events_lead_a_span_and_claim_no_device(world: World) -> None:
    """An event goes before the readings of its span; a device is owned by whoever sends its readings first."""
    await world.node.commit([(0, 2)])
    await write_event(world, "d0")
    parts = Packer(3).pack(await world.node.log.fetch(0)).parts
    assert [part.kind for part in parts[:2]] == [PartKind.ALARMS, PartKind.READINGS]

    class Unowned:
        def owner(self, _device: str) -> str:
            return ""

        def may_send(self, _member: str, _device: str) -> bool:
            return True

        def room(self, _member: str) -> int:
            return 10

    judge = world.centre.receiver._judge
    judge._rules = Rules(Unowned(), lambda _name, _department: 1, knows_property=lambda _name: False)
    verdict = judge.judge(NODE, parts[:1], world.clock.now())
    assert (verdict.rows, verdict.claims, dict(verdict.marks)) == (1, [], {})
    assert judge.judge(NODE, parts[1:2], world.clock.now()).claims == ["d0"]


async def test_the_limit_of_devices_refuses_no_event(world: World) -> None:
    """An event makes its sender the owner of no device, so that a member without room for more still reports alarms."""
    await world.node.commit([(0, 2)])
    await write_event(world, "d0")
    parts = Packer(3).pack(await world.node.log.fetch(0)).parts

    class Full:
        def owner(self, _device: str) -> str:
            return ""

        def may_send(self, _member: str, _device: str) -> bool:
            return True

        def room(self, _member: str) -> int:
            return 0

    judge = world.centre.receiver._judge
    judge._rules = Rules(Full(), lambda _name, _department: 1)
    verdict = judge.judge(NODE, parts[:1], world.clock.now())
    assert (verdict.rows, verdict.claims, list(verdict.refusals)) == (1, [], [])
    readings = judge.judge(NODE, parts[1:2], world.clock.now())
    assert [refusal.reason for refusal in readings.refusals] == ["device_limit"], "control"
