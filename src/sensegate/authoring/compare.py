"""Two versions of a profile over the same messages: what each makes of them, and every way in which they differ.

Rows are paired by (message, device, property, channel) and their order within it. Values are compared in the property's
unit, so that another unit or scale shows as another value; a factor that is the same everywhere is named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sensegate.config import IngestConfig
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import Memory
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.relevance import Concern
from sensegate.decode.routes import DeviceNames
from sensegate.model import BOOL, F64, I64, Device, Fields, Message, Spec
from sensegate.quantities.properties import PROPERTIES, Kind

GROUPS_MAX = 20_000
"""Most differences told apart; the rest is counted."""
CLOSE = 1e-9
_MESSAGES_MAX = 1 << 19
_LIMITS = IngestConfig(rate_per_device_s=1e9)
"""What was too much for a minute then is not refused once more."""

Cut = Callable[[Device], bool]


class Difference(msgspec.Struct, frozen=True):
    """One way in which the versions differ, for one device and property."""

    what: str
    """``value``, ``time``, ``only a``, ``only b``, ``refusal`` or ``rejection``."""
    device: str
    property: str
    """Standard name, ``name#channel`` where it has one; empty for a whole message."""
    unit: str
    a: Any
    """First instance: a value in the unit, a time (ISO 8601), or a reason."""
    b: Any
    count: int
    factor: float | None = None
    """b / a where that is always the same."""


class Side(msgspec.Struct, frozen=True):
    """What one version made of the messages."""

    version: str
    messages: int
    """Decoded."""
    quarantined: dict[str, int]
    values: int
    rejected: dict[str, int]
    outside: int
    """Values outside the version's range."""


class Report(msgspec.Struct, frozen=True):
    """The outcome."""

    profile: str
    messages: int
    """Messages that concern the profile."""
    same: int
    """Values that both give alike."""
    a: Side
    b: Side
    differences: list[Difference]
    more: int
    """Differences that were counted and not told apart."""


class _Found(msgspec.Struct):
    """A difference as it is counted."""

    a: Any
    b: Any
    count: int = 0
    low: float = math.inf
    high: float = -math.inf


class _Tally(msgspec.Struct):
    """Counts of one side."""

    messages: int = 0
    values: int = 0
    outside: int = 0
    quarantined: Counter[str] = msgspec.field(default_factory=Counter)
    rejected: Counter[str] = msgspec.field(default_factory=Counter)


class _Rows(msgspec.Struct, frozen=True, eq=False):
    """The rows of the profile that one side gave, in order of their code."""

    code: I64
    """Message, device and variable as one number; equal codes in their order."""
    value: F64
    text: dict[int, str]
    time: I64
    outside: int
    messages: BOOL
    """Which messages gave rows."""


class Variables:
    """Numbers of ``property#channel``, the same for both sides."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._number: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a name, a new one if need be."""
        found = self._number.get(name)
        if found is None:
            found = self._number[name] = len(self.names)
            self.names.append(name)
        return found


class _Way:
    """One side: a decoder and its specs as columns."""

    def __init__(self, profile: str, profiles: ProfileSet, devices: DeviceNames, variables: Variables) -> None:
        self.profile = profile
        self.variables = variables
        self.decoder = Decoder(profiles, devices, _LIMITS, Memory())
        found = profiles.find(profile)
        self.name = found.name if found else profile
        self.tally = _Tally()
        self.concerned = Concern(self.decoder, devices, profile)
        self._known = 0

    def _columns(self, specs: Sequence[Spec]) -> None:
        if self._known == len(specs):
            return
        self._known = len(specs)
        self._mine = np.array([spec.profile.partition("@")[0] == self.profile for spec in specs], np.bool_)
        self._scale = np.array([spec.scale for spec in specs])
        self._offset = np.array([spec.offset for spec in specs])
        self._low = np.array([spec.low for spec in specs])
        self._high = np.array([spec.high for spec in specs])
        names = [f"{spec.property}#{spec.channel}" if spec.channel else spec.property for spec in specs]
        self._variable = np.array([self.variables.number(name) for name in names], np.int64)

    def decode(self, messages: Sequence[Message], counts: Callable[[int], bool]) -> tuple[Fields, _Rows]:
        """Return what comes of the messages, and the rows of the profile; `counts`: whether a device (index) does."""
        fields = self.decoder.decode(messages)
        self._columns(self.decoder.profiles.specs)
        if not len(fields):
            nothing = np.zeros(0, np.int64)
            return fields, _Rows(nothing, np.zeros(0), {}, nothing, 0, np.zeros(len(messages), np.bool_))
        rows = np.flatnonzero(self._mine[fields.spec])
        different, place = np.unique(fields.device[rows], return_inverse=True)
        rows = rows[np.array([counts(one) for one in different.tolist()], np.bool_)[place]]
        spec = fields.spec[rows]
        value = fields.value[rows] * self._scale[spec] + self._offset[spec]
        back = {row: place for place, row in enumerate(rows.tolist())} if fields.text or fields.override_scale else {}
        for row, (scale, offset) in fields.override_scale.items():
            if row in back:
                value[back[row]] = float(fields.value[row]) * scale + offset
        code = (fields.message[rows].astype(np.int64) << 40) | (fields.device[rows].astype(np.int64) << 16)
        code |= self._variable[spec]
        order = np.argsort(code, kind="stable")
        moved = np.empty(len(order), np.int64)
        moved[order] = np.arange(len(order))
        text = {int(moved[back[row]]): word for row, word in fields.text.items() if row in back}
        outside = int(((value < self._low[spec]) | (value > self._high[spec])).sum())
        there = np.zeros(len(messages), np.bool_)
        there[fields.message[rows]] = True
        return fields, _Rows(code[order], value[order], text, fields.time[rows][order], outside, there)

    def side(self) -> Side:
        """Return the counts."""
        one = self.tally
        return Side(self.name, one.messages, dict(one.quarantined), one.values, dict(one.rejected), one.outside)


class Comparison:
    """Goes over messages in the order in which they came; may be used from another thread, one at a time."""

    def __init__(
        self, profile: str, a: ProfileSet, b: ProfileSet, devices: DeviceNames, cut: Cut = lambda _device: True
    ) -> None:
        """Compare a profile in two sets that differ in nothing else; only devices for which `cut` holds count."""
        self._profile = profile
        self._devices = devices
        self._cut = cut
        variables = Variables()
        self._a, self._b = _Way(profile, a, devices, variables), _Way(profile, b, devices, variables)
        self._variables = variables
        self._known: dict[int, bool] = {}
        self._version = -1
        self._found: dict[tuple[str, int, str], _Found] = {}
        self._messages = self._same = self._more = 0

    def add(self, messages: Sequence[Message]) -> None:
        """Compare some more messages."""
        for first in range(0, len(messages), _MESSAGES_MAX):
            self._add(messages[first : first + _MESSAGES_MAX])

    def report(self, most: int = 1_000) -> Report:
        """Return what was found so far, the most frequent first."""
        found = sorted(self._found.items(), key=lambda item: -item[1].count)
        told = [self._told(*key, one) for key, one in found[:most]]
        more = self._more + sum(one.count for _, one in found[most:])
        return Report(self._profile, self._messages, self._same, self._a.side(), self._b.side(), told, more)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────

    def _add(self, messages: Sequence[Message]) -> None:
        concerned = [one for one in messages if self._concerns(one)]
        if not concerned:
            return
        first, a = self._a.decode(concerned, self._counts)
        second, b = self._b.decode(concerned, self._counts)
        refused = self._refused(self._a, first), self._refused(self._b, second)
        lost = self._lost(self._a, first), self._lost(self._b, second)
        mine = a.messages | b.messages
        mine[[at for side in (*refused, *({at for at, _ in one} for one in lost)) for at in side]] = True
        self._messages += int(mine.sum())
        for way, rows, gone, values in zip((self._a, self._b), (a, b), refused, lost, strict=True):
            way.tally.messages += int(mine.sum()) - len(gone)
            way.tally.values += len(rows.code)
            way.tally.outside += rows.outside
            way.tally.quarantined.update(reason for _, reason in gone.values())
            way.tally.rejected.update(values.values())
        self._compare_refusals(*refused)
        self._compare_losses(*lost)
        self._compare(a, b)

    def _counts(self, device: int) -> bool:
        """Return whether a device counts; one that is not known (-1) does."""
        if self._devices.version != self._version:
            self._known, self._version = {-1: True}, self._devices.version
        found = self._known.get(device)
        if found is None:
            found = self._known[device] = self._cut(self._devices.record(device))
        return found

    def _concerns(self, message: Message) -> bool:
        """Return whether a message may be of the profile, by its topic."""
        return self._a.concerned(message) or self._b.concerned(message)

    def _refused(self, way: _Way, fields: Fields) -> dict[int, tuple[int, str]]:
        """Return message -> (device, reason) of what a side put in quarantine as the profile's."""
        return {
            one.message: (one.device, one.reason.value)
            for one in fields.quarantined
            if one.profile.partition("@")[0] == way.profile and self._counts(one.device)
        }

    def _lost(self, way: _Way, fields: Fields) -> dict[tuple[int, str], str]:
        """Return (message, field) -> reason of the values that a side rejected."""
        return {
            (one.message, f"{one.device}\n{one.field}"): one.reason.value
            for one in fields.rejected
            if one.profile.partition("@")[0] == way.profile and self._counts(one.device)
        }

    def _compare_refusals(self, a: dict[int, tuple[int, str]], b: dict[int, tuple[int, str]]) -> None:
        for at in sorted({*a, *b}):
            device, _ = a.get(at) or b[at]
            before, after = a.get(at, (device, "decoded"))[1], b.get(at, (device, "decoded"))[1]
            if before != after:
                self._count("refusal", device, "", before, after)

    def _compare_losses(self, a: dict[tuple[int, str], str], b: dict[tuple[int, str], str]) -> None:
        for key in sorted({*a, *b}):
            before, after = a.get(key, "a value"), b.get(key, "a value")
            if before != after:
                device, _, field = key[1].partition("\n")
                self._count("rejection", int(device), field, before, after)

    def _compare(self, a: _Rows, b: _Rows) -> None:
        codes, place = np.unique(np.concatenate([a.code, b.code]), return_inverse=True)
        counts_a = np.bincount(place[: len(a.code)], minlength=len(codes))
        counts_b = np.bincount(place[len(a.code) :], minlength=len(codes))
        paired = counts_a == counts_b
        rows_a = np.flatnonzero(paired[place[: len(a.code)]])
        rows_b = np.flatnonzero(paired[place[len(a.code) :]])
        one, other = a.value[rows_a], b.value[rows_b]
        near = np.abs(one - other) <= CLOSE * np.maximum(np.abs(one), np.abs(other))
        near |= np.isnan(one) & np.isnan(other)
        for row, (first, second) in (
            enumerate(zip(rows_a.tolist(), rows_b.tolist(), strict=True)) if a.text or b.text else ()
        ):
            if a.text.get(first) != b.text.get(second):
                near[row] = False
        moved = a.time[rows_a] != b.time[rows_b]
        self._same += int((near & ~moved).sum())
        for row in np.flatnonzero(~near).tolist():
            first, second = int(rows_a[row]), int(rows_b[row])
            self._count(
                "value",
                *self._whose(a.code[first]),
                a.text.get(first, float(a.value[first])),
                b.text.get(second, float(b.value[second])),
            )
        for row in np.flatnonzero(moved).tolist():
            first, second = int(rows_a[row]), int(rows_b[row])
            self._count("time", *self._whose(a.code[first]), int(a.time[first]), int(b.time[second]))
        for what, rows, mine in (("only a", a, place[: len(a.code)]), ("only b", b, place[len(a.code) :])):
            for row in np.flatnonzero(~paired[mine]).tolist():
                value = rows.text.get(row, float(rows.value[row]))
                given = (value, None) if what == "only a" else (None, value)
                self._count(what, *self._whose(rows.code[row]), *given)

    def _whose(self, code: Any) -> tuple[int, str]:
        return int(code) >> 16 & 0xFFFFFF, self._variables.names[int(code) & 0xFFFF]

    def _count(self, what: str, device: int, variable: str, a: Any, b: Any) -> None:
        key = (what, device, variable)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= GROUPS_MAX:
                self._more += 1
                return
            found = self._found[key] = _Found(a, b)
        found.count += 1
        factor = math.nan
        if what == "value" and isinstance(a, float) and isinstance(b, float) and a:
            factor = b / a
        # Once one has no factor, there is none for all.
        found.low = min(found.low, factor) if factor == factor else -math.inf  # noqa: PLR0124 - NaN
        found.high = max(found.high, factor) if factor == factor else math.inf  # noqa: PLR0124 - NaN

    def _told(self, what: str, device: int, variable: str, one: _Found) -> Difference:
        name = variable.partition("#")[0]
        known = PROPERTIES.find(name) if name else -1
        steady = math.isfinite(one.low) and one.high - one.low <= 1e-6 * abs(one.high)
        a, b = one.a, one.b
        if what == "time":
            a, b = (str(np.datetime64(moment, "us")) + "Z" for moment in (a, b))
        elif known >= 0 and PROPERTIES[known].kind is Kind.BOOLEAN:
            a, b = (bool(value) if isinstance(value, float) else value for value in (a, b))
        return Difference(
            what,
            self._devices.record(device).id if device >= 0 else "",
            variable,
            PROPERTIES[known].unit if known >= 0 else "",
            a,
            b,
            one.count,
            round(one.high, 9) if steady and what == "value" else None,
        )


def compared(profile: str, base: ProfileSet, a: Path | None, b: Path | None) -> tuple[ProfileSet, ProfileSet]:
    """Return two sets that differ in one profile only: its versions in these files (None: as in `base`).

    Raises:
        ProfileError: one of the files is no version of it.
    """
    first = base if a is None else base.trying(profile, a)
    second = base if b is None else base.trying(profile, b)
    return first, second
