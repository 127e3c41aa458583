"""A whole gateway on a nats-server that it did not start: the way of a reading is the same, the server stays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sensegate.bus import external, process
from sensegate.bus.free_ports import free_port
from sensegate.config import Config, EngineConfig
from tests.conftest import eventually
from tests.live.site import config_of, reading, running

pytestmark = pytest.mark.live


@contextlib.asynccontextmanager
async def served(config: Config, directory: Path) -> AsyncIterator[tuple[Config, asyncio.subprocess.Process]]:
    """Run a nats-server on the files that `sensegate engine` writes; yield the configuration that enters it."""
    ports = EngineConfig(port=free_port("127.0.0.1"), mqtt_port=free_port("127.0.0.1"))
    (written,), users = external.write(msgspec.structs.replace(config, engine=ports), directory, slots=())
    server = await asyncio.create_subprocess_exec(process.binary(), "-c", written)
    entered = EngineConfig(url=f"nats://127.0.0.1:{ports.port}", credentials_file=str(users), mqtt_port=ports.mqtt_port)

    async def answers() -> bool:
        with contextlib.suppress(OSError, EOFError):
            await process.read_server_info("127.0.0.1", ports.port)
            return True
        return False

    try:
        await eventually(answers)
        yield msgspec.structs.replace(config, engine=entered), server
    finally:
        server.terminate()
        await server.wait()


async def test_a_gateway_runs_on_a_server_of_others(tmp_path: Path) -> None:
    """Devices publish, are refused and cut as at home; a gateway that stops leaves the server, the next one goes on."""
    async with served(config_of(tmp_path / "gateway"), tmp_path / "server") as (config, server):
        async with running(config) as site:
            device = await site.device("d-1")
            other = await site.device("d-2")
            assert site.addresses.engine_pid == 0
            async with site.phone() as phone:
                assert await phone.connect(device.id, device.password) == 0
                await phone.publish(device.topics[0], reading(21.5))
                await phone.publish(other.topics[0], reading(99.0))
                rows = await eventually(site.records)
                assert [(row["device"], row["value"]) for row in rows] == [("d-1", 21.5)]
                answer = await site.ask("POST", f"/api/v1/devices/{device.id}/disable")
                assert answer.status == 200, answer.body
                await phone.next("closed", 60.0)
            assert (await site.totals())["messages"] == 1
        assert server.returncode is None
        async with running(config) as site:
            assert [row["value"] for row in await site.records()] == [21.5]


def test_the_users_of_a_server_of_others_are_kept(tmp_path: Path) -> None:
    """Made again for another size, the configuration holds the same users; both files are ours alone."""
    config = config_of(tmp_path / "gateway")
    (written,), users = external.write(config, tmp_path / "server", slots=())
    before = users.read_bytes()
    store = msgspec.structs.replace(config.store, log_bytes=2 * config.store.log_bytes)
    text = written.read_text()
    external.write(msgspec.structs.replace(config, store=store), tmp_path / "server", slots=())
    assert users.read_bytes() == before
    assert written.read_text() != text
    assert {file.stat().st_mode & 0o777 for file in (written, users)} == {0o600}
