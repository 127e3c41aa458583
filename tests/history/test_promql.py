"""The subset of PromQL: what it takes, what it refuses with a sentence, and its values."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.history.promql import RANGE_FUNCTIONS, BadQuery, PromqlParser, Selector, is_number, selectors_of
from sensegate.history.promql_eval import Evaluation, Series, StepValues

PARSER = PromqlParser()
SECOND = 1_000_000
DEVICES = {"a": "440106", "b": "440106", "c": "4403"}


def evaluation(query: str, samples: dict[str, list[tuple[int, float]]], steps: list[int]) -> list[StepValues]:
    """Return the values of a query over series by device; times in seconds."""
    expression = PARSER.parse(query)
    series = [
        Series(
            (("__name__", "x"), ("device", device), ("division", DEVICES[device])),
            np.array([at * SECOND for at, _ in rows], np.int64),
            np.array([value for _, value in rows]),
        )
        for device, rows in samples.items()
    ]
    by_selector = {selector: series for selector, _ in selectors_of(expression)}
    made = Evaluation(by_selector, np.array(steps, np.int64) * SECOND, 300 * SECOND)
    return made.values(expression)


def values(query: str, samples: dict[str, list[tuple[int, float]]], steps: list[int]) -> dict[str, list[float]]:
    """Return the values by device, or by division where there is none."""
    rows = evaluation(query, samples, steps)
    return {dict(row.labels).get("device") or dict(row.labels).get("division", ""): row.values.tolist() for row in rows}


MINUTES = {"a": [(60 * number, 10.0 * number) for number in range(11)]}


def test_a_sample_holds_for_the_lookback() -> None:
    """Until five minutes after it, exclusively; an offset looks back."""
    samples: dict[str, list[tuple[int, float]]] = {"a": [(100, 1.5)]}
    result = values("x", samples, [99, 100, 399, 400])["a"]
    assert [math.isnan(value) for value in result] == [True, False, False, True]
    assert values("x offset 5m", MINUTES, [600])["a"] == [50.0]


def test_rates_of_counters() -> None:
    """Regular samples give the slope; a reset counts on; the first value of a counter is not extrapolated below 0."""
    assert values("rate(x[5m])", MINUTES, [600])["a"] == [pytest.approx(10 / 60)]
    assert values("increase(x[5m])", MINUTES, [600])["a"] == [pytest.approx(50.0)]
    reset = {"a": [(0, 100.0), (60, 110.0), (120, 5.0), (180, 15.0)]}
    # 10 + 5 + 10 over 180 s of samples, extrapolated to 240 s (30 s at the begin, where the range is longer than that).
    assert values("increase(x[4m])", reset, [210])["a"] == [pytest.approx(25 * (180 + 30 + 30) / 180)]
    assert values("delta(x[4m])", reset, [210])["a"] == [pytest.approx(-85 * (180 + 30 + 30) / 180)]
    assert math.isnan(values("rate(x[1m])", MINUTES, [630])["a"][0])


SAMPLES = st.lists(st.tuples(st.integers(0, 40), st.floats(-1e6, 1e6)), min_size=1, max_size=20).map(
    lambda rows: sorted({at * 30: value for at, value in rows}.items())
)


@given(SAMPLES, st.sampled_from([name for name in RANGE_FUNCTIONS if name.endswith("_over_time")]))
def test_over_time_equals_a_calculation(rows: list[tuple[int, float]], function: str) -> None:
    """Each function of the samples in the half-open range before each step."""
    steps = [0, 137, 600, 1_200]
    oracles: dict[str, Any] = {
        "avg_over_time": np.mean,
        "count_over_time": len,
        "last_over_time": lambda window: window[-1],
        "max_over_time": max,
        "min_over_time": min,
        "present_over_time": lambda _: 1.0,
        "quantile_over_time": lambda window: np.quantile(window, 0.3),
        "stddev_over_time": np.std,
        "stdvar_over_time": np.var,
        "sum_over_time": math.fsum,
    }
    quantile = "0.3, " if function.startswith("quantile") else ""
    result = values(f"{function}({quantile}x[5m])", {"a": rows}, steps)["a"]
    for step, value in zip(steps, result, strict=True):
        window = [number for at, number in rows if step - 300 < at <= step]
        assert math.isnan(value) if not window else math.isclose(value, oracles[function](window), abs_tol=1e-6)


def test_aggregations() -> None:
    """By a label, without one, over all; a series without a value at a step does not count there."""
    samples = {"a": [(0, 1.0)], "b": [(0, 3.0)], "c": [(200, 8.0)]}
    assert values("sum by (division) (x)", samples, [0, 200]) == {
        "440106": [4.0, 4.0],
        "4403": [pytest.approx(math.nan, nan_ok=True), 8.0],
    }
    assert values("avg(x)", samples, [0, 200]) == {"": [2.0, 4.0]}
    assert values("max(x)", samples, [0, 200]) == {"": [3.0, 8.0]}
    assert values("count without (device) (x)", samples, [200]) == {"440106": [2.0], "4403": [1.0]}
    assert values("min(x) * 2 + 1", samples, [0]) == {"": [3.0]}
    assert values("10 - x", {"a": [(0, 4.0)]}, [0]) == {"a": [6.0]}
    (row,) = evaluation("-x", {"a": [(0, 4.0)]}, [0])
    assert dict(row.labels).get("__name__") is None


@pytest.mark.parametrize("query", ["1+1", "2*(3-1)", "-4"])
def test_numbers(query: str) -> None:
    """What Grafana asks to test a data source."""
    expression = PARSER.parse(query)
    assert is_number(expression)
    made = Evaluation({}, np.zeros(1, np.int64), 1)
    assert made.number(expression) == eval(query)  # noqa: S307 - of this list


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("", "parse error"),
        ("x{", "parse error"),
        ("x @ 5", "modifier @"),
        ("topk(3, x)", "'topk' is not supported; use some of avg"),
        ("abs(x)", "'abs' is not supported"),
        ("x + y", "between series"),
        ("x > 2", "'>' is not supported"),
        ("avg_over_time(x[1h:1m])", "subqueries"),
        ('x{device="a" or device="b"}', "`or` between labels"),
        ('"text"', "StringLiteral"),
        ("sum(1)", "parse error|takes series"),
        ("x[500d]", "1ms to 400d"),
        ("x" * 4_001, "at most 4000"),
        ("(" * 60 + "1" + ")" * 60, "nested"),
    ],
)
def test_anything_else_is_an_error_that_names_it(query: str, problem: str) -> None:
    """With what there is."""
    with pytest.raises(BadQuery, match=problem):
        PARSER.parse(query)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    """It is an expression or a `BadQuery`; nothing else is raised."""
    with contextlib.suppress(BadQuery):
        PARSER.parse(text)


def test_matchers() -> None:
    """The name of a metric is a matcher of its own label."""
    selector = PARSER.selector('x{device=~"a.*",division!="44"}')
    assert isinstance(selector, Selector)
    assert [(matcher.label, matcher.operator, matcher.text) for matcher in selector.matchers] == [
        ("__name__", "=", "x"),
        ("device", "=~", "a.*"),
        ("division", "!=", "44"),
    ]
    with pytest.raises(BadQuery, match="no selector"):
        PARSER.selector("rate(x[5m])")
