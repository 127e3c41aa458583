"""Access to the catalogue: which entries each caller sees, how they are changed, and samples of the data.

A published entry is visible to all who may read the catalogue; a draft, and an entry that is not shared, only to those
in charge of all of its data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sensegate.authority.divisions import short_code
from sensegate.authority.scope import Action, Principal, demand, reads_only
from sensegate.authority.trail import Trail
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, Conflict, NotFound
from sensegate.quantities.properties import PROPERTIES
from sensegate.share import masks
from sensegate.share.applications import common_level
from sensegate.share.catalogue import (
    CatalogueEntry,
    DatasetColumn,
    QualityIndicators,
    SharingClass,
    as_csv,
    check_entry,
    dcat,
    matches_search,
    missing_fields,
)
from sensegate.share.delivery import FeedServer, RecordEncoding
from sensegate.share.feeds import BUILT_IN, Feed
from sensegate.share.grants import CORE_GRADE, Grant, grant_selection
from sensegate.share.masks import DEVICE, PLACE, PROFILE, Mask
from sensegate.share.registries import SharingRegistries

SAMPLE_ROWS, SAMPLE_ROWS_MAX = 5, 50
SAMPLE_GRADE = 2
"""Highest grade of conditionally shared data in a sample, unless its owner chooses a mask."""
_SCAN_ROWS_MAX = 5_000
MANAGED_FIELDS = frozenset(
    {"feed", "code", "origin", "published", "changed", "revision", "format", "sample", "columns", "sampled", "measured"}
)
"""Fields of an entry that the gateway sets."""
DEFAULT_SAMPLE_MASK = Mask(drop=(PLACE, PROFILE), hash=(DEVICE,), time_s=3_600, k=10)
"""Mask of a sample of conditionally shared data, unless its owner chooses another."""


class CatalogueAccess:
    """Catalogue of the feeds of this gateway and, at a node, of its centre."""

    def __init__(
        self,
        registries: SharingRegistries,
        serving: FeedServer,
        trail: Trail,
        clock: Clock,
        *,
        assigns_codes: bool,
        measured: Callable[[Feed], QualityIndicators],
        centre_entries: Iterable[CatalogueEntry] = (),
    ) -> None:
        """Build it on finished registries.

        `assigns_codes`: this gateway assigns codes (the centre); `measured` returns a feed's indicators;
        `centre_entries`: at a node, entries of other gateways at the centre.
        """
        self._catalogue = registries.catalogue
        self._feeds = registries.feeds
        self._serving = serving
        self._trail = trail
        self._clock = clock
        self._assigns_codes = assigns_codes
        self._centre_entries = centre_entries
        self._measured = measured

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def visible(self, principal: Principal) -> list[CatalogueEntry]:
        """Return the entries that the caller may see, by feed; a visible feed without an entry has an empty draft."""
        local = [
            self._entry(feed) for feed in self._feeds if feed.name not in BUILT_IN and self._is_visible(principal, feed)
        ]
        return local + [entry for entry in self._centre_entries if self._feeds.find(entry.feed) is None]

    def get(self, principal: Principal, name: str) -> CatalogueEntry:
        """Return a visible entry. Raises `NotFound`."""
        return self._centre_entry(name) or self._entry(self._visible_feed(principal, name))

    def _centre_entry(self, name: str) -> CatalogueEntry | None:
        """Return the centre's entry of a name that no local feed has; None: there is none."""
        if self._feeds.find(name) is not None:
            return None
        return next((entry for entry in self._centre_entries if entry.feed == name), None)

    def feed(self, principal: Principal, name: str) -> Feed:
        """Return the feed of a visible entry. Raises `NotFound`."""
        if other := self._centre_entry(name):
            return Feed(name, divisions=(other.level,))
        return self._visible_feed(principal, name)

    @staticmethod
    def matches(entry: CatalogueEntry, text: str) -> bool:
        """Return whether the entry contains every word of a search, in Chinese or English."""
        return matches_search(entry, text)

    @staticmethod
    def met(entry: CatalogueEntry, measured: QualityIndicators) -> dict[str, bool]:
        """Return for each promised and measured indicator whether the promise is met."""
        pairs = (
            (name, getattr(entry.promise, name), getattr(measured, name))
            for name in QualityIndicators.__struct_fields__
        )
        return {
            name: value >= promised for name, promised, value in pairs if promised is not None and value is not None
        }

    @staticmethod
    def export(entries: Iterable[CatalogueEntry], form: str) -> bytes:
        """Return entries as a document: ``dcat`` (JSON-LD) or ``csv``."""
        if form == "csv":
            return as_csv(entries).encode()
        return msgspec.json.encode(dcat(entries, title="感知數據共享目錄"))

    def measured(self, entry: CatalogueEntry) -> QualityIndicators:
        """Return the indicators measured here, or those reported by the node that owns the entry."""
        feed = self._feeds.find(entry.feed)
        local = self._measured(feed) if feed else QualityIndicators()
        return local if local != QualityIndicators() else entry.measured

    def missing(self, entry: CatalogueEntry) -> list[str]:
        """Return what an entry lacks to be complete, a sentence each."""
        feed = self._feeds.find(entry.feed)
        return missing_fields(entry) + (grade_problems(entry, feed) if feed else [])

    def _visible_feed(self, principal: Principal, name: str) -> Feed:
        feed = self._feeds.find(name)
        if feed is None or name in BUILT_IN or not self._is_visible(principal, feed):
            raise NotFound(f"there is no feed '{name[:64]}' in the catalogue")
        return feed

    def _is_visible(self, principal: Principal, feed: Feed) -> bool:
        entry = self._catalogue.find(feed.name)
        if entry is not None and entry.published and entry.sharing is not SharingClass.NOT_SHARED:
            return True
        return is_in_charge(principal, feed)

    def _entry(self, feed: Feed) -> CatalogueEntry:
        return self._catalogue.find(feed.name) or CatalogueEntry(feed.name, level=common_level(feed.divisions))

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────

    async def write(
        self, principal: Principal, name: str, changes: dict[str, Any], revision: int | None
    ) -> CatalogueEntry:
        """Change the entry of a feed; it is published once it is complete, and must stay complete then.

        Raises:
            NotFound, PermissionDenied.
            ConfigError: a key or value is invalid, or a published entry would become incomplete.
            Conflict: the entry was changed meanwhile, or belongs to another gateway.
        """
        feed = self._visible_feed(principal, name)
        demand_in_charge(principal, feed)
        before = self._entry(feed)
        if before.origin:
            raise Conflict(f"the entry of '{name}' belongs to {before.origin}; change it there")
        if revision is not None and revision != before.revision:
            raise Conflict(f"the entry of '{name}' is at revision {before.revision}, not {revision}; read it again")
        if revision is None and before.revision:
            raise Conflict(f"the entry of '{name}' is at revision {before.revision}; read it, then send If-Match")
        if unknown := sorted({*changes} - {*CatalogueEntry.__struct_fields__} | {*changes} & MANAGED_FIELDS):
            known = ", ".join(key for key in CatalogueEntry.__struct_fields__ if key not in MANAGED_FIELDS)
            raise ConfigError("cannot be changed", key=unknown[0][:40], remedy=f"change one of {known}")
        try:
            after = msgspec.convert({**msgspec.to_builtins(before), **changes}, CatalogueEntry)
        except msgspec.ValidationError as why:
            raise ConfigError(str(why), key="entry", remedy="see the fields in /docs") from why
        check_entry(after)
        level = short_code(after.level) if after.level else common_level(feed.divisions)
        if not all(code.startswith(level) for code in feed.divisions):
            raise ConfigError(
                f"'{level}' does not contain all of the feed",
                key="level",
                remedy=f"give a division that contains {', '.join(feed.divisions)}",
            )
        after = msgspec.structs.replace(after, level=level, changed=self._clock.now())
        problems = self.missing(after)
        if problems and before.published:
            raise ConfigError("; ".join(problems)[:500], remedy="a published entry must stay complete")
        if not problems:
            code = before.code or (await self._catalogue.next_code(level, after.kind) if self._assigns_codes else "")
            after = msgspec.structs.replace(after, published=before.published or after.changed, code=code)
            after = await self._sampled(feed, after, SAMPLE_ROWS, None)
        action = "entry.publish" if after.published and not before.published else "entry.change"
        await self._trail.record(principal, action, name, before=_facts(before), after=_facts(after))
        return await self._catalogue.records.put(name, after, expected=before.revision)

    async def sample(self, principal: Principal, name: str, rows: int, mask: Mask | None) -> CatalogueEntry:
        """Take a new sample of the most recent data through a mask, with its columns; return the entry.

        Without a mask `DEFAULT_SAMPLE_MASK` applies to data that is not shared unconditionally.

        Raises:
            NotFound, PermissionDenied, ConfigError, Conflict, Unavailable.
        """
        feed = self._visible_feed(principal, name)
        demand_in_charge(principal, feed)
        before = self._entry(feed)
        if before.origin:
            raise Conflict(f"the entry of '{name}' belongs to {before.origin}; take the sample there")
        if mask is not None:
            masks.check_mask(mask)
        after = await self._sampled(feed, before, min(rows, SAMPLE_ROWS_MAX), mask)
        facts = {"rows": len(after.sample), "mask": msgspec.to_builtins(mask) if mask else None}
        await self._trail.record(principal, "entry.sample", name, after=facts)
        return await self._catalogue.records.put(name, after, expected=before.revision)

    async def _sampled(self, feed: Feed, entry: CatalogueEntry, rows: int, mask: Mask | None) -> CatalogueEntry:
        """Return the entry with columns and sample of the data of the last day, if there is any."""
        reader, now = self._serving.reader, self._clock.now()
        grade_max = SAMPLE_GRADE if mask is None and entry.sharing is not SharingClass.UNCONDITIONAL else CORE_GRADE - 1
        if mask is None:
            mask = Mask() if entry.sharing is SharingClass.UNCONDITIONAL else DEFAULT_SAMPLE_MASK
        mask = msgspec.structs.replace(mask, key=mask.key or f"sample {feed.name}")
        permitted = grant_selection(feed, Grant("sample", feed.name, "", now, mask=mask, grade_max=grade_max))
        if permitted is None:
            return entry
        _, last = await reader.log.bounds()
        selection = msgspec.structs.replace(permitted, mask=mask)
        page = await self._serving.page_back(
            selection, reader.after(last, 0), RecordEncoding.JSON, _SCAN_ROWS_MAX, since=now - DAY_US
        )
        records: list[dict[str, Any]] = msgspec.json.decode(page.body)["records"][::-1]
        if not records:
            return msgspec.structs.replace(entry, sampled=now)
        shown = [
            msgspec.json.encode({key: value for key, value in row.items() if key not in {"id", "cursor"}}).decode()
            for row in records[-rows:]
        ]
        return msgspec.structs.replace(entry, columns=columns_of(records), sample=tuple(shown), sampled=now)

    async def remove(self, principal: Principal, name: str) -> None:
        """Delete the entry of a deleted feed."""
        if (entry := self._catalogue.find(name)) is not None:
            await self._trail.record(principal, "entry.delete", name, before=_facts(entry))
            await self._catalogue.records.delete(name, expected=entry.revision)


def columns_of(rows: Iterable[dict[str, Any]]) -> tuple[DatasetColumn, ...]:
    """Return the properties that occur in records, the most frequent first."""
    counts: Counter[str] = Counter(str(row["property"]) for row in rows)
    columns = []
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        index = PROPERTIES.find(name)
        row = PROPERTIES[index] if index >= 0 else None
        columns.append(
            DatasetColumn(name, row.kind.value, row.unit, row.label_zh, row.label_en, count)
            if row
            else DatasetColumn(name, rows=count)
        )
    return tuple(columns)


def grade_problems(entry: CatalogueEntry, feed: Feed) -> list[str]:
    """Return the problem of an entry with a lower grade than its data and without a reason for it."""
    if not 0 < entry.grade < feed.grade_max or entry.grade_reason.strip():
        return []
    return [f"grade: is below that of the data; give {feed.grade_max} (grade_max of the feed), or a grade_reason"]


def is_in_charge(principal: Principal, feed: Feed) -> bool:
    """Return whether all of a feed lies in the scope of an operator, auditor or administrator."""
    return not reads_only(principal) and all(
        principal.scope.covers(division, department)
        for division in feed.divisions or ("44",)
        for department in feed.departments or ("",)
    )


def demand_in_charge(principal: Principal, feed: Feed) -> None:
    """Return if the caller may change the entry of a feed. Raises `PermissionDenied`."""
    for division in feed.divisions or ("44",):
        for department in feed.departments or ("",):
            demand(principal, Action.CHANGE_FEEDS, division, department)


def _facts(entry: CatalogueEntry) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(entry, revision=0, sample=(), columns=()))
    return facts
