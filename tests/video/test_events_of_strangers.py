"""Events of cameras as ONVIF, Hikvision and Dahua allow them, in forms that no sample has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.observation import VideoObservation
from sensegate.video.pseudonyms import KeyedPseudonymiser
from tests.collect.camera import alert

KEY = KeyedPseudonymiser(b"tests" * 8)
NOW = 1_768_449_600_000_000
CROSSED = "tns1:RuleEngine/LineDetector/Crossed"


def decode(name: str, payload: bytes) -> VideoReport:
    """Redact and decode one message."""
    redacted = FORMATS[name].redact(payload, "http/cam7", NOW, KEY)
    return FORMATS[name].decode(redacted.payload, "http/cam7", NOW, CameraInfo())


def only(report: VideoReport) -> VideoObservation:
    (observation,) = report.observations
    return observation


def word(observation: VideoObservation) -> tuple[str, bool | None]:
    """Return event and state."""
    assert observation.event is not None
    return observation.event.type, observation.event.state


# ── ONVIF ────────────────────────────────────────────────────────────────────────────────────────────


def notice(
    data: str, topic: str = CROSSED, *, tt: str = "tt", tns: str = "tns1", time: str = "2026-01-15T04:00:00Z"
) -> bytes:
    """Return a metadata stream with one event, with namespace prefixes of the sender's choice."""
    topic = topic.replace("tns1:", f"{tns}:")
    return (
        f'<{tt}:MetadataStream xmlns:{tt}="http://www.onvif.org/ver10/schema" xmlns:n="http://docs.oasis-open.org/wsn/b-2"'
        f' xmlns:{tns}="http://www.onvif.org/ver10/topics" xmlns:tnsaxis="http://www.axis.com/2009/event/topics">'
        f"<{tt}:Event><n:NotificationMessage><n:Topic>{topic}</n:Topic><n:Message>"
        f'<{tt}:Message UtcTime="{time}"><{tt}:Source><{tt}:SimpleItem Name="Rule" Value="Line 1"/></{tt}:Source>'
        f"<{tt}:Data>{data}</{tt}:Data></{tt}:Message></n:Message></n:NotificationMessage></{tt}:Event></{tt}:MetadataStream>"
    ).encode()


def element(types: str, number: int = 9, tt: str = "tt") -> str:
    """Return an object within an event."""
    inner = f"<{tt}:Appearance><{tt}:Class>{types}</{tt}:Class></{tt}:Appearance>"
    return f'<{tt}:ElementItem Name="Object"><{tt}:Object ObjectId="{number}">{inner}</{tt}:Object></{tt}:ElementItem>'


CANDIDATE = "<tt:ClassCandidate><tt:Type>Human</tt:Type>{}</tt:ClassCandidate>"
CLASSES = [
    ("the likeliest of two", '<tt:Type Likelihood="0.2">Vehicle</tt:Type><tt:Type Likelihood="0.7">Human</tt:Type>',
     "person", 0.7),
    ("a type without likelihood", "<tt:Type>Car</tt:Type>", "vehicle", None),
    ("a likelihood as an element", CANDIDATE.format("<tt:Likelihood>0.4</tt:Likelihood>"), "person", 0.4),
    ("an empty likelihood", CANDIDATE.format("<tt:Likelihood/>"), "person", None),
    ("a likelihood in per cent", '<tt:Type Likelihood="87">Human</tt:Type>', "person", None),
    ("a negative likelihood", '<tt:Type Likelihood="-1">Human</tt:Type>', "person", None),
    ("a likelihood that is no number", '<tt:Type Likelihood="NaN">Human</tt:Type>', "person", None),
]  # fmt: skip


@pytest.mark.parametrize(("types", "kind", "confidence"), [row[1:] for row in CLASSES], ids=[row[0] for row in CLASSES])
def test_likelihoods_of_objects_in_events(types: str, kind: str, confidence: float | None) -> None:
    """Only a number from 0 to 1 that the camera states is a confidence."""
    only_row = only(decode("onvif_xml", notice(element(types))))
    assert (only_row.track, only_row.object_class, only_row.confidence) == ("9", kind, confidence)


@pytest.mark.parametrize(
    ("topic", "event"),
    [
        ("tns1:RuleEngine/tnsaxis:VMD3/vmd3_video_1", "motion"),
        ("tns1:RuleEngine/tnsaxis:VMD4/Camera1Profile1", "motion"),
        ("tnsaxis:CameraApplicationPlatform/FenceGuard/Camera1ProfileANY", "line_crossed"),
        ("tnsaxis:CameraApplicationPlatform/LoiteringGuard/Camera1Profile1", "loitering"),
        ("tns1:VideoSource/tnsaxis:Tampering", "tamper"),
        ("tns1:Device/tnsaxis:Sensor/PIR", "motion"),
        ("tns1:VideoSource/GlobalSceneChange/ImagingService", "scene_change"),
        ("RuleEngine/LineDetector/Crossed", "line_crossed"),
        ("tns1:RuleEngine/SomethingNew/Rule", "other"),
        ("tns1:Vendor/VMD3", "other"),
    ],
)
def test_topics(topic: str, event: str) -> None:
    """Axis' applications are known in both of their trees; what no table has is `other`."""
    state = '<tt:SimpleItem Name="State" Value="true"/>'
    assert word(only(decode("onvif_xml", notice(state, topic)))) == (event, True)


def test_prefixes_are_the_senders() -> None:
    """Namespaces decide, not their prefixes; so the event is the same one."""
    plain = decode("onvif_xml", notice(element("<tt:Type>Car</tt:Type>")))
    others = notice(element("<o:Type>Car</o:Type>", tt="o"), tt="o", tns="x1")
    assert only(decode("onvif_xml", others)).id == only(plain).id


def test_one_moment_in_two_zones_is_one_event() -> None:
    """12:00 at +08:00 is 04:00 UTC."""
    here = notice(element("<tt:Type>Car</tt:Type>"), time="2026-01-15T12:00:00+08:00")
    assert only(decode("onvif_xml", here)).id == only(decode("onvif_xml", notice(element("<tt:Type>Car</tt:Type>")))).id


# ── Hikvision ────────────────────────────────────────────────────────────────────────────────────────


def alert_body(**more: Any) -> dict[str, Any]:
    """Return an alert in JSON; None takes a member away."""
    first = {"macAddress": "44:19:b6:00:00:01", "channelID": 1, "dateTime": "2026-01-15T12:00:00+08:00"}
    alert_ = {**first, "eventType": "VMD", "eventState": "active", **more}
    return {name: value for name, value in alert_.items() if value is not None}


def hikvision(**more: Any) -> VideoReport:
    return decode("hikvision", json.dumps(alert_body(**more)).encode())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"macAddress": None, "channelID": 3}, {"macAddress": None, "channelID": 4}),
        (
            {"macAddress": None, "channelID": None, "dynChannelID": 3},
            {"macAddress": None, "channelID": None, "dynChannelID": 4},
        ),
        ({"channelID": "33"}, {"channelID": "34"}),
        ({"eventType": "newDetection"}, {"eventType": "newerDetection"}),
        ({"eventType": "newDetection"}, {"eventType": "VMD"}),
        ({"eventType": "IO", "inputIOPortID": 1}, {"eventType": "IO", "inputIOPortID": 2}),
        ({"eventState": "active"}, {"eventState": "inactive"}),
    ],
)
def test_alarms_of_one_moment_that_differ(first: dict[str, Any], second: dict[str, Any]) -> None:
    """By channel, kind, input or state: two events; the same one sent again is one."""
    assert only(hikvision(**first)).id != only(hikvision(**second)).id
    assert only(hikvision(**first)).id == only(hikvision(**first)).id


def test_channels_of_a_recorder_in_xml() -> None:
    """A recorder that names its channels `dynChannelID`, and has no MAC address."""
    ids = [
        only(decode("hikvision", alert().replace(
            b"<macAddress>44:19:b6:00:00:01</macAddress><channelID>1</channelID>",
            b"<ipAddress>192.0.2.1</ipAddress><dynChannelID>%d</dynChannelID>" % channel,
        ))).id
        for channel in (1, 2)
    ]  # fmt: skip
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("members", "event"),
    [({"eventType": "regionEntrance"}, "field_entered"), ({"eventType": "diskfull"}, "storage_full"),
     ({"eventType": "shelteralarm"}, "tamper"), ({"eventType": "linedetection"}, "line_crossed")],
)  # fmt: skip
def test_kinds_of_hikvision(members: dict[str, Any], event: str) -> None:
    """Each leads to its word."""
    assert word(only(hikvision(**members))) == (event, True)


def test_unknown_codes_of_dahua_are_events_of_their_own() -> None:
    """Two codes that no table has, at one moment."""
    ids = {
        only(decode("dahua", f'Code={code};action=Start;index=0;data={{"UTC":1768449600,"Name":"a"}}'.encode())).id
        for code in ("NewDetect", "NewerDetect", "NewDetect")
    }
    assert len(ids) == 2
