"""Versions of the store in place of the folder's: for whom, at whose word, and what bears which name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sensegate.authority.scope import Scope
from sensegate.decode.choice import VersionChoice
from sensegate.decode.decode import Decoder
from sensegate.decode.profiles import Chosen, ProfileSet
from sensegate.model import BOOL, Device, Message

NOW = 1_767_225_600_000_000
HEAD = "profile: {name}\nversion: {version}\nlabel: {{zh: x, en: x}}\nsource: this test\nmessages:\n"
DIRECT = """\
  - topics: ["acme/{device}/up"]
    readings:
      - {field: t, property: air_temperature, scale: SCALE}
"""
THROUGH = """\
  - topics: ["hub/{gateway}/report"]
    each: all
    device: {field: id}
    readings:
      - {field: t, property: air_temperature, scale: SCALE}
"""
CARRIER = """\
  - topics: ["ns/{device}/up"]
    payload: {field: data, encoding: hex, port: port}
    device: {field: eui}
    sequence: n
"""
CARRIED = """\
  - frames: {ports: [2]}
    binary: {read: [{name: t, type: s16}]}
    readings:
      - {field: t, property: air_temperature, scale: SCALE}
"""
BODIES = {"acme/th": DIRECT, "acme/hubbed": THROUGH, "acme/ns": CARRIER, "acme/probe": CARRIED}


class Registry:
    """Devices by name."""

    def __init__(self, *devices: Device) -> None:
        self.version = 1
        self._devices = list(devices)
        self._at = {name: index for index, device in enumerate(devices) for name in (device.id, device.alias) if name}

    @property
    def enabled(self) -> BOOL:
        return np.ones(len(self._devices), np.bool_)

    def find(self, name: str, /) -> int:
        return self._at.get(name, -1)

    def record(self, index: int, /) -> Device:
        return self._devices[index]


DEVICES = Registry(
    *(Device(f"d{number}", "440106" if number < 5 else "440103", "acme/th") for number in range(10)),
    Device("hub-1", "440106", "acme/hub"),
    Device("hub-2", "440106", "acme/hub"),
    *(Device(f"b{number}", "440106", "acme/hubbed", gateway=f"hub-{1 + number % 2}") for number in range(4)),
    Device("ns", "440106", "acme/ns"),
    *(Device(f"p{number}", "440106", "acme/probe", gateway="ns") for number in range(2)),
)


class ProfileStore:
    """A folder of profiles, and versions laid out beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in BODIES:
            self.write(name, 1, folder / "library")

    @staticmethod
    def write(name: str, version: int, folder: Path, body: str = "") -> Path:
        """Write a version; version *n* multiplies by *n*."""
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (body or BODIES[name]).replace("SCALE", str(float(version)))
        file.write_text(HEAD.format(name=name, version=version) + text, encoding="utf-8")
        return file

    def library(self) -> ProfileSet:
        """Return what the folder says."""
        return ProfileSet.load([self.folder / "library"])

    def chosen(self, name: str, version: int, **more: object) -> Chosen:
        """Return a decision for a version."""
        file = self.write(name, version, self.folder / f"v{version}")
        choice = {"target": Scope("4401"), **more}
        return Chosen(VersionChoice(name, version, f"{name}{version}", **choice), file)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path)


def read(profiles: ProfileSet, *messages: tuple[str, str]) -> list[tuple[str, float, str]]:
    """Return (device, value, profile) of what is decoded of (topic, payload)."""
    decoder = Decoder(profiles, DEVICES)
    fields = decoder.decode(
        [Message(topic, payload.encode(), NOW, index) for index, (topic, payload) in enumerate(messages)]
    )
    results = []
    for row in range(len(fields)):
        spec = profiles.specs[fields.spec[row]]
        device = DEVICES.record(int(fields.device[row])).id
        results.append((device, float(fields.value[row]) * spec.scale + spec.offset, spec.profile))
    return results


def one_each() -> list[tuple[str, str]]:
    """Return a message of each device."""
    return [(f"acme/d{number}/up", '{"t": 10}') for number in range(10)]


def test_for_all(store: ProfileStore) -> None:
    """In place of the folder's version, which is on its shelf still."""
    now = store.library().choose([store.chosen("acme/th", 2)])
    assert {(value, name) for _, value, name in read(now, *one_each())} == {(20.0, "acme/th@2")}
    assert (now.versions["acme/th"], now.arms) == (2, {})
    on_shelf = now.folder_version("acme/th")
    assert on_shelf is not None
    assert on_shelf.version == 1
    assert {name for _, _, name in read(now.choose([]), *one_each())} == {"acme/th@1"}


def test_for_some(store: ProfileStore) -> None:
    """A list goes before a division, that before the rest; each message is read by the version of its device."""
    now = store.library().choose(
        [
            store.chosen("acme/th", 4, whole=False, devices=frozenset({"d1", "d7"}), trial=True),
            store.chosen("acme/th", 3, whole=False, target=Scope("440103")),
            store.chosen("acme/th", 2),
        ]
    )
    readings = {device: (value, name) for device, value, name in read(now, *one_each())}
    for number in range(10):
        version = 4 if number in {1, 7} else 3 if number >= 5 else 2
        assert readings[f"d{number}"] == (10.0 * version, f"acme/th@{version}")
    assert [arm.profile.version for arm in now.arms["acme/th"]] == [4, 3]


def test_the_quick_path_keeps_versions_apart(store: ProfileStore) -> None:
    """Many messages of one shape: columns of each version are made by its own rules."""
    now = store.library().choose([store.chosen("acme/th", 3, whole=False, target=Scope("440103"))])
    messages = [(f"acme/d{number}/up", f'{{"t": {number}}}') for _ in range(30) for number in range(10)]
    for device, value, name in read(now, *messages):
        number = int(device[1:])
        assert (value, name) == ((3.0 * number, "acme/th@3") if number >= 5 else (float(number), "acme/th@1"))


def test_a_gateways_message_is_read_by_one_version(store: ProfileStore) -> None:
    """Where many devices are named in one message the gateway's version decides for all of them."""
    now = store.library().choose(
        [store.chosen("acme/hubbed", 5, whole=False, devices=frozenset({"hub-2", "b0", "b2"}))]
    )
    all_of_one = '{"all": [{"id": "b0", "t": 1}, {"id": "b2", "t": 2}]}'
    all_of_two = '{"all": [{"id": "b1", "t": 1}, {"id": "b3", "t": 2}]}'
    assert {name for _, _, name in read(now, ("hub/hub-1/report", all_of_one))} == {"acme/hubbed@1"}
    assert {name for _, _, name in read(now, ("hub/hub-2/report", all_of_two))} == {"acme/hubbed@5"}


def test_a_carried_frame_is_read_by_its_devices_version(store: ProfileStore) -> None:
    """The envelope by that of the network, the frame in it by that of the device."""
    now = store.library().choose([store.chosen("acme/probe", 3, whole=False, devices=frozenset({"p1"}))])
    messages = [(f"ns/p{number}/up", f'{{"eui": "p{number}", "data": "000a", "port": 2, "n": 1}}') for number in (0, 1)]
    assert read(now, *messages) == [("p0", 10.0, "acme/probe@1"), ("p1", 30.0, "acme/probe@3")]


def test_what_is_refused_bears_its_version(store: ProfileStore) -> None:
    """Whole messages and single values, by the version of their device."""
    now = store.library().choose([store.chosen("acme/th", 4, whole=False, devices=frozenset({"d1"}))])
    decoder = Decoder(now, DEVICES)
    fields = decoder.decode(
        [
            Message("acme/d1/up", b"no JSON", NOW, 1),
            Message("acme/d2/up", b"no JSON", NOW, 2),
            Message("acme/d1/up", b'{"t": "warm"}', NOW, 3),
            Message("acme/nobody/up", b'{"t": 1}', NOW, 4),
            Message("ns/p0/up", b'{"eui": "p0", "data": "00", "port": 9, "n": 1}', NOW, 5),
        ]
    )
    assert [(refusal.message, refusal.profile) for refusal in fields.quarantined if refusal.message != 2] == [
        (0, "acme/th@4"),
        (1, "acme/th@1"),
        (3, ""),
        (4, "acme/probe@1"),
    ]
    assert [(value.message, value.profile) for value in fields.rejected] == [(2, "acme/th@4")]


def test_a_newer_file_does_not_go_before_what_was_decided(store: ProfileStore) -> None:
    """A library upgrade comes in force only where no release decided otherwise; it is listed meanwhile."""
    decision = store.chosen("acme/th", 2)
    store.write("acme/th", 3, store.folder / "library")
    chosen = store.library().choose([decision])
    assert chosen.versions["acme/th"] == 2
    (listed,) = chosen.superseded()
    assert listed.startswith("acme/th@3 of the folder is not in force: acme/th@2 was released; ")
    assert store.library().versions["acme/th"] == 3
    assert store.library().superseded() == []


def test_one_that_cannot_be_compiled(store: ProfileStore) -> None:
    """While running what was in force stays; at a start its devices wait in quarantine; no others are disturbed."""
    good = store.chosen("acme/th", 2)
    running = store.library().choose([good])
    bad = Chosen(
        VersionChoice("acme/th", 3, "bad", Scope("4401")), store.write("acme/th", 3, store.folder / "bad", "?")
    )
    after = running.choose([bad], running)
    assert after.versions["acme/th"] == 2
    assert [why.file for why in after.problems] == [str(bad.file)]
    start = store.library().choose([bad])
    assert "acme/th" not in start.versions
    assert read(start, *one_each()) == []
    assert {name for _, _, name in read(start, ("ns/p0/up", '{"eui": "p0", "data": "000a", "port": 2, "n": 1}'))} == {
        "acme/probe@1"
    }
    assert after.choose([good], after).problems == ()
    trial = Chosen(VersionChoice("acme/th", 3, "bad", Scope("4401"), whole=False, devices=frozenset({"d1"})), bad.file)
    assert {name for _, _, name in read(running.choose([good, trial], running), *one_each())} == {"acme/th@2"}


def test_specs_keep_their_places(store: ProfileStore) -> None:
    """What was decoded before is read by the spec it was decoded with; going back makes no new ones."""
    library = store.library()
    second = library.choose([store.chosen("acme/th", 2)])
    third = second.choose([store.chosen("acme/th", 3)], second)
    back = third.choose([store.chosen("acme/th", 2)], third)
    assert second.specs[: len(library.specs)] == library.specs
    assert third.specs[: len(second.specs)] == second.specs
    assert back.specs == third.specs
    assert back.find("acme/th") is second.find("acme/th")


def test_rights_of_all_versions(store: ProfileStore) -> None:
    """A device may publish where its own version says; behind a gateway where any says. Equal rights compare equal."""
    other = DIRECT.replace("acme/{device}/up", "acme/{device}/now")
    file = store.write("acme/th", 2, store.folder / "moved", other)
    moved = Chosen(VersionChoice("acme/th", 2, "moved", Scope("4401"), whole=False, devices=frozenset({"d1"})), file)
    library = store.library()
    now = library.choose([moved])
    record = DEVICES.record
    assert now.publish_topics(record(DEVICES.find("d1")), ["d1"], None) == ["acme/d1/now"]
    assert now.publish_topics(record(DEVICES.find("d2")), ["d2"], None) == ["acme/d2/up"]
    behind = Device("d1", "440106", "acme/th", gateway="hub-1")
    assert now.publish_topics(behind, ["d1"], ["hub-1"]) == ["acme/d1/up", "acme/d1/now"]
    assert len(now.topic_rights("acme/th")) == 2
    same = library.choose([store.chosen("acme/th", 3)])
    assert same.topic_rights("acme/th") == library.topic_rights("acme/th")


def test_versions_without_a_file_of_the_folder(store: ProfileStore) -> None:
    """A profile that only the store has is in force as any other; one that only some have is known by name."""
    file = store.write("new/one", 1, store.folder / "v1", DIRECT.replace("acme/", "new/"))
    some = Chosen(VersionChoice("new/one", 1, "n", Scope("4401"), whole=False, devices=frozenset({"n1"})), file)
    now = store.library().choose([some])
    assert "new/one" in now
    assert "new/one" in now.ids
    assert "new/one" not in now.versions
    assert now.of(Device("n1", "440106", "new/one")) is not None
    assert now.of(Device("n2", "440106", "new/one")) is None
