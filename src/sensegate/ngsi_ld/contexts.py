"""JSON-LD @context: names of a request ↔ IRIs, without any access to a network.

    source (URL, object or list of both) ─▶ LdContexts.resolve ─▶ LdContext.expand, LdContext.compact

A URL stands for the core @context, or for one that a client stored here (`hosted_contexts`); another one is an error.
The core @context is applied last: its names always mean what the standard says, and a name that no @context defines
lies in the default vocabulary. Only what decides about names is read: scoped contexts, languages, containers and
`@base` are accepted and change nothing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sensegate.ngsi_ld.core_context import CORE_URL, CORE_URLS, DEFAULT_VOCABULARY, core_terms
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data

LINK_RELATION = "http://www.w3.org/ns/json-ld#context"
LD_JSON = "application/ld+json"
DOCUMENT_BYTES_MAX = 262_144
TERMS_MAX = 10_000
"""Most names that one source defines, with all the documents that it refers to; each time it does so counts."""
PARTS_MAX = 1_000
"""Most lists, objects and URLs of one source, with all the documents that it refers to."""
DOCUMENTS_MAX = 20
"""Most URLs that one source refers to."""
NESTING_MAX = 8
"""Most lists and documents inside one another."""
CHAIN_MAX = 16
"""Most names by which one name is defined: a prefix of a prefix of …."""
NAME_MAX = 256
IRI_MAX = 2_048
_CACHED_MAX, _CACHED_BYTES_MAX = 256, 67_108_864
"""Most contexts that are kept, and their size; the one that was used longest ago gives way."""
_NAMES_CACHED_MAX, _NAMES_CACHED_CHARS_MAX = 4_096, 131_072
"""Most names of a context whose IRIs are kept (and IRIs whose names are), and their characters."""
_TERM_BYTES = 300
"""Memory of a name beside its texts, about."""
_KEYWORDS = frozenset({"@id", "@type", "@value", "@list", "@set", "@graph", "@language", "@json", "@none", "@vocab"})
_CONTEXT_KEYWORDS = frozenset(
    {"@version", "@vocab", "@base", "@language", "@direction", "@protected", "@propagate", "@import"}
)
_TERM_KEYWORDS = frozenset(
    {"@id", "@type", "@container", "@language", "@direction", "@prefix", "@protected", "@nest", "@index", "@context"}
)
_KEYWORD_FORM = re.compile(r"@[A-Za-z]+")
_IRI_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]*")
_PREFIX_ENDS = (":", "/", "?", "#", "[", "]", "@")
# Nothing is tried twice: each repetition keeps what it took, and no link begins inside the address of another one.
_LINK = re.compile(r"<([^<>]*+)>\s*+((?:;\s*+[A-Za-z*]++\s*+(?:=\s*+(?:\"[^\"]*+\"|[^\s;,\"]++))?+\s*+)*+)(?:,|$)")
_LINK_PARAMETER = re.compile(r";\s*([A-Za-z*]+)\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]+))")

ContextSource = str | dict[str, Any] | list[Any]
"""A URL, term definitions, or a list of both, as `@context` and the Link header have it."""
FindDocument = Callable[[str], ContextSource | None]
"""URL -> the stored @context; None: it is not stored here."""


class TermDefinition(msgspec.Struct, frozen=True):
    """Definition of a name."""

    iri: str
    """IRI, or a keyword; empty: the @context takes the name out of use."""
    type: str = ""
    """Coercion of its values: an IRI, ``@id``, ``@vocab`` or ``@json``; empty: none."""
    is_prefix: bool = False


class LdContext:
    """An @context with the core @context applied; `LdContexts.resolve` makes it."""

    def __init__(self, source: ContextSource, terms: Mapping[str, TermDefinition]) -> None:
        """`source`: as the client gave it."""
        self.source = source
        self._terms = terms
        self._names: dict[str, str] = {}
        for name, term in terms.items():
            known = self._names.get(term.iri)
            if term.iri and (known is None or (len(name), name) < (len(known), known)):
                self._names[term.iri] = name
        self._prefixes = sorted((term.iri, name) for name, term in terms.items() if term.is_prefix)
        self._expanded = KnownTexts()
        self._compacted = KnownTexts()
        self.size = sum(_TERM_BYTES + len(name) + len(term.iri) + len(term.type) for name, term in terms.items())
        """Memory of its names, about."""

    def expand(self, name: str) -> str:
        """Return the IRI of a name; a keyword for an alias of it, an IRI unchanged.

        Raises:
            NgsiError: it cannot be a name, or the @context takes it out of use.
        """
        if (known := self._expanded.get(name)) is None:
            known = self._expanded.add(name, _expanded(name, self._terms, DEFAULT_VOCABULARY))
        return known

    def compact(self, iri: str) -> str:
        """Return the shortest name of an IRI: a term, a name of the default vocabulary, ``prefix:rest``, or itself."""
        if (known := self._compacted.get(iri)) is None:
            known = self._compacted.add(iri, self._compact(iri))
        return known

    def type_of(self, name: str) -> str:
        """Return the coercion of the values of a name; empty: none."""
        term = self._terms.get(name)
        return term.type if term else ""

    def _compact(self, iri: str) -> str:
        if (name := self._names.get(iri)) is not None:
            return name
        if iri.startswith(DEFAULT_VOCABULARY):
            name = iri.removeprefix(DEFAULT_VOCABULARY)
            if name and name not in self._terms and ":" not in name and not name.startswith("@"):
                return name
        candidates = [
            f"{prefix}:{iri[len(base) :]}"
            for base, prefix in self._prefixes
            if len(base) < len(iri) and iri.startswith(base) and not iri.startswith("//", len(base))
        ]
        free = [candidate for candidate in candidates if candidate not in self._terms]
        return min(free, key=lambda candidate: (len(candidate), candidate)) if free else iri


class KnownTexts:
    """Texts that were worked out for others; when they become too many, they are all forgotten."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._chars = 0
        self.get = self._known.get

    def add(self, text: str, result: str) -> str:
        """Keep the result of a text, and return it."""
        self._chars += len(text) + len(result)
        if len(self._known) >= _NAMES_CACHED_MAX or self._chars > _NAMES_CACHED_CHARS_MAX:
            self._known.clear()
            self._chars = len(text) + len(result)
        self._known[text] = result
        return result


class LdContexts:
    """Makes contexts of sources; what it made is cached."""

    def __init__(self, find: FindDocument = lambda _url: None) -> None:
        """`find`: the documents that clients stored."""
        self._find = find
        self._cache: OrderedDict[bytes, LdContext] = OrderedDict()
        self._cached_bytes = 0
        self._core_terms = _Builder(lambda _url: None).build(core_terms())
        self.core = LdContext(CORE_URL, self._core_terms)
        """The core @context alone: of requests that name none."""

    def forget(self) -> None:
        """Rebuild all contexts: a stored document was added or deleted."""
        self._cache.clear()
        self._cached_bytes = 0

    def resolve(self, source: ContextSource | None) -> LdContext:
        """Return the context of a source; None: the core @context.

        Raises:
            NgsiError: it is invalid or too large, or (LdContextNotAvailable) names a document that is not here.
        """
        if source is None or (isinstance(source, str) and source in CORE_URLS):
            return self.core
        try:
            key = msgspec.json.encode(source, order="sorted")
        except (TypeError, RecursionError):
            raise _invalid("is not JSON", "give a URL, an object, or a list of both") from None
        if len(key) > DOCUMENT_BYTES_MAX:
            raise _invalid(f"has {len(key)} bytes", f"give at most {DOCUMENT_BYTES_MAX}, or store it in parts")
        context = self._cache.pop(key, None)
        if context is None:
            context = LdContext(source, {**_Builder(self._find).build(source), **self._core_terms})
            self._cached_bytes += len(key) + context.size
        self._cache[key] = context
        while len(self._cache) > _CACHED_MAX or self._cached_bytes > _CACHED_BYTES_MAX:
            oldest, gone = self._cache.popitem(last=False)
            self._cached_bytes -= len(oldest) + gone.size
        return context


class _Builder:
    """TermDefinition definitions of one source."""

    def __init__(self, find: FindDocument) -> None:
        self._find = find
        self._terms: dict[str, TermDefinition] = {}
        self._vocabulary = DEFAULT_VOCABULARY
        self._documents = self._parts = self._defined = 0

    def build(self, source: object) -> dict[str, TermDefinition]:
        self._apply(source, 0)
        return self._terms

    def _apply(self, source: object, depth: int) -> None:
        if depth > NESTING_MAX:
            raise _invalid(f"is nested more than {NESTING_MAX} deep", "give the documents side by side, in one list")
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise _invalid(f"has more than {PARTS_MAX} lists, objects and URLs", "define the names in one object")
        match source:
            case None:
                self._terms, self._vocabulary = {}, DEFAULT_VOCABULARY
            case str():
                self._apply(self._document(source), depth + 1)
            case list():
                for part in source:
                    self._apply(part, depth + 1)
            case dict() if set(source) == {"@context"}:
                self._apply(source["@context"], depth + 1)
            case dict():
                self._apply_terms(source, depth)
            case _:
                raise _invalid(f"'{str(source)[:60]}' is not an @context", "give a URL, an object, or a list of both")

    def _document(self, url: str) -> ContextSource:
        if url in CORE_URLS:
            return []  # the core @context is applied last in any case
        self._documents += 1
        if self._documents > DOCUMENTS_MAX:
            raise _invalid(f"refers to more than {DOCUMENTS_MAX} documents", "give fewer")
        if len(url) > IRI_MAX or not _IRI_FORM.fullmatch(url):
            raise _invalid(f"'{url[:60]}' is not an absolute URL", "give https://HOST/PATH")
        document = self._find(url)
        if document is None:
            raise NgsiError(
                ErrorType.CONTEXT_NOT_AVAILABLE,
                f"@context: {url[:200]} is not stored here, and nothing is fetched from a network; "
                f"POST it to /ngsi-ld/v1/jsonldContexts?url={url[:200]}",
            )
        return document

    def _apply_terms(self, definitions: dict[str, Any], depth: int) -> None:
        for name in definitions:
            if name.startswith("@") and name not in _CONTEXT_KEYWORDS:
                raise _invalid(f"{name[:40]} is unknown", f"use {', '.join(sorted(_CONTEXT_KEYWORDS))}")
        if "@import" in definitions:
            self._apply(_text(definitions["@import"], "@import"), depth + 1)
        local = {name: value for name, value in definitions.items() if not name.startswith("@")}
        self._defined += len(local)
        if self._defined > TERMS_MAX:
            raise _invalid(f"defines more than {TERMS_MAX} names", "give fewer")
        if "@vocab" in definitions:
            vocabulary = definitions["@vocab"]
            self._vocabulary = (
                _checked_length(_expanded(_text(vocabulary, "@vocab"), self._terms, self._vocabulary))
                if vocabulary
                else DEFAULT_VOCABULARY
            )
        for name in local:
            self._terms.pop(name, None)
        definer = _Definer(local, self._terms, self._vocabulary)
        for name in local:
            definer.define(name, 0)


class _Definer:
    """Defines the names of one object, each after those by which it is defined."""

    def __init__(self, local: Mapping[str, Any], terms: dict[str, TermDefinition], vocabulary: str) -> None:
        self._local = local
        self._terms = terms
        self._vocabulary = vocabulary
        self._open: set[str] = set()

    def define(self, name: str, depth: int) -> None:
        if name in self._terms:
            return
        if name in self._open or depth > CHAIN_MAX:
            raise _invalid(f"'{name[:60]}' is defined by itself, or by too many others", "give its IRI")
        if not name or len(name) > NAME_MAX:
            raise _invalid(f"'{name[:40]}' is not a name", f"give 1 to {NAME_MAX} characters")
        self._open.add(name)
        self._terms[name] = self._term(name, self._local[name], depth)
        self._open.discard(name)

    def _term(self, name: str, value: object, depth: int) -> TermDefinition:
        if value is None:
            return TermDefinition("")
        if isinstance(value, str):
            iri = self._iri(value, name, depth)
            return TermDefinition(iri, is_prefix=iri.endswith(_PREFIX_ENDS) and not {":", "/"} & set(name))
        if not isinstance(value, dict):
            raise _invalid(f"'{name[:60]}' is neither an IRI nor an object", 'give "NAME": "IRI"')
        unknown = value.keys() - _TERM_KEYWORDS
        if unknown:
            raise _invalid(f"'{name[:60]}' has {min(unknown)[:40]}", f"use {', '.join(sorted(_TERM_KEYWORDS))}")
        if "@id" in value and value["@id"] is None:
            return TermDefinition("")
        iri = self._iri(_text(value.get("@id", name), name), name, depth)
        kind = value.get("@type") or ""
        if kind:
            kind = self._iri(_text(kind, name), name, depth)
        return TermDefinition(iri, kind, is_prefix=value.get("@prefix") is True)

    def _iri(self, text: str, name: str, depth: int) -> str:
        """Return the IRI of a text in the definition of `name`, defining first what it refers to."""
        if text in self._local and text != name:
            self.define(text, depth + 1)
        prefix, colon, rest = text.partition(":")
        if colon and prefix != "_" and not rest.startswith("//") and prefix in self._local and prefix != name:
            self.define(prefix, depth + 1)
        return _checked_length(_expanded(text, self._terms, self._vocabulary))


def _expanded(text: str, terms: Mapping[str, TermDefinition], vocabulary: str) -> str:
    """Return the IRI of a name under term definitions. Raises `NgsiError`."""
    if text in _KEYWORDS:
        return text
    if not text or len(text) > IRI_MAX or _KEYWORD_FORM.fullmatch(text):
        raise _invalid(f"'{text[:40]}' is not a name", "give a word, PREFIX:WORD or an IRI")
    if (term := terms.get(text)) is not None:
        if not term.iri:
            raise _invalid(f"takes '{text[:40]}' out of use", "use another name")
        return term.iri
    prefix, colon, rest = text.partition(":")
    if colon and prefix:
        if prefix == "_" or rest.startswith("//"):
            return text
        term = terms.get(prefix)
        if term is not None and term.is_prefix:
            return term.iri + rest
        if _IRI_FORM.fullmatch(text):
            return text
    return vocabulary + text


def _checked_length(iri: str) -> str:
    """Return the IRI of a definition. Raises `NgsiError`: prefixes of prefixes made it too long."""
    if len(iri) > IRI_MAX:
        raise _invalid(f"'{iri[:60]}…' has {len(iri)} characters", f"give IRIs of at most {IRI_MAX}")
    return iri


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _invalid(f"'{name[:60]}' is no text", "give an IRI or a name")
    return value


def _invalid(problem: str, remedy: str) -> NgsiError:
    return bad_data(f"@context: {problem}; {remedy}")


# ── where a request names its @context ────────────────────────────────────────────────────────────────


def linked_context(headers: Sequence[str]) -> str:
    """Return the URL of the @context that Link headers name; empty: none does. Raises `NgsiError`."""
    urls = []
    for header in headers:
        for match in _LINK.finditer(header[: 4 * IRI_MAX]):
            parameters = {key.lower(): quoted or bare for key, quoted, bare in _LINK_PARAMETER.findall(match[2])}
            if LINK_RELATION in parameters.get("rel", "").split():
                urls.append(match[1])
    if len(urls) > 1:
        raise bad_data("Link: names more than one @context; give one of them")
    return urls[0] if urls else ""


def context_of_query(links: Sequence[str]) -> ContextSource | None:
    """Return the source of a request without a body; None: the core @context. Raises `NgsiError`."""
    return linked_context(links) or None


def context_of_body(media: str, links: Sequence[str], body: object) -> ContextSource | None:
    """Return the source of a request with a body, which stays as it is; None: the core @context.

    ``application/ld+json`` has it inside, other types in the Link header, and none at both places.

    Raises:
        NgsiError: it stands at the wrong place, at both or (in ``application/ld+json``) at none.
    """
    link = linked_context(links)
    inside = [part["@context"] for part in _parts(body) if "@context" in part]
    if media != LD_JSON:
        if inside:
            raise bad_data(f"@context: stands in the body; send Content-Type: {LD_JSON}, or a Link")
        return link or None
    if link:
        raise bad_data(f"Link: the body is {LD_JSON} and has its @context; send no Link")
    if not inside:
        raise bad_data("@context: is missing; a body of application/ld+json has one")
    source: ContextSource = inside[0]
    return source


def _parts(body: object) -> list[dict[str, Any]]:
    """Return the objects of a body: itself, or each of a list."""
    if isinstance(body, dict):
        return [body]
    return [part for part in body if isinstance(part, dict)] if isinstance(body, list) else []


def link_header(url: str) -> str:
    """Return the value of a Link header that names an @context."""
    return f'<{url}>; rel="{LINK_RELATION}"; type="{LD_JSON}"'
