"""HTTP: NGSI-LD over all that a caller may see, and over one feed: retrieval and queries of entities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.ngsi_ld.bodies import query_body
from sensegate.ngsi_ld.catalogue import attribute_info, attribute_list, type_info, type_list
from sensegate.ngsi_ld.entities import EntityRecord, Viewer
from sensegate.ngsi_ld.parameters import (
    ANSWER_PARAMS,
    GEOJSON,
    LIST_PARAMS,
    PAGE_PARAMS,
    PROJECTION_PARAMS,
    QUERY_PARAMS,
    Answering,
    Page,
    answering_of,
    is_local,
    is_true,
    page_of,
    query_from,
    query_of,
)
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data, problem_type
from sensegate.ngsi_ld.representation import Document, EntityRenderer
from sensegate.ngsi_ld.retrieval import FORM, EntityQuery, EntityRetrieval
from sensegate.share.feeds import ALL_FEED
from sensegate.web.parts import PartKey
from sensegate.web.routing import Call, Route

ROOT = "/ngsi-ld/v1"
FEED_ROOT = f"/feeds/{{feed}}{ROOT}"
NGSI_LD = PartKey[EntityRetrieval]("ngsi-ld", absent="this gateway has no NGSI-LD API")
MEDIA = ("application/json", "application/ld+json", "application/geo+json")


def feed_of(call: Call) -> str:
    """Return the feed that a call reads."""
    return call.request.match_info.get("feed", ALL_FEED.name)


def viewer_of(call: Call) -> Viewer:
    """Return the caller, and the view that it may read. Raises `NotFound`, `PermissionDenied`, `NgsiError`."""
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
    if count:  # lists of types, and entities without readings, deliver nothing
        async with share.reserve(caller, feed, FORM, count, admission.grant_id):
            share.count(caller, feed, FORM, requests=1, records=count, size=len(raw), grant=admission.grant_id)
    return web.Response(body=raw, content_type=answering.media, headers={**answering.headers, **(headers or {})})


def readings_in(entities: list[EntityRecord]) -> int:
    """Return how many readings entities show."""
    return sum(instance.readings for entity in entities for instance in entity.attributes)


async def _entities(call: Call) -> web.Response:
    viewer, answering = viewer_of(call), answering_of(call)
    return await _queried(call, viewer, answering, query_of(call, answering))


async def _query(call: Call) -> web.Response:
    viewer = viewer_of(call)
    body, context = await query_body(call)
    if body.temporal_q is not None:
        raise bad_data("body: temporalQ: is for temporal/entityOperations/query")
    answering = answering_of(call, context, body.answer())
    return await _queried(call, viewer, answering, query_from(body.conditions(), context, is_local=is_local(call)))


async def _queried(call: Call, viewer: Viewer, answering: Answering, query: EntityQuery) -> web.Response:
    """Return a page of the entities that match a query, with its headers."""
    page = page_of(call)
    matched = await call.part(NGSI_LD).query(viewer, query, offset=page.offset, limit=page.limit)
    shown = [answering.projection.projected(entity) for entity in matched.entities]
    renderer = EntityRenderer(answering.rendering, answering.projection)
    headers = page_headers(call, answering, page, matched.total)
    body: object
    if answering.media == GEOJSON:
        body = answering.with_context(renderer.collection(shown))
    else:
        body = [answering.with_context(renderer.document(entity)) for entity in shown]
    return await deliver(call, viewer, answering, body, count=readings_in(shown), headers=headers)


def page_headers(call: Call, answering: Answering, page: Page, total: int) -> dict[str, str]:
    """Return the number of all results, and links to the pages before and after."""
    headers = {"NGSILD-Results-Count": str(total)} if page.count else {}
    links = [answering.headers["Link"]] if "Link" in answering.headers else []
    neighbours = []
    if page.offset:
        neighbours.append(("prev", max(page.offset - page.limit, 0)))
    if page.offset + page.limit < total:
        neighbours.append(("next", page.offset + page.limit))
    for relation, offset in neighbours if page.limit else ():
        query = [(name, value) for name, value in call.request.query.items() if name != "offset"]
        address = f"{call.request.path}?{urlencode([*query, ('offset', str(offset))])}"
        links.append(f'<{address}>; rel="{relation}"; type="{answering.media}"')
    return {**headers, "Link": ", ".join(links)} if links else headers


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


# ── types and attributes ──────────────────────────────────────────────────────────────────────────────


async def _types(call: Call) -> web.Response:
    return await _listed(call, type_list)


async def _attributes(call: Call) -> web.Response:
    return await _listed(call, attribute_list)


async def _type(call: Call) -> web.Response:
    return await _described(call, type_info, "type")


async def _attribute(call: Call) -> web.Response:
    return await _described(call, attribute_info, "attribute")


async def _listed(call: Call, list_of: Callable[..., Document | list[Document]]) -> web.Response:
    viewer, answering = viewer_of(call), answering_of(call)
    entities = await call.part(NGSI_LD).all(viewer)
    listed = list_of(entities.values(), answering.rendering.terms, details=is_true(call, "details"))
    body = [*map(answering.with_context, listed)] if isinstance(listed, list) else answering.with_context(listed)
    return await deliver(call, viewer, answering, body, count=0)


async def _described(call: Call, info_of: Callable[..., Document | None], key: str) -> web.Response:
    viewer, answering = viewer_of(call), answering_of(call)
    name, context = call.path(key), answering.rendering.terms
    entities = await call.part(NGSI_LD).all(viewer)
    document = info_of(entities.values(), context, context.expand(name))
    if document is None:
        raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"there is no {key} '{name[:200]}' among what you see")
    return await deliver(call, viewer, answering, answering.with_context(document), count=0)


def _routes(root: str) -> tuple[Route, ...]:
    return (
        read_route(
            f"{root}/entities",
            _entities,
            "Query entities: type, id, attributes, values, places and scopes.",
            query=(*QUERY_PARAMS, *PROJECTION_PARAMS),
        ),
        read_route(f"{root}/entities/{{entity}}", _entity, "Get an entity by its id.", query=PROJECTION_PARAMS),
        read_route(
            f"{root}/entityOperations/query",
            _query,
            "Query entities by conditions in the body.",
            method="POST",
            raw="application/json",
            query=(*PAGE_PARAMS, *ANSWER_PARAMS),
        ),
        read_route(f"{root}/types", _types, "List the entity types.", query=LIST_PARAMS, media=MEDIA[:2]),
        read_route(f"{root}/types/{{type}}", _type, "Get an entity type with its attributes.", media=MEDIA[:2]),
        read_route(f"{root}/attributes", _attributes, "List the attributes.", query=LIST_PARAMS, media=MEDIA[:2]),
        read_route(
            f"{root}/attributes/{{attribute}}", _attribute, "Get an attribute with its entity types.", media=MEDIA[:2]
        ),
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
