"""NGSI-LD of a running gateway that keeps a history: from a device's message to entities, by a grant with a mask."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sensegate.config.history import HistoryConfig
from tests.conftest import eventually
from tests.live.granting import granted
from tests.live.site import config_of, reading, running

pytestmark = pytest.mark.live
WEATHER = "urn:ngsi-ld:WeatherObserved:gz-1"


def instant(seconds: float) -> str:
    """Return a time as ISO 8601 with its zone."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def test_from_a_device_to_an_aggregate(tmp_path: Path) -> None:
    """Last value, period and mean, of the history and the log; masked by a grant, counted, and gone once revoked."""
    config = replace(config_of(tmp_path), history=HistoryConfig(enabled=True, flush_s=0.2))
    started = time.time()
    begin = started // 3_600 * 3_600 - 7_200
    async with running(config) as site:
        device = await site.device("gz-1", lon=113.3612, lat=23.1247)
        for number in range(6):
            answer = await site.push(device, reading(20.4 + number, instant(begin + number * 1_200)))
            assert answer.status < 300, answer.body

        async def ask(path: str, token: str | None = None, *, root: str = "", **query: str) -> Any:
            answer = await site.ask("GET", f"{root}/ngsi-ld/v1/{path}", token, params=query)
            assert answer.status == 200, answer.body
            return answer.body

        (entity,) = await ask("entities", q="temperature>25", georel="near;maxDistance==2000", geometry="Point",
                              coordinates="[113.36,23.12]")  # fmt: skip
        assert (entity["id"], entity["temperature"]["value"]) == (WEATHER, 25.4)
        assert entity["temperature"]["unitCode"] == "CEL"
        period = {"timerel": "between", "timeAt": instant(begin), "endTimeAt": instant(begin + 7_200)}
        hourly = {"options": "aggregatedValues", "aggrMethods": "avg,totalCount", "aggrPeriodDuration": "PT1H"}

        async def is_kept() -> bool:
            query = f"/api/v1/feeds/all/history?from={instant(begin)}"
            return len((await site.ask("GET", query)).body["records"]) == 6

        await eventually(is_kept)
        path = f"temporal/entities/{WEATHER}"
        evolution = await ask(path, **period)
        assert [part["value"] for part in evolution["temperature"]] == [20.4, 21.4, 22.4, 23.4, 24.4, 25.4]
        arrived = {"timerel": "after", "timeAt": instant(started - 60), "timeproperty": "createdAt"}
        assert len((await ask(path, **arrived))["temperature"]) == 6
        arrived = {**arrived, "timerel": "before", "timeproperty": "modifiedAt"}
        assert "temperature" not in await ask(path, **arrived)
        means = (await ask(path, **period, **hourly))["temperature"]
        assert [cell[0] for cell in means["avg"]] == pytest.approx([21.4, 24.4])
        assert [cell[0] for cell in means["totalCount"]] == [3, 3]

        mask = {"round": [{"property": "air_temperature", "step": 1.0}]}
        grant = await granted(site, "weather", mask=mask)
        feed = "/feeds/weather"
        entity = await ask(f"entities/{WEATHER}", grant.token, root=feed, options="keyValues")
        assert entity["temperature"] == 25.0
        assert await ask("entities", grant.token, root=feed, q="temperature>25.2") == []
        means = (await ask(path, grant.token, root=feed, **period, **hourly))["temperature"]
        assert [cell[0] for cell in means["avg"]] == [21.0, 24.0]
        usage = (await site.ask("GET", "/api/v1/usage", grant.token)).body["rows"]
        assert sum(row["records"] for row in usage) == 1 + 4
        revoked = await site.ask("DELETE", f"/api/v1/grants/{grant.id}", params={"reason": "enough"})
        assert revoked.status < 300, revoked.body

        async def is_refused() -> bool:
            return (await site.ask("GET", f"{feed}/ngsi-ld/v1/entities?type=Device", grant.token)).status == 403

        await eventually(is_refused)
