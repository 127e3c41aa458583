"""Small mistakes, one at a time: a profile with one number, unit, sign, word or byte order wrong.

`mutations` yields every such profile. What makes no difference by itself (the sign of a byte whose property cannot
reach 128) is left out: no example could show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from sensegate.decode.grammar import MessageRule, ProfileFile, ReadingRule
from sensegate.decode.layout.steps import Step
from sensegate.decode.layout.types import BITS_MAX, Bits, bits_of, type_of
from sensegate.decode.part import Scalar
from sensegate.decode.words import TABLES
from sensegate.quantities.properties import PROPERTIES, Property, ValueKind
from sensegate.quantities.units import TABLE, UnitError, conversion, dimension, ucum_code

Path = tuple[Scalar, ...]
"""Names, indices, and keys of dicts."""


class Mutation(NamedTuple):
    """One mistake."""

    kind: str
    path: Path
    """Where in the profile it is made."""
    change: str
    source: ProfileFile
    """The profile with it."""
    property: str = ""
    """Property that it touches, if one."""


def put(tree: Any, path: Path, value: Any) -> Any:
    """Return a tree of records, tuples and dicts with another value at a path; nothing else is copied."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(tree, msgspec.Struct):
        return msgspec.structs.replace(tree, **{str(step): put(getattr(tree, str(step)), rest, value)})
    if isinstance(tree, tuple):
        assert isinstance(step, int)
        return (*tree[:step], put(tree[step], rest, value), *tree[step + 1 :])
    return {key: put(old, rest, value) if key is step or key == step else old for key, old in tree.items()}


class _Change(NamedTuple):
    kind: str
    path: Path
    change: str
    value: Any
    property: str = ""


def mutations(source: ProfileFile) -> Iterator[Mutation]:
    """Yield the profile with each mistake in turn."""
    for index, rule in enumerate(source.messages):
        for change in _of_rule(source, rule, ("messages", index)):
            mutant = put(source, change.path, change.value)
            yield Mutation(change.kind, change.path, change.change, mutant, change.property)


def _of_rule(source: ProfileFile, rule: MessageRule, here: Path) -> Iterator[_Change]:
    if rule.ignore or rule.video is not None:
        return  # of video metadata a profile says nothing that could be wrong: the format's own tests show it
    yield from _of_time(source, rule, here)
    for index, reading in enumerate(rule.readings):
        for change in _of_reading(reading, (*here, "readings", index)):
            if change.kind != "unit" or rule.named is None or not rule.named.unit:  # else the payload names it
                yield change._replace(property=reading.property)
    if rule.binary is not None:
        steps = _Steps(rule)
        yield from steps.of((*here, "binary"), "read", rule.binary.read)
        for port, inner in rule.binary.ports.items():
            yield from steps.of((*here, "binary", "ports"), port, inner)
    for name, part, key in (("csv", rule.csv, "columns"), ("table", rule.table, "names")):
        names = getattr(part, key) if part is not None else ()
        if isinstance(names, tuple):
            yield from _neighbours(names, (*here, name, key))


def _of_time(source: ProfileFile, rule: MessageRule, here: Path) -> Iterator[_Change]:
    if rule.time is None:
        return
    other = {"epoch_s": "epoch_ms", "epoch_ms": "epoch_s", "epoch_us": "epoch_ms", "age_s": "age_ms", "age_ms": "age_s"}
    forms = (rule.time.format,) if isinstance(rule.time.format, str) else rule.time.format
    for form in forms:
        if form in other and len(forms) == 1:
            yield _Change("time", (*here, "time", "format"), f"{form} -> {other[form]}", other[form])
        elif "%" in form and "%z" not in form and len(forms) == 1:
            zone = rule.time.zone or source.zone
            wrong = "UTC" if zone != "UTC" else "Asia/Shanghai"
            yield _Change("time", (*here, "time", "zone"), f"{zone} -> {wrong}", wrong)
    if rule.time.stamp == "start":
        yield _Change("time", (*here, "time", "period_s"), "twice as long", rule.time.period_s * 2)


# ── readings ─────────────────────────────────────────────────────────────────────────────────────────


def _of_reading(reading: ReadingRule, here: Path) -> Iterator[_Change]:
    row = PROPERTIES.by_name(reading.property)
    if reading.words is not None:
        yield from _of_words(reading, row, here)
    elif row.kind is ValueKind.NUMBER:
        yield _Change("scale", (*here, "scale"), "times ten", reading.scale * 10)
        yield _Change("sign", (*here, "scale"), "negative", -reading.scale)
        yield _Change("offset", (*here, "offset"), "plus one", reading.offset + 1)
        if (wrong := _other_unit(reading.unit or row.unit)) and reading.unit_from is None:
            yield _Change("unit", (*here, "unit"), f"{reading.unit or row.unit} -> {wrong}", wrong)
    for index, value in enumerate(reading.missing):
        rest = (*reading.missing[:index], *reading.missing[index + 1 :])
        yield _Change("missing", (*here, "missing"), f"without {value!r}", rest)
    if reading.unit_from is not None:
        for word, unit in reading.unit_from.words.items():
            if wrong := _other_unit(unit):
                yield _Change("unit", (*here, "unit_from", "words", word), f"{unit} -> {wrong}", wrong)


def _other_unit(unit: str) -> str:
    """Return another unit of the dimension that gives other values, or an empty string."""
    try:
        family = dimension(unit)
    except UnitError:
        return ""
    others = [code for code, item in TABLE.items() if item.dimension == family and code != ucum_code(unit)]
    return next((code for code in others if conversion(code, unit) != (1.0, 0.0)), "")


def _of_words(reading: ReadingRule, row: Property, here: Path) -> Iterator[_Change]:
    if isinstance(reading.words, str):  # a table by name: its meanings are moved by one
        pairs = TABLES[reading.words].words
        meanings = list(dict.fromkeys(pair for _, pair in pairs))
        after = dict(zip(meanings, meanings[1:] + meanings[:1], strict=True))
        moved = {sent: after[pair] for sent, pair in pairs if not isinstance(sent, bool)}
        yield _Change("words", (*here, "words"), f"{reading.words} moved by one", moved)
        return
    for sent, value in (reading.words or {}).items():
        wrong = _otherwise(value, row)
        yield _Change("words", (*here, "words", sent), f"{sent!r}: {value!r} -> {wrong!r}", wrong)


def _otherwise(unit: Scalar, row: Property) -> Scalar:
    if row.kind is ValueKind.BOOLEAN:
        return not unit
    return unit + 1 if isinstance(unit, (int, float)) and row.kind is ValueKind.NUMBER else f"{unit}_"


def _neighbours(names: tuple[str, ...], here: Path) -> Iterator[_Change]:
    """Yield the columns with each pair of neighbours exchanged."""
    for index, (pair, other) in enumerate(pairwise(names)):
        if pair or other:
            swapped = (*names[:index], other, pair, *names[index + 2 :])
            yield _Change("position", here, f"{pair or 'nothing'} and {other or 'nothing'} exchanged", swapped)


# ── binary layouts ───────────────────────────────────────────────────────────────────────────────────

_LITERAL = re.compile(r"(?<![\w.$])(?:0[xX][0-9a-fA-F]+|\d+\.?\d*)(?![\w.])")


def _words(tree: Any) -> set[str]:
    """Return all words in the texts of a tree of plain values, keys of dicts included."""
    if isinstance(tree, dict):
        return _words(list(tree)).union(*map(_words, tree.values()))
    if isinstance(tree, (list, tuple)):
        return set[str]().union(*map(_words, tree))
    return set(re.findall(r"\w+", tree)) if isinstance(tree, str) else set()


def _expressions(steps: tuple[Step, ...]) -> set[str]:
    """Return the words of the expressions in steps."""
    expressions: set[str] = set()
    for step in steps:
        expressions |= _words([
            step.value, step.text, step.skip, step.when, step.switch, step.repeat, step.within, step.size, step.at,
            step.equals, step.over, step.leave, re.findall(r"\{(\w+)", step.name),
        ])  # fmt: skip
        inner = [step.read, *step.cases.values(), step.default if isinstance(step.default, tuple) else ()]
        expressions = expressions.union(*map(_expressions, inner))
    return expressions


class _Steps:
    """The mistakes in the steps of one rule's layout."""

    def __init__(self, rule: MessageRule) -> None:
        assert rule.binary is not None
        self._endian = rule.binary.endian
        self._readings: dict[str, list[ReadingRule]] = {}
        for reading in rule.readings:
            for field in (reading.field, *reading.fields):
                name = re.split(r"[.\]]", field)[-1] if field else ""
                self._readings.setdefault(re.sub(r"\{channel\}", "", name), []).append(reading)
        plain = msgspec.structs.replace(rule, binary=None, label="")
        self._used = {*_words(msgspec.to_builtins(plain)), *_expressions(rule.binary.read)}
        for steps in rule.binary.ports.values():
            self._used |= _expressions(steps)

    def of(self, above: Path, key: Scalar, steps: tuple[Step, ...]) -> Iterator[_Change]:
        """Yield the mistakes in a list of steps."""
        place = (*above, key)
        for index, step in enumerate(steps):
            here: Path = (*place, index)
            if step.type and self._counts(step.name):
                yield from self._of_element(step, here)
                yield from self._exchanged(steps, index, place)
            for name, text in step.bits.items():
                if self._counts(name):
                    width = type_of(step.type).bits
                    yield from self._of_bits(name, bits_of(text, width), width, (*here, "bits", name))
            if isinstance(step.value, str):
                yield from self._of_expression(step.value, (*here, "value"))
            yield from self.of(here, "read", step.read)
            for tag, inner in step.cases.items():
                yield from self.of((*here, "cases"), tag, inner)
            if isinstance(step.default, tuple):
                yield from self.of(here, "default", step.default)

    def _counts(self, name: str) -> bool:
        """Return whether anything refers to an element: a reading, the time, an expression."""
        return "{" in name or name in self._used

    def _of_element(self, step: Step, here: Path) -> Iterator[_Change]:
        form = type_of(step.type)
        other = {"u": "s", "s": "u", "m": "s"}.get(form.family)
        if other and step.name and form.bits > 1 and self._sign_matters(step.name, form.family, form.bits):
            yield _Change("type", (*here, "type"), f"{step.type} -> {other}{form.bits}", f"{other}{form.bits}")
        if form.family == "f":
            yield _Change("type", (*here, "type"), f"{step.type} -> u{form.bits}", f"u{form.bits}")
        if form.family == "bcd":
            yield _Change("type", (*here, "type"), f"{step.type} -> u{form.bits}", f"u{form.bits}")
        turned = "little" if (step.endian or self._endian) == "big" else "big"
        if form.bits % 8 == 0 and form.bits > 8:
            yield _Change("endian", (*here, "endian"), turned, turned)
        for code, number in step.map.items():
            yield _Change("map", (*here, "map", code), f"{number} -> {number + 1}", number + 1)

    def _of_bits(self, name: str, bits: Bits, width: int, here: Path) -> Iterator[_Change]:
        low = bits.low + 1 if bits.low + bits.width < width else bits.low - 1
        prefix = "" if bits.family == "u" else bits.family
        if low >= 0:
            moved = f"{prefix}{low}-{low + bits.width - 1}" if bits.width > 1 else f"{prefix}{low}"
            yield _Change("position", here, f"bits {moved}", moved)
        if bits.width > 1 and self._sign_matters(name, bits.family, bits.width):
            turned = "s" if bits.family in {"u", "m"} else ""
            text = f"{turned}{bits.low}-{bits.low + bits.width - 1}"
            yield _Change("type", here, f"bits {text}", text)

    def _sign_matters(self, name: str, family: str, bits: int) -> bool:
        """Return whether a value with its highest bit set can be a reading at all."""
        half = 2.0 ** (bits - 1)
        for reading in self._readings.get(re.sub(r"\{.*\}", "", name), ()):
            row = PROPERTIES.by_name(reading.property)
            if row.kind is not ValueKind.NUMBER or isinstance(reading.words, str):
                continue
            if reading.words is not None:
                if any(isinstance(sent, int) and (sent >= half or sent < 0) for sent in reading.words):
                    return True
                continue
            low, high = reading.range or (row.low, row.high)
            scale, offset = conversion(reading.unit or row.unit, row.unit)
            ends = sorted(((end - offset) / scale - reading.offset) / reading.scale for end in (low, high))
            if any(isinstance(marker, (int, float)) and (marker >= half or marker < 0) for marker in reading.missing):
                return True
            if ends[1] >= half if family == "u" else ends[0] < 0:
                return True
        return False

    @staticmethod
    def _exchanged(steps: tuple[Step, ...], at: int, place: Path) -> Iterator[_Change]:
        """Yield the steps with an element and the next one of its width exchanged, or the next of any."""
        step = steps[at]
        rest = [n for n in range(at + 1, len(steps)) if steps[n].type and steps[n].name and steps[n].at is None]
        if step.at is not None or not step.name or not rest:
            return
        width = type_of(step.type).bits
        other = next((n for n in rest if type_of(steps[n].type).bits == width), rest[0])
        if width > BITS_MAX or type_of(steps[other].type).bits == 0:
            return
        swapped = list(steps)
        swapped[at], swapped[other] = steps[other], step
        yield _Change("position", place, f"{step.name} and {steps[other].name} exchanged", tuple(swapped))

    @staticmethod
    def _of_expression(text: str, here: Path) -> Iterator[_Change]:
        for literal in _LITERAL.finditer(text):
            number = literal[0]
            wrong = str(int(number, 0) + 1) if re.fullmatch(r"0[xX].*|\d+", number) else str(float(number) + 1)
            changed = text[: literal.start()] + wrong + text[literal.end() :]
            yield _Change("expression", here, f"{text} -> {changed}", changed)
