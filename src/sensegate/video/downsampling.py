"""Downsampling of object tracks: of many observations of one object those are kept that add information. Pure.

``first``: the first of a track; ``best``: one whose confidence exceeds any before by a tenth; ``changes``: its
attributes or event differ from the last one kept, or it has moved by a fraction of the image; ``last``: the one that
ends the track. Observations without a track, and events and counts, are always kept. Nothing is held back until the
end of a track is known: each observation is judged on arrival, so a crash loses none.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import xxhash

from sensegate.clock import HOUR_US
from sensegate.video.observation import ObservationKind, TrackState, VideoObservation

RULES: Final = ("first", "best", "changes", "last")
BEST_STEP: Final = 0.1
GAP_US: Final = 300_000_000
"""Time without an observation after which a track has ended; the same id later starts another one."""
_IDS_MAX: Final = 16


class SamplingRule(NamedTuple):
    """Rule for the observations of a track that are kept; `keep` empty: all."""

    keep: frozenset[str] = frozenset()
    movement: float = 0.2
    """Fraction of the image's width or height that counts as movement."""


class TrackSample(msgspec.Struct, frozen=True, gc=False):
    """State remembered of a track."""

    last_seen: int
    """Time of the last observation, µs."""
    confidence: float
    """Greatest confidence of the observations kept."""
    digest: int
    """Digest of the last observation kept, without its location."""
    x: float
    y: float
    ids: tuple[str, ...]
    """Ids of the observations kept: a retransmission is passed on and counted as a duplicate."""


SIZE: Final = 900
STATE_SIZE: Final = 400
REASONS_SIZE: Final = 2_000
"""Approximate memory in bytes of a `TrackSample`, `EventSample` or `StateReasons`."""
REASON_US: Final = HOUR_US
_REASONS_MAX: Final = 32


class EventSample(msgspec.Struct, frozen=True, gc=False):
    """State remembered of an active event."""

    last_reported: int
    """Time of its last report, µs."""
    state: bool
    id: str
    """Id of the report that was kept: a retransmission is passed on and counted as a duplicate."""


def sample_event(
    seen: VideoObservation, before: EventSample | None, repeats_us: int
) -> tuple[bool, EventSample | None]:
    """Return whether an event repeats its previous report, and the state to remember.

    Cameras repeat an alarm every second while it lasts; a change is never suppressed.
    """
    state = seen.event.state if seen.event else None
    if state is None:
        return False, before
    if before is None or before.state != state or not 0 <= seen.observed_at - before.last_reported <= repeats_us:
        return False, EventSample(seen.observed_at, state, seen.id)
    return seen.id != before.id, EventSample(seen.observed_at, state, before.id)


class StateReasons(msgspec.Struct, frozen=True, gc=False):
    """Reasons for which a state holds."""

    updated: int
    reasons: tuple[tuple[str, int], ...]
    """Each reason with the time of its last report."""


def combine_reasons(part: str, *, holds: bool, at: int, before: StateReasons | None) -> tuple[bool, StateReasons]:
    """Return whether a state holds for any reason, and the reasons to remember after a report of one of them.

    A reason without a report for `REASON_US` is dropped: its end was lost.
    """
    if before is not None and at < before.updated:
        return holds, before
    parts = dict(before.reasons) if before is not None else {}
    parts = {name: since for name, since in parts.items() if name != part and at - since <= REASON_US}
    if holds:
        parts[part] = at
    return bool(parts), StateReasons(at, tuple(parts.items())[-_REASONS_MAX:])


def sample_track(
    seen: VideoObservation, before: TrackSample | None, rule: SamplingRule
) -> tuple[bool, TrackSample | None]:
    """Return whether an observation is kept, and the state to remember of its track (None: nothing)."""
    if not rule.keep or not seen.track or seen.kind is not ObservationKind.OBSERVATION:
        return True, before
    if before is not None and seen.id in before.ids:
        return True, before
    if before is not None and seen.observed_at - before.last_seen > GAP_US:
        before = None
    ends = seen.track_state is TrackState.END
    x, y = _centre(seen)
    confidence = seen.confidence or 0.0
    digest = _digest(seen)
    keep = _is_informative(seen, before, rule, _Sighting(x, y, confidence, digest, ends))
    if before is None:
        return keep, TrackSample(seen.observed_at, confidence, digest, x, y, (seen.id,) if keep else ())
    if not keep:
        return False, msgspec.structs.replace(before, last_seen=max(before.last_seen, seen.observed_at))
    ids = (*before.ids[1 - _IDS_MAX :], seen.id)
    return True, TrackSample(
        max(before.last_seen, seen.observed_at), max(before.confidence, confidence), digest, x, y, ids
    )


class _Sighting(NamedTuple):
    """Values of an observation that are compared."""

    x: float
    y: float
    confidence: float
    digest: int
    ends: bool


def _is_informative(seen: VideoObservation, before: TrackSample | None, rule: SamplingRule, now: _Sighting) -> bool:
    keep = rule.keep
    if before is None:
        return "first" in keep or (now.ends and "last" in keep)
    if now.ends:
        return "last" in keep
    if seen.observed_at < before.last_seen:
        return False
    if "best" in keep and now.confidence >= before.confidence + BEST_STEP:
        return True
    if "changes" not in keep:
        return False
    return now.digest != before.digest or max(abs(now.x - before.x), abs(now.y - before.y)) >= rule.movement


def _centre(seen: VideoObservation) -> tuple[float, float]:
    if seen.box is None:
        return 0.0, 0.0
    left, top, right, bottom = seen.box
    return (left + right) / 2, (top + bottom) / 2


def _digest(seen: VideoObservation) -> int:
    parts: tuple[Any, ...] = (
        seen.object_class,
        seen.subclass,
        seen.lane,
        seen.color,
        seen.brand,
        seen.model,
        seen.plate.token if seen.plate else "",
        (seen.event.type, seen.event.state, seen.event.rule, seen.event.zone) if seen.event else (),
    )
    return xxhash.xxh3_64_intdigest(msgspec.json.encode(parts))
