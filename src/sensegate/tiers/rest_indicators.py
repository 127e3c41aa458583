"""REST: quality indicators and score of each city: the month, and the last hours as a trend."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from sensegate.authority.scope import Action, allows
from sensegate.clock import HOUR_US
from sensegate.tiers.indicator_history import IndicatorHistory, month_of
from sensegate.tiers.indicator_hours import INDICATORS, HourIndicators
from sensegate.tiers.rest_nodes import NODES
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

HISTORY = PartKey[IndicatorHistory]("indicator_history", absent="this gateway keeps no hourly indicators")
POINTS = 100.0
TREND_H = 48
TREND_H_MAX = 744
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


Means = tuple[float | None, float | None, float | None, float | None, float | None]
"""Means of each of `INDICATORS`, and the score."""


class IndicatorMeans(msgspec.Struct, frozen=True):
    """Means of the indicators over hours of devices, 0 to 1; null: judged in no hour."""

    authenticity: float | None
    accuracy: float | None
    continuity: float | None
    completeness: float | None
    score: float | None
    """25 points times each indicator; indicators without a value are left out, the others count for more."""


class IndicatorHour(IndicatorMeans, frozen=True):
    """Indicators of an hour."""

    hour: str
    devices: int


class CityIndicators(IndicatorMeans, frozen=True):
    """Indicators of a city over the hours of a month that are known here."""

    division: str
    """Code of the city; empty: all that the caller may see."""
    members: list[str]
    """Nodes that report them."""
    hours: int
    """Hours of the month that are known."""
    devices: int
    """Devices of the newest hour."""
    received: int
    trend: list[IndicatorHour]
    """The newest hours, oldest first."""


class IndicatorReport(msgspec.Struct, frozen=True):
    """Indicators of a month by city."""

    month: str
    total: CityIndicators
    rows: list[CityIndicators]


def means_of(rows: Iterable[HourIndicators]) -> Means:
    """Return the mean of each indicator over some sums, and the score."""
    sums, counts = [0.0] * len(INDICATORS), [0] * len(INDICATORS)
    for row in rows:
        for at in range(len(INDICATORS)):
            sums[at] += row.sums[at]
            counts[at] += row.counts[at]
    means = [round(total / count, 4) if count else None for total, count in zip(sums, counts, strict=True)]
    known = [mean for mean in means if mean is not None]
    authenticity, accuracy, continuity, completeness = means
    score = round(POINTS * sum(known) / len(known), 1) if known else None
    return authenticity, accuracy, continuity, completeness, score


def city_of_rows(division: str, rows: dict[str, list[HourIndicators]], trend_h: int) -> CityIndicators:
    """Return the indicators of a city; `rows`: by member."""
    by_hour: defaultdict[int, list[HourIndicators]] = defaultdict(list)
    for row in (row for part in rows.values() for row in part):
        by_hour[row.hour].append(row)
    newest = max(by_hour, default=0)
    trend = [
        IndicatorHour(*means_of(part), hour=iso(hour * HOUR_US), devices=sum(row.devices for row in part))
        for hour, part in sorted(by_hour.items())
        if hour > newest - trend_h
    ]
    everything = [row for part in by_hour.values() for row in part]
    return CityIndicators(
        *means_of(everything),
        division=division,
        members=sorted(rows),
        hours=len(by_hour),
        devices=trend[-1].devices if trend else 0,
        received=sum(row.received for row in everything),
        trend=trend,
    )


async def _indicators(call: Call) -> IndicatorReport:
    """Get the quality indicators and the score of each city: of a month, and of the last hours."""
    month = call.text("month") or month_of(call.deps.clock.now() // HOUR_US)
    if not _MONTH.fullmatch(month):
        raise BadRequest(f"query: month: '{month[:20]}' is no month; give one like 2026-01")
    history, trend_h = call.part(HISTORY), call.integer("hours", TREND_H, TREND_H_MAX)
    cities: defaultdict[str, dict[str, list[HourIndicators]]] = defaultdict(dict)
    everything: dict[str, list[HourIndicators]] = {}
    for node in call.part(NODES)():
        for row in await history.month(node.member, month):
            if allows(call.principal, Action.READ_LEDGER, row.division):
                cities[row.division].setdefault(node.member, []).append(row)
                everything.setdefault(node.member, []).append(row)
    return IndicatorReport(
        month,
        city_of_rows("", everything, trend_h),
        [city_of_rows(division, rows, trend_h) for division, rows in sorted(cities.items())],
    )


ROUTES = tagged(
    "accounting",
    Route(
        "GET",
        f"{API}/indicators",
        _indicators,
        action=Action.READ_LEDGER,
        query=(
            QueryParam("month", "as 2026-01; default: the present month"),
            QueryParam("hours", "hours of the trend, default 48", "integer", minimum=1, maximum=TREND_H_MAX),
        ),
    ),
)
