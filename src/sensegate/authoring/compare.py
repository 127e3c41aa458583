"""Compare two versions of a profile over the same messages: what each decodes, and every difference.

Rows are paired by (message, device, property, channel) and by their order within that key. Values are compared in the
property's unit, so that a changed unit or scale shows as a changed value; a constant factor between them is reported.
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
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.relevance import ProfileFilter
from sensegate.decode.routes import DeviceNames
from sensegate.model import BOOL, F64, I64, Device, Fields, Message, Spec
from sensegate.quantities.properties import PROPERTIES, ValueKind

DIFFERENCES_MAX = 20_000
"""Most differences reported one by one; further ones are only counted."""
CLOSE = 1e-9
_MESSAGES_MAX = 1 << 19
_LIMITS = IngestConfig(rate_per_device_s=1e9)
"""Limits without a rate limit: messages that exceeded it on arrival are compared too."""

DeviceFilter = Callable[[Device], bool]


class VersionDifference(msgspec.Struct, frozen=True):
    """A difference between the versions, for one device and property."""

    kind: str
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
    """b / a, where it is constant."""


class VersionCounts(msgspec.Struct, frozen=True):
    """Counts of what one version made of the messages."""

    version: str
    messages: int
    """Messages decoded."""
    quarantined: dict[str, int]
    values: int
    rejected: dict[str, int]
    outside: int
    """Values outside the version's range."""


class ComparisonReport(msgspec.Struct, frozen=True):
    """Outcome of a comparison."""

    profile: str
    messages: int
    """Messages addressed to the profile."""
    same: int
    """Values on which both versions agree."""
    a: VersionCounts
    b: VersionCounts
    differences: list[VersionDifference]
    more: int
    """Differences beyond those listed, only counted."""


class _DifferenceCount(msgspec.Struct):
    """A difference while it is being counted."""

    a: Any
    b: Any
    count: int = 0
    low: float = math.inf
    high: float = -math.inf


class _Tally(msgspec.Struct):
    """Counts of one version."""

    messages: int = 0
    values: int = 0
    outside: int = 0
    quarantined: Counter[str] = msgspec.field(default_factory=Counter)
    rejected: Counter[str] = msgspec.field(default_factory=Counter)


class _Rows(msgspec.Struct, frozen=True, eq=False):
    """Rows of the profile that one version gave, ordered by code."""

    code: I64
    """Message, device and variable packed into one integer; rows of equal code keep their order."""
    value: F64
    text: dict[int, str]
    time: I64
    outside: int
    messages: BOOL
    """Mask of the messages that gave rows."""


class VariableIndex:
    """Numbers for ``property#channel``, shared by both versions."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._number: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a variable; a new variable gets the next one."""
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self.names)
            self.names.append(name)
        return number


class _VersionDecoder:
    """A version: its decoder, and its specs as columns."""

    def __init__(self, profile: str, profiles: ProfileSet, devices: DeviceNames, variables: VariableIndex) -> None:
        self.profile = profile
        self.variables = variables
        self.decoder = Decoder(profiles, devices, _LIMITS, DecoderMemory())
        version = profiles.find(profile)
        self.name = version.name if version else profile
        self.tally = _Tally()
        self.may_concern = ProfileFilter(self.decoder, devices, profile)
        self._known = 0

    def _columns(self, specs: Sequence[Spec]) -> None:
        if self._known == len(specs):
            return
        self._known = len(specs)
        self._of_profile = np.array([spec.profile.partition("@")[0] == self.profile for spec in specs], np.bool_)
        self._scale = np.array([spec.scale for spec in specs])
        self._offset = np.array([spec.offset for spec in specs])
        self._low = np.array([spec.low for spec in specs])
        self._high = np.array([spec.high for spec in specs])
        names = [f"{spec.property}#{spec.channel}" if spec.channel else spec.property for spec in specs]
        self._variable = np.array([self.variables.number(name) for name in names], np.int64)

    def decode(self, messages: Sequence[Message], counts: Callable[[int], bool]) -> tuple[Fields, _Rows]:
        """Return the fields of the messages and the rows of the profile; `counts(device)` includes a device index."""
        fields = self.decoder.decode(messages)
        self._columns(self.decoder.profiles.specs)
        if not len(fields):
            empty = np.zeros(0, np.int64)
            return fields, _Rows(empty, np.zeros(0), {}, empty, 0, np.zeros(len(messages), np.bool_))
        rows = np.flatnonzero(self._of_profile[fields.spec])
        devices, inverse = np.unique(fields.device[rows], return_inverse=True)
        rows = rows[np.array([counts(device) for device in devices.tolist()], np.bool_)[inverse]]
        spec = fields.spec[rows]
        value = fields.value[rows] * self._scale[spec] + self._offset[spec]
        position = (
            {row: place for place, row in enumerate(rows.tolist())} if fields.text or fields.override_scale else {}
        )
        for row, (scale, offset) in fields.override_scale.items():
            if row in position:
                value[position[row]] = float(fields.value[row]) * scale + offset
        code = (fields.message[rows].astype(np.int64) << 40) | (fields.device[rows].astype(np.int64) << 16)
        code |= self._variable[spec]
        order = np.argsort(code, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        text = {int(rank[position[row]]): word for row, word in fields.text.items() if row in position}
        outside = int(((value < self._low[spec]) | (value > self._high[spec])).sum())
        gave_rows = np.zeros(len(messages), np.bool_)
        gave_rows[fields.message[rows]] = True
        return fields, _Rows(code[order], value[order], text, fields.time[rows][order], outside, gave_rows)

    def counts(self) -> VersionCounts:
        """Return the counts of this version."""
        tally = self.tally
        return VersionCounts(
            self.name, tally.messages, dict(tally.quarantined), tally.values, dict(tally.rejected), tally.outside
        )


class VersionComparison:
    """Compare messages in the order in which they arrived. May run in a thread, one call at a time."""

    def __init__(
        self,
        profile: str,
        a: ProfileSet,
        b: ProfileSet,
        devices: DeviceNames,
        include: DeviceFilter = lambda _device: True,
    ) -> None:
        """Compare a profile in two sets that differ in nothing else; only devices for which `include` holds count."""
        self._profile = profile
        self._devices = devices
        self._include = include
        variables = VariableIndex()
        self._a, self._b = (
            _VersionDecoder(profile, a, devices, variables),
            _VersionDecoder(profile, b, devices, variables),
        )
        self._variables = variables
        self._known: dict[int, bool] = {}
        self._version = -1
        self._differences: dict[tuple[str, int, str], _DifferenceCount] = {}
        self._messages = self._same = self._more = 0

    def add(self, messages: Sequence[Message]) -> None:
        """Compare more messages."""
        for first in range(0, len(messages), _MESSAGES_MAX):
            self._add(messages[first : first + _MESSAGES_MAX])

    def report(self, most: int = 1_000) -> ComparisonReport:
        """Return the outcome so far, the most frequent differences first."""
        ranked = sorted(self._differences.items(), key=lambda item: -item[1].count)
        differences = [self._difference(*key, counted) for key, counted in ranked[:most]]
        more = self._more + sum(counted.count for _, counted in ranked[most:])
        return ComparisonReport(
            self._profile, self._messages, self._same, self._a.counts(), self._b.counts(), differences, more
        )

    # ── internals ───────────────────────────────────────────────────────────────────────────────────

    def _add(self, messages: Sequence[Message]) -> None:
        may_concern = [message for message in messages if self._concerns(message)]
        if not may_concern:
            return
        first, a = self._a.decode(may_concern, self._counts)
        second, b = self._b.decode(may_concern, self._counts)
        quarantined = self._quarantined(self._a, first), self._quarantined(self._b, second)
        rejected = self._rejected(self._a, first), self._rejected(self._b, second)
        involved = a.messages | b.messages
        involved[[at for counts in (*quarantined, *({at for at, _ in keys} for keys in rejected)) for at in counts]] = (
            True
        )
        self._messages += int(involved.sum())
        for version, rows, refusals, rejections in zip((self._a, self._b), (a, b), quarantined, rejected, strict=True):
            version.tally.messages += int(involved.sum()) - len(refusals)
            version.tally.values += len(rows.code)
            version.tally.outside += rows.outside
            version.tally.quarantined.update(reason for _, reason in refusals.values())
            version.tally.rejected.update(rejections.values())
        self._compare_quarantines(*quarantined)
        self._compare_rejections(*rejected)
        self._compare(a, b)

    def _counts(self, device: int) -> bool:
        """Return whether a device counts; an unknown device (-1) does."""
        if self._devices.version != self._version:
            self._known, self._version = {-1: True}, self._devices.version
        counts = self._known.get(device)
        if counts is None:
            counts = self._known[device] = self._include(self._devices.record(device))
        return counts

    def _concerns(self, message: Message) -> bool:
        """Return whether a message may be addressed to the profile, judged by its topic."""
        return self._a.may_concern(message) or self._b.may_concern(message)

    def _quarantined(self, version: _VersionDecoder, fields: Fields) -> dict[int, tuple[int, str]]:
        """Return message -> (device, reason) of the messages that a version quarantined for the profile."""
        return {
            refusal.message: (refusal.device, refusal.reason.value)
            for refusal in fields.quarantined
            if refusal.profile.partition("@")[0] == version.profile and self._counts(refusal.device)
        }

    def _rejected(self, version: _VersionDecoder, fields: Fields) -> dict[tuple[int, str], str]:
        """Return (message, field) -> reason of the values that a version rejected."""
        return {
            (value.message, f"{value.device}\n{value.field}"): value.reason.value
            for value in fields.rejected
            if value.profile.partition("@")[0] == version.profile and self._counts(value.device)
        }

    def _compare_quarantines(self, a: dict[int, tuple[int, str]], b: dict[int, tuple[int, str]]) -> None:
        for message in sorted({*a, *b}):
            device, _ = a.get(message) or b[message]
            before, after = a.get(message, (device, "decoded"))[1], b.get(message, (device, "decoded"))[1]
            if before != after:
                self._record("refusal", device, "", before, after)

    def _compare_rejections(self, a: dict[tuple[int, str], str], b: dict[tuple[int, str], str]) -> None:
        for key in sorted({*a, *b}):
            before, after = a.get(key, "a value"), b.get(key, "a value")
            if before != after:
                device, _, field = key[1].partition("\n")
                self._record("rejection", int(device), field, before, after)

    def _compare(self, a: _Rows, b: _Rows) -> None:
        codes, inverse = np.unique(np.concatenate([a.code, b.code]), return_inverse=True)
        counts_a = np.bincount(inverse[: len(a.code)], minlength=len(codes))
        counts_b = np.bincount(inverse[len(a.code) :], minlength=len(codes))
        paired = counts_a == counts_b
        rows_a = np.flatnonzero(paired[inverse[: len(a.code)]])
        rows_b = np.flatnonzero(paired[inverse[len(a.code) :]])
        value_a, value_b = a.value[rows_a], b.value[rows_b]
        near = np.abs(value_a - value_b) <= CLOSE * np.maximum(np.abs(value_a), np.abs(value_b))
        near |= np.isnan(value_a) & np.isnan(value_b)
        for row, (first, second) in (
            enumerate(zip(rows_a.tolist(), rows_b.tolist(), strict=True)) if a.text or b.text else ()
        ):
            if a.text.get(first) != b.text.get(second):
                near[row] = False
        retimed = a.time[rows_a] != b.time[rows_b]
        self._same += int((near & ~retimed).sum())
        for row in np.flatnonzero(~near).tolist():
            first, second = int(rows_a[row]), int(rows_b[row])
            self._record(
                "value",
                *self._decode_code(a.code[first]),
                a.text.get(first, float(a.value[first])),
                b.text.get(second, float(b.value[second])),
            )
        for row in np.flatnonzero(retimed).tolist():
            first, second = int(rows_a[row]), int(rows_b[row])
            self._record("time", *self._decode_code(a.code[first]), int(a.time[first]), int(b.time[second]))
        for kind, rows, counts in (("only a", a, inverse[: len(a.code)]), ("only b", b, inverse[len(a.code) :])):
            for row in np.flatnonzero(~paired[counts]).tolist():
                value = rows.text.get(row, float(rows.value[row]))
                given = (value, None) if kind == "only a" else (None, value)
                self._record(kind, *self._decode_code(rows.code[row]), *given)

    def _decode_code(self, code: Any) -> tuple[int, str]:
        return int(code) >> 16 & 0xFFFFFF, self._variables.names[int(code) & 0xFFFF]

    def _record(self, kind: str, device: int, variable: str, a: Any, b: Any) -> None:
        key = (kind, device, variable)
        counted = self._differences.get(key)
        if counted is None:
            if len(self._differences) >= DIFFERENCES_MAX:
                self._more += 1
                return
            counted = self._differences[key] = _DifferenceCount(a, b)
        counted.count += 1
        factor = math.nan
        if kind == "value" and isinstance(a, float) and isinstance(b, float) and a:
            factor = b / a
        # A single pair without a factor means that the difference has none.
        counted.low = min(counted.low, factor) if factor == factor else -math.inf  # noqa: PLR0124 - NaN
        counted.high = max(counted.high, factor) if factor == factor else math.inf  # noqa: PLR0124 - NaN

    def _difference(self, kind: str, device: int, variable: str, counted: _DifferenceCount) -> VersionDifference:
        name = variable.partition("#")[0]
        index = PROPERTIES.find(name) if name else -1
        steady = math.isfinite(counted.low) and counted.high - counted.low <= 1e-6 * abs(counted.high)
        a, b = counted.a, counted.b
        if kind == "time":
            a, b = (str(np.datetime64(moment, "us")) + "Z" for moment in (a, b))
        elif index >= 0 and PROPERTIES[index].kind is ValueKind.BOOLEAN:
            a, b = (bool(value) if isinstance(value, float) else value for value in (a, b))
        return VersionDifference(
            kind,
            self._devices.record(device).id if device >= 0 else "",
            variable,
            PROPERTIES[index].unit if index >= 0 else "",
            a,
            b,
            counted.count,
            round(counted.high, 9) if steady and kind == "value" else None,
        )


def sets_to_compare(profile: str, base: ProfileSet, a: Path | None, b: Path | None) -> tuple[ProfileSet, ProfileSet]:
    """Return two profile sets that differ only in one profile: its versions in these files (None: as in `base`).

    Raises:
        ProfileError: one of the files is not a version of the profile.
    """
    first = base if a is None else base.with_version(profile, a)
    second = base if b is None else base.with_version(profile, b)
    return first, second
