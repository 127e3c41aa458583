"""Explains one message, stage by stage: which profile claims it and why, what it holds, and what would be committed.

No registry is asked: every device that the topic or the payload names is taken to exist, with the profile in question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict

import numpy as np

from sensegate.clock import Clock, SystemClock
from sensegate.decode.decode import Decoder
from sensegate.decode.extract import Leaf, bind
from sensegate.decode.frame import Frame
from sensegate.decode.paths import render
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.routes import Route
from sensegate.errors import Rejected
from sensegate.model import BOOL, Device, Fields, IdentityKind, Message
from sensegate.properties import PROPERTIES, Kind
from sensegate.quality import TimeQuality, quality_word

NESTING_MAX = 32


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
    clock: Clock | None = None,
) -> list[Stage]:
    """Return the walk of a message through decoding; `device` is the credential's, where the topic names none.

    Raises:
        ProfileError: a profile cannot be loaded.
    """
    loaded = profiles if isinstance(profiles, ProfileSet) else ProfileSet.load(profiles)
    received = (clock or SystemClock()).now()
    message = Message(topic, payload, received, 1, principal=device if topic.startswith("http/") else "")
    stages: list[Stage] = [_stage("message", _message(message))]
    candidates = list(dict.fromkeys(rule.profile for rule, _ in loaded.match(topic)))
    if topic.startswith("http/") or not candidates:
        stages.append(_stage("claim", [f"no profile has a topic that matches '{topic}'", "quarantined: no_profile"]))
        return stages
    stages.append(_stage("claim", list(_claims(loaded, topic))))
    for name in candidates:
        stages += _by_profile(loaded, name, message)
    return stages


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
    fields = decoder.decode([message])
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
    for rule, wrap in route.rules:
        what = f"message {rule.number + 1} (line {rule.line}, format {rule.format})"
        if rule.ignore and not rule.where and not rule.root:
            yield f"{what}: known and without readings; tried last"
            continue
        deciding: list[Leaf] = []
        try:
            tree = rule.parse(Frame(message.payload, NESTING_MAX, message.topic, message.received))
            bound = bind(rule, wrap, tree, deciding)
        except Rejected as why:
            yield f"{what}: {why}"
            continue
        seen = ", ".join(f"{render(leaf.pointer)} = {leaf.raw!r}" for leaf in deciding[:8])
        if bound is None:
            yield f"{what}: does not hold{f' ({seen})' if seen else ''}"
        else:
            cells = sum(len(element.cells) for element in bound.elements)
            yield f"{what}: holds; {len(bound.elements)} elements, {cells} values{f' ({seen})' if seen else ''}"


def _fields(fields: Fields, profiles: ProfileSet) -> Iterator[str]:
    for row in range(len(fields)):
        spec = profiles.specs[int(fields.spec[row])]
        raw = fields.text.get(row, f"{fields.value[row]:g}")
        yield f"{spec.name} = {raw}"
    for value in fields.rejected:
        yield f"{value.field}: rejected: {value.reason.value}{f' ({value.detail})' if value.detail else ''}"
    if fields.ignored:
        yield f"{fields.ignored} values mean: not measured"


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
        if kind is IdentityKind.NONE:
            yield "nothing identifies these readings: accepted as unidentifiable, duplicates cannot be told"
        else:
            yield f"device, property and {kind.value.replace('_', ' ')}"


def _commit(fields: Fields) -> str:
    return (
        f"1 message decoded: {len(fields)} values to be judged, {len(fields.rejected)} rejected, {fields.ignored} empty"
    )


def _time(time: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
