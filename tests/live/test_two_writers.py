"""A machine that was copied: two processes of one store beside each other, and what their operators are told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.config import Config, NodeUserConfig, UplinkConfig
from tests.conftest import eventually
from tests.live.joining import ids_and_values, readiness_says
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = pytest.mark.live


def configs(directory: Path) -> tuple[Config, Config]:
    """Return the configurations of a node and its centre."""
    secret = directory / "secret"
    secret.write_text("a-secret-of-the-link", encoding="ascii")
    centre = msgspec.structs.replace(
        config_of(directory / "centre", "44"), nodes=(NodeUserConfig("4401", str(secret)),)
    )
    return config_of(directory / "node"), centre


def linked(config: Config, centre: Site, directory: Path) -> Config:
    """Return a node's configuration with its way to the centre."""
    uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(directory / "secret"), span_ms=100)
    return msgspec.structs.replace(config, uplink=uplink)


async def push(site: Site, device: Made, first: int, count: int) -> None:
    """Push messages that are acknowledged."""
    for number in range(first, first + count):
        answer = await site.push(device, reading(number, f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00Z"))
        assert answer.status == 202, answer.body


async def has(centre: Site, count: int) -> bool:
    """Return whether the centre has so many records."""
    return len(await ids_and_values(centre)) >= count


async def until_has(centre: Site, count: int) -> None:
    """Wait until the centre has so many records."""
    await eventually(lambda: has(centre, count), 30)


async def row_of(centre: Site) -> dict[str, Any]:
    """Return the node's line at the centre."""
    answer = await centre.ask("GET", "/api/v1/nodes/4401")
    row: dict[str, Any] = answer.body
    return row


async def test_a_copied_machine_loses_nothing_and_is_told(tmp_path: Path) -> None:
    """Beside the living node its copy is refused, at both and with the nodes; by a takeover all of it comes up."""
    node_config, centre_config = configs(tmp_path)
    async with running(centre_config) as centre:
        original = linked(node_config, centre, tmp_path)
        async with running(original) as node:
            device = await node.device("met-1")
            await push(node, device, 0, 5)
            await eventually(lambda: has(centre, 5))
        shutil.copytree(node_config.directory, tmp_path / "copy")
        copied = msgspec.structs.replace(original, directory=str(tmp_path / "copy"))
        async with running(original) as node, running(copied) as copy:
            await push(node, device, 10, 5)
            await eventually(lambda: has(centre, 10))
            await push(copy, device, 100, 20)
            await eventually(lambda: readiness_says(copy, "sensegate node takeover"), 30)
            trouble = await eventually(lambda: told_of_copy(centre), 30)
            assert "another" in trouble
            assert any(record["action"] == "node.copy" for record in await centre.audit())
            await push(node, device, 20, 5)
            await eventually(lambda: has(centre, 15))
            assert not any(value >= 100 for _, value in await ids_and_values(centre))
            answer = await copy.ask("POST", "/api/v1/uplink/takeover", json={"note": "the original is broken"})
            assert answer.status == 200, answer.body
            await eventually(lambda: has(centre, 35), 30)
            await eventually(lambda: readiness_says(node, "sensegate node takeover"), 30)
            records = await ids_and_values(centre)
            assert len(records) == len({name for name, _ in records}) == 35
            assert sum(value >= 100 for _, value in records) == 20
            await push(node, device, 30, 3)  # acknowledged here, and waiting
            assert len(await ids_and_values(centre)) == 35


async def told_of_copy(centre: Site) -> str:
    """Return what the page of nodes says of two copies."""
    troubles = [text for text in (await row_of(centre))["problems"] if "two copies" in text]
    return troubles[0] if troubles else ""


async def test_a_restart_of_the_node_needs_nobody(tmp_path: Path) -> None:
    """The process that goes on in the same store claims the lanes by itself, time and again."""
    node_config, centre_config = configs(tmp_path)
    async with running(centre_config) as centre:
        original = linked(node_config, centre, tmp_path)
        device: Made | None = None
        for turn in range(3):
            async with running(original) as node:
                device = device or await node.device("met-1")
                await push(node, device, turn * 10, 4)
                await until_has(centre, (turn + 1) * 4)
                assert not await readiness_says(node, "writer")
