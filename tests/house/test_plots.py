"""The plots of the benchmarks show the results that are committed."""

from __future__ import annotations

import copy

import pytest

from tests.bench import plots, results


@pytest.mark.parametrize("name", sorted(plots.PLOTS))
def test_a_plot_is_drawn_from_its_result(name: str) -> None:
    """`make docs` would change nothing. Control: another result gives another plot."""
    result = results.latest()[name]
    drawn = plots.draw(name, result)
    assert drawn == (plots.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    other = copy.deepcopy(result) | {"date": "1970-01-01"}
    assert plots.draw(name, other) != drawn


def test_a_side_without_a_result_is_not_drawn() -> None:
    """Peers are optional."""
    result = copy.deepcopy(results.latest()["compare"])
    del result["sides"]["thingsboard"]
    text = plots.draw("compare", result)
    assert "ThingsBoard" not in text
    assert "Node-RED" in text
