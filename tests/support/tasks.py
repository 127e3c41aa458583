"""A dispatcher of tasks over stores in memory, with two devices and a broker that may be away."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.control.capabilities import Capability, TaskingCapabilities
from sensegate.control.commands import CommandDispatcher
from sensegate.control.tasks import Command, Confirmation, Scalar, TaskQueue, TaskState
from sensegate.errors import Unavailable
from sensegate.model import Device
from tests.share.made import NOW

ADMIN = Principal("admin", Role.ADMIN, scope("44"))


class AnyTask(TaskingCapabilities):
    """Every device has every task."""

    confirm: Confirmation | None = None
    role = Role.COUNTY_OPERATOR
    retry_s = 0.0
    when_online = False

    def __init__(self) -> None:
        """Know no profiles."""

    def capabilities(self, device: Device) -> list[Capability]:
        return []

    def command_for(self, device: Device, task: str, parameters: Mapping[str, Scalar]) -> Command:
        topics = (f"{device.id}/down",)
        return Command(
            task,
            device.profile,
            dict(parameters),
            topics,
            b"x",
            confirm=self.confirm,
            role=self.role,
            retry_s=self.retry_s,
            when_online=self.when_online,
        )

    def confirms(self, confirm: Confirmation, value: float, text: str | None) -> bool:
        return True


class Broker:
    """A broker that may be away."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.valid_s: list[int] = []
        self.away = False
        self.on_send: Callable[[], None] = lambda: None

    def reaches(self, about: str) -> bool:
        return about.endswith("/up")

    async def send(self, topic: str, payload: bytes, *, valid_s: int = 0) -> None:
        if self.away:
            raise Unavailable("away")
        self.on_send()
        self.sent.append(topic)
        self.valid_s.append(valid_s)


class TaskWorld:
    """Two devices, with their tasks, over stores in memory."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.trail = MemoryTrail()
        self.bucket = MemoryBucket()
        self.tasks = TaskQueue(self.bucket, self.trail, self.clock)
        self.devices = Devices(MemoryBucket(), self.trail, self.clock)
        self.broker = Broker()
        self.topics = ["d/up"]
        self.tasking = CommandDispatcher(
            self.tasks, self.devices, AnyTask(), self.clock, channels=(self.broker,), topics=lambda _: self.topics
        )

    async def open(self) -> None:
        await self.devices.load()
        for name in ("d1", "d2"):
            device = Device(name, division="440106", profile="acme/meter")
            await self.devices.add(device, by=ADMIN)

    def device(self, name: str) -> Device:
        return self.devices.record(self.devices.find(name))

    def states(self) -> list[TaskState]:
        return [task.state for task in self.tasks.list(ADMIN)]
