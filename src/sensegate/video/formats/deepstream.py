"""NVIDIA DeepStream (nvmsgconv): the full schema with one object per message, and both forms of the minimal schema.

Boxes are pixels of the muxer's image, whose size is not in the message: it comes from the camera's profile.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import boxes, codes
from sensegate.video.allowlist import (
    REMOVED,
    AllowListRedactor,
    ObjectRule,
    allow_slug,
    allow_time,
    decode_object,
    decode_record,
    pseudonymise_plate,
)
from sensegate.video.allowlist import allow_number as within
from sensegate.video.format import CameraInfo, Pseudonymiser, Redacted, RejectedObject, VideoFormat, VideoReport
from sensegate.video.formats.detector import (
    SPEEDS,
    NamingRedactor,
    add_removed,
    allow_camera,
    allow_class,
    allow_coded_word,
    allow_color,
    allow_track_id,
    ignore_field,
    member_names,
    split_class,
)
from sensegate.video.observation import (
    BoxQuality,
    Location,
    ObjectClass,
    ObservationKind,
    Plate,
    TrackState,
    VideoEvent,
    VideoObservation,
)
from sensegate.video.times import parse_iso, received
from sensegate.video.values import identity, integer, number

NAME: Final = "deepstream"
OBJECTS_MAX: Final = 10_000
UNTRACKED: Final = frozenset({"18446744073709551615", "-1"})
_PIXEL: Final = within(-65_536, 131_072)
_PLACE: Final[ObjectRule] = {"lat": within(-90, 90), "lon": within(-180, 180), "alt": within(-12_000, 100_000)}
_BOX: Final = ("topleftx", "toplefty", "bottomrightx", "bottomrighty")
_OTHER_BOX: Final = ("leftX", "topY", "rightX", "bottomY")
_CLASS: Final = allow_class(NAME)
_MEMBERS: Final = 7
"""Members of an object written as text: id, four sides, label, and one more."""


def _track(value: Any, redactor: AllowListRedactor) -> Any:
    return None if str(value) in UNTRACKED else allow_track_id(value, redactor)


def _lane(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
    """Accept the number of a lane, also after the word (``lane1``)."""
    if isinstance(value, str):
        value = value.strip().lower().removeprefix("lane").strip()
    return REMOVED if (number := integer(value, 0, 99)) is None else number


_VEHICLE: Final[ObjectRule] = {
    "type": _CLASS,
    "color": allow_color(NAME),
    "license": pseudonymise_plate,
    "licenseState": ignore_field,
    "confidence": within(0, 1),
}
_CONFIDENCE: Final[ObjectRule] = {"confidence": within(0, 1)}
OBJECT: Final[ObjectRule] = {
    "id": _track,
    "speed": within(0, 1_000),
    "direction": within(-360, 360),
    "dir": ignore_field,
    "orientation": ignore_field,
    "type": _CLASS,
    "confidence": within(0, 1),
    "bbox": dict.fromkeys((*_BOX, *_OTHER_BOX), _PIXEL),
    "location": _PLACE,
    "coordinate": ignore_field,
    "vehicle": _VEHICLE,
    **dict.fromkeys(("person", "face", "bag", "bicycle", "roadsign", "unknown"), _CONFIDENCE),
}
HEAD: Final[ObjectRule] = {
    "messageid": allow_track_id,
    "id": allow_track_id,
    "@timestamp": allow_time,
    "sensorId": allow_camera,
    "sensor": {"id": allow_camera, "type": ignore_field, "location": _PLACE, "coordinate": ignore_field},
    "analyticsModule": {"id": allow_slug, "source": ignore_field, "version": ignore_field, "confidence": ignore_field},
    "place": {
        "id": ignore_field,
        "type": ignore_field,
        "location": ignore_field,
        "coordinate": ignore_field,
        "entrance": {"lane": _lane, "level": ignore_field, "coordinate": ignore_field},
    },
    "event": {"id": ignore_field, "type": allow_coded_word("event", NAME)},
    **dict.fromkeys(("mdsversion", "version"), ignore_field),
}
_NAMES: Final = member_names(OBJECT, HEAD) | {
    "objects", "object", "videoPath", "description", "name", "make", "model", "attributes", "embedding", "pose", "gaze",
    "age", "gender", "hair", "cap", "apparel", "glasses", "facialhair", "eyecolor", "info", "mask", "lipActivity",
}  # fmt: skip


class DeepStreamObject(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An object."""

    id: str = ""
    label: str = ""
    box: tuple[float, float, float, float] | None = None
    confidence: float | None = None
    speed: float | None = None
    yaw: float | None = None
    color: str = ""
    plate: Plate | None = None
    location: tuple[float, float, float | None] | None = None
    """lon, lat, altitude"""
    removed: tuple[str, ...] = ()


class DeepStreamMessage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message."""

    id: str = ""
    time: str = ""
    camera: str = ""
    analytics: str = ""
    lane: int | None = None
    location: tuple[float, float, float | None] | None = None
    event: str = ""
    objects: tuple[DeepStreamObject, ...] = ()
    invalid: tuple[int, ...] = ()
    """Indices of malformed objects."""
    removed: tuple[str, ...] = ()


def redact(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:  # noqa: ARG001
    """Redact a message. Raises `Rejected` if it is of neither schema."""
    tree = decode_object(payload)
    if not ({"object", "objects"} & tree.keys() and {"sensorId", "sensor", "@timestamp"} & tree.keys()):
        raise Rejected(
            QuarantineReason.SCHEMA,
            "the message is JSON, but not of nvmsgconv: an object with its sensor and time is missing",
        )
    redactor = NamingRedactor(pseudonymiser, arrival, _NAMES)
    if isinstance(moment := tree.get("@timestamp"), str) and (at := parse_iso(moment)) is not None:
        redactor.seen_at = at[0]
    head = redactor.apply_object(
        {name: value for name, value in tree.items() if name not in {"object", "objects"}}, HEAD
    )
    of_all = redactor.removed_member().get("removed", [])
    given = tree["object"] if "object" in tree else tree["objects"]
    given = given if isinstance(given, list) else [] if given is None else [given]
    if len(given) > OBJECTS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {OBJECTS_MAX} objects")
    things: list[DeepStreamObject] = []
    broken: list[int] = []
    for place, raw in enumerate(given):
        inner = NamingRedactor(pseudonymiser, redactor.seen_at, _NAMES)
        item = _redact_text(raw, inner) if isinstance(raw, str) else _redact_object(raw, inner)
        add_removed(redactor, inner)
        if item is None:
            broken.append(place)
        else:
            things.append(msgspec.structs.replace(item, removed=tuple(sorted({*inner.removed, *of_all}))))
    sensor = head.get("sensor", {})
    scene = DeepStreamMessage(
        id=head.get("messageid") or head.get("id", ""),
        time=head.get("@timestamp", ""),
        camera=head.get("sensorId") or sensor.get("id", ""),
        analytics=head.get("analyticsModule", {}).get("id", ""),
        lane=_integer(head.get("place", {}).get("entrance", {}).get("lane")),
        location=_location(sensor.get("location", {})),
        event=head.get("event", {}).get("type", ""),
        objects=tuple(things),
        invalid=tuple(broken),
        removed=tuple(of_all),
    )
    return redactor.result(scene)


def _integer(value: float | None) -> int | None:
    return int(value) if value is not None and value == int(value) else None


def _location(members: dict[str, Any]) -> tuple[float, float, float | None] | None:
    """Return (lon, lat, altitude); 0, 0 means not set."""
    if "lat" not in members or "lon" not in members or (members["lat"] == 0 and members["lon"] == 0):
        return None
    return float(members["lon"]), float(members["lat"]), members.get("alt")


def _redact_object(raw: Any, redactor: NamingRedactor) -> DeepStreamObject | None:
    if not isinstance(raw, dict):
        return None
    members = redactor.apply_object(raw, OBJECT, "object")
    vehicle = members.get("vehicle", {})
    if "license" in vehicle:
        redactor.count_removed("object.vehicle.license", True)
    label = members.get("type") or vehicle.get("type") or ""
    confidence = members.get("confidence")
    for name in ("vehicle", "person", "face", "bicycle", "bag", "roadsign"):
        if isinstance(raw.get(name), dict):
            label = label if label and label != ObjectClass.OTHER else str(_CLASS(name, redactor))
            confidence = members.get(name, {}).get("confidence") if confidence is None else confidence
    box = members.get("bbox", {})
    sides = next((names for names in (_BOX, _OTHER_BOX) if all(name in box for name in names)), None)
    if sides is not None and not any(box[name] for name in sides):
        sides = None  # not set
    is_person = split_class(label)[0] in {ObjectClass.PERSON, ObjectClass.FACE, None}
    place = _location(members.get("location", {}))
    if is_person and place is not None:
        redactor.count_removed("object.location", True)
    return DeepStreamObject(
        id=members.get("id", ""),
        label=label,
        box=None if sides is None else (box[sides[0]], box[sides[1]], box[sides[2]], box[sides[3]]),
        confidence=confidence,
        speed=members.get("speed"),
        yaw=members.get("direction"),
        color=vehicle.get("color", ""),
        plate=msgspec.convert(vehicle["license"], Plate) if "license" in vehicle else None,
        location=None if is_person else place,
    )


def _redact_text(raw: str, redactor: NamingRedactor) -> DeepStreamObject | None:
    """Redact ``id|left|top|right|bottom|label…``; of the rest only a colour, a kind and a confidence are kept."""
    members = raw.split("|")
    sides = [number(side, -65_536, 131_072) for side in members[1:5]]
    if len(members) < _MEMBERS - 1 or any(side is None for side in sides):
        return None
    left, top, right, bottom = (side or 0.0 for side in sides)
    tail = [member.strip() for member in members[6:] if member.strip() not in {"", "#"}]
    confidence = number(tail[-1], 0, 1) if tail else None
    if confidence is not None:
        tail.pop()
    label_word = _CLASS(members[5].strip(), redactor)
    label, color = "" if label_word is REMOVED else str(label_word), ""
    for member in tail:
        if not color and (color_word := codes.color(NAME, member)) and not member.isdigit():
            color = color_word
        elif label == ObjectClass.VEHICLE and (kind := codes.object_class(NAME, member)[1]):
            label = f"{label}:{kind}"
        else:
            redactor.count_removed("objects.attributes", member)
    key = _track(members[0].strip(), redactor)
    return DeepStreamObject(
        id="" if key in {None, REMOVED} else key,
        label=label,
        box=(left, top, right, bottom),
        confidence=confidence,
        color=color,
    )


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a message reports."""
    scene = decode_record(payload, DeepStreamMessage)
    at, quality = parse_iso(scene.time) or received(arrival)
    state = {"field_entered": TrackState.NEW, "field_left": TrackState.END}.get(scene.event)
    event = VideoEvent(scene.event, zone="") if scene.event else None
    size = camera.size(scene.camera)
    observations = []
    for index, item in enumerate(scene.objects):
        box, box_quality = (None, None) if item.box is None else _box(item.box, size)
        object_class, kind = split_class(item.label)
        place = item.location or scene.location
        observations.append(
            VideoObservation(
                id=identity(NAME, scene.camera, scene.id, scene.time, item.id or (index, item.box), scene.event),
                kind=ObservationKind.OBSERVATION,
                camera=scene.camera,
                observed_at=at,
                time_quality=quality,
                format=NAME,
                native_id=scene.id,
                object_class=object_class,
                subclass=kind,
                track=item.id,
                track_state=state if item.id else None,
                box=box,
                box_quality=box_quality,
                image_size=size,
                confidence=item.confidence,
                place=None if place is None else Location(*place, source="object" if item.location else "camera"),
                speed=None if item.speed is None else round(item.speed * SPEEDS[camera.speed_unit], 4),
                device_yaw=item.yaw,
                lane=scene.lane,
                plate=item.plate,
                color=item.color,
                event=event,
                analytics=scene.analytics,
                removed=item.removed,
            )
        )
    refused = tuple(RejectedObject(place, "wrong_type", "not an object of either schema") for place in scene.invalid)
    return VideoReport(tuple(observations), rejected=refused, ignored=0 if observations or refused else 1)


def _box(sides: tuple[float, float, float, float], size: tuple[int, int] | None) -> boxes.ResolvedBox:
    return boxes.from_pixels(*sides, *(size or (0, 0)), quality=BoxQuality.CAMERA)


FORMAT = VideoFormat(NAME, redact, decode)
