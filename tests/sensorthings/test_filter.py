"""Filters: every operator and function of the standard, paths over links and into JSON, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.sensorthings.instants import instant_text, parse_duration, parse_instant, parse_span
from sensegate.sensorthings.syntax import FUNCTIONS, parse_expand, parse_filter
from sensegate.web.problems import BadRequest
from tests.sensorthings.serving import HOURS, PLACES, Things

in_one_loop = pytest.mark.asyncio(loop_scope="module")
AIR, NOISE, CAM, SZ = (place.device for place in PLACES)
ALL = {AIR, NOISE, CAM, SZ}
BOX = "geography'POLYGON((113 23,113.5 23,113.5 23.5,113 23.5,113 23))'"
POINT = "geography'POINT(113.3612 23.1247)'"
HERE = "Locations/location"

THINGS = [
    ("name eq 'gz-air'", {AIR}),
    ("name ne 'gz-air'", ALL - {AIR}),
    ("name gt 'gz-cam'", {NOISE, SZ}),
    ("name ge 'gz-cam'", {CAM, NOISE, SZ}),
    ("name lt 'gz-cam'", {AIR}),
    ("name le 'gz-cam'", {AIR, CAM}),
    ("name eq 'gz-air' or name eq 'sz-air'", {AIR, SZ}),
    ("startswith(name,'gz') and not endswith(name,'air')", {NOISE, CAM}),
    ("not (name eq 'gz-air')", ALL - {AIR}),
    ("substringof('air',name)", {AIR, SZ}),
    ("contains(name,'air')", {AIR, SZ}),
    ("startswith(name,'sz')", {SZ}),
    ("endswith(name,'cam')", {CAM}),
    ("length(name) eq 8", {NOISE}),
    ("indexof(name,'air') eq 3", {AIR, SZ}),
    ("substring(name,3) eq 'air'", {AIR, SZ}),
    ("substring(name,0,2) eq 'sz'", {SZ}),
    ("toupper(name) eq 'GZ-AIR'", {AIR}),
    ("tolower(toupper(name)) eq name", ALL),
    ("trim(' gz-air ') eq name", {AIR}),
    ("concat(concat(name,'/'),properties/division) eq 'gz-air/440106'", {AIR}),
    ("properties/division eq '440106'", {AIR, CAM}),
    ("properties/nothing eq null", ALL),
    ("properties/division ne null", ALL),
    ("Datastreams/name eq 'raining'", {AIR}),
    ("Datastreams/ObservedProperty/name eq 'wind_cardinal'", {AIR}),
    ("Datastreams/unitOfMeasurement/symbol eq 'Cel'", ALL),
    ("Datastreams/Observations/result gt 25.15", ALL),
    ("Datastreams/Observations/result eq 25.3", {SZ}),
    (f"geo.distance({HERE},{POINT}) lt 0.2", {AIR, NOISE}),
    (f"geo.distance({HERE},{POINT}) eq 0", {AIR}),
    (f"geo.intersects({HERE},{BOX})", {AIR, NOISE}),
    (f"geo.length({HERE}) eq 0", {AIR, NOISE, SZ}),
    (f"st_equals({HERE},{POINT})", {AIR}),
    (f"st_disjoint({HERE},{BOX})", {SZ}),
    (f"st_within({HERE},{BOX})", {AIR, NOISE}),
    (f"st_contains({BOX},{HERE})", {AIR, NOISE}),
    (f"st_intersects({HERE},{BOX})", {AIR, NOISE}),
    (f"st_touches({HERE},geography'LINESTRING(113.3612 23.1247,114 24)')", {AIR}),
    (f"st_relate({HERE},{BOX},'T********')", {AIR, NOISE}),
    ("st_crosses(geography'LINESTRING(0 0,2 2)',geography'LINESTRING(0 2,2 0)')", ALL),
    ("st_overlaps(geography'POLYGON((0 0,2 0,2 2,0 2,0 0))',geography'POLYGON((1 1,3 1,3 3,1 3,1 1))')", ALL),
    ("geo.length(geography'LINESTRING(0 0,3 4)') eq 5", ALL),
    ("now() gt 2026-01-01T00:00:00Z and mindatetime() lt now() and maxdatetime() gt now()", ALL),
    ("1 add 2 mul 3 eq 7", ALL),
    ("(1 add 2) mul 3 eq 9", ALL),
    ("7 div 2 eq 3 and 7.0 div 2 eq 3.5 and -7 mod 2 eq -1 and 5 sub 7 eq -2", ALL),
    ("round(2.5) eq 3 and floor(-2.5) eq -3 and ceiling(2.1) eq 3", ALL),
    ("1 div 0 eq null", ALL),
    ("duration'PT90M' gt duration'PT1H'", ALL),
    ("2026-01-01T00:00:00Z add duration'P1D' eq 2026-01-02T08:00:00+08:00", ALL),
    ("true and not false", ALL),
    ("name eq 'it''s'", set()),
]

MIDDLE = "2026-01-01T03:00:00Z"
OBSERVATIONS = [
    (f"phenomenonTime ge {MIDDLE}", 3),
    (f"phenomenonTime gt {MIDDLE}", 2),
    (f"phenomenonTime lt {MIDDLE}", 3),
    (f"phenomenonTime le {MIDDLE}", 4),
    (f"{MIDDLE} lt phenomenonTime", 2),
    ("phenomenonTime eq 2026-01-01T02:00:00Z", 1),
    ("phenomenonTime ge 2026-01-01T10:00:00+08:00", 4),
    ("phenomenonTime ge 2026-01-01T01:00:00Z and phenomenonTime lt 2026-01-01T04:00:00Z", 3),
    ("phenomenonTime lt 2026-01-01T01:00:00Z or phenomenonTime ge 2026-01-01T05:00:00Z", 2),
    ("resultTime ge 2026-01-01T05:00:00Z", 1),
    ("hour(phenomenonTime) eq 4 and minute(phenomenonTime) eq 0 and second(phenomenonTime) lt 1", 1),
    ("year(phenomenonTime) eq 2026 and month(phenomenonTime) eq 1 and day(phenomenonTime) eq 1", HOURS),
    ("date(phenomenonTime) eq 2026-01-01", HOURS),
    ("time(phenomenonTime) eq 02:00:00", 1),
    ("fractionalseconds(resultTime) gt 0", HOURS),
    ("totaloffsetminutes(phenomenonTime) eq 0", HOURS),
    ("result gt 22", 3),
    ("result add 1 gt 25 and result mul 2 lt 50", 0),
    ("result eq 'text'", 0),
    ("result lt 'text'", 0),
    ("result mod 2 eq 0", 3),
    ("resultQuality/quality eq 'good'", HOURS),
    ("parameters/revision eq 0", HOURS),
    ("Datastream/Thing/name eq 'gz-air'", HOURS),
    ("FeatureOfInterest/name eq 'place of gz-air' and result ge 23", 3),
    (f"st_within(FeatureOfInterest/feature,{BOX})", HOURS),
    ("phenomenonTime sub 2026-01-01T00:00:00Z ge duration'PT4H'", 2),
]


@in_one_loop
@pytest.mark.parametrize(("condition", "names"), THINGS, ids=[condition for condition, _ in THINGS])
async def test_filters_of_things(things: Things, condition: str, names: set[str]) -> None:
    """Each operator and function on Things."""
    assert {thing["name"] for thing in await things.values("Things", filter=condition)} == names
    counted = await things.ask("Things", filter=condition, count="true", top=0)
    assert counted["@iot.count"] == len(names)


@in_one_loop
@pytest.mark.parametrize(("condition", "count"), OBSERVATIONS, ids=[condition for condition, _ in OBSERVATIONS])
async def test_filters_of_observations(things: Things, condition: str, count: int) -> None:
    """Each operator and function of times and results, on the Observations of one Datastream."""
    path = f"Datastreams({await things.datastream(AIR, 'air_temperature')})/Observations"
    assert len(await things.values(path, filter=condition)) == count
    assert (await things.ask(path, filter=condition, count="true", top=1))["@iot.count"] == count


def test_every_function_of_the_standard_is_tried() -> None:
    """Each function stands in a filter above."""
    texts = " ".join(condition for condition, _ in (*THINGS, *OBSERVATIONS))
    assert [name for name in FUNCTIONS if f"{name}(" not in texts] == []
    assert len(FUNCTIONS) > 30


REFUSED = [
    ("Things", "filter", "nam eq 'x'", "did you mean 'name'"),
    ("Things", "filter", "lenght(name) eq 1", "did you mean 'length'"),
    ("Things", "filter", "length(name,name) eq 1", "give 1"),
    ("Things", "filter", "name eq", "a value is missing"),
    ("Things", "filter", "name eq 'x", "not understood"),
    ("Things", "filter", "name eq 'x')", "at ')'"),
    ("Things", "filter", "(name eq 'x'", "')' is missing"),
    ("Things", "filter", "name", ""),
    ("Things", "filter", "Datastreams eq 1", "is a link"),
    ("Things", "filter", "st_within(Locations/location,geography'POINT(x)')", "not a geometry"),
    ("Things", "filter", "st_relate(Locations/location,geography'POINT(1 1)','TT')", "DE-9IM"),
    ("Things", "filter", "duration'PT' eq 1", "not a duration"),
    ("Observations", "filter", "phenomenonTime gt 2026-13-01T00:00:00Z", "not a time"),
    ("Observations", "filter", "date(phenomenonTime) eq 2026-02-30", "not a date"),
    ("Observations", "filter", "phenomenonTime gt 2026-01-01T00:00:00", "not understood"),
    ("Things", "filter", "(" * 200 + "1" + ")" * 200, "nested more than"),
    ("Things", "orderby", "name up", "separator is missing"),
    ("Things", "orderby", "colour", "has no property"),
    ("Things", "select", "colour", "has no 'colour'"),
    ("Things", "select", "name,", "is missing"),
    ("Things", "expand", "Observations", "has no link"),
    ("Things", "expand", "Datastreams($expand=Things)", "has no link"),
    ("Things", "expand", "Datastreams($limit=1)", "unknown option"),
    ("Things", "expand", "Datastreams(top=1)", "such as $top"),
    ("Things", "expand", "Datastreams($top=x)", "whole number"),
    ("Things", "expand", "Datastreams/Thing/" * 10 + "Datastreams", "nested more than"),
    ("Things", "expand", ",".join(["Datastreams"] * 60), "more than 40"),
    ("Things", "expand", "Datastreams($top=1),Datastreams($top=2)", "options twice"),
    ("Things", "top", "-1", "whole number"),
    ("Things", "top", "1.5", "whole number"),
    ("Things", "skip", "x", "whole number"),
    ("Things", "count", "1", "true or false"),
    ("Things", "resultFormat", "XML", "dataArray"),
    ("Things", "skiptoken", "!", "nextLink"),
    ("Observations", "skiptoken", "WzFd", "nextLink"),
]


@in_one_loop
@pytest.mark.parametrize(("path", "option", "text", "says"), REFUSED)
async def test_what_is_refused_names_the_option(things: Things, path: str, option: str, text: str, says: str) -> None:
    """400 as a problem document that names the parameter and what it takes; a filter of no truth value gives none."""
    if text == "name":
        assert (await things.ask(path, filter=text))["value"] == []
        return
    problem = await things.ask(path, expect=400, **{option: text})
    assert problem["detail"].startswith(f"query: ${option}"), problem
    assert says in problem["detail"]


@in_one_loop
async def test_unknown_and_repeated_parameters(things: Things) -> None:
    """400 with the nearest one; an option is given once."""
    _, problem, _ = await things.gateway.ask("GET", f"{things.root}/Things?$filtr=1", things.token, expect=400)
    assert "$filter" in problem["detail"]
    _, problem, _ = await things.gateway.ask("GET", f"{things.root}/Things?$top=1&$top=2", things.token, expect=400)
    assert "twice" in problem["detail"]


@pytest.mark.parametrize(
    ("text", "says"),
    [(" and ".join(["1 eq 1"] * 500), "more than 400 terms"), ("name eq '" + "x" * 20_000 + "'", "give at most")],
)
def test_the_size_of_a_filter_is_limited(text: str, says: str) -> None:
    """Longer ones than a URL holds come inside of `$expand`, or by other ways in."""
    with pytest.raises(BadRequest, match=says):
        parse_filter(text)


LIMITS = [
    ("observations:ROWS_MAX", 10, "Observations", {"filter": "result gt 0"}, "reads too much of the log"),
    ("observations:SCANNED_MAX", 10, "Observations", {}, "give bounds of phenomenonTime"),
    ("observations:SCAN_S", -1.0, "Observations", {"count": "true"}, "give bounds of phenomenonTime"),
    ("pages:EVALUATE_S", -1.0, "Things", {"filter": "name eq 'x'"}, "start from fewer entities"),
    ("pages:PREFETCH_MAX", 10, "Observations", {"orderby": "result"}, "order by phenomenonTime"),
    ("pages:PREFETCH_MAX", 10, "Things", {"filter": "Datastreams/Observations/result gt 1"}, "filter Observations"),
    ("answers:ENTITIES_MAX", 5, "Things", {"expand": "Datastreams($expand=Observations($top=1))"}, "give $top"),
]


@in_one_loop
@pytest.mark.parametrize(("limit", "value", "path", "query", "says"), LIMITS)
async def test_a_query_that_reads_too_much_is_told_the_way_out(
    things: Things,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: float,
    path: str,
    query: dict[str, Any],
    says: str,
) -> None:
    """413 with what to narrow, for rows, time and entities; the same query within the limit is answered (control)."""
    await things.ask(path, **query)
    module, name = limit.split(":")
    monkeypatch.setattr(f"sensegate.sensorthings.{module}.{name}", value)
    assert says in (await things.ask(path, expect=413, **query))["detail"]


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Whatever a client sends: a tree, or an error that names the option; nothing else is raised."""
    for parse in (parse_filter, parse_expand):
        try:
            parse(text)
        except BadRequest as why:
            assert "$" in str(why)  # noqa: PT017 - either outcome is right


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_instants_round_trip(time: int) -> None:
    """The text of a time is that time."""
    assert parse_instant(instant_text(time)) == time


@pytest.mark.parametrize("text", ["", "P", "PT", "P1Y", "1D", "P1DT", "-P"])
def test_what_is_no_duration(text: str) -> None:
    """Years and months have no fixed length."""
    assert parse_duration(text) is None
    assert parse_span("2026-01-02T00:00:00Z/2026-01-01T00:00:00Z") is None
