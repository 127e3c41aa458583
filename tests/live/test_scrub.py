"""The scrub of a whole gateway: by order while it runs and where it does not, over a store that is damaged."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.cli.doctor import losses
from sensegate.config import Config, DuplicateConfig
from tests.conftest import eventually
from tests.live.site import Made, Site, config_of, running

pytestmark = pytest.mark.live
BEGAN = int(time.time()) - 3_600
"""Within the horizon of the dedup index."""


def written(config: Config) -> Path:
    """Return a file that holds a configuration."""
    file = Path(config.directory).parent / "gateway.yaml"
    file.write_text(json.dumps(msgspec.to_builtins(config)), encoding="utf-8")
    return file


async def doctor(config: Config, *, by_command: bool = False) -> list[dict[str, Any]]:
    """Return what `sensegate doctor --scrub` says of the scrub; without `by_command` nothing else is looked at."""
    file = written(config)
    if not by_command:
        document: list[dict[str, Any]] = msgspec.to_builtins(await asyncio.to_thread(losses, file))
        return document
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", str(file), "--scrub", "--json"])
    assert result.stdout, result.exception
    return [row for row in json.loads(result.stdout) if row["check"] == "scrub"]


async def send(site: Site, device: Made, numbers: range) -> None:
    """Push readings, and wait until they are in the feed."""
    for number in numbers:
        payload = f'{{"time": {BEGAN + number}, "values": {{"air_temperature": {number}}}}}'
        assert (await site.push(device, payload)).status == 202

    async def there() -> bool:
        return set(numbers) <= {row["value"] for row in await site.records()}

    await eventually(there)


async def test_a_damaged_store_is_told_counted_and_taken_again(tmp_path: Path) -> None:
    """Sound: nothing. Its last block is cut: so many readings, at once in /readyz and metrics; they are taken again.

    nats-server itself says that the log is as long as it was.
    """
    config = msgspec.structs.replace(config_of(tmp_path / "node"), duplicates=DuplicateConfig(checkpoint_s=0.1))
    async with running(config) as site:
        device = await site.device("scrubbed")
        await send(site, device, range(30))
        (sound,) = await doctor(config, by_command=True)
        assert sound["verdict"] == "good", sound
        assert (await site.ready()) == (200, [])
    (tmp_path / "node" / "run.json").unlink()  # it names this process, which lives
    (sound,) = await doctor(config)
    assert sound["verdict"] == "good", "the gateway is stopped: a server of its own"
    (block,) = (tmp_path / "node" / "engine" / "store" / "jetstream").rglob("streams/LOG/msgs/*.blk")
    raw = block.read_bytes()
    await asyncio.to_thread(block.write_bytes, raw[: len(raw) * 2 // 3])
    async with running(config) as site:
        left = {row["value"] for row in await site.records()}
        assert len(left) < 30
        result = await doctor(config)
        assert {row["verdict"] for row in result} == {"bad"}
        lost = sum(int(row["detail"].split()[0]) for row in result if "readings lost" in row["detail"])
        assert lost == 30 - len(left), result
        _, reasons = await site.ready()
        assert any("readings lost between sequences" in reason for reason in reasons), reasons
        metrics = (await site.ask("GET", "/metrics", "")).body.decode()
        rows = [row for row in metrics.splitlines() if row.startswith("sensegate_scrub_lost_readings{")]
        assert sum(float(row.rpartition(" ")[2]) for row in rows) == lost
        await send(site, device, range(30))
        values = sorted(row["value"] for row in await site.records())
        assert values == [float(number) for number in range(30)]


async def test_a_damaged_index_of_a_running_gateway_doubles_nothing(tmp_path: Path) -> None:
    """Found by the scrub, built again from the log before anything more is judged; then all is well."""
    config = msgspec.structs.replace(config_of(tmp_path / "node"), duplicates=DuplicateConfig(checkpoint_s=0.1))
    async with running(config) as site:
        device = await site.device("scrubbed")
        for first in (0, 10, 20):
            await send(site, device, range(first, first + 10))
        runs = sorted((tmp_path / "node" / "duplicates").glob("run-*"))
        assert runs
        raw = bytearray(runs[0].read_bytes())
        raw[-20] ^= 0xFF
        await asyncio.to_thread(runs[0].write_bytes, raw)
        result = await doctor(config)
        assert [row["verdict"] for row in result] == ["bad"]
        assert runs[0].name in result[0]["detail"]
        await send(site, device, range(40))
        values = sorted(row["value"] for row in await site.records())
        assert values == [float(number) for number in range(40)]

        async def sound() -> bool:
            return [row["verdict"] for row in await doctor(config)] == ["good"]

        await eventually(sound)
