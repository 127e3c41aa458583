"""The walk: lives that end and begin again, each message committed once; and what a start and a stop leave behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate import flow
from sensegate.authority.devices import Devices
from sensegate.authority.tokens import make_text
from sensegate.bus import raw
from sensegate.bus.addresses import GatewayAddresses
from sensegate.clock import FakeClock, SystemClock
from sensegate.config import ExternalBrokerConfig, UplinkConfig
from sensegate.errors import ConfigError, Fenced, Overloaded, StoreFull, Unavailable
from tests.conftest import eventually
from tests.live.phone import Phone
from tests.live.site import Made, config_of, reading, running
from tests.support.pipeline import COUNT, Faulty, Script, Walk, numbers, registry


@pytest.fixture
async def devices() -> Devices:
    """A registry that knows `d1`."""
    return await registry()


@pytest.mark.parametrize(
    ("faults", "lost_after"),
    [
        pytest.param({}, [], id="nothing happens"),
        pytest.param({}, [1, 4, 7], id="the source is lost"),
        pytest.param({1: "lost", 5: "lost"}, [], id="writes are lost"),
        pytest.param({1: "answer lost", 4: "answer lost"}, [], id="answers are lost"),
        pytest.param({2: "fenced", 6: "fenced"}, [], id="another worker"),
        pytest.param({2: "answer lost", 3: "fenced", 5: "lost"}, [2, 6], id="all of it"),
        pytest.param({12: "fenced"}, [], id="the very last, with nothing behind it"),
    ],
)
async def test_each_message_is_committed_once(
    devices: Devices, tmp_path: Path, faults: dict[int, str], lost_after: list[int]
) -> None:
    """Whatever ends a life, the next goes on from the committed position; nothing is acknowledged before its commit."""
    source = Script(SystemClock().now(), lost_after)
    walk = Walk(Faulty(faults), source, devices, tmp_path)

    async def proved(sequence: int) -> None:
        assert await walk.position() >= sequence

    source.on_ack = proved
    await walk.until_done()
    assert await walk.committed() == list(range(1, COUNT + 1))
    lives = 1 + len(lost_after) + list(faults.values()).count("fenced")
    assert len(source.started) <= lives
    assert len(source.started) > 1 or lives == 1
    assert source.started == sorted(source.started)


@pytest.mark.parametrize("where", ["sensegate.persist.commit.commit_ledger", "sensegate.ingest.pipeline.removed_of"])
async def test_a_bug_behind_the_decoding_costs_one_message(
    devices: Devices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The message that meets it goes to quarantine with the traceback; all others are committed once, in order."""
    module, _, name = where.rpartition(".")
    plain = getattr(sys.modules[module], name)

    def met(piece: Any, *more: Any) -> Any:
        span, read = (piece.messages, len(piece.readings)) if name == "commit_ledger" else (piece, 1)
        if read and any(b'air_temperature": 3.3}' in message.payload for message in span) and met_at["count"] < 9:
            met_at["count"] += 1
            if not quarantined(piece):
                raise ZeroDivisionError("a bug")
        return plain(piece, *more)

    def quarantined(piece: Any) -> bool:
        return bool(walk.ingest._poison._known)

    met_at = {"count": 0}
    source = Script(SystemClock().now())
    walk = Walk(Faulty({}), source, devices, tmp_path)
    monkeypatch.setattr(sys.modules[module], name, met)
    await walk.until_done()
    assert await walk.committed() == [n for n in range(1, COUNT + 1) if n != 33]
    kept = [
        stored
        for entry in await walk.log.fetch(0, limit=10_000)
        if entry.subject.startswith("quarantine.")
        for stored in raw.decode_quarantined(entry.payload)
    ]
    assert [(stored.message.sequence, stored.reason) for stored in kept] == [(33, "crashed")]
    assert "ZeroDivisionError" in kept[0].detail
    assert source.started == [0, 30, 30]


@pytest.mark.parametrize("why", [Unavailable("away"), Fenced("another"), StoreFull("no room"), Overloaded("many")])
async def test_a_part_without_a_connection_or_room_begins_again(why: Exception) -> None:
    """It ends nothing else: what comes by the other parts goes on."""
    tried: list[int] = []
    resumed = asyncio.Event()

    async def work() -> None:
        tried.append(1)
        if len(tried) < 3:
            raise why
        resumed.set()
        await asyncio.Event().wait()

    clock = FakeClock()
    running = asyncio.create_task(flow.supervised("a part", work, clock))
    while not resumed.is_set():
        assert not running.done()
        await asyncio.sleep(0)
        await clock.advance(0.5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_trouble_is_said_while_there_is_some(devices: Devices, tmp_path: Path) -> None:
    """`starting` before the first life, the cause between two, nothing while all is well."""
    source = Script(SystemClock().now(), [2])
    walk = Walk(Faulty({}), source, devices, tmp_path)
    assert walk.ingest.trouble == "starting"
    results: set[str] = set()
    walking = asyncio.create_task(walk.ingest.run())

    def done() -> bool:
        results.add(walk.ingest.trouble)
        return source.acknowledged == COUNT

    await eventually(done, every_s=0.002)
    walking.cancel()
    await asyncio.gather(walking, return_exceptions=True)
    assert walk.ingest.trouble == ""
    assert any("as the script says" in trouble for trouble in results)


# ── a whole node ────────────────────────────────────────────────────────────────────────────────────────


def send(phone: Phone, device: Made, number: int) -> int:
    """Send a reading of this value; return its packet id."""
    return phone.send(f"sg/{device.id}/up", reading(number, f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"))


@pytest.mark.live
async def test_the_first_token(tmp_path: Path) -> None:
    """One is made at the first start, or the one laid there is taken; the next start keeps it."""
    given = make_text()
    for name, laid in (("made", ""), ("given", given)):
        directory = tmp_path / name
        directory.mkdir()
        if laid:
            (directory / "admin.token").write_text(laid + "\n", encoding="ascii")
        texts = set()
        for _ in range(2):
            async with running(config_of(directory)) as site:
                assert (await site.ask("GET", "/api/v1/me")).body["role"] == "admin"
                texts.add(site.admin)
                rows = (await site.ask("GET", "/api/v1/tokens")).body["rows"]
                assert [row["role"] for row in rows] == ["admin"], "the auditor's is for auditors"
                auditor = (directory / "auditor.token").read_text().strip()
                assert (await site.ask("GET", "/api/v1/me", auditor)).body["role"] == "auditor"
                assert len((await site.ask("GET", "/api/v1/tokens", auditor)).body["rows"]) == 1
        assert len(texts) == 1
        assert not laid or texts == {laid}
        for role in ("admin", "auditor"):
            assert (directory / f"{role}.token").stat().st_mode & 0o077 == 0


@pytest.mark.live
async def test_run_json_follows_the_engine(tmp_path: Path) -> None:
    """It says where the node is reached, and after a kill of the engine its new process; the node is ready again."""
    async with running(config_of(tmp_path / "node")) as site, site.phone() as phone, site.phone() as reconnected:
        file = tmp_path / "node" / "run.json"

        def written() -> GatewayAddresses:
            return msgspec.json.decode(file.read_bytes(), type=GatewayAddresses)

        assert written() == site.addresses
        assert written().pid == os.getpid()
        device = await site.device("killed-under")
        assert await phone.connect(device.id, device.password, clean=False) == 0
        sent = {send(phone, device, number): number for number in range(100)}
        await eventually(lambda: len(phone.acknowledged) > 20, every_s=0.001)
        os.kill(site.addresses.engine_pid, signal.SIGKILL)
        await eventually(lambda: written().engine_pid != site.addresses.engine_pid)
        assert msgspec.structs.replace(written(), engine_pid=0) == msgspec.structs.replace(site.addresses, engine_pid=0)

        async def ready() -> bool:
            return (await site.ready())[0] == 200

        await eventually(ready)
        # The device stays connected to its front, which stores what it could not when the server is back.
        await eventually(lambda: len(phone.acknowledged) == len(sent))
        acknowledged = {sent[mid] for mid in phone.acknowledged}
        assert await reconnected.connect(device.id, device.password) == 0
        await reconnected.publish(f"sg/{device.id}/up", reading(555, "2026-01-01T01:00:00Z"))

        async def there() -> bool:
            return {*acknowledged, 555} <= set(await numbers(site, device))

        await eventually(there)
        values = await numbers(site, device)
        assert len(values) == len(set(values))


@pytest.mark.live
async def test_an_orderly_stop_under_load(tmp_path: Path) -> None:
    """What was acknowledged before the stop is committed once, by this life or the next; the engine is gone with it."""
    config = config_of(tmp_path / "node")
    async with running(config) as site, site.phone() as phone:
        device = await site.device("stopped-under")
        assert await phone.connect(device.id, device.password, clean=False) == 0
        sent = {send(phone, device, number): number for number in range(900)}
        await eventually(lambda: len(phone.acknowledged) > 300, every_s=0.001)
        site.task.cancel()
        await eventually(site.task.done)
        assert not Path(f"/proc/{site.addresses.engine_pid}").exists()
        acknowledged = {sent[mid] for mid in phone.acknowledged}
    async with running(config) as site:

        async def there() -> bool:
            return acknowledged <= set(await numbers(site, device))

        await eventually(there)
        values = await numbers(site, device)
        assert len(values) == len(set(values))
        await site.totals()


@pytest.mark.live
async def test_a_second_gateway_on_one_store_is_refused(tmp_path: Path) -> None:
    """It says so at once, and the first goes on."""
    async with running(config_of(tmp_path / "node")) as site:
        with pytest.raises(Exception, match="another gateway uses this directory"):
            await flow.run(config_of(tmp_path / "node"))
        device = await site.device("undisturbed")
        assert (await site.push(device, reading(1))).status == 202


@pytest.mark.parametrize("part", ["uplink", "external"])
async def test_a_secret_that_is_not_there_is_said_before_anything_starts(tmp_path: Path, part: str) -> None:
    """One error with the file's name, not a gateway that is up and then falls over."""
    gone = str(tmp_path / "gone.secret")
    config = config_of(tmp_path / "node")
    if part == "uplink":
        config = msgspec.structs.replace(config, uplink=UplinkConfig(url="nats://127.0.0.1:1", secret_file=gone))
    else:
        config = msgspec.structs.replace(
            config, external_brokers=(ExternalBrokerConfig(name="v", host="h", password_file=gone),)
        )
    with pytest.raises(ConfigError, match=re.escape(gone)):
        await flow.run(config)
    assert not (tmp_path / "node").exists()
