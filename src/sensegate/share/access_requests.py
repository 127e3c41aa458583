"""Access requests: applications, the decisions on them, and the grants that follow.

Each step is authorized, written to the audit trail, and then made.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.record_store import RecordTable
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand, scope_text
from sensegate.authority.scope import scope as scope_of
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.share import masks
from sensegate.share.applications import (
    Application,
    ApplicationState,
    Decision,
    RequestedAccess,
    check_request,
    check_terms,
    common_department,
    common_level,
    demand_decider,
    may_see,
    narrowed,
    parent_level,
)
from sensegate.share.bundles import Bundles
from sensegate.share.catalogue import SharingClass
from sensegate.share.federation_node import CentreRecords
from sensegate.share.feeds import Feed, common_divisions
from sensegate.share.grants import CORE_GRADE, Grant, owns
from sensegate.share.registries import SharingRegistries

CHECK_INTERVAL_S = 60.0
"""Interval between checks of deadlines."""
PRUNE_INTERVAL_S = 3_600.0
"""Interval between removals of old grants and applications."""
PENDING_MAX = 200
"""Most pending applications of one subscriber: more are a fault of a program."""
DEADLINES = Principal("clock", Role.ADMIN, Scope("44"), name="deadlines")
"""Actor in the audit trail when a deadline has passed."""

_log = structlog.get_logger(__name__)


class AccessTerms(msgspec.Struct, frozen=True):
    """Durations of applications and grants."""

    answer_days: float = 10.0
    """Time to decide on an application before it escalates to the parent level."""
    days_max: float = 1_096.0
    """Longest duration of a grant."""
    retention_days: float = 0.0
    """Retention of ended grants, decided applications and monthly counts; 0: unlimited."""


class AccessRequests:
    """Applications and grants of this gateway, and those at its centre for its data."""

    def __init__(
        self,
        registries: SharingRegistries,
        trail: Trail,
        clock: Clock,
        *,
        subscriber: Callable[[str, Principal], Scope],
        centre: CentreRecords | None = None,
        terms: AccessTerms,
    ) -> None:
        """Build it on finished registries.

        `subscriber` returns the scope of a token by its id, or raises `NotFound` if the caller may not see it;
        `centre`: at a node, the records of its centre that concern the node's data.
        """
        store, feeds = registries.store, registries.feeds
        self._feeds = feeds
        self._catalogue = registries.catalogue
        self._grants = registries.grants
        self._trail = trail
        self._clock = clock
        self._subscriber = subscriber
        self._answer_us = round(terms.answer_days * DAY_US)
        self._days_max = terms.days_max
        self._retention_us = round(terms.retention_days * DAY_US)
        self._centre = centre
        self.bundles = Bundles(store, feeds, trail, clock)
        self.applications: RecordTable[Application] = RecordTable(store, "application", Application)

    # ── applications ──────────────────────────────────────────────────────────────────────────────────

    def visible(self, principal: Principal) -> list[Application]:
        """Return the applications that the caller may see, oldest first."""
        applications = (*self.applications, *self._centre_applications())
        visible = [application for application in applications if self._may_see(principal, application)]
        return sorted(visible, key=lambda application: (application.created, application.id))

    def get(self, principal: Principal, name: str) -> Application:
        """Return a record that the caller may see. Raises `NotFound`."""
        application = self.applications.find(name)
        if application is None and self._centre:
            application = self._centre.applications.find(name)
        if application is None or not self._may_see(principal, application):
            raise NotFound(f"there is no application '{name[:40]}' that concerns you")
        return application

    async def apply(self, principal: Principal, requested: RequestedAccess) -> Application:
        """Create an application; feeds that are shared unconditionally or pre-approved are granted at once.

        Raises:
            ConfigError: a value is invalid.
            NotFound: a feed is not in the catalogue, or the caller may not see the token.
            PermissionDenied: the data is classified as core; the attempt is recorded.
            Conflict: the subscriber has a grant for the feed, which can be renewed.
            Overloaded: too many applications of the subscriber are pending.
        """
        requested = self._expand_bundle(requested)
        check_request(requested, days_max=self._days_max)
        subscriber = requested.subscriber or principal.id
        scope = principal.scope if subscriber == principal.id else self._subscriber(subscriber, principal)
        demand(principal, Action.APPLY_GRANTS, scope.division, scope.department)
        if requested.renews:
            self._demand_renewable(principal, requested, subscriber)
        feeds = [self._requestable_feed(principal, name) for name in requested.feeds]
        await self._refuse_core(principal, feeds)
        for feed in feeds:
            if common_divisions(feed.divisions, requested.divisions) is None:
                raise ConfigError(f"feed '{feed.name}' contains none of them", key="divisions", remedy="leave it out")
            if not requested.renews and (present := self._grants.active(subscriber, feed.name)):
                raise Conflict(f"{subscriber} already has grant {present.id} for '{feed.name}'; renew it")
        now = self._clock.now()
        pending = sum(
            application.subscriber == subscriber and application.effective_state is ApplicationState.PENDING
            for application in self.applications
        )
        if pending >= PENDING_MAX:
            raise Overloaded(f"{pending} applications of {subscriber} are pending; withdraw some first")
        level = self._level(feeds)
        application = Application(
            id=f"a{secrets.token_hex(8)}",
            requested=requested,
            subscriber=subscriber,
            applicant=scope_text(scope),
            by=principal.id,
            created=now,
            level=level,
            department=common_department(feeds),
            deadline=now + self._answer_us,
            owner=level,
        )
        await self._trail.record(principal, "application.create", application.id, after=_facts(application))
        application = await self.applications.put(application.id, application, expected=0)
        if all(self._unconditional(feed) for feed in feeds):
            return await self._approve(DEADLINES, application, Decision(True, reason="shared unconditionally"))
        if requested.bundle and (pre_approval := self.bundles.pre_approval(requested.bundle, scope)):
            preapproved = pre_approval.terms
            days = min(preapproved.days or requested.days, requested.days)
            reason = pre_approval.reason or f"pre-approval of bundle {requested.bundle}"
            try:
                return await self._approve(
                    DEADLINES, application, msgspec.structs.replace(preapproved, days=days, reason=reason)
                )
            except ConfigError as why:
                # It asks for more than was approved in advance: the owner decides.
                _log.info("pre-approval does not cover the application", application=application.id, reason=str(why))
        return application

    def _expand_bundle(self, requested: RequestedAccess) -> RequestedAccess:
        """Return a request with the feeds of its bundle filled in."""
        if not requested.bundle:
            return requested
        if requested.feeds:
            raise ConfigError("feeds and a bundle are both given", key="feeds", remedy="give one of them")
        return msgspec.structs.replace(requested, feeds=self.bundles.get(requested.bundle).feeds)

    async def renew(
        self, principal: Principal, name: str, *, days: float, purpose: str = "", legal_basis: str = ""
    ) -> Application:
        """Apply to extend a grant on the same terms. Raises as `apply`."""
        grant = self.grant(principal, name)
        before = self.applications.find(grant.application)
        basis = legal_basis or (before.requested.legal_basis if before else "")
        requested = RequestedAccess(
            (grant.feed,),
            purpose or grant.purpose,
            basis,
            days,
            subscriber=grant.subscriber,
            properties=grant.properties,
            divisions=grant.divisions,
            deliveries=grant.deliveries,
            forms=grant.forms,
            rate=grant.rate,
            volume=grant.volume,
            contact=before.requested.contact if before else "",
            renews=grant.id,
        )
        return await self.apply(principal, requested)

    async def decide(self, principal: Principal, name: str, decision: Decision, revision: int | None) -> Application:
        """Approve or refuse an application; approval creates its grants.

        Raises:
            NotFound, ConfigError, PermissionDenied.
            Conflict: it is already decided, or was changed meanwhile.
        """
        application = self.get(principal, name)
        if revision is not None and revision != application.revision:
            raise Conflict(f"application {name} is at revision {application.revision}, not {revision}; read it again")
        if self._centre and self.applications.find(name) is None:
            check_terms(decision)
            masks.check_mask(decision.mask or masks.NO_MASK)
            return await self._centre.decide(principal, application, decision)
        demand_decider(principal, application)
        if application.state is not ApplicationState.PENDING:
            raise Conflict(f"application {application.id} is {application.state}")
        if not decision.approve:
            if not decision.reason.strip():
                raise ConfigError("is missing", key="reason", remedy="say why it is refused")
            return await self._close(principal, application, ApplicationState.REFUSED, decision, ())
        if application.lapsed:
            self._demand_not_granted(application)
        return await self._approve(principal, application, decision)

    def _demand_not_granted(self, application: Application) -> None:
        """Return if a lapsed application is not superseded by a grant of a newer one. Raises `Conflict`."""
        for name in application.requested.feeds:
            present = self._grants.active(application.subscriber, name)
            if present and not application.requested.renews and present.application != application.id:
                raise Conflict(
                    f"{application.subscriber} has grant {present.id} for '{name}' meanwhile; refuse application "
                    f"{application.id}, which had lapsed"
                )

    async def withdraw(self, principal: Principal, name: str) -> Application:
        """Withdraw a pending application; the applicant and the operators of its scope may.

        Raises:
            NotFound, PermissionDenied, Conflict.
        """
        application = self._local(principal, name)
        applicant = scope_of(application.applicant)
        party = principal.id in {application.by, application.subscriber}
        if not (party or allows(principal, Action.CHANGE_TOKENS, applicant.division, applicant.department)):
            raise PermissionDenied(f"application {application.id} is withdrawn by its applicant; you may refuse it")
        if application.state is not ApplicationState.PENDING:
            raise Conflict(f"application {application.id} is {application.state}")
        return await self._close(principal, application, ApplicationState.WITHDRAWN, Decision(False), ())

    def _local(self, principal: Principal, name: str) -> Application:
        """Return an application stored at this gateway. Raises `NotFound`; `Conflict`: it is stored at the centre."""
        application = self.get(principal, name)
        if self.applications.find(name) is None:
            raise Conflict(f"application {name} is stored at the centre; withdraw it there")
        return application

    def _centre_applications(self) -> Iterable[Application]:
        return self._centre.applications if self._centre else ()

    async def escalate(self) -> int:
        """Escalate every application whose deadline has passed to the parent level; return how many.

        At the province, which has no parent level, it lapses.
        """
        now, count = self._clock.now(), 0
        facts: Facts
        for application in [
            application
            for application in self.applications
            if application.effective_state is ApplicationState.PENDING and application.deadline <= now
        ]:
            if (level := parent_level(application.level)) == application.level:
                escalated = msgspec.structs.replace(application, lapsed=now)
                action, facts = "application.lapse", {"level": application.level}
            else:
                escalated = msgspec.structs.replace(
                    application, level=level, deadline=now + self._answer_us, escalated=application.escalated + 1
                )
                action, facts = "application.escalate", {"level": level, "escalated": escalated.escalated}
            await self._trail.record(
                DEADLINES, action, application.id, before={"level": application.level}, after=facts
            )
            try:
                await self.applications.put(application.id, escalated, expected=application.revision)
            except Conflict:
                continue  # decided meanwhile, or another process escalated it
            _log.warning(
                "application not decided in time",
                application=application.id,
                level=application.level,
                now=escalated.effective_state,
            )
            count += 1
        return count

    async def prune(self) -> int:
        """Delete grants and applications that ended before the retention period; return how many.

        An application is deleted after its grants: renewals and usage statements refer to it.
        """
        if not self._retention_us:
            return 0
        before, count = self._clock.now() - self._retention_us, 0
        expired = [record for record in self._grants.records if (record.revoked or record.expires) <= before]
        for grant in expired:
            count += await self._prune_record("grant.prune", self._grants.records, grant.id, grant)
        old = [application for application in self.applications if 0 < application.ended <= before]
        for application in old:
            if not any(self._grants.find(name) for name in application.grants):
                count += await self._prune_record("application.prune", self.applications, application.id, application)
        return count

    async def _prune_record(
        self, action: str, records: RecordTable[Any], name: str, record: Grant | Application
    ) -> bool:
        await self._trail.record(DEADLINES, action, name, before=_facts(record))
        try:
            await records.delete(name, expected=record.revision)
        except Conflict:
            return False  # changed meanwhile, or another process deleted it
        metrics.EXPIRED.labels(action.partition(".")[0]).inc()
        return True

    async def run(self) -> None:
        """Check deadlines and delete old records periodically, until cancelled."""
        due = 0.0
        while True:
            await self._clock.sleep(CHECK_INTERVAL_S)
            try:
                await self.escalate()
                if (now := self._clock.monotonic()) >= due:
                    due = now + PRUNE_INTERVAL_S
                    await self.prune()
            except (Unavailable, Overloaded, StoreFull) as why:
                _log.warning("deadlines not checked; retried later", reason=str(why))

    # ── grants ────────────────────────────────────────────────────────────────────────────────────────

    def grants(self, principal: Principal) -> list[Grant]:
        """Return the grants that the caller may see, in order of id."""
        at_centre = self._centre.grants if self._centre else ()
        return [record for record in (*self._grants.records, *at_centre) if _may_see_grant(principal, record)]

    def grant(self, principal: Principal, name: str) -> Grant:
        """Return a record that the caller may see. Raises `NotFound`."""
        grant = self._grants.find(name)
        if grant is None and self._centre:
            grant = self._centre.grants.find(name)
        if grant is None or not _may_see_grant(principal, grant):
            raise NotFound(f"there is no grant '{name[:40]}' that concerns you")
        return grant

    async def change(self, principal: Principal, name: str, after: Grant, revision: int) -> Grant:
        """Replace a grant as of a revision; open streams have the new terms within two seconds.

        The owner changes terms; the applicant may transfer the grant to another of its tokens (`subscriber`).

        Raises:
            NotFound, PermissionDenied, ConfigError, Conflict.
        """
        before = self.grant(principal, name)
        if self._grants.find(name) is None:
            raise Conflict(f"grant {name} is stored at the centre; change it there, or revoke it")
        if before.revision != revision:
            raise Conflict(f"grant {name} is at revision {before.revision}, not {revision}; read it again")
        changed = {key for key in Grant.__struct_fields__ if getattr(before, key) != getattr(after, key)} - {"revision"}
        if unchangeable := sorted(changed - _CHANGEABLE - {"subscriber"}):
            raise ConfigError(
                "cannot be changed", key=unchangeable[0], remedy=f"change {', '.join(sorted(_CHANGEABLE))}"
            )
        if "subscriber" in changed:
            scope = self._subscriber(after.subscriber, principal)
            if scope_text(scope) != before.applicant:
                raise PermissionDenied(f"grant {name} is for {before.applicant}, not for {scope_text(scope)}")
        if changed & _CHANGEABLE:
            demand(principal, Action.DECIDE_GRANTS, before.level, before.department)
        if before.revoked:
            raise Conflict(f"grant {name} was revoked")
        check_terms(after)
        after = self._checked_grant(after)
        if after.expires > self._clock.now() + round(self._days_max * DAY_US):
            raise ConfigError(
                "is too far ahead", key="expires", remedy=f"give at most {self._days_max:g} days from now"
            )
        feed = self._feeds.find(after.feed)
        if feed is not None and common_divisions(feed.divisions, after.divisions) is None:
            raise ConfigError(
                "the feed contains none of them", key="divisions", remedy="leave it out for all of the feed"
            )
        await self._refuse_core(principal, [], grade_max=after.grade_max)
        await self._trail.record(principal, "grant.change", name, before=_facts(before), after=_facts(after))
        return await self._grants.records.put(name, after, expected=revision)

    async def revoke(self, principal: Principal, name: str, reason: str = "", revision: int | None = None) -> Grant:
        """Revoke a grant; its deliveries end within two seconds. The owner and the subscriber's side may.

        Raises:
            NotFound, PermissionDenied, Conflict.
        """
        before = self.grant(principal, name)
        if revision is not None and revision != before.revision:
            raise Conflict(f"grant {name} is at revision {before.revision}, not {revision}; read it again")
        applicant = scope_of(before.applicant)
        if not (
            principal.id == before.subscriber
            or allows(principal, Action.DECIDE_GRANTS, before.level, before.department)
            or allows(principal, Action.CHANGE_TOKENS, applicant.division, applicant.department)
        ):
            raise PermissionDenied(f"grant {name} may be revoked by {before.level} or given back by {before.applicant}")
        if before.revoked:
            return before
        if self._centre and self._grants.find(name) is None:
            return await self._centre.revoke(principal, before, reason[:500])
        after = msgspec.structs.replace(before, revoked=self._clock.now(), reason=reason[:500])
        await self._trail.record(principal, "grant.revoke", name, after={"reason": after.reason})
        return await self._grants.records.put(name, after, expected=before.revision)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────

    async def _approve(self, principal: Principal, application: Application, decision: Decision) -> Application:
        requested, now = application.requested, self._clock.now()
        feeds = [self._existing_feed(name) for name in requested.feeds]
        await self._refuse_core(principal, feeds, grade_max=decision.grade_max)
        check_terms(decision)
        days = decision.days or requested.days
        if not 0 < days <= requested.days:
            raise ConfigError(
                f"{days:g} days are too long", key="days", remedy=f"give at most the {requested.days:g} applied for"
            )
        grants: list[Grant] = []
        for feed in feeds:
            if principal is not DEADLINES and not owns(principal, feed):
                raise PermissionDenied(
                    f"feed '{feed.name}' contains data outside your scope ({scope_text(principal.scope)})"
                )
            renewed = self._grants.find(requested.renews) if requested.renews else None
            if renewed is not None and renewed.revoked:
                raise Conflict(f"grant {renewed.id} was revoked meanwhile; refuse application {application.id}")
            present = renewed or self._unfinished_grant(application, feed)
            wanted = narrowed(requested.divisions, decision.divisions, "divisions")
            divisions = common_divisions(feed.divisions, wanted)
            if divisions is None:
                raise ConfigError(f"feed '{feed.name}' contains none of them", key="divisions", remedy="leave it out")
            starts = max(requested.starts, now, renewed.expires if renewed else 0)
            # The decision is repeated after a crash: an extension made before is not made twice.
            extended = renewed is not None and renewed.application == application.id
            grant = Grant(
                id=present.id if present else f"g{secrets.token_hex(8)}",
                feed=feed.name,
                # The applicant may have transferred the grant since it applied for the renewal.
                subscriber=renewed.subscriber if renewed else application.subscriber,
                starts=min(renewed.starts, starts) if renewed else starts,
                expires=renewed.expires if extended and renewed else starts + round(days * DAY_US),
                deliveries=narrowed(requested.deliveries, decision.deliveries, "deliveries"),
                forms=narrowed(requested.forms, decision.forms, "forms"),
                mask=decision.mask or (renewed.mask if renewed and decision.mask is None else masks.NO_MASK),
                rate=decision.rate or requested.rate,
                volume=decision.volume or requested.volume,
                divisions=divisions,
                departments=feed.departments,
                # Properties that the owner adds to the feed later are not part of the grant.
                properties=narrowed(requested.properties, decision.properties, "properties") or feed.properties,
                domains=feed.domains,
                kinds=feed.kinds,
                grade_max=decision.grade_max,
                application=application.id,
                purpose=requested.purpose,
                level=application.owner,
                department=application.department,
                applicant=application.applicant,
                created=present.created if present else now,
                created_by=principal.id,
                revision=present.revision if present else 0,
            )
            grants.append(self._checked_grant(grant))
        # Grants are written before the decision: a crash in between leaves a pending application, to be decided again;
        # the other order would leave an approval without grants, which `decide` refuses to repeat.
        before = [self._grants.find(grant.id) for grant in grants]
        for grant in grants:
            await self._trail.record(principal, "grant.create", grant.id, after=_facts(grant))
            await self._grants.records.put(grant.id, grant, expected=grant.revision)
        names = tuple(grant.id for grant in grants)
        try:
            return await self._close(principal, application, ApplicationState.APPROVED, decision, names)
        except Conflict:
            decided = self.applications.find(application.id)
            if decided is not None and decided.state in {ApplicationState.REFUSED, ApplicationState.WITHDRAWN}:
                await self._undo_grants(principal, names, before)
            raise

    async def _undo_grants(self, principal: Principal, names: Iterable[str], before: Iterable[Grant | None]) -> None:
        """Undo the grants of an approval that came after a refusal or withdrawal: revoke new ones, shorten renewed."""
        for name, former in zip(names, before, strict=True):
            grant = self._grants.find(name)
            if grant is None or grant.revoked:
                continue
            if former is None:
                await self._revoke_unfinished(principal, grant)
                continue
            await self._trail.record(principal, "grant.change", name, before=_facts(grant), after=_facts(former))
            await self._grants.records.put(name, former, expected=grant.revision)

    async def _end_unfinished(self, principal: Principal, application: Application) -> None:
        """Revoke the grants that an interrupted approval has left, before its application is refused or withdrawn.

        Raises:
            Conflict: it has extended a grant that was in force before, which nobody can tell from the record.
        """
        for grant in [record for record in self._grants.records if record.application == application.id]:
            if grant.revoked:
                continue
            if application.requested.renews:
                raise Conflict(
                    f"an interrupted approval of application {application.id} has extended grant {grant.id}; "
                    "approve it again, or revoke the grant first"
                )
            await self._revoke_unfinished(principal, grant)

    async def _revoke_unfinished(self, principal: Principal, grant: Grant) -> None:
        reason = "its application was refused or withdrawn"
        await self._trail.record(principal, "grant.revoke", grant.id, after={"reason": reason})
        after = msgspec.structs.replace(grant, revoked=self._clock.now(), reason=reason)
        await self._grants.records.put(grant.id, after, expected=grant.revision)

    def _unfinished_grant(self, application: Application, feed: Feed) -> Grant | None:
        """Return the grant that an interrupted approval of an application has already created; None: there is none."""
        return next(
            (
                record
                for record in self._grants.records
                if record.application == application.id and record.feed == feed.name
            ),
            None,
        )

    async def _close(
        self,
        principal: Principal,
        application: Application,
        state: ApplicationState,
        decision: Decision,
        grants: tuple[str, ...],
    ) -> Application:
        if state is not ApplicationState.APPROVED:
            await self._end_unfinished(principal, application)
        after = msgspec.structs.replace(
            application,
            state=state,
            decided=self._clock.now(),
            decided_by=principal.id,
            reason=decision.reason[:1_000],
            grants=grants,
        )
        facts: Facts = {"reason": after.reason, "grants": list(grants)}
        await self._trail.record(principal, f"application.{_VERBS[state]}", application.id, after=facts)
        return await self.applications.put(application.id, after, expected=application.revision)

    def _checked_grant(self, grant: Grant) -> Grant:
        """Return a grant with a checked mask; its pseudonyms have a key of their own unless the mask names one."""
        masks.check_mask(grant.mask)
        key = (grant.mask.key or grant.id) if grant.mask.hash else ""
        return msgspec.structs.replace(grant, mask=msgspec.structs.replace(grant.mask, key=key))

    async def _refuse_core(self, principal: Principal, feeds: list[Feed], *, grade_max: int = CORE_GRADE - 1) -> None:
        graded = {feed.name: entry.grade for feed in feeds if (entry := self._catalogue.find(feed.name))}
        core = sorted(name for name, grade in graded.items() if grade >= CORE_GRADE)
        if not core and grade_max < CORE_GRADE:
            return
        target = core[0] if core else "grade_max"
        await self._trail.record(principal, "grant.refuse_core", target, after={"feeds": core, "grade_max": grade_max})
        raise PermissionDenied(f"data of grade {CORE_GRADE} (core) is never shared; the attempt was recorded")

    def _requestable_feed(self, principal: Principal, name: str) -> Feed:
        feed, entry = self._feeds.find(name), self._catalogue.find(name)
        published = entry is not None and bool(entry.published)
        if feed is None or not published or (entry and entry.sharing is SharingClass.NOT_SHARED):
            # Only the owner is told whether a feed is a draft or is not shared.
            if feed is not None and owns(principal, feed):
                raise ConfigError(
                    f"feed '{name[:64]}' is not published", key="feeds", remedy="complete its catalogue entry first"
                )
            if self._centre and self._centre.entries.find(name):
                raise Conflict(f"feed '{name}' is shared at the centre; apply there")
            raise NotFound(f"there is no feed '{name[:64]}' in the catalogue")
        return feed

    def _existing_feed(self, name: str) -> Feed:
        feed = self._feeds.find(name)
        if feed is None:
            raise Conflict(f"feed '{name[:64]}' no longer exists; refuse the application")
        return feed

    def _unconditional(self, feed: Feed) -> bool:
        entry = self._catalogue.find(feed.name)
        return entry is not None and entry.sharing is SharingClass.UNCONDITIONAL

    def _level(self, feeds: list[Feed]) -> str:
        levels = [(entry.level if (entry := self._catalogue.find(feed.name)) else "") for feed in feeds]
        known = [level or common_level(feed.divisions) for level, feed in zip(levels, feeds, strict=True)]
        return common_level(known, digits_max=12)

    def _demand_renewable(self, principal: Principal, requested: RequestedAccess, subscriber: str) -> None:
        grant = self.grant(principal, requested.renews)
        if grant.revoked:
            raise Conflict(f"grant {grant.id} was revoked; apply anew")
        if grant.expires > self._clock.now() + round(self._days_max * DAY_US):
            raise Conflict(f"grant {grant.id} lasts longer than {self._days_max:g} days from now; renew it later")
        if (grant.feed,) != requested.feeds or grant.subscriber != subscriber:
            raise ConfigError(
                f"grant {grant.id} is for '{grant.feed}'",
                key="renews",
                remedy="renew it for the same feed and subscriber",
            )

    @staticmethod
    def _may_see(principal: Principal, record: Application) -> bool:
        parties = (record.by, record.subscriber)
        return may_see(
            principal, parties=parties, applicant=record.applicant, level=record.level, department=record.department
        ) or may_see(
            principal, parties=(), applicant=record.applicant, level=record.owner, department=record.department
        )


_VERBS = {
    ApplicationState.APPROVED: "approve",
    ApplicationState.REFUSED: "refuse",
    ApplicationState.WITHDRAWN: "withdraw",
}
_CHANGEABLE = frozenset(
    {"expires", "deliveries", "forms", "mask", "rate", "volume", "divisions", "properties", "grade_max", "starts"}
)


def _may_see_grant(principal: Principal, record: Grant) -> bool:
    return may_see(
        principal,
        parties=(record.subscriber,),
        applicant=record.applicant,
        level=record.level,
        department=record.department,
    )


def _facts(record: msgspec.Struct) -> Facts:
    facts: Facts = msgspec.to_builtins(msgspec.structs.replace(record, revision=0))
    return facts
