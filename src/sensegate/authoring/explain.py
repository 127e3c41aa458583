"""Explains one message, stage by stage: which profile claims it and why, what it holds, and what would be committed.

No registry is asked: every device that the topic or the payload names is taken to exist, with the profile in question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from sensegate.authoring.stubs import CARRIER, DEVICE, carrier_payload, standin
from sensegate.clock import Clock, SystemClock
from sensegate.decode.chain import Opened, frames
from sensegate.decode.decode import Decoder
from sensegate.decode.extract import Leaf, bind
from sensegate.decode.frame import Frame
from sensegate.decode.paths import render
from sensegate.decode.plan_cache import Holder
from sensegate.decode.profile import Rule, Whom
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.routes import Route
from sensegate.decode.times import BAD
from sensegate.errors import ConfigError, Rejected
from sensegate.model import BOOL, Device, Fields, IdentityKind, Message
from sensegate.quantities.properties import PROPERTIES, Kind
from sensegate.quantities.quality import TimeQuality, quality_word
from sensegate.wording import count, unknown_profile

NESTING_MAX = 32
PUSHED = ("http/", "tcp/")
"""Topics that no device chose: the listener names it in them."""


class Stage(TypedDict):
    """One stage and what there is to say of it."""

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
        # its gateway is whichever asks: the first that was named
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
) -> list[Stage]:
    """Return the walk of a message through decoding.

    `device` is the credential's, where the topic names none; `profile` the device's own, where the message is a network
    server's. Without a topic the payload is a frame on `port`, as a network server brings it.

    Raises:
        ProfileError: a profile cannot be loaded.
        ConfigError: there is no such profile.
    """
    loaded = profiles if isinstance(profiles, ProfileSet) else ProfileSet.load(profiles)
    if profile and profile not in loaded:
        raise ConfigError(f"no profile {profile}", key="profile", remedy=unknown_profile(profile, loaded.ids))
    received = (clock or SystemClock()).now()
    if not topic:
        return _of_frame(loaded, profile, Carried(payload, port), received)
    if topic.startswith(PUSHED):
        return _of_push(loaded, profile, Message(topic, payload, received, 1, device or topic.rpartition("/")[2]))
    message = Message(topic, payload, received, 1)
    stages: list[Stage] = [_stage("message", _message(message))]
    candidates = list(dict.fromkeys(rule.profile for rule, _ in loaded.match(topic)))
    if not candidates:
        remedy = "name this topic in a profile: `sensegate profile new --from FILE` drafts one from messages"
        told = [f"no profile has a topic that matches '{topic}'", "quarantined: no_profile", remedy]
        stages.append(_stage("claim", told))
        return stages
    stages.append(_stage("claim", list(_claims(loaded, topic))))
    for name in candidates:
        if profile in {"", name} and not _only_carries(loaded, name):
            stages += _by_profile(loaded, name, message)
        if profile != name:
            stages += _by_chain(loaded, name, message, profile)
    return stages


def _of_push(profiles: ProfileSet, name: str, message: Message) -> list[Stage]:
    """Return the walk of what a device pushed itself (HTTP) or said on a line of its own (TCP)."""
    stages = [_stage("message", _message(message))]
    whose = f"'{message.principal}' is who it logged in as"
    if not name:
        why = "its profile, in the registry, decodes what it sends: name it to see how"
        return [*stages, _stage("claim", [whose, why])]
    return [*stages, _stage("claim", [whose, f"{name} decodes it"]), *_by_profile(profiles, name, message)]


def _only_carries(profiles: ProfileSet, name: str) -> bool:
    found = profiles.find(name)
    return found is not None and all(rule.whom is not Whom.OWN for rule in found.rules)


class Carried(NamedTuple):
    """A frame without its envelope."""

    payload: bytes
    port: int | None


def _of_frame(profiles: ProfileSet, name: str, frame: Carried, received: int) -> list[Stage]:
    specs = list(profiles.specs)
    found = profiles.find(name)
    both = ProfileSet([*([found] if found else []), standin(CARRIER, specs)], specs)
    message = Message("carrier/device", carrier_payload(frame.payload, frame.port), received, 1)
    lines = [f"frame on port {frame.port}", f"{len(frame.payload)} bytes, received {_time(received)}"]
    return [_stage("message", lines), *_by_chain(both, "standin/carrier", message, name)]


def _by_chain(profiles: ProfileSet, carrier: str, message: Message, name: str) -> Iterator[Stage]:
    """Yield what the envelopes of a carrier hold, and what the profile `name` (empty: not said) makes of it."""
    found = profiles.find(carrier)
    if found is None or not any(rule.chains for rule in found.rules):
        return
    specs = list(profiles.specs)
    own = profiles.find(name) or standin(DEVICE, specs)
    devices = EveryDevice(own.id)
    both = ProfileSet([found, own], specs)
    decoder = Decoder(both, devices)
    route = decoder.routes.make(message.topic, message.principal)
    try:
        inside = list(frames(route.rules, Frame(message.payload, NESTING_MAX, message.topic, message.received)))
    except Rejected as why:
        yield _stage(f"envelope of {carrier}", [f"quarantined: {why}"])
        return
    yield _stage(f"envelope of {carrier}", [line for one in inside for line in _opened(*one)] or ["holds no frame"])
    if not inside:
        return
    ports = [frame.port for _, frame in inside]
    if not name:
        able = [one for one in profiles.ids if (known := profiles.find(one)) and any(map(known.on_port, ports))]
        words = [f"takes such frames: {one}" for one in able[:_ABLE_MAX]]
        yield _stage("profile", [*words, "the device's own profile, in the registry, decodes them: name it to see how"])
        return
    for _, frame in inside:
        rules = [(rule, "") for rule in own.on_port(frame.port)]
        taken = Frame(frame.data, NESTING_MAX, message.topic, message.received, frame.port)
        yield _stage(f"rules of {own.id}", list(_tried(rules, taken)) or [f"says nothing of port {frame.port}"])
    yield from _outcome(decoder.decode([message]), both, devices)


_ABLE_MAX = 20


def _opened(rule: Rule, frame: Opened) -> Iterator[str]:
    heard = frame.reception
    yield f"message {rule.number + 1} (line {rule.line}): device {frame.name or 'as the topic says'}, port {frame.port}"
    yield f"{len(frame.data)} bytes: {frame.data.hex()}"
    yield f"frame counter {heard.counter if heard.counter is not None else 'absent (0)'}"
    yield f"heard {_time(heard.time) if heard.time != BAD else 'at a time that cannot be read'}"


def _stage(name: str, lines: Iterable[str]) -> Stage:
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
    yield "the device's own profile, in the registry, decides which of them is taken"


def _by_profile(profiles: ProfileSet, name: str, message: Message) -> Iterator[Stage]:
    devices = EveryDevice(name)
    decoder = Decoder(_only(profiles, name), devices)
    route = decoder.routes.make(message.topic, message.principal)
    yield _stage(f"rules of {name}", list(_rules(route, message)))
    yield from _outcome(decoder.decode([message]), profiles, devices)


def _outcome(fields: Fields, profiles: ProfileSet, devices: EveryDevice) -> Iterator[Stage]:
    if fields.quarantined:
        refused = fields.quarantined[0]
        yield _stage("fields", [f"quarantined: {refused.reason.value}: {refused.detail}"])
        return
    yield _stage("fields", list(_fields(fields, profiles)) or ["no values: the profile ignores such messages"])
    yield _stage("readings", list(_readings(fields, profiles, devices)))
    yield _stage("identity", list(_identity(fields, profiles)))
    yield _stage("commit", [_commit(fields)])


def _only(profiles: ProfileSet, name: str) -> ProfileSet:
    found = profiles.find(name)
    return ProfileSet([found] if found else [], profiles.specs)


def _rules(route: Route, message: Message) -> Iterator[str]:
    if route.refusal is not None:
        yield f"refused: {route.refusal}"
    frame = Frame(message.payload, NESTING_MAX, message.topic, message.received)
    yield from _tried([one for one in route.rules if not one[0].chains], frame)


def _tried(rules: Iterable[Holder], frame: Frame) -> Iterator[str]:
    for rule, wrap in rules:
        what = f"message {rule.number + 1} (line {rule.line}, format {rule.format})"
        if rule.ignore and not rule.where and not rule.root:
            yield f"{what}: known and without readings; tried last"
            continue
        deciding: list[Leaf] = []
        try:
            tree = rule.parse(frame)
            bound = bind(rule, wrap, tree, deciding)
        except Rejected as why:
            yield f"{what}: {why}"
            continue
        seen = ", ".join(f"{render(leaf.pointer)} = {leaf.raw!r}" for leaf in deciding[:8])
        if bound is None:
            yield f"{what}: does not hold{f' ({seen})' if seen else ''}"
        else:
            cells = sum(len(element.cells) for element in bound.elements)
            held = f"{count(len(bound.elements), 'element')}, {count(cells, 'value')}"
            yield f"{what}: holds; {held}{f' ({seen})' if seen else ''}"


def _fields(fields: Fields, profiles: ProfileSet) -> Iterator[str]:
    for row in range(len(fields)):
        spec = profiles.specs[int(fields.spec[row])]
        raw = fields.text.get(row, f"{fields.value[row]:g}")
        yield f"{spec.name} = {raw}"
    for value in fields.rejected:
        yield f"{value.field}: rejected: {value.reason.value}{f' ({value.detail})' if value.detail else ''}"
    if fields.ignored:
        yield f"not measured, as the profile says: {count(fields.ignored, 'value')}"


def _readings(fields: Fields, profiles: ProfileSet, devices: EveryDevice) -> Iterator[str]:
    for row in range(len(fields)):
        spec = profiles.specs[int(fields.spec[row])]
        quantity = PROPERTIES.by_name(spec.property)
        scale, offset = fields.override_scale.get(row, (spec.scale, spec.offset))
        number = float(fields.value[row]) * scale + offset
        channel = f"[{spec.channel}]" if spec.channel else ""
        value = fields.text.get(row) or (
            str(bool(number)).lower() if quantity.kind is Kind.BOOLEAN else f"{number:.10g}"
        )
        outside = quantity.kind is Kind.NUMBER and not spec.low <= number <= spec.high
        quality = f"  outside {spec.low:g} to {spec.high:g}" if outside else ""
        if row in fields.source_quality:
            quality = f"  {quality_word(fields.source_quality[row])} (the device says so){quality}"
        at = _time(int(fields.time[row]))
        quality_of_time = TimeQuality(int(fields.time_quality[row])).name.lower()
        who = devices.names[int(fields.device[row])]
        yield f"{who} {spec.property}{channel} = {value} {quantity.unit} at {at} ({quality_of_time}){quality}"


def _identity(fields: Fields, profiles: ProfileSet) -> Iterator[str]:
    kinds = dict.fromkeys(profiles.specs[int(spec)].identity for spec in fields.spec)
    for kind in kinds:
        if kind is IdentityKind.FRAME:
            yield "device, property, frame counter and bytes; by another network within ten minutes the same"
        elif kind is IdentityKind.NONE:
            yield "nothing identifies these readings: accepted as unidentifiable, duplicates cannot be told"
        else:
            yield f"device, property and {kind.value.replace('_', ' ')}"


def _commit(fields: Fields) -> str:
    judged = count(len(fields), "value")
    return f"1 message decoded: {judged} to be judged, {len(fields.rejected)} rejected, {fields.ignored} empty"


def _time(time: int) -> str:
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    except OverflowError:
        return f"{time} µs since 1970, beyond the years 1 to 9999"
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
