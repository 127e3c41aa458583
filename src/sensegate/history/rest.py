"""REST: readings of any period, and their aggregates by window."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, demand
from sensegate.clock import DAY_US
from sensegate.config import durations
from sensegate.errors import TooMuch
from sensegate.history.aggregates import DIMENSIONS, FUNCTIONS, Aggregate, is_function
from sensegate.history.downsampling import METHODS
from sensegate.history.observation_counts import DIMENSIONS as COUNTED_BY
from sensegate.history.observation_counts import CountPage, ObservationCounts
from sensegate.history.reader import FIELDS, FORMS, HistoryPage, HistoryReader, HistoryRequest
from sensegate.history.windows import Windows
from sensegate.share.feeds import FeedFilter
from sensegate.web import record_query
from sensegate.web.bodies import RecordPage
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, RECORD_LIMIT, Call, QueryParam, Route, iso

HISTORY = PartKey[HistoryReader]("history", absent="this gateway has no reader of past readings")
COUNTS = PartKey[ObservationCounts]("counts of observations", absent="this gateway counts no observations")
POINTS_MAX = 10_000
_MEDIA = tuple(record_query.MEDIA_TYPES[form] for form in FORMS)


async def _history(call: Call) -> web.Response:
    form, media = record_query.media_of(call)
    if form not in FORMS:
        raise BadRequest(f"Accept: {media} has no history; use one of {', '.join(_MEDIA)}", status=406)
    fields = record_query.fields_of(call)
    if "cursor" in fields:
        raise BadRequest(f"query: fields: a reading of the history has no cursor; use some of {', '.join(FIELDS)}")
    request = HistoryRequest(
        call.path("feed"),
        _filter(call),
        call.text("after"),
        _chosen(call, "order", ("asc", "desc")) == "desc",
        _chosen(call, "revisions", ("last", "all")) == "all",
        fields,
    )
    limit = call.integer("limit", 1_000, call.deps.config.page_max)
    history, points = call.part(HISTORY), call.integer("max_points", 0, POINTS_MAX) if call.text("max_points") else 0
    method = _chosen(call, "method", tuple(METHODS))
    try:
        if points:
            page = await history.samples(call.principal, request, form=form, points=points, method=method)
        else:
            page = await history.page(call.principal, request, form=form, limit=limit)
    except TooMuch as why:
        raise BadRequest(str(why), status=413) from why
    return await _answer(call, request.feed, page, form, media)


async def _aggregate(call: Call) -> web.Response:
    """Get aggregates of each property by window of time."""
    media = record_query.accepted(call, ("application/json", "text/csv"))
    form = "csv" if media == "text/csv" else "json"
    wanted = _filter(call)
    gaps = _chosen(call, "gaps", ("show", "omit")) == "show"
    try:
        page = await call.part(HISTORY).aggregate(
            call.principal, call.path("feed"), wanted, _wanted(call, wanted), form=form, gaps=gaps
        )
    except TooMuch as why:
        raise BadRequest(str(why), status=413) from why
    return await _answer(call, call.path("feed"), page, form, media)


async def _counts(call: Call) -> web.Response:
    """Count the observations of cameras by window of time: reports, and objects by their tracks."""
    media = record_query.accepted(call, ("application/json", "text/csv"))
    form, wanted, by = "csv" if media == "text/csv" else "json", _filter(call), call.values("by") or ("class",)
    for name in by:
        if name not in COUNTED_BY:
            raise BadRequest(f"query: by: '{name[:20]}' is unknown; use some of {', '.join(COUNTED_BY)}")
    try:
        answer = await call.part(COUNTS).count(
            call.principal, call.path("feed"), wanted, tuple(dict.fromkeys(by)), _windows(call, wanted), form=form
        )
    except TooMuch as why:
        raise BadRequest(str(why), status=413) from why
    return await _answer(call, call.path("feed"), HistoryPage(answer.body, answer.count, "", answer.grant), form, media)


async def _drop(call: Call) -> web.Response:
    """Delete the history of a division."""
    code = call.deps.divisions.check(call.path("code"))[0]
    demand(call.principal, Action.CHANGE_NODES, code)
    reader = call.part(HISTORY)
    await call.deps.audit.record(call.principal, "history.drop", code)
    await reader.drop(code)
    return web.Response(status=204)


async def _answer(call: Call, feed: str, page: HistoryPage, form: str, media: str) -> web.Response:
    """Return an encoded page, counted as delivered."""
    share, caller = call.deps.share, call.principal
    call.demand_credential()
    async with share.reserve(caller, feed, form, page.count, page.grant):
        share.count(caller, feed, form, requests=1, records=page.count, size=len(page.body), grant=page.grant)
    headers = {"X-Count": str(page.count)}
    if page.next:
        headers["X-Next-Cursor"] = page.next
        headers["Link"] = f'<{call.request.rel_url.update_query(after=page.next)}>; rel="next"'
    if page.searched_from is not None:
        headers["X-Searched-From"] = iso(page.searched_from)
    if form == "csv":
        headers["Content-Disposition"] = f'attachment; filename="{feed}-history.csv"'
    return web.Response(body=page.body, content_type=media, headers=headers, charset="utf-8" if form == "csv" else None)


def _filter(call: Call) -> FeedFilter:
    """Return the filter with a period that has a beginning and an end."""
    wanted = record_query.filter_of(call)
    end = call.deps.clock.now() if wanted.end is None else wanted.end
    begin = end - DAY_US if wanted.begin is None else wanted.begin
    if end <= begin:
        raise BadRequest("query: to: is not after from; give a later time")
    return msgspec.structs.replace(wanted, begin=begin, end=end)


def _windows(call: Call, wanted: FeedFilter) -> Windows:
    """Return the windows that cover the period of a filter. Raises `BadRequest`, `ConfigError`."""
    assert wanted.begin is not None  # noqa: S101 - as `_filter` returns it
    assert wanted.end is not None  # noqa: S101
    text = call.text("window", "1h")
    length = durations.duration_s(text)
    if not length:
        raise BadRequest(f"query: window: '{text[:20]}' is not a length above 0; give {durations.DURATION_EXAMPLES}")
    step = round(length * 1e6)
    if step < 1_000_000 or step > 3_660 * DAY_US:
        raise BadRequest(f"query: window: '{text[:20]}' is out of range; give 1s to 3660d")
    return Windows.of(wanted.begin, wanted.end, step, call.text("zone", "Asia/Shanghai"))


def _wanted(call: Call, wanted: FeedFilter) -> Aggregate:
    functions = call.values("functions") or ("count", "min", "mean", "max")
    for name in functions:
        if not is_function(name):
            raise BadRequest(
                f"query: functions: '{name[:20]}' is unknown; use some of {', '.join(FUNCTIONS)}, or percentiles as p95"
            )
    by = call.values("by")
    for name in by:
        if name not in {*DIMENSIONS, "property"}:
            raise BadRequest(f"query: by: '{name[:20]}' is unknown; use some of {', '.join(DIMENSIONS)}, property")
    groups = tuple(dict.fromkeys(name for name in by if name != "property"))
    return Aggregate(tuple(dict.fromkeys(functions)), groups, _windows(call, wanted))


def _chosen(call: Call, name: str, words: tuple[str, ...]) -> str:
    """Return a parameter that is one of some words; the first without it."""
    text = call.text(name, words[0])
    if text not in words:
        raise BadRequest(f"query: {name}: '{text[:20]}' is unknown; use {' or '.join(words)}")
    return text


_FIELDS = QueryParam("fields", f"fields of each record: some of {', '.join(FIELDS)}")
_PERIOD = (
    QueryParam("from", "earliest phenomenon time, or how far back (24h, 30d); default: a day before to"),
    QueryParam("to", "phenomenon time before which readings are wanted; default: now"),
)
ROUTES = tagged(
    "feeds",
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/history",
        _history,
        summary="Get readings of a period in the order of phenomenon time; of revised ones the last revision. "
        "X-Searched-From in it: without a history, readings marked `future` that arrived before may be missing.",
        action=Action.READ_READINGS,
        query=(
            *record_query.ORIGIN_PARAMS,
            *_PERIOD,
            QueryParam("order", "asc (default) or desc by phenomenon time"),
            QueryParam("revisions", "last (default) or all: revised readings too"),
            QueryParam(
                "max_points",
                "for plots: at most so many readings of each series",
                "integer",
                minimum=1,
                maximum=POINTS_MAX,
            ),
            QueryParam("method", "with max_points: minmax (default) keeps every peak, lttb the shape of the line"),
            _FIELDS,
            RECORD_LIMIT,
            QueryParam("after", "`next` of the previous page"),
        ),
        response=RecordPage,
        media=_MEDIA,
        errors=(404, 406, 413),
    ),
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/aggregate",
        _aggregate,
        action=Action.READ_READINGS,
        query=(
            *record_query.ORIGIN_PARAMS,
            *_PERIOD,
            QueryParam("window", "length of a window: 15m, 1h (default), 1d, 1w; days begin at midnight of the zone"),
            QueryParam("by", "property, device, division; several: separated by commas"),
            QueryParam("functions", f"some of {', '.join(FUNCTIONS)}, p50 to p99.9; default count,min,mean,max"),
            QueryParam("zone", "time zone of days and weeks, default Asia/Shanghai"),
            QueryParam("gaps", "show (default): windows without readings too, with null; or omit"),
        ),
        media=("application/json", "text/csv"),
        errors=(404, 406, 413),
    ),
    Route(
        "GET",
        f"{API}/feeds/{{feed}}/observation-counts",
        _counts,
        action=Action.READ_READINGS,
        query=(
            *record_query.ORIGIN_PARAMS,
            *_PERIOD,
            QueryParam("window", "length of a window: 15m, 1h (default), 1d, 1w; days begin at midnight of the zone"),
            QueryParam("by", f"some of {', '.join(COUNTED_BY)}, separated by commas; default class"),
            QueryParam("zone", "time zone of days and weeks, default Asia/Shanghai"),
        ),
        response=CountPage,
        media=("application/json", "text/csv"),
        errors=(404, 406, 413),
    ),
    Route("DELETE", f"{API}/history/{{code}}", _drop, action=Action.CHANGE_NODES, status=204, errors=(404,)),
)
