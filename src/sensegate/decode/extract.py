"""From a tree to rows, one message at a time: the path that knows every case.

`bind` says which member of the tree feeds which reading (it looks at keys, types, and the few members that decide:
`where` and names); `Rows.add` turns what was bound into rows. The quick path (`plan.py`) binds once for a shape of
payload and then does as `Rows.add` does for whole columns; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import xxhash

from sensegate.decode import times
from sensegate.decode.flags import Flags, Verdict
from sensegate.decode.frame import ELEMENTS_MAX
from sensegate.decode.identity import Reception, identify, number_of, settled
from sensegate.decode.paths import ABSENT, EVERY, Path, Place, walk
from sensegate.decode.profile import NONE, NOTHING, Groups, Reading, Reject, Rule, UnitConversion, token
from sensegate.decode.times import BAD
from sensegate.errors import Rejected
from sensegate.model import Quarantined, QuarantineReason, RejectedValue, RejectReason, Thinned
from sensegate.quantities.quality import Quality, TimeQuality

VALUES_MAX = 8_192
"""More elements or values in one message are a fault of its sender: the message is quarantined (`schema`)."""
NAME_MAX = 64
"""Names that come from a payload are cut to so many characters in what is told of them."""
KEY = "\0key"
"""Stands at the end of a pointer to the key of an element; no payload has it as a key of a planned shape."""


class Leaf(NamedTuple):
    """A member of the payload: where it stands (from the payload's root) and what it is."""

    pointer: Path
    raw: Any
    parts: tuple[Leaf, ...] = ()
    """Where the raw value was made of several leaves: they."""


class Cell(NamedTuple):
    """One value that an element holds."""

    name: str
    reading: Reading | None
    """None: the profile knows no such name."""
    leaf: Leaf
    unit: Leaf | None = None
    flag: Leaf | None = None
    """Its own flag; else its element's counts."""


class Element(NamedTuple):
    """What one element of a message holds."""

    device: Leaf | None
    time: Leaf | None
    sequence: Leaf | None
    message_id: Leaf | None
    cells: list[Cell]
    flag: Leaf | None = None
    """What the device says of the element's values."""
    doubt: Leaf | None = None
    frame: Leaf | None = None
    """Of an envelope: the device's own bytes, as the carrier writes them."""
    port: Leaf | None = None


class Bound(NamedTuple):
    """What a message holds, by a rule."""

    elements: list[Element]
    path: list[Leaf]


def bind(rule: Rule, wrap: str, payload: Any, deciding: list[Leaf]) -> Bound | None:
    """Return what the payload holds by a rule, None where the rule does not hold for it.

    Members whose values (not only types) decide are appended to `deciding`. Raises `Rejected` where the device's name
    is not where it must be.
    """
    root = {wrap: payload} if wrap else payload
    strip = 1 if wrap else 0
    for place, wanted in rule.where:
        raw = walk(root, place.path)
        if isinstance(raw, (dict, list)):  # it is no value, and so not null either
            return None
        if raw is not ABSENT and raw is not None:  # what is not there is seen in the shape
            deciding.append(Leaf(place.path[strip:], raw))
        if token(raw) not in wanted:
            return None
    base = walk(root, rule.root)
    if base is ABSENT:
        return None
    scope = _Scope(root, strip)
    elements: list[Element] = []
    values = 0
    for each, groups in ((rule.each, rule.groups), *rule.lists):
        for pointer, tree, outer in _elements(rule, each, root, base):
            element = _element(rule, groups, _Scope(root, strip, outer), pointer, tree, deciding)
            if element is not None:
                elements.append(element)
                values += len(element.cells)
            if len(elements) > ELEMENTS_MAX or values > VALUES_MAX:
                raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} elements or {VALUES_MAX} values")
    path = [leaf for place in rule.path if (leaf := scope.leaf(place, rule.root, base)) is not None]
    return Bound(elements, path)


Outer = tuple[tuple[Path, Any], ...]
"""The elements around one, the nearest first: where each stands, and what it is."""


class _Scope(NamedTuple):
    """Finds leaves from an element or from the root."""

    root: Any
    strip: int
    outer: Outer = ()

    def leaf(self, place: Place, pointer: Path, tree: Any) -> Leaf | None:
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

    def first(self, places: tuple[Place, ...], pointer: Path, tree: Any) -> Leaf | None:
        """Return the first that is there and not null."""
        for place in places:
            leaf = self.leaf(place, pointer, tree)
            if leaf is not None and leaf.raw is not None:
                return leaf
        return None

    def joined(self, places: tuple[Place, ...], pointer: Path, tree: Any) -> Leaf | None:
        """Return the text that all of them make together, None where one is not there or null."""
        leaves = [leaf for place in places if (leaf := self.leaf(place, pointer, tree)) and leaf.raw is not None]
        if len(leaves) < len(places):
            return None
        return Leaf((), times.joined([leaf.raw for leaf in leaves]), tuple(leaves))


def _meets(reading: Reading, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]) -> bool:
    """Return whether an element meets the conditions of a reading; what was looked at decides."""
    for place, wanted in reading.where:
        leaf = scope.leaf(place, pointer, tree)
        if leaf is None or isinstance(leaf.raw, (dict, list)):
            return False
        if not place.key and leaf.raw is not None:  # keys and nulls are part of the shape anyway
            deciding.append(leaf)
        if token(leaf.raw) not in wanted:
            return False
    return True


def _elements(rule: Rule, each: Place | None, root: Any, base: Any) -> Iterator[tuple[Path, Any, Outer]]:
    """Yield where each element stands, what it is, and what is around it."""
    if each is None:
        yield rule.root, base, ()
        return
    start, tree = ((), root) if each.from_root else (rule.root, base)
    yield from _below(each.path, each.each_value, start, tree, ((start, tree),))


def _below(path: Path, members: bool, pointer: Path, tree: Any, outer: Outer) -> Iterator[tuple[Path, Any, Outer]]:  # noqa: FBT001
    """Yield the elements at a path: of a list there, or the one object; with `members` of an object there too."""
    if EVERY in path:
        at = path.index(EVERY)
        for here, member in _members(pointer + path[:at], walk(tree, path[:at])):
            yield from _below(path[at + 1 :], members, here, member, ((here, member), *outer))
        return
    tree, pointer = walk(tree, path), pointer + path
    if isinstance(tree, list) or members:
        for here, member in _members(pointer, tree):
            yield here, member, outer
    elif isinstance(tree, dict):
        yield pointer, tree, outer


def _members(pointer: Path, tree: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(tree, dict):
        for key, member in tree.items():
            yield (*pointer, key), member
    elif isinstance(tree, list):
        for at, member in enumerate(tree):
            yield (*pointer, at), member


def _element(  # noqa: PLR0917
    rule: Rule, groups: Groups, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]
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
        if device is None or not isinstance(device.raw, (str, int)) or isinstance(device.raw, bool):
            raise Rejected(QuarantineReason.SCHEMA, "the device's name is not where the profile says")
    return Element(
        device,
        scope.joined(rule.time, pointer, tree) if rule.time_joined else scope.first(rule.time, pointer, tree),
        scope.leaf(rule.sequence, pointer, tree) if rule.sequence else None,
        scope.leaf(rule.message_id, pointer, tree) if rule.message_id else None,
        cells,
        scope.leaf(rule.flags.place, pointer, tree) if rule.flags and rule.flags.place else None,
        scope.leaf(rule.flags.doubt, pointer, tree) if rule.flags and rule.flags.doubt else None,
        frame,
        port,
    )


def _cells(  # noqa: PLR0917
    rule: Rule, groups: Groups, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]
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
            if reading.where and not _meets(reading, scope, pointer, tree, deciding):
                continue
            leaf = scope.leaf(reading.place, pointer, tree)
            if leaf is not None:
                unit = scope.leaf(reading.unit_place, pointer, tree) if reading.unit_place else None
                flag = scope.leaf(reading.flag_place, pointer, tree) if reading.flag_place else None
                cells.append(Cell(reading.name, reading, leaf, unit, flag))
    return cells


def _standard(rule: Rule, strip: int, pointer: Path, tree: Any) -> list[Cell]:
    path = rule.standard or ()
    values = walk(tree, path)
    if not isinstance(values, dict):
        return []
    here = (pointer + path)[strip:]
    cells: list[Cell] = []
    for name, value in values.items():
        at = (*here, name)
        unit = None
        if isinstance(value, dict):
            if "u" in value:
                unit = Leaf((*at, "u"), value["u"])
            leaf = Leaf((*at, "v"), value["v"]) if "v" in value else Leaf(at, value)
        else:
            leaf = Leaf(at, value)
        cells.append(Cell(name[:NAME_MAX], rule.by_name.get(name), leaf, unit))
    return cells


def _named(rule: Rule, scope: _Scope, pointer: Path, tree: Any, deciding: list[Leaf]) -> list[Cell]:
    named = rule.named
    name = named and scope.leaf(named.name, pointer, tree)
    if named is None or name is None:
        return []
    if not named.name.key:  # keys are part of the shape anyway
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
    """Return 16 bits that tell one way of a message from another."""
    return xxhash.xxh32_intdigest(text.encode("utf-8", "surrogatepass")) & 0xFFFF


class Way(Protocol):
    """What rows must know of the route of their message."""

    @property
    def text(self) -> str:
        """The message's topic."""
        ...

    @property
    def path(self) -> int:
        """16 bits of the way that it took."""
        ...

    @property
    def device(self) -> int:
        """Index of the device, -1 where the payload names it."""
        ...

    @property
    def gateway(self) -> int:
        """Index of the device that brings it, -1 where none is known."""
        ...


LookUp = Callable[[str, Rule, int], "int | Rejected"]
"""(device name, rule, gateway) -> index, or why not."""


def _when(rule: Rule, element: Element, received: int, reception: Reception | None) -> tuple[int, int, int | None]:
    """Return (time or `BAD`, its quality, the time if it may identify) of an element; without its own, the frame's."""
    time, quality = received, int(TimeQuality.RECEIVED)
    if reception is not None:
        time, quality = reception.time, reception.quality
    if element.time is None:
        return time, quality, None
    own, said = rule.reader.one(element.time.raw, received if time == BAD else time)
    if own == BAD:
        return BAD, said, None
    if said == TimeQuality.RECEIVED:  # "no time known"
        return time, quality, None
    return own, said, own if settled(rule, said) else None


def path_of(way: Way, bound: Bound) -> int:
    """Return 16 bits of the way that a message took, with what it says of that itself."""
    path = way.path
    for at, leaf in enumerate(bound.path):
        path ^= digest16(f"{at} {leaf.raw}")
    return path


class Rows:
    """Rows of messages that were decoded one by one."""

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
        """By row, where the device itself says that it is not good."""
        self.flags: dict[int, int] = {}
        """By row, bits of `quality.Flag`."""
        self.quarantined: list[Quarantined] = []
        self.rejected: list[RejectedValue] = []
        self.thinned: list[Thinned] = []
        self.numbered: list[tuple[int, int, int]] = []
        """Message, device, number: rows of `Numbered`."""
        self.ignored = 0

    def mark(self) -> tuple[int, int, int, int, int, int]:
        """Return where the rows end now."""
        refused, rejected = len(self.quarantined), len(self.rejected)
        return len(self.message), refused, rejected, len(self.thinned), len(self.numbered), self.ignored

    def rewind(self, mark: tuple[int, int, int, int, int, int]) -> None:
        """Take away what was added after `mark`."""
        rows, quarantined, rejected, thinned, numbered, self.ignored = mark
        for column in (self.message, self.device, self.spec, self.time, self.time_quality, self.key, self.path):
            del column[rows:]
        del self.value[rows:]
        del self.quarantined[quarantined:]
        del self.rejected[rejected:]
        del self.thinned[thinned:]
        del self.numbered[numbered:]
        for some in (self.text, self.scale, self.quality, self.flags):
            for row in [row for row in some if row >= rows]:
                del some[row]

    def flag(self, since: int, flag: int) -> None:
        """Set a flag (0: none) on the rows from `since` on."""
        for row in range(since, len(self.message) if flag else since):
            self.flags[row] = self.flags.get(row, 0) | flag

    def add(  # noqa: PLR0917
        self,
        rule: Rule,
        bound: Bound,
        message: int,
        received: int,
        way: Way,
        look_up: LookUp,
        reception: Reception | None = None,
    ) -> bool:
        """Add the rows of a message, or of a frame in it (`reception`); return whether it held anything at all.

        Raises `Rejected` where no element's device may be taken.
        """
        path = path_of(way, bound)
        refused: Rejected | None = None
        taken = False
        for place, element in enumerate(bound.elements):
            index = way.device
            if element.device is not None:
                found = look_up(str(element.device.raw), rule, way.gateway)
                if isinstance(found, Rejected):
                    refused = found
                    self._refuse(element, message, found)
                    continue
                index = found
            taken = True
            self._element(rule, element, message, received, index, path, place, reception)
        if refused is not None and not taken:
            del self.rejected[len(self.rejected) - sum(len(element.cells) for element in bound.elements) :]
            raise refused
        return taken

    def _refuse(self, element: Element, message: int, why: Rejected) -> None:
        for cell in element.cells:
            reason = RejectReason.UNKNOWN_DEVICE
            self.rejected.append(RejectedValue(message, reason, cell.name, -1, f"{why.reason}: {why.detail}"))

    def _element(  # noqa: PLR0917
        self,
        rule: Rule,
        element: Element,
        message: int,
        received: int,
        device: int,
        path: int,
        place: int,
        reception: Reception | None,
    ) -> None:
        time, quality, steady = _when(rule, element, received, reception)
        identity, key = identify(
            rule,
            steady,
            element.sequence.raw if element.sequence else None,
            element.message_id.raw if element.message_id else None,
            rule.payload.known(element.frame.raw) if rule.payload and element.frame else b"",
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
                value = Reject(RejectReason.BAD_TIME, "the time cannot be read")
            said: Verdict = Quality.GOOD
            if rule.flags is not None and isinstance(value, (int, float, str)):
                said = self._said(rule.flags, element, cell)
                if isinstance(said, RejectReason):
                    value = Reject(said, "so says the device's own flag")
            if value is None:
                self.ignored += 1
            elif isinstance(value, Reject):
                self.rejected.append(RejectedValue(message, value.reason, cell.name, device, value.detail))
            elif cell.reading is not None:
                row = len(self.message)
                self.message.append(message)
                self.device.append(device)
                self.spec.append(cell.reading.specs[identity])
                self.time.append(time)
                self.time_quality.append(quality)
                self.key.append(time if key is None else key)
                self.path.append(path)
                if isinstance(value, str):
                    self.text[row] = value
                    value = float("nan")
                self.value.append(value)
                if scale is not None:
                    self.scale[row] = scale
                if said != Quality.GOOD:
                    self.quality[row] = int(said)

    @staticmethod
    def _said(flags: Flags, element: Element, cell: Cell) -> Verdict:
        flag = cell.flag or element.flag
        return flags.judge(flag.raw if flag else None, element.doubt.raw if element.doubt else None)

    def _value(self, cell: Cell) -> tuple[float | str | Reject | None, tuple[float, float] | None]:
        reading = cell.reading
        if reading is None:
            return Reject(RejectReason.UNKNOWN_PROPERTY, "no such property" if cell.name else "no name"), None
        value = reading.convert(cell.leaf.raw)
        if cell.unit is None or cell.unit.raw is None or value is None or isinstance(value, Reject):
            return value, None
        factor = reading.unit_factor(cell.unit.raw, self._units)
        if isinstance(factor, Reject):
            return factor, None
        return value, None if factor == reading.factor else factor
