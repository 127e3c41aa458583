"""Parameters of requests that read entities: conditions, members to show, form, and page."""

from __future__ import annotations

from typing import Any

import msgspec
import re2

from sensegate.ngsi_ld.contexts import ContextSource, LdContext, LdContexts, context_of_query, link_header
from sensegate.ngsi_ld.core_context import CORE_URL
from sensegate.ngsi_ld.logic import parse_words
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.representation import LOCATION, EntityForm, Projection, Rendering, languages_of
from sensegate.ngsi_ld.retrieval import EntityQuery
from sensegate.ports import PartKey
from sensegate.web.routing import Call, QueryParam

JSON, LD_JSON, GEOJSON = "application/json", "application/ld+json", "application/geo+json"
_MEDIA = (JSON, LD_JSON, GEOJSON)
CONTEXTS = PartKey[LdContexts]("ngsi-ld contexts", absent="this gateway has no NGSI-LD API")
LIMIT, LIMIT_MAX = 20, 1_000
OFFSET_MAX = 10_000_000
PATTERN_MAX = 500
OPTIONS = ("normalized", "concise", "simplified", "keyValues", "sysAttrs", "count", "local")
PROJECTION_PARAMS = (
    QueryParam("attrs", "names of the attributes to show; an entity without any of them does not match"),
    QueryParam("pick", "names of the members to show"),
    QueryParam("omit", "names of the members not to show"),
    QueryParam("datasetId", "URIs of the data sets to show; @none is the default instance"),
    QueryParam("options", f"some of {', '.join(OPTIONS)}, separated by commas"),
    QueryParam("format", "normalized, concise or simplified"),
    QueryParam("lang", "language of language properties, as in Accept-Language"),
    QueryParam("geometryProperty", "with application/geo+json: attribute that is the geometry; default location"),
    QueryParam("local", "true: without entities of other brokers; there are none here", "boolean"),
)
QUERY_PARAMS = (
    QueryParam("id", "URIs of entities, separated by commas"),
    QueryParam("type", "entity types, joined by , | ; and parentheses"),
    QueryParam("idPattern", "regular expression (RE2) that the id matches"),
    QueryParam("scopeQ", "scopes, joined by , ; and parentheses: /44/4401, /44/+, /44/#"),
    QueryParam("limit", f"most entities of a page, default {LIMIT}; 0 with count for the number only", "integer"),
    QueryParam("offset", "how many entities are passed over", "integer"),
    QueryParam("count", "true: NGSILD-Results-Count has the number of all that match", "boolean"),
)


class Page(msgspec.Struct, frozen=True):
    """Part of the answer that is wanted."""

    offset: int
    limit: int
    count: bool


class Answering(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How a request is answered."""

    media: str
    rendering: Rendering
    projection: Projection
    headers: dict[str, str]
    context: object = None
    """`@context` of the body; None: it has none."""
    demands_attributes: bool = False
    """Whether attributes were named, of which an entity needs one."""

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


def answering_of(call: Call, context: LdContext | None = None) -> Answering:
    """Return how a request is answered; `context`: that of its body. Raises `NgsiError`."""
    options = options_of(call)
    terms, media = context or context_of(call), media_of(call)
    attributes = names_of(call, "attrs")
    pick, omit = names_of(call, "pick"), names_of(call, "omit")
    if attributes and (pick or omit):
        raise bad_data("query: attrs: does not go with pick or omit; give the latter")
    expand = _member(terms)
    shown: frozenset[str] | None = None
    if attributes:
        shown = frozenset({"id", "type", "scope", *map(terms.expand, attributes)})
    elif pick:
        shown = frozenset(map(expand, pick))
    datasets = names_of(call, "datasetId")
    geometry = call.text("geometryProperty")
    return Answering(
        media=media,
        rendering=Rendering(
            terms=terms,
            form=form_of(call, options),
            sys_attrs="sysAttrs" in options,
            languages=languages_of(call.text("lang")) if call.text("lang") else (),
            geometry=terms.expand(geometry) if geometry else LOCATION,
            dataset=datasets[0] if len(datasets) == 1 and datasets[0] != "@none" else "",
        ),
        projection=Projection(shown, frozenset(map(expand, omit)), frozenset(datasets) if datasets else None),
        headers=_link_of(terms) if media != LD_JSON else {},
        context=_document_context(terms.source) if media == LD_JSON else None,
        demands_attributes=bool(attributes),
    )


def _link_of(context: LdContext) -> dict[str, str]:
    """Return the Link header that names a context; a context that has no URL stands only in a body."""
    return {"Link": link_header(context.source)} if isinstance(context.source, str) else {}


def _document_context(source: ContextSource) -> object:
    """Return the `@context` of a body: what the client gave, and the core context."""
    if source == CORE_URL:
        return source
    return [*(source if isinstance(source, list) else [source]), CORE_URL]


def _member(terms: LdContext) -> Any:
    return lambda name: name if name in {"id", "type", "scope"} else terms.expand(name)


def options_of(call: Call) -> frozenset[str]:
    """Return the options of a request. Raises `NgsiError`."""
    options = call.values("options")
    for name in options:
        if name not in OPTIONS:
            raise bad_data(f"query: options: '{name[:40]}' is unknown; use some of {', '.join(OPTIONS)}")
    return frozenset(options)


def form_of(call: Call, options: frozenset[str]) -> EntityForm:
    """Return the form of entities. Raises `NgsiError`."""
    named = call.text("format") or next(
        (name for name in ("simplified", "keyValues", "concise") if name in options), "normalized"
    )
    if named == "keyValues":
        return EntityForm.SIMPLIFIED
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
    """Return the conditions of a query. Raises `NgsiError`."""
    expand = answering.rendering.terms.expand
    ids = names_of(call, "id")
    for name in ids:
        check_uri("query: id", name)
    attributes = names_of(call, "attrs")
    types = call.text("type")
    if not (types or attributes or ids or is_true(call, "local")):
        raise bad_data("query: names no type, attrs, q or georel; give at least one of them")
    return EntityQuery(
        ids=ids,
        types=parse_words("query: type", types).mapped(expand) if types and types != "*" else None,
        id_pattern=pattern_of("query: idPattern", call.text("idPattern")) if call.text("idPattern") else None,
        attributes=frozenset(map(expand, attributes)),
        scopes=parse_words("query: scopeQ", call.text("scopeQ")) if call.text("scopeQ") else None,
    )


def check_uri(key: str, text: str) -> None:
    """Return if a text is an absolute URI. Raises `NgsiError`."""
    scheme, colon, rest = text.partition(":")
    if not (colon and rest and scheme[:1].isalpha() and scheme.replace("+", "").replace("-", "").isalnum()):
        raise bad_data(f"{key}: '{text[:80]}' is not a URI; give for example urn:ngsi-ld:Device:x1")


def pattern_of(key: str, text: str) -> Any:
    """Return a regular expression that takes linear time. Raises `NgsiError`."""
    if len(text) > PATTERN_MAX:
        raise bad_data(f"{key}: has {len(text)} characters; give at most {PATTERN_MAX}")
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as why:
        raise bad_data(f"{key}: '{text[:40]}' is not a regular expression of RE2: {why}") from None


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
