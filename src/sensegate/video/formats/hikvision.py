"""Hikvision ISAPI: ``EventNotificationAlert``, in XML of any namespace, JSON, or multipart with pictures.

Of an alarm its type, state and time, the device's address and channel, and listed regions and boxes are kept; of a
vehicle its class, colour, lane and speed, and the pseudonym of its plate. Channel names and free texts are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason, RejectReason
from sensegate.video import allowlist, boxes, codes, multipart, times, xmlsafe
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
    count_removed,
    count_removed_members,
    identity,
    integer,
    node,
    number,
    plate_region,
    reportable_name,
    split_words,
    text,
    topic_camera,
)

NAME: Final = "hikvision"
_MAKE: Final = "hikvision"
_ALERT: Final = "EventNotificationAlert"
ALERTS_MAX: Final = 1_000
"""Greatest number of alerts of one body."""
_REGIONS_MAX: Final = 256
_GRID: Final = 1_000
"""Range of region coordinates, and of vehicle boxes without a resolution."""
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{1,2}:\d{1,2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII)
_COMPACT = re.compile(r"\d{14}(?:\d{3})?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_EMPTY_WORDS: Final = frozenset({"", "unknown", "0", "-1"})

_ALERT_MEMBERS: Final = split_words(
    "@version macAddress dynChannelID channelID dateTime activePostCount eventType eventState DetectionRegionList "
    "inputIOPortID DurationList ANPR UUID picNum DeviceGPSInfo VehicleGATInfo detectionPicturesNumber "
    "detectionBackgroundImageResolution targetType TargetRect peopleCounting isDataRetransmission TFS TPS"
)
_REGION: Final = split_words(
    "regionID sensitivityLevel RegionCoordinatesList detectionTarget TargetRect direction ruleID"
)
"""Sensitivity and outline carry no observation; they are dropped without being counted."""
_ANPR: Final = split_words(
    "line confidenceLevel plateType plateColor vehicleType vehicleInfo pictureInfoList licensePlate laneNo"
)
_VEHICLE: Final = split_words("index vehicleType color speed colorDepth length")
_PICTURE: Final = split_words("type dataType absTime plateRect vehicelRect vehicleRect")
_GAT: Final = split_words("palteTypeByGAT plateTypeByGAT vehicleTypeByGAT")
_COUNTS: Final = split_words(
    "statisticalMethods RealTime TimeRange enter exit pass regionsID childLockEnabled duplicatePeople"
)

_LANES: Final = ("lane", "laneno", "lanenum", "lineno", "line")
_FLOWS: Final[dict[str, str]] = {
    **dict.fromkeys(("trafficvolume", "vehiclenum", "vehiclecount", "vehicleflow", "trafficflow"), "vehicle_count"),
    **dict.fromkeys(("speed", "avgspeed", "averagespeed", "vehiclespeed"), "vehicle_speed_mean"),
    **dict.fromkeys(("queuelen", "queuelength", "lanequeuelength"), "queue_length"),
    **dict.fromkeys(("timeheadway", "headway"), "headway"),
    "spaceheadway": "space_headway",
    **dict.fromkeys(("timeoccupyration", "timeoccupyratio", "timeoccupancy"), "time_occupancy"),
    **dict.fromkeys(("lightvehicle", "smallvehiclenum"), "vehicles_small"),
    **dict.fromkeys(("heavyvehicle", "largevehiclenum"), "vehicles_large"),
}
"""Member of lane traffic data (TFS, TPS), lower case -> property; firmwares differ in spelling."""
_FLOW_UNITS: Final = {
    "vehicle_speed_mean": "km/h",
    "queue_length": "m",
    "headway": "s",
    "space_headway": "m",
    "time_occupancy": "%",
}
_NEST_MAX: Final = 4


class HikvisionRegion(RedactedRecord, frozen=True):
    """A region with a detection."""

    id: str = ""
    object_class: str = ""
    subclass: str = ""
    rect: Box | None = None
    """left, top, right, bottom, 0 to 1"""


class PeopleCount(RedactedRecord, frozen=True):
    """Counts of people passing."""

    region: str = ""
    """Number of the area that is counted; empty: the camera counts in one."""
    entered: float | None = None
    left: float | None = None
    total: bool = False
    """True if it counts since the last reset rather than over a period."""
    end: str = ""
    """End of the period."""


class HikvisionVehicle(RedactedRecord, frozen=True):
    """A vehicle."""

    subclass: str = ""
    lane: int | None = None
    speed: float | None = None
    """km/h"""
    confidence: float | None = None
    """0 to 1"""
    color: str = ""
    plate: Plate | None = None
    box: Box | None = None
    """left, top, right, bottom as sent"""
    size: tuple[int, int] | None = None
    time: str = ""
    """YYYYMMDDhhmmssSSS by the device's clock."""


class LaneFlow(RedactedRecord, frozen=True):
    """Traffic of one lane, or of all lanes."""

    lane: int | None = None
    counts: dict[str, float] = msgspec.field(default_factory=dict)
    """Property -> number."""


class HikvisionAlarm(RedactedRecord, frozen=True):
    """A message."""

    mac: str = ""
    channel: str = ""
    time: str = ""
    type: str = ""
    """Event type of the table; empty if unknown."""
    unknown_type: str = ""
    """Pseudonym of an event type that the table lacks: two of one moment are two events."""
    state: bool | None = None
    heartbeat: bool = False
    uuid: str = ""
    port: int | None = None
    """Number of the alarm input."""
    regions: tuple[HikvisionRegion, ...] = ()
    count: PeopleCount | None = None
    flows: tuple[LaneFlow, ...] = ()
    vehicle: HikvisionVehicle | None = None
    location: tuple[float, float] | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class HikvisionAlarms(RedactedRecord, frozen=True):
    """Alarms of one body."""

    alarms: tuple[HikvisionAlarm, ...] = ()
    invalid: int = 0
    """Number of documents and alerts that are none."""


# ── redaction ─────────────────────────────────────────────────────────────────────────────────


def redact(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:  # noqa: ARG001 - the signature of all formats
    """Redact an alert in XML or JSON, or a multipart body with alerts; one that is none leaves out itself alone."""
    total: Removed = {}
    documents, pictures = [payload], 0
    if multipart.is_multipart(payload):
        documents = []
        for part in multipart.split(payload):
            if part.picture or part.too_long:
                count_removed("part.picture" if part.picture else "part.too_long", total)
                pictures += part.picture and bool(
                    documents
                )  # a picture before the document belongs to an earlier alert
            elif part.content.strip():
                documents.append(part.content)
        if not documents and "part.too_long" in total:
            raise Rejected(QuarantineReason.TOO_LARGE, f"a part has more than {multipart.PART_MAX} bytes")
        if not documents and not total:
            raise Rejected(QuarantineReason.MALFORMED, "the multipart body has no complete part")
    alarms: list[HikvisionAlarm] = []
    problems: list[Rejected] = []
    for alert in _alerts_of(documents):
        if len(alarms) + len(problems) >= ALERTS_MAX:
            raise Rejected(QuarantineReason.TOO_LARGE, f"more than {ALERTS_MAX} alerts")
        if isinstance(alert, Rejected):
            problems.append(alert)
            continue
        try:
            alarms.append(_redact_alert(alert, arrival, pseudonymiser, total, pictures))
            pictures = 0
        except Rejected as why:
            problems.append(why)
    if problems and not alarms:
        raise problems[0]
    redacted = HikvisionAlarms(alarms=tuple(alarms), invalid=len(problems))
    return Redacted(msgspec.json.encode(redacted), dict(sorted(total.items())))


def _alerts_of(documents: list[bytes]) -> Iterator[Node | Rejected]:
    """Yield the alerts of documents; for a document that has none, the reason."""
    for document in documents:
        try:
            yield from _read_alerts(document)
        except Rejected as why:
            yield why


def _read_alerts(document: bytes) -> list[Node]:
    start = document.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    tree: Node = allowlist.decode_object(document) if start == b"{" else xmlsafe.tree(document)
    documents = as_list(tree[_ALERT]) if _ALERT in tree else [tree] if start == b"{" and "eventType" in tree else []
    alerts: list[Node] = [alert for alert in documents if isinstance(alert, dict)]
    if not alerts:
        raise Rejected(QuarantineReason.SCHEMA, f"the message is not an {_ALERT}")
    return alerts


def _redact_alert(
    alert: Node, arrival: int, pseudonymiser: Pseudonymiser, total: Removed, pictures: int
) -> HikvisionAlarm:
    removed: Removed = {}
    count_removed_members("", alert, _ALERT_MEMBERS, removed)
    event_type = text(alert.get("eventType"))
    if event_type == "duration":
        event_type = text(node(node(alert.get("DurationList")).get("Duration")).get("relationEvent")) or event_type
    state = {"active": True, "inactive": False}.get(text(alert.get("eventState")).lower())
    known = codes.word("event", _MAKE, event_type) is not None
    beat = event_type.lower() == "heartbeat" or (
        event_type.lower() == "videoloss" and state is False and number(text(alert.get("activePostCount"))) in {0, None}
    )
    if event_type and not known and not beat:
        count_removed("eventType", removed)
    moment = text(alert.get("dateTime"))
    if moment and not _TIME.fullmatch(moment):
        count_removed("dateTime", removed)
        moment = ""
    mac = text(alert.get("macAddress"))
    if mac and not _MAC.fullmatch(mac):
        count_removed("macAddress", removed)
        mac = ""
    car = None
    if "ANPR" in alert:
        car = _redact_vehicle(alert, moment, arrival, pseudonymiser, removed)
    images = max(
        pictures,
        integer(text(alert.get("picNum")), 0, 1_000) or 0,
        integer(text(alert.get("detectionPicturesNumber")), 0, 1_000) or 0,
        len(_pictures(alert)),
    )
    alarm = HikvisionAlarm(
        mac=mac.lower().replace("-", ":"),
        channel=_channel(alert),
        time=moment,
        type=event_type if known else "",
        unknown_type="" if known or not event_type else pseudonymiser.identifier(event_type),
        state=state,
        heartbeat=beat,
        uuid=_uuid(text(alert.get("UUID")), pseudonymiser),
        port=integer(text(alert.get("inputIOPortID")), 0, 9_999),
        regions=tuple(_redact_regions(alert, removed)),
        count=_redact_count(node(alert["peopleCounting"]), removed) if "peopleCounting" in alert else None,
        flows=tuple(flow for name in ("TFS", "TPS") for flow in _redact_flows(alert.get(name), removed))[:_REGIONS_MAX],
        vehicle=car,
        location=_location(node(alert.get("DeviceGPSInfo"))),
        images=images,
        removed=tuple(sorted(removed)),
    )
    for name, count in removed.items():
        count_removed(name, total, count)
    return alarm


def _uuid(word: str, pseudonymiser: Pseudonymiser) -> str:
    return word.lower() if not word or _UUID.fullmatch(word) else pseudonymiser.identifier(word)


def _channel(alert: Node) -> str:
    for name in ("dynChannelID", "channelID"):
        if (number := integer(text(alert.get(name)), 0, 99_999)) is not None:
            return str(number)
    return ""


def _redact_regions(alert: Node, removed: Removed) -> Iterator[HikvisionRegion]:
    entries = [
        inner
        for region in map(node, as_list(alert.get("DetectionRegionList")))
        for inner in (as_list(region["DetectionRegionEntry"]) if "DetectionRegionEntry" in region else [region])
        if isinstance(inner, dict)
    ]
    if "TargetRect" in alert or "targetType" in alert:
        label, rect = alert.get("targetType"), alert.get("TargetRect")
        if entries and isinstance(entries[0], dict):
            first = {"detectionTarget": label, "TargetRect": rect}
            entries[0] = {**{name: value for name, value in first.items() if value is not None}, **entries[0]}
        else:
            entries = [{"detectionTarget": label, "TargetRect": rect}]
    if len(entries) > _REGIONS_MAX:
        raise Rejected(QuarantineReason.SCHEMA, f"more than {_REGIONS_MAX} regions")
    for entry in map(node, entries):
        count_removed_members("DetectionRegionEntry", entry, _REGION, removed)
        label = text(entry.get("detectionTarget"))
        object_class, sub = (
            codes.object_class(_MAKE, label) if label and label.lower() not in {"all", "others"} else (None, "")
        )
        region_id = integer(text(entry.get("regionID")), 0, 9_999)
        yield HikvisionRegion(
            id="" if region_id is None else str(region_id),
            object_class=object_class.value if object_class else "",
            subclass=sub,
            rect=_rect(node(entry.get("TargetRect"))),
        )


def _rect(members: Node) -> Box | None:
    """Return (left, top, right, bottom) from X, Y, width and height in any case."""
    by_name = {name.lower(): value for name, value in members.items()}
    sides = [number(text(by_name.get(name)), -1e6, 1e6) for name in ("x", "y", "width", "height")]
    left, top, width, height = sides
    if left is None or top is None or not width or not height:
        return None
    return left, top, round(left + width, 9), round(top + height, 9)


def _redact_count(members: Node, removed: Removed) -> PeopleCount:
    count_removed_members("peopleCounting", members, _COUNTS, removed)
    period = node(members.get("TimeRange"))
    real = node(members.get("RealTime"))
    end = text(period.get("endTime")) or text(real.get("time"))
    region = integer(text(members.get("regionsID")), 0, 9_999)
    return PeopleCount(
        region="" if region is None else str(region),
        entered=number(text(members.get("enter")), 0, 1e9),
        left=number(text(members.get("exit")), 0, 1e9),
        total=text(members.get("statisticalMethods")).lower() == "realtime",
        end=end if _TIME.fullmatch(end) else "",
    )


def _redact_flows(value: object, removed: Removed, depth: int = 0) -> Iterator[LaneFlow]:
    """Yield the traffic of lanes at any depth of the element; other members are removed."""
    for lane_node in map(node, as_list(value)):
        by_name = {name.lower(): name for name in lane_node}
        lane = next(
            (index for name in _LANES if (index := integer(text(lane_node.get(by_name.get(name, ""))), 0, 99))), None
        )
        counts: dict[str, float] = {}
        for low, name in by_name.items():
            inside = [inner for inner in as_list(lane_node[name]) if isinstance(inner, dict)]
            if inside and depth < _NEST_MAX:
                yield from _redact_flows(inside, removed, depth + 1)
            elif low in _FLOWS and (number_ := number(text(lane_node[name]), 0, 1e6)) is not None:
                counts.setdefault(_FLOWS[low], number_)
            elif low not in _LANES and lane_node[name] is not None:
                count_removed(f"TFS.{reportable_name(name)}", removed)
        if counts:
            yield LaneFlow(lane=lane, counts=counts)


def _pictures(alert: Node) -> list[Node]:
    return [
        node(picture) for picture in as_list(node(node(alert.get("ANPR")).get("pictureInfoList")).get("pictureInfo"))
    ][:100]


def _redact_vehicle(
    alert: Node, moment: str, arrival: int, pseudonymiser: Pseudonymiser, removed: Removed
) -> HikvisionVehicle:
    anpr, gat = node(alert.get("ANPR")), node(alert.get("VehicleGATInfo"))
    vehicle = node(anpr.get("vehicleInfo"))
    count_removed_members("ANPR", anpr, _ANPR, removed)
    count_removed_members("vehicleInfo", vehicle, _VEHICLE, removed)
    count_removed_members("VehicleGATInfo", gat, _GAT, removed)
    box, size, at = None, _size(alert.get("detectionBackgroundImageResolution")), ""
    for picture in _pictures(alert):
        count_removed_members("pictureInfo", picture, _PICTURE, removed)
        box = box or _rect(node(picture.get("vehicelRect", picture.get("vehicleRect"))))
        if _COMPACT.fullmatch(moment_text := text(picture.get("absTime"))):
            at = at or moment_text
    for picture in _pictures(alert):
        box = box or _rect(node(picture.get("plateRect")))
    kind = codes.vehicle(_MAKE, text(anpr.get("vehicleType")))
    if kind in {"", "unknown"}:
        kind = codes.vehicle("gat1400", text(gat.get("vehicleTypeByGAT"))) or kind
    level = number(text(anpr.get("confidenceLevel")), 0, 100)
    confidence = None if level is None else level / 100
    return HikvisionVehicle(
        subclass=kind,
        lane=integer(text(anpr.get("line", anpr.get("laneNo"))), 0, 99),
        speed=number(text(vehicle.get("speed")), 0, 1_000),
        confidence=confidence,
        color=_color(text(vehicle.get("color"))),
        plate=_plate(anpr, gat, _plate_time(at, moment, arrival), confidence, pseudonymiser, removed),
        box=box,
        size=size,
        time=at,
    )


def _color(word: str) -> str:
    return "" if word.lower() in _EMPTY_WORDS else codes.color(_MAKE, word)


def _size(value: object) -> tuple[int, int] | None:
    """Return (width, height), from one text or from two members."""
    if sides := node(value):
        width, height = (integer(text(sides.get(name)), 1, 65_536) for name in ("width", "height"))
        return (width, height) if width and height else None
    match = re.fullmatch(r"(\d{2,5})\s*[*xX]\s*(\d{2,5})", text(value), re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def _plate_time(compact: str, moment: str, arrival: int) -> int:
    """Return the time whose day selects the key for plates."""
    time = _vehicle_time(compact, moment, times.BEIJING)
    return arrival if time is None else time[0]


def _plate(
    anpr: Node, gat: Node, at: int, confidence: float | None, pseudonymiser: Pseudonymiser, removed: Removed
) -> Plate | None:
    written = text(anpr.get("licensePlate"))
    if written:
        count_removed("ANPR.licensePlate", removed)
    if written.lower() in _EMPTY_WORDS or written in {"无车牌", "车牌"}:
        return None
    kind, color = text(anpr.get("plateType")), text(anpr.get("plateColor"))
    of_gat = integer(text(gat.get("palteTypeByGAT", gat.get("plateTypeByGAT"))), 0, 99)
    word = codes.plate_class(_MAKE, kind) if kind.lower() not in _EMPTY_WORDS else ""
    if not word and of_gat is not None:
        word = codes.plate_class("gat1400", f"{of_gat:02}")
    return Plate(
        token=pseudonymiser.plate(written, at),
        number=clear_plate(written, pseudonymiser),
        region=plate_region(written),
        color=_color(color),
        plate_class=word,
        confidence=confidence,
    )


def _location(members: Node) -> tuple[float, float] | None:
    """Return (lon, lat) from degrees, minutes and seconds; zeros mean not set."""

    def degrees(name: str) -> float | None:
        part = node(members.get(name))
        parts = [number(text(part.get(unit)) or 0, 0, 180) for unit in ("degree", "minute", "sec")]
        if parts[0] is None or parts[1] is None or parts[2] is None or not part:
            return None
        degrees_ = parts[0] + parts[1] / 60 + parts[2] / 3_600
        return -degrees_ if text(members.get(f"{name.lower()}Type")).upper() in {"W", "S"} else degrees_

    lon, lat = degrees("Longitude"), degrees("Latitude")
    if lon is None or lat is None or (lon == 0 and lat == 0) or abs(lat) > 90 or abs(lon) > 180:
        return None
    return round(lon, 7), round(lat, 7)


# ── decoding ──────────────────────────────────────────────────────────────────────────────────


def _vehicle_time(compact: str, moment: str, zone: str) -> times.TimeResult | None:
    """Return the time of the picture, otherwise of the message; the message's UTC offset applies to both."""
    message_time = times.parse_iso(moment, zone) if moment else None
    if compact:
        offset = re.search(r"(?:Z|[+-]\d{2}:?\d{2})\Z", moment)
        stamp = f"{compact[:4]}-{compact[4:6]}-{compact[6:8]}T{compact[8:10]}:{compact[10:12]}:{compact[12:14]}"
        return times.parse_iso(f"{stamp}.{compact[14:] or '0'}{offset[0] if offset else ''}", zone) or message_time
    return message_time


_decode = msgspec.json.Decoder(HikvisionAlarms).decode


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:
    """Return what alerts report."""
    try:
        alarms = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected(QuarantineReason.SCHEMA, "the message is not a redacted alert") from None
    observations: list[VideoObservation] = []
    measured: list[Measurement] = []
    ignored = 0 if alarms.alarms else 1
    for alarm in alarms.alarms:
        source = topic_camera(topic) or camera.id
        name = f"{alarm.mac}/{alarm.channel}" if alarm.mac else "/".join(filter(None, (source, alarm.channel)))
        at, quality = _vehicle_time(
            alarm.vehicle.time if alarm.vehicle else "", alarm.time, camera.zone
        ) or times.received(arrival)
        if alarm.heartbeat:
            ignored += 1
            measured.append(Measurement(name, "online", True, "", at, quality, identity(name, at, "beat")))
            continue
        observations += _observations(alarm, name, at, quality)
        measured += _measurements(alarm, name, at, quality, camera)
    refused = tuple(
        RejectedObject(len(alarms.alarms) + at, RejectReason.WRONG_TYPE, "the part is not an alert")
        for at in range(alarms.invalid)
    )
    return VideoReport(tuple(observations), tuple(measured), refused, ignored)


def _observations(alarm: HikvisionAlarm, name: str, at: int, quality: str) -> Iterator[VideoObservation]:
    word = codes.event(_MAKE, alarm.type)
    place = Location(*alarm.location) if alarm.location else None
    car = alarm.vehicle
    if car is not None:
        box, box_quality = _vehicle_box(car)
        yield VideoObservation(
            id=(alarm.uuid and identity(alarm.uuid))
            or identity(name, at, alarm.type or alarm.unknown_type, *_vehicle_identity(car)),
            kind=ObservationKind.OBSERVATION,
            camera=name,
            observed_at=at,
            time_quality=quality,
            format=NAME,
            native_id=alarm.uuid,
            object_class=ObjectClass.VEHICLE,
            subclass=car.subclass,
            box=box,
            box_quality=box_quality,
            image_size=car.size,
            confidence=car.confidence,
            place=place,
            speed=None if car.speed is None else round(car.speed / 3.6, 4),
            lane=car.lane,
            plate=car.plate,
            color=car.color,
            event=VideoEvent(word, alarm.state),
            analytics=alarm.type,
            images=alarm.images,
            removed=alarm.removed,
        )
        return
    several = len(alarm.regions) > 1
    for at_region, zone in enumerate(alarm.regions or (HikvisionRegion(),)):
        box, box_quality = (None, None) if zone.rect is None else boxes.from_fractions(*zone.rect)
        yield VideoObservation(
            id=identity(alarm.uuid, zone.id, at_region if several else 0)
            if alarm.uuid
            else identity(
                name,
                at,
                alarm.type or alarm.unknown_type,
                zone.id,
                alarm.port,
                alarm.state,
                *([alarm.count.region] if alarm.count else []),
                *([at_region] if several else []),
            ),
            kind=ObservationKind.COUNT if alarm.count or alarm.flows else ObservationKind.EVENT,
            camera=name,
            observed_at=at,
            time_quality=quality,
            format=NAME,
            native_id=alarm.uuid,
            object_class=ObjectClass(zone.object_class) if zone.object_class else None,
            subclass=zone.subclass,
            box=box,
            box_quality=box_quality,
            place=place,
            event=VideoEvent(word, alarm.state, zone=_input_name(alarm) or zone.id),
            analytics=alarm.type,
            images=alarm.images,
            removed=alarm.removed,
        )


def _vehicle_identity(car: HikvisionVehicle) -> tuple[object, ...]:
    """Return what tells a vehicle from another one of the same camera and moment: its lane, and its plate."""
    return car.lane, car.plate.token if car.plate else ""


def _input_name(alarm: HikvisionAlarm) -> str:
    return "" if alarm.port is None else f"input{alarm.port}"


def _vehicle_box(car: HikvisionVehicle) -> tuple[Box | None, BoxQuality | None]:
    if car.box is None:
        return None, None
    if car.size is not None:
        return boxes.from_pixels(*car.box, *car.size)
    return boxes.from_grid(*car.box, _GRID)


def _measurements(alarm: HikvisionAlarm, name: str, at: int, quality: str, camera: CameraInfo) -> Iterator[Measurement]:
    word = codes.event(_MAKE, alarm.type)
    state = codes.state_property(word)
    if state and alarm.state is not None:
        for zone in dict.fromkeys(
            _input_name(alarm) or (f"zone{region.id}" if region.id else "") for region in alarm.regions
        ) or [_input_name(alarm)]:
            key = identity(name, at, alarm.type, zone, alarm.state)
            yield Measurement(name, state, alarm.state, "", at, quality, key, channel=zone)
    if alarm.vehicle is not None and alarm.vehicle.speed:
        lane = f"lane{alarm.vehicle.lane}" if alarm.vehicle.lane else ""
        key = identity(alarm.uuid or name, at, "speed", *_vehicle_identity(alarm.vehicle))
        yield Measurement(name, "vehicle_speed", alarm.vehicle.speed, "km/h", at, quality, key, channel=lane)
    for flow in alarm.flows:
        lane = f"lane{flow.lane}" if flow.lane else ""
        for prop, amount in flow.counts.items():
            key = identity(alarm.uuid or name, at, alarm.type, prop, lane)
            yield Measurement(name, prop, amount, _FLOW_UNITS.get(prop, "1"), at, quality, key, channel=lane)
    if alarm.count is not None:
        until, quality_ = times.parse_iso(alarm.count.end, camera.zone) or (at, quality)
        end = "_total" if alarm.count.total else ""
        area = f"zone{alarm.count.region}" if alarm.count.region else ""
        for prop, value in (("people_in", alarm.count.entered), ("people_out", alarm.count.left)):
            if value is not None:
                key = identity(name, until, prop, alarm.count.total, area)
                yield Measurement(
                    name, prop + end, value, "1", until, quality_, key, channel=area, cumulative=alarm.count.total
                )


FORMAT: Final = VideoFormat(NAME, redact, decode)
