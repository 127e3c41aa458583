"""Text frames: markers at both ends, a length, a checksum; in between, fields with separators or of fixed width.

The tree is an object of texts and numbers. A field that should be a number and is not stays text, so that `missing` can
list it and anything else is rejected as a single value, not with the frame; an empty field is null.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from sensegate.decode.charsets import text_of
from sensegate.decode.crc import Checksum, checksum
from sensegate.decode.frame import ErrorAt, FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.decode.part import ProfilePart, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

FIELDS_MAX = 4_096
"""Most fields of one frame."""

_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,32}\.?[0-9]{0,32}|\.[0-9]{1,32})(?:[eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_HEX = re.compile(r"[0-9a-fA-F]{1,16}")
_SIGNED = re.compile(r"[+-][^+-]*")
_DIGITS = {"decimal": re.compile(rb"[0-9]{1,18}"), "hex": re.compile(rb"[0-9a-fA-F]{1,16}")}


class CheckPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checksum of a text frame."""

    name: Annotated[str, description("name of the checksum: xor8, sum8, CRC-16/MODBUS (as in binary layouts)")]
    form: Annotated[Literal["hex", "decimal", "raw"], description("how it is written; raw: as bytes")] = "hex"
    digits: Annotated[int | None, description("its length in characters; default: its width in hex")] = None
    endian: Annotated[Literal["big", "little"], description("byte order of `raw`")] = "big"
    before: Annotated[str, description("marker between the text and the checksum")] = ""
    start: Annotated[bool, description("the checksum includes the start marker (and the length)")] = False
    length: Annotated[bool, description("the checksum includes the length")] = False
    mark: Annotated[bool, description("the checksum includes the marker before it")] = False


class LengthPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The length field after the start marker."""

    digits: Annotated[int, description("its length in characters")]
    form: Annotated[Literal["decimal", "hex"], description("how it is written")] = "decimal"
    less: Annotated[
        int, description("announced length minus the bytes between the length and the checksum (or its marker)")
    ] = 0


class FieldPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field, or repeated fields."""

    name: Annotated[str, description("name in the tree; without it the field is checked and dropped")] = ""
    type: Annotated[Literal["text", "number", "int", "hex"], description("type of the value")] = "text"
    width: Annotated[int | None, description("length in characters (frames without a separator)")] = None
    equals: Annotated[str | tuple[str, ...] | None, description("required text, or allowed texts")] = None
    prefix: Annotated[str, description("leading text, which is dropped: T= in T=21.5")] = ""
    suffix: Annotated[str, description("trailing text, which is dropped: C in 21.5C")] = ""
    skip: Annotated[
        int | None, description("number of fields, or characters in a frame without a separator, to skip")
    ] = None
    optional: Annotated[bool, description("may be absent, with all fields after it")] = False
    repeat: Annotated[int | Literal["end"] | None, description("how often `fields` repeat; end: to the end")] = None
    fields: Annotated[tuple[FieldPart, ...], description("fields of one element of the list `name`")] = ()


class TextFramePart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text frame."""

    start: Annotated[str, description("start marker")] = ""
    end: Annotated[str | tuple[str, ...], description("end marker, or alternatives")] = ""
    length: Annotated[LengthPart | None, description("a length after the start marker")] = None
    check: Annotated[CheckPart | None, description("a checksum at the end")] = None
    separator: Annotated[str, description("separator between fields; empty: fields of fixed width")] = ""
    signs: Annotated[bool, description("each field starts with its sign: 0+21.5-3.2 (SDI-12)")] = False
    fields: Annotated[tuple[FieldPart, ...], description("the fields in order")]
    rest: Annotated[Literal["refuse", "allow"], description("remaining fields or characters")] = "refuse"


def _malformed(detail: str) -> Rejected:
    return Rejected(QuarantineReason.MALFORMED, detail)


# ── the frame around the text ────────────────────────────────────────────────────────────────────────


class _Framing(NamedTuple):
    """The framing of the text."""

    start: bytes
    ends: tuple[bytes, ...]
    length: LengthPart | None
    part: CheckPart | None
    check: Checksum | None
    before: bytes
    charset: str

    def body(self, frame: bytes) -> str:
        """Return the text inside. Raises `Rejected` if a marker, the length or the checksum is wrong."""
        if not frame.startswith(self.start):
            raise _malformed("the frame does not start with the start marker")
        stop = len(frame)
        if self.ends:
            end = next((end for end in self.ends if frame.endswith(end)), None)
            if end is None:
                raise _malformed("the frame does not end with the end marker")
            stop -= len(end)
        begin = len(self.start)
        announced = None
        if self.length is not None:
            announced, begin = self._announced_length(frame, begin, stop)
        if self.part is not None and self.check is not None:
            stop = self._verify(frame, begin, stop, self.part, self.check)
        if begin > stop:
            raise _malformed("the frame is shorter than its markers")
        if announced is not None and announced != stop - begin:
            raise _malformed(f"the text has {stop - begin} bytes; {announced} are announced")
        return text_of(frame[begin:stop], self.charset)

    def _announced_length(self, frame: bytes, begin: int, stop: int) -> tuple[int, int]:
        """Return the announced bytes of text, and the position at which the text starts."""
        length = self.length
        if length is None:
            return 0, begin
        digits = frame[begin : min(begin + length.digits, stop)]
        if len(digits) != length.digits or not _DIGITS[length.form].fullmatch(digits):
            raise _malformed("the length is not a number")
        return int(digits, 10 if length.form == "decimal" else 16) - length.less, begin + length.digits

    def _verify(self, frame: bytes, begin: int, stop: int, part: CheckPart, algorithm: Checksum) -> int:
        """Return the end of the text, which is before the checksum; raise `Rejected` if the checksum is wrong."""
        size = algorithm.size if part.form == "raw" else part.digits or 2 * algorithm.size
        checksum_at = stop - size
        marker_at = checksum_at - len(self.before)
        if marker_at < begin or frame[marker_at:checksum_at] != self.before:
            raise _malformed("there is no checksum at the end")
        encoded = frame[checksum_at:stop]
        if part.form == "raw":
            value = int.from_bytes(encoded, part.endian)
        elif _DIGITS[part.form].fullmatch(encoded):
            value = int(encoded, 16 if part.form == "hex" else 10)
        else:
            raise _malformed("the checksum is not a number")
        first = 0 if part.start else len(self.start) if part.length else begin
        covered = frame[first : checksum_at if part.mark else marker_at]
        if algorithm.compute(covered) != value:
            raise _malformed(f"the {algorithm.name} does not match")
        return marker_at


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────


class _FieldReader:
    """The fields of one frame, read one after the other."""

    def __init__(self, text: str, split: Callable[[str], list[str]] | None) -> None:
        self._text = text
        self._fields = split(text) if split is not None else None
        self._at = 0
        self._taken = 0

    @property
    def left(self) -> int:
        """Number of fields (or characters) left."""
        return len(self._text if self._fields is None else self._fields) - self._at

    def take(self, width: int, title: str) -> str:
        """Return the next field; in a frame without separators, of so many characters."""
        self._taken += 1
        if self._taken > FIELDS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {FIELDS_MAX} fields")
        size = width if self._fields is None else 1
        if self.left < size:
            raise _malformed(f"the frame ends before {title}")
        start = self._at
        self._at += size
        return self._text[start : start + size] if self._fields is None else self._fields[start]

    def skip(self, count: int) -> None:
        """Skip fields (or characters)."""
        if self.left < count:
            raise _malformed("the frame ends within skipped fields")
        self._at += count


def _value(kind: str, text: str) -> Any:
    if kind == "text":
        return text
    if not text:
        return None
    if kind == "number" and _DECIMAL.fullmatch(text):
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "hex" and _HEX.fullmatch(text):
        return int(text, 16)
    return text


class _TextFrameParse:
    """The parse of one kind of text frame."""

    def __init__(self, part: TextFramePart, marks: _Framing) -> None:
        self._part = part
        self._marks = marks
        self._split: Callable[[str], list[str]] | None = None
        if part.signs:
            self._split = _split_signed
        elif part.separator:
            self._split = lambda text: text.split(part.separator)

    def __call__(self, frame: PayloadFrame) -> dict[str, Any]:
        """Return the object. Raises `Rejected` if the payload is not such a frame."""
        source = _FieldReader(self._marks.body(frame.payload), self._split)
        tree = self._object(self._part.fields, source)
        if source.left and self._part.rest == "refuse":
            unit = "characters" if self._split is None else "fields"
            raise _malformed(f"{source.left} {unit} are left over")
        return tree

    def _object(self, fields: Sequence[FieldPart], source: _FieldReader) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for index, field in enumerate(fields):
            if field.optional and not source.left:
                break
            if field.skip is not None:
                source.skip(field.skip)
            elif field.repeat is not None:
                tree[field.name] = list(self._items(field, source))
            else:
                title = f"'{field.name}'" if field.name else f"field {index + 1}"
                value = self._field(field, source.take(field.width or 0, title), title)
                if field.name:
                    tree[field.name] = value
        return tree

    def _items(self, field: FieldPart, source: _FieldReader) -> Iterator[dict[str, Any]]:
        if field.repeat == "end":
            while source.left:
                yield self._object(field.fields, source)
        else:
            for _ in range(field.repeat or 0):
                yield self._object(field.fields, source)

    @staticmethod
    def _field(field: FieldPart, text: str, title: str) -> Any:
        text = text.strip()
        if not (text.startswith(field.prefix) and text.endswith(field.suffix)):
            raise Rejected(QuarantineReason.SCHEMA, f"{title} lacks its prefix or suffix")
        if field.prefix or field.suffix:
            text = text[len(field.prefix) : len(text) - len(field.suffix)].strip()
        if field.equals is not None and text not in (
            (field.equals,) if isinstance(field.equals, str) else field.equals
        ):
            raise Rejected(QuarantineReason.SCHEMA, f"{title} is not the required text")
        return _value(field.type, text)


def _split_signed(text: str) -> list[str]:
    first = re.search(r"[+-]", text)
    head = text if first is None else text[: first.start()]
    return ([head] if head else []) + _SIGNED.findall(text)


# ── compiling ────────────────────────────────────────────────────────────────────────────────────────


def _compile(part: TextFramePart, context: FormatContext) -> Parse:
    if context.charset == "utf-16":
        raise context.error("markers cannot be found in UTF-16", remedy="choose another `charset`")
    ends = (part.end,) if isinstance(part.end, str) else part.end
    algorithm = None
    if part.check is not None:
        try:
            algorithm = checksum(part.check.name)
        except ValueError as error:
            raise context.error(f"unknown checksum '{part.check.name}'", "check", "name", remedy=str(error)) from error
        if part.check.digits is not None and not 1 <= part.check.digits <= 18:
            raise context.error("must be from 1 to 18", "check", "digits")
        if part.check.form == "decimal" and part.check.digits is None:
            raise context.error("is required", "check", "digits", remedy="give the number of decimal digits")
    if part.length is not None and not 1 <= part.length.digits <= 9:
        raise context.error("must be from 1 to 9", "length", "digits")
    if part.signs and part.separator:
        raise context.error("cannot be combined with `separator`", "signs")
    if not part.fields:
        raise context.error("there is no field", "fields")
    _check_fields(part.fields, context.error, ("fields",), fixed=not part.separator and not part.signs)
    charset = "utf-8" if context.charset == "utf-8-sig" else context.charset
    try:
        framing = _Framing(
            part.start.encode(charset),
            tuple(sorted((end.encode(charset) for end in ends if end), key=len, reverse=True)),
            part.length,
            part.check,
            algorithm,
            part.check.before.encode(charset) if part.check else b"",
            charset,
        )
    except UnicodeEncodeError as error:
        raise context.error(f"a marker cannot be written in {charset}") from error
    return _TextFrameParse(part, framing)


def _check_fields(fields: Sequence[FieldPart], error: ErrorAt, path: tuple[str | int, ...], *, fixed: bool) -> None:
    names: set[str] = set()
    for index, field in enumerate(fields):
        key_path = (*path, index)
        if field.name and field.name in names:
            raise error(f"'{field.name}' occurs twice", *key_path, "name")
        names.add(field.name)
        if field.skip is not None:
            if field.skip < 1 or field.name or field.width:
                raise error("must stand alone, and be 1 or more", *key_path, "skip")
        elif (field.repeat is not None) != bool(field.fields):
            raise error("`repeat` and `fields` must be given together", *key_path)
        elif field.repeat is not None:
            if not field.name or (isinstance(field.repeat, int) and not 1 <= field.repeat <= FIELDS_MAX):
                raise error(f"a list needs a `name` and 1 to {FIELDS_MAX} elements", *key_path, "repeat")
            if field.fields[0].optional or len(path) > 8:
                raise error("the first field must not be optional; three levels at most", *key_path, "fields")
            _check_fields(field.fields, error, (*key_path, "fields"), fixed=fixed)
        elif fixed != (field.width is not None) or (field.width is not None and field.width < 1):
            remedy = "give `width`, or `separator` to the frame" if fixed else "remove `width`"
            raise error("is required" if fixed else "the separator ends the field", *key_path, "width", remedy=remedy)


FORMAT = PayloadFormat(_compile, TextFramePart, required=True, text=True)
