"""DeepStream, DL Streamer, Axis: what their messages report; of these and Frigate, that marks planted anywhere fall.

A mark is put in place of every value of a message, beside it and as the name of a new member, one after the other: what
`redact` lets through never holds it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo, Pseudonymiser, Redacted, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.observation import BoxQuality, ObjectClass, ObservationKind, TrackState
from sensegate.video.pseudonyms import KeyedPseudonymiser

NOW = 1_767_225_600_000_000
PSEUDONYMISER = KeyedPseudonymiser(b"test")
MARKS = (
    "Wang Xiaoming",
    "13800138000",
    "110101199003074219",
    "粤B12345",
    "data:image/jpeg;base64,/9j/4AAQ",
    "a.b@c.cn",
)
BOX = {"topleftx": 192, "toplefty": 108, "bottomrightx": 960, "bottomrighty": 540}
SIDES = {"left": 0.1, "top": 0.2, "right": 0.3, "bottom": 0.4}
FULL = {
    "messageid": "0c2b1d4e-7f3a-4d53-9a55-6f0c1b2a3d4e",
    "mdsversion": "1.0",
    "@timestamp": "2024-01-15T10:30:00.000Z",
    "place": {"id": "1", "name": "garage", "type": "t", "entrance": {"name": "north", "lane": 2}},
    "sensor": {"id": "CAM_1", "type": "Camera", "description": "d", "location": {"lat": 22.5, "lon": 114.1, "alt": 9}},
    "analyticsModule": {"id": "A_1", "description": "d", "source": "s", "version": "1.0"},
    "object": {
        "id": "5",
        "speed": 10,
        "direction": 90,
        "vehicle": {"type": "car", "make": "m", "model": "n", "color": "blue", "license": "T1", "licenseState": "X"},
        "bbox": BOX,
        "location": {"lat": 0, "lon": 0, "alt": 0},
    },
    "event": {"id": "e", "type": "exit"},
    "videoPath": "rtsp://u:p@h/1",
}
TEXT = {
    "version": "4.0",
    "id": "252",
    "@timestamp": "2024-01-15T10:30:01Z",
    "sensorId": "CAM_1",
    "objects": ["-1|192|108|960|540|Vehicle|#|sedan|Bugatti|M|blue|CA 444|California|0.8", "7|1|2|3|4|Person"],
}
DICTIONARIES = {
    "messageid": "m",
    "@timestamp": "2024-01-15T10:30:02Z",
    "sensorId": "CAM_1",
    "objects": [{"id": "18446744073709551615", "type": "bicycle", "confidence": 0.7, "bbox": BOX}],
}
FRAME = {
    "objects": [
        {
            "detection": {
                "bounding_box": {"x_max": 0.5, "x_min": 0.25, "y_max": 0.5, "y_min": 0.25},
                "confidence": 0.9,
                "label": "car",
                "label_id": 1,
            },
            "id": 2,
            "roi_type": "car",
            "color": {"label": "red", "confidence": 0.8, "model": {"name": "attributes"}},
            "license_plate": {"label": "粤B12345", "confidence": 0.7},
            "tensors": [{"data": [0.1]}],
        }
    ],
    "resolution": {"height": 1080, "width": 1920},
    "source": "rtsp://u:p@h/1",
    "timestamp": 66,
    "system_timestamp": "2026-01-15T05:00:00.123Z",
    "tags": {"camera": "cam-1", "owner": "o"},
}
SCENE = {
    "frame": {
        "timestamp": "2023-03-08T09:00:19.320111Z",
        "observations": [
            {
                "track_id": "1",
                "bounding_box": SIDES,
                "class": {"type": "Human", "score": 0.6, "upper_clothing_colors": [{"name": "White", "score": 0.7}]},
                "image": {"data": "/9j/", "bounding_box": SIDES},
            },
            {"track_id": "2", "class": {"type": "Car", "score": 0.6, "colors": [{"name": "Gray", "score": 0.7}]}},
        ],
        "operations": [{"type": "DeleteOperation", "id": "3"}, {"type": "RenameOperation", "from": "8", "to": "2"}],
    }
}
TRACK = {
    "id": "5b8b4da4-bd35-41e6-b4d3-564b761727d7",
    "classes": [{"type": "Human", "score": 0.7}, {"type": "Truck", "score": 0.8, "colors": [{"name": "Red"}]}],
    "start_time": "2024-05-13T15:21:39.320982Z",
    "end_time": "2024-05-13T15:21:40.319053Z",
    "duration": 1.0,
    "observations": [{"bounding_box": SIDES, "timestamp": "2024-05-13T15:21:39.889602Z"}] * 2,
    "image": {"data": "/9j/"},
}
COUNTS = {
    "topic": "axis:CameraApplicationPlatform/ObjectAnalytics/Device1Scenario1",
    "timestamp": 1670518346712,
    "serial": "ACCC8E00000A",
    "message": {
        "source": {},
        "key": {},
        "data": {
            "startTime": "2022-12-06T22:01:25Z",
            "reason": "car",
            "total": "3",
            "totalCar": "2",
            "totalHuman": "1",
        },
    },
}
TRACKED = {
    "type": "update",
    "after": {
        "id": "1607123955.475377-mxklsc",
        "camera": "gate",
        "frame_time": 1607123962.08,
        "label": "person",
        "sub_label": ["A", 0.9],
        "score": 0.9,
        "box": [1, 2, 3, 4],
        "current_zones": ["yard"],
    },
}
REVIEW = {
    "type": "end",
    "after": {
        "id": "1718987129.308396-fqk5ka",
        "camera": "gate",
        "start_time": 1718987129.3,
        "end_time": 1718987130.3,
        "severity": "alert",
        "thumb_path": "/media/x.webp",
        "data": {
            "detections": ["1718987128.947436-g92ztx"],
            "objects": ["person"],
            "sub_labels": ["B"],
            "zones": ["y"],
        },
    },
}
READ = {"type": "lpr", "id": "1607123955.4-mxklsc", "camera": "gate", "timestamp": 1607123958.7, "plate": "粤B12345"}
MESSAGES = [
    ("deepstream", FULL),
    ("deepstream", TEXT),
    ("deepstream", DICTIONARIES),
    ("dlstreamer", FRAME),
    ("axis", SCENE),
    ("axis", TRACK),
    ("axis", COUNTS),
    ("frigate", TRACKED),
    ("frigate", REVIEW),
    ("frigate", READ),
]
Cutter = Callable[[bytes, str, int, Pseudonymiser], Redacted]


def run(name: str, message: object, camera: CameraInfo = CameraInfo()) -> tuple[VideoReport, Redacted]:  # noqa: B008
    cut = FORMATS[name].redact(json.dumps(message).encode(), "t", NOW, PSEUDONYMISER)
    return FORMATS[name].decode(cut.payload, "t", NOW, camera), cut


# ── marks ────────────────────────────────────────────────────────────────────────────────────────────


def places(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path to every value, from the root on."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield from places(value, (*path, name))


def planted(tree: Any, mark: str) -> Iterator[Any]:
    """Yield the message with the mark in place of each value, in a text beside it, and as a member of each object."""
    for path in places(tree):
        for form in (mark, [mark], {"name": mark}):
            if path:
                yield _with(tree, path, partial(_instead, form))
        yield _with(tree, path, partial(_beside, mark))
        if path and isinstance(_at(tree, path), str):
            yield _with(tree, path, partial(_behind, mark))


def _instead(form: Any, _: Any) -> Any:
    return form


def _beside(mark: str, at: Any) -> Any:
    return {**at, mark: "x", "note": mark} if isinstance(at, dict) else at


def _behind(mark: str, at: Any) -> Any:
    return f"{at}|{mark}"


def _at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _with(tree: Any, path: tuple[str | int, ...], change: Callable[[Any], Any]) -> Any:
    whole = copy.deepcopy(tree)
    if not path:
        return change(whole)
    inner = _at(whole, path[:-1])
    inner[path[-1]] = change(inner[path[-1]])
    return whole


def leaks(cut: Cutter, message: Any) -> list[str]:
    """Return the marks that get through somewhere: into what is kept, the names of what was taken out, or a refusal."""
    leaks = []
    for mark in MARKS:
        for whole in planted(message, mark):
            try:
                kept = cut(json.dumps(whole).encode(), "t", NOW, PSEUDONYMISER)
            except Rejected as why:
                text = str(why)
            else:
                text = json.dumps(json.loads(kept.payload), ensure_ascii=False) + str(kept.removed)
            if mark in text:
                leaks.append(mark)
    return leaks


@pytest.mark.parametrize(("name", "message"), MESSAGES)
def test_marks_get_through_nowhere(name: str, message: Any) -> None:
    """Names, numbers of telephones, identity cards and plates, pictures and addresses, in whatever field they come."""
    assert leaks(FORMATS[name].redact, message) == []


def test_the_search_finds_marks() -> None:
    """A cut that lets everything through is caught with every mark."""
    assert {*leaks(lambda payload, *_: Redacted(payload), READ)} == {*MARKS}


# ── what they report ─────────────────────────────────────────────────────────────────────────────────


def test_deepstream_full() -> None:
    """One object with its place, lane, colour and hidden plate; the event says where its track stands."""
    result, cut = run("deepstream", FULL, CameraInfo(width=1920, height=1080, speed_unit="km/h"))
    event = result.observations[0]
    assert (event.kind, event.camera, event.object_class, event.subclass, event.color) == (
        ObservationKind.OBSERVATION, "CAM_1", ObjectClass.VEHICLE, "car", "blue",
    )  # fmt: skip
    assert (event.box, event.box_quality) == ((0.1, 0.1, 0.5, 0.5), BoxQuality.CAMERA)
    assert (event.speed, event.device_yaw, event.lane) == (2.7778, 90, 2)
    assert (event.event.type if event.event else "", event.track_state) == (
        "field_left",
        TrackState.END,
    )
    assert event.place is not None
    assert (event.place.lon, event.place.lat, event.place.source) == (114.1, 22.5, "camera")
    assert event.plate is not None
    assert cut.removed == {
        "analyticsModule.description": 1,
        "object.vehicle.license": 1,
        "object.vehicle.make": 1,
        "object.vehicle.model": 1,
        "place.entrance.name": 1,
        "place.name": 1,
        "sensor.description": 1,
        "videoPath": 1,
    }


def test_deepstream_minimal() -> None:
    """Objects as texts and as dictionaries; the greatest id, and -1, mean that there is no track."""
    camera = CameraInfo(width=1920, height=1080)
    first, second = run("deepstream", TEXT, camera)[0].observations
    assert (first.track, first.object_class, first.subclass, first.color, first.confidence) == (
        "", ObjectClass.VEHICLE, "car", "blue", 0.8,
    )  # fmt: skip
    assert (second.track, second.object_class) == ("7", ObjectClass.PERSON)
    third = run("deepstream", DICTIONARIES, camera)[0].observations[0]
    assert (third.track, third.object_class, third.subclass) == ("", ObjectClass.NONMOTOR, "bicycle")
    assert third.box == (0.1, 0.1, 0.5, 0.5)


def test_an_object_that_is_none_is_refused_alone() -> None:
    """The others of its message are taken."""
    result = run("deepstream", {**TEXT, "objects": ["1|2", 5, "7|1|2|3|4|Person"]})[0]
    assert [item.index for item in result.rejected] == [0, 1]
    assert len(result.observations) == 1


def test_dlstreamer() -> None:
    """Fractions as they are, the colour that a classifier gives, the camera by its tag, the plate hidden."""
    result, cut = run("dlstreamer", FRAME)
    event = result.observations[0]
    assert (event.camera, event.track, event.object_class, event.subclass, event.color) == (
        "cam-1", "2", ObjectClass.VEHICLE, "car", "red",
    )  # fmt: skip
    assert event.box == (0.25, 0.25, 0.5, 0.5)
    assert event.plate is not None
    assert (event.plate.region, event.plate.confidence) == ("粤B", 0.7)
    assert (event.observed_at, event.time_quality) == (1_768_453_200_123_000, "explicit")
    assert cut.removed == {"objects.license_plate": 1, "objects.tensors": 1, "source": 1, "tags.other": 1}


@pytest.mark.parametrize(
    ("written", "at", "quality"),
    [
        ("2026-01-15T13:00:00.123:%z", 1_768_453_200_123_000, "assumed_tz"),
        ("2026-01-15T13:00:00.123:+0800", 1_768_453_200_123_000, "explicit"),
        ("2026-01-15T13:00:00.123+08:00", 1_768_453_200_123_000, "explicit"),
        ("yesterday", NOW, "received"),
        (None, NOW, "received"),
    ],
)
def test_times_of_dlstreamer(written: str | None, at: int, quality: str) -> None:
    """The stream's own clock is never taken for a time of day."""
    observation = run("dlstreamer", {**FRAME, "system_timestamp": written})[0].observations[0]
    assert (observation.observed_at, observation.time_quality) == (at, quality)


def test_pixels_where_there_are_no_fractions() -> None:
    """Corner and size in pixels, by the resolution of the message itself."""
    region = {"x": 192, "y": 108, "w": 768, "h": 432, "roi_type": "car"}
    assert run("dlstreamer", {**FRAME, "objects": [region]})[0].observations[0].box == (0.1, 0.1, 0.5, 0.5)


def test_axis_scene() -> None:
    """Objects, and what becomes of tracks: one that is renamed ends, and the other says where it comes from."""
    result, cut = run("axis", SCENE)
    rows = [
        (observation.track, observation.parent_track, observation.track_state, observation.object_class)
        for observation in result.observations
    ]
    assert rows == [
        ("1", "", None, ObjectClass.PERSON),
        ("2", "8", None, ObjectClass.VEHICLE),
        ("3", "", TrackState.END, None),
        ("8", "", TrackState.END, None),
    ]
    assert result.observations[0].box == (0.1, 0.2, 0.3, 0.4)
    assert (result.observations[0].color, result.observations[1].color) == ("", "grey")
    assert cut.removed == {"observations.class.upper_clothing_colors": 1, "observations.image": 1}


def test_axis_track() -> None:
    """One observation of the whole track, of its likeliest class, where it ended."""
    result, cut = run("axis", TRACK)
    (observation,) = result.observations
    assert (observation.object_class, observation.subclass, observation.color, observation.track_state) == (
        ObjectClass.VEHICLE, "truck", "red", TrackState.END,
    )  # fmt: skip
    assert cut.removed == {"image": 1, "observations": 1}


def test_axis_counts() -> None:
    """Texts become counters by class; without a beginning they are what is in view."""
    result = run("axis", COUNTS)[0]
    assert [
        (measurement.property, measurement.channel, measurement.value, measurement.cumulative)
        for measurement in result.measurements
    ] == [
        ("object_count_total", "scenario1", 3, True),
        ("vehicle_count_total", "scenario1_car", 2, True),
        ("people_count_total", "scenario1", 1, True),
    ]
    area = copy.deepcopy(COUNTS)
    del area["message"]["data"]["startTime"]  # type: ignore[index]
    area["topic"] = "axis:CameraApplicationPlatform/ObjectAnalytics/Device2Scenario3"
    assert [
        (measurement.property, measurement.channel, measurement.cumulative)
        for measurement in run("axis", area)[0].measurements
    ] == [
        ("objects_present", "device2scenario3", False),
        ("vehicles_present", "device2scenario3_car", False),
        ("people_present", "device2scenario3", False),
    ]


def test_axis_alarm() -> None:
    """An event with a state is an observation and the reading of that state."""
    alarm = {
        "topic": "axis:CameraApplicationPlatform/VMD/Camera1Profile1",
        "timestamp": 1670518346712,
        "message": {"data": {"active": "0"}},
    }
    result = run("axis", alarm)[0]
    assert [(measurement.property, measurement.value, measurement.channel) for measurement in result.measurements] == [
        ("motion", False, "scenario1")
    ]
    assert result.observations[0].kind is ObservationKind.EVENT


@pytest.mark.parametrize(
    ("topic", "data", "expected"),
    [
        ("onvif:VideoSource/MotionAlarm", {"State": "1"}, [("motion", True)]),
        ("axis:VideoSource/Tampering", {"tampering": "0"}, [("tamper", False)]),
        ("onvif:Device/IO/DigitalInput", {"LogicalState": "true"}, [("input_active", True)]),
        ("axis:Device/Status/SystemReady", {"ready": "1"}, []),
        ("axis:VideoSource/LiveStreamAccessed", {"accessed": "1"}, []),
        ("axis:CameraApplicationPlatform/VMD/Camera1Profile1", {"note": "x"}, []),
    ],
)
def test_axis_events(topic: str, data: dict[str, str], expected: list[tuple[str, bool]]) -> None:
    """States by the last level of the topic that a table names; other events are known and mean nothing."""
    event = {"topic": topic, "timestamp": 1670518346712, "message": {"source": {"channel": "1"}, "data": data}}
    result = run("axis", event)[0]
    assert [(measurement.property, measurement.value) for measurement in result.measurements] == expected
    assert (len(result.observations), result.ignored) == ((1, 0) if expected else (0, 1))


@pytest.mark.parametrize("name", ["axis", "deepstream", "dlstreamer", "frigate"])
@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'"x"', b"{", b'{"a": 1}', b"\xff", b"[" * 5000, b"null"])
def test_rubbish_is_refused(name: str, payload: bytes) -> None:
    """It is never taken for an observation, and nothing but a refusal comes of it."""
    try:
        cut = FORMATS[name].redact(payload, "t", NOW, PSEUDONYMISER)
        decoded = FORMATS[name].decode(cut.payload, "t", NOW, CameraInfo())
    except Rejected:
        return
    assert (name, payload, decoded) == ("frigate", b"", VideoReport(ignored=1))


# ── anything ─────────────────────────────────────────────────────────────────────────────────────────

WORDS = sorted({step for _, message in MESSAGES for path in places(message) for step in path if isinstance(step, str)})
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "update", "new", "car", "1", "2024-01-15T10:30:00Z", "lpr", "1|2|3|4|5|Car", "DeleteOperation"]
    ),
    st.text(max_size=8),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=20,
)


@st.composite
def disturbed(draw: st.DrawFn) -> tuple[str, Any]:
    """Return a good message in which something is anything."""
    name, message = draw(st.sampled_from(MESSAGES))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(message))))
        message = _with(message, path, partial(_instead, draw(TREES)))
    return name, message


@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        ("deepstream", {"sensorId": "c1", "@timestamp": "2024-01-15T10:30:01Z", "objects": ["7|1|2|3|4|"]}, 1),
        ("frigate", {"cameras": {"": {"camera_fps": 5}, "c1": {"camera_fps": 5}}, "detectors": {}}, 1),
    ],
)
def test_an_empty_name_is_none(name: str, message: dict[str, Any], expected: int) -> None:
    """What passes no check is left out; it is not told as a name of its own."""
    cut = FORMATS[name].redact(json.dumps(message).encode(), "t/x", NOW, PSEUDONYMISER)
    decoded = FORMATS[name].decode(cut.payload, "t/x", NOW, CameraInfo(width=640, height=480))
    assert len(decoded.observations) + len(decoded.measurements) == expected
    assert b"object at" not in cut.payload


@given(disturbed() | st.tuples(st.sampled_from(["axis", "deepstream", "dlstreamer", "frigate"]), TREES))
def test_property_whatever_comes_is_cut_or_refused(given_one: tuple[str, Any]) -> None:
    """No message makes a format fail; what is cut can be read, and reading it twice gives the same."""
    name, message = given_one
    try:
        cut = FORMATS[name].redact(json.dumps(message).encode("utf-8", "surrogatepass"), "t/x", NOW, PSEUDONYMISER)
        decoded = FORMATS[name].decode(cut.payload, "t/x", NOW, CameraInfo(width=640, height=480))
    except Rejected:
        return
    assert decoded == FORMATS[name].decode(cut.payload, "t/x", NOW, CameraInfo(width=640, height=480))
    for observation in decoded.observations:
        assert len(observation.id) == 32
        assert observation.box is None or all(0 <= side <= 1 for side in observation.box)
