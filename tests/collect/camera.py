"""A camera of the tests: an HTTP server of ours that asks for digest and sends streams as real ones do."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone

from aiohttp import web

from sensegate.bus.free_ports import free_port

REALM = "DS-2CD0000"
SECRET = "a secret"
BOUNDARY = "boundary"
NOON = datetime(2026, 1, 15, 12, tzinfo=timezone(timedelta(hours=8)))
Script = Callable[[web.StreamResponse], Awaitable[None]]
"""What the camera sends on one connection; when it returns, the connection is closed."""


def alert(kind: str = "VMD", state: str = "active", second: int = 0, since: datetime = NOON) -> bytes:
    """Return an alert in XML."""
    moment = (since + timedelta(seconds=second)).isoformat(timespec="seconds")
    return (
        '<EventNotificationAlert version="2.0" xmlns="http://www.hikvision.com/ver20/XMLSchema">'
        "<macAddress>44:19:b6:00:00:01</macAddress><channelID>1</channelID>"
        f"<dateTime>{moment}</dateTime><activePostCount>1</activePostCount>"
        f"<eventType>{kind}</eventType><eventState>{state}</eventState></EventNotificationAlert>"
    ).encode()


def part(content: bytes, kind: str = "application/xml", *, length: int | None = -1, token: str = BOUNDARY) -> bytes:
    """Return one part; `length`: as it claims, -1: the true one, None: none."""
    declared = len(content) if length == -1 else length
    line = "" if declared is None else f"Content-Length: {declared}\r\n"
    return f'--{token}\r\nContent-Type: {kind}; charset="UTF-8"\r\n{line}\r\n'.encode() + content + b"\r\n"


class TheCamera:
    """Plays one script after another, one for each connection; the last one again and again."""

    def __init__(
        self, *scripts: Script, user: str = "reader", password: str = SECRET, boundary: str = BOUNDARY
    ) -> None:
        self._scripts = list(scripts)
        self._user, self._password = user, password
        self.boundary = boundary
        self.asked: list[str] = []
        """Status of each answer."""
        self.paths: list[str] = []
        self._nonce = secrets.token_hex(8)
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, tls: ssl.SSLContext | None = None) -> TheCamera:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        port = free_port("127.0.0.1")
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls).start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        return self

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def answers(self, count: int) -> None:
        """Return when it has answered so often."""
        async with asyncio.timeout(60):
            while len(self.asked) < count:
                self._changed.clear()
                await self._changed.wait()

    def _note(self, status: int) -> None:
        self.asked.append(str(status))
        self._changed.set()

    def _good(self, request: web.Request) -> bool:
        head = request.headers.get("Authorization", "")
        parameters = dict(re.findall(r'(\w+)="?([^",]+)"?', head.removeprefix("Digest ")))
        if parameters.get("username") != self._user or parameters.get("nonce") != self._nonce:
            return False

        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        secret = md5(f"{self._user}:{REALM}:{self._password}")
        about = md5(f"GET:{parameters['uri']}")
        right = md5(f"{secret}:{self._nonce}:{parameters['nc']}:{parameters['cnonce']}:auth:{about}")
        return bool(parameters["response"] == right)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self._user and not self._good(request):
            self._note(401)
            ask = f'Digest realm="{REALM}", qop="auth", nonce="{self._nonce}", opaque=""'
            return web.Response(status=401, headers={"WWW-Authenticate": ask})
        self.paths.append(request.path_qs)
        self._note(200)
        response = web.StreamResponse(headers={"Content-Type": f"multipart/mixed; boundary={self.boundary}"})
        await response.prepare(request)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            await script(response)
        except ConnectionError:
            return response
        if request.transport:
            request.transport.close()
        return response


def sending(
    *chunks: bytes, start: asyncio.Event | None = None, then: asyncio.Event | None = None, each_s: float = 0.0
) -> Script:
    """Return a script that waits for `start`, sends these chunks, and holds the line until `then`."""

    async def play(response: web.StreamResponse) -> None:
        if start is not None:
            await start.wait()
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(each_s)
        if then is not None:
            await then.wait()

    return play
