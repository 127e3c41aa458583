"""What clients count is what is metered, by every interface that reads; and PromQL tells nothing that a mask hides."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from sensegate.config.history import HistoryConfig
from tests.conftest import eventually
from tests.live.granting import Granted, granted
from tests.live.site import Site, config_of, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
COUNT = 12
HOUR = int(time.time()) // 3_600 * 3_600 - 7_200
"""Beginning of the hour in which all readings lie."""
MASK = {
    "round": [{"property": "air_temperature", "step": 1.0}],
    "hash": ["device"],
    "time_s": 3_600,
    "division_digits": 4,
    "drop": ["relative_humidity", "profile"],
}
TWINS = (("twin-a", "440106", "env", 21.21, 123.4), ("twin-b", "440103", "water", 20.84, 765.4))
"""(device, division, department, temperature, seconds after the hour): each in a feed of its department.

Equal under the mask; the feeds are both of the whole city.
"""


def instant(seconds: float) -> str:
    """Return a time as ISO 8601 with its zone."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Shared:
    """A gateway with readings, and grants of them."""

    def __init__(self, site: Site, plain: Granted, masked: Granted, twins: list[Granted]) -> None:
        self.site = site
        self.grants = {"unmasked": plain, "masked": masked}
        self.twins = twins


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    config = replace(config_of(tmp_path_factory.mktemp("counted")), history=HistoryConfig(enabled=True, flush_s=0.2))
    async with running(config) as site:
        devices = [await site.device(f"counted-{number}", division="440111") for number in range(2)]
        for number, device in enumerate(devices):
            values = [
                {"time": instant(HOUR + 60 * step), "values": {"air_temperature": 20 + number + step / 10}}
                for step in range(COUNT)
            ]
            assert (await site.push(device, json.dumps(values))).status == 202
        for name, division, department, temperature, late in TWINS:
            feed = {"name": f"feed-{name}", "divisions": ["4401"], "departments": [department]}
            assert (await site.ask("POST", "/api/v1/feeds", json=feed)).status == 201
            device = await site.device(name, division=division, department=department)
            values = [
                {
                    "time": instant(HOUR + late),
                    "values": {"air_temperature": temperature, "relative_humidity": temperature * 2},
                }
            ]
            assert (await site.push(device, json.dumps(values))).status == 202

        async def kept() -> bool:
            answer = await site.ask("GET", "/api/v1/feeds/all/history?from=6h&limit=1000")
            return len(answer.body["records"]) == 2 * COUNT + 4

        await eventually(kept)
        yield Shared(
            site,
            await granted(site, "counted", divisions=("440111",)),
            await granted(site, "counted-masked", divisions=("440111",), mask=MASK),
            [await granted(site, f"feed-{name}", mask=MASK) for name, *_ in TWINS],
        )


# ── counts ────────────────────────────────────────────────────────────────────────────────────────────


def _records(raw: bytes) -> int:
    return len(json.loads(raw)["records"])


def _csv(raw: bytes) -> int:
    return len(list(csv.reader(io.StringIO(raw.decode())))) - 1


def _columns(raw: bytes) -> int:
    return len(msgspec.msgpack.decode(raw)["columns"]["value"])


def _matrix(raw: bytes) -> int:
    return sum(len(series.get("values", [0])) for series in json.loads(raw)["data"]["result"])


def _expanded(raw: bytes) -> int:
    things = json.loads(raw)["value"]
    return sum(len(stream["Observations"]) for thing in things for stream in thing["Datastreams"])


def _arrays(raw: bytes) -> int:
    return sum(len(group["dataArray"]) for group in json.loads(raw)["value"])


SPAN = f"from={instant(HOUR)}&to={instant(HOUR + 3_600)}"
RANGE = f"query=air_temperature&start={HOUR}&end={HOUR + 3_600}&step=300"
JSON = "application/json"
READS: dict[str, tuple[str, str, Callable[[bytes], int]]] = {
    "records": ("/api/v1/feeds/{feed}/records?limit=7", JSON, _records),
    "records, newest first": ("/api/v1/feeds/{feed}/records?order=desc&limit=5", JSON, _records),
    "records, lines": ("/api/v1/feeds/{feed}/records", "application/x-ndjson", lambda raw: len(raw.splitlines())),
    "records, csv": ("/api/v1/feeds/{feed}/records", "text/csv", _csv),
    "records, senml": ("/api/v1/feeds/{feed}/records", "application/senml+json", lambda raw: len(json.loads(raw))),
    "records, features": (
        "/api/v1/feeds/{feed}/records",
        "application/geo+json",
        lambda raw: len(json.loads(raw)["features"]),
    ),
    "latest": ("/api/v1/feeds/{feed}/latest", JSON, _records),
    "latest, csv": ("/api/v1/feeds/{feed}/latest", "text/csv", _csv),
    "history": (f"/api/v1/feeds/{{feed}}/history?{SPAN}&limit=9", JSON, _records),
    "history, csv": (f"/api/v1/feeds/{{feed}}/history?{SPAN}", "text/csv", _csv),
    "aggregate": (
        f"/api/v1/feeds/{{feed}}/aggregate?{SPAN}&window=10m&by=device&functions=mean,count&gaps=omit",
        JSON,
        lambda raw: len(json.loads(raw)["rows"]),
    ),
    "promql": (f"/api/v1/feeds/{{feed}}/prometheus/api/v1/query_range?{RANGE}", JSON, _matrix),
    "sensorthings": ("/feeds/{feed}/sta/v1.1/Observations", JSON, lambda raw: len(json.loads(raw)["value"])),
    "sensorthings, arrays": ("/feeds/{feed}/sta/v1.1/Observations?$resultFormat=dataArray", JSON, _arrays),
    "sensorthings, csv": ("/feeds/{feed}/sta/v1.1/Observations?$resultFormat=CSV&$top=5", JSON, _csv),
    "sensorthings, expanded": (
        "/feeds/{feed}/sta/v1.1/Things?$expand=Datastreams($expand=Observations($top=3))",
        JSON,
        _expanded,
    ),
    "ngsi-ld": (
        "/feeds/{feed}/ngsi-ld/v1/entities?attrs=air_temperature,airTemperature,temperature&limit=10&local=true",
        "application/ld+json",
        lambda raw: raw.count(b'"observedAt"'),
    ),
}
"""Interface -> path, form, how a client counts what it got."""


async def usage(shared: Shared, grant: Granted) -> tuple[int, int]:
    """Return records and scanned rows of a grant, as its usage shows them."""
    rows = (await shared.site.ask("GET", f"/api/v1/grants/{grant.id}/usage")).body["rows"]
    return sum(row["records"] for row in rows), sum(row["scanned"] for row in rows)


@pytest.mark.parametrize("kind", ["unmasked", "masked"])
@pytest.mark.parametrize("name", READS)
async def test_usage_is_what_the_client_counted(shared: Shared, kind: str, name: str) -> None:
    """Usage and receipt of the grant rise by the rows of the answer; rows that were looked through stand apart."""
    path, media, count = READS[name]
    grant, site = shared.grants[kind], shared.site
    before, scanned_before = await usage(shared, grant)
    headers = {"Authorization": f"Bearer {grant.token}", "Accept": media}
    url = site.addresses.http + path.format(feed=grant.feed)
    async with site.session.get(url, headers=headers) as response:
        raw = await response.read()
    assert response.status == 200, raw[:500]
    counted = count(raw)
    after, scanned_after = await usage(shared, grant)
    assert after - before == counted > 0, raw[:500]
    assert scanned_after - scanned_before >= (1 if name == "aggregate" else counted)
    month = f"{datetime.now(UTC):%Y-%m}"
    receipt = (await site.ask("GET", f"/api/v1/grants/{grant.id}/statements/{month}")).body
    assert receipt["records"] == after
    assert sum(row.get("scanned", 0) for row in receipt["rows"]) == scanned_after


async def test_scanned_rows_are_metered_by_interface(shared: Shared) -> None:
    """A filter that leaves out all but one row: one is returned, all that were compared are counted by their route."""
    grant, site = shared.grants["unmasked"], shared.site
    path = "/api/v1/feeds/{feed}/records"
    line = f'sensegate_scanned_total{{interface="{path}"}}'
    before, used = await site.metric(line), await usage(shared, grant)
    query = f"device=counted-1&from={instant(HOUR)}&to={instant(HOUR + 1)}"
    answer = await site.ask("GET", f"{path.format(feed=grant.feed)}?{query}", grant.token)
    assert len(answer.body["records"]) == 1
    returned, scanned = (now - then for now, then in zip(await usage(shared, grant), used, strict=True))
    assert (returned, scanned >= 2 * COUNT) == (1, True)
    assert await site.metric(line) - before == scanned


# ── masks ─────────────────────────────────────────────────────────────────────────────────────────────

AT = tuple(str(HOUR + second) for second in (1, 124, 200, 766, 1_000, 3_599))
"""Times before, between and after those of the twins."""
ORACLES = [
    *(("query", f"query={text}&time={at}") for at in AT for text in (
        "air_temperature",
        "count_over_time(air_temperature[2s])",
        "min_over_time(air_temperature[90s])",
        "max_over_time(air_temperature[20m])",
        "last_over_time(air_temperature[1h])",
        "relative_humidity",
        "sum by (division) (air_temperature)",
        'air_temperature{division="440106"}',
        'air_temperature{division=~"44010[36]"}',
        'air_temperature{device="twin-a"}',
        'air_temperature{device=~"twin-[a-m]"}',
    )),
    ("query_range", f"query=air_temperature&start={HOUR}&end={HOUR + 1_800}&step=60"),
    ("query_range", f"query=count_over_time(air_temperature[1m])&start={HOUR}&end={HOUR + 1_800}&step=60"),
    ("query_range", f"query=relative_humidity&start={HOUR}&end={HOUR + 1_800}&step=60"),
    ("labels", ""),
    ("label/division/values", ""),
    ("label/device/values", ""),
    ("label/__name__/values", ""),
    ("series", 'match[]=air_temperature{division="440106"}'),
    ("series", 'match[]={device=~"twin-a.*"}'),
    ("series", "match[]=relative_humidity"),
]  # fmt: skip


async def answers(site: Site, feed: str, token: str) -> list[str]:
    """Return what a data source says to every question, with the names of its devices replaced."""
    given = []
    base = f"{site.addresses.http}/api/v1/feeds/{feed}/prometheus/api/v1"
    names: list[str] = []
    async with site.session.get(
        f"{base}/label/device/values", headers={"Authorization": f"Bearer {token}"}
    ) as response:
        names = (await response.json())["data"]
    for path, query in ORACLES:
        async with site.session.get(f"{base}/{path}?{query}", headers={"Authorization": f"Bearer {token}"}) as response:
            text = await response.text()
        for name in names:
            text = text.replace(f'"{name}"', '"DEVICE"')
        given.append(f"{response.status} {path} {query}: {text}")
    return given


async def test_promql_is_no_oracle(shared: Shared) -> None:
    """Two devices that are equal under the mask get equal answers, whatever is asked; unmasked not (control)."""
    site = shared.site
    first, second = [await answers(site, grant.feed, grant.token) for grant in shared.twins]
    assert first == second
    assert not any("twin-" in text.partition(": ")[2] for text in first)
    assert any('"DEVICE"' in text for text in first), "the control: there is something to tell"
    first, second = [await answers(site, grant.feed, site.admin) for grant in shared.twins]
    differing = [left for left, right in zip(first, second, strict=True) if left != right]
    assert len(differing) > len(ORACLES) // 2
