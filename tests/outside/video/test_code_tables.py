"""The code tables hold every code that the knowledge file lists (sections 2 to 5): it is read here, row by row.

`SENSEGATE_SAMPLES` names the samples; the knowledge lies beside them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sensegate.quantities.properties import CODES
from sensegate.video import codes
from sensegate.video.formats.viid_codes import BASIC, DETAILS, STATUS_WORDS, SUBTYPES, TOLLGATE_USES
from sensegate.video.observation import ObjectClass

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
FILE = Path(SAMPLES).parent / "knowledge" / "video-formats.md"
pytestmark = pytest.mark.skipif(not (SAMPLES and FILE.exists()), reason="the knowledge file is not beside the samples")


def text() -> str:
    return FILE.read_text(encoding="utf-8")


def row(name: str) -> str:
    """Return the second cell of the one table row that begins with a name."""
    lines = [line for line in text().splitlines() if line.startswith(f"| {name}")]
    assert len(lines) == 1, name
    return lines[0].strip(" |").split(" | ", 1)[1]


def numbers(cell: str) -> list[str]:
    """Return the codes of ``1 black, 2 white, 17/18 features``: what stands before a word."""
    cell = re.sub(r"\([^)]*\)", "", cell)
    return [code for group in re.findall(r"(?:^|[,;·] ?|/)(\d+(?:/\d+)*) ", cell) for code in group.split("/")]


@pytest.mark.parametrize(
    ("name", "table", "least"),
    [
        ("InfoKind", "info_kind", 3),
        ("ColorType", "color", 14),
        ("GenderCode", "gender", 4),
        ("ImageType", "image", 15),
        ("StatusType", "status", 3),
        ("EventSort", "event", 25),
        ("`Is*` person flags", "yes", 3),
        ("CapDirection", "side", 2),
        ("FunctionType", "function", 7),
        ("TollgateUsage", "tollgate_usage", 3),
    ],
)
def test_tables_of_gat1400(name: str, table: str, least: int) -> None:
    """Each code has a word, and as many were read as there are."""
    cell = row(name)
    result = cell.split(" / ") if name == "TollgateUsage" else numbers(cell)
    assert len(result) >= least
    assert [code for code in result if codes.word(table, "gat1400", code) is None] == []


def test_directions() -> None:
    """Each code gives the heading that stands beside it; the last one gives none."""
    matches = re.findall(r"(\d) [NESW]+→[NESW]+ (\d+)°", row("HDirectionType"))
    assert len(matches) == 8
    assert {code: codes.heading("gat1400", code) for code, _ in matches} == {code: float(at) for code, at in matches}
    assert codes.heading("gat1400", 9) is None


def test_plate_classes() -> None:
    """Each class has a label in both languages; all 35 of GA 24.7 are there, not only those listed."""
    selected = [code for group in re.findall(r"\b(\d{2}(?:/\d{2})*) ", row("PlateClass")) for code in group.split("/")]
    assert len(selected) >= 12
    for code in selected:
        assert codes.plate_class("gat1400", code) == code
        assert codes.PLATE_CLASSES[code].label_zh
    assert len(codes.PLATE_CLASSES) >= 35


def _section(begin: str, end: str) -> str:
    whole = text()
    return whole[whole.index(begin) : whole.index(end, whole.index(begin))]


def test_status_codes() -> None:
    """Both halves of the table of answers."""
    part = _section("| StatusCode | Meaning | StatusCode", "Interoperability")
    rows = [line.strip(" |").split(" | ") for line in part.splitlines()[2:] if line.startswith("|")]
    results = {int(cells[at]): cells[at + 1] for cells in rows for at in (0, 2)}
    assert results == dict(STATUS_WORDS)


def test_what_can_be_subscribed() -> None:
    """Every number of SubscribeDetail leads to a kind of object."""
    matches = re.findall(r"(\d+) [a-z]", row("SubscribeDetail"))
    assert set(matches) == set(DETAILS)


def test_subtypes_of_ids() -> None:
    """The digits that say what an id is of."""
    content = re.findall(r"(\d{2}) ([a-z-]+)", _section("42–43 subtype", "· 44–48")[len("42–43") :])
    assert {code for code, word in content if word != "other"} == set(SUBTYPES.values())
    basic = re.findall(r"(\d{2}) ([a-z]+)", _section("21–22 subtype", "23–36")[len("21–22") :])
    assert {code for code, word in basic if word != "other"} == set(BASIC.values())
    assert set(row("TollgateUsage").split(" / ")) == TOLLGATE_USES


def _listed(name: str) -> list[str]:
    """Return a list in a line of text: ``ObjectType (open list): Animal, Human.`` gives two."""
    match = re.search(rf"(?:\* |\. ){re.escape(name)}: ([^.]+)\.", text())
    assert match
    return [word.strip() for word in match[1].split(",")]


@pytest.mark.parametrize(
    ("name", "look_up"),
    [
        ("ObjectType (open list)", lambda word: codes.word("class", "onvif", word)),
        ("VehicleType", lambda word: codes.vehicle("onvif", word) or codes.object_class("onvif", word)[1]),
        ("PlateType", lambda word: codes.plate_class("onvif", word)),
    ],
)
def test_lists_of_onvif(name: str, look_up: Callable[[str], str | None]) -> None:
    """Classes, kinds of vehicles, kinds of plates."""
    result = _listed(name)
    assert len(result) >= 4
    assert [word for word in result if not look_up(word)] == []
    assert codes.object_class("onvif", "Vehical") == (ObjectClass.VEHICLE, "")


def test_topics_of_onvif() -> None:
    """Every useful topic has a word of its own, or is a value (radiometry) of a table of the format."""
    line = next(line for line in text().splitlines() if line.startswith("Useful topics:"))
    line = re.sub(r"\([^)]*\)", "", line.removeprefix("Useful topics:").strip(" ."))
    topics = [name.strip() for part in line.split("·") for name in part.split(",")]
    assert len(topics) >= 19
    known = codes.WORDS["event", "onvif"]
    missing = []
    for topic in topics:
        ends = topic.removesuffix("/*").casefold()
        if not any(ends in code for code in known):
            missing.append(topic)
    assert missing == []


def test_alarms_of_gb28181() -> None:
    """Every AlarmMethod."""
    match = re.search(r"AlarmMethod \(([^)]*)\)", text())
    assert match
    methods = re.findall(r"(\d) \w", match[1])
    assert len(methods) == 7
    assert [code for code in methods if codes.word("event", "gb28181", code) is None] == []


def test_codes_of_devices() -> None:
    """Industry, type and network of the 20 digits."""
    part = _section("| Digits | Length | Meaning |", "* The 2016 prose")
    cells = {
        line.strip(" |").split(" | ")[0]: line.strip(" |").split(" | ")[2]
        for line in part.splitlines()[2:]
        if "|" in line
    }
    industries = re.findall(r"\b(\d{2})\b", cells["9–10"])
    types = re.findall(r"\b(\d{3})\b", cells["11–13"])
    networks = re.findall(r"\b(\d)(?=[ /])", cells["14"])
    assert (len(industries), len(types), len(networks)) >= (15, 18, 9)
    for table, listed in (("industry", industries), ("device_type", types), ("network", networks)):
        assert [code for code in listed if codes.word(table, "gb28181", code) is None] == [], table


def test_events_of_hikvision() -> None:
    """Every type of event but `duration`, which names another one."""
    cell = row("eventType")
    words = [word.strip() for word in cell.split("…")[0].split(",") if word.strip() and "duration" not in word]
    assert len(words) >= 9
    assert [word for word in words if codes.word("event", "hikvision", word) is None] == []


def test_words_of_detectors() -> None:
    """States and severities of Frigate, events and objects of DeepStream, counts of Axis."""
    for make, listed in {
        "frigate": ("new", "update", "end", "alert", "detection"),
        "deepstream": ("entry", "exit", "moving", "stopped", "parked"),
    }.items():
        assert [word for word in listed if codes.word("event", make, word) is None] == []
    for label in ("vehicle", "person", "face", "bag", "bicycle", "roadsign"):
        assert codes.object_class("deepstream", label)[0] is not ObjectClass.OTHER
    for label in ("Human", "Face", "Vehicle", "Car", "Bus", "Truck", "Bike", "Motorcycle/bicycle", "LicensePlate"):
        assert codes.object_class("axis", label)[0] is not ObjectClass.OTHER


def test_every_word_of_a_table_has_labels() -> None:
    """What readings and observations hold as a word is of a table with both languages."""
    for table in ("video_event", "vehicle_class", "color", "plate_class", "review_state"):
        assert all(code.label_zh and code.label_en for code in CODES[table].values())
