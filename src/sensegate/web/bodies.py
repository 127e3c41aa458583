"""What the REST interface takes and gives: the records of which the OpenAPI document is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sensegate.authority.scope import Role
from sensegate.model import Datum, Device, DeviceState

Division = Annotated[str, msgspec.Meta(pattern="^[0-9]{2,12}$", description="division code, 2 to 12 digits")]
DeviceId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
FeedName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
Text = Annotated[str, msgspec.Meta(max_length=500)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what is sent to us: unknown keys are refused."""


class NewDevice(Body, frozen=True):
    """A device to be registered."""

    id: DeviceId
    profile: str
    division: Division | msgspec.UnsetType = msgspec.UNSET
    """May be left out where id or alias is the code of a camera (GB/T 28181): then it is that of its centre."""
    alias: str = ""
    gateway: str = ""
    lon: float | None = None
    lat: float | None = None
    datum: Datum = Datum.WGS84
    department: str = ""
    domain: str = ""
    grade: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1
    interval_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    owner: str = ""
    name: str = ""
    asset: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """What it measures (a component code, a site): of each property of an asset one device is the source."""
    shadow: bool | None = None
    """Another device is the source of its asset; null: as it is found to be."""


class DeviceChange(Body, frozen=True):
    """What is to change; keys that are left out stay as they are."""

    division: Division | msgspec.UnsetType = msgspec.UNSET
    profile: str | msgspec.UnsetType = msgspec.UNSET
    state: Literal["registered", "disabled"] | msgspec.UnsetType = msgspec.UNSET
    """``disabled`` shuts it out within 2 s, ``registered`` lets it in again."""
    alias: str | msgspec.UnsetType = msgspec.UNSET
    gateway: str | msgspec.UnsetType = msgspec.UNSET
    lon: float | msgspec.UnsetType | None = msgspec.UNSET
    lat: float | msgspec.UnsetType | None = msgspec.UNSET
    datum: Datum | msgspec.UnsetType = msgspec.UNSET
    department: str | msgspec.UnsetType = msgspec.UNSET
    domain: str | msgspec.UnsetType = msgspec.UNSET
    grade: Annotated[int, msgspec.Meta(ge=1, le=4)] | msgspec.UnsetType = msgspec.UNSET
    interval_s: Annotated[float, msgspec.Meta(ge=0)] | msgspec.UnsetType = msgspec.UNSET
    owner: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    asset: Annotated[str, msgspec.Meta(max_length=128)] | msgspec.UnsetType = msgspec.UNSET
    shadow: bool | msgspec.UnsetType = msgspec.UNSET


class DeviceRow(msgspec.Struct, frozen=True):
    """A device as registered."""

    id: str
    division: str
    profile: str
    state: DeviceState
    alias: str
    gateway: str
    lon: float | None
    lat: float | None
    datum: Datum
    department: str
    domain: str
    grade: int
    interval_s: float
    owner: str
    name: str
    asset: str
    shadow: bool
    revision: int
    clock_lag_s: float | None = None
    """By how much its clock was behind ours when it last spoke (negative: ahead), the way included; null: not heard."""


class DeviceCredential(msgspec.Struct, frozen=True):
    """A device with its credential: shown this once."""

    id: str
    username: str
    password: str
    """Empty for a device that publishes through a gateway."""
    topics: list[str]
    """Where it may publish by MQTT."""
    device: DeviceRow
    warnings: list[str] = []
    """What is odd and was taken all the same: another owner has the same nearby."""


class Rotation(Body, frozen=True):
    """How the credential is replaced."""

    grace_s: Annotated[float, msgspec.Meta(ge=0, le=2_592_000)] = 86_400.0
    """How long the old one stays good."""


class ImportRow(msgspec.Struct, frozen=True):
    """What became of one row of a file."""

    line: int
    id: str
    outcome: str
    problem: str = ""
    remedy: str = ""
    password: str = ""


class DivisionRow(msgspec.Struct, frozen=True):
    """An administrative division."""

    code: str
    full: str
    name_zh: str
    name_en: str
    level: str
    parent: str
    as_of: str


class CodeRow(msgspec.Struct, frozen=True):
    """One word that a string property may hold."""

    code: str
    label_zh: str
    label_en: str


class PropertyRow(msgspec.Struct, frozen=True):
    """What can be measured."""

    name: str
    kind: str
    unit: str
    domain: str
    label_zh: str
    label_en: str
    low: float | None
    high: float | None
    resolution: float
    step: float | None = None
    """Greatest credible change between neighbouring readings; None: any."""
    usual_low: float | None = None
    usual_high: float | None = None
    """Band of nearly all readings; None: not said."""
    counter: bool = False
    codes: list[CodeRow] = []
    """Words that a string may be; empty: any."""


class NewFeed(Body, frozen=True):
    """A feed to be made; what is left out is not cut (divisions: the caller's scope)."""

    name: FeedName
    divisions: list[Division] = []
    domains: list[str] = []
    properties: list[str] = []
    departments: list[str] = []
    kinds: list[str] = msgspec.field(default_factory=lambda: ["reading"])
    grade_max: Annotated[int, msgspec.Meta(ge=1, le=4)] = 3
    shadows: bool = False
    """Also readings of second sources, which bear the flag `secondary`."""
    description: Text = ""


class Feed(msgspec.Struct, frozen=True):
    """A named selection of the log."""

    name: str
    divisions: list[str]
    domains: list[str]
    properties: list[str]
    departments: list[str]
    kinds: list[str]
    grade_max: int
    shadows: bool
    description: str
    revision: int


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record of a feed."""

    id: str
    cursor: str
    device: str
    property: str
    value: float | bool | str
    unit: str
    time: str
    time_quality: Literal["device", "assumed_zone", "derived", "received"]
    received: str
    quality: str
    division: str
    lon: float | None
    lat: float | None
    grade: int
    profile: str
    flags: list[str]
    revision: int
    node: str
    channel: str = ""
    """Which of several alike on one device; left out where there is only one."""


class Records(msgspec.Struct, frozen=True):
    """A page of a feed."""

    records: list[Reading]
    next: str


class NewToken(Body, frozen=True):
    """A token to be made."""

    role: Role
    scope: Division
    department: Text = ""
    feeds: list[str] = []
    name: Text = ""
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=34_560_000)] = 7_776_000.0


class TokenRow(msgspec.Struct, frozen=True):
    """A token; never its secret."""

    id: str
    role: str
    scope: str
    department: str
    feeds: list[str]
    expires: str
    name: str
    created: str
    created_by: str
    revoked: str


class MadeToken(msgspec.Struct, frozen=True):
    """A new token: shown this once."""

    token: str
    id: str
    role: str
    scope: str
    department: str
    expires: str


class Usage(msgspec.Struct, frozen=True):
    """What one token received of one feed."""

    token: str
    feed: str
    delivery: str
    requests: int
    records: int
    bytes: int
    last: int
    unsettled: int
    """So many records more may have gone: the gateway was killed while it delivered."""


class LedgerRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts of one node, division, device, hour or reason; balanced if both sums come out even."""

    messages: int = 0
    decoded: int = 0
    quarantined: int = 0
    values: int = 0
    accepted: int = 0
    duplicates: int = 0
    suppressed: int = 0
    rejected: int = 0
    downsampled: int = 0
    """Observations that were left out: their tracks had said as much already."""
    forwarded: int = 0
    withheld: int = 0
    refused_by_centre: int = 0
    """Rows that the centre did not take: committed = forwarded + withheld + refused_by_centre + pending."""
    node: str = ""
    division: str = ""
    device: str = ""
    hour: str = ""
    reason: str = ""
    count: int = 0
    """With ``by=reason``."""
    refused: int = 0
    """With ``by=device``: connections, publishes and subscriptions that the broker refused since it started."""


class LedgerAnswer(msgspec.Struct, frozen=True):
    """The books of the caller's scope."""

    rows: list[LedgerRow]
    totals: dict[str, int]
    """Ledger kind -> count."""
    balanced: bool
    delivered: int
    """Records delivered to subscribers from here since counting began, by all whom the caller may see."""
    refused: dict[str, int]
    """What the broker refused since it started, by kind; never part of the balance."""
    since: str
    """Beginning of the first whole hour counted."""
    role: str
    division: str


class QuarantineRow(msgspec.Struct, frozen=True):
    """A message that became no reading, whole."""

    entry: str
    """Its place on the log; good as `after`."""
    received: str
    source: str
    topic: str
    device: str
    profile: str
    reason: str
    detail: str
    payload: str
    """As text where it is UTF-8, else base64 with ``base64:`` before it; at most 4 kB."""
    bytes: int


class AuditRow(msgspec.Struct, frozen=True):
    """One change."""

    entry: int
    number: int
    time: str
    actor: str
    role: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Me(msgspec.Struct, frozen=True):
    """Whom the token proves, and what this gateway is."""

    id: str
    name: str
    role: str
    scope: str
    department: str
    gateway_role: str
    gateway_division: str
    version: str


class Ready(msgspec.Struct, frozen=True):
    """Whether the gateway is ready, and why not."""

    ready: bool
    reasons: list[str]
    warnings: list[str] = []
    """What is wrong and does not stop readings: a profile that is not in force."""


class Accepted(msgspec.Struct, frozen=True):
    """The message is committed: it will not be lost."""

    committed: bool = True


def device_row(device: Device) -> DeviceRow:
    """Return the row of a device."""
    return msgspec.convert(device, DeviceRow, from_attributes=True)
