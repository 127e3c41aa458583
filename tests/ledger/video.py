"""Video in the kill ledger: VIID answers counted as acknowledgements, judged at the feeds of node and centre.

`python -m tests.ledger.video [--kills N]`: cameras register with a digest, push batches of vehicles and send
a batch again until each of its objects has status 0, as the standard's retransmissions do; gateway, server, both, the
centre's, or the link are killed while batches are open. Every object that was answered with 0 is on both feeds once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from sensegate.demo.city import City, CityMember, CityOptions
from sensegate.errors import Unavailable
from sensegate.web.client import GatewayClient, ProblemResponse
from tests.ledger.kills import KILLED, PROFILES, Kill, Target, plan
from tests.ledger.soak import say

NODE = "4401"
SERVER = "44010000005030000001"
CAMERAS, BATCH, PAUSE_S = 6, 60, 0.3
LEAST = 60
"""Objects that must be open (sent, not answered) at the moment of a kill; else it is done again and does not count."""
ANSWER_S = 15.0
RECOVERY_S = 60.0
LATE_S = 60.0
CHINA_S = 8 * 3_600


@dataclass
class Camera:
    """One device that speaks VIID."""

    code: str
    password: str
    sent: int = 0
    """Objects made."""
    open: int = 0
    """Objects sent and not answered."""
    acked: set[str] = field(default_factory=set)
    resent: int = 0
    """Batches sent again."""
    faults: Counter[str] = field(default_factory=Counter)

    def batch(self, base: int) -> list[dict[str, Any]]:
        """Return the next vehicles."""
        results = []
        for _ in range(BATCH):
            self.sent += 1
            local = time.strftime("%Y%m%d%H%M%S", time.gmtime(base + self.sent // 50 + CHINA_S))
            source = f"{self.code}02{local}{self.sent % 100_000:05d}"
            results.append(
                {
                    "MotorVehicleID": f"{source}02{self.sent % 100_000:05d}",
                    "InfoKind": 1,
                    "SourceID": source,
                    "DeviceID": self.code,
                    "PassTime": local,
                    "PlateNo": f"粤B{self.sent % 100_000:05d}",
                    "VehicleColor": "1",
                    "Speed": "36",
                }
            )
        return results


def _digest(header: str, code: str, password: str, path: str) -> str:
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', header))

    def h(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()  # noqa: S324 - what the standard's clients compute

    secret, request_hash = h(f"{code}:{challenge['realm']}:{password}"), h(f"POST:{path}")
    response = h(f"{secret}:{challenge['nonce']}:00000001:c:auth:{request_hash}")
    return (
        f'Digest username="{code}", realm="{challenge["realm"]}", nonce="{challenge["nonce"]}", uri="{path}", '
        f'qop=auth, nc=00000001, cnonce="c", response="{response}"'
    )


async def registered_at(http: aiohttp.ClientSession, url: str, code: str, password: str) -> bool:
    """Register with a digest; return whether it was taken."""
    path, body = "/VIID/System/Register", {"RegisterObject": {"DeviceID": code}}
    async with http.post(url + path, json=body) as first:
        if first.status != 401:
            return False
        proof = _digest(first.headers.getall("WWW-Authenticate")[0], code, password, path)
    async with http.post(url + path, json=body, headers={"Authorization": proof}) as second:
        return second.status == 200


class Pusher:
    """A camera's talk with the node, wherever it listens at the moment."""

    def __init__(self, camera: Camera, member: CityMember, base: int) -> None:
        self.camera = camera
        self.stopping = False
        self._member = member
        self._base = base

    def _url(self) -> str:
        run = json.loads((self._member.directory / "store" / "run.json").read_text(encoding="utf-8"))
        return str(run["viid"])

    async def run(self) -> None:
        """Push until told to stop, then until the last batch is answered."""
        camera = self.camera
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as http:
            await self._until(lambda: self._register(http))
            while not self.stopping:
                batch = camera.batch(self._base)
                camera.open = len(batch)
                await self._until(lambda batch=batch: self._post(http, batch))  # type: ignore[misc]
                camera.open = 0
                await asyncio.sleep(PAUSE_S)

    async def _until(self, work: Callable[[], Any]) -> None:
        """Do something again until it succeeds; what fails on the way is a kill, as far as a camera can tell."""
        while True:
            try:
                if await work():
                    return
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as why:
                self.camera.faults[type(why).__name__] += 1
            self.camera.resent += 1
            await asyncio.sleep(0.1)

    async def _register(self, http: aiohttp.ClientSession) -> bool:
        return await registered_at(http, self._url(), self.camera.code, self.camera.password)

    async def _post(self, http: aiohttp.ClientSession, batch: list[dict[str, Any]]) -> bool:
        """Send a batch; note what was answered with 0; return whether all of it was."""
        body = json.dumps({"MotorVehicleListObject": {"MotorVehicleObject": batch}}, ensure_ascii=False).encode()
        headers = {"User-Identify": self.camera.code, "Content-Type": "application/VIID+JSON;charset=UTF-8"}
        async with http.post(self._url() + "/VIID/MotorVehicles", data=body, headers=headers) as answer:
            tree = await answer.json(content_type=None)
            if answer.status == 401:
                self.camera.faults["registered anew"] += 1
                await self._register(http)
                return False
            self.camera.faults[f"status {answer.status}"] += answer.status != 200
            statuses = tree["ResponseStatusListObject"]["ResponseStatusObject"]
        good = {statuse["Id"] for statuse in statuses if statuse["StatusCode"] == 0}
        self.camera.acked |= good
        return {delivery["MotorVehicleID"] for delivery in batch} <= self.camera.acked


class Tap:
    """A subscriber that reads on through every kill, by its cursor."""

    def __init__(self, member: CityMember) -> None:
        self.member = member
        self.seen: Counter[str] = Counter()
        self._after = ""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            with contextlib.suppress(Unavailable, ProblemResponse, TimeoutError):
                async with GatewayClient(self.member.url, self.member.token) as remote:
                    while True:
                        more = {"after": self._after} if self._after else {}
                        page = await remote.get("/api/v1/feeds/all/records", limit="2000", wait="1", **more)
                        self.seen.update(
                            json.loads(row["value"])["native_id"]
                            for row in page["records"]
                            if row["property"] == "video_observation"
                        )
                        self._after = page["next"]
            await asyncio.sleep(0.1)


@dataclass
class Verdict:
    """What came of a campaign."""

    kills: int
    weak: int
    sent: int
    acked: int
    resent: int
    lost: dict[str, int]
    doubled: dict[str, int]
    phantom: dict[str, int]
    balanced: dict[str, bool]
    recoveries: list[float]
    failed: int
    seconds: float
    targets: Counter[str]
    faults: Counter[str]

    @property
    def good(self) -> bool:
        """True if nothing was lost, doubled or made up, the books balance, and every kill was recovered from."""
        wrong = (*self.lost.values(), *self.doubled.values(), *self.phantom.values(), self.failed)
        return not any(wrong) and all(self.balanced.values())

    def table(self) -> str:
        """Return it as lines of text."""
        times = sorted(self.recoveries)
        return "\n".join(
            [
                f"{self.kills} kills in {self.seconds:.0f} s ({self.weak} more did not count): {dict(self.targets)}",
                f"objects {self.sent:,}, answered with 0 {self.acked:,}, batches sent again {self.resent:,}",
                f"lost {self.lost} doubled {self.doubled} made up {self.phantom} balanced {self.balanced}",
                f"recovery p50 {times[len(times) // 2]:.2f} s max {times[-1]:.2f} s" if times else "no recovery",
                f"cameras saw {dict(self.faults)}",
            ]
        )


class Campaign:
    """A node with cameras, its centre, and the kills of a plan."""

    def __init__(
        self,
        directory: Path,
        kills: Sequence[Kill],
        *,
        environment: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
        late_s: float = LATE_S,
    ) -> None:
        """`late_s`: so long what was answered is waited for at the end."""
        self.late_s = late_s
        self.kills = list(kills)
        self.wanted = len(self.kills)
        self.tell = tell
        # The centre speaks VIID too, which hurts nobody.
        settings = {"viid": {"server_id": SERVER, "requests_per_s": 10_000.0}}
        self.city = City(
            directory,
            [NODE],
            options=CityOptions(
                profiles=PROFILES,
                only=["sensegate/plain", "sensegate/viid"],
                settings=settings,
                environment=environment or {},
            ),
        )
        self.node = self.city.nodes[NODE]
        self.recoveries: list[float] = []
        self.failed = self.weak = self.counted = 0
        self.targets: Counter[str] = Counter()

    async def run(self) -> Verdict:
        """Run it all; leave nothing behind."""
        began = time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        try:
            await self.city.start()
            base = int(time.time()) - 3_600
            self.pushers = [Pusher(camera, self.node, base) for camera in await self._cameras()]
            self.taps = {"node": Tap(self.node), "centre": Tap(self.city.centre)}
            tasks = [asyncio.create_task(tap.run()) for tap in self.taps.values()]
            pushing = [asyncio.create_task(pusher.run()) for pusher in self.pushers]
            tasks += pushing
            while self.kills:
                await self._execute(self.kills.pop(0))
            for pusher in self.pushers:
                pusher.stopping = True
            await asyncio.wait(pushing, timeout=RECOVERY_S)
            return await self._judge(began)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.city.stop()

    async def _cameras(self) -> list[Camera]:
        cameras = []
        async with self.node.remote() as remote:
            for number in range(1, CAMERAS + 1):
                code = f"44010600001190{number:06d}"
                wanted = {"id": code, "division": "440106", "profile": "sensegate/viid"}
                answer = await remote.post("/api/v1/devices", wanted)
                cameras.append(Camera(code, answer["password"]))
        return cameras

    @property
    def _open(self) -> int:
        return sum(pusher.camera.open for pusher in self.pushers)

    async def _execute(self, kill: Kill) -> None:
        await asyncio.sleep(kill.gap_s)
        deadline = time.monotonic() + 10
        while self._open < LEAST and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        await asyncio.sleep(kill.delay_s / 4)
        open_now = self._open
        before = {pusher.camera.code: pusher.camera.sent for pusher in self.pushers}
        began = time.monotonic()
        await self._strike(kill)
        recovered = await self._recovered(before)
        counts = open_now >= LEAST
        self.failed += recovered is False
        if counts:
            self.counted += 1
            self.targets[kill.target.value] += 1
            self.recoveries.append(time.monotonic() - began)
        else:
            self.weak += 1
            if self.weak < 3 * self.wanted:
                self.kills.append(kill)
        self.tell(
            f"{self.counted:3}/{self.wanted} {kill.target.value:24} {open_now:4} open, "
            f"{time.monotonic() - began:5.2f} s{'' if recovered else ' NOT RECOVERED'}{'' if counts else ' (weak)'}"
        )

    async def _recovered(self, before: dict[str, int]) -> bool:
        """Return whether an object made after a kill was answered and seen at the centre, in time."""
        deadline = time.monotonic() + RECOVERY_S
        while time.monotonic() < deadline:
            for pusher in self.pushers:
                fresh = f"{pusher.camera.sent % 100_000:05d}"
                if pusher.camera.sent > before[pusher.camera.code] and any(
                    name in self.taps["centre"].seen for name in pusher.camera.acked if name.endswith(fresh)
                ):
                    return True
            await asyncio.sleep(0.05)
        return False

    async def _strike(self, kill: Kill) -> None:
        if kill.target is Target.LINK:
            link = self.city.links[NODE]
            await link.cut()
            await asyncio.sleep(kill.cut_s)
            link.restore()
            return
        member = self.node if kill.target.at_node else self.city.centre
        for pause in (0.0, kill.again_s):
            if pause is None:
                continue
            await asyncio.sleep(pause)
            pids = []
            if kill.target not in {Target.NODE_SERVER, Target.CENTRE_SERVER}:
                pids.append(member.process.pid)
            if kill.target not in {Target.NODE_GATEWAY, Target.CENTRE_GATEWAY}:
                pids.append(member.engine_pid)
            for pid in filter(None, pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def _judge(self, began: float) -> Verdict:
        cameras = [pusher.camera for pusher in self.pushers]
        acked = set().union(*(camera.acked for camera in cameras))
        deadline = time.monotonic() + self.late_s
        while time.monotonic() < deadline and not all(acked <= tap.seen.keys() for tap in self.taps.values()):
            await asyncio.sleep(0.2)
        await asyncio.sleep(2.0)  # what would come twice comes now
        made = {vehicle["MotorVehicleID"] for camera in cameras for vehicle in _all_of(camera, self.pushers[0]._base)}
        balanced = {}
        for name, member in (("node", self.node), ("centre", self.city.centre)):
            async with GatewayClient(member.url, member.token) as remote:
                balanced[name] = bool((await remote.get("/api/v1/ledger", since="400d"))["balanced"])
        return Verdict(
            self.counted,
            self.weak,
            sum(camera.sent for camera in cameras),
            len(acked),
            sum(camera.resent for camera in cameras),
            {name: len(acked - tap.seen.keys()) for name, tap in self.taps.items()},
            {name: sum(count - 1 for count in tap.seen.values()) for name, tap in self.taps.items()},
            {name: len(tap.seen.keys() - made) for name, tap in self.taps.items()},
            balanced,
            self.recoveries,
            self.failed,
            time.monotonic() - began,
            self.targets,
            sum((camera.faults for camera in cameras), Counter()),
        )


def _all_of(camera: Camera, base: int) -> list[dict[str, Any]]:
    """Return everything that a camera has made, once more."""
    reopened = Camera(camera.code, "")
    return [vehicle for _ in range(camera.sent // BATCH) for vehicle in reopened.batch(base)]


def main() -> int:
    """Run the campaign and print its report; exit 1 on any fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.ledger.video", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    kills = plan(given.seed, given.kills, least=given.kills // len(KILLED))
    random.seed(given.seed)
    say(f"video: seed {given.seed}, {given.kills} kills")
    with tempfile.TemporaryDirectory(prefix="sensegate-video-") as directory:
        verdict = asyncio.run(Campaign(Path(directory), kills, tell=say).run())
    sys.stdout.write(verdict.table() + "\n")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
