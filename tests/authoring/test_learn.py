"""Learning: recorded messages become a draft that says what was found, what was guessed, and why."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import check_profile
from sensegate.authoring.learn.fields import FieldFacts
from sensegate.authoring.learn.guess import guess, sentinels
from sensegate.authoring.learn.learn import interval_s, learn
from sensegate.authoring.learn.names import matches, unit_of
from sensegate.authoring.learn.shapes import Sample, group, parse_sample
from sensegate.authoring.learn.write import ProfileDraft, draft
from sensegate.authoring.survey import RecordedMessage, draft_of, samples_of, shapes
from sensegate.authoring.yaml_text import as_json, flow_text, plain_text
from sensegate.decode.grammar import parse
from sensegate.decode.profiles import ProfileSet
from sensegate.model import Message

T0 = 1_767_225_600  # 2026-01-01T00:00:00Z
S = 1_000_000


def facts(name: str, *values: Any) -> FieldFacts:
    facts = FieldFacts(tuple(name.split(".")))
    for value in values:
        facts.add(value)
    return facts


def station(at: int, device: str, **more: Any) -> Sample:
    """One message of a station that sends tenths, millivolts, a naive Chinese time and a running number."""
    local = datetime.fromtimestamp(T0 + at * 600 - 2, UTC) + timedelta(hours=8)
    rng = random.Random(f"{at} {device}")
    payload = {
        "devId": device,
        "time": local.strftime("%Y-%m-%d %H:%M:%S"),
        "seq": at,
        "data": {
            "temp": 32767 if at % 17 == 16 else rng.randint(160, 240),
            "hum": round(rng.uniform(40, 90), 1),
            "batV": 3600 - at,
            "door": rng.randint(0, 1),
            "pm25": rng.randint(4, 90),
        },
        "fw": "1.2.3",
        "alarm": rng.choice(["ON", "OFF"]),
        **more,
    }
    return Sample(f"acme/{device}/up", json.dumps(payload).encode(), (T0 + at * 600) * S)


STATION = [station(at, device) for at in range(40) for device in ("acme-0017", "acme-0018", "acme-0023")]


def made(samples: list[Sample], profile: str = "acme/station") -> ProfileDraft:
    draft = draft_of(samples, profile)
    assert draft is not None
    assert draft.problem == ""
    return draft


def problems(tmp_path: Path, draft: ProfileDraft) -> list[str]:
    file = tmp_path / f"{draft.profile}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(draft.text, encoding="utf-8")
    return [str(problem) for problem in check_profile(file)]


def test_a_station_is_understood() -> None:
    """Topic, time with its zone, running number, cadence, tenths, millivolts, a sentinel: found, with reasons."""
    draft = made(STATION)
    source, _ = parse(draft.text)
    rule = source.messages[0]
    assert rule.topics == ("acme/{device}/up",)
    assert rule.time is not None
    assert (rule.time.field, rule.time.format, rule.time.zone) == ("time", "iso", "Asia/Shanghai")
    assert rule.sequence == "seq"
    assert source.interval_s == 600
    rows = {reading.field: reading for reading in rule.readings}
    assert (rows["data.temp"].property, rows["data.temp"].unit, rows["data.temp"].scale) == (
        "air_temperature", "Cel", 0.1,
    )  # fmt: skip
    assert rows["data.temp"].missing == (32767,)
    assert (rows["data.batV"].property, rows["data.batV"].unit) == ("battery_voltage", "mV")
    assert rows["data.hum"].property == "relative_humidity"
    assert rows["data.pm25"].property == "pm2_5"
    assert rows["alarm"].words == "on_off"
    assert rows["data.door"].property == "door_open"
    assert "fits only times 0.1" in draft.text
    assert "which is which is a guess" in draft.text
    assert "2 s from the arrival if it is in Asia/Shanghai" in draft.text
    assert "left out: fw" in draft.text
    assert "devId seems to name the device as well" in draft.text


def test_a_draft_loads_and_its_examples_run(tmp_path: Path) -> None:
    """`check` finds nothing: two examples of what came, one with the sentinel, and a refusal."""
    draft = made(STATION)
    assert problems(tmp_path, draft) == []
    source, _ = parse(draft.text)
    assert [bool(example.refuse) for example in source.examples] == [False, False, True]
    assert source.examples[1].ignored == 1


def test_examples_name_no_device_of_the_city() -> None:
    """The recorded device becomes d1 in the topic."""
    source, _ = parse(made(STATION).text)
    assert {example.topic for example in source.examples} == {"acme/d1/up"}


@pytest.mark.parametrize(
    ("name", "values", "property_", "unit", "scale"),
    [
        ("temperature", [20.5, 21.0, -3.2], "air_temperature", "Cel", 1.0),
        ("temp", [205, 210, -32], "air_temperature", "Cel", 0.1),
        ("tempF", [68.5, 71.2], "air_temperature", "[degF]", 1.0),
        ("temperature", [293.1, 295.4], "air_temperature", "K", 1.0),
        ("soil.temp", [12.5, 13.0], "soil_temperature", "Cel", 1.0),
        ("temp_SOIL", ["24.59", "24.60"], "soil_temperature", "Cel", 1.0),
        ("humidity", [552, 610], "relative_humidity", "%", 0.1),
        ("pressure", [1013.2, 1009.9], "air_pressure", "hPa", 1.0),
        ("pressure", [101325, 100990], "air_pressure", "Pa", 1.0),
        ("pressure", [101.3, 100.9], "air_pressure", "kPa", 1.0),
        ("BatV", [3.61, 3.58], "battery_voltage", "V", 1.0),
        ("battery_voltage", [3610, 3580], "battery_voltage", "mV", 1.0),
        ("battery", [88, 87], "battery_level", "%", 1.0),
        ("battery", [3.6, 3.5], "battery_voltage", "V", 1.0),
        ("battery", [3612, 3580], "battery_voltage", "mV", 1.0),
        ("temperatureBoard", [23, 24], "device_temperature", "Cel", 1.0),
        ("PM25", [35, 60], "pm2_5", "ug/m3", 1.0),
        ("lat", [23124700, 23124800], "latitude", "deg", 1e-6),
        ("lng", [113.3612], "longitude", "deg", 1.0),
        ("conduct_SOIL", [282, 300], "soil_conductivity", "uS/cm", 1.0),
        ("风速", [3.2, 4.0], "wind_speed", "m/s", 1.0),
        ("电池电压", [3.6, 3.5], "battery_voltage", "V", 1.0),
        ("wendu", [25.1], "air_temperature", "Cel", 1.0),
        ("ENERGY.Power", [12, 1500], "active_power", "W", 1.0),
        ("level_cm", [312, 305], "liquid_level", "cm", 1.0),
    ],
)
def test_names_and_values_together_say_what_it_is(
    name: str, values: list[Any], property_: str, unit: str, scale: float
) -> None:
    """English, Chinese, pinyin and abbreviations; the values decide between units and scales."""
    convention = guess(facts(name, *values))
    assert convention is not None
    assert (convention.property, convention.unit, convention.scale) == (property_, unit, scale)
    assert name.rpartition(".")[2] in convention.reason or name in convention.reason


def test_what_fits_nothing_is_left() -> None:
    """No property of such a name, or none that such values could be."""
    assert guess(facts("blorb", 1, 2, 3)) is None
    for name in ("temperatureChanged", "co2threshold", "humidity_calibration", "pressureOffset"):
        assert guess(facts(name, 0, 1, 0)) is None, name
    flagged = guess(facts("temp_alarm", 0, 1))
    assert flagged is not None
    assert flagged.property == "alarm"
    assert guess(facts("latitude", 5e9, 6e9)) is None
    assert guess(facts("temperature", "warm", "cold")) is None


def test_a_unit_that_is_named_is_believed() -> None:
    """What the payload or a document names wins over what is usual; nonsense is not believed."""
    assert guess(facts("temperature", 70.1, 68.0), "°F") == guess(facts("temperature", 70.1, 68.0), "[degF]")
    convention = guess(facts("temperature", 20.0), "bananas")
    assert convention is not None
    assert convention.unit == "Cel"


def test_marks_for_no_value_are_suspected_only_if_they_stand_apart() -> None:
    """85 among 84 and 86 is a temperature; 32767 among 215 is none."""
    assert sentinels(facts("t", 215, 220, 32767, 32767)) == {32767.0}
    assert sentinels(facts("t", 84, 85, 86)) == set()
    assert sentinels(facts("t", 21.5, 22.0, -99.9)) == {-99.9}
    assert sentinels(facts("n", 0, 255, 130, 90)) == set()


def test_alike_members_get_channels(tmp_path: Path) -> None:
    """temp1 and temp2 are two probes, not one reading twice."""
    samples = [
        Sample("acme/d-001/up", json.dumps({"temp1": 20 + at / 10, "temp2": 5 + at / 10}).encode(), (T0 + at) * S)
        for at in range(10)
    ]
    draft = made(samples)
    source, _ = parse(draft.text)
    assert [(reading.field, reading.channel) for reading in source.messages[0].readings] == [
        ("temp1", "1"),
        ("temp2", "2"),
    ]
    assert problems(tmp_path, draft) == []


def test_elements_that_name_themselves(tmp_path: Path) -> None:
    """A list of {name, value, unit} becomes `named`; the unit of each is read from the payload."""
    samples = [
        Sample(
            "acme/gw-0001/report",
            json.dumps(
                {
                    "ts": (T0 + at * 60) * 1000,
                    "list": [
                        {"name": "temperature", "value": 20.0 + at / 10, "unit": "℃"},
                        {"name": "co2", "value": 400 + at, "unit": "ppm"},
                    ],
                }
            ).encode(),
            (T0 + at * 60) * S,
        )
        for at in range(10)
    ]
    draft = made(samples)
    rule = parse(draft.text)[0].messages[0]
    assert rule.each == "list"
    assert rule.named is not None
    assert (rule.named.name, rule.named.value, rule.named.unit) == ("name", ("value",), "unit")
    assert rule.time is not None
    assert (rule.time.field, rule.time.format) == ("$.ts", "epoch_ms")
    assert problems(tmp_path, draft) == []


def test_a_list_of_records(tmp_path: Path) -> None:
    """Records go to their own times; what stands around the list goes once, to the time of the message."""
    records = [{"no": at, "ts": T0 + at * 300, "z": 3.1 + at / 100, "wt": 17.2} for at in range(4)]
    payload = json.dumps({"batt": 12.6, "records": records}).encode()
    draft = made([Sample("acme/gauge-07/records", payload, (T0 + 1000) * S)] * 3)
    rule = parse(draft.text)[0].messages[0]
    assert rule.each == ""
    assert rule.time is not None
    assert rule.time.field == "ts"
    assert ("wt", "records") in {(reading.field, reading.each) for reading in rule.readings} | {
        (item, "records") for item, _ in draft.unrecognised
    }
    assert [reading.each for reading in rule.readings if reading.field == "batt"] == [""]
    assert problems(tmp_path, draft) == []


@pytest.mark.parametrize(
    ("payload", "form"),
    [
        (b'{"a": 1}', "json"),
        (b'[{"bn": "urn:dev:", "n": "t", "u": "Cel", "v": 21.5}]', "senml"),
        (b'{"a": 1}\n{"a": 2}\n', "jsonlines"),
        (b"a=1&b=2", "urlencoded"),
        (b"temp=21.5;hum=60", "keyvalue"),
        (b"weather,site=a temp=21.5,hum=60 1767225600000000000", "influx"),
        (b"<r><t>21.5</t></r>", "xml"),
        (b"21.5", "number"),
        (b"Online", "text"),
        (bytes.fromhex("a2617401617802"), "cbor"),
        (bytes.fromhex("82a17401"), "binary"),
        (bytes.fromhex("ce2900f107a5"), "binary"),
        (b"", "binary"),
    ],
)
def test_the_format_is_recognised(payload: bytes, form: str) -> None:
    """The first format that explains the bytes; what none explains is binary."""
    assert parse_sample(Sample("t", payload)).format == form


def test_bytes_that_nothing_explains_are_described(tmp_path: Path) -> None:
    """A draft of frames says what each byte does; it loads, holds no readings, and asks for the document."""
    frames = [bytes([0xCE, 1, 0x0B, at, 200 + at]) for at in range(20)]
    samples = [
        Sample("x", frame, (T0 + index) * S, carried=True, port=2, maker="a84041") for index, frame in enumerate(frames)
    ]
    draft = draft_of(samples)
    assert draft is not None
    assert draft.problem == ""
    assert draft.profile == "maker-a84041/port-2"
    assert "frames: {ports: [2]}" in draft.text
    assert "byte 0: always 0xce" in draft.text
    assert "byte 3: 0 to 19" in draft.text
    assert all("no example" in problem for problem in problems(tmp_path, draft))


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────


def test_shapes_are_told_apart() -> None:
    """Two makes on one broker are two shapes; a device that leaves members out is no third one."""
    other = [Sample(f"beta/{n:04}/up", b'{"p": 1013.2, "co2": 455}', (T0 + n) * S) for n in range(20)]
    short = [Sample("acme/acme-0017/up", b'{"data": {"temp": 201}}', T0 * S)]
    result = group([*STATION, *other, *short])
    assert [(item.pattern, len(item.messages)) for item in result] == [
        ("acme/{device}/up", 121),
        ("beta/{device}/up", 20),
    ]


def test_topics_that_differ_in_plain_words_are_one_pattern() -> None:
    """Rooms instead of numbers: where three or more topics carry the same, what differs is the device."""
    samples = [
        Sample(f"house/{room}/climate", b'{"temperature": 21, "humidity": 40}', T0 * S)
        for room in ("kitchen", "cellar", "attic")
    ]
    assert [item.pattern for item in group(samples)] == ["house/{device}/climate"]


def test_two_topics_of_one_pattern_are_one_shape() -> None:
    """Two devices whose names do not look like names get one rule, not the same one twice."""
    samples = [Sample(f"ev/c{at % 2}/status", b'{"voltage": 230, "current": 16}', (T0 + at) * S) for at in range(6)]
    assert [(item.pattern, len(item.messages)) for item in group(samples)] == [("ev/{device}/status", 6)]


def test_a_history_told_by_ages_is_left_out() -> None:
    """Values beside it are read once, as those of the message; old ones do not get the time of the message."""
    payload = b'{"temperature": 21.5, "history": [{"age": 60, "temperature": 20.5}, {"age": 120, "temperature": 20.1}]}'
    [shape] = learn([Sample("acme/meter-1/up", payload, (T0 + at) * S) for at in range(4)])
    assert [field.field for field in shape.recognised if not field.guess.fragment] == ["temperature"]
    assert shape.elements is None


def test_a_registered_name_is_the_device() -> None:
    """A level that the registry knows is the device, whatever it looks like."""
    samples = [Sample("city/pump/9012/state", b'{"temperature": 21}', T0 * S)]
    assert group(samples)[0].pattern == "city/pump/{device}/state"
    assert group(samples, frozenset({"pump"}))[0].pattern == "city/{device}/9012/state"


def test_the_shape_keeps_its_id() -> None:
    """More messages of a shape do not make it another one."""
    assert shapes(STATION[:10])[0].id == shapes(STATION)[0].id
    assert interval_s(learn(STATION)[0]) == 600


def test_shapes_of_one_topic_have_ids_of_their_own() -> None:
    """Two kinds of messages on one topic: a draft of one id has the members of that kind, not of both."""
    weather = [Sample(f"gw/{n:04}/up", b'{"temp": 21.5, "hum": 60, "lux": 400}', (T0 + n) * S) for n in range(9)]
    meter = [Sample(f"gw/{n:04}/up", b'{"voltage": 230, "current": 5}', (T0 + n) * S) for n in range(6)]
    short = [Sample("gw/0003/up", b'{"temp": 21.5}', T0 * S)]
    rows = shapes([*weather, *meter])
    assert [(row.pattern, row.messages) for row in rows] == [("gw/{device}/up", 9), ("gw/{device}/up", 6)]
    ids = [row.id for row in rows]
    assert len(set(ids)) == 2
    assert [row.id for row in shapes([*weather[:2], *short, *meter[:5]])] == ids[::-1], "in any number and order"
    drafted = draft_of([*weather, *meter], shape=ids[1])
    assert drafted is not None
    assert "voltage" in drafted.text
    assert "lux" not in drafted.text


CARRIER = """
profile: net/server
version: 1
label: {zh: 网, en: net}
source: this test
messages:
  - topics: ["net/{device}/up"]
    payload: {field: data, encoding: base64, port: fPort}
    sequence: fCnt
"""


def test_frames_are_taken_out_of_known_envelopes(tmp_path: Path) -> None:
    """An unknown device behind a known network server: its frames are grouped by maker and port, not its envelopes."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "server.yaml").write_text(CARRIER, encoding="utf-8")
    profiles = ProfileSet.load([tmp_path])
    lines = [
        RecordedMessage(
            Message(
                "net/a84041000181c061/up",
                json.dumps({"fPort": 2, "fCnt": at, "data": base64.b64encode(bytes([1, at])).decode()}).encode(),
                T0 * S,
                at,
            ),
            "unknown_device",
        )
        for at in range(5)
    ]
    result = shapes(list(samples_of(lines, profiles)))
    assert [(item.name, item.port, item.maker, item.messages) for item in result] == [
        ("maker-a84041/port-2", 2, "a84041", 5)
    ]
    assert result[0].reasons == {"unknown_device": 5}


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
KEYS = st.text(min_size=1, max_size=8)


@given(
    st.recursive(
        SCALARS,
        lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_written_is_read_again_property(value: Any) -> None:
    """A value in flow style, or as JSON, is the same value to the parser of profiles."""
    head = "profile: a/b\nversion: 1\nlabel: {zh: x, en: x}\nsource: s\nmessages: []\nshared: "
    assert parse(f"{head}{flow_text(value)}\n")[0].shared == value
    assert parse(f"{head}{as_json(value)}\n")[0].shared == value


def test_comments_cannot_break_out() -> None:
    """A member whose name holds a line break or a quote stays a comment and a key."""
    wild = 'a"b\n- {field: evil, property: co2}'
    samples = [
        Sample("acme/d-001/up", json.dumps({wild: {"x": [1, 2]}, "co2": 400 + at}).encode(), T0 * S) for at in range(3)
    ]
    draft = made(samples)
    source, _ = parse(draft.text)
    assert [reading.field for reading in source.messages[0].readings] == ["co2"]
    assert plain_text("yes: no") == '"yes: no"'


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=60)), min_size=1, max_size=8))
def test_no_message_breaks_learning_property(messages: list[tuple[str, bytes]]) -> None:
    """Whatever was recorded, a draft comes out, and it loads or says why not."""
    learned = learn([Sample(topic or "t", payload, T0 * S) for topic, payload in messages])
    profile_draft = draft(learned, "acme/x")
    assert profile_draft.text
    if not profile_draft.problem:
        parse(profile_draft.text)


@pytest.mark.parametrize(
    "payload", [b"m" + b",a=1" * 60, b"m" + b",a" * 60, b"m " * 60, b"a=1 " * 60, b"m,a=\\" + b"\\ " * 60]
)
def test_no_line_is_tried_in_every_way(payload: bytes) -> None:
    """Tags without fields: each comma could begin one, and the ways to read them double with each."""
    assert parse_sample(Sample("t", payload)).format in {"text", "keyvalue", "influx"}


def test_rules_of_names_lead_to_properties() -> None:
    """The dictionary knows only properties that there are; the likeliest comes first."""
    assert [match.property for match in matches(("battery", "voltage"))][:1] == ["battery_voltage"]
    assert matches(("data", "PM2.5"))[0].property == "pm2_5"
    assert unit_of("TempC_SHT") == "Cel"
    assert unit_of("temperature") == ""
