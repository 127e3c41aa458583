"""Infer the layout of recorded messages: which members are readings, what they may mean, and why.

The draft made from it is text with comments, for people: every guess has its reason beside it; members that cannot be
guessed are left out and listed. The draft loads and its examples run, but their values are what the draft itself makes
of the messages: compare them with the maker's document before proposing it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from sensegate.authoring.learn.fields import (
    ElementList,
    FieldFacts,
    element_trees,
    elements_of,
    fields_of,
    lists_of,
)
from sensegate.authoring.learn.guess import Guess, Proposal, guess, propose, sentinels
from sensegate.authoring.learn.names import words_of
from sensegate.authoring.learn.shapes import ParsedSample, Sample, SampleGroup, group
from sensegate.authoring.learn.time import TimeField, device_of, sequence_of, time_of
from sensegate.decode import paths
from sensegate.decode.paths import ABSENT, Path, walk
from sensegate.quantities.properties import PROPERTIES

LEARN_MAX = 2_000
"""Most messages of one shape that are analysed; the latest."""


class RecognisedField(NamedTuple):
    """A member that may become a reading."""

    field: str
    """Path, as a profile writes it."""
    facts: FieldFacts
    guess: Guess
    channel: str = ""
    each: str = ""
    """Path to the list of records that hold it, each with its own time; empty: the message itself."""

    @property
    def key(self) -> str:
        """Path to the member, with that to its list."""
        return f"{self.each}[].{self.field}" if self.each else self.field


class UnrecognisedField(NamedTuple):
    """A member that becomes no reading, with the reason."""

    field: str
    facts: FieldFacts
    reason: str
    proposal: Proposal | None = None
    """Property that the table should have for it."""


class RecordList(NamedTuple):
    """A list in the message whose elements are records of other times."""

    path: Path
    time: TimeField

    @property
    def each(self) -> str:
        """Path to the list, as a profile writes it."""
        return paths.render(self.path)


class LearnedShape(NamedTuple):
    """The inferred layout of one kind of message."""

    group: SampleGroup
    messages: list[ParsedSample]
    """The messages analysed."""
    elements: ElementList | None
    time: TimeField | None
    time_field: str
    sequence: str
    device: str
    """Path to the device's name in the payload, if one appears to be there."""
    recognised: list[RecognisedField]
    unrecognised: list[UnrecognisedField]
    records: tuple[RecordList, ...] = ()

    @property
    def names_devices(self) -> bool:
        """Return whether only a member of the payload names the device."""
        return bool(self.device) and not self.group.carried and "{gateway}" in self.group.pattern

    @property
    def topics(self) -> list[str]:
        """Topics seen, sorted."""
        return sorted({message.sample.topic for message in self.messages})


def learn(samples: Iterable[Sample], names: Container[str] = frozenset()) -> list[LearnedShape]:
    """Infer the layout of each shape of message, the most frequent shape first; `names` as in `group`."""
    return [learn_group(shape) for shape in group(samples, names)]


def learn_group(shape: SampleGroup) -> LearnedShape:
    """Infer the layout of the messages of one shape."""
    messages = shape.messages[-LEARN_MAX:]
    if shape.format == "binary" or messages[0].tree is None:
        return LearnedShape(shape, messages, None, None, "", "", "", [], [])
    trees = [message.tree for message in messages]
    timed = [(message.tree, message.sample.received) for message in messages]
    elements = elements_of(trees)
    records = _record_lists(timed, named=elements.path if elements is not None and elements.name else None)
    if elements is not None and _is_history(elements, records, trees):
        elements = None
    elif elements is not None:
        records = [record for record in records if record.path[: len(elements.path)] != elements.path]
        records = [] if elements.name else records
    by_topic: dict[str, list[Any]] = defaultdict(list)
    for message in messages:
        by_topic[message.sample.topic].append(message.tree)
    inner = [
        (element, message.sample.received) for message in messages for element in element_trees(message.tree, elements)
    ]
    listed = {record.path for record in records}
    fields = fields_of((element for element, _ in inner), without=listed)
    outer: dict[Path, FieldFacts] = {}
    if elements is not None:
        outer = fields_of(trees, without=listed)
        outer = {path: facts for path, facts in outer.items() if path[: len(elements.path)] != elements.path}
    when = _SENML_TIME if shape.format in {"senml", "senml_cbor"} else time_of(inner, fields)
    time_field = paths.render(when.path) if when else ""
    if when is None and outer:
        when = time_of(timed, outer)
        time_field = _from_root(when.path) if when else ""
    sequence = sequence_of(fields, by_topic) if elements is None else None
    device = device_of(outer or fields, by_topic)
    if device is not None and not shape.sure and not shape.carried and _differs(device, trees):
        # The member names the device; what the topic names publishes for several.
        shape = shape._replace(pattern=shape.pattern.replace("{device}", "{gateway}"))
    reserved = {when.path if when else None, sequence, device}
    if () in fields:  # a bare value: the topic names it
        fields[()].alias = tuple(level for level in shape.pattern.split("/") if "{" not in level)
    readings: list[_Member] = []
    if elements is not None and elements.name:
        readings += _named_elements(inner, elements)
    else:
        readings += [
            _Member(paths.render(path), facts, _sibling_unit(path, fields))
            for path, facts in fields.items()
            if path not in reserved
        ]
    readings += [
        _Member(_from_root(path), facts, _sibling_unit(path, outer))
        for path, facts in outer.items()
        if path not in reserved
    ]
    for record in records:
        readings += _record_members(timed, record)
    undated = [paths.render(path) for path in _undated_lists(trees, listed)] if elements is None else []
    recognised, unrecognised = _classify(readings, undated, paths.render(elements.path) if elements is not None else "")
    if elements is not None and elements.name:  # a rule that reads such a list does not read members beside it
        unrecognised += [
            UnrecognisedField(field.field, field.facts, "stands beside the list")
            for field in recognised
            if field.field.startswith("$")
        ]
        recognised = [field for field in recognised if not field.field.startswith("$")]
    return LearnedShape(
        shape,
        messages,
        elements,
        when,
        time_field,
        paths.render(sequence) if sequence else "",
        (_from_root(device) if elements is not None else paths.render(device)) if device else "",
        recognised,
        unrecognised,
        tuple(records),
    )


def _is_history(elements: ElementList, records: Sequence[RecordList], trees: Sequence[Any]) -> bool:
    """Return whether a list holds values of other times, beside values that belong to the message."""
    dated = {record.path for record in records}
    has_times = elements.path in dated or (not elements.name and elements.path in _undated_lists(trees, dated))
    return has_times and _has_readings(trees)


def _differs(path: Path, trees: Sequence[Any]) -> bool:
    return len({str(value) for tree in trees if (value := walk(tree, path)) is not ABSENT}) > 1


_SENML_TIME = TimeField(("t",), "senml", "", "RFC 8428: seconds since 1970, or from the arrival")
RECORD_LISTS_MAX = 4


def _record_lists(timed: Sequence[tuple[Any, int]], *, named: Path | None) -> list[RecordList]:
    """Return the lists of objects whose elements have a time of their own; `named`: a list of named elements."""
    found_lists: list[RecordList] = []
    for path in lists_of([tree for tree, _ in timed]):
        if path == named or not path or any(path[: len(record.path)] == record.path for record in found_lists):
            continue
        items = _record_items(timed, path)
        when = time_of(items, fields_of(element for element, _ in items)) if items else None
        if when is not None and len(found_lists) < RECORD_LISTS_MAX:
            found_lists.append(RecordList(path, when))
    return found_lists


_TIME_PARTS = frozenset({"timestamp", "datetime", "time", "date", "ts", "hours", "minutes", "age"})


def _undated_lists(trees: Sequence[Any], dated: Collection[Path]) -> list[Path]:
    """Return lists of objects that tell a time in a form that is not understood."""
    undated: list[Path] = []
    for path in lists_of(trees):
        if path not in dated:
            fields = fields_of(item for tree in trees for item in _objects(walk(tree, path)))
            if any(_TIME_PARTS.intersection(map(str.lower, facts.steps)) for facts in fields.values()):
                undated.append(path)
    return undated


def _objects(value: Any) -> list[Any]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _record_items(timed: Sequence[tuple[Any, int]], path: Path) -> list[tuple[Any, int]]:
    """Return (element, arrival of its message) of a list in all messages; nothing if an element is no object."""
    items = [
        (item, received)
        for tree, received in timed
        if isinstance(elements := walk(tree, path), list)
        for item in elements
    ]
    return items if all(isinstance(item, dict) for item, _ in items) else []


def _record_members(timed: Sequence[tuple[Any, int]], record: RecordList) -> list[_Member]:
    fields = fields_of(element for element, _ in _record_items(timed, record.path))
    return [
        _Member(paths.render(path), facts, _sibling_unit(path, fields), record.each)
        for path, facts in fields.items()
        if path != record.time.path
    ]


def _has_readings(trees: Sequence[Any]) -> bool:
    """Return whether members outside of all lists are measurements by their names."""
    fields = fields_of(trees, without=set(lists_of(trees)))
    return any(
        guessed is not None and not guessed.fragment
        for facts in fields.values()
        if (guessed := guess(facts)) is not None
    )


def _from_root(path: Path) -> str:
    text = paths.render(path)
    return f"${text}" if text.startswith("[") else f"$.{text}"


class _Member(NamedTuple):
    """Member of a payload, with its statistics and guess."""

    field: str
    facts: FieldFacts
    unit: str
    each: str = ""


def _named_elements(inner: Sequence[tuple[Any, int]], elements: ElementList) -> list[_Member]:
    """Return the members that elements carry by name."""
    facts: dict[str, FieldFacts] = {}
    units: dict[str, str] = {}
    for element, _ in inner:
        name = str(element[elements.name])
        value = next((element[key] for key in elements.values if element.get(key) is not None), None)
        facts.setdefault(name, FieldFacts((name,))).add(value)
        if elements.unit and isinstance(element.get(elements.unit), str):
            units[name] = element[elements.unit]
    return [_Member(name, values, units.get(name, "")) for name, values in facts.items()]


def _sibling_unit(path: Path, fields: Mapping[Path, FieldFacts]) -> str:
    """Return the unit that a sibling member states: ``{"value": 21, "unit": "C"}``, ``{"t": 21, "t_unit": "C"}``."""
    last = path[-1] if path else ""
    for name in ("unit", "units", "uom", f"{last}_unit", f"{last}Unit"):
        facts = fields.get((*path[:-1], name))
        if facts is not None and len(facts.values) == 1 and isinstance(facts.words[0], str):
            return str(facts.words[0])
    return ""


# ── classification ───────────────────────────────────────────────────────────────────────────────────

_NOT_MEASURED = re.compile(
    r"(?i)^(?:fw|hw|sw|firmware|hardware|software)?_?(?:version|ver)$|^(?:model|manufacturer|vendor|product|type|cmd|command"
    r"|msg_?type|msg_?id|message_?id|id|uuid|token|key|name|unit|units|uom|imei|imsi|iccid|mac|ip|eui|deveui|schema)$"
)


_HISTORY = re.compile(r"(?i)hist|record|\blog|datalog|batch|backlog|dataset|cached|previous")
"""Names of lists of earlier values."""


def _classify(
    readings: Sequence[_Member], undated: Sequence[str], within: str = ""
) -> tuple[list[RecognisedField], list[UnrecognisedField]]:
    recognised: list[RecognisedField] = []
    unrecognised: list[UnrecognisedField] = []
    for field, facts, unit, each in readings:
        present = facts.count - facts.kinds["null"]
        if not present:
            unrecognised.append(UnrecognisedField(field, facts, "never has a value"))
        elif _NOT_MEASURED.search(facts.name) and not facts.kinds["number"]:
            unrecognised.append(UnrecognisedField(field, facts, "a setting or a name, not a measurement"))
        elif (guessed := guess(facts, unit)) is not None:
            earlier = next((name for name in undated if field.startswith(f"{name}[")), "")
            earlier = earlier or next(filter(_HISTORY.search, facts.steps[:-1]), "")
            if not each and earlier:
                reason = f"{guessed.reason}; '{earlier}' seems to hold values of other times, which cannot be read"
                guessed = guessed._replace(sure=False, fragment=True, reason=reason)
            recognised.append(RecognisedField(field, facts, guessed, each=each))
        elif (proposal := propose(facts, unit)) is not None:
            reason = f"the property table lacks {proposal.name} ({proposal.unit or 'true or false'}): propose it"
            unrecognised.append(UnrecognisedField(field, facts, reason, proposal))
        else:
            unrecognised.append(UnrecognisedField(field, facts, "no property has such a name and such values"))
    names = {facts.name.lower() for _, facts, _, _ in readings}
    return _assign_channels(_with_doubts(recognised, names, within)), unrecognised


_OTHER_MEDIA = frozenset(
    {"power", "energy", "water", "hydrology", "soil", "manhole", "lighting", "structure", "industry", "waste", "gas"}
) | {"parking", "lift", "place"}
"""Domains of devices whose plain `temperature` may be that of the device, the water, the soil."""
_AIR_ALONE = frozenset({"air_temperature", "relative_humidity", "air_pressure"})
_WATER_ALONE = frozenset({"conductivity", "ph"})
_SAYING_WHERE = frozenset({"air", "ambient", "outdoor", "relative", "barometer"})
_NOT_TELLING_NAMES = "voltage altitude latitude longitude water_leak probe_temperature pulse_count satellites hdop"
_NOT_TELLING = frozenset(_NOT_TELLING_NAMES.split())


def _with_doubts(fields: Sequence[RecognisedField], names: set[str], within: str) -> list[RecognisedField]:
    """Return the members; what else a device reports makes plain names doubtful, or leaves them without support."""
    fields = _without_limits(fields)
    rows = [PROPERTIES.by_name(field.guess.property) for field in fields]
    others = [row for row in rows if row.domain in _OTHER_MEDIA and row.name not in _NOT_TELLING]
    doubtful = _AIR_ALONE | (_WATER_ALONE if any(row.domain == "soil" for row in others) else frozenset())
    supported = _supported_by([field.guess.property for field in fields if not field.guess.fragment])
    doubted: list[RecognisedField] = []
    for field in fields:
        name = field.guess.property
        quantity = _EXTREME_OR_MEAN.sub("", name)
        plain = quantity in doubtful and not _SAYING_WHERE.intersection(words_of(field.facts.name))
        if plain and others:
            doubted.append(_doubted(field, f"of what, on a device that also measures {others[0].label_en}?"))
        elif plain and quantity in _AIR_ALONE and quantity not in supported:
            doubted.append(_doubted(field, "of what? Nothing else that the device reports is of the air"))
        elif name in _OF_THE_LINK and (names >= _OF_A_BEACON or _names_a_transmitter(field, fields, within)):
            doubted.append(_doubted(field, "of the device, or of a transmitter that it hears?"))
        elif name in _MOTION and any(row.name in _OF_A_MOVING_DEVICE for row in rows):
            doubted.append(_doubted(field, "of people, or of the device itself?"))
        elif name == "frequency" and not any(row.domain in _ELECTRIC and row.name != name for row in rows):
            doubted.append(_doubted(field, "of the mains, a radio, or a motor?"))
        else:
            doubted.append(field)
    return doubted


_EXTREME_OR_MEAN = re.compile(r"_(?:max|min|mean)$")
_OF_THE_AIR = frozenset({"weather", "air", "noise"})
_OF_A_ROOM = frozenset(
    {"presence", "occupancy", "room_occupancy", "people_count", "light_level", "setpoint_temperature"}
)


def _supported_by(properties: Sequence[str]) -> frozenset[str]:
    """Return which plain quantities of the air other measurements of the device support.

    Temperature and pressure alone are those of a pipe or a well as often; so are a temperature and a battery.
    """
    names = {name for name in properties if PROPERTIES.by_name(name).domain in _OF_THE_AIR or name in _OF_A_ROOM}
    plain = {name for name in names if name.startswith("air_temperature")} | {"air_pressure"}
    return frozenset(
        {
            *(["air_temperature", "air_pressure"] if names - plain else []),
            *(["relative_humidity"] if names - {"relative_humidity"} else []),
        }
    )


_MOTION = frozenset({"motion", "motion_count", "motion_state"})
_OF_A_MOVING_DEVICE = frozenset(
    {"latitude", "longitude", "speed", "heading", "mileage", "acceleration_x", "acceleration_y", "acceleration_z"}
)
_ELECTRIC = frozenset({"power", "energy"})
_OF_THE_LINK = frozenset({"rssi", "snr", "link_quality"})
_TRANSMITTERS = frozenset({"mac", "bssid", "ssid", "beacon", "ibeacon", "beacons", "wifi", "ble", "tag", "ap", "aps"})

_OF_A_BEACON = frozenset({"major", "minor"})


def _names_a_transmitter(field: RecognisedField, fields: Sequence[RecognisedField], within: str) -> bool:
    """Return whether a signal strength stands within a transmitter's entry, or is one of several."""
    around = {word for step in (*field.facts.steps, field.each, within) for word in words_of(step)}
    same = [other for other in fields if other.guess.property == field.guess.property]
    return bool(_TRANSMITTERS & around) or len(same) > 1


def _doubted(field: RecognisedField, question: str) -> RecognisedField:
    """Return a member as a guess, with the facts to look up."""
    if not field.guess.sure:
        return field
    return field._replace(guess=field.guess._replace(sure=False, reason=f"{field.guess.reason}; {question}"))


_EXTREMES = ("_max", "_min")
_LEVELS_BY_NAME = frozenset({"sound_level_max", "sound_level_min"})
"""Names that instruments give to levels (Lmax), and nobody to a limit."""


def _without_limits(fields: Sequence[RecognisedField]) -> Sequence[RecognisedField]:
    """Return the members; a maximum is sure only beside a mean, else it may be a limit that is set."""
    names = {field.guess.property for field in fields}
    return [
        field._replace(
            guess=field.guess._replace(sure=False, reason=f"{field.guess.reason}; measured, or a limit that is set?")
        )
        if field.guess.sure
        and field.guess.property.endswith(_EXTREMES)
        and field.guess.property not in _LEVELS_BY_NAME
        and f"{field.guess.property[:-4]}_mean" not in names
        else field
        for field in fields
    ]


def _assign_channels(fields: Sequence[RecognisedField]) -> list[RecognisedField]:
    """Give channels to members that would be the same property, named after the part in which their paths differ."""
    by_property: dict[str, list[RecognisedField]] = defaultdict(list)
    for field in fields:
        by_property[field.guess.property].append(field)
    channels: dict[str, str] = {}
    for same_property in by_property.values():
        names = list(dict.fromkeys(item.field for item in same_property))  # the same member now and in a record: one
        if len(names) > 1:
            channels |= {
                f"{same_property[0].guess.property} {name}": channel
                for name, channel in zip(names, _distinct_parts(names), strict=True)
            }
    return [field._replace(channel=channels.get(f"{field.guess.property} {field.field}", "")) for field in fields]


def _distinct_parts(names: Sequence[str]) -> list[str]:
    """Return the distinct part of each name: ``temp1``, ``temp2`` -> 1, 2; the whole name if those are ambiguous."""
    parts = [re.findall(r"[A-Za-z]+|\d+", name) for name in names]
    common = set(parts[0]).intersection(*map(set, parts[1:]))
    distinct = ["_".join(part for part in words if part not in common).lower() for words in parts]
    if len(set(distinct)) == len(names):
        return distinct  # at most one is empty: the plain name
    return [re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_").lower() for name in names]


# ── summaries ────────────────────────────────────────────────────────────────────────────────────────


def interval_s(learned: LearnedShape) -> float:
    """Return the usual time between two messages of a topic in seconds; 0 if arrivals are not recorded."""
    by_topic: dict[str, list[int]] = defaultdict(list)
    for message in learned.messages:
        if message.sample.received:
            by_topic[message.sample.topic].append(message.sample.received)
    gaps = [
        (later - earlier) / 1e6 for times in by_topic.values() for earlier, later in pairwise(times) if later > earlier
    ]
    if len(gaps) < 2:
        return 0.0
    usual = median(gaps)
    return float(round(usual)) if usual >= 10 else round(usual, 1)


def summary(facts: FieldFacts) -> str:
    """Describe the known facts of a member in a few words."""
    parts: list[str] = []
    if facts.numeric and facts.numbers:
        markers = sentinels(facts)
        numbers = [number for number in facts.numbers if number not in markers] or facts.numbers
        low, high = min(numbers), max(numbers)
        parts.append(f"always {low:g}" if low == high else f"{low:g} to {high:g}")
        if facts.is_rising():
            parts.append("only rises: is it a counter?")
        if markers:
            parts.append(f"and {', '.join(f'{marker:g}' for marker in sorted(markers))}")
        if facts.texts_as_numbers:
            parts.append("as text")
    else:
        words = [("true" if word else "false") if isinstance(word, bool) else str(word) for word in facts.words[:4]]
        shown = ", ".join(word if len(word) <= 20 else f"{word[:17]}..." for word in words)
        parts.append(shown + (", ..." if facts.more_values or len(facts.values) > 4 else ""))
    if facts.kinds["null"]:
        parts.append(f"{facts.kinds['null']} times null")
    return ", ".join(part for part in parts if part)


def best_messages(learned: LearnedShape, count: int = 2) -> list[ParsedSample]:
    """Return the most telling messages: first the one with most recognised members, then those with missing markers."""
    pool = learned.messages[-200:]
    if not pool:
        return []
    first = max(pool, key=lambda message: len(_shown_fields(learned, message)[0]))
    covered = _shown_fields(learned, first)[0]
    others = [message for message in pool if message is not first]
    others.sort(
        key=lambda message: (
            len(_shown_fields(learned, message)[0] - covered),
            len(_shown_fields(learned, message)[1]),
        ),
        reverse=True,
    )
    return [first, *others[: count - 1]]


def _shown_fields(learned: LearnedShape, message: ParsedSample) -> tuple[set[str], set[str]]:
    """Return (recognised members with a value in a message, those with a marker for a missing value)."""
    values: set[str] = set()
    markers: set[str] = set()
    for element in element_trees(message.tree, learned.elements):
        for field in learned.recognised:
            value = _value_of(learned, field, message.tree, element)
            if value is not ABSENT and value is not None:
                (markers if value in field.guess.missing else values).add(field.key)
    return values, markers


def _value_of(learned: LearnedShape, field: RecognisedField, tree: Any, element: Any) -> Any:
    if learned.elements is not None and learned.elements.name and not field.field.startswith("$"):
        if element.get(learned.elements.name) != field.field:
            return ABSENT
        return next((element[key] for key in learned.elements.values if element.get(key) is not None), None)
    place = paths.parse(field.field)
    if field.each:
        items = walk(tree, paths.parse(field.each).path)
        return walk(items[0], place.path) if isinstance(items, list) and items else ABSENT
    return walk(tree if place.from_root else element, place.path)
