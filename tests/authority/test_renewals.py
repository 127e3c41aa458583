"""Connections closed little by little."""

from __future__ import annotations

import asyncio

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.renewals import Renewals
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.model import Device
from tests.conftest import eventually

ADMIN = Principal("test", Role.ADMIN, scope("44"))


async def test_so_many_a_second_and_only_those_that_differ() -> None:
    """A tenth of a second's worth at a time; a gateway once for all behind it; nobody of another profile."""
    clock, devices = FakeClock(), Devices(MemoryBucket(), MemoryTrail(), FakeClock(), home="44")
    await devices.add(Device("hub", "440106", "acme/hub"), by=ADMIN)
    for number in range(30):
        await devices.add(Device(f"d{number}", "440106", "acme/th"), by=ADMIN)
    for number in range(5):
        await devices.add(Device(f"b{number}", "440106", "acme/th", gateway="hub"), by=ADMIN)
    closed: list[str] = []
    renewals = Renewals(devices, closed.append, clock, per_s=100)
    task = asyncio.create_task(renewals.run())
    renewals.schedule("acme/none", lambda _device: True)
    renewals.schedule("acme/th", lambda device: device.id != "d7")
    await eventually(lambda: len(closed) == 10)
    await clock.advance(0.05)
    assert len(closed) == 10, "the next portion comes when its time has come"
    await clock.advance(0.06)
    await eventually(lambda: len(closed) == 20)
    await clock.advance(0.2)
    await eventually(lambda: len(closed) == 30)
    assert sorted(closed) == sorted(["hub", *(f"d{number}" for number in range(30) if number != 7)])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
