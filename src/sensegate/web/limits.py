"""What aiohttp does not limit by itself: the time to send a request's head, and open connections."""

from __future__ import annotations

import asyncio

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
"""A connection that takes nothing of what is sent for so long is cut; a subscriber's cursor stays valid."""
HEADERS_MAX = 64


class Gate:
    """Makes the protocol of each connection; counts them and refuses those beyond `connections_max`.

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
        answers_cut: bool = False,
    ) -> None:
        """`answers_cut`: a sender that ends amid a body still gets an answer; its read raises `ConnectionError`."""
        self.server = server
        self.connections_max = connections_max
        self.header_timeout_s = header_timeout_s
        self.stall_s = stall_s
        self.answers_cut = answers_cut
        self.open = 0

    def __call__(self) -> RequestHandler:
        return _Limited(self)


class _Limited(RequestHandler):
    __slots__ = ("_body", "_counted", "_gate", "_head_deadline", "_stall")

    def __init__(self, gate: Gate) -> None:
        super().__init__(
            gate.server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGERING_S,
            max_headers=HEADERS_MAX,
            access_log=None,  # type: ignore[arg-type] # aiohttp's own way to switch it off
            auto_decompress=False,  # a compressed body could outgrow every limit: it is refused by its header
        )
        self._gate = gate
        self._body: StreamReader | None = None
        """Of the newest request."""
        self._counted = False
        self._head_deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._gate.open >= self._gate.connections_max:
            metrics.LIMIT_HITS.labels("http_connections").inc()
            assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for the type checker
            transport.write(_FULL)
            transport.close()
            self._manager = None  # what makes connection_lost() and data_received() do nothing
            self._force_close = True
            return
        self._gate.open += 1
        self._counted = True
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._gate.open -= 1
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

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio asks for it, aiohttp says nothing
        if not self._gate.answers_cut or self.transport is None or self.transport.get_extra_info("ssl_object"):
            return None  # TLS has no half of a connection
        if self._body is None or self._body.is_eof():
            return None
        self._body.set_exception(ConnectionError("the body ended before its end"))
        self._body.feed_eof()  # nothing more is waited for
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
        message: str | None = None,  # noqa: ARG002 - says more than a stranger should know
    ) -> web.StreamResponse:
        """Answer what never became a request of ours (a malformed head), or a bug; details stay in the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; it can only be cut off")
        if status == 500:
            _log.error(
                "a request met a bug", request=request.get(problems.REQUEST_ID, ""), path=request.path, exc_info=exc
            )
        else:
            metrics.LIMIT_HITS.labels("http_malformed").inc()
        said = "not an HTTP request that we understand" if status == 400 else "a bug; the log knows it by this id"
        response = problems.answer(status, said, request_id=request.get(problems.REQUEST_ID, ""))
        response.force_close()
        return response
