"""What is video metadata, and what stands in the place of its messages: by topic, device, source and profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sensegate.decode.decode import Decoder
from sensegate.decode.profiles import ProfileSet, any_video_profile
from sensegate.decode.redaction import MessageRedactor, removed_of
from sensegate.errors import ProfileError
from sensegate.model import BOOL, Device, Message, MessageBatch, QuarantineReason
from sensegate.video import stored
from sensegate.video.formats import FORMATS
from sensegate.video.pseudonyms import KeyedPseudonymiser
from tests.support.profiles import library
from tests.video import tiny

PLAIN = Path(__file__).parents[2] / "device_profiles" / "sensegate" / "plain.yaml"
NAME = "李雷"
PSEUDONYMISER = KeyedPseudonymiser(b"tests")


class Registry:
    """Some cameras and a sensor."""

    version = 1

    def __init__(self, *devices: Device) -> None:
        self.records = list(devices)
        self.enabled: BOOL = np.array([device.state != "disabled" for device in devices], np.bool_)

    def find(self, name: str, /) -> int:
        return next((index for index, record in enumerate(self.records) if name in {record.id, record.alias}), -1)

    def record(self, index: int, /) -> Device:
        return self.records[index]


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """A decoder with the tests' camera and the plain profile."""
    monkeypatch.setitem(FORMATS, tiny.NAME, tiny.FORMAT)
    file = tmp_path / "acme" / "tiny-camera.yaml"
    file.parent.mkdir()
    file.write_text(tiny.PROFILE, encoding="utf-8")
    camera: dict[str, Any] = {"division": "440106", "profile": "acme/tiny-camera"}
    devices = (
        Device("cam1", **camera),
        Device("cam2", alias="前门", **camera),
        Device("cam3", **{**camera, "profile": "acme/not-loaded"}, domain="video"),
        Device("thermo", division="440106", profile="sensegate/plain"),
    )
    return Decoder(ProfileSet.load([file, PLAIN]), Registry(*devices))


def walked(decoder: Decoder, topic: str, payload: bytes = b"", *, strict: bool = False, **more: Any) -> Message:
    """Return a message as the walk goes on with it."""
    cutting = MessageRedactor(FORMATS, PSEUDONYMISER, bytes_max=10_000)
    message = Message(topic, payload or json.dumps({"at": 5, "name": NAME}).encode(), 1_000, 1, **more)
    for at, route in cutting.pending(MessageBatch([message]), decoder, {0} if strict else set()).items():
        assert at == 0
        message = cutting.redact(message, route, decoder)
    return message


def test_a_cameras_message_is_cut_and_told(decoder: Decoder) -> None:
    """By the rule that takes it; what was taken out is told of the message, also where a listener has cut it."""
    message = walked(decoder, "cam/cam1/meta")
    assert message.cut
    assert NAME.encode() not in message.payload
    assert [(removal.format, removal.field, removal.count) for removal in removed_of(MessageBatch([message]))] == [
        ("tiny", "name", 1)
    ]
    assert removed_of(MessageBatch([msgspec.structs.replace(message, cut=False)])) == []
    assert walked(decoder, message.topic, message.payload, cut=True) == msgspec.structs.replace(message, cut=True)


@pytest.mark.parametrize(
    ("topic", "principal"),
    [
        ("cam/nobody/meta", ""),  # a device that is not registered
        ("cam/cam1/alive", ""),  # what its profile ignores
        ("cam/cam1/something/else/altogether", ""),  # topics like a camera's, of no profile
        ("http/cam3", "cam3"),  # a camera whose profile is not loaded
    ],
)
def test_of_what_no_rule_reads_nothing_is_kept(decoder: Decoder, topic: str, principal: str) -> None:
    """It is replaced or cut, whatever it is, and quarantine tells why."""
    for payload in (json.dumps({"at": 5, "name": NAME}).encode(), NAME.encode("gb18030"), b""):
        message = walked(decoder, topic, payload or b" ", principal=principal)
        assert message.cut
        assert NAME.encode() not in message.payload
        assert NAME.encode("gb18030") not in message.payload
        fields = decoder.decode(MessageBatch([message]))
        assert not len(fields)


def test_others_are_left_alone(decoder: Decoder) -> None:
    """A sensor's message, and one of a topic that is nobody's, are as they came; from a source of cameras not."""
    for topic in ("sg/thermo/up", "factory/line/3", "sg/unknown/up"):
        assert not walked(decoder, topic).cut
        assert NAME in json.loads(walked(decoder, topic).payload)["name"]
    assert not walked(decoder, "sg/thermo/up", strict=True).cut
    message = walked(decoder, f"factory/{NAME}/3", strict=True)
    assert message.cut
    assert message.topic == f"factory/{PSEUDONYMISER.identifier(NAME)}/3"
    opened = stored.decode_stored(message.payload)
    assert opened is not None
    assert opened.reason == QuarantineReason.NO_PROFILE


def test_topics_hold_names_of_devices_and_no_others(decoder: Decoder) -> None:
    """An alias stays although it is no program's name; free text in another level does not."""
    assert walked(decoder, "cam/前门/meta").topic == "cam/前门/meta"
    assert walked(decoder, "cam/cam1/seen/gate_2").topic == "cam/cam1/seen/gate_2"
    hidden = walked(decoder, f"cam/前门/seen/{NAME}")
    assert hidden.topic == f"cam/前门/seen/{PSEUDONYMISER.identifier(NAME)}"
    assert [removal.field for removal in removed_of(MessageBatch([hidden]))] == ["name", "topic"]
    assert int(decoder.decode(MessageBatch([hidden])).device[0]) == 1


def test_a_message_that_is_too_long_is_not_looked_into(decoder: Decoder) -> None:
    """It stands there by its size alone."""
    message = walked(decoder, "cam/cam1/meta", json.dumps({"at": 5, "name": NAME * 5_000}).encode())
    opened = stored.decode_stored(message.payload)
    assert opened is not None
    assert (opened.reason, opened.bytes > 10_000) == (QuarantineReason.TOO_LARGE, True)
    assert [refusal.reason for refusal in decoder.decode(MessageBatch([message])).quarantined] == [
        QuarantineReason.TOO_LARGE
    ]


def test_profiles_tell_by_their_text_whether_they_take_video(tmp_path: Path) -> None:
    """Before any is read: the store must be encrypted from its first byte on."""
    (tmp_path / "a.yaml").write_text(tiny.PROFILE, encoding="utf-8")
    assert any_video_profile([tmp_path])
    (tmp_path / "a.yaml").write_text("profile: a/b\nformat: video # of all messages\n", encoding="utf-8")
    assert any_video_profile([tmp_path])
    for text in ("messages: [{format: video}]", 'format: "video"'):
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        assert any_video_profile([tmp_path]), text
    for text in ("# format: video", "domain: video", "format: videotext", "label: a video format"):
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        assert not any_video_profile([tmp_path]), text
    assert not any_video_profile([PLAIN])
    assert not any_video_profile([tmp_path / "none.yaml"])


def test_a_cameras_profile_has_no_other_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that would never see a message as it came is refused when the profile is read."""
    monkeypatch.setitem(FORMATS, tiny.NAME, tiny.FORMAT)
    file = tmp_path / "acme" / "tiny-camera.yaml"
    file.parent.mkdir()
    rule = '  - topics: ["cam/{device}/state"]\n    readings: [{field: on, property: online}]\n'
    file.write_text(tiny.PROFILE + rule, encoding="utf-8")
    with pytest.raises(ProfileError, match="all its rules must decode video"):
        ProfileSet.load([file])


def test_topics_like_those_of_cameras_in_the_library() -> None:
    """With all profiles loaded, words that others use too (`status`, `state`) make no topic a camera's."""
    profiles = library()
    near = ("frigate/a/b/c/d", "Frigate2/x/y/z/w", "cam9/onvif-mj/new/kind/of/topic", "axis/b8/what", "viid/x")
    far = (
        "home/sensor/status",
        "zigbee2mqtt/lamp/state",
        "plant/events",
        "line/7/objects",
        "x/audio/level",
        "sg/d1/up",
    )
    assert [topic for topic in near if not profiles.resembles_video_topic(topic)] == []
    assert [topic for topic in far if profiles.resembles_video_topic(topic)] == []
