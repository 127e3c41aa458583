"""Explain how one message is decoded, stage by stage: which profile claims it and why, what is read, what is committed.

The registry is not consulted: every device that the topic or the payload names counts as registered with the profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from sensegate.authoring.stubs import CARRIER, DEVICE, carrier_payload, compile_stub
from sensegate.clock import Clock, SystemClock
from sensegate.decode.chain import OpenedFrame, open_frames
from sensegate.decode.decode import Decoder
from sensegate.decode.extract import Leaf, bind
from sensegate.decode.frame import PayloadFrame
from sensegate.decode.paths import render
from sensegate.decode.plan_cache import WrappedRule
from sensegate.decode.profile import AppliesTo, CompiledRule
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.routes import TopicRoute
from sensegate.decode.times import BAD
from sensegate.errors import ConfigError, Rejected
from sensegate.model import BOOL, Device, Fields, IdentityKind, Message
from sensegate.quantities.decimals import without_noise, without_single_noise
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.quantities.quality import TimeQuality, quality_word
from sensegate.wording import count, unknown_profile

NESTING_MAX = 32
PUSHED = ("http/", "tcp/")
"""Prefixes of topics that the listener sets, not the device."""


class ExplainedStage(TypedDict):
    """A stage of decoding, as lines of text."""

    stage: str
    lines: list[str]


class EveryDevice:
    """A registry in which every name exists, with one profile."""

    def __init__(self, profile: str) -> None:
        self.version = 1
        self._profile = profile
        self.names: list[str] = []

    @property
    def enabled(self) -> BOOL:
        return np.ones(max(len(self.names), 1), np.bool_)

    def find(self, name: str, /) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def record(self, index: int, /) -> Device:
        # the gateway is whichever device was named first
        return Device(self.names[index], division="44", profile=self._profile, gateway=self.names[0])


def explain(
    profiles: Iterable[Path | str] | ProfileSet,
    topic: str,
    payload: bytes,
    *,
    device: str = "",
    profile: str = "",
    port: int | None = None,
    clock: Clock | None = None,
) -> list[ExplainedStage]:
    """Return the stages of decoding a message.

    `device` is the one that the credential names, for topics that name none; `profile` is the device's own profile, for
    messages of a network server. Without a topic, the payload is a frame on `port`, as a network server delivers it.

    Raises:
        ProfileError: a profile cannot be loaded.
        ConfigError: no such profile.
    """
    profile_set = profiles if isinstance(profiles, ProfileSet) else ProfileSet.load(profiles)
    if profile and profile not in profile_set:
        raise ConfigError(f"no profile {profile}", key="profile", remedy=unknown_profile(profile, profile_set.ids))
    received = (clock or SystemClock()).now()
    if not topic:
        return _explain_frame(profile_set, profile, BareFrame(payload, port), received)
    if topic.startswith(PUSHED):
        return _explain_pushed(
            profile_set, profile, Message(topic, payload, received, 1, device or topic.rpartition("/")[2])
        )
    message = Message(topic, payload, received, 1)
    stages: list[ExplainedStage] = [_stage("message", _message(message))]
    candidates = list(dict.fromkeys(rule.profile for rule, _ in profile_set.match(topic)))
    if not candidates:
        remedy = "name this topic in a profile: `sensegate profile new --from FILE` drafts one from messages"
        lines = [f"no profile has a topic that matches '{topic}'", "quarantined: no_profile", remedy]
        stages.append(_stage("claim", lines))
        return stages
    stages.append(_stage("claim", list(_claims(profile_set, topic))))
    for name in candidates:
        if profile in {"", name} and not _is_carrier_only(profile_set, name):
            stages += _profile_stages(profile_set, name, message)
        if profile != name:
            stages += _chain_stages(profile_set, name, message, profile)
    return stages


def _explain_pushed(profiles: ProfileSet, name: str, message: Message) -> list[ExplainedStage]:
    """Return the stages of what a device sent over HTTP or on its own TCP connection."""
    stages = [_stage("message", _message(message))]
    sender = f"the sender logged in as '{message.principal}'"
    if not name:
        hint = "the profile of the registered device decodes what it sends; name it with `profile` to see how"
        return [*stages, _stage("claim", [sender, hint])]
    return [*stages, _stage("claim", [sender, f"{name} decodes it"]), *_profile_stages(profiles, name, message)]


def _is_carrier_only(profiles: ProfileSet, name: str) -> bool:
    profile = profiles.find(name)
    return profile is not None and all(rule.applies_to is not AppliesTo.OWN for rule in profile.rules)


class BareFrame(NamedTuple):
    """A frame without its envelope."""

    payload: bytes
    port: int | None


def _explain_frame(profiles: ProfileSet, name: str, frame: BareFrame, received: int) -> list[ExplainedStage]:
    specs = list(profiles.specs)
    profile = profiles.find(name)
    combined = ProfileSet([*([profile] if profile else []), compile_stub(CARRIER)], specs)
    message = Message("carrier/device", carrier_payload(frame.payload, frame.port), received, 1)
    lines = [f"frame on port {frame.port}", f"{len(frame.payload)} bytes, received {_time(received)}"]
    return [_stage("message", lines), *_chain_stages(combined, "standin/carrier", message, name)]


def _chain_stages(profiles: ProfileSet, carrier: str, message: Message, name: str) -> Iterator[ExplainedStage]:
    """Yield the content of a carrier's envelopes, and how the profile `name` (empty: not given) decodes it."""
    carrier_profile = profiles.find(carrier)
    if carrier_profile is None or not any(rule.chains for rule in carrier_profile.rules):
        return
    specs = list(profiles.specs)
    own = profiles.find(name) or compile_stub(DEVICE)
    devices = EveryDevice(own.id)
    combined = ProfileSet([carrier_profile, own], specs)
    decoder = Decoder(combined, devices)
    route = decoder.routes.build(message.topic, message.principal)
    try:
        inside = list(
            open_frames(route.rules, PayloadFrame(message.payload, NESTING_MAX, message.topic, message.received))
        )
    except Rejected as error:
        yield _stage(f"envelope of {carrier}", [f"quarantined: {error}"])
        return
    yield _stage(
        f"envelope of {carrier}", [line for item in inside for line in _frame_lines(*item)] or ["holds no frame"]
    )
    if not inside:
        return
    ports = [frame.port for _, frame in inside]
    if not name:
        able = [other for other in profiles.ids if (known := profiles.find(other)) and any(map(known.on_port, ports))]
        lines = [f"takes such frames: {other}" for other in able[:_CANDIDATES_MAX]]
        hint = "the profile of the registered device decodes them; name it with `profile` to see how"
        yield _stage("profile", [*lines, hint])
        return
    for _, frame in inside:
        rules = [(rule, "") for rule in own.on_port(frame.port)]
        inner = PayloadFrame(frame.data, NESTING_MAX, message.topic, message.received, frame.port)
        yield _stage(f"rules of {own.id}", list(_try_rules(rules, inner)) or [f"no rule for port {frame.port}"])
    yield from _outcome_stages(decoder.decode([message]), combined, devices)


_CANDIDATES_MAX = 20


def _frame_lines(rule: CompiledRule, frame: OpenedFrame) -> Iterator[str]:
    reception = frame.reception
    yield f"message {rule.number + 1} (line {rule.line}): device {frame.name or 'as the topic says'}, port {frame.port}"
    yield f"{len(frame.data)} bytes: {frame.data.hex()}"
    yield f"frame counter {reception.counter if reception.counter is not None else 'absent (0)'}"
    yield f"received {_time(reception.time) if reception.time != BAD else 'at a time that cannot be read'}"


def _stage(name: str, lines: Iterable[str]) -> ExplainedStage:
    return {"stage": name, "lines": list(lines)}


def _message(message: Message) -> Iterator[str]:
    yield f"topic {message.topic}"
    yield f"{len(message.payload)} bytes, received {_time(message.received)}"


def _claims(profiles: ProfileSet, topic: str) -> Iterator[str]:
    for rule, captured in profiles.match(topic):
        named = ", ".join(f"{{{key}}} = {value}" for key, value in captured.items()) or "nothing captured"
        profile = profiles.find(rule.profile)
        label = profile.source.messages[rule.number].label if profile else ""
        yield f"{rule.profile}@{rule.version} message {rule.number + 1}{f' ({label})' if label else ''}: {named}"
    yield "the profile of the registered device decides which of them decodes the message"


def _profile_stages(profiles: ProfileSet, name: str, message: Message) -> Iterator[ExplainedStage]:
    devices = EveryDevice(name)
    decoder = Decoder(_single(profiles, name), devices)
    route = decoder.routes.build(message.topic, message.principal)
    yield _stage(f"rules of {name}", list(_rules(route, message)))
    yield from _outcome_stages(decoder.decode([message]), profiles, devices)


def _outcome_stages(fields: Fields, profiles: ProfileSet, devices: EveryDevice) -> Iterator[ExplainedStage]:
    if fields.quarantined:
        refused = fields.quarantined[0]
        yield _stage("fields", [f"quarantined: {refused.reason.value}: {refused.detail}"])
        return
    yield _stage("fields", list(_fields(fields, profiles)) or ["no values: the profile ignores such messages"])
    yield _stage("readings", list(_readings(fields, profiles, devices)))
    yield _stage("identity", list(_identity(fields, profiles)))
    yield _stage("commit", [_commit(fields)])


def _single(profiles: ProfileSet, name: str) -> ProfileSet:
    profile = profiles.find(name)
    return ProfileSet([profile] if profile else [], profiles.specs)


def _rules(route: TopicRoute, message: Message) -> Iterator[str]:
    if route.refusal is not None:
        yield f"refused: {route.refusal}"
    frame = PayloadFrame(message.payload, NESTING_MAX, message.topic, message.received)
    yield from _try_rules([holder for holder in route.rules if not holder[0].chains], frame)


def _try_rules(rules: Iterable[WrappedRule], frame: PayloadFrame) -> Iterator[str]:
    for rule, wrap in rules:
        label = f"message {rule.number + 1} (line {rule.line}, format {rule.format})"
        if rule.ignore and not rule.where and not rule.root:
            yield f"{label}: ignored by the profile; tried last"
            continue
        deciding: list[Leaf] = []
        try:
            tree = rule.parse(frame)
            bound = bind(rule, wrap, tree, deciding)
        except Rejected as error:
            yield f"{label}: {error}"
            continue
        values = ", ".join(f"{render(leaf.pointer)} = {leaf.raw!r}" for leaf in deciding[:8])
        if bound is None:
            yield f"{label}: conditions not met{f' ({values})' if values else ''}"
        else:
            cells = sum(len(element.cells) for element in bound.elements)
            counts = f"{count(len(bound.elements), 'element')}, {count(cells, 'value')}"
            yield f"{label}: matches; {counts}{f' ({values})' if values else ''}"


def _fields(fields: Fields, profiles: ProfileSet) -> Iterator[str]:
    for row in range(len(fields)):
        spec = profiles.specs[int(fields.spec[row])]
        raw = fields.text.get(row, f"{fields.value[row]:g}")
        yield f"{spec.name} = {raw}"
    for value in fields.rejected:
        yield f"{value.field}: rejected: {value.reason.value}{f' ({value.detail})' if value.detail else ''}"
    if fields.ignored:
        yield f"marked by the profile as not measured: {count(fields.ignored, 'value')}"


def _readings(fields: Fields, profiles: ProfileSet, devices: EveryDevice) -> Iterator[str]:
    sent = without_single_noise(fields.value)
    for row in range(len(fields)):
        spec = profiles.specs[int(fields.spec[row])]
        quantity = PROPERTIES.by_name(spec.property)
        scale, offset = fields.override_scale.get(row, (spec.scale, spec.offset))
        number = float(without_noise(sent[row : row + 1] * scale + offset)[0])
        channel = f"[{spec.channel}]" if spec.channel else ""
        value = fields.text.get(row) or (
            str(bool(number)).lower() if quantity.kind is ValueKind.BOOLEAN else f"{number:.10g}"
        )
        outside = quantity.kind is ValueKind.NUMBER and not spec.low <= number <= spec.high
        quality = f"  outside {spec.low:g} to {spec.high:g}" if outside else ""
        if row in fields.source_quality:
            quality = f"  {quality_word(fields.source_quality[row])} (by the device's flag){quality}"
        time = _time(int(fields.time[row]))
        quality_of_time = TimeQuality(int(fields.time_quality[row])).name.lower()
        device = devices.names[int(fields.device[row])]
        yield f"{device} {spec.property}{channel} = {value} {quantity.unit} at {time} ({quality_of_time}){quality}"


def _identity(fields: Fields, profiles: ProfileSet) -> Iterator[str]:
    kinds = dict.fromkeys(profiles.specs[int(spec)].identity for spec in fields.spec)
    for kind in kinds:
        if kind is IdentityKind.FRAME:
            yield "device, property, frame counter and bytes; copies over another network within ten minutes are equal"
        elif kind is IdentityKind.NONE:
            yield "nothing identifies these readings: accepted as unidentifiable, duplicates cannot be detected"
        else:
            yield f"device, property and {kind.value.replace('_', ' ')}"


def _commit(fields: Fields) -> str:
    judged = count(len(fields), "value")
    return (
        f"1 message decoded: {judged} to check for duplicates, {len(fields.rejected)} rejected, {fields.ignored} empty"
    )


def _time(time: int) -> str:
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    except OverflowError:
        return f"{time} µs since 1970, beyond the years 1 to 9999"
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
