"""A QoS 0 subscriber of Mosquitto in a process of its own, as cheap as possible: it counts PUBLISH packets.

``python -m tests.bench.peers.counter PORT TOPIC WEIGHT`` prints ``ready``; at each line on its standard input it prints
the sum so far and when the last packet came. WEIGHT is ``1`` for a packet or a text whose occurrences are summed.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from typing import cast

import uvloop

from tests.bench.flood import connect_packet

_PUBLISH = 0x30


class Counter(asyncio.Protocol):
    """One connection that subscribes once it is connected."""

    def __init__(self, topic: str, mark: bytes) -> None:
        self._topic = topic.encode()
        self._mark = mark
        self._rest = b""
        self.count = 0
        self.last = 0.0
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        body = b"\x00\x01" + struct.pack(">H", len(self._topic)) + self._topic + b"\x00"
        self._transport.write(connect_packet("counter", "", "") + b"\x82" + bytes([len(body)]) + body)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, size = 0, len(data)
        while size - at >= 2:
            length, shift, head = 0, 0, at + 1
            while head < size:
                digit = data[head]
                length |= (digit & 0x7F) << shift
                shift += 7
                head += 1
                if not digit & 0x80:
                    break
            else:
                break
            if head + length > size:
                break
            kind = data[at] & 0xF0
            if kind == _PUBLISH:
                self.count += data.count(self._mark, head, head + length) if self._mark else 1
                self.last = time.monotonic()
            elif kind == 0x90 and not self.subscribed.done():
                self.subscribed.set_result(None)
            at = head + length
        self._rest = data[at:]


async def _main(port: int, topic: str, mark: str) -> None:
    loop = asyncio.get_running_loop()
    _, counter = await loop.create_connection(
        lambda: Counter(topic, b"" if mark == "1" else mark.encode()), "127.0.0.1", port
    )
    await asyncio.wait_for(counter.subscribed, 10)
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(counter.count, counter.last, flush=True)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
