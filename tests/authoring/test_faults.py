"""All faults of a profile in one run, times that differ alone, and expectations that are written from what was seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sensegate.authoring.accept import accept
from sensegate.authoring.examples import check_profile
from sensegate.cli import app

GOOD = """
profile: acme/x
version: 1
label: {zh: 甲, en: X}
source: the maker's document
messages:
  - topics: ["acme/{device}/up"]
    time: {field: at, format: epoch_s}
    readings:
      - {field: temp, property: air_temperature}
      - {field: hum, property: relative_humidity}
examples:
  - label: warm # as in the manual
    topic: acme/d1/up
    payload: {temp: 21.5, hum: 60, at: 1767225000}
    expect:
      - {property: air_temperature, value: 21.5, time: "2025-12-31T23:50:00Z"}
      - {property: relative_humidity, value: 60, time: "2025-12-31T23:50:00Z"}
  # the next one is no JSON
  - {label: broken, topic: acme/d1/up, payload: "{", refuse: malformed}
"""


def written(folder: Path, text: str) -> Path:
    """Write a profile where its name says."""
    file = folder / "acme" / "x.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def problems(folder: Path, text: str) -> list[str]:
    """Return what is wrong with a profile, without the file's name."""
    file = written(folder, text)
    return [str(problem).removeprefix(f"{file}:") for problem in check_profile(file)]


def test_all_faults_are_told_in_one_run(tmp_path: Path) -> None:
    """A wrong unit, an unknown property, a wrong type, an unknown key, a time format: each with its own line."""
    text = GOOD.replace("property: relative_humidity}\n", "property: relative_humidty}\n", 1)
    text = text.replace("property: air_temperature}\n", "property: air_temperature, unit: degF}\n", 1)
    text = text.replace("version: 1", "version: one").replace("source:", "sorce:").replace("epoch_s", "epoch_x")
    faults = problems(tmp_path, text)
    assert [fault.split(":")[0] for fault in faults] == ["3", "5", "8", "10", "11"]
    assert "did you mean '[degF]'" in faults[3]
    assert "relative_humidity" in faults[4]


def test_the_first_of_many_faults_is_the_one_that_the_gateway_names(tmp_path: Path) -> None:
    """A profile without faults has none; several in one reading are told one after the other."""
    assert problems(tmp_path, GOOD) == []
    faults = problems(tmp_path, GOOD.replace("field: hum, property", "feild: hum, porperty"))
    assert len(faults) == 2
    assert all("unknown key" in fault for fault in faults)


@pytest.mark.parametrize(
    ("change", "into", "count"),
    [
        ('["acme/{device}/up"]', '["acme/up"]', 1),
        ("{field: at, format: epoch_s}", "{format: epoch_s}", 1),
        ("profile: acme/x", "profile: acme/y", 1),
        ("profile: acme/x", "profile: nothing", 1),
        ("field: hum", "field: temp", 1),
        ("expect:", "expct:", 1),
        ("property: relative_humidity}\n", "property: 7}\n", 1),
        ("messages:", "messages: []\nshared:", 1),
        ("version: 1", "", 1),
        ("version: 1", ": [", 1),
    ],
)
def test_one_fault_is_told_once(tmp_path: Path, change: str, into: str, count: int) -> None:
    """What follows of a fault is no fault of its own."""
    assert len(problems(tmp_path, GOOD.replace(change, into, 1))) == count


def test_an_example_that_fails_by_its_time_alone_says_so(tmp_path: Path) -> None:
    """Property and value are right: the time that was expected, and the one that was seen."""
    (fault,) = problems(tmp_path, GOOD.replace('value: 60, time: "2025-12-31T23:50:00Z"', "value: 60"))
    assert "differs by its time alone" in fault
    assert "expected 2026-01-01T00:00:00+00:00, the time of arrival, saw 2025-12-31T23:50:00+00:00" in fault
    (fault,) = problems(tmp_path, GOOD.replace("value: 60,", "value: 61,"))
    assert "no relative_humidity = 61" in fault


def test_an_example_that_fails_is_named_by_its_number(tmp_path: Path) -> None:
    """Two examples fail: each error has the key of its own, and says which field's value was expected."""
    twice = GOOD.replace(
        "  # the next one", GOOD.partition("examples:\n")[2].partition("  # the next one")[0] + "  # the"
    )
    text = twice.replace("air_temperature, value: 21.5", "air_temperature, field: temp, value: 22")
    first, second = problems(tmp_path, text)
    assert [fault.split(": ")[1] for fault in (first, second)] == ["examples[0]", "examples[1]"]
    for fault in (first, second):
        assert "no air_temperature (temp) = 22; saw d1 air_temperature (temp) = 21.5 at" in fault
    (channel,) = problems(tmp_path, GOOD.replace("value: 21.5", "value: 21.5, channel: a, quality: suspect"))
    assert "no air_temperature = 21.5, suspect, channel a; saw d1 air_temperature (temp) = 21.5" in channel


def test_accepted_values_are_what_was_seen(tmp_path: Path) -> None:
    """Only expectations that failed are rewritten; comments and other examples stay."""
    file = written(tmp_path, GOOD.replace("value: 21.5", "value: 99").replace("value: 60", "value: 61"))
    assert accept(file) == ["warm"]
    assert check_profile(file) == []
    text = file.read_text(encoding="utf-8")
    assert "# as in the manual" in text
    assert "# the next one is no JSON" in text
    assert '{property: air_temperature, value: 21.5, time: "2025-12-31T23:50:00Z"}' in text
    assert accept(file) == []


def test_examples_in_one_line_are_accepted_too(tmp_path: Path) -> None:
    """An example in flow style becomes one in lines."""
    text = GOOD.split("examples:", maxsplit=1)[0] + (
        "examples:\n"
        "  - {label: warm, topic: acme/d1/up, payload: {temp: 21.5, at: 1767225000}, expect: []}\n"
        '  - {label: broken, topic: acme/d1/up, payload: "{", refuse: malformed}\n'
    )
    file = written(tmp_path, text)
    assert accept(file) == ["warm"]
    assert check_profile(file) == []


def test_a_refused_example_is_not_accepted(tmp_path: Path) -> None:
    """There are no values to write."""
    file = written(tmp_path, GOOD.replace("{temp: 21.5, hum: 60, at: 1767225000}", "[1]"))
    before = file.read_text(encoding="utf-8")
    assert accept(file) == []
    assert file.read_text(encoding="utf-8") == before


def test_the_command_accepts_one_profile(tmp_path: Path) -> None:
    """It says which example was changed, runs the examples, and wants a name."""
    written(tmp_path, GOOD.replace("value: 60", "value: 61"))
    runner = CliRunner()
    result = runner.invoke(app, ["profile", "test", "acme/x", "--profiles", str(tmp_path), "--accept"])
    assert result.exit_code == 0, result.output
    assert "example 'warm' expects now what it gives" in result.output
    assert runner.invoke(app, ["profile", "test", "--profiles", str(tmp_path), "--accept"]).exit_code != 0
