"""Which scripts and which senders are not run for a while, because they used up what a call may use.

One sender whose frames make a script run away is kept from it first; the script goes on for the others. A script that
runs away for several, or is too slow on average, is suspended as a whole: each time for twice as long; until then it
has less time for a call. So an attack costs the other devices a few hundredths of a second in a minute, whoever carries
it and however many scripts it finds.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

import structlog

from sensegate import metrics

WINDOW_S: Final = 60.0
SENDER_STRIKES: Final = 2
SCRIPT_STRIKES: Final = 4
"""So many strikes within the window suspend the sender, or the script."""
KILL: Final = 2
"""A call that took its process with it counts for so many strikes."""
PROBATION: Final = 0.25
"""After its first strike a script's calls have this share of the CPU time that they had."""
ALARM_S: Final = 10.0
ALARM_STRIKES: Final = 6
"""After so many strikes of all scripts in so short a time, half as many suspend a sender or a script."""
PAUSE_S: Final = 60.0
PAUSE_MAX_S: Final = 3_600.0
CREDIT_MS: Final = 100.0
"""CPU time that a script may use beyond its mean before it counts as too slow."""
SENDERS_MAX: Final = 4_096

_log = structlog.get_logger("scripts")


class _Record:
    """The conduct of a script, or of a sender with one."""

    __slots__ = ("level", "strikes", "until", "why")

    def __init__(self) -> None:
        self.strikes: deque[float] = deque(maxlen=SCRIPT_STRIKES)
        self.until = float("-inf")
        self.level = 0
        self.why = ""

    def strike(self, now: float, allowed: int, weight: int) -> bool:
        """Note a strike that counts for so many; return whether it is one too many."""
        self.strikes.extend([now] * weight)
        recent = sum(now - at < WINDOW_S for at in self.strikes)
        return recent >= allowed

    def suspend(self, now: float, why: str) -> float:
        """Suspend for twice as long as the last time, if that was lately; return the length in seconds."""
        if now - self.until > PAUSE_MAX_S:
            self.level = 0
        pause_s = min(PAUSE_S * float(1 << self.level), PAUSE_MAX_S)
        self.level += 1
        self.until, self.why = now + pause_s, why
        self.strikes.clear()
        return pause_s


class Conduct:
    """Strikes and suspensions, by script and by sender. Bounded; forgotten with the process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._scripts: dict[str, _Record] = {}
        self._senders: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._credit_ms: dict[str, float] = {}
        self._all: deque[float] = deque(maxlen=ALARM_STRIKES)

    def refusal(self, script: str, sender: str) -> str:
        """Return why a frame of this sender is not given to the script now; empty: it is."""
        if not self._scripts and not self._senders:
            return ""
        now = self._monotonic()
        record = self._scripts.get(script)
        if record is not None and now < record.until:
            return f"the script is suspended: {record.why}"
        record = self._senders.get((script, sender))
        if record is not None and now < record.until:
            return f"the script is suspended for this sender: {record.why}"
        return ""

    def strike(self, script: str, sender: str, why: str, weight: int = 1) -> None:
        """Note that a frame of a sender made a script use up a limit; `KILL`: and its process."""
        now = self._monotonic()
        alarm = len(self._all) == ALARM_STRIKES and now - self._all[0] < ALARM_S
        self._all.extend([now] * weight)
        enough = 2 if alarm else 1
        if self._sender(script, sender).strike(now, SENDER_STRIKES // enough, weight):
            pause_s = self._sender(script, sender).suspend(now, why)
            metrics.SCRIPT_SUSPENSIONS.labels("sender").inc()
            _log.warning("a sender is kept from its codec script", script=script, sender=sender, why=why, s=pause_s)
        if self._script(script).strike(now, SCRIPT_STRIKES // enough, weight):
            self._suspend(script, now, why)

    def share(self, script: str) -> float:
        """Return the share of its CPU limit that a script is given now."""
        record = self._scripts.get(script)
        lately = record is not None and bool(record.strikes) and self._monotonic() - record.strikes[-1] < WINDOW_S
        return PROBATION if lately else 1.0

    def spent(self, script: str, calls: int, cpu_ms: float, mean_ms: float) -> None:
        """Note what calls of a script have cost."""
        credit = min(CREDIT_MS, self._credit_ms.get(script, CREDIT_MS) + calls * mean_ms - cpu_ms)
        if credit < 0:
            why = f"its calls take more than {mean_ms:g} ms of CPU time on average (limits.mean_cpu_ms)"
            self._suspend(script, self._monotonic(), why)
            credit = CREDIT_MS
        self._credit_ms[script] = credit

    def suspended(self) -> list[tuple[str, str, float]]:
        """Return (script, why, seconds left) of the scripts that are suspended now."""
        now = self._monotonic()
        return [(name, one.why, one.until - now) for name, one in sorted(self._scripts.items()) if now < one.until]

    def _suspend(self, script: str, now: float, why: str) -> None:
        pause_s = self._script(script).suspend(now, why)
        metrics.SCRIPT_SUSPENSIONS.labels("script").inc()
        _log.error("a codec script is suspended", script=script, why=why, s=pause_s)

    def _script(self, script: str) -> _Record:
        return self._scripts.setdefault(script, _Record())

    def _sender(self, script: str, sender: str) -> _Record:
        found = self._senders.setdefault((script, sender), _Record())
        self._senders.move_to_end((script, sender))
        if len(self._senders) > SENDERS_MAX:
            self._senders.popitem(last=False)
        return found
