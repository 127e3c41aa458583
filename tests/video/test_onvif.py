"""ONVIF: transformations, tracks, events with a state, counters; and what strangers may send instead."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from sensegate.video import boxes, xmlsafe
from sensegate.video.boxes import Transform
from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.observation import BoxQuality, ObservationKind, TrackState
from sensegate.video.pseudonyms import KeyedPseudonymiser
from sensegate.video.values import split_words

PSEUDONYMISER = KeyedPseudonymiser(b"tests" * 8)
NOW = 1_768_449_600_000_000
NOON = "2026-01-15T04:00:00Z"
MJ = "cam7/onvif-mj/VideoAnalytics/p1/m1"


def decode_body(name: str, payload: bytes | dict[str, Any], topic: str = "http/cam7", **camera: Any) -> VideoReport:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    cut = FORMATS[name].redact(body, topic, NOW, PSEUDONYMISER)
    return FORMATS[name].decode(cut.payload, topic, NOW, CameraInfo(**camera))


def frame(*objects: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Frame": {"@UtcTime": NOON, "Object": list(objects), **more}}


def thing(box: tuple[float, float, float, float] | None = None, number: object = 1, **looks: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    if box is not None:
        sides = dict(zip(("@left", "@top", "@right", "@bottom"), box, strict=True))
        shape = {"Shape": {"BoundingBox": sides}}
    return {"@ObjectId": number, "Appearance": {**shape, **looks}}


def transformation(of: Transform) -> dict[str, Any]:
    return {
        "Scale": {"@x": of.scale_x, "@y": of.scale_y},
        "Translate": {"@x": of.translate_x, "@y": of.translate_y},
    }


# ── transformations ──────────────────────────────────────────────────────────────────────────────────

SCALES = st.floats(0.01, 4).flatmap(lambda scale: st.sampled_from([scale, -scale]))
SHIFTS = st.floats(-2, 2)
TRANSFORMS = st.builds(Transform, SCALES, SCALES, SHIFTS, SHIFTS)
CORNERS = st.tuples(*[st.floats(-0.999, 0.999)] * 4)


def back(of: Transform, x: float, y: float) -> tuple[float, float]:
    """Return the point that a transformation takes to (x, y)."""
    return (x - of.translate_x) / of.scale_x, (y - of.translate_y) / of.scale_y


@given(CORNERS, TRANSFORMS, TRANSFORMS)
def test_nested_transformations_lead_to_the_same_box(
    corners: tuple[float, float, float, float], outer: Transform, inner: Transform
) -> None:
    """However a sender counts: taken back through object and frame, a box comes out where it lies in the image."""
    left, top, right, bottom = corners
    x1, y1 = back(inner, *back(outer, left, top))
    x2, y2 = back(inner, *back(outer, right, bottom))
    nested = thing((x1, y1, x2, y2), Transformation=transformation(inner))
    (observation,) = decode_body("onvif_mj", frame(nested, Transformation=transformation(outer)), MJ).observations
    expected, _ = boxes.from_onvif(*corners)
    assert observation.box == pytest.approx(expected, abs=2e-6)
    assert observation.box_quality is BoxQuality.EXPLICIT


@given(CORNERS, TRANSFORMS)
def test_xml_and_json_agree(corners: tuple[float, float, float, float], outer: Transform) -> None:
    in_json = decode_body("onvif_mj", frame(thing(corners), Transformation=transformation(outer)), MJ)
    left, top, right, bottom = corners
    document = (
        f'<tt:VideoAnalytics><tt:Frame UtcTime="{NOON}"><tt:Transformation>'
        f'<tt:Translate x="{outer.translate_x!r}" y="{outer.translate_y!r}"/>'
        f'<tt:Scale x="{outer.scale_x!r}" y="{outer.scale_y!r}"/></tt:Transformation>'
        f'<tt:Object ObjectId="1"><tt:Appearance><tt:Shape><tt:BoundingBox left="{left!r}" top="{top!r}" '
        f'right="{right!r}" bottom="{bottom!r}"/></tt:Shape></tt:Appearance></tt:Object></tt:Frame></tt:VideoAnalytics>'
    )
    in_xml = decode_body("onvif_xml", document.encode())
    assert in_xml.observations[0].box == in_json.observations[0].box
    assert in_xml.observations[0].box_quality == in_json.observations[0].box_quality


@pytest.mark.parametrize("odd", ["NaN", "inf", "x", None, 1e300, True, [], {}])
def test_a_transformation_that_is_none_gives_no_box(odd: object) -> None:
    """A box without a place is no box; the rest of the object stays."""
    of = {"Scale": {"@x": odd, "@y": 1}}
    (observation,) = decode_body("onvif_mj", frame(thing((0, 0, 0.5, 0.5)), Transformation=of), MJ).observations
    assert (observation.box, observation.box_quality, observation.track) == (None, BoxQuality.UNRESOLVED, "1")


def test_a_grid_is_believed_of_the_profile_alone() -> None:
    box = thing((2048, 1024, 6144, 7168))
    (observation,) = decode_body("onvif_mj", frame(box), MJ).observations
    assert (observation.box, observation.box_quality) == (None, BoxQuality.UNRESOLVED)
    (observation,) = decode_body("onvif_mj", frame(box), MJ, grid=8192).observations
    assert (observation.box, observation.box_quality) == ((0.25, 0.125, 0.75, 0.875), BoxQuality.CAMERA)


# ── tracks ───────────────────────────────────────────────────────────────────────────────────────────


def test_splits_merges_and_ends() -> None:
    """1 is split into 1 and 2, 3 and 4 become 4, 5 is called 6, 7 is deleted, 8 has left; parents are kept."""
    tree = {
        "Split": {"from": {"@ObjectId": "1"}, "to": [{"@ObjectId": "1"}, {"@ObjectId": "2"}]},
        "Merge": {"from": [{"@ObjectId": "3"}, {"@ObjectId": "4"}], "to": {"@ObjectId": "4"}},
        "Rename": {"from": {"@ObjectId": "5"}, "to": {"@ObjectId": "6"}},
        "Delete": [{"@ObjectId": "7"}],
    }
    left = {**thing(number=8), "Behaviour": {"Removed": None}}
    observation = decode_body(
        "onvif_mj", frame(thing(number=1), thing(number=2), left, ObjectTree=tree), MJ
    ).observations
    states = {item.track: (item.track_state, item.parent_track) for item in observation}
    assert states == {
        "1": (None, ""),
        "2": (TrackState.NEW, "1"),
        "3": (TrackState.END, ""),
        "5": (TrackState.END, ""),
        "6": (TrackState.NEW, "5"),
        "7": (TrackState.END, ""),
        "8": (TrackState.END, ""),
    }
    assert len({item.id for item in observation}) == 7
    repeated = decode_body("onvif_mj", frame(thing(number=1), thing(number=2), left, ObjectTree=tree), MJ).observations
    assert [item.id for item in repeated] == [item.id for item in observation]


def test_what_is_said_of_people_does_not_pass() -> None:
    looks: dict[str, Any] = {
        "Class": {"Type": "Human"},
        "GeoLocation": {"@lon": 113.2, "@lat": 23.1},
        "HumanBody": {"Height": 1.8},
    }
    (observation,) = decode_body("onvif_mj", frame(thing(**looks)), MJ).observations
    assert (observation.object_class, observation.place) == ("person", None)
    assert observation.removed == ("Appearance.GeoLocation", "Appearance.HumanBody")
    looks["Class"] = {"Type": [{"@Likelihood": 0.2, "#text": "Human"}, {"@Likelihood": 0.7, "#text": "Vehicle"}]}
    (observation,) = decode_body("onvif_mj", frame(thing(**looks)), MJ).observations
    assert observation.object_class == "vehicle"
    assert observation.place is not None
    assert (observation.place.lon, observation.place.lat, observation.place.source) == (113.2, 23.1, "object")


def test_times_and_parts_that_are_missing() -> None:
    (observation,) = decode_body("onvif_mj", {"Frame": {"Object": {}}}, MJ).observations
    assert (observation.observed_at, observation.time_quality, observation.track) == (NOW, "received", "")
    report = decode_body("onvif_mj", {"Frame": [{"@UtcTime": NOON}]}, MJ)
    assert (report.observations, report.ignored) == ((), 1)
    report = decode_body("onvif_mj", {"Frame": [{"@UtcTime": NOON, "Object": [3, thing()]}]}, MJ)
    assert (len(report.observations), len(report.rejected)) == (1, 1)
    assert decode_body("onvif_mj", {"Frame": 3} | {"SensorData": {"Value": 1}}, "cam7/onvif-mj/PTZ/p1").ignored == 1


# ── events ───────────────────────────────────────────────────────────────────────────────────────────


def event(topic: str, data: dict[str, Any], operation: str = "Changed", **source: str) -> bytes:
    items = "".join(f'<tt:SimpleItem Name="{name}" Value="{value}"/>' for name, value in source.items())
    values = "".join(
        value if name.startswith("<") else f'<tt:SimpleItem Name="{name}" Value="{value}"/>'
        for name, value in data.items()
    )
    return (
        f"<wsnt:NotificationMessage><wsnt:Topic>{topic}</wsnt:Topic><wsnt:Message><tt:Message UtcTime='{NOON}' "
        f"PropertyOperation='{operation}'><tt:Source>{items}</tt:Source><tt:Data>{values}</tt:Data></tt:Message>"
        "</wsnt:Message></wsnt:NotificationMessage>"
    ).encode()


def events_of(report: VideoReport) -> list[tuple[str, str, Any]]:
    return [(measurement.property, measurement.channel, measurement.value) for measurement in report.measurements]


@pytest.mark.parametrize(
    ("topic", "source", "data", "word", "readings"),
    [
        ("tns1:RuleEngine/FieldDetector/ObjectsInside", {"Rule": "Field1"}, {"IsInside": "true"}, "field_occupied",
         [("field_occupied", "zone1", True)]),
        ("tns1:RuleEngine/tns1:LineDetector/tns1:Crossed", {"Rule": "Line 2"}, {"ObjectId": "3"}, "line_crossed", []),
        ("tns1:RuleEngine/CellMotionDetector/Motion", {}, {"IsMotion": "false"}, "motion", [("motion", "", False)]),
        ("tns1:RuleEngine/TamperDetector/Tamper", {}, {"IsTamper": "1"}, "tamper", [("tamper", "", True)]),
        ("tns1:VideoSource/ImageTooDark/ImagingService", {"Source": "VideoSource_1"}, {"State": "true"}, "image_dark",
         [("image_dark", "", True)]),
        ("tns1:Device/Trigger/DigitalInput", {"InputToken": "DIGIT_INPUT_3"}, {"LogicalState": "true"}, "alarm_input",
         [("input_active", "input3", True)]),
        ("tns1:RecordingConfig/JobState", {"RecordingJobToken": "Job1"}, {"State": "Active"}, "recording",
         [("recording", "", True)]),
        ("tns1:RecordingConfig/JobState", {"RecordingJobToken": "Job1"}, {"State": "Idle"}, "recording",
         [("recording", "", False)]),
        ("tns1:RuleEngine/CountAggregation/Counter", {"Rule": "Line1"}, {"Count": "12"}, "flow_counted",
         [("object_count_total", "line1", 12)]),
        ("tns1:RuleEngine/CountAggregation/Counter", {"Rule": "Lane 2"}, {"Count": "12", "ClassTypes": "Vehicle"},
         "flow_counted", [("vehicle_count_total", "lane2", 12)]),
        ("tns1:RuleEngine/CountAggregation/OccupancyCounter", {"Rule": "Hall"}, {"Count": "4", "ClassTypes": "Human"},
         "occupancy_counted", [("people_present", "rule19", 4)]),
        ("tns1:RuleEngine/Radiometry/TemperatureAlarm", {}, {"State": "true"}, "temperature_high", []),
        ("tnsacme:Parking/Full", {"Rule": "Li Lei's garden"}, {"State": "true", "Note": "Li Lei"}, "other", []),
    ],
)  # fmt: skip
def test_events(
    topic: str, source: dict[str, str], data: dict[str, str], word: str, readings: list[tuple[str, str, Any]]
) -> None:
    """Each leads to its word; those with a state or a count to a reading; of the same at the same time one identity."""
    report = decode_body("onvif_xml", event(topic, data, **source))
    (observation,) = report.observations
    assert observation.event is not None
    assert observation.event.type == word
    assert events_of(report) == readings
    assert observation.kind is (ObservationKind.COUNT if "Count" in data else ObservationKind.EVENT)
    assert "Li Lei" not in str(report)
    repeated = decode_body("onvif_xml", event(topic, data, "Initialized", **source))
    assert [measurement.key for measurement in repeated.measurements] == [
        measurement.key for measurement in report.measurements
    ]
    assert repeated.observations[0].id == observation.id


def test_a_property_that_is_deleted_is_no_longer_so() -> None:
    topic = "tns1:RuleEngine/FieldDetector/ObjectsInside"
    report = decode_body("onvif_xml", event(topic, {"ObjectId": "5"}, "Deleted", Rule="Field1"))
    assert events_of(report) == [("field_occupied", "zone1", False)]
    empty = decode_body("onvif_ej", b"", "cam7/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&1/2/Field1")
    assert events_of(empty) == [("field_occupied", "zone1", False)]
    assert empty.observations[0].time_quality == "received"
    with pytest.raises(Rejected, match="names no event"):
        decode_body("onvif_ej", b"", "cam7/other")


def test_temperatures_are_in_kelvin() -> None:
    reading = '<tt:ElementItem Name="Reading"><x:BoxTemperatureReading xmlns:x="u" ItemID="2" MaxTemperature="300.5" '
    reading += 'MinTemperature="290" AverageTemperature="295"/></tt:ElementItem>'
    report = decode_body("onvif_xml", event("tns1:RuleEngine/Radiometry/BoxTemperatureReading", {"<": reading}))
    assert events_of(report) == [
        ("surface_temperature", "max2", 300.5),
        ("surface_temperature", "min2", 290),
        ("surface_temperature", "mean2", 295),
    ]
    assert {measurement.unit for measurement in report.measurements} == {"K"}


def test_plates_of_events_are_hidden() -> None:
    info = "<tt:LicensePlateInfo><tt:PlateNumber Likelihood='0.9'>粤B12345</tt:PlateNumber></tt:LicensePlateInfo>"
    data = {"<": f'<tt:ElementItem Name="LicensePlateInfo">{info}</tt:ElementItem>', "FaceName": "Li Lei"}
    report = decode_body("onvif_xml", event("tns1:RuleEngine/Recognition/LicensePlate", data))
    (observation,) = report.observations
    assert observation.plate is not None
    assert (observation.plate.token, observation.plate.region) == (
        PSEUDONYMISER.plate("粤B12345", observation.observed_at),
        "粤B",
    )
    assert "12345" not in str(report)


def test_bridges_wrap_messages() -> None:
    wrapped = {
        "topic": "cam7/onvif-ej/RuleEngine/LineDetector/Crossed/&1/2/Line1",
        "payload": {"UtcTime": NOON, "Source": {}, "Data": {}},
    }
    (observation,) = decode_body("onvif_ej", wrapped).observations
    assert observation.event is not None
    assert (observation.event.type, observation.event.rule) == ("line_crossed", "Line1")


# ── strangers ────────────────────────────────────────────────────────────────────────────────────────

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + at)} "{f"&{chr(97 + at)};" * 10}">' for at in range(9))
    + "]><tt:Frame>&j;</tt:Frame>"
)


@pytest.mark.parametrize(
    "document",
    [
        BOMB,
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><tt:Frame/>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><tt:Frame>&x;</tt:Frame>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:1/x">%x;]><tt:Frame/>',
        "<tt:Frame>&undefined;</tt:Frame>",
        "<tt:Frame>" * 40 + "</tt:Frame>" * 40,
        "<tt:Frame " + " ".join(f"a{at}='1'" for at in range(80)) + "/>",
        "<tt:Frame/>" + "<a/>" * 60_000,
        "<tt:Frame><tt:Object></tt:Frame>",
        "<unknown:Frame/>",
        "<html/>",
        "text",
        "",
        "\x00",
        '<?xml version="1.0" encoding="EBCDIC"?><tt:Frame/>',
    ],
    ids=lambda name: name[:24],
)
def test_xml_of_strangers_is_refused(document: str) -> None:
    """Document types, entities, depth, attributes, sizes: refused without being looked up, and without a word of it."""
    with pytest.raises(Rejected) as why:
        decode_body("onvif_xml", document.encode())
    assert "passwd" not in str(why.value)
    assert "undefined" not in str(why.value)


def test_a_large_document_is_refused_before_it_is_read() -> None:
    with pytest.raises(Rejected, match="too_large"):
        decode_body("onvif_xml", b"<tt:Frame>" + b" " * xmlsafe.BYTES_MAX + b"</tt:Frame>")


def test_other_character_sets() -> None:
    head = '<?xml version="1.0" encoding="GB2312"?>'
    document = f'{head}<tt:Frame UtcTime="{NOON}"><tt:Object ObjectId="广州"/></tt:Frame>'
    (observation,) = decode_body("onvif_xml", document.encode("gb18030")).observations
    assert observation.track == PSEUDONYMISER.identifier("广州")


MEMBERS = sorted(
    split_words(
        "@UtcTime @Source Object @ObjectId Appearance Shape BoundingBox @left @top @right @bottom Class Type #text "
        "@Likelihood Transformation Scale Translate @x @y Frame SensorData Value Source Data Count State ObjectTree "
        "Split Merge from to Delete Behaviour Removed Speed Direction @yaw VehicleInfo LicensePlateInfo PlateNumber "
        "Extension Properties Property GeoLocation @lon @lat Reading @ItemID UtcTime"
    )
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["1", NOON])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=6),
    max_leaves=40,
)


@given(TREES)
def test_no_tree_crashes_it(tree: Any) -> None:
    """Whatever stands where: refused, or observations whose boxes lie in the image."""
    for name, body, topic in (
        ("onvif_mj", {"Frame": tree}, MJ),
        ("onvif_mj", {"SensorData": tree}, "cam7/onvif-mj/SensorData/Temperature"),
        ("onvif_ej", {"Data": tree, "Source": tree, "UtcTime": tree}, "cam7/onvif-ej/VideoSource/MotionAlarm"),
        ("onvif_mj", tree, MJ),
        ("onvif_ej", tree, "cam7/x"),
    ):
        try:
            report = decode_body(name, json.dumps(body).encode(), topic)
        except Rejected:
            continue
        for observation in report.observations:
            assert observation.box is None or all(0 <= side <= 1 for side in observation.box)
            assert observation.speed is None or math.isfinite(observation.speed)


@given(st.binary(max_size=200), st.text(max_size=60))
def test_no_bytes_crash_it(payload: bytes, topic: str) -> None:
    for name in ("onvif_xml", "onvif_mj", "onvif_ej"):
        with pytest.raises(Rejected) if not payload.strip() and name != "onvif_ej" else _maybe():
            decode_body(name, payload, topic)


class _maybe:  # noqa: N801 - a context like pytest.raises
    """Let a refusal pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, trace: object) -> bool:
        return isinstance(why, Rejected)
