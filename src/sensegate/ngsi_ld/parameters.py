"""Parameters of requests that read entities: conditions, members to show, form, and page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sensegate.ngsi_ld.contexts import LD_JSON, ContextSource, LdContext, LdContexts, context_of_query, link_header
from sensegate.ngsi_ld.core_context import CORE_URL
from sensegate.ngsi_ld.geo_query import parse_geo_query
from sensegate.ngsi_ld.hosted_contexts import HOSTED, PATH
from sensegate.ngsi_ld.logic import parse_words
from sensegate.ngsi_ld.patterns import pattern_of
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.representation import LOCATION, EntityForm, Projection, Rendering, languages_of
from sensegate.ngsi_ld.retrieval import Condition, EntityQuery, EntitySelector
from sensegate.ngsi_ld.value_query import parse_value_query
from sensegate.web.parts import PartKey
from sensegate.web.routing import Call, QueryParam

JSON, GEOJSON = "application/json", "application/geo+json"
_MEDIA = (JSON, LD_JSON, GEOJSON)
CONTEXTS = PartKey[LdContexts]("ngsi-ld contexts", absent="this gateway has no NGSI-LD API")
LIMIT, LIMIT_MAX = 20, 1_000
OFFSET_MAX = 10_000_000
TEMPORAL_OPTIONS = ("temporalValues", "aggregatedValues")
OPTIONS = ("normalized", "concise", "simplified", "keyValues", "sysAttrs", "count", "local")
ANSWER_PARAMS = (
    QueryParam("options", f"some of {', '.join(OPTIONS)}, separated by commas"),
    QueryParam("format", "normalized, concise or simplified"),
    QueryParam("geometryProperty", "with application/geo+json: attribute that is the geometry; default location"),
    QueryParam("local", "true: without entities of other brokers; there are none here", "boolean"),
)
MEMBER_PARAMS = (
    QueryParam("attrs", "names of the attributes to show; an entity without any of them does not match"),
    QueryParam("pick", "names of the members to show"),
    QueryParam("omit", "names of the members not to show"),
    QueryParam("datasetId", "URIs of the data sets to show; @none is the default instance"),
    QueryParam("lang", "language of language properties, as in Accept-Language"),
)
PROJECTION_PARAMS = (*MEMBER_PARAMS, *ANSWER_PARAMS)
PAGE_PARAMS = (
    QueryParam(
        "limit",
        f"most entities of a page, default {LIMIT}; 0 with count for the number only",
        "integer",
        minimum=0,
        maximum=LIMIT_MAX,
    ),
    QueryParam("offset", "how many entities are passed over", "integer", minimum=0, maximum=OFFSET_MAX),
    QueryParam("count", "true: NGSILD-Results-Count has the number of all that match", "boolean"),
)
CONDITION_PARAMS = (
    QueryParam("id", "URIs of entities, separated by commas"),
    QueryParam("type", "entity types, joined by , | ; and parentheses"),
    QueryParam("idPattern", "regular expression (RE2) that the id matches"),
    QueryParam("q", 'condition on values: pm25>35;quality=="good"|name~=^a'),
    QueryParam("georel", "near;maxDistance==METRES, within, contains, intersects, equals, disjoint or overlaps"),
    QueryParam("geometry", "type of the geometry: Point, LineString, Polygon, or several of them (Multi…)"),
    QueryParam("coordinates", "coordinates of the geometry as JSON: [113.3,23.1]"),
    QueryParam("geoproperty", "attribute that is the place of an entity; default location"),
    QueryParam("scopeQ", "scopes, joined by , ; and parentheses: /44/4401, /44/+, /44/#"),
)
QUERY_PARAMS = (*CONDITION_PARAMS, *PAGE_PARAMS)
LIST_PARAMS = (
    QueryParam("details", "true: each with its attributes, or types", "boolean"),
    QueryParam("local", "true: without entities of other brokers; there are none here", "boolean"),
)


class Page(msgspec.Struct, frozen=True):
    """Part of the answer that is wanted."""

    offset: int
    limit: int
    count: bool


class Answering(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Form of the answer to a request."""

    media: str
    rendering: Rendering
    projection: Projection
    headers: dict[str, str]
    context: object = None
    """`@context` of the body; None: it has none."""
    demands_attributes: bool = False
    """True if attributes were named, of which an entity needs one."""

    def with_context(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a document with its `@context`, where the media type demands it."""
        if self.context is not None:
            document["@context"] = self.context
        return document


def context_of(call: Call) -> LdContext:
    """Return the `@context` of a request without a body. Raises `NgsiError`."""
    return call.part(CONTEXTS).resolve(context_of_query(call.request.headers.getall("Link", [])))


def media_of(call: Call) -> str:
    """Return the media type of the answer. Raises `NgsiError`."""
    accept = call.request.headers.get("Accept", "*/*")
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept.split(",")[:20]):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            ranked.append((-float(weight), place, name.lower()))
        except ValueError:
            raise NgsiError(ErrorType.INVALID_REQUEST, f"Accept: '{weight[:20]}' is not a weight") from None
    for rank, _, name in sorted(ranked):
        if rank == 0:
            continue
        if name in _MEDIA:
            return name
        if name in {"*/*", "application/*"}:
            return JSON
    raise NotAcceptable(f"Accept: '{accept[:80]}' is not served; use one of {', '.join(_MEDIA)}")


class NotAcceptable(NgsiError):
    """No media type of the answer is acceptable (406)."""

    def __init__(self, problem: str) -> None:
        super().__init__(ErrorType.INVALID_REQUEST, problem)
        self.status = 406


class AnswerTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Members to show and their form, as the caller wrote them."""

    attributes: tuple[str, ...] = ()
    pick: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    lang: str = ""


def answering_of(call: Call, context: LdContext | None = None, texts: AnswerTexts | None = None) -> Answering:
    """Return how a request is answered; `context` and `texts`: those of its body. Raises `NgsiError`."""
    options = options_of(call)
    terms, media = context or context_of(call), media_of(call)
    texts = texts or AnswerTexts(
        attributes=names_of(call, "attrs"),
        pick=names_of(call, "pick"),
        omit=names_of(call, "omit"),
        datasets=names_of(call, "datasetId"),
        lang=call.text("lang"),
    )
    if texts.attributes and (texts.pick or texts.omit):
        raise bad_data("attrs: does not go with pick or omit; give the latter")
    expand = _member(terms)
    shown: frozenset[str] | None = None
    if texts.attributes:
        shown = frozenset({"id", "type", "scope", *map(terms.expand, texts.attributes)})
    elif texts.pick:
        shown = frozenset(map(expand, texts.pick))
    datasets, geometry = texts.datasets, call.text("geometryProperty")
    return Answering(
        media=media,
        rendering=Rendering(
            terms=terms,
            form=form_of(call, options),
            sys_attrs="sysAttrs" in options,
            languages=languages_of(texts.lang) if texts.lang else (),
            geometry=terms.expand(geometry) if geometry else LOCATION,
            dataset=datasets[0] if len(datasets) == 1 and datasets[0] != "@none" else "",
        ),
        projection=Projection(shown, frozenset(map(expand, texts.omit)), frozenset(datasets) if datasets else None),
        headers=_link_of(call, terms) if media != LD_JSON else {},
        context=_document_context(terms.source) if media == LD_JSON else None,
        demands_attributes=bool(texts.attributes or texts.pick),
    )


def _link_of(call: Call, context: LdContext) -> dict[str, str]:
    """Return the Link header that names a context; one that stood inside the request has an address here."""
    source = context.source
    return {"Link": link_header(source if isinstance(source, str) else address_of(call, source))}


def address_of(call: Call, source: ContextSource) -> str:
    """Return the address here of an @context that stood inside a request."""
    return f"{call.request.url.origin()}{PATH}/{call.part(HOSTED).implicit(source).id}"


def _document_context(source: ContextSource) -> object:
    """Return the `@context` of a body: what the client gave, and the core context."""
    if source == CORE_URL:
        return source
    return [*(source if isinstance(source, list) else [source]), CORE_URL]


def _member(terms: LdContext) -> Callable[[str], str]:
    return lambda name: name if name in {"id", "type", "scope"} else terms.expand(name)


def options_of(call: Call) -> frozenset[str]:
    """Return the options of a request. Raises `NgsiError`."""
    options = call.values("options")
    for name in options:
        if name not in OPTIONS and not (name in TEMPORAL_OPTIONS and "/temporal/" in call.request.path):
            raise bad_data(f"query: options: '{name[:40]}' is unknown; use some of {', '.join(OPTIONS)}")
    return frozenset(options)


def form_of(call: Call, options: frozenset[str]) -> EntityForm:
    """Return the form of entities. Raises `NgsiError`."""
    named = call.text("format") or next(
        (name for name in ("simplified", "keyValues", "concise") if name in options), "normalized"
    )
    if named == "keyValues":
        return EntityForm.SIMPLIFIED
    if named in TEMPORAL_OPTIONS and "/temporal/" in call.request.path:
        return EntityForm.NORMALIZED
    if named not in set(EntityForm):
        raise bad_data(f"query: format: '{named[:40]}' is unknown; use {', '.join(EntityForm)}")
    return EntityForm(named)


def names_of(call: Call, key: str) -> tuple[str, ...]:
    """Return the names of a parameter. Raises `NgsiError`: it is there and empty."""
    names = call.values(key)
    if key in call.request.query and not names:
        raise bad_data(f"query: {key}: is empty; leave it out or name something")
    return names


def query_of(call: Call, answering: Answering) -> EntityQuery:
    """Return the conditions of a query by GET. Raises `NgsiError`."""
    geometry = {name: call.text(name) for name in ("georel", "geometry", "coordinates", "geoproperty")}
    return query_from(
        QueryTexts(
            selectors=(SelectorTexts(names_of(call, "id"), call.text("type"), call.text("idPattern")),),
            attributes=names_of(call, "attrs"),
            q=call.text("q"),
            scope_q=call.text("scopeQ"),
            georel=geometry["georel"],
            geometry=geometry["geometry"],
            coordinates=geometry["coordinates"],
            geoproperty=geometry["geoproperty"],
        ),
        answering.rendering.terms,
        is_local=is_local(call),
    )


def is_local(call: Call) -> bool:
    """Return whether a request is for the entities of this gateway only."""
    return is_true(call, "local") or "local" in options_of(call)


class SelectorTexts(msgspec.Struct, frozen=True):
    """Selection of entities, as the caller wrote it."""

    ids: tuple[str, ...] = ()
    type: str = ""
    id_pattern: str = ""


class QueryTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions on entities, as the caller wrote them: by GET, by POST, or in a subscription."""

    selectors: tuple[SelectorTexts, ...] = ()
    attributes: tuple[str, ...] = ()
    q: str = ""
    scope_q: str = ""
    georel: str = ""
    geometry: str = ""
    coordinates: object = None
    """JSON, or its text."""
    geoproperty: str = ""


def query_from(texts: QueryTexts, context: LdContext, *, is_local: bool = False, is_open: bool = False) -> EntityQuery:
    """Return the conditions of a query.

    Args:
        texts: as the caller wrote them.
        context: translates names.
        is_local: without entities of other brokers; then the query needs no condition.
        is_open: the query needs no condition in any case.

    Raises:
        NgsiError: naming the parameter that is wrong.
    """
    expand = context.expand
    selectors = [_selector(selector, expand) for selector in texts.selectors if selector != SelectorTexts()]
    has_types = any(selector.type for selector in texts.selectors)
    if not (has_types or texts.attributes or texts.q or texts.georel or is_local or is_open):
        raise bad_data("query: has no type, attrs, q or georel; give at least one of them")
    conditions: list[Condition] = []
    if texts.q:
        conditions.append(parse_value_query(texts.q, expand, key="q"))
    if texts.georel:
        attribute = expand(texts.geoproperty) if texts.geoproperty else LOCATION
        conditions.append(parse_geo_query(texts.georel, texts.geometry, texts.coordinates or "", attribute))
    elif texts.geometry or texts.coordinates or texts.geoproperty:
        raise bad_data("georel: is missing; give for example near;maxDistance==1000")
    return EntityQuery(
        selectors=tuple(selectors),
        attributes=frozenset(map(expand, texts.attributes)),
        conditions=tuple(conditions),
        scopes=parse_words("scopeQ", texts.scope_q) if texts.scope_q else None,
    )


def _selector(texts: SelectorTexts, expand: Callable[[str], str]) -> EntitySelector:
    for name in texts.ids:
        check_uri("id", name)
    return EntitySelector(
        ids=frozenset(texts.ids),
        types=parse_words("type", texts.type).mapped(expand) if texts.type and texts.type != "*" else None,
        id_pattern=pattern_of("idPattern", texts.id_pattern) if texts.id_pattern else None,
    )


def check_uri(key: str, text: str) -> None:
    """Return if a text is an absolute URI. Raises `NgsiError`."""
    scheme, colon, rest = text.partition(":")
    if not (colon and rest and scheme[:1].isalpha() and scheme.replace("+", "").replace("-", "").isalnum()):
        raise bad_data(f"{key}: '{text[:80]}' is not a URI; give for example urn:ngsi-ld:Device:x1")


def is_true(call: Call, key: str) -> bool:
    """Return a parameter that is a truth value. Raises `NgsiError`."""
    text = call.text(key, "false")
    if text not in {"true", "false"}:
        raise bad_data(f"query: {key}: '{text[:20]}' is not a truth value; give true or false")
    return text == "true"


def page_of(call: Call) -> Page:
    """Return the page that a request asks for. Raises `NgsiError`."""
    count = is_true(call, "count") or "count" in options_of(call)
    limit = _whole(call, "limit", LIMIT, LIMIT_MAX)
    if not limit and not count:
        raise bad_data("query: limit: is 0 without count; give count=true, or 1 or more")
    return Page(_whole(call, "offset", 0, OFFSET_MAX), limit, count)


def _whole(call: Call, key: str, default: int, most: int) -> int:
    text = call.text(key)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise bad_data(f"query: {key}: '{text[:20]}' is not a whole number; give 0 to {most}")
    if int(text) > most:
        kind = ErrorType.TOO_MANY_RESULTS if key == "limit" else ErrorType.BAD_REQUEST_DATA
        raise NgsiError(kind, f"query: {key}: {text} is too much; give 0 to {most}, and follow the Link headers")
    return int(text)
