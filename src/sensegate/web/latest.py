"""REST: the last values of a feed, by page and as a stream of changes."""

from __future__ import annotations

from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.share.latest import FORMS, LatestReader, LatestRequest
from sensegate.web import record_query
from sensegate.web.bodies import LatestRecords
from sensegate.web.feeds import HEARTBEAT_S, current_principal_of, send_events
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, RECORD_LIMIT, Call, QueryParam, Route

LATEST = PartKey[LatestReader]("latest", absent="this gateway holds no last values")
INTERVAL_S = 0.5
"""A value that changes more often is sent once in this time by a stream."""


def _request(call: Call) -> LatestRequest:
    return LatestRequest(
        call.path("feed"), record_query.filter_of(call), call.text("after"), record_query.fields_of(call)
    )


async def _latest(call: Call) -> web.Response:
    """Get the last value of every series; `cursor` is that of the log up to which they hold."""
    share = call.deps.share
    form, media = record_query.media_of(call)
    if form not in FORMS:
        raise BadRequest(f"Accept: {media} has no last values; use one of {', '.join(_MEDIA)}", status=406)
    request, limit = _request(call), call.integer("limit", 1_000, call.deps.config.page_max)
    page = await call.part(LATEST).page(call.principal, request, form=form, limit=limit)
    call.demand_credential()
    caller, size = call.principal, len(page.body)
    async with share.reserve(caller, request.feed, form, page.count, page.grant):
        share.count(caller, request.feed, form, requests=1, records=page.count, size=size, grant=page.grant)
    headers = {"X-Count": str(page.count), "X-Cursor": page.cursor}
    if page.next:
        headers["X-Next-Cursor"] = page.next
        headers["Link"] = f'<{call.request.rel_url.update_query(after=page.next)}>; rel="next"'
    if form == "csv":
        headers["Content-Disposition"] = f'attachment; filename="{request.feed}-latest.csv"'
    return web.Response(body=page.body, content_type=media, headers=headers, charset="utf-8" if form == "csv" else None)


async def _stream(call: Call) -> web.StreamResponse:
    """Stream last values as server-sent events: all first, then each that changed, as it is then."""
    request = _request(call)
    stream = await call.part(LATEST).open_stream(
        current_principal_of(call), request, heartbeat_s=HEARTBEAT_S, interval_s=INTERVAL_S
    )
    with call.deps.consumers.registered(call.principal.id, request.feed, "sse") as consumer:
        return await send_events(call, request.feed, stream, consumer)


_MEDIA = tuple(record_query.MEDIA_TYPES[form] for form in FORMS)
_FIELDS = tuple(param for param in record_query.PAGE_PARAMS if param.name == "fields")
_FILTERS = (*record_query.ORIGIN_PARAMS, record_query.CHANNEL_PARAM, *record_query.PERIOD_PARAMS, *_FIELDS)
_READ = Action.READ_READINGS
ROUTES = tagged(
    "feeds",
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/latest",
        _latest,
        action=_READ,
        query=(
            *_FILTERS,
            RECORD_LIMIT,
            QueryParam("after", "`next` of the previous page"),
        ),
        response=LatestRecords,
        media=_MEDIA,
        errors=(404, 406, 410),
    ),
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/latest/stream",
        _stream,
        action=_READ,
        query=_FILTERS,
        media=("text/event-stream",),
        errors=(404,),
    ),
)
