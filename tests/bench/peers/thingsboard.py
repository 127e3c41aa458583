"""ThingsBoard IoT Gateway without its server: two brokers, and the one answer of the server for which it waits.

Its best setting: storage in memory, large reads, no report strategy, statistics off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt

from tests.bench.peers.node_red import UNITS
from tests.bench.peers.process import Running

TOPIC = "v1/gateway/telemetry"
MARK = '"air_temperature"'
"""Stands once in each message's telemetry; it publishes several in one packet, or one in two."""
_REQUEST, _RESPONSE = "v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"


def prepare(installed: Path, directory: Path, broker: int, server: int, *, storage: str = "memory") -> Running:
    """Return the process, to be entered once both brokers listen and `serving` runs.

    Args:
        installed: what `setup` made.
        directory: an empty folder of its own.
        broker: port of the broker of the devices.
        server: port of the broker in the place of its server.
        storage: ``memory``, or ``sqlite`` as shipped.
    """
    gateway = {
        "thingsboard": {"host": "127.0.0.1", "port": server, "remoteShell": False, "remoteConfiguration": False,
                        "statistics": {"enable": False}, "deviceFiltering": {"enable": False}, "qos": 1,
                        "maxPayloadSizeBytes": 65_536, "minPackSendDelayMS": 0, "minPackSizeToSend": 500,
                        "checkConnectorsConfigurationInSeconds": 3_600, "handleDeviceRenaming": False,
                        "security": {"type": "accessToken", "accessToken": "bench"},
                        "checkingDeviceActivity": {"checkDeviceInactivity": False}},
        "storage": {"type": storage, "read_records_count": 1_000, "max_records_count": 1_000_000,
                    "data_file_path": str(directory / "data.db"), "max_read_records_count": 1_000},
        "grpc": {"enabled": False},
        "connectors": [{"name": "bench", "type": "mqtt", "configuration": "mqtt.json"}],
    }  # fmt: skip
    connector = {
        "broker": {"host": "127.0.0.1", "port": broker, "clientId": "thingsboard", "version": 5,
                   "maxMessageNumberPerWorker": 10, "maxNumberOfWorkers": 100, "security": {"type": "anonymous"}},
        "mapping": [{
            "topicFilter": "sg/+/up", "subscriptionQos": 1,
            "converter": {
                "type": "json", "timeout": 60_000, "sendDataOnlyOnChange": False, "attributes": [],
                "deviceInfo": {"deviceNameExpressionSource": "topic", "deviceNameExpression": "(?<=sg/)(.*?)(?=/up)",
                               "deviceProfileExpressionSource": "constant", "deviceProfileExpression": "default"},
                "timeseries": [{"type": "double", "key": name, "value": f"${{values.{name}}}"} for name in UNITS],
            },
        }],
    }  # fmt: skip
    logs = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"none": {"class": "logging.NullHandler"}},
        "root": {"level": "ERROR", "handlers": ["none"]},
        "loggers": {},
    }
    for name, content in (("tb_gateway", gateway), ("mqtt", connector), ("logs", logs)):
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    command = [str(installed / "thingsboard" / "bin" / "thingsboard-gateway")]
    return Running(command, os.environ | {"TB_GW_CONFIG_DIR": f"{directory}/"}, directory)


@contextlib.asynccontextmanager
async def serving(server: int) -> AsyncIterator[None]:
    """Answer its question for the limits of its session: there are none."""
    answer = json.dumps(
        {"rateLimits": {}, "gatewayRateLimits": {}, "maxInflightMessages": 10_000, "maxPayloadSize": 65_536}
    )

    async def answers() -> None:
        async with aiomqtt.Client("127.0.0.1", server) as client:
            await client.subscribe(f"{_REQUEST}+", qos=1)
            listening.set()
            async for message in client.messages:
                await client.publish(_RESPONSE + message.topic.value.rpartition("/")[2], answer, qos=1)

    listening = asyncio.Event()
    task = asyncio.create_task(answers())
    try:
        await listening.wait()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
