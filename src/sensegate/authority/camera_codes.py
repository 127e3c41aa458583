"""The 20-digit ids of cameras and platforms in video networks (GB/T 28181-2016 annex D.1, GA/T 1400.1).

    44010600 04 132 0 000001
    │        │  │   │ └ serial
    │        │  │   └ network
    │        │  └ type of the device
    │        └ industry
    └ centre: province, city, county, grass-roots unit

A code names the centre that assigned it, not the location of the camera. Codes with the deviations that devices show in
the field are accepted; each deviation is reported.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sensegate.errors import ConfigError

DIGITS: Final = 20
LEGACY_DIGITS: Final = 16
"""Annex D, rule B: centre, industry, serial, type; recognised but not parsed."""
_SUFFIXED: Final = (22, 24)
"""Lengths with a channel appended, as some devices send it."""
_PLAUSIBLE_LENGTHS: Final = range(18, 23)
_PROVINCES: Final = frozenset(
    {*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82}
)
"""First two digits of a plausible code; the number of a SIM card (89…) is as long."""

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
"""Types with a camera of their own."""
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
    """The parts of a code."""

    centre: str
    industry: str
    type: str
    network: str
    serial: str

    def __str__(self) -> str:
        return "".join(self)

    @property
    def division(self) -> str:
        """Short code of the division of its centre, down to the county; empty if it names none."""
        code = self.centre[:6]
        while code.endswith("00"):
            code = code[:-2]
        return code

    @property
    def is_camera(self) -> bool:
        """Return whether the device has a camera; otherwise it is a recorder, a platform or a group."""
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
    """Return the parts of a code, without an appended channel.

    Raises:
        ConfigError: the text is not a code; the message says why and what to do.
    """
    if not (text.isascii() and text.isdigit()):
        raise _bad("contains characters other than digits", "give the 20 digits as the platform shows them")
    if len(text) == LEGACY_DIGITS:
        raise _bad("is a 16-digit code of the old rule B", "ask the platform for the 20-digit code (rule A)")
    if len(text) not in {DIGITS, *_SUFFIXED}:
        excess = len(text) - DIGITS
        raise _bad(f"has {abs(excess)} digits too {'many' if excess > 0 else 'few'}", "give 20 digits")
    if text[:2] == "00" or text[0] == "0":
        raise _bad("does not begin with a province", "the first six digits are the division of the centre, e.g. 440106")
    return CameraCode(text[:8], text[8:10], text[10:13], text[13], text[14:DIGITS])


def resembles_code(text: str) -> bool:
    """Return whether a text is probably intended as such a code."""
    return len(text) in _PLAUSIBLE_LENGTHS and text.isascii() and text.isdigit() and int(text[:2]) in _PROVINCES


def parse_or_none(text: str) -> CameraCode | None:
    """Return the parts of a code; None if the text is not one."""
    try:
        return parse(text)
    except ConfigError:
        return None


def division_of(*names: str) -> str:
    """Return the division of the first name that is a code; empty if none is."""
    return next((code.division for name in names if (code := parse_or_none(name)) is not None), "")


def deviations(code: CameraCode) -> list[tuple[str, str]]:
    """Return (deviation from the standard, what to do) of a code that is accepted nevertheless."""
    deviations: list[tuple[str, str]] = []
    if code.type not in TYPES and int(code.type) not in _USERS:
        deviations.append(
            (f"type {code.type} (digits 11 to 13) is not defined by the standard", "131 camera, 132 network camera")
        )
    elif int(code.type) in _USERS or code.type in {"215", "216"}:
        meaning = "user" if int(code.type) in _USERS else TYPES[code.type]
        deviations.append(
            (f"type {code.type} (digits 11 to 13) is not a device: {meaning}", "give the code of the camera")
        )
    if code.industry not in INDUSTRIES and int(code.industry) not in INDUSTRIES_OF_COMPANIES:
        deviations.append(
            (
                f"industry {code.industry} (digits 9 to 10) is not defined by the standard",
                "compare it with the platform",
            )
        )
    if code.network == "9":
        deviations.append(("network 9 (digit 14) is reserved", "compare it with the platform"))
    if code.serial == "000000":
        deviations.append(("serial number 000000 (digits 15 to 20) is not assigned", "serial numbers start at 000001"))
    return deviations


def _bad(problem: str, remedy: str) -> ConfigError:
    return ConfigError(problem, key="code", remedy=remedy)
