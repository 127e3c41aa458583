"""Commands down to devices: once, paced, by the brokers that a device may be on."""

from __future__ import annotations

import asyncio
import json

import aiomqtt
import pytest
from nats.aio.client import Client

from sensegate.bus import api, streams
from sensegate.bus.engine import Engine, User
from sensegate.clock import FakeClock
from sensegate.collect.commands import REPEAT_AFTER_S, DownlinkQueue, OwnBroker
from sensegate.errors import Unavailable
from tests.conftest import SMALL, eventually


class Broker:
    """A way that notes what is sent; it reaches topics that begin with `prefix`."""

    def __init__(self, prefix: str = "", *, lost: bool = False) -> None:
        self._prefix = prefix
        self.lost = lost
        self.sent: list[str] = []

    def reaches(self, about: str) -> bool:
        return about.startswith(self._prefix)

    async def send(self, topic: str, payload: bytes, *, valid_s: int = 0) -> None:
        del payload
        assert valid_s == 0, "requests for decoding are asked again, not kept"
        if self.lost:
            raise Unavailable("no connection, as the test says")
        self.sent.append(topic)


async def running(commands: DownlinkQueue) -> asyncio.Task[None]:
    task = asyncio.create_task(commands.run())
    await asyncio.sleep(0)
    return task


async def test_a_command_is_sent_once_and_again_after_a_while() -> None:
    """Ten messages of a node without a birth are one question."""
    clock, broker = FakeClock(), Broker()
    commands = DownlinkQueue([broker], clock)
    assert [commands.enqueue("n/NCMD", b"", "n/NDATA") for _ in range(10)] == [True] + [False] * 9
    task = await running(commands)
    await clock.advance(REPEAT_AFTER_S - 1)
    assert not commands.enqueue("n/NCMD", b"", "n/NDATA")
    await clock.advance(1)
    assert commands.enqueue("n/NCMD", b"", "n/NDATA")
    await asyncio.sleep(0)
    assert broker.sent == ["n/NCMD"] * 2
    task.cancel()


async def test_commands_are_paced() -> None:
    """A thousand nodes after a start are asked a hundred a second."""
    clock, broker = FakeClock(), Broker()
    commands = DownlinkQueue([broker], clock, per_s=100)
    for at in range(1_000):
        assert commands.enqueue(f"n{at}/NCMD", b"", "")
    task = await running(commands)
    await clock.advance(1.0)
    assert 90 <= len(broker.sent) <= 120
    await clock.advance(10.0)
    assert broker.sent == [f"n{at}/NCMD" for at in range(1_000)]
    task.cancel()


async def test_so_many_wait_and_no_more() -> None:
    """What is dropped is asked for again by the next message."""
    clock, broker = FakeClock(), Broker()
    commands = DownlinkQueue([broker], clock, waiting_max=2)
    assert [commands.enqueue(f"n{at}/NCMD", b"", "") for at in range(3)] == [True, True, False]
    task = await running(commands)
    await clock.advance(1.0)
    assert commands.enqueue("n2/NCMD", b"", "")
    task.cancel()


@pytest.mark.parametrize("lost", [False, True])
async def test_a_command_goes_where_the_device_may_be(lost: bool) -> None:  # noqa: FBT001
    """By each broker whose topics it came under; one that is away holds up no other."""
    clock = FakeClock()
    own, foreign, other = Broker(lost=lost), Broker("site7/"), Broker("elsewhere/")
    commands = DownlinkQueue([own, foreign, other], clock)
    commands.enqueue("site7/NCMD", b"", "site7/NDATA")
    task = await running(commands)
    await clock.advance(1.0)
    assert (own.sent, foreign.sent, other.sent) == ([] if lost else ["site7/NCMD"], ["site7/NCMD"], [])
    task.cancel()


def _device(engine: Engine, name: str, *, clean: bool) -> aiomqtt.Client:
    """Return a client of the server's own MQTT: only users of the gateway are known without the auth callout."""
    credential = engine.credential(User.FEEDS)
    return aiomqtt.Client(
        "127.0.0.1",
        engine.info.mqtt_port,
        identifier=name,
        username=credential.user,
        password=credential.password,
        protocol=aiomqtt.ProtocolVersion.V311,
        clean_session=clean,
    )


async def _next(device: aiomqtt.Client) -> tuple[object, int]:
    async with asyncio.timeout(30):
        message = await anext(aiter(device.messages))
    return message.payload, message.qos


async def _is_stored(link: Client, count: int) -> bool:
    """Return whether so many commands are kept."""
    info = json.loads(await api.request(link, f"$JS.API.STREAM.INFO.{streams.MQTT_MESSAGES}"))
    return bool(info["state"]["messages"] == count)


async def test_a_command_is_kept_for_a_session_as_long_as_it_is_valid(engine: Engine) -> None:
    """MQTT-3.8.4-8: at QoS 1 or 0, as subscribed, once each; one that is not valid any more is not delivered late."""
    link = await engine.connect(User.FEEDS)
    await streams.ensure_subscriber_streams(link)  # as an earlier release made those of devices: without lifetimes
    await streams.ensure_mqtt_streams(link, SMALL)
    broker, sessions = OwnBroker(link), ("kept", "fleeting")
    async with _device(engine, "kept", clean=False) as kept, _device(engine, "fleeting", clean=True) as fleeting:
        for qos, device in enumerate((fleeting, kept)):
            await device.subscribe("a.b/c", qos)
        await broker.send("a.b/c", b"command", valid_s=3_600)
        await broker.send("a.b/c", b"request")
        for qos, device in enumerate((fleeting, kept)):
            # Through the stream and past it: between messages of different QoS MQTT promises no order.
            assert {await _next(device) for _ in sessions} == {(b"command", qos), (b"request", 0)}
    await eventually(lambda: _is_stored(link, 0))
    await broker.send("a.b/c", b"expired", valid_s=1)
    await broker.send("a.b/c", b"valid", valid_s=3_600)
    await eventually(lambda: _is_stored(link, 1))
    async with _device(engine, "kept", clean=False) as kept:
        assert await _next(kept) == (b"valid", 1)
    await eventually(lambda: _is_stored(link, 0))
    await link.close()
