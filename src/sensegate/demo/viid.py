"""A camera's end of GA/T 1400: one connection, HTTP Digest at registration, objects in batches, registration again.

Written out because it must be cheap (see `mqtt.py`), and because it speaks as cameras do and not as a library does: an
absolute `uri`, `qop` and `nc` in quotes, other spellings of the media type. Knows nothing of the gateway.
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


class Answered(NamedTuple):
    """What the server said."""

    status: int
    headers: dict[str, str]
    """Names in lower case; of those that occur again the first."""
    body: bytes

    @property
    def codes(self) -> list[int]:
        """Return the status codes of all objects, in their order; of a single answer the one."""
        try:
            tree = json.loads(self.body)
        except ValueError:
            return []
        listed = tree.get("ResponseStatusListObject", tree)
        found = listed.get("ResponseStatusObject", []) if isinstance(listed, dict) else []
        return [int(one["StatusCode"]) for one in (found if isinstance(found, list) else [found])]


class Connection:
    """One HTTP/1.1 connection that is kept; opened again when it is lost."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes, headers: str) -> Answered:
        """Send a request and return the answer.

        Raises:
            OSError: the connection is lost or the answer does not come; it may have been taken all the same.
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
        """Drop the connection."""
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].close()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> Answered:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answered(int(head[0].split(" ")[1]), headers, body)


class Manners(NamedTuple):
    """How a camera speaks HTTP."""

    absolute: bool = False
    """Its `uri` is the whole address, and that is what it hashes."""
    quoted: bool = False
    """It puts `qop` and `nc` in quotes."""
    media: str = MEDIA[0]
    lower: bool = False
    """It writes the last word of `UnRegister` small."""


class ViidCamera:
    """One camera or platform that registers and sends."""

    def __init__(self, code: str, password: str, host: str, port: int, manners: Manners = Manners()) -> None:  # noqa: B008
        self.code = code
        self._password = password
        self._manners = manners
        self.connection = Connection(host, port)
        self.registered = False
        self.registrations = 0

    async def register(self) -> bool:
        """Register with a digest; return whether we are believed. Raises `OSError`."""
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

        uri = f"http://{self.connection.host}:{self.connection.port}{path}" if self._manners.absolute else path
        realm, nonce, opaque = (challenge.get(name, "") for name in ("realm", "nonce", "opaque"))
        cnonce = secrets.token_hex(4)
        secret, asked = md5(f"{self.code}:{realm}:{self._password}"), md5(f"POST:{uri}")
        response = md5(f"{secret}:{nonce}:00000001:{cnonce}:auth:{asked}")
        mark = '"' if self._manners.quoted else ""
        return (
            f'Digest username="{self.code}", realm="{realm}", nonce="{nonce}", uri="{uri}", response="{response}", '
            f'qop={mark}auth{mark}, nc={mark}00000001{mark}, cnonce="{cnonce}", opaque="{opaque}"'
        )

    async def _post(self, path: str, body: bytes, more: str = "") -> Answered:
        headers = f"User-Identify: {self.code}\r\nContent-Type: {self._manners.media}\r\n{more}"
        return await self.connection.ask("POST", path, body, headers)

    async def post(self, kind: str, body: bytes) -> Answered:
        """Send objects (``MotorVehicles``), registering before where it has to be. Raises `OSError`."""
        if not self.registered and not await self.register():
            raise ConnectionError("not registered")
        answer = await self._post(f"/VIID/{kind}", body)
        if answer.status == 401:
            self.registered = False
            if await self.register():
                answer = await self._post(f"/VIID/{kind}", body)
        return answer

    async def alive(self) -> Answered:
        """Send a sign of life."""
        return await self.post("System/Keepalive", json.dumps({"KeepaliveObject": {"DeviceID": self.code}}).encode())

    async def leave(self) -> None:
        """Unregister and close."""
        if self.registered:
            with contextlib.suppress(OSError):
                word = "Unregister" if self._manners.lower else "UnRegister"
                body: dict[str, Any] = {"UnRegisterObject": {"DeviceID": self.code}}
                await self._post(f"/VIID/System/{word}", json.dumps(body).encode())
        self.registered = False
        self.connection.close()
