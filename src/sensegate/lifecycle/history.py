"""Release history of a profile: its versions, and which is in force for which devices. Plain records.

    draft ─▶ proposed ─▶ released ─▶ superseded
      │         │ ▲          ▲            │
      ▼         ▼ │ canary,  ╰────────────╯ released again, rolled back
    withdrawn ◀─╯ ╰ shadow

The content of a version (`contents`) is identified by its digest. A draft may be rewritten, a proposal may not; once
readings have the number of a version, it can never have another content.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sensegate.authority.scope import Scope, scope_text
from sensegate.decode.choice import EVERY_DEVICE, VersionChoice

PREVIOUS_MAX = 50
"""Most earlier decisions kept for `rollback`; the audit trail has them all."""


class VersionState(StrEnum):
    """State of a version."""

    DRAFT = "draft"
    PROPOSED = "proposed"
    RELEASED = "released"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"


class ProfileVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version of a profile."""

    number: int
    digest: str
    """SHA-256 (hex) of its content."""
    state: VersionState
    origin: Scope
    """Scope that proposed it."""
    created: int
    """µs UTC."""
    created_by: str
    """Id of a token."""
    changed: int
    """Time of the last change of its state."""
    note: str = ""
    """Latest note about it, for people."""
    used: bool = False
    """True if readings may have its number, so that its content is final."""
    library: bool = False
    """True if it was adopted from the folder of profiles when another version first replaced it."""


class VersionInForce(msgspec.Struct, frozen=True):
    """A version in force for a part of the devices."""

    target: Scope
    number: int
    since: int
    by: str


class CanaryLimits(msgspec.Struct, frozen=True):
    """Margins by which a canary's devices may do worse than the others, as shares (0 to 1) of outcomes."""

    rejected: float = 0.02
    """Share of quarantined messages and rejected values among all outcomes."""
    faults: float = 0.05
    """Share of readings that failed a check (out of range, too fast, stuck) among all readings."""
    outcomes_min: int = 50
    """Minimum number of outcomes before the canary is judged."""


class Canary(msgspec.Struct, frozen=True):
    """A version in force for some devices only, for a trial."""

    number: int
    target: Scope
    since: int
    by: str
    devices: tuple[str, ...] = ()
    """Ids of its devices; empty: a `share` of those in `target`."""
    share: float = 0.0
    draw_max: int = 0
    """Greatest `draw` of its devices: exactly the `share` of the devices that existed when it began."""
    device_count: int = 0
    """Number of its devices when it began."""
    limits: CanaryLimits = CanaryLimits()


class Shadow(msgspec.Struct, frozen=True):
    """A version that decodes in parallel to the one in force, for a report without readings."""

    number: int
    target: Scope
    since: int
    by: str
    devices: tuple[str, ...] = ()
    """Ids of its devices; empty: all devices in `target`."""


class ReleaseHistory(msgspec.Struct, frozen=True, omit_defaults=True):
    """Release history of a profile."""

    profile: str
    """``vendor/model``."""
    versions: tuple[ProfileVersion, ...] = ()
    in_force: tuple[VersionInForce, ...] = ()
    """Versions in force; no target lies within another target of the same version."""
    previous: tuple[VersionInForce, ...] = ()
    """Versions formerly in force, newest last."""
    canary: Canary | None = None
    shadow: Shadow | None = None
    standard: bool = False
    """True if it is a standard profile, of which only the province releases versions."""
    from_centre: tuple[VersionInForce, ...] = ()
    """At a node: the versions last distributed by the centre and applied."""
    revision: int = 0
    format: int = 1

    def find(self, number: int) -> ProfileVersion | None:
        """Return a version by its number."""
        return next((version for version in self.versions if version.number == number), None)

    def in_force_for(self, target: Scope) -> VersionInForce | None:
        """Return the version in force for exactly this target."""
        return next((entry for entry in self.in_force if entry.target == target), None)


def choices_of(history: ReleaseHistory, home: str) -> list[VersionChoice]:
    """Return the version choices at the gateway of division `home`; the first choice that matches a device wins."""

    def choice(number: int, target: Scope, *, whole: bool) -> VersionChoice:
        version = history.find(number)
        digest = version.digest if version else ""
        return VersionChoice(history.profile, number, digest, target, whole=whole)

    choices: list[VersionChoice] = []
    if history.canary:
        canary = history.canary
        devices = frozenset(canary.devices)
        partial = choice(canary.number, canary.target, whole=False)
        draw_max = EVERY_DEVICE if devices else canary.draw_max
        choices.append(msgspec.structs.replace(partial, trial=True, devices=devices, below=draw_max))
    narrow_first = sorted(
        history.in_force, key=lambda entry: (-len(entry.target.division), not entry.target.department)
    )
    for force in narrow_first:
        whole = home.startswith(force.target.division) and not force.target.department
        choices.append(choice(force.number, force.target, whole=whole))
    return choices


def describe_in_force(history: ReleaseHistory) -> str:
    """Return a description of the versions in force: ``4 in 4401, 5 for 10 % of 4401``."""
    parts = [f"{entry.number} in {scope_text(entry.target)}" for entry in history.in_force]
    if history.canary:
        whom = (
            f"{len(history.canary.devices)} devices"
            if history.canary.devices
            else f"{history.canary.share:.3g} of the devices"
        )
        parts.append(f"{history.canary.number} for {whom} in {scope_text(history.canary.target)}")
    return ", ".join(parts)
