"""A foreign broker (Mosquitto, EMQX, a vendor's cloud): persistent session, QoS 1, PUBACK only after the commit.

paho's client with manual acknowledgement, driven by our event loop; a new one for each connection, because packet
ids belong to a connection: an acknowledgement for an earlier one is dropped, its message comes again. What a foreign
PUBACK to the *device* is worth is that broker's affair (Mosquitto keeps messages in memory by default).
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
from sensegate.model import Delivery, Message, Position

KEEPALIVE_S = 30
SESSION_S = 7 * 86_400
"""How long an MQTT 5 broker keeps the session of a gateway that is away."""
ANSWER_S = 10.0
"""CONNACK and SUBACK must come within this."""
BACKOFF_S = 0.5

_log = structlog.get_logger("collect")


class _Connection:
    """One connection: paho's client on our event loop, until it ends."""

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
        client.connect_timeout = ANSWER_S
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
        """Connect; the rest follows in callbacks. Raises OSError."""
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
        """End the connection; the broker keeps the session."""
        self._client.disconnect()
        self._client.loop_write()
        if (left := self._client.socket()) is not None:
            self._release()
            left.close()
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
        """Read no more for now: the broker has to wait."""
        if self._reading and self._socket is not None:
            self._loop.remove_reader(self._socket)
        self._reading = False

    def resume(self) -> None:
        """Read again."""
        if not self._reading and self._socket is not None:
            self._loop.add_reader(self._socket, self._readable)
            self._reading = True

    def beat(self) -> None:
        """Keep the connection alive; call it once a second."""
        if self._reading:
            self._client.loop_misc()

    def _readable(self) -> None:
        self._client.loop_read()
        # What TLS has decrypted already makes no socket readable.
        while self._reading and (sock := self._socket) is not None and getattr(sock, "pending", int)():
            self._client.loop_read()

    def _on_register_write(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._want_write)  # the first time in the connecting thread

    def _on_unregister_write(self, *_: Any) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _on_close(self, *_: Any) -> None:
        self._release()

    def _want_write(self) -> None:
        if self._socket is not None and self._client.want_write():
            self._loop.add_writer(self._socket, self._client.loop_write)

    def _release(self) -> None:
        """Let go of the socket before it is closed: the event loop must not hold its number."""
        if self._socket is not None:
            self.pause()
            self._loop.remove_writer(self._socket)
            self._socket = None

    def end(self, reason: str) -> None:
        """Say why it ended; the first reason stays."""
        if not self.ended.done():
            self.ended.set_result(reason)

    def _connected(self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        if reason.is_failure:
            self.end(f"refused: {reason}")
            return
        topics: list[Any] = [(topic, 1) for topic in self._config.topics]
        if self._connect:
            # Retained messages once, at the first subscription of the session.
            topics = [(topic, SubscribeOptions(qos=1, retainHandling=1)) for topic in self._config.topics]
        code, _ = client.subscribe(topics)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.end(f"cannot subscribe: {code!r}")

    def _granted(self, _client: paho.Client, _data: Any, _mid: int, codes: list[ReasonCode], _more: Any) -> None:
        if refused := [topic for topic, code in zip(self._config.topics, codes, strict=False) if code.is_failure]:
            self.end(f"subscription refused: {', '.join(refused)}")
        elif not self.subscribed.done():
            self.subscribed.set_result(None)

    def _disconnected(self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        self.end(str(reason))


class MqttSource:
    r"""Messages from a foreign broker, in the order of receipt. Connects again by itself with full-jitter back-off.

    At most `inflight_max` messages are received and not yet acknowledged: with MQTT 5 the broker is told so, with
    3.1.1 reading stops. A topic that is not UTF-8 is given with its bytes as ``\xNN``, so that it ends in quarantine
    and is acknowledged: it would block its place in the session for ever.
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
        self._keeper: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[Message, int]] = deque()
        self._owed = 0  # received from this connection and not acknowledged
        self._sequence = 0
        self._arrived = asyncio.Event()
        self._era = 0
        self.connected = asyncio.Event()
        """Set while subscribed."""

    async def start(self, committed: Position | None) -> None:  # noqa: ARG002 - the session knows what is owed
        await self.stop()
        self._arrived.clear()
        self._keeper = asyncio.create_task(self._keep(), name=f"collect {self.name}")

    async def stop(self) -> None:
        self._era += 1
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        self._arrived.set()

    def reaches(self, about: str) -> bool:
        """Return whether messages of this topic come from there."""
        return any(paho.topic_matches_sub(topic, about) for topic in self._config.topics)

    async def send(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0. Raises `Unavailable` where there is no connection."""
        if self._connection is None or not self.connected.is_set():
            raise Unavailable(f"{self.name}: not connected")
        self._connection.publish(topic, payload)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._era
        while True:
            await self._arrived.wait()
            if era != self._era:
                return
            count = min(len(self._waiting), self._limits.commit_messages_max)
            batch = [self._waiting.popleft() for _ in range(count)]
            if not self._waiting:
                self._arrived.clear()
            if batch:
                mids = [mid for _, mid in batch]
                ack = partial(self._acknowledge, self._connection, mids)
                yield Delivery(self.name, [message for message, _ in batch], ack)

    async def _acknowledge(self, connection: _Connection | None, mids: list[int]) -> None:
        if connection is None or connection is not self._connection:
            return  # the packet ids mean nothing on another connection; the messages come again
        connection.acknowledge([mid for mid in mids if mid])
        self._owed -= len(mids)
        if self._owed < self._config.inflight_max:
            connection.resume()

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
        self._owed += 1
        self._arrived.set()
        if self._owed >= self._config.inflight_max:
            metrics.LIMIT_HITS.labels("inflight_max").inc()
            connection.pause()

    async def _keep(self) -> None:
        """Keep a connection; wait between attempts, a random part of a doubling time."""
        attempt = 0
        while True:
            if await self._hold():
                attempt = 0
            most = min(self._config.backoff_max_s, BACKOFF_S * 2**attempt)
            attempt = min(attempt + 1, 16)
            metrics.RESTARTS.labels(f"collect {self.name}").inc()
            await self._clock.sleep(self._jitter() * most)

    async def _hold(self) -> bool:
        """Connect and stay until it ends; return whether it was good for anything."""
        try:
            connection = self._connection = _Connection(self._config, self._config.inflight_max, self._take)
        except (ConfigError, OSError) as why:
            # A file of a password or certificate that is being replaced: nobody would hear of this task's end.
            _log.error("foreign broker cannot be connected to; trying again", source=self.name, reason=str(why))
            return False
        try:
            await connection.open()
            either: set[asyncio.Future[Any]] = {connection.ended, connection.subscribed}
            await asyncio.wait(either, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            if connection.subscribed.done():
                self.connected.set()
            else:
                connection.end(f"no answer within {ANSWER_S:g} s")
            while not connection.ended.done():
                await asyncio.wait({connection.ended}, timeout=1.0)
                connection.beat()
            _log.warning("foreign broker gone; trying again", source=self.name, reason=connection.ended.result())
        except (OSError, ValueError) as why:
            _log.warning("foreign broker not reached; trying again", source=self.name, reason=str(why) or repr(why))
        finally:
            useful = connection.subscribed.done()
            self.connected.clear()
            self._connection = None
            # What was not taken yet comes again on the next connection, in its place.
            self._waiting.clear()
            self._owed = 0
            connection.close()
        return useful
