"""The first start after an earlier release, which consumed the store of the server's own MQTT broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.bus import consumer, streams
from sensegate.bus.engine import Engine, User
from sensegate.collect.intake import upgrade
from sensegate.config import Config
from sensegate.errors import NotFound
from tests.conftest import eventually
from tests.live.site import config_of, running
from tests.support.old_consumer import OLD
from tests.support.pipeline import numbers

pytestmark = pytest.mark.live
COUNT = 40


async def leave(config: Config, device: str) -> None:
    """Leave messages with the server as an earlier release does that was killed before it committed them."""
    async with Engine.of(config, slots=()) as engine:
        client = await engine.connect(User.INTAKE)
        await consumer.ensure(client, streams.MQTT_MESSAGES, OLD)
        for number in range(COUNT):
            payload = b'{"time": %d, "values": {"air_temperature": %d}}' % (1_767_225_600 + number, number)
            await client.jetstream().publish(f"$MQTT.msgs.sg.{device}.up", payload, headers={"Nmqtt-Pub": "1"})
        await client.close()


@pytest.mark.parametrize("idle_s", [1.0, 60.0])
async def test_what_an_earlier_release_acknowledged_is_committed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idle_s: float
) -> None:
    """Messages with a PUBACK that were never committed become readings at the first start, and none at the second.

    A heartbeat, once a second, is enough to notice the end, however long the wait for a message would be.
    """
    monkeypatch.setattr(upgrade, "IDLE_S", idle_s)
    config = config_of(tmp_path / "node")
    async with running(config) as site:
        device = await site.device("old-1")
    await leave(config, device.id)
    async with running(config) as site:

        async def all_there() -> bool:
            return len(await numbers(site, device)) == COUNT

        await eventually(all_there)
    async with running(config) as site:
        assert sorted(await numbers(site, device)) == list(range(COUNT))
        assert (await site.totals())["messages"] == COUNT
    async with Engine.of(config, slots=()) as engine:
        client = await engine.connect(User.INTAKE)
        with pytest.raises(NotFound):
            await consumer.status(client, streams.MQTT_MESSAGES, "ingest-0")
        await client.close()
