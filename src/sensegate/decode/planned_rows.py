"""Plans for messages one at a time: for groups so small that columns cost more."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sensegate.decode.extract import digest16
from sensegate.decode.identity import identify, is_stable, number_of
from sensegate.decode.plan_parts import Chunk, IndexOf, PlanParts
from sensegate.decode.profile import UnitConversion, ValueRejection
from sensegate.decode.times import BAD
from sensegate.model import RejectedValue, RejectReason, SequenceNumbers
from sensegate.quantities.quality import TimeQuality

_NAN = float("nan")


class MessageOrigin(NamedTuple):
    """Origin of a message."""

    message: int
    """Index in the batch."""
    received: int
    device: int
    path: int
    gateway: int


class PlannedRows:
    """The columns of a `Chunk` as lists, to which messages are added one at a time."""

    def __init__(self) -> None:
        self.message: list[int] = []
        self.device: list[int] = []
        self.time: list[int] = []
        self.time_quality: list[int] = []
        self.key: list[int] = []
        self.path: list[int] = []
        self.rows: list[int] = []
        self.spec: list[int] = []
        self.value: list[float] = []
        self.text: dict[int, str] = {}
        self.scale: dict[int, tuple[float, float]] = {}
        self.quality: dict[int, int] = {}
        self.rejected: list[RejectedValue] = []
        self.numbered: list[tuple[int, int, int]] = []
        self.ignored = 0

    def chunk(self) -> Chunk:
        """Return the columns."""
        return Chunk(
            np.array(self.message, np.int32),
            np.array(self.device, np.int32),
            np.array(self.time, np.int64),
            np.array(self.time_quality, np.uint8),
            np.array(self.key, np.int64),
            np.array(self.path, np.uint16),
            np.array(self.rows, np.int64),
            np.array(self.spec, np.int32),
            np.array(self.value, np.float64),
            self.text,
            self.scale,
            self.rejected,
            self.ignored,
            self.quality,
            numbered=SequenceNumbers.of(self.numbered),
        )


class _TimedElement(NamedTuple):
    """Device, time and identity of an element of a message."""

    device: int
    time: int
    quality: int
    identity: int
    key: int
    number: int | None
    """Its sequence number."""


class RowPlan:
    """A `ColumnPlan` for messages one at a time; both give the same rows."""

    def __init__(self, parts: PlanParts) -> None:
        self._parts = parts
        self._spans = [
            (bisect_left(parts.element_of, at), bisect_right(parts.element_of, at)) for at in range(len(parts.elements))
        ]
        """First value of each element, and the end of its values."""
        self._specs: list[list[int]] = parts.specs.tolist()
        self._sentinels = [(column, frozenset(numbers.tolist())) for column, numbers in parts.sentinels]
        columns = [] if parts.pure is None else parts.pure.columns
        self._in_order = columns == list(range(len(parts.names)))
        self._is_plain = self._in_order and not (parts.sentinels or parts.qualities)
        """True if all values are numbers that need no look."""

    def add(self, item: Any, origin: MessageOrigin, rows: PlannedRows, units: UnitConversion, look_up: IndexOf) -> bool:
        """Add the rows of a parsed message; return whether that was done: others must be decoded without a plan."""
        try:
            if not self._is_finite(item):
                return False
            elements = self._timed(item, origin, look_up)
            if elements is None:
                return False
            numbers = self._numbers(item)
        except OverflowError:  # an integer beyond the range of floats: only that value is rejected
            return False
        path = origin.path
        for index, get in enumerate(self._parts.path):
            path ^= digest16(f"{index} {get(item)}")
        rows.ignored += self._parts.ignored
        is_plain = self._is_plain
        cells: list[float | str | ValueRejection | None] = []
        factors: dict[int, tuple[float, float]] = {}
        if not is_plain:
            cells = self._cells(item, numbers, factors, units)
        for element, (first, end) in zip(elements, self._spans, strict=True):
            if element.number is not None:
                rows.numbered.append((origin.message, element.device, element.number))
            if first == end:
                continue
            if is_plain and element.time != BAD:
                count = end - first
                rows.value += numbers if count == len(numbers) else numbers[first:end]
                specs = self._specs[element.identity]
                rows.spec += specs if count == len(specs) else specs[first:end]
            else:
                count = self._add_cells(cells or numbers, first, end, factors, origin, element, rows)
            rows.message.append(origin.message)
            rows.device.append(element.device)
            rows.time.append(element.time)
            rows.time_quality.append(element.quality)
            rows.key.append(element.key)
            rows.path.append(path)
            rows.rows.append(count)
        return True

    def _is_finite(self, item: Any) -> bool:
        if self._parts.floats is None:
            return True
        numbers = self._parts.floats(item)
        return all(map(math.isfinite, numbers)) if isinstance(numbers, tuple) else math.isfinite(numbers)

    def _timed(self, item: Any, origin: MessageOrigin, look_up: IndexOf) -> list[_TimedElement] | None:
        """Return the elements of a message; None: one cannot be decoded by the plan."""
        rule = self._parts.rule
        timed: list[_TimedElement] = []
        for place, element in enumerate(self._parts.elements):
            device = origin.device
            if element.device is not None:
                device = look_up(str(element.device(item)), rule, origin.gateway)
                if device < 0:
                    return None
            time, quality, stable = origin.received, int(TimeQuality.RECEIVED), None
            if element.time is not None:
                time, quality = rule.reader.parse(element.time(item), time)
                if time == BAD and self._parts.has_other_times:
                    return None
                stable = time if time != BAD and is_stable(rule, quality) else None
            sequence = element.sequence(item) if element.sequence else None
            message_id = element.message_id(item) if element.message_id else None
            data = rule.payload.distinguishing_bytes(element.frame(item)) if rule.payload and element.frame else b""
            identity, key = identify(rule, stable, sequence, message_id, data, place)
            number = number_of(sequence) if element.sequence else None
            timed.append(_TimedElement(device, time, int(quality), identity, time if key is None else key, number))
        return timed

    def _numbers(self, item: Any) -> list[float]:
        """Return the values that are read as numbers, in the places of all values."""
        pure = self._parts.pure
        if pure is None:
            return []
        columns = pure.columns
        numbers = pure.get(item if pure.holder is None else pure.holder(item))
        numbers = [float(numbers)] if len(columns) == 1 else list(map(float, numbers))
        if self._in_order:
            return numbers
        placed = [_NAN] * len(self._parts.names)
        for column, number in zip(columns, numbers, strict=True):
            placed[column] = number
        return placed

    def _cells(
        self, item: Any, numbers: list[float], factors: dict[int, tuple[float, float]], units: UnitConversion
    ) -> list[float | str | ValueRejection | None]:
        """Return the values; None: one is missing. Add the factors of units that the message states."""
        cells: list[float | str | ValueRejection | None] = [*numbers] if numbers else [None] * len(self._parts.names)
        for column, missing in self._sentinels:
            if cells[column] in missing:
                cells[column] = None
        for other in self._parts.converted:
            value = other.reading.convert(other.get(item))
            if other.unit is not None and value is not None and not isinstance(value, ValueRejection):
                factor = other.reading.unit_factor(other.unit(item), units)
                if isinstance(factor, ValueRejection):
                    value = factor
                elif factor != other.reading.factor:
                    factors[other.at] = factor
            cells[other.at] = value
        return cells

    def _add_cells(
        self,
        cells: Sequence[float | str | ValueRejection | None],
        first: int,
        end: int,
        factors: Mapping[int, tuple[float, float]],
        origin: MessageOrigin,
        element: _TimedElement,
        rows: PlannedRows,
    ) -> int:
        """Add the values of an element one by one; return the number of rows."""
        before = len(rows.value)
        specs = self._specs[element.identity]
        for column in range(first, end):
            value = cells[column]
            if value is None:
                rows.ignored += 1
                continue
            if element.time == BAD and not isinstance(value, ValueRejection):
                value = ValueRejection(RejectReason.BAD_TIME, "the time cannot be read")
            if isinstance(value, ValueRejection):
                name = self._parts.names[column]
                rows.rejected.append(RejectedValue(origin.message, value.reason, name, element.device, value.detail))
                continue
            row = len(rows.value)
            if isinstance(value, str):
                rows.text[row] = value
                value = _NAN
            if column in factors:
                rows.scale[row] = factors[column]
            if column in self._parts.qualities:
                rows.quality[row] = self._parts.qualities[column]
            rows.value.append(value)
            rows.spec.append(specs[column])
        return len(rows.value) - before
