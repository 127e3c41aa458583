"""`GET /api/v1/feeds/{feed}/ws`: a feed by WebSocket with credit-based flow control.

The subscriber grants credit, a number of records, which is never exceeded. Each message has records and `next`, the
cursor after them; without records it is a heartbeat. The command ``{"credit": N}`` adds credit. An error is sent as
``{"problem": {…}}`` before the connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from sensegate import metrics
from sensegate.authority.scope import Action
from sensegate.errors import CancellableTaskGroup, Overloaded, PermissionDenied, SensegateError, combined
from sensegate.share.consumers import ConsumerInfo
from sensegate.share.delivery import FeedPage
from sensegate.share.pages import FeedPages
from sensegate.web import problems
from sensegate.web.feeds import HEARTBEAT_S, current_principal_of
from sensegate.web.problems import BadRequest
from sensegate.web.record_query import SELECTION_PARAMS, request_of
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route

CREDIT = 1_000
"""Initial credit, unless parameter `credit` gives another."""
CREDIT_MAX = 1_000_000
MESSAGE_RECORDS_MAX = 500
"""Keeps a message below 1 MiB, the limit of common clients."""
COMMAND_BYTES_MAX = 4_096
COMMANDS_PER_S = 100.0
"""Most commands a second, over ten seconds, before the connection is closed."""
PROTOCOL = "sensegate.v1"
_CLOSE = {401: WSCloseCode.POLICY_VIOLATION, 403: WSCloseCode.POLICY_VIOLATION, 404: WSCloseCode.POLICY_VIOLATION}


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    credit: int


class Credit:
    """Number of records that may still be sent."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._more = asyncio.Event()

    def add(self, count: int) -> None:
        """Add credit. Raises `BadRequest`: not 1 to `CREDIT_MAX`, or too much in all."""
        if not 1 <= count <= CREDIT_MAX or self.left + count > CREDIT_MAX:
            raise BadRequest(f"credit: {count} with {self.left} left is out of range; give at most {CREDIT_MAX} in all")
        self.left += count
        self._more.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when credit is added, or after a time."""
        self._more.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._more.wait()
        except TimeoutError:
            return


def is_same_origin(call: Call) -> bool:
    """Return whether the request is not made by a page of another site."""
    origin = call.request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == call.request.host


async def _open(call: Call) -> web.StreamResponse:
    """Stream records by WebSocket; grant credit as {"credit": N}, resume with `after`."""
    share, form = call.deps.share, call.text("form", "json")
    if form not in {"json", "msgpack"}:
        raise BadRequest(f"query: form: '{form[:20]}' is unknown; use json or msgpack")
    if not is_same_origin(call):
        raise PermissionDenied("pages of other sites may not open this connection", authenticated=True)
    request = request_of(call, call.text("after"))
    credit = Credit(call.integer("credit", CREDIT, CREDIT_MAX))
    # Errors are raised here, before the upgrade.
    pages = await share.open_pages(current_principal_of(call), request, form=form)
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=COMMAND_BYTES_MAX, compress=False
    )
    if not socket.can_prepare(call.request).ok:
        raise BadRequest("a WebSocket is required; send `Connection: Upgrade` and `Upgrade: websocket`", status=426)
    await socket.prepare(call.request)
    metered = partial(share.count, call.principal, request.feed, "ws")
    metered(requests=1, records=0, size=0)
    metrics.STREAMS.inc()
    with call.deps.consumers.registered(call.principal.id, request.feed, "ws") as consumer:

        def covered(page: FeedPage) -> AbstractAsyncContextManager[None]:
            return share.reserve(call.principal, request.feed, "ws", page.count, page.grant)

        def delivered(page: FeedPage) -> None:
            consumer.delivered(page.count, call.deps.clock.now())
            metered(requests=0, records=page.count, size=len(page.body), grant=page.grant)

        try:
            async with CancellableTaskGroup() as both:
                sending = both.create_task(send_pages(socket, pages, credit, form, covered, delivered, consumer))
                await take_commands(socket, credit)
                sending.cancel()
        except* SensegateError as why:
            await _end(call, socket, combined(why))
        except* ConnectionError:
            pass  # the subscriber has disconnected; its cursor stays valid
        finally:
            metrics.STREAMS.dec()
    return socket


async def send_pages(
    socket: web.WebSocketResponse,
    pages: FeedPages,
    credit: Credit,
    form: str,
    covered: Callable[[FeedPage], AbstractAsyncContextManager[None]],
    delivered: Callable[[FeedPage], None],
    consumer: ConsumerInfo,
) -> None:
    """Send what the credit allows until cancelled.

    Args:
        socket: the open connection.
        pages: the feed.
        credit: number of records that may be sent.
        form: ``json`` or ``msgpack``.
        covered: the context in which a page is sent and its records are reserved.
        delivered: called with each page that was sent.
        consumer: its state is updated.
    """
    loop = asyncio.get_running_loop()
    opcode = WSMsgType.TEXT if form == "json" else WSMsgType.BINARY
    last_sent = loop.time()
    following = ""
    while True:
        consumer.offset = pages.cursor
        consumer.state, consumer.reason = (
            ("live", "") if credit.left else ("waiting", "the subscriber has given no credit")
        )
        if credit.left:
            page = await pages.next(min(credit.left, MESSAGE_RECORDS_MAX))
            following = page.next
            if page.count:
                credit.left -= page.count
                async with covered(page):
                    await socket.send_frame(page.body, opcode)
                    delivered(page)
                last_sent = loop.time()
        else:
            await credit.wait(1.0)
            pages.check()
        if loop.time() - last_sent >= HEARTBEAT_S:
            alive = {"records": [], "next": following, "credit": credit.left}
            encode = msgspec.json.encode if form == "json" else msgspec.msgpack.encode
            await socket.send_frame(encode(alive), opcode)
            last_sent = loop.time()


async def take_commands(socket: web.WebSocketResponse, credit: Credit) -> None:
    """Take commands until the subscriber closes.

    Raises:
        BadRequest: a message is not a command.
        Overloaded: there are too many commands.
    """
    loop = asyncio.get_running_loop()
    began, count = loop.time(), 0
    async for message in socket:
        count += 1
        if count > COMMANDS_PER_S * max(10.0, loop.time() - began):
            raise Overloaded(f"more than {COMMANDS_PER_S:g} commands a second; give more credit at once")
        try:
            if message.type is WSMsgType.TEXT:
                command = msgspec.json.decode(message.data, type=_Command)
            elif message.type is WSMsgType.BINARY:
                command = msgspec.msgpack.decode(message.data, type=_Command)
            else:
                raise BadRequest(f"{message.type.name}: is not a command; send a text or binary message")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
            raise BadRequest(f'command: {why}; send {{"credit": N}}') from None
        credit.add(command.credit)


async def _end(call: Call, socket: web.WebSocketResponse, why: BaseException) -> None:
    """Send the problem document, then close."""
    assert isinstance(why, SensegateError)  # noqa: S101 - for the type checker
    if socket.closed:
        return
    try:
        await socket.send_frame(b'{"problem":%s}' % problems.body_of(why, call.request_id), WSMsgType.TEXT)
        code = _CLOSE.get(problems.status_of(why), WSCloseCode.INVALID_TEXT if isinstance(why, BadRequest) else None)
        await socket.close(code=code or WSCloseCode.TRY_AGAIN_LATER)
    except ConnectionError:
        return


ROUTES = tagged(
    "feeds",
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/ws",
        _open,
        action=Action.READ_READINGS,
        query=(
            *SELECTION_PARAMS,
            QueryParam("form", "json (text messages) or msgpack (columns, binary); default json"),
            QueryParam("credit", "initial credit in records, default 1,000", "integer", minimum=1, maximum=CREDIT_MAX),
        ),
        media=("application/json", "application/vnd.msgpack"),
        status=101,
        is_stream=True,
        errors=(404, 410, 426),
    ),
)
