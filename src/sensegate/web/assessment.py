"""REST: the assessment of a month: quality indicators by division, department, domain or profile, and the score."""

from __future__ import annotations

import asyncio
import calendar
import datetime as dt
from collections.abc import Iterable

import msgspec
import numpy as np

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Action
from sensegate.clock import HOUR_US
from sensegate.model import BOOL, I64, QualityHour
from sensegate.quantities.indicator_sums import INDICATORS, DeviceIndicatorSums, MeanIndicators
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

WEIGHT = 25.0
"""Points of each indicator: the score is their sum, of 100."""
BY = ("division", "city", "department", "domain", "profile")


class AssessmentRow(msgspec.Struct, frozen=True):
    """The indicators of a group of devices over the hours of a month that are known here."""

    name: str
    """Code of the division, or name; empty: not given."""
    devices: int
    hours: int
    """Hours of devices that were judged."""
    received: int
    authenticity: float | None
    """Mean over hours of devices, 0 to 1, like the other indicators; null: judged in no hour."""
    accuracy: float | None
    continuity: float | None
    completeness: float | None
    score: float | None
    """25 points times each indicator; indicators without a value are left out, the others count for more."""


class AssessmentReport(msgspec.Struct, frozen=True):
    """An assessment."""

    month: str
    by: str
    since: str
    """First hour that is known; earlier ones of the month have left the memory of this process."""
    hours_known: int
    hours_of_month: int
    """Hours of the month that are over."""
    rows: list[AssessmentRow]


def assess(name: str, means: MeanIndicators) -> AssessmentRow:
    """Return the assessment of a group of devices."""
    known = [value for indicator in INDICATORS if (value := getattr(means, indicator)) is not None]
    score = round(WEIGHT * len(INDICATORS) * sum(known) / len(known), 1) if known else None
    return AssessmentRow(name=name, score=score, **msgspec.structs.asdict(means))


def _month(call: Call) -> tuple[str, int, int]:
    """Return (month, first, end) of the query, the present month by default; µs UTC."""
    now = dt.datetime.fromtimestamp(call.deps.clock.now() / 1e6, dt.UTC)
    text = call.text("month") or f"{now:%Y-%m}"
    try:
        first = dt.datetime.strptime(text, "%Y-%m").replace(tzinfo=dt.UTC)
    except ValueError:
        raise BadRequest(f"query: month: '{text[:20]}' is no month; give one like 2026-01") from None
    end = first + dt.timedelta(days=calendar.monthrange(first.year, first.month)[1])
    return f"{first:%Y-%m}", round(first.timestamp() * 1e6), round(end.timestamp() * 1e6)


def _groups(by: str, devices: Devices) -> tuple[list[str], I64]:
    """Return the names of groups, and the number of the group of each device, by index."""
    column, words = devices.words("division" if by == "city" else by)
    names = [code[:4] for code in words] if by == "city" else list(words)
    groups = sorted(set(names))
    numbers = {name: number for number, name in enumerate(groups)}
    return groups, np.array([numbers[name] for name in names] or [0], np.int64)[column]


async def _assessment(call: Call) -> AssessmentReport:
    """Get the quality indicators and the score of a month by division, city, department, domain or profile."""
    by = call.text("by") or "division"
    if by not in BY:
        raise BadRequest(f"query: by: '{by[:20]}' is unknown; use one of {', '.join(BY)}")
    month, first, end = _month(call)
    devices = call.deps.devices
    names, group = _groups(by, devices)
    visible = devices.mask(call.principal.scope)
    # The columns of two days of a large city are unpacked and added in a thread.
    sums, known = await asyncio.to_thread(_sum, call.deps.quality(first), first, end, visible)
    means = sums.means_by(group, visible, len(names))
    rows = [assess(name, mean) for name, mean in zip(names, means, strict=True) if mean.devices]
    over = max(0, min(end, call.deps.clock.now()) - first) // HOUR_US
    since = iso(min(known)) if known else ""
    return AssessmentReport(month, by, since, len(known), int(over), rows[: call.deps.config.page_max])


def _sum(hours: Iterable[QualityHour], first: int, end: int, visible: BOOL) -> tuple[DeviceIndicatorSums, list[int]]:
    """Return the sums of the hours of a period, and the hours in which a visible device was judged."""
    sums, known = DeviceIndicatorSums(len(visible)), []
    for hour in hours:
        if first <= hour.hour < end:
            sums.add(hour)
            if visible[hour.device[hour.device < len(visible)]].any():
                known.append(hour.hour)
    return sums, known


ROUTES = tagged(
    "accounting",
    Route(
        "GET",
        f"{API}/assessment",
        _assessment,
        action=Action.READ_LEDGER,
        query=(
            QueryParam("month", "as 2026-01; default: the present month"),
            QueryParam("by", f"group by {', '.join(BY)}; default: division"),
        ),
    ),
)
