"""Frames for devices behind network servers, over stores in memory: their states, through restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sensegate.control.capabilities import NetworkRoute
from sensegate.control.commands import CommandDispatcher, _without_route
from sensegate.control.tasks import Command, Confirmation, DeviceTask, FrameCommand, Scalar, TaskQueue, TaskState
from sensegate.decode import downlink
from sensegate.decode.downlink import uuid_of
from sensegate.decode.grammar import DownlinkEventPart, DownlinkPart
from sensegate.errors import Conflict
from sensegate.model import Device, Message, MessageBatch
from tests.share.made import NOW
from tests.support.tasks import ADMIN, AnyTask, TaskWorld

PART = DownlinkPart(
    topics={"/event/up": "/command/down"},
    json={"id": "{uuid}", "data": "{base64}"},
    events=(
        DownlinkEventPart(topic="/event/txack", id="id", state="transmitted"),
        DownlinkEventPart(topic="/event/ack", where={"ok": True}, id="id", state="acknowledged"),
        DownlinkEventPart(topic="/event/ack", id="id", state="failed"),
    ),
)


class Behind(AnyTask):
    """Every device is behind a network server."""

    def __init__(
        self, *, confirmed: bool, confirm: Confirmation | None = None, part: DownlinkPart | None = PART
    ) -> None:
        super().__init__()
        self.confirmed, self.confirm, self.part = confirmed, confirm, part

    def command_for(self, device: Device, task: str, parameters: Mapping[str, Scalar]) -> Command:
        frame = FrameCommand(10, self.confirmed)
        return Command(task, device.profile, dict(parameters), (), b"x", self.confirm, frame=frame)

    def network_of(self, device: Device, uplink_topic: str, *, replace: bool = False) -> NetworkRoute | None:
        route = self.part and downlink.find_route(self.part, uplink_topic, replace=replace)
        return NetworkRoute("acme/server", self.part, route) if self.part and route else None

    def downlink_of(self, server: str) -> DownlinkPart | None:
        return self.part


class Network(TaskWorld):
    """A world whose devices are behind a network server."""

    def dispatch(self, tasking: Behind) -> None:
        """Begin anew with what the bucket holds, as after a restart."""
        self.tasking = CommandDispatcher(
            self.tasks, self.devices, tasking, self.clock, channels=(self.broker,), topics=lambda _: self.topics
        )

    async def hear(self, topic: str, **members: Any) -> None:
        """Have a message of the first device's arrive."""
        at = self.devices.find("d1")
        heard = [at] if topic.endswith("/up") else []
        readings = SimpleNamespace(device=np.array(heard, np.int32), message=np.zeros(len(heard), np.int32), spec=None)
        readings.spec = readings.message
        span = MessageBatch([Message(f"app/1/device/d1{topic}", json.dumps(members).encode(), NOW, 1)])
        specs = [cast("Any", SimpleNamespace(property="", channel=""))]
        self.tasking.observe(specs, span, cast("Any", readings))
        await self.tasking._check()

    @property
    def task(self) -> DeviceTask:
        (task,) = self.tasks.list(ADMIN)
        return task


async def ordered(tasking: Behind) -> Network:
    """Return a network with a task for the first device, sent when it was heard."""
    world = Network()
    await world.open()
    world.dispatch(tasking)
    await world.tasking.order(world.device("d1"), "blink", {}, by=ADMIN)
    await world.tasking._check()
    assert (world.task.state, world.broker.sent) == (TaskState.QUEUED, [])
    await world.hear("/event/up")
    return world


@pytest.mark.parametrize(
    ("confirmed", "reading", "states"),
    [
        (False, False, ["done"]),
        (True, False, ["transmitted", "done"]),
        (False, True, ["transmitted", "acknowledged"]),
        (True, True, ["transmitted", "acknowledged"]),
    ],
)
async def test_a_task_ends_at_the_last_that_it_can_expect(
    confirmed: bool,  # noqa: FBT001 - one of the columns
    reading: bool,  # noqa: FBT001 - the same
    states: list[str],
) -> None:
    """Transmitted, acknowledged, or the reading; also if the gateway is restarted in between."""
    tasking = Behind(confirmed=confirmed, confirm=Confirmation("state", "on") if reading else None)
    world = await ordered(tasking)
    assert (world.task.state, world.broker.sent) == (TaskState.SENT, ["app/1/device/d1/command/down"])
    world.dispatch(tasking)
    await world.tasking._check()
    results = []
    for topic, members in (("/event/txack", {}), ("/event/ack", {"ok": True})):
        await world.hear(topic, id=uuid_of("f" * 20), **members)  # of another downlink
        await world.hear(topic, id=uuid_of(world.task.id), **members)
        results.append(world.task.state.value)
    assert list(dict.fromkeys(results)) == states
    assert world.broker.sent == ["app/1/device/d1/command/down"], "once"


async def test_a_frame_that_is_lost_fails() -> None:
    """Not acknowledged: failed, and what comes later changes nothing."""
    world = await ordered(Behind(confirmed=True))
    await world.hear("/event/ack", id=uuid_of(world.task.id), ok=False)
    assert world.task.state is TaskState.FAILED
    await world.hear("/event/ack", id=uuid_of(world.task.id), ok=True)
    assert world.task.state is TaskState.FAILED


async def test_a_server_that_takes_no_downlinks_is_told_as_the_reason() -> None:
    """The device was heard, and there is no way down to it."""
    world = await ordered(Behind(confirmed=True, part=None))
    assert (world.task.state, "takes no downlinks" in world.task.reason) == (TaskState.FAILED, True)
    assert world.broker.sent == []


@pytest.mark.parametrize(
    ("topic", "reason"),
    [("http/server-1", "have it publish by MQTT as well"), ("elsewhere/d0", "by this topic: see `downlink`")],
)
def test_why_no_downlink_can_go(topic: str, reason: str) -> None:
    """A server that pushes by HTTP brings no downlinks, and its user is told what to do."""
    assert reason in _without_route(topic)


async def test_a_frame_under_way_is_not_taken_back() -> None:
    """It may have been done; one that was not transmitted in time expires."""
    world = await ordered(Behind(confirmed=True))
    with pytest.raises(Conflict):
        await world.tasks.cancel(world.task.id, by=ADMIN)
    await world.clock.advance(601)
    await world.tasking._check()
    assert world.task.state is TaskState.EXPIRED
    assert isinstance(world.tasks, TaskQueue)
