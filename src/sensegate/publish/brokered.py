"""Letters to subscribers who listen at our own broker: by NATS, each answered; by MQTT at QoS 1.

NATS   a request; the subscriber's answer (`msg.respond(b"")`) is the receipt. Without one it comes again, the same.
MQTT   published by a client of our own, since only what an MQTT client publishes reaches others at QoS 1. The server's
       PUBACK says that it is in the subscriber's session. How much waits there is asked of the server: a subscriber who
       takes nothing gets nothing more, so that none can fill the store that all share.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
import nats.errors
import paho.mqtt.client as paho
import structlog
from nats.aio.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from sensegate.bus import api
from sensegate.bus.streams import INTAKE
from sensegate.errors import NotFound, Unavailable
from sensegate.ports import DeliveryResult, OutboundDelivery

ANSWER_S = 10.0
"""A subscriber by NATS answers within this, or the letter comes again."""
WAITING_MAX = 8
"""So many letters may lie unread in a subscriber's MQTT session."""
LOOK_S = 0.1
_LOOKED_AT_PER_S = 5_000
"""Sessions whose state is asked for in a second, at most: with many of them a look comes less often."""
KEEPALIVE_S = 30
_HEAD_BYTES = 4_096
"""Left free of the largest message for its head."""
_PAGES_MAX = 400
"""Of consumers, 256 each, that are looked at."""

_log = structlog.get_logger("publish")


def _too_large(letter: OutboundDelivery, client: Client) -> DeliveryResult | None:
    """Return what became of a letter that the broker takes none as large as."""
    most = client.max_payload - _HEAD_BYTES
    if len(letter.body) <= most:
        return None
    return DeliveryResult(
        accepted=False, reason=f"{len(letter.body)} bytes; engine.max_payload_bytes allows {most}", too_large=True
    )


class NatsPublisher:
    """Letters by NATS; a `ports.Post`."""

    def __init__(self, client: Client, *, answer_s: float = ANSWER_S) -> None:
        """Take a connection of `User.FEEDS`."""
        self._client = client
        self._answer_s = answer_s

    def check(self, to: str) -> None:
        """Return: subjects are ours."""

    async def send(self, letter: OutboundDelivery) -> DeliveryResult:
        if refused := _too_large(letter, self._client):
            return refused
        headers = {**dict(letter.headers), "Nats-Msg-Id": letter.id, "Content-Type": letter.media}
        try:
            await self._client.request(letter.target, letter.body, timeout=self._answer_s, headers=headers)
        except nats.errors.NoRespondersError:
            return DeliveryResult(accepted=False, reason="nobody is subscribed", unavailable=True)
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


class MqttSessions:
    """How much waits in the sessions of MQTT subscribers, as the server tells."""

    def __init__(self, client: Client) -> None:
        """Take a connection of `User.FEEDS`."""
        self.client = client
        self._waiting: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._looked = float("-inf")
        self._every_s = LOOK_S
        self._looking: asyncio.Task[None] | None = None

    async def waiting(self, subject: str) -> int | None:
        """Return how many letters wait for the slowest who is subscribed to a subject; None: nobody is, at QoS 1.

        Raises:
            Unavailable: the server does not answer.
        """
        found = self._found(subject)
        if found is None or found >= WAITING_MAX or asyncio.get_running_loop().time() - self._looked >= self._every_s:
            await self._look()
            found = self._found(subject)
        return found

    def sent(self, subject: str) -> None:
        """Note a letter that was sent since the last look."""
        self._sent[subject] = self._sent.get(subject, 0) + 1

    def _found(self, subject: str) -> int | None:
        head = subject.rpartition(".")[0]
        counts = [self._waiting[one] for one in (subject, f"{head}.*", f"{head}.>") if one in self._waiting]
        return max(counts) + self._sent.get(subject, 0) if counts else None

    async def _look(self) -> None:
        """Ask once for all who want to know at this moment, no more often than every `_every_s`."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._ask(), name="mqtt sessions")
            self._looking.add_done_callback(self._looked_at)
        await asyncio.shield(self._looking)

    def _looked_at(self, _: object) -> None:
        self._looking = None

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._looked + self._every_s - loop.time()))
        sent_before, self._sent = self._sent, {}
        found: dict[str, int] = {}
        offset = 0
        try:
            for _ in range(_PAGES_MAX):
                told = await api.call(self.client, f"$JS.API.CONSUMER.LIST.{INTAKE}", {"offset": offset})
                page = msgspec.json.decode(told, type=_Page)
                for consumer in page.consumers or ():
                    for subject in consumer.config.filter_subjects or [consumer.config.filter_subject]:
                        name = subject.removeprefix("$MQTT.msgs.")
                        found[name] = max(found.get(name, 0), consumer.num_pending + consumer.num_ack_pending)
                offset += len(page.consumers or ())
                if not page.consumers or offset >= page.total:
                    break
        except (Unavailable, NotFound):
            self._sent = sent_before
            raise
        self._waiting, self._looked = found, loop.time()
        self._every_s = max(LOOK_S, offset / _LOOKED_AT_PER_S)


class MqttPublisher:
    """Letters by MQTT; a `ports.Post`. Use `run` as a task: it keeps the connection."""

    def __init__(
        self, sessions: MqttSessions, credential: Callable[[], tuple[str, int, str, str]], tls: ssl.SSLContext | None
    ) -> None:
        """`credential` returns host, port, user and password at the broker as it runs now."""
        self._sessions = sessions
        self._credential = credential
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._client: paho.Client | None = None
        self._acknowledged: dict[int, asyncio.Future[None]] = {}
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()

    def check(self, to: str) -> None:
        """Return: topics are ours."""

    async def send(self, letter: OutboundDelivery) -> DeliveryResult:
        if refused := _too_large(letter, self._sessions.client):
            return refused
        try:
            waiting = await self._sessions.waiting(letter.target)
            if waiting is None:
                return DeliveryResult(accepted=False, reason="nobody is subscribed at QoS 1", unavailable=True)
            if waiting >= WAITING_MAX:
                why = f"slow: {waiting} letters wait in its session"
                return DeliveryResult(accepted=False, reason=why, unavailable=True, retry_after_s=LOOK_S)
            await self._publish(letter.target.replace(".", "/"), letter.body)
        except (Unavailable, NotFound) as why:
            return DeliveryResult(accepted=False, reason=str(why), unavailable=True, retry_after_s=1.0)
        self._sessions.sent(letter.target)
        return DeliveryResult(accepted=True)

    async def _publish(self, topic: str, body: bytes) -> None:
        """Return at the PUBACK. Raises `Unavailable`."""
        if self._client is None or not self._ready.is_set():
            raise Unavailable("the MQTT side of the broker is away")
        answered: asyncio.Future[None] = self._loop.create_future()
        told = self._client.publish(topic, body, qos=1)
        if told.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Unavailable("the MQTT side of the broker is away")
        self._acknowledged[told.mid] = answered
        if told.is_published():
            # Its PUBACK was quicker than this line.
            self._heard(told.mid)
        try:
            async with asyncio.timeout(ANSWER_S):
                await answered
        except TimeoutError:
            raise Unavailable("the broker does not acknowledge") from None
        finally:
            self._acknowledged.pop(told.mid, None)

    def _heard(self, mid: int) -> None:
        if (answered := self._acknowledged.get(mid)) is not None and not answered.done():
            answered.set_result(None)

    # ── the connection ────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Keep a connection until cancelled; a new client for each: packet ids belong to a connection.

        Raises:
            Unavailable: it ended; to be started again.
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
        client.on_connect = lambda *told: self._tell(self._connected, told[3].is_failure)
        client.on_disconnect = lambda *_: self._tell(self._ended.set)
        client.on_publish = lambda *told: self._tell(self._heard, told[2])
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

    def _tell(self, what: Callable[..., Any], *told: Any) -> None:
        """Come from paho's thread to our loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *told)
