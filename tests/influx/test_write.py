"""Line protocol in: devices that write to InfluxDB 2 write here, and get the answers that they know."""

from __future__ import annotations

import asyncio
import base64
import gzip
import importlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from msgspec.structs import replace

from tests.live.site import PLAIN, PROFILES, Answer, Made, Site, config_of, running

pytestmark = [pytest.mark.live]
in_one_loop = pytest.mark.asyncio(loop_scope="module")
PROFILE = PROFILES / "sensegate" / "line-protocol.yaml"
TELEGRAF = PROFILES / "influxdata" / "telegraf.yaml"
NOW = int(time.time()) - 600


class Written:
    """A gateway with devices that write line protocol."""

    def __init__(self, site: Site, device: Made, host: Made) -> None:
        self.site = site
        self.device = device
        self.host = host

    async def write(
        self, body: str | bytes, query: dict[str, str] | None = None, *, headers: dict[str, str] | None = None
    ) -> Answer:
        """Write as the device, unless headers name another."""
        token = {"Authorization": f"Token {self.device.id}:{self.device.password}"}
        return await self.site.ask(
            "POST", "/api/v2/write", "", data=body, params=query or {}, headers={**token, **(headers or {})}
        )

    async def records(self, device: str = "line-1") -> list[dict[str, Any]]:
        """Return the records of a device."""
        answer = await self.site.ask("GET", f"/api/v1/feeds/all/records?device={device}&limit=10000")
        records: list[dict[str, Any]] = answer.body["records"]
        return records


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def written(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Written]:
    """One gateway for the file."""
    config = replace(config_of(tmp_path_factory.mktemp("write")), profiles=(str(PLAIN), str(PROFILE), str(TELEGRAF)))
    async with running(config) as site:
        device = await site.device("line-1", profile="sensegate/line-protocol")
        yield Written(site, device, await site.device("host-1", profile="influxdata/telegraf"))


@in_one_loop
async def test_204_comes_after_the_commit(written: Written) -> None:
    """The readings are there with the answer, by every way to sign in that clients have."""
    basic = base64.b64encode(f"line-1:{written.device.password}".encode()).decode()
    operator = written.site.admin
    signatures = (
        (f"Token line-1:{written.device.password}", ""),
        (f"Token {written.device.password}", "line-1"),
        (f"Bearer {written.device.password}", "line-1"),
        (f"Basic {basic}", "line-1"),
        (f"Token {operator}", "line-1"),
    )
    for number, (signature, bucket) in enumerate(signatures):
        query = {"bucket": bucket, "org": "4401"} if bucket else {}
        line = f"m illuminance={number} {NOW + number}000000000"
        answer = await written.write(line, headers={"Authorization": signature}, query=query)
        assert (answer.status, answer.body) == (204, b""), signature
    values = [row["value"] for row in await written.records() if row["property"] == "illuminance"]
    assert values == [0, 1, 2, 3, 4]


@in_one_loop
@pytest.mark.parametrize(("precision", "factor"), [("", 10**9), ("ns", 10**9), ("us", 10**6), ("ms", 10**3), ("s", 1)])
async def test_precision(written: Written, precision: str, factor: int) -> None:
    """Times are of the unit that the request names; nanoseconds without one."""
    value = {"": 1, "ns": 2, "us": 3, "ms": 4, "s": 5}[precision]
    query = {"precision": precision} if precision else {}
    answer = await written.write(f"m pm10={value} {(NOW + 20 + value) * factor}", query=query)
    assert answer.status == 204, answer.body
    (row,) = [row for row in await written.records() if (row["property"], row["value"]) == ("pm10", value)]
    assert row["time"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW + 20 + value)))


@in_one_loop
async def test_gzip_and_many_points(written: Written) -> None:
    """A compressed request of more points than a message holds; written twice, each point is a reading once."""
    lines = "".join(f"m,station=a\\ b sound_level={number / 10} {NOW - number}000000000\n" for number in range(1_200))
    body = gzip.compress(lines.encode())
    for _ in range(2):
        answer = await written.write(body, headers={"Content-Encoding": "gzip"})
        assert answer.status == 204, answer.body
    values = [row["value"] for row in await written.records() if row["property"] == "sound_level"]
    assert len(values) == len(set(values)) == 1_200


@in_one_loop
async def test_a_partial_write(written: Written) -> None:
    """Good lines are committed, bad ones are named, as InfluxDB answers: 400, `invalid`."""
    body = f"m pm1=1 {NOW}000000000\nm pm1=\nm pm1=abc\nm pm1=2 {NOW + 1}000000000\nm pm1=3 99999999999999999999"
    answer = await written.write(body)
    assert answer.status == 400
    assert answer.body["code"] == "invalid"
    message = answer.body["message"]
    assert message == answer.body["detail"]
    for part in ("partial write:", "line 2", "line 3", "out of range", "dropped=3, written=2"):
        assert part in message
    assert [row["value"] for row in await written.records() if row["property"] == "pm1"] == [1, 2]


@in_one_loop
@pytest.mark.parametrize(
    ("body", "headers", "query", "answered"),
    [
        ("m a=1", {"Authorization": "Token line-1:wrong"}, {}, (401, "unauthorized")),
        ("m a=1", {"Authorization": "Token x"}, {}, (401, "unauthorized")),
        ("m a=1", {}, {"bucket": "host-1"}, (403, "forbidden")),
        ("m a=1", {}, {"org": "4403"}, (404, "not found")),
        ("m a=1", {}, {"precision": "h"}, (400, "invalid")),
        ("", {}, {}, (400, "invalid")),
        ("# nothing\n", {}, {}, (400, "invalid")),
        (b"\xff\xfe", {}, {}, (400, "invalid")),
        (b"no gzip", {"Content-Encoding": "gzip"}, {}, (400, "invalid")),
        (gzip.compress(b"m a=1", mtime=0)[:-3], {"Content-Encoding": "gzip"}, {}, (400, "invalid")),
        (gzip.compress(b" " * 40_000_000, mtime=0), {"Content-Encoding": "gzip"}, {}, (413, "request too large")),
        ("m a=1", {"Content-Encoding": "br"}, {}, (415, "unsupported media type")),
    ],
    ids=range(12),
)
async def test_what_is_refused(
    written: Written, body: str | bytes, headers: dict[str, str], query: dict[str, str], answered: tuple[int, str]
) -> None:
    """Each with status and code of InfluxDB, and as a problem document."""
    answer = await written.write(body, headers=headers, query=query)
    assert (answer.status, answer.body["code"]) == answered, answer.body
    assert answer.body["message"]


@in_one_loop
async def test_the_edge_cases_of_the_protocol(written: Written) -> None:
    """Escapes, quoting, comments, integers, unsigned, booleans; an unknown field is rejected alone."""
    stamp = f"{NOW + 40}000000000"
    body = (
        "# a comment\n\n"
        rf"my\ weather\,x,tag\ one=a\=b\,c,path=C:\temp air_pressure=1013i,relative_humidity=60u,cover_open=T,"
        rf'state="say \"hi\", two=2",grue=7 {stamp}' + "\r\n"
        f"   m   co2=4.1e2   {stamp}  \n#end"
    )
    assert (await written.write(body)).status == 204
    rows = {row["property"]: row["value"] for row in await written.records()}
    expected = {"air_pressure": 1013, "relative_humidity": 60, "cover_open": True, "state": 'say "hi", two=2'}
    assert {name: rows.get(name) for name in expected} == expected
    assert "grue" not in rows


@in_one_loop
async def test_telegraf(written: Written) -> None:
    """The metrics of an agent, batched and compressed as its output plugin sends them, become its host's readings."""
    stamp = f"{NOW}000000000"
    body = (
        f"cpu,cpu=cpu-total,host=loaner usage_idle=82.5,usage_user=11.4 {stamp}\n"
        f"mem,host=loaner available=16818249728i,total=20913917952i {stamp}\n"
        f"system,host=loaner uptime=1249632i {stamp}\n"
        f"disk,fstype=ext4,path=/ used_percent=5.02 {stamp}\n"
    )
    headers = {"Authorization": f"Token {written.host.password}", "Content-Encoding": "gzip", "User-Agent": "Telegraf"}
    answer = await written.write(gzip.compress(body.encode()), headers=headers, query={"org": "", "bucket": "host-1"})
    assert answer.status == 204, answer.body
    rows = {row["property"]: row["value"] for row in await written.records("host-1")}
    assert rows == {"cpu_load": 17.5, "free_memory": 16818249728, "uptime": 1249632}


@in_one_loop
async def test_the_client_of_influxdb(written: Written) -> None:
    """`influxdb-client` pings, writes points, and raises what we answer."""
    url, token = written.site.addresses.http, f"line-1:{written.device.password}"

    influx: Any = importlib.import_module("influxdb_client")  # untyped

    def use() -> str:
        with influx.InfluxDBClient(url, token=token, org="4401") as client:
            assert client.ping()
            writer = client.write_api(write_options=SYNCHRONOUS)
            point = influx.Point("m").tag("station", "a b").field("wind_speed", 3.5).time(NOW, "s")
            writer.write(bucket="line-1", record=point, write_precision="s")
            try:
                writer.write(bucket="line-1", record="m wind_speed=")
            except ApiException as error:
                return str(error.message)
        return ""

    assert "partial write" in await asyncio.to_thread(use)
    health = await written.site.ask("GET", "/health", "")
    assert (health.body["name"], health.body["status"]) == ("influxdb", "pass")
    assert [row["value"] for row in await written.records() if row["property"] == "wind_speed"] == [3.5]
