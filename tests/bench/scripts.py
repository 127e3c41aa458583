"""Codec scripts: calls a second a core, and what an attack on them costs the other devices.

Throughput: a script of ordinary size (`codec.js`), a payload of 20 bytes, in batches as the flow makes them, through
everything between a frame and its tree; "a core" counts the CPU time of the gateway's side and of the child together.
The baseline is the same call in a room made for it.

Attack: a node, devices on eight other profiles, a subscriber; hostile devices then send frames that make their scripts
run away in every way (loops, memory, regular expressions, native code that can only be killed). The figures are the
p99 from PUBACK to event of the other devices before, during and after.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sensegate.decode.formats.script import ScriptParse
from sensegate.decode.frame import PayloadFrame
from sensegate.demo.city import City, CityOptions
from sensegate.model import Device
from sensegate.scripts import engine, pool
from sensegate.scripts.wire import ScriptSource
from tests.bench import rig
from tests.bench.latency import Load, enrol
from tests.bench.workload import Sent, Workload, make, through_hubs

CALLS, BATCH = 60_000, 500
PAYLOAD = bytes.fromhex("0100e2 0229 03010203 040027 0506 060308 070d62")
"""Temperature, humidity, acceleration, light, motion, CO2, voltage."""
SECONDS, RATE, DEVICES, HUBS = 30.0, 400.0, 500, 25
HOSTILE, HOSTILE_RATE = 20, 40.0

RUNAWAYS = (
    "for (;;) {}",
    "var a = []; for (;;) a.push(new Array(1000).fill(1));",
    "/^(a+)+$/.test('a'.repeat(40) + 'b');",
    "'a'.repeat(5e6).indexOf('a'.repeat(2e6) + 'b');",
    "new Array(1e9).join('x');",
    "(function f() { try { f(); } catch (e) {} f(); })();",
)
PROFILE = """
profile: bench/hostile{number}
version: 1
label: {{zh: 恶意脚本, en: hostile script}}
source: tests/bench/scripts.py
messages:
  - topics: ["bench{number}/{{device}}"]
    script: {{file: hostile{number}.js}}
    readings:
      - {{field: value, property: air_temperature, unit: Cel}}
"""


def throughput(calls: int, batch: int) -> dict[str, float]:
    """Return calls a second a core, by the wall clock, and with a room made for each call."""
    text = (Path(__file__).parent / "codec.js").read_text(encoding="utf-8")
    source = ScriptSource(key="bench codec.js", file="codec.js", text=text)
    scripts = pool.decoding_pool()
    parse = ScriptParse(source, scripts.inspect(source))
    frames = [(parse, PayloadFrame(PAYLOAD, 32, "bench/d1", 1_772_366_400_000_000, 5)) for _ in range(batch)]
    ScriptParse.many(frames)
    child = scripts.children[0].pid
    began, ours, theirs = time.perf_counter(), time.process_time(), _cpu_s(child)
    for _ in range(calls // batch):
        trees = ScriptParse.many(frames)
    wall, ours, theirs = time.perf_counter() - began, time.process_time() - ours, _cpu_s(child) - theirs
    if trees[-1]["temperature"] != 22.6:
        raise AssertionError(trees[-1])
    scripts.close()
    room = engine.Script(source)
    fresh = time.process_time()
    for _ in range(20):
        room._realm = None
        room.call(PAYLOAD, 5, 1_772_366_400_000)
    fresh = (time.process_time() - fresh) / 20
    done = calls // batch * batch
    return {
        "calls_s_core": done / (ours + theirs),
        "calls_s_wall": done / wall,
        "child_us": theirs / done * 1e6,
        "gateway_us": ours / done * 1e6,
        "fresh_room_us": fresh * 1e6,
        "script_bytes": len(text),
    }


def _cpu_s(pid: int) -> float:
    """Return the CPU time of another process, to the nanosecond (clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)


def _with_hostile(folder: Path) -> Path:
    """Return a copy of the profiles with one of a hostile script for each way to run away."""
    profiles = folder / "profiles"
    shutil.copytree(rig.ROOT / "device_profiles", profiles)
    (profiles / "bench").mkdir()
    for number, code in enumerate(RUNAWAYS):
        script = f"function decodeUplink(input) {{ {code} return {{ data: {{ value: 1 }} }}; }}"
        (profiles / "bench" / f"hostile{number}.js").write_text(script, encoding="utf-8")
        (profiles / "bench" / f"hostile{number}.yaml").write_text(PROFILE.format(number=number), encoding="utf-8")
    return profiles


def _among(work: Workload, hostile: list[Device], count: int, chance: random.Random) -> Workload:
    """Return the messages with hostile ones among them, which become no reading."""
    messages = list(work.messages)
    for at in range(count):
        device = hostile[at % len(hostile)]
        topic = f"bench{device.profile[-1]}/{device.id}"
        messages.insert(chance.randrange(len(messages)), Sent(device.id, topic, chance.randbytes(8)))
    return Workload(work.devices, messages, work.duplicates + count)


async def attack(
    seconds: float, rate: float, devices: int, hubs: int, hostile_devices: int, hostile_rate: float
) -> dict[str, float]:
    """Return the p99 of the other devices before, during and after an attack, in ms."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        city = City(
            Path(directory) / "city", ["4401"], options=CityOptions(profiles=_with_hostile(Path(directory)), alone=True)
        )
        try:
            await city.start()
            member = city.nodes["4401"]
            first = through_hubs(make(devices, devices, end=time.time()), hubs)
            hostile = [
                Device(f"evil{at:02d}", division="440106", profile=f"bench/hostile{at % len(RUNAWAYS)}")
                for at in range(hostile_devices)
            ]
            load = Load(member, await enrol(member, [*first.devices, *hostile]), devices, hubs)
            await load.run(load.work(devices * 4), 0)  # warm
            result: dict[str, float] = {}
            lost = 0
            for phase in ("before", "during", "after"):
                work = load.work(round(rate * seconds))
                count = round(hostile_rate * seconds) if phase == "during" else 0
                work = _among(work, hostile, count, chance)
                run = await load.run(work, rate * len(work.messages) / (len(work.messages) - count))
                lost += run.missing
                result[f"p50_{phase}_ms"], result[f"p99_{phase}_ms"] = np.percentile(run.latencies, (50, 99)) * 1e3
            result["missing"] = lost
            return result
        finally:
            await city.stop()


async def bench(  # noqa: PLR0917
    calls: int = CALLS,
    batch: int = BATCH,
    seconds: float = SECONDS,
    rate: float = RATE,
    devices: int = DEVICES,
    hubs: int = HUBS,
    hostile_devices: int = HOSTILE,
    hostile_rate: float = HOSTILE_RATE,
) -> dict[str, Any]:
    """Return calls a second a core, and the p99 of other devices before, during and after an attack."""
    speed = throughput(calls, batch)
    result = await attack(seconds, rate, devices, hubs, hostile_devices, hostile_rate)
    quiet = (result["p99_before_ms"] + result["p99_after_ms"]) / 2
    return {
        "figure": round(speed["calls_s_core"]),
        "unit": "calls/s a core, script of 6 kB, payload of 20 bytes",
        "calls_s_wall": round(speed["calls_s_wall"]),
        "child_us": round(speed["child_us"], 1),
        "gateway_us": round(speed["gateway_us"], 1),
        "script_bytes": round(speed["script_bytes"]),
        "baseline": round(1e6 / speed["fresh_room_us"]),
        "baseline_is": "calls/s with a room made for each call",
        **{name: round(float(value), 1) for name, value in result.items()},
        "attack_ratio": round(result["p99_during_ms"] / quiet, 2),
        "hostile_frames": round(hostile_rate * seconds),
        "complete": result["missing"] == 0,
    }
