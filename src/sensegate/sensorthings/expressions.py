"""Evaluation of filters and orders on entities.

`compile_expression` checks the names of a tree against an entity type and returns a function of an entity. Everything
is evaluated on what the caller sees. A path over a link to many has several values: a comparison holds if it holds for
any of them. Operands of unlike types are unequal, and no order holds between them.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from sensegate.sensorthings import geometry
from sensegate.sensorthings.instants import Duration, Span, moment_of, parse_span
from sensegate.sensorthings.kinds import ID_NAMES, KINDS, Entity, EntityKind, FieldKind
from sensegate.sensorthings.syntax import (
    DayText,
    Expression,
    FieldPath,
    FunctionCall,
    GeometryText,
    LiteralValue,
    Operation,
    clock_text,
)
from sensegate.web.problems import BadRequest

Evaluate = Callable[[Entity], object]


class EntityGraph(Protocol):
    """Links from entities to others, as expressions follow them."""

    @property
    def now(self) -> int:
        """Time of the request, µs UTC."""
        ...

    def follow(self, entity: Entity, link: str) -> Sequence[Entity]:
        """Return the entities to which a link leads."""
        ...


class _Several(list[object]):
    """The values of a path over a link to many."""


def compile_expression(tree: Expression, kind: EntityKind, graph: EntityGraph, option: str) -> Evaluate:
    """Return a function that evaluates a tree on an entity of a type. Raises `BadRequest`."""
    match tree:
        case LiteralValue(value):
            return lambda _entity: value
        case GeometryText(wkt):
            constant = geometry.from_text(wkt)
            return lambda _entity: constant
        case FieldPath(names):
            return _path(names, kind, graph, option)
        case FunctionCall(name, arguments):
            return _call(name, [compile_expression(part, kind, graph, option) for part in arguments], graph)
        case Operation(name, operands):
            return _operation(name, [compile_expression(part, kind, graph, option) for part in operands])


def links_of(tree: Expression, kind: EntityKind) -> set[str]:
    """Return the names of the entity types that a tree reaches over links."""
    reached: set[str] = set()
    pending: list[Expression] = [tree]
    while pending:
        match pending.pop():
            case FieldPath(names):
                at = kind
                for name in names:
                    if (link := at.links.get(name)) is None:
                        break
                    at = KINDS[link.target]
                    reached.add(at.name)
            case FunctionCall(_, parts) | Operation(_, parts):
                pending += parts
            case _:
                pass
    return reached


# ── paths ─────────────────────────────────────────────────────────────────────────────────────────────


def _path(  # noqa: PLR0911 - one for each type of property
    names: tuple[str, ...], kind: EntityKind, graph: EntityGraph, option: str
) -> Evaluate:
    name, rest = names[0], names[1:]
    if name in ID_NAMES and not rest:
        return lambda entity: entity.id
    link = kind.links.get(name)
    if link is not None:
        if not rest:
            raise BadRequest(f"query: {option}: {name} is a link; name a property of it, such as {name}/id")
        inner = _path(rest, KINDS[link.target], graph, option)
        if link.is_many:
            return lambda entity: _Several(_flat(inner(target) for target in graph.follow(entity, name)))
        return lambda entity: next((inner(target) for target in graph.follow(entity, name)), None)
    field = kind.fields.get(name)
    if field is None:
        known = [*kind.fields, *kind.links, "id"]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(known)}"
        raise BadRequest(f"query: {option}: {kind.name} has no property '{name[:40]}'; {remedy}")
    if field is FieldKind.TIME:
        return lambda entity: _time(entity.values.get(name))
    if rest:
        return lambda entity: _member(entity.values.get(name), rest)
    if field is FieldKind.GEOMETRY:
        return lambda entity: geometry.from_json(entity.values.get(name))
    return lambda entity: entity.values.get(name)


def _flat(values: Iterator[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, _Several):
            yield from value
        else:
            yield value


def _time(value: object) -> object:
    return parse_span(value) if isinstance(value, str) else None


def _member(value: object, names: tuple[str, ...]) -> object:
    for name in names:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


# ── operators ─────────────────────────────────────────────────────────────────────────────────────────


def _operation(name: str, operands: list[Evaluate]) -> Evaluate:
    match name:
        case "and":
            left, right = operands
            return lambda entity: is_true(left(entity)) and is_true(right(entity))
        case "or":
            left, right = operands
            return lambda entity: is_true(left(entity)) or is_true(right(entity))
        case "not":
            (inner,) = operands
            return lambda entity: not is_true(inner(entity))
        case "neg":
            (inner,) = operands
            return lambda entity: _negated(inner(entity))
    left, right = operands
    apply = _COMPARISONS.get(name) or _ARITHMETIC[name]
    return lambda entity: _applied(apply, left(entity), right(entity))


def is_true(value: object) -> bool:
    """Return whether a value of a filter is true; of several, whether any is."""
    return any(entry is True for entry in value) if isinstance(value, _Several) else value is True


def _applied(apply: Callable[[object, object], object], left: object, right: object) -> object:
    """Apply an operator, to each pair of values where an operand has several."""
    if isinstance(left, _Several) or isinstance(right, _Several):
        firsts = left if isinstance(left, _Several) else [left]
        seconds = right if isinstance(right, _Several) else [right]
        return _Several(apply(first, second) for first in firsts for second in seconds)
    return apply(left, right)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _negated(value: object) -> object:
    if isinstance(value, Duration):
        return Duration(-value.length)
    return -value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _equal(left: object, right: object) -> bool:
    if _is_number(left) and _is_number(right):
        return left == right
    if isinstance(left, str) and isinstance(right, str):
        return str(left) == str(right)
    if isinstance(left, str) and isinstance(right, Span):
        return parse_span(left) == right
    if isinstance(right, str) and isinstance(left, Span):
        return parse_span(right) == left
    return type(left) is type(right) and left == right


def _ordered(
    compare: Callable[[object, object], bool], instants: Callable[[Span, Span], bool]
) -> Callable[[object, object], bool]:
    def holds(left: object, right: object) -> bool:
        if isinstance(left, str) and isinstance(right, Span):
            left = parse_span(left)
        if isinstance(right, str) and isinstance(left, Span):
            right = parse_span(right)
        if isinstance(left, Span) and isinstance(right, Span):
            return instants(left, right)
        if isinstance(left, Duration) and isinstance(right, Duration):
            return compare(left.length, right.length)
        if (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str)):
            return compare(left, right)
        return False

    return holds


_COMPARISONS: dict[str, Callable[[object, object], object]] = {
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    # Of intervals as the standard's table of time comparisons: the whole of one lies before the other.
    "gt": _ordered(operator.gt, lambda left, right: left.begin >= right.end and left != right),  # type: ignore[arg-type] # values of one type
    "ge": _ordered(operator.ge, lambda left, right: left.begin >= right.begin and left.end >= right.end),  # type: ignore[arg-type] # as above
    "lt": _ordered(operator.lt, lambda left, right: left.end <= right.begin and left != right),  # type: ignore[arg-type] # as above
    "le": _ordered(operator.le, lambda left, right: left.begin <= right.begin and left.end <= right.end),  # type: ignore[arg-type] # as above
}


def _added(left: object, right: object) -> object:
    match left, right:
        case (Duration(), Duration()):
            return Duration(left.length + right.length)
        case (Span(), Duration()):
            return Span(left.begin + right.length, left.end + right.length)
        case (Duration(), Span()):
            return _added(right, left)
    return _number(operator.add, left, right)


def _subtracted(left: object, right: object) -> object:
    match left, right:
        case (Span(), Span()):
            return Duration(left.begin - right.begin)
        case ((Span() | Duration()), Duration()):
            return _added(left, Duration(-right.length))
    return _number(operator.sub, left, right)


def _number(apply: Callable[[float, float], float], left: object, right: object) -> object:
    """Return the result on two numbers; None for other operands, and where there is no finite result."""
    if not (
        isinstance(left, (int, float))
        and isinstance(right, (int, float))
        and not isinstance(left, bool)
        and not isinstance(right, bool)
    ):
        return None
    try:
        result = apply(left, right)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return result if math.isfinite(result) else None


def _divided(left: float, right: float) -> float:
    if isinstance(left, int) and isinstance(right, int):
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    return left / right


_ARITHMETIC: dict[str, Callable[[object, object], object]] = {
    "add": _added,
    "sub": _subtracted,
    "mul": lambda left, right: _number(operator.mul, left, right),
    "div": lambda left, right: _number(_divided, left, right),
    "mod": lambda left, right: _number(math.fmod, left, right),
}

# ── functions ─────────────────────────────────────────────────────────────────────────────────────────


def _call(name: str, arguments: list[Evaluate], graph: EntityGraph) -> Evaluate:
    if name == "now":
        return lambda _entity: Span(graph.now, graph.now)
    if name in {"mindatetime", "maxdatetime"}:
        moment = _FIRST if name == "mindatetime" else _LAST
        return lambda _entity: Span(moment, moment)
    apply = _FUNCTIONS[name]

    def evaluate(entity: Entity) -> object:
        return _called(apply, [argument(entity) for argument in arguments])

    return evaluate


_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last moment of the years 1 to 9999, µs UTC."""


def _called(apply: Callable[..., object], values: list[object]) -> object:
    for place, value in enumerate(values):
        if isinstance(value, _Several):
            return _Several(_called(apply, [*values[:place], entry, *values[place + 1 :]]) for entry in value)
    return apply(*values)


def _texts(apply: Callable[..., object]) -> Callable[..., object]:
    """Return a function of texts; None where an argument is none."""
    return lambda *values: apply(*values) if all(isinstance(value, str) for value in values) else None


def _substring(text: object, start: object, length: object = None) -> object:
    if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool) or start < 0:
        return None
    if length is None:
        return text[start:]
    return text[start : start + length] if isinstance(length, int) and length >= 0 else None


def _of_moment(part: Callable[..., object]) -> Callable[[object], object]:
    """Return a function of an instant; of an interval it takes the begin."""

    def take(value: object) -> object:
        span = parse_span(value) if isinstance(value, str) else value
        if not isinstance(span, Span) or not _FIRST <= span.begin <= _LAST:
            return None
        return part(moment_of(span.begin))

    return take


def _rounded(apply: Callable[[float], float]) -> Callable[[object], object]:
    def take(value: object) -> object:
        return apply(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    return take


def _half_up(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _geometries(apply: Callable[[geometry.Shape, geometry.Shape], object]) -> Callable[[object, object], object]:
    def take(first: object, second: object) -> object:
        left, right = geometry.from_json(first), geometry.from_json(second)
        return None if left is None or right is None else apply(left, right)

    return take


def _length(value: object) -> object:
    shape = geometry.from_json(value)
    return None if shape is None else geometry.length_of(shape)


def _relate(first: object, second: object, pattern: object) -> object:
    left, right = geometry.from_json(first), geometry.from_json(second)
    if left is None or right is None or not isinstance(pattern, str):
        return None
    return geometry.relates(left, right, pattern)


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "substringof": _texts(lambda part, text: part in text),
    "contains": _texts(lambda text, part: part in text),
    "endswith": _texts(lambda text, part: text.endswith(part)),
    "startswith": _texts(lambda text, part: text.startswith(part)),
    "length": _texts(len),
    "indexof": _texts(lambda text, part: text.find(part)),
    "substring": _substring,
    "tolower": _texts(lambda text: text.lower()),
    "toupper": _texts(lambda text: text.upper()),
    "trim": _texts(lambda text: text.strip()),
    "concat": _texts(operator.add),
    "year": _of_moment(lambda moment: moment.year),
    "month": _of_moment(lambda moment: moment.month),
    "day": _of_moment(lambda moment: moment.day),
    "hour": _of_moment(lambda moment: moment.hour),
    "minute": _of_moment(lambda moment: moment.minute),
    "second": _of_moment(lambda moment: moment.second),
    "fractionalseconds": _of_moment(lambda moment: moment.microsecond / 1e6),
    "date": _of_moment(lambda moment: DayText(moment.date().isoformat())),
    "time": _of_moment(lambda moment: clock_text(moment.time().isoformat())),
    "totaloffsetminutes": _of_moment(lambda _moment: 0),
    "round": _rounded(_half_up),
    "floor": _rounded(math.floor),
    "ceiling": _rounded(math.ceil),
    **{name: _geometries(apply) for name, apply in geometry.PREDICATES.items()},
    "geo.length": _length,
    "st_relate": _relate,
}


def order_rank(value: object) -> tuple[int, object]:  # noqa: PLR0911 - one for each type
    """Return a key by which values of any types are ordered: none first, then by type."""
    match value:
        case None:
            return 0, 0
        case bool():
            return 1, value
        case int() | float():
            return 2, value
        case Span():
            return 3, (value.begin, value.end)
        case str():
            return 4, str(value)
        case _Several():
            return order_rank(value[0]) if value else (0, 0)
    return 5, repr(value)
