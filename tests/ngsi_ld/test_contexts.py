"""JSON-LD @context without a network: names ↔ IRIs, as another implementation reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyld import jsonld

from sensegate.ngsi_ld import contexts
from sensegate.ngsi_ld.contexts import (
    KnownTexts,
    LdContexts,
    context_of_body,
    context_of_query,
    link_header,
    linked_context,
)
from sensegate.ngsi_ld.core_context import CORE_URL, CORE_URLS, DEFAULT_VOCABULARY, core_terms
from sensegate.ngsi_ld.problems import ErrorType, NgsiError

FIWARE = "https://uri.fiware.org/ns/dataModels#"
USER = {"fiware": FIWARE, "Building": "fiware:Building", "height": {"@id": "https://schema.org/height"}}


def refused(function: Any, *arguments: Any) -> NgsiError:
    with pytest.raises(NgsiError) as caught:
        function(*arguments)
    return caught.value


def no_network(url: str, _options: object) -> object:
    raise AssertionError(f"{url} was to be fetched")


def expanded_elsewhere(source: list[object], name: str) -> str | None:
    """Return the IRI that pyld makes of a name; None: it refuses the @context, or drops the name."""
    document = {"@context": [{"@vocab": DEFAULT_VOCABULARY}, *source, core_terms()], name: "value"}
    try:
        nodes = jsonld.expand(document, {"documentLoader": no_network})
    except (jsonld.JsonLdError, TypeError):
        return None
    iris = [key for node in nodes for key in node]
    return iris[0] if len(iris) == 1 else None


def test_names_of_the_standard_have_their_iris() -> None:
    """Every name of the core @context expands and compacts as pyld reads the same definitions."""
    core = LdContexts().core
    names = [name for name in core_terms() if not name.startswith("@")]
    assert len(names) > 170
    for name in names:
        iri = core.expand(name)
        assert core.compact(iri) == name
    document: dict[str, Any] = {"@context": core_terms()}
    document |= {name: {} for name in names if core.expand(name).startswith("http")}
    document |= dict.fromkeys(("json", "previousJson", "contextSourceExtras"), "en")
    for container in ("languageMap", "previousLanguageMap", "dataset", "geojson", "ngsi-ld"):
        document.pop(container)
    (node,) = jsonld.expand(document, {"documentLoader": no_network})
    assert set(node) <= {core.expand(name) for name in names}
    assert len(node) > 150


def test_unknown_names_lie_in_the_default_vocabulary() -> None:
    """A name that no @context defines is of the default vocabulary; an IRI stays an IRI."""
    core = LdContexts().core
    assert core.expand("temperature") == f"{DEFAULT_VOCABULARY}temperature"
    assert core.compact(f"{DEFAULT_VOCABULARY}temperature") == "temperature"
    assert core.expand("https://schema.org/height") == "https://schema.org/height"
    assert core.compact("https://schema.org/height") == "https://schema.org/height"
    assert core.expand("ngsi-ld:location") == core.expand("location")
    assert core.expand("id") == "@id"
    assert core.type_of("observedAt").endswith("/DateTime")
    assert not core.type_of("temperature")


def test_user_contexts() -> None:
    """Terms and prefixes of a user's @context hold, those of the core @context before them, at any place."""
    find = {"https://example.org/c.jsonld": {"@context": USER}}.get
    resolver = LdContexts(find)
    sources: list[contexts.ContextSource] = [
        USER,
        "https://example.org/c.jsonld",
        ["https://example.org/c.jsonld", CORE_URL],
        [CORE_URL, {"@context": [USER]}],
        {"@import": "https://example.org/c.jsonld"},
    ]
    for source in sources:
        context = resolver.resolve(source)
        assert context.source == source
        assert context.expand("Building") == f"{FIWARE}Building"
        assert context.expand("fiware:Room") == f"{FIWARE}Room"
        assert context.compact(f"{FIWARE}Building") == "Building"
        assert context.compact(f"{FIWARE}Room") == "fiware:Room"
        assert context.expand("height") == "https://schema.org/height"
    shadowing = resolver.resolve({"location": "https://example.org/place", "@vocab": "https://example.org/v#"})
    assert shadowing.expand("location") == resolver.core.expand("location")
    assert shadowing.expand("temperature") == f"{DEFAULT_VOCABULARY}temperature"
    assert resolver.resolve({"@vocab": "https://example.org/v#", "t": "x"}).expand("t") == "https://example.org/v#x"
    assert refused(resolver.resolve({"height": None}).expand, "height").kind is ErrorType.BAD_REQUEST_DATA


@pytest.mark.parametrize("url", sorted(CORE_URLS))
def test_versions_of_the_core_context_are_shipped(url: str) -> None:
    """Every published address of the core @context stands for the one that is shipped."""
    resolver = LdContexts()
    assert resolver.resolve(url) is resolver.core
    assert resolver.resolve([url]).expand("location") == resolver.core.expand("location")


def test_nothing_is_fetched() -> None:
    """An @context that is not stored is LdContextNotAvailable (503), names the URL and how to store it."""
    resolver = LdContexts()
    error = refused(resolver.resolve, ["https://example.org/absent.jsonld", USER])
    assert error.kind is ErrorType.CONTEXT_NOT_AVAILABLE
    assert error.status == 503
    assert "https://example.org/absent.jsonld is not stored here" in str(error)
    assert "jsonldContexts" in str(error)


def test_stored_documents_replace_one_another() -> None:
    """After `forget` a changed document is read; until then the cached context answers."""
    documents: dict[str, contexts.ContextSource] = {"https://example.org/c": {"a": "https://example.org/1"}}
    resolver = LdContexts(documents.get)
    assert resolver.resolve("https://example.org/c").expand("a") == "https://example.org/1"
    documents["https://example.org/c"] = {"a": "https://example.org/2"}
    assert resolver.resolve("https://example.org/c").expand("a") == "https://example.org/1"
    resolver.forget()
    assert resolver.resolve("https://example.org/c").expand("a") == "https://example.org/2"


CHAIN = {f"t{number}": f"t{number + 1}:x" for number in range(40)}
NESTED: Any = {"a": "https://example.org/a"}
for _ in range(20):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (7, "not an @context"),
        ({"a": 7}, "neither an IRI nor an object"),
        ({"a": "b", "b": "a"}, "defined by itself"),
        ({"a": "a:x"}, ""),
        (CHAIN, "by too many others"),
        (NESTED, "nested more than"),
        ({"@frame": "x"}, "@frame is unknown"),
        ({"a": {"@id": "b", "@set": 1}}, "has @set"),
        ({"a" * 300: "https://example.org"}, "is not a name"),
        ({f"n{number}": "urn:x" for number in range(10_001)}, "defines more than"),
        (
            [{f"n{number % 4_000}": "urn:x" for number in range(place, place + 4_000)} for place in range(3)],
            "defines more",
        ),
        ([{f"n{number}": "urn:x"} for number in range(1_001)], "more than 1000 lists, objects and URLs"),
        ({"a": "urn:" + "x" * 2_000 + ":", "b": "a:" + "x" * 2_000}, "IRIs of at most 2048"),
        ([{"@vocab": "urn:" + "x" * 2_000}, {"@vocab": "x" * 2_000}], "IRIs of at most 2048"),
        ({"a": "https://example.org/" + "x" * 300_000}, "bytes"),
        ("relative.jsonld", "not an absolute URL"),
        ([f"https://example.org/{number}" for number in range(21)], "more than 20 documents"),
        ("https://example.org/loop", "nested more than"),
    ],
)
def test_what_is_refused(source: Any, problem: str) -> None:
    """A wrong or too large @context is BadRequestData that names what is wrong."""
    resolver = LdContexts(lambda url: url if url.endswith("loop") else {"a": "https://example.org/a"})
    if not problem:
        assert resolver.resolve(source).expand("a").startswith("a:")
        return
    error = refused(resolver.resolve, source)
    assert error.kind is ErrorType.BAD_REQUEST_DATA
    assert problem in str(error)


WORDS = st.sampled_from(["a", "b", "c", "dd", "location"])
NAMES = st.one_of(WORDS, st.builds("{}:{}".format, WORDS, WORDS), st.builds("https://e.org/{}".format, WORDS))
IRIS = st.one_of(NAMES, st.sampled_from(["https://e.org/", "https://e.org/v#", "urn:x:", "@id", "@type"]))
DEFINITIONS = st.one_of(
    IRIS,
    st.none(),
    st.fixed_dictionaries({"@id": IRIS}, optional={"@prefix": st.booleans(), "@type": st.just("@id")}),
)
OBJECTS = st.dictionaries(WORDS, DEFINITIONS, max_size=5)
SOURCES = st.lists(OBJECTS, max_size=2)


@settings(max_examples=80, deadline=None)
@given(SOURCES, NAMES)
def test_names_expand_as_elsewhere(source: list[dict[str, Any]], name: str) -> None:
    """Where pyld makes an IRI of a name, ours is the same."""
    expected = expanded_elsewhere(list(source), name)
    if expected is not None and not expected.startswith("@"):
        assert LdContexts().resolve(source).expand(name) == expected


@settings(max_examples=150, deadline=None)
@given(SOURCES, NAMES)
def test_iris_come_back(source: list[dict[str, Any]], name: str) -> None:
    """The short name of an IRI expands to that IRI again."""
    try:
        context = LdContexts().resolve(source)
        iri = context.expand(name)
    except NgsiError:
        return
    try:
        is_fixed = context.expand(iri) == iri
    except NgsiError:
        return
    if is_fixed:  # a prefix may have the name of a scheme
        assert context.expand(context.compact(iri)) == iri


def test_where_a_request_names_its_context() -> None:
    """A Link header, or the body of application/ld+json; both, or the wrong one, are refused."""
    link = link_header("https://example.org/c.jsonld")
    assert linked_context([link]) == "https://example.org/c.jsonld"
    assert linked_context(["<https://a/b>; rel=next, " + link]) == "https://example.org/c.jsonld"
    assert linked_context([f"<https://a/b>; type=x ; rel={contexts.LINK_RELATION}"]) == "https://a/b"
    assert not linked_context(["<https://a/b>; rel=next", "garbage; <"])
    assert context_of_query([]) is None
    assert refused(linked_context, [link, link]).kind is ErrorType.BAD_REQUEST_DATA
    json, ld = "application/json", "application/ld+json"
    assert context_of_body(json, [link], {"id": "x"}) == "https://example.org/c.jsonld"
    assert context_of_body(json, [], {"id": "x"}) is None
    assert context_of_body(ld, [], [{"id": "x", "@context": USER}]) == USER
    refused(context_of_body, json, [], {"@context": USER})
    refused(context_of_body, ld, [link], {"@context": USER})
    refused(context_of_body, ld, [], {"id": "x"})


def test_what_is_kept_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large contexts fewer are kept; of long names, fewer too."""
    monkeypatch.setattr(contexts, "_CACHED_BYTES_MAX", 1_000_000)
    resolver = LdContexts()
    small = resolver.resolve({"a": "urn:x"})
    assert resolver.resolve({"a": "urn:x"}) is small
    large = [{f"n{number}": f"urn:{place}" for number in range(1_500)} for place in range(3)]
    made = [resolver.resolve(source) for source in large]
    assert resolver.resolve(large[2]) is made[2]
    assert resolver.resolve(large[0]) is not made[0]
    assert resolver.resolve({"a": "urn:x"}) is not small
    known = KnownTexts()
    names = [f"urn:{number}:{'x' * 2_000}" for number in range(200)]
    assert [known.add(name, name) for name in names] == names
    assert known.get(names[-1]) == names[-1]
    assert sum(known.get(name) is not None for name in names) < 100


@pytest.mark.parametrize("header", ["<x>" + ";a " * 2_000 + "!", "<" * 8_000, " " * 8_000, '<x>;a="' * 1_000])
def test_a_link_takes_linear_time(header: str) -> None:
    """No Link header makes its reader try again and again."""
    assert not linked_context([header])
    assert linked_context([f'<https://a/b> {";a " * 500} ; b ; rel = "{contexts.LINK_RELATION}"']) == "https://a/b"
