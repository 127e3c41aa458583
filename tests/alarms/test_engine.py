"""The engine: each violation is one alarm and each event is in the feed once, whenever the process dies."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest

from sensegate.alarms import engine as engines
from sensegate.alarms import states
from sensegate.alarms.conditions import ReadingConditions
from sensegate.alarms.records import Alarm, AlarmState
from sensegate.alarms.rules import AlarmKind, AlarmRule
from sensegate.alarms.states import AlarmStates
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied, Unavailable
from sensegate.model import Device, QualityRow
from tests.alarms.made import AUDITOR, HIGH, OPERATOR, OTHER, Gateway, process
from tests.conftest import eventually
from tests.share.made import DEVICES, NOW

VALUES = (10.0, 80.0, 78.0, 72.0, 69.0, 90.0, 91.0, 10.0, 76.0)
EXPECTED = ["opened", "closed", "opened", "closed", "opened"]


async def test_an_alarm_opens_once_and_closes_by_hysteresis() -> None:
    """The feed has each event once; the state is that of the last."""
    gateway = Gateway(HIGH)
    async with process(gateway) as running:
        for value in VALUES:
            await gateway.commit(value)
            await running.step()
        assert [event for event, _, _ in gateway.events()] == EXPECTED
        (alarm,) = running.operations.list(OPERATOR)
        assert (alarm.state, alarm.value, alarm.key.device) == (AlarmState.OPEN, 76.0, DEVICES[0].device)
        assert running.engine.warnings() == ["alarms: 1 open, the worst is warning; see `sensegate alarm list`"]
        assert running.operations.list(OTHER) == []


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", range(len(VALUES) + 1))
@pytest.mark.parametrize("written", [None, True, False])
async def test_a_kill_at_any_moment_loses_and_doubles_no_event(kill_after: int, *, written: bool | None) -> None:
    """Also where the last write has an unknown outcome, with or without effect."""
    gateway = Gateway(HIGH)
    async with process(gateway) as first:
        await gateway.commit(10.0)
        await first.step()
        await first.states.write([], position=(await gateway.log.bounds())[1])
        for value in VALUES[:kill_after]:
            await gateway.commit(value)
            await first.step()
    async with process(gateway) as second:
        for value in VALUES[kill_after:]:
            await gateway.commit(value)
        if written is not None:
            gateway.log.fail_next_write(written=written)
        with contextlib.suppress(Unavailable):
            await second.step()
        gateway.log._failure_pending = None
    async with process(gateway) as third:
        await third.step()
    assert [event for event, _, _ in gateway.events()] == EXPECTED


async def test_without_the_position_of_a_state_events_are_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: entries that are read again after a kill are judged again, if the state does not say that they were."""
    gateway = Gateway(HIGH)
    judge_row = ReadingConditions._judge_row

    def forgetful(self: ReadingConditions, *args: Any) -> Any:
        alarm_of = self._alarm_of
        self._alarm_of = lambda key: None if alarm_of(key) is None else _at_the_beginning(alarm_of(key))
        try:
            return judge_row(self, *args)
        finally:
            self._alarm_of = alarm_of

    monkeypatch.setattr(ReadingConditions, "_judge_row", forgetful)
    async with process(gateway) as first:
        await gateway.commit(10.0)
        await first.step()
        await first.states.write([], position=(await gateway.log.bounds())[1])
        for value in VALUES:
            await gateway.commit(value)
            await first.step()
            # The position stays behind, as after a kill before it was written.
    monkeypatch.setattr(AlarmStates, "position", property(lambda _self: 5, lambda _self, _value: None), raising=False)
    async with process(gateway) as second:
        await second.step()
    assert len(gateway.events()) > len(EXPECTED)


def _at_the_beginning(alarm: Alarm | None) -> Alarm | None:
    return msgspec.structs.replace(alarm, position=0, changed=0) if alarm else None


async def quarters(gateway: Gateway, *values: float) -> None:
    """Write a reading every fifteen minutes, each judged by a process of its own."""
    for value in values:
        async with process(gateway) as running:
            await gateway.clock.advance(14 * 60)
            await gateway.commit(value)
            await running.step()


async def test_a_violation_of_hours_is_counted_through_restarts() -> None:
    """A violation of three hours counts from its first reading, although a restart reads only an hour of the log."""
    gateway = Gateway(msgspec.structs.replace(HIGH, for_s=3 * 3_600.0))
    await quarters(gateway, 10.0, *[80.0] * 12)
    assert gateway.events() == []
    await quarters(gateway, 80.0)
    assert [event for event, _, _ in gateway.events()] == ["opened"]


async def test_a_violation_of_hours_that_ends_in_between_begins_anew() -> None:
    """One good reading ends a violation, even the first reading after a restart."""
    gateway = Gateway(msgspec.structs.replace(HIGH, for_s=3 * 3_600.0))
    await quarters(gateway, 10.0, *[80.0] * 11, 60.0, *[80.0] * 12)
    assert gateway.events() == []
    await quarters(gateway, 80.0)
    assert [event for event, _, _ in gateway.events()] == ["opened"]


async def test_without_what_was_pending_a_restart_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: an hour of the log does not say since when a violation lasts."""
    monkeypatch.setattr(ReadingConditions, "resume", lambda _self, _pending: None)
    gateway = Gateway(msgspec.structs.replace(HIGH, for_s=3 * 3_600.0))
    await quarters(gateway, 10.0, *[80.0] * 16)
    assert gateway.events() == []


async def test_channels_of_a_device_have_alarms_of_their_own() -> None:
    """Each opens and closes by its own readings; a rule of one channel leaves the other alone."""
    gateway = Gateway(HIGH, msgspec.structs.replace(HIGH, name="b only", channel="b"))
    async with process(gateway) as running:
        for name, value in (("pm2_5", 80.0), ("pm2_5#b", 90.0), ("pm2_5", 10.0)):
            await gateway.commit(value, name=name)
            await running.step()
        states = {(alarm.key.rule, alarm.key.property): alarm.state for alarm in running.states.all()}
    assert states == {
        ("high", "pm2_5"): AlarmState.CLOSED,
        ("high", "pm2_5#b"): AlarmState.OPEN,
        ("b only", "pm2_5#b"): AlarmState.OPEN,
    }


async def test_a_changed_rule_judges_an_open_alarm_by_the_next_reading() -> None:
    """A limit that is raised closes it, one that is lowered again opens a further alarm; each once."""
    gateway = Gateway()
    async with process(gateway) as running:
        rule = await running.rules.put(HIGH, revision=0, by=OPERATOR)
        for above in (75.0, 100.0, 75.0):
            if above != rule.above:
                changed = msgspec.structs.replace(rule, above=above)
                rule = await running.rules.put(changed, revision=rule.revision, by=OPERATOR)
            await gateway.commit(80.0)
            await running.step()
    assert [event for event, _, _ in gateway.events()] == ["opened", "closed", "opened"]


@pytest.mark.parametrize(
    "changes",
    [
        {"property": "pm10"},
        {"channel": "b"},
        {"kind": AlarmKind.SILENCE, "above": None, "margin": 0.0, "property": ""},
        {"place": Scope("440105")},
        {"place": Scope("4401", "water")},
        {"domain": "water"},
        {"profile": "other/maker"},
        {"device": "another"},
    ],
    ids=",".join,
)
async def test_an_alarm_closes_when_its_rule_is_for_others(changes: dict[str, Any]) -> None:
    """No reading would close it: those of its series are not compared with the rule any more."""
    gateway = Gateway()
    async with process(gateway) as running:
        rule = await running.rules.put(HIGH, revision=0, by=OPERATOR)
        await gateway.commit(80.0)
        await running.step()
        await gateway.clock.advance(engines.TICK_S)
        await running.step()
        assert [alarm.is_open for alarm in running.states.all()] == [True], "control: unchanged, it stays open"
        await running.rules.put(msgspec.structs.replace(rule, **changes), revision=rule.revision, by=OPERATOR)
        await gateway.clock.advance(engines.TICK_S)
        await running.step()
        (alarm,) = running.states.all()
        assert (alarm.state, alarm.reason) == (AlarmState.CLOSED, "the rule no longer applies to it")


async def test_a_quality_alarm_closes_when_its_device_leaves_the_place_of_the_rule() -> None:
    """Its indicators are of no concern to the rule from then on."""
    rule = AlarmRule(name="poor", kind=AlarmKind.QUALITY, indicator="completeness", below=0.8, place=Scope("440106"))
    gateway = Gateway(rule)
    await gateway.devices.add(Device("d1", "440106", "acme/th10"), by=OPERATOR)
    async with process(gateway) as running:
        await gateway.clock.advance(3_600)
        hour = gateway.clock.now() // 3_600_000_000 * 3_600_000_000 - 3_600_000_000
        gateway.quality = [QualityRow("d1", hour, 1, None, None, None, 0.5)]
        await running.step()
        gateway.of_profiles = [msgspec.structs.replace(rule, place=Scope("440105"))]
        await gateway.clock.advance(engines.TICK_S)
        await running.step()
        assert [event for event, _, _ in gateway.events()] == ["opened", "closed"]


async def test_a_device_that_is_enabled_again_opens_its_alarm_again() -> None:
    """Its value was never normal in between."""
    gateway = Gateway(HIGH)
    await gateway.devices.add(Device(DEVICES[0].device, "440106", "acme/th10"), by=OPERATOR)
    async with process(gateway) as running:
        await gateway.commit(80.0)
        await running.step()
        await gateway.devices.disable(DEVICES[0].device, by=OPERATOR)
        await gateway.clock.advance(engines.TICK_S)
        await running.step()
        await gateway.devices.enable(DEVICES[0].device, by=OPERATOR)
        await gateway.commit(81.0)
        await running.step()
        assert [event for event, _, _ in gateway.events()] == ["opened", "closed", "opened"]


async def test_closed_alarms_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where all that are held are open does none open; one that was forgotten opens again, also after a start."""
    monkeypatch.setattr(states, "ALARMS_MAX", 2)
    gateway = Gateway(HIGH)
    async with process(gateway) as running:
        for device, value in ((0, 80.0), (0, 10.0), (1, 80.0), (1, 10.0), (2, 80.0), (0, 81.0), (1, 82.0)):
            await gateway.commit(value, device=device)
            await running.step()
        opened = [DEVICES[at].device for at in (0, 1, 2, 0)]
        assert [device for event, _, device in gateway.events() if event == "opened"] == opened
        assert running.states.room == 0
        await gateway.commit(10.0, device=2)
        await gateway.commit(83.0, device=1)  # it still lasts
        await running.step()
    async with process(gateway) as running:
        assert {alarm.key.device for alarm in running.states.open_alarms()} == {DEVICES[at].device for at in (0, 1)}
        assert len(running.states.all()) == 2


async def test_acknowledged_silenced_and_closed() -> None:
    """Each act is an event and on the trail; a silence holds where the alarm opens anew."""
    gateway = Gateway(HIGH)
    async with process(gateway) as running:
        await gateway.commit(80.0)
        await running.step()
        (alarm,) = running.operations.list(OPERATOR)
        with pytest.raises(NotFound):
            await running.operations.acknowledge(alarm.id, note="", by=OTHER)
        with pytest.raises(NotFound):
            await running.operations.acknowledge(alarm.id, note="", by=AUDITOR)
        done = await running.operations.acknowledge(alarm.id, note="on my way", by=OPERATOR)
        assert (done.state, done.acknowledged_by, done.note) == (AlarmState.ACKNOWLEDGED, "op", "on my way")
        acknowledged = gateway.clock.now()
        assert done.acknowledged == acknowledged
        await gateway.clock.advance(60)
        with pytest.raises(Conflict):
            await running.operations.acknowledge(alarm.id, note="", by=OPERATOR)
        silenced = await running.operations.silence(alarm.id, seconds=3_600, note="", by=OPERATOR)
        assert silenced.silenced_until > gateway.clock.now()
        assert silenced.acknowledged == acknowledged, "a silence does not move it"
    async with process(gateway) as running:
        await gateway.commit(10.0)
        await gateway.commit(90.0)
        await running.step()
        (repeated,) = running.operations.list(OPERATOR)
        assert repeated.id != alarm.id
        assert (repeated.state, repeated.silenced_until) == (AlarmState.OPEN, silenced.silenced_until)
        assert running.states.get(alarm.id) is None
    assert [event for event, _, _ in gateway.events()] == ["opened", "acknowledged", "silenced", "closed", "opened"]
    actions = [action for _, action, *_ in gateway.trail.records]
    assert actions == ["alarm.acknowledge", "alarm.silence"]


async def test_a_silence_that_is_being_written_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm that closes while the log writes its acknowledgement and silence keeps both."""
    gateway = Gateway(HIGH)
    async with process(gateway) as running:
        await gateway.commit(80.0)
        await running.step()
        (alarm,) = running.operations.list(OPERATOR)
        await gateway.commit(10.0)
        _, end = await gateway.log.bounds()
        await eventually(lambda: running.reader.end >= end)
        write, is_writing, may_write = gateway.log.write, asyncio.Event(), asyncio.Event()

        async def slow(messages: Any) -> int:
            is_writing.set()
            await may_write.wait()
            return await write(messages)

        monkeypatch.setattr(gateway.log, "write", slow)
        acting = asyncio.create_task(running.operations.silence(alarm.id, seconds=3_600, note="pump", by=OPERATOR))
        await is_writing.wait()
        judging = asyncio.create_task(running.engine.step())
        for _ in range(50):  # until it waits for the first writing
            await asyncio.sleep(0)
        may_write.set()
        silenced = await acting
        await judging
        (closed,) = running.operations.list(OPERATOR)
        assert closed.state is AlarmState.CLOSED
        assert (closed.silenced_until, closed.note) == (silenced.silenced_until, "pump")
    assert [event for event, _, _ in gateway.events()] == ["opened", "silenced", "closed"]


async def test_silence_of_a_device() -> None:
    """It opens when nothing was heard for longer than expected, and closes when the device speaks or is disabled."""
    gateway = Gateway(AlarmRule(name="quiet", kind=AlarmKind.SILENCE, place=Scope("4401")))
    for name in ("d1", "d2", "never"):
        await gateway.devices.add(Device(name, "440106", "acme/th10", interval_s=60), by=OPERATOR)
    gateway.devices.observe(np.array([0, 1], np.int32), np.array([NOW, NOW], np.int64))
    async with process(gateway) as running:
        await running.step()
        assert gateway.events() == []
        await gateway.clock.advance(200)
        await running.step()
        assert sorted(gateway.events()) == [("opened", "quiet", "d1"), ("opened", "quiet", "d2")]
        gateway.devices.observe(np.array([0], np.int32), np.array([gateway.clock.now()], np.int64))
        await gateway.devices.disable("d2", by=OPERATOR)
        await gateway.clock.advance(10)
        await running.step()
        assert sorted(gateway.events()[2:]) == [("closed", "quiet", "d1"), ("closed", "quiet", "d2")]
        reasons = {alarm.key.device: alarm.reason for alarm in running.states.all()}
        assert reasons == {"d1": "", "d2": "the device is disabled or retired"}


async def test_quality_of_the_last_hour() -> None:
    """The indicator of the last full hour decides."""
    rule = AlarmRule(name="poor", kind=AlarmKind.QUALITY, indicator="completeness", below=0.8, margin=0.1)
    gateway = Gateway(msgspec.structs.replace(rule, place=Scope("4401")))
    await gateway.devices.add(Device("d1", "440106", "acme/th10"), by=OPERATOR)
    async with process(gateway) as running:
        for completeness, events in ((0.85, 0), (0.5, 1), (0.85, 1), (0.95, 2), (None, 2)):
            await gateway.clock.advance(3_600)
            hour = gateway.clock.now() // 3_600_000_000 * 3_600_000_000 - 3_600_000_000
            gateway.quality = [QualityRow("d1", hour, 1, None, None, None, completeness)]
            await running.step()
            assert len(gateway.events()) == events


async def test_a_rule_of_the_gateway_lasts_before_it_opens() -> None:
    """The lag must be there for five minutes; an operator's rule of the kind replaces the built-in one."""
    gateway = Gateway()
    async with process(gateway) as running:
        gateway.lag = 200_000
        for minutes in range(8):
            await running.step()
            assert len(gateway.events()) == int(minutes >= 5)
            await gateway.clock.advance(60)
        assert gateway.events() == [("opened", "gateway:lag", "4401")]
        own = AlarmRule(name="lag", kind=AlarmKind.LAG, above=10.0, place=Scope("4401"))
        await running.rules.put(own, revision=0, by=OPERATOR)
        await running.step()
        await gateway.clock.advance(60)
        await running.step()
        assert set(gateway.events()[1:]) == {("closed", "gateway:lag", "4401"), ("opened", "lag", "4401")}


async def test_a_rule_of_the_gateway_is_not_replaced_from_a_part_of_its_area() -> None:
    """A condition of the gateway concerns all who use it."""
    county = Principal("county", Role.CITY_OPERATOR, Scope("440106"))
    gateway = Gateway()
    async with process(gateway) as running:
        off = AlarmRule(name="off", kind=AlarmKind.STORE_MISSING, above=0.0, enabled=False, place=Scope("440106"))
        with pytest.raises(ConfigError, match="place"):
            await running.rules.put(off, revision=0, by=county)
        with pytest.raises(PermissionDenied):
            await running.rules.put(msgspec.structs.replace(off, place=Scope("4401")), revision=0, by=county)
        await running.rules._own.put("off", off, expected=0)  # one that an earlier release accepted has no effect
        assert "gateway:store" in [rule.name for rule in running.rules.in_force()]
        await running.rules.put(msgspec.structs.replace(off, name="city", place=Scope("4401")), revision=0, by=OPERATOR)
        assert "gateway:store" not in [rule.name for rule in running.rules.in_force()]


async def test_rules_of_operators_stay_within_their_scope() -> None:
    """Written as of a revision, audited, deleted with their alarms."""
    gateway = Gateway()
    async with process(gateway) as running:
        rule = await running.rules.put(HIGH, revision=0, by=OPERATOR)
        with pytest.raises(Conflict):
            await running.rules.put(HIGH, revision=0, by=OPERATOR)
        with pytest.raises(PermissionDenied):
            await running.rules.put(msgspec.structs.replace(HIGH, place=Scope("44")), revision=0, by=OPERATOR)
        with pytest.raises(Conflict, match="another scope"):
            await running.rules.put(msgspec.structs.replace(HIGH, place=Scope("4403")), revision=0, by=OTHER)
        with pytest.raises(ConfigError, match="name"):
            await running.rules.put(msgspec.structs.replace(HIGH, name="a/b:c"), revision=0, by=OPERATOR)
        assert "high" not in [rule.name for rule in running.rules.visible(OTHER)]
        await gateway.commit(80.0)
        await running.step()
        await running.rules.delete(rule.name, by=OPERATOR)
        await gateway.clock.advance(engines.TICK_S)
        await running.step()
        assert [event for event, _, _ in gateway.events()] == ["opened", "closed"]
        with pytest.raises(Conflict, match="not an operator's"):
            await running.rules.delete("gateway:disk", by=OPERATOR)
    assert [action for _, action, *_ in gateway.trail.records] == ["alarm.rule.put", "alarm.rule.delete"]
