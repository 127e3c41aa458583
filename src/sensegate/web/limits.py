"""Limits that aiohttp lacks: the time to send a request head, stalled responses, open connections by address."""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import StrEnum
from typing import cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler

from sensegate import metrics
from sensegate.authority.attempts import network_of
from sensegate.web import problems
from sensegate.web.quotas import RETRY_AFTER_S

_log = structlog.get_logger(__name__)

KEEPALIVE_S = 75.0
LINGERING_S = 2.0
STALL_S = 10.0
"""A connection that reads nothing for this long is closed; a subscriber's cursor stays valid."""
STALL_ROUNDS = 20
"""Rounds of the event loop after `STALL_S` in which what arrived meanwhile is still seen: a process that did not run
for a while has read nothing itself, and must not take its subscribers for dead."""
HEADERS_MAX = 64


RESERVED_MAX = 64
"""Most reserved connections; with fewer than 1,024 connections in all, a sixteenth of them."""
RESERVED_PER_ADDRESS_MAX = 4
RESERVED_TIMEOUT_S = 2.0
"""Time limit for a request head, and for a body, on a reserved connection."""


class ConnectionPlace(StrEnum):
    """Terms on which a connection is accepted."""

    ORDINARY = "ordinary"
    RESERVED = "reserved"
    """Served only to health checks, to those who sign in and to administrators, and closed after one response."""
    ADDRESS_FULL = "address_full"
    ALL_FULL = "all_full"


class ConnectionPlaces:
    """The places of a listener's connections: in all, by address, and a reserve for health and administrators.

    Addresses of one IPv6 /64 count as one: a single host may use them all.
    """

    def __init__(self, section: str, connections_max: int, per_address_max: int = 0, *, has_reserve: bool) -> None:
        """`section`: that of the configuration, for errors; `per_address_max`: 0: half of all."""
        self._section = section
        self._reserve = min(RESERVED_MAX, connections_max // 16) if has_reserve else 0
        self._ordinary = connections_max - self._reserve
        self._per_address = min(per_address_max or max(1, connections_max // 2), connections_max)
        self._taken: dict[ConnectionPlace, Counter[str]] = {
            ConnectionPlace.ORDINARY: Counter(),
            ConnectionPlace.RESERVED: Counter(),
        }
        self._refusals = {
            ConnectionPlace.ADDRESS_FULL: _refusal(
                429,
                f"your address has {self._per_address} connections open ({section}.connections_per_address_max); "
                "close some, or wait until some are closed",
            ),
            ConnectionPlace.ALL_FULL: _refusal(
                503, f"all {connections_max} connections are in use ({section}.connections_max); try again later"
            ),
        }

    def take(self, address: str) -> ConnectionPlace:
        """Take a place for a connection from an address, if there is one."""
        address = network_of(address)
        ordinary, reserved = self._taken[ConnectionPlace.ORDINARY], self._taken[ConnectionPlace.RESERVED]
        is_full = ordinary.total() >= self._ordinary
        if not is_full and ordinary[address] < self._per_address:
            place = ConnectionPlace.ORDINARY
        elif reserved.total() < self._reserve and reserved[address] < RESERVED_PER_ADDRESS_MAX:
            place = ConnectionPlace.RESERVED
        else:
            refused = ConnectionPlace.ALL_FULL if is_full else ConnectionPlace.ADDRESS_FULL
            metrics.LIMIT_HITS.labels(f"{self._section}_connections_{refused}").inc()
            return refused
        self._taken[place][address] += 1
        return place

    def leave(self, place: ConnectionPlace, address: str) -> None:
        """Give a taken place back."""
        address = network_of(address)
        taken = self._taken[place]
        taken[address] -= 1
        if not taken[address]:
            del taken[address]

    def refusal(self, place: ConnectionPlace) -> bytes:
        """Return the response to a connection without a place."""
        return self._refusals[place]


def _refusal(status: int, detail: str) -> bytes:
    body = problems.body_of_status(status, detail)
    head = (
        f"HTTP/1.1 {status} {problems.title_of(status)}\r\nContent-Type: {problems.CONTENT_TYPE}\r\n"
        f"Retry-After: {round(RETRY_AFTER_S)}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def is_reserved(request: web.BaseRequest) -> bool:
    """Return whether a request came over a reserved connection."""
    protocol = request.protocol
    return isinstance(protocol, LimitedConnection) and protocol.place is ConnectionPlace.RESERVED


class ConnectionGate:
    """Protocol factory that rejects connections without a place.

    A connection whose next request head is not complete `header_timeout_s` after its first byte (or after the
    connection was opened) is closed.
    """

    def __init__(
        self,
        server: web.Server,
        *,
        places: ConnectionPlaces,
        header_timeout_s: float,
        stall_s: float,
        reports_truncation: bool = False,
    ) -> None:
        """`reports_truncation`: a client that closes amid a body gets a response; reading raises `ConnectionError`."""
        self.server = server
        self.places = places
        self.header_timeout_s = header_timeout_s
        self.stall_s = stall_s
        self.reports_truncation = reports_truncation

    def __call__(self) -> RequestHandler:
        return LimitedConnection(self)


class LimitedConnection(RequestHandler):
    """A connection with a place, and with time limits for the request head and for a client that reads nothing."""

    __slots__ = ("_address", "_body", "_gate", "_head_deadline", "_stall", "place")

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
        self._address = ""
        self.place: ConnectionPlace | None = None
        """Taken while the connection is open."""
        self._head_deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        place = self._gate.places.take(self._address)
        if place in {ConnectionPlace.ALL_FULL, ConnectionPlace.ADDRESS_FULL}:
            # Not asserted: the transports of uvloop do not derive from those of asyncio.
            cast("asyncio.WriteTransport", transport).write(self._gate.places.refusal(place))
            transport.close()
            self._manager = None  # makes connection_lost() and data_received() do nothing
            self._force_close = True
            return
        self.place = place
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.place is not None:
            self._gate.places.leave(self.place, self._address)
            self.place = None
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

    def _stalled(self, rounds: int = 0) -> None:
        if rounds < STALL_ROUNDS:
            self._stall = asyncio.get_running_loop().call_soon(self._stalled, rounds + 1)
            return
        self._stall = None
        metrics.LIMIT_HITS.labels("http_stalled").inc()
        if self.transport is not None:
            self.transport.abort()

    def _await_head(self) -> None:
        timeout_s = self._gate.header_timeout_s
        if self.place is ConnectionPlace.RESERVED:
            timeout_s = min(timeout_s, RESERVED_TIMEOUT_S)
        self._head_deadline = asyncio.get_running_loop().call_later(timeout_s, self._too_slow)

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
