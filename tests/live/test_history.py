"""The questions of a platform developer on the first day, asked of a running gateway that keeps a history."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.config.history import HistoryConfig
from sensegate.history import feature
from tests.live.blocks import output
from tests.live.site import Site, config_of, reading, running

pytestmark = pytest.mark.live


def instant(seconds: float) -> str:
    """Return a time as ISO 8601 with its zone."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def speak(site: Site, *arguments: str) -> list[str]:
    """Return the lines that a command prints."""
    command = [*arguments, "--url", site.addresses.http, "--token", site.admin]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def commands_of(page: str) -> list[str]:
    """Return the commands of the table of five questions of a page, as they stand there."""
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    table = text[text.index("SENSEGATE_URL") :].partition("\n\n")[2].partition("\n\n")[0]
    return [line.split(" | ")[1].strip("` ") for line in table.splitlines()[2:]]


async def run_commands(site: Site) -> None:
    """Run the five of the README, the same in both languages: each shows the device and its last value, or the mean."""
    commands = commands_of("README.md")
    assert commands == commands_of("README.zh-CN.md")
    assert len(commands) == 5
    environment = {"SENSEGATE_URL": site.addresses.http, "SENSEGATE_TOKEN": site.admin}
    for command in commands:
        name, *arguments = shlex.split(command)
        lines = [await output("sh", command, environment)] if name == "curl" else await speak(site, *arguments)
        text = "\n".join(lines)
        assert ("25.5" in text) if "aggregate" in arguments else ("gz-1" in text and "30" in text), (command, text)


async def test_five_questions(tmp_path: Path) -> None:
    """Last value, a period, the mean by the hour, a map, last month: by HTTP and by commands, through a restart."""
    config = replace(config_of(tmp_path), history=HistoryConfig(enabled=True, flush_s=0.2))
    begin = time.time() // 3_600 * 3_600 - 7_200
    async with running(config) as site:
        device = await site.device("gz-1", lon=113.3612, lat=23.1247)
        for number in range(6):
            answer = await site.push(device, reading(20 + number, instant(begin + number * 1_200)))
            assert answer.status < 300, answer.body
        latest = await site.ask("GET", "/api/v1/feeds/all/latest?device=gz-1")
        assert [record["value"] for record in latest.body["records"]] == [25]
        period = f"from={instant(begin)}&to={instant(begin + 3_600)}"
        records = await site.ask("GET", f"/api/v1/feeds/all/records?{period}&until=0s")
        assert [record["value"] for record in records.body["records"]] == [20, 21, 22]
        nearby = await site.ask(
            "GET", "/api/v1/feeds/all/latest?near=113.36,23.12,2000", headers={"Accept": "application/geo+json"}
        )
        assert [feature["geometry"]["coordinates"] for feature in nearby.body["features"]] == [[113.3612, 23.1247]]
        history = f"/api/v1/feeds/all/history?from={instant(begin)}"
        async with asyncio.timeout(60):
            while len((await site.ask("GET", history)).body["records"]) < 6:
                await asyncio.sleep(0.05)
    # After a restart the history goes on where it was.
    async with running(config) as site:
        answer = await site.push(device, reading(30, instant(begin + 7_000)))
        async with asyncio.timeout(60):
            while len(readings := (await site.ask("GET", history)).body["records"]) < 7:
                await asyncio.sleep(0.05)
        assert [record["value"] for record in readings] == [20, 21, 22, 23, 24, 25, 30]
        mean = f"/api/v1/feeds/all/aggregate?from={instant(begin)}&to={instant(begin + 7_200)}&functions=count,mean"
        rows = (await site.ask("GET", mean)).body["rows"]
        assert [(row["count"], row["mean"]) for row in rows] == [(3, 21.0), (4, 25.5)]
        lines = await speak(site, "feed", "latest", "all", "--format", "json")
        assert [json.loads(line)["value"] for line in lines] == [30]
        lines = await speak(site, "feed", "history", "all", "--from", instant(begin), "--format", "json")
        assert [json.loads(line)["value"] for line in lines] == [20, 21, 22, 23, 24, 25, 30]
        lines = await speak(site, "feed", "aggregate", "all", "--from", instant(begin), "--to", instant(begin + 7_200))
        assert len(lines) == 3
        await run_commands(site)
        for query, status in (
            ("history?from=yesterday", 400),
            ("aggregate?window=0h", 400),
            ("aggregate?functions=mode", 400),
            ("aggregate?by=colour", 400),
            ("aggregate?zone=Mars", 400),
            ("aggregate?from=3000d&window=1s", 400),
            ("history?after=abc", 400),
            ("history?fields=cursor", 400),
        ):
            answer = await site.ask("GET", f"/api/v1/feeds/all/{query}")
            assert answer.status == status, query
            assert query.partition("?")[2].partition("=")[0].split("&")[0] in answer.body["detail"] or "window" in query
        assert (await site.ask("DELETE", "/api/v1/history/4401")).status == 204
        assert (await site.ask("GET", history)).body["records"] == []


async def test_an_encrypted_store_has_no_plain_history(tmp_path: Path) -> None:
    """Where the operator has the store encrypted, the gateway does not start with files that are not."""
    config = replace(config_of(tmp_path), history=HistoryConfig(enabled=True))
    config = replace(config, engine=replace(config.engine, encryption="on"))
    with pytest.raises(Exception, match="not encrypted") as refused:
        async with running(config):
            pass
    assert refused.value


async def test_a_gateway_without_history_answers_what_the_log_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the extra is not installed, which `/readyz` says; aggregates are 404 with what to install."""
    monkeypatch.setattr(feature, "is_installed", lambda: False)
    config = replace(config_of(tmp_path), history=HistoryConfig(enabled=True))
    begin = time.time() // 3_600 * 3_600 - 7_200
    async with running(config) as site:
        device = await site.device("gz-1")
        for number in (3, 1, 2):
            assert (await site.push(device, reading(number, instant(begin + number * 600)))).status < 300
        lines = await speak(site, "feed", "history", "all", "--from", instant(begin), "--format", "json")
        assert [json.loads(line)["value"] for line in lines] == [1, 2, 3]
        warnings = (await site.ask("GET", "/readyz")).body["warnings"]
        assert any("sensegate[history]" in warning for warning in warnings)
        for method, path in (("GET", "feeds/all/aggregate"), ("DELETE", "history/4401")):
            answer = await site.ask(method, f"/api/v1/{path}")
            assert answer.status == 404
            assert "sensegate[history]" in answer.body["detail"]
