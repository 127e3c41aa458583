"""Recorded messages to a draft of their profile: what was found, what it may mean, and why.

The draft is text with comments, for people: every guess has its reason beside it, what nobody can guess is left out and
named. It loads, and its examples run; but their values are what the draft itself makes of the messages: compare them
with the maker's document before anything is proposed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from sensegate.authoring.learn.fields import Elements, Facts, element_trees, elements_of, fields_of
from sensegate.authoring.learn.guess import Guess, guess, sentinels
from sensegate.authoring.learn.shapes import Group, Sample, Understood, group
from sensegate.authoring.learn.time import When, device_of, sequence_of, time_of
from sensegate.decode import paths
from sensegate.decode.paths import ABSENT, Path, walk

LEARN_MAX = 2_000
"""Messages of one shape that are looked at; the latest."""


class Found(NamedTuple):
    """One member that may become a reading."""

    field: str
    """Path as a profile writes it."""
    facts: Facts
    guess: Guess
    channel: str = ""


class Left(NamedTuple):
    """One member that becomes none, and why."""

    field: str
    facts: Facts
    why: str


class Learned(NamedTuple):
    """One kind of message."""

    group: Group
    messages: list[Understood]
    """Those that were looked at."""
    elements: Elements | None
    time: When | None
    time_field: str
    sequence: str
    device: str
    """Path to the device's name in the payload, if one seems to be there."""
    found: list[Found]
    left: list[Left]

    @property
    def topics(self) -> list[str]:
        """Topics seen, sorted."""
        return sorted({message.sample.topic for message in self.messages})


def learn(samples: Iterable[Sample], names: Container[str] = frozenset()) -> list[Learned]:
    """Return what messages of each shape have in common, the most frequent shape first; `names` as in `group`."""
    return [learn_group(one) for one in group(samples, names)]


def learn_group(one: Group) -> Learned:
    """Return what the messages of one shape have in common."""
    messages = one.messages[-LEARN_MAX:]
    if one.format == "binary" or messages[0].tree is None:
        return Learned(one, messages, None, None, "", "", "", [], [])
    trees = [message.tree for message in messages]
    elements = elements_of(trees)
    by_topic: dict[str, list[Any]] = defaultdict(list)
    for message in messages:
        by_topic[message.sample.topic].append(message.tree)
    inner = [
        (element, message.sample.received) for message in messages for element in element_trees(message.tree, elements)
    ]
    fields = fields_of(element for element, _ in inner)
    outer = fields_of(trees) if elements is not None else {}
    if elements is not None:
        outer = {path: facts for path, facts in outer.items() if path[: len(elements.path)] != elements.path}
    when = time_of(inner, fields)
    time_field = paths.render(when.path) if when else ""
    if when is None and outer:
        when = time_of([(message.tree, message.sample.received) for message in messages], outer)
        time_field = _from_root(when.path) if when else ""
    sequence = sequence_of(fields, by_topic) if elements is None else None
    device = device_of(outer or fields, by_topic)
    reserved = {when.path if when else None, sequence, device}
    if () in fields:  # a bare value: the topic says what it is
        fields[()].alias = tuple(level for level in one.pattern.split("/") if "{" not in level)
    readings: list[tuple[str, Facts, str]] = []
    if elements is not None and elements.name:
        readings += _named(inner, elements)
    else:
        readings += [
            (paths.render(path), facts, _unit_beside(path, fields))
            for path, facts in fields.items()
            if path not in reserved
        ]
    readings += [
        (_from_root(path), facts, _unit_beside(path, outer)) for path, facts in outer.items() if path not in reserved
    ]
    found, left = _judge(readings)
    if elements is not None and elements.name:  # what stands beside such a list is not looked at by its rule
        left += [Left(one.field, one.facts, "stands beside the list") for one in found if one.field.startswith("$")]
        found = [one for one in found if not one.field.startswith("$")]
    return Learned(
        one,
        messages,
        elements,
        when,
        time_field,
        paths.render(sequence) if sequence else "",
        (_from_root(device) if elements is not None else paths.render(device)) if device else "",
        found,
        left,
    )


def _from_root(path: Path) -> str:
    text = paths.render(path)
    return f"${text}" if text.startswith("[") else f"$.{text}"


def _named(inner: Sequence[tuple[Any, int]], elements: Elements) -> list[tuple[str, Facts, str]]:
    """Return (name, facts of its values, unit) of elements that name themselves."""
    facts: dict[str, Facts] = {}
    units: dict[str, str] = {}
    for element, _ in inner:
        name = str(element[elements.name])
        value = next((element[key] for key in elements.values if element.get(key) is not None), None)
        facts.setdefault(name, Facts((name,))).add(value)
        if elements.unit and isinstance(element.get(elements.unit), str):
            units[name] = element[elements.unit]
    return [(name, one, units.get(name, "")) for name, one in facts.items()]


def _unit_beside(path: Path, fields: Mapping[Path, Facts]) -> str:
    """Return the unit that a member beside it names: ``{"value": 21, "unit": "C"}``, ``{"t": 21, "t_unit": "C"}``."""
    last = path[-1] if path else ""
    for name in ("unit", "units", "uom", f"{last}_unit", f"{last}Unit"):
        facts = fields.get((*path[:-1], name))
        if facts is not None and len(facts.values) == 1 and isinstance(facts.words[0], str):
            return str(facts.words[0])
    return ""


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────

_SETTINGS = re.compile(
    r"(?i)^(?:fw|hw|sw|firmware|hardware|software)?_?(?:version|ver)$|^(?:model|manufacturer|vendor|product|type|cmd|command"
    r"|msg_?type|msg_?id|message_?id|id|uuid|token|key|name|unit|units|uom|imei|imsi|iccid|mac|ip|eui|deveui|schema)$"
)


def _judge(readings: Sequence[tuple[str, Facts, str]]) -> tuple[list[Found], list[Left]]:
    found: list[Found] = []
    left: list[Left] = []
    for field, facts, unit in readings:
        said = facts.count - facts.kinds["null"]
        if not said:
            left.append(Left(field, facts, "never a value"))
        elif _SETTINGS.search(facts.name) and not facts.kinds["number"]:
            left.append(Left(field, facts, "a setting or a name, no measurement"))
        elif (one := guess(facts, unit)) is not None:
            found.append(Found(field, facts, one))
        else:
            left.append(Left(field, facts, "no property of such a name and such values"))
    return _channels(found), left


def _channels(found: Sequence[Found]) -> list[Found]:
    """Give channels to members that would be the same property: what their paths differ in."""
    alike: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        alike[one.guess.property].append(one)
    channels: dict[str, str] = {}
    for many in alike.values():
        if len(many) > 1:
            for one, channel in zip(many, _different([one.field for one in many]), strict=True):
                channels[one.field] = channel
    return [one._replace(channel=channels.get(one.field, "")) for one in found]


def _different(names: Sequence[str]) -> list[str]:
    """Return what is different in names: ``temp1``, ``temp2`` -> 1, 2; the whole name where that is not short."""
    parts = [re.findall(r"[A-Za-z]+|\d+", name) for name in names]
    common = set(parts[0]).intersection(*map(set, parts[1:]))
    rest = ["_".join(part for part in one if part not in common).lower() for one in parts]
    if len(set(rest)) == len(names):
        return rest  # one may be empty: the plain one
    return [re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_").lower() for name in names]


# ── what can be said of a kind of message ────────────────────────────────────────────────────────────


def interval_s(one: Learned) -> float:
    """Return the usual time between two messages of one topic, seconds; 0 where arrivals are not recorded."""
    by_topic: dict[str, list[int]] = defaultdict(list)
    for message in one.messages:
        if message.sample.received:
            by_topic[message.sample.topic].append(message.sample.received)
    gaps = [
        (later - earlier) / 1e6 for times in by_topic.values() for earlier, later in pairwise(times) if later > earlier
    ]
    if len(gaps) < 2:
        return 0.0
    usual = median(gaps)
    return float(round(usual)) if usual >= 10 else round(usual, 1)


def summary(facts: Facts) -> str:
    """Return what is known of a member, in a few words."""
    parts: list[str] = []
    if facts.numeric and facts.numbers:
        odd = sentinels(facts)
        numbers = [number for number in facts.numbers if number not in odd] or facts.numbers
        low, high = min(numbers), max(numbers)
        parts.append(f"always {low:g}" if low == high else f"{low:g} to {high:g}")
        if facts.rises():
            parts.append("only rises: a counter?")
        if odd:
            parts.append(f"and {', '.join(f'{one:g}' for one in sorted(odd))}")
        if facts.texts_as_numbers:
            parts.append("as text")
    else:
        words = [("true" if word else "false") if isinstance(word, bool) else str(word) for word in facts.words[:4]]
        shown = ", ".join(word if len(word) <= 20 else f"{word[:17]}..." for word in words)
        parts.append(shown + (", ..." if facts.many or len(facts.values) > 4 else ""))
    if facts.kinds["null"]:
        parts.append(f"{facts.kinds['null']} times null")
    return ", ".join(part for part in parts if part)


def best_messages(one: Learned, count: int = 2) -> list[Understood]:
    """Return the messages that show most: the one with most of the members found, then one with marks for no value."""
    pool = one.messages[-200:]
    if not pool:
        return []
    first = max(pool, key=lambda message: len(_shows(one, message)[0]))
    seen = _shows(one, first)[0]
    rest = [message for message in pool if message is not first]
    rest.sort(key=lambda message: (len(_shows(one, message)[0] - seen), len(_shows(one, message)[1])), reverse=True)
    return [first, *rest[: count - 1]]


def _shows(one: Learned, message: Understood) -> tuple[set[str], set[str]]:
    """Return (members found that have a value in a message, those that have a mark for none)."""
    values: set[str] = set()
    marks: set[str] = set()
    for element in element_trees(message.tree, one.elements):
        for each in one.found:
            value = _value(one, each, message.tree, element)
            if value is not ABSENT and value is not None:
                (marks if value in each.guess.missing else values).add(each.field)
    return values, marks


def _value(one: Learned, each: Found, tree: Any, element: Any) -> Any:
    if one.elements is not None and one.elements.name and not each.field.startswith("$"):
        if element.get(one.elements.name) != each.field:
            return ABSENT
        return next((element[key] for key in one.elements.values if element.get(key) is not None), None)
    place = paths.parse(each.field)
    return walk(tree if place.from_root else element, place.path)
