"""Requests to a gateway at several addresses: retries, fail-over, waiting as the gateway asks."""

from __future__ import annotations

import asyncio
import gzip
import random
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
import msgspec
import zstandard

from sensegate_client.errors import ClientError, QuotaExceeded, Unreachable, response_error

_FIRST_PAUSE_S = 0.1
_PAUSE_MAX_S = 5.0
_AWAY = frozenset({500, 502, 503, 504})
"""Statuses after which another address is tried: this one cannot answer now."""
_BODY_MAX = 1 << 30


class Answer(msgspec.Struct, frozen=True):
    """Successful response."""

    body: bytes
    headers: Mapping[str, str]


class Transport:
    """Connections to the addresses of one gateway, or of two centres of which one is active."""

    def __init__(
        self,
        addresses: Sequence[str],
        token: str,
        *,
        patience_s: float,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`patience_s`: longest time without an answer; `timeout_s`: of one request, beside what it waits for."""
        if not addresses:
            raise ClientError("no address is given; give http(s)://HOST:PORT")
        for address in addresses:
            if not address.startswith(("http://", "https://")):
                raise ClientError(f"'{address}' is not an address; give http(s)://HOST:PORT")
        self._addresses = [address.rstrip("/") for address in addresses]
        self._current = 0
        self._headers = {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        """Address that answered last."""
        return self._addresses[self._current]

    async def open(self) -> None:
        """Open the session, in a running event loop."""
        connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True)
        self._session = aiohttp.ClientSession(
            headers={**self._headers, "Accept-Encoding": "zstd, gzip"}, connector=connector, auto_decompress=False
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, query: Sequence[tuple[str, str]], *, accept: str, wait_s: float = 0.0) -> Answer:
        """Return the answer to a request; `wait_s`: how long the gateway is asked to wait for something to answer.

        Raises:
            Unreachable: no address answered within the patience.
            ResponseError: the gateway refused, one class for each cause.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        failures = 0
        while True:
            reason: Exception
            try:
                return await self._get_once(path, query, accept=accept, timeout_s=self._timeout_s + wait_s)
            except QuotaExceeded as error:
                reason, delay_s = error, max(error.retry_after_s, _FIRST_PAUSE_S)
            except _Away as error:
                reason = error
                self._current = (self._current + 1) % len(self._addresses)
                failures += 1
                if failures % len(self._addresses):
                    delay_s = 0.0
                else:
                    delay_s = random.uniform(pause_s / 2, pause_s)  # noqa: S311 - spreads clients, guards nothing
                    pause_s = min(pause_s * 2, _PAUSE_MAX_S)
            if loop.time() + delay_s > give_up:
                if isinstance(reason, QuotaExceeded):
                    raise reason
                names = ", ".join(self._addresses)
                raise Unreachable(f"{names}: no answer for {self._patience_s:g} s; the last was: {reason}") from reason
            await asyncio.sleep(delay_s)

    async def _get_once(self, path: str, query: Sequence[tuple[str, str]], *, accept: str, timeout_s: float) -> Answer:
        """Ask the current address once. Raises `_Away`, `ResponseError`."""
        if self._session is None:
            raise ClientError("the client is not open; use `async with Client(…)`, or `with SyncClient(…)`")
        try:
            async with self._session.get(
                f"{self.address}{path}",
                params=query,
                headers={"Accept": accept},
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                raw = await response.read()
                headers = response.headers
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _Away(f"{self.address}: {error or type(error).__name__}") from error
        if response.status in _AWAY:
            raise _Away(f"{self.address} answered {response.status}")
        body = await _decoded(raw, headers.get("Content-Encoding", ""))
        if response.status >= 400:
            raise response_error(response.status, body, headers.get("Retry-After", ""))
        return Answer(body, headers)


class _Away(Exception):
    """An address does not answer now."""


_THREAD_BYTES = 262_144
"""Larger bodies are decompressed in a thread, so that the event loop of the caller goes on."""


async def _decoded(raw: bytes, coding: str) -> bytes:
    match coding:
        case "" | "identity":
            return raw
        case "zstd" | "gzip":
            decode = _unzstd if coding == "zstd" else gzip.decompress
            try:
                return await asyncio.to_thread(decode, raw) if len(raw) > _THREAD_BYTES else decode(raw)
            except (zstandard.ZstdError, OSError, EOFError) as error:
                raise _Away(f"the answer cannot be decompressed: {error}") from error
    raise ClientError(f"content coding {coding[:20]} is not supported; a proxy on the path changes answers")


def _unzstd(raw: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(raw, max_output_size=_BODY_MAX)
