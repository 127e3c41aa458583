from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from rich.console import Console

from sensegate.bus.free_ports import free_port
from sensegate.demo import setup
from sensegate.demo.faults import FAULTS, ExpectedOutcome
from sensegate.demo.mqtt import Publisher
from sensegate.demo.processes import processes_of
from sensegate.demo.run import run_demo
from sensegate.demo.setup import Options

pytestmark = [pytest.mark.live, pytest.mark.slow]

DEADLINE_S = 300.0
DEMO = [sys.executable, "-m", "sensegate.cli", "demo"]
FEW_PROFILES = [
    sys.executable,
    "-c",
    "from sensegate.cli import main; from sensegate.demo import run, setup; setup.MANY_NODES = 0; main()",
    "demo",
]
"""The same command; its gateways load the profiles of their devices alone, as with many nodes: the whole library costs
each seconds of CPU. `tests/package/test_wheel.py` and `make soak` run it with the library."""
SHORT = DEMO if "SENSEGATE_SOAK" in os.environ else FEW_PROFILES
KEYS = {
    "published", "acknowledged", "committed", "duplicates", "quarantined", "rejected", "forwarded", "withheld",
    "delivered", "injected", "lost", "doubled", "balanced", "latency_ms", "centre", "nodes", "tokens", "devices",
    "cameras", "feeds", "console",
}  # fmt: skip
CAMERA = frozenset(("id", "node", "username", "password", "viid", "onvif"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def until(condition: Callable[[], Any], timeout_s: float = DEADLINE_S) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (result := condition()):
            await asyncio.sleep(0.05)
    return result


def read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


async def test_a_timed_demo_accounts_for_everything(tmp_path: Path) -> None:
    """Exit 0, nothing lost or doubled, every injected fault counted under its name, nothing left behind."""
    path = tmp_path / "summary.json"
    arguments = ["--for", "10s", "--rate", "300", "--summary", str(path)]
    demo = await asyncio.create_subprocess_exec(
        *SHORT, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(demo.communicate(), DEADLINE_S)
    assert demo.returncode == 0, out.decode()
    assert b"Traceback" not in out, out.decode()
    summary = read(path)
    assert set(summary) >= KEYS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (summary["lost"], summary["doubled"], summary["balanced"]) == (0, 0, True)
    assert summary["published"] == summary["acknowledged"] > 2_000
    assert summary["recognised"], summary["unrecognised"]
    injected = summary["injected"]
    assert set(injected) == set(FAULTS)
    for kind in ("redelivery", "repeat", "cross_path", "conflict", "unchanged"):
        assert summary["duplicates"][kind] == injected[kind] > 0
    for outcome, counts in (
        (ExpectedOutcome.QUARANTINE, summary["quarantined"]),
        (ExpectedOutcome.REJECTION, summary["rejected"]),
    ):
        expected = {kind: injected[kind] for kind, fault in FAULTS.items() if fault.outcome is outcome}
        assert counts == expected
    for node in summary["nodes"]:
        assert node["committed"] == node["forwarded"] + node["withheld"]
        assert node["withheld"] > 0
    assert summary["delivered"] == summary["forwarded"]
    objects = summary["objects"]
    assert objects["acknowledged"] == objects["delivered"] + objects["duplicates"] + objects["refused"]
    assert min(objects["delivered"] // 50, objects["duplicates"], objects["refused"]) > 0
    assert {frozenset(item) for item in summary["cameras"]} == {CAMERA}
    assert not [pid for member in (summary["centre"], *summary["nodes"]) for pid in _pids(member) if alive(pid)]
    assert not Path(summary["directory"]).exists()


def _pids(member: dict[str, Any]) -> list[int]:
    return [pid for pid in (member["pid"], member["engine_pid"]) if pid]


class Tamperer:
    """A proxy before the centre's feed that removes one record and repeats another."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.done = False
        self.port = free_port()

    async def answer(self, request: web.Request) -> web.Response:
        headers = {"Authorization": request.headers["Authorization"], "Accept": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.target}{request.path_qs}", headers=headers) as response,
        ):
            page = await response.json(content_type=None)
            records = page.get("records", [])
            if not self.done and len(records) > 3 and response.status == 200:
                self.done = True
                records.pop(1)
                records.insert(2, records[1])
            return web.json_response(page, status=response.status)


@pytest.fixture
async def tamperer() -> AsyncIterator[Tamperer]:
    """Such a proxy before a port that is free."""
    proxy = Tamperer(f"http://127.0.0.1:{free_port()}")
    application = web.Application()
    application.router.add_get("/{rest:.*}", proxy.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", proxy.port).start()
    yield proxy
    await runner.cleanup()


async def test_two_records_tampered_with_fail_the_demo(
    tmp_path: Path, tamperer: Tamperer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record removed, another repeated between the centre and the judge: exit 1, and exactly one of each."""
    # As with many nodes, each loads the profiles of its devices alone; with the whole library it starts for longer.
    monkeypatch.setattr(setup, "MANY_NODES", 0)
    path = tmp_path / "summary.json"
    options = Options(
        for_s=4.0,
        nodes=1,
        devices=20,
        rate=100,
        summary=path,
        data=tmp_path / "city",
        cut=False,
        centre_http_port=int(tamperer.target.rpartition(":")[2]),
        judge_url=f"http://127.0.0.1:{tamperer.port}",
        deadline_s=10.0,
    )
    code = await run_demo(options, Console(quiet=True))
    summary = read(path)
    assert tamperer.done
    assert code == 1
    assert {name: summary[name] for name in ("lost", "doubled")} == {"lost": 1, "doubled": 1}
    assert not processes_of(tmp_path)


async def test_a_demo_survives_its_processes_and_leaves_nothing(tmp_path: Path) -> None:
    """Killed processes come back on the same ports, the summary's pids stay true; a reading by hand comes through."""
    path = tmp_path / "summary.json"
    options = ["--nodes", "1", "--devices", "20", "--rate", "50", "--summary", str(path), "--data", str(tmp_path / "d")]
    demo = await asyncio.create_subprocess_exec(
        *SHORT, *options, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        first = await until(lambda: read(path))
        node = first["nodes"][0]
        for killed in ("pid", "engine_pid"):
            before = read(path)["nodes"][0][killed]
            os.kill(before, signal.SIGKILL)
            await until(lambda key=killed, old=before: read(path)["nodes"][0][key] not in (0, old))  # type: ignore[misc]
        repeated = await until(lambda: _whole(read(path)))
        assert (repeated["nodes"][0]["http"], repeated["nodes"][0]["mqtt"]) == (node["http"], node["mqtt"])
        await by_hand(repeated)
    finally:
        demo.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(demo.wait(), DEADLINE_S) == 0
    assert not processes_of(tmp_path)


def _whole(summary: dict[str, Any]) -> dict[str, Any]:
    pids = [pid for member in (summary["centre"], *summary["nodes"]) for pid in (member["pid"], member["engine_pid"])]
    return summary if all(pid and alive(pid) for pid in pids) else {}


async def by_hand(summary: dict[str, Any]) -> None:
    """Publish on a device that the simulator leaves alone and read it at the centre."""
    device = summary["devices"][0]
    port = int(summary["nodes"][0]["mqtt"].rpartition(":")[2])
    acknowledged = asyncio.Event()
    async with asyncio.timeout(30):
        while True:
            try:
                publisher = await Publisher.connect(
                    "127.0.0.1",
                    port,
                    client_id=device["id"],
                    username=device["username"],
                    password=device["password"],
                    acknowledged=lambda _: acknowledged.set(),
                    lost=lambda: None,
                )
                break
            except Exception:  # noqa: BLE001 - the gateway may still be on its way up
                await asyncio.sleep(0.2)
        publisher.publish("", device["topic"].encode(), b'{"values":{"air_temperature":21.5}}')
        await acknowledged.wait()
        sent = time.monotonic()
        headers = {"Authorization": f"Bearer {summary['tokens']['subscriber']}"}
        url = f"{summary['centre']['http']}/api/v1/feeds/{summary['feeds'][0]}/records"
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                async with session.get(url, params={"device": device["id"], "wait": "5"}) as response:
                    records = (await response.json())["records"]
                if records:
                    break
    assert records[0]["value"] == 21.5
    assert time.monotonic() - sent < 60
    publisher.close()


@pytest.mark.skipif(
    "SENSEGATE_SOAK" not in os.environ, reason="`test_a_few_kills_lose_and_double_no_vehicle` is shorter"
)
async def test_cameras_survive_a_killed_node(tmp_path: Path) -> None:
    """A node is killed in the middle: cameras register again and send again, no object is lost or doubled."""
    path = tmp_path / "summary.json"
    options = ["--for", "12s", "--nodes", "1", "--devices", "12", "--rate", "20", "--no-cut", "--summary", str(path)]
    demo = await asyncio.create_subprocess_exec(
        *DEMO, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    await until(lambda: read(path).get("committed", 0) > 100)
    os.kill(read(path)["nodes"][0]["pid"], signal.SIGKILL)
    out, _ = await asyncio.wait_for(demo.communicate(), DEADLINE_S)
    assert demo.returncode == 0, out.decode()
    summary = read(path)
    objects = summary["objects"]
    assert (summary["lost"], summary["doubled"]) == (0, 0)
    assert objects["acknowledged"] == objects["delivered"] + objects["duplicates"] + objects["refused"] > 200
