"""GA/T 1400 client of a simulated camera: one connection, HTTP Digest at registration, objects in batches.

Written for low cost (see `mqtt`), and because it speaks as cameras do and libraries do not: an absolute `uri`, `qop`
and `nc` in quotes, other spellings of the media type. Independent of the gateway's code.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
from typing import Any, NamedTuple

MEDIA = (
    "application/VIID+JSON;charset=UTF-8",
    "application/VIID+json",
    "application/viid+json",
    "application/json",
)
TIMEOUT_S = 30.0
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class ViidHttpResponse(NamedTuple):
    """Response of the server."""

    status: int
    headers: dict[str, str]
    """Lower-case name -> value; of repeated headers the first."""
    body: bytes

    @property
    def codes(self) -> list[int]:
        """Status codes of all objects in order, or the single one."""
        try:
            tree = json.loads(self.body)
        except ValueError:
            return []
        listed = tree.get("ResponseStatusListObject", tree)
        statuses = listed.get("ResponseStatusObject", []) if isinstance(listed, dict) else []
        return [int(status["StatusCode"]) for status in (statuses if isinstance(statuses, list) else [statuses])]


class HttpConnection:
    """A persistent HTTP/1.1 connection, reopened when it is lost."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes, headers: str) -> ViidHttpResponse:
        """Send a request and return the response.

        Raises:
            OSError: the connection is lost or the response is missing; the request may have been processed
                nevertheless.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self.host, self.port)
                reader, writer = self._streams
                head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{headers}"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                return await _answer(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, TimeoutError) as why:
            self.close()
            raise ConnectionError(str(why)) from why
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].close()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> ViidHttpResponse:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ViidHttpResponse(int(head[0].split(" ")[1]), headers, body)


class HttpStyle(NamedTuple):
    """HTTP style of a camera."""

    absolute: bool = False
    """True if its `uri` is the absolute URL, which it also hashes."""
    quoted: bool = False
    """True if `qop` and `nc` are quoted."""
    media: str = MEDIA[0]
    lower: bool = False
    """True if it writes `Unregister` instead of `UnRegister`."""


class ViidCamera:
    """A camera or platform that registers and sends."""

    def __init__(self, code: str, password: str, host: str, port: int, manners: HttpStyle = HttpStyle()) -> None:  # noqa: B008
        self.code = code
        self._password = password
        self._style = manners
        self.connection = HttpConnection(host, port)
        self.registered = False
        self.registrations = 0

    async def register(self) -> bool:
        """Register with a digest; return whether it succeeded. Raises `OSError`."""
        body = json.dumps({"RegisterObject": {"DeviceID": self.code}}).encode()
        path = "/VIID/System/Register"
        first = await self._post(path, body)
        if first.status == 401:
            challenge = dict(_CHALLENGE.findall(first.headers.get("www-authenticate", "")))
            first = await self._post(path, body, f"Authorization: {self._proof(path, challenge)}\r\n")
        self.registered = first.status == 200 and first.codes == [0]
        self.registrations += self.registered
        return self.registered

    def _proof(self, path: str, challenge: dict[str, str]) -> str:
        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        uri = f"http://{self.connection.host}:{self.connection.port}{path}" if self._style.absolute else path
        realm, nonce, opaque = (challenge.get(name, "") for name in ("realm", "nonce", "opaque"))
        cnonce = secrets.token_hex(4)
        secret, request_hash = md5(f"{self.code}:{realm}:{self._password}"), md5(f"POST:{uri}")
        response = md5(f"{secret}:{nonce}:00000001:{cnonce}:auth:{request_hash}")
        mark = '"' if self._style.quoted else ""
        return (
            f'Digest username="{self.code}", realm="{realm}", nonce="{nonce}", uri="{uri}", response="{response}", '
            f'qop={mark}auth{mark}, nc={mark}00000001{mark}, cnonce="{cnonce}", opaque="{opaque}"'
        )

    async def _post(self, path: str, body: bytes, more: str = "") -> ViidHttpResponse:
        headers = f"User-Identify: {self.code}\r\nContent-Type: {self._style.media}\r\n{more}"
        return await self.connection.request("POST", path, body, headers)

    async def post(self, kind: str, body: bytes) -> ViidHttpResponse:
        """Send objects (``MotorVehicles``), registering first if needed. Raises `OSError`."""
        if not self.registered and not await self.register():
            raise ConnectionError("not registered")
        answer = await self._post(f"/VIID/{kind}", body)
        if answer.status == 401:
            self.registered = False
            if await self.register():
                answer = await self._post(f"/VIID/{kind}", body)
        return answer

    async def keep_alive(self) -> ViidHttpResponse:
        """Send a keep-alive."""
        return await self.post("System/Keepalive", json.dumps({"KeepaliveObject": {"DeviceID": self.code}}).encode())

    async def unregister(self) -> None:
        """Unregister and close."""
        if self.registered:
            with contextlib.suppress(OSError):
                word = "Unregister" if self._style.lower else "UnRegister"
                body: dict[str, Any] = {"UnRegisterObject": {"DeviceID": self.code}}
                await self._post(f"/VIID/System/{word}", json.dumps(body).encode())
        self.registered = False
        self.connection.close()
