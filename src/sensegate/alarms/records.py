"""An alarm, its identity and its events.

    opened ─▶ acknowledged ─▶ closed        closed also without acknowledgement; silenced at any time, for a while

An alarm is the violation of one rule by one subject: a series, a device, or the gateway. While it is open there is no
second one. Its state is on the log under a subject of its own, and each event enters the log in the same atomic write.
"""

from __future__ import annotations

import hashlib
import math
from enum import StrEnum
from typing import NamedTuple

import msgspec
import numpy as np

from sensegate.alarms.rules import AlarmKind, AlarmRule, Severity
from sensegate.bus import columns
from sensegate.bus.batch import Batch, Origins, WordColumn
from sensegate.bus.decoding import decoder
from sensegate.web.routing import iso

EVENT_PROPERTY = "alarm_event"
GATEWAY_PROFILE = "sensegate/gateway@1"


class AlarmState(StrEnum):
    """State of an alarm."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


class AlarmKey(NamedTuple):
    """The key of an alarm: the rule with its node, device and series; at most one alarm of a key is open."""

    rule: str
    node: str
    device: str
    """Empty: the gateway itself."""
    property: str = ""
    """Property as feeds name it, ``name`` or ``name#channel``; empty: the alarm is of the device as a whole."""

    def token(self) -> str:
        """Token of the subject of its state on the log."""
        return hashlib.blake2b("\n".join(self).encode(), digest_size=12).hexdigest()


PendingViolations = tuple[tuple[AlarmKey, int], ...]
"""(key, phenomenon time since which its rule is violated) of violations that do not last long enough yet."""


class AlarmSubject(msgspec.Struct, frozen=True, omit_defaults=True):
    """The device of an alarm as it was when the alarm opened, for the scope of those who see it."""

    division: str
    department: str = ""
    domain: str = ""
    profile: str = GATEWAY_PROFILE
    lon: float = math.nan
    lat: float = math.nan
    grade: int = 1


class Alarm(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """State of an alarm. Times are µs UTC."""

    id: str
    key: AlarmKey
    kind: AlarmKind
    severity: Severity
    title: str
    subject: AlarmSubject
    state: AlarmState = AlarmState.OPEN
    value: float | str | None = None
    """Value that opened it, or the last one that changed its state."""
    opened: int
    changed: int
    """Time of the last event; of a reading its phenomenon time."""
    position: int = 0
    """Sequence of the entry of readings that changed it last: earlier ones are not judged again."""
    acknowledged_by: str = ""
    acknowledged: int = 0
    """Time of the acknowledgement; 0: none, or it is of a release that did not keep it."""
    note: str = ""
    silenced_until: int = 0
    closed: int = 0
    reason: str = ""
    """Reason for closing, unless a reading closed it."""
    format: int = 1

    @property
    def is_open(self) -> bool:
        """Return whether the violation lasts."""
        return self.state is not AlarmState.CLOSED


class AlarmEvent(msgspec.Struct, frozen=True):
    """An event and the alarm after it."""

    event: str
    """``opened``, ``acknowledged``, ``silenced`` or ``closed``."""
    alarm: Alarm
    time: int


decode_alarm = decoder(Alarm, "state of an alarm")
encode_alarm = msgspec.msgpack.Encoder().encode


def open_alarm(rule: AlarmRule, key: AlarmKey, subject: AlarmSubject, *, time: int, now: int, position: int) -> Alarm:
    """Return a new alarm, opened at `time`."""
    return Alarm(
        id=f"a{now:x}{key.token()[:8]}",
        key=key,
        kind=rule.kind,
        severity=rule.severity,
        title=rule.title or rule.name,
        subject=subject,
        opened=time,
        changed=time,
        position=position,
    )


def event_text(event: AlarmEvent) -> str:
    """Return the record of an event as JSON; what masks may hide (device, place) stands in the columns only."""
    alarm = event.alarm
    property_, _, channel = alarm.key.property.partition("#")
    body = {
        "alarm": alarm.id,
        "event": event.event,
        "state": alarm.state,
        "rule": alarm.key.rule,
        "kind": alarm.kind,
        "severity": alarm.severity,
        "title": alarm.title,
        "property": property_,
        "channel": channel,
        "value": alarm.value,
        "opened": iso(alarm.opened),
        "note": alarm.note,
        "reason": alarm.reason,
        "silenced_until": iso(alarm.silenced_until) if alarm.silenced_until else "",
    }
    return msgspec.json.encode({key: value for key, value in body.items() if value not in ("", None)}).decode()


def event_batch(events: list[AlarmEvent], *, node: str, partition: int, now: int) -> bytes:
    """Return the entry of the log with some events, whose devices are in one area and grade."""
    subjects = [event.alarm.subject for event in events]
    rows = len(events)
    zeros = np.zeros(rows, np.int64)
    batch = Batch(
        node,
        partition,
        Origins(
            [event.alarm.key.device or event.alarm.key.node for event in events],
            WordColumn.of([subject.division for subject in subjects]),
            WordColumn.of([subject.department for subject in subjects]),
            WordColumn.of([subject.domain for subject in subjects]),
            WordColumn.of([subject.profile for subject in subjects]),
            np.array([subject.lon for subject in subjects], np.float64),
            np.array([subject.lat for subject in subjects], np.float64),
            np.array([subject.grade for subject in subjects], np.uint8),
        ),
        [EVENT_PROPERTY],
        np.arange(rows, dtype=np.uint32),
        np.zeros(rows, np.uint16),
        np.array([event.time for event in events], np.int64),
        np.full(rows, now // 1_000 * 1_000, np.int64),
        np.full(rows, np.nan),
        {row: event_text(event) for row, event in enumerate(events)},
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.uint32),
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.uint8),
        zeros,
        zeros.astype(np.uint32),
    )
    return columns.encode(batch)
