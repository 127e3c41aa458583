"""An external broker (Mosquitto, EMQX, a vendor's cloud) as a source: persistent session, PUBACK after the commit.

It uses paho's client with manual acknowledgement on our event loop, a new client for each connection, because packet
ids belong to a connection: acknowledgements for an earlier one are dropped, and its messages are redelivered. The
durability of messages between device and external broker depends on that broker (Mosquitto's default is memory).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.config import ExternalBrokerConfig, IngestConfig, read_secret
from sensegate.errors import ConfigError, Unavailable
from sensegate.model import Delivery, Message, SourcePosition

KEEPALIVE_S = 30
SESSION_S = 7 * 86_400
"""Session expiry interval (MQTT 5) for a disconnected gateway."""
RESPONSE_TIMEOUT_S = 10.0
"""Time limit for CONNACK and SUBACK."""
BACKOFF_S = 0.5
INFLIGHT_BYTES_MAX = 64 * 1024**2
"""Nothing is read while so many bytes are not yet acknowledged: a foreign broker's messages have any size."""

_log = structlog.get_logger("collect")


class _Connection:
    """A single connection: paho's client on our event loop."""

    def __init__(
        self, config: ExternalBrokerConfig, inflight_max: int, take: Callable[[_Connection, paho.MQTTMessage], None]
    ) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.subscribed: asyncio.Future[None] = self._loop.create_future()
        self._socket: Any = None
        self._reading = False
        five = config.version == "5"
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            clean_session=None if five else False,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = RESPONSE_TIMEOUT_S
        if config.username:
            client.username_pw_set(config.username, read_secret(config.password_file) if config.password_file else None)
        if config.ca_file:
            client.tls_set_context(ssl.create_default_context(cafile=config.ca_file))
        client.on_connect = self._connected
        client.on_subscribe = self._granted
        client.on_disconnect = self._disconnected
        client.on_message = lambda _client, _userdata, message: take(self, message)
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        client.on_socket_close = self._on_close
        self._connect: dict[str, Any] = {}
        if five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho ships no types for it
            properties.SessionExpiryInterval = SESSION_S
            properties.ReceiveMaximum = min(inflight_max, 65_535)
            self._connect = {"clean_start": False, "properties": properties}

    async def open(self) -> None:
        """Connect; callbacks subscribe and receive. Raises `OSError`."""
        connect = partial(self._client.connect, self._config.host, self._config.port, KEEPALIVE_S, **self._connect)
        opening = self._loop.run_in_executor(None, connect)
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(lambda _: self.close())
            raise
        self._socket = self._client.socket()
        self.resume()
        self._want_write()

    def close(self) -> None:
        """Close the connection; the broker keeps the session."""
        self._client.disconnect()
        self._client.loop_write()
        if (open_socket := self._client.socket()) is not None:
            self._release()
            open_socket.close()
        self.end("closed")

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Send PUBACKs in the order of receipt (MQTT-4.6.0-2)."""
        for mid in mids:
            if self.ended.done():
                return
            self._client.ack(mid, 1)

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message at QoS 0."""
        self._client.publish(topic, payload, qos=0)

    def pause(self) -> None:
        """Pause reading, so that the broker has to wait."""
        if self._reading and self._socket is not None:
            self._loop.remove_reader(self._socket)
        self._reading = False

    def resume(self) -> None:
        """Resume reading."""
        if not self._reading and self._socket is not None:
            self._loop.add_reader(self._socket, self._readable)
            self._reading = True

    def beat(self) -> None:
        """Keep the connection alive; call this once per second."""
        if self._reading:
            self._client.loop_misc()

    def _readable(self) -> None:
        self._client.loop_read()
        # Data that TLS has decrypted already does not make the socket readable.
        while self._reading and (sock := self._socket) is not None and getattr(sock, "pending", int)():
            self._client.loop_read()

    def _on_register_write(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._want_write)  # the first call comes from the connecting thread

    def _on_unregister_write(self, *_: Any) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _on_close(self, *_: Any) -> None:
        self._release()

    def _want_write(self) -> None:
        if self._socket is not None and self._client.want_write():
            self._loop.add_writer(self._socket, self._client.loop_write)

    def _release(self) -> None:
        """Remove the socket from the event loop before it is closed."""
        if self._socket is not None:
            self.pause()
            self._loop.remove_writer(self._socket)
            self._socket = None

    def end(self, reason: str) -> None:
        """Set the reason of the end; the first reason is kept."""
        if not self.ended.done():
            self.ended.set_result(reason)

    def _connected(self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        if reason.is_failure:
            self.end(f"connection refused: {reason}")
            return
        topics: list[Any] = [(topic, 1) for topic in self._config.topics]
        if self._connect:
            # Receive retained messages only at the first subscription of the session.
            topics = [(topic, SubscribeOptions(qos=1, retainHandling=1)) for topic in self._config.topics]
        code, _ = client.subscribe(topics)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.end(f"subscribe failed: {code!r}")

    def _granted(self, _client: paho.Client, _data: Any, _mid: int, codes: list[ReasonCode], _more: Any) -> None:
        if refused := [topic for topic, code in zip(self._config.topics, codes, strict=False) if code.is_failure]:
            self.end(f"subscription refused: {', '.join(refused)}")
        elif not self.subscribed.done():
            self.subscribed.set_result(None)

    def _disconnected(self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        self.end(str(reason))


class MqttSource:
    r"""Messages from an external broker, in the order of receipt; reconnects with full-jitter back-off.

    At most `inflight_max` messages are unacknowledged: with MQTT 5 by Receive Maximum, with 3.1.1 by pausing reads. A
    topic that is not UTF-8 is escaped as ``\xNN``, so that its message ends in quarantine and is acknowledged instead
    of blocking the session.
    """

    def __init__(
        self,
        config: ExternalBrokerConfig,
        limits: IngestConfig,
        clock: Clock,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = f"external:{config.name}"
        self._config = config
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._connection: _Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[Message, int]] = deque()
        self._unacknowledged = 0  # unacknowledged messages of this connection
        self._unacknowledged_bytes = 0
        self._sequence = 0
        self._arrived = asyncio.Event()
        self._generation = 0
        self.connected = asyncio.Event()
        """Set while the subscription is active."""

    async def start(self, committed: SourcePosition | None) -> None:  # noqa: ARG002 - the session of the broker has the position
        await self.stop()
        self._arrived.clear()
        self._task = asyncio.create_task(self._run(), name=f"collect {self.name}")

    async def stop(self) -> None:
        self._generation += 1
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._arrived.set()

    def reaches(self, about: str) -> bool:
        """Return whether messages of a topic come from this broker."""
        return any(paho.topic_matches_sub(topic, about) for topic in self._config.topics)

    async def send(self, topic: str, payload: bytes, *, valid_s: int = 0) -> None:
        """Publish at QoS 0: a foreign broker may keep a message longer than it is valid. Raises `Unavailable`."""
        del valid_s
        if self._connection is None or not self.connected.is_set():
            raise Unavailable(f"{self.name}: not connected")
        self._connection.publish(topic, payload)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._generation
        while True:
            await self._arrived.wait()
            if era != self._generation:
                return
            count = min(len(self._waiting), self._limits.commit_messages_max)
            batch = [self._waiting.popleft() for _ in range(count)]
            if not self._waiting:
                self._arrived.clear()
            if batch:
                mids = [mid for _, mid in batch]
                size = sum(len(message.payload) for message, _ in batch)
                ack = partial(self._acknowledge, self._connection, mids, size)
                yield Delivery(self.name, [message for message, _ in batch], ack)

    async def _acknowledge(self, connection: _Connection | None, mids: list[int], size: int) -> None:
        if connection is None or connection is not self._connection:
            return  # packet ids belong to a connection; the messages are redelivered
        connection.acknowledge([mid for mid in mids if mid])
        self._unacknowledged -= len(mids)
        self._unacknowledged_bytes -= size
        if not self._full_limit():
            connection.resume()

    def _full_limit(self) -> str:
        """Return the limit of unacknowledged messages that is reached; empty: none."""
        if self._unacknowledged >= self._config.inflight_max:
            return "inflight_max"
        return "inflight_bytes" if self._unacknowledged_bytes >= INFLIGHT_BYTES_MAX else ""

    def _take(self, connection: _Connection, received: paho.MQTTMessage) -> None:
        if connection is not self._connection:
            return
        try:
            topic = received.topic
        except UnicodeDecodeError:
            topic = bytes(received._topic).decode("utf-8", "backslashreplace")  # noqa: SLF001 - paho's own advice
        self._sequence += 1
        payload = bytes(received.payload)
        message = Message(topic, payload, self._clock.now(), self._sequence, best_effort=received.qos == 0)
        self._waiting.append((message, received.mid if received.qos else 0))
        self._unacknowledged += 1
        self._unacknowledged_bytes += len(payload)
        self._arrived.set()
        if limit := self._full_limit():
            metrics.LIMIT_HITS.labels(limit).inc()
            connection.pause()

    async def _run(self) -> None:
        """Keep a connection open, with exponential back-off and full jitter."""
        attempt = 0
        while True:
            if await self._run_connection():
                attempt = 0
            longest_s = min(self._config.backoff_max_s, BACKOFF_S * 2**attempt)
            attempt = min(attempt + 1, 16)
            metrics.RESTARTS.labels(f"collect {self.name}").inc()
            await self._clock.sleep(self._jitter() * longest_s)

    async def _run_connection(self) -> bool:
        """Connect and serve until the connection ends; return whether the subscription succeeded."""
        try:
            connection = self._connection = _Connection(self._config, self._config.inflight_max, self._take)
        except (ConfigError, OSError) as why:
            # A password or certificate file may be being replaced: retry rather than end the task.
            _log.error("external broker cannot be connected; retrying", source=self.name, reason=str(why))
            return False
        try:
            await connection.open()
            events: set[asyncio.Future[Any]] = {connection.ended, connection.subscribed}
            await asyncio.wait(events, timeout=RESPONSE_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if connection.subscribed.done():
                self.connected.set()
            else:
                connection.end(f"no answer within {RESPONSE_TIMEOUT_S:g} s")
            while not connection.ended.done():
                await asyncio.wait({connection.ended}, timeout=1.0)
                connection.beat()
            _log.warning("external broker disconnected; retrying", source=self.name, reason=connection.ended.result())
        except (OSError, ValueError) as why:
            _log.warning("external broker not reachable; retrying", source=self.name, reason=str(why) or repr(why))
        finally:
            subscribed = connection.subscribed.done()
            self.connected.clear()
            self._connection = None
            # Undelivered messages come again on the next connection, in order.
            self._waiting.clear()
            self._unacknowledged = self._unacknowledged_bytes = 0
            connection.close()
        return subscribed
