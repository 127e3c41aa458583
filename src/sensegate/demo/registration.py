"""Registration of the simulated devices, and tokens for subscribers."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from sensegate.authority.divisions import DivisionLevel, Divisions
from sensegate.demo.camera_messages import SimulatedCamera
from sensegate.demo.cameras import PROFILES
from sensegate.demo.city import CityMember
from sensegate.demo.fleet import KINDS, SimulatedDevice, list_gateways
from sensegate.demo.summary import ManualDevice
from sensegate.errors import EngineError
from sensegate.web.client import GatewayClient

COLUMNS = ("id", "division", "profile", "alias", "gateway", "lon", "lat", "datum", "grade", "domain", "name")
CITIES = (
    "4401", "4403", "4419", "4420", "4406", "4404", "4413", "4407", "4405", "4412", "4408", "4409", "4402", "4414",
    "4415", "4416", "4417", "4418", "4451", "4452", "4453",
)  # fmt: skip
"""Cities of Guangdong in the order in which the demo assigns nodes."""
HAND_DEVICES = 3
HAND_CAMERAS = 2
BOTH = "sensegate/camera"
"""Profile of a camera with GA/T 1400 and ONVIF."""
SUBSCRIBER_LIFE_S = 30 * 86_400


def counties(city: str) -> tuple[str, ...]:
    """Return the divisions below a city: its counties, or its towns if it has none."""
    below = [
        row.code
        for row in Divisions.load().children(city)
        if row.level in (DivisionLevel.COUNTY, DivisionLevel.TOWNSHIP)
    ]
    return tuple(below) or (city,)


def _rows(devices: Sequence[SimulatedDevice], rng: random.Random) -> list[dict[str, str]]:
    rows = [
        {"id": gateway.id, "division": gateway.division, "profile": gateway.profile, "name": "gateway"}
        for gateway in list_gateways(devices)
    ]
    for device in devices:
        kind = KINDS[device.kind]
        rows.append(
            {
                "id": device.id,
                "division": device.division,
                "profile": kind.profile,
                "alias": device.alias,
                "gateway": device.username if device.username != device.id else "",
                "lon": f"{rng.uniform(113.2, 113.5):.5f}",
                "lat": f"{rng.uniform(22.9, 23.3):.5f}",
                "datum": rng.choice(("wgs84", "cgcs2000", "gcj02", "bd09")),
                "grade": str(device.grade),
                "domain": kind.domain,
                "name": f"{device.kind} {device.number}",
            }
        )
    return rows


async def _import(member: CityMember, rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Register devices; return id -> password."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows)
    async with member.remote() as remote:
        report = await remote.post_text("/api/v1/devices/import", text.getvalue().encode(), "text/csv")
    refused = [row for row in report["rows"] if row["outcome"] == "refused"]
    if refused:
        raise EngineError(f"{member.process.name} rejects {len(refused)} devices; the first: {refused[0]}")
    return {row["id"]: row["password"] for row in report["rows"] if row.get("password")}


async def register_devices(
    member: CityMember, devices: Sequence[SimulatedDevice], rng: random.Random
) -> list[SimulatedDevice]:
    """Register a node's devices and their gateways; return the devices with their credentials."""
    passwords = await _import(member, _rows(devices, rng))
    return [replace(device, password=passwords[device.username]) for device in devices]


async def register_manual_devices(member: CityMember) -> list[ManualDevice]:
    """Register a few devices on the plain layout that the simulator does not use."""
    names = [f"hand-{member.division}-{number}" for number in range(1, HAND_DEVICES + 1)]
    county = counties(member.division)[0]
    rows = [{"id": name, "division": county, "profile": "sensegate/plain", "name": "for you to try"} for name in names]
    passwords = await _import(member, rows)
    return [
        ManualDevice(id=name, node=member.division, username=name, password=passwords[name], topic=f"sg/{name}/up")
        for name in names
    ]


async def register_cameras(
    member: CityMember, cameras: Sequence[SimulatedCamera], rng: random.Random
) -> list[SimulatedCamera]:
    """Register a node's cameras; return them with their passwords."""
    rows = [
        {
            "id": camera.id,
            "division": camera.division,
            "profile": PROFILES[camera.transport],
            "lon": f"{rng.uniform(113.2, 113.5):.5f}",
            "lat": f"{rng.uniform(22.9, 23.3):.5f}",
            "datum": "wgs84",
            "grade": "1",
            "domain": "video",
            "name": f"camera {camera.number}",
        }
        for camera in cameras
    ]
    passwords = await _import(member, rows)
    return [structs.replace(camera, password=passwords[camera.id]) for camera in cameras]


async def register_manual_cameras(member: CityMember) -> list[dict[str, str]]:
    """Register a few cameras that the simulator does not use, each for both GA/T 1400 and ONVIF."""
    names = [f"{member.division}00000013290000{number:02d}" for number in range(1, HAND_CAMERAS + 1)]
    county = counties(member.division)[0]
    rows = [{"id": name, "division": county, "profile": BOTH, "name": "for you to try"} for name in names]
    passwords = await _import(member, rows)
    return [
        {
            "id": name,
            "node": member.division,
            "username": name,
            "password": passwords[name],
            "viid": f"http://127.0.0.1:{member.viid_port}",
            "onvif": f"{member.url}/onvif/{name}",
        }
        for name in names
    ]


async def create_subscriber_token(member: CityMember) -> str:
    """Create a token that reads all feeds of a member in its division."""
    body = {
        "role": "subscriber",
        "scope": member.division,
        "expires_s": SUBSCRIBER_LIFE_S,
        "name": "subscriber of the demo",
    }
    async with GatewayClient(member.url, member.token) as remote:
        answer = await remote.post("/api/v1/tokens", body)
    return str(answer["token"])
