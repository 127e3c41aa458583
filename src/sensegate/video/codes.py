"""One vocabulary for what cameras of every make report: events, classes, colours, directions, plates.

The words with their labels stand in the tables `video_event`, `vehicle_class`, `color` and `plate_class` of
`../quantities/codes.csv`; `codes.csv` beside this file says which code of which make is which word. Codes are
compared without regard to case. A code that is in no table is no error: vendors invent new ones with each firmware.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from typing import Final

from sensegate.quantities.properties import CODES, Code
from sensegate.video.observation import ObjectClass

TABLE = "codes.csv"
COLUMNS = ("table", "make", "code", "word")
OTHER = "other"

EVENTS: Final[Mapping[str, Code]] = CODES["video_event"]
"""Word of an event -> its labels: all that `Event.type` may be."""
VEHICLES: Final[Mapping[str, Code]] = CODES["vehicle_class"]
COLORS: Final[Mapping[str, Code]] = CODES["color"]
PLATE_CLASSES: Final[Mapping[str, Code]] = CODES["plate_class"]


def parse(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Return the tables in CSV text: (table, make) -> code, folded -> word.

    Raises:
        ValueError: if a row is not whole or a code occurs twice.
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


CODES_OF: Final = parse(resources.files("sensegate.video").joinpath(TABLE).read_text(encoding="utf-8"))
"""(table, make) -> code -> word; make ``""`` holds for all of them."""

_LONGEST = 128
"""Characters; no code of any make is longer."""
_DIGITS = 3
"""No number that is a code has more."""


def word(table: str, make: str, code: str | int) -> str | None:
    """Return the word of a code of a make (or of all makes), None if there is none."""
    text = str(code)
    if len(text) > _LONGEST:
        return None
    folded = _folded(text)
    found = CODES_OF.get((table, make), {}).get(folded)
    return CODES_OF.get((table, ""), {}).get(folded) if found is None else found


def event(make: str, code: str | int) -> str:
    """Return the word of an event, ``other`` if the code is unknown.

    GB/T 28181: ``method`` or ``method/type``; an unknown type falls back to its method. ONVIF: the topic without
    prefixes and sources (``RuleEngine/LineDetector/Crossed``).
    """
    found = word("event", make, code)
    if found is None and make == "gb28181" and isinstance(code, str):
        found = word("event", make, code.partition("/")[0])
    return OTHER if found is None else found


def state_property(event_word: str) -> str:
    """Return the boolean property that tells whether an event of this word is going on, empty if there is none."""
    return word("state", "", event_word) or ""


def seen_as(make: str, label: str) -> tuple[ObjectClass, str]:
    """Return what a label of a detector means: class, and the kind of vehicle (or empty)."""
    found = word("class", make, label)
    if found is None:
        return ObjectClass.OTHER, ""
    name, _, kind = found.partition(":")
    return ObjectClass(name), kind


def vehicle(make: str, code: str) -> str:
    """Return the kind of vehicle (`VEHICLES`), empty if unknown; GA 24.4 codes by their first one or two places."""
    found = word("vehicle", make, code)
    if found is None and make == "gat1400":
        found = word("vehicle", make, code.strip()[:2]) or word("vehicle", make, code.strip()[:1])
    if found is None:
        found = seen_as(make, code)[1]
    return found


def color(make: str, code: str | int) -> str:
    """Return the colour (`COLORS`), empty if unknown; of plates too."""
    return word("color", make, _plain_number(code)) or ""


def plate_class(make: str, code: str | int) -> str:
    """Return the two digits of GA 24.7 (`PLATE_CLASSES`), empty if unknown."""
    text = str(code).strip()
    return word("plate_class", make, text.zfill(2) if make == "gat1400" else text) or ""


def heading(make: str, code: str | int) -> float | None:
    """Return degrees clockwise from north of a direction by code, None if unknown or ``other``."""
    found = word("heading", make, _plain_number(code))
    return None if found is None else float(found)


def _plain_number(code: str | int) -> str | int:
    """``02`` is 2."""
    text = str(code).strip()
    return int(text) if len(text) <= _DIGITS and text.isascii() and text.isdigit() else code
