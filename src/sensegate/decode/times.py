"""Parse times as devices write them into µs UTC with a time quality: one value, or a column of them.

A number below 1e11 is seconds, below 1e14 milliseconds (format ``epoch``); text is ISO 8601 (``iso``) or a
`strptime` pattern (in which 24:00 is the end of the day). A leap second is the first second of the next day, as clocks
without leap seconds count it; a second 60 at any other time is no time. Text without a zone is taken in the zone of the
profile and marked as such. What cannot be parsed is `BAD`: its value is rejected, never dated by guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from sensegate.clock import HOUR_US, SECOND_US, begins_month
from sensegate.model import BOOL, F64, I32, I64, U8
from sensegate.quantities.quality import TimeQuality

BAD: Final = -(2**63)
"""Stands for a time that cannot be parsed."""

FORMATS = ("iso", "epoch", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "age_s", "age_ms", "senml")
"""Names of formats; anything else must be a pattern with ``%``."""

_UNITS = {"epoch_s": (1_000_000, 1), "epoch_ms": (1_000, 1), "epoch_us": (1, 1), "epoch_ns": (1, 1_000)}
_AGES = {"age_s": 1_000_000, "age_ms": 1_000}
_LIMIT = {"epoch_s": 1e11, "epoch_ms": 1e14, "epoch_us": 1e17, "epoch_ns": 9e18}
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?(Z|z|[+-]\d\d:?(?:\d\d)?)?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SENML_RELATIVE = 2**28
"""SenML times below this are seconds from the arrival (RFC 8428, 4.5.3)."""
_TEXT_MAX = 96
_DURATION = re.compile(
    r"P(?:(\d{1,4})W|(?:(\d{1,5})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,8}(?:[.,]\d{1,6})?)S)?)?)", re.ASCII
)


def join_parts(raws: Sequence[Any]) -> str:
    """Return the text that several values form together; an unparsable one if one of them is not a scalar."""
    if not all(isinstance(raw, (str, int, float)) and not isinstance(raw, bool) for raw in raws):
        return ""
    return " ".join(map(str, raws))


class TimeReader(msgspec.Struct, frozen=True):
    """Parser of a profile's times."""

    formats: tuple[str, ...] = ("iso",)
    zone: str = "Asia/Shanghai"
    """Zone of text without one."""
    shift: int = 0
    """µs to add: the period, if the stamp marks its start. A shifted time is `DERIVED`."""
    missing: frozenset[Any] = frozenset()
    """Values that a device sends when it knows no time; such readings are dated by their arrival."""
    interval: str = "end"
    """End of an ISO 8601 interval that is the time: ``start`` or ``end``."""

    def is_time(self, raw: Any) -> bool:
        """Return whether a value can be read as a time."""
        return self.parse(raw, 0)[0] != BAD

    def parse(self, raw: Any, received: int) -> tuple[int, int]:
        """Return (µs UTC or `BAD`, time quality) of one value."""
        if self.missing and self._is_missing(raw):
            return received, TimeQuality.RECEIVED
        for form in self.formats:
            if form == "iso" and isinstance(raw, str) and "/" in raw:
                time, quality = _interval(raw, self.zone, self.interval)
            else:
                time, quality = _parse(raw, form, self.zone, received)
            if time != BAD:
                if self.shift:
                    return time + self.shift, TimeQuality.DERIVED
                return time, quality
        return BAD, TimeQuality.RECEIVED

    def column(self, raws: Sequence[Any], received: I64) -> tuple[I64, U8]:
        """Return the result of `parse` for each value; vectorised if all are of one kind."""
        fast = None if self.missing and any(map(self._is_missing, raws)) else self._fast_column(raws, received)
        if fast is not None:
            time, quality, sure = fast
            if sure.all():
                if self.shift:
                    return time + self.shift, np.full(len(raws), TimeQuality.DERIVED, np.uint8)
                return time, quality
            remaining = np.flatnonzero(~sure)
            if self.shift:
                time[sure] += self.shift
                quality[sure] = TimeQuality.DERIVED
        else:
            time, quality = np.empty(len(raws), np.int64), np.empty(len(raws), np.uint8)
            remaining = np.arange(len(raws))
        for index in remaining.tolist():
            time[index], quality[index] = self.parse(raws[index], int(received[index]))
        return time, quality

    def _is_missing(self, raw: Any) -> bool:
        return isinstance(raw, (str, int, float)) and not isinstance(raw, bool) and raw in self.missing

    def _fast_column(self, raws: Sequence[Any], received: I64) -> tuple[I64, U8, BOOL] | None:
        kinds = set(map(type, raws))
        form = self.formats[0]
        if kinds == {str}:
            if "%" in form:
                return _pattern_column(raws, form, self.zone)
            return _iso_column(raws, self.zone) if "iso" in self.formats else None
        if kinds in ({int}, {float}):
            numbers = self.formats[1:2] if form == "iso" else self.formats[:1]
            if numbers and numbers[0].startswith("epoch"):
                return _epoch_column(raws, numbers[0]) if kinds == {int} else _float_epoch_column(raws, numbers[0])
            if numbers == ("senml",):
                return _senml_column(raws, received)
        return None


def _parse(raw: Any, form: str, zone: str, received: int) -> tuple[int, int]:  # noqa: PLR0911 - one for each kind
    if isinstance(raw, bool):
        return BAD, TimeQuality.RECEIVED
    if isinstance(raw, str):
        if len(raw) > _TEXT_MAX:
            return BAD, TimeQuality.RECEIVED
        if form == "iso":
            return _iso(raw, zone)
        if "%" in form:
            return _pattern(raw, form, zone)
        try:
            raw = int(raw) if raw.lstrip("-").isdigit() else float(raw)
        except ValueError:
            return BAD, TimeQuality.RECEIVED
    if isinstance(raw, (int, float)):
        if "%" in form and isinstance(raw, int):
            return _pattern(str(raw), form, zone)
        if form in _AGES:
            return _age(raw, _AGES[form], received)
        if form == "senml":
            if abs(raw) < _SENML_RELATIVE:
                return received + round(raw * 1_000_000), TimeQuality.DERIVED
            form = "epoch_s"
        return _epoch(raw, form), TimeQuality.DEVICE
    return BAD, TimeQuality.RECEIVED


def _age(raw: float, factor: int, received: int) -> tuple[int, int]:
    if not 0 <= raw < 1e11:
        return BAD, TimeQuality.RECEIVED
    return received - round(raw * factor), TimeQuality.DERIVED


def _epoch(raw: float, form: str) -> int:
    if form == "epoch":
        form = "epoch_s" if abs(raw) < 1e11 else "epoch_ms"
    if form not in _UNITS or not abs(raw) < _LIMIT[form]:
        return BAD
    factor, divisor = _UNITS[form]
    return int(raw) * factor // divisor if isinstance(raw, int) else round(raw * factor) // divisor


@lru_cache(8_192)  # the values of one message mostly share their time
def _iso(text: str, zone: str) -> tuple[int, int]:
    match = _ISO.fullmatch(text)
    if match is None:
        return BAD, TimeQuality.RECEIVED
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    is_leap = second == "60"
    ends_day = hour == "24" and not any(int(part or 0) for part in (minute, second, fraction))
    try:
        clock = (0 if ends_day else int(hour), int(minute), 59 if is_leap else int(second or 0))
        local = datetime(int(year), int(month), int(day), *clock, tzinfo=UTC) + timedelta(days=ends_day)
        time = (local - _EPOCH) // _MICROSECOND + int((fraction or "0")[:6].ljust(6, "0"))
        ahead = _zone_offset(zone, time) if offset is None else _offset(offset)
    except (ValueError, OverflowError):
        return BAD, TimeQuality.RECEIVED
    quality = TimeQuality.ASSUMED_ZONE if offset is None else TimeQuality.DEVICE
    return _leap_second(time - ahead, quality) if is_leap else (time - ahead, quality)


def _leap_second(time: int, quality: int) -> tuple[int, int]:
    """Return the time a second after second 59 of text with second 60, `BAD` unless there may be a leap second."""
    time += SECOND_US
    return (time, quality) if begins_month(time) else (BAD, TimeQuality.RECEIVED)


def _interval(text: str, zone: str, end: str) -> tuple[int, int]:
    """Return one end of an ISO 8601 interval: two times, a time and a duration, or a duration and a time.

    The second time may leave out what it shares with the first: ``2026-01-01T08:00/09:00``.
    """
    first, _, second = text.partition("/")
    if len(text) > _TEXT_MAX or not second:
        return BAD, TimeQuality.RECEIVED
    if first[:1] == "P" or second[:1] == "P":
        duration = _duration(first if first[:1] == "P" else second)
        time, quality = _iso(second if first[:1] == "P" else first, zone)
        if duration is None or time == BAD:
            return BAD, TimeQuality.RECEIVED
        if first[:1] == "P":
            return (time - duration if end == "start" else time), quality
        return (time if end == "start" else time + duration), quality
    start = _iso(first, zone)
    match = _ISO.fullmatch(first)
    if not _ISO.fullmatch(second) and match is not None:
        offset = match[8] or ""
        civil = first.removesuffix(offset)
        second = civil[: max(0, len(civil) - len(second))] + second + offset
    stop = _iso(second, zone)
    if BAD in {start[0], stop[0]} or stop[0] < start[0]:
        return BAD, TimeQuality.RECEIVED
    return start if end == "start" else stop


def _duration(text: str) -> int | None:
    """Return the µs of a duration in weeks, days, hours, minutes and seconds; None if it is none."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()) or text.endswith("T"):
        return None
    weeks, days, hours, minutes = (int(part or 0) for part in match.groups()[:4])
    seconds = float((match[5] or "0").replace(",", "."))
    return ((weeks * 7 + days) * 86_400 + hours * 3_600 + minutes * 60) * 1_000_000 + round(seconds * 1e6)


def _offset(text: str) -> int:
    if text in "Zz":
        return 0
    digits = text[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError("zone offset out of range")
    return (-1 if text[0] == "-" else 1) * (hours * 60 + minutes) * 60_000_000


def _zone_offset(zone: str, local: int) -> int:
    """Return the µs that `zone` is ahead of UTC at a local time (µs of its own clock)."""
    local_time = datetime(1970, 1, 1) + timedelta(microseconds=local)  # noqa: DTZ001 - the zone's local time
    ahead = local_time.replace(tzinfo=ZoneInfo(zone)).utcoffset()
    return (ahead or timedelta()) // _MICROSECOND


def _pattern(text: str, form: str, zone: str) -> tuple[int, int]:
    match = pattern.fullmatch(text) if "60" in text and (pattern := _second_60_pattern(form)) else None
    if match is not None:
        time, quality = _pattern(f"{text[: match.start(1)]}59{text[match.end(1) :]}", form, zone)
        return (time, quality) if time == BAD else _leap_second(time, quality)
    try:
        parsed = _civil_time(text, form)
        if parsed.tzinfo is not None:
            return (parsed - _EPOCH) // _MICROSECOND, TimeQuality.DEVICE
        local = (parsed.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
        return local - _zone_offset(zone, local), TimeQuality.ASSUMED_ZONE
    except (ValueError, OverflowError):
        return BAD, TimeQuality.RECEIVED


def _civil_time(text: str, form: str) -> datetime:
    """Parse civil time; 24:00 is 0:00 of the next day. Raises `ValueError` or `OverflowError`."""
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007 - the zone is added by the caller
    except ValueError:
        midnight = _midnight(text, form)
        if not midnight:
            raise
        return datetime.strptime(midnight, form) + timedelta(days=1)  # noqa: DTZ007 - the same


_PARTS = {"Y": r"\d{4}", "y": r"\d\d", "j": r"\d{1,3}", "f": "0{1,6}", "M": "00?", "S": "00?", "H": "(24)"}


@cache
def _end_of_day_pattern(form: str) -> re.Pattern[str] | None:
    """Return a pattern for text at 24:00, with the hour as its group; None for a format without hours."""
    return _text_pattern(form, _PARTS) if "%H" in form else None


_PARTS_60 = {"Y": r"\d{4}", "y": r"\d\d", "j": r"\d{1,3}", "f": r"\d{1,6}", "S": "(60)"}


@cache
def _second_60_pattern(form: str) -> re.Pattern[str] | None:
    """Return a pattern for text with second 60, with that as its group; None for a format without seconds."""
    return _text_pattern(form, _PARTS_60) if "%S" in form else None


def _text_pattern(form: str, parts: dict[str, str]) -> re.Pattern[str] | None:
    """Return a pattern for text of a format; None where it has other parts than numbers and a zone."""
    if form.count("%") != len(re.findall("%[YymdjHMSfz]", form)):
        return None
    literal = [
        parts.get(part, r"\S+" if part == "z" else r"\d\d?") if index % 2 else re.escape(part)
        for index, part in enumerate(re.split("%(.)", form))
    ]
    return re.compile("".join(literal), re.ASCII)


def _midnight(text: str, form: str) -> str:
    """Return text at 24:00 with hour 0 (which then is the next day), an empty string if it is not 24:00."""
    pattern = _end_of_day_pattern(form) if "24" in text else None
    match = pattern.fullmatch(text) if pattern else None
    return f"{text[: match.start(1)]}00{text[match.end(1) :]}" if match else ""


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────

_MONTH_DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_FORMS_MAX = 1_024
"""Most forms of texts, and hours, of which something is remembered."""
_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}


class _Layout(msgspec.Struct, frozen=True):
    """Text of fixed width: positions of the digits of each part, and the characters between them."""

    parts: dict[str, int]
    """Part (a letter of `_WIDTHS`) -> position of its first digit."""
    between: tuple[tuple[int, str], ...]
    """(position, allowed characters)"""
    length: int


@lru_cache(_FORMS_MAX)
def _layout(pattern: str) -> _Layout | None:
    """Return the layout of a pattern with each part at most once and a complete date, else None."""
    parts: dict[str, int] = {}
    between: list[tuple[int, str]] = []
    index = position = 0
    while index < len(pattern):
        if pattern[index] == "%":
            part = pattern[index + 1 : index + 2]
            if part not in _WIDTHS or part in parts:
                return None
            parts[part] = position
            position += _WIDTHS[part]
            index += 2
            continue
        if not pattern[index].isascii() or (pattern[index].isspace() and pattern[index] != " "):
            return None
        between.append((position, pattern[index]))
        position += 1
        index += 1
    return _Layout(parts, tuple(between), position) if {"Y", "m", "d"} <= parts.keys() else None


_ISO_HEAD = _Layout(
    {"Y": 0, "m": 5, "d": 8, "H": 11, "M": 14, "S": 17},
    ((4, "-"), (7, "-"), (10, "T "), (13, ":"), (16, ":")),
    19,
)
"""Head of ISO text with seconds, the only ISO text that is vectorised."""


def _bytes_of(raws: Sequence[str]) -> U8 | None:
    """Return texts of one length as rows of bytes, None if their lengths differ or they are not ASCII."""
    length = len(raws[0])
    joined = "".join(raws).encode("utf-8", "replace")
    if len(joined) != length * len(raws) or set(map(len, raws)) != {length}:
        return None
    return np.frombuffer(joined, np.uint8).reshape(len(raws), length)


def _civil_columns(rows: U8, layout: _Layout) -> tuple[I64, BOOL]:
    """Return (µs on the clock of the zone, whether that is certain) of rows of bytes."""
    columns = np.ascontiguousarray(rows.T)  # by position: the operations below run along the rows
    digits = columns - np.uint8(ord("0"))
    places = [place + k for part, place in layout.parts.items() for k in range(_WIDTHS[part])]
    sure: BOOL = digits[places].max(axis=0) < 10
    for place, characters in layout.between:
        allowed = columns[place] == ord(characters[0])
        for other in characters[1:]:
            allowed |= columns[place] == ord(other)
        sure &= allowed
    zero = np.zeros(len(rows), np.int32)

    def number(part: str) -> I32:
        place = layout.parts.get(part)
        if place is None:
            return zero
        value: I32 = digits[place].astype(np.int32)
        for k in range(1, _WIDTHS[part]):
            value = value * 10 + digits[place + k]
        return value

    year, month, day = number("Y"), number("m"), number("d")
    hour, minute, second = number("H"), number("M"), number("S")
    sure &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    sure &= (hour <= 23) & (minute <= 59) & (second <= 59)
    sure &= day <= _MONTH_DAYS[np.minimum(month, 12)]
    if (days29 := (month == 2) & (day == 29)).any():
        sure &= ~days29 | ((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)))
    seconds = _days(year, month, day).astype(np.int64) * 86_400 + (hour * 3_600 + minute * 60 + second)
    return seconds * 1_000_000, sure


class _VaryingDigits(NamedTuple):
    """The digits of a text that tell the time within the hour."""

    places: list[int]
    highest: U8
    """Greatest valid digit at each place."""
    units: F64
    """µs of a unit at each place."""
    hour: int
    """Place of the hour."""
    fixed: list[int]
    """The other places."""


@lru_cache(_FORMS_MAX)
def _varying_digits(form: str, fraction: int, length: int) -> _VaryingDigits | None:
    """Return the digits of texts of a form and length, with so many digits of a fraction; None: it tells no hours."""
    layout = _ISO_HEAD if form == "iso" else _layout(form.removesuffix("%z"))
    if layout is None or not {"H", "M", "S"} <= layout.parts.keys():
        return None
    digits: list[tuple[int, int, float]] = []
    for part, unit in (("M", 6e7), ("S", 1e6)):
        place = layout.parts[part]
        digits += [(place, 5, unit * 10), (place + 1, 9, unit)]
    digits += [(layout.length + 1 + k, 9, 10.0 ** (5 - k) if k < 6 else 0.0) for k in range(fraction)]
    places = [place for place, _, _ in digits]
    return _VaryingDigits(
        places,
        np.array([highest for _, highest, _ in digits], np.uint8),
        np.array([unit for _, _, unit in digits]),
        layout.parts["H"],
        [place for place in range(length) if place not in places],
    )


@lru_cache(_FORMS_MAX)
def _start_of_hour(text: str, form: str, zone: str) -> tuple[int, int]:
    """Return (µs UTC or `BAD`, quality) of a text whose digits within the hour are zero."""
    return _iso(text, zone) if form == "iso" else _pattern(text, form, zone)


def _within_hour(
    rows: U8, first: str, varying: _VaryingDigits | None, form: str, zone: str
) -> tuple[I64, U8, BOOL] | None:
    """Return the column of texts of one hour, as those of a batch mostly are; None: they are not, or not certain.

    They agree in everything but the digits within the hour, so that everything else is parsed once.
    """
    if varying is None or first.startswith("24", varying.hour):
        return None
    characters = list(first)
    for place in varying.places:
        characters[place] = "0"
    start, quality = _start_of_hour("".join(characters), form, zone)
    if start < 0:  # `BAD`; and before 1970, zones changed by odd minutes
        return None
    if not (rows[:, varying.fixed] == rows[0, varying.fixed]).all():
        return None
    digits = rows[:, varying.places] - np.uint8(ord("0"))
    if (digits.max(axis=0) > varying.highest).any():
        return None
    time = (digits @ varying.units).astype(np.int64)
    time += start
    return time, np.full(len(rows), quality, np.uint8), np.ones(len(rows), np.bool_)


def _to_utc(local: I64, sure: BOOL, zone: str) -> tuple[I64, U8, BOOL]:
    sure = sure & (local >= 0)  # before 1970, zones changed by odd minutes
    hours, inverse = np.unique(np.where(sure, local, 0) // HOUR_US, return_inverse=True)
    ahead = np.array([_zone_offset(zone, int(hour) * HOUR_US) for hour in hours], np.int64)
    return local - ahead[inverse], np.full(len(local), TimeQuality.ASSUMED_ZONE, np.uint8), sure


def _pattern_column(raws: Sequence[str], form: str, zone: str) -> tuple[I64, U8, BOOL] | None:
    layout = _layout(form.removesuffix("%z"))
    rows = _bytes_of(raws) if layout else None
    if layout is None or rows is None or rows.shape[1] != layout.length + form.endswith("%z"):
        return None
    within = _within_hour(rows, raws[0], _varying_digits(form, 0, rows.shape[1]), form, zone)
    if within is not None:
        return within
    local, sure = _civil_columns(rows, layout)
    if form.endswith("%z"):
        return local, np.zeros(len(raws), np.uint8), sure & (rows[:, -1] == ord("Z"))
    return _to_utc(local, sure, zone)


def _iso_column(raws: Sequence[str], zone: str) -> tuple[I64, U8, BOOL] | None:
    """Return (time, quality, sure) of ISO texts of one length; rows that are not `sure` are parsed one by one."""
    rows = _bytes_of(raws)
    head = _ISO_HEAD.length
    if rows is None or rows.shape[1] < head:
        return None
    length, tail = rows.shape[1], raws[0][head:]
    zone_text = next((tail[-size:] for size in (1, 6) if _is_zone(tail[-size:])), "")
    fraction = tail[: len(tail) - len(zone_text)]
    if fraction and not re.fullmatch(r"[.]\d{1,9}", fraction, re.ASCII):
        return None
    within = _within_hour(rows, raws[0], _varying_digits("iso", max(len(fraction) - 1, 0), length), "iso", zone)
    if within is not None:
        return within
    time, sure = _civil_columns(rows[:, :head], _ISO_HEAD)
    if fraction:
        places = np.ascontiguousarray(rows[:, head + 1 : head + len(fraction)].T) - np.uint8(ord("0"))
        sure &= (places.max(axis=0) < 10) & (rows[:, head] == ord("."))
        part = np.zeros(len(rows), np.int64)
        for k in range(6):
            part = part * 10 + (places[k] if k < len(places) else 0)
        time += part
    if not zone_text:
        return _to_utc(time, sure, zone)
    same = np.frombuffer(zone_text.encode(), np.uint8)
    sure &= (rows[:, length - len(same) :] == same).all(axis=1)
    return time - _offset(zone_text), np.zeros(len(raws), np.uint8), sure


def _is_zone(text: str) -> bool:
    if text in {"Z", "z"}:
        return True
    match = re.fullmatch(r"[+-](\d\d):(\d\d)", text, re.ASCII)
    return match is not None and int(match[1]) <= 23 and int(match[2]) <= 59


def _days(year: I32, month: I32, day: I32) -> I32:
    """Return days since 1970-01-01 of Gregorian dates, as columns."""
    shifted = year - (month <= 2)
    era_year = shifted % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days: I32 = (shifted // 400) * 146_097 + era_year * 365 + era_year // 4 - era_year // 100 + of_year - 719_468
    return days


def _epoch_column(raws: Sequence[int], form: str) -> tuple[I64, U8, BOOL] | None:
    try:
        numbers = np.array(raws, np.int64)
    except OverflowError:
        return None
    size = np.abs(numbers)
    possible = size >= 0  # not -2**63, which has no opposite
    if form == "epoch":
        seconds = size < 10**11
        sure = possible & (size < 10**14)
        time = np.where(sure, np.where(seconds, numbers * 1_000_000, numbers * 1_000), 0)
        return time, np.zeros(len(raws), np.uint8), sure
    factor, divisor = _UNITS[form]
    sure = possible & (size < int(_LIMIT[form]))
    return np.where(sure, numbers, 0) * factor // divisor, np.zeros(len(raws), np.uint8), sure


def _senml_column(raws: Sequence[float], received: I64) -> tuple[I64, U8, BOOL] | None:
    """Return times of SenML, of which small ones count from the arrival."""
    fast = _epoch_column(raws, "epoch_s") if isinstance(raws[0], int) else _float_epoch_column(raws, "epoch_s")  # type: ignore[arg-type]
    if fast is None:
        return None
    time, quality, sure = fast
    numbers = np.array(raws, np.float64)
    near = np.abs(numbers) < _SENML_RELATIVE
    time[near] = received[near] + np.rint(numbers[near] * 1_000_000).astype(np.int64)
    quality[near] = TimeQuality.DERIVED
    return time, quality, sure


def _float_epoch_column(raws: Sequence[float], form: str) -> tuple[I64, U8, BOOL]:
    numbers = np.array(raws, np.float64)
    size = np.abs(numbers)
    units = ("epoch_s", "epoch_ms") if form == "epoch" else (form,)
    factor, divisor = _UNITS[units[0]]
    if divisor == 1 and bool((size < _LIMIT[units[0]]).all()):
        time = np.rint(numbers * factor).astype(np.int64)
        return time, np.zeros(len(raws), np.uint8), np.ones(len(raws), np.bool_)
    time = np.zeros(len(raws), np.int64)
    sure = np.zeros(len(raws), np.bool_)
    for unit in units:
        factor, divisor = _UNITS[unit]
        in_unit = (size < _LIMIT[unit]) & ~sure
        time[in_unit] = np.rint(numbers[in_unit] * factor).astype(np.int64) // divisor
        sure |= in_unit
    return time, np.zeros(len(raws), np.uint8), sure
