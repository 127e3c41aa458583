"""Metadata of messages is read from their stored batches where a profile asks for it, and stays with the messages."""

from __future__ import annotations

from pathlib import Path

from sensegate.bus import raw
from sensegate.collect.intake.batch import IntakeBatchBuilder, MessageProperties, decode
from sensegate.collect.intake.source import INDEX_BITS, _messages
from sensegate.decode import ProfileSet
from sensegate.ingest.metadata import MetadataReader
from sensegate.model import Delivery, Message, MessageBatch, MqttMetadata
from tests.support.front import QOS_1

PROFILE = """
profile: acme/x
version: 1
label: {{zh: x, en: x}}
source: this test
messages:
  - topics: ["plant/{{device}}/raw"]
    {line}
    readings: [{{field: t, property: air_temperature}}]
"""


async def _stored() -> None:
    """Acknowledge nothing."""


def profiles(folder: Path, line: str) -> ProfileSet:
    """Return the set of one profile."""
    (folder / "acme").mkdir(exist_ok=True)
    (folder / "acme" / "x.yaml").write_text(PROFILE.format(line=line), encoding="utf-8")
    return ProfileSet.load([folder])


def batch(sequence: int) -> MessageBatch:
    """Return a batch of three messages in two reads, of which the first and the last are of the profile's topic."""
    builder = IntakeBatchBuilder()
    for number, topic in enumerate(("plant/d1/raw", "other/d1", "plant/d2/raw")):
        builder.topics.append(topic)
        builder.payloads.append(b'{"t": 1}')
        builder.flags.append(QOS_1)
        if number == 1:
            builder.end_read("c1", "d1", 1)
    builder.properties[2] = MessageProperties("text/csv", (("a", "b"),))
    builder.end_read("c2", "d2", 2)
    return _messages(decode(builder.seal(bytes(16), 1)), sequence << INDEX_BITS)


def test_messages_of_a_topic_whose_profile_asks(tmp_path: Path) -> None:
    """Others have none; a part of a batch, and messages that came otherwise beside it, change nothing in that."""
    wanted = profiles(tmp_path, "metadata: mqtt")
    pushed = MessageBatch([Message("http/d1", b"{}", 1, 1)])
    first = batch(7)
    messages = MessageBatch.joined([pushed, first.part(1, 3), batch(8)])
    (delivery,) = [MetadataReader().complete(Delivery("mqtt", messages, _stored), wanted)]
    expected = MqttMetadata("c2", "d2", "text/csv", (("a", "b"),))
    assert [message.metadata for message in delivery.messages] == [
        None,
        None,
        expected,
        MqttMetadata("c1", "d1"),
        None,
        expected,
    ]
    assert [message for message, _ in raw.decode(raw.encode(delivery.messages, "mqtt"))] == delivery.messages


def test_nothing_is_read_where_no_profile_asks(tmp_path: Path) -> None:
    """The delivery stays the same object."""
    delivery = Delivery("mqtt", batch(7), _stored)
    assert MetadataReader().complete(delivery, profiles(tmp_path, "label: plain")) is delivery
