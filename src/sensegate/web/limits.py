"""Limits that aiohttp lacks: the time to send a request head, stalled responses, and open connections."""

from __future__ import annotations

import asyncio
from typing import cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler

from sensegate import metrics
from sensegate.web import problems

_FULL_BODY = b'{"title":"Service Unavailable","status":503,"detail":"too many connections; try again"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)
_log = structlog.get_logger(__name__)

KEEPALIVE_S = 75.0
LINGERING_S = 2.0
STALL_S = 10.0
"""A connection that reads nothing for this long is closed; a subscriber's cursor stays valid."""
HEADERS_MAX = 64


class ConnectionGate:
    """Protocol factory that counts connections and rejects those beyond `connections_max`.

    A connection whose next request head is not complete `header_timeout_s` after its first byte (or after the
    connection was opened) is closed.
    """

    def __init__(
        self,
        server: web.Server,
        *,
        connections_max: int,
        header_timeout_s: float,
        stall_s: float,
        reports_truncation: bool = False,
    ) -> None:
        """`reports_truncation`: a client that closes amid a body gets a response; reading raises `ConnectionError`."""
        self.server = server
        self.connections_max = connections_max
        self.header_timeout_s = header_timeout_s
        self.stall_s = stall_s
        self.reports_truncation = reports_truncation
        self.open_connections = 0

    def __call__(self) -> RequestHandler:
        return _LimitedConnection(self)


class _LimitedConnection(RequestHandler):
    __slots__ = ("_body", "_counted", "_gate", "_head_deadline", "_stall")

    def __init__(self, gate: ConnectionGate) -> None:
        super().__init__(
            gate.server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGERING_S,
            max_headers=HEADERS_MAX,
            access_log=None,  # type: ignore[arg-type] # documented by aiohttp as the way to disable it
            auto_decompress=False,  # a compressed body could exceed every limit: rejected by its header
        )
        self._gate = gate
        self._body: StreamReader | None = None
        """Body of the newest request."""
        self._counted = False
        self._head_deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._gate.open_connections >= self._gate.connections_max:
            metrics.LIMIT_HITS.labels("http_connections").inc()
            # Not asserted: the transports of uvloop do not derive from those of asyncio.
            cast("asyncio.WriteTransport", transport).write(_FULL)
            transport.close()
            self._manager = None  # makes connection_lost() and data_received() do nothing
            self._force_close = True
            return
        self._gate.open_connections += 1
        self._counted = True
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._gate.open_connections -= 1
            self._counted = False
        self._head_complete()
        self._moving()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]
        if self._messages or self._request_in_progress:
            self._head_complete()
        elif self._head_deadline is None:
            self._await_head()

    def eof_received(self) -> bool | None:  # type: ignore[override] # required by asyncio, untyped in aiohttp
        if not self._gate.reports_truncation or self.transport is None or self.transport.get_extra_info("ssl_object"):
            return None  # TLS has no half-closed connections
        if self._body is None or self._body.is_eof():
            return None
        self._body.set_exception(ConnectionError("the body is truncated"))
        self._body.feed_eof()  # ends the wait for more
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = asyncio.get_running_loop().call_later(self._gate.stall_s, self._stalled)

    def resume_writing(self) -> None:
        self._moving()
        super().resume_writing()

    def _moving(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _stalled(self) -> None:
        self._stall = None
        metrics.LIMIT_HITS.labels("http_stalled").inc()
        if self.transport is not None:
            self.transport.abort()

    def _await_head(self) -> None:
        self._head_deadline = asyncio.get_running_loop().call_later(self._gate.header_timeout_s, self._too_slow)

    def _head_complete(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _too_slow(self) -> None:
        self._head_deadline = None
        if not self._messages and not self._request_in_progress:
            metrics.LIMIT_HITS.labels("http_header_timeout").inc()
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - would disclose internals
    ) -> web.StreamResponse:
        """Return the response to a malformed head or an unexpected error; details go to the log only."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has started; the connection is closed")
        if status == 500:
            _log.error(
                "request failed with an unexpected error",
                request=request.get(problems.REQUEST_ID, ""),
                path=request.path,
                exc_info=exc,
            )
        else:
            metrics.LIMIT_HITS.labels("http_malformed").inc()
        detail = "the HTTP request is malformed" if status == 400 else "unexpected error; the log has it under this id"
        response = problems.response_of(status, detail, request_id=request.get(problems.REQUEST_ID, ""))
        response.force_close()
        return response
