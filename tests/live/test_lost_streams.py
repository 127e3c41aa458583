"""A stream, bucket or trail that existed and is missing is an alarm, not a fresh start; what can be rebuilt is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from typer.testing import CliRunner

from sensegate.bus import inventory, stream_meta
from sensegate.bus.inventory import Inventory
from sensegate.cli import app
from sensegate.config import Config
from sensegate.errors import EngineError, StreamLost
from tests.conftest import eventually
from tests.live.site import Made, Site, config_of, running

pytestmark = pytest.mark.live
BEGAN = int(time.time()) - 600


class Tampering(NamedTuple):
    """What a killed server or a bad disk leaves, in the directory of a stream."""

    title: str
    apply: Callable[[Path], None]


def without_sum(directory: Path) -> None:
    (directory / stream_meta.SUM).unlink()


def with_a_flipped_bit(directory: Path) -> None:
    content = bytearray((directory / stream_meta.META).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / stream_meta.META).write_bytes(content)


def between_the_renames(directory: Path) -> None:
    """Leave the new meta.inf of a changed setting with the old meta.sum."""
    content = (directory / stream_meta.META).read_bytes()
    assert b'"max_age":0' in content
    (directory / stream_meta.META).write_bytes(content.replace(b'"max_age":0', b'"max_age":1', 1))


def without_meta(directory: Path) -> None:
    (directory / stream_meta.META).write_bytes(b"")


TAMPERINGS = (
    ("SG/LOG", between_the_renames),
    ("SG/LEDGER", without_sum),
    ("SG/AUDIT", with_a_flipped_bit),
    ("SG/KV_devices", without_meta),
    ("SG/INTAKE", with_a_flipped_bit),
    ("DEVICES/$MQTT_msgs", without_sum),
)


def place(config: Config, title: str) -> Path:
    """Return the directory of a stream."""
    account, _, name = title.partition("/")
    return stream_meta.directory_of(Path(config.directory) / "engine" / "store", account, name)


def file_of(config: Config) -> Path:
    """Write the configuration for the command line."""
    file = Path(config.directory) / "gateway.yaml"
    profiles = ", ".join(config.profiles)
    file.write_text(
        f"role: {config.role}\ndivision: '{config.division}'\ndirectory: {config.directory}\nprofiles: [{profiles}]\n"
    )
    return file


def doctor(config: Config, *options: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it said."""
    result = CliRunner().invoke(app, ["doctor", str(file_of(config)), *options, "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


async def send(site: Site, device: Made, numbers: range) -> None:
    """Send readings by MQTT, each acknowledged, and wait until the feed has them."""
    async with site.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        for number in numbers:
            text = f'{{"time": {BEGAN + number}, "values": {{"air_temperature": {number / 10}}}}}'
            await phone.publish(f"sg/{device.id}/up", text)

    async def there() -> bool:
        return set(numbers) <= set(await committed(site))

    await eventually(there)


async def committed(site: Site) -> list[int]:
    return [round(row["value"] * 10) for row in await site.records()]


async def refused(config: Config) -> str:
    """Start a gateway that must not come up; return what it says."""
    with pytest.raises(StreamLost) as caught:
        async with running(config):
            pass
    return str(caught.value)


async def test_streams_with_damaged_metadata(tmp_path: Path) -> None:
    """No stream is created anew; after the repair all that was acknowledged is there and the ledger balances."""
    config = config_of(tmp_path / "node")
    async with running(config) as site:
        device = await site.device("kept")
        await send(site, device, range(20))
        audit = await site.audit()
    for title, tamper in TAMPERINGS:
        directory = place(config, title)
        before = {block.name: block.read_bytes() for block in (directory / "msgs").glob("*.blk")}
        tamper(directory)
        message = await refused(config)
        assert f"'{title}'" in message
        assert str(directory) in message
        assert "sensegate doctor CONFIG --repair" in message
        assert {block.name: block.read_bytes() for block in (directory / "msgs").glob("*.blk")} == before
        assert title in (await asyncio.to_thread(doctor, config))[1]
        code, output = await asyncio.to_thread(doctor, config, "--repair")
        assert (code, "is readable again" in output) == (0, True), output
    async with running(config) as site:
        assert sorted(await committed(site)) == [*range(20)]
        assert (await site.totals())["accepted"] == 20
        assert (await site.audit())[: len(audit)] == audit
        await send(site, device, range(20, 25))
        assert sorted(await committed(site)) == [*range(25)]
        assert (await site.ready())[0] == 200


async def test_all_at_once_and_the_server_is_killed_with_it(tmp_path: Path) -> None:
    """While it runs: the server is killed, comes back without a stream, and the gateway ends instead of going on."""
    config = config_of(tmp_path / "node")
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the gateway ends in the middle of it
        async with running(config) as site:
            device = await site.device("kept")
            await send(site, device, range(10))
            for title, tamper in TAMPERINGS:
                tamper(place(config, title))
            os.kill(int(msgspec.json.decode(site.config_file("run.json").read_bytes())["engine_pid"]), signal.SIGKILL)
            await asyncio.wait({site.task}, timeout=60)
            assert site.task.done()
    lost, _ = caught.value.split(StreamLost)
    assert lost is not None
    assert all(title in str(lost.exceptions[0]) for title, _ in TAMPERINGS)
    assert (await asyncio.to_thread(doctor, config, "--repair"))[0] == 0
    async with running(config) as site:
        assert sorted(await committed(site)) == [*range(10)]
        await site.totals()


async def test_a_log_that_cannot_be_rebuilt(tmp_path: Path) -> None:
    """Given up by name alone: it begins behind the old one, old cursors are refused, the trail tells who did it."""
    config = config_of(tmp_path / "node")
    async with running(config) as site:
        device = await site.device("kept")
        await send(site, device, range(5))
        cursor = (await site.ask("GET", "/api/v1/feeds/all/records")).body["next"]
    directory = place(config, "SG/LOG")
    directory.rename(tmp_path / "gone")
    assert "its directory is missing" in await refused(config)
    code, output = await asyncio.to_thread(doctor, config, "--repair")
    assert code == 1
    assert "--accept-loss 'SG/LOG'" in output
    with pytest.raises(EngineError, match="not lost; lost streams: SG/LOG"):
        await asyncio.to_thread(doctor, config, "--accept-loss", "AUDIT")
    assert (await asyncio.to_thread(doctor, config, "--accept-loss", "LOG"))[0] == 0
    async with running(config) as site:
        assert (await site.ask("GET", "/api/v1/feeds/all/records", params={"after": cursor})).status == 410
        assert await committed(site) == []
        await send(site, device, range(5, 10))
        assert await committed(site) == [*range(5, 10)]
        (row,) = [row for row in await site.audit() if row["action"] == "store.accept_loss"]
        assert row["target"] == "SG/LOG"
        assert row["before"]["by"]
    async with running(config):
        assert not Inventory(Path(config.directory) / "engine").load().accepted


async def test_a_whole_store_that_is_gone(tmp_path: Path) -> None:
    """Without the record of streams, too: the life of the log, which stands elsewhere, says that there was one."""
    config = config_of(tmp_path / "node")
    async with running(config) as site:
        await send(site, await site.device("kept"), range(3))
    engine = Path(config.directory) / "engine"
    (engine / "store").rename(tmp_path / "store")
    assert "SG/LOG" in await refused(config)
    (engine / inventory.DIRECTORY).rename(tmp_path / "known")
    assert "'SG/LOG' existed" in await refused(config)
    for made in ("store", inventory.DIRECTORY):
        (engine / made).rename(tmp_path / f"made-{made}")
        (tmp_path / made).rename(engine / made)
    async with running(config) as site:
        assert sorted(await committed(site)) == [0, 1, 2]
