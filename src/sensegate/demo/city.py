"""A centre and its nodes as real processes on loopback: configurations, secrets, ports, links, start and stop."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sensegate.bus.free_ports import free_port, is_free
from sensegate.demo.link import FaultyLink
from sensegate.demo.processes import Reaper, SupervisedProcess, sweep
from sensegate.errors import EngineError, Unavailable
from sensegate.web.client import GatewayClient, ProblemResponse

CENTRE = "44"
READY_S = 90.0
POLL_S = 0.05
PORTS = ("http_port", "mqtt_port", "nats_port", "viid_port")
EXAMINED = "examined.json"
"""File in the directory of a gateway: profiles whose examples have passed (`lifecycle.examined`)."""
STARTS_MAX = 4
"""Number of gateways that start at the same time: more would only compete for the cores."""
STORE = {
    "intake_bytes": 1024**3,
    "log_bytes": 4 * 1024**3,
    "ledger_bytes": 64 * 1024**2,
    "registry_bytes": 64 * 1024**2,
}
"""Small enough for a laptop's disk, ample for a demo of several hours."""


@dataclass
class CityMember:
    """The centre or one node."""

    division: str
    directory: Path
    http_port: int
    mqtt_port: int
    nats_port: int
    viid_port: int = 0
    """Port for GA/T 1400 from cameras; 0: none."""
    process: SupervisedProcess = field(init=False)
    token: str = field(default="", repr=False)
    """Token of its administrator."""

    @property
    def url(self) -> str:
        """Base URL of its HTTP interface."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def engine_pid(self) -> int:
        """Process id of its nats-server, 0 if unknown."""
        try:
            return int(json.loads((self.directory / "store" / "run.json").read_text(encoding="utf-8"))["engine_pid"])
        except (OSError, ValueError, KeyError):
            return 0

    def remote(self) -> GatewayClient:
        """Return a client of its HTTP interface with the administrator's token."""
        return GatewayClient(self.url, self.token)


def merged(document: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    """Return a configuration with settings put in; sections are merged at every depth."""
    result = dict(document)
    for key, value in settings.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result


class CityOptions(msgspec.Struct, frozen=True):
    """Configuration of the members."""

    profiles: Path
    """Folder of the device profiles."""
    only: Sequence[str] = ()
    """Names of the profiles to use; empty: all."""
    temporary: bool = False
    """True if the directory is removed at the end."""
    alone: bool = False
    """True if the nodes run without a centre."""
    cameras: bool = False
    """True if the nodes accept GA/T 1400."""
    settings: Mapping[str, object] = {}
    """Merged into every configuration."""
    environment: Mapping[str, str] = {}
    """Added to the gateways' environment."""


class City:
    """Centre and nodes below one directory.

    Ports and stores are chosen once and kept over restarts. Each node reaches the centre through a fault-injecting
    link.
    """

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[str],
        *,
        options: CityOptions,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the members; `start` runs them.

        Args:
            directory: holds everything; created if missing.
            nodes: division codes of the nodes.
            options: how they are configured.
            changed: called when a process was (re)started.
        """
        self.directory = directory.resolve()
        self.profiles = options.profiles.resolve()
        self.only = list(options.only)
        self._starting = asyncio.Semaphore(STARTS_MAX)
        self._configured = False
        self.temporary = options.temporary
        self.alone = options.alone
        self.cameras = options.cameras
        self.settings = dict(options.settings)
        self.environment = dict(options.environment)
        self.changed = changed
        self.centre = self._member(CENTRE)
        self.nodes = {division: self._member(division) for division in nodes}
        self.links = {division: FaultyLink("127.0.0.1", self.centre.nats_port) for division in nodes}
        self._reaper = Reaper(self.directory, remove=options.temporary)

    @property
    def reaper_pid(self) -> int:
        """Process id of the reaper."""
        return self._reaper.pid

    @property
    def members(self) -> list[CityMember]:
        """All running members: the centre first, then the nodes."""
        return [*([] if self.alone else [self.centre]), *self.nodes.values()]

    def _member(self, division: str) -> CityMember:
        directory = self.directory / division
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ports_file = directory / "ports.json"
        known: dict[str, Any] = json.loads(ports_file.read_text(encoding="utf-8")) if ports_file.exists() else {}
        ports: dict[str, Any] = {name: known.get(name) or free_port() for name in PORTS}
        ports_file.write_text(json.dumps(ports), encoding="utf-8")
        return CityMember(division, directory, **ports)

    def _ensure_ports_free(self, member: CityMember) -> None:
        """Choose ports again that were taken since they were chosen: many gateways do not start at the same time."""
        taken = [name for name in PORTS if not is_free(getattr(member, name))]
        if not taken or member.division == CENTRE:
            return
        for name in taken:
            setattr(member, name, free_port())
        ports = {name: getattr(member, name) for name in PORTS}
        (member.directory / "ports.json").write_text(json.dumps(ports), encoding="utf-8")
        self._configure(member)

    def _secret(self, division: str) -> Path:
        path = self.directory / f"node-{division}.secret"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        return path

    def _admin_token(self, member: CityMember) -> None:
        """Give every member the same administrator token."""
        path = member.directory / "store" / "admin.token"
        path.parent.mkdir(exist_ok=True, mode=0o700)
        if not path.exists() and self.centre.token:
            path.touch(mode=0o600)
            path.write_text(self.centre.token, encoding="utf-8")

    def configure(self) -> None:
        """Write the configurations; links must have their ports."""
        for member in self.members:
            self._configure(member)
        self._configured = True

    def _configure(self, member: CityMember) -> None:
        is_centre = member.division == CENTRE
        document: dict[str, object] = {
            "role": "centre" if is_centre else "node",
            "division": member.division,
            "directory": str(member.directory / "store"),
            "profiles": [str(self.profiles / f"{name}.yaml") for name in self.only] or [str(self.profiles)],
            # Its faults are kills of processes, none of power; other programs share its disk.
            "engine": {"port": member.nats_port, "durability": "process"},
            "listen": {"mqtt": {"port": member.mqtt_port, "processes": 0}},
            "store": STORE,
            "web": {"port": member.http_port},
            "log_level": "warning",
        }
        if is_centre:
            document["nodes"] = [
                {"division": division, "secret_file": str(self._secret(division))} for division in self.nodes
            ]
        elif not self.alone:
            document["uplink"] = {
                "url": f"nats://127.0.0.1:{self.links[member.division].port}",
                "secret_file": str(self._secret(member.division)),
            }
        if self.cameras and not is_centre:
            document["viid"] = {"server_id": f"{member.division}0000005030000001", "port": member.viid_port}
        self._prepare(member, merged(document, self.settings))

    def _prepare(self, member: CityMember, document: Mapping[str, object]) -> None:
        config = member.directory / "config.yaml"
        config.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
        member.process = SupervisedProcess(
            f"{document['role']} {member.division}",
            [sys.executable, "-m", "sensegate.cli", "run", str(config)],
            log=member.directory / "gateway.log",
            environment=self.environment,
            changed=self.changed,
        )

    async def start(self) -> None:
        """Start everything; return when all members are ready."""
        for link in self.links.values():
            await link.start()
        self.configure()
        await self._reaper.start()
        if not self.alone:
            await self._start_member(self.centre)
        await asyncio.gather(*(self._start_member(node) for node in self.nodes.values()))

    def _share_examined(self, member: CityMember) -> None:
        """Give a new node the profiles that the centre has examined: running their examples is half of a start."""
        source, target = (of.directory / "store" / EXAMINED for of in (self.centre, member))
        if source.is_file() and target.parent.is_dir() and not target.exists():
            shutil.copy(source, target)

    async def _start_member(self, member: CityMember) -> None:
        self._admin_token(member)
        self._share_examined(member)
        async with self._starting:
            self._ensure_ports_free(member)
            await member.process.start()
            await self.wait_ready(member)
        member.token = (member.directory / "store" / "admin.token").read_text(encoding="utf-8").strip()

    def second_gateway(self, member: CityMember) -> CityMember:
        """Return a second gateway for a member's place on the same server, as a supervisor might start by mistake."""
        document = yaml.safe_load((member.directory / "config.yaml").read_text(encoding="utf-8"))
        other = self._member(f"{member.division}-second")
        document["directory"] = str(other.directory / "store")
        document["engine"] = {
            "url": f"nats://127.0.0.1:{member.nats_port}",
            "credentials_file": str(member.directory / "store" / "engine" / "engine.json"),
        }
        document["web"] = {"port": other.http_port}
        # The first one still holds its own port for devices.
        document["listen"]["mqtt"]["port"] = other.mqtt_port
        self._prepare(other, document)
        return other

    async def wait_ready(self, member: CityMember, timeout_s: float = READY_S) -> None:
        """Wait until a member is ready.

        Raises:
            EngineError: if it is not ready in time; with the end of its log.
        """
        why = ""
        try:
            async with asyncio.timeout(timeout_s), GatewayClient(member.url) as remote:
                while True:
                    try:
                        await remote.get("/readyz")
                    except (ProblemResponse, Unavailable) as no:
                        why = str(no)
                        await asyncio.sleep(POLL_S)
                    else:
                        return
        except TimeoutError as late:
            log = member.directory / "gateway.log"
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else ""
            raise EngineError(f"{member.process.name} is not ready after {timeout_s:.0f} s: {why}\n{tail}") from late

    async def stop(self) -> list[int]:
        """Stop everything in order, nodes first; return the ids of processes that had to be killed."""
        started = self.members if self._configured else []
        await asyncio.gather(*(member.process.stop() for member in started if member is not self.centre))
        await asyncio.gather(*(member.process.stop() for member in started if member is self.centre))
        for link in self.links.values():
            await link.stop()
        swept = await asyncio.to_thread(sweep, self.directory, grace_s=5.0)
        if self.temporary:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)
        await self._reaper.finish(keep=not self.temporary)
        return swept
