"""What a registry entry may say. Each finding names the key, what is wrong and what to do."""

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
# + # are MQTT wildcards; * > would become NATS wildcards in a permission, which must stay literal.
_WILDCARDS = re.compile(r"[+#*>\s]")
# Control, format, surrogate, unassigned, private: what cannot be seen must not be part of a name.
_UNSEEN = {"Cc", "Cf", "Cs", "Cn", "Co"}


class RuleFinding(msgspec.Struct, frozen=True):
    """One thing that is wrong, or odd, with an entry."""

    key: str
    problem: str
    remedy: str = ""
    warning: bool = False
    """True: kept as it is, but worth a look."""


def text_fault(text: str, *, size_max: int = NAME_BYTES_MAX) -> str:
    """Return what is wrong with a text for people, or an empty string."""
    if any(unicodedata.category(character) in _UNSEEN for character in text):
        return "holds control, format or private characters"
    if len(text.encode("utf-8", "surrogatepass")) > size_max:
        return f"is longer than {size_max} bytes"
    if unicodedata.normalize("NFC", text) != text:
        return "is not in normal form NFC"
    return ""


def alias_fault(alias: str) -> str:
    """Return what is wrong with a name by which a device calls itself, or an empty string."""
    if fault := text_fault(alias):
        return fault
    if _WILDCARDS.search(alias):
        return "holds white space or one of + # * >"
    if alias.startswith("$"):
        return "begins with $, which brokers keep for themselves"
    if alias.startswith("sg/"):
        return "begins with sg/, under which canonical ids stand"
    return ""


def is_reserved(name: str) -> bool:
    """Return whether a user of the server's own bears this name."""
    return name in {role.value for role in User} or name.startswith((node_user(""), centre_user("")))


def is_valid_id(name: str) -> bool:
    """Return whether this can be a device's canonical id."""
    return bool(_ID.fullmatch(name))


def check_device(
    device: Device, divisions: Divisions, *, home: str = "", profiles: frozenset[str] = frozenset()
) -> list[RuleFinding]:
    """Return all that is wrong or odd with an entry, in the order of its keys; empty when it is good.

    `home`: the division that this gateway serves; empty: any. `profiles`: the known ones; empty: not checked.
    """
    found: list[RuleFinding] = []
    if not is_valid_id(device.id):
        remedy = f"1 to {ID_CHARACTERS_MAX} of A-Z a-z 0-9 _ -; put the device's own name in alias"
        found.append(RuleFinding("id", f"'{device.id[:ID_CHARACTERS_MAX]}' is not a device id", remedy))
    elif is_reserved(device.id):
        found.append(RuleFinding("id", f"{device.id} is a name of the server's own", "choose another"))
    found += _of_division(device, divisions, home)
    found += _of_codes(device)
    if not _PROFILE.fullmatch(device.profile):
        found.append(RuleFinding("profile", f"'{device.profile[:80]}' is not vendor/model", "e.g. sensegate/plain"))
    elif profiles and device.profile not in profiles:
        found.append(
            RuleFinding("profile", f"no profile {device.profile}", wording.unknown_profile(device.profile, profiles))
        )
    if device.alias and (fault := alias_fault(device.alias)):
        found.append(
            RuleFinding("alias", f"alias {fault}", "give it as it stands in the topic or payload, without these")
        )
    for key in ("department", "domain", "owner", "name", "asset"):
        if fault := text_fault(getattr(device, key)):
            found.append(RuleFinding(key, f"{key} {fault}", "shorten it or remove them"))
    if device.gateway != " ".join(device.gateways) or not all(map(is_valid_id, device.gateways)):
        remedy = "name the device whose credential publishes for this; several with one blank between"
        found.append(RuleFinding("gateway", "is not a device id", remedy))
    if len(set(device.gateways)) < len(device.gateways) or len(device.gateways) > GATEWAYS_MAX:
        found.append(RuleFinding("gateway", f"names one twice, or more than {GATEWAYS_MAX}", "remove some"))
    if device.id in device.gateways:
        found.append(RuleFinding("gateway", "a device is not its own gateway", "leave it empty"))
    found += _of_place(device)
    if device.grade not in GRADES:
        found.append(RuleFinding("grade", f"grade {device.grade} does not exist", "give 1, 2, 3 or 4"))
    if not (math.isfinite(device.interval_s) and 0 <= device.interval_s <= INTERVAL_MAX_S):
        found.append(RuleFinding("interval_s", "is not a number of seconds up to a year", "0 takes the profile's"))
    return found


def require_valid(
    device: Device, divisions: Divisions, *, home: str = "", profiles: frozenset[str] = frozenset()
) -> list[RuleFinding]:
    """Return the warnings.

    Raises:
        ConfigError: for the first thing that is wrong.
    """
    found = check_device(device, divisions, home=home, profiles=profiles)
    for finding in found:
        if not finding.warning:
            raise ConfigError(finding.problem, key=finding.key, remedy=finding.remedy)
    return found


def _of_division(device: Device, divisions: Divisions, home: str) -> list[RuleFinding]:
    try:
        place, warning = divisions.check(device.division)
    except ConfigError as why:
        return [RuleFinding("division", why.problem, why.remedy)]
    if home and not contains(home, place):
        remedy = "register it at the node of its city, or at the centre"
        return [RuleFinding("division", f"division {place} is not served here ({home})", remedy)]
    return [RuleFinding("division", warning, "check it against the table", warning=True)] if warning else []


def _of_codes(device: Device) -> list[RuleFinding]:
    """Look at ids that may be codes of cameras (GB/T 28181): all of it is kept, and told."""
    found: list[RuleFinding] = []
    for key, text in (("id", device.id), ("alias", device.alias)):
        if not camera_codes.resembles_code(text) or (key == "alias" and text == device.id):
            continue
        try:
            code = camera_codes.parse(text)
        except ConfigError as why:
            found.append(RuleFinding(key, f"as the code of a camera it {why.problem}", why.remedy, warning=True))
            continue
        found += [RuleFinding(key, what, remedy, warning=True) for what, remedy in camera_codes.deviations(code)]
        place = code.division
        if place and device.division and not (contains(place, device.division) or contains(device.division, place)):
            what = f"its code is of a centre in {place}, it is registered in {device.division}"
            found.append(RuleFinding(key, what, "right if it stands elsewhere than its centre", warning=True))
    return found


def _of_place(device: Device) -> list[RuleFinding]:
    lon, lat = device.lon, device.lat
    if lon is None and lat is None:
        return []
    if lon is None or lat is None:
        return [RuleFinding("lon" if lon is None else "lat", "one of lon and lat is missing", "give both or neither")]
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        swapped = -180 <= lat <= 180 and -90 <= lon <= 90
        remedy = "lon and lat look swapped" if swapped else "degrees: lon -180 to 180, lat -90 to 90"
        return [RuleFinding("lon", "no such place", remedy)]
    in_china = 72 <= lon <= 138 and 0.8 <= lat <= 56
    if device.datum in (Datum.GCJ02, Datum.BD09) and not in_china:
        return [RuleFinding("datum", f"{device.datum} is used in China only", "give wgs84")]
    if not in_china and 72 <= lat <= 138 and 0.8 <= lon <= 56:
        return [RuleFinding("lon", "lon and lat look swapped", "lon comes first: about 113, 23", warning=True)]
    return []
