"""The gateway as the process that an operator starts: what it listens on, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from sensegate.bus.addresses import GatewayAddresses
from sensegate.bus.free_ports import free_port
from sensegate.bus.server_conf import EngineState
from sensegate.config import EngineConfig, ListenConfig, MqttConfig, WebConfig
from sensegate.lifecycle import examined
from tests.bus.devices import alive
from tests.conftest import eventually
from tests.live.site import config_of

pytestmark = pytest.mark.live


async def sockets(kind: str, pids: set[int]) -> set[tuple[str, int]]:
    """Return (address, port) that processes listen on, as `ss` says; `kind`: t or u."""
    process = await asyncio.create_subprocess_exec("ss", "-Hln" + kind + "p", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    sockets = set()
    for line in out.decode().splitlines():
        if pids & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}:
            address, _, port = line.split()[3].rpartition(":")
            sockets.add((address, int(port)))
    return sockets


@pytest.mark.parametrize("division", ["4401", "44"])
async def test_nothing_listens_beyond_the_configuration(tmp_path: Path, division: str) -> None:
    """Gateway and engine listen on the addresses configured, the engine behind the front; SIGTERM ends both.

    Beside its addresses the gateway has written which profiles it has examined, for its next start.
    """
    ports = {name: free_port() for name in ("http", "mqtt", "nats")}
    config = msgspec.structs.replace(
        config_of(tmp_path / "store", division),
        engine=EngineConfig(port=ports["nats"]),
        listen=ListenConfig(mqtt=MqttConfig(port=ports["mqtt"], processes=0)),
        web=WebConfig(port=ports["http"]),
    )
    file = tmp_path / "config.yaml"
    file.write_bytes(msgspec.yaml.encode(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sensegate.cli", "run", str(file), stderr=asyncio.subprocess.PIPE
    )
    kept = tmp_path / "store" / "run.json"
    try:
        await eventually(kept.exists, 30)
        run = msgspec.json.decode(kept.read_bytes(), type=GatewayAddresses)
        assert run.pid == process.pid
        assert (tmp_path / "store" / examined.FILE).exists()
        expected = {("127.0.0.1", port) for port in ports.values()}
        assert {("127.0.0.1", urlsplit(url).port) for url in (run.http, run.mqtt, run.nats)} == expected
        assert await sockets("t", {run.pid}) == {("127.0.0.1", ports["http"]), ("127.0.0.1", ports["mqtt"])}
        engine = msgspec.json.decode((tmp_path / "store" / "engine" / "engine.json").read_bytes(), type=EngineState)
        behind = {("127.0.0.1", engine.mqtt_port), ("127.0.0.1", ports["nats"])}
        assert await sockets("t", {run.engine_pid}) == behind
        assert await sockets("u", {run.pid, run.engine_pid}) == set()
        command = Path(f"/proc/{run.engine_pid}/cmdline").read_bytes() + Path(f"/proc/{run.pid}/cmdline").read_bytes()
        written = next((tmp_path / "store/engine").glob("*.conf")).read_bytes()
        for password in re.findall(rb'password: "([^"]+)"', written):
            assert password not in command
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode in {0, -signal.SIGTERM}, errors.decode()
    assert not alive(run.engine_pid)
    assert await sockets("t", {run.engine_pid}) == set()
    assert b"Traceback" not in errors
