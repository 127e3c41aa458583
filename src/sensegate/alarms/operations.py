"""Actions of operators on alarms: list, acknowledge, silence; each act audited and within the scope of the caller."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sensegate.alarms.records import Alarm, AlarmEvent, AlarmState
from sensegate.alarms.rules import AlarmRules
from sensegate.alarms.states import AlarmStates
from sensegate.authority.scope import Action, Principal, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import SECOND_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound

SILENCE_MAX_S = 30 * 86_400.0
NOTE_MAX = 500


class AlarmOperations:
    """Alarms and rules, as operators use them."""

    def __init__(self, rules: AlarmRules, states: AlarmStates, trail: Trail, clock: Clock) -> None:
        self.rules = rules
        self._states = states
        self._trail = trail
        self._clock = clock

    def list(self, by: Principal) -> list[Alarm]:
        """Return the alarms in the scope of the caller, the newest first."""
        alarms = [alarm for alarm in self._states.all() if _sees(by, alarm)]
        return sorted(alarms, key=lambda alarm: -alarm.opened)

    def get(self, alarm_id: str, by: Principal) -> Alarm:
        """Return an alarm. Raises `NotFound` where there is none that the caller may see."""
        alarm = self._states.get(alarm_id)
        if alarm is None or not _sees(by, alarm):
            raise NotFound(f"there is no alarm {alarm_id[:64]} in your scope; see `sensegate alarm list`")
        return alarm

    async def acknowledge(self, alarm_id: str, *, note: str, by: Principal) -> Alarm:
        """Acknowledge an open alarm. Raises `NotFound`, `PermissionDenied`, `Conflict`, `Unavailable`."""

        def acknowledged(alarm: Alarm) -> AlarmEvent:
            if alarm.state is not AlarmState.OPEN:
                raise Conflict(f"alarm {alarm.id} is {alarm.state}; only an open one is acknowledged")
            now = self._clock.now()
            after = msgspec.structs.replace(
                alarm, state=AlarmState.ACKNOWLEDGED, acknowledged_by=by.id, acknowledged=now, note=note or alarm.note
            )
            return AlarmEvent("acknowledged", after, now)

        return await self._act("acknowledge", alarm_id, acknowledged, note=note, by=by)

    async def silence(self, alarm_id: str, *, seconds: float, note: str, by: Principal) -> Alarm:
        """Silence an alarm for a time, also where it opens anew; 0 ends that. Raises as `acknowledge`."""
        if not 0 <= seconds <= SILENCE_MAX_S:
            remedy = f"give 0 to {SILENCE_MAX_S:g}; 0 ends a silence"
            raise ConfigError(f"{seconds:g} s is out of range", key="seconds", remedy=remedy)
        now = self._clock.now()

        def silenced(alarm: Alarm) -> AlarmEvent:
            until = now + round(seconds * SECOND_US) if seconds else 0
            after = msgspec.structs.replace(alarm, silenced_until=until, note=note or alarm.note)
            return AlarmEvent("silenced", after, now)

        return await self._act("silence", alarm_id, silenced, note=note, by=by)

    async def _act(
        self, action: str, alarm_id: str, change: Callable[[Alarm], AlarmEvent], *, note: str, by: Principal
    ) -> Alarm:
        alarm = self.get(alarm_id, by)
        subject = alarm.subject
        demand(by, Action.CHANGE_ALARMS, subject.division, subject.department)
        if len(note) > NOTE_MAX:
            raise ConfigError(f"{len(note)} characters are too many", key="note", remedy=f"give at most {NOTE_MAX}")
        change(alarm)  # what is impossible is refused before it is recorded
        facts: Facts = {"rule": alarm.key.rule, "device": alarm.key.device, "note": note}
        await self._trail.record(by, f"alarm.{action}", alarm_id, after=facts)
        changed = await self._states.change(alarm_id, change)
        if changed is None:
            raise Conflict(f"alarm {alarm_id} was replaced by a newer one meanwhile; see `sensegate alarm list`")
        return changed


def _sees(by: Principal, alarm: Alarm) -> bool:
    return allows(by, Action.READ_ALARMS, alarm.subject.division, alarm.subject.department)
