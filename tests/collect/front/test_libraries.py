"""Clients that others have written, at a front over a store in memory, in every version and QoS that they have.

paho and aiomqtt stand in `test_store`, over a real server. MQTT.js and gmqtt come with the peers of the benchmarks
(``python -m tests.bench.peers.setup DIRECTORY clients``): their tests run where `SENSEGATE_PEERS` names that directory.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.collect.front.front_rig import HOST, FrontRig, running_front

COUNT = 50
PAYLOADS = [str(number).encode() for number in range(COUNT)]
CLIENTS = Path(os.environ.get("SENSEGATE_PEERS") or "/nowhere") / "clients"
"""MQTT.js and an environment of Python with gmqtt."""
FOLDER = Path(__file__).parent


async def _run(*command: object, text: bytes = b"") -> None:
    """Run a client to its end, which is to be a good one."""
    child = await asyncio.create_subprocess_exec(*map(str, command), stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(60):
            printed, _ = await child.communicate(text)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, printed.decode()


def _require_all(rig: FrontRig) -> None:
    assert [payload for _, payload in rig.store.messages] == PAYLOADS


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
async def test_mosquitto_pub(version: str, qos: int) -> None:
    """The client exits with 0 once each message is acknowledged; each is stored once, in the order of sending."""
    async with running_front() as rig:
        options = ("-h", HOST, "-p", rig.port, "-u", "d1", "-P", "right", "-i", "d1", "-V", version)
        await _run("mosquitto_pub", *options, "-q", qos, "-t", "up/d1", "-l", text=b"\n".join(PAYLOADS) + b"\n")
        _require_all(rig)


@pytest.mark.skipif(not CLIENTS.is_dir(), reason="SENSEGATE_PEERS names no directory with gmqtt; see the docstring")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("level", [4, 5])
async def test_gmqtt(level: int, qos: int) -> None:
    """Each message is acknowledged, stored once and in order."""
    async with running_front() as rig:
        await _run(CLIENTS / "python" / "bin" / "python", FOLDER / "gmqtt_client.py", rig.port, level, qos, COUNT)
        _require_all(rig)


@pytest.mark.parametrize("level", [4, 5])
async def test_awscrt(level: int) -> None:
    """At QoS 1, the highest that it has."""
    async with running_front() as rig:
        await _run(sys.executable, FOLDER / "awscrt_client.py", rig.port, level, COUNT)
        _require_all(rig)


@pytest.mark.skipif(
    not CLIENTS.is_dir() or not shutil.which("node"),
    reason="SENSEGATE_PEERS names no directory with MQTT.js, or node is missing; see the docstring",
)
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("level", [3, 4, 5])
async def test_mqtt_js(level: int, qos: int) -> None:
    """In each of its versions, with QoS 1 and 2."""
    async with running_front() as rig:
        await _run("node", FOLDER / "mqttjs_client.js", CLIENTS / "node_modules", rig.port, level, qos, COUNT)
        _require_all(rig)
