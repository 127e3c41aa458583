"""Catalogues of platforms: their cameras are devices behind them, within bounds; places only with a datum."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.config.viid import ViidConfig
from sensegate.errors import NotFound
from sensegate.model import Datum, Device
from sensegate.video.formats.viid_records import CatalogueRecord
from sensegate.viid import catalogue as catalogue_module
from sensegate.viid.catalogue import ViidCatalogue

ADMIN = Principal("admin", Role.ADMIN, scope("44"))
PLATFORM, RIVAL = "44010600005030000001", "44010600005030000002"
CAMERA = "44010600001320000007"


class Rig:
    def __init__(self, **config: Any) -> None:
        self.devices = Devices(MemoryBucket(), MemoryTrail(), FakeClock(), home="4401")
        self.bucket = MemoryBucket()
        self.config = ViidConfig(server_id="44010000005030000001", **config)
        self.catalogue = self.made()
        self.platforms: dict[str, Device] = {}

    def made(self) -> ViidCatalogue:
        return ViidCatalogue(self.bucket, self.devices, self.config, home="4401")

    async def platform(self, code: str = PLATFORM, division: str = "440106") -> Device:
        await self.devices.add(Device(code, division, "sensegate/viid"), by=ADMIN)
        return self.devices.get(code)


def ape(code: str = CAMERA, **more: Any) -> CatalogueRecord:
    return CatalogueRecord(kind="APE", id=code, unique_id=True, camera=code, **more)


async def test_a_camera_becomes_a_device_behind_its_platform() -> None:
    rig = Rig()
    platform = await rig.platform(division="4401")
    await rig.catalogue.take(platform, [ape(lon=113.3, lat=23.1, division="440103")])
    device = rig.devices.get(CAMERA)
    assert (device.gateway, device.profile, device.division) == (PLATFORM, "sensegate/viid", "440103")
    assert device.lon is None  # nobody has said in which datum
    await rig.catalogue.take(await rig.platform(RIVAL), [ape()])
    assert rig.devices.get(CAMERA).gateway == PLATFORM
    repeated = rig.made()
    await repeated.load()
    assert [entry.id for entry in repeated.entries("APE", PLATFORM)] == [CAMERA]
    assert not repeated.entries("APE", RIVAL)


@pytest.mark.parametrize(("lon", "lat", "placed"), [(113.3, 23.1, True), (0, 0, False), (23.1, 113.3, False)])
async def test_places_are_taken_with_a_datum_and_where_they_can_be(lon: float, lat: float, *, placed: bool) -> None:
    rig = Rig(datum="gcj02")
    await rig.catalogue.take(await rig.platform(), [ape(lon=lon, lat=lat)])
    device = rig.devices.get(CAMERA)
    assert (device.lon is not None) is placed
    if placed:
        assert device.datum is Datum.GCJ02


@pytest.mark.parametrize(("code", "division"), [(CAMERA, "440106"), ("33029902001210000007", "440106")])
async def test_the_division_is_that_of_the_code_where_it_lies_in_the_platforms(code: str, division: str) -> None:
    rig = Rig()
    await rig.catalogue.take(await rig.platform(), [ape(code)])
    assert rig.devices.get(code).division == division


async def test_no_more_than_a_platform_may_have() -> None:
    rig = Rig(catalogue_cameras_max=2)
    codes = [f"4401060000132000000{number}" for number in range(4)]
    await rig.catalogue.take(await rig.platform(), [ape(code) for code in codes])
    assert len(rig.devices.children(PLATFORM)) == 2
    with pytest.raises(NotFound):
        rig.devices.get(codes[3])
    behind = rig.devices.get(codes[0])
    await rig.catalogue.take(behind, [ape("44010600001320000009")])  # a camera has no cameras
    with pytest.raises(NotFound):
        rig.devices.get("44010600001320000009")


async def test_no_sender_fills_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """New entries beyond the limit are left out, also after a restart; known ones change, other senders have room."""
    monkeypatch.setattr(catalogue_module, "ENTRIES_MAX", 2)
    rig = Rig(catalogue_cameras_max=1)
    platform, rival = await rig.platform(), await rig.platform(RIVAL)

    def tollgate(number: int, lanes: int = 1) -> CatalogueRecord:
        return CatalogueRecord(kind="Tollgate", id=f"21412{number}", unique_id=True, lanes=lanes)

    await rig.catalogue.take(platform, [tollgate(number) for number in range(5)])
    assert len(rig.catalogue.entries("Tollgate", PLATFORM)) == 3
    repeated = rig.made()
    await repeated.load()
    await repeated.take(platform, [tollgate(0, lanes=4), tollgate(7)])
    assert [entry.lanes for entry in repeated.entries("Tollgate", PLATFORM)] == [4, 1, 1]
    await repeated.take(rival, [tollgate(8)])
    assert len(repeated.entries("Tollgate", RIVAL)) == 1


async def test_what_is_given() -> None:
    rig = Rig()
    platform = await rig.platform()
    tollgate = CatalogueRecord(kind="Tollgate", id="2141245", unique_id=True, lanes=3)
    await rig.catalogue.take(platform, [ape(functions=("vehicle", "person")), tollgate])
    await rig.devices.add(Device("th10", "440106", "acme/th10"), by=ADMIN)
    await rig.devices.add(Device("gate", "440106", "onvif/camera", alias="44010600001320000008"), by=ADMIN)

    def ids(kind: str, owner: str | None, *names: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = json.loads(rig.catalogue.envelope(kind, owner, names))[f"{kind}ListObject"][
            f"{kind}Object"
        ]
        return result

    assert [entity_id["ApeID"] for entity_id in ids("APE", None)] == [CAMERA, "44010600001320000008", PLATFORM]
    assert [entity_id["ApeID"] for entity_id in ids("APE", PLATFORM)] == [CAMERA, PLATFORM]
    assert [entity_id["ApeID"] for entity_id in ids("APE", None, CAMERA)] == [CAMERA]
    assert ids("APE", None, CAMERA)[0]["FunctionType"] == "1/2"
    lanes = [
        CatalogueRecord(kind="Lane", id=number, unique_id=True, owner=owner) for number in "12" for owner in ("7", "8")
    ]
    await rig.catalogue.take(platform, lanes)
    repeated = rig.made()
    await repeated.load()
    assert len(ids("Lane", None)) == len(repeated.entries("Lane")) == 4
    assert ids("Tollgate", None) == [{"TollgateID": "2141245", "Name": "2141245", "PlaceCode": "", "LaneNum": 3}]


async def test_a_platform_learns_nothing_of_a_camera_of_others() -> None:
    """It reports the id of a device that is not its own: whether that one is online is not what it gets back."""
    rig = Rig()
    await rig.devices.add(Device("44030500001320000001", "4401", "sensegate/viid"), by=ADMIN)
    platform = await rig.platform()
    at = rig.devices.find("44030500001320000001")
    rig.devices.index.last_seen[at] = FakeClock().now()
    for code in ("44030500001320000001", CAMERA):
        await rig.catalogue.take(platform, [ape(code)])
    rig.devices.index.last_seen[rig.devices.find(CAMERA)] = FakeClock().now()
    entries = json.loads(rig.catalogue.envelope("APE", PLATFORM, []))["APEListObject"]["APEObject"]
    online = {entry["ApeID"]: entry.get("IsOnline") for entry in entries}
    assert online["44030500001320000001"] == "9", "unknown, as of a camera that reports no state"
    assert online[CAMERA] in {"1", "2"}, "negative control"
