"""MQTT 5.0 as strangers' clients meet it, subscribers of feeds: the same script against Mosquitto and us.

Retained messages are Home Assistant's configurations, the only ones that our clients hear. What a client publishes, its
will included, is a control message of its grant; that one is wrong is told under ``problem``.
"""

from __future__ import annotations

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import msgspec
import pytest
import pytest_asyncio

from sensegate.collect.front.front import TICK_S
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
from tests.live.granting import Granted, granted
from tests.live.mqtt_libraries import Aiomqtt, Broker, Paho, Stranger
from tests.live.site import Site, reading

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grant(node: Site) -> Granted:
    """A grant whose series have retained configurations."""
    device = await node.device("optional-air")
    assert (await node.push(device, reading(20.5, "2026-01-01T00:01:00Z"))).status == 202
    made = await granted(node, "by-options")
    async with node.phone() as phone:
        assert await phone.connect(made.token_id, made.token, client_id=f"{made.token_id}-birth") == 0
        assert await phone.subscribe(f"sg/grants/{made.id}/homeassistant/#", 1) == 1
        phone.send(f"sg/control/{made.id}/mqtt", '{"home_assistant": true}')
        topics: set[str] = set()
        while not any(topic.endswith("/config") for topic in topics) or len(topics) < 2:
            topics.add((await phone.next("message", 30.0))[0])
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours(node: Site, grant: Granted) -> Broker:
    port = urlsplit(node.addresses.mqtt).port or 0
    prefix = f"sg/grants/{grant.id}/homeassistant"
    control, heard = f"sg/control/{grant.id}/mqtt", f"sg/grants/{grant.id}/problem"
    broker = Broker(port, grant.token_id, grant.token, prefix, control=control, heard=heard, hello="{}")
    async with Paho(broker, "look") as client:
        await client.subscribe(f"{prefix}/#", handling=0)
        topics = frozenset(topic for topic, _, _ in await client.settled())
    return msgspec.structs.replace(broker, retained=topics)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mosquitto(ours: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """A Mosquitto with the same retained messages and rights, on which a client hears its control messages itself."""
    acl = f"pattern readwrite {ours.control}\npattern readwrite {ours.prefix.rpartition('/')[0]}/#\n"
    async with Mosquitto(tmp_path_factory.mktemp("mosquitto"), persistent=False, acl=acl) as server:
        broker = msgspec.structs.replace(ours, port=server.port, heard=ours.control, hello="")
        async with aiomqtt.Client("127.0.0.1", server.port) as client:
            for topic in ours.retained:
                await client.publish(topic, b"x", qos=1, retain=True)
        yield broker


async def _script(client: Stranger, prefix: str) -> list[Any]:
    """Subscribe with each Retain Handling and with identifiers; return what is seen, step by step."""
    results: list[Any] = []
    for handling, identifier in ((2, 5), (1, 5), (0, 6), (2, 7)):
        await client.subscribe(f"{prefix}/#", handling=handling, identifier=identifier)
        results.append(sorted(await client.settled()))
    results.append(await client.unsubscribe(f"{prefix}/#"))
    results.append(await client.unsubscribe(f"{prefix}/#"))
    for identifier in (8, 0):
        await client.subscribe(f"{prefix}/#", handling=1, identifier=identifier)
        results.append(sorted(await client.settled()))
    return results


@pytest.mark.parametrize("library", [Paho, Aiomqtt])
async def test_retain_handling_and_identifiers_are_those_of_mosquitto(
    library: type[Any], ours: Broker, mosquitto: Broker
) -> None:
    """Each step of the script is answered alike; retained messages come where they are asked for, with identifiers."""
    results = []
    for broker in (mosquitto, ours):
        async with library(broker, library.__name__) as client:
            results.append(await _script(client, broker.prefix))
    assert results[1] == results[0]
    assert [{identifiers for _, _, identifiers in step} for step in results[1][:4]] == [set(), set(), {(6,)}, set()]
    assert {topic for topic, _, _ in results[1][2]} == ours.retained


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


async def test_mosquitto_sub_hears_in_every_version_and_qos(ours: Broker) -> None:
    """Versions 3.1, 3.1.1 and 5.0 at QoS 0 and 1; the broker behind has no QoS 2 for feeds."""
    for version in ("mqttv31", "mqttv311", "mqttv5"):
        for qos in ("0", "1"):
            lines = await _listen(ours, "-V", version, "-q", qos)
            assert lines == sorted(f"{topic} 1" for topic in ours.retained), (version, qos)


async def test_a_kept_session_knows_its_subscriptions(ours: Broker, mosquitto: Broker) -> None:
    """Retain Handling 1 finds the subscription of the connection before, also its identifier; Clean Start ends it."""
    results = []
    for broker in (mosquitto, ours):
        steps: list[Any] = []
        for clean in (True, False, False, True):
            async with Paho(broker, "kept", expiry_s=60, clean=clean) as client:
                await client.subscribe(f"{broker.prefix}/#", handling=1, identifier=9)
                steps.append(sorted(await client.settled()))
        results.append(steps)
    assert results[1] == results[0]
    assert [bool(step) for step in results[1]] == [True, False, False, True]


def _packet_client(broker: Broker, name: str, **more: Any) -> PacketClient:
    client_id = f"{broker.user}-{name}"
    return PacketClient(
        broker.port, broker.user, Version.MQTT_5, client_id=client_id, password=broker.password.encode(), **more
    )


@pytest.mark.parametrize("is_open", [False, True])
async def test_what_is_not_acknowledged_comes_again(ours: Broker, mosquitto: Broker, *, is_open: bool) -> None:
    """MQTT-4.4.0-1: after a reconnect or take-over, by packet id and with DUP; what was acknowledged does not."""
    for broker in (mosquitto, ours):
        name = f"forgetful-{is_open}"
        older = await _packet_client(broker, name, session_expiry_s=60).__aenter__()
        older.send(Subscribe(1, (Subscription(f"{broker.prefix}/availability", 1),)))
        answers = [await older.receive(), await older.receive()]
        [first] = [packet for packet in answers if isinstance(packet, Publish)]
        if not is_open:
            await older.drop()
        async with _packet_client(broker, name, clean=False, session_expiry_s=60) as client:
            assert client.answer.session_present
            repeated = await client.receive()
            assert repeated == msgspec.structs.replace(first, duplicate=True)
            client.send(Acknowledgement(PacketType.PUBACK, first.packet_id), Ping(PacketType.PINGREQ))
            assert await client.receive() == Ping(PacketType.PINGRESP)
        if is_open:
            assert await older.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
            await older.drop()
            continue  # nats-server holds up a client id that comes again within a second of its take-over
        async with _packet_client(broker, name, clean=False) as client:
            client.send(Ping(PacketType.PINGREQ))
            assert await client.receive() == Ping(PacketType.PINGRESP)


def _words(client: Paho) -> list[str]:
    """Return the marked words in what a client has heard, in order."""
    return [word for message in client.received for word in _WORD.findall(message.payload.decode())]


async def _wills(broker: Broker) -> tuple[list[str], float]:
    """Return which wills and marks are heard, and for how many seconds the delayed one was held."""
    loop = asyncio.get_running_loop()
    async with Paho(broker, "heir") as heir:
        await heir.subscribe(broker.heard, handling=2)
        async with Paho(broker, "late", expiry_s=60, will=_marked("dropped"), will_delay_s=30) as client:
            client.break_off()
            await client.disconnected
        async with Paho(broker, "late", expiry_s=60, clean=False) as client:
            await client.publish_acknowledged(broker.control, _marked("back"))
            await heir.hears("mark-back")
        async with Paho(broker, "late", expiry_s=60, will=_marked("delayed"), will_delay_s=1) as client:
            began = loop.time()
            client.break_off()
            await heir.hears("mark-delayed")
            held_s = loop.time() - began
        async with Paho(broker, "late", expiry_s=60, will=_marked("replaced")), Paho(broker, "late"):
            await heir.hears("mark-replaced")
        return _words(heir), held_s


_WORD = re.compile(r"mark-[a-z]+")


def _marked(word: str) -> str:
    """Return a control message that is wrong in a word."""
    return json.dumps({"form": f"mark-{word}"})


async def test_wills_are_those_of_mosquitto(ours: Broker, mosquitto: Broker) -> None:
    """MQTT-3.1.3-9, 3.1.2-8: dropped when the client is back within the delay; published after it, or by a take-over.

    The front's clock has ticks of a quarter of a second, by which a will may come earlier.
    """
    (theirs, _), (result, held_s) = await asyncio.gather(_wills(mosquitto), _wills(ours))
    assert result == theirs == ["mark-back", "mark-delayed", "mark-replaced"]
    assert held_s > 1 - 2 * TICK_S


async def test_a_take_over_is_that_of_mosquitto(ours: Broker, mosquitto: Broker) -> None:
    """MQTT-3.1.4-3: the older connection of a client id is told 0x8E; a client with another client id stays."""
    for broker in (mosquitto, ours):
        async with (
            Paho(broker, "twin", expiry_s=60) as older,
            Paho(broker, "other") as other,
            Paho(broker, "twin", expiry_s=60, clean=False),
        ):
            async with asyncio.timeout(30):
                assert await older.disconnected == ReasonCode.SESSION_TAKEN_OVER
            await other.settled()
            assert not other.disconnected.done()


async def test_rights_to_publish_are_told_as_by_mosquitto(ours: Broker, mosquitto: Broker) -> None:
    """PUBACK says 0x87 for a topic of another grant, and 0x00 for the own one."""
    for broker in (mosquitto, ours):
        async with Paho(broker, "heir") as heir, Paho(broker, "writer") as client:
            await heir.subscribe(broker.heard, handling=2)
            topics = (broker.control.replace("sg/control/", "sg/control/x"), broker.control)
            codes = [await client.publish_acknowledged(topic, _marked("said")) for topic in topics]
            assert codes == [ReasonCode.NOT_AUTHORIZED, ReasonCode.SUCCESS]
            await heir.hears("mark-said")
            assert _words(heir) == ["mark-said"]


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
    results = []
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
            results.append([{flag for topic, flag, _ in each.messages if topic == config} for each in (client, other)])
    assert results == [[{True}, {False}]] * 2
