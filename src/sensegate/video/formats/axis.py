"""Axis: frames of the scene, finished tracks, and the events of its analytics (counts, occupancy, alarms) by MQTT.

The three are told apart by their members; the topics are the operator's choice. Boxes are fractions of the image, y
down. Counts are texts and only rise until they are reset: the properties ``…_total``.
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
    ListOf,
    ObjectRule,
    Redactor,
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
"""A number of eleven digits is a telephone."""
_SIDES: Final = ("left", "top", "right", "bottom")
_BOX: Final[ObjectRule] = dict.fromkeys(_SIDES, within(-1e6, 1e6))


def _color(value: Any, sieve: Redactor) -> Any:  # noqa: ARG001
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
"""One observation of a frame."""
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
    """A colour and how sure it is."""

    name: str = ""
    score: float = 1.0


class AxisClass(msgspec.Struct, frozen=True, omit_defaults=True):
    """What something is."""

    type: str = ""
    score: float | None = None
    colors: tuple[AxisColor, ...] = ()


class AxisBox(msgspec.Struct, frozen=True):
    """Sides."""

    left: float
    top: float
    right: float
    bottom: float


class AxisPosition(msgspec.Struct, frozen=True):
    """Where something is on the map."""

    latitude: float
    longitude: float


class AxisObject(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One object of a frame."""

    track_id: str = ""
    timestamp: str = ""
    bounding_box: AxisBox | None = None
    object_class: AxisClass = msgspec.field(default=AxisClass(), name="class")
    geoposition: AxisPosition | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class AxisOperation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of a track."""

    type: Literal["DeleteOperation", "RenameOperation"]
    id: str = ""
    source: str = msgspec.field(default="", name="from")
    to: str = ""


class AxisFrame(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="frame", tag_field="is"):
    """One moment of the scene."""

    time: str = ""
    camera: str = ""
    objects: tuple[AxisObject, ...] = ()
    operations: tuple[AxisOperation, ...] = ()
    invalid: tuple[int, ...] = ()


class AxisTrack(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="track", tag_field="is"):
    """One finished track: of its way only where it ended is kept."""

    id: str
    classes: tuple[AxisClass, ...] = ()
    start_time: str = ""
    end_time: str = ""
    box: AxisBox | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class AxisCount(msgspec.Struct, frozen=True):
    """A number of an event."""

    property: str
    value: int
    channel: str
    cumulative: bool


class AxisEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="event", tag_field="is"):
    """One event of the camera."""

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
"""Members of what recorders and bridges put around a message."""
_WRAPPERS_MAX: Final = 4

_RULE = re.compile(r"(?:Device|Camera)(\d{1,2})(?:Scenario|Profile)(\d{1,3}|ANY|Any|any)(?:Threshold)?", re.ASCII)
_ANY: Final = "any"
_COUNT_PROPERTIES: Final = {
    ObjectClass.PERSON: "people_count_total",
    ObjectClass.VEHICLE: "vehicle_count_total",
    ObjectClass.NONMOTOR: "bicycles_total",
}
"""Class -> the property of its cumulative count."""


def redact(payload: bytes, topic: str, arrival: int, veil: Pseudonymiser) -> Redacted:
    """Cut a message down. Raises `Rejected`: none of the three kinds."""
    tree = decode_object(payload)
    for _ in range(_WRAPPERS_MAX):
        if tree.keys() not in _WRAPPERS or not isinstance(tree["payload"], dict):
            break
        tree = tree["payload"]
    sieve = NamingRedactor(veil, arrival, _NAMES)
    if isinstance(tree.get("frame"), dict):
        return sieve.result(_redact_frame(tree, sieve))
    if ("classes" in tree or "id" in tree) and {"start_time", "end_time", "observations"} & tree.keys():
        return sieve.result(_redact_track(tree, sieve))
    if isinstance(tree.get("message"), dict) and isinstance(tree.get("topic", topic), str):
        return sieve.result(_redact_event(tree, str(tree.get("topic", topic)), sieve))
    raise Rejected(QuarantineReason.SCHEMA, "JSON, but no frame, finished track or event of Axis")


def _as_bounded_list(value: Any) -> list[Any]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    if len(found) > OBJECTS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {OBJECTS_MAX} objects")
    return found


def _redact_frame(tree: dict[str, Any], sieve: NamingRedactor) -> AxisFrame:
    frame = tree["frame"]
    for name, value in tree.items():
        if name not in {"frame", "serial"}:
            sieve.out(name, value)
    for name, value in frame.items():
        if name not in {"timestamp", "observations", "operations"}:
            sieve.out(f"frame.{name}", value)
    at = allow_time(frame.get("timestamp"), sieve)
    things, operations, broken = [], [], []
    for place, one in enumerate(_as_bounded_list(frame.get("observations"))):
        if not isinstance(one, dict):
            broken.append(place)
            continue
        kept = redact_separately(sieve, one, OBJECT, "observations")
        kept["images"] = len(_as_bounded_list(one.get("image")))
        if "geoposition" in kept and (
            len(kept["geoposition"]) != 2 or split_class(kept.get("class", {}).get("type", ""))[0] in {*_PEOPLE, None}
        ):
            del kept["geoposition"]
            sieve.out("observations.geoposition", True)
            kept["removed"] = sorted({*kept.get("removed", ()), "observations.geoposition"})
        if len(kept.get("bounding_box", {})) != len(_SIDES):
            kept.pop("bounding_box", None)
        things.append(msgspec.convert(kept, AxisObject))
    for one in _as_bounded_list(frame.get("operations")):
        if isinstance(one, dict) and len(one) == 1 and isinstance(inner := next(iter(one.values())), dict):
            one = {**inner, "type": next(iter(one))}  # noqa: PLW2901 - the kind as the name of a member
        kept = redact_separately(sieve, one, OPERATION, "operations")
        if "type" in kept and ("id" in kept or {"from", "to"} <= kept.keys()):
            operations.append(msgspec.convert(kept, AxisOperation))
    return AxisFrame(
        time="" if at is REMOVED else at,
        camera=_camera(tree, sieve),
        objects=tuple(things),
        operations=tuple(operations),
        invalid=tuple(broken),
    )


def _camera(tree: dict[str, Any], sieve: NamingRedactor) -> str:
    found = allow_camera(tree.get("serial"), sieve)
    return "" if found is REMOVED else str(found)


def _redact_track(tree: dict[str, Any], sieve: NamingRedactor) -> AxisTrack:
    members = {name: value for name, value in tree.items() if name not in {"observations", "image"}}
    kept = sieve.apply_object(members, TRACK)
    seen = [one for one in _as_bounded_list(tree.get("observations")) if isinstance(one, dict)]
    last = (
        sieve.apply_object(seen[-1], {"bounding_box": _BOX, "timestamp": ignore_field}, "observations") if seen else {}
    )
    last = last.get("bounding_box", {})
    for one in seen[:-1]:
        sieve.out("observations", one)
    images = _as_bounded_list(tree.get("image"))
    for one in images:
        sieve.out("image", one)
    return AxisTrack(
        id=kept.get("id", ""),
        classes=msgspec.convert(kept.get("classes", []), tuple[AxisClass, ...]),
        start_time=kept.get("start_time", ""),
        end_time=kept.get("end_time", ""),
        box=msgspec.convert(last, AxisBox) if len(last) == len(_SIDES) else None,
        images=len(images),
        removed=tuple(sorted(sieve.removed)),
    )


def _redact_event(tree: dict[str, Any], topic: str, sieve: NamingRedactor) -> AxisEvent:
    """Cut an event. What its topic says counts only where it is of the table; others are known and mean nothing."""
    message = tree["message"]
    data = message.get("data")
    data = (
        {_DATA_MEMBERS.get(name.lower(), name): value for name, value in data.items()} if isinstance(data, dict) else {}
    )
    for name, value in tree.items():
        if name not in {"topic", "timestamp", "serial", "message"}:
            sieve.out(name, value)
    levels = [level.rpartition(":")[2] for level in topic.split("/")]
    rule = next((found for level in reversed(levels) if (found := _RULE.fullmatch(level))), None)
    named = "" if rule is None else _scenario_channel(rule[1], rule[2])
    counted = any(name.startswith("total") for name in data)
    word = next(filter(None, (codes.word("event", NAME, level) for level in reversed(levels))), "")
    said = data.get("classTypes") or data.get("reason")
    label = allow_class(NAME)(said.replace(",", " ").split(" ")[0] if isinstance(said, str) else said, sieve)
    state = boolean(data.get("active"))
    since = allow_time(data.get("startTime"), sieve) is not REMOVED
    for name, value in data.items():
        if not name.startswith("total") and name not in _DATA_MEMBERS.values():
            sieve.out("data", value)
    for part in ("source", "key"):
        if part in message:
            sieve.out(part, message[part])
    at = number(tree.get("timestamp"), 1e12, 4e12)  # smaller ones are no times of this century
    counts = tuple(_read_counts(data, named, since=since, sieve=sieve)) if counted else ()
    return AxisEvent(
        camera=_camera(tree, sieve),
        time_ms=at,
        event="" if counted or state is None else word,
        rule=named,
        state=state,
        label="" if label is REMOVED or counted else label,
        counts=counts,
        removed=tuple(sorted(sieve.removed)),
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
"""Members of an event, folded -> as they are read here."""


def _scenario_channel(device: str, scenario: str) -> str:
    """Return how a scenario is called as a channel: those of the first sensor by their number alone."""
    device = device.lstrip("0") or "0"
    scenario = scenario.lower()
    return f"scenario{scenario}" if device == "1" else f"device{device}scenario{scenario}"


def _read_counts(data: dict[str, Any], rule: str, *, since: bool, sieve: NamingRedactor) -> list[AxisCount]:
    """Return the counts of an event: since when they rise tells those of a line from those in an area."""
    found = []
    for name, value in data.items():
        if not name.startswith("total"):
            continue
        count = number(value, 0, COUNT_MAX)
        if count is None or count != int(count):
            sieve.out("data", value)
            continue
        cls, kind = codes.object_class(NAME, name.removeprefix("total") or _ANY)
        if name == "total":
            what, channel = ("object_count_total" if since else "objects_present"), ""
        elif since:
            what = _COUNT_PROPERTIES.get(cls, "object_count_total")
            channel = kind or ("" if what != "object_count_total" else "unknown")
        else:
            what = PRESENCE_PROPERTIES.get(cls, "objects_present")
            channel = kind or ("" if what != "objects_present" else "unknown")
        found.append(AxisCount(what, int(count), "_".join(part for part in (rule, channel) if part), since))
    return found


# ── what it reports ──────────────────────────────────────────────────────────────────────────────────


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a message reports."""
    kept: _Record = decode_record(payload, _Record)  # type: ignore[arg-type] # a union is no class, and msgspec takes it
    return _DECODERS[type(kept)](kept, arrival)


def _likeliest(found: tuple[AxisClass, ...]) -> AxisClass:
    return max(found, key=lambda one: one.score or 0.0, default=AxisClass())


def _resolve_box(box: AxisBox | None) -> boxes.ResolvedBox | tuple[None, None]:
    return (None, None) if box is None else boxes.from_fractions(box.left, box.top, box.right, box.bottom)


def _color_of(of: AxisClass, what: ObjectClass | None) -> str:
    if what is None or what in _PEOPLE:
        return ""
    named = [one for one in of.colors if one.name]
    return max(named, key=lambda one: one.score).name if named else ""


def _decode_frame(kept: AxisFrame, arrival: int) -> VideoReport:
    of_frame = (parse_iso(kept.time) if kept.time else None) or received(arrival)
    parents = {one.to: one.source for one in kept.operations if one.type == "RenameOperation"}
    found = []
    for index, one in enumerate(kept.objects):
        at, quality = (parse_iso(one.timestamp) if one.timestamp else None) or of_frame
        box, box_quality = _resolve_box(one.bounding_box)
        what, kind = split_class(one.object_class.type)
        place = one.geoposition
        found.append(
            VideoObservation(
                id=identity(NAME, kept.camera, kept.time or one.timestamp, one.track_id or index),
                kind=ObservationKind.OBSERVATION,
                camera=kept.camera,
                observed_at=at,
                time_quality=quality,
                format=NAME,
                native_id=one.track_id,
                object_class=what,
                subclass=kind,
                track=one.track_id,
                parent_track=parents.pop(one.track_id, ""),
                box=box,
                box_quality=box_quality,
                confidence=one.object_class.score,
                color=_color_of(one.object_class, what),
                place=None if place is None else Location(place.longitude, place.latitude, source="object"),
                images=one.images,
                removed=one.removed,
            )
        )
    gone = [one.id or one.source for one in kept.operations]
    ends = [(name, "", TrackState.END) for name in gone if name]
    ends += [(name, source, TrackState.UPDATE) for name, source in parents.items()]
    for name, source, state in ends:
        found.append(
            VideoObservation(
                id=identity(NAME, kept.camera, kept.time, name, state),
                kind=ObservationKind.OBSERVATION,
                camera=kept.camera,
                observed_at=of_frame[0],
                time_quality=of_frame[1],
                format=NAME,
                native_id=name,
                track=name,
                parent_track=source,
                track_state=state,
            )
        )
    refused = tuple(RejectedObject(place, "wrong_type", "no object") for place in kept.invalid)
    return VideoReport(tuple(found), rejected=refused, ignored=0 if found or refused else 1)


def _decode_track(kept: AxisTrack, arrival: int) -> VideoReport:
    said = kept.end_time or kept.start_time
    at, quality = (parse_iso(said) if said else None) or received(arrival)
    best = _likeliest(kept.classes)
    box, box_quality = _resolve_box(kept.box)
    what, kind = split_class(best.type)
    one = VideoObservation(
        id=identity(NAME, kept.id, kept.start_time, kept.end_time),
        kind=ObservationKind.OBSERVATION,
        camera="",
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id=kept.id,
        object_class=what,
        subclass=kind,
        track=kept.id,
        track_state=TrackState.END,
        box=box,
        box_quality=box_quality,
        confidence=best.score,
        color=_color_of(best, what),
        images=kept.images,
        removed=kept.removed,
    )
    return VideoReport((one,))


def _decode_event(kept: AxisEvent, arrival: int) -> VideoReport:
    at, quality = _time(kept.time_ms, arrival)
    key = identity(NAME, kept.camera, kept.rule, kept.time_ms)
    measured = [
        Measurement(
            kept.camera, one.property, one.value, "1", at, quality, key, channel=one.channel, cumulative=one.cumulative
        )
        for one in kept.counts
    ]
    if not kept.event or kept.state is None:
        return VideoReport(measurements=tuple(measured), ignored=0 if measured else 1)
    if name := codes.state_property(kept.event):
        measured.append(Measurement(kept.camera, name, kept.state, "", at, quality, key, channel=kept.rule))
    what, kind = split_class(kept.label)
    one = VideoObservation(
        id=identity(NAME, kept.camera, kept.event, kept.rule, kept.time_ms, kept.state),
        kind=ObservationKind.EVENT,
        camera=kept.camera,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        object_class=what,
        subclass=kind,
        event=VideoEvent(kept.event, state=kept.state, rule=kept.rule),
        removed=kept.removed,
    )
    return VideoReport((one,), tuple(measured))


def _time(milliseconds: float | None, arrival: int) -> TimeResult:
    return (None if milliseconds is None else epoch_ms(milliseconds)) or received(arrival)


_DECODERS: Final[dict[type, Callable[[Any, int], VideoReport]]] = {
    AxisFrame: _decode_frame,
    AxisTrack: _decode_track,
    AxisEvent: _decode_event,
}

FORMAT = VideoFormat(NAME, redact, decode)
