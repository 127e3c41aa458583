"""Publishes the numbers 0 to COUNT - 1 with gmqtt: ``python gmqtt_client.py PORT LEVEL QOS COUNT``.

It runs in an environment of its own, as the library brings a package ``tests``.
"""

from __future__ import annotations

import asyncio
import sys

import gmqtt

WAIT_S = 30


async def main(port: int, level: int, qos: int, count: int) -> None:
    """Publish, and wait for the acknowledgements."""
    client = gmqtt.Client("d1")
    client.set_auth_credentials("d1", "right")
    await client.connect("127.0.0.1", port, version=level)
    for number in range(count):
        client.publish("up/d1", str(number), qos=qos)
    async with asyncio.timeout(WAIT_S):
        await client._persistent_storage.wait_empty()
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
