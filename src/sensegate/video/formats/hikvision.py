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
from sensegate.video.format import Camera, Cut, Measured, Seen, Veil, VideoFormat
from sensegate.video.observation import BoxQuality, Event, Kind, ObjectClass, Place, Plate, VideoObservation
from sensegate.video.values import (
    Node,
    camera_of,
    clear_plate,
    identity,
    many,
    node,
    number,
    region,
    rest,
    take,
    text,
    told_name,
    whole,
    words,
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
_NOTHING: Final = frozenset({"", "unknown", "0", "-1"})

_KEPT: Final = words(
    "@version macAddress dynChannelID channelID dateTime activePostCount eventType eventState DetectionRegionList "
    "inputIOPortID DurationList ANPR UUID picNum DeviceGPSInfo VehicleGATInfo detectionPicturesNumber "
    "detectionBackgroundImageResolution targetType TargetRect peopleCounting isDataRetransmission TFS TPS"
)
_REGION: Final = words("regionID sensitivityLevel RegionCoordinatesList detectionTarget TargetRect direction ruleID")
"""Sensitivity and outline say nothing of what was seen; they are left out, and are nobody's secret."""
_ANPR: Final = words(
    "line confidenceLevel plateType plateColor vehicleType vehicleInfo pictureInfoList licensePlate laneNo"
)
_VEHICLE: Final = words("index vehicleType color speed colorDepth length")
_PICTURE: Final = words("type dataType absTime plateRect vehicelRect vehicleRect")
_GAT: Final = words("palteTypeByGAT plateTypeByGAT vehicleTypeByGAT")
_COUNTS: Final = words(
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


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What all have."""


class Region(Record, frozen=True):
    """One region in which something was seen."""

    id: str = ""
    cls: str = ""
    sub: str = ""
    rect: Box | None = None
    """left, top, right, bottom, 0 to 1"""


class Count(Record, frozen=True):
    """People who passed."""

    entered: float | None = None
    left: float | None = None
    total: bool = False
    """Since the counter was reset, not in a period."""
    end: str = ""
    """Of the period."""


class Car(Record, frozen=True):
    """A vehicle."""

    sub: str = ""
    lane: int | None = None
    speed: float | None = None
    """km/h"""
    sure: float | None = None
    """0 to 1"""
    color: str = ""
    plate: Plate | None = None
    box: Box | None = None
    """left, top, right, bottom as sent"""
    size: tuple[int, int] | None = None
    moment: str = ""
    """YYYYMMDDhhmmssSSS on the device's clock."""


class Flow(Record, frozen=True):
    """Traffic of one lane, or of all."""

    lane: int | None = None
    counts: dict[str, float] = {}
    """Property -> number."""


class Alarm(Record, frozen=True):
    """One message."""

    mac: str = ""
    channel: str = ""
    moment: str = ""
    type: str = ""
    """Of the table; empty where it is not in there."""
    state: bool | None = None
    beat: bool = False
    uuid: str = ""
    port: int | None = None
    """Of the input that was closed."""
    regions: tuple[Region, ...] = ()
    count: Count | None = None
    flows: tuple[Flow, ...] = ()
    car: Car | None = None
    place: tuple[float, float] | None = None
    images: int = 0
    removed: tuple[str, ...] = ()


class Alarms(Record, frozen=True):
    """What one body holds."""

    alarms: tuple[Alarm, ...] = ()


# ── what may be kept ─────────────────────────────────────────────────────────────────────────────────


def cut(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:  # noqa: ARG001 - the form of all formats
    """Cut an alert in XML or JSON, or a multipart body that holds some."""
    total: Removed = {}
    documents, pictures = [payload], 0
    if multipart.is_multipart(payload):
        documents = []
        for part in multipart.split(payload):
            if part.picture or part.too_long:
                take("part.picture" if part.picture else "part.too_long", total)
                pictures += part.picture and bool(documents)  # one before it came with an earlier alert
            elif part.content.strip():
                documents.append(part.content)
        if not documents and "part.too_long" in total:
            raise Rejected(QuarantineReason.TOO_LARGE, f"a part of more than {multipart.PART_MAX} bytes")
        if not documents and not total:
            raise Rejected(QuarantineReason.MALFORMED, "multipart without a whole part")
    alarms: list[Alarm] = []
    for document in documents:
        for alert in _alerts(document):
            alarms.append(_alarm(alert, arrival, veil, total, pictures))
            pictures = 0
    return Cut(msgspec.json.encode(Alarms(alarms=tuple(alarms))), dict(sorted(total.items())))


def _alerts(document: bytes) -> list[Node]:
    start = document.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    tree: Node = allowlist.read_object(document) if start == b"{" else xmlsafe.tree(document)
    found = many(tree[_ALERT]) if _ALERT in tree else [tree] if start == b"{" and "eventType" in tree else []
    alerts: list[Node] = [one for one in found if isinstance(one, dict)]
    if not alerts:
        raise Rejected(QuarantineReason.SCHEMA, f"no {_ALERT}")
    return alerts


def _alarm(alert: Node, arrival: int, veil: Veil, total: Removed, pictures: int) -> Alarm:
    removed: Removed = {}
    rest("", alert, _KEPT, removed)
    told = text(alert.get("eventType"))
    if told == "duration":
        told = text(node(node(alert.get("DurationList")).get("Duration")).get("relationEvent")) or told
    state = {"active": True, "inactive": False}.get(text(alert.get("eventState")).lower())
    known = codes.word("event", _MAKE, told) is not None
    beat = told.lower() == "heartbeat" or (
        told.lower() == "videoloss" and state is False and number(text(alert.get("activePostCount"))) in {0, None}
    )
    if told and not known and not beat:
        take("eventType", removed)
    moment = text(alert.get("dateTime"))
    if moment and not _TIME.fullmatch(moment):
        take("dateTime", removed)
        moment = ""
    mac = text(alert.get("macAddress"))
    if mac and not _MAC.fullmatch(mac):
        take("macAddress", removed)
        mac = ""
    car = None
    if "ANPR" in alert:
        car = _car(alert, moment, arrival, veil, removed)
    images = max(
        pictures,
        whole(text(alert.get("picNum")), 0, 1_000) or 0,
        whole(text(alert.get("detectionPicturesNumber")), 0, 1_000) or 0,
        len(_pictures(alert)),
    )
    alarm = Alarm(
        mac=mac.lower().replace("-", ":"),
        channel=_channel(alert),
        moment=moment,
        type=told if known else "",
        state=state,
        beat=beat,
        uuid=_uuid(text(alert.get("UUID")), veil),
        port=whole(text(alert.get("inputIOPortID")), 0, 9_999),
        regions=tuple(_regions(alert, removed)),
        count=_count(node(alert["peopleCounting"]), removed) if "peopleCounting" in alert else None,
        flows=tuple(one for name in ("TFS", "TPS") for one in _flows(alert.get(name), removed))[:_REGIONS_MAX],
        car=car,
        place=_place(node(alert.get("DeviceGPSInfo"))),
        images=images,
        removed=tuple(sorted(removed)),
    )
    for name, count in removed.items():
        take(name, total, count)
    return alarm


def _uuid(word: str, veil: Veil) -> str:
    return word.lower() if not word or _UUID.fullmatch(word) else veil.word(word)


def _channel(alert: Node) -> str:
    for name in ("dynChannelID", "channelID"):
        if (found := whole(text(alert.get(name)), 0, 99_999)) is not None:
            return str(found)
    return ""


def _regions(alert: Node, removed: Removed) -> Iterator[Region]:
    entries = [
        inner
        for one in map(node, many(alert.get("DetectionRegionList")))
        for inner in (many(one["DetectionRegionEntry"]) if "DetectionRegionEntry" in one else [one])
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
        rest("DetectionRegionEntry", entry, _REGION, removed)
        label = text(entry.get("detectionTarget"))
        cls, sub = codes.seen_as(_MAKE, label) if label and label.lower() not in {"all", "others"} else (None, "")
        found = whole(text(entry.get("regionID")), 0, 9_999)
        yield Region(
            id="" if found is None else str(found),
            cls=cls.value if cls else "",
            sub=sub,
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


def _count(of: Node, removed: Removed) -> Count:
    rest("peopleCounting", of, _COUNTS, removed)
    period = node(of.get("TimeRange"))
    real = node(of.get("RealTime"))
    end = text(period.get("endTime")) or text(real.get("time"))
    return Count(
        entered=number(text(of.get("enter")), 0, 1e9),
        left=number(text(of.get("exit")), 0, 1e9),
        total=text(of.get("statisticalMethods")).lower() == "realtime",
        end=end if _TIME.fullmatch(end) else "",
    )


def _flows(value: object, removed: Removed, depth: int = 0) -> Iterator[Flow]:
    """Yield the traffic of lanes, wherever in the element they stand; what is no number of theirs is taken out."""
    for one in map(node, many(value)):
        small = {name.lower(): name for name in one}
        lane = next((found for name in _LANES if (found := whole(text(one.get(small.get(name, ""))), 0, 99))), None)
        counts: dict[str, float] = {}
        for low, name in small.items():
            inside = [inner for inner in many(one[name]) if isinstance(inner, dict)]
            if inside and depth < _NEST_MAX:
                yield from _flows(inside, removed, depth + 1)
            elif low in _FLOWS and (number_ := number(text(one[name]), 0, 1e6)) is not None:
                counts.setdefault(_FLOWS[low], number_)
            elif low not in _LANES and one[name] is not None:
                take(f"TFS.{told_name(name)}", removed)
        if counts:
            yield Flow(lane=lane, counts=counts)


def _pictures(alert: Node) -> list[Node]:
    return [node(one) for one in many(node(node(alert.get("ANPR")).get("pictureInfoList")).get("pictureInfo"))][:100]


def _car(alert: Node, moment: str, arrival: int, veil: Veil, removed: Removed) -> Car:
    anpr, gat = node(alert.get("ANPR")), node(alert.get("VehicleGATInfo"))
    vehicle = node(anpr.get("vehicleInfo"))
    rest("ANPR", anpr, _ANPR, removed)
    rest("vehicleInfo", vehicle, _VEHICLE, removed)
    rest("VehicleGATInfo", gat, _GAT, removed)
    box, size, at = None, _size(alert.get("detectionBackgroundImageResolution")), ""
    for picture in _pictures(alert):
        rest("pictureInfo", picture, _PICTURE, removed)
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
    return Car(
        sub=kind,
        lane=whole(text(anpr.get("line", anpr.get("laneNo"))), 0, 99),
        speed=number(text(vehicle.get("speed")), 0, 1_000),
        sure=sure,
        color=_color(text(vehicle.get("color"))),
        plate=_plate(anpr, gat, _day(at, moment, arrival), sure, veil, removed),
        box=box,
        size=size,
        moment=at,
    )


def _color(word: str) -> str:
    return "" if word.lower() in _NOTHING else codes.color(_MAKE, word)


def _size(value: object) -> tuple[int, int] | None:
    """Return width and height, of one text or of two members."""
    if sides := node(value):
        width, height = (whole(text(sides.get(name)), 1, 65_536) for name in ("width", "height"))
        return (width, height) if width and height else None
    found = re.fullmatch(r"(\d{2,5})\s*[*xX]\s*(\d{2,5})", text(value), re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def _day(compact: str, moment: str, arrival: int) -> int:
    """Return the time under whose day a plate is hidden."""
    found = _when(compact, moment, times.BEIJING)
    return arrival if found is None else found[0]


def _plate(anpr: Node, gat: Node, at: int, sure: float | None, veil: Veil, removed: Removed) -> Plate | None:  # noqa: PLR0917
    written = text(anpr.get("licensePlate"))
    if written:
        take("ANPR.licensePlate", removed)
    if written.lower() in _NOTHING or written in {"无车牌", "车牌"}:
        return None
    kind, color = text(anpr.get("plateType")), text(anpr.get("plateColor"))
    of_gat = whole(text(gat.get("palteTypeByGAT", gat.get("plateTypeByGAT"))), 0, 99)
    word = codes.plate_class(_MAKE, kind) if kind.lower() not in _NOTHING else ""
    if not word and of_gat is not None:
        word = codes.plate_class("gat1400", f"{of_gat:02}")
    return Plate(
        token=veil.plate(written, at),
        number=clear_plate(written, veil),
        region=region(written),
        color=_color(color),
        plate_class=word,
        confidence=sure,
    )


def _place(of: Node) -> tuple[float, float] | None:
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


def _when(compact: str, moment: str, zone: str) -> times.Found | None:
    """Return the time of the picture, else of the message; the offset that the message names holds for both."""
    said = times.parse_iso(moment, zone) if moment else None
    if compact:
        offset = re.search(r"(?:Z|[+-]\d{2}:?\d{2})\Z", moment)
        stamp = f"{compact[:4]}-{compact[4:6]}-{compact[6:8]}T{compact[8:10]}:{compact[10:12]}:{compact[12:14]}"
        return times.parse_iso(f"{stamp}.{compact[14:] or '0'}{offset[0] if offset else ''}", zone) or said
    return said


_decode = msgspec.json.Decoder(Alarms).decode


def see(payload: bytes, topic: str, arrival: int, camera: Camera) -> Seen:
    """Return what alerts report."""
    try:
        told = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected(QuarantineReason.SCHEMA, "not what was cut of an alert") from None
    observations: list[VideoObservation] = []
    measured: list[Measured] = []
    ignored = 0 if told.alarms else 1
    for alarm in told.alarms:
        name = f"{alarm.mac}/{alarm.channel}" if alarm.mac else camera_of(topic) or camera.id
        at, quality = _when(alarm.car.moment if alarm.car else "", alarm.moment, camera.zone) or times.received(arrival)
        if alarm.beat:
            ignored += 1
            measured.append(Measured(name, "online", True, "", at, quality, identity(name, at, "beat")))
            continue
        observations += _observed(alarm, name, at, quality)
        measured += _measured(alarm, name, at, quality, camera)
    return Seen(tuple(observations), tuple(measured), ignored=ignored)


def _observed(alarm: Alarm, name: str, at: int, quality: str) -> Iterator[VideoObservation]:
    word = codes.event(_MAKE, alarm.type)
    place = Place(*alarm.place) if alarm.place else None
    car = alarm.car
    if car is not None:
        box, said = _car_box(car)
        yield VideoObservation(
            id=(alarm.uuid and identity(alarm.uuid)) or identity(name, at, alarm.type, ""),
            kind=Kind.OBSERVATION,
            camera=name,
            observed_at=at,
            time_quality=quality,
            format=NAME,
            native_id=alarm.uuid,
            object_class=ObjectClass.VEHICLE,
            subclass=car.sub,
            box=box,
            box_quality=said,
            image_size=car.size,
            confidence=car.sure,
            place=place,
            speed=None if car.speed is None else round(car.speed / 3.6, 4),
            lane=car.lane,
            plate=car.plate,
            color=car.color,
            event=Event(word, alarm.state),
            analytics=alarm.type,
            images=alarm.images,
            removed=alarm.removed,
        )
        return
    several = len(alarm.regions) > 1
    for at_region, zone in enumerate(alarm.regions or (Region(),)):
        box, said = (None, None) if zone.rect is None else boxes.unit(*zone.rect)
        yield VideoObservation(
            id=identity(alarm.uuid, zone.id, at_region if several else 0)
            if alarm.uuid
            else identity(name, at, alarm.type, zone.id, alarm.port, alarm.state, *([at_region] if several else [])),
            kind=Kind.COUNT if alarm.count or alarm.flows else Kind.EVENT,
            camera=name,
            observed_at=at,
            time_quality=quality,
            format=NAME,
            native_id=alarm.uuid,
            object_class=ObjectClass(zone.cls) if zone.cls else None,
            subclass=zone.sub,
            box=box,
            box_quality=said,
            place=place,
            event=Event(word, alarm.state, zone=_input(alarm) or zone.id),
            analytics=alarm.type,
            images=alarm.images,
            removed=alarm.removed,
        )


def _input(alarm: Alarm) -> str:
    return "" if alarm.port is None else f"input{alarm.port}"


def _car_box(car: Car) -> tuple[Box | None, BoxQuality | None]:
    if car.box is None:
        return None, None
    if car.size is not None:
        return boxes.pixels(*car.box, *car.size)
    return boxes.grid(*car.box, _GRID)


def _measured(alarm: Alarm, name: str, at: int, quality: str, camera: Camera) -> Iterator[Measured]:
    word = codes.event(_MAKE, alarm.type)
    state = codes.state_property(word)
    if state and alarm.state is not None:
        for zone in dict.fromkeys(_input(alarm) or (f"zone{one.id}" if one.id else "") for one in alarm.regions) or [
            _input(alarm)
        ]:
            key = identity(name, at, alarm.type, zone, alarm.state)
            yield Measured(name, state, alarm.state, "", at, quality, key, channel=zone)
    if alarm.car is not None and alarm.car.speed:
        lane = f"lane{alarm.car.lane}" if alarm.car.lane else ""
        key = identity(alarm.uuid or name, at, "speed")
        yield Measured(name, "vehicle_speed", alarm.car.speed, "km/h", at, quality, key, channel=lane)
    for flow in alarm.flows:
        lane = f"lane{flow.lane}" if flow.lane else ""
        for prop, amount in flow.counts.items():
            key = identity(alarm.uuid or name, at, alarm.type, prop, lane)
            yield Measured(name, prop, amount, _FLOW_UNITS.get(prop, "1"), at, quality, key, channel=lane)
    if alarm.count is not None:
        until, sure = times.parse_iso(alarm.count.end, camera.zone) or (at, quality)
        end = "_total" if alarm.count.total else ""
        for prop, value in (("people_in", alarm.count.entered), ("people_out", alarm.count.left)):
            if value is not None:
                key = identity(name, until, prop, alarm.count.total)
                yield Measured(name, prop + end, value, "1", until, sure, key, cumulative=alarm.count.total)


FORMAT: Final = VideoFormat(NAME, cut, see)
