"""What sharing keeps over an orderly restart: entries, grants, quota, pseudonyms, keys, cursors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.authority.heads import public_key
from sensegate.share.usage_statements import verify_statement
from tests.conftest import eventually
from tests.live.granting import Granted, granted
from tests.live.site import Site, config_of, reading, running

pytestmark = pytest.mark.live


async def _read(site: Site, grant: Granted, **query: str) -> Any:
    return await site.ask("GET", f"/api/v1/feeds/{grant.feed}/records", grant.token, params=query)


async def test_all_of_it_is_there_again(tmp_path: Path) -> None:
    """The same pseudonyms, the rest of the same quota, a cursor that goes on, a receipt by the same key."""
    config = config_of(tmp_path)
    async with running(config) as site:
        device = await site.device("again-1")
        grant = await granted(site, "again", volume=5, mask={"hash": ["device"]})
        for minute in range(3):
            assert (await site.push(device, reading(20 + minute, f"2026-01-01T00:0{minute}:00Z"))).status == 202

        async def three() -> bool:
            return len(await site.records()) == 3

        await eventually(three)
        first = await _read(site, grant)
        assert len(first.body["records"]) == 3
        entry = (await site.ask("GET", "/api/v1/catalogue/again")).body
    async with running(config) as site:
        assert (await _read(site, grant, after=first.body["next"])).body["records"] == []
        for minute in range(3, 7):
            assert (await site.push(device, reading(20 + minute, f"2026-01-01T00:0{minute}:00Z"))).status == 202

        async def five() -> Any:
            answer = await _read(site, grant, after=first.body["next"], wait="1")
            return answer if answer.status == 200 and answer.body["records"] else None

        rest = (await eventually(five)).body["records"]
        while len(rest) < 2:
            rest += (await _read(site, grant, after=rest[-1]["cursor"], wait="1")).body["records"]
        assert len(rest) == 2
        assert {row["device"] for row in rest} == {row["device"] for row in first.body["records"]}
        assert (await _read(site, grant, after=rest[-1]["cursor"])).status == 429
        assert (await site.ask("GET", "/api/v1/catalogue/again")).body == entry
        usage = (await site.ask("GET", f"/api/v1/grants/{grant.id}/usage", grant.token)).body
        assert usage["records"] == 5
        line = await site.ask("GET", f"/api/v1/grants/{grant.id}/statements/{usage['month']}", grant.token)
        key = public_key(site.config_file("statements.pub"))
        assert verify_statement(msgspec.json.encode(line.body), key=key).records == 5
