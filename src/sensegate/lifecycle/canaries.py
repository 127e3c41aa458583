"""Canaries under watch: what comes of their devices' messages and of the others', and the end of one that does worse.

Counted in columns, batch by batch, after the batch was prepared; while no canary is under way this costs nothing.
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
"""What our own checks doubt, by flag; other codes of quality but that of the clock are the device's own doubts."""

_log = structlog.get_logger("trials")


class _CanaryRun(msgspec.Struct):
    """One canary and its counts; the arms are numbered 2k (tried) and 2k + 1 (the others)."""

    profile: str
    canary: Canary
    observed: Outcomes = msgspec.field(default_factory=Outcomes)
    baseline: Outcomes = msgspec.field(default_factory=Outcomes)

    def arm(self, name: str) -> int:
        """Return 0 for the version on trial, 1 for another of the profile, -1 for another profile."""
        profile, _, number = name.partition("@")
        if profile != self.profile:
            return -1
        return 0 if number == str(self.canary.number) else 1


class CanaryAnalysis:
    """All canaries of this gateway, as one process sees them."""

    def __init__(self, releases: Releases, home: str) -> None:
        self._releases = releases
        self._home = home
        self._canaries: list[_CanaryRun] = []
        self._arms: I64 = np.zeros(0, np.int64)
        """By spec: arm, or the number of arms for what is on no trial."""
        self._specs_numbered = -1
        self._wake = asyncio.Event()
        releases.on_change.append(self._on_release_change)
        self.refresh()

    def refresh(self) -> None:
        """Take up what is on trial now; counts of a canary that goes on are kept."""
        before = {(trial.profile, trial.canary.since): trial for trial in self._canaries}
        self._canaries = [
            before.get((profile, canary.since)) or _CanaryRun(profile, canary)
            for profile, canary in self._releases.canaries()
        ]
        self._specs_numbered = -1

    def _on_release_change(self, _profile: str) -> None:
        self.refresh()

    def outcomes(self, profile: str) -> tuple[Outcomes, Outcomes]:
        """Return (of the canary's devices, of the others) of a profile since its canary began, in this process."""
        found = next((trial for trial in self._canaries if trial.profile == profile), None)
        return (found.observed, found.baseline) if found else (Outcomes(), Outcomes())

    # ── counting ────────────────────────────────────────────────────────────────────────────────────

    def count(
        self,
        specs: Sequence[Spec],
        readings: Readings,
        rejected: Iterable[RejectedValue],
        quarantined: Iterable[Quarantined],
    ) -> None:
        """Count a batch: its readings (indices in `specs`), and what was refused by the version that it bears."""
        if not self._canaries:
            return
        if self._specs_numbered != len(specs):
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
        for number, one in enumerate(self._canaries):
            yield 2 * number, one.observed
            yield 2 * number + 1, one.baseline

    def _assign_arms(self, specs: Sequence[Spec]) -> None:
        none = 2 * len(self._canaries)
        known: dict[str, int] = {}
        for name in {spec.profile for spec in specs}:
            arms = [(number, one.arm(name)) for number, one in enumerate(self._canaries)]
            known[name] = next((2 * number + arm for number, arm in arms if arm >= 0), none)
        self._arms = np.array([known[spec.profile] for spec in specs], np.int64)
        self._specs_numbered = len(specs)

    def _count_refused(self, name: str, more: Outcomes) -> None:
        for trial in self._canaries:
            arm = trial.arm(name)
            if arm >= 0:
                (trial.baseline if arm else trial.observed).add(more)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _failure(one: _CanaryRun) -> str:
        return canary_failure(one.observed, one.baseline, one.canary.limits)

    async def run(self) -> None:
        """End each canary that does worse than its limits allow, until cancelled. Raises `Unavailable`: call again."""
        self._wake.set()  # what was not done when the engine was lost is done now
        while True:
            await self._wake.wait()
            self._wake.clear()
            for trial in list(self._canaries):
                if why := self._failure(trial):
                    await self._roll_back(trial, why)

    async def _roll_back(self, one: _CanaryRun, why: str) -> None:
        facts = {"why": why, **audit_facts(one.observed, one.baseline)}
        try:
            await self._releases.end_canary(
                one.profile, by=canary_watcher(self._home), measured=facts, since=one.canary.since, note=why
            )
        except Conflict:
            return  # another process, or a person, was faster
        _log.warning("a canary was rolled back", version=f"{one.profile}@{one.canary.number}", why=why)
