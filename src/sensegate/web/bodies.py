"""Request and response bodies of the REST interface, from which the OpenAPI document is generated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sensegate.authority.refusals import DeniedOperation
from sensegate.authority.scope import Role
from sensegate.model import Datum, Device, DeviceState
from sensegate.share.feeds import FeedName

Division = Annotated[str, msgspec.Meta(pattern="^[0-9]{2,12}$", description="division code, 2 to 12 digits")]
DeviceId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, msgspec.Meta(max_length=500)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of request bodies: unknown keys are rejected."""


class NewDevice(Body, frozen=True):
    """Device to be registered."""

    id: DeviceId
    profile: str
    division: Division | msgspec.UnsetType = msgspec.UNSET
    """Optional if id or alias is the code of a camera (GB/T 28181), which contains it."""
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
    """Asset that it measures (a component code, a site); each property of an asset has one source device."""
    secondary: bool | None = None
    """True if another device is the source of its asset; null: determined by the gateway."""


class DeviceChange(Body, frozen=True):
    """Changes; keys that are left out stay unchanged."""

    division: Division | msgspec.UnsetType = msgspec.UNSET
    profile: str | msgspec.UnsetType = msgspec.UNSET
    state: Literal["registered", "disabled"] | msgspec.UnsetType = msgspec.UNSET
    """``disabled`` disconnects it within 2 s, ``registered`` enables it again."""
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
    secondary: bool | msgspec.UnsetType = msgspec.UNSET


class DeviceRefusal(msgspec.Struct, frozen=True):
    """The latest operation of a device that was rejected at its connection."""

    time: str
    operation: DeniedOperation
    detail: str
    """Reason why the connection was rejected, or the topic."""
    address: str
    """Address from which it was tried; empty: unknown."""
    count: int
    """Rejected operations of this kind since the gateway was started."""


class DeviceRow(msgspec.Struct, frozen=True):
    """Registered device."""

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
    secondary: bool
    revision: int
    clock_lag_s: float | None = None
    """Lag of its clock behind the gateway's at its last message, including the transit time; null: unknown."""
    last_seen: str | None = None
    """Arrival of its last message, whatever became of it; kept through restarts."""
    silent_since: str | None = None
    """Since when a message is overdue by its interval; null: none is, or it is disabled or retired."""
    last_refused: DeviceRefusal | None = None
    """Latest rejected connect, publish or subscribe; null: none since the gateway was started."""


class LastValueRow(msgspec.Struct, frozen=True):
    """Last value of a property of a device."""

    id: str
    """Id of the record."""
    property: str
    channel: str
    value: float | bool | str | None
    unit: str
    time: str
    received: str
    quality: str
    flags: list[str]
    revision: int


class DeviceCredential(msgspec.Struct, frozen=True):
    """Device with its credential, which is shown only once."""

    id: str
    username: str
    password: str
    """Empty for a device that publishes through a gateway."""
    topics: list[str]
    """Topics to which it may publish by MQTT."""
    device: DeviceRow
    warnings: list[str] = []
    """Conspicuous but accepted: a similar device of another owner nearby, an alias that is no MQTT client id."""
    broker: str = ""
    """Address of the MQTT broker as this gateway knows it, ``mqtt://host:port``."""
    client_id: str = ""
    """Client id to connect with; the broker refuses ids with white space, ``.``, ``*`` or ``>``."""
    example: str = ""
    """Payload of an example of its profile; empty: its messages are binary."""


class CredentialRotation(Body, frozen=True):
    """Replacement of a credential."""

    grace_s: Annotated[float, msgspec.Meta(ge=0, le=2_592_000)] = 86_400.0
    """Time for which the previous credential stays valid."""


class DeviceImportRow(msgspec.Struct, frozen=True):
    """Outcome of one row of an imported file."""

    line: int
    id: str
    outcome: str
    problem: str = ""
    remedy: str = ""
    password: str = ""


class DeviceImportReport(msgspec.Struct, frozen=True):
    """Outcome of an import."""

    rows: list[DeviceImportRow]
    dry_run: bool


class DivisionRow(msgspec.Struct, frozen=True):
    """Administrative division."""

    code: str
    full: str
    name_zh: str
    name_en: str
    level: str
    parent: str
    as_of: str


class CodeRow(msgspec.Struct, frozen=True):
    """Code that a string property may have."""

    code: str
    label_zh: str
    label_en: str


class PropertyRow(msgspec.Struct, frozen=True):
    """Property of the property table."""

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
    """Greatest plausible change between consecutive readings; null: any."""
    usual_low: float | None = None
    usual_high: float | None = None
    """Range of nearly all readings; null: unknown."""
    counter: bool = False
    codes: list[CodeRow] = []
    """Permitted codes of a string; empty: any string."""


class NewFeed(Body, frozen=True):
    """Feed to be created; an empty list selects all (divisions: the caller's scope)."""

    name: FeedName
    divisions: list[Division] = []
    domains: list[str] = []
    properties: list[str] = []
    departments: list[str] = []
    kinds: list[str] = msgspec.field(default_factory=lambda: ["reading"])
    grade_max: Annotated[int, msgspec.Meta(ge=1, le=4)] = 3
    secondary_sources: bool = False
    """Include readings of secondary sources, which bear the flag `secondary`."""
    description: Text = ""


class RecordRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Record of a feed."""

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
    """Channel of a property that a device has several times; absent if there is only one."""


class RecordPage(msgspec.Struct, frozen=True):
    """Page of records of a feed."""

    records: list[RecordRow]
    next: str


class LatestRecords(msgspec.Struct, frozen=True):
    """Page of last values of a feed."""

    records: list[RecordRow]
    next: str
    """`after` of the next page; empty: this is the last one."""
    cursor: str
    """Cursor of the log up to which the values hold; the records after it are the changes since."""


class NewToken(Body, frozen=True):
    """Token to be created."""

    role: Role
    scope: Division
    department: Text = ""
    feeds: list[str] = []
    name: Text = ""
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=34_560_000)] = 7_776_000.0


class TokenRow(msgspec.Struct, frozen=True):
    """Token, without its secret."""

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
    suspended: str
    """Reason why the token is refused after a change of its maker; empty: it is valid."""


class CreatedToken(msgspec.Struct, frozen=True):
    """New token, shown only once."""

    token: str
    id: str
    role: str
    scope: str
    department: str
    expires: str


class UsageRow(msgspec.Struct, frozen=True):
    """Records that one token received of one feed."""

    token: str
    feed: str
    delivery: str
    requests: int
    records: int
    bytes: int
    last: int
    unsettled: int
    """Records that may have been delivered without being counted, when the gateway was killed."""
    scanned: int
    """Rows looked through for the responses."""


class LedgerRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts of one node, division, device, hour or reason."""

    messages: int = 0
    decoded: int = 0
    quarantined: int = 0
    values: int = 0
    accepted: int = 0
    duplicates: int = 0
    suppressed: int = 0
    rejected: int = 0
    downsampled: int = 0
    """Observations left out by downsampling."""
    forwarded: int = 0
    withheld: int = 0
    refused_by_centre: int = 0
    """Rows that the centre rejected: committed = forwarded + withheld + refused_by_centre + pending."""
    node: str = ""
    division: str = ""
    device: str = ""
    hour: str = ""
    reason: str = ""
    count: int = 0
    """Count, with ``by=reason``."""
    refused: int = 0
    """With ``by=device``: connections, publishes and subscriptions rejected by the broker since it started."""


class LedgerReport(msgspec.Struct, frozen=True):
    """Ledger of the caller's scope."""

    rows: list[LedgerRow]
    totals: dict[str, int]
    """Ledger kind -> count."""
    balanced: bool
    delivered: int
    """Records delivered by this gateway in total, to tokens that the caller may see."""
    refused: dict[str, int]
    """Rejections of the broker since it started, by kind; not part of the balance."""
    since: str
    """Start of the first hour counted."""
    role: str
    division: str


class QuarantineRow(msgspec.Struct, frozen=True):
    """Quarantined message."""

    entry: str
    """Position in the log, usable as `after`."""
    received: str
    source: str
    topic: str
    device: str
    profile: str
    reason: str
    detail: str
    payload: str
    """Text if it is UTF-8, else ``base64:`` and base64; at most 4 kB."""
    bytes: int


class AuditRow(msgspec.Struct, frozen=True):
    """Record of the audit trail."""

    entry: int
    number: int
    time: str
    actor: str
    role: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class CallerInfo(msgspec.Struct, frozen=True):
    """Principal of the caller, and identity of this gateway."""

    id: str
    name: str
    role: str
    scope: str
    department: str
    gateway_role: str
    gateway_division: str
    version: str
    rights: list[str]
    """Actions that the role allows, somewhere in the scope."""


class Readiness(msgspec.Struct, frozen=True):
    """Readiness of the gateway."""

    ready: bool
    reasons: list[str]
    warnings: list[str] = []
    """Problems that do not stop readings, such as a profile that cannot be loaded."""
    clock: str = ""
    """References by which the gateway's clock was judged, and its offset."""
    devices: dict[str, int] = {}
    """Number of registered devices by state; `silent`: no message for longer than expected."""


class IngestReceipt(msgspec.Struct, frozen=True):
    """Confirmation that the message is committed."""

    committed: bool = True


def device_row(device: Device) -> DeviceRow:
    """Return the row of a device."""
    return msgspec.convert(device, DeviceRow, from_attributes=True)
