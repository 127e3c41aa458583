"""The fast path: a plan for one shape of payload, learned from a message that `extract` decoded.

A shape is the tree with its keys and the types of its leaves. For a known shape, msgspec decodes straight into structs
that accept exactly this shape (every key required, no other allowed, exact types), and whole columns are made of many
messages at once. Whatever does not fit goes back to `extract`; both paths give the same rows.

Duplicate keys, which msgspec accepts, are detected by counting: a payload of this shape without duplicates has exactly
`quotes` quotation marks, one with a duplicate has more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.decode.envelope import frame_key
from sensegate.decode.extract import BoundMessage, Cell, Element, Leaf, digest16
from sensegate.decode.identity import Reception, identify_columns, numbers_of
from sensegate.decode.paths import Path
from sensegate.decode.plan_parts import Chunk, ConvertedColumn, Getter, IndexOf, PlannedElement, PlanParts, ValueAccess
from sensegate.decode.planned_rows import RowPlan
from sensegate.decode.profile import (
    FRAME,
    NONE,
    TEXT_MAX,
    UNIT_TEXT_MAX,
    CompiledRule,
    UnitConversion,
    ValueRejection,
)
from sensegate.decode.times import BAD, join_parts
from sensegate.model import F64, I32, I64, U8, U16, RejectedValue, RejectReason, SequenceNumbers
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import Quality, TimeQuality

LEAVES_MAX = 256
"""Most leaves of a shape that is planned."""
NAMES_MAX = 65_536
"""Most characters of the names in the pointers of a shape that is planned: a plan is kept, a message is not."""

_V = TypeVar("_V")

Shape = Any
"""The hashable skeleton of a tree."""


def skeleton(tree: Any, deciding: Sequence[Leaf]) -> Shape | None:
    """Return the shape of a tree, in which `deciding` leaves appear with their values; None: it cannot be planned."""
    if not isinstance(tree, (dict, list)) or not all(_is_literal(leaf.raw) for leaf in deciding):
        return None
    literals = {leaf.pointer: leaf.raw for leaf in deciding}
    budget = [LEAVES_MAX]
    shape = _skeleton(tree, (), literals, budget)
    return shape if budget[0] >= 0 else None


_LEAF_CODES = {type(None): "z", bool: "b", str: "s"}


def _is_literal(raw: Any) -> bool:
    """Return whether msgspec can require exactly this value."""
    return isinstance(raw, str) or (isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) < 2**53)


def _skeleton(tree: Any, pointer: Path, literals: dict[Path, str | int], budget: list[int]) -> Shape:
    budget[0] -= 1
    if budget[0] < 0:
        return None
    if isinstance(tree, dict):
        return ("{", tuple((key, _skeleton(tree[key], (*pointer, key), literals, budget)) for key in sorted(tree)))
    if isinstance(tree, list):
        return ("[", tuple(_skeleton(value, (*pointer, index), literals, budget) for index, value in enumerate(tree)))
    if pointer in literals:
        return ("=", literals[pointer])
    return _LEAF_CODES.get(type(tree), "n")


class ShapeType:
    """Build the msgspec type of a shape, and the attribute path of each leaf."""

    def __init__(self, plain: frozenset[Path]) -> None:
        self._plain = plain
        self.quotes = 0
        self.attributes: dict[Path, str] = {}
        self.sizes: dict[str, int] = {}
        """Attribute of an object or list within -> number of its members."""
        self.kinds: dict[Path, str] = {}

    def build(self, shape: Shape, pointer: Path, attribute: str) -> Any:
        """Return the type. Raises `ValueError` or `TypeError` if msgspec has none."""
        if isinstance(shape, tuple) and shape[0] in {"{", "["}:
            is_list = shape[0] == "["
            members: list[tuple[Any, Shape]] = list(enumerate(shape[1])) if is_list else list(shape[1])
            fields: list[tuple[str, Any]] = []
            rename: dict[str, str] = {}
            for index, (key, inner) in enumerate(members):
                name = f"f{index}"
                attribute_path = f"{attribute}.{name}" if attribute else name
                fields.append((name, self.build(inner, (*pointer, key), attribute_path)))
                if not is_list:
                    rename[name] = key
                    self.quotes += 2
            self.sizes[attribute] = len(fields)
            return msgspec.defstruct(
                "Shape",
                fields,
                rename=rename or None,
                array_like=is_list,
                forbid_unknown_fields=True,
                frozen=True,
                gc=False,
            )
        self.attributes[pointer] = attribute
        if isinstance(shape, tuple):
            literal = shape[1]
            self.quotes += 2 if isinstance(literal, str) else 0
            self.kinds[pointer] = "s" if isinstance(literal, str) else "n"
            return Literal[literal]
        self.kinds[pointer] = shape
        if shape == "s":
            self.quotes += 2
            return str
        if shape == "n":
            return float if pointer in self._plain else int | float
        return bool if shape == "b" else None


class _Cells(NamedTuple):
    """Cells of a batch, by row and column; text and scale by row * width + column."""

    values: F64
    keep: NDArray[np.bool_] | None
    """None: all."""
    text: dict[int, str]
    scale: dict[int, tuple[float, float]]
    rejected: list[RejectedValue]


class LeafAccess(NamedTuple):
    """Access to the leaves of a parsed message: attributes of a struct, or positions in a list of values."""

    where: Mapping[Path, Any]
    """Pointer -> attribute or position."""
    getter: Callable[..., Getter]
    exact: bool = True
    """True if a value that is an integer now is an integer in all messages of the shape."""
    finite: bool = False
    """True if all numbers are finite."""
    sizes: Mapping[str, int] = {}
    """Attribute of a struct within -> number of its fields; empty: there are no structs."""

    def values(self, leaves: Mapping[int, Path]) -> ValueAccess | None:
        """Return the access to the leaves of some values; None: there are none.

        Raises:
            ValueError: one is not a leaf.
        """
        if any(pointer not in self.where for pointer in leaves.values()):
            raise ValueError("a leaf is not a value of its own")
        if not leaves:
            return None
        places = [self.where[pointer] for pointer in leaves.values()]
        holders = {place.rpartition(".")[0] for place in places} if self.sizes else {""}
        if len(holders) > 1 or not (holder := holders.pop()):
            return ValueAccess(list(leaves), None, self.getter(*places))
        # All are members of one object: it is looked up once, and all of its members are taken at once.
        value_of = {place.rpartition(".")[2]: value for value, place in zip(leaves, places, strict=True)}
        names = [f"f{number}" for number in range(self.sizes[holder])]
        if len(value_of) == len(leaves) == len(names) > 1:
            return ValueAccess([value_of[name] for name in names], attrgetter(holder), msgspec.structs.astuple)
        members = [place.rpartition(".")[2] for place in places]
        return ValueAccess(list(leaves), attrgetter(holder), attrgetter(*members))

    def get(self, leaf: Leaf) -> Getter:
        """Return the getter of a leaf. Raises `ValueError` if it is not a leaf."""
        if leaf.parts:
            getters = [self.get(part) for part in leaf.parts]
            return lambda message: join_parts([get(message) for get in getters])
        if leaf.pointer not in self.where:
            raise ValueError("the leaf is not a scalar")
        return self.getter(self.where[leaf.pointer])


class PlanBatch(NamedTuple):
    """The messages that a plan decodes together."""

    objects: list[Any]
    message: I32
    received: I64
    device: I32
    path: U16
    gateways: list[int]
    """Index of each message's gateway device if the payload names devices; else empty."""
    receptions: list[Reception] | None = None
    """For frames in envelopes: the reception of each."""

    def take(self, indices: list[int]) -> PlanBatch:
        """Return the messages at some indices."""
        return PlanBatch(
            [self.objects[i] for i in indices],
            self.message[indices],
            self.received[indices],
            self.device[indices],
            self.path[indices],
            [self.gateways[i] for i in indices] if self.gateways else [],
            None if self.receptions is None else [self.receptions[i] for i in indices],
        )


class _Timings(NamedTuple):
    """Elements that are dated and identified one by one; others share their columns."""

    elements: list[int]
    of_value: NDArray[np.int64]
    """Value -> index in `elements` of the element whose columns it has."""


class _Timed(NamedTuple):
    """Time and identity of an element in each message."""

    time: I64
    time_quality: U8
    identity: int | NDArray[np.intp]
    """Of all messages, or of each."""
    key: I64


class _Origins(NamedTuple):
    """The first columns of a `Chunk`."""

    message: I32
    device: I32
    time: I64
    time_quality: U8
    key: I64
    path: U16
    rows: int | I64
    spec: I32


class ColumnPlan:
    """Plan by which a rule decodes messages of one shape into columns."""

    def __init__(
        self,
        rule: CompiledRule,
        bound: BoundMessage,
        shape: Shape,
        access: LeafAccess | None = None,
    ) -> None:
        """Make the plan; raises `ValueError` or `TypeError` if the shape cannot be planned.

        With `access`, messages come parsed (`columnar.py`, `columnar_envelopes.py`), and `decode` is not used.
        """
        cells = [(index, cell) for index, element in enumerate(bound.elements) for cell in element.cells]
        if any(cell.reading is None or isinstance(cell.leaf.raw, (dict, list)) for _, cell in cells):
            raise ValueError("not every value can be planned")
        self.ignored = sum(cell.leaf.raw is None for _, cell in cells)
        cells = [(index, cell) for index, cell in cells if cell.leaf.raw is not None]
        if not cells:
            raise ValueError("no values")
        plain = frozenset(cell.leaf.pointer for _, cell in cells if _is_plain(cell))
        needed = [leaf for element in bound.elements for leaf in _extra_leaves(element)] + bound.path
        self.decode: Callable[[bytes], Any] = _undecoded
        self.quotes = -1
        if access is None:
            types = ShapeType(plain - {leaf.pointer for leaf in needed})
            self.decode = msgspec.json.Decoder(types.build(shape, (), "")).decode
            self.quotes = types.quotes
            access = LeafAccess(types.attributes, attrgetter, finite=True, sizes=types.sizes)
        self._access = access
        self.rule = rule
        self._readings = [cell.reading for _, cell in cells if cell.reading is not None]
        self._names = [cell.name for _, cell in cells]
        self._element_index = np.array([index for index, _ in cells])
        self._specs_of_identity = np.array([reading.specs for reading in self._readings], np.int32).T.copy()
        """Specs of the values, by identity."""
        plain_leaves = {index: cell.leaf.pointer for index, (_, cell) in enumerate(cells) if _is_plain(cell)}
        self._pure = access.values(plain_leaves)
        """The values that are read as numbers without conversion."""
        pure = [] if self._pure is None else self._pure.columns
        floats = set() if access.finite else {cells[index][1].leaf for index in pure} | set(needed)
        non_finite = [access.where[leaf.pointer] for leaf in floats if _may_be_non_finite(leaf.raw, exact=access.exact)]
        self._float_count = len(non_finite)
        self._float_getter: Getter | None = access.getter(*non_finite) if non_finite else None
        """Reads the values that may be infinite or NaN; JSON has no such numbers."""
        self._sentinels = [
            (index, np.array(numbers))
            for index in sorted(pure)
            if (numbers := [float(token) for token in self._readings[index].missing if isinstance(token, (int, float))])
        ]
        self._converted = [
            ConvertedColumn(index, access.get(cell.leaf), self._readings[index], self._unit(cell), cell.name)
            for index, (_, cell) in enumerate(cells)
            if index not in set(pure)
        ]
        self._elements = [
            PlannedElement(*(access.get(leaf) if leaf else None for leaf in (*element[:4], element.frame)))
            for element in bound.elements
        ]
        self._qualities = _planned_qualities(rule, cells, bound)
        self._shared_timings, self._own_timings = self._timings(bound)
        self._path = [access.get(leaf) for leaf in bound.path]
        self._has_other_times = len(rule.time) > 1 and not rule.time_joined
        """True if another member than the planned one may hold the time."""
        self.names_devices = any(element.device for element in self._elements)
        self.rows = RowPlan(
            PlanParts(
                rule,
                self._pure,
                self._converted,
                self._elements,
                element_of=[index for index, _ in cells],
                names=self._names,
                specs=self._specs_of_identity,
                sentinels=self._sentinels,
                qualities=self._qualities,
                path=self._path,
                floats=self._float_getter,
                has_other_times=self._has_other_times,
                ignored=self.ignored,
            )
        )
        """The same plan for messages one at a time."""

    def _timings(self, bound: BoundMessage) -> tuple[_Timings, _Timings]:
        """Return the timings where equal elements share columns, and those where each has its own."""
        firsts: dict[Any, int] = {}
        first_like: list[int] = []
        for index, element in enumerate(bound.elements):
            time = element.time and (element.time.pointer, tuple(part.pointer for part in element.time.parts))
            alone = element.sequence or element.message_id or element.frame or FRAME in self.rule.identity
            first_like.append(firsts.setdefault((index, None) if alone else (-1, time), index))
        elements = sorted(set(first_like))
        place = np.array([elements.index(first) for first in first_like], np.int64)
        return _Timings(elements, place[self._element_index]), _Timings(
            list(range(len(bound.elements))), self._element_index
        )

    def _unit(self, cell: Cell) -> Getter | None:
        return None if cell.unit is None or cell.unit.raw is None else self._access.get(cell.unit)

    # ── columns ──────────────────────────────────────────────────────────────────────────────────────

    def columns(self, batch: PlanBatch, units: UnitConversion, look_up: IndexOf) -> tuple[Chunk | None, list[int]]:
        """Return the rows of a batch, and the indices of messages that must be decoded one by one."""
        devices, left = self._devices(batch, look_up)
        if self._float_getter is not None and (non_finite := self._non_finite(batch.objects)):
            left = sorted({*left, *non_finite})
        read: dict[int, tuple[I64, U8]] = {}
        if self._has_other_times and (untimed := self._untimed(batch, read)):
            left = sorted({*left, *untimed})
        if left:
            index = [i for i in range(len(batch.objects)) if i not in set(left)]
            batch, devices, read = batch.take(index), [column[index] for column in devices], {}
        count = len(batch.objects)
        if not count:
            return None, left
        rejected: list[RejectedValue] = []
        values, keep, ignored, text, scale = self._values(batch, devices, units, rejected)
        timings = self._shared_timings if batch.receptions is None else self._own_timings
        timed = [self._timed(batch, index, read) for index in timings.elements]
        if len(timed) > 1 or (self.names_devices and len(devices) > 1) or int(timed[0].time.min()) == BAD:
            keep = self._without_bad_times(batch, devices, timed, timings, keep, rejected)
            origins = self._origins_by_row(batch, devices, timed, timings, keep)
        else:
            origins = self._origins_by_message(batch, devices[0], timed[0], keep)
        new_row = None
        if text or scale or self._qualities:
            new_row = np.arange(values.size) if keep is None else np.cumsum(keep.ravel()) - 1
        chunk = Chunk(
            *origins,
            value=values.ravel() if keep is None else values[keep],
            text=_of_rows(text, new_row, keep),
            scale=_of_rows(scale, new_row, keep),
            rejected=rejected,
            ignored=ignored + self.ignored * count,
            quality={} if new_row is None else self._quality_of_rows(new_row, keep),
            numbered=self._numbered(batch, devices),
        )
        return chunk, left

    def _without_bad_times(
        self,
        batch: PlanBatch,
        devices: list[I32],
        timed: list[_Timed],
        timings: _Timings,
        keep: NDArray[np.bool_] | None,
        rejected: list[RejectedValue],
    ) -> NDArray[np.bool_] | None:
        """Return the mask without the values whose time cannot be read, and reject those."""
        bad = np.column_stack([item.time == BAD for item in timed])
        if not bad.any():
            return keep
        keep = np.ones((len(batch.objects), len(self._readings)), np.bool_) if keep is None else keep
        for row, column in zip(*np.nonzero(bad[:, timings.of_value] & keep), strict=True):
            keep[row, column] = False
            device = int(devices[int(self._element_index[column])][row])
            name, reason = self._names[column], RejectReason.BAD_TIME
            rejected.append(RejectedValue(int(batch.message[row]), reason, name, device, "the time cannot be read"))
        return keep

    def _origins_by_message(
        self, batch: PlanBatch, device: I32, timed: _Timed, keep: NDArray[np.bool_] | None
    ) -> _Origins:
        """Return messages as origins: all values of a message share device, time and identity."""
        if isinstance(timed.identity, int):
            spec = self._specs_of_identity[timed.identity][None].repeat(len(batch.objects), axis=0)
        else:
            spec = self._specs_of_identity[timed.identity]
        rows = len(self._readings) if keep is None else keep.sum(axis=1)
        spec = spec.ravel() if keep is None else spec[keep]
        return _Origins(
            batch.message, device, timed.time, timed.time_quality, timed.key, self._paths(batch), rows, spec
        )

    def _origins_by_row(
        self,
        batch: PlanBatch,
        devices: list[I32],
        timed: list[_Timed],
        timings: _Timings,
        keep: NDArray[np.bool_] | None,
    ) -> _Origins:
        """Return each row as an origin of its own."""
        count, width = len(batch.objects), len(self._readings)
        mask = slice(None) if keep is None else keep.ravel()

        def spread(column: NDArray[Any]) -> NDArray[Any]:
            return np.repeat(column, width)[mask]

        def by_value(columns: list[NDArray[Any]], column_of_value: NDArray[np.int64]) -> NDArray[Any]:
            return np.column_stack(columns)[:, column_of_value].ravel()[mask]

        identity = by_value([np.broadcast_to(item.identity, count) for item in timed], timings.of_value)
        return _Origins(
            spread(batch.message),
            by_value(devices, self._element_index) if self.names_devices else spread(batch.device),
            by_value([item.time for item in timed], timings.of_value),
            by_value([item.time_quality for item in timed], timings.of_value),
            by_value([item.key for item in timed], timings.of_value),
            spread(self._paths(batch)),
            1,
            self._specs_of_identity[identity, np.tile(np.arange(width), count)[mask]],
        )

    def _quality_of_rows(self, new_row: I64, keep: NDArray[np.bool_] | None) -> dict[int, int]:
        """Return the quality of the rows that are not good."""
        qualities: dict[int, int] = {}
        width = len(self._readings)
        for column, quality in self._qualities.items():
            rows = new_row[column::width]
            if keep is not None:
                rows = rows[keep[:, column]]
            qualities.update(dict.fromkeys(rows.tolist(), quality))
        return qualities

    def _numbered(self, batch: PlanBatch, devices: list[I32]) -> SequenceNumbers:
        """Return the sequence numbers that devices gave these messages."""
        numbered: list[SequenceNumbers] = []
        for index, element in enumerate(self._elements):
            if element.sequence is not None:
                counters = list(map(element.sequence, batch.objects))
            elif batch.receptions is not None and index == 0:
                counters = [reception.counter for reception in batch.receptions]
            else:
                continue
            numbers, given = numbers_of(counters)
            numbered.append(
                SequenceNumbers(batch.message[given].astype(np.int64), devices[index][given].astype(np.int64), numbers)
            )
        return SequenceNumbers.joined(numbered)

    def _non_finite(self, objects: Sequence[Any]) -> list[int]:
        """Return the indices of messages with a value that is not finite."""
        if self._float_getter is None:
            return []
        values = map(self._float_getter, objects)
        flat = np.fromiter(values if self._float_count == 1 else chain.from_iterable(values), np.float64)
        finite = np.isfinite(flat)
        if finite.all():
            return []
        return np.flatnonzero(~finite.reshape(len(objects), self._float_count).all(axis=1)).tolist()

    def _devices(self, batch: PlanBatch, look_up: IndexOf) -> tuple[list[I32], list[int]]:
        devices: list[I32] = []
        left: set[int] = set()
        for element in self._elements:
            if element.device is None:
                devices.append(batch.device)
                continue
            names = map(element.device, batch.objects)
            indices = [look_up(str(name), self.rule, gw) for name, gw in zip(names, batch.gateways, strict=True)]
            left.update(index for index, device in enumerate(indices) if device < 0)
            devices.append(np.array(indices, np.int32))
        return devices, sorted(left)

    def _values(
        self, batch: PlanBatch, devices: list[I32], units: UnitConversion, rejected: list[RejectedValue]
    ) -> tuple[F64, NDArray[np.bool_] | None, int, dict[int, str], dict[int, tuple[float, float]]]:
        """Return (values, mask or None for all, ignored, text by cell, scale by cell); cells are counted by message."""
        count, width = len(batch.objects), len(self._readings)
        keep: NDArray[np.bool_] | None = None
        ignored = 0
        text: dict[int, str] = {}
        scale: dict[int, tuple[float, float]] = {}
        pure = None if self._pure is None else self._pure.read(batch.objects)
        if self._pure is None or pure is None:
            values = np.full((count, width), np.nan)
        elif self._pure.columns == list(range(width)):
            values = pure
        else:
            values = np.full((count, width), np.nan)
            values[:, self._pure.columns] = pure
        if self._sentinels or self._converted:
            keep = np.ones((count, width), np.bool_)
            for column, numbers in self._sentinels:
                column_values = values[:, column]
                is_missing = column_values == numbers[0] if len(numbers) == 1 else np.isin(column_values, numbers)
                keep[is_missing, column] = False
                ignored += int(is_missing.sum())
        cells = _Cells(values, keep, text, scale, rejected)
        for other in self._converted:
            self._convert_rows(other, batch, devices, units, cells)
        if self._converted:
            dropped = count * width - int(keep.sum()) if keep is not None else 0
            ignored = dropped - len(rejected)
        return values, None if keep is None or keep.all() else keep, ignored, text, scale

    def _convert_rows(
        self, column: ConvertedColumn, batch: PlanBatch, devices: list[I32], units: UnitConversion, cells: _Cells
    ) -> None:
        values, keep, text, scale, rejected = cells
        width = values.shape[1]
        raws = list(map(column.get, batch.objects))
        stated = list(map(column.unit, batch.objects)) if column.unit else []
        # A unit that all messages state, and that is the profile's, changes nothing.
        if stated.count(stated[0]) == len(stated) if stated else False:
            stated = [] if column.reading.unit_factor(stated[0], units) == column.reading.factor else stated
        if not stated and self._convert_column(column, raws, values, text):
            return
        device = devices[int(self._element_index[column.at])]
        words = iter(stated) if stated else None
        for row, raw in enumerate(raws):
            value = column.reading.convert(raw)
            if words is not None:
                word = next(words)
                if value is not None and not isinstance(value, ValueRejection):
                    factor = column.reading.unit_factor(word, units)
                    if isinstance(factor, ValueRejection):
                        value = factor
                    elif factor != column.reading.factor:
                        scale[row * width + column.at] = factor
            if isinstance(value, float):
                values[row, column.at] = value
            elif isinstance(value, str):
                text[row * width + column.at] = value
            else:
                if keep is not None:
                    keep[row, column.at] = False
                if isinstance(value, ValueRejection):
                    message = int(batch.message[row])
                    rejected.append(RejectedValue(message, value.reason, column.name, int(device[row]), value.detail))

    @staticmethod
    def _convert_column(column: ConvertedColumn, raws: list[Any], values: F64, text: dict[int, str]) -> bool:
        """Convert a column at once if no value in it is missing or rejected; return whether that was done."""
        reading, width = column.reading, values.shape[1]
        if reading.missing or isinstance(raws[0], bool):
            return False
        if reading.words is not None:
            converted: list[Any] = list(map(reading.words.get, raws))
            if None in converted:
                return False
        elif reading.kind is ValueKind.NUMBER:
            numbers = _numbers(raws, of_text=reading.text_numbers)
            if numbers is None:
                return False
            values[:, column.at] = numbers
            return True
        elif isinstance(raws[0], str) and reading.kind is ValueKind.STRING and len(max(raws, key=len)) <= TEXT_MAX:
            converted = list(raws)
        else:
            return False
        if reading.kind is ValueKind.STRING:
            text.update(zip(range(column.at, len(raws) * width, width), converted, strict=True))
        else:
            values[:, column.at] = converted
        return True

    def _timed(self, batch: PlanBatch, index: int, read: dict[int, tuple[I64, U8]]) -> _Timed:
        """Return time and identity of an element in each message; `read`: times that were read already."""
        element, receptions = self._elements[index], batch.receptions
        if receptions is None:
            received = batch.received
        else:
            received = np.array([reception.time for reception in receptions], np.int64)
        stamp = None
        if element.time is not None:
            stamp = read.get(index) or self.rule.reader.column(list(map(element.time, batch.objects)), batch.received)
        if stamp is None or receptions is not None:
            quality = (
                np.full(len(received), TimeQuality.RECEIVED, np.uint8)
                if receptions is None
                else np.array([reception.quality for reception in receptions], np.uint8)
            )
        if stamp is None:
            time = received
        elif receptions is None:
            time, quality = stamp
        else:
            unknown = (stamp[0] != BAD) & (stamp[1] == TimeQuality.RECEIVED)
            time, quality = np.where(unknown, received, stamp[0]), np.where(unknown, quality, stamp[1])
        sequences = list(map(element.sequence, batch.objects)) if element.sequence else None
        message_ids = list(map(element.message_id, batch.objects)) if element.message_id else None
        frame_keys = self._frame_keys(index, sequences, batch.objects) if FRAME in self.rule.identity else None
        identity, key = identify_columns(self.rule, stamp, sequences, message_ids, time, frame_keys)
        if receptions is not None and np.any(identity == NONE):
            identity, key = np.array(np.broadcast_to(identity, len(time))), key.copy()
            for row in np.flatnonzero(identity == NONE).tolist():
                identity[row], known = receptions[row].identify(index)
                key[row] = time[row] if known is None else known
        return _Timed(time, quality, identity, key)

    def _untimed(self, batch: PlanBatch, read: dict[int, tuple[I64, U8]]) -> set[int]:
        """Return the messages whose planned time cannot be read: another member may hold it; store times in `read`."""
        untimed: set[int] = set()
        for index in self._shared_timings.elements:
            element = self._elements[index]
            if element.time is not None:
                read[index] = self.rule.reader.column(list(map(element.time, batch.objects)), batch.received)
                untimed.update(np.flatnonzero(read[index][0] == BAD).tolist())
        return untimed

    def _frame_keys(self, place: int, counters: Sequence[Any] | None, objects: Sequence[Any]) -> list[int]:
        """Return the `frame_key` of each message's element."""
        get, payload = self._elements[place].frame, self.rule.payload
        known = [payload.distinguishing_bytes(get(item)) if payload and get else b"" for item in objects]
        return [frame_key(counter, data, place) for counter, data in zip(counters or repeat(None), known, strict=False)]

    def _paths(self, batch: PlanBatch) -> U16:
        path = batch.path
        for index, get in enumerate(self._path):
            raws = list(map(get, batch.objects))
            digests = {raw: digest16(f"{index} {raw}") for raw in set(raws)}
            path = path ^ np.array([digests[raw] for raw in raws], np.uint16)
        return path


def _of_rows(by_cell: dict[int, _V], new_row: I64 | None, keep: NDArray[np.bool_] | None) -> dict[int, _V]:
    """Return what is known by cell by row, of the cells that are kept."""
    if not by_cell or new_row is None:
        return {}
    kept = None if keep is None else keep.ravel()
    return {int(new_row[cell]): value for cell, value in by_cell.items() if kept is None or kept[cell]}


def _numbers(raws: Sequence[Any], *, of_text: bool) -> F64 | None:
    """Return values as numbers; None: one of them is none, or not finite, or must be looked at by itself."""
    kinds = set(map(type, raws))
    if of_text and kinds == {str}:
        if len(max(raws, key=len)) > UNIT_TEXT_MAX or "_" in "".join(raws):
            return None
        try:
            raws = list(map(float, raws))
        except ValueError:
            return None
    elif not kinds <= {int, float}:
        return None
    try:
        numbers = np.array(raws, np.float64)
    except OverflowError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def flag_leaves(rule: CompiledRule, bound: BoundMessage) -> list[Leaf] | None:
    """Return the leaves whose values decide about the quality of values; None: not every one can decide for a plan."""
    if rule.flags is None:
        return []
    doubts = [element.doubt.raw for element in bound.elements if element.doubt is not None]
    if any(doubt is not None and doubt != [] for doubt in doubts):  # whether a list is empty is part of the shape
        return None
    flags = [cell.flag or element.flag for element in bound.elements for cell in element.cells]
    if not all(flag is None or flag.raw is None or isinstance(flag.raw, (str, bool)) for flag in flags):
        return None
    return [flag for flag in flags if flag is not None and flag.raw is not None]


def _planned_qualities(rule: CompiledRule, cells: Sequence[tuple[int, Cell]], bound: BoundMessage) -> dict[int, int]:
    """Return value -> quality where it is not good. Raises `ValueError` if a value is no reading for its flag."""
    if rule.flags is None:
        return {}
    qualities: dict[int, int] = {}
    for column, (index, cell) in enumerate(cells):
        element = bound.elements[index]
        flag = cell.flag or element.flag
        verdict = rule.flags.judge(flag.raw if flag else None, element.doubt.raw if element.doubt else None)
        if isinstance(verdict, RejectReason):
            raise ValueError("a value is rejected by its flag")  # noqa: TRY004 - it has no plan
        if verdict != Quality.GOOD:
            qualities[column] = int(verdict)
    return qualities


def _undecoded(payload: bytes) -> Any:
    """Stands in for a decoder if messages come parsed."""
    raise msgspec.DecodeError(f"{len(payload)} bytes")


def _may_be_non_finite(raw: Any, *, exact: bool) -> bool:
    """Return whether a value may be infinite or NaN in another message."""
    return isinstance(raw, float) or (not exact and isinstance(raw, int) and not isinstance(raw, bool))


def _extra_leaves(element: Element) -> list[Leaf]:
    leaves = (*element[:4], element.frame)
    return [part for leaf in leaves if leaf is not None for part in leaf.parts or (leaf,)]


def _is_plain(cell: Cell) -> bool:
    """Return whether the cell's column is read as numbers without conversion."""
    reading, raw = cell.reading, cell.leaf.raw
    if reading is None or reading.words is not None or (cell.unit is not None and cell.unit.raw is not None):
        return False
    if isinstance(raw, bool):
        return reading.kind is ValueKind.BOOLEAN and not reading.missing
    return reading.kind is ValueKind.NUMBER and isinstance(raw, (int, float))
