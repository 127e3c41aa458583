"""Video metadata: observations, and the counts and states that are readings, by the formats of `sensegate.video`.

The payload is a body that was redacted before anything was written (`video.stored`). A message as it was sent (in
`explain` and in the examples of a profile) is redacted here first, under temporary keys. The tree has elements that
carry their own names::

    {"parts": [{"n": name, "v": value, "u": unit, "t": [µs UTC, quality of time], "c": camera, "i": identity}]}

``n`` is ``video_observation`` (``v`` is the record as JSON), or the property of a count or state, with ``#channel``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np

from sensegate.decode import times
from sensegate.decode.frame import (
    ELEMENTS_MAX,
    FormatContext,
    FormedTree,
    OrderedParse,
    Parse,
    PayloadFormat,
    PayloadFrame,
)
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.part import ProfilePart, description
from sensegate.decode.paths import Path
from sensegate.errors import Rejected
from sensegate.model import I64, OBSERVATION, U8, QuarantineReason, RejectReason
from sensegate.quantities.quality import TimeQuality
from sensegate.video import stored
from sensegate.video.downsampling import (
    REASONS_SIZE,
    SIZE,
    STATE_SIZE,
    EventSample,
    SamplingRule,
    StateReasons,
    TrackSample,
    combine_reasons,
    sample_event,
    sample_track,
)
from sensegate.video.format import CameraInfo, Measurement, VideoFormat, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.observation import ObservationKind, VideoEvent, VideoObservation
from sensegate.video.pseudonyms import KeyedPseudonymiser

NAME: Final = "video"
_PARTS_MAX: Final = 42
"""Most elements of a message that is decoded into columns."""
_QUALITIES: Final = {
    "explicit": int(TimeQuality.DEVICE),
    "assumed_tz": int(TimeQuality.ASSUMED_ZONE),
    "derived": int(TimeQuality.DERIVED),
    "received": int(TimeQuality.RECEIVED),
}


class VideoPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The video metadata format of a camera, and information that its messages lack."""

    format: Annotated[str, description("name of the format: viid, onvif_mj, frigate …")]
    camera: Annotated[str, description("name of the camera if neither topic nor message has one")] = ""
    grid: Annotated[
        int, description("scale of boxes beyond 1: they count from 0 to this; 0: unknown"), msgspec.Meta(ge=0, le=65536)
    ] = 0
    width: Annotated[int, description("width of the image in which boxes are pixels"), msgspec.Meta(ge=0, le=65536)] = 0
    height: Annotated[int, description("height of that image"), msgspec.Meta(ge=0, le=65536)] = 0
    sizes: Annotated[
        dict[str, tuple[Annotated[int, msgspec.Meta(ge=1, le=65536)], Annotated[int, msgspec.Meta(ge=1, le=65536)]]],
        description("camera name -> [width, height], for cameras with another size: {front_door: [640, 360]}"),
    ] = {}
    zone: Annotated[str, description("zone of times without one (IANA name)")] = "Asia/Shanghai"
    speed_unit: Annotated[
        Literal["km/h", "m/s", "[mi_i]/h"], description("unit of speeds if the format does not state it")
    ] = "km/h"
    channels: Annotated[
        tuple[str, ...],
        description("lanes, lines and zones with counts; in addition to lane1 to lane8, person, vehicle, nonmotor"),
    ] = ()
    rules: Annotated[
        dict[str, str],
        description("name of a rule, or its pseudonym in observations -> channel: {Eingang: line1}"),
    ] = {}
    keep: Annotated[
        tuple[Literal["first", "best", "changes", "last"], ...],
        description("which sightings of a track are stored, see the vocabulary of tracks; empty: all"),
    ] = ()
    moved: Annotated[
        float,
        description("with `changes`: the distance, as part of the image, that is a change"),
        msgspec.Meta(gt=0, le=1),
    ] = 0.2
    repeats_s: Annotated[
        float,
        description("an event that repeats the same state within so many seconds is dropped; 0: none is"),
        msgspec.Meta(ge=0, le=86_400),
    ] = 0.0


Shape: TypeAlias = tuple[tuple[bool, bool, type], ...]
"""For each element: whether it may have a unit, whether the unit is null, and the type of the value."""


class VideoTree(dict[str, Any]):
    """Tree of a message, with counts of the observations that became no element."""

    def __init__(self, parts: list[dict[str, Any]], seen: VideoReport, downsampled: dict[str, int]) -> None:
        super().__init__(parts=parts)
        self.refused = seen.rejected
        self.ignored = seen.ignored
        self.downsampled = downsampled
        """Camera -> observations of its tracks that were downsampled away."""

    @property
    def formed(self) -> FormedTree | None:
        """The elements as flat values; None: something became no element, or there are too many."""
        parts: list[dict[str, Any]] = self["parts"]
        if self.refused or self.ignored or self.downsampled or not 0 < len(parts) <= _PARTS_MAX:
            return None
        form = _form_of(tuple([("u" in part, part.get("u") is None, part["v"].__class__) for part in parts]))
        return FormedTree(form, tuple([value for part in parts for value in part.values()]))


@lru_cache(4_096)  # the elements of a message have its time
def _timed(time: int, quality: str) -> tuple[int, int]:
    return time, _QUALITIES[quality]


class PartsForm:
    """Messages whose elements have the same members, of the same types."""

    def __init__(self, shape: Shape) -> None:
        self._keys = ["nvutci" if has_unit else "nvtci" for has_unit, _, _ in shape]
        self.pointers: list[Path] = [("parts", index, key) for index, part in enumerate(self._keys) for key in part]

    def parts(self, values: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the elements with some values."""
        left = iter(values)
        return [{key: next(left) for key in part} for part in self._keys]

    def tree(self, values: Sequence[Any]) -> VideoTree:
        """Return the tree with some values, of a message that holds nothing else."""
        return VideoTree(self.parts(values), VideoReport(), {})


_form_of = lru_cache(4_096)(PartsForm)


class VideoTimes(times.TimeReader, frozen=True):
    """The times in the tree: already parsed, with their quality beside them."""

    def parse(self, raw: Any, received: int) -> tuple[int, int]:  # noqa: ARG002
        return raw[0], raw[1]

    def column(self, raws: Sequence[Any], received: I64) -> tuple[I64, U8]:  # noqa: ARG002
        """Return the result of `parse` for each time."""
        parsed = np.array(raws, np.int64)
        return parsed[:, 0].copy(), parsed[:, 1].astype(np.uint8)


class VideoParse(OrderedParse):
    """The parse of one rule."""

    def __init__(
        self, name: str, form: VideoFormat, camera: CameraInfo, thinning: SamplingRule, repeats_us: int = 0
    ) -> None:
        self.name = name
        self.key = f"{NAME} {name}"
        self._form = form
        self._camera = camera
        self._thinning = thinning
        self._repeats_us = repeats_us

    def read(self, frame: PayloadFrame) -> Any:
        """Return the elements as flat values where that is all that a message holds, else the tree."""
        seen = self._report(frame)
        shape, values, downsampled = self._elements(seen, frame)
        if downsampled or seen.rejected or seen.ignored or len(shape) > _PARTS_MAX:
            return VideoTree(PartsForm(shape).parts(values), seen, downsampled)
        return FormedTree(_form_of(shape), values)

    def __call__(self, frame: PayloadFrame) -> Any:
        """Parse one message."""
        seen = self._report(frame)
        shape, values, downsampled = self._elements(seen, frame)
        return VideoTree(PartsForm(shape).parts(values), seen, downsampled)

    def _report(self, frame: PayloadFrame) -> VideoReport:
        content = stored.decode_stored(frame.payload)
        if content is None:
            content = stored.decode_stored(stored.encode_redacted(self.name, self._redact(frame)))
        if content is None or content.video != self.name:
            raise Rejected(QuarantineReason.SCHEMA, f"not a message of {self.name}")
        if content.reason:
            raise stored.rejection(content)
        seen = self._form.decode(bytes(content.body), frame.topic, frame.received, self._camera)
        if len(seen.observations) + len(seen.measurements) > ELEMENTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} observations")
        return seen

    def _redact(self, frame: PayloadFrame) -> Any:
        return self._form.redact(frame.payload, frame.topic, frame.received, temporary_pseudonymiser())

    def _elements(self, seen: VideoReport, frame: PayloadFrame) -> tuple[Shape, tuple[Any, ...], dict[str, int]]:
        """Return the shape of the elements, their values, and how many observations each camera has too many."""
        memory = DecoderMemory() if frame.memory is None else frame.memory
        shape: list[tuple[bool, bool, type]] = []
        values: list[Any] = []
        downsampled: dict[str, int] = {}
        for observation in seen.observations:
            camera = observation.camera or self._camera.id
            if self._keeps(observation, frame.topic, memory):
                time = _timed(observation.observed_at, observation.time_quality)
                shape.append((False, True, str))
                values += (OBSERVATION, msgspec.json.encode(observation).decode(), time, camera, observation.id)
            else:
                downsampled[camera] = downsampled.get(camera, 0) + 1
        for count in seen.measurements:
            value = self._value(count, frame.topic, memory) if count.reason else count.value
            unit = count.unit or None
            shape.append((True, unit is None, value.__class__))
            values += (
                f"{count.property}#{count.channel}" if count.channel else count.property,
                value,
                unit,
                _timed(count.time, count.time_quality),
                count.camera or self._camera.id,
                count.key,
            )
        if not shape and seen.rejected and not downsampled:
            first = seen.rejected[0]
            raise Rejected(QuarantineReason.NO_VALUES, f"no object is good; the first: {first.reason}: {first.detail}")
        if not shape and not downsampled and not seen.ignored:
            raise Rejected(QuarantineReason.NO_VALUES, "nothing in it is an observation, a count or a state")
        return tuple(shape), tuple(values), downsampled

    def _keeps(self, observation: VideoObservation, topic: str, memory: DecoderMemory) -> bool:
        if self._repeats_us and observation.kind is ObservationKind.EVENT and observation.event is not None:
            return not self._repeats(observation, observation.event, topic, memory)
        if not self._thinning.keep or not observation.track:
            return True
        key = (NAME, f"{topic}\0{observation.camera}\0{observation.track}")
        before: TrackSample | None = memory.get(key)
        keep, after = sample_track(observation, before, self._thinning)
        if after is not None and after != before:
            memory.put(key, after, SIZE)
        return keep

    @staticmethod
    def _value(count: Measurement, topic: str, memory: DecoderMemory) -> float | str:
        """Return a state with several causes, combined over all of them."""
        key = (NAME, f"{topic}\0{count.camera}\0{count.property}\0{count.channel}")
        previous: StateReasons | None = memory.get(key)
        holds, after = combine_reasons(count.reason, holds=bool(count.value), at=count.time, before=previous)
        if after != previous:
            memory.put(key, after, REASONS_SIZE)
        return holds

    def _repeats(self, observation: VideoObservation, event: VideoEvent, topic: str, memory: DecoderMemory) -> bool:
        subject = (
            topic,
            observation.camera,
            event.type,
            event.rule,
            event.zone,
            observation.analytics,
            observation.object_class or "",
            observation.track,
        )
        key = (NAME, "\0".join(subject))
        previous: EventSample | None = memory.get(key)
        repeats, after = sample_event(observation, previous, self._repeats_us)
        if after is not None and after != previous:
            memory.put(key, after, STATE_SIZE)
        return repeats


@cache
def temporary_pseudonymiser() -> KeyedPseudonymiser:
    """Return the pseudonymiser for messages outside the pipeline; its keys end with the process."""
    return KeyedPseudonymiser(secrets.token_bytes(32))


def refused_at(index: int) -> str:
    """Return the name of an object of a message for people."""
    return f"object {index + 1}"


def reason_of(word: str) -> RejectReason:
    """Return the reason why an object was refused; an unknown word counts as a wrong type."""
    return RejectReason(word) if word in RejectReason.__members__.values() else RejectReason.WRONG_TYPE


def _compile(options: VideoPart, context: FormatContext) -> Parse:
    form = FORMATS.get(options.format)
    if form is None:
        known = f"one of: {', '.join(FORMATS)}"
        raise context.error(f"there is no video format '{options.format}'", "format", remedy=known)
    try:
        ZoneInfo(options.zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise context.error(
            f"unknown zone '{options.zone}'", "zone", remedy="an IANA name, e.g. Asia/Shanghai"
        ) from error
    camera = CameraInfo(
        options.camera,
        options.grid,
        options.width,
        options.height,
        options.zone,
        options.speed_unit,
        options.sizes,
        options.rules,
    )
    thinning = SamplingRule(frozenset(options.keep), options.moved)
    return VideoParse(options.format, form, camera, thinning, round(options.repeats_s * 1e6))


FORMAT = PayloadFormat(_compile, VideoPart, required=True)
