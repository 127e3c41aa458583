"""Getting the simulated devices into the registries, and tokens for those who read."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from sensegate.authority.divisions import Divisions, Level
from sensegate.demo.cameras import PROFILES, Watcher
from sensegate.demo.city import Member
from sensegate.demo.fleet import KINDS, Simulated, gateways_of
from sensegate.demo.summary import HandDevice
from sensegate.errors import EngineError
from sensegate.web.client import Remote

COLUMNS = ("id", "division", "profile", "alias", "gateway", "lon", "lat", "datum", "grade", "domain", "name")
CITIES = (
    "4401", "4403", "4419", "4420", "4406", "4404", "4413", "4407", "4405", "4412", "4408", "4409", "4402", "4414",
    "4415", "4416", "4417", "4418", "4451", "4452", "4453",
)  # fmt: skip
"""Cities of Guangdong in the order in which the demo gives them a node."""
HAND_DEVICES = 3
HAND_CAMERAS = 2
BOTH = "sensegate/camera"
"""Profile of a camera that speaks GA/T 1400 and ONVIF."""
SUBSCRIBER_LIFE_S = 30 * 86_400


def counties(city: str) -> tuple[str, ...]:
    """Return the divisions below a city: its counties, or its towns where it has none."""
    below = [row.code for row in Divisions.load().children(city) if row.level in (Level.COUNTY, Level.TOWNSHIP)]
    return tuple(below) or (city,)


def _rows(devices: Sequence[Simulated], rng: random.Random) -> list[dict[str, str]]:
    rows = [
        {"id": gateway.id, "division": gateway.division, "profile": gateway.profile, "name": "gateway"}
        for gateway in gateways_of(devices)
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


async def _import(member: Member, rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Register devices; return id -> password."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows)
    async with member.remote() as remote:
        report = await remote.post_text("/api/v1/devices/import", text.getvalue().encode(), "text/csv")
    refused = [row for row in report["rows"] if row["outcome"] == "refused"]
    if refused:
        raise EngineError(f"{member.child.name} refuses {len(refused)} devices, first: {refused[0]}")
    return {row["id"]: row["password"] for row in report["rows"] if row.get("password")}


async def enrol(member: Member, devices: Sequence[Simulated], rng: random.Random) -> list[Simulated]:
    """Register a node's devices and their gateways; return the devices with the credentials to publish by."""
    passwords = await _import(member, _rows(devices, rng))
    return [replace(device, password=passwords[device.username]) for device in devices]


async def enrol_by_hand(member: Member) -> list[HandDevice]:
    """Register a few devices on the plain layout that the simulator leaves alone."""
    names = [f"hand-{member.division}-{number}" for number in range(1, HAND_DEVICES + 1)]
    county = counties(member.division)[0]
    rows = [{"id": name, "division": county, "profile": "sensegate/plain", "name": "for you to try"} for name in names]
    passwords = await _import(member, rows)
    return [
        HandDevice(id=name, node=member.division, username=name, password=passwords[name], topic=f"sg/{name}/up")
        for name in names
    ]


async def enrol_cameras(member: Member, cameras: Sequence[Watcher], rng: random.Random) -> list[Watcher]:
    """Register a node's cameras; return them with their passwords."""
    rows = [
        {
            "id": one.id,
            "division": one.division,
            "profile": PROFILES[one.way],
            "lon": f"{rng.uniform(113.2, 113.5):.5f}",
            "lat": f"{rng.uniform(22.9, 23.3):.5f}",
            "datum": "wgs84",
            "grade": "1",
            "domain": "video",
            "name": f"camera {one.number}",
        }
        for one in cameras
    ]
    passwords = await _import(member, rows)
    return [structs.replace(one, password=passwords[one.id]) for one in cameras]


async def cameras_by_hand(member: Member) -> list[dict[str, str]]:
    """Register a few cameras that the simulator leaves alone, each of which may push both GA/T 1400 and ONVIF."""
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


async def subscriber(member: Member) -> str:
    """Return a token that reads all of a member's feeds in its division."""
    body = {
        "role": "subscriber",
        "scope": member.division,
        "expires_s": SUBSCRIBER_LIFE_S,
        "name": "subscriber of the demo",
    }
    async with Remote(member.url, member.token) as remote:
        answer = await remote.post("/api/v1/tokens", body)
    return str(answer["token"])
