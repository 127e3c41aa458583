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
from sensegate.video.allowlist import GONE, Many, Shape, Sieve, moment, one_of, read_object, typed
from sensegate.video.allowlist import number as within
from sensegate.video.format import Camera, Cut, Measured, Refusal, Seen, Veil, VideoFormat
from sensegate.video.formats.detector import (
    PRESENT,
    Telling,
    apart,
    camera_name,
    class_of,
    classes,
    names_in,
    silent,
    track_id,
)
from sensegate.video.observation import Event, Kind, ObjectClass, Place, TrackState, VideoObservation
from sensegate.video.times import Found, epoch_ms, parse_iso, received
from sensegate.video.values import identity, number, truth

NAME: Final = "axis"
OBJECTS_MAX: Final = 10_000
COUNT_MAX: Final = 9_999_999_999
"""A number of eleven digits is a telephone."""
_SIDES: Final = ("left", "top", "right", "bottom")
_BOX: Final[Shape] = dict.fromkeys(_SIDES, within(-1e6, 1e6))


def _color(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
    return (codes.color(NAME, value) or GONE) if isinstance(value, str) else GONE


_CLASS: Final[Shape] = {
    "type": class_of(NAME),
    "score": within(0, 1),
    "colors": Many({"name": _color, "score": within(0, 1)}, 32),
}
_PEOPLE: Final = frozenset({ObjectClass.PERSON, ObjectClass.FACE})

OBJECT: Final[Shape] = {
    "track_id": track_id,
    "timestamp": moment,
    "bounding_box": _BOX,
    "class": _CLASS,
    "geoposition": {"latitude": within(-90, 90), "longitude": within(-180, 180), "lat": silent, "lon": silent},
    "velocity": silent,
    "spherical_coordinate": silent,
}
"""One observation of a frame."""
OPERATION: Final[Shape] = {
    "type": one_of("DeleteOperation", "RenameOperation"),
    "id": track_id,
    "from": track_id,
    "to": track_id,
}
TRACK: Final[Shape] = {
    "id": track_id,
    "classes": Many(_CLASS, 64),
    "start_time": moment,
    "end_time": moment,
    "duration": silent,
}
_NAMES: Final = names_in(OBJECT, OPERATION, TRACK) | {
    "image", "data", "upper_clothing_colors", "lower_clothing_colors", "observations", "frame", "operations", "message",
    "license_plate", "text", "face", "bag", "bags", "hat", "path", "source", "key", "topic", "serial",
}  # fmt: skip


class Color(msgspec.Struct, frozen=True):
    """A colour and how sure it is."""

    name: str = ""
    score: float = 1.0


class Class(msgspec.Struct, frozen=True, omit_defaults=True):
    """What something is."""

    type: str = ""
    score: float | None = None
    colors: tuple[Color, ...] = ()


class Box(msgspec.Struct, frozen=True):
    """Sides."""

    left: float
    top: float
    right: float
    bottom: float


class Position(msgspec.Struct, frozen=True):
    """Where something is on the map."""

    latitude: float
    longitude: float


class Thing(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One object of a frame."""

    track_id: str = ""
    timestamp: str = ""
    bounding_box: Box | None = None
    cls: Class = msgspec.field(default=Class(), name="class")
    geoposition: Position | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of a track."""

    type: Literal["DeleteOperation", "RenameOperation"]
    id: str = ""
    source: str = msgspec.field(default="", name="from")
    to: str = ""


class Frame(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="frame", tag_field="is"):
    """One moment of the scene."""

    at: str = ""
    camera: str = ""
    things: tuple[Thing, ...] = ()
    operations: tuple[Operation, ...] = ()
    broken: tuple[int, ...] = ()


class Track(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="track", tag_field="is"):
    """One finished track: of its way only where it ended is kept."""

    id: str
    classes: tuple[Class, ...] = ()
    start_time: str = ""
    end_time: str = ""
    box: Box | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class Count(msgspec.Struct, frozen=True):
    """A number of an event."""

    property: str
    value: int
    channel: str
    cumulative: bool


class Happening(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="event", tag_field="is"):
    """One event of the camera."""

    camera: str = ""
    at: float | None = None
    """ms since 1970"""
    event: str = ""
    rule: str = ""
    state: bool | None = None
    label: str = ""
    counts: tuple[Count, ...] = ()
    removed: tuple[str, ...] = ()


Kept: TypeAlias = Frame | Track | Happening

_WRAPPERS: Final = ({"_mqtt_topic", "payload"}, {"topic", "payload"})
"""Members of what recorders and bridges put around a message."""
_WRAPPERS_MAX: Final = 4

_RULE = re.compile(r"(?:Device|Camera)(\d{1,2})(?:Scenario|Profile)(\d{1,3}|ANY|Any|any)(?:Threshold)?", re.ASCII)
_ANY: Final = "any"
_OF_CLASS: Final = {
    ObjectClass.PERSON: "people_count_total",
    ObjectClass.VEHICLE: "vehicle_count_total",
    ObjectClass.NONMOTOR: "bicycles_total",
}
"""Class -> the property of its cumulative count."""


def cut(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:
    """Cut a message down. Raises `Rejected`: none of the three kinds."""
    tree = read_object(payload)
    for _ in range(_WRAPPERS_MAX):
        if tree.keys() not in _WRAPPERS or not isinstance(tree["payload"], dict):
            break
        tree = tree["payload"]
    sieve = Telling(veil, arrival, _NAMES)
    if isinstance(tree.get("frame"), dict):
        return sieve.cut(_frame(tree, sieve))
    if ("classes" in tree or "id" in tree) and {"start_time", "end_time", "observations"} & tree.keys():
        return sieve.cut(_track(tree, sieve))
    if isinstance(tree.get("message"), dict) and isinstance(tree.get("topic", topic), str):
        return sieve.cut(_happening(tree, str(tree.get("topic", topic)), sieve))
    raise Rejected(QuarantineReason.SCHEMA, "JSON, but no frame, finished track or event of Axis")


def _listed(value: Any) -> list[Any]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    if len(found) > OBJECTS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {OBJECTS_MAX} objects")
    return found


def _frame(tree: dict[str, Any], sieve: Telling) -> Frame:
    frame = tree["frame"]
    for name, value in tree.items():
        if name not in {"frame", "serial"}:
            sieve.out(name, value)
    for name, value in frame.items():
        if name not in {"timestamp", "observations", "operations"}:
            sieve.out(f"frame.{name}", value)
    at = moment(frame.get("timestamp"), sieve)
    things, operations, broken = [], [], []
    for place, one in enumerate(_listed(frame.get("observations"))):
        if not isinstance(one, dict):
            broken.append(place)
            continue
        kept = apart(sieve, one, OBJECT, "observations")
        kept["images"] = len(_listed(one.get("image")))
        if "geoposition" in kept and (
            len(kept["geoposition"]) != 2 or classes(kept.get("class", {}).get("type", ""))[0] in {*_PEOPLE, None}
        ):
            del kept["geoposition"]
            sieve.out("observations.geoposition", True)
            kept["removed"] = sorted({*kept.get("removed", ()), "observations.geoposition"})
        if len(kept.get("bounding_box", {})) != len(_SIDES):
            kept.pop("bounding_box", None)
        things.append(msgspec.convert(kept, Thing))
    for one in _listed(frame.get("operations")):
        if isinstance(one, dict) and len(one) == 1 and isinstance(inner := next(iter(one.values())), dict):
            one = {**inner, "type": next(iter(one))}  # noqa: PLW2901 - the kind as the name of a member
        kept = apart(sieve, one, OPERATION, "operations")
        if "type" in kept and ("id" in kept or {"from", "to"} <= kept.keys()):
            operations.append(msgspec.convert(kept, Operation))
    return Frame(
        at="" if at is GONE else at,
        camera=_camera(tree, sieve),
        things=tuple(things),
        operations=tuple(operations),
        broken=tuple(broken),
    )


def _camera(tree: dict[str, Any], sieve: Telling) -> str:
    found = camera_name(tree.get("serial"), sieve)
    return "" if found is GONE else str(found)


def _track(tree: dict[str, Any], sieve: Telling) -> Track:
    members = {name: value for name, value in tree.items() if name not in {"observations", "image"}}
    kept = sieve.object(members, TRACK)
    seen = [one for one in _listed(tree.get("observations")) if isinstance(one, dict)]
    last = sieve.object(seen[-1], {"bounding_box": _BOX, "timestamp": silent}, "observations") if seen else {}
    last = last.get("bounding_box", {})
    for one in seen[:-1]:
        sieve.out("observations", one)
    images = _listed(tree.get("image"))
    for one in images:
        sieve.out("image", one)
    return Track(
        id=kept.get("id", ""),
        classes=msgspec.convert(kept.get("classes", []), tuple[Class, ...]),
        start_time=kept.get("start_time", ""),
        end_time=kept.get("end_time", ""),
        box=msgspec.convert(last, Box) if len(last) == len(_SIDES) else None,
        images=len(images),
        removed=tuple(sorted(sieve.removed)),
    )


def _happening(tree: dict[str, Any], topic: str, sieve: Telling) -> Happening:
    """Cut an event. What its topic says counts only where it is of the table; others are known and mean nothing."""
    message = tree["message"]
    data = message.get("data")
    data = {_DATA.get(name.lower(), name): value for name, value in data.items()} if isinstance(data, dict) else {}
    for name, value in tree.items():
        if name not in {"topic", "timestamp", "serial", "message"}:
            sieve.out(name, value)
    levels = [level.rpartition(":")[2] for level in topic.split("/")]
    rule = next((found for level in reversed(levels) if (found := _RULE.fullmatch(level))), None)
    named = "" if rule is None else _called(rule[1], rule[2])
    counted = any(name.startswith("total") for name in data)
    word = next(filter(None, (codes.word("event", NAME, level) for level in reversed(levels))), "")
    said = data.get("classTypes") or data.get("reason")
    label = class_of(NAME)(said.replace(",", " ").split(" ")[0] if isinstance(said, str) else said, sieve)
    state = truth(data.get("active"))
    since = moment(data.get("startTime"), sieve) is not GONE
    for name, value in data.items():
        if not name.startswith("total") and name not in _DATA.values():
            sieve.out("data", value)
    for part in ("source", "key"):
        if part in message:
            sieve.out(part, message[part])
    at = number(tree.get("timestamp"), 1e12, 4e12)  # smaller ones are no times of this century
    counts = tuple(_counts(data, named, since=since, sieve=sieve)) if counted else ()
    return Happening(
        camera=_camera(tree, sieve),
        at=at,
        event="" if counted or state is None else word,
        rule=named,
        state=state,
        label="" if label is GONE or counted else label,
        counts=counts,
        removed=tuple(sorted(sieve.removed)),
    )


_DATA: Final = {
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


def _called(device: str, scenario: str) -> str:
    """Return how a scenario is called as a channel: those of the first sensor by their number alone."""
    device = device.lstrip("0") or "0"
    scenario = scenario.lower()
    return f"scenario{scenario}" if device == "1" else f"device{device}scenario{scenario}"


def _counts(data: dict[str, Any], rule: str, *, since: bool, sieve: Telling) -> list[Count]:
    """Return the counts of an event: since when they rise tells those of a line from those in an area."""
    found = []
    for name, value in data.items():
        if not name.startswith("total"):
            continue
        count = number(value, 0, COUNT_MAX)
        if count is None or count != int(count):
            sieve.out("data", value)
            continue
        cls, kind = codes.seen_as(NAME, name.removeprefix("total") or _ANY)
        if name == "total":
            what, channel = ("object_count_total" if since else "objects_present"), ""
        elif since:
            what = _OF_CLASS.get(cls, "object_count_total")
            channel = kind or ("" if what != "object_count_total" else "unknown")
        else:
            what = PRESENT.get(cls, "objects_present")
            channel = kind or ("" if what != "objects_present" else "unknown")
        found.append(Count(what, int(count), "_".join(part for part in (rule, channel) if part), since))
    return found


# ── what it reports ──────────────────────────────────────────────────────────────────────────────────


def see(payload: bytes, topic: str, arrival: int, camera: Camera) -> Seen:  # noqa: ARG001
    """Return what a message reports."""
    kept: Kept = typed(payload, Kept)  # type: ignore[arg-type] # a union is no class, and msgspec takes it
    return _SEE[type(kept)](kept, arrival)


def _best(found: tuple[Class, ...]) -> Class:
    return max(found, key=lambda one: one.score or 0.0, default=Class())


def _place_of(box: Box | None) -> boxes.Found | tuple[None, None]:
    return (None, None) if box is None else boxes.unit(box.left, box.top, box.right, box.bottom)


def _color_of(of: Class, what: ObjectClass | None) -> str:
    if what is None or what in _PEOPLE:
        return ""
    named = [one for one in of.colors if one.name]
    return max(named, key=lambda one: one.score).name if named else ""


def _see_frame(kept: Frame, arrival: int) -> Seen:
    of_frame = (parse_iso(kept.at) if kept.at else None) or received(arrival)
    parents = {one.to: one.source for one in kept.operations if one.type == "RenameOperation"}
    found = []
    for index, one in enumerate(kept.things):
        at, quality = (parse_iso(one.timestamp) if one.timestamp else None) or of_frame
        box, box_quality = _place_of(one.bounding_box)
        what, kind = classes(one.cls.type)
        place = one.geoposition
        found.append(
            VideoObservation(
                id=identity(NAME, kept.camera, kept.at or one.timestamp, one.track_id or index),
                kind=Kind.OBSERVATION,
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
                confidence=one.cls.score,
                color=_color_of(one.cls, what),
                place=None if place is None else Place(place.longitude, place.latitude, source="object"),
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
                id=identity(NAME, kept.camera, kept.at, name, state),
                kind=Kind.OBSERVATION,
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
    refused = tuple(Refusal(place, "wrong_type", "no object") for place in kept.broken)
    return Seen(tuple(found), refused=refused, ignored=0 if found or refused else 1)


def _see_track(kept: Track, arrival: int) -> Seen:
    said = kept.end_time or kept.start_time
    at, quality = (parse_iso(said) if said else None) or received(arrival)
    best = _best(kept.classes)
    box, box_quality = _place_of(kept.box)
    what, kind = classes(best.type)
    one = VideoObservation(
        id=identity(NAME, kept.id, kept.start_time, kept.end_time),
        kind=Kind.OBSERVATION,
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
    return Seen((one,))


def _see_happening(kept: Happening, arrival: int) -> Seen:
    at, quality = _at(kept.at, arrival)
    key = identity(NAME, kept.camera, kept.rule, kept.at)
    measured = [
        Measured(
            kept.camera, one.property, one.value, "1", at, quality, key, channel=one.channel, cumulative=one.cumulative
        )
        for one in kept.counts
    ]
    if not kept.event or kept.state is None:
        return Seen(measured=tuple(measured), ignored=0 if measured else 1)
    if name := codes.state_property(kept.event):
        measured.append(Measured(kept.camera, name, kept.state, "", at, quality, key, channel=kept.rule))
    what, kind = classes(kept.label)
    one = VideoObservation(
        id=identity(NAME, kept.camera, kept.event, kept.rule, kept.at, kept.state),
        kind=Kind.EVENT,
        camera=kept.camera,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        object_class=what,
        subclass=kind,
        event=Event(kept.event, state=kept.state, rule=kept.rule),
        removed=kept.removed,
    )
    return Seen((one,), tuple(measured))


def _at(milliseconds: float | None, arrival: int) -> Found:
    return (None if milliseconds is None else epoch_ms(milliseconds)) or received(arrival)


_SEE: Final[dict[type, Callable[[Any, int], Seen]]] = {
    Frame: _see_frame,
    Track: _see_track,
    Happening: _see_happening,
}

FORMAT = VideoFormat(NAME, cut, see)
