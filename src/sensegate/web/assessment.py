"""REST: the assessment of a month: quality indicators by division, department, domain or profile, and the score."""

from __future__ import annotations

import calendar
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from sensegate.authority.scope import Action, allows
from sensegate.clock import HOUR_US
from sensegate.model import Device, QualityRow
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, QueryParam, Route, iso

INDICATORS = ("authenticity", "accuracy", "continuity", "completeness")
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
    """Each indicator is the mean over hours of devices, 0 to 1; null: judged in no hour."""
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


def assess(name: str, rows: Iterable[QualityRow]) -> AssessmentRow:
    """Return the assessment of some hours of devices."""
    members, hours, received = set(), 0, 0
    sums = dict.fromkeys(INDICATORS, 0.0)
    counts = dict.fromkeys(INDICATORS, 0)
    for row in rows:
        members.add(row.device)
        hours += 1
        received += row.received
        for indicator in INDICATORS:
            if (value := getattr(row, indicator)) is not None:
                sums[indicator] += value
                counts[indicator] += 1
    means = {
        indicator: round(sums[indicator] / counts[indicator], 4) if counts[indicator] else None
        for indicator in INDICATORS
    }
    known = [mean for mean in means.values() if mean is not None]
    score = round(WEIGHT * len(INDICATORS) * sum(known) / len(known), 1) if known else None
    return AssessmentRow(
        name=name,
        devices=len(members),
        hours=hours,
        received=received,
        authenticity=means["authenticity"],
        accuracy=means["accuracy"],
        continuity=means["continuity"],
        completeness=means["completeness"],
        score=score,
    )


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


def _group(by: str, device: Device) -> str:
    if by == "city":
        return device.division[:4]
    group: str = getattr(device, by)
    return group


async def _assessment(call: Call) -> AssessmentReport:
    by = call.text("by") or "division"
    if by not in BY:
        raise BadRequest(f"query: by: '{by[:20]}' is unknown; use one of {', '.join(BY)}")
    month, first, end = _month(call)
    devices = call.deps.devices
    groups: defaultdict[str, list[QualityRow]] = defaultdict(list)
    hours: set[int] = set()
    known: dict[str, str | None] = {}
    for row in call.deps.quality(first):
        if not first <= row.hour < end:
            continue
        if row.device not in known:
            at = devices.find(row.device)
            device = devices.record(at) if at >= 0 else None
            is_seen = device and allows(call.principal, Action.READ_LEDGER, device.division, device.department)
            known[row.device] = _group(by, device) if device and is_seen else None
        if (group := known[row.device]) is not None:
            groups[group].append(row)
            hours.add(row.hour)
    over = max(0, min(end, call.deps.clock.now()) - first) // HOUR_US
    rows = [assess(name, groups[name]) for name in sorted(groups)]
    since = iso(min(hours)) if hours else ""
    return AssessmentReport(month, by, since, len(hours), int(over), rows[: call.deps.config.page_max])


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/assessment",
        handler=_assessment,
        summary="Get the quality indicators and the score of a month by division, city, department, domain or profile.",
        tag="accounting",
        action=Action.READ_LEDGER,
        query=(
            QueryParam("month", "as 2026-01; default: the present month"),
            QueryParam("by", f"group by {', '.join(BY)}; default: division"),
        ),
        response=AssessmentReport,
    ),
)
