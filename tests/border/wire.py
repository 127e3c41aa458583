"""A NATS client without manners: it sends any bytes as a frame, checks nothing, and keeps what it receives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import msgspec

RECEIVED_MAX = 20_000
"""Most messages that are kept; those beyond are counted."""
READ_BYTES = 2**20
SEND_BYTES = 2**18
ANSWER_S = 10.0


class Frame(msgspec.Struct, frozen=True):
    """One publish, written as it stands: neither subject nor reply nor headers are checked."""

    subject: str
    payload: bytes = b""
    reply: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def encoded(self) -> bytes:
        """Return the bytes of a PUB, or of an HPUB where there are headers."""
        reply = f"{self.reply} " if self.reply else ""
        if not self.headers:
            return f"PUB {self.subject} {reply}{len(self.payload)}\r\n".encode() + self.payload + b"\r\n"
        head = ("NATS/1.0\r\n" + "".join(f"{key}: {value}\r\n" for key, value in self.headers) + "\r\n").encode()
        total = len(head) + len(self.payload)
        return f"HPUB {self.subject} {reply}{len(head)} {total}\r\n".encode() + head + self.payload + b"\r\n"


class Received(msgspec.Struct, frozen=True):
    """A message that the server delivered."""

    subject: str
    reply: str
    payload: bytes
    """With its headers, if it has any."""

    @property
    def is_answer(self) -> bool:
        """Whether somebody sent it; else the server says that nobody is there."""
        return not self.payload.startswith(b"NATS/1.0 503")


class WireClient:
    """One connection. `async with` opens and closes it."""

    def __init__(self, port: int, user: str, password: str, *, options: dict[str, object] | None = None) -> None:
        self._port = port
        self._connect = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "protocol": 1,
            "name": "sensegate uplink 0.1.0",
            "user": user,
            "pass": password,
            **(options or {}),
        }
        self.received: list[Received] = []
        self.received_count = 0
        self.errors: list[str] = []
        """Texts of the server's errors."""
        self.closed = asyncio.Event()
        """Set when the server or we closed the connection."""
        self._pongs: asyncio.Queue[None] = asyncio.Queue(1_000)
        self._subscriptions = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=READ_BYTES)
        await self._reader.readline()
        self._writer.write(b"CONNECT " + msgspec.json.encode(self._connect) + b"\r\n")
        self._reading = asyncio.create_task(self._read(), name="wire client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def admitted(self) -> bool:
        """Return whether the server let this connection in."""
        return await self.flush()

    @property
    def answers(self) -> list[Received]:
        """What came from others than the server."""
        return [message for message in self.received if message.is_answer]

    async def send(self, frames: Iterable[Frame]) -> int:
        """Send frames, as many as the server takes before it closes; return how many were handed over."""
        count = size = 0
        for frame in frames:
            if self.closed.is_set():
                break
            encoded = frame.encoded()
            self._writer.write(encoded)
            count += 1
            size += len(encoded)
            if size >= SEND_BYTES:
                size = 0
                with contextlib.suppress(OSError):
                    await self._writer.drain()
        return count

    async def write(self, raw: bytes) -> None:
        """Send any bytes."""
        self._writer.write(raw)
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def subscribe(self, *subjects: str, queue: str = "") -> None:
        """Subscribe; a refusal stands in `errors`."""
        for subject in subjects:
            self._subscriptions += 1
            await self.write(f"SUB {subject} {queue + ' ' if queue else ''}{self._subscriptions}\r\n".encode())

    async def flush(self, timeout_s: float = ANSWER_S) -> bool:
        """Return True once the server has taken all that was sent, False when it closed the connection."""
        while not self._pongs.empty():
            self._pongs.get_nowait()
        await self.write(b"PING\r\n")
        pong, closed = (asyncio.create_task(wait) for wait in (self._pongs.get(), self.closed.wait()))
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait({pong, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pong, closed):
                task.cancel()
            await asyncio.gather(pong, closed, return_exceptions=True)
        return not self.closed.is_set()

    async def _read(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            while line := await self._reader.readline():
                await self._take(line.decode("latin-1").rstrip("\r\n"))
        self.closed.set()

    async def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in {"MSG", "HMSG"}:
            parts = rest.split()
            payload = await self._reader.readexactly(int(parts[-1]) + 2)
            has_reply = len(parts) == (5 if word == "HMSG" else 4)
            self.received_count += 1
            if len(self.received) < RECEIVED_MAX:
                self.received.append(Received(parts[0], parts[2] if has_reply else "", payload[:-2]))
        elif word == "PING":
            await self.write(b"PONG\r\n")
        elif word == "PONG":
            with contextlib.suppress(asyncio.QueueFull):
                self._pongs.put_nowait(None)
        elif word == "-ERR":
            self.errors.append(rest.strip("'"))


def mqtt_text(text: str) -> bytes:
    """Return a text as MQTT writes it."""
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def mqtt_packet(first: int, body: bytes) -> bytes:
    """Return a control packet of MQTT 3.1.1."""
    length = len(body)
    digits = bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | 0x80 if length else digit)
        if not length:
            return bytes([first]) + bytes(digits) + body


class MqttWire:
    """One MQTT connection that publishes and subscribes to any topic. `async with` opens and closes it."""

    def __init__(
        self, port: int, user: str, password: str, *, client_id: str = "", will: tuple[str, bytes] = ("", b"")
    ) -> None:
        flags = 0xC2 | (0x2C if will[0] else 0)  # user, password, clean session; a retained will of QoS 1
        body = mqtt_text("MQTT") + bytes([4, flags, 0, 30]) + mqtt_text(client_id or user)
        if will[0]:
            body += mqtt_text(will[0]) + len(will[1]).to_bytes(2, "big") + will[1]
        self._connect = mqtt_packet(0x10, body + mqtt_text(user) + mqtt_text(password))
        self._port = port
        self._next = 0
        self.received = bytearray()
        """All bytes that came, up to a limit."""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()
        self._came = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._reading = asyncio.create_task(self._read(), name="mqtt wire")
        await self.write(self._connect)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        # Without DISCONNECT, so that a will is published.
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def write(self, raw: bytes) -> None:
        """Send any bytes."""
        self._writer.write(raw)
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish to any topic."""
        self._next = self._next % 65_535 + 1
        packet_id = self._next.to_bytes(2, "big") if qos else b""
        await self.write(mqtt_packet(0x30 | qos << 1 | retain, mqtt_text(topic) + packet_id + payload))

    async def subscribe(self, topic: str) -> None:
        """Subscribe to any filter at QoS 1."""
        self._next = self._next % 65_535 + 1
        await self.write(mqtt_packet(0x82, self._next.to_bytes(2, "big") + mqtt_text(topic) + b"\x01"))

    async def flush(self, timeout_s: float = ANSWER_S) -> bool:
        """Return True once a PINGRESP came, False when the server closed the connection."""
        before = self.received.count(b"\xd0\x00")
        await self.write(b"\xc0\x00")
        async with asyncio.timeout(timeout_s):
            while self.received.count(b"\xd0\x00") <= before and not self.closed.is_set():
                self._came.clear()
                await self._came.wait()
        return not self.closed.is_set()

    async def _read(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._reader.read(65_536):
                if len(self.received) < READ_BYTES:
                    self.received += chunk
                self._came.set()
        self.closed.set()
        self._came.set()
