"""The ten rules at the head of `engine.md`, as far as the bus keeps them; 7 and 8 are those of `share` and `persist`.

Devices here are MQTT clients of the account SUB: it has the same streams as DEVICES, and needs no callout.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import connect, consumer, free_ports, server_conf, slots, streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import KvBucket
from sensegate.bus.log import JetStreamLog
from sensegate.bus.server_conf import ServerPlace
from sensegate.config import EngineConfig, StoreConfig
from sensegate.errors import Fenced, StoreFull, Unavailable
from sensegate.model import LogMessage
from tests.bus.devices import MqttDevice, until

MIB = 1024**2
CONSUMER = {
    "durable_name": "intake",
    "deliver_subject": "intake.deliver",
    "ack_policy": "all",
    "ack_wait": 30_000_000_000,
    "max_ack_pending": 65_536,
}


class Intake:
    """A push consumer on the broker's store, read into a list of (consumer sequence, payload)."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: list[tuple[int, bytes]] = []
        self.messages: list[Msg] = []

    async def start(self, **settings: object) -> None:
        """Make the consumer and subscribe."""

        async def take(message: Msg) -> None:
            self.messages.append(message)
            self.seen.append((int(message.reply.split(".")[6]), message.data))

        await self.client.subscribe("intake.deliver", cb=take)
        await consumer.ensure(self.client, streams.MQTT_MESSAGES, {**CONSUMER, **settings})

    @property
    def payloads(self) -> list[bytes]:
        """What arrived, in order."""
        return [payload for _, payload in self.seen]


@pytest.fixture
async def broker(engine: Engine) -> AsyncIterator[Intake]:
    """The intake of the account in which the test devices are; its streams are made, the consumer is not."""
    client = await engine.connect(User.FEEDS)
    await streams.ensure_mqtt_streams(client, StoreConfig(intake_bytes=MIB))
    yield Intake(client)
    await client.close()


async def test_rule_1_what_was_acknowledged_survives_a_kill_of_the_server(engine: Engine, broker: Intake) -> None:
    """With a durable consumer on `$MQTT_msgs` that exists before the device, each PUBACKed message is delivered."""
    await broker.start()
    async with MqttDevice(engine) as device:
        sent = {device.publish("a/b", b"%d" % number): b"%d" % number for number in range(3000)}
        await until(lambda: len(device.acknowledged) > 500)
        engine.restarted.clear()
        os.kill(engine.info.pid, signal.SIGKILL)
        acknowledged = {sent[mid] for mid in list(device.acknowledged)}
        assert len(acknowledged) < len(sent)
        async with asyncio.timeout(60):
            await engine.restarted.wait()
        await until(lambda: acknowledged <= set(broker.payloads))


async def test_rule_1_negative_control_without_a_consumer_nothing_is_stored(engine: Engine, broker: Intake) -> None:
    """Interest retention: a device is PUBACKed though nobody wants its message, which is gone."""
    async with MqttDevice(engine) as device:
        assert await device.published("a/b", b"lost")
    await broker.start()
    async with MqttDevice(engine) as device:
        assert await device.published("a/b", b"kept")
    await until(lambda: broker.seen)
    assert broker.payloads == [b"kept"]


async def test_rule_2_after_a_reset_all_unacknowledged_come_again_in_order(engine: Engine, broker: Intake) -> None:
    """From consumer sequence 1, oldest first, also what was delivered before; what was acknowledged does not."""
    await broker.start()
    async with MqttDevice(engine) as device:
        for number in range(10):
            assert await device.published("a/b", b"%d" % number)
        await until(lambda: len(broker.seen) == 10)
        await broker.messages[3].ack()
        async with asyncio.timeout(30):
            # An acknowledgement is taken some time after it was received.
            while (await consumer.status(broker.client, streams.MQTT_MESSAGES, "intake")).ack_floor.stream_seq < 4:
                pass
        broker.seen.clear()
        await consumer.reset(broker.client, streams.MQTT_MESSAGES, "intake")
        await until(lambda: len(broker.seen) == 6)
        assert broker.seen == [(number + 1, b"%d" % (number + 4)) for number in range(6)]


async def test_rule_3_a_span_longer_than_max_ack_pending_stalls(engine: Engine, broker: Intake) -> None:
    """The ceiling holds delivery back until something is acknowledged: a commit must never wait for more."""
    await broker.start(max_ack_pending=5)
    async with MqttDevice(engine) as device:
        for number in range(8):
            assert await device.published("a/b", b"%d" % number)
        await until(lambda: len(broker.seen) == 5)
        status = await consumer.status(broker.client, streams.MQTT_MESSAGES, "intake")
        assert (status.num_ack_pending, status.num_pending) == (5, 3)
        await broker.messages[4].ack()
        await until(lambda: len(broker.seen) == 8)


async def test_rule_4_a_full_intake_store_holds_devices_back_and_goes_on(engine: Engine, broker: Intake) -> None:
    """No PUBACK for what is not stored; nothing PUBACKed is lost; after draining the device is served again."""
    await broker.start()
    payload = b"x" * 60_000
    accepted = 0
    async with MqttDevice(engine) as device:
        while await device.published("a/b", payload, timeout_s=0.5):
            accepted += 1
        assert 10 < accepted < 18
        await until(lambda: len(broker.seen) >= accepted)
        assert len(broker.seen) == accepted
        await broker.messages[-1].ack()
        # The device repeats what was not acknowledged, as MQTT demands.
        await until(lambda: len(broker.seen) > accepted)
        assert await device.published("a/b", b"again")


def test_rule_4_the_caps_of_streams_lie_far_below_those_of_account_and_server() -> None:
    """A limit of account or server tears a batch, so it must never be the first to be reached."""
    store = StoreConfig()
    kept = server_conf.EngineState(1, 2, dict.fromkeys(User, "x"), ISSUER, "seed")
    text = server_conf.render(EngineConfig(), store, kept, ServerPlace("n", Path("/x")))
    limits = {account: int(most) for account, most in re.findall(r"(\w+) \{\n    jetstream \{ max_file: (\d+)", text)}
    total = int(re.findall(r"max_file_store: (\d+)", text)[0])
    inner = store.log_bytes + store.ledger_bytes + store.audit_bytes + server_conf.BUCKETS_MAX * store.registry_bytes
    assert limits["SG"] >= 1.25 * inner
    assert limits["DEVICES"] >= 1.25 * store.intake_bytes + 256 * MIB
    assert total >= 1.1 * sum(limits.values()) - 1


ISSUER = "SAAIQWL2SDZXJHGKFODL6HVRDVCJTXWG6DDCHYGWNYBHDSZWDQKXGCPTVI"


async def test_rule_4_log_and_intake_refuse_instead_of_forgetting(gateway: Client, intake: Client) -> None:
    """Both are capped with `discard: new`."""
    for client, name in ((gateway, "LOG"), (intake, "$MQTT_msgs")):
        config = json.loads((await client.request(f"$JS.API.STREAM.INFO.{name}", timeout=30)).data)["config"]
        assert config["discard"] == "new"
        assert config["max_bytes"] > 0


async def test_rule_5_lives_are_those_of_the_members(gateway: Client, log: JetStreamLog) -> None:
    """The stream has no `max_age`; members carry hours; the commit record carries a rollup and lives for ever."""
    config = json.loads((await gateway.request("$JS.API.STREAM.INFO.LOG", timeout=30)).data)["config"]
    assert config["max_age"] == 0
    await log.write([LogMessage("readings.4401.all.1", b"x", ttl_h=9600), LogMessage("commit.a", b"c", rollup=True)])
    headers = [message.headers or {} for message in await log._reader.fetch(0, limit=10, max_bytes=MIB)]
    assert headers[0]["Nats-TTL"] == "9600h"
    assert headers[1]["Nats-Rollup"] == "sub"
    assert "Nats-TTL" not in headers[1]
    # Why hours: days are no duration for the server.
    refused = await gateway.request("raw.a", b"", headers={"Nats-TTL": "400d"}, timeout=30)
    assert b"error" in refused.data


async def test_rule_6_a_lost_answer_leaves_the_truth_on_the_log(engine: Engine, log: JetStreamLog) -> None:
    """While the server is away `write` is `Unavailable`; afterwards the last commit record says what was stored."""
    first = await log.write([LogMessage("raw.a", b"1"), LogMessage("commit.a", b"batch 1", rollup=True, expect=0)])
    engine.restarted.clear()
    os.kill(engine.info.pid, signal.SIGKILL)
    try:
        async with asyncio.timeout(60):
            while True:
                first = await log.write([LogMessage("commit.a", b"batch 2", rollup=True, expect=first)])
    except Unavailable:
        pass
    async with asyncio.timeout(60):
        await engine.restarted.wait()
        while True:
            try:
                last = await log.last("commit.a")
                break
            except Unavailable:
                await asyncio.sleep(0.02)
    assert last is not None
    # Whether or not it was stored, the same expectation tells: written again, or fenced off.
    if last.sequence == first:
        await log.write([LogMessage("commit.a", b"batch 2", rollup=True, expect=first)])
    else:
        with pytest.raises(Fenced):
            await log.write([LogMessage("commit.a", b"batch 2", rollup=True, expect=first)])


async def test_rule_9_a_node_reaches_nothing_outside_its_account(engine: Engine, log: JetStreamLog) -> None:
    """No stream, no key and no API of the centre hears a node: what it publishes ends in its own account."""
    client = await connect.connect(
        engine.info.urls[0], connect.Login("node-4403", "secret-of-4403", slots.inbox_prefix("4403"))
    )
    before = await log.bounds()
    for subject in (
        "up.4403.live",
        "up.4403.commit.live",
        "up.4401.readings.all.1",
        "up.4401.commit.live",
        "readings.4403.all.1",
        "commit.4403.live",
        "readings.4401.all.1",
        "commit.4401-0",
        "commit.44-0",
        "raw.4403-0",
        "hours.4403",
        "$JS.API.STREAM.PURGE.LOG",
        "$JS.API.STREAM.DELETE.LOG",
        "$JS.API.STREAM.INFO.LOG",
        "$JS.API.DIRECT.GET.LOG",
        "$JS.API.DIRECT.GET.LOG.commit.4401.live",
        "$KV.devices.a",
    ):
        with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
            await client.request(subject, b"", timeout=0.1)
    assert await log.bounds() == before
    await client.close()


def test_rule_9_rights_in_a_slot_are_literal() -> None:
    """No wildcard stands in the place of the slot, and neither side has the rights of the other."""
    node, centre = slots.member_rights("4403"), slots.centre_rights("4403")
    assert node == slots.SlotRights(("up.4403.>",), ("_INBOX_4403.>", "down.4403.>"))
    assert centre == slots.SlotRights(("_INBOX_4403.>", "down.4403.>"), ("up.4403.>",))


async def test_rule_10_ports_lie_below_the_ephemeral_range(engine: Engine) -> None:
    """A burst of connections leaves ports of 32768 and up occupied for a minute."""
    assert free_ports.HIGHEST < 32_768
    assert {engine.info.port < 32_768, engine.info.mqtt_port < 32_768} == {True}


async def test_a_full_log_does_not_hinder_the_registry_nor_the_intake(engine: Engine, gateway: Client) -> None:
    """Each has a cap of its own: what is full refuses, everything else goes on."""
    log = JetStreamLog(gateway)
    bucket = await KvBucket.open(gateway, "devices", bytes_max=MIB)
    block = [LogMessage("raw.a", b"x" * 1_000_000) for _ in range(50)]
    for _ in range(5):
        await log.write(block)
    with pytest.raises(StoreFull):
        await log.write(block)
    assert await bucket.put("a", b"1") > 0
    intake = await engine.connect(User.INTAKE)
    await streams.ensure_mqtt_streams(intake, StoreConfig(intake_bytes=MIB))
    await intake.close()
