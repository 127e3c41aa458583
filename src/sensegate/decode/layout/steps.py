"""What a profile may say of bytes: the steps of a layout, in the order of the bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from sensegate.decode.part import Part, Scalar
from sensegate.decode.part import description as _h

Number = int | str
"""A number, or an expression over elements read before."""


class Step(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step through the bytes; exactly one of the keys up to `append` says what kind of step it is."""

    type: Annotated[str, _h("a value: u8 s16 m8 u12 f32 bcd16 (bits), or ascii utf8 gbk hex digits bytes (size)")] = ""
    value: Annotated[Number | float | None, _h("a number computed from elements read before")] = None
    text: Annotated[str, _h("text made of elements read before: 20{yy:02}-{mm:02}")] = ""
    skip: Annotated[Number | None, _h("so many bytes are passed over")] = None
    align: Annotated[bool, _h("on to the next whole byte")] = False
    crc: Annotated[str, _h("check value by name, read here and compared: CRC-16/MODBUS, sum8, xor8")] = ""
    when: Annotated[Number | None, _h("the steps of `read` are there only if this is true")] = None
    switch: Annotated[Number | None, _h("which of `cases` is there")] = None
    repeat: Annotated[Number | None, _h("how often the steps of `read` are there; `end`: to the end")] = None
    tlv: Annotated[str, _h("type of the tags: tags with values to the end, `cases` by tag")] = ""
    within: Annotated[Number | None, _h("the steps of `read` see only so many bytes")] = None
    append: Annotated[str, _h("the steps of `read` make an object at the end of this list")] = ""

    name: Annotated[str, _h("name in the tree; one with _ in front is for expressions only")] = ""
    read: Annotated[tuple[Step, ...], _h("steps inside; with `name` they make an object (`repeat`: a list)")] = ()
    cases: Annotated[dict[Scalar, tuple[Step, ...]], _h("value or tag (or several: '2, 5-7') -> steps")] = {}
    default: Annotated[
        Literal["refuse", "skip", "stop"] | tuple[Step, ...],
        _h("what is done with a value that `cases` does not name"),
    ] = "refuse"
    endian: Annotated[Literal["", "big", "little"], _h("order of bytes; else the layout's")] = ""
    size: Annotated[Number | None, _h("bytes of a text type: number, expression, or `rest`")] = None
    until: Annotated[int | None, _h("a text type goes up to this byte, which is used up")] = None
    at: Annotated[Number | None, _h("read at this byte of the frame (negative: from its end) and do not move")] = None
    equals: Annotated[
        Scalar | tuple[Scalar, ...] | None, _h("the value must be this (or one of these, or an expression)")
    ] = None
    reason: Annotated[Literal["schema", "malformed"], _h("why a frame is refused where `equals` does not hold")] = (
        "schema"
    )
    bits: Annotated[dict[str, Number], _h("fields of the integer: name -> 7, 0-3, s4-11 (bit 0 is the least)")] = {}
    map: Annotated[dict[Scalar, float], _h("value as sent -> number; others become no number")] = {}
    over: Annotated[tuple[Number, ...], _h("`crc`: from and to, as in a slice of the frame; else all before it")] = ()
    leave: Annotated[Number, _h("`repeat: end` and `tlv`: so many bytes at the end are not for it")] = 0
    length: Annotated[str, _h("`tlv`: type of the length that follows each tag")] = ""
    twice: Annotated[
        Literal["refuse", "last"], _h("a name that is there already: the frame is refused, or replaced")
    ] = "refuse"
    rest: Annotated[Literal["refuse", "allow"], _h("bytes left over in `within` or after a tag's value")] = "refuse"


class BinaryPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A binary layout."""

    read: Annotated[tuple[Step, ...], _h("steps, in the order of the bytes")] = ()
    ports: Annotated[dict[Scalar, tuple[Step, ...]], _h("other steps by the frame's port: 2, or '5, 6-9'")] = {}
    endian: Annotated[Literal["big", "little"], _h("order of bytes, unless a step says otherwise")] = "big"
    encoding: Annotated[Literal["raw", "hex", "base64"], _h("how the payload is written as text, if it is")] = "raw"
    length: Annotated[int | tuple[int, int] | None, _h("bytes of a frame: 11, or bounds [7, 40]")] = None
    rest: Annotated[Literal["refuse", "allow"], _h("bytes left over at the end")] = "refuse"
