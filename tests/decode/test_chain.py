"""A network server's envelope, and the device's own profile for the frame in it."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import ExampleReading, check_profile, parse_micros, readings_of
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.envelope import frame_key
from sensegate.decode.extract import DecodedRows
from sensegate.decode.profile import UnitConversions
from sensegate.errors import ProfileError
from sensegate.model import BOOL, Device, Downsampled, Fields, IdentityKind, Message, QuarantineReason, RejectReason
from sensegate.quantities.quality import TimeQuality

NOW = parse_micros("2026-01-01T00:00:09Z")
HEARD = "2026-01-01T00:00:00Z"
HEAD = "version: 1\nlabel: {zh: x, en: x}\nsource: this test\nmessages:\n"

NETWORK = """
  - topics: ["ns/{device}/up", "any/{gateway}/up"]
    payload: {field: data, encoding: base64, port: port}
    device: {field: eui, case: lower}
    time: {field: time}
    sequence: count
    readings:
      - {field: object.t, property: air_temperature}
  - topics: ["ns/{device}/up", "any/{gateway}/up"]
    device: {field: eui, case: lower}
    beside: true
    time: {field: time}
    readings:
      - {field: rssi, property: rssi, channel: ns}
  - topics: ["ns/{device}/join"]
    ignore: true
"""
OTHER = """
  - topics: ["other/{device}"]
    payload: {field: hex, encoding: hex, port: p}
    time: {field: t, format: epoch_ms}
    sequence: n
"""
BATCH = """
  - topics: ["batch/{gateway}"]
    each: frames
    payload: {field: data, encoding: hex, port: p}
    device: {field: eui}
    sequence: n
"""
PROBE = """
  - frames: {ports: [2]}
    binary:
      read: [{name: t, type: s16}]
    readings:
      - {field: t, property: air_temperature, scale: 0.1, missing: [32767]}
  - frames: {ports: [3]}
    binary:
      read: [{name: at, type: u32}, {name: t, type: s16}]
    time: {field: at, format: epoch_s}
    readings:
      - {field: t, property: air_temperature, scale: 0.1}
  - frames: {ports: [4]}
    binary:
      read:
        - {repeat: end, name: log, read: [{name: age, type: u8}, {name: t, type: s16}]}
    each: log
    time: {field: age, format: age_s}
    readings:
      - {field: t, property: air_temperature, scale: 0.1}
  - frames: {ports: [5]}
    ignore: true
"""
PLAIN = """
  - topics: ["plain/{device}"]
    readings: [{field: t, property: air_temperature}]
"""


class Registry:
    """Devices by id and alias."""

    version = 1

    def __init__(self, *devices: Device) -> None:
        self._devices = devices
        self._at = {name: index for index, item in enumerate(devices) for name in (item.id, item.alias) if name}
        self.enabled: BOOL = np.ones(len(devices), np.bool_)

    def find(self, name: str, /) -> int:
        return self._at.get(name, -1)

    def record(self, index: int, /) -> Device:
        return self._devices[index]

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self._devices]


def device(name: str, profile: str, gateway: str = "", alias: str = "") -> Device:
    return Device(id=name, division="440106", profile=profile, gateway=gateway, alias=alias)


DEVICES = (
    device("probe", "acme/probe", "server", alias="70b3d5e7a0000109"),
    device("server", "net/work"),
    device("decoded", "net/work"),
    device("plain", "acme/plain"),
    device("stranger", "acme/probe", "elsewhere", alias="ff"),
)


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> ProfileSet:
    """Network servers and devices made up for this test."""
    folder = tmp_path_factory.mktemp("profiles")
    made = {"net/work": NETWORK, "net/other": OTHER, "net/batch": BATCH, "acme/probe": PROBE, "acme/plain": PLAIN}
    for name, messages in made.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"profile: {name}\n{HEAD}{messages}", encoding="utf-8")
    return ProfileSet.load([folder])


@pytest.fixture
def decoder(profiles: ProfileSet) -> Decoder:
    """A decoder that knows the devices of this test."""
    return Decoder(profiles, Registry(*DEVICES))


def envelope(data: object, port: int | None = 2, **more: Any) -> dict[str, Any]:
    """Return what the network server of this test sends; bytes in base64, anything else as it is."""
    sent = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    tree = {"eui": "70B3D5E7A0000109", "data": sent, "time": HEARD, "count": 7, **more}
    return tree if port is None else {**tree, "port": port}


def run(decoder: Decoder, tree: Any, topic: str = "ns/probe/up", principal: str = "") -> Fields:
    payload = tree if isinstance(tree, bytes) else msgspec.json.encode(tree)
    return decoder.decode([Message(topic, payload, NOW, 1, principal=principal)])


def readings_of_batch(decoder: Decoder, fields: Fields) -> list[ExampleReading]:
    return readings_of(fields, decoder.profiles.specs, Registry(*DEVICES).ids)


def key(fields: Fields, row: int = 0) -> int:
    return int(fields.key[row])


# ── decoding ─────────────────────────────────────────────────────────────────────────────────────────


def test_frame_is_decoded_by_the_profile_of_its_device(decoder: Decoder) -> None:
    """Values by the device's profile; time and identity by the envelope; link values beside them."""
    fields = run(decoder, envelope(b"\x00\xd7", rssi=-91))
    assert [
        (reading.device, reading.property, reading.value, reading.time)
        for reading in readings_of_batch(decoder, fields)
    ] == [
        ("probe", "air_temperature", 21.5, parse_micros(HEARD)),
        ("probe", "rssi", -91, parse_micros(HEARD)),
    ]
    specs = [decoder.profiles.specs[spec_index] for spec_index in fields.spec]
    assert [spec.profile for spec in specs] == ["acme/probe@1", "net/work@1"]
    assert [spec.identity for spec in specs] == [IdentityKind.FRAME, IdentityKind.TIME]
    assert [TimeQuality(int(quality)) for quality in fields.time_quality] == [TimeQuality.DEVICE] * 2
    assert key(fields) == frame_key(7, b"\x00\xd7", 0)


def test_payload_names_the_device_where_the_topic_names_its_gateway(decoder: Decoder) -> None:
    """By MQTT with the gateway in the topic, and by HTTP; letters are changed as the profile says."""
    for topic, principal in (("any/server/up", ""), ("http/server", "server")):
        fields = run(decoder, envelope(b"\x00\xd7", rssi=-91), topic, principal)
        assert [reading.device for reading in readings_of_batch(decoder, fields)] == ["probe", "probe"]
    fields = run(decoder, envelope(b"\x00\xd7", eui="ff"), "any/server/up")
    assert fields.quarantined[0].reason is QuarantineReason.FOREIGN_TOPIC
    fields = run(decoder, envelope(b"\x00\xd7", eui="nobody"), "any/server/up")
    assert fields.quarantined[0].reason is QuarantineReason.UNKNOWN_DEVICE


def test_device_registered_with_the_servers_profile_has_its_decoded_object(decoder: Decoder) -> None:
    """Without a chain, by either path, with the same identity by frame."""
    tree = envelope(b"\x00\xd7", object={"t": 21.5}, rssi=-91)
    fields = run(decoder, tree, "ns/decoded/up")
    assert [(reading.device, reading.property, reading.value) for reading in readings_of_batch(decoder, fields)] == [
        ("decoded", "air_temperature", 21.5)
    ]
    assert key(fields) == frame_key(7, b"\x00\xd7", 0)
    messages = [Message("ns/decoded/up", msgspec.json.encode({**tree, "count": count}), NOW, 1) for count in range(40)]
    decoder.decode(messages)
    quick, slow = decoder.decode(messages), decoder.decode_row_by_row(messages)
    assert decoder.plans.plans
    assert quick.key.tolist() == slow.key.tolist()
    assert quick.spec.tolist() == slow.spec.tolist()
    fields = run(decoder, envelope(b"\x00\xd7", object={"t": 21.5}), "any/server/up")
    assert fields.quarantined == []  # the probe's frame, not the object


def test_plan_of_one_device_is_not_taken_for_another(decoder: Decoder) -> None:
    """A quick path learned from decoded objects does not swallow frames that have a profile of their own."""
    tree = envelope(b"\x00\xd7", object={"t": 99.0}, rssi=-91)
    own = [Message("ns/decoded/up", msgspec.json.encode(tree), NOW, 1)] * 40
    carried = [Message("ns/probe/up", msgspec.json.encode(tree), NOW, 1)] * 40
    for _ in range(2):
        fields = decoder.decode([*own, *carried])
    assert {(reading.device, reading.property, reading.value) for reading in readings_of_batch(decoder, fields)} == {
        ("decoded", "air_temperature", 99.0),
        ("probe", "air_temperature", 21.5),
        ("probe", "rssi", -91),
    }


def test_time_of_the_frame_wins(decoder: Decoder) -> None:
    """A frame with a time of its own has it, and is known by it; the envelope's counter does not matter."""
    data = (1_767_225_000).to_bytes(4, "big") + b"\x00\xd7"
    fields = run(decoder, envelope(data, 3))
    assert readings_of_batch(decoder, fields)[0].time == 1_767_225_000_000_000
    assert decoder.profiles.specs[fields.spec[0]].identity is IdentityKind.TIME


def test_ages_count_from_the_reception(decoder: Decoder) -> None:
    """Samples kept by the device are dated back from when the frame was heard; each has an identity of its own."""
    fields = run(decoder, envelope(b"\x00\x00\xd7\x3c\x00\xd7", 4))
    assert [reading.time for reading in readings_of_batch(decoder, fields)] == [
        parse_micros(HEARD),
        parse_micros(HEARD) - 60_000_000,
    ]
    assert [decoder.profiles.specs[spec_index].identity for spec_index in fields.spec] == [IdentityKind.FRAME] * 2
    assert len(set(fields.key.tolist())) == 2


def test_missing_value_and_ignored_port(decoder: Decoder) -> None:
    """A sentinel counts as not measured; a port without readings and an empty frame are known."""
    fields = run(decoder, envelope(b"\x7f\xff"))
    assert (len(fields), fields.ignored, fields.quarantined) == (0, 1, [])
    for tree in (envelope(b"\x01", 5), envelope(b"")):
        fields = run(decoder, tree)
        assert (len(fields), fields.quarantined, fields.rejected) == (0, [], [])


@pytest.mark.parametrize(
    ("tree", "reason", "profile"),
    [
        (envelope(b"\x00\xd7", 9), QuarantineReason.SCHEMA, "acme/probe@1"),  # a port that the device does not use
        (envelope(b"\x00"), QuarantineReason.MALFORMED, "acme/probe@1"),  # cut short
        (envelope(b"\x00\xd7\x00"), QuarantineReason.MALFORMED, "acme/probe@1"),  # bytes left over
        (envelope("A=="), QuarantineReason.MALFORMED, "acme/probe@1"),
        (envelope("A?=="), QuarantineReason.MALFORMED, "acme/probe@1"),
        (envelope([1]), QuarantineReason.SCHEMA, "acme/probe@1"),
        (envelope(b"\x00\xd7", -1), QuarantineReason.SCHEMA, "acme/probe@1"),
        (envelope(b"\x00\xd7", None), QuarantineReason.SCHEMA, "acme/probe@1"),  # no port where one must be
        (b'{"data', QuarantineReason.MALFORMED, "acme/probe@1"),
    ],
)
def test_frames_that_cannot_be_decoded_are_refused(
    decoder: Decoder, tree: Any, reason: QuarantineReason, profile: str
) -> None:
    """Whole, with the reason, the device and the version that refused it; nothing of it becomes a reading."""
    fields = run(decoder, tree)
    refused = fields.quarantined[0]
    assert (len(fields), refused.reason, refused.device, refused.profile) == (0, reason, 0, profile)


def test_frame_with_link_values_is_refused_whole(decoder: Decoder) -> None:
    """Signal strength makes no good message of a frame that cannot be read."""
    fields = run(decoder, envelope(b"\x00", rssi=-91))
    assert len(fields) == 0
    assert fields.quarantined[0].reason is QuarantineReason.MALFORMED


def test_who_may_be_carried(decoder: Decoder) -> None:
    """Only devices whose profile takes frames; joins of carried devices are known."""
    assert run(decoder, envelope(b"\x00\xd7"), "ns/plain/up").quarantined[0].reason is QuarantineReason.FOREIGN_TOPIC
    assert run(decoder, envelope(b"\x00\xd7"), "ns/who/up").quarantined[0].reason is QuarantineReason.UNKNOWN_DEVICE
    for name in ("probe", "decoded"):
        assert run(decoder, {}, f"ns/{name}/join").quarantined == []
    assert run(decoder, {}, "ns/plain/join").quarantined[0].reason is QuarantineReason.FOREIGN_TOPIC


def test_frames_come_by_the_devices_own_network_servers(profiles: ProfileSet) -> None:
    """Where a gateway is a network server, those of another kind are foreign; two are two ways."""
    first, two = device("server", "net/work"), device("other", "net/other")
    tree = {"hex": "00D7", "p": 2, "n": 7}
    for gateway, reason in (("server", QuarantineReason.FOREIGN_TOPIC), ("server other", None), ("", None)):
        decoder = Decoder(profiles, Registry(device("probe", "acme/probe", gateway), first, two))
        fields = run(decoder, tree, "other/probe")
        assert [refused.reason for refused in fields.quarantined] == ([reason] if reason else [])
        assert (
            run(decoder, envelope(b"\x00\xd7", eui="probe"), "http/server", "server").quarantined == [] or not gateway
        )


def test_a_network_server_may_publish_for_the_devices_behind_it(profiles: ProfileSet) -> None:
    """Topics of its envelopes with their names, or all of them where it names itself; never another server's."""
    names = ["probe", "70b3d5e7a0000109"]
    probe = DEVICES[0]
    known = profiles.publish_topics(probe, names, ["server"], "net/work")
    assert {"ns/probe/up", "ns/70b3d5e7a0000109/up", "ns/70B3D5E7A0000109/up", "any/server/up"} <= set(known)
    assert not any(topic.startswith("other/") for topic in known)
    assert profiles.publish_topics(probe, names, ["server"], "acme/plain") == []
    assert profiles.publish_topics(probe, names, ["server"]) == []
    assert profiles.publish_topics(DEVICES[3], ["plain"], ["server"], "net/work") == ["plain/plain"]
    assert "any/server/up" in profiles.publish_topics(DEVICES[1], ["server"], None)


def test_several_frames_in_one_message(profiles: ProfileSet) -> None:
    """Each by its own device; one that cannot be decoded is a rejection, all of them a quarantine."""
    devices = Registry(device("b", "net/batch"), device("p1", "acme/probe", "b"), device("p2", "acme/probe", "x b"))
    decoder = Decoder(profiles, devices)
    good = {"eui": "p1", "data": "00d7", "p": 2, "n": 1}
    tree = {"frames": [good, {**good, "eui": "p2"}, {**good, "data": "00"}, {**good, "eui": "b"}]}
    fields = run(decoder, tree, "batch/b")
    readings = readings_of(fields, profiles.specs, devices.ids)
    assert [(item.device, item.value) for item in readings] == [("p1", 21.5), ("p2", 21.5)]
    assert [value.reason for value in fields.rejected] == [RejectReason.FRAME] * 2
    fields = run(decoder, {"frames": tree["frames"][2:]}, "batch/b")
    assert len(fields) == 0
    assert [refusal.reason for refusal in fields.quarantined] == [QuarantineReason.MALFORMED]


def test_both_networks_give_one_identity(profiles: ProfileSet) -> None:
    """The same frame by two network servers has one key and two ways, whatever they call its members."""
    decoder = Decoder(profiles, Registry(device("probe", "acme/probe")))
    result = run(decoder, envelope(b"\x00\xd7", count=65_536 + 7))
    two = run(decoder, {"hex": "00D7", "p": 2, "t": 1_767_225_600_900, "n": 7}, "other/probe")
    assert key(result) == key(two)
    assert result.spec[0] == two.spec[0]
    assert result.path[0] != two.path[0]
    third = run(decoder, {"hex": "00D7", "p": 2, "t": 1_767_225_600_900, "n": 8}, "other/probe")
    assert key(third) != key(result)


def test_keys_of_frames() -> None:
    """Keys rise with the counter; other bytes, places and counters give others; what is left out is 0."""
    keys = [frame_key(count, b"x", 0) for count in range(300)]
    assert keys == sorted(keys)
    assert len(set(keys)) == 300
    assert len({frame_key(1, b"x", 0), frame_key(1, b"y", 0), frame_key(1, b"x", 1)}) == 3
    assert frame_key(None, b"x", 0) == frame_key(0, b"x", 0) == frame_key("0", b"x", 0) == frame_key(0.0, b"x", 0)
    assert all(0 <= frame_key(2**16 - 1, bytes([at]), at) < 2**63 for at in range(256))


# ── grammar ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("  - readings: [{field: t, property: air_temperature}]\n", "no topic"),
        ("  - frames: {ports: [70000]}\n    ignore: true\n", "70000 is not a port"),
        ("  - frames: {}\n    payload: {field: d}\n", "cannot be combined with `frames`"),
        ("  - topics: ['a/{device}']\n    payload: {field: d}\n    ignore: true\n", "cannot be combined with `ignore`"),
        (
            "  - topics: ['a/{device}']\n    beside: true\n    readings: [{field: t, property: rssi}]\n",
            "beside which it could stand",
        ),
        ("  - topics: ['a/{device}']\n    payload: {field: d, encoding: base32}\n", "base32"),
        ("  - topics: ['a/{device}']\n    payload: {feild: d}\n", "did you mean 'field'?"),
        (
            "  - topics: ['a/{device}']\n    identity: frame\n    sequence: n\n    standard: .\n",
            "needs `payload` and `sequence`",
        ),
        ("  - topics: ['a/b']\n    payload: {field: d}\n    device: {field: eui}\n", "any device could publish"),
    ],
)
def test_mistakes_of_a_chain_are_named(tmp_path: Path, messages: str, words: str) -> None:
    """Each with its place and what to do."""
    (tmp_path / "acme").mkdir()
    file = tmp_path / "acme" / "x.yaml"
    file.write_text(f"profile: acme/x\n{HEAD}{messages}", encoding="utf-8")
    with pytest.raises(ProfileError, match=words):
        ProfileSet.load([tmp_path])


def test_examples_of_frames_and_envelopes_are_held_to_what_they_say(tmp_path: Path) -> None:
    """Negative control: a wrong value, port, counter, time or device in an example is found."""
    (tmp_path / "acme").mkdir()
    file = tmp_path / "acme" / "x.yaml"

    def wrong(messages: str, example: str) -> str:
        refusal = "  - {label: r, topic: ns/d1/up, carried: true, payload: 'x', refuse: malformed}\n"
        refusal = refusal if "ns/" in messages else "  - {label: r, port: 9, hex: '00', refuse: schema}\n"
        text = f"profile: acme/x\n{HEAD}{messages}examples:\n{example}{refusal}"
        file.write_text(text, encoding="utf-8")
        return "; ".join(map(str, check_profile(file)))

    frame = "  - {{label: a, port: 2, hex: '00 d7', expect: [{{property: air_temperature, value: {}}}]}}\n"
    assert wrong(PROBE, frame.format(21.5)) == ""
    assert "air_temperature = 21.6" in wrong(PROBE, frame.format(21.6))
    tree = "{data: ANc=, port: 2, count: 7, time: '2026-01-01T00:00:01Z'}"
    opened = "  - {{label: a, topic: ns/d1/up, payload: {}, frame: {{{}}}}}\n"
    good = "hex: 00d7, port: 2, counter: 7, time: '2026-01-01T00:00:01Z'"
    assert wrong(NETWORK, opened.format(tree, good)) == ""
    for word, other, message in (
        ("00d7", "00d8", "bytes"),
        ("port: 2", "port: 3", "port"),
        ("counter: 7", "counter: 8", "frame counter"),
        ("00:01Z", "00:02Z", "time"),
    ):
        assert f"expected {message}" in wrong(NETWORK, opened.format(tree, good.replace(word, other)))


# ── anything may come ────────────────────────────────────────────────────────────────────────────────

LIBRARY = Path(__file__).parents[2] / "device_profiles"
SERVERS = ("chirpstack", "thethings", "loriot", "actility", "aws", "milesight", "helium")
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12), st.just([]), st.just({}),
    st.binary(max_size=24).map(lambda data: base64.b64encode(data).decode()), st.binary(max_size=24).map(bytes.hex),
)  # fmt: skip


@cache
def library() -> ProfileSet:
    """The network servers of the library, and a device."""
    return ProfileSet.load([LIBRARY / name for name in (*SERVERS, "dragino")])


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all members of a tree."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [leaf for key, value in members for leaf in ((*path, key), *leaves(value, (*path, key)))]


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a tree with another value at a path."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def test_what_waits_for_an_answer_is_taken_back_whole() -> None:
    """A message of several frames is decoded again once a script has answered: nothing of it may count twice."""
    rows = DecodedRows(UnitConversions())
    mark = rows.savepoint()
    rows.message.append(0)
    rows.numbered.append((0, 0, 7))
    rows.downsampled.append(Downsampled(0, 0, 1))
    rows.rollback(mark)
    assert (rows.savepoint(), rows.numbered, rows.downsampled) == (mark, [], [])


@settings(max_examples=settings().max_examples * 2)
@given(st.data())
def test_whatever_a_network_server_says_is_decoded_or_refused(data: st.DataObject) -> None:
    """Any value in any member of the library's envelopes: never an exception, and by both paths the same."""
    loaded = library()
    name = data.draw(st.sampled_from([item for item in loaded.ids if loaded.find(item).carries]))  # type: ignore[union-attr]
    match = loaded.find(name)
    assert match is not None
    example = data.draw(
        st.sampled_from([example for example in match.source.examples if isinstance(example.payload, dict)])
    )
    tree = example.payload
    for _ in range(data.draw(st.integers(0, 3))):
        if paths := leaves(tree):
            tree = changed(tree, data.draw(st.sampled_from(paths)), data.draw(values))
    server = device(example.gateway or "ns", name)
    devices = [device(item, "dragino/lse01", server.id) for item in example.devices]
    machine = Decoder(loaded, Registry(*devices, server))
    principal = server.id if example.topic.startswith("http/") else ""
    message = Message(example.topic, msgspec.json.encode(tree), NOW, 1, principal=principal)
    quick, slow = machine.decode([message] * 6), machine.decode_row_by_row([message] * 6)
    assert quick.key.tolist() == slow.key.tolist()
    assert len(quick.quarantined) in {0, 6}
    assert not (quick.quarantined and len(quick))
