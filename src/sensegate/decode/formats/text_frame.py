"""Frames of text: marks at both ends, a length, a check value; between them fields with separators or of fixed width.

The tree is an object: a field's text, or its number. A number that is none stays text, so that `missing` can name it
and anything else is rejected as that value's fault, not the frame's; an empty one is null.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from sensegate.decode.charsets import text_of
from sensegate.decode.crc import Check, check
from sensegate.decode.frame import ErrorAt, Format, Frame, Parse, Setting
from sensegate.decode.part import Part, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

FIELDS_MAX = 4_096
"""Fields of one frame."""

_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,32}\.?[0-9]{0,32}|\.[0-9]{1,32})(?:[eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_HEX = re.compile(r"[0-9a-fA-F]{1,16}")
_SIGNED = re.compile(r"[+-][^+-]*")
_DIGITS = {"decimal": re.compile(rb"[0-9]{1,18}"), "hex": re.compile(rb"[0-9a-fA-F]{1,16}")}


class CheckPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The check value of a frame of text."""

    name: Annotated[str, description("name of the check: xor8, sum8, CRC-16/MODBUS (as in binary layouts)")]
    form: Annotated[Literal["hex", "decimal", "raw"], description("how it is written; raw: its bytes")] = "hex"
    digits: Annotated[int | None, description("characters of it; else as many as its width needs in hex")] = None
    endian: Annotated[Literal["big", "little"], description("order of the bytes of `raw`")] = "big"
    before: Annotated[str, description("mark between the text and it")] = ""
    start: Annotated[bool, description("the start mark (and the length) are checked too")] = False
    length: Annotated[bool, description("the length is checked too")] = False
    mark: Annotated[bool, description("the mark before it is checked too")] = False


class LengthPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The length that stands behind the start mark."""

    digits: Annotated[int, description("characters of it")]
    form: Annotated[Literal["decimal", "hex"], description("how it is written")] = "decimal"
    less: Annotated[
        int, description("so much more than the bytes between it and the check (or its mark) is announced")
    ] = 0


class FieldPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field, or fields that come again."""

    name: Annotated[str, description("name in the tree; without it the field is looked at and dropped")] = ""
    type: Annotated[Literal["text", "number", "int", "hex"], description("what it holds")] = "text"
    width: Annotated[int | None, description("characters (frames without separator)")] = None
    equals: Annotated[str | tuple[str, ...] | None, description("the text must be this, or one of these")] = None
    prefix: Annotated[str, description("text that it begins with, dropped: T= in T=21.5")] = ""
    suffix: Annotated[str, description("text that it ends with, dropped: C in 21.5C")] = ""
    skip: Annotated[
        int | None, description("so many fields, or characters in a frame without separator, mean nothing")
    ] = None
    optional: Annotated[bool, description("may be missing, with all that come after it")] = False
    repeat: Annotated[int | Literal["end"] | None, description("how often `fields` are there; end: to the end")] = None
    fields: Annotated[tuple[FieldPart, ...], description("fields of one element of the list `name`")] = ()


class TextFramePart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frame of text."""

    start: Annotated[str, description("mark it begins with")] = ""
    end: Annotated[str | tuple[str, ...], description("mark it ends with, or several of which one is there")] = ""
    length: Annotated[LengthPart | None, description("a length behind the start mark")] = None
    check: Annotated[CheckPart | None, description("a check value at the end")] = None
    separator: Annotated[str, description("mark between fields; empty: fields of fixed width")] = ""
    signs: Annotated[bool, description("each field begins with its sign: 0+21.5-3.2 (SDI-12)")] = False
    fields: Annotated[tuple[FieldPart, ...], description("the fields in their order")]
    rest: Annotated[Literal["refuse", "allow"], description("fields or characters left over")] = "refuse"


def _malformed(what: str) -> Rejected:
    return Rejected(QuarantineReason.MALFORMED, what)


# ── the frame around the text ────────────────────────────────────────────────────────────────────────


class _Marks(NamedTuple):
    """What stands around the text."""

    start: bytes
    ends: tuple[bytes, ...]
    length: LengthPart | None
    part: CheckPart | None
    check: Check | None
    before: bytes
    charset: str

    def body(self, frame: bytes) -> str:
        """Return the text. Raises `Rejected` where a mark, the length or the check value is wrong."""
        if not frame.startswith(self.start):
            raise _malformed("does not begin with the start mark")
        stop = len(frame)
        if self.ends:
            end = next((end for end in self.ends if frame.endswith(end)), None)
            if end is None:
                raise _malformed("does not end with the end mark")
            stop -= len(end)
        begin = len(self.start)
        announced = None
        if self.length is not None:
            announced, begin = self._announced(frame, begin, stop)
        if self.part is not None and self.check is not None:
            stop = self._checked(frame, begin, stop, self.part, self.check)
        if begin > stop:
            raise _malformed("shorter than its marks")
        if announced is not None and announced != stop - begin:
            raise _malformed(f"{stop - begin} bytes, not {announced}")
        return text_of(frame[begin:stop], self.charset)

    def _announced(self, frame: bytes, begin: int, stop: int) -> tuple[int, int]:
        """Return the announced bytes of text, and where the text begins."""
        length = self.length
        if length is None:
            return 0, begin
        digits = frame[begin : min(begin + length.digits, stop)]
        if len(digits) != length.digits or not _DIGITS[length.form].fullmatch(digits):
            raise _malformed("its length is no number")
        return int(digits, 10 if length.form == "decimal" else 16) - length.less, begin + length.digits

    def _checked(self, frame: bytes, begin: int, stop: int, part: CheckPart, found: Check) -> int:
        """Return where the text ends: before the check value, which is right."""
        size = found.size if part.form == "raw" else part.digits or 2 * found.size
        at = stop - size
        mark = at - len(self.before)
        if mark < begin or frame[mark:at] != self.before:
            raise _malformed("no check value at the end")
        written = frame[at:stop]
        if part.form == "raw":
            value = int.from_bytes(written, part.endian)
        elif _DIGITS[part.form].fullmatch(written):
            value = int(written, 16 if part.form == "hex" else 10)
        else:
            raise _malformed("its check value is no number")
        first = 0 if part.start else len(self.start) if part.length else begin
        over = frame[first : at if part.mark else mark]
        if found.of(over) != value:
            raise _malformed(f"{found.name} is wrong")
        return mark


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────


class _Source:
    """The fields of one frame, one after the other."""

    def __init__(self, text: str, split: Callable[[str], list[str]] | None) -> None:
        self._text = text
        self._fields = split(text) if split is not None else None
        self._at = 0
        self._taken = 0

    @property
    def left(self) -> int:
        """Fields (or characters) left."""
        return len(self._text if self._fields is None else self._fields) - self._at

    def take(self, width: int, what: str) -> str:
        """Return the next field, of so many characters where they have no separators."""
        self._taken += 1
        if self._taken > FIELDS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {FIELDS_MAX} fields")
        size = width if self._fields is None else 1
        if self.left < size:
            raise _malformed(f"ends before {what}")
        at = self._at
        self._at += size
        return self._text[at : at + size] if self._fields is None else self._fields[at]

    def skip(self, count: int) -> None:
        """Pass over fields (or characters)."""
        if self.left < count:
            raise _malformed("ends within what is skipped")
        self._at += count


def _value(kind: str, text: str) -> Any:
    if kind == "text":
        return text
    if not text:
        return None
    if kind == "number" and _DECIMAL.fullmatch(text):
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    if kind == "int" and _WHOLE.fullmatch(text):
        return int(text)
    if kind == "hex" and _HEX.fullmatch(text):
        return int(text, 16)
    return text


class _Fields:
    """The parse of one frame."""

    def __init__(self, part: TextFramePart, marks: _Marks) -> None:
        self._part = part
        self._marks = marks
        self._split: Callable[[str], list[str]] | None = None
        if part.signs:
            self._split = _signed
        elif part.separator:
            self._split = lambda text: text.split(part.separator)

    def __call__(self, frame: Frame) -> dict[str, Any]:
        """Return the object. Raises `Rejected` where the payload is no such frame."""
        source = _Source(self._marks.body(frame.payload), self._split)
        tree = self._object(self._part.fields, source)
        if source.left and self._part.rest == "refuse":
            what = "characters" if self._split is None else "fields"
            raise _malformed(f"{source.left} {what} left over")
        return tree

    def _object(self, fields: Sequence[FieldPart], source: _Source) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for index, field in enumerate(fields):
            if field.optional and not source.left:
                break
            if field.skip is not None:
                source.skip(field.skip)
            elif field.repeat is not None:
                tree[field.name] = list(self._items(field, source))
            else:
                what = f"'{field.name}'" if field.name else f"field {index + 1}"
                value = self._field(field, source.take(field.width or 0, what), what)
                if field.name:
                    tree[field.name] = value
        return tree

    def _items(self, field: FieldPart, source: _Source) -> Iterator[dict[str, Any]]:
        if field.repeat == "end":
            while source.left:
                yield self._object(field.fields, source)
        else:
            for _ in range(field.repeat or 0):
                yield self._object(field.fields, source)

    @staticmethod
    def _field(field: FieldPart, text: str, what: str) -> Any:
        text = text.strip()
        if not (text.startswith(field.prefix) and text.endswith(field.suffix)):
            raise Rejected(QuarantineReason.SCHEMA, f"{what} is not between its prefix and suffix")
        if field.prefix or field.suffix:
            text = text[len(field.prefix) : len(text) - len(field.suffix)].strip()
        if field.equals is not None and text not in (
            (field.equals,) if isinstance(field.equals, str) else field.equals
        ):
            raise Rejected(QuarantineReason.SCHEMA, f"{what} is another than the frame's")
        return _value(field.type, text)


def _signed(text: str) -> list[str]:
    first = re.search(r"[+-]", text)
    head = text if first is None else text[: first.start()]
    return ([head] if head else []) + _SIGNED.findall(text)


# ── compiling ────────────────────────────────────────────────────────────────────────────────────────


def _compile(part: TextFramePart, setting: Setting) -> Parse:
    if setting.charset == "utf-16":
        raise setting.error("marks cannot be found in UTF-16", remedy="another `charset`")
    ends = (part.end,) if isinstance(part.end, str) else part.end
    found = None
    if part.check is not None:
        try:
            found = check(part.check.name)
        except ValueError as error:
            raise setting.error(f"no check value '{part.check.name}'", "check", "name", remedy=str(error)) from error
        if part.check.digits is not None and not 1 <= part.check.digits <= 18:
            raise setting.error("1 to 18", "check", "digits")
        if part.check.form == "decimal" and part.check.digits is None:
            raise setting.error("how many?", "check", "digits", remedy="give the number of decimal digits")
    if part.length is not None and not 1 <= part.length.digits <= 9:
        raise setting.error("1 to 9", "length", "digits")
    if part.signs and part.separator:
        raise setting.error("fields have a separator or begin with signs", "signs")
    if not part.fields:
        raise setting.error("no field", "fields")
    _check_fields(part.fields, setting.error, ("fields",), fixed=not part.separator and not part.signs)
    charset = "utf-8" if setting.charset == "utf-8-sig" else setting.charset
    try:
        marks = _Marks(
            part.start.encode(charset),
            tuple(sorted((end.encode(charset) for end in ends if end), key=len, reverse=True)),
            part.length,
            part.check,
            found,
            part.check.before.encode(charset) if part.check else b"",
            charset,
        )
    except UnicodeEncodeError as error:
        raise setting.error(f"a mark cannot be written in {charset}") from error
    return _Fields(part, marks)


def _check_fields(fields: Sequence[FieldPart], error: ErrorAt, path: tuple[str | int, ...], *, fixed: bool) -> None:
    names: set[str] = set()
    for index, field in enumerate(fields):
        here = (*path, index)
        if field.name and field.name in names:
            raise error(f"'{field.name}' occurs twice", *here, "name")
        names.add(field.name)
        if field.skip is not None:
            if field.skip < 1 or field.name or field.width:
                raise error("stands alone, and is 1 or more", *here, "skip")
        elif (field.repeat is not None) != bool(field.fields):
            raise error("`repeat` and `fields` belong together", *here)
        elif field.repeat is not None:
            if not field.name or (isinstance(field.repeat, int) and not 1 <= field.repeat <= FIELDS_MAX):
                raise error(f"a list has a `name` and 1 to {FIELDS_MAX} elements", *here, "repeat")
            if field.fields[0].optional or len(path) > 8:
                raise error("its first field is always there; three levels at most", *here, "fields")
            _check_fields(field.fields, error, (*here, "fields"), fixed=fixed)
        elif fixed != (field.width is not None) or (field.width is not None and field.width < 1):
            remedy = "give `width`, or `separator` to the frame" if fixed else "leave `width` out"
            raise error("how many characters?" if fixed else "its separator ends it", *here, "width", remedy=remedy)


FORMAT = Format(_compile, TextFramePart, required=True, text=True)
