"""Import a maker's codec script and its examples as a profile that runs the script.

What the script returns is known from its examples: their members, types and values. The names suggest what each member
is (`learn.guess`); the normalised payload of The Things Network has units that its schema fixes. The examples expect
the maker's own values, converted to the property's unit; no code of this project decoded them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sensegate.authoring.examples import decode_example, iso_micros, parse_micros
from sensegate.authoring.imports.profile_text import (
    FieldMapping,
    ImportedProfile,
    expected_value,
    head_lines,
    without_profile,
)
from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.learn.learn import LearnedShape, RecognisedField, UnrecognisedField, learn_group
from sensegate.authoring.learn.shapes import ParsedSample, Sample, SampleGroup
from sensegate.authoring.learn.write import rule
from sensegate.authoring.yaml_text import comment_text, flow_text, plain_text, quoted
from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import Example
from sensegate.decode.grammar import parse as parse_profile
from sensegate.decode.paths import ABSENT, parse, walk
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.times import TimeReader
from sensegate.errors import ProfileError
from sensegate.model import Spec
from sensegate.quantities.properties import PROPERTIES

PORT_UNUSED: Final = 222
EXAMPLES_MAX: Final = 40
RECEIVED: Final = "2026-01-01T00:00:00Z"
"""Arrival of an example that states none."""
_TTN: Final = "stated by The Things Network's schema of normalised payloads"
NORMALISED: Final[dict[tuple[str, ...], Guess]] = {
    ("air", "temperature"): Guess("air_temperature", "Cel", reason=_TTN),
    ("air", "relativeHumidity"): Guess("relative_humidity", "%", reason=_TTN),
    ("air", "pressure"): Guess("air_pressure", "hPa", reason=_TTN),
    ("air", "co2"): Guess("co2", "[ppm]", reason=_TTN),
    ("air", "lightIntensity"): Guess("illuminance", "lx", reason=_TTN),
    ("soil", "moisture"): Guess("soil_moisture", "%", reason=_TTN),
    ("soil", "temperature"): Guess("soil_temperature", "Cel", reason=_TTN),
    ("soil", "ec"): Guess("soil_conductivity", "dS/m", reason=_TTN),
    ("soil", "pH"): Guess("soil_ph", "[pH]", reason=_TTN),
    ("soil", "n"): Guess("soil_nitrogen", "mg/kg", reason=_TTN),
    ("soil", "p"): Guess("soil_phosphorus", "mg/kg", reason=_TTN),
    ("soil", "k"): Guess("soil_potassium", "mg/kg", reason=_TTN),
    ("wind", "speed"): Guess("wind_speed", "m/s", reason=_TTN),
    ("wind", "direction"): Guess("wind_direction", "deg", reason=_TTN),
    ("battery",): Guess("battery_voltage", "V", reason=f"{_TTN}, in later versions", sure=False),
}


class CodecExample(NamedTuple):
    """An example given by the maker."""

    label: str
    port: int | None
    payload: bytes
    data: Any = None
    """Result that the script must return; None if it must refuse."""
    normalised: Any = None
    errors: tuple[str, ...] = ()
    received: str = ""


class Codec(NamedTuple):
    """A codec script and its examples."""

    file: str
    """File name of the script, beside the profile."""
    text: str
    examples: Sequence[CodecExample]


class DeviceModel(NamedTuple):
    """A device model, as the imported source describes it."""

    profile: str
    vendor: str
    name: str
    description: str
    source: str


def profile_of(model: DeviceModel, codec: Codec) -> ImportedProfile:
    """Return the profile of a model with a codec script."""
    good = [example for example in codec.examples if isinstance(example.data, (dict, list)) and not example.errors]
    if not good:
        reason = "the codec has no examples: record messages and learn from them (sensegate profile new --from)"
        return without_profile(model.profile, reason)
    both = all(example.normalised is not None for example in good)
    learned = _learn(codec, good, both=both)
    rows = list(_rows(learned))
    title = f"{model.vendor} {model.name}".strip()
    lines = head_lines(
        model.profile,
        title,
        f"{title}: {model.description}" if model.description else title,
        model.source,
        f"{title}, made of the maker's codec script and its examples. Lines that say `guess` are inferred: compare",
        "them with the maker's document.",
        domain=_domain(learned),
    )
    files = {codec.file: codec.text}
    examples, dropped, refused = _examples(codec, learned, both=both)
    body = [*lines, "messages:", *rule(learned, "json"), *examples]
    if not refused and not learned.group.ports:
        refusal = _seen_refusal("\n".join(body), files, good)
        if refusal:
            body += refusal
        else:  # the script accepts anything: only the port can refuse a frame
            learned = learned._replace(group=learned.group._replace(ports=_ports(good)))
            note = "    # The script does not look at the port: add those on which the device may send."
            head, *rest = rule(learned, "json")
            body = [*lines, "messages:", head, note, *rest, *examples]
    if not refused and learned.group.ports and PORT_UNUSED not in learned.group.ports:
        body += [
            f"  - label: a port that the device does not use {comment_text('added here: the maker shows no refusal')}",
            f"    port: {PORT_UNUSED}",
            '    hex: "00"',
            "    refuse: schema",
        ]
    rows += [FieldMapping(f"example '{label}'", "skipped", reason=reason) for label, reason in dropped]
    return ImportedProfile(model.profile, "\n".join(body) + "\n", files, rows)


_COMMENTS: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PORT_NAMES: Final = re.compile(r"(?i)\b(?:f_?port|port)\b")
_PARAMETERS: Final = re.compile(r"function\s*\w*\s*\([^)]*\)|\([^()]*\)\s*=>|(?i:@param[^\n]*)")


def inspects_port(script: str) -> bool:
    """Return whether a script looks at the port of a frame, as far as its text tells."""
    return bool(_PORT_NAMES.search(_PARAMETERS.sub("", _COMMENTS.sub("", script))))


def _ports(examples: Sequence[CodecExample]) -> tuple[int, ...]:
    return tuple(sorted({example.port for example in examples if example.port is not None}))


def _seen_refusal(text: str, files: Mapping[str, str], good: Sequence[CodecExample]) -> list[str]:
    """Return an example of a frame that the script refuses, found by running it; no lines if it takes all of them."""
    shown = next((example for example in good if example.payload), None)
    if shown is None:
        return []
    frames = (
        (shown.payload[: len(shown.payload) * 2 // 3], "cut short"),
        (shown.payload[:1], "the first byte alone"),
        (b"\xff" * 5, "bytes that are no frame of the device"),
        (b"\x00", "a zero"),
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_text(content, encoding="utf-8")
        try:
            source, lines = parse_profile(text, file="profile")
            specs: list[Spec] = []
            profile = Compiler(source, lines, str(Path(folder) / "profile.yaml"), specs).compile()
        except ProfileError:
            return []
        for payload, label in frames:
            example = Example(label=label, port=shown.port, hex=payload.hex())
            fields = decode_example(ProfileSet([profile], specs), profile, example).fields
            if fields.quarantined and not len(fields):
                added = CodecExample(f"{label}, as the script refuses it", shown.port, payload)
                return [*_example_head(added), f"    refuse: {fields.quarantined[0].reason.value}"]
    return []


def _learn(codec: Codec, good: Sequence[CodecExample], *, both: bool) -> LearnedShape:
    messages = [
        ParsedSample(
            Sample("", example.payload, carried=True, port=example.port), "script", _output_tree(example, both=both)
        )
        for example in good
    ]
    ports = _ports(good) if inspects_port(codec.text) else ()
    script: dict[str, Any] = {"file": codec.file}
    if both:
        script["take"] = "both"
    group = SampleGroup("", "script", messages, True, True, None, "", ports, (f"script: {flow_text(script)}",))
    learned = learn_group(group)._replace(time=None, time_field="", sequence="", device="")
    return _apply_normalised(learned) if both else learned


def _output_tree(example: CodecExample, *, both: bool) -> Any:
    return {"data": example.data, "normalized": example.normalised} if both else example.data


def _apply_normalised(learned: LearnedShape) -> LearnedShape:
    """Return the layout with normalised members as the schema states them, without raw members of the same property."""
    normalised: list[RecognisedField] = []
    raw: list[RecognisedField] = []
    unrecognised = list(learned.unrecognised)
    for field in [
        *learned.recognised,
        *[RecognisedField(field.field, field.facts, Guess("")) for field in learned.unrecognised],
    ]:
        steps = field.facts.steps
        if steps[:1] == ("normalized",):
            guess = NORMALISED.get(steps[1:])
            if guess is not None:
                index = next((step for step in field.facts.path if isinstance(step, int)), 0)
                normalised.append(field._replace(guess=guess, channel=str(index) if index else ""))
                unrecognised = [other for other in unrecognised if other.field != field.field]
        elif field.guess.property:
            raw.append(field)
    covered = {field.guess.property for field in normalised}
    remaining = [field for field in raw if field.guess.property not in covered]
    unrecognised += [
        UnrecognisedField(field.field, field.facts, "its normalised value is used")
        for field in raw
        if field.guess.property in covered
    ]
    return learned._replace(recognised=[*normalised, *remaining], unrecognised=unrecognised)


def _rows(learned: LearnedShape) -> Iterator[FieldMapping]:
    for field in learned.recognised:
        yield FieldMapping(
            field.key,
            "mapped" if field.guess.sure else "guessed",
            field.guess.property,
            field.guess.unit,
            field.guess.reason,
        )
    for other in learned.unrecognised:
        if other.proposal is not None:
            yield FieldMapping(other.field, "proposed", other.proposal.name, other.proposal.unit, other.reason)
        else:
            yield FieldMapping(other.field, "skipped", reason=other.reason)


def _stated(learned: LearnedShape) -> list[RecognisedField]:
    """Return the members that become readings: not those written as comments."""
    return [field for field in learned.recognised if not field.guess.fragment]


def _domain(learned: LearnedShape) -> str:
    domains = [PROPERTIES.by_name(field.guess.property).domain for field in _stated(learned)]
    return next((domain for domain in domains if domain != "device"), "device" if domains else "")


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────


def _examples(codec: Codec, learned: LearnedShape, *, both: bool) -> tuple[list[str], list[tuple[str, str]], bool]:
    """Return the lines of examples, (label, reason) of those that became none, and whether one shows a refusal."""
    lines = ["examples: # bytes and values of the maker's own examples"]
    dropped: list[tuple[str, str]] = []
    refused = False
    for example in codec.examples[:EXAMPLES_MAX]:
        if not example.payload:
            dropped.append((example.label, "it has no bytes, and a frame without bytes carries nothing"))
        elif example.errors:
            refused = True
            unused = bool(learned.group.ports) and example.port not in learned.group.ports
            lines += [*_example_head(example), f"    refuse: {'schema' if unused else 'script_refused'}"]
        elif isinstance(example.data, (dict, list)):
            rows, ignored = _expected(learned, example, both=both)
            if rows:
                lines += [*_example_head(example), *([f"    ignored: {ignored}"] if ignored else []), "    expect:"]
                lines += [f"      - {flow_text(row)}" for row in rows]
            else:
                dropped.append((example.label, "no member of it is a reading"))
    return lines, dropped, refused


def _example_head(example: CodecExample) -> list[str]:
    lines = [f"  - label: {plain_text(example.label or 'example of the maker')}"]
    if example.port is not None:
        lines.append(f"    port: {example.port}")
    lines.append(f"    hex: {quoted(example.payload.hex())}")
    if example.received:
        lines.append(f"    received: {quoted(example.received)}")
    return lines


def _expected(learned: LearnedShape, example: CodecExample, *, both: bool) -> tuple[list[dict[str, Any]], int]:
    """Return the readings that a message must give by the maker's own values, and how many are "not measured"."""
    tree = _output_tree(example, both=both)
    rows: list[dict[str, Any]] = []
    ignored = 0
    stated = _stated(learned)
    properties = [field.guess.property for field in stated]
    for field, value, time in _values(learned, stated, tree, example):
        converted = expected_value(field.guess, value)
        if converted is None:
            ignored += 1
            continue
        row = {"property": field.guess.property, "value": converted}
        if time:
            row["time"] = time
        if properties.count(field.guess.property) > 1:
            row["field"] = f"{field.each}.{field.field}" if field.each else field.field
        rows.append(row)
    return rows, ignored


def _values(
    learned: LearnedShape, stated: Sequence[RecognisedField], tree: Any, example: CodecExample
) -> Iterator[tuple[RecognisedField, Any, str]]:
    """Yield (member, its value, its own time or an empty string) for what a message holds."""
    elements = learned.elements
    items = [tree] if elements is None else walk(tree, elements.path)
    for item in items if isinstance(items, list) else []:
        for field in stated:
            if field.each:
                continue
            if elements is not None and elements.name:
                if item.get(elements.name) != field.field:
                    continue
                value: Any = next((item[key] for key in elements.values if item.get(key) is not None), None)
            else:
                place = parse(field.field)
                value = walk(tree if place.from_root else item, place.path)
            if value is not ABSENT:
                yield field, value, ""
    received = parse_micros(example.received or RECEIVED)
    for record in learned.records:
        reader = TimeReader((record.time.format,), record.time.zone or "Asia/Shanghai")
        items = walk(tree, record.path)
        for item in items if isinstance(items, list) else []:
            time, _ = reader.parse(walk(item, record.time.path), received)
            for field in stated:
                value = walk(item, parse(field.field).path) if field.each == record.each else ABSENT
                if value is not ABSENT:
                    yield field, value, iso_micros(time)


def received_of(value: Any) -> str:
    """Return a time of reception in the form of examples; empty if the value is not a time."""
    try:
        parse_micros(str(value))
    except ValueError:
        return ""
    return str(value)
