"""A registry in memory with a trail, a clock, and callers of every kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.model import Device


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def trail() -> MemoryTrail:
    return MemoryTrail()


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
async def devices(bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock) -> Devices:
    """An empty registry of the whole province."""
    registry = Devices(bucket, trail, clock, home="44")
    await registry.load()
    return registry


@pytest.fixture
def admin() -> Principal:
    return Principal("admin", Role.ADMIN, scope("44"))


@pytest.fixture
def operator() -> Principal:
    """A county operator of Tianhe."""
    return Principal("tianhe", Role.COUNTY_OPERATOR, scope("440106"))


@pytest.fixture
def make() -> Callable[..., Device]:
    """Make a device on the plain layout in Tianhe; any key can be given."""

    def made(device_id: str = "air-1", **keys: object) -> Device:
        kept: dict[str, object] = {"division": "440106", "profile": "sensegate/plain"} | keys
        return Device(id=device_id, **kept)  # type: ignore[arg-type]

    return made
