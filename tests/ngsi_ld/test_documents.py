"""Documents of entities that clients send: three forms of one content, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.core_context import DEFAULT_VOCABULARY
from sensegate.ngsi_ld.documents import ATTRIBUTES_MAX, NULL, DocumentReader, EntityDocument
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind
from sensegate.ngsi_ld.problems import NgsiError

CONTEXT = LdContexts().resolve({"isIn": {"@id": "https://example.org/isIn", "@type": "@id"}, "farm": "urn:osm:farm"})
HEAD = {"id": "urn:ngsi-ld:Building:1", "type": "Building"}
POINT = {"type": "Point", "coordinates": [113.3, 23.1]}


def read(body: dict[str, Any], **options: bool) -> EntityDocument:
    return DocumentReader(CONTEXT, **options).entity({**HEAD, **body})


def attribute(value: Any, **options: bool) -> AttributeInstance:
    (instance,) = read(
        {"isIn" if isinstance(value, str) and value.startswith("urn:") else "a": value}, **options
    ).attributes
    return instance


def iri(name: str) -> str:
    return f"{DEFAULT_VOCABULARY}{name}"


@pytest.mark.parametrize(
    ("kind", "normalized", "concise", "simplified", "value"),
    [
        ("Property", {"type": "Property", "value": 3}, 3, 3, 3),
        ("Property", {"type": "Property", "value": [1, 2]}, [1, 2], [1, 2], [1, 2]),
        ("Property", {"type": "Property", "value": {"x": 1}}, {"value": {"x": 1}}, {"x": 1}, {"x": 1}),
        ("GeoProperty", {"type": "GeoProperty", "value": POINT}, POINT, POINT, POINT),
        (
            "Relationship",
            {"type": "Relationship", "object": "urn:x:2"},
            {"object": "urn:x:2"},
            "urn:x:2",
            "urn:x:2",
        ),
        (
            "LanguageProperty",
            {"type": "LanguageProperty", "languageMap": {"zh": "樓", "en": ["house"]}},
            {"languageMap": {"zh": "樓", "en": ["house"]}},
            {"languageMap": {"zh": "樓", "en": ["house"]}},
            {"zh": "樓", "en": ["house"]},
        ),
        (
            "VocabProperty",
            {"type": "VocabProperty", "vocab": ["farm", "barn"]},
            {"vocab": ["farm", "barn"]},
            {"vocab": ["farm", "barn"]},
            ["urn:osm:farm", iri("barn")],
        ),
        (
            "JsonProperty",
            {"type": "JsonProperty", "json": {"id": 1}},
            {"json": {"id": 1}},
            {"json": {"id": 1}},
            {"id": 1},
        ),
        ("ListProperty", {"type": "ListProperty", "valueList": [1]}, {"valueList": [1]}, {"valueList": [1]}, [1]),
        (
            "ListRelationship",
            {"type": "ListRelationship", "objectList": [{"object": "urn:x:2"}]},
            {"objectList": ["urn:x:2"]},
            {"objectList": ["urn:x:2"]},
            ["urn:x:2"],
        ),
    ],
)
def test_three_forms_have_one_content(kind: str, normalized: Any, concise: Any, simplified: Any, value: object) -> None:
    """Each kind of attribute in its normalized, concise and simplified form (clause 4.5)."""
    name = "isIn" if kind == "Relationship" else "a"
    for body, is_simplified in ((normalized, False), (concise, False), (simplified, True)):
        (instance,) = read({name: body}, is_simplified=is_simplified).attributes
        assert (instance.kind, instance.value) == (AttributeKind(kind), value)


def test_members_of_an_entity_and_of_an_attribute() -> None:
    """Types, scopes, data sets, times, units and attributes of attributes."""
    document = read(
        {
            "type": ["Building", "https://example.org/House"],
            "scope": ["Guangzhou/Tianhe", "/a"],
            "createdAt": "2026-01-01T00:00:00Z",
            "temperature": [
                {
                    "type": "Property",
                    "value": 20.5,
                    "unitCode": "CEL",
                    "observedAt": "2026-01-01T08:00:00+08:00",
                    "accuracy": {"value": 0.5, "note": "by hand"},
                },
                {"type": "Property", "value": 21, "datasetId": "urn:x:roof"},
            ],
        }
    )
    assert document.types == (iri("Building"), "https://example.org/House")
    assert document.scopes == ("/Guangzhou/Tianhe", "/a")
    first, second = document.attributes
    assert (first.name, first.value, first.unit, first.dataset) == (iri("temperature"), 20.5, "CEL", "")
    assert first.observed_at == 1_767_225_600_000_000
    (accuracy,) = first.sub
    assert accuracy.name == iri("accuracy")
    assert [inner.name for inner in accuracy.sub] == [iri("note")]
    assert second.dataset == "urn:x:roof"
    merged = read({"a": {"dataset": {"@none": 1, "urn:x:roof": 2}}}, is_simplified=True)
    assert [(instance.dataset, instance.value) for instance in merged.attributes] == [("", 1), ("urn:x:roof", 2)]


DEEP: Any = 1
for _ in range(2_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"id": "no uri"}, "is not a URI"),
        ({"id": "urn:" + "x" * 600}, "is not a URI"),
        ({"type": []}, "type: is not a name"),
        ({"scope": "a b"}, "is not a path"),
        ({"a": None}, "is null"),
        ({"a": {"vlaue": 1}}, "has no value"),
        ({"a": {"type": "Proprety", "x": 1}}, "type: 'Proprety' is unknown"),
        ({"a": {"type": "Property", "value": None}}, "value: is missing"),
        ({"a": {"type": "Relationship", "value": "urn:x:1"}}, "object: is missing"),
        ({"a": {"type": "Relationship", "object": "house"}}, "is not a URI"),
        ({"a": {"type": "GeoProperty", "value": 3}}, "is not a geometry"),
        ({"a": {"type": "Point", "coordinates": [200, 0]}}, "out of range"),
        ({"a": {"type": "Point", "coordinates": ["x"]}}, "coordinates"),
        ({"a": {"type": "Polygon", "coordinates": [[0, 0]]}}, "coordinates"),
        ({"a": {"languageMap": {"a language": "x"}}}, "is not a language"),
        ({"a": {"languageMap": {"zh": 3}}}, "is not a text"),
        ({"a": {"vocab": 3}}, "is not a word"),
        ({"a": {"value": 1, "observedAt": "yesterday"}}, "is not a time"),
        ({"a": {"value": 1, "unitCode": "°C"}}, "is not a unit code"),
        ({"a": {"value": 1, "object": "urn:x:1"}}, "give one value"),
        ({"a": {"object": "urn:x:1", "objectType": "House"}}, "is not kept here"),
        ({"a": [{"type": "Property", "value": 1}, {"type": "Property", "value": 2}]}, "is given twice"),
        ({"a": {"value": "x" * 40_000}}, "is larger than"),
        ({"a": {"value": DEEP}}, "nested too deep"),
        ({"a": {"value": 1, "b": {"value": 1, "c": {"value": 1, "d": {"value": 1, "e": 1}}}}}, "more than 3 deep"),
        ({f"a{number}": 1 for number in range(ATTRIBUTES_MAX + 1)}, "attributes; give at most"),
        ({"@foo": 1}, "is not a name"),
    ],
)
def test_what_is_refused(body: dict[str, Any], problem: str) -> None:
    """A wrong document is BadRequestData that names the member, what is wrong, and what to do."""
    with pytest.raises(NgsiError) as caught:
        read(body)
    assert problem in str(caught.value)
    assert ";" in str(caught.value)


def test_a_fragment_may_leave_out_and_delete() -> None:
    """A fragment has neither id nor type nor value where it changes something else; `NULL` deletes."""
    reader = DocumentReader(CONTEXT, is_fragment=True)
    document = reader.entity({"a": NULL, "b": {"c": 1}, "d": {"type": "Property", "value": NULL}})
    values = {instance.name: instance.value for instance in document.attributes}
    assert values == {iri("a"): NULL, iri("b"): None, iri("d"): NULL}
    for incomplete in ({}, {"id": "urn:x:1"}, {"type": "T"}):
        with pytest.raises(NgsiError):
            DocumentReader(CONTEXT).entity(incomplete)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "value", "object", "coordinates", "languageMap", "datasetId", "vocab", "a", "dataset"]
            ),
            inner | st.sampled_from(["Property", "Relationship", "Point", "GeoProperty", "urn:x:1"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON, is_simplified=st.booleans(), is_fragment=st.booleans())
def test_any_json_is_read_or_refused(value: Any, *, is_simplified: bool, is_fragment: bool) -> None:
    """Whatever stands at an attribute, the answer is attributes or an error of the standard."""
    reader = DocumentReader(CONTEXT, is_simplified=is_simplified, is_fragment=is_fragment)
    try:
        document = reader.entity({**HEAD, "a": value})
    except NgsiError:
        return
    assert {instance.name for instance in document.attributes} <= {iri("a")}
