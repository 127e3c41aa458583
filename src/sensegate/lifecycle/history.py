"""What is known of a profile's versions, and what is in force for whom: plain records.

    draft ─▶ proposed ─▶ released ─▶ superseded
      │         │ ▲          ▲            │
      ▼         ▼ │ canary,  ╰────────────╯ released again, rolled back
    withdrawn ◀─╯ ╰ shadow

A version is its content (`contents`), known by a digest. A draft may be written anew; a proposal is what was proposed;
once readings bear its number a version can never have another content.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sensegate.authority.scope import Scope, scope_text
from sensegate.decode.choice import EVERY_DEVICE, VersionChoice

BEFORE_MAX = 50
"""So many earlier decisions are kept for `rollback`; the audit trail has them all."""


class VersionState(StrEnum):
    """Where a version stands in its history."""

    DRAFT = "draft"
    PROPOSED = "proposed"
    RELEASED = "released"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"


class ProfileVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of a profile."""

    number: int
    digest: str
    """SHA-256 (hex) of its content."""
    state: VersionState
    origin: Scope
    """Whose proposal it is."""
    made: int
    """µs UTC."""
    made_by: str
    """Id of a token."""
    changed: int
    """When its state last changed."""
    note: str = ""
    """The last word said about it, for people."""
    used: bool = False
    """Readings may bear it: its content is settled for good."""
    library: bool = False
    """Taken over from the folder when another version was first released in its place."""


class VersionInForce(msgspec.Struct, frozen=True):
    """A version in force for a part of the devices."""

    target: Scope
    number: int
    since: int
    by: str


class CanaryLimits(msgspec.Struct, frozen=True):
    """How much worse than the others a canary's devices may do, as shares (0 to 1) of what came of them."""

    rejected: float = 0.02
    """Quarantined messages and rejected values, in all that came."""
    faults: float = 0.05
    """Readings that our own checks doubt (out of range, too fast, stuck), in all readings."""
    least: int = 50
    """Fewer outcomes than this say nothing yet."""


class Canary(msgspec.Struct, frozen=True):
    """A version tried on some devices."""

    number: int
    target: Scope
    since: int
    by: str
    devices: tuple[str, ...] = ()
    """These; empty: `share` of those in `target`."""
    share: float = 0.0
    below: int = 0
    """Devices whose `draw` is at most this: exactly `share` of those that were there when it began."""
    count: int = 0
    """How many devices that were."""
    limits: CanaryLimits = CanaryLimits()


class Shadow(msgspec.Struct, frozen=True):
    """A version that decodes beside the one in force and gives a report, no readings."""

    number: int
    target: Scope
    since: int
    by: str
    devices: tuple[str, ...] = ()
    """Only of these; empty: of all in `target`."""


class ReleaseHistory(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is known of one profile."""

    profile: str
    """``vendor/model``."""
    versions: tuple[ProfileVersion, ...] = ()
    force: tuple[VersionInForce, ...] = ()
    """What is in force; no target lies in another of the same number."""
    before: tuple[VersionInForce, ...] = ()
    """What was in force before, newest last."""
    canary: Canary | None = None
    shadow: Shadow | None = None
    standard: bool = False
    """Belongs to the province: only it releases other versions."""
    from_centre: tuple[VersionInForce, ...] = ()
    """At a node: what the centre last handed down, and was taken."""
    revision: int = 0
    format: int = 1

    def find(self, number: int) -> ProfileVersion | None:
        """Return a version by its number."""
        return next((version for version in self.versions if version.number == number), None)

    def in_force_for(self, target: Scope) -> VersionInForce | None:
        """Return what was decided for exactly this target."""
        return next((entry for entry in self.force if entry.target == target), None)


def choices_of(history: ReleaseHistory, home: str) -> list[VersionChoice]:
    """Return what of a profile's history decides at the gateway of division `home`: the one that picks first wins."""
    known = max((version.number for version in history.versions if version.used), default=0)  # see `steps.highest_used`

    def choice(number: int, target: Scope, *, whole: bool) -> VersionChoice:
        version = history.find(number)
        digest = version.digest if version else ""
        return VersionChoice(history.profile, number, digest, target, whole=whole, known=known)

    found: list[VersionChoice] = []
    if history.canary:
        one = history.canary
        whom = frozenset(one.devices)
        some = choice(one.number, one.target, whole=False)
        below = EVERY_DEVICE if whom else one.below
        found.append(msgspec.structs.replace(some, trial=True, devices=whom, below=below))
    narrow_first = sorted(history.force, key=lambda one: (-len(one.target.division), not one.target.department))
    for force in narrow_first:
        whole = home.startswith(force.target.division) and not force.target.department
        found.append(choice(force.number, force.target, whole=whole))
    return found


def describe_in_force(history: ReleaseHistory) -> str:
    """Return what is in force, for people: ``4 in 4401, 5 for 10 % of 4401``."""
    parts = [f"{entry.number} in {scope_text(entry.target)}" for entry in history.force]
    if history.canary:
        whom = (
            f"{len(history.canary.devices)} devices"
            if history.canary.devices
            else f"{history.canary.share:.3g} of the devices"
        )
        parts.append(f"{history.canary.number} for {whom} in {scope_text(history.canary.target)}")
    return ", ".join(parts)
