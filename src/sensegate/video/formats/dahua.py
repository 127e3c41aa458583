"""Dahua: events of ``eventManager.cgi?action=attach``, a single part or a whole multipart stream.

``Code=X;action=Start|Stop|Pulse;index=N;data={…}``. Boxes count from 0 to 8191. Many models send their local time as if
it were UTC, so the time is compared with the arrival (`_event_time`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason, RejectReason
from sensegate.video import allowlist, boxes, codes, countries, multipart, times
from sensegate.video.boxes import Box
from sensegate.video.format import (
    CameraInfo,
    Measurement,
    Pseudonymiser,
    Redacted,
    RedactedRecord,
    RejectedObject,
    VideoFormat,
    VideoReport,
)
from sensegate.video.observation import (
    BoxQuality,
    Location,
    ObjectClass,
    ObservationKind,
    Plate,
    VideoEvent,
    VideoObservation,
)
from sensegate.video.values import (
    Node,
    Removed,
    as_list,
    clear_plate,
    coordinates,
    count_removed,
    count_removed_members,
    identity,
    integer,
    node,
    number,
    plate_region,
    public_name,
    rule_channel,
    split_words,
    text,
    topic_camera,
)

NAME: Final = "dahua"
_MAKE: Final = "dahua"
_GRID: Final = 8_192
_EVENTS_MAX: Final = 1_000
_OBJECTS_MAX: Final = 64
"""Greatest number of objects of one event."""
_NEXT = re.compile(r"^[ \t\r]*(?=Code=[A-Za-z0-9_]{1,64};)", re.MULTILINE | re.ASCII)
"""Start of the next event at the start of a line; matched per line, so that many empty lines stay cheap."""
_HEAD = re.compile(
    r"Code=([A-Za-z0-9_]{1,64});\s*action=([A-Za-z]{1,16});\s*index=(\d{1,5})(?:;\s*data=(?=\{|\[|null\b))?", re.ASCII
)
_json: Final = json.JSONDecoder()
"""Finds the end of data behind which other text follows."""
_HEARTBEAT: Final = "heartbeat"
_STATES: Final = {"start": True, "stop": False}
_PASSAGES: Final = frozenset({"vehicle_passed", "plate_recognised"})
_LAST_S: Final = 4_102_444_800
_CLOCK_TOLERANCE_US: Final = 20 * 60 * times.SECOND
"""Greatest error of a clock that is not attributed to a time zone."""

_DATA: Final = split_words(
    "Action Class Code CountInGroup DetectRegion DetectLine EventID EventSeq EventBaseID FrameSequence GroupID "
    "IndexInGroup Lane Name Object Objects ObjectID PTS RealUTC RuleId RuleID Sequence TimeZone TrafficCar UTC "
    "UTCMS Vehicle CommInfo YuvPacket Mark IsGlobalScene RegionName Id SmartMotionEnable Direction UTCms "
    "LocaleTime Flow"
)
"""Members without personal content, such as geometry and frame counters; they are dropped without being counted."""
_OBJECT: Final = split_words(
    "Action BoundingBox Center Confidence ObjectID RelativeID ObjectType OriginalBoundingBox Country "
    "FrameSequence TrackType MainColor Speed Category Source "
    "VehicleDirection Stream BrandYear SubBrand CarLogoIndex CarSeriesIndex Contour Point Brand"
)
_CAR: Final = split_words(
    "CapTime Country Direction DrivingDirection Event Lane LowerSpeedLimit PhysicalLane PlateColor PlateType "
    "Speed UTC UpperSpeedLimit VehicleColor VehicleSign VehicleSize VehicleType VehicleLength"
)
_PLACE: Final = frozenset({"CoordinateX", "CoordinateY"})
_TEXTS: Final = frozenset({"", "unknown", "none", "null"})
_FLOWS: Final = {
    "Vehicles": ("vehicle_count", "1"),
    "AverageSpeed": ("vehicle_speed_mean", "km/h"),
    "TimeHeadway": ("headway", "s"),
    "SpaceHeadway": ("space_headway", "m"),
    "Density": ("vehicle_density", "/km"),
    "BackOfQueue": ("queue_length", "m"),
    "LargeVehicles": ("vehicles_large", "1"),
    "SmallVehicles": ("vehicles_small", "1"),
    "MotoVehicles": ("vehicles_motorcycle", "1"),
}
"""Members of traffic flow data; units as in the vendor's API."""
_NUMBERS: Final = {
    "EnteredSubtotal": ("people_in_total", True),
    "ExitedSubtotal": ("people_out_total", True),
    "EnteredNumber": ("people_in_total", True),
    "ExitedNumber": ("people_out_total", True),
    "InsideSubtotal": ("people_present", False),
    "PeopleNumber": ("people_queue", False),
}


class DahuaObject(RedactedRecord, frozen=True):
    """An object."""

    id: str = ""
    parent: str = ""
    object_class: str = ""
    subclass: str = ""
    confidence: float | None = None
    box: Box | None = None


class DahuaEvent(RedactedRecord, frozen=True):
    """An event."""

    code: str = ""
    """Code of the table; empty if unknown."""
    unknown_code: str = ""
    """Pseudonym of a code that the table lacks: two of one moment are two events."""
    state: bool | None = None
    index: int = 0
    heartbeat: bool = False
    utc: float | None = None
    """Seconds, by the device's clock."""
    real_utc: float | None = None
    id: str = ""
    machine: str = ""
    """Pseudonym of the device's own number."""
    rule: str = ""
    object: DahuaObject | None = None
    other_objects: tuple[DahuaObject, ...] = ()
    """Further objects of the same event."""
    lane: int | None = None
    speed: float | None = None
    color: str = ""
    brand: str = ""
    plate: Plate | None = None
    location: tuple[float, float] | None = None
    counts: dict[str, float] = msgspec.field(default_factory=dict)
    removed: tuple[str, ...] = ()


class DahuaEvents(RedactedRecord, frozen=True):
    """Events of one message."""

    events: tuple[DahuaEvent, ...] = ()
    invalid: int = 0


# ── redaction ─────────────────────────────────────────────────────────────────────────────────


def redact(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:  # noqa: ARG001 - the signature of all formats
    """Redact one event or heartbeat, several consecutive ones, or a multipart stream of them."""
    total: Removed = {}
    documents = [payload]
    if multipart.is_multipart(payload):
        parts = multipart.split(payload)
        documents = [part.content for part in parts if part.content.strip()]
        for name, count in (
            ("part.picture", sum(part.picture for part in parts)),
            ("part.too_long", sum(part.too_long for part in parts)),
        ):
            if count:
                count_removed(name, total, count)
    events: list[DahuaEvent] = []
    problems: list[Rejected] = []
    for document in documents:
        try:
            sent = list(_split(document))
        except Rejected as why:
            problems.append(why)
            continue
        problems += [event for event in sent if isinstance(event, Rejected)]
        events += [
            _redact_event(*event, arrival, pseudonymiser, total) for event in sent if not isinstance(event, Rejected)
        ]
    if problems and not events:
        raise problems[0]
    redacted = DahuaEvents(events=tuple(events), invalid=len(problems))
    return Redacted(msgspec.json.encode(redacted), dict(sorted(total.items())))


def _split(document: bytes) -> Iterator[tuple[str, str, int, Node] | Rejected]:
    """Yield (code, action, index, data) of each event; a heartbeat has only its name.

    For text that is no event the reason is yielded; the next event begins at the start of a line. Raises `Rejected`.
    """
    try:
        text_ = document.decode()
    except UnicodeDecodeError:
        try:
            text_ = document.decode("gb18030")
        except UnicodeDecodeError:
            raise Rejected(QuarantineReason.NOT_UTF8, "the message is neither UTF-8 nor GB 18030") from None
    text_ = text_.strip()
    if text_.lower() == _HEARTBEAT:
        yield _HEARTBEAT, "", 0, {}
        return
    count = 0
    at = 0
    while at < len(text_):
        if (count := count + 1) > _EVENTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {_EVENTS_MAX} events")
        head = _HEAD.match(text_, at)
        if head is None:
            yield Rejected(QuarantineReason.SCHEMA, "the message is neither Code=…;action=…;index=… nor a heartbeat")
            following = _NEXT.search(text_, at + 1)
            at = following.end() if following else len(text_)
            continue
        data: Node = {}
        at = head.end()
        if head[0].endswith("data=") or head[0].rstrip().endswith("data="):
            following = _NEXT.search(text_, at)
            end = following.start() if following else len(text_)
            try:
                tree, end = _data(text_, at, end)
            except Rejected as why:
                yield why
                at = following.end() if following else len(text_)
                continue
            # the members of a list have no known meaning
            data = tree if isinstance(tree, dict) else {} if tree is None else {"Item": tree}
            at = end
        yield head[1], head[2].lower(), int(head[3]), data
        rest_ = text_[at:].lstrip(" ;\r\n\t")
        at = len(text_) - len(rest_)


def _data(text_: str, start: int, stop: int) -> tuple[Any, int]:
    """Return the data of an event and their end. Raises `Rejected`.

    Args:
        text_: the message.
        start: position of the data.
        stop: end of the text before the next event; what lies between is no part of this one.
    """
    try:
        return allowlist.decode_json(text_[start:stop].strip().rstrip(";").encode()), stop
    except Rejected as why:
        try:
            _, end = _json.raw_decode(text_[start:stop])
        except (ValueError, RecursionError):
            raise why from None
        return allowlist.decode_json(text_[start : start + end].encode()), start + end


def _redact_event(
    code: str, action: str, index: int, data: Node, arrival: int, pseudonymiser: Pseudonymiser, total: Removed
) -> DahuaEvent:
    if code == _HEARTBEAT:
        return DahuaEvent(heartbeat=True)
    removed: Removed = {}
    known = codes.word("event", _MAKE, code) is not None
    if not known:
        count_removed("Code", removed)
    car, vehicle, item = node(data.get("TrafficCar")), node(data.get("Vehicle")), node(data.get("Object"))
    others: list[Any] = []
    if not item and "Objects" in data:
        item, *others = [*map(node, as_list(data["Objects"])[:_OBJECTS_MAX])] or [item]
        for other in others:
            count_removed_members("Object", other, _OBJECT, removed)
    count_removed_members("data", data, _DATA.union(_NUMBERS), removed)
    count_removed_members("TrafficCar", car, _CAR, removed)
    count_removed_members("Vehicle", vehicle, _OBJECT, removed)
    count_removed_members("Object", item, _OBJECT, removed)
    count_removed_members("CommInfo", node(data.get("CommInfo")), _PLACE, removed)
    utc = number(data.get("UTC"), 0, _LAST_S)
    shown = _read_object(vehicle, car, pseudonymiser) if vehicle else None
    if shown is None or shown.box is None:
        shown = _read_object(item, car, pseudonymiser) if item else shown
    lane = integer(car.get("Lane"), 0, 99)
    event = DahuaEvent(
        code=code if known else "",
        unknown_code="" if known or not code else pseudonymiser.identifier(code),
        state=_STATES.get(action),
        index=index,
        utc=None if utc is None else utc + (number(data.get("UTCMS"), 0, 999) or 0) / 1_000,
        real_utc=number(data.get("RealUTC"), 0, _LAST_S),
        id=_id(data.get("EventID"), pseudonymiser),
        machine=pseudonymiser.identifier(text(car["MachineName"])) if text(car.get("MachineName")) else "",
        rule=_rule(data, pseudonymiser),
        object=shown,
        other_objects=tuple(_read_object(other, car, pseudonymiser) for other in others),
        lane=lane if lane is not None else integer(data.get("Lane"), 0, 99),
        speed=number(car.get("Speed"), 0, 1_000),
        color=codes.color(_MAKE, text(car.get("VehicleColor"))),
        brand=codes.word("brand", _MAKE, text(car.get("VehicleSign"))) or "",
        plate=_plate(item, car, _plate_time(utc, arrival), pseudonymiser),
        location=_coordinates(node(data.get("CommInfo"))),
        counts=_counts(data),
        removed=tuple(sorted(removed)),
    )
    for name, count in removed.items():
        count_removed(name, total, count)
    return event


def _id(value: Any, pseudonymiser: Pseudonymiser) -> str:
    word = text(value)
    return (
        word if not word or (word.isascii() and word.isdigit() and len(word) < 11) else pseudonymiser.identifier(word)
    )


def _rule(data: Node, pseudonymiser: Pseudonymiser) -> str:
    name = public_name(data.get("Name"), pseudonymiser)
    if name:
        return name
    region_or_rule = data.get("RegionName", data.get("RuleId", data.get("RuleID")))
    return public_name(region_or_rule, pseudonymiser)


def _read_object(members: Node, car: Node, pseudonymiser: Pseudonymiser) -> DahuaObject:
    label = text(members.get("ObjectType"))
    object_class, sub = codes.object_class(_MAKE, label) if label else (None, "")
    kind = (
        codes.vehicle(_MAKE, text(members.get("Category"))) or codes.vehicle(_MAKE, text(car.get("VehicleSize"))) or sub
    )
    confidence = number(members.get("Confidence"), 0, 100)
    return DahuaObject(
        id=_id(members.get("ObjectID"), pseudonymiser),
        parent=_id(members["RelativeID"], pseudonymiser) if integer(members.get("RelativeID"), 1) else "",
        object_class=object_class.value if object_class else "",
        subclass=kind if object_class in {ObjectClass.VEHICLE, ObjectClass.NONMOTOR} else sub,
        confidence=None if confidence is None else confidence / 100,
        box=_box(members.get("BoundingBox")),
    )


def _box(value: Any) -> Box | None:
    sides = [number(side, -1e6, 1e6) for side in as_list(value)]
    if len(sides) != 4:
        return None
    left, top, right, bottom = sides
    if left is None or top is None or right is None or bottom is None or sides == [0, 0, 0, 0]:
        return None
    return left, top, right, bottom


def _plate(item: Node, car: Node, at: int, pseudonymiser: Pseudonymiser) -> Plate | None:
    written = text(car.get("PlateNumber"))
    of_plate = text(item.get("ObjectType")).lower() == "plate"
    if not written and of_plate:
        written = text(item.get("Text"))
    if written.lower() in _TEXTS:
        return None
    country = countries.alpha_2(text(car.get("Country")) or text(item.get("Country")))
    kind = text(car.get("PlateType"))
    confidence = number(item.get("Confidence"), 0, 100) if of_plate else None
    return Plate(
        token=pseudonymiser.plate(written, at),
        number=clear_plate(written, pseudonymiser),
        region=plate_region(written) or ("" if country == "CN" else country),
        color=codes.color(_MAKE, text(car.get("PlateColor"))),
        plate_class=codes.plate_class(_MAKE, kind) if kind.lower() not in _TEXTS else "",
        confidence=None if confidence is None else confidence / 100,
    )


def _plate_time(utc: float | None, arrival: int) -> int:
    """Return the time whose day selects the key for plates: the device's, which near midnight may be the next day."""
    return arrival if utc is None else round(utc) * times.SECOND


def _coordinates(members: Node) -> tuple[float, float] | None:
    return coordinates(number(members.get("CoordinateX"), -180, 180), number(members.get("CoordinateY"), -180, 180))


def _counts(data: Node) -> dict[str, float]:
    counts: dict[str, float] = {}
    flow = node(data.get("Flow")) or data
    for name in _FLOWS:
        if (value := number(flow.get(name), 0, 1e9)) is not None:
            counts[name] = value
    for name in _NUMBERS:
        if (value := number(data.get(name), 0, 1e9)) is not None:
            counts[name] = value
    return counts


# ── decoding ──────────────────────────────────────────────────────────────────────────────────


def _event_time(event: DahuaEvent, arrival: int, zone: str) -> times.TimeResult:
    """Return the time of an event.

    ``UTC`` is used unless it is far from the arrival and an alternative is near: the ``RealUTC``, or the local time of
    the camera's zone sent as if it were UTC.
    """
    if event.utc is None:
        return times.received(arrival)
    at = round(event.utc * times.SECOND)
    offset = datetime.fromtimestamp(min(at // times.SECOND, 4_102_444_800), UTC).astimezone(ZoneInfo(zone)).utcoffset()
    others = [at - round((offset.total_seconds() if offset else 0) * times.SECOND)]
    if event.real_utc is not None:
        others.insert(0, round((event.real_utc + event.utc % 1) * times.SECOND))
    if abs(at - arrival) > _CLOCK_TOLERANCE_US:
        at = next((candidate for candidate in others if abs(candidate - arrival) <= _CLOCK_TOLERANCE_US), at)
    return at, times.ASSUMED


_decode = msgspec.json.Decoder(DahuaEvents).decode


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:
    """Return what events report."""
    try:
        stream = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected(QuarantineReason.SCHEMA, "the message is not a redacted event stream") from None
    observations: list[VideoObservation] = []
    measured: list[Measurement] = []
    ignored = 0
    host = topic_camera(topic) or camera.id
    for event in stream.events:
        at, quality = _event_time(event, arrival, camera.zone)
        if event.heartbeat:
            ignored += 1
            measured.append(Measurement(host, "online", True, "", at, quality, identity(host, at, "beat")))
            continue
        name = f"{host}/{event.index}"
        observations.append(_observation(event, name, at, quality))
        for at_thing, item in enumerate(event.other_objects):
            other = msgspec.structs.replace(event, object=item, plate=None)
            observations.append(_observation(other, name, at, quality, at_thing + 1))
        measured += _measurements(event, name, at, quality, camera)
    refused = tuple(
        RejectedObject(len(stream.events) + at, RejectReason.WRONG_TYPE, "the part is not an event")
        for at in range(stream.invalid)
    )
    return VideoReport(tuple(observations), tuple(measured), refused, ignored)


def _observation(event: DahuaEvent, name: str, at: int, quality: str, place: int = 0) -> VideoObservation:
    word = codes.event(_MAKE, event.code)
    item = event.object or DahuaObject()
    passage = word in _PASSAGES
    object_class = item.object_class or ("vehicle" if passage else "")
    box, box_quality = _resolve_box(item.box)
    return VideoObservation(
        id=identity(
            event.machine or name,
            event.code or event.unknown_code,
            event.id,
            at,
            item.id or place,
            event.state,
            name,
            event.rule,
            event.lane,
            event.plate.token if event.plate else "",
        ),
        kind=ObservationKind.OBSERVATION
        if passage
        else ObservationKind.COUNT
        if event.counts
        else ObservationKind.EVENT,
        camera=name,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id=event.id,
        object_class=ObjectClass(object_class) if object_class else None,
        subclass=item.subclass,
        track=item.id,
        parent_track=item.parent,
        box=box,
        box_quality=box_quality,
        confidence=item.confidence,
        place=Location(*event.location) if event.location else None,
        speed=None if event.speed is None else round(event.speed / 3.6, 4),
        lane=event.lane,
        plate=event.plate,
        color=event.color,
        brand=event.brand,
        event=VideoEvent(word, event.state, event.rule),
        analytics=event.rule,
        removed=event.removed,
    )


def _resolve_box(box: Box | None) -> tuple[Box | None, BoxQuality | None]:
    return (None, None) if box is None else boxes.from_grid(*box, _GRID)


def _measurements(event: DahuaEvent, name: str, at: int, quality: str, camera: CameraInfo) -> Iterator[Measurement]:
    word = codes.event(_MAKE, event.code)
    state = codes.state_property(word)
    own = rule_channel(event.rule, camera.rules)
    if word in {"alarm_input", "alarm_output"}:
        own = f"{'input' if word == 'alarm_input' else 'output'}{event.index + 1}"
    if state and event.state is not None:
        key = identity(name, at, event.code, own, event.state)
        yield Measurement(name, state, event.state, "", at, quality, key, channel=own)
    lane = f"lane{event.lane}" if event.lane else ""
    if event.speed:
        plate = event.plate.token if event.plate else ""
        key = identity(name, at, event.id, event.object.id if event.object else "", "speed", lane, plate)
        yield Measurement(name, "vehicle_speed", event.speed, camera.speed_unit, at, quality, key, channel=lane)
    for member, value in event.counts.items():
        key = identity(name, at, event.code, member, lane, own)
        if member in _FLOWS:
            prop, unit = _FLOWS[member]
            yield Measurement(name, prop, value, unit, at, quality, key, channel=lane)
        else:
            prop, total = _NUMBERS[member]
            yield Measurement(name, prop, value, "1", at, quality, key, channel=own, cumulative=total)


FORMAT: Final = VideoFormat(NAME, redact, decode, free_rule_names=True)
