"""A subscriber of server-sent events in a process of its own: notes when each piece came, reads it only at the end."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench.peers.process import end

ROOT = Path(__file__).parents[2]
MARK = b"\ndata: {"


class Event(msgspec.Struct, gc=False):
    """What is read of a record."""

    device: str
    time: str
    received: str


class Receipt(msgspec.Struct, gc=False):
    """A record and when it came, µs of the machine's monotonic clock."""

    device: str
    time: str
    came: int


async def _main(url: str, token: str, file: Path) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
    # HTTP/1.0: no chunks in between.
    query = f"?{parts.query}" if parts.query else ""
    head = f"GET {parts.path}{query} HTTP/1.0\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in answer.split(b"\r\n", 1)[0]:
        raise ConnectionRefusedError(answer[:400].decode(errors="replace"))
    print("ready", flush=True)
    pieces: list[tuple[float, bytes]] = []
    count = 0

    async def receive() -> None:
        nonlocal count
        rest = b""
        while piece := await reader.read(1 << 20):
            pieces.append((time.monotonic(), piece))
            count += (rest + piece).count(MARK)
            rest = piece[1 - len(MARK) :]

    receiving = asyncio.create_task(receive())
    loop = asyncio.get_running_loop()
    while (order := await loop.run_in_executor(None, sys.stdin.readline)).strip() == "count":
        print(count, pieces[-1][0] if pieces else 0.0, flush=True)
    del order
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    writer.close()
    file.write_bytes(msgspec.msgpack.encode(_events(pieces)))
    print("written", flush=True)


def _events(pieces: list[tuple[float, bytes]]) -> list[Receipt]:
    ends = list(accumulate(len(piece) for _, piece in pieces))
    text = b"".join(piece for _, piece in pieces)
    decode = msgspec.json.Decoder(Event).decode
    events, at = [], 0
    while (end := text.find(b"\n\n", at)) >= 0:
        block = text[at:end]
        begin = block.find(b"data: ")
        if begin >= 0 and b"event: problem" not in block:
            event = decode(block[begin + 6 :])
            piece = bisect_left(ends, end + 2)
            events.append(Receipt(event.device, event.time, round(pieces[piece][0] * 1e6)))
        at = end + 2
    return events


class Subscriber:
    """The process that subscribes, connected when entered."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._directory = tempfile.TemporaryDirectory(prefix="sensegate-subscriber-")
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._file = Path(self._directory.name) / "seen"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.subscriber",
            self._url,
            self._token,
            str(self._file),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
        )
        if await self._line() != "ready":
            raise ConnectionRefusedError("the subscriber was refused; see above")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._process)
        self._directory.cleanup()

    async def _line(self) -> str:
        assert self._process
        assert self._process.stdout
        async with asyncio.timeout(120):
            return (await self._process.stdout.readline()).decode().strip()

    async def _ask(self, order: str) -> str:
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(f"{order}\n".encode())
        return await self._line()

    async def count(self) -> tuple[int, float]:
        """Return how many records have come, and when the last bytes did, s of the monotonic clock."""
        count, last = (await self._ask("count")).split()
        return int(count), float(last)

    async def until(self, count: int, *, timeout_s: float) -> tuple[int, float]:
        """Wait for so many records or until none has come for two seconds; return as `count`."""
        async with asyncio.timeout(timeout_s):
            while True:
                result, last = await self.count()
                if result >= count or (result and time.monotonic() - last > 2.0):
                    return result, last
                await asyncio.sleep(0.05)  # it cannot tell us by itself

    async def seen(self) -> list[Receipt]:
        """End it; return all that came."""
        if await self._ask("end") != "written":
            raise ConnectionResetError("the subscriber ended; see above")
        return msgspec.msgpack.decode(self._file.read_bytes(), type=list[Receipt])


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
