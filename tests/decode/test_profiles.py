"""The set of profiles: loading, reloading, topics of a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.authoring.examples import check_profile
from sensegate.decode import ProfileSet
from sensegate.errors import ProfileError

TEXT = """\
profile: acme/{model}
version: {version}
label: {{zh: 名, en: name}}
source: its manual
messages:
  - topics: ["acme/{{device}}", "{{gateway}}/{model}/{{device}}"]
    readings:
      - {{field: a, property: {property}}}
"""


def write(folder: Path, model: str, version: int = 1, prop: str = "air_temperature") -> Path:
    (folder / "acme").mkdir(exist_ok=True)
    file = folder / "acme" / f"{model}.yaml"
    file.write_text(TEXT.format(model=model, version=version, property=prop), encoding="utf-8")
    return file


def test_broken_profile_keeps_the_last_good_version(tmp_path: Path) -> None:
    """A reload takes what is good, keeps what has become wrong as it was, and says what is wrong."""
    write(tmp_path, "x")
    write(tmp_path, "y")
    first = ProfileSet.load([tmp_path])
    write(tmp_path, "x", 2, "no_such_property")
    write(tmp_path, "y", 2, "relative_humidity")
    second = first.reload([tmp_path])
    assert second.versions == {"acme/x": 1, "acme/y": 2}
    assert [problem.key for problem in second.problems] == ["messages[0].readings[0].property"]
    assert second.specs[: len(first.specs)] == first.specs, "indices handed out stay true"
    assert second.find("acme/y@2") is second.find("acme/y")
    with pytest.raises(ProfileError):
        ProfileSet.load([tmp_path])
    (tmp_path / "acme" / "x.yaml").unlink()
    third = second.reload([tmp_path])
    assert third.ids == ["acme/y"]
    assert third.find("acme/y") is second.find("acme/y"), "what did not change is not compiled again"


def test_topics_of_a_device_name_it(tmp_path: Path) -> None:
    """Every topic of its profile, with its names in place; unknown profiles give no rights."""
    write(tmp_path, "x")
    profiles = ProfileSet.load([tmp_path])
    assert profiles.topics_of("acme/x", ["d1", "EUI"]) == ["acme/d1", "acme/EUI", "+/x/d1", "+/x/EUI"]
    assert profiles.topics_of("acme/none", ["d1"]) == []
    assert profiles.topics_at_qos0() == []
    assert "acme/x" in profiles
    assert len(profiles) == 1


def test_topics_of_a_gateway_are_not_those_of_its_devices(profiles: ProfileSet) -> None:
    """Where the payload names the device, only the gateway's connection may publish."""
    assert profiles.topics_of("citysense/street-lamp", ["l1"], []) == []
    assert profiles.topics_of("citysense/street-lamp", ["l1"], ["g1"]) == ["citysense/lamp/g1/report"]
    assert profiles.topics_of("sensegate/plain", ["d1"], ["g1"]) == ["sg/d1/up", "sg/d1/status"]


def test_profiles_of_qos_0_give_the_topics_to_listen_to(tmp_path: Path) -> None:
    """Only what says `qos: 0` is taken at best effort, for every device."""
    file = write(tmp_path, "x")
    file.write_text(file.read_text(encoding="utf-8") + "qos: 0\n", encoding="utf-8")
    write(tmp_path, "y")
    assert ProfileSet.load([tmp_path]).topics_at_qos0() == ["acme/+", "+/x/+"]


def test_two_files_of_one_profile_are_refused(tmp_path: Path) -> None:
    """An id stands for one file."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "x")
    with pytest.raises(ProfileError, match="is also in"):
        ProfileSet.load([tmp_path])


def test_examples_that_do_not_hold_are_told(tmp_path: Path) -> None:
    """Negative control: each way in which an example can fail is reported with its line."""
    file = write(tmp_path, "x")
    head = file.read_text(encoding="utf-8")
    good = "  - {label: good, topic: acme/d1, payload: {a: 1}, expect: [{property: air_temperature, value: 1}]}\n"
    bad = "  - {label: bad, topic: acme/d1, payload: '{', refuse: malformed}\n"
    wrong = [
        ("value: 1}", "value: 2}", "no air_temperature = 2"),
        ("value: 1}", "value: 1, time: '2026-01-01T00:00:01Z'}", "air_temperature = 1 differs by its time alone"),
        ("expect: [{property: air_temperature, value: 1}]", "expect: []", "not expected: d1 air_temperature (a) = 1.0"),
        ("payload: {a: 1}", "payload: {b: 1}", "refused: no_values"),
        ("topic: acme/d1", "topic: acme/x", "registered; the devices of this example are d1: use such a name in topic"),
        ("payload: {a: 1}", "payload: {a: x}", "expected rejections none, saw {'a': 'wrong_type'}"),
        ("payload: {a: 1}", "payload_b64: '?'", "Only base64 data is allowed"),
        ("payload: '{'", "payload: {a: 1}", "expected refusal malformed, saw readings"),
        ("refuse: malformed", "refuse: schema", "expected refusal schema, saw malformed"),
        (bad, "", "no example shows a refusal"),
        (good, "", "no example has readings"),
    ]
    file.write_text(head + "examples:\n" + good + bad, encoding="utf-8")
    assert check_profile(file) == []
    for old, new, problem in wrong:
        file.write_text(head + "examples:\n" + (good + bad).replace(old, new, 1), encoding="utf-8")
        problems = [str(problem) for problem in check_profile(file)]
        assert any(problem in item for item in problems), (problem, problems)
        assert problems[0].startswith(f"{file}:")
