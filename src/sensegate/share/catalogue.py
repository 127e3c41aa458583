"""The catalogue: what is said about each feed, what is still missing of it, and how it is exported.

An entry is a draft until the five fields that the reform asks of every data set are there (department, source, update
mechanism, quality standard, usage) and what its sharing class demands; only a complete one is seen outside its scope.
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
from sensegate.share.han import folded
from sensegate.share.records import csv_cell


class Sharing(StrEnum):
    """Sharing class of the national rules."""

    UNCONDITIONAL = "unconditional"
    """無條件共享: an application is granted at once."""
    CONDITIONAL = "conditional"
    """有條件共享: the owner decides on each application."""
    NOT_SHARED = "not_shared"
    """不予共享: nobody outside sees that it is there."""


class Kind(StrEnum):
    """Kind of the data set."""

    BASE = "base"
    THEME = "theme"
    DEPARTMENT = "department"


class Provider(StrEnum):
    """Who provides it."""

    GOVERNMENT = "government"
    PUBLIC = "public"
    ENTERPRISE = "enterprise"
    SOCIAL = "social"


class Cadence(StrEnum):
    """How often it is updated."""

    REALTIME = "realtime"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    YEARLY = "yearly"
    IRREGULAR = "irregular"


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least value of each indicator that the owner promises, 0 to 1; None: nothing is promised."""

    authenticity: float | None = None
    accuracy: float | None = None
    continuity: float | None = None
    completeness: float | None = None


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """A property that occurs in the data."""

    name: str
    kind: str = ""
    unit: str = ""
    label_zh: str = ""
    label_en: str = ""
    rows: int = 0
    """Among the records that were looked at."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is said about a feed."""

    feed: str
    title: str = ""
    """In Chinese."""
    title_en: str = ""
    summary: str = ""
    summary_en: str = ""
    department: str = ""
    """責任部門: who answers for the data."""
    source: str = ""
    """數據源頭: what it is measured with, or where it comes from."""
    update: str = ""
    """更新機制: how and when it changes."""
    quality: str = ""
    """質量標準: the standard that it holds to."""
    usage: str = ""
    """使用方法: what it may be used for and how it is read."""
    sharing: Sharing = Sharing.CONDITIONAL
    conditions: str = ""
    """Of `conditional`: what an applicant must bring. Of `not_shared`: why."""
    legal_basis: str = ""
    """Of both: the rule that demands it."""
    grade: int = 0
    """1 to 4; 0: not yet said. Never below the highest grade in the feed without `grade_reason`."""
    grade_reason: str = ""
    """Why the grade is lower than that of the data it is made of (an aggregation)."""
    grade_floor: int = 0
    """Least grade of what nodes send of the feed's properties and departments: a lower one is raised. 0: none."""
    domain: str = ""
    kind: Kind | None = None
    provider: Provider = Provider.GOVERNMENT
    provider_name: str = ""
    provider_code: str = ""
    """Unified social credit code (GB 32100), 18 characters."""
    funding: str = ""
    """Where the money came from."""
    coverage: str = ""
    """Area and time in words, beside the divisions of the feed."""
    cadence: Cadence | None = None
    open: bool = False
    """Also open to the public."""
    promise: Promise = Promise()
    level: str = ""
    """Division whose level owns the data and decides on applications; short code."""
    code: str = ""
    """Given by the centre."""
    origin: str = ""
    """Division of the node from which it was synchronised; empty: made here."""
    columns: tuple[Column, ...] = ()
    """What the data holds, as it was found in it."""
    sample: tuple[str, ...] = ()
    """Some records (JSON) as the owner lets everybody see them."""
    drawn: int = 0
    """When both were made of the data, µs UTC; 0: never."""
    measured: Promise = Promise()
    """Indicators as the node that keeps the entry told them."""
    published: int = 0
    """When it was first complete, µs UTC; 0: it is a draft."""
    changed: int = 0
    revision: int = 0
    format: int = 1


FIVE = ("department", "source", "update", "quality", "usage")
"""The reform plan's five fields."""
_CODE_TRIES = 20
_TEXT_MAX = 2_000
_CREDIT = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)


def missing(entry: Entry) -> list[str]:
    """Return what is missing until the entry is complete, each as ``field: what to write``; empty: nothing."""
    found = [f"{name}: write it; the catalogue demands it" for name in FIVE if not getattr(entry, name).strip()]
    found += [f"{name}: write it" for name in ("title", "title_en", "domain") if not getattr(entry, name).strip()]
    if not entry.grade:
        found.append("grade: 1 to 4, at least that of its data")
    if entry.kind is None:
        found.append(f"kind: {', '.join(Kind)}")
    if entry.cadence is None:
        found.append(f"cadence: {', '.join(Cadence)}")
    if entry.sharing is not Sharing.UNCONDITIONAL:
        found += [
            f"{name}: {entry.sharing} demands it"
            for name in ("conditions", "legal_basis")
            if not getattr(entry, name).strip()
        ]
    if entry.provider is not Provider.GOVERNMENT and not entry.provider_name.strip():
        found.append(f"provider_name: a provider of kind {entry.provider} has a name")
    return found


def check(entry: Entry) -> None:
    """Return if what is said can be so; something may be missing.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    if not 0 <= entry.grade <= 4:
        raise ConfigError(str(entry.grade), key="grade", remedy="1 to 4, or 0 while it is not known")
    if not 0 <= entry.grade_floor <= 4:
        raise ConfigError(str(entry.grade_floor), key="grade_floor", remedy="1 to 4, or 0 for none")
    for name in entry.__struct_fields__:
        if isinstance(value := getattr(entry, name), str) and len(value) > _TEXT_MAX:
            raise ConfigError(f"{len(value)} characters", key=name, remedy=f"at most {_TEXT_MAX}")
    if entry.provider_code and not credit_code(entry.provider_code):
        raise ConfigError(
            f"'{entry.provider_code[:24]}'", key="provider_code", remedy="18 characters of GB 32100 with its check sign"
        )
    for name in Promise.__struct_fields__:
        value = getattr(entry.promise, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(str(value), key=f"promise.{name}", remedy="a share, 0 to 1")


def credit_code(code: str) -> bool:
    """Return whether a text is a unified social credit code: 18 signs, the last one a check (mod 31)."""
    if len(code) != 18 or not set(code) <= set(_CREDIT):
        return False
    total = sum(_CREDIT.index(sign) * weight for sign, weight in zip(code, _CREDIT_WEIGHTS, strict=False))
    return _CREDIT[-total % 31] == code[-1]


def inherited(grades: Iterable[int], *, reason: str = "", lowered: int = 0) -> int:
    """Return the grade of what is made of data of these grades: the highest, unless a reason lowers it."""
    highest = max(grades, default=1)
    return lowered if reason and 0 < lowered < highest else max(highest, lowered)


class Given(msgspec.Struct, frozen=True):
    """The highest number of a code that was given in one place, also to entries that are no more."""

    number: int
    revision: int = 0
    format: int = 1


class Catalogue:
    """All entries of this gateway."""

    def __init__(self, shelf: RecordStore) -> None:
        self._given: RecordTable[Given] = RecordTable(shelf, "code", Given)
        self.records: RecordTable[Entry] = RecordTable(shelf, "entry", Entry)

    def find(self, feed: str) -> Entry | None:
        """Return what is said about a feed; None: nothing yet."""
        return self.records.find(feed)

    def demands_grant(self, feed: str) -> bool:
        """Return whether a complete entry says that the feed is not for everybody in its scope."""
        entry = self.records.find(feed)
        return entry is not None and bool(entry.published) and entry.sharing is not Sharing.UNCONDITIONAL

    def core(self, feed: str) -> bool:
        """Return whether an entry says that the feed is of the grade that is shared with nobody."""
        entry = self.records.find(feed)
        return entry is not None and entry.grade >= GRADE_MAX

    async def next_code(self, level: str, kind: Kind | None) -> str:
        """Return a code of a level that nobody had: ``<division, 6 digits>-<kind>-<number>``. Raises `Conflict`."""
        stem = f"{level:0<6}-{(kind or Kind.DEPARTMENT).value}-"
        for _ in range(_CODE_TRIES):
            known = self._given.find(stem) or Given(0)
            used = [int(one.code.removeprefix(stem)) for one in self.records if one.code.startswith(stem)]
            number = max([known.number, *used]) + 1
            try:
                # Written before it is used: two who ask at once get two, and none is given twice.
                await self._given.put(stem, msgspec.structs.replace(known, number=number), expected=known.revision)
            except Conflict:
                await asyncio.sleep(0)
                continue
            return f"{stem}{number:06d}"
        raise Conflict("codes are given to too many at once; try again")


def found(entry: Entry, text: str) -> bool:
    """Return whether every word of a search stands somewhere in the entry: Chinese, simplified or not, or English."""
    whole = folded(
        "\n".join(
            str(value) for name in entry.__struct_fields__ if isinstance(value := getattr(entry, name), str) and value
        )
    )
    return all(word in whole for word in folded(text).split())


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
    *FIVE,
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


def dcat(entries: Iterable[Entry], *, title: str) -> dict[str, Any]:
    """Return the entries as a DCAT catalogue in JSON-LD."""
    return {
        "@context": _CONTEXT,
        "@type": "dcat:Catalog",
        "dct:title": [{"@value": title, "@language": "zh"}],
        "dcat:dataset": [_dataset(entry) for entry in entries],
    }


def _dataset(entry: Entry) -> dict[str, Any]:
    path = f"/api/v1/feeds/{entry.feed}"
    said = {
        "@id": f"urn:sensegate:feed:{entry.feed}",
        "@type": "dcat:Dataset",
        "dct:identifier": entry.code or entry.feed,
        "dct:title": _said(entry.title, entry.title_en),
        "dct:description": _said(entry.summary, entry.summary_en),
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
    # What is not said is left out: in JSON-LD an empty text would be a statement.
    return {key: value for key, value in said.items() if value not in (None, "", [])}


def _said(zh: str, en: str) -> list[dict[str, str]]:
    return [{"@value": text, "@language": language} for text, language in ((zh, "zh"), (en, "en")) if text]


def _day(time: int) -> str:
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if time else ""


def as_csv(entries: Iterable[Entry]) -> str:
    """Return the entries as CSV (`CSV_COLUMNS`) that no spreadsheet takes for formulas, with a byte order mark."""
    lines = [",".join(CSV_COLUMNS)]
    for entry in entries:
        values = {**{name: getattr(entry, name) for name in CSV_COLUMNS}, "published": _day(entry.published)}
        lines.append(",".join(csv_cell("" if value is None else str(value)) for value in values.values()))
    return "\ufeff" + "".join(f"{line}\r\n" for line in lines)
