"""HTTP: the temporal evolution of entities."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from sensegate.errors import TooMuch
from sensegate.ngsi_ld.bodies import EntityQueryBody, query_body
from sensegate.ngsi_ld.entities import EntityRecord, Viewer
from sensegate.ngsi_ld.parameters import (
    ANSWER_PARAMS,
    CONDITION_PARAMS,
    MEMBER_PARAMS,
    OPTIONS,
    PAGE_PARAMS,
    TEMPORAL_OPTIONS,
    Answering,
    answering_of,
    is_local,
    page_of,
    query_from,
    query_of,
)
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.rest import FEED_ROOT, MEDIA, NGSI_LD, ROOT, deliver, page_headers, read_route, viewer_of
from sensegate.ngsi_ld.retrieval import EntityQuery
from sensegate.ngsi_ld.temporal import TemporalDocument, TemporalForm, TemporalReader, has_evolution
from sensegate.ngsi_ld.windows import Period, parse_duration, parse_methods, parse_period, parse_time_property
from sensegate.web.parts import PartKey
from sensegate.web.routing import Call, QueryParam, Route

TEMPORAL = PartKey[TemporalReader]("ngsi-ld temporal", absent="this gateway has no temporal entities")
LAST_MAX = 10_000
TEMPORAL_PARAMS = (
    QueryParam("timerel", "before, after or between"),
    QueryParam("timeAt", "time that timerel is about: 2026-01-01T00:00:00Z"),
    QueryParam("endTimeAt", "end of between, which is excluded"),
    QueryParam("timeproperty", "observedAt (default), createdAt or modifiedAt: arrival of the first or last revision"),
    QueryParam("lastN", "most readings of each attribute, the last ones", "integer", minimum=1, maximum=LAST_MAX),
    QueryParam("aggrMethods", "with options=aggregatedValues: totalCount, distinctCount, sum, avg, min, max, …"),
    QueryParam("aggrPeriodDuration", "length of a window, as PT1H; without it the whole period"),
)
_ANSWER_PARAMS = (
    QueryParam("options", f"some of {', '.join((*OPTIONS, *TEMPORAL_OPTIONS))}, separated by commas"),
    *ANSWER_PARAMS[1:],
)
_MEDIA = MEDIA[:2]


def _form_of(call: Call, *, needs_period: bool) -> TemporalForm:
    """Return which readings are shown, and how, by the query of a request. Raises `NgsiError`."""
    period = parse_period(call.text("timerel"), call.text("timeAt"), call.text("endTimeAt"))
    return _checked_form(
        call,
        period,
        call.text("timeproperty", "observedAt"),
        call.values("aggrMethods"),
        duration=call.text("aggrPeriodDuration"),
        last=call.integer("lastN", 0, LAST_MAX) if call.text("lastN") else 0,
        needs_period=needs_period,
    )


def _form_of_body(call: Call, body: EntityQueryBody) -> TemporalForm:
    """Return which readings are shown, and how, by the body of a request. Raises `NgsiError`."""
    query = body.temporal_q
    if query is None:
        raise bad_data("body: temporalQ: is missing; give its timerel and timeAt")
    if not 0 <= body.last_n <= LAST_MAX:
        raise bad_data(f"body: lastN: is {body.last_n}; give 1 to {LAST_MAX}")
    return _checked_form(
        call,
        parse_period(query.timerel, query.time_at, query.end_time_at),
        query.timeproperty,
        tuple(name.strip() for name in body.aggr_methods.split(",") if name.strip()),
        duration=body.aggr_period_duration,
        last=body.last_n,
        needs_period=True,
    )


def _checked_form(
    call: Call,
    period: Period | None,
    timeproperty: str,
    methods: tuple[str, ...],
    *,
    duration: str,
    last: int,
    needs_period: bool,
) -> TemporalForm:
    if period is None and needs_period:
        raise bad_data("timerel: is missing; give before, after or between, with timeAt")
    options = call.values("options")
    is_aggregated = "aggregatedValues" in options or call.text("format") == "aggregatedValues"
    if not is_aggregated and (methods or duration):
        raise bad_data("aggrMethods: needs options=aggregatedValues")
    return TemporalForm(
        period=period or Period(),
        time_property=parse_time_property(timeproperty),
        last=last,
        as_values="temporalValues" in options or call.text("format") == "temporalValues",
        methods=parse_methods(methods) if is_aggregated else (),
        duration=parse_duration(duration),
    )


async def _entities(call: Call) -> web.Response:
    viewer, answering = viewer_of(call), answering_of(call)
    form = _form_of(call, needs_period=True)
    return await _queried(call, viewer, answering, query_of(call, answering), form)


async def _query(call: Call) -> web.Response:
    viewer = viewer_of(call)
    body, context = await query_body(call)
    answering, form = answering_of(call, context, body.answer()), _form_of_body(call, body)
    query = query_from(body.conditions(), context, is_local=is_local(call))
    return await _queried(call, viewer, answering, query, form)


async def _queried(
    call: Call, viewer: Viewer, answering: Answering, query: EntityQuery, form: TemporalForm
) -> web.Response:
    page = page_of(call)
    matched = await call.part(NGSI_LD).query(viewer, query, offset=page.offset, limit=page.limit)
    documents = has_evolution(await _evolution(call, viewer, answering, matched.entities, form))
    body = [answering.with_context(part.document) for part in documents]
    headers = page_headers(call, answering, page, matched.total)
    return await deliver(call, viewer, answering, body, count=sum(part.count for part in documents), headers=headers)


async def _entity(call: Call) -> web.Response:
    viewer, answering = viewer_of(call), answering_of(call)
    name, form = call.path("entity"), _form_of(call, needs_period=False)
    entity = await call.part(NGSI_LD).find(viewer, name)
    if entity is None:
        raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"there is no entity '{name[:200]}' that you see")
    (part,) = await _evolution(call, viewer, answering, [entity], form)
    return await deliver(call, viewer, answering, answering.with_context(part.document), count=part.count)


async def _evolution(
    call: Call, viewer: Viewer, answering: Answering, entities: Sequence[EntityRecord], form: TemporalForm
) -> list[TemporalDocument]:
    shown = [answering.projection.projected(entity) for entity in entities]
    reader = call.part(TEMPORAL)
    try:
        return await reader.evolution(viewer, shown, answering.rendering, answering.projection, form)
    except TooMuch as why:
        raise NgsiError(ErrorType.TOO_MANY_RESULTS, str(why)) from why


def _routes(root: str) -> tuple[Route, ...]:
    return (
        read_route(
            f"{root}/temporal/entities",
            _entities,
            "Query the temporal evolution of entities, or aggregates of it.",
            query=(*CONDITION_PARAMS, *PAGE_PARAMS, *MEMBER_PARAMS, *_ANSWER_PARAMS, *TEMPORAL_PARAMS),
            media=_MEDIA,
        ),
        read_route(
            f"{root}/temporal/entities/{{entity}}",
            _entity,
            "Get the temporal evolution of an entity, or aggregates of it.",
            query=(*MEMBER_PARAMS, *_ANSWER_PARAMS, *TEMPORAL_PARAMS),
            media=_MEDIA,
        ),
        read_route(
            f"{root}/temporal/entityOperations/query",
            _query,
            "Query the temporal evolution of entities by conditions in the body.",
            method="POST",
            raw="application/json",
            query=(*PAGE_PARAMS, *_ANSWER_PARAMS),
            media=_MEDIA,
        ),
    )


TEMPORAL_ROUTES = tuple(route for root in (ROOT, FEED_ROOT) for route in _routes(root))
