"""Redaction of a GA/T 1400 body to what may be stored; removed fields are counted.

Each object is judged separately: an unusable one is rejected and the others are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from sensegate.video.format import Pseudonymiser, Redacted
from sensegate.video.formats import viid_ids as ids
from sensegate.video.formats.viid_codes import CLASSES, FUNCTIONS, STATES
from sensegate.video.formats.viid_read import (
    ObjectFields,
    SubmittedObject,
    as_list,
    decode_body,
    is_list,
    list_objects,
    lower_keys,
    name_pairs,
    other_names,
)
from sensegate.video.formats.viid_records import (
    CatalogueRecord,
    FlowRecord,
    InvalidRecord,
    MediaRecord,
    Names,
    Sighting,
    VideoLabelRecord,
    ViidBody,
    ViidRecord,
)
from sensegate.video.pseudonyms import normalised_plate
from sensegate.video.times import TimeResult
from sensegate.video.values import plate_region

_encode = msgspec.json.Encoder().encode

_SEEN: Final = dict(
    name_pairs("""
InfoKind SourceID DeviceID LeftTopX LeftTopY RightBtmX RightBtmY SubImageList PassTime ShotTime FaceAppearTime
FaceDisAppearTime PersonAppearTime PersonDisAppearTime AppearTime DisappearTime LocationMarkTime MarkTime TollgateID
LaneNo HasPlate PlateClass PlateColor PlateNo PlateToken PlateRegion PlateReliability Similaritydegree Speed Direction
VehicleClass VehicleType VehicleBrand VehicleModel VehicleColor EventSort
""")
)
_IMAGE: Final = dict(
    name_pairs("ImageID EventSort DeviceID Type FileFormat ShotTime Width Height OriginImageID ImageSource")
)
_LABEL_COUNTS: Final = dict(
    name_pairs("""
TargetNum PersonNum FaceNum VehicleNum ThingNum NonMotorNum PersonFlowRate VehicleFlowRate TotalTargetFlowRate
PersonDensityAbs PersonDensityRlt VehicleDensityAbs VehicleDensityRlt TargetDensityRlt
""")
)
_LABEL: Final = {
    **dict(
        name_pairs("EventSort CameraID DeviceID IVADeviceID CreateTimeAbs ShotTime SourceID InfoKind FlowDirection")
    ),
    **_LABEL_COUNTS,
}
_FLOW_COUNTS: Final = dict(name_pairs("AvgSpeed Congestion QueueLength VehicleCount"))
_FLOW: Final = {**dict(name_pairs("DeviceID SnapTime LaneIndex LaneNo StatCycle")), **_FLOW_COUNTS}
_MEDIA: Final = dict(
    name_pairs("""
DeviceID EventSort ShotTime BeginTime Width Height FileFormat InfoKind Type ImageSource Data StoragePath
ImageInfo VideoSliceInfo FileInfo PersonList FaceList MotorVehicleList NonMotorVehicleList ThingList SceneList
""")
)
_ENTRY: Final = dict(
    name_pairs("""
ApeID ApsID TollgateID LaneID LaneNo Longitude Latitude PlaceCode IsOnline Status OwnerApsID FunctionType LaneNum
CapDirection Direction CurrentTime Port
""")
)
_NO_PLATE: Final = frozenset(
    {"", "-", "--", "0", "无", "无车牌", "无牌", "未知", "未识别", "未悬挂", "unknown", "none"}
)
_NOTICE: Final = dict(
    name_pairs("""
NotificationID SubscribeID TriggerTime InfoIDs ExecuteOperation DeviceList DeviceStatusList PersonObjectList
FaceObjectList MotorVehicleObjectList NonMotorVehicleObjectList ThingObjectList SceneObjectList TollgateObjectList
LaneObjectList FileObjectList ImageObjectList VideoSliceObjectList VideoLabelObjectList VehiclesFlowObjectList
PersonListObject FaceListObject MotorVehicleListObject NonMotorVehicleListObject ThingListObject SceneListObject
TollgateListObject LaneListObject VideoLabelListObject VehiclesFlowListObject APEListObject APEStatusListObject
""")
)
_BOX: Final = ("lefttopx", "lefttopy", "rightbtmx", "rightbtmy")
_TOKEN = re.compile(r"[0-9a-f]{24}", re.ASCII)
_AGES: Final = dict(name_pairs("AgeUpLimit AgeLowerLimit"))
_ADULT, _SENIOR = 18, 60
_PLATE_MAX: Final = 20
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)


class RedactedObject(NamedTuple):
    """An object as submitted."""

    kind: str
    id: str
    """Id as sent, only for the response to its sender."""
    record: ViidRecord | None
    """None: objects of its kind are not stored (cases)."""
    notice: str = ""
    """Id, as sent, of the notification that contains it."""
    inside: bool = False
    """True if another object contains it, which alone is answered."""


class RedactedBody(NamedTuple):
    """A redacted body."""

    objects: list[RedactedObject]
    removed: dict[str, int]
    """Field -> how often it was removed."""
    listed: bool
    """True if the body is a list envelope."""
    notices: list[str]
    """Ids of its notifications, as sent."""

    def body(self) -> ViidBody:
        """Return the part that is stored."""
        records = tuple(item.record for item in self.objects if item.record is not None)
        return ViidBody(records, len(self.objects) - len(records))


def redact_body(payload: bytes, default: str, pseudonymiser: Pseudonymiser, arrival: int) -> RedactedBody:
    """Redact a body; `default`: code of the sending device, for objects that name none.

    Raises:
        Rejected: if the body is not JSON of the standard, or is too large; the detail quotes nothing of it.
    """
    objects_: list[RedactedObject] = []
    removed: dict[str, int] = {}
    notices: list[str] = []
    tree = decode_body(payload)
    given = list_objects(tree)
    for name in other_names(tree):
        removed[name] = removed.get(name, 0) + 1
    for place, raw in enumerate(given):
        if raw.kind == "SubscribeNotification":
            # its objects follow; the notification itself is not stored
            notices.append(raw.notice)
            _count_notification(raw, removed)
            continue
        item = _redact_object(place, raw, default, pseudonymiser, arrival)
        objects_.append(item[0])
        for name, count in item[1].items():
            removed[name] = removed.get(name, 0) + count
    return RedactedBody(objects_, dict(sorted(removed.items())), is_list(tree), notices)


def redact(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:
    """Redact a body; see `format.VideoFormat`."""
    sender = topic.rpartition("/")[2]
    body = redact_body(payload, sender if _NAME.fullmatch(sender) else "", pseudonymiser, arrival)
    return Redacted(_encode(body.body()), body.removed)


def _count_notification(raw: SubmittedObject, removed: dict[str, int]) -> None:
    fields = ObjectFields(raw.value, _NOTICE)
    for name, count in fields.removed.items():
        removed[name] = removed.get(name, 0) + count


def _redact_object(
    place: int, raw: SubmittedObject, default: str, pseudonymiser: Pseudonymiser, arrival: int
) -> tuple[RedactedObject, dict[str, int]]:
    inside = bool(raw.path) and raw.path != "notice"
    if not raw.value:
        return RedactedObject(
            raw.kind, "", InvalidRecord(index=place, detail="the object is malformed"), raw.notice, inside
        ), {}
    maker = _REDACTORS.get(raw.kind)
    sent = _id_as_sent(raw)
    if maker is None:
        return RedactedObject(raw.kind, sent, None, raw.notice, inside), {}
    record, removed = maker(_ObjectWork(place, raw, sent, default, pseudonymiser, arrival))
    return RedactedObject(raw.kind, sent, record, raw.notice, inside), removed


def _id_as_sent(raw: SubmittedObject) -> str:
    names = _ID_NAMES.get(raw.kind, (f"{raw.kind}id",))
    low = lower_keys(raw.value)
    for name in (part.lower() for part in names):
        value = low.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return ""


_ID_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "APE": ("ApeID",),
    "APS": ("ApsID",),
    "APEStatus": ("ApeID",),
    "VideoSlice": ("VideoID", "VideoSliceID"),
    "Lane": ("LaneID", "LaneNo"),
}


class _ObjectWork(NamedTuple):
    """An object during redaction."""

    position: int
    raw: SubmittedObject
    sent_id: str
    default: str
    pseudonymiser: Pseudonymiser
    arrival: int

    def fields(self, allowed: dict[str, str]) -> ObjectFields:
        """Return its fields; those of its id are allowed."""
        own = {name.lower(): name for name in _ID_NAMES.get(self.raw.kind, (f"{self.raw.kind}ID",))}
        return ObjectFields(self.raw.value, {**allowed, **own})

    def id(self) -> ids.ObjectId:
        """Parse its id."""
        return ids.parse_id(self.raw.kind, self.sent_id, self.pseudonymiser)

    def camera(self, fields: ObjectFields, own: ids.ObjectId, *names: str) -> tuple[str, tuple[str, ...]]:
        """Return the camera, and deviations of its field."""
        for name in names:
            text = fields.text(name)
            if ids.is_device(text):
                return text, ("id_device",) if own.unique and own.camera and own.camera != text[: ids.DEVICE] else ()
            if text:
                fields.remove(name)
        if own.unique and own.camera:
            return own.camera, ("no_device",)
        fallback = self.default or own.camera
        return fallback, ("no_device",)

    def time(self, given: TimeResult | None, own: ids.ObjectId) -> tuple[int, str]:
        """Return the time and its quality: as given, from the id, otherwise the arrival."""
        if given is not None:
            return given
        return (self.arrival, "") if own.time is None else (own.time, "derived")


_Result = tuple[ViidRecord, dict[str, int]]


def _removed_names(removed: dict[str, int]) -> Names:
    return tuple(sorted(removed))


# ── sightings ────────────────────────────────────────────────────────────────────────────────────


def _sighting(work: _ObjectWork) -> _Result:
    kind = CLASSES[work.raw.kind]
    aged = work.pseudonymiser.permits(kind, "age_band")
    fields = work.fields({**_SEEN, **_AGES} if aged else _SEEN)
    own = work.id()
    camera, deviations = work.camera(fields, own, "deviceid")
    images = _images(fields)
    at, quality = work.time(
        fields.time("passtime", "shottime", "faceappeartime", "personappeartime", "appeartime") or images.shot, own
    )
    for name in ("facedisappeartime", "persondisappeartime", "disappeartime", "locationmarktime", "marktime"):
        fields.time(name)
    fields.integer("infokind", 0, 9)
    source = fields.text("sourceid")
    if source and ids.basic_id_time(source) is None and not ids.is_device(source):
        fields.remove("sourceid")
    tollgate = fields.text("tollgateid")
    if tollgate and not ids.is_tollgate(tollgate):
        fields.remove("tollgateid")
        tollgate = ""
    token, area, number = _plate(fields, work.pseudonymiser, at, kind)
    lane = fields.integer("laneno", 0, 99)
    event = fields.integer("eventsort", 0, 999)
    record = Sighting(
        kind=work.raw.kind,  # type: ignore[arg-type] # `_REDACTORS` has no other kind
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + deviations,
        box=_box(fields),
        size=images.size,
        pictures=images.many,
        event=images.event if event is None else event,
        tollgate=tollgate,
        lane=lane or None,
        token=token,
        region=area,
        number=number,
        age_band=_age_band(fields) if aged else "",  # type: ignore[arg-type] # one of three words
        plate_color=fields.code("platecolor"),
        plate_class=fields.code("plateclass"),
        plate_reliability=fields.number("platereliability", 0, 100),
        similarity=fields.number("similaritydegree", 0, 1),
        speed=fields.number("speed", 0, 400),
        direction=fields.code("direction", 2),
        vehicle_class=fields.code("vehicleclass") or fields.code("vehicletype"),
        brand=fields.code("vehiclebrand"),
        model=fields.code("vehiclemodel"),
        color=fields.code("vehiclecolor"),
    )
    removed = _sum_counts(fields.removed, images.removed)
    return msgspec.structs.replace(record, removed=_removed_names(removed)), removed


class _Images(NamedTuple):
    many: int
    size: tuple[int, int] | None
    shot: TimeResult | None
    event: int | None
    removed: dict[str, int]


_NO_IMAGES: Final = _Images(0, None, None, None, {})


def _images(fields: ObjectFields) -> _Images:
    value = fields.raw("subimagelist")
    if value in ("", None):
        return _NO_IMAGES
    inner = lower_keys(value).get("subimageinfoobject", []) if isinstance(value, dict) else value
    removed: dict[str, int] = {}
    if not isinstance(value, (dict, list)):
        fields.remove("subimagelist")
        return _NO_IMAGES
    if isinstance(value, dict):
        others = {name: member for name, member in value.items() if name.lower() != "subimageinfoobject"}
        removed = ObjectFields(others, {}).removed
    shot: TimeResult | None = None
    event: int | None = None
    sizes: dict[str, tuple[int, int]] = {}
    count = 0
    for image in as_list(inner):
        if not isinstance(image, dict):
            fields.remove("subimagelist")
            continue
        count += 1
        image_fields = ObjectFields(image, _IMAGE, "SubImageInfoObject.")
        kind = image_fields.code("type").zfill(2)
        width, height = image_fields.integer("width", 1, 1_000_000), image_fields.integer("height", 1, 1_000_000)
        if width and height:
            sizes.setdefault(kind, (width, height))
        shot = image_fields.time("shottime") or shot if shot is None else shot
        sort = image_fields.integer("eventsort", 0, 999)
        event = sort if event is None else event
        for name in ("imageid", "originimageid"):
            text = image_fields.text(name)
            if text and ids.basic_id_time(text) is None and not ids.is_device(text):
                image_fields.remove(name)
        if (device := image_fields.text("deviceid")) and not ids.is_device(device):
            image_fields.remove("deviceid")
        image_fields.code("fileformat")
        image_fields.code("imagesource")
        removed = _sum_counts(removed, image_fields.removed)
    return _Images(count, sizes.get("14") or sizes.get("01"), shot, event, removed)


def _sum_counts(first: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    both = dict(first)
    for name, count in other.items():
        both[name] = both.get(name, 0) + count
    return both


def _box(fields: ObjectFields) -> tuple[float, float, float, float] | None:
    sides = [fields.number(name, 0, 1_000_000) for name in _BOX]
    left, top, right, bottom = sides
    if left is None or top is None or right is None or bottom is None or not any(sides):
        return None
    return left, top, right, bottom


def _plate(fields: ObjectFields, pseudonymiser: Pseudonymiser, at: int, kind: str) -> tuple[str, str, str]:
    """Return (pseudonym, region, number) of the plate; empty if there is none; the number only with a legal basis.

    A gateway below has already pseudonymised the number: its pseudonym is kept unchanged.
    """
    number = fields.text("plateno")
    fields.code("hasplate")
    token, area = fields.text("platetoken"), fields.text("plateregion")
    if token and not _TOKEN.fullmatch(token):
        fields.remove("platetoken")
        token = ""
    if area and (len(area) != 2 or plate_region(area) != area):
        fields.remove("plateregion")
        area = ""
    if number.lower() in _NO_PLATE:
        return (token, area, "") if token else ("", "", "")
    if len(number) > 64:
        fields.remove("plateno")
        return "", "", ""
    clear = normalised_plate(number)[:_PLATE_MAX] if pseudonymiser.permits(kind, "plate.number") else ""
    return pseudonymiser.plate(number, at), plate_region(number), clear


def _age_band(fields: ObjectFields) -> str:
    """Return the age band that contains both limits, which may be swapped; two zeros mean unknown."""
    limits = [fields.integer(name, 0, 150) for name in ("agelowerlimit", "ageuplimit")]
    known = sorted(limit for limit in limits if limit is not None)
    if not known or not any(known):
        return ""
    bands = {"child" if limit < _ADULT else "senior" if limit >= _SENIOR else "adult" for limit in known}
    return bands.pop() if len(bands) == 1 else ""


# ── counts ─────────────────────────────────────────────────────────────────────────────────


def _label(work: _ObjectWork) -> _Result:
    fields = work.fields(_LABEL)
    own = work.id()
    camera, deviations = work.camera(fields, own, "cameraid", "deviceid")
    at, quality = work.time(fields.time("createtimeabs", "shottime"), own)
    analytics = fields.text("ivadeviceid")
    if analytics and not ids.is_device(analytics):
        fields.remove("ivadeviceid")
        analytics = ""
    fields.integer("infokind", 0, 9)
    fields.code("flowdirection")
    counts = {name: value for low, name in _LABEL_COUNTS.items() if (value := fields.number(low, 0, 1e9)) is not None}
    record = VideoLabelRecord(
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + deviations,
        analytics=analytics,
        event=fields.integer("eventsort", 0, 999),
        counts=counts,
        removed=_removed_names(fields.removed),
    )
    return record, fields.removed


def _flow(work: _ObjectWork) -> _Result:
    fields = work.fields(_FLOW)
    own = work.id()
    camera, deviations = work.camera(fields, own, "deviceid")
    at, quality = work.time(fields.time("snaptime"), own)
    counts = {name: value for low, name in _FLOW_COUNTS.items() if (value := fields.number(low, 0, 1e9)) is not None}
    lane = fields.integer("laneindex", 0, 99)
    record = FlowRecord(
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + deviations,
        lane=fields.integer("laneno", 0, 99) if lane is None else lane,
        cycle_s=fields.number("statcycle", 1, 86_400),
        counts=counts,
        removed=_removed_names(fields.removed),
    )
    return record, fields.removed


# ── images, files, catalogues ────────────────────────────────────────────────────────────────────────


def _media(work: _ObjectWork) -> _Result:
    fields = work.fields(_MEDIA)
    for name in ("data", "storagepath"):
        if fields.raw(name) not in ("", None):
            fields.remove(name)
    own = work.id()
    camera, deviations = work.camera(fields, own, "deviceid")
    at, quality = work.time(fields.time("shottime", "begintime"), own)
    record = MediaRecord(
        kind=work.raw.kind,  # type: ignore[arg-type] # `_REDACTORS` has no other kind
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + deviations,
        event=fields.integer("eventsort", 0, 999),
        removed=_removed_names(fields.removed),
    )
    return record, fields.removed


def _entry(work: _ObjectWork) -> _Result:
    fields = work.fields(_ENTRY)
    kind = "APE" if work.raw.kind == "APEStatus" else work.raw.kind
    named = ids.is_tollgate(work.sent_id) if kind in {"Tollgate", "Lane"} else ids.is_device(work.sent_id)
    if not named:
        detail = f"{work.raw.kind}: its id is not of the standard's form"
        return InvalidRecord(index=work.position, detail=detail), fields.removed
    at, quality = work.time(fields.time("currenttime"), ids.ObjectId(""))
    division = fields.text("placecode")
    if division and not (division.isascii() and division.isdigit() and len(division) in {6, 9, 12}):
        fields.remove("placecode")
        division = ""
    owner = ""
    for name in ("ownerapsid",) if kind != "Lane" else ("tollgateid",):
        owner = fields.text(name)
        if owner and not ids.is_tollgate(owner):
            fields.remove(name)
            owner = ""
    functions = [part.strip() for part in fields.text("functiontype").split("/") if part.strip()]
    if any(function not in FUNCTIONS for function in functions):
        fields.remove("functiontype")
    record = CatalogueRecord(
        kind=kind,  # type: ignore[arg-type] # `_REDACTORS` has no other kind
        id=work.sent_id,
        unique_id=True,
        camera=work.sent_id if kind in {"APE", "APS"} else "",
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        lon=fields.number("longitude", -180, 180),
        lat=fields.number("latitude", -90, 90),
        division=division,
        online=STATES.get(fields.code("isonline") or (fields.code("status") if kind == "APE" else "")),
        owner=owner,
        functions=tuple(FUNCTIONS[function] for function in functions if function in FUNCTIONS),
        lanes=fields.integer("lanenum", 0, 99),
        direction=fields.code("capdirection", 2) or fields.code("direction", 2),
        removed=_removed_names(fields.removed),
    )
    return record, fields.removed


_REDACTORS: Final[dict[str, Callable[[_ObjectWork], _Result]]] = {
    **dict.fromkeys(("MotorVehicle", "NonMotorVehicle", "Person", "Face", "Thing", "Scene"), _sighting),
    "VideoLabel": _label,
    "VehiclesFlow": _flow,
    **dict.fromkeys(("Image", "VideoSlice", "File"), _media),
    **dict.fromkeys(("APE", "APS", "Tollgate", "Lane", "APEStatus"), _entry),
}
