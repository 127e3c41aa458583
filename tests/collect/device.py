"""A device by hand: MQTT 3.1.1, QoS 1 with a window of unacknowledged messages, QoS 0; counts its PUBACKs."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Self


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def _packet(head: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | 0x80 if length else digit)
        if not length:
            return bytes([head]) + bytes(digits) + body


class Device:
    """One connection."""

    def __init__(
        self, address: tuple[str, int], client_id: str, user: str, password: str, *, window: int = 200
    ) -> None:
        self._address = address
        self._connect = _text("MQTT") + b"\x04\xc2" + struct.pack(">H", 600)
        self._connect += _text(client_id) + _text(user) + _text(password)
        self._window = window
        self.acknowledged = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._writer.write(_packet(0x10, self._connect))
        answer = await self._reader.readexactly(4)
        if answer[3]:
            raise ConnectionRefusedError(f"CONNACK {answer[3]}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish all at QoS 1; return when the last PUBACK is there."""
        sent, first, rest = 0, self.acknowledged, 0
        while (done := self.acknowledged - first) < len(messages):
            while sent < len(messages) and sent - done < self._window:
                topic, payload = messages[sent]
                sent += 1
                self._writer.write(_packet(0x32, _text(topic) + struct.pack(">H", sent % 65_535 + 1) + payload))
            await self._writer.drain()
            chunk = await self._reader.read(65_536)
            if not chunk:
                raise ConnectionResetError(f"closed after {self.acknowledged} acknowledgements")
            # Every packet that comes back is a PUBACK of four bytes.
            more, rest = divmod(rest + len(chunk), 4)
            self.acknowledged += more

    async def publish_qos0(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0."""
        self._writer.write(_packet(0x30, _text(topic) + payload))
        await self._writer.drain()
