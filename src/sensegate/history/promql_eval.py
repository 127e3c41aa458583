"""Evaluation of expressions over series, step by step, as Prometheus defines it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.history.promql import (
    NAME,
    Aggregation,
    Arithmetic,
    BadQuery,
    Expression,
    Number,
    RangeCall,
    RangeSelector,
    Selector,
    selectors_of,
)

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Labels = tuple[tuple[str, str], ...]
"""Name and text of each label, sorted; empty texts are left out."""


class Series(msgspec.Struct, frozen=True, eq=False):
    """The samples of one series, in the order of time."""

    labels: Labels
    time: I64
    """µs."""
    value: F64


class StepValues(msgspec.Struct, frozen=True, eq=False):
    """The value of one series at each step; NaN: it has none."""

    labels: Labels
    values: F64


class Evaluation(msgspec.Struct, frozen=True, eq=False):
    """Series and steps of one query."""

    series: Mapping[Selector, Sequence[Series]]
    steps: I64
    """µs."""
    lookback_us: int

    def values(self, expression: Expression) -> list[StepValues]:
        """Return the values of an expression that has series. Raises `BadQuery`."""
        match expression:
            case Selector():
                return [self._latest(expression, series) for series in self.series[expression]]
            case RangeCall():
                return [self._over_time(expression, series) for series in self.series[expression.samples.selector]]
            case Aggregation():
                return self._aggregated(expression)
            case Arithmetic():
                return self._arithmetic(expression)
            case RangeSelector():
                raise BadQuery("a range in brackets has no value at a step; use it in a function")
        raise BadQuery("a number has no series")

    def number(self, expression: Expression) -> float:
        """Return the value of an expression without series."""
        match expression:
            case Number(value):
                return value
            case Arithmetic(operator, left, right):
                pair = np.array([self.number(left)]), np.array([self.number(right)])
                return float(_calculate(operator, *pair)[0])
        raise BadQuery("series have no single number")

    def samples(self, expression: RangeSelector) -> list[Series]:
        """Return the samples within the range before the only step."""
        begins, ends = self._bounds(expression)
        ranges = []
        for series in self.series[expression.selector]:
            first, last = np.searchsorted(series.time, [begins[0], ends[0]], side="right")
            if last > first:
                ranges.append(Series(series.labels, series.time[first:last], series.value[first:last]))
        return ranges

    def window_samples(self, expression: Expression) -> int:
        """Return the samples in the ranges of all steps, each as often as a range holds it: the work of `values`."""
        count = 0
        for selector, length in selectors_of(expression):
            ends = self.steps - selector.offset_us
            for series in self.series[selector] if length else ():
                first, last = (np.searchsorted(series.time, at, side="right") for at in (ends - length, ends))
                count += int((last - first).sum())
        return count

    def _latest(self, selector: Selector, series: Series) -> StepValues:
        at = self.steps - selector.offset_us
        place = np.searchsorted(series.time, at, side="right") - 1
        known = place >= 0
        place = np.maximum(place, 0)
        known &= at - series.time[place] < self.lookback_us
        return StepValues(series.labels, np.where(known, series.value[place], np.nan))

    def _bounds(self, samples: RangeSelector) -> tuple[I64, I64]:
        ends = self.steps - samples.selector.offset_us
        return ends - samples.length_us, ends

    def _over_time(self, call: RangeCall, series: Series) -> StepValues:
        begins, ends = self._bounds(call.samples)
        firsts = np.searchsorted(series.time, begins, side="right")
        lasts = np.searchsorted(series.time, ends, side="right")
        values = np.full(len(self.steps), np.nan)
        extrapolates = call.function in _EXTRAPOLATED
        for step, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
            if last > first:
                window = series.value[first:last]
                values[step] = (
                    _extrapolated(call.function, series.time[first:last], window, int(begins[step]), int(ends[step]))
                    if extrapolates
                    else _OVER_TIME[call.function](window, call.quantile)
                )
        keeps_name = call.function == "last_over_time"
        return StepValues(series.labels if keeps_name else without_name(series.labels), values)

    def _aggregated(self, expression: Aggregation) -> list[StepValues]:
        groups: dict[Labels, list[F64]] = {}
        for inner in self.values(expression.inner):
            if expression.is_without:
                labels = tuple(pair for pair in inner.labels if pair[0] not in {*expression.labels, NAME})
            else:
                labels = tuple(pair for pair in inner.labels if pair[0] in expression.labels)
            groups.setdefault(labels, []).append(inner.values)
        reduce = _AGGREGATIONS[expression.operator]
        return [StepValues(labels, _reduced(reduce, np.stack(members))) for labels, members in groups.items()]

    def _arithmetic(self, expression: Arithmetic) -> list[StepValues]:
        left, right = expression.left, expression.right
        number_first = isinstance(left, Number) or (isinstance(left, Arithmetic) and not _has_series(left))
        number, inner = (left, right) if number_first else (right, left)
        constant = np.array([self.number(number)])
        return [
            StepValues(
                without_name(series.labels),
                _calculate(expression.operator, constant, series.values)
                if number_first
                else _calculate(expression.operator, series.values, constant),
            )
            for series in self.values(inner)
        ]


def without_name(labels: Labels) -> Labels:
    """Return labels without the name of the metric."""
    return tuple(pair for pair in labels if pair[0] != NAME)


def _has_series(expression: Expression) -> bool:
    match expression:
        case Number():
            return False
        case Arithmetic(_, left, right):
            return _has_series(left) or _has_series(right)
    return True


def _calculate(operator: str, left: F64, right: F64) -> F64:
    with np.errstate(all="ignore"):
        match operator:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
        return left / right


def _quantile(window: F64, share: float) -> float:
    if share < 0:
        return -math.inf
    return math.inf if share > 1 else float(np.quantile(window, share))


_OVER_TIME: dict[str, Callable[[Any, float], float]] = {
    "avg_over_time": lambda window, _: float(window.mean()),
    "count_over_time": lambda window, _: float(len(window)),
    "last_over_time": lambda window, _: float(window[-1]),
    "max_over_time": lambda window, _: float(window.max()),
    "min_over_time": lambda window, _: float(window.min()),
    "present_over_time": lambda _window, _: 1.0,
    "quantile_over_time": _quantile,
    "stddev_over_time": lambda window, _: float(window.std()),
    "stdvar_over_time": lambda window, _: float(window.var()),
    "sum_over_time": lambda window, _: math.fsum(window.tolist()),
}
_EXTRAPOLATED = frozenset({"rate", "increase", "delta"})
_AGGREGATIONS: dict[str, Callable[[Any], Any]] = {
    "avg": lambda table: np.nansum(table, axis=0) / np.sum(~np.isnan(table), axis=0),
    "count": lambda table: np.sum(~np.isnan(table), axis=0).astype(np.float64),
    "max": lambda table: np.fmax.reduce(table, axis=0),
    "min": lambda table: np.fmin.reduce(table, axis=0),
    "sum": lambda table: np.nansum(table, axis=0),
}


def _reduced(reduce: Callable[[Any], Any], table: F64) -> F64:
    """Return the aggregate of each step; NaN where no series has a value."""
    absent = np.isnan(table).all(axis=0)
    with np.errstate(all="ignore"):
        values: F64 = np.where(absent, np.nan, reduce(table))
    return values


def _extrapolated(function: str, time: I64, value: F64, begin: int, end: int) -> float:
    """Return rate, increase or delta, extrapolated to the borders of the range as Prometheus does."""
    if len(value) < 2:
        return math.nan
    is_counter = function != "delta"
    result = float(value[-1] - value[0])
    if is_counter:
        # A counter that falls was reset: what it had then counts on.
        result += float(value[:-1][value[1:] < value[:-1]].sum())
    sampled, average = float(time[-1] - time[0]), float(time[-1] - time[0]) / (len(time) - 1)
    if not sampled:
        return math.nan
    to_start, to_end = float(time[0] - begin), float(end - time[-1])
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2
    if is_counter and result > 0 and value[0] >= 0:
        # A counter cannot have been below zero before.
        to_start = min(to_start, sampled * (float(value[0]) / result))
    if to_end >= threshold:
        to_end = average / 2
    result *= (sampled + to_start + to_end) / sampled
    return result / ((end - begin) / 1e6) if function == "rate" else result
