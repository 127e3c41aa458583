"""Messages of the simulated cameras in GA/T 1400 and ONVIF, each with the readings expected from it.

Every camera has quirks by its number: strings for numbers, other spellings of keys, GBK, a single object without its
list, local times of several forms. Names, plates and pictures contain `CANARY_WORD`, which must not appear in any
output.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import msgspec

from sensegate.demo.judge import CANARY_WORD

SECOND = 1_000_000
ZONE_S = 8 * 3600
OBSERVATION = "video_observation"
PICTURE = base64.b64encode(CANARY_WORD.encode() * 300).decode()
COLORS = {1: "black", 2: "white", 3: "grey", 4: "red", 5: "blue", 6: "yellow"}

Values = list[tuple[str, object]]
"""(property, expected value) of each reading."""


class SimulatedCamera(msgspec.Struct, frozen=True):
    """A registered camera."""

    id: str
    node: str
    division: str
    transport: str
    number: int
    password: str = ""


# ── GA/T 1400 ────────────────────────────────────────────────────────────────────────────────────────


def format_local(at: int, form: int) -> str:
    """Return the Beijing time of µs UTC in one of the forms that cameras use."""
    seconds = at // SECOND
    moment = time.gmtime(seconds + ZONE_S)
    match form % 3:
        case 1:
            return time.strftime("%Y-%m-%d %H:%M:%S", moment)
        case 2:
            return str(seconds * 1000)
        case _:
            return time.strftime("%Y%m%d%H%M%S", moment)


class ReportedObject(NamedTuple):
    """A reported vehicle or person."""

    native: str
    fields: dict[str, Any]
    expected: dict[str, object]
    """Members that the decoded observation must have."""
    speed: int = 0
    """km/h, for a vehicle: a reading of its lane."""
    lane: int = 0

    @property
    def values(self) -> Values:
        """Return all readings that must be decoded from the message."""
        readings: Values = [(OBSERVATION, self.expected)]
        return [*readings, (f"vehicle_speed#lane{self.lane}", self.speed)] if self.speed else readings


def reported_object(
    camera: SimulatedCamera, at: int, sequence: int, lane: int, kind: str = "MotorVehicle"
) -> ReportedObject:
    """Return an object as sent, with its expected readings; its name and plate must not be among them."""
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(at // SECOND + ZONE_S))
    source = f"{camera.id}02{stamp}{sequence % 100_000:05d}"
    native = f"{source}{'02' if kind == 'MotorVehicle' else '01'}{lane:05d}"
    number: Callable[[int], object] = str if camera.number % 4 == 1 else int
    times = format_local(at, camera.number // 3)
    fields: dict[str, Any] = {
        f"{kind}ID": native,
        "InfoKind": number(1),
        "SourceID": source,
        "DeviceID": camera.id,
        "LeftTopX": number(192),
        "LeftTopY": number(108),
        "RightBtmX": number(960),
        "RightBtmY": number(540),
        "SubImageList": {
            "SubImageInfoObject": [
                {
                    "ImageID": source,
                    "Type": "14",
                    "FileFormat": "Jpeg",
                    "ShotTime": times,
                    "Width": number(1920),
                    "Height": number(1080),
                    "StoragePath": f"http://10.0.0.1/{CANARY_WORD}.jpg",
                    **({"Data": PICTURE} if camera.number % 5 == 0 else {}),
                }
            ]
        },
    }
    seen: dict[str, object] = {"kind": "observation", "native_id": native, "box": [0.1, 0.1, 0.5, 0.5], "images": 1}
    if kind == "MotorVehicle":
        color, speed = sequence % 6 + 1, 18 * (sequence % 5 + 1)
        fields |= {
            "PassTime": times,
            "LaneNo": number(lane),
            "HasPlate": "1",
            "PlateNo": f"粤B{CANARY_WORD}{sequence % 1000:03d}",
            "PlateColor": "5",
            "VehicleColor": str(color),
            "Speed": number(speed),
            "VehicleBrand": "",
        }
        seen |= {"object_class": "vehicle", "lane": lane, "color": COLORS[color], "speed": speed / 3.6}
        seen["speed"] = round(speed / 3.6, 3)
    else:
        fields |= {
            "PersonAppearTime": times,
            "Name": f"{CANARY_WORD}-李雷",
            "IDNumber": f"{CANARY_WORD}110101199003074219",
        }
        fields |= {"GenderCode": "1", "AgeUpLimit": 0, "AgeLowerLimit": 0}
        seen |= {"object_class": "person"}
    return ReportedObject(native, fields, seen, speed if kind == "MotorVehicle" else 0, lane)


def encode_envelope(camera: SimulatedCamera, kind: str, objects: Sequence[dict[str, Any]], *, odd: bool) -> bytes:
    """Encode a body; `odd`: in a form that this camera does not normally use."""
    form = camera.number // 3 + odd
    body: object = list(objects)
    if len(objects) == 1 and form % 4 == 2:
        body = objects[0]
    envelope: dict[str, Any] = {f"{kind}ListObject": {f"{kind}Object": body}}
    if form % 4 == 3:
        envelope = _lower(envelope)
    text = json.dumps(envelope, ensure_ascii=False, separators=(",", ":") if form % 2 else None)
    return text.encode("gbk" if camera.number % 7 == 3 else "utf-8")


def _lower(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name[:1].lower() + name[1:]: _lower(value) for name, value in tree.items()}
    return [_lower(element) for element in tree] if isinstance(tree, list) else tree


def video_label(camera: SimulatedCamera, at: int, sequence: int) -> tuple[dict[str, Any], Values]:
    """Return a camera's counts, and the expected readings."""
    people, vehicles, flow = sequence * 3 % 40, sequence * 7 % 25, 60 * (sequence % 20)
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(at // SECOND + ZONE_S))
    fields = {
        "VideoLabelID": f"{camera.id}02{stamp}{sequence % 100_000:05d}0700001",
        "DeviceID": camera.id,
        "EventSort": "14",
        "CreateTimeAbs": stamp,
        "PersonNum": people,
        "VehicleNum": str(vehicles),
        "VehicleFlowRate": flow,
    }
    return fields, [("people_present", people), ("vehicles_present", vehicles), ("traffic_flow", flow)]


# ── ONVIF ────────────────────────────────────────────────────────────────────────────────────────────


def format_utc(at: int, *, naive: bool) -> str:
    """Return UTC, with or without the letter Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // SECOND)) + ("" if naive else "Z")


def onvif_frame(camera: SimulatedCamera, sequence: int, count: int) -> tuple[list[dict[str, Any]], Values]:
    """Return the objects of a frame with their sides as sent, and the expected reading of each."""
    pixels = camera.number % 2 == 0
    things, values = [], Values()
    for index in range(count):
        left, top = 0.125 * (index % 4), 0.25
        box = [left, top, left + 0.25, top + 0.5]
        sides = (
            [box[0] * 640, (1 - box[1]) * 480, box[2] * 640, (1 - box[3]) * 480]
            if pixels
            else [box[0] * 2 - 1, 1 - box[1] * 2, box[2] * 2 - 1, 1 - box[3] * 2]
        )
        person = index % 2 == 1
        number = sequence * 10 + index
        things.append({"id": number, "sides": sides, "class": "Human" if person else "Vehicle", "person": person})
        seen = {
            "kind": "observation",
            "track": str(number),
            "object_class": "person" if person else "vehicle",
            "box": box,
        }
        values.append((OBSERVATION, {**seen, "confidence": 0.75}))
    return things, values


def encode_json_frame(camera: SimulatedCamera, at: int, things: Sequence[dict[str, Any]], *, odd: bool) -> bytes:
    """Encode a frame as ``onvif-mj``."""
    text: Callable[[float], object] = str if (camera.number // 3) % 2 else float
    objects = []
    for item in things:
        left, top, right, bottom = map(text, item["sides"])
        appearance: dict[str, Any] = {
            "Shape": {"BoundingBox": {"@left": left, "@top": top, "@right": right, "@bottom": bottom}},
            "Class": {"Type": {"@Likelihood": text(0.75), "#text": item["class"]}},
        }
        if item["person"]:
            appearance["HumanFace"] = {"Gender": "Male", "acme:Name": CANARY_WORD}
            appearance["Image"] = PICTURE
        objects.append({"@ObjectId": item["id"], "Appearance": appearance})
    frame_body: dict[str, Any] = {"@UtcTime": format_utc(at, naive=camera.number % 4 < 2), "@Source": "Module1"}
    if camera.number % 2 == 0:
        frame_body["Transformation"] = {"Translate": {"@x": -1, "@y": -1}, "Scale": {"@x": 2 / 640, "@y": 2 / 480}}
    frame_body["Object"] = objects[0] if len(objects) == 1 else objects
    return json.dumps({"Frame": [frame_body]}, indent=1 if odd else None).encode()


def encode_xml_frame(camera: SimulatedCamera, at: int, things: Sequence[dict[str, Any]], *, odd: bool) -> bytes:
    """Encode a frame as ``tt:MetadataStream``."""
    mark, end = ("onvif", "\n") if odd else ("tt", "")
    objects = ""
    for item in things:
        names = ("left", "top", "right", "bottom")
        sides = " ".join(f"{name}={quoteattr(str(side))}" for name, side in zip(names, item["sides"], strict=True))
        person = f"<{mark}:Image>{PICTURE}</{mark}:Image>" if item["person"] else ""
        objects += (
            f'<{mark}:Object ObjectId="{item["id"]}"><{mark}:Appearance><{mark}:Shape><{mark}:BoundingBox {sides}/>'
            f'</{mark}:Shape><{mark}:Class><{mark}:Type Likelihood="0.75">{item["class"]}</{mark}:Type></{mark}:Class>'
            f"{person}</{mark}:Appearance></{mark}:Object>{end}"
        )
    change = ""
    if camera.number % 2 == 0:
        change = (
            f'<{mark}:Transformation><{mark}:Translate x="-1" y="-1"/><{mark}:Scale x="{2 / 640}" y="{2 / 480}"/>'
            f"</{mark}:Transformation>"
        )
    moment = format_utc(at, naive=camera.number % 4 < 2)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><{mark}:MetadataStream xmlns:{mark}="http://www.onvif.org/ver10/schema">'
        f'<{mark}:VideoAnalytics><{mark}:Frame UtcTime="{moment}">{change}{objects}'
        f"</{mark}:Frame></{mark}:VideoAnalytics></{mark}:MetadataStream>"
    ).encode()


def motion_alarm(at: int, sequence: int) -> tuple[bytes, Values]:
    """Return a motion alarm as ``onvif-ej``, alternately starting and ending, and its expected readings."""
    state = sequence % 2 == 0
    data = {"UtcTime": format_utc(at, naive=False), "Source": {"Source": "VideoSource_1"}, "Data": {"State": state}}
    event = {"kind": "event", "event": {"type": "motion", "state": state}}
    return json.dumps(data).encode(), [(OBSERVATION, event), ("motion", state)]
