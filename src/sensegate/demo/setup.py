"""Set-up of a demo: options, the city's layout, registered devices and cameras, started judge and simulators."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sensegate.config import builtin
from sensegate.demo import cameras, showcase, workers
from sensegate.demo.camera_messages import SimulatedCamera
from sensegate.demo.cameras import CameraEndpoints, CameraPlan
from sensegate.demo.city import City, CityOptions
from sensegate.demo.fleet import KINDS, SimulatedDevice, fleet
from sensegate.demo.registration import (
    BOTH,
    CITIES,
    counties,
    create_subscriber_token,
    register_cameras,
    register_devices,
    register_manual_cameras,
    register_manual_devices,
)
from sensegate.demo.simulator import Broker, SimulationPlan
from sensegate.demo.summary import DemoTokens, ManualDevice, Summary, member_address
from sensegate.demo.workers import Worker
from sensegate.errors import ConfigError

FEED = "all"
SETTLE_S = 2.0
CAMERA_RATE = 0.4
"""Good messages per second of one camera."""
DEADLINE_S = 90.0
MANY_NODES = 4
"""Number of nodes above which the gateways are configured to idle cheaply, as they share one machine."""
MANY_NODES_SETTINGS: dict[str, object] = {"ingest": {"commit_interval_ms": 700, "commit_interval_min_ms": 700}}
"""Otherwise 48 messages a second would make 20 commits a second at each of 21 nodes; for each commit the server creates
a directory and five files, and deletes them. A commit is one uplink span: waiting for fuller ones only delays it. On
two cores twice a second is too often (p99 2.1 s to the centre), a second only adds its wait (1.6 s); this is between
(1.4 s)."""
ONE_CORE = {"GOMAXPROCS": "1", "GOMEMLIMIT": "96MiB", "OPENBLAS_NUM_THREADS": "1"}
DEVICES_MIN = 12
"""Per node: one device of each kind, and some for the faults."""
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command."""

    for_s: float | None = None
    nodes: int = 2
    devices: int = 120
    """Number of simulated devices of all nodes together."""
    cameras: int = 50
    """Number of cameras of all nodes together."""
    rate: float = 200.0
    """Messages per second of all nodes together."""
    summary: Path | None = None
    data: Path | None = None
    seed: int = 1
    cut: bool = True
    centre_http_port: int = 0
    """Fixed by a test that places a proxy in front of it."""
    judge_url: str = ""
    """URL that the judge reads instead of the centre itself (a test's proxy)."""
    deadline_s: float = DEADLINE_S
    """Longest wait for the last readings."""


class DemoWorkers(NamedTuple):
    """Started judge and simulators of a demo."""

    judge: Worker
    simulator: Worker
    cameras: Worker | None
    """None without cameras."""

    @property
    def simulators(self) -> list[Worker]:
        """All simulators."""
        return [self.simulator, *([] if self.cameras is None else [self.cameras])]


def lay_out_city(options: Options, changed: Callable[[], None]) -> City:
    """Lay out a city with these options; `changed` is called when a process was (re)started.

    Raises:
        ConfigError: if the options do not fit the province.
    """
    if options.nodes > len(CITIES):
        raise ConfigError(f"{options.nodes} nodes are too many", remedy=f"the province has {len(CITIES)} cities")
    if options.devices < DEVICES_MIN * options.nodes:
        least = DEVICES_MIN * options.nodes
        raise ConfigError(
            f"{options.devices} devices are too few", key="--devices", remedy=f"give {least} or more for these nodes"
        )
    many = options.nodes > MANY_NODES
    directory = Path(tempfile.mkdtemp(prefix="sensegate-demo-")) if options.data is None else options.data
    city = City(
        directory,
        CITIES[: options.nodes],
        options=CityOptions(
            builtin.PROFILES,
            only=sorted({*(kind.profile for kind in KINDS.values()), *cameras.PROFILES.values(), BOTH}) if many else (),
            temporary=options.data is None,
            cameras=options.cameras > 0,
            settings=MANY_NODES_SETTINGS if many else {},
            environment=ONE_CORE if many else {},
        ),
        changed=changed,
    )
    if options.centre_http_port:
        city.centre.http_port = options.centre_http_port
    return city


def proof_directory(city: City) -> Path:
    """Return the directory with the files of simulators and judge, created if missing."""
    path = city.directory / "proof"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


async def set_up(options: Options, city: City, started: list[Worker]) -> tuple[Summary, DemoWorkers]:
    """Register devices and tokens; start the judge and the simulators.

    Each worker is appended to `started` before it starts, so that the caller can stop it if a later step fails.
    """
    rng = random.Random(options.seed)  # noqa: S311 - repeatable on purpose
    devices, manual_devices = await _register_devices(options, city, rng)
    camera_fleet, manual_cameras = await _register_cameras(options, city, rng)
    token = await create_subscriber_token(city.centre)
    for member in (city.centre, *list(city.nodes.values())[:MANY_NODES]):
        await showcase.prepare(member)
    directory = proof_directory(city)
    judge = workers.judge(
        directory,
        {"centre": (city.centre, token, "")},
        feed=FEED,
        urls={"centre": options.judge_url} if options.judge_url else None,
        settle_s=SETTLE_S,
        deadline_s=options.deadline_s,
        simulators=1 + bool(camera_fleet),
    )
    simulator = workers.simulator(directory, _simulation_plan(options, city, devices))
    camera_worker = workers.cameras(directory, _camera_plan(options, city, camera_fleet)) if camera_fleet else None
    for worker in (judge, simulator, camera_worker):
        if worker is not None:
            started.append(worker)
            await worker.start()
    summary = Summary(
        centre=member_address(city.centre, {}, balanced=True),
        nodes=[member_address(node, {}, balanced=True) for node in city.nodes.values()],
        tokens=DemoTokens(admin=city.centre.token, subscriber=token),
        devices=manual_devices,
        cameras=manual_cameras,
        feeds=[FEED],
        console=f"{city.centre.url}/console/",
        directory=str(city.directory),
        seed=options.seed,
        simulated=len(devices),
    )
    return summary, DemoWorkers(judge, simulator, camera_worker)


async def _register_devices(
    options: Options, city: City, rng: random.Random
) -> tuple[list[SimulatedDevice], list[ManualDevice]]:
    """Register the devices; return the simulator's, and those for manual use."""
    devices: list[SimulatedDevice] = []
    manual: list[ManualDevice] = []
    for node, share in zip(city.nodes.values(), _shares(options), strict=True):
        divisions = counties(node.division)
        devices += await register_devices(node, fleet(node.division, share, counties=divisions, rng=rng), rng)
        manual += await register_manual_devices(node)
    return devices, manual


def _shares(options: Options) -> list[int]:
    """Return the number of devices of each node."""
    each, more = divmod(options.devices, options.nodes)
    return [each + (index < more) for index in range(options.nodes)]


async def _register_cameras(
    options: Options, city: City, rng: random.Random
) -> tuple[list[SimulatedCamera], list[dict[str, str]]]:
    """Register the cameras; return those of the simulator, and those for manual use."""
    registered: list[SimulatedCamera] = []
    manual: list[dict[str, str]] = []
    nodes = list(city.nodes.values())
    for index, node in enumerate(nodes):
        share = (options.cameras + index) // len(nodes)
        if share:
            wanted = cameras.fleet(node.division, share, counties=counties(node.division), rng=rng, first=index)
            registered += await register_cameras(node, wanted, rng)
            manual += await register_manual_cameras(node)
    return registered, manual


def _simulation_plan(options: Options, city: City, devices: list[SimulatedDevice]) -> SimulationPlan:
    return SimulationPlan(
        run=secrets.token_hex(4),
        ledger=str(proof_directory(city) / "simulator.ledger"),
        seed=options.seed,
        rate=options.rate,
        brokers={node.division: Broker(HOST, node.mqtt_port) for node in city.nodes.values()},
        devices=devices,
    )


def _camera_plan(options: Options, city: City, camera_fleet: list[SimulatedCamera]) -> CameraPlan:
    return CameraPlan(
        run=secrets.token_hex(4),
        ledger=str(proof_directory(city) / "cameras.ledger"),
        seed=options.seed,
        rate=len(camera_fleet) * CAMERA_RATE,
        places={
            node.division: CameraEndpoints(
                Broker(HOST, node.mqtt_port), Broker(HOST, node.viid_port), Broker(HOST, node.http_port)
            )
            for node in city.nodes.values()
        },
        cameras=camera_fleet,
    )
