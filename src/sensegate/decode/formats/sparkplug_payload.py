"""The payload of Sparkplug B (Eclipse Sparkplug 3.0, chapter 6): metrics as they are sent, with their types if stated.

Read with `decode.protobuf`, an own reader with limits: the library builds an object for every two bytes of a hostile
payload before anyone can count them, and its classes are untyped. Field numbers are those of the specification's
schema.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sensegate.decode.formats.sparkplug_types import (
    BLOB,
    DOUBLE,
    FLOAT,
    INT,
    MEMBERS,
    TABLE,
    TEXT,
    TRUTH,
    UNKNOWN,
    UntypedValue,
    type_name,
)
from sensegate.decode.protobuf import BYTES, FIXED32, FIXED64, VARINT, Field, WireReader
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

FIELDS_MAX: Final = 32_768
"""Most fields of a payload: those of 2,700 metrics with their units. Limits the time that one message can take."""
CELLS_MAX: Final = 8_192
"""Most cells of data sets and properties in a payload."""
METRICS_MAX: Final = 4_096
"""Most metrics of a payload, including members of templates: more would exceed the elements of a message."""
_OTHERS_MAX: Final = 64
"""Most fields of a payload that are not metrics."""
NAME_MAX: Final = 1_024
"""Longest name of a metric with all its enclosing names, in characters."""
_WIRE_OF: Final = (VARINT, VARINT, FIXED32, FIXED64, VARINT, BYTES, BYTES, BYTES, BYTES)
_VALUE_OF_METRIC, _VALUE_OF_CELL, _VALUE_OF_NAMED = 10, 1, 3
"""Number of the first field of each `oneof`: of a metric, of a data set's cell, of a property or parameter."""
_SET, _SETS = 9, 10
"""Fields of a property that is a property set, or a list of such sets."""


class SparkplugMetric(msgspec.Struct, frozen=True):
    """A metric as it was sent; its members are in the order of the schema's fields."""

    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    """ms UTC."""
    datatype: int | None = None
    historical: bool = False
    transient: bool = False
    null: bool = False
    metadata: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    value: UntypedValue | None = None

    def read(self, datatype: int | None) -> Any:
        """Return the value as a data type (None: the metric's own, or untyped); None if it is null."""
        chosen = self.datatype if datatype is None else datatype
        if chosen is not None:
            type_name(chosen)
        return None if self.null or self.value is None else self.value.as_type(chosen or UNKNOWN)

    def tree(self) -> dict[str, Any]:
        """Return the metric as dicts, lists and scalars, without absent members."""
        tree: dict[str, Any] = {
            "datatype": None if self.datatype is None else type_name(self.datatype),
            "value": self.read(None),
        }
        optional = {"name": self.name, "alias": self.alias, "timestamp": self.timestamp}
        truthy = {
            "is_historical": self.historical,
            "is_transient": self.transient,
            "is_null": self.null,
            "metadata": self.metadata,
            "properties": self.properties,
        }
        tree.update((key, value) for key, value in optional.items() if value is not None)
        tree.update((key, value) for key, value in truthy.items() if value)
        return tree


class DataSet(msgspec.Struct, frozen=True):
    """A data set."""

    columns: tuple[str, ...]
    types: tuple[int, ...]
    rows: tuple[tuple[Any, ...], ...]

    def tree(self) -> dict[str, Any]:
        """Return the data set as ``{columns, types, rows}``."""
        return {
            "columns": list(self.columns),
            "types": [type_name(datatype) for datatype in self.types],
            "rows": [list(row) for row in self.rows],
        }


class SparkplugTemplate(msgspec.Struct, frozen=True):
    """A template: the definition of a structure, or an instance of one."""

    metrics: tuple[SparkplugMetric, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()
    version: str = ""
    reference: str = ""
    """Name of the definition, for an instance."""
    definition: bool = False

    def tree(self) -> dict[str, Any]:
        """Return the template as dicts and lists."""
        tree: dict[str, Any] = {
            "is_definition": self.definition,
            "metrics": [metric.tree() for metric in self.metrics],
        }
        if self.parameters:
            tree["parameters"] = list(self.parameters)
        if self.version:
            tree["version"] = self.version
        if self.reference:
            tree["template_ref"] = self.reference
        return tree


class SparkplugPayload(msgspec.Struct, frozen=True):
    """A complete payload."""

    metrics: tuple[SparkplugMetric, ...] = ()
    timestamp: int | None = None
    """ms UTC."""
    seq: int | None = None
    uuid: str = ""
    body: bytes = b""


def bounded_name(name: str) -> str:
    """Return the name of a metric, a member or a column. Raises `Rejected` if it is too long."""
    if len(name) > NAME_MAX:
        raise Rejected(QuarantineReason.SCHEMA, f"a name has {len(name)} characters; at most {NAME_MAX} are allowed")
    return name


def read(payload: bytes, nesting_max: int) -> SparkplugPayload:
    """Parse a payload. Raises `Rejected` if the bytes are not a payload."""
    return _Reader(payload, nesting_max).payload()


class _Reader:
    """The reading of one payload."""

    def __init__(self, payload: bytes, nesting_max: int) -> None:
        self._wire = WireReader(payload, FIELDS_MAX)
        self._nesting_max = nesting_max
        self._metrics = self._cells = 0

    def payload(self) -> SparkplugPayload:
        wire = self._wire
        metrics: list[SparkplugMetric] = []
        members: dict[str, Any] = {}
        fields = wire.fields(0, len(wire.payload))
        if len(fields) > METRICS_MAX + _OTHERS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {METRICS_MAX} metrics")
        for number, kind, start, end in fields:
            if number == 2 and kind == BYTES:
                metrics.append(self._metric(start, end, 1))
            elif number == 1 and kind == VARINT:
                members["timestamp"] = start
            elif number == 3 and kind == VARINT:
                members["seq"] = start
            elif number == 4 and kind == BYTES:
                members["uuid"] = wire.text(start, end)
            elif number == 5 and kind == BYTES:
                members["body"] = wire.payload[start:end]
        return SparkplugPayload(tuple(metrics), **members)

    def _count_cells(self, cells: int) -> None:
        self._cells += cells
        if self._cells > CELLS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {CELLS_MAX} cells and properties")

    def _nested(self, depth: int) -> int:
        if depth >= self._nesting_max:
            raise Rejected(QuarantineReason.TOO_DEEP, f"nested more than {self._nesting_max} deep")
        return depth + 1

    def _metric(self, at: int, stop: int, depth: int) -> SparkplugMetric:
        wire = self._wire
        self._metrics += 1
        if self._metrics > METRICS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {METRICS_MAX} metrics")
        members: list[Any] = [None, None, None, None, False, False, False, None, None, None]
        for field in wire.fields(at, stop):
            number, kind, start, end = field
            if number >= _VALUE_OF_METRIC:
                members[-1] = self._value(field, _VALUE_OF_METRIC, depth) or members[-1]
            elif kind == VARINT and 2 <= number <= 7:
                members[number - 1] = start if number < 5 else bool(start)
            elif kind == BYTES and number == 1:
                members[0] = bounded_name(wire.text(start, end))
            elif kind == BYTES and number == 8:
                members[7] = self._metadata(start, end)
            elif kind == BYTES and number == 9:
                members[8] = self._properties(start, end, self._nested(depth))
        return SparkplugMetric(*members)

    def _value(self, field: Field, first: int, depth: int) -> UntypedValue | None:
        """Return the value of a field of a `oneof`, None if the schema has no such field."""
        number, wire, start, end = field
        kind = number - first
        if not INT <= kind <= (MEMBERS if first == _VALUE_OF_METRIC else TEXT) or _WIRE_OF[kind] != wire:
            return None
        raw: Any
        if kind == TABLE:
            raw = self._table(start, end)
        elif kind == MEMBERS:
            raw = self._template(start, end, self._nested(depth))
        elif kind == DOUBLE:
            raw = self._wire.float64(start)
        elif kind == FLOAT:
            raw = self._wire.float32(start)
        elif kind == TEXT:
            raw = self._wire.text(start, end)
        elif kind == BLOB:
            raw = self._wire.payload[start:end]
        else:
            raw = bool(start) if kind == TRUTH else start & 0xFFFF_FFFF if kind == INT else start
        return UntypedValue(kind, raw)

    def _metadata(self, at: int, stop: int) -> dict[str, Any]:
        wire = self._wire
        metadata: dict[str, Any] = {}
        for number, kind, start, end in wire.fields(at, stop):
            key = _METADATA_KEYS.get(number)
            if key is None or kind != (VARINT if number in {1, 3, 4} else BYTES):
                continue
            metadata[key] = wire.text(start, end) if kind == BYTES else bool(start) if number == 1 else start
        return metadata

    # ── properties ───────────────────────────────────────────────────────────────────────────────────

    def _properties(self, at: int, stop: int, depth: int) -> dict[str, Any]:
        keys: list[str] = []
        values: list[Any] = []
        fields = self._wire.fields(at, stop)
        self._count_cells(len(fields) // 2)
        for number, kind, start, end in fields:
            if number == 1 and kind == BYTES:
                keys.append(self._wire.text(start, end))
            elif number == 2 and kind == BYTES:
                values.append(self._property(start, end, depth))
        if len(keys) != len(values) or len(set(keys)) != len(keys):
            raise Rejected(QuarantineReason.SCHEMA, "the keys of a property set do not match its values")
        return dict(zip(keys, values, strict=True))

    def _property(self, at: int, stop: int, depth: int) -> Any:
        datatype, null = UNKNOWN, False
        value: Any = None
        for field in self._wire.fields(at, stop):
            number, kind, start, end = field
            if number == 1 and kind == VARINT:
                datatype = start
            elif number == 2 and kind == VARINT:
                null = bool(start)
            elif number == _SET and kind == BYTES:
                value = self._properties(start, end, self._nested(depth))
            elif number == _SETS and kind == BYTES:
                value = [
                    self._properties(first, last, self._nested(depth))
                    for inner, form, first, last in self._wire.fields(start, end)
                    if (inner, form) == (1, BYTES)
                ]
            else:
                value = self._value(field, _VALUE_OF_NAMED, depth) or value
        type_name(datatype)
        if null:
            return None
        return value.as_type(datatype) if isinstance(value, UntypedValue) else value

    # ── data sets and templates ──────────────────────────────────────────────────────────────────────

    def _table(self, at: int, stop: int) -> DataSet:
        wire = self._wire
        columns: list[str] = []
        types: list[int] = []
        positions: list[tuple[int, int]] = []
        for number, kind, start, end in wire.fields(at, stop):
            if number == 2 and kind == BYTES:
                columns.append(bounded_name(wire.text(start, end)))
            elif number == 3:
                types += wire.varints(start, end) if kind == BYTES else [start] if kind == VARINT else []
            elif number == 4 and kind == BYTES:
                positions.append((start, end))
        if len(columns) != len(types) or len(set(columns)) != len(columns):
            raise Rejected(QuarantineReason.SCHEMA, "a data set needs a type and a unique name for each column")
        return DataSet(tuple(columns), tuple(types), tuple(self._row(start, end, types) for start, end in positions))

    def _row(self, at: int, stop: int, types: list[int]) -> tuple[Any, ...]:
        cells = [
            (start, end) for number, kind, start, end in self._wire.fields(at, stop) if (number, kind) == (1, BYTES)
        ]
        self._count_cells(len(cells))
        if len(cells) != len(types):
            raise Rejected(
                QuarantineReason.SCHEMA, f"a row of {len(cells)} cells in a data set of {len(types)} columns"
            )
        return tuple(self._cell(start, end, datatype) for (start, end), datatype in zip(cells, types, strict=True))

    def _cell(self, at: int, stop: int, datatype: int) -> Any:
        value: UntypedValue | None = None
        for field in self._wire.fields(at, stop):
            value = self._value(field, _VALUE_OF_CELL, 0) or value
        return None if value is None else value.as_type(datatype)

    def _template(self, at: int, stop: int, depth: int) -> SparkplugTemplate:
        wire = self._wire
        metrics: list[SparkplugMetric] = []
        parameters: list[dict[str, Any]] = []
        members: dict[str, Any] = {}
        for number, kind, start, end in wire.fields(at, stop):
            if number == 5 and kind == VARINT:
                members["definition"] = bool(start)
            elif kind != BYTES:
                continue
            elif number == 1:
                members["version"] = wire.text(start, end)
            elif number == 2:
                metrics.append(self._metric(start, end, depth))
            elif number == 3:
                parameters.append(self._parameter(start, end))
            elif number == 4:
                members["reference"] = wire.text(start, end)
        return SparkplugTemplate(tuple(metrics), tuple(parameters), **members)

    def _parameter(self, at: int, stop: int) -> dict[str, Any]:
        name, datatype = "", UNKNOWN
        value: UntypedValue | None = None
        for field in self._wire.fields(at, stop):
            number, kind, start, end = field
            if number == 1 and kind == BYTES:
                name = self._wire.text(start, end)
            elif number == 2 and kind == VARINT:
                datatype = start
            else:
                value = self._value(field, _VALUE_OF_NAMED, 0) or value
        kind_name = type_name(datatype)
        return {"name": name, "type": kind_name, "value": None if value is None else value.as_type(datatype)}


_METADATA_KEYS: Final = {
    1: "is_multi_part",
    2: "content_type",
    3: "size",
    4: "seq",
    5: "file_name",
    6: "file_type",
    7: "md5",
    8: "description",
}
