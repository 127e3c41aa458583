"""What the grammar can say, each on a small profile of its own."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from sensegate.decode import Decoder
from sensegate.model import IdentityKind, Message, QuarantineReason, RejectReason
from tests.decode.decoding import NOW, run, values

Make = Callable[..., Decoder]


READINGS = "    readings:\n      - {field: a, property: air_temperature}\n"


def test_sentinels_and_nulls_are_ignored_and_counted(make: Make) -> None:
    """A value that means "not measured" is no reading and no rejection."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    readings:\n'
        "      - {field: a, property: air_temperature, missing: [-999, NA]}\n"
        "      - {field: b, property: relative_humidity, text_numbers: true, missing: ['']}\n"
    )
    fields = run(decoder, {"a": -999, "b": "5.5"}, {"a": None, "b": ""}, {"a": "NA", "b": 6})
    assert fields.ignored == 40 * 4
    assert not fields.rejected
    assert values(decoder, fields) == {"b": 5.5}


def test_words_map_each_kind_and_reject_others(make: Make) -> None:
    """Enumerations for numbers, booleans and texts; true and 1 are different words."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    readings:\n'
        "      - {field: n, property: alarm_level, words: {low: 1, high: 3}}\n"
        "      - {field: b, property: cover_open, words: {true: false, no: true}}\n"
        "      - {field: t, property: state, words: {0: idle, 1: busy}}\n"
    )
    fields = run(decoder, {"n": "high", "b": True, "t": 1})
    assert values(decoder, fields) == {"n": 3.0, "b": 0.0, "t": "busy"}
    fields = run(decoder, {"n": "mid", "b": 1, "t": [1]})
    assert [value.reason for value in fields.rejected[:3]] == [
        RejectReason.ENUMERATION,
        RejectReason.ENUMERATION,
        RejectReason.WRONG_TYPE,
    ]


def test_an_object_is_not_null(make: Make) -> None:
    """`where: {x: null}` holds where x is null or not there, not where it is an object or a list."""
    rules = (
        '  - topics: ["acme/{device}"]\n    where: {x: null}\n' + READINGS + ""
        '  - topics: ["acme/{device}"]\n    readings: [{field: a, property: dew_point}]\n'
    )
    machine = make(rules)
    payloads = [{"a": 1}, {"a": 1, "x": None}, {"a": 1, "x": {"y": 1}}, {"a": 1, "x": []}, {"a": 1, "x": 0}]
    fields = run(machine, *payloads)
    properties = [machine.profiles.specs[fields.spec[row]].property for row in range(0, len(fields), 40)]
    assert properties == ["air_temperature", "air_temperature", "dew_point", "dew_point", "dew_point"]
    assert machine.plans.plans


def test_one_value_or_a_list_of_them(make: Make) -> None:
    """`where: {"f[0]": null}` of a reading: a member that is a value on one device and a list on another."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    readings:\n'
        '      - {field: f, property: voltage, where: {"f[0]": null}}\n'
        '      - {field: "f[{channel}]", property: voltage, channels: ["0", "1"]}\n'
    )
    specs = decoder.profiles.specs
    fields = run(decoder, {"f": 230}, {"f": [231, 232]}, {"f": None}, {"f": []}, {"f": {"0": 5}})
    readings = {(specs[fields.spec[row]].channel, float(fields.value[row])) for row in range(len(fields))}
    assert readings == {("", 230), ("0", 231), ("1", 232)}
    assert not [value for value in fields.rejected if value.reason is not RejectReason.WRONG_TYPE]


def test_where_chooses_among_rules_of_one_topic(make: Make) -> None:
    """The first rule whose conditions hold is taken; a message that fits none is refused."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    where: {type: [a, b]}\n' + READINGS + ""
        '  - topics: ["acme/{device}"]\n    where: {type: c, v: 2}\n    readings:\n'
        "      - {field: a, property: relative_humidity}\n"
        '  - topics: ["acme/{device}"]\n    where: {type: quiet}\n    ignore: true\n'
    )
    specs = decoder.profiles.specs
    fields = run(
        decoder, {"type": "b", "a": 1}, {"type": "c", "v": 2, "a": 1}, {"type": "c", "v": 3, "a": 1}, {"type": "quiet"}
    )
    assert [specs[spec].property for spec in (fields.spec[0], fields.spec[-1])] == [
        "air_temperature",
        "relative_humidity",
    ]
    assert len(fields) == 80
    assert {refusal.message // 40 for refusal in fields.quarantined} == {2}
    assert fields.quarantined[0].reason is QuarantineReason.SCHEMA


def test_wrap_puts_the_payload_under_a_part_of_the_topic(make: Make) -> None:
    """One list of readings serves a topic for each component."""
    decoder = make(
        '  - topics: ["acme/{device}/{part}"]\n    wrap: "{part}"\n    readings:\n'
        '      - {field: "s:{channel}.p", channels: ["0", "1"], property: active_power}\n'
    )
    for part, channel in (("s:0", "0"), ("s:1", "1")):
        fields = run(decoder, {"p": 5}, topic=f"acme/d1/{part}")
        assert decoder.profiles.specs[fields.spec[0]].channel == channel
    fields = run(decoder, {"p": 5}, topic="acme/d1/s:2")
    assert fields.quarantined[0].reason is QuarantineReason.NO_VALUES


def test_each_walks_lists_maps_and_single_objects(make: Make) -> None:
    """Elements of a list, values of an object, or the one object that stands there."""
    for each, payload in (
        ("rows", {"rows": [{"a": 1}, {"a": 2}]}),
        ("rows.*", {"rows": {"x": {"a": 1}, "y": {"a": 2}}}),
        ("$.rows", {"rows": [{"a": 1}, {"b": 9}, {"a": 2}]}),
        (".", [{"a": 1}, {"a": 2}]),
    ):
        decoder = make(f'  - topics: ["acme/{{device}}"]\n    each: "{each}"\n' + READINGS)
        fields = run(decoder, payload)
        assert fields.value[:2].tolist() == [1, 2]
        assert len(fields) == 80
    assert run(make('  - topics: ["acme/{device}"]\n    each: "."\n' + READINGS), {"a": 1}).value[0] == 1


def test_devices_named_in_the_payload_belong_to_the_gateway(make: Make) -> None:
    """A gateway speaks for its own devices only; each unknown one costs its own values."""
    decoder = make(
        '  - topics: ["acme/{gateway}"]\n    each: rows\n    device: {field: id, case: lower}\n' + READINGS,
        "l1",
        "l2",
        "off",
        gateway="g1",
        disabled=("off",),
    )
    rows = [{"id": "L1", "a": 1}, {"id": "l2", "a": 2}]
    assert run(decoder, {"rows": rows}, topic="acme/g1").device[:2].tolist() == [0, 1]
    fields = run(decoder, {"rows": [*rows, {"id": "off", "a": 3}, {"id": "x", "a": 4}]}, topic="acme/g1")
    assert len(fields) == 80
    assert {value.reason for value in fields.rejected} == {RejectReason.UNKNOWN_DEVICE}
    assert len(fields.rejected) == 80
    fields = run(decoder, {"rows": [{"id": "off", "a": 3}]}, topic="acme/g1")
    assert {refusal.reason for refusal in fields.quarantined} == {QuarantineReason.DISABLED_DEVICE}
    assert run(decoder, {"rows": rows}, topic="acme/g2").quarantined[0].reason is QuarantineReason.UNKNOWN_DEVICE
    fields = run(decoder, {"rows": rows}, topic="acme/l1")
    assert len(fields) == 40, "a device may speak for itself"
    pushed = Message("http/l1", msgspec.json.encode({"rows": rows}), NOW, 1, principal="l1")
    assert decoder.decode([pushed]).device.tolist() == [0], "by HTTP too"
    pushed = Message("http/g1", msgspec.json.encode({"rows": rows}), NOW, 1, principal="g1")
    assert decoder.decode([pushed]).device.tolist() == [0, 1]
    long = run(decoder, {"rows": [{"id": "x" * 10_000, "a": 3}]}, topic="acme/g1")
    assert {refusal.reason for refusal in long.quarantined} == {QuarantineReason.UNKNOWN_DEVICE}
    fields = run(decoder, {"rows": [{"id": {"no": 1}, "a": 3}]}, topic="acme/g1")
    assert fields.quarantined[0].reason is QuarantineReason.SCHEMA


def test_device_named_by_the_key_of_a_map(make: Make) -> None:
    """``@key`` is the key under which an element stands."""
    decoder = make(
        '  - topics: ["acme/{gateway}"]\n    each: rows.*\n    device: {field: "@key"}\n' + READINGS,
        "l1",
        "l2",
        gateway="g1",
    )
    fields = run(decoder, {"rows": {"l2": {"a": 1}, "l1": {"a": 2}}}, topic="acme/g1")
    assert fields.device[:2].tolist() == [1, 0]


def test_elements_that_name_themselves(make: Make) -> None:
    """Name, value (the first that is there) and unit stand in the element."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    each: "."\n    named: {name: n, value: [v, vb], unit: u}\n    readings:\n'
        "      - {fields: [t, temp], property: air_temperature}\n      - {field: open, property: cover_open}\n"
    )
    fields = run(decoder, [{"n": "t", "v": 70.7, "u": "[degF]"}, {"n": "open", "vb": True}, {"n": "x", "v": 1}])
    assert values(decoder, fields) == {"t": 70.7, "open": 1.0}
    assert len(fields.override_scale) == 40
    assert {value.reason for value in fields.rejected} == {RejectReason.UNKNOWN_PROPERTY}


def test_unit_named_beside_the_value_in_the_devices_words(make: Make) -> None:
    """The profile's words for units are the only ones; where none is named the profile's unit holds."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    readings:\n'
        "      - {field: a, property: air_temperature, unit: Cel, scale: 0.1,"
        " unit_from: {field: U, words: {C: Cel, F: '[degF]'}}}\n"
    )
    fields = run(
        decoder, {"a": 707, "U": "F"}, {"a": 215, "U": "C"}, {"a": 215}, {"a": 215, "U": "K"}, {"a": 1, "U": None}
    )
    assert len(fields.override_scale) == 40
    scale, offset = fields.override_scale[0]
    assert 707 * scale + offset == pytest.approx(21.5)
    assert {value.reason for value in fields.rejected} == {RejectReason.UNKNOWN_UNIT}
    assert len(fields) == 160


def test_identity_falls_to_the_next_that_is_there(make: Make) -> None:
    """Preferred is what `identity` says; an age is no identity, as it changes with each arrival."""
    decoder = make(
        '  - topics: ["acme/{device}"]\n    time: {field: age, format: age_s}\n    sequence: n\n    message_id: id\n'
        "    identity: message_id\n" + READINGS
    )
    specs = decoder.profiles.specs
    for payload, kind in (
        ({"a": 1, "id": "x", "n": 4}, IdentityKind.MESSAGE_ID),
        ({"a": 1, "n": 4.0}, IdentityKind.SEQUENCE),
        ({"a": 1, "n": 4.5}, IdentityKind.NONE),
        ({"a": 1, "n": True}, IdentityKind.NONE),
        ({"a": 1, "n": 10**30}, IdentityKind.NONE),
        ({"a": 1, "age": 5}, IdentityKind.NONE),
    ):
        fields = run(decoder, payload)
        assert {specs[spec].identity for spec in fields.spec} == {kind}
        if kind is IdentityKind.SEQUENCE:
            assert set(fields.key.tolist()) == {4}


def test_way_of_a_message_is_told_by_what_the_profile_names(make: Make) -> None:
    """Two gateways that heard one frame give two ways; topics alone tell them apart otherwise."""
    decoder = make('  - topics: ["acme/{device}", "b/{device}"]\n    path: ["rx[0].gw"]\n' + READINGS)
    fields = run(decoder, {"a": 1, "rx": [{"gw": "g1"}]}, {"a": 1, "rx": [{"gw": "g2"}]}, {"a": 1})
    assert len(set(fields.path.tolist())) == 3
    other = run(decoder, {"a": 1}, topic="b/d1")
    assert other.path[0] not in fields.path


def test_more_elements_than_allowed_are_refused(make: Make) -> None:
    """A message cannot grow into an unbounded number of rows."""
    decoder = make('  - topics: ["acme/{device}"]\n    each: "."\n' + READINGS)
    message = Message("acme/d1", msgspec.json.encode([{"a": 1}] * 5_000), NOW, 1)
    assert decoder.decode([message]).quarantined[0].reason is QuarantineReason.SCHEMA


def test_names_of_a_payload_are_told_in_part(make: Make) -> None:
    """A key as long as the message does not travel on in the counts."""
    decoder = make('  - topics: ["acme/{device}"]\n    standard: values\n')
    fields = run(decoder, {"values": {"x" * 10_000: 1}})
    assert {value.field for value in fields.rejected} == {"x" * 64}
    many = msgspec.json.encode({"values": {f"x{at}": 1 for at in range(9_000)}})
    assert decoder.decode([Message("acme/d1", many, NOW, 1)]).quarantined[0].reason is QuarantineReason.SCHEMA


def test_shapes_without_end_are_not_all_remembered(make: Make) -> None:
    """A device that sends another shape each time does not fill the memory with plans."""
    decoder = make('  - topics: ["acme/{device}"]\n' + READINGS)
    for at in range(200):
        payload = msgspec.json.encode({"a": 1, f"x{at}": at})
        decoder.decode([Message(f"acme/d1", payload, NOW, 1)] * 6)  # noqa: F541 - one topic
    assert len(decoder.plans.plans) <= 32


def test_credential_names_the_device(make: Make) -> None:
    """Where neither topic nor payload names it, the login does."""
    decoder = make('  - topics: ["acme/all"]\n    device: {credential: true}\n' + READINGS, "d1", "d2")
    message = Message("acme/all", b'{"a":1}', NOW, 1, principal="d2")
    assert decoder.decode([message]).device.tolist() == [1]
    nobody = msgspec.structs.replace(message, principal="")
    assert decoder.decode([nobody]).quarantined[0].reason is QuarantineReason.UNKNOWN_DEVICE
