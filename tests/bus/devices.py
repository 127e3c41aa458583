"""Makers for the suites of `bus`: an MQTT device (paho in its own thread), engines, waiting for the truth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.config import EngineConfig, StoreConfig
from sensegate.errors import Unavailable
from sensegate.model import LogMessage


class MqttDevice:
    """A connected MQTT 3.1.1 client of the user that may speak MQTT without the callout (account SUB)."""

    def __init__(self, engine: Engine, client_id: str = "device-1", *, ca_file: str = "") -> None:
        self.disconnects = 0
        self.acknowledged: set[int] = set()
        self._engine = engine
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, protocol=mqtt.MQTTv311
        )
        user = engine.credential(User.FEEDS)
        self._client.username_pw_set(user.user, user.password)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        if ca_file:
            self._client.tls_set(ca_file)
            self._client.tls_insecure_set(True)

    def _on_disconnect(self, *_: Any) -> None:
        self.disconnects += 1

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, *_: Any) -> None:
        self.acknowledged.add(mid)

    async def __aenter__(self) -> Self:
        def connect() -> None:
            self._client.connect(self._engine.info.mqtt_host, self._engine.info.mqtt_port, keepalive=10)
            self._client.loop_start()

        await asyncio.to_thread(connect)
        await until(self._client.is_connected)
        return self

    async def __aexit__(self, *_: object) -> None:
        def close() -> None:
            self._client.disconnect()
            self._client.loop_stop()

        await asyncio.to_thread(close)

    @property
    def connected(self) -> bool:
        """Whether the session is up."""
        return self._client.is_connected()

    def publish(self, topic: str, payload: bytes) -> int:
        """Publish at QoS 1; return the packet id."""
        return self._client.publish(topic, payload, qos=1).mid

    async def published(self, topic: str, payload: bytes, timeout_s: float = 60.0) -> bool:
        """Publish at QoS 1; say whether the PUBACK came in time."""
        mid = self.publish(topic, payload)
        try:
            await until(lambda: mid in self.acknowledged, timeout_s)
        except TimeoutError:
            return False
        return True


async def until(true: Callable[[], Any], timeout_s: float = 60.0) -> None:
    """Return once `true()` is true; raise `TimeoutError` after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


def engine_in(directory: Path, config: EngineConfig | None = None, store: StoreConfig | None = None) -> Engine:
    """An engine with the settings of `GATEWAY`, or others."""
    return Engine(config or EngineConfig(durability="process"), store or StoreConfig(), directory, name="4401")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def written(log: JetStreamLog, member: LogMessage) -> int:
    """Write until the connection is back."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                return await log.write([member])
            await asyncio.sleep(0.02)
