"""The administrative divisions of Guangdong, and the arithmetic of their codes.

A code has a *short form*, used everywhere: ``44`` province, ``4401`` prefecture-level city, ``440106`` county,
``441900003`` town, 12 digits below. In this form containment is a prefix test. Dongguan (4419) and Zhongshan (4420)
have no counties: their towns belong to the city directly. Codes change over the years: an outdated code is accepted as
long as its city is known.
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

EXTENT_MARGIN = 0.02
"""Degrees by which an extent is wider than its division: about 2 km, for stations at a border and for other datums."""
_LENGTHS = (2, 4, 6, 9, 12)
# Number of trailing digits that are zero if the code names a higher level, by length of the code.
_TRAILING_ZEROS = {12: 3, 9: 3, 6: 2, 4: 2}


class DivisionLevel(StrEnum):
    """The level of a division, from the top."""

    PROVINCE = "province"
    PREFECTURE = "prefecture"
    COUNTY = "county"
    TOWNSHIP = "township"


class Division(msgspec.Struct, frozen=True, gc=False):
    """A division as of a date."""

    code: str
    """Short form."""
    full: str
    """Published code: 6 digits down to the county, 9 for a town."""
    name_zh: str
    name_en: str
    """Pinyin with the kind of division; empty below the county."""
    level: DivisionLevel
    parent: str
    """Short form; empty for the province."""
    as_of: str


@lru_cache(maxsize=65_536)
def short_code(code: str) -> str:
    """Return the short form of a code (``440100`` -> ``4401``, ``441900003000`` -> ``441900003``).

    Raises:
        ConfigError: the code is not 2, 4, 6, 9 or 12 ASCII digits.
    """
    if len(code) not in _LENGTHS or not (code.isascii() and code.isdigit()):
        raise ConfigError(
            f"'{code[:20]}' is not a division code",
            key="division",
            remedy="give 2, 4, 6, 9 or 12 digits, e.g. 44, 4401, 440106 or 441900003",
        )
    while (tail := _TRAILING_ZEROS.get(len(code))) and code.endswith("0" * tail):
        code = code[:-tail]
    return code


def contains(scope: str, code: str) -> bool:
    """Return whether division `code` is `scope` or lies in it; both codes in any form."""
    return short_code(code).startswith(short_code(scope))


class DivisionExtent(msgspec.Struct, frozen=True, gc=False):
    """The rectangle around a division, with a margin; degrees, WGS-84."""

    west: float
    south: float
    east: float
    north: float

    def holds(self, lon: float, lat: float) -> bool:
        """Return whether a point lies in it."""
        return self.west <= lon <= self.east and self.south <= lat <= self.north


class Divisions:
    """The immutable table of divisions."""

    def __init__(self, rows: list[Division]) -> None:
        self._by_code = {row.code: row for row in rows}
        self._children: dict[str, list[str]] = {}
        for row in rows:
            self._children.setdefault(row.parent, []).append(row.code)
        self._extents = _packaged_extents()

    @classmethod
    def load(cls) -> Divisions:
        """Return the table of the package, which is read once per process."""
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
            NotFound: the table lacks the code; the message names the nearest one.
        """
        try:
            return self._by_code[short_code(code)]
        except KeyError:
            near = difflib.get_close_matches(short_code(code), self._by_code, n=1, cutoff=0.6)
            hint = f"; the nearest is {near[0]} {self._by_code[near[0]].name_zh}" if near else ""
            raise NotFound(f"there is no division {code} in the table{hint}") from None

    def children(self, code: str) -> list[Division]:
        """Return the direct subdivisions, in table order."""
        return [self._by_code[child] for child in self._children.get(short_code(code), [])]

    def within(self, scope: str) -> list[Division]:
        """Return the division and all its subdivisions, in table order."""
        prefix = short_code(scope)
        return [row for row in self._by_code.values() if row.code.startswith(prefix)]

    @staticmethod
    def contains(scope: str, code: str) -> bool:
        """Return whether `code` is `scope` or lies in it."""
        return contains(scope, code)

    @staticmethod
    def city_of(code: str) -> str:
        """Return the code of the prefecture-level city; for the province, its own code."""
        return short_code(code)[:4]

    def extent(self, code: str) -> DivisionExtent | None:
        """Return the extent of a division, of a town that of its county or city; None if it is not known."""
        place = short_code(code)
        return next((self._extents[part] for size in (6, 4, 2) if (part := place[:size]) in self._extents), None)

    def check(self, code: str) -> tuple[str, str]:
        """Return (short form, warning); the warning says that the code is not in the table.

        Raises:
            ConfigError: the text is not a code, or its city is not in the table.
        """
        place = short_code(code)
        if place in self._by_code:
            return place, ""
        if place[:4] not in self._by_code:
            known = [row.code for row in self._by_code.values() if row.level is DivisionLevel.PREFECTURE]
            near = difflib.get_close_matches(place[:4], known, n=1, cutoff=0)
            raise ConfigError(
                f"division {code} belongs to no city in the table",
                key="division",
                remedy=f"the nearest city is {near[0]} {self._by_code[near[0]].name_zh}",
            )
        below = len(place) == 12 and place[:9] in self._by_code
        return place, "" if below else f"division {place} is not in the table; it may be of another year"


@lru_cache(maxsize=1)
def _packaged_extents() -> dict[str, DivisionExtent]:
    """Return short code -> extent, down to the counties.

    `division_extents.csv` holds the bounds of the polygons that Tianditu publishes, rounded outwards to 0.01 degrees.
    """
    text = files("sensegate.authority").joinpath("division_extents.csv").read_text(encoding="utf-8")
    return {
        short_code(row["code"]): DivisionExtent(
            float(row["west"]) - EXTENT_MARGIN,
            float(row["south"]) - EXTENT_MARGIN,
            float(row["east"]) + EXTENT_MARGIN,
            float(row["north"]) + EXTENT_MARGIN,
        )
        for row in csv.DictReader(text.splitlines())
    }


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
