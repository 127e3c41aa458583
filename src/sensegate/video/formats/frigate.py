"""Frigate over MQTT: tracked objects, reviews, triggers, counts and states of cameras and zones, rates.

One topic tree (``frigate/…``) carries JSON of several shapes, plain words and numbers, and pictures. JSON is told apart
by its members, for the prefix of the topics is the operator's choice; words and numbers by the end of their topic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import boxes, codes
from sensegate.video.allowlist import (
    REMOVED,
    Check,
    ListOf,
    ObjectRule,
    Redactor,
    allow_boolean,
    allow_slug,
    allow_words,
    decode_object,
    decode_record,
    pseudonymise_plate,
)
from sensegate.video.allowlist import allow_number as within
from sensegate.video.format import CameraInfo, Measurement, Pseudonymiser, Redacted, VideoFormat, VideoReport
from sensegate.video.formats.detector import (
    SPEEDS,
    NamingRedactor,
    add_removed,
    allow_camera,
    allow_class,
    ignore_field,
    member_names,
    presence_property,
    split_class,
)
from sensegate.video.observation import (
    BoxQuality,
    ObjectClass,
    ObservationKind,
    Plate,
    TrackState,
    VideoEvent,
    VideoObservation,
)
from sensegate.video.times import RECEIVED, TimeResult, epoch, received
from sensegate.video.values import identity, number

NAME: Final = "frigate"
LABELS_MAX: Final = 64
_EPOCH: Final = within(0, 4e9)
_PART: Final = within(0, 1)
_PIXEL: Final = within(-65_536, 65_536)
_ID = re.compile(r"\d{9,10}(?:\.\d{1,7})?-[a-z0-9]{1,12}", re.ASCII)
_WORD = re.compile(rb"[A-Za-z0-9_.+-]{1,32}")


def _allow_own_id(value: Any, sieve: Redactor) -> Any:
    """Let an id as Frigate makes them pass; hide any other."""
    if not isinstance(value, str) or not value:
        return REMOVED
    return value if _ID.fullmatch(value) else sieve.pseudonymiser.identifier(value)


def _allow_review_label(value: Any, sieve: Redactor) -> Any:
    """Let the label of a review's object pass (``person``, ``person-verified``)."""
    return _CLASS(value.removesuffix("-verified"), sieve) if isinstance(value, str) else REMOVED


_CLASS: Final[Check] = allow_class(NAME)
_ID_SHAPE: Final[dict[str, Any]] = {"id": _allow_own_id, "camera": allow_camera}

TRACK: Final[ObjectRule] = {
    **_ID_SHAPE,
    "frame_time": _EPOCH,
    "start_time": _EPOCH,
    "end_time": _EPOCH,
    "label": _CLASS,
    "score": _PART,
    "top_score": ignore_field,
    "box": ListOf(_PIXEL, 4),
    "current_zones": ListOf(allow_slug, LABELS_MAX),
    "entered_zones": ignore_field,
    "current_estimated_speed": within(0, 1_000),
    "velocity_angle": within(-360, 360),
    "recognized_license_plate": pseudonymise_plate,
    "recognized_license_plate_score": _PART,
    "has_snapshot": allow_boolean,
    **dict.fromkeys(
        (
            "has_clip",
            "snapshot",
            "false_positive",
            "area",
            "ratio",
            "region",
            "active",
            "stationary",
            "motionless_count",
            "position_changes",
            "average_estimated_speed",
            "max_severity",
            "pending_loitering",
        ),
        ignore_field,
    ),
}
"""Members of an event's ``after``."""
REVIEW: Final[ObjectRule] = {
    **_ID_SHAPE,
    "start_time": _EPOCH,
    "end_time": _EPOCH,
    "severity": allow_words("alert", "detection"),
    "data": {
        "detections": ListOf(_allow_own_id, 1_000),
        "objects": ListOf(_allow_review_label, LABELS_MAX),
        "zones": ListOf(allow_slug, LABELS_MAX),
    },
}
UPDATE: Final[ObjectRule] = {
    **_ID_SHAPE,
    "type": allow_words("face", "lpr", "classification", "description"),
    "timestamp": _EPOCH,
    "score": _PART,
    "plate": pseudonymise_plate,
    "plate_box": ListOf(_PIXEL, 4),
    "model": allow_slug,
}
TRIGGER: Final[ObjectRule] = {
    "name": allow_slug,
    "camera": allow_camera,
    "event_id": _allow_own_id,
    "type": allow_words("thumbnail", "description"),
    "score": _PART,
}
_NAMES: Final = member_names(TRACK, REVIEW, UPDATE, TRIGGER) | {
    "type", "before", "after", "sub_label", "sub_labels", "audio", "attributes", "current_attributes", "thumbnail",
    "thumb_path", "path_data", "description", "attribute", "metadata", "snapshot", "transcription", "payload",
}  # fmt: skip
"""What it calls its fields."""


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="is"):
    """What all have."""

    removed: tuple[str, ...] = ()


class FrigateTrack(_Record, frozen=True, tag="track"):
    """A tracked object."""

    type: Literal["new", "update", "end"]
    id: str
    camera: str
    frame_time: float | None = None
    label: str = ""
    score: float | None = None
    box: tuple[float, ...] = ()
    current_zones: tuple[str, ...] = ()
    start_time: float | None = None
    end_time: float | None = None
    current_estimated_speed: float | None = None
    velocity_angle: float | None = None
    recognized_license_plate: Plate | None = None
    recognized_license_plate_score: float | None = None
    has_snapshot: bool = False


class FrigateReviewData(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a review is about."""

    detections: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()


class FrigateReview(_Record, frozen=True, tag="review"):
    """A time span that somebody should look at."""

    type: Literal["new", "update", "end"]
    id: str
    camera: str
    start_time: float
    severity: Literal["alert", "detection"]
    end_time: float | None = None
    data: FrigateReviewData = FrigateReviewData()


class FrigateUpdate(_Record, frozen=True, tag="update"):
    """What another model found out of a tracked object."""

    type: Literal["face", "lpr", "classification", "description"]
    id: str
    camera: str = ""
    timestamp: float | None = None
    score: float | None = None
    plate: Plate | None = None
    plate_box: tuple[float, ...] = ()
    model: str = ""


class FrigateTrigger(_Record, frozen=True, tag="trigger"):
    """A tracked object looks like what somebody searches for."""

    camera: str
    name: str = ""
    event_id: str = ""
    type: str = ""
    score: float | None = None


class FrigateValue(_Record, frozen=True, tag="value"):
    """A count or state of what the topic names."""

    property: str
    value: float | bool | str
    unit: str = ""
    channel: str = ""


class FrigateCameraRate(msgspec.Struct, frozen=True):
    """How many pictures a second come of a camera."""

    camera: str
    fps: float


class FrigateRates(_Record, frozen=True, tag="rates"):
    """Statistics of all cameras."""

    cameras: tuple[FrigateCameraRate, ...] = ()
    time: float | None = None


class FrigateIgnored(_Record, frozen=True, tag="nothing"):
    """A message that is known and means nothing here: pictures, settings, texts."""


_Message: TypeAlias = (
    FrigateTrack | FrigateReview | FrigateUpdate | FrigateTrigger | FrigateValue | FrigateRates | FrigateIgnored
)

_TYPES: Final = frozenset({"new", "update", "end"})
_GENERATED: Final = "genai"
"""Type of a review of which a language model tells: its texts do not pass, and the rest has been told."""
_UPDATES: Final = frozenset({"face", "lpr", "classification", "description"})
_ON_OFF: Final = {"on": True, "off": False}
_ONLINE: Final = {"online": True, "offline": False, "disabled": False}
_REVIEWS: Final = {"none": "none", "detection": "detection", "alert": "alert"}
_STATES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "available": ("online", {**_ONLINE, "stopped": False}),
    "motion": ("motion", _ON_OFF),
    "review_status": ("review_state", _REVIEWS),
    "detect/state": ("detection_enabled", _ON_OFF),
    "recordings/state": ("recording", _ON_OFF),
}
"""End of the topic -> (property, word -> value)."""
_KNOWN: Final = frozenset(
    {
        "state",
        "snapshot",
        "clips",
        "transcription",
        "onConnect",
        "camera_activity",
        "restart",
        "job_state",
        "model_state",
        "embeddings_reindex_progress",
        "audio_transcription",
    }
)
"""Ends of topics whose messages mean nothing here: settings, pictures, texts."""


def redact(payload: bytes, topic: str, arrival: int, veil: Pseudonymiser) -> Redacted:
    """Cut a message down. Raises `Rejected`: neither JSON of a known shape nor a known word."""
    sieve = NamingRedactor(veil, arrival, _NAMES)
    if not payload:  # how a retained message is taken back
        return sieve.result({"is": "nothing"})
    if payload.lstrip()[:1] not in {b"{", b"["}:
        return sieve.result(_redact_word(payload, topic.split("/"), sieve))
    return _redact_json(decode_object(payload), topic, sieve)


def _redact_json(tree: dict[str, Any], topic: str, sieve: NamingRedactor) -> Redacted:
    after, kind = tree.get("after"), tree.get("type")
    kind = kind if isinstance(kind, str) else ""
    if isinstance(after, dict) and kind in _TYPES:
        return _redact_change(tree, after, sieve)
    if kind == _GENERATED and isinstance(after, dict):
        sieve.out("after.data", after.get("data"))
        return sieve.result({"is": "nothing"})
    if kind in _UPDATES and "id" in tree:
        return _redact_update(tree, sieve)
    if "event_id" in tree:
        return _result("trigger", sieve.apply_object(tree, TRIGGER), sieve)
    if isinstance(tree.get("cameras"), dict) and "detectors" in tree:
        return sieve.result(_redact_rates(tree, sieve))
    if topic.rpartition("/")[2] in _KNOWN:
        return sieve.result(_ignore(topic, tree, sieve))
    raise Rejected(QuarantineReason.SCHEMA, "JSON, but no event, review, update, trigger or statistics of Frigate")


def _result(name: str, kept: dict[str, Any], sieve: NamingRedactor) -> Redacted:
    return sieve.result({"is": name, **kept, **sieve.removed_member()})


def _redact_change(tree: dict[str, Any], after: dict[str, Any], sieve: NamingRedactor) -> Redacted:
    """Cut an event or a review: only what is now counts; what was before has been told."""
    is_review = "severity" in after or "thumb_path" in after
    if not is_review and (moment := number(after.get("frame_time"))) is not None and (at := epoch(moment)):
        sieve.seen_at = at[0]
    for name in tree.keys() - {"type", "before", "after"}:
        sieve.out(name, tree[name])
    if tree.get("before"):
        _count_former_state("before", tree["before"], after, sieve)
    kept = sieve.apply_object(after, REVIEW if is_review else TRACK, "after")
    if "recognized_license_plate" in kept:
        sieve.out("after.recognized_license_plate", after["recognized_license_plate"])
    return _result("review" if is_review else "track", {"type": tree["type"], **kept}, sieve)


def _count_former_state(path: str, before: Any, after: dict[str, Any], sieve: NamingRedactor) -> None:
    """Count what is taken out with the former state as a whole: what it says of persons, by field."""
    inner = NamingRedactor(sieve.pseudonymiser, sieve.seen_at, _NAMES)
    if isinstance(before, dict):
        inner.apply_object(before, REVIEW if "severity" in after else TRACK, path)
        if before.get("recognized_license_plate"):
            inner.out(f"{path}.recognized_license_plate", before["recognized_license_plate"])
    else:
        inner.out(path, before)
    add_removed(sieve, inner)


def _redact_update(tree: dict[str, Any], sieve: NamingRedactor) -> Redacted:
    if (moment := number(tree.get("timestamp"))) is not None and (at := epoch(moment)):
        sieve.seen_at = at[0]
    kept = sieve.apply_object(tree, UPDATE)
    if "plate" in kept:
        sieve.out("plate", tree["plate"])
    return _result("update", kept, sieve)


def _redact_rates(tree: dict[str, Any], sieve: NamingRedactor) -> dict[str, Any]:
    cameras = []
    for name, members in tree["cameras"].items():
        fps = number(members.get("camera_fps"), 0, 1_000) if isinstance(members, dict) else None
        if fps is not None and (camera := allow_camera(name, sieve)) is not REMOVED:
            cameras.append({"camera": camera, "fps": fps})
    service = tree.get("service")
    at = number(service.get("last_updated"), 0, 4e9) if isinstance(service, dict) else None
    return {"is": "rates", "cameras": cameras, **({} if at is None else {"at": at})}


def _ignore(topic: str, value: Any, sieve: NamingRedactor) -> dict[str, Any]:
    end = topic.rpartition("/")[2]
    if end not in {"state", "onConnect", "restart"}:
        sieve.out(end, value)
    return {"is": "nothing"}


def _redact_word(payload: bytes, levels: list[str], sieve: NamingRedactor) -> dict[str, Any]:
    """Cut a message that is a word, a number or a picture, by the end of its topic."""
    end = levels[-1]
    if not _WORD.fullmatch(payload):
        known = {"snapshot", "thumbnail", "transcription", "classification"}
        if found := [level for level in levels[-2:] if level in known]:
            return _ignore("/" + found[0], payload, sieve)
        raise Rejected(QuarantineReason.SCHEMA, "neither JSON nor one word")
    word = payload.decode().lower()
    two = "/".join(levels[-2:])
    if len(levels) > 1 and levels[-2] == "status":  # <camera>/status/<role>
        return _read_state("online", word, _ONLINE, "" if end == "detect" else end)
    for name, (what, words) in _STATES.items():
        if name in {end, two}:
            return _read_state(what, word, words, "")
    if end in _KNOWN or (len(levels) > 1 and levels[-2] in {"ptz_autotracker", "classification"}):
        return {"is": "nothing"}
    if len(levels) > 1 and levels[-2] == "audio":
        return _read_sound(end, word)
    return _read_count(levels, word)


def _read_state(name: str, word: str, words: dict[str, Any], channel: str) -> dict[str, Any]:
    if word not in words:
        raise Rejected(QuarantineReason.SCHEMA, f"no word that '{name}' may have")
    return {"is": "value", "property": name, "value": words[word], **({"channel": channel} if channel else {})}


def _read_sound(kind: str, word: str) -> dict[str, Any]:
    """Cut a state of sound: which kind of sound it is says more of people than a city needs."""
    if word in _ON_OFF and codes.event(NAME, kind) == "sound_abnormal":
        return {"is": "value", "property": "sound_abnormal", "value": _ON_OFF[word], "channel": kind}
    return {"is": "nothing"}


def _read_count(levels: list[str], word: str) -> dict[str, Any]:
    """Cut ``<camera or zone>/<object>`` and ``<camera or zone>/<object>/active``."""
    active = levels[-1] == "active"
    label = levels[-2] if active and len(levels) > 1 else levels[-1]
    found = number(word, 0, 1e6)
    if found is None or found != int(found):
        raise Rejected(QuarantineReason.SCHEMA, "neither JSON nor a count nor a word that is known")
    name, channel = presence_property(label)
    channel = f"{channel}_active".lstrip("_") if active else channel
    return {
        "is": "value",
        "property": name,
        "value": int(found),
        "unit": "1",
        **({"channel": channel} if channel else {}),
    }


# ── what it reports ──────────────────────────────────────────────────────────────────────────────────


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a message reports."""
    kept: _Message = decode_record(payload, _Message)  # type: ignore[arg-type] # a union is no class, and msgspec takes it
    return _DECODERS[type(kept)](kept, arrival, camera)


def _time(seconds: float | None, arrival: int) -> TimeResult:
    return (None if seconds is None else epoch(seconds)) or received(arrival)


def _box(of: tuple[float, ...], size: tuple[int, int] | None) -> boxes.ResolvedBox | tuple[None, None]:
    if len(of) != 4:
        return None, None
    return boxes.from_pixels(of[0], of[1], of[2], of[3], *(size or (0, 0)), quality=BoxQuality.CAMERA)


def _decode_track(kept: FrigateTrack, arrival: int, camera: CameraInfo) -> VideoReport:
    ends = kept.type == "end"
    moment = kept.frame_time
    if moment is None:
        moment = kept.end_time if ends and kept.end_time else kept.start_time
    at, quality = _time(moment, arrival)
    found, kind = split_class(kept.label)
    box, box_quality = _box(kept.box, camera.size(kept.camera))
    speed = kept.current_estimated_speed
    number_plate = kept.recognized_license_plate
    if number_plate is not None:
        number_plate = msgspec.structs.replace(number_plate, confidence=kept.recognized_license_plate_score)
    one = VideoObservation(
        id=identity(NAME, kept.id, moment, kept.type),
        kind=ObservationKind.EVENT if ends else ObservationKind.OBSERVATION,
        camera=kept.camera,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id=kept.id,
        object_class=found,
        subclass=kind,
        track=kept.id,
        track_state=TrackState(kept.type),
        box=box,
        box_quality=box_quality,
        image_size=camera.size(kept.camera),
        confidence=kept.score,
        speed=round(speed * SPEEDS[camera.speed_unit], 4) if speed else None,
        device_yaw=kept.velocity_angle if speed else None,
        plate=number_plate,
        event=VideoEvent(codes.event(NAME, kept.type), zone=",".join(sorted(kept.current_zones))),
        images=int(kept.has_snapshot),
        removed=kept.removed,
    )
    return VideoReport((one,))


def _decode_review(kept: FrigateReview, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    ends = kept.type == "end"
    at, quality = _time(kept.end_time if ends and kept.end_time else kept.start_time, arrival)
    found = {split_class(one) for one in kept.data.objects}
    only = next(iter(found)) if len(found) == 1 else (None, "")
    zones = ",".join(sorted(kept.data.zones))
    one = VideoObservation(
        id=identity(NAME, kept.id, kept.type, kept.severity, zones, *kept.data.objects, *kept.data.detections),
        kind=ObservationKind.EVENT,
        camera=kept.camera,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id=kept.id,
        object_class=only[0],
        subclass=only[1],
        event=VideoEvent(codes.event(NAME, kept.severity), state=not ends, zone=zones),
        removed=kept.removed,
    )
    return VideoReport((one,))


def _decode_update(kept: FrigateUpdate, arrival: int, camera: CameraInfo) -> VideoReport:
    if not kept.camera or kept.timestamp is None or kept.type == "description":
        return VideoReport(ignored=1)
    at, quality = _time(kept.timestamp, arrival)
    box, box_quality = _box(kept.plate_box, camera.size(kept.camera))
    read = kept.plate
    one = VideoObservation(
        id=identity(NAME, kept.id, kept.timestamp, kept.type, kept.model),
        kind=ObservationKind.EVENT,
        camera=kept.camera,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id=kept.id,
        object_class={"face": ObjectClass.PERSON, "lpr": ObjectClass.PLATE}.get(kept.type),
        track=kept.id,
        box=box,
        box_quality=box_quality,
        confidence=kept.score,
        plate=None if read is None else msgspec.structs.replace(read, confidence=kept.score),
        event=VideoEvent(codes.event(NAME, kept.type)),
        analytics=kept.model,
        removed=kept.removed,
    )
    return VideoReport((one,))


def _decode_trigger(kept: FrigateTrigger, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    one = VideoObservation(
        id=identity(NAME, kept.event_id, "trigger", kept.name, kept.type),
        kind=ObservationKind.EVENT,
        camera=kept.camera,
        observed_at=arrival,
        time_quality=RECEIVED,
        format=NAME,
        native_id=kept.event_id,
        track=kept.event_id,
        confidence=kept.score,
        event=VideoEvent("trigger", rule=kept.name),
        removed=kept.removed,
    )
    return VideoReport((one,))


def _decode_value(kept: FrigateValue, arrival: int, camera: CameraInfo) -> VideoReport:
    one = Measurement(
        camera.id, kept.property, kept.value, kept.unit, arrival, RECEIVED, str(arrival), channel=kept.channel
    )
    return VideoReport(measurements=(one,))


def _decode_rates(kept: FrigateRates, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    at, quality = _time(kept.time, arrival)
    found = tuple(Measurement(one.camera, "frame_rate", one.fps, "Hz", at, quality, str(at)) for one in kept.cameras)
    return VideoReport(measurements=found, ignored=0 if found else 1)


def _decode_ignored(kept: FrigateIgnored, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    return VideoReport(ignored=1)


_DECODERS: Final[dict[type, Callable[[Any, int, CameraInfo], VideoReport]]] = {
    FrigateTrack: _decode_track,
    FrigateReview: _decode_review,
    FrigateUpdate: _decode_update,
    FrigateTrigger: _decode_trigger,
    FrigateValue: _decode_value,
    FrigateRates: _decode_rates,
    FrigateIgnored: _decode_ignored,
}

FORMAT = VideoFormat(NAME, redact, decode)
