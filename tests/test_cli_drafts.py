"""`sensegate profile new --from`: recorded messages to a draft, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sensegate.authoring.examples import check_profile
from sensegate.cli import app
from sensegate.decode.grammar import parse
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import ConfigError
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.examination import examine

RUNNER = CliRunner()
FOLDER = Path(__file__).parents[1] / "device_profiles"


def call(*arguments: str) -> Result:
    return RUNNER.invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Twenty messages of one station and three of another make."""
    lines = [
        {
            "topic": f"acme/st-{at % 2:04}/up",
            "payload": json.dumps({"ts": 1767225600 + at * 60, "temp": 215 + at, "hum": 60.5}),
            "at": 1767225601 + at * 60,
        }
        for at in range(20)
    ]
    lines += [{"topic": "beta/0007/x", "payload_b64": "zikA", "at": 1767225601} for _ in range(3)]
    file = tmp_path / "recorded.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


def test_a_draft_is_written_and_reported(recorded: Path, tmp_path: Path) -> None:
    """The file is a profile that `check` takes; the table says what was guessed and why."""
    folder = tmp_path / "device_profiles"
    result = call(
        "profile", "new", "acme/station", "--from", str(recorded), "--topic", "acme/#", "--profiles", str(folder)
    )
    assert result.exit_code == 0
    file = folder / "acme" / "station.yaml"
    assert check_profile(file) == []
    rows = {reading.field: reading for reading in parse(file.read_text(encoding="utf-8"))[0].messages[0].readings}
    assert (rows["temp"].property, rows["temp"].scale) == ("air_temperature", 0.1)
    assert "guess" in result.output
    assert "a draft of 20 messages" in result.output


def test_a_new_profile_has_the_topics_of_its_vendor(tmp_path: Path) -> None:
    """The template's vendor is left in no line: two new profiles would claim one topic."""
    (tmp_path / "_template.yaml").write_text((FOLDER / "_template.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    result = call("profile", "new", "terra/sm1", "--profiles", str(tmp_path))
    text = (tmp_path / "terra" / "sm1.yaml").read_text(encoding="utf-8")
    assert "vendor" not in text.replace("<vendor>", "")
    assert 'topics: ["terra/{device}/up"]' in text
    assert "sensegate check" in result.output
    assert "\nprofile: terra/sm1" in text


def test_without_a_name_one_is_made_up(recorded: Path, tmp_path: Path) -> None:
    """The topic names it; a profile that exists already is not written over."""
    arguments = ("profile", "new", "--from", str(recorded), "--topic", "acme/+/up", "--profiles", str(tmp_path))
    assert call(*arguments).exit_code == 0
    assert (tmp_path / "acme" / "up.yaml").exists()
    with pytest.raises(ConfigError, match="exists already"):
        call(*arguments)


def test_a_draft_can_be_printed(recorded: Path, tmp_path: Path) -> None:
    """`--print` writes no file; all kinds of messages stand in it, also those of bytes."""
    result = call("profile", "new", "acme/all", "--from", str(recorded), "--print", "--profiles", str(tmp_path))
    assert "profile: acme/all" in result.output
    assert "byte 0: always 0xce" in result.output
    assert not (tmp_path / "acme").exists()


def test_nothing_recorded_is_an_error(recorded: Path, tmp_path: Path) -> None:
    """A topic that no message has, or no name where there is nothing to make one of."""
    with pytest.raises(ConfigError, match="holds no matching message"):
        call("profile", "new", "a/b", "--from", str(recorded), "--topic", "gamma/#", "--profiles", str(tmp_path))
    with pytest.raises(ConfigError, match="not a profile name"):
        call("profile", "new", "--profiles", str(tmp_path))


def test_a_written_profile_is_a_draft_and_not_in_force(recorded: Path, tmp_path: Path) -> None:
    """From messages, from the template or imported: a folder lists it until `draft: true` is removed."""
    folder = tmp_path / "device_profiles"
    assert call("profile", "new", "acme/learned", "--from", str(recorded), "--profiles", str(folder)).exit_code == 0
    assert call("profile", "new", "acme/template", "--profiles", str(folder)).exit_code == 0
    exposes = [{"type": "numeric", "name": "temperature", "property": "temperature", "access": 1, "unit": "°C"}]
    file = tmp_path / "exposes.json"
    file.write_text(json.dumps([{"model": "X-1", "vendor": "Acme", "exposes": exposes}]), encoding="utf-8")
    assert call("profile", "import", str(file), "--into", str(folder)).exit_code == 0
    problems = ProfileSet([], []).reload([folder])
    assert problems.ids == []
    assert [problem.problem for problem in problems.problems] == ["is a draft and not in force"] * 3
    for written in folder.rglob("*.yaml"):
        text = written.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=../_schema.json\n")
        written.write_text(text.replace("draft: true", "draft: false"), encoding="utf-8")
    assert len(ProfileSet([], []).reload([folder]).ids) == 3


def test_a_version_that_says_draft_is_not_proposed(recorded: Path, tmp_path: Path) -> None:
    """It is stored as a draft with the problem; a proposal may have none."""
    folder = tmp_path / "device_profiles"
    assert call("profile", "new", "acme/learned", "--from", str(recorded), "--profiles", str(folder)).exit_code == 0
    text = (folder / "acme" / "learned.yaml").read_text(encoding="utf-8")
    assert any("draft" in problem for problem in examine(Content(text)).problems)
    assert not any("draft" in problem for problem in examine(Content(text.replace("draft: true", ""))).problems)
