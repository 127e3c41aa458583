"""HTTP: NGSI-LD over all that a caller may see, and over one feed: retrieval and queries of entities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.ngsi_ld.entities import EntityRecord, Viewer
from sensegate.ngsi_ld.parameters import (
    GEOJSON,
    PROJECTION_PARAMS,
    QUERY_PARAMS,
    Answering,
    answering_of,
    page_of,
    query_of,
)
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, problem_type
from sensegate.ngsi_ld.representation import EntityRenderer
from sensegate.ngsi_ld.retrieval import FORM, EntityRetrieval
from sensegate.ports import PartKey
from sensegate.share.feeds import ALL_FEED
from sensegate.web.routing import Call, Route

ROOT = "/ngsi-ld/v1"
FEED_ROOT = f"/feeds/{{feed}}{ROOT}"
NGSI_LD = PartKey[EntityRetrieval]("ngsi-ld", absent="this gateway has no NGSI-LD API")
MEDIA = ("application/json", "application/ld+json", "application/geo+json")


def feed_of(call: Call) -> str:
    """Return the feed that a call reads."""
    return call.request.match_info.get("feed", ALL_FEED.name)


def viewer_of(call: Call) -> Viewer:
    """Return who asks, and what the call may see. Raises `NotFound`, `PermissionDenied`, `NgsiError`."""
    if "NGSILD-Tenant" in call.request.headers:
        raise NgsiError(
            ErrorType.NO_MULTI_TENANT_SUPPORT, "NGSILD-Tenant: this gateway has no tenants; use a token of their scope"
        )
    return call.part(NGSI_LD).viewer(call.principal, feed_of(call), call.deps.clock.now())


async def deliver(
    call: Call, viewer: Viewer, answering: Answering, body: object, *, count: int, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a document with so many readings, within the quota of the grant and counted as delivered.

    Raises:
        Overloaded: the quota permits less.
        PermissionDenied: the credential has ended.
    """
    share, caller, feed = call.deps.share, call.principal, viewer.feed
    admission = viewer.admission
    if admission.quota is not None:
        admission.quota.consume_all(count)
    raw = msgspec.json.encode(body)
    call.demand_credential()
    async with share.reserve(caller, feed, FORM, count, admission.grant_id):
        share.count(caller, feed, FORM, requests=1, records=count, size=len(raw), grant=admission.grant_id)
    return web.Response(body=raw, content_type=answering.media, headers={**answering.headers, **(headers or {})})


def readings_in(entities: list[EntityRecord]) -> int:
    """Return how many readings entities show."""
    return sum(instance.readings for entity in entities for instance in entity.attributes)


async def _entities(call: Call) -> web.Response:
    viewer, answering = viewer_of(call), answering_of(call)
    query, page = query_of(call, answering), page_of(call)
    matched = await call.part(NGSI_LD).query(viewer, query, offset=page.offset, limit=page.limit)
    return await answer_page(call, viewer, answering, matched.entities, total=matched.total)


async def answer_page(call: Call, viewer: Viewer, answering: Answering, entities: Any, *, total: int) -> web.Response:
    """Return a page of entities with its headers."""
    page = page_of(call)
    shown = [answering.projection.projected(entity) for entity in entities]
    renderer = EntityRenderer(answering.rendering, answering.projection)
    headers = {"NGSILD-Results-Count": str(total)} if page.count else {}
    links = [answering.headers["Link"]] if "Link" in answering.headers else []
    for offset, relation in ((page.offset - page.limit, "prev"), (page.offset + page.limit, "next")):
        is_known = page.offset > 0 if relation == "prev" else offset < total
        if is_known and page.limit and call.request.method == "GET":
            query = [(name, value) for name, value in call.request.query.items() if name != "offset"]
            address = f"{call.request.path}?{urlencode([*query, ('offset', str(max(offset, 0)))])}"
            links.append(f'<{address}>; rel="{relation}"; type="{answering.media}"')
    if links:
        headers["Link"] = ", ".join(links)
    body: object
    if answering.media == GEOJSON:
        body = answering.with_context(renderer.collection(shown))
    else:
        body = [answering.with_context(renderer.document(entity)) for entity in shown]
    return await deliver(call, viewer, answering, body, count=readings_in(shown), headers=headers)


async def _entity(call: Call) -> web.Response:
    viewer, answering = viewer_of(call), answering_of(call)
    name = call.path("entity")
    entity = await call.part(NGSI_LD).find(viewer, name)
    if entity is None:
        raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"there is no entity '{name[:200]}' that you see")
    shown = answering.projection.projected(entity)
    if answering.demands_attributes and not shown.attributes:
        raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"entity '{name[:200]}' has none of these attributes")
    renderer = EntityRenderer(answering.rendering, answering.projection)
    document = renderer.feature(shown) if answering.media == GEOJSON else renderer.document(shown)
    return await deliver(call, viewer, answering, answering.with_context(document), count=readings_in([shown]))


def _routes(root: str) -> tuple[Route, ...]:
    return (
        read_route(
            f"{root}/entities",
            _entities,
            "Query entities: type, id, attributes, values, places and scopes.",
            query=(*QUERY_PARAMS, *PROJECTION_PARAMS),
        ),
        read_route(f"{root}/entities/{{entity}}", _entity, "Get an entity by its id.", query=PROJECTION_PARAMS),
    )


def read_route(path: str, handler: Callable[[Call], Any], summary: str, **more: Any) -> Route:
    """Return a route that reads."""
    return Route(
        method=more.pop("method", "GET"),
        path=path,
        handler=handler,
        summary=summary,
        tag="ngsi-ld",
        action=Action.READ_READINGS,
        media=more.pop("media", MEDIA),
        errors=(404, 406, 413),
        problem_type=problem_type,
        **more,
    )


ROUTES = tuple(route for root in (ROOT, FEED_ROOT) for route in _routes(root))
