"""Files of the same families, written anew: other spellings, single for list, nothing in it. None may be refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.video.format import CameraInfo, Redacted, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.pseudonyms import KeyedPseudonymiser

PSEUDONYMISER = KeyedPseudonymiser(b"variants" * 4)
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


def redact_and_decode(name: str, body: Any, topic: str = "http/cam7", **camera: Any) -> tuple[Redacted, VideoReport]:
    """Cut and read a message; nothing personal of it may be in either."""
    payload = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    cut = FORMATS[name].redact(payload, topic, NOON, PSEUDONYMISER)
    decoded = FORMATS[name].decode(cut.payload, topic, NOON, CameraInfo(**camera))
    everything = f"{cut.payload.decode()}{decoded!r}{dict(cut.removed)!r}"
    assert not [word for word in PERSONAL if word in everything]
    assert decoded.observations or decoded.measurements or decoded.ignored  # else it would go to quarantine
    return cut, decoded


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
    _, report = redact_and_decode("viid", body)
    assert report.ignored == 1


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
    _, report = redact_and_decode("viid", body)
    (observation,) = report.observations
    assert (observation.camera, observation.observed_at, observation.lane, observation.speed) == (DEVICE, NOON, 2, 15.0)
    assert observation.box == (0.1, 0.1, 0.5, 0.5)
    assert observation.plate is not None
    assert observation.plate.region == "粤B"
    (speed,) = report.measurements
    assert (speed.property, speed.channel, speed.value, speed.unit) == ("vehicle_speed", "lane2", 54.0, "km/h")


def test_names_that_are_no_fields_of_the_standard_are_not_told() -> None:
    cut, _ = redact_and_decode(
        "viid", {"FaceListObject": {"FaceObject": [{**FACE, "ZHANGSan": "1", "张三": {"Name": "x"}}]}}
    )
    assert dict(cut.removed) == {"Name": 1, "other": 2}


def test_a_device_with_any_suffix_is_told_whole() -> None:
    _, report = redact_and_decode(
        "viid", {"MotorVehicleListObject": {"MotorVehicleObject": [{**VEHICLE, "DeviceID": f"{DEVICE}1"}]}}
    )
    assert report.observations[0].camera == f"{DEVICE}1"


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
    _, report = redact_and_decode(name, body, MJ if name == "onvif_mj" else "http/cam7")
    assert report.ignored == 1


@pytest.mark.parametrize("around", [(), ("VideoAnalytics",), ("MetadataStream", "VideoAnalytics")])
def test_a_frame_may_stand_in_what_is_around_it_in_xml(around: tuple[str, ...]) -> None:
    body: Any = {"Frame": {"@UtcTime": "2026-01-15T05:00:00", "Object": THING, "acme:ZHANG": "Secret"}}
    for name in reversed(around):
        body = {name: body}
    cut, report = redact_and_decode("onvif_mj", body, f"city/north/{MJ}")
    (observation,) = report.observations
    assert (observation.camera, observation.subclass, observation.confidence, observation.observed_at) == (
        "city/north/cam7/p1",
        "car",
        0.8,
        NOON,
    )
    assert observation.box == (0.25, 0.25, 0.75, 0.75)
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
    _, report = redact_and_decode("onvif_xml", body.encode())
    assert [(measurement.property, measurement.value) for measurement in report.measurements] == [("recording", True)]


def counted(rule: str, **camera: Any) -> str:
    body = {"UtcTime": "2026-01-15T05:00:00Z", "Source": {"Rule": rule}, "Data": {"Count": "7"}}
    _, report = redact_and_decode("onvif_ej", body, "cam7/onvif-ej/RuleEngine/CountAggregation/Counter", **camera)
    (measurement,) = report.measurements
    return measurement.channel


def test_counts_of_rules_with_free_names_do_not_mix() -> None:
    names = ("Eingang", "张三的店", "Door", "Secret place")
    channels = [counted(name) for name in names]
    assert len(set(channels)) == len(names)
    assert all(channel.startswith("rule") for channel in channels)
    assert channels == [counted(name) for name in names]  # and are the same each time
    assert counted("MyCounter1") == "zone1"
    assert counted("") == ""


def test_a_profile_gives_a_rule_its_channel() -> None:
    assert counted("Door", rules={"Door": "line3"}) == "line3"
    assert counted("张三的店", rules={PSEUDONYMISER.identifier("张三的店"): "line4"}) == "line4"


# ── makers ───────────────────────────────────────────────────────────────────────────────────────────


def alert(inside: str, root: str = 'xmlns="http://www.isapi.org/ver20/XMLSchema"') -> bytes:
    head = "<channelID>1</channelID><dateTime>2026-01-15T13:00:00+08:00</dateTime><eventState>active</eventState>"
    return f"<EventNotificationAlert {root}>{head}{inside}</EventNotificationAlert>".encode()


def test_hikvision_traffic_of_a_lane_becomes_readings() -> None:
    lanes = (
        "<TPSInfo><laneNo>1</laneNo><speed>54</speed><queueLen>20</queueLen><driver>张三</driver></TPSInfo>"
        "<TPSInfo><laneNo>2</laneNo><trafficVolume>12</trafficVolume><ZHANG>1</ZHANG></TPSInfo>"
    )
    cut, report = redact_and_decode(
        "hikvision", alert(f"<eventType>TPS</eventType><TPS><TPSInfoList>{lanes}</TPSInfoList></TPS>")
    )
    assert {
        (measurement.property, measurement.channel, measurement.value, measurement.unit)
        for measurement in report.measurements
    } == {
        ("vehicle_speed_mean", "lane1", 54.0, "km/h"),
        ("queue_length", "lane1", 20.0, "m"),
        ("vehicle_count", "lane2", 12.0, "1"),
    }
    assert dict(cut.removed) == {"TFS.driver": 1, "TFS.other": 1}


def test_hikvision_regions_as_a_plain_list() -> None:
    entry = {
        "regionID": "1",
        "detectionTarget": "human",
        "TargetRect": {"X": "0.1", "Y": 0.1, "width": 0.2, "height": 0.2},
    }
    for regions in ([entry], [{"DetectionRegionEntry": entry}], {"DetectionRegionEntry": [entry]}):
        body = {"channelID": 1, "eventType": "fielddetection", "eventState": "active", "DetectionRegionList": regions}
        (observation,) = redact_and_decode("hikvision", body)[1].observations
        assert (observation.box, observation.event and observation.event.zone) == ((0.1, 0.1, 0.3, 0.3), "1")


def test_hikvision_resolution_as_two_members() -> None:
    picture = "<vehicelRect><X>192</X><Y>108</Y><width>192</width><height>108</height></vehicelRect>"
    size = "<height>1080</height><width>1920</width>"
    body = (
        f"<eventType>ANPR</eventType><ANPR><licensePlate>粤B12345</licensePlate><pictureInfoList><pictureInfo>{picture}"
        f"</pictureInfo></pictureInfoList></ANPR><detectionBackgroundImageResolution>{size}"
        "</detectionBackgroundImageResolution>"
    )
    (observation,) = redact_and_decode("hikvision", alert(body))[1].observations
    assert (observation.box, observation.image_size) == ((0.1, 0.1, 0.2, 0.2), (1920, 1080))


@pytest.mark.parametrize("data", ["null", '[{"Name": "张三"}]', "{}"])
def test_dahua_data_of_any_kind(data: str) -> None:
    (observation,) = redact_and_decode("dahua", f"Code=VideoMotion;action=Start;index=0;data={data}".encode())[
        1
    ].observations
    assert observation.event is not None
    assert (observation.event.type, observation.event.state) == ("motion", True)


@pytest.mark.parametrize(
    "operations",
    [
        [{"type": "DeleteOperation", "id": "5"}, {"type": "RenameOperation", "from": "1", "to": "2"}],
        [{"DeleteOperation": {"id": "5"}}, {"RenameOperation": {"from": "1", "to": "2"}}],
    ],
)
def test_axis_operations_in_both_forms(operations: Any) -> None:
    _, report = redact_and_decode("axis", {"frame": {"timestamp": "2026-01-15T05:00:00Z", "operations": operations}})
    assert [
        (observation.track, observation.track_state, observation.parent_track) for observation in report.observations
    ] == [
        ("5", "end", ""),
        ("1", "end", ""),
        ("2", "update", "1"),
    ]


def test_axis_alarm_of_a_threshold_belongs_to_its_scenario() -> None:
    body = {
        "topic": "axis:CameraApplicationPlatform/ObjectAnalytics/Device1Scenario1Threshold",
        "timestamp": "1768453200000",
        "message": {"data": {"active": "1", "classTypes": "human,vehicle"}},
    }
    _, report = redact_and_decode("axis", body)
    assert [(measurement.property, measurement.channel, measurement.value) for measurement in report.measurements] == [
        ("field_occupied", "scenario1", True)
    ]
    assert report.observations[0].object_class == "person"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("deepstream", {"sensorId": "c", "@timestamp": "2026-01-15T05:00:00Z", "objects": None}),
        ("dlstreamer", {"objects": None, "resolution": {"width": 1, "height": 1}, "timestamp": 5}),
        ("frigate", {"type": "genai", "after": {"id": "1-a", "data": {"metadata": {"title": "张三"}}}}),
        ("axis", {"frame": {"timestamp": "2026-01-15T05:00:00Z"}}),
    ],
)
def test_a_detector_that_saw_nothing(name: str, body: Any) -> None:
    assert redact_and_decode(name, body, "frigate/reviews" if name == "frigate" else "x/y")[1].ignored == 1


def test_deepstream_lane_as_a_word_and_a_box_that_nobody_set() -> None:
    sides = dict.fromkeys(("topleftx", "toplefty", "bottomrightx", "bottomrighty"), 0)
    body = {
        "@timestamp": "2026-01-15T05:00:00Z",
        "sensor": {"id": "c"},
        "place": {"entrance": {"name": "张三", "lane": "lane1"}},
        "object": {"id": "1", "vehicle": {"license": "粤B12345", "type": "sedan"}, "bbox": sides},
    }
    (observation,) = redact_and_decode("deepstream", body, "x/y", width=10, height=10)[1].observations
    assert (observation.lane, observation.box, observation.box_quality) == (1, None, None)


def test_dlstreamer_objects_alone_and_an_offset_before_the_odd_literal() -> None:
    thing = {"detection": {"bounding_box": {"x_min": 0.1, "x_max": 0.5, "y_min": 0.1, "y_max": 0.5}, "label": "person"}}
    (observation,) = redact_and_decode("dlstreamer", {"objects": thing}, "x/y")[1].observations
    assert observation.box == (0.1, 0.1, 0.5, 0.5)
    body = {"objects": [thing], "system_timestamp": "2026-01-15T13:00:00.000+0800:%z"}
    assert redact_and_decode("dlstreamer", body, "x/y")[1].observations[0].observed_at == NOON


def test_frigate_end_without_the_time_of_a_frame() -> None:
    after = {"id": "a-b", "camera": "c", "label": "person", "start_time": 1_768_453_199.0, "end_time": 1_768_453_200.0}
    (observation,) = redact_and_decode("frigate", {"type": "end", "after": after}, "frigate/events")[1].observations
    assert observation.observed_at == NOON


def test_frigate_does_not_tell_a_label_that_is_in_no_table() -> None:
    (measurement,) = redact_and_decode("frigate", b"2", "frigate/c/ZHANGSAN", id="c")[1].measurements
    assert (measurement.property, measurement.channel) == ("objects_present", "other")


@pytest.mark.parametrize(("lon", "lat"), [("113.2", "23.1"), ("23.1", "113.2")])
def test_gb28181_places_that_were_swapped_and_times_with_a_blank(lon: str, lat: str) -> None:
    body = (
        '<?xml version="1.0" encoding="GB2312"?><Notify><CmdType>Alarm</CmdType><SN>1</SN><DeviceID>'
        f"{DEVICE}</DeviceID><AlarmMethod>5</AlarmMethod><AlarmTime>2026-01-15 13:00:00</AlarmTime>"
        f"<AlarmDescription>张三</AlarmDescription><Longitude>{lon}</Longitude><Latitude>{lat}</Latitude></Notify>"
    )
    (observation,) = redact_and_decode("gb28181", body.encode("gb18030"))[1].observations
    assert observation.observed_at == NOON
    assert observation.place is not None
    assert (observation.place.lon, observation.place.lat) == (113.2, 23.1)
