"""Compile a profile file: its messages become rules, its readings become specs; the first wrong key is the error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path as File
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from sensegate.decode import downlink, flags, tasking, times, topics, video_rules
from sensegate.decode.alarm_rules import check_alarms
from sensegate.decode.device_names import ANY, DeviceNameTemplates
from sensegate.decode.envelope import READERS, EnvelopePayload
from sensegate.decode.flags import QualityFlags
from sensegate.decode.formats import FORMATS, video
from sensegate.decode.formats.script import encoder_of
from sensegate.decode.frame import FormatContext, Parse
from sensegate.decode.grammar import Lines, MessageRule, ProfileFile
from sensegate.decode.keys import ProfileKeys, nearest
from sensegate.decode.paths import EVERY, MemberPath, Path
from sensegate.decode.profile import (
    FRAME,
    IDENTITIES,
    MESSAGE_ID,
    NONE,
    PORT_MAX,
    SEQUENCE,
    TIME,
    AppliesTo,
    CompiledProfile,
    CompiledReading,
    CompiledRule,
    Groups,
    NamedPlaces,
)
from sensegate.decode.reading_rules import ReadingCompiler
from sensegate.decode.reshape import Reshape, add_metadata, changes_of
from sensegate.errors import ProfileError
from sensegate.model import Spec

_BY_ENVELOPE = (TIME, SEQUENCE, MESSAGE_ID, FRAME)
"""Identities that a frame's readings may have while its envelope is unknown."""


class Compiler:
    """Compile one `ProfileFile` into a `CompiledProfile`; specs are appended to the profile set's list."""

    def __init__(self, source: ProfileFile, lines: Lines, file: str, specs: list[Spec]) -> None:
        self._source = source
        self._lines = lines
        self._keys = ProfileKeys(lines, file)
        self._readings = ReadingCompiler(source, self._keys, specs)
        self._parses: dict[str, Parse] = {}

    def compile(self) -> CompiledProfile:
        """Return the profile.

        Raises:
            ProfileError: with file, line and key of the first problem.
        """
        source = self._source
        vendor, _, model = source.profile.partition("/")
        if not vendor or not model or not all(c.isalnum() or c in "-_." for c in vendor + model):
            raise self._keys.error("must be vendor/model", "profile", remedy="letters, digits, '-', '_' and '.'")
        if not source.messages:
            raise self._keys.error("no message is described", "messages", remedy="add one with `topics` and `readings`")
        rules = tuple(
            variant
            for index, rule in enumerate(source.messages)
            for variant in self._rule_variants(self._rule(rule, index))
        )
        if any(rule.video for rule in rules):
            for rule in rules:
                if not rule.video and not rule.ignore:
                    problem = "a profile of cameras redacts messages before decoding; all its rules must decode video"
                    remedy = "give `format: video`, or `ignore: true`"
                    raise self._keys.error(problem, "messages", rule.number, "format", remedy=remedy)
        available = {(spec.property, spec.channel) for spec in self._readings.own}
        encoder = encoder_of(rule.parse for rule in rules)
        tasking.check_tasks(source.tasks, self._keys, available, encoder)
        if source.downlink is not None:
            downlink.check_downlink(source.downlink, self._keys)
        check_alarms(source.alarms, self._keys, {name for name, _ in available})
        return CompiledProfile(
            source.profile,
            source.version,
            self._keys.file,
            source,
            self._lines,
            rules,
            self._subscriptions(rules),
            self._readings.specs,
        )

    def _subscriptions(self, rules: tuple[CompiledRule, ...]) -> tuple[topics.TopicPattern, ...]:
        known = {"device", *ANY}.union(
            *(name.captures for rule in rules for name in rule.names[:2] if name is not None)
        )
        source = self._source
        texts: list[tuple[tuple[str | int, ...], str]] = [
            (("hears", index), text) for index, text in enumerate(source.hears)
        ]
        task_topics = [
            (("tasks", index, "topic"), task.topic) for index, task in enumerate(source.tasks) if task.frame is None
        ]
        texts += [(here, topic) for here, topic in task_topics if topic != tasking.DEFAULT_TOPIC]
        patterns = tuple(self._keys.pattern(text, *here) for here, text in texts)
        for (here, _), pattern in zip(texts, patterns, strict=True):
            for capture in sorted(pattern.captures - known):
                remedy = (
                    "a device may subscribe only to what its own name fills: {device}, or captures of a name's template"
                )
                raise self._keys.error(f"no name fills {{{capture}}}", *here, remedy=remedy)
        return patterns

    # ── rules ────────────────────────────────────────────────────────────────────────────────────────

    def _rule_variants(self, rule: CompiledRule) -> Iterator[CompiledRule]:
        """Yield a rule once for each kind of device it applies to: named by topic or payload, carried or not."""
        variants = [rule]
        by_topic = tuple(pattern for pattern in rule.patterns if "device" in pattern.captures)
        if rule.device is not None and self._carries and by_topic:
            others = tuple(pattern for pattern in rule.patterns if pattern not in by_topic)
            variants = [
                msgspec.structs.replace(rule, patterns=by_topic, device=None),
                msgspec.structs.replace(rule, patterns=others),
            ]
        for variant in map(video_rules.with_video_times, variants):
            if rule.payload is not None:
                yield msgspec.structs.replace(
                    variant,
                    chains=True,
                    applies_to=AppliesTo.CARRIED,
                    standard=None,
                    named=None,
                    readings=(),
                    by_name={},
                    groups=(),
                    lists=(),
                )
            if rule.payload is None or rule.readings or rule.by_name:
                both = rule.beside or (rule.ignore and self._carries)
                yield msgspec.structs.replace(variant, applies_to=AppliesTo.BOTH if both else AppliesTo.OWN)

    @property
    def _carries(self) -> bool:
        return any(rule.payload for rule in self._source.messages)

    def _rule(self, rule: MessageRule, index: int) -> CompiledRule:
        here = ("messages", index)
        patterns = tuple(self._keys.pattern(text, *here, "topics", i) for i, text in enumerate(rule.topics))
        if not patterns and rule.frames is None:
            remedy = "e.g. vendor/{device}/up, or `frames` for what a network server delivers"
            raise self._keys.error("no topic", *here, "topics", remedy=remedy)
        form, parse = self._format(rule, here)
        if form == video.NAME and not rule.ignore:
            rule = self._video(rule, here)
        time, reader = self._time(rule, here)
        sequence = self._keys.optional(rule.sequence, *here, "sequence")
        message_id = self._keys.optional(rule.message_id, *here, "message_id")
        payload = self._payload(rule, here)
        of_time = bool(time) and form != video.NAME
        identity = self._identity(rule, here, time=of_time, sequence=bool(sequence), message_id=bool(message_id))
        names = self._device(rule, patterns, here)
        each = self._keys.optional(rule.each, *here, "each")
        typed = FORMATS[form].typed
        kinds = identity if rule.frames is None else _BY_ENVELOPE
        readings, by_name = self._readings.compile(rule, here, kinds, typed=typed)
        return CompiledRule(
            profile=self._source.profile,
            version=self._source.version,
            number=index,
            line=self._keys.line(here),
            patterns=patterns,
            format=form,
            parse=parse,
            remembers=FORMATS[form].remembers,
            as_sent=rule.charset == "utf-8" and not rule.unpack and rule.table is None and not rule.metadata,
            metadata=bool(rule.metadata),
            ignore=rule.ignore,
            where=tuple(self._keys.where(rule.where, here, typed=typed)),
            root=self._keys.place(rule.root, *here, "root").path if rule.root else (),
            wrap=self._wrap(rule, patterns, here),
            each=each,
            device=self._keys.place(rule.device.field, *here, "device") if rule.device and rule.device.field else None,
            device_case=rule.device.case if rule.device else "",
            device_decode=rule.device.decode if rule.device else "",
            names=names,
            any_profile=bool(rule.device and rule.device.any_profile),
            by_credential=bool(rule.device and rule.device.credential),
            time=time,
            time_joined=bool(rule.time and rule.time.join),
            reader=reader,
            identity=identity,
            sequence=sequence,
            message_id=message_id,
            path=tuple(self._keys.place(text, *here, "path", i) for i, text in enumerate(rule.path)),
            standard=self._keys.place(rule.standard, *here, "standard").path if rule.standard else None,
            named=self._named(rule, here),
            payload=payload,
            chains=False,
            beside=rule.beside,
            frames=self._frames(rule, here),
            applies_to=AppliesTo.OWN,
            readings=readings,
            flags=self._quality_flags(rule, here),
            by_name=by_name,
            groups=_groups([reading for reading in readings if reading.each is None]),
            lists=_lists(readings),
        )

    def _video(self, rule: MessageRule, here: tuple[str | int, ...]) -> MessageRule:
        """Return the rule for video metadata, expanded into a rule of the general kind."""
        if key := video_rules.unused_key(rule):
            raise self._keys.error("has no meaning with this format", *here, key, remedy=f"remove `{key}`")
        return video_rules.expand(rule)

    def _payload(self, rule: MessageRule, here: tuple[str | int, ...]) -> EnvelopePayload | None:
        if rule.beside and not self._carries:
            raise self._keys.error(
                "there is no frame beside which it could stand", *here, "beside", remedy="give `payload`"
            )
        if rule.payload is None:
            return None
        if rule.frames is not None or rule.ignore or rule.beside:
            other = "frames" if rule.frames is not None else "ignore" if rule.ignore else "beside"
            raise self._keys.error(
                f"cannot be combined with `{other}`", *here, "payload", remedy="make two messages of it"
            )
        place = self._keys.place(rule.payload.field, *here, "payload", "field")
        port = self._keys.optional(rule.payload.port, *here, "payload", "port")
        return EnvelopePayload(place, port, READERS[rule.payload.encoding])

    def _frames(self, rule: MessageRule, here: tuple[str | int, ...]) -> frozenset[int] | None:
        if rule.frames is None:
            return None
        for index, port in enumerate(rule.frames.ports):
            if not 0 <= port <= PORT_MAX:
                raise self._keys.error(f"{port} is not a port", *here, "frames", "ports", index, remedy="0 to 65535")
        return frozenset(rule.frames.ports)

    def _format(self, rule: MessageRule, here: tuple[str | int, ...]) -> tuple[str, Parse]:
        """Return the name of a rule's format (options imply it), and its compiled parse."""
        given = [name for name, form in FORMATS.items() if form.options and getattr(rule, name) is not None]
        name = rule.format or (given[0] if given else self._source.format)
        if name not in FORMATS:
            key = (*here, "format") if rule.format else ("format",)
            raise self._keys.error(f"unknown format '{name}'", *key, remedy=nearest(name, FORMATS))
        for other in given:
            if other != name:
                raise self._keys.error(f"the format is '{name}'", *here, other, remedy=f"remove `{other}`")
        form = FORMATS[name]
        if rule.charset != "utf-8" and not form.text:
            raise self._keys.error(f"'{name}' is not a text format", *here, "charset", remedy="remove `charset`")
        options = getattr(rule, name) if form.options else None
        if options is None and rule.ignore and form.required:  # known, and not parsed
            name, form = "json", FORMATS["json"]

        def error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
            return self._keys.error(problem, *here, name, *path, remedy=remedy)

        if form.required and options is None:
            raise self._keys.error(f"'{name}' needs options", *here, remedy=f"give `{name}`")
        setting = FormatContext(
            self._source.profile, self._source.version, File(self._keys.file).parent, error, rule.charset
        )
        encoded = "" if options is None else msgspec.json.encode(options).decode()
        cache_key = f"{name} {rule.charset} {encoded}"
        if cache_key not in self._parses:  # rules of one format share its parse, and so the tree of a message
            self._parses[cache_key] = form.compile(options, setting)
        return name, self._with_reshaping(self._parses[cache_key], rule, here)

    def _with_reshaping(self, parse: Parse, rule: MessageRule, here: tuple[str | int, ...]) -> Parse:
        """Return the parse, followed by the changes that the rule makes to its tree."""
        unpacked = dict(self._unpacked(text, name, (*here, "unpack", text)) for text, name in rule.unpack.items())
        table, columns = None, None
        if rule.table is not None:
            part, key = rule.table, (*here, "table")
            if bool(part.rows) == bool(part.columns) or bool(part.rows) != bool(part.names):
                raise self._keys.error("give `rows` and `names`, or `columns`", *key)
            names = self._keys.place(part.names, *key, "names") if isinstance(part.names, str) else part.names
            if part.rows:
                table = (self._keys.place(part.rows, *key, "rows").path, names)
            else:
                columns = self._keys.place(part.columns, *key, "columns").path
        changes = changes_of(unpacked, table, columns)
        if rule.metadata:
            if rule.frames is not None:
                remedy = "remove `metadata`: a network server's envelope has none for the frame"
                raise self._keys.error("has no meaning for frames", *here, "metadata", remedy=remedy)
            changes = (*changes, add_metadata(rule.metadata))
        return Reshape(parse, changes) if changes else parse

    def _unpacked(self, text: str, name: str, here: tuple[str | int, ...]) -> tuple[Path, Parse]:
        """Return the path of text inside the payload, and the parse for it."""
        if name not in FORMATS or FORMATS[name].required:
            known = {word: form for word, form in FORMATS.items() if not form.required}
            raise self._keys.error(f"unknown format '{name}'", *here, remedy=nearest(name, known))

        def error(problem: str, /, *_path: str | int, remedy: str = "") -> ProfileError:
            return self._keys.error(problem, *here, remedy=remedy)

        setting = FormatContext(self._source.profile, self._source.version, File(self._keys.file).parent, error)
        place = self._keys.place(text, *here, "each")
        path = (*place.path, EVERY) if place.each_value else place.path
        return path, FORMATS[name].compile(None, setting)

    def _wrap(self, rule: MessageRule, patterns: tuple[topics.TopicPattern, ...], here: tuple[str | int, ...]) -> str:
        if rule.wrap.startswith("{"):
            capture = rule.wrap.strip("{}")
            for pattern in patterns:
                if capture not in pattern.captures:
                    raise self._keys.error(f"'{pattern.text}' does not capture {{{capture}}}", *here, "wrap")
        return rule.wrap

    def _device(
        self, rule: MessageRule, patterns: tuple[topics.TopicPattern, ...], here: tuple[str | int, ...]
    ) -> DeviceNameTemplates:
        part = rule.device
        if part is not None and sum((bool(part.field), part.credential, bool(part.name))) != 1 and not part.case:
            raise self._keys.error("give one of `field`, `name` and `credential`", *here, "device")
        elsewhere = part is not None and (part.field or part.credential or part.name)
        names = (
            DeviceNameTemplates()
            if part is None
            else DeviceNameTemplates(
                self._template(part.name, "name", patterns, here),
                self._template(part.gateway, "gateway", patterns, here),
            )
        )
        if part is not None and part.any_profile and not (part.field and part.gateway):
            raise self._keys.error("needs `field` and `gateway`", *here, "device", "any_profile")
        for index, pattern in enumerate(patterns):
            named = "gateway" in pattern.captures or bool(part and part.gateway)
            if part is not None and part.field and not named and not (self._carries and "device" in pattern.captures):
                remedy = "capture {gateway}: only a gateway may publish for the devices that are registered behind it"
                raise self._keys.error("any device could publish for any other", *here, "topics", index, remedy=remedy)
        for index, pattern in enumerate(patterns):
            if not elsewhere and "device" not in pattern.captures:
                raise self._keys.error(
                    "the topic does not name the device",
                    *here,
                    "topics",
                    index,
                    remedy="capture {device}, or give `device`",
                )
        return names

    def _template(
        self, text: str, key: str, patterns: tuple[topics.TopicPattern, ...], here: tuple[str | int, ...]
    ) -> topics.TopicPattern | None:
        if not text:
            return None
        template = self._keys.pattern(text, *here, "device", key)
        for pattern in patterns:
            for capture in sorted(template.captures - pattern.captures):
                raise self._keys.error(f"'{pattern.text}' does not capture {{{capture}}}", *here, "device", key)
        return template

    def _time(self, rule: MessageRule, here: tuple[str | int, ...]) -> tuple[tuple[MemberPath, ...], times.TimeReader]:
        part = rule.time
        if part is None:
            return (), times.TimeReader(zone=self._source.zone)
        texts = ((part.field,) if part.field else ()) + part.fields
        if part.join and texts:
            raise self._keys.error("give `join` or `field`", *here, "time", "join")
        texts = texts or part.join
        if not texts:
            raise self._keys.error("no path", *here, "time", remedy="give `field`")
        formats = (part.format,) if isinstance(part.format, str) else part.format
        for form in formats:
            if form not in times.FORMATS and "%" not in form:
                remedy = nearest(form, times.FORMATS)
                raise self._keys.error(f"unknown time format '{form}'", *here, "time", "format", remedy=remedy)
        zone = part.zone or self._source.zone
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            key = (*here, "time", "zone") if part.zone else ("zone",)
            raise self._keys.error(f"unknown zone '{zone}'", *key, remedy="an IANA name, e.g. Asia/Shanghai") from error
        if part.stamp == "start" and part.period_s <= 0:
            raise self._keys.error("needs `period_s`", *here, "time", "stamp")
        shift = round(part.period_s * 1e6) if part.stamp == "start" else 0
        missing = frozenset(part.missing) | frozenset(map(str, part.missing))  # "0" and 0 are the same here
        return tuple(self._keys.place(text, *here, "time") for text in texts), times.TimeReader(
            formats, zone, shift, missing, part.interval
        )

    def _identity(
        self, rule: MessageRule, here: tuple[str | int, ...], *, time: bool, sequence: bool, message_id: bool
    ) -> tuple[int, ...]:
        has_frame = rule.payload is not None and sequence
        available = {TIME: time, SEQUENCE: sequence, MESSAGE_ID: message_id, FRAME: has_frame}
        order = [FRAME] if has_frame else [kind for kind, present in available.items() if present]
        if rule.identity is None:
            return tuple(order)
        wanted = IDENTITIES.index(rule.identity)
        if wanted == FRAME and not has_frame:
            raise self._keys.error("needs `payload` and `sequence`", *here, "identity")
        if wanted == NONE:
            return ()
        if not available[wanted]:
            word = IDENTITIES[wanted].value
            raise self._keys.error(f"needs `{word}`, which this message does not have", *here, "identity")
        return (wanted, *(kind for kind in order if kind != wanted))

    def _named(self, rule: MessageRule, here: tuple[str | int, ...]) -> NamedPlaces | None:
        if rule.named is None:
            return None
        values = tuple(self._keys.place(text, *here, "named", "value") for text in rule.named.value)
        if not values:
            raise self._keys.error("no path", *here, "named", "value")
        is_senml = (rule.format or self._source.format) in {"senml", "senml_cbor"}
        unit_path = "ucum" if is_senml and rule.named.unit == "u" else rule.named.unit  # `B` is a byte there, no bel
        unit = self._keys.optional(unit_path, *here, "named", "unit")
        skip = frozenset(name for name in rule.named.skip if not name.endswith("/*"))
        below = tuple(name[:-1] for name in rule.named.skip if name.endswith("/*"))
        return NamedPlaces(self._keys.place(rule.named.name, *here, "named", "name"), values, unit, skip, below)

    def _quality_flags(self, rule: MessageRule, here: tuple[str | int, ...]) -> QualityFlags | None:
        part = rule.quality
        own = [index for index, entry in enumerate(rule.readings) if entry.flag]
        if part is None:
            if own:
                raise self._keys.error(
                    "the flag has no meaning", *here, "readings", own[0], "flag", remedy="give `quality`"
                )
            return None
        if not part.field and not own and not part.doubt:
            raise self._keys.error("no path to a flag", *here, "quality", remedy="give `field`, or `flag` in a reading")
        key: tuple[str, ...] = ()
        try:
            if isinstance(part.words, str):
                key = ("words",)
                words: Any = flags.TABLES[part.words]
            else:
                key = ("words",)
                words = flags.compile_words(part.words)
            key = ("absent",)
            absent = flags.verdict(part.absent)
            key = ("other",)
            other = flags.verdict(part.other)
        except KeyError as error:
            choices = tuple(flags.TABLES) if isinstance(part.words, str) and key == ("words",) else flags.WORDS
            word = str(error.args[0])
            raise self._keys.error(
                f"unknown word '{word}'", *here, "quality", *key, remedy=nearest(word, choices)
            ) from error
        return QualityFlags(
            self._keys.optional(part.field, *here, "quality", "field"),
            words,
            absent,
            other,
            self._keys.optional(part.doubt, *here, "quality", "doubt"),
        )


def _lists(readings: Sequence[CompiledReading]) -> tuple[tuple[MemberPath, Groups], ...]:
    """Return the readings of lists other than the rule's, by list."""
    lists: dict[MemberPath, list[CompiledReading]] = {}
    for reading in readings:
        if reading.each is not None:
            lists.setdefault(reading.each, []).append(reading)
    return tuple((each, _groups(members)) for each, members in lists.items())


def _groups(readings: Sequence[CompiledReading]) -> Groups:
    groups: dict[str, list[CompiledReading]] = {}
    for reading in readings:
        path = reading.place.path
        first = (
            path[0]
            if path and isinstance(path[0], str) and not reading.place.from_root and not reading.place.up
            else ""
        )
        groups.setdefault(first, []).append(reading)
    return tuple((first, tuple(group)) for first, group in groups.items())
