"""JT/T 808 as flat values: positions with the same additional items are read at once, without a tree.

Message, attributes, lengths and the numbers of the items are the same bytes in all frames of one form, so that one
comparison under a mask recognises it. Frames that are unusual in any way (several packets, encryption, an item that is
cut short, sent twice or of another size) have no form: they go the way of `jtt808.FORMAT`, with which this must agree
value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from sensegate import metrics
from sensegate.decode.frame import LearnedParse, Parse
from sensegate.decode.masked import MaskedBuilder, MaskedForms
from sensegate.decode.paths import Path
from sensegate.errors import Rejected
from sensegate.frames import jtt808
from sensegate.frames.checks import xor8
from sensegate.model import QuarantineReason

FORMS_MAX: Final = 512
"""Most forms of one rule's frames."""
_LEAVES_MAX: Final = 256
_ESCAPE: Final = b"\x7d"
_BASIC: Final = 28
_SPLIT, _VERSION_2019, _ENCRYPTED, _LENGTH = 1 << 13, 1 << 14, 0x1C00, 0x3FF
_SOUTH, _WEST = 1 << 2, 1 << 3
_POSITION: Final = ("I", "I", "I", "I", "h", "H", "H", "6s")
"""Alarm, status, latitude, longitude, altitude, speed, heading, time."""
_HEADER_KEYS: Final = ("phone", "serial")
_REPORT_KEYS: Final = ("time", "lat", "lon", "altitude", "speed", "heading", "alarm", "status")


class ItemPlace(NamedTuple):
    """An additional item of a report."""

    number: str
    name: str
    """Empty: it has none."""
    steps: int


class ReportForm(msgspec.Struct, frozen=True, eq=False):
    """The layout that all frames of one form share."""

    unpack: Callable[[bytes], tuple[Any, ...]]
    reports: tuple[tuple[ItemPlace, ...], ...]
    """The additional items of each report."""
    constants: tuple[Any, ...]
    pointers: list[Path]


class Jtt808Columns(LearnedParse):
    """The parse of JT/T 808, of frames into trees and into flat values (`columnar.Columnar`)."""

    def __init__(
        self,
        parse: Parse,
        clock: Callable[[bytes], str],
        alarms: dict[int, str],
        states: dict[int, str],
        items: dict[str, tuple[str, int, int]],
    ) -> None:
        """Args are those of the format.

        Args:
            parse: a frame into a tree.
            clock: a time into ISO 8601.
            alarms: bit of the alarm word -> name.
            states: bit of the status word -> name.
            items: number of an additional item -> (name, bytes, steps for each unit).
        """
        super().__init__(parse)
        self._clock = clock
        self._alarms = tuple(alarms)
        self._states = tuple(states)
        self._items = items
        self._bits: list[Path] = [("alarms", name) for name in alarms.values()]
        self._bits += [("states", name) for name in states.values()]
        self._forms: MaskedForms[ReportForm] = MaskedForms()
        self._count = 0

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:  # noqa: ARG002 - as `Columnar` has it
        """Return the pointer of each value in the tree."""
        return self._form(payload)[1].pointers

    @staticmethod
    def count_planned(frames: int) -> None:
        """Count frames that are decoded without their trees."""
        metrics.FRAME_CHECKS.labels("jtt808", "xor8").inc(frames)

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Sequence[Any]]:  # noqa: ARG002 - the same
        """Return (form, values). Raises `Rejected` if the frame has no form."""
        inner, form = self._form(payload)
        if xor8(inner):
            raise _no_form()
        raw = form.unpack(inner)
        values: list[Any] = [_phone(raw[0]), raw[1]]
        at = 2
        for items in form.reports:
            alarm, status, lat, lon, altitude, speed, heading, time = raw[at : at + 8]
            at += 8
            values += (
                self._clock(time),
                -(lat / 1e6) if status & _SOUTH else lat / 1e6,
                -(lon / 1e6) if status & _WEST else lon / 1e6,
                altitude,
                speed / 10,
                heading,
                alarm,
                status,
            )
            values += _bits(alarm, self._alarms)
            values += _bits(status, self._states)
            for item in items:
                value = raw[at]
                at += 1
                values.append(value.hex().upper())
                if item.name:
                    values.append(int.from_bytes(value) / item.steps)
        values += form.constants
        return form, values

    def _form(self, payload: bytes) -> tuple[bytes, ReportForm]:
        """Return the bytes between the marks, and the form of a frame. Raises `Rejected` if it has none."""
        if len(payload) < 2 or not payload.startswith(jtt808.MARK) or not payload.endswith(jtt808.MARK):
            raise _no_form()
        inner = payload[1:-1]
        if _ESCAPE in inner:
            inner = jtt808.unescape(inner)
        for form in self._forms.matching(inner):
            return inner, form
        if self._count >= FORMS_MAX or xor8(inner):
            raise _no_form()
        maker = _FormMaker(inner, self._items, self._bits)
        try:
            form = maker.form()
        except ValueError:
            raise _no_form() from None
        self._count += 1
        self._forms.add(inner, maker.mask, form)
        return inner, form


class _FormMaker:
    """Makes the form of a frame."""

    def __init__(self, inner: bytes, items: dict[str, tuple[str, int, int]], bits: list[Path]) -> None:
        self._inner = inner
        self._named = items
        self._bits = bits
        self._builder = MaskedBuilder(inner)
        self._reports: list[tuple[ItemPlace, ...]] = []
        self._pointers: list[Path] = [(key,) for key in _HEADER_KEYS]
        self.mask = 0

    def form(self) -> ReportForm:
        """Return the form. Raises `ValueError` if such frames are not planned."""
        inner, builder = self._inner, self._builder
        message, attributes = int.from_bytes(inner[:2]), int.from_bytes(inner[2:4])
        is_2019 = bool(attributes & _VERSION_2019)
        size, at = (10, 4) if is_2019 else (6, 4)
        if attributes & (_SPLIT | _ENCRYPTED) or message not in jtt808.POSITIONS:
            raise ValueError("not a position in one packet")
        if is_2019:
            builder.add("x", at)  # version of the terminal
            at += 1
        builder.add(f"{size}s", at)
        builder.add("H", at + size)
        body = at + size + 2
        end = len(inner) - 1
        if end - body != attributes & _LENGTH:
            raise ValueError("the header announces another length")
        if message == jtt808.LOCATIONS:
            self._batch(body, end)
        else:
            start = body if message == jtt808.LOCATION else body + 2
            if message != jtt808.LOCATION:
                builder.add("2x", body)
            self._report(start, end)
        builder.add("x", end)
        if len(self._pointers) > _LEAVES_MAX:
            raise ValueError("too many values")
        constants: list[tuple[Path, Any]] = [
            (("message",), f"{message:04X}"),
            (("version",), 2019 if is_2019 else 2013),
            (("packets",), 1),
            (("packet",), 1),
            (("late",), message == jtt808.LOCATIONS and inner[body + 2] == 1),
        ]
        built = builder.build()
        self.mask = built.mask
        return ReportForm(
            unpack=built.unpack,
            reports=tuple(self._reports),
            constants=tuple(constant for _, constant in constants),
            pointers=[*self._pointers, *(pointer for pointer, _ in constants)],
        )

    def _batch(self, at: int, end: int) -> None:
        count, at = int.from_bytes(self._inner[at : at + 2]), at + 3
        for _ in range(count):
            length, at = int.from_bytes(self._inner[at : at + 2]), at + 2
            if at + length > end or len(self._pointers) > _LEAVES_MAX:
                raise ValueError("a report is cut short")
            self._report(at, at + length)
            at += length
        if at != end or not count:
            raise ValueError("there are bytes after the last report")

    def _report(self, at: int, end: int) -> None:
        if end - at < _BASIC:
            raise ValueError("not a position")
        report: Path = ("reports", len(self._reports))
        self._pointers += [(*report, key) for key in _REPORT_KEYS]
        self._pointers += [(*report, *bit) for bit in self._bits]
        for code, offset in zip(_POSITION, (0, 4, 8, 12, 16, 18, 20, 22), strict=True):
            self._builder.add(code, at + offset)
        at += _BASIC
        items: list[ItemPlace] = []
        while at < end:
            if at + 2 > end or at + 2 + self._inner[at + 1] > end:
                raise ValueError("an item is cut short")
            number, length = f"{self._inner[at]:02X}", self._inner[at + 1]
            name, size, steps = self._named.get(number, ("", length, 1))
            if size != length or any(item.number == number for item in items):
                raise ValueError("an item is sent twice, or of another size")
            items.append(ItemPlace(number, name, steps))
            self._builder.add(f"{length}s", at + 2)
            self._pointers.append((*report, "items", number))
            self._pointers += [(*report, name)] if name else []
            at += 2 + length
        self._reports.append(tuple(items))


@lru_cache(8_192)
def _bits(word: int, bits: tuple[int, ...]) -> tuple[bool, ...]:
    return tuple(bool(word >> bit & 1) for bit in bits)


@lru_cache(8_192)
def _phone(raw: bytes) -> str:
    return raw.hex().upper().lstrip("0") or "0"


def _no_form() -> Rejected:
    """Return a new error each time: an error that is raised again keeps every traceback."""
    return Rejected(QuarantineReason.MALFORMED, "the frame has no form for columns")
