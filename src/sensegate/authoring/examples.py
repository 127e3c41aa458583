"""A profile's own examples, run: every message it shows must become exactly what it says."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from sensegate.authoring.stubs import CARRIER, DEVICE, carrier_payload, standin
from sensegate.config import IngestConfig
from sensegate.decode import tasking
from sensegate.decode.chain import frames
from sensegate.decode.decode import Decoder
from sensegate.decode.frame import Frame
from sensegate.decode.grammar import Earlier, Example, Expected, line_of
from sensegate.decode.keys import Keys
from sensegate.decode.profile import Profile, Whom
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.decode.routes import cased
from sensegate.decode.times import BAD
from sensegate.errors import ProfileError, Rejected
from sensegate.model import BOOL, OBSERVATION, Datum, Device, Fields, Message, Spec
from sensegate.quantities.coordinates import shift
from sensegate.quantities.properties import PROPERTIES, Kind
from sensegate.quantities.quality import Quality, quality_word

Value = bool | float | str


class NamedDevices:
    """A registry of some devices of one profile, for examples and tests."""

    def __init__(
        self,
        names: Sequence[str],
        profile: str,
        *,
        gateway: str = "",
        gateway_profile: str = "",
        disabled: Sequence[str] = (),
    ) -> None:
        self.version = 1
        self._records = [Device(id=name, division="440106", profile=profile, gateway=gateway) for name in names]
        if gateway:
            self._records.append(Device(id=gateway, division="440106", profile=gateway_profile or profile))
        self._index = {record.id: at for at, record in enumerate(self._records)}
        self.enabled: BOOL = np.array([record.id not in disabled for record in self._records], np.bool_)

    def find(self, name: str) -> int:
        return self._index.get(name, -1)

    def record(self, index: int) -> Device:
        return self._records[index]


class Seen(msgspec.Struct, frozen=True):
    """One reading as an example would state it."""

    device: str
    field: str
    property: str
    value: Value
    """In the property's unit."""
    time: int
    quality: str = "good"
    """What the device's own flag gives it."""
    channel: str = ""

    def __str__(self) -> str:
        marked = "" if self.quality == "good" else f", {self.quality}"
        marked += f", channel {self.channel}" if self.channel else ""
        return f"{self.device} {self.property} ({self.field}) = {self.value!r} at {_text_of(self.time)}{marked}"


def payload_of(example: Example | Earlier) -> bytes:
    """Return the bytes of an example's message."""
    if example.hex:
        return bytes.fromhex(example.hex)
    if example.payload_b64:
        return base64.b64decode(example.payload_b64, validate=True)
    if isinstance(example.payload, str):
        return example.payload.encode()
    return msgspec.json.encode(example.payload)


def message_of(example: Example) -> Message:
    """Return the message of an example; a frame of its own stands in the stand-in's envelope."""
    payload, received = payload_of(example), micros(example.received)
    if not example.topic:
        return Message(f"carrier/{example.devices[0]}", carrier_payload(payload, example.port), received, 1)
    principal = example.gateway if example.topic.startswith(("http/", "tcp/")) else ""
    if example.topic.startswith("tcp/"):
        principal = principal or example.devices[0]
    return Message(example.topic, payload, received, 1, principal=principal)


def micros(text: str) -> int:
    """Return µs UTC of an ISO 8601 time with a zone. Raises `ValueError` where it is none."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time needs its zone")
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _text_of(time: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).isoformat()
    except OverflowError:
        return f"{time} µs since 1970, beyond the years 1 to 9999"


def _number(fields: Fields, specs: Sequence[Spec], row: int) -> float:
    spec = specs[int(fields.spec[row])]
    scale, offset = fields.override_scale.get(row, (spec.scale, spec.offset))
    return float(fields.value[row]) * scale + offset


def readings_of(fields: Fields, specs: Sequence[Spec], devices: Sequence[str] | NamedDevices) -> list[Seen]:
    """Return the rows of `Fields` as people would state them, values in canonical units."""
    seen: list[Seen] = []
    numbers = np.array([_number(fields, specs, row) for row in range(len(fields))], np.float64)
    shift(fields, numbers, specs, [at for at, spec in enumerate(specs) if spec.datum is not Datum.WGS84])
    for row, number in enumerate(numbers.tolist()):
        spec = specs[int(fields.spec[row])]
        kind = PROPERTIES.by_name(spec.property).kind
        value: Value = fields.text[row] if row in fields.text else bool(number) if kind is Kind.BOOLEAN else number
        index = int(fields.device[row])
        name = devices.record(index).id if isinstance(devices, NamedDevices) else devices[index]
        quality = quality_word(fields.source_quality.get(row, Quality.GOOD))
        seen.append(Seen(name, spec.name, spec.property, value, int(fields.time[row]), quality, spec.channel))
    return seen


def check_profile(path: Path | str) -> list[ProfileError]:
    """Return what is wrong with a profile: its grammar, or the first difference of each example that fails."""
    specs: list[Spec] = []
    try:
        profile = compile_file(Path(path), specs)
    except ProfileError as why:
        return [why]
    profiles = ProfileSet([profile], specs)
    problems = [*_lint(profile)]
    for at, example in enumerate(profile.source.examples):
        try:
            difference = run_example(profiles, profile, example)
        except ValueError as why:  # base64, time
            difference = str(why)
        if difference:
            problems.append(_problem(profile, f"example '{example.label}': {difference}", "examples", at))
    problems += tasking.run_examples(profile, Keys(profile.lines, profile.file))
    return problems


def _problem(profile: Profile, what: str, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(what, file=profile.file, line=line_of(profile.lines, path), key=str(path[0]), remedy=remedy)


def _lint(profile: Profile) -> list[ProfileError]:
    examples = profile.source.examples
    found: list[ProfileError] = []
    if not any(example.expect or example.frame for example in examples):
        found.append(
            _problem(profile, "no example with readings", "examples", remedy="add one from the maker's document")
        )
    if not any(example.refuse for example in examples):
        found.append(_problem(profile, "no example of a refusal", "examples", remedy="add one with `refuse`"))
    for at, example in enumerate(examples):
        if example.refuse and (example.expect or example.reject or example.frame):
            found.append(_problem(profile, "a refused message has no readings", "examples", at))
    return found


class Ran(NamedTuple):
    """What came of an example's message."""

    decoder: Decoder
    message: Message
    fields: Fields
    devices: NamedDevices


def ran(profiles: ProfileSet, profile: Profile, example: Example) -> Ran:
    """Return what comes of an example's message, whatever it expects. Raises `ValueError` (base64, hex, time)."""
    specs = list(profiles.specs)
    opens = example.frame is not None or example.carried or all(rule.whom is not Whom.OWN for rule in profile.rules)
    other = standin(DEVICE if opens else CARRIER, specs)
    whose = other.id if opens else profile.id
    devices = NamedDevices(example.devices, whose, gateway=example.gateway, gateway_profile=profile.id)
    decoder = Decoder(ProfileSet([profile, other], specs), devices, IngestConfig())
    message = message_of(example)
    for earlier in example.before:
        decoder.decode([Message(earlier.topic, payload_of(earlier), message.received, 1)])
    return Ran(decoder, message, decoder.decode([message]), devices)


def run_example(profiles: ProfileSet, profile: Profile, example: Example) -> str:
    """Return the first difference between what an example says and what comes out; empty where there is none."""
    decoder, message, fields, devices = ran(profiles, profile, example)
    if example.refuse:
        reason = fields.quarantined[0].reason if fields.quarantined else None
        return (
            "" if reason == example.refuse else f"expected refusal {example.refuse.value}, saw {reason or 'readings'}"
        )
    if fields.quarantined:
        return f"refused: {fields.quarantined[0].reason.value}: {fields.quarantined[0].detail}"
    return _of_frame(decoder, message, example) or _of_values(fields, profiles, devices, example)


def _of_values(fields: Fields, profiles: ProfileSet, devices: NamedDevices, example: Example) -> str:
    """Return the first difference between the values that an example names and those that came out."""
    rejected = {value.field: value.reason for value in fields.rejected}
    if rejected != example.reject:
        return f"expected rejections {_words(example.reject)}, saw {_words(rejected)}"
    if example.ignored is not None and fields.ignored != example.ignored:
        return f"expected {example.ignored} values that mean: not measured, saw {fields.ignored}"
    seen = readings_of(fields, profiles.specs, devices)
    for expected in example.expect:
        found = next((one for one in seen if _same(expected, one, example)), None)
        if found is None:
            near = [str(one) for one in seen if one.property == expected.property]
            return f"no {expected.property} = {expected.value!r}; saw {', '.join(near) or 'none of it'}"
        seen.remove(found)
    return f"not expected: {seen[0]}" if seen else ""


def _of_frame(decoder: Decoder, message: Message, example: Example) -> str:
    """Return the first difference between the frame that an example names and the one in its envelope."""
    expected = example.frame
    if expected is None:
        return ""
    route = decoder.routes.make(message.topic, message.principal)
    whole = Frame(message.payload, IngestConfig().nesting_max, message.topic, message.received)
    try:
        found = list(frames(route.rules, whole))
    except Rejected as why:
        return f"no frame: {why.reason}: {why.detail}"
    if len(found) != 1:
        return f"expected one frame, saw {len(found)}"
    rule, frame = found[0]
    name = cased(frame.name, rule.device_case) or example.devices[0]
    counter = frame.reception.counter if expected.counter is not None else None
    heard = frame.reception.time
    sides = (
        ("device", example.devices[0], name),
        ("bytes", bytes.fromhex(expected.hex).hex(), frame.data.hex()),
        ("port", expected.port, frame.port),
        ("frame counter", expected.counter, counter),
        ("time", expected.time or example.received, _text_of(heard) if heard != BAD else "no time"),
    )
    wrong = (side for side in sides[:-1] if side[1] != side[2])
    late = sides[-1] if heard != micros(expected.time or example.received) else None
    what, wanted, seen = next(wrong, late or ("", "", ""))
    return f"expected {what} {wanted} of the frame, saw {seen}" if what else ""


def _words(reasons: object) -> str:
    return str(msgspec.to_builtins(reasons)) if reasons else "none"


def _same(expected: Expected, seen: Seen, example: Example) -> bool:
    time = micros(expected.time or example.received)
    if (
        expected.property != seen.property
        or time != seen.time
        or (expected.device or example.devices[0]) != seen.device
    ):
        return False
    if expected.quality != seen.quality or (expected.field and expected.field != seen.field):
        return False
    if expected.channel is not None and expected.channel != seen.channel:
        return False
    if expected.property == OBSERVATION:
        return same_members(expected.value, seen.value)
    return same_value(expected.value, seen.value)


def same_members(named: Value, seen: Value) -> bool:
    """Return whether an observation has the members that an example names as JSON; others are not looked at."""
    if not isinstance(named, str) or not isinstance(seen, str):
        return False
    wanted, found = msgspec.json.decode(named), msgspec.json.decode(seen)
    return isinstance(wanted, dict) and all(found.get(name) == wanted[name] for name in wanted)


def same_value(one: Value, other: Value) -> bool:
    """Return whether two values are the same but for the last digits of a conversion."""
    if isinstance(one, (bool, str)) or isinstance(other, (bool, str)):
        return type(one) is type(other) and one == other
    try:
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    except OverflowError:  # a whole number beyond all floats
        return one == other
