"""REST: feeds, their records by page and as a stream of events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from sensegate import metrics
from sensegate.authority.scope import Action, Principal
from sensegate.errors import ConfigError, PermissionDenied, SensegateError
from sensegate.share.consumers import ConsumerInfo
from sensegate.share.sharing import FeedRequest
from sensegate.web import listing, problems
from sensegate.web.bodies import Feed, NewFeed, Records
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Param, Route

FORMS = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
    "application/vnd.msgpack": "msgpack",
    "application/senml+json": "senml",
    "application/vnd.apache.parquet": "parquet",
}
_MEDIA = {form: media for media, form in FORMS.items()}
HEARTBEAT_S = 15.0
_PIECE = 262_144
"""What one who takes nothing may have waiting, beside what his socket holds."""


def _feed(record: Any) -> Feed:
    return msgspec.convert(record, Feed, from_attributes=True)


async def _list(call: Call) -> Any:
    return listing.answer(call, [_feed(row) for row in call.deps.share.visible(call.principal)], Feed, "name")


async def _get(call: Call) -> Any:
    return _feed(call.deps.share.feed(call.principal, call.path("feed")))


async def _create(call: Call) -> Any:
    return _feed(await call.deps.share.create_feed(call.principal, await call.body(NewFeed)))


async def _change(call: Call) -> Any:
    revision = call.revision() or 0
    present = msgspec.to_builtins(_feed(call.deps.share.feed(call.principal, call.path("feed"))))
    try:
        changes = msgspec.json.decode(await call.raw(), type=dict[str, object])
        wanted = msgspec.convert({**present, **changes, "name": present["name"]} | {"revision": 0}, Feed)
    except (msgspec.ValidationError, msgspec.DecodeError) as why:
        raise BadRequest(f"body: {why}") from None
    if unknown := sorted({*changes} - {*NewFeed.__struct_fields__}):
        raise ConfigError("unknown key", key=unknown[0][:40], remedy=f"known: {', '.join(NewFeed.__struct_fields__)}")
    return _feed(await call.deps.share.change_feed(call.principal, wanted, revision))


async def _delete(call: Call) -> Any:
    await call.deps.share.delete_feed(call.principal, call.path("feed"), call.revision(required=False))
    return web.Response(status=204)


def asked_of(call: Call, after: str) -> FeedRequest:
    """Return what the request wants, going on after a cursor."""
    if after and call.text("since"):
        raise BadRequest("query: give after or since, not both")
    return FeedRequest(
        call.path("feed"),
        after,
        call.time("since"),
        call.words("division"),
        call.words("property"),
        call.words("device"),
    )


def _form(call: Call) -> str:
    """Return the first form that the caller accepts; without a wish JSON.

    Raises:
        BadRequest: none of ours (406).
    """
    accepted = call.request.headers.get("Accept", "*/*").lower()
    for part in accepted.split(","):
        media = part.partition(";")[0].strip()
        if media in FORMS:
            return FORMS[media]
        if media in {"*/*", "application/*", ""}:
            return "json"
        if media == "text/*":
            return "csv"
    raise BadRequest(f"Accept: one of {', '.join(FORMS)}", status=406)


async def _records(call: Call) -> Any:
    config, share = call.deps.config, call.deps.share
    form = _form(call)
    request = asked_of(call, call.text("after"))
    limit = call.whole("limit", 1_000, config.page_max)
    wait_s = call.seconds("wait", 0.0, config.wait_max_s)
    page = await share.page(call.principal, request, form=form, limit=limit, wait_s=wait_s)
    if call.token_ended():
        raise PermissionDenied("the token has ended meanwhile", authenticated=False)
    who, size = call.principal, len(page.body)
    async with share.reserve(who, request.feed, form, page.count, page.grant):
        share.count(who, request.feed, form, requests=1, records=page.count, size=size, grant=page.grant)
    query = {**call.request.query, "after": page.next}
    query.pop("since", None)
    following = call.request.rel_url.with_query(query)
    headers = {"X-Next-Cursor": page.next, "X-Count": str(page.count), "Link": f'<{following}>; rel="next"'}
    if page.grant and (left := share.quota_left(page.grant)) is not None:
        headers["X-Quota-Left"] = str(left)
    if form in {"csv", "parquet"}:
        headers["Content-Disposition"] = f'attachment; filename="{request.feed}.{form}"'
    return web.Response(body=page.body, content_type=_MEDIA[form], headers=headers, charset=_charset(form))


def _charset(form: str) -> str | None:
    return "utf-8" if form == "csv" else None


def still_of(call: Call) -> Callable[[], Principal]:
    """Return what gives the caller as of now, or raises `PermissionDenied`: for an answer that stays open."""
    principal = call.principal

    def still() -> Principal:
        if call.token_ended():
            raise PermissionDenied("the token has ended", authenticated=False)
        return principal

    return still


async def _stream(call: Call) -> Any:
    request = asked_of(call, call.request.headers.get("Last-Event-ID", "") or call.text("after"))
    principal = call.principal
    with call.deps.roll.registered(principal.id, request.feed, "sse") as standing:
        return await _streamed(call, request, standing)


async def _streamed(call: Call, request: FeedRequest, standing: ConsumerInfo) -> Any:
    share, principal, clock = call.deps.share, call.principal, call.deps.clock

    def at(place: Any) -> None:
        standing.offset = place

    # What is refused is refused here, before the answer begins.
    stream = await share.open_stream(still_of(call), request, heartbeat_s=HEARTBEAT_S, at=at)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    metrics.STREAMS.inc()
    try:
        async with aclosing(stream):
            await response.prepare(call.request)
            await response.write(b"retry: 1000\n\n")
            share.count(principal, request.feed, "sse", requests=1, records=0, size=0)
            async for events in stream:
                if not events.count:
                    await _send(response, events.body)
                    continue
                async with share.reserve(principal, request.feed, "sse", events.count, events.grant):
                    await _send(response, events.body)
                    standing.delivered(events.count, clock.now())
                    share.count(
                        principal,
                        request.feed,
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
    """Write in pieces; a subscriber that takes nothing for long is cut by its connection (`limits.STALL_S`)."""
    if len(body) <= _PIECE:
        await response.write(body)
        return
    view = memoryview(body)
    for start in range(0, len(body), _PIECE):
        await response.write(view[start : start + _PIECE])


SELECT = (
    Param("after", "cursor after which to go on"),
    Param("since", "time of arrival from which to begin, or how far back (30m, 1h)"),
    Param("division", "only in these divisions"),
    Param("property", "only these properties"),
    Param("device", "only of these devices"),
)
_READ = Action.READ_READINGS
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/feeds",
        call=_list,
        what="Feeds of which the caller may read anything.",
        tag="feeds",
        action=_READ,
        query=listing.params(Feed),
        answer=list[Feed],
    ),
    Route(
        method="POST",
        path=f"{API}/feeds",
        call=_create,
        what="Make a feed.",
        tag="feeds",
        action=Action.CHANGE_FEEDS,
        body=NewFeed,
        answer=Feed,
        status=201,
        errors=(409,),
    ),
    Route(
        method="GET",
        path=f"{API}/feeds/{{feed}}",
        call=_get,
        what="One feed.",
        tag="feeds",
        action=_READ,
        answer=Feed,
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=f"{API}/feeds/{{feed}}",
        call=_change,
        what="Change a feed of the revision in If-Match; keys of a new feed, all optional.",
        tag="feeds",
        action=Action.CHANGE_FEEDS,
        raw="application/json",
        answer=Feed,
        errors=(404, 412, 428),
    ),
    Route(
        method="DELETE",
        path=f"{API}/feeds/{{feed}}",
        call=_delete,
        what="Remove a feed; its streams end.",
        tag="feeds",
        action=Action.CHANGE_FEEDS,
        status=204,
        errors=(404, 412),
    ),
    Route(
        method="GET",
        path=f"{API}/feeds/{{feed}}/records",
        call=_records,
        what="Records after a cursor, history first, then live; waits for the first.",
        tag="feeds",
        action=_READ,
        query=(
            *SELECT,
            Param("limit", "most records, default 1,000", "integer"),
            Param("wait", "seconds to wait for the first record", "number"),
        ),
        answer=Records,
        media=tuple(FORMS),
        errors=(404, 406, 410),
    ),
    Route(
        method="GET",
        path=f"{API}/feeds/{{feed}}/stream",
        call=_stream,
        what="The same as server-sent events; `id:` is the cursor, `Last-Event-ID` resumes.",
        tag="feeds",
        action=_READ,
        query=SELECT,
        media=("text/event-stream",),
        errors=(404, 410),
    ),
)
