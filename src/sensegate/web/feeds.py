"""REST: feeds, and their records by page and as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
from aiohttp import web

from sensegate import metrics
from sensegate.authority.scope import Action, Principal
from sensegate.errors import ConfigError, PermissionDenied, SensegateError
from sensegate.share.consumers import ConsumerInfo
from sensegate.share.cursor import Cursor
from sensegate.share.delivery import Events
from sensegate.share.feeds import Feed
from sensegate.web import listing, problems, record_query
from sensegate.web.bodies import NewFeed, RecordPage
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, RECORD_LIMIT, Call, QueryParam, Route

HEARTBEAT_S = 15.0
_WRITE_BYTES_MAX = 262_144
"""Largest single write, which bounds what is buffered for a slow subscriber."""


async def _list(call: Call) -> listing.RowPage[Feed]:
    """List the feeds of which the caller may read a part."""
    return listing.page_of(call, call.deps.share.visible(call.principal), Feed, "name")


async def _get(call: Call) -> Feed:
    """Get a feed."""
    return call.deps.share.feed(call.principal, call.path("feed"))


async def _create(call: Call) -> Feed:
    """Create a feed."""
    wanted = msgspec.convert(await call.body(NewFeed), Feed, from_attributes=True)
    return await call.deps.share.create_feed(call.principal, wanted)


async def _change(call: Call) -> Feed:
    """Change a feed of the revision in If-Match; the keys of a new feed, all optional."""
    revision = call.revision() or 0
    present = msgspec.to_builtins(call.deps.share.feed(call.principal, call.path("feed")))
    try:
        changes = msgspec.json.decode(await call.raw_body(), type=dict[str, object])
        wanted = msgspec.convert({**present, **changes, "name": present["name"]} | {"revision": 0}, Feed)
    except (msgspec.ValidationError, msgspec.DecodeError) as why:
        raise BadRequest(f"body: {why}") from None
    if unknown := sorted({*changes} - {*NewFeed.__struct_fields__}):
        raise ConfigError(
            "is unknown", key=unknown[0][:40], remedy=f"use one of {', '.join(NewFeed.__struct_fields__)}"
        )
    return await call.deps.share.change_feed(call.principal, wanted, revision)


async def _delete(call: Call) -> web.Response:
    """Delete a feed; its streams end."""
    await call.deps.share.delete_feed(call.principal, call.path("feed"), call.revision(required=False))
    return web.Response(status=204)


async def _records(call: Call) -> web.Response:
    """Get records after a cursor, in the order of arrival or against it; optionally waits for the first."""
    config, share = call.deps.config, call.deps.share
    form, media = record_query.media_of(call)
    request = record_query.request_of(call, call.text("after"))
    limit = call.integer("limit", 1_000, config.page_max)
    wait_s = call.seconds("wait", 0.0, config.long_poll_max_s)
    page = await share.page(call.principal, request, form=form, limit=limit, wait_s=wait_s)
    call.demand_credential()
    caller, size = call.principal, len(page.body)
    async with share.reserve(caller, request.feed, form, page.count, page.grant):
        share.count(caller, request.feed, form, requests=1, records=page.count, size=size, grant=page.grant)
    headers = {"X-Next-Cursor": page.next, "X-Count": str(page.count)}
    if page.next:
        following = call.request.rel_url.update_query(after=page.next)
        if not request.descending:
            following = following.without_query_params("since")
        headers["Link"] = f'<{following}>; rel="next"'
    if page.grant and (left := share.quota_left(page.grant)) is not None:
        headers["X-Quota-Left"] = str(left)
    if form in {"csv", "parquet"}:
        headers["Content-Disposition"] = f'attachment; filename="{request.feed}.{form}"'
    return web.Response(body=page.body, content_type=media, headers=headers, charset="utf-8" if form == "csv" else None)


def current_principal_of(call: Call) -> Callable[[], Principal]:
    """Return a function to the current principal of an open response, which raises `PermissionDenied`."""
    principal = call.principal

    def current_principal() -> Principal:
        if call.credential_ended():
            raise PermissionDenied("the credential has ended", authenticated=False)
        return principal

    return current_principal


async def _stream(call: Call) -> web.StreamResponse:
    """Stream records as server-sent events; `id:` is the cursor, `Last-Event-ID` resumes."""
    request = record_query.request_of(call, call.request.headers.get("Last-Event-ID", "") or call.text("after"))
    with call.deps.consumers.registered(call.principal.id, request.feed, "sse") as consumer:

        def advance(cursor: Cursor) -> None:
            consumer.offset = cursor

        # Errors are raised here, before the response starts.
        stream = await call.deps.share.open_stream(
            current_principal_of(call), request, heartbeat_s=HEARTBEAT_S, advance=advance
        )
        return await send_events(call, request.feed, stream, consumer)


async def send_events(
    call: Call, feed: str, stream: AsyncGenerator[Events, None], consumer: ConsumerInfo
) -> web.StreamResponse:
    """Send a stream of events and count its records; an error while it lasts is an event of its own."""
    share, principal, clock = call.deps.share, call.principal, call.deps.clock
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    metrics.STREAMS.inc()
    try:
        async with aclosing(stream):
            await response.prepare(call.request)
            await response.write(b"retry: 1000\n\n")
            share.count(principal, feed, "sse", requests=1, records=0, size=0)
            async for events in stream:
                if not events.count:
                    await _send(response, events.body)
                    continue
                async with share.reserve(principal, feed, "sse", events.count, events.grant):
                    await _send(response, events.body)
                    consumer.delivered(events.count, clock.now())
                    share.count(
                        principal,
                        feed,
                        "sse",
                        requests=0,
                        records=events.count,
                        size=len(events.body),
                        grant=events.grant,
                    )
    except SensegateError as why:
        await _send(response, b"event: problem\ndata: %s\n\n" % problems.body_of(why, call.request_id))
    finally:
        metrics.STREAMS.dec()
    return response


async def _send(response: web.StreamResponse, body: bytes) -> None:
    """Write in chunks; a subscriber that reads nothing for long is disconnected (`limits.STALL_S`)."""
    if len(body) <= _WRITE_BYTES_MAX:
        await response.write(body)
        return
    view = memoryview(body)
    for start in range(0, len(body), _WRITE_BYTES_MAX):
        await response.write(view[start : start + _WRITE_BYTES_MAX])


_READ = Action.READ_READINGS
ROUTES = tagged(
    "feeds",
    Route("GET", f"{API}/feeds", _list, action=_READ, query=listing.params(Feed)),
    Route("POST", f"{API}/feeds", _create, action=Action.CHANGE_FEEDS, body=NewFeed, status=201, errors=(409,)),
    Route("GET", f"{API}/feeds/{{feed}}", _get, action=_READ, errors=(404,)),
    Route(
        "PATCH",
        f"{API}/feeds/{{feed}}",
        _change,
        action=Action.CHANGE_FEEDS,
        raw="application/json",
        errors=(404, 412, 428),
    ),
    Route("DELETE", f"{API}/feeds/{{feed}}", _delete, action=Action.CHANGE_FEEDS, status=204, errors=(404, 412)),
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/records",
        _records,
        action=_READ,
        query=(
            *record_query.SELECTION_PARAMS,
            *record_query.PAGE_PARAMS,
            RECORD_LIMIT,
            QueryParam(
                "wait",
                "seconds to wait for the first record",
                "number",
                minimum=0,
                maximum_setting="long_poll_max_s",
            ),
        ),
        response=RecordPage,
        media=tuple(record_query.MEDIA_TYPES.values()),
        errors=(404, 406, 410),
    ),
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/stream",
        _stream,
        action=_READ,
        query=record_query.SELECTION_PARAMS,
        media=("text/event-stream",),
        is_stream=True,
        errors=(404, 410),
    ),
)
