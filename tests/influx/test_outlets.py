"""A feed that is written into a store by line protocol: nothing lost, nothing doubled, through every failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.bus.free_ports import free_port
from sensegate.clock import FakeClock
from sensegate.config import Config
from sensegate.config.influx import InfluxConfig, InfluxOutletConfig
from sensegate.influx.outlets import Outlets
from sensegate.influx.transport import InfluxTransport
from sensegate.share.subscriptions import CommittedOffset
from sensegate.share.transports.contract import OutboundDelivery
from tests.conftest import eventually
from tests.influx.store import BINARY, Sample, victoria_metrics
from tests.live.granting import granted
from tests.live.site import Site, config_of, reading, running

BEGIN = time.time() // 60 * 60 - 3_600


CORRECTIONS = {"withdrawn": "withdrawn", "corrected": "annotated"}
"""Flag of a record -> tag of its line."""


def instant(number: float) -> str:
    """Return a time in the last hour, with milliseconds."""
    return datetime.fromtimestamp(BEGIN + number + 0.25, UTC).isoformat()


def outlet(url: str, subscriber: str, **more: Any) -> InfluxConfig:
    """Return the configuration of one outlet."""
    return InfluxConfig(
        outlets=(InfluxOutletConfig(name="store", url=url, subscriber=subscriber, feed="out", batch_records=7, **more),)
    )


async def expected(site: Site) -> list[Sample]:
    """Return what the store must hold: the feed; of texts VictoriaMetrics keeps the time, as 0."""
    answer = await site.ask("GET", "/api/v1/feeds/all/records?limit=10000")
    return sorted(
        (
            record["device"],
            record["property"],
            record.get("channel", ""),
            str(record["revision"]),
            next((word for flag, word in CORRECTIONS.items() if flag in record["flags"]), ""),
            round(datetime.fromisoformat(record["time"]).timestamp() * 1_000),
            0.0 if isinstance(record["value"], str) else float(record["value"]),
        )
        for record in answer.body["records"]
    )


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.skipif(not BINARY, reason="VictoriaMetrics is not installed")
async def test_a_store_equals_the_feed(tmp_path: Path) -> None:
    """Late readings, texts and truth values beside numbers; a restart of the gateway, a store that was away."""
    port = free_port()
    config: Config = config_of(tmp_path / "node")
    async with running(config) as site:
        grant = await granted(site, "out")
        device = await site.device("gz-1")
        for number in range(10):
            assert (await site.push(device, reading(20 + number / 8, instant(60 * number)))).status == 202
    config = replace(config, influx=outlet(f"http://127.0.0.1:{port}", grant.token_id))
    (tmp_path / "vm").mkdir()
    async with running(config) as site:
        # Nobody is there yet: it waits, and says so.
        async def warned() -> bool:
            return any("outlet store: the store does not answer" in text for text in (await site.ready())[1])

        await eventually(warned)
        async with victoria_metrics(tmp_path / "vm", port) as store:
            late = '{"time": "%s", "values": {"air_temperature": 7.5, "cover_open": true, "state": "ready"}}'
            assert (await site.push(device, late % instant(5))).status == 202

            async def equal() -> bool:
                return await store.samples() == await expected(site)

            await eventually(equal)
            assert len(await expected(site)) == 13
            for action, first, last in (("withdraw", 0, 120), ("annotate", 120, 240)):
                order = {
                    "action": action,
                    "devices": ["gz-1"],
                    "properties": ["air_temperature"],
                    "begin": instant(first - 0.25),
                    "end": instant(last - 0.25),
                    "note": "calibration",
                    **({"quality": "uncertain_calibration"} if action == "annotate" else {}),
                }
                answer = await site.ask("POST", "/api/v1/corrections", json=order)
                assert answer.status == 202, answer.body
            await eventually(lambda: _revised(site, {"withdrawn": 3, "annotated": 2}))
            await eventually(equal)
            usage = (await site.ask("GET", f"/api/v1/grants/{grant.id}/usage")).body["rows"]
            assert [(row["delivery"], row["records"]) for row in usage] == [("influx", 18)]
    # The store is killed and comes again; so does the gateway: it goes on at its cursor.
    async with running(config) as site:
        assert (await site.push(device, reading(30, instant(3_000)))).status == 202
        async with victoria_metrics(tmp_path / "vm", port) as store:

            async def goes_on() -> bool:
                return await store.samples() == await expected(site)

            await eventually(goes_on)
            usage = (await site.ask("GET", f"/api/v1/grants/{grant.id}/usage")).body["rows"]
            assert sum(row["records"] for row in usage if row["delivery"] == "influx") == 19


async def _revised(site: Site, wanted: dict[str, int]) -> bool:
    """Return whether the feed has so many revisions by each kind of correction."""
    kinds = [sample[4] for sample in await expected(site) if sample[4]]
    return {kind: kinds.count(kind) for kind in kinds} == wanted


class _Requests:
    """Answers of a made-up store, in turn; 204 when they are used up."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.queries: list[dict[str, str]] = []
        self.authorization: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.queries.append({**request.query})
        self.authorization.append(request.headers.get("Authorization", ""))
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        return web.Response(status=status, headers=headers)


@pytest.fixture
async def made_up(request: pytest.FixtureRequest) -> AsyncIterator[tuple[_Requests, str]]:
    """A store that answers as the parameter says."""
    requests = _Requests(*getattr(request, "param", ()))
    app = web.Application()
    app.router.add_post("/api/v2/write", requests.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield requests, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def delivery(url: str) -> OutboundDelivery:
    """Return a delivery of two lines."""
    return OutboundDelivery(target=url, id="msg_1", body=b"reading,device=d a=1 5\nreading,device=d a=2 6\n", media="")


@pytest.mark.parametrize("made_up", [((429, {"Retry-After": "7"}), (503, {}), (401, {}), (413, {}))], indirect=True)
async def test_what_a_store_answers(made_up: tuple[_Requests, str]) -> None:
    """A limit is waited for as it says, an error keeps the cursor, too much is halved; then all of it is taken."""
    requests, url = made_up
    config = InfluxOutletConfig(name="s", url=url, subscriber="t", org="city", bucket="air")
    transport = InfluxTransport(config, "secret")
    try:
        results = [await transport.send(delivery(url)) for _ in range(5)]
    finally:
        await asyncio.to_thread(transport.close)
    assert [(result.accepted, result.unavailable, result.too_large) for result in results] == [
        (False, True, False),
        (False, True, False),
        (False, True, False),
        (False, False, True),
        (True, False, False),
    ]
    assert results[0].retry_after_s == 7
    assert results[2].retry_after_s > results[1].retry_after_s
    assert requests.queries[-1] == {"org": "city", "bucket": "air", "precision": "us"}
    assert requests.authorization[-1] == "Token secret"
    # The bytes are those of the feed, with or without the end of the last line.
    assert requests.bodies[-1].splitlines() == delivery(url).body.splitlines()


async def test_a_store_that_is_away() -> None:
    """It is told in a sentence without its address or ours, and asked again."""
    url = f"http://127.0.0.1:{free_port()}"
    transport = InfluxTransport(InfluxOutletConfig(name="s", url=url, subscriber="t", timeout_s=1), "")
    result = await transport.send(delivery(url))
    await asyncio.to_thread(transport.close)
    assert (result.accepted, result.unavailable) == (False, True)
    assert transport.problem == result.reason
    assert "does not answer" in result.reason


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"name": "A b"}, "no short name"), ({"url": "vm:8428"}, "no address|not an address")],
)
def test_a_bad_outlet_is_refused(change: dict[str, str], problem: str) -> None:
    """With the key and what to give."""
    options: Any = {"name": "a", "url": "http://x", "subscriber": "t", **change}
    with pytest.raises(ValueError, match=problem):
        InfluxOutletConfig(**options)
    same = InfluxOutletConfig(name="a", url="http://x", subscriber="t")
    with pytest.raises(ValueError, match="occurs twice"):
        InfluxConfig(outlets=(same, same))


async def test_the_offset_of_a_removed_outlet_is_forgotten() -> None:
    """An outlet of the same name later starts as a new one; offsets of others stay."""
    store = RecordStore(MemoryBucket(), FakeClock())
    offsets: RecordTable[CommittedOffset] = RecordTable(store, "offset", CommittedOffset)
    await store.open()
    for name in ("outlet-here", "outlet-gone", "w0123456789abcdef"):
        await offsets.put(name, CommittedOffset(after="x"), expected=0)
    push: Any = SimpleNamespace(offsets=offsets)
    configured = InfluxOutletConfig(name="here", url="http://127.0.0.1:1", subscriber="t")
    await Outlets((configured,), push, str).forget_removed()
    assert sorted(offsets.names()) == ["outlet-here", "w0123456789abcdef"]
