"""Which member is the time, which a running number, which the device's name: by name, and by whether it can be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple

from sensegate.authoring.learn.fields import Facts
from sensegate.decode.paths import ABSENT, Path, walk
from sensegate.decode.times import BAD, Reader
from sensegate.quantities.quality import TimeQuality

_S = 1_000_000
_CLOSE_S: Final = 900
"""A time within this of the arrival is taken for the time of measurement."""
_FIRST, _LAST = 946_684_800 * _S, 4_102_444_800 * _S
"""2000 and 2100: a time outside is none."""
_TIME_WORDS: Final = (
    "time timestamp ts datetime date datatime measuretime collecttime samplingtime sampletime acquisitiontime eventtime"
    " reporttime sendtime devicetime utc epoch t at time_stamp last_seen lastseen created createdat recvtime received"
    " receivedat published_at clock obstime shijian 时间 采集时间 上报时间"
)
_NAMES: Final = frozenset(_TIME_WORDS.split())
_PATTERNS: Final = (
    "%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S", "%y%m%d%H%M%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y/%m/%d %H:%M",
    "%Y-%m-%d %H:%M", "%Y年%m月%d日 %H:%M:%S", "%Y%m%d%H%M", "%Y-%m-%d",
)  # fmt: skip
_OTHER: Final = re.compile(
    r"(?i)start|first|install|build|birth|expire|boot|reset|uptime|next|timeout|duration|interval"
)
"""Times of something else than the measurement."""
_ZONES: Final = ("Asia/Shanghai", "UTC")


class When(NamedTuple):
    """The member that is the time."""

    path: Path
    format: str
    zone: str
    """Empty: the times name theirs, or are numbers."""
    reason: str


def time_of(trees: Sequence[tuple[Any, int]], fields: Mapping[Path, Facts]) -> When | None:
    """Return the member that says when; `trees`: (tree, arrival in µs or 0 where it is not known)."""
    found: list[tuple[float, When]] = []
    for path, facts in fields.items():
        name = re.sub(r"[_\-]", "", facts.name.lower())
        named = facts.name.lower() in _NAMES or name in _NAMES or name.endswith(("time", "timestamp", "date", "时间"))
        raws = [
            (raw, received) for tree, received in trees if (raw := walk(tree, path)) is not ABSENT and raw is not None
        ]
        if not raws or (not named and not _looks_like_time(facts)):
            continue
        best = _read(raws)
        if best is not None:
            apart, form, zone, reason = best
            rank = apart + (0 if named else 3_600) + len(path)
            found.append((rank, When(path, form, zone, reason)))
    return min(found, key=lambda one: one[0])[1] if found else None


def _looks_like_time(facts: Facts) -> bool:
    if facts.kinds["text"] and not facts.numeric:
        return all(isinstance(word, str) and re.match(r"20\d\d[-/年]?\d\d", word) for word in facts.words)
    numbers = facts.numbers
    return bool(numbers) and all(_FIRST < scaled(number) < _LAST for number in numbers) and min(numbers) > 1e9


def scaled(number: float) -> float:
    """Return µs of an epoch in seconds, milliseconds, microseconds or nanoseconds, by its size."""
    return number * (1e6 if number < 1e11 else 1e3 if number < 1e14 else 1 if number < 1e17 else 1e-3)


def _read(raws: Sequence[tuple[Any, int]]) -> tuple[float, str, str, str] | None:
    """Return (seconds from the arrival, format, zone, reason) of the reading that fits best."""
    numbers = [raw for raw, _ in raws if isinstance(raw, (int, float)) and not isinstance(raw, bool)]
    if len(numbers) == len(raws):
        size = median(map(abs, numbers))
        form = "epoch_s" if size < 1e11 else "epoch_ms" if size < 1e14 else "epoch_us" if size < 1e17 else "epoch_ns"
        forms: Sequence[str] = (form, "%Y%m%d%H%M%S") if size > 1e13 else (form,)
    else:
        forms = ("iso", *_PATTERNS, "epoch")
    found = [one for form in forms for zone in _ZONES if (one := _tried(raws, form, zone)) is not None]
    return min(found, key=lambda one: one[0]) if found else None


def _tried(raws: Sequence[tuple[Any, int]], form: str, zone: str) -> tuple[float, str, str, str] | None:
    reader = Reader((form,), zone)
    answers = [(*reader.one(raw, received), received) for raw, received in raws]
    if any(time == BAD or not _FIRST < time < _LAST for time, _, _ in answers):
        return None
    assumed = any(quality == TimeQuality.ASSUMED_ZONE for _, quality, _ in answers)
    if zone != _ZONES[0] and not assumed:
        return None  # the zone says nothing: counted once
    arrivals = [abs(time - received) / _S for time, _, received in answers if received]
    if not arrivals:
        reason = "no arrival is recorded to compare with" + ("; the zone is a guess" if assumed else "")
        return 1e5 + _ZONES.index(zone), form, zone if assumed else "", reason
    apart = median(arrivals)
    if apart <= _CLOSE_S:
        said = f"{apart:.0f} s from the arrival"
        return apart, form, zone if assumed else "", said + (f" if it is in {zone}" if assumed else "")
    reason = f"{apart / 3600:.1f} h from the arrival: is the clock right, the data old?"
    return apart, form, zone if assumed else "", reason


# ── running numbers, names of devices ────────────────────────────────────────────────────────────────

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
    "deviceno", "devicecode", "mn", "stcd", "eui", "nodeid", "node", "id", "clientid", "sensorid", "station",
)  # fmt: skip


def sequence_of(fields: Mapping[Path, Facts], by_topic: Mapping[str, Sequence[Any]]) -> Path | None:
    """Return the member that counts messages: whole, by a telling name, rising by one or nearly within each topic."""
    for path, facts in fields.items():
        if re.sub(r"[_\-]", "", facts.name.lower()) not in _SEQUENCES or not facts.numeric or not facts.whole:
            continue
        steps = [
            other - one
            for trees in by_topic.values()
            for one, other in _neighbours([walk(tree, path) for tree in trees])
        ]
        if steps and sum(0 < step <= 10 for step in steps) >= 0.8 * len(steps):
            return path
    return None


def _neighbours(raws: Sequence[Any]) -> list[tuple[float, float]]:
    numbers = [float(raw) for raw in raws if isinstance(raw, (int, float)) and not isinstance(raw, bool)]
    return list(pairwise(numbers))


def device_of(fields: Mapping[Path, Facts], by_topic: Mapping[str, Sequence[Any]]) -> Path | None:
    """Return the member that names the device: by its name, one and the same within each topic (or the only topic)."""
    ranked: list[tuple[int, int, Path]] = []
    for path, facts in fields.items():
        name = re.sub(r"[_\-]", "", facts.name.lower())
        if name not in _DEVICES or not (facts.kinds["text"] or facts.kinds["integer"]):
            continue
        values = [
            {str(value) for tree in trees if (value := walk(tree, path)) is not ABSENT} for trees in by_topic.values()
        ]
        if len(by_topic) > 1 and any(len(one) > 1 for one in values):
            continue
        ranked.append((len(path), _DEVICES.index(name), path))
    return min(ranked)[2] if ranked else None
