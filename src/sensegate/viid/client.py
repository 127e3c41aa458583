"""A GA/T 1400 client: registers by HTTP Digest, then sends requests with its User-Identify."""

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

from sensegate.authority.http_bodies import read_body
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_responses import ObjectResult
from sensegate.viid.password_digests import MD5, SHA256, digest

TIMEOUT_S: Final = 30.0
RESPONSE_BYTES_MAX: Final = 8 * 1024**2
_PART = re.compile(r'([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^,\s]+))')


class PayloadTooLarge(PermissionDenied):
    """The platform rejects the size of the request body."""


class ViidClient:
    """A connection to a platform."""

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
        """`code` is the id of this gateway at the platform."""
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
            infos = await asyncio.get_running_loop().getaddrinfo(parts.hostname or "", parts.port or 80)
        except OSError as why:
            raise Unavailable(f"{parts.hostname}: {why.strerror or why}") from why
        return frozenset(str(address[0]) for *_, address in infos)

    async def register(self) -> None:
        """Register. Raises `PermissionDenied`, `Unavailable`."""
        await self._system("Register")

    async def unregister(self) -> None:
        """Unregister. Raises `PermissionDenied`, `Unavailable`."""
        await self._system("UnRegister")

    async def keepalive(self) -> None:
        """Send a keep-alive. Raises `PermissionDenied` (register again), `Unavailable`."""
        _require_ok(await self.send("POST", "/VIID/System/Keepalive", {"KeepaliveObject": {"DeviceID": self.code}}))

    async def _system(self, operation: str) -> None:
        path = f"/VIID/System/{operation}"
        body = msgspec.json.encode({f"{operation}Object": {"DeviceID": self.code}})
        status, raw, challenges = await self._request("POST", path, body)
        if status == 401 and challenges:
            header = self._proof("POST", path, challenges)
            status, raw, _ = await self._request("POST", path, body, {"Authorization": header})
        _require_ok(_parse_results(status, raw))

    async def send(self, method: str, path: str, tree: object) -> list[ObjectResult]:
        """Send objects; return the result of each.

        Raises:
            PermissionDenied: no longer registered. PayloadTooLarge. Unavailable: no answer, or the platform is
                busy.
        """
        status, raw, _ = await self._request(method, path, msgspec.json.encode(tree))
        return _parse_results(status, raw)

    async def get(self, path: str) -> bytes:
        """Return the body of a resource. Raises as `send`."""
        status, raw, _ = await self._request("GET", path, None)
        if status != 200:
            _parse_results(status, raw)
            raise PermissionDenied(f"status {status}")
        return raw

    async def _request(
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
                raw = await read_body(response.content, RESPONSE_BYTES_MAX)
                return response.status, raw, response.headers.getall("WWW-Authenticate", [])
        except (aiohttp.ClientError, OSError, TimeoutError) as why:
            raise Unavailable(f"{urlsplit(self.url).netloc}: {type(why).__name__}") from why

    def _proof(self, method: str, path: str, challenges: Sequence[str]) -> str:
        """Return the `Authorization` header for the strongest supported challenge."""
        challenge: dict[str, str] = {}
        for line in challenges:
            scheme, _, rest = line.partition(" ")
            parts = {name.lower(): quoted or bare for name, quoted, bare in _PART.findall(rest)}
            algorithm = parts.get("algorithm", MD5).upper() if scheme.lower() == "digest" else ""
            if algorithm == SHA256 or (algorithm == MD5 and not challenge):
                challenge = parts
        if not challenge:
            raise PermissionDenied("the platform offers no supported digest algorithm", authenticated=False)
        algorithm = challenge.get("algorithm", MD5).upper()
        realm, nonce, cnonce, count = (
            challenge.get("realm", ""),
            challenge.get("nonce", ""),
            secrets.token_hex(8),
            "00000001",
        )
        secret = digest(algorithm, f"{self._user}:{realm}:{self._password}")
        request_hash = digest(algorithm, f"{method}:{path}")
        qop = "auth" if "auth" in challenge.get("qop", "") else ""
        nonce_part = f"{count}:{cnonce}:{qop}:" if qop else ""
        response = digest(algorithm, f"{secret}:{nonce}:{nonce_part}{request_hash}")
        header = (
            f'Digest username="{self._user}", realm="{realm}", nonce="{nonce}", uri="{path}", response="{response}"'
        )
        if challenge.get("opaque"):
            header += f', opaque="{challenge["opaque"]}"'
        if qop:
            header += f', qop={qop}, nc={count}, cnonce="{cnonce}"'
        return header if "algorithm" not in challenge else f"{header}, algorithm={algorithm}"


def _parse_results(status: int, raw: bytes) -> list[ObjectResult]:
    results = answers.parse_response(raw)
    code = f"{results[0].code}" if results else ""
    if status in {401, 403}:
        raise PermissionDenied(f"status {status} {code}", authenticated=status != 401)
    if status == 413:
        raise PayloadTooLarge("status 413")
    if status >= 500 or status in {408, 429} or (results is None and status < 400):
        raise Unavailable(f"status {status} {code}")
    return results or [ObjectResult("", answers.OTHER_ERROR, f"status {status}")]


def _require_ok(results: Sequence[ObjectResult]) -> None:
    failed = [item for item in results if item.code != answers.OK]
    if failed:
        raise PermissionDenied(f"status code {failed[0].code}", authenticated=False)
