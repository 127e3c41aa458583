"""What is told at the registration of a device: how to publish for it at once, and what the broker would refuse."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from sensegate.cli.devices import publish_command
from tests.conftest import eventually
from tests.live.site import config_of, running


async def test_the_printed_command_publishes_a_first_reading(tmp_path: Path) -> None:
    """Run as it is printed, by a shell; a client id with a dot is taken like any other."""
    async with running(config_of(tmp_path)) as site:
        wanted = {"id": "air-1", "division": "440106", "profile": "sensegate/plain", "alias": "A.1"}
        made = (await site.ask("POST", "/api/v1/devices", json=wanted)).body
        assert made["warnings"] == []
        command = publish_command(made, site.addresses.http)
        assert shlex.split(command)[0] == "mosquitto_pub"
        process = await asyncio.create_subprocess_shell(command)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert await eventually(site.records)
        dotted = await asyncio.create_subprocess_shell(command.replace("-i air-1", "-i A.1"))
        assert await asyncio.wait_for(dotted.wait(), 60) == 0
