"""A port behind which an application is served, each connection within the limits of `limits.Gate`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial

from aiohttp import web

from sensegate.bus.free_ports import listen, url_host
from sensegate.errors import ConfigError
from sensegate.web import limits

SHUTDOWN_S = 2.0
"""So long may answers take that are under way when it stops."""


class Listener:
    """One port, on one or several addresses."""

    def __init__(
        self,
        setting: str,
        *,
        connections_max: int,
        header_timeout_s: float,
        handshake_timeout_s: float | None = None,
        answers_cut: bool = False,
    ) -> None:
        """`setting`: the port's, for errors. `handshake_timeout_s`: of TLS. The others as `limits.Gate` has them."""
        self._setting = setting
        self._connections_max = connections_max
        self._header_timeout_s = header_timeout_s
        self._handshake_timeout_s = handshake_timeout_s
        self._answers_cut = answers_cut
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self, app: web.Application, hosts: Sequence[str], port: int, context: ssl.SSLContext | None) -> str:
        """Listen, by port 0 on a free one; return the base URL. Raises `ConfigError`."""
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 - there after setup()
        gate = limits.Gate(
            server,
            connections_max=self._connections_max,
            header_timeout_s=self._header_timeout_s,
            stall_s=limits.STALL_S,
            answers_cut=self._answers_cut,
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
                remedy="choose a free one, or 0",
            ) from why
        return f"{'https' if context else 'http'}://{url_host(hosts[0])}:{port}"

    async def stop(self) -> None:
        """Listen no more, end open streams, let short answers finish."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._server = self._runner = None
