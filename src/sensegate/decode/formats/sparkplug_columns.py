"""Sparkplug data as flat values: messages of one layout, by equal births, are read at once, without a tree.

Names, aliases, types and lengths are the same bytes in all payloads of a layout; what a birth says of them is worked
out once for all births that define the same metrics. A message that is unusual in any way (a gap in the numbers, no
birth, composite values, properties, null) has no form: it goes the way of `sparkplug.parse`, with which this must agree
value by value, and in the state that it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.decode.formats.sparkplug_payload import FIELDS_MAX
from sensegate.decode.formats.sparkplug_session import Birth
from sensegate.decode.formats.sparkplug_types import (
    DOUBLE,
    FLOAT,
    INT,
    TEXT,
    TRUTH,
    UNKNOWN,
    UntypedValue,
    is_as_sent,
    type_name,
)
from sensegate.decode.masked import MaskedBuilder, MaskedForms
from sensegate.decode.paths import Path
from sensegate.decode.protobuf import BYTES, FIXED32, FIXED64, VARINT, Field, WireReader
from sensegate.errors import Rejected

LAYOUTS_MAX: Final = 512
FORMS_MAX: Final = 4_096
"""Most pairs of a layout and equal births."""
_LEAVES_MAX: Final = 256
_SIGHTINGS: Final = 3
_LENGTHS_MAX: Final = 4_096
_VARINT_MAX: Final = 9
_TIMESTAMP, _METRIC, _SEQUENCE = 1, 2, 3
_NAME, _ALIAS, _TIME, _DATATYPE, _VALUE = 1, 2, 3, 4, 10
_WIRES: Final = {INT: VARINT, INT + 1: VARINT, FLOAT: FIXED32, DOUBLE: FIXED64, TRUTH: VARINT, TEXT: BYTES}
"""Fields of a value that have a layout -> wire type."""


class MetricPlace(NamedTuple):
    """A metric of a layout."""

    name: str | None
    alias: int
    datatype: int | None
    kind: int
    """Field of its value."""
    read: Callable[[Any], Any] | None
    """Function that reads the bytes of the value; None: it is read already."""
    time: int
    """Index of its time among the values read; -1: it has that of the payload."""


class DataLayout(msgspec.Struct, frozen=True, eq=False):
    """Payloads that are equal but for times, numbers and values."""

    unpack: Callable[[bytes], tuple[Any, ...]]
    timestamp: int
    """Index among the values read; -1: there is none, as below."""
    sequence: int
    metrics: tuple[MetricPlace, ...]
    values: tuple[int, ...]
    """Index of each metric's value."""


class DataForm(msgspec.Struct, frozen=True, eq=False):
    """Messages whose trees have the same members."""

    pointers: list[Path]


class ResolvedLayout(NamedTuple):
    """A layout, and what births say of its metrics."""

    form: DataForm
    conversions: tuple[tuple[int, Callable[[Any], Any]], ...]
    """Metric -> conversion of its value. Raises `Rejected`."""
    constants: tuple[Any, ...]


class DataColumns:
    """The layouts of data messages that were seen, and what births say of them."""

    def __init__(self, is_control: Callable[[str], bool]) -> None:
        """`is_control`: whether a metric is none of the device."""
        self._is_control = is_control
        self._layouts: MaskedForms[DataLayout] = MaskedForms()
        self._count = 0
        self._lengths: dict[int, int] = {}
        self._resolved: dict[tuple[int, DataLayout, bool], ResolvedLayout | None] = {}
        self._forms: dict[Any, DataForm] = {}

    def layout(self, payload: bytes) -> DataLayout | None:
        """Return the layout of a payload, None if it has none yet."""
        for layout in self._layouts.matching(payload):
            return layout
        if self._count >= LAYOUTS_MAX:
            return None
        if len(self._lengths) > _LENGTHS_MAX:
            self._lengths.clear()
        seen = self._lengths[len(payload)] = self._lengths.get(len(payload), 0) + 1
        if seen < _SIGHTINGS:
            return None
        self._lengths[len(payload)] = 0
        try:
            layout, mask = _layout_of(payload)
        except (Rejected, ValueError):
            return None
        self._count += 1
        self._layouts.add(payload, mask, layout)
        return layout

    def resolve(self, layout: DataLayout, birth: Birth, *, of_device: bool) -> ResolvedLayout | None:
        """Return what a birth says of a layout; None: such messages have no form."""
        key = (birth.model, layout, of_device)
        if key in self._resolved:
            return self._resolved[key]
        if not birth.model or len(self._resolved) >= FORMS_MAX:
            return None
        resolved = self._resolved[key] = self._resolve(layout, birth, of_device=of_device)
        return resolved

    def _resolve(self, layout: DataLayout, birth: Birth, *, of_device: bool) -> ResolvedLayout | None:
        conversions: list[tuple[int, Callable[[Any], Any]]] = []
        constants: list[tuple[Path, Any]] = [(("count",), len(layout.metrics))]
        kinds: list[Any] = [of_device, layout.timestamp < 0, layout.sequence < 0]
        for index, metric in enumerate(layout.metrics):
            known = birth.names.get(metric.name) if metric.name else birth.aliases.get(metric.alias)
            if known is None or self._is_control(known.name):
                return None
            datatype = (metric.datatype if metric.datatype is not None else known.datatype) or UNKNOWN
            try:
                constants += [
                    (("metrics", index, "name"), known.name),
                    (("metrics", index, "datatype"), type_name(datatype)),
                ]
            except Rejected:
                return None
            constants += _leaves(known.properties, ("metrics", index, "properties"))
            if not is_as_sent(metric.kind, datatype):
                conversions.append((index, _conversion(metric.kind, datatype)))
            kinds.append((metric.kind, datatype, metric.time < 0))
        if len(constants) + 4 * len(layout.metrics) > _LEAVES_MAX:
            return None
        pointers = [*_head(layout, of_device=of_device), *(pointer for pointer, _ in constants)]
        key = (tuple(pointers), tuple(kinds), tuple(type(constant) for _, constant in constants))
        form = self._forms.setdefault(key, DataForm(pointers))
        return ResolvedLayout(form, tuple(conversions), tuple(constant for _, constant in constants))


def values_of(
    layout: DataLayout, resolved: ResolvedLayout, raws: tuple[Any, ...], head: tuple[str, ...], device: str
) -> tuple[Any, ...]:
    """Return the values of a message. Raises `Rejected`, and `UnicodeDecodeError`, if one is none of its type.

    `head`: the kind of message, group, node and, of a device, its name there; `device`: its name in the registry.
    """
    values = [raws[place] for place in layout.values]
    for index, metric in enumerate(layout.metrics):
        if metric.read is not None:
            values[index] = metric.read(values[index])
    for index, convert in resolved.conversions:
        values[index] = convert(values[index])
    timestamp = varint_of(raws[layout.timestamp]) if layout.timestamp >= 0 else None
    times = [varint_of(raws[metric.time]) if metric.time >= 0 else timestamp for metric in layout.metrics]
    return (
        *head,
        *(() if timestamp is None else (timestamp,)),
        *((varint_of(raws[layout.sequence]),) if layout.sequence >= 0 else ()),
        *values,
        *[time for time in times if time is not None],
        *[device] * len(values),
        *resolved.constants,
    )


def _head(layout: DataLayout, *, of_device: bool) -> Iterator[Path]:
    """Yield the pointers of what `values_of` returns before the constants."""
    for key in ("type", "group", "node"):
        yield (key,)
    if of_device:
        yield ("device",)
    if layout.timestamp >= 0:
        yield ("timestamp",)
    if layout.sequence >= 0:
        yield ("seq",)
    for index in range(len(layout.metrics)):
        yield ("metrics", index, "value")
    for index, metric in enumerate(layout.metrics):
        if metric.time >= 0 or layout.timestamp >= 0:
            yield ("metrics", index, "time")
    for index in range(len(layout.metrics)):
        yield ("metrics", index, "device")


@lru_cache(16_384)  # all metrics of a message have its time, as a rule
def varint_of(raw: bytes) -> int:
    """Return the number of some bytes."""
    value = 0
    for byte in reversed(raw):
        value = value << 7 | byte & 0x7F
    return value


def _int(raw: bytes) -> int:
    return varint_of(raw) & 0xFFFF_FFFF


def _truth(raw: bytes) -> bool:
    return bool(varint_of(raw))


_READS: Final[dict[int, Callable[[Any], Any] | None]] = {
    INT: _int,
    INT + 1: varint_of,
    FLOAT: None,
    DOUBLE: None,
    TRUTH: _truth,
    TEXT: bytes.decode,
}


def _conversion(kind: int, datatype: int) -> Callable[[Any], Any]:
    return lambda raw: UntypedValue(kind, raw).as_type(datatype)


def _layout_of(payload: bytes) -> tuple[DataLayout, int]:
    """Return (layout, mask). Raises `ValueError` or `Rejected` if others like it may be built differently."""
    walk = _Walk(payload)
    layout = walk.layout()
    built = walk.builder.build()
    return msgspec.structs.replace(layout, unpack=built.unpack), built.mask


class _Walk:
    """Parser that passes over the protobuf fields of one payload once."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._wire = WireReader(payload, FIELDS_MAX)
        self.builder = MaskedBuilder(payload, "<")
        self._count = 0

    def layout(self) -> DataLayout:
        """Return the layout, as yet without its reader. Raises `ValueError` or `Rejected`."""
        places = {_TIMESTAMP: -1, _SEQUENCE: -1}
        metrics: list[MetricPlace] = []
        values: list[int] = []
        for field in self._wire.fields(0, len(self._payload)):
            number, kind, start, end = field
            if number == _METRIC and kind == BYTES:
                metric, value = self._metric(start, end)
                metrics.append(metric)
                values.append(value)
            elif kind == VARINT and places.get(number) == -1:
                places[number] = self._varint(field)
            else:
                raise ValueError("a payload with more than times, a number and metrics")
        if not metrics:
            raise ValueError("no metrics")
        return DataLayout(tuple, places[_TIMESTAMP], places[_SEQUENCE], tuple(metrics), tuple(values))

    def _metric(self, at: int, stop: int) -> tuple[MetricPlace, int]:
        """Return (metric, index of its value)."""
        seen: dict[int, Any] = {}
        kind, value = -1, -1
        for field in self._wire.fields(at, stop):
            number, wire, start, end = field
            if number in seen or (number >= _VALUE and value >= 0):
                raise ValueError("a field is given twice")
            if number >= _VALUE and _WIRES.get(number - _VALUE) == wire:
                kind, value = number - _VALUE, self._value(number - _VALUE, field)
            elif number == _NAME and wire == BYTES:
                seen[number] = self._wire.text(start, end)
            elif number in {_ALIAS, _DATATYPE} and wire == VARINT:
                seen[number] = start
            elif number == _TIME and wire == VARINT:
                seen[number] = self._varint(field)
            else:
                raise ValueError("a metric with more than name, alias, time, type and value")
        if value < 0:
            raise ValueError("a metric without value")
        name, alias = seen.get(_NAME), seen.get(_ALIAS, -1)
        return MetricPlace(name, alias, seen.get(_DATATYPE), kind, _READS[kind], seen.get(_TIME, -1)), value

    def _value(self, kind: int, field: Field) -> int:
        _, wire, start, end = field
        if wire == VARINT:
            return self._varint(field)
        return self._add(f"{end - start}s" if kind == TEXT else "f" if kind == FLOAT else "d", start)

    def _varint(self, field: Field) -> int:
        end = field[3]
        start = end - 1
        while self._payload[start - 1] & 0x80:  # the byte before its first one is the last of its tag
            start -= 1
        if end - start > _VARINT_MAX:
            raise ValueError("a number of more than 63 bits")
        return self._add(f"{end - start}s", start, 0x80)

    def _add(self, code: str, at: int, mask: int = 0) -> int:
        self.builder.add(code, at, mask)
        self._count += 1
        return self._count - 1


def _leaves(tree: Any, path: Path) -> Sequence[tuple[Path, Any]]:
    if isinstance(tree, (dict, list)):
        members = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [leaf for key, member in members for leaf in _leaves(member, (*path, key))]
    return [(path, tree)]
