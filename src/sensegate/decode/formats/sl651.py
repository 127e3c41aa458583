"""SL 651-2014: reports of hydrological stations, binary or text, with one element for each value.

The tree: ``{"centre", "station", "function", "serial", "sent", "class", "time", "packets", "packet", "odd",
"elements": [{"name", "id", "value", "time", …}]}``.

* ``name`` is the symbol of annex C (``Z``, ``PJ``, ``VT``), or the identifier in hex if it has no symbol; a state word
  gives elements ``ZT.<bit>``. ``function`` is two hex digits.
* ``value`` is null if the station reports it as missing: all digits F (binary form), ``M`` or ``F`` (text form). A
  value that is not a decimal number is kept as its hex digits.
* ``time`` is the observation time as ISO 8601 without a zone; in a series each value has its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from sensegate import metrics
from sensegate.decode.formats.sl651_columns import Dates, Sl651Columns
from sensegate.decode.formats.sl651_elements import (
    LEVELS,
    RAIN,
    STATES,
    STATION_CLASSES,
    SYMBOLS,
    TEXT_STEP,
)
from sensegate.decode.frame import FormatContext, Parse, PayloadFormat, PayloadFrame, WarnedObject
from sensegate.decode.part import ProfilePart, description
from sensegate.errors import Rejected
from sensegate.frames import sl651
from sensegate.frames.sl651 import Sl651Report
from sensegate.model import QuarantineReason

ELEMENTS_MAX: Final = 4_096
_FIVE_MINUTES = timedelta(minutes=5)
_STEP, _MANUAL, _PICTURE, _TIME, _STATION, _STATE, _WIDE, _VELOCITIES = 0x04, 0xF2, 0xF3, 0xF0, 0xF1, 0x45, 0xFF, 0xFD
_DURATION = 0x05
_HOUR = timedelta(hours=1)
_SOON = timedelta(minutes=15)
"""Time within which a report is sent after its hour."""
_HOURLY = 0x34
_HOUR_ELEMENTS: Final = {RAIN: (1, 10), **dict.fromkeys(LEVELS, (2, 100))}
"""Element with the values of an hour -> (bytes of a value, steps for each unit)."""
_FIRST_INDEX: Final = {"ends": -11, "begins": 1, "first": 0}
"""Convention -> five-minute intervals from the observation time to the first value."""
_SERIES = frozenset({0x31, 0x38})
"""Functions whose values are a series with a fixed step."""
_FROM_FIRST = _SERIES | {0x3A}
"""Functions whose observation time is that of the first value, even if the values are those of an hour."""
_WITH_ELEMENTS = frozenset({*range(0x30, 0x3B), 0x44, 0x46, 0x4B})
"""Functions whose reports have elements; others (settings, passwords, events) only resemble elements."""
_TEXT_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,10})?", re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]+")


class Sl651Part(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the format `sl651`."""

    hour: Annotated[
        Literal["auto", "ends", "begins", "first"],
        description(
            "where the observation time stands in the hour of DRP and DRZ: ends; begins, five minutes before the first "
            "value; first, at the first value; auto: by the time of sending, an hour later or at once"
        ),
    ] = "auto"


Element = dict[str, Any]


def _compile(options: Sl651Part | None, _setting: FormatContext) -> Parse:
    hour = (options or Sl651Part()).hour

    def parse(frame: PayloadFrame) -> dict[str, Any]:
        report = sl651.parse(frame.payload)
        metrics.FRAME_CHECKS.labels("sl651", "modbus" if report.checksum_ok else "none").inc()
        if not report.checksum_ok:
            raise Rejected(QuarantineReason.CRC_FAIL, "the CRC does not match")
        body = _Body(report, hour)
        if report.up and report.packet == 1 and report.function in _WITH_ELEMENTS:
            body.read()
        tree = {
            "centre": f"{report.centre:02X}",
            "station": report.station,
            "up": report.up,
            "function": f"{report.function:02X}",
            "serial": report.serial,
            "sent": _iso(_clock(report.sent)),
            "class": body.station_class,
            "time": _iso(body.time),
            "packets": report.packets,
            "packet": report.packet,
            "odd": body.deviations,
            "elements": body.elements,
        }
        return WarnedObject(tree, body.warnings) if body.warnings else tree

    @lru_cache(8_192)  # stations report at the same minutes
    def dates(function: int, sent: str, observed: str, *, intervals: bool) -> Dates | None:
        when, time = _clock(sent), _clock(observed)
        if when is None or time is None:
            return None
        ends = [_interval_end(function, hour, when, time, index) for index in range(12 if intervals else 0)]
        known = tuple(end.isoformat() for end in ends if end is not None)
        return Dates(when.isoformat(), time.isoformat(), known) if len(known) == len(ends) else None

    return Sl651Columns(parse, dates, _WITH_ELEMENTS - _SERIES)


def _clock(digits: str) -> datetime | None:
    """Parse a time of ten or twelve BCD digits (yyMMddHHmm[ss]), None if it is not a time."""
    return _moment(digits) if len(digits) in {10, 12} else None


@lru_cache(8_192)  # stations report at the same minutes
def _moment(digits: str) -> datetime | None:
    if not (digits.isascii() and digits.isdigit()):
        return None
    midnight = digits[6:10] == "2400"
    year, month, day, hour, minute, second = (int(digits[place : place + 2] or 0) for place in range(0, 12, 2))
    if midnight:
        hour = 0
    try:
        time = datetime(2_000 + year, month, day, hour, minute, second)  # noqa: DTZ001 - the station's own clock
    except ValueError:
        return None
    return time + timedelta(days=1 if midnight else 0)


@lru_cache(8_192)  # the values of one report mostly share their time
def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


class _Body:
    """The elements of a report while they are read."""

    def __init__(self, report: Sl651Report, hour: str) -> None:
        self._report = report
        self._hour = hour
        self._remaining = report.body
        self.station_class: str | None = None
        self.time: datetime | None = None
        self.deviations: list[str] = []
        self.warnings: list[str] = []
        self.elements: list[Element] = []

    def read(self) -> None:
        """Read all elements. Raises `Rejected` (malformed) if the body is truncated before the first value.

        The CRC is right, so the station itself cut its report short: what stands before is kept, with a warning.
        """
        if self._report.text:
            self._read_text()
        else:
            while self._remaining:
                try:
                    self._read_element()
                except Rejected as rejection:
                    if not self.elements:
                        raise
                    self.warnings.append(rejection.detail)
                    return

    def _take(self, size: int) -> bytes:
        taken, self._remaining = self._remaining[:size], self._remaining[size:]
        if len(taken) < size:
            raise Rejected(QuarantineReason.MALFORMED, f"an element of {size} bytes is truncated")
        return taken

    def _add(self, number: int, value: float | str | None, time: datetime | None, name: str = "") -> None:
        name = name or SYMBOLS.get(number, f"{number:02X}")
        self.elements.append({"name": name, "id": f"{number:02X}", "value": value, "time": _iso(time)})
        if len(self.elements) > ELEMENTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} values")

    # ── binary form ──────────────────────────────────────────────────────────────────────────────────

    def _read_element(self) -> None:
        number, shape = self._take(2)
        if number == _WIDE:
            number, shape = _WIDE << 8 | shape, self._take(1)[0]
        if number == _TIME:
            self.time = _clock(self._take(5).hex())
            if self.time is None:
                self.deviations.append("time")
        elif number == _STATION:
            self._read_station()
        elif number in {_MANUAL, _PICTURE, _VELOCITIES}:
            self._remaining = b""  # they take all remaining bytes, and are not numbers
        elif number in _HOUR_ELEMENTS:
            self._read_hour(number, shape)
        elif number == _STEP:
            self._read_series(self._take(shape >> 3).hex())
        elif number == _STATE:
            self._read_states(int.from_bytes(self._take(shape >> 3)))
        elif not shape >> 3:
            raise Rejected(QuarantineReason.MALFORMED, f"element {number:02X} has no bytes")
        else:
            raw = self._take(shape >> 3)
            self._add(number, _duration(raw) if number == _DURATION else _decimal(raw, shape & 7), self.time)

    def _read_station(self) -> None:
        if self._take(5).hex().upper() != self._report.station:
            self.deviations.append("station")
        following = self._remaining[1:3]
        if self._remaining[:1] and self._remaining[0] in STATION_CLASSES and following in {b"\xf0\xf0", b""}:
            self.station_class = chr(self._take(1)[0])

    def _read_hour(self, number: int, shape: int) -> None:
        """Read twelve five-minute values. Their lengths are fixed, whatever the definition byte says."""
        size, scale = _HOUR_ELEMENTS[number]
        if shape >> 3 != 12 * size:
            self.deviations.append(SYMBOLS[number])
        # The reply to a query for a period has one element, with as many hours as there are bytes for.
        hours = max(1, len(self._remaining) // (12 * size)) if self._report.function in _SERIES else 1
        raw = self._take(12 * size * hours)
        self._add_five_minute_values(
            number, [int.from_bytes(raw[at : at + size]) for at in range(0, len(raw), size)], size, scale
        )

    def _add_five_minute_values(self, number: int, values: list[int], size: int, scale: int) -> None:
        for index, value in enumerate(values):
            missing = value == 256**size - 1
            self._add(number, None if missing else value / scale, self._time_of(index))

    def _time_of(self, index: int) -> datetime | None:
        """Return the end of five-minute interval `index` of the hour."""
        if self.time is None:
            return None
        return _interval_end(self._report.function, self._hour, _clock(self._report.sent), self.time, index)

    def _read_series(self, digits: str) -> None:
        step = _step_of(digits)
        if step is None or self._report.function not in _SERIES:
            return  # all zeros: DRP or DRZ follow, which have their own steps
        names: list[tuple[int, int, int]] = []
        while True:
            number, shape = self._take(2)
            names.append((number, shape >> 3, shape & 7))
            group = sum(size for _, size, _ in names)
            if not group:
                raise Rejected(QuarantineReason.MALFORMED, f"element {number:02X} has no bytes")
            # Usually a report has one element; if several are defined first, only their sum divides the rest.
            if number in _HOUR_ELEMENTS or len(self._remaining) % group == 0 or len(self._remaining) < 2:
                break
        if len(names) == 1 and names[0][0] in _HOUR_ELEMENTS:
            self._read_hours(names[0][0], step)
            return
        for index in range(len(self._remaining) // group):
            for number, size, decimals in names:
                moment = None if self.time is None else _shifted(self.time, step * index)
                self._add(number, _decimal(self._take(size), decimals), moment)

    def _read_hours(self, number: int, step: timedelta) -> None:
        """Read the rest as a series of DRP or DRZ: twelve values an hour, or by a step of less than an hour."""
        size, _ = _HOUR_ELEMENTS[number]
        raw = self._take(len(self._remaining) // size * size)
        self._remaining = b""
        self._add_hours(number, step, raw)

    def _add_hours(self, number: int, step: timedelta, raw: bytes) -> None:
        size, scale = _HOUR_ELEMENTS[number]
        for index in range(len(raw) // size):
            value = int.from_bytes(raw[index * size : (index + 1) * size])
            offset = step * index if step < _HOUR else step * (index // 12) + _FIVE_MINUTES * (index % 12)
            moment = None if self.time is None else _shifted(self.time, offset)
            self._add(number, None if value == 256**size - 1 else value / scale, moment)

    def _read_states(self, word: int) -> None:
        for bit in STATES:
            self._add(_STATE, word >> bit & 1, self.time, f"ZT.{bit}")

    # ── text form ────────────────────────────────────────────────────────────────────────────────────

    def _read_text(self) -> None:
        try:
            words = iter(self._remaining.decode("ascii").split(" "))
        except UnicodeDecodeError as error:
            raise Rejected(QuarantineReason.MALFORMED, "the body is not ASCII") from error
        numbers = {symbol: number for number, symbol in SYMBOLS.items()}
        for word in words:
            if not word:
                continue
            if len(word) == 1 and ord(word) in STATION_CLASSES and self.time is None:
                self.station_class = word
            elif word == "ST":
                if next(words, "") != self._report.station:
                    self.deviations.append("station")
            elif word == "TT":
                self.time = _clock(next(words, ""))
                if self.time is None:
                    self.deviations.append("time")
            elif word in {"RGZS", "PIC", "DATA"}:
                return
            elif TEXT_STEP.fullmatch(word) and self._report.function in _SERIES:
                self._text_series(word, words, numbers)
            elif not TEXT_STEP.fullmatch(word):
                self._text_value(word, numbers.get(word), next(words, None))

    def _text_value(self, symbol: str, number: int | None, raw: str | None) -> None:
        if raw is None:
            raise Rejected(QuarantineReason.MALFORMED, f"'{symbol[:16]}' has no value")
        if number in _HOUR_ELEMENTS:
            size, scale = _HOUR_ELEMENTS[number]
            hours, rest = divmod(len(raw), 24 * size)
            if rest or not (hours == 1 or (hours and self._report.function in _SERIES)) or not _HEX.fullmatch(raw):
                raise Rejected(QuarantineReason.MALFORMED, f"'{symbol}' is not {24 * size} hex digits")
            raws = [int(raw[at : at + 2 * size], 16) for at in range(0, len(raw), 2 * size)]
            self._add_five_minute_values(number, raws, size, scale)
        elif number == _STATE:
            if not _HEX.fullmatch(raw) or len(raw) > 8:
                raise Rejected(QuarantineReason.MALFORMED, "'ZT' is not hex digits")
            self._read_states(int(raw, 16))
        else:
            self._add(number or 0, _text_number(raw), self.time, symbol)

    def _text_series(self, code: str, words: Iterator[str], numbers: dict[str, int]) -> None:
        unit = {"D": "days", "H": "hours", "N": "minutes"}[code[2]]
        step = timedelta(**{unit: int(code[3:])})
        symbols: list[str] = []
        values: list[str] = []
        for word in words:
            if not word:
                continue
            number = numbers.get(word)
            if step and not symbols and number in _HOUR_ELEMENTS:
                self._text_hours(word, number, step, next(words, ""))
            elif values or word in {"M", "F"} or _TEXT_NUMBER.fullmatch(word):
                values.append(word)
            elif step:
                symbols.append(word)
            else:  # DRH00: DRP or DRZ follow, which have their own steps
                self._text_value(word, numbers.get(word), next(words, None))
        for index, raw in enumerate(values):
            if symbols:
                symbol = symbols[index % len(symbols)]
                moment = None if self.time is None else _shifted(self.time, step * (index // len(symbols)))
                self._add(numbers.get(symbol, 0), _text_number(raw), moment, symbol)

    def _text_hours(self, symbol: str, number: int, step: timedelta, raw: str) -> None:
        """Read a series of DRP or DRZ by a step: hex digits of a fixed width, as in the binary form."""
        if not raw or len(raw) % (2 * _HOUR_ELEMENTS[number][0]) or not _HEX.fullmatch(raw):
            raise Rejected(QuarantineReason.MALFORMED, f"'{symbol}' is not a series of hex digits")
        self._add_hours(number, step, bytes.fromhex(raw))


def _interval_end(function: int, hour: str, sent: datetime | None, time: datetime, index: int) -> datetime | None:
    """Return the end of five-minute interval `index` of the hour of a report."""
    if function in _FROM_FIRST:
        return _shifted(time, _FIVE_MINUTES * index)
    return _shifted(time, _FIVE_MINUTES * (index + _FIRST_INDEX[_convention(function, hour, sent, time)]))


def _convention(function: int, hour: str, sent: datetime | None, time: datetime) -> str:
    """Return where the observation time stands in the hour.

    Stations differ: some date the hour at its end, others at its first value. A report is sent when its hour is over,
    so one that is sent at once has its observation time at the end, and one that is sent an hour later at the
    beginning. Where that says nothing (a report from the store), the standard's rule for its function holds.
    """
    if hour != "auto":
        return hour
    after = None if sent is None else sent - time
    if after is not None and -_SOON <= after < _HOUR - _SOON:
        return "ends"
    if after is not None and _HOUR - _SOON <= after <= _HOUR + _SOON:
        return "first"
    return "first" if function == _HOURLY else "ends"


def _shifted(time: datetime, offset: timedelta) -> datetime | None:
    try:
        return time + offset
    except OverflowError:
        return None


def _step_of(digits: str) -> timedelta | None:
    """Return the step given by six BCD digits (days, hours, minutes), None if there is none."""
    if len(digits) != 6 or not digits.isdigit():
        return None
    step = timedelta(days=int(digits[:2]), hours=int(digits[2:4]), minutes=int(digits[4:]))
    return step or None


def _decimal(raw: bytes, decimals: int) -> float | str | None:
    """Return a BCD number; a first byte FF is a minus sign, all F (or all A: invalid) is no value."""
    digits = raw.hex().upper()
    if set(digits) in ({"F"}, {"A"}):
        return None
    sign = 1
    if digits.startswith("FF") and len(raw) > 1:
        sign, digits = -1, digits[2:]
    if not digits.isdigit():
        return raw.hex().upper()
    return sign * int(digits) / float(10**decimals)


def _duration(raw: bytes) -> float | str | None:
    """Return the minutes of a duration in hours and minutes: two BCD digits each, or text with a point between them."""
    if len(raw) == len("hh.mm") and raw[2:3] == b"." and (raw[:2] + raw[3:]).isdigit():
        return int(raw[:2]) * 60.0 + int(raw[3:])
    digits = raw.hex().upper()
    if set(digits) == {"F"}:
        return None
    return int(digits[:-2] or "0") * 60.0 + int(digits[-2:]) if digits.isdigit() else digits


def _text_number(raw: str) -> float | str | None:
    if raw in {"M", "F"}:
        return None
    return float(raw) if _TEXT_NUMBER.fullmatch(raw) else raw[:64]


FORMAT = PayloadFormat(_compile, Sl651Part)
