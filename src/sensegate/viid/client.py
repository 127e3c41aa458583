"""A client of GA/T 1400: registers by HTTP Digest, then asks under its User-Identify; takes any statuses."""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from sensegate.errors import PermissionDenied, Unavailable
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_responses import ObjectResult
from sensegate.viid.password_digests import MD5, SHA256, digest

TIMEOUT_S: Final = 30.0
ANSWER_BYTES_MAX: Final = 8 * 1024**2
_PART = re.compile(r'([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^,\s]+))')


class TooLarge(PermissionDenied):
    """The other side takes no body of this size."""


class ViidClient:
    """One way to one platform."""

    def __init__(
        self,
        url: str,
        code: str,
        *,
        user: str = "",
        password: str = "",
        ca_file: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`code`: our own there, by which we are known."""
        self.url = url.rstrip("/")
        self.code = code
        self._user = user or code
        self._password = password
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def addresses(self) -> frozenset[str]:
        """Return the addresses of the platform. Raises `Unavailable`."""
        parts = urlsplit(self.url)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname or "", parts.port or 80)
        except OSError as why:
            raise Unavailable(f"{parts.hostname}: {why.strerror or why}") from why
        return frozenset(str(place[0]) for *_, place in found)

    async def register(self) -> None:
        """Register. Raises `PermissionDenied`, `Unavailable`."""
        await self._system("Register")

    async def unregister(self) -> None:
        """Take leave. Raises `PermissionDenied`, `Unavailable`."""
        await self._system("UnRegister")

    async def keepalive(self) -> None:
        """Give a sign of life. Raises `PermissionDenied` (register again), `Unavailable`."""
        _good(await self.send("POST", "/VIID/System/Keepalive", {"KeepaliveObject": {"DeviceID": self.code}}))

    async def _system(self, what: str) -> None:
        path = f"/VIID/System/{what}"
        body = msgspec.json.encode({f"{what}Object": {"DeviceID": self.code}})
        status, raw, challenges = await self._ask("POST", path, body)
        if status == 401 and challenges:
            header = self._proof("POST", path, challenges)
            status, raw, _ = await self._ask("POST", path, body, {"Authorization": header})
        _good(_read(status, raw))

    async def send(self, method: str, path: str, tree: object) -> list[ObjectResult]:
        """Send objects; return what is said of each.

        Raises:
            PermissionDenied: not registered any more. TooLarge. Unavailable: no answer, or the other side cannot just
                now.
        """
        status, raw, _ = await self._ask(method, path, msgspec.json.encode(tree))
        return _read(status, raw)

    async def get(self, path: str) -> bytes:
        """Read something. Raises as `send`."""
        status, raw, _ = await self._ask("GET", path, None)
        if status != 200:
            _read(status, raw)
            raise PermissionDenied(f"status {status}")
        return raw

    async def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, Sequence[str]]:
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=self._timeout)
        sent = {
            "User-Identify": self.code,
            "Content-Type": f"{answers.MEDIA};charset=UTF-8",
            "Accept": "application/json",
            **(headers or {}),
        }
        try:
            async with self._http.request(
                method, self.url + path, data=body, headers=sent, ssl=self._tls or True, allow_redirects=False
            ) as response:
                raw = await response.content.read(ANSWER_BYTES_MAX)
                return response.status, raw, response.headers.getall("WWW-Authenticate", [])
        except (aiohttp.ClientError, OSError, TimeoutError) as why:
            raise Unavailable(f"{urlsplit(self.url).netloc}: {type(why).__name__}") from why

    def _proof(self, method: str, path: str, challenges: Sequence[str]) -> str:
        """Return the header that answers the best of the challenges."""
        said: dict[str, str] = {}
        for line in challenges:
            scheme, _, rest = line.partition(" ")
            parts = {name.lower(): quoted or bare for name, quoted, bare in _PART.findall(rest)}
            algorithm = parts.get("algorithm", MD5).upper() if scheme.lower() == "digest" else ""
            if algorithm == SHA256 or (algorithm == MD5 and not said):
                said = parts
        if not said:
            raise PermissionDenied("the platform offers no digest that we know", authenticated=False)
        algorithm = said.get("algorithm", MD5).upper()
        realm, nonce, cnonce, count = said.get("realm", ""), said.get("nonce", ""), secrets.token_hex(8), "00000001"
        secret = digest(algorithm, f"{self._user}:{realm}:{self._password}")
        asked = digest(algorithm, f"{method}:{path}")
        qop = "auth" if "auth" in said.get("qop", "") else ""
        middle = f"{count}:{cnonce}:{qop}:" if qop else ""
        response = digest(algorithm, f"{secret}:{nonce}:{middle}{asked}")
        header = (
            f'Digest username="{self._user}", realm="{realm}", nonce="{nonce}", uri="{path}", response="{response}"'
        )
        if said.get("opaque"):
            header += f', opaque="{said["opaque"]}"'
        if qop:
            header += f', qop={qop}, nc={count}, cnonce="{cnonce}"'
        return header if "algorithm" not in said else f"{header}, algorithm={algorithm}"


def _read(status: int, raw: bytes) -> list[ObjectResult]:
    told = answers.parse_response(raw)
    why = f"{told[0].code}" if told else ""
    if status in {401, 403}:
        raise PermissionDenied(f"status {status} {why}", authenticated=status != 401)
    if status == 413:
        raise TooLarge("status 413")
    if status >= 500 or status in {408, 429} or (told is None and status < 400):
        raise Unavailable(f"status {status} {why}")
    return told or [ObjectResult("", answers.OTHER_ERROR, f"status {status}")]


def _good(told: Sequence[ObjectResult]) -> None:
    bad = [item for item in told if item.code != answers.OK]
    if bad:
        raise PermissionDenied(f"status code {bad[0].code}", authenticated=False)
