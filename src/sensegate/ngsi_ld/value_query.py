"""The query language for values (``q``): parsed to terms, tested on entities.

brand=="a","b";speed>10|near[city.name]!="x";(level==1..5|note~=^ab);refDevice==urn:ngsi-ld:Device:x
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from sensegate.ngsi_ld.core_context import NGSI_LD
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind, EntityRecord
from sensegate.ngsi_ld.instants import is_date, is_time, parse_date_time
from sensegate.ngsi_ld.logic import Joined, LogicParser
from sensegate.ngsi_ld.patterns import pattern_of

Expand = Callable[[str], str]
_NAME_ENDS = "=!<>~;|()[]"
_LIST_MAX = 200
_PATH_MAX = 16


class Operator(StrEnum):
    """Comparison of a term."""

    EXISTS = ""
    EQUAL = "=="
    UNEQUAL = "!="
    AT_LEAST = ">="
    AT_MOST = "<="
    ABOVE = ">"
    BELOW = "<"
    MATCHES = "~="
    DIFFERS = "!~="


_LONGEST_FIRST = (
    Operator.DIFFERS,
    Operator.EQUAL,
    Operator.UNEQUAL,
    Operator.AT_LEAST,
    Operator.AT_MOST,
    Operator.MATCHES,
    Operator.ABOVE,
    Operator.BELOW,
)


class Instant(msgspec.Struct, frozen=True, order=True):
    """A date-time, in a condition or in an entity."""

    time: int
    """µs UTC."""


class Uri(msgspec.Struct, frozen=True):
    """An unquoted URI of a condition."""

    text: str


_SYSTEM_NAMES = frozenset({f"{NGSI_LD}createdAt", f"{NGSI_LD}modifiedAt"})
"""IRIs of the times of an entity itself."""
Literal = float | bool | str | Instant | Uri


class LiteralRange(msgspec.Struct, frozen=True):
    """Values from one to another, both included."""

    low: Literal
    high: Literal


class ValueTerm(msgspec.Struct, frozen=True, eq=False):
    """A single condition on a value."""

    names: tuple[str, ...]
    """Attribute and, inside it, sub-attributes; the first is an IRI, the others are as the caller wrote them."""
    expanded: tuple[str, ...]
    """The names as IRIs."""
    members: tuple[str, ...]
    """Path inside a compound value; ``*`` is any member."""
    operator: Operator
    values: tuple[Literal | LiteralRange, ...] = ()
    pattern: Any = None
    words: frozenset[str] = frozenset()
    """The values as IRIs, for properties whose values are names of a vocabulary."""


class ValueQuery:
    """A condition on the values of an entity."""

    def __init__(self, condition: Joined[ValueTerm]) -> None:
        self._condition = condition

    def __call__(self, entity: EntityRecord) -> bool:
        """Return whether it holds."""
        return self._condition.holds(lambda term: _holds(entity, term))

    @property
    def attributes(self) -> frozenset[str]:
        """IRIs of the attributes that it names."""
        return frozenset(term.names[0] for term in self._condition.leaves())


def parse_value_query(text: str, expand: Expand, *, key: str = "query: q") -> ValueQuery:
    """Return the condition of a text. Raises `NgsiError`."""
    return ValueQuery(LogicParser(key, text, lambda parser: _term(parser, expand), comma=False).parse())


# ── parsing ───────────────────────────────────────────────────────────────────────────────────────────


def _term(parser: LogicParser[ValueTerm], expand: Expand) -> ValueTerm:
    text = parser.take_until(_NAME_ENDS).strip()
    # The dots of an IRI belong to it.
    names = (text,) if "://" in text else tuple(text.split("."))
    if not all(names) or len(names) > _PATH_MAX:
        raise parser.wrong(f"an attribute is missing at character {parser.at + 1}")
    members: tuple[str, ...] = ()
    if parser.peek("["):
        parser.at += 1
        members = tuple(parser.take_until("]").split("."))
        if not parser.peek("]") or not all(members) or len(members) > _PATH_MAX:
            raise parser.wrong("a bracket is not closed, or has no path inside")
        parser.at += 1
    expanded = tuple(map(expand, names))
    names = (expanded[0], *names[1:])
    operator = next(
        (candidate for candidate in _LONGEST_FIRST if parser.text.startswith(candidate.value, parser.at)), None
    )
    if operator is None:
        return ValueTerm(names, expanded, members, Operator.EXISTS)
    parser.at += len(operator.value)
    if operator in {Operator.MATCHES, Operator.DIFFERS}:
        pattern = pattern_of(parser.key, _pattern_text(parser))
        return ValueTerm(names, expanded, members, operator, pattern=pattern)
    values = _values(parser)
    if operator not in {Operator.EQUAL, Operator.UNEQUAL} and (
        len(values) > 1 or not isinstance(values[0], (float, str, Instant)) or isinstance(values[0], bool)
    ):
        raise parser.wrong(f"{operator.value} takes one number, quoted text or date-time")
    words = frozenset(_word(value, expand) for value in values if isinstance(value, (str, Uri)))
    return ValueTerm(names, expanded, members, operator, values, words=words)


def _word(value: str | Uri, expand: Expand) -> str:
    text = value if isinstance(value, str) else value.text
    return expand(text) if text and " " not in text else text


def _pattern_text(parser: LogicParser[ValueTerm]) -> str:
    """Return a regular expression: quoted, or up to the end of the term; parentheses inside it are balanced."""
    if parser.peek('"'):
        return _quoted(parser)
    begin, depth = parser.at, 0
    while parser.at < len(parser.text):
        character = parser.text[parser.at]
        if character == "\\":
            parser.at += 1
        elif character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif not depth and character in ";|)":
            break
        parser.at += 1
    parser.at = min(parser.at, len(parser.text))
    if parser.at == begin:
        raise parser.wrong("a pattern is missing")
    return parser.text[begin : parser.at]


def _values(parser: LogicParser[ValueTerm]) -> tuple[Literal | LiteralRange, ...]:
    values = [_value(parser)]
    while parser.peek(","):
        parser.at += 1
        values.append(_value(parser))
        if len(values) > _LIST_MAX:
            raise parser.wrong(f"a list has more than {_LIST_MAX} values")
    return tuple(values)


def _value(parser: LogicParser[ValueTerm]) -> Literal | LiteralRange:
    if parser.peek('"'):
        low: Literal = _quoted(parser)
        if not parser.text.startswith("..", parser.at):
            return low
        parser.at += 2
        return LiteralRange(low, _quoted(parser))
    text = parser.take_until(";|),").strip()
    first, dots, last = text.partition("..")
    if not dots:
        return _literal(parser, text)
    low, high = _literal(parser, first), _literal(parser, last)
    if type(low) is not type(high) or isinstance(low, (bool, Uri)):
        raise parser.wrong(f"'{text[:40]}' is not a range of numbers, texts or times")
    return LiteralRange(low, high)


def _literal(parser: LogicParser[ValueTerm], text: str) -> Literal:
    if text in {"true", "false"}:
        return text == "true"
    if (time := parse_date_time(text)) is not None:
        return Instant(time)
    if is_date(text) or is_time(text):
        return text
    try:
        number = msgspec.json.decode(text.encode() or b"!", type=float)
    except msgspec.DecodeError:
        number = None
    if number is not None:
        return number
    scheme, colon, rest = text.partition(":")
    if colon and rest and scheme[:1].isalpha() and not any(character.isspace() for character in text):
        return Uri(text)
    raise parser.wrong(f"'{text[:40]}' is not a number, true, false, a time or a URI; quote a text")


def _quoted(parser: LogicParser[ValueTerm]) -> str:
    if not parser.peek('"'):
        raise parser.wrong(f"a quoted text is missing at character {parser.at + 1}")
    begin = parser.at
    parser.at += 1
    while parser.at < len(parser.text) and parser.text[parser.at] != '"':
        parser.at += 2 if parser.text[parser.at] == "\\" else 1
    if parser.at >= len(parser.text):
        raise parser.wrong("a quotation mark is not closed")
    parser.at += 1
    inner = parser.text[begin + 1 : parser.at - 1]
    return inner.replace('\\"', '"').replace("\\\\", "\\") if "\\" in inner else inner


# ── testing ───────────────────────────────────────────────────────────────────────────────────────────


def _holds(entity: EntityRecord, term: ValueTerm) -> bool:
    name = term.names[0]
    instances = [instance for instance in entity.attributes if instance.name == name]
    if not instances and name not in _SYSTEM_NAMES:
        return False
    targets = _targets(entity, instances, term)
    if term.operator is Operator.EXISTS:
        return next(targets, _NOTHING) is not _NOTHING
    return any(_compares(target, term) for target in targets)


class _Target(msgspec.Struct, frozen=True, eq=False):
    """A value to compare with."""

    value: object
    is_word: bool = False
    """True if it is a name of a vocabulary, or the object of a relationship."""


_NOTHING = _Target(None)


def _targets(entity: EntityRecord, instances: Sequence[AttributeInstance], term: ValueTerm) -> Iterator[_Target]:
    yield from _system_targets(entity.created, entity.modified, term, 0)
    for instance in instances:
        yield from _of_instance(instance, term, 1)


def _of_instance(instance: AttributeInstance, term: ValueTerm, depth: int) -> Iterator[_Target]:
    if depth == len(term.names):
        is_word = instance.kind in _WORDS
        values: Iterator[object] = _inside(instance.value, term.members)
        if instance.kind is AttributeKind.LANGUAGE_PROPERTY and not term.members:
            values = _inside(instance.value, ("*",))
        for value in values:
            yield _Target(value, is_word)
        return
    if depth == len(term.names) - 1 and not term.members:
        yield from _system_targets(instance.created, instance.modified, term, depth)
        match term.names[depth]:
            case "observedAt" if instance.observed_at is not None:
                yield _Target(Instant(instance.observed_at))
            case "unitCode" if instance.unit:
                yield _Target(instance.unit)
            case "datasetId" if instance.dataset:
                yield _Target(instance.dataset)
    for sub in instance.sub:
        if sub.name == term.expanded[depth]:
            yield from _of_instance(sub, term, depth + 1)


_WORDS = frozenset({AttributeKind.VOCAB_PROPERTY, AttributeKind.RELATIONSHIP, AttributeKind.LIST_RELATIONSHIP})


def _system_targets(created: int | None, modified: int | None, term: ValueTerm, depth: int) -> Iterator[_Target]:
    if depth != len(term.names) - 1 or term.members:
        return
    name = term.names[depth].rpartition("/")[2]
    for key, time in (("createdAt", created), ("modifiedAt", modified)):
        if name == key and time is not None:
            yield _Target(Instant(time))


def _inside(value: object, members: Sequence[str]) -> Iterator[object]:
    """Yield the values at a path inside a compound value."""
    if not members:
        yield _typed(value)
        return
    name, *rest = members
    if isinstance(value, Mapping):
        for key in value if name == "*" else (name,):
            if key in value:
                yield from _inside(value[key], rest)
    elif isinstance(value, list):
        for element in value:
            yield from _inside(element, members)


def _typed(value: object) -> object:
    """Return a value that JSON-LD types as a time as such."""
    if isinstance(value, Mapping) and "@value" in value:
        inner = value["@value"]
        if value.get("@type") == "DateTime" and isinstance(inner, str):
            time = parse_date_time(inner)
            return inner if time is None else Instant(time)
        return inner
    return value


def _compares(target: _Target, term: ValueTerm) -> bool:
    value = target.value
    elements = [_typed(element) for element in value] if isinstance(value, list) else [value]
    match term.operator:
        case Operator.EQUAL:
            return _equals_any(elements, target, term)
        case Operator.UNEQUAL:
            return not _equals_any(elements, target, term)
        case Operator.MATCHES | Operator.DIFFERS:
            texts = [element for element in elements if isinstance(element, str)]
            matches = any(term.pattern.search(text) for text in texts)
            return bool(texts) and matches is (term.operator is Operator.MATCHES)
    literal = term.values[0]
    order = None if isinstance(literal, LiteralRange) or isinstance(value, list) else _order(value, literal)
    return order is not None and order in _ORDERS[term.operator]


_ORDERS: Mapping[Operator, tuple[int, ...]] = {
    Operator.ABOVE: (1,),
    Operator.AT_LEAST: (0, 1),
    Operator.BELOW: (-1,),
    Operator.AT_MOST: (-1, 0),
}
"""Order of value and literal by which a comparison holds."""


def _equals_any(elements: Sequence[object], target: _Target, term: ValueTerm) -> bool:
    if target.is_word and any(isinstance(element, str) and element in term.words for element in elements):
        return True
    return any(_equals(element, literal) for element in elements for literal in term.values)


def _equals(value: object, literal: Literal | LiteralRange) -> bool:
    if isinstance(literal, LiteralRange):
        low, high = _order(value, literal.low), _order(value, literal.high)
        return low is not None and high is not None and low >= 0 >= high
    return _order(value, literal) == 0


def _order(value: object, literal: Literal) -> int | None:  # noqa: PLR0911 - one for each kind of literal
    """Return how a value compares with a literal: -1, 0 or 1; None: the two are not of one kind."""
    match literal:
        case bool():
            return (0 if value is literal else 1) if isinstance(value, bool) else None
        case float():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return _sign(value, literal) if is_number else None
        case Uri(text):
            return _sign(value, text) if isinstance(value, str) else None
        case Instant():
            moment = _moment_of(value)
            return None if moment is None else _sign(moment, literal.time)
        case str():
            if isinstance(value, Instant):
                time = parse_date_time(literal)
                return None if time is None else _sign(value.time, time)
            return _sign(value, literal) if isinstance(value, str) else None
    return None


def _moment_of(value: object) -> int | None:
    if isinstance(value, Instant):
        return value.time
    return parse_date_time(value) if isinstance(value, str) else None


def _sign(value: Any, literal: Any) -> int:
    return int(value > literal) - int(value < literal)
