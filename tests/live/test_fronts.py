"""MQTT fronts of a whole gateway: processes of their own, take-over between them, the way down for MQTT 5.0."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio

from sensegate.collect.front.packets import (
    Disconnect,
    PacketProperties,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Version,
)
from sensegate.config import ListenConfig, MqttConfig
from tests.collect.front.front_rig import PacketClient
from tests.conftest import eventually
from tests.live.granting import granted
from tests.live.site import Made, Site, config_of, reading, running
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    config = msgspec.structs.replace(
        config_of(tmp_path_factory.mktemp("fronts") / "node"), listen=ListenConfig(mqtt=MqttConfig(processes=2))
    )
    async with running(config) as site:
        yield site


def _client(
    site: Site, device: Made, version: Version = Version.MQTT_5, client_id: str = "", expiry_s: int = 0
) -> PacketClient:
    port = urlsplit(site.addresses.mqtt).port or 0
    password = device.password.encode()
    more: dict[str, Any] = {"clean": False, "session_expiry_s": expiry_s} if expiry_s else {}
    return PacketClient(port, device.id, version, client_id=client_id or device.id, password=password, **more)


def _children(site: Site) -> list[int]:
    """Return the process ids of the fronts of a gateway that runs in this process."""
    results = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if b"sensegate.collect.front.process" in words and parent == site.addresses.pid:
                results.append(int(entry.name))
    return results


async def test_a_newer_connection_takes_over_whichever_process_has_it(node: Site) -> None:
    """Connections are spread over processes by the kernel; each time the older one is told 0x8E, and order is kept."""
    device = await node.device("wanderer")
    assert len(_children(node)) == 2
    older = await _client(node, device).__aenter__()
    for number in range(12):
        older.publish(reading(number, f"2026-01-01T00:00:{number:02d}Z"), 1, topic=device.topics[0])
        newer = await _client(node, device).__aenter__()
        assert newer.answer.code == 0
        while isinstance(packet := await older.receive(), Disconnect) is False:
            assert packet is not None
        assert packet == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
        await older.drop()
        older = newer
    await older.drop()

    async def complete() -> bool:
        return len(await node.records(device=device.id)) == 12

    await eventually(complete)
    assert [row["value"] for row in await node.records(device=device.id)] == list(range(12))


async def test_a_disabled_device_is_told_and_stays_out(node: Site) -> None:
    """0x98 within two seconds, and 0x87 when it comes back."""
    device = await node.device("disabled")
    async with _client(node, device) as client:
        await node.ask("POST", f"/api/v1/devices/{device.id}/disable")
        async with asyncio.timeout(WITHIN_TWO_SECONDS):
            assert await client.receive() == Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)
    async with _client(node, device) as client:
        assert client.answer.code == ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize("client_id", ["down-1", "sensor.01 *>"])
async def test_a_device_of_5_0_hears_its_commands(node: Site, client_id: str) -> None:
    """The connection to the broker behind is opened at SUBSCRIBE, under any client id."""
    device = await node.device(f"down-{len(client_id)}")
    async with _client(node, device, client_id=client_id) as client:
        own, other = f"sg/{device.id}/down", "sg/another/down"
        properties = PacketProperties(subscription_ids=(268_435_455,))
        client.send(Subscribe(1, (Subscription(own, 1, no_local=True), Subscription(other, 1)), properties))
        answer = await client.receive()
        assert isinstance(answer, SubAck)
        assert answer.codes[0] in (0, 1)
        assert answer.codes[1] == ReasonCode.NOT_AUTHORIZED
        task = {"task": "report-interval", "parameters": {"interval": 10}}
        assert (await node.ask("POST", f"/api/v1/devices/{device.id}/tasks", json=task)).status < 300
        command = await client.receive()
        assert isinstance(command, Publish)
        assert (command.topic, command.properties.subscription_ids) == (own, (268_435_455,))


async def test_a_session_that_begins_anew_is_kept_afterwards(node: Site) -> None:
    """MQTT-3.1.2-4, -5: Clean Start discards what the broker behind has, and what follows is a session again."""
    device = await node.device("renewed")
    present = []
    for clean in (True, True, False, False):
        client = _client(node, device, expiry_s=60)
        client.connect = msgspec.structs.replace(client.connect, clean_start=clean)
        async with client:
            present.append(client.answer.session_present)
            if clean:
                client.send(Subscribe(1, (Subscription(f"sg/{device.id}/down", 1),)))
                assert isinstance(await client.receive(), SubAck)
            client.send(Disconnect())
            assert await client.receive() is None
    assert present == [False, False, True, True]


async def test_a_killed_front_is_started_again(node: Site) -> None:
    """Devices find it at the same address, and their sessions; a client without one is told so."""
    device = await node.device("patient")
    keeper = await node.device("keeper")
    async with _client(node, keeper, expiry_s=3_600) as client:
        assert not client.answer.session_present
    before = set(_children(node))
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    async def restarted() -> bool:
        return len(set(_children(node)) - before) == 2

    await eventually(restarted)

    async def admitted() -> bool:
        try:
            async with _client(node, device) as client:
                return client.answer.code == 0
        except (OSError, AssertionError):
            return False

    await eventually(admitted)
    async with _client(node, keeper, expiry_s=3_600) as client:
        assert client.answer.session_present
    async with _client(node, device, expiry_s=3_600) as client:
        assert not client.answer.session_present
    assert await node.metric('sensegate_restarts_total{component="mqtt front"}') >= 2


async def test_a_refused_message_is_counted_by_the_gateway(node: Site) -> None:
    """What a front refuses is alarmed where the operator looks."""
    device = await node.device("greedy")
    async with _client(node, device) as client:
        client.publish("1", 1, topic="sg/another/up")
        await client.receive()

    async def counted() -> bool:
        return await node.metric('sensegate_permission_denied_total{operation="publish"}') >= 1

    await eventually(counted)


async def test_a_subscriber_is_taken_over_whichever_process_has_it(node: Site) -> None:
    """Connections are spread over processes by the kernel; each time the older one is told 0x8E.

    A client id is taken over once: the broker behind holds it up when that happens again within a second.
    """
    grant = await granted(node, "by-processes")
    port = urlsplit(node.addresses.mqtt).port or 0
    for number in range(4):
        client_id, password = f"{grant.token_id}-{number}", grant.token.encode()
        older, newer = (
            PacketClient(port, grant.token_id, Version.MQTT_5, client_id=client_id, password=password) for _ in range(2)
        )
        async with older, newer:
            assert newer.answer.code == 0
            assert await older.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
