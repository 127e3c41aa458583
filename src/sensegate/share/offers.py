"""What is offered: entries of the catalogue as each caller sees them, how they are written, and samples of the data.

A complete entry is seen by all who may read the catalogue, wherever they are; a draft, and what is not shared, only by
those in charge of all of its data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sensegate.authority.divisions import short
from sensegate.authority.scope import Action, Principal, Role, demand
from sensegate.authority.trail import Trail
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound
from sensegate.quantities.properties import PROPERTIES
from sensegate.share import masks
from sensegate.share.applications import level_of
from sensegate.share.catalogue import (
    Catalogue,
    Column,
    Entry,
    Promise,
    Sharing,
    as_csv,
    check,
    dcat,
    found,
    missing,
)
from sensegate.share.delivery import Form, Serving
from sensegate.share.feeds import ALL_FEED, Feed, Feeds
from sensegate.share.grants import CORE, Grant, granted
from sensegate.share.masks import DEVICE, PLACE, PROFILE, Mask

SAMPLE_ROWS, SAMPLE_ROWS_MAX = 5, 50
SAMPLE_GRADE = 2
"""Highest grade of conditional data that is shown without its owner's own word."""
_LOOK_US = DAY_US
_LOOK_ROWS = 5_000
KEPT = frozenset(
    {"feed", "code", "origin", "published", "changed", "revision", "format", "sample", "columns", "drawn", "measured"}
)
"""Fields of an entry that nobody writes by hand."""
CAREFUL = Mask(drop=(PLACE, PROFILE), hash=(DEVICE,), time_s=3_600, k=10)
"""How a sample of what is shared on conditions is seen unless its owner says otherwise."""


class Offers:
    """The door to the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        feeds: Feeds,
        serving: Serving,
        trail: Trail,
        clock: Clock,
        *,
        codes: bool,
        measured: Callable[[Feed], Promise],
    ) -> None:
        """`codes`: this gateway gives codes (the centre); `measured`: indicators of a feed's devices here."""
        self._catalogue = catalogue
        self._feeds = feeds
        self._serving = serving
        self._trail = trail
        self._clock = clock
        self._codes = codes
        self.others: Iterable[Entry] = ()
        """At a node: what others share at the centre."""
        self._measured = measured

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────

    def seen(self, principal: Principal) -> list[Entry]:
        """Return the entries that the caller sees, by feed; a feed of his without one as an empty draft."""
        ours = [self._of(feed) for feed in self._feeds if feed.name != ALL_FEED.name and self._sees(principal, feed)]
        return ours + [entry for entry in self.others if self._feeds.find(entry.feed) is None]

    def get(self, principal: Principal, name: str) -> Entry:
        """Return one of them. Raises `NotFound`."""
        return self._other(name) or self._of(self._seen(principal, name))

    def _other(self, name: str) -> Entry | None:
        """Return what others share under a name that no feed of ours bears."""
        if self._feeds.find(name) is not None:
            return None
        return next((entry for entry in self.others if entry.feed == name), None)

    def feed(self, principal: Principal, name: str) -> Feed:
        """Return the feed behind an entry that the caller sees. Raises `NotFound`."""
        if other := self._other(name):
            return Feed(name, divisions=(other.level,))
        return self._seen(principal, name)

    @staticmethod
    def found(entry: Entry, text: str) -> bool:
        """Return whether every word of a search stands somewhere in the entry, in Chinese or English."""
        return found(entry, text)

    @staticmethod
    def held(entry: Entry, measured: object) -> dict[str, bool]:
        """Return, of what is promised and measured (a record with the names of `Promise`), whether it is held."""
        both = ((name, getattr(entry.promise, name), getattr(measured, name)) for name in Promise.__struct_fields__)
        return {name: value >= least for name, least, value in both if least is not None and value is not None}

    @staticmethod
    def export(entries: Iterable[Entry], form: str) -> bytes:
        """Return entries as a document: ``dcat`` (JSON-LD) or ``csv``."""
        if form == "csv":
            return as_csv(entries).encode()
        return msgspec.json.encode(dcat(entries, title="感知數據共享目錄"))

    def measured(self, entry: Entry) -> Promise:
        """Return what was measured of the feed's devices here, or what the node that keeps the entry told."""
        feed = self._feeds.find(entry.feed)
        here = self._measured(feed) if feed else Promise()
        return here if here != Promise() else entry.measured

    def missing(self, entry: Entry) -> list[str]:
        """Return what is missing until an entry is complete, a sentence each."""
        feed = self._feeds.find(entry.feed)
        return missing(entry) + (graded_too_low(entry, feed) if feed else [])

    def _seen(self, principal: Principal, name: str) -> Feed:
        feed = self._feeds.find(name)
        if feed is None or name == ALL_FEED.name or not self._sees(principal, feed):
            raise NotFound(f"no feed '{name[:64]}' in the catalogue")
        return feed

    def _sees(self, principal: Principal, feed: Feed) -> bool:
        entry = self._catalogue.find(feed.name)
        if entry is not None and entry.published and entry.sharing is not Sharing.NOT_SHARED:
            return True
        return in_charge(principal, feed)

    def _of(self, feed: Feed) -> Entry:
        return self._catalogue.find(feed.name) or Entry(feed.name, level=level_of(feed.divisions))

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────

    async def write(self, principal: Principal, name: str, changes: dict[str, Any], revision: int | None) -> Entry:
        """Change what is said of a feed; it is published once nothing is missing, and then stays complete.

        Raises:
            NotFound, PermissionDenied.
            ConfigError: a key or value that cannot be, or something would be missing of what is published.
            Conflict: it was changed meanwhile, or belongs to another gateway.
        """
        feed = self._seen(principal, name)
        demand_in_charge(principal, feed)
        before = self._of(feed)
        if before.origin:
            raise Conflict(f"'{name}' is kept by {before.origin}; change it there")
        if revision is not None and revision != before.revision:
            raise Conflict(f"the entry of '{name}' is at revision {before.revision}, not {revision}; read it again")
        if revision is None and before.revision:
            raise Conflict(
                f"the entry of '{name}' is at revision {before.revision}; read it, then say which you change"
            )
        if unknown := sorted({*changes} - {*Entry.__struct_fields__} | {*changes} & KEPT):
            known = ", ".join(key for key in Entry.__struct_fields__ if key not in KEPT)
            raise ConfigError("is not written here", key=unknown[0][:40], remedy=f"of {known}")
        try:
            after = msgspec.convert({**msgspec.to_builtins(before), **changes}, Entry)
        except msgspec.ValidationError as why:
            raise ConfigError(str(why), key="entry", remedy="see the fields in /docs") from why
        check(after)
        level = short(after.level) if after.level else level_of(feed.divisions)
        if not all(code.startswith(level) for code in feed.divisions):
            raise ConfigError(f"'{level}' does not hold all of the feed", key="level", remedy=", ".join(feed.divisions))
        after = msgspec.structs.replace(after, level=level, changed=self._clock.now())
        lacks = self.missing(after)
        if lacks and before.published:
            raise ConfigError("; ".join(lacks)[:500], remedy="what is published stays complete")
        if not lacks:
            code = before.code or (await self._catalogue.next_code(level, after.kind) if self._codes else "")
            after = msgspec.structs.replace(after, published=before.published or after.changed, code=code)
            after = await self._drawn(feed, after, SAMPLE_ROWS, None)
        action = "entry.publish" if after.published and not before.published else "entry.change"
        await self._trail.record(principal, action, name, before=_facts(before), after=_facts(after))
        return await self._catalogue.records.put(name, after, expected=before.revision)

    async def draw(self, principal: Principal, name: str, rows: int, mask: object | None) -> Entry:
        """Draw the sample anew from the newest data, as a mask shows it, and what columns there are; return the entry.

        Without a mask what is shared on conditions is seen as `CAREFUL` shows it.

        Raises:
            NotFound, PermissionDenied, ConfigError, Conflict, Unavailable.
        """
        feed = self._seen(principal, name)
        demand_in_charge(principal, feed)
        before = self._of(feed)
        if before.origin:
            raise Conflict(f"'{name}' is kept by {before.origin}; draw it there")
        wanted: Mask | None = None
        if mask is not None:
            try:
                wanted = msgspec.convert(mask, Mask, from_attributes=True)
            except msgspec.ValidationError as why:
                raise ConfigError(str(why), key="mask", remedy="see the fields in /docs") from why
            masks.check(wanted)
        after = await self._drawn(feed, before, min(rows, SAMPLE_ROWS_MAX), wanted)
        told = {"rows": len(after.sample), "mask": msgspec.to_builtins(wanted) if wanted else None}
        await self._trail.record(principal, "entry.sample", name, after=told)
        return await self._catalogue.records.put(name, after, expected=before.revision)

    async def _drawn(self, feed: Feed, entry: Entry, rows: int, mask: Mask | None) -> Entry:
        """Return the entry with columns and sample of the data of the last day, as far as there are any."""
        reader, now = self._serving.reader, self._clock.now()
        grade_max = SAMPLE_GRADE if mask is None and entry.sharing is not Sharing.UNCONDITIONAL else CORE - 1
        if mask is None:
            mask = Mask() if entry.sharing is Sharing.UNCONDITIONAL else CAREFUL
        mask = msgspec.structs.replace(mask, key=mask.key or f"sample {feed.name}")
        right = granted(feed, Grant("sample", feed.name, "", now, mask=mask, grade_max=grade_max))
        if right is None:
            return entry
        start, first = await reader.since(now - _LOOK_US), await reader.first()
        start = start if start.sequence > first.sequence else first
        seen = msgspec.structs.replace(right, mask=mask)
        page = await self._serving.page(seen, start, Form.JSON, _LOOK_ROWS, 0.0)
        found: list[dict[str, Any]] = msgspec.json.decode(page.body)["records"]
        if not found:
            return msgspec.structs.replace(entry, drawn=now)
        shown = [
            msgspec.json.encode({key: value for key, value in row.items() if key not in {"id", "cursor"}}).decode()
            for row in found[-rows:]
        ]
        return msgspec.structs.replace(entry, columns=columns_of(found), sample=tuple(shown), drawn=now)

    async def remove(self, principal: Principal, name: str) -> None:
        """Forget what was said of a feed that is gone."""
        if (entry := self._catalogue.find(name)) is not None:
            await self._trail.record(principal, "entry.delete", name, before=_facts(entry))
            await self._catalogue.records.delete(name, expected=entry.revision)


def columns_of(rows: Iterable[dict[str, Any]]) -> tuple[Column, ...]:
    """Return the properties that occur in records, the most frequent first."""
    counts: Counter[str] = Counter(str(row["property"]) for row in rows)
    found = []
    for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        index = PROPERTIES.find(name)
        row = PROPERTIES[index] if index >= 0 else None
        found.append(
            Column(name, row.kind.value, row.unit, row.label_zh, row.label_en, count)
            if row
            else Column(name, rows=count)
        )
    return tuple(found)


def graded_too_low(entry: Entry, feed: Feed) -> list[str]:
    """Return what is wrong where an entry has a lower grade than its data and says no reason: grades are inherited."""
    if not 0 < entry.grade < feed.grade_max or entry.grade_reason.strip():
        return []
    return [
        f"grade: {feed.grade_max}, that of the data (grade_max of the feed); or say in grade_reason why it is lower"
    ]


def in_charge(principal: Principal, feed: Feed) -> bool:
    """Return whether all of a feed lies in the scope of an operator, auditor or administrator."""
    return principal.role not in {Role.SUBSCRIBER, Role.DEVICE} and all(
        principal.scope.covers(division, department)
        for division in feed.divisions or ("44",)
        for department in feed.departments or ("",)
    )


def demand_in_charge(principal: Principal, feed: Feed) -> None:
    """Return if the caller may write about all of a feed. Raises `PermissionDenied`."""
    for division in feed.divisions or ("44",):
        for department in feed.departments or ("",):
            demand(principal, Action.CHANGE_FEEDS, division, department)


def _facts(entry: Entry) -> dict[str, object]:
    kept: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(entry, revision=0, sample=(), columns=()))
    return kept
