"""HTTP: the SensorThings API over all that a caller may see, and over one feed."""

from __future__ import annotations

from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.history.query import TooMuch
from sensegate.ports import PartKey
from sensegate.sensorthings.conformance import service_root
from sensegate.sensorthings.service import ReadAnswer, ReadRequest, SensorThings
from sensegate.share.feeds import ALL_FEED
from sensegate.web.problems import BadRequest
from sensegate.web.routing import Call, QueryParam, Route

ROOT = "/sta/v1.1"
FEED_ROOT = f"/feeds/{{feed}}{ROOT}"
SENSORTHINGS = PartKey[SensorThings]("sensorthings", absent="this gateway has no SensorThings API")
OPTIONS = (
    QueryParam("$filter", "condition on entities, such as result gt 20 and phenomenonTime ge 2026-01-01T00:00:00Z"),
    QueryParam("$expand", "links whose entities come along, with their options: Datastreams($top=5;$select=name)"),
    QueryParam("$select", "properties of each entity, separated by commas"),
    QueryParam("$orderby", "properties by which entities are ordered, each followed by asc or desc"),
    QueryParam("$top", "most entities of a page, default 100", "integer"),
    QueryParam("$skip", "how many entities are passed over; use @iot.nextLink to read on", "integer"),
    QueryParam("$count", "true: with the number of all entities", "boolean"),
    QueryParam("$resultFormat", "dataArray, CSV or GeoJSON; default JSON"),
    QueryParam("$skiptoken", "position of the next page, as @iot.nextLink has it"),
)


def base_of(call: Call) -> str:
    """Return the URL of the service root that a call uses."""
    feed = call.request.match_info.get("feed", "")
    origin = call.request.url.origin()
    return f"{origin}{FEED_ROOT.format(feed=feed) if feed else ROOT}"


async def _root(call: Call) -> dict[str, object]:
    feed = call.request.match_info.get("feed", ALL_FEED.name)
    call.part(SENSORTHINGS).view(call.principal, feed, "json", call.deps.clock.now())
    return service_root(base_of(call))


async def _read(call: Call) -> web.Response:
    service, base = call.part(SENSORTHINGS), base_of(call)
    feed, path = call.request.match_info.get("feed", ALL_FEED.name), call.path("resource")
    for name in call.request.query:
        if len(call.request.query.getall(name)) > 1:
            raise BadRequest(f"query: {name}: is given twice; give it once")
    request = ReadRequest(
        feed=feed, path=path, query=dict(call.request.query), base=base, url=f"{base}/{path.strip('/')}"
    )
    try:
        answer = await service.read(call.principal, request, call.deps.clock.now())
    except TooMuch as why:
        raise BadRequest(str(why), status=413) from why
    return await _answered(call, feed, answer)


async def _answered(call: Call, feed: str, answer: ReadAnswer) -> web.Response:
    """Return an answer, counted as delivered."""
    share, caller = call.deps.share, call.principal
    call.demand_credential()
    async with share.reserve(caller, feed, answer.form, answer.count, answer.grant):
        share.count(
            caller,
            feed,
            answer.form,
            requests=1,
            records=answer.count,
            size=len(answer.body),
            grant=answer.grant,
        )
    if answer.status == 204:
        return web.Response(status=204)
    charset = "utf-8" if answer.media.startswith("text/") else None
    headers = {"X-Count": str(answer.count)}
    return web.Response(body=answer.body, content_type=answer.media, charset=charset, headers=headers)


_MEDIA = ("application/json", "application/geo+json", "text/csv", "text/plain")
ROUTES = tuple(
    route
    for root in (ROOT, FEED_ROOT)
    for route in (
        Route(
            method="GET",
            path=root,
            handler=_root,
            summary="Get the service root of the SensorThings API: its entity sets, and which requirements hold.",
            tag="sensorthings",
            action=Action.READ_READINGS,
            errors=(404,),
        ),
        Route(
            method="GET",
            path=f"{root}/{{resource}}",
            is_tree=True,
            handler=_read,
            summary="Get entities of the OGC SensorThings API 1.1 by their resource path.",
            tag="sensorthings",
            action=Action.READ_READINGS,
            query=OPTIONS,
            media=_MEDIA,
            errors=(404, 413),
        ),
    )
)
