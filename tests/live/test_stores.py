"""Full stores: devices are held back without a PUBACK, nothing acknowledged is lost, and all goes on with room."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from sensegate.bus import store_watch
from sensegate.config import DuplicateConfig, StoreConfig
from sensegate.persist.checkpoint_store import decode_manifest
from sensegate.persist.commit import Committer, PreparedBatch
from tests.conftest import eventually
from tests.live.phone import Phone
from tests.live.site import SMALL, Made, Site, config_of, running
from tests.support.small_disk import mounted

pytestmark = pytest.mark.live
BEGAN = int(time.time()) - 1_000
"""Recent enough that duplicates are judged: what a device sends again is judged by its time."""
MIB = 1024**2


def heavy(number: int, size: int) -> str:
    """Return a message whose value is its number, of about `size` bytes that do not compress well."""
    pad = secrets.token_hex(size // 2)
    return f'{{"time": {BEGAN + number}, "values": {{"air_temperature": {number / 10}}}, "pad": "{pad}"}}'


async def flood(phone: Phone, device: Made, first: int, count: int, size: int) -> dict[int, int]:
    """Send messages at QoS 1 without waiting; return packet id -> number."""
    return {phone.send(f"sg/{device.id}/up", heavy(number, size)): number for number in range(first, first + count)}


async def acknowledged_until_held(phone: Phone, device: Made, most: int) -> set[int]:
    """Send messages one by one until one gets no PUBACK; return the numbers of those that did."""
    done: set[int] = set()
    with contextlib.suppress(TimeoutError):
        for number in range(most):
            await phone.publish(f"sg/{device.id}/up", heavy(number, 40_000), 2.0)
            done.add(number)
    return done


async def insist(site: Site, device: Made, numbers: list[int]) -> None:
    """Send messages one by one; with a full store the server hangs up, then connect and send that one again."""
    left = list(numbers)
    while left:
        async with site.phone() as phone:
            assert await phone.connect(device.id, device.password, clean=False) == 0
            with contextlib.suppress(TimeoutError):
                while left:
                    await phone.publish(f"sg/{device.id}/up", heavy(left[0], 40_000), 2.0)
                    left.pop(0)


async def committed(site: Site, device: Made) -> list[int]:
    """Return the numbers of the readings in the feed."""
    return [round(row["value"] * 10) for row in await site.records(device=device.id)]


@pytest.mark.parametrize("part", ["", "jetstream/DEVICES/streams/$MQTT_msgs"])
async def test_an_older_copy_of_the_store(tmp_path: Path, part: str) -> None:
    """What a power cut leaves: new messages are taken and given once, so is what is sent again.

    A cursor goes on where the log is as it was; behind the end that was lost it is refused, and told where to go on.

    The broker numbers messages as it did those that were lost, or committed; the log has lost its end, the duplicate
    index has not.
    """
    directory = tmp_path / "node"
    config = msgspec.structs.replace(config_of(directory), duplicates=DuplicateConfig(checkpoint_s=0.01))
    store, copy = directory / "engine" / "store" / part, tmp_path / "copy"
    began = int(time.time()) - 60

    async def send(site: Site, device: Made, numbers: range) -> None:
        async with site.phone() as phone:
            assert await phone.connect(device.id, device.password) == 0
            for number in numbers:
                text = f'{{"time": {began + number}, "values": {{"air_temperature": {number / 10}}}}}'
                await phone.publish(f"sg/{device.id}/up", text)

        async def there() -> bool:
            return set(numbers) <= set(await committed(site, device))

        await eventually(there)

    async with running(config) as site:
        device = await site.device("older")
        await send(site, device, range(5))
    await asyncio.to_thread(shutil.copytree, store, copy)
    async with running(config) as site:
        for first in (5, 8, 11):
            await send(site, device, range(first, first + 4))
        after = (await site.ask("GET", "/api/v1/feeds/all/records", params={"limit": "5000"})).body["next"]
    reached = decode_manifest((directory / "duplicates" / "manifest").read_bytes()).sequence
    await asyncio.to_thread(shutil.rmtree, store)
    await asyncio.to_thread(copy.rename, store)
    async with running(config) as site:
        await send(site, device, range(10, 20))
        kept, new = (range(15), range(15, 20)) if part else (range(5), range(10, 20))
        assert sorted(await committed(site, device)) == [*kept, *new]
        results = {"after": after, "limit": "5000"}
        if not part:
            gone = await site.ask("GET", "/api/v1/feeds/all/records", params=results)
            assert gone.status == 410
            after = gone.body["first"]
        rows = await site.records(device=device.id, after=after)
        assert sorted(round(row["value"] * 10) for row in rows) == [*new]
        assert all(int(row["id"].split("-")[2]) > reached for row in rows)
        totals = await site.totals()
        # The books are of the older copy, too.
        assert (totals["messages"], totals["accepted"]) == ((27, 20) if part else (15, 15))


async def test_a_full_intake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With commits held, a full store gives no PUBACK; what was acknowledged is committed once they go on.

    What was not acknowledged the device sends again, as MQTT has it, and that is committed once too.
    """
    held, real = asyncio.Event(), Committer.write

    async def write(self: Committer, pending: PreparedBatch) -> object:
        await held.wait()
        return await real(self, pending)

    monkeypatch.setattr(Committer, "write", write)
    store = msgspec.structs.replace(SMALL, intake_bytes=MIB)
    async with running(config_of(tmp_path / "node", store=store)) as site, site.phone() as phone:
        device = await site.device("held-back")
        assert await phone.connect(device.id, device.password, clean=False) == 0
        acknowledged = await acknowledged_until_held(phone, device, 60)
        assert phone.connected, "a device waits for its PUBACK; it is not sent away"
        assert 10 < len(acknowledged) < 30, "1 MiB holds about 25 messages of 40 kB"
        assert await committed(site, device) == []
        held.set()

        async def drained() -> bool:
            return acknowledged <= set(await committed(site, device))

        await eventually(drained)
        await insist(site, device, [number for number in range(60) if number not in acknowledged])

        async def complete() -> bool:
            return len(await committed(site, device)) >= 60

        await eventually(complete)
        assert sorted(await committed(site, device)) == list(range(60))
        assert (await site.ready())[0] == 200


async def test_a_disk_full_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room again the gateway goes on by itself; what was acknowledged is there once, the ledger balances.

    The server's log is on the same disk and says nothing of it.
    """
    monkeypatch.setattr(store_watch, "PERIOD_S", 0.2)
    monkeypatch.setattr(store_watch, "PATIENCE_S", 0.5)
    acknowledged: set[int] = set()
    with mounted(tmp_path / "disk") as disk:
        config = config_of(disk.path / "node", store=msgspec.structs.replace(SMALL, disk_reserve_bytes=2 * MIB))
        disk.log = Path(config.directory) / "engine" / "nats.log"
        async with running(config) as site:
            device = await site.device("persistent")

            async def send(numbers: range) -> bool:
                async with site.phone() as phone:
                    with contextlib.suppress(TimeoutError, OSError):
                        async with asyncio.timeout(1.0):
                            refused = await phone.connect(device.id, device.password)
                        for number in () if refused else numbers:
                            await phone.publish(f"sg/{device.id}/up", heavy(number, 4_000), 1.0)
                            acknowledged.add(number)
                return set(numbers) <= acknowledged

            assert await send(range(10))
            for turn in range(1, 4):
                with disk.full():
                    assert not await send(range(100 * turn, 100 * turn + 10))
            await eventually(lambda: send(range(1_000, 1_010)), 30)

            async def there() -> bool:
                return acknowledged <= set(await committed(site, device))

            await eventually(there, 30)
            numbers = await committed(site, device)
            assert len(numbers) == len(set(numbers))
            await site.totals()

            async def ready() -> bool:
                return (await site.ready())[0] == 200

            await eventually(ready)


async def test_a_full_log(tmp_path: Path) -> None:
    """Commits stop, /readyz says why, feeds are served on; with room, all that was acknowledged is committed once."""
    config = config_of(tmp_path / "node", store=msgspec.structs.replace(SMALL, log_bytes=MIB))
    acknowledged: set[int] = set()
    async with running(config) as site, site.phone() as phone:
        device = await site.device("full-log")
        assert await phone.connect(device.id, device.password, clean=False) == 0
        sent: dict[int, int] = {}

        async def full() -> bool:
            if await site.metric('sensegate_limit_hits_total{limit="log_full"}') > before:
                return True
            sent.update(await flood(phone, device, len(sent), 4, 40_000))
            return False

        before = await site.metric('sensegate_limit_hits_total{limit="log_full"}')
        await eventually(full, 30)
        sent.update(await flood(phone, device, len(sent), 4, 40_000))
        await eventually(lambda: len(phone.acknowledged) == len(sent))
        acknowledged = {sent[mid] for mid in phone.acknowledged}
        there = set(await committed(site, device))
        assert there < acknowledged, "the control: some wait for room"
        status, reasons = await site.ready()
        assert status == 503
        assert any("full" in reason for reason in reasons), reasons
        assert (await site.device("still-registered")).password
    roomy = msgspec.structs.replace(config, store=StoreConfig(**msgspec.structs.asdict(SMALL)))
    async with running(roomy) as site:

        async def all_there() -> bool:
            return acknowledged <= set(await committed(site, device))

        await eventually(all_there, 30)
        numbers = await committed(site, device)
        assert sorted(numbers) == sorted(acknowledged)
        assert (await site.ready())[0] == 200
        await site.totals()
