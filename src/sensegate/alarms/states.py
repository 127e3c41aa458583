"""States of alarms on the log: each change with its events in one atomic write, fenced by the state before it.

    alarms.<city>.own.<grade>           events, as a batch of rows: the feed `alarms`
    alarm.<partition>.<token>           the newest state of an alarm; replaces the one before
    alarm.<partition>.position          up to which entry of the log conditions were judged

An event therefore exists exactly once, whenever the process dies: after a start the states are read, and entries up to
the position of a state are not judged for it again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from sensegate import metrics
from sensegate.alarms.records import (
    Alarm,
    AlarmEvent,
    AlarmKey,
    PendingViolations,
    decode_alarm,
    encode_alarm,
    event_batch,
)
from sensegate.authority.divisions import Divisions
from sensegate.bus.decoding import decoder
from sensegate.bus.names import ALARM_EVENTS, ALARM_STATES, OWN_AREA
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.model import LogEntry, LogMessage

WRITE_MAX = 300
"""Most alarms whose states are written at once."""
CLOSED_TTL_H = 720
"""A closed alarm is listed for so long; its events are in the feed for as long as readings are."""
ALARMS_MAX = 100_000
"""Most alarms held: beyond, closed ones are forgotten, the oldest first. Once all are open, no new ones open, which is
counted."""


class AlarmLog(Protocol):
    """The part of the log that alarms need."""

    async def write(self, messages: Sequence[LogMessage]) -> int: ...
    async def last(self, subject: str) -> LogEntry | None: ...
    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]: ...


class _Position(msgspec.Struct, frozen=True, omit_defaults=True):
    sequence: int
    time: int
    format: int = 1
    pending: PendingViolations = ()


_decode_position = decoder(_Position, "position of the alarms")
_encode = msgspec.msgpack.Encoder().encode
_POSITION = "position"


class AlarmStates:
    """The newest state of each alarm of this gateway, in memory and on the log; one writer."""

    def __init__(
        self, log: AlarmLog, clock: Clock, divisions: Divisions, *, node: str, partition: int, events_ttl_h: int
    ) -> None:
        self._log = log
        self._clock = clock
        self._divisions = divisions
        self._node = node
        self._partition = partition
        self._events_ttl_h = events_ttl_h
        self._prefix = f"{ALARM_STATES}.{node}-{partition}"
        self._alarms: dict[AlarmKey, Alarm] = {}
        self._by_id: dict[str, AlarmKey] = {}
        self._open: Counter[tuple[str, str]] = Counter()
        """(severity, state) -> number of alarms that are not closed."""
        self._sequences: dict[str, int] = {}
        """Subject -> sequence of its newest entry."""
        self._lock = asyncio.Lock()
        self._is_loaded = False
        self.position = 0
        self.position_time = 0
        """Time when the entry at `position` was judged, µs UTC; 0: no position is known."""
        self.pending: PendingViolations = ()
        """Violations at `position` that began before readings are read again after a start."""
        self.on_change: list[Callable[[Alarm], None]] = []

    def find(self, key: AlarmKey) -> Alarm | None:
        """Return the newest alarm of a key, open or closed."""
        return self._alarms.get(key)

    def get(self, alarm_id: str) -> Alarm | None:
        """Return an alarm by id; None where there is none, or a newer one of the same key."""
        alarm = self._alarms.get(self._by_id[alarm_id]) if alarm_id in self._by_id else None
        return alarm if alarm is not None and alarm.id == alarm_id else None

    def all(self) -> list[Alarm]:
        """Return all alarms."""
        return list(self._alarms.values())

    def open_alarms(self) -> list[Alarm]:
        """Return the alarms that are not closed."""
        return [alarm for alarm in self._alarms.values() if alarm.is_open]

    @property
    def room(self) -> int:
        """Return how many more alarms may open."""
        return ALARMS_MAX - self._open.total()

    async def load(self) -> None:
        """Read all states from the log. Raises `Unavailable`."""
        async with self._lock:
            await self._load()

    async def _load(self) -> None:
        alarms: dict[AlarmKey, Alarm] = {}
        sequences: dict[str, int] = {}
        after = 0
        while entries := await self._log.fetch_of(f"{self._prefix}.*", after):
            for entry in entries:
                sequences[entry.subject] = entry.sequence
                if entry.subject.endswith(f".{_POSITION}"):
                    if (position := read(entry, "alarms", _decode_position)) is not None:
                        self.position, self.position_time = position.sequence, position.time
                        self.pending = position.pending
                elif (alarm := read(entry, "alarms", decode_alarm)) is not None:
                    alarms[alarm.key] = alarm
            after = entries[-1].sequence
        self._alarms, self._sequences = alarms, sequences
        self._by_id = {alarm.id: key for key, alarm in alarms.items()}
        self._open = Counter(_counted(alarm) for alarm in alarms.values() if alarm.is_open)
        self._is_loaded = True
        self._drop_oldest_closed()
        self._count()

    def forget_expired(self) -> None:
        """Drop closed alarms whose state has expired on the log."""
        expired_at = self._clock.now() - CLOSED_TTL_H * 3_600_000_000
        for key, alarm in list(self._alarms.items()):
            if alarm.closed and alarm.closed < expired_at:
                self._drop(alarm)
                self._sequences.pop(self._subject(key), None)

    def _drop_oldest_closed(self) -> None:
        """Make room for alarms that open, for many at once. What the log has of those dropped stays fenced."""
        excess = len(self._alarms) - ALARMS_MAX
        if excess > 0:
            closed = [alarm for alarm in self._alarms.values() if not alarm.is_open]
            for alarm in heapq.nsmallest(excess + ALARMS_MAX // 20, closed, key=lambda alarm: alarm.closed):
                self._drop(alarm)

    def _drop(self, alarm: Alarm) -> None:
        del self._alarms[alarm.key]
        self._by_id.pop(alarm.id, None)

    def _subject(self, key: AlarmKey) -> str:
        return f"{self._prefix}.{key.token()}"

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────

    async def write(self, events: Sequence[AlarmEvent], *, position: int = 0, pending: PendingViolations = ()) -> None:
        """Write events with the states after them, and the position up to which conditions were judged (0: as it is).

        `pending`: the violations at that position that have not lasted long enough.

        Raises:
            Fenced: another process has changed one of them. Unavailable: the outcome is unknown. StoreFull.
                After any of these, `load` before anything else.
        """
        async with self._lock:
            await self._write_all(events, position, pending)

    async def apply(
        self, make: Callable[[], Sequence[AlarmEvent]], *, position: int, pending: PendingViolations
    ) -> bool:
        """Write the events that `make` makes of the present states, and the position; return whether there are any.

        No state changes between `make` and the writing: what was acknowledged meanwhile stays so. Raises as `write`.
        """
        async with self._lock:
            if not self._is_loaded:
                await self._load()
            if events := make():
                await self._write_all(events, position, pending)
            return bool(events)

    async def change(self, alarm_id: str, change: Callable[[Alarm], AlarmEvent]) -> Alarm | None:
        """Write the event that `change` makes of the present state of an alarm; None: there is no such alarm.

        Raises as `write`, and what `change` raises.
        """
        async with self._lock:
            if not self._is_loaded:
                await self._load()
            if (alarm := self.get(alarm_id)) is None:
                return None
            event = change(alarm)
            await self._write_all([event], 0, ())
            return event.alarm

    async def _write_all(self, events: Sequence[AlarmEvent], position: int, pending: PendingViolations) -> None:
        for start in range(0, max(len(events), 1), WRITE_MAX):
            part = events[start : start + WRITE_MAX]
            is_last = start + WRITE_MAX >= len(events)
            await self._write(part, position if is_last else 0, pending)

    async def _write(self, events: Sequence[AlarmEvent], position: int, pending: PendingViolations) -> None:
        now = self._clock.now()
        newest = {event.alarm.key: event.alarm for event in events}
        states = [
            LogMessage(
                self._subject(key),
                encode_alarm(alarm),
                0 if alarm.is_open else CLOSED_TTL_H,
                rollup=True,
                expect=self._sequences.get(self._subject(key), 0),
            )
            for key, alarm in newest.items()
        ]
        if position:
            subject = f"{self._prefix}.{_POSITION}"
            expected = self._sequences.get(subject, 0)
            record = _encode(_Position(position, now, pending=pending))
            states.append(LogMessage(subject, record, rollup=True, expect=expected))
        messages = [*self._event_messages(events, now), *states]
        if not messages:
            return
        self._is_loaded = False
        last = await self._log.write(messages)
        self._is_loaded = True
        first = last - len(states) + 1
        self._sequences |= {message.subject: first + place for place, message in enumerate(states)}
        if position:
            self.position, self.position_time, self.pending = position, now, pending
        for key, alarm in newest.items():
            if (before := self._alarms.get(key)) is not None:
                self._by_id.pop(before.id, None)
                if before.is_open:
                    self._open[_counted(before)] -= 1
            if alarm.is_open:
                self._open[_counted(alarm)] += 1
            self._alarms[key] = alarm
            self._by_id[alarm.id] = key
        self._drop_oldest_closed()
        for event in events:
            metrics.ALARM_EVENTS.labels(event.event, event.alarm.severity.value).inc()
            for listener in self.on_change:
                listener(event.alarm)
        self._count()

    def _event_messages(self, events: Sequence[AlarmEvent], now: int) -> Iterator[LogMessage]:
        groups: defaultdict[str, list[AlarmEvent]] = defaultdict(list)
        for event in events:
            subject = event.alarm.subject
            city = self._divisions.city_of(subject.division)
            groups[f"{ALARM_EVENTS}.{city}.{OWN_AREA}.{subject.grade}"].append(event)
        for name, part in sorted(groups.items()):
            payload = event_batch(part, node=self._node, partition=self._partition, now=now)
            yield LogMessage(name, payload, self._events_ttl_h)

    def _count(self) -> None:
        metrics.ALARMS.clear()
        for labels, count in self._open.items():
            if count:
                metrics.ALARMS.labels(*labels).set(count)


def _counted(alarm: Alarm) -> tuple[str, str]:
    return alarm.severity.value, alarm.state.value
