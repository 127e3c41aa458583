"""The registry on the engine's own store: two processes, one truth, seen within a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from nats.aio.client import Client

from sensegate.authority.audit import Audit
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import KvBucket
from sensegate.clock import SystemClock
from sensegate.errors import Conflict
from sensegate.model import Device
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = pytest.mark.live
Make = Callable[..., Device]
BYTES_MAX = 16 * 1024**2


@pytest.fixture
async def audit(gateway: Client) -> AsyncIterator[Audit]:
    made = Audit(gateway, SystemClock(), gateway="4401")
    yield made
    await made.close()


@pytest.fixture
async def devices(gateway: Client, audit: Audit) -> AsyncIterator[Devices]:
    bucket = await KvBucket.open(gateway, "devices", bytes_max=BYTES_MAX)
    made = Devices(bucket, audit, SystemClock(), home="44")
    await made.load()
    yield made
    await bucket.close()


@pytest.fixture
async def two(engine: Engine, devices: Devices, audit: Audit) -> AsyncIterator[Devices]:
    """The registry of another process, with a connection of its own, following."""
    nc = await engine.connect(User.GATEWAY)
    bucket = await KvBucket.open(nc, "devices", bytes_max=BYTES_MAX)
    made = Devices(bucket, audit, SystemClock(), home="44")
    await made.load()
    watching = asyncio.create_task(made.watch())
    yield made
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await bucket.close()
    await nc.close()


async def test_changes_are_seen_by_the_other_process_within_a_second(
    devices: Devices, two: Devices, audit: Audit, admin: Principal, make: Make
) -> None:
    """Additions, changes and states; and every one of them stands in a whole audit chain."""
    secret = await devices.add(make("a", alias="空气-1"), by=admin)
    began = time.monotonic()
    await asyncio.wait_for(two.until(lambda: two.find("空气-1") == 0), 30)
    assert two.verify("a", secret)
    await devices.disable("a", by=admin)
    await asyncio.wait_for(two.until(lambda: not two.enabled[0]), 30)
    assert time.monotonic() - began < WITHIN_TWO_SECONDS
    assert [record.action for _, record in await audit.read()] == ["device.add", "device.disable"]
    assert await audit.check() is None


async def test_two_processes_cannot_both_add_or_change(
    devices: Devices, two: Devices, admin: Principal, make: Make
) -> None:
    """The second of two changes at once is refused, not lost."""
    await devices.add(make("a"), by=admin)
    await asyncio.wait_for(two.until(lambda: two.find("a") == 0), 30)
    entry = two.get("a")
    results = await asyncio.gather(
        devices.change(make("a", name="x"), revision=entry.revision, by=admin),
        two.change(make("a", name="y"), revision=entry.revision, by=admin),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 1
    await asyncio.wait_for(two.until(lambda: two.get("a") == devices.get("a")), 30)


async def test_the_registry_outlives_a_restart_of_the_server(
    engine: Engine, devices: Devices, two: Devices, admin: Principal, make: Make
) -> None:
    """While the server is away what is in memory stays in force; then changes are seen again."""
    import os
    import signal

    secret = await devices.add(make("a"), by=admin)
    await asyncio.wait_for(two.until(lambda: two.find("a") == 0), 30)
    engine.restarted.clear()
    os.kill(engine.info.pid, signal.SIGKILL)
    assert two.verify("a", secret)
    await asyncio.wait_for(engine.restarted.wait(), 60)

    async def disabled() -> None:
        from sensegate.errors import Unavailable

        while True:
            try:
                await devices.disable("a", by=admin)
            except Unavailable:
                await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.1)
                continue
            except Conflict:
                pass  # the lost write took effect
            return

    await asyncio.wait_for(disabled(), 60)
    await asyncio.wait_for(two.until(lambda: not two.enabled[0]), 30)
