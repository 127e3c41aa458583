"""A bare aiomqtt consumer that parses each JSON and drops it: ``python -m tests.bench.peers.bare PORT asyncio|uvloop``.

It prints ``ready``; at each line on its standard input it prints the messages so far and when the last one came.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiomqtt
import msgspec
import uvloop


async def _main(port: int) -> None:
    parse = msgspec.json.Decoder().decode
    count, last = 0, 0.0
    loop = asyncio.get_running_loop()

    async def answer() -> None:
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(count, last, flush=True)

    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("sg/#", qos=1)
        print("ready", flush=True)
        answering = asyncio.create_task(answer())
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            parse(message.payload)
            count += 1
            last = time.monotonic()
        answering.cancel()


if __name__ == "__main__":
    (uvloop.run if sys.argv[2] == "uvloop" else asyncio.run)(_main(int(sys.argv[1])))
