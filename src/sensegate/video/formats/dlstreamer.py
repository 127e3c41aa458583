"""Intel DL Streamer (gvametaconvert): objects of a frame with boxes as fractions of the image.

``timestamp`` counts the nanoseconds of the stream and is not a time of day; ``source`` may be a URL with a password.
"""

from __future__ import annotations

import re
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
    decode_object,
    decode_record,
    pseudonymise_plate,
)
from sensegate.video.allowlist import allow_number as within
from sensegate.video.format import CameraInfo, Pseudonymiser, Redacted, RejectedObject, VideoFormat, VideoReport
from sensegate.video.formats.detector import (
    NamingRedactor,
    add_removed,
    allow_camera,
    allow_class,
    allow_track_id,
    ignore_field,
    member_names,
    split_class,
)
from sensegate.video.observation import ObservationKind, Plate, VideoObservation
from sensegate.video.times import parse_iso, received
from sensegate.video.values import as_list, identity

NAME: Final = "dlstreamer"
OBJECTS_MAX: Final = 10_000
_PART: Final = within(-1e6, 1e6)
_CONFIDENCE: Final = within(0, 1)
_CLASS: Final = allow_class(NAME)
_SIDES: Final = ("x_min", "y_min", "x_max", "y_max")
_PIXELS: Final = ("x", "y", "w", "h")
_CAMERAS: Final = ("camera", "camera_id", "cameraId", "camera_name", "sensor", "sensor_id", "device", "device_id")
_CLOCK = re.compile(
    r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)(?::?%z)?:?(Z|[+-]\d{2}:?\d{2})?(?::?%z)?", re.ASCII
)


def _allow_time(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
    """Accept a time; outside of UTC a literal ``:%z``, or a colon before the offset, follows it."""
    match = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    return REMOVED if match is None else match[1] + (match[2] or "")


def _hash_tick(value: Any, redactor: AllowListRedactor) -> Any:
    """Replace the stream's clock by a digest: a number of that length may be anything."""
    return (
        redactor.pseudonymiser.identifier(str(value))
        if isinstance(value, int) and not isinstance(value, bool)
        else REMOVED
    )


def _allow_source(value: Any, redactor: AllowListRedactor) -> Any:
    """Accept the name of a camera, but not a URL."""
    return allow_camera(value, redactor) if isinstance(value, str) and not set("/:@") & set(value) else REMOVED


_MODEL: Final[ObjectRule] = {"name": allow_slug}
OBJECT: Final[ObjectRule] = {
    "detection": {
        "bounding_box": dict.fromkeys(_SIDES, _PART),
        "confidence": _CONFIDENCE,
        "label": _CLASS,
        "label_id": ignore_field,
        "model": _MODEL,
    },
    **dict.fromkeys(_PIXELS, _PART),
    "id": allow_track_id,
    "region_id": ignore_field,
    "parent_id": ignore_field,
    "roi_type": _CLASS,
}
HEAD: Final[ObjectRule] = {
    "resolution": {"width": within(1, 65_536), "height": within(1, 65_536)},
    "source": _allow_source,
    "tags": dict.fromkeys(_CAMERAS, allow_camera),
    "timestamp": _hash_tick,
    "system_timestamp": _allow_time,
}
_PLATES: Final = frozenset({"license-plate", "license_plate", "licenseplate", "plate", "ocr", "lpr"})
_COLORS: Final = frozenset({"color", "colour", "vehicle_color", "vehicle-color"})
_TYPES: Final = frozenset({"type", "vehicle_type", "vehicle-type"})
_NAMES: Final = member_names(OBJECT, HEAD) | _PLATES | _COLORS | _TYPES | {
    "tensors", "gender", "age", "emotion", "face", "person", "attributes", "classification", "keypoints", "rotation",
    "objects", "label", "model_name", "reid", "landmarks", "person-attributes", "face_id", "name",
}  # fmt: skip


class DlStreamerObject(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An object."""

    id: str = ""
    label: str = ""
    box: tuple[float, float, float, float] | None = None
    """Sides as fractions."""
    pixels: tuple[float, float, float, float] | None = None
    """Corner, width, height."""
    confidence: float | None = None
    color: str = ""
    plate: Plate | None = None
    model: str = ""
    removed: tuple[str, ...] = ()


class DlStreamerFrame(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A frame."""

    time: str = ""
    tick: str = ""
    """Digest of the stream's clock: distinguishes the frames of one second."""
    camera: str = ""
    size: tuple[int, int] | None = None
    objects: tuple[DlStreamerObject, ...] = ()
    invalid: tuple[int, ...] = ()


def redact(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:  # noqa: ARG001
    """Redact a frame. Raises `Rejected` if it is not of gvametaconvert."""
    tree = decode_object(payload)
    given = tree.get("objects")
    given = [given] if isinstance(given, dict) else [] if given is None else given
    framed = bool({"resolution", "timestamp", "system_timestamp", "source"} & tree.keys())
    framed = framed or any(isinstance(raw, dict) and {"detection", "roi_type"} & raw.keys() for raw in as_list(given))
    if not isinstance(given, list) or not framed:
        raise Rejected(QuarantineReason.SCHEMA, "the message is JSON, but not a frame of gvametaconvert")
    if len(given) > OBJECTS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {OBJECTS_MAX} objects")
    redactor = NamingRedactor(pseudonymiser, arrival, _NAMES)
    head = redactor.apply_object({name: value for name, value in tree.items() if name != "objects"}, HEAD)
    at = head.get("system_timestamp", "")
    if at and (parsed := parse_iso(at)) is not None:
        redactor.seen_at = parsed[0]
    of_all = redactor.removed_member().get("removed", [])
    tags = head.get("tags", {})
    size = head.get("resolution", {})
    things: list[DlStreamerObject] = []
    broken: list[int] = []
    for place, raw in enumerate(given):
        if not isinstance(raw, dict):
            broken.append(place)
            continue
        inner = NamingRedactor(pseudonymiser, redactor.seen_at, _NAMES)
        item = _redact_object(raw, inner)
        add_removed(redactor, inner)
        things.append(msgspec.structs.replace(item, removed=tuple(sorted({*inner.removed, *of_all}))))
    scene = DlStreamerFrame(
        time=at,
        tick=head.get("timestamp", ""),
        camera=next((tags[name] for name in _CAMERAS if name in tags), head.get("source", "")),
        size=(int(size["width"]), int(size["height"])) if len(size) == 2 else None,
        objects=tuple(things),
        invalid=tuple(broken),
    )
    return redactor.result(scene)


def _redact_object(raw: dict[str, Any], redactor: NamingRedactor) -> DlStreamerObject:
    members = redactor.apply_object(
        {name: value for name, value in raw.items() if not _is_attribute(name, value)}, OBJECT, "objects"
    )
    label, color, read = "", "", None
    for name, value in raw.items():
        if not _is_attribute(name, value):
            continue
        word_label = value["label"]
        if name in _COLORS and (word := codes.color(NAME, word_label)):
            color = word
        elif name in _TYPES and (kind := codes.object_class(NAME, word_label))[1]:
            label = f"{kind[0]}:{kind[1]}"
        else:
            redactor.count_removed(f"objects.{name}", word_label)
            if name in _PLATES and (hidden := pseudonymise_plate(word_label, redactor)) is not REMOVED:
                read = Plate(**hidden, confidence=_number(value.get("confidence"), redactor))
    detection = members.get("detection", {})
    box = detection.get("bounding_box", {})
    label = label or detection.get("label") or members.get("roi_type", "")
    return DlStreamerObject(
        id=members.get("id", ""),
        label=label,
        box=(box["x_min"], box["y_min"], box["x_max"], box["y_max"]) if len(box) == 4 else None,
        pixels=(members["x"], members["y"], members["w"], members["h"])
        if all(name in members for name in _PIXELS)
        else None,
        confidence=detection.get("confidence"),
        color=color,
        plate=read,
        model=detection.get("model", {}).get("name", ""),
    )


def _is_attribute(name: str, value: Any) -> bool:
    """Return whether a member of an object is the result of a classifier."""
    return name not in OBJECT and isinstance(value, dict) and isinstance(value.get("label"), str)


def _number(value: Any, redactor: AllowListRedactor) -> float | None:
    number = _CONFIDENCE(value, redactor)
    return None if number is REMOVED else float(number)


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a frame reports."""
    scene = decode_record(payload, DlStreamerFrame)
    at, quality = (parse_iso(scene.time, camera.zone) if scene.time else None) or received(arrival)
    observations = []
    for index, item in enumerate(scene.objects):
        box, box_quality = _box(item, scene.size)
        object_class, kind = split_class(item.label)
        observations.append(
            VideoObservation(
                id=identity(NAME, scene.camera, scene.tick, scene.time, item.id or (index, item.box)),
                kind=ObservationKind.OBSERVATION,
                camera=scene.camera,
                observed_at=at,
                time_quality=quality,
                format=NAME,
                object_class=object_class,
                subclass=kind,
                track=item.id,
                box=box,
                box_quality=box_quality,
                image_size=scene.size,
                confidence=item.confidence,
                plate=item.plate,
                color=item.color,
                analytics=item.model,
                removed=item.removed,
            )
        )
    refused = tuple(RejectedObject(place, "wrong_type", "not an object") for place in scene.invalid)
    return VideoReport(tuple(observations), rejected=refused, ignored=0 if observations or refused else 1)


def _box(item: DlStreamerObject, size: tuple[int, int] | None) -> boxes.ResolvedBox | tuple[None, None]:
    if item.box is not None:
        return boxes.from_fractions(*item.box)
    if item.pixels is None:
        return None, None
    left, top, width, height = item.pixels
    return boxes.from_pixels(left, top, left + width, top + height, *(size or (0, 0)))


FORMAT = VideoFormat(NAME, redact, decode)
