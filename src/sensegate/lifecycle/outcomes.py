"""How a canary's devices do against the others of their profile: counts, and when it is enough."""

from __future__ import annotations

import msgspec

from sensegate.authority.trail import Facts
from sensegate.lifecycle.history import CanaryLimits


class Outcomes(msgspec.Struct):
    """What came of some devices' messages."""

    readings: int = 0
    faults: int = 0
    """Readings that our own checks doubt."""
    rejected: int = 0
    """Values that became no reading."""
    quarantined: int = 0
    """Messages that became no reading."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.readings + self.rejected + self.quarantined

    @property
    def rejected_share(self) -> float | None:
        """Share of what was refused; None while nothing came."""
        return (self.rejected + self.quarantined) / self.total if self.total else None

    @property
    def faults_share(self) -> float | None:
        """Share of the readings that are doubted; None while there are none."""
        return self.faults / self.readings if self.readings else None

    def add(self, other: Outcomes) -> None:
        """Count more."""
        self.readings += other.readings
        self.faults += other.faults
        self.rejected += other.rejected
        self.quarantined += other.quarantined


def canary_failure(canary: Outcomes, baseline: Outcomes, limits: CanaryLimits) -> str:
    """Return why a canary must end; empty while it may go on.

    It is held against the other devices of the profile over the same time; where there are none, against perfection.
    """
    if canary.total < limits.outcomes_min:
        return ""
    for word, mine, theirs, most in (
        ("rejected", canary.rejected_share, baseline.rejected_share, limits.rejected),
        ("doubted", canary.faults_share, baseline.faults_share, limits.faults),
    ):
        if mine is not None and mine > (theirs or 0.0) + most:
            return f"{mine:.1%} {word}, the others {theirs or 0.0:.1%}; at most {most:.1%} more"
    return ""


def audit_facts(canary: Outcomes, baseline: Outcomes) -> Facts:
    """Return the counts for the audit trail."""
    return {"canary": msgspec.to_builtins(canary), "others": msgspec.to_builtins(baseline)}
