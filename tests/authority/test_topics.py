"""Topics as subjects: the server's own mapping, and never more than the topic says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.topics import subject_of
from sensegate.errors import ConfigError


@pytest.mark.parametrize(
    ("topic", "subject"),
    [
        ("sg/a/up", "sg.a.up"),
        ("/a/b", "/.a.b"),
        ("a/b/", "a.b./"),
        ("a//b", "a./.b"),
        ("a.b/c", "a//b.c"),
        ("a/+/c", "a.*.c"),
        ("a/#", "a.>"),
        ("+/空气", "*.空气"),
    ],
)
def test_as_the_server_maps_it(topic: str, subject: str) -> None:
    """The examples of the server's documentation."""
    assert subject_of(topic) == subject


@pytest.mark.parametrize("topic", ["", "a b", "a/b+", "a/#/b", "a/*", "a/>", "a*b", "a\n", "a\x00", "a/b#"])
def test_what_would_allow_more_is_refused(topic: str) -> None:
    """Wildcards of subjects, wildcards within a level, white space and control characters."""
    with pytest.raises(ConfigError, match="topic"):
        subject_of(topic)


@given(st.text(min_size=1, max_size=40))
def test_a_literal_topic_gives_a_literal_subject(topic: str) -> None:
    """Without MQTT wildcards there is none of NATS: the permission is exactly the topic."""
    if "+" in topic or "#" in topic:
        return
    try:
        subject = subject_of(topic)
    except ConfigError:
        return
    assert not set(subject) & set("*> ")
    assert len(subject.split(".")) == len(topic.split("/"))
