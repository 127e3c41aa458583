"""A small format of video metadata for tests of the walk: one object, or a count, in one JSON object."""

from __future__ import annotations

from typing import Any

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import allowlist
from sensegate.video.allowlist import Sieve, flag, number, one_of, plate, slug
from sensegate.video.format import Camera, Cut, Measured, Seen, Veil, VideoFormat
from sensegate.video.observation import Kind, ObjectClass, Plate, TrackState, VideoObservation
from sensegate.video.values import identity

NAME = "tiny"
SHAPE: allowlist.Shape = {
    "camera": slug,
    "id": allowlist.identity,
    "at": number(0, 4e15),
    "class": one_of("person", "vehicle"),
    "plate": plate,
    "sure": number(0, 1),
    "track": slug,
    "end": flag,
    "count": number(0, 1e6),
    "lane": number(1, 8),
}


def cut(payload: bytes, topic: str, received: int, veil: Veil) -> Cut:
    tree = allowlist.read_object(payload)
    at = tree.get("at")
    if at == "crash":
        return Cut(str(1 / len(tree["nothing"])).encode())
    passing = Sieve(veil, int(at) if isinstance(at, (int, float)) else received)
    return passing.cut(passing.object(tree, SHAPE))


def see(payload: bytes, topic: str, received: int, camera: Camera) -> Seen:
    tree: dict[str, Any] = allowlist.typed(payload, dict)
    if "at" not in tree:
        raise Rejected(QuarantineReason.SCHEMA, "it has no time")
    name, at = tree.get("camera", camera.id), int(tree["at"])
    if "count" in tree:
        lane = f"lane{tree['lane']}" if "lane" in tree else ""
        key = identity(name, at, lane)
        return Seen(measured=(Measured(name, "object_count", tree["count"], "1", at, "explicit", key, lane),))
    hidden = tree.get("plate")
    return Seen(
        observations=(
            VideoObservation(
                id=identity(name, tree.get("id", ""), at),
                kind=Kind.OBSERVATION,
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
