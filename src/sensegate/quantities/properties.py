"""Property table: every measurable property with its name, unit and physical limits.

One row of `properties.csv` is one property. A profile maps each field of a device to a property; everything
downstream (units, checks, feeds, labels) reads its row here.
"""

from __future__ import annotations

import csv
import difflib
import re
from enum import StrEnum
from importlib import resources

import msgspec
import numpy as np

from sensegate.errors import ConfigError
from sensegate.model import BOOL, F64, U8

TABLE = "properties.csv"
CODE_TABLE = "codes.csv"


class ValueKind(StrEnum):
    """Data type of a property's value."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"


VALUE_KINDS = tuple(ValueKind)
"""Value kinds; `Properties.kind` holds indices into this."""

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
    "ngsi",
)
_NGSI = re.compile(r"[A-Z][A-Za-z0-9]*\.[A-Za-z][A-Za-z0-9_]*")


class Property(msgspec.Struct, frozen=True):
    """A row of the property table."""

    name: str
    """Standard name: ``air_temperature``."""
    kind: ValueKind
    unit: str
    """UCUM code of the canonical unit (``1`` for a dimensionless number); empty for booleans and strings."""
    domain: str
    label_zh: str
    label_en: str
    low: float = float("-inf")
    high: float = float("inf")
    """Physical limits in the canonical unit; a value outside is marked bad, never removed."""
    step: float = float("inf")
    """Greatest credible change between neighbouring readings; infinite where any change is credible (a switched load,
    a direction, the sum of a period)."""
    stuck_h: float = 0.0
    """Hours without any change after which a value is doubtful; 0: a value may stay constant forever."""
    resolution: float = 0.0
    """Finest meaningful difference; 0: not specified."""
    counter: bool = False
    """True if the value only rises, except for a reset or a roll-over."""
    usual_low: float = 0.0
    usual_high: float = float("inf")
    """Nearly all readings other than 0 lie in this band. A series that stays outside, and would be inside if it were a
    thousand times as large or as small, probably has a wrong unit: mg for ug, mV for V."""
    codes: str = ""
    """Table of `codes.csv` that lists the allowed values of a string; empty: any string."""
    ngsi: str = ""
    """``Type.attribute`` of NGSI-LD, by Smart Data Models where these have it: ``WeatherObserved.temperature``."""

    def unit_error_factor(self, value: float) -> float:
        """Return 1000 or 0.001 if `value` is outside the usual band but within it after that factor, else 1."""
        size = abs(value)
        if not size or self.usual_low <= size <= self.usual_high:
            return 1.0
        factor = 1000.0 if size < self.usual_low else 0.001
        return factor if self.usual_low <= size * factor <= self.usual_high else 1.0


class CodeValue(msgspec.Struct, frozen=True):
    """An allowed value of a string property, with its labels."""

    code: str
    label_zh: str
    label_en: str


CODE_COLUMNS = ("table", "code", "label_zh", "label_en")


class Properties:
    """The property table as columns; row *i* of each column is the property with index *i*.

    The index is the position in the file. It is valid within this process only and is never written to the log.
    """

    def __init__(self, rows: list[Property]) -> None:
        self.rows = tuple(rows)
        self._index = {row.name: index for index, row in enumerate(rows)}
        self.names: tuple[str, ...] = tuple(self._index)
        self.kind: U8 = np.array([VALUE_KINDS.index(row.kind) for row in rows], np.uint8)
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
        """Return the index of a property, -1 if the name is unknown."""
        return self._index.get(name, -1)

    def index(self, name: str) -> int:
        """Return the index of a property.

        Raises:
            ConfigError: if the name is unknown; the error suggests the nearest known name.
        """
        position = self._index.get(name)
        if position is None:
            near = self.nearest(name)
            remedy = f"did you mean '{near}'?" if near else "see src/sensegate/quantities/properties.csv"
            raise ConfigError(f"the property '{name}' is unknown", remedy=remedy)
        return position

    def by_name(self, name: str) -> Property:
        """Return the row of a property; raises `ConfigError` as `index` does."""
        return self.rows[self.index(name)]

    def nearest(self, name: str) -> str:
        """Return the property name most similar to `name`, or an empty string."""
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.6)
        return near[0] if near else ""


def parse(text: str, *, file: str = TABLE) -> Properties:
    """Parse the property table from CSV text.

    Raises:
        ConfigError: with file, line and column of the first error.
    """
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ConfigError("the columns are wrong", file=file, line=1, remedy=f"use {','.join(COLUMNS)}")
    rows: list[Property] = []
    seen: set[str] = set()
    attributes: set[str] = set()
    for cells in reader:
        row = _row({key: cell for key, cell in cells.items() if key and cell}, file, reader.line_num)
        if row.name in seen:
            raise ConfigError(f"'{row.name}' occurs twice", file=file, line=reader.line_num, key="name")
        if row.ngsi and row.ngsi in attributes:
            raise ConfigError(f"'{row.ngsi}' occurs twice", file=file, line=reader.line_num, key="ngsi")
        seen.add(row.name)
        attributes.add(row.ngsi)
        rows.append(row)
    return Properties(rows)


def _row(cells: dict[str, str], file: str, line: int) -> Property:
    try:
        row = msgspec.convert({"unit": "", **cells}, Property, strict=False)
    except msgspec.ValidationError as why:
        raise ConfigError(str(why), file=file, line=line) from why
    if (row.kind is ValueKind.NUMBER) != bool(row.unit):
        raise ConfigError("only a number has a unit, and it must have one", file=file, line=line, key="unit")
    if not row.low < row.high or row.step <= 0 or row.stuck_h < 0 or row.resolution < 0:
        raise ConfigError(
            "a limit is out of range; low < high, step > 0, stuck_h >= 0 and resolution >= 0 must hold",
            file=file,
            line=line,
            key=row.name,
        )
    if not 0 <= row.usual_low < row.usual_high:
        raise ConfigError("0 <= usual_low < usual_high does not hold", file=file, line=line, key=row.name)
    if row.ngsi and not _NGSI.fullmatch(row.ngsi):
        raise ConfigError(
            f"'{row.ngsi}' is not a type and an attribute",
            file=file,
            line=line,
            key="ngsi",
            remedy="give for example WeatherObserved.temperature",
        )
    if row.codes and (row.kind is not ValueKind.STRING or row.codes not in CODES):
        remedy = f"use a table of codes.csv: {', '.join(CODES)}"
        raise ConfigError(
            "codes need a string property and a known code table", file=file, line=line, key="codes", remedy=remedy
        )
    return row


def parse_codes(text: str, *, file: str = CODE_TABLE) -> dict[str, dict[str, CodeValue]]:
    """Parse the code tables from CSV text: table -> value -> labels, in the order of the file.

    Raises:
        ConfigError: with file and line of the first error.
    """
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != CODE_COLUMNS:
        raise ConfigError("the columns are wrong", file=file, line=1, remedy=f"use {','.join(CODE_COLUMNS)}")
    tables: dict[str, dict[str, CodeValue]] = {}
    for cells in reader:
        name, code, zh, en = (cells[column] or "" for column in CODE_COLUMNS)
        if not (name and code and zh and en):
            raise ConfigError("a cell is empty", file=file, line=reader.line_num)
        if code in tables.setdefault(name, {}):
            raise ConfigError(f"'{code}' occurs twice", file=file, line=reader.line_num, key=name)
        tables[name][code] = CodeValue(code, zh, en)
    return tables


def _packaged(name: str) -> str:
    return resources.files("sensegate.quantities").joinpath(name).read_text(encoding="utf-8")


CODES: dict[str, dict[str, CodeValue]] = parse_codes(_packaged(CODE_TABLE))
"""Table -> value -> labels; `Property.codes` names the table."""

PROPERTIES: Properties = parse(_packaged(TABLE))
"""The packaged property table."""
