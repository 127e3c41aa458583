"""The MQTT extension against a whole running gateway: Observations in, updates out, rights, counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import pytest
import pytest_asyncio
from paho.mqtt.enums import CallbackAPIVersion

from sensegate.sensorthings import clients, updates
from tests.conftest import eventually
from tests.live.granting import granted
from tests.live.phone import NOT_AUTHORISED, Phone
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
ROOT = "/sta/v1.1"
REFUSED = 128
WAIT_S = 30.0
_BEGIN = datetime.now(UTC) - timedelta(hours=20)
_moments = (_BEGIN + timedelta(seconds=number) for number in range(60_000))
"""Times within the day in which duplicates are recognised."""


def moment() -> str:
    """Return a new time."""
    return f"{next(_moments):%Y-%m-%dT%H:%M:%S}Z"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running(config_of(tmp_path_factory.mktemp("sta-mqtt"))) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(node: Site) -> Made:
    made = await node.device("mqtt-air")
    assert (await node.push(made, reading(1.0, moment()))).status == 202
    return made


async def ask(site: Site, path: str, token: str | None = None, *, method: str = "GET", **more: Any) -> Any:
    """Return the body of an answer of the API."""
    address = path if path.startswith("/") else f"{ROOT}/{path}"
    answer = await site.ask(method, address, token, **more)
    assert answer.status < 300, (path, answer.status, answer.body)
    return answer.body


async def datastream(site: Site, device: Made, token: str | None = None, root: str = ROOT) -> int:
    """Return the id of the Datastream of air temperature of a device."""
    query = {"$filter": f"Thing/properties/device eq '{device.id}' and ObservedProperty/name eq 'air_temperature'"}
    (entity,) = (await ask(site, f"{root}/Datastreams", token, params=query))["value"]
    number: int = entity["@iot.id"]
    return number


@asynccontextmanager
async def connected(site: Site, token: str, token_id: str, name: str = "c", **more: Any) -> AsyncIterator[Phone]:
    """Return a client of the extension."""
    async with site.phone() as phone:
        code = await phone.connect(f"{token_id}/sta", token, client_id=f"{token_id}-{name}", **more)
        assert code == 0, code
        yield phone


async def message(phone: Phone) -> tuple[str, dict[str, Any]]:
    """Return topic and content of the next message."""
    topic, payload = await phone.next("message", WAIT_S)
    return topic, json.loads(payload)


# ── Observations in ───────────────────────────────────────────────────────────────────────────────────


async def test_an_observation_is_committed_when_it_is_acknowledged(node: Site, device: Made) -> None:
    """Published to either topic: after the PUBACK it is read, by the time and result that were sent."""
    token, token_id = await node.token("admin")
    number, first, second = await datastream(node, device), moment(), moment()
    async with connected(node, token, token_id) as phone:
        body: dict[str, Any] = {"phenomenonTime": first, "result": 21.5}
        await phone.publish(f"v1.1/Datastreams({number})/Observations", json.dumps(body), WAIT_S)
        query = {"$filter": f"phenomenonTime eq {first}"}
        (row,) = (await ask(node, f"Datastreams({number})/Observations", params=query))["value"]
        assert row["result"] == 21.5
        body = {"phenomenonTime": second, "result": 22.5, "Datastream": {"@iot.id": number}}
        await phone.publish("v1.1/Observations", json.dumps(body), WAIT_S)
        query = {"$filter": f"phenomenonTime eq {second}"}
        (row,) = (await ask(node, f"Datastreams({number})/Observations", params=query))["value"]
        assert row["result"] == 22.5


async def test_the_same_observation_twice_is_one(node: Site, device: Made) -> None:
    """Judged for duplicates like any other: by MQTT twice and by POST, one Observation; another result revises it."""
    token, token_id = await node.token("admin")
    number, at = await datastream(node, device), moment()
    topic, query = f"v1.1/Datastreams({number})/Observations", {"$filter": f"phenomenonTime eq {at}"}
    async with connected(node, token, token_id) as phone:
        body = json.dumps({"phenomenonTime": at, "result": 5})
        await phone.publish(topic, body, WAIT_S)
        await phone.publish(topic, body, WAIT_S)
        await ask(node, f"Datastreams({number})/Observations", token, method="POST", json=json.loads(body))
        (row,) = (await ask(node, f"Datastreams({number})/Observations", params=query))["value"]
        assert (row["result"], row["parameters"]["revision"]) == (5, 0)
        await phone.publish(topic, json.dumps({"phenomenonTime": at, "result": 6}), WAIT_S)
        (revised,) = (await ask(node, f"Datastreams({number})/Observations", params=query))["value"]
        assert (revised["@iot.id"], revised["result"]) == (row["@iot.id"], 6)


async def test_many_at_once_are_acknowledged_in_their_order(node: Site, device: Made) -> None:
    """A hundred messages without waiting: a PUBACK for each, in order, and each is read."""
    token, token_id = await node.token("admin")
    number, times = await datastream(node, device), [moment() for _ in range(100)]
    async with connected(node, token, token_id) as phone:
        topic = f"v1.1/Datastreams({number})/Observations"
        sent = [phone.send(topic, json.dumps({"phenomenonTime": at, "result": 1})) for at in times]
        assert [await phone.next("puback", WAIT_S) for _ in sent] == sent
    query = {"$filter": f"phenomenonTime ge {times[0]} and phenomenonTime le {times[-1]}", "$count": "true"}
    assert (await ask(node, f"Datastreams({number})/Observations", params=query))["@iot.count"] == len(times)


async def test_what_is_not_taken_is_answered_with_its_reason(node: Site, device: Made) -> None:
    """MQTT 5.0: no right, no such Datastream, no JSON, no Observation; the control is taken; QoS 2 as well."""
    number, at = await datastream(node, device), moment()
    good = {"phenomenonTime": at, "result": 7}
    topic = f"v1.1/Datastreams({number})/Observations"
    operator, reader = await node.token("admin"), await node.token("subscriber")
    expected = [
        (reader, topic, json.dumps(good), 1, 0x87),
        (operator, "v1.1/Datastreams(5)/Observations", json.dumps(good), 1, 0x90),
        (operator, topic, "{", 1, 0x99),
        (operator, topic, json.dumps({"phenomenonTime": at}), 1, 0x99),
        (operator, "v1.1/Things", json.dumps({"name": "x", "description": "y"}), 1, 0x90),
        (operator, "v1.1/Observations", json.dumps(good), 1, 0x99),
        (operator, topic, json.dumps(good), 1, 0x00),
        (operator, topic, json.dumps(good), 2, 0x00),
    ]
    for (token, token_id), wanted, payload, qos, code in expected:
        assert await _published(node, (token, token_id), wanted, payload, qos) == code, (wanted, payload)


async def _published(node: Site, credential: tuple[str, str], topic: str, payload: str, qos: int) -> int:
    """Return the reason code with which a message of MQTT 5.0 is acknowledged."""
    token, token_id = credential
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[int] = loop.create_future()
    client: Any = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"{token_id}-5", protocol=paho.MQTTv5)
    client.username_pw_set(f"{token_id}/sta", token)
    client.on_publish = lambda _c, _u, _m, reason, _p: loop.call_soon_threadsafe(answered.set_result, reason.value)
    client.on_connect = lambda *_: client.publish(topic, payload, qos)
    await asyncio.to_thread(client.connect, "127.0.0.1", urlsplit(node.addresses.mqtt).port or 0)
    client.loop_start()
    try:
        async with asyncio.timeout(WAIT_S):
            return await answered
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


# ── updates out ───────────────────────────────────────────────────────────────────────────────────────


async def test_observations_of_a_datastream_and_of_all(node: Site, device: Made) -> None:
    """From the SUBACK on, each new Observation once, as GET shows it; a revision under the id of the first.

    `$select` cuts it; a topic of one Datastream hears nothing of another.
    """
    token, token_id = await node.token("subscriber")
    other = await node.device("mqtt-other")
    assert (await node.push(other, reading(1.0, moment()))).status == 202
    number = await datastream(node, device)
    mine, every = f"v1.1/Datastreams({number})/Observations", "v1.1/Observations"
    async with (
        connected(node, token, token_id, "one") as single,
        connected(node, token, token_id, "all") as whole,
        connected(node, token, token_id, "cut") as cut,
    ):
        assert await single.subscribe(mine, 1) == 1
        assert await whole.subscribe(every, 0) == 0
        assert await cut.subscribe(f"{mine}?$select=result,phenomenonTime", 1) == 1
        first, second = moment(), moment()
        assert (await node.push(other, reading(2.0, first))).status == 202
        assert (await node.push(device, reading(3.0, second))).status == 202
        topic, row = await message(single)
        assert (topic, row["result"]) == (mine, 3.0)
        shown = await ask(node, f"Observations({row['@iot.id']})", token)
        assert {name: row[name] for name in ("phenomenonTime", "resultTime", "result", "parameters")} == {
            name: shown[name] for name in ("phenomenonTime", "resultTime", "result", "parameters")
        }
        assert await message(cut) == (
            f"{mine}?$select=result,phenomenonTime",
            {"result": 3.0, "phenomenonTime": row["phenomenonTime"]},
        )
        results = [(await message(whole))[1]["result"] for _ in range(2)]
        assert results == [2.0, 3.0]
        assert (await node.push(device, reading(4.0, second))).status == 202
        _, revised = await message(single)
        assert (revised["@iot.id"], revised["result"]) == (row["@iot.id"], 4.0)


async def test_entities_and_properties(node: Site) -> None:
    """A set tells of a new entity, an entity of its change, a property of its own; nothing that did not change."""
    token, token_id = await node.token("admin")
    named = {"name": "boiler", "description": "in the cellar"}
    thing = (await ask(node, "Things", method="POST", json={**named, "properties": {"division": "440106"}}))["@iot.id"]
    async with connected(node, token, token_id) as phone:
        assert await phone.subscribe("v1.1/Things?$select=name", 1) == 1
        await ask(node, "Things", method="POST", json={**named, "name": "stove", "properties": {"division": "440106"}})
        assert await message(phone) == ("v1.1/Things?$select=name", {"name": "stove"})
        assert await phone.subscribe(f"v1.1/Things({thing})", 1) == 1
        assert await phone.subscribe(f"v1.1/Things({thing})/description", 1) == 1
        await ask(node, f"Things({thing})", method="PATCH", json={"description": "in the yard"})
        messages = dict([await message(phone), await message(phone)])
        assert messages[f"v1.1/Things({thing})/description"] == {"description": "in the yard"}
        assert messages[f"v1.1/Things({thing})"]["description"] == "in the yard"
        assert messages[f"v1.1/Things({thing})"]["@iot.id"] == thing


async def test_who_may_connect_and_subscribe(node: Site, device: Made) -> None:
    """Another's token, client id or password, wildcards, other paths, other feeds, others' topics: refused."""
    token, token_id = await node.token("subscriber")
    other, other_id = await node.token("subscriber")
    for user, password, client_id in (
        (f"{other_id}/sta", token, f"{other_id}-c"),
        (f"{token_id}/sta", token[:-1] + "!", f"{token_id}-c"),
        (f"{token_id}/sta", token, f"{other_id}-c"),
        (f"{token_id}/other", token, f"{token_id}-c"),
    ):
        async with node.phone() as phone:
            assert await phone.connect(user, password, client_id=client_id) == NOT_AUTHORISED
    async with connected(node, token, token_id) as phone:
        for topic in (
            "#",
            "v1.1/#",
            "v1.1/+/Observations",
            "v1.1/Nothing",
            "v1.1/Datastreams(5)/Observations",
            "v1.1/Observations?$select=nothing",
            "v1.1/Observations/$count",
            "feeds/absent/sta/v1.1/Observations",
            f"sg/sta/{other_id}/v1.1/Observations",
            f"sg/grants/{other_id}/records",
        ):
            assert await phone.subscribe(topic, 1) == REFUSED, topic
        assert await phone.subscribe("v1.1/Observations", 1) == 1
    assert other


async def test_topics_and_sets_have_limits(node: Site, device: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic too many, and a set with too many entities, are refused; the same topic again is none more (control)."""
    token, token_id = await node.token("subscriber")
    async with connected(node, token, token_id) as phone:
        monkeypatch.setattr(updates, "ENTITIES_MAX", 0)
        assert await phone.subscribe("v1.1/Things", 1) == REFUSED
        monkeypatch.setattr(clients, "TOPICS_MAX", 1)
        assert await phone.subscribe("v1.1/Observations", 1) == 1
        assert await phone.subscribe(f"v1.1/Datastreams({await datastream(node, device)})/Observations", 1) == REFUSED
        assert await phone.subscribe("v1.1/Observations", 1) == 1


async def test_a_grant_is_delivered_under_its_mask_and_counted(node: Site, device: Made) -> None:
    """A masked feed shows no device; usage is what the client counted; a revoked grant ends the connection."""
    grant = await granted(node, "sta-masked", mask={"hash": ["device"]})
    root = f"/feeds/{grant.feed}/sta/v1.1"
    (entity,) = [
        row
        for row in (await ask(node, f"{root}/Datastreams", grant.token, params={"$expand": "Thing"}))["value"]
        if row["name"] == "air_temperature"
    ][:1]
    topic = f"feeds/{grant.feed}/sta/v1.1/Observations"
    async with connected(node, grant.token, grant.token_id) as phone:
        assert await phone.subscribe(topic, 1) == 1
        for value in range(5):
            assert (await node.push(device, reading(float(value), moment()))).status == 202
        rows = [(await message(phone))[1] for _ in range(5)]
        assert [row["result"] for row in rows] == [0, 1, 2, 3, 4]
        assert "mqtt-air" not in json.dumps(rows)
        assert entity["Thing"]["name"] != "mqtt-air"

        async def counted() -> bool:
            usage = await node.ask("GET", "/api/v1/usage", grant.token)
            return [row["records"] for row in usage.body["rows"] if row["delivery"] == "mqtt"] == [5]

        await eventually(counted)
        assert (await node.ask("DELETE", f"/api/v1/grants/{grant.id}")).status == 200
        await phone.next("closed", WAIT_S)
    async with connected(node, grant.token, grant.token_id) as phone:
        assert await phone.subscribe(topic, 1) == REFUSED
