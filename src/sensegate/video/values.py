"""Helpers shared by the camera formats: lenient value parsing, ids that may identify somebody, identities."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, Final

from sensegate.video.format import Pseudonymiser
from sensegate.video.pseudonyms import normalised_plate


def split_words(text: str) -> frozenset[str]:
    """Return the words of a whitespace-separated list."""
    return frozenset(text.split())


_WORDS: Final = split_words(
    "alarm alarmin analytics area back bicycle box building bus cam camera car cell channel ch config "
    "configuration count counter cross crossed crossing crowd default detection detector device digit digital "
    "digitalinput door down east entrance entry exit fence field fielddetector floor front gate group image "
    "important in input inside intrusion job junction lane left level line linedetector loitering lot main module "
    "motion my myrule no north object occupancy out output outside parking people person plate port preset "
    "profile queue recording region relay right road rule scene sensor side source south spot stop street temp "
    "temperature test token track traffic trip truck tunnel up va vac vehicle video videosource vs wall west wire "
    "yard zone"
)
"""Technical terms. A name made only of these and a number identifies nobody; other names may."""
_NAME = re.compile(r"(?:[A-Za-z]{1,16}[ _.:-]{0,2}){0,5}\d{0,3}", re.ASCII)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NUMBERED = re.compile(r"(\D*?)[ _.:-]{0,2}(\d{1,3})", re.ASCII)
_CHANNELS: Final = {
    "line": frozenset({"line", "linedetector", "fence", "wire"}),
    "lane": frozenset({"lane"}),
    "input": frozenset({"input", "digitalinput", "alarmin"}),
    "output": frozenset({"output", "relay"}),
    "spot": frozenset({"spot", "temp", "temperature"}),
}
HTTP_SOURCES: Final = frozenset({"http"})
"""First topic level of messages pushed by HTTP or fetched by `cameras.alert_stream`."""
_BRIDGES: Final = frozenset({("hikvision", "alerts"), ("dahua", "events")})
_NUMBER_LENGTH: Final = 40
_PLATE_MAX: Final = 16
_PLATE = re.compile(r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-Z]")
_TRUE_WORDS: Final = frozenset({"true", "1", "on", "yes", "active", "started", "start", "partiallyactive", "recording"})
_FALSE_WORDS: Final = frozenset({"false", "0", "off", "no", "inactive", "idle", "stopped", "stop", "error", "removed"})

Removed = dict[str, int]
"""Name of a removed member -> count."""
Node = Mapping[str, Any]
EMPTY: Final[Node] = {}


OTHER: Final = "other"
"""Replaces a field name that no format would use: such a name may itself identify somebody."""
_FIELD = re.compile(
    r"(?=.{1,80}\Z)(?:@?[A-Za-z#][A-Za-z_-]{0,39}(?:[:/][A-Za-z][A-Za-z_-]{0,39})*\d{0,2}(?:\[\])?(?:\.(?!\Z)|\Z))+"
)
_TERMS = re.compile(r"ipv[46]|base64|h26[45]", re.IGNORECASE)
"""Technical terms that contain digits."""


_FIELD_MAX: Final = 512
"""Longest name that can pass, in characters: terms count as one."""


def field_name(name: str) -> str:
    """Return the name of a field as it may be reported; `OTHER` if no format would use it.

    Allowed are Latin words followed by at most two digits, joined by dots: neither a plate nor a document number has
    this form.
    """
    return _short_field_name(name) if len(name) <= _FIELD_MAX else OTHER


@lru_cache(8_192)
def _short_field_name(name: str) -> str:
    return name if name.isascii() and _FIELD.fullmatch(_TERMS.sub("x", name)) else OTHER


def identity(*parts: object) -> str:
    """Return the id of an observation: 32 hex digits over the fields that identify it on a retransmission."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def number(value: object, low: float = -1e12, high: float = 1e12) -> float | None:
    """Return a finite number within bounds, also from a string; otherwise None."""
    if isinstance(value, str):
        if len(value) > _NUMBER_LENGTH or not value.isascii() or "_" in value:
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if isfinite(result) and low <= result <= high else None


def integer(value: object, low: int = 0, high: int = 2**53) -> int | None:
    """Return an integer within bounds, also from a string; otherwise None."""
    result = number(value, low, high)
    return int(result) if result is not None and result == int(result) else None


def boolean(value: object) -> bool | None:
    """Return a boolean in any of its spellings; otherwise None."""
    word = str(value).strip().lower() if isinstance(value, bool | int | str) and len(str(value)) < 20 else ""
    return True if word in _TRUE_WORDS else False if word in _FALSE_WORDS else None


def text(value: object) -> str:
    """Return the text of a node, also beside attributes; of a repeated node the first; otherwise empty."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("#text")
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def node(value: object) -> Node:
    """Return the members of a node; of a repeated node those of the first; otherwise none."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else EMPTY


def as_list(value: object) -> list[Any]:
    """Return the repetitions of a node; a single one need not be a list."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def is_generic_name(name: str) -> bool:
    """Return whether a name is a number, or consists of technical terms and perhaps a number."""
    return bool(_NAME.fullmatch(name)) and all(word.lower() in _WORDS for word in _WORD.findall(name))


def public_name(value: object, pseudonymiser: Pseudonymiser) -> str:
    """Return a name unchanged if it is generic, otherwise its pseudonym."""
    word = text(value)
    return word if not word or is_generic_name(word) else pseudonymiser.identifier(word)


def numbered_channel(name: str) -> str:
    """Return the reading channel for a part of a device: ``line1``, ``lane2``, ``input1``, ``zone3``.

    Rules, regions and fields are zones; empty if the name has no number (a free name, or its pseudonym).
    """
    match = _NUMBERED.fullmatch(name) if is_generic_name(name) else None
    if match is None:
        return ""
    words = [word.lower() for word in _WORD.findall(match[1])]
    kind = next((kind for kind, channel_words in _CHANNELS.items() if channel_words.intersection(words)), "zone")
    return f"{kind}{int(match[2])}"


RULES: Final = 32
"""Number of channels for rules with free names, `rule1` and so on."""


def rule_channel(rule: str, given: Mapping[str, str]) -> str:
    """Return the channel of a rule: as set in the profile, from its number, or one of `RULES` by a hash of its name.

    Two names may get the same channel; the profile must then distinguish them.
    """
    if not rule:
        return ""
    if channel := given.get(rule) or numbered_channel(rule):
        return channel
    digest = hashlib.sha256(rule.encode("utf-8", "surrogatepass")).digest()
    return f"rule{int.from_bytes(digest[:4], 'big') % RULES + 1}"


def topic_camera(topic: str) -> str:
    """Return the camera named by one of the gateway's own topics (HTTP push, or a bridge of its vendor)."""
    door, _, rest_ = topic.partition("/")
    name, _, kind = rest_.partition("/")
    if door in HTTP_SOURCES and not kind:
        return name
    return name if (door, kind) in _BRIDGES else ""


def coordinates(lon: float | None, lat: float | None) -> tuple[float, float] | None:
    """Return (longitude, latitude), or None for 0, 0 (not set). Swapped values are detected within China."""
    if lon is None or lat is None or (lon == 0 and lat == 0):
        return None
    if 3 <= lon <= 54 and 73 <= lat <= 136:
        lon, lat = lat, lon
    return (lon, lat) if abs(lat) <= 90 else None


def plate_region(plate: str) -> str:
    """Return province and authority letter of a plate of mainland China, otherwise empty."""
    match = _PLATE.match(plate.strip().upper())
    return match[0] if match else ""


def clear_plate(written: str, pseudonymiser: Pseudonymiser) -> str:
    """Return the number of a plate if a written legal basis permits it, otherwise empty."""
    return normalised_plate(written)[:_PLATE_MAX] if pseudonymiser.permits("vehicle", "plate.number") else ""


_REPORTABLE: Final = split_words("""
Acceleration Access AccessPoint AccessToken address Age age ageGroup alarmDataType AlarmType AlgorithmVersion
Appearance Attribute Attributes AudioFrame AudioLevel Author backgroundImage backgroundImageURL BackgroundInfo
BadgeNumber Bag Barcode BarcodeInfo Beard beard bkgURL bkgUrl BodyMetric BoxTemperatureReading Brand BSSID Candidates
CaptureResult CaptureResultList CardInfo CardNo cardNo CardNumber CarNumber Category CenterOfGravity certificateNumber
certificateType channelName City city CivilCode ClassCandidate Clothes Color ColorCluster Comment Confidence Content
ContentName Country country CredentialHolderName CredentialToken CustomData customData customInfo CustomName dangmark
Data Description detectDir detectType deviceID deviceName deviceSerial devIndex Direction direction driveChan Driver
driver Email email Emotion employeeNo employeeNoString EnrollmentID envprosign EthicCode ethnic EventDescription
eventDescription Extension Extensions extensions ExternalData FaceID faceInfo faceLibType faceRect Faces faceScore
Family FDID FDname Feature FeatureData FeatureInfo FeatureVector File fileID FileName fileName FilePath filePath
FirstName FullName Gender gender GeoLocation glass Glasses GPS GroupName Hair hairStyle Hat hat HumanAttributes
HumanBody HumanFace humanInfo ID idCard Idle IDNumber illegalInfo Image ImageData ImageInfo ImageRef imageURL Info
Information IPAddress ipAddress IPAddressList ipv6Address IssuingEntity Item ItemID jacketColor Key Landmark LastName
LatLon LicensePlate licensePlate LicensePlateInfo Likelihood List MACAddress MachineAddress MachineName mail Mask mask
Message Model modelID monitorDescription monitoringSiteID monitorSiteID MSISDN Name name Nation Note Number ObjectText
Operator originalLicensePlate OwnerName Passenger Password password Path pdvs Person PersonID personInfo PersonName
personName Phone phone phoneNumber Photo PhotoData PhotoUrl picName PicPath Picture pictureInfoList PictureUrl
pictureURL picUrl PID pilotSafebelt pilotSunVisor Plate PlateNo PlateNumber plateSize Polygon portNo Position
ProducerReference Properties Property protocol protocolType Province Race RecordingJobStateInformation Region region
relaLaneDirectionType Remark remark Scene SceneImage SceneImageRef SceneType Seat SenseMethod Sequence Serial
serialNumber Sex Shape Since smile SN Sn Snap Sources SphericalCoordinate State Status StoragePath StorageUrl Street
SubBrand subModelID SubscriptionReference Subtitle Surname Tag targetAttrs targetImageURL Text TFS TFSInfo Thumbnail
Time Title Token Topic TPS TPSInfo trousersColor Type Uid uphone URI Uri URL Url User UserID UserName Username
userName userPassword VehicleInfo vehicleLogo vehicleLogoRecog vehicleModel vehileModel Vendor vicepilotSafebelt
vicepilotSunVisor Video VideoUrl violationCode visibleLightImageURL Wheel
""")
"""Field names known to be used by formats; any other name may identify somebody."""


def reportable_name(name: str) -> str:
    """Return the name of a removed field, `OTHER` if no format uses it."""
    bare = name.lstrip("@").rpartition(":")[2]
    return bare if bare in _REPORTABLE else OTHER


def count_removed_members(where: str, members: Node, kept: frozenset[str], removed: dict[str, int]) -> None:
    """Count the members of a node that are not in `kept` as removed, under ``where.name``."""
    for name in members.keys() - kept:
        reported = reportable_name(name)
        field = field_name(f"{where}.{reported}" if where else reported)
        removed[field] = removed.get(field, 0) + 1


def count_removed(field: str, removed: dict[str, int], count: int = 1) -> None:
    """Count a removed field."""
    reported = field_name(field)
    removed[reported] = removed.get(reported, 0) + count
