"""`GET /api/v1/feeds/{feed}/ws`: a feed by WebSocket, as fast as the subscriber asks for it.

The subscriber gives credit, a number of records; never are more sent than it gave. Each message holds some records
and `next`, the cursor after them; without records it is a sign of life. Commands are ``{"credit": N}``: N records more.
What ends the delivery is said as ``{"problem": {…}}`` before the connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from sensegate import metrics
from sensegate.authority.scope import Action
from sensegate.errors import Overloaded, PermissionDenied, SensegateError, combined
from sensegate.share.consumers import ConsumerInfo
from sensegate.share.delivery import Page
from sensegate.share.pages import Pages
from sensegate.web import problems
from sensegate.web.feeds import HEARTBEAT_S, SELECT, asked_of, still_of
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Param, Route

CREDIT = 1_000
"""Records a subscriber gets before it has to give credit, unless `credit` says otherwise."""
CREDIT_MAX = 1_000_000
MESSAGE_RECORDS_MAX = 500
"""So a message stays below the MiB that common clients take at most."""
COMMAND_BYTES_MAX = 4_096
COMMANDS_PER_S = 100.0
"""More commands than this, over ten seconds, end the connection."""
PROTOCOL = "sensegate.v1"
_CLOSE = {401: WSCloseCode.POLICY_VIOLATION, 403: WSCloseCode.POLICY_VIOLATION, 404: WSCloseCode.POLICY_VIOLATION}


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    credit: int


class Credit:
    """How many records may still be sent."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._more = asyncio.Event()

    def give(self, count: int) -> None:
        """Add credit. Raises `BadRequest`: not 1 to `CREDIT_MAX`, or too much in all."""
        if not 1 <= count <= CREDIT_MAX or self.left + count > CREDIT_MAX:
            raise BadRequest(f"credit: {count} with {self.left} left; 1 to {CREDIT_MAX}, and no more in all")
        self.left += count
        self._more.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when some was given, or after a time."""
        self._more.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._more.wait()
        except TimeoutError:
            return


def same_origin(call: Call) -> bool:
    """Return whether no page of another site asks: browsers name the page's origin."""
    origin = call.request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == call.request.host


async def _ws(call: Call) -> Any:
    share, form = call.deps.share, call.text("form", "json")
    if form not in {"json", "msgpack"}:
        raise BadRequest(f"query: form: '{form[:20]}'; json or msgpack")
    if not same_origin(call):
        raise PermissionDenied("a page of another site may not open this", authenticated=True)
    request = asked_of(call, call.text("after"))
    credit = Credit(call.whole("credit", CREDIT, CREDIT_MAX))
    # What is refused is refused here, before the upgrade.
    pages = await share.open_pages(still_of(call), request, form=form)
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=COMMAND_BYTES_MAX, compress=False
    )
    if not socket.can_prepare(call.request).ok:
        raise BadRequest("this is a WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`", status=426)
    await socket.prepare(call.request)
    metered = partial(share.count, call.principal, request.feed, "ws")
    metered(requests=1, records=0, size=0)
    metrics.STREAMS.inc()
    with call.deps.roll.registered(call.principal.id, request.feed, "ws") as standing:

        def covered(page: Page) -> AbstractAsyncContextManager[None]:
            return share.reserve(call.principal, request.feed, "ws", page.count, page.grant)

        def took(page: Page) -> None:
            standing.delivered(page.count, call.deps.clock.now())
            metered(requests=0, records=page.count, size=len(page.body), grant=page.grant)

        try:
            async with asyncio.TaskGroup() as both:
                sending = both.create_task(_send(socket, pages, credit, form, covered, took, standing))
                await _listen(socket, credit)
                sending.cancel()
        except* SensegateError as why:
            await _end(call, socket, combined(why))
        except* ConnectionError:
            pass  # the subscriber has gone; its cursor stays valid
        finally:
            metrics.STREAMS.dec()
    return socket


async def _send(  # noqa: PLR0917 - the ends of one connection
    socket: web.WebSocketResponse,
    pages: Pages,
    credit: Credit,
    form: str,
    covered: Callable[[Page], AbstractAsyncContextManager[None]],
    took: Callable[[Page], None],
    standing: ConsumerInfo,
) -> None:
    """Send what the credit allows until cancelled."""
    loop = asyncio.get_running_loop()
    opcode = WSMsgType.TEXT if form == "json" else WSMsgType.BINARY
    spoken = loop.time()
    following = ""
    while True:
        standing.offset = pages.place
        standing.state, standing.reason = ("live", "") if credit.left else ("waiting", "it has given no credit")
        if credit.left:
            page = await pages.next(min(credit.left, MESSAGE_RECORDS_MAX))
            following = page.next
            if page.count:
                credit.left -= page.count
                async with covered(page):
                    await socket.send_frame(page.body, opcode)
                    took(page)
                spoken = loop.time()
        else:
            await credit.wait(1.0)
            pages.check()
        if loop.time() - spoken >= HEARTBEAT_S:
            alive = {"records": [], "next": following, "credit": credit.left}
            encode = msgspec.json.encode if form == "json" else msgspec.msgpack.encode
            await socket.send_frame(encode(alive), opcode)
            spoken = loop.time()


async def _listen(socket: web.WebSocketResponse, credit: Credit) -> None:
    """Take commands until the subscriber closes.

    Raises:
        BadRequest: something that is no command.
        Overloaded: too many of them.
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
                raise BadRequest(f"{message.type.name}: not a command")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
            raise BadRequest(f'command: {why}; send {{"credit": N}}') from None
        credit.give(command.credit)


async def _end(call: Call, socket: web.WebSocketResponse, why: BaseException) -> None:
    """Say why, then close."""
    assert isinstance(why, SensegateError)  # noqa: S101 - for the type checker
    if socket.closed:
        return
    try:
        await socket.send_frame(b'{"problem":%s}' % problems.body_of(why, call.request_id), WSMsgType.TEXT)
        code = _CLOSE.get(problems.status_of(why), WSCloseCode.INVALID_TEXT if isinstance(why, BadRequest) else None)
        await socket.close(code=code or WSCloseCode.TRY_AGAIN_LATER)
    except ConnectionError:
        return


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/feeds/{{feed}}/ws",
        call=_ws,
        what='The same by WebSocket; give credit as {"credit": N}, go on with `after`.',
        tag="feeds",
        action=Action.READ_READINGS,
        query=(
            *SELECT,
            Param("form", "json (text messages) or msgpack (columns, binary); default json"),
            Param("credit", "records to begin with, default 1,000", "integer"),
        ),
        media=("application/json", "application/vnd.msgpack"),
        status=101,
        errors=(404, 410, 426),
    ),
)
