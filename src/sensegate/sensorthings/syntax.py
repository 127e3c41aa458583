"""Query options of a request as trees: `$filter`, `$orderby`, `$expand`, `$select` and resource paths.

A recursive-descent parser after the ABNF of OData 4.0, as far as SensorThings uses it. Every error names the option,
what it got and what it takes; depth and size are limited.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

import msgspec

from sensegate.sensorthings.instants import Span, parse_duration, parse_instant, parse_span
from sensegate.web.problems import BadRequest

TEXT_MAX = 16_384
"""Most characters of one option."""
DEPTH_MAX = 40
"""Greatest nesting of parentheses and operators."""
NODES_MAX = 400
"""Most operators, calls and values of one option."""
EXPAND_DEPTH_MAX = 6
EXPANDS_MAX = 40
"""Most links that one request expands."""


class LiteralValue(msgspec.Struct, frozen=True, tag=True):
    """A constant: text, number, truth value, time, duration, None."""

    value: object


class GeometryText(msgspec.Struct, frozen=True, tag=True):
    """A constant geometry as well-known text."""

    wkt: str


class FieldPath(msgspec.Struct, frozen=True, tag=True):
    """A property, or a path over links and into JSON."""

    names: tuple[str, ...]


class FunctionCall(msgspec.Struct, frozen=True, tag=True):
    """A call of a function."""

    name: str
    arguments: tuple[Expression, ...]


class Operation(msgspec.Struct, frozen=True, tag=True):
    """An operator with one operand (``not``, ``neg``) or two."""

    operator: str
    operands: tuple[Expression, ...]


Expression = LiteralValue | GeometryText | FieldPath | FunctionCall | Operation


class OrderKey(msgspec.Struct, frozen=True):
    """A key of an order."""

    expression: Expression
    descending: bool = False


class ExpandedLink(msgspec.Struct, frozen=True):
    """A link that is expanded, with the options of its entities."""

    name: str
    options: QueryOptions


class QueryOptions(msgspec.Struct, frozen=True):
    """Options of a request, or of an expanded link."""

    filter: Expression | None = None
    order: tuple[OrderKey, ...] = ()
    select: tuple[str, ...] = ()
    expand: tuple[ExpandedLink, ...] = ()
    top: int | None = None
    skip: int = 0
    count: bool = False
    texts: tuple[tuple[str, str], ...] = ()
    """Name of an option -> its text, of an expanded link."""


FUNCTIONS: dict[str, tuple[int, int]] = {
    "substringof": (2, 2),
    "contains": (2, 2),
    "endswith": (2, 2),
    "startswith": (2, 2),
    "length": (1, 1),
    "indexof": (2, 2),
    "substring": (2, 3),
    "tolower": (1, 1),
    "toupper": (1, 1),
    "trim": (1, 1),
    "concat": (2, 2),
    "year": (1, 1),
    "month": (1, 1),
    "day": (1, 1),
    "hour": (1, 1),
    "minute": (1, 1),
    "second": (1, 1),
    "fractionalseconds": (1, 1),
    "date": (1, 1),
    "time": (1, 1),
    "totaloffsetminutes": (1, 1),
    "now": (0, 0),
    "mindatetime": (0, 0),
    "maxdatetime": (0, 0),
    "round": (1, 1),
    "floor": (1, 1),
    "ceiling": (1, 1),
    "geo.distance": (2, 2),
    "geo.length": (1, 1),
    "geo.intersects": (2, 2),
    "st_equals": (2, 2),
    "st_disjoint": (2, 2),
    "st_touches": (2, 2),
    "st_within": (2, 2),
    "st_overlaps": (2, 2),
    "st_crosses": (2, 2),
    "st_intersects": (2, 2),
    "st_contains": (2, 2),
    "st_relate": (3, 3),
}
"""Name of a function -> least and most arguments."""

_TOKENS = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*')
  | (?P<time>\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:?\d\d)(?:/\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:?\d\d))?)
  | (?P<date>\d{4}-\d\d-\d\d(?![0-9T]))
  | (?P<clock>\d\d:\d\d(?::\d\d(?:\.\d+)?)?)
  | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<geometry>(?:geography|geometry)'(?:[^']|'')*')
  | (?P<duration>duration'[^']*')
  | (?P<name>[@$]?[^\W\d][\w.\-]*)
  | (?P<mark>[(),/;=\-*])
  )""",
    re.VERBOSE,
)
_COMPARISONS = frozenset({"eq", "ne", "gt", "ge", "lt", "le"})
_LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"or"}),
    frozenset({"and"}),
    frozenset(),
    _COMPARISONS,
    frozenset({"add", "sub"}),
    frozenset({"mul", "div", "mod"}),
)
"""Operators by precedence, the weakest first; the empty level is that of ``not``."""
_NOT = 2


class OptionToken(msgspec.Struct, frozen=True):
    """A token of an option."""

    kind: str
    text: str
    place: int


def tokens_of(text: str, option: str) -> list[OptionToken]:
    """Return the tokens of an option. Raises `BadRequest`."""
    if len(text) > TEXT_MAX:
        raise BadRequest(f"query: {option}: has {len(text)} characters; give at most {TEXT_MAX}")
    tokens: list[OptionToken] = []
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKENS.match(text, place)
        if match is None or match.lastgroup is None:
            raise BadRequest(f"query: {option}: '{text[place : place + 20]}' is not understood; see OData 4.0")
        tokens.append(OptionToken(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return tokens


class OptionParser:
    """Parser of the tokens of one option."""

    def __init__(self, text: str, option: str) -> None:
        self._text = text
        self._option = option
        self._tokens = tokens_of(text, option)
        self._place = 0
        self._nodes = 0

    # ── tokens ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _next(self) -> OptionToken | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    @property
    def is_done(self) -> bool:
        """Return whether every token is taken."""
        return self._place == len(self._tokens)

    def _is_mark(self, mark: str) -> bool:
        token = self._next
        return token is not None and token.kind == "mark" and token.text == mark

    def take(self, mark: str) -> bool:
        """Take a mark if it comes next."""
        if self._is_mark(mark):
            self._place += 1
            return True
        return False

    def demand(self, mark: str) -> None:
        """Take a mark. Raises `BadRequest` if another token comes next."""
        if not self.take(mark):
            raise self.error(f"'{mark}' is missing")

    def name(self, expected: str) -> str:
        """Take a name. Raises `BadRequest` if another token comes next."""
        token = self._next
        if token is None or token.kind != "name":
            raise self.error(f"{expected} is missing")
        self._place += 1
        return token.text

    def error(self, problem: str) -> BadRequest:
        """Return the error for the next token."""
        token = self._next
        place = f"at '{self._text[token.place : token.place + 20]}'" if token else "at the end"
        return BadRequest(f"query: {self._option}: {problem} {place}; see the SensorThings API 1.1, section 9.3")

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise BadRequest(f"query: {self._option}: has more than {NODES_MAX} terms; give fewer")

    # ── expressions ───────────────────────────────────────────────────────────────────────────────────

    def expression(self, level: int = 0, depth: int = 0) -> Expression:
        """Take an expression. Raises `BadRequest`."""
        if depth > DEPTH_MAX:
            raise BadRequest(f"query: {self._option}: is nested more than {DEPTH_MAX} deep; give a flatter expression")
        if level == len(_LEVELS):
            return self._primary(depth)
        if level == _NOT:
            token = self._next
            if token is not None and token.kind == "name" and token.text == "not":
                self._place += 1
                self._count()
                return Operation("not", (self.expression(_NOT, depth + 1),))
            return self.expression(level + 1, depth)
        left = self.expression(level + 1, depth)
        while (token := self._next) is not None and token.kind == "name" and token.text in _LEVELS[level]:
            self._place += 1
            self._count()
            left = Operation(token.text, (left, self.expression(level + 1, depth + 1)))
        return left

    def _primary(self, depth: int) -> Expression:
        token = self._next
        if token is None:
            raise self.error("a value is missing")
        self._count()
        if self.take("("):
            inner = self.expression(0, depth + 1)
            self.demand(")")
            return inner
        if self.take("-"):
            return Operation("neg", (self._primary(depth + 1),))
        self._place += 1
        match token.kind:
            case "name":
                return self._named(token, depth)
            case "mark":
                self._place -= 1
                raise self.error("a value is missing")
            case _:
                return self._constant(token)

    def _named(self, token: OptionToken, depth: int) -> Expression:
        if token.text in _WORDS:
            return LiteralValue(_WORDS[token.text])
        if self._is_mark("("):
            return self._call(token, depth)
        names = [token.text]
        while self.take("/"):
            names.append(self.name("the name of a property"))
        return FieldPath(tuple(names))

    def _call(self, token: OptionToken, depth: int) -> Expression:
        limits = FUNCTIONS.get(token.text)
        if limits is None:
            near = difflib.get_close_matches(token.text, FUNCTIONS, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(FUNCTIONS)}"
            raise BadRequest(f"query: {self._option}: there is no function '{token.text[:40]}'; {remedy}")
        self.demand("(")
        arguments: list[Expression] = []
        if not self.take(")"):
            arguments.append(self.expression(0, depth + 1))
            while self.take(","):
                arguments.append(self.expression(0, depth + 1))
            self.demand(")")
        least, most = limits
        if not least <= len(arguments) <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            raise BadRequest(f"query: {self._option}: {token.text} has {len(arguments)} arguments; give {expected}")
        return FunctionCall(token.text, tuple(arguments))

    def _constant(self, token: OptionToken) -> Expression:
        text = token.text
        match token.kind:
            case "text":
                return LiteralValue(text[1:-1].replace("''", "'"))
            case "number":
                return LiteralValue(int(text) if text.isdigit() and len(text) < 20 else float(text))
            case "geometry":
                return GeometryText(text.partition("'")[2][:-1].replace("''", "'"))
            case "duration":
                duration = parse_duration(text.partition("'")[2][:-1])
                if duration is None:
                    raise BadRequest(f"query: {self._option}: {text[:40]} is not a duration; give duration'PT1H'")
                return LiteralValue(duration)
            case "time":
                span = parse_span(text)
                if span is None:
                    raise BadRequest(f"query: {self._option}: {text[:60]} is not a time; give 2026-01-01T00:00:00Z")
                return LiteralValue(span)
            case "date" if parse_instant(f"{text}T00:00:00Z") is None:
                raise BadRequest(f"query: {self._option}: {text} is not a date; give 2026-01-31")
            case _:
                # A date or a time of day is compared as the text that `date()` and `time()` return.
                return LiteralValue(DayText(text) if token.kind == "date" else clock_text(text))

    # ── other options ─────────────────────────────────────────────────────────────────────────────────

    def order(self) -> tuple[OrderKey, ...]:
        """Take the keys of an order."""
        keys: list[OrderKey] = []
        while True:
            expression = self.expression(_NOT + 1)
            token = self._next
            direction = token.text.lower() if token is not None and token.kind == "name" else ""
            if direction in {"asc", "desc"}:
                self._place += 1
            keys.append(OrderKey(expression, direction == "desc"))
            if not self.take(","):
                return tuple(keys)

    def names(self) -> tuple[str, ...]:
        """Take names separated by commas; ``*`` is no restriction."""
        names: list[str] = []
        while True:
            if self.take("*"):
                names.append("*")
            else:
                names.append(self.name("the name of a property"))
                while self.take("/"):
                    names[-1] += f"/{self.name('the name of a property')}"
            if not self.take(","):
                return () if "*" in names else tuple(names)

    def expand(self, depth: int = 0) -> tuple[ExpandedLink, ...]:
        """Take expanded links with their options. Raises `BadRequest`."""
        if depth >= EXPAND_DEPTH_MAX:
            raise BadRequest(f"query: $expand: is nested more than {EXPAND_DEPTH_MAX} deep; ask for the rest apart")
        links: list[ExpandedLink] = []
        while True:
            links.append(self._expanded(depth))
            if not self.take(","):
                return merged_links(links)

    def _expanded(self, depth: int) -> ExpandedLink:
        self._count()
        if self._nodes > EXPANDS_MAX:
            raise BadRequest(f"query: $expand: has more than {EXPANDS_MAX} links; ask for some of them apart")
        name = self.name("the name of a link")
        if self.take("/"):
            if depth + 1 >= EXPAND_DEPTH_MAX:
                raise BadRequest(f"query: $expand: is nested more than {EXPAND_DEPTH_MAX} deep; ask for the rest apart")
            return ExpandedLink(name, QueryOptions(expand=(self._expanded(depth + 1),)))
        if not self.take("("):
            return ExpandedLink(name, QueryOptions())
        options = QueryOptions()
        while not self.take(")"):
            options = self._option_of(options, depth)
            if not self.take(";") and not self._is_mark(")"):
                raise self.error("';' or ')' is missing")
        return ExpandedLink(name, options)

    def _option_of(self, options: QueryOptions, depth: int) -> QueryOptions:
        option = self._option_name()
        self.demand("=")
        change: dict[str, object] = {}
        start = self._position
        match option:
            case "filter":
                change["filter"] = self.expression()
            case "orderby":
                change["order"] = self.order()
            case "select":
                change["select"] = self.names()
            case "expand":
                change["expand"] = self.expand(depth + 1)
            case "top" | "skip":
                change[option] = self._integer()
            case "count":
                change["count"] = self._truth()
            case _:
                raise BadRequest(
                    f"query: $expand: unknown option '${option[:40]}'; use $filter, $orderby, $select, $expand, $top, "
                    "$skip or $count"
                )
        change["texts"] = (*options.texts, (option, self._text[start : self._position].strip()))
        return msgspec.structs.replace(options, **change)

    @property
    def _position(self) -> int:
        return self._next.place if self._next else len(self._text)

    def _option_name(self) -> str:
        name = self.name("an option of the link")
        if not name.startswith("$"):
            self._place -= 1
            raise self.error("an option such as $top is missing")
        return name[1:]

    def _integer(self) -> int:
        token = self._next
        if token is None or token.kind != "number" or not token.text.isdigit() or len(token.text) > 10:
            raise self.error("a whole number is missing")
        self._place += 1
        return int(token.text)

    def _truth(self) -> bool:
        word = self.name("true or false")
        if word not in {"true", "false"}:
            raise self.error("true or false is missing")
        return word == "true"


class DayText(str):
    """A date as text, which equals the result of `date()`."""

    __slots__ = ()


def clock_text(text: str) -> str:
    """Return a time of day with seconds and without trailing zeros, as `time()` returns it."""
    text = text if text.count(":") == 2 else f"{text}:00"
    return text.rstrip("0").rstrip(".") if "." in text else text


_WORDS: dict[str, object] = {"true": True, "false": False, "null": None}


def merged_links(links: Sequence[ExpandedLink]) -> tuple[ExpandedLink, ...]:
    """Return links of which each name occurs once: paths with the same beginning are joined."""
    joined: dict[str, ExpandedLink] = {}
    for link in links:
        known = joined.get(link.name)
        if known is None:
            joined[link.name] = link
            continue
        first, second = known.options, link.options
        plain = QueryOptions()
        if plain not in (msgspec.structs.replace(first, expand=()), msgspec.structs.replace(second, expand=())):
            raise BadRequest(f"query: $expand: {link.name} has options twice; give them once")
        kept = second if msgspec.structs.replace(first, expand=()) == plain else first
        options = msgspec.structs.replace(kept, expand=merged_links((*first.expand, *second.expand)))
        joined[link.name] = ExpandedLink(link.name, options)
    return tuple(joined.values())


def _parsed(text: str, option: str, take: Callable[[OptionParser], object]) -> object:
    parser = OptionParser(text, option)
    result = take(parser)
    if not parser.is_done:
        raise parser.error("an operator or a separator is missing")
    return result


def parse_filter(text: str) -> Expression:
    """Return the tree of `$filter`. Raises `BadRequest`."""
    return _parsed(text, "$filter", OptionParser.expression)  # type: ignore[return-value] # as the method returns it


def parse_order(text: str) -> tuple[OrderKey, ...]:
    """Return the keys of `$orderby`. Raises `BadRequest`."""
    return _parsed(text, "$orderby", OptionParser.order)  # type: ignore[return-value] # as the method returns it


def parse_select(text: str) -> tuple[str, ...]:
    """Return the names of `$select`; empty: all. Raises `BadRequest`."""
    return _parsed(text, "$select", OptionParser.names)  # type: ignore[return-value] # as the method returns it


def parse_expand(text: str) -> tuple[ExpandedLink, ...]:
    """Return the links of `$expand`. Raises `BadRequest`."""
    return _parsed(text, "$expand", OptionParser.expand)  # type: ignore[return-value] # as the method returns it


class PathStep(msgspec.Struct, frozen=True):
    """A segment of a resource path: a name, with the id of one entity."""

    name: str
    id: int | None = None


_STEP = re.compile(r"([A-Za-z@$_][\w.\-$]*)(?:\((.*)\))?", re.ASCII)
STEPS_MAX = 12


def parse_path(path: str) -> tuple[PathStep, ...]:
    """Return the segments of a resource path. Raises `BadRequest`."""
    steps: list[PathStep] = []
    for segment in path.strip("/").split("/"):
        match = _STEP.fullmatch(segment)
        if match is None:
            raise BadRequest(f"path: '{segment[:40]}' is not understood; give for example Things(1)/Datastreams")
        number = match[2]
        if number is not None and not (number.isascii() and number.isdigit() and len(number) < 17):
            raise BadRequest(f"path: '{number[:40]}' is not an id; give a whole number, as @iot.id has it")
        steps.append(PathStep(match[1], None if number is None else int(number)))
    if len(steps) > STEPS_MAX:
        raise BadRequest(f"path: has {len(steps)} segments; give at most {STEPS_MAX}")
    return tuple(steps)


class TimeBounds(msgspec.Struct, frozen=True):
    """Bounds that a filter sets on `phenomenonTime`."""

    span: Span
    """Interval outside which no time matches; the end is excluded."""
    is_exact: bool
    """True if every time inside matches."""


def bounds_of(expression: Expression | None) -> TimeBounds:
    """Return the bounds that the conjunctions of a filter set on `phenomenonTime`."""
    begin, end = Span.ALL
    is_exact = True
    pending = [] if expression is None else [expression]
    while pending:
        match pending.pop():
            case Operation("and", operands):
                pending += operands
            case Operation(operator, (FieldPath(("phenomenonTime",)), LiteralValue(Span() as span))):
                is_exact &= span.is_instant and operator in _MIRRORED
                begin, end = _narrowed(operator, span, begin, end)
            case Operation(operator, (LiteralValue(Span() as span), FieldPath(("phenomenonTime",)))):
                is_exact &= span.is_instant and operator in _MIRRORED
                begin, end = _narrowed(_MIRRORED.get(operator, ""), span, begin, end)
            case _:
                is_exact = False
    return TimeBounds(Span(begin, max(begin, end)), is_exact)


_MIRRORED = {"eq": "eq", "gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}


def _narrowed(operator: str, span: Span, begin: int, end: int) -> tuple[int, int]:
    """Return bounds (the end is excluded) after a comparison of the time with a constant."""
    match operator:
        case "gt":
            return max(begin, span.begin + span.is_instant), end
        case "ge":
            return max(begin, span.begin), end
        case "lt":
            return begin, min(end, span.begin if span.is_instant else span.end + 1)
        case "le":
            return begin, min(end, span.end + 1)
        case "eq":
            return max(begin, span.begin), min(end, span.end + 1)
    return begin, end


def conditions_over(expression: Expression | None, link: str) -> list[Expression]:
    """Return the conjunctions of a filter that look at nothing but what a link leads to, as filters of that."""
    conditions: list[Expression] = []
    pending = [] if expression is None else [expression]
    while pending:
        part = pending.pop()
        if isinstance(part, Operation) and part.operator == "and":
            pending += part.operands
        elif (moved := _moved(part, link)) is not None and _has_path(moved):
            conditions.append(moved)
    return conditions


def _moved(part: Expression, link: str) -> Expression | None:
    """Return an expression seen from the other end of a link; None: it looks at something else too."""
    match part:
        case FieldPath((first, *rest)):
            return FieldPath(tuple(rest)) if first == link and rest else None
        case FunctionCall(name, arguments):
            inner = [_moved(argument, link) for argument in arguments]
            return None if None in inner else FunctionCall(name, tuple(entry for entry in inner if entry is not None))
        case Operation(operator, operands):
            inner = [_moved(operand, link) for operand in operands]
            return None if None in inner else Operation(operator, tuple(entry for entry in inner if entry is not None))
    return part


def _has_path(part: Expression) -> bool:
    match part:
        case FieldPath():
            return True
        case FunctionCall(_, parts) | Operation(_, parts):
            return any(map(_has_path, parts))
    return False
