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
CODE_TABLE = "codes.csv"


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
    "usual_low",
    "usual_high",
    "codes",
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
    """Greatest credible change between neighbouring readings; infinite where any is (a load that is switched, a
    direction, the sum of a period)."""
    stuck_h: float = 0.0
    """A value that did not move at all for so many hours is doubtful; 0: it may rest for ever."""
    resolution: float = 0.0
    """Finest difference that means anything; 0: not said."""
    counter: bool = False
    """True: only rises, but for a reset or a roll-over."""
    usual_low: float = 0.0
    usual_high: float = float("inf")
    """Nearly all readings other than 0 lie in this band. A series that stays outside, and would be inside a thousand
    times as large or as small, has probably a wrong unit: mg for ug, mV for V."""
    codes: str = ""
    """Table of `codes.csv` with the words that the string may be; empty: any."""

    def a_thousand_off(self, value: float) -> float:
        """Return 1000 or 0.001 where the value is out of the usual band and that many times it is within; else 1."""
        size = abs(value)
        if not size or self.usual_low <= size <= self.usual_high:
            return 1.0
        factor = 1000.0 if size < self.usual_low else 0.001
        return factor if self.usual_low <= size * factor <= self.usual_high else 1.0


class Code(msgspec.Struct, frozen=True):
    """One word that a string property may hold."""

    code: str
    label_zh: str
    label_en: str


CODE_COLUMNS = ("table", "code", "label_zh", "label_en")


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
        self.usual_low: F64 = np.array([row.usual_low for row in rows], np.float64)
        self.usual_high: F64 = np.array([row.usual_high for row in rows], np.float64)

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
            remedy = f"did you mean '{near}'?" if near else "see src/sensegate/quantities/properties.csv"
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
    if not 0 <= row.usual_low < row.usual_high:
        raise ConfigError("0 <= usual_low < usual_high", file=file, line=line, key=row.name)
    if row.codes and (row.kind is not Kind.STRING or row.codes not in CODES):
        remedy = f"tables of codes.csv: {', '.join(CODES)}"
        raise ConfigError(
            "only a string has codes, of a table that is there", file=file, line=line, key="codes", remedy=remedy
        )
    return row


def parse_codes(text: str, *, file: str = CODE_TABLE) -> dict[str, dict[str, Code]]:
    """Return the tables of codes in CSV text: table -> code -> what it means, in the order of the file.

    Raises:
        ConfigError: with file and line of the first thing that is wrong.
    """
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != CODE_COLUMNS:
        raise ConfigError("wrong columns", file=file, line=1, remedy=f"they are {','.join(CODE_COLUMNS)}")
    tables: dict[str, dict[str, Code]] = {}
    for cells in reader:
        name, code, zh, en = (cells[column] or "" for column in CODE_COLUMNS)
        if not (name and code and zh and en):
            raise ConfigError("a cell is empty", file=file, line=reader.line_num)
        if code in tables.setdefault(name, {}):
            raise ConfigError(f"'{code}' occurs twice", file=file, line=reader.line_num, key=name)
        tables[name][code] = Code(code, zh, en)
    return tables


def _packaged(name: str) -> str:
    return resources.files("sensegate.quantities").joinpath(name).read_text(encoding="utf-8")


CODES: dict[str, dict[str, Code]] = parse_codes(_packaged(CODE_TABLE))
"""Table -> code -> meaning; `Property.codes` names the table."""

PROPERTIES: Properties = parse(_packaged(TABLE))
"""The table in force."""
