"""The query language for values: what each term means, and what is refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.ngsi_ld.entities import AttributeKind
from sensegate.ngsi_ld.problems import NgsiError
from sensegate.ngsi_ld.value_query import parse_value_query
from tests.ngsi_ld.made import CORE, DAY, attribute, entity

ROOM = entity(
    attribute("temperature", 21.5, observed_at=DAY, unit="CEL", sub=(attribute("quality", "good"),)),
    attribute("temperature", 30.0, dataset="urn:ngsi-ld:Dataset:2"),
    attribute("open", value=True),
    attribute("brand", "Mercedes"),
    attribute("colours", ["red", "green"]),
    attribute("address", {"city": "广州", "lines": [{"nr": 1}, {"nr": 7}]}),
    attribute("dateObserved", {"@type": "DateTime", "@value": "2026-01-01T08:00:00+08:00"}),
    attribute("day", "2026-01-05"),
    attribute("at", "2026-01-01T00:00:00Z"),
    attribute("refDevice", "urn:ngsi-ld:Device:x1", AttributeKind.RELATIONSHIP),
    attribute("area", {"zh": "天河", "en": "Tianhe"}, AttributeKind.LANGUAGE_PROPERTY),
    attribute("kind", CORE.expand("Fountain"), AttributeKind.VOCAB_PROPERTY),
)
HOLDS = (
    "temperature",
    "temperature==21.5",
    "temperature>21",
    "temperature>=30",
    "temperature<22",
    "temperature<=21.5",
    "temperature==20..22",
    "temperature==1,30",
    "temperature!=21.5",  # the other data set
    "temperature.observedAt==2026-01-01T00:00:00Z",
    "temperature.observedAt<2026-01-01T00:00:01.5Z",
    'temperature.unitCode=="CEL"',
    'temperature.quality=="good"',
    "temperature.datasetId~=:2$",
    "open==true",
    "open!=false",
    'brand=="Mercedes"',
    'brand=="Audi","Mercedes"',
    'brand!="Audi"',
    'brand!="Audi","BMW"',
    'brand=="A".."N"',
    'brand>"A"',
    "brand!=5",  # of another kind
    "brand~=^Mer",
    "brand~=(?i)^mer(c|d)",
    'brand~="c.d;|e"',
    "brand!~=^Aud",
    'colours=="red"',
    'colours=="blue","green"',
    'colours!="blue"',
    "colours~=^gr",
    'address[city]=="广州"',
    "address[lines.nr]==7",
    "address[city]",
    "dateObserved==2026-01-01T00:00:00Z",
    "dateObserved>2025-12-31T23:59:59Z",
    'dateObserved=="2026-01-01T00:00:00Z"',
    "dateObserved==2025-12-31T00:00:00Z..2026-01-02T00:00:00Z",
    "at<2026-01-01T08:00:01+08:00",
    "day==2026-01-01..2026-01-31",
    "refDevice==urn:ngsi-ld:Device:x1",
    'refDevice=="urn:ngsi-ld:Device:x1"',
    "refDevice~=x1$",
    'area[zh]=="天河"',
    'area[*]=="Tianhe"',
    'area=="Tianhe"',
    'kind=="Fountain"',
    "createdAt==2026-01-01T00:00:00Z",
    "modifiedAt>2026-01-01T00:00:00Z",
    "temperature>50|brand~=^M",
    "temperature>20;brand~=^M",
    "temperature>50;brand|open==true",
    "(temperature>50|brand);open==true",
    "((brand));open",
)
FAILS = (
    "humidity",
    "humidity!=5",
    "temperature==22..29",
    "temperature>30",
    'temperature=="21.5"',
    "temperature.unitCode>5",
    "open==false",
    "open!=true",
    'brand!="Mercedes"',
    'brand!="Audi","Mercedes"',
    "brand~=^mer",
    "brand!~=Mer",
    "open~=t",
    'colours=="blue"',
    'colours!="red"',
    "colours>1",
    'address[town]=="广州"',
    "address[city.x]",
    "dateObserved>2026-01-01T00:00:00Z",
    "brand==2026-01-01T00:00:00Z",
    "day==2026-02-01..2026-02-03",
    "refDevice==urn:ngsi-ld:Device:x2",
    'area[fr]=="Tianhe"',
    'kind=="Bench"',
    "temperature>20;brand~=^X",
    "temperature>50|brand~=^X",
    "temperature.quality.more",
)
REFUSED = (
    "",
    "==5",
    "brand==",
    "brand==Mercedes",
    'brand=="Mercedes',
    'brand=="a"x',
    "temperature=5",
    "temperature>",
    "temperature>1,2",
    "temperature>true",
    'temperature>"a".."b"',
    "temperature==1..",
    'temperature==1.."b"',
    "temperature==true..false",
    "(temperature",
    "temperature)",
    "temperature;;brand",
    "temperature;",
    "address[city",
    "address[]==5",
    "brand~=",
    "brand~=(",
    "brand~=(a)\\1",
    "a..b==5",
    "temperature==-inf..inf",
    "x;" * 400 + "x",
    "(" * 20 + "x" + ")" * 20,
    "x" * 5_000,
)


@pytest.mark.parametrize("text", HOLDS)
def test_a_term_that_holds(text: str) -> None:
    """Each comparison, value, path and joint of the language."""
    assert parse_value_query(text, CORE.expand)(ROOM)


@pytest.mark.parametrize("text", FAILS)
def test_a_term_that_fails(text: str) -> None:
    """Control: a missing attribute, another value, another kind of value."""
    assert not parse_value_query(text, CORE.expand)(ROOM)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text: str) -> None:
    """What the grammar does not have, or what is too long or too deep, is an error that names the parameter."""
    with pytest.raises(NgsiError, match=r"^q"):
        parse_value_query(text, CORE.expand, key="q")


def test_a_pattern_takes_linear_time() -> None:
    """A pattern over which backtracking would take years is answered at once."""
    room = entity(attribute("name", "a" * 5_000 + "!"))
    begin = time.process_time()
    assert not parse_value_query("name~=(a+)+$", CORE.expand)(room)
    assert time.process_time() - begin < 5


@given(st.text(alphabet='ab.[]()=!<>~;|,"\\1-:TZ ', max_size=40))
def test_any_text_is_a_query_or_an_error(text: str) -> None:
    """No text breaks the parser, and what it parses can be tested."""
    try:
        condition = parse_value_query(text, CORE.expand, key="q")
    except NgsiError:
        return
    assert condition(ROOM) in {True, False}
