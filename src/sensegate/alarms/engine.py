"""The engine of alarms: follows the log, judges conditions, and writes what changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

from sensegate import metrics
from sensegate.alarms.conditions import LOOKBACK_MAX_S, ReadingConditions, Transition, is_for
from sensegate.alarms.probes import GatewayProbes
from sensegate.alarms.records import Alarm, AlarmEvent, AlarmKey, AlarmState, AlarmSubject, open_alarm
from sensegate.alarms.rules import OF_READINGS, AlarmKind, AlarmRule, AlarmRules, Severity
from sensegate.alarms.states import AlarmStates
from sensegate.authority.devices import Devices
from sensegate.bus.names import READINGS
from sensegate.clock import HOUR_US, SECOND_US, Clock
from sensegate.model import BOOL, F64, QualityHour
from sensegate.share.last_values import LastValues
from sensegate.share.reader import LogReader

TICK_S = 5.0
"""Interval at which conditions of time are judged."""
POSITION_S = 30.0
"""After a kill, readings of at most this time are judged again."""
SEVERITIES = tuple(Severity)


class EngineInputs(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The parts of the gateway that the engine watches."""

    reader: LogReader
    devices: Devices
    quality_hours: Callable[[int], Iterable[QualityHour]]
    """Time -> indicators since then, by device and hour."""
    are_arrivals_known: Callable[[], bool]
    """Returns whether the log has been read since the start: before, a device may only seem silent."""
    last_values: LastValues
    probes: GatewayProbes
    node: str
    division: str


class AlarmEngine:
    """Opens and closes alarms; `run` until cancelled."""

    def __init__(self, rules: AlarmRules, states: AlarmStates, clock: Clock, inputs: EngineInputs) -> None:
        self._rules = rules
        self._states = states
        self._clock = clock
        self._inputs = inputs
        self._conditions = ReadingConditions(states.find, self._interval_s)
        self._since: dict[AlarmKey, int] = {}
        """Key of a condition of the gateway -> since when it lasts, while that is not long enough."""
        self._in_force: dict[str, AlarmRule] = {}
        self._position = 0
        self._judged = False
        """True if readings were judged since the position was written."""
        self._position_due = 0.0
        self._tick_due = 0.0

    def warnings(self) -> list[str]:
        """Return how many alarms are open."""
        active = [alarm for alarm in self._states.all() if alarm.state is AlarmState.OPEN]
        if not active:
            return []
        worst = max(active, key=lambda alarm: SEVERITIES.index(alarm.severity))
        return [f"alarms: {len(active)} open, the worst is {worst.severity}; see `sensegate alarm list`"]

    async def run(self) -> None:
        """Follow the log until cancelled. Raises `Unavailable`, `Fenced`, `StoreFull`: to be run again."""
        await self._open()
        while True:
            await self.step()
            await self._inputs.reader.wait(self._position, TICK_S)

    async def _open(self) -> None:
        await self._states.load()
        self._in_force = {}
        self._refresh_rules()
        log = self._inputs.reader.log
        _, end = await log.bounds()
        if not self._states.position_time:
            self._position = end  # the first start: nothing is told of what was before
        else:
            self._position = min(self._states.position, end)
            await self._prime()
        self._position_due = self._clock.monotonic() + POSITION_S
        self._tick_due = 0.0

    async def _prime(self) -> None:
        """Read what conditions remember: the entries before the position, whose outcome is known."""
        values = self._inputs.last_values
        wanted = self._conditions.properties
        held = np.array([name.partition("#")[0] in wanted for name in values.properties], np.bool_)
        if held.any():
            for part in values.batches(np.flatnonzero(held[values.view().property])):
                self._conditions.remember(part.batch, np.flatnonzero(part.entry <= self._position))
        self._conditions.resume(self._states.pending)
        lookback_s = min(max(self._conditions.lookback_s, 600.0), LOOKBACK_MAX_S)
        since = self._states.position_time - round(lookback_s * SECOND_US)
        log = self._inputs.reader.log
        at = await log.sequence_at(since) - 1
        while at < self._position:
            read = await self._inputs.reader.read(at)
            if read.end == at:
                break
            for entry in read.entries:
                if entry.sequence <= self._position and entry.subject.startswith(f"{READINGS}."):
                    self._conditions.judge(entry.batch, entry.sequence)
            at = read.end
        self._use_rules()

    async def step(self) -> None:
        """Judge all new entries, and the conditions of time when they are due."""
        self._refresh_rules()
        while True:
            read = await self._inputs.reader.read(self._position)
            transitions: list[Transition] = []
            for entry in read.entries:
                if entry.subject.startswith(f"{READINGS}."):
                    transitions += self._conditions.judge(entry.batch, entry.sequence)
                    self._judged = True
            await self._apply(transitions, position=read.end)
            if read.end == self._position:
                break
            self._position = read.end
        now_s = self._clock.monotonic()
        if now_s >= self._tick_due:
            self._tick_due = now_s + TICK_S
            of_time = await self._tick()
            await self._apply(of_time, position=self._position)
            for transition in of_time:
                if not transition.opens:
                    self._conditions.forget_open(transition.key)
        if self._judged and now_s >= self._position_due:
            await self._states.write([], position=self._position, pending=self._conditions.pending())
            self._judged, self._position_due = False, now_s + POSITION_S

    def _refresh_rules(self) -> None:
        rules = {rule.name: rule for rule in self._rules.in_force()}
        if rules != self._in_force:
            self._in_force = rules
            self._use_rules()

    def _use_rules(self) -> None:
        self._conditions.use(self._in_force.values(), [alarm.key for alarm in self._states.open_alarms()])

    def _interval_s(self, device: str, profile: str) -> float:
        return self._inputs.devices.interval_s(device, profile.partition("@")[0])

    # ── conditions of time ────────────────────────────────────────────────────────────────────────────

    async def _tick(self) -> list[Transition]:
        now = self._clock.now()
        self._states.forget_expired()
        values = await self._inputs.probes.values()
        for kind, value in values.items():
            if value is not None:
                metrics.GATEWAY_CONDITION.labels(kind).set(value)
        transitions = list(self._orphans(now))
        for rule in self._in_force.values():
            if rule.kind is AlarmKind.SILENCE:
                if self._inputs.are_arrivals_known():
                    transitions += self._silence(rule, now)
            elif rule.kind is AlarmKind.QUALITY:
                transitions += self._quality(rule, now)
            elif rule.kind not in OF_READINGS and (value := values.get(rule.kind)) is not None:
                transitions += self._gateway(rule, value, now)
        return transitions

    def _orphans(self, now: int) -> Iterable[Transition]:
        """Yield the end of alarms whose rule or device is no longer in force, or whose rule is for others now."""
        devices, own = self._inputs.devices, self._inputs.node
        for alarm in self._states.open_alarms():
            key = alarm.key
            rule = self._in_force.get(key.rule)
            at = devices.find(key.device) if key.device and key.node == own else -1
            if rule is None:
                yield Transition(_rule_of(alarm), key, opens=False, time=now, reason="the rule is no longer in force")
            elif at >= 0 and not devices.enabled[at]:
                yield Transition(rule, key, opens=False, time=now, reason="the device is disabled or retired")
            elif alarm.kind is not rule.kind or not is_for(rule, key, self._subject(at) if at >= 0 else alarm.subject):
                yield Transition(rule, key, opens=False, time=now, reason="the rule no longer applies to it")

    def _silence(self, rule: AlarmRule, now: int) -> Iterable[Transition]:
        devices = self._inputs.devices
        silent = devices.silent(rule.after_s) & self._selected(rule)
        open_now = {alarm.key.device: alarm for alarm in self._states.open_alarms() if alarm.key.rule == rule.name}
        for at in np.flatnonzero(silent).tolist():
            if devices.id(at) not in open_now:
                key = AlarmKey(rule.name, self._inputs.node, devices.id(at))
                minutes = round((now - devices.seen(at)) / 6e7, 1)
                yield Transition(rule, key, opens=True, time=now, value=minutes, subject=self._subject(at))
        for device, alarm in open_now.items():
            at = devices.find(device)
            if at >= 0 and not silent[at] and devices.enabled[at]:
                yield Transition(rule, alarm.key, opens=False, time=max(devices.seen(at), alarm.changed))

    def _quality(self, rule: AlarmRule, now: int) -> Iterable[Transition]:
        devices = self._inputs.devices
        hour = now // HOUR_US * HOUR_US - HOUR_US
        if rule.below is None:
            return
        selected = self._selected(rule)
        is_open = np.zeros(len(selected), np.bool_)
        for alarm in self._states.open_alarms():
            at = devices.find(alarm.key.device) if alarm.key.rule == rule.name else -1
            if 0 <= at < len(is_open) and alarm.key.node == self._inputs.node:
                is_open[at] = True
        limits = rule.below + np.where(is_open, rule.margin, 0.0)
        for columns in self._inputs.quality_hours(hour):
            if columns.hour != hour:
                continue
            values: F64 = getattr(columns, rule.indicator)
            is_low = values < limits[columns.device]  # of an undefined indicator it is false
            changed = selected[columns.device] & ~np.isnan(values) & (is_low != is_open[columns.device])
            for row in np.flatnonzero(changed).tolist():
                at, opens = int(columns.device[row]), bool(is_low[row])
                key = AlarmKey(rule.name, self._inputs.node, devices.id(at))
                value = round(float(values[row]), 4)
                yield Transition(rule, key, opens=opens, time=now, value=value, subject=self._subject(at))

    def _gateway(self, rule: AlarmRule, value: float, now: int) -> Iterable[Transition]:
        key = AlarmKey(rule.name, self._inputs.node, "")
        alarm = self._states.find(key)
        is_open = alarm is not None and alarm.is_open
        margin = rule.margin if is_open else 0.0
        is_out = (rule.above is not None and value > rule.above - margin) or (
            rule.below is not None and value < rule.below + margin
        )
        since = self._since.setdefault(key, now) if is_out else now
        if not is_out or is_open:
            self._since.pop(key, None)
        if is_out == is_open or (is_out and now - since < rule.for_s * SECOND_US):
            return
        self._since.pop(key, None)
        subject = AlarmSubject(division=self._inputs.division)
        yield Transition(rule, key, opens=is_out, time=now, value=round(value, 4), subject=subject)

    def _selected(self, rule: AlarmRule) -> BOOL:
        """Return which devices of this gateway a rule is for, by index."""
        devices = self._inputs.devices
        selected = devices.mask(rule.place, profile=rule.profile, domain=rule.domain)
        if rule.device:
            only = np.zeros(len(selected), np.bool_)
            if (at := devices.find(rule.device)) >= 0:
                only[at] = True
            selected &= only
        return selected

    def _subject(self, at: int) -> AlarmSubject:
        devices = self._inputs.devices
        device = devices.record(at)
        return AlarmSubject(
            division=device.division,
            department=device.department,
            domain=device.domain,
            profile=device.profile,
            lon=float(devices.lon[at]),
            lat=float(devices.lat[at]),
            grade=device.grade,
        )

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────

    async def _apply(self, transitions: Sequence[Transition], *, position: int) -> None:
        """Write the events of transitions, in order; one that the present state already contains makes none."""
        if transitions and await self._states.apply(
            lambda: self._events(transitions), position=position, pending=self._conditions.pending()
        ):
            self._judged, self._position_due = False, self._clock.monotonic() + POSITION_S

    def _events(self, transitions: Sequence[Transition]) -> list[AlarmEvent]:
        """Return the events that transitions make of the present states."""
        now = self._clock.now()
        states: dict[AlarmKey, Alarm | None] = {}
        events: list[AlarmEvent] = []
        room = self._states.room
        for transition in transitions:
            key = transition.key
            alarm = states.get(key, self._states.find(key))
            if (alarm is not None and alarm.is_open) == transition.opens:
                continue
            if transition.opens and room <= 0:
                metrics.LIMIT_HITS.labels("alarms").inc()
                self._conditions.forget_open(key)
                continue
            room += -1 if transition.opens else 1
            event = _event(transition, alarm, now)
            states[key] = event.alarm
            events.append(event)
        return events


def _event(transition: Transition, alarm: Alarm | None, now: int) -> AlarmEvent:
    if transition.opens:
        assert transition.subject is not None  # noqa: S101 - of each that opens
        opened = open_alarm(
            transition.rule,
            transition.key,
            transition.subject,
            time=transition.time,
            now=now,
            position=transition.position,
        )
        silenced = alarm.silenced_until if alarm and alarm.silenced_until > now else 0
        opened = msgspec.structs.replace(opened, value=transition.value, silenced_until=silenced)
        return AlarmEvent("opened", opened, transition.time)
    assert alarm is not None  # noqa: S101 - only an open one closes
    closed = msgspec.structs.replace(
        alarm,
        state=AlarmState.CLOSED,
        value=alarm.value if transition.value is None else transition.value,
        changed=max(transition.time, alarm.changed),
        position=max(transition.position, alarm.position),
        closed=now,
        reason=transition.reason,
    )
    return AlarmEvent("closed", closed, closed.changed)


def _rule_of(alarm: Alarm) -> AlarmRule:
    return AlarmRule(name=alarm.key.rule, kind=alarm.kind, severity=alarm.severity, title=alarm.title)
