"""Notifications: which entities a page of records makes, what a subscription selects of them, and what is sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sensegate.clock import SystemClock
from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.notification_writing import SubscriptionCounts
from sensegate.ngsi_ld.notifications import DeferredTransport, NotificationTransport, PushedRecord, entities_of
from sensegate.ngsi_ld.problems import ErrorType, NgsiError
from sensegate.ngsi_ld.subscription_registry import selection_of
from sensegate.ngsi_ld.subscriptions import EntitySubscription, read_document
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery
from tests.ngsi_ld.receiving import BODY, ENDPOINT, Receiver

CORE = LdContexts().core
AIR, NOISE = "gz-air", "gz-noise"


def mqtt_endpoint(settings: dict[str, str]) -> dict[str, Any]:
    """Return the members of a subscription with an MQTT endpoint."""
    pairs = [{"key": key, "value": value} for key, value in settings.items()]
    return {"notification": {"endpoint": {"uri": "mqtt://example.org/in", "notifierInfo": pairs}}}


def record(device: str, name: str, value: Any, second: int = 0, **more: Any) -> PushedRecord:
    time = f"2026-01-01T00:00:{second:02}.000000Z"
    return PushedRecord(device, name, value, time, time, "440106", quality="good", lon=113.3, lat=23.1, **more)


def transport(receiver: Receiver, counts: SubscriptionCounts | None = None, **members: Any) -> NotificationTransport:
    """Return the transport of a subscription with other members."""
    document = read_document({**BODY, **members})
    subscription = EntitySubscription(id=document.id, feed="all", subscriber="t1", document=document, secret="")
    selects = selection_of(document, CORE).matches
    return NotificationTransport(
        subscription, selects, CORE, receiver, lambda code: f"/44/{code}", SystemClock(), counts or SubscriptionCounts()
    )


def page(*records: PushedRecord) -> OutboundDelivery:
    body = msgspec.json.encode({"records": records, "next": "c"})
    return OutboundDelivery(target="x", id="msg_1", body=body, media="application/json")


def test_every_reading_is_in_one_entity() -> None:
    """One entity for each device, type and time, in the order of the log; a revision in the page comes after."""
    records = [
        record(AIR, "pm2_5", 35),
        record(AIR, "pm10", 60),
        record(AIR, "air_temperature", 21),
        record(NOISE, "sound_level_leq", 55),
        record(AIR, "pm2_5", 36, second=1),
        record(AIR, "pm2_5", 37),
    ]
    entities, sizes = entities_of(records, lambda code: f"/44/{code}")
    assert sum(sizes) == len(records) == sum(instance.readings for entity in entities for instance in entity.attributes)
    assert [entity.id.rpartition("ngsi-ld:")[2] for entity in entities] == [
        f"AirQualityObserved:{AIR}",
        f"WeatherObserved:{AIR}",
        f"NoiseLevelObserved:{NOISE}",
        f"AirQualityObserved:{AIR}",
        f"AirQualityObserved:{AIR}",
    ]
    assert sizes[0] == 2


async def test_a_notification() -> None:
    """The selected entities go out in one notification with the headers of the receiver; the rest is not counted."""
    receiver = Receiver()
    result = await transport(receiver).send(page(record(AIR, "pm2_5", 35), record(NOISE, "sound_level_leq", 55)))
    assert (result.accepted, result.records) == (True, 1)
    assert {"type": "Notification", "subscriptionId": BODY["id"]}.items() <= receiver.last.items()
    (entity,) = receiver.last["data"]
    assert entity["pm25"]["value"] == 35
    assert entity["location"]["value"]["coordinates"] == [113.3, 23.1]
    (sent,) = receiver.sent
    assert (sent.target, sent.id, sent.media) == (ENDPOINT["uri"], "msg_1", "application/json")
    assert ("Authorization", "Bearer x") in sent.headers
    assert any(name == "Link" for name, _ in sent.headers)
    result = await transport(receiver).send(page(record(NOISE, "sound_level_leq", 55)))
    assert (result.accepted, result.records, len(receiver.sent)) == (True, 0, 1)


@pytest.mark.parametrize(
    ("members", "is_selected"),
    [
        ({"watchedAttributes": ["pm25"]}, True),
        ({"watchedAttributes": ["no2"]}, False),
        ({"q": "pm25>30"}, True),
        ({"q": "pm25>40"}, False),
        ({"scopeQ": "/44/440106"}, True),
        ({"scopeQ": "/44/440304"}, False),
        ({"entities": [{"id": f"urn:ngsi-ld:AirQualityObserved:{AIR}"}]}, True),
        ({"entities": [{"type": "AirQualityObserved", "idPattern": "sz-"}]}, False),
        ({"geoQ": {"georel": "near;maxDistance==1000", "geometry": "Point", "coordinates": [113.3, 23.1]}}, True),
        ({"geoQ": {"georel": "near;maxDistance==1000", "geometry": "Point", "coordinates": [114, 23]}}, False),
    ],
)
async def test_conditions(members: dict[str, Any], is_selected: bool) -> None:  # noqa: FBT001 - a column of the table
    """Types, ids, patterns, attributes, values, places and scopes decide."""
    receiver = Receiver()
    await transport(receiver, **members).send(page(record(AIR, "pm2_5", 35)))
    assert bool(receiver.sent) is is_selected


async def test_forms() -> None:
    """Chosen attributes, simplified values, JSON-LD and GeoJSON bodies."""
    receiver = Receiver()
    params = {"endpoint": {**ENDPOINT, "accept": "application/ld+json"}, "format": "keyValues", "attributes": ["pm25"]}
    await transport(receiver, notification=params).send(page(record(AIR, "pm2_5", 35), record(AIR, "pm10", 60)))
    (entity,) = receiver.last["data"]
    assert entity["pm25"] == 35
    assert not {"pm10", "location"} & entity.keys()
    assert "@context" in receiver.last
    params = {"endpoint": {**ENDPOINT, "accept": "application/geo+json"}}
    await transport(receiver, notification=params).send(page(record(AIR, "pm2_5", 35)))
    assert receiver.last["data"]["features"][0]["geometry"]["type"] == "Point"


async def test_failures_throttling_and_the_end() -> None:
    """A failure is passed on and counted; what comes too early waits and is not lost; an expired one ends."""
    receiver, counts = Receiver(), SubscriptionCounts()
    sender = transport(receiver, counts, throttling=3_600)
    receiver.result = DeliveryResult(accepted=False, reason="answered 500")
    assert not (await sender.send(page(record(AIR, "pm2_5", 35)))).accepted
    receiver.result = DeliveryResult(accepted=True)
    assert (await sender.send(page(record(AIR, "pm2_5", 35)))).accepted
    waiting = await sender.send(page(record(AIR, "pm2_5", 36)))
    assert (waiting.accepted, waiting.unavailable) == (False, True)
    assert 3_000 < waiting.retry_after_s <= 3_600
    assert (counts.sent, counts.failed, len(receiver.sent)) == (2, 1, 2)
    assert counts.last_success >= counts.last_failure > 0
    expired = transport(receiver, expiresAt="2026-01-01T00:00:00Z")
    assert (await expired.send(page(record(AIR, "pm2_5", 35)))).gone


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"type": "Sub"}, "type"),
        ({"entities": []}, "neither entities nor watchedAttributes"),
        ({"entities": [{}]}, "selector is empty"),
        ({"entities": [{"idPattern": "("}]}, "idPattern"),
        ({"expiresAt": "tomorrow"}, "is not a time"),
        ({"throttling": -1}, "throttling"),
        ({"colour": 1}, "colour"),
        ({"notification": {}}, "endpoint"),
        ({"notification": {"endpoint": {**ENDPOINT, "accept": "text/xml"}}}, "accept"),
        (
            {"notification": {"endpoint": {"uri": "https://x/y", "receiverInfo": [{"key": "Host", "value": "z"}]}}},
            "Host",
        ),
        ({"timeInterval": 5}, "timeInterval"),
        ({"timeInterval": 60, "throttling": 5}, "timeInterval: does not go with throttling"),
        ({"timeInterval": 60, "watchedAttributes": ["pm25"]}, "timeInterval: does not go with watchedAttributes"),
        ({"notificationTrigger": ["entityMoved"]}, "entityMoved"),
        (mqtt_endpoint({"MQTT-QoS": "3"}), "MQTT-QoS: '3' is unknown"),
        (mqtt_endpoint({"MQTT-Version": "mqtt4"}), "MQTT-Version: 'mqtt4' is unknown"),
        (mqtt_endpoint({"MQTT-Retain": "1"}), "'MQTT-Retain' is unknown"),
        ({"csf": "x"}, "csf: is not offered"),
    ],
)
def test_what_is_refused(members: dict[str, Any], problem: str) -> None:
    """A wrong subscription is refused by the member that is wrong; what is not offered is OperationNotSupported."""
    with pytest.raises(NgsiError) as caught:
        read_document({**BODY, **members})
    assert problem in str(caught.value)
    is_offered = "is not offered" not in problem
    assert caught.value.kind is (ErrorType.BAD_REQUEST_DATA if is_offered else ErrorType.OPERATION_NOT_SUPPORTED)


@pytest.mark.parametrize(
    ("triggers", "follows"),
    [
        ([], True),
        (["attributeUpdated"], True),
        (["entityUpdated"], True),
        (["entityCreated", "entityDeleted"], False),
        (["attributeDeleted"], False),
    ],
)
def test_triggers_of_readings(triggers: list[str], follows: bool) -> None:  # noqa: FBT001 - a column of the table
    """A reading adds or updates an attribute; a subscription to other changes gets none."""
    assert read_document({**BODY, "notificationTrigger": triggers}).follows_readings is follows


async def test_a_context_that_is_deleted_holds_deliveries_up() -> None:
    """While a stored @context is missing, deliveries wait and say why; once it is back, they go on."""
    receiver = Receiver()
    documents: dict[str, Any] = {}
    resolver = LdContexts(documents.get)

    def make() -> NotificationTransport:
        resolver.resolve("https://example.org/c")
        return transport(receiver)

    deferred = DeferredTransport(make)
    waiting = await deferred.send(page(record(AIR, "pm2_5", 35)))
    assert (waiting.accepted, waiting.unavailable) == (False, True)
    assert "https://example.org/c" in waiting.reason
    documents["https://example.org/c"] = {"a": "urn:x:a"}
    assert (await deferred.send(page(record(AIR, "pm2_5", 35)))).accepted
    assert len(receiver.sent) == 1
