"""A feed as a data source of Prometheus: what Grafana asks, against VictoriaMetrics with the same readings."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from sensegate.config.history import HistoryConfig
from tests.conftest import eventually
from tests.influx.store import BINARY, victoria_metrics
from tests.live.granting import granted
from tests.live.site import Site, config_of, reading, running

pytestmark = pytest.mark.live
COUNT = 40
BEGIN = int(time.time()) // 60 * 60 - 3_600


def value(device: int, number: int) -> float:
    """Return the value of a reading, which goes up and down."""
    return round(20 + 5 * math.sin(number / 5) + device, 2)


async def ask(site: Site, token: str, path: str, method: str = "GET", **parameters: str | list[str]) -> tuple[int, Any]:
    """Return status and document of a request, as Grafana makes it."""
    url = f"{site.addresses.http}/api/v1/feeds/prom/prometheus/api/v1/{path}"
    pairs = [
        (name, text) for name, texts in parameters.items() for text in ([texts] if isinstance(texts, str) else texts)
    ]
    sent: dict[str, Any] = {"params": pairs} if method == "GET" else {"data": aiohttp.FormData(pairs)}
    async with site.session.request(method, url, headers={"Authorization": f"Bearer {token}"}, **sent) as response:
        return response.status, await response.json(content_type=None)


def numbers(document: Any) -> dict[tuple[str, ...], dict[float, float]]:
    """Return the values of a matrix by labels (without the metric's name) and time."""
    return {
        tuple(sorted(text for name, text in series["metric"].items() if name in {"device", "division"})): {
            float(at): float(text) for at, text in series["values"]
        }
        for series in document["data"]["result"]
    }


async def test_what_grafana_asks(tmp_path: Path) -> None:
    """Queries by GET and by form, labels, series, errors, metering of the grant; values as of another engine."""
    config = replace(config_of(tmp_path / "node"), history=HistoryConfig(enabled=True, flush_s=0.2))
    async with running(config) as site:
        grant = await granted(site, "prom")
        devices = [await site.device(f"gz-{number}") for number in range(2)]
        for number, device in enumerate(devices):
            rows = ",".join(
                reading(value(number, step), datetime.fromtimestamp(BEGIN + 60 * step, UTC).isoformat())
                for step in range(COUNT)
            )
            assert (await site.push(device, f"[{rows}]")).status == 202

        async def there() -> bool:
            answer = await site.ask("GET", "/api/v1/feeds/prom/history?from=2h&limit=1000", grant.token)
            return len(answer.body["records"]) == 2 * COUNT

        await eventually(there)
        status, document = await ask(site, grant.token, "query", query="1+1")
        assert (status, document["data"]) == (
            200,
            {"resultType": "scalar", "result": [document["data"]["result"][0], "2"]},
        )
        at = str(BEGIN + 600)
        status, document = await ask(
            site, grant.token, "query", "POST", query='air_temperature{device="gz-1"}', time=at
        )
        (vector,) = document["data"]["result"]
        assert vector["metric"] == {"__name__": "air_temperature", "device": "gz-1", "division": "440106"}
        assert float(vector["value"][1]) == value(1, 10)
        status, document = await ask(
            site, grant.token, "query", query='air_temperature{device=~"gz-.*",division!~"44.*"}', time=at
        )
        assert document["data"]["result"] == []
        status, document = await ask(site, grant.token, "query", query="air_temperature[3m]", time=at)
        assert [len(series["values"]) for series in document["data"]["result"]] == [3, 3]
        assert (await ask(site, grant.token, "labels"))[1]["data"] == ["__name__", "device", "division"]
        assert (await ask(site, grant.token, "label/device/values"))[1]["data"] == ["gz-0", "gz-1"]
        match: dict[str, Any] = {"match[]": ['air_temperature{device="gz-0"}', "absent"]}
        assert [row["device"] for row in (await ask(site, grant.token, "series", **match))[1]["data"]] == ["gz-0"]
        for query, kind, code in (
            ("topk(2, air_temperature)", "bad_data", 400),
            ('air_temperature{device=~"("}', "bad_data", 400),
        ):
            status, document = await ask(site, grant.token, "query", query=query, time=at)
            assert (status, document["status"], document["errorType"]) == (code, "error", kind), document
        ranged = {"start": str(BEGIN), "end": str(BEGIN + 60 * COUNT), "step": "1"}
        status, document = await ask(
            site, grant.token, "query_range", query="air_temperature", **{**ranged, "step": "0.1"}
        )
        assert (status, document["errorType"]) == (400, "bad_data")
        usage = (await site.ask("GET", f"/api/v1/grants/{grant.id}/usage")).body["rows"]
        counted = sum(row["records"] for row in usage)
        status, document = await ask(
            site, grant.token, "query_range", "POST", query="air_temperature", **{**ranged, "step": "60"}
        )
        read_out = sum(len(series["values"]) for series in document["data"]["result"])
        usage = (await site.ask("GET", f"/api/v1/grants/{grant.id}/usage")).body["rows"]
        assert sum(row["records"] for row in usage) == counted + read_out > counted + 2 * COUNT - 1
        assert (await ask(site, "wrong", "labels"))[0] == 401
        if BINARY:
            await _compare(site, grant.token, tmp_path)


async def _compare(site: Site, token: str, directory: Path) -> None:
    """The same queries give the same values over the same samples where both engines define them alike."""
    lines = "".join(
        f"reading,device=gz-{number},division=440106 air_temperature={value(number, step)} {BEGIN + 60 * step}000\n"
        for number in range(2)
        for step in range(COUNT)
    )
    (directory / "vm").mkdir()
    async with victoria_metrics(directory / "vm") as store, aiohttp.ClientSession() as http:
        async with http.post(f"{store.url}/api/v2/write?precision=ms", data=lines) as response:
            assert response.status == 204
        await store.samples()
        ranged = {"start": str(BEGIN + 600), "end": str(BEGIN + 1_800), "step": "60"}
        for query in (
            "avg_over_time(METRIC[5m])",
            "max_over_time(METRIC[7m])",
            "count_over_time(METRIC[10m])",
            "sum(min_over_time(METRIC[5m]))",
            "avg by (division) (sum_over_time(METRIC[5m]))",
            "quantile_over_time(0.5, METRIC[5m])",
            "stddev_over_time(METRIC[5m])",
            'sum without (device) (avg_over_time(METRIC{device=~"gz-[01]"}[3m])) / 2',
        ):
            theirs_query = query.replace("METRIC", "reading_air_temperature")
            async with http.get(
                f"{store.url}/api/v1/query_range", params={**ranged, "query": theirs_query}
            ) as response:
                theirs = numbers(await response.json())
            ours = numbers(
                (await ask(site, token, "query_range", query=query.replace("METRIC", "air_temperature"), **ranged))[1]
            )
            assert ours.keys() == theirs.keys(), query
            for labels, rows in ours.items():
                assert rows == pytest.approx(theirs[labels]), query
