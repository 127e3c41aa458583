"""A store put back from an older copy: no delivery of a feed goes on behind a place that was written anew."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sensegate.cli import app
from sensegate.config.people import EgressConfig
from tests.conftest import eventually
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = pytest.mark.live
RECORDS = "/api/v1/feeds/all/records"


async def send(site: Site, device: Made, numbers: range) -> None:
    """Push readings, each with a time and value of its own; return when they are in the feed."""
    for number in numbers:
        answer = await site.push(device, reading(number, f"2026-01-01T00:{number:02d}:00Z"))
        assert answer.status == 202

    async def there() -> bool:
        return set(numbers) <= {row["value"] for row in await site.records()}

    await eventually(there)


async def refused_everywhere(site: Site, after: str) -> str:
    """See that a cursor is refused with 410 by each delivery; return where all of them say to read on."""
    token, _ = await site.token(scope="44")
    query = {"after": after}
    answers = [await site.ask("GET", RECORDS, token, params=query)]
    assert answers[0].status == 410, f"goes on with {[row['value'] for row in answers[0].body['records']]}"
    answers += [
        await site.ask("GET", RECORDS, token, params={**query, "wait": "5"}),
        await site.ask("GET", "/api/v1/feeds/all/stream", token, headers={"Last-Event-ID": after}),
        await site.ask("POST", "/api/v1/webhooks", token, json={"feed": "all", "url": "http://127.0.0.1:9/", **query}),
    ]
    made = await site.ask("POST", "/api/v1/webhooks", token, json={"feed": "all", "url": "http://127.0.0.1:9/"})
    answers.append(await site.ask("POST", f"/api/v1/webhooks/{made.body['id']}/resume", token, json=query))
    await site.ask("DELETE", f"/api/v1/webhooks/{made.body['id']}", token)
    url = f"{site.addresses.http.replace('http', 'ws', 1)}/api/v1/feeds/all/ws?after={after}"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}):
            pass
    problems = [(answer.status, answer.body) for answer in answers]
    problems.append((refused.value.response.status_code, json.loads(refused.value.response.body)))
    assert {(status, body["status"]) for status, body in problems} == {(410, 410)}
    (first,) = {body["first"] for _, body in problems}
    environment = {"SENSEGATE_URL": site.addresses.http, "SENSEGATE_TOKEN": token}
    words = ["feed", "tail", "all", "--after", after, "--limit", "1"]
    result = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment)
    assert result.exit_code != 0
    assert f"--after {first}" in str(result.exception)
    return str(first)


@pytest.mark.parametrize("whole", [False, True], ids=["the store", "the directory"])
async def test_an_older_copy_put_back_skips_nothing(tmp_path: Path, *, whole: bool) -> None:
    """At a centre sequences are given again at once: a cursor of before is 410, from `first` nothing is missing.

    A cursor that was given out before the copy was made goes on.
    """
    directory = tmp_path / "centre"
    egress = EgressConfig(("127.0.0.0/8",))
    config = msgspec.structs.replace(config_of(directory, "44"), egress=egress)
    part = directory if whole else directory / "engine" / "store"
    async with running(config) as site:
        device = await site.device("lost-end")
        await send(site, device, range(5))
        before = (await site.ask("GET", RECORDS)).body["next"]
    await asyncio.to_thread(shutil.copytree, part, tmp_path / "copy")
    async with running(config) as site:
        assert (await site.ask("GET", RECORDS, params={"after": before})).body["records"] == []
        await send(site, device, range(5, 11))
        after = (await site.ask("GET", RECORDS)).body["next"]
    await asyncio.to_thread(shutil.rmtree, part)
    await asyncio.to_thread((tmp_path / "copy").rename, part)
    async with running(config) as site:
        await send(site, device, range(20, 34))
        first = await refused_everywhere(site, after)
        rows = [row["value"] for row in await site.records(after=first)]
        assert [value for value in rows if value >= 20] == [*range(20, 34)]
        assert whole or len(rows) == 14, "what stands beside the store says exactly where to go on"
        assert [row["value"] for row in await site.records(after=before)] == [*range(20, 34)]
