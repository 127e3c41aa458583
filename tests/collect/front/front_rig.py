"""A front over a store in memory, and clients that speak to it packet by packet."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Collection
from types import TracebackType
from typing import Any, Self

from sensegate.clock import Clock, SystemClock
from sensegate.collect.front import codec
from sensegate.collect.front.batcher import BatchWriter
from sensegate.collect.front.front import Front, FrontPeers, SessionMemory
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.packets import (
    Acknowledgement,
    ConnAck,
    ConnectPacket,
    MqttViolation,
    Packet,
    PacketProperties,
    PacketType,
    Publish,
    ReasonCode,
    Version,
    Will,
)
from sensegate.collect.front.rights import Admitted, PassThroughClient, Rights, TopicMatcher
from sensegate.collect.intake import batch as form
from sensegate.errors import Unavailable

HOST = "127.0.0.1"
WAIT_S = 30.0


class HeldStore:
    """A store in memory that answers at once, later, or with refusals."""

    def __init__(self) -> None:
        self.writer: BatchWriter | None = None
        self.held = False
        self.refusals: list[str] = []
        """Reasons for which the next batches are refused; empty text: no answer."""
        self.away = False
        self.doubtful = False
        """Whether batches are neither stored nor answered until `refuse`."""
        self.sent: list[int] = []
        """Numbers in the order in which they were sent."""
        self.largest = 0
        """Bytes of the largest batch that was sent."""
        self.stored: dict[int, form.IntakeBatch] = {}
        """By number, in the order in which they were stored."""
        self._unanswered: list[tuple[int, int]] = []

    async def publish(self, number: int, attempt: int, payload: bytes) -> None:
        if self.away:
            raise Unavailable("no connection")
        self.sent.append(number)
        self.largest = max(self.largest, len(payload))
        if self.doubtful:
            self._unanswered.append((number, attempt))
            return
        if self.refusals:
            if reason := self.refusals.pop(0):
                asyncio.get_running_loop().call_soon(self._answer, number, attempt, reason)
            return
        self.stored.setdefault(number, form.decode(payload))
        if self.held:
            self._unanswered.append((number, attempt))
        else:
            asyncio.get_running_loop().call_soon(self._answer, number, attempt, "")

    def release(self) -> None:
        """Answer what was held back, the newest first: answers may come in any order."""
        self.held = False
        unanswered, self._unanswered = self._unanswered, []
        for number, attempt in reversed(unanswered):
            self._answer(number, attempt, "")

    def refuse(self) -> None:
        """Refuse what was held back in doubt; what follows is stored."""
        self.doubtful = False
        unanswered, self._unanswered = self._unanswered, []
        for number, attempt in unanswered:
            self._answer(number, attempt, "maximum bytes exceeded")

    def _answer(self, number: int, attempt: int, error: str) -> None:
        assert self.writer
        self.writer.answered(number, attempt, error)

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        """Topic and payload of all stored messages."""
        return [
            (topic, payload)
            for batch in self.stored.values()
            for topic, payload in zip(batch.topics, batch.payloads, strict=True)
        ]

    @property
    def flags(self) -> list[int]:
        """Flags of all stored messages."""
        return [flag for batch in self.stored.values() for flag in batch.flags.tolist()]


class Registry:
    """Admits any device with password ``right`` to topics ``up/<device>`` and, at QoS 0, ``fast/<device>``."""

    def __init__(self, guests: Collection[str] = ()) -> None:
        """`guests`: user names of clients that are no devices."""
        self._guests = guests

    async def admit(self, connect: ConnectPacket, address: str, common_name: str) -> Admitted | PassThroughClient:
        user = connect.username or ""
        if user in self._guests:
            return PassThroughClient()
        if connect.password != b"right":
            raise MqttViolation(ReasonCode.NOT_AUTHORIZED, "wrong password")
        up, fast = f"up/{user}", f"fast/{user}"
        return Admitted(
            user, Rights(TopicMatcher([up, fast, f"{up}/#"]), TopicMatcher([f"down/{user}"]), TopicMatcher([fast]))
        )


class Counts:
    """What a front met."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, str, str]] = []
        self.limits: Counter[str] = Counter()

    def refused(self, device: str, operation: str, detail: str, address: str) -> None:
        self.refusals.append((device, operation, detail))

    def hit(self, limit: str) -> None:
        self.limits[limit] += 1


class FrontRig:
    """A running front."""

    def __init__(self, front: Front, store: HeldStore, counts: Counts, port: int) -> None:
        self.front = front
        self.store = store
        self.counts = counts
        self.port = port

    def client(self, name: str = "d1", version: Version = Version.MQTT_5, **connect: Any) -> PacketClient:
        return PacketClient(self.port, name, version, **connect)


@contextlib.asynccontextmanager
async def running_front(
    clock: Clock | None = None,
    memory: SessionMemory | None = None,
    *,
    beside: FrontPeers | None = None,
    guests: Collection[str] = (),
    **limits: Any,
) -> AsyncIterator[FrontRig]:
    """Run a front on a free port.

    Args:
        clock: the clock; None: that of the system.
        memory: what it shares with other fronts.
        beside: what stands beside it; None: `memory` alone.
        guests: user names of clients that are no devices.
        limits: limits of the front.
    """
    store, counts = HeldStore(), Counts()
    front = Front(
        store,
        form.new_instance(),
        Registry(guests),
        counts,
        clock=clock or SystemClock(),
        limits=FrontLimits(**limits),
        beside=beside or FrontPeers(memory=memory),
    )
    store.writer = front.writer
    port = await front.listen(HOST, 0)
    running = asyncio.create_task(front.run())
    try:
        yield FrontRig(front, store, counts, port)
    finally:
        store.away, store.refusals = False, []
        store.release()
        await front.close(1.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class PacketClient:
    """A client that sends and receives single packets; entering connects it."""

    def __init__(
        self,
        port: int,
        device: str,
        version: Version,
        *,
        client_id: str | None = None,
        clean: bool = True,
        password: bytes = b"right",
        keep_alive_s: int = 0,
        will: Will | None = None,
        **properties: Any,
    ) -> None:
        self.version = version
        self.connect = ConnectPacket(
            version,
            device if client_id is None else client_id,
            clean,
            keep_alive_s,
            device,
            password,
            will,
            PacketProperties(**properties),
        )
        self.answer = ConnAck(255)
        self._port = port
        self._packets = codec.PacketReader(16 * 1024**2)
        self._arrived: list[tuple[int, bytes]] = []

    async def __aenter__(self) -> Self:
        await self.open()
        self.send(self.connect)
        answer = await self.receive()
        assert isinstance(answer, ConnAck)
        self.answer = answer
        return self

    async def open(self) -> None:
        """Connect without CONNECT."""
        self._reader, self._writer = await asyncio.open_connection(HOST, self._port)

    @contextlib.asynccontextmanager
    async def silent(self) -> AsyncIterator[Self]:
        """Connect without CONNECT, and close at the end."""
        await self.open()
        try:
            yield self
        finally:
            await self.drop()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drop()

    async def drop(self) -> None:
        """Close without DISCONNECT."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def send(self, *packets: Packet) -> None:
        """Send packets in one write."""
        self.write(b"".join(codec.encode(packet, self.version) for packet in packets))

    def write(self, raw: bytes) -> None:
        """Send bytes."""
        self._writer.write(raw)

    def publish(self, payload: bytes | str, packet_id: int = 0, *, topic: str = "", qos: int = 1, **more: Any) -> None:
        """Send a PUBLISH."""
        raw = payload.encode() if isinstance(payload, str) else payload
        topic = topic or f"up/{self.connect.username}"
        self.send(Publish(topic, raw, qos, packet_id=packet_id, **more))

    async def receive(self) -> Packet | None:
        """Return the next packet; None: the server has closed the connection."""
        async with asyncio.timeout(WAIT_S):
            while not self._arrived:
                try:
                    data = await self._reader.read(65_536)
                except OSError:
                    return None
                if not data:
                    self._writer.close()
                    return None
                self._arrived += self._packets.feed(data)
        return codec.decode(*self._arrived.pop(0), self.version)

    async def silence(self, seconds: float = 0.1) -> None:
        """Require that nothing arrives for some time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                raise AssertionError(await self.receive())

    async def acknowledged(self, count: int, kind: PacketType = PacketType.PUBACK) -> list[int]:
        """Return the packet ids of the next acknowledgements."""
        ids = []
        for _ in range(count):
            packet = await self.receive()
            assert isinstance(packet, Acknowledgement), packet
            assert packet.kind is kind
            ids.append(packet.packet_id)
        return ids
