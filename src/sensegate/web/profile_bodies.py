"""What the REST interface takes and gives of the life of profiles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sensegate.web.bodies import Body, DeviceId

Note = Annotated[str, msgspec.Meta(max_length=500, description="for people; goes to the audit trail")]
Target = Annotated[
    str, msgspec.Meta(max_length=80, description="division code, or code/department; empty: the caller's own scope")
]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class NewVersion(Body, frozen=True):
    """A version handed in: it is kept as a draft."""

    text: Annotated[str, msgspec.Meta(max_length=262_144, description="the profile, YAML")]
    files: Annotated[dict[str, str], msgspec.Meta(description="files that it names (a codec), name -> text")] = (
        msgspec.field(default_factory=dict)
    )
    note: Note = ""


class Said(Body, frozen=True):
    """A step that needs nothing but a word."""

    note: Note = ""


class NewRelease(Body, frozen=True):
    """A version to be put in force."""

    target: Target = ""
    note: Note = ""
    standard: bool = False
    """From now on only the province releases versions of this profile."""


class NewCanary(Body, frozen=True):
    """A version to be tried on some devices: give `share` or `devices`."""

    share: Share = 0.0
    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""
    rejected_max: Share = 0.02
    """Rolled back when the share of what is refused exceeds that of the other devices by more than this."""
    faults_max: Share = 0.05
    """The same for readings that the checks doubt."""
    least: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 50
    """Fewer outcomes say nothing yet."""
    note: Note = ""


class NewShadow(Body, frozen=True):
    """A version to be decoded beside the one in force."""

    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""
    note: Note = ""


class NewRollback(Body, frozen=True):
    """What is to be put back in force."""

    to: Annotated[int, msgspec.Meta(ge=0, le=9_999)] = 0
    """Version; 0: the one before. A canary under way is ended by 0."""
    target: Target = ""
    note: Note = ""


class VersionRow(msgspec.Struct, frozen=True):
    """A version and where it stands."""

    version: int
    state: str
    """``draft``, ``proposed``, ``released``, ``superseded`` or ``withdrawn``."""
    in_force: list[str]
    """Divisions in which it is in force here."""
    trial: str
    """``canary``, ``shadow`` or nothing."""
    origin: str
    """Whose proposal it is: a division, or division/department."""
    made: str
    made_by: str
    changed: str
    note: str
    library: bool
    """It came with the folder of profiles."""
    digest: str
    """SHA-256 of its content, which never changes once it was in force."""


class VersionText(msgspec.Struct, frozen=True):
    """A version with its content."""

    version: VersionRow
    text: str
    files: dict[str, str]
    problems: list[str] = []
    """What must be mended before it can be proposed."""


class ForceRow(msgspec.Struct, frozen=True):
    """A version in force for a part of the devices."""

    target: str
    version: int
    since: str
    by: str


class CanaryRow(msgspec.Struct, frozen=True):
    """A canary and how it does against the others; shares are null while nothing came."""

    version: int
    target: str
    since: str
    by: str
    share: float
    devices: list[str]
    count: int
    """Devices chosen when it began."""
    rejected_max: float
    faults_max: float
    least: int
    outcomes: int
    """What came of its devices since, in this process."""
    rejected: float | None
    faults: float | None
    others_outcomes: int
    others_rejected: float | None
    others_faults: float | None


class ShadowRow(msgspec.Struct, frozen=True):
    """A shadow; its report stands apart."""

    version: int
    target: str
    since: str
    by: str
    devices: list[str]


class LifeRow(msgspec.Struct, frozen=True):
    """What is decided about a profile here."""

    profile: str
    folder: int
    """Version in the folder of profiles; 0: none. It is in force where nothing else was decided."""
    force: list[ForceRow]
    canary: CanaryRow | None
    shadow: ShadowRow | None
    standard: bool
    """Only the province releases it."""
    applied: bool = True
    """False: decided, but not yet in force in the process that answers; look again."""


class NewDiff(Body, frozen=True):
    """Two versions to be compared over recorded messages."""

    a: Annotated[int, msgspec.Meta(ge=0, le=9_999)] = 0
    """Version; 0: what is in force for each device."""
    b: Annotated[int, msgspec.Meta(ge=0, le=9_999)] = 0
    text: Annotated[str, msgspec.Meta(max_length=262_144)] = ""
    """In place of `b`: a profile as it is written, not handed in yet."""
    files: Annotated[dict[str, str], msgspec.Meta(description="files that it names")] = msgspec.field(
        default_factory=dict
    )
    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""


class DifferenceRow(msgspec.Struct, frozen=True):
    """One way in which two versions differ, for one device and property."""

    kind: str
    """``value``, ``time``, ``only a``, ``only b``, ``refusal`` or ``rejection``."""
    device: str
    property: str
    unit: str
    a: Any
    """First instance."""
    b: Any
    count: int
    factor: float | None
    """b / a where that is always the same."""


class SideRow(msgspec.Struct, frozen=True):
    """What one version made of the messages."""

    version: str
    messages: int
    quarantined: dict[str, int]
    values: int
    rejected: dict[str, int]
    outside: int
    """Values outside the version's range."""


class DiffReport(msgspec.Struct, frozen=True):
    """Two versions over the same messages."""

    profile: str
    messages: int
    """Messages that concern the profile and the caller."""
    same: int
    """Values that both give alike."""
    a: SideRow
    b: SideRow
    differences: list[DifferenceRow]
    more: int
    """Differences counted and not told apart."""


class ShadowReport(msgspec.Struct, frozen=True):
    """What a shadow found since it began (or since another version came in force)."""

    shadow: ShadowRow
    report: DiffReport
    left_out: int
    """Messages that came too fast for it."""


class JobRow(msgspec.Struct, frozen=True):
    """Work that takes a while."""

    id: str
    kind: str
    profile: str
    state: str
    """``running``, ``done``, ``failed`` or ``cancelled``."""
    share: float
    """What is done, 0 to 1."""
    target: str
    by: str
    started: str
    ended: str
    said: str
    report: DiffReport | None = None
    """Of a diff that is done."""


class NewRedecode(Body, frozen=True):
    """Recorded messages to be decoded again, by the version in force for each device."""

    what: Literal["raw", "quarantine", "both"] = "both"
    """Those that gave readings, those that were refused, or both."""
    devices: Annotated[list[DeviceId], msgspec.Meta(max_length=2_000)] = msgspec.field(default_factory=list)
    target: Target = ""
    note: Note = ""


class RedecodeRow(msgspec.Struct, frozen=True):
    """An order to decode again, its progress, and what came of it."""

    id: str
    profile: str
    state: str
    """``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``."""
    share: float
    """What is done, 0 to 1."""
    since: str
    until: str
    what: str
    devices: list[str]
    target: str
    by: str
    made: str
    ended: str
    said: str
    source: str
    """Under this name the ledger has its counts."""
    messages: int
    """Messages decoded again."""
    recovered: int
    """Of them: they were in quarantine and gave readings now."""
    still_refused: int
    """Of them: they gave none."""
    equal: int
    """Values that were what they are."""
    revised: int
    """Values that were others: a new revision of each."""
    added: int
    """Values that were not there."""
