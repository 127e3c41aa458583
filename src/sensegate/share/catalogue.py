"""The data set catalogue: one entry for each feed, its completeness, and its exports.

An entry is a draft until it has the five fields that the national reform requires of every data set (department,
source, update mechanism, quality standard, usage) and what its sharing class requires; drafts are visible in their own
scope only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.errors import ConfigError, Conflict
from sensegate.share.feeds import GRADE_MAX
from sensegate.share.records import csv_cell
from sensegate.share.text_folding import fold


class SharingClass(StrEnum):
    """Sharing class by the national rules."""

    UNCONDITIONAL = "unconditional"
    """無條件共享: an application is granted at once."""
    CONDITIONAL = "conditional"
    """有條件共享: the owner decides on each application."""
    NOT_SHARED = "not_shared"
    """不予共享: its existence is hidden outside its scope."""


class DatasetKind(StrEnum):
    """Kind of the data set."""

    BASE = "base"
    THEME = "theme"
    DEPARTMENT = "department"


class Provider(StrEnum):
    """Kind of organisation that provides a data set."""

    GOVERNMENT = "government"
    PUBLIC = "public"
    ENTERPRISE = "enterprise"
    SOCIAL = "social"


class Cadence(StrEnum):
    """Update frequency of a data set."""

    REALTIME = "realtime"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    YEARLY = "yearly"
    IRREGULAR = "irregular"


class QualityIndicators(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Indicators of data quality, 0 to 1, as promised (the least value) or as measured; None: unknown."""

    authenticity: float | None = None
    accuracy: float | None = None
    continuity: float | None = None
    completeness: float | None = None


class DatasetColumn(msgspec.Struct, frozen=True):
    """Property that occurs in the data of a feed."""

    name: str
    kind: str = ""
    unit: str = ""
    label_zh: str = ""
    label_en: str = ""
    rows: int = 0
    """Number of sampled records with this property."""


class CatalogueEntry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Catalogue entry of a feed."""

    feed: str
    title: str = ""
    """Title in Chinese."""
    title_en: str = ""
    summary: str = ""
    summary_en: str = ""
    department: str = ""
    """責任部門: department responsible for the data."""
    source: str = ""
    """數據源頭: instruments or systems that produce the data."""
    update: str = ""
    """更新機制: how and when the data is updated."""
    quality: str = ""
    """質量標準: the standard to which the data conforms."""
    usage: str = ""
    """使用方法: permitted use, and how the data is read."""
    sharing: SharingClass = SharingClass.CONDITIONAL
    conditions: str = ""
    """For `conditional`, what an applicant must provide; for `not_shared`, the reason."""
    legal_basis: str = ""
    """Rule that requires `conditional` or `not_shared`."""
    grade: int = 0
    """1 to 4; 0: not yet said. Never below the highest grade in the feed without `grade_reason`."""
    grade_reason: str = ""
    """Reason why the grade is lower than that of the source data (an aggregation)."""
    grade_floor: int = 0
    """Least grade of what nodes send of the feed's properties and departments: a lower one is raised. 0: none."""
    domain: str = ""
    kind: DatasetKind | None = None
    provider: Provider = Provider.GOVERNMENT
    provider_name: str = ""
    provider_code: str = ""
    """Unified social credit code (GB 32100), 18 characters."""
    funding: str = ""
    """Source of the funding."""
    coverage: str = ""
    """Area and time in words, beside the divisions of the feed."""
    cadence: Cadence | None = None
    open: bool = False
    """True if the data is also open to the public."""
    promise: QualityIndicators = QualityIndicators()
    level: str = ""
    """Division whose level owns the data and decides on applications; short code."""
    code: str = ""
    """Code assigned by the centre."""
    origin: str = ""
    """Division of the node from which the entry was synchronised; empty: created here."""
    columns: tuple[DatasetColumn, ...] = ()
    """Properties found in the data."""
    sample: tuple[str, ...] = ()
    """Example records (JSON) in the form in which everybody may see them."""
    sampled: int = 0
    """Time when `columns` and `sample` were taken from the data, µs UTC; 0: never."""
    measured: QualityIndicators = QualityIndicators()
    """Indicators reported by the node that owns the entry."""
    published: int = 0
    """Time when the entry was first complete, µs UTC; 0: it is a draft."""
    changed: int = 0
    revision: int = 0
    format: int = 1


REQUIRED_FIELDS = ("department", "source", "update", "quality", "usage")
"""The five fields that the reform plan requires."""
_CODE_TRIES = 20
_TEXT_MAX = 2_000
_CREDIT = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)


def missing_fields(entry: CatalogueEntry) -> list[str]:
    """Return what the entry lacks to be complete, each as ``field: what to write``; empty: it is complete."""
    problems = [
        f"{name}: is missing; every entry needs it" for name in REQUIRED_FIELDS if not getattr(entry, name).strip()
    ]
    problems += [
        f"{name}: is missing; write it" for name in ("title", "title_en", "domain") if not getattr(entry, name).strip()
    ]
    if not entry.grade:
        problems.append("grade: is missing; give 1 to 4, at least the grade of the data")
    if entry.kind is None:
        problems.append(f"kind: is missing; give {', '.join(DatasetKind)}")
    if entry.cadence is None:
        problems.append(f"cadence: is missing; give {', '.join(Cadence)}")
    if entry.sharing is not SharingClass.UNCONDITIONAL:
        problems += [
            f"{name}: is missing; sharing class {entry.sharing} requires it"
            for name in ("conditions", "legal_basis")
            if not getattr(entry, name).strip()
        ]
    if entry.provider is not Provider.GOVERNMENT and not entry.provider_name.strip():
        problems.append(f"provider_name: is missing; a provider of kind {entry.provider} needs a name")
    return problems


def check_entry(entry: CatalogueEntry) -> None:
    """Return if the values of an entry are valid; the entry may be incomplete.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    if not 0 <= entry.grade <= 4:
        raise ConfigError(
            f"{entry.grade} is not a grade", key="grade", remedy="give 1 to 4, or 0 while it is not known"
        )
    if not 0 <= entry.grade_floor <= 4:
        raise ConfigError(f"{entry.grade_floor} is not a grade", key="grade_floor", remedy="give 1 to 4, or 0 for none")
    for name in entry.__struct_fields__:
        if isinstance(value := getattr(entry, name), str) and len(value) > _TEXT_MAX:
            raise ConfigError(f"the text has {len(value)} characters", key=name, remedy=f"write at most {_TEXT_MAX}")
    if entry.provider_code and not is_credit_code(entry.provider_code):
        raise ConfigError(
            f"'{entry.provider_code[:24]}' is not a unified social credit code",
            key="provider_code",
            remedy="give 18 characters of GB 32100 with the check character",
        )
    for name in QualityIndicators.__struct_fields__:
        value = getattr(entry.promise, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{value} is not a share", key=f"promise.{name}", remedy="give 0 to 1")


def is_credit_code(code: str) -> bool:
    """Return whether a text is a unified social credit code: 18 characters, the last a check character (mod 31)."""
    if len(code) != 18 or not set(code) <= set(_CREDIT):
        return False
    total = sum(_CREDIT.index(character) * weight for character, weight in zip(code, _CREDIT_WEIGHTS, strict=False))
    return _CREDIT[-total % 31] == code[-1]


class LastCode(msgspec.Struct, frozen=True):
    """Highest code number assigned under one prefix, including codes of deleted entries."""

    number: int
    revision: int = 0
    format: int = 1


class DatasetCatalogue:
    """All catalogue entries of this gateway."""

    def __init__(self, store: RecordStore) -> None:
        self._last_codes: RecordTable[LastCode] = RecordTable(store, "code", LastCode)
        self.records: RecordTable[CatalogueEntry] = RecordTable(store, "entry", CatalogueEntry)

    def find(self, feed: str) -> CatalogueEntry | None:
        """Return the entry of a feed; None: it has none."""
        return self.records.find(feed)

    def demands_grant(self, feed: str) -> bool:
        """Return whether reading the feed requires a grant: its published entry is not shared unconditionally."""
        entry = self.records.find(feed)
        return entry is not None and bool(entry.published) and entry.sharing is not SharingClass.UNCONDITIONAL

    def is_core(self, feed: str) -> bool:
        """Return whether the feed is classified as core, which is never shared."""
        entry = self.records.find(feed)
        return entry is not None and entry.grade >= GRADE_MAX

    async def next_code(self, level: str, kind: DatasetKind | None) -> str:
        """Return an unused code of a level: ``<division, 6 digits>-<kind>-<number>``. Raises `Conflict`."""
        stem = f"{level:0<6}-{(kind or DatasetKind.DEPARTMENT).value}-"
        for _ in range(_CODE_TRIES):
            known = self._last_codes.find(stem) or LastCode(0)
            used = [int(record.code.removeprefix(stem)) for record in self.records if record.code.startswith(stem)]
            number = max([known.number, *used]) + 1
            try:
                # Written before it is used, so that concurrent calls get different codes and none is assigned twice.
                await self._last_codes.put(stem, msgspec.structs.replace(known, number=number), expected=known.revision)
            except Conflict:
                await asyncio.sleep(0)
                continue
            return f"{stem}{number:06d}"
        raise Conflict("too many codes are being assigned at once; try again")


def matches_search(entry: CatalogueEntry, text: str) -> bool:
    """Return whether the entry contains every word of a search, in simplified or traditional Chinese or English."""
    whole = fold(
        "\n".join(
            str(value) for name in entry.__struct_fields__ if isinstance(value := getattr(entry, name), str) and value
        )
    )
    return all(word in whole for word in fold(text).split())


# ── exports ───────────────────────────────────────────────────────────────────────────────────────────────

_CONTEXT = {
    "dcat": "http://www.w3.org/ns/dcat#",
    "dct": "http://purl.org/dc/terms/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "sg": "urn:sensegate:catalogue#",
}
_PERIODS = {
    Cadence.REALTIME: "CONT",
    Cadence.HOURLY: "HOURLY",
    Cadence.DAILY: "DAILY",
    Cadence.WEEKLY: "WEEKLY",
    Cadence.MONTHLY: "MONTHLY",
    Cadence.QUARTERLY: "QUARTERLY",
    Cadence.YEARLY: "ANNUAL",
    Cadence.IRREGULAR: "IRREG",
}
_EU = "http://publications.europa.eu/resource/authority/frequency/"
CSV_COLUMNS = (
    "code",
    "feed",
    "title",
    "title_en",
    "summary",
    "summary_en",
    *REQUIRED_FIELDS,
    "sharing",
    "conditions",
    "legal_basis",
    "grade",
    "domain",
    "kind",
    "provider",
    "provider_name",
    "provider_code",
    "funding",
    "coverage",
    "cadence",
    "open",
    "level",
    "published",
)


def dcat(entries: Iterable[CatalogueEntry], *, title: str) -> dict[str, Any]:
    """Return the entries as a DCAT catalogue in JSON-LD."""
    return {
        "@context": _CONTEXT,
        "@type": "dcat:Catalog",
        "dct:title": [{"@value": title, "@language": "zh"}],
        "dcat:dataset": [_dataset(entry) for entry in entries],
    }


def _dataset(entry: CatalogueEntry) -> dict[str, Any]:
    path = f"/api/v1/feeds/{entry.feed}"
    dataset = {
        "@id": f"urn:sensegate:feed:{entry.feed}",
        "@type": "dcat:Dataset",
        "dct:identifier": entry.code or entry.feed,
        "dct:title": _language_values(entry.title, entry.title_en),
        "dct:description": _language_values(entry.summary, entry.summary_en),
        "dct:publisher": {"@type": "foaf:Organization", "foaf:name": entry.department},
        "dct:source": entry.source,
        "dct:provenance": entry.update,
        "dct:conformsTo": entry.quality,
        "dct:accrualPeriodicity": {"@id": _EU + _PERIODS[entry.cadence]} if entry.cadence else None,
        "dct:spatial": entry.coverage or entry.level,
        "dct:issued": _day(entry.published),
        "dct:accessRights": entry.sharing.value,
        "dct:rights": entry.usage,
        "dcat:theme": entry.domain,
        "sg:grade": entry.grade,
        "sg:kind": entry.kind.value if entry.kind else None,
        "sg:conditions": entry.conditions,
        "sg:legalBasis": entry.legal_basis,
        "dcat:distribution": [
            {"@type": "dcat:Distribution", "dcat:accessURL": f"{path}/records", "dcat:mediaType": "application/json"},
            {"@type": "dcat:Distribution", "dcat:accessURL": f"{path}/stream", "dcat:mediaType": "text/event-stream"},
        ],
    }
    # Empty members are left out: in JSON-LD an empty text would be a statement.
    return {key: value for key, value in dataset.items() if value not in (None, "", [])}


def _language_values(zh: str, en: str) -> list[dict[str, str]]:
    return [{"@value": text, "@language": language} for text, language in ((zh, "zh"), (en, "en")) if text]


def _day(time: int) -> str:
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if time else ""


def as_csv(entries: Iterable[CatalogueEntry]) -> str:
    """Return the entries as CSV (`CSV_COLUMNS`) with a byte order mark, safe against formula injection."""
    lines = [",".join(CSV_COLUMNS)]
    for entry in entries:
        values = {**{name: getattr(entry, name) for name in CSV_COLUMNS}, "published": _day(entry.published)}
        lines.append(",".join(csv_cell("" if value is None else str(value)) for value in values.values()))
    return "\ufeff" + "".join(f"{line}\r\n" for line in lines)
