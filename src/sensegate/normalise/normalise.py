"""Conversion of decoded fields to readings: canonical unit, standard property, quality. One numpy pass over a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sensegate.clock import Clock
from sensegate.config import TimeConfig
from sensegate.model import BOOL, F64, I32, I64, U8, U32, Fields, Readings, RejectedValue, RejectReason, Spec
from sensegate.normalise.checks import CheckedBatch, SeriesHistory, UnitPlausibility, check_range, downgrade
from sensegate.normalise.clocks import TimeChecks
from sensegate.normalise.places import DevicePlaces, PlaceCheck
from sensegate.normalise.table import SpecTable
from sensegate.quantities.coordinates import unshift_coordinates
from sensegate.quantities.decimals import has_noise, without_noise, without_single_noise
from sensegate.quantities.properties import PROPERTIES, Properties
from sensegate.quantities.quality import Flag, Quality
from sensegate.quantities.series import SeriesIndex

TEXT_MAX = 1024
"""Greatest length of a string value in characters."""


class Normaliser:
    """Converts `Fields` to `Readings`. Pure but for the history of each series (`checks`) and of each device's clock.

    The order of the checks is range, rate of change, stuck value, place, unit, clock skew, future and stale time;
    deduplication follows later, in `persist`. A check flags a reading and never removes it. A value is rejected only if
    it cannot be a reading: not finite, of the wrong type, too long, or with a time out of bounds.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        *,
        series: SeriesIndex,
        clock: Clock,
        time: TimeConfig | None = None,
        properties: Properties = PROPERTIES,
        places: DevicePlaces | None = None,
    ) -> None:
        self.series = series
        self.clocks = TimeChecks(time or TimeConfig())
        self._clock = clock
        self._properties = properties
        self._history = SeriesHistory()
        self._plausibility = UnitPlausibility()
        self._place_check = PlaceCheck(places)
        self.apply_specs(specs)

    def apply_specs(self, specs: Sequence[Spec]) -> None:
        """Replace the specs, between two batches; the history of each series is kept.

        Raises:
            ProfileError: if a spec names an unknown property; the previous specs stay in force.
        """
        table = SpecTable(specs, self.series, self._properties)
        self.table = table
        self._compares = bool(table.compared.any())

    def forget(self, devices: BOOL) -> None:
        """Discard the history of all series of these devices (mask by index), after their profile version has changed.

        A step between two versions of a profile is not a real change.
        """
        device, _ = self.series.keys()
        self._history.forget(np.flatnonzero((device >= 0) & (device < len(devices)) & devices[np.maximum(device, 0)]))

    def normalise(
        self, fields: Fields, received: I64, best_effort: BOOL | None = None, redelivered: BOOL | None = None
    ) -> tuple[Readings, list[RejectedValue]]:
        """Return the readings of a batch and the rejected values.

        Args:
            fields: rows in the order of their messages; `device` is never negative.
            received: arrival of each message, µs UTC, indexed by `fields.message`.
            best_effort: per message, whether it arrived at QoS 0; None: none did.
            redelivered: per message, whether its device sent it again; None: none did.

        `len(fields)` = readings + rejected values; the order of the rows is kept.
        """
        if not len(fields):
            return _no_readings(), []
        value = self._value(fields)
        now = self._clock.now()
        rejected = self._find_rejected(fields, value, now)
        if rejected:
            fields, value = _without_rows(fields, value, [row for row, _ in rejected])
        rejects = [value for _, value in rejected]
        if not len(fields):
            return _no_readings(), rejects
        readings = self._checked(fields, value, received[fields.message], now)
        for messages, flag in ((best_effort, Flag.BEST_EFFORT), (redelivered, Flag.REDELIVERED)):
            if messages is not None and messages.any():
                readings.flags[messages[fields.message]] |= np.uint32(flag)
        return readings, rejects

    def _checked(self, fields: Fields, value: F64, received: I64, now: int) -> Readings:
        table, spec, device, time = self.table, fields.spec, fields.device, fields.time
        count = len(fields)
        flags: U32 = table.flags.take(spec) if table.any_flags else np.zeros(count, np.uint32)
        quality: U8 = np.zeros(count, np.uint8)
        for row, code in fields.source_quality.items():
            quality[row] = code
        for row, bits in fields.source_flags.items():
            flags[row] |= np.uint32(bits)

        series = self.series.resolve(device, table.variable.take(spec))
        batch = CheckedBatch(spec, series, time, value, flags, quality)
        out = check_range(table, spec, value, flags, quality)
        if self._compares:
            watched = table.compared.take(spec)
            if out is not None:
                watched &= ~out
            future = self.clocks.future
            latest = max(now, int(received.max())) + future
            if int(time.max()) > int(received.min()) + future and not self.clocks.own_clock_off:
                watched &= time - received <= future
            rows = np.flatnonzero(watched)
            if rows.size:
                self._history.check(table, batch, rows, latest=latest)
        if table.any_place:
            self._place_check.mark(table, device, spec, value, flags)
        if table.any_usual:
            self._plausibility.check(table, batch)
        doubtful = self.clocks.mark(device, time, fields.time_quality, received, flags)
        if doubtful is not None:
            downgrade(quality, np.flatnonzero(doubtful), Quality.UNCERTAIN_CLOCK)
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
        """Return the values converted to canonical units, without the noise of binary arithmetic."""
        is_converted = bool(self.table.converted.take(fields.spec).any())
        if not (is_converted or fields.override_scale or has_noise(fields.value).any()):
            return fields.value
        value, spec = without_single_noise(fields.value), fields.spec
        if self.table.any_scale:
            with np.errstate(over="ignore", invalid="ignore"):
                value = value * self.table.scale.take(spec)
                value += self.table.offset.take(spec)
        if fields.override_scale:
            sent = without_single_noise(fields.value)
            value = value.copy() if value is fields.value else value
            for row, (scale, offset) in fields.override_scale.items():
                value[row] = float(sent[row]) * scale + offset
        if self.table.shifted:
            value = value.copy() if value is fields.value else value
            value[unshift_coordinates(fields, value, self.table.specs, self.table.shifted)] = np.nan
        return without_noise(value)

    def _find_rejected(self, fields: Fields, value: F64, now: int) -> list[tuple[int, RejectedValue]]:
        """Return (row, rejected value) for each row that cannot be a reading, in order of the rows; usually none."""
        table, spec = self.table, fields.spec
        reasons: dict[int, RejectReason] = {}
        bad_time = self.clocks.out_of_bounds(fields.time, now)
        if bad_time is not None:
            reasons.update(dict.fromkeys(np.flatnonzero(bad_time).tolist(), RejectReason.BAD_TIME))
        has_others = table.any_other and bool(table.other.take(spec).any())
        if has_others and table.any_boolean:
            wrong = table.boolean.take(spec)
            wrong &= (value != 0) & (value != 1)
            if wrong.any():
                reasons.update(dict.fromkeys(np.flatnonzero(wrong).tolist(), RejectReason.WRONG_TYPE))
        finite = np.isfinite(value)
        if not finite.all():
            infinite = np.flatnonzero(~finite).tolist()
            reasons.update({row: RejectReason.NOT_FINITE for row in infinite if row not in fields.text})
        if has_others or fields.text:
            reasons.update(self._find_wrong_text(fields))
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

    def _find_wrong_text(self, fields: Fields) -> dict[int, RejectReason]:
        """Return the rows with an unexpected or missing string, or with one that is too long."""
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
                return f"{len(fields.text[row])} characters; at most {TEXT_MAX}"
            case RejectReason.NOT_FINITE:
                value = float(fields.value[row])
                if int(fields.spec[row]) in self.table.shifted and math.isfinite(value):
                    return f"without its partner it cannot be converted from {spec.datum.value} to WGS-84"
                return f"{value} times {spec.scale} overflows" if math.isfinite(value) else f"{value} is not a number"
            case _:
                return f"{spec.property} is a {kind}"


def _without_rows(fields: Fields, value: F64, rows: list[int]) -> tuple[Fields, F64]:
    """Return the fields without these rows; row numbers of the sparse columns are adjusted."""
    keep = np.ones(len(fields), np.bool_)
    keep[rows] = False
    moved = np.cumsum(keep) - 1
    message: I32 = fields.message[keep]
    return Fields(
        message=message,
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


def _no_readings() -> Readings:
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
