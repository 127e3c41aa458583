"""The subset of PromQL that is answered: parsed by `promql-parser`, checked, and turned into expressions of our own.

A metric is a property; its labels are `device`, `division` and, where it has one, `channel`. Whatever is not in the
subset is an error that names it and what there is.
"""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

import msgspec

from sensegate.errors import ConfigError, SensegateError

NAME = "__name__"
LABELS = (NAME, "channel", "device", "division")
RANGE_FUNCTIONS = (
    "rate",
    "increase",
    "delta",
    "avg_over_time",
    "count_over_time",
    "last_over_time",
    "max_over_time",
    "min_over_time",
    "present_over_time",
    "quantile_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
)
AGGREGATIONS = ("avg", "count", "max", "min", "sum")
OPERATORS = ("+", "-", "*", "/")
QUERY_MAX = 4_000
"""Longest query, in characters."""
DEPTH_MAX = 50
RANGE_MAX_US = 400 * 86_400_000_000


class BadQuery(SensegateError):
    """A query that is no PromQL, or not of the subset."""


class LabelMatcher(msgspec.Struct, frozen=True):
    """Condition on a label; `operator`: ``=``, ``!=``, ``=~``, ``!~``."""

    label: str
    operator: str
    text: str


class Selector(msgspec.Struct, frozen=True, tag=True):
    """Series whose labels match."""

    matchers: tuple[LabelMatcher, ...]
    offset_us: int = 0

    def texts_of(self, label: str) -> tuple[str, ...]:
        """Return the text that a label must equal; empty: it is not given by an equation."""
        return tuple(matcher.text for matcher in self.matchers if (matcher.label, matcher.operator) == (label, "="))


class RangeSelector(msgspec.Struct, frozen=True, tag=True):
    """The samples of a span of time before each step."""

    selector: Selector
    length_us: int


class RangeCall(msgspec.Struct, frozen=True, tag=True):
    """Function over a span of time."""

    function: str
    samples: RangeSelector
    quantile: float = 0.0


class Aggregation(msgspec.Struct, frozen=True, tag=True):
    """Aggregation over series; `labels` are those kept, or with `is_without` those removed."""

    operator: str
    inner: Expression
    labels: tuple[str, ...] = ()
    is_without: bool = False


class Number(msgspec.Struct, frozen=True, tag=True):
    """A number."""

    value: float


class Arithmetic(msgspec.Struct, frozen=True, tag=True):
    """Operation on a number and series, or on two numbers."""

    operator: str
    left: Expression
    right: Expression


Expression = Selector | RangeSelector | RangeCall | Aggregation | Number | Arithmetic


class PromqlParser:
    """Parser of queries."""

    def __init__(self) -> None:
        """Import `promql-parser`. Raises `ConfigError`."""
        try:
            self._module: Any = importlib.import_module("promql_parser")
        except ImportError:
            raise ConfigError(
                "queries of Prometheus need promql-parser, which is not installed",
                key="history.enabled",
                remedy="install sensegate[history]",
            ) from None
        operators = self._module.MatchOp
        self._operators = (
            (operators.Equal, "="),
            (operators.NotEqual, "!="),
            (operators.Re, "=~"),
            (operators.NotRe, "!~"),
        )

    def parse(self, text: str) -> Expression:
        """Return the expression of a query. Raises `BadQuery`."""
        if len(text) > QUERY_MAX:
            raise BadQuery(f"the query has {len(text)} characters; give at most {QUERY_MAX}")
        try:
            tree = self._module.parse(text)
        except ValueError as why:
            raise BadQuery(f"parse error: {str(why)[:300]}") from None
        return self._expression(tree, 0)

    def selector(self, text: str) -> Selector:
        """Return the selector of a text, as ``match[]`` has it. Raises `BadQuery`."""
        expression = self.parse(text)
        if not isinstance(expression, Selector):
            raise BadQuery(f"match[]: '{text[:100]}' is no selector; give a metric, labels in braces, or both")
        return expression

    def _expression(self, tree: Any, depth: int) -> Expression:  # noqa: PLR0911 - a case for each kind
        module = self._module
        if depth > DEPTH_MAX:
            raise BadQuery(f"the query is nested more than {DEPTH_MAX} deep")
        match tree:
            case module.ParenExpr():
                return self._expression(tree.expr, depth + 1)
            case module.NumberLiteral():
                return Number(tree.val)
            case module.VectorSelector():
                return self._selector(tree)
            case module.MatrixSelector():
                return RangeSelector(self._selector(tree.vector_selector), _length(tree.range))
            case module.Call():
                return self._call(tree)
            case module.AggregateExpr():
                return self._aggregation(tree, depth)
            case module.BinaryExpr():
                return self._arithmetic(tree, depth)
            case module.UnaryExpr():
                return Arithmetic("*", Number(-1.0), self._scalar_or_vector(tree.expr, depth))
            case module.SubqueryExpr():
                raise BadQuery("subqueries are not supported; give a range in brackets after a metric")
        raise BadQuery(f"{type(tree).__name__} is not supported; give numbers, selectors, functions and aggregations")

    def _scalar_or_vector(self, tree: Any, depth: int) -> Expression:
        expression = self._expression(tree, depth + 1)
        if isinstance(expression, RangeSelector):
            raise BadQuery("a range in brackets stands only in a function such as rate or avg_over_time")
        return expression

    def _selector(self, tree: Any) -> Selector:
        if tree.at is not None:
            raise BadQuery("the modifier @ is not supported; give the time of the query")
        if tree.matchers.or_matchers:
            raise BadQuery("`or` between labels is not supported; give a regular expression with =~")
        matchers = [LabelMatcher(NAME, "=", tree.name)] if tree.name else []
        for matcher in tree.matchers.matchers:
            operator = next(text for kind, text in self._operators if matcher.op == kind)
            matchers.append(LabelMatcher(matcher.name, operator, matcher.value))
        offset = tree.offset if tree.offset is not None else timedelta(0)
        return Selector(tuple(matchers), _microseconds(offset))

    def _call(self, tree: Any) -> RangeCall:
        name = tree.func.name
        if name not in RANGE_FUNCTIONS:
            raise BadQuery(f"function '{name}' is not supported; use some of {', '.join(RANGE_FUNCTIONS)}")
        *first, last = tree.args
        samples = self._expression(last, 0)
        if not isinstance(samples, RangeSelector):
            raise BadQuery(f"{name}: takes a metric with a range in brackets")
        quantile = 0.0
        if first:
            number = self._expression(first[0], 0)
            if not isinstance(number, Number):
                raise BadQuery(f"{name}: the first argument is not a number")
            quantile = number.value
        return RangeCall(name, samples, quantile)

    def _aggregation(self, tree: Any, depth: int) -> Aggregation:
        operator = str(tree.op)
        if operator not in AGGREGATIONS:
            raise BadQuery(f"aggregation '{operator}' is not supported; use some of {', '.join(AGGREGATIONS)}")
        inner = self._scalar_or_vector(tree.expr, depth)
        if isinstance(inner, Number):
            raise BadQuery(f"{operator}: takes series, not a number")
        if tree.modifier is None:
            return Aggregation(operator, inner)
        is_without = tree.modifier.type == self._module.AggModifierType.Without
        return Aggregation(operator, inner, tuple(sorted(tree.modifier.labels)), is_without)

    def _arithmetic(self, tree: Any, depth: int) -> Arithmetic:
        operator = str(tree.op)
        left, right = self._scalar_or_vector(tree.lhs, depth), self._scalar_or_vector(tree.rhs, depth)
        if operator not in OPERATORS:
            raise BadQuery(f"operator '{operator}' is not supported; use some of {' '.join(OPERATORS)}")
        if not (is_number(left) or is_number(right)):
            raise BadQuery(f"operator '{operator}' between series is not supported; one side must be a number")
        return Arithmetic(operator, left, right)


def is_number(expression: Expression) -> bool:
    """Return whether an expression has one number, and no series."""
    match expression:
        case Number():
            return True
        case Arithmetic(_, left, right):
            return is_number(left) and is_number(right)
    return False


def selectors_of(expression: Expression) -> list[tuple[Selector, int]]:
    """Return the selectors of an expression, each with the length of its range; 0: none."""
    match expression:
        case Selector():
            return [(expression, 0)]
        case RangeSelector(selector, length):
            return [(selector, length)]
        case RangeCall(_, samples, _):
            return [(samples.selector, samples.length_us)]
        case Aggregation(_, inner, _, _):
            return selectors_of(inner)
        case Arithmetic(_, left, right):
            return [*selectors_of(left), *selectors_of(right)]
    return []


def _length(length: timedelta) -> int:
    microseconds = _microseconds(length)
    if not 0 < microseconds <= RANGE_MAX_US:
        raise BadQuery("the range is out of range; give 1ms to 400d")
    return microseconds


def _microseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
