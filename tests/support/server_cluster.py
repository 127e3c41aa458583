"""Three real nats-servers on loopback, from the files that `sensegate engine` writes; each can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from nats.aio.client import Client

from sensegate.bus import api, external, process
from sensegate.bus.engine import Engine, User
from sensegate.bus.free_ports import free_port
from sensegate.config import Config, EngineConfig
from sensegate.config.cluster import ClusterConfig, ClusterServerConfig
from sensegate.errors import EngineError, NotFound, Unavailable
from tests.conftest import eventually

HOST = "127.0.0.1"
NAMES = ("n1", "n2", "n3")


class ServerCluster:
    """The servers, and the configuration of a gateway that uses them."""

    def __init__(self, directory: Path, config: Config, *, replicas: int = 3) -> None:
        servers = tuple(
            ClusterServerConfig(
                name=name, host=HOST, port=free_port(HOST), route_port=free_port(HOST), mqtt_port=free_port(HOST)
            )
            for name in NAMES
        )
        self.servers = {server.name: server for server in servers}
        self._stores = directory / "stores"
        cluster = ClusterConfig(servers=servers, directory=str(self._stores))
        engine = msgspec.structs.replace(
            config.engine,
            url=",".join(f"nats://{HOST}:{server.port}" for server in servers),
            credentials_file=str(directory / external.USERS),
            mqtt_port=servers[0].mqtt_port,
            cluster=cluster,
            replicas=replicas,
        )
        self.config = msgspec.structs.replace(config, engine=engine)
        self._written, _ = external.write(self.config, directory, slots=())
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, *names: str) -> None:
        """Start servers, all unless some are named."""
        for name, conf in zip(NAMES, self._written, strict=True):
            (self._stores / name).mkdir(parents=True, exist_ok=True)
            if name in (names or NAMES) and name not in self._running:
                self._running[name] = await asyncio.create_subprocess_exec(process.binary(), "-c", str(conf))

    async def kill(self, *names: str) -> None:
        """Kill servers."""
        for name in names:
            with contextlib.suppress(ProcessLookupError):
                self._running[name].kill()
        for name in names:
            await self._running.pop(name).wait()

    async def stop(self) -> None:
        """Kill all servers."""
        await self.kill(*self._running)

    @contextlib.asynccontextmanager
    async def engine(self, directory: Path, *, replicas: int = 0) -> AsyncIterator[Engine]:
        """Connect an engine of a gateway."""
        settings: EngineConfig = self.config.engine
        if replicas:
            settings = msgspec.structs.replace(settings, replicas=replicas)
        engine = Engine(settings, self.config.store, directory, name="4401")
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()


async def leader_of(connection: Client, stream: str) -> str:
    """Return the server that leads a stream; empty: none does."""
    try:
        info = json.loads(await api.request(connection, f"$JS.API.STREAM.INFO.{stream}"))
    except (Unavailable, NotFound):
        return ""
    return str(info["cluster"].get("leader", ""))


async def copies_of(connection: Client, stream: str) -> int:
    """Return how many complete copies a stream has."""
    try:
        info = json.loads(await api.request(connection, f"$JS.API.STREAM.INFO.{stream}"))
    except (Unavailable, NotFound):
        return 0
    replicas = info["cluster"].get("replicas", ())
    return 1 + sum(bool(replica["current"] and not replica.get("offline", False)) for replica in replicas)


@contextlib.asynccontextmanager
async def server_cluster(directory: Path, config: Config, *, replicas: int = 3) -> AsyncIterator[ServerCluster]:
    """Run three servers until their cluster answers requests."""
    cluster = ServerCluster(directory, config, replicas=replicas)
    await cluster.start()
    try:
        await eventually(lambda: _answers(cluster, directory))
        yield cluster
    finally:
        await cluster.stop()


async def _answers(cluster: ServerCluster, directory: Path) -> bool:
    """Return whether the cluster has elected its leader."""
    try:
        async with cluster.engine(directory / "asking") as engine:
            connection = await engine.connect(User.GATEWAY)
            try:
                await api.request(connection, "$JS.API.INFO", timeout_s=1.0)
            finally:
                await connection.close()
    except (EngineError, Unavailable):
        return False
    return True
