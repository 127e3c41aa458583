"""A QoS 1 publisher in a process of its own, as cheap as possible: a benchmark measures the other side.

MQTT 3.1.1 by hand: CONNECT, then PUBLISH packets made beforehand and written in slabs; when each PUBACK came is noted
as bytes and read only at the end. It connects, says ``ready``, waits for ``go``, publishes (as fast as its windows
allow, or at a rate) and answers with what it did.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import msgspec
import numpy as np
import uvloop

from sensegate.model import I64
from tests.bench.peers.process import end
from tests.bench.workload import Sent

ROOT = Path(__file__).parents[2]
SLAB = 200
TICK_S = 0.002
CONNECTING = 200
CONNECT_S = 60.0
PACKET_IDS = 65_535


class Share(msgspec.Struct):
    """What one connection publishes; `at` counts its messages in the whole, in order."""

    user: str
    password: str
    topics: list[str]
    payloads: list[bytes]
    at: list[int]


class Plan(msgspec.Struct):
    """What the process is to do. `rate`: messages a second of all; 0 publishes as fast as it can."""

    host: str
    port: int
    shares: list[Share]
    window: int = 1_000
    rate: float = 0.0


class Done(msgspec.Struct):
    """What it did. Times are of the machine's monotonic clock, in seconds."""

    acknowledged: int
    began: float
    ended: float
    cpu_s: float
    late_s: float
    """How far behind its schedule it was at worst."""


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def _remaining(length: int) -> bytes:
    out = bytearray()
    while True:
        length, digit = divmod(length, 128)
        out.append(digit | 0x80 if length else digit)
        if not length:
            return bytes(out)


def connect_packet(client_id: str, user: str, password: str) -> bytes:
    """Return a CONNECT packet with clean session and a keep-alive of ten minutes."""
    flags = b"\xc2" if user else b"\x02"
    body = _text("MQTT") + b"\x04" + flags + struct.pack(">H", 600) + _text(client_id)
    if user:
        body += _text(user) + _text(password)
    return b"\x10" + _remaining(len(body)) + body


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """Return a QoS 1 PUBLISH packet."""
    body = _text(topic) + struct.pack(">H", packet_id) + payload
    return b"\x32" + _remaining(len(body)) + body


class Connection(asyncio.Protocol):
    """One connection that publishes with a window of unacknowledged messages."""

    def __init__(self, share: Share, number: int, window: int) -> None:
        self._connect = connect_packet(f"flood-{number}", share.user, share.password)
        self._packets = [
            publish_packet(topic, payload, at % PACKET_IDS + 1)
            for at, (topic, payload) in enumerate(zip(share.topics, share.payloads, strict=True))
        ]
        self._window = window
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard: list[tuple[float, bytes]] = []
        self._bytes = 0
        self.sent = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, host: str, port: int) -> Self:
        """Connect and wait for CONNACK."""
        await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        await self._connected
        return self

    @property
    def acknowledged(self) -> int:
        """How many PUBACKs have come."""
        return self._bytes // 4

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._transport.write(self._connect)

    def data_received(self, chunk: bytes) -> None:
        if not self._connected.done():
            if chunk[3]:
                self._connected.set_exception(ConnectionRefusedError(f"CONNACK {chunk[3]}"))
                return
            self._connected.set_result(None)
            chunk = chunk[4:]
        # Every packet that comes back is a PUBACK of four bytes.
        self._heard.append((time.monotonic(), chunk))
        self._bytes += len(chunk)
        if self._flooding:
            self._fill()
        if self.acknowledged >= len(self._packets) and not self.done.done():
            self.done.set_result(None)

    _flooding = False

    def connection_lost(self, why: Exception | None) -> None:
        lost = ConnectionResetError(f"closed after {self.acknowledged} acknowledgements: {why}")
        for waiting in (self._connected, self.done):
            if not waiting.done():
                waiting.set_exception(lost)

    def flood(self) -> None:
        """Publish all, as fast as the window allows."""
        self._flooding = True
        self._fill()

    def _fill(self) -> None:
        while self.sent < len(self._packets) and self.sent - self.acknowledged < self._window:
            self.send(min(SLAB, len(self._packets) - self.sent))

    def send(self, count: int = 1) -> None:
        """Publish the next messages."""
        self._transport.write(b"".join(self._packets[self.sent : self.sent + count]))
        self.sent += count

    def times(self) -> I64:
        """Return when each message was acknowledged, µs of the monotonic clock, in order of the messages."""
        raw = np.frombuffer(b"".join(chunk for _, chunk in self._heard), np.uint8).reshape(-1, 4)
        packet_id = raw[:, 2].astype(np.int64) << 8 | raw[:, 3]
        moments = np.array([round(moment * 1e6) for moment, _ in self._heard], np.int64)
        ends = np.cumsum([len(chunk) for _, chunk in self._heard])
        when = moments[np.searchsorted(ends, np.arange(1, len(raw) + 1) * 4)]
        # Ids come round after 65,535 messages; far fewer are ever unacknowledged.
        lap = np.zeros(PACKET_IDS + 1, np.int64)
        if len(raw) <= PACKET_IDS:
            at = packet_id - 1
        else:
            at = np.empty(len(raw), np.int64)
            for row, identifier in enumerate(packet_id.tolist()):
                at[row] = lap[identifier] * PACKET_IDS + identifier - 1
                lap[identifier] += 1
        result = np.zeros(len(self._packets), np.int64)
        result[at] = when
        return result

    def close(self) -> None:
        """Say good-bye."""
        self._transport.write(b"\xe0\x00")
        self._transport.close()


async def _paced(plan: Plan, connections: Sequence[Connection]) -> float:
    order = np.empty(sum(len(share.at) for share in plan.shares), np.int64)
    for number, share in enumerate(plan.shares):
        order[share.at] = number
    senders = [connections[number] for number in order.tolist()]
    began, sent, late = time.monotonic(), 0, 0.0
    while sent < len(senders):
        due = min(len(senders), int((time.monotonic() - began) * plan.rate) + 1)
        for sender in senders[sent:due]:
            sender.send()
        sent = max(sent, due)
        late = max(late, time.monotonic() - began - sent / plan.rate)
        await asyncio.sleep(TICK_S)  # the pace is the point
    return late


async def _main(file: Path) -> None:
    plan = msgspec.msgpack.decode(file.read_bytes(), type=Plan)
    made = [Connection(share, number, plan.window) for number, share in enumerate(plan.shares)]
    async with asyncio.timeout(CONNECT_S):
        for first in range(0, len(made), CONNECTING):
            await asyncio.gather(*(entry.open(plan.host, plan.port) for entry in made[first : first + CONNECTING]))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cpu, began = time.process_time(), time.monotonic()
    late = 0.0
    if plan.rate:
        late = await _paced(plan, made)
    else:
        for entry in made:
            entry.flood()
    await asyncio.gather(*(entry.done for entry in made))
    ended = time.monotonic()
    done = Done(sum(entry.acknowledged for entry in made), began, ended, time.process_time() - cpu, late)
    times = np.empty(done.acknowledged, np.int64)
    for entry, share in zip(made, plan.shares, strict=True):
        times[share.at] = entry.times()
        entry.close()
    file.with_suffix(".times").write_bytes(times.tobytes())
    print(msgspec.json.encode(done).decode(), flush=True)


def shares(messages: Sequence[Sent], passwords: dict[str, str]) -> list[Share]:
    """Return messages by the connection that publishes them; without passwords all share one."""
    shares: dict[str, Share] = {}
    for at, message in enumerate(messages):
        user = message.user if passwords else ""
        share = shares.get(user)
        if share is None:
            share = shares[user] = Share(user, passwords.get(user, ""), [], [], [])
        share.topics.append(message.topic)
        share.payloads.append(message.payload)
        share.at.append(at)
    return list(shares.values())


class Flood:
    """The process that publishes, connected when entered."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._directory = tempfile.TemporaryDirectory(prefix="sensegate-flood-")
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        file = Path(self._directory.name) / "plan"
        file.write_bytes(msgspec.msgpack.encode(self._plan))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.flood", str(file), cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=1 << 20
        )
        assert self._process.stdout
        if await self._process.stdout.readline() != b"ready\n":
            raise ConnectionRefusedError("the publisher could not connect; see above")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._process)
        self._directory.cleanup()

    async def go(self) -> Done:
        """Publish; return when the last PUBACK is there."""
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"go\n")
        line = await self._process.stdout.readline()
        if not line:
            raise ConnectionResetError("the publisher ended; see above")
        return msgspec.json.decode(line, type=Done)

    def times(self) -> I64:
        """Return when each message of the whole was acknowledged, µs of the machine's monotonic clock."""
        return np.frombuffer((Path(self._directory.name) / "plan.times").read_bytes(), np.int64)


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1])))
