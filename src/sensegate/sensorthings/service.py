"""Requests that read: from a resource path and its options to an answer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from sensegate.authority.scope import Principal
from sensegate.sensorthings.answers import Document, DocumentBuilder, check_names, table_of
from sensegate.sensorthings.ingest import ObservationIntake
from sensegate.sensorthings.kinds import KINDS, SETS, Entity, EntityKind
from sensegate.sensorthings.observations import ObservationReader
from sensegate.sensorthings.pages import EntityRange, Pager, parse_token, streams_of
from sensegate.sensorthings.syntax import (
    PathStep,
    QueryOptions,
    parse_expand,
    parse_filter,
    parse_order,
    parse_path,
    parse_select,
)
from sensegate.sensorthings.view import CallerView, CallerViews, ViewParts
from sensegate.share.feeds import FeedFilter
from sensegate.share.sharing import Sharing
from sensegate.web.problems import BadRequest

FORMATS = {"": "json", "DEFAULT": "json", "DATAARRAY": "dataArray", "CSV": "csv", "GEOJSON": "geojson"}
_FORM_OF = {"json": "json", "dataArray": "json", "csv": "csv", "geojson": "geojson"}
"""Result format -> form of records that a grant must cover."""
_MEDIA = {"json": "application/json", "dataArray": "application/json", "csv": "text/csv"}
VALUE, REF, COUNT = "$value", "$ref", "$count"


class ReadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that reads."""

    feed: str
    path: str
    query: Mapping[str, str]
    base: str
    """URL of the service root."""
    url: str
    """Path of the request, with the service root, without its query."""


class ReadAnswer(msgspec.Struct, frozen=True):
    """Answer to a request that reads."""

    body: bytes
    media: str
    count: int
    """Observations in it."""
    grant: str
    form: str
    status: int = 200


class ResourceTarget(msgspec.Struct, frozen=True, eq=False):
    """Target of a resource path."""

    entities: EntityRange | None = None
    entity: Entity | None = None
    names: tuple[str, ...] = ()
    """Property of the entity, and path into its JSON."""
    last: str = ""
    """``$value``, ``$ref``, ``$count`` or empty."""


class _Work(msgspec.Struct, frozen=True, eq=False):
    """A request whose path was resolved."""

    request: ReadRequest
    target: ResourceTarget
    options: QueryOptions
    form: str
    pager: Pager
    answers: DocumentBuilder


def not_found(problem: str) -> BadRequest:
    """Return the error for a path that names nothing that the caller sees."""
    return BadRequest(problem, status=404)


class CreationTarget(msgspec.Struct, frozen=True, eq=False):
    """Target of a creation: the kind of the entity, and its parent."""

    kind: EntityKind
    parent: Entity | None


def options_of(query: Mapping[str, str]) -> QueryOptions:
    """Return the options of a request. Raises `BadRequest`."""
    return QueryOptions(
        filter=parse_filter(query["$filter"]) if "$filter" in query else None,
        order=parse_order(query["$orderby"]) if "$orderby" in query else (),
        select=parse_select(query["$select"]) if "$select" in query else (),
        expand=parse_expand(query["$expand"]) if "$expand" in query else (),
        top=_integer(query, "$top"),
        skip=_integer(query, "$skip") or 0,
        count=_truth(query, "$count"),
    )


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise BadRequest(f"query: {name}: '{text[:20]}' is not a whole number; give 0 or more")
    return int(text)


def _truth(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in {"true", "false"}:
        raise BadRequest(f"query: {name}: '{text[:20]}' is not a truth value; give true or false")
    return text == "true"


def format_of(query: Mapping[str, str]) -> str:
    """Return the result format of a request. Raises `BadRequest`."""
    text = query.get("$resultFormat", "")
    if text.upper() not in FORMATS:
        raise BadRequest(f"query: $resultFormat: '{text[:20]}' is unknown; use dataArray, CSV or GeoJSON")
    return FORMATS[text.upper()]


class SensorThings:
    """The service for reading."""

    def __init__(self, sharing: Sharing, parts: ViewParts, reader: ObservationReader, *, top_max: int) -> None:
        self.sharing = sharing
        self.intake = ObservationIntake(sharing.reader, reader)
        self.parts = parts
        self.views = CallerViews(parts)
        self.reader = reader
        self._top_max = top_max

    async def view(self, principal: Principal, feed: str, form: str, now: int, delivery: str = "http") -> CallerView:
        """Return a caller's view of a feed. Raises `NotFound`, `PermissionDenied`."""
        admission = self.sharing.admit(principal, feed, FeedFilter(), delivery, form)
        return await self.views.open(principal, admission, now)

    async def read(self, principal: Principal, request: ReadRequest, now: int) -> ReadAnswer:
        """Return the answer to a request that reads, within the quota of the grant.

        Raises:
            BadRequest: it is not understood, or its path names nothing that the caller sees (404).
            NotFound, PermissionDenied, TooMuch, Overloaded, Unavailable.
        """
        form = format_of(request.query)
        options, steps = options_of(request.query), parse_path(request.path)
        # What the log holds now is to be found, even where it was not read yet.
        await self.reader.catch_up()
        view = await self.view(principal, request.feed, _FORM_OF[form], now)
        pager = Pager(view, self.reader, top_max=self._top_max)
        answers = DocumentBuilder(view, self.reader, pager, request.base)
        target = await self.resolve(view, steps)
        work = _Work(request, target, options, form, pager, answers)
        body, media, status = await _set(work) if target.entities is not None else await _one_entity(work)
        if view.admission.quota is not None:
            view.admission.quota.consume_all(answers.observations)
        return ReadAnswer(body, media, answers.observations, view.admission.grant_id, _FORM_OF[form], status)

    # ── paths ─────────────────────────────────────────────────────────────────────────────────────────

    async def resolve(self, view: CallerView, steps: tuple[PathStep, ...]) -> ResourceTarget:
        """Return the target of a resource path. Raises `BadRequest`."""
        first, *rest = steps
        kind = SETS.get(first.name)
        if kind is None:
            near = difflib.get_close_matches(first.name, SETS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SETS)}"
            raise not_found(f"path: there is no entity set '{first.name[:40]}'; {hint}")
        if first.id is None:
            target = ResourceTarget(_all_of(view, kind))
        else:
            target = await self._entity_at(view, EntityRange(kind), first, everywhere=True)
        for step in rest:
            if target.last or (target.names and step.id is not None):
                raise not_found(f"path: nothing follows {target.last or target.names[-1]}")
            target = await self._step(view, target, step)
        return target

    async def resolve_parent(self, view: CallerView, steps: tuple[PathStep, ...]) -> CreationTarget:
        """Return where an entity is to be created: in a set, or at a link of an entity. Raises `BadRequest`."""
        last = steps[-1]
        if last.id is not None:
            raise BadRequest("path: names an entity; POST to a set, such as Things")
        if len(steps) == 1:
            if last.name not in SETS:
                raise not_found(f"path: there is no entity set '{last.name[:40]}'; there are {', '.join(SETS)}")
            return CreationTarget(SETS[last.name], None)
        target = await self.resolve(view, steps[:-1])
        parent = target.entity
        link = parent.kind.links.get(last.name) if parent is not None and not target.names else None
        if link is None or not link.is_many:
            raise not_found(f"path: nothing is created at {last.name[:40]}")
        return CreationTarget(KINDS[link.target], parent)

    async def _entity_at(
        self, view: CallerView, entities: EntityRange, step: PathStep, *, everywhere: bool = False
    ) -> ResourceTarget:
        """Return one entity of a range, or (`everywhere`) of all of its type. Raises `BadRequest`."""
        assert step.id is not None  # noqa: S101 - as the callers found it
        kind, number = entities.kind, step.id
        if kind.name == "Observation":
            entity = await self.reader.find(view, number)
            if entity is not None and not everywhere:
                streams = {stream.id for stream in entities.streams}
                owner = view.linked(entity, "Datastream")
                entity = entity if streams.intersection(owner) else None
        else:
            entity = view.find(kind.name, number)
            if entity is not None and not everywhere and number not in entities.ids:
                entity = None
        if entity is None:
            raise not_found(f"path: there is no {step.name}({number}) that you see")
        return ResourceTarget(entity=entity)

    async def _step(self, view: CallerView, target: ResourceTarget, step: PathStep) -> ResourceTarget:
        name = step.name
        if name in {VALUE, REF, COUNT}:
            return _closed(target, name)
        entity = target.entity
        if entity is None:
            raise not_found(f"path: '{name[:40]}' does not follow a set; name one entity, such as Things(1)")
        if target.names:
            return msgspec.structs.replace(target, names=(*target.names, name))
        link = entity.kind.links.get(name)
        if link is None:
            if name not in entity.kind.fields or step.id is not None:
                known = ", ".join([*entity.kind.fields, *entity.kind.links])
                raise not_found(f"path: {entity.kind.name} has no '{name[:40]}'; it has {known}")
            return ResourceTarget(entity=entity, names=(name,))
        if not link.is_many:
            linked = next(iter(view.follow(entity, name)), None)
            if linked is None:
                raise not_found(f"path: this {entity.kind.name} has no {name}")
            return ResourceTarget(entity=linked)
        kind = KINDS[link.target]
        if kind.name == "Observation":
            streams, feature = streams_of(view, entity)
            entities = EntityRange(kind, streams=streams, feature=feature)
        else:
            entities = EntityRange(kind, view.linked(entity, name))
        return ResourceTarget(entities) if step.id is None else await self._entity_at(view, entities, step)


async def _one_entity(work: _Work) -> tuple[bytes, str, int]:
    """Return (body, media type, status) of an entity, or of a property of it."""
    target, answers, options = work.target, work.answers, work.options
    entity = target.entity
    assert entity is not None  # noqa: S101 - a target is a set or an entity
    if target.names:
        return _property(target, entity, answers)
    check_names(entity.kind, options)
    if target.last == REF:
        return msgspec.json.encode({"@iot.selfLink": answers.link_of(entity)}), _MEDIA["json"], 200
    documents = await answers.documents([entity], options)
    if work.form == "geojson":
        return msgspec.json.encode(answers.features([entity], documents)), "application/geo+json", 200
    if work.form == "csv":
        return table_of(entity.kind, documents, options), _MEDIA["csv"], 200
    return msgspec.json.encode(documents[0]), _MEDIA["json"], 200


async def _set(work: _Work) -> tuple[bytes, str, int]:
    """Return (body, media type, status) of a page of a set."""
    target, answers, options, form = work.target, work.answers, work.options, work.form
    entities = target.entities
    assert entities is not None  # noqa: S101 - as the caller found it
    kind = entities.kind
    check_names(kind, options)
    if target.last == COUNT:
        page = await work.pager.page(entities, msgspec.structs.replace(options, count=True, top=0))
        return str(page.count).encode(), "text/plain", 200
    page = await work.pager.page(entities, options, parse_token(work.request.query.get("$skiptoken", "")))
    answer: Document = {}
    if page.count is not None:
        answer["@iot.count"] = page.count
    if target.last == REF:
        answer["value"] = [{"@iot.selfLink": answers.link_of(entity)} for entity in page.entities]
    elif form == "dataArray":
        if kind.name != "Observation":
            raise BadRequest("query: $resultFormat: dataArray is for Observations; use CSV or none")
        answer["value"] = answers.data_arrays(page.entities, options)
    else:
        documents = await answers.documents(page.entities, options)
        if form == "csv":
            return table_of(kind, documents, options), _MEDIA["csv"], 200
        if form == "geojson":
            answer |= answers.features(page.entities, documents)
        else:
            answer["value"] = documents
    if page.token:
        answer["@iot.nextLink"] = _next(work.request, page.token)
    return msgspec.json.encode(answer), "application/geo+json" if form == "geojson" else _MEDIA[form], 200


def _all_of(view: CallerView, kind: EntityKind) -> EntityRange:
    if kind.name == "Observation":
        return EntityRange(kind, streams=list(view.structure.datastreams.values()))
    return EntityRange(kind, view.ids(kind.name))


def _closed(target: ResourceTarget, name: str) -> ResourceTarget:
    """Return a target with its last segment. Raises `BadRequest` where the two do not fit."""
    fits = {
        VALUE: bool(target.names),
        REF: not target.names,
        COUNT: target.entities is not None,
    }
    if not fits[name]:
        expected = {VALUE: "a property", REF: "entities", COUNT: "a set"}[name]
        raise not_found(f"path: {name} follows {expected}")
    return msgspec.structs.replace(target, last=name)


def _property(target: ResourceTarget, entity: Entity, answers: DocumentBuilder) -> tuple[bytes, str, int]:
    """Return a property of an entity, or what lies inside its JSON."""
    value: object = entity.values
    for name in target.names:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif value is entity.values:
            value = None
            break
        else:
            raise not_found(f"path: there is no '{name[:40]}' in {target.names[0]}")
    if entity.kind.name == "Observation":
        answers.observations += 1
    if value is None:
        return b"", "", 204
    if target.last != VALUE:
        return msgspec.json.encode({target.names[-1]: value}), _MEDIA["json"], 200
    if isinstance(value, str):
        return value.encode(), "text/plain", 200
    return msgspec.json.encode(value), "text/plain" if not isinstance(value, (dict, list)) else _MEDIA["json"], 200


def _next(request: ReadRequest, token: str) -> str:
    kept = {name: text for name, text in request.query.items() if name not in {"$skip", "$skiptoken"}}
    query = "&".join(f"{name}={_quoted(text)}" for name, text in {**kept, "$skiptoken": token}.items())
    return f"{request.url}?{query}"


def _quoted(text: str) -> str:
    return quote(text, safe="(),;$='/:")
