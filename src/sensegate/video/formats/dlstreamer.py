"""Intel DL Streamer (gvametaconvert): objects of a frame with their boxes in fractions of the image.

``timestamp`` counts the stream's nanoseconds and is no time of day; ``source`` may be an address with a password in it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import boxes, codes
from sensegate.video.allowlist import GONE, Shape, Sieve, plate, read_object, slug, typed
from sensegate.video.allowlist import number as within
from sensegate.video.format import Camera, Cut, Refusal, Seen, Veil, VideoFormat
from sensegate.video.formats.detector import (
    Telling,
    add,
    camera_name,
    class_of,
    classes,
    names_in,
    silent,
    track_id,
)
from sensegate.video.observation import Kind, Plate, VideoObservation
from sensegate.video.times import parse_iso, received
from sensegate.video.values import identity, many

NAME: Final = "dlstreamer"
OBJECTS_MAX: Final = 10_000
_PART: Final = within(-1e6, 1e6)
_SURE: Final = within(0, 1)
_CLASS: Final = class_of(NAME)
_SIDES: Final = ("x_min", "y_min", "x_max", "y_max")
_PIXELS: Final = ("x", "y", "w", "h")
_CAMERAS: Final = ("camera", "camera_id", "cameraId", "camera_name", "sensor", "sensor_id", "device", "device_id")
_CLOCK = re.compile(
    r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)(?::?%z)?:?(Z|[+-]\d{2}:?\d{2})?(?::?%z)?", re.ASCII
)


def _moment(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
    """Let a time pass; outside UTC a literal ``:%z``, or a colon before the offset, stands behind it."""
    found = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    return GONE if found is None else found[1] + (found[2] or "")


def _tick(value: Any, sieve: Sieve) -> Any:
    """Put a digest in place of the stream's clock: a number so long may be anything."""
    return sieve.veil.word(str(value)) if isinstance(value, int) and not isinstance(value, bool) else GONE


def _source(value: Any, sieve: Sieve) -> Any:
    """Let the name of a camera pass; an address is no name."""
    return camera_name(value, sieve) if isinstance(value, str) and not set("/:@") & set(value) else GONE


_MODEL: Final[Shape] = {"name": slug}
OBJECT: Final[Shape] = {
    "detection": {
        "bounding_box": dict.fromkeys(_SIDES, _PART),
        "confidence": _SURE,
        "label": _CLASS,
        "label_id": silent,
        "model": _MODEL,
    },
    **dict.fromkeys(_PIXELS, _PART),
    "id": track_id,
    "region_id": silent,
    "parent_id": silent,
    "roi_type": _CLASS,
}
HEAD: Final[Shape] = {
    "resolution": {"width": within(1, 65_536), "height": within(1, 65_536)},
    "source": _source,
    "tags": dict.fromkeys(_CAMERAS, camera_name),
    "timestamp": _tick,
    "system_timestamp": _moment,
}
_PLATES: Final = frozenset({"license-plate", "license_plate", "licenseplate", "plate", "ocr", "lpr"})
_COLORS: Final = frozenset({"color", "colour", "vehicle_color", "vehicle-color"})
_TYPES: Final = frozenset({"type", "vehicle_type", "vehicle-type"})
_NAMES: Final = names_in(OBJECT, HEAD) | _PLATES | _COLORS | _TYPES | {
    "tensors", "gender", "age", "emotion", "face", "person", "attributes", "classification", "keypoints", "rotation",
    "objects", "label", "model_name", "reid", "landmarks", "person-attributes", "face_id", "name",
}  # fmt: skip


class Thing(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One object."""

    id: str = ""
    label: str = ""
    box: tuple[float, float, float, float] | None = None
    """Sides, fractions."""
    pixels: tuple[float, float, float, float] | None = None
    """Corner, width, height."""
    sure: float | None = None
    color: str = ""
    plate: Plate | None = None
    model: str = ""
    removed: tuple[str, ...] = ()


class Scene(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One frame."""

    at: str = ""
    tick: str = ""
    """Digest of the stream's own clock: parts the frames of one second."""
    camera: str = ""
    size: tuple[int, int] | None = None
    things: tuple[Thing, ...] = ()
    broken: tuple[int, ...] = ()


def cut(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:  # noqa: ARG001
    """Cut a frame down. Raises `Rejected`: not of gvametaconvert."""
    tree = read_object(payload)
    given = tree.get("objects")
    given = [given] if isinstance(given, dict) else [] if given is None else given
    framed = bool({"resolution", "timestamp", "system_timestamp", "source"} & tree.keys())
    framed = framed or any(isinstance(one, dict) and {"detection", "roi_type"} & one.keys() for one in many(given))
    if not isinstance(given, list) or not framed:
        raise Rejected(QuarantineReason.SCHEMA, "JSON, but no frame of gvametaconvert")
    if len(given) > OBJECTS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {OBJECTS_MAX} objects")
    sieve = Telling(veil, arrival, _NAMES)
    head = sieve.object({name: value for name, value in tree.items() if name != "objects"}, HEAD)
    at = head.get("system_timestamp", "")
    if at and (found := parse_iso(at)) is not None:
        sieve.at = found[0]
    of_all = sieve.told().get("removed", [])
    tags = head.get("tags", {})
    size = head.get("resolution", {})
    things: list[Thing] = []
    broken: list[int] = []
    for place, one in enumerate(given):
        if not isinstance(one, dict):
            broken.append(place)
            continue
        inner = Telling(veil, sieve.at, _NAMES)
        thing = _thing(one, inner)
        add(sieve, inner)
        things.append(msgspec.structs.replace(thing, removed=tuple(sorted({*inner.removed, *of_all}))))
    scene = Scene(
        at=at,
        tick=head.get("timestamp", ""),
        camera=next((tags[name] for name in _CAMERAS if name in tags), head.get("source", "")),
        size=(int(size["width"]), int(size["height"])) if len(size) == 2 else None,
        things=tuple(things),
        broken=tuple(broken),
    )
    return sieve.cut(scene)


def _thing(one: dict[str, Any], sieve: Telling) -> Thing:
    kept = sieve.object(
        {name: value for name, value in one.items() if not _is_attribute(name, value)}, OBJECT, "objects"
    )
    label, color, read = "", "", None
    for name, value in one.items():
        if not _is_attribute(name, value):
            continue
        said = value["label"]
        if name in _COLORS and (word := codes.color(NAME, said)):
            color = word
        elif name in _TYPES and (kind := codes.seen_as(NAME, said))[1]:
            label = f"{kind[0]}:{kind[1]}"
        else:
            sieve.out(f"objects.{name}", said)
            if name in _PLATES and (hidden := plate(said, sieve)) is not GONE:
                read = Plate(**hidden, confidence=_number(value.get("confidence"), sieve))
    detection = kept.get("detection", {})
    box = detection.get("bounding_box", {})
    label = label or detection.get("label") or kept.get("roi_type", "")
    return Thing(
        id=kept.get("id", ""),
        label=label,
        box=(box["x_min"], box["y_min"], box["x_max"], box["y_max"]) if len(box) == 4 else None,
        pixels=(kept["x"], kept["y"], kept["w"], kept["h"]) if all(name in kept for name in _PIXELS) else None,
        sure=detection.get("confidence"),
        color=color,
        plate=read,
        model=detection.get("model", {}).get("name", ""),
    )


def _is_attribute(name: str, value: Any) -> bool:
    """Return whether a member of an object is what a classifier says of it."""
    return name not in OBJECT and isinstance(value, dict) and isinstance(value.get("label"), str)


def _number(value: Any, sieve: Sieve) -> float | None:
    found = _SURE(value, sieve)
    return None if found is GONE else float(found)


def see(payload: bytes, topic: str, arrival: int, camera: Camera) -> Seen:  # noqa: ARG001
    """Return what a frame reports."""
    scene = typed(payload, Scene)
    at, quality = (parse_iso(scene.at, camera.zone) if scene.at else None) or received(arrival)
    found = []
    for index, one in enumerate(scene.things):
        box, box_quality = _box(one, scene.size)
        cls, kind = classes(one.label)
        found.append(
            VideoObservation(
                id=identity(NAME, scene.camera, scene.tick, scene.at, one.id or (index, one.box)),
                kind=Kind.OBSERVATION,
                camera=scene.camera,
                observed_at=at,
                time_quality=quality,
                format=NAME,
                object_class=cls,
                subclass=kind,
                track=one.id,
                box=box,
                box_quality=box_quality,
                image_size=scene.size,
                confidence=one.sure,
                plate=one.plate,
                color=one.color,
                analytics=one.model,
                removed=one.removed,
            )
        )
    refused = tuple(Refusal(place, "wrong_type", "no object") for place in scene.broken)
    return Seen(tuple(found), refused=refused, ignored=0 if found or refused else 1)


def _box(one: Thing, size: tuple[int, int] | None) -> boxes.Found | tuple[None, None]:
    if one.box is not None:
        return boxes.unit(*one.box)
    if one.pixels is None:
        return None, None
    left, top, width, height = one.pixels
    return boxes.pixels(left, top, left + width, top + height, *(size or (0, 0)))


FORMAT = VideoFormat(NAME, cut, see)
