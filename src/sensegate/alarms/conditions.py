"""Conditions over readings: threshold, change, gap. Pure, but for what earlier readings left.

Rows are compared as columns; only those that violate a rule, or whose series has an open or pending alarm, are looked
at one by one. A rule of kind change or gap looks at each row of its property: it compares it with the one before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from sensegate import metrics
from sensegate.alarms.records import Alarm, AlarmKey, AlarmSubject, PendingViolations
from sensegate.alarms.rules import OF_DEVICES, OF_READINGS, AlarmKind, AlarmRule
from sensegate.bus.batch import Batch
from sensegate.clock import SECOND_US
from sensegate.model import BOOL, I64
from sensegate.quantities.quality import BAD_FROM, Flag

MEMORY_MAX = 500_000
"""Most series of which the last reading is remembered; the oldest are forgotten first."""
INTERVALS = 3
GAP_DEFAULT_S = 3_600.0
LATE_MAX_S = 3_600.0
"""Readings that arrive later are of the past: they open no alarm."""
LOOKBACK_MAX_S = 3_600.0
"""Readings of at most this time are read again after a start; what began before is kept with the position."""
PENDING_MAX = 10_000
"""Most violations kept with the position, those that last longest first."""
_IGNORED = Flag.STALE | Flag.FUTURE | Flag.REDECODED | Flag.WITHDRAWN | Flag.CORRECTED


class Transition(msgspec.Struct, frozen=True):
    """A condition that began or ended."""

    rule: AlarmRule
    key: AlarmKey
    opens: bool
    time: int
    value: float | str | None = None
    subject: AlarmSubject | None = None
    """Subject of the alarm that opens."""
    position: int = 0
    """Sequence of the entry of the reading; 0: it comes from no reading."""
    reason: str = ""


class _Last(msgspec.Struct, frozen=True, gc=False):
    time: int
    value: float | str


class ReadingConditions:
    """Judges entries of readings, in the order of the log."""

    def __init__(self, open_of: Callable[[AlarmKey], Alarm | None], interval_of: Callable[[str, str], float]) -> None:
        """Begin without rules.

        Args:
            open_of: returns the newest alarm of a key, open or closed; None: there was none.
            interval_of: (device, profile with version) -> expected interval in seconds; 0: unknown.
        """
        self._alarm_of = open_of
        self._interval_of = interval_of
        self._rules: dict[str, list[AlarmRule]] = {}
        self._pending: dict[AlarmKey, int] = {}
        """Key -> phenomenon time since which its threshold is violated, while that is not long enough."""
        self._open: defaultdict[str, set[AlarmKey]] = defaultdict(set)
        """Rule -> keys that are open or pending."""
        self._last: dict[AlarmKey, _Last] = {}

    def use(self, rules: Iterable[AlarmRule], open_keys: Iterable[AlarmKey]) -> None:
        """Judge by these rules from now on."""
        self._rules = {}
        for rule in rules:
            if rule.kind in OF_READINGS:
                self._rules.setdefault(rule.property, []).append(rule)
        names = {rule.name for of_property in self._rules.values() for rule in of_property}
        self._pending = {key: since for key, since in self._pending.items() if key.rule in names}
        self._last = {key: last for key, last in self._last.items() if key.rule in names}
        self._open.clear()
        for key in (*open_keys, *self._pending):
            self._open[key.rule].add(key)

    def forget_open(self, key: AlarmKey) -> None:
        """Take an alarm for closed that no reading closed: the next violation of its rule opens it again."""
        self._open[key.rule].discard(key)

    @property
    def lookback_s(self) -> float:
        """Return how many seconds of earlier readings the rules need after a start."""
        return max((rule.for_s for rule in self._all()), default=0.0)

    def _all(self) -> Iterator[AlarmRule]:
        return (rule for of_property in self._rules.values() for rule in of_property)

    def pending(self) -> PendingViolations:
        """Return the violations that last, but not long enough yet, of rules that look further back than a start."""
        names = {rule.name for rule in self._all() if rule.for_s > LOOKBACK_MAX_S}
        lasting = [(key, since) for key, since in self._pending.items() if key.rule in names] if names else []
        if len(lasting) > PENDING_MAX:
            metrics.LIMIT_HITS.labels("alarms_pending").inc()
        return tuple(sorted(lasting, key=lambda violation: violation[1])[:PENDING_MAX])

    def resume(self, pending: PendingViolations) -> None:
        """Take up violations that an earlier process saw begin."""
        names = {rule.name for rule in self._all()}
        for key, since in pending:
            if key.rule in names:
                self._pending[key] = since
                self._open[key.rule].add(key)

    def remember(self, batch: Batch, rows: I64) -> None:
        """Take readings as those before the next ones of their series, without judging them."""
        for row in rows.tolist():
            name = batch.properties[int(batch.property[row])]
            for rule in self._rules.get(name.partition("#")[0], ()):
                if rule.kind is not AlarmKind.THRESHOLD and rule.variable() in (None, name):
                    key = AlarmKey(rule.name, batch.node, batch.origins.device[int(batch.origin[row])], name)
                    self._remember(key, int(batch.time[row]), batch.text.get(row, float(batch.value[row])))

    @property
    def properties(self) -> frozenset[str]:
        """Properties of rules that compare a reading with the one before it."""
        return frozenset(
            rule.property
            for of_property in self._rules.values()
            for rule in of_property
            if rule.kind is not AlarmKind.THRESHOLD
        )

    def judge(self, batch: Batch, entry: int) -> list[Transition]:
        """Return what begins or ends with the readings of an entry, in their order."""
        transitions: list[Transition] = []
        for number, name in enumerate(batch.properties):
            for rule in self._rules.get(name.partition("#")[0], ()):
                if rule.variable() in (None, name):
                    transitions += self._judge(rule, batch, entry, number)
        return transitions

    def _judge(self, rule: AlarmRule, batch: Batch, entry: int, number: int) -> list[Transition]:
        rows = np.flatnonzero(batch.property == number)
        kept = (batch.quality[rows] < BAD_FROM) & ((batch.flags[rows] & np.uint32(_IGNORED)) == 0)
        kept &= batch.received[rows] - batch.time[rows] <= LATE_MAX_S * SECOND_US
        rows = rows[kept & matches(rule, batch)[batch.origin[rows]]]
        if not rows.size:
            return []
        rows = rows[np.argsort(batch.time[rows], kind="stable")]
        if rule.kind is AlarmKind.THRESHOLD:
            violated = _violates(rule, batch, rows)
            watched = {key.device for key in self._open.get(rule.name, ())}
            if watched:
                held = np.array([device in watched for device in batch.origins.device], np.bool_)[batch.origin[rows]]
                rows = rows[violated | held]
            else:
                rows = rows[violated]
        return [
            transition for row in rows.tolist() if (transition := self._judge_row(rule, batch, entry, row)) is not None
        ]

    def _judge_row(self, rule: AlarmRule, batch: Batch, entry: int, row: int) -> Transition | None:
        device = batch.origins.device[int(batch.origin[row])]
        key = AlarmKey(rule.name, batch.node, device, batch.properties[int(batch.property[row])])
        time, value = int(batch.time[row]), batch.text.get(row, float(batch.value[row]))
        alarm = self._alarm_of(key)
        if alarm is not None and (time < alarm.changed or entry <= alarm.position):
            # Late data, or an entry that is read again after a restart: judged already.
            self._remember(key, time, value)
            return None
        is_open = key in self._open[rule.name] and key not in self._pending
        if rule.kind is AlarmKind.THRESHOLD:
            opens = self._threshold(rule, key, time, value, is_open=is_open)
        else:
            opens = self._step(rule, key, time, value, profile=batch.origins.profile[int(batch.origin[row])])
        if opens is None or opens == is_open:
            return None
        if opens:
            self._open[rule.name].add(key)
        else:
            self._open[rule.name].discard(key)
        subject = subject_of(batch, row) if opens else None
        return Transition(rule, key, opens, time, value, subject, position=entry)

    def _threshold(
        self, rule: AlarmRule, key: AlarmKey, time: int, value: float | str, *, is_open: bool
    ) -> bool | None:
        """Return whether the alarm is to be open after a reading; None: as it is."""
        margin = rule.margin if is_open else 0.0
        if isinstance(value, str) or isinstance(rule.equals, bool):
            violated = value == rule.equals
        else:
            violated = (rule.above is not None and value > rule.above - margin) or (
                rule.below is not None and value < rule.below + margin
            )
        if not violated:
            if self._pending.pop(key, None) is not None:
                self._open[rule.name].discard(key)
            return False
        if is_open or not rule.for_s:
            return True
        since = self._pending.setdefault(key, time)
        self._open[rule.name].add(key)
        if time - since < rule.for_s * SECOND_US:
            return None
        del self._pending[key]
        return True

    def _step(self, rule: AlarmRule, key: AlarmKey, time: int, value: float | str, *, profile: str) -> bool | None:
        last = self._last.get(key)
        self._remember(key, time, value)
        if last is None or time <= last.time:
            return None
        if rule.kind is AlarmKind.GAP:
            longest_s = rule.after_s or INTERVALS * self._interval_of(key.device, profile) or GAP_DEFAULT_S
            return time - last.time > longest_s * SECOND_US
        if isinstance(value, str) or isinstance(last.value, str):
            return value != last.value
        return abs(value - last.value) > rule.by

    def _remember(self, key: AlarmKey, time: int, value: float | str) -> None:
        last = self._last.get(key)
        if last is None or time > last.time:
            self._last[key] = _Last(time, value)
            if len(self._last) > MEMORY_MAX:
                del self._last[next(iter(self._last))]


def matches(rule: AlarmRule, batch: Batch) -> BOOL:
    """Return which origins of a batch a rule is for."""
    origins = batch.origins
    matching = np.ones(len(origins), np.bool_)
    place = rule.place
    if place.division:
        covered = [word.startswith(place.division) for word in origins.division.table]
        matching &= np.array(covered, np.bool_)[origins.division.index]
    for required, column in ((place.department, origins.department), (rule.domain, origins.domain)):
        if required:
            matching &= np.array([word == required for word in column.table], np.bool_)[column.index]
    if rule.profile:
        same = [word.partition("@")[0] == rule.profile for word in origins.profile.table]
        matching &= np.array(same, np.bool_)[origins.profile.index]
    if rule.device:
        matching &= np.array([device == rule.device for device in origins.device], np.bool_)
    return matching


def is_for(rule: AlarmRule, key: AlarmKey, subject: AlarmSubject) -> bool:
    """Return whether a rule judges the subject of a key, of which `subject` is the present state."""
    if rule.kind not in OF_READINGS | OF_DEVICES:
        return True
    is_judged = rule.kind in OF_DEVICES or (
        rule.variable() in (None, key.property) and key.property.partition("#")[0] == rule.property
    )
    return (
        is_judged
        and rule.place.covers(subject.division, subject.department)
        and rule.profile in ("", subject.profile.partition("@")[0])
        and rule.domain in ("", subject.domain)
        and rule.device in ("", key.device)
    )


def _violates(rule: AlarmRule, batch: Batch, rows: I64) -> BOOL:
    if isinstance(rule.equals, str):
        return np.array([batch.text.get(row) == rule.equals for row in rows.tolist()], np.bool_)
    value = batch.value[rows]
    if rule.equals is not None:
        same: BOOL = value == float(rule.equals)
        return same
    violated = np.zeros(len(rows), np.bool_)
    if rule.above is not None:
        violated |= value > rule.above
    if rule.below is not None:
        violated |= value < rule.below
    return violated


def subject_of(batch: Batch, row: int) -> AlarmSubject:
    """Return the subject of an alarm of the device of a row."""
    entry = int(batch.origin[row])
    origins = batch.origins
    return AlarmSubject(
        division=origins.division[entry],
        department=origins.department[entry],
        domain=origins.domain[entry],
        profile=origins.profile[entry],
        lon=float(origins.lon[entry]),
        lat=float(origins.lat[entry]),
        grade=int(origins.grade[entry]),
    )


def open_keys(alarms: Sequence[Alarm]) -> list[AlarmKey]:
    """Return the keys of the open ones of some alarms."""
    return [alarm.key for alarm in alarms if alarm.is_open]
