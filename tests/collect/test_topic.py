"""MQTT topics and NATS subjects, both ways."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from sensegate.bus.engine import Engine, User
from sensegate.collect.topic import subject_of, topic_of
from tests.collect.device import Device

LEVEL = st.text(
    st.characters(codec="utf-8", exclude_characters="/+# \t\r\n\f\x7f*>", exclude_categories=["Cc"]), max_size=6
)
TOPIC = st.lists(LEVEL, min_size=1, max_size=6).map("/".join).filter(bool)


@given(TOPIC)
def test_a_topic_comes_back_from_its_subject(topic: str) -> None:
    """`topic_of` reverses `subject_of`, with dots and empty levels anywhere."""
    subject = subject_of(topic)
    assert topic_of(subject.encode()) == topic
    assert "" not in subject.split(".")


@given(TOPIC, TOPIC)
def test_two_topics_have_two_subjects(first: str, other: str) -> None:
    """No two topics share a subject."""
    assert (subject_of(first) == subject_of(other)) == (first == other)


def test_bytes_that_are_not_utf8_stay_visible() -> None:
    """A subject that is not UTF-8 makes a topic that no profile claims, and no exception."""
    assert topic_of(b"a.\xff.b") == "a/\\xff/b"


async def test_the_server_maps_as_we_do(engine: Engine) -> None:
    """What nats-server makes of a topic is what `subject_of` says, for levels that are empty or hold dots."""
    topics = ["a", "a/b", "/a", "a/", "/", "a//b", "//", "a.b/c", ".", "a/./b", "..", "/./", "a///b", "温度/1", "$x/y"]
    results: list[str] = []
    all_seen = asyncio.Event()
    client = await engine.connect(User.FEEDS)

    async def note(msg: Msg) -> None:
        if not msg.subject.startswith(("$JS", "$MQTT", "_")):
            results.append(msg.subject)
        if len(results) == len(topics):
            all_seen.set()

    await client.subscribe(">", cb=note)
    await client.flush()
    credential = engine.credential(User.FEEDS)
    async with Device(
        (engine.info.mqtt_host, engine.info.mqtt_port), "topics", credential.user, credential.password
    ) as publisher:
        await publisher.publish([(topic, b"x") for topic in topics])
    async with asyncio.timeout(60):
        await all_seen.wait()
    assert results == [subject_of(topic) for topic in topics]
    assert [topic_of(subject.encode()) for subject in results] == topics
    await client.close()
