"""Run the examples of a profile: each message must become exactly the readings that the example states."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from sensegate.authoring.faults import profile_faults
from sensegate.authoring.stubs import CARRIER, DEVICE, carrier_payload, compile_stub
from sensegate.config import IngestConfig
from sensegate.decode import tasking
from sensegate.decode.chain import open_frames
from sensegate.decode.compiler import Compiler
from sensegate.decode.decode import Decoder
from sensegate.decode.frame import PayloadFrame
from sensegate.decode.grammar import Earlier, Example, Expected, key_text, line_of
from sensegate.decode.keys import ProfileKeys
from sensegate.decode.profile import AppliesTo, CompiledProfile
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.decode.routes import looked_up_name
from sensegate.decode.times import BAD
from sensegate.errors import ProfileError, Rejected
from sensegate.model import BOOL, OBSERVATION, Datum, Device, Fields, Message, MqttMetadata, QuarantineReason, Spec
from sensegate.quantities.coordinates import unshift_coordinates
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.quantities.quality import Quality, quality_word

Value = bool | float | str


class NamedDevices:
    """A fixed registry of devices of one profile, for examples and tests."""

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
        self._index = {record.id: index for index, record in enumerate(self._records)}
        self.enabled: BOOL = np.array([record.id not in disabled for record in self._records], np.bool_)

    def find(self, name: str) -> int:
        return self._index.get(name, -1)

    def record(self, index: int) -> Device:
        return self._records[index]


class ExampleReading(msgspec.Struct, frozen=True):
    """A reading in the form in which an example states it."""

    device: str
    field: str
    property: str
    value: Value
    """Value in the property's unit."""
    time: int
    quality: str = "good"
    """Quality that the device's own flag gives it."""
    channel: str = ""

    def __str__(self) -> str:
        suffix = "" if self.quality == "good" else f", {self.quality}"
        suffix += f", channel {self.channel}" if self.channel else ""
        return f"{self.device} {self.property} ({self.field}) = {self.value!r} at {_time_text(self.time)}{suffix}"


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
    """Return the message of an example; a bare frame is wrapped in the stub carrier's envelope."""
    payload, received = payload_of(example), parse_micros(example.received)
    if not example.topic:
        return Message(f"carrier/{example.devices[0]}", carrier_payload(payload, example.port), received, 1)
    principal = example.gateway if example.topic.startswith(("http/", "tcp/")) else ""
    if example.topic.startswith("tcp/"):
        principal = principal or example.devices[0]
    stated = example.metadata
    metadata = None
    if stated is not None:
        user = tuple(stated.user.items())
        metadata = MqttMetadata(stated.client, stated.credential, stated.content_type, user)
    return Message(example.topic, payload, received, 1, principal=principal, metadata=metadata)


def parse_micros(text: str) -> int:
    """Return µs UTC of an ISO 8601 time with a zone. Raises `ValueError` if it is not one."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("the time has no zone; add Z or an offset such as +08:00")
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def iso_micros(time: int) -> str:
    """Return µs UTC as ISO 8601 with Z."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return at.isoformat().replace("+00:00", "Z")


def _time_text(time: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).isoformat()
    except OverflowError:
        return f"{time} µs since 1970, beyond the years 1 to 9999"


def _number(fields: Fields, specs: Sequence[Spec], row: int) -> float:
    spec = specs[int(fields.spec[row])]
    scale, offset = fields.override_scale.get(row, (spec.scale, spec.offset))
    return float(fields.value[row]) * scale + offset


def readings_of(fields: Fields, specs: Sequence[Spec], devices: Sequence[str] | NamedDevices) -> list[ExampleReading]:
    """Return the rows of `Fields` as readings that an example can state, values in canonical units."""
    readings: list[ExampleReading] = []
    numbers = np.array([_number(fields, specs, row) for row in range(len(fields))], np.float64)
    unshift_coordinates(
        fields, numbers, specs, [index for index, spec in enumerate(specs) if spec.datum is not Datum.WGS84]
    )
    for row, number in enumerate(numbers.tolist()):
        spec = specs[int(fields.spec[row])]
        kind = PROPERTIES.by_name(spec.property).kind
        value: Value = fields.text[row] if row in fields.text else bool(number) if kind is ValueKind.BOOLEAN else number
        index = int(fields.device[row])
        name = devices.record(index).id if isinstance(devices, NamedDevices) else devices[index]
        quality = quality_word(fields.source_quality.get(row, Quality.GOOD))
        readings.append(
            ExampleReading(name, spec.name, spec.property, value, int(fields.time[row]), quality, spec.channel)
        )
    return readings


class LoadedProfile(NamedTuple):
    """A profile that compiles."""

    profile: CompiledProfile
    alone: ProfileSet
    """The set that holds it alone."""


def load_profile(path: Path | str) -> LoadedProfile:
    """Compile a profile. Raises `ProfileError`: its first fault."""
    specs: list[Spec] = []
    profile = compile_file(Path(path), specs)
    return LoadedProfile(profile, ProfileSet([profile], specs))


def check_profile(path: Path | str) -> list[ProfileError]:
    """Return the problems of a profile: all faults of its text, or the first difference of each example that fails."""
    try:
        loaded = load_profile(path)
    except ProfileError as error:
        return profile_faults(Path(path)) or [error]
    return check_examples(loaded)


def check_examples(loaded: LoadedProfile) -> list[ProfileError]:
    """Return the first difference of each example that fails, and which examples are missing."""
    profile = loaded.profile
    problems = [*_check_coverage(profile)]
    for index, example in enumerate(profile.source.examples):
        try:
            difference = run_example(loaded.alone, profile, example)
        except ValueError as error:  # base64, time
            difference = str(error)
        if difference:
            problems.append(_problem(profile, f"example '{example.label}': {difference}", "examples", index))
    problems += tasking.run_examples(profile, ProfileKeys(profile.lines, profile.file))
    return problems


def failing_example(profile: CompiledProfile) -> ProfileError | None:
    """Return the first example of a profile that fails; None: all pass. Raises `ProfileError` as `compile_file`."""
    specs: list[Spec] = []
    # Compiled once more for specs of its own, whose numbers begin at 0; its text is not parsed again.
    compiled = Compiler(profile.source, profile.lines, profile.file, specs).compile()
    profiles = ProfileSet([compiled], specs)
    for index, example in enumerate(compiled.source.examples):
        try:
            difference = run_example(profiles, compiled, example)
        except ValueError as error:
            difference = str(error)
        if difference:
            return _problem(profile, f"example '{example.label}': {difference}", "examples", index)
    return None


def _problem(profile: CompiledProfile, text: str, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(text, file=profile.file, line=line_of(profile.lines, path), key=key_text(path), remedy=remedy)


def _check_coverage(profile: CompiledProfile) -> list[ProfileError]:
    examples = profile.source.examples
    problems: list[ProfileError] = []
    if not any(example.expect or example.frame for example in examples):
        problems.append(
            _problem(profile, "no example has readings", "examples", remedy="add one from the maker's document")
        )
    if not any(example.refuse for example in examples):
        problems.append(_problem(profile, "no example shows a refusal", "examples", remedy="add one with `refuse`"))
    for index, example in enumerate(examples):
        if example.refuse and (example.expect or example.reject or example.frame):
            problems.append(_problem(profile, "a refused message cannot have readings", "examples", index))
    return problems


class ExampleRun(NamedTuple):
    """Result of decoding an example's message."""

    decoder: Decoder
    message: Message
    fields: Fields
    devices: NamedDevices


def decode_example(profiles: ProfileSet, profile: CompiledProfile, example: Example) -> ExampleRun:
    """Decode an example's message, whatever it expects. Raises `ValueError` (base64, hex, time)."""
    specs = list(profiles.specs)
    is_carrier = (
        example.frame is not None
        or example.carried
        or all(rule.applies_to is not AppliesTo.OWN for rule in profile.rules)
    )
    stub = compile_stub(DEVICE if is_carrier else CARRIER)
    device_profile = stub.id if is_carrier else profile.id
    devices = NamedDevices(example.devices, device_profile, gateway=example.gateway, gateway_profile=profile.id)
    decoder = Decoder(ProfileSet([profile, stub], specs), devices, IngestConfig())
    message = message_of(example)
    for earlier in example.before:
        decoder.decode([Message(earlier.topic, payload_of(earlier), message.received, 1)])
    return ExampleRun(decoder, message, decoder.decode([message]), devices)


def run_example(profiles: ProfileSet, profile: CompiledProfile, example: Example) -> str:
    """Return the first difference between what an example states and what was decoded; empty if there is none."""
    decoder, message, fields, devices = decode_example(profiles, profile, example)
    refusal = fields.quarantined[0] if fields.quarantined else None
    reason = refusal.reason if refusal else None
    if example.refuse:
        if reason == example.refuse:
            return ""
        return f"expected refusal {example.refuse.value}, saw {reason or 'readings'}{_device_remedy(reason, example)}"
    if refusal is not None:
        return f"refused: {refusal.reason.value}: {refusal.detail}{_device_remedy(reason, example)}"
    return _frame_difference(decoder, message, example) or _value_difference(fields, profiles, devices, example)


def _device_remedy(reason: QuarantineReason | None, example: Example) -> str:
    """Return how the device of an example's message gets known, where it is not."""
    if reason is not QuarantineReason.UNKNOWN_DEVICE:
        return ""
    names = ", ".join(example.devices)
    return (
        f"; the devices of this example are {names}: use such a name in topic and payload, or list others in `devices`"
    )


def _value_difference(fields: Fields, profiles: ProfileSet, devices: NamedDevices, example: Example) -> str:
    """Return the first difference between the values that an example states and those decoded."""
    rejected = {value.field: value.reason for value in fields.rejected}
    if rejected != example.reject:
        return f"expected rejections {_reasons_text(example.reject)}, saw {_reasons_text(rejected)}"
    if example.ignored is not None and fields.ignored != example.ignored:
        return f"expected {example.ignored} values that the profile marks as not measured, saw {fields.ignored}"
    readings = readings_of(fields, profiles.specs, devices)
    for expected in example.expect:
        match = next((reading for reading in readings if _matches(expected, reading, example)), None)
        if match is None:
            other = next((reading for reading in readings if _matches(expected, reading, example, timeless=True)), None)
            if other is not None:
                wanted = _time_text(parse_micros(expected.time or example.received))
                origin = "" if expected.time else ", the time of arrival"
                return (
                    f"{_expected_text(expected)} differs by its time alone:"
                    f" expected {wanted}{origin}, saw {_time_text(other.time)}"
                )
            near = [str(reading) for reading in readings if reading.property == expected.property]
            return f"no {_expected_text(expected)}; saw {', '.join(near) or 'no such property'}"
        readings.remove(match)
    return f"not expected: {readings[0]}" if readings else ""


def _expected_text(expected: Expected) -> str:
    """Return an expected reading in the words of `ExampleReading`: what it states beside property and value."""
    field = f" ({expected.field})" if expected.field else ""
    parts = [f"{expected.device} " if expected.device else "", f"{expected.property}{field} = {expected.value!r}"]
    parts += ["" if expected.quality == "good" else f", {expected.quality}"]
    parts += ["" if expected.channel is None else f", channel {expected.channel or 'none'}"]
    return "".join(parts)


def _frame_difference(decoder: Decoder, message: Message, example: Example) -> str:
    """Return the first difference between the frame that an example states and the one in its envelope."""
    expected = example.frame
    if expected is None:
        return ""
    route = decoder.routes.build(message.topic, message.principal)
    envelope = PayloadFrame(message.payload, IngestConfig().nesting_max, message.topic, message.received)
    try:
        opened = list(open_frames(route.rules, envelope))
    except Rejected as error:
        return f"no frame: {error.reason}: {error.detail}"
    if len(opened) != 1:
        return f"expected one frame, saw {len(opened)}"
    rule, frame = opened[0]
    name = looked_up_name(frame.name, rule) or example.devices[0]
    counter = frame.reception.counter if expected.counter is not None else None
    received = frame.reception.time
    comparisons = (
        ("device", example.devices[0], name),
        ("bytes", bytes.fromhex(expected.hex).hex(), frame.data.hex()),
        ("port", expected.port, frame.port),
        ("frame counter", expected.counter, counter),
        ("time", expected.time or example.received, _time_text(received) if received != BAD else "no time"),
    )
    differences = (comparison for comparison in comparisons[:-1] if comparison[1] != comparison[2])
    time_differs = comparisons[-1] if received != parse_micros(expected.time or example.received) else None
    part, expected_text, actual = next(differences, time_differs or ("", "", ""))
    return f"expected {part} {expected_text} of the frame, saw {actual}" if part else ""


def _reasons_text(reasons: object) -> str:
    return str(msgspec.to_builtins(reasons)) if reasons else "none"


def _matches(expected: Expected, reading: ExampleReading, example: Example, *, timeless: bool = False) -> bool:
    """Return whether a reading is the expected one; `timeless`: whatever its time."""
    time = parse_micros(expected.time or example.received)
    if (
        expected.property != reading.property
        or (time != reading.time and not timeless)
        or (expected.device or example.devices[0]) != reading.device
    ):
        return False
    if expected.quality != reading.quality or (expected.field and expected.field != reading.field):
        return False
    if expected.channel is not None and expected.channel != reading.channel:
        return False
    if expected.property == OBSERVATION:
        return same_members(expected.value, reading.value)
    return same_value(expected.value, reading.value)


def same_members(expected: Value, actual: Value) -> bool:
    """Return whether an observation has the JSON members that an example states; further members are ignored."""
    if not isinstance(expected, str) or not isinstance(actual, str):
        return False
    members, actual_members = msgspec.json.decode(expected), msgspec.json.decode(actual)
    return isinstance(members, dict) and all(actual_members.get(name) == members[name] for name in members)


def same_value(expected: Value, actual: Value) -> bool:
    """Return whether two values are equal except for the last digits of a conversion."""
    if isinstance(expected, (bool, str)) or isinstance(actual, (bool, str)):
        return type(expected) is type(actual) and expected == actual
    try:
        return math.isclose(expected, actual, rel_tol=1e-9, abs_tol=1e-9)
    except OverflowError:  # an integer beyond the range of floats
        return expected == actual
