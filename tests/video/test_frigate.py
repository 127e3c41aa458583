"""Frigate: what each of its messages reports, and that nothing that says who somebody is gets through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.format import CameraInfo, Redacted, VideoReport
from sensegate.video.formats.frigate import FORMAT
from sensegate.video.observation import BoxQuality, ObjectClass, ObservationKind, TrackState
from sensegate.video.pseudonyms import KeyedPseudonymiser

NOW = 1_767_225_600_000_000
PSEUDONYMISER = KeyedPseudonymiser(b"test")
DEFAULT_CAMERA = CameraInfo()


def run(
    payload: object, topic: str = "frigate/events", camera: CameraInfo = DEFAULT_CAMERA
) -> tuple[VideoReport, Redacted]:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    cut = FORMAT.redact(data, topic, NOW, PSEUDONYMISER)
    return FORMAT.decode(cut.payload, topic, NOW, camera), cut


def after(**members: Any) -> dict[str, Any]:
    return {
        "id": "1607123955.475377-mxklsc",
        "camera": "gate",
        "frame_time": 1607123962.082975,
        "label": "car",
        **members,
    }


@pytest.mark.parametrize(("kind", "expected"), [("new", ObservationKind.OBSERVATION), ("end", ObservationKind.EVENT)])
def test_a_track(kind: str, expected: ObservationKind) -> None:
    """Box by the size of the camera's profile, speed by its unit, zones, and where the track stands."""
    message = {
        "type": kind,
        "before": None,
        "after": after(box=[128, 72, 640, 360], current_estimated_speed=36, score=0.5),
    }
    result, _ = run(message, camera=CameraInfo(width=1280, height=720))
    observation = result.observations[0]
    assert (observation.kind, observation.track_state, observation.object_class, observation.subclass) == (
        expected, TrackState(kind), ObjectClass.VEHICLE, "car",
    )  # fmt: skip
    assert observation.box == (0.1, 0.1, 0.5, 0.5)
    assert observation.box_quality is BoxQuality.CAMERA
    assert observation.speed == 10
    assert (observation.observed_at, observation.time_quality) == (1_607_123_962_082_975, "explicit")


def test_a_track_of_a_camera_of_unknown_size_has_no_box() -> None:
    """Pixels of an unknown image are no box, and it is said that there was one."""
    observation = run({"type": "new", "after": after(box=[1, 2, 3, 4])})[0].observations[0]
    assert observation.box is None
    assert observation.box_quality is BoxQuality.UNRESOLVED


def test_cameras_of_one_box_may_have_sizes_of_their_own() -> None:
    """By the name of the camera; others have the size of most."""
    both = CameraInfo(width=1280, height=720, sizes={"gate": (640, 360)})
    message = {"type": "new", "after": after(box=[64, 36, 320, 180])}
    observation = run(message, camera=both)[0].observations[0]
    assert (observation.box, observation.image_size) == ((0.1, 0.1, 0.5, 0.5), (640, 360))
    message["after"]["camera"] = "yard"  # type: ignore[index]
    observation = run(message, camera=both)[0].observations[0]
    assert (observation.box, observation.image_size) == ((0.05, 0.05, 0.25, 0.25), (1280, 720))


def test_sent_again_it_is_the_same() -> None:
    """The identity does not depend on what of it came before; another frame is another observation."""
    first = run({"type": "new", "before": None, "after": after()})[0].observations[0]
    repeated = run({"type": "new", "before": after(), "after": after()})[0].observations[0]
    later = run({"type": "new", "after": after(frame_time=1607123963.0)})[0].observations[0]
    assert first.id == repeated.id != later.id


MARK = "Wang Xiaoming 13800138000"


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "members",
    [
        {"sub_label": MARK},
        {"sub_label": [MARK, 0.9]},
        {"recognized_license_plate": MARK},
        {"attributes": {MARK: 0.5}},
        {"current_attributes": [{"label": MARK}]},
        {"snapshot": {"note": MARK}},
        {"thumbnail": MARK},
        {"label": MARK},
        {"id": MARK},
        {"camera": MARK},
        {"current_zones": [MARK]},
        {"score": MARK},
        {"box": [MARK] * 4},
        {"end_time": MARK},
        {MARK: 1},
        {"WangXiaoming": 1},
    ],
    ids=lambda members: next(iter(members)),
)
def test_who_it_is_stays_out(place: str, members: dict[str, Any]) -> None:
    """Names, plates and texts are in no field of what is kept, whatever field they come in."""
    whole = {"type": "update", "before": after(), "after": after()}
    whole[place] = after(**members)
    cut = FORMAT.redact(json.dumps(whole).encode(), "frigate/events", NOW, PSEUDONYMISER)
    assert b"Xiaoming" not in cut.payload
    assert b"13800138000" not in cut.payload
    assert not any("Xiaoming" in name for name in cut.removed)


def test_what_was_taken_out_is_counted_by_field() -> None:
    """By the name of the field, not by what stood in it; a field that is null is not counted."""
    cut = run({"type": "new", "before": None, "after": after(sub_label=["A", 0.1], thumbnail=None)})[1]
    assert cut.removed == {"after.sub_label": 1}


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        ("frigate/gate/person", b"3", ("people_present", 3, "")),
        ("frigate/gate/car", b"2", ("vehicles_present", 2, "car")),
        ("frigate/gate/car/active", b"1", ("vehicles_present", 1, "car_active")),
        ("frigate/gate/all", b"5", ("objects_present", 5, "")),
        ("frigate/gate/all/active", b"5", ("objects_present", 5, "active")),
        ("frigate/gate/dog", b"1", ("animals_present", 1, "dog")),
        ("frigate/gate/motion", b"ON", ("motion", True, "")),
        ("frigate/gate/detect/state", b"OFF", ("detection_enabled", False, "")),
        ("frigate/gate/recordings/state", b"ON", ("recording", True, "")),
        ("frigate/gate/review_status", b"ALERT", ("review_state", "alert", "")),
        ("frigate/gate/status/detect", b"offline", ("online", False, "")),
        ("frigate/gate/status/record", b"online", ("online", True, "record")),
        ("frigate/gate/audio/scream", b"ON", ("sound_abnormal", True, "scream")),
        ("frigate/available", b"online", ("online", True, "")),
        ("deep/prefix/frigate/available", b"offline", ("online", False, "")),
    ],
)
def test_counts_and_states(topic: str, payload: bytes, expected: tuple[object, ...]) -> None:
    """Words and numbers become ordinary readings, by the end of their topic."""
    measurement = run(payload, topic)[0].measurements[0]
    assert (measurement.property, measurement.value, measurement.channel) == expected


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("frigate/gate/person/snapshot", b"\xff\xd8\xff\xe0 a picture"),
        ("frigate/gate/audio/transcription", "他说…".encode()),
        ("frigate/gate/snapshots/state", b"ON"),
        ("frigate/gate/audio/speech", b"ON"),
        ("frigate/gate/audio/dBFS", b"-40.1"),
        ("frigate/gate/motion", b""),
        ("frigate/camera_activity", b'{"gate": {"motion": true}}'),
    ],
)
def test_what_means_nothing_here(topic: str, payload: bytes) -> None:
    """Pictures, texts and settings are known, and nothing of them is kept."""
    result, cut = run(payload, topic)
    assert result == VideoReport(ignored=1)
    assert cut.payload == b'{"is":"nothing"}'


def test_rates() -> None:
    """The statistics give each camera's rate, at their own time."""
    stats = {
        "cameras": {"gate": {"camera_fps": 5.1, "pid": 1}, "yard": {"camera_fps": None}},
        "detectors": {},
        "service": {"last_updated": 1_767_225_000},
    }
    result = run(stats, "frigate/stats")[0]
    assert [
        (measurement.camera, measurement.property, measurement.value, measurement.time)
        for measurement in result.measurements
    ] == [("gate", "frame_rate", 5.1, 1_767_225_000_000_000)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"type": "new", "after": {', QuarantineReason.MALFORMED),
        (b'{"type": []}', QuarantineReason.SCHEMA),
        (b'{"type": "new", "after": {"id": "x"}}', QuarantineReason.SCHEMA),
        (b"[1]", QuarantineReason.SCHEMA),
        (b'{"a": "\xff"}', QuarantineReason.NOT_UTF8),
        (b"many", QuarantineReason.SCHEMA),
        (b"two words", QuarantineReason.SCHEMA),
    ],
)
def test_what_is_no_message_of_frigate(payload: bytes, reason: QuarantineReason) -> None:
    """It is refused, and the refusal quotes nothing."""
    with pytest.raises(Rejected) as caught:
        run(payload)
    assert caught.value.reason is reason
