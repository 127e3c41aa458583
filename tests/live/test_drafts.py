"""Learning on a running node: what nobody can decode shows up by its shape, with a draft that loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sensegate.authoring.examples import check_profile
from tests.conftest import eventually
from tests.live.site import Site

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


async def test_a_draft_from_what_is_in_quarantine(node: Site, tmp_path: Path) -> None:
    """A device speaks a layout that its profile does not know: the node shows the shape and drafts a profile of it."""
    device = await node.device("new-make-0001")
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        for at in range(6):
            await phone.publish("sg/new-make-0001/up", json.dumps({"temp": 210 + at, "co2": 612 + at, "batV": 3601}))

    async def shown() -> bool:
        rows = (await node.ask("GET", "/api/v1/profiles/unknown?since=10m")).body["rows"]
        return any(row["pattern"] == "sg/{device}/up" and row["messages"] == 6 for row in rows)

    await eventually(shown)
    rows = (await node.ask("GET", "/api/v1/profiles/unknown?since=10m")).body["rows"]
    row = next(row for row in rows if row["pattern"] == "sg/{device}/up")
    wanted = {"shape": row["id"], "profile": "newmake/co2"}
    draft = (await node.ask("POST", "/api/v1/profiles/learn?since=10m", json=wanted)).body
    assert {field["field"]: field["property"] for field in draft["recognised"]} == {
        "temp": "air_temperature",
        "co2": "co2",
        "batV": "battery_voltage",
    }
    file = tmp_path / "newmake" / "co2.yaml"
    file.parent.mkdir()
    file.write_text(draft["text"], encoding="utf-8")
    assert check_profile(file) == []
