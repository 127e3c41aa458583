"""A GA/T 1400 body -> what of it may be kept. Nothing else of a body goes on; what falls is counted by field.

Each object is judged alone: one that cannot be used is refused and the others are kept.
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
    """One object as it was submitted."""

    kind: str
    id: str
    """As sent: for the answer to its sender and for nothing else."""
    record: ViidRecord | None
    """None: of its kind nothing is kept (cases)."""
    notice: str = ""
    """Id, as sent, of the notification that it stands in."""
    inside: bool = False
    """Whether it stands in another object, which alone is answered."""


class RedactedBody(NamedTuple):
    """A body, cut."""

    objects: list[RedactedObject]
    removed: dict[str, int]
    """Field -> how often it was taken out."""
    listed: bool
    """Whether the body is an envelope of many."""
    notices: list[str]
    """Ids, as sent, of its notifications."""

    def body(self) -> ViidBody:
        """Return what goes on."""
        kept = tuple(one.record for one in self.objects if one.record is not None)
        return ViidBody(kept, len(self.objects) - len(kept))


def redact_body(payload: bytes, default: str, veil: Pseudonymiser, arrival: int) -> RedactedBody:
    """Return the objects of a body; `default`: code of the device that sent it, where an object names none.

    Raises:
        Rejected: the body is no JSON of the standard, or too large; the detail quotes nothing of it.
    """
    found: list[RedactedObject] = []
    removed: dict[str, int] = {}
    told: list[str] = []
    tree = decode_body(payload)
    given = list_objects(tree)
    for name in other_names(tree):
        removed[name] = removed.get(name, 0) + 1
    for place, raw in enumerate(given):
        if raw.kind == "SubscribeNotification":
            # the objects of the notification follow it; of itself nothing is kept
            told.append(raw.notice)
            _count_notification(raw, removed)
            continue
        one = _redact_object(place, raw, default, veil, arrival)
        found.append(one[0])
        for name, count in one[1].items():
            removed[name] = removed.get(name, 0) + count
    return RedactedBody(found, dict(sorted(removed.items())), is_list(tree), told)


def redact(payload: bytes, topic: str, arrival: int, veil: Pseudonymiser) -> Redacted:
    """Return what of a body may be kept; see `form.VideoFormat`."""
    sender = topic.rpartition("/")[2]
    whole = redact_body(payload, sender if _NAME.fullmatch(sender) else "", veil, arrival)
    return Redacted(_encode(whole.body()), whole.removed)


def _count_notification(raw: SubmittedObject, removed: dict[str, int]) -> None:
    fields = ObjectFields(raw.value, _NOTICE)
    for name, count in fields.removed.items():
        removed[name] = removed.get(name, 0) + count


def _redact_object(
    place: int, raw: SubmittedObject, default: str, veil: Pseudonymiser, arrival: int
) -> tuple[RedactedObject, dict[str, int]]:
    inside = bool(raw.path) and raw.path != "notice"
    if not raw.value:
        return RedactedObject(raw.kind, "", InvalidRecord(index=place, detail="no object"), raw.notice, inside), {}
    maker = _REDACTORS.get(raw.kind)
    sent = _id_as_sent(raw)
    if maker is None:
        return RedactedObject(raw.kind, sent, None, raw.notice, inside), {}
    kept, removed = maker(_ObjectWork(place, raw, sent, default, veil, arrival))
    return RedactedObject(raw.kind, sent, kept, raw.notice, inside), removed


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
    """One object that is being read."""

    index: int
    raw: SubmittedObject
    sent_id: str
    default: str
    veil: Pseudonymiser
    arrival: int

    def fields(self, allowed: dict[str, str]) -> ObjectFields:
        """Return its fields; those of its id are known."""
        own = {name.lower(): name for name in _ID_NAMES.get(self.raw.kind, (f"{self.raw.kind}ID",))}
        return ObjectFields(self.raw.value, {**allowed, **own})

    def id(self) -> ids.ObjectId:
        """Return what its id is."""
        return ids.parse_id(self.raw.kind, self.sent_id, self.veil)

    def camera(self, fields: ObjectFields, own: ids.ObjectId, *names: str) -> tuple[str, tuple[str, ...]]:
        """Return the camera, and what is odd about it."""
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

    def time(self, found: TimeResult | None, own: ids.ObjectId) -> tuple[int, str]:
        """Return the time of it and how sure it is: as said, of the id, else of the arrival."""
        if found is not None:
            return found
        return (self.arrival, "") if own.time is None else (own.time, "derived")


_Result = tuple[ViidRecord, dict[str, int]]


def _removed_names(removed: dict[str, int]) -> Names:
    return tuple(sorted(removed))


# ── what was seen ────────────────────────────────────────────────────────────────────────────────────


def _sighting(work: _ObjectWork) -> _Result:
    kind = CLASSES[work.raw.kind]
    aged = work.veil.permits(kind, "age_band")
    fields = work.fields({**_SEEN, **_AGES} if aged else _SEEN)
    own = work.id()
    camera, odd = work.camera(fields, own, "deviceid")
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
    token, area, number = _plate(fields, work.veil, at, kind)
    lane = fields.integer("laneno", 0, 99)
    event = fields.integer("eventsort", 0, 999)
    kept = Sighting(
        kind=work.raw.kind,  # type: ignore[arg-type] # the table of makers holds no other
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + odd,
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
    return msgspec.structs.replace(kept, removed=_removed_names(removed)), removed


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
        rest = ObjectFields({name: one for name, one in value.items() if name.lower() != "subimageinfoobject"}, {})
        removed = rest.removed
    shot: TimeResult | None = None
    event: int | None = None
    sizes: dict[str, tuple[int, int]] = {}
    count = 0
    for image in as_list(inner):
        if not isinstance(image, dict):
            fields.remove("subimagelist")
            continue
        count += 1
        one = ObjectFields(image, _IMAGE, "SubImageInfoObject.")
        kind = one.code("type").zfill(2)
        width, height = one.integer("width", 1, 1_000_000), one.integer("height", 1, 1_000_000)
        if width and height:
            sizes.setdefault(kind, (width, height))
        shot = one.time("shottime") or shot if shot is None else shot
        sort = one.integer("eventsort", 0, 999)
        event = sort if event is None else event
        for name in ("imageid", "originimageid"):
            text = one.text(name)
            if text and ids.basic_id_time(text) is None and not ids.is_device(text):
                one.remove(name)
        if (device := one.text("deviceid")) and not ids.is_device(device):
            one.remove("deviceid")
        one.code("fileformat")
        one.code("imagesource")
        removed = _sum_counts(removed, one.removed)
    return _Images(count, sizes.get("14") or sizes.get("01"), shot, event, removed)


def _sum_counts(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    both = dict(one)
    for name, count in other.items():
        both[name] = both.get(name, 0) + count
    return both


def _box(fields: ObjectFields) -> tuple[float, float, float, float] | None:
    sides = [fields.number(name, 0, 1_000_000) for name in _BOX]
    left, top, right, bottom = sides
    if left is None or top is None or right is None or bottom is None or not any(sides):
        return None
    return left, top, right, bottom


def _plate(fields: ObjectFields, veil: Pseudonymiser, at: int, kind: str) -> tuple[str, str, str]:
    """Return pseudonym and region of the number plate; empty where there is none. With a legal basis its number too.

    A gateway below has hidden the number already: its pseudonym goes on as it is.
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
    clear = normalised_plate(number)[:_PLATE_MAX] if veil.permits(kind, "plate.number") else ""
    return veil.plate(number, at), plate_region(number), clear


def _age_band(fields: ObjectFields) -> str:
    """Return the band of age that both limits lie in; they may be swapped, and two zeros say nothing."""
    limits = [fields.integer(name, 0, 150) for name in ("agelowerlimit", "ageuplimit")]
    known = sorted(one for one in limits if one is not None)
    if not known or not any(known):
        return ""
    bands = {"child" if one < _ADULT else "senior" if one >= _SENIOR else "adult" for one in known}
    return bands.pop() if len(bands) == 1 else ""


# ── what was counted ─────────────────────────────────────────────────────────────────────────────────


def _label(work: _ObjectWork) -> _Result:
    fields = work.fields(_LABEL)
    own = work.id()
    camera, odd = work.camera(fields, own, "cameraid", "deviceid")
    at, quality = work.time(fields.time("createtimeabs", "shottime"), own)
    analytics = fields.text("ivadeviceid")
    if analytics and not ids.is_device(analytics):
        fields.remove("ivadeviceid")
        analytics = ""
    fields.integer("infokind", 0, 9)
    fields.code("flowdirection")
    counts = {name: value for low, name in _LABEL_COUNTS.items() if (value := fields.number(low, 0, 1e9)) is not None}
    kept = VideoLabelRecord(
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + odd,
        analytics=analytics,
        event=fields.integer("eventsort", 0, 999),
        counts=counts,
        removed=_removed_names(fields.removed),
    )
    return kept, fields.removed


def _flow(work: _ObjectWork) -> _Result:
    fields = work.fields(_FLOW)
    own = work.id()
    camera, odd = work.camera(fields, own, "deviceid")
    at, quality = work.time(fields.time("snaptime"), own)
    counts = {name: value for low, name in _FLOW_COUNTS.items() if (value := fields.number(low, 0, 1e9)) is not None}
    lane = fields.integer("laneindex", 0, 99)
    kept = FlowRecord(
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + odd,
        lane=fields.integer("laneno", 0, 99) if lane is None else lane,
        cycle_s=fields.number("statcycle", 1, 86_400),
        counts=counts,
        removed=_removed_names(fields.removed),
    )
    return kept, fields.removed


# ── images, files, catalogues ────────────────────────────────────────────────────────────────────────


def _media(work: _ObjectWork) -> _Result:
    fields = work.fields(_MEDIA)
    for name in ("data", "storagepath"):
        if fields.raw(name) not in ("", None):
            fields.remove(name)
    own = work.id()
    camera, odd = work.camera(fields, own, "deviceid")
    at, quality = work.time(fields.time("shottime", "begintime"), own)
    kept = MediaRecord(
        kind=work.raw.kind,  # type: ignore[arg-type] # the table of makers holds no other
        id=own.text,
        unique_id=own.unique,
        camera=camera,
        time=at,
        time_quality=quality,  # type: ignore[arg-type] # one of `times`
        deviations=own.deviations + odd,
        event=fields.integer("eventsort", 0, 999),
        removed=_removed_names(fields.removed),
    )
    return kept, fields.removed


def _entry(work: _ObjectWork) -> _Result:
    fields = work.fields(_ENTRY)
    kind = "APE" if work.raw.kind == "APEStatus" else work.raw.kind
    named = ids.is_tollgate(work.sent_id) if kind in {"Tollgate", "Lane"} else ids.is_device(work.sent_id)
    if not named:
        detail = f"{work.raw.kind}: its id is not of the standard's form"
        return InvalidRecord(index=work.index, detail=detail), fields.removed
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
    functions = [one.strip() for one in fields.text("functiontype").split("/") if one.strip()]
    if any(one not in FUNCTIONS for one in functions):
        fields.remove("functiontype")
    kept = CatalogueRecord(
        kind=kind,  # type: ignore[arg-type] # the table of makers holds no other
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
        functions=tuple(FUNCTIONS[one] for one in functions if one in FUNCTIONS),
        lanes=fields.integer("lanenum", 0, 99),
        direction=fields.code("capdirection", 2) or fields.code("direction", 2),
        removed=_removed_names(fields.removed),
    )
    return kept, fields.removed


_REDACTORS: Final[dict[str, Callable[[_ObjectWork], _Result]]] = {
    **dict.fromkeys(("MotorVehicle", "NonMotorVehicle", "Person", "Face", "Thing", "Scene"), _sighting),
    "VideoLabel": _label,
    "VehiclesFlow": _flow,
    **dict.fromkeys(("Image", "VideoSlice", "File"), _media),
    **dict.fromkeys(("APE", "APS", "Tollgate", "Lane", "APEStatus"), _entry),
}
