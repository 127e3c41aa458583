"""What is told at the registration of a device: how to publish for it at once, and what the broker would refuse."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from sensegate.authority.device_rules import client_id_fault
from sensegate.cli.devices import publish_command
from tests.conftest import eventually
from tests.live.site import config_of, running


async def test_the_printed_command_publishes_a_first_reading(tmp_path: Path) -> None:
    """Run as it is printed, by a shell; an alias that the broker refuses as client id is told, and is refused."""
    async with running(config_of(tmp_path)) as site:
        wanted = {"id": "air-1", "division": "440106", "profile": "sensegate/plain", "alias": "A.1"}
        made = (await site.ask("POST", "/api/v1/devices", json=wanted)).body
        refusal = "as an MQTT client id the broker refuses the alias, because it contains '.'"
        assert made["warnings"] == [f"alias: {refusal}; set its client id to air-1"]
        command = publish_command(made, site.addresses.http)
        assert shlex.split(command)[0] == "mosquitto_pub"
        process = await asyncio.create_subprocess_shell(command)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert await eventually(site.records)
        refused = await asyncio.create_subprocess_shell(
            command.replace("-i air-1", "-i A.1"), stderr=asyncio.subprocess.DEVNULL
        )
        assert await asyncio.wait_for(refused.wait(), 10) != 0
        plain = (await site.ask("POST", "/api/v1/devices", json={**wanted, "id": "air-2", "alias": ""})).body
        assert plain["warnings"] == []


@pytest.mark.parametrize(
    ("client_id", "fault"),
    [("air-1", ""), ("空气", ""), ("a/b", ""), ("a b", "a space"), ("a.b", "'.'"), ("a*", "'*'"), ("a>b", "'>'")],
)
def test_client_ids_that_the_broker_refuses(client_id: str, fault: str) -> None:
    """As seen of the server."""
    assert client_id_fault(client_id) == fault
