"""Feeds: named selections of the log, kept in a bucket of the engine, cut to what a caller may see.

`Selection` is what remains of a feed for one caller and request; equal selections share one encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.divisions import short_code
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Scope, has_right
from sensegate.bus.names import OBSERVATIONS, READINGS
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.share.masks import DEVICE, Mask

READING = "reading"
OBSERVATION = "observation"
KINDS = (READING, OBSERVATION)
_KIND_OF = {READINGS: READING, OBSERVATIONS: OBSERVATION}
"""First token of a subject -> kind."""
GRADE_MAX = 4
"""Grades run from 1 (open) to 4 (core)."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Feed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """A named selection of the log. An empty list selects all."""

    name: str
    """1 to 64 characters of ``[a-z0-9_-]``."""
    divisions: tuple[str, ...] = ()
    """Division codes; each stands for all below it."""
    domains: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    """Standard names of the property table."""
    departments: tuple[str, ...] = ()
    kinds: tuple[str, ...] = (READING,)
    grade_max: int = 3
    """Readings of a higher grade are not in the feed."""
    shadows: bool = False
    """Also readings of second sources of an asset."""
    description: str = ""
    revision: int = 0
    """Revision of the record in its bucket (for If-Match); 0 for a feed that is built in."""


ALL_FEED = Feed("all", kinds=KINDS, description="Everything that the caller may see. Built in.")


class Wanted(msgspec.Struct, frozen=True):
    """What a request narrows a feed to."""

    divisions: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


class Selection(msgspec.Struct, frozen=True):
    """What one caller gets of a feed: every condition holds at once; an empty tuple is no condition."""

    divisions: tuple[str, ...] = ()
    """Short codes; sorted, none below another."""
    domains: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    grade_max: int = GRADE_MAX
    shadows: bool = False
    kinds: tuple[str, ...] = ()
    mask: Mask = Mask()
    """How the caller sees what is selected."""
    shown: Wanted = Wanted()
    """Conditions on what the mask leaves: by asking, nobody finds out what it hides."""

    def wants_subject(self, subject: str) -> bool:
        """Return whether an entry of this subject (``<kind>.<city>.<county|all|back>.<grade>``) may hold a match.

        Cheap and never wrong in refusing: the columns decide.
        """
        kind, _, rest = subject.partition(".")
        parts = rest.split(".")
        word = _KIND_OF.get(kind)
        if word is None or (self.kinds and word not in self.kinds) or len(parts) != 3:
            return False
        _city, county, grade = parts
        if county in {"all", "back"}:
            # A span of the uplink holds several places and grades, what came back of the centre several places.
            return True
        if grade.isdigit() and int(grade) > self.grade_max:
            return False
        return not self.divisions or any(county.startswith(code) or code.startswith(county) for code in self.divisions)


def widest(codes: Iterable[str]) -> tuple[str, ...]:
    """Return the codes without those that lie in another of them, in order."""
    kept: list[str] = []
    for code in sorted({short_code(code) for code in codes}):
        if not kept or not code.startswith(kept[-1]):
            kept.append(code)
    return tuple(kept)


def common(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the divisions that lie in both sets (empty: all of them); None if there is none."""
    if not ours or not theirs:
        return widest(ours or theirs)
    both = [a if a.startswith(b) else b for a in ours for b in theirs if a.startswith(b) or b.startswith(a)]
    return widest(both) if both else None


def common_words(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the words that are in both (empty: all); None if there is none."""
    if not ours or not theirs:
        return tuple(sorted({*ours, *theirs}))
    both = {*ours} & {*theirs}
    return tuple(sorted(both)) if both else None


def whole(feed: Feed) -> Selection:
    """Return all that a feed holds: what anybody gets of it is this, narrowed."""
    return Selection(
        divisions=widest(feed.divisions),
        domains=tuple(sorted(feed.domains)),
        properties=tuple(sorted(feed.properties)),
        departments=tuple(sorted(feed.departments)),
        grade_max=feed.grade_max,
        shadows=feed.shadows,
        kinds=() if {*feed.kinds} >= {*KINDS} else tuple(sorted({*feed.kinds})),
    )


def cut(feed: Feed, scope: Scope, wanted: Wanted | None = None) -> Selection | None:
    """Return what a scope gets of a feed, narrowed by a request; None if that is nothing for any log."""
    wanted = wanted or Wanted()
    inside = common(widest(feed.divisions), (scope.division,))
    divisions = None if inside is None else common(inside, widest(wanted.divisions))
    departments = common_words(feed.departments, (scope.department,) if scope.department else ())
    properties = common_words(feed.properties, wanted.properties)
    if divisions is None or departments is None or properties is None or not feed.kinds:
        return None
    return msgspec.structs.replace(
        whole(feed),
        divisions=divisions,
        properties=properties,
        departments=departments,
        devices=tuple(sorted(wanted.devices)),
    )


def narrowed(selection: Selection, wanted: Wanted, mask: Mask) -> Selection | None:
    """Return a selection seen through a mask and narrowed by a request; None if nothing is left for any log."""
    shown = Wanted(
        divisions=widest(wanted.divisions) if mask.division_digits else (),
        devices=tuple(sorted(wanted.devices)) if DEVICE in mask.hash else (),
    )
    divisions = common(selection.divisions, () if shown.divisions else widest(wanted.divisions))
    properties = common_words(selection.properties, wanted.properties)
    devices = common_words(selection.devices, () if shown.devices else wanted.devices)
    if divisions is None or properties is None or devices is None:
        return None
    return msgspec.structs.replace(
        selection, divisions=divisions, properties=properties, devices=devices, mask=mask, shown=shown
    )


class Feeds:
    """All feeds, in memory; `run` follows the bucket, so that every process sees a change within a second."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        self._shelf = RecordStore(bucket, clock)
        self._made: RecordTable[Feed] = RecordTable(self._shelf, "feed", Feed, prefix="")
        self._made.on_change.append(lambda _before, _after: self._tell())
        self.on_change: list[Callable[[], None]] = []
        """Called after a feed has changed."""

    def _tell(self) -> None:
        for listener in self.on_change:
            listener()

    async def open(self) -> None:
        """Load all feeds."""
        await self._shelf.open()

    async def run(self) -> None:
        """Follow the changes of all processes until cancelled; through losses of the engine."""
        await self._shelf.run()

    def __iter__(self) -> Iterator[Feed]:
        """Go through all feeds in order of name, whoever may see them."""
        return iter(sorted((ALL_FEED, *self._made.all()), key=lambda feed: feed.name))

    def find(self, name: str) -> Feed | None:
        """Return a feed, whoever may see it."""
        return ALL_FEED if name == ALL_FEED.name else self._made.find(name)

    def visible(self, principal: Principal) -> list[Feed]:
        """Return the feeds of which the caller may get anything, by name."""
        return [feed for feed in self if self._admits(principal, feed)]

    def get(self, principal: Principal, name: str) -> Feed:
        """Return a feed.

        Raises:
            NotFound: there is none, or the caller may see nothing of it (the two are not told apart).
        """
        feed = self.find(name)
        if feed is None or not self._admits(principal, feed):
            raise NotFound(f"no feed '{name[:64]}' in your scope; GET /api/v1/feeds lists yours")
        return feed

    def select(self, principal: Principal, name: str, wanted: Wanted) -> Selection | None:
        """Return what the caller gets of a feed; None if the request narrows it to nothing.

        Raises:
            NotFound: as `get`.
            PermissionDenied: the role reads nothing, or the request names a division outside the caller's scope.
        """
        if not has_right(principal, Action.READ_READINGS):
            raise PermissionDenied(f"role {principal.role} may not read readings; ask for a token of another role")
        feed = self.get(principal, name)
        for code in wanted.divisions:
            if common((short_code(code),), (principal.scope.division,)) is None:
                raise PermissionDenied(f"division {code} is outside your scope ({principal.scope.division})")
        return cut(feed, principal.scope, wanted)

    def demand_free(self, name: str) -> None:
        """Return if a feed of this name can be made. Raises `Conflict`."""
        if self.find(name) is not None:
            raise Conflict(f"feed '{name[:64]}' is there already; change it, or choose another name")

    async def create(self, feed: Feed) -> Feed:
        """Write a new feed.

        Raises:
            Conflict: the name is taken.
        """
        check(feed)
        self.demand_free(feed.name)
        try:
            return await self._made.put(feed.name, feed, expected=0)
        except Conflict:
            raise Conflict(f"feed '{feed.name}' is there already; change it, or choose another name") from None

    async def change(self, feed: Feed, revision: int) -> Feed:
        """Replace a feed whose revision is known.

        Raises:
            Conflict: it is built in, or was changed meanwhile.
        """
        check(feed)
        if feed.name == ALL_FEED.name:
            raise Conflict(f"feed '{feed.name}' is built in and does not change")
        return await self._made.put(feed.name, feed, expected=revision)

    async def delete(self, name: str, revision: int | None = None) -> None:
        """Remove a feed; streams of it end within a second.

        Raises:
            Conflict: it is built in, or was changed meanwhile.
        """
        if name == ALL_FEED.name:
            raise Conflict(f"feed '{name}' is built in and does not change")
        await self._made.delete(name, expected=revision)

    @staticmethod
    def _admits(principal: Principal, feed: Feed) -> bool:
        return not (principal.feeds and feed.name not in principal.feeds) and cut(feed, principal.scope) is not None


def check(feed: Feed) -> None:
    """Return if the record is sound.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    if not _NAME.fullmatch(feed.name):
        raise ConfigError(f"'{feed.name[:64]}'", key="name", remedy="1 to 64 characters of a-z, 0-9, _ and -")
    for code in feed.divisions:
        short_code(code)
    if not 1 <= feed.grade_max <= GRADE_MAX:
        raise ConfigError(str(feed.grade_max), key="grade_max", remedy=f"1 to {GRADE_MAX}")
    if unknown := sorted({*feed.kinds} - {*KINDS}):
        raise ConfigError(f"'{unknown[0][:64]}'", key="kinds", remedy=f"use {' or '.join(KINDS)}")
