"""Turn a tree into rows, one message at a time: the slow path, which handles every case.

`bind` decides which member of the tree feeds which reading (from keys, types, and the few members whose values decide:
`where` and names); `DecodedRows.add` makes rows of what was bound. The fast path (`plan.py`) binds once for a shape
of payload and then does the work of `DecodedRows.add` for whole columns; tests hold the two paths equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import xxhash

from sensegate.decode import times
from sensegate.decode.flags import QualityFlags, Verdict
from sensegate.decode.frame import ELEMENTS_MAX
from sensegate.decode.identity import Reception, identify, is_stable, number_of
from sensegate.decode.paths import ABSENT, EVERY, MemberPath, Path, walk
from sensegate.decode.profile import (
    NONE,
    NOTHING,
    CompiledReading,
    CompiledRule,
    Groups,
    UnitConversion,
    ValueRejection,
    token,
)
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import Downsampled, Quarantined, QuarantineReason, RejectedValue, RejectReason
from sensegate.quantities.quality import Quality, TimeQuality

VALUES_MAX = 8_192
"""Most elements or values in one message; a message with more is quarantined (`schema`)."""
NAME_MAX = 64
"""Most characters of a name from a payload that are reported."""
KEY = "\0key"
"""Last step of a pointer to the key of an element; no payload of a planned shape has it as a key."""


class Leaf(NamedTuple):
    """A member of the payload: its pointer from the payload's root, and its raw value."""

    pointer: Path
    raw: Any
    parts: tuple[Leaf, ...] = ()
    """The leaves of which the raw value was joined, if it was."""


class Cell(NamedTuple):
    """A value in an element."""

    name: str
    reading: CompiledReading | None
    """None: the profile has no such name."""
    leaf: Leaf
    unit: Leaf | None = None
    flag: Leaf | None = None
    """The value's own flag; without one, the element's applies."""


class Element(NamedTuple):
    """The bound members of one element of a message."""

    device: Leaf | None
    time: Leaf | None
    sequence: Leaf | None
    message_id: Leaf | None
    cells: list[Cell]
    flag: Leaf | None = None
    """The device's flag for all values of the element."""
    doubt: Leaf | None = None
    frame: Leaf | None = None
    """Encoded bytes of the device in an envelope."""
    port: Leaf | None = None


class BoundMessage(NamedTuple):
    """The bound members of a message, by one rule."""

    elements: list[Element]
    path: list[Leaf]


class NameMissing(Rejected):
    """The message has no device's name where a rule expects it: another rule may."""

    def __init__(self) -> None:
        super().__init__(QuarantineReason.SCHEMA, "the device's name is missing where the profile expects it")


def bind(rule: CompiledRule, wrap: str, payload: Any, deciding: list[Leaf]) -> BoundMessage | None:
    """Return the bound members of a payload by a rule, None if the rule does not match.

    Members whose values (not only types) decide are appended to `deciding`. Raises `Rejected` if the device's name is
    missing.
    """
    root = {wrap: payload} if wrap else payload
    strip = 1 if wrap else 0
    for place, accepted in rule.where:
        raw = walk(root, place.path)
        if isinstance(raw, (dict, list)):  # not a value, so not null either
            return None
        if raw is not ABSENT and raw is not None:  # absence is visible in the shape
            deciding.append(Leaf(place.path[strip:], raw))
        if token(raw) not in accepted:
            return None
    base = walk(root, rule.root)
    if base is ABSENT:
        return None
    scope = _Scope(root, strip)
    elements: list[Element] = []
    values = 0
    for list_place, groups in ((rule.each, rule.groups), *rule.lists):
        for pointer, tree, outer in _elements(rule, list_place, root, base):
            element = _element(rule, groups, _Scope(root, strip, outer), pointer, tree, deciding)
            if element is not None:
                elements.append(element)
                values += len(element.cells)
            if len(elements) > ELEMENTS_MAX or values > VALUES_MAX:
                raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} elements or {VALUES_MAX} values")
    path = [leaf for place in rule.path if (leaf := scope.leaf(place, rule.root, base)) is not None]
    return BoundMessage(elements, path)


Outer = tuple[tuple[Path, Any], ...]
"""The elements that enclose one, the innermost first, as (pointer, tree)."""


class _Scope(NamedTuple):
    """Find leaves from an element or from the root."""

    root: Any
    strip: int
    outer: Outer = ()

    def leaf(self, place: MemberPath, pointer: Path, tree: Any) -> Leaf | None:
        if place.up:
            if place.up > len(self.outer):
                return None
            pointer, tree = self.outer[place.up - 1]
        if place.key:
            step = pointer[-1] if pointer else ABSENT
            return Leaf((*pointer[self.strip :], KEY), step) if isinstance(step, str) else None
        if place.from_root:
            raw, pointer = walk(self.root, place.path), ()
        else:
            raw = walk(tree, place.path)
        return None if raw is ABSENT else Leaf((pointer + place.path)[self.strip :], raw)

    def first(self, places: tuple[MemberPath, ...], pointer: Path, tree: Any) -> Leaf | None:
        """Return the first leaf that is present and not null."""
        for place in places:
            leaf = self.leaf(place, pointer, tree)
            if leaf is not None and leaf.raw is not None:
                return leaf
        return None

    def joined(self, places: tuple[MemberPath, ...], pointer: Path, tree: Any) -> Leaf | None:
        """Return the leaves joined as one text, None if one is absent or null."""
        leaves = [leaf for place in places if (leaf := self.leaf(place, pointer, tree)) and leaf.raw is not None]
        if len(leaves) < len(places):
            return None
        return Leaf((), times.join_parts([leaf.raw for leaf in leaves]), tuple(leaves))


def _meets_conditions(reading: CompiledReading, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]) -> bool:
    """Return whether an element meets the conditions of a reading; inspected values are added to `deciding`."""
    for place, accepted in reading.where:
        leaf = scope.leaf(place, pointer, tree)
        raw = None if leaf is None else leaf.raw
        if isinstance(raw, (dict, list)):
            return False
        if leaf is not None and not place.key and raw is not None:  # keys, nulls and absence are part of the shape
            deciding.append(leaf)
        if token(raw) not in accepted:
            return False
    return True


def _elements(rule: CompiledRule, each: MemberPath | None, root: Any, base: Any) -> Iterator[tuple[Path, Any, Outer]]:
    """Yield (pointer, tree, enclosing elements) of each element."""
    if each is None:
        yield rule.root, base, ()
        return
    start, tree = ((), root) if each.from_root else (rule.root, base)
    yield from _elements_at(each.path, start, tree, ((start, tree),), members=each.each_value)


def _elements_at(
    path: Path, pointer: Path, tree: Any, outer: Outer, *, members: bool
) -> Iterator[tuple[Path, Any, Outer]]:
    """Yield the elements at a path: items of a list, or an object; with `members`, the members of an object."""
    if EVERY in path:
        position = path.index(EVERY)
        for inner, member in _members(pointer + path[:position], walk(tree, path[:position])):
            yield from _elements_at(path[position + 1 :], inner, member, ((inner, member), *outer), members=members)
        return
    tree, pointer = walk(tree, path), pointer + path
    if isinstance(tree, list) or members:
        for inner, member in _members(pointer, tree):
            yield inner, member, outer
    elif isinstance(tree, dict):
        yield pointer, tree, outer


def _members(pointer: Path, tree: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(tree, dict):
        for key, member in tree.items():
            yield (*pointer, key), member
    elif isinstance(tree, list):
        for index, member in enumerate(tree):
            yield (*pointer, index), member


def _element(
    rule: CompiledRule, groups: Groups, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]
) -> Element | None:
    frame = port = None
    if rule.payload is not None:
        frame = scope.first((rule.payload.place,), pointer, tree)
        port = scope.first((rule.payload.port,), pointer, tree) if rule.payload.port else None
        if rule.chains and (frame is None or (rule.payload.port is not None and port is None)):
            return None
    cells = _cells(rule, groups, scope, pointer, tree, deciding)
    if not cells and not rule.chains:
        return None
    device = None
    if rule.device is not None:
        device = scope.leaf(rule.device, pointer, tree)
        if device is None or not isinstance(device.raw, (str, int)) or isinstance(device.raw, bool) or device.raw == "":
            if device is not None:
                deciding.append(device)
            raise NameMissing
    return Element(
        device,
        scope.joined(rule.time, pointer, tree) if rule.time_joined else _time(rule, scope, pointer, tree, deciding),
        scope.leaf(rule.sequence, pointer, tree) if rule.sequence else None,
        scope.leaf(rule.message_id, pointer, tree) if rule.message_id else None,
        cells,
        scope.leaf(rule.flags.place, pointer, tree) if rule.flags and rule.flags.place else None,
        scope.leaf(rule.flags.doubt, pointer, tree) if rule.flags and rule.flags.doubt else None,
        frame,
        port,
    )


def _time(rule: CompiledRule, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]) -> Leaf | None:
    """Return the first of the rule's times that can be read; if none can, the first that is present."""
    first = scope.first(rule.time, pointer, tree)
    if first is None or len(rule.time) == 1 or rule.reader.is_time(first.raw):
        return first
    for place in rule.time:
        leaf = scope.leaf(place, pointer, tree)
        if leaf is not None and leaf.raw is not None:
            if rule.reader.is_time(leaf.raw):
                return leaf
            deciding.append(leaf)
    return first


def _cells(
    rule: CompiledRule, groups: Groups, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]
) -> list[Cell]:
    if rule.standard is not None:
        return _standard(rule, scope.strip, pointer, tree)
    if rule.named is not None:
        return _named(rule, scope, pointer, tree, deciding)
    cells: list[Cell] = []
    for first, readings in groups:
        if first and not (isinstance(tree, dict) and first in tree):
            continue
        for reading in readings:
            if reading.where and not _meets_conditions(reading, scope, pointer, tree, deciding):
                continue
            leaf = scope.leaf(reading.place, pointer, tree)
            if leaf is not None:
                unit = scope.leaf(reading.unit_place, pointer, tree) if reading.unit_place else None
                flag = scope.leaf(reading.flag_place, pointer, tree) if reading.flag_place else None
                cells.append(Cell(reading.name, reading, leaf, unit, flag))
    return cells


def _standard(rule: CompiledRule, strip: int, pointer: Path, tree: Any) -> list[Cell]:
    path = rule.standard or ()
    values = walk(tree, path)
    if not isinstance(values, dict):
        return []
    base = (pointer + path)[strip:]
    cells: list[Cell] = []
    for name, value in values.items():
        value_pointer = (*base, name)
        unit = None
        if isinstance(value, dict):
            if "u" in value:
                unit = Leaf((*value_pointer, "u"), value["u"])
            leaf = Leaf((*value_pointer, "v"), value["v"]) if "v" in value else Leaf(value_pointer, value)
        else:
            leaf = Leaf(value_pointer, value)
        cells.append(Cell(name[:NAME_MAX], rule.by_name.get(name), leaf, unit))
    return cells


def _named(rule: CompiledRule, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]) -> list[Cell]:
    named = rule.named
    name = named and scope.leaf(named.name, pointer, tree)
    if named is None or name is None:
        return []
    if not named.name.key:  # keys are part of the shape
        deciding.append(name)
    text = name.raw if isinstance(name.raw, str) else ""
    reading = rule.by_name.get(text)
    value = scope.first(named.value, pointer, tree)
    if value is None:
        value = next((leaf for place in named.value if (leaf := scope.leaf(place, pointer, tree))), None)
        return [] if value is None else [Cell(text[:NAME_MAX], reading or NOTHING, value)]  # null: not measured
    if text in named.skip or text.startswith(named.skip_below):
        return [Cell(text[:NAME_MAX], NOTHING, Leaf(value.pointer, None))]
    unit = scope.leaf(named.unit, pointer, tree) if named.unit else None
    return [Cell(text[:NAME_MAX], reading, value, unit)]


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────


def digest16(text: str) -> int:
    """Return 16 bits of a text's hash, to distinguish paths of a message."""
    return xxhash.xxh32_intdigest(text.encode("utf-8", "surrogatepass")) & 0xFFFF


class RouteInfo(Protocol):
    """The properties of a message's route that its rows need."""

    @property
    def text(self) -> str:
        """The message's topic."""
        ...

    @property
    def path(self) -> int:
        """16-bit hash of the path that the message took."""
        ...

    @property
    def device(self) -> int:
        """Index of the device, -1 if the payload names it."""
        ...

    @property
    def gateway(self) -> int:
        """Index of the device that forwards the message, -1 if unknown."""
        ...


LookUp = Callable[[str, CompiledRule, int], "int | Rejected"]
"""(device name, rule, gateway) -> device index, or the refusal."""


def _time_of(
    rule: CompiledRule, element: Element, received: int, reception: Reception | None
) -> tuple[int, int, int | None]:
    """Return (time or `BAD`, quality, time if it may identify) of an element; without its own time, the frame's."""
    time, quality = received, int(TimeQuality.RECEIVED)
    if reception is not None:
        time, quality = reception.time, reception.quality
    if element.time is None:
        return time, quality, None
    own_time, own_quality = rule.reader.parse(element.time.raw, received if time == BAD else time)
    if own_time == BAD:
        return BAD, own_quality, None
    if own_quality == TimeQuality.RECEIVED:  # the device states that it knows no time
        return time, quality, None
    return own_time, own_quality, own_time if is_stable(rule, own_quality) else None


def path_of(route: RouteInfo, bound: BoundMessage) -> int:
    """Return 16 bits of a message's path, including the members that state it."""
    path = route.path
    for index, leaf in enumerate(bound.path):
        path ^= digest16(f"{index} {leaf.raw}")
    return path


class _Origin(NamedTuple):
    """Message of some elements, or the frame in it."""

    message: int
    received: int
    path: int
    reception: Reception | None


class DecodedRows:
    """Rows of messages that are decoded one by one."""

    def __init__(self, units: UnitConversion) -> None:
        self._units = units
        self.message: list[int] = []
        self.device: list[int] = []
        self.spec: list[int] = []
        self.value: list[float] = []
        self.time: list[int] = []
        self.time_quality: list[int] = []
        self.key: list[int] = []
        self.path: list[int] = []
        self.text: dict[int, str] = {}
        self.scale: dict[int, tuple[float, float]] = {}
        self.quality: dict[int, int] = {}
        """Row -> quality, if the device states that it is not good."""
        self.flags: dict[int, int] = {}
        """Row -> bits of `quality.Flag`."""
        self.quarantined: list[Quarantined] = []
        self.rejected: list[RejectedValue] = []
        self.downsampled: list[Downsampled] = []
        self.numbered: list[tuple[int, int, int]] = []
        """Message, device, number of each numbered message."""
        self.ignored = 0

    def savepoint(self) -> tuple[int, int, int, int, int, int]:
        """Return a savepoint: the present ends of all columns."""
        refused, rejected = len(self.quarantined), len(self.rejected)
        return len(self.message), refused, rejected, len(self.downsampled), len(self.numbered), self.ignored

    def rollback(self, savepoint: tuple[int, int, int, int, int, int]) -> None:
        """Remove everything added after a savepoint."""
        rows, quarantined, rejected, downsampled, numbered, self.ignored = savepoint
        for column in (self.message, self.device, self.spec, self.time, self.time_quality, self.key, self.path):
            del column[rows:]
        del self.value[rows:]
        del self.quarantined[quarantined:]
        del self.rejected[rejected:]
        del self.downsampled[downsampled:]
        del self.numbered[numbered:]
        for by_row in (self.text, self.scale, self.quality, self.flags):
            for row in [row for row in by_row if row >= rows]:
                del by_row[row]

    def flag(self, since: int, flag: int) -> None:
        """Set a flag (0: none) on the rows from `since` on."""
        for row in range(since, len(self.message) if flag else since):
            self.flags[row] = self.flags.get(row, 0) | flag

    def add(
        self,
        rule: CompiledRule,
        bound: BoundMessage,
        message: int,
        received: int,
        route: RouteInfo,
        look_up: LookUp,
        reception: Reception | None = None,
    ) -> bool:
        """Add the rows of a message, or of a frame in it (`reception`); return whether any element was accepted.

        Raises `Rejected` if no element's device may be used.
        """
        origin = _Origin(message, received, path_of(route, bound), reception)
        refusal: Rejected | None = None
        accepted = False
        for place, element in enumerate(bound.elements):
            index = route.device
            if element.device is not None:
                answer = look_up(str(element.device.raw), rule, route.gateway)
                if isinstance(answer, Rejected):
                    refusal = answer
                    self._refuse(element, message, answer)
                    continue
                index = answer
            accepted = True
            self._element(rule, element, origin, index, place)
        if refusal is not None and not accepted:
            del self.rejected[len(self.rejected) - sum(len(element.cells) for element in bound.elements) :]
            raise refusal
        return accepted

    def _refuse(self, element: Element, message: int, rejection: Rejected) -> None:
        for cell in element.cells:
            reason = RejectReason.UNKNOWN_DEVICE
            self.rejected.append(
                RejectedValue(message, reason, cell.name, -1, f"{rejection.reason}: {rejection.detail}")
            )

    def _element(self, rule: CompiledRule, element: Element, origin: _Origin, device: int, place: int) -> None:
        message, reception = origin.message, origin.reception
        time, quality, stable_time = _time_of(rule, element, origin.received, reception)
        identity, key = identify(
            rule,
            stable_time,
            element.sequence.raw if element.sequence else None,
            element.message_id.raw if element.message_id else None,
            rule.payload.distinguishing_bytes(element.frame.raw) if rule.payload and element.frame else b"",
            place,
        )
        if identity == NONE and reception is not None:
            identity, key = reception.identify(place)
        counter = element.sequence.raw if element.sequence else reception.counter if reception and not place else None
        if (number := number_of(counter)) is not None:
            self.numbered.append((message, device, number))
        for cell in element.cells:
            value, scale = self._value(cell)
            if isinstance(value, (int, float, str)) and time == BAD:
                value = ValueRejection(RejectReason.BAD_TIME, "the time cannot be read")
            verdict: Verdict = Quality.GOOD
            if rule.flags is not None and isinstance(value, (int, float, str)):
                verdict = self._flag_verdict(rule.flags, element, cell)
                if isinstance(verdict, RejectReason):
                    value = ValueRejection(verdict, "rejected by the device's own flag")
            if value is None:
                self.ignored += 1
            elif isinstance(value, ValueRejection):
                self.rejected.append(RejectedValue(message, value.reason, cell.name, device, value.detail))
            elif cell.reading is not None:
                row = len(self.message)
                self.message.append(message)
                self.device.append(device)
                self.spec.append(cell.reading.specs[identity])
                self.time.append(time)
                self.time_quality.append(quality)
                self.key.append(time if key is None else key)
                self.path.append(origin.path)
                if isinstance(value, str):
                    self.text[row] = value
                    value = float("nan")
                self.value.append(value)
                if scale is not None:
                    self.scale[row] = scale
                if verdict != Quality.GOOD:
                    self.quality[row] = int(verdict)

    @staticmethod
    def _flag_verdict(flags: QualityFlags, element: Element, cell: Cell) -> Verdict:
        flag = cell.flag or element.flag
        return flags.judge(flag.raw if flag else None, element.doubt.raw if element.doubt else None)

    def _value(self, cell: Cell) -> tuple[float | str | ValueRejection | None, tuple[float, float] | None]:
        reading = cell.reading
        if reading is None:
            return ValueRejection(RejectReason.UNKNOWN_PROPERTY, "no such property" if cell.name else "no name"), None
        value = reading.convert(cell.leaf.raw)
        if cell.unit is None or cell.unit.raw is None or value is None or isinstance(value, ValueRejection):
            return value, None
        factor = reading.unit_factor(cell.unit.raw, self._units)
        if isinstance(factor, ValueRejection):
            return factor, None
        return value, None if factor == reading.factor else factor
