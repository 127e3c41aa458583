"""A node is lost with its disk; one in its place has what the centre had, and what is missing is named exactly."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
import pytest

from sensegate.config import Config
from sensegate.demo.link import FaultyLink
from sensegate.tiers import gaps
from tests.conftest import eventually
from tests.live.joining import copied_since, invite, row, with_code
from tests.live.releasing import proposed, step, version_is
from tests.live.site import PLAIN, Made, Site, config_of, running
from tests.support.thermometer import THERMOMETER, write

pytestmark = pytest.mark.live


async def send(node: Site, device: Made, *numbers: int, seq: bool = True) -> None:
    """Push a message for each number, at its own minute."""
    for number in numbers:
        counted = f'"seq": {number}, ' if seq else ""
        text = f'{{{counted}"time": "2026-01-01T00:{number:02d}:00Z", "values": {{"air_temperature": {number}}}}}'
        assert (await node.push(device, text)).status == 202


async def heard(centre: Site, device: str) -> list[float]:
    return sorted(record["value"] for record in await centre.records(device=device))


class Lost(msgspec.Struct):
    """What is known of the node that was lost."""

    devices: list[Made]
    """Two that number their messages, one that does not."""
    reader: str
    admin: str


async def a_life_and_its_end(centre: Site, first: Config, folder: Path) -> Lost:
    """Run a node until what it acknowledged last can no longer be forwarded; its disk is gone then."""
    link = FaultyLink("127.0.0.1", int(centre.addresses.nats.rpartition(":")[2]))
    await link.start()
    uplink = msgspec.structs.replace(first.uplink, url=f"nats://127.0.0.1:{link.port}")
    async with running(msgspec.structs.replace(first, uplink=uplink)) as node:
        assert (folder / "join.code.used").exists()
        counted, late, plain = await node.device("gz-1"), await node.device("gz-3"), await node.device("gz-2")
        await proposed(node, 2)
        await step(node, "/versions/2/release")
        reader, _ = await node.token()
        changed = time.time_ns() // 1_000
        await node.token()  # one more change, so that a copy follows that moment, whatever was copied before it
        await send(node, counted, 1, 2, 3, 4, 5)
        await send(node, late, 1, 2, 3)
        await send(node, plain, 1, seq=False)
        await eventually(lambda: all_of(centre, 9))
        await eventually(lambda: copied_since(centre, changed), 90)
        await link.cut()
        await send(node, counted, 6, 7, 8, 9)
        await send(node, plain, 2, seq=False)
        lost = Lost([counted, late, plain], reader, node.admin)
    await link.stop()
    shutil.rmtree(first.directory)
    return lost


async def test_a_node_lost_with_its_disk(tmp_path: Path) -> None:
    """Registry, credentials, tokens and profiles come back, new data flow, the gap has its numbers."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    write(folder, THERMOMETER)

    def config(name: str, division: str = "4401") -> Config:
        return config_of(tmp_path / name, division, profiles=(str(folder), str(PLAIN)))

    async with running(config("centre", "44")) as centre:
        first = with_code(config("first"), centre, await invite(centre), tmp_path)
        lost = await a_life_and_its_end(centre, first, tmp_path)
        counted, late, plain = lost.devices
        second = with_code(config("second"), centre, await invite(centre, replace=True), tmp_path)
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "admin.token").write_text(lost.admin)
        async with running(second) as node:
            # What the centre had: devices with their credentials, tokens, the profile's version.
            rows = (await node.ask("GET", "/api/v1/devices")).body["rows"]
            assert {row["id"] for row in rows} == {"gz-1", "gz-2", "gz-3"}
            assert (await node.ask("GET", "/api/v1/me", lost.reader)).status == 200
            await eventually(lambda: version_is(node, 2))
            await send(node, counted, 10, 11)
            await send(node, late, 4, 5)
            await send(node, plain, 3, seq=False)
            await eventually(lambda: all_of(centre, 14))
            assert await heard(centre, "gz-1") == [1, 2, 3, 4, 5, 10, 11]
            assert await heard(centre, "gz-2") == [1, 3]
            assert len({record["id"] for record in await centre.records()}) == 14
            (gap,) = (await centre.ask("GET", "/api/v1/nodes/4401/gaps")).body["rows"]
            assert gap["since"] < gap["until"]
            assert gap["devices"] == [{"device": "gz-1", "runs": [[6, 9]], "count": 4, "restarted": False}]
            assert gap["missing"] == 4
            await eventually(lambda: generation_is(centre, 2))
            assert (await centre.totals())["accepted"] == 14


async def generation_is(centre: Site, number: int) -> bool:
    sums = await row(centre)
    return bool(sums.get("generation") == number and len(sums["gaps"]) == number - 1)


async def all_of(centre: Site, count: int) -> bool:
    return len(await centre.records()) == count


def test_the_parts_of_a_gap() -> None:
    """Holes only behind what came in order; all of them where the backlog was lost too; a counter that began anew."""
    missing = gaps.missing_messages

    before, after = {"d": [(1, 3), (5, 9)]}, {"d": [(12, 14), (16, 16)]}
    assert [name.runs for name in missing(before, after, whole=True)] == [[(10, 11), (15, 15)]]
    assert [name.runs for name in missing(before, after, whole=False)] == [[(4, 4), (10, 11), (15, 15)]]
    assert missing({"d": [(1, 9)]}, {"d": [(10, 12)]}, whole=True) == []
    assert missing({"d": [(1, 9)]}, {}, whole=True) == []
    (restarted,) = missing({"d": [(100, 109)]}, {"d": [(1, 4)]}, whole=True)
    assert (restarted.restarted, restarted.count) == (True, 0)
    # What the device sends again fills its hole.
    assert missing({"d": [(1, 9)]}, {"d": [(8, 12)]}, whole=True) == []
