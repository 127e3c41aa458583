"""GA/T 1400 (VIID): objects sent by cameras and platforms, directly or in notifications of a subscription.

Sightings become observations; counts of a VideoLabel or a vendor's VehiclesFlow become readings, as does the online
state of a catalogued camera. The existence of images, files and cases is not reported.
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
    """Return what a redacted body reports; see `format.VideoFormat`."""
    try:
        body = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected(QuarantineReason.SCHEMA, "the message is not a redacted body") from None
    observations: list[VideoObservation] = []
    measured: list[Measurement] = []
    refused: list[RejectedObject] = []
    ignored = body.ignored
    for record in body.objects:
        match record:
            case Sighting():
                observations.append(_observation(record, camera))
                measured += _speed(record, camera)
            case VideoLabelRecord():
                ignored += not (happened := _label_event(record, camera)) and not record.counts
                observations += happened
                measured += _count_measurements(record, camera, "")
            case FlowRecord():
                measured += _flow_measurements(record, camera)
            case CatalogueRecord():
                ignored += not (online := _online_state(record))
                measured += online
            case InvalidRecord():
                refused.append(RejectedObject(record.index, RejectReason.WRONG_TYPE, record.detail))
            case _:
                ignored += 1
    if not (observations or measured or refused or ignored):
        ignored = 1  # an empty batch is valid
    return VideoReport(tuple(observations), tuple(measured), tuple(refused), ignored)


def _identity(record: Sighting | VideoLabelRecord | FlowRecord, kind: str) -> str:
    """Return the identity of an object: its id if that is unique, otherwise all its distinguishing fields."""
    if record.unique_id:
        return identity("viid", kind, record.id)
    token = record.token if isinstance(record, Sighting) else ""
    lane = "" if isinstance(record, VideoLabelRecord) else record.lane
    return identity("viid", kind, record.id, record.camera, record.time, token, lane)


def _speed(record: Sighting, camera: CameraInfo) -> list[Measurement]:
    if not record.speed or record.kind != "MotorVehicle":
        return []
    lane = f"lane{record.lane}" if record.lane else ""
    key = f"{_identity(record, record.kind)}Speed"
    name = record.camera or camera.id
    return [
        Measurement(
            name, "vehicle_speed", record.speed, "km/h", record.time, record.time_quality or RECEIVED, key, lane
        )
    ]


def _event(sort: int | None) -> str:
    word = "" if sort is None else codes.event(MAKE, sort)
    return "" if word == codes.OTHER else word


def _observation(record: Sighting, camera: CameraInfo) -> VideoObservation:
    box, quality = _box(record)
    plate = None
    if record.token or record.plate_color or record.plate_class:
        plate = Plate(
            record.token,
            record.region,
            codes.color(MAKE, record.plate_color) if record.plate_color else "",
            codes.plate_class(MAKE, record.plate_class) if record.plate_class else "",
            None if record.plate_reliability is None else record.plate_reliability / 100,
            record.number,
        )
    word = _event(record.event)
    return VideoObservation(
        id=_identity(record, record.kind),
        kind=ObservationKind.OBSERVATION,
        camera=record.camera or camera.id,
        observed_at=record.time,
        time_quality=record.time_quality or RECEIVED,
        format="viid",
        native_id=record.id,
        object_class=CLASSES[record.kind],
        subclass=codes.vehicle(MAKE, record.vehicle_class) if record.vehicle_class else "",
        box=box,
        box_quality=quality,
        image_size=record.size,
        confidence=_confidence(record),
        similarity=record.similarity,
        speed=None if record.speed is None else round(record.speed / KMH, 3),
        heading=codes.heading(MAKE, record.direction) if record.direction else None,
        lane=record.lane,
        plate=plate,
        color=codes.color(MAKE, record.color) if record.color else "",
        brand=record.brand,
        model=record.model,
        age_band=record.age_band,
        event=VideoEvent(word) if word else None,
        images=record.pictures,
        removed=record.removed,
    )


def _confidence(record: Sighting) -> float | None:
    """Return the confidence: of a vehicle that of its plate, otherwise the similarity."""
    if CLASSES[record.kind] in {ObjectClass.VEHICLE, ObjectClass.NONMOTOR}:
        return None if record.plate_reliability is None else record.plate_reliability / 100
    return record.similarity


def _box(record: Sighting) -> tuple[boxes.Box | None, BoxQuality | None]:
    if record.box is None:
        return None, None
    if record.size is None:
        return None, BoxQuality.UNRESOLVED
    return boxes.from_pixels(*record.box, *record.size)


def _label_event(record: VideoLabelRecord, camera: CameraInfo) -> list[VideoObservation]:
    if record.event in COUNTING or not _event(record.event):
        return []
    label = VideoObservation(
        id=_identity(record, "VideoLabel"),
        kind=ObservationKind.EVENT,
        camera=record.camera or camera.id,
        observed_at=record.time,
        time_quality=record.time_quality or RECEIVED,
        format="viid",
        native_id=record.id,
        event=VideoEvent(_event(record.event)),
        analytics=record.analytics,
        removed=record.removed,
    )
    return [label]


def _count_measurements(record: VideoLabelRecord | FlowRecord, camera: CameraInfo, channel: str) -> list[Measurement]:
    key = _identity(record, "VideoLabel" if isinstance(record, VideoLabelRecord) else "VehiclesFlow")
    return [
        Measurement(
            record.camera or camera.id,
            *_count_property(name, value),
            record.time,
            record.time_quality or RECEIVED,
            f"{key}{name}",
            channel=channel,
        )
        for name, value in record.counts.items()
        if name in COUNTS
    ]


def _count_property(name: str, value: float) -> tuple[str, float, str]:
    prop, unit = COUNTS[name]
    return prop, value, unit


def _flow_measurements(record: FlowRecord, camera: CameraInfo) -> list[Measurement]:
    channel = f"lane{record.lane}" if record.lane else ""
    measurements = _count_measurements(record, camera, channel)
    if record.cycle_s and (count := record.counts.get("VehicleCount")) is not None:
        key = f"{_identity(record, 'VehiclesFlow')}rate"
        rate = round(count * 3_600 / record.cycle_s, 3)
        measurements.append(
            Measurement(
                record.camera or camera.id,
                "traffic_flow",
                rate,
                "/h",
                record.time,
                record.time_quality or RECEIVED,
                key,
                channel=channel,
            )
        )
    return measurements


def _online_state(record: CatalogueRecord) -> list[Measurement]:
    if record.online is None or record.kind != "APE":
        return []
    key = identity("viid", "APE", record.id, record.time, record.online)
    return [
        Measurement(
            record.camera, "online", float(record.online), "", record.time, record.time_quality or RECEIVED, key
        )
    ]


FORMAT: Final = VideoFormat("viid", redact, decode)
