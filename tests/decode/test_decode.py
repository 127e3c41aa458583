"""The decoder at its border: what is refused and why, what the two paths have in common."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sensegate.authoring.examples import NamedDevices, readings_of
from sensegate.config import IngestConfig
from sensegate.decode import Decoder, ProfileSet
from sensegate.model import IdentityKind, Message, QuarantineReason, RejectReason
from sensegate.quantities.quality import TimeQuality
from tests.decode.decoding import run, same, values
from tests.support.profiles import Make

NOW = 1_767_225_600_000_000
DEEP = 40


def message(payload: bytes | str, topic: str = "sg/d1/up", principal: str = "") -> Message:
    data = payload if isinstance(payload, bytes) else payload.encode()
    return Message(topic, data, NOW, 1, principal)


REFUSED = [
    (b"", QuarantineReason.MALFORMED),
    (b"   ", QuarantineReason.MALFORMED),
    (b"{", QuarantineReason.MALFORMED),
    (b'{"values":{"air_temperature":1}} x', QuarantineReason.MALFORMED),
    (b'{"values":{"air_temperature":01}}', QuarantineReason.MALFORMED),
    (b'{"values":{"state":"\xff"}}', QuarantineReason.NOT_UTF8),
    (b'\xef\xbb\xbf{"values":{"air_temperature":1}}', QuarantineReason.MALFORMED),
    ('{"values":{"air_temperature":1}}'.encode("utf-16"), QuarantineReason.NOT_UTF8),
    (b'{"values":{"state":"\\ud800"}}', QuarantineReason.MALFORMED),
    (b'{"values":{"state":"a\x01b"}}', QuarantineReason.MALFORMED),
    (b'{"values":{"air_temperature":1,"air_temperature":2}}', QuarantineReason.MALFORMED),
    (b'{"values":{"air_temperature":1},"values":{"air_temperature":2}}', QuarantineReason.MALFORMED),
    (b'{"values":{"air_temperature":' + b"9" * 5_000 + b"}}", QuarantineReason.MALFORMED),
    (b"[" * DEEP + b"]" * DEEP, QuarantineReason.TOO_DEEP),
    (b'{"a":' * DEEP + b"1" + b"}" * DEEP, QuarantineReason.TOO_DEEP),
    (b"[" * 100_000, QuarantineReason.TOO_DEEP),
    (b"1", QuarantineReason.NO_VALUES),
    (b"null", QuarantineReason.NO_VALUES),
    (b"{}", QuarantineReason.NO_VALUES),
    (b'{"values":{}}', QuarantineReason.NO_VALUES),
    (b'{"values":[1,2]}', QuarantineReason.NO_VALUES),
    (b'"' + b"x" * 300_000 + b'"', QuarantineReason.TOO_LARGE),
]


@pytest.mark.parametrize(("payload", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_bad_payload_is_quarantined_for_its_reason(plain: Decoder, payload: bytes, reason: QuarantineReason) -> None:
    """Whatever is not a message of the profile is kept whole, with the reason; alone and among good ones."""
    good = message('{"time":"2026-01-01T00:00:00Z","values":{"air_temperature":21.5}}')
    alone = plain.decode([message(payload)])
    assert [(refusal.message, refusal.reason) for refusal in alone.quarantined] == [(0, reason)]
    batch = [good] * 40 + [message(payload)] + [good] * 40
    for _ in range(2):
        fields = plain.decode(batch)
        assert [(refusal.message, refusal.reason) for refusal in fields.quarantined] == [(40, reason)]
        assert len(fields) == 80


REJECTED = [
    (b'{"values":{"air_temperature":NaN}}', "air_temperature", RejectReason.NOT_FINITE),
    (b'{"values":{"air_temperature":-Infinity}}', "air_temperature", RejectReason.NOT_FINITE),
    (b'{"values":{"air_temperature":1e400}}', "air_temperature", RejectReason.NOT_FINITE),
    (b'{"values":{"air_temperature":1' + b"0" * 400 + b"}}", "air_temperature", RejectReason.NOT_FINITE),
    (b'{"values":{"air_temperature":"21.5"}}', "air_temperature", RejectReason.WRONG_TYPE),
    (b'{"values":{"air_temperature":true}}', "air_temperature", RejectReason.WRONG_TYPE),
    (b'{"values":{"air_temperature":[21.5]}}', "air_temperature", RejectReason.WRONG_TYPE),
    (b'{"values":{"air_temperature":{"x":21.5}}}', "air_temperature", RejectReason.WRONG_TYPE),
    (b'{"values":{"cover_open":2}}', "cover_open", RejectReason.WRONG_TYPE),
    (b'{"values":{"state":5}}', "state", RejectReason.WRONG_TYPE),
    (b'{"values":{"state":"' + b"x" * 2_000 + b'"}}', "state", RejectReason.TOO_LONG),
    (b'{"values":{"air_temprature":1}}', "air_temprature", RejectReason.UNKNOWN_PROPERTY),
    (b'{"values":{"air_temperature":{"v":1,"u":"furlong/fortnight"}}}', "air_temperature", RejectReason.UNKNOWN_UNIT),
    (b'{"values":{"air_temperature":{"v":1,"u":7}}}', "air_temperature", RejectReason.UNKNOWN_UNIT),
    (b'{"values":{"air_temperature":{"v":1,"u":"hPa"}}}', "air_temperature", RejectReason.DIMENSION),
    (b'{"values":{"state":{"v":"on","u":"Cel"}}}', "state", RejectReason.DIMENSION),
    (b'{"time":1e14,"values":{"air_temperature":1}}', "air_temperature", RejectReason.BAD_TIME),
    (b'{"time":"yesterday","values":{"air_temperature":1}}', "air_temperature", RejectReason.BAD_TIME),
    (b'{"time":"2026-02-30T00:00:00Z","values":{"air_temperature":1}}', "air_temperature", RejectReason.BAD_TIME),
    (b'{"time":true,"values":{"air_temperature":1}}', "air_temperature", RejectReason.BAD_TIME),
    (b'{"time":{"s":1},"values":{"air_temperature":1}}', "air_temperature", RejectReason.BAD_TIME),
    (b'{"time":NaN,"values":{"air_temperature":1}}', "air_temperature", RejectReason.BAD_TIME),
]


@pytest.mark.parametrize(("payload", "field", "reason"), REJECTED, ids=lambda value: str(value)[:40])
def test_bad_value_is_rejected_alone(plain: Decoder, payload: bytes, field: str, reason: RejectReason) -> None:
    """One value that cannot be a reading is counted by its reason; the message is not lost for it."""
    for batch in ([message(payload)], [message(payload)] * 20):
        fields = plain.decode(batch)
        assert not fields.quarantined
        assert not len(fields)
        assert [(value.field, value.reason) for value in fields.rejected] == [(field, reason)] * len(batch)


def test_nested_as_deep_as_allowed_is_taken(profiles: ProfileSet) -> None:
    """The limit of nesting is the configured one, and brackets inside text do not count."""
    devices = NamedDevices(["d1"], "sensegate/plain")
    decoder = Decoder(profiles, devices, IngestConfig(nesting_max=2))
    text = '{"values":{"state":"' + "[" * 50 + '"}}'
    assert len(decoder.decode([message(text)])) == 1
    fields = decoder.decode([message('{"values":{"air_temperature":{"v":1}}}')])
    assert fields.quarantined[0].reason is QuarantineReason.TOO_DEEP


def test_topics_and_devices_are_told_apart(profiles: ProfileSet) -> None:
    """Unknown topic, unknown device, disabled device, and a device that speaks another profile's layout."""
    devices = NamedDevices(["d1", "off"], "sensegate/plain", disabled=["off"])
    decoder = Decoder(profiles, devices)
    good = '{"values":{"air_temperature":1}}'
    topics = ["any/thing", "sg/nobody/up", "sg/off/up", "citysense/parking/d1", "sg/d1/up"]
    for times in (1, 10):
        fields = decoder.decode([message(good, topic) for topic in topics] * times)
        assert [refusal.reason for refusal in fields.quarantined[:4]] == [
            QuarantineReason.NO_PROFILE,
            QuarantineReason.UNKNOWN_DEVICE,
            QuarantineReason.DISABLED_DEVICE,
            QuarantineReason.FOREIGN_TOPIC,
        ]
        assert len(fields) == times
    assert fields.quarantined[2].device == 1


def test_message_by_http_belongs_to_its_credential(profiles: ProfileSet) -> None:
    """A device pushes for itself, a gateway for its devices; nobody for others."""
    devices = NamedDevices(["d1", "d2"], "sensegate/plain", gateway="g1")
    decoder = Decoder(profiles, devices)
    good = '{"values":{"air_temperature":1}}'
    sent = [("d1", "d1"), ("d1", "g1"), ("d1", "d2"), ("nobody", "g1")]
    fields = decoder.decode([message(good, f"http/{device}", principal) for device, principal in sent])
    assert fields.message.tolist() == [0, 1]
    assert [refusal.reason for refusal in fields.quarantined] == [
        QuarantineReason.FOREIGN_TOPIC,
        QuarantineReason.UNKNOWN_DEVICE,
    ]


def test_times_and_identities_of_the_plain_layout(plain: Decoder, profiles: ProfileSet) -> None:
    """Time identifies; without it the sequence number; without both nothing does, and that is said."""
    rest = '"values":{"air_temperature":1}}'
    fields = plain.decode(
        [
            message('{"time":"2026-01-01T08:00:00+08:00","seq":1,' + rest),
            message('{"time":"2026-01-01T08:00:00",' + rest),
            message('{"time":1767225600.5,' + rest),
            message('{"time":1767225600500,' + rest),
            message('{"seq":7,' + rest),
            message("{" + rest),
            message('{"time":null,' + rest),
        ]
    )
    assert (fields.time - NOW).tolist() == [0, 0, 500_000, 500_000, 0, 0, 0]
    assert fields.time_quality.tolist() == [
        TimeQuality.DEVICE,
        TimeQuality.ASSUMED_ZONE,
        TimeQuality.DEVICE,
        TimeQuality.DEVICE,
        *[TimeQuality.RECEIVED] * 3,
    ]
    kinds = [profiles.specs[spec].identity for spec in fields.spec.tolist()]
    assert kinds == [*[IdentityKind.TIME] * 4, IdentityKind.SEQUENCE, IdentityKind.NONE, IdentityKind.NONE]
    assert fields.key.tolist() == [NOW, NOW, NOW + 500_000, NOW + 500_000, 7, NOW, NOW]


def test_units_of_the_payload_replace_those_of_the_profile(plain: Decoder, profiles: ProfileSet) -> None:
    """A value may name its unit; the same text of unit costs the library one question only."""
    text = '{"values":{"air_temperature":{"v":%s,"u":"[degF]"},"relative_humidity":{"v":60,"u":"%%"}}}'
    messages = [message(text % (70.7 + at)) for at in range(20)]
    for _ in range(2):
        fields = plain.decode(messages)
        readings = readings_of(fields, profiles.specs, [f"d{at}" for at in range(10)])
        values = [reading.value for reading in readings]
        assert values[0] == pytest.approx(21.5)
        assert values[2] == pytest.approx(21.5 + 5 / 9)
        assert values[1] == 60
        assert sorted(fields.override_scale) == list(range(0, 40, 2))


def test_a_change_of_the_registry_is_seen_in_the_next_batch(profiles: ProfileSet) -> None:
    """What was remembered of a topic is forgotten when the registry's version rises."""
    devices = NamedDevices(["d1"], "sensegate/plain")
    decoder = Decoder(profiles, devices)
    sent = [message('{"values":{"air_temperature":1}}', "sg/d2/up")]
    assert decoder.decode(sent).quarantined
    devices._records.append(devices._records[0])
    devices._index["d2"] = 1
    devices.enabled = np.array([True, True])
    devices.version += 1
    assert len(decoder.decode(sent)) == 1
    devices.enabled[1] = False
    assert decoder.decode(sent).quarantined[0].reason is QuarantineReason.DISABLED_DEVICE


def test_a_duplicate_key_is_caught_on_the_quick_path_too(plain: Decoder) -> None:
    """Msgspec lets duplicates pass; the count of quotation marks does not, however the key is written."""
    good = message('{"time":"2026-01-01T00:00:00Z","values":{"air_temperature":1,"pm10":2}}')
    twice = message('{"time":"2026-01-01T00:00:00Z","values":{"air_temperature":1,"pm10" :2,"pm10":3}}')
    escaped = message('{"time":"2026-01-01T00:00:00Z","values":{"air_temperature":1,"pm10":2,"pm\\u0031\\u0030":3}}')
    plain.decode([good] * 50)
    assert plain.plans.plans
    fields = plain.decode([good] * 20 + [twice, escaped] + [good] * 20)
    assert [refusal.message for refusal in fields.quarantined] == [20, 21]
    assert len(fields) == 80


def test_rows_stand_in_the_order_of_the_messages(plain: Decoder) -> None:
    """Messages of several shapes, in turn: rows by message, each message's in its own order."""
    shapes = [
        '{"values":{"air_temperature":%d,"pm10":1}}',
        '{"values":{"pm10":%d},"seq":1}',
        '{"values":{"state":"s%d"}}',
    ]
    messages = [message(shapes[at % 3] % at, f"sg/d{at % 10}/up") for at in range(300)]
    plain.decode(messages)
    fields = plain.decode(messages)
    assert np.all(np.diff(fields.message) >= 0)
    assert {row: text for row, text in fields.text.items() if text != f"s{fields.message[row]}"} == {}
    same(fields, plain.decode_row_by_row(messages))


@pytest.mark.parametrize(
    "members",
    [
        '"a":1.5,"b":2,"c":3',
        '"c":3,"b":2,"a":-1',
        '"a":1.5,"b":2,"c":3,"d":{}',
        '"a":1.5,"b":2,"c":3,"d":[]',
        '"a":1.5,"b":2,"c":3,"d":"word"',
        '"a":1.5,"b":2,"c":{"x":3}',
        '"b":2,"c":3',
        '"c":3',
    ],
)
def test_members_of_one_object_are_not_confused(make: Make, members: str) -> None:
    """The readings of a profile are in another order than the members, which may stand beside others."""
    decoder = make("""
  - topics: ["acme/{device}"]
    readings:
      - {field: v.c, property: pm10}
      - {field: v.a, property: air_temperature, missing: [-1]}
      - {field: v.b, property: pm2_5}
""")
    payloads = [b'{"v":{%b},"n":%d}' % (members.encode(), number) for number in range(3)]
    fields = run(decoder, *payloads)
    messages = [Message("acme/d1", payload, NOW, 1) for payload in payloads for _ in range(40)]
    same(fields, decoder.decode_row_by_row(messages))
    sent = json.loads(f"{{{members}}}")
    assert values(decoder, fields) == {
        f"v.{name}": sent[name] for name in "abc" if isinstance(sent.get(name), int | float) and sent[name] != -1
    }


def test_an_empty_batch_gives_empty_columns(plain: Decoder) -> None:
    """No messages, no rows, and the types are those of every batch."""
    fields = plain.decode([])
    assert len(fields) == 0
    assert fields.value.dtype == np.float64
    assert fields.key.dtype == np.int64


def test_another_set_of_profiles_is_in_force_from_the_next_batch_on(plain: Decoder) -> None:
    """`set_profiles` changes the profiles without forgetting anything that was committed."""
    sent = [message('{"values":{"air_temperature":1}}')]
    assert len(plain.decode(sent)) == 1
    plain.set_profiles(ProfileSet([], plain.profiles.specs))
    assert plain.decode(sent).quarantined[0].reason is QuarantineReason.NO_PROFILE


def test_a_device_that_runs_wild_is_held_to_its_rate(profiles: ProfileSet) -> None:
    """What is too many in a minute goes to quarantine as `rate`, whole; another device is not touched."""
    decoder = Decoder(profiles, NamedDevices(["d1", "d2"], "sensegate/plain"), IngestConfig(rate_per_device_s=0.2))
    wild = [message(f'{{"seq":{at},"values":{{"air_temperature":{at}}}}}') for at in range(20)]
    fields = decoder.decode([*wild, message('{"values":{"air_temperature":1}}', "sg/d2/up")])
    assert [(refusal.message, refusal.reason) for refusal in fields.quarantined] == [
        (at, QuarantineReason.RATE) for at in range(12, 20)
    ]
    assert sorted(set(fields.message.tolist())) == [*range(12), 20]
