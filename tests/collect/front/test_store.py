"""The front over a real nats-server, with clients that others have written: paho in every version and QoS, aiomqtt."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import threading
from collections.abc import AsyncIterator

import aiomqtt
import paho.mqtt.client as paho
import pytest
from nats.aio.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from sensegate.bus import api, streams
from sensegate.bus.engine import Engine, User
from sensegate.clock import SystemClock
from sensegate.collect.front.front import Front
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.store import IntakeStore
from sensegate.collect.intake import batch as form
from sensegate.config import StoreConfig
from tests.collect.front.front_rig import HOST, Counts, Registry
from tests.conftest import eventually

pytestmark = pytest.mark.live


class _Stored:
    """A front that stores in INTAKE."""

    def __init__(self, port: int, connection: Client, front: Front) -> None:
        self.port = port
        self.front = front
        self._connection = connection

    async def messages(self) -> list[tuple[int, str, bytes]]:
        """Return (number of the batch, topic, payload) of all messages of the stream."""
        messages: list[tuple[int, str, bytes]] = []
        state = json.loads(await api.request(self._connection, f"$JS.API.STREAM.INFO.{streams.INTAKE}"))["state"]
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            answer = await api.request(self._connection, f"$JS.API.STREAM.MSG.GET.{streams.INTAKE}", {"seq": sequence})
            batch = form.decode(base64.b64decode(json.loads(answer)["message"]["data"]))
            messages += [
                (batch.header.number, topic, payload)
                for topic, payload in zip(batch.topics, batch.payloads, strict=True)
            ]
        return messages


@contextlib.asynccontextmanager
async def _front(engine: Engine, store: StoreConfig | None = None) -> AsyncIterator[_Stored]:
    clock, instance = SystemClock(), form.new_instance()
    connection = await engine.connect(User.GATEWAY)
    await streams.ensure(connection, streams.intake_stream(store or StoreConfig()))
    intake = IntakeStore(connection, instance)
    front = Front(intake, instance, Registry(), Counts(), clock=clock, limits=FrontLimits())
    await intake.open(front.writer)
    port = await front.listen(HOST, 0)
    running = asyncio.create_task(front.run())
    try:
        yield _Stored(port, connection, front)
    finally:
        await front.close(0.5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.close()


def _publish_with_paho(port: int, version: MQTTProtocolVersion, qos: int, count: int) -> list[int]:
    """Publish messages and return their packet ids, once all are acknowledged."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="d1", protocol=version)
    client.username_pw_set("d1", "right")
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(HOST, port, keepalive=10)
    client.loop_start()
    try:
        assert connected.wait(10)
        sent = [client.publish("up/d1", str(number), qos=qos) for number in range(count)]
        for message in sent:
            message.wait_for_publish(10)
        assert all(message.is_published() for message in sent)
        return [message.mid for message in sent]
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("version", list(MQTTProtocolVersion))
@pytest.mark.parametrize("qos", [1, 2])
async def test_paho(engine: Engine, version: MQTTProtocolVersion, qos: int) -> None:
    """Each acknowledged message is in the stream, once and in order."""
    async with _front(engine) as stored:
        await asyncio.to_thread(_publish_with_paho, stored.port, version, qos, 100)
        messages = await stored.messages()
        assert [payload for _, _, payload in messages] == [str(number).encode() for number in range(100)]
        assert {topic for _, topic, _ in messages} == {"up/d1"}


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_aiomqtt(engine: Engine, version: aiomqtt.ProtocolVersion) -> None:
    async with (
        _front(engine) as stored,
        aiomqtt.Client(HOST, stored.port, username="d1", password="right", identifier="d1", protocol=version) as client,
    ):
        for qos in (1, 2):
            await client.publish("up/d1", f"{qos}", qos=qos)
        assert [payload for _, _, payload in await stored.messages()] == [b"1", b"2"]


async def test_a_full_stream_acknowledges_nothing_and_goes_on(engine: Engine) -> None:
    """No PUBACK while the stream has no room; connections stay; then everything, once and in order."""
    async with _front(engine, StoreConfig(intake_bytes=200_000)) as stored:
        connection = await engine.connect(User.GATEWAY)
        async with aiomqtt.Client(HOST, stored.port, username="d1", password="right", identifier="d1") as client:
            filler = 0

            async def fill() -> None:
                nonlocal filler
                while True:
                    await client.publish("up/d1", bytes([filler % 256]) * 20_000, qos=1)
                    filler += 1

            filling = asyncio.create_task(fill())
            await eventually(lambda: stored.front.writer.problem)
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
            assert 0 < filler < 11
            assert "maximum bytes" in stored.front.writer.problem
            before = len(await stored.messages())
            assert before >= filler
            await connection.request(f"$JS.API.STREAM.PURGE.{streams.INTAKE}", timeout=30)
            await client.publish("up/d1", b"after", qos=1)
            assert [payload for _, _, payload in await stored.messages()][-1] == b"after"
        await connection.close()


async def test_the_server_is_killed_under_load(engine: Engine) -> None:
    """Connections stay; what was taken and not answered is sent again under its number, in order."""
    async with _front(engine) as stored:
        sending = asyncio.create_task(
            asyncio.to_thread(_publish_with_paho, stored.port, MQTTProtocolVersion.MQTTv311, 1, 3_000)
        )
        async with asyncio.timeout(60):
            while not stored.front.writer.stored_batches:
                await asyncio.sleep(0.001)
        engine.restarted.clear()
        os.kill(engine.info.pid, signal.SIGKILL)
        await engine.restarted.wait()
        await sending
        numbers: dict[int, list[bytes]] = {}
        for number, _, payload in await stored.messages():
            numbers.setdefault(number, []).append(payload)
        first_of_each = [int(payload) for number in sorted(numbers) for payload in dict.fromkeys(numbers[number])]
        assert first_of_each == list(range(3_000))
