"""Copies of a store that is written meanwhile: each is of one moment, whole, and as encrypted as the original."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import streams
from sensegate.bus.backup import create, standstill
from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.bus.process import find_pid
from sensegate.config import Config, EngineConfig
from sensegate.errors import Conflict, Unavailable
from sensegate.model import LogMessage
from tests.conftest import SMALL, eventually

pytestmark = pytest.mark.live
MEMBERS = 12
COPIES = 4


class Writer:
    """Writes atomic batches, without a pause while `wanted` is set; each member names its batch."""

    def __init__(self, client: Client) -> None:
        self.log = JetStreamLog(client)
        self.batches = 0
        """Acknowledged so far."""
        self.wanted = asyncio.Event()
        """Cleared while nobody copies: the log has room for half a minute of writing."""
        self.wanted.set()
        self.task = asyncio.create_task(self.run(), name="writer")

    async def has_written(self, batches: int) -> None:
        """Wait until so many are acknowledged; a writer that failed raises its error here."""
        await eventually(lambda: self.batches >= batches or self.task.done())
        if self.task.done():
            self.task.result()

    async def goes_on(self) -> None:
        """Wait until more is written."""
        self.wanted.set()
        await self.has_written(self.batches + 1)

    async def run(self) -> None:
        """Write until cancelled."""
        await self.log.open()
        while await self.wanted.wait():
            number = self.batches + 1
            pad = secrets.token_hex(750)
            members = [
                LogMessage(f"readings.4401.{place}.1", f"BATCH {number} {pad}".encode(), 10) for place in range(MEMBERS)
            ]
            await self.log.write([*members, LogMessage("commit.4401-0", f"COMMIT {number}".encode(), rollup=True)])
            self.batches = number


@contextlib.asynccontextmanager
async def written(directory: Path, encryption: str) -> AsyncIterator[tuple[Engine, Writer]]:
    """Run a server whose log is being written."""
    config = EngineConfig(encryption="on" if encryption == "encrypted" else "off")
    async with Engine(config, SMALL, directory, name="4401") as engine:
        client = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(client, SMALL)
        writer = Writer(client)
        try:
            await writer.has_written(20)
            yield engine, writer
        finally:
            writer.task.cancel()
            await asyncio.gather(writer.task, return_exceptions=True)
            await client.close()


async def contents_of(directory: Path, config: EngineConfig) -> tuple[int, dict[int, int]]:
    """Return (batch of the last commit, batch -> members) of a copied store, as a server recovers it."""
    async with Engine(config, SMALL, directory, name="4401") as engine:
        client = await engine.connect(User.GATEWAY)
        log = JetStreamLog(client)
        await log.open()
        counts: dict[int, int] = {}
        place = committed = 0
        while entries := await log.fetch(place):
            for entry in entries:
                place = entry.sequence
                kind, number, *_ = entry.payload.split()
                if kind == b"COMMIT":
                    committed = int(number)
                else:
                    counts[int(number)] = counts.get(int(number), 0) + 1
        await client.close()
        return committed, counts


def copied(directory: Path, target: Path) -> None:
    """Copy what a view shows."""
    with standstill.view(directory) as view:
        for file in view.files:
            (target / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(view.staging / file.path, target / file.path)
            (target / file.path).chmod(0o600)
            assert standstill.is_unchanged(view.staging, file)
    assert view.standstill_s < standstill.STANDSTILL_S


@pytest.mark.parametrize("encryption", ["plain", "encrypted"])
async def test_a_copy_is_of_one_moment(tmp_path: Path, encryption: str) -> None:
    """Each copy ends with a whole batch and its commit, holds all that was acknowledged before, and is no clearer."""
    async with written(tmp_path / "original", encryption) as (_, writer):
        for number in range(COPIES):
            acknowledged, target = writer.batches, tmp_path / f"copy-{number}"
            await asyncio.to_thread(copied, tmp_path / "original", target)
            writer.wanted.clear()
            blocks = b"".join(block.read_bytes() for block in target.rglob("*.blk"))
            assert (b"BATCH " in blocks) == (encryption == "plain")
            config = EngineConfig(encryption="on" if encryption == "encrypted" else "off")
            committed, counts = await contents_of(target, config)
            assert committed == max(counts) >= acknowledged
            assert {*counts.values()} == {MEMBERS}
            await writer.goes_on()
    assert not [*(tmp_path / "original" / "engine").glob(".backup-*")]


async def test_the_servers_own_snapshot_decrypts(tmp_path: Path) -> None:
    """The control: what the snapshot API of an encrypted store sends is readable, so it is not used."""
    async with written(tmp_path / "original", "encrypted") as (engine, _):
        client = await engine.connect(User.GATEWAY)
        chunks: list[bytes] = []
        end = asyncio.Event()

        async def chunk(message: Msg) -> None:
            chunks.append(message.data)
            if message.reply:
                await client.publish(message.reply, b"")
            if not message.data:
                end.set()

        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=chunk)
        await client.request("$JS.API.STREAM.SNAPSHOT.LOG", json.dumps({"deliver_subject": inbox}).encode(), timeout=60)
        async with asyncio.timeout(60):
            await end.wait()
        assert b"BATCH " in b"".join(chunks)
        await client.close()


async def test_a_block_that_is_rewritten_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linked block that the server changes in place while it is copied never gets into a backup."""
    directory = tmp_path / "node"
    async with written(directory, "plain") as (_, writer):
        log = directory / "engine/store/jetstream/SG/streams/LOG/msgs"
        await eventually(lambda: len([*log.glob("*.blk")]) > 1, 30)
        assert writer.batches
    config = Config(role="node", division="4401", directory=str(directory), profiles=())
    (tmp_path / "node.yaml").write_text("role: node\n")
    real = standstill.is_unchanged

    def changed(staging: Path, file: standstill.StagedFile) -> bool:
        if file.changed:
            with (directory / file.path).open("r+b") as full_block:
                full_block.write(b"\0")
        return real(staging, file)

    with monkeypatch.context() as context:
        context.setattr(standstill, "is_unchanged", changed)
        with pytest.raises(Unavailable, match="rewrote blocks"):
            await asyncio.to_thread(create.create, config, tmp_path / "node.yaml", tmp_path / "copy")
    assert not [*tmp_path.glob("copy*")]
    await asyncio.to_thread(create.create, config, tmp_path / "node.yaml", tmp_path / "copy")


@pytest.mark.parametrize("merged_at", [1, 3, 4])
def test_segments_that_are_merged_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged_at: int) -> None:
    """The backup holds all spans, whichever files are merged while it links; the control lists them once."""
    spans = ["000-010", "010-020", "020-030"]
    linked = standstill._linked
    calls = 0

    def merge_meanwhile(directory: Path, path: str, target: Path) -> standstill.StagedFile:
        nonlocal calls
        calls += 1
        if calls == merged_at:
            (history / "000-030.parquet").write_bytes(b"all")
            for span in spans:
                (history / f"{span}.parquet").unlink()
        return linked(directory, path, target)

    def stage(name: str) -> set[str]:
        """Return the spans that are staged."""
        return {file.path for file in standstill._stage_segments(tmp_path / name, tmp_path / "staging" / name)}

    monkeypatch.setattr(standstill, "_linked", merge_meanwhile)
    whole = {"history/000-030.parquet"}, {f"history/{span}.parquet" for span in spans}
    for name in ("gateway", "control"):
        history, calls = tmp_path / name / "history", 0
        history.mkdir(parents=True)
        for span in spans:
            (history / f"{span}.parquet").write_bytes(b"some")
        if name == "control":
            listed = standstill._segments(tmp_path / name)
            monkeypatch.setattr(standstill, "_segments", lambda _directory, listed=listed: listed)
        staged = stage(name)
        assert any(spans_of <= staged for spans_of in whole) is (name == "gateway" or merged_at > len(spans)), staged


async def test_two_backups_at_once(tmp_path: Path) -> None:
    """The second is refused; the server goes on."""
    async with written(tmp_path, "plain") as (_, writer):
        with standstill.view(tmp_path), pytest.raises(Conflict, match="another backup"):
            copied(tmp_path, tmp_path / "copy")
        await writer.goes_on()


KILLED = """
import os, signal, sys
from pathlib import Path
from sensegate.bus.backup import standstill
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
standstill._stage = killed
with standstill.view(Path(sys.argv[1])):
    pass
"""


async def test_a_backup_that_is_killed_leaves_no_server_stopped(tmp_path: Path) -> None:
    """Killed in the middle of the standstill: the server goes on all the same, and so does the next backup."""
    async with written(tmp_path, "plain") as (_, writer):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(tmp_path))
        assert await process.wait() == -signal.SIGKILL
        await writer.goes_on()
        await asyncio.to_thread(copied, tmp_path, tmp_path / "copy")
        result = find_pid(tmp_path / "engine")
        assert result is not None
        assert Path(f"/proc/{result[0]}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "Tt"
        assert len([*(tmp_path / "engine").glob(".backup-*")]) == 0


async def test_a_server_that_is_about_to_start(tmp_path: Path) -> None:
    """Without a server the store is locked for the time of the copy: none starts meanwhile."""
    async with written(tmp_path, "plain"):
        pass
    with standstill._still(tmp_path / "engine"):
        second = standstill._still(tmp_path / "engine")
        with pytest.raises(Unavailable, match="try again"):
            second.__enter__()
