"""Bundles: feeds that are applied for and granted as one; and what of them is granted in advance (整體授權).

A blanket says: whoever of these divisions applies for the bundle until then gets it at once, on these terms. Each
application is still taken, recorded and metered as any other; only nobody has to be asked.
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
from sensegate.share.applications import FEEDS_MAX, Decision, terms
from sensegate.share.feeds import Feed, Feeds
from sensegate.share.grants import CORE, owns

BLANKETS_MAX = 50
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Blanket(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is granted in advance."""

    applicants: tuple[str, ...]
    """``DIVISION`` or ``DIVISION/DEPARTMENT``: who lies in one of them."""
    until: int
    """Applications before this time, µs UTC."""
    terms: Decision
    """As of a decision; `days` is the longest grant."""
    reason: str = ""

    def covers(self, applicant: Scope, now: int) -> bool:
        """Return whether an applicant is granted now."""
        return now < self.until and any(
            scope(one).covers(applicant.division, applicant.department) for one in self.applicants
        )


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """Feeds as one."""

    name: str
    feeds: tuple[str, ...]
    title: str = ""
    title_en: str = ""
    blankets: tuple[Blanket, ...] = ()
    by: str = ""
    changed: int = 0
    revision: int = 0
    format: int = 1


class Bundles:
    """All bundles of this gateway."""

    def __init__(self, shelf: RecordStore, feeds: Feeds, trail: Trail, clock: Clock) -> None:
        self._feeds = feeds
        self._trail = trail
        self._clock = clock
        self.records: RecordTable[Bundle] = RecordTable(shelf, "bundle", Bundle)

    def all(self) -> list[Bundle]:
        """Return all bundles, by name: as their feeds stand in the catalogue, so do they."""
        return list(self.records)

    def get(self, name: str) -> Bundle:
        """Return one. Raises `NotFound`."""
        found = self.records.find(name)
        if found is None:
            raise NotFound(f"no bundle '{name[:64]}'")
        return found

    async def write(self, principal: Principal, form: object, revision: int) -> Bundle:
        """Write a bundle as of a revision (0: a new one); only who decides about all of its feeds.

        Raises:
            ConfigError, NotFound, PermissionDenied, Conflict.
        """
        try:
            wanted = msgspec.convert(form, Bundle, from_attributes=True)
        except msgspec.ValidationError as why:
            raise ConfigError(str(why), key="bundle", remedy="see the fields in /docs") from why
        self._check(wanted)
        feeds = [self._feed(name) for name in wanted.feeds]
        before = self.records.find(wanted.name)
        concerned = feeds + [feed for name in (before.feeds if before else ()) if (feed := self._feeds.find(name))]
        for feed in concerned:
            if not owns(principal, feed):
                raise PermissionDenied(
                    f"feed '{feed.name}' holds data outside your scope ({scope_text(principal.scope)})"
                )
        if revision != (before.revision if before else 0):
            raise Conflict(f"bundle '{wanted.name}' is there already, or was changed; read it again")
        after = msgspec.structs.replace(wanted, by=principal.id, changed=self._clock.now())
        action = "bundle.change" if before else "bundle.create"
        await self._trail.record(
            principal, action, after.name, before=_facts(before) if before else None, after=_facts(after)
        )
        return await self.records.put(after.name, after, expected=revision)

    async def delete(self, principal: Principal, name: str) -> None:
        """Forget a bundle; grants that came of it stay. Raises as `write`."""
        before = self.get(name)
        for feed in (feed for one in before.feeds if (feed := self._feeds.find(one))):
            if not owns(principal, feed):
                raise PermissionDenied(
                    f"feed '{feed.name}' holds data outside your scope ({scope_text(principal.scope)})"
                )
        await self._trail.record(principal, "bundle.delete", name, before=_facts(before))
        await self.records.delete(name, expected=before.revision)

    def blanket(self, name: str, applicant: Scope) -> Blanket | None:
        """Return what is granted to an applicant of a bundle in advance; None: nothing."""
        bundle, now = self.records.find(name), self._clock.now()
        return next((one for one in (bundle.blankets if bundle else ()) if one.covers(applicant, now)), None)

    def _feed(self, name: str) -> Feed:
        feed = self._feeds.find(name)
        if feed is None:
            raise NotFound(f"no feed '{name[:64]}'")
        return feed

    @staticmethod
    def _check(bundle: Bundle) -> None:
        if not _NAME.fullmatch(bundle.name):
            raise ConfigError(f"'{bundle.name[:64]}'", key="name", remedy="1 to 64 characters of a-z, 0-9, _ and -")
        if not 1 <= len(set(bundle.feeds)) == len(bundle.feeds) <= FEEDS_MAX:
            raise ConfigError(f"{len(bundle.feeds)} feeds", key="feeds", remedy=f"1 to {FEEDS_MAX}, each once")
        if len(bundle.blankets) > BLANKETS_MAX:
            raise ConfigError(f"{len(bundle.blankets)}", key="blankets", remedy=f"at most {BLANKETS_MAX}")
        for one in bundle.blankets:
            if not one.applicants:
                raise ConfigError("for nobody", key="blankets.applicants", remedy="divisions, e.g. 44 for all")
            for text in one.applicants:
                scope(text)
            if not one.terms.approve or one.terms.grade_max >= CORE:
                raise ConfigError("not an approval up to grade 3", key="blankets.terms", remedy="approve: true")
            terms(one.terms)
            masks.check(one.terms.mask or masks.NONE)


def _facts(bundle: Bundle) -> Facts:
    kept: Facts = msgspec.to_builtins(msgspec.structs.replace(bundle, revision=0))
    return kept
