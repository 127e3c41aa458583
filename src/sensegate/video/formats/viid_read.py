"""Lenient reading of GA/T 1400 bodies: keys in any case, strings for numbers, GBK, a single object for a list."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.times import TimeResult, parse_beijing
from sensegate.video.values import OTHER

KINDS: Final = (
    "MotorVehicle",
    "NonMotorVehicle",
    "Person",
    "Face",
    "Thing",
    "Scene",
    "VideoLabel",
    "Image",
    "VideoSlice",
    "File",
    "Case",
    "VehiclesFlow",
    "APE",
    "APS",
    "Tollgate",
    "Lane",
    "APEStatus",
    "SubscribeNotification",
)
"""Object kinds in a body of observations or of a catalogue."""
OBJECTS_MAX: Final = 10_000
_INFOS: Final = ("Image", "VideoSlice", "File", "Case")
_LISTS: Final = {
    **{f"{kind}ListObject".lower(): kind for kind in KINDS},
    **{f"{kind}InfoListObject".lower(): kind for kind in _INFOS},
}
_SINGLE: Final = {
    **{f"{kind}Object".lower(): kind for kind in KINDS},
    **{f"{kind}InfoObject".lower(): kind for kind in _INFOS},
    **{f"{kind}Info".lower(): kind for kind in _INFOS},
}
_NOTICES: Final = {
    **{f"{kind}ObjectList".lower(): kind for kind in KINDS},
    **_LISTS,
    "devicelist": "APE",
    "devicestatuslist": "APEStatus",
}
"""Lists within a notification, where their names differ."""
_INSIDE: Final = {f"{kind}List".lower(): kind for kind in KINDS[:6]}
"""Lists of observations within an image, a video slice or a file."""
EMPTY: Final = ("", None)
_INTEGRAL_MAX: Final = 2**53


class SubmittedObject(NamedTuple):
    """An object of a body."""

    kind: str
    value: dict[str, Any]
    """Empty if it is malformed."""
    path: str = ""
    """``notice`` within a notification, ``inside`` within an image; empty: directly in the body."""
    notice: str = ""
    subscription: str = ""


def utf8_of(payload: bytes) -> bytes:
    """Return the body in UTF-8 without a byte order mark. Raises `Rejected` if it is neither UTF-8 nor GB 18030."""
    payload = payload.removeprefix(b"\xef\xbb\xbf")
    try:
        payload.decode()
    except UnicodeDecodeError:
        try:
            return payload.decode("gb18030").encode()
        except UnicodeDecodeError:
            raise Rejected(QuarantineReason.NOT_UTF8, "the body is neither UTF-8 nor GB 18030") from None
    return payload


def decode_body(payload: bytes) -> dict[str, Any]:
    """Decode the JSON object of a body, with lower-case keys. Raises `Rejected`; its detail quotes nothing."""
    try:
        tree = msgspec.json.decode(utf8_of(payload))
    except msgspec.DecodeError:
        raise Rejected(QuarantineReason.MALFORMED, "the body is not JSON, or is truncated") from None
    except RecursionError:
        raise Rejected(QuarantineReason.TOO_DEEP, "the body's JSON is nested too deeply") from None
    if not isinstance(tree, dict):
        raise Rejected(QuarantineReason.SCHEMA, "the body is not a JSON object")
    return lower_keys(tree)


def lower_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """Return an object with lower-case keys."""
    return {name.lower(): value for name, value in tree.items()}


def list_objects(tree: dict[str, Any]) -> list[SubmittedObject]:
    """Return all objects of a body (with lower-case keys) in order, including those within notifications and images.

    Raises:
        Rejected: if it is not an envelope of the standard, or has too many objects.
    """
    known = [(name, _LISTS.get(name) or _SINGLE[name]) for name in tree if name in _LISTS or name in _SINGLE]
    if len(known) != 1:
        detail = "the body must be one envelope like {MotorVehicleListObject: {MotorVehicleObject: […]}}"
        raise Rejected(QuarantineReason.SCHEMA, detail)
    name, kind = known[0]
    objects_: list[SubmittedObject] = []
    for raw in unwrap_list(tree[name], kind) if name in _LISTS else as_list(tree[name]):
        _collect(kind, raw, objects_, SubmittedObject(kind, {}))
        if len(objects_) > OBJECTS_MAX:
            raise Rejected(QuarantineReason.TOO_LARGE, f"the body has more than {OBJECTS_MAX} objects")
    return objects_


def unwrap_list(value: Any, kind: str) -> list[Any]:
    """Return the objects of ``{KindObject: […]}``, also a single one.

    Raises `Rejected` if it is anything else.
    """
    if isinstance(value, list):  # the inner name is omitted
        return value
    if value in EMPTY:
        return []
    inner = lower_keys(value) if isinstance(value, dict) else {}
    for name in (f"{kind}Object".lower(), f"{kind}InfoObject".lower(), kind.lower()):
        if name in inner:
            return as_list(inner[name])
    if isinstance(value, dict) and not value:
        return []
    raise Rejected(QuarantineReason.SCHEMA, f"{kind}ListObject has no {kind}Object")


def other_names(tree: dict[str, Any]) -> list[str]:
    """Return the reportable names of the members beside the envelope of a body (with lower-case keys)."""
    return [
        STANDARD_NAMES.get(name, OTHER)
        for name, value in tree.items()
        if name not in _LISTS and name not in _SINGLE and value not in EMPTY
    ]


def is_list(tree: dict[str, Any]) -> bool:
    """Return whether a body (with lower-case keys) is a list envelope."""
    return any(name in _LISTS for name in tree)


def as_list(value: Any) -> list[Any]:
    """Return a list unchanged, any other value as a list of one, and nothing as an empty list."""
    if isinstance(value, list):
        return value
    return [] if value in EMPTY else [value]


def _collect(kind: str, raw: Any, objects_: list[SubmittedObject], around: SubmittedObject) -> None:
    if not isinstance(raw, dict):
        objects_.append(around._replace(kind=kind, value={}))
        return
    value = lower_keys(raw) if kind in {"SubscribeNotification", "Image", "VideoSlice", "File"} else raw
    if kind == "SubscribeNotification":
        notice, subscription = (str(value.get(name) or "") for name in ("notificationid", "subscribeid"))
        around = SubmittedObject(kind, value, "notice", notice, subscription)
        objects_.append(around)
        for name, list_kind in _NOTICES.items():
            if value.get(name) not in EMPTY:
                for element in unwrap_list(value[name], list_kind):
                    _collect(list_kind, element, objects_, around)
        return
    if kind in {"Image", "VideoSlice", "File"}:
        inside = value.get(f"{kind}info".lower())
        objects_.append(around._replace(kind=kind, value={**raw, **inside} if isinstance(inside, dict) else raw))
        for name, list_kind in _INSIDE.items():
            if value.get(name) not in EMPTY:
                for element in unwrap_list(value[name], list_kind):
                    _collect(list_kind, element, objects_, around._replace(path=around.path or "inside"))
        return
    objects_.append(around._replace(kind=kind, value=raw))


class ObjectFields:
    """Fields of one object: allowed ones are read by name, all others are listed in `removed`."""

    __slots__ = ("_prefix", "_values", "removed")

    def __init__(self, raw: dict[str, Any], allowed: dict[str, str], prefix: str = "") -> None:
        """`allowed`: lower-case name -> name in the standard."""
        self._values: dict[str, Any] = {}
        self.removed: dict[str, int] = {}
        self._prefix = prefix
        for name, value in raw.items():
            low = name.lower()
            if low in allowed:
                self._values[low] = value
            elif value not in EMPTY:
                self.remove(STANDARD_NAMES.get(low) or OTHER)

    def remove(self, name: str) -> None:
        """Count a removed field, by its name in the standard or in lower case."""
        name = self._prefix + STANDARD_NAMES.get(name, name)
        self.removed[name] = self.removed.get(name, 0) + 1

    def raw(self, name: str) -> Any:
        """Return the raw value."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """Return a trimmed text; numbers and booleans as text, empty if missing."""
        value = self._values.get(name)
        if value is None:
            return ""
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, bool):
            return "1" if value else "0"
        if isinstance(value, float):
            return str(int(value)) if isfinite(value) and value == int(value) else str(value)
        if isinstance(value, int):
            return str(value) if abs(value) < _INTEGRAL_MAX * 10**33 else ""
        self.remove(name)
        return ""

    def number(self, name: str, low: float, high: float) -> float | None:
        """Return a number within bounds; any other value is removed."""
        text = self.text(name)
        if not text:
            return None
        try:
            value = float(text) if len(text) < 32 else float("nan")
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            self.remove(name)
            return None
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """Return an integer within bounds."""
        value = self.number(name, low, high)
        if value is None or value == int(value):
            return None if value is None else int(value)
        self.remove(name)
        return None

    def code(self, name: str, longest: int = 5) -> str:
        """Return a code: a few ASCII letters and digits."""
        text = self.text(name)
        if text and not (len(text) <= longest and text.isascii() and text.isalnum()):
            self.remove(name)
            return ""
        return text

    def digits(self, name: str, lengths: range) -> str:
        """Return an id of digits with one of these lengths."""
        text = self.text(name)
        if text and not (len(text) in lengths and text.isascii() and text.isdigit()):
            self.remove(name)
            return ""
        return text

    def time(self, *names: str) -> TimeResult | None:
        """Return the first of these fields that is a time (µs UTC, quality)."""
        result = None
        for name in names:
            text = self.text(name)
            if not text:
                continue
            at = parse_beijing(text)
            if at is None:
                self.remove(name)
            result = result or at
        return result


def name_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield (lower-case name, name) of the names in a text."""
    for name in text.split():
        yield name.lower(), name


STANDARD_NAMES: Final = dict(
    name_pairs("""
MotorVehicleID NonMotorVehicleID PersonID FaceID ThingID SceneID VideoLabelID VehiclesFlowID ImageID VideoID FileID
InfoKind SourceID DeviceID LeftTopX LeftTopY RightBtmX RightBtmY SubImageList SubImageInfoObject EventSort StoragePath
Type FileFormat ShotTime Width Height Data FeatureInfoObject Vendor AlgorithmVersion FeatureData LocationMarkTime
FaceAppearTime FaceDisAppearTime PersonAppearTime PersonDisAppearTime AppearTime DisappearTime MarkTime PassTime
GenderCode AgeUpLimit AgeLowerLimit RespiratorColor CapStyle CapColor GlassStyle GlassColor CoatColor CoatLength
CoatStyle TrousersColor TrousersLength TrousersStyle AccompanyNumber Similaritydegree IDType IDNumber Name UsedName
Alias EthicCode NationalityCode NativeCityCode ResidenceAdminDivision ChineseAccentCode JobCategory SkinColor HairStyle
HairColor FaceStyle FacialFeature PhysicalFeature IsDriver IsForeigner PassportType ImmigrantTypeCode
IsSuspectedTerrorist SuspectedTerroristNumber IsCriminalInvolved CriminalInvolvedSpecilisationCode BodySpeciallMark
CrimeMethod CrimeCharacterCode EscapedCriminalNumber IsDetainees DetentionHouseCode DetaineesIdentity
DetaineesSpecialIdentity MemberTypeCode IsVictim VictimType InjuredDegree CorpseConditionCode IsSuspiciousPerson
Attitude EyebrowStyle NoseStyle MustacheStyle LipStyle WrinklePouch AcneStain FreckleBirthmark ScarDimple OtherFeature
TollgateID StorageUrl1 StorageUrl2 StorageUrl3 StorageUrl4 StorageUrl5 LaneNo HasPlate PlateClass PlateColor PlateNo
PlateNoAttach PlateDescribe IsDecked IsAltered IsCovered Speed Direction DrivingStatusCode UsingPropertiesCode
VehicleClass VehicleType VehicleBrand VehicleModel VehicleStyles VehicleLength VehicleWidth VehicleHeight VehicleColor
VehicleColorDepth VehicleHood VehicleTrunk VehicleWheel WheelPrintedPattern VehicleWindow VehicleRoof VehicleDoor
SideOfVehicle CarOfVehicle RearviewMirror VehicleChassis VehicleShielding FilmColor IsModified HitMarkInfo
VehicleBodyDesc VehicleFrontItem DescOfFrontItem VehicleRearItem DescOfRearItem NumOfPassenger NameOfPassedRoad
IsSuspicious Sunvisor SafetyBelt Calling PlateReliability PlateCharReliability BrandReliability InOut OriginImageID
ImageSource Shape Color Size WeatherType SceneType PopulationDensity Temperature CameraID IVADeviceID CreateTimeAbs
TargetNum PersonNum FaceNum VehicleNum ThingNum PersonFlowRate VehicleFlowRate TotalTargetFlowRate FlowDirection
MoveObjectSet ApeID Model IPAddr IPV6Addr Port Longitude Latitude PlaceCode Place OrgCode CapDirection
MonitorDirection MonitorAreaDesc IsOnline OwnerApsID UserId Password FunctionType PositionType PositionDetailType
Title TriggerTime InfoIDs SubscribeID NotificationID Status LaneNum LaneId SnapTime AvgSpeed Congestion QueueLength
VehicleCount LaneIndex StatCycle PlateToken PlateRegion NonMotorNum PersonDensityAbs PersonDensityRlt
VehicleDensityAbs VehicleDensityRlt TargetDensityRlt ApsID LaneID CurrentTime BeginTime
Keyword MainCharacter SubjectCharacter Receiver Applicant FamilyName GivenName
""")
)
"""Lower-case name -> name in the standard."""
