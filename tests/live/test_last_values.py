"""Last seen and last value of devices, as operators see them, also right after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensegate.clock import SystemClock
from sensegate.ingest import own_clock
from tests.conftest import eventually
from tests.live.site import Site, config_of, reading, running, tiers

DAY_US = 86_400_000_000


class Tomorrow(SystemClock):
    """The system clock, a day ahead."""

    def now(self) -> int:
        return super().now() + DAY_US


async def test_silent_devices_are_known_right_after_a_restart(tmp_path: Path) -> None:
    """A device that spoke before the restart is silent after it, one that never spoke is not; the last value stays."""
    config = config_of(tmp_path)
    async with running(config) as site:
        spoke, bad = await site.device("spoke"), await site.device("bad")
        await site.device("never")
        assert (await site.push(spoke, reading(21.5))).status == 202
        assert (await site.push(bad, "{")).status == 202
        row = (await site.ask("GET", "/api/v1/devices/spoke")).body
        assert row["state"] == "active"
        assert row["last_seen"] > "2026"
        await eventually(lambda: shown_latest(site))
    async with running(config, clock=Tomorrow()) as site:
        await eventually(lambda: is_complete(site))
        listed = (await site.ask("GET", "/api/v1/devices", params={"state": "silent"})).body["rows"]
        assert [device["id"] for device in listed] == ["bad", "spoke"]
        assert listed[1]["last_seen"] == row["last_seen"]
        assert listed[1]["silent_since"] > row["last_seen"]
        latest = await shown_latest(site)
        assert (latest[0]["property"], latest[0]["value"], latest[0]["unit"]) == ("air_temperature", 21.5, "Cel")
        ready = (await site.ask("GET", "/readyz", "")).body
        assert (ready["devices"]["silent"], ready["devices"]["registered"]) == (2, 1)
        await eventually(lambda: site.metric('sensegate_devices{state="silent"}'))
        assert await site.metric("sensegate_last_values_series") == 1
        auditor, _ = await site.token("auditor", "4401")
        assert (await site.ask("GET", "/api/v1/devices/spoke/latest", auditor)).status == 403
        county, _ = await site.token("county_operator", "440103")
        assert (await site.ask("GET", "/api/v1/devices/spoke/latest", county)).status == 404


async def shown_latest(site: Site) -> list[dict[str, Any]]:
    """Return the last values of the device that spoke."""
    rows: list[dict[str, Any]] = (await site.ask("GET", "/api/v1/devices/spoke/latest")).body["rows"]
    return rows


async def is_complete(site: Site) -> bool:
    """Return whether the log has been read since the start."""
    return not any(text.startswith("last values") for text in (await site.ready())[1])


async def test_a_fresh_node_compares_its_clock_with_the_centre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any reading; `/readyz` says by what the clock was judged."""
    monkeypatch.setattr(own_clock, "CHECK_S", 0.5)
    async with tiers(tmp_path) as (node, centre):

        async def judged() -> bool:
            return "judged by the centre" in (await node.ask("GET", "/readyz", "")).body["clock"]

        assert (await centre.ask("GET", "/readyz", "")).body["clock"].startswith("not judged")
        await eventually(judged, 30.0)
