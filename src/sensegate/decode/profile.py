"""Compiled profiles: rules with parsed paths, words, units, and the specs that later stages need.

Specs differ by identity: a message without a time uses the next identity that it has, so each reading has up to one
spec for each kind (`CompiledReading.specs`, indexed like `IDENTITIES`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.decode import times, topics
from sensegate.decode.device_names import DeviceNameTemplates
from sensegate.decode.envelope import EnvelopePayload
from sensegate.decode.flags import QualityFlags
from sensegate.decode.frame import Parse
from sensegate.decode.grammar import Lines, ProfileFile
from sensegate.decode.part import Scalar
from sensegate.decode.paths import MemberPath, Path
from sensegate.model import IdentityKind, RejectReason
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.quantities.units import UnitError, conversion, dimension

IDENTITIES: Final = (
    IdentityKind.TIME,
    IdentityKind.SEQUENCE,
    IdentityKind.MESSAGE_ID,
    IdentityKind.NONE,
    IdentityKind.FRAME,
)
TIME, SEQUENCE, MESSAGE_ID, NONE, FRAME = range(5)
"""Indices into `IDENTITIES`."""
PORT_MAX: Final = 65_535

TEXT_MAX: Final = 1_024
"""Longest text of a reading, in characters."""
RECORD_MAX: Final = 16_384
"""Longest record of an observation, in characters."""
UNIT_TEXT_MAX = 32


class ValueRejection(NamedTuple):
    """A value that becomes no reading, with the reason."""

    reason: RejectReason
    detail: str = ""


Token = Any
"""A scalar as a dictionary key, with true and false distinct from 1 and 0; None for anything else."""
_TRUE, _FALSE = ("bool", True), ("bool", False)


def token(raw: Any) -> Token:
    """Return the key under which a scalar is looked up."""
    if raw is True:
        return _TRUE
    if raw is False:
        return _FALSE
    return raw if isinstance(raw, (str, int, float)) else None


_WRONG_TYPE: Final = {
    ValueKind.NUMBER: ValueRejection(RejectReason.WRONG_TYPE, "not a number"),
    ValueKind.BOOLEAN: ValueRejection(RejectReason.WRONG_TYPE, "not true or false"),
    ValueKind.STRING: ValueRejection(RejectReason.WRONG_TYPE, "not a text"),
}
_NOT_FINITE: Final = ValueRejection(RejectReason.NOT_FINITE)
_NOT_LISTED: Final = ValueRejection(RejectReason.ENUMERATION, "not one of the profile's words")


class CompiledReading(msgspec.Struct, frozen=True, eq=False):
    """A reading rule, compiled."""

    name: str
    place: MemberPath
    property: str
    kind: ValueKind
    specs: tuple[int, int, int, int, int]
    """Index of the spec in the profile set, by identity; -1 if that identity cannot occur."""
    factor: tuple[float, float]
    """(scale, offset) of the specs: from the value as sent to the canonical unit."""
    own: tuple[float, float] = (1.0, 0.0)
    """(scale, offset) of the profile, before those of the unit."""
    words: dict[Token, float | str] | None = None
    each: MemberPath | None = None
    """The list of elements that holds it, if not the rule's."""
    missing: frozenset[Token] = frozenset()
    where: tuple[tuple[MemberPath, frozenset[Token]], ...] = ()
    """Conditions: only elements that meet all of them hold the reading."""
    text_numbers: bool = False
    unit_place: MemberPath | None = None
    unit_words: Mapping[str, str] = {}
    flag_place: MemberPath | None = None
    """Place of the value's own flag; without one, the rule's `flags` apply."""
    text_max: int = TEXT_MAX
    """Longest text, in characters."""

    def convert(self, raw: Any) -> float | str | ValueRejection | None:
        """Return the value as a number (or text, if the property is text), None for "not measured"."""
        if self.text_numbers and isinstance(raw, str):
            raw = self._typed(raw)
        if raw is None or (self.missing and token(raw) in self.missing):
            return None
        if self.words is not None:
            key = token(raw)
            return self.words.get(key, _NOT_LISTED) if key is not None else _WRONG_TYPE[self.kind]
        if self.kind is ValueKind.NUMBER:
            return self._number(raw)
        if self.kind is ValueKind.BOOLEAN:
            boolean = raw is True or raw is False or (isinstance(raw, (int, float)) and raw in {0, 1})
            return float(raw) if boolean else _WRONG_TYPE[ValueKind.BOOLEAN]
        if not isinstance(raw, str):
            return _WRONG_TYPE[ValueKind.STRING]
        return raw if len(raw) <= self.text_max else _too_long(self.text_max)

    def _typed(self, text: str) -> Scalar:
        """Return the value that a text stands for: itself if the profile lists it, else the number in it."""
        if text in self.missing or (text in self.words if self.words is not None else self.kind is ValueKind.STRING):
            return text
        return _parse_scalar(text)

    @staticmethod
    def _number(raw: Any) -> float | ValueRejection:
        if isinstance(raw, bool) or not isinstance(raw, (int, float)):
            return _WRONG_TYPE[ValueKind.NUMBER]
        try:
            value = float(raw)
        except OverflowError:
            return _NOT_FINITE
        return value if math.isfinite(value) else _NOT_FINITE

    def unit_factor(self, raw: Any, convert: UnitConversion) -> tuple[float, float] | ValueRejection:
        """Return (scale, offset) to the canonical unit, for a unit that the payload states."""
        if not isinstance(raw, str) or len(raw) > UNIT_TEXT_MAX:
            return ValueRejection(RejectReason.UNKNOWN_UNIT, "not a unit")
        unit = self.unit_words.get(raw) if self.unit_words else raw
        if unit is None:
            return ValueRejection(RejectReason.UNKNOWN_UNIT, "not one of the profile's words for units")
        if self.kind is not ValueKind.NUMBER:
            return ValueRejection(RejectReason.DIMENSION, "the property has no unit")
        conversion_factor = convert(unit, PROPERTIES.by_name(self.property).unit)
        return (
            conversion_factor if isinstance(conversion_factor, ValueRejection) else compose(self.own, conversion_factor)
        )


def _too_long(most: int) -> ValueRejection:
    return ValueRejection(RejectReason.TOO_LONG, f"more than {most} characters")


NOTHING: Final = CompiledReading("", MemberPath(()), "", ValueKind.NUMBER, (-1, -1, -1, -1, -1), (1.0, 0.0))
"""Reading of a name that is known to have none; used for null values only."""


def _parse_scalar(text: str) -> str | bool | float:
    """Return the number or boolean that a text stands for, or the text itself."""
    if len(text) > UNIT_TEXT_MAX or "_" in text:
        return text
    if text in {"true", "false"}:
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


UnitConversion = Callable[[str, str], "tuple[float, float] | ValueRejection"]


def compose(first: tuple[float, float], then: tuple[float, float]) -> tuple[float, float]:
    """Compose two linear maps, given as (scale, offset)."""
    return first[0] * then[0], first[1] * then[0] + then[1]


class UnitConversions:
    """Unit conversion for units that payloads state; asks the units library about few different units.

    `distinct_max` limits them, so that a device that invents units cannot keep the gateway parsing.
    """

    def __init__(self, distinct_max: int = 512) -> None:
        self._remaining = distinct_max
        self._known: dict[tuple[str, str], tuple[float, float] | ValueRejection] = {}

    def __call__(self, source: str, target: str) -> tuple[float, float] | ValueRejection:
        """Return (scale, offset), or the rejection."""
        answer = self._known.get((source, target))
        if answer is None:
            if not self._remaining:
                return ValueRejection(RejectReason.UNKNOWN_UNIT, "too many different units in payloads")
            self._remaining -= 1
            answer = self._known[source, target] = self._convert(source, target)
        return answer

    @staticmethod
    def _convert(source: str, target: str) -> tuple[float, float] | ValueRejection:
        try:
            return conversion(source, target)
        except UnitError:
            try:
                dimension(source)
            except UnitError:
                return ValueRejection(RejectReason.UNKNOWN_UNIT, "not a UCUM unit")
            return ValueRejection(RejectReason.DIMENSION, "a unit of another dimension")


class NamedPlaces(NamedTuple):
    """Places within an element that carries its own name."""

    name: MemberPath
    value: tuple[MemberPath, ...]
    unit: MemberPath | None
    skip: frozenset[str]
    """Names without readings."""
    skip_below: tuple[str, ...]
    """Prefixes of such names."""


Groups = tuple[tuple[str, tuple[CompiledReading, ...]], ...]
"""Readings by the first key of their paths (empty: none)."""


class AppliesTo(Enum):
    """The devices to which a rule of a profile applies."""

    OWN = auto()
    """Devices registered with the profile."""
    CARRIED = auto()
    """Devices with their own profile for frames, of which this profile is the carrier."""
    BOTH = auto()


class CompiledRule(msgspec.Struct, frozen=True, eq=False):
    """A message rule, compiled."""

    profile: str
    """``vendor/model``"""
    version: int
    number: int
    """Index among the profile's messages."""
    line: int
    patterns: tuple[topics.TopicPattern, ...]
    format: str
    parse: Parse
    remembers: bool
    """True if its format keeps state of all messages of a gateway, including those of a disabled device."""
    as_sent: bool
    """True if the tree is parsed from the bytes unchanged (no charset, nothing unpacked): plans may be learned."""
    ignore: bool
    where: tuple[tuple[MemberPath, frozenset[Token]], ...]
    root: Path
    wrap: str
    each: MemberPath | None
    device: MemberPath | None
    device_case: str
    device_decode: str
    names: DeviceNameTemplates
    """Templates of the device's and gateway's names, over the topic's captures."""
    any_profile: bool
    """True if the gateway publishes for the devices behind it, whatever their profiles."""
    by_credential: bool
    time: tuple[MemberPath, ...]
    time_joined: bool
    """True if the places form the time together; else the first that is present applies."""
    reader: times.TimeReader
    identity: tuple[int, ...]
    """Identity kinds in order of preference (indices into `IDENTITIES`, without NONE)."""
    sequence: MemberPath | None
    message_id: MemberPath | None
    path: tuple[MemberPath, ...]
    standard: Path | None
    named: NamedPlaces | None
    flags: QualityFlags | None
    """Reader of the device's own quality flags; None: there are none."""
    readings: tuple[CompiledReading, ...]
    payload: EnvelopePayload | None
    """Place of the device's bytes in the envelope; None: it is not an envelope."""
    chains: bool
    """True if the device's own profile decodes the bytes inside, instead of `readings`."""
    beside: bool
    """True if its values complement those of the frame in the same message."""
    frames: frozenset[int] | None
    """Ports of the frames that the rule decodes, empty: any; None: it decodes no frames."""
    applies_to: AppliesTo
    by_name: Mapping[str, CompiledReading]
    """Readings by name, for `standard` and `named`."""
    groups: Groups
    """The readings of `each`, grouped so that absent members are skipped together."""
    lists: tuple[tuple[MemberPath, Groups], ...]
    """The readings of other lists."""
    video: str = ""
    """Format of video metadata that it decodes: such messages are redacted before anything is written."""
    metadata: bool = False
    """True if it reads what MQTT states beside the payload."""


class CompiledProfile(msgspec.Struct, frozen=True, eq=False):
    """A version of a profile, compiled."""

    id: str
    """``vendor/model``"""
    version: int
    file: str
    source: ProfileFile
    lines: Lines
    rules: tuple[CompiledRule, ...]
    hears: tuple[topics.TopicPattern, ...]
    """Topics to which its devices subscribe."""
    specs: tuple[int, ...]
    """Indices of its specs in the profile set."""

    @property
    def name(self) -> str:
        """``vendor/model@version``."""
        return f"{self.id}@{self.version}"

    @property
    def carried(self) -> bool:
        """Return whether it decodes frames that a carrier delivers."""
        return any(rule.frames is not None for rule in self.rules)

    @property
    def carries(self) -> bool:
        """Return whether its messages are envelopes with frames of other devices."""
        return any(rule.chains for rule in self.rules)

    def on_port(self, port: int | None) -> list[CompiledRule]:
        """Return the rules that decode frames of a port (None: the carrier states none), in order."""
        return [rule for rule in self.rules if rule.frames is not None and (not rule.frames or port in rule.frames)]
