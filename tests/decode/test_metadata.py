"""What MQTT states beside the payload, as a profile reads it."""

from __future__ import annotations

import pytest

from sensegate.errors import ProfileError
from sensegate.model import Message, MqttMetadata
from tests.bench.decode import NOW
from tests.decode.decoding import same
from tests.support.profiles import Make

RULES = """
  - topics: ["plant/{device}/raw"]
    format: number
    metadata: mqtt
    where: {mqtt.content_type: text/plain}
    message_id: mqtt.user.id
    readings: [{field: payload, property: air_temperature, unit_from: {field: mqtt.user.unit}}]
  - topics: ["plant/{device}/raw"]
    format: keyvalue
    metadata: mqtt
    where: {mqtt.client: probe}
    readings: [{field: t, property: air_temperature}]
  - topics: ["behind/{gateway}/up"]
    metadata: mqtt
    device: {field: mqtt.client}
    readings: [{field: t, property: air_temperature}]
"""


def message(payload: bytes, metadata: MqttMetadata | None, topic: str = "plant/d1/raw", number: int = 0) -> Message:
    """Return a message."""
    return Message(topic, payload, NOW + number, number, metadata=metadata)


def test_content_type_client_and_user_properties_are_read(make: Make) -> None:
    """They select the rule, give the unit and identify the message; of a property given twice the first counts."""
    machine = make(RULES, "d1", gateway="g1")
    user = (("unit", "[degF]"), ("id", "m1"), ("unit", "K"))
    messages = [
        message(b"50", MqttMetadata("c", "d1", "text/plain", user)),
        message(b"t=21.5", MqttMetadata("probe", "d1")),
        message(b"t=21.5", MqttMetadata("other", "d1")),
        message(b"50", None),
        message(b'{"t": 3}', MqttMetadata("d1", "g1"), "behind/g1/up"),
        message(b'{"t": 3}', MqttMetadata("nobody", "g1"), "behind/g1/up"),
    ]
    for _ in range(4):
        fields = machine.decode(messages * 6)
        same(fields, machine.decode_row_by_row(messages * 6))
    fields = machine.decode(messages)
    assert fields.message.tolist() == [0, 1, 4]
    assert fields.value.tolist() == [50.0, 21.5, 3.0]
    assert fields.override_scale
    assert [(refused.message, refused.reason.value) for refused in fields.quarantined] == [
        (2, "malformed"),
        (3, "malformed"),
        (5, "unknown_device"),
    ]


def test_the_payload_cannot_pretend(make: Make) -> None:
    """A member of the payload under the same key is removed, also where MQTT states nothing."""
    machine = make(RULES, "d1", gateway="g1")
    pretended = b'{"t": 3, "mqtt": {"client": "d1"}}'
    for metadata in (None, MqttMetadata("nobody", "g1")):
        fields = machine.decode([message(pretended, metadata, "behind/g1/up")])
        assert not len(fields)
        assert len(fields.quarantined) == 1


def test_frames_have_no_metadata(make: Make) -> None:
    """A rule for frames of a network server is refused with a remedy."""
    with pytest.raises(ProfileError, match="has no meaning for frames"):
        make("\n  - frames: {}\n    metadata: mqtt\n    readings: [{field: t, property: air_temperature}]\n", "d1")
