"""A profile, compiled: rules with parsed paths, words, units and the specs that the later stages need.

Specs differ by identity: a message without time falls to the next identity that it has, so each reading has up to one
spec for each kind (`Reading.specs`, indexed like `IDENTITIES`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.decode import times, topics
from sensegate.decode.device_names import Names
from sensegate.decode.envelope import Inner
from sensegate.decode.flags import Flags
from sensegate.decode.frame import Parse
from sensegate.decode.grammar import Lines, ProfileFile
from sensegate.decode.part import Scalar
from sensegate.decode.paths import Path, Place
from sensegate.model import IdentityKind, RejectReason
from sensegate.quantities.properties import PROPERTIES, Kind
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
"""Longest text of a reading, characters."""
RECORD_MAX: Final = 16_384
"""Longest record of an observation, characters."""
_UNIT_TEXT_MAX = 32


class Reject(NamedTuple):
    """A value that becomes no reading."""

    reason: RejectReason
    detail: str = ""


Token = Any
"""A scalar as a dictionary key, true and false kept apart from 1 and 0; None for what is no scalar."""
_TRUE, _FALSE = ("bool", True), ("bool", False)


def token(raw: Any) -> Token:
    """Return the key under which a scalar is looked up."""
    if raw is True:
        return _TRUE
    if raw is False:
        return _FALSE
    return raw if isinstance(raw, (str, int, float)) else None


_WRONG_TYPE: Final = {
    Kind.NUMBER: Reject(RejectReason.WRONG_TYPE, "not a number"),
    Kind.BOOLEAN: Reject(RejectReason.WRONG_TYPE, "not true or false"),
    Kind.STRING: Reject(RejectReason.WRONG_TYPE, "not a text"),
}
_NOT_FINITE: Final = Reject(RejectReason.NOT_FINITE)
_NO_WORD: Final = Reject(RejectReason.ENUMERATION, "not one of the profile's words")


class Reading(msgspec.Struct, frozen=True, eq=False):
    """One value of a message, compiled."""

    name: str
    place: Place
    property: str
    kind: Kind
    specs: tuple[int, int, int, int, int]
    """Index of the spec in the profile set, by identity; -1 where that identity cannot occur."""
    factor: tuple[float, float]
    """(scale, offset) of the specs: from the value as sent to the canonical unit."""
    own: tuple[float, float] = (1.0, 0.0)
    """(scale, offset) of the profile, before the unit's."""
    words: dict[Token, float | str] | None = None
    each: Place | None = None
    """The list of elements that it is in, in place of its rule's."""
    missing: frozenset[Token] = frozenset()
    where: tuple[tuple[Place, frozenset[Token]], ...] = ()
    """Only elements that meet all of this hold the reading."""
    text_numbers: bool = False
    unit_place: Place | None = None
    unit_words: Mapping[str, str] = {}
    flag_place: Place | None = None
    """Where the value's own flag stands; else the rule's `flags` say."""
    text_max: int = TEXT_MAX
    """Longest text, characters."""

    def convert(self, raw: Any) -> float | str | Reject | None:
        """Return the value as a number (or text, where the property is text), None for "not measured"."""
        if self.text_numbers and isinstance(raw, str):
            raw = self._typed(raw)
        if raw is None or (self.missing and token(raw) in self.missing):
            return None
        if self.words is not None:
            key = token(raw)
            return self.words.get(key, _NO_WORD) if key is not None else _WRONG_TYPE[self.kind]
        if self.kind is Kind.NUMBER:
            return self._number(raw)
        if self.kind is Kind.BOOLEAN:
            boolean = raw is True or raw is False or (isinstance(raw, (int, float)) and raw in {0, 1})
            return float(raw) if boolean else _WRONG_TYPE[Kind.BOOLEAN]
        if not isinstance(raw, str):
            return _WRONG_TYPE[Kind.STRING]
        return raw if len(raw) <= self.text_max else _too_long(self.text_max)

    def _typed(self, text: str) -> Scalar:
        """Return what a text stands for: itself where the profile knows it so, else the number in it."""
        if text in self.missing or (text in self.words if self.words is not None else self.kind is Kind.STRING):
            return text
        return _meant(text)

    @staticmethod
    def _number(raw: Any) -> float | Reject:
        if isinstance(raw, bool) or not isinstance(raw, (int, float)):
            return _WRONG_TYPE[Kind.NUMBER]
        try:
            value = float(raw)
        except OverflowError:
            return _NOT_FINITE
        return value if math.isfinite(value) else _NOT_FINITE

    def unit_factor(self, raw: Any, convert: UnitConversion) -> tuple[float, float] | Reject:
        """Return (scale, offset) to the canonical unit for a unit that the payload names."""
        if not isinstance(raw, str) or len(raw) > _UNIT_TEXT_MAX:
            return Reject(RejectReason.UNKNOWN_UNIT, "not a unit")
        unit = self.unit_words.get(raw) if self.unit_words else raw
        if unit is None:
            return Reject(RejectReason.UNKNOWN_UNIT, "not one of the profile's words for units")
        if self.kind is not Kind.NUMBER:
            return Reject(RejectReason.DIMENSION, "the property has no unit")
        found = convert(unit, PROPERTIES.by_name(self.property).unit)
        return found if isinstance(found, Reject) else compose(self.own, found)


def _too_long(most: int) -> Reject:
    return Reject(RejectReason.TOO_LONG, f"more than {most} characters")


NOTHING: Final = Reading("", Place(()), "", Kind.NUMBER, (-1, -1, -1, -1, -1), (1.0, 0.0))
"""The reading of what is known to hold none; it goes with null only."""


def _meant(text: str) -> str | bool | float:
    """Return the number, true or false that a text stands for; the text itself where it is none."""
    if len(text) > _UNIT_TEXT_MAX or "_" in text:
        return text
    if text in {"true", "false"}:
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


UnitConversion = Callable[[str, str], "tuple[float, float] | Reject"]


def compose(first: tuple[float, float], then: tuple[float, float]) -> tuple[float, float]:
    """Return (scale, offset) of two linear maps, one after the other."""
    return first[0] * then[0], first[1] * then[0] + then[1]


class Units:
    """Unit conversion for units that payloads name: remembers answers, and asks the library only `distinct_max` times.

    A device that invents units can so not make us parse for ever.
    """

    def __init__(self, distinct_max: int = 512) -> None:
        self._left = distinct_max
        self._known: dict[tuple[str, str], tuple[float, float] | Reject] = {}

    def __call__(self, source: str, target: str) -> tuple[float, float] | Reject:
        """Return (scale, offset), or why there is none."""
        found = self._known.get((source, target))
        if found is None:
            if not self._left:
                return Reject(RejectReason.UNKNOWN_UNIT, "too many different units named in payloads")
            self._left -= 1
            found = self._known[source, target] = self._ask(source, target)
        return found

    @staticmethod
    def _ask(source: str, target: str) -> tuple[float, float] | Reject:
        try:
            return conversion(source, target)
        except UnitError:
            try:
                dimension(source)
            except UnitError:
                return Reject(RejectReason.UNKNOWN_UNIT, "no UCUM unit")
            return Reject(RejectReason.DIMENSION, "a unit of another dimension")


class Named(NamedTuple):
    """Paths within an element that names itself."""

    name: Place
    value: tuple[Place, ...]
    unit: Place | None
    skip: frozenset[str]
    """Names that hold no readings."""
    skip_below: tuple[str, ...]
    """Beginnings of such names."""


Groups = tuple[tuple[str, tuple[Reading, ...]], ...]
"""Readings by the first key of their paths (empty: none)."""


class Whom(Enum):
    """For which devices a rule of a profile holds."""

    OWN = auto()
    """Those registered with the profile."""
    CARRIED = auto()
    """Those with a profile of their own that takes frames: this one is their carrier's."""
    BOTH = auto()


class Rule(msgspec.Struct, frozen=True, eq=False):
    """One kind of message, compiled."""

    profile: str
    """``vendor/model``"""
    version: int
    number: int
    """Place among the profile's messages."""
    line: int
    patterns: tuple[topics.Pattern, ...]
    format: str
    parse: Parse
    remembers: bool
    """Whether its format needs all messages of a gateway, also those of a disabled device."""
    as_sent: bool
    """Whether the tree is that of the bytes as they came (no charset, nothing unpacked): plans may be learned."""
    ignore: bool
    where: tuple[tuple[Place, frozenset[Token]], ...]
    root: Path
    wrap: str
    each: Place | None
    device: Place | None
    device_case: str
    names: Names
    """How the names of device and gateway are made of the topic's captures."""
    any_profile: bool
    """Whether the gateway speaks for the devices behind it, whatever their profiles are."""
    by_credential: bool
    time: tuple[Place, ...]
    time_joined: bool
    """Whether the places make the time together; else the first that is there counts."""
    reader: times.Reader
    identity: tuple[int, ...]
    """Kinds in the order in which they are looked for (indices into `IDENTITIES`, NONE left out)."""
    sequence: Place | None
    message_id: Place | None
    path: tuple[Place, ...]
    standard: Path | None
    named: Named | None
    flags: Flags | None
    """What the device itself says of its values; None: nothing."""
    readings: tuple[Reading, ...]
    payload: Inner | None
    """Where the envelope holds the device's bytes; None: it is none."""
    chains: bool
    """Whether the bytes inside are decoded by the device's own profile, instead of `readings`."""
    beside: bool
    """Whether its values stand beside those of the frame in the same message."""
    frames: frozenset[int] | None
    """Ports of the frames that the rule takes, empty: any; None: it takes no frames."""
    whom: Whom
    by_name: Mapping[str, Reading]
    """For `standard` and `named`: the readings by name."""
    groups: Groups
    """The readings of `each`, so that what is not there is not looked for."""
    lists: tuple[tuple[Place, Groups], ...]
    """The readings of other lists."""
    video: str = ""
    """Format of video metadata whose messages it takes: they are cut before anything is written."""


class Profile(msgspec.Struct, frozen=True, eq=False):
    """One version of a profile, compiled."""

    id: str
    """``vendor/model``"""
    version: int
    file: str
    source: ProfileFile
    lines: Lines
    rules: tuple[Rule, ...]
    hears: tuple[topics.Pattern, ...]
    """Topics that its devices listen to."""
    specs: tuple[int, ...]
    """Indices of its specs in the profile set."""

    @property
    def name(self) -> str:
        """``vendor/model@version``."""
        return f"{self.id}@{self.version}"

    @property
    def carried(self) -> bool:
        """Whether it takes frames that a carrier brings."""
        return any(rule.frames is not None for rule in self.rules)

    @property
    def carries(self) -> bool:
        """Whether its messages are envelopes with frames of other devices."""
        return any(rule.chains for rule in self.rules)

    def on_port(self, port: int | None) -> list[Rule]:
        """Return the rules that take frames of a port (None: the carrier names none), in their order."""
        return [rule for rule in self.rules if rule.frames is not None and (not rule.frames or port in rule.frames)]
