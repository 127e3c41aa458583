"""Detectors at a running node: Frigate as the gateway of its cameras, Axis by its own credential, beside sensors."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import eventually
from tests.live.site import PROFILES, Site, config_of, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

NAME, PLATE = "John Smith", "粤B12345"
NOW = time.time()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folders = tuple(str(PROFILES / name) for name in ("frigate", "axis", "sensegate"))
    config = config_of(tmp_path_factory.mktemp("detectors") / "4401", profiles=folders)
    async with running(config) as gateway:
        yield gateway


async def rows(site: Site, device: str, count: int) -> list[dict[str, Any]]:
    """Return the records of a device once there are so many."""

    async def stored() -> list[dict[str, Any]]:
        records = await site.records(device=device)
        return records if len(records) >= count else []

    result: list[dict[str, Any]] = await eventually(stored)
    return result


async def test_frigate_speaks_for_its_cameras(site: Site) -> None:
    """Objects, counts and states of a camera behind it; a name, a plate and a picture are nowhere."""
    box = await site.device("frigate", profile="frigate/mqtt")
    after = {
        "id": f"{NOW:.6f}-mxklsc",
        "camera": "front_door",
        "frame_time": NOW,
        "label": "person",
        "sub_label": [NAME, 0.8],
        "recognized_license_plate": PLATE,
        "score": 0.9,
        "box": [128, 72, 640, 360],
        "current_zones": ["yard"],
    }
    event = json.dumps({"type": "new", "before": None, "after": after}).encode()
    async with site.phone() as phone:
        assert await phone.connect(box.id, box.password) == 0
        await site.device("front_door", profile="frigate/mqtt", gateway="frigate")
        await phone.next("closed")  # the device behind the box has widened its rights
        assert await phone.connect(box.id, box.password) == 0
        phone.send("frigate/events", event)
        phone.send("frigate/events", event)
        phone.send("frigate/front_door/person", b"3")
        phone.send("frigate/front_door/motion", b"ON")
        phone.send("frigate/front_door/person/snapshot", b"\xff\xd8\xff\xe0" + NAME.encode())
        phone.send("frigate/available", b"online")
        records = await rows(site, "front_door", 3)
        assert [(row["property"], row["value"]) for row in await rows(site, "frigate", 1)] == [("online", True)]
    assert sorted(record["property"] for record in records) == ["motion", "people_present", "video_observation"]
    (observation,) = [json.loads(record["value"]) for record in records if record["property"] == "video_observation"]
    assert (observation["object_class"], observation["box_quality"], observation["event"]["zone"]) == (
        "person",
        "unresolved",
        "yard",
    )
    assert observation["removed"] == ["after.recognized_license_plate", "after.sub_label"]
    for word in (NAME, PLATE):
        assert word not in json.dumps([records, await site.quarantine()], ensure_ascii=False)

    async def counted() -> dict[str, int]:
        totals = await site.totals()
        return totals if totals.get("messages", 0) >= 6 else {}

    totals = await eventually(counted)
    assert (totals["duplicate.redelivery"], totals["removed.frigate.after.sub_label"]) == (1, 2)


async def test_one_feed_holds_counts_of_cameras_and_sensors(site: Site) -> None:
    """What an Axis camera counts is a reading like any other, beside those of a sensor; the stranger's is refused."""
    camera = await site.device("ACCC8E00000A", profile="axis/camera")
    sensor = await site.device("air1", profile="sensegate/plain")
    data = {"startTime": "2026-01-01T00:00:00Z", "reason": "car", "total": "20", "totalCar": "12"}
    topic = "CameraApplicationPlatform/ObjectAnalytics/Device1Scenario1"
    counts = {"topic": f"axis:{topic}", "timestamp": int(NOW * 1000), "serial": camera.id, "message": {"data": data}}
    async with site.phone() as phone, site.phone() as other:
        assert await phone.connect(camera.id, camera.password) == 0
        assert await other.connect(sensor.id, sensor.password) == 0
        phone.send(f"axis/{camera.id}/event/{topic}", json.dumps(counts).encode())
        other.send("sg/air1/up", b'{"values": {"pm2_5": 17}}')
        await asyncio.gather(rows(site, camera.id, 2), rows(site, "air1", 1))
    matches = [record for record in await site.records() if record["device"] in {camera.id, "air1"}]
    assert {(match["property"], match.get("channel", ""), match["value"]) for match in matches} == {
        ("object_count_total", "scenario1", 20),
        ("vehicle_count_total", "scenario1_car", 12),
        ("pm2_5", "", 17),
    }
