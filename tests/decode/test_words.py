"""Named tables of words, counters and the datum of coordinates, as a profile says them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sensegate.decode import Decoder
from sensegate.decode.words import TABLES
from sensegate.errors import ProfileError
from sensegate.model import Datum, RejectReason
from sensegate.quantities.properties import CODES
from tests.decode.decoding import run, values

Make = Callable[..., Decoder]
RULE = '  - topics: ["acme/{device}"]\n    readings:\n      - '


@pytest.mark.parametrize(
    ("sent", "degrees"),
    [
        ("N", 0.0),
        ("ENE", 67.5),
        ("ssw", 202.5),
        ("北", 0.0),
        ("東", 90.0),
        ("东北偏北", 22.5),
        ("西北風", 315.0),
        ("南西南", 202.5),
    ],
)
def test_a_wind_direction_in_words_becomes_degrees(make: Make, sent: str, degrees: float) -> None:
    """A profile names the table; English, Chinese in both scripts, with and without the word for wind."""
    decoder = make(RULE + "{field: wd, property: wind_direction, words: wind_16}\n")
    assert values(decoder, run(decoder, {"wd": sent})) == {"wd": degrees}


def test_a_word_that_is_not_in_the_table_is_rejected(make: Make) -> None:
    """A calm has no direction: not in the table, so rejected, or named as missing."""
    decoder = make(RULE + "{field: wd, property: wind_direction, words: wind_16}\n")
    assert run(decoder, {"wd": "C"}).rejected[0].reason is RejectReason.ENUMERATION
    decoder = make(RULE + "{field: wd, property: wind_direction, words: wind_16, missing: [C, 静风]}\n")
    assert run(decoder, {"wd": "C"}, {"wd": "静风"}).ignored == 80


@pytest.mark.parametrize(
    ("sent", "expected"), [("ON", 1.0), ("off", 0.0), (True, 1.0), (1, 1.0), ("0", 0.0), ("关", 0.0)]
)
def test_switches_in_all_their_forms(make: Make, sent: object, expected: float) -> None:
    """One table for the words, the numbers and JSON's own true and false."""
    decoder = make(RULE + "{field: s, property: switched_on, words: on_off}\n")
    assert values(decoder, run(decoder, {"s": sent})) == {"s": expected}


def test_a_table_that_is_not_there_names_the_nearest(make: Make) -> None:
    """A misspelt table is an error with the right name; one of the wrong kind of values does not load."""
    with pytest.raises(ProfileError, match=r"words: there is no table of words 'wind16'; did you mean 'wind_16'\?"):
        make(RULE + "{field: wd, property: wind_direction, words: wind16}\n")
    with pytest.raises(ProfileError, match="is a boolean"):
        make(RULE + "{field: wd, property: door_open, words: wind_16}\n")


def test_tables_lead_where_they_say() -> None:
    """No word means two things in a table; texts are codes of a property of that name."""
    for name, table in TABLES.items():
        assert table.label, name
        keys = [(type(sent) is bool, sent) for sent, _ in table.words]
        assert len(set(keys)) == len(keys), name
        texts = {word for _, word in table.words if isinstance(word, str)}
        if texts:
            codes = CODES[name.removesuffix("_number")]
            assert texts <= set(codes), name
    degrees = [word for _, word in TABLES["wind_16"].words]
    assert sorted(set(map(float, degrees))) == [22.5 * at for at in range(16)]


def test_a_counter_says_where_it_ends(make: Make) -> None:
    """The modulus is given as sent and reaches the later stages in the property's unit."""
    decoder = make(
        RULE + "{field: n, property: rainfall_total, scale: 0.2, counter: {modulus: 65536}}\n"
        "      - {field: e, property: energy, unit: W.h, counter: {modulus: 1000000}}\n"
    )
    assert [spec.modulus for spec in decoder.profiles.specs] == [65536 * 0.2, 1000.0]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ("{field: n, property: air_temperature, counter: {modulus: 9}}", "'air_temperature' is not a counter"),
        ("{field: n, property: energy, counter: {modulus: -1}}", "must be 0 or more"),
        ("{field: n, property: energy, scale: -1, counter: {modulus: 9}}", "positive scale"),
        ("{field: n, property: energy, unit_from: {field: u}, counter: {modulus: 9}}", "needs a constant unit"),
        ("{field: n, property: energy, counter: {modulo: 9}}", "did you mean 'modulus'"),
        ("{field: n, property: altitude, datum: gcj02}", "has no datum"),
        ("{field: n, property: longitude, datum: gcj}", "enum"),
    ],
)
def test_what_makes_no_sense_does_not_load(make: Make, reading: str, message: str) -> None:
    """Counters and data belong to properties that have them."""
    with pytest.raises(ProfileError, match=message):
        make(RULE + reading + "\n")


def test_a_datum_reaches_the_later_stages(make: Make) -> None:
    """The datum stands in the spec; it is shifted in `normalise`."""
    decoder = make(
        RULE + "{field: x, property: longitude, datum: bd09}\n      - {field: y, property: latitude, datum: bd09}\n"
    )
    assert {spec.datum for spec in decoder.profiles.specs} == {Datum.BD09}
