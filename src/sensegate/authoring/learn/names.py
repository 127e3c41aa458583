"""Guess properties from the names of members, and say how much of a name a property explains.

A name is split into words (``TempC_SHT`` -> temperature, c, sensorchip). A rule whose words all occur in the name
suggests its property; only one that leaves no word unexplained states it. What is left over changes the meaning more
often than not (``water.temperature.current`` is no electric current, ``No_Beacon`` no nitric oxide): such a match is a
fragment. This dictionary serves guesses that people review; it is not a standard and is sometimes wrong.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final, NamedTuple

from sensegate.authoring.learn.name_rules import (
    CHINESE,
    CONTAINERS,
    FORBIDDING,
    NEUTRAL,
    QUANTITIES,
    RULES,
    UNIT_QUANTITIES,
    UNITS,
    WEAK_UNITS,
    WORD_OF_FORM,
)
from sensegate.quantities.properties import PROPERTIES, Property, ValueKind
from sensegate.quantities.units import TABLE, UnitError, conversion


class NameRule(NamedTuple):
    """Words that together suggest a property."""

    property: str
    words: frozenset[str]
    states: bool
    """False: the words say too little alone."""
    with_unit: bool = False
    """True if a stated unit makes up for that."""


@cache
def _rules() -> tuple[NameRule, ...]:
    rules: list[NameRule] = []
    for line in RULES.strip().splitlines():
        name, _, choices = line.partition(":")
        PROPERTIES.index(name)  # raises if a property was renamed and its row here was not
        for choice in choices.split("|"):
            words = choice.strip()
            if words:
                doubt = words[-1] if words[-1] in "?~" else ""
                canonical = frozenset(WORD_OF_FORM.get(word, word) for word in words.rstrip("?~").split())
                rules.append(NameRule(name, canonical, not doubt, doubt == "~"))
    known = {rule.words for rule in rules}
    for row in PROPERTIES.rows:
        words_of_row = frozenset(words_of(row.name))
        if words_of_row not in known:
            vague = len(words_of_row) == 1 and row.kind is ValueKind.NUMBER and row.domain not in _PLAIN_DOMAINS
            rules.append(NameRule(row.name, words_of_row, not (vague or _is_time(row) or row.name in _VAGUE), vague))
    return tuple(rules)


_PLAIN_DOMAINS: Final = frozenset({"air", "weather", "device"})
"""Domains whose one-word names mean the same on every device; `colour` or `demand` does not."""
_VAGUE: Final = frozenset({"feedback", "activated", "activation_delayed", "shielded", "recording"})
"""States whose names say little outside of the systems that have them."""


def _is_time(row: Property) -> bool:
    """Return whether a property is a span of time: such a member is as often a setting as a measurement."""
    return bool(row.unit) and row.unit in TABLE and TABLE[row.unit].dimension == "time"


# ── words ────────────────────────────────────────────────────────────────────────────────────────────

_CAMEL: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_LETTERS_DIGITS: Final = ("ch", "eco", "co", "no", "so", "o", "pt", "nh", "h", "uv", "l", "m", "cm")
"""Letters that form one word with the digit behind them: co2, m3."""
_PARTICLES: Final = re.compile(r"(?<![A-Za-z])[Pp][Mm][_ ]?(\d{1,2})(?:[._pPdD](\d)(?!\d))?")
NAME_CHARS_MAX: Final = 200
"""A longer name says nothing: the patterns below are made for names that people write."""
NAMES_MAX: Final = 8_192
"""Most names whose words are remembered; many messages bring the same ones."""
_CHIPS: Final = re.compile(
    r"(?i)(?<![a-z])(?:sht|bme|bmp|scd|sps|dht|am|si|hdc|sgp|mcp|tmp|lis|lps|veml|opt|hts)_?\d{2,4}x?(?![a-z])"
)
"""Names of sensor chips, which do not tell the measured property."""
_PROBE_CHIPS: Final = re.compile(r"(?i)(?<![a-z])ds_?18b20|(?<![a-z])pt_?1000?(?!\d)")


@lru_cache(NAMES_MAX)
def _words(name: str) -> tuple[str, ...]:
    if len(name) > NAME_CHARS_MAX:
        return ()
    for chinese, english in CHINESE:
        name = name.replace(chinese, f" {english} ")
    name = _PARTICLES.sub(_particle_word, name)
    name = _CHIPS.sub(" sensorchip ", _PROBE_CHIPS.sub(" ds ", name))
    folded = re.sub(r"[^a-z0-9]", "", name.lower())
    if folded in WORD_OF_FORM:
        return (WORD_OF_FORM[folded],)
    parts: list[str] = []
    for piece in re.split(r"[^A-Za-z0-9]+", name):
        if piece.lower() in _WHOLE_PIECES or re.fullmatch(r"pm\d{1,2}", piece):
            parts.append(piece.lower())
            continue
        for index, word in enumerate(_CAMEL.findall(piece)):
            joins = len(word) == 1 and (parts[-1:] and (parts[-1] in _LETTERS_DIGITS or len(parts[-1]) == 1))
            if index and word.isdigit() and joins:
                parts[-1] += word  # co2, m3, t1
            else:
                parts.append(word.lower())
    return tuple(WORD_OF_FORM.get(part, part) for part in parts)


def words_of(name: str) -> list[str]:
    """Return the words of a name with abbreviations expanded: ``soilTemp_1`` -> soil, temperature, 1."""
    return list(_words(name))


_PIECES: Final = "kwh mwh ugm3 mgm3 hpa kpa mpa dbm dba kvarh varh eco2 co2eq eqco2 h2s ph3 soc"
_WHOLE_PIECES: Final = frozenset(_PIECES.split())


def _particle_word(match: re.Match[str]) -> str:
    """Return a particle size without separators: ``PM2_5`` -> pm25, ``pm1_0`` -> pm1, ``PM10`` -> pm10."""
    whole, tenth = str(int(match[1])), match[2] or ""
    if match[1].startswith("0") and not tenth and match[1] != "0":
        whole = str(int(match[1]))  # pm01
    digits = whole if tenth in {"", "0"} else f"{'0' if whole == '0' else whole}{tenth}"
    return f" pm{digits} "


class NamedUnit(NamedTuple):
    """A unit at the end of a name."""

    code: str
    words: frozenset[str]
    """The words that state it."""
    strong: bool
    """True if the end can be nothing else than this unit."""


@lru_cache(NAMES_MAX)
def named_unit(name: str) -> NamedUnit | None:
    """Return the unit that the end of a name stands for (``temp_c``, ``BatV``, ``ILL_lx``), if any."""
    if len(name) > NAME_CHARS_MAX:
        return None
    last = re.split(r"[.\[\]]", name)[-1] if name else ""
    last = re.sub(r"[_\-. ]*\d+$", "", last) if not re.search(r"m[23]$", last) else last
    pieces = [piece for piece in re.split(r"[_\-. /()]+", last) if piece]
    words = _CAMEL.findall(last)
    ends: list[tuple[str, ...]] = []
    for count in (3, 2, 1):
        if len(pieces) > count:
            ends.append(tuple(pieces[-count:]))
        if len(words) > count:
            ends.append(tuple(words[-count:]))
    ends += [(word,) for word in words[1:]]
    alone = len(pieces) == 1 and last.lower() not in WEAK_UNITS
    if alone:
        ends.insert(0, (last,))  # `wh`: nothing but the unit, so that it is no more than a guess
    for end in ends:
        code = UNITS.get("".join(end).lower())
        if code and end != ("a",):  # a small a is a phase
            spelling = "".join(end).lower()
            parts = {
                WORD_OF_FORM.get(part.lower(), part.lower())
                for piece in end
                for part in (piece, *_CAMEL.findall(piece))
            }
            strong = spelling not in WEAK_UNITS and not (alone and end == (last,))
            return NamedUnit(code, frozenset({spelling, *parts, *words_of("_".join(end))}), strong)
    return None


def unit_of(name: str) -> str:
    """Return the code of the unit that the end of a name stands for, or an empty string."""
    unit = named_unit(name)
    return unit.code if unit is not None else ""


# ── meaning of words ─────────────────────────────────────────────────────────────────────────────────

_GENERIC: Final = frozenset({"value", "val", "v", "data", "reading", "current_value", "measurement", "avg_value"})
"""Last steps that carry no meaning: the step before them names the value."""
_DEVICE_WORDS: Final = frozenset({"device", "module", "system", "node", "internal", "unit"})
"""Words that change nothing for properties of the device itself."""
_CIRCUIT_NAMES: Final = "relay switch outlet socket plug emeter em energy light lights load cover circuit"
_CIRCUITS: Final = frozenset(_CIRCUIT_NAMES.split())
"""Words for the place of an electrical measurement; they leave its property unchanged."""
_OF_A_RELEASE: Final = frozenset({"channel", "ch", "status", "state"})
"""Words that say of a firmware how it is updated, not which it is."""
_STATE_WORDS: Final = frozenset({"state", "status", "detected", "flag", "active"})
"""Words that change nothing for states."""
_GENERIC_PLACES: Final = frozenset({"air_temperature", "relative_humidity", "air_pressure"})
"""Properties that a plain name means; with a number, a letter or `sensor`, it is a probe that may be anywhere."""
_CHANNEL: Final = re.compile(r"(?:ch|l|s|t|p|in|th|sensor|probe|port|phase|zone|slot|channel)?\d{1,2}|[abcde]")
_SHORT_BUT_PLAIN: Final = frozenset({"ph", "uv", "co2", "rh", "o3", "db", "pm"})


class NameMatch(NamedTuple):
    """A property that a name suggests."""

    property: str
    words: int
    """Number of words of the name that suggest it."""
    whole: bool = True
    """True if no word of the name is left over."""
    plain: bool = True
    """False: abbreviations of two letters, or words that say too little alone."""
    rest: tuple[str, ...] = ()
    """Words that are left over."""
    with_unit: bool = False
    """True if a stated unit makes it plain."""


def _split(steps: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the words of the last step, and those of the steps before it, without qualifiers of time (`current`)."""
    if len(steps) > 1 and steps[-1].lower() in _GENERIC:
        steps = steps[:-1]
    own = words_of(steps[-1]) if steps else []
    around = [word for step in steps[:-1] for word in words_of(step)]
    if own == ["current"] and QUANTITIES.intersection(around):
        own = words_of(steps[-2])
        around = [word for step in steps[:-2] for word in words_of(step)]
    elif "current" in own and QUANTITIES.intersection(own[own.index("current") + 1 :]):
        own.remove("current")
    return own, around


@lru_cache(NAMES_MAX)
def matches(steps: tuple[str, ...]) -> tuple[NameMatch, ...]:
    """Return the properties that a path may name, the most likely first; those that explain the whole name lead."""
    own_words, around_words = _split(steps)
    own, around = set(own_words), set(around_words)
    named = named_unit(steps[-1]) if steps else None
    if named is not None and (quantity := UNIT_QUANTITIES.get(named.code)) and not own & {"power", "current"}:
        own.add(quantity)
    originals = {part.lower() for step in steps for part in re.split(r"[^A-Za-z0-9]+", step[:NAME_CHARS_MAX])}
    ranked: dict[str, tuple[tuple[bool, int, int, int, bool], NameMatch]] = {}
    for rule in _rules():
        if not rule.words <= own | around or not rule.words & own:
            continue
        row = PROPERTIES.by_name(rule.property)
        accounted = rule.words | NEUTRAL | (_DEVICE_WORDS if row.domain == "device" else frozenset())
        if row.kind is not ValueKind.NUMBER:
            accounted |= _STATE_WORDS
        elif row.domain in {"power", "energy"}:
            accounted |= _CIRCUITS
        fits = named is not None and _converts(named.code, row.unit)
        if named is not None and fits:
            accounted |= named.words | frozenset(UNIT_QUANTITIES.values())
        if row.name == "firmware":
            accounted -= _OF_A_RELEASE
        left = [word for word in own if word not in accounted and not _CHANNEL.fullmatch(word)]
        if own_words[-1:] == ["d"] and own_words[-2:-1] and own_words[-2].isdigit():
            left.append("d")  # `temp_3d`: that of the day after the next two
        outside = [
            word for word in around if word not in accounted and word not in CONTAINERS and not _CHANNEL.fullmatch(word)
        ]
        if FORBIDDING.intersection(left) or FORBIDDING.intersection(outside):
            continue
        short = any(
            len(form) <= 2
            and WORD_OF_FORM.get(form, form) in rule.words
            and form not in _SHORT_BUT_PLAIN
            and form not in UNITS
            for form in originals
        )
        whole = not left and not outside
        unit_words = named.words if named is not None else frozenset()
        numbered = rule.property in _GENERIC_PLACES and any(
            word == "sensor" or _CHANNEL.fullmatch(word) for word in own - rule.words - unit_words
        )
        if not whole and len(rule.words) == 1 and len(next(iter(rule.words))) <= 2:
            continue  # "no beacon", "co op"
        rank = (whole, len(rule.words), len(rule.words & own), -len(left), fits)
        cut = bool(steps) and steps[-1].endswith(("_", "-"))  # `temp_`: whatever stood behind is missing
        behind = rule.property == "setpoint_temperature" and own_words[-1:] == ["target"]  # that of an infrared sensor
        plain = rule.states and not short and not numbered and not cut and not behind
        with_unit = rule.with_unit or (rule.states and short)
        match = NameMatch(rule.property, len(rule.words), whole, plain, (*left, *outside), with_unit)
        if rule.property not in ranked or rank > ranked[rule.property][0]:
            ranked[rule.property] = rank, match
    return tuple(match for _, match in sorted(ranked.values(), key=lambda item: item[0], reverse=True))


def is_other_power(code: str, unit: str) -> bool:
    """Return whether one of two units is that of active power or energy only, and the other is not.

    Watts and volt-amperes have one dimension, but active power is never stated in var, nor reactive power in W.
    """
    return ("W" in code and "V.A" in unit) or ("V.A" in code and "W" in unit)


def _converts(code: str, unit: str) -> bool:
    if not unit or is_other_power(code, unit):
        return False
    try:
        conversion(code, unit)
    except UnitError:
        return False
    return True
