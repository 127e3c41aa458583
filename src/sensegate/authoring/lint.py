"""Warn of valid but probably mistaken parts of a profile. `check` prints it after the errors.

Message rules that can never be reached, readings that no example shows, example values out of their property's range or
a thousand times too large, words that are not codes of their property, unused anchors, parts left of the template.
All of it is read from the profile and from its decoded examples; nothing is guessed about the device.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from sensegate.authoring.examples import ExampleRun, LoadedProfile, check_examples, decode_example, load_profile
from sensegate.authoring.faults import profile_faults
from sensegate.config import builtin
from sensegate.config import yaml as yamls
from sensegate.decode.grammar import MessageRule, ProfileFile, ReadingRule, key_text, line_of, parse
from sensegate.decode.profile import CompiledProfile
from sensegate.decode.topics import TopicPattern, covers
from sensegate.decode.topics import parse as topic_of
from sensegate.decode.words import TABLES
from sensegate.errors import ProfileError, ProfileWarning
from sensegate.model import Datum
from sensegate.quantities.properties import CODES, PROPERTIES, Property

_KeyPath = tuple[str | int, ...]


class ProfileReview(NamedTuple):
    """Findings on a profile."""

    profile: CompiledProfile | None
    """None: it has errors."""
    findings: Sequence[ProfileError]
    """Its errors; if there are none, its probable mistakes in the order of their lines."""


def review_profile(path: Path | str) -> ProfileReview:
    """Return the errors of a profile as `check_profile` does, or its probable mistakes; it is compiled once."""
    try:
        loaded = load_profile(path)
    except ProfileError as error:
        return ProfileReview(None, profile_faults(Path(path)) or [error])
    if errors := check_examples(loaded):
        return ProfileReview(None, errors)
    return ProfileReview(loaded.profile, _warnings(loaded))


def _warnings(loaded: LoadedProfile) -> list[ProfileWarning]:
    lint = _Lint(loaded)
    warnings = [
        *lint.placeholders(),
        *lint.unreachable(),
        *lint.values(),
        *lint.words(),
        *lint.coordinates(),
        *lint.not_shown(),
        *lint.anchors(Path(loaded.profile.file)),
    ]
    return sorted(warnings, key=lambda warning: warning.line)


@functools.cache
def _template() -> ProfileFile:
    file = builtin.PROFILES / "_template.yaml"
    return parse(file.read_text(encoding="utf-8"), file=str(file))[0]


class _Lint:
    """The checks over one profile."""

    def __init__(self, loaded: LoadedProfile) -> None:
        self._profile, self._profiles = loaded
        self._rules = loaded.profile.source.messages
        self._runs = list(self._examples())

    def _examples(self) -> Iterator[ExampleRun]:
        for example in self._profile.source.examples:
            try:
                yield decode_example(self._profiles, self._profile, example)
            except ValueError:  # base64, hex, time: `check_profile` reports it
                continue

    def _warning(self, text: str, *path: str | int, remedy: str = "") -> ProfileWarning:
        line = line_of(self._profile.lines, path)
        return ProfileWarning(text, file=self._profile.file, line=line, key=key_text(path), remedy=remedy)

    # ── the template ─────────────────────────────────────────────────────────────────────────────────

    def placeholders(self) -> Iterator[ProfileWarning]:
        """Yield the texts and payloads that are still those of the template of `sensegate profile new`."""
        source, template = self._profile.source, _template()
        if source.profile == template.profile:
            return
        for text, placeholder, path, remedy in (
            (source.label.zh, template.label.zh, ("label", "zh"), "write the name of the model in Chinese"),
            (source.label.en, template.label.en, ("label", "en"), "write the name of the model"),
            (source.source, template.source, ("source",), "name the maker's document, or a link to it"),
        ):
            if text == placeholder:
                yield self._warning(f"is still '{text}', as in the template", *path, remedy=remedy)
        payloads = [example.payload for example in template.examples]
        for index, example in enumerate(source.examples):
            if example.payload in payloads:
                text = f"the payload of '{example.label}' is still that of the template"
                yield self._warning(text, "examples", index, remedy="take one from the maker's document")

    # ── reachability ─────────────────────────────────────────────────────────────────────────────────

    def unreachable(self) -> Iterator[ProfileWarning]:
        """Yield rules whose messages an earlier rule takes, and topics that another topic of the rule covers."""
        for index, rule in enumerate(self._rules):
            for before in range(index):
                if self._shadows(self._rules[before], rule):
                    label = self._rules[before].label or f"messages[{before}]"
                    text = f"is never reached: '{label}' (line {self._line(before)}) takes all its messages"
                    yield self._warning(
                        text, "messages", index, remedy="give that one a `where`, or put this one before it"
                    )
                    break
            patterns = [topic_of(text) for text in rule.topics]
            for position, pattern in enumerate(patterns):
                other = next(
                    (candidate for candidate in patterns if candidate is not pattern and _subsumes(candidate, pattern)),
                    None,
                )
                if other is not None and (not covers(pattern, other) or patterns.index(other) < position):
                    text = f"is redundant: {other.text} covers it"
                    yield self._warning(text, "messages", index, "topics", position, remedy="remove one of the two")

    def _line(self, index: int) -> int:
        return line_of(self._profile.lines, ("messages", index))

    def _shadows(self, first: MessageRule, then: MessageRule) -> bool:
        """Return whether `first`, which comes before, takes every message of `then`."""
        if not _same_sources(then, first) or not _weaker_conditions(first, then):
            return False
        if first.ignore:  # over HTTP, a carrier's rules are chosen by the content of the message, whatever their topics
            return not first.root and not any(rule.payload for rule in self._rules)
        if (
            first.format != then.format
            or first.charset != then.charset
            or first.payload
            or then.payload
            or first.beside
        ):
            return False
        compared = ("root", "each", "wrap", "unpack", "table", "binary", "script", "csv", "xml", "standard", "named")
        if (
            any(getattr(first, key, None) != getattr(then, key, None) for key in compared)
            or first.standard
            or first.named
        ):
            return False
        return bool(then.readings) and _fields(then) <= _fields(first)

    # ── values ───────────────────────────────────────────────────────────────────────────────────────

    def values(self) -> Iterator[ProfileWarning]:
        """Yield example values out of range or a thousand times off, and settings that contradict each other."""
        examples: dict[str, list[tuple[_KeyPath, float]]] = {}
        for index, example in enumerate(self._profile.source.examples):
            for number, expected in enumerate(example.expect):
                if (
                    expected.property in PROPERTIES
                    and isinstance(expected.value, (int, float))
                    and not isinstance(expected.value, bool)
                ):
                    examples.setdefault(expected.property, []).append(
                        (("examples", index, "expect", number), float(expected.value))
                    )
        for name, values in examples.items():
            yield from self._out_of_range(PROPERTIES.by_name(name), values)
        for path, reading in self._reading_rules():
            row = PROPERTIES.by_name(reading.property)
            if reading.words is not None and (reading.scale, reading.offset) != (1.0, 0.0):
                yield self._warning(
                    "`scale` and `offset` change what `words` give",
                    *path,
                    "words",
                    remedy="remove them",
                )
            if reading.step is not None and reading.step >= row.high - row.low:
                yield self._warning(
                    f"{reading.step:g} is all that {row.name} can change", *path, "step", remedy="lower it"
                )

    def _out_of_range(self, row: Property, values: Sequence[tuple[_KeyPath, float]]) -> Iterator[ProfileWarning]:
        """Yield a warning at the first example value of a property when no example value of it is plausible."""
        path, value = values[0]
        if not any(row.low <= number <= row.high for _, number in values):
            text = f"{value:g} {row.unit} is out of the range of {row.name} ({row.low:g} to {row.high:g})"
            yield self._warning(text, *path, remedy="it will be marked bad: check scale and unit")
            return
        factors = {row.unit_error_factor(number) for _, number in values if number}
        if len(factors) == 1 and (factor := factors.pop()) != 1:
            times = "a thousandth" if factor > 1 else "a thousand times"
            text = f"{value:g} {row.unit} is {times} of what is usual for {row.name}"
            yield self._warning(text, *path, remedy="check the unit (ug, mg or ng; mV or V)")

    def _reading_rules(self) -> Iterator[tuple[_KeyPath, ReadingRule]]:
        for index, rule in enumerate(self._rules):
            for number, reading in enumerate(rule.readings):
                yield ("messages", index, "readings", number), reading

    def words(self) -> Iterator[ProfileWarning]:
        """Yield words that are not codes of their property."""
        for path, reading in self._reading_rules():
            codes = CODES.get(PROPERTIES.by_name(reading.property).codes)
            if codes is None or reading.words is None:
                continue
            pairs = TABLES[reading.words].words if isinstance(reading.words, str) else reading.words.items()
            unknown = dict.fromkeys(str(code) for _, code in pairs if str(code) not in codes)
            if unknown:
                text = f"{', '.join(map(repr, unknown))}: not a code of {reading.property}"
                yield self._warning(text, *path, "words", remedy=f"codes are {', '.join(codes)}")

    def coordinates(self) -> Iterator[ProfileWarning]:
        """Yield longitudes in a shifted datum without a latitude in the same datum beside them, and vice versa."""
        for index, rule in enumerate(self._rules):
            datums = {(reading.property, reading.channel): reading.datum for reading in rule.readings}
            for number, reading in enumerate(rule.readings):
                other = {"longitude": "latitude", "latitude": "longitude"}.get(reading.property)
                if reading.datum in {Datum.WGS84, Datum.CGCS2000} or other is None:
                    continue
                if datums.get((other, reading.channel)) is not reading.datum:
                    text = f"there is no {other} in {reading.datum.value} beside it"
                    remedy = "a lone coordinate becomes no reading; give both in the same datum"
                    yield self._warning(text, "messages", index, "readings", number, "datum", remedy=remedy)

    # ── examples ─────────────────────────────────────────────────────────────────────────────────────

    def not_shown(self) -> Iterator[ProfileWarning]:
        """Yield rules and readings that no example shows."""
        specs: set[int] = set()
        rejected: set[str] = set()
        for run in self._runs:
            specs.update(run.fields.spec.tolist())
            rejected |= {_without_condition(value.field) for value in run.fields.rejected}
        seen = {self._name_and_property(indexec) for indexec in specs if indexec < len(self._profiles.specs)}
        for index, rule in enumerate(self._rules):
            if rule.ignore or rule.standard or not rule.readings:
                continue
            if not self._has_example(rule):
                yield self._warning("no example shows such a message", "messages", index, remedy="add one")
                continue
            if rule.video:
                continue  # the format decides where values stand, not the profile; the format's own tests cover them
            for number, reading in enumerate(rule.readings):
                names = set(_names(reading)) or {reading.property}  # video metadata: the format knows the field
                if not any((name, reading.property) in seen for name in names) and not names & rejected:
                    text = f"no example shows {reading.field or (*reading.fields, reading.property)[0]}"
                    yield self._warning(
                        text, "messages", index, "readings", number, remedy="a mistake in it would go unnoticed"
                    )

    def _name_and_property(self, index: int) -> tuple[str, str]:
        spec = self._profiles.specs[index]
        if spec.name.startswith(f"{spec.property}#"):  # of video metadata, with a lane or zone
            return spec.property, spec.property
        return _without_condition(spec.name), spec.property

    def _has_example(self, rule: MessageRule) -> bool:
        """Return whether an example has a topic or port of a rule."""
        patterns = [topic_of(text) for text in rule.topics]
        for example in self._profile.source.examples:
            if example.topic and any(covers(pattern, topic_of(_plain(example.topic))) for pattern in patterns):
                return True
            if example.topic.startswith(("http/", "tcp/")):
                return True
            if rule.frames and not example.topic and (not rule.frames.ports or example.port in rule.frames.ports):
                return True
        return False

    # ── YAML ─────────────────────────────────────────────────────────────────────────────────────────

    def anchors(self, path: Path) -> Iterator[ProfileWarning]:
        """Yield anchors that nothing refers to."""
        defined: dict[str, int] = {}
        used: set[str] = set()
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yamls.LOADER):
            anchor = getattr(event, "anchor", None)
            if isinstance(event, yaml.AliasEvent):
                used.add(str(anchor))
            elif anchor is not None and event.start_mark is not None:
                defined[anchor] = event.start_mark.line + 1
        for anchor, line in defined.items():
            if anchor not in used:
                yield ProfileWarning(
                    f"nothing refers to &{anchor}",
                    file=self._profile.file,
                    line=line,
                    key=f"&{anchor}",
                    remedy="remove it",
                )


def _plain(topic: str) -> str:
    """Return a topic with the characters replaced that a pattern would take for a capture."""
    return "".join("_" if letter in "{}+#" else letter for letter in topic)


def _names(reading: ReadingRule) -> Iterator[str]:
    for name in ((reading.field,) if reading.field else ()) + reading.fields:
        for word in reading.channels or ("",):
            yield _without_condition(name.replace("{channel}", word))


_CONDITION = re.compile(r"\[(?!\d+\]).*=")
"""Start of the condition on an element: not an index of a list."""


def _without_condition(name: str) -> str:
    """Return the name of a reading without the condition on its element."""
    condition = _CONDITION.search(name)
    return name[: condition.start()] if condition is not None else name


def _fields(rule: MessageRule) -> set[str]:
    return {
        f"{name} {sorted(map(str, reading.where.items()))}" for reading in rule.readings for name in _names(reading)
    }


def _same_sources(then: MessageRule, first: MessageRule) -> bool:
    """Return whether all topics and frames of a rule are among those of an earlier rule."""
    patterns = [topic_of(text) for text in first.topics]
    topics = all(any(covers(pattern, topic_of(text)) for pattern in patterns) for text in then.topics)
    if then.frames is None:
        return topics and bool(then.topics)
    if first.frames is None:
        return False
    ports = not first.frames.ports or (bool(then.frames.ports) and set(then.frames.ports) <= set(first.frames.ports))
    return topics and ports


def _weaker_conditions(first: MessageRule, then: MessageRule) -> bool:
    """Return whether a message that meets the conditions of `then` also meets those of `first`."""
    return all(path in then.where and _set(then.where[path]) <= _set(wanted) for path, wanted in first.where.items())


def _set(wanted: object) -> set[str]:
    return {repr(value) for value in (wanted if isinstance(wanted, tuple) else (wanted,))}


def _subsumes(pattern: TopicPattern, other: TopicPattern) -> bool:
    """Return whether a pattern matches all that another matches, and takes the same devices from it."""
    named = [
        (position, level) for position, level in enumerate(pattern.levels) if level.capture in {"device", "gateway"}
    ]
    return covers(pattern, other) and all(
        position < len(other.levels) and other.levels[position] == level for position, level in named
    )
