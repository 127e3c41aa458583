"""Tables of text: delimited (CSV) or of fixed width. The tree is a list of rows, each an object by column; all text.

An empty field is null. A row with more or fewer fields than there are columns is refused, whole message and all: it was
cut or does not have the layout, and the values would stand under wrong names.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import ELEMENTS_MAX, MEMBERS_MAX, Format, Frame, Parse, Setting
from sensegate.decode.part import Part, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

BLANK = " "
_COMMA_NUMBER = re.compile(r"[-+]?(?:\d+,\d*|,\d+)(?:[eE][-+]?\d+)?", re.ASCII)


class CsvPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the table is written."""

    columns: Annotated[
        tuple[str, ...], description("names of the columns (empty: left out); absent: the first line names them")
    ] = ()
    delimiter: Annotated[str, description("between fields; a blank is any run of blanks and tabs")] = ","
    quote: Annotated[str, description("around fields that hold delimiters; empty: there is none")] = '"'
    decimal: Annotated[Literal[".", ","], description("between the whole part and the decimals of numbers")] = "."
    missing: Annotated[tuple[str, ...], description("marks that mean: not measured (an empty field always does)")] = ()
    comment: Annotated[str, description("lines that begin so are passed over")] = ""
    skip: Annotated[int, description("lines at the beginning that are passed over")] = 0
    skip_after: Annotated[int, description("rows after the line of names that are passed over (units)")] = 0
    widths: Annotated[tuple[int, ...], description("table of fixed width: characters of each of the `columns`")] = ()
    gap: Annotated[int, description("with `widths`: characters between two columns")] = 0
    short_rows: Annotated[bool, description("fields at the end of a row may be left out: not measured")] = False


class _Table:
    """The parse of one layout."""

    def __init__(self, options: CsvPart, charset: str) -> None:
        self._options = options
        self._charset = charset
        self._missing = frozenset(options.missing) | {""}
        self._slices = tuple(_slices(options))
        self._length = self._slices[-1].stop if self._slices else 0

    def __call__(self, frame: Frame) -> list[dict[str, str | None]]:
        """Return the rows. Raises `Rejected` where the payload is no such table."""
        options = self._options
        text = text_of(frame.payload, self._charset)
        if text.startswith("\ufeff"):
            raise Rejected(QuarantineReason.MALFORMED, "begins with a byte order mark (charset: utf-8-sig)")
        try:
            rows = self._rows(text)
            columns = options.columns or tuple(map(str.strip, next(rows, ())))
            if not columns:
                raise Rejected(QuarantineReason.MALFORMED, "empty")
            _check_names(columns)
            rows = islice(rows, options.skip_after, None)
            return self._objects(columns, rows)
        except csv.Error as error:
            raise Rejected(QuarantineReason.MALFORMED, f"no such table: {error}") from error

    def _objects(self, columns: tuple[str, ...], rows: Iterator[list[str]]) -> list[dict[str, str | None]]:
        found: list[dict[str, str | None]] = []
        many = len(columns)
        for row in rows:
            if len(row) != many and (len(row) > many or not self._options.short_rows):
                what = f"row {len(found) + 1} has {len(row)} fields, the columns are {many}"
                raise Rejected(QuarantineReason.SCHEMA, what)
            if len(found) == ELEMENTS_MAX or (len(found) + 1) * many > MEMBERS_MAX:
                raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} rows or {MEMBERS_MAX} fields")
            found.append({name: self._value(field) for name, field in zip(columns, row, strict=False) if name})
        return found

    def _value(self, field: str) -> str | None:
        value = field.strip()
        if value in self._missing:
            return None
        if self._options.decimal == "," and _COMMA_NUMBER.fullmatch(value):
            return value.replace(",", ".")
        return value

    def _rows(self, text: str) -> Iterator[list[str]]:
        options = self._options
        lines: Iterator[str] = islice(io.StringIO(text, newline=None), options.skip, None)
        if options.comment:
            lines = (line for line in lines if not line.startswith(options.comment))
        if self._slices:
            return (self._cut(line) for line in lines if line.strip())
        if options.delimiter == BLANK:
            return (line.split() for line in lines if line.strip())
        quoting: Any = csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE
        reader = csv.reader(
            lines, delimiter=options.delimiter, quotechar=options.quote or None, quoting=quoting, strict=True
        )
        return (row for row in reader if row)

    def _cut(self, line: str) -> list[str]:
        line = line.rstrip("\n")
        if len(line) != self._length:
            what = f"a line has {len(line)} characters, the columns {self._length}"
            raise Rejected(QuarantineReason.SCHEMA, what)
        return [line[part] for part in self._slices]


def _slices(options: CsvPart) -> Iterator[slice]:
    at = 0
    for width in options.widths:
        yield slice(at, at + width)
        at += width + options.gap


def _check_names(columns: tuple[str, ...]) -> None:
    names = [name for name in columns if name]
    if len(names) != len(set(names)):
        raise Rejected(QuarantineReason.MALFORMED, "two columns have one name")


def _compile(options: CsvPart | None, setting: Setting) -> Parse:
    options = options or CsvPart()
    if len(options.delimiter) != 1 or options.delimiter in "\r\n":
        raise setting.error("must be one character", "delimiter")
    if len(options.quote) > 1 or (options.quote and options.quote in f"\r\n {options.delimiter}"):
        raise setting.error("must be one character, another than `delimiter`", "quote")
    names = [name for name in options.columns if name]
    if options.columns and (not names or len(names) != len(set(names))):
        raise setting.error("each column needs its own name", "columns")
    if options.columns and options.skip_after:
        raise setting.error("no line of names is read", "skip_after", remedy="use `skip`")
    if options.widths and (len(options.widths) != len(options.columns) or min(options.widths) < 1):
        raise setting.error("give a width of at least 1 for each of `columns`", "widths")
    if min(options.gap, options.skip, options.skip_after) < 0:
        raise setting.error("`gap`, `skip` and `skip_after` are not negative")
    return _Table(options, setting.charset)


FORMAT = Format(_compile, CsvPart, text=True, typed=False)
