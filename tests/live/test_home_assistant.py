"""Discovery by Home Assistant: a client that does as Home Assistant does, with its templates rendered by Jinja."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
import pytest_asyncio
from jinja2 import Environment

from sensegate.bus.engine import User
from sensegate.bus.slots import inbox_prefix
from tests.conftest import eventually
from tests.live.granting import Granted, granted
from tests.live.phone import Phone
from tests.live.site import Made, Site, reading

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


class HomeAssistant:
    """Entities by unique id, their states, and whether they are available."""

    def __init__(self, phone: Phone, grant: Granted) -> None:
        self.phone = phone
        self.grant = grant
        self.configs: dict[str, dict[str, Any]] = {}
        """Topic -> configuration."""
        self.states: dict[str, str] = {}
        self.availability = ""
        self.problem = ""

    def entity(self, device: str, device_class: str) -> dict[str, Any]:
        """Return the configuration of an entity."""
        (config,) = [
            config
            for config in self.configs.values()
            if config["device"]["name"] == device and config.get("device_class") == device_class
        ]
        return config

    def take(self, topic: str, payload: bytes) -> None:
        """Handle a message as Home Assistant would."""
        prefix = f"sg/grants/{self.grant.id}/homeassistant"
        if topic.startswith(f"{prefix}/sensor/"):
            if payload:
                self.configs[topic] = json.loads(payload)
            else:
                self.configs.pop(topic, None)
        elif topic == f"{prefix}/availability":
            self.availability = payload.decode()
        elif topic == f"sg/grants/{self.grant.id}/problem":
            self.problem = payload.decode()
        else:
            for config in self.configs.values():
                if config["state_topic"] == topic:
                    value = Environment(autoescape=False).from_string(config["value_template"])  # noqa: S701 - no HTML
                    state = value.render(value_json=json.loads(payload), this={"state": "unknown"})
                    if state:
                        self.states[config["unique_id"]] = state

    async def follow(self) -> None:
        while True:
            self.take(*await self.phone.next("message", timeout_s=3_600))


@asynccontextmanager
async def home_assistant(
    site: Site, grant: Granted, birth: dict[str, Any], client: str = "ha"
) -> AsyncIterator[HomeAssistant]:
    """Connect, subscribe to the discovery prefix and to the states, and send the birth message."""
    async with site.phone() as phone:
        assert await phone.connect(grant.token_id, grant.token, client_id=f"{grant.token_id}-{client}") == 0
        assert await phone.subscribe(f"sg/grants/{grant.id}/#", 1) == 1
        ha = HomeAssistant(phone, grant)
        following = asyncio.create_task(ha.follow())
        phone.send(f"sg/control/{grant.id}/mqtt", json.dumps(birth))
        try:
            yield ha
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(node: Site) -> Made:
    device = await node.device("discovered-air")
    assert (await node.push(device, reading(20.5, "2026-01-01T00:01:00Z"))).status == 202
    return device


async def test_a_series_is_found_with_its_class_and_has_its_values(node: Site, device: Made) -> None:
    """A new device appears, a value arrives by the template of its entity; the next connection finds it retained."""
    grant = await granted(node, "ha-found")
    async with home_assistant(node, grant, {"home_assistant": True, "after": "first"}) as ha:
        await eventually(lambda: ha.configs and ha.availability == "online")
        config = ha.entity(device.id, "temperature")
        assert config["unit_of_measurement"] == "°C"
        assert config["state_class"] == "measurement"
        assert config["name"] == "air temperature"
        assert config["device"]["identifiers"] == [f"sensegate_{grant.id}_{device.id}"]
        assert (await node.push(device, reading(21.25, "2026-01-01T00:02:00Z"))).status == 202
        await eventually(lambda: ha.states.get(config["unique_id"]) == "21.25")
        later = await node.device("discovered-later")
        assert (await node.push(later, reading(3.5, "2026-01-01T00:03:00Z"))).status == 202
        await eventually(lambda: any(row["device"]["name"] == later.id for row in ha.configs.values()))
        # A page without the entity leaves its state as it is.
        assert ha.states[config["unique_id"]] == "21.25"
    async with home_assistant(node, grant, {}, client="ha2") as ha:
        await eventually(lambda: len(ha.configs) >= 2 and ha.availability == "online")


async def test_the_mask_of_the_grant_holds(node: Site, device: Made) -> None:
    """Devices have the pseudonyms of the records; a property that is left out has no entity."""
    hidden = await granted(node, "ha-hidden", mask={"drop": ["air_temperature"]})
    async with home_assistant(node, hidden, {"home_assistant": True}) as ha:
        await eventually(lambda: ha.availability == "online")
        assert ha.configs == {}
    named = await granted(node, "ha-hashed", mask={"hash": ["device"]})
    async with home_assistant(node, named, {"home_assistant": True, "after": "first"}) as ha:
        await eventually(lambda: ha.configs and ha.states)
        assert device.id not in json.dumps([*ha.configs, *ha.configs.values()])
        page = await node.ask("GET", f"/api/v1/feeds/{named.feed}/records", named.token)
        assert {config["device"]["name"] for config in ha.configs.values()} == {
            row["device"] for row in page.body["records"]
        }


async def test_configurations_go_when_they_are_not_wanted_or_the_grant_ends(node: Site, device: Made) -> None:
    """Deleted by an empty retained message; a later client of the broker finds none."""
    grant = await granted(node, "ha-ended")
    async with home_assistant(node, grant, {"home_assistant": True}) as ha:
        await eventually(lambda: ha.configs and ha.availability == "online")
        ha.phone.send(f"sg/control/{grant.id}/mqtt", json.dumps({"home_assistant": False}))
        await eventually(lambda: not ha.configs and ha.availability == "")
        ha.phone.send(f"sg/control/{grant.id}/mqtt", json.dumps({"home_assistant": True}))
        await eventually(lambda: ha.configs)
        assert device.id in json.dumps([*ha.configs.values()])
    assert await retained(node, grant), "control: they stand at the broker while nobody is connected"
    revoked = await node.ask("DELETE", f"/api/v1/grants/{grant.id}", params={"reason": "the test ends"})
    assert revoked.status in {200, 204}, revoked.body

    async def is_gone() -> bool:
        return not await retained(node, grant)

    await eventually(is_gone)


async def retained(site: Site, grant: Granted) -> list[str]:
    """Return the subjects of a grant's retained messages, as the server knows them."""
    kept = msgspec.json.decode((Path(site.config.directory) / "engine" / "engine.json").read_bytes())
    client = await nats.connect(
        site.addresses.nats,
        user=User.FEEDS,
        password=kept["passwords"][User.FEEDS],
        inbox_prefix=inbox_prefix(User.FEEDS).encode(),
    )
    try:
        question = msgspec.json.encode({"subjects_filter": f"$MQTT.rmsgs.sg.grants.{grant.id}.>"})
        answer = await client.request("$JS.API.STREAM.INFO.$MQTT_rmsgs", question, timeout=30)
        return list(json.loads(answer.data)["state"].get("subjects") or ())
    finally:
        await client.close()


async def test_a_form_that_home_assistant_does_not_read_is_refused(node: Site, device: Made) -> None:
    """The reason stands under `problem`, and nothing is published."""
    grant = await granted(node, "ha-form")
    assert device.id
    async with home_assistant(node, grant, {}) as ha:
        ha.phone.send(f"sg/control/{grant.id}/mqtt", json.dumps({"home_assistant": True, "form": "csv"}))
        await eventually(lambda: "Home Assistant reads JSON" in ha.problem)
        assert not ha.configs
        ha.phone.send(f"sg/control/{grant.id}/mqtt", json.dumps({"home_assistant": True}))
        await eventually(lambda: ha.configs)
