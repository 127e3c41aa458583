"""Grants: the right of one subscriber to one feed, and the admission of callers to feeds.

Every delivery calls `Grants.admit` when it begins and about every second while it lasts, so that a revocation, an
expiry or a change made by any process is in force within two seconds, on open streams too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from sensegate.authority.divisions import short_code
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, allows, has_right
from sensegate.clock import Clock
from sensegate.errors import NotFound, PermissionDenied
from sensegate.share.feeds import (
    GRADE_MAX,
    Feed,
    FeedFilter,
    Feeds,
    FeedSelection,
    common_divisions,
    common_words,
    filtered_selection,
    full_selection,
    scoped_selection,
)
from sensegate.share.masks import Mask
from sensegate.share.quota import GrantQuota, QuotaLimits

Delivery = Literal["http", "sse", "ws", "mqtt", "webhook", "nats", "influx"]
"""Deliveries by which records reach a subscriber; ``http`` is reading by page."""
RecordForm = Literal["json", "ndjson", "senml", "csv", "msgpack", "parquet", "geojson", "line"]
DELIVERIES: tuple[str, ...] = get_args(Delivery)
FORMS: tuple[str, ...] = get_args(RecordForm)
CORE_GRADE = GRADE_MAX
"""Classification level of core data, which no grant shares."""


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Right of a subscriber to a feed: what it may see, how, and until when."""

    id: str
    """``g`` and 16 hex digits; part of subjects and topics."""
    feed: str
    subscriber: str
    """Id of the token that reads."""
    expires: int
    """Valid before this time, µs UTC."""
    deliveries: tuple[str, ...] = ()
    """Words of `DELIVERIES`; empty: all."""
    forms: tuple[str, ...] = ()
    """Words of `FORMS`; empty: all."""
    mask: Mask = Mask()
    rate: float = 0.0
    """Records a second; 0: no limit."""
    volume: int = 0
    """Records a month of Beijing time; 0: no limit."""
    divisions: tuple[str, ...] = ()
    """Divisions of the feed when it was granted; what the owner adds to the feed later is not included."""
    departments: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    """Properties that may be read; empty: all of the feed."""
    domains: tuple[str, ...] = ()
    """Domains of the feed when it was granted; likewise `kinds`."""
    kinds: tuple[str, ...] = ()
    grade_max: int = CORE_GRADE - 1
    application: str = ""
    """Id of the application that led to the grant."""
    purpose: str = ""
    level: str = ""
    """Division that owns the data and decides."""
    department: str = ""
    """Department of the owner; empty: all."""
    applicant: str = ""
    """Scope of the applicant: ``DIVISION`` or ``DIVISION/DEPARTMENT``."""
    starts: int = 0
    created: int = 0
    created_by: str = ""
    revoked: int = 0
    """Time of revocation, µs UTC; 0: it is not revoked."""
    reason: str = ""
    """Reason of the revocation."""
    revision: int = 0
    format: int = 1

    def state(self, now: int) -> str:
        """Return ``revoked``, ``expired``, ``waiting`` (not begun) or ``active``."""
        if self.revoked:
            return "revoked"
        if now >= self.expires:
            return "expired"
        return "waiting" if now < self.starts else "active"


class Admission(msgspec.Struct, frozen=True):
    """Result of admitting a caller to a feed at this moment."""

    feed: Feed
    selection: FeedSelection | None
    """Rows and mask; None: the request selects nothing."""
    grant: Grant | None = None
    """Grant by which the caller is admitted; None: by the scope of its token."""
    quota: GrantQuota | None = None
    """Quota of the grant; None: unlimited."""

    @property
    def grant_id(self) -> str:
        """Id of the grant; empty: there is none."""
        return self.grant.id if self.grant else ""


class Grants:
    """All grants, in memory; they follow their bucket, so that every process sees a change within a second."""

    def __init__(
        self,
        store: RecordStore,
        feeds: Feeds,
        clock: Clock,
        *,
        demands_grant: Callable[[str], bool] = lambda _feed: False,
        used: Callable[[str], int] = lambda _grant: 0,
        core: Callable[[str], bool] = lambda _feed: False,
    ) -> None:
        """Initialize with the feeds that are granted.

        `demands_grant` returns whether reading a feed requires a grant; `used` returns a grant's records this month;
        `core` returns whether a feed is now classified as core, which overrides existing grants.
        """
        self._feeds = feeds
        self._clock = clock
        self._demands_grant = demands_grant
        self._used = used
        self.is_core = core
        self._by_subscriber: dict[tuple[str, str], tuple[Grant, ...]] = {}
        self._quotas: dict[str, GrantQuota] = {}
        self.records: RecordTable[Grant] = RecordTable(store, "grant", Grant)
        """Stored grants; `on_change` is called for every change by any process."""
        self.records.on_change.append(self._index)

    def _index(self, before: Grant | None, after: Grant | None) -> None:
        for changed in (before, after):
            if changed is None:
                continue
            key = (changed.subscriber, changed.feed)
            others = [other for other in self._by_subscriber.get(key, ()) if other.id != changed.id]
            current = [after] if after and (after.subscriber, after.feed) == key else []
            # The newest grant prevails: that of a mode order takes precedence over the ordinary one.
            self._by_subscriber[key] = tuple(sorted([*others, *current], key=lambda grant: grant.created, reverse=True))
            if not self._by_subscriber[key]:
                del self._by_subscriber[key]
        if before is not None and after is None:
            self._quotas.pop(before.id, None)

    # ── admission ───────────────────────────────────────────────────────────────────────────────────────

    def admit(
        self, principal: Principal, feed: str, wanted: FeedFilter | None = None, *, delivery: str = "", form: str = ""
    ) -> Admission:
        """Return a caller's part of a feed, filtered by a request, for a delivery in a form (empty: any).

        An active grant decides alone: it also covers data outside the caller's scope, and never more than it names.
        Without one the caller's scope decides, unless reading the feed requires a grant and the caller does not own it.

        Raises:
            NotFound: there is no such feed, or the caller gets nothing of it (the two are not distinguished).
            PermissionDenied: the role may not read; the feed requires a grant; the grant has ended or excludes this
                delivery or form; the request names a division outside what the caller gets.
        """
        if not has_right(principal, Action.READ_READINGS):
            raise PermissionDenied(f"role {principal.role} may not read readings; ask for a token of another role")
        wanted = wanted or FeedFilter()
        named_feed = self._feeds.find(feed)
        if named_feed is None or (principal.feeds and feed not in principal.feeds):
            raise _not_found(feed)
        grants = self._by_subscriber.get((principal.id, feed), ())
        now = self._clock.now()
        for grant in grants:
            if grant.state(now) == "active":
                return self._admit_by_grant(named_feed, grant, wanted, delivery, form)
        whole = scoped_selection(named_feed, principal.scope)
        if whole is None:
            raise _not_active(grants[0], now) if grants else _not_found(feed)
        if self._demands_grant(feed) and not owns(principal, named_feed):
            if grants:
                raise _not_active(grants[0], now)
            raise PermissionDenied(f"feed '{feed[:64]}' requires a grant; apply for it with POST /api/v1/applications")
        _demand_inside(wanted, (principal.scope.division,))
        return Admission(named_feed, filtered_selection(whole, wanted, whole.mask))

    def _admit_by_grant(self, feed: Feed, grant: Grant, wanted: FeedFilter, delivery: str, form: str) -> Admission:
        if self.is_core(feed.name):
            raise PermissionDenied(
                f"feed '{feed.name}' is now of grade {CORE_GRADE} (core): grant {grant.id} no longer covers it"
            )
        if delivery and grant.deliveries and delivery not in grant.deliveries:
            raise PermissionDenied(f"grant {grant.id} covers {', '.join(grant.deliveries)}, not {delivery}")
        if form and grant.forms and form not in grant.forms:
            raise PermissionDenied(f"grant {grant.id} covers {', '.join(grant.forms)}, not {form}")
        whole = grant_selection(feed, grant)
        _demand_inside(wanted, whole.divisions if whole else ())
        selection = None if whole is None else filtered_selection(whole, wanted, grant.mask)
        return Admission(feed, selection, grant, self.quota(grant))

    def quota(self, grant: Grant) -> GrantQuota | None:
        """Return the quota of a grant, one object for all its deliveries; None: unlimited."""
        limits = QuotaLimits(grant.rate, grant.volume)
        if limits == QuotaLimits():
            return None
        known = self._quotas.get(grant.id)
        if known is None or known.limits != limits:
            name = grant.id
            known = self._quotas[name] = GrantQuota(name, limits, self._clock, lambda: self._used(name))
        return known

    def can_read(self, principal: Principal, feed: str) -> bool:
        """Return whether `admit` gives the caller any part of a feed."""
        try:
            return self.admit(principal, feed).selection is not None
        except (NotFound, PermissionDenied):
            return False

    def visible(self, principal: Principal) -> list[Feed]:
        """Return the feeds in the caller's scope and those of its active grants, by name."""
        return [feed for feed in self._feeds if self._is_visible(principal, feed)]

    def feed(self, principal: Principal, name: str) -> Feed:
        """Return a visible feed. Raises `NotFound`."""
        feed = self._feeds.find(name)
        if feed is None or not self._is_visible(principal, feed):
            raise _not_found(name)
        return feed

    def _is_visible(self, principal: Principal, feed: Feed) -> bool:
        if principal.feeds and feed.name not in principal.feeds:
            return False
        return scoped_selection(feed, principal.scope) is not None or self.active(principal.id, feed.name) is not None

    # ── records ─────────────────────────────────────────────────────────────────────────────────────────

    def find(self, grant_id: str) -> Grant | None:
        """Return a grant without regard to scope; None: there is none."""
        return self.records.find(grant_id)

    def active(self, subscriber: str, feed: str) -> Grant | None:
        """Return the active or future grant of a subscriber for a feed; None: there is none."""
        now = self._clock.now()
        grants = self._by_subscriber.get((subscriber, feed), ())
        return next((grant for grant in grants if grant.state(now) in {"active", "waiting"}), None)

    def of_feed(self, feed: str) -> list[Grant]:
        """Return the active and future grants for a feed."""
        now = self._clock.now()
        return [grant for grant in self.records if grant.feed == feed and grant.state(now) in {"active", "waiting"}]


def grant_selection(feed: Feed, grant: Grant) -> FeedSelection | None:
    """Return the selection that a grant permits of a feed as it is now; None: nothing of any log."""
    base = full_selection(feed)
    divisions = common_divisions(base.divisions, grant.divisions)
    words = [
        common_words(getattr(base, name), getattr(grant, name))
        for name in ("departments", "properties", "domains", "kinds")
    ]
    if divisions is None or None in words or not feed.kinds:
        return None
    departments, properties, domains, kinds = words
    return msgspec.structs.replace(
        base,
        divisions=divisions,
        departments=departments,
        properties=properties,
        domains=domains,
        kinds=kinds,
        grade_max=min(feed.grade_max, grant.grade_max, CORE_GRADE - 1),
    )


def owns(principal: Principal, feed: Feed) -> bool:
    """Return whether the caller may decide on grants for all data of a feed."""
    return all(
        allows(principal, Action.DECIDE_GRANTS, division, department)
        for division in feed.divisions or ("44",)
        for department in feed.departments or ("",)
    )


def _demand_inside(wanted: FeedFilter, divisions: tuple[str, ...]) -> None:
    for code in wanted.divisions:
        if common_divisions((short_code(code),), divisions) is None:
            raise PermissionDenied(f"division {code} is outside your scope and grants ({', '.join(divisions)})")


def _not_found(feed: str) -> NotFound:
    return NotFound(f"there is no feed '{feed[:64]}' in your scope; GET /api/v1/feeds lists yours")


def _not_active(grant: Grant, now: int) -> PermissionDenied:
    match grant.state(now):
        case "revoked":
            return PermissionDenied(f"grant {grant.id} was revoked" + (f": {grant.reason}" if grant.reason else ""))
        case "waiting":
            return PermissionDenied(f"grant {grant.id} has not started")
        case _:
            return PermissionDenied(f"grant {grant.id} has expired; apply for its renewal")
