"""Pages of entity sets: filter, order, paging by key, for entities in memory and for Observations."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sensegate.errors import TooMuch
from sensegate.sensorthings.expressions import compile_expression, is_true, links_of, order_rank
from sensegate.sensorthings.instants import Span
from sensegate.sensorthings.kinds import ID_NAMES, KINDS, Entity, EntityKind
from sensegate.sensorthings.observations import ROWS_MAX, ObservationReader, ObservationSet
from sensegate.sensorthings.structure import SeenDatastream, SeenThing
from sensegate.sensorthings.syntax import (
    Expression,
    FieldPath,
    OrderKey,
    QueryOptions,
    bounds_of,
    conditions_over,
)
from sensegate.sensorthings.view import CallerView, ObservationSource, page_of
from sensegate.web.problems import BadRequest

TOP_DEFAULT = 100
CHUNK = 500
"""Entities that are evaluated at a time; other tasks run between chunks."""
EVALUATE_S = 5.0
"""Longest evaluation of a filter or an order."""
PREFETCH_MAX = 100_000
"""Most Observations that a filter on other entities may look at."""
_OBSERVATION = KINDS["Observation"]


class EntityRange(msgspec.Struct, frozen=True, eq=False):
    """The entities that a path names, before any option."""

    kind: EntityKind
    ids: Sequence[int] = ()
    """Ascending; not of Observations."""
    streams: Sequence[SeenDatastream] = ()
    """Datastreams to which the Observations belong."""
    feature: int = 0
    """FeatureOfInterest of the Observations; 0: any."""


class EntityPage(msgspec.Struct, frozen=True, eq=False):
    """Page of entities."""

    entities: Sequence[Entity]
    token: str = ""
    """Start of the next page; empty: this is the last page."""
    count: int | None = None


class PageToken(msgspec.Struct, frozen=True, array_like=True):
    """Position after an entity: its id, and the values by which it is ordered."""

    id: int
    ranks: list[tuple[int, Any]] = []


_encode_token = msgspec.json.Encoder().encode


def token_text(token: PageToken) -> str:
    """Return a position as the text of `$skiptoken`."""
    return base64.urlsafe_b64encode(_encode_token(token)).decode().rstrip("=")


def parse_token(text: str) -> PageToken | None:
    """Return the position of `$skiptoken`; None: from the beginning. Raises `BadRequest`."""
    if not text:
        return None
    try:
        raw = base64.urlsafe_b64decode(text[:2_000] + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=PageToken)
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError):
        raise BadRequest("query: $skiptoken: is not of a nextLink; take @iot.nextLink unchanged") from None


class _Condition(msgspec.Struct, frozen=True, eq=False):
    """Condition on Observations."""

    holds: Callable[[Entity], object] | None
    feature: int
    """FeatureOfInterest; 0: any."""
    counts: bool = False
    """True if all matches are counted."""

    def admits(self, entity: Entity) -> bool:
        """Return whether an Observation matches."""
        if self.feature and source_of(entity).feature != self.feature:
            return False
        return self.holds is None or is_true(self.holds(entity))


class Pager:
    """Selects the entities of a page."""

    def __init__(self, view: CallerView, reader: ObservationReader, *, top_max: int) -> None:
        self._view = view
        self._reader = reader
        self._top_max = top_max

    async def page(self, entities: EntityRange, options: QueryOptions, after: PageToken | None = None) -> EntityPage:
        """Return the entities of a page. Raises `BadRequest`, `TooMuch`, `Unavailable`."""
        if entities.kind is _OBSERVATION:
            entities = await self._with_streams(entities, options.filter)
            return await self._observations(entities, options, after)
        await self.prefetch(entities.kind, options)
        return await self._in_memory(entities, options, after)

    async def _with_streams(self, entities: EntityRange, condition: Expression | None) -> EntityRange:
        """Return Observations of those Datastreams only that a filter admits."""
        kind = KINDS["Datastream"]
        for part in conditions_over(condition, "Datastream"):
            ids = sorted(stream.id for stream in entities.streams)
            await self.prefetch(kind, QueryOptions(filter=part))
            admitted = await self._matching(EntityRange(kind, ids), part)
            streams = [entity.source for entity in admitted if isinstance(entity.source, SeenDatastream)]
            entities = msgspec.structs.replace(entities, streams=streams)
        return entities

    def top_of(self, options: QueryOptions) -> int:
        """Return how many entities a page may have."""
        return min(TOP_DEFAULT if options.top is None else options.top, self._top_max)

    async def prefetch(self, kind: EntityKind, options: QueryOptions) -> None:
        """Read the Observations at which a filter or an order looks over links."""
        trees = [*([options.filter] if options.filter is not None else []), *(key.expression for key in options.order)]
        if self._view.observations is not None or not any("Observation" in links_of(tree, kind) for tree in trees):
            return
        streams = list(self._view.structure.datastreams.values())
        read = await self._reader.read(self._view, streams, Span(*Span.ALL), PREFETCH_MAX, descending=True)
        if len(read.rows) > PREFETCH_MAX or not read.is_complete:
            raise TooMuch(
                f"the filter looks at more than {PREFETCH_MAX} Observations; filter Observations themselves, by "
                "Datastream/… paths and phenomenonTime"
            )
        known: dict[int, list[Entity]] = {}
        for entity in read.rows.entities(0, len(read.rows)):
            known.setdefault(source_of(entity).datastream.id, []).append(entity)
        self._view.observations = known

    # ── entities in memory ────────────────────────────────────────────────────────────────────────────

    async def _in_memory(self, entities: EntityRange, options: QueryOptions, after: PageToken | None) -> EntityPage:
        ids, view, kind = entities.ids, self._view, entities.kind
        top = self.top_of(options)
        is_plain = _is_by_id(options.order)
        if is_plain and options.filter is None:
            if _is_descending(options.order):
                ids = ids[::-1]
                rest = [number for number in ids if number < after.id] if after else ids
            else:
                rest = page_of(ids, after.id if after else None)
            chosen = rest[options.skip : options.skip + top]
            matched = view.entities(kind.name, chosen)
            is_last = options.skip + top >= len(rest)
            token = "" if is_last or not chosen else token_text(PageToken(chosen[-1]))
            return EntityPage(matched, token, len(ids) if options.count else None)
        matching = await self._matching(entities, options.filter)
        return self._cut(kind, matching, options, after, top)

    async def _matching(self, entities: EntityRange, condition: Expression | None) -> list[Entity]:
        view, kind = self._view, entities.kind
        holds = compile_expression(condition, kind, view, "$filter") if condition is not None else None
        until = time.monotonic() + EVALUATE_S
        matching: list[Entity] = []
        for start in range(0, len(entities.ids), CHUNK):
            chunk = view.entities(kind.name, entities.ids[start : start + CHUNK])
            matching += [entity for entity in chunk if holds is None or is_true(holds(entity))]
            await _pause(until)
        return matching

    def _cut(
        self, kind: EntityKind, entities: list[Entity], options: QueryOptions, after: PageToken | None, top: int
    ) -> EntityPage:
        """Return the page of entities that match, sorted by the keys of the order and then by id."""
        rank = self._ranks(kind, options.order)
        descending = [key.descending for key in options.order]
        ranked = [(rank(entity), entity) for entity in entities]
        ranked.sort(key=lambda pair: pair[1].id)
        for place in range(len(descending) - 1, -1, -1):
            ranked.sort(key=lambda pair: pair[0][place], reverse=descending[place])
        begin = 0
        if after is not None:
            begin = next(
                (at for at, (ranks, entity) in enumerate(ranked) if _is_after(ranks, entity.id, after, descending)),
                len(ranked),
            )
        begin += options.skip
        chosen = ranked[begin : begin + top]
        token = ""
        if chosen and begin + top < len(ranked):
            ranks, last = chosen[-1]
            token = token_text(PageToken(last.id, ranks))
        return EntityPage([entity for _, entity in chosen], token, len(entities) if options.count else None)

    def _ranks(self, kind: EntityKind, order: Sequence[OrderKey]) -> Callable[[Entity], list[tuple[int, Any]]]:
        keys = [compile_expression(key.expression, kind, self._view, "$orderby") for key in order]
        return lambda entity: [order_rank(key(entity)) for key in keys]

    # ── Observations ──────────────────────────────────────────────────────────────────────────────────

    async def _observations(self, entities: EntityRange, options: QueryOptions, after: PageToken | None) -> EntityPage:
        top = self.top_of(options)
        if not (order := _time_order(options.order)):
            return await self._sorted_observations(entities, options, after, top)
        descending = order == "desc"
        bounds = bounds_of(options.filter)
        span = bounds.span
        if after is None and options.filter is None and top + options.skip <= 1 and not options.count and descending:
            return self._latest(entities, top if not options.skip else 0)
        moment = _moment_of(after) if after else 0
        if after is not None and not options.count:
            # What lies before the key need not be read again.
            span = (
                Span(span.begin, min(span.end, moment + 1)) if descending else Span(max(span.begin, moment), span.end)
            )
        condition = None if bounds.is_exact else options.filter
        await self._reach(entities, condition)
        holds = compile_expression(condition, _OBSERVATION, self._view, "$filter") if condition is not None else None
        limit = options.skip + top + 1
        while True:
            wanted = ROWS_MAX if options.count else limit
            read = await self._reader.read(self._view, entities.streams, span, wanted, descending=descending)
            if options.count and not read.is_complete:
                raise TooMuch(f"$count would read more than {ROWS_MAX} Observations; leave it out, or bound the time")
            rows, size = read.rows, read.size
            place = rows.place_after(moment, after.id, descending=descending) if after is not None else 0
            matched, total = await self._filtered(
                rows, size, place, _Condition(holds, entities.feature, options.count), limit
            )
            if len(matched) >= limit or read.is_complete:
                break
            limit = max(2 * limit, 1_000)
        chosen = matched[options.skip : options.skip + top]
        more = len(matched) > options.skip + top
        token = token_text(self._token_of(chosen[-1])) if chosen and more else ""
        return EntityPage(chosen, token, total if options.count else None)

    async def pages_together(self, ranges: Sequence[EntityRange], options: QueryOptions) -> list[EntityPage]:
        """Return the first page of each of several ranges, whose Observations are read in one go."""
        bounds = bounds_of(options.filter)
        streams = {stream.id: stream for entry in ranges for stream in entry.streams}
        read = await self._reader.read(self._view, list(streams.values()), bounds.span, PREFETCH_MAX, descending=True)
        if len(read.rows) > PREFETCH_MAX or not read.is_complete:
            raise TooMuch(
                f"$expand would read more than {PREFETCH_MAX} Observations; bound phenomenonTime in its $filter, "
                "expand Observations of fewer Datastreams, or with $top=1"
            )
        await self._reach(EntityRange(_OBSERVATION), options.filter)
        condition = None if bounds.is_exact else options.filter
        holds = compile_expression(condition, _OBSERVATION, self._view, "$filter") if condition is not None else None
        until = time.monotonic() + EVALUATE_S
        of_stream: dict[int, list[Entity]] = {}
        for start in range(0, len(read.rows), CHUNK):
            for entity in read.rows.entities(start, min(start + CHUNK, len(read.rows))):
                if holds is None or is_true(holds(entity)):
                    of_stream.setdefault(source_of(entity).datastream.id, []).append(entity)
            await _pause(until)
        order = options.order or (OrderKey(FieldPath(("phenomenonTime",)), descending=True),)
        options = msgspec.structs.replace(options, order=order)
        pages = []
        for entry in ranges:
            mine = [entity for stream in entry.streams for entity in of_stream.get(stream.id, ())]
            mine = [entity for entity in mine if entry.feature in {0, source_of(entity).feature}]
            page = self._cut(_OBSERVATION, mine, options, None, self.top_of(options))
            if page.token and _time_order(options.order):
                page = msgspec.structs.replace(page, token=token_text(self._token_of(page.entities[-1])))
            pages.append(page)
        return pages

    async def _filtered(
        self,
        rows: ObservationSet,
        size: int,
        place: int,
        condition: _Condition,
        limit: int,
    ) -> tuple[list[Entity], int]:
        """Return the matching Observations from a place on, at most `limit`, and how many match where that counts."""
        if condition.holds is None and not condition.feature:
            return rows.entities(place, min(place + limit, size)), size
        until = time.monotonic() + EVALUATE_S
        matched: list[Entity] = []
        total = 0
        for start in range(0 if condition.counts else place, size, CHUNK):
            chunk = rows.entities(start, min(start + CHUNK, size))
            for offset, entity in enumerate(chunk):
                if condition.admits(entity):
                    total += 1
                    if start + offset >= place and len(matched) < limit:
                        matched.append(entity)
            if len(matched) >= limit and not condition.counts:
                break
            await _pause(until)
        return matched, total

    async def _reach(self, entities: EntityRange, condition: Expression | None) -> None:
        """Make the entities known that a filter of Observations reaches and that are many."""
        if condition is not None:
            await self.prefetch(entities.kind, QueryOptions(filter=condition))

    def _latest(self, entities: EntityRange, top: int) -> EntityPage:
        latest = self._reader.latest(self._view, entities.streams)
        matched = [entity for entity in latest.values() if entities.feature in {0, source_of(entity).feature}]
        if not matched or not top:
            return EntityPage([])
        newest = max(matched, key=lambda entity: (source_of(entity).time, entity.id))
        # Whether there are earlier ones is not known here: the next page may be empty.
        return EntityPage([newest], token_text(self._token_of(newest)))

    @staticmethod
    def _token_of(entity: Entity) -> PageToken:
        return PageToken(entity.id, [(3, source_of(entity).time)])

    async def _sorted_observations(
        self, entities: EntityRange, options: QueryOptions, after: PageToken | None, top: int
    ) -> EntityPage:
        bounds = bounds_of(options.filter)
        read = await self._reader.read(self._view, entities.streams, bounds.span, PREFETCH_MAX, descending=True)
        if len(read.rows) > PREFETCH_MAX or not read.is_complete:
            raise TooMuch(
                f"$orderby would sort more than {PREFETCH_MAX} Observations; order by phenomenonTime, or bound the time"
            )
        condition = options.filter
        await self._reach(entities, condition)
        holds = compile_expression(condition, _OBSERVATION, self._view, "$filter") if condition is not None else None
        admitted = _Condition(holds, entities.feature)
        matched, _ = await self._filtered(read.rows, len(read.rows), 0, admitted, PREFETCH_MAX)
        return self._cut(_OBSERVATION, matched, options, after, top)


async def _pause(until: float) -> None:
    """Let other tasks run. Raises `TooMuch` after a time."""
    if time.monotonic() > until:
        raise TooMuch(
            f"the filter or order takes more than {EVALUATE_S:g} s; start from fewer entities, such as those of one "
            "Thing, or bound phenomenonTime"
        )
    await asyncio.sleep(0)


def source_of(entity: Entity) -> ObservationSource:
    """Return the source of an Observation."""
    assert isinstance(entity.source, ObservationSource)  # noqa: S101 - Observations are made with it
    return entity.source


def _is_by_id(order: Sequence[OrderKey]) -> bool:
    match list(order):
        case []:
            return True
        case [OrderKey(FieldPath((name,)))]:
            return name in ID_NAMES
    return False


def _is_descending(order: Sequence[OrderKey]) -> bool:
    return bool(order) and order[0].descending


def _time_order(order: Sequence[OrderKey]) -> str:
    """Return the direction of an order of Observations by time; empty: it is another order."""
    match list(order):
        case []:
            return "desc"
        case [OrderKey(FieldPath(("phenomenonTime",)), descending), *rest]:
            is_by_time = all(_is_by_id([key]) for key in rest) and len(rest) <= 1
            return ("desc" if descending else "asc") if is_by_time else ""
    return ""


def _moment_of(token: PageToken) -> int:
    match token.ranks:
        case [(3, int() as moment)]:
            return moment
    raise BadRequest("query: $skiptoken: is of another order; take @iot.nextLink unchanged")


def _is_after(ranks: Sequence[tuple[int, Any]], number: int, token: PageToken, descending: Sequence[bool]) -> bool:
    """Return whether an entity comes after the position of a token."""
    if len(token.ranks) != len(descending):
        raise BadRequest("query: $skiptoken: is of another order; take @iot.nextLink unchanged")
    for (kind, value), rank, is_descending in zip(token.ranks, ranks, descending, strict=True):
        other = (kind, tuple(value) if isinstance(value, list) else value)
        try:
            if rank != other:
                return (rank < other) if is_descending else (rank > other)
        except TypeError:
            raise BadRequest("query: $skiptoken: is not of a nextLink; take @iot.nextLink unchanged") from None
    return number > token.id


def streams_of(view: CallerView, entity: Entity) -> tuple[Sequence[SeenDatastream], int]:
    """Return the Datastreams of an entity's Observations, and the FeatureOfInterest that these must have (0: any)."""
    if isinstance(entity.source, SeenDatastream):
        return [entity.source], 0
    if isinstance(entity.source, SeenThing):
        return entity.source.datastreams, entity.id
    return list(view.structure.datastreams.values()), entity.id
