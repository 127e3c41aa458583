"""A whole gateway on a nats-server that it did not start: the way of a reading is the same, the server stays."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sensegate.bus.engine import Engine
from sensegate.config import EngineConfig
from tests.conftest import eventually
from tests.live.site import SMALL, config_of, reading, running

pytestmark = pytest.mark.live


async def test_a_gateway_runs_on_a_server_of_others(tmp_path: Path) -> None:
    """Devices publish, are refused and cut as at home; a gateway that stops leaves the server, the next one goes on."""
    server = tmp_path / "server"
    async with Engine(EngineConfig(), SMALL, server, name="4401") as engine:
        config = msgspec.structs.replace(
            config_of(tmp_path / "gateway"),
            engine=EngineConfig(
                url=engine.info.urls[0],
                credentials_file=str(server / "engine" / "engine.json"),
                mqtt_port=engine.info.mqtt_port,
            ),
        )
        async with running(config) as site:
            device = await site.device("d-1")
            other = await site.device("d-2")
            assert site.addresses.engine_pid == 0
            async with site.phone() as phone:
                assert await phone.connect(device.id, device.password) == 0
                await phone.publish(device.topics[0], reading(21.5))
                await phone.publish(other.topics[0], reading(99.0))
                rows = await eventually(site.records)
                assert [(row["device"], row["value"]) for row in rows] == [("d-1", 21.5)]
                answer = await site.ask("POST", f"/api/v1/devices/{device.id}/disable")
                assert answer.status == 200, answer.body
                await phone.next("closed", 2.0)
            assert (await site.totals())["messages"] == 1
        async with running(config) as site:
            assert [row["value"] for row in await site.records()] == [21.5]
