"""The library under the lamp: examples give what they say, no profile has a warning, none claims what another decodes.

Profiles whose examples are known to be weak (`weak.txt`) may still have readings that no example shows.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.authoring.lint import review_profile
from sensegate.authoring.overlaps import overlaps
from sensegate.decode.profiles import files
from tests.profiles.mutations import ROOT, WEAK
from tests.support.profiles import library

FILES = files([ROOT])


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_neither_error_nor_warning(file: Path) -> None:
    """Each example becomes exactly what it states; everything is reached, shown, likely, and used."""
    warnings = [str(warning) for warning in review_profile(file).findings]
    if f"{file.parent.name}/{file.stem}" in WEAK:
        warnings = [item for item in warnings if "no example shows" not in item]
    assert warnings == []


def test_no_topic_is_decided_by_chance() -> None:
    """Where two profiles claim a topic, the registry decides, never the letters of the topic."""
    loaded = library()
    every = [match for name in loaded.ids if (match := loaded.find(name))]
    assert [str(warning) for warning in overlaps(every) if not warning.note] == []
