"""What the service root says of conformance is what the table of requirements shows."""

from __future__ import annotations

from sensegate.sensorthings.conformance import REQUIREMENTS
from tests.house import sensorthings


def test_every_requirement_that_holds_has_a_test_that_exists() -> None:
    """Each row by the standard's own name, once; one that is open says why."""
    assert sensorthings.without_test() == []
    names = [row["requirement"] for row in sensorthings.rows()]
    assert len(names) == len(set(names))
    assert [row for row in sensorthings.rows() if row["holds"] == "no" and not row["note"]] == []


def test_the_service_root_names_the_classes_that_hold() -> None:
    """A class of which each requirement holds, or its one requirement; none that is open."""
    holding = {name for name, states in sensorthings.classes().items() if states == {"yes"}}
    named = {next(name for name in sensorthings.classes() if text.startswith(name)) for text in REQUIREMENTS}
    assert named == holding
