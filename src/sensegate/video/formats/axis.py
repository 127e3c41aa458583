"""Axis: scene frames, finished tracks and analytics events (counts, occupancy, alarms) by MQTT.

The three are distinguished by their members, as the topics are the operator's choice. Boxes are fractions of the image,
y down. Counts are strings that only rise until they are reset: the properties ``…_total``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import boxes, codes
from sensegate.video.allowlist import (
    REMOVED,
    AllowListRedactor,
    ListOf,
    ObjectRule,
    allow_time,
    allow_words,
    decode_object,
    decode_record,
)
from sensegate.video.allowlist import allow_number as within
from sensegate.video.format import (
    CameraInfo,
    Measurement,
    Pseudonymiser,
    Redacted,
    RejectedObject,
    VideoFormat,
    VideoReport,
)
from sensegate.video.formats.detector import (
    PRESENCE_PROPERTIES,
    NamingRedactor,
    allow_camera,
    allow_class,
    allow_track_id,
    ignore_field,
    member_names,
    redact_separately,
    split_class,
)
from sensegate.video.observation import Location, ObjectClass, ObservationKind, TrackState, VideoEvent, VideoObservation
from sensegate.video.times import TimeResult, epoch_ms, parse_iso, received
from sensegate.video.values import boolean, identity, number

NAME: Final = "axis"
OBJECTS_MAX: Final = 10_000
COUNT_MAX: Final = 9_999_999_999
"""A number of eleven digits may be a telephone number."""
_SIDES: Final = ("left", "top", "right", "bottom")
_BOX: Final[ObjectRule] = dict.fromkeys(_SIDES, within(-1e6, 1e6))


def _color(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
    return (codes.color(NAME, value) or REMOVED) if isinstance(value, str) else REMOVED


_CLASS: Final[ObjectRule] = {
    "type": allow_class(NAME),
    "score": within(0, 1),
    "colors": ListOf({"name": _color, "score": within(0, 1)}, 32),
}
_PEOPLE: Final = frozenset({ObjectClass.PERSON, ObjectClass.FACE})

OBJECT: Final[ObjectRule] = {
    "track_id": allow_track_id,
    "timestamp": allow_time,
    "bounding_box": _BOX,
    "class": _CLASS,
    "geoposition": {
        "latitude": within(-90, 90),
        "longitude": within(-180, 180),
        "lat": ignore_field,
        "lon": ignore_field,
    },
    "velocity": ignore_field,
    "spherical_coordinate": ignore_field,
}
"""An observation of a frame."""
OPERATION: Final[ObjectRule] = {
    "type": allow_words("DeleteOperation", "RenameOperation"),
    "id": allow_track_id,
    "from": allow_track_id,
    "to": allow_track_id,
}
TRACK: Final[ObjectRule] = {
    "id": allow_track_id,
    "classes": ListOf(_CLASS, 64),
    "start_time": allow_time,
    "end_time": allow_time,
    "duration": ignore_field,
}
_NAMES: Final = member_names(OBJECT, OPERATION, TRACK) | {
    "image", "data", "upper_clothing_colors", "lower_clothing_colors", "observations", "frame", "operations", "message",
    "license_plate", "text", "face", "bag", "bags", "hat", "path", "source", "key", "topic", "serial",
}  # fmt: skip


class AxisColor(msgspec.Struct, frozen=True):
    """A colour with its score."""

    name: str = ""
    score: float = 1.0


class AxisClass(msgspec.Struct, frozen=True, omit_defaults=True):
    """Classification of an object."""

    type: str = ""
    score: float | None = None
    colors: tuple[AxisColor, ...] = ()


class AxisBox(msgspec.Struct, frozen=True):
    """Sides of a bounding box."""

    left: float
    top: float
    right: float
    bottom: float


class AxisPosition(msgspec.Struct, frozen=True):
    """Geographic position."""

    latitude: float
    longitude: float


class AxisObject(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An object of a frame."""

    track_id: str = ""
    timestamp: str = ""
    bounding_box: AxisBox | None = None
    object_class: AxisClass = msgspec.field(default=AxisClass(), name="class")
    geoposition: AxisPosition | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class AxisOperation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of tracks: deletion or renaming."""

    type: Literal["DeleteOperation", "RenameOperation"]
    id: str = ""
    source: str = msgspec.field(default="", name="from")
    to: str = ""


class AxisFrame(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="frame", tag_field="is"):
    """A moment of the scene."""

    time: str = ""
    camera: str = ""
    objects: tuple[AxisObject, ...] = ()
    operations: tuple[AxisOperation, ...] = ()
    invalid: tuple[int, ...] = ()


class AxisTrack(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="track", tag_field="is"):
    """A finished track; of its path only the end is stored."""

    id: str
    classes: tuple[AxisClass, ...] = ()
    start_time: str = ""
    end_time: str = ""
    box: AxisBox | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class AxisCount(msgspec.Struct, frozen=True, gc=False):
    """A number reported by an event."""

    property: str
    value: int
    channel: str
    cumulative: bool


class AxisEvent(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True, tag="event", tag_field="is"):
    """An event of the camera."""

    camera: str = ""
    time_ms: float | None = None
    """ms since 1970"""
    event: str = ""
    rule: str = ""
    state: bool | None = None
    label: str = ""
    counts: tuple[AxisCount, ...] = ()
    removed: tuple[str, ...] = ()


_Record: TypeAlias = AxisFrame | AxisTrack | AxisEvent

_WRAPPERS: Final = ({"_mqtt_topic", "payload"}, {"topic", "payload"})
"""Members of the envelopes that recorders and bridges add around a message."""
_WRAPPERS_MAX: Final = 4

_RULE = re.compile(r"(?:Device|Camera)(\d{1,2})(?:Scenario|Profile)(\d{1,3}|ANY|Any|any)(?:Threshold)?", re.ASCII)
_ANY: Final = "any"
_COUNT_PROPERTIES: Final = {
    ObjectClass.PERSON: "people_count_total",
    ObjectClass.VEHICLE: "vehicle_count_total",
    ObjectClass.NONMOTOR: "bicycles_total",
}
"""Class -> property of its cumulative count."""


def redact(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:
    """Redact a message. Raises `Rejected` if it is of none of the three kinds."""
    tree = decode_object(payload)
    for _ in range(_WRAPPERS_MAX):
        if tree.keys() not in _WRAPPERS or not isinstance(tree["payload"], dict):
            break
        tree = tree["payload"]
    redactor = NamingRedactor(pseudonymiser, arrival, _NAMES)
    if isinstance(tree.get("frame"), dict):
        return redactor.result(_redact_frame(tree, redactor))
    if ("classes" in tree or "id" in tree) and {"start_time", "end_time", "observations"} & tree.keys():
        return redactor.result(_redact_track(tree, redactor))
    if isinstance(tree.get("message"), dict) and isinstance(tree.get("topic", topic), str):
        return redactor.result(_redact_event(tree, str(tree.get("topic", topic)), redactor))
    raise Rejected(QuarantineReason.SCHEMA, "the message is JSON, but not a frame, finished track or event of Axis")


def _as_bounded_list(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if len(values) > OBJECTS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {OBJECTS_MAX} objects")
    return values


def _redact_frame(tree: dict[str, Any], redactor: NamingRedactor) -> AxisFrame:
    frame = tree["frame"]
    for name, value in tree.items():
        if name not in {"frame", "serial"}:
            redactor.count_removed(name, value)
    for name, value in frame.items():
        if name not in {"timestamp", "observations", "operations"}:
            redactor.count_removed(f"frame.{name}", value)
    at = allow_time(frame.get("timestamp"), redactor)
    things, operations, broken = [], [], []
    for place, observation in enumerate(_as_bounded_list(frame.get("observations"))):
        if not isinstance(observation, dict):
            broken.append(place)
            continue
        members = redact_separately(redactor, observation, OBJECT, "observations")
        members["images"] = len(_as_bounded_list(observation.get("image")))
        if "geoposition" in members and (
            len(members["geoposition"]) != 2
            or split_class(members.get("class", {}).get("type", ""))[0] in {*_PEOPLE, None}
        ):
            del members["geoposition"]
            redactor.count_removed("observations.geoposition", True)
            members["removed"] = sorted({*members.get("removed", ()), "observations.geoposition"})
        if len(members.get("bounding_box", {})) != len(_SIDES):
            members.pop("bounding_box", None)
        things.append(msgspec.convert(members, AxisObject))
    for operation in _as_bounded_list(frame.get("operations")):
        if (
            isinstance(operation, dict)
            and len(operation) == 1
            and isinstance(inner := next(iter(operation.values())), dict)
        ):
            operation = {**inner, "type": next(iter(operation))}  # noqa: PLW2901 - the type is the name of the member
        members = redact_separately(redactor, operation, OPERATION, "operations")
        if "type" in members and ("id" in members or {"from", "to"} <= members.keys()):
            operations.append(msgspec.convert(members, AxisOperation))
    return AxisFrame(
        time="" if at is REMOVED else at,
        camera=_camera(tree, redactor),
        objects=tuple(things),
        operations=tuple(operations),
        invalid=tuple(broken),
    )


def _camera(tree: dict[str, Any], redactor: NamingRedactor) -> str:
    camera = allow_camera(tree.get("serial"), redactor)
    return "" if camera is REMOVED else str(camera)


def _redact_track(tree: dict[str, Any], redactor: NamingRedactor) -> AxisTrack:
    members = {name: value for name, value in tree.items() if name not in {"observations", "image"}}
    track = redactor.apply_object(members, TRACK)
    seen = [item for item in _as_bounded_list(tree.get("observations")) if isinstance(item, dict)]
    last = (
        redactor.apply_object(seen[-1], {"bounding_box": _BOX, "timestamp": ignore_field}, "observations")
        if seen
        else {}
    )
    last = last.get("bounding_box", {})
    for item in seen[:-1]:
        redactor.count_removed("observations", item)
    images = _as_bounded_list(tree.get("image"))
    for image in images:
        redactor.count_removed("image", image)
    return AxisTrack(
        id=track.get("id", ""),
        classes=msgspec.convert(track.get("classes", []), tuple[AxisClass, ...]),
        start_time=track.get("start_time", ""),
        end_time=track.get("end_time", ""),
        box=msgspec.convert(last, AxisBox) if len(last) == len(_SIDES) else None,
        images=len(images),
        removed=tuple(sorted(redactor.removed)),
    )


def _redact_event(tree: dict[str, Any], topic: str, redactor: NamingRedactor) -> AxisEvent:
    """Redact an event. Its topic is used only if the code table has it; other events are accepted without a report."""
    message = tree["message"]
    data = message.get("data")
    data = (
        {_DATA_MEMBERS.get(name.lower(), name): value for name, value in data.items()} if isinstance(data, dict) else {}
    )
    for name, value in tree.items():
        if name not in {"topic", "timestamp", "serial", "message"}:
            redactor.count_removed(name, value)
    levels = [level.rpartition(":")[2] for level in topic.split("/")]
    rule = next((match for level in reversed(levels) if (match := _RULE.fullmatch(level))), None)
    named = "" if rule is None else _scenario_channel(rule[1], rule[2])
    counted = any(name.startswith("total") for name in data)
    word = next(filter(None, (codes.word("event", NAME, level) for level in reversed(levels))), "")
    text = data.get("classTypes") or data.get("reason")
    label = allow_class(NAME)(text.replace(",", " ").split(" ")[0] if isinstance(text, str) else text, redactor)
    state = boolean(data.get("active"))
    since = allow_time(data.get("startTime"), redactor) is not REMOVED
    for name, value in data.items():
        if not name.startswith("total") and name not in _DATA_MEMBERS.values():
            redactor.count_removed("data", value)
    for part in ("source", "key"):
        if part in message:
            redactor.count_removed(part, message[part])
    at = number(tree.get("timestamp"), 1e12, 4e12)  # smaller numbers are not times of this century
    counts = tuple(_read_counts(data, named, since=since, redactor=redactor)) if counted else ()
    return AxisEvent(
        camera=_camera(tree, redactor),
        time_ms=at,
        event="" if counted or state is None else word,
        rule=named,
        state=state,
        label="" if label is REMOVED or counted else label,
        counts=counts,
        removed=tuple(sorted(redactor.removed)),
    )


_DATA_MEMBERS: Final = {
    "starttime": "startTime",
    "reason": "reason",
    "active": "active",
    "state": "active",
    "logicalstate": "active",
    "triggered": "active",
    "tampering": "active",
    "classtypes": "classTypes",
    "triggertime": "triggerTime",
    "objectid": "objectId",
}
"""Members of event data, lower case -> canonical name."""


def _scenario_channel(device: str, scenario: str) -> str:
    """Return the channel name of a scenario; those of the first sensor have its number only."""
    device = device.lstrip("0") or "0"
    scenario = scenario.lower()
    return f"scenario{scenario}" if device == "1" else f"device{device}scenario{scenario}"


def _read_counts(data: dict[str, Any], rule: str, *, since: bool, redactor: NamingRedactor) -> list[AxisCount]:
    """Return the counts of an event; a start time distinguishes line crossings from objects in an area."""
    counts = []
    for name, value in data.items():
        if not name.startswith("total"):
            continue
        count = number(value, 0, COUNT_MAX)
        if count is None or count != int(count):
            redactor.count_removed("data", value)
            continue
        object_class, kind = codes.object_class(NAME, name.removeprefix("total") or _ANY)
        if name == "total":
            property_name, channel = ("object_count_total" if since else "objects_present"), ""
        elif since:
            property_name = _COUNT_PROPERTIES.get(object_class, "object_count_total")
            channel = kind or ("" if property_name != "object_count_total" else "unknown")
        else:
            property_name = PRESENCE_PROPERTIES.get(object_class, "objects_present")
            channel = kind or ("" if property_name != "objects_present" else "unknown")
        counts.append(AxisCount(property_name, int(count), "_".join(part for part in (rule, channel) if part), since))
    return counts


# ── decoding ──────────────────────────────────────────────────────────────────────────────────


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a message reports."""
    record: _Record = decode_record(payload, _Record)  # type: ignore[arg-type] # msgspec accepts a union
    return _DECODERS[type(record)](record, arrival)


def _likeliest(classes: tuple[AxisClass, ...]) -> AxisClass:
    return max(classes, key=lambda candidate: candidate.score or 0.0, default=AxisClass())


def _resolve_box(box: AxisBox | None) -> boxes.ResolvedBox | tuple[None, None]:
    return (None, None) if box is None else boxes.from_fractions(box.left, box.top, box.right, box.bottom)


def _color_of(classification: AxisClass, object_class: ObjectClass | None) -> str:
    if object_class is None or object_class in _PEOPLE:
        return ""
    named = [color for color in classification.colors if color.name]
    return max(named, key=lambda color: color.score).name if named else ""


def _decode_frame(frame: AxisFrame, arrival: int) -> VideoReport:
    of_frame = (parse_iso(frame.time) if frame.time else None) or received(arrival)
    parents = {operation.to: operation.source for operation in frame.operations if operation.type == "RenameOperation"}
    observations = []
    for index, object_ in enumerate(frame.objects):
        at, quality = (parse_iso(object_.timestamp) if object_.timestamp else None) or of_frame
        box, box_quality = _resolve_box(object_.bounding_box)
        object_class, kind = split_class(object_.object_class.type)
        place = object_.geoposition
        observations.append(
            VideoObservation(
                id=identity(NAME, frame.camera, frame.time or object_.timestamp, object_.track_id or index),
                kind=ObservationKind.OBSERVATION,
                camera=frame.camera,
                observed_at=at,
                time_quality=quality,
                format=NAME,
                native_id=object_.track_id,
                object_class=object_class,
                subclass=kind,
                track=object_.track_id,
                parent_track=parents.pop(object_.track_id, ""),
                box=box,
                box_quality=box_quality,
                confidence=object_.object_class.score,
                color=_color_of(object_.object_class, object_class),
                place=None if place is None else Location(place.longitude, place.latitude, source="object"),
                images=object_.images,
                removed=object_.removed,
            )
        )
    gone = [operation.id or operation.source for operation in frame.operations]
    ends = [(name, "", TrackState.END) for name in gone if name]
    ends += [(name, source, TrackState.UPDATE) for name, source in parents.items()]
    for name, source, state in ends:
        observations.append(
            VideoObservation(
                id=identity(NAME, frame.camera, frame.time, name, state),
                kind=ObservationKind.OBSERVATION,
                camera=frame.camera,
                observed_at=of_frame[0],
                time_quality=of_frame[1],
                format=NAME,
                native_id=name,
                track=name,
                parent_track=source,
                track_state=state,
            )
        )
    refused = tuple(RejectedObject(place, "wrong_type", "not an object") for place in frame.invalid)
    return VideoReport(tuple(observations), rejected=refused, ignored=0 if observations or refused else 1)


def _decode_track(track: AxisTrack, arrival: int) -> VideoReport:
    text = track.end_time or track.start_time
    at, quality = (parse_iso(text) if text else None) or received(arrival)
    best = _likeliest(track.classes)
    box, box_quality = _resolve_box(track.box)
    object_class, kind = split_class(best.type)
    observation = VideoObservation(
        id=identity(NAME, track.id, track.start_time, track.end_time),
        kind=ObservationKind.OBSERVATION,
        camera="",
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id=track.id,
        object_class=object_class,
        subclass=kind,
        track=track.id,
        track_state=TrackState.END,
        box=box,
        box_quality=box_quality,
        confidence=best.score,
        color=_color_of(best, object_class),
        images=track.images,
        removed=track.removed,
    )
    return VideoReport((observation,))


def _decode_event(event: AxisEvent, arrival: int) -> VideoReport:
    at, quality = _time(event.time_ms, arrival)
    key = identity(NAME, event.camera, event.rule, event.time_ms)
    measured = [
        Measurement(
            event.camera,
            count.property,
            count.value,
            "1",
            at,
            quality,
            key,
            channel=count.channel,
            cumulative=count.cumulative,
        )
        for count in event.counts
    ]
    if not event.event or event.state is None:
        return VideoReport(measurements=tuple(measured), ignored=0 if measured else 1)
    if name := codes.state_property(event.event):
        measured.append(Measurement(event.camera, name, event.state, "", at, quality, key, channel=event.rule))
    object_class, kind = split_class(event.label)
    observation = VideoObservation(
        id=identity(NAME, event.camera, event.event, event.rule, event.time_ms, event.state),
        kind=ObservationKind.EVENT,
        camera=event.camera,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        object_class=object_class,
        subclass=kind,
        event=VideoEvent(event.event, state=event.state, rule=event.rule),
        removed=event.removed,
    )
    return VideoReport((observation,), tuple(measured))


def _time(milliseconds: float | None, arrival: int) -> TimeResult:
    return (None if milliseconds is None else epoch_ms(milliseconds)) or received(arrival)


_DECODERS: Final[dict[type, Callable[[Any, int], VideoReport]]] = {
    AxisFrame: _decode_frame,
    AxisTrack: _decode_track,
    AxisEvent: _decode_event,
}

FORMAT = VideoFormat(NAME, redact, decode)
