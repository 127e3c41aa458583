"""Feeds: named selections of the log, stored in a bucket, and what a caller may see of them.

A `FeedSelection` is the part of a feed that one caller gets by one request; equal selections share one encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.divisions import short_code
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Scope, has_right
from sensegate.bus.names import ALARM_EVENTS, OBSERVATIONS, READINGS
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.share.masks import DEVICE, Mask, known_property

READING = "reading"
OBSERVATION = "observation"
ALARM = "alarm"
DATA_KINDS = (READING, OBSERVATION)
KINDS = (*DATA_KINDS, ALARM)
_KIND_OF = {READINGS: READING, OBSERVATIONS: OBSERVATION, ALARM_EVENTS: ALARM}
"""First token of a subject -> kind of record."""
GRADE_MAX = 4
"""Grades run from 1 (open) to 4 (core)."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FeedName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]


class Feed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Named selection of the log; an empty list selects all."""

    name: str
    """1 to 64 characters of ``[a-z0-9_-]``."""
    divisions: tuple[str, ...] = ()
    """Division codes; each includes all divisions below it."""
    domains: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    """Standard names of the property table."""
    departments: tuple[str, ...] = ()
    kinds: tuple[str, ...] = (READING,)
    grade_max: int = 3
    """Highest grade of the records in the feed."""
    secondary_sources: bool = False
    """Include readings of secondary sources of an asset, which bear the flag `secondary`."""
    description: str = ""
    revision: int = 0
    """Revision of the record in its bucket (for If-Match); 0: built in."""


ALL_FEED = Feed("all", kinds=DATA_KINDS, description="Everything that the caller may see. Built in.")
ALARM_FEED = Feed("alarms", kinds=(ALARM,), description="Events of alarms. Built in.")
BUILT_IN = {feed.name: feed for feed in (ALL_FEED, ALARM_FEED)}


class BoundingBox(msgspec.Struct, frozen=True):
    """Area between two meridians and two parallels, WGS-84 degrees, borders included."""

    west: float
    south: float
    east: float
    north: float


class Circle(msgspec.Struct, frozen=True):
    """Area around a position, WGS-84 degrees."""

    lon: float
    lat: float
    metres: float


class FeedFilter(msgspec.Struct, frozen=True):
    """Filter that a request applies to a feed; an empty tuple or None is no condition."""

    divisions: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    begin: int | None = None
    """Earliest phenomenon time, µs UTC."""
    end: int | None = None
    """Phenomenon time before which records are wanted, µs UTC."""
    bbox: BoundingBox | None = None
    near: Circle | None = None
    channels: tuple[str, ...] = ()


class FeedSelection(msgspec.Struct, frozen=True):
    """Rows that one caller gets of a feed: all conditions hold together; an empty tuple is no condition."""

    divisions: tuple[str, ...] = ()
    """Short codes, sorted, none within another."""
    domains: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    grade_max: int = GRADE_MAX
    secondary_sources: bool = False
    kinds: tuple[str, ...] = ()
    """Empty: readings and observations."""
    mask: Mask = Mask()
    """Mask applied to the selected rows."""
    masked_filter: FeedFilter = FeedFilter()
    """Filter applied to the masked values, so that no request can probe what the mask hides."""

    def wants_subject(self, subject: str) -> bool:
        """Return whether an entry of this subject (``<kind>.<city>.<own|all|back>.<grade>``) may contain a match.

        A cheap test without false negatives; the columns decide.
        """
        kind, _, rest = subject.partition(".")
        parts = rest.split(".")
        word = _KIND_OF.get(kind)
        if word not in (self.kinds or DATA_KINDS) or len(parts) != 3:
            return False
        city, area, grade = parts
        if area in {"all", "back"}:
            return True  # of several grades
        if grade.isdigit() and int(grade) > self.grade_max:
            return False
        return not self.divisions or any(city.startswith(code) or code.startswith(city) for code in self.divisions)


def outermost(codes: Iterable[str]) -> tuple[str, ...]:
    """Return the codes, sorted, without those that lie within another of them."""
    outer: list[str] = []
    for code in sorted({short_code(code) for code in codes}):
        if not outer or not code.startswith(outer[-1]):
            outer.append(code)
    return tuple(outer)


def common_divisions(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the intersection of two sets of divisions (an empty set means all); None: it is empty."""
    if not first or not second:
        return outermost(first or second)
    both = [a if a.startswith(b) else b for a in first for b in second if a.startswith(b) or b.startswith(a)]
    return outermost(both) if both else None


def common_words(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the intersection of two sets of words (an empty set means all); None: it is empty."""
    if not first or not second:
        return tuple(sorted({*first, *second}))
    both = {*first} & {*second}
    return tuple(sorted(both)) if both else None


def full_selection(feed: Feed) -> FeedSelection:
    """Return the selection of everything in a feed."""
    return FeedSelection(
        divisions=outermost(feed.divisions),
        domains=tuple(sorted(feed.domains)),
        properties=tuple(sorted(feed.properties)),
        departments=tuple(sorted(feed.departments)),
        grade_max=feed.grade_max,
        secondary_sources=feed.secondary_sources,
        kinds=() if {*feed.kinds} == {*DATA_KINDS} else tuple(sorted({*feed.kinds})),
    )


def scoped_selection(feed: Feed, scope: Scope, wanted: FeedFilter | None = None) -> FeedSelection | None:
    """Return a scope's part of a feed, filtered by a request; None: nothing of any log."""
    wanted = wanted or FeedFilter()
    inside = common_divisions(outermost(feed.divisions), (scope.division,))
    divisions = None if inside is None else common_divisions(inside, outermost(wanted.divisions))
    departments = common_words(feed.departments, (scope.department,) if scope.department else ())
    properties = common_words(feed.properties, wanted.properties)
    if divisions is None or departments is None or properties is None or not feed.kinds:
        return None
    return msgspec.structs.replace(
        full_selection(feed),
        divisions=divisions,
        properties=properties,
        departments=departments,
        devices=tuple(sorted(wanted.devices)),
    )


def filtered_selection(selection: FeedSelection, wanted: FeedFilter, mask: Mask) -> FeedSelection | None:
    """Return a selection with a mask and the filter of a request; None: nothing of any log."""
    masked_filter = msgspec.structs.replace(
        wanted,
        divisions=outermost(wanted.divisions) if mask.division_digits else (),
        properties=(),
        devices=tuple(sorted(wanted.devices)) if DEVICE in mask.hash else (),
    )
    divisions = common_divisions(selection.divisions, () if masked_filter.divisions else outermost(wanted.divisions))
    properties = common_words(selection.properties, wanted.properties)
    devices = common_words(selection.devices, () if masked_filter.devices else wanted.devices)
    if divisions is None or properties is None or devices is None:
        return None
    return msgspec.structs.replace(
        selection, divisions=divisions, properties=properties, devices=devices, mask=mask, masked_filter=masked_filter
    )


class Feeds:
    """All feeds, in memory; `run` follows the bucket, so that every process sees a change within a second."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        self._store = RecordStore(bucket, clock)
        self._records: RecordTable[Feed] = RecordTable(self._store, "feed", Feed, prefix="")
        self._records.on_change.append(lambda _before, _after: self._notify())
        self.on_change: list[Callable[[], None]] = []
        """Called after a feed has changed."""

    def _notify(self) -> None:
        for listener in self.on_change:
            listener()

    async def open(self) -> None:
        """Load all feeds."""
        await self._store.open()

    async def run(self) -> None:
        """Follow the changes of all processes until cancelled; survives losses of the engine."""
        await self._store.run()

    def __iter__(self) -> Iterator[Feed]:
        """Iterate over all feeds by name, without regard to scope."""
        return iter(sorted((*BUILT_IN.values(), *self._records.all()), key=lambda feed: feed.name))

    def find(self, name: str) -> Feed | None:
        """Return a feed without regard to scope; None: there is none."""
        return BUILT_IN.get(name) or self._records.find(name)

    def visible(self, principal: Principal) -> list[Feed]:
        """Return the feeds of which the caller's scope contains a part, by name."""
        return [feed for feed in self if self._is_visible(principal, feed)]

    def get(self, principal: Principal, name: str) -> Feed:
        """Return a feed of which the caller's scope contains a part.

        Raises:
            NotFound: there is none, or the caller may see nothing of it (the two are not distinguished).
        """
        feed = self.find(name)
        if feed is None or not self._is_visible(principal, feed):
            raise NotFound(f"there is no feed '{name[:64]}' in your scope; GET /api/v1/feeds lists yours")
        return feed

    def select(self, principal: Principal, name: str, wanted: FeedFilter) -> FeedSelection | None:
        """Return the caller's part of a feed; None if the request narrows it to nothing.

        Raises:
            NotFound: as `get`.
            PermissionDenied: the role reads nothing, or the request names a division outside the caller's scope.
        """
        if not has_right(principal, Action.READ_READINGS):
            raise PermissionDenied(f"role {principal.role} may not read readings; ask for a token of another role")
        feed = self.get(principal, name)
        for code in wanted.divisions:
            if common_divisions((short_code(code),), (principal.scope.division,)) is None:
                raise PermissionDenied(f"division {code} is outside your scope ({principal.scope.division})")
        return scoped_selection(feed, principal.scope, wanted)

    def demand_name_free(self, name: str) -> None:
        """Return if the name of a feed is free. Raises `Conflict`."""
        if self.find(name) is not None:
            raise Conflict(f"feed '{name[:64]}' exists already; change it, or choose another name")

    async def create(self, feed: Feed) -> Feed:
        """Create a feed.

        Raises:
            Conflict: the name is taken.
        """
        check_feed(feed)
        self.demand_name_free(feed.name)
        try:
            return await self._records.put(feed.name, feed, expected=0)
        except Conflict:
            raise Conflict(f"feed '{feed.name}' exists already; change it, or choose another name") from None

    async def change(self, feed: Feed, revision: int) -> Feed:
        """Replace a feed as of a revision.

        Raises:
            Conflict: the feed is built in, or was changed meanwhile.
        """
        check_feed(feed)
        if feed.name in BUILT_IN:
            raise Conflict(f"feed '{feed.name}' is built in and cannot be changed")
        return await self._records.put(feed.name, feed, expected=revision)

    async def delete(self, name: str, revision: int | None = None) -> None:
        """Delete a feed; its open streams end within a second.

        Raises:
            Conflict: the feed is built in, or was changed meanwhile.
        """
        if name in BUILT_IN:
            raise Conflict(f"feed '{name}' is built in and cannot be changed")
        await self._records.delete(name, expected=revision)

    @staticmethod
    def _is_visible(principal: Principal, feed: Feed) -> bool:
        return (
            not (principal.feeds and feed.name not in principal.feeds)
            and scoped_selection(feed, principal.scope) is not None
        )


def check_feed(feed: Feed) -> None:
    """Return if the values of a feed are valid.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    if not _NAME.fullmatch(feed.name):
        raise ConfigError(
            f"'{feed.name[:64]}' is not a name", key="name", remedy="use 1 to 64 characters of a-z, 0-9, _ and -"
        )
    for code in feed.divisions:
        short_code(code)
    if not 1 <= feed.grade_max <= GRADE_MAX:
        raise ConfigError(f"{feed.grade_max} is not a grade", key="grade_max", remedy=f"give 1 to {GRADE_MAX}")
    if unknown := sorted({*feed.kinds} - {*KINDS}):
        raise ConfigError(f"'{unknown[0][:64]}' is unknown", key="kinds", remedy=f"use {' or '.join(KINDS)}")


def check_properties(names: Iterable[str]) -> None:
    """Return if there are properties of these names; a feed of a node with a newer table may have others.

    Raises:
        ConfigError: with the nearest name.
    """
    for name in names:
        known_property(name, key="properties", otherwise="GET /api/v1/properties lists them")
