"""The library of profiles: claims do not overlap, every profile says who and what it is.

`test_lint.py` runs the examples.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sensegate.authoring import check_profile
from sensegate.authoring.examples import NamedDevices, message_of
from sensegate.decode import Decoder
from sensegate.decode.profile import CompiledProfile
from sensegate.decode.profiles import files
from tests.support.profiles import ROOT, library

FILES = files([ROOT])
PROFILES = library()
STEP = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 18
"""Each example is shown to every so-manieth other profile, to others each time; under `make fuzz` to all."""


def names(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("file", FILES, ids=names)
def test_profile_is_complete(file: Path) -> None:
    """Two good examples and a refusal, labels in both languages, the source of the layout."""
    profile = PROFILES.find(names(file))
    assert profile is not None
    examples = profile.source.examples
    assert sum(bool(example.expect) for example in examples) >= 2
    assert any(example.refuse for example in examples)
    assert profile.source.label.zh.strip()
    assert profile.source.label.en.strip()
    assert profile.source.source.strip()
    used = {spec.name for spec in (PROFILES.specs[at] for at in profile.specs)}
    assert used


def _speak(profile: CompiledProfile | None) -> set[str]:
    """Return the formats of video metadata of a profile."""
    return {rule.video for rule in profile.rules if rule.video} if profile is not None else set()


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("file", FILES, ids=names)
def test_no_other_profile_claims_the_examples(file: Path) -> None:
    """A recording is matched by its own profile and those of its vendor only, and refused for a device of another."""
    profile = PROFILES.find(names(file))
    assert profile is not None
    vendor = profile.id.partition("/")[0]
    carries = any(rule.chains for rule in profile.rules)  # a network server's: the profiles of its devices take frames
    for number, example in enumerate(profile.source.examples, FILES.index(file)):
        claiming = {rule.profile for rule, _ in PROFILES.match(example.topic)}
        assert {name for name in claiming if name.partition("/")[0] != vendor} == set(), example.label
        for other in PROFILES.ids[number % STEP :: STEP]:
            if other == profile.id or other in claiming or (carries and PROFILES.find(other).carried):  # type: ignore[union-attr]
                continue
            if example.topic.startswith("http/") and _speak(profile) & _speak(PROFILES.find(other)):
                continue  # what is pushed names no topic, and many makes speak one format
            decoder = Decoder(PROFILES, NamedDevices([*example.devices], other, gateway=example.gateway))
            fields = decoder.decode([message_of(example)])
            assert not len(fields), f"{other} also decodes '{example.label}'"


def test_library_is_as_large_as_promised() -> None:
    """At least 150 models, the plain layout among them; the template loads as well."""
    assert len(FILES) >= 150
    assert "sensegate/plain" in PROFILES
    assert check_profile(ROOT / "_template.yaml") == []
