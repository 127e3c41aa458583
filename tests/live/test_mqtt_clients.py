"""Retained messages and subscription options as strangers' clients meet them: the same script against Mosquitto and us.

Retained messages are Home Assistant's configurations, the only ones that our clients hear.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import aiomqtt
import msgspec
import paho.mqtt.client as paho
import pytest
import pytest_asyncio
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from sensegate.collect.front.packets import (
    Acknowledgement,
    Disconnect,
    PacketType,
    Ping,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Version,
    Will,
)
from tests.collect.front.front_rig import PacketClient
from tests.collect.mosquitto import Mosquitto
from tests.conftest import eventually
from tests.live.granting import Granted, granted
from tests.live.site import Site, reading

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

Message = tuple[str, bool, tuple[int, ...]]
"""Topic, RETAIN, subscription identifiers."""


class Broker(msgspec.Struct, frozen=True):
    """Where a script runs: a broker with retained messages below a prefix."""

    port: int
    user: str
    password: str
    prefix: str
    retained: frozenset[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grant(node: Site) -> Granted:
    """A grant whose series have retained configurations."""
    device = await node.device("optional-air")
    assert (await node.push(device, reading(20.5, "2026-01-01T00:01:00Z"))).status == 202
    made = await granted(node, "by-options")
    async with node.phone() as phone:
        assert await phone.connect(made.token_id, made.token, client_id=f"{made.token_id}-birth") == 0
        assert await phone.subscribe(f"sg/grants/{made.id}/homeassistant/#", 1) == 1
        await phone.publish(f"sg/control/{made.id}/mqtt", '{"home_assistant": true}', 30.0)
        topics: set[str] = set()
        while not any(topic.endswith("/config") for topic in topics) or len(topics) < 2:
            topics.add((await phone.next("message", 30.0))[0])
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours(node: Site, grant: Granted) -> Broker:
    port = urlsplit(node.addresses.mqtt).port or 0
    prefix = f"sg/grants/{grant.id}/homeassistant"
    broker = Broker(port, grant.token_id, grant.token, prefix, frozenset())
    async with Paho(broker, "look") as client:
        await client.subscribe(f"{prefix}/#", handling=0)
        topics = frozenset(topic for topic, _, _ in await client.settled())
    return msgspec.structs.replace(broker, retained=topics)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mosquitto(ours: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """A Mosquitto with the same retained messages."""
    async with Mosquitto(tmp_path_factory.mktemp("mosquitto"), persistent=False) as server:
        broker = msgspec.structs.replace(ours, port=server.port)
        async with aiomqtt.Client("127.0.0.1", server.port) as client:
            for topic in ours.retained:
                await client.publish(topic, b"x", qos=1, retain=True)
        yield broker


class Stranger(Protocol):
    """A client that somebody else has written."""

    async def subscribe(self, topic_filter: str, *, handling: int, identifier: int = 0) -> None: ...

    async def settled(self) -> list[Message]:
        """Return the messages that came since the last call, once all retained ones have."""
        ...

    async def unsubscribe(self, topic_filter: str) -> list[int]: ...


class Paho:
    """paho, in a thread of its own."""

    def __init__(self, broker: Broker, name: str, *, expiry_s: int = 0, clean: bool = True) -> None:
        self._broker = broker
        self._clean = clean
        self._properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        self._properties.SessionExpiryInterval = expiry_s
        self._loop = asyncio.get_running_loop()
        self._answers: asyncio.Queue[list[int]] = asyncio.Queue()
        self.messages: list[Message] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{broker.user}-{name}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.username_pw_set(broker.user, broker.password)
        self._client.on_connect = lambda _c, _u, _f, code, _p: self._answered([code.value])
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self._answered([code.value for code in codes])
        self._client.on_unsubscribe = lambda _c, _u, _m, codes, _p: self._answered([code.value for code in codes])
        self._client.on_message = lambda _c, _u, message: self._heard(message)

    def _answered(self, codes: list[int]) -> None:
        self._loop.call_soon_threadsafe(self._answers.put_nowait, codes)

    def _heard(self, message: paho.MQTTMessage) -> None:
        stated = getattr(message.properties, "SubscriptionIdentifier", [])
        found = (message.topic, bool(message.retain), tuple(stated))
        self._loop.call_soon_threadsafe(self.messages.append, found)

    async def _answer(self) -> list[int]:
        async with asyncio.timeout(30):
            return await self._answers.get()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(
            self._client.connect,
            "127.0.0.1",
            self._broker.port,
            clean_start=self._clean,
            properties=self._properties,
        )
        self._client.loop_start()
        assert await self._answer() == [0]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def subscribe(
        self, topic_filter: str, *, handling: int, identifier: int = 0, as_published: bool = False
    ) -> None:
        properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        if identifier:
            properties.SubscriptionIdentifier = identifier
        options = SubscribeOptions(1, retainHandling=handling, retainAsPublished=as_published)
        self._client.subscribe(topic_filter, options=options, properties=properties)
        assert await self._answer() == [1]

    async def settled(self) -> list[Message]:
        await self.subscribe(f"{self._broker.prefix}/none", handling=0)
        messages, self.messages = self.messages, []
        return messages

    async def unsubscribe(self, topic_filter: str) -> list[int]:
        self._client.unsubscribe(topic_filter)
        return await self._answer()

    async def until(self, topic: str) -> None:
        """Wait for a message on a topic."""
        await eventually(lambda: any(heard == topic for heard, _, _ in self.messages))

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain)


class Aiomqtt:
    """aiomqtt, whose messages are read as they come."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self._client = aiomqtt.Client(
            "127.0.0.1",
            broker.port,
            identifier=f"{broker.user}-{name}",
            username=broker.user,
            password=broker.password,
            protocol=aiomqtt.ProtocolVersion.V5,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def subscribe(self, topic_filter: str, *, handling: int, identifier: int = 0) -> None:
        properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        if identifier:
            properties.SubscriptionIdentifier = identifier
        await self._client.subscribe(
            topic_filter, options=SubscribeOptions(1, retainHandling=handling), properties=properties
        )

    async def settled(self) -> list[Message]:
        await self.subscribe(f"{self._broker.prefix}/none", handling=0)
        found: list[Message] = []
        while len(self._client.messages):
            message = await anext(aiter(self._client.messages))
            stated = getattr(message.properties, "SubscriptionIdentifier", [])
            found.append((str(message.topic), bool(message.retain), tuple(stated)))
        return found

    async def unsubscribe(self, topic_filter: str) -> list[int]:
        await self._client.unsubscribe(topic_filter)
        return []  # it does not tell


async def _script(client: Stranger, prefix: str) -> list[Any]:
    """Subscribe with each Retain Handling and with identifiers; return what is seen, step by step."""
    seen: list[Any] = []
    for handling, identifier in ((2, 5), (1, 5), (0, 6), (2, 7)):
        await client.subscribe(f"{prefix}/#", handling=handling, identifier=identifier)
        seen.append(sorted(await client.settled()))
    seen.append(await client.unsubscribe(f"{prefix}/#"))
    seen.append(await client.unsubscribe(f"{prefix}/#"))
    for identifier in (8, 0):
        await client.subscribe(f"{prefix}/#", handling=1, identifier=identifier)
        seen.append(sorted(await client.settled()))
    return seen


@pytest.mark.parametrize("library", [Paho, Aiomqtt])
async def test_retain_handling_and_identifiers_are_those_of_mosquitto(
    library: type[Any], ours: Broker, mosquitto: Broker
) -> None:
    """Each step of the script is answered alike; retained messages come where they are asked for, with identifiers."""
    seen = []
    for broker in (mosquitto, ours):
        async with library(broker, library.__name__) as client:
            seen.append(await _script(client, broker.prefix))
    assert seen[1] == seen[0]
    assert [{identifiers for _, _, identifiers in step} for step in seen[1][:4]] == [set(), set(), {(6,)}, set()]
    assert {topic for topic, _, _ in seen[1][2]} == ours.retained


async def _listen(broker: Broker, *options: str) -> list[str]:
    """Return what mosquitto_sub prints of as many messages as are retained."""
    command = (
        *("mosquitto_sub", "-p", str(broker.port), "-V", "5", "-u", broker.user, "-P", broker.password),
        *("-i", f"{broker.user}-printed", "-t", f"{broker.prefix}/#", "-q", "1", "-F", "%t %r"),
        *("-C", str(len(broker.retained)), "-W", "30", *options),
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    output, _ = await process.communicate()
    return sorted(output.decode().splitlines())


async def test_mosquitto_sub_hears_retained_messages_at_each_subscribe(ours: Broker, mosquitto: Broker) -> None:
    """Also in a session that goes on, with ``--retain-as-published`` and without."""
    for options in ((), ("-c", "-x", "60", "--retain-as-published"), ("-c", "-x", "60"), ("--retained-only",)):
        lines = [await _listen(broker, *options) for broker in (mosquitto, ours)]
        assert lines == [sorted(f"{topic} 1" for topic in ours.retained)] * 2, options


async def test_a_kept_session_knows_its_subscriptions(ours: Broker, mosquitto: Broker) -> None:
    """Retain Handling 1 finds the subscription of the connection before, also its identifier; Clean Start ends it."""
    seen = []
    for broker in (mosquitto, ours):
        steps: list[Any] = []
        for clean in (True, False, False, True):
            async with Paho(broker, "kept", expiry_s=60, clean=clean) as client:
                await client.subscribe(f"{broker.prefix}/#", handling=1, identifier=9)
                steps.append(sorted(await client.settled()))
        seen.append(steps)
    assert seen[1] == seen[0]
    assert [bool(step) for step in seen[1]] == [True, False, False, True]


def _packet_client(broker: Broker, name: str, **more: Any) -> PacketClient:
    client_id = f"{broker.user}-{name}"
    return PacketClient(
        broker.port, broker.user, Version.MQTT_5, client_id=client_id, password=broker.password.encode(), **more
    )


async def test_what_a_client_has_not_acknowledged_comes_again(ours: Broker, mosquitto: Broker) -> None:
    """MQTT-4.4.0-1: after a reconnect, under its packet id and with DUP; what was acknowledged does not."""
    for broker in (mosquitto, ours):
        async with _packet_client(broker, "forgetful", session_expiry_s=60) as client:
            client.send(Subscribe(1, (Subscription(f"{broker.prefix}/availability", 1),)))
            answers = [await client.receive(), await client.receive()]
            [first] = [packet for packet in answers if isinstance(packet, Publish)]
        async with _packet_client(broker, "forgetful", clean=False, session_expiry_s=60) as client:
            assert client.answer.session_present
            again = await client.receive()
            assert again == msgspec.structs.replace(first, duplicate=True)
            client.send(Acknowledgement(PacketType.PUBACK, first.packet_id), Ping(PacketType.PINGREQ))
            assert await client.receive() == Ping(PacketType.PINGRESP)
        async with _packet_client(broker, "forgetful", clean=False) as client:
            client.send(Ping(PacketType.PINGREQ))
            assert await client.receive() == Ping(PacketType.PINGRESP)


async def test_what_the_broker_behind_does_not_take_is_refused_with_its_reason(ours: Broker) -> None:
    """QoS 2 is not offered to subscribers, and CONNACK says so; a topic with white space costs no connection."""
    will = Will(f"{ours.prefix}/x", b"", 2)
    async with _packet_client(ours, "will", will=will) as client:
        assert client.answer.code == ReasonCode.QOS_NOT_SUPPORTED
    async with _packet_client(ours, "limits") as client:
        assert client.answer.properties.maximum_qos == 1
        client.publish("x", 1, topic="white space")
        assert await client.receive() == Acknowledgement(PacketType.PUBACK, 1, ReasonCode.NOT_AUTHORIZED)
        filters = ("white space", "$share/g/x", "a#", f"{ours.prefix}/none")
        client.send(Subscribe(2, tuple(Subscription(name, 2) for name in filters)))
        answer = await client.receive()
        assert isinstance(answer, SubAck)
        assert answer.codes[:3] == (0x8F, 0x9E, 0x8F)
        assert answer.codes[3] <= 2
        client.publish("x", 3, topic="any", qos=2)
        assert await client.receive() == Disconnect(ReasonCode.QOS_NOT_SUPPORTED)


async def test_retain_as_published_is_that_of_mosquitto(ours: Broker, mosquitto: Broker, grant: Granted) -> None:
    """A live message that was published with RETAIN has the flag for one who wants it, and not for another.

    The last test: what is retained is deleted.
    """
    [config, *_] = [topic for topic in ours.retained if topic.endswith("/config")]
    seen = []
    for broker in (mosquitto, ours):
        async with Paho(broker, "flag") as client, Paho(broker, "plain") as other:
            await client.subscribe(f"{broker.prefix}/#", handling=2, as_published=True)
            await other.subscribe(f"{broker.prefix}/#", handling=2)
            if broker is ours:
                client.publish(f"sg/control/{grant.id}/mqtt", json.dumps({"home_assistant": False}))
            else:
                client.publish(config, b"", retain=True)
            for each in (client, other):
                await each.until(config)
            seen.append([{flag for topic, flag, _ in each.messages if topic == config} for each in (client, other)])
    assert seen == [[{True}, {False}]] * 2
