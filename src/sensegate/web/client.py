"""Client of a gateway's HTTP interface."""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from sensegate.errors import ConfigError, SensegateError, Unavailable

if TYPE_CHECKING:
    import aiohttp

SESSION = "/api/v1/session"
"""Path at which a person signs in, without a token."""
TIMEOUT_S = 90.0
"""Longest wait for a connection, and for the next part of an answer."""


class ProblemResponse(SensegateError):
    """Error response of the gateway: status, title and detail of its problem document."""

    def __init__(self, status: int, title: str, detail: str = "", first: str = "") -> None:
        """`first`: with 410, the cursor to read on from."""
        self.status = status
        self.title = title
        self.detail = detail
        self.first = first
        super().__init__(f"{status} {title}: {detail}" if detail else f"{status} {title}")


class GatewayClient:
    """HTTP client of a gateway for one caller."""

    def __init__(self, url: str, token: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"'{url}' is not an address", key="--url", remedy="give http(s)://HOST:PORT")
        self.url = url.rstrip("/")
        self.token = token.strip()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        import aiohttp  # noqa: PLC0415 - takes a quarter of a second, which other commands need not wait for

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        timeout = aiohttp.ClientTimeout(total=None, connect=TIMEOUT_S, sock_read=TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=_trust())
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        data: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        also: int = 0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """`also`: an error status that is an answer."""
        import aiohttp  # noqa: PLC0415 - see above

        assert self._session is not None, "use `async with`"  # noqa: S101 - an error in the calling code
        try:
            async with self._session.request(
                method, f"{self.url}{path}", params=query or {}, json=body, data=data, headers=headers
            ) as response:
                if response.status >= 400 and response.status != also:
                    why = _problem(response.status, await response.text())
                    if response.status == 401 and not self.token and path != SESSION:
                        raise ProblemResponse(why.status, why.title, f"{why.detail}; give --token or SENSEGATE_TOKEN")
                    raise why
                yield response
        except aiohttp.ClientError as why:
            problem = f"{self.url} does not answer ({getattr(why, 'strerror', None) or why})"
            raise Unavailable(f"{problem}; check that the gateway runs there, or give --url or SENSEGATE_URL") from why
        except TimeoutError as why:
            raise Unavailable(f"{self.url}{path} took more than {TIMEOUT_S:.0f} s") from why

    async def get(self, path: str, **query: str | float) -> Any:
        """Return the JSON document of a path; empty query parameters are left out."""
        parameters = {key: str(value) for key, value in query.items() if value != ""}
        async with self._request("GET", path, query=parameters) as response:
            return await response.json(content_type=None)

    async def readiness(self) -> Any:
        """Return the readiness of the gateway, also where it is not ready."""
        async with self._request("GET", "/readyz", also=503) as response:
            return await response.json(content_type=None)

    async def text(self, path: str, *, accept: str, **query: str) -> tuple[str, Mapping[str, str]]:
        """Return a text and the response headers."""
        async with self._request("GET", path, query=query, headers={"Accept": accept}) as response:
            return await response.text(), response.headers

    async def content(self, path: str, **query: str) -> tuple[bytes, str]:
        """Return the content of a path and the cursor after it."""
        parameters = {key: value for key, value in query.items() if value}
        async with self._request("GET", path, query=parameters) as response:
            return await response.read(), response.headers.get("X-Cursor", "")

    async def post(self, path: str, body: object = None, **query: str) -> Any:
        """Send a JSON document and return the response."""
        async with self._request("POST", path, body=body, query=query) as response:
            return json.loads(await response.text() or "null")

    async def post_text(self, path: str, data: bytes, content_type: str, **query: str) -> Any:
        """Send bytes and return the response."""
        async with self._request(
            "POST", path, data=data, query=query, headers={"Content-Type": content_type}
        ) as response:
            return json.loads(await response.text() or "null")

    async def post_for_lines(self, path: str, data: bytes, content_type: str, **query: str) -> AsyncIterator[Any]:
        """Send bytes and yield the JSON documents of the response, one a line, as they arrive."""
        headers = {"Content-Type": content_type, "Accept": "application/x-ndjson"}
        # Bytes of more than a megabyte would be sent at once, which aiohttp warns of.
        async with self._request("POST", path, data=io.BytesIO(data), query=query, headers=headers) as response:
            async for line in response.content:
                yield json.loads(line)

    async def patch(self, path: str, body: object, revision: int) -> Any:
        """Change a record as of a revision; 0: of one that does not exist yet."""
        headers = {"If-Match": f'"{revision}"'} if revision else {}
        async with self._request("PATCH", path, body=body, headers=headers) as response:
            return json.loads(await response.text() or "null")

    async def put(self, path: str, body: object, revision: int = 0) -> Any:
        """Create or replace a document; `revision`: that of the replaced one, 0: any or none."""
        headers = {"If-Match": f'"{revision}"'} if revision else {}
        async with self._request("PUT", path, body=body, headers=headers) as response:
            return json.loads(await response.text() or "null")

    async def post_at(self, path: str, revision: int) -> Any:
        """Send a request without a body for a record as of a revision."""
        async with self._request("POST", path, headers={"If-Match": f'"{revision}"'}) as response:
            return json.loads(await response.text() or "null")

    async def delete(self, path: str) -> None:
        """Delete a record."""
        async with self._request("DELETE", path):
            pass


def _trust() -> Any:
    """Return the TLS context: the system's authorities or SENSEGATE_CA_FILE, and the client certificate."""
    ca, cert = os.environ.get("SENSEGATE_CA_FILE", ""), os.environ.get("SENSEGATE_CERT_FILE", "")
    if not ca and not cert:
        return True
    from sensegate.bus import trust  # noqa: PLC0415 - needed for https alone

    key = os.environ.get("SENSEGATE_KEY_FILE", "")
    return trust.client_context("SENSEGATE_CA_FILE", ca_file=ca, cert_file=cert, key_file=key)


def _problem(status: int, text: str) -> ProblemResponse:
    try:
        problem = json.loads(text)
    except ValueError:
        return ProblemResponse(status, text[:200])
    if not isinstance(problem, dict):
        return ProblemResponse(status, text[:200])
    texts = (str(problem.get(key, "")) for key in ("title", "detail", "first"))
    return ProblemResponse(status, *texts)
