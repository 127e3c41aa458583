"""The grammar of binary layouts: steps, in the order of the bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from sensegate.decode.part import ProfilePart, Scalar
from sensegate.decode.part import description as _h

Number = int | str
"""A number, or an expression over earlier elements."""


class Step(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step through the bytes; exactly one of the keys up to `append` determines its kind."""

    type: Annotated[str, _h("a value: u8 s16 m8 u12 f32 bcd16 (bits), or ascii utf8 gbk hex digits bytes (size)")] = ""
    value: Annotated[Number | float | None, _h("a number computed from earlier elements")] = None
    text: Annotated[str, _h("text built from earlier elements: 20{yy:02}-{mm:02}")] = ""
    skip: Annotated[Number | None, _h("number of bytes to skip")] = None
    align: Annotated[bool, _h("continue at the next whole byte")] = False
    crc: Annotated[str, _h("checksum by name, read here and compared: CRC-16/MODBUS, sum8, xor8")] = ""
    when: Annotated[Number | None, _h("condition under which the steps of `read` are present")] = None
    switch: Annotated[Number | None, _h("value that selects one of `cases`")] = None
    repeat: Annotated[Number | None, _h("number of times that the steps of `read` repeat; `end`: to the end")] = None
    tlv: Annotated[str, _h("type of the tags: tags with values up to the end, `cases` by tag")] = ""
    within: Annotated[Number | None, _h("number of bytes to which the steps of `read` are limited")] = None
    append: Annotated[str, _h("list to which the steps of `read` append an object")] = ""

    name: Annotated[str, _h("name in the tree; a name that starts with _ is for expressions only")] = ""
    read: Annotated[tuple[Step, ...], _h("inner steps; with `name` they form an object (`repeat`: a list)")] = ()
    cases: Annotated[dict[Scalar, tuple[Step, ...]], _h("value or tag (or several: '2, 5-7') -> steps")] = {}
    default: Annotated[
        Literal["refuse", "skip", "stop"] | tuple[Step, ...],
        _h("what happens with a value that `cases` does not list"),
    ] = "refuse"
    endian: Annotated[Literal["", "big", "little"], _h("byte order; default: the layout's")] = ""
    size: Annotated[Number | None, _h("bytes of a text type: number, expression, or `rest`")] = None
    until: Annotated[int | None, _h("terminating byte of a text type, which is consumed")] = None
    at: Annotated[Number | None, _h("read at this byte of the frame (negative: from its end) and do not move")] = None
    equals: Annotated[
        Scalar | tuple[Scalar, ...] | None, _h("required value (or allowed values, or an expression)")
    ] = None
    reason: Annotated[Literal["schema", "malformed"], _h("reason of the refusal if `equals` is not met")] = "schema"
    bits: Annotated[dict[str, Number], _h("fields of the integer: name -> 7, 0-3, s4-11 (bit 0 is the least)")] = {}
    map: Annotated[dict[Scalar, float], _h("value as sent -> number; other values become no number")] = {}
    over: Annotated[
        tuple[Number, ...], _h("`crc`: bounds, as in a slice of the frame; default: all bytes before it")
    ] = ()
    leave: Annotated[Number, _h("`repeat: end` and `tlv`: number of bytes at the end that are left")] = 0
    length: Annotated[str, _h("`tlv`: type of the length that follows each tag")] = ""
    twice: Annotated[
        Literal["refuse", "last"], _h("a name that occurs again: refuse the frame, or replace the value")
    ] = "refuse"
    rest: Annotated[Literal["refuse", "allow"], _h("remaining bytes in `within` or after a tag's value")] = "refuse"


class BinaryPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A binary layout."""

    read: Annotated[tuple[Step, ...], _h("steps, in the order of the bytes")] = ()
    ports: Annotated[dict[Scalar, tuple[Step, ...]], _h("other steps by the frame's port: 2, or '5, 6-9'")] = {}
    endian: Annotated[Literal["big", "little"], _h("byte order, unless a step sets another")] = "big"
    encoding: Annotated[Literal["raw", "hex", "base64"], _h("text encoding of the payload, if any")] = "raw"
    length: Annotated[int | tuple[int, int] | None, _h("length of a frame in bytes: 11, or bounds [7, 40]")] = None
    rest: Annotated[Literal["refuse", "allow"], _h("remaining bytes at the end")] = "refuse"
