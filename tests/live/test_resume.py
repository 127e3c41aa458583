"""Seven subscribers at two tiers through kills of subscribers, node and centre; more: `tests.live.resume`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.resume import DELIVERIES, faults, resumed
from tests.live.taker import Kept

pytestmark = [pytest.mark.live, pytest.mark.slow]


async def test_each_delivery_resumes_where_it_stood(tmp_path: Path) -> None:
    """One kill of each: nothing lost, nothing doubled, the order of the log, at node and centre, by all seven."""
    verdict = await resumed(tmp_path, 1, seed=3)
    assert verdict.good, verdict
    assert verdict.published > 20
    assert len(verdict.lost) == 2 * len(DELIVERIES)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [("abcd", (0, 0, 0)), ("abd", (1, 0, 0)), ("abccd", (0, 1, 0)), ("acbd", (0, 0, 1)), ("abcdx", (0, 0, 1))],
)
def test_the_judge_sees_what_is_wrong(taken: str, expected: tuple[int, int, int]) -> None:
    """Lost, doubled, out of order, never on the log; the first is the control."""
    assert faults("abcd", taken) == expected


def test_a_taker_keeps_only_whole_letters(tmp_path: Path) -> None:
    """What was half written when it was killed is taken again; the judge would see it otherwise."""
    file = tmp_path / "taken"
    record = {"cursor": "c1", "id": "i", "device": "d", "value": 1}
    kept = Kept(file, letters=True)
    kept.take([record, record], "m1")
    kept.take([record], "m2")
    with file.open("a") as more:
        more.write('["c9", "i", "d", 1]\n["c9"')
    reopened = Kept(file, letters=True)
    assert reopened.ids == {"m1", "m2"}
    assert file.read_text().count("\n") == 5
    loose = Kept(file, letters=False)
    loose.take([{**record, "cursor": "c7"}])
    with file.open("a") as more:
        more.write('["c9"')
    assert Kept(file, letters=False).last == "c7"
