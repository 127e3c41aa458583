"""The property table: what can be measured, how we name it, in which unit, within which physical limits.

One row of `properties.csv` is one property. A profile maps each field of a device to one of them; everything
downstream (units, checks, feeds, labels) reads its row here.
"""

from __future__ import annotations

import csv
import difflib
from enum import StrEnum
from importlib import resources

import msgspec
import numpy as np

from sensegate.errors import ConfigError
from sensegate.model import BOOL, F64, U8

TABLE = "properties.csv"


class Kind(StrEnum):
    """What a value of the property is."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"


KINDS = tuple(Kind)
"""`Properties.kind` holds indices into this."""

COLUMNS = (
    "name",
    "kind",
    "unit",
    "domain",
    "label_zh",
    "label_en",
    "low",
    "high",
    "step",
    "stuck_h",
    "resolution",
    "counter",
)


class Property(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    """Standard name: ``air_temperature``."""
    kind: Kind
    unit: str
    """UCUM code of the canonical unit (``1`` for a pure number); empty for booleans and strings."""
    domain: str
    label_zh: str
    label_en: str
    low: float = float("-inf")
    high: float = float("inf")
    """Physical limits in the canonical unit; a value outside is marked bad, never removed."""
    step: float = float("inf")
    """Greatest credible change between neighbouring readings."""
    stuck_h: float = 0.0
    """A value that did not move at all for so many hours is doubtful; 0: it may rest for ever."""
    resolution: float = 0.0
    """Finest difference that means anything; 0: not said."""
    counter: bool = False
    """True: only rises, but for a reset or a roll-over."""


class Properties:
    """The table with its columns; row *i* of each column is the property with index *i*.

    The index is the property's place in the file: it is valid within this process and never written to the log.
    """

    def __init__(self, rows: list[Property]) -> None:
        self.rows = tuple(rows)
        self._index = {row.name: index for index, row in enumerate(rows)}
        self.names: tuple[str, ...] = tuple(self._index)
        self.kind: U8 = np.array([KINDS.index(row.kind) for row in rows], np.uint8)
        self.low: F64 = np.array([row.low for row in rows], np.float64)
        self.high: F64 = np.array([row.high for row in rows], np.float64)
        self.step: F64 = np.array([row.step for row in rows], np.float64)
        self.stuck_h: F64 = np.array([row.stuck_h for row in rows], np.float64)
        self.resolution: F64 = np.array([row.resolution for row in rows], np.float64)
        self.counter: BOOL = np.array([row.counter for row in rows], np.bool_)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __getitem__(self, index: int) -> Property:
        return self.rows[index]

    def find(self, name: str) -> int:
        """Return the index of a property, -1 if there is none of that name."""
        return self._index.get(name, -1)

    def index(self, name: str) -> int:
        """Return the index of a property.

        Raises:
            ConfigError: if there is none; it names the nearest right name.
        """
        found = self._index.get(name)
        if found is None:
            near = self.nearest(name)
            remedy = f"did you mean '{near}'?" if near else "see src/sensegate/properties.csv"
            raise ConfigError(f"no property is called '{name}'", remedy=remedy)
        return found

    def by_name(self, name: str) -> Property:
        """Return the row of a property; raises `ConfigError` as `index` does."""
        return self.rows[self.index(name)]

    def nearest(self, name: str) -> str:
        """Return the property name that looks most like `name`, or an empty string."""
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.6)
        return near[0] if near else ""


def parse(text: str, *, file: str = TABLE) -> Properties:
    """Return the table in CSV text.

    Raises:
        ConfigError: with file, line and column of the first thing that is wrong.
    """
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ConfigError("wrong columns", file=file, line=1, remedy=f"they are {','.join(COLUMNS)}")
    rows: list[Property] = []
    seen: set[str] = set()
    for cells in reader:
        row = _row({key: cell for key, cell in cells.items() if key and cell}, file, reader.line_num)
        if row.name in seen:
            raise ConfigError(f"'{row.name}' occurs twice", file=file, line=reader.line_num, key="name")
        seen.add(row.name)
        rows.append(row)
    return Properties(rows)


def _row(cells: dict[str, str], file: str, line: int) -> Property:
    try:
        row = msgspec.convert({"unit": "", **cells}, Property, strict=False)
    except msgspec.ValidationError as why:
        raise ConfigError(str(why), file=file, line=line) from why
    if (row.kind is Kind.NUMBER) != bool(row.unit):
        raise ConfigError("a number needs a unit, others have none", file=file, line=line, key="unit")
    if not row.low < row.high or row.step <= 0 or row.stuck_h < 0 or row.resolution < 0:
        raise ConfigError("low < high, step > 0, stuck_h and resolution >= 0", file=file, line=line, key=row.name)
    return row


PROPERTIES: Properties = parse(resources.files("sensegate").joinpath(TABLE).read_text(encoding="utf-8"))
"""The table in force."""
