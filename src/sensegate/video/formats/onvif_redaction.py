"""ONVIF: redaction of the objects of a frame. The tree is that of `xmlsafe.tree` or of ``onvif-mj``.

Of people only class, box, time and track are kept; faces, bodies, clothing colours and locations are removed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from sensegate.video import codes, countries
from sensegate.video.boxes import Transform
from sensegate.video.format import Pseudonymiser
from sensegate.video.formats.onvif_records import OnvifFrame, OnvifObject, TrackChange
from sensegate.video.observation import ObjectClass, Plate
from sensegate.video.times import parse_iso
from sensegate.video.values import (
    Node,
    Removed,
    as_list,
    clear_plate,
    coordinates,
    count_removed,
    count_removed_members,
    integer,
    node,
    number,
    plate_region,
    public_name,
    text,
)

OBJECTS_MAX: Final = 10_000
"""Greatest number of objects of one message."""
PEOPLE: Final = frozenset({ObjectClass.PERSON.value, ObjectClass.FACE.value})
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_ID = re.compile(r"\d{1,10}", re.ASCII)
"""A 32-bit number; a telephone number is longer."""
_BOUND: Final = 1e9

_FRAME: Final = frozenset({"@UtcTime", "@Source", "@Colorspace", "@context", "Transformation", "Object", "ObjectTree"})
_OBJECT: Final = frozenset({"@ObjectId", "@UUID", "@Parent", "@ParentUUID", "Appearance", "Behaviour", "Extension"})
_APPEARANCE: Final = frozenset({"Transformation", "Shape", "Class", "GeoLocation", "VehicleInfo", "LicensePlateInfo"})
_SHAPE: Final = frozenset({"BoundingBox", "CenterOfGravity", "Polygon"})
"""The last two add nothing to the box; they are dropped without being counted."""
_BEHAVIOUR: Final = frozenset({"Removed", "Idle", "Speed", "Direction"})
_VEHICLE: Final = frozenset({"Type", "Brand", "Color"})
_PLATE: Final = frozenset({"PlateNumber", "PlateType", "CountryCode", "Color"})
_PICTURES: Final = ("Image", "ImageRef", "SceneImage", "SceneImageRef")


_LABEL_MAX: Final = 64
"""Longest label that is kept once it was read, in characters."""


def object_class(label: str) -> tuple[str, str]:
    """Return (class, kind of vehicle) of a type."""
    return _kept_class(label) if len(label) <= _LABEL_MAX else _class(label)


def _class(label: str) -> tuple[str, str]:
    result, kind = codes.object_class("onvif", label)
    return result.value, kind


_kept_class = lru_cache(maxsize=512)(_class)


def redact_id(value: Any, pseudonymiser: Pseudonymiser) -> str:
    """Return an object's id: a number unchanged, anything else as a pseudonym."""
    word = text(value)
    return word if not word or _ID.fullmatch(word) else pseudonymiser.identifier(word)


def _uuid(value: Any, pseudonymiser: Pseudonymiser) -> str:
    word = text(value)
    return word.lower() if not word or _UUID.fullmatch(word) else pseudonymiser.identifier(word)


_UNREADABLE: Final = Transform(1.0, 1.0, 1e12, 1e12)
"""Replaces an unreadable transformation: it maps everything outside of the image."""


def read_transform(value: Any) -> Transform | None:
    """Return a Transformation, `_UNREADABLE` for an unreadable one, None if there is none."""
    outer = node(value)
    if not outer:
        return None
    scale, translate = node(outer.get("Scale")), node(outer.get("Translate"))
    scale_x, scale_y = _axis(scale, "@x", 1.0), _axis(scale, "@y", 1.0)
    translate_x, translate_y = _axis(translate, "@x", 0.0), _axis(translate, "@y", 0.0)
    if scale_x is None or scale_y is None or translate_x is None or translate_y is None:
        return _UNREADABLE
    return Transform(scale_x, scale_y, translate_x, translate_y)


def _axis(members: Node, name: str, default: float) -> float | None:
    return number(members[name], -_BOUND, _BOUND) if name in members else default


def count_pictures(where: str, members: Node, removed: Removed) -> int:
    """Count the pictures of a node, all of which are removed."""
    total_ = 0
    for name in _PICTURES:
        if name in members:
            count = len(as_list(members[name]))
            count_removed(f"{where}.{name}", removed, count)
            total_ += count
    return total_


def read_class(value: Any) -> tuple[str, str, float | None]:
    """Return (class, kind of vehicle, likelihood) of the likeliest type.

    A type without likelihood goes before others, and has none: the camera did not say how sure it is.
    """
    members = node(value)
    best: tuple[str, float | None, float] | None = None
    beside = as_list(members.get("Likelihood"))
    for index, entry in enumerate(as_list(members.get("Type"))):
        stated = node(entry).get("@Likelihood", beside[index] if index < len(beside) else None)
        best = _likelier(best, text(entry), stated)
    for name in ("ClassCandidate", "Extension"):
        for outer in as_list(members.get(name)):
            inner = as_list(node(outer).get("OtherTypes")) if name == "Extension" else [outer]
            for candidate in inner:
                candidate_members = node(candidate)
                best = _likelier(best, text(candidate_members.get("Type")), candidate_members.get("Likelihood"))
    if best is None:
        return "", "", None
    return *object_class(best[0]), best[1]


def _likelier(
    best: tuple[str, float | None, float] | None, label: str, stated: object
) -> tuple[str, float | None, float] | None:
    """Return the likelier of two types, with its likelihood and its rank."""
    likelihood = number(text(stated), 0, 1)
    rank = 1.0 if not text(stated) else likelihood or 0.0
    if not label or (best is not None and best[2] >= rank):
        return best
    return label, likelihood, rank


def redact_plate(value: Any, at: int, pseudonymiser: Pseudonymiser, removed: Removed) -> tuple[Plate | None, int]:
    """Return a LicensePlateInfo without its number, and its number of pictures."""
    members = node(value)
    images = count_pictures("LicensePlateInfo", members, removed)
    count_removed_members("LicensePlateInfo", members, _PLATE.union(_PICTURES), removed)
    written = text(members.get("PlateNumber"))
    if not written:
        return None, images
    count_removed("LicensePlateInfo.PlateNumber", removed)
    country = countries.alpha_2(text(members.get("CountryCode")))
    kind = text(members.get("PlateType"))
    plate = Plate(
        token=pseudonymiser.plate(written, at),
        number=clear_plate(written, pseudonymiser),
        region=plate_region(written) or ("" if country == "CN" else country),
        color=codes.color("onvif", text(members.get("Color"))),
        plate_class=codes.plate_class("onvif", kind)
        if kind and country in {"CN", ""} and plate_region(written)
        else "",
        confidence=_likelihood(members.get("PlateNumber")),
    )
    return plate, images


def _likelihood(value: Any) -> float | None:
    outer = as_list(value)[0] if as_list(value) else None
    return number(node(outer).get("@Likelihood"), 0, 1)


def redact_vehicle(value: Any, removed: Removed) -> tuple[str, str, str, int]:
    """Return (kind, colour, brand, pictures) of a VehicleInfo."""
    members = node(value)
    images = count_pictures("VehicleInfo", members, removed)
    count_removed_members("VehicleInfo", members, _VEHICLE.union(_PICTURES), removed)
    kind = codes.vehicle("onvif", text(members.get("Type")))
    color = codes.color("onvif", text(members.get("Color")))
    brand = codes.word("brand", "onvif", text(members.get("Brand"))) or ""
    for name, value_ in (("Type", kind), ("Color", color), ("Brand", brand)):
        if not value_ and text(members.get(name)):
            count_removed(f"VehicleInfo.{name}", removed)
    return kind, color, brand, images


def _location(value: Any) -> tuple[float, float, float | None] | None:
    members = node(value)
    location = coordinates(number(members.get("@lon"), -180, 180), number(members.get("@lat"), -180, 180))
    if location is None:
        return None
    return *location, number(members.get("@elevation"), -12_000, 100_000)


def _lane(extension: Any) -> int | None:
    for prop in as_list(node(node(extension).get("Properties")).get("Property")):
        if isinstance(prop, dict) and prop.get("@name") == "Lane":
            return integer(text(prop), 0, 99)
    return None


def _count_vendor_extensions(extension: Any, removed: Removed) -> None:
    """Count vendor extensions as removed, except the lane."""
    members = node(extension)
    count_removed_members("Extension", members, frozenset({"Properties"}), removed)
    properties = node(members.get("Properties"))
    count_removed_members("Properties", properties, frozenset({"Property"}), removed)
    if others := [prop for prop in as_list(properties.get("Property")) if node(prop).get("@name") != "Lane"]:
        count_removed("Properties.Property", removed, len(others))


def redact_object(
    value: Any, index: int, at: int, outer: Transform | None, pseudonymiser: Pseudonymiser, total: Removed
) -> OnvifObject | None:
    """Redact an Object, None if it is malformed; removed fields are added to `total`."""
    if not isinstance(value, dict):
        return None
    removed: Removed = {}
    count_removed_members("Object", value, _OBJECT, removed)
    appearance, behaviour = node(value.get("Appearance")), node(value.get("Behaviour"))
    images = 0
    if appearance.keys() - _APPEARANCE:
        images = count_pictures("Appearance", appearance, removed)
        count_removed_members("Appearance", appearance, _APPEARANCE.union(_PICTURES), removed)
    class_name, sub, confidence = read_class(appearance["Class"]) if "Class" in appearance else ("", "", None)
    color = brand = ""
    plate = None
    if "VehicleInfo" in appearance:
        kind, color, brand, more = redact_vehicle(appearance["VehicleInfo"], removed)
        sub, images = kind or sub, images + more
    if "LicensePlateInfo" in appearance:
        plate, more = redact_plate(appearance["LicensePlateInfo"], at, pseudonymiser, removed)
        images += more
    if not class_name:
        class_name = _implied_class(appearance)
    place = None
    if "GeoLocation" in appearance:
        if class_name in PEOPLE or not class_name:
            count_removed("Appearance.GeoLocation", removed)
        else:
            place = _location(appearance["GeoLocation"])
    box = None
    transform = outer
    if "Shape" in appearance:
        shape = node(appearance["Shape"])
        count_removed_members("Shape", shape, _SHAPE, removed)
        box = _box(node(shape.get("BoundingBox")))
        if (inner := read_transform(appearance.get("Transformation"))) is not None:
            transform = inner if outer is None else inner.within(outer)
    count_removed_members("Behaviour", behaviour, _BEHAVIOUR, removed)
    extension = value.get("Extension")
    if extension is not None:
        _count_vendor_extensions(extension, removed)
    for name, count in removed.items():
        total[name] = total.get(name, 0) + count
    uuid = _uuid(value.get("@UUID"), pseudonymiser)
    return OnvifObject(
        id=redact_id(value.get("@ObjectId"), pseudonymiser) or uuid or f"#{index}",
        uuid=uuid,
        parent=redact_id(value.get("@Parent"), pseudonymiser) or _uuid(value.get("@ParentUUID"), pseudonymiser),
        object_class=class_name,
        subclass=sub,
        confidence=confidence,
        box=box,
        transform=None
        if box is None or transform is None
        else (transform[0], transform[1], transform[2], transform[3]),
        ended="Removed" in behaviour,
        speed=number(text(behaviour.get("Speed")), 0, 1_000) if "Speed" in behaviour else None,
        yaw=number(node(behaviour.get("Direction")).get("@yaw"), -360, 360) if "Direction" in behaviour else None,
        location=place,
        lane=_lane(extension) if extension is not None else None,
        color=color,
        brand=brand,
        plate=plate,
        images=images,
        removed=tuple(sorted(removed)),
    )


def _implied_class(appearance: Node) -> str:
    """Infer the class of an object without one from its members."""
    for name, class_ in (
        ("LicensePlateInfo", ObjectClass.PLATE),
        ("VehicleInfo", ObjectClass.VEHICLE),
        ("HumanFace", ObjectClass.FACE),
        ("HumanBody", ObjectClass.PERSON),
    ):
        if name in appearance:
            return class_.value
    return ""


def _box(sides: Node) -> tuple[float, float, float, float] | None:
    left, top = number(sides.get("@left"), -_BOUND, _BOUND), number(sides.get("@top"), -_BOUND, _BOUND)
    right, bottom = number(sides.get("@right"), -_BOUND, _BOUND), number(sides.get("@bottom"), -_BOUND, _BOUND)
    if left is None or top is None or right is None or bottom is None:
        return None
    return left, top, right, bottom


def _track_changes(value: Any, pseudonymiser: Pseudonymiser) -> tuple[TrackChange, ...]:
    """Return track changes from ObjectTrees: a renamed, split or merged track ends, and the resulting ones start."""
    changes: dict[str, TrackChange] = {}

    def ids(outer: Node, name: str) -> list[str]:
        return [
            word
            for track in as_list(outer.get(name))
            if (word := redact_id(node(track).get("@ObjectId"), pseudonymiser))
        ]

    def passes(sources: list[str], targets: list[str]) -> None:
        for target in targets:
            if target not in sources:
                changes[target] = TrackChange(id=target, began=True, parent=sources[0] if sources else "")
        for source in sources:
            if source not in targets:
                changes[source] = TrackChange(id=source, began=False)

    for tree in as_list(value):
        members = node(tree)
        for name in ("Rename", "Split", "Merge"):
            for change in as_list(members.get(name)):
                passes(ids(node(change), "from"), ids(node(change), "to"))
        for deleted in ids(members, "Delete"):
            changes[deleted] = TrackChange(id=deleted, began=False)
    return tuple(changes.values())


def redact_frame(value: Any, pseudonymiser: Pseudonymiser, total: Removed) -> OnvifFrame | None:
    """Redact a Frame, None if it is malformed."""
    if not isinstance(value, dict):
        return None
    count_pictures("Frame", value, total)
    if value.keys() - _FRAME:
        count_removed_members("Frame", value, _FRAME.union(_PICTURES), total)
    moment = parse_iso(text(value.get("@UtcTime")))
    at = moment[0] if moment else None
    outer = read_transform(value.get("Transformation"))
    things: list[OnvifObject] = []
    broken = 0
    for index, raw in enumerate(as_list(value.get("Object"))):
        item = redact_object(raw, index, at or 0, outer, pseudonymiser, total)
        if item is None:
            broken += 1
        else:
            things.append(item)
    return OnvifFrame(
        time=at,
        source=public_name(value.get("@Source"), pseudonymiser),
        objects=tuple(things),
        changes=_track_changes(value["ObjectTree"], pseudonymiser) if "ObjectTree" in value else (),
        invalid=broken,
    )
