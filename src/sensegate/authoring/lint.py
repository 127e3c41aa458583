"""What is allowed in a profile and yet probably a mistake. `check` prints it beside what is wrong.

Rules that can never be reached, readings that no example shows, values that their property would mark as impossible, a
unit that makes an example a thousand times too large, words that are no codes, anchors that nobody uses. All of it is
read from the profile and from what its examples become; nothing is guessed about the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from sensegate.authoring.examples import Ran, ran
from sensegate.config import yaml as yamls
from sensegate.decode.grammar import MessageRule, ReadingRule, key_text, line_of
from sensegate.decode.profile import Profile
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.decode.topics import Pattern, covers
from sensegate.decode.topics import parse as topic_of
from sensegate.decode.words import TABLES
from sensegate.errors import ProfileError, ProfileWarning
from sensegate.model import Datum, Spec
from sensegate.quantities.properties import CODES, PROPERTIES, Property

Steps = tuple[str | int, ...]


def lint_profile(path: Path | str) -> list[ProfileWarning]:
    """Return what is probably a mistake in a profile, in the order of its lines; nothing where it does not load."""
    specs: list[Spec] = []
    try:
        profile = compile_file(Path(path), specs)
    except ProfileError:
        return []  # `check_profile` says why
    lint = _Lint(profile, ProfileSet([profile], specs))
    found = [
        *lint.reach(),
        *lint.values(),
        *lint.words(),
        *lint.coordinates(),
        *lint.shown(),
        *lint.anchors(Path(path)),
    ]
    return sorted(found, key=lambda one: one.line)


class _Lint:
    """One profile under the lamp."""

    def __init__(self, profile: Profile, profiles: ProfileSet) -> None:
        self._profile = profile
        self._profiles = profiles
        self._rules = profile.source.messages
        self._ran = list(self._examples())

    def _examples(self) -> Iterator[Ran]:
        for example in self._profile.source.examples:
            try:
                yield ran(self._profiles, self._profile, example)
            except ValueError:  # base64, hex, time: `check_profile` says it
                continue

    def _warning(self, what: str, *path: str | int, remedy: str = "") -> ProfileWarning:
        line = line_of(self._profile.lines, path)
        return ProfileWarning(what, file=self._profile.file, line=line, key=key_text(path), remedy=remedy)

    # ── what can be reached ──────────────────────────────────────────────────────────────────────────

    def reach(self) -> Iterator[ProfileWarning]:
        """Yield messages that an earlier one takes all of, and topics that stand for nothing new."""
        for at, rule in enumerate(self._rules):
            for before in range(at):
                if self._takes_all(self._rules[before], rule):
                    label = self._rules[before].label or f"messages[{before}]"
                    what = f"is never reached: '{label}' (line {self._line(before)}) takes all its messages"
                    yield self._warning(
                        what, "messages", at, remedy="give that one a `where`, or put this one before it"
                    )
                    break
            patterns = [topic_of(text) for text in rule.topics]
            for here, pattern in enumerate(patterns):
                other = next((one for one in patterns if one is not pattern and _says_all(one, pattern)), None)
                if other is not None and (not covers(pattern, other) or patterns.index(other) < here):
                    what = f"says nothing new: {other.text} covers it"
                    yield self._warning(what, "messages", at, "topics", here, remedy="remove one of the two")

    def _line(self, at: int) -> int:
        return line_of(self._profile.lines, ("messages", at))

    def _takes_all(self, first: MessageRule, then: MessageRule) -> bool:
        """Return whether every message of `then` is taken by `first`, which stands before it."""
        if not _among(then, first) or not _where(first, then):
            return False
        if first.ignore:  # by HTTP a carrier's rules are chosen by what is in the message, whatever their topics
            return not first.root and not any(rule.payload for rule in self._rules)
        if (
            first.format != then.format
            or first.charset != then.charset
            or first.payload
            or then.payload
            or first.beside
        ):
            return False
        same = ("root", "each", "wrap", "unpack", "table", "binary", "script", "csv", "xml", "standard", "named")
        if any(getattr(first, key, None) != getattr(then, key, None) for key in same) or first.standard or first.named:
            return False
        return bool(then.readings) and _fields(then) <= _fields(first)

    # ── values ───────────────────────────────────────────────────────────────────────────────────────

    def values(self) -> Iterator[ProfileWarning]:
        """Yield readings whose examples are all out of range, or all a thousand times what is usual; odd settings."""
        shown: dict[str, list[tuple[Steps, float]]] = {}
        for at, example in enumerate(self._profile.source.examples):
            for n, one in enumerate(example.expect):
                if (
                    one.property in PROPERTIES
                    and isinstance(one.value, (int, float))
                    and not isinstance(one.value, bool)
                ):
                    shown.setdefault(one.property, []).append((("examples", at, "expect", n), float(one.value)))
        for name, values in shown.items():
            yield from self._unlikely(PROPERTIES.by_name(name), values)
        for path, reading in self._readings():
            row = PROPERTIES.by_name(reading.property)
            if reading.words is not None and (reading.scale, reading.offset) != (1.0, 0.0):
                yield self._warning(
                    "`scale` and `offset` change what `words` give", *path, "words", remedy="remove them"
                )
            if reading.step is not None and reading.step >= row.high - row.low:
                yield self._warning(
                    f"{reading.step:g} is all that {row.name} can change", *path, "step", remedy="lower it"
                )

    def _unlikely(self, row: Property, values: Sequence[tuple[Steps, float]]) -> Iterator[ProfileWarning]:
        """Yield the first example of a property where not one is likely; an odd one among others shows a limit."""
        here, value = values[0]
        if not any(row.low <= one <= row.high for _, one in values):
            what = f"{value:g} {row.unit} is out of the range of {row.name} ({row.low:g} to {row.high:g})"
            yield self._warning(what, *here, remedy="it will be marked bad: check scale and unit")
            return
        factors = {row.a_thousand_off(one) for _, one in values if one}
        if len(factors) == 1 and (factor := factors.pop()) != 1:
            times = "a thousandth" if factor > 1 else "a thousand times"
            what = f"{value:g} {row.unit} is {times} of what is usual for {row.name}"
            yield self._warning(what, *here, remedy="is the unit right (ug, mg or ng; mV or V)?")

    def _readings(self) -> Iterator[tuple[Steps, ReadingRule]]:
        for at, rule in enumerate(self._rules):
            for n, reading in enumerate(rule.readings):
                yield ("messages", at, "readings", n), reading

    def words(self) -> Iterator[ProfileWarning]:
        """Yield words that are no codes of their property."""
        for path, reading in self._readings():
            codes = CODES.get(PROPERTIES.by_name(reading.property).codes)
            if codes is None or reading.words is None:
                continue
            pairs = TABLES[reading.words].words if isinstance(reading.words, str) else reading.words.items()
            strange = dict.fromkeys(str(meant) for _, meant in pairs if str(meant) not in codes)
            if strange:
                what = f"{', '.join(map(repr, strange))}: no code of {reading.property}"
                yield self._warning(what, *path, "words", remedy=f"codes are {', '.join(codes)}")

    def coordinates(self) -> Iterator[ProfileWarning]:
        """Yield longitudes in a shifted datum that have no latitude beside them, and the other way round."""
        for at, rule in enumerate(self._rules):
            data = {(one.property, one.channel): one.datum for one in rule.readings}
            for n, reading in enumerate(rule.readings):
                other = {"longitude": "latitude", "latitude": "longitude"}.get(reading.property)
                if reading.datum in {Datum.WGS84, Datum.CGCS2000} or other is None:
                    continue
                if data.get((other, reading.channel)) is not reading.datum:
                    what = f"no {other} in {reading.datum.value} goes with it"
                    remedy = "alone it becomes no reading: give both, in the same datum"
                    yield self._warning(what, "messages", at, "readings", n, "datum", remedy=remedy)

    # ── examples ─────────────────────────────────────────────────────────────────────────────────────

    def shown(self) -> Iterator[ProfileWarning]:
        """Yield messages and readings that no example shows."""
        specs: set[int] = set()
        rejected: set[str] = set()
        for one in self._ran:
            specs.update(one.fields.spec.tolist())
            rejected |= {_called(value.field) for value in one.fields.rejected}
        seen = {self._known(at) for at in specs if at < len(self._profiles.specs)}
        for at, rule in enumerate(self._rules):
            if rule.ignore or rule.standard or not rule.readings:
                continue
            if not self._is_met(rule):
                yield self._warning("no example shows such a message", "messages", at, remedy="add one")
                continue
            if rule.video:
                continue  # where its values stand is no statement of the profile; the format's own tests show them
            for n, reading in enumerate(rule.readings):
                mine = set(_names(reading)) or {reading.property}  # of video metadata the format knows the field
                if not any((name, reading.property) in seen for name in mine) and not mine & rejected:
                    what = f"no example shows {reading.field or (*reading.fields, reading.property)[0]}"
                    yield self._warning(
                        what, "messages", at, "readings", n, remedy="a mistake in it would go unnoticed"
                    )

    def _known(self, at: int) -> tuple[str, str]:
        spec = self._profiles.specs[at]
        if spec.name.startswith(f"{spec.property}#"):  # of video metadata, with a lane or zone
            return spec.property, spec.property
        return _called(spec.name), spec.property

    def _is_met(self, rule: MessageRule) -> bool:
        """Return whether an example's topic or port is one of a message's."""
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
        made: dict[str, int] = {}
        used: set[str] = set()
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yamls.LOADER):
            anchor = getattr(event, "anchor", None)
            if isinstance(event, yaml.AliasEvent):
                used.add(str(anchor))
            elif anchor is not None and event.start_mark is not None:
                made[anchor] = event.start_mark.line + 1
        for anchor, line in made.items():
            if anchor not in used:
                yield ProfileWarning(
                    f"nothing refers to &{anchor}",
                    file=self._profile.file,
                    line=line,
                    key=f"&{anchor}",
                    remedy="remove it",
                )


def _plain(topic: str) -> str:
    """Return a topic without what a pattern would take for a capture."""
    return "".join("_" if mark in "{}+#" else mark for mark in topic)


def _names(reading: ReadingRule) -> Iterator[str]:
    for name in ((reading.field,) if reading.field else ()) + reading.fields:
        for word in reading.channels or ("",):
            yield _called(name.replace("{channel}", word))


def _called(name: str) -> str:
    """Return the name of a reading without what its element must meet."""
    return name.partition("[")[0] if "=" in name.partition("[")[2] else name


def _fields(rule: MessageRule) -> set[str]:
    return {f"{name} {sorted(map(str, one.where.items()))}" for one in rule.readings for name in _names(one)}


def _among(then: MessageRule, first: MessageRule) -> bool:
    """Return whether all topics and frames of a message are those of one before it."""
    patterns = [topic_of(text) for text in first.topics]
    topics = all(any(covers(one, topic_of(text)) for one in patterns) for text in then.topics)
    if then.frames is None:
        return topics and bool(then.topics)
    if first.frames is None:
        return False
    ports = not first.frames.ports or (bool(then.frames.ports) and set(then.frames.ports) <= set(first.frames.ports))
    return topics and ports


def _where(first: MessageRule, then: MessageRule) -> bool:
    """Return whether what meets the conditions of `then` meets those of `first`."""
    return all(path in then.where and _set(then.where[path]) <= _set(wanted) for path, wanted in first.where.items())


def _set(wanted: object) -> set[str]:
    return {repr(one) for one in (wanted if isinstance(wanted, tuple) else (wanted,))}


def _says_all(one: Pattern, other: Pattern) -> bool:
    """Return whether a pattern matches all that another does, and names the same devices by it."""
    named = [(at, level) for at, level in enumerate(one.levels) if level.capture in {"device", "gateway"}]
    return covers(one, other) and all(at < len(other.levels) and other.levels[at] == level for at, level in named)
