"""Code tables of cameras: each row leads to a word that there is, and the tables of GA/T 1400 are whole."""

from __future__ import annotations

import csv
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.quantities.properties import CODES, PROPERTIES, ValueKind
from sensegate.video import codes
from sensegate.video.observation import ObjectClass

ROWS = list(csv.DictReader(resources.files("sensegate.video").joinpath("codes.csv").read_text("utf-8").splitlines()))
WORDS_OF = {
    "event": set(codes.EVENTS),
    "vehicle": set(codes.VEHICLES),
    "color": set(codes.COLORS),
    "plate_class": set(codes.PLATE_CLASSES),
}
TABLES = {
    *["info_kind", "gender", "status", "image", "yes", "side", "function", "heading", "class", "state", "brand"],
    *["industry", "device_type", "network", "tollgate_usage"],
    *WORDS_OF,
}
MAKES = {"", "gat1400", "onvif", "hikvision", "dahua", "frigate", "deepstream", "axis", "gb28181"}


def test_each_row_leads_to_a_word_that_there_is() -> None:
    """No row is of an unknown table or make, and none names a word, class or kind of vehicle that is not there."""
    assert {row["table"] for row in ROWS} == TABLES
    assert {row["make"] for row in ROWS} == MAKES
    for row in ROWS:
        name, _, kind = row["word"].partition(":")
        assert codes.word(row["table"], row["make"], row["code"].upper()) == row["word"], row
        if row["table"] in WORDS_OF:
            assert row["word"] in WORDS_OF[row["table"]], row
        if row["table"] == "class":
            assert name in set(ObjectClass), row
            assert not kind or kind in codes.VEHICLES, row
        if row["table"] == "heading":
            assert 0 <= float(row["word"]) < 360, row


def test_events_with_a_state_have_a_boolean_property() -> None:
    """Each event that may go on leads to a property that is true or false; one without a state to none."""
    states = codes.WORDS["state", ""]
    assert set(states) <= set(codes.EVENTS)
    assert {PROPERTIES.by_name(name).kind for name in states.values()} == {ValueKind.BOOLEAN}
    assert codes.state_property("image_blurry") == "image_blurry"
    assert codes.state_property("line_crossed") == ""


def test_a_row_that_is_wrong_is_refused() -> None:
    """A code that occurs twice, an empty cell and other columns are refused (so that the tables cannot rot)."""
    head = "table,make,code,word\n"
    for text in (head + "color,,Red,red\ncolor,,red,blue\n", head + "color,,Red,\n", "table,code\n"):
        with pytest.raises(ValueError, match=r"occurs twice|columns"):
            codes.parse(text)


GAT1400 = {
    "color": "1 black 2 white 3 grey 4 red 5 blue 6 yellow 7 orange 8 brown 9 green 10 purple 11 cyan 12 pink "
    "13 transparent 99 other",
    "heading": "1 90 2 270 3 180 4 0 5 45 6 225 7 135 8 315",
    "gender": "0 unknown 1 male 2 female 9 unstated",
    "info_kind": "0 other 1 automatic 2 manual",
    "status": "1 online 2 offline 9 other",
    "yes": "0 no 1 yes 2 unsure",
    "side": "0 head 1 tail",
    "function": "1 vehicle 2 person 3 mini 4 feature 5 common 6 high_altitude 99 other",
    "image": "01 vehicle_large 02 plate_color 03 plate_binary 04 driver_face 05 codriver_face 06 logo "
    "07 violation_composite 08 passing_composite 09 vehicle_closeup 10 person 11 face 12 nonmotor 13 thing 14 scene "
    "100 general",
    "event": "0 other 1 vehicle_passed 2 person_passed 3 fight 4 running 5 object_moving 6 object_classified "
    "7 color_recognised 8 person_detected 9 person_attributes 10 face_detected 11 face_matched 12 vehicle_detected "
    "13 vehicle_matched 14 flow_counted 15 density_counted 16 plate_recognised 17 vehicle_features "
    "18 vehicle_features 19 line_crossed 20 intrusion 21 wrong_way 22 loitering 23 object_abandoned 24 object_removed",
    "class": "Face face Person person MotorVehicle vehicle NonMotorVehicle nonmotor Thing thing Scene scene",
}


@pytest.mark.parametrize("table", GAT1400)
def test_the_tables_of_gat1400_are_whole(table: str) -> None:
    """Each row of the standard's tables is there with its meaning, and no other."""
    words = GAT1400[table].split()
    expected = {code.casefold(): word for code, word in zip(words[::2], words[1::2], strict=True)}
    assert codes.WORDS[table, "gat1400"] == expected


def test_plate_classes_are_two_digits() -> None:
    """GA 24.7 by number or text, with or without the leading zero; each class has a label."""
    assert codes.plate_class("gat1400", 2) == codes.plate_class("gat1400", "02") == codes.plate_class("gat1400", "2")
    assert {codes.plate_class("gat1400", code) for code in codes.PLATE_CLASSES} == set(codes.PLATE_CLASSES)
    for code, label in {"01": "large", "07": "motorcycle", "16": "training", "22": "temporary", "23": "police",
                        "26": "Hong Kong", "27": "Macau", "31": "armed", "32": "military", "15": "trailer",
                        "51": "new-energy", "52": "new-energy", "99": "other"}.items():  # fmt: skip
        assert label in codes.PLATE_CLASSES[code].label_en
    assert codes.plate_class("gat1400", "33") == ""


@pytest.mark.parametrize(
    ("make", "code", "word"),
    [
        ("onvif", "RuleEngine/LineDetector/Crossed", "line_crossed"),
        ("onvif", "RuleEngine/FieldDetector/ObjectsInside", "field_occupied"),
        ("onvif", "RuleEngine/LoiteringDetector/ObjectIsLoitering", "loitering"),
        ("onvif", "VideoSource/GlobalSceneChange/ImagingService", "scene_change"),
        ("hikvision", "VMD", "motion"),
        ("hikvision", "regionExiting", "field_left"),
        ("hikvision", "fieldDetection", "intrusion"),
        ("dahua", "CrossLineDetection", "line_crossed"),
        ("dahua", "VideoBlind", "tamper"),
        ("frigate", "end", "track_finished"),
        ("gb28181", "5/7", "wrong_way"),
        ("gb28181", "2/1", "video_loss"),
        ("gb28181", "5/77", "video_alarm"),
        ("gb28181", "6", "device_fault"),
        ("gb28181", "8/1", "other"),
        ("gat1400", 21, "wrong_way"),
        ("gat1400", "99999", "other"),
        ("nobody", "x", "other"),
    ],
)
def test_events_of_every_make_are_one_vocabulary(make: str, code: str | int, word: str) -> None:
    """What is the same event has the same word; what no table holds is ``other``."""
    assert codes.event(make, code) == word


@pytest.mark.parametrize(
    ("make", "label", "expected"),
    [
        ("onvif", "Human", (ObjectClass.PERSON, "")),
        ("onvif", "HumanFace", (ObjectClass.FACE, "")),
        ("onvif", "Vehical", (ObjectClass.VEHICLE, "")),
        ("onvif", "Bike", (ObjectClass.NONMOTOR, "")),
        ("axis", "Motorcycle/bicycle", (ObjectClass.NONMOTOR, "")),
        ("axis", "Bus", (ObjectClass.VEHICLE, "bus")),
        ("frigate", "license_plate", (ObjectClass.PLATE, "")),
        ("frigate", "dog", (ObjectClass.ANIMAL, "")),
        ("deepstream", "roadsign", (ObjectClass.THING, "")),
        ("gat1400", "NonMotorVehicle", (ObjectClass.NONMOTOR, "")),
        ("axis", "John Smith", (ObjectClass.OTHER, "")),
    ],
)
def test_labels_become_classes(make: str, label: str, expected: tuple[ObjectClass, str]) -> None:
    """The labels of detectors become our classes, with the kind of vehicle where they name one."""
    assert codes.object_class(make, label) == expected


def test_kinds_of_vehicle() -> None:
    """GA 24.4 by whole code, group or letter; makes by their own words; else empty."""
    read = {code: codes.vehicle("gat1400", code) for code in ("K33", "K11", "K31", "H11", "H31", "M22", "Q11", "Y1")}
    assert read == {"K33": "car", "K11": "bus", "K31": "minibus", "H11": "truck_large", "H31": "truck_small",
                    "M22": "motorcycle", "Q11": "tractor_unit", "Y1": ""}  # fmt: skip
    assert codes.vehicle("hikvision", "SUVMPV") == "suv"
    assert codes.vehicle("dahua", "HeavyTruck") == "truck_large"
    assert codes.vehicle("deepstream", "car") == "car"


def test_colours_and_directions() -> None:
    """By code or by the word of any make; what is in no table is empty or None."""
    assert [codes.color("gat1400", code) for code in (1, "01", "12", 77)] == ["black", "black", "pink", ""]
    assert [codes.color("dahua", name) for name in ("Gray", "ShadowGreen", "Bordeaux")] == ["grey", "green", ""]
    assert [codes.heading("gat1400", code) for code in ("1", 4, "9", "0", "x")] == [90.0, 0.0, None, None, None]


def test_every_word_has_both_labels_and_is_in_use_or_generic() -> None:
    """The vocabulary is closed: each event word is named by a table of some make, or says so here."""
    named = {row["word"] for row in ROWS if row["table"] == "event"}
    generic = {"online"}
    assert set(codes.EVENTS) - named == generic
    assert all(not code.label_zh.isascii() for code in CODES["video_event"].values())


@given(st.text(), st.sampled_from(sorted(MAKES)))
def test_any_text_is_looked_up_without_an_error(text: str, make: str) -> None:
    """Nothing that a sender writes makes the look-ups fail, and what they return is of the tables."""
    assert codes.event(make, text) in codes.EVENTS
    assert codes.object_class(make, text)[0] in ObjectClass
    assert codes.vehicle(make, text) in {"", *codes.VEHICLES}
    assert codes.color(make, text) in {"", *codes.COLORS}
    assert codes.plate_class(make, text) in {"", *codes.PLATE_CLASSES}
    codes.heading(make, text)
