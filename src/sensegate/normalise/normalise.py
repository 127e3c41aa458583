"""What devices said → readings: canonical unit, standard property, quality. One pass of numpy over the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sensegate.clock import Clock
from sensegate.config import TimeConfig
from sensegate.model import BOOL, F64, I32, I64, U8, U32, Fields, Readings, RejectedValue, RejectReason, Spec
from sensegate.normalise.checks import Past, Usual, check_range, grade
from sensegate.normalise.clocks import Clocks
from sensegate.normalise.series import Series
from sensegate.normalise.table import SpecTable
from sensegate.quantities.coordinates import shift
from sensegate.quantities.properties import PROPERTIES, Properties
from sensegate.quantities.quality import Flag, Quality

TEXT_MAX = 1024
"""Most characters of a string value."""


class Normaliser:
    """Turns `Fields` into `Readings`. Pure but for the past of each series (see `checks`) and of each device's clock.

    The order of the checks is range, rate of change, stuck value, unit, clock skew, future and stale time;
    duplicates are judged later, in `persist`. A check marks a reading and never removes it. A value is rejected only
    where it can be no reading: not finite, of the wrong type, too long, or of a time beyond belief.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        *,
        series: Series,
        clock: Clock,
        time: TimeConfig | None = None,
        properties: Properties = PROPERTIES,
    ) -> None:
        self.series = series
        self.clocks = Clocks(time or TimeConfig())
        self._clock = clock
        self._properties = properties
        self._past = Past()
        self._usual = Usual()
        self.adopt(specs)

    def adopt(self, specs: Sequence[Spec]) -> None:
        """Put other specs in force, between two batches; the past of each series stays.

        Raises:
            ProfileError: if one names no property of the table; the specs before stay in force.
        """
        table = SpecTable(specs, self.series, self._properties)
        self.table = table
        self._watches = bool(table.watched.any())

    def forget(self, devices: BOOL) -> None:
        """Forget the past of the series of some devices (by index): another version of their profile reads them now.

        A step between two versions is none of the world.
        """
        device, _ = self.series.keys()
        self._past.forget(np.flatnonzero((device >= 0) & (device < len(devices)) & devices[np.maximum(device, 0)]))

    def own_clock_off(self, off: bool) -> None:  # noqa: FBT001 - a switch of one meaning
        """Say whether our own clock is off. While it is, nothing is judged by time and everything is marked."""
        self.clocks.own_clock_off = off

    def normalise(
        self, fields: Fields, received: I64, best_effort: BOOL | None = None
    ) -> tuple[Readings, list[RejectedValue]]:
        """Return the readings of a batch and the values that became none.

        Args:
            fields: rows in the order of their messages; `device` is never negative.
            received: arrival of each message, µs UTC, indexed as `fields.message` says.
            best_effort: per message, True where it came at QoS 0; None: none did.

        `len(fields)` = readings + rejected values; the order of the rows is kept.
        """
        if not len(fields):
            return _none(), []
        value = self._value(fields)
        now = self._clock.now()
        rejected = self._rejected(fields, value, now)
        if rejected:
            fields, value = _without(fields, value, [row for row, _ in rejected])
        lost = [value for _, value in rejected]
        if not len(fields):
            return _none(), lost
        return self._judged(fields, value, received[fields.message], now, best_effort), lost

    def _judged(self, fields: Fields, value: F64, received: I64, now: int, best_effort: BOOL | None) -> Readings:
        table, spec, device, time = self.table, fields.spec, fields.device, fields.time
        count = len(fields)
        flags: U32 = table.flags.take(spec) if table.any_flags else np.zeros(count, np.uint32)
        quality: U8 = np.zeros(count, np.uint8)
        for row, code in fields.source_quality.items():
            quality[row] = code
        for row, bits in fields.source_flags.items():
            flags[row] |= np.uint32(bits)
        if best_effort is not None and best_effort.any():
            flags[best_effort[fields.message]] |= np.uint32(Flag.BEST_EFFORT)

        series = self.series.number(device, table.variable.take(spec))
        out = check_range(table, spec, value, flags, quality)
        if self._watches:
            watched = table.watched.take(spec)
            if out is not None:
                watched &= ~out
            future = self.clocks.future
            latest = max(now, int(received.max())) + future
            if int(time.max()) > int(received.min()) + future and not self.clocks.own_clock_off:
                watched &= time - received <= future
            rows = np.flatnonzero(watched)
            if rows.size:
                self._past.check(
                    table,
                    rows,
                    spec=spec,
                    series=series,
                    time=time,
                    value=value,
                    latest=latest,
                    flags=flags,
                    quality=quality,
                )
        if table.any_usual:
            self._usual.check(table, spec=spec, series=series, time=time, value=value, flags=flags, quality=quality)
        doubtful = self.clocks.mark(device, time, fields.time_quality, received, flags)
        if doubtful is not None:
            grade(quality, np.flatnonzero(doubtful), Quality.UNCERTAIN_CLOCK)
        return Readings(
            message=fields.message,
            device=device,
            spec=spec,
            property=table.property.take(spec),
            value=value,
            text=fields.text,
            time=time,
            time_quality=fields.time_quality,
            received=received,
            key=fields.key,
            path=fields.path,
            quality=quality,
            flags=flags,
            series=series,
        )

    def _value(self, fields: Fields) -> F64:
        """Return the values in canonical units."""
        value, spec = fields.value, fields.spec
        if self.table.any_scale:
            with np.errstate(over="ignore", invalid="ignore"):
                value = value * self.table.scale.take(spec)
                value += self.table.offset.take(spec)
        if fields.override_scale:
            value = value.copy() if value is fields.value else value
            for row, (scale, offset) in fields.override_scale.items():
                value[row] = float(fields.value[row]) * scale + offset
        if self.table.shifted:
            value = value.copy() if value is fields.value else value
            value[shift(fields, value, self.table.specs, self.table.shifted)] = np.nan
        return value

    def _rejected(self, fields: Fields, value: F64, now: int) -> list[tuple[int, RejectedValue]]:
        """Return (row, value) for each row that can be no reading, in the order of the rows; usually none."""
        table, spec = self.table, fields.spec
        reasons: dict[int, RejectReason] = {}
        bad_time = self.clocks.bad(fields.time, now)
        if bad_time is not None:
            reasons.update(dict.fromkeys(np.flatnonzero(bad_time).tolist(), RejectReason.BAD_TIME))
        if table.any_boolean:
            wrong = table.boolean.take(spec)
            wrong &= (value != 0) & (value != 1)
            if wrong.any():
                reasons.update(dict.fromkeys(np.flatnonzero(wrong).tolist(), RejectReason.WRONG_TYPE))
        finite = np.isfinite(value)
        if not finite.all():
            odd = np.flatnonzero(~finite).tolist()
            reasons.update({row: RejectReason.NOT_FINITE for row in odd if row not in fields.text})
        if table.any_string or fields.text:
            reasons.update(self._wrong_text(fields))
        return [
            (
                row,
                RejectedValue(
                    message=int(fields.message[row]),
                    reason=reasons[row],
                    field=table.specs[spec[row]].name,
                    device=int(fields.device[row]),
                    detail=self._detail(reasons[row], fields, row),
                    profile=table.specs[spec[row]].profile,
                ),
            )
            for row in sorted(reasons)
        ]

    def _wrong_text(self, fields: Fields) -> dict[int, RejectReason]:
        """Return the rows whose value is a string and should not be, or is none and should be, or is too long."""
        reasons: dict[int, RejectReason] = {}
        string = self.table.string.take(fields.spec)
        for row, text in fields.text.items():
            if not string[row]:
                reasons[row] = RejectReason.WRONG_TYPE
            elif len(text) > TEXT_MAX:
                reasons[row] = RejectReason.TOO_LONG
        for row in np.flatnonzero(string).tolist():
            if row not in fields.text:
                reasons[row] = RejectReason.WRONG_TYPE
        return reasons

    def _detail(self, reason: RejectReason, fields: Fields, row: int) -> str:
        spec = self.table.specs[fields.spec[row]]
        kind = self._properties.by_name(spec.property).kind.value
        match reason:
            case RejectReason.BAD_TIME:
                return f"phenomenon time {int(fields.time[row])} µs is out of bounds"
            case RejectReason.TOO_LONG:
                return f"{len(fields.text[row])} characters, at most {TEXT_MAX}"
            case RejectReason.NOT_FINITE:
                said = float(fields.value[row])
                if int(fields.spec[row]) in self.table.shifted and math.isfinite(said):
                    return f"alone it cannot be shifted from {spec.datum.value} to WGS-84"
                return f"{said} times {spec.scale} overflows" if math.isfinite(said) else f"{said} is no number"
            case _:
                return f"{spec.property} is a {kind}"


def _without(fields: Fields, value: F64, rows: list[int]) -> tuple[Fields, F64]:
    """Return the fields without some rows; row numbers of the sparse columns move up."""
    keep = np.ones(len(fields), np.bool_)
    keep[rows] = False
    moved = np.cumsum(keep) - 1
    kept: I32 = fields.message[keep]
    return Fields(
        message=kept,
        device=fields.device[keep],
        spec=fields.spec[keep],
        value=fields.value[keep],
        text={int(moved[row]): text for row, text in fields.text.items() if keep[row]},
        time=fields.time[keep],
        time_quality=fields.time_quality[keep],
        key=fields.key[keep],
        path=fields.path[keep],
        source_quality={int(moved[row]): code for row, code in fields.source_quality.items() if keep[row]},
        source_flags={int(moved[row]): bits for row, bits in fields.source_flags.items() if keep[row]},
    ), value[keep]


def _none() -> Readings:
    return Readings(
        message=np.zeros(0, np.int32),
        device=np.zeros(0, np.int32),
        spec=np.zeros(0, np.int32),
        property=np.zeros(0, np.int16),
        value=np.zeros(0, np.float64),
        text={},
        time=np.zeros(0, np.int64),
        time_quality=np.zeros(0, np.uint8),
        received=np.zeros(0, np.int64),
        key=np.zeros(0, np.int64),
        path=np.zeros(0, np.uint16),
        quality=np.zeros(0, np.uint8),
        flags=np.zeros(0, np.uint32),
    )
