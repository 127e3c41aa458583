"""HTTP listener whose connections are limited by `limits.ConnectionGate`."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from aiohttp import http_writer, web

from sensegate.bus.free_ports import listen, url_host
from sensegate.errors import ConfigError, Unavailable
from sensegate.web import limits

SHUTDOWN_S = 2.0
"""Longest time for open responses at shutdown, apart from those that last: they end at once."""


def send_chunks_in_pieces() -> None:
    """Let the HTTP library give a chunk to the transport beside its marks, instead of joining them.

    It joins them below Python 3.12.9, as the `writelines` of asyncio fails in some versions and is no faster in older
    ones. Those older ones do not fail, and uvloop, on which this runs, sends pieces without a copy: a block for a
    hundred subscribers is then copied a hundred times less.
    """
    if sys.version_info < (3, 12):
        http_writer.SKIP_WRITELINES = False


class LastingResponses:
    """Responses that end only with their client or the listener: streams, and requests that wait for records."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_ended = False

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Register the response of the present task while the context lasts. Raises `Unavailable` after the end."""
        if self._is_ended:
            raise Unavailable("the gateway is being stopped; try again in a moment")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - each request is handled in a task
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        """End them: their clients come again, with the cursor of the last record that they have."""
        self._is_ended = True
        for task in self._tasks:
            task.cancel()


class HttpListener:
    """HTTP listener on one port of one or several addresses."""

    def __init__(
        self,
        setting: str,
        *,
        connections_max: int,
        header_timeout_s: float,
        per_address_max: int = 0,
        has_reserve: bool = False,
        handshake_timeout_s: float | None = None,
        reports_truncation: bool = False,
    ) -> None:
        """`setting`: configuration key of the port, for errors; the others as in `limits.ConnectionGate`."""
        self._setting = setting
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._has_reserve = has_reserve
        self._header_timeout_s = header_timeout_s
        self._handshake_timeout_s = handshake_timeout_s
        self._reports_truncation = reports_truncation
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.lasting = LastingResponses()

    async def start(self, app: web.Application, hosts: Sequence[str], port: int, context: ssl.SSLContext | None) -> str:
        """Listen (port 0: on a free one); return the base URL. Raises `ConfigError`."""
        send_chunks_in_pieces()
        # The library waits so long twice: for the end of a handler, then for that of its connection.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S / 2)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 - set by setup()
        gate = limits.ConnectionGate(
            server,
            places=limits.ConnectionPlaces(
                self._setting.partition(".")[0],
                self._connections_max,
                self._per_address_max,
                has_reserve=self._has_reserve,
            ),
            header_timeout_s=self._header_timeout_s,
            stall_s=limits.STALL_S,
            reports_truncation=self._reports_truncation,
        )
        listening = partial(
            asyncio.get_running_loop().create_server,
            gate,
            hosts,
            ssl=context,
            ssl_handshake_timeout=self._handshake_timeout_s if context else None,
            backlog=1_024,
        )
        try:
            self._server, port = await listen(listening, port, hosts[0])
        except OSError as why:
            raise ConfigError(
                f"cannot listen on port {port} of {', '.join(hosts)}: {why}",
                key=self._setting,
                remedy="choose a free port, or 0",
            ) from why
        return f"{'https' if context else 'http'}://{url_host(hosts[0])}:{port}"

    async def stop(self) -> None:
        """Stop listening, end responses that last, let the others finish."""
        if self._server is not None:
            self._server.close()
        self.lasting.end()
        if self._runner is not None:
            await self._runner.cleanup()
        self._server = self._runner = None
