"""Tracks are thinned by rule: of many sightings of one object those are kept that say something new. Pure.

``first``: the first of a track; ``best``: one that is surer than any before by a tenth; ``changes``: what it is or what
happens to it differs from what was kept last, or it has moved by a part of the image; ``last``: the one that ends the
track. What belongs to no track, and what is no sighting (events, counts), is always kept. Nothing is held back until
the end is known: an observation is judged when it comes, so a crash loses none.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import xxhash

from sensegate.video.observation import Kind, TrackState, VideoObservation

RULES: Final = ("first", "best", "changes", "last")
BEST_STEP: Final = 0.1
GAP_US: Final = 300_000_000
"""A track that was not seen for so long has ended; what comes under its name later is another one."""
_IDS_MAX: Final = 16


class Thinning(NamedTuple):
    """Which sightings of a track are kept; `keep` empty: all."""

    keep: frozenset[str] = frozenset()
    moved: float = 0.2
    """Part of the image's width or height by which an object that moves has changed."""


class Track(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of a track."""

    seen: int
    """When it was seen last, µs."""
    sure: float
    """Greatest confidence of those kept."""
    what: int
    """Digest of what was kept last, but for its place."""
    x: float
    y: float
    ids: tuple[str, ...]
    """Of those kept: one that is sent again is a duplicate, and is told as such."""


SIZE: Final = 900
STATE_SIZE: Final = 400
REASONS_SIZE: Final = 2_000
"""Bytes that one `Track`, `State` or `Reasons` takes in memory, about."""
REASON_US: Final = 3_600_000_000
_REASONS_MAX: Final = 32


class State(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of an event that goes on."""

    seen: int
    """When it was told last, µs."""
    state: bool
    id: str
    """Of the one that was kept: sent again it is a duplicate, and is told as such."""


def repeated(seen: VideoObservation, before: State | None, repeats_us: int) -> tuple[bool, State | None]:
    """Return whether an event says again what it said a moment ago, and what is to be remembered of it.

    Cameras tell an alarm anew each second while it lasts; what changes is told at once.
    """
    state = seen.event.state if seen.event else None
    if state is None:
        return False, before
    if before is None or before.state != state or not 0 <= seen.observed_at - before.seen <= repeats_us:
        return False, State(seen.observed_at, state, seen.id)
    return seen.id != before.id, State(seen.observed_at, state, before.id)


class Reasons(msgspec.Struct, frozen=True, gc=False):
    """Why a state holds."""

    at: int
    parts: tuple[tuple[str, int], ...]
    """Each reason, and when it was told."""


def together(part: str, *, holds: bool, at: int, before: Reasons | None) -> tuple[bool, Reasons]:
    """Return whether a state holds for any reason, and what is to be remembered: of one reason it was told now.

    One that was told no more for `REASON_US` is forgotten: its end was lost.
    """
    if before is not None and at < before.at:
        return holds, before
    parts = dict(before.parts) if before is not None else {}
    parts = {name: since for name, since in parts.items() if name != part and at - since <= REASON_US}
    if holds:
        parts[part] = at
    return bool(parts), Reasons(at, tuple(parts.items())[-_REASONS_MAX:])


def judged(seen: VideoObservation, before: Track | None, rule: Thinning) -> tuple[bool, Track | None]:
    """Return whether an observation is kept, and what is to be remembered of its track (None: nothing)."""
    if not rule.keep or not seen.track or seen.kind is not Kind.OBSERVATION:
        return True, before
    if before is not None and seen.id in before.ids:
        return True, before
    if before is not None and seen.observed_at - before.seen > GAP_US:
        before = None
    ends = seen.track_state is TrackState.END
    x, y = _centre(seen)
    sure = seen.confidence or 0.0
    what = _digest(seen)
    keep = _says_something(seen, before, rule, Sight(x, y, sure, what, ends))
    if before is None:
        return keep, Track(seen.observed_at, sure, what, x, y, (seen.id,) if keep else ())
    if not keep:
        return False, msgspec.structs.replace(before, seen=max(before.seen, seen.observed_at))
    ids = (*before.ids[1 - _IDS_MAX :], seen.id)
    return True, Track(max(before.seen, seen.observed_at), max(before.sure, sure), what, x, y, ids)


class Sight(NamedTuple):
    """What is compared of an observation."""

    x: float
    y: float
    sure: float
    what: int
    ends: bool


def _says_something(seen: VideoObservation, before: Track | None, rule: Thinning, now: Sight) -> bool:
    keep = rule.keep
    if before is None:
        return "first" in keep or (now.ends and "last" in keep)
    if now.ends:
        return "last" in keep
    if seen.observed_at < before.seen:
        return False
    if "best" in keep and now.sure >= before.sure + BEST_STEP:
        return True
    if "changes" not in keep:
        return False
    return now.what != before.what or max(abs(now.x - before.x), abs(now.y - before.y)) >= rule.moved


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
