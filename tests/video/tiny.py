"""A small format of video metadata for tests of the walk: one object, or a count, in one JSON object."""

from __future__ import annotations

from typing import Any

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import allowlist
from sensegate.video.allowlist import (
    AllowListRedactor,
    allow_boolean,
    allow_number,
    allow_slug,
    allow_words,
    pseudonymise_plate,
)
from sensegate.video.format import CameraInfo, Measurement, Pseudonymiser, Redacted, VideoFormat, VideoReport
from sensegate.video.observation import ObjectClass, ObservationKind, Plate, TrackState, VideoObservation
from sensegate.video.values import identity

NAME = "tiny"
SHAPE: allowlist.ObjectRule = {
    "camera": allow_slug,
    "id": allowlist.allow_id,
    "at": allow_number(0, 4e15),
    "class": allow_words("person", "vehicle"),
    "plate": pseudonymise_plate,
    "sure": allow_number(0, 1),
    "track": allow_slug,
    "end": allow_boolean,
    "count": allow_number(0, 1e6),
    "lane": allow_number(1, 8),
}


def cut(payload: bytes, topic: str, received: int, pseudonymiser: Pseudonymiser) -> Redacted:
    tree = allowlist.decode_object(payload)
    at = tree.get("at")
    if at == "crash":
        return Redacted(str(1 / len(tree["nothing"])).encode())
    passing = AllowListRedactor(pseudonymiser, int(at) if isinstance(at, (int, float)) else received)
    return passing.result(passing.apply_object(tree, SHAPE))


def see(payload: bytes, topic: str, received: int, camera: CameraInfo) -> VideoReport:
    tree: dict[str, Any] = allowlist.decode_record(payload, dict)
    if "at" not in tree:
        raise Rejected(QuarantineReason.SCHEMA, "it has no time")
    name, at = tree.get("camera", camera.id), int(tree["at"])
    if "count" in tree:
        lane = f"lane{tree['lane']}" if "lane" in tree else ""
        key = identity(name, at, lane)
        return VideoReport(
            measurements=(Measurement(name, "object_count", tree["count"], "1", at, "explicit", key, lane),)
        )
    hidden = tree.get("plate")
    return VideoReport(
        observations=(
            VideoObservation(
                id=identity(name, tree.get("id", ""), at),
                kind=ObservationKind.OBSERVATION,
                camera=name,
                observed_at=at,
                time_quality="explicit",
                format=NAME,
                native_id=tree.get("id", ""),
                object_class=ObjectClass(tree["class"]) if "class" in tree else None,
                plate=Plate(hidden["token"], hidden["region"], number=hidden.get("number", "")) if hidden else None,
                confidence=tree.get("sure"),
                track=tree.get("track", ""),
                track_state=TrackState.END if tree.get("end") else None,
            ),
        )
    )


FORMAT = VideoFormat(NAME, cut, see)
PROFILE = """\
profile: acme/tiny-camera
version: 1
label: {zh: 测试相机, en: a camera of the tests}
source: made for the tests
messages:
  - topics: ["cam/{device}/meta"]
    format: video
    video: {format: tiny, keep: [first, best, last]}
  - topics: ["cam/{device}/seen/{zone}"]
    format: video
    video: {format: tiny}
  - topics: ["cam/{device}/alive"]
    format: text
    ignore: true
"""
