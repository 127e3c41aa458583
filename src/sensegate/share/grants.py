"""Grants: the right of one subscriber to one feed, and the one answer to what a caller gets of it.

Every delivery asks `Grants.admitted` when it begins and about every second while it goes on: a revocation, an end or
a change of any process is in force within two seconds, on open streams too.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sensegate.authority.divisions import short_code
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, allows, has_right
from sensegate.clock import Clock
from sensegate.errors import NotFound, PermissionDenied
from sensegate.share.feeds import GRADE_MAX, Feed, Feeds, Selection, Wanted, common, common_words, cut, narrowed, whole
from sensegate.share.masks import Mask
from sensegate.share.quota import Allowance, Limits

DELIVERIES = ("http", "sse", "ws", "mqtt", "webhook", "nats")
"""Ways by which records reach a subscriber; ``http`` is reading by page."""
FORMS = ("json", "ndjson", "senml", "csv", "msgpack", "parquet")
CORE = GRADE_MAX
"""This grade is never shared by a grant."""


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """The right of a subscriber to a feed: what it may see, how, and until when."""

    id: str
    """``g`` and 16 hex digits; part of subjects and topics."""
    feed: str
    subscriber: str
    """Id of the token that reads."""
    expires: int
    """Good before this time, µs UTC."""
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
    """Only these of the feed's; what the owner adds to the feed later is not in the grant."""
    departments: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    """Only these; empty: all of the feed's."""
    domains: tuple[str, ...] = ()
    """As the feed had them when it was granted, like `kinds`."""
    kinds: tuple[str, ...] = ()
    grade_max: int = CORE - 1
    application: str = ""
    """Of which it comes; grants of one application are a bundle."""
    purpose: str = ""
    level: str = ""
    """Division that owns the data and decides."""
    department: str = ""
    """Its department; empty: all."""
    applicant: str = ""
    """Division that asked (``DIVISION`` or ``DIVISION/DEPARTMENT``)."""
    starts: int = 0
    created: int = 0
    created_by: str = ""
    revoked: int = 0
    """When it was taken back, µs UTC; 0: it was not."""
    reason: str = ""
    """Why it was taken back."""
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
    """What a caller gets of a feed at this moment."""

    feed: Feed
    selection: Selection | None
    """Its rows and how they are seen; None: the request narrows it to nothing."""
    grant: Grant | None = None
    """By which it is admitted; None: by the scope of its own token."""
    allowance: Allowance | None = None
    """Quota of the grant; None: no limit."""

    @property
    def grant_id(self) -> str:
        """Id of the grant; empty: none."""
        return self.grant.id if self.grant else ""


class Grants:
    """All grants, in memory; the shelf follows its bucket, so that every process sees a change within a second."""

    def __init__(
        self,
        shelf: RecordStore,
        feeds: Feeds,
        clock: Clock,
        *,
        demands_grant: Callable[[str], bool] = lambda _feed: False,
        used: Callable[[str], int] = lambda _grant: 0,
        core: Callable[[str], bool] = lambda _feed: False,
    ) -> None:
        """Take the feeds that are granted.

        `demands_grant` tells whether a feed is shared on conditions; `used` the records of a grant this month; `core`
        whether its entry says that it is of the grade that no grant opens, also where it says so only since then.
        """
        self._feeds = feeds
        self._clock = clock
        self._demands_grant = demands_grant
        self._used = used
        self.core = core
        self._by_subscriber: dict[tuple[str, str], tuple[Grant, ...]] = {}
        self._allowances: dict[str, Allowance] = {}
        self.records: RecordTable[Grant] = RecordTable(shelf, "grant", Grant)
        """The grants themselves; its `on_change` is called for every change, from whichever process it came."""
        self.records.on_change.append(self._sort)

    def _sort(self, before: Grant | None, after: Grant | None) -> None:
        for one in (before, after):
            if one is None:
                continue
            key = (one.subscriber, one.feed)
            rest = [other for other in self._by_subscriber.get(key, ()) if other.id != one.id]
            here = [after] if after and (after.subscriber, after.feed) == key else []
            # The newest decides while it lasts: that of a mode order goes before the ordinary one.
            self._by_subscriber[key] = tuple(sorted([*rest, *here], key=lambda one: one.created, reverse=True))
            if not self._by_subscriber[key]:
                del self._by_subscriber[key]
        if before is not None and after is None:
            self._allowances.pop(before.id, None)

    # ── the one answer ────────────────────────────────────────────────────────────────────────────────

    def admitted(
        self, principal: Principal, feed: str, wanted: Wanted | None = None, *, delivery: str = "", form: str = ""
    ) -> Admission:
        """Return what a caller gets of a feed, narrowed by a request, by a delivery in a form (empty: any).

        A grant in force decides alone: it also opens what lies outside the caller's scope, never more than it names.
        Without one the caller's own scope decides, unless the feed is shared on conditions and is not the caller's own.

        Raises:
            NotFound: no such feed, or the caller gets nothing of it (the two are not told apart).
            PermissionDenied: the role reads nothing; the feed demands a grant; the grant has ended or is not for this
                delivery
                or form; the request names a division outside what the caller gets.
        """
        if not has_right(principal, Action.READ_READINGS):
            raise PermissionDenied(f"role {principal.role} may not read readings; ask for a token of another role")
        wanted = wanted or Wanted()
        found = self._feeds.find(feed)
        if found is None or (principal.feeds and feed not in principal.feeds):
            raise _nothing(feed)
        grants = self._by_subscriber.get((principal.id, feed), ())
        now = self._clock.now()
        for grant in grants:
            if grant.state(now) == "active":
                return self._granted(found, grant, wanted, delivery, form)
        whole = cut(found, principal.scope)
        if whole is None:
            raise _ended(grants[0], now) if grants else _nothing(feed)
        if self._demands_grant(feed) and not owns(principal, found):
            if grants:
                raise _ended(grants[0], now)
            raise PermissionDenied(
                f"feed '{feed[:64]}' is shared on conditions; apply for it with POST /api/v1/applications"
            )
        _demand_inside(wanted, (principal.scope.division,))
        return Admission(found, narrowed(whole, wanted, whole.mask))

    def _granted(self, feed: Feed, grant: Grant, wanted: Wanted, delivery: str, form: str) -> Admission:
        if self.core(feed.name):
            raise PermissionDenied(
                f"feed '{feed.name}' is of grade {CORE} (core) now: grant {grant.id} opens it no more"
            )
        if delivery and grant.deliveries and delivery not in grant.deliveries:
            raise PermissionDenied(f"grant {grant.id} is for {', '.join(grant.deliveries)}, not for {delivery}")
        if form and grant.forms and form not in grant.forms:
            raise PermissionDenied(f"grant {grant.id} is for {', '.join(grant.forms)}, not for {form}")
        whole = granted(feed, grant)
        _demand_inside(wanted, whole.divisions if whole else ())
        selection = None if whole is None else narrowed(whole, wanted, grant.mask)
        return Admission(feed, selection, grant, self.allowance(grant))

    def allowance(self, grant: Grant) -> Allowance | None:
        """Return the quota of a grant, the same object for all its deliveries; None: it has none."""
        limits = Limits(grant.rate, grant.volume)
        if limits == Limits():
            return None
        known = self._allowances.get(grant.id)
        if known is None or known.limits != limits:
            name = grant.id
            known = self._allowances[name] = Allowance(name, limits, self._clock, lambda: self._used(name))
        return known

    def reads(self, principal: Principal, feed: str) -> bool:
        """Return whether the caller gets anything of a feed by `admitted`."""
        try:
            return self.admitted(principal, feed).selection is not None
        except (NotFound, PermissionDenied):
            return False

    def visible(self, principal: Principal) -> list[Feed]:
        """Return the feeds in the caller's scope and those of its grants in force, by name."""
        return [feed for feed in self._feeds if self._shows(principal, feed)]

    def feed(self, principal: Principal, name: str) -> Feed:
        """Return one of them. Raises `NotFound`."""
        feed = self._feeds.find(name)
        if feed is None or not self._shows(principal, feed):
            raise _nothing(name)
        return feed

    def _shows(self, principal: Principal, feed: Feed) -> bool:
        if principal.feeds and feed.name not in principal.feeds:
            return False
        return cut(feed, principal.scope) is not None or self.active(principal.id, feed.name) is not None

    # ── the record ────────────────────────────────────────────────────────────────────────────────────

    def find(self, grant_id: str) -> Grant | None:
        """Return a grant, whoever may see it."""
        return self.records.find(grant_id)

    def active(self, subscriber: str, feed: str) -> Grant | None:
        """Return the grant in force for a subscriber and feed."""
        now = self._clock.now()
        found = self._by_subscriber.get((subscriber, feed), ())
        return next((grant for grant in found if grant.state(now) in {"active", "waiting"}), None)

    def given(self, feed: str) -> list[Grant]:
        """Return the grants in force, or to come, for a feed."""
        now = self._clock.now()
        return [grant for grant in self.records if grant.feed == feed and grant.state(now) in {"active", "waiting"}]


def granted(feed: Feed, grant: Grant) -> Selection | None:
    """Return what a grant lets through of a feed as the feed is now; None: nothing for any log."""
    base = whole(feed)
    divisions = common(base.divisions, grant.divisions)
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
        grade_max=min(feed.grade_max, grant.grade_max, CORE - 1),
    )


def owns(principal: Principal, feed: Feed) -> bool:
    """Return whether the caller may decide about all of a feed: then it is its own data."""
    return all(
        allows(principal, Action.DECIDE_GRANTS, division, department)
        for division in feed.divisions or ("44",)
        for department in feed.departments or ("",)
    )


def _demand_inside(wanted: Wanted, divisions: tuple[str, ...]) -> None:
    for code in wanted.divisions:
        if common((short_code(code),), divisions) is None:
            raise PermissionDenied(f"division {code} is outside your scope and grants ({', '.join(divisions)})")


def _nothing(feed: str) -> NotFound:
    return NotFound(f"no feed '{feed[:64]}' in your scope; GET /api/v1/feeds lists yours")


def _ended(grant: Grant, now: int) -> PermissionDenied:
    match grant.state(now):
        case "revoked":
            return PermissionDenied(f"grant {grant.id} was revoked" + (f": {grant.reason}" if grant.reason else ""))
        case "waiting":
            return PermissionDenied(f"grant {grant.id} has not begun")
        case _:
            return PermissionDenied(f"grant {grant.id} has expired; apply for its renewal")
