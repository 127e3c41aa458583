"""Forty kinds of marked personal values through a real gateway; then every byte that it wrote is scanned for them.

What is scanned: each message of each of its streams (log, ledger, audit, registries), as bytes, decompressed, and as
our own readers read it; every answer of its HTTP side that takes no more than a path; its log lines at `debug`;
`explain`; its directory, and the store of its nats-server while messages wait there that nobody of ours has seen. The
gateway dies by SIGABRT in the end, and leaves no dump.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import numpy as np
import pytest
import yarl
from msgspec import structs

from sensegate.authoring.examples import payload_of
from sensegate.authoring.explain import explain
from sensegate.bus import columns, raw
from sensegate.bus.addresses import GatewayAddresses
from sensegate.bus.engine import Engine, User
from sensegate.bus.ledger import Ledger
from sensegate.config import Config, EngineConfig, IngestConfig, ListenConfig, NodeUserConfig, UplinkConfig
from sensegate.config.viid import ViidConfig, ViidSuperiorConfig
from sensegate.decode.profiles import ProfileSet, any_video_profile
from sensegate.share import json_records
from sensegate.web.record_query import MEDIA_TYPES
from tests.conftest import eventually
from tests.ledger.controls import Control, Edit, patched
from tests.ledger.video import SERVER, registered_at
from tests.live.site import PLAIN, Made, Site, config_of
from tests.live.site import running as started
from tests.video.canary import KINDS, MARKS, PROFILES, marks_in, opened, planted
from tests.video.viid_bodies import ABOVE, BODIES, CAMERA

pytestmark = pytest.mark.live

LEAKY = Control(
    "messages of cameras are walked as they came",
    caught=[],
    targets=[],
    kills=0,
    edits=[
        Edit(
            "decode/redaction.py",
            "if not decoder.profiles.video and not strict:\n    return {}",
            "return {}",
        )
    ],
)


class Planted(msgspec.Struct, frozen=True):
    """A message with marks."""

    device: str
    """Who sends it."""
    topic: str
    payload: bytes


class Camera(msgspec.Struct, frozen=True):
    """A device to be registered."""

    id: str
    profile: str
    gateway: str = ""


def _renamed(name: str, profile: str) -> str:
    """Return a device's id by which no two profiles' examples meet."""
    if name.isdecimal() or profile == "frigate/mqtt":
        return name
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{profile.partition('/')[0]}-{name}")


def cast(step: int) -> tuple[list[Camera], list[Planted]]:
    """Return the cameras of all profiles' examples, and their messages with marks."""
    profiles = ProfileSet.load(PROFILES)
    cameras: dict[str, Camera] = {}
    messages: list[Planted] = []
    number = 0
    for name in profiles.ids:
        profile = profiles.find(name)
        assert profile
        for example in profile.source.examples:
            if example.refuse is not None:
                continue
            known = {
                name_or_gateway: _renamed(name_or_gateway, name)
                for name_or_gateway in (*example.devices, example.gateway)
                if name_or_gateway
            }
            gateway = known.get(example.gateway, "")
            if gateway:
                cameras[gateway] = Camera(gateway, name)
            for device in example.devices:
                if known[device] != gateway:
                    cameras[known[device]] = Camera(known[device], name, gateway)
            sender = gateway or known[example.devices[0]]
            topic = "/".join(known.get(level, level) for level in example.topic.split("/"))
            payload = payload_of(example)
            for device, other in known.items():
                payload = payload.replace(f'"{device}"'.encode(), f'"{other}"'.encode())
            number += 1
            every = list(planted(payload, number * 5 % len(KINDS)))
            messages += [Planted(sender, topic, message) for _, message in every[:: 1 if len(every) < step else 2]]
    behind = {camera.id: camera.gateway for camera in cameras.values() if camera.gateway}
    return list(cameras.values()), [
        structs.replace(message, device=behind.get(message.device, message.device)) for message in messages
    ]


class Running:
    """A gateway in a process of its own."""

    def __init__(self, site: Site, process: asyncio.subprocess.Process, log: Path) -> None:
        self.site = site
        self.process = process
        self.log = log


@asynccontextmanager
async def gateway(
    directory: Path,
    *,
    environment: dict[str, str] | None = None,
    encryption: Any = "auto",
    uplink: UplinkConfig | None = None,
) -> AsyncIterator[Running]:
    """Run a gateway that takes all formats of video, its log lines in a file."""
    secret = directory / "secret"
    secret.write_text("s" * 32)
    above = ViidSuperiorConfig(name="above", url="http://127.0.0.1:9", server_id=ABOVE, password_file=str(secret))
    config = structs.replace(
        config_of(directory / "run", profiles=(str(PLAIN), *map(str, PROFILES))),
        ingest=IngestConfig(rate_per_device_s=100_000.0),
        engine=EngineConfig(encryption=encryption),
        listen=ListenConfig(),  # a front of its own process, which stores while the gateway is stopped
        viid=ViidConfig(server_id=SERVER, requests_per_s=100_000.0, superiors=(above,)),
        uplink=uplink or UplinkConfig(),
        log_level="debug",
        log_format="json",
    )
    file, log = directory / "config.yaml", directory / "log.txt"
    file.write_bytes(msgspec.yaml.encode(config))
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sensegate.cli", "run", str(file),
            stderr=out, stdout=out, cwd=directory, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    try:
        run = directory / "run" / "run.json"
        await eventually(lambda: run.exists() or process.returncode is not None, 60)
        assert process.returncode is None, log.read_text()
        addresses = msgspec.json.decode(run.read_bytes(), type=GatewayAddresses)
        admin = (directory / "run" / "admin.token").read_text().strip()
        async with aiohttp.ClientSession() as http:
            yield Running(Site(config, addresses, http, admin), process, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)
        else:
            async with Engine.of(config, slots=(), personal=any_video_profile(config.profile_folders)):
                pass  # adopts the server that the gateway left behind, and ends it


async def registered(site: Site, cameras: list[Camera]) -> dict[str, Made]:
    """Register cameras, those behind others after them."""
    made = {}
    for camera in sorted(cameras, key=lambda camera: bool(camera.gateway)):
        made[camera.id] = await site.device(
            camera.id, profile=camera.profile, **({"gateway": camera.gateway} if camera.gateway else {})
        )
    return made


async def send(site: Site, made: dict[str, Made], messages: list[Planted]) -> int:
    """Send all, by MQTT where the topic is one of it, else by HTTP; return how many were taken."""
    by_sender: dict[str, list[Planted]] = {}
    pushed: list[Planted] = []
    for message in messages:
        if message.topic.startswith("http/"):
            pushed.append(message)
        else:
            by_sender.setdefault(message.device, []).append(message)
    for sender, theirs in by_sender.items():
        async with site.phone() as phone:
            assert await phone.connect(sender, made[sender].password) == 0
            for message in theirs[:-1]:
                phone.send(message.topic, message.payload)
            await phone.publish(theirs[-1].topic, theirs[-1].payload, 30)
    gate = asyncio.Semaphore(40)

    async def push(planted: Planted) -> int:
        async with gate:
            return (await site.push(made[planted.device], planted.payload)).status

    statuses = await asyncio.gather(*map(push, pushed))
    refused = {message.device for message, status in zip(pushed, statuses, strict=True) if status != 202}
    assert not refused, (refused, set(statuses))
    return len(messages)


def in_files(directory: Path) -> dict[str, str]:
    """Return kind -> file of each mark in any file below a directory."""
    in_files: dict[str, str] = {}
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            for blob in opened(file.read_bytes()):
                in_files |= {kind: str(file.relative_to(directory)) for kind in marks_in(blob)}
    return in_files


def readings_of(subject: str, payload: bytes) -> Iterator[bytes]:
    """Yield a member of the log as our own readers read it."""
    kind = subject.partition(".")[0]
    if kind in {"raw", "quarantine"}:
        for message in raw.decode_quarantined(payload) if kind == "quarantine" else raw.decode(payload):
            yield msgspec.json.encode(message)
            yield (message.message if isinstance(message, raw.StoredMessage) else message[0]).payload
    elif kind in {"readings", "observations", "seen"}:
        batch = columns.decode(payload, sequence=1)
        yield "\n".join(json_records.json_lines(batch, np.arange(len(batch), dtype=np.int64), 1, "c")).encode()
    elif kind in {"ledger", "hours"} and subject != "hours.position":
        yield msgspec.json.encode(list(Ledger.decode(payload).rows()))


async def in_streams(config: Config) -> tuple[dict[str, str], dict[str, int]]:
    """Return (kind -> subject of each mark in what the gateway itself stores, subject's first word -> messages)."""
    in_streams: dict[str, str] = {}
    result: dict[str, int] = {}
    async with Engine.of(config, slots=(), personal=any_video_profile(config.profile_folders)) as engine:
        client = await engine.connect(User.GATEWAY)
        context = client.jetstream()
        for info in await context.streams_info():
            for sequence in range(info.state.first_seq, info.state.last_seq + 1):
                try:
                    message = await context.get_msg(str(info.config.name), sequence)
                except Exception:  # noqa: BLE001, S112 - replaced or expired
                    continue
                subject, payload = str(message.subject), message.data or b""
                result[subject.partition(".")[0]] = result.get(subject.partition(".")[0], 0) + 1
                for blob in (*opened(payload), *readings_of(subject, payload), subject.encode()):
                    in_streams |= dict.fromkeys(marks_in(blob), subject)
        await client.close()
    return in_streams, result


async def in_answers(site: Site) -> tuple[dict[str, str], int]:
    """Return (kind -> path of each mark in what HTTP tells, number of good answers)."""
    in_answers: dict[str, str] = {}
    auditor, _ = await site.token("auditor", site.config.division)
    paths = [
        path for path, verbs in (await site.ask("GET", "/openapi.json", "")).body["paths"].items() if "get" in verbs
    ]
    requests = [(path, "*/*") for path in ("/metrics", "/readyz", "/healthz", *paths) if "{" not in path]
    requests += [("/api/v1/feeds/all/records?limit=10000", media) for media in MEDIA_TYPES.values()]
    requests += [(path, "*/*") for path in ("/api/v1/quarantine?limit=1000", "/api/v1/ledger?since=1h&by=device")]
    good = 0
    for path, media in dict.fromkeys(requests):
        if path.endswith(("stream", "/ws")):
            continue
        for token in ("", site.admin, auditor):
            headers = {"Accept": media, **({"Authorization": f"Bearer {token}"} if token else {})}
            async with asyncio.timeout(60), site.session.get(site.addresses.http + path, headers=headers) as answer:
                good += answer.status == 200
                for blob in opened(await answer.read()):
                    in_answers |= dict.fromkeys(marks_in(blob), f"{path} {media}")
    return in_answers, good


async def flooded(running: Running, step: int) -> int:
    """Register, send all, and wait until all is in the log."""
    cameras, messages = cast(step)
    made = await registered(running.site, cameras)
    sent = await send(running.site, made, messages)

    async def all_in() -> bool:
        return (await running.site.totals())["messages"] >= sent

    await eventually(all_in, 60)
    return sent


async def odd_topics(site: Site) -> None:
    """Send to topics with a mark in a level: some are the camera's own, some are refused by the broker."""
    camera = await site.device("onvif-odd", profile="onvif/camera")
    frame = json.dumps({"Frame": []})
    async with site.phone() as phone:
        assert await phone.connect(camera.id, camera.password, client_id=MARKS["name"]) == 0
        for value in MARKS.values():
            level = "".join(sign for sign in value if sign not in "/+# ")
            phone.send(f"onvif-odd/onvif-mj/VideoAnalytics/{level}/{level}", frame)
            phone.send(f"frigate/{level}", frame)
            phone.send(f"onvif-odd/{level}", frame)
        await phone.publish("onvif-odd/onvif-mj/VideoAnalytics/Profile1", frame)

    async def refused() -> bool:
        return (await site.metric('sensegate_permission_denied_total{operation="publish"}')) >= 2 * len(MARKS)

    await eventually(refused, 30)


async def by_viid(site: Site, made: dict[str, Made]) -> Counter[int]:
    """Talk to the VIID listener with marks in bodies, paths, queries, headers; return how often which status came."""
    camera, statuses = made[CAMERA], Counter[int]()
    gate = asyncio.Semaphore(20)
    member = {"User-Identify": CAMERA, "Content-Type": "application/VIID+JSON"}
    assert await registered_at(site.session, site.addresses.viid, CAMERA, camera.password)

    async def ask(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        url = yarl.URL(f"{site.addresses.viid}/VIID/{path}", encoded=True)
        async with gate, site.session.request(method, url, data=body or None, headers=headers) as answer:
            await answer.read()
            statuses[answer.status] += 1

    results = []
    for number, (name, body) in enumerate(BODIES.items()):
        headers = {**member, "User-Identify": ABOVE} if name == "Subscribes" else member
        results += [ask("POST", name, headers, message) for _, message in list(planted(body, number * 3))[::3]]
    for value in MARKS.values():
        results += [
            ask("GET", f"Faces/{quote(value, safe='')}?Name={quote(value, safe='')}", member),
            ask("DELETE", f"Subscribes?IDList={quote(value, safe='')}", {**member, "User-Identify": ABOVE}),
            ask("POST", f"{quote(value, safe='')}/Info", member, value.encode()),
            ask("POST", "System/Register", {}, json.dumps({"RegisterObject": {"DeviceID": value}}).encode()),
        ]
        if value.isascii():
            results.append(ask("POST", "Faces", {**member, "User-Identify": value}, BODIES["Faces"]))
    await asyncio.gather(*results)
    return statuses


async def waiting(running: Running, directory: Path) -> dict[str, str]:
    """Return the marks in the server's store while messages wait in it that no one of ours has seen."""
    site = running.site
    camera = await site.device("onvif-waits", profile="onvif/camera")
    async with site.phone() as phone:
        assert await phone.connect(camera.id, camera.password) == 0
        running.process.send_signal(signal.SIGSTOP)
        topic = "onvif-waits/onvif-mj/VideoAnalytics/Profile1/MyAnalytics1"
        for value in MARKS.values():
            await phone.publish(topic, json.dumps({"Frame": [value]}, ensure_ascii=False), 10)
        result = in_files(directory / "run" / "engine" / "store")
        running.process.send_signal(signal.SIGCONT)
    return result


async def test_nothing_of_anybody_is_in_any_byte(tmp_path: Path) -> None:
    """40 kinds in every place of every format, good and malformed bodies, MQTT and HTTP: none is found anywhere."""
    secret = tmp_path / "node.secret"
    secret.write_text("s" * 32)
    below = NodeUserConfig(division="4401", secret_file=str(secret))
    above = structs.replace(config_of(tmp_path / "44", "44"), nodes=(below,))
    async with started(above) as centre:
        await nothing_at_a_node(tmp_path, UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50))

        async def there() -> bool:
            return any(row["property"] == "video_observation" for row in await centre.records())

        await eventually(there, 30)
        result, _ = await in_answers(centre)
        assert result == {}
    result, stored = await in_streams(above)
    assert result == {}
    assert {"observations", "readings", "ledger", "commit"} <= stored.keys(), stored
    assert in_files(tmp_path / "44") == {}


async def nothing_at_a_node(tmp_path: Path, uplink: UplinkConfig) -> None:
    """Send all to a node below a centre, and look for it there."""
    async with gateway(tmp_path, uplink=uplink) as running:
        site = running.site
        sent = await flooded(running, 60)
        assert sent > 1_000
        totals = await site.totals()
        assert totals["decoded"] > 100
        assert sum(count for kind, count in totals.items() if kind.startswith("removed.")) > sent / 2
        statuses = await by_viid(site, {CAMERA: await site.device(CAMERA, profile="sensegate/viid")})
        assert statuses[200] > 200, statuses
        assert not {status for status in statuses if status >= 500 and status != 503}, statuses
        assert await waiting(running, tmp_path) == {}
        await odd_topics(site)
        result, asked_paths = await in_answers(site)
        assert result == {}
        assert asked_paths > 20
        records = await site.records()
        assert {row["property"] for row in records} >= {"video_observation"}
        for pid in (site.addresses.pid, site.addresses.engine_pid):
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert next(line.split()[4:6] for line in limits.splitlines() if "core file" in line) == ["0", "0"]
        running.process.send_signal(signal.SIGABRT)
        await running.process.wait()
        result, stored = await in_streams(site.config)
        assert result == {}
        assert {"raw", "observations", "readings", "quarantine", "ledger", "audit"} <= stored.keys(), stored
        assert in_files(tmp_path) == {}
        assert not [file for file in tmp_path.rglob("core*") if file.is_file()]


async def test_with_the_filter_patched_out_the_scan_finds_them(tmp_path: Path) -> None:
    """Control: the same messages, walked as they came, are found in the streams and in what HTTP tells."""
    async with gateway(tmp_path, environment=patched(LEAKY, tmp_path / "copy")) as running:
        await flooded(running, 20)
        leaks, _ = await in_answers(running.site)
        running.process.kill()
        await running.process.wait()
        stored, _ = await in_streams(running.site.config)
    assert len(stored) >= 40, set(KINDS) - stored.keys()
    assert len(leaks) >= 30, set(KINDS) - leaks.keys()


async def test_without_the_key_the_scan_finds_them_in_the_store(tmp_path: Path) -> None:
    """Control: a store that is not encrypted holds what waits in it as it came, though nothing of ours does."""
    async with gateway(tmp_path, encryption="off") as running:
        result = await waiting(running, tmp_path)
        assert len(result) >= 40, set(KINDS) - result.keys()


def test_explain_tells_nothing() -> None:
    """What `explain` prints of such messages holds no mark."""
    profiles = ProfileSet.load(PROFILES)
    _, messages = cast(20)
    for message in messages[::7]:
        text = json.dumps(explain(profiles, message.topic, message.payload, device=message.device), ensure_ascii=False)
        assert marks_in(text.encode()) == {}, (message, text)
