"""Video metadata: observations, and the counts and states that are readings, by the formats of `sensegate.video`.

The payload is a body that holds only what may be kept (`video.body`): the walk has cut it before anything was written.
Where a message comes as it was sent (`explain`, the examples of a profile) it is cut here first, under keys of the
moment. The tree holds elements that name themselves::

    {"parts": [{"n": name, "v": value, "u": unit, "t": [µs UTC, quality of time], "c": camera, "i": identity}]}

``n`` is ``video_observation`` (``v`` is the record as JSON), or the property of a count or state, with ``#channel``.
"""

from __future__ import annotations

import secrets
from functools import cache
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from sensegate.decode import times
from sensegate.decode.frame import ELEMENTS_MAX, Format, Frame, Parse, Setting
from sensegate.decode.memory import Memory
from sensegate.decode.part import Part, says
from sensegate.errors import Rejected
from sensegate.model import OBSERVATION, QuarantineReason, RejectReason
from sensegate.quantities.quality import TimeQuality
from sensegate.video import body
from sensegate.video.form import Camera, Measured, Seen, VideoFormat
from sensegate.video.formats import FORMATS
from sensegate.video.observation import Event, Kind, VideoObservation
from sensegate.video.thin import (
    REASONS_SIZE,
    SIZE,
    STATE_SIZE,
    Reasons,
    State,
    Thinning,
    Track,
    judged,
    repeated,
    together,
)
from sensegate.video.veil import KeyedVeil

NAME: Final = "video"
_QUALITIES: Final = {
    "explicit": int(TimeQuality.DEVICE),
    "assumed_tz": int(TimeQuality.ASSUMED_ZONE),
    "derived": int(TimeQuality.DERIVED),
    "received": int(TimeQuality.RECEIVED),
}


class VideoPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which format of video metadata a camera speaks, and what its messages do not say."""

    format: Annotated[str, says("name of the format: viid, onvif_mj, frigate …")]
    camera: Annotated[str, says("name of the camera where neither topic nor message has one")] = ""
    grid: Annotated[int, says("boxes beyond 1 count from 0 to this; 0: not known"), msgspec.Meta(ge=0, le=65536)] = 0
    width: Annotated[int, says("width of the image in which boxes are pixels"), msgspec.Meta(ge=0, le=65536)] = 0
    height: Annotated[int, says("height of that image"), msgspec.Meta(ge=0, le=65536)] = 0
    sizes: Annotated[
        dict[str, tuple[Annotated[int, msgspec.Meta(ge=1, le=65536)], Annotated[int, msgspec.Meta(ge=1, le=65536)]]],
        says("name of a camera -> [width, height] where it has another size: {front_door: [640, 360]}"),
    ] = {}
    zone: Annotated[str, says("zone of times that name none (IANA name)")] = "Asia/Shanghai"
    speed_unit: Annotated[Literal["km/h", "m/s", "[mi_i]/h"], says("unit of speeds where the format does not say")] = (
        "km/h"
    )
    channels: Annotated[
        tuple[str, ...],
        says("lanes, lines and zones of which counts are taken; beside them lane1 to lane8, person, vehicle, nonmotor"),
    ] = ()
    rules: Annotated[
        dict[str, str],
        says("name of a rule, or the pseudonym that observations tell instead -> channel: {Eingang: line1}"),
    ] = {}
    keep: Annotated[
        tuple[Literal["first", "best", "changes", "last"], ...],
        says("which sightings of a track are kept, see the vocabulary of tracks; empty: all"),
    ] = ()
    moved: Annotated[
        float, says("with `changes`: so far, as part of the image, is a change"), msgspec.Meta(gt=0, le=1)
    ] = 0.2
    repeats_s: Annotated[
        float,
        says("an event that tells the same state again within so many seconds is thinned out; 0: none is"),
        msgspec.Meta(ge=0, le=86_400),
    ] = 0.0


class SeenTree(dict[str, Any]):
    """The tree of a message, with what of it became no element."""

    def __init__(self, parts: list[dict[str, Any]], seen: Seen, thinned: dict[str, int]) -> None:
        super().__init__(parts=parts)
        self.refused = seen.refused
        self.ignored = seen.ignored
        self.thinned = thinned
        """Camera -> observations of its tracks that were left out."""


class SeenTimes(times.Reader, frozen=True):
    """The times in the tree: they are read already, and how sure they are stands beside them."""

    def one(self, raw: Any, received: int) -> tuple[int, int]:  # noqa: ARG002
        return raw[0], raw[1]


class VideoParse:
    """The parse of one rule."""

    def __init__(self, name: str, form: VideoFormat, camera: Camera, thinning: Thinning, repeats_us: int = 0) -> None:
        self.name = name
        self._form = form
        self._camera = camera
        self._thinning = thinning
        self._repeats_us = repeats_us

    def __call__(self, frame: Frame) -> Any:
        kept = body.opened(frame.payload)
        if kept is None:
            kept = body.opened(body.kept(self.name, self._cut(frame)))
        if kept is None or kept.video != self.name:
            raise Rejected(QuarantineReason.SCHEMA, f"not a message of {self.name}")
        if kept.reason:
            raise body.refusal(kept)
        seen = self._form.see(bytes(kept.body), frame.topic, frame.received, self._camera)
        if len(seen.observations) + len(seen.measured) > ELEMENTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} observations")
        return self._tree(seen, frame)

    def _cut(self, frame: Frame) -> Any:
        return self._form.cut(frame.payload, frame.topic, frame.received, moment())

    def _tree(self, seen: Seen, frame: Frame) -> SeenTree:
        memory = Memory() if frame.memory is None else frame.memory
        parts: list[dict[str, Any]] = []
        thinned: dict[str, int] = {}
        for one in seen.observations:
            if self._keeps(one, frame.topic, memory):
                parts.append(
                    {
                        "n": OBSERVATION,
                        "v": msgspec.json.encode(one).decode(),
                        "t": (one.observed_at, _QUALITIES[one.time_quality]),
                        "c": one.camera or self._camera.id,
                        "i": one.id,
                    }
                )
            else:
                name = one.camera or self._camera.id
                thinned[name] = thinned.get(name, 0) + 1
        parts += [
            {
                "n": f"{count.property}#{count.channel}" if count.channel else count.property,
                "v": self._value(count, frame.topic, memory) if count.part else count.value,
                "u": count.unit or None,
                "t": (count.time, _QUALITIES[count.time_quality]),
                "c": count.camera or self._camera.id,
                "i": count.key,
            }
            for count in seen.measured
        ]
        if not parts and seen.refused and not thinned:
            first = seen.refused[0]
            raise Rejected(QuarantineReason.NO_VALUES, f"no object is good; the first: {first.reason}: {first.detail}")
        if not parts and not thinned and not seen.ignored:
            raise Rejected(QuarantineReason.NO_VALUES, "nothing in it is an observation, a count or a state")
        return SeenTree(parts, seen, thinned)

    def _keeps(self, one: VideoObservation, topic: str, memory: Memory) -> bool:
        if self._repeats_us and one.kind is Kind.EVENT and one.event is not None:
            return not self._repeats(one, one.event, topic, memory)
        if not self._thinning.keep or not one.track:
            return True
        key = (NAME, f"{topic}\0{one.camera}\0{one.track}")
        before: Track | None = memory.get(key)
        keep, after = judged(one, before, self._thinning)
        if after is not None and after != before:
            memory.put(key, after, SIZE)
        return keep

    @staticmethod
    def _value(count: Measured, topic: str, memory: Memory) -> float | str:
        """Return a state with several reasons as it is by all of them."""
        key = (NAME, f"{topic}\0{count.camera}\0{count.property}\0{count.channel}")
        before: Reasons | None = memory.get(key)
        holds, after = together(count.part, holds=bool(count.value), at=count.time, before=before)
        if after != before:
            memory.put(key, after, REASONS_SIZE)
        return holds

    def _repeats(self, one: VideoObservation, event: Event, topic: str, memory: Memory) -> bool:
        about = (
            topic,
            one.camera,
            event.type,
            event.rule,
            event.zone,
            one.analytics,
            one.object_class or "",
            one.track,
        )
        key = (NAME, "\0".join(about))
        before: State | None = memory.get(key)
        again, after = repeated(one, before, self._repeats_us)
        if after is not None and after != before:
            memory.put(key, after, STATE_SIZE)
        return again


@cache
def moment() -> KeyedVeil:
    """Return the veil under which messages are shown that do not come through the walk: its keys end with us."""
    return KeyedVeil(secrets.token_bytes(32))


def refused_at(at: int) -> str:
    """Return how an object of a message is named to people."""
    return f"object {at + 1}"


def reason_of(word: str) -> RejectReason:
    """Return why an object was refused; what is no word of ours is a wrong type."""
    return RejectReason(word) if word in RejectReason.__members__.values() else RejectReason.WRONG_TYPE


def _compile(options: VideoPart, setting: Setting) -> Parse:
    form = FORMATS.get(options.format)
    if form is None:
        known = f"one of: {', '.join(FORMATS)}"
        raise setting.error(f"no format of video is called '{options.format}'", "format", remedy=known)
    try:
        ZoneInfo(options.zone)
    except (ZoneInfoNotFoundError, ValueError) as why:
        raise setting.error(f"unknown zone '{options.zone}'", "zone", remedy="an IANA name") from why
    camera = Camera(
        options.camera,
        options.grid,
        options.width,
        options.height,
        options.zone,
        options.speed_unit,
        options.sizes,
        options.rules,
    )
    thinning = Thinning(frozenset(options.keep), options.moved)
    return VideoParse(options.format, form, camera, thinning, round(options.repeats_s * 1e6))


FORMAT = Format(_compile, VideoPart, required=True)
