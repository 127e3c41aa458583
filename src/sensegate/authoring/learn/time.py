"""Find the time, the sequence number and the device's name among the members, by name and by plausibility."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple

from sensegate.authoring.learn.fields import FieldFacts
from sensegate.decode.paths import ABSENT, Path, walk
from sensegate.decode.times import BAD, TimeReader
from sensegate.quantities.quality import TimeQuality

_S = 1_000_000
_ARRIVAL_TOLERANCE_S: Final = 900
"""A time this close to the arrival is taken as the time of measurement."""
_FIRST, _LAST = 946_684_800 * _S, 4_102_444_800 * _S
"""2000 and 2100: a time outside is implausible."""
_TIME_WORDS: Final = (
    "time timestamp ts datetime date datatime measuretime collecttime samplingtime sampletime acquisitiontime eventtime"
    " reporttime sendtime devicetime utc epoch t at time_stamp last_seen lastseen created createdat recvtime received"
    " receivedat published_at clock obstime shijian 时间 采集时间 上报时间"
)
_TIME_NAMES: Final = frozenset(_TIME_WORDS.split())
_PATTERNS: Final = (
    "%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S", "%y%m%d%H%M%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y/%m/%d %H:%M",
    "%Y-%m-%d %H:%M", "%Y年%m月%d日 %H:%M:%S", "%Y%m%d%H%M", "%Y-%m-%d",
)  # fmt: skip
_OTHER_TIMES: Final = re.compile(
    r"(?i)start|first|install|build|birth|expire|boot|reset|uptime|next|timeout|duration|interval|total|period|on_?time$"
    r"|runtime|elapsed|(?:^|_)last_?(?!seen|update)|changed|joined"
)
"""Names of times that are not the time of measurement."""
_ZONES: Final = ("Asia/Shanghai", "UTC")


class TimeField(NamedTuple):
    """The member that holds the time of measurement."""

    path: Path
    format: str
    zone: str
    """Empty: the times carry their zone, or are numbers."""
    reason: str


def time_of(trees: Sequence[tuple[Any, int]], fields: Mapping[Path, FieldFacts]) -> TimeField | None:
    """Return the member that holds the time; `trees`: (tree, arrival in µs, or 0 if unknown)."""
    candidates: list[tuple[float, TimeField]] = []
    for path, facts in fields.items():
        name = re.sub(r"[_\-]", "", facts.name.lower())
        if _OTHER_TIMES.search(facts.name):
            continue
        named = (
            facts.name.lower() in _TIME_NAMES
            or name in _TIME_NAMES
            or name.endswith(("time", "timestamp", "date", "时间"))
        )
        raws = [
            (raw, received) for tree, received in trees if (raw := walk(tree, path)) is not ABSENT and raw is not None
        ]
        if not raws or (not named and not _looks_like_time(facts)):
            continue
        best = _best_reading(raws)
        if best is not None:
            distance, form, zone, reason = best
            rank = distance + (0 if named else 3_600) + len(path)
            candidates.append((rank, TimeField(path, form, zone, reason)))
    return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def _looks_like_time(facts: FieldFacts) -> bool:
    if facts.kinds["text"] and not facts.numeric:
        return all(isinstance(word, str) and re.match(r"20\d\d[-/年]?\d\d", word) for word in facts.words)
    numbers = facts.numbers
    return bool(numbers) and all(_FIRST < scaled(number) < _LAST for number in numbers) and min(numbers) > 1e9


def scaled(number: float) -> float:
    """Return the µs of an epoch in seconds, milliseconds, microseconds or nanoseconds, judged by its magnitude."""
    return number * (1e6 if number < 1e11 else 1e3 if number < 1e14 else 1 if number < 1e17 else 1e-3)


def _best_reading(raws: Sequence[tuple[Any, int]]) -> tuple[float, str, str, str] | None:
    """Return (seconds from the arrival, format, zone, reason) of the interpretation that fits best."""
    numbers = [raw for raw, _ in raws if isinstance(raw, (int, float)) and not isinstance(raw, bool)]
    if len(numbers) == len(raws):
        size = median(map(abs, numbers))
        form = "epoch_s" if size < 1e11 else "epoch_ms" if size < 1e14 else "epoch_us" if size < 1e17 else "epoch_ns"
        forms: Sequence[str] = (form, "%Y%m%d%H%M%S") if size > 1e13 else (form,)
    else:
        forms = ("iso", *_PATTERNS, "epoch")
    readings = [reading for form in forms for zone in _ZONES if (reading := _try_format(raws, form, zone)) is not None]
    return min(readings, key=lambda reading: reading[0]) if readings else None


def _try_format(raws: Sequence[tuple[Any, int]], form: str, zone: str) -> tuple[float, str, str, str] | None:
    reader = TimeReader((form,), zone)
    times = [(*reader.parse(raw, received), received) for raw, received in raws]
    if any(time == BAD or not _FIRST < time < _LAST for time, _, _ in times):
        return None
    assumed = any(quality == TimeQuality.ASSUMED_ZONE for _, quality, _ in times)
    if zone != _ZONES[0] and not assumed:
        return None  # the zone makes no difference: it was tried once already
    arrivals = [abs(time - received) / _S for time, _, received in times if received]
    if not arrivals:
        reason = "no arrival is recorded to compare with" + ("; the zone is a guess" if assumed else "")
        return 1e5 + _ZONES.index(zone), form, zone if assumed else "", reason
    distance = median(arrivals)
    if distance <= _ARRIVAL_TOLERANCE_S:
        reason = f"{distance:.0f} s from the arrival"
        return distance, form, zone if assumed else "", reason + (f" if it is in {zone}" if assumed else "")
    reason = f"{distance / 3600:.1f} h from the arrival: is the clock right, the data old?"
    return distance, form, zone if assumed else "", reason


# ── sequence numbers, names of devices ───────────────────────────────────────────────────────────────

_SEQUENCES: Final = frozenset(
    (
        "seq",
        "sequence",
        "seqno",
        "seqnum",
        "fcnt",
        "fcntup",
        "frameno",
        "framecounter",
        "counter",
        "msgno",
        "serialno",
        "no",
    )
)
_DEVICES: Final = (
    "deveui", "deviceid", "device_id", "devid", "dev_id", "devicename", "device", "imei", "mac", "sn", "serialnumber",
    "deviceno", "devicecode", "mn", "stcd", "stationcode", "stationid", "stationno", "sitecode", "pointcode", "eui",
    "nodeid", "node", "id", "clientid", "sensorid", "station",
)  # fmt: skip


def sequence_of(fields: Mapping[Path, FieldFacts], by_topic: Mapping[str, Sequence[Any]]) -> Path | None:
    """Return the member that counts messages: integral, with a telling name, rising by about one within each topic."""
    for path, facts in fields.items():
        if re.sub(r"[_\-]", "", facts.name.lower()) not in _SEQUENCES or not facts.numeric or not facts.integral:
            continue
        steps = [
            later - earlier
            for trees in by_topic.values()
            for earlier, later in _consecutive([walk(tree, path) for tree in trees])
        ]
        if steps and sum(0 < step <= 10 for step in steps) >= 0.8 * len(steps):
            return path
    return None


def _consecutive(raws: Sequence[Any]) -> list[tuple[float, float]]:
    numbers = [float(raw) for raw in raws if isinstance(raw, (int, float)) and not isinstance(raw, bool)]
    return list(pairwise(numbers))


def device_of(fields: Mapping[Path, FieldFacts], by_topic: Mapping[str, Sequence[Any]]) -> Path | None:
    """Return the member that names the device: by its name, and constant within each topic (or the only topic)."""
    ranked: list[tuple[int, int, Path]] = []
    for path, facts in fields.items():
        name = re.sub(r"[_\-]", "", facts.name.lower())
        if name not in _DEVICES or not (facts.kinds["text"] or facts.kinds["integer"]):
            continue
        values = [
            {str(value) for tree in trees if (value := walk(tree, path)) is not ABSENT} for trees in by_topic.values()
        ]
        if len(by_topic) > 1 and any(len(names) > 1 for names in values):
            continue
        ranked.append((len(path), _DEVICES.index(name), path))
    return min(ranked)[2] if ranked else None
