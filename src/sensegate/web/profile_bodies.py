"""Request and response bodies of the lifecycle of profiles."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sensegate.authoring.compare import ComparisonReport
from sensegate.web.bodies import Body, DeviceId

Note = Annotated[str, msgspec.Meta(max_length=500, description="note for people; part of the audit trail")]
Target = Annotated[
    str, msgspec.Meta(max_length=80, description="division code, or code/department; empty: the caller's own scope")
]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class NewVersion(Body, frozen=True):
    """New version, stored as a draft."""

    text: Annotated[str, msgspec.Meta(max_length=262_144, description="the profile, YAML")]
    files: Annotated[
        dict[str, str], msgspec.Meta(description="files that the profile refers to (a codec), name -> text")
    ] = msgspec.field(default_factory=dict)
    note: Note = ""


class StepNote(Body, frozen=True):
    """Note on a step."""

    note: Note = ""


class NewRelease(Body, frozen=True):
    """Release of a version."""

    target: Target = ""
    note: Note = ""
    standard: bool = False
    """Restrict releases of this profile to the province from now on."""


class NewCanary(Body, frozen=True):
    """Canary: a version in force for some devices; give `share` or `devices`."""

    share: Share = 0.0
    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""
    rejected_max: Share = 0.02
    """Rolled back when the share of rejected values exceeds that of the other devices by more than this."""
    faults_max: Share = 0.05
    """Likewise for readings with bad quality."""
    least: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 50
    """Least number of outcomes before they are judged."""
    note: Note = ""


class NewShadow(Body, frozen=True):
    """Shadow: a version that decodes beside the one in force, for comparison."""

    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""
    note: Note = ""


class NewRollback(Body, frozen=True):
    """Rollback to an earlier version."""

    to: Annotated[int, msgspec.Meta(ge=0, le=9_999)] = 0
    """Version; 0: the previous one, or the end of a canary."""
    target: Target = ""
    note: Note = ""


class VersionRow(msgspec.Struct, frozen=True):
    """Version and its state."""

    version: int
    state: str
    """``draft``, ``proposed``, ``released``, ``superseded`` or ``withdrawn``."""
    in_force: list[str]
    """Divisions in which it is in force here."""
    trial: str
    """``canary``, ``shadow`` or empty."""
    origin: str
    """Scope that proposed it: a division, or division/department."""
    created: str
    made_by: str
    changed: str
    note: str
    library: bool
    """True if it is from the folder of profiles."""
    digest: str
    """SHA-256 of its content, which is immutable once it was in force."""


class VersionText(msgspec.Struct, frozen=True):
    """Version with its content."""

    version: VersionRow
    text: str
    files: dict[str, str]
    problems: list[str] = []
    """Problems that must be fixed before it can be proposed."""


class ForceRow(msgspec.Struct, frozen=True):
    """Version in force for the devices of a scope."""

    target: str
    version: int
    since: str
    by: str


class CanaryRow(msgspec.Struct, frozen=True):
    """Canary and its outcomes compared with the other devices; shares are null while there are none."""

    version: int
    target: str
    since: str
    by: str
    share: float
    devices: list[str]
    count: int
    """Number of devices chosen at the start."""
    rejected_max: float
    faults_max: float
    least: int
    outcomes: int
    """Outcomes of its devices since the start, in this process."""
    rejected: float | None
    faults: float | None
    others_outcomes: int
    others_rejected: float | None
    others_faults: float | None


class ShadowRow(msgspec.Struct, frozen=True):
    """Shadow, without its report."""

    version: int
    target: str
    since: str
    by: str
    devices: list[str]


class ReleaseHistoryRow(msgspec.Struct, frozen=True):
    """Release history of a profile at this gateway."""

    profile: str
    folder: int
    """Version in the folder of profiles; 0: none. It is in force where no other was released."""
    force: list[ForceRow]
    canary: CanaryRow | None
    shadow: ShadowRow | None
    standard: bool
    """True if only the province releases it."""
    applied: bool = True
    """False: decided, but not yet in force in the responding process; get it again."""


class NewDiff(Body, frozen=True):
    """Comparison of two versions over recorded messages."""

    a: Annotated[int, msgspec.Meta(ge=0, le=9_999)] = 0
    """Version; 0: the one in force for each device."""
    b: Annotated[int, msgspec.Meta(ge=0, le=9_999)] = 0
    text: Annotated[str, msgspec.Meta(max_length=262_144)] = ""
    """Instead of `b`: the text of a profile that is not stored."""
    files: Annotated[dict[str, str], msgspec.Meta(description="files that the profile refers to")] = msgspec.field(
        default_factory=dict
    )
    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""


class ShadowReport(msgspec.Struct, frozen=True):
    """Report of a shadow since it started, or since another version came into force."""

    shadow: ShadowRow
    report: ComparisonReport
    left_out: int
    """Messages skipped because they arrived too fast."""


class JobRow(msgspec.Struct, frozen=True):
    """Background job."""

    id: str
    kind: str
    profile: str
    state: str
    """``running``, ``done``, ``failed`` or ``cancelled``."""
    share: float
    """Progress, 0 to 1."""
    target: str
    by: str
    started: str
    ended: str
    problem: str
    report: ComparisonReport | None = None
    """Report of a completed comparison."""


class NewReprocessing(Body, frozen=True):
    """Order to decode recorded messages again, by the version in force for each device."""

    selection: Literal["raw", "quarantine", "both"] = "both"
    """Decoded messages, quarantined messages, or both."""
    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""
    note: Note = ""


class ReprocessingRow(msgspec.Struct, frozen=True):
    """Reprocessing order, its progress and its outcome."""

    id: str
    profile: str
    state: str
    """``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``."""
    share: float
    """Progress, 0 to 1."""
    since: str
    until: str
    selection: str
    devices: list[str]
    target: str
    by: str
    created: str
    ended: str
    problem: str
    source: str
    """Source under which the ledger counts it."""
    messages: int
    """Messages decoded again."""
    recovered: int
    """Messages that were quarantined and gave readings now."""
    still_refused: int
    """Messages that were quarantined and gave none again."""
    equal: int
    """Values that are unchanged."""
    revised: int
    """Values that differ, each stored as a new revision."""
    added: int
    """Values that did not exist before."""
