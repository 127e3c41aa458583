"""Canary analysis: outcomes of the canary's devices and of the others; roll-back of a canary that does worse.

Outcomes are counted per batch after its commit was prepared; without a canary in progress this costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import structlog

from sensegate.errors import Conflict
from sensegate.lifecycle.history import Canary
from sensegate.lifecycle.outcomes import Outcomes, audit_facts, canary_failure
from sensegate.lifecycle.releases import Releases, canary_watcher
from sensegate.model import I64, Quarantined, Readings, RejectedValue, Spec
from sensegate.quantities.quality import Flag, Quality

OWN_CHECKS = np.uint32(Flag.RANGE | Flag.STEP | Flag.STUCK)
"""Flags of failed plausibility checks; quality codes other than that of the clock are given by the device."""

_log = structlog.get_logger("lifecycle")


class _CanaryRun(msgspec.Struct):
    """A canary and its counts; canary number k has the arms 2k (its devices) and 2k + 1 (the others)."""

    profile: str
    canary: Canary
    observed: Outcomes = msgspec.field(default_factory=Outcomes)
    baseline: Outcomes = msgspec.field(default_factory=Outcomes)

    def arm(self, name: str) -> int:
        """Return 0 for the canary version, 1 for another version of the profile, -1 for another profile."""
        profile, _, number = name.partition("@")
        if profile != self.profile:
            return -1
        return 0 if number == str(self.canary.number) else 1


class CanaryAnalysis:
    """Analysis of all canaries of this gateway, with the counts of this process."""

    def __init__(self, releases: Releases, home: str) -> None:
        self._releases = releases
        self._home = home
        self._canaries: list[_CanaryRun] = []
        self._arms: I64 = np.zeros(0, np.int64)
        """Arm of each spec; the number of arms where its profile has no canary."""
        self._specs: Sequence[Spec] | None = None
        """The specs of which `_arms` has the arms; None: they must be assigned."""
        self._wake = asyncio.Event()
        releases.on_change.append(self._on_release_change)
        self.refresh()

    def refresh(self) -> None:
        """Load the canaries in progress; the counts of those that continue are kept."""
        before = {(trial.profile, trial.canary.since): trial for trial in self._canaries}
        self._canaries = [
            before.get((profile, canary.since)) or _CanaryRun(profile, canary)
            for profile, canary in self._releases.canaries()
        ]
        self._specs = None

    def _on_release_change(self, _profile: str) -> None:
        self.refresh()

    def outcomes(self, profile: str) -> tuple[Outcomes, Outcomes]:
        """Return the outcomes (of the canary's devices, of the others) since the canary began, in this process."""
        trial = next((trial for trial in self._canaries if trial.profile == profile), None)
        return (trial.observed, trial.baseline) if trial else (Outcomes(), Outcomes())

    # ── counting ────────────────────────────────────────────────────────────────────────────────────

    def count(
        self,
        specs: Sequence[Spec],
        readings: Readings,
        rejected: Iterable[RejectedValue],
        quarantined: Iterable[Quarantined],
    ) -> None:
        """Count a batch: its readings (indices in `specs`), rejected values and quarantined messages, by version."""
        if not self._canaries:
            return
        if self._specs is not specs:
            self._assign_arms(specs)
        none = 2 * len(self._canaries)
        if len(readings):
            arm = self._arms[readings.spec]
            doubted = (readings.flags & OWN_CHECKS) != 0
            doubted |= (readings.quality != Quality.GOOD) & (readings.quality != Quality.UNCERTAIN_CLOCK)
            given = np.bincount(arm, minlength=none + 1).tolist()
            faults = np.bincount(arm[doubted], minlength=none + 1).tolist()
            for place, side in self._sides():
                side.add(Outcomes(readings=given[place], faults=faults[place]))
        for value in rejected:
            self._count_refused(value.profile, Outcomes(rejected=1))
        for message in quarantined:
            self._count_refused(message.profile, Outcomes(quarantined=1))
        if any(self._failure(trial) for trial in self._canaries):
            self._wake.set()

    def _sides(self) -> Iterable[tuple[int, Outcomes]]:
        for number, trial in enumerate(self._canaries):
            yield 2 * number, trial.observed
            yield 2 * number + 1, trial.baseline

    def _assign_arms(self, specs: Sequence[Spec]) -> None:
        none = 2 * len(self._canaries)
        known: dict[str, int] = {}
        for name in {spec.profile for spec in specs}:
            arms = [(number, trial.arm(name)) for number, trial in enumerate(self._canaries)]
            known[name] = next((2 * number + arm for number, arm in arms if arm >= 0), none)
        self._arms = np.array([known[spec.profile] for spec in specs], np.int64)
        self._specs = specs

    def _count_refused(self, name: str, more: Outcomes) -> None:
        for trial in self._canaries:
            arm = trial.arm(name)
            if arm >= 0:
                (trial.baseline if arm else trial.observed).add(more)

    # ── rolling back ────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _failure(trial: _CanaryRun) -> str:
        return canary_failure(trial.observed, trial.baseline, trial.canary.limits)

    async def run(self) -> None:
        """Roll back each canary that exceeds its limits, until cancelled. Raises `Unavailable`: call again."""
        self._wake.set()  # resume what an earlier loss of the engine interrupted
        while True:
            await self._wake.wait()
            self._wake.clear()
            for trial in list(self._canaries):
                if reason := self._failure(trial):
                    await self._roll_back(trial, reason)

    async def _roll_back(self, trial: _CanaryRun, reason: str) -> None:
        facts = {"reason": reason, **audit_facts(trial.observed, trial.baseline)}
        try:
            await self._releases.end_canary(
                trial.profile, by=canary_watcher(self._home), measured=facts, since=trial.canary.since, note=reason
            )
        except Conflict:
            return  # another process, or a person, has ended it
        _log.warning("canary rolled back", version=f"{trial.profile}@{trial.canary.number}", reason=reason)
