"""Lints: each finds its mistake, names line, key and what to do, and leaves alone what is right (negative controls)."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.authoring.examples import check_profile
from sensegate.authoring.lint import review_profile
from sensegate.authoring.overlaps import overlaps
from sensegate.config import builtin
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.topics import covers
from sensegate.decode.topics import parse as topic_of

HEAD = "profile: acme/x\nversion: 1\nlabel: {zh: 例, en: x}\nsource: this test\n"
RULE = """messages:
  - topics: ["acme/{device}"]
    readings:
      - {field: t, property: air_temperature}
      - {field: pm, property: pm2_5, unit: ug/m3}
"""
EXAMPLES = """examples:
  - label: good
    topic: acme/d1
    payload: {"t": 21.5, "pm": 35}
    expect:
      - {property: air_temperature, value: 21.5}
      - {property: pm2_5, value: 35}
  - {label: broken, topic: acme/d1, payload: "{", refuse: malformed}
"""


def findings(tmp_path: Path, body: str, name: str = "acme/x") -> list[str]:
    """Return the warnings of a profile, without the file's name."""
    file = tmp_path / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(body, encoding="utf-8")
    review = review_profile(file)
    assert review.profile is not None, review.findings
    return [str(warning).removeprefix(str(file)) for warning in review.findings]


@pytest.mark.parametrize("mistake", [("acme/{device}", ""), ("21.5}", "22.5}")], ids=["no device", "an example fails"])
def test_an_error_comes_alone(tmp_path: Path, mistake: tuple[str, str]) -> None:
    """A profile with errors is not in what is found, and is not searched for mistakes that are only probable."""
    file = tmp_path / "x.yaml"
    file.write_text((HEAD + RULE + EXAMPLES).replace(*mistake), encoding="utf-8")
    review = review_profile(file)
    assert review.profile is None
    assert [str(error) for error in review.findings] == [str(error) for error in check_profile(file)] != []


def test_a_good_profile_has_no_warning(tmp_path: Path) -> None:
    """Negative control of all."""
    assert findings(tmp_path, HEAD + RULE + EXAMPLES) == []


def test_each_part_that_the_template_wrote_is_named(tmp_path: Path) -> None:
    """An untouched profile of `sensegate profile new`: its labels, its source and each of its payloads."""
    template = (builtin.PROFILES / "_template.yaml").read_text(encoding="utf-8")
    untouched = findings(tmp_path, template.replace("vendor/", "acme/").replace("acme/model", "acme/x"))
    assert [text.split(": ")[1] for text in untouched] == [
        "label.zh",
        "label.en",
        "source",
        *(f"examples[{at}]" for at in range(3)),
    ]
    assert untouched[1].endswith("is still 'name of the model', as in the template; write the name of the model")


def test_a_message_behind_one_that_takes_all_is_never_reached(tmp_path: Path) -> None:
    """Ignored without conditions, or the same members without conditions: what comes after is dead."""
    dead = '  - {label: dead, topics: ["acme/{device}"], readings: [{field: t, property: water_temperature}]}\n'
    entry = findings(tmp_path, HEAD + RULE + dead + EXAMPLES)[0]
    assert entry.startswith(":10: messages[1]: is never reached: 'messages[0]' (line 6) takes all its messages;")
    first = '  - {label: all, topics: ["{any}/{device}"], ignore: true}\n'
    second = '  - {topics: ["acme/{device}"], readings: [{field: t, property: co2}]}\n'
    body = HEAD + 'messages:\n  - {topics: ["b/{device}"], readings: [{field: t, property: co2}]}\n' + first + second
    shown = (
        'examples:\n  - {label: good, topic: b/d1, payload: {"t": 400}, expect: [{property: co2, value: 400}]}\n'
        '  - {label: broken, topic: b/d1, payload: "", refuse: malformed}\n'
    )
    warnings = findings(tmp_path, body + shown.replace('payload: ""', 'payload: "{"'))
    assert ":8: messages[2]: is never reached: 'all' (line 7) takes all its messages;" in "".join(warnings)


@pytest.mark.parametrize(
    "second",
    [
        '  - {topics: ["acme/{device}"], where: {k: 1}, readings: [{field: z, property: water_temperature}]}\n',
        '  - {topics: ["acme/{device}"], root: deep, readings: [{field: t, property: water_temperature}]}\n',
        '  - {topics: ["acme/{device}/other"], readings: [{field: t, property: water_temperature}]}\n',
        '  - {topics: ["acme/{device}"], format: number, readings: [{field: ".", property: co2}]}\n',
    ],
)
def test_what_can_be_reached_is_left_alone(tmp_path: Path, second: str) -> None:
    """Other members, another root, topic or format: reached where the first finds nothing."""
    assert not any("never reached" in item for item in findings(tmp_path, HEAD + RULE + second + EXAMPLES))


def test_a_topic_that_another_covers_says_nothing_new(tmp_path: Path) -> None:
    """A literal topic beside a wider one; not where they name another part of it as the device."""
    wide = RULE.replace('["acme/{device}"]', '["acme/{device}", "{any}/{device}"]')
    (entry,) = findings(tmp_path, HEAD + wide + EXAMPLES)
    assert ":6: messages[0].topics[0]: is redundant: {any}/{device} covers it;" in entry
    other = RULE.replace('["acme/{device}"]', '["acme/eui-{device}", "acme/{device}"]')
    assert findings(tmp_path, HEAD + other + EXAMPLES) == []


def test_a_reading_that_no_example_shows(tmp_path: Path) -> None:
    """A mistake in it would go unnoticed; one that is shown as rejected is shown."""
    body = RULE + "      - {field: z, property: water_temperature}\n"
    (entry,) = findings(tmp_path, HEAD + body + EXAMPLES)
    assert entry == ":10: messages[0].readings[2]: no example shows z; a mistake in it would go unnoticed"
    shown = EXAMPLES.replace('"pm": 35}', '"pm": 35, "z": "x"}\n    reject: {z: wrong_type}')
    assert findings(tmp_path, HEAD + body + shown) == []


def test_channels_and_conditions_count_as_shown(tmp_path: Path) -> None:
    """One channel of several shows the rule; so does an element that meets the conditions."""
    body = RULE + '      - {field: "p{channel}", channels: ["1", "2"], property: active_power}\n'
    shown = EXAMPLES.replace('"pm": 35}', '"pm": 35, "p2": 5}').replace(
        "value: 35}\n", "value: 35}\n      - {property: active_power, value: 5}\n"
    )
    assert findings(tmp_path, HEAD + body + shown) == []


def test_a_message_that_no_example_shows(tmp_path: Path) -> None:
    """A whole message without an example is told once, not for each of its readings."""
    second = '  - topics: ["acme/{device}/b"]\n    readings: [{field: a, property: co2}, {field: b, property: pm10}]\n'
    (entry,) = findings(tmp_path, HEAD + RULE + second + EXAMPLES)
    assert "messages[1]: no example shows such a message; add one" in entry


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.035", "0.035 ug/m3 is a thousandth of what is usual for pm2_5"),
        ("2500", "2500 ug/m3 is out of the range of pm2_5"),
    ],
)
def test_an_unlikely_value_is_told(tmp_path: Path, value: str, message: str) -> None:
    """The only example of a property is a thousand off, or impossible: the unit is probably wrong."""
    (entry,) = findings(tmp_path, HEAD + RULE + EXAMPLES.replace("35}", f"{value}}}"))
    assert message in entry
    assert ":16: examples[0].expect[1]: " in entry


def test_an_odd_value_among_usual_ones_shows_a_limit(tmp_path: Path) -> None:
    """A second example in the usual band: the first shows the end of the scale, and is meant."""
    more = EXAMPLES + (
        '  - label: the end of the scale\n    topic: acme/d1\n    payload: {"pm": 2500}\n'
        "    expect: [{property: pm2_5, value: 2500}]\n"
    )
    assert findings(tmp_path, HEAD + RULE + more) == []


def test_words_that_are_no_codes(tmp_path: Path) -> None:
    """A property with a table of codes takes these; a named table is held to it as well."""
    body = RULE + "      - {field: d, property: lift_direction, words: {0: up, 1: downwards}}\n"
    shown = EXAMPLES.replace('"pm": 35}', '"pm": 35, "d": 0}').replace(
        "value: 35}\n", "value: 35}\n      - {property: lift_direction, value: up}\n"
    )
    (entry,) = findings(tmp_path, HEAD + body + shown)
    assert (
        ":10: messages[0].readings[2].words: 'downwards': not a code of lift_direction; codes are up, down, stopped"
        in entry
    )
    assert findings(tmp_path, HEAD + body.replace("downwards", "down") + shown) == []


def test_a_scale_beside_words(tmp_path: Path) -> None:
    """The words already give the value; a scale would change it once more."""
    body = RULE.replace(
        "{field: t, property: air_temperature}", "{field: t, property: air_temperature, words: {1: 21.5}, scale: 2}"
    )
    shown = EXAMPLES.replace('"t": 21.5', '"t": 1').replace("value: 21.5", "value: 43")
    (entry,) = findings(tmp_path, HEAD + body + shown)
    assert "messages[0].readings[0].words: `scale` and `offset` change what `words` give; remove them" in entry


def test_a_shifted_longitude_alone(tmp_path: Path) -> None:
    """Without its latitude it could become no reading."""
    body = RULE + "      - {field: x, property: longitude, datum: gcj02}\n"
    shown = EXAMPLES.replace('"pm": 35}', '"pm": 35, "x": null}\n    ignored: 1')
    assert any("there is no latitude in gcj02 beside it" in item for item in findings(tmp_path, HEAD + body + shown))


def test_an_anchor_that_nobody_uses(tmp_path: Path) -> None:
    """What stands under `shared` and is not referred to can go."""
    body = (
        HEAD
        + "shared:\n  a: &used {field: t, property: air_temperature}\n  b: &idle [1]\n"
        + RULE.replace("{field: t, property: air_temperature}", "*used")
    )
    assert findings(tmp_path, body + EXAMPLES) == [":7: &idle: nothing refers to &idle; remove it"]


# ── several profiles ─────────────────────────────────────────────────────────────────────────────────

GATEWAY = """messages:
  - topics: ["{gateway}/report"]
    each: list
    device: {field: id}
    readings: [{field: t, property: air_temperature}]
"""


def loaded(tmp_path: Path, **bodies: str) -> ProfileSet:
    for name, body in bodies.items():
        (tmp_path / "acme").mkdir(exist_ok=True)
        (tmp_path / "acme" / f"{name}.yaml").write_text(HEAD.replace("acme/x", f"acme/{name}") + body, encoding="utf-8")
    return ProfileSet.load([tmp_path])


def warnings_of(profiles: ProfileSet) -> list[tuple[bool, str]]:
    every = [match for name in profiles.ids if (match := profiles.find(name))]
    return [(warning.note, str(warning)) for warning in overlaps(every)]


def test_the_registry_decides_between_two_that_name_the_device_in_the_topic(tmp_path: Path) -> None:
    """A note: to be known, no mistake."""
    ((note, text),) = warnings_of(loaded(tmp_path, a=RULE, b=RULE.replace("acme/{device}", "{vendor}/{device}")))
    assert note
    assert "acme/a also claims {vendor}/{device} (acme/{device}); the profile of the registered device decides" in text


def test_the_topic_decides_between_two_that_find_the_device_in_the_payload(tmp_path: Path) -> None:
    """A warning that says who wins: the more literal topic."""
    ((note, text),) = warnings_of(
        loaded(tmp_path, a=GATEWAY, b=GATEWAY.replace("{gateway}/report", "{gateway}/{kind}"))
    )
    assert not note
    assert "so acme/a decodes all of it" in text
    assert "b.yaml:6: messages[0].topics" in text


def test_topics_that_do_not_meet_are_not_told(tmp_path: Path) -> None:
    """Another literal level, another number of levels."""
    assert warnings_of(loaded(tmp_path, a=RULE, b=RULE.replace("acme/{device}", "acme/{device}/x"))) == []


@pytest.mark.parametrize(
    ("covering", "other", "so"),
    [
        ("a/{device}", "a/b", True),
        ("a/b", "a/{device}", False),
        ("{x+}", "a/b/c", True),
        ("a/{x+}/c", "a/b/d/c", True),
        ("a/{x+}/c", "a/{y}/{z}/c", True),
        ("a/{x}/c", "a/{y+}/c", False),
        ("a/s-{x}", "a/{y}", False),
        ("a/{y}", "a/s-{x}", True),
        ("a/s-{x}", "a/s-{y}-t", True),
        ("a/s-{x}", "a/s-", False),
        ("a", "a/b", False),
    ],
)
def test_one_pattern_covers_another(covering: str, other: str, so: bool) -> None:  # noqa: FBT001 - a column of a table
    """Every topic of the second is one of the first."""
    assert covers(topic_of(covering), topic_of(other)) is so
