"""`sensegate check`: errors like a good compiler's, warnings and notes apart, all of it as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sensegate.cli import app
from sensegate.cli.findings import caret, excerpt
from sensegate.errors import ConfigError

RUNNER = CliRunner()
GOOD = """profile: acme/x
version: 1
label: {zh: 温度计, en: x}
source: this test
messages:
  - topics: ["acme/{device}"]
    readings:
      - {field: t, property: air_temperature, unit: Cel}
examples:
  - label: good
    topic: acme/d1
    payload: {"t": 21.5}
    expect: [{property: air_temperature, value: 21.5}]
  - {label: broken, topic: acme/d1, payload: "{", refuse: malformed}
"""


def call(*arguments: str) -> Result:
    return RUNNER.invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A folder with one good profile."""
    file = tmp_path / "acme" / "x.yaml"
    file.parent.mkdir()
    file.write_text(GOOD, encoding="utf-8")
    return file


def test_a_folder_without_a_file_to_check_is_refused(tmp_path: Path) -> None:
    """A profile under another ending, or a folder misspelt in a build, is no success."""
    (tmp_path / "th10.yml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"nothing to check in .*end with \.yaml"):
        call("check", str(tmp_path))


def test_a_good_profile_says_nothing(profile: Path) -> None:
    """No finding, exit 0."""
    result = call("check", str(profile))
    assert result.exit_code == 0
    assert result.output == "1 file, 0 problems, 0 warnings\n"


@pytest.mark.parametrize(
    ("old", "new", "first", "marked"),
    [
        ("air_temperature, unit", "air_temprature, unit", "did you mean 'air_temperature'?", "air_temprature"),
        ("unit: Cel", "unit: hPa", "cannot be converted to 'Cel' (temperature)", "hPa"),
        ("unit: Cel", "units: Cel", "unknown key; did you mean 'unit'?", "units"),
        ("version: 1", "version: 1\nversion: 2", "the key occurs twice; keep one of them", "version"),
        ('["acme/{device}"]', '["acme/d", "acme/{device}"]', "the topic does not name the device", '"acme/d"'),
        ("value: 21.5", "value: 21.6", "no air_temperature = 21.6", "label: good"),
        ("version: 1", "version: one", "Expected `int`", "one"),
    ],
)
def test_an_error_shows_its_line_with_a_caret(profile: Path, old: str, new: str, first: str, marked: str) -> None:
    """The one line for programs first, then the line of the file, then what is meant in it."""
    profile.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    result = call("check", str(profile))
    assert result.exit_code == 1
    line, source, carets, *_ = result.output.splitlines()
    assert line.startswith(f"{profile}:")
    assert first in line
    number, _, shown = source.partition(" | ")
    assert line.startswith(f"{profile}:{number.strip()}: ")
    place = carets.index("^")
    width = carets.count("~") + 1
    assert source[place : place + width].startswith(marked)
    assert shown == profile.read_text(encoding="utf-8").splitlines()[int(number) - 1]


def test_warnings_are_told_and_do_not_fail(profile: Path) -> None:
    """A reading without an example is no error; --strict makes it one."""
    more = "      - {field: z, property: co2}\nexamples:"
    profile.write_text(GOOD.replace("examples:", more), encoding="utf-8")
    result = call("check", str(profile))
    assert result.exit_code == 0
    assert "no example shows z" in result.output
    assert "[warning]" in result.output
    assert call("check", "--strict", str(profile)).exit_code == 1


def test_notes_are_shown_when_asked_for(profile: Path) -> None:
    """Two profiles of one topic: to be known, shown with --notes."""
    other = profile.with_name("y.yaml")
    other.write_text(GOOD.replace("acme/x", "acme/y"), encoding="utf-8")
    assert "also claims" not in call("check", str(profile.parent)).output
    shown = call("check", "--notes", str(profile.parent))
    assert shown.exit_code == 0
    assert "acme/x also claims acme/{device}" in shown.output


def test_findings_as_json(profile: Path) -> None:
    """Severity, place and words of each; `problems` stays the list of lines."""
    profile.write_text(GOOD.replace("unit: Cel", "unit: hPa"), encoding="utf-8")
    answer = json.loads(call("check", "--json", str(profile)).output)
    (row,) = answer["findings"]
    assert answer["problems"] == [row["text"]]
    assert (row["severity"], row["line"], row["column"]) == ("error", 8, 53)
    assert row["key"] == "messages[0].readings[0].unit"
    assert row["file"] == str(profile)


@pytest.mark.parametrize(
    ("line", "key", "suggestion"),
    [
        ("  range: [1, 5] # c", "messages[0].range", "[1, 5]"),
        ("  - {a: 'x, y', unit: hPa}", "m.unit", "hPa"),
        ('  topics: ["a,b", "c"]', "m.topics[1]", '"c"'),
        ("  readings:", "m.readings", "readings"),
        ("  words: {0: a}", "m.words", "{0: a}"),
        ("  - 5", "m[0]", "5"),
        ("  b: &idle [1]", "&idle", "&idle"),
    ],
)
def test_what_is_meant_in_a_line(tmp_path: Path, line: str, key: str, suggestion: str) -> None:
    """The value of the key; the key where the value begins below; the item of a list."""
    file = tmp_path / "x.yaml"
    file.write_text(line + "\n", encoding="utf-8")
    column, length = caret(ConfigError("x", file=str(file), line=1, key=key))
    assert line[column - 1 : column - 1 + length] == suggestion


@pytest.mark.parametrize(
    ("line", "key"),
    [("divsion: 4401", "divsion"), ("web: {prot: 1}", "web.prot"), ('  - {"uni": Cel, unit: x}', "m[0].r[1].uni")],
)
def test_an_unknown_key_is_marked_itself(tmp_path: Path, line: str, key: str) -> None:
    """The caret stands under the misspelt key, not under its value; quotes are not marked."""
    file = tmp_path / "x.yaml"
    file.write_text(line + "\n", encoding="utf-8")
    column, length = caret(ConfigError("unknown key", file=str(file), line=1, key=key))
    assert line[column - 1 : column - 1 + length] == key.rpartition(".")[2]


def test_carets_stand_under_wide_letters(tmp_path: Path) -> None:
    """Chinese letters are two columns wide; a very long line is cut around the place."""
    file = tmp_path / "x.yaml"
    file.write_text("label: {zh: 温度计, en: 5}\n" + "a" * 500 + ": {unit: hPa}\n", encoding="utf-8")
    _, marks = excerpt(ConfigError("x", file=str(file), line=1, key="label.en"))
    assert marks.index("^") == len("     1 | ") + len("label: {zh: ") + 6 + len(", en: ")
    source, marks = excerpt(ConfigError("x", file=str(file), line=2, key="unit"))
    assert source[marks.index("^") :].startswith("hPa")
    assert excerpt(ConfigError("x", file=str(tmp_path / "gone"), line=1)) == []
