"""Common vocabulary for what cameras of every vendor report: events, classes, colours, directions, plates.

The words and their labels are the tables `video_event`, `vehicle_class`, `color` and `plate_class` of
`../quantities/codes.csv`; `codes.csv` beside this module maps the codes of each vendor to these words. Codes are
compared case-insensitively. An unknown code is not an error: vendors add new ones with each firmware.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from typing import Final

from sensegate.quantities.properties import CODES, CodeValue
from sensegate.video.observation import ObjectClass

TABLE = "codes.csv"
COLUMNS = ("table", "make", "code", "word")
OTHER = "other"

EVENTS: Final[Mapping[str, CodeValue]] = CODES["video_event"]
"""Event word -> its labels: the allowed values of `VideoEvent.type`."""
VEHICLES: Final[Mapping[str, CodeValue]] = CODES["vehicle_class"]
COLORS: Final[Mapping[str, CodeValue]] = CODES["color"]
PLATE_CLASSES: Final[Mapping[str, CodeValue]] = CODES["plate_class"]


def parse(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Parse the code table from CSV text: (table, vendor) -> folded code -> word.

    Raises:
        ValueError: if a row is incomplete or a code occurs twice.
    """
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"wrong columns; they are {','.join(COLUMNS)}")
    tables: dict[tuple[str, str], dict[str, str]] = {}
    for cells in reader:
        table, make, code, word = (cells[column] or "" for column in COLUMNS)
        codes = tables.setdefault((table, make), {})
        if not (table and code and word) or _folded(code) in codes:
            raise ValueError(f"line {reader.line_num}: a cell is empty, or the code occurs twice")
        codes[_folded(code)] = word
    return tables


def _folded(code: str) -> str:
    return code.strip().casefold()


WORDS: Final = parse(resources.files("sensegate.video").joinpath(TABLE).read_text(encoding="utf-8"))
"""(table, vendor) -> code -> word; vendor ``""`` applies to all."""

_LONGEST = 128
"""Greatest length of a code in characters; no vendor has longer ones."""
_DIGITS = 3
"""Greatest number of digits of a numeric code."""


def word(table: str, make: str, code: str | int) -> str | None:
    """Return the word of a vendor's (or common) code, None if it is unknown."""
    text = str(code)
    if len(text) > _LONGEST:
        return None
    folded = _folded(text)
    result = WORDS.get((table, make), {}).get(folded)
    return WORDS.get((table, ""), {}).get(folded) if result is None else result


def event(make: str, code: str | int) -> str:
    """Return the word of an event, ``other`` if the code is unknown.

    GB/T 28181: ``method`` or ``method/type``; an unknown type falls back to its method. ONVIF: the topic without
    prefixes and sources (``RuleEngine/LineDetector/Crossed``), see also `onvif_event`.
    """
    result = word("event", make, code)
    if result is None and make == "gb28181" and isinstance(code, str):
        result = word("event", make, code.partition("/")[0])
    return OTHER if result is None else result


_APPLICATIONS: Final = "CameraApplicationPlatform/"
_RULES: Final = "RuleEngine/"


def onvif_event(topic: str) -> str | None:
    """Return the word of an ONVIF topic without prefixes, None if it is unknown.

    Applications on Axis cameras have topics of their own: ``CameraApplicationPlatform/VMD/Camera1ProfileANY``.
    """
    if topic.startswith(_APPLICATIONS):
        return word("event", "axis", topic.split("/")[1])
    found_word = word("event", "onvif", topic)
    if found_word is None and topic.startswith(_RULES):  # RuleEngine/VMD3/vmd3_video_1
        return word("event", "axis", topic.split("/")[1])
    return found_word


def state_property(event_word: str) -> str:
    """Return the boolean property for the state of an event, empty if it has none."""
    return word("state", "", event_word) or ""


def object_class(make: str, label: str) -> tuple[ObjectClass, str]:
    """Return (class, kind of vehicle or empty) of a detector's label."""
    result = word("class", make, label)
    if result is None:
        return ObjectClass.OTHER, ""
    name, _, kind = result.partition(":")
    return ObjectClass(name), kind


def vehicle(make: str, code: str) -> str:
    """Return the kind of vehicle (`VEHICLES`), empty if unknown; GA 24.4 codes by their first one or two characters."""
    kind = word("vehicle", make, code)
    if kind is None and make == "gat1400":
        kind = word("vehicle", make, code.strip()[:2]) or word("vehicle", make, code.strip()[:1])
    if kind is None:
        kind = object_class(make, code)[1]
    return kind


def color(make: str, code: str | int) -> str:
    """Return the colour of a vehicle or plate (`COLORS`), empty if unknown."""
    return word("color", make, _plain_number(code)) or ""


def plate_class(make: str, code: str | int) -> str:
    """Return the two digits of GA 24.7 (`PLATE_CLASSES`), empty if unknown."""
    text = str(code).strip()
    return word("plate_class", make, text.zfill(2) if make == "gat1400" else text) or ""


def heading(make: str, code: str | int) -> float | None:
    """Return the degrees clockwise from north of a direction code, None if unknown or ``other``."""
    degrees = word("heading", make, _plain_number(code))
    return None if degrees is None else float(degrees)


def _plain_number(code: str | int) -> str | int:
    """Drop leading zeros: ``02`` is 2."""
    text = str(code).strip()
    return int(text) if len(text) <= _DIGITS and text.isascii() and text.isdigit() else code
