"""One feed to 1, 10, 100 and 1,000 subscribers by server-sent events: deliveries a second, memory a subscriber.

A node of its own process holds the readings; subscribers are connections of one other process: the first is read and
counted, the others are taken unread until each has had the same bytes, so that taking costs less than sending.
All begin after the same cursor, so that each phase reads a part of the log that nobody has read before: what is encoded
is encoded within the measured time. Baselines, served in a process like the node's in the same run:

bare        aiohttp sending the same bytes to one subscriber, a write for each record, as one writes events with it
bare_blocks the same with the records of a block in one write: no log, no rights, no metering, nothing to encode
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from sensegate.bus.addresses import GatewayAddresses
from sensegate.bus.connect import Login, connect
from sensegate.bus.free_ports import free_port
from sensegate.bus.log import JetStreamLog
from sensegate.bus.server_conf import EngineState, User
from sensegate.bus.slots import inbox_prefix
from sensegate.demo.processes import Reaper, SupervisedProcess
from sensegate.model import LogMessage
from tests.bench import rig
from tests.share.made import Place, make_batch, members

COUNTS = (1, 10, 100, 1_000)
ROWS = 500
"""Records of one commit."""
DELIVERIES = 6_000_000
"""So many are wanted of each phase, in all; at most `RECORDS` for one subscriber."""
RECORDS = 60_000
PROPERTIES = ("air_temperature", "relative_humidity", "air_pressure", "illuminance", "noise_level")
ROUNDS = 3
TIMEOUT_S = 120.0
MIB = 1024**2


def batches(records: int, first: int) -> list[Any]:
    """Return commits of `ROWS` records of 100 devices, numbered from `first`."""
    places = [Place(f"gz-air-{at:03d}", "440106") for at in range(100)]
    made = []
    for at in range(first, first + records // ROWS):
        rows = [(row // 5, PROPERTIES[row % 5], 20 + (at * 7 + row) % 100 / 10) for row in range(ROWS)]
        every = members(make_batch(rows, places=places, start=1_767_225_600_000_000 + at * 1_000_000))
        # Its commit, of a partition of our own, tells those who follow the log that there is something new.
        readings = [entry for entry in every if entry.subject.startswith("readings.")]
        made.append([*readings, LogMessage("commit.bench-0", b"commit", rollup=True)])
    return made


class Node:
    """A running node whose log is written to from here."""

    def __init__(self, child: SupervisedProcess, addresses: GatewayAddresses, token: str, log: JetStreamLog) -> None:
        self.child = child
        self.addresses = addresses
        self.token = token
        self.log = log
        self.written = 0

    async def fill(self, records: int) -> str:
        """Write so many readings more; return the cursor before them."""
        cursor = await self.end()
        for batch in batches(records, self.written):
            await self.log.write(batch)
        self.written += records // ROWS
        return cursor

    async def end(self) -> str:
        """Return the cursor at the end of the log."""
        url = f"{self.addresses.http}/api/v1/feeds/all/records"
        headers = {"Authorization": f"Bearer {self.token}"}
        async with aiohttp.ClientSession() as http:
            after = ""
            while True:
                query = {"limit": "1", **({"after": after} if after else {"since": "0s"})}
                async with http.get(url, headers=headers, params=query) as response:
                    body = await response.json()
                if not body["records"]:
                    return str(body["next"])
                after = body["next"]

    @property
    def memory(self) -> float:
        """Resident MiB of the gateway's process."""
        return rig.rss_mb(self.child.pid)


@contextlib.asynccontextmanager
async def node() -> AsyncIterator[Node]:
    """Run a node in a process of its own."""
    directory = Path(tempfile.mkdtemp(prefix="sensegate-fanout-"))
    warden = Reaper(directory, remove=True)
    await warden.start()
    file = directory / "config.yaml"
    file.write_text(
        f'role: node\ndivision: "4401"\ndirectory: {directory}/store\nlog_level: warning\n'
        f"profiles: [{rig.ROOT}/device_profiles/sensegate]\n"
        "store: {log_bytes: 2147483648}\nweb: {streams_per_caller_max: 2000}\n"
    )
    child = SupervisedProcess("node", [sys.executable, "-m", "sensegate.cli", "run", str(file)], log=directory / "log")
    try:
        await child.start()
        run = directory / "store" / "run.json"
        async with asyncio.timeout(60):
            while not run.exists():
                await asyncio.sleep(0.05)  # it cannot tell us by itself
        addresses = msgspec.json.decode(run.read_bytes(), type=GatewayAddresses)
        kept = msgspec.json.decode((directory / "store/engine/engine.json").read_bytes(), type=EngineState)
        client = await connect(
            addresses.nats, Login(User.GATEWAY, kept.passwords[User.GATEWAY], inbox_prefix(User.GATEWAY))
        )
        log = JetStreamLog(client)
        await log.open()
        yield Node(child, addresses, (directory / "store/admin.token").read_text().strip(), log)
        await log.close()
        await client.close()
    finally:
        await child.stop()
        await warden.finish()


# ── subscribers ───────────────────────────────────────────────────────────────────────────────────────


async def _subscribers() -> None:
    """Take orders on standard input: connect so many, tell when all have had so many bytes after the head."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        summary, sockets = await _taken(**msgspec.json.decode(line))
        print(msgspec.json.encode(summary).decode(), flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        for sock in sockets:
            sock.close()


class Discarded:
    """Connections whose bytes are taken without a look or a copy: it is who sends that is measured."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self.taken = dict.fromkeys(sockets, 0)
        self._scratch = bytearray(1 << 20)
        self._left = {*sockets}
        self._wanted = 0
        self._done = asyncio.Event()
        for sock in sockets:
            asyncio.get_running_loop().add_reader(sock, self._take, sock)

    def _take(self, connection: socket.socket) -> None:
        count = connection.recv_into(self._scratch, 0, socket.MSG_TRUNC)
        self.taken[connection] += count
        if not count:
            asyncio.get_running_loop().remove_reader(connection)
            self._left.discard(connection)
        self._look(connection)

    def _look(self, connection: socket.socket) -> None:
        if self._wanted and self.taken[connection] >= self._wanted:
            asyncio.get_running_loop().remove_reader(connection)
            self._left.discard(connection)
        if not self._left:
            self._done.set()

    async def until(self, size: int) -> None:
        """Return once each has had so many bytes."""
        self._wanted = size
        for subscriber in list(self._left):
            self._look(subscriber)
        if self.taken:
            await self._done.wait()
        if cut := [subscriber for subscriber, count in self.taken.items() if count < size]:
            raise ConnectionResetError(f"{len(cut)} subscribers were cut")

    def end(self) -> None:
        """Look at none any more."""
        for entry in self.taken:
            asyncio.get_running_loop().remove_reader(entry)


async def _read(connection: socket.socket, events: int) -> int:
    """Read so many events; return the bytes up to the last."""
    loop = asyncio.get_running_loop()
    buffer = bytearray(1 << 18)
    number, size, rest = 0, 0, b""
    while number < events:
        count = await loop.sock_recv_into(connection, buffer)
        if not count:
            raise ConnectionResetError(bytes(buffer[:400]).decode(errors="replace"))
        piece = bytes(memoryview(buffer)[:count])
        # A mark lies across two pieces now and then.
        number += (rest + piece).count(b"\ndata: ")
        rest = piece[-6:]
        size += count
    return size - len(rest)


async def _taken(url: str, token: str, count: int, events: int) -> tuple[dict[str, float], list[socket.socket]]:
    """Connect so many; return the seconds and bytes until each has had so many events, as the first has read them."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    head = f"GET {parts.path}{query} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    sockets = []
    for _ in range(count):
        result = socket.socket()
        result.setblocking(False)
        result.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144 if count <= 100 else 65_536)
        await loop.sock_connect(result, (parts.hostname, parts.port))
        sockets.append(result)
    began = time.monotonic()
    for result in sockets:
        await loop.sock_sendall(result, head)
    others = Discarded(sockets[1:])
    # All are sent the same bytes, in the same pieces.
    size = await _read(sockets[0], events)
    await others.until(size)
    ended = time.monotonic()
    others.end()
    return {"seconds": ended - began, "bytes": size + sum(others.taken.values())}, sockets


class Subscribers:
    """The process of all subscribers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def take(
        self, url: str, token: str, count: int, events: int, held: Callable[[], None] = lambda: None
    ) -> tuple[float, int]:
        """Return the seconds and bytes until each of so many subscribers has had so many events.

        `held` is called while they are still connected.
        """
        assert self._process.stdin
        assert self._process.stdout
        order = {"url": url, "token": token, "count": count, "events": events}
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        async with asyncio.timeout(TIMEOUT_S):
            line = await self._process.stdout.readline()
        decoded = msgspec.json.decode(line)
        held()
        self._process.stdin.write(b"close\n")
        return decoded["seconds"], decoded["bytes"]


@contextlib.asynccontextmanager
async def subscribers() -> AsyncIterator[Subscribers]:
    """Run it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.fanout",
        "subscribers",
        cwd=rig.ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Subscribers(process)
    finally:
        process.kill()
        await process.wait()


# ── the baseline ──────────────────────────────────────────────────────────────────────────────────────


async def _bare(file: str, port: int) -> None:
    """Serve the events in a file, to each who asks: one by one, or in blocks of `ROWS`."""
    whole = await asyncio.to_thread(Path(file).read_bytes)
    events = [event + b"\n\n" for event in whole.split(b"\n\n") if event]
    blocks = [b"".join(events[at : at + ROWS]) for at in range(0, len(events), ROWS)]

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in blocks if request.query.get("blocks") else events:
            await response.write(piece)
        await asyncio.sleep(TIMEOUT_S)
        return response

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def bare(events: bytes) -> AsyncIterator[str]:
    """Run it; yield its address."""
    port = free_port()
    with tempfile.NamedTemporaryFile(prefix="sensegate-fanout-") as file:
        file.write(events)
        file.flush()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.fanout",
            "bare",
            file.name,
            str(port),
            cwd=rig.ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout
            await process.stdout.readline()
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.kill()
            await process.wait()


async def _events(node: Node, cursor: str, records: int) -> bytes:
    """Return the bytes of the events as the node sends them."""
    url = f"{node.addresses.http}/api/v1/feeds/all/stream"
    headers = {"Authorization": f"Bearer {node.token}"}
    events = bytearray()
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers, params={"after": cursor}) as response:
        result = 0
        while result < records + 1:
            begin = max(0, len(events) - 1)
            events += await response.content.readany()
            result += events.count(b"\n\n", begin)
    return bytes(events).removeprefix(b"retry: 1000\n\n")


# ── the bench ─────────────────────────────────────────────────────────────────────────────────────────


async def bench(
    counts: Sequence[int] = COUNTS, deliveries: int = DELIVERIES, most: int = RECORDS, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Return deliveries a second at each number of subscribers, best of some rounds, and what a subscriber costs."""
    rates: dict[int, float] = {}
    cost: dict[int, float] = {}
    memory: list[float] = []
    async with node() as first_node, subscribers() as readers:

        async def measure(count: int, records: int) -> float:
            cursor = await first_node.fill(records)
            url = f"{first_node.addresses.http}/api/v1/feeds/all/stream?after={cursor}"
            used = rig.cpu_s(first_node.child.pid)
            seconds, _ = await readers.take(url, first_node.token, count, records)
            cost[count] = min(cost.get(count, 1e9), (rig.cpu_s(first_node.child.pid) - used) / (count * records) * 1e6)
            return count * records / seconds

        await measure(1, ROWS * 2)  # what is made once is made
        cost.clear()
        # First of all, while the process has no memory left from others.
        cursor, before = await first_node.fill(ROWS), first_node.memory
        url = f"{first_node.addresses.http}/api/v1/feeds/all/stream?after={cursor}"
        await readers.take(url, first_node.token, max(counts), ROWS, lambda: memory.append(first_node.memory - before))
        whole = most // ROWS * ROWS
        cursor = await first_node.fill(whole)
        events = await _events(first_node, cursor, whole)
        size = len(events) / whole
        for count in counts:
            records = max(ROWS, min(most, deliveries // count) // ROWS * ROWS)
            rates[count] = max([await measure(count, records) for _ in range(rounds)])
        async with bare(events) as url:
            plain, blocks = [
                max([records / (await readers.take(where, "x", 1, records))[0] for _ in range(rounds)])
                for where, records in ((url, events.count(b"\n\n")), (f"{url}?blocks=1", events.count(b"\n\n")))
            ]
    return {
        "figure": round(rates[100 if 100 in rates else max(counts)] / rates[counts[0]], 1),
        "unit": "times the deliveries a second of one subscriber, at 100",
        "goal": 15,
        "deliveries_per_s": {str(count): round(rate) for count, rate in rates.items()},
        "cpu_us_per_delivery": {str(count): round(used, 2) for count, used in cost.items()},
        "one_to_bare": round(rates[counts[0]] / plain, 2),
        "one_to_bare_goal": 0.7,
        "one_to_bare_blocks": round(rates[counts[0]] / blocks, 2),
        "baseline": round(plain),
        "baseline_is": "bare aiohttp sending the same bytes to one, a write for each record",
        "baseline_blocks": round(blocks),
        "bytes_a_record": round(size),
        "kib_a_subscriber": round(memory[0] * 1024 / max(counts), 1),
        "rounds": rounds,
    }


if __name__ == "__main__":
    if sys.argv[1] == "subscribers":
        uvloop.run(_subscribers())
    else:
        uvloop.run(_bare(sys.argv[2], int(sys.argv[3])))
