"""Payloads for the maker of a device keep their form and lose whatever may name a person or a place."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authoring.payload_redaction import Redactor

PROFILE = """\
profile: maker/one
format: json
properties:
  air_temperature:
    field: values.temp
    unit: Cel
frame: data
"""


def redacted(payload: object, profile: str = PROFILE) -> object:
    """Return a JSON payload after redaction."""
    return json.loads(Redactor(profile).payload(json.dumps(payload).encode()))


def test_form_and_numbers_stay() -> None:
    """Field names, numbers, truth values, times and the words of the profile are what the maker needs."""
    payload = {"values": {"temp": 21.5, "new_field": -3}, "unit": "Cel", "ok": True, "none": None, "list": [1, 2.5]}
    times = {"at": "2026-01-02T03:04:05Z", "ts": 1_767_322_245_000, "s": 1_767_322_245, "n": "12.5"}
    assert redacted({**payload, **times}) == {**payload, **times}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"owner": "张三"}, {"owner": "<text of 2>"}),
        ({"user": "zhangsan"}, {"user": "<text of 8>"}),
        ({"tel": 13812345678}, {"tel": 99999999999}),
        ({"tel": "13812345678"}, {"tel": "99999999999"}),
        ({"card": "44010619900101123X"}, {"card": "<text of 18>"}),
        ({"lon": 113.26543, "lat": 23.12911}, {"lon": 113.3, "lat": 23.1}),
        ({"gps_position": [113.26543, "23.12911"]}, {"gps_position": [113.3, "23.1"]}),
        ({"天河路1号": 1}, {"<text of 5>": 1}),
        ({"data": base64.b64encode("13812345678 张三".encode()).decode()}, {"data": "<text of 24>"}),
        ({"data": "0a1b2c3d4e5f"}, {"data": "0a1b2c3d4e5f"}),
        ({"other": "0a1b2c3d4e5f"}, {"other": "<text of 12>"}),
    ],
)
def test_what_may_name_somebody_goes(payload: object, expected: object) -> None:
    """Names, telephones, identity cards, places: in values, in keys, in texts that hold texts."""
    assert redacted(payload) == expected


def test_devices_have_one_pseudonym() -> None:
    """Wherever an id stands, it becomes the same word; another device becomes another."""
    redactor = Redactor(PROFILE)
    assert redactor.pseudonym("water-17", "gw-3") == redactor.pseudonym("gw-3") == "device-1"
    assert redactor.pseudonym("water-18") == "device-2"
    assert redactor.topic("v1/water-17/telemetry/water-18") == "v1/device-1/telemetry/device-2"
    assert redactor.topic("v1/天河路/x") == "v1/<text of 3>/x"
    assert redactor.payload(b'{"id": "water-18"}') == b'{"id":"device-2"}'


def test_frames_of_positions_are_cut() -> None:
    """A frame that is no text stays where no position is read; of others only the beginning does."""
    frame = bytes(range(128, 188))
    assert Redactor(PROFILE).payload(frame) == frame
    assert Redactor(PROFILE + "location:\n  lat: lat\n").payload(frame) == frame[:16]


def test_plain_text_is_read_word_by_word() -> None:
    """Of lines that are no JSON the same words stay."""
    assert Redactor(PROFILE).payload("temp=21.5,Cel,张三".encode()) == b"temp=21.5,Cel,<text of 2>"


@given(
    st.recursive(
        st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
def test_no_text_of_others_is_left(payload: object) -> None:
    """Whatever is sent, the answer is JSON again, and no letter outside ASCII is in it."""
    text = Redactor(PROFILE).payload(json.dumps(payload).encode()).decode()
    json.loads(text)
    assert text.isascii()


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(payload: bytes) -> None:
    """Nothing makes redaction fail, and no answer is longer by more than the marks."""
    assert len(Redactor(PROFILE).payload(payload)) <= 20 * len(payload) + 20
