"""HTTP: the SensorThings API over all that a caller may see, and over one feed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.errors import TooMuch
from sensegate.sensorthings.arrays import data_arrays
from sensegate.sensorthings.bodies import decoded
from sensegate.sensorthings.conformance import service_root
from sensegate.sensorthings.instants import instant_text
from sensegate.sensorthings.kinds import Entity
from sensegate.sensorthings.patches import patched
from sensegate.sensorthings.service import ReadAnswer, ReadRequest, SensorThings
from sensegate.sensorthings.syntax import parse_path
from sensegate.sensorthings.view import CallerView
from sensegate.sensorthings.writing import EntityWriter, WriteActs
from sensegate.share.feeds import ALL_FEED
from sensegate.web import corrections, devices
from sensegate.web.bodies import NewDevice
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import Call, QueryParam, Route

ROOT = "/sta/v1.1"
FEED_ROOT = f"/feeds/{{feed}}{ROOT}"
SENSORTHINGS = PartKey[SensorThings]("sensorthings", absent="this gateway has no SensorThings API")
OPTIONS = (
    QueryParam("$filter", "condition on entities, such as result gt 20 and phenomenonTime ge 2026-01-01T00:00:00Z"),
    QueryParam("$expand", "links whose entities come along, with their options: Datastreams($top=5;$select=name)"),
    QueryParam("$select", "properties of each entity, separated by commas"),
    QueryParam("$orderby", "properties by which entities are ordered, each followed by asc or desc"),
    QueryParam("$top", "most entities of a page, default 100", "integer", minimum=0, maximum_setting="page_max"),
    QueryParam(
        "$skip",
        "how many entities are passed over; use @iot.nextLink to read on",
        "integer",
        minimum=0,
        maximum=9_999_999_999,
    ),
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
    """Get the service root of the SensorThings API: its entity sets, and which requirements hold."""
    feed = call.request.match_info.get("feed", ALL_FEED.name)
    await call.part(SENSORTHINGS).view(call.principal, feed, "json", call.deps.clock.now())
    return service_root(base_of(call), call.deps.broker())


async def _read(call: Call) -> web.Response:
    """Get entities of the OGC SensorThings API 1.1 by their resource path."""
    for name in call.request.query:
        if len(call.request.query.getall(name)) > 1:
            raise BadRequest(f"query: {name}: is given twice; give it once")
    return await read_resource(call, call.path("resource"), dict(call.request.query))


async def read_resource(call: Call, path: str, query: Mapping[str, str]) -> web.Response:
    """Return the answer to a request that reads a path below the service root, counted as delivered."""
    base, feed = base_of(call), call.request.match_info.get("feed", ALL_FEED.name)
    request = ReadRequest(feed=feed, path=path, query=query, base=base, url=f"{base}/{path.strip('/')}")
    try:
        answer = await call.part(SENSORTHINGS).read(call.principal, request, call.deps.clock.now())
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


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────


async def writing_of(call: Call) -> tuple[CallerView, EntityWriter]:
    """Return a caller's view, and the writer on its behalf. Raises `PermissionDenied`."""
    service, deps, principal = call.part(SENSORTHINGS), call.deps, call.principal
    view = await service.view(principal, ALL_FEED.name, "json", deps.clock.now())
    if not view.is_own:
        raise BadRequest("a token for feeds, or with a grant for all of them, reads only; use another", status=403)

    async def push(device: str, body: bytes) -> None:
        if deps.ingest is None:
            raise BadRequest("this gateway takes no readings by HTTP", status=409)
        await deps.ingest(deps.devices.get(device), principal, body, "application/json")

    async def withdraw(device: str, name: str, begin: int, end: int) -> None:
        wanted = {"devices": [device], "properties": [name], "begin": instant_text(begin), "end": instant_text(end)}
        order = {**wanted, "action": "withdraw", "note": "deleted by the SensorThings API"}
        row = await corrections.order(call, msgspec.convert(order, corrections.NewCorrection))
        async with asyncio.timeout(_WITHDRAW_S):
            ended = await call.part(corrections.CORRECTIONS).wait_ended(row.id)
        if ended.problem:
            raise BadRequest(f"the readings are not withdrawn: {ended.problem}", status=503)

    async def register(body: NewDevice) -> object:
        return await devices.register(call, body)

    acts = WriteActs(register=register, withdraw=withdraw, push=push)
    return view, EntityWriter(service.views, deps.audit, service.intake, principal, acts)


class WriteRequest(msgspec.Struct, frozen=True):
    """A request that writes."""

    method: str
    path: str
    """Below the service root."""
    raw: bytes = b""
    media: str = "application/json"


async def _write(call: Call) -> web.Response:
    request, method = call.request, call.request.method
    raw = b"" if method == "DELETE" else await call.raw_body()
    return await write_resource(call, WriteRequest(method, call.path("resource"), raw, request.content_type))


async def write_resource(call: Call, request: WriteRequest) -> web.Response:
    """Return the answer to a request that writes, once it has been carried out. Raises as `EntityWriter`."""
    await call.part(SENSORTHINGS).reader.catch_up()
    view, writer = await writing_of(call)
    match request.method:
        case "POST":
            return await _create(call, request, view, writer)
        case "DELETE":
            try:
                await writer.delete(view, await _target_of(call, request, view))
            except TimeoutError:
                raise BadRequest("the readings are not withdrawn yet; they will be", status=503) from None
            return web.Response(status=200)
    return await _change(call, request, view, writer)


async def _create(call: Call, request: WriteRequest, view: CallerView, writer: EntityWriter) -> web.Response:
    path = request.path.strip("/")
    if path == "CreateObservations":
        return await _create_observations(call, request, view, writer)
    target = await call.part(SENSORTHINGS).resolve_parent(view, parse_path(path))
    number = await writer.create(view, target.kind, decoded(request.raw), target.parent)
    address = f"{base_of(call)}/{target.kind.plural}({number})"
    answer = msgspec.json.encode({"@iot.id": number, "@iot.selfLink": address})
    return web.Response(status=201, body=answer, content_type="application/json", headers={"Location": address})


async def _create_observations(
    call: Call, request: WriteRequest, view: CallerView, writer: EntityWriter
) -> web.Response:
    ids = await data_arrays(view, writer, decoded(request.raw))
    base = base_of(call)
    links = ["error" if number is None else f"{base}/Observations({number})" for number in ids]
    return web.Response(status=201, body=msgspec.json.encode(links), content_type="application/json")


async def _target_of(call: Call, request: WriteRequest, view: CallerView) -> Entity:
    target = await call.part(SENSORTHINGS).resolve(view, parse_path(request.path))
    if target.entity is None or target.names or target.last:
        raise BadRequest("path: names no entity; give for example Things(1)")
    return target.entity


async def _change(call: Call, request: WriteRequest, view: CallerView, writer: EntityWriter) -> web.Response:
    entity = await _target_of(call, request, view)
    replaces = request.method == "PUT"
    body = decoded(request.raw)
    if request.media == "application/json-patch+json":
        if replaces:
            raise BadRequest("PUT takes application/json; PATCH takes a JSON patch", status=415)
        body, replaces = patched(entity, request.raw), True
    await writer.change(view, entity, body, replaces=replaces)
    address = f"{base_of(call)}/{entity.kind.plural}({entity.id})"
    answer = msgspec.json.encode({"@iot.id": entity.id, "@iot.selfLink": address})
    return web.Response(body=answer, content_type="application/json")


_WITHDRAW_S = 20.0
_MEDIA = ("application/json", "application/geo+json", "text/csv", "text/plain")
ROUTES = tuple(
    route
    for root in (ROOT, FEED_ROOT)
    for route in tagged(
        "sensorthings",
        Route("GET", root, _root, action=Action.READ_READINGS, errors=(404,)),
        Route(
            "GET",
            f"{root}/{{resource}}",
            _read,
            is_tree=True,
            action=Action.READ_READINGS,
            query=OPTIONS,
            media=_MEDIA,
            errors=(404, 413),
        ),
    )
)
WRITE_ROUTES = tuple(
    Route(
        method=method,
        path=f"{ROOT}/{{resource}}",
        is_tree=True,
        handler=_write,
        summary=summary,
        tag="sensorthings",
        action=Action.CHANGE_DEVICES,
        or_action=Action.INGEST,
        raw="" if method == "DELETE" else "application/json",
        status=status,
        errors=(404, 409, 413, 422),
    )
    for method, summary, status in (
        ("POST", "Create an entity of the SensorThings API, or Observations by CreateObservations.", 201),
        ("PATCH", "Change properties and links of an entity of the SensorThings API.", 200),
        ("PUT", "Replace the properties of an entity of the SensorThings API.", 200),
        ("DELETE", "Delete an entity of the SensorThings API; readings are withdrawn.", 200),
    )
)
