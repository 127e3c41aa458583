"""Clients of MQTT that others have written, each behind the same few methods, for scripts against two brokers."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, Self

import aiomqtt
import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.conftest import eventually

Message = tuple[str, bool, tuple[int, ...]]
"""Topic, RETAIN, subscription identifiers."""


class Broker(msgspec.Struct, frozen=True):
    """Where a script runs: a broker with retained messages below a prefix."""

    port: int
    user: str
    password: str
    prefix: str = ""
    retained: frozenset[str] = frozenset()
    control: str = ""
    """Topic on which the user may publish."""
    heard: str = ""
    """Topic on which the user hears what is wrong with a message on `control`, or the message itself."""
    hello: str = ""
    """Message on `control` without which a client does not stay; empty: none is needed."""


class Stranger(Protocol):
    """A client that somebody else has written."""

    async def subscribe(self, topic_filter: str, *, handling: int, identifier: int = 0) -> None: ...

    async def settled(self) -> list[Message]:
        """Return the messages that came since the last call, once all retained ones have."""
        ...

    async def unsubscribe(self, topic_filter: str) -> list[int]: ...


class Paho:
    """paho, in a thread of its own."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        *,
        expiry_s: int = 0,
        clean: bool = True,
        will: str = "",
        will_delay_s: int = 0,
    ) -> None:
        """`will`: payload of a will on the broker's `control`; empty: none."""
        self._broker = broker
        self._clean = clean
        self._properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        self._properties.SessionExpiryInterval = expiry_s
        self._loop = asyncio.get_running_loop()
        self._answers: asyncio.Queue[list[int]] = asyncio.Queue()
        self._acknowledged: asyncio.Queue[int] = asyncio.Queue()
        self.messages: list[Message] = []
        self.received: list[paho.MQTTMessage] = []
        """All messages, whole."""
        self.disconnected: asyncio.Future[int] = self._loop.create_future()
        """Reason code with which the connection ended."""
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{broker.user}-{name}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.username_pw_set(broker.user, broker.password)
        if will:
            properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
            properties.WillDelayInterval = will_delay_s
            self._client.will_set(broker.control, will, 1, properties=properties)
        self._client.on_disconnect = lambda _c, _u, _f, code, _p: self._ended(code.value)
        self._client.on_publish = lambda _c, _u, _m, code, _p: self._published(code.value)
        self._client.on_connect = lambda _c, _u, _f, code, _p: self._answered([code.value])
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self._answered([code.value for code in codes])
        self._client.on_unsubscribe = lambda _c, _u, _m, codes, _p: self._answered([code.value for code in codes])
        self._client.on_message = lambda _c, _u, message: self._heard(message)

    def _answered(self, codes: list[int]) -> None:
        self._loop.call_soon_threadsafe(self._answers.put_nowait, codes)

    def _ended(self, code: int) -> None:
        def note() -> None:
            if not self.disconnected.done():
                self.disconnected.set_result(code)

        self._loop.call_soon_threadsafe(note)

    def _published(self, code: int) -> None:
        self._loop.call_soon_threadsafe(self._acknowledged.put_nowait, code)

    def _heard(self, message: paho.MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self.received.append, message)
        stated = getattr(message.properties, "SubscriptionIdentifier", [])
        delivered = (message.topic, bool(message.retain), tuple(stated))
        self._loop.call_soon_threadsafe(self.messages.append, delivered)

    async def _answer(self) -> list[int]:
        async with asyncio.timeout(30):
            return await self._answers.get()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(
            self._client.connect,
            "127.0.0.1",
            self._broker.port,
            clean_start=self._clean,
            properties=self._properties,
        )
        self._client.loop_start()
        assert await self._answer() == [0]
        if self._broker.hello:
            assert await self.publish_acknowledged(self._broker.control, self._broker.hello) == 0
        return self

    def break_off(self) -> None:
        """Break the connection without DISCONNECT."""
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)

    async def __aexit__(self, *_: object) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def subscribe(
        self, topic_filter: str, *, handling: int, identifier: int = 0, as_published: bool = False
    ) -> None:
        properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        if identifier:
            properties.SubscriptionIdentifier = identifier
        options = SubscribeOptions(1, retainHandling=handling, retainAsPublished=as_published)
        self._client.subscribe(topic_filter, options=options, properties=properties)
        assert await self._answer() == [1]

    async def settled(self) -> list[Message]:
        await self.subscribe(f"{self._broker.prefix}/none", handling=0)
        messages, self.messages = self.messages, []
        return messages

    async def unsubscribe(self, topic_filter: str) -> list[int]:
        self._client.unsubscribe(topic_filter)
        return await self._answer()

    async def until(self, topic: str) -> None:
        """Wait for a message on a topic."""
        await eventually(lambda: any(heard == topic for heard, _, _ in self.messages))

    async def hears(self, word: str) -> None:
        """Wait for a message with a word in its payload."""
        await eventually(lambda: any(word in message.payload.decode() for message in self.received))

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain)

    async def publish_acknowledged(self, topic: str, payload: str) -> int:
        """Publish at QoS 1; return the reason code of the PUBACK, where all earlier ones have been taken from here."""
        while not self._acknowledged.empty():
            self._acknowledged.get_nowait()
        self._client.publish(topic, payload, 1)
        async with asyncio.timeout(30):
            return await self._acknowledged.get()


class Aiomqtt:
    """aiomqtt, whose messages are read as they come."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self._client = aiomqtt.Client(
            "127.0.0.1",
            broker.port,
            identifier=f"{broker.user}-{name}",
            username=broker.user,
            password=broker.password,
            protocol=aiomqtt.ProtocolVersion.V5,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def subscribe(self, topic_filter: str, *, handling: int, identifier: int = 0) -> None:
        properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        if identifier:
            properties.SubscriptionIdentifier = identifier
        await self._client.subscribe(
            topic_filter, options=SubscribeOptions(1, retainHandling=handling), properties=properties
        )

    async def settled(self) -> list[Message]:
        await self.subscribe(f"{self._broker.prefix}/none", handling=0)
        results: list[Message] = []
        while len(self._client.messages):
            message = await anext(aiter(self._client.messages))
            stated = getattr(message.properties, "SubscriptionIdentifier", [])
            results.append((str(message.topic), bool(message.retain), tuple(stated)))
        return results

    async def unsubscribe(self, topic_filter: str) -> list[int]:
        await self._client.unsubscribe(topic_filter)
        return []  # it does not tell
