"""Rules for registry entries; each finding names the key, what is wrong and what to do."""

from __future__ import annotations

import math
import re
import unicodedata

import msgspec

from sensegate import wording
from sensegate.authority import camera_codes
from sensegate.authority.divisions import Divisions, contains
from sensegate.bus.server_conf import User
from sensegate.bus.slots import centre_user, node_user
from sensegate.errors import ConfigError
from sensegate.model import Datum, Device

ID_CHARACTERS_MAX = 64
NAME_BYTES_MAX = 128
GATEWAYS_MAX = 8
"""Most gateways of one device."""
GRADES = range(1, 5)
INTERVAL_MAX_S = 366 * 86_400.0

_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{ID_CHARACTERS_MAX}}}")
_PROFILE = re.compile(r"[a-z0-9_-]{1,64}/[A-Za-z0-9_.-]{1,64}")
# + and # are MQTT wildcards; * and > would become NATS wildcards in a permission, which must stay literal.
_WILDCARDS = re.compile(r"[+#*>\s]")
# Unicode categories of invisible characters: control, format, surrogate, unassigned, private use.
_INVISIBLE = {"Cc", "Cf", "Cs", "Cn", "Co"}


class RuleFinding(msgspec.Struct, frozen=True):
    """An error or a warning about an entry."""

    key: str
    problem: str
    remedy: str = ""
    warning: bool = False
    """The entry is accepted nevertheless."""


def text_fault(text: str, *, size_max: int = NAME_BYTES_MAX) -> str:
    """Return the fault of a display text; empty: none."""
    if any(unicodedata.category(character) in _INVISIBLE for character in text):
        return "contains control, format or private-use characters"
    if len(text.encode("utf-8", "surrogatepass")) > size_max:
        return f"is longer than {size_max} bytes"
    if unicodedata.normalize("NFC", text) != text:
        return "is not in Unicode normal form NFC"
    return ""


def alias_fault(alias: str) -> str:
    """Return the fault of an alias of a device; empty: none."""
    if fault := text_fault(alias):
        return fault
    if _WILDCARDS.search(alias):
        return "contains white space or one of + # * >"
    if alias.startswith("$"):
        return "begins with $, which brokers reserve"
    if alias.startswith("sg/"):
        return "begins with sg/, the prefix of canonical ids"
    return ""


def is_reserved(name: str) -> bool:
    """Return whether a name is reserved for internal users of the server."""
    return name in {role.value for role in User} or name.startswith((node_user(""), centre_user("")))


def is_valid_id(name: str) -> bool:
    """Return whether a text can be the canonical id of a device."""
    return bool(_ID.fullmatch(name))


def check_device(
    device: Device, divisions: Divisions, *, home: str = "", profiles: frozenset[str] = frozenset()
) -> list[RuleFinding]:
    """Return all errors and warnings of an entry, in the order of its keys; empty if it is valid.

    `home` is the division that this gateway serves; empty: any. `profiles` are the known profiles; empty: not checked.
    """
    findings: list[RuleFinding] = []
    if not is_valid_id(device.id):
        remedy = f"1 to {ID_CHARACTERS_MAX} of A-Z a-z 0-9 _ -; put the device's own name in alias"
        findings.append(RuleFinding("id", f"'{device.id[:ID_CHARACTERS_MAX]}' is not a device id", remedy))
    elif is_reserved(device.id):
        findings.append(RuleFinding("id", f"{device.id} is reserved for the server", "choose another id"))
    findings += _division_findings(device, divisions, home)
    findings += _code_findings(device)
    if not _PROFILE.fullmatch(device.profile):
        findings.append(RuleFinding("profile", f"'{device.profile[:80]}' is not vendor/model", "e.g. sensegate/plain"))
    elif profiles and device.profile not in profiles:
        findings.append(
            RuleFinding(
                "profile", f"there is no profile {device.profile}", wording.unknown_profile(device.profile, profiles)
            )
        )
    findings += _alias_findings(device)
    for key in ("department", "domain", "owner", "name", "asset"):
        if fault := text_fault(getattr(device, key)):
            findings.append(RuleFinding(key, f"{key} {fault}", "shorten it or remove these characters"))
    if device.gateway != " ".join(device.gateways) or not all(map(is_valid_id, device.gateways)):
        remedy = "give the id of the device whose credential publishes for this one; separate several with one blank"
        findings.append(RuleFinding("gateway", "is not a device id", remedy))
    if len(set(device.gateways)) < len(device.gateways) or len(device.gateways) > GATEWAYS_MAX:
        findings.append(
            RuleFinding("gateway", f"names a device twice, or more than {GATEWAYS_MAX} devices", "remove some")
        )
    if device.id in device.gateways:
        findings.append(RuleFinding("gateway", "a device cannot be its own gateway", "leave the key empty"))
    findings += _location_findings(device, divisions)
    if device.grade not in GRADES:
        findings.append(RuleFinding("grade", f"grade {device.grade} does not exist", "give 1, 2, 3 or 4"))
    if not (math.isfinite(device.interval_s) and 0 <= device.interval_s <= INTERVAL_MAX_S):
        findings.append(
            RuleFinding("interval_s", "is not a number of seconds up to a year", "give 0 for the profile's interval")
        )
    return findings


def _alias_findings(device: Device) -> list[RuleFinding]:
    if device.alias and (fault := alias_fault(device.alias)):
        remedy = "give it as in the topic or payload, without these characters"
        return [RuleFinding("alias", f"alias {fault}", remedy)]
    return []


def require_valid(
    device: Device, divisions: Divisions, *, home: str = "", profiles: frozenset[str] = frozenset()
) -> list[RuleFinding]:
    """Return the warnings of an entry without errors.

    Raises:
        ConfigError: the first error.
    """
    findings = check_device(device, divisions, home=home, profiles=profiles)
    for finding in findings:
        if not finding.warning:
            raise ConfigError(finding.problem, key=finding.key, remedy=finding.remedy)
    return findings


def _division_findings(device: Device, divisions: Divisions, home: str) -> list[RuleFinding]:
    try:
        place, warning = divisions.check(device.division)
    except ConfigError as why:
        return [RuleFinding("division", why.problem, why.remedy)]
    if home and not contains(home, place):
        remedy = "register it at the node of its city, or at the centre"
        return [RuleFinding("division", f"division {place} is not served here ({home})", remedy)]
    return [RuleFinding("division", warning, "compare it with the table of divisions", warning=True)] if warning else []


def _code_findings(device: Device) -> list[RuleFinding]:
    """Return warnings about an id or alias that may be a camera code (GB/T 28181); it is accepted in any case."""
    findings: list[RuleFinding] = []
    for key, text in (("id", device.id), ("alias", device.alias)):
        if not camera_codes.resembles_code(text) or (key == "alias" and text == device.id):
            continue
        try:
            code = camera_codes.parse(text)
        except ConfigError as why:
            findings.append(RuleFinding(key, f"as a camera code it {why.problem}", why.remedy, warning=True))
            continue
        findings += [
            RuleFinding(key, problem, remedy, warning=True) for problem, remedy in camera_codes.deviations(code)
        ]
        place = code.division
        if place and device.division and not (contains(place, device.division) or contains(device.division, place)):
            problem = f"its code names a centre in {place}, but it is registered in {device.division}"
            findings.append(
                RuleFinding(key, problem, "ignore this if the camera is not located at its centre", warning=True)
            )
    return findings


def _location_findings(device: Device, divisions: Divisions) -> list[RuleFinding]:
    lon, lat = device.lon, device.lat
    if lon is None and lat is None:
        return []
    if lon is None or lat is None:
        return [RuleFinding("lon" if lon is None else "lat", "one of lon and lat is missing", "give both or neither")]
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        swapped = -180 <= lat <= 180 and -90 <= lon <= 90
        remedy = (
            f"lon and lat look swapped; give lon {lat:g} and lat {lon:g}"
            if swapped
            else "degrees: lon -180 to 180, lat -90 to 90"
        )
        return [RuleFinding("lon", "the coordinates are out of range", remedy)]
    if device.datum in (Datum.GCJ02, Datum.BD09) and not _in_china(lon, lat):
        return [RuleFinding("datum", f"{device.datum} is used only in China", "give wgs84")]
    return _extent_findings(device, lon, lat, divisions)


def _extent_findings(device: Device, lon: float, lat: float, divisions: Divisions) -> list[RuleFinding]:
    """Compare coordinates with the extent of the division."""
    swapped = RuleFinding("lon", "lon and lat look swapped", f"give lon {lat:g} and lat {lon:g}", warning=True)
    try:
        extent = divisions.extent(device.division)
    except ConfigError:  # reported with the division
        extent = None
    if extent is None:
        return [swapped] if not _in_china(lon, lat) and _in_china(lat, lon) else []
    if extent.holds(lon, lat):
        return []
    if extent.holds(lat, lon) or (not _in_china(lon, lat) and _in_china(lat, lon)):
        return [swapped]
    bounds = f"lon {extent.west:.2f} to {extent.east:.2f}, lat {extent.south:.2f} to {extent.north:.2f}"
    problem = f"the coordinates are outside of division {device.division}"
    return [RuleFinding("lon", problem, f"correct them, or the division: it has {bounds}", warning=True)]


def _in_china(lon: float, lat: float) -> bool:
    return 72 <= lon <= 138 and 0.8 <= lat <= 56
