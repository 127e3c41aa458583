"""The administrative divisions of Guangdong as facts, and the arithmetic of their codes.

A code has a *short form*, used everywhere inside: ``44`` province, ``4401`` prefecture-level city, ``440106`` county,
``441900003`` town, 12 digits below. In this form "lies in" is "begins with". Dongguan (4419) and Zhongshan (4420) have
no counties: their towns hang on the city. Codes are dated and change: a code of the past is never refused as long as
its city is known.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files

import msgspec

from sensegate.errors import ConfigError, NotFound

_LENGTHS = (2, 4, 6, 9, 12)
# Digits that say "nothing below this" when they are all zero, by length of the code.
_TAIL = {12: 3, 9: 3, 6: 2, 4: 2}


class DivisionLevel(StrEnum):
    """Level of a division, from above."""

    PROVINCE = "province"
    PREFECTURE = "prefecture"
    COUNTY = "county"
    TOWNSHIP = "township"


class Division(msgspec.Struct, frozen=True, gc=False):
    """One division as of a date."""

    code: str
    """Short form."""
    full: str
    """As published: 6 digits down to the county, 9 for a town."""
    name_zh: str
    name_en: str
    """Pinyin with its kind; empty below the county."""
    level: DivisionLevel
    parent: str
    """Short form; empty for the province."""
    as_of: str


@lru_cache(maxsize=65_536)
def short_code(code: str) -> str:
    """Return the short form of a code (``440100`` -> ``4401``, ``441900003000`` -> ``441900003``).

    Raises:
        ConfigError: if it is not 2, 4, 6, 9 or 12 ASCII digits.
    """
    if len(code) not in _LENGTHS or not (code.isascii() and code.isdigit()):
        raise ConfigError(
            f"'{code[:20]}' is not a division code",
            key="division",
            remedy="give 2, 4, 6, 9 or 12 digits, e.g. 44, 4401, 440106 or 441900003",
        )
    while (tail := _TAIL.get(len(code))) and code.endswith("0" * tail):
        code = code[:-tail]
    return code


def contains(scope: str, code: str) -> bool:
    """Return whether the division `code` is `scope` or lies in it. Both in any form."""
    return short_code(code).startswith(short_code(scope))


class Divisions:
    """The table; made once, never changed while running."""

    def __init__(self, rows: list[Division]) -> None:
        self._by_code = {row.code: row for row in rows}
        self._children: dict[str, list[str]] = {}
        for row in rows:
            self._children.setdefault(row.parent, []).append(row.code)
        cities = [row.code for row in rows if row.level is DivisionLevel.PREFECTURE]
        self._without_counties = frozenset(
            city
            for city in cities
            if not any(self._by_code[child].level is DivisionLevel.COUNTY for child in self._children.get(city, []))
        )

    @classmethod
    def load(cls) -> Divisions:
        """Return the table that comes with the package; read once a process."""
        return _packaged()

    def __len__(self) -> int:
        return len(self._by_code)

    def __iter__(self) -> Iterator[Division]:
        return iter(self._by_code.values())

    def __contains__(self, code: str) -> bool:
        return short_code(code) in self._by_code

    def get(self, code: str) -> Division:
        """Return the division of a code in any form.

        Raises:
            NotFound: with the nearest code that exists.
        """
        try:
            return self._by_code[short_code(code)]
        except KeyError:
            near = difflib.get_close_matches(short_code(code), self._by_code, n=1, cutoff=0.6)
            hint = f"; the nearest is {near[0]} {self._by_code[near[0]].name_zh}" if near else ""
            raise NotFound(f"no division {code} as of the table's date{hint}") from None

    def children(self, code: str) -> list[Division]:
        """Return the divisions directly below, in the table's order."""
        return [self._by_code[child] for child in self._children.get(short_code(code), [])]

    def within(self, scope: str) -> list[Division]:
        """Return the division and all below it, in the table's order."""
        prefix = short_code(scope)
        return [row for row in self._by_code.values() if row.code.startswith(prefix)]

    @staticmethod
    def contains(scope: str, code: str) -> bool:
        """Return whether `code` is `scope` or lies in it."""
        return contains(scope, code)

    @staticmethod
    def city_of(code: str) -> str:
        """Return the prefecture-level city's code; the province's own for the province itself."""
        return short_code(code)[:4]

    def county_of(self, code: str) -> str:
        """Return the county's code, or the town's where the city has no counties; above them the place's own."""
        place = short_code(code)
        if place[:4] in self._without_counties:
            return place[:9] if len(place) >= 9 else place[:4]
        return place[:6] if len(place) >= 6 else place[:4]

    def region_of(self, code: str) -> tuple[str, str]:
        """Return (city, county) by which readings are filed on the log."""
        return self.city_of(code), self.county_of(code)

    def has_counties(self, city: str) -> bool:
        """Return whether a city has the county level (Dongguan and Zhongshan have not)."""
        return short_code(city) not in self._without_counties

    def check(self, code: str) -> tuple[str, str]:
        """Return (short form, warning): the warning says that the code itself is not in the table, e.g. is of the past.

        Raises:
            ConfigError: if it is not a code, or of no city of the table.
        """
        place = short_code(code)
        if place in self._by_code:
            return place, ""
        if place[:4] not in self._by_code:
            known = [row.code for row in self._by_code.values() if row.level is DivisionLevel.PREFECTURE]
            near = difflib.get_close_matches(place[:4], known, n=1, cutoff=0)
            raise ConfigError(
                f"division {code} is of no city known here",
                key="division",
                remedy=f"the nearest city is {near[0]} {self._by_code[near[0]].name_zh}",
            )
        below = len(place) == 12 and place[:9] in self._by_code
        return place, "" if below else f"division {place} is not in the table; kept, it may be of another year"


@lru_cache(maxsize=1)
def _packaged() -> Divisions:
    text = files("sensegate.authority").joinpath("divisions.csv").read_text(encoding="utf-8")
    rows = [
        Division(
            code=short_code(row["code"]),
            full=row["code"],
            name_zh=row["name_zh"],
            name_en=row["name_en"],
            level=DivisionLevel(row["level"]),
            parent=short_code(row["parent"]) if row["parent"] else "",
            as_of=row["as_of"],
        )
        for row in csv.DictReader(text.splitlines())
    ]
    return Divisions(rows)
