"""Two centres of one province as processes that can be killed, and a node that knows both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from sensegate.bus.addresses import GatewayAddresses
from sensegate.bus.free_ports import free_port
from sensegate.config import Config, EngineConfig, ListenConfig, MqttConfig, NodeUserConfig, UplinkConfig, WebConfig
from sensegate.config.sites import CentreConfig, PeerConfig
from sensegate.failover.standby_status import PROMOTE, STATUS, StandbyStatus
from tests.border.lies import SENDER
from tests.conftest import eventually
from tests.live.site import PLAIN, Site, config_of, running

CAMERAS = Path(__file__).parents[2] / "device_profiles" / "sensegate" / "viid.yaml"
"""A profile of cameras: stores are encrypted, that of a standby too."""


class Centre:
    """One of two centres, as a process that can be killed with its server."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.directory = Path(config.directory)
        self.url = f"http://127.0.0.1:{config.web.port}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; whether it is active shows later."""
        (self.directory / "run.json").unlink(missing_ok=True)
        (self.directory / STATUS).unlink(missing_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory.with_suffix(".yaml")
        file.write_bytes(msgspec.yaml.encode(self.config))
        with (self.directory.with_suffix(".log")).open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sensegate.cli", "run", str(file), stderr=log, stdout=log
            )

    async def active(self, timeout_s: float = 90.0) -> None:
        """Return once it serves."""
        await eventually((self.directory / "run.json").exists, timeout_s)

    def standing(self) -> StandbyStatus | None:
        """Return how it stands by; None where it does not."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self.directory / STATUS).read_bytes(), type=StandbyStatus)
        return None

    def copied(self) -> bool:
        """Return whether it stands by with all there is."""
        standing = self.standing()
        return standing is not None and standing.reached and standing.is_whole

    def hold(self, how: signal.Signals) -> None:
        """Have its gateway stand still (SIGSTOP), or go on (SIGCONT)."""
        assert self.process
        self.process.send_signal(how)

    def promote(self) -> None:
        """Order it to become active."""
        (self.directory / PROMOTE).touch()

    async def kill(self) -> None:
        """Kill gateway and server, at once."""
        assert self.process
        pids = {self.process.pid}
        with contextlib.suppress(OSError, msgspec.DecodeError):
            pids.add(msgspec.json.decode((self.directory / "run.json").read_bytes(), type=GatewayAddresses).engine_pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        """End it in order."""
        if self.process and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


def configs(directory: Path, *, automatic: bool = False, lease_s: float = 4.0) -> tuple[Config, Config, UplinkConfig]:
    """Return two centres, and the uplink of a node that knows both.

    `lease_s`: how long a centre must be missed before the other one takes over.
    """
    for name in ("peer", "node", SENDER):
        (directory / name).write_text(f"secret-of-{name}-0123456789", encoding="utf-8")
    ports = [(free_port(), free_port(), free_port()) for _ in range(2)]
    urls = [f"nats://127.0.0.1:{nats}" for nats, _, _ in ports]
    divisions = tuple(
        NodeUserConfig(division=division, secret_file=str(directory / name))
        for division, name in (("4401", "node"), (SENDER, SENDER))
    )
    made = []
    for number, (nats, mqtt, http) in enumerate(ports):
        made.append(
            msgspec.structs.replace(
                msgspec.structs.replace(
                    config_of(directory / f"centre{number}", "44", profiles=(str(PLAIN), str(CAMERAS))),
                    log_level="info",
                ),
                engine=EngineConfig(port=nats),
                listen=ListenConfig(mqtt=MqttConfig(port=mqtt, processes=0)),
                web=WebConfig(port=http),
                nodes=() if automatic else divisions,
                peer=PeerConfig(
                    url=urls[1 - number],
                    secret_file=str(directory / "peer"),
                    initially_active=number == 0,
                    standby_timeout_s=30.0,
                    automatic=automatic,
                    lease_s=lease_s,
                ),
            )
        )
    uplink = UplinkConfig(other_centres=(CentreConfig(url=urls[1]),), span_ms=50, lease_s=1.25 * lease_s)
    if automatic:  # it joins by code, and votes
        settings = {"centre_url": f"http://127.0.0.1:{ports[0][2]}", "join_code_file": str(directory / "code")}
    else:
        settings = {"url": urls[0], "secret_file": str(directory / "node")}
    return made[0], made[1], msgspec.structs.replace(uplink, **settings)


@contextlib.asynccontextmanager
async def two_sites(
    directory: Path, *, automatic: bool = False, lease_s: float = 4.0
) -> AsyncIterator[tuple[Centre, Centre, Site]]:
    """Run both centres and a node."""
    config, other, uplink = configs(directory, automatic=automatic, lease_s=lease_s)
    first, second = Centre(config), Centre(other)
    await first.start()
    if not automatic:
        await first.active()
    await second.start()
    try:
        await first.active()  # where no order makes it active, the other one has to say that it is not
        if automatic:
            answer = await reply_of(first, "POST", "/api/v1/nodes", body={"division": "4401"})
            (directory / "code").write_text(answer["code"], encoding="ascii")
        async with running(msgspec.structs.replace(config_of(directory / "node4401"), uplink=uplink)) as node:
            yield first, second, node
    finally:
        await first.stop()
        await second.stop()


async def reply_of(centre: Centre, method: str, path: str, *, token: str = "", body: object = None) -> Any:
    """Return what a centre answers: JSON, or the bytes of another kind; without a token: the administrator of both."""
    token = token or (centre.directory.parent / "centre0" / "admin.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, centre.url + path, json=body) as response,
    ):
        assert response.status < 300, await response.text()
        return await (response.json() if response.content_type == "application/json" else response.read())
