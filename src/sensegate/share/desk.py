"""The desk: applications become decisions, decisions become grants; each step is asked for, recorded, then made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand, written
from sensegate.authority.scope import scope as scope_of
from sensegate.authority.shelf import Records, Shelf
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.share import masks
from sensegate.share.applications import (
    Application,
    Asked,
    Decision,
    State,
    above,
    check,
    concerns,
    demand_decider,
    department_of,
    level_of,
    narrower,
    terms,
)
from sensegate.share.bundles import Bundles
from sensegate.share.catalogue import Catalogue, Entry, Sharing
from sensegate.share.feeds import Feed, Feeds, common
from sensegate.share.grants import CORE, Grant, Grants, owns

LOOK_S = 60.0
"""So often deadlines are looked at."""
PRUNE_S = 3_600.0
"""So often what ended long ago is looked for."""
PENDING_MAX = 200
"""Applications of one subscriber that wait for their decision: more are a fault of a program."""
CLOCK = Principal("clock", Role.ADMIN, Scope("44"), name="deadlines")
"""Who acts when a deadline has passed."""

_log = structlog.get_logger(__name__)


class Elsewhere(Protocol):
    """What is kept at the centre of a node's data (`joint_up.Distant`)."""

    applications: Records[Application]
    grants: Records[Grant]
    entries: Records[Entry]

    async def decide(self, principal: Principal, application: Application, decision: Decision) -> Application:
        """Have the centre decide."""
        ...

    async def revoke(self, principal: Principal, grant: Grant, reason: str) -> Grant:
        """Have the centre take a grant back."""
        ...


class Desk:
    """Applications and grants of this gateway."""

    def __init__(  # noqa: PLR0917 - the wiring hands in each once
        self,
        shelf: Shelf,
        feeds: Feeds,
        catalogue: Catalogue,
        grants: Grants,
        trail: Trail,
        clock: Clock,
        *,
        subscriber: Callable[[str, Principal], Scope],
        answer_days: float = 10.0,
        days_max: float = 1_096.0,
        kept_days: float = 0.0,
    ) -> None:
        """`subscriber` returns the scope of a token by its id, or raises `NotFound` where the caller may not use it."""
        self._feeds = feeds
        self._catalogue = catalogue
        self._grants = grants
        self._trail = trail
        self._clock = clock
        self._subscriber = subscriber
        self._answer_us = round(answer_days * DAY_US)
        self._days_max = days_max
        self._kept_us = round(kept_days * DAY_US)
        self.distant: Elsewhere | None = None
        """At a node: applications and grants for its data that the centre keeps."""
        self.bundles = Bundles(shelf, feeds, trail, clock)
        self.applications: Records[Application] = Records(shelf, "application", Application)

    # ── applications ──────────────────────────────────────────────────────────────────────────────────

    def seen(self, principal: Principal) -> list[Application]:
        """Return the applications that concern the caller, oldest first."""
        found = [one for one in (*self.applications, *self._distant_applications()) if self._sees(principal, one)]
        return sorted(found, key=lambda one: (one.created, one.id))

    def get(self, principal: Principal, name: str) -> Application:
        """Return one. Raises `NotFound`."""
        found = self.applications.find(name)
        if found is None and self.distant:
            found = self.distant.applications.find(name)
        if found is None or not self._sees(principal, found):
            raise NotFound(f"no application '{name[:40]}' that concerns you")
        return found

    async def apply(self, principal: Principal, form: object) -> Application:
        """Take an application; what is shared unconditionally is granted at once.

        Raises:
            ConfigError: what is asked for cannot be.
            NotFound: a feed is not in the catalogue, or the token is not one of the caller's.
            PermissionDenied: the data is core; that is recorded.
            Conflict: the subscriber has a grant for it, which could be renewed.
            Overloaded: too many of the subscriber's wait.
        """
        asked = self._unpacked(_converted(form, Asked))
        check(asked, days_max=self._days_max)
        subscriber = asked.subscriber or principal.id
        scope = principal.scope if subscriber == principal.id else self._subscriber(subscriber, principal)
        demand(principal, Action.APPLY_GRANTS, scope.division, scope.department)
        if asked.renews:
            self._demand_renewable(principal, asked, subscriber)
        feeds = [self._applicable(principal, name) for name in asked.feeds]
        await self._refuse_core(principal, feeds)
        for feed in feeds:
            if common(feed.divisions, asked.divisions) is None:
                raise ConfigError(f"feed '{feed.name}' holds nothing of them", key="divisions", remedy="leave it out")
            if not asked.renews and (present := self._grants.active(subscriber, feed.name)):
                raise Conflict(f"{subscriber} has grant {present.id} for '{feed.name}'; renew it")
        now = self._clock.now()
        waiting = sum(one.subscriber == subscriber and one.standing is State.PENDING for one in self.applications)
        if waiting >= PENDING_MAX:
            raise Overloaded(f"{waiting} applications of {subscriber} wait for a decision; withdraw some first")
        level = self._level(feeds)
        made = Application(
            id=f"a{secrets.token_hex(8)}",
            asked=asked,
            subscriber=subscriber,
            applicant=written(scope),
            by=principal.id,
            created=now,
            level=level,
            department=department_of(feeds),
            deadline=now + self._answer_us,
            owner=level,
        )
        await self._trail.record(principal, "application.create", made.id, after=_facts(made))
        made = await self.applications.put(made.id, made, expected=0)
        if all(self._unconditional(feed) for feed in feeds):
            return await self._approved(CLOCK, made, Decision(True, reason="shared unconditionally"))
        if asked.bundle and (blanket := self.bundles.blanket(asked.bundle, scope)):
            given = blanket.terms
            days = min(given.days or asked.days, asked.days)
            reason = blanket.reason or f"blanket of bundle {asked.bundle}"
            try:
                return await self._approved(CLOCK, made, msgspec.structs.replace(given, days=days, reason=reason))
            except ConfigError as why:
                # More, or other ways, than the blanket has: the owner is asked.
                _log.info("a blanket does not fit an application", application=made.id, cause=str(why))
        return made

    def _unpacked(self, asked: Asked) -> Asked:
        """Return an application with the feeds of its bundle."""
        if not asked.bundle:
            return asked
        if asked.feeds:
            raise ConfigError("feeds beside a bundle", key="feeds", remedy="leave them out, or the bundle")
        return msgspec.structs.replace(asked, feeds=self.bundles.get(asked.bundle).feeds)

    async def renew(
        self, principal: Principal, name: str, *, days: float, purpose: str = "", legal_basis: str = ""
    ) -> Application:
        """Apply for more time for a grant, with the same terms. Raises as `apply`."""
        grant = self.grant(principal, name)
        before = self.applications.find(grant.application)
        law = legal_basis or (before.asked.legal_basis if before else "")
        asked = Asked(
            (grant.feed,),
            purpose or grant.purpose,
            law,
            days,
            subscriber=grant.subscriber,
            properties=grant.properties,
            divisions=grant.divisions,
            deliveries=grant.deliveries,
            forms=grant.forms,
            rate=grant.rate,
            volume=grant.volume,
            contact=before.asked.contact if before else "",
            renews=grant.id,
        )
        return await self.apply(principal, asked)

    async def decide(self, principal: Principal, name: str, form: object, revision: int | None) -> Application:
        """Approve or refuse an application; approval makes its grants.

        Raises:
            NotFound, ConfigError, PermissionDenied.
            Conflict: it is decided already, or was changed meanwhile.
        """
        decision = _converted(form, Decision)
        application = self.get(principal, name)
        if revision is not None and revision != application.revision:
            raise Conflict(f"application {name} is at revision {application.revision}, not {revision}; read it again")
        if self.distant and self.applications.find(name) is None:
            terms(decision)
            masks.check(decision.mask or masks.NONE)
            return await self.distant.decide(principal, application, decision)
        demand_decider(principal, application)
        if application.state is not State.PENDING:
            raise Conflict(f"application {application.id} is {application.state}")
        if not decision.approve:
            if not decision.reason.strip():
                raise ConfigError("no reason", key="reason", remedy="say why it is refused")
            return await self._decided(principal, application, State.REFUSED, decision, ())
        if application.lapsed:
            self._demand_wanted(application)
        return await self._approved(principal, application, decision)

    def _demand_wanted(self, application: Application) -> None:
        """Return if a late answer still has a question: the applicant may have applied anew. Raises `Conflict`."""
        for name in application.asked.feeds:
            present = self._grants.active(application.subscriber, name)
            if present and not application.asked.renews and present.application != application.id:
                raise Conflict(
                    f"{application.subscriber} has grant {present.id} for '{name}' by now; refuse application "
                    f"{application.id}, which had lapsed"
                )

    async def withdraw(self, principal: Principal, name: str) -> Application:
        """Take back an application that is not yet decided; only who sent it, or his operators.

        Raises:
            NotFound, PermissionDenied, Conflict.
        """
        application = self._here(principal, name)
        theirs = scope_of(application.applicant)
        party = principal.id in {application.by, application.subscriber}
        if not (party or allows(principal, Action.CHANGE_TOKENS, theirs.division, theirs.department)):
            raise PermissionDenied(f"application {application.id} is taken back by its applicant; you may refuse it")
        if application.state is not State.PENDING:
            raise Conflict(f"application {application.id} is {application.state}")
        return await self._decided(principal, application, State.WITHDRAWN, Decision(False), ())

    def _here(self, principal: Principal, name: str) -> Application:
        """Return an application that is kept here. Raises `NotFound`; `Conflict`: it is kept at the centre."""
        found = self.get(principal, name)
        if self.applications.find(name) is None:
            raise Conflict(f"application {name} is kept by the centre; take it back there")
        return found

    def _distant_applications(self) -> Iterable[Application]:
        return self.distant.applications if self.distant else ()

    async def escalate(self) -> int:
        """Hand every application whose deadline has passed to the level above; return how many.

        Above the province there is none: there it lapses.
        """
        now, count = self._clock.now(), 0
        told: Facts
        for one in [one for one in self.applications if one.standing is State.PENDING and one.deadline <= now]:
            if (level := above(one.level)) == one.level:
                risen = msgspec.structs.replace(one, lapsed=now)
                action, told = "application.lapse", {"level": one.level}
            else:
                risen = msgspec.structs.replace(
                    one, level=level, deadline=now + self._answer_us, escalated=one.escalated + 1
                )
                action, told = "application.escalate", {"level": level, "escalated": risen.escalated}
            await self._trail.record(CLOCK, action, one.id, before={"level": one.level}, after=told)
            try:
                await self.applications.put(one.id, risen, expected=one.revision)
            except Conflict:
                continue  # decided meanwhile, or another process was faster
            _log.warning("application not answered in time", application=one.id, level=one.level, now=risen.standing)
            count += 1
        return count

    async def prune(self) -> int:
        """Remove grants that ended, and applications that were decided, longer ago than they are kept; return how many.

        An application goes after its grants: renewals and receipts look at it.
        """
        if not self._kept_us:
            return 0
        before, count = self._clock.now() - self._kept_us, 0
        gone = [one for one in self._grants.records if (one.revoked or one.expires) <= before]
        for grant in gone:
            count += await self._pruned("grant.prune", self._grants.records, grant.id, grant)
        old = [one for one in self.applications if 0 < one.ended <= before]
        for one in old:
            if not any(self._grants.find(name) for name in one.grants):
                count += await self._pruned("application.prune", self.applications, one.id, one)
        return count

    async def _pruned(self, action: str, records: Records[Any], name: str, record: Grant | Application) -> bool:
        await self._trail.record(CLOCK, action, name, before=_facts(record))
        try:
            await records.delete(name, expected=record.revision)
        except Conflict:
            return False  # changed meanwhile, or another process was faster
        metrics.PRUNED.labels(action.partition(".")[0]).inc()
        return True

    async def run(self) -> None:
        """Look at deadlines, and at what ended long ago, until cancelled."""
        due = 0.0
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.escalate()
                if (now := self._clock.monotonic()) >= due:
                    due = now + PRUNE_S
                    await self.prune()
            except (Unavailable, Overloaded, StoreFull) as why:
                _log.warning("deadlines are looked at later", cause=str(why))

    # ── grants ────────────────────────────────────────────────────────────────────────────────────────

    def grants(self, principal: Principal) -> list[Grant]:
        """Return the grants that concern the caller, in order of id."""
        distant = self.distant.grants if self.distant else ()
        return [one for one in (*self._grants.records, *distant) if _concerned(principal, one)]

    def grant(self, principal: Principal, name: str) -> Grant:
        """Return one. Raises `NotFound`."""
        found = self._grants.find(name)
        if found is None and self.distant:
            found = self.distant.grants.find(name)
        if found is None or not _concerned(principal, found):
            raise NotFound(f"no grant '{name[:40]}' that concerns you")
        return found

    async def change(self, principal: Principal, name: str, form: object, revision: int) -> Grant:
        """Change the terms of a grant (a record with keys of `Grant`), in force within two seconds on open streams.

        The owner changes terms; the applicant may hand the grant over to another of its tokens (`subscriber`).

        Raises:
            NotFound, PermissionDenied, ConfigError, Conflict.
        """
        before = self.grant(principal, name)
        if self._grants.find(name) is None:
            raise Conflict(f"grant {name} is served by the centre; change it there, or revoke it")
        after = _converted(form, Grant)
        if before.revision != revision:
            raise Conflict(f"grant {name} is at revision {before.revision}, not {revision}; read it again")
        changed = {key for key in Grant.__struct_fields__ if getattr(before, key) != getattr(after, key)} - {"revision"}
        if unchangeable := sorted(changed - _TERMS - {"subscriber"}):
            raise ConfigError("does not change", key=unchangeable[0], remedy=f"of {', '.join(sorted(_TERMS))}")
        if "subscriber" in changed:
            theirs = self._subscriber(after.subscriber, principal)
            if written(theirs) != before.applicant:
                raise PermissionDenied(f"grant {name} is for {before.applicant}, not for {written(theirs)}")
        if changed & _TERMS:
            demand(principal, Action.DECIDE_GRANTS, before.level, before.department)
        if before.revoked:
            raise Conflict(f"grant {name} was revoked")
        after = self._sound(after)
        if after.expires > self._clock.now() + round(self._days_max * DAY_US):
            raise ConfigError("too far ahead", key="expires", remedy=f"at most {self._days_max:g} days from now")
        feed = self._feeds.find(after.feed)
        if feed is not None and common(feed.divisions, after.divisions) is None:
            raise ConfigError("not in the feed", key="divisions", remedy="leave it out for all of the feed")
        await self._refuse_core(principal, [], grade_max=after.grade_max)
        await self._trail.record(principal, "grant.change", name, before=_facts(before), after=_facts(after))
        return await self._grants.records.put(name, after, expected=revision)

    async def revoke(self, principal: Principal, name: str, reason: str = "", revision: int | None = None) -> Grant:
        """Take a grant back: its deliveries end within two seconds. The owner may, or the subscriber's side.

        Raises:
            NotFound, PermissionDenied, Conflict.
        """
        before = self.grant(principal, name)
        if revision is not None and revision != before.revision:
            raise Conflict(f"grant {name} is at revision {before.revision}, not {revision}; read it again")
        theirs = scope_of(before.applicant)
        if not (
            principal.id == before.subscriber
            or allows(principal, Action.DECIDE_GRANTS, before.level, before.department)
            or allows(principal, Action.CHANGE_TOKENS, theirs.division, theirs.department)
        ):
            raise PermissionDenied(f"grant {name} is taken back by {before.level} or given back by {before.applicant}")
        if before.revoked:
            return before
        if self.distant and self._grants.find(name) is None:
            return await self.distant.revoke(principal, before, reason[:500])
        after = msgspec.structs.replace(before, revoked=self._clock.now(), reason=reason[:500])
        await self._trail.record(principal, "grant.revoke", name, after={"reason": after.reason})
        return await self._grants.records.put(name, after, expected=before.revision)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────

    async def _approved(self, principal: Principal, application: Application, decision: Decision) -> Application:
        asked, now = application.asked, self._clock.now()
        feeds = [self._present(name) for name in asked.feeds]
        await self._refuse_core(principal, feeds, grade_max=decision.grade_max)
        terms(decision)
        days = decision.days or asked.days
        if not 0 < days <= asked.days:
            raise ConfigError(f"{days:g} days", key="days", remedy=f"at most the {asked.days:g} applied for")
        made: list[Grant] = []
        for feed in feeds:
            if principal is not CLOCK and not owns(principal, feed):
                raise PermissionDenied(f"feed '{feed.name}' holds data outside your scope ({written(principal.scope)})")
            renewed = self._grants.find(asked.renews) if asked.renews else None
            present = renewed or self._begun(application, feed)
            wanted = narrower(asked.divisions, decision.divisions, "divisions")
            divisions = common(feed.divisions, wanted)
            if divisions is None:
                raise ConfigError(f"feed '{feed.name}' holds nothing of them", key="divisions", remedy="leave it out")
            starts = max(asked.starts, now, renewed.expires if renewed else 0)
            # Decided once more after a crash: what was added already is not added again.
            again = renewed is not None and renewed.application == application.id
            grant = Grant(
                id=present.id if present else f"g{secrets.token_hex(8)}",
                feed=feed.name,
                subscriber=application.subscriber,
                starts=min(renewed.starts, starts) if renewed else starts,
                expires=renewed.expires if again and renewed else starts + round(days * DAY_US),
                deliveries=narrower(asked.deliveries, decision.deliveries, "deliveries"),
                forms=narrower(asked.forms, decision.forms, "forms"),
                mask=decision.mask or (renewed.mask if renewed and decision.mask is None else masks.NONE),
                rate=decision.rate or asked.rate,
                volume=decision.volume or asked.volume,
                divisions=divisions,
                departments=feed.departments,
                # What the owner adds to the feed later is not in the grant.
                properties=narrower(asked.properties, decision.properties, "properties") or feed.properties,
                domains=feed.domains,
                kinds=feed.kinds,
                grade_max=decision.grade_max,
                application=application.id,
                purpose=asked.purpose,
                level=application.owner,
                department=application.department,
                applicant=application.applicant,
                created=present.created if present else now,
                created_by=principal.id,
                revision=present.revision if present else 0,
            )
            made.append(self._sound(grant))
        # First the decision, then what follows of it: a crash in between leaves an approval without its grant, which
        # `decide` refuses to repeat; so the grants go first, and an application that stayed pending is decided again.
        for grant in made:
            await self._trail.record(principal, "grant.create", grant.id, after=_facts(grant))
            await self._grants.records.put(grant.id, grant, expected=grant.revision)
        names = tuple(grant.id for grant in made)
        return await self._decided(principal, application, State.APPROVED, decision, names)

    def _begun(self, application: Application, feed: Feed) -> Grant | None:
        """Return the grant that was made of an application before a crash, or loss, kept its decision away."""
        return next(
            (one for one in self._grants.records if one.application == application.id and one.feed == feed.name), None
        )

    async def _decided(
        self, principal: Principal, application: Application, state: State, decision: Decision, grants: tuple[str, ...]
    ) -> Application:
        after = msgspec.structs.replace(
            application,
            state=state,
            decided=self._clock.now(),
            decided_by=principal.id,
            reason=decision.reason[:1_000],
            grants=grants,
        )
        told: Facts = {"reason": after.reason, "grants": list(grants)}
        await self._trail.record(principal, f"application.{_VERBS[state]}", application.id, after=told)
        return await self.applications.put(application.id, after, expected=application.revision)

    def _sound(self, grant: Grant) -> Grant:
        """Return a grant whose mask can be applied; pseudonyms are its own unless a key is named."""
        masks.check(grant.mask)
        key = (grant.mask.key or grant.id) if grant.mask.hash else ""
        return msgspec.structs.replace(grant, mask=msgspec.structs.replace(grant.mask, key=key))

    async def _refuse_core(self, principal: Principal, feeds: list[Feed], *, grade_max: int = CORE - 1) -> None:
        graded = {feed.name: entry.grade for feed in feeds if (entry := self._catalogue.find(feed.name))}
        core = sorted(name for name, grade in graded.items() if grade >= CORE)
        if not core and grade_max < CORE:
            return
        target = core[0] if core else "grade_max"
        await self._trail.record(principal, "grant.refuse_core", target, after={"feeds": core, "grade_max": grade_max})
        raise PermissionDenied(f"grade {CORE} (core) is not shared, whoever asks and whoever agrees; this was recorded")

    def _applicable(self, principal: Principal, name: str) -> Feed:
        feed, entry = self._feeds.find(name), self._catalogue.find(name)
        published = entry is not None and bool(entry.published)
        if feed is None or not published or (entry and entry.sharing is Sharing.NOT_SHARED):
            # A draft and what is not shared are told apart only for their owner.
            if feed is not None and owns(principal, feed):
                raise ConfigError(f"feed '{name[:64]}' is not offered", key="feeds", remedy="complete its entry first")
            if self.distant and self.distant.entries.find(name):
                raise Conflict(f"'{name}' is shared at the centre; apply there, where it is read")
            raise NotFound(f"no feed '{name[:64]}' in the catalogue")
        return feed

    def _present(self, name: str) -> Feed:
        feed = self._feeds.find(name)
        if feed is None:
            raise Conflict(f"feed '{name[:64]}' is not there any more; refuse the application")
        return feed

    def _unconditional(self, feed: Feed) -> bool:
        entry = self._catalogue.find(feed.name)
        return entry is not None and entry.sharing is Sharing.UNCONDITIONAL

    def _level(self, feeds: list[Feed]) -> str:
        levels = [(entry.level if (entry := self._catalogue.find(feed.name)) else "") for feed in feeds]
        known = [level or level_of(feed.divisions) for level, feed in zip(levels, feeds, strict=True)]
        return level_of(known, most=12)

    def _demand_renewable(self, principal: Principal, asked: Asked, subscriber: str) -> None:
        grant = self.grant(principal, asked.renews)
        if grant.revoked:
            raise Conflict(f"grant {grant.id} was revoked; apply anew")
        if (grant.feed,) != asked.feeds or grant.subscriber != subscriber:
            raise ConfigError(f"grant {grant.id} is for '{grant.feed}'", key="renews", remedy="renew it as it is")

    @staticmethod
    def _sees(principal: Principal, one: Application) -> bool:
        parties = (one.by, one.subscriber)
        return concerns(
            principal, parties=parties, applicant=one.applicant, level=one.level, department=one.department
        ) or concerns(principal, parties=(), applicant=one.applicant, level=one.owner, department=one.department)


_VERBS = {State.APPROVED: "approve", State.REFUSED: "refuse", State.WITHDRAWN: "withdraw"}
_TERMS = frozenset(
    {"expires", "deliveries", "forms", "mask", "rate", "volume", "divisions", "properties", "grade_max", "starts"}
)


def _concerned(principal: Principal, one: Grant) -> bool:
    return concerns(
        principal, parties=(one.subscriber,), applicant=one.applicant, level=one.level, department=one.department
    )


def _converted(form: object, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(form, kind, from_attributes=True)
    except msgspec.ValidationError as why:
        raise ConfigError(str(why), key=kind.__name__.lower(), remedy="see the fields in /docs") from why


def _facts(record: msgspec.Struct) -> Facts:
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(record, revision=0))
    return kept
