"""REST: the state of the store and of the machine: streams, disk, connections, sessions."""

from __future__ import annotations

import asyncio
import resource
import shutil
from pathlib import Path

import msgspec

from sensegate.authority.scope import Action
from sensegate.bus import disk
from sensegate.bus.opening import Core
from sensegate.bus.streams import StreamUsage, usages
from sensegate.metrics import MQTT_CONNECTIONS, MQTT_QUEUED
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route

SYSTEM = PartKey[Core]("system", absent="this gateway does not show its store")


class DiskUsage(msgspec.Struct, frozen=True):
    """Room on the disk of the store."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int
    """Free space below which the gateway accepts no readings."""
    has_room: bool


class SystemState(msgspec.Struct, frozen=True):
    """State of the store and of the machine."""

    streams: list[StreamUsage]
    disk: DiskUsage
    mqtt_connections: int
    mqtt_queued_bytes: int
    """Messages that are taken and not yet stored."""
    consumers: int
    """Readers of feeds that are connected or have a position."""
    sessions: int
    """Signed-in people."""
    memory_bytes: int
    """Most memory that this process has had."""


def _disk(directory: Path, reserve: int) -> DiskUsage:
    usage = shutil.disk_usage(directory)
    return DiskUsage(usage.total, usage.free, reserve, disk.has_room(directory, reserve))


async def _system(call: Call) -> SystemState:
    """Get the state of the store and of the machine: streams, disk, connections, sessions."""
    core, deps = call.part(SYSTEM), call.deps
    usage = await asyncio.to_thread(_disk, core.directory, core.config.store.disk_reserve_bytes)
    connections, queued = (
        int(sum(sample.value for metric in gauge.collect() for sample in metric.samples))
        for gauge in (MQTT_CONNECTIONS, MQTT_QUEUED)
    )
    return SystemState(
        streams=await usages(core.bus),
        disk=usage,
        mqtt_connections=connections,
        mqtt_queued_bytes=queued,
        consumers=len(deps.consumers),
        sessions=len(deps.people.sessions) if deps.people else 0,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


ROUTES = tagged(
    "gateway", Route("GET", f"{API}/system", _system, action=Action.READ_AUDIT, or_action=Action.CHANGE_NODES)
)
