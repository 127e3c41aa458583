"""The record of streams, the checksum by which damage is seen before the server starts, and what is mended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client

from sensegate.bus import api, consumer, store_watch, stream_meta, streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.highwayhash import highway64
from sensegate.bus.inventory import FILE, Inventory, KnownStream
from sensegate.bus.kv import KvBucket
from sensegate.bus.log import JetStreamLog
from sensegate.config import EngineConfig, StoreConfig
from sensegate.errors import EngineError, StreamLost
from sensegate.model import LogMessage
from tests.bus.devices import engine_in, until

pytestmark = pytest.mark.live

SMALL = StoreConfig(
    intake_bytes=64 * 1024**2,
    log_bytes=64 * 1024**2,
    ledger_bytes=16 * 1024**2,
    registry_bytes=1024**2,
    audit_bytes=16 * 1024**2,
    disk_reserve_bytes=1024**2,
)
SEALED = EngineConfig(encryption="on")
KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("length", "digest"),
    [(0, 0x907A56DE22C26E53), (1, 0x7EAB43AAC7CDDD78), (2, 0xB8D0569AB0B53D62), (3, 0x5C6BEFAB8A463D80)],
)
def test_the_checksum_of_the_authors(length: int, digest: int) -> None:
    """The test vectors that HighwayHash is published with."""
    assert highway64(KEY, bytes(range(length))) == digest.to_bytes(8, "little")


async def store_of(directory: Path, config: EngineConfig | None = None) -> None:
    """Make a store with all streams, three entries of the log and a row of a bucket."""
    async with engine_in(directory, config, SMALL) as engine:
        gateway, intake = await engine.connect(User.GATEWAY), await engine.connect(User.INTAKE)
        feeds = await engine.connect(User.FEEDS)
        await streams.ensure_streams(gateway, SMALL)
        await streams.ensure_mqtt_streams(intake, SMALL)
        await streams.ensure_subscriber_streams(feeds)
        log = JetStreamLog(gateway)
        await log.open()
        await log.write([LogMessage("raw.a", bytes(length)) for length in (7, 700, 7_000)])
        bucket = await KvBucket.open(gateway, "devices", bytes_max=1024**2)
        await bucket.put("a", b"1")
        for client in (gateway, intake, feeds):
            await client.close()


def place(directory: Path, title: str) -> Path:
    account, _, name = title.partition("/")
    return stream_meta.directory_of(directory / "engine" / "store", account, name)


def inventory_of(directory: Path) -> Inventory:
    return Inventory(directory / "engine").load()


async def test_the_servers_own_checksums(tmp_path: Path) -> None:
    """Those of files of every length that the server wrote, plain and encrypted."""
    await store_of(tmp_path / "plain")
    await store_of(tmp_path / "sealed", SEALED)
    for directory in (tmp_path / "plain", tmp_path / "sealed"):
        known = inventory_of(directory)
        assert len(known.streams) == 11
        assert not known.lost()
        for stream in known.streams:
            metadata = stream_meta.read(place(directory, f"{stream.account}/{stream.name}"))
            assert metadata.is_whole(stream.name)
            assert metadata.created in ({stream.created} if directory.name == "plain" else {""})
            for at in (0, len(metadata.meta) // 2, len(metadata.meta) - 1):
                flipped = bytearray(metadata.meta)
                flipped[at] ^= 1
                assert not msgspec.structs.replace(metadata, meta=bytes(flipped)).is_whole(stream.name)


@pytest.mark.parametrize("file", [stream_meta.META, stream_meta.SUM, stream_meta.KEY])
async def test_an_encrypted_stream_is_repaired(tmp_path: Path, file: str) -> None:
    """All three files come from the same copy, for a key opens only what was written with it."""
    await store_of(tmp_path, SEALED)
    damaged = place(tmp_path, "SG/LOG") / file
    damaged.write_bytes(bytes(reversed(damaged.read_bytes())))
    with pytest.raises(StreamLost, match=r"SG/LOG.*doctor CONFIG --repair"):
        await engine_in(tmp_path, SEALED, SMALL).start()
    known = inventory_of(tmp_path)
    (lost,) = known.lost()
    assert lost.repairable
    assert known.repair(lost)
    assert not known.lost()
    async with engine_in(tmp_path, SEALED, SMALL) as engine:
        client = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(client, SMALL)
        log = JetStreamLog(client)
        await log.open()
        assert [len(entry.payload) for entry in await log.fetch(0)] == [7, 700, 7_000]
        await client.close()


async def test_a_changed_setting_is_copied(tmp_path: Path) -> None:
    """The copy is that of the newest settings, and of the time of creation that the stream always had."""
    await store_of(tmp_path)
    copy = tmp_path / "engine" / "known" / "SG" / "LOG"
    before = stream_meta.read(copy)
    async with engine_in(tmp_path, store=SMALL) as engine:
        client = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(client, msgspec.structs.replace(SMALL, log_bytes=32 * 1024**2))
        await client.close()
    after = stream_meta.read(copy)
    assert after == stream_meta.read(place(tmp_path, "SG/LOG")) != before
    assert after.created == before.created


async def test_a_damaged_file_never_replaces_the_copy(tmp_path: Path) -> None:
    """The server has a stream in memory: that its file is damaged meanwhile is seen at the next change."""
    await store_of(tmp_path)
    async with engine_in(tmp_path, store=SMALL) as engine:
        (place(tmp_path, "SG/LOG") / stream_meta.META).write_bytes(b"{}")
        client = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(client, SMALL)
        await client.close()
    known = inventory_of(tmp_path)
    (lost,) = known.lost()
    assert known.repair(lost)


async def test_a_stream_that_was_created_anew(tmp_path: Path) -> None:
    """By whomever: it is another one, and nothing is taken for what it was; giving it up sets it aside."""
    await store_of(tmp_path)
    async with engine_in(tmp_path, store=SMALL) as engine:
        client = await engine.connect(User.GATEWAY)
        await api.request(client, "$JS.API.STREAM.DELETE.LEDGER")
        with pytest.raises(StreamLost, match=r"SG/LEDGER.*the server does not have it"):
            await streams.ensure_streams(client, SMALL)
        client.known_streams = None  # control: a connection that keeps no account of streams creates it anew
        await streams.ensure_streams(client, SMALL)
        await client.close()
        client = await engine.connect(User.GATEWAY)
        with pytest.raises(StreamLost, match=r"SG/LEDGER.*created again at"):
            await streams.ensure_streams(client, SMALL)
        await client.close()
    with pytest.raises(StreamLost, match="SG/LEDGER"):
        await engine_in(tmp_path, store=SMALL).start()
    known = inventory_of(tmp_path)
    (lost,) = known.lost()
    assert not known.repair(lost)
    loss = known.accept(lost, by="operator", at="2026-12-01T00:00:00Z")
    assert stream_meta.has_blocks(Path(loss.set_aside))
    assert inventory_of(tmp_path).accepted == (loss,)
    async with engine_in(tmp_path, store=SMALL) as engine:
        client = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(client, SMALL)
        await client.close()


async def test_a_server_that_passes_over_a_stream_with_whole_files(engine: Engine, gateway: Client) -> None:
    """After it was started again while we run, each known stream is asked for; then the watch ends."""
    engine.inventory.record("SG", "KV_gone", "2026-12-01T00:00:00Z")
    other = stream_meta.read(place(Path(engine.inventory._store).parents[1], "SG/LEDGER"))
    directory = engine.inventory._directory("SG", "KV_gone")
    # A whole pair of files whose contents the server refuses: the name in them is another one.
    whole = msgspec.structs.replace(other, sum=stream_meta.checksum("KV_gone", other.meta), meta=other.meta)
    stream_meta.write(directory, whole)
    (directory / "msgs").mkdir()
    (directory / "msgs" / "1.blk").write_bytes(b"")
    engine.inventory._streams["SG", "KV_gone"] = KnownStream("SG", "KV_gone", other.created)
    os.kill(engine.info.pid, signal.SIGKILL)
    with pytest.raises(StreamLost, match="SG/KV_gone"):
        await engine.wait_failed()


async def test_a_creation_that_was_cut_off(tmp_path: Path) -> None:
    """A directory that nobody recorded and that holds no message is no loss; with messages it is one."""
    await store_of(tmp_path)
    directory = place(tmp_path, "SG/KV_new")
    (directory / "msgs").mkdir(parents=True)
    (directory / stream_meta.META).write_bytes(b"{")
    (directory / "msgs" / "1.blk").write_bytes(b"")
    assert not inventory_of(tmp_path).lost()
    async with engine_in(tmp_path, store=SMALL) as engine:
        client = await engine.connect(User.GATEWAY)
        assert await (await KvBucket.open(client, "new", bytes_max=1024**2)).put("a", b"1") == 1
        await client.close()
    (directory / stream_meta.SUM).unlink()
    for known in ("with the record", "with the copies alone", "with neither"):
        if known == "with the copies alone":
            (tmp_path / "engine" / "known" / FILE).unlink()
        if known == "with neither":
            (tmp_path / "engine" / "known").rename(tmp_path / "known")
        assert [lost.title for lost in inventory_of(tmp_path).lost()] == ["SG/KV_new"], known


async def test_a_damaged_consumer(tmp_path: Path) -> None:
    """It is made again once, not at each start of the server, which would write it no more."""
    await store_of(tmp_path)
    wanted = {"durable_name": "ingest-0", "ack_policy": "all", "deliver_subject": "_SG.deliver.x"}
    for damaged in (False, True, False):
        if damaged:
            (place(tmp_path, "DEVICES/$MQTT_msgs") / "obs" / "ingest-0" / stream_meta.SUM).unlink()
        async with engine_in(tmp_path, store=SMALL) as engine:
            client = await engine.connect(User.INTAKE)
            await consumer.ensure(client, streams.MQTT_MESSAGES, wanted)
            await client.close()
    assert not list(stream_meta.damaged_consumers(place(tmp_path, "DEVICES/$MQTT_msgs")))


async def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    """It is never taken for an empty one; it is written again from the copies and the store."""
    await store_of(tmp_path)
    before = inventory_of(tmp_path).streams
    place(tmp_path, "SG/LEDGER").rename(tmp_path / "gone")
    file = tmp_path / "engine" / "known" / FILE
    file.write_text(file.read_text()[:-9])
    with pytest.raises(EngineError, match=f"{FILE} cannot be read.*doctor CONFIG --repair"):
        await engine_in(tmp_path, store=SMALL).start()
    Inventory(tmp_path / "engine").rebuild()
    after = inventory_of(tmp_path)
    assert {(known.account, known.name, known.created) for known in after.streams} == {
        (known.account, known.name, known.created) for known in before
    }
    assert [lost.title for lost in after.lost()] == ["SG/LEDGER"]


async def test_an_external_server_without_a_stream(tmp_path: Path, engine: Engine) -> None:
    """Its files are not ours to see, but what it had is recorded all the same."""
    config = EngineConfig(url=engine.info.urls[0], credentials_file=str(tmp_path / "engine" / "engine.json"))
    outside = Engine(config, SMALL, tmp_path / "other", name="4401")
    async with outside:
        client = await outside.connect(User.GATEWAY)
        await streams.ensure_streams(client, SMALL)
        await api.request(client, "$JS.API.STREAM.DELETE.LEDGER")
        with pytest.raises(StreamLost, match="SG/LEDGER"):
            await streams.ensure_streams(client, SMALL)
        await client.close()
    known = Inventory(tmp_path / "other" / "engine", external=True).load()
    (lost,) = known.lost()
    assert not known.repair(lost)
    known.accept(lost, by="operator", at="2026-12-01T00:00:00Z")
    assert not known.lost()


async def test_the_probe_is_no_stream_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each account has one, bounded; with it nothing is lost."""
    monkeypatch.setattr(store_watch, "PERIOD_S", 0.02)
    for _ in range(2):
        async with engine_in(tmp_path, store=SMALL) as engine:
            for title in ("SG/PROBE", "DEVICES/PROBE", "SUB/PROBE"):
                await until(place(tmp_path, title).exists)
            assert not engine.inventory.streams
            assert not engine.warnings()
        (place(tmp_path, "SG/PROBE") / stream_meta.SUM).unlink()
