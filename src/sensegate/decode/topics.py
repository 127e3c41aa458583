"""Topic patterns: ``tele/{device}/SENSOR``; ``{name}`` captures one level, ``{name+}`` one or more.

Many patterns are matched at once by `Index`; the most literal match comes first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

_CAPTURE = re.compile(r"\{([a-z_]+)(\+?)\}")
LEVELS_MAX = 16
"""Topics with more levels match nothing."""


class Level(msgspec.Struct, frozen=True):
    """One level of a pattern: literal text, or a capture (of several levels) with text before and after."""

    literal: str = ""
    capture: str = ""
    many: bool = False
    before: str = ""
    after: str = ""


class Pattern(msgspec.Struct, frozen=True):
    """A parsed topic pattern."""

    text: str
    levels: tuple[Level, ...]

    @property
    def captures(self) -> frozenset[str]:
        """Names of the captures."""
        return frozenset(level.capture for level in self.levels if level.capture)


def parse(text: str) -> Pattern:
    """Return the pattern.

    Raises:
        ValueError: if the text is no pattern; the message says why.
    """
    levels: list[Level] = []
    if not text or len(text.split("/")) > LEVELS_MAX:
        raise ValueError(f"a topic has 1 to {LEVELS_MAX} levels")
    for part in text.split("/"):
        found = list(_CAPTURE.finditer(part))
        rest = _CAPTURE.sub("", part)
        if any(mark in rest for mark in "{}+#"):
            raise ValueError(f"level {part!r}: captures are written {{name}} or {{name+}}; no MQTT wildcards")
        if len(found) > 1:
            raise ValueError(f"level {part!r}: one capture a level")
        if not found:
            levels.append(Level(literal=part))
            continue
        name, many = found[0].groups()
        before, after = part[: found[0].start()], part[found[0].end() :]
        if many and (before or after):
            raise ValueError(f"level {part!r}: a capture of several levels stands alone")
        levels.append(Level(capture=name, many=bool(many), before=before, after=after))
    if sum(level.many for level in levels) > 1:
        raise ValueError("one capture of several levels a topic")
    names = [level.capture for level in levels if level.capture]
    if len(names) != len(set(names)):
        raise ValueError("each capture needs its own name")
    return Pattern(text, tuple(levels))


def match(pattern: Pattern, topic: str) -> dict[str, str] | None:
    """Return the captures of a topic, or None where it does not match."""
    return _match(pattern.levels, topic.split("/"))


def _match(levels: Sequence[Level], parts: Sequence[str]) -> dict[str, str] | None:
    many = next((index for index, level in enumerate(levels) if level.many), None)
    if many is not None:
        taken = len(parts) - len(levels) + 1
        if taken < 1:
            return None
        parts = [*parts[:many], "/".join(parts[many : many + taken]), *parts[many + taken :]]
    if len(parts) != len(levels):
        return None
    captured: dict[str, str] = {}
    for level, part in zip(levels, parts, strict=True):
        if not level.capture:
            if part != level.literal:
                return None
            continue
        if len(part) <= len(level.before) + len(level.after) or not part.startswith(level.before):
            return None
        if not part.endswith(level.after):
            return None
        captured[level.capture] = part[len(level.before) : len(part) - len(level.after)]
    return captured


def fill(pattern: Pattern, captured: Mapping[str, str]) -> str:
    """Return the topic with these captures; others become ``+`` or, at the end, ``#``."""
    parts: list[str] = []
    for index, level in enumerate(pattern.levels):
        if not level.capture:
            parts.append(level.literal)
        elif level.capture in captured:
            parts.append(f"{level.before}{captured[level.capture]}{level.after}")
        else:
            parts.append("#" if level.many and index == len(pattern.levels) - 1 else "+")
    return "/".join(parts)


def filters(pattern: Pattern, names: Sequence[str], *, capture: str = "device") -> list[str]:
    """Return MQTT topic filters for a device of these names; other captures become ``+`` or, at the end, ``#``."""
    return [fill(pattern, {capture: name}) for name in names]


def order(pattern: Pattern) -> tuple[int, ...]:
    """Return the sort key of a pattern: the more literal, the earlier."""
    last = len(pattern.levels) - 1
    weights = (0 if not level.capture else 1 if not level.many else 2 for level in pattern.levels)
    return tuple(3 if weight == 2 and index == last else weight for index, weight in enumerate(weights))


def covers(one: Pattern, other: Pattern) -> bool:
    """Return whether every topic that matches `other` matches `one`."""
    return _covers(one.levels, other.levels)


def _covers(one: Sequence[Level], other: Sequence[Level]) -> bool:
    if not one or not other:
        return not one and not other
    first, then = one[0], other[0]
    if first.many:  # one or more levels
        return any(_covers(one[1:], other[taken:]) for taken in range(1, len(other) + 1))
    if then.many:
        return False
    if first.capture:
        start, end = (then.before, then.after) if then.capture else (then.literal, then.literal)
        enough = then.capture or len(then.literal) > len(first.before) + len(first.after)
        return (
            bool(enough)
            and start.startswith(first.before)
            and end.endswith(first.after)
            and _covers(one[1:], other[1:])
        )
    return not then.capture and first.literal == then.literal and _covers(one[1:], other[1:])


class Index:
    """Many patterns matched at once: looked up by one literal level each, so that cost does not grow with their number.

    `add` in any order; `match` gives (number, captures) of those that match, the most literal first.
    """

    def __init__(self) -> None:
        self._patterns: list[tuple[Pattern, int]] = []
        self._by_level: dict[tuple[int, int, str], list[int]] = {}
        self._others: list[int] = []

    def add(self, pattern: Pattern, number: int) -> None:
        """Add a pattern under a number of the caller's."""
        place = len(self._patterns)
        self._patterns.append((pattern, number))
        many = next((at for at, level in enumerate(pattern.levels) if level.many), None)
        for index, level in enumerate(pattern.levels):
            if many is not None and index > many:
                break
            if not level.capture:
                count = len(pattern.levels) if many is None else 0
                self._by_level.setdefault((count, index, level.literal), []).append(place)
                return
        self._others.append(place)

    def match(self, topic: str) -> list[tuple[int, dict[str, str]]]:
        """Return (number, captures) of every pattern that matches."""
        parts = topic.split("/")
        if len(parts) > LEVELS_MAX:
            return []
        places = list(self._others)
        for index, part in enumerate(parts):
            places += self._by_level.get((len(parts), index, part), ())
            places += self._by_level.get((0, index, part), ())
        found: list[tuple[tuple[int, ...], int, int, dict[str, str]]] = []
        for place in places:
            pattern, number = self._patterns[place]
            captured = _match(pattern.levels, parts)
            if captured is not None:
                found.append((order(pattern), place, number, captured))
        found.sort(key=lambda item: item[:2])
        return [(number, captured) for _, _, number, captured in found]
