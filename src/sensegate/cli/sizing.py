"""`sensegate size`: resources for a number of devices, by costs that the benchmarks measured, and the next limit."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import msgspec
import typer

from sensegate.cli.output import console, print_table

GIB = 1024**3
HEADROOM = 0.5
"""Share of a measured saturation that is planned with: at half of it the latency was measured."""


class MeasuredCosts(msgspec.Struct, frozen=True):
    """Costs on two cores, from `tests/bench/results.jsonl`; a test holds them against it."""

    cpu_us_per_message: float = 25.7
    """Bench `latency`: of the gateway, at half of its saturation, with a subscriber of everything."""
    light_cpu_us_per_message: float = 955.4
    """Bench `latency`: the same at a hundredth of its saturation, where commits are small for the sake of latency."""
    light_messages_per_s: float = 628
    """Bench `latency`: that rate."""
    idle_cpu_us_per_message: float = 11_400
    """Bench `latency`: the same with a few messages a second, each a commit of its own."""
    idle_messages_per_s: float = 10
    """Bench `latency`: that rate."""
    messages_per_s_max: float = 62_765
    """Bench `latency`: saturation of one committer, to the last event at that subscriber."""
    base_mb: float = 205
    """Bench `memory`: the gateway without devices' series."""
    bytes_per_series: float = 905
    """Bench `memory`."""
    bytes_per_reading: float = 11.5
    """Bench `start`: of the store (readings, messages as received, ledgers), by readings."""
    link_bytes_per_reading: float = 4.52
    """Bench `uplink`: both directions at the socket."""


MEASURED = MeasuredCosts()
CONNECTIONS_PER_FRONT = 20_000
"""Default of listen.mqtt.connections_max."""
FRONT_BASE_MB = 60.0
SERVER_MB = 250.0
"""Memory of nats-server with a store of some GB, beside its page cache."""
CONNECTION_KIB = {"plain": 3.0, "tls": 50.0}
"""Memory of a connection at a front; by TLS mostly OpenSSL's."""
CONNECTS_PER_S = {"plain": 1_600.0, "tls": 500.0}
"""Devices that a front process takes back in a second: plain by bench `storm`; by TLS assumed, with its own core."""


class Demand(msgspec.Struct, frozen=True):
    """Load that a city puts on its gateways."""

    devices: int
    interval_s: float
    values: int = 6
    """Readings in a message."""
    tls: bool = False
    retention_h: float = 168
    replicas: int = 1


class Estimate(msgspec.Struct, frozen=True):
    """Resources for a load, summed over all nodes; in a cluster `disk_gib` is that of each machine."""

    messages_per_s: float
    nodes: int
    fronts: int
    """MQTT processes of each node."""
    cores: float
    """Cores for the load at half of their saturation; at least what the gateways take while cores are idle."""
    light_cores: float
    """Cores that the gateways take while cores are idle: small commits, for latency; fewer on a busy machine."""
    memory_gib: float
    disk_gib: float
    link_mbit_s: float
    return_s: float
    """Time until all devices are back after the death of all fronts."""
    limits: tuple[tuple[str, int], ...]
    """Resources that are exhausted, each with the number of devices of one node at which it is; the first one first."""


def estimate(demand: Demand, costs: MeasuredCosts = MEASURED) -> Estimate:
    """Return the resources that a demand needs."""
    kind = "tls" if demand.tls else "plain"
    rate = demand.devices / demand.interval_s
    readings = rate * demand.values
    planned = costs.messages_per_s_max * HEADROOM
    nodes = max(1, math.ceil(rate / planned))
    per_node = math.ceil(demand.devices / nodes)
    fronts = max(1, math.ceil(per_node / (CONNECTIONS_PER_FRONT * HEADROOM * 1.5)))
    light = nodes * _light_cores(rate / nodes, costs)
    series = demand.devices * demand.values
    memory = (
        nodes * (costs.base_mb + SERVER_MB + fronts * FRONT_BASE_MB) * 1024**2
        + series * costs.bytes_per_series
        + demand.devices * CONNECTION_KIB[kind] * 1024
    )
    disk = readings * demand.retention_h * 3_600 * costs.bytes_per_reading
    limits = {
        "committer (more nodes: a member id and areas each)": planned * demand.interval_s,
        f"connections of {fronts} front processes (listen.mqtt.processes)": CONNECTIONS_PER_FRONT * fronts,
        "store.log_bytes at its default of 8 GiB (raise it, or shorten store.readings_ttl_h)": (
            8 * GIB / (demand.values / demand.interval_s * demand.retention_h * 3_600 * costs.bytes_per_reading)
        ),
        "memory of a machine with 16 GiB": (
            (16 * GIB - (costs.base_mb + SERVER_MB + fronts * FRONT_BASE_MB) * 1024**2)
            / (demand.values * costs.bytes_per_series + CONNECTION_KIB[kind] * 1024)
        ),
    }
    return Estimate(
        messages_per_s=rate,
        nodes=nodes,
        fronts=fronts,
        cores=max(rate * costs.cpu_us_per_message / 1e6 / HEADROOM, light),
        light_cores=light,
        memory_gib=memory / GIB,
        disk_gib=disk / nodes / GIB,
        link_mbit_s=readings * costs.link_bytes_per_reading * 8 / 1e6,
        return_s=per_node / (CONNECTS_PER_S[kind] * fronts),
        limits=tuple(sorted(((name, int(devices)) for name, devices in limits.items()), key=_by_devices)),
    )


def _light_cores(rate: float, costs: MeasuredCosts) -> float:
    """Return the cores that one gateway takes while cores are idle: straight lines between the rates measured."""
    half = costs.messages_per_s_max * HEADROOM
    measured = [
        (0.0, 0.0),
        (costs.idle_messages_per_s, costs.idle_messages_per_s * costs.idle_cpu_us_per_message / 1e6),
        (costs.light_messages_per_s, costs.light_messages_per_s * costs.light_cpu_us_per_message / 1e6),
        (half, half * costs.cpu_us_per_message / 1e6),
    ]
    rate = min(rate, half)  # above it by rounding only
    (low, least), (high, most) = next(pair for pair in pairwise(measured) if rate <= pair[1][0])
    return least + (most - least) * (rate - low) / (high - low)


def _by_devices(limit: tuple[str, int]) -> int:
    return limit[1]


def size(
    *,
    devices: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="Number of devices.")],
    interval: Annotated[float, typer.Option(min=0.01, help="Seconds between two messages of a device.")],
    values: Annotated[int, typer.Option(min=1, max=10_000, help="Readings in a message.")] = 6,
    tls: Annotated[bool, typer.Option("--tls/--plain", help="Whether devices connect by TLS.")] = True,
    retention: Annotated[float, typer.Option(min=1, help="Hours for which the log keeps readings.")] = 168.0,
    replicas: Annotated[int, typer.Option(min=1, max=5, help="Copies of the store: 3 on a cluster.")] = 1,
) -> None:
    """Print the cores, memory, disk, link and nodes that a number of devices needs, and the limit reached next.

    The costs were measured on two cores (tests/bench); deploy/SCALING.md says how. Measure your own before you buy.

    Example: sensegate size --devices 100000 --interval 60
    """
    result = estimate(Demand(devices, interval, values, tls, retention, replicas))
    machines = result.nodes * (3 if replicas > 1 else 1)
    load = "at half load" if result.cores > result.light_cores else "in small commits for latency, while cores are idle"
    needed = {
        "messages a second": f"{result.messages_per_s:,.0f}",
        "nodes": f"{result.nodes}, on {machines} machine{'s' * (machines > 1)}",
        "front processes a node": f"{result.fronts}",
        "cores, all nodes": f"{result.cores:.1f}, {load}",
        "memory, all nodes": f"{result.memory_gib:.1f} GiB",
        "disk of each machine": f"{result.disk_gib:.1f} GiB for {retention:g} h",
        "link to the centre": f"{result.link_mbit_s:.2f} Mbit/s",
        "all devices back after a storm": f"{result.return_s:.0f} s",
    }
    print_table([{"item": item, "needed": text} for item, text in needed.items()], ("item", "needed"))
    console.print("What gives out next, one node:", highlight=False)
    for name, at in result.limits:
        console.print(f"  at {at:,} devices: {name}", highlight=False, soft_wrap=True)
