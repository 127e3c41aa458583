"""SL 651 as flat values: binary reports of one form, of which only the values differ, without a tree.

Identifier and definition of each element are bytes of the report, so that reports of one form differ in the bytes of
their values alone: one comparison under a mask recognises a form seen before. Reports that are unusual in any way
(text, several packets, series, missing values, values that are no decimal digits, a station that contradicts the
header) have no form: they go the way of `sl651.FORMAT`, with which this must agree value by value.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from sensegate import metrics
from sensegate.decode.formats.sl651_elements import LEVELS, RAIN, STATES, STATION_CLASSES, SYMBOLS
from sensegate.decode.frame import LearnedParse, Parse
from sensegate.decode.paths import Path
from sensegate.errors import Rejected
from sensegate.frames import sl651
from sensegate.frames.checks import crc_modbus
from sensegate.model import QuarantineReason

FORMS_MAX: Final = 512
"""Most forms of one rule's reports."""
_LEAVES_MAX: Final = 256
_SIZE_MAX: Final = 512
_CENTRE, _STATION, _FUNCTION, _SERIAL, _SENT, _BODY = 2, slice(3, 8), 10, slice(14, 16), slice(16, 22), 22
_TAIL: Final = 3
_STEP, _DURATION, _TIME, _STATION_MARK, _WIDE, _STATE = 0x04, 0x05, 0xF0, 0xF1, 0xFF, 0x45
_UNPLANNED: Final = frozenset({_STEP, _DURATION, 0xF2, 0xF3, 0xFD})
_HOUR: Final = {RAIN: (1, 10), **dict.fromkeys(LEVELS, (2, 100))}
_INTERVALS: Final = 12


class Dates(NamedTuple):
    """Times of a report as ISO 8601."""

    sent: str
    observed: str
    intervals: tuple[str, ...]
    """Dates of the twelve intervals of an hour, if the rule reads them."""


class FindDates(Protocol):
    """Reads the times of a report from their digits."""

    def __call__(self, function: int, sent: str, observed: str, *, intervals: bool) -> Dates | None:
        """Return the times; None: one of them is no time."""
        ...


class _Form(msgspec.Struct, frozen=True, eq=False):
    """Positions of the values in reports of a form, and the parts that these reports have in common."""

    mask: int
    fixed: int
    """The bytes of a report under the mask."""
    function: int
    time: slice
    stations: tuple[slice, ...]
    """Positions at which the body repeats the station."""
    decimals: tuple[tuple[int, int, float], ...]
    """First and last hex digit, and divisor, of each number."""
    hours: tuple[tuple[int, int, int, float], ...]
    """First byte, bytes of a value, which value means that it is missing, and divisor, of each element of an hour."""
    states: tuple[tuple[int, int], ...]
    """First and last byte of each state word."""
    plain: int
    """Number of values that have the observation time."""
    constants: tuple[Any, ...]
    pointers: list[Path]
    """Pointers to the values, in the order of `flatten`."""


class Sl651Columns(LearnedParse):
    """The parse of SL 651, of reports into trees and into flat values (`columnar.Columnar`)."""

    def __init__(self, parse: Parse, dates: FindDates, functions: frozenset[int]) -> None:
        """`parse`: a report into a tree; `functions`: of reports with elements and without a series."""
        super().__init__(parse)
        self._dates = dates
        self._functions = functions
        self._forms: dict[int, list[_Form]] = {}
        self._count = 0

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:  # noqa: ARG002 - as `Columnar` has it
        """Return the pointer of each value in the tree."""
        return self._form(payload).pointers

    @staticmethod
    def count_planned(frames: int) -> None:
        """Count reports that are decoded without their trees."""
        metrics.FRAME_CHECKS.labels("sl651", "modbus").inc(frames)

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Sequence[Any]]:  # noqa: ARG002 - the same
        """Return (form, values). Raises `Rejected` if the report has no form."""
        form = self._form(payload)
        station = payload[_STATION]
        if crc_modbus(payload[:-2]) != int.from_bytes(payload[-2:]) or any(
            payload[place] != station for place in form.stations
        ):
            raise _no_form()
        dates = self._dates(form.function, payload[_SENT].hex(), payload[form.time].hex(), intervals=bool(form.hours))
        if dates is None:
            raise _no_form()
        sent, time, intervals = dates
        digits = payload.hex()
        values: list[Any] = []
        try:
            # A letter among the digits is a sign, or no number.
            values += [int(digits[first:last]) / divisor for first, last, divisor in form.decimals]
        except ValueError:
            raise _no_form() from None
        for first, last in form.states:
            word = int.from_bytes(payload[first:last])
            values += [word >> bit & 1 for bit in STATES]
        times = [time] * form.plain
        for first, size, missing, divisor in form.hours:
            raws = [int.from_bytes(payload[at : at + size]) for at in range(first, first + _INTERVALS * size, size)]
            if missing in raws:
                raise _no_form()
            values += [raw / divisor for raw in raws]
            times += intervals
        return form, (
            station.hex().upper(),
            int.from_bytes(payload[_SERIAL]),
            sent,
            time,
            f"{payload[_CENTRE]:02X}",
            *values,
            *times,
            *form.constants,
        )

    def _form(self, payload: bytes) -> _Form:
        """Return the form of a report. Raises `Rejected` if it has none."""
        whole = int.from_bytes(payload)
        known = self._forms.get(len(payload))
        for form in known or ():
            if whole & form.mask == form.fixed:
                return form
        if self._count < FORMS_MAX and (form_ := self._make(payload)) is not None:
            self._count += 1
            self._forms.setdefault(len(payload), []).append(form_)
            return form_
        raise _no_form()

    def _make(self, payload: bytes) -> _Form | None:
        """Return the form of a report; None: such reports are not planned."""
        if len(payload) > _SIZE_MAX or not payload.startswith(sl651.MARK):
            return None
        try:
            report = sl651.parse(payload)
        except Rejected:
            return None
        if not (report.up and report.packets == report.packet == 1 and report.function in self._functions):
            return None
        if payload[13] != sl651.STX or not report.checksum_ok:
            return None
        elements = _Elements(payload)
        return elements.form(report.function) if elements.read() else None


class _Elements:
    """The elements of a report while its form is made."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = _BODY
        self._variable = [_CENTRE, *range(3, _FUNCTION), *range(14, _BODY), *range(len(payload) - 2, len(payload))]
        self._time: slice | None = None
        self._class: str | None = None
        self._stations: list[slice] = []
        self._decimals: list[tuple[int, int, float]] = []
        self._states: list[tuple[int, int]] = []
        self._hours: list[tuple[int, int, int, float]] = []
        self._names: dict[str, list[tuple[int, str, str]]] = {"decimals": [], "states": [], "hours": []}
        """Kind -> (index of the element, name, id) of each of its values."""
        self._size = 0

    def read(self) -> bool:
        """Read all elements; return whether reports of this form can be planned."""
        end = len(self._payload) - _TAIL
        while self._at < end:
            if self._at + 2 > end or not self._read_element(end) or self._at > end or self._size > _LEAVES_MAX:
                return False
        return self._time is not None and self._size > 0

    def _take(self, size: int) -> slice:
        place = slice(self._at, self._at + size)
        self._at += size
        self._variable += range(place.start, place.stop)
        return place

    def _add(self, kind: str, number: int, name: str = "") -> None:
        identifier = f"{number:02X}"
        self._names[kind].append((self._size, name or SYMBOLS.get(number, identifier), identifier))
        self._size += 1

    def _read_element(self, end: int) -> bool:
        number, shape = self._payload[self._at], self._payload[self._at + 1]
        self._at += 2
        if number == _WIDE:
            number, shape = _WIDE << 8 | shape, self._payload[self._at]
            self._at += 1
        size = shape >> 3
        if number == _TIME:
            if self._time is not None:
                return False
            self._time = self._take(5)
        elif number == _STATION_MARK:
            self._stations.append(self._take(5))
            following = self._payload[self._at + 1 : min(self._at + 3, end)]
            if self._at < end and self._payload[self._at] in STATION_CLASSES and following in {b"\xf0\xf0", b""}:
                self._class = chr(self._payload[self._at])  # part of the form
                self._at += 1
        elif number in _UNPLANNED or not size or self._time is None:
            return False
        elif number in _HOUR:
            width, divisor = _HOUR[number]
            if size != _INTERVALS * width:
                return False
            self._hours.append((self._take(size).start, width, 256**width - 1, float(divisor)))
            for _ in range(_INTERVALS):
                self._add("hours", number)
        elif number == _STATE:
            place = self._take(size)
            self._states.append((place.start, place.stop))
            for bit in STATES:
                self._add("states", _STATE, f"ZT.{bit}")
        else:
            place = self._take(size)
            self._decimals.append((2 * place.start, 2 * place.stop, float(10 ** (shape & 7))))
            self._add("decimals", number)
        return True

    def form(self, function: int) -> _Form:
        """Return the form, once all elements are read."""
        assert self._time is not None  # noqa: S101 - `read` has found it
        mask = bytearray(b"\xff" * len(self._payload))
        for place in self._variable:
            mask[place] = 0
        masked = int.from_bytes(mask)
        named = [*self._names["decimals"], *self._names["states"], *self._names["hours"]]
        constants: list[tuple[Path, Any]] = [
            (("up",), True),
            (("function",), f"{function:02X}"),
            (("class",), self._class),
            (("packets",), 1),
            (("packet",), 1),
        ]
        for index, name, identifier in named:
            constants += [(("elements", index, "name"), name), (("elements", index, "id"), identifier)]
        pointers: list[Path] = [
            *((key,) for key in ("station", "serial", "sent", "time", "centre")),
            *(("elements", index, "value") for index, _, _ in named),
            *(("elements", index, "time") for index, _, _ in named),
            *(pointer for pointer, _ in constants),
        ]
        return _Form(
            mask=masked,
            fixed=int.from_bytes(self._payload) & masked,
            function=function,
            time=self._time,
            stations=tuple(self._stations),
            decimals=tuple(self._decimals),
            hours=tuple(self._hours),
            states=tuple(self._states),
            plain=len(named) - len(self._names["hours"]),
            constants=tuple(constant for _, constant in constants),
            pointers=pointers,
        )


def _no_form() -> Rejected:
    """Return a new error each time: an error that is raised again keeps every traceback."""
    return Rejected(QuarantineReason.MALFORMED, "the report has no form for columns")
