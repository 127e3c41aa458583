"""Machines of a city on one host: gateways with a lease and fronts apart, on three nats-servers; each can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

from sensegate.bus.free_ports import free_port
from sensegate.config import IngestConfig, ListenConfig, MqttConfig, WebConfig
from tests.live.site import config_of
from tests.support.server_cluster import HOST, ServerCluster, server_cluster

GATEWAYS = ("a", "b")


class Machine:
    """A gateway, or the fronts, of a machine: a process that is killed and started again."""

    def __init__(self, file: Path, command: str) -> None:
        self._file = file
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process."""
        with (self._file.parent / f"{self._file.stem}.out").open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sensegate.cli", self._command, str(self._file)),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NO_COLOR": "1"},
            )

    async def kill(self) -> None:
        """Kill the process."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End the process in order."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(60):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()


class City:
    """The machines of a city."""

    def __init__(self, cluster: ServerCluster, directory: Path, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.session = session
        self.directory = directory
        self.front_ports = [free_port(HOST), free_port(HOST)]
        self.urls: dict[str, str] = {}
        self.gateways: dict[str, Machine] = {}
        self.fronts: list[Machine] = []
        for name in GATEWAYS:
            port = free_port(HOST)
            self.urls[name] = f"http://{HOST}:{port}"
            self.gateways[name] = Machine(self._write(name, self.front_ports[0], web_port=port), "run")
        for number, port in enumerate(self.front_ports):
            self.fronts.append(Machine(self._write(f"front-{number}", port), "front"))

    def _write(self, name: str, front_port: int, *, web_port: int = 0) -> Path:
        config = msgspec.structs.replace(
            self.cluster.config,
            directory=str(self.directory / name),
            engine=msgspec.structs.replace(self.cluster.config.engine, standby=True),
            listen=ListenConfig(mqtt=MqttConfig(separate=True, port=front_port)),
            web=WebConfig(port=web_port),
            # Devices that send again and again after each kill are not what the limit is for.
            ingest=IngestConfig(rate_per_device_s=100_000),
            log_level="info",
        )
        file = self.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(msgspec.to_builtins(config)))
        return file

    async def active(self) -> str:
        """Return the gateway that is ready; empty: none is."""
        for name, url in self.urls.items():
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.session.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                    if answer.status == 200:
                        return name
        return ""

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        """Ask the active gateway as the administrator; None: it does not answer now."""
        name = await self.active()
        if not name:
            return None
        token = next(file.read_text().strip() for file in self.directory.glob("?/admin.token"))
        headers = {"Authorization": f"Bearer {token}"}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self.session.request(method, self.urls[name] + path, headers=headers, **more) as answer:
                return await answer.json() if answer.status < 300 else None
        return None

    async def records(self, after: str = "") -> list[dict[str, Any]]:
        """Return all records; fewer where no gateway answers now."""
        rows: list[dict[str, Any]] = []
        while True:
            params = {"limit": "10000", **({"after": after} if after else {})}
            page = await self.ask("GET", "/api/v1/feeds/all/records", params=params)
            if page is None:
                return rows
            rows += page["records"]
            after = page["next"]
            if len(page["records"]) < 10_000:
                return rows


@contextlib.asynccontextmanager
async def city(directory: Path) -> AsyncIterator[City]:
    """Run three servers, two gateways and two fronts."""
    async with (
        aiohttp.ClientSession() as session,
        server_cluster(directory / "servers", config_of(directory / "unused")) as cluster,
    ):
        machines = City(cluster, directory, session)
        try:
            for machine in (*machines.gateways.values(), *machines.fronts):
                await machine.start()
            yield machines
        finally:
            await asyncio.gather(*(machine.stop() for machine in (*machines.fronts, *machines.gateways.values())))


def payload_from(start_us: int, name: str = "air_temperature") -> Any:
    """Return a function that gives the message of a number: a reading with that value, at a time of its own."""

    def payload(number: int) -> bytes:
        at = start_us // 1_000 + number
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 1_000)) + f".{at % 1_000:03d}Z"
        return f'{{"time": "{moment}", "values": {{"{name}": {number}}}}}'.encode()

    return payload
