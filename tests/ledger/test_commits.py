from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledger.commits import Sent, Steps
from tests.ledger.controls import Edit, Stale, replaced


def test_steps_count_between_two_moments() -> None:
    """What was counted after the first and up to the second, whatever the order of near lines."""
    steps = Steps()
    for time, count in ((10, 1), (20, 2), (19, 4), (30, 8)):
        steps.add(time, count)
    assert steps.between(0, 30) == 15
    assert steps.between(10, 20) == 6
    assert steps.between(30, 90) == 0


def test_the_simulators_file_is_read_as_it_grows(tmp_path: Path) -> None:
    """Whole lines only; what the broker drops by its rules is not counted."""
    file = tmp_path / "x.ledger"
    file.write_text("D dev\nI r1 10 plain 4401 dev 5 - pm2_5=1\nI r2 11 refused 4401 dev 5 - pm2_5!1\nI r3 12 pla")
    sent = Sent(file)
    sent.read()
    assert sent.intended["4401"].between(0, 99) == 1
    with file.open("a") as more:
        more.write("in 4401 dev 6 - pm2_5=1\nA r1 20\nA r2 21\n")
    sent.read()
    assert sent.intended["4401"].between(0, 99) == 2
    assert sent.acknowledged["4401"].between(0, 99) == 1


def test_an_edit_keeps_the_depth_of_its_place() -> None:
    """The lines are found at whatever depth they stand, and replaced at the same."""
    text = "def f():\n    if x:\n        a()\n        b()\n"
    edited = replaced(text, Edit("f.py", "a()\nb()\n", "b()\nif y:\n    a()\n"))
    assert edited == "def f():\n    if x:\n        b()\n        if y:\n            a()\n"


@pytest.mark.parametrize("old", ["c()", "a()"])
def test_an_edit_that_does_not_fit_once_is_stale(old: str) -> None:
    """None or two places: the source has moved on, and the control says so instead of testing nothing."""
    with pytest.raises(Stale):
        replaced("a()\nif x:\n    a()\n", Edit("f.py", old, "b()"))
