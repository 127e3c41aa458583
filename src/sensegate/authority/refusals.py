"""Operations that the server denied, counted per device, with an alarm at the first one.

nats-server acknowledges a publish that it denies, and reports it only in its log. The counts here allow a ledger to
distinguish 'denied' from 'lost'.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import StrEnum

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.server_log import mask_name
from sensegate.clock import Clock

_log = structlog.get_logger("authority")

DEVICES_MAX = 10_000
"""Most names with counts of their own; the least recently used are evicted and remain only in the totals."""
ALARM_INTERVAL_S = 60.0
"""Interval of alarms for the same name and operation; denials in between are counted in the next alarm."""
ALARMS_MAX = 1_000


class DeniedOperation(StrEnum):
    """The denied operation."""

    CONNECT = "connect"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class RefusalAlarm(msgspec.Struct, frozen=True):
    """An alarm: operations of a name were denied, with their number since the previous alarm."""

    time: int
    device: str
    """User name as given, possibly of no known device."""
    operation: DeniedOperation
    detail: str
    """Subject, or the reason why the connection was denied."""
    address: str
    count: int


class LastRefusal(msgspec.Struct, frozen=True):
    """The latest denied operation of a name."""

    time: int
    """µs UTC."""
    operation: DeniedOperation
    detail: str
    """Subject, or the reason why the connection was denied."""
    address: str
    count: int
    """Operations of this kind that were denied since the process began."""


class _Tally:
    def __init__(self) -> None:
        self.counts: Counter[DeniedOperation] = Counter()
        self.unreported: Counter[DeniedOperation] = Counter()
        self.reported_at: dict[DeniedOperation, int] = {}
        self.last: LastRefusal | None = None


class Refusals:
    """Counts since the process began, and the latest alarms."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tallies: OrderedDict[str, _Tally] = OrderedDict()
        self.totals: Counter[DeniedOperation] = Counter()
        self.alarms: list[RefusalAlarm] = []
        """The newest alarms, at most `ALARMS_MAX`."""
        self.on_alarm: list[Callable[[RefusalAlarm], None]] = []

    def add(self, device: str, kind: DeniedOperation, detail: str, *, address: str = "", count: int = 1) -> None:
        """Count denied operations of a name; raise an alarm unless there was one recently."""
        name = device[:128]
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies[name] = _Tally()
            if len(self._tallies) > DEVICES_MAX:
                self._tallies.popitem(last=False)
        self._tallies.move_to_end(name)
        self.totals[kind] += count
        tally.counts[kind] += count
        tally.unreported[kind] += count
        metrics.PERMISSION_DENIED.labels(kind.value).inc(count)
        now = self._clock.now()
        tally.last = LastRefusal(now, kind, detail[:256], address, tally.counts[kind])
        reported_at = tally.reported_at.get(kind)
        if reported_at is None or now - reported_at >= ALARM_INTERVAL_S * 1e6:
            tally.reported_at[kind] = now
            self._alarm(RefusalAlarm(now, name, kind, detail[:256], address, tally.unreported.pop(kind)))

    def of(self, device: str) -> dict[DeniedOperation, int]:
        """Return the counts of a name."""
        tally = self._tallies.get(device)
        return dict(tally.counts) if tally else {}

    def last_of(self, device: str) -> LastRefusal | None:
        """Return the latest denied operation of a name; None: none since the process began, or it was evicted."""
        tally = self._tallies.get(device[:128])
        return tally.last if tally else None

    def by_device(self) -> dict[str, dict[str, int]]:
        """Return the counts of all tracked names: name -> operation -> count."""
        return {
            name: {kind.value: count for kind, count in tally.counts.items()} for name, tally in self._tallies.items()
        }

    def _alarm(self, alarm: RefusalAlarm) -> None:
        self.alarms = [*self.alarms[1 - ALARMS_MAX :], alarm]
        # Who fails to connect has not proved its name, which may be a password in the wrong field, or a phone number.
        is_proved = alarm.operation is not DeniedOperation.CONNECT
        _log.warning(
            "operation denied",
            operation=alarm.operation.value,
            device=alarm.device if is_proved else mask_name(alarm.device),
            reason=alarm.detail,
            address=alarm.address,
            count=alarm.count,
        )
        for listener in self.on_alarm:
            listener(alarm)
