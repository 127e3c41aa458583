"""GB/T 26875.3-2011: reports of a fire transmission device, with one element for each information object.

The tree: ``{"serial", "version", "sent", "source", "target", "command", "type", "objects": [{"device", "kind", "time",
…}]}``; addresses as twelve hex digits with the high byte first, times as ISO 8601 without a zone.

* ``device`` is the source address for the transmission device itself, ``<source>-<system type>-<system address>`` for a
  system behind it, and ``…-<zone>-<place>`` for a component of it (decimal numbers): the alias under which it is
  registered.
* ``kind`` is system, component, analogue, operation, device, device_operation, version, clock or setting.
* ``state`` holds the bits of a state word as true or false, ``analogue`` and ``value`` the measured quantity, in
  ``unit``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sensegate import metrics
from sensegate.decode.formats.gbt26875_columns import Gbt26875Columns, ObjectKind, Pointer
from sensegate.decode.frame import PayloadFormat, PayloadFrame, WarnedObject
from sensegate.errors import Rejected
from sensegate.frames import gbt26875
from sensegate.model import QuarantineReason

SYSTEM_STATES: Final = [
    "normal",
    "fire",
    "fault",
    "shielded",
    "supervised",
    "started",
    "feedback",
    "delayed",
    "mains_fault",
    "battery_fault",
    "bus_fault",
    "manual",
    "configured",
    "reset",
]
"""Bits of a system's state (8.2.1.1)."""
COMPONENT_STATES: Final = [
    "normal",
    "fire",
    "fault",
    "shielded",
    "supervised",
    "started",
    "feedback",
    "delayed",
    "power_fault",
]
"""Bits of a component's state (8.2.1.2)."""
DEVICE_STATES: Final = ["normal", "fire", "fault", "mains_fault", "battery_fault", "channel_fault", "line_fault"]
"""Bits of the transmission device's own state (8.2.1.8)."""
OPERATIONS: Final = ["reset", "silenced", "manual_alarm", "cleared", "self_test", "confirmed", "test"]
"""Bits of an operation (8.2.1.4); for the transmission device, bit 5 is the guard's answer (8.2.1.9)."""
ANALOGUES: Final = {
    1: ("count", "1", 1.0),
    2: ("height", "m", 0.01),
    3: ("temperature", "Cel", 0.1),
    4: ("pressure_mpa", "MPa", 0.1),
    5: ("pressure", "kPa", 0.1),
    6: ("gas", "%", 0.1),
    7: ("duration", "s", 1.0),
    8: ("voltage", "V", 0.1),
    9: ("current", "A", 0.1),
    10: ("flow", "L/s", 0.1),
    11: ("air_flow", "m3/min", 0.1),
    12: ("air_speed", "m/s", 1.0),
}
"""Type of an analogue value -> name, unit, resolution (table 7)."""
_UPWARD_MAX = 40
"""Types above this are requests of a centre: they have no objects for a tree."""

_KNOWN_MAX = 8_192
"""Most texts, times and places that are kept once they were read."""

Object = dict[str, Any]


class _Reader:
    """Takes bytes from the front of the data."""

    def __init__(self, data: bytes, source: str) -> None:
        self._data = data
        self._at = 0
        self.source = source

    def take(self, size: int) -> bytes:
        """Return the next bytes. Raises `Rejected` (malformed) if there are fewer."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        if len(taken) < size:
            raise Rejected(QuarantineReason.MALFORMED, f"an information object is truncated: {size} bytes expected")
        return taken

    def number(self, size: int = 1) -> int:
        """Return the next bytes as a number."""
        return int.from_bytes(self.take(size), "little")

    def text(self, size: int) -> str:
        """Return the next bytes as text in GB 18030, without padding."""
        return _text(self.take(size))

    def time(self) -> str | None:
        """Return the next time stamp."""
        return clock(self.take(gbt26875.TIME))

    @property
    def left(self) -> int:
        """Number of bytes left."""
        return len(self._data) - self._at


@lru_cache(_KNOWN_MAX)
def _text(raw: bytes) -> str:
    return raw.decode("gb18030", "replace").strip("\0 ")


@lru_cache(_KNOWN_MAX)  # devices report at the same seconds
def clock(raw: bytes) -> str | None:
    """Return six bytes (second, minute, hour, day, month, year) as ISO 8601, None if they are not a time."""
    second, minute, hour, day, month, year = raw
    try:
        time = datetime(2000 + year, month, day, hour, minute, second)  # noqa: DTZ001 - the device's own clock
    except ValueError:
        return None
    return f"{time:%Y-%m-%dT%H:%M:%S}"


def _bits(word: int, names: list[str]) -> dict[str, bool]:
    return {name: bool(word >> bit & 1) for bit, name in enumerate(names)}


def _system_object(read: _Reader, kind: str) -> Object:
    system_type, system = read.number(), read.number()
    device = f"{read.source}-{system_type}-{system}"
    return {"device": device, "kind": kind, "system_type": system_type, "system": system}


def _component_object(read: _Reader, kind: str) -> Object:
    fields = _system_object(read, kind)
    fields["component_type"] = read.number()
    fields["zone"], fields["place"] = read.number(2), read.number(2)
    fields["device"] += f"-{fields['zone']}-{fields['place']}"
    return fields


def _system(read: _Reader) -> Object:
    fields = _system_object(read, "system")
    return fields | {"state": _bits(read.number(2), SYSTEM_STATES), "time": read.time()}


def _component(read: _Reader) -> Object:
    fields = _component_object(read, "component")
    state = _bits(read.number(2), COMPONENT_STATES)
    return fields | {"state": state, "text": read.text(31), "time": read.time()}


def _analogue(read: _Reader) -> Object:
    fields = _component_object(read, "analogue")
    number, value = read.number(), int.from_bytes(read.take(2), "little", signed=True)
    name, unit, step = ANALOGUES.get(number, (f"type_{number}", "1", 1.0))
    # Dividing by whole steps is exact where multiplying by a decimal fraction is not.
    exact = value / round(1 / step)
    return fields | {"analogue": name, "unit": unit, "value": exact, "time": read.time()}


def _operation(read: _Reader) -> Object:
    fields = _system_object(read, "operation")
    return fields | {"operation": _bits(read.number(), OPERATIONS), "operator": read.number(), "time": read.time()}


def _version(read: _Reader) -> Object:
    return _system_object(read, "version") | {"text": f"{read.number()}.{read.number()}", "time": None}


def _setting(read: _Reader) -> Object:
    return _system_object(read, "setting") | {"text": read.text(read.number()), "time": None}


def _component_setting(read: _Reader) -> Object:
    return _component_object(read, "setting") | {"text": read.text(31), "time": None}


def _clock(read: _Reader) -> Object:
    return _system_object(read, "clock") | {"time": read.time()}


def _device(read: _Reader) -> Object:
    state = _bits(read.number(), DEVICE_STATES)
    return {"device": read.source, "kind": "device", "state": state, "time": read.time()}


def _device_operation(read: _Reader) -> Object:
    operation = _bits(read.number(), OPERATIONS)
    operation["answered"] = operation.pop("confirmed")
    fields: Object = {"device": read.source, "kind": "device_operation", "operation": operation}
    return fields | {"operator": read.number(), "time": read.time()}


def _device_version(read: _Reader) -> Object:
    text = f"{read.number()}.{read.number()}"
    return {"device": read.source, "kind": "version", "text": text, "time": None}


def _device_setting(read: _Reader) -> Object:
    return {"device": read.source, "kind": "setting", "text": read.text(read.number()), "time": None}


def _device_clock(read: _Reader) -> Object:
    return {"device": read.source, "kind": "clock", "time": read.time()}


OBJECTS: Final[dict[int, Callable[[_Reader], Object]]] = {
    1: _system,
    2: _component,
    3: _analogue,
    4: _operation,
    5: _version,
    6: _setting,
    7: _component_setting,
    8: _clock,
    21: _device,
    24: _device_operation,
    25: _device_version,
    26: _device_setting,
    28: _device_clock,
}
"""Type of the data unit (table 4) -> reader of one of its objects."""


# ── objects of a fixed size, as flat values ──────────────────────────────────────────────────────────

Values = tuple[Any, ...]


@lru_cache(_KNOWN_MAX)
def _system_of(source: str, *numbers: int) -> Values:
    """Return (device, system type, system)."""
    return ("-".join((source, *map(str, numbers))), *numbers)


@lru_cache(_KNOWN_MAX)
def _component_of(source: str, system_type: int, system: int, component_type: int, zone: int, place: int) -> Values:
    """Return (device, system type, system, component type, zone, place)."""
    device = f"{source}-{system_type}-{system}-{zone}-{place}"
    return device, system_type, system, component_type, zone, place


@lru_cache(_KNOWN_MAX)
def _states(word: int, count: int) -> tuple[bool, ...]:
    return tuple(bool(word >> bit & 1) for bit in range(count))


@lru_cache(256)
def _quantity(number: int) -> tuple[str, str, int]:
    """Return (name, unit, steps for each unit)."""
    name, unit, step = ANALOGUES.get(number, (f"type_{number}", "1", 1.0))
    return name, unit, round(1 / step)


def _system_values(source: str, raw: Values) -> Values:
    system_type, system, word, time = raw
    return (*_system_of(source, system_type, system), *_states(word, len(SYSTEM_STATES)), clock(time))


def _component_values(source: str, raw: Values) -> Values:
    word, text, time = raw[5:]
    return (*_component_of(source, *raw[:5]), *_states(word, len(COMPONENT_STATES)), _text(text), clock(time))


def _analogue_values(source: str, raw: Values) -> Values:
    number, value, time = raw[5:]
    name, unit, steps = _quantity(number)
    return (*_component_of(source, *raw[:5]), name, unit, value / steps, clock(time))


def _operation_values(source: str, raw: Values) -> Values:
    system_type, system, word, operator, time = raw
    return (*_system_of(source, system_type, system), *_states(word, len(OPERATIONS)), operator, clock(time))


def _device_values(source: str, raw: Values) -> Values:
    word, time = raw
    return (source, *_states(word, len(DEVICE_STATES)), clock(time))


def _device_operation_values(source: str, raw: Values) -> Values:
    word, operator, time = raw
    return (source, *_states(word, len(OPERATIONS)), operator, clock(time))


def _pointers(*keys: str | list[Pointer]) -> tuple[Pointer, ...]:
    return tuple(pointer for key in keys for pointer in ([(key,)] if isinstance(key, str) else key))


def _below(key: str, names: list[str]) -> list[Pointer]:
    return [(key, name) for name in names]


_SYSTEM = ("device", "system_type", "system")
_COMPONENT = (*_SYSTEM, "component_type", "zone", "place")
_ANSWERED = ["answered" if name == "confirmed" else name for name in OPERATIONS]
_KINDS: Final = {
    1: ObjectKind("system", "BBH6s", _system_values, _pointers(*_SYSTEM, _below("state", SYSTEM_STATES), "time")),
    2: ObjectKind(
        "component",
        "BBBHHH31s6s",
        _component_values,
        _pointers(*_COMPONENT, _below("state", COMPONENT_STATES), "text", "time"),
    ),
    3: ObjectKind(
        "analogue", "BBBHHBh6s", _analogue_values, _pointers(*_COMPONENT, "analogue", "unit", "value", "time")
    ),
    4: ObjectKind(
        "operation",
        "BBBB6s",
        _operation_values,
        _pointers(*_SYSTEM, _below("operation", OPERATIONS), "operator", "time"),
    ),
    21: ObjectKind("device", "B6s", _device_values, _pointers("device", _below("state", DEVICE_STATES), "time")),
    24: ObjectKind(
        "device_operation",
        "BB6s",
        _device_operation_values,
        _pointers("device", _below("operation", _ANSWERED), "operator", "time"),
    ),
}
"""Types whose objects have a fixed size and a time."""


# ── the tree ─────────────────────────────────────────────────────────────────────────────────────────


def parse(payload: bytes) -> dict[str, Any]:
    """Return the tree. Raises `Rejected` if the payload is not a frame, or its checksum is wrong."""
    unit = gbt26875.parse(payload)
    metrics.FRAME_CHECKS.labels("gbt26875", "sum8" if unit.checksum_ok else "none").inc()
    if not unit.checksum_ok:
        raise Rejected(QuarantineReason.CRC_FAIL, "the checksum does not match")
    source = gbt26875.format_address(unit.source)
    warnings: list[str] = []
    tree = {
        "serial": unit.serial,
        "version": f"{unit.version[0]}.{unit.version[1]}",
        "sent": clock(unit.sent),
        "source": source,
        "target": gbt26875.format_address(unit.target),
        "command": unit.command,
        "type": unit.data[0] if unit.data else None,
        "objects": _objects(unit.data, source, warnings),
    }
    return WarnedObject(tree, warnings) if warnings else tree


def _objects(data: bytes, source: str, warnings: list[str]) -> list[Object]:
    """Read the objects; those before one that is truncated are kept, with a warning."""
    if len(data) < 2 or data[0] > _UPWARD_MAX:
        return []
    number, count = data[0], data[1]
    read_object = OBJECTS.get(number)
    if read_object is None:
        return []
    read = _Reader(data[2:], source)
    objects: list[Object] = []
    for _ in range(count):
        try:
            objects.append(read_object(read))
        except Rejected as rejection:
            if not objects:
                raise
            warnings.append(f"{count} objects announced, {rejection.detail}")
            return objects
    if read.left:
        raise Rejected(QuarantineReason.MALFORMED, f"{read.left} bytes after the last of {count} objects")
    return objects


def _parse(frame: PayloadFrame) -> dict[str, Any]:
    return parse(frame.payload)


FORMAT: Final = PayloadFormat(lambda _options, _context: Gbt26875Columns(_parse, clock, _KINDS))
