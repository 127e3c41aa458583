"""An MQTT client (paho, in its own thread) that notes what happens to it; its events come to the test's loop."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

WAIT_S = 30.0
NOT_AUTHORISED = 135
"""How paho writes the CONNACK's code 5 of MQTT 3.1.1."""


class Phone:
    """One client; `async with` hangs up at the end."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(100_000)
        self._client: Client | None = None
        self.acknowledged: set[int] = set()
        """Packet ids of which the PUBACK came."""

    async def connect(self, user: str, password: str, *, client_id: str = "", clean: bool = True) -> int:
        """Return the CONNACK's code in paho's words; 0 is success."""
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or user,
            clean_session=clean,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(1_000)
        client.username_pw_set(user, password)
        client.on_connect = lambda _c, _u, _f, reason, _p: self._note("connack", reason.value)
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._note("closed", reason.value)
        client.on_publish = lambda _c, _u, mid, _r, _p: self._note("puback", mid)
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: self._note("suback", [reason.value for reason in reasons])
        client.on_message = self._heard_message
        self._client = client
        await asyncio.to_thread(client.connect, "127.0.0.1", self._port)
        client.loop_start()
        code: int = await self.next("connack")
        return code

    def send(self, topic: str, payload: bytes | str, qos: int = 1) -> int:
        """Publish without waiting; return the packet id."""
        assert self._client
        return self._client.publish(topic, payload, qos).mid

    async def publish(self, topic: str, payload: bytes | str, timeout_s: float = WAIT_S) -> None:
        """Publish at QoS 1 and return at the PUBACK."""
        mid = self.send(topic, payload)
        async with asyncio.timeout(timeout_s):
            while mid not in self.acknowledged:
                await self.next("puback", timeout_s)

    async def subscribe(self, topic: str, qos: int = 1) -> int:
        """Return the granted QoS, 128 for refused."""
        assert self._client
        self._client.subscribe(topic, qos)
        granted: list[int] = await self.next("suback")
        return granted[0]

    async def next(self, kind: str, timeout_s: float = WAIT_S) -> Any:
        """Return what the next event of a kind tells; others before it are dropped."""
        async with asyncio.timeout(timeout_s):
            while True:
                name, record = await self._events.get()
                if name == kind:
                    return record

    async def either(self, *kinds: str, timeout_s: float = 60.0) -> tuple[str, Any]:
        """Return (kind, what it tells) of the next event of some kinds."""
        async with asyncio.timeout(timeout_s):
            while True:
                name, record = await self._events.get()
                if name in kinds:
                    return name, record

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client:
            self._client.disconnect()
            await asyncio.to_thread(self._client.loop_stop)

    def _heard_message(self, client: Client, _user: object, message: MQTTMessage) -> None:
        """Acknowledge first: a test that hangs up once it knows of a message has acknowledged it."""
        client.ack(message.mid, message.qos)
        self._note("message", (message.topic, message.payload))

    def _note(self, kind: str, detail: Any) -> None:
        self._loop.call_soon_threadsafe(self._heard, kind, detail)

    def _heard(self, kind: str, detail: Any) -> None:
        if kind == "puback":
            self.acknowledged.add(detail)
        self._events.put_nowait((kind, detail))
