"""Alarm rules of profiles: checked with the profile, in force with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.alarms.feature import _profile_rules
from sensegate.alarms.rules import AlarmKind, Severity
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import ProfileError

PLAIN = (Path(__file__).parents[2] / "device_profiles" / "sensegate" / "plain.yaml").read_text(encoding="utf-8")


def profile(folder: Path, alarms: str) -> ProfileSet:
    """Return the plain profile with alarm rules."""
    (folder / "sensegate").mkdir()
    (folder / "sensegate" / "plain.yaml").write_text(f"{PLAIN}\nalarms:\n{alarms}", encoding="utf-8")
    return ProfileSet.load([folder])


def test_rules_of_a_profile_are_in_force_with_it(tmp_path: Path) -> None:
    """Named after the profile, for its devices only, wherever they are."""
    profiles = profile(tmp_path, "  - {name: quiet, kind: silence, after_s: 600, severity: major}\n")
    (rule,) = _profile_rules(lambda: profiles.alarms)()
    assert (rule.name, rule.kind, rule.profile) == ("sensegate/plain:quiet", AlarmKind.SILENCE, "sensegate/plain")
    assert (rule.severity, rule.after_s, rule.place.division) == (Severity.MAJOR, 600.0, "")


@pytest.mark.parametrize(
    ("alarm", "words"),
    [
        ("{name: Big, kind: silence}", "lower-case letters"),
        ("{name: a, kind: threshold, property: nothing, above: 1}", "no reading of this profile"),
        ("{name: a, kind: change, property: nothing}", "no reading of this profile"),
        ("{name: a, kind: quality}", "quality"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_line(tmp_path: Path, alarm: str, words: str) -> None:
    """When the profile is loaded, not when the alarm is needed."""
    with pytest.raises(ProfileError, match=words):
        profile(tmp_path, f"  - {alarm}\n")
