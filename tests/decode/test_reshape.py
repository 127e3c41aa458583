"""What is done to a tree before its rule looks at it: text inside text, arrays without names, character sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sensegate.decode import Decoder
from sensegate.errors import ProfileError
from sensegate.model import Message, QuarantineReason
from tests.decode.decoding import NOW, all_values, run, same, values

Make = Callable[..., Decoder]
HEAD = '  - topics: ["acme/{device}"]\n'
READINGS = (
    "    readings:\n      - {field: t, property: air_temperature}\n      - {field: h, property: relative_humidity}\n"
)


def test_text_inside_is_parsed_where_it_stands(make: Make) -> None:
    """JSON in JSON, twice over, and pairs in JSON; what is an object already stays one."""
    decoder = make(
        HEAD + '    unpack: {data: json, "data.deep": json, note: keyvalue}\n    readings:\n'
        "      - {field: data.t, property: air_temperature}\n"
        "      - {field: data.deep.h, property: relative_humidity}\n"
        "      - {field: note.p, property: air_pressure, text_numbers: true}\n"
    )
    inner = json.dumps({"t": 21.5, "deep": json.dumps({"h": 60})})
    expected = {"data.t": 21.5, "data.deep.h": 60.0, "note.p": 1013.0}
    assert values(decoder, run(decoder, {"data": inner, "note": "p=1013;q=x"})) == expected
    assert values(decoder, run(decoder, {"data": {"t": 21.5, "deep": {"h": 60}}, "note": {"p": 1013}})) == expected


def test_text_of_every_element_is_parsed(make: Make) -> None:
    """The step * stands for every member of a list or an object."""
    decoder = make(
        HEAD + '    unpack: {"list.*.body": json, "map.*": json}\n    each: list\n' + READINGS.replace("t,", "body.t,")
    )
    message = {"list": [{"body": '{"t":1}', "h": 2}, {"body": '{"t":3}'}], "map": {"a": "[1]"}}
    assert all_values(decoder, run(decoder, message)) == [("body.t", 1.0), ("h", 2.0), ("body.t", 3.0)]


def test_text_that_is_not_of_its_format_is_refused(make: Make) -> None:
    """What cannot be parsed inside takes the message with it; what is not there does not."""
    decoder = make(HEAD + "    unpack: {data: json}\n" + READINGS.replace("t,", "data.t,"))
    assert run(decoder, {"data": "{"}).quarantined[0].reason == QuarantineReason.MALFORMED
    assert run(decoder, {"data": "[" * 40 + "]" * 40}).quarantined[0].reason == QuarantineReason.TOO_DEEP
    assert values(decoder, run(decoder, {"h": 5})) == {"h": 5.0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{rows: data, names: [t, '', h]}", {"data": [[1, 0, 2], [3, 0, 4]]}),
        ("{rows: data, names: columns}", {"columns": ["t", "h"], "data": [[1, 2], [3, 4]]}),
        ("{rows: data, names: $.meta.columns}", {"meta": {"columns": ["h", "x", "t"]}, "data": [[2, 9, 1], [4, 9, 3]]}),
        ("{columns: data}", {"data": {"t": [1, 3], "h": [2, 4], "x": ["a", "b"]}}),
    ],
)
def test_arrays_without_names_become_objects(make: Make, table: str, message: Any) -> None:
    """Names from the profile or from the payload, rows or columns."""
    decoder = make(HEAD + f"    table: {table}\n    each: data\n" + READINGS)
    fields = run(decoder, message)
    assert sorted(all_values(decoder, fields)) == [("h", 2.0), ("h", 4.0), ("t", 1.0), ("t", 3.0)]
    assert not decoder.plans.plans  # a plan would look at the bytes


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{rows: data, names: [t, h]}", {"data": [[1, 2], [3]]}),
        ("{rows: data, names: [t, h]}", {"data": [[1, 2, 3]]}),
        ("{rows: data, names: [t, h]}", {"data": [{"t": 1}]}),
        ("{rows: data, names: [t, h]}", {"data": 5}),
        ("{rows: data, names: columns}", {"data": [[1]], "columns": [1]}),
        ("{rows: data, names: columns}", {"data": [[1, 2]], "columns": ["t", "t"]}),
        ("{columns: data}", {"data": {"t": [1], "h": [1, 2]}}),
        ("{columns: data}", {"data": {"t": 1}}),
    ],
)
def test_arrays_that_do_not_fit_their_names_are_refused(make: Make, table: str, message: Any) -> None:
    """No value may come to stand under another's name."""
    decoder = make(HEAD + f"    table: {table}\n    each: data\n" + READINGS)
    assert run(decoder, message).quarantined[0].reason == QuarantineReason.SCHEMA


def test_a_table_that_is_not_there_stays_so(make: Make) -> None:
    """Other messages of the topic are decoded as they are: the rule's paths find something, or nothing."""
    for table in ("{rows: data, names: columns}", "{columns: data}"):
        decoder = make(HEAD + f"    table: {table}\n" + READINGS)
        assert values(decoder, run(decoder, {"t": 1, "columns": []})) == {"t": 1.0}
        assert run(decoder, {"x": 1}).quarantined


def test_text_in_the_character_set_of_the_rule(make: Make) -> None:
    """A word in GBK is the word; no plan is learned from bytes that are not UTF-8."""
    decoder = make(
        HEAD + "    charset: gbk\n    readings:\n      - {field: 状态, property: state}\n"
        "      - {field: t, property: air_temperature}\n"
    )
    payload = '{"状态":"正常","t":21.5}'.encode("gbk")
    assert values(decoder, run(decoder, payload)) == {"状态": "正常", "t": 21.5}
    assert not decoder.plans.plans


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("    unpack: {data: jsn}\n", r"x\.yaml:7: messages\[0\]\.unpack\.data: unknown format 'jsn'"),
        ("    table: {rows: data}\n", r"messages\[0\]\.table: give `rows` and `names`, or `columns`"),
        ("    table: {rows: a, names: [b], columns: c}\n", "give `rows` and `names`, or `columns`"),
        ("    format: cbor\n    charset: gbk\n", "'cbor' is not a text format; remove `charset`"),
        ("    charset: gbq\n", "Invalid enum value 'gbq'"),
        ("    csv: {delimiter: '::'}\n", r"messages\[0\]\.csv\.delimiter: must be one character"),
        ("    csv: {delimeter: ';'}\n", r"messages\[0\]\.csv\.delimeter: unknown key; did you mean 'delimiter'\?"),
        ("    csv: {}\n    format: json\n", r"messages\[0\]\.csv: the format is 'json'; remove `csv`"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_named_with_its_line(make: Make, rule: str, error: str) -> None:
    """File, line, key, and the nearest right word."""
    with pytest.raises(ProfileError, match=error):
        make(HEAD + rule + READINGS)


def test_both_paths_agree_where_the_tree_is_changed(make: Make) -> None:
    """Many messages at once give what each gives by itself."""
    decoder = make(HEAD + "    unpack: {data: json}\n    table: {columns: data}\n    each: data\n" + READINGS)
    payload = {"data": '{"t":[1,2],"h":[3,null]}'}
    fields = run(decoder, payload)
    assert fields.ignored == 40
    messages = [Message("acme/d1", json.dumps(payload).encode(), NOW, 1)] * 40
    same(decoder.decode(messages), decoder.decode_row_by_row(messages))
