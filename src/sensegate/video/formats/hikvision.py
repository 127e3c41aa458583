"""Hikvision ISAPI: ``EventNotificationAlert``, in XML of any namespace, JSON, or multipart with pictures.

Of an alarm stay its kind, state and time, the device's address and channel, regions and boxes by the field list; of a
vehicle its class, colour, lane and speed, and the pseudonym of its plate. Names of channels and free texts do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import allowlist, boxes, codes, multipart, times, xmlsafe
from sensegate.video.boxes import Box
from sensegate.video.format import CameraInfo, Measurement, Pseudonymiser, Redacted, VideoFormat, VideoReport
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
_REGIONS_MAX: Final = 256
_GRID: Final = 1_000
"""Of regions, and of the boxes of vehicles where no resolution is named."""
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
"""Sensitivity and outline say nothing of what was seen; they are left out, and are nobody's secret."""
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
"""Member of a lane's traffic (TFS, TPS), lower case -> property; firmwares differ in how they write them."""
_FLOW_UNITS: Final = {
    "vehicle_speed_mean": "km/h",
    "queue_length": "m",
    "headway": "s",
    "space_headway": "m",
    "time_occupancy": "%",
}
_NEST_MAX: Final = 4

Removed = dict[str, int]


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What all have."""


class HikvisionRegion(_Record, frozen=True):
    """One region in which something was seen."""

    id: str = ""
    object_class: str = ""
    subclass: str = ""
    rect: Box | None = None
    """left, top, right, bottom, 0 to 1"""


class PeopleCount(_Record, frozen=True):
    """People who passed."""

    entered: float | None = None
    left: float | None = None
    total: bool = False
    """Since the counter was reset, not in a period."""
    end: str = ""
    """Of the period."""


class HikvisionVehicle(_Record, frozen=True):
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
    """YYYYMMDDhhmmssSSS on the device's clock."""


class LaneFlow(_Record, frozen=True):
    """Traffic of one lane, or of all."""

    lane: int | None = None
    counts: dict[str, float] = {}
    """Property -> number."""


class HikvisionAlarm(_Record, frozen=True):
    """One message."""

    mac: str = ""
    channel: str = ""
    time: str = ""
    type: str = ""
    """Of the table; empty where it is not in there."""
    state: bool | None = None
    heartbeat: bool = False
    uuid: str = ""
    port: int | None = None
    """Of the input that was closed."""
    regions: tuple[HikvisionRegion, ...] = ()
    count: PeopleCount | None = None
    flows: tuple[LaneFlow, ...] = ()
    vehicle: HikvisionVehicle | None = None
    location: tuple[float, float] | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class HikvisionAlarms(_Record, frozen=True):
    """What one body holds."""

    alarms: tuple[HikvisionAlarm, ...] = ()


# ── what may be kept ─────────────────────────────────────────────────────────────────────────────────


def redact(payload: bytes, topic: str, arrival: int, veil: Pseudonymiser) -> Redacted:  # noqa: ARG001 - the form of all formats
    """Cut an alert in XML or JSON, or a multipart body that holds some."""
    total: Removed = {}
    documents, pictures = [payload], 0
    if multipart.is_multipart(payload):
        documents = []
        for part in multipart.split(payload):
            if part.picture or part.too_long:
                count_removed("part.picture" if part.picture else "part.too_long", total)
                pictures += part.picture and bool(documents)  # one before it came with an earlier alert
            elif part.content.strip():
                documents.append(part.content)
        if not documents and "part.too_long" in total:
            raise Rejected(QuarantineReason.TOO_LARGE, f"a part of more than {multipart.PART_MAX} bytes")
        if not documents and not total:
            raise Rejected(QuarantineReason.MALFORMED, "multipart without a whole part")
    alarms: list[HikvisionAlarm] = []
    for document in documents:
        for alert in _read_alerts(document):
            alarms.append(_redact_alert(alert, arrival, veil, total, pictures))
            pictures = 0
    return Redacted(msgspec.json.encode(HikvisionAlarms(alarms=tuple(alarms))), dict(sorted(total.items())))


def _read_alerts(document: bytes) -> list[Node]:
    start = document.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    tree: Node = allowlist.decode_object(document) if start == b"{" else xmlsafe.tree(document)
    found = as_list(tree[_ALERT]) if _ALERT in tree else [tree] if start == b"{" and "eventType" in tree else []
    alerts: list[Node] = [one for one in found if isinstance(one, dict)]
    if not alerts:
        raise Rejected(QuarantineReason.SCHEMA, f"no {_ALERT}")
    return alerts


def _redact_alert(alert: Node, arrival: int, veil: Pseudonymiser, total: Removed, pictures: int) -> HikvisionAlarm:
    removed: Removed = {}
    count_removed_members("", alert, _ALERT_MEMBERS, removed)
    told = text(alert.get("eventType"))
    if told == "duration":
        told = text(node(node(alert.get("DurationList")).get("Duration")).get("relationEvent")) or told
    state = {"active": True, "inactive": False}.get(text(alert.get("eventState")).lower())
    known = codes.word("event", _MAKE, told) is not None
    beat = told.lower() == "heartbeat" or (
        told.lower() == "videoloss" and state is False and number(text(alert.get("activePostCount"))) in {0, None}
    )
    if told and not known and not beat:
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
        car = _redact_vehicle(alert, moment, arrival, veil, removed)
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
        type=told if known else "",
        state=state,
        heartbeat=beat,
        uuid=_uuid(text(alert.get("UUID")), veil),
        port=integer(text(alert.get("inputIOPortID")), 0, 9_999),
        regions=tuple(_redact_regions(alert, removed)),
        count=_redact_count(node(alert["peopleCounting"]), removed) if "peopleCounting" in alert else None,
        flows=tuple(one for name in ("TFS", "TPS") for one in _redact_flows(alert.get(name), removed))[:_REGIONS_MAX],
        vehicle=car,
        location=_location(node(alert.get("DeviceGPSInfo"))),
        images=images,
        removed=tuple(sorted(removed)),
    )
    for name, count in removed.items():
        count_removed(name, total, count)
    return alarm


def _uuid(word: str, veil: Pseudonymiser) -> str:
    return word.lower() if not word or _UUID.fullmatch(word) else veil.identifier(word)


def _channel(alert: Node) -> str:
    for name in ("dynChannelID", "channelID"):
        if (found := integer(text(alert.get(name)), 0, 99_999)) is not None:
            return str(found)
    return ""


def _redact_regions(alert: Node, removed: Removed) -> Iterator[HikvisionRegion]:
    entries = [
        inner
        for one in map(node, as_list(alert.get("DetectionRegionList")))
        for inner in (as_list(one["DetectionRegionEntry"]) if "DetectionRegionEntry" in one else [one])
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
        cls, sub = codes.object_class(_MAKE, label) if label and label.lower() not in {"all", "others"} else (None, "")
        found = integer(text(entry.get("regionID")), 0, 9_999)
        yield HikvisionRegion(
            id="" if found is None else str(found),
            object_class=cls.value if cls else "",
            subclass=sub,
            rect=_rect(node(entry.get("TargetRect"))),
        )


def _rect(of: Node) -> Box | None:
    """Return left, top, right, bottom of X, Y, width and height in either case."""
    small = {name.lower(): value for name, value in of.items()}
    sides = [number(text(small.get(name)), -1e6, 1e6) for name in ("x", "y", "width", "height")]
    left, top, width, height = sides
    if left is None or top is None or not width or not height:
        return None
    return left, top, round(left + width, 9), round(top + height, 9)


def _redact_count(of: Node, removed: Removed) -> PeopleCount:
    count_removed_members("peopleCounting", of, _COUNTS, removed)
    period = node(of.get("TimeRange"))
    real = node(of.get("RealTime"))
    end = text(period.get("endTime")) or text(real.get("time"))
    return PeopleCount(
        entered=number(text(of.get("enter")), 0, 1e9),
        left=number(text(of.get("exit")), 0, 1e9),
        total=text(of.get("statisticalMethods")).lower() == "realtime",
        end=end if _TIME.fullmatch(end) else "",
    )


def _redact_flows(value: object, removed: Removed, depth: int = 0) -> Iterator[LaneFlow]:
    """Yield the traffic of lanes, wherever in the element they stand; what is no number of theirs is taken out."""
    for one in map(node, as_list(value)):
        small = {name.lower(): name for name in one}
        lane = next((found for name in _LANES if (found := integer(text(one.get(small.get(name, ""))), 0, 99))), None)
        counts: dict[str, float] = {}
        for low, name in small.items():
            inside = [inner for inner in as_list(one[name]) if isinstance(inner, dict)]
            if inside and depth < _NEST_MAX:
                yield from _redact_flows(inside, removed, depth + 1)
            elif low in _FLOWS and (number_ := number(text(one[name]), 0, 1e6)) is not None:
                counts.setdefault(_FLOWS[low], number_)
            elif low not in _LANES and one[name] is not None:
                count_removed(f"TFS.{reportable_name(name)}", removed)
        if counts:
            yield LaneFlow(lane=lane, counts=counts)


def _pictures(alert: Node) -> list[Node]:
    return [node(one) for one in as_list(node(node(alert.get("ANPR")).get("pictureInfoList")).get("pictureInfo"))][:100]


def _redact_vehicle(alert: Node, moment: str, arrival: int, veil: Pseudonymiser, removed: Removed) -> HikvisionVehicle:
    anpr, gat = node(alert.get("ANPR")), node(alert.get("VehicleGATInfo"))
    vehicle = node(anpr.get("vehicleInfo"))
    count_removed_members("ANPR", anpr, _ANPR, removed)
    count_removed_members("vehicleInfo", vehicle, _VEHICLE, removed)
    count_removed_members("VehicleGATInfo", gat, _GAT, removed)
    box, size, at = None, _size(alert.get("detectionBackgroundImageResolution")), ""
    for picture in _pictures(alert):
        count_removed_members("pictureInfo", picture, _PICTURE, removed)
        box = box or _rect(node(picture.get("vehicelRect", picture.get("vehicleRect"))))
        if _COMPACT.fullmatch(found := text(picture.get("absTime"))):
            at = at or found
    for picture in _pictures(alert):
        box = box or _rect(node(picture.get("plateRect")))
    kind = codes.vehicle(_MAKE, text(anpr.get("vehicleType")))
    if kind in {"", "unknown"}:
        kind = codes.vehicle("gat1400", text(gat.get("vehicleTypeByGAT"))) or kind
    level = number(text(anpr.get("confidenceLevel")), 0, 100)
    sure = None if level is None else level / 100
    return HikvisionVehicle(
        subclass=kind,
        lane=integer(text(anpr.get("line", anpr.get("laneNo"))), 0, 99),
        speed=number(text(vehicle.get("speed")), 0, 1_000),
        confidence=sure,
        color=_color(text(vehicle.get("color"))),
        plate=_plate(anpr, gat, _plate_time(at, moment, arrival), sure, veil, removed),
        box=box,
        size=size,
        time=at,
    )


def _color(word: str) -> str:
    return "" if word.lower() in _EMPTY_WORDS else codes.color(_MAKE, word)


def _size(value: object) -> tuple[int, int] | None:
    """Return width and height, of one text or of two members."""
    if sides := node(value):
        width, height = (integer(text(sides.get(name)), 1, 65_536) for name in ("width", "height"))
        return (width, height) if width and height else None
    found = re.fullmatch(r"(\d{2,5})\s*[*xX]\s*(\d{2,5})", text(value), re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def _plate_time(compact: str, moment: str, arrival: int) -> int:
    """Return the time under whose day a plate is hidden."""
    found = _vehicle_time(compact, moment, times.BEIJING)
    return arrival if found is None else found[0]


def _plate(anpr: Node, gat: Node, at: int, sure: float | None, veil: Pseudonymiser, removed: Removed) -> Plate | None:  # noqa: PLR0917
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
        token=veil.plate(written, at),
        number=clear_plate(written, veil),
        region=plate_region(written),
        color=_color(color),
        plate_class=word,
        confidence=sure,
    )


def _location(of: Node) -> tuple[float, float] | None:
    """Return (lon, lat) of degrees, minutes and seconds; nothing of zeros, which mean: not set."""

    def degrees(name: str) -> float | None:
        part = node(of.get(name))
        parts = [number(text(part.get(one)) or 0, 0, 180) for one in ("degree", "minute", "sec")]
        if parts[0] is None or parts[1] is None or parts[2] is None or not part:
            return None
        found = parts[0] + parts[1] / 60 + parts[2] / 3_600
        return -found if text(of.get(f"{name.lower()}Type")).upper() in {"W", "S"} else found

    lon, lat = degrees("Longitude"), degrees("Latitude")
    if lon is None or lat is None or (lon == 0 and lat == 0) or abs(lat) > 90 or abs(lon) > 180:
        return None
    return round(lon, 7), round(lat, 7)


# ── what it reports ──────────────────────────────────────────────────────────────────────────────────


def _vehicle_time(compact: str, moment: str, zone: str) -> times.TimeResult | None:
    """Return the time of the picture, else of the message; the offset that the message names holds for both."""
    said = times.parse_iso(moment, zone) if moment else None
    if compact:
        offset = re.search(r"(?:Z|[+-]\d{2}:?\d{2})\Z", moment)
        stamp = f"{compact[:4]}-{compact[4:6]}-{compact[6:8]}T{compact[8:10]}:{compact[10:12]}:{compact[12:14]}"
        return times.parse_iso(f"{stamp}.{compact[14:] or '0'}{offset[0] if offset else ''}", zone) or said
    return said


_decode = msgspec.json.Decoder(HikvisionAlarms).decode


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:
    """Return what alerts report."""
    try:
        told = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected(QuarantineReason.SCHEMA, "not what was cut of an alert") from None
    observations: list[VideoObservation] = []
    measured: list[Measurement] = []
    ignored = 0 if told.alarms else 1
    for alarm in told.alarms:
        name = f"{alarm.mac}/{alarm.channel}" if alarm.mac else topic_camera(topic) or camera.id
        at, quality = _vehicle_time(
            alarm.vehicle.time if alarm.vehicle else "", alarm.time, camera.zone
        ) or times.received(arrival)
        if alarm.heartbeat:
            ignored += 1
            measured.append(Measurement(name, "online", True, "", at, quality, identity(name, at, "beat")))
            continue
        observations += _observations(alarm, name, at, quality)
        measured += _measurements(alarm, name, at, quality, camera)
    return VideoReport(tuple(observations), tuple(measured), ignored=ignored)


def _observations(alarm: HikvisionAlarm, name: str, at: int, quality: str) -> Iterator[VideoObservation]:
    word = codes.event(_MAKE, alarm.type)
    place = Location(*alarm.location) if alarm.location else None
    car = alarm.vehicle
    if car is not None:
        box, said = _vehicle_box(car)
        yield VideoObservation(
            id=(alarm.uuid and identity(alarm.uuid)) or identity(name, at, alarm.type, ""),
            kind=ObservationKind.OBSERVATION,
            camera=name,
            observed_at=at,
            time_quality=quality,
            format=NAME,
            native_id=alarm.uuid,
            object_class=ObjectClass.VEHICLE,
            subclass=car.subclass,
            box=box,
            box_quality=said,
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
        box, said = (None, None) if zone.rect is None else boxes.from_fractions(*zone.rect)
        yield VideoObservation(
            id=identity(alarm.uuid, zone.id, at_region if several else 0)
            if alarm.uuid
            else identity(name, at, alarm.type, zone.id, alarm.port, alarm.state, *([at_region] if several else [])),
            kind=ObservationKind.COUNT if alarm.count or alarm.flows else ObservationKind.EVENT,
            camera=name,
            observed_at=at,
            time_quality=quality,
            format=NAME,
            native_id=alarm.uuid,
            object_class=ObjectClass(zone.object_class) if zone.object_class else None,
            subclass=zone.subclass,
            box=box,
            box_quality=said,
            place=place,
            event=VideoEvent(word, alarm.state, zone=_input_name(alarm) or zone.id),
            analytics=alarm.type,
            images=alarm.images,
            removed=alarm.removed,
        )


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
            _input_name(alarm) or (f"zone{one.id}" if one.id else "") for one in alarm.regions
        ) or [_input_name(alarm)]:
            key = identity(name, at, alarm.type, zone, alarm.state)
            yield Measurement(name, state, alarm.state, "", at, quality, key, channel=zone)
    if alarm.vehicle is not None and alarm.vehicle.speed:
        lane = f"lane{alarm.vehicle.lane}" if alarm.vehicle.lane else ""
        key = identity(alarm.uuid or name, at, "speed")
        yield Measurement(name, "vehicle_speed", alarm.vehicle.speed, "km/h", at, quality, key, channel=lane)
    for flow in alarm.flows:
        lane = f"lane{flow.lane}" if flow.lane else ""
        for prop, amount in flow.counts.items():
            key = identity(alarm.uuid or name, at, alarm.type, prop, lane)
            yield Measurement(name, prop, amount, _FLOW_UNITS.get(prop, "1"), at, quality, key, channel=lane)
    if alarm.count is not None:
        until, sure = times.parse_iso(alarm.count.end, camera.zone) or (at, quality)
        end = "_total" if alarm.count.total else ""
        for prop, value in (("people_in", alarm.count.entered), ("people_out", alarm.count.left)):
            if value is not None:
                key = identity(name, until, prop, alarm.count.total)
                yield Measurement(name, prop + end, value, "1", until, sure, key, cumulative=alarm.count.total)


FORMAT: Final = VideoFormat(NAME, redact, decode)
