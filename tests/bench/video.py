"""Objects of cameras to committed observations at one core: GA/T 1400 with its digest, ONVIF over MQTT.

The gateway, its walk and its listener are this process: the CPU is theirs alone. The cameras that push GA/T 1400 are a
process of their own; the ONVIF frames lie in the broker's store, as MQTT at QoS 1 leaves them there. Beside them a bare
`msgspec` decode of the same bytes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sensegate import flow
from sensegate.model import Device
from tests.bench import rig
from tests.bench.cameras import Cameras, Done, Pushing, body, code
from tests.bench.workload import Sent

OBJECTS = 30_000
CAMERAS = 100
BATCH = 10
PROFILES = {"viid": "sensegate/viid", "onvif": "onvif/camera"}
SETTINGS = 'viid: {server_id: "44010000005030000001", requests_per_s: 100000}\n'


Write = Callable[[str, int, int, float], Sent]
"""(camera, number, objects, time) -> a frame of ONVIF metadata."""


def _stamp(at: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03d}Z"


def xml(camera: str, number: int, batch: int, at: float) -> Sent:
    """Return a frame as XML."""
    objects = ""
    for entry in range(batch):
        sides = f'left="{-0.9 + entry * 0.05}" top="0.5" right="{-0.7 + entry * 0.05}" bottom="0.0"'
        objects += (
            f'<tt:Object ObjectId="{number * batch + entry}"><tt:Appearance><tt:Shape><tt:BoundingBox {sides}/>'
            '<tt:CenterOfGravity x="0.1" y="0.25"/></tt:Shape><tt:Class><tt:Type Likelihood="0.94">'
            f"{'Human' if entry % 3 == 0 else 'Vehicle'}</tt:Type></tt:Class></tt:Appearance>"
            "<tt:Behaviour><tt:Speed>10.5</tt:Speed></tt:Behaviour></tt:Object>"
        )
    whole = (
        '<?xml version="1.0" encoding="UTF-8"?><tt:MetadataStream xmlns:tt="http://www.onvif.org/ver10/schema">'
        f'<tt:VideoAnalytics><tt:Frame UtcTime="{_stamp(at)}" Source="MyModule">{objects}</tt:Frame>'
        "</tt:VideoAnalytics></tt:MetadataStream>"
    )
    return Sent(camera, f"{camera}/onvif-xml", whole.encode())


def frame(camera: str, number: int, batch: int, at: float) -> Sent:
    """Return a frame of moving vehicles and people as JSON."""
    stamp = _stamp(at)
    objects = []
    for entry in range(batch):
        left = -0.9 + entry * 0.05 + number % 10 * 0.01
        shape = {
            "BoundingBox": {"@left": left, "@top": 0.5, "@right": left + 0.2, "@bottom": 0.0},
            "CenterOfGravity": {"@x": left + 0.1, "@y": 0.25},
        }
        kind = "Human" if entry % 3 == 0 else "Vehicle"
        looks: dict[str, Any] = {"Shape": shape, "Class": {"Type": [{"@Likelihood": 0.94, "#text": kind}]}}
        if kind == "Vehicle":
            looks["VehicleInfo"] = {"Type": [{"@Likelihood": 0.8, "#text": "Car"}], "Color": "White"}
        objects.append({"@ObjectId": number * batch + entry, "Appearance": looks, "Behaviour": {"Speed": 10.5}})
    payload = {"Frame": [{"@UtcTime": stamp, "@Source": "MyModule", "Object": objects}]}
    topic = f"{camera}/onvif-mj/VideoAnalytics/Profile1/Module1"
    return Sent(camera, topic, json.dumps(payload, separators=(",", ":")).encode())


class Spent:
    """Figures of one format."""

    def __init__(self, objects: int, wall_s: float, cpu_s: float, bare_s: float) -> None:
        self.rate = objects / wall_s
        self.cpu_us = cpu_s / objects * 1e6
        self.bare_us = bare_s / objects * 1e6
        """Of a bare decode."""


def _bare(bodies: list[bytes], objects: int) -> float:
    """Return CPU seconds of a bare decode of as many objects."""
    decode = msgspec.json.Decoder().decode
    began = time.process_time()
    for document in bodies:
        decode(document)
    return (time.process_time() - began) / (len(bodies) * BATCH) * objects


async def _observed(parts: flow.Gateway, objects: int) -> None:
    async with asyncio.timeout(120):
        while parts.stages.committer.totals.get("values", 0) < objects:
            await asyncio.sleep(0.002)  # what is timed must not be asked to tell us


async def _viid(parts: flow.Gateway, cameras: int, objects: int) -> tuple[Spent, Done]:
    names = [code(number) for number in range(cameras)]
    devices = [Device(name, division="440106", profile=PROFILES["viid"]) for name in names]
    passwords = await rig.register(parts, devices)
    where = urlsplit(parts.features.address("viid"))
    requests = max(1, objects // cameras // BATCH)
    plan = Pushing(where.hostname or "", where.port or 0, passwords, requests, BATCH)
    walk = asyncio.create_task(parts.pipeline.run())
    await rig.walking(parts)
    count = requests * cameras * BATCH
    async with Cameras(plan) as pushing:
        gc.collect()
        cpu = time.process_time()
        done = await pushing.go()
        await _observed(parts, count)
        ended, used = time.monotonic(), time.process_time() - cpu
    walk.cancel()
    await asyncio.gather(walk, return_exceptions=True)
    bare = _bare([body(names[0], 0, BATCH)] * 200, count)
    return Spent(count, ended - done.began, used, bare), done


async def _onvif(parts: flow.Gateway, cameras: int, objects: int, write: Write) -> tuple[Spent, int]:
    names = [f"cam-{number}" for number in range(cameras)]
    await rig.register(parts, [Device(name, division="440106", profile=PROFILES["onvif"]) for name in names])
    now = time.time()
    frames = [
        write(names[at % cameras], at // cameras, BATCH, now - 60 + at // cameras * 0.1)
        for at in range(max(cameras, objects // BATCH))
    ]
    count = len(frames) * BATCH
    await rig.store(parts, frames)
    gc.collect()
    cpu, began = time.process_time(), time.monotonic()
    walk = asyncio.create_task(parts.pipeline.run())
    await _observed(parts, count)
    ended, used = time.monotonic(), time.process_time() - cpu
    walk.cancel()
    await asyncio.gather(walk, return_exceptions=True)
    bare = _bare([frame.payload for frame in frames[:500]], count) if write is frame else 0.0
    return Spent(count, ended - began, used, bare), count


async def bench(objects: int = OBJECTS, cameras: int = CAMERAS) -> dict[str, Any]:
    """Return objects/s and CPU µs an object of both formats."""
    async with rig.gateway(SETTINGS) as parts:
        viid, done = await _viid(parts, cameras, objects)
        totals = dict(parts.stages.committer.totals)
        whole = done.other == 0 and totals.get("accepted") == 2 * done.accepted  # each with its speed
    results = []
    for write in (frame, xml):
        async with rig.gateway() as parts:
            spent, count = await _onvif(parts, cameras, objects, write)
            whole = whole and parts.stages.committer.totals.get("accepted") == count
            results.append(spent)
    onvif, in_xml = results
    return {
        "figure": round(viid.rate),
        "unit": "VIID objects/s, pushed with a digest, answered after their commit",
        "onvif_objects_per_s": round(onvif.rate),
        "onvif_xml_objects_per_s": round(in_xml.rate),
        "cpu_us_per_viid_object": round(viid.cpu_us, 1),
        "cpu_us_per_onvif_object": round(onvif.cpu_us, 1),
        "cpu_us_per_onvif_xml_object": round(in_xml.cpu_us, 1),
        "viid_objects_per_core_s": round(1e6 / viid.cpu_us),
        "onvif_objects_per_core_s": round(1e6 / onvif.cpu_us),
        "baseline_cpu_us_per_viid_object": round(viid.bare_us, 1),
        "baseline_cpu_us_per_onvif_object": round(onvif.bare_us, 1),
        "baseline_is": "msgspec decodes the same JSON and drops it",
        "cameras": cameras,
        "objects": done.accepted + 2 * count,
        "complete": whole,
    }
