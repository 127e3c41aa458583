"""Dahua: events, states, flows, clocks of another zone; and what strangers may send instead."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats.dahua import FORMAT
from sensegate.video.observation import BoxQuality, ObservationKind
from sensegate.video.pseudonyms import KeyedPseudonymiser
from sensegate.video.values import split_words

PSEUDONYMISER = KeyedPseudonymiser(b"tests" * 8)
NOW = 1_768_449_600_000_000
UTC = NOW // 1_000_000
ZONE = 8 * 3_600


def decode_body(payload: bytes, arrival: int = NOW, **camera: Any) -> VideoReport:
    cut = FORMAT.redact(payload, "http/cam7", arrival, PSEUDONYMISER)
    return FORMAT.decode(cut.payload, "http/cam7", arrival, CameraInfo(**camera))


def event(code: str, action: str = "Pulse", index: int = 0, **data: Any) -> bytes:
    return f"Code={code};action={action};index={index};data={json.dumps({'UTC': UTC, **data}, indent=1)}".encode()


def readings(report: VideoReport) -> list[tuple[str, str, Any]]:
    return [(measurement.property, measurement.channel, measurement.value) for measurement in report.measurements]


@pytest.mark.parametrize(
    ("payload", "word", "state", "expected"),
    [
        (event("VideoMotion", "Start", RegionName=["Region1"]), "motion", True, [("motion", "zone1", True)]),
        (event("VideoMotion", "Stop"), "motion", False, [("motion", "", False)]),
        (event("VideoBlind", "Start", 2), "tamper", True, [("tamper", "", True)]),
        (event("CrossLineDetection", Name="Line 3"), "line_crossed", None, []),
        (event("CrossRegionDetection", "Start", Name="Zone2"), "intrusion", True, [("intrusion", "zone2", True)]),
        (event("AlarmLocal", "Start", 1), "alarm_input", True, [("input_active", "input2", True)]),
        (b"Code=AlarmLocal;action=Stop;index=0\r\n", "alarm_input", False, [("input_active", "input1", False)]),
        (event("LiLeiDetection"), "other", None, []),
    ],
)
def test_kinds_of_events(
    payload: bytes,
    word: str,
    state: bool | None,  # noqa: FBT001 - one of the columns
    expected: list[tuple[str, str, Any]],
) -> None:
    report = decode_body(payload)
    (observation,) = report.observations
    assert observation.event is not None
    assert (observation.event.type, observation.event.state) == (word, state)
    assert readings(report) == expected


def test_several_events_under_one_another() -> None:
    """With data and without, in one body; a heartbeat alone."""
    body = (
        event("VideoMotion", "Start") + b"\r\n" + b"Code=VideoBlind;action=Stop;index=0\n" + event("VideoLoss", "Start")
    )
    assert [observation.event.type for observation in decode_body(body).observations if observation.event] == [
        "motion",
        "tamper",
        "video_loss",
    ]
    report = decode_body(b"Heartbeat\r\n")
    assert (report.observations, report.ignored, readings(report)) == ((), 1, [("online", "", True)])


BROKEN = (b'Code=VideoBlind;action=Start;index=0;data={"UTC": ', b"Code=VideoBlind;action=")


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_event_costs_itself_alone(broken: bytes) -> None:
    """Before, between and behind good events, on a line of its own."""
    body = b"\n".join((broken, event("VideoMotion", "Start"), broken, event("VideoLoss", "Start"), broken))
    report = decode_body(body)
    assert [observation.event.type for observation in report.observations if observation.event] == [
        "motion",
        "video_loss",
    ]
    assert [rejected.index for rejected in report.rejected] == [2, 3, 4]


@pytest.mark.parametrize("text", [b"x", b"--b", b"}", b'{"a": 1}', b"HTTP/1.1 200 OK\r\nServer: x", b'; y={"z": 1}'])
@pytest.mark.parametrize("between", [b"", b"\r\n", b" "])
def test_text_behind_the_data_of_an_event_costs_itself_alone(text: bytes, between: bytes) -> None:
    """On the same line or the next ones; the event before it and the event after it are read."""
    body = event("VideoMotion", "Start") + between + text + b"\r\n" + event("VideoLoss", "Start")
    report = decode_body(body)
    assert [observation.event.type for observation in report.observations if observation.event] == [
        "motion",
        "video_loss",
    ]
    assert [rejected.index for rejected in report.rejected] == [2]
    assert len(decode_body(event("VideoMotion", "Start") + between + text).observations) == 1


@pytest.mark.parametrize("tree", [b"{" * 100_000, b'{"a":' * 5_000 + b"1", b'{"a":' + b"1" * 5_000 + b"} x"])
def test_data_that_are_none_stay_refused(tree: bytes) -> None:
    """Data that are nested too deeply, end too early, or hold a number of thousands of digits."""
    body = b"Code=VideoBlind;action=Start;index=0;data=" + tree + b"\n" + event("VideoLoss", "Start")
    report = decode_body(body)
    assert [observation.event.type for observation in report.observations if observation.event] == ["video_loss"]


@pytest.mark.parametrize(
    ("utc", "more", "arrival", "expected"),
    [
        (UTC, {"UTCMS": 250}, NOW, NOW + 250_000),
        (UTC + ZONE, {}, NOW, NOW),
        (UTC + ZONE, {"RealUTC": UTC}, NOW, NOW),
        (UTC + 3 * 3_600, {"RealUTC": UTC}, NOW + 5_000_000, NOW),
        (UTC + 600, {}, NOW, NOW + 600_000_000),
        (UTC - 86_400, {}, NOW, NOW - 86_400_000_000),
        (UTC + ZONE, {}, NOW + ZONE * 1_000_000, NOW + ZONE * 1_000_000),
    ],
)
def test_clocks_are_held_against_the_arrival(utc: int, more: dict[str, int], arrival: int, expected: int) -> None:
    """Local time counted as UTC is put right where that brings it near; a backlog and a small error stay."""
    data: dict[str, Any] = {**more, "UTC": utc}
    (observation,) = decode_body(event("VideoMotion", **data), arrival).observations
    assert (observation.observed_at, observation.time_quality) == (expected, "assumed_tz")


def test_flows_and_people_become_readings() -> None:
    flow = {"Vehicles": 12, "AverageSpeed": 42.5, "BackOfQueue": 30, "TimeHeadway": 2.5}
    report = decode_body(event("TrafficFlowStat", Lane=2, Flow=flow))
    assert sorted(readings(report)) == [
        ("headway", "lane2", 2.5),
        ("queue_length", "lane2", 30),
        ("vehicle_count", "lane2", 12),
        ("vehicle_speed_mean", "lane2", 42.5),
    ]
    assert report.observations[0].kind is ObservationKind.COUNT
    report = decode_body(event("NumberStat", EnteredSubtotal=5, ExitedSubtotal=3, InsideSubtotal=2))
    assert readings(report) == [("people_in_total", "", 5), ("people_out_total", "", 3), ("people_present", "", 2)]


def test_boxes_and_plates() -> None:
    thing = {"ObjectType": "Vehicle", "ObjectID": 3, "BoundingBox": [2048, 1024, 6144, 7168], "Confidence": 80}
    car = {"PlateNumber": "粤B12345", "PlateColor": "Blue", "Speed": 36, "Lane": 2}
    (observation,) = decode_body(event("TrafficGate", Object=thing, TrafficCar=car)).observations
    assert observation.plate is not None
    assert (observation.box, observation.speed, observation.lane, observation.track) == (
        (0.25, 0.125, 0.75, 0.875),
        10,
        2,
        "3",
    )
    assert (observation.plate.token, observation.plate.region, observation.plate.color) == (
        PSEUDONYMISER.plate("粤B12345", NOW),
        "粤B",
        "blue",
    )
    (observation,) = decode_body(event("TrafficGate", Object={**thing, "BoundingBox": [0, 0, 9000, 100]})).observations
    assert (observation.box, observation.box_quality, observation.plate) == (None, BoxQuality.UNRESOLVED, None)
    odds: list[Any] = [[1, 2, 3], "x", [None] * 4, [0, 0, 0, 0], {}]
    for odd in odds:
        (observation,) = decode_body(event("TrafficGate", Object={**thing, "BoundingBox": odd})).observations
        assert observation.box is None
    assert "12345" not in str(decode_body(event("TrafficGate", TrafficCar=car, Name="粤B12345")))


def test_each_object_of_an_event_is_an_observation() -> None:
    things = [{"ObjectType": "Human", "ObjectID": 4, "BoundingBox": [0, 0, 4096, 4096]}, {"ObjectType": "Vehicle"}, {}]
    report = decode_body(event("CrossRegionDetection", "Start", Name="Zone1", Objects=things))
    assert [(observation.object_class, observation.track) for observation in report.observations] == [
        ("person", "4"),
        ("vehicle", ""),
        (None, ""),
    ]
    assert len({observation.id for observation in report.observations}) == 3
    assert readings(report) == [("intrusion", "zone1", True)]
    assert len(decode_body(event("VideoMotion", Objects=[])).observations) == 1


def test_vehicles_lines_and_areas_of_one_moment_are_told_apart() -> None:
    """Events without an identifier of their own: by lane, plate and rule; the same one sent again is one."""
    passages = [
        event("TrafficJunction", TrafficCar={"PlateNumber": plate, "Lane": lane, "Speed": 36})
        for plate, lane in (("粤B12345", 1), ("粤B54321", 1), ("", 2), ("粤B54321", 1))
    ]
    lines = [event("CrossLineDetection", Name=name) for name in ("Line 1", "Line 2", "Line 1")]
    for bodies, distinct in ((passages, 3), (lines, 2)):
        assert len({decode_body(body).observations[0].id for body in bodies}) == distinct
    assert len({decode_body(body).measurements[0].key for body in passages}) == 3
    areas = [decode_body(event("NumberStat", Name=name, EnteredSubtotal=5)) for name in ("Zone1", "Zone2")]
    assert len({report.observations[0].id for report in areas}) == 2
    assert [report.measurements[0].channel for report in areas] == ["zone1", "zone2"]
    assert len({report.measurements[0].key for report in areas}) == 2


@pytest.mark.parametrize(
    "payload",
    [b"Error", b"Code=x", b"Code=A;action=Start;index=0;data={", b"<a/>", b"{}", b"\xff\xff\xff"],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(Rejected):
        decode_body(payload)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
NAMES = sorted(
    split_words(
        "UTC UTCMS RealUTC Object TrafficCar Vehicle BoundingBox ObjectType PlateNumber Lane Flow Vehicles EventID"
    )
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)


@given(
    st.dictionaries(st.sampled_from(NAMES), TREES, max_size=10), st.sampled_from(["VideoMotion", "TrafficGate", "X"])
)
def test_no_event_crashes_it(data: dict[str, Any], code: str) -> None:
    try:
        report = decode_body(event(code, "Start", **data))
    except Rejected:
        return
    for observation in report.observations:
        assert observation.box is None or all(0 <= side <= 1 for side in observation.box)


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(payload: bytes) -> None:
    try:
        decode_body(payload)
        decode_body(b"Code=VideoMotion;action=Start;index=0;data=" + payload)
    except Rejected:
        return
