"""Request and response bodies of sharing: catalogue entries, applications, grants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sensegate.share.applications import ApplicationState
from sensegate.share.bundles import PreApproval
from sensegate.share.catalogue import Cadence, DatasetColumn, DatasetKind, Provider, QualityIndicators, SharingClass
from sensegate.share.feeds import FeedName
from sensegate.share.grants import Delivery, RecordForm
from sensegate.share.masks import Mask
from sensegate.web.bodies import Body, Division

Words = Annotated[str, msgspec.Meta(max_length=2_000)]

STARTS_MAX_US = 221_845_392_000_000_000
"""Latest start of a grant, the year 9000, µs UTC: its end too can be written as ISO 8601."""


class EntryChange(Body, frozen=True):
    """Changes of a catalogue entry; keys that are left out stay unchanged."""

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
    """Least grade of rows of the feed's properties and departments; a lower one is raised to it. 0: none."""
    domain: Words | msgspec.UnsetType = msgspec.UNSET
    kind: DatasetKind | msgspec.UnsetType | None = msgspec.UNSET
    provider: Provider | msgspec.UnsetType = msgspec.UNSET
    provider_name: Words | msgspec.UnsetType = msgspec.UNSET
    provider_code: Words | msgspec.UnsetType = msgspec.UNSET
    funding: Words | msgspec.UnsetType = msgspec.UNSET
    coverage: Words | msgspec.UnsetType = msgspec.UNSET
    cadence: Cadence | msgspec.UnsetType | None = msgspec.UNSET
    open: bool | msgspec.UnsetType = msgspec.UNSET
    promise: QualityIndicators | msgspec.UnsetType = msgspec.UNSET
    level: Division | msgspec.UnsetType = msgspec.UNSET


class EntryRow(msgspec.Struct, frozen=True, kw_only=True):
    """Catalogue entry in a list."""

    feed: str
    code: str
    title: str
    title_en: str
    state: Literal["draft", "published"]
    sharing: SharingClass
    grade: int
    domain: str
    kind: DatasetKind | None
    department: str
    cadence: Cadence | None
    level: str
    origin: str
    """Division of the node that owns the entry; empty: this gateway."""
    revision: int


class EntryDetail(EntryRow, frozen=True, kw_only=True):
    """Catalogue entry in full, with what was found in the data."""

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
    provider: Provider
    provider_name: str
    provider_code: str
    funding: str
    coverage: str
    open: bool
    promise: QualityIndicators
    measured: QualityIndicators
    """Mean indicators of the feed's devices; null: not measured."""
    met: dict[str, bool]
    """QualityIndicators and measured indicator -> whether the promise is met."""
    missing: list[str]
    """Missing members without which the entry cannot be published."""
    columns: list[DatasetColumn]
    sample: list[dict[str, Any]]
    sampled: str
    published: str
    changed: str
    divisions: list[str]
    """Divisions of the feed."""
    can_read: bool
    """True if the caller may read the feed now."""


class SampleRequest(Body, frozen=True):
    """Method of sampling."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5
    mask: Mask | None = None
    """null: none for data shared unconditionally, else one that hides positions, devices and exact times."""


class NewApplication(Body, frozen=True):
    """Application for access."""

    purpose: Words
    legal_basis: Words
    feeds: Annotated[tuple[FeedName, ...], msgspec.Meta(max_length=100)] = ()
    bundle: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Name of a bundle, instead of `feeds`."""
    days: float = 365.0
    starts: Annotated[int, msgspec.Meta(le=STARTS_MAX_US)] = 0
    """Start of the grant, µs UTC; 0: at the decision."""
    subscriber: Annotated[str, msgspec.Meta(max_length=80)] = ""
    """Id of the token that will read; empty: the token of the caller."""
    properties: tuple[str, ...] = ()
    divisions: tuple[Division, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    forms: tuple[RecordForm, ...] = ()
    rate: float = 0.0
    volume: int = 0
    contact: Annotated[str, msgspec.Meta(max_length=200)] = ""


class NewDecision(Body, frozen=True):
    """Decision on an application; keys that are left out are granted as applied for."""

    approve: bool
    reason: Words = ""
    days: float = 0.0
    mask: Mask | None = None
    properties: tuple[str, ...] = ()
    divisions: tuple[Division, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    forms: tuple[RecordForm, ...] = ()
    rate: float = 0.0
    volume: int = 0
    grade_max: Annotated[int, msgspec.Meta(ge=1, le=4)] = 3


class NewPreApproval(Body, frozen=True):
    """Approval in advance of applications for a bundle."""

    applicants: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=100)]
    """Scopes, DIVISION or DIVISION/DEPARTMENT, whose applicants are approved."""
    until: int
    """Applications before this time are approved, µs UTC."""
    terms: NewDecision
    reason: Words = ""


class NewBundle(Body, frozen=True):
    """Bundle of feeds that are applied for and granted together."""

    name: FeedName
    feeds: Annotated[tuple[FeedName, ...], msgspec.Meta(min_length=1, max_length=100)]
    title: Words = ""
    title_en: Words = ""
    pre_approvals: tuple[NewPreApproval, ...] = ()


class BundleRow(msgspec.Struct, frozen=True, kw_only=True):
    """Bundle."""

    name: str
    feeds: tuple[str, ...]
    title: str
    title_en: str
    pre_approvals: tuple[PreApproval, ...]
    by: str
    revision: int


class ApplicationRow(msgspec.Struct, frozen=True, kw_only=True):
    """Application with its state."""

    id: str
    state: ApplicationState
    """``pending``, ``approved``, ``refused``, ``withdrawn``; ``lapsed``: no level decided in time, each still may."""
    feeds: tuple[str, ...]
    purpose: str
    legal_basis: str
    days: float
    subscriber: str
    applicant: str
    by: str
    properties: tuple[str, ...]
    divisions: tuple[str, ...]
    deliveries: tuple[str, ...]
    forms: tuple[str, ...]
    rate: float
    volume: int
    contact: str
    renews: str
    bundle: str
    level: str
    """Division whose level decides now."""
    owner: str
    """Division whose level decides first."""
    department: str
    created: str
    deadline: str
    escalated: int
    decided: str
    decided_by: str
    lapsed: str
    reason: str
    grants: tuple[str, ...]
    revision: int


class GrantRow(msgspec.Struct, frozen=True, kw_only=True):
    """Right of a subscriber to a feed."""

    id: str
    state: str
    """``active``, ``waiting`` (not started), ``expired`` or ``revoked``."""
    feed: str
    subscriber: str
    applicant: str
    level: str
    department: str
    purpose: str
    application: str
    starts: str
    expires: str
    deliveries: tuple[str, ...]
    forms: tuple[str, ...]
    mask: Mask
    rate: float
    volume: int
    used: int
    """Records used this month."""
    divisions: tuple[str, ...]
    properties: tuple[str, ...]
    grade_max: int
    created: str
    created_by: str
    revoked: str
    reason: str
    revision: int


class GrantChange(Body, frozen=True):
    """Changes of the terms of a grant; keys that are left out stay unchanged."""

    subscriber: Annotated[str, msgspec.Meta(max_length=80)] | msgspec.UnsetType = msgspec.UNSET
    """Another token of the same applicant."""
    days: Annotated[float, msgspec.Meta(gt=0)] | msgspec.UnsetType = msgspec.UNSET
    """Duration from now on."""
    mask: Mask | msgspec.UnsetType = msgspec.UNSET
    deliveries: tuple[Delivery, ...] | msgspec.UnsetType = msgspec.UNSET
    forms: tuple[RecordForm, ...] | msgspec.UnsetType = msgspec.UNSET
    rate: float | msgspec.UnsetType = msgspec.UNSET
    volume: int | msgspec.UnsetType = msgspec.UNSET
    divisions: tuple[Division, ...] | msgspec.UnsetType = msgspec.UNSET
    properties: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    grade_max: Annotated[int, msgspec.Meta(ge=1, le=4)] | msgspec.UnsetType = msgspec.UNSET


class Renewal(Body, frozen=True):
    """Extension of a grant; all other terms stay."""

    days: float = 365.0
    purpose: Words = ""
    """Purpose; empty: as before."""
    legal_basis: Words = ""


class GrantUsage(msgspec.Struct, frozen=True):
    """Usage of a grant in a month by one delivery."""

    delivery: str
    month: str
    requests: int
    records: int
    bytes: int
    last: str
    subscriber: str
    unsettled: int
    """Records that may have been delivered without being counted, when the gateway was killed; a quota counts them."""
    scanned: int
    """Rows looked through for the responses."""


class GrantUsageReport(msgspec.Struct, frozen=True):
    """Usage of a grant in a month."""

    rows: list[GrantUsage]
    month: str
    records: int
