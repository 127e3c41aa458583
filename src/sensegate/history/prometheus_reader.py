"""Queries of Prometheus over the history: within admission, masks and quota, on masked columns."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

from sensegate.authority.scope import Principal
from sensegate.errors import Overloaded, TooMuch
from sensegate.history.promql import (
    LABELS,
    NAME,
    BadQuery,
    Expression,
    LabelMatcher,
    PromqlParser,
    RangeSelector,
    Selector,
    is_number,
    selectors_of,
)
from sensegate.history.promql_eval import F64, I64, Evaluation, Labels, Series
from sensegate.history.query import HistoryQueries, HistoryRows
from sensegate.share.feeds import FeedFilter
from sensegate.share.latest import LatestReader, LatestRequest
from sensegate.share.quota import read_within_quota
from sensegate.share.records import base_name, channel_of
from sensegate.share.sharing import Sharing

LOOKBACK_US = 300_000_000
"""A sample is the value of its series for so long unless the request says otherwise."""
STEPS_MAX = 11_000
CELLS_MAX = 100_000
"""Most values of an answer, and most values that are computed for one."""
WINDOW_SAMPLES_MAX = 20_000_000
"""Most samples in the ranges of all steps together: the slowest function takes some 0.2 µs for each."""
SERIES_MAX = 10_000
_LATEST_PAGE = 10_000


class QuerySteps(msgspec.Struct, frozen=True):
    """Times at which a query is evaluated, µs UTC."""

    start: int
    end: int
    step: int
    lookback: int = LOOKBACK_US

    @property
    def count(self) -> int:
        """Number of steps."""
        return (self.end - self.start) // self.step + 1


class PrometheusAnswer(msgspec.Struct, frozen=True):
    """Data of an answer, encoded; `count` values were read out."""

    data: bytes
    count: int
    grant: str = ""


class SeriesAnswer(msgspec.Struct, frozen=True):
    """Labels of series; `count` last values were read for them."""

    series: list[dict[str, str]]
    count: int
    grant: str = ""


class SeriesIdentity(msgspec.Struct, frozen=True):
    """Identity of a series, taken from its last value."""

    device: str
    property: str
    division: str
    channel: str = ""


class _IdentityPage(msgspec.Struct, frozen=True):
    records: tuple[SeriesIdentity, ...]
    next: str = ""


class PrometheusReader:
    """Answers the queries of one gateway."""

    def __init__(self, queries: HistoryQueries, sharing: Sharing, latest: LatestReader) -> None:
        """Raises `ConfigError` where `promql-parser` is not installed."""
        self.parser = PromqlParser()
        self._queries = queries
        self._sharing = sharing
        self._latest = latest

    async def instant(self, principal: Principal, feed: str, text: str, steps: QuerySteps) -> PrometheusAnswer:
        """Return the value of a query at one time.

        Raises:
            BadQuery: it is not of the subset.
            TooMuch, NotFound, PermissionDenied, Overloaded, Unavailable: as `HistoryReader.page`.
        """
        expression = self.parser.parse(text)
        seconds = steps.end / 1e6
        if is_number(expression):
            value = Evaluation({}, _steps(steps), steps.lookback).number(expression)
            return PrometheusAnswer(_encoded("scalar", [seconds, _text(value)]), 0)

        def result(evaluation: Evaluation) -> tuple[bytes, int]:
            if isinstance(expression, RangeSelector):
                ranges = evaluation.samples(expression)
                rows = [
                    {"metric": dict(series.labels), "values": _pairs(series.time, series.value)} for series in ranges
                ]
                return _encoded("matrix", rows), sum(len(series.time) for series in ranges)
            values = [row for row in evaluation.values(expression) if not math.isnan(row.values[0])]
            vector = [{"metric": dict(row.labels), "value": [seconds, _text(row.values[0])]} for row in values]
            return _encoded("vector", vector), len(vector)

        return await self._evaluate(principal, feed, expression, steps, result)

    async def range(self, principal: Principal, feed: str, text: str, steps: QuerySteps) -> PrometheusAnswer:
        """Return the values of a query at each step. Raises as `instant`."""
        expression = self.parser.parse(text)
        if isinstance(expression, RangeSelector):
            raise BadQuery("a range in brackets has no value at a step; use it in a function such as rate")
        times = _steps(steps)
        if is_number(expression):
            value = Evaluation({}, times, steps.lookback).number(expression)
            series = [{"metric": {}, "values": _pairs(times, np.full(len(times), value))}]
            return PrometheusAnswer(_encoded("matrix", series), 0)

        def result(evaluation: Evaluation) -> tuple[bytes, int]:
            rows, count = [], 0
            for row in evaluation.values(expression):
                known = ~np.isnan(row.values)
                if known.any():
                    rows.append({"metric": dict(row.labels), "values": _pairs(times[known], row.values[known])})
                    count += int(known.sum())
            return _encoded("matrix", rows), count

        return await self._evaluate(principal, feed, expression, steps, result)

    async def _evaluate(
        self,
        principal: Principal,
        feed: str,
        expression: Expression,
        steps: QuerySteps,
        result: Callable[[Evaluation], tuple[bytes, int]],
    ) -> PrometheusAnswer:
        admission_grant, quota = "", None
        series: dict[Selector, list[Series]] = {}
        for selector, length in selectors_of(expression):
            begin = steps.start - selector.offset_us - (length or steps.lookback)
            end = steps.end - selector.offset_us + 1
            wanted = FeedFilter(
                properties=selector.texts_of(NAME),
                devices=selector.texts_of("device"),
                divisions=selector.texts_of("division"),
                begin=begin,
                end=end,
            )
            admission = self._sharing.admit(principal, feed, wanted, "http", "json")
            admission_grant, quota = admission.grant_id, admission.quota
            known = series.get(selector)
            if admission.selection is None or (known is not None and not length):
                series.setdefault(selector, [])
                continue
            parts = await self._queries.numbers(admission.selection, begin, end)
            read = await asyncio.to_thread(_series_of, parts)
            series[selector] = await self._matching(read, selector.matchers)
            if len(series[selector]) * steps.count > CELLS_MAX:
                raise TooMuch(
                    f"the query has {len(series[selector])} series at {steps.count} steps; give a longer step, a "
                    "shorter period, or labels that choose fewer series"
                )
        evaluation = Evaluation(series, _steps(steps), steps.lookback)
        samples = await asyncio.to_thread(evaluation.window_samples, expression)
        if samples > WINDOW_SAMPLES_MAX:
            raise TooMuch(
                f"the ranges of the {steps.count} steps hold {samples} readings together, more than "
                f"{WINDOW_SAMPLES_MAX}; give a shorter range in brackets, a longer step, or a shorter period"
            )

        async def read_out(most: int) -> PrometheusAnswer:
            data, count = await asyncio.to_thread(result, evaluation)
            if count > CELLS_MAX:
                raise TooMuch(f"the answer has {count} values; give a longer step or fewer series")
            if count > most:
                raise Overloaded(f"{count} values exceed the {most} that the grant has left; ask for fewer")
            return PrometheusAnswer(data, count, admission_grant)

        return await read_within_quota(quota, CELLS_MAX, read_out)

    async def series(self, principal: Principal, feed: str, selectors: Sequence[Selector]) -> SeriesAnswer:
        """Return the labels of the series that any selector chooses, of those with a last value."""
        identities, grant = await self._identities(principal, feed)
        known = [_labels(name, place, channel) for name, place, channel in identities]
        if not selectors:
            return SeriesAnswer([dict(labels) for labels in known], len(known), grant)
        chosen: dict[Labels, None] = {}
        empty = np.zeros(0, np.int64), np.zeros(0)
        for selector in selectors:
            matching = await self._matching([Series(labels, *empty) for labels in known], selector.matchers)
            chosen |= dict.fromkeys(series.labels for series in matching)
        return SeriesAnswer([dict(labels) for labels in chosen], len(known), grant)

    async def _identities(self, principal: Principal, feed: str) -> tuple[list[tuple[str, tuple[str, str], str]], str]:
        """Return property, device with division, and channel of every series; and the grant."""
        identities: list[tuple[str, tuple[str, str], str]] = []
        fields = ("device", "property", "division", "channel")
        after = ""
        while True:
            request = LatestRequest(feed, FeedFilter(), after, fields)
            page = await self._latest.page(principal, request, form="json", limit=_LATEST_PAGE)
            decoded = msgspec.json.decode(page.body, type=_IdentityPage)
            identities += [
                (identity.property, (identity.device, identity.division), identity.channel)
                for identity in decoded.records
            ]
            after = decoded.next
            if not after:
                return identities, page.grant
            if len(identities) >= SERIES_MAX:
                raise TooMuch(f"the feed has more than {SERIES_MAX} series; ask for a feed with fewer")

    async def _matching(self, series: list[Series], matchers: Iterable[LabelMatcher]) -> list[Series]:
        """Return the series whose labels match; regular expressions are those of RE2, which take linear time."""
        for matcher in matchers:
            texts = [dict(candidate.labels).get(matcher.label, "") for candidate in series]
            if matcher.operator in {"=", "!="}:
                keeps = [(text == matcher.text) == (matcher.operator == "=") for text in texts]
            else:
                matches = await self._queries.full_matches(texts, matcher.text)
                keeps = [match == (matcher.operator == "=~") for match in matches]
            series = [candidate for candidate, is_kept in zip(series, keeps, strict=True) if is_kept]
        return series


def label_names(series: Iterable[dict[str, str]]) -> list[str]:
    """Return the labels that series have."""
    used = {name for labels in series for name in labels}
    return [name for name in LABELS if name in used]


def _labels(name: str, device: tuple[str, str], channel: str) -> Labels:
    pairs = (NAME, name), ("channel", channel), ("device", device[0]), ("division", device[1])
    return tuple(pair for pair in pairs if pair[1])


def _steps(steps: QuerySteps) -> I64:
    return np.arange(steps.count, dtype=np.int64) * steps.step + steps.start


def _series_of(parts: Sequence[HistoryRows]) -> list[Series]:
    """Return masked rows as series, of each time the last one."""
    times: dict[Labels, list[I64]] = {}
    values: dict[Labels, list[F64]] = {}
    for part in parts:
        batch, rows = part.batch, part.rows
        number = batch.origin[rows].astype(np.int64) * (len(batch.properties) + 1) + batch.property[rows]
        order = np.lexsort((batch.time[rows], number))
        rows, number = rows[order], number[order]
        if not len(rows):
            continue
        begins = np.flatnonzero(np.append(np.True_, number[1:] != number[:-1])).tolist()
        for begin, end in itertools.pairwise([*begins, len(rows)]):
            origin, name = int(batch.origin[rows[begin]]), batch.properties[batch.property[rows[begin]]]
            place = batch.origins.device[origin], batch.origins.division[origin]
            labels = _labels(base_name(name), place, channel_of(name))
            times.setdefault(labels, []).append(batch.time[rows[begin:end]])
            values.setdefault(labels, []).append(batch.value[rows[begin:end]])
    series = []
    for labels, pieces in sorted(times.items()):
        time, value = np.concatenate(pieces), np.concatenate(values[labels])
        order = np.argsort(time, kind="stable")
        time, value = time[order], value[order]
        last = np.append(time[1:] != time[:-1], np.True_)
        series.append(Series(labels, time[last], value[last]))
    return series


def _pairs(time: I64, value: F64) -> list[list[float | str]]:
    return [[at / 1e6, _text(number)] for at, number in zip(time.tolist(), value.tolist(), strict=True)]


def _text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value)).removesuffix(".0")


def _encoded(kind: str, result: object) -> bytes:
    return msgspec.json.encode({"resultType": kind, "result": result})
