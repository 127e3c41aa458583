"""Text tables: delimited (CSV) or of fixed width. The tree is a list of rows, each an object by column; all text.

An empty field is null. A row with more or fewer fields than there are columns refuses the whole message: it was
truncated or has another layout, and its values would be under the wrong names.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import ELEMENTS_MAX, MEMBERS_MAX, FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.decode.part import ProfilePart, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

BLANK = " "
_COMMA_NUMBER = re.compile(r"[-+]?(?:\d+,\d*|,\d+)(?:[eE][-+]?\d+)?", re.ASCII)


class CsvPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the table."""

    columns: Annotated[
        tuple[str, ...], description("column names (empty: column left out); absent: the first line names them")
    ] = ()
    delimiter: Annotated[str, description("field delimiter; a space stands for any run of spaces and tabs")] = ","
    quote: Annotated[str, description("quote around fields that contain delimiters; empty: none")] = '"'
    decimal: Annotated[Literal[".", ","], description("decimal separator of numbers")] = "."
    missing: Annotated[tuple[str, ...], description('markers for "not measured" (an empty field always is)')] = ()
    comment: Annotated[str, description("prefix of lines that are skipped")] = ""
    skip: Annotated[int, description("number of lines skipped at the beginning")] = 0
    skip_after: Annotated[int, description("number of rows skipped after the line of names (units)")] = 0
    widths: Annotated[tuple[int, ...], description("fixed width: characters of each of the `columns`")] = ()
    gap: Annotated[int, description("with `widths`: characters between two columns")] = 0
    short_rows: Annotated[bool, description("fields may be omitted at the end of a row: not measured")] = False


class _Table:
    """The parse of one table layout."""

    def __init__(self, options: CsvPart, charset: str) -> None:
        self._options = options
        self._charset = charset
        self._missing = frozenset(options.missing) | {""}
        self._slices = tuple(_slices(options))
        self._length = self._slices[-1].stop if self._slices else 0

    def __call__(self, frame: PayloadFrame) -> list[dict[str, str | None]]:
        """Return the rows. Raises `Rejected` if the payload is not such a table."""
        options = self._options
        text = text_of(frame.payload, self._charset)
        if text.startswith("\ufeff"):
            raise Rejected(QuarantineReason.MALFORMED, "starts with a byte order mark (charset: utf-8-sig)")
        try:
            rows = self._rows(text)
            columns = options.columns or tuple(map(str.strip, next(rows, ())))
            if not columns:
                raise Rejected(QuarantineReason.MALFORMED, "the table is empty")
            _check_names(columns)
            rows = islice(rows, options.skip_after, None)
            return self._objects(columns, rows)
        except csv.Error as error:
            raise Rejected(QuarantineReason.MALFORMED, f"is not such a table: {error}") from error

    def _objects(self, columns: tuple[str, ...], rows: Iterator[list[str]]) -> list[dict[str, str | None]]:
        objects: list[dict[str, str | None]] = []
        width = len(columns)
        for row in rows:
            if len(row) != width and (len(row) > width or not self._options.short_rows):
                detail = f"row {len(objects) + 1} has {len(row)} fields; there are {width} columns"
                raise Rejected(QuarantineReason.SCHEMA, detail)
            if len(objects) == ELEMENTS_MAX or (len(objects) + 1) * width > MEMBERS_MAX:
                raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} rows or {MEMBERS_MAX} fields")
            objects.append({name: self._value(field) for name, field in zip(columns, row, strict=False) if name})
        return objects

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
            return (self._split_fixed(line) for line in lines if line.strip())
        if options.delimiter == BLANK:
            return (line.split() for line in lines if line.strip())
        quoting: Any = csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE
        reader = csv.reader(
            lines, delimiter=options.delimiter, quotechar=options.quote or None, quoting=quoting, strict=True
        )
        return (row for row in reader if row)

    def _split_fixed(self, line: str) -> list[str]:
        line = line.rstrip("\n")
        if len(line) != self._length:
            detail = f"a line has {len(line)} characters; the columns have {self._length}"
            raise Rejected(QuarantineReason.SCHEMA, detail)
        return [line[part] for part in self._slices]


def _slices(options: CsvPart) -> Iterator[slice]:
    start = 0
    for width in options.widths:
        yield slice(start, start + width)
        start += width + options.gap


def _check_names(columns: tuple[str, ...]) -> None:
    names = [name for name in columns if name]
    if len(names) != len(set(names)):
        raise Rejected(QuarantineReason.MALFORMED, "two columns have the same name")


def _compile(options: CsvPart | None, context: FormatContext) -> Parse:
    options = options or CsvPart()
    if len(options.delimiter) != 1 or options.delimiter in "\r\n":
        raise context.error("must be one character", "delimiter")
    if len(options.quote) > 1 or (options.quote and options.quote in f"\r\n {options.delimiter}"):
        raise context.error("must be one character, different from `delimiter`", "quote")
    names = [name for name in options.columns if name]
    if options.columns and (not names or len(names) != len(set(names))):
        raise context.error("each column needs its own name", "columns")
    if options.columns and options.skip_after:
        raise context.error("there is no line of names", "skip_after", remedy="use `skip`")
    if options.widths and (len(options.widths) != len(options.columns) or min(options.widths) < 1):
        raise context.error("give a width of at least 1 for each of `columns`", "widths")
    if min(options.gap, options.skip, options.skip_after) < 0:
        raise context.error("`gap`, `skip` and `skip_after` must not be negative")
    return _Table(options, context.charset)


FORMAT = PayloadFormat(_compile, CsvPart, text=True, typed=False)
