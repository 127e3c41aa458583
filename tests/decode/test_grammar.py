"""Errors of a profile: file, line, key, what is wrong, the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.authoring.examples import check_profile
from sensegate.decode.grammar import parse
from sensegate.decode.profiles import compile_file
from sensegate.errors import ProfileError

GOOD = """\
profile: acme/x
version: 1
label: {zh: 名, en: name}
source: its manual
messages:
  - topics: ["acme/{device}"]
    time: {field: t, format: iso}
    readings:
      - field: temp
        property: air_temperature
        unit: Cel
"""

R = "messages[0].readings[0]"

BROKEN = [
    ("version: 1", "versoin: 1", "2: versoin: unknown key; did you mean 'version'?"),
    ("version: 1", "version: 0", "2: version: Expected `int` >= 1"),
    ("version: 1", "version: one", "2: version: Expected `int`, got `str`; write a whole number without quotes"),
    ("version: 1", "", "1: Object missing required field `version`; add `version`; device_profiles/README.md says"),
    ("label: {zh: 名, en: name}", "label: x", "3: label: Expected `object`, got `str`; write keys and values: {"),
    ('["acme/{device}"]', "acme/{device}", "6: messages[0].topics: Expected `array`, got `str`; write a list: ["),
    ("acme/x", "acme/x y", "1: profile: is 'acme/x y'; must be 'acme/x', as folder and file are named"),
    ("acme/x", "acme/y", "1: profile: is 'acme/y'; must be 'acme/x', as folder and file are named"),
    ("  - topics", "  - topisc", "6: messages[0].topisc: unknown key; did you mean 'topics'?"),
    ("acme/{device}", "acme/+", "6: messages[0].topics[0]: level '+'"),
    ("acme/{device}", "acme/{name}", "6: messages[0].topics[0]: the topic does not name the device"),
    ("field: temp", "field: a..b", f"9: {R}.field: is not a path from '..b' on"),
    ("        property: air_temperature", "        prop: air_temperature", f"10: {R}.prop: unknown key"),
    ("air_temperature", "air_temprature", f"10: {R}.property: the property 'air_temprature' is unknown; did you mean"),
    ("unit: Cel", "unit: hPa", f"11: {R}.unit: air_temperature: unit 'hPa' (pressure) cannot be converted to 'Cel'"),
    ("unit: Cel", "unit: Celcius", f"11: {R}.unit: air_temperature: "),
    ("unit: Cel", "scale: 0", f"11: {R}.scale: must be finite and not 0"),
    ("unit: Cel", "range: [5, 1]", f"11: {R}.range: low must be below high"),
    ("unit: Cel", "range: [-1000, 1000]", f"11: {R}.range: wider than air_temperature can be"),
    ("unit: Cel", "deadband: -1", f"11: {R}.deadband: must not be negative"),
    ("unit: Cel", "words: {hot: warm}", f"11: {R}.words.hot: 'air_temperature' is a number"),
    ("format: iso", "format: isoo", "7: messages[0].time.format: unknown time format 'isoo'; did you mean 'iso'?"),
    ("format: iso", "zone: Asia/Canton", "7: messages[0].time.zone: unknown zone 'Asia/Canton'"),
    ("format: iso", "stamp: begin", "7: messages[0].time.stamp: Invalid enum value 'begin'"),
    ("format: iso", "stamp: start", "7: messages[0].time.stamp: needs `period_s`"),
    ("    time:", "    format: jsn\n    time:", "7: messages[0].format: unknown format 'jsn'; did you mean 'json'?"),
    ("    time:", "    identity: sequence\n    time:", "7: messages[0].identity: needs `sequence`"),
    ("    time:", "    identity: squence\n    time:", "identity: Invalid enum value 'squence'; did you mean"),
    ("    time:", "    ignore: true\n    time:", "6: messages[0]: a message has one of"),
    ("    time:", "    wrap: '{part}'\n    time:", "7: messages[0].wrap: 'acme/{device}' does not capture {part}"),
    ("unit: Cel", "channels: [a]", f"9: {R}.field: 'temp': {{channel}} and `channels` belong together"),
    ("unit: Cel", "unit: Cel\n        unit: K", "12: unit: the key occurs twice; keep one of them"),
    ("    time:", "    device: {field: id}\n    time:", "6: messages[0].topics[0]: any device could publish"),
    ("messages:", "messages: [", "not YAML"),
    ("messages:", "examples: &a [*a]\nmessages:", "1: is nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "error"), BROKEN, ids=[item[1][:30] for item in BROKEN])
def test_error_names_line_key_and_remedy(tmp_path: Path, old: str, new: str, error: str) -> None:
    """A wrong profile is refused with the place of the mistake."""
    (tmp_path / "acme").mkdir()
    file = tmp_path / "acme" / "x.yaml"
    file.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        compile_file(file, [])
    assert error in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert str(check_profile(file)[0]) == str(caught.value)


def test_good_profile_is_compiled(tmp_path: Path) -> None:
    """The text that the tests above break is good."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "x.yaml").write_text(GOOD, encoding="utf-8")
    assert compile_file(tmp_path / "acme" / "x.yaml", []).name == "acme/x@1"


def test_yaml_words_are_what_they_look_like() -> None:
    """ON, off, yes, dates and 010 stay text or decimal: YAML 1.2, not 1.1."""
    text = GOOD.replace("unit: Cel", "missing: [ON, off, yes, 2026-01-01, 12:30:00, 1e3, 010, true, -999]")
    source, _ = parse(text)
    missing = source.messages[0].readings[0].missing
    assert missing == ("ON", "off", "yes", "2026-01-01", "12:30:00", 1000.0, "010", True, -999)


def test_anchors_that_multiply_are_refused() -> None:
    """A few lines that stand for millions of nodes do not fill the memory."""
    bomb = "shared:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ProfileError, match="too many nodes"):
        parse(GOOD + bomb)


def test_file_that_cannot_be_read_is_an_error_of_the_profile(tmp_path: Path) -> None:
    """No OSError leaves the loader."""
    with pytest.raises(ProfileError, match="cannot be read"):
        compile_file(tmp_path / "acme" / "none.yaml", [])
