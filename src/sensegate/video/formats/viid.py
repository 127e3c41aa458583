"""GA/T 1400 (VIID): objects of cameras and platforms, by their own requests or in notifications of a subscription.

What was seen becomes an observation; what a VideoLabel or a vendor's VehiclesFlow counted becomes readings, and so does
whether a camera of a catalogue is on line. That there is an image, a file or a case is told to nobody.
"""

from __future__ import annotations

from typing import Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason, RejectReason
from sensegate.video import boxes, codes
from sensegate.video.format import CameraInfo, Measurement, RejectedObject, VideoFormat, VideoReport
from sensegate.video.formats.viid_codes import CLASSES, COUNTING
from sensegate.video.formats.viid_records import (
    CatalogueRecord,
    FlowRecord,
    InvalidRecord,
    Sighting,
    VideoLabelRecord,
    ViidBody,
)
from sensegate.video.formats.viid_redaction import redact
from sensegate.video.observation import BoxQuality, ObjectClass, ObservationKind, Plate, VideoEvent, VideoObservation
from sensegate.video.times import RECEIVED
from sensegate.video.values import identity

MAKE: Final = "gat1400"
KMH: Final = 3.6
COUNTS: Final[dict[str, tuple[str, str]]] = {
    "PersonNum": ("people_present", "1"),
    "FaceNum": ("faces_present", "1"),
    "VehicleNum": ("vehicles_present", "1"),
    "NonMotorNum": ("nonmotors_present", "1"),
    "ThingNum": ("things_present", "1"),
    "TargetNum": ("objects_present", "1"),
    "PersonFlowRate": ("people_flow", "/h"),
    "VehicleFlowRate": ("traffic_flow", "/h"),
    "TotalTargetFlowRate": ("object_flow", "/h"),
    "PersonDensityAbs": ("people_density", "/m2"),
    "PersonDensityRlt": ("people_density_relative", "%"),
    "VehicleDensityAbs": ("vehicle_density", "/km"),
    "VehicleDensityRlt": ("vehicle_density_relative", "%"),
    "TargetDensityRlt": ("object_density_relative", "%"),
    "AvgSpeed": ("vehicle_speed_mean", "km/h"),
    "QueueLength": ("queue_length", "m"),
    "VehicleCount": ("vehicle_count", "1"),
    "Congestion": ("congestion_index", "1"),
}
"""Field -> property and unit."""
_decode = msgspec.json.Decoder(ViidBody).decode


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a cut body reports; see `form.VideoFormat`."""
    try:
        told = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected(QuarantineReason.SCHEMA, "not a body that was cut here") from None
    observations: list[VideoObservation] = []
    measured: list[Measurement] = []
    refused: list[RejectedObject] = []
    ignored = told.ignored
    for one in told.objects:
        match one:
            case Sighting():
                observations.append(_observation(one, camera))
                measured += _speed(one, camera)
            case VideoLabelRecord():
                ignored += not (happened := _label_event(one, camera)) and not one.counts
                observations += happened
                measured += _count_measurements(one, camera, "")
            case FlowRecord():
                measured += _flow_measurements(one, camera)
            case CatalogueRecord():
                ignored += not (found := _online_state(one))
                measured += found
            case InvalidRecord():
                refused.append(RejectedObject(one.index, RejectReason.WRONG_TYPE, one.detail))
            case _:
                ignored += 1
    if not (observations or measured or refused or ignored):
        ignored = 1  # an empty batch is none the worse
    return VideoReport(tuple(observations), tuple(measured), tuple(refused), ignored)


def _identity(one: Sighting | VideoLabelRecord | FlowRecord, kind: str) -> str:
    """Return what makes an object the same one: its id where that is one of the standard's, else all that tells it."""
    if one.unique_id:
        return identity("viid", kind, one.id)
    token = one.token if isinstance(one, Sighting) else ""
    lane = "" if isinstance(one, VideoLabelRecord) else one.lane
    return identity("viid", kind, one.id, one.camera, one.time, token, lane)


def _speed(one: Sighting, camera: CameraInfo) -> list[Measurement]:
    if not one.speed or one.kind != "MotorVehicle":
        return []
    lane = f"lane{one.lane}" if one.lane else ""
    key = f"{_identity(one, one.kind)}Speed"
    name = one.camera or camera.id
    return [Measurement(name, "vehicle_speed", one.speed, "km/h", one.time, one.time_quality or RECEIVED, key, lane)]


def _event(sort: int | None) -> str:
    word = "" if sort is None else codes.event(MAKE, sort)
    return "" if word == codes.OTHER else word


def _observation(one: Sighting, camera: CameraInfo) -> VideoObservation:
    box, quality = _box(one)
    plate = None
    if one.token or one.plate_color or one.plate_class:
        plate = Plate(
            one.token,
            one.region,
            codes.color(MAKE, one.plate_color) if one.plate_color else "",
            codes.plate_class(MAKE, one.plate_class) if one.plate_class else "",
            None if one.plate_reliability is None else one.plate_reliability / 100,
            one.number,
        )
    word = _event(one.event)
    return VideoObservation(
        id=_identity(one, one.kind),
        kind=ObservationKind.OBSERVATION,
        camera=one.camera or camera.id,
        observed_at=one.time,
        time_quality=one.time_quality or RECEIVED,
        format="viid",
        native_id=one.id,
        object_class=CLASSES[one.kind],
        subclass=codes.vehicle(MAKE, one.vehicle_class) if one.vehicle_class else "",
        box=box,
        box_quality=quality,
        image_size=one.size,
        confidence=_confidence(one),
        similarity=one.similarity,
        speed=None if one.speed is None else round(one.speed / KMH, 3),
        heading=codes.heading(MAKE, one.direction) if one.direction else None,
        lane=one.lane,
        plate=plate,
        color=codes.color(MAKE, one.color) if one.color else "",
        brand=one.brand,
        model=one.model,
        age_band=one.age_band,
        event=VideoEvent(word) if word else None,
        images=one.pictures,
        removed=one.removed,
    )


def _confidence(one: Sighting) -> float | None:
    """Return how sure it is: of a vehicle by its plate, of another by its similarity."""
    if CLASSES[one.kind] in {ObjectClass.VEHICLE, ObjectClass.NONMOTOR}:
        return None if one.plate_reliability is None else one.plate_reliability / 100
    return one.similarity


def _box(one: Sighting) -> tuple[boxes.Box | None, BoxQuality | None]:
    if one.box is None:
        return None, None
    if one.size is None:
        return None, BoxQuality.UNRESOLVED
    return boxes.from_pixels(*one.box, *one.size)


def _label_event(one: VideoLabelRecord, camera: CameraInfo) -> list[VideoObservation]:
    if one.event in COUNTING or not _event(one.event):
        return []
    label = VideoObservation(
        id=_identity(one, "VideoLabel"),
        kind=ObservationKind.EVENT,
        camera=one.camera or camera.id,
        observed_at=one.time,
        time_quality=one.time_quality or RECEIVED,
        format="viid",
        native_id=one.id,
        event=VideoEvent(_event(one.event)),
        analytics=one.analytics,
        removed=one.removed,
    )
    return [label]


def _count_measurements(one: VideoLabelRecord | FlowRecord, camera: CameraInfo, channel: str) -> list[Measurement]:
    key = _identity(one, "VideoLabel" if isinstance(one, VideoLabelRecord) else "VehiclesFlow")
    return [
        Measurement(
            one.camera or camera.id,
            *_count_property(name, value),
            one.time,
            one.time_quality or RECEIVED,
            f"{key}{name}",
            channel=channel,
        )
        for name, value in one.counts.items()
        if name in COUNTS
    ]


def _count_property(name: str, value: float) -> tuple[str, float, str]:
    prop, unit = COUNTS[name]
    return prop, value, unit


def _flow_measurements(one: FlowRecord, camera: CameraInfo) -> list[Measurement]:
    channel = f"lane{one.lane}" if one.lane else ""
    found = _count_measurements(one, camera, channel)
    if one.cycle_s and (count := one.counts.get("VehicleCount")) is not None:
        key = f"{_identity(one, 'VehiclesFlow')}rate"
        rate = round(count * 3_600 / one.cycle_s, 3)
        found.append(
            Measurement(
                one.camera or camera.id,
                "traffic_flow",
                rate,
                "/h",
                one.time,
                one.time_quality or RECEIVED,
                key,
                channel=channel,
            )
        )
    return found


def _online_state(one: CatalogueRecord) -> list[Measurement]:
    if one.online is None or one.kind != "APE":
        return []
    key = identity("viid", "APE", one.id, one.time, one.online)
    return [Measurement(one.camera, "online", float(one.online), "", one.time, one.time_quality or RECEIVED, key)]


FORMAT: Final = VideoFormat("viid", redact, decode)
