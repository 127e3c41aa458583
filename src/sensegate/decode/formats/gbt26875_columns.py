"""GB/T 26875.3 as flat values: frames of one type, with objects of one size, are read at once, without a tree.

Frames that are unusual in any way (a type with text of any length, objects that are cut short, a time that is none)
have no form: they go the way of `gbt26875.FORMAT`, with which this must agree value by value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from sensegate import metrics
from sensegate.decode.frame import LearnedParse, Parse
from sensegate.decode.paths import Path
from sensegate.errors import Rejected
from sensegate.frames import gbt26875
from sensegate.frames.checks import sum8
from sensegate.model import QuarantineReason

FORMS_MAX: Final = 512
"""Most forms of one rule's frames."""
_LEAVES_MAX: Final = 256
_KNOWN_MAX: Final = 8_192
_TYPE, _COUNT = 27, 28
_HEADER: Final = "<2sH2s6s6s6sHBBB"
_TAIL: Final = "B2s"
_HEADER_VALUES, _TAIL_VALUES = 10, 2
_HEADER_KEYS: Final = ("serial", "version", "sent", "source", "target", "command", "type")

Pointer = tuple[str, ...]


class ObjectKind(NamedTuple):
    """The objects of a type that have a fixed size."""

    kind: str
    code: str
    """Format code of `struct`."""
    read: Callable[[str, tuple[Any, ...]], tuple[Any, ...]]
    """(source, numbers and bytes of an object) -> values."""
    pointers: tuple[Pointer, ...]
    """Pointers to the values, relative to the object."""


class FrameForm(msgspec.Struct, frozen=True, eq=False):
    """The layout that all frames of one form share."""

    size: int
    """Bytes of the application data."""
    unpack: Callable[[bytes], tuple[Any, ...]]
    width: int
    """Numbers and texts of an object."""
    read: Callable[[str, tuple[Any, ...]], tuple[Any, ...]]
    constants: tuple[Any, ...]
    pointers: list[Path]


class Gbt26875Columns(LearnedParse):
    """The parse of GB/T 26875.3, of frames into trees and into flat values (`columnar.Columnar`)."""

    def __init__(self, parse: Parse, clock: Callable[[bytes], str | None], kinds: dict[int, ObjectKind]) -> None:
        """`parse`: a frame into a tree; `clock`: a time into ISO 8601; `kinds`: by the type of the data unit."""
        super().__init__(parse)
        self._clock = clock
        self._kinds = kinds
        self._forms: dict[tuple[int, int, int], FrameForm] = {}

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:  # noqa: ARG002 - as `Columnar` has it
        """Return the pointer of each value in the tree."""
        return self._form(payload).pointers

    @staticmethod
    def count_planned(frames: int) -> None:
        """Count frames that are decoded without their trees."""
        metrics.FRAME_CHECKS.labels("gbt26875", "sum8").inc(frames)

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Sequence[Any]]:  # noqa: ARG002 - the same
        """Return (form, values). Raises `Rejected` if the frame has no form."""
        form = self._form(payload)
        raw = form.unpack(payload)
        mark, serial, version, sent, source, target, size, command, number, _ = raw[:_HEADER_VALUES]
        check, end = raw[-_TAIL_VALUES:]
        if mark != gbt26875.MARK or end != gbt26875.END or size != form.size or sum8(payload[2:-3]) != check:
            raise _no_form()
        name = _address(source)
        sent_at = self._clock(sent)
        if form.width == len(raw) - _HEADER_VALUES - _TAIL_VALUES:
            values = form.read(name, raw[_HEADER_VALUES:-_TAIL_VALUES])
        else:
            values = ()
            for at in range(_HEADER_VALUES, len(raw) - _TAIL_VALUES, form.width):
                values += form.read(name, raw[at : at + form.width])
        if sent_at is None or None in values:
            raise _no_form()
        return form, (
            serial,
            _version(version),
            sent_at,
            name,
            _address(target),
            command,
            number,
            *values,
            *form.constants,
        )

    def _form(self, payload: bytes) -> FrameForm:
        """Return the form of a frame. Raises `Rejected` if it has none."""
        key = (len(payload), payload[_TYPE], payload[_COUNT]) if len(payload) > _COUNT else (0, 0, 0)
        form = self._forms.get(key)
        if form is None:
            form = self._make(*key) if len(self._forms) < FORMS_MAX else None
            if form is None:
                raise _no_form()
            self._forms[key] = form
        return form

    def _make(self, length: int, number: int, count: int) -> FrameForm | None:
        """Return the form of frames of a length, a type and a number of objects; None: they are not planned."""
        kind = self._kinds.get(number)
        if kind is None or not count or count * (len(kind.pointers) + 1) > _LEAVES_MAX:
            return None
        reader = struct.Struct(_HEADER + kind.code * count + _TAIL)
        if reader.size != length:
            return None
        objects: list[Path] = [("objects", index, *pointer) for index in range(count) for pointer in kind.pointers]
        return FrameForm(
            size=2 + struct.calcsize(f"<{kind.code}") * count,
            unpack=reader.unpack,
            width=len(reader.unpack(bytes(length))[_HEADER_VALUES:-_TAIL_VALUES]) // count,
            read=kind.read,
            constants=(kind.kind,) * count,
            pointers=[
                *((key,) for key in _HEADER_KEYS),
                *objects,
                *(("objects", index, "kind") for index in range(count)),
            ],
        )


@lru_cache(_KNOWN_MAX)
def _address(raw: bytes) -> str:
    return gbt26875.format_address(raw)


@lru_cache(256)
def _version(raw: bytes) -> str:
    return f"{raw[0]}.{raw[1]}"


def _no_form() -> Rejected:
    """Return a new error each time: an error that is raised again keeps every traceback."""
    return Rejected(QuarantineReason.MALFORMED, "the frame has no form for columns")
