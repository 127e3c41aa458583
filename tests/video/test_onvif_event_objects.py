"""Objects within ONVIF events, likelihoods that are not stated, topics that are not known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.observation import VideoObservation
from sensegate.video.pseudonyms import KeyedPseudonymiser

KEY = KeyedPseudonymiser(b"tests" * 8)
NOW = 1_768_449_600_000_000
PLATE = "\u7ca4A12345"
ELEMENT = """<tt:Object ObjectId="{id}"><tt:Appearance><tt:Shape>
<tt:BoundingBox left="-0.5" top="0.5" right="0" bottom="0"/></tt:Shape>
<tt:Class><tt:Type Likelihood="0.75">{kind}</tt:Type></tt:Class>{more}</tt:Appearance></tt:Object>"""
NOTICE = """<tt:MetadataStream xmlns:tt="http://www.onvif.org/ver10/schema" xmlns:wsnt="http://docs.oasis-open.org/wsn/b-2"
 xmlns:tns1="http://www.onvif.org/ver10/topics" xmlns:tnsaxis="http://www.axis.com/2009/event/topics"><tt:Event>
<wsnt:NotificationMessage><wsnt:Topic>{topic}</wsnt:Topic><wsnt:Message><tt:Message UtcTime="2026-01-15T04:00:00Z">
<tt:Source><tt:SimpleItem Name="Rule" Value="Line 1"/></tt:Source><tt:Data>{data}</tt:Data>
</tt:Message></wsnt:Message></wsnt:NotificationMessage></tt:Event></tt:MetadataStream>"""
CANDIDATE = "<tt:Class><tt:ClassCandidate><tt:Type>Human</tt:Type>{}</tt:ClassCandidate></tt:Class>"
CROSSED = "tns1:RuleEngine/LineDetector/Crossed"


def decode(name: str, payload: bytes, topic: str = "http/cam7") -> tuple[VideoReport, dict[str, int]]:
    """Redact and decode one message; return the report and the removed fields."""
    redacted = FORMATS[name].redact(payload, topic, NOW, KEY)
    return FORMATS[name].decode(redacted.payload, topic, NOW, CameraInfo()), dict(redacted.removed)


def of_xml(data: str, topic: str = CROSSED) -> tuple[VideoReport, dict[str, int]]:
    return decode("onvif_xml", NOTICE.format(topic=topic, data=data).encode())


def item(number: int, kind: str = "Vehicle", more: str = "") -> str:
    return f'<tt:ElementItem Name="Object">{ELEMENT.format(id=number, kind=kind, more=more)}</tt:ElementItem>'


def looks(observation: VideoObservation) -> tuple[str, str | None, float | None]:
    """Return track, class and confidence."""
    return observation.track, observation.object_class, observation.confidence


def test_objects_of_events_of_one_moment_are_events_of_their_own() -> None:
    """Three notifications of one second, each with an object: three events with track and class, none a duplicate."""
    reports = [of_xml(item(number, kind))[0] for number, kind in ((4, "Vehicle"), (5, "Human"), (6, "Bicycle"))]
    observations = [report.observations[0] for report in reports]
    assert [looks(observation) for observation in observations] == [
        ("4", "vehicle", 0.75),
        ("5", "person", 0.75),
        ("6", "nonmotor", 0.75),
    ]
    assert len({observation.id for observation in observations}) == 3
    assert all(observation.box == (0.25, 0.25, 0.5, 0.5) for observation in observations)
    assert all(observation.event and observation.event.type == "line_crossed" for observation in observations)


@pytest.mark.parametrize("form", ["items", "bare", "one item"])
def test_several_objects_of_one_event(form: str) -> None:
    """An event with two objects is two events, however they stand in it."""
    elements = [ELEMENT.format(id=number, kind="Human", more="") for number in (4, 5)]
    data = {
        "items": item(4, "Human") + item(5, "Human"),
        "bare": "".join(elements),
        "one item": f'<tt:ElementItem Name="Object">{"".join(elements)}</tt:ElementItem>',
    }[form]
    report, _ = of_xml(data)
    assert [looks(observation) for observation in report.observations] == [("4", "person", 0.75), ("5", "person", 0.75)]
    assert len({observation.id for observation in report.observations}) == 2


def test_an_object_beside_its_id() -> None:
    """With both ObjectId and Object the track stays; an object without an id has that of the event."""
    for data in (
        f'<tt:SimpleItem Name="ObjectId" Value="9"/>{item(9)}',
        f'<tt:SimpleItem Name="ObjectId" Value="9"/>{item(9).replace(" ObjectId=", " Unnamed=")}',
        item(9) + '<tt:SimpleItem Name="Object" Value=""/>',
    ):
        (observation,) = of_xml(data)[0].observations
        assert looks(observation) == ("9", "vehicle", 0.75)


def test_a_plate_in_the_object_of_an_event_is_hidden_and_counted() -> None:
    """The plate within an event's object becomes a pseudonym, and counts as removed."""
    more = f"<tt:LicensePlateInfo><tt:PlateNumber>{PLATE}</tt:PlateNumber></tt:LicensePlateInfo>"
    report, removed = of_xml(item(1, more=more))
    (observation,) = report.observations
    assert observation.plate is not None
    assert (observation.plate.region, observation.plate.confidence) == ("\u7ca4A", None)
    assert removed == {"LicensePlateInfo.PlateNumber": 1}
    assert "12345" not in str(report)


def test_objects_in_json() -> None:
    """The same event as JSON over MQTT."""
    topic = "cam7/onvif-ej/RuleEngine/LineDetector/Crossed/&c/&a/&Line 1"
    element = {"@ObjectId": 4, "Appearance": {"Class": {"Type": {"@Likelihood": 0.5, "#text": "Human"}}}}
    for member in (element, {**{k: v for k, v in element.items() if k != "@ObjectId"}, "ObjectId": 4}, [element]):
        payload: dict[str, Any] = {"UtcTime": "2026-01-15T04:00:00Z", "Data": {"Object": member}}
        report, _ = decode("onvif_ej", json.dumps(payload).encode(), topic)
        assert [looks(observation) for observation in report.observations] == [("4", "person", 0.5)]


@pytest.mark.parametrize(
    ("looks_like", "confidence"),
    [
        ("<tt:Class><tt:Type>Human</tt:Type></tt:Class>", None),
        ("<tt:Class><tt:Type>Human</tt:Type><tt:Likelihood>0.4</tt:Likelihood></tt:Class>", 0.4),
        ('<tt:Class><tt:Type Likelihood="0.6">Human</tt:Type></tt:Class>', 0.6),
        ('<tt:Class><tt:Type Likelihood="6">Human</tt:Type></tt:Class>', None),
        (CANDIDATE.format("<tt:Likelihood>0.3</tt:Likelihood>"), 0.3),
        (CANDIDATE.format(""), None),
        (CANDIDATE.format("<tt:Likelihood/>"), None),
    ],
)
def test_a_likelihood_is_what_the_camera_states(looks_like: str, confidence: float | None) -> None:
    """The confidence is the stated likelihood, by attribute or by element; without one there is none."""
    frame = (
        '<tt:Frame xmlns:tt="http://www.onvif.org/ver10/schema" UtcTime="2026-01-15T04:00:00Z"><tt:Object ObjectId="1">'
        f"<tt:Appearance>{looks_like}</tt:Appearance></tt:Object></tt:Frame>"
    )
    (observation,) = decode("onvif_xml", frame.encode())[0].observations
    assert (observation.object_class, observation.confidence) == ("person", confidence)


def test_unknown_topics_of_one_moment_are_events_of_their_own() -> None:
    """Two topics that nobody knows have two identities; the same one again has the same."""
    ids = [of_xml("", f"tns1:Vendor/{name}")[0].observations[0].id for name in ("Umbrella", "Trolley", "Umbrella")]
    assert (ids[0] == ids[2], ids[0] == ids[1]) == (True, False)
    report, _ = of_xml("", "tns1:Vendor/Li Lei")
    assert "Lei" not in str(report)


def test_plates_of_one_moment_without_an_object_are_events_of_their_own() -> None:
    """What an event says tells it apart where it names no object."""
    ids = {
        of_xml(f'<tt:SimpleItem Name="PlateNumber" Value="{plate}"/>', "tns1:RuleEngine/Recognition/LicensePlate")[0]
        .observations[0]
        .id
        for plate in (PLATE, "\u7ca4B00001")
    }
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("topic", "item_name", "word", "name"),
    [
        ("tns1:VideoSource/tnsaxis:Tampering", "tampering", "tamper", "tamper"),
        ("tns1:Device/tnsaxis:Casing/Open", "Open", "tamper", "tamper"),
        ("tns1:Device/tnsaxis:IO/Port", "state", "alarm_input", "input_active"),
        ("tns1:Storage/tnsaxis:Disruption", "disruption", "storage_fault", None),
        ("tnsaxis:CameraApplicationPlatform/VMD/Camera1ProfileANY", "active", "motion", "motion"),
        ("tnsaxis:CameraApplicationPlatform/LoiteringGuard/Camera1Profile1", "active", "loitering", "loitering"),
        ("tnsaxis:CameraApplicationPlatform/Unheard/Camera1Profile1", "active", "other", None),
    ],
)
def test_events_of_axis_in_xml(topic: str, item_name: str, word: str, name: str | None) -> None:
    """Axis' own topics in ONVIF's XML are what they are in Axis' JSON, with their state."""
    (observation, *_), measurements = (
        (report := of_xml(f'<tt:SimpleItem Name="{item_name}" Value="1"/>', topic)[0]).observations,
        report.measurements,
    )
    assert observation.event is not None
    assert (observation.event.type, observation.event.state) == (word, True)
    if name is not None:
        assert [(measurement.property, measurement.value) for measurement in measurements] == [(name, True)]
