"""The temporal evolution of entities: periods, the last readings, values, aggregates; masks hold here too."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio

from sensegate.ngsi_ld.problems import NgsiError
from sensegate.ngsi_ld.windows import METHODS, Period, parse_duration, parse_period
from sensegate.share.masks import Mask, Rounding
from tests.ngsi_ld.made import DAY
from tests.ngsi_ld.serving import PLACES, Entities, entities_serving, granted
from tests.share.made import NOW, make_batch

in_one_loop = pytest.mark.asyncio(loop_scope="module")
HOUR_US = 3_600_000_000
WEATHER = "urn:ngsi-ld:WeatherObserved:gz-air"
ERRORS = "https://uri.etsi.org/ngsi-ld/errors/"
BETWEEN = {"timerel": "between", "timeAt": "2026-01-01T01:00:00Z", "endTimeAt": "2026-01-01T04:00:00Z"}
SINCE = {"timerel": "after", "timeAt": "2025-12-31T00:00:00Z"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def evolving() -> AsyncIterator[Entities]:
    """Two devices of two cities that reported every hour, six times."""
    async with entities_serving(rows=()) as entities:
        for hour in range(6):
            rows: list[tuple[int, str, float | str]] = [
                (0, "air_temperature", 20.25 + hour),
                (0, "air_temperature#2", 30.0 + hour),
                (0, "relative_humidity", 60.0),
                (0, "wind_cardinal", "NW" if hour % 2 else "S"),
                (0, "pm2_5", 10.0 + hour),
                (3, "air_temperature", 5.0 + hour),
            ]
            await entities.write(make_batch(rows, places=PLACES, start=NOW + hour * HOUR_US))
        yield entities


@in_one_loop
async def test_an_entity_in_a_period(evolving: Entities) -> None:
    """The readings of each attribute in order of time, with those of the period only."""
    entity = await evolving.ask(f"temporal/entities/{WEATHER}", attrs="temperature", **BETWEEN)
    first = [part for part in entity["temperature"] if "datasetId" not in part]
    assert [part["value"] for part in first] == [21.25, 22.25, 23.25]
    assert first[0]["observedAt"].startswith("2026-01-01T01:00:00")
    assert first[0]["quality"] == {"type": "Property", "value": "good"}
    second = [part["value"] for part in entity["temperature"] if "datasetId" in part]
    assert second == [31.0, 32.0, 33.0]
    every = await evolving.ask(f"temporal/entities/{WEATHER}")
    assert len(every["windCardinal"]) == len(every["relativeHumidity"]) == 6
    assert "pm25" not in every
    await evolving.ask("temporal/entities/urn:ngsi-ld:WeatherObserved:none", expect=404)


@in_one_loop
@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ({"timerel": "before", "timeAt": "2026-01-01T02:00:00Z"}, 2),
        ({"timerel": "after", "timeAt": "2026-01-01T02:00:00Z"}, 4),
        (BETWEEN, 3),
        ({**BETWEEN, "timeAt": "2026-01-01T09:00:00+08:00"}, 3),
        ({**SINCE, "lastN": 2}, 2),
        ({**SINCE, "timeproperty": "observedAt"}, 6),
    ],
)
async def test_periods(evolving: Entities, period: dict[str, Any], expected: int) -> None:
    """Before, after, between, and the last ones."""
    (entity,) = await evolving.ask("temporal/entities", type="AirQualityObserved", **period)
    readings = entity["pm25"]
    assert len(readings) == expected
    if "lastN" in period:
        assert [reading["value"] for reading in readings] == [14.0, 15.0]


LATE_DEVICE = "urn:ngsi-ld:NoiseLevelObserved:gz-noise"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def late() -> AsyncIterator[Entities]:
    """Three readings of three hours; the first one arrived last, and the second one was revised after that."""
    async with entities_serving(rows=()) as entities:
        hours = ((1, 1, 50.0, 0), (2, 2, 60.0, 0), (0, 3, 40.0, 0), (1, 4, 55.0, 1))
        for hour, arrival, value, revision in hours:
            batch = make_batch([(1, "sound_level_leq", value)], places=PLACES, start=NOW + hour * HOUR_US)
            received = np.full(len(batch), NOW + arrival * HOUR_US, batch.received.dtype)
            revisions = np.full(len(batch), revision, batch.revision.dtype)
            await entities.write(msgspec.structs.replace(batch, received=received, revision=revisions))
        yield entities


@in_one_loop
@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ({"timeproperty": "modifiedAt", **SINCE}, [60.0, 40.0, 55.0]),
        ({"timeproperty": "createdAt", **SINCE}, [55.0, 60.0, 40.0]),
        ({"timeproperty": "observedAt", **SINCE}, [40.0, 55.0, 60.0]),
        ({"timeproperty": "modifiedAt", "timerel": "after", "timeAt": "2026-01-01T02:30:00Z"}, [40.0, 55.0]),
        ({"timeproperty": "createdAt", "timerel": "after", "timeAt": "2026-01-01T02:30:00Z"}, [40.0]),
        ({"timeproperty": "modifiedAt", "timerel": "before", "timeAt": "2026-01-01T02:30:00Z"}, [60.0]),
        ({"timeproperty": "createdAt", "timerel": "before", "timeAt": "2026-01-01T02:30:00Z"}, [55.0, 60.0]),
        ({"timeproperty": "createdAt", "lastN": 2, **SINCE}, [60.0, 40.0]),
    ],
)
async def test_periods_of_arrival(late: Entities, period: dict[str, Any], expected: list[float]) -> None:
    """By createdAt a reading counts when its first revision arrived, by modifiedAt when its last one did."""
    path = f"temporal/entities/{LATE_DEVICE}"
    readings = (await late.ask(path, options="sysAttrs", attrs="LAeq", **period))["LAeq"]
    assert [reading["value"] for reading in readings] == expected
    times = [reading[period["timeproperty"]] for reading in readings]
    assert times == sorted(times)
    values = (await late.ask(path, options="temporalValues", attrs="LAeq", **period))["LAeq"]["values"]
    assert values == [[value, time] for value, time in zip(expected, times, strict=True)]


@in_one_loop
async def test_windows_of_arrival(late: Entities) -> None:
    """Aggregates by windows of arrival; a query of entities and one in a body answer the same."""
    period = {"timeproperty": "createdAt", "timerel": "between", "timeAt": "2026-01-01T00:00:00Z",
              "endTimeAt": "2026-01-01T06:00:00Z"}  # fmt: skip
    query = {"options": "aggregatedValues", "aggrMethods": "totalCount,max", "aggrPeriodDuration": "PT3H", **period}
    (entity,) = await late.ask("temporal/entities", type="NoiseLevelObserved", **query)
    assert [cell[0] for cell in entity["LAeq"]["totalCount"]] == [2, 1]
    assert [cell[0] for cell in entity["LAeq"]["max"]] == [60.0, 40.0]
    body = {"type": "Query", "entities": [{"type": "NoiseLevelObserved"}], "temporalQ": period}
    (posted,) = await late.ask("temporal/entityOperations/query", method="POST", json=body)
    assert [reading["value"] for reading in posted["LAeq"]] == [55.0, 60.0, 40.0]


@in_one_loop
async def test_queries_of_the_evolution(evolving: Entities) -> None:
    """Conditions select entities; those without a reading in the period are left out; by POST the same."""
    query: dict[str, Any] = {"type": "WeatherObserved", "count": "true", **SINCE}
    listed, response = await evolving.reply("temporal/entities", **query)
    assert [entity["id"] for entity in listed] == [WEATHER, "urn:ngsi-ld:WeatherObserved:sz-air"]
    assert response.headers["NGSILD-Results-Count"] == "2"
    narrow = await evolving.ask("temporal/entities", q="temperature>20", scopeQ="/44/4401/#", **SINCE)
    assert [entity["id"] for entity in narrow] == [WEATHER]
    future = {"timerel": "after", "timeAt": "2027-01-01T00:00:00Z"}
    assert await evolving.ask("temporal/entities", type="WeatherObserved", **future) == []
    body = {"type": "Query", "entities": [{"type": "WeatherObserved"}], "temporalQ": SINCE, "lastN": 1}
    posted = await evolving.ask("temporal/entityOperations/query", method="POST", json=body)
    assert [len(entity["temperature"]) for entity in posted] == [2, 1]


@in_one_loop
async def test_values_with_their_times(evolving: Entities) -> None:
    """Pairs of value and time, for each data set."""
    entity = await evolving.ask(
        f"temporal/entities/{WEATHER}", options="temporalValues", attrs="temperature", **BETWEEN
    )
    plain, second = entity["temperature"]
    assert [value for value, _ in plain["values"]] == [21.25, 22.25, 23.25]
    assert plain["values"][0][1].startswith("2026-01-01T01:00:00")
    assert second["datasetId"] == "urn:ngsi-ld:Dataset:2"
    assert entity == await evolving.ask(
        f"temporal/entities/{WEATHER}", format="temporalValues", attrs="temperature", **BETWEEN
    )


@in_one_loop
async def test_aggregates(evolving: Entities) -> None:
    """Each method by windows from the beginning of the period; texts have counts, least and greatest."""
    query = {"options": "aggregatedValues", "aggrMethods": ",".join(METHODS), **BETWEEN, "aggrPeriodDuration": "PT2H"}
    entity = await evolving.ask("temporal/entities/urn:ngsi-ld:AirQualityObserved:gz-air", attrs="pm25", **query)
    columns = {name: [cell[0] for cell in cells] for name, cells in entity["pm25"].items() if name != "type"}
    assert columns == {
        "totalCount": [2, 1],
        "distinctCount": [2, 1],
        "sum": [23.0, 13.0],
        "avg": [11.5, 13.0],
        "min": [11.0, 13.0],
        "max": [12.0, 13.0],
        "stddev": [0.5, 0.0],
        "sumsq": [265.0, 169.0],
    }
    assert entity["pm25"]["sum"][0][1:] == ["2026-01-01T01:00:00.000Z", "2026-01-01T03:00:00.000Z"]
    whole = {"options": "aggregatedValues", "aggrMethods": "max,totalCount,avg", **SINCE}
    entity = await evolving.ask(f"temporal/entities/{WEATHER}", attrs="windCardinal", **whole)
    assert entity["windCardinal"]["max"][0][0] == "S"
    assert entity["windCardinal"]["totalCount"][0][0] == 6
    assert entity["windCardinal"]["avg"] == []


@in_one_loop
@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ({}, 400, "BadRequestData"),
        ({"timerel": "during", "timeAt": "2026-01-01T00:00:00Z"}, 400, "BadRequestData"),
        ({"timerel": "after"}, 400, "BadRequestData"),
        ({"timerel": "after", "timeAt": "2026-01-01T00:00:00"}, 400, "BadRequestData"),
        ({"timeAt": "2026-01-01T00:00:00Z"}, 400, "BadRequestData"),
        ({**BETWEEN, "endTimeAt": "2025-01-01T00:00:00Z"}, 400, "BadRequestData"),
        ({**SINCE, "endTimeAt": "2027-01-01T00:00:00Z"}, 400, "BadRequestData"),
        ({**SINCE, "lastN": "0"}, 400, "BadRequestData"),
        ({**SINCE, "aggrMethods": "avg"}, 400, "BadRequestData"),
        ({**SINCE, "options": "aggregatedValues"}, 400, "BadRequestData"),
        ({**SINCE, "options": "aggregatedValues", "aggrMethods": "mode"}, 400, "BadRequestData"),
        (
            {**SINCE, "options": "aggregatedValues", "aggrMethods": "avg", "aggrPeriodDuration": "1h"},
            400,
            "BadRequestData",
        ),
        (
            {**SINCE, "options": "aggregatedValues", "aggrMethods": "avg", "aggrPeriodDuration": "PT1S"},
            413,
            "TooManyResults",
        ),
        ({**SINCE, "timeproperty": "deletedAt"}, 422, "OperationNotSupported"),
    ],
)
async def test_what_is_refused(evolving: Entities, query: dict[str, Any], status: int, kind: str) -> None:
    """A period that is missing or not understood, a method or a duration that is unknown, too many windows."""
    problem = await evolving.ask("temporal/entities", type="WeatherObserved", expect=status, **query)
    assert problem["type"] == f"{ERRORS}{kind}"


@in_one_loop
async def test_too_many_readings(evolving: Entities, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that would be too long is refused with the way out; the last ones are given."""
    monkeypatch.setattr("sensegate.ngsi_ld.temporal.INSTANCES_MAX", 5)
    problem = await evolving.ask("temporal/entities", type="WeatherObserved", expect=413, **SINCE)
    assert problem["type"] == f"{ERRORS}TooManyResults"
    assert "lastN" in problem["detail"]
    (entity,) = await evolving.ask("temporal/entities", type="AirQualityObserved", lastN=1, **SINCE)
    assert len(entity["pm25"]) == 1


@in_one_loop
async def test_masks_and_metering(evolving: Entities) -> None:
    """Aggregates are of masked values, so that the least of one value does not tell it; what is given is counted."""
    mask = Mask(round=(Rounding("air_temperature", 1.0),), drop=("relative_humidity",), hash=("device",))
    masked = await granted(evolving, mask)
    (first, *_) = await masked.ids(type="WeatherObserved")
    path = f"temporal/entities/urn:ngsi-ld:{first}"
    window = {"timerel": "between", "timeAt": "2026-01-01T01:00:00Z", "endTimeAt": "2026-01-01T01:30:00Z"}
    query = {"options": "aggregatedValues", "aggrMethods": "min,max,avg", **window}
    entity = await masked.ask(path, **query)
    if isinstance(entity["temperature"], dict):  # the device of the other city comes first
        assert {entity["temperature"][name][0][0] for name in ("min", "max", "avg")} == {6.0}
    else:
        assert {entity["temperature"][0][name][0][0] for name in ("min", "max", "avg")} == {21.0}
    assert "relativeHumidity" not in entity
    assert "gz-air" not in json.dumps(entity)
    await masked.ask(f"temporal/entities/{WEATHER}", expect=404)
    bare = await granted(evolving, Mask())
    entity = await bare.ask(f"temporal/entities/{WEATHER}", **query)
    assert entity["temperature"][0]["min"][0][0] == 21.25
    reader = await granted(evolving, Mask())
    await reader.ask(f"temporal/entities/{WEATHER}", attrs="temperature", **BETWEEN)
    rows = [row for row in evolving.gateway.sharing.usage() if row.token == reader.token.split("_")[1]]
    assert sum(row.records for row in rows) == 6


@pytest.mark.parametrize(
    ("text", "count", "second"),
    [
        ("PT1H", 24 * 59, DAY + HOUR_US),
        ("P1D", 59, DAY + 24 * HOUR_US),
        ("P1W", 9, DAY + 7 * 24 * HOUR_US),
        ("P1M", 2, DAY + 31 * 24 * HOUR_US),
        ("P1Y", 1, DAY + 365 * 24 * HOUR_US),
        ("P1DT12H", 40, DAY + 36 * HOUR_US),
        ("", 1, DAY + 59 * 24 * HOUR_US),
    ],
)
def test_windows(text: str, count: int, second: int) -> None:
    """Windows of a fixed length, and of calendar months: January and February of 2026."""
    windows = parse_duration(text).windows(DAY, DAY + 59 * 24 * HOUR_US)
    assert len(windows) == count
    assert windows[0] == (DAY, second)
    assert all(first[1] == after[0] for first, after in itertools.pairwise(windows))


@pytest.mark.parametrize("text", ["P999999W", "PT99999999H", "P999999Y", "P1M999999W"])
def test_windows_that_are_too_long(text: str) -> None:
    """A window that would end later than times can be written is refused."""
    with pytest.raises(NgsiError) as caught:
        parse_duration(text).windows(DAY, DAY + 59 * 24 * HOUR_US)
    assert caught.value.status == 400


@pytest.mark.parametrize("method", ["sum", "avg", "sumsq", "stddev"])
def test_aggregates_beyond_numbers(method: str) -> None:
    """An aggregate that is too large a number is left out, as one that does not apply; smaller ones are given."""
    assert METHODS[method]([1.7e308, 1.7e308, -1e300]) is None
    assert METHODS[method]([2.0, 2.0]) in {4.0, 2.0, 8.0, 0.0}
    assert METHODS["max"]([1e200, 2e200]) == 2e200


def test_periods_of_the_standard() -> None:
    """Before and after exclude the time itself; between includes its beginning only."""
    moment = "2026-01-01T00:00:00Z"
    assert parse_period("before", moment, "") == Period(None, DAY)
    assert parse_period("after", moment, "") == Period(DAY + 1, None)
    assert parse_period("between", moment, "2026-01-01T01:00:00Z") == Period(DAY, DAY + HOUR_US)
    assert parse_period("", "", "") is None
    with pytest.raises(NgsiError, match="aggrPeriodDuration"):
        parse_duration("P1Y999999999999Y")
