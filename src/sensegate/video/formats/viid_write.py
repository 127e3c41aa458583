"""Conversion of observations to GA/T 1400 objects for platforms above; observations hold nothing personal.

The objects read back (`viid_redaction`, `viid`) as the same observation. A number plate is sent as its pseudonym.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sensegate.video import codes
from sensegate.video.formats import viid_ids as ids
from sensegate.video.formats.viid_responses import format_beijing
from sensegate.video.observation import ObjectClass, ObservationKind, VideoObservation

MAKE: Final = "gat1400"
GRID: Final = 8192
"""Range of box coordinates for images of unknown size."""
KINDS: Final = {
    ObjectClass.VEHICLE: "MotorVehicle",
    ObjectClass.NONMOTOR: "NonMotorVehicle",
    ObjectClass.PERSON: "Person",
    ObjectClass.FACE: "Face",
    ObjectClass.THING: "Thing",
    ObjectClass.SCENE: "Scene",
}
_TIMES: Final = {
    "MotorVehicle": "PassTime",
    "NonMotorVehicle": "PassTime",
    "Person": "PersonAppearTime",
    "Face": "FaceAppearTime",
    "Thing": "AppearTime",
    "Scene": "AppearTime",
}
_SEQUENCES: Final = 10**10


class ViidObject(NamedTuple):
    """An object to be sent."""

    kind: str
    id: str
    camera: str
    """Code of the camera at the receiver."""
    fields: dict[str, Any]


def _codes_by_word(table: str) -> dict[str, str]:
    """Return word -> code; of several codes the shortest, then the first."""
    codes_by_word: dict[str, str] = {}
    for code, word in codes.WORDS.get((table, MAKE), {}).items():
        if word not in codes_by_word or len(code) < len(codes_by_word[word]):
            codes_by_word[word] = code.upper()
    return codes_by_word


_COLORS: Final = _codes_by_word("color")
_VEHICLES: Final = _codes_by_word("vehicle")
_HEADINGS: Final = {float(word): code for word, code in _codes_by_word("heading").items()}
_EVENTS: Final = _codes_by_word("event")


def to_viid_object(seen: VideoObservation, camera: str) -> ViidObject | None:
    """Convert an observation; `camera`: its code. None if the standard has no object for it."""
    kind = KINDS.get(seen.object_class) if seen.object_class is not None else None
    if kind is None or seen.kind is not ObservationKind.OBSERVATION or not ids.is_device(camera):
        return None
    at = seen.observed_at // 1_000
    local = format_beijing(seen.observed_at)
    native = seen.native_id
    if len(native) != ids.CONTENT_ID or ids.basic_id_time(native[: ids.BASIC_ID]) is None:
        native = ids.make_content_id(camera, kind, local, int(seen.id[:12], 16) % _SEQUENCES)
    fields: dict[str, Any] = {
        f"{kind}ID": native,
        "InfoKind": 1,
        "SourceID": native[: ids.BASIC_ID],
        "DeviceID": camera,
        _TIMES[kind]: local if at % 1_000 == 0 else f"{local}{at % 1_000:03d}",
    }
    image: dict[str, Any] = {}
    if seen.box is not None:
        width, height = seen.image_size or (GRID, GRID)
        left, top, right, bottom = seen.box
        fields |= {
            "LeftTopX": _side(left, width),
            "LeftTopY": _side(top, height),
            "RightBtmX": _side(right, width),
            "RightBtmY": _side(bottom, height),
        }
        image |= {"Width": width, "Height": height}
    if seen.event is not None and (sort := _EVENTS.get(seen.event.type)):
        fields["EventSort"] = int(sort)
    if image:
        fields["SubImageList"] = {"SubImageInfoObject": [{"Type": "14", "DeviceID": camera, **image}]}
    if seen.similarity is not None:
        fields["Similaritydegree"] = seen.similarity
    if kind in {"MotorVehicle", "NonMotorVehicle"}:
        fields |= _vehicle_fields(seen, kind)
    return ViidObject(kind, native, camera, fields)


def _side(part: float, size: int) -> float:
    """Return a side in pixels, as an integer where it is one."""
    side = part * size
    return round(side) if abs(side - round(side)) < size * 1e-6 else round(side, 3)


def _vehicle_fields(seen: VideoObservation, kind: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if seen.lane is not None:
        fields["LaneNo"] = seen.lane
    if seen.speed is not None:
        fields["Speed"] = round(seen.speed * 3.6, 2)
    if seen.heading is not None and (code := _HEADINGS.get(seen.heading)):
        fields["Direction"] = code
    if code := _VEHICLES.get(seen.subclass):
        fields["VehicleClass" if kind == "MotorVehicle" else "VehicleType"] = code
    if code := _COLORS.get(seen.color):
        fields["VehicleColor"] = code
    fields |= {
        name: word
        for name, word in (("VehicleBrand", seen.brand), ("VehicleModel", seen.model))
        if word.isascii() and word.isalnum() and len(word) <= 5
    }
    plate = seen.plate
    fields["HasPlate"] = "1" if plate is not None and plate.token else "0"
    if plate is not None:
        fields["PlateToken"], fields["PlateRegion"] = plate.token, plate.region
        if code := _COLORS.get(plate.color):
            fields["PlateColor"] = code
        if plate.plate_class:
            fields["PlateClass"] = plate.plate_class
        if plate.confidence is not None:
            fields["PlateReliability"] = str(round(plate.confidence * 100))
    return {name: value for name, value in fields.items() if value != ""}


def with_peer_camera(viid_object: ViidObject, ids_there: dict[str, str]) -> ViidObject:
    """Return an object with the code of its camera at another platform."""
    peer_camera = ids_there.get(viid_object.camera[: ids.DEVICE])
    if peer_camera is None:
        return viid_object
    camera = peer_camera + viid_object.camera[ids.DEVICE :]
    fields = {**viid_object.fields, "DeviceID": camera}
    own = viid_object.camera[: ids.DEVICE]
    names = [name for name in (f"{viid_object.kind}ID", "SourceID") if fields[name].startswith(own)]
    fields |= {name: peer_camera + fields[name][ids.DEVICE :] for name in names}
    return ViidObject(viid_object.kind, fields[f"{viid_object.kind}ID"], camera, fields)
