"""What the benchmarks share: a gateway whose tasks do not run, filled stores, bare consumers, figures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate import config, flow, logs
from sensegate.authority.credentials import Credentials, issue
from sensegate.authority.device_table import StoredDevice
from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus import api, columns, ledger, streams
from sensegate.bus.engine import User
from sensegate.bus.log import JetStreamLog
from sensegate.bus.names import token
from sensegate.clock import SystemClock
from sensegate.collect.intake.batch import QOS_SHIFT, IntakeBatchBuilder, new_instance
from sensegate.collect.intake.source import DURABLE
from sensegate.demo.processes import Reaper
from sensegate.model import Device
from tests.bench.workload import Sent

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "device_profiles"
"""Folder that the gateways load: the whole library, as an installation does."""
PATIENT = "ingest: {stall_timeout_s: 600}\n"
"""Setting under which messages that are kept back are no break."""
ADMIN = Principal("bench", Role.ADMIN, scope("4401"))


@contextlib.asynccontextmanager
async def gateway(settings: str = "") -> AsyncIterator[flow.Gateway]:
    """Yield a node that is open; its tasks do not run."""
    directory = tempfile.mkdtemp(prefix="sensegate-bench-")
    text = f'role: node\ndivision: "4401"\ndirectory: {directory}\nprofiles: [{PROFILES}]\n{settings}'
    settled = config.parse(text)
    clock = SystemClock()
    logs.configure("warning", "text")
    # Should this process be killed, the server is not left behind.
    warden = Reaper(Path(directory), remove=True)
    await warden.start()
    try:
        async with contextlib.AsyncExitStack() as stack:
            yield await flow.open_gateway(settled, clock, stack)
    finally:
        await warden.finish()


def mqtt_address(parts: flow.Gateway) -> tuple[str, int]:
    """Return host and port of the MQTT front, to which devices connect; the broker of the engine stands behind it."""
    address = urlsplit(parts.addresses.mqtt)
    if not address.hostname or not address.port:
        raise ValueError(f"mqtt: {parts.addresses.mqtt!r} has no host and port; the gateway must listen for MQTT")
    return address.hostname, address.port


async def register(parts: flow.Gateway, devices: Iterable[Device]) -> dict[str, str]:
    """Register devices; return their passwords."""
    return {device.id: await parts.lifecycle.devices.add(device, by=ADMIN) for device in devices}


async def restore(parts: flow.Gateway, devices: Sequence[Device]) -> None:
    """Put many devices into an empty registry as a backup is put back, and load them; nobody knows their passwords."""
    js = parts.core.bus.jetstream(publish_async_max_pending=4_000)
    for first in range(0, len(devices), 2_000):
        waiting = [
            await js.publish_async(
                f"$KV.devices.{token(device.id)}",
                msgspec.msgpack.encode(StoredDevice(device, Credentials() if device.gateway else issue()[1])),
            )
            for device in devices[first : first + 2_000]
        ]
        await asyncio.gather(*waiting)
    await parts.lifecycle.devices.load()


async def store(parts: flow.Gateway, messages: Sequence[Sent], *, batch: int = 500) -> None:
    """Put messages into INTAKE as a front leaves them there, without the MQTT side."""
    link = await parts.core.engine.connect(User.GATEWAY, name="bench front")
    instance, arrival = new_instance(), parts.core.clock.now()
    try:
        for number, first in enumerate(range(0, len(messages), batch), 1):
            builder = IntakeBatchBuilder()
            for message in messages[first : first + batch]:
                builder.topics.append(message.topic)
                builder.payloads.append(message.payload)
                builder.flags.append(1 << QOS_SHIFT)
                builder.end_read(message.user, message.user, arrival)
            await api.request(link, streams.INTAKE_SUBJECT, builder.seal(instance, number))
    finally:
        await link.close()


async def store_singly(parts: flow.Gateway, messages: Sequence[Sent]) -> None:
    """Put messages into the store of the server's own MQTT broker, for the bare consumer."""
    publisher = await parts.core.engine.connect(User.INTAKE, name="bench publisher")
    js = publisher.jetstream(publish_async_max_pending=4_000)
    for first in range(0, len(messages), 2_000):
        waiting = [
            await js.publish_async(
                f"$MQTT.msgs.{message.topic.replace('/', '.')}", message.payload, headers={"Nmqtt-Pub": "1"}
            )
            for message in messages[first : first + 2_000]
        ]
        await asyncio.gather(*waiting)
    await publisher.close()


async def hold(parts: flow.Gateway, *, seconds: float) -> None:
    """Let the server keep back the batches for so long from our consumer; 0 lets it go on."""
    nc = await parts.core.engine.connect(User.GATEWAY, name="bench")
    until = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat() if seconds else "0001-01-01T00:00:00Z"
    await api.request(nc, f"$JS.API.CONSUMER.PAUSE.{streams.INTAKE}.{DURABLE}", {"pause_until": until})
    await nc.close()


async def bare_consumer(parts: flow.Gateway, name: str) -> None:
    """Make a durable push consumer on the store of the server's own broker, so that it keeps the messages."""
    nc = await parts.core.engine.connect(User.INTAKE, name="bench")
    body = (
        f'{{"stream_name":"$MQTT_msgs","config":{{"durable_name":"{name}","ack_policy":"all","deliver_policy":"all",'
        f'"deliver_subject":"bench.{name}","filter_subject":"$MQTT.msgs.>","max_ack_pending":60000,'
        '"ack_wait":600000000000}}'
    )
    answer = await nc.request(f"$JS.API.CONSUMER.DURABLE.CREATE.$MQTT_msgs.{name}", body.encode())
    if b'"error"' in answer.data:
        raise RuntimeError(answer.data.decode())
    await nc.close()


async def drain_bare(parts: flow.Gateway, name: str, count: int) -> tuple[float, float]:
    """Receive `count` stored messages, acknowledge every 1,000th; return (wall, CPU of the client) in seconds."""
    nc: Client = await parts.core.engine.connect(User.INTAKE, name="bench")
    received = 0
    done = asyncio.Event()

    async def take(message: Msg) -> None:
        nonlocal received
        received += 1
        if received % 1_000 == 0 or received == count:
            await nc.publish(message.reply)
            if received == count:
                done.set()

    wall, cpu = time.perf_counter(), time.process_time()
    # By callback: iterating over the subscription makes a task a message and takes twice as long.
    await nc.subscribe(f"bench.{name}", cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await done.wait()
    await nc.flush()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    await nc.close()
    return spent


async def walking(parts: flow.Gateway, *, timeout_s: float = 60.0) -> None:
    """Wait until the ingest takes messages."""
    async with asyncio.timeout(timeout_s):
        while parts.pipeline.trouble:
            await asyncio.sleep(0.01)  # it tells nobody


async def walked(parts: flow.Gateway) -> None:
    """Let the ingest begin once, and end."""
    walk = asyncio.create_task(parts.pipeline.run())
    await walking(parts)
    await stopped(walk)


async def stopped(walk: asyncio.Task[None]) -> None:
    """End the ingest."""
    walk.cancel()
    await asyncio.gather(walk, return_exceptions=True)


async def committed(parts: flow.Gateway, messages: int, *, timeout_s: float = 120.0) -> None:
    """Wait until the last commit accounts for so many messages."""
    async with asyncio.timeout(timeout_s):
        while parts.stages.committer.totals.get("messages", 0) < messages:
            await asyncio.sleep(0.002)  # what is timed must not be asked to tell us


async def read_back(log: JetStreamLog) -> tuple[int, dict[str, int]]:
    """Return (readings on the log, totals of the ledgers on the log)."""
    rows, at = 0, 0
    sums = ledger.Ledger()
    while entries := await log.fetch(at):
        for entry in entries:
            if entry.subject.startswith("readings."):
                rows += len(columns.decode(entry.payload, sequence=entry.sequence))
            elif entry.subject.startswith("ledger."):
                sums.merge(ledger.Ledger.decode(entry.payload))
        at = entries[-1].sequence
    return rows, sums.totals()


def rss_mb(pid: int | str = "self") -> float:
    """Return the resident memory of a process now, of this one unless told otherwise."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def children(pid: int) -> list[int]:
    """Return the ids of the child processes of another process."""
    tasks = Path(f"/proc/{pid}/task")
    listed = [(task / "children").read_text(encoding="ascii").split() for task in tasks.iterdir()]
    return [int(child) for of_task in listed for child in of_task]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that another process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
