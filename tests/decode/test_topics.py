"""Topic patterns, their match and the rights that follow from them."""

from __future__ import annotations

import pytest

from sensegate.decode.topics import TopicIndex, filters, match, parse

MATCHES = [
    ("sg/{device}/up", "sg/d1/up", {"device": "d1"}),
    ("sg/{device}/up", "sg/d1/down", None),
    ("sg/{device}/up", "sg/d1/up/x", None),
    ("sg/{device}/up", "sg//up", None),
    ("a/shelly-{device}-x/{part}", "a/shelly-77-x/p", {"device": "77", "part": "p"}),
    ("a/shelly-{device}-x/{part}", "a/shelly--x/p", None),
    ("a/{device}X", "a/bY", None),
    ("z/{device+}", "z/a", {"device": "a"}),
    ("z/{device+}", "z/a/b/c", {"device": "a/b/c"}),
    ("z/{device+}/availability", "z/a/b/availability", {"device": "a/b"}),
    ("z/{device+}/availability", "z/availability", None),
    ("{device}/tele/SENSOR", "t/tele/SENSOR", {"device": "t"}),
]


@pytest.mark.parametrize(("pattern", "topic", "captured"), MATCHES)
def test_topic_is_matched(pattern: str, topic: str, captured: dict[str, str] | None) -> None:
    """Literal levels, one level, several levels, text around a capture; also through the index."""
    assert match(parse(pattern), topic) == captured
    index = TopicIndex()
    index.add(parse(pattern), 7)
    index.add(parse("never/matches"), 8)
    assert index.match(topic) == ([] if captured is None else [(7, captured)])


@pytest.mark.parametrize("pattern", ["", "a/+/b", "a/#", "{a}{b}", "{a+}x", "{a+}/{b+}", "{a}/{a}", "{A}", "/" * 20])
def test_bad_pattern_is_refused(pattern: str) -> None:
    """Wildcards of MQTT, two captures in a level or of one name, and endless topics are no patterns."""
    with pytest.raises(ValueError, match=r"\w"):
        parse(pattern)


def test_the_most_literal_comes_first() -> None:
    """Of several that match, the one with literal text where others capture; captures of many levels last."""
    index = TopicIndex()
    for number, text in enumerate(["z/{device+}", "z/{device}/{part}", "z/{device+}/state", "z/bridge/state"]):
        index.add(parse(text), number)
    assert [number for number, _ in index.match("z/bridge/state")] == [3, 1, 2, 0]
    assert index.match("/".join("x" * 30)) == []


def test_filters_name_the_device_and_nothing_wider() -> None:
    """The device's own names stand literally; what else varies is a wildcard."""
    assert filters(parse("a/{app}/{device}/up"), ["d1", "EUI"]) == ["a/+/d1/up", "a/+/EUI/up"]
    assert filters(parse("z/{device+}"), ["hall/th"]) == ["z/hall/th"]
    assert filters(parse("v/{device}/{rest+}"), ["d1"]) == ["v/d1/#"]
