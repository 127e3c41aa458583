"""Two versions over the same messages: every difference is named, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sensegate.authoring.compare import ComparisonReport, VersionComparison, VersionDifference, sets_to_compare
from sensegate.authoring.examples import NamedDevices
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import ProfileError
from sensegate.model import Message

NOW = 1_767_225_600_000_000
HEAD = """\
profile: acme/th
version: {version}
label: {{zh: 温湿度, en: thermometer}}
source: made for the test
messages:
  - label: telemetry
    topics: ["acme/{{device}}/up"]
    time: {{field: at, format: epoch_s}}
    readings:
"""
TEMPERATURE = "      - {field: t, property: air_temperature, unit: Cel, scale: 0.1}\n"
HUMIDITY = "      - {field: h, property: relative_humidity, unit: '%'}\n"
OTHER = """\
profile: acme/other
version: 1
label: {zh: 别的, en: other}
source: made for the test
messages:
  - label: telemetry
    topics: ["other/{device}/up"]
    readings:
      - {field: t, property: air_temperature, unit: Cel}
"""


class Bench:
    """Versions in a folder, messages, and the comparison."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "acme").mkdir()
        (folder / "acme" / "th.yaml").write_text(self.text(1), encoding="utf-8")
        (folder / "acme" / "other.yaml").write_text(OTHER, encoding="utf-8")
        self.base = ProfileSet.load([folder])

    @staticmethod
    def text(version: int, *readings: str, head: str = HEAD) -> str:
        """Return a version with these readings."""
        return head.format(version=version) + "".join(readings or (TEMPERATURE, HUMIDITY))

    def report(
        self, text: str, payloads: Sequence[str], *, topic: str = "acme/{}/up", devices: int = 3
    ) -> ComparisonReport:
        """Return the outcome of comparing the folder's version with another text over some messages of each device."""
        file = self.folder / "new" / "acme" / "th.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
        a, b = sets_to_compare("acme/th", self.base, None, file)
        names = tuple(f"d{number}" for number in range(devices))
        made = [Message(topic.format(name), payload.encode(), NOW, 1) for payload in payloads for name in names]
        comparison = VersionComparison("acme/th", a, b, NamedDevices(names, "acme/th"))
        for first in range(0, len(made), 4):
            comparison.add(made[first : first + 4])
        return comparison.report()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


PAYLOADS = [f'{{"at": {1_767_225_600 + n}, "t": {200 + n}, "h": {40 + n}}}' for n in range(10)]


def differences(report: ComparisonReport) -> set[tuple[str, str, object, object, int]]:
    """Return the differences of the first device."""
    return {
        (difference.kind, difference.property, difference.a, difference.b, difference.count)
        for difference in report.differences
        if difference.device == "d0"
    }


def test_the_same_version_differs_in_nothing(bench: Bench) -> None:
    """The control."""
    report = bench.report(bench.text(2), PAYLOADS)
    assert report.differences == []
    assert (report.messages, report.same, report.more) == (30, 60, 0)
    assert (report.a.version, report.b.version) == ("acme/th@1", "acme/th@2")
    assert (report.a.messages, report.a.values, report.b.values) == (30, 60, 60)


def test_a_wrong_scale_is_named_with_its_factor(bench: Bench) -> None:
    """By device, property, unit, value before and after, count; and how many leave the range."""
    report = bench.report(bench.text(2, TEMPERATURE.replace("0.1", "1"), HUMIDITY), PAYLOADS)
    assert report.same == 30
    assert report.differences[0] == VersionDifference("value", "d0", "air_temperature", "Cel", 20.0, 200.0, 10, 10.0)
    assert [(difference.device, difference.count) for difference in report.differences] == [
        ("d0", 10),
        ("d1", 10),
        ("d2", 10),
    ]
    assert (report.a.outside, report.b.outside) == (0, 30)


def test_another_unit_shows_as_another_value(bench: Bench) -> None:
    """Compared in the property's unit; an offset is no factor."""
    report = bench.report(bench.text(2, TEMPERATURE.replace("Cel", "K"), HUMIDITY), PAYLOADS)
    difference = report.differences[0]
    assert (difference.kind, difference.a, difference.factor) == ("value", 20.0, None)
    assert difference.b == pytest.approx(20.0 - 273.15)


def test_what_only_one_gives(bench: Bench) -> None:
    """A reading taken away, one added, one on another channel."""
    assert differences(bench.report(bench.text(2, TEMPERATURE), PAYLOADS)) == {
        ("only a", "relative_humidity", 40.0, None, 10)
    }


def test_what_the_other_gives(bench: Bench) -> None:
    """As before, the other way round, with a channel."""
    extra = "      - {field: w, property: water_temperature, channel: '2', unit: Cel, scale: 0.1}\n"
    payloads = [payload.replace('"h"', '"w": 200, "h"') for payload in PAYLOADS]
    report = bench.report(bench.text(2, TEMPERATURE, HUMIDITY, extra), payloads)
    assert differences(report) == {("only b", "water_temperature#2", None, 20.0, 10)}


def test_times_that_move(bench: Bench) -> None:
    """Another reading of the time is a difference of each value."""
    head = HEAD.replace("format: epoch_s", "format: epoch_s, stamp: start, period_s: 60")
    report = bench.report(bench.text(2, head=head), PAYLOADS[:1])
    assert differences(report) == {
        ("time", name, "2026-01-01T00:00:00.000000Z", "2026-01-01T00:01:00.000000Z", 1)
        for name in ("air_temperature", "relative_humidity")
    }


def test_refusals_and_rejections(bench: Bench) -> None:
    """A message that one refuses; a value that one rejects; both by reason."""
    payloads = ['{"at": 1767225600, "t": 200}', '{"at": 1767225600, "t": "off", "h": 40}', "no JSON"]
    head = HEAD.replace("    readings:", "    where: {{h: 40}}\n    readings:")
    report = bench.report(bench.text(2, head=head), payloads, devices=1)
    assert differences(report) == {
        ("refusal", "", "decoded", "schema", 1),
        ("only a", "air_temperature", 20.0, None, 1),
    }
    assert report.a.quarantined == {"malformed": 1}
    assert report.b.quarantined == {"malformed": 1, "schema": 1}
    assert report.a.rejected == report.b.rejected == {"wrong_type": 1}
    assert report.messages == 3


def test_a_value_that_one_rejects(bench: Bench) -> None:
    """By field and reason, beside the value that only the other gives."""
    words = "      - {field: t, property: air_temperature, unit: Cel, words: {200: 20}}\n"
    report = bench.report(bench.text(2, words, HUMIDITY), ['{"at": 1767225600, "t": 210, "h": 40}'], devices=1)
    assert differences(report) == {
        ("rejection", "t", "a value", "enumeration", 1),
        ("only a", "air_temperature", 21.0, None, 1),
    }
    assert (report.same, report.b.rejected) == (1, {"enumeration": 1})


def test_messages_of_others_do_not_count(bench: Bench) -> None:
    """Of another profile's topic nothing is told."""
    report = bench.report(bench.text(2, TEMPERATURE.replace("0.1", "1")), PAYLOADS, topic="other/{}/up")
    assert (report.messages, report.differences) == (0, [])


def test_a_file_of_another_profile_is_refused(bench: Bench) -> None:
    """It would compare nothing with nothing."""
    with pytest.raises(ProfileError, match="is profile 'acme/other'"):
        sets_to_compare("acme/th", bench.base, None, bench.folder / "acme" / "other.yaml")
