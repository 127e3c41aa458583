"""Garbage on the log of a whole gateway: it starts, its feeds go on, what cannot be read is counted and named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from sensegate.bus.engine import User
from sensegate.bus.packing import encode_map
from sensegate.bus.slots import inbox_prefix
from sensegate.bus.unreadable import UNREADABLE
from sensegate.cli.doctor import alive
from tests.conftest import eventually
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = pytest.mark.live

ROWS = (
    "readings.4401.h6",
    "readings.44.440106.1",
    "readings.4401.all.2",
    "readings.4401.440106.x",
    "observations.4401.all.1",
    "observations.4401.h6",
    "observations.a.b.c.d.e",
)
OTHERS = (
    "raw.44-0",
    "seen.44-0",
    "quarantine.44-0",
    "quarantine.4401",
    "ledger.44-0",
    "ledger.4401",
    "carried.4401",
    "sequences.4401",
    "commit.4401.live",
    "commit.4401.backlog",
    "commit.4401-carried",
)
SUMS = ("hours.44.490000", "hours.44.x", "hours.44.490000.1", f"hours.44.{'9' * 200}", "hours.position")
PAYLOADS = (b"{}", b"", b"\x93" + b"\x91" * 50_000, encode_map({"rows": 1 << 24}), b'{"q":' + b"[" * 50_000)


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    """What other tests of this process met is not told here."""
    for entry in UNREADABLE.all():
        UNREADABLE.remove(entry.sequence)


async def written(site: Site, subjects: Mapping[str, bytes] | tuple[str, ...]) -> list[int]:
    """Write straight to the streams with the rights of the gateway itself; return the sequences."""
    kept = msgspec.json.decode((Path(site.config.directory) / "engine" / "engine.json").read_bytes())
    client = await nats.connect(
        site.addresses.nats,
        user=User.GATEWAY,
        password=kept["passwords"][User.GATEWAY],
        inbox_prefix=inbox_prefix(User.GATEWAY).encode(),
    )
    sequences = []
    try:
        pairs = (
            subjects.items()
            if isinstance(subjects, Mapping)
            else [(to, payload) for to in subjects for payload in PAYLOADS]
        )
        for subject, payload in pairs:
            answer = msgspec.json.decode((await client.request(subject, payload, timeout=30)).data)
            sequences.append(int(answer["seq"]))
    finally:
        await client.close()
    return sequences


async def committed(site: Site, device: Made, value: float) -> None:
    """Push a reading, and wait until the feed has it."""
    assert (await site.push(device, reading(value, f"2026-01-01T00:00:{int(value):02d}Z"))).status == 202

    async def has() -> bool:
        return value in [row["value"] for row in await site.records(device=device.id)]

    await eventually(has)


async def looked_at(site: Site) -> None:
    """Ask for every page that reads the log."""
    for path in ("quarantine", "ledger", "nodes", "quality"):
        answer = await site.ask("GET", f"/api/v1/{path}")
        assert answer.status == 200, (path, answer.body)


async def test_a_gateway_lives_with_garbage_of_every_kind(tmp_path: Path) -> None:
    """Its feed, stream, pages and restart go on; metric, readiness and doctor name what was passed over."""
    config = config_of(tmp_path / "centre", "44")
    async with running(config) as site:
        device = await site.device("met-1", "440106")
        subscriber, _ = await site.token(scope="44")
        await committed(site, device, 1)
        async with site.stream(subscriber) as stream:
            await written(site, (*ROWS, *OTHERS))
            await committed(site, device, 2)
            assert [(await stream.record())["value"] for _ in range(2)] == [1, 2]
            await looked_at(site)
        assert await site.metric('sensegate_log_unreadable_total{reader="feed"}') >= len(ROWS)
        assert await site.metric('sensegate_log_unreadable_total{reader="hourly ledgers"}') >= 2
        assert any("cannot be read" in sentence for sentence in (await site.ready())[1])
        result = await alive(config)
        assert any("cannot be read" in finding.detail for finding in result)
    async with running(config) as site:
        await committed(site, device, 3)
        await looked_at(site)
        values = sorted(row["value"] for row in await site.records(device=device.id))
        assert values == [1, 2, 3]


async def test_sums_that_cannot_be_read_stop_no_page(tmp_path: Path) -> None:
    """Garbage on the stream of hourly sums costs its own counts alone, through a restart."""
    config = config_of(tmp_path / "centre", "44")
    async with running(config) as site:
        device = await site.device("met-1", "440106")
        await committed(site, device, 1)
        await written(site, SUMS)
    async with running(config) as site:
        await looked_at(site)
        await committed(site, device, 2)
        await looked_at(site)


async def test_a_commit_record_that_cannot_be_read(tmp_path: Path) -> None:
    """Our own record is lost: sources begin anew, and what was committed before is known as duplicate."""
    config = config_of(tmp_path / "node")
    async with running(config) as site:
        device = await site.device("met-1", "440106")
        async with site.phone() as phone:
            assert await phone.connect(device.id, device.password) == 0
            for second in range(3):
                await phone.publish(device.topics[0], reading(second, f"2026-01-01T00:00:0{second}Z"))

        async def has(count: int) -> bool:
            return len(await site.records(device=device.id)) == count

        await eventually(lambda: has(3))
        await written(site, {"commit.4401-0": b"{}"})
    async with running(config) as site:
        async with site.phone() as phone:
            assert await phone.connect(device.id, device.password) == 0
            await phone.publish(device.topics[0], reading(7, "2026-01-01T00:00:07Z"))
        await eventually(lambda: _values(site, device, [0, 1, 2, 7]))


async def _values(site: Site, device: Made, wanted: list[float]) -> bool:
    return sorted(row["value"] for row in await site.records(device=device.id)) == wanted


async def test_an_entry_is_set_aside_and_restored(tmp_path: Path) -> None:
    """Set aside, no reader meets it any more, a copy is kept and the trail says who did it; commits are refused."""
    config = config_of(tmp_path / "centre", "44")
    async with running(config) as site:
        device = await site.device("met-1", "440106")
        await committed(site, device, 1)
        (sequence,) = await written(site, {"readings.4401.all.2": b"garbage"})

        async def rows() -> list[dict[str, Any]]:
            answer = await site.ask("GET", "/api/v1/log/unreadable")
            rows: list[dict[str, Any]] = answer.body["rows"]
            return rows

        async def met() -> bool:
            await site.records()
            return [(row["sequence"], row["state"]) for row in await rows()] == [(sequence, "unreadable")]

        await eventually(met)
        path = f"/api/v1/log/{sequence}/quarantine"
        subscriber, _ = await site.token(scope="44")
        assert (await site.ask("POST", path, subscriber, json={})).status == 403
        answer = await site.ask("POST", path, json={"note": "damaged"})
        assert answer.status == 200, answer.body
        assert [row["state"] for row in await rows()] == ["set_aside"]
        assert not any("cannot be read" in sentence for sentence in (await site.ready())[1])
        (copy,) = (Path(config.directory) / "set_aside").iterdir()
        assert copy.read_bytes() == b"garbage"
        assert copy.stat().st_mode & 0o077 == 0
        (commit,) = await written(site, {"commit.4401.live": b"{}"})
        assert (await site.ask("POST", f"/api/v1/log/{commit}/quarantine", json={})).status == 409
        assert (await site.ask("POST", f"/api/v1/log/{commit + 9}/quarantine", json={})).status == 404
        assert [row["action"] for row in await site.audit() if row["action"].startswith("log.")] == ["log.quarantine"]
    async with running(config) as site:
        await committed(site, device, 2)
        assert not [entry for entry in UNREADABLE.all() if entry.sequence == sequence]
        assert (await site.ask("DELETE", path)).status == 204
        await site.records()
        assert [row["state"] for row in await rows_of(site) if row["sequence"] == sequence] == ["unreadable"]


async def rows_of(site: Site) -> list[dict[str, Any]]:
    """Return the entries in question."""
    rows: list[dict[str, Any]] = (await site.ask("GET", "/api/v1/log/unreadable")).body["rows"]
    return rows
