"""VictoriaMetrics as a store that takes line protocol, in a process of its own on loopback."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from sensegate.bus.free_ports import free_port
from sensegate.demo.processes import SupervisedProcess
from tests.conftest import eventually

BINARY = shutil.which("victoria-metrics") or ""
Sample = tuple[str, str, str, str, str, int, float]
"""(device, property, channel, revision, correction, ms, value)."""


class Store:
    """A running store."""

    def __init__(self, url: str, process: SupervisedProcess) -> None:
        self.url = url
        self.process = process

    async def samples(self) -> list[Sample]:
        """Return all samples of all series, sorted."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/internal/force_flush"),
            http.get(f"{self.url}/api/v1/export", params={"match[]": '{__name__=~"reading_.*"}'}) as response,
        ):
            text = await response.text()
        samples: list[Sample] = []
        for line in text.splitlines():
            series: Any = msgspec.json.decode(line)
            metric = series["metric"]
            samples += [
                (
                    metric["device"],
                    metric["__name__"].removeprefix("reading_"),
                    metric.get("channel", ""),
                    metric.get("revision", "0"),
                    metric.get("correction", ""),
                    time,
                    value,
                )
                for time, value in zip(series["timestamps"], series["values"], strict=True)
            ]
        return sorted(samples)


async def _is_up(url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as response:
            return response.status == 200
    return False


@contextlib.asynccontextmanager
async def victoria_metrics(directory: Path, port: int = 0) -> AsyncIterator[Store]:
    """Run it; readings of many years are taken, and what is written twice is one sample."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [
        BINARY,
        f"-storageDataPath={directory / 'store'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-dedup.minScrapeInterval=1ms",
        "-search.disableCache",
        "-memory.allowedBytes=64MB",
    ]
    process = SupervisedProcess("store", arguments, log=directory / "store.log")
    await process.start()
    try:
        await eventually(lambda: _is_up(url))
        yield Store(url, process)
    finally:
        await process.stop()
