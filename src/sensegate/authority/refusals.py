"""What was refused, counted per device, with an alarm when it begins.

nats-server acknowledges a publish that it refuses and tells nobody but its log; what it told is counted here, so that
a ledger can keep 'refused' apart from 'lost'.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import StrEnum

import msgspec
import structlog

from sensegate import metrics
from sensegate.clock import Clock

_log = structlog.get_logger("authority")

DEVICES_MAX = 10_000
"""Names of which refusals are counted apart; the longest silent go first, their counts stay in the sum."""
ALARM_EVERY_S = 60.0
"""One alarm a name and kind in this time; what follows in it is counted in the next."""
ALARMS_KEPT = 1_000


class DeniedOperation(StrEnum):
    """What was refused."""

    CONNECT = "connect"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class RefusalAlarm(msgspec.Struct, frozen=True):
    """That a name was refused, and how often since the alarm before."""

    time: int
    device: str
    """User name as given: that of a device, or of nobody known."""
    operation: DeniedOperation
    detail: str
    """Subject, or why a connection was refused."""
    address: str
    count: int


class _Tally:
    def __init__(self) -> None:
        self.counts: Counter[DeniedOperation] = Counter()
        self.unsaid: Counter[DeniedOperation] = Counter()
        self.said_at: dict[DeniedOperation, int] = {}


class Refusals:
    """Counts since the process began, and the alarms that they raised."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tallies: OrderedDict[str, _Tally] = OrderedDict()
        self.totals: Counter[DeniedOperation] = Counter()
        self.alarms: list[RefusalAlarm] = []
        """The newest, at most 1,000."""
        self.on_alarm: list[Callable[[RefusalAlarm], None]] = []

    def add(self, device: str, kind: DeniedOperation, detail: str, *, address: str = "") -> None:
        """Count one refusal of a name; raise an alarm unless there was one of late."""
        name = device[:128]
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies[name] = _Tally()
            if len(self._tallies) > DEVICES_MAX:
                self._tallies.popitem(last=False)
        self._tallies.move_to_end(name)
        self.totals[kind] += 1
        tally.counts[kind] += 1
        tally.unsaid[kind] += 1
        metrics.PERMISSION_DENIED.labels(kind.value).inc()
        now = self._clock.now()
        said_at = tally.said_at.get(kind)
        if said_at is None or now - said_at >= ALARM_EVERY_S * 1e6:
            tally.said_at[kind] = now
            self._alarm(RefusalAlarm(now, name, kind, detail[:256], address, tally.unsaid.pop(kind)))

    def of(self, device: str) -> dict[DeniedOperation, int]:
        """Return the counts of a name."""
        tally = self._tallies.get(device)
        return dict(tally.counts) if tally else {}

    def by_device(self) -> dict[str, dict[str, int]]:
        """Return the counts of all names that are still known: name -> kind -> count."""
        return {
            name: {kind.value: count for kind, count in tally.counts.items()} for name, tally in self._tallies.items()
        }

    def _alarm(self, alarm: RefusalAlarm) -> None:
        self.alarms = [*self.alarms[1 - ALARMS_KEPT :], alarm]
        _log.warning(
            "refused",
            what=alarm.operation.value,
            device=alarm.device,
            detail=alarm.detail,
            address=alarm.address,
            count=alarm.count,
        )
        for listener in self.on_alarm:
            listener(alarm)
