"""The quick path of envelopes: those of one shape are opened together, and their frames sorted by how they are read.

An envelope's plan finds the frame, its device, port, times and counter; each frame then goes the quick path of its own
device's rules (`flat.py`), and what stands beside it becomes columns too. Whatever does not fit, in the envelope or in
the frame, sends the whole message the general way. A cache: bounded, and it never changes results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sensegate.decode.columnar import Reader
from sensegate.decode.envelope import port_of
from sensegate.decode.extract import Bound, digest16
from sensegate.decode.identity import Reception, identify, settled
from sensegate.decode.plan import Access, Get, Parsed, Plan, Shape, Types
from sensegate.decode.profile import NONE, Rule
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import I64, U8, U16
from sensegate.quantities.quality import TimeQuality


class Frames(NamedTuple):
    """Frames of some envelopes that are read in one way."""

    places: list[int]
    """Which envelopes of the batch they were in."""
    data: list[bytes]
    ports: list[int | None]
    devices: list[int]
    receptions: list[Reception]

    def take(self, at: list[int]) -> Frames:
        """Return some of the frames."""
        if len(at) == len(self.places):
            return self
        return Frames(
            [self.places[i] for i in at],
            [self.data[i] for i in at],
            [self.ports[i] for i in at],
            [self.devices[i] for i in at],
            [self.receptions[i] for i in at],
        )


ReaderOf = Callable[[int, int | None], Reader | None]
"""(device, port) -> how the frames of its rules are read, None: one by one."""
DeviceOf = Callable[[str, Rule, int], int]


class EnvelopePlan:
    """How envelopes of one shape are opened, by one rule."""

    def __init__(self, rule: Rule, bound: Bound, shape: Shape, beside: tuple[Rule, Bound] | None) -> None:
        """Make the plan; raises `ValueError` or `TypeError` where there is none for this shape."""
        if len(bound.elements) != 1 or rule.payload is None:
            raise ValueError("not one frame")
        element = bound.elements[0]
        types = Types(frozenset())
        self.decode = msgspec.json.Decoder(types.build(shape, (), "")).decode
        self.quotes = types.quotes
        self.rule = rule
        self._payload = rule.payload
        access = Access(types.attributes, attrgetter)
        leaves = (element.device, element.time, element.sequence, element.message_id, element.frame, element.port)
        getters = [None if leaf is None else access.get(leaf) for leaf in leaves]
        self._device, self._time, self._sequence, self._message_id, frame, self._port = getters
        if frame is None:
            raise ValueError("no frame")
        self._frame: Get = frame
        self._path = [access.get(leaf) for leaf in bound.path]
        self.beside = None if beside is None else Plan(*beside, None, access)
        self.names_devices = self._device is not None or (self.beside is not None and self.beside.names_devices)

    def open(self, batch: Parsed, device_of: DeviceOf, reader_of: ReaderOf) -> dict[Reader, Frames]:
        """Return the frames by how they are read; those that are left out go the general way with their messages."""
        objects = batch.objects
        times, qualities = self._times(objects, batch.received)
        counters = _column(self._sequence, objects)
        message_ids = _column(self._message_id, objects)
        ports = _column(self._port, objects)
        devices = batch.device.tolist()
        if self._device is not None:
            names = map(self._device, objects)
            devices = [device_of(str(name), self.rule, gw) for name, gw in zip(names, batch.gateways, strict=True)]
        found: dict[Reader, Frames] = {}
        for at, raw in enumerate(map(self._frame, objects)):
            port = None if self._port is None else port_of(ports[at])
            if devices[at] < 0 or (port is None and self._port is not None):
                continue
            reader = reader_of(devices[at], port)
            if reader is None:
                continue
            try:
                data = self._payload.bytes_of(raw)
            except Rejected:
                continue
            if not data:
                continue
            time, quality = int(times[at]), int(qualities[at])
            identity, key = NONE, None
            if self.rule.identity:
                steady = time if self._time is not None and time != BAD and settled(self.rule, quality) else None
                identity, key = identify(self.rule, steady, counters[at], message_ids[at], data)
            frames = found.setdefault(reader, Frames([], [], [], [], []))
            frames.places.append(at)
            frames.data.append(data)
            frames.ports.append(port)
            frames.devices.append(devices[at])
            frames.receptions.append(Reception(time, quality, identity, key, counters[at], data))
        return found

    def _times(self, objects: Sequence[Any], received: I64) -> tuple[I64, U8]:
        """Return (time, quality) of each envelope."""
        if self._time is None:
            return received, np.full(len(received), TimeQuality.RECEIVED, np.uint8)
        return self.rule.reader.column(list(map(self._time, objects)), received)

    def paths(self, batch: Parsed) -> U16:
        """Return 16 bits of each message's way, with what it says of that itself."""
        path = batch.path
        for at, get in enumerate(self._path):
            path = path ^ np.array([digest16(f"{at} {get(one)}") for one in batch.objects], np.uint16)
        return path


def _column(get: Get | None, objects: Sequence[Any]) -> list[Any]:
    return [None] * len(objects) if get is None else list(map(get, objects))
