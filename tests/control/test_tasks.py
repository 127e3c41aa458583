"""Tasks and mode orders over stores in memory: what was not told to a device is not said to be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.authority.tokens import Tokens
from sensegate.control import tasks as module
from sensegate.control.emergency_grants import EmergencyGrants
from sensegate.control.mode_executor import ModeOrderExecutor
from sensegate.control.modes import EmergencyCommand, ModeOrder, ModePlan, ModeRegistry
from sensegate.control.tasks import Confirmation, TaskQueue, TaskState
from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.model import Readings, Spec
from tests.support.tasks import ADMIN, AnyTask, TaskWorld

WRITER = Principal("writer", Role.CITY_OPERATOR, scope("4401"))
OTHER = Principal("other", Role.CITY_OPERATOR, scope("4403"))


async def made() -> TaskWorld:
    world = TaskWorld()
    await world.open()
    return world


async def test_what_was_sent_nowhere_is_not_done() -> None:
    """A device that listens nowhere: the task waits and expires. The broker is away: nobody says that it was told."""
    world = await made()
    world.topics = ["elsewhere"]
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    await world.tasking._check()
    assert world.states() == [TaskState.QUEUED]
    await world.clock.advance(601)
    await world.tasking._check()
    assert world.states() == [TaskState.EXPIRED]
    world.topics, world.broker.away = ["d/up"], True
    await world.tasking.order(world.device("d2"), "blink", {}, by=ADMIN)
    await world.tasking._check()
    assert world.states()[0] is TaskState.SENT, "once, or not at all: it is not sent again"
    world.broker.away = False
    await world.tasking._check()
    assert world.broker.sent == []
    await world.clock.advance(601)
    await world.tasking._check()
    assert world.states()[0] is TaskState.EXPIRED
    await world.tasking.order(world.device("d2"), "blink", {}, by=ADMIN)
    await world.tasking._check()
    assert world.states()[0] is TaskState.DONE, "negative control"
    assert world.broker.sent == ["d2/down"]


async def test_an_order_tells_a_device_each_of_its_tasks() -> None:
    """Two tasks of one profile: both, each once, also where it is carried out twice."""
    world = await made()
    modes = ModeRegistry(MemoryBucket(), world.trail, world.clock)
    emergency = ModeOrderExecutor(modes, world.tasking, world.devices, world.clock, cast("EmergencyGrants", None))
    tellings = (EmergencyCommand("acme/meter", "faster", {"s": 1}), EmergencyCommand("acme/meter", "blink"))
    plan = ModePlan(name="flood", title="flood", place=Scope("4401"), tasks=tellings)
    written = await modes.write(plan, by=WRITER, revision=0)
    await modes.approve("flood", by=ADMIN, revision=written.revision)
    order = await modes.order("flood", by=WRITER, hours=1, reason="flood")
    await emergency._advance(order)
    commands = sorted((task.device, task.command.task) for task in world.tasks.list(ADMIN))
    assert commands == [("d1", "blink"), ("d1", "faster"), ("d2", "blink"), ("d2", "faster")]
    await emergency._advance(order) if modes.get(order.id, ADMIN) == order else None
    repeated = msgspec.structs.replace(modes.get(order.id, ADMIN), steps=())
    for number, telling in enumerate(tellings):
        await emergency._command(repeated, telling, telling.parameters, "task", str(number))
    assert len(list(world.tasks.list(ADMIN))) == 4


async def test_an_order_tells_devices_no_more_than_its_giver_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that needs a higher role is refused as a step; given by who has the role it is told."""
    world = await made()
    monkeypatch.setattr(AnyTask, "role", Role.PROVINCE_OPERATOR)
    modes = ModeRegistry(MemoryBucket(), world.trail, world.clock)
    emergency = ModeOrderExecutor(modes, world.tasking, world.devices, world.clock, cast("EmergencyGrants", None))
    city = Principal("city", Role.CITY_OPERATOR, scope("4401"))
    for giver, number in ((city, 0), (Principal("province", Role.PROVINCE_OPERATOR, scope("44")), 2)):
        plan = ModePlan(name=giver.id, title="t", place=Scope("4401"), tasks=(EmergencyCommand("acme/meter", "blink"),))
        written = await modes.write(plan, by=giver, revision=0)
        await modes.approve(giver.id, by=ADMIN, revision=written.revision)
        await emergency._advance(await modes.order(giver.id, by=giver, hours=1, reason="r"))
        (order,) = [order for order in modes.orders(ADMIN) if order.by == giver.id]
        assert order.steps[0].count == number, order.steps
        assert ("requires the role province_operator" in order.steps[0].problem) is (number == 0)
    assert len(list(world.tasks.list(ADMIN))) == 2


async def test_nobody_approves_their_own_plan_with_a_token_of_their_own() -> None:
    """Also by way of a token that such a token made; a token of somebody else may."""
    world = await made()
    li, wang = (Principal(f"person:{name}", Role.CITY_OPERATOR, scope("4401"), person=True) for name in ("li", "wang"))
    tokens = Tokens(MemoryBucket(), world.trail, world.clock, present_rights={li.id: li, wang.id: wang}.get)
    modes = ModeRegistry(MemoryBucket(), world.trail, world.clock, person_behind=tokens.person_behind)

    async def token(by: Principal) -> Principal:
        return tokens.verify((await tokens.create(Role.CITY_OPERATOR, Scope("4401"), by=by))[0])

    own, others = await token(li), await token(wang)
    further = await token(own)
    for number, author in enumerate((li, own, further)):
        plan = ModePlan(name=f"p{number}", title="t", place=Scope("4401"), shed=("illuminance",))
        written = await modes.write(plan, by=author, revision=0)
        for approver in (li, own, further):
            with pytest.raises(PermissionDenied, match="their own plans"):
                await modes.approve(plan.name, by=approver, revision=written.revision)
        approved = await modes.approve(plan.name, by=others, revision=written.revision)
        assert approved.approved_by == others.id
    assert tokens.person_behind("x") == "x"


async def test_ended_tasks_are_forgotten_some_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory and in the store; open ones stay, and the count of them is right after a restart."""
    monkeypatch.setattr(module, "ENDED_MAX", 3)
    monkeypatch.setattr(module, "DELETED_AT_ONCE", 2)
    world = await made()
    for _ in range(5):
        await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
        await world.tasking._check()
        await world.clock.advance(1)
    assert len(world.states()) == 5, "negative control"
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    await world.tasking._check()
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    assert sorted(world.states()) == [TaskState.DONE] * 3 + [TaskState.QUEUED]
    reopened = TaskQueue(world.bucket, world.trail, world.clock)
    await reopened.load()
    assert (reopened._open, len(list(reopened.list(ADMIN)))) == (1, 4)
    assert world.tasks._open == 1


async def test_a_plan_is_forgotten_by_who_may_write_it() -> None:
    """Its orders go on; others do not learn of it."""
    world = await made()
    modes = ModeRegistry(bucket := MemoryBucket(), world.trail, world.clock)
    plan = ModePlan(name="flood", title="flood", place=Scope("4401"), shed=("illuminance",))
    written = await modes.write(plan, by=WRITER, revision=0)
    await modes.approve("flood", by=ADMIN, revision=written.revision)
    order = await modes.order("flood", by=WRITER, hours=1, reason="flood")
    with pytest.raises(NotFound):
        await modes.delete("flood", by=OTHER)
    with pytest.raises((NotFound, PermissionDenied)):
        await modes.delete("flood", by=Principal("county", Role.COUNTY_OPERATOR, scope("4401")))
    await modes.delete("flood", by=WRITER)
    with pytest.raises(NotFound):
        modes.plan("flood", WRITER)
    assert modes.get(order.id, WRITER).state == "active"
    assert [row.key for row in (await bucket.load_all())[0]] == [f"order.{order.id}"]
    with pytest.raises((NotFound, Conflict)):
        await modes.delete("flood", by=WRITER)
    await modes.write(plan, by=WRITER, revision=0)


async def test_a_command_is_valid_no_longer_than_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that comes back is not told what has expired, nor twice what is retried meanwhile."""
    world = await made()
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN, expires_s=90)
    await world.clock.advance(30.2)
    await world.tasking._check()
    assert world.broker.valid_s == [59]
    monkeypatch.setattr(AnyTask, "retry_s", 20.0)
    await world.tasking.order(world.device("d2"), "blink", {}, by=ADMIN, expires_s=90)
    await world.tasking._check()
    assert world.broker.valid_s == [59, 20]


async def test_a_device_may_confirm_before_the_sending_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading comes while the broker still takes the command; the same reading before the task confirms nothing."""
    monkeypatch.setattr(AnyTask, "confirm", Confirmation("state", "on"))
    world = await made()
    specs = [cast("Spec", SimpleNamespace(property="state", channel=""))]

    def confirm() -> None:
        columns: dict[str, Any] = dict.fromkeys(("time", "received"), np.full(1, world.clock.now()))
        columns |= {"device": np.full(1, world.devices.find("d1"), np.int32), "spec": np.zeros(1, np.int32)}
        readings = SimpleNamespace(**columns, value=np.ones(1), text={})
        world.tasking.observe_readings(specs, cast("Readings", readings))

    confirm()
    monkeypatch.setattr(world.broker, "on_send", confirm)
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    confirm()
    await world.tasking._check()
    assert world.states() == [TaskState.SENT]
    await world.tasking._check()
    assert world.states() == [TaskState.DONE]


async def test_a_restart_keeps_the_order_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The older task stays the first one, although it was changed last; the newer one waits for its end."""
    monkeypatch.setattr(AnyTask, "confirm", Confirmation("state", "on"))
    world = await made()
    older = await world.tasking.order(world.device("d1"), "on", {}, by=ADMIN)
    await world.clock.advance(1)
    newer = await world.tasking.order(world.device("d1"), "off", {}, by=ADMIN)
    await world.tasking._check()
    assert [task.id for task in world.tasks.due()] == [older.id]
    reopened = TaskQueue(world.bucket, world.trail, world.clock)
    await reopened.load()
    assert [(task.id, task.state) for task in reopened.due()] == [(older.id, TaskState.SENT)]
    (sent,) = reopened.due()
    await reopened.finish(sent, TaskState.DONE)
    assert [task.id for task in reopened.due()] == [newer.id]


async def test_a_confirmation_survives_an_error_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store refuses once: both confirmed tasks are done by the next check, and neither is sent again."""
    monkeypatch.setattr(AnyTask, "confirm", Confirmation("state", "on"))
    monkeypatch.setattr(AnyTask, "retry_s", 20.0)
    world = await made()
    for name in ("d1", "d2"):
        await world.tasking.order(world.device(name), "blink", {}, by=ADMIN)
    await world.tasking._check()
    sent = list(world.broker.sent)
    devices = np.array([world.devices.find(name) for name in ("d1", "d2")], np.int32)
    columns: dict[str, Any] = dict.fromkeys(("time", "received"), np.full(2, world.clock.now()))
    readings = SimpleNamespace(device=devices, spec=np.zeros(2, np.int32), **columns, value=np.ones(2), text={})
    specs = [cast("Spec", SimpleNamespace(property="state", channel=""))]
    world.tasking.observe_readings(specs, cast("Readings", readings))
    finish, failures = world.tasks.finish, [StoreFull("full")]

    async def refusing(*of: Any) -> None:
        if failures:
            raise failures.pop()
        await finish(*of)

    monkeypatch.setattr(world.tasks, "finish", refusing)
    with pytest.raises(StoreFull):
        await world.tasking._check()
    await world.clock.advance(30)
    await world.tasking._check()
    assert world.states() == [TaskState.DONE] * 2
    assert world.broker.sent == sent


async def _seconds_pass(world: TaskWorld) -> None:
    """Let four seconds pass for a task that runs beside the test."""
    for _ in range(4):
        for _ in range(10):
            await asyncio.sleep(0)
        await world.clock.advance(1.0)


async def test_an_outage_of_the_store_does_not_end_the_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store refuses or is away: the dispatcher goes on, and sends the task as soon as it can be marked sent."""
    world = await made()
    mark_sent, failures = world.tasks.mark_sent, [StoreFull("full"), Unavailable("the store does not answer")]

    async def refusing(*of: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return await mark_sent(*of, **more)

    monkeypatch.setattr(world.tasks, "mark_sent", refusing)
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    running = asyncio.create_task(world.tasking.run())
    await _seconds_pass(world)
    assert not running.done()
    assert len(world.broker.sent) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_overloaded_audit_trail_delays_a_mode_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that cannot be recorded yet is taken later; the executor goes on."""
    world = await made()
    modes = ModeRegistry(MemoryBucket(), world.trail, world.clock)
    executor = ModeOrderExecutor(modes, world.tasking, world.devices, world.clock, cast("EmergencyGrants", None))
    plan = ModePlan(name="dark", title="t", place=Scope("4401"), shed=("illuminance",))
    written = await modes.write(plan, by=WRITER, revision=0)
    await modes.approve("dark", by=ADMIN, revision=written.revision)
    order = await modes.order("dark", by=WRITER, hours=1, reason="r")
    record, failures = world.trail.record, [Overloaded("too many processes write to the audit trail at once")]

    async def overloaded(*of: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        await record(*of, **more)

    monkeypatch.setattr(world.trail, "record", overloaded)
    running = asyncio.create_task(executor.run())
    await _seconds_pass(world)
    assert not running.done()
    assert [step.action for step in modes.get(order.id, ADMIN).steps] == ["shed"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _with_short_queues(monkeypatch: pytest.MonkeyPatch) -> tuple[TaskWorld, ModeRegistry, ModeOrderExecutor]:
    """Return a gateway whose devices have room for one task each, with its mode orders and their executor."""
    monkeypatch.setattr(module, "DEVICE_MAX", 1)
    monkeypatch.setattr(AnyTask, "confirm", Confirmation("state", "on"))
    world = await made()
    modes = ModeRegistry(MemoryBucket(), world.trail, world.clock)
    grants = cast("EmergencyGrants", None)
    return world, modes, ModeOrderExecutor(modes, world.tasking, world.devices, world.clock, grants)


async def test_a_full_queue_delays_a_mode_order_for_its_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have their task at once, and each has it once; a full queue is no refusal by a device."""
    world, modes, executor = await _with_short_queues(monkeypatch)
    earlier = await world.tasking.order(world.device("d1"), "earlier", {}, by=ADMIN)
    order = await _dark(modes)
    with pytest.raises(Overloaded, match="1 of 2 devices"):
        await executor._advance(order)
    assert [step.action for step in modes.get(order.id, ADMIN).steps] == ["shed"]
    assert [task.device for task in world.tasks.list(ADMIN) if task.order == order.id] == ["d2"]
    for task in world.tasks.list(ADMIN):
        await world.tasks.finish(task, TaskState.DONE)
    for task in world.tasks.list(ADMIN):
        await world.tasks._tasks.delete(task.id, expected=task.revision)  # as the oldest are in time
    await executor._advance(modes.get(order.id, ADMIN))
    assert [task.device for task in world.tasks.list(ADMIN)] == ["d1"]
    _, step = modes.get(order.id, ADMIN).steps
    assert (step.action, step.count, step.problem) == ("task", 2, "")
    assert earlier.id not in {task.id for task in world.tasks.list(ADMIN)}


async def test_an_order_that_ends_while_a_queue_is_full_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that were told are told the end, though the step was never complete."""
    world, modes, executor = await _with_short_queues(monkeypatch)
    await world.tasking.order(world.device("d1"), "earlier", {}, by=ADMIN)
    order = await _dark(modes)
    with pytest.raises(Overloaded):
        await executor._advance(order)
    await world.clock.advance(3_601)
    for task in world.tasks.list(ADMIN):
        await world.tasks.finish(task, TaskState.EXPIRED)
    await executor._advance(modes.get(order.id, ADMIN))
    ended = modes.get(order.id, ADMIN)
    assert ([step.action for step in ended.steps], ended.state) == (["shed", "task.end", "shed.end"], "ended")
    assert sorted(task.device for task in world.tasks.list(ADMIN) if task.order == f"{order.id}.end") == ["d1", "d2"]
    assert not executor._tasked


async def _dark(modes: ModeRegistry) -> ModeOrder:
    """Order a plan that darkens the meters, and lightens them when it ends."""
    command = EmergencyCommand("acme/meter", "blink", {"on": 0}, {"on": 1})
    plan = ModePlan(name="dark", title="t", place=Scope("4401"), tasks=(command,), shed=("illuminance",))
    written = await modes.write(plan, by=WRITER, revision=0)
    await modes.approve("dark", by=ADMIN, revision=written.revision)
    return await modes.order("dark", by=WRITER, hours=1, reason="r")


async def test_a_device_that_was_heard_during_an_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task for a device that is seldom online is sent by the next check: the next message may be a day away."""
    monkeypatch.setattr(AnyTask, "when_online", True)
    world = await made()
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    await world.tasking._check()
    world.tasking._heard.add(world.devices.find("d1"))
    mark_sent, failures = world.tasks.mark_sent, [Unavailable("the store does not answer")]

    async def refusing(*of: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return await mark_sent(*of, **more)

    monkeypatch.setattr(world.tasks, "mark_sent", refusing)
    with pytest.raises(Unavailable):
        await world.tasking._check()
    assert world.broker.sent == []
    await world.tasking._check()
    assert world.broker.sent == ["d1/down"]
    assert not world.tasking._heard


async def test_an_overloaded_audit_trail_does_not_end_the_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a task cannot be recorded yet: the dispatcher goes on, and ends it later."""
    world = await made()
    record, failures = world.trail.record, [Overloaded("too many processes write to the audit trail at once")]

    async def overloaded(*of: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        await record(*of, **more)

    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    await world.tasking.order(world.device("d2"), "blink", {}, by=ADMIN)
    world.topics = ["elsewhere"]  # so that they expire
    await world.clock.advance(601)
    monkeypatch.setattr(world.trail, "record", overloaded)
    running = asyncio.create_task(world.tasking.run())
    await _seconds_pass(world)
    assert not running.done()
    assert world.states() == [TaskState.EXPIRED] * 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
