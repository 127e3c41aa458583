"""A subscriber's own HTTP address: an aiohttp server that knows nothing of us but what Standard Webhooks says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from sensegate.bus.free_ports import free_port


class Letter(msgspec.Struct):
    """What came."""

    id: str
    timestamp: int
    signature: str
    body: bytes
    headers: dict[str, str]

    @property
    def records(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.body)["records"]
        return rows

    def signed_by(self, secret: str) -> bool:
        """Return whether the signature is that of the secret, by Standard Webhooks' own recipe."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        text = f"{self.id}.{self.timestamp}.".encode() + self.body
        made = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        return hmac.compare_digest(self.signature, f"v1,{made}")


class Receiver:
    """Keeps each letter once, by its id; answers as the test says."""

    def __init__(self) -> None:
        self.url = ""
        self.attempts: list[Letter] = []
        self.kept: list[Letter] = []
        self.answers: list[int] = []
        """Statuses of the next answers; then 200."""
        self.open = asyncio.Event()
        """While it is not set, answers stay out."""
        self.open.set()
        self._arrived = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        """Take a letter."""
        headers = dict(request.headers)
        letter = Letter(
            headers["webhook-id"],
            int(headers["webhook-timestamp"]),
            headers["webhook-signature"],
            await request.read(),
            headers,
        )
        self.attempts.append(letter)
        status = self.answers.pop(0) if self.answers else 200
        await self.open.wait()
        if 200 <= status < 300 and letter.id not in {row.id for row in self.kept}:
            self.kept.append(letter)
        async with self._arrived:
            self._arrived.notify_all()
        return web.Response(status=status)

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records kept, in order."""
        return [record for letter in self.kept for record in letter.records]

    async def until(self, count: int, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Return the records once there are so many."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.records) >= count)
        return self.records


@contextlib.asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Run one on loopback."""
    receiver = Receiver()
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = port or free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()
