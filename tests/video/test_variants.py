"""Files of the same families, written anew: other spellings, single for list, nothing in it. None may be refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.video.form import Camera, Cut, Seen
from sensegate.video.formats import FORMATS
from sensegate.video.veil import KeyedVeil

VEIL = KeyedVeil(b"variants" * 4)
NOON = 1_768_453_200_000_000
"""2026-01-15 13:00 in Beijing"""
DEVICE = "44030500001310000001"
BASIC = f"{DEVICE}022026011513000000001"
MJ = "cam7/onvif-mj/VideoAnalytics/p1/m1"
PERSONAL = ("张三", "ZHANG", "粤B12345", "440301199001011234", "Secret", "QkFTRTY0")
VEHICLE = {
    "MotorVehicleID": f"{BASIC}0200001",
    "DeviceID": DEVICE,
    "PassTime": "20260115130000",
    "LaneNo": "2",
    "PlateNo": "粤B12345",
    "Speed": "54.0",
    "LeftTopX": "192",
    "LeftTopY": 108,
    "RightBtmX": "960",
    "RightBtmY": 540,
    "SubImageList": {"SubImageInfoObject": [{"Type": "14", "Width": "1920", "Height": 1080, "Data": "QkFTRTY0"}]},
}
FACE = {"FaceID": f"{BASIC}0600001", "DeviceID": DEVICE, "FaceAppearTime": "20260115130000", "Name": "张三"}


def told(name: str, body: Any, topic: str = "http/cam7", **camera: Any) -> tuple[Cut, Seen]:
    """Cut and read a message; nothing personal of it may be in either."""
    payload = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    cut = FORMATS[name].cut(payload, topic, NOON, VEIL)
    seen = FORMATS[name].see(cut.payload, topic, NOON, Camera(**camera))
    everything = f"{cut.payload.decode()}{seen!r}{dict(cut.removed)!r}"
    assert not [word for word in PERSONAL if word in everything]
    assert seen.observations or seen.measured or seen.ignored  # else it would go to quarantine
    return cut, seen


# ── GA/T 1400 ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        {"MotorVehicleListObject": {"MotorVehicleObject": []}},
        {"MotorVehicleListObject": {"MotorVehicleObject": None}},
        {"MotorVehicleListObject": {"MotorVehicleObject": ""}},
        {"MotorVehicleListObject": {}},
        {"MotorVehicleListObject": None},
    ],
)
def test_an_empty_batch_is_none_the_worse(body: Any) -> None:
    _, seen = told("viid", body)
    assert seen.ignored == 1


@pytest.mark.parametrize(
    "body",
    [
        {"MotorVehicleListObject": {"MotorVehicleObject": [VEHICLE]}},
        {"MotorVehicleListObject": {"MotorVehicleObject": VEHICLE}},
        {"MotorVehicleListObject": [VEHICLE]},
        {"MotorVehicleObject": VEHICLE},
        {"motorvehiclelistobject": {"motorvehicleobject": {name.lower(): value for name, value in VEHICLE.items()}}},
        {"MotorVehicleListObject": {"MotorVehicleObject": [VEHICLE]}, "RequestURL": "Secret", "ZHANG": 1},
        {
            "SubscribeNotificationListObject": {
                "SubscribeNotificationObject": {
                    "NotificationID": "1",
                    "Title": "张三",
                    "MotorVehicleObjectList": {"MotorVehicleObject": VEHICLE},
                    "LaneObjectList": None,
                    "FaceObjectList": "",
                }
            }
        },
    ],
)
def test_a_vehicle_in_any_envelope(body: Any) -> None:
    _, seen = told("viid", body)
    (one,) = seen.observations
    assert (one.camera, one.observed_at, one.lane, one.speed) == (DEVICE, NOON, 2, 15.0)
    assert one.box == (0.1, 0.1, 0.5, 0.5)
    assert one.plate is not None
    assert one.plate.region == "粤B"
    (speed,) = seen.measured
    assert (speed.property, speed.channel, speed.value, speed.unit) == ("vehicle_speed", "lane2", 54.0, "km/h")


def test_names_that_are_no_fields_of_the_standard_are_not_told() -> None:
    cut, _ = told("viid", {"FaceListObject": {"FaceObject": [{**FACE, "ZHANGSan": "1", "张三": {"Name": "x"}}]}})
    assert dict(cut.removed) == {"Name": 1, "other": 2}


def test_a_device_with_any_suffix_is_told_whole() -> None:
    _, seen = told("viid", {"MotorVehicleListObject": {"MotorVehicleObject": [{**VEHICLE, "DeviceID": f"{DEVICE}1"}]}})
    assert seen.observations[0].camera == f"{DEVICE}1"


# ── ONVIF ────────────────────────────────────────────────────────────────────────────────────────────

THING = {
    "@ObjectId": "12",
    "Appearance": {
        "Shape": {"BoundingBox": {"@left": "-0.5", "@top": "0.5", "@right": "0.5", "@bottom": "-0.5"}},
        "Class": {"Type": [{"@Likelihood": "0.6", "#text": "Vehicle"}, {"#text": "Car", "@Likelihood": 0.8}]},
    },
}
TT = 'xmlns:tt="http://www.onvif.org/ver10/schema" xmlns:wsnt="http://docs.oasis-open.org/wsn/b-2"'


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("onvif_mj", {"Frame": []}),
        ("onvif_mj", {"Frame": None}),
        ("onvif_mj", {"Frame": {"@UtcTime": "2026-01-15T05:00:00Z"}}),
        ("onvif_xml", f"<tt:MetadataStream {TT}/>".encode()),
        ("onvif_xml", f"<tt:MetadataStream {TT}><tt:VideoAnalytics/></tt:MetadataStream>".encode()),
        ("onvif_xml", f"<tt:MetadataStream {TT}><tt:Event/></tt:MetadataStream>".encode()),
    ],
)
def test_a_scene_in_which_nothing_is_means_nothing(name: str, body: Any) -> None:
    _, seen = told(name, body, MJ if name == "onvif_mj" else "http/cam7")
    assert seen.ignored == 1


@pytest.mark.parametrize("around", [(), ("VideoAnalytics",), ("MetadataStream", "VideoAnalytics")])
def test_a_frame_may_stand_in_what_is_around_it_in_xml(around: tuple[str, ...]) -> None:
    body: Any = {"Frame": {"@UtcTime": "2026-01-15T05:00:00", "Object": THING, "acme:ZHANG": "Secret"}}
    for name in reversed(around):
        body = {name: body}
    cut, seen = told("onvif_mj", body, f"city/north/{MJ}")
    (one,) = seen.observations
    assert (one.camera, one.subclass, one.confidence, one.observed_at) == ("city/north/cam7/p1", "car", 0.8, NOON)
    assert one.box == (0.25, 0.25, 0.75, 0.75)
    assert dict(cut.removed) == {"Frame.other": 1}


def test_a_recording_job_tells_its_state_as_an_element() -> None:
    body = (
        f"<tt:MetadataStream {TT}><tt:Event><wsnt:NotificationMessage>"
        "<wsnt:Topic>tns1:RecordingConfig/JobState</wsnt:Topic>"
        '<wsnt:Message><tt:Message UtcTime="2026-01-15T05:00:00Z" PropertyOperation="Changed"><tt:Source>'
        '<tt:SimpleItem Name="RecordingJobToken" Value="job1"/></tt:Source><tt:Data><tt:ElementItem Name="Information">'
        "<tt:RecordingJobStateInformation><tt:RecordingToken>Secret</tt:RecordingToken><tt:State>Active</tt:State>"
        "</tt:RecordingJobStateInformation></tt:ElementItem></tt:Data></tt:Message></wsnt:Message>"
        "</wsnt:NotificationMessage></tt:Event></tt:MetadataStream>"
    )
    _, seen = told("onvif_xml", body.encode())
    assert [(one.property, one.value) for one in seen.measured] == [("recording", True)]
