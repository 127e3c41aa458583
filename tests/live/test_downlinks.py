"""The drill of downlinks: a LoRaWAN device is configured by its codec's `encodeDownlink` over ChirpStack's topics.

A simulated network server plays the other side: it subscribes to the commands, puts the frame down at the next
reception, and tells by its events what became of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.live.phone import Phone
from tests.live.site import PROFILES, Made, Site, config_of, running

pytestmark = pytest.mark.live

EUI = "70b3d5e7a0000142"
OWN = Path(__file__).parent / "profiles" / "acme"
APPLICATION = "3c5b2a10-9d1e-4c55-8b0a-000000000009"
TOPIC = f"application/{APPLICATION}/device/{EUI}"
TRY_S = 5.0
"""After which a connection is taken for gone, and another one tried."""


class NetworkServer:
    """ChirpStack v4, as far as a device behind it is concerned."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._count = 0

    async def connect(self, device: Made) -> None:
        """Connect, subscribe, and say something."""
        self._device = device
        await self.event("join")

    async def _publish(self, topic: str, payload: str) -> bool:
        """Publish; connect first if the connection is gone: a new device behind the server has widened its rights."""
        try:
            if not self._phone.connected:
                self._phone.acknowledged.clear()  # packet ids begin anew with a connection
                async with asyncio.timeout(TRY_S):
                    assert await self._phone.connect(self._device.id, self._device.password) == 0
                    assert await self._phone.subscribe("application/+/device/+/command/+") in {0, 1}
            await self._phone.publish(topic, payload, timeout_s=TRY_S)
        except TimeoutError:
            return False
        return True

    async def uplink(self, frame: bytes) -> None:
        """Hand on a frame of the device."""
        self._count += 1
        await self.event(
            "up",
            fCnt=self._count,
            fPort=10,
            data=base64.b64encode(frame).decode(),
            rxInfo=[{"rssi": -60, "snr": 9.5}],
            time="2026-01-01T00:00:00Z",
        )

    async def event(self, kind: str, **members: Any) -> None:
        """Publish an event of the device."""
        tree = {"deduplicationId": str(uuid.uuid4()), "deviceInfo": {"devEui": EUI}, **members}
        if kind == "up":
            del tree["time"]  # dated by its arrival
        await eventually(lambda: self._publish(f"{TOPIC}/event/{kind}", json.dumps(tree)))

    async def command(self) -> tuple[str, dict[str, Any]]:
        """Return topic and content of the next command."""
        topic, payload = await self._phone.next("message")
        return topic, json.loads(payload)


async def order(site: Site, task: str, **parameters: Any) -> dict[str, Any]:
    """Order a task of the lamp."""
    answer = await site.ask("POST", "/api/v1/devices/lamp/tasks", json={"task": task, "parameters": parameters})
    assert answer.status == 202, answer.body
    body: dict[str, Any] = answer.body
    return body


async def reach(site: Site, task: dict[str, Any], state: str) -> dict[str, Any]:
    """Wait until a task is in a state; return it."""
    result: dict[str, Any] = {}

    async def reached() -> bool:
        result.update((await site.ask("GET", f"/api/v1/tasks/{task['id']}")).body)
        return bool(result["state"] == state)

    await eventually(reached)
    return result


async def test_a_device_is_configured_over_its_network_server(tmp_path: Path) -> None:
    """Ordered, encoded, queued, sent, transmitted, acknowledged, and done when the next uplink shows it."""
    profiles = tuple(map(str, (PROFILES / "chirpstack", PROFILES / "sensegate", OWN)))
    async with running(config_of(tmp_path / "node", profiles=profiles)) as site, site.phone() as phone:
        chirp = await site.device("chirp", profile="chirpstack/v4")
        await site.device("lamp", profile="acme/lamp", alias=EUI, gateway="chirp")
        server = NetworkServer(phone)
        await server.connect(chirp)
        capabilities = (await site.ask("GET", "/api/v1/devices/lamp/tasking-capabilities")).body
        assert {row["task"]: (row["frame"], row["confirmed"]) for row in capabilities} == {
            "configure": (True, True),
            "reset": (True, False),
        }
        refused = await site.ask(
            "POST",
            "/api/v1/devices/lamp/tasks",
            json={"task": "configure", "parameters": {"level": 150, "interval": 600}},
        )
        assert (refused.status, "the level is above 100" in refused.body["detail"]) == (400, True)

        task = await order(site, "configure", level=40, interval=600)
        assert (task["state"], task["port"], task["topics"]) == ("queued", 10, [])
        await server.uplink(b"\x64\x00\x3c")  # until the device is heard, nobody knows under which application it is
        topic, command = await server.command()
        sent = await reach(site, task, "sent")
        assert topic == f"{TOPIC}/command/down"
        assert command == {
            "id": str(uuid.UUID(task["id"].rjust(32, "0"))),
            "devEui": EUI,
            "confirmed": True,
            "fPort": 10,
            "data": base64.b64encode(bytes([1, 40, 2, 88])).decode(),
        }
        assert sent["sends"] == 1
        await server.event("txack", queueItemId=str(uuid.uuid4()))  # of another downlink
        await server.event("txack", queueItemId=command["id"])
        await reach(site, task, "transmitted")
        await server.event("ack", queueItemId=command["id"], acknowledged=True)
        await reach(site, task, "acknowledged")
        await server.uplink(bytes([40, 2, 88]))
        done = await reach(site, task, "done")
        assert done["sends"] == 1
        trail = [row for row in await site.audit() if row["action"].startswith("task.")]
        assert [(row["action"], row["after"].get("state")) for row in trail] == [
            ("task.order", None),
            ("task.end", "done"),
        ]

        # Without a reading that confirms it, a task is done when it was transmitted; a lost one fails with the reason.
        reset = await order(site, "reset")
        await server.uplink(bytes([40, 2, 88]))
        _, command = await server.command()
        assert (command["fPort"], command["confirmed"], base64.b64decode(command["data"])) == (11, False, b"\xff")
        await server.event("txack", queueItemId=command["id"])
        await reach(site, reset, "done")
        lost = await order(site, "configure", level=10, interval=60)
        await server.uplink(bytes([40, 2, 88]))
        _, command = await server.command()
        await server.event("ack", queueItemId=command["id"], acknowledged=False)
        await reach(site, lost, "failed")
        too_long = await order(site, "configure", level=11, interval=60)
        await server.uplink(bytes([40, 2, 88]))
        _, command = await server.command()
        await server.event(
            "log",
            level="ERROR",
            code="DOWNLINK_PAYLOAD_SIZE",
            description="payload too long",
            context={"queue_item_id": command["id"]},
        )
        assert (await reach(site, too_long, "failed"))["reason"] == "payload too long"
