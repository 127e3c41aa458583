"""Conditions joined by ``;`` (and), ``|`` or ``,`` (or) and parentheses: selections of types, and queries of scopes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec

from sensegate.ngsi_ld.problems import bad_data

T = TypeVar("T")
LENGTH_MAX = 4_000
"""Most characters of a condition."""
DEPTH_MAX = 16
TERMS_MAX = 200


class Joined(msgspec.Struct, Generic[T], frozen=True):
    """Conditions of which all must hold, or any."""

    terms: tuple[Joined[T] | T, ...]
    is_all: bool

    def holds(self, test: Callable[[T], bool]) -> bool:
        """Return whether the condition holds, by a test of a single one."""
        is_all = self.is_all
        for term in self.terms:
            if (term.holds(test) if isinstance(term, Joined) else test(term)) is not is_all:
                return not is_all
        return is_all

    def mapped(self, change: Callable[[T], T]) -> Joined[T]:
        """Return the condition with each single one replaced."""
        return Joined(
            tuple(term.mapped(change) if isinstance(term, Joined) else change(term) for term in self.terms),
            self.is_all,
        )

    def leaves(self) -> Iterable[T]:
        """Yield the single conditions."""
        for term in self.terms:
            if isinstance(term, Joined):
                yield from term.leaves()
            else:
                yield term


class LogicParser(Generic[T]):
    """Parser of joined conditions; a subclass or callable reads a single one."""

    def __init__(self, key: str, text: str, term: Callable[[LogicParser[T]], T], *, comma: bool) -> None:
        """`term` reads a single condition at the position; `comma`: a comma joins as ``|`` does."""
        if len(text) > LENGTH_MAX:
            raise bad_data(f"{key}: has {len(text)} characters; give at most {LENGTH_MAX}")
        self.key = key
        self.text = text
        self.at = 0
        self._term = term
        self._or = "|," if comma else "|"
        self._count = 0

    def parse(self) -> Joined[T]:
        """Return the condition. Raises `NgsiError`."""
        parsed = self._any(0)
        if self.at < len(self.text):
            raise self.wrong(f"'{self.text[self.at]}' at character {self.at + 1} is not expected")
        return parsed

    def wrong(self, problem: str) -> Exception:
        """Return the error for a text that is not understood."""
        return bad_data(f"{self.key}: {problem}; see clause 4.9 of ETSI GS CIM 009 for its grammar")

    def _any(self, depth: int) -> Joined[T]:
        terms = [self._all(depth)]
        while self.peek(self._or):
            self.at += 1
            terms.append(self._all(depth))
        return terms[0] if len(terms) == 1 else Joined(tuple(terms), is_all=False)

    def _all(self, depth: int) -> Joined[T]:
        terms: list[Joined[T] | T] = [self._single(depth)]
        while self.peek(";"):
            self.at += 1
            terms.append(self._single(depth))
        return Joined(tuple(terms), is_all=True)

    def _single(self, depth: int) -> Joined[T] | T:
        if not self.peek("("):
            self._count += 1
            if self._count > TERMS_MAX:
                raise self.wrong(f"has more than {TERMS_MAX} conditions")
            return self._term(self)
        if depth >= DEPTH_MAX:
            raise self.wrong(f"has more than {DEPTH_MAX} parentheses in one another")
        self.at += 1
        inner = self._any(depth + 1)
        if not self.peek(")"):
            raise self.wrong("a parenthesis is not closed")
        self.at += 1
        return inner

    def peek(self, characters: str) -> bool:
        """Return whether the next character is one of some."""
        return self.at < len(self.text) and self.text[self.at] in characters

    def take_until(self, stops: str) -> str:
        """Return the text up to one of some characters, which is not taken."""
        begin = self.at
        while self.at < len(self.text) and self.text[self.at] not in stops:
            self.at += 1
        return self.text[begin : self.at]


def _word(parser: LogicParser[str]) -> str:
    word = parser.take_until("();|,").strip()
    if not word:
        raise parser.wrong(f"a name is missing at character {parser.at + 1}")
    return word


def parse_words(key: str, text: str) -> Joined[str]:
    """Return joined words: a selection of types, or a query of scopes. Raises `NgsiError`."""
    return LogicParser(key, text, _word, comma=True).parse()


def scope_matches(pattern: str, scopes: Iterable[str]) -> bool:
    """Return whether a scope matches a pattern, in which ``+`` is any level and ``#`` the level and all below."""
    wanted = pattern.strip("/").split("/")
    return any(_is_within(wanted, scope.strip("/").split("/")) for scope in scopes)


def _is_within(wanted: list[str], levels: list[str]) -> bool:
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        levels = levels[: max(len(wanted), 0)] if len(levels) >= len(wanted) else levels
    if len(wanted) != len(levels):
        return False
    return all(pattern in {"+", level} for pattern, level in zip(wanted, levels, strict=True))
