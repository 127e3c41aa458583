"""The 20-digit codes by which video networks name cameras and platforms (GB/T 28181-2016 annex D.1, GA/T 1400.1).

    44010600 04 132 0 000001
    │        │  │   │ └ serial
    │        │  │   └ network
    │        │  └ type of the device
    │        └ industry
    └ centre: province, city, county, grass-roots unit

A code is a claim: it says where the centre is that gave it, not where the camera stands. It is accepted with any fault
that devices show in the field; each is named.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sensegate.errors import ConfigError

DIGITS: Final = 20
LEGACY_DIGITS: Final = 16
"""Annex D, rule B: centre, industry, serial, type; recognised, not taken apart."""
_SUFFIXED: Final = (22, 24)
"""With a channel behind the code, as some devices send it."""
_LIKE: Final = range(18, 23)
_PROVINCES: Final = frozenset(
    {*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82}
)
"""Begin of what somebody may have meant as such a code: a number of a SIM card (89…) has as many digits."""

INDUSTRIES: Final = {
    "00": "public-security road",
    "01": "public-security community",
    "02": "public-security internal",
    "03": "public-security other",
    "04": "traffic road",
    "05": "traffic tollgate",
    "06": "traffic internal",
    "07": "traffic other",
    "08": "city management",
    "09": "health and environment",
    "10": "customs",
    "11": "education",
    "12": "aviation",
    "13": "rail",
    "14": "shipping",
}
INDUSTRIES_OF_COMPANIES: Final = range(40, 60)
TYPES: Final = {
    "111": "video recorder (DVR)",
    "112": "video server",
    "113": "encoder",
    "114": "decoder",
    "115": "video switching matrix",
    "116": "audio switching matrix",
    "117": "alarm controller",
    "118": "network video recorder (NVR)",
    "119": "on-line collection device",
    "120": "collection system",
    "121": "video tollgate",
    "122": "multi-lens camera",
    "130": "hybrid recorder (HVR)",
    "131": "camera",
    "132": "network camera (IPC)",
    "133": "display",
    "134": "alarm input",
    "135": "alarm output",
    "136": "audio input",
    "137": "audio output",
    "138": "mobile device",
    "139": "other peripheral",
    "200": "SIP server of a centre",
    "215": "group by business",
    "216": "virtual group",
    "500": "platform",
    "502": "analysis system",
    "503": "database of images (VIID)",
    "504": "application platform",
    "505": "analysis device",
}
CAMERAS: Final = frozenset({"119", "121", "122", "131", "132", "138"})
"""Types that see something themselves."""
_USERS: Final = range(300, 500)
NETWORKS: Final = (
    "public-security video network",
    "public-security video network",
    "network of an industry",
    "political-legal network",
    "mobile police network",
    "police intranet",
    "e-government extranet",
    "internet",
    "leased line",
    "reserved",
)


class CameraCode(NamedTuple):
    """A code taken apart."""

    centre: str
    industry: str
    type: str
    network: str
    serial: str

    def __str__(self) -> str:
        return "".join(self)

    @property
    def division(self) -> str:
        """Short code of the division of its centre, down to the county; empty where it names none."""
        code = self.centre[:6]
        while code.endswith("00"):
            code = code[:-2]
        return code

    @property
    def is_camera(self) -> bool:
        """Whether its type sees something itself; else it is a recorder, a platform, a group."""
        return self.type in CAMERAS

    def parts(self) -> list[tuple[str, str, str]]:
        """Return (part, digits, meaning) in order."""
        company = int(self.industry) in INDUSTRIES_OF_COMPANIES
        industry = INDUSTRIES.get(self.industry, "company" if company else "unknown")
        kind = TYPES.get(self.type, "user" if int(self.type) in _USERS else "unknown")
        return [
            ("centre", self.centre, f"division {self.division or 'none'}"),
            ("industry", self.industry, industry),
            ("type", self.type, kind),
            ("network", self.network, NETWORKS[int(self.network)]),
            ("serial", self.serial, ""),
        ]


def parse(text: str) -> CameraCode:
    """Return the parts of a code; its channel, where it has one behind it, is left out.

    Raises:
        ConfigError: what keeps it from being such a code, and what to do.
    """
    if not (text.isascii() and text.isdigit()):
        raise _bad("holds other signs than digits", "give the 20 digits as the platform shows them")
    if len(text) == LEGACY_DIGITS:
        raise _bad("is a code of 16 digits, of the old rule B", "ask the platform for the code of 20 digits (rule A)")
    if len(text) not in {DIGITS, *_SUFFIXED}:
        off = len(text) - DIGITS
        raise _bad(f"has {abs(off)} digits too {'many' if off > 0 else 'few'}", "a code has 20 digits")
    if text[:2] == "00" or text[0] == "0":
        raise _bad("begins with no province", "the first six digits are the division of the centre, e.g. 440106")
    return CameraCode(text[:8], text[8:10], text[10:13], text[13], text[14:DIGITS])


def looks_like(text: str) -> bool:
    """Return whether somebody may have meant a text as such a code."""
    return len(text) in _LIKE and text.isascii() and text.isdigit() and int(text[:2]) in _PROVINCES


def read(text: str) -> CameraCode | None:
    """Return the parts of a code; None where it is none."""
    try:
        return parse(text)
    except ConfigError:
        return None


def division_of(*names: str) -> str:
    """Return the division by the first of the names that is a code; empty where none is."""
    return next((code.division for name in names if (code := read(name)) is not None), "")


def oddities(code: CameraCode) -> list[tuple[str, str]]:
    """Return (what is odd about a code, what to do); it is taken nevertheless."""
    found: list[tuple[str, str]] = []
    if code.type not in TYPES and int(code.type) not in _USERS:
        found.append((f"type {code.type} (digits 11 to 13) is none of the standard", "131 camera, 132 network camera"))
    elif int(code.type) in _USERS or code.type in {"215", "216"}:
        meaning = "user" if int(code.type) in _USERS else TYPES[code.type]
        found.append((f"type {code.type} (digits 11 to 13) is no device: {meaning}", "take the code of the camera"))
    if code.industry not in INDUSTRIES and int(code.industry) not in INDUSTRIES_OF_COMPANIES:
        found.append(
            (f"industry {code.industry} (digits 9 to 10) is none of the standard", "compare it with the platform")
        )
    if code.network == "9":
        found.append(("network 9 (digit 14) is reserved", "compare it with the platform"))
    if code.serial == "000000":
        found.append(("serial number 000000 (digits 15 to 20)", "numbers begin with 000001"))
    return found


def _bad(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, key="code", remedy=remedy)
