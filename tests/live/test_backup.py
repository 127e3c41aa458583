"""Backup of a live gateway and its restore: the drill of a node that is destroyed, and of a centre."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.bus.backup import manifest
from sensegate.cli import app, backup
from sensegate.config import Config, EngineConfig, NodeUserConfig, UplinkConfig
from sensegate.config.history import HistoryConfig
from sensegate.demo.link import FaultyLink
from sensegate.errors import SensegateError
from tests.conftest import eventually
from tests.live.joining import copied_since, ids_and_values, readiness_says
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = pytest.mark.live
RECORDS = "/api/v1/feeds/all/records"


def write(directory: Path, config: Config, name: str) -> Path:
    """Write a configuration to a file."""
    file = directory / f"{name}.yaml"
    file.write_bytes(msgspec.yaml.encode(config))
    return file


async def command(*words: str | Path) -> dict[str, Any]:
    """Run a command in a thread of this process; return what it would print as JSON.

    Raises:
        Refused: it ends with an error.
    """
    printed: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        # Not from the output of the process, into which the gateways of the test write.
        patch.setattr(backup, "print_json", printed.append)
        try:
            await asyncio.to_thread(app, [*map(str, words), "--json"], standalone_mode=False)
        except SensegateError as why:
            raise Refused(str(why)) from why
    (document,) = printed
    return document


async def process_of(*words: str | Path) -> dict[str, Any]:
    """Run a command as an operator does, in a process of its own, which takes a second to start.

    Raises:
        Refused: it ends with an error.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sensegate.cli",
        *words,
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert b"Traceback" not in errors, errors.decode()
    if process.returncode:
        raise Refused(errors.decode())
    document: dict[str, Any] = json.loads(out)
    return document


class Refused(Exception):
    """A command that ended with an error; its text is what the command says."""


def time_of(number: int) -> str:
    """Return the time that a reading with a number bears."""
    return f"2026-01-01T{number // 60 % 24:02d}:{number % 60:02d}:00Z"


async def push(site: Site, device: Made, numbers: range) -> None:
    """Push readings and wait until each is acknowledged."""
    for number in numbers:
        assert (await site.push(device, reading(number, time_of(number)))).status == 202


async def values(site: Site, **query: str) -> list[float]:
    """Return the values in the feed."""
    return sorted(row["value"] for row in await site.records(**query))


async def until(site: Site, wanted: set[int]) -> None:
    """Wait until the feed has these values, and look that it has each once."""

    async def complete() -> bool:
        return wanted <= {int(value) for value in await values(site)}

    await eventually(complete, 30)
    assert await values(site) == sorted(wanted)
    ids = [row["id"] for row in await site.records()]
    assert len(ids) == len(set(ids))


@contextlib.asynccontextmanager
async def traffic(site: Site, device: Made, first: int) -> AsyncIterator[list[int]]:
    """Push readings without a pause, and list the acknowledged ones."""
    acknowledged: list[int] = []
    end = asyncio.Event()

    async def send() -> None:
        number = first
        while not end.is_set():
            answer = await site.push(device, reading(number, time_of(number)))
            assert answer.status == 202, answer.body
            acknowledged.append(number)
            number += 1

    task = asyncio.create_task(send(), name="traffic")
    try:
        yield acknowledged
    finally:
        end.set()
        await task


class Drill:
    """A node with its centre, and where their files lie."""

    def __init__(self, directory: Path, *, encryption: str) -> None:
        self.directory = directory
        self.secret = directory / "secret"
        self.secret.write_text("a-secret-of-the-link", encoding="ascii")
        self.passphrase = directory / "passphrase"
        self.passphrase.write_text("a passphrase that lies elsewhere", encoding="ascii")
        for file in (self.secret, self.passphrase):
            file.chmod(0o600)
        self.centre = msgspec.structs.replace(
            config_of(directory / "centre", "44"), nodes=(NodeUserConfig("4401", str(self.secret)),)
        )
        engine = EngineConfig(encryption="on" if encryption == "encrypted" else "off")
        self.node = msgspec.structs.replace(config_of(directory / "node"), engine=engine)

    def linked(self, url: str) -> Config:
        """Return the node's configuration with its way to the centre."""
        uplink = UplinkConfig(url=url, secret_file=str(self.secret), span_ms=50)
        return msgspec.structs.replace(self.node, uplink=uplink)


class Loss:
    """A node that was backed up under traffic, went on, and was destroyed with its disk."""

    def __init__(self, drill: Drill, centre: Site, link: FaultyLink) -> None:
        self.drill = drill
        self.centre = centre
        self.link = link
        self.config = drill.linked(f"nats://127.0.0.1:{link.port}")
        self.file = write(drill.directory, self.config, "node")
        self.copy = drill.directory / "copy"
        self.before: set[int] = set()
        """Acknowledged when the backup began."""
        self.centre_has: set[int] = set()
        self.cursors: dict[str, str] = {}

    async def live(self) -> None:
        """Run the node, and back it up while readings come."""
        async with running(self.config) as node:
            self.device = await node.device("met-1")
            await push(node, self.device, range(10))
            self.cursors["early"] = (await node.ask("GET", RECORDS)).body["next"]
            revoked = await node.token()
            async with traffic(node, self.device, 10) as acknowledged:
                await eventually(lambda: len(acknowledged) > 20)
                self.before = {*range(10), *acknowledged}
                made = await process_of("backup", self.file, "--to", self.copy, "--with-secrets", self.drill.passphrase)
                await eventually(lambda: len(acknowledged) > len(self.before) + 20)
            assert made["standstill_s"] < 2
            self.centre_has = {*range(10), *acknowledged}
            await self.registries_since(node, revoked)
            await until(self.centre, self.centre_has)
            self.cursors["behind"] = await end_of(node)

    async def registries_since(self, node: Site, revoked: tuple[str, str]) -> None:
        """Revoke a token and register a device after the backup; wait until the centre has a copy of that."""
        self.revoked = revoked[0]
        assert (await node.ask("DELETE", f"/api/v1/tokens/{revoked[1]}")).status in {200, 204}
        self.later = await node.device("met-2")
        changed = time.time_ns() // 1_000
        await node.token()  # one more change, so that a copy follows that moment, whatever was copied before it
        await eventually(lambda: copied_since(self.centre, changed), 90)

    async def restarted(self) -> None:
        """Run the node again: the centre then knows an epoch and a timeline that the copy does not."""
        async with running(self.config) as node:
            await push(node, self.device, range(2000, 2005))
            self.centre_has |= {*range(2000, 2005)}
            await until(self.centre, self.centre_has)
            self.cursors["unknown"] = await end_of(node)

    async def end(self) -> None:
        """Run the node once more without its link, and destroy it."""
        await self.link.cut()
        async with running(self.config) as node:
            await push(node, self.device, range(3000, 3005))
        shutil.rmtree(self.config.directory)
        self.drill.secret.unlink()
        self.link.restore()


async def end_of(site: Site) -> str:
    """Return the cursor behind all that the feed holds."""
    return str((await site.ask("GET", RECORDS, params={"limit": "5000"})).body["next"])


@pytest.mark.parametrize(("encryption", "restarts"), [("plain", 0), ("encrypted", 2)])
async def test_a_node_that_is_destroyed(tmp_path: Path, *, encryption: str, restarts: int) -> None:
    """What was acknowledged before the backup is there; what only the centre has stays there; nothing is doubled.

    The original may have been restarted since the backup, so that the centre knows a newer epoch than the copy.
    """
    drill = Drill(tmp_path, encryption=encryption)
    new = [*range(4000, 4010)]
    async with running(drill.centre) as centre:
        link = FaultyLink("127.0.0.1", int(centre.addresses.nats.rpartition(":")[2]))
        await link.start()
        loss = Loss(drill, centre, link)
        await loss.live()
        for _ in range(restarts):
            await loss.restarted()
        await loss.end()
        restored = await process_of("restore", loss.copy, loss.file, "--secrets", drill.passphrase)
        assert restored["missing"] == restored["kept"] == restored["taken_over"] == []
        assert drill.secret.exists()
        async with running(loss.config) as node:
            there = {int(value) for value in await values(node)}
            assert loss.before <= there <= loss.centre_has, "no acknowledged reading of before the backup is missing"
            await push(node, loss.device, range(4000, 4010))
            await until(centre, loss.centre_has | {*new})
            await until(node, there | {*new})
            await cursors_of(loss, node, there, new)
            assert (await node.ask("GET", "/api/v1/me", loss.revoked)).status == 401
            await push(node, loss.later, range(4100, 4101))
            await until(centre, loss.centre_has | {*new, 4100})
            changed = time.time_ns() // 1_000
            await node.device("met-3")
            await eventually(lambda: copied_since(centre, changed), 90)
            await node.totals()
            assert (await node.ready())[0] == 200
            (record,) = [row for row in await node.audit() if row["action"] == "store.restore"]
            assert record["after"]["source"] == str(loss.copy)
        assert any(row["action"] == "node.restored" for row in await centre.audit())
        await centre.totals()
        assert not json.loads((Path(loss.config.directory) / "writer.json").read_bytes()).get("restored")
        await link.stop()


async def cursors_of(loss: Loss, node: Site, there: set[int], new: list[int]) -> None:
    """See that a cursor of before the copy goes on, and one behind it is refused and told from where."""
    rest = sorted(there - {*range(10)} | {*new})
    assert await values(node, after=loss.cursors["early"]) == rest
    gone = await node.ask("GET", RECORDS, params={"after": loss.cursors["behind"]})
    assert gone.status == 410
    assert await values(node, after=gone.body["first"]) == new
    if "unknown" in loss.cursors:
        gone = await node.ask("GET", RECORDS, params={"after": loss.cursors["unknown"]})
        assert gone.status == 410
        # Of a timeline that the copy has never heard of the minute alone is known.
        assert {*new} <= {*await values(node, after=gone.body["first"])}


async def test_beside_the_living_original(tmp_path: Path) -> None:
    """A restore is refused on its machine; where it is told to go on, the centre takes one of the two alone."""
    drill = Drill(tmp_path, encryption="plain")
    async with running(drill.centre) as centre:
        original = drill.linked(centre.addresses.nats)
        file = write(tmp_path, original, "node")
        other = msgspec.structs.replace(original, directory=str(tmp_path / "other"))
        other_file = write(tmp_path, other, "other")
        async with running(original) as node:
            device = await node.device("met-1")
            await push(node, device, range(5))
            await until(centre, set(range(5)))
            await command("backup", file, "--to", tmp_path / "copy")
            with pytest.raises(Refused, match="runs; stop it first"):
                await command("restore", tmp_path / "copy", file, "--replace")
            with pytest.raises(Refused, match="--beside-original"):
                await command("restore", tmp_path / "copy", other_file)
            restored = await command("restore", tmp_path / "copy", other_file, "--beside-original")
            assert "directory/engine/engine.json" in restored["missing"]
            shutil.copy(Path(original.directory) / "admin.token", other.directory)
            async with running(other) as copy:
                await push(copy, device, range(100, 105))
                await push(node, device, range(10, 15))
                await eventually(lambda: readiness_says(copy, "another process of this node is running"), 30)
                await until(centre, {*range(5), *range(10, 15)})
        assert len(await ids_and_values(centre)) == 10


async def past_values(site: Site, count: int) -> list[float]:
    """Return the values in the history once it has so many."""
    path = "/api/v1/feeds/all/history?from=2025-12-31T00:00:00Z"

    async def is_written() -> bool:
        return len((await site.ask("GET", path)).body["records"]) >= count

    await eventually(is_written)
    return [record["value"] for record in (await site.ask("GET", path)).body["records"]]


async def test_the_history_comes_with_the_backup(tmp_path: Path) -> None:
    """It is as long as the copy's log, goes on after the restore, and is written from the log where it is lost."""
    history = HistoryConfig(enabled=True, flush_s=0.1)
    config = msgspec.structs.replace(config_of(tmp_path / "node"), history=history)
    file = write(tmp_path, config, "node")
    async with running(config) as site:
        device = await site.device("met-1")
        await push(site, device, range(5))
        assert await past_values(site, 5) == [*range(5)]
        await command("backup", file, "--to", tmp_path / "copy")
        await push(site, device, range(20, 25))
        assert len(await past_values(site, 10)) == 10
    files = [entry.path for entry in manifest.read(tmp_path / "copy").files]
    assert any(path.startswith("directory/history/") and path.endswith(".parquet") for path in files)
    restored = await command("restore", tmp_path / "copy", file, "--replace")
    kept = {*(tmp_path / "node" / "history").glob("*.parquet")}
    assert kept
    assert [*(Path(restored["aside"]) / "history").glob("*.parquet")]
    async with running(config) as site:
        await push(site, device, range(30, 33))
        assert await past_values(site, 8) == [*range(5), *range(30, 33)]
    shutil.rmtree(tmp_path / "node" / "history")
    async with running(config) as site:
        assert await past_values(site, 8) == [*range(5), *range(30, 33)]


async def test_what_stands_in_the_way(tmp_path: Path) -> None:
    """A store in the way is refused, and with --replace set aside; its secrets are taken over; none is deleted."""
    config = config_of(tmp_path / "node")
    file = write(tmp_path, config, "node")
    with pytest.raises(Refused, match="holds no store yet"):
        await command("backup", file, "--to", tmp_path / "copy")
    async with running(config) as site:
        device = await site.device("met-1")
        await push(site, device, range(5))
        await command("backup", file, "--to", tmp_path / "copy")
        with pytest.raises(Refused, match="exists already"):
            await command("backup", file, "--to", tmp_path / "copy")
    with pytest.raises(Refused, match="--replace"):
        await command("restore", tmp_path / "copy", file)
    token = (tmp_path / "node" / "masks.key").read_bytes()
    restored = await command("restore", tmp_path / "copy", file, "--replace")
    assert (Path(restored["aside"]) / "engine" / "store").is_dir()
    assert (Path(restored["aside"]) / "masks.key").read_bytes() == token
    assert "directory/masks.key" in restored["taken_over"]
    async with running(config) as site:
        assert await values(site) == [*range(5)]
    # A gateway that stands still is backed up in the same way.
    await command("backup", file, "--to", tmp_path / "second")
    with pytest.raises(Refused, match="of node 4401, the configuration of centre 44"):
        await command("restore", tmp_path / "second", write(tmp_path, config_of(tmp_path / "c", "44"), "centre"))


async def test_a_damaged_backup(tmp_path: Path) -> None:
    """Each file is held against its checksum before anything is touched: one flipped bit, one missing file."""
    config = config_of(tmp_path / "node")
    file = write(tmp_path, config, "node")
    async with running(config) as site:
        await push(site, await site.device("met-1"), range(5))
        await command("backup", file, "--to", tmp_path / "copy")
    shutil.rmtree(config.directory)
    names = [entry.path for entry in manifest.read(tmp_path / "copy").files if entry.size]
    for name in (name for name in names if "LOG/msgs" in name or name == "config.yaml"):
        place = tmp_path / "copy" / name
        content = place.read_bytes()
        place.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(Refused, match="is damaged"):
            await command("restore", tmp_path / "copy", file)
        place.unlink()
        with pytest.raises(Refused, match="cannot be read"):
            await command("restore", tmp_path / "copy", file)
        place.write_bytes(content)
    assert not os.path.lexists(config.directory)
    (tmp_path / "copy" / manifest.FILE).rename(tmp_path / "manifest")
    with pytest.raises(Refused, match="not finished"):
        await command("restore", tmp_path / "copy", file)
    (tmp_path / "manifest").rename(tmp_path / "copy" / manifest.FILE)
    await command("restore", tmp_path / "copy", file)


async def test_a_centre_that_is_restored(tmp_path: Path) -> None:
    """The nodes send again what the copy lacks: all is there, none twice."""
    drill = Drill(tmp_path, encryption="plain")
    port = EngineConfig(port=0)
    centre_config = msgspec.structs.replace(drill.centre, engine=port)
    file = write(tmp_path, centre_config, "centre")
    async with running(centre_config) as centre:
        link = FaultyLink("127.0.0.1", int(centre.addresses.nats.rpartition(":")[2]))
        await link.start()
        context = running(drill.linked(f"nats://127.0.0.1:{link.port}"))
        node = await context.__aenter__()
        device = await node.device("met-1")
        await push(node, device, range(5))
        await until(centre, set(range(5)))
        await command("backup", file, "--to", tmp_path / "copy", "--with-secrets", drill.passphrase)
        await push(node, device, range(5, 15))
        await until(centre, set(range(15)))
        late = (await centre.ask("GET", RECORDS)).body["next"]
    shutil.rmtree(centre_config.directory)
    await command("restore", tmp_path / "copy", file, "--secrets", drill.passphrase)
    try:
        async with running(centre_config) as centre:
            link.target = ("127.0.0.1", int(centre.addresses.nats.rpartition(":")[2]))
            await push(node, device, range(15, 20))
            await until(centre, set(range(20)))
            gone = await centre.ask("GET", RECORDS, params={"after": late})
            assert gone.status == 410
            assert await values(centre, after=gone.body["first"]) == [*range(5, 20)]
            await context.__aexit__(None, None, None)
    finally:
        await link.stop()
