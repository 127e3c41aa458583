"""Deliveries to subscribers at our own broker: by NATS, each answered; by MQTT at QoS 1.

NATS   A request; the subscriber's reply (`msg.respond(b"")`) acknowledges it. Without a reply the same delivery is sent
       again.
MQTT   Published by a client of our own, since only what an MQTT client publishes reaches others at QoS 1. The server's
       PUBACK means that the message is in the subscriber's session. The server is asked how many messages wait there: a
       subscriber that reads nothing gets nothing more, so that none can fill the store that all share.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
import nats.errors
import paho.mqtt.client as paho
from nats.aio.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from sensegate.bus import api
from sensegate.bus.streams import MQTT_MESSAGES
from sensegate.errors import NotFound, Unavailable
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery

ANSWER_S = 10.0
"""Time within which a subscriber by NATS must reply, or the delivery is sent again."""
WAITING_MAX = 8
"""Most unread messages in a subscriber's MQTT session."""
POLL_S = 0.1
"""Least time between queries of the sessions' state."""
_SESSIONS_PER_S = 5_000
"""Most sessions whose state is queried per second: with many of them queries come less often."""
KEEPALIVE_S = 30
_HEAD_BYTES = 4_096
"""Room for the headers in the largest message."""
_PAGES_MAX = 400
"""Most pages of 256 consumers that are read."""


def _too_large(delivery: OutboundDelivery, client: Client) -> DeliveryResult | None:
    """Return the result for a delivery that is too large for the broker; None: it is not."""
    bytes_max = client.max_payload - _HEAD_BYTES
    if len(delivery.body) <= bytes_max:
        return None
    reason = f"{len(delivery.body)} bytes are too large: engine.max_payload_bytes allows {bytes_max}"
    return DeliveryResult(accepted=False, reason=reason, too_large=True)


class NatsPublisher:
    """Deliveries by NATS; a `PushTransport`."""

    def __init__(self, client: Client, *, answer_s: float = ANSWER_S) -> None:
        """Take a connection of `User.FEEDS`."""
        self._client = client
        self._answer_s = answer_s

    def check(self, target: str) -> None:
        """Accept every subject: they are our own."""

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        if refused := _too_large(delivery, self._client):
            return refused
        headers = {**dict(delivery.headers), "Nats-Msg-Id": delivery.id, "Content-Type": delivery.media}
        try:
            await self._client.request(delivery.target, delivery.body, timeout=self._answer_s, headers=headers)
        except nats.errors.NoRespondersError:
            return DeliveryResult(accepted=False, reason="no subscriber is connected", unavailable=True)
        except TimeoutError:
            return DeliveryResult(accepted=False, reason=f"not answered within {self._answer_s:g} s", unavailable=True)
        except (nats.errors.Error, OSError) as why:
            return DeliveryResult(
                accepted=False, reason=f"the broker is away: {why}", unavailable=True, retry_after_s=1.0
            )
        return DeliveryResult(accepted=True)


class _Consumer(msgspec.Struct, frozen=True):
    filter_subject: str = ""
    filter_subjects: list[str] = []


class _Waiting(msgspec.Struct, frozen=True):
    config: _Consumer = _Consumer()
    num_pending: int = 0
    num_ack_pending: int = 0


class _Page(msgspec.Struct, frozen=True):
    consumers: list[_Waiting] | None = None
    total: int = 0


class _SubjectsOfStream(msgspec.Struct, frozen=True):
    subjects: dict[str, int] | None = None


class _StreamInfo(msgspec.Struct, frozen=True):
    state: _SubjectsOfStream = _SubjectsOfStream()
    total: int = 0


def subject_of_topic(topic: str) -> str:
    """Return the subject by which the server knows an MQTT topic."""
    return "//".join(part.replace("/", ".") for part in topic.split("."))


def topic_of_subject(subject: str) -> str:
    """Return the MQTT topic of a subject."""
    return ".".join(part.replace(".", "/") for part in subject.split("//"))


class MqttSessions:
    """Numbers of waiting messages in the sessions of MQTT subscribers, as the server reports them."""

    def __init__(self, client: Client) -> None:
        """Take a connection of `User.FEEDS`."""
        self.client = client
        self._waiting: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._queried_at = float("-inf")
        self._interval_s = POLL_S
        self._query_task: asyncio.Task[None] | None = None

    async def waiting(self, subject: str) -> int | None:
        """Return how many messages wait for the slowest subscriber of a subject; None: there is none at QoS 1.

        Raises:
            Unavailable: the server does not answer.
        """
        count = self._known(subject)
        age_s = asyncio.get_running_loop().time() - self._queried_at
        if count is None or count >= WAITING_MAX or age_s >= self._interval_s:
            await self._refresh()
            count = self._known(subject)
        return count

    def sent(self, subject: str) -> None:
        """Count a message that was sent since the last query."""
        self._sent[subject] = self._sent.get(subject, 0) + 1

    def _known(self, subject: str) -> int | None:
        prefix = subject.rpartition(".")[0]
        filters = (subject, f"{prefix}.*", f"{prefix}.>")
        counts = [self._waiting[pattern] for pattern in filters if pattern in self._waiting]
        return max(counts) + self._sent.get(subject, 0) if counts else None

    async def _refresh(self) -> None:
        """Query the state once for all concurrent callers, no more often than every `_interval_s`."""
        if self._query_task is None:
            self._query_task = asyncio.create_task(self._query(), name="mqtt sessions")
            self._query_task.add_done_callback(self._on_queried)
        await asyncio.shield(self._query_task)

    def _on_queried(self, _: object) -> None:
        self._query_task = None

    async def _query(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._queried_at + self._interval_s - loop.time()))
        sent_before, self._sent = self._sent, {}
        waiting: dict[str, int] = {}
        offset = 0
        try:
            for _ in range(_PAGES_MAX):
                answer = await api.request(self.client, f"$JS.API.CONSUMER.LIST.{MQTT_MESSAGES}", {"offset": offset})
                page = msgspec.json.decode(answer, type=_Page)
                for consumer in page.consumers or ():
                    for subject in consumer.config.filter_subjects or [consumer.config.filter_subject]:
                        name = subject.removeprefix("$MQTT.msgs.")
                        waiting[name] = max(waiting.get(name, 0), consumer.num_pending + consumer.num_ack_pending)
                offset += len(page.consumers or ())
                if not page.consumers or offset >= page.total:
                    break
        except (Unavailable, NotFound):
            self._sent = sent_before
            raise
        self._waiting, self._queried_at = waiting, loop.time()
        self._interval_s = max(POLL_S, offset / _SESSIONS_PER_S)


class MqttPublisher:
    """Deliveries by MQTT; a `PushTransport`. Run `run` as a task: it keeps the connection."""

    def __init__(
        self, sessions: MqttSessions, credential: Callable[[], tuple[str, int, str, str]], tls: ssl.SSLContext | None
    ) -> None:
        """`credential` returns the broker's present host and port, and our user and password there."""
        self.sessions = sessions
        self._credential = credential
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._client: paho.Client | None = None
        self._acknowledged: dict[int, asyncio.Future[None]] = {}
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()

    def check(self, target: str) -> None:
        """Accept every topic: they are our own."""

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        if refused := _too_large(delivery, self.sessions.client):
            return refused
        try:
            waiting = await self.sessions.waiting(delivery.target)
            if waiting is None:
                return DeliveryResult(accepted=False, reason="no subscriber is connected at QoS 1", unavailable=True)
            if waiting >= WAITING_MAX:
                why = f"slow: {waiting} messages wait in its session"
                return DeliveryResult(accepted=False, reason=why, unavailable=True, retry_after_s=POLL_S)
            await self.publish(delivery.target.replace(".", "/"), delivery.body)
        except (Unavailable, NotFound) as why:
            return DeliveryResult(accepted=False, reason=str(why), unavailable=True, retry_after_s=1.0)
        self.sessions.sent(delivery.target)
        return DeliveryResult(accepted=True)

    async def retained_topics(self, prefix: str) -> list[str]:
        """Return the topics with a retained message that begin with whole levels. Raises `Unavailable`."""
        subjects = f"$MQTT.rmsgs.{subject_of_topic(prefix.rstrip('/'))}.>"
        topics: list[str] = []
        for _ in range(_PAGES_MAX):
            request = {"subjects_filter": subjects, "offset": len(topics)}
            answer = await api.request(self.sessions.client, "$JS.API.STREAM.INFO.$MQTT_rmsgs", request)
            info = msgspec.json.decode(answer, type=_StreamInfo)
            topics += [topic_of_subject(name.removeprefix("$MQTT.rmsgs.")) for name in info.state.subjects or ()]
            if not info.state.subjects or len(topics) >= info.total:
                break
        return topics

    async def publish(self, topic: str, body: bytes, *, retain: bool = False) -> None:
        """Publish and wait for the PUBACK; `retain`: an empty body deletes what is retained. Raises `Unavailable`."""
        if self._client is None or not self._ready.is_set():
            raise Unavailable("the MQTT side of the broker is away")
        answered: asyncio.Future[None] = self._loop.create_future()
        sent = self._client.publish(topic, body, qos=1, retain=retain)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Unavailable("the MQTT side of the broker is away")
        self._acknowledged[sent.mid] = answered
        if sent.is_published():
            # The PUBACK came before this line.
            self._on_puback(sent.mid)
        try:
            async with asyncio.timeout(ANSWER_S):
                await answered
        except TimeoutError:
            raise Unavailable("the broker does not acknowledge") from None
        finally:
            self._acknowledged.pop(sent.mid, None)

    def _on_puback(self, mid: int) -> None:
        if (answered := self._acknowledged.get(mid)) is not None and not answered.done():
            answered.set_result(None)

    # ── the connection ────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Keep a connection until cancelled, with a new client: packet ids belong to a connection.

        Raises:
            Unavailable: the connection ended; run again.
        """
        self._ended.clear()
        host, port, user, password = self._credential()
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="sensegate-feeds", clean_session=True, reconnect_on_failure=False
        )
        client.max_inflight_messages_set(1_000)
        client.username_pw_set(user, password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = lambda *event: self._call_in_loop(self._connected, event[3].is_failure)
        client.on_disconnect = lambda *_: self._call_in_loop(self._ended.set)
        client.on_publish = lambda *event: self._call_in_loop(self._on_puback, event[2])
        self._client = client
        try:
            await asyncio.to_thread(client.connect, host, port, KEEPALIVE_S)
            client.loop_start()
            await self._ended.wait()
        except OSError as why:
            raise Unavailable(f"no MQTT connection to {host}:{port}: {why}") from why
        finally:
            self._client = None
            self._ready.clear()
            for answered in self._acknowledged.values():
                if not answered.done():
                    answered.set_exception(Unavailable("the MQTT connection to the broker has ended"))
            client.disconnect()
            await asyncio.shield(asyncio.to_thread(client.loop_stop))
        raise Unavailable("the MQTT connection to the broker has ended")

    def _connected(self, failed: bool) -> None:  # noqa: FBT001 - a callback
        if failed:
            self._ended.set()
        else:
            self._ready.set()

    def _call_in_loop(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in our loop from paho's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)
