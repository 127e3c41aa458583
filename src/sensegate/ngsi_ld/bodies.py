"""Bodies of queries by POST."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.parameters import AnswerTexts, QueryTexts, SelectorTexts
from sensegate.ngsi_ld.problems import bad_data
from sensegate.ngsi_ld.requests import context_of, json_body
from sensegate.web.routing import Call

T = TypeVar("T")
DEPTH_MAX = 64
SELECTORS_MAX = 100


class EntitySelection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Selection of entities."""

    type: str = ""
    id: str | tuple[str, ...] = ()
    id_pattern: str = ""


class GeoQueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Geo-query of a body."""

    georel: str
    geometry: str
    coordinates: Any
    geoproperty: str = ""


class TemporalQueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Temporal query of a body."""

    timerel: str
    time_at: str
    end_time_at: str = ""
    timeproperty: str = "observedAt"


class EntityQueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of a query by POST."""

    type: str = "Query"
    entities: tuple[EntitySelection, ...] = ()
    attrs: tuple[str, ...] = ()
    pick: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    q: str = ""
    geo_q: GeoQueryBody | None = None
    scope_q: str = ""
    lang: str = ""
    dataset_id: tuple[str, ...] = ()
    temporal_q: TemporalQueryBody | None = None
    aggr_methods: str = ""
    aggr_period_duration: str = ""
    last_n: int = 0

    def conditions(self) -> QueryTexts:
        """Return its conditions."""
        geo = self.geo_q
        return QueryTexts(
            selectors=tuple(
                SelectorTexts(
                    (entity.id,) if isinstance(entity.id, str) and entity.id else tuple(entity.id),
                    entity.type,
                    entity.id_pattern,
                )
                for entity in self.entities
            ),
            attributes=self.attrs,
            q=self.q,
            scope_q=self.scope_q,
            georel=geo.georel if geo else "",
            geometry=geo.geometry if geo else "",
            coordinates=geo.coordinates if geo else None,
            geoproperty=geo.geoproperty if geo else "",
        )

    def answer(self) -> AnswerTexts:
        """Return which members are shown, and how."""
        return AnswerTexts(
            attributes=self.attrs, pick=self.pick, omit=self.omit, datasets=self.dataset_id, lang=self.lang
        )


async def document_body(call: Call) -> tuple[Any, LdContext]:
    """Return the JSON of a body, without its `@context`, and that context.

    Raises:
        BadRequest: it is of another type (415).
        NgsiError: it is not JSON, or nested too deep.
    """
    body = await json_body(call)
    if _depth_exceeds(body, DEPTH_MAX):
        raise bad_data(f"body: is nested more than {DEPTH_MAX} deep; send less")
    context = context_of(call, body)
    if isinstance(body, dict):
        body.pop("@context", None)
    return body, context


def converted(body: Any, kind: type[T]) -> T:
    """Return a body as a record. Raises `NgsiError`, which names the member that is wrong."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as why:
        raise bad_data(f"body: {why}") from None


async def query_body(call: Call) -> tuple[EntityQueryBody, LdContext]:
    """Return the query of a body, and its `@context`. Raises `NgsiError`."""
    body, context = await document_body(call)
    query = converted(body, EntityQueryBody)
    if query.type != "Query":
        raise bad_data(f"body: type: '{query.type[:40]}' is not Query")
    if len(query.entities) > SELECTORS_MAX:
        raise bad_data(f"body: entities: has {len(query.entities)} entries; give at most {SELECTORS_MAX}")
    return query, context


def _depth_exceeds(value: object, most: int) -> bool:
    """Return whether JSON is nested deeper than allowed."""
    level: list[object] = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
