"""The fast path of envelopes: envelopes of one shape are opened together, and their frames grouped by reader.

An envelope's plan finds the frame, its device, port, times and counter; each frame then goes the fast path of its own
device's rules (`columnar.py`), and values beside it become columns too. If anything does not fit, in the envelope or in
the frame, the whole message goes the slow path. A cache: bounded, and it never changes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sensegate.decode.columnar import ColumnarReader
from sensegate.decode.envelope import port_of
from sensegate.decode.extract import BoundMessage, digest16
from sensegate.decode.identity import Reception, identify, is_stable
from sensegate.decode.plan import ColumnPlan, LeafAccess, PlanBatch, Shape, ShapeType
from sensegate.decode.plan_parts import Getter
from sensegate.decode.profile import NONE, CompiledRule
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import I64, U8, U16
from sensegate.quantities.quality import TimeQuality


class EnvelopeFrames(NamedTuple):
    """Frames from some envelopes that go to the same reader."""

    places: list[int]
    """Index of each frame's envelope in the batch."""
    data: list[bytes]
    ports: list[int | None]
    devices: list[int]
    receptions: list[Reception]

    def take(self, indices: list[int]) -> EnvelopeFrames:
        """Return the frames at some indices."""
        if len(indices) == len(self.places):
            return self
        return EnvelopeFrames(
            [self.places[index] for index in indices],
            [self.data[index] for index in indices],
            [self.ports[index] for index in indices],
            [self.devices[index] for index in indices],
            [self.receptions[index] for index in indices],
        )


ReaderOf = Callable[[int, int | None], ColumnarReader | None]
"""(device, port) -> reader for the frames of its rules; None: one by one."""
DeviceOf = Callable[[str, CompiledRule, int], int]


class EnvelopePlan:
    """Plan by which a rule opens envelopes of one shape."""

    def __init__(
        self, rule: CompiledRule, bound: BoundMessage, shape: Shape, beside: tuple[CompiledRule, BoundMessage] | None
    ) -> None:
        """Make the plan; raises `ValueError` or `TypeError` if the shape cannot be planned."""
        if len(bound.elements) != 1 or rule.payload is None:
            raise ValueError("the envelope does not hold exactly one frame")
        element = bound.elements[0]
        types = ShapeType(frozenset())
        self.decode = msgspec.json.Decoder(types.build(shape, (), "")).decode
        self.quotes = types.quotes
        self.rule = rule
        self._payload = rule.payload
        access = LeafAccess(types.attributes, attrgetter)
        leaves = (element.device, element.time, element.sequence, element.message_id, element.frame, element.port)
        getters = [None if leaf is None else access.get(leaf) for leaf in leaves]
        self._device, self._time, self._sequence, self._message_id, frame, self._port = getters
        if frame is None:
            raise ValueError("no frame")
        self._frame: Getter = frame
        self._path = [access.get(leaf) for leaf in bound.path]
        self.beside = None if beside is None else ColumnPlan(*beside, None, access)
        self.names_devices = self._device is not None or (self.beside is not None and self.beside.names_devices)

    def open(self, batch: PlanBatch, device_of: DeviceOf, reader_of: ReaderOf) -> dict[ColumnarReader, EnvelopeFrames]:
        """Return the frames by reader; frames that are left out go the slow path with their messages."""
        objects = batch.objects
        times, qualities = self._times(objects, batch.received)
        counters = _column(self._sequence, objects)
        message_ids = _column(self._message_id, objects)
        ports = _column(self._port, objects)
        devices = batch.device.tolist()
        if self._device is not None:
            names = map(self._device, objects)
            devices = [device_of(str(name), self.rule, gw) for name, gw in zip(names, batch.gateways, strict=True)]
        by_reader: dict[ColumnarReader, EnvelopeFrames] = {}
        other_times = len(self.rule.time) > 1 and not self.rule.time_joined
        for index, raw in enumerate(map(self._frame, objects)):
            if other_times and times[index] == BAD:
                continue  # another member may hold the time
            port = None if self._port is None else port_of(ports[index])
            if devices[index] < 0 or (port is None and self._port is not None):
                continue
            reader = reader_of(devices[index], port)
            if reader is None:
                continue
            try:
                data = self._payload.bytes_of(raw)
            except Rejected:
                continue
            if not data:
                continue
            time, quality = int(times[index]), int(qualities[index])
            identity, key = NONE, None
            if self.rule.identity:
                stable_time = time if self._time is not None and time != BAD and is_stable(self.rule, quality) else None
                identity, key = identify(self.rule, stable_time, counters[index], message_ids[index], data)
            frames = by_reader.setdefault(reader, EnvelopeFrames([], [], [], [], []))
            frames.places.append(index)
            frames.data.append(data)
            frames.ports.append(port)
            frames.devices.append(devices[index])
            frames.receptions.append(Reception(time, quality, identity, key, counters[index], data))
        return by_reader

    def _times(self, objects: Sequence[Any], received: I64) -> tuple[I64, U8]:
        """Return (time, quality) of each envelope."""
        if self._time is None:
            return received, np.full(len(received), TimeQuality.RECEIVED, np.uint8)
        return self.rule.reader.column(list(map(self._time, objects)), received)

    def paths(self, batch: PlanBatch) -> U16:
        """Return 16 bits of each message's path, including the members that state it."""
        path = batch.path
        for index, get in enumerate(self._path):
            path = path ^ np.array([digest16(f"{index} {get(item)}") for item in batch.objects], np.uint16)
        return path


def _column(get: Getter | None, objects: Sequence[Any]) -> list[Any]:
    return [None] * len(objects) if get is None else list(map(get, objects))
