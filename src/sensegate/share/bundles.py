"""Bundles: feeds that are applied for and granted together, some of them approved in advance (整體授權).

A pre-approval grants a bundle at once, on its terms, to every applicant of certain divisions until a date. Each
application is still recorded and metered as any other; only the decision is not waited for.
"""

from __future__ import annotations

import re

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Principal, Scope, scope, scope_text
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.share import masks
from sensegate.share.applications import FEEDS_MAX, Decision, check_terms
from sensegate.share.feeds import Feed, Feeds, common_divisions, common_words, outermost
from sensegate.share.grants import CORE_GRADE, owns

PRE_APPROVALS_MAX = 50
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class PreApproval(msgspec.Struct, frozen=True, omit_defaults=True):
    """Approval in advance of applications for a bundle."""

    applicants: tuple[str, ...]
    """Scopes, ``DIVISION`` or ``DIVISION/DEPARTMENT``, whose applicants are approved."""
    until: int
    """Applications before this time are approved, µs UTC."""
    terms: Decision
    """Terms of the grants; `days` is the longest duration."""
    reason: str = ""

    def covers(self, applicant: Scope, now: int) -> bool:
        """Return whether an applicant is approved at this time."""
        return now < self.until and any(
            scope(approved).covers(applicant.division, applicant.department) for approved in self.applicants
        )


class ApprovedFeed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Contents of a feed when its pre-approvals were written; an empty tuple is all."""

    name: str
    divisions: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @classmethod
    def of(cls, feed: Feed) -> ApprovedFeed:
        """Return the contents of a feed as it is now."""
        return cls(feed.name, feed.divisions, feed.departments, feed.domains, feed.properties, feed.kinds)

    def contains(self, feed: Feed) -> bool:
        """Return whether a feed selects nothing beyond these contents."""
        return common_divisions(self.divisions, feed.divisions) == outermost(feed.divisions) and all(
            common_words(getattr(self, name), getattr(feed, name)) == tuple(sorted(set(getattr(feed, name))))
            for name in ("departments", "domains", "properties", "kinds")
        )


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """Feeds that are applied for and granted together."""

    name: str
    feeds: tuple[str, ...]
    title: str = ""
    title_en: str = ""
    pre_approvals: tuple[PreApproval, ...] = ()
    approved_feeds: tuple[ApprovedFeed, ...] = ()
    """Contents of the feeds for which the pre-approvals were given; empty: an earlier release has written them."""
    by: str = ""
    changed: int = 0
    revision: int = 0
    format: int = 1


class Bundles:
    """All bundles of this gateway."""

    def __init__(self, store: RecordStore, feeds: Feeds, trail: Trail, clock: Clock) -> None:
        self._feeds = feeds
        self._trail = trail
        self._clock = clock
        self.records: RecordTable[Bundle] = RecordTable(store, "bundle", Bundle)

    def all(self) -> list[Bundle]:
        """Return all bundles, by name."""
        return list(self.records)

    def get(self, name: str) -> Bundle:
        """Return a bundle. Raises `NotFound`."""
        bundle = self.records.find(name)
        if bundle is None:
            raise NotFound(f"there is no bundle '{name[:64]}'")
        return bundle

    async def write(self, principal: Principal, bundle: Bundle, revision: int) -> Bundle:
        """Create a bundle (revision 0) or replace it as of a revision; the caller must own all of its feeds.

        Raises:
            ConfigError, NotFound, PermissionDenied, Conflict.
        """
        self._check(bundle)
        feeds = [self._feed(name) for name in bundle.feeds]
        before = self.records.find(bundle.name)
        present = [feed for name in (before.feeds if before else ()) if (feed := self._feeds.find(name))]
        if not all(owns(principal, feed) for feed in present):
            # Without the names of its feeds, which may lie outside the caller's scope.
            raise Conflict(f"bundle '{bundle.name}' exists already; choose another name")
        for feed in feeds:
            if not owns(principal, feed):
                raise PermissionDenied(
                    f"feed '{feed.name}' holds data outside your scope ({scope_text(principal.scope)})"
                )
        if revision != (before.revision if before else 0):
            raise Conflict(f"bundle '{bundle.name}' exists already or was changed meanwhile; read it again")
        approved = tuple(map(ApprovedFeed.of, feeds)) if bundle.pre_approvals else ()
        after = msgspec.structs.replace(bundle, approved_feeds=approved, by=principal.id, changed=self._clock.now())
        action = "bundle.change" if before else "bundle.create"
        await self._trail.record(
            principal, action, after.name, before=_facts(before) if before else None, after=_facts(after)
        )
        return await self.records.put(after.name, after, expected=revision)

    async def delete(self, principal: Principal, name: str) -> None:
        """Delete a bundle; its grants stay in force. Raises as `write`."""
        before = self.get(name)
        for feed in (feed for feed_name in before.feeds if (feed := self._feeds.find(feed_name))):
            if not owns(principal, feed):
                raise PermissionDenied(
                    f"feed '{feed.name}' holds data outside your scope ({scope_text(principal.scope)})"
                )
        await self._trail.record(principal, "bundle.delete", name, before=_facts(before))
        await self.records.delete(name, expected=before.revision)

    def pre_approval(self, name: str, applicant: Scope) -> PreApproval | None:
        """Return the pre-approval of a bundle that covers an applicant; None: there is none.

        It covers what the feeds contained when it was written: not what was added since, nor a feed of another owner
        that was created under the name of a deleted one.
        """
        bundle, now = self.records.find(name), self._clock.now()
        if bundle is None or not all(map(self._is_unchanged, bundle.approved_feeds)):
            return None
        return next(
            (pre_approval for pre_approval in bundle.pre_approvals if pre_approval.covers(applicant, now)), None
        )

    def _is_unchanged(self, approved: ApprovedFeed) -> bool:
        feed = self._feeds.find(approved.name)
        return feed is not None and approved.contains(feed)

    def _feed(self, name: str) -> Feed:
        feed = self._feeds.find(name)
        if feed is None:
            raise NotFound(f"there is no feed '{name[:64]}'")
        return feed

    @staticmethod
    def _check(bundle: Bundle) -> None:
        if not _NAME.fullmatch(bundle.name):
            raise ConfigError(
                f"'{bundle.name[:64]}' is not a name", key="name", remedy="use 1 to 64 characters of a-z, 0-9, _ and -"
            )
        if not 1 <= len(set(bundle.feeds)) == len(bundle.feeds) <= FEEDS_MAX:
            raise ConfigError(
                f"{len(bundle.feeds)} feeds are named", key="feeds", remedy=f"name 1 to {FEEDS_MAX}, each once"
            )
        if len(bundle.pre_approvals) > PRE_APPROVALS_MAX:
            raise ConfigError(
                f"there are {len(bundle.pre_approvals)}",
                key="pre_approvals",
                remedy=f"give at most {PRE_APPROVALS_MAX}",
            )
        for pre_approval in bundle.pre_approvals:
            if not pre_approval.applicants:
                raise ConfigError(
                    "no applicant is named",
                    key="pre_approvals.applicants",
                    remedy="name divisions, for example 44 for all",
                )
            for text in pre_approval.applicants:
                scope(text)
            if not pre_approval.terms.approve or pre_approval.terms.grade_max >= CORE_GRADE:
                raise ConfigError(
                    "it must approve, up to grade 3",
                    key="pre_approvals.terms",
                    remedy="give approve: true and grade_max 1 to 3",
                )
            check_terms(pre_approval.terms)
            masks.check_mask(pre_approval.terms.mask or masks.NO_MASK)


def _facts(bundle: Bundle) -> Facts:
    facts: Facts = msgspec.to_builtins(msgspec.structs.replace(bundle, revision=0))
    return facts
