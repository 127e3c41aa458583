"""Observations written for a platform above are read back by it as the same observations."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.video import codes
from sensegate.video.format import CameraInfo
from sensegate.video.formats.viid import FORMAT
from sensegate.video.formats.viid_write import KINDS, to_viid_object, with_peer_camera
from sensegate.video.observation import BoxQuality, ObjectClass, ObservationKind, Plate, VideoEvent, VideoObservation
from sensegate.video.pseudonyms import KeyedPseudonymiser

CAMERA = "44010600001190000001"
THERE = "33010101001210000009"
PSEUDONYMISER = KeyedPseudonymiser(b"a key of tests")
COLORS = sorted(set(codes.WORDS["color", "gat1400"].values()))
VEHICLES = sorted(set(codes.WORDS["vehicle", "gat1400"].values()))
EVENTS = sorted(set(codes.WORDS["event", "gat1400"].values()) - {"other"})
HEADINGS = sorted({float(word) for word in codes.WORDS["heading", "gat1400"].values()})


def read(observation: VideoObservation, names: dict[str, str] | None = None) -> VideoObservation:
    """Return what a platform above reads."""
    made = to_viid_object(observation, CAMERA)
    assert made is not None
    made = with_peer_camera(made, names or {})
    body = msgspec.json.encode({f"{made.kind}ListObject": {f"{made.kind}Object": [made.fields]}})
    [result] = FORMAT.decode(FORMAT.redact(body, "http/x", 0, PSEUDONYMISER).payload, "", 0, CameraInfo()).observations
    return result


@st.composite
def vehicles(draw: st.DrawFn) -> VideoObservation:
    def maybe(values: st.SearchStrategy[object]) -> object:
        return draw(st.none() | values)

    size = (draw(st.integers(16, 8_000)), draw(st.integers(16, 8_000)))
    left, right = sorted(draw(st.tuples(st.integers(0, size[0]), st.integers(1, size[0]))))
    top, bottom = sorted(draw(st.tuples(st.integers(0, size[1]), st.integers(1, size[1]))))
    sides = ((left, size[0]), (top, size[1]), (right, size[0]), (bottom, size[1]))
    token = draw(st.from_regex(r"[0-9a-f]{24}", fullmatch=True))
    plate = Plate(token, "粤B", draw(st.sampled_from(COLORS)), "02", draw(st.integers(0, 100)) / 100)
    event = maybe(st.sampled_from(EVENTS))
    return VideoObservation(
        id="0123456789abcdef0123456789abcdef",
        kind=ObservationKind.OBSERVATION,
        camera=CAMERA,
        observed_at=draw(st.integers(946_684_800_000, 4_000_000_000_000)) * 1_000,
        time_quality="assumed_tz",
        format="viid",
        object_class=draw(st.sampled_from([ObjectClass.VEHICLE, ObjectClass.NONMOTOR])),
        subclass=draw(st.sampled_from(["", *VEHICLES])),
        box=tuple(round(part / whole, 6) for part, whole in sides),  # type: ignore[arg-type] # four
        box_quality=BoxQuality.EXPLICIT,
        image_size=size,
        confidence=plate.confidence,
        speed=draw(st.sampled_from([None, 0.0, 2.222, 10.0, 33.333])),
        heading=maybe(st.sampled_from(HEADINGS)),  # type: ignore[arg-type] # of these
        lane=maybe(st.integers(1, 99)),  # type: ignore[arg-type] # of these
        plate=plate,
        color=draw(st.sampled_from(["", *COLORS])),
        brand=draw(st.sampled_from(["", "1", "A12"])),
        event=VideoEvent(str(event)) if event else None,
        images=1,
    )


@given(vehicles())
def test_property_a_vehicle_comes_back(vehicle: VideoObservation) -> None:
    observation = read(vehicle)
    assert observation.box is not None
    assert vehicle.box is not None
    assert observation.box == pytest.approx(vehicle.box, abs=2e-6)
    same = {"id": vehicle.id, "native_id": "", "box": vehicle.box}
    assert msgspec.structs.replace(observation, **same) == vehicle
    assert read(vehicle) == observation  # the same each time: a retransmission is told


@given(st.sampled_from([item for item in KINDS if item not in {ObjectClass.VEHICLE, ObjectClass.NONMOTOR}]))
def test_property_of_people_only_what_an_observation_holds(seen_as: ObjectClass) -> None:
    observation = VideoObservation(
        id="0123456789abcdef0123456789abcdef",
        kind=ObservationKind.OBSERVATION,
        camera=CAMERA,
        observed_at=1_768_442_400_000_000,
        time_quality="assumed_tz",
        format="onvif_mj",
        object_class=seen_as,
        similarity=0.5,
    )
    reread = read(observation)
    assert (reread.object_class, reread.similarity, reread.observed_at) == (seen_as, 0.5, observation.observed_at)


def test_codes_of_another_platform() -> None:
    observation = VideoObservation(
        id="0123456789abcdef0123456789abcdef",
        kind=ObservationKind.OBSERVATION,
        camera=CAMERA,
        observed_at=1_768_442_400_000_000,
        time_quality="assumed_tz",
        format="viid",
        object_class=ObjectClass.FACE,
    )
    reread = read(observation, {CAMERA: THERE})
    assert reread.camera == THERE
    assert reread.native_id.startswith(THERE)


def test_events_and_cameras_without_a_code_are_not_sent() -> None:
    observation = VideoObservation(
        id="0" * 32, kind=ObservationKind.EVENT, camera="x", observed_at=0, time_quality="explicit", format="viid"
    )
    assert to_viid_object(observation, CAMERA) is None
    changed = msgspec.structs.replace(observation, kind=ObservationKind.OBSERVATION, object_class=ObjectClass.FACE)
    assert to_viid_object(changed, "front_door") is None
