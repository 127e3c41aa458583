"""What the REST interface takes and gives about sharing: entries of the catalogue, applications, grants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sensegate.web.bodies import Body, Division, FeedName

Words = Annotated[str, msgspec.Meta(max_length=2_000)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
SharingClass = Literal["unconditional", "conditional", "not_shared"]
DataKind = Literal["base", "theme", "department"]
ProviderKind = Literal["government", "public", "enterprise", "social"]
Cadence = Literal["realtime", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "irregular"]
Delivery = Literal["http", "sse", "ws", "mqtt", "webhook", "nats"]
FormWord = Literal["json", "ndjson", "senml", "csv", "msgpack", "parquet"]


class Promised(Body, frozen=True):
    """The least value of each indicator, 0 to 1; null: nothing is said."""

    authenticity: Share | None = None
    accuracy: Share | None = None
    continuity: Share | None = None
    completeness: Share | None = None


class EntryChange(Body, frozen=True):
    """What is said about a feed; keys that are left out stay as they are."""

    title: Words | msgspec.UnsetType = msgspec.UNSET
    title_en: Words | msgspec.UnsetType = msgspec.UNSET
    summary: Words | msgspec.UnsetType = msgspec.UNSET
    summary_en: Words | msgspec.UnsetType = msgspec.UNSET
    department: Words | msgspec.UnsetType = msgspec.UNSET
    source: Words | msgspec.UnsetType = msgspec.UNSET
    update: Words | msgspec.UnsetType = msgspec.UNSET
    quality: Words | msgspec.UnsetType = msgspec.UNSET
    usage: Words | msgspec.UnsetType = msgspec.UNSET
    sharing: SharingClass | msgspec.UnsetType = msgspec.UNSET
    conditions: Words | msgspec.UnsetType = msgspec.UNSET
    legal_basis: Words | msgspec.UnsetType = msgspec.UNSET
    grade: Annotated[int, msgspec.Meta(ge=0, le=4)] | msgspec.UnsetType = msgspec.UNSET
    grade_reason: Words | msgspec.UnsetType = msgspec.UNSET
    grade_floor: Annotated[int, msgspec.Meta(ge=0, le=4)] | msgspec.UnsetType = msgspec.UNSET
    """Least grade of what nodes send of the feed's properties and departments: a lower one is raised. 0: none."""
    domain: Words | msgspec.UnsetType = msgspec.UNSET
    kind: DataKind | msgspec.UnsetType | None = msgspec.UNSET
    provider: ProviderKind | msgspec.UnsetType = msgspec.UNSET
    provider_name: Words | msgspec.UnsetType = msgspec.UNSET
    provider_code: Words | msgspec.UnsetType = msgspec.UNSET
    funding: Words | msgspec.UnsetType = msgspec.UNSET
    coverage: Words | msgspec.UnsetType = msgspec.UNSET
    cadence: Cadence | msgspec.UnsetType | None = msgspec.UNSET
    open: bool | msgspec.UnsetType = msgspec.UNSET
    promise: Promised | msgspec.UnsetType = msgspec.UNSET
    level: Division | msgspec.UnsetType = msgspec.UNSET


class EntryRow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in a list."""

    feed: str
    code: str
    title: str
    title_en: str
    state: Literal["draft", "published"]
    sharing: str
    grade: int
    domain: str
    kind: str | None
    department: str
    cadence: str | None
    level: str
    origin: str
    """Division of the node that keeps it; empty: this gateway."""
    revision: int


class ColumnRow(msgspec.Struct, frozen=True):
    """A property that occurs in the data."""

    name: str
    kind: str
    unit: str
    label_zh: str
    label_en: str
    rows: int


class EntryDetail(EntryRow, frozen=True, kw_only=True):
    """All that is said about a feed, and what was found in its data."""

    summary: str
    summary_en: str
    source: str
    update: str
    quality: str
    usage: str
    conditions: str
    legal_basis: str
    grade_reason: str
    grade_floor: int
    provider: str
    provider_name: str
    provider_code: str
    funding: str
    coverage: str
    open: bool
    promise: Promised
    measured: Promised
    """Means over the devices of the feed and the last day; null where nothing was measured."""
    held: dict[str, bool]
    """Of what is promised and measured: whether it is held."""
    missing: list[str]
    """What has to be said until it is published."""
    columns: list[ColumnRow]
    sample: list[dict[str, Any]]
    drawn: str
    published: str
    changed: str
    divisions: list[str]
    """Of the feed."""
    reads: bool
    """The caller may read it now."""


class SampleRequest(Body, frozen=True):
    """How a sample is to be drawn."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5
    mask: MaskBody | None = None
    """null: as it is where it is shared unconditionally, else without places, devices and exact times."""


class RoundingBody(Body, frozen=True):
    """Values of a property as multiples of a step in its canonical unit."""

    property: str
    step: float


class MaskBody(Body, frozen=True):
    """What a subscriber does not see as it is."""

    drop: tuple[str, ...] = ()
    """Properties; also `place` and `profile`."""
    round: tuple[RoundingBody, ...] = ()
    hash: tuple[str, ...] = ()
    """`device` and string properties."""
    grid_m: float = 0.0
    time_s: int = 0
    division_digits: int = 0
    k: int = 0
    key: Annotated[str, msgspec.Meta(max_length=64)] = ""


class NewApplication(Body, frozen=True):
    """What is applied for."""

    purpose: Words
    legal_basis: Words
    feeds: Annotated[tuple[FeedName, ...], msgspec.Meta(max_length=100)] = ()
    bundle: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Name of a bundle, in place of its feeds."""
    days: float = 365.0
    starts: int = 0
    """µs UTC; 0: at the decision."""
    subscriber: Annotated[str, msgspec.Meta(max_length=80)] = ""
    """Id of the token that will read; empty: the caller's own."""
    properties: tuple[str, ...] = ()
    divisions: tuple[Division, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    forms: tuple[FormWord, ...] = ()
    rate: float = 0.0
    volume: int = 0
    contact: Annotated[str, msgspec.Meta(max_length=200)] = ""


class NewDecision(Body, frozen=True):
    """What the owner says; what is left out is as applied for."""

    approve: bool
    reason: Words = ""
    days: float = 0.0
    mask: MaskBody | None = None
    properties: tuple[str, ...] = ()
    divisions: tuple[Division, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    forms: tuple[FormWord, ...] = ()
    rate: float = 0.0
    volume: int = 0
    grade_max: Annotated[int, msgspec.Meta(ge=1, le=4)] = 3


class BlanketBody(Body, frozen=True):
    """What is granted in advance."""

    applicants: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=100)]
    """Divisions, or DIVISION/DEPARTMENT."""
    until: int
    """Applications before this time, µs UTC."""
    terms: NewDecision
    reason: Words = ""


class NewBundle(Body, frozen=True):
    """Feeds that are applied for and granted as one."""

    name: FeedName
    feeds: Annotated[tuple[FeedName, ...], msgspec.Meta(min_length=1, max_length=100)]
    title: Words = ""
    title_en: Words = ""
    blankets: tuple[BlanketBody, ...] = ()


class BundleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle."""

    name: str
    feeds: list[str]
    title: str
    title_en: str
    blankets: list[dict[str, Any]]
    by: str
    revision: int


class ApplicationRow(msgspec.Struct, frozen=True, kw_only=True):
    """An application with what became of it."""

    id: str
    state: str
    """``pending``, ``approved``, ``refused``, ``withdrawn``; ``lapsed``: no level answered, each may still."""
    feeds: list[str]
    purpose: str
    legal_basis: str
    days: float
    subscriber: str
    applicant: str
    by: str
    properties: list[str]
    divisions: list[str]
    deliveries: list[str]
    forms: list[str]
    rate: float
    volume: int
    contact: str
    renews: str
    bundle: str
    level: str
    """Who decides now."""
    owner: str
    """Who decides first."""
    department: str
    created: str
    deadline: str
    escalated: int
    decided: str
    decided_by: str
    lapsed: str
    reason: str
    grants: list[str]
    revision: int


class GrantRow(msgspec.Struct, frozen=True, kw_only=True):
    """The right of a subscriber to a feed."""

    id: str
    state: Literal["active", "waiting", "expired", "revoked"]
    feed: str
    subscriber: str
    applicant: str
    level: str
    department: str
    purpose: str
    application: str
    starts: str
    expires: str
    deliveries: list[str]
    forms: list[str]
    mask: MaskBody
    rate: float
    volume: int
    used: int
    """Records of this month."""
    divisions: list[str]
    properties: list[str]
    grade_max: int
    created: str
    created_by: str
    revoked: str
    reason: str
    revision: int


class GrantChange(Body, frozen=True):
    """Terms of a grant; keys that are left out stay as they are."""

    subscriber: Annotated[str, msgspec.Meta(max_length=80)] | msgspec.UnsetType = msgspec.UNSET
    """Another token of the same applicant."""
    days: Annotated[float, msgspec.Meta(gt=0)] | msgspec.UnsetType = msgspec.UNSET
    """From now on."""
    mask: MaskBody | msgspec.UnsetType = msgspec.UNSET
    deliveries: tuple[Delivery, ...] | msgspec.UnsetType = msgspec.UNSET
    forms: tuple[FormWord, ...] | msgspec.UnsetType = msgspec.UNSET
    rate: float | msgspec.UnsetType = msgspec.UNSET
    volume: int | msgspec.UnsetType = msgspec.UNSET
    divisions: tuple[Division, ...] | msgspec.UnsetType = msgspec.UNSET
    properties: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    grade_max: Annotated[int, msgspec.Meta(ge=1, le=4)] | msgspec.UnsetType = msgspec.UNSET


class Renewal(Body, frozen=True):
    """For how long a grant is to go on; all else is as it was applied for."""

    days: float = 365.0
    purpose: Words = ""
    """Empty: as before."""
    legal_basis: Words = ""


class GrantUsage(msgspec.Struct, frozen=True):
    """What a grant delivered in a month by one delivery."""

    delivery: str
    month: str
    requests: int
    records: int
    bytes: int
    last: str
    subscriber: str
    unsettled: int
    """So many records more may have gone: the gateway was killed while it delivered; a quota counts them."""


class ReceiptAnswer(msgspec.Struct, frozen=True):
    """What a grant delivered in a month, signed (Ed25519); keep it as it came, for `sensegate receipt verify`."""

    kind: str
    gateway: str
    grant: str
    feed: str
    subscriber: str
    applicant: str
    owner: str
    purpose: str
    month: str
    whole: bool
    records: int
    bytes: int
    rows: list[dict[str, Any]]
    time: int
    key: str
    signature: str
    format: int
