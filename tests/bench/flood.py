"""A QoS 1 publisher that costs as little as possible, so that a benchmark measures the other side.

MQTT 3.1.1 by hand: CONNECT, then PUBLISH packets made beforehand and written in slabs, PUBACKs counted, never parsed
further. Many user names share one process, one connection each.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Self


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


def connect_packet(client_id: str, username: str, password: str) -> bytes:
    """Return a CONNECT packet with clean session and a keep-alive of ten minutes."""
    body = (
        _text("MQTT")
        + b"\x04"
        + b"\xc2"
        + struct.pack(">H", 600)
        + _text(client_id)
        + _text(username)
        + _text(password)
    )
    return b"\x10" + _remaining(len(body)) + body


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """Return a QoS 1 PUBLISH packet."""
    body = _text(topic) + struct.pack(">H", packet_id) + payload
    return b"\x32" + _remaining(len(body)) + body


class Flood:
    """One connection that publishes with a window of unacknowledged messages."""

    def __init__(
        self, host: str, port: int, client_id: str, username: str = "", password: str = "", *, window: int = 1_000
    ) -> None:
        self._address = (host, port)
        self._connect = connect_packet(client_id, username, password)
        self._window = window
        self.acknowledged = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._writer.write(self._connect)
        answer = await self._reader.readexactly(4)
        if answer[3] != 0:
            raise ConnectionRefusedError(f"CONNACK {answer[3]}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.write(b"\xe0\x00")
        self._writer.close()
        await self._writer.wait_closed()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish all; return when the last PUBACK is there."""
        slab = 200
        sent = 0
        base = self.acknowledged
        rest = 0
        while self.acknowledged - base < len(messages):
            while sent < len(messages) and sent - (self.acknowledged - base) < self._window:
                part = messages[sent : sent + slab]
                self._writer.write(
                    b"".join(
                        publish_packet(topic, payload, (sent + i) % 65_535 + 1)
                        for i, (topic, payload) in enumerate(part)
                    )
                )
                sent += len(part)
            await self._writer.drain()
            chunk = await self._reader.read(65_536)
            if not chunk:
                raise ConnectionResetError(f"closed after {self.acknowledged} acknowledgements")
            # Every packet that comes back is a PUBACK of four bytes.
            done, rest = divmod(rest + len(chunk), 4)
            self.acknowledged += done


async def flood(host: str, port: int, shares: Iterable[tuple[str, str, Sequence[tuple[str, bytes]]]]) -> int:
    """Publish each share (user, password, messages) over its own connection, side by side; return the PUBACKs."""

    async def one(number: int, username: str, password: str, messages: Sequence[tuple[str, bytes]]) -> int:
        async with Flood(host, port, f"flood-{number}", username, password) as connection:
            await connection.publish(messages)
            return connection.acknowledged

    return sum(await asyncio.gather(*(one(number, *share) for number, share in enumerate(shares))))
