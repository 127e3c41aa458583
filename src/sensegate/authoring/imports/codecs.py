"""A maker's codec script with the examples beside it, made into a profile that runs the script.

What the script gives is known from its examples: their members, types and values. What each member is, the names say
(`learn_guess`); what The Things Network calls normalised has units that its schema fixes. What an example expects of us
is what the maker says that the script gives, brought to the property's unit: nothing of ours has decoded it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sensegate.authoring.examples import micros
from sensegate.authoring.imports.made import Imported, Row, expected, head
from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.learn.learn import Found, Learned, learn_group
from sensegate.authoring.learn.shapes import Group, Sample, Understood
from sensegate.authoring.learn.write import rule
from sensegate.authoring.yaml_text import comment, flow, quoted, text
from sensegate.decode.paths import ABSENT, parse, walk
from sensegate.quantities.properties import PROPERTIES

PORT_UNUSED: Final = 222
EXAMPLES_MAX: Final = 40
_TTN: Final = "what The Things Network's schema of normalised payloads says"
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
    """One example of the maker."""

    label: str
    port: int | None
    payload: bytes
    data: Any = None
    """What the script must give; None where it must refuse."""
    normalised: Any = None
    errors: tuple[str, ...] = ()
    received: str = ""


class Codec(NamedTuple):
    """A script with what is known of it."""

    file: str
    """Name of the script beside the profile."""
    text: str
    examples: Sequence[CodecExample]


class Model(NamedTuple):
    """A device model."""

    profile: str
    vendor: str
    name: str
    description: str
    source: str


def profile_of(model: Model, codec: Codec) -> Imported:
    """Return the profile of a model with a codec script."""
    good = [one for one in codec.examples if one.data is not None and not one.errors]
    if not good:
        why = "the codec has no examples: record messages and learn from them (sensegate profile new --from)"
        return Imported(model.profile, "", {}, [Row("(all)", "left", why=why)], why)
    both = all(one.normalised is not None for one in good)
    learned = _learned(codec, good, both=both)
    rows = list(_rows(learned))
    title = f"{model.vendor} {model.name}".strip()
    lines = head(
        model.profile,
        title,
        f"{title}: {model.description}" if model.description else title,
        model.source,
        f"{title}, made of the maker's codec script and its examples. Lines that say `guess` are ours: compare them",
        "with the maker's document.",
        domain=_domain(learned),
    )
    lines += ["messages:", *rule(learned, "json")]
    examples, dropped = _examples(codec, learned, both=both)
    rows += [Row(f"example '{label}'", "left", why=why) for label, why in dropped]
    return Imported(model.profile, "\n".join([*lines, *examples]) + "\n", {codec.file: codec.text}, rows)


def _learned(codec: Codec, good: Sequence[CodecExample], *, both: bool) -> Learned:
    messages = [
        Understood(Sample("", one.payload, carried=True, port=one.port), "script", _tree(one, both=both))
        for one in good
    ]
    ports = tuple(sorted({one.port for one in good if one.port is not None}))
    script: dict[str, Any] = {"file": codec.file}
    if both:
        script["take"] = "both"
    group = Group("", "script", messages, True, True, None, "", ports, (f"script: {flow(script)}",))
    found = learn_group(group)._replace(time=None, time_field="", sequence="", device="")
    return _normalised(found) if both else found


def _tree(one: CodecExample, *, both: bool) -> Any:
    return {"data": one.data, "normalized": one.normalised} if both else one.data


def _normalised(learned: Learned) -> Learned:
    """Return what was learned with normalised members taken for what the schema says, raw ones of the same left out."""
    known: list[Found] = []
    others: list[Found] = []
    left = list(learned.left)
    for one in [*learned.found, *[Found(each.field, each.facts, Guess("")) for each in learned.left]]:
        steps = one.facts.steps
        if steps[:1] == ("normalized",):
            guess = NORMALISED.get(steps[1:])
            if guess is not None:
                index = next((step for step in one.facts.path if isinstance(step, int)), 0)
                known.append(one._replace(guess=guess, channel=str(index) if index else ""))
                left = [each for each in left if each.field != one.field]
        elif one.guess.property:
            others.append(one)
    sure = {one.guess.property for one in known}
    rest = [one for one in others if one.guess.property not in sure]
    left += [_left(one, "its normalised value is taken") for one in others if one.guess.property in sure]
    return learned._replace(found=[*known, *rest], left=left)


def _left(one: Found, why: str) -> Any:
    from sensegate.authoring.learn.learn import Left  # noqa: PLC0415 - beside its only use

    return Left(one.field, one.facts, why)


def _rows(learned: Learned) -> Iterator[Row]:
    for one in learned.found:
        yield Row(
            one.field, "mapped" if one.guess.sure else "guessed", one.guess.property, one.guess.unit, one.guess.reason
        )
    for other in learned.left:
        yield Row(other.field, "left", why=other.why)


def _domain(learned: Learned) -> str:
    domains = [PROPERTIES.by_name(one.guess.property).domain for one in learned.found]
    return next((domain for domain in domains if domain != "device"), "device" if domains else "")


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────


def _examples(codec: Codec, learned: Learned, *, both: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the lines of the examples, and which of the maker's have none, and why."""
    lines = ["examples: # bytes and values of the maker's own examples"]
    dropped: list[tuple[str, str]] = []
    refused = False
    for one in codec.examples[:EXAMPLES_MAX]:
        if one.errors:
            refused = True
            unused = bool(learned.group.ports) and one.port not in learned.group.ports
            lines += [*_start(one), f"    refuse: {'schema' if unused else 'script_refused'}"]
        elif one.data is not None:
            rows, ignored = _expected(learned, _tree(one, both=both))
            if rows:
                lines += [*_start(one), *([f"    ignored: {ignored}"] if ignored else []), "    expect:"]
                lines += [f"      - {flow(row)}" for row in rows]
            else:
                dropped.append((one.label, "nothing in it is a reading"))
    ports = learned.group.ports
    if not refused and ports and PORT_UNUSED not in ports:
        lines += [
            f"  - label: a port that the device does not use {comment('ours: the maker shows no refusal')}",
            f"    port: {PORT_UNUSED}",
            '    hex: "00"',
            "    refuse: schema",
        ]
    return lines, dropped


def _start(one: CodecExample) -> list[str]:
    lines = [f"  - label: {text(one.label or 'an example of the maker')}"]
    if one.port is not None:
        lines.append(f"    port: {one.port}")
    lines.append(f"    hex: {quoted(one.payload.hex())}" if one.payload else '    payload: ""')
    if one.received:
        lines.append(f"    received: {quoted(one.received)}")
    return lines


def _expected(learned: Learned, tree: Any) -> tuple[list[dict[str, Any]], int]:
    """Return the readings that a message must give, by the maker's own values, and how many mean: not measured."""
    rows: list[dict[str, Any]] = []
    ignored = 0
    elements = learned.elements
    items = [tree] if elements is None else walk(tree, elements.path)
    many = [one.guess.property for one in learned.found]
    for item in items if isinstance(items, list) else []:
        for one in learned.found:
            if elements is not None and elements.name:
                if item.get(elements.name) != one.field:
                    continue
                value: Any = next((item[key] for key in elements.values if item.get(key) is not None), None)
            else:
                place = parse(one.field)
                value = walk(tree if place.from_root else item, place.path)
            if value is ABSENT:
                continue
            meant = expected(one.guess, value)
            if meant is None:
                ignored += 1
                continue
            row = {"property": one.guess.property, "value": meant}
            if many.count(one.guess.property) > 1:
                row["field"] = one.field
            rows.append(row)
    return rows, ignored


def received_of(value: Any) -> str:
    """Return a time of reception as examples write it, empty where it is none."""
    try:
        micros(str(value))
    except ValueError:
        return ""
    return str(value)
