"""ONVIF: objects of a frame, cut down to what may be kept. The tree is that of `xmlsafe.tree` or of ``onvif-mj``.

Of people only class, box, time and track stay; faces, bodies, colours of clothes and places on the map do not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from sensegate.video import codes, countries
from sensegate.video.boxes import Transform
from sensegate.video.format import Veil
from sensegate.video.formats.onvif_records import Change, Frame, Thing
from sensegate.video.observation import ObjectClass, Plate
from sensegate.video.times import parse_iso
from sensegate.video.values import Node, clear_plate, many, named, node, number, place, region, rest, take, text, whole

OBJECTS_MAX: Final = 10_000
"""Of one message; more belong to no camera."""
PEOPLE: Final = frozenset({ObjectClass.PERSON.value, ObjectClass.FACE.value})
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_ID = re.compile(r"\d{1,10}", re.ASCII)
"""A number of 32 bits; one of a telephone is longer."""
_BOUND: Final = 1e9

_FRAME: Final = frozenset({"@UtcTime", "@Source", "@Colorspace", "@context", "Transformation", "Object", "ObjectTree"})
_OBJECT: Final = frozenset({"@ObjectId", "@UUID", "@Parent", "@ParentUUID", "Appearance", "Behaviour", "Extension"})
_APPEARANCE: Final = frozenset({"Transformation", "Shape", "Class", "GeoLocation", "VehicleInfo", "LicensePlateInfo"})
_SHAPE: Final = frozenset({"BoundingBox", "CenterOfGravity", "Polygon"})
"""The last two say nothing that the box does not; they are left out, and are nobody's secret."""
_BEHAVIOUR: Final = frozenset({"Removed", "Idle", "Speed", "Direction"})
_VEHICLE: Final = frozenset({"Type", "Brand", "Color"})
_PLATE: Final = frozenset({"PlateNumber", "PlateType", "CountryCode", "Color"})
_PICTURES: Final = ("Image", "ImageRef", "SceneImage", "SceneImageRef")

Removed = dict[str, int]


@lru_cache(maxsize=512)
def seen_as(label: str) -> tuple[str, str]:
    """Return what a type means: class, and kind of vehicle."""
    found, kind = codes.seen_as("onvif", label)
    return found.value, kind


def id_of(value: Any, veil: Veil) -> str:
    """Return an object's id: a number as it is, else its pseudonym."""
    word = text(value)
    return word if not word or _ID.fullmatch(word) else veil.word(word)


def _uuid(value: Any, veil: Veil) -> str:
    word = text(value)
    return word.lower() if not word or _UUID.fullmatch(word) else veil.word(word)


_NOWHERE: Final = Transform(1.0, 1.0, 1e12, 1e12)
"""In place of a transformation that cannot be read: whatever it is applied to lies outside of the image."""


def transform_of(value: Any) -> Transform | None:
    """Return a Transformation, `_NOWHERE` for one that cannot be read; None where there is none."""
    outer = node(value)
    if not outer:
        return None
    scale, translate = node(outer.get("Scale")), node(outer.get("Translate"))
    scale_x, scale_y = _axis(scale, "@x", 1.0), _axis(scale, "@y", 1.0)
    translate_x, translate_y = _axis(translate, "@x", 0.0), _axis(translate, "@y", 0.0)
    if scale_x is None or scale_y is None or translate_x is None or translate_y is None:
        return _NOWHERE
    return Transform(scale_x, scale_y, translate_x, translate_y)


def _axis(of: Node, name: str, default: float) -> float | None:
    return number(of[name], -_BOUND, _BOUND) if name in of else default


def pictures(where: str, members: Node, removed: Removed) -> int:
    """Count the pictures of a node, which are all taken out."""
    found = 0
    for name in _PICTURES:
        if name in members:
            count = len(many(members[name]))
            take(f"{where}.{name}", removed, count)
            found += count
    return found


def class_of(value: Any) -> tuple[str, str, float | None]:
    """Return (class, kind of vehicle, likelihood) of the likeliest type; a type without likelihood is certain."""
    members = node(value)
    best: tuple[str, float] | None = None
    for one in many(members.get("Type")):
        sure = number(one.get("@Likelihood", 1.0), 0, 1) if isinstance(one, dict) else 1.0
        best = _better(best, text(one), sure)
    for name in ("ClassCandidate", "Extension"):
        for outer in many(members.get(name)):
            inner = many(node(outer).get("OtherTypes")) if name == "Extension" else [outer]
            for candidate in inner:
                of = node(candidate)
                best = _better(best, text(of.get("Type")), number(text(of.get("Likelihood")) or 1.0, 0, 1))
    if best is None:
        return "", "", None
    return *seen_as(best[0]), best[1]


def _better(best: tuple[str, float] | None, label: str, sure: float | None) -> tuple[str, float] | None:
    if not label or (best is not None and best[1] >= (sure or 0.0)):
        return best
    return label, sure or 0.0


def plate_of(value: Any, at: int, veil: Veil, removed: Removed) -> tuple[Plate | None, int]:
    """Return a LicensePlateInfo without its number, and how many pictures it had."""
    members = node(value)
    images = pictures("LicensePlateInfo", members, removed)
    rest("LicensePlateInfo", members, _PLATE.union(_PICTURES), removed)
    written = text(members.get("PlateNumber"))
    if not written:
        return None, images
    take("LicensePlateInfo.PlateNumber", removed)
    country = countries.alpha_2(text(members.get("CountryCode")))
    kind = text(members.get("PlateType"))
    plate = Plate(
        token=veil.plate(written, at),
        number=clear_plate(written, veil),
        region=region(written) or ("" if country == "CN" else country),
        color=codes.color("onvif", text(members.get("Color"))),
        plate_class=codes.plate_class("onvif", kind) if kind and country in {"CN", ""} and region(written) else "",
        confidence=_likelihood(members.get("PlateNumber")),
    )
    return plate, images


def _likelihood(value: Any) -> float | None:
    outer = many(value)[0] if many(value) else None
    return number(outer.get("@Likelihood", 1.0), 0, 1) if isinstance(outer, dict) else 1.0


def vehicle_of(value: Any, removed: Removed) -> tuple[str, str, str, int]:
    """Return (kind, colour, brand, pictures) of a VehicleInfo."""
    members = node(value)
    images = pictures("VehicleInfo", members, removed)
    rest("VehicleInfo", members, _VEHICLE.union(_PICTURES), removed)
    kind = codes.vehicle("onvif", text(members.get("Type")))
    color = codes.color("onvif", text(members.get("Color")))
    brand = codes.word("brand", "onvif", text(members.get("Brand"))) or ""
    for name, found in (("Type", kind), ("Color", color), ("Brand", brand)):
        if not found and text(members.get(name)):
            take(f"VehicleInfo.{name}", removed)
    return kind, color, brand, images


def _place(value: Any) -> tuple[float, float, float | None] | None:
    members = node(value)
    found = place(number(members.get("@lon"), -180, 180), number(members.get("@lat"), -180, 180))
    if found is None:
        return None
    return *found, number(members.get("@elevation"), -12_000, 100_000)


def _lane(extension: Any) -> int | None:
    for one in many(node(node(extension).get("Properties")).get("Property")):
        if isinstance(one, dict) and one.get("@name") == "Lane":
            return whole(text(one), 0, 99)
    return None


def _foreign(extension: Any, removed: Removed) -> None:
    """Count what vendors put beside the standard: all but the lane."""
    members = node(extension)
    rest("Extension", members, frozenset({"Properties"}), removed)
    properties = node(members.get("Properties"))
    rest("Properties", properties, frozenset({"Property"}), removed)
    if others := [one for one in many(properties.get("Property")) if node(one).get("@name") != "Lane"]:
        take("Properties.Property", removed, len(others))


def thing_of(value: Any, index: int, at: int, outer: Transform | None, veil: Veil, total: Removed) -> Thing | None:  # noqa: PLR0917
    """Return an Object as it may be kept, None where it is none; what was taken out is added to `total`."""
    if not isinstance(value, dict):
        return None
    removed: Removed = {}
    rest("Object", value, _OBJECT, removed)
    looks, does = node(value.get("Appearance")), node(value.get("Behaviour"))
    images = 0
    if looks.keys() - _APPEARANCE:
        images = pictures("Appearance", looks, removed)
        rest("Appearance", looks, _APPEARANCE.union(_PICTURES), removed)
    cls, sub, sure = class_of(looks["Class"]) if "Class" in looks else ("", "", None)
    color = brand = ""
    plate = None
    if "VehicleInfo" in looks:
        kind, color, brand, more = vehicle_of(looks["VehicleInfo"], removed)
        sub, images = kind or sub, images + more
    if "LicensePlateInfo" in looks:
        plate, more = plate_of(looks["LicensePlateInfo"], at, veil, removed)
        images += more
    if not cls:
        cls = _implied(looks)
    place = None
    if "GeoLocation" in looks:
        if cls in PEOPLE or not cls:
            take("Appearance.GeoLocation", removed)
        else:
            place = _place(looks["GeoLocation"])
    box = None
    mapped = outer
    if "Shape" in looks:
        shape = node(looks["Shape"])
        rest("Shape", shape, _SHAPE, removed)
        box = _box(node(shape.get("BoundingBox")))
        if (inner := transform_of(looks.get("Transformation"))) is not None:
            mapped = inner if outer is None else inner.inside(outer)
    rest("Behaviour", does, _BEHAVIOUR, removed)
    extension = value.get("Extension")
    if extension is not None:
        _foreign(extension, removed)
    for name, count in removed.items():
        total[name] = total.get(name, 0) + count
    uuid = _uuid(value.get("@UUID"), veil)
    return Thing(
        id=id_of(value.get("@ObjectId"), veil) or uuid or f"#{index}",
        uuid=uuid,
        parent=id_of(value.get("@Parent"), veil) or _uuid(value.get("@ParentUUID"), veil),
        cls=cls,
        sub=sub,
        sure=sure,
        box=box,
        map=None if box is None or mapped is None else (mapped[0], mapped[1], mapped[2], mapped[3]),
        gone="Removed" in does,
        speed=number(text(does.get("Speed")), 0, 1_000) if "Speed" in does else None,
        yaw=number(node(does.get("Direction")).get("@yaw"), -360, 360) if "Direction" in does else None,
        place=place,
        lane=_lane(extension) if extension is not None else None,
        color=color,
        brand=brand,
        plate=plate,
        images=images,
        removed=tuple(sorted(removed)),
    )


def _implied(looks: Node) -> str:
    """Return the class that an object without one has by what is said of it."""
    for name, found in (
        ("LicensePlateInfo", ObjectClass.PLATE),
        ("VehicleInfo", ObjectClass.VEHICLE),
        ("HumanFace", ObjectClass.FACE),
        ("HumanBody", ObjectClass.PERSON),
    ):
        if name in looks:
            return found.value
    return ""


def _box(of: Node) -> tuple[float, float, float, float] | None:
    left, top = number(of.get("@left"), -_BOUND, _BOUND), number(of.get("@top"), -_BOUND, _BOUND)
    right, bottom = number(of.get("@right"), -_BOUND, _BOUND), number(of.get("@bottom"), -_BOUND, _BOUND)
    if left is None or top is None or right is None or bottom is None:
        return None
    return left, top, right, bottom


def _changes(value: Any, veil: Veil) -> tuple[Change, ...]:
    """Return what ObjectTrees say: a track that is renamed, split or merged ends, and others begin that come of it."""
    found: dict[str, Change] = {}

    def ids(outer: Node, name: str) -> list[str]:
        return [word for one in many(outer.get(name)) if (word := id_of(node(one).get("@ObjectId"), veil))]

    def passes(sources: list[str], targets: list[str]) -> None:
        for one in targets:
            if one not in sources:
                found[one] = Change(id=one, began=True, parent=sources[0] if sources else "")
        for one in sources:
            if one not in targets:
                found[one] = Change(id=one, began=False)

    for tree in many(value):
        members = node(tree)
        for name in ("Rename", "Split", "Merge"):
            for one in many(members.get(name)):
                passes(ids(node(one), "from"), ids(node(one), "to"))
        for one in ids(members, "Delete"):
            found[one] = Change(id=one, began=False)
    return tuple(found.values())


def frame_of(value: Any, veil: Veil, total: Removed) -> Frame | None:
    """Return a Frame as it may be kept, None where it is none."""
    if not isinstance(value, dict):
        return None
    pictures("Frame", value, total)
    if value.keys() - _FRAME:
        rest("Frame", value, _FRAME.union(_PICTURES), total)
    moment = parse_iso(text(value.get("@UtcTime")))
    at = moment[0] if moment else None
    outer = transform_of(value.get("Transformation"))
    things: list[Thing] = []
    broken = 0
    for index, one in enumerate(many(value.get("Object"))):
        thing = thing_of(one, index, at or 0, outer, veil, total)
        if thing is None:
            broken += 1
        else:
            things.append(thing)
    return Frame(
        at=at,
        source=named(value.get("@Source"), veil),
        things=tuple(things),
        changes=_changes(value["ObjectTree"], veil) if "ObjectTree" in value else (),
        broken=broken,
    )
