"""Compile the reading rules of a message: properties, units, words, and the specs that later stages need."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from sensegate.decode.grammar import MessageRule, ProfileFile, ReadingRule, UnitFrom
from sensegate.decode.keys import ProfileKeys, nearest
from sensegate.decode.part import Scalar
from sensegate.decode.paths import MemberPath
from sensegate.decode.profile import IDENTITIES, NONE, RECORD_MAX, TEXT_MAX, CompiledReading, Token, compose, token
from sensegate.decode.words import TABLES
from sensegate.errors import ConfigError
from sensegate.model import OBSERVATION, Datum, Spec
from sensegate.quantities.properties import PROPERTIES, Property, ValueKind
from sensegate.quantities.units import UnitError, conversion


class ReadingCompiler:
    """Compile reading rules into `CompiledReading`s; specs are appended to the profile set's list."""

    def __init__(self, source: ProfileFile, keys: ProfileKeys, specs: list[Spec]) -> None:
        self._source = source
        self._keys = keys
        self._specs = specs
        self._first = len(specs)
        self._known: dict[Spec, int] = {}

    @property
    def own(self) -> list[Spec]:
        """The profile's specs."""
        return self._specs[self._first :]

    @property
    def specs(self) -> tuple[int, ...]:
        """Indices of the profile's specs in the profile set."""
        return tuple(range(self._first, len(self._specs)))

    def compile(
        self, rule: MessageRule, here: tuple[str | int, ...], identity: tuple[int, ...], *, typed: bool
    ) -> tuple[tuple[CompiledReading, ...], dict[str, CompiledReading]]:
        """Return (readings by path, readings by name) of a message; `typed`: its format has numbers besides text."""
        kinds = sum((bool(rule.readings), bool(rule.standard), rule.ignore))
        if kinds != 1 and (kinds or rule.payload is None):
            raise self._keys.error(
                "a message has one of `readings`, `standard` and `ignore`", *here, remedy="remove or add one"
            )
        readings: list[CompiledReading] = []
        seen: set[tuple[str, str, str]] = set()
        for index, entry in enumerate(rule.readings):
            key = (*here, "readings", index)
            if rule.named and (entry.where or entry.each):
                key_name = "where" if entry.where else "each"
                raise self._keys.error("elements that carry their own name are distinguished by it", *key, key_name)
            for name, channel in self._names(entry, key):
                where = {path: _with_channel(accepted, channel) for path, accepted in entry.where.items()}
                numbers = entry.text_numbers or not typed
                expanded = msgspec.structs.replace(
                    entry, field=name, fields=(), channel=channel, channels=(), where=where, text_numbers=numbers
                )
                title = _title(expanded)
                # One value may be two readings; of an element that carries its name, the name tells the reading.
                reading_key = (title, "", "") if rule.named else (title, entry.property, channel)
                if reading_key in seen:
                    raise self._keys.error(f"'{title}' occurs twice", *key, remedy="keep one of them")
                seen.add(reading_key)
                reading = self._reading(expanded, title, identity, key, plain=bool(rule.named))
                conditions = tuple(self._keys.where(where, key, typed=typed))
                readings.append(msgspec.structs.replace(reading, where=conditions))
        if rule.standard:
            rules = (ReadingRule(field=row.name, property=row.name) for row in PROPERTIES.rows)
            standard = [self._reading(entry, entry.field, identity, here, plain=True) for entry in rules]
            return (), {reading.name: reading for reading in standard}
        if rule.named:
            return (), {reading.name: reading for reading in readings}
        return tuple(readings), {}

    def _names(self, entry: ReadingRule, here: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
        """Yield (path, channel) of each value that an entry stands for."""
        names = ((entry.field,) if entry.field else ()) + entry.fields
        if not names:
            raise self._keys.error("no path", *here, remedy="give `field` or `fields`")
        if entry.channel and entry.channels:
            raise self._keys.error("give `channel` or `channels`", *here, "channel")
        in_conditions = any("{channel}" in str(accepted) for accepted in entry.where.values())
        for name in names:
            if ("{channel}" in name or in_conditions) != bool(entry.channels):
                raise self._keys.error(f"'{name}': {{channel}} and `channels` belong together", *here, "field")
            if not entry.channels:
                yield name, entry.channel
            for word in entry.channels:
                channel = entry.channels[word] if isinstance(entry.channels, dict) else word
                yield name.replace("{channel}", word), channel

    def _reading(
        self, entry: ReadingRule, title: str, identity: tuple[int, ...], here: tuple[str | int, ...], *, plain: bool
    ) -> CompiledReading:
        try:
            row = PROPERTIES.by_name(entry.property)
        except ConfigError as error:
            raise self._keys.error(error.problem, *here, "property", remedy=error.remedy) from error
        own = (entry.scale, entry.offset)
        if not entry.scale or not (math.isfinite(entry.scale) and math.isfinite(entry.offset)):
            raise self._keys.error("must be finite and not 0", *here, "scale")
        factor = compose(own, self._unit(entry, row, here))
        specs = [-1, -1, -1, -1, -1]
        spec = self._spec(entry, row, title, factor, here)
        for kind in (*identity, NONE):
            specs[kind] = self._index(msgspec.structs.replace(spec, identity=IDENTITIES[kind]))
        if entry.unit_from is not None:
            self._unit_words(entry.unit_from, row, here)
        return CompiledReading(
            name=title,
            each=self._keys.optional(entry.each, *here, "each"),
            place=MemberPath(()) if plain else self._keys.place(entry.field, *here, "field"),
            property=row.name,
            kind=row.kind,
            specs=(specs[0], specs[1], specs[2], specs[3], specs[4]),
            factor=factor,
            own=own,
            words=self._words(entry, row, here),
            missing=frozenset(token(value) for value in entry.missing),
            text_numbers=entry.text_numbers,
            unit_place=self._keys.place(entry.unit_from.field, *here, "unit_from", "field")
            if entry.unit_from
            else None,
            unit_words=entry.unit_from.words if entry.unit_from else {},
            flag_place=self._keys.optional(entry.flag, *here, "flag"),
            text_max=RECORD_MAX if row.name == OBSERVATION else TEXT_MAX,
        )

    def _unit(self, entry: ReadingRule, row: Property, here: tuple[str | int, ...]) -> tuple[float, float]:
        if row.kind is not ValueKind.NUMBER:
            if entry.unit or entry.unit_from or (entry.scale, entry.offset) != (1.0, 0.0):
                raise self._keys.error(f"'{row.name}' is a {row.kind}: no unit, no scale", *here, "property")
            return 1.0, 0.0
        if not entry.unit:
            return 1.0, 0.0
        try:
            return conversion(entry.unit, row.unit)
        except UnitError as error:
            raise self._keys.error(f"{row.name}: {error.problem}", *here, "unit", remedy=error.remedy) from error

    def _unit_words(self, part: UnitFrom, row: Property, here: tuple[str | int, ...]) -> None:
        for unit in part.words.values():
            try:
                conversion(unit, row.unit)
            except UnitError as error:
                raise self._keys.error(
                    f"{row.name}: {error.problem}", *here, "unit_from", "words", remedy=error.remedy
                ) from error

    def _words(self, entry: ReadingRule, row: Property, here: tuple[str | int, ...]) -> dict[Token, float | str] | None:
        if entry.words is None:
            return None
        words = entry.words
        if isinstance(words, str) and words not in TABLES:
            raise self._keys.error(
                f"there is no table of words '{words}'", *here, "words", remedy=nearest(words, TABLES)
            )
        converted: dict[Token, float | str] = {}
        for sent, value in TABLES[words].words if isinstance(words, str) else words.items():
            converted[token(sent)] = self._word(value, row, (*here, "words", str(sent)))
        return converted

    def _word(self, value: Scalar, row: Property, here: tuple[str | int, ...]) -> float | str:
        if row.kind is ValueKind.STRING:
            if not isinstance(value, str):
                raise self._keys.error(f"'{row.name}' is a text; write the word in quotes", *here)
            return value
        if row.kind is ValueKind.BOOLEAN:
            if not isinstance(value, bool):
                raise self._keys.error(f"'{row.name}' is a boolean", *here, remedy="write true or false")
            return float(value)
        if isinstance(value, (bool, str)):
            raise self._keys.error(f"'{row.name}' is a number", *here)
        return float(value)

    def _spec(
        self,
        entry: ReadingRule,
        row: Property,
        name: str,
        factor: tuple[float, float],
        here: tuple[str | int, ...],
    ) -> Spec:
        """Return the spec of a reading, without its identity."""
        low, high = entry.range or (row.low, row.high)
        if not low < high:
            raise self._keys.error("low must be below high", *here, "range")
        if low < row.low or high > row.high:
            raise self._keys.error(
                f"wider than {row.name} can be ({row.low:g} to {row.high:g} {row.unit})", *here, "range"
            )
        if entry.deadband is not None and entry.deadband < 0:
            raise self._keys.error("must not be negative", *here, "deadband")
        return Spec(
            profile=f"{self._source.profile}@{self._source.version}",
            name=name,
            property=row.name,
            scale=factor[0],
            offset=factor[1],
            low=low,
            high=high,
            step=row.step if entry.step is None else entry.step,
            deadband=entry.deadband or 0.0,
            suppress=entry.deadband is not None,
            heartbeat_s=entry.heartbeat_s,
            interval_s=self._source.interval_s if entry.interval_s is None else entry.interval_s,
            alarm=entry.alarm,
            channel=entry.channel,
            modulus=self._modulus(entry, row, factor[0], here),
            datum=self._datum(entry, row, here),
        )

    def _index(self, spec: Spec) -> int:
        """Return the index of a spec in the profile set, which has it from now on."""
        known = self._known.get(spec)
        if known is None:
            known = self._known[spec] = len(self._specs)
            self._specs.append(spec)
        return known

    def _modulus(self, entry: ReadingRule, row: Property, scale: float, here: tuple[str | int, ...]) -> float:
        """Return where a counter wraps around, in the property's unit; 0: it does not."""
        if entry.counter is None:
            return 0.0
        if not row.counter:
            remedy = "choose a property that is a counter"
            raise self._keys.error(f"'{row.name}' is not a counter", *here, "counter", remedy=remedy)
        modulus = entry.counter.modulus * scale
        if entry.counter.modulus < 0 or not math.isfinite(modulus) or scale < 0 or entry.offset:
            raise self._keys.error("must be 0 or more; a counter has a positive scale and no offset", *here, "counter")
        if modulus and entry.unit_from is not None:
            remedy = "give `unit` in place of `unit_from`"
            raise self._keys.error("a counter that wraps needs a constant unit", *here, "counter", remedy=remedy)
        return modulus

    def _datum(self, entry: ReadingRule, row: Property, here: tuple[str | int, ...]) -> Datum:
        if entry.datum is not Datum.WGS84 and row.name not in {"longitude", "latitude"}:
            remedy = "only longitude and latitude have one"
            raise self._keys.error(f"'{row.name}' has no datum", *here, "datum", remedy=remedy)
        return entry.datum


def _title(entry: ReadingRule) -> str:
    """Return the name of a reading for people: its path from its list, and what its element must hold."""
    name = entry.field
    if entry.each:
        name = entry.each if name == "." else f"{entry.each}.{name}"
    for path, accepted in entry.where.items():
        if accepted is not None:
            wanted = accepted if isinstance(accepted, tuple) else (accepted,)
            name += f"[{path}={'|'.join(map(str, wanted))}]"
    return name


def _with_channel(accepted: Scalar | tuple[Scalar, ...] | None, channel: str) -> Scalar | tuple[Scalar, ...] | None:
    if isinstance(accepted, tuple):
        return tuple(value.replace("{channel}", channel) if isinstance(value, str) else value for value in accepted)
    return accepted.replace("{channel}", channel) if isinstance(accepted, str) else accepted
