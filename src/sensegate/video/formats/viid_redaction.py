"""A GA/T 1400 body -> what of it may be kept. Nothing else of a body goes on; what falls is counted by field.

Each object is judged alone: one that cannot be used is refused and the others are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from sensegate.video.format import Cut, Veil
from sensegate.video.formats import viid_ids as ids
from sensegate.video.formats.viid_codes import CLASSES, FUNCTIONS, STATES
from sensegate.video.formats.viid_read import (
    Fields,
    FoundObject,
    beside,
    folded,
    is_list,
    many,
    objects,
    tree_of,
    words,
)
from sensegate.video.formats.viid_records import Entry, Flow, Kept, Label, Media, Names, Refused, Sighting, Told
from sensegate.video.pseudonyms import plate_form
from sensegate.video.times import Found
from sensegate.video.values import region

_encode = msgspec.json.Encoder().encode

_SEEN: Final = dict(
    words("""
InfoKind SourceID DeviceID LeftTopX LeftTopY RightBtmX RightBtmY SubImageList PassTime ShotTime FaceAppearTime
FaceDisAppearTime PersonAppearTime PersonDisAppearTime AppearTime DisappearTime LocationMarkTime MarkTime TollgateID
LaneNo HasPlate PlateClass PlateColor PlateNo PlateToken PlateRegion PlateReliability Similaritydegree Speed Direction
VehicleClass VehicleType VehicleBrand VehicleModel VehicleColor EventSort
""")
)
_IMAGE: Final = dict(
    words("ImageID EventSort DeviceID Type FileFormat ShotTime Width Height OriginImageID ImageSource")
)
_LABEL_COUNTS: Final = dict(
    words("""
TargetNum PersonNum FaceNum VehicleNum ThingNum NonMotorNum PersonFlowRate VehicleFlowRate TotalTargetFlowRate
PersonDensityAbs PersonDensityRlt VehicleDensityAbs VehicleDensityRlt TargetDensityRlt
""")
)
_LABEL: Final = {
    **dict(words("EventSort CameraID DeviceID IVADeviceID CreateTimeAbs ShotTime SourceID InfoKind FlowDirection")),
    **_LABEL_COUNTS,
}
_FLOW_COUNTS: Final = dict(words("AvgSpeed Congestion QueueLength VehicleCount"))
_FLOW: Final = {**dict(words("DeviceID SnapTime LaneIndex LaneNo StatCycle")), **_FLOW_COUNTS}
_MEDIA: Final = dict(
    words("""
DeviceID EventSort ShotTime BeginTime Width Height FileFormat InfoKind Type ImageSource Data StoragePath
ImageInfo VideoSliceInfo FileInfo PersonList FaceList MotorVehicleList NonMotorVehicleList ThingList SceneList
""")
)
_ENTRY: Final = dict(
    words("""
ApeID ApsID TollgateID LaneID LaneNo Longitude Latitude PlaceCode IsOnline Status OwnerApsID FunctionType LaneNum
CapDirection Direction CurrentTime Port
""")
)
_NO_PLATE: Final = frozenset(
    {"", "-", "--", "0", "无", "无车牌", "无牌", "未知", "未识别", "未悬挂", "unknown", "none"}
)
_NOTICE: Final = dict(
    words("""
NotificationID SubscribeID TriggerTime InfoIDs ExecuteOperation DeviceList DeviceStatusList PersonObjectList
FaceObjectList MotorVehicleObjectList NonMotorVehicleObjectList ThingObjectList SceneObjectList TollgateObjectList
LaneObjectList FileObjectList ImageObjectList VideoSliceObjectList VideoLabelObjectList VehiclesFlowObjectList
PersonListObject FaceListObject MotorVehicleListObject NonMotorVehicleListObject ThingListObject SceneListObject
TollgateListObject LaneListObject VideoLabelListObject VehiclesFlowListObject APEListObject APEStatusListObject
""")
)
_BOX: Final = ("lefttopx", "lefttopy", "rightbtmx", "rightbtmy")
_TOKEN = re.compile(r"[0-9a-f]{24}", re.ASCII)
_AGES: Final = dict(words("AgeUpLimit AgeLowerLimit"))
_ADULT, _SENIOR = 18, 60
_PLATE_MAX: Final = 20
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)


class One(NamedTuple):
    """One object as it was submitted."""

    kind: str
    id: str
    """As sent: for the answer to its sender and for nothing else."""
    kept: Kept | None
    """None: of its kind nothing is kept (cases)."""
    notice: str = ""
    """Id, as sent, of the notification that it stands in."""
    inside: bool = False
    """Whether it stands in another object, which alone is answered."""


class Taken(NamedTuple):
    """A body, cut."""

    objects: list[One]
    removed: dict[str, int]
    """Field -> how often it was taken out."""
    listed: bool
    """Whether the body is an envelope of many."""
    notices: list[str]
    """Ids, as sent, of its notifications."""

    def told(self) -> Told:
        """Return what goes on."""
        kept = tuple(one.kept for one in self.objects if one.kept is not None)
        return Told(kept, len(self.objects) - len(kept))


def taken(payload: bytes, default: str, veil: Veil, arrival: int) -> Taken:
    """Return the objects of a body; `default`: code of the device that sent it, where an object names none.

    Raises:
        Rejected: the body is no JSON of the standard, or too large; the detail quotes nothing of it.
    """
    found: list[One] = []
    removed: dict[str, int] = {}
    told: list[str] = []
    tree = tree_of(payload)
    given = objects(tree)
    for name in beside(tree):
        removed[name] = removed.get(name, 0) + 1
    for place, raw in enumerate(given):
        if raw.kind == "SubscribeNotification":
            # the objects of the notification follow it; of itself nothing is kept
            told.append(raw.notice)
            _notice(raw, removed)
            continue
        one = _one(place, raw, default, veil, arrival)
        found.append(one[0])
        for name, count in one[1].items():
            removed[name] = removed.get(name, 0) + count
    return Taken(found, dict(sorted(removed.items())), is_list(tree), told)


def cut(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:
    """Return what of a body may be kept; see `form.VideoFormat`."""
    sender = topic.rpartition("/")[2]
    whole = taken(payload, sender if _NAME.fullmatch(sender) else "", veil, arrival)
    return Cut(_encode(whole.told()), whole.removed)


def _notice(raw: FoundObject, removed: dict[str, int]) -> None:
    fields = Fields(raw.value, _NOTICE)
    for name, count in fields.removed.items():
        removed[name] = removed.get(name, 0) + count


def _one(place: int, raw: FoundObject, default: str, veil: Veil, arrival: int) -> tuple[One, dict[str, int]]:
    inside = bool(raw.path) and raw.path != "notice"
    if not raw.value:
        return One(raw.kind, "", Refused(place=place, detail="no object"), raw.notice, inside), {}
    maker = _MAKERS.get(raw.kind)
    sent = _id_as_sent(raw)
    if maker is None:
        return One(raw.kind, sent, None, raw.notice, inside), {}
    kept, removed = maker(_Work(place, raw, sent, default, veil, arrival))
    return One(raw.kind, sent, kept, raw.notice, inside), removed


def _id_as_sent(raw: FoundObject) -> str:
    names = _ID_NAMES.get(raw.kind, (f"{raw.kind}id",))
    low = folded(raw.value)
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


class _Work(NamedTuple):
    """One object that is being read."""

    place: int
    raw: FoundObject
    sent: str
    default: str
    veil: Veil
    arrival: int

    def fields(self, allowed: dict[str, str]) -> Fields:
        """Return its fields; those of its id are known."""
        own = {name.lower(): name for name in _ID_NAMES.get(self.raw.kind, (f"{self.raw.kind}ID",))}
        return Fields(self.raw.value, {**allowed, **own})

    def id(self) -> ids.Id:
        """Return what its id is."""
        return ids.read(self.raw.kind, self.sent, self.veil)

    def camera(self, fields: Fields, own: ids.Id, *names: str) -> tuple[str, tuple[str, ...]]:
        """Return the camera, and what is odd about it."""
        for name in names:
            text = fields.text(name)
            if ids.is_device(text):
                return text, ("id_device",) if own.firm and own.camera and own.camera != text[: ids.DEVICE] else ()
            if text:
                fields.remove(name)
        if own.firm and own.camera:
            return own.camera, ("no_device",)
        fallback = self.default or own.camera
        return fallback, ("no_device",)

    def when(self, found: Found | None, own: ids.Id) -> tuple[int, str]:
        """Return the time of it and how sure it is: as said, of the id, else of the arrival."""
        if found is not None:
            return found
        return (self.arrival, "") if own.at is None else (own.at, "derived")


_Made = tuple[Kept, dict[str, int]]


def _names(removed: dict[str, int]) -> Names:
    return tuple(sorted(removed))


# ── what was seen ────────────────────────────────────────────────────────────────────────────────────


def _sighting(work: _Work) -> _Made:
    kind = CLASSES[work.raw.kind]
    aged = work.veil.may(kind, "age_band")
    fields = work.fields({**_SEEN, **_AGES} if aged else _SEEN)
    own = work.id()
    camera, odd = work.camera(fields, own, "deviceid")
    images = _images(fields)
    at, quality = work.when(
        fields.time("passtime", "shottime", "faceappeartime", "personappeartime", "appeartime") or images.shot, own
    )
    for name in ("facedisappeartime", "persondisappeartime", "disappeartime", "locationmarktime", "marktime"):
        fields.time(name)
    fields.whole("infokind", 0, 9)
    source = fields.text("sourceid")
    if source and ids.basic(source) is None and not ids.is_device(source):
        fields.remove("sourceid")
    tollgate = fields.text("tollgateid")
    if tollgate and not ids.is_tollgate(tollgate):
        fields.remove("tollgateid")
        tollgate = ""
    token, area, number = _plate(fields, work.veil, at, kind)
    lane = fields.whole("laneno", 0, 99)
    event = fields.whole("eventsort", 0, 999)
    kept = Sighting(
        kind=work.raw.kind,  # type: ignore[arg-type] # the table of makers holds no other
        id=own.text,
        firm=own.firm,
        camera=camera,
        at=at,
        quality=quality,  # type: ignore[arg-type] # one of `times`
        odd=own.odd + odd,
        box=_box(fields),
        size=images.size,
        pictures=images.many,
        event=images.event if event is None else event,
        tollgate=tollgate,
        lane=lane or None,
        token=token,
        region=area,
        number=number,
        band=_band(fields) if aged else "",  # type: ignore[arg-type] # one of three words
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
    removed = _joined(fields.removed, images.removed)
    return msgspec.structs.replace(kept, removed=_names(removed)), removed


class _Images(NamedTuple):
    many: int
    size: tuple[int, int] | None
    shot: Found | None
    event: int | None
    removed: dict[str, int]


_NO_IMAGES: Final = _Images(0, None, None, None, {})


def _images(fields: Fields) -> _Images:
    value = fields.raw("subimagelist")
    if value in ("", None):
        return _NO_IMAGES
    inner = folded(value).get("subimageinfoobject", []) if isinstance(value, dict) else value
    removed: dict[str, int] = {}
    if not isinstance(value, (dict, list)):
        fields.remove("subimagelist")
        return _NO_IMAGES
    if isinstance(value, dict):
        rest = Fields({name: one for name, one in value.items() if name.lower() != "subimageinfoobject"}, {})
        removed = rest.removed
    shot: Found | None = None
    event: int | None = None
    sizes: dict[str, tuple[int, int]] = {}
    count = 0
    for image in many(inner):
        if not isinstance(image, dict):
            fields.remove("subimagelist")
            continue
        count += 1
        one = Fields(image, _IMAGE, "SubImageInfoObject.")
        kind = one.code("type").zfill(2)
        width, height = one.whole("width", 1, 1_000_000), one.whole("height", 1, 1_000_000)
        if width and height:
            sizes.setdefault(kind, (width, height))
        shot = one.time("shottime") or shot if shot is None else shot
        sort = one.whole("eventsort", 0, 999)
        event = sort if event is None else event
        for name in ("imageid", "originimageid"):
            text = one.text(name)
            if text and ids.basic(text) is None and not ids.is_device(text):
                one.remove(name)
        if (device := one.text("deviceid")) and not ids.is_device(device):
            one.remove("deviceid")
        one.code("fileformat")
        one.code("imagesource")
        removed = _joined(removed, one.removed)
    return _Images(count, sizes.get("14") or sizes.get("01"), shot, event, removed)


def _joined(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    both = dict(one)
    for name, count in other.items():
        both[name] = both.get(name, 0) + count
    return both


def _box(fields: Fields) -> tuple[float, float, float, float] | None:
    sides = [fields.number(name, 0, 1_000_000) for name in _BOX]
    left, top, right, bottom = sides
    if left is None or top is None or right is None or bottom is None or not any(sides):
        return None
    return left, top, right, bottom


def _plate(fields: Fields, veil: Veil, at: int, kind: str) -> tuple[str, str, str]:
    """Return pseudonym and region of the number plate; empty where there is none. With a legal basis its number too.

    A gateway below has hidden the number already: its pseudonym goes on as it is.
    """
    number = fields.text("plateno")
    fields.code("hasplate")
    token, area = fields.text("platetoken"), fields.text("plateregion")
    if token and not _TOKEN.fullmatch(token):
        fields.remove("platetoken")
        token = ""
    if area and (len(area) != 2 or region(area) != area):
        fields.remove("plateregion")
        area = ""
    if number.lower() in _NO_PLATE:
        return (token, area, "") if token else ("", "", "")
    if len(number) > 64:
        fields.remove("plateno")
        return "", "", ""
    clear = plate_form(number)[:_PLATE_MAX] if veil.may(kind, "plate.number") else ""
    return veil.plate(number, at), region(number), clear


def _band(fields: Fields) -> str:
    """Return the band of age that both limits lie in; they may be swapped, and two zeros say nothing."""
    limits = [fields.whole(name, 0, 150) for name in ("agelowerlimit", "ageuplimit")]
    known = sorted(one for one in limits if one is not None)
    if not known or not any(known):
        return ""
    bands = {"child" if one < _ADULT else "senior" if one >= _SENIOR else "adult" for one in known}
    return bands.pop() if len(bands) == 1 else ""


# ── what was counted ─────────────────────────────────────────────────────────────────────────────────


def _label(work: _Work) -> _Made:
    fields = work.fields(_LABEL)
    own = work.id()
    camera, odd = work.camera(fields, own, "cameraid", "deviceid")
    at, quality = work.when(fields.time("createtimeabs", "shottime"), own)
    analytics = fields.text("ivadeviceid")
    if analytics and not ids.is_device(analytics):
        fields.remove("ivadeviceid")
        analytics = ""
    fields.whole("infokind", 0, 9)
    fields.code("flowdirection")
    counts = {name: value for low, name in _LABEL_COUNTS.items() if (value := fields.number(low, 0, 1e9)) is not None}
    kept = Label(
        id=own.text,
        firm=own.firm,
        camera=camera,
        at=at,
        quality=quality,  # type: ignore[arg-type] # one of `times`
        odd=own.odd + odd,
        analytics=analytics,
        event=fields.whole("eventsort", 0, 999),
        counts=counts,
        removed=_names(fields.removed),
    )
    return kept, fields.removed


def _flow(work: _Work) -> _Made:
    fields = work.fields(_FLOW)
    own = work.id()
    camera, odd = work.camera(fields, own, "deviceid")
    at, quality = work.when(fields.time("snaptime"), own)
    counts = {name: value for low, name in _FLOW_COUNTS.items() if (value := fields.number(low, 0, 1e9)) is not None}
    lane = fields.whole("laneindex", 0, 99)
    kept = Flow(
        id=own.text,
        firm=own.firm,
        camera=camera,
        at=at,
        quality=quality,  # type: ignore[arg-type] # one of `times`
        odd=own.odd + odd,
        lane=fields.whole("laneno", 0, 99) if lane is None else lane,
        cycle_s=fields.number("statcycle", 1, 86_400),
        counts=counts,
        removed=_names(fields.removed),
    )
    return kept, fields.removed


# ── images, files, catalogues ────────────────────────────────────────────────────────────────────────


def _media(work: _Work) -> _Made:
    fields = work.fields(_MEDIA)
    for name in ("data", "storagepath"):
        if fields.raw(name) not in ("", None):
            fields.remove(name)
    own = work.id()
    camera, odd = work.camera(fields, own, "deviceid")
    at, quality = work.when(fields.time("shottime", "begintime"), own)
    kept = Media(
        kind=work.raw.kind,  # type: ignore[arg-type] # the table of makers holds no other
        id=own.text,
        firm=own.firm,
        camera=camera,
        at=at,
        quality=quality,  # type: ignore[arg-type] # one of `times`
        odd=own.odd + odd,
        event=fields.whole("eventsort", 0, 999),
        removed=_names(fields.removed),
    )
    return kept, fields.removed


def _entry(work: _Work) -> _Made:
    fields = work.fields(_ENTRY)
    kind = "APE" if work.raw.kind == "APEStatus" else work.raw.kind
    named = ids.is_tollgate(work.sent) if kind in {"Tollgate", "Lane"} else ids.is_device(work.sent)
    if not named:
        detail = f"{work.raw.kind}: its id is not of the standard's form"
        return Refused(place=work.place, detail=detail), fields.removed
    at, quality = work.when(fields.time("currenttime"), ids.Id(""))
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
    kept = Entry(
        kind=kind,  # type: ignore[arg-type] # the table of makers holds no other
        id=work.sent,
        firm=True,
        camera=work.sent if kind in {"APE", "APS"} else "",
        at=at,
        quality=quality,  # type: ignore[arg-type] # one of `times`
        lon=fields.number("longitude", -180, 180),
        lat=fields.number("latitude", -90, 90),
        division=division,
        online=STATES.get(fields.code("isonline") or (fields.code("status") if kind == "APE" else "")),
        owner=owner,
        functions=tuple(FUNCTIONS[one] for one in functions if one in FUNCTIONS),
        lanes=fields.whole("lanenum", 0, 99),
        direction=fields.code("capdirection", 2) or fields.code("direction", 2),
        removed=_names(fields.removed),
    )
    return kept, fields.removed


_MAKERS: Final[dict[str, Callable[[_Work], _Made]]] = {
    **dict.fromkeys(("MotorVehicle", "NonMotorVehicle", "Person", "Face", "Thing", "Scene"), _sighting),
    "VideoLabel": _label,
    "VehiclesFlow": _flow,
    **dict.fromkeys(("Image", "VideoSlice", "File"), _media),
    **dict.fromkeys(("APE", "APS", "Tollgate", "Lane", "APEStatus"), _entry),
}
