"""Three gateways in a row by GA/T 1400, the middle one a process that may be killed; objects counted at the top.

``python -m tests.live.cascade 10000`` passes so many through three kills of the middle one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import structs

from sensegate.bus.addresses import GatewayAddresses
from sensegate.bus.free_ports import free_port
from sensegate.clock import SystemClock
from sensegate.config import Config, EngineConfig, ListenConfig, MqttConfig, WebConfig
from sensegate.config.viid import ViidConfig, ViidSubordinateConfig, ViidSuperiorConfig
from sensegate.video.formats.viid_responses import format_beijing
from sensegate.viid.client import ViidClient
from tests.conftest import eventually
from tests.live.site import PLAIN, Site, config_of, running

VIID = PLAIN.parent / "viid.yaml"
LOW, MIDDLE, TOP = "44010000005030000001", "44000000005030000002", "44000000005030000003"
CAMERA = "44010600001190000001"
NOW = SystemClock().now() - 3_600_000_000
PLATE = "粤B12345"


def vehicle(number: int, camera: str = CAMERA) -> dict[str, Any]:
    """Return one object; all are different, some within the same second."""
    local = format_beijing(NOW + number // 50 * 1_000_000)
    source = f"{camera}02{local}{number % 100_000:05d}"
    return {
        "MotorVehicleID": f"{source}02{number % 100_000:05d}",
        "DeviceID": camera,
        "PassTime": local,
        "PlateNo": f"{PLATE}{number}",
        "VehicleClass": "K33",
        "VehicleColor": "1",
        "Speed": str(number % 120),
        "LaneNo": number % 4 + 1,
    }


class Middle:
    """The gateway in the middle, as a process."""

    def __init__(self, config: Config, directory: Path, http: aiohttp.ClientSession) -> None:
        self.config = config
        self._file = directory / "middle.yaml"
        self._file.write_bytes(msgspec.yaml.encode(config))
        self._http = http
        self._kept = Path(config.directory) / "run.json"
        self.kills = 0

    async def start(self) -> Site:
        """Start it; return it as a site."""
        self._kept.unlink(missing_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sensegate.cli", "run", str(self._file)
        )
        await eventually(self._kept.exists, 60)
        run = msgspec.json.decode(self._kept.read_bytes(), type=GatewayAddresses)
        admin = (Path(self.config.directory) / "admin.token").read_text().strip()
        return Site(self.config, run, self._http, admin)

    async def kill(self) -> None:
        """Kill it as a crash would, and start it again."""
        self.process.kill()
        await self.process.wait()
        self.kills += 1
        await self.start()

    async def stop(self) -> None:
        """Stop it in order."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), 60)


class Row:
    """All three, and the camera at the bottom."""

    low: Site
    top: Site
    middle: Middle
    middle_site: Site
    camera: ViidClient

    async def send(self, first: int, until: int, *, batch: int = 50) -> None:
        """Send objects as the camera; each is answered as taken."""
        for start in range(first, until, batch):
            objects = [vehicle(number) for number in range(start, min(start + batch, until))]
            tree = {"MotorVehicleListObject": {"MotorVehicleObject": objects}}
            statuses = await self.camera.send("POST", "/VIID/MotorVehicles", tree)
            assert [status.code for status in statuses] == [0] * len(objects), statuses

    async def arrived(self) -> Counter[str]:
        """Return how often each object's id came out of the feed at the top."""
        results: Counter[str] = Counter()
        for record in await self.top.records():
            if record["property"] == "video_observation":
                results[json.loads(record["value"])["native_id"]] += 1
        return results

    async def until(self, count: int, timeout_s: float = 60.0) -> Counter[str]:
        """Return what arrived when so many different ones have."""

        async def there() -> bool:
            return len(await self.arrived()) >= count

        await eventually(there, timeout_s)
        return await self.arrived()


@contextlib.asynccontextmanager
async def row(directory: Path) -> AsyncIterator[Row]:
    """Start the three, the top first; each subscribes to the one below it."""
    ports = {name: free_port() for name in ("low", "middle", "top", "http", "nats", "mqtt")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    profiles = (str(PLAIN), str(VIID))

    def below(code: str, name: str) -> tuple[ViidSubordinateConfig, ...]:
        return (ViidSubordinateConfig(device=code, url=urls[name], report_interval_s=0),)

    def above(name: str, code: str, password: str) -> tuple[ViidSuperiorConfig, ...]:
        file = directory / f"password of {name}"
        file.write_text(password)
        return (
            ViidSuperiorConfig(
                name=name, url=urls[name], server_id=code, password_file=str(file), backoff_max_s=0.5, keepalive_s=5.0
            ),
        )

    made = Row()
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        top = config_of(directory / "top", "44", profiles=profiles)
        top = structs.replace(
            top, viid=ViidConfig(server_id=TOP, port=ports["top"], subordinates=below(MIDDLE, "middle"))
        )
        made.top = await stack.enter_async_context(running(top))
        password = (await made.top.device(MIDDLE, "44", profile="sensegate/viid")).password
        middle = structs.replace(
            config_of(directory / "middle", "44", profiles=profiles),
            engine=EngineConfig(port=ports["nats"]),
            listen=ListenConfig(mqtt=MqttConfig(port=ports["mqtt"], processes=0)),
            web=WebConfig(port=ports["http"]),
            viid=ViidConfig(
                server_id=MIDDLE,
                port=ports["middle"],
                subordinates=below(LOW, "low"),
                superiors=above("top", TOP, password),
            ),
        )
        made.middle = Middle(middle, directory, http)
        stack.push_async_callback(made.middle.stop)
        made.middle_site = await made.middle.start()
        password = (await made.middle_site.device(LOW, "4401", profile="sensegate/viid")).password
        low = structs.replace(
            config_of(directory / "low", "4401", profiles=profiles),
            viid=ViidConfig(server_id=LOW, port=ports["low"], superiors=above("middle", MIDDLE, password)),
        )
        made.low = await stack.enter_async_context(running(low))
        camera = await made.low.device(CAMERA, profile="sensegate/viid")
        made.camera = ViidClient(made.low.addresses.viid, CAMERA, password=camera.password)
        stack.push_async_callback(made.camera.close)
        await made.camera.register()

        async def subscribed() -> bool:
            body = (await made.middle_site.ask("GET", "/api/v1/viid")).body
            there = (await made.top.ask("GET", "/api/v1/viid")).body
            return bool(body["subordinates"][0]["in_force"] and there["subordinates"][0]["in_force"])

        await eventually(subscribed, 30)
        yield made


async def main(count: int) -> None:
    """Pass objects through kills of the middle one and print what became of them."""
    with tempfile.TemporaryDirectory(prefix="cascade-") as folder:
        async with row(Path(folder)) as made:
            began = time.monotonic()

            async def kills() -> None:
                for part in (1, 2, 3):
                    while len(await made.arrived()) < count * part // 4:
                        await asyncio.sleep(0.5)
                    await made.middle.kill()

            killing = asyncio.create_task(kills())
            await made.send(0, count)
            records = await made.until(count, 600.0)
            await killing
            records = await made.until(count, 600.0)
            lost = count - len(records)
            doubled = sum(times - 1 for times in records.values())
            seconds = time.monotonic() - began
            text = f"{count} objects, {made.middle.kills} kills of the middle one"
            print(f"{text}: {lost} lost, {doubled} doubled, {seconds:.1f} s")
            if lost or doubled:
                sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
