"""Deliveries to MQTT brokers of subscribers: a real broker, its addresses, and what egress control denies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiomqtt
import pytest
import pytest_asyncio

from sensegate.authority.egress import Egress
from sensegate.errors import ConfigError
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery
from sensegate.share.transports.outbound_mqtt import PER_ADDRESS_MAX, BrokerTopic, OutboundBrokers, parse_broker_url
from tests.collect.mosquitto import Mosquitto
from tests.conftest import eventually

LOOPBACK = ("127.0.0.0/8",)


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    """Threads of connections."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest_asyncio.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """A running Mosquitto."""
    async with Mosquitto(tmp_path, persistent=False) as broker:
        yield broker


def delivery(target: str) -> OutboundDelivery:
    """Return a delivery to a URL."""
    return OutboundDelivery(target=target, id="msg_1", body=b'{"a": 1}', media="application/json")


@pytest.mark.parametrize(
    ("url", "topic"),
    [
        ("mqtt://127.0.0.1/a", BrokerTopic("127.0.0.1", 1883, "a")),
        ("mqtts://example.org/a/b%20c", BrokerTopic("example.org", 8883, "a/b c", is_encrypted=True)),
        ("mqtt://u:p%40@example.org:99/a", BrokerTopic("example.org", 99, "a", "u", "p@")),
    ],
)
def test_addresses(url: str, topic: BrokerTopic) -> None:
    """Host, port, topic and credentials of a URL; the port is that of the scheme unless it is given."""
    assert parse_broker_url(url) == topic


@pytest.mark.parametrize(
    "url",
    ["mqtt://x", "mqtt://x/", "mqtt://x/a/#", "mqtt://x/+/b", "mqtt://x/$SYS/a", "mqtt:///a", "http://x/a",
     "mqtt://x:y/a", "mqtt://x/a?b=1", "mqtt://x/" + "a" * 3_000, "mqtt://x/a\nb"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    """A URL without a broker or a topic to which a message can be published is refused."""
    with pytest.raises(ConfigError):
        parse_broker_url(url)


@pytest.mark.parametrize(
    ("allow", "url", "is_allowed"),
    [
        (LOOPBACK, "mqtt://127.0.0.1/a", True),
        (LOOPBACK, "mqtt://10.0.0.1/a", False),
        (("public",), "mqtt://127.0.0.1/a", False),
        (("public",), "mqtts://example.org/a", True),
        (("public",), "mqtt://example.org/a", False),
        (("example.org",), "mqtt://example.org/a", True),
    ],
)
async def test_egress_control(
    executor: ThreadPoolExecutor,
    allow: tuple[str, ...],
    url: str,
    is_allowed: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """The rules of HTTP addresses: only what the configuration allows, and without TLS only what it names."""
    brokers = OutboundBrokers(Egress(allow), executor, 5.0)
    transport = brokers.transport(qos=1, version="mqtt3.1.1")
    if is_allowed:
        transport.check(url)
        return
    with pytest.raises(ConfigError):
        transport.check(url)
    result = await transport.send(delivery(url))
    assert not result.accepted


async def test_a_name_that_leads_to_a_denied_address(executor: ThreadPoolExecutor) -> None:
    """A name is judged by the addresses to which it resolves; nothing is dialled."""
    brokers = OutboundBrokers(Egress(("public",)), executor, 5.0)
    result = await brokers.transport(qos=1, version="mqtt3.1.1").send(delivery("mqtts://localhost/a"))
    assert (result.accepted, result.reason) == (False, "localhost resolves to an address that is not allowed")


@pytest.mark.live
async def test_a_message_at_a_broker(executor: ThreadPoolExecutor, mosquitto: Mosquitto) -> None:
    """Each version and QoS: the message is at the broker when it is accepted; a dead broker is a failure."""
    brokers = OutboundBrokers(Egress(LOOPBACK), executor, 10.0)
    url = f"mqtt://127.0.0.1:{mosquitto.port}/city/air"
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
        await client.subscribe("city/#", qos=2)
        arriving = client.messages.__aiter__()
        for version in ("mqtt3.1.1", "mqtt5.0"):
            for qos in (0, 1, 2):
                result = await brokers.transport(qos=qos, version=version).send(delivery(url))
                assert result.accepted, result.reason
                message = await anext(arriving)
                assert (str(message.topic), message.payload, message.qos) == ("city/air", b'{"a": 1}', qos)
    await mosquitto.kill()
    result = await brokers.transport(qos=1, version="mqtt5.0").send(delivery(url))
    assert (result.accepted, result.reason) == (False, "the connection failed")


@pytest.mark.live
async def test_a_broker_that_refuses(executor: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A broker that admits nobody: not accepted, with its reason."""
    async with Mosquitto(tmp_path, persistent=False, anonymous=False) as mosquitto:
        brokers = OutboundBrokers(Egress(LOOPBACK), executor, 10.0)
        url = f"mqtt://u:p@127.0.0.1:{mosquitto.port}/a"
        result = await brokers.transport(qos=1, version="mqtt3.1.1").send(delivery(url))
        assert not result.accepted
        assert "refuses the connection" in result.reason


@pytest.mark.live
async def test_a_broker_that_does_not_answer_holds_up_no_other(mosquitto: Mosquitto) -> None:
    """Deliveries to an address that accepts and says nothing wait for their turn; another address is served at once."""
    connected: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: connected.append(writer), "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    with ThreadPoolExecutor(PER_ADDRESS_MAX + 1) as threads:
        transport = OutboundBrokers(Egress(LOOPBACK), threads, 30.0).transport(qos=1, version="mqtt3.1.1")
        waiting = [
            asyncio.create_task(transport.send(delivery(f"mqtt://127.0.0.2:{port}/a")))
            for _ in range(2 * PER_ADDRESS_MAX)
        ]
        await eventually(lambda: len(connected) == PER_ADDRESS_MAX)
        result = await transport.send(delivery(f"mqtt://127.0.0.1:{mosquitto.port}/a"))
        assert result.accepted, result.reason
        assert (len(connected), any(task.done() for task in waiting)) == (PER_ADDRESS_MAX, False)
        for task in waiting[PER_ADDRESS_MAX:]:
            task.cancel()
        server.close()
        for writer in connected:
            writer.close()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert not any(isinstance(result, DeliveryResult) and result.accepted for result in ended)
