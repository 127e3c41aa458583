"""Cameras that push GA/T 1400 as fast as they are answered, as a process of its own: `python -m tests.bench.cameras`.

It reads a plan from standard input, writes a line when all have a connection, waits for one, then registers each camera
with a digest and posts its batches, one after the other; the last line tells when it began and ended and what became
of the objects.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from types import TracebackType
from typing import Self

import msgspec
import uvloop

from sensegate.demo.viid_camera import ViidCamera

CITY = "44010600"
LINE_BYTES = 64 * 1024**2


class Pushing(msgspec.Struct, frozen=True):
    """Who pushes how much to where."""

    host: str
    port: int
    passwords: dict[str, str]
    requests: int
    """Of each camera."""
    batch: int


class Done(msgspec.Struct, frozen=True):
    """What became of it."""

    began: float
    """Monotonic, as all processes of a machine have it."""
    ended: float
    accepted: int
    other: int


def code(number: int) -> str:
    """Return a camera's code of GB/T 28181."""
    return f"{CITY}00119{0}{number:06d}"


def body(camera: str, first: int, batch: int) -> bytes:
    """Return a request with motor vehicles, as a camera of a crossing sends them."""
    local = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + 8 * 3600))
    objects = []
    for number in range(first, first + batch):
        source = f"{camera}02{local}{number // 100_000 % 100_000:05d}"
        objects.append(
            {
                "MotorVehicleID": f"{source}02{number % 100_000:05d}",
                "InfoKind": 1,
                "SourceID": source,
                "TollgateID": "44010600001210000001",
                "DeviceID": camera,
                "LeftTopX": 300,
                "LeftTopY": 200,
                "RightBtmX": 900,
                "RightBtmY": 700,
                "PassTime": local,
                "LaneNo": number % 4 + 1,
                "HasPlate": "1",
                "PlateClass": "02",
                "PlateColor": "5",
                "PlateNo": f"粤B{number % 100_000:05d}",
                "PlateReliability": "97",
                "Speed": 36 + number % 30,
                "Direction": "3",
                "VehicleClass": "K33",
                "VehicleColor": str(number % 9 + 1),
                "SubImageList": {
                    "SubImageInfoObject": [
                        {
                            "ImageID": source,
                            "EventSort": 16,
                            "DeviceID": camera,
                            "StoragePath": "http://10.0.0.1/a.jpg",
                            "Type": "14",
                            "FileFormat": "Jpeg",
                            "ShotTime": local,
                            "Width": 1920,
                            "Height": 1080,
                        }
                    ]
                },
            }
        )
    whole = {"MotorVehicleListObject": {"MotorVehicleObject": objects}}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


async def _push(camera: ViidCamera, plan: Pushing, codes: list[int]) -> None:
    if not await camera.register():
        raise ConnectionError("not registered")
    for request in range(plan.requests):
        answer = await camera.post("MotorVehicles", body(camera.code, request * plan.batch, plan.batch))
        codes += answer.codes if answer.status == 200 else [answer.status] * plan.batch


async def push(plan: Pushing) -> Done:
    """Push the plan."""
    cameras = [ViidCamera(name, password, plan.host, plan.port) for name, password in plan.passwords.items()]
    codes: list[int] = []
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    await asyncio.gather(*(_push(camera, plan, codes) for camera in cameras))
    ended = time.monotonic()
    for camera in cameras:
        camera.connection.close()
    return Done(began, ended, codes.count(0), len(codes) - codes.count(0))


class Cameras:
    """The process, from outside."""

    def __init__(self, plan: Pushing) -> None:
        self._plan = plan

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.cameras", stdin=pipe, stdout=pipe, limit=LINE_BYTES
        )
        await self._tell(msgspec.json.encode(self._plan))
        await self._hear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

    async def _hear(self) -> bytes:
        assert self._process.stdout is not None
        if not (line := await self._process.stdout.readline()):
            raise RuntimeError("the cameras have ended")
        return line

    async def go(self) -> Done:
        """Let them push; return what became of it."""
        await self._tell(b"go")
        return msgspec.json.decode(await self._hear(), type=Done)


def main() -> int:
    """Push the plan on standard input."""
    plan = msgspec.json.decode(sys.stdin.readline(), type=Pushing)
    done = uvloop.run(push(plan))
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
