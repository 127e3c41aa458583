"""A profile, compiled: rules with parsed paths, words, units and the specs that the later stages need.

Specs differ by identity: a message without time falls to the next identity that it has, so each reading has up to one
spec for each kind (`Reading.specs`, indexed like `IDENTITIES`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path as File
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from sensegate.decode import flags, paths, times, topics
from sensegate.decode.envelope import READERS, Inner
from sensegate.decode.flags import Flags
from sensegate.decode.formats import FORMATS
from sensegate.decode.frame import Parse, Setting
from sensegate.decode.grammar import (
    Lines,
    MessageRule,
    ProfileFile,
    ReadingRule,
    UnitFrom,
    key_text,
    line_of,
)
from sensegate.decode.names import ANY, Names
from sensegate.decode.part import Scalar
from sensegate.decode.paths import EVERY, Path, Place
from sensegate.decode.reshape import Reshape, changes_of
from sensegate.decode.words import TABLES
from sensegate.errors import ConfigError, ProfileError
from sensegate.model import Datum, IdentityKind, RejectReason, Spec
from sensegate.properties import PROPERTIES, Kind, Property
from sensegate.units import UnitError, conversion, dimension

IDENTITIES: Final = (
    IdentityKind.TIME,
    IdentityKind.SEQUENCE,
    IdentityKind.MESSAGE_ID,
    IdentityKind.NONE,
    IdentityKind.FRAME,
)
TIME, SEQUENCE, MESSAGE_ID, NONE, FRAME = range(5)
"""Indices into `IDENTITIES`."""
_BY_ENVELOPE = (TIME, SEQUENCE, MESSAGE_ID, FRAME)
"""What may identify the readings of a frame whose envelope is not known yet."""
PORT_MAX: Final = 65_535

TEXT_MAX: Final = 1_024
"""Longest text of a reading, characters."""
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
        return raw if len(raw) <= TEXT_MAX else Reject(RejectReason.TOO_LONG, f"more than {TEXT_MAX} characters")

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


class Compiler:
    """Turns one `ProfileFile` into a `Profile`; specs are appended to the profile set's list."""

    def __init__(self, source: ProfileFile, lines: Lines, file: str, specs: list[Spec]) -> None:
        self._source = source
        self._lines = lines
        self._file = file
        self._specs = specs
        self._first = len(specs)
        self._known: dict[Spec, int] = {}
        self._parses: dict[str, Parse] = {}

    def error(self, what: str, *path: str | int, remedy: str = "") -> ProfileError:
        """Return an error at a key of the file."""
        return ProfileError(what, file=self._file, line=line_of(self._lines, path), key=key_text(path), remedy=remedy)

    def compile(self) -> Profile:
        """Return the profile.

        Raises:
            ProfileError: with file, line and key of the first thing that is wrong.
        """
        source = self._source
        vendor, _, model = source.profile.partition("/")
        if not vendor or not model or not all(c.isalnum() or c in "-_." for c in vendor + model):
            raise self.error("must be vendor/model", "profile", remedy="letters, digits, '-', '_' and '.'")
        if not source.messages:
            raise self.error("no message is described", "messages", remedy="add one with `topics` and `readings`")
        rules = tuple(one for at, rule in enumerate(source.messages) for one in self._roles(self._rule(rule, at)))
        return Profile(
            source.profile,
            source.version,
            self._file,
            source,
            self._lines,
            rules,
            self._hears(rules),
            tuple(range(self._first, len(self._specs))),
        )

    def _hears(self, rules: tuple[Rule, ...]) -> tuple[topics.Pattern, ...]:
        known = {"device", ANY}.union(*(one.captures for rule in rules for one in rule.names[:2] if one is not None))
        found = tuple(self._pattern(text, "hears", at) for at, text in enumerate(self._source.hears))
        for at, pattern in enumerate(found):
            for capture in sorted(pattern.captures - known):
                remedy = "a device may hear only what its own name fills: {device}, or captures of a name's template"
                raise self.error(f"no name holds {{{capture}}}", "hears", at, remedy=remedy)
        return found

    # ── rules ────────────────────────────────────────────────────────────────────────────────────────

    def _roles(self, rule: Rule) -> Iterator[Rule]:
        """Yield a rule as each kind of device meets it: named by the topic or the payload, carried or not."""
        ways = [rule]
        by_topic = tuple(pattern for pattern in rule.patterns if "device" in pattern.captures)
        if rule.device is not None and self._carries and by_topic:
            others = tuple(pattern for pattern in rule.patterns if pattern not in by_topic)
            ways = [
                msgspec.structs.replace(rule, patterns=by_topic, device=None),
                msgspec.structs.replace(rule, patterns=others),
            ]
        for way in ways:
            if rule.payload is not None:
                yield msgspec.structs.replace(
                    way,
                    chains=True,
                    whom=Whom.CARRIED,
                    standard=None,
                    named=None,
                    readings=(),
                    by_name={},
                    groups=(),
                    lists=(),
                )
            if rule.payload is None or rule.readings or rule.by_name:
                both = rule.beside or (rule.ignore and self._carries)
                yield msgspec.structs.replace(way, whom=Whom.BOTH if both else Whom.OWN)

    @property
    def _carries(self) -> bool:
        return any(rule.payload for rule in self._source.messages)

    def _rule(self, rule: MessageRule, at: int) -> Rule:
        here = ("messages", at)
        patterns = tuple(self._pattern(text, *here, "topics", i) for i, text in enumerate(rule.topics))
        if not patterns and rule.frames is None:
            remedy = "e.g. vendor/{device}/up, or `frames` for what a network server brings"
            raise self.error("no topic", *here, "topics", remedy=remedy)
        form, parse = self._format(rule, here)
        time, reader = self._time(rule, here)
        sequence = self._optional(rule.sequence, *here, "sequence")
        message_id = self._optional(rule.message_id, *here, "message_id")
        payload = self._payload(rule, here)
        identity = self._identity(rule, here, time=bool(time), sequence=bool(sequence), message_id=bool(message_id))
        names = self._device(rule, patterns, here)
        each = self._optional(rule.each, *here, "each")
        typed = FORMATS[form].typed
        kinds = identity if rule.frames is None else _BY_ENVELOPE
        readings, by_name = self._readings(rule, here, kinds, typed=typed)
        return Rule(
            profile=self._source.profile,
            version=self._source.version,
            number=at,
            line=line_of(self._lines, here),
            patterns=patterns,
            format=form,
            parse=parse,
            remembers=FORMATS[form].remembers,
            as_sent=rule.charset == "utf-8" and not rule.unpack and rule.table is None,
            ignore=rule.ignore,
            where=tuple(self._where(rule.where, here, typed=typed)),
            root=self._place(rule.root, *here, "root").path if rule.root else (),
            wrap=self._wrap(rule, patterns, here),
            each=each,
            device=self._place(rule.device.field, *here, "device") if rule.device and rule.device.field else None,
            device_case=rule.device.case if rule.device else "",
            names=names,
            any_profile=bool(rule.device and rule.device.any_profile),
            by_credential=bool(rule.device and rule.device.credential),
            time=time,
            time_joined=bool(rule.time and rule.time.join),
            reader=reader,
            identity=identity,
            sequence=sequence,
            message_id=message_id,
            path=tuple(self._place(text, *here, "path", i) for i, text in enumerate(rule.path)),
            standard=self._place(rule.standard, *here, "standard").path if rule.standard else None,
            named=self._named(rule, here),
            payload=payload,
            chains=False,
            beside=rule.beside,
            frames=self._frames(rule, here),
            whom=Whom.OWN,
            readings=readings,
            flags=self._flags(rule, here),
            by_name=by_name,
            groups=_groups([reading for reading in readings if reading.each is None]),
            lists=_lists(readings),
        )

    def _payload(self, rule: MessageRule, here: tuple[str | int, ...]) -> Inner | None:
        if rule.beside and not self._carries:
            raise self.error("there is no frame that it could stand beside", *here, "beside", remedy="give `payload`")
        if rule.payload is None:
            return None
        if rule.frames is not None or rule.ignore or rule.beside:
            other = "frames" if rule.frames is not None else "ignore" if rule.ignore else "beside"
            raise self.error(f"does not go with `{other}`", *here, "payload", remedy="make two messages of it")
        place = self._place(rule.payload.field, *here, "payload", "field")
        port = self._optional(rule.payload.port, *here, "payload", "port")
        return Inner(place, port, READERS[rule.payload.encoding])

    def _frames(self, rule: MessageRule, here: tuple[str | int, ...]) -> frozenset[int] | None:
        if rule.frames is None:
            return None
        for at, port in enumerate(rule.frames.ports):
            if not 0 <= port <= PORT_MAX:
                raise self.error(f"{port} is no port", *here, "frames", "ports", at)
        return frozenset(rule.frames.ports)

    def _format(self, rule: MessageRule, here: tuple[str | int, ...]) -> tuple[str, Parse]:
        """Return the name of a rule's format (its options name it too), and the parse for them."""
        given = [name for name, form in FORMATS.items() if form.options and getattr(rule, name) is not None]
        name = rule.format or (given[0] if given else self._source.format)
        if name not in FORMATS:
            key = (*here, "format") if rule.format else ("format",)
            raise self.error(f"unknown format '{name}'", *key, remedy=nearest(name, FORMATS))
        for other in given:
            if other != name:
                raise self.error(f"the format is '{name}'", *here, other, remedy=f"leave `{other}` out")
        form = FORMATS[name]
        if rule.charset != "utf-8" and not form.text:
            raise self.error(f"'{name}' is no text", *here, "charset", remedy="leave `charset` out")
        options = getattr(rule, name) if form.options else None
        if options is None and rule.ignore and form.required:  # known, and not looked into
            name, form = "json", FORMATS["json"]

        def error(what: str, /, *path: str | int, remedy: str = "") -> ProfileError:
            return self.error(what, *here, name, *path, remedy=remedy)

        if form.required and options is None:
            raise self.error(f"'{name}' says nothing without options", *here, remedy=f"give `{name}`")
        setting = Setting(self._source.profile, self._source.version, File(self._file).parent, error, rule.charset)
        written = "" if options is None else msgspec.json.encode(options).decode()
        known = f"{name} {rule.charset} {written}"
        if known not in self._parses:  # rules of one format share its parse, and so the tree of a message
            self._parses[known] = form.compile(options, setting)
        return name, self._reshaped(self._parses[known], rule, here)

    def _reshaped(self, parse: Parse, rule: MessageRule, here: tuple[str | int, ...]) -> Parse:
        """Return the parse, followed by what the rule wants done to its tree."""
        inside = dict(self._inside(text, name, (*here, "unpack", text)) for text, name in rule.unpack.items())
        table, columns = None, None
        if rule.table is not None:
            part, key = rule.table, (*here, "table")
            if bool(part.rows) == bool(part.columns) or bool(part.rows) != bool(part.names):
                raise self.error("give `rows` and `names`, or `columns`", *key)
            names = self._place(part.names, *key, "names") if isinstance(part.names, str) else part.names
            if part.rows:
                table = (self._place(part.rows, *key, "rows").path, names)
            else:
                columns = self._place(part.columns, *key, "columns").path
        changes = changes_of(inside, table, columns)
        return Reshape(parse, changes) if changes else parse

    def _inside(self, text: str, name: str, here: tuple[str | int, ...]) -> tuple[Path, Parse]:
        """Return where text stands inside the payload, and the parse for it."""
        if name not in FORMATS or FORMATS[name].required:
            known = {word: form for word, form in FORMATS.items() if not form.required}
            raise self.error(f"unknown format '{name}'", *here, remedy=nearest(name, known))

        def error(what: str, /, *_path: str | int, remedy: str = "") -> ProfileError:
            return self.error(what, *here, remedy=remedy)

        setting = Setting(self._source.profile, self._source.version, File(self._file).parent, error)
        place = self._place(text, *here, "each")
        path = (*place.path, EVERY) if place.each_value else place.path
        return path, FORMATS[name].compile(None, setting)

    def _pattern(self, text: str, *path: str | int) -> topics.Pattern:
        try:
            return topics.parse(text)
        except ValueError as why:
            raise self.error(str(why), *path) from why

    def _place(self, text: str, *path: str | int) -> Place:
        try:
            place = paths.parse(text)
        except ValueError as why:
            raise self.error(str(why), *path, remedy='write keys with dots as ["a.b"]') from why
        if (place.each_value or EVERY in place.path) and path[-1] != "each":
            raise self.error("'*' has its place in `each` only", *path)
        return place

    def _optional(self, text: str, *path: str | int) -> Place | None:
        return self._place(text, *path) if text else None

    def _where(
        self, where: Mapping[str, Scalar | tuple[Scalar, ...] | None], here: tuple[str | int, ...], *, typed: bool
    ) -> Iterator[tuple[Place, frozenset[Token]]]:
        for text, wanted in where.items():
            values = wanted if isinstance(wanted, tuple) else (wanted,)
            tokens = {token(value) for value in values}
            if not typed and wanted is not None:  # all values are text there
                tokens |= {str(value).lower() if isinstance(value, bool) else str(value) for value in values}
            yield self._place(text, *here, "where", text), frozenset(tokens)

    def _wrap(self, rule: MessageRule, patterns: tuple[topics.Pattern, ...], here: tuple[str | int, ...]) -> str:
        if rule.wrap.startswith("{"):
            capture = rule.wrap.strip("{}")
            for pattern in patterns:
                if capture not in pattern.captures:
                    raise self.error(f"'{pattern.text}' does not capture {{{capture}}}", *here, "wrap")
        return rule.wrap

    def _device(self, rule: MessageRule, patterns: tuple[topics.Pattern, ...], here: tuple[str | int, ...]) -> Names:
        part = rule.device
        if part is not None and sum((bool(part.field), part.credential, bool(part.name))) != 1 and not part.case:
            raise self.error("give one of `field`, `name` and `credential`", *here, "device")
        elsewhere = part is not None and (part.field or part.credential or part.name)
        names = (
            Names()
            if part is None
            else Names(
                self._template(part.name, "name", patterns, here),
                self._template(part.gateway, "gateway", patterns, here),
            )
        )
        if part is not None and part.any_profile and not (part.field and part.gateway):
            raise self.error("needs `field` and `gateway`", *here, "device", "any_profile")
        for at, pattern in enumerate(patterns):
            named = "gateway" in pattern.captures or bool(part and part.gateway)
            if part is not None and part.field and not named and not (self._carries and "device" in pattern.captures):
                remedy = "capture {gateway}: only a gateway may speak for the devices that are registered behind it"
                raise self.error("anyone could speak for any device", *here, "topics", at, remedy=remedy)
        for at, pattern in enumerate(patterns):
            if not elsewhere and "device" not in pattern.captures:
                raise self.error(
                    "the topic says nothing of the device",
                    *here,
                    "topics",
                    at,
                    remedy="capture {device}, or give `device`",
                )
        return names

    def _template(
        self, text: str, key: str, patterns: tuple[topics.Pattern, ...], here: tuple[str | int, ...]
    ) -> topics.Pattern | None:
        if not text:
            return None
        template = self._pattern(text, *here, "device", key)
        for pattern in patterns:
            for capture in sorted(template.captures - pattern.captures):
                raise self.error(f"'{pattern.text}' does not capture {{{capture}}}", *here, "device", key)
        return template

    def _time(self, rule: MessageRule, here: tuple[str | int, ...]) -> tuple[tuple[Place, ...], times.Reader]:
        part = rule.time
        if part is None:
            return (), times.Reader(zone=self._source.zone)
        texts = ((part.field,) if part.field else ()) + part.fields
        if part.join and texts:
            raise self.error("give `join` or `field`", *here, "time", "join")
        texts = texts or part.join
        if not texts:
            raise self.error("no path", *here, "time", remedy="give `field`")
        formats = (part.format,) if isinstance(part.format, str) else part.format
        for form in formats:
            if form not in times.FORMATS and "%" not in form:
                remedy = nearest(form, times.FORMATS)
                raise self.error(f"unknown time format '{form}'", *here, "time", "format", remedy=remedy)
        zone = part.zone or self._source.zone
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as why:
            key = (*here, "time", "zone") if part.zone else ("zone",)
            raise self.error(f"unknown zone '{zone}'", *key, remedy="an IANA name, e.g. Asia/Shanghai") from why
        if part.stamp == "start" and part.period_s <= 0:
            raise self.error("needs `period_s`", *here, "time", "stamp")
        shift = round(part.period_s * 1e6) if part.stamp == "start" else 0
        missing = frozenset(part.missing) | frozenset(map(str, part.missing))  # "0" and 0 say the same here
        return tuple(self._place(text, *here, "time") for text in texts), times.Reader(formats, zone, shift, missing)

    def _identity(
        self, rule: MessageRule, here: tuple[str | int, ...], *, time: bool, sequence: bool, message_id: bool
    ) -> tuple[int, ...]:
        framed = rule.payload is not None and sequence
        there = {TIME: time, SEQUENCE: sequence, MESSAGE_ID: message_id, FRAME: framed}
        order = [FRAME] if framed else [kind for kind, present in there.items() if present]
        if rule.identity is None:
            return tuple(order)
        wanted = IDENTITIES.index(rule.identity)
        if wanted == FRAME and not framed:
            raise self.error("needs `payload` and `sequence`", *here, "identity")
        if wanted == NONE:
            return ()
        if not there[wanted]:
            word = IDENTITIES[wanted].value
            raise self.error(f"needs `{word}`, which this message does not describe", *here, "identity")
        return (wanted, *(kind for kind in order if kind != wanted))

    def _named(self, rule: MessageRule, here: tuple[str | int, ...]) -> Named | None:
        if rule.named is None:
            return None
        values = tuple(self._place(text, *here, "named", "value") for text in rule.named.value)
        if not values:
            raise self.error("no path", *here, "named", "value")
        unit = self._optional(rule.named.unit, *here, "named", "unit")
        skip = frozenset(name for name in rule.named.skip if not name.endswith("/*"))
        below = tuple(name[:-1] for name in rule.named.skip if name.endswith("/*"))
        return Named(self._place(rule.named.name, *here, "named", "name"), values, unit, skip, below)

    def _flags(self, rule: MessageRule, here: tuple[str | int, ...]) -> Flags | None:
        part = rule.quality
        own = [at for at, entry in enumerate(rule.readings) if entry.flag]
        if part is None:
            if own:
                raise self.error("a flag means nothing yet", *here, "readings", own[0], "flag", remedy="give `quality`")
            return None
        if not part.field and not own and not part.doubt:
            raise self.error("no path to a flag", *here, "quality", remedy="give `field`, or `flag` in a reading")
        key: tuple[str, ...] = ()
        try:
            if isinstance(part.words, str):
                key = ("words",)
                words: Any = flags.TABLES[part.words]
            else:
                key = ("words",)
                words = flags.meant(part.words)
            key = ("absent",)
            absent = flags.verdict(part.absent)
            key = ("other",)
            other = flags.verdict(part.other)
        except KeyError as why:
            choices = tuple(flags.TABLES) if isinstance(part.words, str) and key == ("words",) else flags.WORDS
            word = str(why.args[0])
            raise self.error(f"unknown word '{word}'", *here, "quality", *key, remedy=nearest(word, choices)) from why
        return Flags(
            self._optional(part.field, *here, "quality", "field"),
            words,
            absent,
            other,
            self._optional(part.doubt, *here, "quality", "doubt"),
        )

    # ── readings ─────────────────────────────────────────────────────────────────────────────────────

    def _readings(
        self, rule: MessageRule, here: tuple[str | int, ...], identity: tuple[int, ...], *, typed: bool
    ) -> tuple[tuple[Reading, ...], dict[str, Reading]]:
        kinds = sum((bool(rule.readings), bool(rule.standard), rule.ignore))
        if kinds != 1 and (kinds or rule.payload is None):
            raise self.error(
                "a message has one of `readings`, `standard` and `ignore`", *here, remedy="remove or add one"
            )
        found: list[Reading] = []
        for at, entry in enumerate(rule.readings):
            key = (*here, "readings", at)
            if rule.named and (entry.where or entry.each):
                wrong = "where" if entry.where else "each"
                raise self.error("elements that name themselves are told apart by their names", *key, wrong)
            for name, channel in self._names(entry, key):
                where = {path: _in_channel(wanted, channel) for path, wanted in entry.where.items()}
                numbers = entry.text_numbers or not typed
                one = msgspec.structs.replace(entry, channel=channel, where=where, text_numbers=numbers)
                shown = _shown(name, where, entry.each)
                if any(shown == other.name for other in found):
                    raise self.error(f"'{shown}' occurs twice", *key, remedy="keep one of them")
                reading = self._reading(one, name, identity, key, plain=bool(rule.named))
                conditions = tuple(self._where(where, key, typed=typed))
                found.append(msgspec.structs.replace(reading, where=conditions))
        if rule.standard:
            rules = (ReadingRule(field=row.name, property=row.name) for row in PROPERTIES.rows)
            standard = [self._reading(entry, entry.field, identity, here, plain=True) for entry in rules]
            return (), {reading.name: reading for reading in standard}
        if rule.named:
            return (), {reading.name: reading for reading in found}
        return tuple(found), {}

    def _names(self, entry: ReadingRule, here: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
        """Yield (path, channel) of each value that an entry stands for."""
        names = ((entry.field,) if entry.field else ()) + entry.fields
        if not names:
            raise self.error("no path", *here, remedy="give `field` or `fields`")
        if entry.channel and entry.channels:
            raise self.error("give `channel` or `channels`", *here, "channel")
        somewhere = any("{channel}" in str(wanted) for wanted in entry.where.values())
        for name in names:
            if ("{channel}" in name or somewhere) != bool(entry.channels):
                raise self.error(f"'{name}': {{channel}} and `channels` belong together", *here, "field")
            if not entry.channels:
                yield name, entry.channel
            for word in entry.channels:
                channel = entry.channels[word] if isinstance(entry.channels, dict) else word
                yield name.replace("{channel}", word), channel

    def _reading(
        self, entry: ReadingRule, name: str, identity: tuple[int, ...], here: tuple[str | int, ...], *, plain: bool
    ) -> Reading:
        try:
            row = PROPERTIES.by_name(entry.property)
        except ConfigError as why:
            raise self.error(why.what, *here, "property", remedy=why.remedy) from why
        own = (entry.scale, entry.offset)
        if not entry.scale or not all(math.isfinite(number) for number in own):
            raise self.error("must be finite and not 0", *here, "scale")
        factor = compose(own, self._unit(entry, row, here))
        specs = [-1, -1, -1, -1, -1]
        for kind in (*identity, NONE):
            specs[kind] = self._spec(entry, row, _shown(name, entry.where, entry.each), factor, kind, here)
        if entry.unit_from is not None:
            self._unit_words(entry.unit_from, row, here)
        return Reading(
            name=_shown(name, entry.where, entry.each),
            each=self._optional(entry.each, *here, "each"),
            place=Place(()) if plain else self._place(name, *here, "field"),
            property=row.name,
            kind=row.kind,
            specs=(specs[0], specs[1], specs[2], specs[3], specs[4]),
            factor=factor,
            own=own,
            words=self._words(entry, row, here),
            missing=frozenset(token(value) for value in entry.missing),
            text_numbers=entry.text_numbers,
            unit_place=self._place(entry.unit_from.field, *here, "unit_from", "field") if entry.unit_from else None,
            unit_words=entry.unit_from.words if entry.unit_from else {},
            flag_place=self._optional(entry.flag, *here, "flag"),
        )

    def _unit(self, entry: ReadingRule, row: Property, here: tuple[str | int, ...]) -> tuple[float, float]:
        if row.kind is not Kind.NUMBER:
            if entry.unit or entry.unit_from or (entry.scale, entry.offset) != (1.0, 0.0):
                raise self.error(f"'{row.name}' is a {row.kind}: no unit, no scale", *here, "property")
            return 1.0, 0.0
        if not entry.unit:
            return 1.0, 0.0
        try:
            return conversion(entry.unit, row.unit)
        except UnitError as why:
            raise self.error(f"{row.name}: {why.what}", *here, "unit", remedy=why.remedy) from why

    def _unit_words(self, part: UnitFrom, row: Property, here: tuple[str | int, ...]) -> None:
        for unit in part.words.values():
            try:
                conversion(unit, row.unit)
            except UnitError as why:
                raise self.error(f"{row.name}: {why.what}", *here, "unit_from", "words", remedy=why.remedy) from why

    def _words(self, entry: ReadingRule, row: Property, here: tuple[str | int, ...]) -> dict[Token, float | str] | None:
        if entry.words is None:
            return None
        words = entry.words
        if isinstance(words, str) and words not in TABLES:
            raise self.error(f"no table of words is called '{words}'", *here, "words", remedy=nearest(words, TABLES))
        found: dict[Token, float | str] = {}
        for sent, meant in TABLES[words].words if isinstance(words, str) else words.items():
            found[token(sent)] = self._word(meant, row, (*here, "words", str(sent)))
        return found

    def _word(self, meant: Scalar, row: Property, here: tuple[str | int, ...]) -> float | str:
        if row.kind is Kind.STRING:
            if not isinstance(meant, str):
                raise self.error(f"'{row.name}' is a text; write the word in quotes", *here)
            return meant
        if row.kind is Kind.BOOLEAN:
            if not isinstance(meant, bool):
                raise self.error(f"'{row.name}' is a boolean", *here, remedy="write true or false")
            return float(meant)
        if isinstance(meant, (bool, str)):
            raise self.error(f"'{row.name}' is a number", *here)
        return float(meant)

    def _spec(  # noqa: PLR0917
        self,
        entry: ReadingRule,
        row: Property,
        name: str,
        factor: tuple[float, float],
        kind: int,
        here: tuple[str | int, ...],
    ) -> int:
        low, high = entry.range or (row.low, row.high)
        if not low < high:
            raise self.error("low must be below high", *here, "range")
        if low < row.low or high > row.high:
            raise self.error(f"wider than {row.name} can be ({row.low:g} to {row.high:g} {row.unit})", *here, "range")
        if entry.deadband is not None and entry.deadband < 0:
            raise self.error("must not be negative", *here, "deadband")
        spec = Spec(
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
            identity=IDENTITIES[kind],
            channel=entry.channel,
            modulus=self._modulus(entry, row, factor[0], here),
            datum=self._datum(entry, row, here),
        )
        known = self._known.get(spec)
        if known is None:
            known = self._known[spec] = len(self._specs)
            self._specs.append(spec)
        return known

    def _modulus(self, entry: ReadingRule, row: Property, scale: float, here: tuple[str | int, ...]) -> float:
        """Return where a counter starts again, in the property's unit; 0: it does not."""
        if entry.counter is None:
            return 0.0
        if not row.counter:
            remedy = "choose a property that is a counter"
            raise self.error(f"'{row.name}' is no counter", *here, "counter", remedy=remedy)
        modulus = entry.counter.modulus * scale
        if entry.counter.modulus < 0 or not math.isfinite(modulus) or scale < 0 or entry.offset:
            raise self.error("must be 0 or more; a counter has a positive scale and no offset", *here, "counter")
        if modulus and entry.unit_from is not None:
            remedy = "give `unit` in place of `unit_from`"
            raise self.error("a roll-over needs a unit that does not change", *here, "counter", remedy=remedy)
        return modulus

    def _datum(self, entry: ReadingRule, row: Property, here: tuple[str | int, ...]) -> Datum:
        if entry.datum is not Datum.WGS84 and row.name not in {"longitude", "latitude"}:
            remedy = "longitude and latitude have one"
            raise self.error(f"'{row.name}' has no datum", *here, "datum", remedy=remedy)
        return entry.datum


def _shown(name: str, where: Mapping[str, Scalar | tuple[Scalar, ...]], each: str = "") -> str:
    """Return how a reading is named to people: its path from its list, and what its element must meet."""
    if each:
        name = each if name == "." else f"{each}.{name}"
    words = {path: wanted if isinstance(wanted, tuple) else (wanted,) for path, wanted in where.items()}
    return name + "".join(f"[{path}={'|'.join(map(str, wanted))}]" for path, wanted in words.items())


def _in_channel(wanted: Scalar | tuple[Scalar, ...], channel: str) -> Scalar | tuple[Scalar, ...]:
    if isinstance(wanted, tuple):
        return tuple(one.replace("{channel}", channel) if isinstance(one, str) else one for one in wanted)
    return wanted.replace("{channel}", channel) if isinstance(wanted, str) else wanted


def _lists(readings: Sequence[Reading]) -> tuple[tuple[Place, Groups], ...]:
    """Return the readings of lists other than the rule's, by list."""
    lists: dict[Place, list[Reading]] = {}
    for reading in readings:
        if reading.each is not None:
            lists.setdefault(reading.each, []).append(reading)
    return tuple((each, _groups(found)) for each, found in lists.items())


def _groups(readings: Sequence[Reading]) -> Groups:
    groups: dict[str, list[Reading]] = {}
    for reading in readings:
        path = reading.place.path
        first = (
            path[0]
            if path and isinstance(path[0], str) and not reading.place.from_root and not reading.place.up
            else ""
        )
        groups.setdefault(first, []).append(reading)
    return tuple((first, tuple(group)) for first, group in groups.items())


def nearest(word: str, words: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Return a remedy that names the nearest right word, or all."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(words)}"
