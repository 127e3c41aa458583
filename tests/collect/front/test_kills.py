"""Front and engine are killed under load: what was acknowledged is stored, and stored twice only where it says so.

Half of the devices number their payloads and reuse their packet ids. The other half give nothing by which a message
could be known: random client ids, packet id 1 always, equal payloads; their number is in the topic alone. What all rely
on is compared with the batches of the stream, each batch number of a front counted once, as commits do.
`make soak` kills 300 times, over 2,000,000 acknowledged messages.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api, streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.free_ports import free_port
from sensegate.collect.front import messages
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.messages import Answer, Answers, FrontSettings, Questions
from sensegate.collect.front.packets import Version
from sensegate.collect.front.process import READY
from sensegate.collect.intake import batch as form
from sensegate.config import EngineConfig, StoreConfig
from tests.collect.front.front_rig import HOST
from tests.collect.front.retransmitter import NAMELESS, Retransmitter

pytestmark = [pytest.mark.live, pytest.mark.slow]

KILLS = 300 if os.environ.get("SENSEGATE_SOAK") else 4
ACKNOWLEDGED = 2_000_000 if os.environ.get("SENSEGATE_SOAK") else 0
"""Messages in all, at least; each life of a front or engine takes its part of them."""
FLEET = [(version, qos) for version in (Version.MQTT_3_1_1, Version.MQTT_5) for qos in (1, 2)]


class _FrontChild:
    """A front process, killed and started again on the same port."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = msgspec.msgpack.encode(settings)
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sensegate.collect.front.process", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(len(self._settings).to_bytes(4, "little") + self._settings)
        assert await self._child.stdout.readline() == READY

    async def end(self, *, kill: bool) -> None:
        assert self._child
        if kill:
            self._child.kill()
        elif self._child.stdin:
            self._child.stdin.close()
        await self._child.wait()


@contextlib.asynccontextmanager
async def _front(engine: Engine, connection: Client) -> AsyncIterator[tuple[_FrontChild, int]]:
    """Run a front process, and answer its questions as a gateway that knows every device."""

    async def admit(message: Msg) -> None:
        result = msgspec.msgpack.decode(message.data, type=Questions).questions
        answers = tuple(
            Answer(True, True, publish=(f"up/{question.user}", f"up/{question.user}/+")) for question in result
        )
        await message.respond(msgspec.msgpack.encode(Answers(answers)))

    await connection.subscribe(messages.ADMIT, cb=admit)
    own = engine.credential(User.GATEWAY)
    port = free_port()
    child = _FrontChild(
        FrontSettings(
            name="mqtt-0",
            host=HOST,
            port=port,
            limits=FrontLimits(),
            engine=EngineConfig(),
            urls=engine.info.urls,
            user=own.user,
            password=own.password,
            inbox_prefix=own.inbox_prefix,
            broker_host=HOST,
            broker_port=0,
            facts_key=b"",
            log_level="error",
        )
    )
    await child.start()
    try:
        yield child, port
    finally:
        await child.end(kill=False)


async def _stored(connection: Client) -> dict[str, list[tuple[int, bool]]]:
    """Return device -> (number, whether it says that it may be a repetition) of all messages stored, in their order."""
    result: dict[str, list[tuple[int, bool]]] = {}
    results: set[tuple[bytes, int]] = set()
    state = json.loads(await api.request(connection, f"$JS.API.STREAM.INFO.{streams.INTAKE}"))["state"]
    for sequence in range(state["first_seq"], state["last_seq"] + 1):
        answer = await api.request(connection, f"$JS.API.STREAM.MSG.GET.{streams.INTAKE}", {"seq": sequence})
        batch = form.decode(base64.b64decode(json.loads(answer)["message"]["data"]))
        if (batch.header.instance, batch.header.number) in results:
            continue
        results.add((batch.header.instance, batch.header.number))
        devices, repeated = batch.credentials_of_messages(), batch.redelivered()
        for device, topic, payload, is_again in zip(devices, batch.topics, batch.payloads, repeated, strict=True):
            rows = result.setdefault(device, [])
            if payload == b"equal":
                near = rows[-1][0] if rows else 0
                rows.append(
                    (near + (int(topic.rpartition("/")[2]) - near + NAMELESS // 2) % NAMELESS - NAMELESS // 2, is_again)
                )
            else:
                rows.append((int(payload), is_again))
    return result


async def test_front_and_engine_are_killed(engine: Engine) -> None:
    """0 acknowledged messages lost, 0 doubled without a flag, each device in the order of its numbers."""
    chance = random.Random(12)
    connection = await engine.connect(User.GATEWAY)
    await streams.ensure(connection, streams.intake_stream(StoreConfig()))
    async with _front(engine, connection) as (child, port):
        fleet = [
            Retransmitter(
                port, f"{'nameless' if nameless else 'numbered'}-{version}-{qos}", version, qos, nameless=nameless
            )
            for nameless in (False, True)
            for version, qos in FLEET
        ]
        running = [asyncio.create_task(device.run()) for device in fleet]
        for kill in range(KILLS):
            before = [len(device.acknowledged) for device in fleet]
            async with asyncio.timeout(60):
                while (
                    any(
                        len(device.acknowledged) < count + (20 if device.nameless else 100)
                        for device, count in zip(fleet, before, strict=True)
                    )
                    or sum(len(device.acknowledged) for device in fleet) < ACKNOWLEDGED * (kill + 1) // KILLS
                ):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0, 0.05))
            if kill % 4 == 3:
                engine.restarted.clear()
                os.kill(engine.info.pid, signal.SIGKILL)
                await engine.restarted.wait()
            else:
                await child.end(kill=True)
                await child.start()
        for device in fleet:
            device.stop()
        async with asyncio.timeout(30):
            await asyncio.gather(*running)
    stored = await _stored(connection)
    await connection.close()
    acknowledged, repeated = sum(len(device.acknowledged) for device in fleet), sum(device.connects for device in fleet)
    assert acknowledged >= ACKNOWLEDGED
    print(f"{KILLS} kills, {acknowledged:,} acknowledged, {repeated:,} connects")
    for device in fleet:
        rows = stored[device.device]
        numbers = [number for number, _ in rows]
        assert device.acknowledged == set(range(device.sent))
        assert device.acknowledged <= set(numbers), "acknowledged and lost"
        firsts = list(dict.fromkeys(numbers))
        assert firsts == sorted(firsts), "out of order"
        unflagged = Counter(number for number, row in rows if not row)
        assert max(unflagged.values()) == 1, "doubled without a flag"
