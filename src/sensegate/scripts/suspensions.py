"""Suspension of scripts and senders that exceed what a call may use.

A sender whose frames make a script exceed its limits, or take most of the time that makes it too slow on average, is
suspended first; the script continues for the other senders. A script that exceeds them for several senders, or is too
slow whoever sends, is suspended as a whole, each time for twice as long; once several senders have made it exceed its
limits its calls get less CPU time. An attack therefore costs the other devices a few hundredths of a second
per minute, whoever sends it and however many scripts it exploits.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from sensegate import metrics

WINDOW_S: Final = 60.0
SENDER_STRIKES: Final = 2
SCRIPT_STRIKES: Final = 4
"""Number of strikes within the window that suspend the sender, or the script."""
KILL_WEIGHT: Final = 2
"""Number of strikes for a call that killed its process."""
PROBATION: Final = 0.25
"""Share of the CPU limit that a script gets after strikes of two senders."""
ALARM_S: Final = 10.0
ALARM_STRIKES: Final = 6
"""Number of strikes of all scripts within `ALARM_S` after which half as many suspend a sender or a script."""
PAUSE_S: Final = 60.0
PAUSE_MAX_S: Final = 3_600.0
CREDIT_MS: Final = 100.0
"""CPU time beyond the mean after which a script counts as too slow."""
SENDER_SHARE_MS: Final = CREDIT_MS / 8
"""CPU time beyond the mean that a sender must have taken of it to be suspended in place of the script."""
SENDERS_MAX: Final = 4_096
SCRIPTS_MAX: Final = 4_096
"""Number of scripts whose cost or strikes are kept: each change of a script makes a new one."""

_log = structlog.get_logger("scripts")


class _Record:
    """Strikes and suspension of a script, or of one sender of a script."""

    __slots__ = ("last_sender", "level", "reason", "several_at", "strikes", "until")

    def __init__(self) -> None:
        self.strikes: deque[float] = deque(maxlen=SCRIPT_STRIKES)
        self.last_sender = ""
        self.several_at = float("-inf")
        """Time of the last strike that was not of the same sender as the one before it."""
        self.until = float("-inf")
        self.level = 0
        self.reason = ""

    def strike(self, now: float, allowed: int, weight: int) -> bool:
        """Record a strike of this weight; return whether it exceeds the allowed number."""
        self.strikes.extend([now] * weight)
        recent = sum(now - at < WINDOW_S for at in self.strikes)
        return recent >= allowed

    def suspend(self, now: float, why: str) -> float:
        """Suspend for twice as long as the last time, if that was recent; return the duration in seconds."""
        if now - self.until > PAUSE_MAX_S:
            self.level = 0
        pause_s = min(PAUSE_S * float(1 << self.level), PAUSE_MAX_S)
        if pause_s < PAUSE_MAX_S:  # else a script that is always too slow would exceed any float after some weeks
            self.level += 1
        self.until, self.reason = now + pause_s, why
        self.strikes.clear()
        return pause_s


class _Credit:
    """CPU time that a script may take beyond the mean, and who took it since it was last complete."""

    __slots__ = ("left_ms", "ordinary", "shares")

    def __init__(self) -> None:
        self.left_ms = CREDIT_MS
        self.ordinary = 0
        """Number of calls that took less than the mean."""
        self.shares: dict[str, float] = {}

    def record(self, calls: int, cpu_ms: float, mean_ms: float, slow: Sequence[tuple[str, float]]) -> None:
        """Record calls of a script."""
        self.left_ms += calls * mean_ms - cpu_ms
        others, others_ms = calls - len(slow), cpu_ms - sum(taken_ms for _, taken_ms in slow)
        if others_ms <= others * mean_ms:
            self.ordinary += others
        for sender, taken_ms in slow:
            if sender in self.shares or len(self.shares) < SENDERS_MAX:
                self.shares[sender] = self.shares.get(sender, 0.0) + taken_ms - mean_ms
        if self.left_ms >= CREDIT_MS:
            self.left_ms = CREDIT_MS
            self.ordinary = 0
            self.shares.clear()

    def take_back(self) -> str:
        """Return the sender that took most, and forget what it took; empty: it is the script that is slow."""
        sender, taken_ms = max(self.shares.items(), key=lambda share: share[1], default=("", 0.0))
        if not self.ordinary or taken_ms < SENDER_SHARE_MS:
            return ""
        del self.shares[sender]
        self.left_ms = min(CREDIT_MS, self.left_ms + taken_ms)
        return sender


class Suspensions:
    """Strikes and suspensions by script and by sender. Bounded; lost at the end of the process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._scripts: dict[str, _Record] = {}
        self._senders: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._credits: dict[str, _Credit] = {}
        self._recent_strikes: deque[float] = deque(maxlen=ALARM_STRIKES)

    def reason(self, script: str, sender: str) -> str:
        """Return why a frame of this sender is not given to the script now; empty: it is given."""
        if not self._scripts and not self._senders:
            return ""
        now = self._monotonic()
        record = self._scripts.get(script)
        if record is not None and now < record.until:
            return f"the script is suspended: {record.reason}"
        record = self._senders.get((script, sender))
        if record is not None and now < record.until:
            return f"the script is suspended for this sender: {record.reason}"
        return ""

    def strike(self, script: str, sender: str, why: str, weight: int = 1) -> None:
        """Record that a frame of a sender made a script exceed a limit; `KILL_WEIGHT`: and killed its process."""
        now = self._monotonic()
        alarm = len(self._recent_strikes) == ALARM_STRIKES and now - self._recent_strikes[0] < ALARM_S
        self._recent_strikes.extend([now] * weight)
        enough = 2 if alarm else 1
        if self._sender_record(script, sender).strike(now, SENDER_STRIKES // enough, weight):
            self._suspend_sender(script, sender, now, why)
        record = self._script_record(script)
        if record.strikes and record.last_sender != sender and now - record.strikes[-1] < WINDOW_S:
            record.several_at = now
        record.last_sender = sender
        if record.strike(now, SCRIPT_STRIKES // enough, weight):
            self._suspend(script, now, why)

    def cpu_share(self, script: str) -> float:
        """Return the share of the CPU limit that a script gets now."""
        record = self._scripts.get(script)
        return PROBATION if record is not None and self._monotonic() - record.several_at < WINDOW_S else 1.0

    def record_cost(
        self, script: str, calls: int, cpu_ms: float, mean_ms: float, slow: Sequence[tuple[str, float]] = ()
    ) -> None:
        """Record what calls of a script have cost.

        Args:
            script: its key.
            calls: number of the calls.
            cpu_ms: CPU time of all of them.
            mean_ms: the greatest mean.
            slow: sender and CPU time (ms) of the calls that took longer than the mean, as far as that is known.
        """
        credit = self._credits.setdefault(script, _Credit())
        _keep_newest(self._credits)
        credit.record(calls, cpu_ms, mean_ms, slow)
        why = f"its calls take more than {mean_ms:g} ms of CPU time on average (limits.mean_cpu_ms)"
        while credit.left_ms < 0 and (sender := credit.take_back()):
            self._suspend_sender(script, sender, self._monotonic(), why)
        if credit.left_ms < 0:
            self._suspend(script, self._monotonic(), why)
            del self._credits[script]

    def suspended_scripts(self) -> list[tuple[str, str, float]]:
        """Return (script, reason, seconds left) of the scripts suspended now."""
        now = self._monotonic()
        return [
            (name, suspended.reason, suspended.until - now)
            for name, suspended in sorted(self._scripts.items())
            if now < suspended.until
        ]

    def _suspend(self, script: str, now: float, why: str) -> None:
        pause_s = self._script_record(script).suspend(now, why)
        metrics.SCRIPT_SUSPENSIONS.labels("script").inc()
        _log.error("codec script suspended", script=script, reason=why, seconds=pause_s)

    def _suspend_sender(self, script: str, sender: str, now: float, why: str) -> None:
        pause_s = self._sender_record(script, sender).suspend(now, why)
        metrics.SCRIPT_SUSPENSIONS.labels("sender").inc()
        _log.warning("codec script suspended for a sender", script=script, sender=sender, reason=why, seconds=pause_s)

    def _script_record(self, script: str) -> _Record:
        record = self._scripts.setdefault(script, _Record())
        _keep_newest(self._scripts)
        return record

    def _sender_record(self, script: str, sender: str) -> _Record:
        sender_record = self._senders.setdefault((script, sender), _Record())
        self._senders.move_to_end((script, sender))
        if len(self._senders) > SENDERS_MAX:
            self._senders.popitem(last=False)
        return sender_record


def _keep_newest(by_script: dict[str, Any]) -> None:
    if len(by_script) > SCRIPTS_MAX:
        del by_script[next(iter(by_script))]
