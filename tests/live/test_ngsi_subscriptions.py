"""NGSI-LD subscriptions of a whole gateway: created, notified to a real HTTP server, paused, resumed, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import pytest
import pytest_asyncio

from sensegate.clock import SystemClock
from sensegate.config.people import EgressConfig
from tests.collect.mosquitto import Mosquitto
from tests.conftest import eventually
from tests.live.receiver import Receiver, receiving
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
SUBSCRIPTIONS = "/ngsi-ld/v1/subscriptions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node that may post to loopback."""
    config = config_of(
        tmp_path_factory.mktemp("node"),
        egress=EgressConfig(("127.0.0.0/8",), retry_initial_s=0.05, retry_max_s=0.2, failures_max=50),
    )
    async with running(config) as running_site:
        yield running_site


async def push(site: Site, device: Made, value: float, minute: int) -> None:
    """Send a reading with a time of its own."""
    answer = await site.push(device, reading(value, f"2026-01-01T00:{minute:02d}:00Z"))
    assert answer.status == 202


def values(receiver: Receiver) -> list[Any]:
    """Return the values of all entities of all notifications, in their order."""
    return [entity["temperature"]["value"] for letter in receiver.kept for entity in json.loads(letter.body)["data"]]


async def has_values(receiver: Receiver, count: int) -> bool:
    return len(values(receiver)) >= count


async def test_a_subscription(site: Site) -> None:
    """Each reading that matches once, through failures of the receiver and a pause; signed; counted; in the usage."""
    device = await site.device("ngsi-air")
    token, _ = await site.token()
    async with receiving() as receiver:
        body: dict[str, Any] = {
            "type": "Subscription",
            "entities": [{"type": "WeatherObserved"}],
            "q": "temperature>0",
            "notification": {"endpoint": {"uri": receiver.url}},
        }
        denied = {**body, "notification": {"endpoint": {"uri": "https://10.0.0.1/x"}}}
        assert (await site.ask("POST", SUBSCRIPTIONS, token, json=denied)).status == 400
        answer = await site.ask("POST", SUBSCRIPTIONS, token, json=body)
        assert answer.status == 201, answer.body
        path, secret = answer.headers["Location"], answer.headers["Sensegate-Webhook-Secret"]
        receiver.answers = [500, 503]
        await push(site, device, 20, 1)
        await eventually(lambda: has_values(receiver, 1))
        await push(site, device, -1, 2)
        await push(site, device, 21, 3)
        await eventually(lambda: has_values(receiver, 2))
        assert all(letter.signed_by(secret) for letter in receiver.kept)
        assert (await site.ask("PATCH", path, token, json={"isActive": False})).status == 204
        assert (await site.ask("GET", path, token)).body["status"] == "paused"
        await push(site, device, 22, 4)
        assert (await site.ask("PATCH", path, token, json={"isActive": True})).status == 204
        await eventually(lambda: has_values(receiver, 3))
        assert values(receiver) == [20, 21, 22]

        async def is_counted() -> bool:
            rows = (await site.ask("GET", "/api/v1/subscribers", token)).body["rows"]
            return any(row["records"] >= 1 and row["id"].startswith("ngsi-") for row in rows)

        await eventually(is_counted)
        shown = (await site.ask("GET", path, token)).body
        assert (shown["status"], shown["notification"]["timesFailed"]) == ("active", 2)
        assert [row["id"] for row in (await site.ask("GET", SUBSCRIPTIONS, token)).body] == [shown["id"]]
        assert (await site.ask("DELETE", path, token)).status == 204
        assert (await site.ask("GET", path, token)).status == 404


async def test_notifications_by_mqtt(site: Site, tmp_path: Path) -> None:
    """Readings and changes of stored entities at the subscriber's broker, headers as metadata; no password is kept."""
    device = await site.device("ngsi-mqtt")
    token, _ = await site.token("city_operator")
    async with Mosquitto(tmp_path, persistent=False) as broker, aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("city/#", qos=1)
        arriving = client.messages.__aiter__()
        body: dict[str, Any] = {
            "type": "Subscription",
            "entities": [{"type": "WeatherObserved", "idPattern": "ngsi-mqtt"}, {"type": "Bench"}],
            "notification": {
                "endpoint": {
                    "uri": f"mqtt://user:secret@127.0.0.1:{broker.port}/city/air",
                    "accept": "application/ld+json",
                    "receiverInfo": [{"key": "Fiware-Service", "value": "city"}],
                    "notifierInfo": [{"key": "MQTT-Version", "value": "mqtt5.0"}],
                }
            },
        }
        denied = {"endpoint": {"uri": "mqtt://10.0.0.1/x"}}
        refused = await site.ask("POST", SUBSCRIPTIONS, token, json={**body, "notification": denied})
        assert refused.status == 400, refused.body
        answer = await site.ask("POST", SUBSCRIPTIONS, token, json=body)
        assert answer.status == 201, answer.body
        await push(site, device, 20, 1)
        message = json.loads((await anext(arriving)).payload)
        assert message["metadata"].items() >= {"Content-Type": "application/ld+json", "Fiware-Service": "city"}.items()
        (entity,) = message["body"]["data"]
        assert (entity["temperature"]["value"], message["body"]["type"]) == (20, "Notification")
        bench = {"id": "urn:x:bench", "type": "Bench", "seats": 2}
        assert (await site.ask("POST", "/ngsi-ld/v1/entities", token, json=bench)).status == 201
        (entity,) = json.loads((await anext(arriving)).payload)["body"]["data"]
        assert (entity["id"], entity["seats"]["value"]) == ("urn:x:bench", 2)
        assert (await site.ask("DELETE", answer.headers["Location"], token)).status == 204
        auditor = site.config_file("auditor.token").read_text().strip()
        kept = await site.ask("GET", "/api/v1/audit", auditor)
        assert "ngsi_ld.subscription.create" in str(kept.body)
        assert "secret@" not in str(kept.body)


async def test_the_context_inside_a_subscription_is_linked(site: Site) -> None:
    """A notification as JSON links to the @context that stood inside the request, which is served."""
    device = await site.device("ngsi-linked")
    token, _ = await site.token()
    source = {"warmth": "https://smartdatamodels.org/dataModel.Weather/temperature"}
    entity = {"type": "WeatherObserved", "idPattern": "ngsi-linked"}
    async with receiving() as receiver:
        body = {
            "type": "Subscription",
            "entities": [entity],
            "notification": {"endpoint": {"uri": receiver.url}},
            "@context": source,
        }
        media = {"Content-Type": "application/ld+json"}
        answer = await site.ask("POST", SUBSCRIPTIONS, token, data=json.dumps(body), headers=media)
        assert answer.status == 201, answer.body
        await push(site, device, 20, 1)
        await eventually(lambda: len(receiver.kept) == 1)
        link = receiver.kept[0].headers["Link"]
        path = urlsplit(link.partition(">")[0].removeprefix("<")).path
        served = await site.ask("GET", path, token, headers={"Accept": "application/json"})
        assert served.body == {"@context": source}
        assert (await site.ask("DELETE", answer.headers["Location"], token)).status == 204


async def test_subscriptions_to_context_sources_are_not_offered(site: Site) -> None:
    """A subscription to registrations is answered with 501 and a problem that names the reason and the way out."""
    token, _ = await site.token()
    for method, path in (("POST", "csourceSubscriptions"), ("GET", "csourceSubscriptions/urn:x:1")):
        answer = await site.ask(method, f"/ngsi-ld/v1/{path}", token, **({"json": {}} if method == "POST" else {}))
        assert (answer.status, answer.body["type"]) == (
            501,
            "https://uri.etsi.org/ngsi-ld/errors/OperationNotSupported",
        )
        assert "ask /ngsi-ld/v1/csourceRegistrations" in answer.body["detail"]


async def test_a_restart_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A subscription goes on at its committed offset after the gateway was stopped; what came in between arrives."""
    config = config_of(tmp_path, egress=EgressConfig(("127.0.0.0/8",), retry_initial_s=0.05, retry_max_s=0.2))
    async with receiving() as receiver:
        async with running(config) as first:
            device = await first.device("ngsi-air")
            token, _ = await first.token()
            body: dict[str, Any] = {
                "type": "Subscription",
                "entities": [{"type": "WeatherObserved"}],
                "notification": {"endpoint": {"uri": receiver.url}},
            }
            answer = await first.ask("POST", SUBSCRIPTIONS, token, json=body)
            assert answer.status == 201, answer.body
            await push(first, device, 20, 1)
            await eventually(lambda: has_values(receiver, 1))
            receiver.answers = [500] * 3
            await push(first, device, 21, 2)
            await eventually(lambda: has_attempts(receiver, 2))
        async with running(config) as second:
            await eventually(lambda: has_values(receiver, 2))
            await push(second, device, 22, 3)
            await eventually(lambda: has_values(receiver, 3))
            assert values(receiver) == [20, 21, 22]
            assert (await second.ask("GET", answer.headers["Location"], token)).body["status"] == "active"


async def has_attempts(receiver: Receiver, count: int) -> bool:
    return len(receiver.attempts) >= count


class HurriedClock(SystemClock):
    """A clock whose long sleeps are short, so that intervals come at once."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.2))


def ids(receiver: Receiver) -> list[str]:
    """Return the ids of the entities of all notifications, in their order."""
    return [entity["id"] for letter in receiver.kept for entity in json.loads(letter.body)["data"]]


async def test_state_and_changes_in_a_gateway(tmp_path: Path) -> None:
    """Intervals, changed to changes of stored entities; through a pause and a restart nothing is lost."""
    config = config_of(tmp_path, egress=EgressConfig(("127.0.0.0/8",), retry_initial_s=0.05, retry_max_s=0.2))
    async with receiving() as receiver:
        async with running(config, clock=HurriedClock()) as first:
            device = await first.device("ngsi-air")
            token, _ = await first.token("city_operator")
            await push(first, device, 20, 1)
            body: dict[str, Any] = {
                "type": "Subscription",
                "entities": [{"type": "WeatherObserved"}],
                "timeInterval": 10,
                "notification": {"endpoint": {"uri": receiver.url}},
            }
            answer = await first.ask("POST", SUBSCRIPTIONS, token, json=body)
            assert answer.status == 201, answer.body
            path, secret = answer.headers["Location"], answer.headers["Sensegate-Webhook-Secret"]
            await eventually(lambda: has_values(receiver, 2))
            assert set(values(receiver)) == {20}
            assert all(letter.signed_by(secret) for letter in receiver.kept)

            async def is_counted() -> bool:
                rows = (await first.ask("GET", "/api/v1/usage", token)).body["rows"]
                return sum(int(row["records"]) for row in rows if row["delivery"] == "webhook") >= 2

            await eventually(is_counted)
            changes = {"timeInterval": None, "entities": [{"type": "Bench"}], "notificationTrigger": ["entityCreated"]}
            assert (await first.ask("PATCH", path, token, json=changes)).status == 204

            async def bench(site: Site, number: int) -> str:
                name = f"urn:x:bench{number}"
                made = await site.ask("POST", "/ngsi-ld/v1/entities", token, json={"id": name, "type": "Bench", "a": 1})
                assert made.status == 201, made.body
                return name

            result = await bench(first, 1)
            await eventually(lambda: result in ids(receiver))
            assert (await first.ask("PATCH", path, token, json={"isActive": False})).status == 204
            two = await bench(first, 2)
            assert (await first.ask("PATCH", path, token, json={"isActive": True})).status == 204
            await eventually(lambda: two in ids(receiver))
            attempts = len(receiver.attempts)
            receiver.answers = [500] * 100
            three = await bench(first, 3)
            await eventually(lambda: has_attempts(receiver, attempts + 1))
        receiver.answers = []
        async with running(config) as second:
            await eventually(lambda: three in ids(receiver))
            four = await bench(second, 4)
            await eventually(lambda: four in ids(receiver))
        benches = [name for name in ids(receiver) if "bench" in name]
        assert benches == [result, two, three, four]
