"""Hikvision: both spellings and multipart, states and counters, heartbeats; and what strangers may send instead."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats import hikvision
from sensegate.video.formats.hikvision import FORMAT
from sensegate.video.observation import BoxQuality, ObservationKind
from sensegate.video.pseudonyms import KeyedPseudonymiser
from sensegate.video.values import split_words
from tests.collect.camera import alert, part

PSEUDONYMISER = KeyedPseudonymiser(b"tests" * 8)
NOW = 1_768_449_600_000_000
JPEG = b"\xff\xd8\xff\xe0" + bytes(500) + b"\xff\xd9"


def decode_body(payload: bytes | dict[str, Any], topic: str = "http/cam7", **camera: Any) -> VideoReport:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    cut = FORMAT.redact(body, topic, NOW, PSEUDONYMISER)
    return FORMAT.decode(cut.payload, topic, NOW, CameraInfo(**camera))


def person_event(**more: Any) -> dict[str, Any]:
    first = {"macAddress": "44:19:b6:00:00:01", "channelID": 1, "dateTime": "2026-01-15T12:00:00+08:00"}
    return {**first, "eventType": "VMD", "eventState": "active", **more}


def readings(report: VideoReport) -> list[tuple[str, str, Any]]:
    return [(measurement.property, measurement.channel, measurement.value) for measurement in report.measurements]


def test_json_with_and_without_its_envelope_is_what_xml_is() -> None:
    """One event, three spellings, one identity."""
    in_xml = decode_body(alert())
    for payload in (
        person_event(),
        {"EventNotificationAlert": person_event()},
        {"EventNotificationAlert": [person_event()]},
    ):
        report = decode_body(payload)
        assert [observation.id for observation in report.observations] == [
            observation.id for observation in in_xml.observations
        ]
        assert readings(report) == readings(in_xml) == [("motion", "", True)]


def test_several_parts_and_pictures() -> None:
    body = part(alert()) + part(JPEG, "image/jpeg") + part(alert("IO", "inactive")) + part(JPEG, "image/jpeg")
    cut = FORMAT.redact(body + b"--boundary--", "http/cam7", NOW, PSEUDONYMISER)
    assert cut.removed["part.picture"] == 2
    decoded = FORMAT.decode(cut.payload, "http/cam7", NOW, CameraInfo())
    assert [observation.event.type for observation in decoded.observations if observation.event] == [
        "motion",
        "alarm_input",
    ]
    assert sum(observation.images for observation in decoded.observations) == 2
    only = FORMAT.redact(part(JPEG, "image/jpeg"), "http/cam7", NOW, PSEUDONYMISER)
    assert FORMAT.decode(only.payload, "http/cam7", NOW, CameraInfo()).ignored == 1


@pytest.mark.parametrize(
    ("more", "word", "state", "expected"),
    [
        ({"eventType": "duration", "DurationList": {"Duration": {"relationEvent": "fielddetection"}}}, "intrusion",
         True, [("intrusion", "", True)]),
        ({"eventType": "IO", "inputIOPortID": "2", "eventState": "inactive"}, "alarm_input", False,
         [("input_active", "input2", False)]),
        ({"eventType": "shelteralarm"}, "tamper", True, [("tamper", "", True)]),
        ({"eventType": "videoloss"}, "video_loss", True, [("video_loss", "", True)]),
        ({"eventType": "linedetection", "targetType": "vehicle"}, "line_crossed", True, []),
        ({"eventType": "Li Lei was here"}, "other", True, []),
    ],
)  # fmt: skip
def test_kinds_of_events(
    more: dict[str, Any],
    word: str,
    state: bool,  # noqa: FBT001 - one of the columns
    expected: list[tuple[str, str, Any]],
) -> None:
    report = decode_body(person_event(**more))
    (observation,) = report.observations
    assert observation.event is not None
    assert (observation.event.type, observation.event.state) == (word, state)
    assert readings(report) == expected
    assert "Li Lei" not in str(report)


def test_heartbeats() -> None:
    for more in (
        {"eventType": "videoloss", "eventState": "inactive", "activePostCount": 0},
        {"eventType": "heartBeat"},
        {"eventType": "heartbeat", "activePostCount": "0"},
    ):
        report = decode_body(person_event(**more))
        assert (report.observations, report.ignored, readings(report)) == ((), 1, [("online", "", True)])
    assert decode_body(person_event(eventType="videoloss", eventState="inactive", activePostCount=3)).observations


def test_regions_and_targets() -> None:
    """Each region is an observation of its own, with a state of its own; a target of the whole alert counts for one."""
    entry = {"regionID": 1, "detectionTarget": "human", "TargetRect": {"x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}}
    regions = {"DetectionRegionEntry": [entry, {**entry, "regionID": "2", "detectionTarget": "vehicle"}]}
    report = decode_body(person_event(eventType="fielddetection", DetectionRegionList=regions))
    assert [(observation.object_class, observation.box) for observation in report.observations] == [
        ("person", (0.1, 0.2, 0.4, 0.6)),
        ("vehicle", (0.1, 0.2, 0.4, 0.6)),
    ]
    assert readings(report) == [("intrusion", "zone1", True), ("intrusion", "zone2", True)]
    assert len({observation.id for observation in report.observations}) == 2
    (person,) = decode_body(person_event(targetType="human", TargetRect=entry["TargetRect"])).observations
    assert (person.object_class, person.box) == ("person", (0.1, 0.2, 0.4, 0.6))
    (person,) = decode_body(
        person_event(targetType="human", TargetRect={"X": 300, "Y": 1, "width": 5, "height": 5})
    ).observations
    assert (person.box, person.box_quality) == (None, BoxQuality.UNRESOLVED)


def anpr(**more: Any) -> dict[str, Any]:
    picture = {
        "pictureInfo": {"absTime": "20260115120000500", "vehicelRect": {"X": 96, "Y": 54, "width": 960, "height": 540}}
    }
    return person_event(eventType="ANPR", ANPR={"licensePlate": "粤B12345", "pictureInfoList": picture, **more})


def test_vehicles() -> None:
    (observation,) = decode_body({**anpr(), "detectionBackgroundImageResolution": "1920*1080"}).observations
    assert (observation.box, observation.image_size) == ((0.05, 0.05, 0.55, 0.55), (1920, 1080))
    assert observation.observed_at == NOW + 500_000
    (observation,) = decode_body(anpr()).observations
    assert (observation.box, observation.box_quality) == (None, BoxQuality.UNRESOLVED)  # 1056 of 1000
    for plate in ("", "unknown", "无车牌", None):
        (observation,) = decode_body(anpr(licensePlate=plate)).observations
        assert observation.plate is None
    report = decode_body(anpr(line=2, vehicleInfo={"speed": 54}))
    assert readings(report) == [("vehicle_speed", "lane2", 54)]
    assert report.observations[0].speed == 15
    (observation,) = decode_body({**anpr(), "DeviceGPSInfo": {
        "longitudeType": "E", "latitudeType": "S", "Longitude": {"degree": 113, "minute": 30, "sec": 36},
        "Latitude": {"degree": 23, "minute": 0, "sec": 0}}}).observations  # fmt: skip
    assert observation.place is not None
    assert (observation.place.lon, observation.place.lat) == (113.51, -23.0)


def test_times() -> None:
    """An offset is believed; without one it is the camera's zone; rubbish is the arrival."""
    (observation,) = decode_body(person_event(dateTime="2026-01-15T12:00:00")).observations
    assert (observation.observed_at, observation.time_quality) == (NOW, "assumed_tz")
    (observation,) = decode_body(person_event(dateTime="2026-01-15T12:00:00"), zone="UTC").observations
    assert observation.observed_at == NOW + 8 * 3_600_000_000
    (observation,) = decode_body(person_event(dateTime="the day of Li Lei")).observations
    assert (observation.observed_at, observation.time_quality) == (NOW, "received")
    assert "dateTime" in observation.removed


def test_people_are_counted() -> None:
    period = {"startTime": "2026-01-15T11:59:00+08:00", "endTime": "2026-01-15T12:00:00+08:00"}
    count = {"statisticalMethods": "timeRange", "TimeRange": period, "enter": "3", "exit": 1, "name": "Hall"}
    report = decode_body(person_event(eventType="PeopleCounting", peopleCounting=count))
    assert readings(report) == [("people_in", "", 3), ("people_out", "", 1)]
    assert report.observations[0].kind is ObservationKind.COUNT
    assert {measurement.time for measurement in report.measurements} == {NOW}


def test_cameras_name_themselves_or_are_named_by_their_address() -> None:
    assert decode_body(person_event(dynChannelID=33)).observations[0].camera == "44:19:b6:00:00:01/33"
    assert decode_body(person_event(macAddress="44-19-B6-00-00-01")).observations[0].camera == "44:19:b6:00:00:01/1"
    for mac in (None, "", "Li Lei"):
        (observation,) = decode_body(person_event(macAddress=mac)).observations
        assert observation.camera == "cam7/1"
    (observation,) = decode_body(person_event(macAddress="", channelID="")).observations
    assert observation.camera == "cam7"


def test_cameras_of_a_recorder_without_mac_address_are_told_apart() -> None:
    """Alarms of two channels at one moment are events of two cameras, also without a MAC address."""
    reports = [
        decode_body(person_event(macAddress=None, dynChannelID=channel), "hikvision/nvr1/alerts") for channel in (2, 3)
    ]
    assert [report.observations[0].camera for report in reports] == ["nvr1/2", "nvr1/3"]
    assert len({report.observations[0].id for report in reports}) == 2
    assert len({report.measurements[0].key for report in reports}) == 2


def test_vehicles_of_one_moment_are_told_apart_by_lane_and_plate() -> None:
    """Without a UUID; the same vehicle sent again is one."""
    alerts = [
        anpr(line=1, vehicleInfo={"speed": 54}),
        anpr(line=2, vehicleInfo={"speed": 54}),
        anpr(line=2, licensePlate="粤B54321", vehicleInfo={"speed": 54}),
    ]
    selected = [decode_body(alert) for alert in (*alerts, alerts[1])]
    assert [len({report.observations[0].id for report in reports}) for reports in (selected[:3], selected[1::2])] == [
        3,
        1,
    ]
    assert [len({report.measurements[0].key for report in reports}) for reports in (selected[:3], selected[1::2])] == [
        3,
        1,
    ]


def test_areas_of_a_people_counter_are_told_apart() -> None:
    """Two areas of one camera, counted over the same minute."""
    period = {"startTime": "2026-01-15T11:59:00+08:00", "endTime": "2026-01-15T12:00:00+08:00"}
    reports = [
        decode_body(
            person_event(
                eventType="PeopleCounting", peopleCounting={"TimeRange": period, "enter": 3, "regionsID": region}
            )
        )
        for region in (1, "2")
    ]
    assert [readings(report) for report in reports] == [[("people_in", "zone1", 3)], [("people_in", "zone2", 3)]]
    assert len({report.measurements[0].key for report in reports}) == 2
    assert len({report.observations[0].id for report in reports}) == 2


@pytest.mark.parametrize(
    ("topic", "camera", "named"),
    [
        ("http/nvr1", "", ["nvr1/1", "nvr1/2"]),
        ("cameras/alerts", "cam-9", ["cam-9/1", "cam-9/2"]),
        ("cameras/alerts", "", ["1", "2"]),
    ],
)
def test_channels_are_told_apart_whatever_names_the_recorder(topic: str, camera: str, named: list[str]) -> None:
    """By its own topic, by its registration, or by nothing at all; one number for the recorder, one for the channel."""
    alerts = [person_event(macAddress=None, channelID=1, dynChannelID=channel) for channel in (1, 2)]
    reports = [decode_body(alert, topic, id=camera) for alert in alerts]
    assert [report.observations[0].camera for report in reports] == named
    assert len({report.observations[0].id for report in reports}) == 2


def test_alarms_of_a_recorder_in_one_body() -> None:
    """A multipart body with the alarms of three channels, one of them twice: three events."""
    bodies = [
        alert().replace(b"<macAddress>44:19:b6:00:00:01</macAddress><channelID>1</channelID>",
                        b"<channelID>%d</channelID>" % channel)
        for channel in (1, 2, 3, 2)
    ]  # fmt: skip
    report = decode_body(b"".join(map(part, bodies)) + b"--boundary--")
    assert [observation.camera for observation in report.observations] == ["cam7/1", "cam7/2", "cam7/3", "cam7/2"]
    assert len({observation.id for observation in report.observations}) == 3


@pytest.mark.parametrize("broken", [b"<a>", b"{", b"text", b"\xff", b"<!DOCTYPE x []>"])
def test_a_broken_document_costs_itself_alone(broken: bytes) -> None:
    """Before, between and behind good alerts of one body."""
    report = decode_body(
        b"".join(map(part, (broken, alert(), broken, alert("IO", "inactive"), broken))) + b"--boundary--"
    )
    assert [observation.event.type for observation in report.observations if observation.event] == [
        "motion",
        "alarm_input",
    ]
    assert [rejected.index for rejected in report.rejected] == [2, 3, 4]


def test_an_alert_with_too_many_regions_costs_itself_alone() -> None:
    """Of several alerts of one document."""
    regions = [{"regionID": number} for number in range(300)]
    report = decode_body({"EventNotificationAlert": [person_event(DetectionRegionList=regions), person_event()]})
    assert (len(report.observations), len(report.rejected)) == (1, 1)


def test_alerts_of_a_body_are_limited() -> None:
    """An empty alert takes two bytes, and its observation hundreds."""
    assert len(decode_body({"EventNotificationAlert": [{}] * hikvision.ALERTS_MAX}).observations) == 1_000
    with pytest.raises(Rejected) as why:
        decode_body({"EventNotificationAlert": [{}] * (hikvision.ALERTS_MAX + 1)})
    assert why.value.reason == QuarantineReason.TOO_LARGE
    document = json.dumps({"EventNotificationAlert": [{}] * 600}).encode()
    with pytest.raises(Rejected, match="more than 1000 alerts"):
        decode_body(part(document) * 2 + b"--boundary--")


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{}", b"[]", b"{", b"<a/>", b"text", b"--b\r\n", b'{"eventType"', b"<EventNotificationAlert/>",
        b"\xff\xfe\x00",
        b"<EventNotificationAlert><channelName>A & B</channelName></EventNotificationAlert>",
        b'<!DOCTYPE x [<!ENTITY a "a">]><EventNotificationAlert><eventType>&a;</eventType></EventNotificationAlert>',
    ],
)  # fmt: skip
def test_what_is_no_alert_is_refused(payload: bytes) -> None:
    with pytest.raises(Rejected) as why:
        decode_body(payload)
    assert "A & B" not in str(why.value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
NAMES = sorted(
    {*person_event(), *anpr()["ANPR"]}
    | split_words(
        "DetectionRegionList DetectionRegionEntry TargetRect X Y width height regionID pictureInfo vehicelRect"
    )
    | split_words("peopleCounting enter RealTime DeviceGPSInfo Longitude degree VehicleGATInfo vehicleInfo speed UUID")
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(NAMES), TREES, max_size=10))
@example({"DetectionRegionList": [[{"DetectionRegionEntry": None}]]})
def test_no_alert_crashes_it(tree: dict[str, Any]) -> None:
    for payload in (
        {**tree, "eventType": tree.get("eventType", "VMD")},
        {**person_event(), **tree},
        {"ANPR": tree, **person_event()},
    ):
        try:
            report = decode_body(payload)
        except Rejected:
            continue
        for observation in report.observations:
            assert observation.box is None or all(0 <= side <= 1 for side in observation.box)
