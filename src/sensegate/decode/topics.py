"""Topic patterns: ``tele/{device}/SENSOR``; ``{name}`` captures one level, ``{name+}`` one or more levels.

`TopicIndex` matches many patterns at once; the most literal match comes first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

_CAPTURE = re.compile(r"\{([a-z_]+)(\+?)\}")
LEVELS_MAX = 16
"""Most levels of a topic; topics with more match nothing."""


class TopicLevel(msgspec.Struct, frozen=True):
    """A level of a pattern: literal text, or a capture (of one or several levels) with text before and after."""

    literal: str = ""
    capture: str = ""
    multi_level: bool = False
    before: str = ""
    after: str = ""


class TopicPattern(msgspec.Struct, frozen=True):
    """A parsed topic pattern."""

    text: str
    levels: tuple[TopicLevel, ...]

    @property
    def captures(self) -> frozenset[str]:
        """Names of the captures."""
        return frozenset(level.capture for level in self.levels if level.capture)


def parse(text: str) -> TopicPattern:
    """Parse a pattern.

    Raises:
        ValueError: the text is not a pattern; the message says why.
    """
    levels: list[TopicLevel] = []
    if not text or len(text.split("/")) > LEVELS_MAX:
        raise ValueError(f"a topic has 1 to {LEVELS_MAX} levels")
    for part in text.split("/"):
        captures = list(_CAPTURE.finditer(part))
        rest = _CAPTURE.sub("", part)
        if any(wildcard in rest for wildcard in "{}+#"):
            raise ValueError(f"level {part!r}: captures are written {{name}} or {{name+}}; no MQTT wildcards")
        if len(captures) > 1:
            raise ValueError(f"level {part!r}: only one capture is allowed in a level")
        if not captures:
            levels.append(TopicLevel(literal=part))
            continue
        name, many = captures[0].groups()
        before, after = part[: captures[0].start()], part[captures[0].end() :]
        if many and (before or after):
            raise ValueError(f"level {part!r}: a capture of several levels must stand alone")
        levels.append(TopicLevel(capture=name, multi_level=bool(many), before=before, after=after))
    if sum(level.multi_level for level in levels) > 1:
        raise ValueError("a topic may have only one capture of several levels")
    names = [level.capture for level in levels if level.capture]
    if len(names) != len(set(names)):
        raise ValueError("each capture needs its own name")
    return TopicPattern(text, tuple(levels))


def match(pattern: TopicPattern, topic: str) -> dict[str, str] | None:
    """Return the captures of a topic, or None if it does not match."""
    return _match(pattern.levels, topic.split("/"))


def _match(levels: Sequence[TopicLevel], parts: Sequence[str]) -> dict[str, str] | None:
    multi = next((index for index, level in enumerate(levels) if level.multi_level), None)
    if multi is not None:
        width = len(parts) - len(levels) + 1
        if width < 1:
            return None
        parts = [*parts[:multi], "/".join(parts[multi : multi + width]), *parts[multi + width :]]
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


def fill(pattern: TopicPattern, captured: Mapping[str, str]) -> str:
    """Return the topic with these captures filled in; others become ``+`` or, at the end, ``#``."""
    parts: list[str] = []
    for index, level in enumerate(pattern.levels):
        if not level.capture:
            parts.append(level.literal)
        elif level.capture in captured:
            parts.append(f"{level.before}{captured[level.capture]}{level.after}")
        else:
            parts.append("#" if level.multi_level and index == len(pattern.levels) - 1 else "+")
    return "/".join(parts)


def filters(pattern: TopicPattern, names: Sequence[str], *, capture: str = "device") -> list[str]:
    """Return MQTT topic filters for a device with these names; other captures become ``+`` or, at the end, ``#``."""
    return [fill(pattern, {capture: name}) for name in names]


def order(pattern: TopicPattern) -> tuple[int, ...]:
    """Return the sort key of a pattern: more literal patterns come first."""
    last = len(pattern.levels) - 1
    weights = (0 if not level.capture else 1 if not level.multi_level else 2 for level in pattern.levels)
    return tuple(3 if weight == 2 and index == last else weight for index, weight in enumerate(weights))


def covers(pattern: TopicPattern, other: TopicPattern) -> bool:
    """Return whether every topic that matches `other` matches `pattern`."""
    return _covers(pattern.levels, other.levels)


def _covers(pattern: Sequence[TopicLevel], other: Sequence[TopicLevel]) -> bool:
    if not pattern or not other:
        return not pattern and not other
    first, then = pattern[0], other[0]
    if first.multi_level:  # one or more levels
        return any(_covers(pattern[1:], other[width:]) for width in range(1, len(other) + 1))
    if then.multi_level:
        return False
    if first.capture:
        start, end = (then.before, then.after) if then.capture else (then.literal, then.literal)
        enough = then.capture or len(then.literal) > len(first.before) + len(first.after)
        return (
            bool(enough)
            and start.startswith(first.before)
            and end.endswith(first.after)
            and _covers(pattern[1:], other[1:])
        )
    return not then.capture and first.literal == then.literal and _covers(pattern[1:], other[1:])


class TopicIndex:
    """Many patterns matched at once: each is indexed by one literal level, so that the cost does not grow with them.

    `add` takes them in any order; `match` returns (number, captures) of those that match, the most literal first.
    """

    def __init__(self) -> None:
        self._patterns: list[tuple[TopicPattern, int]] = []
        self._by_level: dict[tuple[int, int, str], list[int]] = {}
        self._unindexed: list[int] = []

    def add(self, pattern: TopicPattern, number: int) -> None:
        """Add a pattern under a number chosen by the caller."""
        position = len(self._patterns)
        self._patterns.append((pattern, number))
        multi = next((index for index, level in enumerate(pattern.levels) if level.multi_level), None)
        for index, level in enumerate(pattern.levels):
            if multi is not None and index > multi:
                break
            if not level.capture:
                count = len(pattern.levels) if multi is None else 0
                self._by_level.setdefault((count, index, level.literal), []).append(position)
                return
        self._unindexed.append(position)

    def match(self, topic: str) -> list[tuple[int, dict[str, str]]]:
        """Return (number, captures) of every pattern that matches."""
        parts = topic.split("/")
        if len(parts) > LEVELS_MAX:
            return []
        positions = list(self._unindexed)
        for index, part in enumerate(parts):
            positions += self._by_level.get((len(parts), index, part), ())
            positions += self._by_level.get((0, index, part), ())
        matches: list[tuple[tuple[int, ...], int, int, dict[str, str]]] = []
        for position in positions:
            pattern, number = self._patterns[position]
            captured = _match(pattern.levels, parts)
            if captured is not None:
                matches.append((order(pattern), position, number, captured))
        matches.sort(key=lambda item: item[:2])
        return [(number, captured) for _, _, number, captured in matches]


def matches_filter(topic: str, topic_filter: str) -> bool:
    """Return whether a topic matches an MQTT filter (``a/+/c``, ``a/#``)."""
    levels, parts = topic.split("/"), topic_filter.split("/")
    for index, part in enumerate(parts):
        if part == "#":
            return True
        if index >= len(levels) or part not in {"+", levels[index]}:
            return False
    return len(levels) == len(parts)
