"""Each benchmark runs, in a short form, and counts what it should. What it measures is not judged here.

`make test` runs those that stay within one process or two, `make soak` all.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench import rig, workload
from tests.border.flooder import Kind

pytestmark = [pytest.mark.live, pytest.mark.slow]

SHORT: dict[str, dict[str, Any]] = {
    "drain": {"messages": 1_000, "devices": 40, "rounds": 1},
    "live": {"messages": 1_000, "devices": 40, "hubs": 4, "rounds": 1},
    "compare": {"messages": 1_000, "rounds": 1},
    "latency": {"messages": 600, "devices": 40, "hubs": 4, "seconds": 0.5, "idle": 5, "idle_rate": 20},
    "scale": {"messages": 600, "few": 20, "many": 200, "rounds": 1},
    "memory": {"registered": 400, "active": 100, "readings": 10},
    "start": {"registered": 200, "devices": 50, "readings": 5},
    "formats": {"messages": 200, "rounds": 1},
    "reload": {"rate": 400, "seconds": 4, "devices": 20, "releases": 3},
    "uplink": {"devices": 20, "seconds": 2, "hubs": 2, "warm": 1, "cut": (10, 4)},
    "fanout": {"counts": (1, 5), "deliveries": 20_000, "most": 4_000, "rounds": 1},
    "client": {"records": 4_000, "baseline": 1_000, "rounds": 1},
    "video": {"objects": 500, "cameras": 5},
    "border_flood": {"seconds": 0.6, "warm": 0.1, "kinds": (Kind.SPANS, Kind.CREDENTIALS)},
    "sensorthings": {"things": 20, "requests": 4, "rounds": 1, "pages": 3, "single": 8},
    "latest": {"devices": 30, "properties": 10, "rounds": 3, "series": 20},
    "history": {"readings": 30_000, "devices": 20, "last_days": 3, "hourly": 2},
    "console": {"devices": 300, "pages": ("", "devices", "devices/m000001?span=30d"), "watched_s": 6.0},
    "scripts": {"calls": 1_000, "seconds": 2, "rate": 100, "devices": 20, "hubs": 4},
}


CITIES = {"compare", "console", "scale", "start", "uplink", "scripts", "reload"}
"""Benchmarks that run whole gateways as processes, a quarter of a minute each."""


USED = {*workload.PROFILES, "zigbee2mqtt/bridge", "sensegate/viid", "onvif/camera"}
"""Profiles of the devices of all benchmarks."""


@pytest.fixture(scope="module", autouse=True)
def few_profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the gateways of `make test` load the profiles that are used: the whole library costs each seconds of CPU."""
    folder = tmp_path_factory.mktemp("device_profiles")
    for name in USED:
        file = folder / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        shutil.copy(rig.PROFILES / f"{name}.yaml", file)
    with pytest.MonkeyPatch.context() as patch:
        if "SENSEGATE_SOAK" not in os.environ:
            patch.setattr(rig, "PROFILES", folder)
        yield


@pytest.mark.parametrize("name", SHORT if "SENSEGATE_SOAK" in os.environ else sorted(SHORT.keys() - CITIES))
async def test_a_bench_runs_and_loses_nothing(name: str) -> None:
    """Every benchmark returns a figure with its unit, and what it counted is complete."""
    figures: dict[str, Any] = await importlib.import_module(f"tests.bench.{name}").bench(**SHORT[name])
    assert isinstance(figures["figure"], int | float)
    assert figures["unit"]
    assert figures.get("complete", True), figures
