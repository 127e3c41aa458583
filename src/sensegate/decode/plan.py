"""The quick path: a plan for one shape of payload, learned from a message that `extract` understood.

A shape is the tree with its keys and the types of its leaves. For a shape seen before, msgspec decodes straight into
structs that accept exactly this shape (every key required, none other allowed, exact types), and whole columns are
made of the messages at once. What does not fit, in any way, goes back to `extract`; the two give the same rows.

Duplicate keys, which msgspec lets pass, are caught by counting: a payload of this shape without duplicates has exactly
`quotes` quotation marks, one with a duplicate has more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.decode.envelope import frame_key
from sensegate.decode.extract import Bound, Cell, Element, Leaf, digest16
from sensegate.decode.identity import Reception, identify_columns, numbers_of
from sensegate.decode.paths import Path
from sensegate.decode.profile import FRAME, NONE, TEXT_MAX, Reading, Reject, Rule, UnitConversion
from sensegate.decode.times import BAD, joined
from sensegate.model import F64, I32, I64, U8, U16, UNNUMBERED, Numbered, RejectedValue, RejectReason
from sensegate.quantities.properties import Kind
from sensegate.quantities.quality import TimeQuality

LEAVES_MAX = 256
"""Shapes with more leaves are not planned."""

Shape = Any
"""A hashable skeleton of a tree."""


def skeleton(tree: Any, deciding: Sequence[Leaf]) -> Shape | None:
    """Return the shape of a tree in which `deciding` leaves stand with their values; None: no plan for it."""
    if not isinstance(tree, (dict, list)) or not all(_decides(leaf.raw) for leaf in deciding):
        return None
    literals = {leaf.pointer: leaf.raw for leaf in deciding}
    left = [LEAVES_MAX]
    shape = _skeleton(tree, (), literals, left)
    return shape if left[0] >= 0 else None


_LEAF = {type(None): "z", bool: "b", str: "s"}


def _decides(raw: Any) -> bool:
    """Return whether msgspec can require exactly this value."""
    return isinstance(raw, str) or (isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) < 2**53)


def _skeleton(tree: Any, pointer: Path, literals: dict[Path, str | int], left: list[int]) -> Shape:
    left[0] -= 1
    if left[0] < 0:
        return None
    if isinstance(tree, dict):
        return ("{", tuple((key, _skeleton(tree[key], (*pointer, key), literals, left)) for key in sorted(tree)))
    if isinstance(tree, list):
        return ("[", tuple(_skeleton(value, (*pointer, at), literals, left) for at, value in enumerate(tree)))
    if pointer in literals:
        return ("=", literals[pointer])
    return _LEAF.get(type(tree), "n")


class Types:
    """Builds the msgspec type of a shape, and where in it each leaf stands."""

    def __init__(self, plain: frozenset[Path]) -> None:
        self._plain = plain
        self.quotes = 0
        self.attributes: dict[Path, str] = {}
        self.kinds: dict[Path, str] = {}

    def build(self, shape: Shape, pointer: Path, attribute: str) -> Any:
        """Return the type. Raises `ValueError` or `TypeError` where msgspec has none."""
        if isinstance(shape, tuple) and shape[0] in {"{", "["}:
            many = shape[0] == "["
            members: list[tuple[Any, Shape]] = list(enumerate(shape[1])) if many else list(shape[1])
            fields: list[tuple[str, Any]] = []
            rename: dict[str, str] = {}
            for at, (key, inner) in enumerate(members):
                name = f"f{at}"
                where = f"{attribute}.{name}" if attribute else name
                fields.append((name, self.build(inner, (*pointer, key), where)))
                if not many:
                    rename[name] = key
                    self.quotes += 2
            return msgspec.defstruct(
                "Shape",
                fields,
                rename=rename or None,
                array_like=many,
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


class Chunk(NamedTuple):
    """Rows of some messages of a batch, as columns; rows are by message, then as the profile names them."""

    message: I32
    device: I32
    spec: I32
    value: F64
    time: I64
    time_quality: U8
    key: I64
    path: U16
    text: dict[int, str]
    scale: dict[int, tuple[float, float]]
    rejected: list[RejectedValue]
    ignored: int
    quality: dict[int, int] = {}
    flags: dict[int, int] = {}
    """Row -> code that the device's own flag gives, where it is not good."""
    numbered: Numbered = UNNUMBERED


class Parsed(NamedTuple):
    """The messages that a plan works on."""

    objects: list[Any]
    message: I32
    received: I64
    device: I32
    path: U16
    gateways: list[int]
    """Index of each message's gateway device, where devices are named in the payload; else empty."""
    receptions: list[Reception] | None = None
    """Of frames in envelopes: how each was heard."""

    def take(self, at: list[int]) -> Parsed:
        """Return the messages at these places."""
        return Parsed(
            [self.objects[i] for i in at],
            self.message[at],
            self.received[at],
            self.device[at],
            self.path[at],
            [self.gateways[i] for i in at] if self.gateways else [],
            None if self.receptions is None else [self.receptions[i] for i in at],
        )


Get = Callable[[Any], Any]
IndexOf = Callable[[str, Rule, int], int]
"""(device name, rule, gateway) -> index, negative where it may not be taken."""


class Access(NamedTuple):
    """How leaves are found in what stands for a message: attributes of a struct, or places in a list of values."""

    where: Mapping[Path, Any]
    """Pointer -> attribute or place."""
    getter: Callable[..., Get]
    exact: bool = True
    """Whether what is an integer now is one in all messages of the shape."""
    finite: bool = False
    """Whether all numbers are finite."""

    def get(self, leaf: Leaf) -> Get:
        """Return how a leaf is read. Raises `ValueError` where it is none."""
        if leaf.parts:
            getters = [self.get(part) for part in leaf.parts]
            return lambda message: joined([get(message) for get in getters])
        if leaf.pointer not in self.where:
            raise ValueError("a leaf is no scalar")
        return self.getter(self.where[leaf.pointer])


class _Column(NamedTuple):
    """A cell that is not simply a number."""

    at: int
    get: Get
    reading: Reading
    unit: Get | None
    name: str


class _Element(NamedTuple):
    device: Get | None
    time: Get | None
    sequence: Get | None
    message_id: Get | None
    frame: Get | None


class Plan:
    """How messages of one shape become columns, by one rule."""

    def __init__(
        self,
        rule: Rule,
        bound: Bound,
        shape: Shape,
        access: Access | None = None,
    ) -> None:
        """Make the plan; raises `ValueError` or `TypeError` where there is none for this shape.

        With `access`, messages come decoded (`flat.py`, `carried.py`), and the plan's own `decode` takes none.
        """
        cells = [(at, cell) for at, element in enumerate(bound.elements) for cell in element.cells]
        if any(cell.reading is None or isinstance(cell.leaf.raw, (dict, list)) for _, cell in cells):
            raise ValueError("not every value can be planned")
        self.ignored = sum(cell.leaf.raw is None for _, cell in cells)
        cells = [(at, cell) for at, cell in cells if cell.leaf.raw is not None]
        if not cells:
            raise ValueError("no values")
        plain = frozenset(cell.leaf.pointer for _, cell in cells if _is_plain(cell))
        needed = [leaf for element in bound.elements for leaf in _extras(element)] + bound.path
        self.decode: Callable[[bytes], Any] = _undecoded
        self.quotes = -1
        if access is None:
            types = Types(plain - {leaf.pointer for leaf in needed})
            self.decode = msgspec.json.Decoder(types.build(shape, (), "")).decode
            self.quotes = types.quotes
            access = Access(types.attributes, attrgetter, finite=True)
        self._access = access
        self.rule = rule
        self._readings = [cell.reading for _, cell in cells if cell.reading is not None]
        self._names = [cell.name for _, cell in cells]
        self._element_of = np.array([at for at, _ in cells])
        self._specs = np.array([reading.specs for reading in self._readings], np.int32)
        pure = [at for at, (_, cell) in enumerate(cells) if _is_plain(cell)]
        self._pure = np.array(pure, np.int64)
        if any(cells[at][1].leaf.pointer not in access.where for at in pure):
            raise ValueError("a leaf is no value of its own")
        getters = [access.where[cells[at][1].leaf.pointer] for at in pure]
        self._pure_get: Get | None = access.getter(*getters) if getters else None
        floats = set() if access.finite else {cells[at][1].leaf for at in pure} | set(needed)
        loose = [access.where[leaf.pointer] for leaf in floats if _is_loose(leaf.raw, exact=access.exact)]
        self._floats = len(loose)
        self._floats_get: Get | None = access.getter(*loose) if loose else None
        """The values that may be infinite or no number; JSON has no such numbers."""
        self._sentinels = [
            (column, np.array(numbers))
            for column, at in enumerate(pure)
            if (numbers := [float(token) for token in self._readings[at].missing if isinstance(token, (int, float))])
        ]
        self._others = [
            _Column(at, access.get(cell.leaf), self._readings[at], self._unit(cell), cell.name)
            for at, (_, cell) in enumerate(cells)
            if at not in set(pure)
        ]
        self._elements = [
            _Element(*(access.get(leaf) if leaf else None for leaf in (*element[:4], element.frame)))
            for element in bound.elements
        ]
        self._path = [access.get(leaf) for leaf in bound.path]
        self.names_devices = any(element.device for element in self._elements)

    def _unit(self, cell: Cell) -> Get | None:
        return None if cell.unit is None or cell.unit.raw is None else self._access.get(cell.unit)

    # ── columns ──────────────────────────────────────────────────────────────────────────────────────

    def columns(self, batch: Parsed, units: UnitConversion, look_up: IndexOf) -> tuple[Chunk | None, list[int]]:
        """Return the rows of a batch, and the places of messages that have to be decoded one by one."""
        devices, left = self._devices(batch, look_up)
        if self._floats_get is not None and (loose := self._infinite(batch.objects)):
            left = sorted({*left, *loose})
        if left:
            at = [i for i in range(len(batch.objects)) if i not in set(left)]
            batch, devices = batch.take(at), [column[at] for column in devices]
        count, width = len(batch.objects), len(self._readings)
        if not count:
            return None, left
        rejected: list[RejectedValue] = []
        values, keep, ignored, text, scale = self._values(batch, devices, units, rejected)
        times, qualities, identities, keys = self._times(batch)
        bad = times == BAD
        if bad.any():
            keep = np.ones((count, width), np.bool_) if keep is None else keep
            for row, column in zip(*np.nonzero(bad[:, self._element_of] & keep), strict=True):
                keep[row, column] = False
                element = int(self._element_of[column])
                rejected.append(
                    RejectedValue(
                        int(batch.message[row]),
                        RejectReason.BAD_TIME,
                        self._names[column],
                        int(devices[element][row]),
                        "the time cannot be read",
                    )
                )
        kept = slice(None) if keep is None else keep.ravel()
        place = np.arange(count * width) if keep is None else np.cumsum(keep.ravel()) - 1
        drop = keep is not None

        def spread(column: NDArray[Any]) -> NDArray[Any]:
            return np.repeat(column, width)[kept]

        def by_element(matrix: NDArray[Any]) -> NDArray[Any]:
            if matrix.shape[1] == 1:
                return spread(matrix[:, 0])
            return matrix[:, self._element_of].ravel()[kept]

        identity = by_element(identities)
        column_of = np.tile(np.arange(width), count)[kept]
        chunk = Chunk(
            message=spread(batch.message),
            device=by_element(np.column_stack(devices)),
            spec=self._specs[column_of, identity],
            value=values.ravel()[kept],
            time=by_element(times),
            time_quality=by_element(qualities),
            key=by_element(keys),
            path=spread(self._paths(batch)),
            text={int(place[at]): word for at, word in text.items() if not drop or keep.ravel()[at]},  # type: ignore[union-attr]
            scale={int(place[at]): pair for at, pair in scale.items() if not drop or keep.ravel()[at]},  # type: ignore[union-attr]
            rejected=rejected,
            ignored=ignored + self.ignored * count,
            numbered=self._numbered(batch, devices),
        )
        return chunk, left

    def _numbered(self, batch: Parsed, devices: list[I32]) -> Numbered:
        """Return the sequence numbers that devices gave these messages."""
        found: list[Numbered] = []
        for at, element in enumerate(self._elements):
            if element.sequence is not None:
                counters = list(map(element.sequence, batch.objects))
            elif batch.receptions is not None and at == 0:
                counters = [one.counter for one in batch.receptions]
            else:
                continue
            numbers, given = numbers_of(counters)
            found.append(Numbered(batch.message[given].astype(np.int64), devices[at][given].astype(np.int64), numbers))
        return Numbered.joined(found)

    def _infinite(self, objects: Sequence[Any]) -> list[int]:
        """Return the places of messages with a value that is not finite."""
        if self._floats_get is None:
            return []
        found = map(self._floats_get, objects)
        flat = np.fromiter(found if self._floats == 1 else chain.from_iterable(found), np.float64)
        finite = np.isfinite(flat)
        if finite.all():
            return []
        return np.flatnonzero(~finite.reshape(len(objects), self._floats).all(axis=1)).tolist()

    def _devices(self, batch: Parsed, look_up: IndexOf) -> tuple[list[I32], list[int]]:
        devices: list[I32] = []
        left: set[int] = set()
        for element in self._elements:
            if element.device is None:
                devices.append(batch.device)
                continue
            names = map(element.device, batch.objects)
            found = [look_up(str(name), self.rule, gw) for name, gw in zip(names, batch.gateways, strict=True)]
            left.update(at for at, device in enumerate(found) if device < 0)
            devices.append(np.array(found, np.int32))
        return devices, sorted(left)

    def _values(
        self, batch: Parsed, devices: list[I32], units: UnitConversion, rejected: list[RejectedValue]
    ) -> tuple[F64, NDArray[np.bool_] | None, int, dict[int, str], dict[int, tuple[float, float]]]:
        """Return (values, kept or None for all, ignored, text by place, scale by place); places run by message."""
        count, width = len(batch.objects), len(self._readings)
        keep: NDArray[np.bool_] | None = None
        ignored = 0
        text: dict[int, str] = {}
        scale: dict[int, tuple[float, float]] = {}
        if self._pure_get is not None:
            many = len(self._pure)
            found = map(self._pure_get, batch.objects)
            flat = np.fromiter(found if many == 1 else chain.from_iterable(found), np.float64, count * many)
            pure = flat.reshape(count, many)
        if self._pure_get is not None and len(self._pure) == width:
            values = pure
        else:
            values = np.full((count, width), np.nan)
            if self._pure_get is not None:
                values[:, self._pure] = pure
        if self._sentinels or self._others:
            keep = np.ones((count, width), np.bool_)
            for column, numbers in self._sentinels:
                gone = pure[:, column] == numbers[0] if len(numbers) == 1 else np.isin(pure[:, column], numbers)
                keep[gone, self._pure[column]] = False
                ignored += int(gone.sum())
        for other in self._others:
            self._other(other, batch, devices, units, rejected, values, keep, text, scale)
        if self._others:
            gone_count = count * width - int(keep.sum()) if keep is not None else 0
            ignored = gone_count - len(rejected)
        return values, None if keep is None or keep.all() else keep, ignored, text, scale

    def _other(  # noqa: PLR0917
        self,
        other: _Column,
        batch: Parsed,
        devices: list[I32],
        units: UnitConversion,
        rejected: list[RejectedValue],
        values: F64,
        keep: NDArray[np.bool_] | None,
        text: dict[int, str],
        scale: dict[int, tuple[float, float]],
    ) -> None:
        width = values.shape[1]
        raws = list(map(other.get, batch.objects))
        if other.unit is None and self._whole(other, raws, values, text):
            return
        device = devices[int(self._element_of[other.at])]
        words = map(other.unit, batch.objects) if other.unit else None
        for row, raw in enumerate(raws):
            value = other.reading.convert(raw)
            if words is not None:
                word = next(words)
                if value is not None and not isinstance(value, Reject):
                    factor = other.reading.unit_factor(word, units)
                    if isinstance(factor, Reject):
                        value = factor
                    elif factor != other.reading.factor:
                        scale[row * width + other.at] = factor
            if isinstance(value, float):
                values[row, other.at] = value
            elif isinstance(value, str):
                text[row * width + other.at] = value
            else:
                if keep is not None:
                    keep[row, other.at] = False
                if isinstance(value, Reject):
                    message = int(batch.message[row])
                    rejected.append(RejectedValue(message, value.reason, other.name, int(device[row]), value.detail))

    @staticmethod
    def _whole(other: _Column, raws: list[Any], values: F64, text: dict[int, str]) -> bool:
        """Convert a column at once where nothing in it is missing or rejected; return whether that was done."""
        reading, width = other.reading, values.shape[1]
        if reading.missing or isinstance(raws[0], bool):
            return False
        if reading.words is not None:
            found: list[Any] = list(map(reading.words.get, raws))
            if None in found:
                return False
        elif isinstance(raws[0], str) and reading.kind is Kind.STRING and len(max(raws, key=len)) <= TEXT_MAX:
            found = list(raws)
        else:
            return False
        if reading.kind is Kind.STRING:
            text.update(zip(range(other.at, len(raws) * width, width), found, strict=True))
        else:
            values[:, other.at] = found
        return True

    def _times(self, batch: Parsed) -> tuple[I64, U8, NDArray[np.intp], I64]:
        """Return (time, quality, identity, key), each by message and element."""
        count, many = len(batch.objects), len(self._elements)
        heard, how = batch.received, np.full(count, TimeQuality.RECEIVED, np.uint8)
        if batch.receptions is not None:
            heard = np.array([one.time for one in batch.receptions], np.int64)
            how = np.array([one.quality for one in batch.receptions], np.uint8)
        times = np.repeat(heard[:, None], many, axis=1)
        qualities = np.repeat(how[:, None], many, axis=1)
        identities = np.full((count, many), NONE, np.intp)
        keys = times.copy()
        for at, element in enumerate(self._elements):
            timed = None
            if element.time is not None:
                raws = list(map(element.time, batch.objects))
                timed = self.rule.reader.column(raws, batch.received)
                times[:, at], qualities[:, at] = timed
                if batch.receptions is not None:
                    unknown = (timed[0] != BAD) & (timed[1] == TimeQuality.RECEIVED)
                    times[unknown, at], qualities[unknown, at] = heard[unknown], how[unknown]
            key = times[:, at].copy()
            sequences = list(map(element.sequence, batch.objects)) if element.sequence else None
            message_ids = list(map(element.message_id, batch.objects)) if element.message_id else None
            framed = self._framed(at, sequences, batch.objects) if FRAME in self.rule.identity else None
            identities[:, at] = identify_columns(self.rule, timed, sequences, message_ids, key, framed)
            if batch.receptions is not None:
                for row in np.flatnonzero(identities[:, at] == NONE).tolist():
                    identities[row, at], known = batch.receptions[row].identify(at)
                    key[row] = times[row, at] if known is None else known
            keys[:, at] = key
        return times, qualities, identities, keys

    def _framed(self, at: int, counters: Sequence[Any] | None, objects: Sequence[Any]) -> list[int]:
        """Return what `identify` says of the frame of each message's element."""
        get, payload = self._elements[at].frame, self.rule.payload
        known = [payload.known(get(one)) if payload and get else b"" for one in objects]
        return [frame_key(counter, data, at) for counter, data in zip(counters or repeat(None), known, strict=False)]

    def _paths(self, batch: Parsed) -> U16:
        path = batch.path
        for at, get in enumerate(self._path):
            raws = list(map(get, batch.objects))
            digests = {raw: digest16(f"{at} {raw}") for raw in set(raws)}
            path = path ^ np.array([digests[raw] for raw in raws], np.uint16)
        return path


def _undecoded(payload: bytes) -> Any:
    """Stand in for a decoder where messages come decoded."""
    raise msgspec.DecodeError(f"{len(payload)} bytes")


def _is_loose(raw: Any, *, exact: bool) -> bool:
    """Return whether a value may be infinite or no number in another message."""
    return isinstance(raw, float) or (not exact and isinstance(raw, int) and not isinstance(raw, bool))


def _extras(element: Element) -> list[Leaf]:
    leaves = (*element[:4], element.frame)
    return [part for leaf in leaves if leaf is not None for part in leaf.parts or (leaf,)]


def _is_plain(cell: Cell) -> bool:
    """Return whether the cell's column is read as numbers straight away."""
    reading, raw = cell.reading, cell.leaf.raw
    if reading is None or reading.words is not None or (cell.unit is not None and cell.unit.raw is not None):
        return False
    if isinstance(raw, bool):
        return reading.kind is Kind.BOOLEAN and not reading.missing
    return reading.kind is Kind.NUMBER and isinstance(raw, (int, float))
