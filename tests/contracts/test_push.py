"""The contract of pushed deliveries: one attempt of each transport, and a whole feed through a receiver that fails.

A new transport is a `Receiver` here and a row in `RECEIVERS`; the tests of its own form lie beside it (`tests/share/`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiomqtt
import pytest
from aiohttp import web
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.egress import Egress
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.bus.engine import Engine, User
from sensegate.bus.free_ports import free_port
from sensegate.bus.memory import MemoryLog
from sensegate.clock import SystemClock
from sensegate.config.influx import InfluxOutletConfig
from sensegate.influx.transport import InfluxTransport
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.cursor import parse
from sensegate.share.delivery import FeedServer, RecordEncoding
from sensegate.share.feeds import ALL_FEED, FeedSelection
from sensegate.share.grants import Admission
from sensegate.share.pages import FeedPages
from sensegate.share.reader import LogReader
from sensegate.share.subscriptions import CommittedOffset, PushParts, PushSubscription, RetryPolicy, SubscriptionSpec
from sensegate.share.transports.brokered import NatsPublisher
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery, PushTransport
from sensegate.share.transports.outbound_mqtt import OutboundBrokers
from sensegate.share.transports.webhook import open_webhooks
from tests.collect.mosquitto import Mosquitto
from tests.conftest import eventually
from tests.share.made import make_batch, members

LOOPBACK = Egress(("127.0.0.0/8",))
ALL_GRADES = FeedSelection(grade_max=3)
QUICK = RetryPolicy(initial_wait_s=0.001, wait_max_s=0.01, failures_max=1_000_000, unavailable_s=0.01)
ANSWER = "the receiver's own words"
OpenTransport = Callable[[float], AbstractAsyncContextManager[PushTransport]]
"""Time limit of an attempt in seconds -> the transport."""


class Receiver(Protocol):
    """A subscriber of one transport, which the tests take away and bring back."""

    target: str
    bodies: list[bytes]
    """Bodies that it has taken, in order, with repetitions."""

    async def go(self) -> None:
        """Stop receiving; deliveries find nobody."""

    async def come_back(self) -> None:
        """Receive again at the same target."""

    def transport(self, limit_s: float) -> AbstractAsyncContextManager[PushTransport]:
        """Open the transport that delivers to it."""

    def silent(self) -> AbstractAsyncContextManager[str]:
        """Yield a target at which deliveries arrive and are never answered."""


@asynccontextmanager
async def _silent_server() -> AsyncIterator[int]:
    """Yield the port of a server that accepts connections and says nothing."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await eventually(lambda: bool(writers))  # a server that closes while it accepts leaks that connection
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()  # else the loop may end first, and leave the socket to the collector


class HttpReceiver:
    """An HTTP server that takes what is posted, or refuses it with words of its own."""

    def __init__(self, open_transport: OpenTransport, scheme_and_path: str) -> None:
        self.bodies: list[bytes] = []
        self.statuses: list[int] = []
        """Of the next answers; then 204."""
        self._port = free_port()
        self._form = scheme_and_path
        self.target = self._form.format(port=self._port)
        self.transport = open_transport
        self._runner: web.AppRunner | None = None

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 204:
            self.bodies.append(body)
        return web.Response(status=status, text=None if status == 204 else ANSWER)

    async def go(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def come_back(self) -> None:
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[str]:
        async with _silent_server() as port:
            yield self._form.format(port=port)


@asynccontextmanager
async def webhook_receiver(_: pytest.FixtureRequest) -> AsyncIterator[Receiver]:
    """An address to which a webhook posts."""
    receiver = HttpReceiver(
        lambda limit_s: open_webhooks(LOOPBACK, SystemClock(), timeout_s=limit_s), "http://127.0.0.1:{port}/hook"
    )
    await receiver.come_back()
    yield receiver
    await receiver.go()


@asynccontextmanager
async def influx_receiver(_: pytest.FixtureRequest) -> AsyncIterator[Receiver]:
    """A store that takes line protocol; its transport has the address of its configuration, not of the delivery."""

    class Moving:
        """A transport with one InfluxDB client per address, since each outlet has a client of its own."""

        def __init__(self, limit_s: float) -> None:
            self._limit_s = limit_s
            self.clients: dict[str, InfluxTransport] = {}

        def check(self, target: str) -> None:
            """Accept every address."""

        async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
            target = delivery.target
            if target not in self.clients:
                config = InfluxOutletConfig(name="x", url=target, subscriber="t", timeout_s=self._limit_s)
                self.clients[target] = InfluxTransport(config, "")
            return await self.clients[target].send(delivery)

    @asynccontextmanager
    async def opened(limit_s: float) -> AsyncIterator[PushTransport]:
        moving = Moving(limit_s)
        yield moving
        for client in moving.clients.values():
            client.close()

    receiver = HttpReceiver(opened, "http://127.0.0.1:{port}")
    await receiver.come_back()
    yield receiver
    await receiver.go()


class MqttReceiver:
    """A subscriber's own MQTT broker, and a client there."""

    def __init__(self, broker: Mosquitto) -> None:
        self.bodies: list[bytes] = []
        self.target = f"mqtt://127.0.0.1:{broker.port}/city/air"
        self._broker = broker
        self._listening: asyncio.Task[None] | None = None

    async def _listen(self, ready: asyncio.Event) -> None:
        with contextlib.suppress(aiomqtt.MqttError):  # the broker is killed
            # Its session outlives the broker: what is published before the client is back waits there.
            async with aiomqtt.Client("127.0.0.1", self._broker.port, identifier="city", clean_session=False) as client:
                await client.subscribe("city/#", qos=1)
                ready.set()
                async for message in client.messages:
                    assert isinstance(message.payload, bytes)
                    self.bodies.append(message.payload)

    async def listen(self) -> None:
        """Subscribe with an MQTT client; return once the subscription is in force."""
        ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(ready))
        await ready.wait()

    async def go(self) -> None:
        await self._broker.kill()
        assert self._listening is not None
        await self._listening

    async def come_back(self) -> None:
        await self._broker.start()
        await self.listen()

    @asynccontextmanager
    async def transport(self, limit_s: float) -> AsyncIterator[PushTransport]:
        """Open the transport; a thread that still waits for a silent broker is not waited for."""
        threads = ThreadPoolExecutor(4)
        try:
            yield OutboundBrokers(LOOPBACK, threads, limit_s).transport(qos=1, version="mqtt5.0")
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[str]:
        async with _silent_server() as port:
            yield f"mqtt://127.0.0.1:{port}/a"


@asynccontextmanager
async def mqtt_receiver(request: pytest.FixtureRequest) -> AsyncIterator[Receiver]:
    """A Mosquitto."""
    directory: Path = request.getfixturevalue("tmp_path")
    broker = Mosquitto(directory)
    receiver = MqttReceiver(broker)
    await receiver.come_back()
    yield receiver
    await receiver.go()


class NatsReceiver:
    """A NATS client that acknowledges each delivery by its reply."""

    target = "sg.grants.g1.records"

    def __init__(self, sending: Client, receiving: Client) -> None:
        self.bodies: list[bytes] = []
        self._sending = sending
        self._receiving = receiving
        self._subscription: Subscription | None = None

    async def _take(self, message: Msg) -> None:
        self.bodies.append(message.data)
        await message.respond(b"")

    async def go(self) -> None:
        assert self._subscription is not None
        await self._subscription.unsubscribe()
        await self._receiving.flush()

    async def come_back(self) -> None:
        self._subscription = await self._receiving.subscribe(self.target, cb=self._take)
        await self._receiving.flush()

    @asynccontextmanager
    async def transport(self, limit_s: float) -> AsyncIterator[PushTransport]:
        """Open the transport."""
        yield NatsPublisher(self._sending, answer_s=limit_s)

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[str]:
        subscription = await self._receiving.subscribe("sg.grants.g2.records")
        await self._receiving.flush()
        yield "sg.grants.g2.records"
        await subscription.unsubscribe()


@asynccontextmanager
async def nats_receiver(request: pytest.FixtureRequest) -> AsyncIterator[Receiver]:
    """A client of the gateway's own broker."""
    engine: Engine = request.getfixturevalue("engine")
    sending, receiving = await engine.connect(User.FEEDS), await engine.connect(User.FEEDS)
    receiver = NatsReceiver(sending, receiving)
    await receiver.come_back()
    yield receiver
    await sending.close()
    await receiving.close()


RECEIVERS = {
    "webhook": webhook_receiver,
    "influx": influx_receiver,
    "mqtt": mqtt_receiver,
    "nats": nats_receiver,
}
"""The broker's own MQTT side needs a gateway that admits its clients: `tests/live/test_brokered.py`."""
NEEDED = {"mqtt": ("tmp_path",), "nats": ("engine",)}
"""Fixtures of those that start a server."""


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.live if name in NEEDED else ()) for name in RECEIVERS])
def kind(request: pytest.FixtureRequest) -> str:
    """The name of each transport. Its fixtures are asked for here, because the loop of the test runs in `receiver`."""
    name: str = request.param
    for fixture in NEEDED.get(name, ()):
        request.getfixturevalue(fixture)
    return name


@pytest.fixture
async def receiver(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[Receiver]:
    """A receiver of each transport, which receives."""
    async with RECEIVERS[kind](request) as opened:
        yield opened


def delivery_to(target: str, body: bytes, number: int = 1) -> OutboundDelivery:
    """Return a delivery."""
    return OutboundDelivery(target=target, id=f"msg_{number}", body=body, media="application/json", secret=b"k" * 32)


async def test_what_is_accepted_has_arrived(receiver: Receiver) -> None:
    """Byte for byte, in the order of the attempts, small and large; an accepted delivery has no reason."""
    bodies = [b"%d" % number for number in range(10)] + [b"x" * 200_000, "温度".encode()]
    async with receiver.transport(60.0) as transport:
        for number, body in enumerate(bodies):
            result = await transport.send(delivery_to(receiver.target, body, number))
            assert (result.accepted, result.reason) == (True, "")
    await eventually(lambda: receiver.bodies == bodies)


async def test_nobody_there_is_no_error(receiver: Receiver) -> None:
    """The attempt returns with a reason; the same delivery is accepted once the receiver is back."""
    async with receiver.transport(60.0) as transport:
        await receiver.go()
        delivery = delivery_to(receiver.target, b"1")
        result = await transport.send(delivery)
        assert (result.accepted, result.gone, bool(result.reason)) == (False, False, True)
        await receiver.come_back()
        assert (await transport.send(delivery)).accepted
    await eventually(lambda: receiver.bodies == [b"1"])


async def test_silence_ends_within_the_time_limit(receiver: Receiver) -> None:
    """A receiver that takes a delivery and says nothing has not accepted it; another one is served meanwhile."""
    async with receiver.transport(1.0) as transport, receiver.silent() as silent:
        waiting = asyncio.create_task(transport.send(delivery_to(silent, b"1")))
        async with asyncio.timeout(60):
            result = await waiting
        assert (result.accepted, bool(result.reason)) == (False, True)
    async with receiver.transport(60.0) as transport, receiver.silent() as silent:
        waiting = asyncio.create_task(transport.send(delivery_to(silent, b"2")))
        assert (await transport.send(delivery_to(receiver.target, b"3"))).accepted
        assert not waiting.done()
    with contextlib.suppress(asyncio.CancelledError):
        waiting.cancel()
        await waiting


@pytest.mark.parametrize("kind", ["webhook", "influx"])
async def test_reasons_hold_nothing_of_the_answer(receiver: Receiver) -> None:
    """A subscriber could read through us what another service answers; too large is told apart."""
    assert isinstance(receiver, HttpReceiver)
    async with receiver.transport(60.0) as transport:
        for status in (400, 413, 500):
            receiver.statuses = [status]
            result = await transport.send(delivery_to(receiver.target, b"1"))
            assert (result.accepted, result.too_large) == (False, status == 413)
            assert str(status) in result.reason
            assert ANSWER not in result.reason
    assert receiver.bodies == []


async def test_a_whole_feed_arrives_in_order(receiver: Receiver) -> None:
    """History, then live, and what was written while nobody was there: by their ids each record once, none lost."""
    clock = SystemClock()
    log = MemoryLog(clock, epoch="e1")
    reader = LogReader(log, clock)
    serving = FeedServer(reader)
    offsets: RecordTable[CommittedOffset] = RecordTable(RecordStore(MemoryBucket(), clock), "offset", CommittedOffset)
    written = 0

    async def write(rows: int) -> None:
        nonlocal written
        batch = [(row % 3, "air_temperature", float(written + row)) for row in range(rows)]
        written += rows
        await log.write(members(make_batch(batch, start=1_767_225_600_000_000 + written * 1_000_000)))

    async def open_pages(_: SubscriptionSpec, form: str, after: str) -> FeedPages:
        start = parse(after) if after else await reader.first()
        return FeedPages(serving, lambda: Admission(ALL_FEED, ALL_GRADES), start, RecordEncoding(form))

    def arrived() -> list[str]:
        cursors = [record["cursor"] for body in receiver.bodies for record in json.loads(body)["records"]]
        return list(dict.fromkeys(cursors))

    consumers = ActiveConsumers(clock, lambda: reader.end)
    parts = PushParts(offsets, open_pages, clock, consumers, lambda _spec, _page: None, QUICK)
    spec = SubscriptionSpec(id="w1", subscriber="t", feed="all", delivery="x", target=receiver.target, batch=4)
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(receiver.transport(30.0))
        running = [
            asyncio.create_task(reader.run()),
            asyncio.create_task(PushSubscription(spec, transport, parts).run()),
        ]
        try:
            await write(9)
            await eventually(lambda: len(arrived()) == 9)
            await receiver.go()
            await write(7)
            await receiver.come_back()
            await write(2)
            await eventually(lambda: len(arrived()) == written)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    page = await serving.page(ALL_GRADES, await reader.first(), RecordEncoding.JSON, 100, 0)
    assert arrived() == [record["cursor"] for record in json.loads(page.body)["records"]]
