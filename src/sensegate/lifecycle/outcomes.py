"""Outcomes of devices, and the comparison of a canary's devices with the others of their profile."""

from __future__ import annotations

import msgspec

from sensegate.authority.trail import Facts
from sensegate.lifecycle.history import CanaryLimits


class Outcomes(msgspec.Struct):
    """Counts of the outcomes of devices' messages."""

    readings: int = 0
    faults: int = 0
    """Readings that failed a plausibility check."""
    rejected: int = 0
    """Rejected values."""
    quarantined: int = 0
    """Quarantined messages."""

    @property
    def total(self) -> int:
        """Total number of outcomes."""
        return self.readings + self.rejected + self.quarantined

    @property
    def rejected_share(self) -> float | None:
        """Share of rejected values and quarantined messages; None without outcomes."""
        return (self.rejected + self.quarantined) / self.total if self.total else None

    @property
    def faults_share(self) -> float | None:
        """Share of readings that failed a check; None without readings."""
        return self.faults / self.readings if self.readings else None

    def add(self, other: Outcomes) -> None:
        """Add the counts of another record."""
        self.readings += other.readings
        self.faults += other.faults
        self.rejected += other.rejected
        self.quarantined += other.quarantined


def canary_failure(canary: Outcomes, baseline: Outcomes, limits: CanaryLimits) -> str:
    """Return why a canary must be rolled back; empty while it may continue.

    It is compared with the other devices of the profile over the same period; without any, with zero failures.
    """
    if canary.total < limits.outcomes_min:
        return ""
    for word, observed, expected, margin in (
        ("rejected", canary.rejected_share, baseline.rejected_share, limits.rejected),
        ("doubted", canary.faults_share, baseline.faults_share, limits.faults),
    ):
        if observed is not None and observed > (expected or 0.0) + margin:
            return f"{observed:.1%} {word}, the others {expected or 0.0:.1%}; at most {margin:.1%} more is allowed"
    return ""


def audit_facts(canary: Outcomes, baseline: Outcomes) -> Facts:
    """Return the counts for the audit trail."""
    return {"canary": msgspec.to_builtins(canary), "others": msgspec.to_builtins(baseline)}
