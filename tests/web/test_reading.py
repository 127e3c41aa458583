"""Reading a feed as a platform developer does: periods, order, areas, fields, encodings, reference data."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
from typing import Any

import msgpack
import pytest
import zstandard
from aiohttp import ClientSession
from typer.testing import CliRunner, Result

from sensegate.authority.scope import Role
from sensegate.cli import app
from sensegate.clock import HOUR_US
from tests.share.made import NOW, Place, make_batch, members
from tests.web.serving import Gateway

ALL = "/api/v1/feeds/all/records"
PLACES = (
    Place("gz-air", "440106", "env", lon=113.3612, lat=23.1247),
    Place("gz-noise", "440103", "env", lon=113.2300, lat=23.1000),
    Place("gz-cam", "440106", "police", lon=float("nan"), lat=float("nan")),
    Place("sz-air", "440304", "env", lon=114.0579, lat=22.5431),
)
COMMITS = 30
AT = "2026-01-01T00:00:00Z"
"""NOW as text."""


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    """A centre with a reading of four devices in each of the last hours: more entries than are read back at once."""
    for number in range(COMMITS):
        rows = [(place, "air_temperature", number + place / 10) for place in range(len(PLACES))]
        batch = make_batch(rows, places=PLACES, start=NOW + number * HOUR_US)
        await gateway.log.write(members(batch, subject="readings.4401.all.1"))
    return gateway


async def read(gateway: Gateway, query: str, token: str) -> list[dict[str, Any]]:
    """Return the records of a query, page after page, to its end."""
    records: list[dict[str, Any]] = []
    path = f"{ALL}?{query}"
    for _ in range(200):
        _, body, response = await gateway.ask("GET", path, token, expect=200)
        assert response.headers["X-Count"] == str(len(body["records"]))
        records += body["records"]
        if not body["next"]:
            assert "Link" not in response.headers
            return records
        path = str(response.links["next"]["url"])
    raise AssertionError("the query does not end")


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 1_000])
async def test_descending_order_is_the_reverse(filled: Gateway, limit: int) -> None:
    """Page after page to the start of the log, each record once, whatever the size of a page."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    forward = await read(filled, f"until=0s&limit={limit}", token)
    backward = await read(filled, f"order=desc&limit={limit}", token)
    assert len(forward) == COMMITS * len(PLACES)
    assert [record["cursor"] for record in backward] == [record["cursor"] for record in reversed(forward)]
    assert backward == forward[::-1]


async def test_descending_order_in_every_form(filled: Gateway) -> None:
    """The last four records to arrive come first in CSV, NDJSON and MessagePack alike."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    _, body, _ = await filled.ask("GET", f"{ALL}?order=desc&limit=6", token, expect=200)
    expected = [record["id"] for record in body["records"]]
    headers = {"Accept": "text/csv"}
    _, raw, _ = await filled.ask("GET", f"{ALL}?order=desc&limit=6", token, headers=headers, expect=200)
    assert [row["id"] for row in csv.DictReader(io.StringIO(raw.decode()))] == expected
    headers = {"Accept": "application/x-msgpack"}
    _, raw, response = await filled.ask("GET", f"{ALL}?order=desc&limit=6", token, headers=headers, expect=200)
    assert response.content_type == "application/x-msgpack"
    assert msgpack.unpackb(raw)["count"] == 6


async def test_a_period_of_phenomenon_time(filled: Gateway) -> None:
    """`from` is included and `to` is not; late data are found, since the rest of the log is searched."""
    late = make_batch([(0, "air_temperature", 99.0)], places=PLACES, start=NOW + 2 * HOUR_US + 60_000_000)
    await filled.log.write(members(late, subject="readings.4401.all.1"))
    token = await filled.token(Role.SUBSCRIBER, "44")
    records = await read(filled, "from=2026-01-01T02:00:00Z&to=2026-01-01T04:00:00Z&until=0s", token)
    assert len(records) == 2 * len(PLACES) + 1
    assert {record["time"][:13] for record in records} == {"2026-01-01T02", "2026-01-01T03"}
    assert records[-1]["value"] == 99.0
    same = await read(filled, "from=2026-01-01T10:00:00%2B08:00&to=2026-01-01T12:00:00%2B08:00&until=0s", token)
    assert same == records


async def test_until_ends_a_query(filled: Gateway) -> None:
    """`next` is empty once every record that arrived before has been read; later records do not appear."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    assert await read(filled, "until=1h", token) == []
    assert len(await read(filled, "since=1h&until=0s", token)) == COMMITS * len(PLACES)
    assert await read(filled, "order=desc&since=0s", token) == []


async def test_areas(filled: Gateway) -> None:
    """By box and by distance; a device without a position is in no area."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    for query, expected in (
        ("bbox=113,23,113.5,24", {"gz-air", "gz-noise"}),
        ("bbox=113.3612,23.1247,113.3612,23.1247", {"gz-air"}),
        ("near=113.3612,23.1247,100", {"gz-air"}),
        ("near=113.3612,23.1247,20000", {"gz-air", "gz-noise"}),
        ("near=113.3612,23.1247,20000000", {"gz-air", "gz-noise", "sz-air"}),
        ("bbox=113,23,113.5,24&device=sz-air", set()),
    ):
        records = await read(filled, f"{query}&until=0s", token)
        assert {record["device"] for record in records} == expected, query


async def test_fields_are_chosen(filled: Gateway) -> None:
    """In their order, in JSON, NDJSON, CSV and GeoJSON, with the values of the whole records."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    _, whole, _ = await filled.ask("GET", f"{ALL}?limit=9", token, expect=200)
    for fields in ("value,device", ",".join(name for name in whole["records"][0] if name != "channel")):
        names = fields.split(",")
        path = f"{ALL}?limit=9&fields={fields}"
        expected = [{name: record[name] for name in names} for record in whole["records"]]
        _, body, _ = await filled.ask("GET", path, token, expect=200)
        assert body["records"] == expected
        assert [*body["records"][0]] == names
        headers = {"Accept": "application/jsonl"}
        _, raw, _ = await filled.ask("GET", path, token, headers=headers, expect=200)
        assert [json.loads(line) for line in raw.splitlines()] == expected
        _, raw, _ = await filled.ask("GET", path, token, headers={"Accept": "text/csv"}, expect=200)
        rows = list(csv.DictReader(io.StringIO(raw.decode())))
        _, raw, _ = await filled.ask("GET", f"{ALL}?limit=9", token, headers={"Accept": "text/csv"}, expect=200)
        assert rows == [{name: row[name] for name in names} for row in csv.DictReader(io.StringIO(raw.decode()))]


async def test_geojson(filled: Gateway) -> None:
    """Features with a point, or none where the device has no position; the record stands in the properties."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    _, whole, _ = await filled.ask("GET", f"{ALL}?limit=4", token, expect=200)
    headers = {"Accept": "application/geo+json"}
    _, raw, response = await filled.ask("GET", f"{ALL}?limit=4", token, headers=headers, expect=200)
    assert response.content_type == "application/geo+json"
    collection = raw
    assert (collection["type"], collection["next"]) == ("FeatureCollection", whole["next"])
    for feature, record in zip(collection["features"], whole["records"], strict=True):
        assert feature["type"] == "Feature"
        assert feature["id"] == record["id"]
        position = None if record["lon"] is None else [record["lon"], record["lat"]]
        assert (feature["geometry"] and feature["geometry"]["coordinates"]) == position
        assert feature["properties"]["value"] == record["value"]
        assert feature["properties"]["cursor"] == record["cursor"]
    headers = {"Accept": "application/geo+json"}
    _, raw, _ = await filled.ask("GET", f"{ALL}?limit=4&fields=value", token, headers=headers, expect=200)
    assert [*raw["features"][0]["properties"]] == ["value"]


@pytest.mark.parametrize(
    ("query", "parameter", "remedy"),
    [
        ("bbox=114,23,113,24", "bbox", "west <= east"),
        ("bbox=113,24,114,23", "bbox", "south <= north"),
        ("bbox=1,2,3", "bbox", "west,south,east,north"),
        ("bbox=200,0,201,1", "bbox", "longitude"),
        ("near=113,23", "near", "lon,lat,metres"),
        ("near=113,23,0", "near", "above 0 m"),
        ("near=113,23,nan", "near", "numbers"),
        ("near=113,99,5", "near", "latitude"),
        ("near=1,2,3&near=1,2,4", "near", "give it once"),
        ("from=2026-01-01T00:00:00", "from", "zone"),
        ("since=2026-01-01", "since", "zone"),
        ("to=tomorrow", "to", "time"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to", "later"),
        ("since=1h&until=2h", "until", "later"),
        ("order=random", "order", "asc or desc"),
        ("order=desc&wait=5", "wait", "order=desc"),
        ("fields=value,colour", "fields", "use some of"),
        ("fields=value,value", "fields", "once"),
        ("property=air_temperatur", "property", "did you mean 'air_temperature'"),
        ("ordr=desc", "ordr", "did you mean 'order'"),
    ],
)
async def test_bad_input_is_named(gateway: Gateway, query: str, parameter: str, remedy: str) -> None:
    """400 with the parameter, what it got and what it takes."""
    token = await gateway.token(Role.SUBSCRIBER, "44")
    _, body, _ = await gateway.ask("GET", f"{ALL}?{query}", token, expect=400)
    assert parameter in body["detail"]
    assert remedy in body["detail"]


async def test_fields_of_columns_are_refused(gateway: Gateway) -> None:
    """A form that has no fields to choose says which forms have."""
    token = await gateway.token(Role.SUBSCRIBER, "44")
    headers = {"Accept": "application/vnd.msgpack"}
    _, body, _ = await gateway.ask("GET", f"{ALL}?fields=value", token, headers=headers, expect=400)
    assert "geojson" in body["detail"]


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("zstd;q=0, gzip", "gzip"),
        ("*", "zstd"),
        ("identity", ""),
        ("gzip;q=0", ""),
        ("br", ""),
    ],
)
async def test_compression(filled: Gateway, accepted: str, coding: str) -> None:
    """A page is compressed as the caller accepts, and is the same page; a small one is not compressed."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": accepted}
    async with ClientSession(auto_decompress=False) as session:
        async with session.get(f"{filled.url}{ALL}", headers=headers) as response:
            assert response.headers.get("Content-Encoding", "") == coding
            assert response.headers["Vary"] == "Accept-Encoding"
            raw = await response.read()
        async with session.get(f"{filled.url}{ALL}?limit=1", headers=headers) as response:
            assert "Content-Encoding" not in response.headers
    if coding == "gzip":
        raw = gzip.decompress(raw)
    elif coding == "zstd":
        raw = zstandard.decompress(raw)
    assert len(json.loads(raw)["records"]) == COMMITS * len(PLACES)


async def speak(gateway: Gateway, token: str, *arguments: str) -> Result:
    """Run a command against the gateway in a thread, for it has a loop of its own."""
    command = [*arguments, "--url", gateway.url, "--token", token]
    return await asyncio.to_thread(CliRunner().invoke, app, command)


async def test_the_command_line_reads_a_period(filled: Gateway) -> None:
    """`feed read` prints the records of a period and ends; `feed tail --until now` prints all and ends."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    period = ("--from", "2026-01-01T02:00:00Z", "--to", "2026-01-01T04:00:00Z")
    result = await speak(filled, token, "feed", "read", "all", *period, "--format", "json", "--device", "gz-air")
    assert [json.loads(line)["value"] for line in result.stdout.splitlines()] == [2.0, 3.0]
    result = await speak(filled, token, "feed", "read", "all", "--desc", "--limit", "5", "--format", "json")
    assert [json.loads(line)["value"] for line in result.stdout.splitlines()] == [29.3, 29.1, 29.2, 29.0, 28.3]
    result = await speak(filled, token, "feed", "tail", "all", "--until", "now", "--format", "json")
    assert len(result.stdout.splitlines()) == COMMITS * len(PLACES)
    result = await speak(filled, token, "feed", "read", "all", "--bbox", "114,23,113,24")
    assert result.exit_code != 0


async def test_the_command_line_prints_the_csv_of_the_gateway(filled: Gateway) -> None:
    """A value lies below its own name though only some records have a channel; pages have one header."""
    rows = [(0, "air_temperature", 1.0), (1, "air_temperature#probe", 2.0)] * 600
    batch = make_batch(rows, places=PLACES, start=NOW + COMMITS * HOUR_US)
    await filled.log.write(members(batch, subject="readings.4401.all.1"))
    token = await filled.token(Role.SUBSCRIBER, "44")
    result = await speak(filled, token, "feed", "read", "all", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(lines) == COMMITS * len(PLACES) + len(rows)
    assert {row["node"] for row in lines} == {"4401"}
    latest = [(row["channel"], float(row["value"]), row["unit"]) for row in lines[-len(rows) :]]
    assert sorted(latest) == [("", 1.0, "Cel")] * 600 + [("probe", 2.0, "Cel")] * 600
    none = await speak(filled, token, "feed", "latest", "all", "--format", "csv", "--device", "nobody")
    assert none.stdout == result.stdout.partition("\n")[0] + "\n"


async def test_the_ledger_of_a_period_as_csv(filled: Gateway) -> None:
    """Over HTTP and on the command line; rows outside the period are not counted; the balance decides the exit."""
    token = await filled.token(Role.ADMIN)
    async with asyncio.timeout(30):
        while not filled.books.nodes(0):
            await asyncio.sleep(0)
    period = {"from": "2026-01-01T02:10:00Z", "to": "2026-01-01T03:50:00Z", "by": "hour"}
    headers = {"Accept": "text/csv"}
    path = "/api/v1/ledger"
    _, raw, response = await filled.ask("GET", path, token, headers=headers, params=period, expect=200)
    rows = list(csv.DictReader(io.StringIO(raw.decode())))
    assert [(row["hour"], row["messages"]) for row in rows] == [
        ("2026-01-01T02:00:00.000Z", "4"),
        ("2026-01-01T03:00:00.000Z", "4"),
    ]
    assert response.headers["X-Balanced"] == "True"
    _, body, _ = await filled.ask("GET", path, token, params=period, expect=200)
    assert [row["messages"] for row in body["rows"]] == [4, 4]
    options = ("--from", period["from"], "--to", period["to"], "--by", "hour", "--format", "csv")
    result = await speak(filled, token, "ledger", *options)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == raw.decode().splitlines()
    for wrong in ({"from": "2026-01-01T02:00:00Z", "since": "1h"}, {**period, "to": "2026-01-01T00:00:00Z"}):
        await filled.ask("GET", path, token, params=wrong, expect=400)


async def test_a_subscriber_reads_the_names(gateway: Gateway) -> None:
    """Divisions, properties and the public part of profiles for every token; `If-None-Match` saves the transfer."""
    subscriber = await gateway.token(Role.SUBSCRIBER, "440106")
    operator = await gateway.token(Role.CITY_OPERATOR, "4401")
    for path in ("/api/v1/divisions", "/api/v1/properties", "/api/v1/profiles"):
        _, body, response = await gateway.ask("GET", path, subscriber, expect=200)
        assert body["rows"]
        headers = {"If-None-Match": response.headers["ETag"]}
        _, raw, _ = await gateway.ask("GET", path, subscriber, headers=headers, expect=304)
        assert raw == b""
        headers = {"If-None-Match": 'W/"another"'}
        await gateway.ask("GET", path, subscriber, headers=headers, expect=200)
    _, body, _ = await gateway.ask("GET", "/api/v1/divisions/440304", subscriber, expect=200)
    assert body["name_zh"]
    _, public, _ = await gateway.ask("GET", "/api/v1/profiles/acme/th10", subscriber, expect=200)
    _, full, _ = await gateway.ask("GET", "/api/v1/profiles/acme/th10", operator, expect=200)
    assert (public["title"], public["version"]) == (full["title"], full["version"])
    assert public["topics"] == []
