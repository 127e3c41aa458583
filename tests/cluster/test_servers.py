"""Three nats-servers of one cluster: copies, what a dead server and a lost majority mean, who leads."""

from __future__ import annotations

import asyncio
import json
import os
from functools import partial
from pathlib import Path

import pytest
from nats.aio.client import Client

from sensegate.bus import api, streams
from sensegate.bus.cluster_watch import ClusterMonitor
from sensegate.bus.engine import User
from sensegate.bus.kv import KvBucket
from sensegate.bus.log import JetStreamLog
from sensegate.clock import SystemClock
from sensegate.errors import Unavailable
from sensegate.model import LogMessage
from tests.conftest import eventually
from tests.live.site import config_of
from tests.support.server_cluster import NAMES, copies_of, leader_of, server_cluster

pytestmark = pytest.mark.live

MESSAGES = 200


async def stored(connection: Client) -> int:
    """Return how many messages INTAKE has."""
    return int(json.loads(await api.request(connection, f"$JS.API.STREAM.INFO.{streams.INTAKE}"))["state"]["messages"])


@pytest.mark.skipif("SENSEGATE_SOAK" not in os.environ, reason="takes 20 s; `make soak` runs it")
async def test_copies_are_added_and_a_lost_majority_stores_nothing(tmp_path: Path) -> None:
    """Streams of one copy get three without losing a message; with one server left nothing is acknowledged, and said.

    Control: with two servers left messages are still acknowledged.
    """
    directory = tmp_path / "gateway"
    async with server_cluster(tmp_path / "servers", config_of(directory)) as cluster:
        store = cluster.config.store
        async with cluster.engine(directory, replicas=1) as engine:
            connection = await engine.connect(User.GATEWAY)
            await streams.ensure_streams(connection, store)
            bucket = await KvBucket.open(connection, "rows", bytes_max=store.registry_bytes)
            await bucket.put("a", b"1")
            for _ in range(MESSAGES):
                await api.request(connection, streams.INTAKE_SUBJECT, b"message")
            assert await copies_of(connection, streams.INTAKE) == 1
            await connection.close()
        async with cluster.engine(directory) as engine:
            connection = await engine.connect(User.GATEWAY)
            await streams.ensure_streams(connection, store)
            bucket = await KvBucket.open(connection, "rows", bytes_max=store.registry_bytes)
            for name in (streams.LOG, streams.INTAKE, streams.LEDGER, streams.AUDIT, "KV_rows"):
                await eventually(partial(is_complete, connection, name))
                before = json.loads((directory / "engine" / "known" / "SG" / f"{name}.before.json").read_text())
                assert before["num_replicas"] == 1, "its settings are kept before the change"
            assert await stored(connection) == MESSAGES
            row = await bucket.get("a")
            assert row is not None
            assert row.value == b"1"
            log = JetStreamLog(connection)
            await log.open()
            sequence = await log.write([LogMessage("raw.x", b"first", 1), LogMessage("commit.x", b"1", rollup=True)])
            assert [entry.payload for entry in await log.fetch(0)] == [b"first", b"1"]
            last = await log.last("commit.x")
            assert last is not None
            assert (last.sequence, last.payload) == (sequence, b"1")

            watch = ClusterMonitor(SystemClock(), engine.info.urls, lambda: engine.connect(User.GATEWAY))
            await eventually(lambda: leads_all(watch, connection))
            leader = await leader_of(connection, streams.INTAKE)
            first, second = (name for name in NAMES if name != leader)
            await cluster.kill(first)
            await eventually(lambda: is_stored(connection))
            await eventually(lambda: is_degraded(watch))

            await cluster.kill(second)
            await watch.check()
            assert "lost its majority: 1 of 3" in watch.problem
            with pytest.raises(Unavailable):
                await api.request(connection, streams.INTAKE_SUBJECT, b"not acknowledged", timeout_s=0.5)
            await cluster.start()
            await eventually(lambda: is_stored(connection))
            await eventually(lambda: is_healthy(watch))
            # The message without an acknowledgement may be stored: its front sends it again, under its number.
            assert await stored(connection) >= MESSAGES + 2
            await watch.close()
            await connection.close()


async def is_complete(connection: Client, stream: str) -> bool:
    """Return whether all three copies of a stream are complete."""
    return await copies_of(connection, stream) == 3


async def leads_all(watch: ClusterMonitor, connection: Client) -> bool:
    """Return whether one server leads LOG and INTAKE."""
    await watch.check()
    leaders = {await leader_of(connection, name) for name in (streams.LOG, streams.INTAKE)}
    return len(leaders) == 1 and "" not in leaders and not watch.warning


async def is_stored(connection: Client) -> bool:
    """Return whether a message is acknowledged."""
    try:
        await api.request(connection, streams.INTAKE_SUBJECT, b"message", timeout_s=2.0)
    except Unavailable:
        await asyncio.sleep(0)
        return False
    return True


async def is_degraded(watch: ClusterMonitor) -> bool:
    """Return whether a server is missing and the others have elected their leaders."""
    await watch.check()
    return not watch.problem and "2 of 3 servers respond" in watch.warning


async def is_healthy(watch: ClusterMonitor) -> bool:
    """Return whether nothing is missing."""
    await watch.check()
    return not watch.problem and not watch.warning
