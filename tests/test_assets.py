"""One source for each asset and property: who it is, what becomes of the others, and how far they are off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from sensegate.authority.assets import APART_US, Assets
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.model import Device, Readings
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.quality import Flag

ADMIN = Principal("admin", Role.ADMIN, scope("44"))
NOW = 1_767_225_600_000_000
MEASURES = {"acme/air": frozenset({"air_temperature"}), "acme/wind": frozenset({"wind_speed"})}
AIR, WIND = PROPERTIES.find("air_temperature"), PROPERTIES.find("wind_speed")


class World:
    """A registry and who measures what of it."""

    def __init__(self) -> None:
        self.devices = Devices(MemoryBucket(), MemoryTrail(), FakeClock(), home="44")
        self.assets = Assets(self.devices, lambda name: MEASURES.get(name, frozenset()))

    async def put(self, name: str, **more: Any) -> int:
        """Register a device of the asset."""
        wanted = {"division": "440106", "profile": "acme/air", "asset": "gate-7", **more}
        await self.devices.add(Device(name, **wanted), by=ADMIN)
        return self.devices.find(name)

    def hear(self, *rows: tuple[int, int, float, float]) -> list[bool]:
        """Have rows (device, property, value, seconds) come; return which are shadows."""
        count = len(rows)
        zeros = np.zeros(count, np.int64)
        readings = Readings(
            message=zeros.astype(np.int32),
            device=np.array([row[0] for row in rows], np.int32),
            spec=zeros.astype(np.int32),
            property=np.array([row[1] for row in rows], np.int16),
            value=np.array([row[2] for row in rows]),
            text={},
            time=np.array([NOW + round(row[3] * 1e6) for row in rows], np.int64),
            time_quality=zeros.astype(np.uint8),
            received=zeros,
            key=zeros,
            path=zeros.astype(np.uint16),
            quality=zeros.astype(np.uint8),
            flags=np.zeros(count, np.uint32),
        )
        self.assets.mark(readings)
        return [bool(flags & Flag.SECONDARY) for flags in readings.flags.tolist()]


@pytest_asyncio.fixture
async def world() -> World:
    return World()


async def test_the_second_is_a_shadow_and_is_compared(world: World) -> None:
    """Marked, counted, with mean and greatest difference; the first is never marked."""
    first, two = await world.put("a"), await world.put("b", secondary=True)
    assert world.hear((first, AIR, 20.0, 0), (two, AIR, 20.1, 1), (two, AIR, 25.0, 2)) == [False, True, True]
    (row,) = world.assets.deviations()
    assert (row.authority, row.secondary, row.compared, row.different) == ("a", "b", 2, 1)
    assert row.max == pytest.approx(5.0)
    assert row.mean == pytest.approx(2.55)
    assert (row.value, row.secondary_value) == ("20", "25")


async def test_alone_or_without_an_asset_nothing_is_marked(world: World) -> None:
    """Neither is what measures something else of the same asset."""
    first, two, three = await world.put("a"), await world.put("b", asset=""), await world.put("c", profile="acme/wind")
    assert world.hear((first, AIR, 1, 0), (two, AIR, 1, 0), (three, WIND, 1, 0)) == [False] * 3


async def test_the_registry_says_who_is_the_source(world: World) -> None:
    """Not registered as a shadow goes before id; disabled, it is nobody's source any more."""
    first, two = await world.put("a", secondary=True), await world.put("b")
    assert world.hear((first, AIR, 1, 0), (two, AIR, 1, 0)) == [True, False]
    await world.devices.disable("b", by=ADMIN)
    assert world.hear((first, AIR, 1, 1)) == [False]


async def test_what_no_profile_says_is_known_once_it_is_heard(world: World) -> None:
    """The plain profile may measure anything: the authority counts from its first reading on."""
    first, two = await world.put("a", profile="acme/any"), await world.put("b", profile="acme/any", secondary=True)
    assert world.hear((two, AIR, 1, 0), (first, AIR, 1, 1), (two, AIR, 1, 2)) == [False, False, True]


async def test_what_is_far_apart_in_time_is_not_compared(world: World) -> None:
    """A quarter of an hour."""
    first, two = await world.put("a"), await world.put("b", secondary=True)
    world.hear((first, AIR, 1, 0), (two, AIR, 9, APART_US / 1e6 + 1))
    assert world.assets.deviations() == []


async def test_another_is_found_before_a_registration(world: World) -> None:
    """Of the same asset with something in common; a shadow is no source."""
    await world.put("a")
    await world.put("s", secondary=True)
    assert world.assets.current_authority(Device("b", "440106", "acme/air", asset="gate-7")) == "a"
    assert world.assets.current_authority(Device("b", "440106", "acme/wind", asset="gate-7")) == ""
    assert world.assets.current_authority(Device("b", "440106", "acme/air", asset="gate-8")) == ""
    assert world.assets.current_authority(Device("b", "440106", "acme/air")) == ""


@pytest.mark.parametrize("end", ["disable", "retire"])
async def test_a_device_out_of_use_is_nobodys_rival(world: World, end: str) -> None:
    """The successor of a retired sensor is registered as the authority, which it is from its first reading."""
    await world.put("a")
    successor = Device("b", "440106", "acme/air", asset="gate-7")
    assert world.assets.current_authority(successor) == "a"
    await getattr(world.devices, end)("a", by=ADMIN)
    assert world.assets.current_authority(successor) == ""
