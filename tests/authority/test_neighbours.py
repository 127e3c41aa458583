"""What looks like the same thing built twice, and who is told what of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytest_asyncio

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.neighbours import NearbyPair, Neighbours, distance
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.model import Device

ADMIN = Principal("admin", Role.ADMIN, scope("44"))
COUNTY = Principal("county", Role.COUNTY_OPERATOR, scope("440106"))
MEASURES = {"acme/air": frozenset({"air_temperature"}), "best/air": frozenset({"air_temperature", "noise_level"})}
LON, LAT = 113.36, 23.12
DEGREE_M = 111_320 * math.cos(math.radians(LAT))


@pytest_asyncio.fixture
async def devices() -> Devices:
    """A registry in memory."""
    return Devices(MemoryBucket(), MemoryTrail(), FakeClock(), home="44")


async def put(devices: Devices, name: str, east_m: float = 0.0, /, **more: object) -> None:
    """Register a device so many metres east of the corner."""
    wanted = {"division": "440106", "profile": "acme/air", "lon": LON + east_m / DEGREE_M, "lat": LAT, "owner": "A"}
    await devices.add(Device(name, **{**wanted, **more}), by=ADMIN)  # type: ignore[arg-type]


def near(devices: Devices, near_m: float = 50.0) -> Neighbours:
    return Neighbours(devices, lambda name: MEASURES.get(name, frozenset()), near_m=near_m)


async def test_another_owner_with_the_same_within_so_many_metres(devices: Devices) -> None:
    """A common property, whatever the profile; nearest first; neither farther, nor one's own, nor something else."""
    await put(devices, "here")
    await put(devices, "close", 10, owner="B", profile="best/air")
    await put(devices, "closer", 5, owner="", department="C")
    await put(devices, "mine", 3)
    await put(devices, "nobody", 3, owner="")
    await put(devices, "far", 60, owner="B")
    await put(devices, "other", 4, owner="B", profile="acme/lamp")
    result = near(devices).near("here", ADMIN)
    assert [(neighbour.other, neighbour.same, neighbour.other_owner) for neighbour in result] == [
        ("closer", "air_temperature", "C"),
        ("close", "air_temperature", "B"),
    ]
    assert result[1].metres == pytest.approx(10, abs=0.1)
    assert near(devices, 0).near("here", ADMIN) == []
    assert near(devices).near("nothing", ADMIN) == []


async def test_outside_of_the_scope_it_has_no_name(devices: Devices) -> None:
    """That something is there is told, in which division and how far; not what or whose."""
    await put(devices, "here")
    await put(devices, "theirs", 10, division="440103", owner="B")
    (neighbour,) = near(devices).near("here", COUNTY)
    assert (neighbour.other, neighbour.other_owner, neighbour.division) == ("", "", "440103")
    assert near(devices).near("here", ADMIN)[0].other == "theirs"


async def test_all_pairs_once(devices: Devices) -> None:
    """Over cells: the same pairs as by looking at each device."""
    rng = np.random.default_rng(7)
    for number, (east, owner) in enumerate(zip(rng.uniform(0, 400, 30), rng.choice(["A", "B"], 30), strict=True)):
        await put(devices, f"d{number}", float(east), owner=str(owner))
    looker = near(devices)
    pairs = {frozenset((entry.device, entry.other)) for entry in looker.all(scope("44"), ADMIN)}
    each = {frozenset((f"d{n}", neighbour.other)) for n in range(30) for neighbour in looker.near(f"d{n}", ADMIN)}
    assert pairs == each
    assert len(pairs) == len(looker.all(scope("44"), ADMIN))
    assert looker.all(scope("4403"), ADMIN) == []


def test_a_distance_is_in_metres() -> None:
    """A degree of latitude is 111 km, of longitude less by its cosine."""
    assert distance(np.array([113.0]), np.array([24.0]), 113.0, 23.0)[0] == pytest.approx(111_320)
    assert distance(np.array([114.0]), np.array([60.0]), 113.0, 60.0)[0] == pytest.approx(55_660)


def test_a_row_has_no_secrets() -> None:
    """What is told is what stands here."""
    assert NearbyPair.__struct_fields__ == ("device", "other", "metres", "same", "division", "owner", "other_owner")
